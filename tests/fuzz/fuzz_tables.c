/* SPDX-License-Identifier: MIT */
/*
 * Every part of a machine's state that is not a virtio device's, as a stranger sends it.
 *
 *   byte 0  which table (enum subject)
 *   byte 1  bit 0: the rest is the section's payload. Else it is laid over the payload of a new
 * one, from its beginning, as far as that goes byte 2  version of the section; 0: the table's own
 *   byte 3  what guest time it is: 2 to the power of that less 1, in ns
 *   rest    the payload; names and checksums are made right, fuzz_state.c has those
 *
 * What is checked, besides all that the sanitizers see: what is refused has a sentence and changes
 * nothing; what loads keeps its table's rules, and saves to bytes that load to the same; a device
 * that got it is used by a guest and its host, is still one that can be saved, and resets.
 */
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/vmgenid.h"
#include "firmware/x86/bios_parts.h"
#include "tests/fuzz/due.h"
#include "tests/fuzz/program.h"
#include "tests/unit/platform.h"
#include "vmm/instance.h"
#include "vmm/machine_model.h"
#include "vmm/machine_parts.h"
#include "vmm/x86/cpu_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum subject {
    TIME,
    CLOCK,
    VCPU,
    MODEL,
    SETTINGS,
    PIC,
    PIT,
    IOAPIC,
    VMGENID,
    PORT_F4,
    SERIAL,
    RTC,
    I8042,
    ACPI_PM,
    PCI,
    BIOS,
    SUBJECTS,
};

enum { HEADER = 4, MEMORY = 2 << 20, GENERATION = 0xEF000 };
enum { IOAPIC_BASE = 0x10000000, ECAM = 0x20000000, WINDOW = 0x30000000, WINDOW_SIZE = 1 << 20 };

/* The world around one device. */
static struct {
    struct bus *ports, *mmio;
    struct loop *loop;
    struct memory *memory;
    struct fake_chip chip;
    struct fake_power power;
    struct guest_clock clock;
    struct pic *pic;
    struct pit *pit;
    struct ioapic *ioapic;
    struct serial *serial;
    struct vmgenid *vmgenid;
    struct device *device, *below; /* below: what the device stands on, or NULL */
} pc;

/* What loads into no device. */
static union {
    struct time_state time;
    struct clock_state clock;
    struct vcpu_state vcpu;
    struct instance_settings settings;
} plain;

static struct machine_model *model;

/* --- the devices' world ----------------------------------------------------------------------- */

static void handle_bytes(void *ctx, const uint8_t *bytes, size_t length)
{
    require(length > 0 && bytes);
}

static void handle_nothing(void *ctx)
{
}

static void handle_level(void *ctx, bool level)
{
}

static void handle_message(void *ctx, uint64_t address, uint32_t data)
{
}

static void handle_routes(void *ctx)
{
    struct ioapic_route routes[IOAPIC_PINS];
    if (pc.ioapic)
        require(ioapic_level_routes(pc.ioapic, routes) <= IOAPIC_PINS);
}

static void handle_unbootable(void *ctx, const char *why)
{
    require(why[0]);
}

static uint64_t wall_clock(void)
{
    static uint64_t ns = 1700000000 * NS_PER_SEC;
    return ns += 1000; /* time passes, or a timer would come too early for ever */
}

static const struct serial_host serial_host = {.output = handle_bytes,
                                               .input_room = handle_nothing};

static struct device *make_pic(void)
{
    static const struct pic_output output = {.set_int = handle_level};
    require(pic_create(&pc.pic, pc.ports, &output, NULL) == 0);
    return pic_device(pc.pic);
}

static struct device *make_pit(void)
{
    require(pit_create(&pc.pit, pc.ports, &pc.chip.chip, 0, pc.loop, &pc.clock, NULL) == 0);
    return pit_device(pc.pit);
}

static struct device *make_ioapic(void)
{
    static const struct msi_sink sink = {.send = handle_message};
    static const struct ioapic_listener listener = {.level_routes_changed = handle_routes};
    const struct ioapic_config config = {
        .base = IOAPIC_BASE, .sink = &sink, .listener = &listener, .loop = pc.loop};
    require(ioapic_create(&pc.ioapic, pc.mmio, &config, NULL) == 0);
    return ioapic_device(pc.ioapic);
}

static struct device *make_vmgenid(void)
{
    static const uint8_t id[16] = "one of sixteen";
    require(vmgenid_create(&pc.vmgenid, pc.memory, GENERATION, id, handle_nothing, NULL, NULL) ==
            0);
    return vmgenid_device(pc.vmgenid);
}

