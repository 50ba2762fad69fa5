/* SPDX-License-Identifier: MIT */
/*
 * How the guest sees a virtio device on PCI (virtio 1.2, section 4.1): capabilities that say where
 * its registers are, the registers, and interrupts.
 *
 * BAR 0, a page for each kind, so that a guest can map them apart:
 *
 *   0x0000  common configuration, below as struct common
 *   0x1000  ISR status: 1 a queue, 2 the configuration; a read clears it
 *   0x2000  the device's own configuration
 *   0x3000  doorbells: a write to 0x3000 + 4 * queue, whatever its width and value
 *
 * Common configuration can be read in pieces of any width. A write counts only when it is exactly a
 * field; the 64-bit ones may also be written in two halves (4.1.3.1).
 *
 * The same registers can be reached by four bytes of configuration space (PCI_CFG, 4.1.4.9), for
 * those who cannot map a BAR, such as a BIOS in 16-bit code.
 */
#include "virtio/virtio_pci.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    VENDOR = 0x1af4,
    DEVICE_BASE = 0x1040,
    REVISION = 1, /* 4.1.2.1: a modern device */

    BAR = 0,
    BAR_SIZE = 0x4000,
    MSIX_BAR = 2,
    PAGE = 0x1000,
    COMMON_AT = 0,
    ISR_AT = 0x1000,
    CONFIG_AT = 0x2000,
    DOORBELLS_AT = 0x3000,
    DOORBELL_STEP = 4,

    ISR_QUEUE = 1,
    ISR_CONFIG = 2,
    NO_VECTOR = 0xffff,
};

/* Common configuration (4.1.4.3), 64-bit fields as their halves. */
struct common {
    uint32_t offered_select;
    uint32_t offered;
    uint32_t accepted_select;
    uint32_t accepted;
    uint16_t config_vector;
    uint16_t queue_count;
    uint8_t status;
    uint8_t config_generation;
    uint16_t queue_select;
    uint16_t queue_size;
    uint16_t queue_vector;
    uint16_t queue_enable;
    uint16_t queue_doorbell; /* in steps */
    uint32_t descriptors_low, descriptors_high;
    uint32_t available_low, available_high;
    uint32_t used_low, used_high;
    uint16_t queue_notify_data; /* these two belong to features that are not offered */
    uint16_t queue_reset;
};

_Static_assert(sizeof(struct common) == 0x3c, "the spec's layout");

/* A capability (4.1.4), from its beginning. */
struct capability {
    uint8_t id, next; /* filled in by pci_function_add_capability() */
    uint8_t length;
    uint8_t type;
    uint8_t bar;
    uint8_t instance;
    uint8_t padding[2];
    uint32_t offset;
    uint32_t size;
    uint32_t more; /* NOTIFY: the step of doorbells. PCI_CFG: the four bytes */
};

enum { CAPABILITY_ID = 0x09, COMMON = 1, NOTIFY = 2, ISR = 3, DEVICE = 4, PCI_CFG = 5 };

struct virtio_pci_state {
    struct pci_state pci;
    struct pci_msix_state msix;
    uint32_t offered_select;
    uint32_t accepted_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint16_t queue_vectors[VIRTIO_MAX_QUEUES];
    uint8_t isr;
    uint8_t reserved[3];
};

/* All but the creation is under the lock of the virtio device. */
struct virtio_pci {
    struct device device;
    struct virtio_pci_state state;
    struct virtio_pci_config config;
    struct virtio *virtio; /* NULL after it has ended */
    struct virtio_transport transport;
    struct pci_function function;
    struct pci_msix msix;
    unsigned window;                       /* where the PCI_CFG capability is */
    bool master;                           /* what the command register said last */
    uint64_t bar;                          /* where BAR 0 is, 0 for nowhere */
    uint64_t doorbells[VIRTIO_MAX_QUEUES]; /* where they are put up, 0 for not */
};

/* --- doorbells ------------------------------------------------------------------------------ */

static void set_doorbell(struct virtio_pci *transport, unsigned queue, uint64_t address)
{
    const struct doorbell_board *board = transport->config.doorbells;
    uint64_t *at = &transport->doorbells[queue];
    int fd = transport->virtio->queues[queue].doorbell;

    if (!board || *at == address)
        return;
    if (*at)
        board->remove(board->ctx, *at, fd);
    *at = 0;
    /* Where it cannot be put up, the write arrives at handle_write(). */
    if (address && board->add(board->ctx, address, fd) == 0)
        *at = address;
}

