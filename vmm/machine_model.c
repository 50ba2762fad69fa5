/* SPDX-License-Identifier: MIT */
#include "vmm/machine_model.h"

#include "firmware/x86/layout.h"
#include "vmm/machine_parts.h"
#include "vmm/x86/cpu_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MODEL_DEVICES = 160 };

struct model_device {
    char name[STATE_NAME_MAX + 8]; /* of its state table, ends with zeroes */
    uint32_t instance;
    uint16_t version;
    uint16_t reserved;
};

struct machine_model {
    uint64_t memory; /* bytes */
    uint64_t hole;   /* where memory below 4 GiB ends */
    uint32_t cpus;
    uint32_t tsc_khz;
    uint32_t xsave_size;
    uint32_t device_count;
    uint32_t cpuid_count;
    uint32_t reserved;
    struct model_device devices[MODEL_DEVICES];
    struct kvm_cpuid_entry2 cpuid[KVM_X86_MAX_CPUID]; /* what vCPU 0 was given */
    uint32_t msr_count;
    uint32_t reserved_too;
    uint32_t msrs[KVM_X86_MAX_MSRS]; /* numbers of those that the state of a vCPU has */
};

/* --- life ------------------------------------------------------------------------------------- */

static void fill(struct machine_model *ret_model, const struct machine *machine)
{
    const struct vcpu_state *cpu = &machine->power_on[0];
    uint64_t below;
    gpa_t above;
    layout_split(machine->config.memory, &below, &above);
    *ret_model = (struct machine_model){.memory = machine->config.memory,
                                        .hole = below,
                                        .cpus = machine->config.cpus,
                                        .tsc_khz = cpu->tsc_khz,
                                        .xsave_size = cpu->xsave_size,
                                        .device_count = machine->device_count,
                                        .cpuid_count = cpu->cpuid_count,
                                        .msr_count = cpu->msr_count};
    for (unsigned i = 0; i < machine->device_count; i++) {
        const struct device *device = machine->devices[i];
        struct model_device *at = &ret_model->devices[i];
        memcpy(at->name, device->table->name, strlen(device->table->name));
        at->instance = device->instance;
        at->version = device->table->version;
    }
    memcpy(ret_model->cpuid, cpu->cpuid, sizeof(ret_model->cpuid));
    for (unsigned i = 0; i < cpu->msr_count; i++)
        ret_model->msrs[i] = cpu->msrs[i].index;
}

int machine_model_create(struct machine_model **ret_model, struct err *err)
{
    struct machine_model *model = calloc(1, sizeof(*model));
    if (!model)
        return err_sys(err, ERR_HOST, ENOMEM, "no room to describe a machine");
    *ret_model = model;
    return 0;
}

int machine_model_of(struct machine_model **ret_model, const struct machine *machine,
                     struct err *err)
{
    int ret = machine_model_create(ret_model, err);
    if (ret == 0)
        fill(*ret_model, machine);
    return ret;
}

void machine_model_destroy(struct machine_model *model)
{
    free(model);
}

uint64_t machine_model_memory(const struct machine_model *model)
{
    return model->memory;
}

/* --- comparing -------------------------------------------------------------------------------- */

static const struct model_device *find(const struct machine_model *model,
                                       const struct model_device *wanted)
{
    for (unsigned i = 0; i < model->device_count; i++)
        if (model->devices[i].instance == wanted->instance &&
            strcmp(model->devices[i].name, wanted->name) == 0)
            return &model->devices[i];
    return NULL;
}

static int say_device(const struct model_device *device, const char *what, struct err *err)
{
    return err_say(err, ERR_STATE, ENOTSUP, "%s a device \"%s\" (%u)", what, device->name,
                   device->instance);
}

