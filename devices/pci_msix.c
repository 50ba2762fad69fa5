/* SPDX-License-Identifier: MIT */
/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2). The BAR:
 *
 *   0x000  table: 16 bytes a vector (address 63:0, data, control with the mask in bit 0)
 *   0x800  pending bits, read only
 *
 * and the capability, after its header: u16 message control (14: mask all, 15: enable), then where
 * table and pending bits are, each with the number of the BAR in bits 2:0.
 *
 * A vector is live when nothing masks it. Its route is made when it becomes live for the first
 * time, so that a vector nobody uses costs nothing; where that fails its messages are lost. A route
 * is told what to send when the vector becomes live, as the spec has it: a function may keep what
 * it read at an unmask, and what a guest changes in a live vector counts from the next one on.
 */
#include "devices/pci_msix.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

enum {
    BAR_SIZE = 0x1000,
    PENDING_AT = 0x800,
    VECTOR_SIZE = 16,

    CAPABILITY_ID = 0x11,
    CONTROL_HIGH = 3, /* of the capability: the upper byte of message control */
    CONTROL_MASK_ALL = 0x40,
    CONTROL_ENABLE = 0x80,

    VECTOR_MASKED = 1,
    ADDRESS_FIXED = 3, /* bits of an address that are always 0 */
};

static uint8_t control(const struct pci_msix *msix)
{
    return msix->function->state->config[msix->capability + CONTROL_HIGH];
}

bool pci_msix_enabled(const struct pci_msix *msix)
{
    return control(msix) & CONTROL_ENABLE;
}

static bool is_live(const struct pci_msix *msix, unsigned vector)
{
    return (control(msix) & (CONTROL_ENABLE | CONTROL_MASK_ALL)) == CONTROL_ENABLE &&
           !(msix->state->vectors[vector].control & VECTOR_MASKED);
}

static uint32_t all_vectors(const struct pci_msix *msix)
{
    return UINT32_MAX >> (PCI_MSIX_MAX - msix->count);
}

static void send_message(const struct pci_msix *msix, unsigned vector)
{
    const uint64_t one = 1;

    /* An eventfd fails only when its count would overflow: then a message is on its way anyway. */
    if (msix->routes[vector].fd >= 0) {
        ssize_t written = write(msix->routes[vector].fd, &one, sizeof(one));
        (void)written;
    }
}

static void update_route(struct pci_msix *msix, unsigned vector)
{
    const struct pci_msix_vector *entry = &msix->state->vectors[vector];
    const struct msi_router *router = msix->router;
    struct msi_route *route = &msix->routes[vector];

    if (!(msix->unset & 1u << vector))
        return;
    if (route->fd < 0 && router->create(router->ctx, route, NULL) < 0) {
        route->fd = -1;
        return; /* tried again at the next unmask */
    }
    router->set(router->ctx, route, entry->address, entry->data);
    msix->unset &= ~(1u << vector);
}

/* The masks may have gone. */
static void serve_vector(struct pci_msix *msix, unsigned vector)
{
    uint32_t bit = 1u << vector;

    if (!is_live(msix, vector))
        return;
    update_route(msix, vector);
    if (msix->state->pending & bit) {
        msix->state->pending &= ~bit;
        pci_msix_raise(msix, vector);
    }
}

void pci_msix_raise(struct pci_msix *msix, unsigned vector)
{
    if (vector >= msix->count || !pci_msix_enabled(msix))
        return;
    if (is_live(msix, vector)) {
        msix->state->recent |= 1u << vector;
        send_message(msix, vector);
    } else {
        msix->state->pending |= 1u << vector;
    }
}

void pci_msix_config_written(struct pci_msix *msix)
{
    if (!pci_msix_enabled(msix))
        msix->state->pending = 0;
    for (unsigned i = 0; i < msix->count; i++)
        serve_vector(msix, i);
}

/* --- table and pending bits ---------------------------------------------------------------- */

static uint32_t read_word(const struct pci_msix *msix, uint64_t offset)
{
    const struct pci_msix_vector *entry;

    if (offset == PENDING_AT)
        return msix->state->pending;
    if (offset / VECTOR_SIZE >= msix->count)
        return 0;
    entry = &msix->state->vectors[offset / VECTOR_SIZE];
    switch (offset % VECTOR_SIZE) {
    case 0:
        return (uint32_t)entry->address;
    case 4:
        return (uint32_t)(entry->address >> 32);
    case 8:
        return entry->data;
    default:
        return entry->control;
    }
}

static void write_control(struct pci_msix *msix, unsigned vector, uint32_t value)
{
    struct pci_msix_vector *entry = &msix->state->vectors[vector];
    bool was_masked = entry->control & VECTOR_MASKED;

    entry->control = value & VECTOR_MASKED;
    if (was_masked)
        serve_vector(msix, vector);
}