static void update_doorbell(struct virtio_pci *transport, unsigned queue)
{
    const struct virtio_state *state = transport->virtio->state;
    bool wanted = transport->bar && state->queues[queue].enabled && !state->resetting;
    set_doorbell(transport, queue,
                 wanted ? transport->bar + DOORBELLS_AT + DOORBELL_STEP * queue : 0);
}

static void update_doorbells(struct virtio_pci *transport)
{
    for (unsigned i = 0; i < transport->virtio->queue_count; i++)
        update_doorbell(transport, i);
}

static void remove_doorbells(struct virtio_pci *transport)
{
    for (unsigned i = 0; i < transport->virtio->queue_count; i++)
        set_doorbell(transport, i, 0);
}

/* --- interrupts ----------------------------------------------------------------------------- */

static void drive_line(struct virtio_pci *transport)
{
    pci_function_set_intx(&transport->function,
                          transport->state.isr && !pci_msix_enabled(&transport->msix));
}

static void raise_queue(void *ctx, unsigned queue)
{
    struct virtio_pci *transport = ctx;
    if (pci_msix_enabled(&transport->msix)) {
        pci_msix_raise(&transport->msix, transport->state.queue_vectors[queue]);
        return;
    }
    transport->state.isr |= ISR_QUEUE;
    drive_line(transport);
}

static void raise_config(void *ctx)
{
    struct virtio_pci *transport = ctx;
    transport->state.isr |= ISR_CONFIG; /* with MSI-X too: 4.1.4.5.1 */
    if (pci_msix_enabled(&transport->msix))
        pci_msix_raise(&transport->msix, transport->state.config_vector);
    else
        drive_line(transport);
}

/* What the driver reads back tells it whether it got the vector (4.1.5.1.2). */
static uint16_t grant_vector(const struct virtio_pci *transport, uint64_t wanted)
{
    return wanted < transport->msix.count ? (uint16_t)wanted : NO_VECTOR;
}

/* --- common configuration ------------------------------------------------------------------- */

/* Back to how a driver finds it: by its reset, or by the machine's. */
static void forget_driver(struct virtio_pci *transport)
{
    struct virtio_pci_state *state = &transport->state;

    remove_doorbells(transport);
    state->offered_select = state->accepted_select = 0;
    state->queue_select = 0;
    state->config_vector = NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
        state->queue_vectors[i] = NO_VECTOR;
    state->isr = 0;
    drive_line(transport);
}

static struct common read_fields(const struct virtio_pci *transport)
{
    const struct virtio_pci_state *state = &transport->state;
    struct virtio *virtio = transport->virtio;
    const struct vring_state *queue = virtio_queue_state(virtio, state->queue_select);
    struct common common = {
        .offered_select = state->offered_select,
        .offered = virtio_offered(virtio, state->offered_select),
        .accepted_select = state->accepted_select,
        .accepted = virtio_accepted(virtio, state->accepted_select),
        .config_vector = state->config_vector,
        .queue_count = (uint16_t)virtio->queue_count,
        .status = virtio_status(virtio),
        .config_generation = virtio->state->config_generation,
        .queue_select = state->queue_select,
        .queue_vector = NO_VECTOR,
    };
    if (!queue)
        return common; /* size 0 says that it is not there */
    common.queue_size = queue->size;
    common.queue_vector = state->queue_vectors[state->queue_select];
    common.queue_enable = queue->enabled;
    common.queue_doorbell = common.queue_notify_data = state->queue_select;
    common.descriptors_low = (uint32_t)queue->descriptors;
    common.descriptors_high = (uint32_t)(queue->descriptors >> 32);
    common.available_low = (uint32_t)queue->available;
    common.available_high = (uint32_t)(queue->available >> 32);
    common.used_low = (uint32_t)queue->used;
    common.used_high = (uint32_t)(queue->used >> 32);
    return common;
}

static uint64_t read_common(const struct virtio_pci *transport, uint64_t offset, unsigned width)
{
    struct common common = read_fields(transport);
    uint64_t value = UINT64_MAX;

    if (offset >= sizeof(common))
        return value;
    size_t left = sizeof(common) - offset;
    memcpy(&value, (const uint8_t *)&common + offset, width < left ? width : left);
    return value;
}

/* A write of exactly a field, for switch. */
#define WRITE_TO(offset, width) ((offset) << 4 | (width))
#define FIELD(name)             WRITE_TO(offsetof(struct common, name), sizeof(((struct common *)0)->name))

static void set_low(uint64_t *address, uint64_t value)
{
    *address = (*address & ~0xffffffffull) | value;
}

