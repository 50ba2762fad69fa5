/* SPDX-License-Identifier: MIT */
/*
 * The machine is one list: add_devices(), read from top to bottom. Everything that concerns all of
 * it (pause, resume, reset, the guest's wishes) is here, once. What the devices stand on is built
 * in machine_ground.c, saving and loading is in machine_state.c.
 */
#include "firmware/x86/layout.h"
#include "vmm/machine_parts.h"
#include "vmm/x86/vcpu_x86.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- how devices reach the rest of the machine -------------------------------------------- */

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

/* KVM takes destination bits above the eighth in the upper half of the address. */
static uint64_t address_for_kvm(uint64_t address)
{
    return (address & ~0xfe0ull) | (address >> 5 & 0x7f) << 40;
}

static void handle_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct machine *machine = ctx;
    /* A message to an APIC that is not there is lost, as on the bus of a real machine. */
    int ret = kvm_vm_signal_msi(machine->vm, address_for_kvm(address), data);
    (void)ret;
}

/* KVM reports the end of an interrupt only for level-triggered messages in its routing table. */
static void handle_level_routes(void *ctx)
{
    struct machine *machine = ctx;
    struct ioapic_route routes[IOAPIC_PINS];
    unsigned count = ioapic_level_routes(machine->ioapic, routes);
    struct kvm_irq_routing_entry entries[IOAPIC_PINS] = {0};
    for (unsigned i = 0; i < count; i++) {
        entries[i].gsi = routes[i].pin;
        entries[i].type = KVM_IRQ_ROUTING_MSI;
        uint64_t address = address_for_kvm(routes[i].address);
        entries[i].u.msi.address_lo = (uint32_t)address;
        entries[i].u.msi.address_hi = (uint32_t)(address >> 32);
        entries[i].u.msi.data = routes[i].data;
    }
    int ret = kvm_vm_set_routing(machine->vm, entries, count);
    (void)ret; /* only out of memory: the storm guard of the I/O APIC then stands in for the EOI */
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

/* --- wishes ------------------------------------------------------------------------------- */

/*
 * Stops every vCPU at once, before the one that asks runs another instruction; the rest is done on
 * the main loop. The first wish counts, but a stop from outside goes before the guest's reset.
 */
static void wish(struct machine *machine, const struct machine_end *end)
{
    pthread_mutex_lock(&machine->lock);
    bool counts = !machine->wish ||
                  (machine->wish == MACHINE_RESET && end->outcome == MACHINE_STOPPED);
    if (counts) {
        machine->wish = end->outcome;
        machine->end = *end;
    }
    pthread_mutex_unlock(&machine->lock);
    if (!counts)
        return;
    for (unsigned i = 0; i < machine->config.cpus; i++)
        vcpu_order_pause(machine->vcpus[i]);
    loop_post(machine->loop, &machine->wish_call);
}

static void handle_power(void *ctx, enum power_event event, unsigned code)
{
    struct machine_end end = {.code = code};
    switch (event) {
    case POWER_OFF:
        end.outcome = MACHINE_OFF;
        break;
    case POWER_RESET:
        end.outcome = MACHINE_RESET;
        break;
    case POWER_EXIT:
        end.outcome = MACHINE_EXIT;
        break;
    }
    wish(ctx, &end);
}

static void handle_crash(void *ctx, const struct vcpu *vcpu, const struct vcpu_crash *crash)
{
    struct machine_end end = {.outcome = MACHINE_CRASHED, .crash = *crash};
    wish(ctx, &end);
}

void machine_stop(struct machine *machine)
{
    struct machine_end end = {.outcome = MACHINE_STOPPED};
    wish(machine, &end);
}

static enum machine_outcome wanted(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    enum machine_outcome outcome = machine->wish;
    pthread_mutex_unlock(&machine->lock);
    return outcome;
}

/* The wish is fulfilled; false when a stop has taken its place meanwhile. */
static bool take_back(struct machine *machine, enum machine_outcome outcome)
{
    pthread_mutex_lock(&machine->lock);
    bool same = machine->wish == outcome;
    if (same)
        machine->wish = 0;
    pthread_mutex_unlock(&machine->lock);
    return same;
}

/* On the main loop. */
static void handle_wish(void *arg)
{
    struct machine *machine = arg;
    machine_pause(machine);
    if (wanted(machine) == MACHINE_RESET && !machine->config.stop_at_reset &&
        machine_reset(machine, &machine->reset_error) == 0 && take_back(machine, MACHINE_RESET))
        machine_resume(machine);
    else
        loop_stop(machine->loop);
}

/* --- pause and resume --------------------------------------------------------------------- */

void machine_pause(struct machine *machine)
{
    if (!machine->running)
        return;
    for (unsigned i = 0; i < machine->config.cpus; i++)
        vcpu_order_pause(machine->vcpus[i]);
    for (unsigned i = 0; i < machine->config.cpus; i++)
        vcpu_wait_paused(machine->vcpus[i]);
    /* Devices before the interrupt chips that they pull at, which are first in the list. */
    for (unsigned i = machine->device_count; i-- > 0;)
        if (machine->devices[i]->ops->pause)
            machine->devices[i]->ops->pause(machine->devices[i]);
    guest_clock_stop(&machine->clock);
    machine->running = false;
}

void machine_resume(struct machine *machine)
{
    if (machine->running)
        return;
    machine->running = true;
    guest_clock_start(&machine->clock);
    for (unsigned i = 0; i < machine->device_count; i++)
        if (machine->devices[i]->ops->resume)
            machine->devices[i]->ops->resume(machine->devices[i]);
    /* A guest that has asked for its end meanwhile (a timer of ours, a person) stays where it is.
     */
    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; i < machine->config.cpus && !machine->wish; i++)
        vcpu_resume(machine->vcpus[i]);
    pthread_mutex_unlock(&machine->lock);
}