static struct device *make_exit_port(void)
{
    struct exit_port *port;
    require(exit_port_create(&port, pc.ports, &pc.power.power, NULL) == 0);
    return exit_port_device(port);
}

static struct device *make_serial(void)
{
    require(serial_create(&pc.serial, pc.ports, 0x3f8, &pc.chip.chip, 4, &serial_host, NULL) == 0);
    return serial_device(pc.serial);
}

static struct device *make_rtc(void)
{
    const struct rtc_config config = {
        .ram_below_4g = 1 << 30, .ram_above_4g = 1 << 30, .wall_ns = wall_clock};
    struct rtc *rtc;
    require(rtc_create(&rtc, pc.ports, &pc.chip.chip, 8, pc.loop, &config, NULL) == 0);
    return rtc_device(rtc);
}

static struct device *make_i8042(void)
{
    struct i8042 *i8042;
    require(i8042_create(&i8042, pc.ports, &pc.power.power, NULL) == 0);
    return i8042_device(i8042);
}

static struct device *make_acpi_pm(void)
{
    struct acpi_pm *pm;
    require(acpi_pm_create(&pm, pc.ports, ACPI_PM_BASE, &pc.chip.chip, 9, pc.loop, &pc.clock,
                           &pc.power.power, NULL) == 0);
    return acpi_pm_device(pm);
}

static struct device *make_pci(void)
{
    const struct pci_bus_config config = {.ports = pc.ports,
                                          .mmio = pc.mmio,
                                          .intx = &pc.chip.chip,
                                          .intx_pins = {16, 17, 18, 19},
                                          .ecam = ECAM,
                                          .low = {.base = WINDOW, .size = WINDOW_SIZE}};
    struct pci_bus *bus;
    require(pci_bus_create(&bus, &config, NULL) == 0);
    return pci_bus_device(bus);
}

static struct device *make_bios(void)
{
    pc.below = make_serial();
    const struct bios_config config = {.memory = pc.memory,
                                       .ports = pc.ports,
                                       .serial = pc.serial,
                                       .unbootable = handle_unbootable};
    struct cpu_entry entry;
    struct bios *bios;
    require(bios_create(&bios, &config, NULL) == 0);
    require(bios_load(pc.memory, &entry, NULL) == 0);
    return bios_device(bios);
}

/* The clock's section is no device's: the PIT counts by it. */
static struct device *(*const makers[SUBJECTS])(void) = {
    [CLOCK] = make_pit,       [PIC] = make_pic,         [PIT] = make_pit,
    [IOAPIC] = make_ioapic,   [VMGENID] = make_vmgenid, [PORT_F4] = make_exit_port,
    [SERIAL] = make_serial,   [RTC] = make_rtc,         [I8042] = make_i8042,
    [ACPI_PM] = make_acpi_pm, [PCI] = make_pci,         [BIOS] = make_bios,
};

static void set_up(enum subject subject)
{
    memset(&pc, 0, sizeof(pc));
    memset(&plain, 0, sizeof(plain));
    fake_chip_init(&pc.chip);
    fake_power_init(&pc.power);
    require(machine_model_create(&model, NULL) == 0);
    if (!makers[subject])
        return;
    require(bus_create(&pc.ports, NULL) == 0 && bus_create(&pc.mmio, NULL) == 0);
    require(loop_create(&pc.loop, NULL) == 0);
    require(memory_create(&pc.memory, MEMORY, MEMORY, 1ull << 32, NULL) == 0);
    pc.device = makers[subject]();
    pc.device->ops->reset(pc.device);
    if (pc.below) {
        pc.below->ops->reset(pc.below);
        pc.below->ops->resume(pc.below);
    }
}

static void tear_down(void)
{
    device_destroy(pc.device);
    device_destroy(pc.below);
    machine_model_destroy(model);
    if (pc.memory)
        memory_destroy(pc.memory);
    if (pc.loop)
        loop_destroy(pc.loop);
    if (pc.ports)
        bus_destroy(pc.ports);
    if (pc.mmio)
        bus_destroy(pc.mmio);
}

/* --- what a guest and its host do ------------------------------------------------------------- */

static const struct {
    uint16_t first, count;
} ports[] = {
    {0x20, 2},
    {0xa0, 2},
    {0x4d0, 2},
    {0x40, 4},
    {0x60, 5},
    {0x70, 2},
    {0x92, 1},
    {0xf4, 1},
    {0x3f8, 8},
    {0xcf8, 8},
    {ACPI_PM_BASE, ACPI_PM_SIZE},
};

static void read_ports(void)
{
    for (size_t i = 0; i < array_size(ports); i++)
        for (unsigned port = ports[i].first; port < ports[i].first + ports[i].count; port++) {
            bus_read(pc.ports, port, 1);
            bus_read(pc.ports, port, 1);
        }
}

