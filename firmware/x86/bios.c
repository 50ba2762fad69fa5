/* SPDX-License-Identifier: MIT */
/*
 * The BIOS's host half: one port, behind which each write is a call. The stub has put the caller's
 * registers and the interrupt's number into the mailbox; we copy it once, do the service on the
 * copy, and put it back. A write that no stub has announced finds no number there, and does
 * nothing.
 */
#include "firmware/x86/bios_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- memory --------------------------------------------------------------------------------- */

static uint64_t get(const struct bios_call *call, gpa_t at, size_t width)
{
    uint64_t value = 0;
    return memory_read(call->memory, at, &value, width) < 0 ? 0 : value;
}

static void put(struct bios_call *call, gpa_t at, size_t width, uint64_t value)
{
    int ret = memory_write(call->memory, at, &value, width);
    (void)ret; /* like a write to where there is nothing */
}

uint8_t bios_get8(const struct bios_call *call, gpa_t at)
{
    return (uint8_t)get(call, at, 1);
}

uint16_t bios_get16(const struct bios_call *call, gpa_t at)
{
    return (uint16_t)get(call, at, 2);
}

uint32_t bios_get32(const struct bios_call *call, gpa_t at)
{
    return (uint32_t)get(call, at, 4);
}

void bios_put8(struct bios_call *call, gpa_t at, uint8_t value)
{
    put(call, at, 1, value);
}

void bios_put16(struct bios_call *call, gpa_t at, uint16_t value)
{
    put(call, at, 2, value);
}

void bios_put32(struct bios_call *call, gpa_t at, uint32_t value)
{
    put(call, at, 4, value);
}

/* --- calls ---------------------------------------------------------------------------------- */

static void serve(struct bios_call *call)
{
    switch (call->mail.vector) {
    case 0x10:
        bios_video(call);
        break;
    case 0x11:
        bios_equipment(call);
        break;
    case 0x12:
        bios_memory_size(call);
        break;
    case 0x13:
        bios_disk(call);
        break;
    case 0x14: /* the serial port is the console's */
        set_high(&call->mail.eax, 0x80);
        break;
    case 0x15:
        bios_system(call);
        break;
    case 0x16:
        bios_keyboard(call);
        break;
    case 0x17: /* no printer answers */
        set_high(&call->mail.eax, 0x01);
        break;
    case 0x18:
        bios_boot_next(call);
        break;
    case 0x19:
        bios_boot_first(call);
        break;
    case 0x1A:
        bios_time(call);
        break;
    }
}

/* A call that was interrupted has not happened: the stub makes it once more. */
static void serve_or_repeat(struct bios_call *call)
{
    struct bios *bios = call->bios;
    const struct bios_mailbox mail = call->mail;
    const struct bios_state state = bios->state;

    bios->interrupted = false;
    call->mail.action = BIOS_DONE;
    serve(call);
    if (!bios->interrupted)
        return;
    call->mail = mail;
    call->mail.action = BIOS_AGAIN;
    bios->state = state;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct bios *bios = device;
    struct bios_call call = {.bios = bios, .memory = bios->config.memory};

    pthread_mutex_lock(&bios->lock);
    if (memory_read(call.memory, LAYOUT_BIOS, &call.mail, sizeof(call.mail)) == 0 &&
        call.mail.vector != BIOS_NO_VECTOR) {
        serve_or_repeat(&call);
        if (call.mail.action != BIOS_WAIT && call.mail.action != BIOS_AGAIN)
            call.mail.vector = BIOS_NO_VECTOR;
        int ret = memory_write(call.memory, LAYOUT_BIOS, &call.mail, sizeof(call.mail));
        (void)ret; /* it has been read from there */
    }
    pthread_mutex_unlock(&bios->lock);
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    return 0xFF;
}

static const struct bus_ops port_ops = {
    .name = "bios",
    .max_width = 1,
    .read = handle_read,
    .write = handle_write,
};

/* --- drives --------------------------------------------------------------------------------- */