/* --- the list ----------------------------------------------------------------------------- */

static void add_device(struct machine *machine, struct device *device)
{
    assert(machine->device_count < MACHINE_MAX_DEVICES);
    machine->devices[machine->device_count++] = device;
}

static int add_devices(struct machine *machine, struct err *err)
{
    struct bus *ports = machine->ports;
    const struct irq_chip *isa = &machine->isa;
    struct loop *loop = machine->loop;
    const struct guest_clock *clock = &machine->clock;
    const struct power *power = &machine->power;
    uint64_t below;
    gpa_t above;
    layout_split(machine->config.memory, &below, &above);
    int ret;

    ret = pic_create(&machine->pic, ports, &machine->pic_output, err);
    if (ret < 0)
        return ret;
    add_device(machine, pic_device(machine->pic));

    struct ioapic_config ioapic = {.base = LAYOUT_IOAPIC,
                                   .extended_destinations = machine->config.cpus > 255,
                                   .sink = &machine->msi,
                                   .listener = &machine->ioapic_listener,
                                   .loop = loop};
    ret = ioapic_create(&machine->ioapic, machine->mmio, &ioapic, err);
    if (ret < 0)
        return ret;
    add_device(machine, ioapic_device(machine->ioapic));

    ret = pit_create(&machine->pit, ports, isa, 0, loop, clock, err);
    if (ret < 0)
        return ret;
    add_device(machine, pit_device(machine->pit));

    struct rtc_config rtc = {.ram_below_4g = below, .ram_above_4g = machine->config.memory - below};
    ret = rtc_create(&machine->rtc, ports, isa, 8, loop, &rtc, err);
    if (ret < 0)
        return ret;
    add_device(machine, rtc_device(machine->rtc));

    ret = i8042_create(&machine->i8042, ports, power, err);
    if (ret < 0)
        return ret;
    add_device(machine, i8042_device(machine->i8042));

    ret = acpi_pm_create(&machine->acpi_pm, ports, ACPI_PM_BASE, isa, 9, loop, clock, power, err);
    if (ret < 0)
        return ret;
    add_device(machine, acpi_pm_device(machine->acpi_pm));

    ret = serial_create(&machine->serial, ports, 0x3f8, isa, 4, machine->config.serial, err);
    if (ret < 0)
        return ret;
    add_device(machine, serial_device(machine->serial));

    if (machine->config.exit_port) {
        ret = exit_port_create(&machine->exit_port, ports, power, err);
        if (ret < 0)
            return ret;
        add_device(machine, exit_port_device(machine->exit_port));
    }
    return 0;
}

/* --- life --------------------------------------------------------------------------------- */

int machine_boot(struct machine *machine, struct err *err)
{
    struct boot_platform platform = {.cpus = machine->config.cpus};
    memcpy(platform.uuid, machine->config.uuid, sizeof(platform.uuid));
    struct cpu_entry entry;
    int ret = boot_load(machine->image, machine->memory, &platform, &entry, err);
    if (ret == 0)
        ret = vcpu_x86_enter(machine->vcpus[0], &entry, err);
    return ret;
}