static int check_devices(const struct machine_model *here, const struct machine_model *wanted,
                         struct err *err)
{
    for (unsigned i = 0; i < wanted->device_count; i++) {
        const struct model_device *device = &wanted->devices[i];
        const struct model_device *ours = find(here, device);
        if (!ours)
            return say_device(device, "the state has, and this machine lacks,", err);
        if (ours->version < device->version)
            return err_say(err, ERR_STATE, ENOTSUP,
                           "the state of device \"%s\" is of version %u, and this minivmm knows %u",
                           device->name, device->version, ours->version);
    }
    for (unsigned i = 0; i < here->device_count; i++)
        if (!find(wanted, &here->devices[i]))
            return say_device(&here->devices[i], "this machine has, and the state lacks,", err);
    return 0;
}

static void cpuid_of(const struct machine_model *model, struct kvm_x86_cpuid *ret_cpuid)
{
    *ret_cpuid = (struct kvm_x86_cpuid){.count = model->cpuid_count};
    memcpy(ret_cpuid->entries, model->cpuid, sizeof(model->cpuid));
}

/* A vCPU that is given all that this host can, in a VM of its own. */
struct probe {
    struct kvm kvm;
    int vm, vcpu;
    struct kvm_x86_cpuid cpuid; /* what it has: KVM may add to what it was given */
    uint32_t tsc_khz;
};

static int ask_kvm(struct probe *probe)
{
    int ret = kvm_create_vm(&probe->kvm, &probe->vm);
    if (ret == 0) /* as a machine has it: some MSRs are the local APIC's */
        ret = kvm_vm_enable_cap(probe->vm, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PINS);
    if (ret == 0)
        ret = kvm_vm_create_vcpu(probe->vm, 0, &probe->vcpu);
    if (ret == 0)
        ret = kvm_x86_set_cpuid(probe->vcpu, &probe->cpuid);
    if (ret == 0)
        ret = kvm_x86_get_cpuid(probe->vcpu, &probe->cpuid);
    if (ret == 0 && kvm_x86_get_tsc_khz(probe->vcpu, &probe->tsc_khz) < 0)
        probe->tsc_khz = 0;
    return ret;
}

static int probe_host(struct probe *probe, unsigned cpus, struct err *err)
{
    *probe = (struct probe){.kvm.fd = -1, .vm = -1, .vcpu = -1};
    int ret = kvm_open(&probe->kvm, err);
    if (ret < 0)
        return ret;
    const struct cpuid_config config = machine_cpuid_config(&probe->kvm, cpus);
    ret = cpuid_build(&probe->kvm, &config, &probe->cpuid, err);
    if (ret < 0)
        return ret;
    ret = ask_kvm(probe);
    return ret < 0 ? err_sys(err, ERR_HOST, -ret, "cannot learn what this host's CPUs can") : 0;
}

static void probe_end(struct probe *probe)
{
    if (probe->vcpu >= 0)
        close(probe->vcpu);
    if (probe->vm >= 0)
        close(probe->vm);
    kvm_close(&probe->kvm);
}

int machine_model_check_host(const struct machine_model *wanted, struct err *err)
{
    struct probe probe;
    struct kvm_x86_cpuid guest;
    cpuid_of(wanted, &guest);
    int ret = probe_host(&probe, wanted->cpus, err);
    if (ret == 0)
        ret = cpu_model_check(&probe.cpuid, &guest, err);
    if (ret == 0)
        ret = vcpu_state_check_tsc(wanted->tsc_khz, probe.tsc_khz, err);
    if (ret == 0)
        ret = vcpu_state_check_msrs(probe.vcpu, wanted->msrs, wanted->msr_count, err);
    probe_end(&probe);
    return ret;
}