static void write_ports(uint8_t value)
{
    for (size_t i = 0; i < array_size(ports); i++)
        for (unsigned port = ports[i].first; port < ports[i].first + ports[i].count; port++)
            bus_write(pc.ports, port, 1, value);
}

static void use_memory(uint32_t value)
{
    for (unsigned index = 0; index < 0x40; index++) {
        bus_write(pc.mmio, IOAPIC_BASE, 4, index);
        bus_read(pc.mmio, IOAPIC_BASE + 0x10, 4);
        bus_write(pc.mmio, IOAPIC_BASE + 0x10, 4, value);
    }
    for (unsigned at = 0; at < PCI_CONFIG_SIZE; at += 4) {
        bus_read(pc.mmio, ECAM + at, 4);
        bus_write(pc.mmio, ECAM + at, 4, value);
    }
}

static void use_chips(void)
{
    for (unsigned i = 0; i < 2 * IOAPIC_PINS; i++) {
        if (pc.pic)
            pic_set_line(pc.pic, i % PIC_LINES, i < PIC_LINES);
        if (pc.pic && pic_pending(pc.pic))
            require(pic_acknowledge(pc.pic) < 256);
        if (pc.ioapic)
            ioapic_set_line(pc.ioapic, i % IOAPIC_PINS, i < IOAPIC_PINS);
    }
    for (unsigned vector = 0; pc.ioapic && vector < 256; vector++)
        ioapic_end_of_interrupt(pc.ioapic, (uint8_t)vector);
}

/* The terminal's size, a letter, where the cursor is, the next drive to boot from. */
static void call_bios(void)
{
    static const uint16_t calls[][2] = {{0x10, 0x0e41}, {0x10, 0x0300}, {0x10, 0x0200},
                                        {0x10, 0x0600}, {0x16, 0x0100}, {0x18, 0}};
    for (size_t i = 0; i < array_size(calls); i++) {
        const struct bios_mailbox mail = {.vector = (uint8_t)calls[i][0], .eax = calls[i][1]};
        require(memory_write(pc.memory, LAYOUT_BIOS, &mail, sizeof(mail)) == 0);
        bus_write(pc.ports, BIOS_PORT, 1, 0);
    }
}

/* Before the guest has taken bytes away: as our BIOS looks for keys. */
static void look_at_fifo(void)
{
    uint8_t bytes[256];
    require(serial_firmware_peek(pc.serial, bytes, sizeof(bytes)) <= 16);
}

static void use_device(enum subject subject)
{
    if (subject == SERIAL)
        look_at_fifo();
    static const uint8_t values[] = {0, 0xff, 0x36, 0x80};
    static const uint8_t id[16] = "another of them";
    run_due(pc.loop);
    read_ports();
    if (subject == SERIAL)
        (void)serial_input(pc.serial, values, sizeof(values));
    if (pc.pit)
        pit_run(pc.pit);
    if (pc.vmgenid)
        vmgenid_set(pc.vmgenid, id);
    if (subject == BIOS)
        call_bios();
    for (size_t i = 0; i < array_size(values); i++) {
        use_chips();
        write_ports(values[i]);
        use_memory(0x01010101u * values[i]);
        read_ports();
    }
    run_due(pc.loop);
}

/* --- loading ---------------------------------------------------------------------------------- */

static struct state_item item_of(enum subject subject)
{
    static const struct state_table *const tables[] = {
        [TIME] = &time_state_table,
        [CLOCK] = &clock_state_table,
        [VCPU] = &vcpu_state_table,
        [SETTINGS] = &instance_settings_table,
    };
    if (subject == MODEL)
        return machine_model_item(model);
    if (subject < array_size(tables))
        return (struct state_item){.table = tables[subject], .object = &plain};
    return (struct state_item){pc.device->table, pc.device->instance, pc.device->state};
}

/* Where the payload begins. */
static size_t head_of(const struct state_item *item)
{
    return 1 + strlen(item->table->name) + 4 + 2 + 4;
}

/* The payload that a new object is saved to: a multiple of nothing, and never empty. */
static void put_new(struct stream *stream, enum subject subject, const struct state_item *item)
{
    static const uint64_t machine[] = {4096, 4096, 1, 0, 0, 0}; /* memory, hole, a vCPU, MSRs */
    struct stream_buffer saved;
    uint32_t length;
    if (subject == MODEL) {
        stream_write(stream, machine, sizeof(machine));
        return;
    }
    if (subject == VCPU)
        plain.vcpu.xsave_size = 576;
    stream_buffer_init(&saved, 0);
    require(state_save(&saved.stream, item, 1) == 0);
    memcpy(&length, saved.bytes + head_of(item) - sizeof(length), sizeof(length));
    stream_write(stream, saved.bytes + head_of(item), length);
    stream_buffer_finish(&saved);
}

