/* SPDX-License-Identifier: MIT */
/*
 * The machine is one list: machine_add_devices(), read from top to bottom. Before it, how devices
 * reach the rest of the machine. What is special about disks and network interfaces, of which there
 * may be many, is in machine_virtio.c.
 */
#include "firmware/x86/layout.h"
#include "vmm/machine_parts.h"
#include "vmm/x86/vcpu_x86.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

/* --- how devices reach the rest of the machine --------------------------------------------- */

/* An ISA line goes to both interrupt chips; the timer's is the I/O APIC's pin 2, as on every PC. */
static void handle_isa_line(void *ctx, unsigned number, bool level)
{
    struct machine *machine = ctx;
    pic_set_line(machine->pic, number, level);
    ioapic_set_line(machine->ioapic, number == 0 ? 2 : number, level);
}

static void handle_pic_int(void *ctx, bool level)
{
    struct machine *machine = ctx;
    vcpu_x86_set_extint(machine->vcpus[0], level);
}

static void handle_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct machine *machine = ctx;
    /* A message to an APIC that is not there is lost, as on the bus of a real machine. */
    int ret = kvm_vm_signal_msi(machine->vm, routes_address_for_kvm(address), data);
    (void)ret;
}

static void handle_generation(void *ctx)
{
    struct machine *machine = ctx;
    acpi_pm_raise_event(machine->acpi_pm, ACPI_EVENT_GENERATION);
}

static void handle_level_routes(void *ctx)
{
    struct machine *machine = ctx;
    struct ioapic_route pins[IOAPIC_PINS];
    unsigned count = ioapic_level_routes(machine->ioapic, pins);
    routes_set_ioapic(machine->routes, pins, count);
}

/* The four lines of PCI go to the I/O APIC's upper pins, as the DSDT's _PRT says. */
static void handle_pci_line(void *ctx, unsigned number, bool level)
{
    struct machine *machine = ctx;
    ioapic_set_line(machine->ioapic, LAYOUT_PCI_GSI + number, level);
}

static int handle_doorbell_add(void *ctx, uint64_t address, int fd)
{
    struct machine *machine = ctx;
    return kvm_vm_ioeventfd(machine->vm, address, fd, true);
}

/* At the end of the VM all of them go at once: each by itself costs KVM a grace period. */
static void handle_doorbell_remove(void *ctx, uint64_t address, int fd)
{
    struct machine *machine = ctx;
    int ret = machine->ending ? 0 : kvm_vm_ioeventfd(machine->vm, address, fd, false);
    (void)ret; /* it is there: we put it up */
}

/* Of interest to whoever brings up a guest (-v), and no more than a line a second. */
static void note_miss(struct machine *machine, const char *space, bool is_write, uint64_t address,
                      unsigned width)
{
    uint64_t swallowed;
    if (log_enabled(LOG_DEBUG) && log_limit_pass(&machine->miss_limit, &swallowed))
        log_debug("guest %s %s 0x%llx (%u bytes), where nothing is (%llu such before, not shown)",
                  is_write ? "writes" : "reads", space, (unsigned long long)address, width,
                  (unsigned long long)swallowed);
}

static void handle_port_miss(void *ctx, bool is_write, uint64_t address, unsigned width)
{
    note_miss(ctx, "port", is_write, address, width);
}

static void handle_memory_miss(void *ctx, bool is_write, uint64_t address, unsigned width)
{
    note_miss(ctx, "address", is_write, address, width);
}

void machine_wire(struct machine *machine)
{
    machine->isa = (struct irq_chip){.set_line = handle_isa_line, .ctx = machine};
    machine->intx = (struct irq_chip){.set_line = handle_pci_line, .ctx = machine};
    machine->msi = (struct msi_sink){.send = handle_msi, .ctx = machine};
    machine->doorbells = (struct doorbell_board){
        .add = handle_doorbell_add, .remove = handle_doorbell_remove, .ctx = machine};
    machine->pic_output = (struct pic_output){.set_int = handle_pic_int, .ctx = machine};
    machine->ioapic_listener = (struct ioapic_listener){.level_routes_changed = handle_level_routes,
                                                        .ctx = machine};
    machine->miss_limit.burst = 16;
}

/* Before the first access. */
void machine_watch_misses(struct machine *machine)
{
    bus_watch_misses(machine->ports, handle_port_miss, machine);
    bus_watch_misses(machine->mmio, handle_memory_miss, machine);
}

/* --- the list ------------------------------------------------------------------------------- */

void machine_add_device(struct machine *machine, struct device *device)
{
    assert(machine->device_count < MACHINE_MAX_DEVICES);
    machine->devices[machine->device_count++] = device;
}

static int add_chips(struct machine *machine, struct err *err)
{
    int ret = pic_create(&machine->pic, machine->ports, &machine->pic_output, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, pic_device(machine->pic));

    struct ioapic_config ioapic = {.base = LAYOUT_IOAPIC,
                                   .extended_destinations = machine->config.cpus > 255,
                                   .sink = &machine->msi,
                                   .listener = &machine->ioapic_listener,
                                   .loop = machine->loop};
    ret = ioapic_create(&machine->ioapic, machine->mmio, &ioapic, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, ioapic_device(machine->ioapic));

    ret = pit_create(&machine->pit, machine->ports, &machine->isa, 0, machine->loop,
                     &machine->clock, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, pit_device(machine->pit));
    return 0;
}