static void set_high(uint64_t *address, uint64_t value)
{
    *address = (*address & 0xffffffffull) | value << 32;
}

static void write_places(struct virtio_pci *transport, uint64_t what, uint64_t value)
{
    unsigned index = transport->state.queue_select;
    struct vring_state *queue = virtio_queue_state(transport->virtio, index);

    if (!virtio_queue_open_to_change(transport->virtio, index))
        return;
    switch (what) {
    case FIELD(queue_size):
        if (value > 0 && (value & (value - 1)) == 0 &&
            value <= transport->virtio->queues[index].max_size)
            queue->size = (uint16_t)value;
        break;
    case FIELD(descriptors_low):
        set_low(&queue->descriptors, value);
        break;
    case FIELD(descriptors_high):
        set_high(&queue->descriptors, value);
        break;
    case FIELD(available_low):
        set_low(&queue->available, value);
        break;
    case FIELD(available_high):
        set_high(&queue->available, value);
        break;
    case FIELD(used_low):
        set_low(&queue->used, value);
        break;
    case FIELD(used_high):
        set_high(&queue->used, value);
        break;
    }
}

static void write_queue(struct virtio_pci *transport, uint64_t what, uint64_t value)
{
    unsigned index = transport->state.queue_select;

    if (!virtio_queue_state(transport->virtio, index))
        return;
    switch (what) {
    case FIELD(queue_vector):
        transport->state.queue_vectors[index] = grant_vector(transport, value);
        break;
    case FIELD(queue_enable):
        if (value != 1) /* 4.1.4.3.2: there is no way back but a reset */
            break;
        virtio_queue_enable(transport->virtio, index);
        update_doorbell(transport, index);
        break;
    default:
        write_places(transport, what, value);
    }
}

static void write_field(struct virtio_pci *transport, uint64_t what, uint64_t value)
{
    struct virtio_pci_state *state = &transport->state;

    switch (what) {
    case FIELD(offered_select):
        state->offered_select = (uint32_t)value;
        break;
    case FIELD(accepted_select):
        state->accepted_select = (uint32_t)value;
        break;
    case FIELD(accepted):
        virtio_accept(transport->virtio, state->accepted_select, (uint32_t)value);
        break;
    case FIELD(config_vector):
        state->config_vector = grant_vector(transport, value);
        break;
    case FIELD(status):
        virtio_set_status(transport->virtio, (uint8_t)value);
        if (value == 0)
            forget_driver(transport);
        break;
    case FIELD(queue_select):
        state->queue_select = (uint16_t)value;
        break;
    default:
        write_queue(transport, what, value);
    }
}

static void write_common(struct virtio_pci *transport, uint64_t offset, unsigned width,
                         uint64_t value)
{
    bool whole_address = width == 8 && (offset == offsetof(struct common, descriptors_low) ||
                                        offset == offsetof(struct common, available_low) ||
                                        offset == offsetof(struct common, used_low));

    if (transport->virtio->state->resetting)
        return;
    if (!whole_address) {
        write_field(transport, WRITE_TO(offset, width), value);
        return;
    }
    write_field(transport, WRITE_TO(offset, 4u), value & 0xffffffff);
    write_field(transport, WRITE_TO(offset + 4, 4u), value >> 32);
}

/* --- BAR 0 ---------------------------------------------------------------------------------- */

static uint64_t read_isr(struct virtio_pci *transport)
{
    uint8_t isr = transport->state.isr;
    transport->state.isr = 0;
    drive_line(transport);
    return isr;
}

static uint64_t read_bar(struct virtio_pci *transport, uint64_t offset, unsigned width)
{
    switch (offset / PAGE * PAGE) {
    case COMMON_AT:
        return read_common(transport, offset, width);
    case ISR_AT:
        return offset == ISR_AT ? read_isr(transport) : UINT64_MAX;
    case CONFIG_AT:
        return virtio_config_read(transport->virtio, offset - CONFIG_AT, width);
    default:
        return UINT64_MAX;
    }
}

static void write_bar(struct virtio_pci *transport, uint64_t offset, unsigned width, uint64_t value)
{
    switch (offset / PAGE * PAGE) {
    case COMMON_AT:
        write_common(transport, offset, width, value);
        break;
    case CONFIG_AT:
        virtio_config_write(transport->virtio, offset - CONFIG_AT, width, value);
        break;
    case DOORBELLS_AT:
        if (offset % DOORBELL_STEP == 0)
            virtio_ring_doorbell(transport->virtio,
                                 (unsigned)(offset - DOORBELLS_AT) / DOORBELL_STEP);
        break;
    default:
        break;
    }
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct virtio_pci *transport = device;
    virtio_lock(transport->virtio);
    uint64_t value = read_bar(transport, offset, width);
    virtio_unlock(transport->virtio);
    return value;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct virtio_pci *transport = device;
    virtio_lock(transport->virtio);
    write_bar(transport, offset, width, value);
    virtio_unlock(transport->virtio);
}