static void put_section(struct stream *stream, const char *name, uint32_t instance,
                        uint16_t version, const struct stream_buffer *payload)
{
    stream_checksum_start(stream);
    stream_put_u8(stream, (uint8_t)strlen(name));
    stream_write(stream, name, strlen(name));
    stream_put_u32(stream, instance);
    stream_put_u16(stream, version);
    stream_put_u32(stream, payload ? (uint32_t)payload->length : 0);
    if (payload)
        stream_write(stream, payload->bytes, payload->length);
    stream_put_u32(stream, stream->checksum);
}

/* What has loaded is valid, and comes back from a save. */
static void check_loaded(const struct state_item *item)
{
    struct state_item again = *item;
    struct stream_buffer saved;
    again.object = malloc(item->table->size);
    require(again.object && state_check(item->table, item->object, NULL) == 0);
    memset(again.object, 0x5a, item->table->size);
    stream_buffer_init(&saved, 0);
    require(state_save(&saved.stream, item, 1) == 0);
    stream_buffer_rewind(&saved);
    require(state_load(&saved.stream, &again, 1, NULL) == 0);
    require(memcmp(again.object, item->object, item->table->size) == 0);
    stream_buffer_finish(&saved);
    free(again.object);
}

static void check_refused(const struct err *err)
{
    require(err->kind != ERR_NONE && err->text[0]);
    for (const char *at = err->text; *at; at++)
        require((unsigned char)*at >= ' ' && *at != 0x7f);
}

/* Whether such vCPUs fit a host is asked before KVM sees them: one that has the same, and one that
 * has nothing. */
static void compare_cpuid(const struct vcpu_state *vcpu)
{
    struct kvm_x86_cpuid wanted = {.count = vcpu->cpuid_count}, hosts[2] = {{0}};
    memcpy(wanted.entries, vcpu->cpuid, sizeof(wanted.entries));
    hosts[0] = wanted;
    for (unsigned i = 0; i < array_size(hosts); i++) {
        struct err err = {0};
        if (cpu_model_check(&hosts[i], &wanted, &err) < 0)
            check_refused(&err);
    }
}

static void go_on(enum subject subject, uint8_t time)
{
    guest_clock_set(&pc.clock, subject == CLOCK ? plain.clock.guest_ns : (1ull << time % 64) - 1);
    if (pc.ioapic)
        ioapic_settle(pc.ioapic, (const uint32_t[8]){0});
    guest_clock_start(&pc.clock);
    pc.device->ops->resume(pc.device);
    use_device(subject);
    if (pc.device->ops->pause)
        pc.device->ops->pause(pc.device);
    guest_clock_stop(&pc.clock);
    check_loaded(&(struct state_item){pc.device->table, pc.device->instance, pc.device->state});
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
    if (pc.device->ops->pause)
        pc.device->ops->pause(pc.device);
}

static void load(enum subject subject, struct stream_buffer *section, uint8_t time)
{
    const struct state_item item = item_of(subject);
    struct err err = {0};
    uint8_t *before = malloc(item.table->size);
    require(before);
    memcpy(before, item.object, item.table->size);
    if (state_load(&section->stream, &item, 1, &err) < 0) {
        check_refused(&err);
        require(memcmp(before, item.object, item.table->size) == 0);
    } else {
        check_loaded(&item);
        if (subject == VCPU)
            compare_cpuid(&plain.vcpu);
        if (pc.device)
            go_on(subject, time);
    }
    free(before);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct stream_buffer payload, section;
    if (length < HEADER)
        return 0;
    enum subject subject = (enum subject)(bytes[0] % SUBJECTS);
    set_up(subject);
    const struct state_item item = item_of(subject);
    stream_buffer_init(&payload, 0);
    stream_buffer_init(&section, 0);
    if (!(bytes[1] & 1))
        put_new(&payload.stream, subject, &item);
    else
        stream_write(&payload.stream, bytes + HEADER, length - HEADER);
    size_t over = length - HEADER < payload.length ? length - HEADER : payload.length;
    if (over > 0)
        memcpy(payload.bytes, bytes + HEADER, over);
    put_section(&section.stream, item.table->name, item.instance,
                bytes[2] ? bytes[2] : item.table->version, &payload);
    put_section(&section.stream, "end", 0, 1, NULL);
    require(stream_error(&section.stream) == 0);
    load(subject, &section, bytes[3]);
    stream_buffer_finish(&payload);
    stream_buffer_finish(&section);
    tear_down();
    return 0;
}