static int add_generation(struct machine *machine, struct err *err)
{
    static const uint8_t none[16];
    uint8_t *id = machine->config.generation;
    if (memcmp(id, none, sizeof(none)) == 0 && getrandom(id, sizeof(none), 0) != sizeof(none))
        return err_sys(err, ERR_HOST, errno, "cannot make a VM generation id");
    int ret = vmgenid_create(&machine->vmgenid, machine->memory, LAYOUT_VMGENID, id,
                             handle_generation, machine, err);
    if (ret == 0)
        machine_add_device(machine, vmgenid_device(machine->vmgenid));
    return ret;
}

static int add_platform(struct machine *machine, struct err *err)
{
    struct bus *ports = machine->ports;
    const struct irq_chip *isa = &machine->isa;
    struct loop *loop = machine->loop;
    const struct power *power = &machine->power;
    uint64_t below;
    gpa_t above;
    layout_split(machine->config.memory, &below, &above);

    struct rtc_config rtc = {.ram_below_4g = below, .ram_above_4g = machine->config.memory - below};
    int ret = rtc_create(&machine->rtc, ports, isa, 8, loop, &rtc, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, rtc_device(machine->rtc));

    ret = i8042_create(&machine->i8042, ports, power, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, i8042_device(machine->i8042));

    ret = acpi_pm_create(&machine->acpi_pm, ports, ACPI_PM_BASE, isa, 9, loop, &machine->clock,
                         power, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, acpi_pm_device(machine->acpi_pm));

    ret = add_generation(machine, err);
    if (ret < 0)
        return ret;

    ret = serial_create(&machine->serial, ports, 0x3f8, isa, 4, machine->config.serial, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, serial_device(machine->serial));

    if (machine->config.exit_port) {
        ret = exit_port_create(&machine->exit_port, ports, power, err);
        if (ret < 0)
            return ret;
        machine_add_device(machine, exit_port_device(machine->exit_port));
    }
    return 0;
}

static int add_pci(struct machine *machine, struct err *err)
{
    struct pci_bus_config config = {
        .ports = machine->ports,
        .mmio = machine->mmio,
        .intx = &machine->intx,
        .ecam = LAYOUT_ECAM,
        .low = {LAYOUT_PCI32, LAYOUT_PCI32_SIZE},
        .high = {machine->pci64_base, machine->pci64_size},
    };
    for (unsigned line = 0; line < PCI_INTX_LINES; line++)
        config.intx_pins[line] = (uint8_t)(LAYOUT_PCI_GSI + line);
    int ret = pci_bus_create(&machine->pci, &config, err);
    if (ret < 0)
        return ret;
    machine_add_device(machine, pci_bus_device(machine->pci));
    return 0;
}

static int add_virtio(struct machine *machine, struct err *err)
{
    const struct machine_config *config = &machine->config;
    machine->virtio_world = (struct virtio_world){.memory = machine->memory, .loop = machine->loop};
    const struct virtio_world *world = &machine->virtio_world;

    struct rng *rng;
    int ret = rng_create(&rng, world, err);
    if (ret == 0)
        ret = machine_plug(machine, LAYOUT_SLOT_RNG, rng_virtio(rng), err);
    if (ret == 0 && !config->no_balloon) {
        ret = balloon_create(&machine->balloon, world, err);
        if (ret == 0)
            ret = machine_plug(machine, LAYOUT_SLOT_BALLOON, balloon_virtio(machine->balloon), err);
        if (ret == 0)
            balloon_set_target(machine->balloon, config->balloon);
    }
    if (ret == 0 && config->console) {
        ret = console_create(&machine->console, world, config->console, err);
        if (ret == 0)
            ret = machine_plug(machine, LAYOUT_SLOT_CONSOLE, console_virtio(machine->console), err);
    }
    if (ret == 0 && config->vsock.path) {
        ret = vsock_create(&machine->vsock, world, &config->vsock, err);
        if (ret == 0)
            ret = machine_plug(machine, LAYOUT_SLOT_VSOCK, vsock_virtio(machine->vsock), err);
    }
    if (ret == 0)
        ret = machine_make_limits(machine, err);
    for (unsigned i = 0; i < config->net_count && ret == 0; i++)
        ret = machine_add_net(machine, i, err);
    for (unsigned i = 0; i < config->disk_count && ret == 0; i++)
        ret = machine_add_disk(machine, i, err);
    return ret;
}

static int add_firmware(struct machine *machine, struct err *err)
{
    if (machine->config.kernel)
        return 0;
    machine_show_drives(machine);
    struct bios_config config = {.memory = machine->memory,
                                 .ports = machine->ports,
                                 .serial = machine->serial,
                                 .drives = machine->drives,
                                 .drive_count = machine->config.disk_count,
                                 .unbootable = machine_handle_unbootable,
                                 .ctx = machine};
    int ret = bios_create(&machine->bios, &config, err);
    if (ret == 0)
        machine_add_device(machine, bios_device(machine->bios));
    return ret;
}

int machine_add_devices(struct machine *machine, struct err *err)
{
    int ret = add_chips(machine, err);
    if (ret == 0)
        ret = add_platform(machine, err);
    if (ret == 0)
        ret = add_pci(machine, err);
    if (ret == 0)
        ret = add_virtio(machine, err);
    if (ret == 0)
        ret = add_firmware(machine, err);
    return ret;
}