static const struct bus_ops bar_ops = {
    .name = "virtio-pci",
    .max_width = 8,
    .read = handle_read,
    .write = handle_write,
};

/* --- configuration space -------------------------------------------------------------------- */

static void handle_bar_changed(struct pci_function *function, unsigned bar, bool mapped,
                               uint64_t address)
{
    struct virtio_pci *transport = function->owner;
    if (bar != BAR)
        return;
    transport->bar = mapped ? address : 0;
    update_doorbells(transport);
}

static bool is_master(const struct virtio_pci *transport)
{
    return transport->state.pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

/*
 * Who takes the bus away from a device that works wants its memory for itself, now: Linux does so
 * before it starts another kernel (kexec), and many versions do not reset the device. Whoever comes
 * then has to. A driver that never gave us the bus is served all the same.
 */
static void update_master(struct virtio_pci *transport)
{
    bool was = transport->master;
    transport->master = is_master(transport);
    if (was && !transport->master && (virtio_status(transport->virtio) & VIRTIO_DRIVER_OK))
        virtio_break(transport->virtio);
}

/* Whether an access is one to the four bytes of PCI_CFG, and what stands in the capability then. */
static bool meets_window(const struct virtio_pci *transport, unsigned offset, unsigned width,
                         struct capability *ret_window)
{
    unsigned at = transport->window + (unsigned)offsetof(struct capability, more);
    if (offset >= at + 4 || offset + width <= at)
        return false;
    memcpy(ret_window, transport->state.pci.config + transport->window, sizeof(*ret_window));
    return ret_window->bar == BAR &&
           (ret_window->size == 1 || ret_window->size == 2 || ret_window->size == 4);
}

static void handle_before_read(struct pci_function *function, unsigned offset, unsigned width)
{
    struct virtio_pci *transport = function->owner;
    struct capability window;
    if (!meets_window(transport, offset, width, &window))
        return;
    uint64_t value = read_bar(transport, window.offset, window.size);
    memcpy(transport->state.pci.config + transport->window + offsetof(struct capability, more),
           &value, window.size);
}

static void handle_after_write(struct pci_function *function, unsigned offset, unsigned width)
{
    struct virtio_pci *transport = function->owner;
    struct capability window;
    uint64_t value = 0;

    pci_msix_config_written(&transport->msix);
    drive_line(transport); /* MSI-X may have gone on or off */
    update_master(transport);
    if (!meets_window(transport, offset, width, &window))
        return;
    memcpy(&value, &window.more, window.size);
    write_bar(transport, window.offset, window.size, value);
}

static const struct pci_function_ops function_ops = {
    .bar_changed = handle_bar_changed,
    .before_read = handle_before_read,
    .after_write = handle_after_write,
};

static unsigned add_capability(struct virtio_pci *transport, uint8_t type, uint32_t offset,
                               size_t size)
{
    enum { HEADER = offsetof(struct capability, length) };
    bool longer = type == NOTIFY || type == PCI_CFG;
    size_t length = longer ? sizeof(struct capability) : offsetof(struct capability, more);
    struct capability bytes = {.length = (uint8_t)length,
                               .type = type,
                               .bar = BAR,
                               .offset = offset,
                               .size = (uint32_t)size,
                               .more = type == NOTIFY ? DOORBELL_STEP : 0};
    struct capability writable = {0};
    if (type == PCI_CFG)
        writable = (struct capability){
            .bar = 0xff, .offset = UINT32_MAX, .size = UINT32_MAX, .more = UINT32_MAX};
    return pci_function_add_capability(&transport->function, CAPABILITY_ID, &bytes.length,
                                       &writable.length, length - HEADER);
}

static void describe(struct virtio_pci *transport)
{
    struct virtio *virtio = transport->virtio;
    const struct pci_id id = {
        .vendor = VENDOR,
        .device = DEVICE_BASE + virtio->ops->id,
        .subsystem_vendor = VENDOR,
        .subsystem = DEVICE_BASE + virtio->ops->id,
        .class_code = virtio->ops->pci_class,
        .revision = REVISION,
    };
    pci_function_init(&transport->function, &id, &transport->state.pci, &virtio->lock,
                      &function_ops, transport);
    pci_function_add_bar(&transport->function, BAR, BAR_SIZE, true, &bar_ops, transport);
    add_capability(transport, COMMON, COMMON_AT, sizeof(struct common));
    add_capability(transport, NOTIFY, DOORBELLS_AT, (size_t)DOORBELL_STEP * virtio->queue_count);
    add_capability(transport, ISR, ISR_AT, 1);
    if (virtio->config_size > 0)
        add_capability(transport, DEVICE, CONFIG_AT, virtio->config_size);
    transport->window = add_capability(transport, PCI_CFG, 0, 0);
}

/* --- device verbs --------------------------------------------------------------------------- */

static void virtio_pci_reset(struct device *device)
{
    struct virtio_pci *transport = container_of(device, struct virtio_pci, device);
    virtio_lock(transport->virtio);
    forget_driver(transport);
    pci_function_reset(&transport->function);
    pci_msix_reset(&transport->msix);
    virtio_unlock(transport->virtio);
}

static void virtio_pci_resume(struct device *device)
{
    struct virtio_pci *transport = container_of(device, struct virtio_pci, device);
    virtio_lock(transport->virtio);
    pci_function_resume(&transport->function);
    pci_msix_resume(&transport->msix);
    transport->master = is_master(transport);
    drive_line(transport);
    /* Those that are in their places have stayed there: to move one costs KVM a grace period. */
    update_doorbells(transport);
    virtio_unlock(transport->virtio);
}

/* The lock is held: from here on nothing of the guest, and nothing of the device, finds us. */
static void unplug(void *ctx)
{
    struct virtio_pci *transport = ctx;
    remove_doorbells(transport);
    pci_function_detach(&transport->function);
    transport->virtio->transport = NULL;
    transport->virtio = NULL;
}

static void virtio_pci_destroy(struct device *device)
{
    struct virtio_pci *transport = container_of(device, struct virtio_pci, device);
    struct virtio *virtio = transport->virtio;
    if (virtio) {
        virtio_lock(virtio);
        unplug(transport);
        virtio_unlock(virtio);
    }
    pci_msix_finish(&transport->msix);
    free(transport);
}

static const struct device_ops device_ops = {
    .reset = virtio_pci_reset,
    .resume = virtio_pci_resume,
    .destroy = virtio_pci_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct virtio_pci_state, pci, struct pci_state, &pci_state_table),
    STATE_FIELD_TABLE(struct virtio_pci_state, msix, struct pci_msix_state, &pci_msix_state_table),
    STATE_FIELD_U32(struct virtio_pci_state, offered_select),
    STATE_FIELD_U32(struct virtio_pci_state, accepted_select),
    STATE_FIELD_U16(struct virtio_pci_state, queue_select),
    STATE_FIELD_U16(struct virtio_pci_state, config_vector),
    STATE_FIELD_U16(struct virtio_pci_state, queue_vectors),
    STATE_FIELD_U8(struct virtio_pci_state, isr, .max = ISR_QUEUE | ISR_CONFIG),
    STATE_FIELD_BYTES(struct virtio_pci_state, reserved),
};

