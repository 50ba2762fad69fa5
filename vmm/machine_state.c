/* SPDX-License-Identifier: MIT */
/*
 * The machine's state: one section for its time, one for each vCPU, one for each device, in any
 * order. Guest memory is not among it: snapshot, migration and fault tolerance each move that in
 * their own way.
 */
#include "vmm/machine_parts.h"
#include "vmm/x86/vcpu_x86.h"

#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* 292 years. A state that was sent may be of that moment, and time goes on from there: what is
 * saved afterwards stays there, so that it loads. */
#define LATEST ((uint64_t)INT64_MAX)

static const struct state_field clock_fields[] = {
    STATE_FIELD_U64(struct clock_state, guest_ns, .max = LATEST),
};
const struct state_table clock_state_table = {
    .name = "clock", .version = 1, STATE_TABLE_OF(struct clock_state, clock_fields)};

/* All of it, apart from the machine: gathered for saving, or read in for loading. */
struct machine_record {
    struct machine *machine;
    struct time_state time;
    struct clock_state clock;
    struct vcpu_state *vcpus;
    struct state_item *items; /* those of the devices are the last ones */
    unsigned count;
    uint8_t *aside; /* what is the devices' */
};

void machine_record_destroy(struct machine_record *record)
{
    if (!record)
        return;
    free(record->aside);
    free(record->vcpus);
    free(record->items);
    free(record);
}

/* The next one begins where any struct may. */
static size_t room_for(const struct device *device)
{
    size_t each = alignof(max_align_t);
    return (device->table->size + each - 1) / each * each;
}

static size_t room_for_devices(const struct machine *machine)
{
    size_t room = 0;
    for (unsigned i = 0; i < machine->device_count; i++)
        room += room_for(machine->devices[i]);
    return room;
}

static void list_items(struct machine_record *record)
{
    const struct machine *machine = record->machine;
    struct state_item *item = record->items;
    uint8_t *aside = record->aside;
    *item++ = (struct state_item){.table = &time_state_table, .object = &record->time};
    *item++ = (struct state_item){.table = &clock_state_table, .object = &record->clock};
    for (unsigned i = 0; i < machine->config.cpus; i++)
        *item++ = (struct state_item){
            .table = &vcpu_state_table, .instance = i, .object = &record->vcpus[i]};
    for (unsigned i = 0; i < machine->device_count; i++) {
        const struct device *device = machine->devices[i];
        *item++ = (struct state_item){
            .table = device->table, .instance = device->instance, .object = aside};
        aside += room_for(device);
    }
    record->count = (unsigned)(item - record->items);
}

int machine_record_create(struct machine_record **ret_record, struct machine *machine,
                          struct err *err)
{
    unsigned cpus = machine->config.cpus;
    struct machine_record *record = calloc(1, sizeof(*record));
    if (record) {
        record->machine = machine;
        record->vcpus = calloc(cpus, sizeof(record->vcpus[0]));
        record->items = calloc(2 + cpus + machine->device_count, sizeof(record->items[0]));
        record->aside = calloc(1, room_for_devices(machine) + 1);
    }
    if (!record || !record->vcpus || !record->items || !record->aside) {
        machine_record_destroy(record);
        return err_sys(err, ERR_HOST, ENOMEM, "no room for the machine's state");
    }
    list_items(record);
    *ret_record = record;
    return 0;
}

static struct state_item *device_items(const struct machine_record *record)
{
    return record->items + record->count - record->machine->device_count;
}

int machine_record_take(struct machine_record *record, struct err *err)
{
    struct machine *machine = record->machine;
    assert(!machine->running);
    /* Time first: the TSC offsets that follow belong to this reading. */
    int ret = time_state_save(machine->vm, &record->time, err);
    uint64_t guest_ns = guest_clock_now(&machine->clock);
    record->clock.guest_ns = guest_ns < LATEST ? guest_ns : LATEST;
    for (unsigned i = 0; i < machine->config.cpus && ret == 0; i++)
        ret = vcpu_state_save(machine->vcpus[i]->fd, &machine->caps, &machine->power_on[i],
                              &record->vcpus[i], err);
    for (unsigned i = 0; i < machine->device_count && ret == 0; i++) {
        const struct device *device = machine->devices[i];
        memcpy(device_items(record)[i].object, device->state, device->table->size);
    }
    return ret;
}

int machine_record_write(const struct machine_record *record, struct stream *stream,
                         struct err *err)
{
    int ret = state_save(stream, record->items, record->count);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot write the machine's state") : 0;
}

int machine_save(struct machine *machine, struct stream *stream, struct err *err)
{
    struct machine_record *record;
    int ret = machine_record_create(&record, machine, err);
    if (ret < 0)
        return ret;
    ret = machine_record_take(record, err);
    if (ret == 0)
        ret = machine_record_write(record, stream, err);
    machine_record_destroy(record);
    return ret;
}

