/* SPDX-License-Identifier: MIT */
/*
 * The bus: configuration space by ports (PCI Local Bus 3.0, 3.2.2.3.2) and by memory (ECAM, PCI
 * Express Base 3.0, 7.2.2), and the host bridge.
 *
 *   port 0xCF8  CONFIG_ADDRESS, 32 bits at once: 31 enable, 23:16 bus, 15:11 slot, 10:8 function,
 *               7:2 register
 *   port 0xCFC  CONFIG_DATA, four bytes: the register's
 *   ECAM        bits 27:20 bus, 19:15 slot, 14:12 function, 11:0 register
 *
 * The bridge's lock guards the address register as well. The array of functions changes only while
 * no vCPU runs.
 */
#include "devices/pci_parts.h"

#include <errno.h>
#include <stdlib.h>

enum {
    PORT_ADDRESS = 0xcf8,
    PORT_DATA = 0xcfc,
    PORT_SIZE = 4,
    ECAM_SIZE = 256 << 20,
    ECAM_FUNCTION_SIZE = 4096,
};

#define ADDRESS_ENABLE (1u << 31)
#define ADDRESS_BITS   0x80fffffcu /* the others are reserved, and read as 0 */

/*
 * Red Hat's "generic PCI Express host bridge": known to every guest as a bridge that needs no
 * driver. Linux has no quirk for it, while ids of real chipsets bring theirs along (routing of
 * interrupts, ECAM found in chipset registers, errata). What matters is the class: Linux takes the
 * ports for working when slot 0 says "host bridge".
 */
static const struct pci_id bridge_id = {
    .vendor = 0x1b36,
    .device = 0x0008,
    .class_code = 0x060000,
};

static struct pci_function *find_function(const struct pci_bus *bus, unsigned number, unsigned slot,
                                          unsigned function)
{
    return number == 0 && function == 0 ? bus->functions[slot] : NULL;
}

/* --- the ways to it ----------------------------------------------------------------------- */

/* Only whole 32 bits are the address register's: single bytes here are other chips' (reset control
 * at 0xCF9), or a guest that tries the older way to configure. */
static uint64_t handle_address_read(void *device, uint64_t offset, unsigned width)
{
    struct pci_bus *bus = device;

    if (width != 4)
        return UINT64_MAX;
    pthread_mutex_lock(&bus->lock);
    uint32_t address = bus->state.address;
    pthread_mutex_unlock(&bus->lock);
    return address;
}

static void handle_address_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct pci_bus *bus = device;

    if (width != 4)
        return;
    pthread_mutex_lock(&bus->lock);
    bus->state.address = (uint32_t)value & ADDRESS_BITS;
    pthread_mutex_unlock(&bus->lock);
}

static const struct bus_ops address_ops = {
    .name = "pci-address",
    .max_width = 4,
    .read = handle_address_read,
    .write = handle_address_write,
};

static struct pci_function *selected_function(struct pci_bus *bus, unsigned *ret_register)
{
    uint32_t address = (uint32_t)handle_address_read(bus, 0, 4);

    if (!(address & ADDRESS_ENABLE))
        return NULL;
    *ret_register = address & 0xfc;
    return find_function(bus, address >> 16 & 0xff, address >> 11 & 0x1f, address >> 8 & 7);
}

static uint64_t handle_data_read(void *device, uint64_t offset, unsigned width)
{
    unsigned base = 0;
    struct pci_function *function = selected_function(device, &base);

    return pci_config_read(function, base + (unsigned)offset, width);
}

static void handle_data_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    unsigned base = 0;
    struct pci_function *function = selected_function(device, &base);

    pci_config_write(function, base + (unsigned)offset, width, value);
}

static const struct bus_ops data_ops = {
    .name = "pci-data",
    .max_width = 4,
    .read = handle_data_read,
    .write = handle_data_write,
};

static struct pci_function *ecam_function(const struct pci_bus *bus, uint64_t offset)
{
    return find_function(bus, offset >> 20 & 0xff, offset >> 15 & 0x1f, offset >> 12 & 7);
}