static const struct state_table table = {
    .name = "virtio-pci",
    .version = 1,
    STATE_TABLE_OF(struct virtio_pci_state, fields),
};

struct device *virtio_pci_device(struct virtio_pci *transport)
{
    return &transport->device;
}

int virtio_pci_create(struct virtio_pci **ret_transport, const struct virtio_pci_config *config,
                      struct virtio *virtio, struct err *err)
{
    assert(virtio->config_size <= PAGE);
    struct virtio_pci *transport = calloc(1, sizeof(*transport));
    if (!transport)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the transport of PCI slot %u",
                       config->slot);
    transport->device = (struct device){
        .ops = &device_ops, .table = &table, .state = &transport->state, .instance = config->slot};
    transport->config = *config;
    transport->virtio = virtio;
    transport->transport = (struct virtio_transport){.queue_interrupt = raise_queue,
                                                     .config_interrupt = raise_config,
                                                     .unplug = unplug,
                                                     .ctx = transport};
    describe(transport);
    int ret = pci_msix_init(&transport->msix, &transport->function, MSIX_BAR,
                            virtio->queue_count + 1, &transport->state.msix, config->router, err);
    if (ret == 0)
        ret = pci_function_attach(&transport->function, config->bus, config->slot, err);
    if (ret < 0) {
        virtio_pci_destroy(&transport->device);
        return ret;
    }
    forget_driver(transport);
    virtio->device.instance = config->slot;
    virtio->transport = &transport->transport;
    *ret_transport = transport;
    return 0;
}