static int note_answer(struct bios *bios, int ret)
{
    if (ret == -ECANCELED)
        bios->interrupted = true;
    return ret;
}

static int handle_drive_read(void *ctx, uint64_t offset, const struct iovec *iov, unsigned count)
{
    const struct bios_watch *watch = ctx;
    return note_answer(watch->bios, watch->drive->read(watch->drive->ctx, offset, iov, count));
}

static int handle_drive_write(void *ctx, uint64_t offset, const struct iovec *iov, unsigned count)
{
    const struct bios_watch *watch = ctx;
    return note_answer(watch->bios, watch->drive->write(watch->drive->ctx, offset, iov, count));
}

static void watch_drives(struct bios *bios)
{
    for (unsigned i = 0; i < bios->config.drive_count; i++) {
        const struct bios_drive *drive = &bios->config.drives[i];
        bios->watches[i] = (struct bios_watch){.bios = bios, .drive = drive};
        bios->drives[i] = *drive;
        bios->drives[i].read = handle_drive_read;
        bios->drives[i].write = handle_drive_write;
        bios->drives[i].ctx = &bios->watches[i];
    }
    bios->config.drives = bios->drives;
}

/* --- life ----------------------------------------------------------------------------------- */

static void bios_reset(struct device *device)
{
    struct bios *bios = container_of(device, struct bios, device);

    pthread_mutex_lock(&bios->lock);
    bios->state = (struct bios_state){.attribute = BIOS_NORMAL};
    bios->probed = false;
    bios->escape_since = 0;
    pthread_mutex_unlock(&bios->lock);
}

static void bios_resume(struct device *device)
{
    struct bios *bios = container_of(device, struct bios, device);

    /* The state may come from a machine whose drives had other contents in this place. */
    pthread_mutex_lock(&bios->lock);
    bios->probed = false;
    bios->escape_since = 0;
    pthread_mutex_unlock(&bios->lock);
}

static void bios_destroy(struct device *device)
{
    struct bios *bios = container_of(device, struct bios, device);

    if (bios->on_bus)
        bus_remove(bios->config.ports, BIOS_PORT);
    pthread_mutex_destroy(&bios->lock);
    free(bios);
}

static const struct device_ops device_ops = {
    .reset = bios_reset,
    .resume = bios_resume,
    .destroy = bios_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_U8(struct bios_state, boot_next, .max = BIOS_MAX_DRIVES),
    STATE_FIELD_U8(struct bios_state, row, .max = BIOS_ROWS - 1),
    STATE_FIELD_U8(struct bios_state, column, .max = BIOS_COLUMNS - 1),
    STATE_FIELD_BOOL(struct bios_state, lost),
    STATE_FIELD_U8(struct bios_state, attribute),
};

static const struct state_table table = {
    .name = "bios",
    .version = 1,
    STATE_TABLE_OF(struct bios_state, fields),
};

struct device *bios_device(struct bios *bios)
{
    return &bios->device;
}

int bios_create(struct bios **ret_bios, const struct bios_config *config, struct err *err)
{
    struct bios *bios = calloc(1, sizeof(*bios));
    int ret;

    if (!bios)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the BIOS");
    bios->device = (struct device){.ops = &device_ops, .table = &table, .state = &bios->state};
    bios->config = *config;
    bios->state.attribute = BIOS_NORMAL;
    pthread_mutex_init(&bios->lock, NULL);
    if (config->drive_count > BIOS_MAX_DRIVES) {
        ret = err_say(err, ERR_USAGE, E2BIG, "%u disks: our BIOS knows up to %d",
                      config->drive_count, BIOS_MAX_DRIVES);
        goto fail;
    }
    watch_drives(bios);
    ret = bus_add(config->ports, BIOS_PORT, 1, &port_ops, bios, err);
    if (ret < 0)
        goto fail;
    bios->on_bus = true;
    *ret_bios = bios;
    return 0;

fail:
    bios_destroy(&bios->device);
    return ret;
}