int machine_model_check(const struct machine_model *wanted, const struct machine *machine,
                        struct err *err)
{
    struct machine_model here;
    fill(&here, machine);
    if (wanted->memory != here.memory || wanted->hole != here.hole)
        return err_say(err, ERR_STATE, ENOTSUP,
                       "the state is of a machine with %llu MiB of memory, this one has %llu",
                       (unsigned long long)wanted->memory >> 20,
                       (unsigned long long)here.memory >> 20);
    if (wanted->cpus != here.cpus)
        return err_say(err, ERR_STATE, ENOTSUP,
                       "the state is of a machine with %u vCPUs, this one has %u", wanted->cpus,
                       here.cpus);
    struct kvm_x86_cpuid cpuid, cpuid_wanted;
    cpuid_of(&here, &cpuid);
    cpuid_of(wanted, &cpuid_wanted);
    int ret = check_devices(&here, wanted, err);
    if (ret == 0)
        ret = cpu_model_check(&cpuid, &cpuid_wanted, err);
    return ret < 0 ? ret : vcpu_state_check_tsc(wanted->tsc_khz, here.tsc_khz, err);
}

/* --- the table -------------------------------------------------------------------------------- */

static int validate(const void *object, struct err *err)
{
    const struct machine_model *model = object;
    if (model->memory == 0 || model->memory % PAGE_SIZE != 0 || model->memory > LAYOUT_MAX_RAM)
        return err_say(err, ERR_FAILED, EBADMSG, "no machine has a memory of %llu bytes",
                       (unsigned long long)model->memory);
    for (unsigned i = 0; i < model->device_count; i++) {
        const struct model_device *device = &model->devices[i];
        if (memchr(device->name, '\0', sizeof(device->name)) == NULL)
            return err_say(err, ERR_FAILED, EBADMSG, "the name of device %u has no end", i);
        for (const char *c = device->name; *c; c++)
            if (*c < ' ' || *c > '~')
                return err_say(err, ERR_FAILED, EBADMSG, "the name of device %u is none", i);
    }
    return 0;
}

static const struct state_field device_fields[] = {
    STATE_FIELD_BYTES(struct model_device, name),
    STATE_FIELD_U32(struct model_device, instance),
    STATE_FIELD_U16(struct model_device, version),
    STATE_FIELD_BYTES(struct model_device, reserved),
};

static const struct state_table device_table = {
    .name = "device", .version = 1, STATE_TABLE_OF(struct model_device, device_fields)};

#define COUNTED(member_) \
    .counted = true, .count_offset = offsetof(struct machine_model, member_##_count)

static const struct state_field fields[] = {
    STATE_FIELD_U64(struct machine_model, memory),
    STATE_FIELD_U64(struct machine_model, hole),
    STATE_FIELD_U32(struct machine_model, cpus, .min = 1, .max = LAYOUT_MAX_CPUS),
    STATE_FIELD_U32(struct machine_model, tsc_khz),
    STATE_FIELD_U32(struct machine_model, xsave_size),
    STATE_FIELD_U32(struct machine_model, device_count, .max = MODEL_DEVICES),
    STATE_FIELD_U32(struct machine_model, cpuid_count, .max = KVM_X86_MAX_CPUID),
    STATE_FIELD_BYTES(struct machine_model, reserved),
    STATE_FIELD_TABLE(struct machine_model, devices, struct model_device, &device_table,
                      COUNTED(device)),
    STATE_FIELD_TABLE(struct machine_model, cpuid, struct kvm_cpuid_entry2, &cpuid_entry_table,
                      COUNTED(cpuid)),
    STATE_FIELD_U32(struct machine_model, msr_count, .max = KVM_X86_MAX_MSRS, .since = 2),
    STATE_FIELD_BYTES(struct machine_model, reserved_too, .since = 2),
    STATE_FIELD_U32(struct machine_model, msrs, COUNTED(msr), .since = 2),
};

static const struct state_table table = {
    .name = "model",
    .version = 2,
    STATE_TABLE_OF(struct machine_model, fields),
    .validate = validate,
};

struct state_item machine_model_item(struct machine_model *model)
{
    return (struct state_item){.table = &table, .object = model};
}