int machine_reset(struct machine *machine, struct err *err)
{
    assert(!machine->running);
    for (unsigned i = 0; i < machine->device_count; i++)
        machine->devices[i]->ops->reset(machine->devices[i]);
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        int ret = vcpu_state_load(machine->vcpus[i]->fd, &machine->caps, &machine->power_on[i],
                                  VCPU_LOAD_RESET, err);
        if (ret < 0)
            return ret;
        vcpu_x86_forget_interrupts(machine->vcpus[i]);
    }
    return machine_boot(machine, err);
}

static void wire(struct machine *machine)
{
    machine->isa = (struct irq_chip){.set_line = handle_isa_line, .ctx = machine};
    machine->msi = (struct msi_sink){.send = handle_msi, .ctx = machine};
    machine->power = (struct power){.request = handle_power, .ctx = machine};
    machine->pic_output = (struct pic_output){.set_int = handle_pic_int, .ctx = machine};
    machine->ioapic_listener = (struct ioapic_listener){.level_routes_changed = handle_level_routes,
                                                        .ctx = machine};
    machine->miss_limit.burst = 16;
    machine->wish_call = (struct loop_call){.handle = handle_wish, .arg = machine};
}

static void fill_world(struct machine *machine)
{
    machine->world = (struct vcpu_world){.ports = machine->ports,
                                         .mmio = machine->mmio,
                                         .pic = machine->pic,
                                         .ioapic = machine->ioapic,
                                         .handle_crash = handle_crash,
                                         .ctx = machine};
}

int machine_create(struct machine **ret_machine, const struct machine_config *config,
                   struct err *err)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    if (!machine)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the machine");
    machine->config = *config;
    machine->kvm.fd = machine->vm = -1;
    pthread_mutex_init(&machine->lock, NULL);
    wire(machine);

    /* The user's mistakes first, before anything is asked of the host. */
    int ret = boot_open(&machine->image, config->kernel, config->initrd, config->cmdline, err);
    if (ret < 0)
        goto fail;
    if ((ret = thread_install_kick_handler(err)) < 0 ||
        (ret = loop_create(&machine->loop, err)) < 0 ||
        (ret = bus_create(&machine->ports, err)) < 0 ||
        (ret = bus_create(&machine->mmio, err)) < 0 ||
        (ret = machine_lay_ground(machine, err)) < 0 || (ret = add_devices(machine, err)) < 0)
        goto fail;
    fill_world(machine);
    bus_watch_misses(machine->ports, handle_port_miss, machine);
    bus_watch_misses(machine->mmio, handle_memory_miss, machine);
    for (unsigned i = 0; i < machine->device_count; i++)
        machine->devices[i]->ops->reset(machine->devices[i]);
    ret = machine_boot(machine, err);
    for (unsigned i = 0; i < config->cpus && ret == 0; i++)
        ret = vcpu_start(machine->vcpus[i], err);
    if (ret < 0)
        goto fail;
    *ret_machine = machine;
    return 0;

fail:
    machine_destroy(machine);
    return ret;
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    machine_pause(machine);
    /* The vCPUs stand still, so devices go first: the PIC's pin still ends in a vCPU. */
    while (machine->device_count > 0)
        device_destroy(machine->devices[--machine->device_count]);
    for (unsigned i = 0; machine->vcpus && i < machine->config.cpus; i++)
        vcpu_destroy(machine->vcpus[i]);
    if (machine->vm >= 0)
        close(machine->vm);
    kvm_close(&machine->kvm);
    memory_destroy(machine->memory);
    bus_destroy(machine->ports);
    bus_destroy(machine->mmio);
    loop_destroy(machine->loop);
    boot_close(machine->image);
    free(machine->power_on);
    free(machine->vcpus);
    pthread_mutex_destroy(&machine->lock);
    free(machine);
}

int machine_run(struct machine *machine, struct machine_end *ret_end, struct err *err)
{
    machine_resume(machine);
    int ret = loop_run(machine->loop);
    machine_pause(machine);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "the main loop failed");
    if (machine->reset_error.kind) {
        if (err)
            *err = machine->reset_error;
        err_prefix(err, "the guest rebooted, and its machine cannot start again");
        return -EIO;
    }
    *ret_end = machine->end;
    return 0;
}

struct loop *machine_loop(struct machine *machine)
{
    return machine->loop;
}

struct memory *machine_memory(struct machine *machine)
{
    return machine->memory;
}

int machine_vm(struct machine *machine)
{
    return machine->vm;
}

void machine_press_power_button(struct machine *machine)
{
    acpi_pm_press_power_button(machine->acpi_pm);
}

size_t machine_input(struct machine *machine, const uint8_t *bytes, size_t length)
{
    return serial_input(machine->serial, bytes, length);
}

void machine_send_break(struct machine *machine)
{
    serial_break(machine->serial);
}
