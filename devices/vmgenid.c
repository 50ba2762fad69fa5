/* SPDX-License-Identifier: MIT */
/*
 * Microsoft's "Virtual Machine Generation ID" (2012): the id lies in guest memory, 8-byte aligned,
 * and the guest learns from ACPI where (firmware/x86/dsdt.asl).
 *
 * Nothing here runs on a vCPU's thread: the guest only reads its memory. It can write there too,
 * which fools nobody but itself until the next reset.
 */
#include "devices/vmgenid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct vmgenid_state {
    uint8_t id[16];
};

struct vmgenid {
    struct device device;
    struct vmgenid_state state;
    struct memory *memory;
    gpa_t gpa;
    void (*notify)(void *ctx);
    void *ctx;
};

/* The place is there: create has looked. */
void vmgenid_place(struct vmgenid *vmgenid)
{
    int ret = memory_write(vmgenid->memory, vmgenid->gpa, vmgenid->state.id,
                           sizeof(vmgenid->state.id));
    (void)ret;
}

void vmgenid_set(struct vmgenid *vmgenid, const uint8_t id[16])
{
    memcpy(vmgenid->state.id, id, sizeof(vmgenid->state.id));
    vmgenid_place(vmgenid);
    vmgenid->notify(vmgenid->ctx);
}

static void vmgenid_reset(struct device *device)
{
    /* The id stays: the same VM begins anew, or a state is loaded. */
}

static void vmgenid_resume(struct device *device)
{
    /* A loaded state comes with the memory that has the id. */
}

static void vmgenid_destroy(struct device *device)
{
    free(container_of(device, struct vmgenid, device));
}

static const struct device_ops device_ops = {
    .reset = vmgenid_reset,
    .resume = vmgenid_resume,
    .destroy = vmgenid_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_BYTES(struct vmgenid_state, id),
};

static const struct state_table table = {
    .name = "vmgenid",
    .version = 1,
    STATE_TABLE_OF(struct vmgenid_state, fields),
};

struct device *vmgenid_device(struct vmgenid *vmgenid)
{
    return &vmgenid->device;
}

int vmgenid_create(struct vmgenid **ret_vmgenid, struct memory *memory, gpa_t gpa,
                   const uint8_t id[16], void (*notify)(void *ctx), void *ctx, struct err *err)
{
    struct vmgenid *vmgenid = calloc(1, sizeof(*vmgenid));

    if (!vmgenid)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the VM generation id");
    vmgenid->device = (struct device){
        .ops = &device_ops, .table = &table, .state = &vmgenid->state};
    memcpy(vmgenid->state.id, id, sizeof(vmgenid->state.id));
    vmgenid->memory = memory;
    vmgenid->gpa = gpa;
    vmgenid->notify = notify;
    vmgenid->ctx = ctx;

    void *place;
    int r = memory_borrow(memory, gpa, sizeof(vmgenid->state.id), &place);
    if (r < 0) {
        vmgenid_destroy(&vmgenid->device);
        return err_sys(err, ERR_FAILED, -r, "no memory for the VM generation id at 0x%llx",
                       (unsigned long long)gpa);
    }
    *ret_vmgenid = vmgenid;
    return 0;
}