/*
 * The end of a level-triggered interrupt that the guest has written and KVM has not reported yet is
 * state that no request shows. It can be told from the outside: the I/O APIC waits for the end of a
 * vector that no local APIC has. Such a wait ends here: once too often is legal, never is not.
 */
static void settle_interrupts(struct machine *machine, const struct machine_record *record)
{
    enum { ISR = 0x100, IRR = 0x200 };
    uint32_t live[8] = {0};
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        const char *regs = record->vcpus[i].lapic.regs;
        for (unsigned word = 0; word < array_size(live); word++) {
            uint32_t in_service, requested;
            memcpy(&in_service, regs + ISR + 16 * word, sizeof(in_service));
            memcpy(&requested, regs + IRR + 16 * word, sizeof(requested));
            live[word] |= in_service | requested;
        }
    }
    ioapic_settle(machine->ioapic, live);
}

/* What a vCPU is belongs to the state: whoever takes this machine's state next is told of it. */
static void keep_cpu_model(struct machine *machine, unsigned id, const struct vcpu_state *loaded)
{
    struct vcpu_state *state = &machine->power_on[id];
    state->cpuid_count = loaded->cpuid_count;
    memcpy(state->cpuid, loaded->cpuid, sizeof(state->cpuid));
}

/* Gives the vCPUs and the clock what was loaded into the record. */
static int apply(struct machine *machine, struct machine_record *record, enum vcpu_load how,
                 struct err *err)
{
    unsigned cpus = machine->config.cpus;
    int ret = time_state_load(machine->vm, &record->time, record->vcpus, cpus, err);
    if (ret == 0) /* in the same moment */
        guest_clock_set(&machine->clock, record->clock.guest_ns);
    for (unsigned i = 0; i < cpus && ret == 0; i++) {
        struct vcpu *vcpu = machine->vcpus[i];
        ret = vcpu_state_load(vcpu->fd, &machine->caps, &record->vcpus[i], how, err);
        err_prefix(ret < 0 ? err : NULL, "vCPU %u", i);
        vcpu_x86_forget_interrupts(vcpu);
        if (ret < 0)
            break;
        kvm_x86_clock_was_paused(vcpu->fd);
        keep_cpu_model(machine, i, &record->vcpus[i]);
    }
    if (ret == 0)
        settle_interrupts(machine, record);
    return ret;
}

/* Reads a set of sections, and touches nothing of the machine. */
static int read_aside(struct machine_record **ret_record, struct machine *machine,
                      struct stream *stream, struct err *err)
{
    struct machine_record *record;
    int ret = machine_record_create(&record, machine, err);
    if (ret < 0)
        return ret;
    ret = state_load(stream, record->items, record->count, err);
    if (ret < 0)
        machine_record_destroy(record);
    else
        *ret_record = record;
    return ret;
}

/*
 * What was read becomes the machine's. What the host still does for the old state must not reach
 * the new one, so the devices are reset before. Requests that this cuts short are part of the old
 * state, and done again on a way back.
 */
static int take_over(struct machine *machine, struct machine_record *record, enum vcpu_load how,
                     struct err *err)
{
    for (unsigned i = 0; i < machine->device_count; i++)
        machine->devices[i]->ops->reset(machine->devices[i]);
    for (unsigned i = 0; i < machine->device_count; i++) {
        const struct device *device = machine->devices[i];
        memcpy(device->state, device_items(record)[i].object, device->table->size);
    }
    return apply(machine, record, how, err);
}

static int go_back(struct machine *machine, struct stream *stream, enum vcpu_load how)
{
    struct machine_record *record;
    int ret = read_aside(&record, machine, stream, NULL);
    if (ret < 0)
        return ret;
    ret = take_over(machine, record, how, NULL);
    machine_record_destroy(record);
    return ret;
}

static int load(struct machine *machine, struct stream *stream, enum vcpu_load how, struct err *err)
{
    assert(!machine->running);
    struct machine_record *record;
    int ret = read_aside(&record, machine, stream, err);
    if (ret < 0)
        return ret;
    /* KVM may refuse in the middle what looked right until then, so the way back is kept. */
    struct stream_buffer before;
    stream_buffer_init(&before, 0);
    ret = machine_save(machine, &before.stream, err);
    if (ret == 0 && (ret = take_over(machine, record, how, err)) < 0) {
        stream_buffer_rewind(&before);
        if (go_back(machine, &before.stream, how) < 0)
            err_prefix(err,
                       "the machine is lost: KVM takes neither the new state nor its own back");
    }
    stream_buffer_finish(&before);
    machine_record_destroy(record);
    return ret;
}

int machine_load(struct machine *machine, struct stream *stream, struct err *err)
{
    return load(machine, stream, VCPU_LOAD_ALL, err);
}

int machine_try(struct machine *machine, struct stream *stream, struct err *err)
{
    return load(machine, stream, VCPU_LOAD_TRIAL, err);
}