static uint64_t handle_ecam_read(void *device, uint64_t offset, unsigned width)
{
    return pci_config_read(ecam_function(device, offset), offset % ECAM_FUNCTION_SIZE, width);
}

static void handle_ecam_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    pci_config_write(ecam_function(device, offset), offset % ECAM_FUNCTION_SIZE, width, value);
}

static const struct bus_ops ecam_ops = {
    .name = "pci-ecam",
    .max_width = 8,
    .read = handle_ecam_read,
    .write = handle_ecam_write,
};

/* --- the bus as a device ------------------------------------------------------------------ */

static void bus_reset(struct device *device)
{
    struct pci_bus *bus = container_of(device, struct pci_bus, device);

    pthread_mutex_lock(&bus->lock);
    bus->state.address = 0;
    pci_function_reset(&bus->bridge);
    pthread_mutex_unlock(&bus->lock);
}

/*
 * Comes before the functions' own: what is on the bus from before a load goes away, so that no
 * function finds its place taken by another one's past, and no line is up for the same reason.
 */
static void bus_resume(struct device *device)
{
    struct pci_bus *bus = container_of(device, struct pci_bus, device);

    pthread_mutex_lock(&bus->lock);
    bus->state.address &= ADDRESS_BITS;
    pthread_mutex_unlock(&bus->lock);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *function = bus->functions[slot];
        if (!function)
            continue;
        pthread_mutex_lock(function->lock);
        pci_function_take_state(function);
        pthread_mutex_unlock(function->lock);
    }
}

static void bus_destroy_device(struct device *device)
{
    struct pci_bus *bus = container_of(device, struct pci_bus, device);

    if (bus->address_added)
        bus_remove(bus->config.ports, PORT_ADDRESS);
    if (bus->data_added)
        bus_remove(bus->config.ports, PORT_DATA);
    if (bus->ecam_added)
        bus_remove(bus->config.mmio, bus->config.ecam);
    pci_function_detach(&bus->bridge);
    pthread_mutex_destroy(&bus->intx_lock);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

static const struct device_ops device_ops = {
    .reset = bus_reset,
    .resume = bus_resume,
    .destroy = bus_destroy_device,
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct pci_bus_state, bridge, struct pci_state, &pci_state_table),
    STATE_FIELD_U32(struct pci_bus_state, address),
    STATE_FIELD_U32(struct pci_bus_state, reserved),
};

static const struct state_table table = {
    .name = "pci",
    .version = 1,
    STATE_TABLE_OF(struct pci_bus_state, fields),
};

struct device *pci_bus_device(struct pci_bus *bus)
{
    return &bus->device;
}

static int add_ranges(struct pci_bus *bus, struct err *err)
{
    const struct pci_bus_config *config = &bus->config;
    int r;

    r = bus_add(config->ports, PORT_ADDRESS, PORT_SIZE, &address_ops, bus, err);
    if (r < 0)
        return r;
    bus->address_added = true;
    r = bus_add(config->ports, PORT_DATA, PORT_SIZE, &data_ops, bus, err);
    if (r < 0)
        return r;
    bus->data_added = true;
    r = bus_add(config->mmio, config->ecam, ECAM_SIZE, &ecam_ops, bus, err);
    if (r < 0)
        return r;
    bus->ecam_added = true;
    return 0;
}

int pci_bus_create(struct pci_bus **ret_bus, const struct pci_bus_config *config, struct err *err)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));
    int r;

    if (!bus)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the PCI bus");
    bus->device = (struct device){.ops = &device_ops, .table = &table, .state = &bus->state};
    bus->config = *config;
    pthread_mutex_init(&bus->lock, NULL);
    pthread_mutex_init(&bus->intx_lock, NULL);
    pci_function_init(&bus->bridge, &bridge_id, &bus->state.bridge, &bus->lock, NULL, NULL);
    bus->bridge.power_on[PCI_INTERRUPT_PIN] = 0; /* it interrupts nobody */
    r = pci_function_attach(&bus->bridge, bus, 0, err);
    if (r < 0)
        goto fail;
    r = add_ranges(bus, err);
    if (r < 0)
        goto fail;
    *ret_bus = bus;
    return 0;

fail:
    bus_destroy_device(&bus->device);
    return r;
}