static void write_word(struct pci_msix *msix, uint64_t offset, uint32_t value)
{
    unsigned vector = (unsigned)(offset / VECTOR_SIZE);
    struct pci_msix_vector before, *entry;

    if (vector >= msix->count)
        return;
    entry = &msix->state->vectors[vector];
    before = *entry;
    switch (offset % VECTOR_SIZE) {
    case 0:
        entry->address = (before.address >> 32 << 32) | (value & ~(uint32_t)ADDRESS_FIXED);
        break;
    case 4:
        entry->address = (uint64_t)value << 32 | (uint32_t)before.address;
        break;
    case 8:
        entry->data = value;
        break;
    default:
        write_control(msix, vector, value);
        return;
    }
    if (entry->address != before.address || entry->data != before.data)
        msix->unset |= 1u << vector;
}

static uint64_t handle_read(void *arg, uint64_t offset, unsigned width)
{
    struct pci_msix *msix = arg;
    uint64_t value = 0;

    pthread_mutex_lock(msix->function->lock);
    for (unsigned i = 0; i < width; i++) {
        uint64_t at = offset + i;
        uint64_t byte = read_word(msix, at & ~3ull) >> 8 * (at & 3) & 0xff;
        value |= byte << 8 * i;
    }
    pthread_mutex_unlock(msix->function->lock);
    return value;
}

/* The spec knows writes of aligned 4 and 8 bytes only; others have no effect. */
static void handle_write(void *arg, uint64_t offset, unsigned width, uint64_t value)
{
    struct pci_msix *msix = arg;

    if (width < 4 || offset % width)
        return;
    pthread_mutex_lock(msix->function->lock);
    for (unsigned i = 0; i < width; i += 4)
        write_word(msix, offset + i, (uint32_t)(value >> 8 * i));
    pthread_mutex_unlock(msix->function->lock);
}

static const struct bus_ops table_ops = {
    .name = "msix-table",
    .max_width = 8,
    .read = handle_read,
    .write = handle_write,
};

/* --- life ----------------------------------------------------------------------------------- */

void pci_msix_reset(struct pci_msix *msix)
{
    memset(msix->state, 0, sizeof(*msix->state));
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        msix->state->vectors[i].control = VECTOR_MASKED;
    msix->unset = UINT32_MAX;
}

void pci_msix_resume(struct pci_msix *msix)
{
    struct pci_msix_state *state = msix->state;
    uint32_t again = state->recent & all_vectors(msix);

    msix->unset = UINT32_MAX; /* the state may be another one */
    state->pending &= all_vectors(msix);
    state->recent = 0;
    pci_msix_config_written(msix);
    /* Not by pci_msix_raise(): what is only said again is not recent, or it would never end. */
    again &= pci_msix_enabled(msix) ? ~state->recent : 0;
    for (unsigned i = 0; i < msix->count; i++) {
        if (!(again & 1u << i))
            continue;
        if (is_live(msix, i))
            send_message(msix, i);
        else
            state->pending |= 1u << i;
    }
}

static const struct state_field vector_fields[] = {
    STATE_FIELD_U64(struct pci_msix_vector, address),
    STATE_FIELD_U32(struct pci_msix_vector, data),
    STATE_FIELD_U32(struct pci_msix_vector, control, .max = VECTOR_MASKED),
};

static const struct state_table vector_table = {
    .name = "msix-vector",
    .version = 1,
    STATE_TABLE_OF(struct pci_msix_vector, vector_fields),
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct pci_msix_state, vectors, struct pci_msix_vector, &vector_table),
    STATE_FIELD_U32(struct pci_msix_state, pending),
    STATE_FIELD_U32(struct pci_msix_state, recent),
};

const struct state_table pci_msix_state_table = {
    .name = "msix",
    .version = 1,
    STATE_TABLE_OF(struct pci_msix_state, fields),
};

int pci_msix_init(struct pci_msix *msix, struct pci_function *function, unsigned bar,
                  unsigned count, struct pci_msix_state *state, const struct msi_router *router,
                  struct err *err)
{
    const uint8_t bytes[] = {
        (uint8_t)(count - 1), 0, (uint8_t)bar, 0, 0, 0, (uint8_t)bar, PENDING_AT >> 8, 0, 0,
    };
    const uint8_t writable[sizeof(bytes)] = {0, CONTROL_MASK_ALL | CONTROL_ENABLE};

    assert(count >= 1 && count <= PCI_MSIX_MAX && bar < PCI_BARS);
    *msix = (struct pci_msix){
        .function = function, .state = state, .router = router, .count = count};
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        msix->routes[i].fd = -1;
    pci_msix_reset(msix);
    pci_function_add_bar(function, bar, BAR_SIZE, false, &table_ops, msix);
    msix->capability = pci_function_add_capability(function, CAPABILITY_ID, bytes, writable,
                                                   sizeof(bytes));
    return 0;
}

void pci_msix_finish(struct pci_msix *msix)
{
    for (unsigned i = 0; i < msix->count; i++)
        msix->router->destroy(msix->router->ctx, &msix->routes[i]);
    msix->count = 0;
}
