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
#include <stdlib.h>

/* Guest time, as the platform's timers count it. */
struct clock_state {
    uint64_t guest_ns;
};

static const struct state_field clock_fields[] = {
    STATE_FIELD_U64(struct clock_state, guest_ns, .max = INT64_MAX),
};
static const struct state_table clock_table = {
    .name = "clock", .version = 1, STATE_TABLE_OF(struct clock_state, clock_fields)};

/* What is not kept in a device, gathered for saving or read into for loading. */
struct record {
    struct time_state time;
    struct clock_state clock;
    struct vcpu_state *vcpus;
    struct state_item *items;
    unsigned count;
};

static void record_finish(struct record *record)
{
    free(record->vcpus);
    free(record->items);
}

static int record_init(struct record *record, struct machine *machine, struct err *err)
{
    unsigned cpus = machine->config.cpus;
    *record = (struct record){0};
    record->vcpus = calloc(cpus, sizeof(record->vcpus[0]));
    record->items = calloc(2 + cpus + machine->device_count, sizeof(record->items[0]));
    if (!record->vcpus || !record->items) {
        record_finish(record);
        return err_sys(err, ERR_HOST, ENOMEM, "no room for the machine's state");
    }
    struct state_item *item = record->items;
    *item++ = (struct state_item){.table = &time_state_table, .object = &record->time};
    *item++ = (struct state_item){.table = &clock_table, .object = &record->clock};
    for (unsigned i = 0; i < cpus; i++)
        *item++ = (struct state_item){
            .table = &vcpu_state_table, .instance = i, .object = &record->vcpus[i]};
    for (unsigned i = 0; i < machine->device_count; i++) {
        struct device *device = machine->devices[i];
        *item++ = (struct state_item){
            .table = device->table, .instance = device->instance, .object = device->state};
    }
    record->count = (unsigned)(item - record->items);
    return 0;
}

static int gather(struct machine *machine, struct record *record, struct err *err)
{
    /* Time first: the TSC offsets that follow belong to this reading. */
    int ret = time_state_save(machine->vm, &record->time, err);
    record->clock.guest_ns = guest_clock_now(&machine->clock);
    for (unsigned i = 0; i < machine->config.cpus && ret == 0; i++) {
        struct vcpu *vcpu = machine->vcpus[i];
        ret = vcpu_state_save(vcpu->fd, &machine->caps, &record->vcpus[i], err);
        record->vcpus[i].extint = vcpu->extint_sent;
    }
    return ret;
}

int machine_save(struct machine *machine, struct stream *stream, struct err *err)
{
    assert(!machine->running);
    struct record record;
    int ret = record_init(&record, machine, err);
    if (ret < 0)
        return ret;
    ret = gather(machine, &record, err);
    if (ret == 0) {
        ret = state_save(stream, record.items, record.count);
        if (ret < 0)
            err_sys(err, ERR_FAILED, -ret, "cannot write the machine's state");
    }
    record_finish(&record);
    return ret;
}

/* Gives the vCPUs and the clock what was loaded into the record. */
static int apply(struct machine *machine, struct record *record, struct err *err)
{
    unsigned cpus = machine->config.cpus;
    int ret = time_state_load(machine->vm, &record->time, record->vcpus, cpus, err);
    for (unsigned i = 0; i < cpus && ret == 0; i++) {
        struct vcpu *vcpu = machine->vcpus[i];
        ret = vcpu_state_load(vcpu->fd, &machine->caps, &record->vcpus[i], VCPU_LOAD_ALL, err);
        err_prefix(ret < 0 ? err : NULL, "vCPU %u", i);
        vcpu_x86_forget_interrupts(vcpu);
        vcpu->extint_sent = record->vcpus[i].extint;
        if (ret == 0)
            kvm_x86_clock_was_paused(vcpu->fd);
    }
    if (ret == 0)
        guest_clock_set(&machine->clock, record->clock.guest_ns);
    return ret;
}

static int load(struct machine *machine, struct stream *stream, struct err *err)
{
    struct record record;
    int ret = record_init(&record, machine, err);
    if (ret < 0)
        return ret;
    ret = state_load(stream, record.items, record.count, err);
    if (ret == 0)
        ret = apply(machine, &record, err);
    record_finish(&record);
    return ret;
}

int machine_load(struct machine *machine, struct stream *stream, struct err *err)
{
    assert(!machine->running);
    /* KVM may refuse in the middle what looked right until then, so the way back is kept. */
    struct stream_buffer before;
    stream_buffer_init(&before, 0);
    int ret = machine_save(machine, &before.stream, err);
    if (ret == 0) {
        ret = load(machine, stream, err);
        if (ret < 0) {
            stream_buffer_rewind(&before);
            int back = load(machine, &before.stream, NULL);
            assert(back == 0); /* it came from here a moment ago */
            (void)back;
        }
    }
    stream_buffer_finish(&before);
    return ret;
}
