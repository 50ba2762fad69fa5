/* SPDX-License-Identifier: MIT */
/*
 * The PC platform under any sequence of guest accesses, host events and strangers' states.
 *
 * The input is a little program. Each step begins with a byte whose low four bits say what happens
 * (enum step; others are a step without effect) and whose high four bits choose a port or a device:
 *
 *   READ    [width]                       WRITE   [width, 4 bytes of value]
 *   TYPE    [count, bytes]                TIME    [4 bytes: wall clock and guest time pass, in us]
 *   LOAD    [count, (position, xor)...]   the rest have no operands
 *
 * LOAD saves the device, changes bytes of what was saved, makes the checksum right again and loads
 * it. What is checked, besides all that the sanitizers see: every state that occurs can be saved
 * (saving asserts the table's bounds), a refused state changes nothing, and whatever happened,
 * after a reset the devices answer as new.
 */
#include "core/clock.h"
#include "devices/acpi_pm.h"
#include "devices/i8042.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "tests/fuzz/due.h"
#include "tests/fuzz/program.h"
#include "tests/unit/platform.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum step { READ, WRITE, TYPE, BREAK, BUTTON, TIME, LOAD, RESET, PAUSE, RESUME, RUN_LOOP };

enum { DEVICES = 4 };

static struct {
    struct bus *ports;
    struct loop *loop;
    struct fake_chip chip;
    struct fake_power power;
    struct guest_clock clock;
    uint64_t wall_ns;
    struct serial *serial;
    struct acpi_pm *pm;
    struct device *devices[DEVICES];
} pc;

static uint64_t wall_clock(void)
{
    return pc.wall_ns += 1000; /* time passes, or a timer would come too early for ever */
}

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    require(length > 0 && bytes);
}

static void handle_room(void *ctx)
{
    serial_input(pc.serial, (const uint8_t *)"more", 4); /* without the lock: this must not hang */
}

static void set_up(void)
{
    const struct rtc_config config = {
        .ram_below_4g = 1 << 30, .ram_above_4g = 1 << 30, .wall_ns = wall_clock};
    const struct serial_host host = {.output = handle_output, .input_room = handle_room};
    struct rtc *rtc;
    struct i8042 *i8042;

    memset(&pc, 0, sizeof(pc));
    pc.wall_ns = 1700000000 * NS_PER_SEC;
    fake_chip_init(&pc.chip);
    fake_power_init(&pc.power);
    require(bus_create(&pc.ports, NULL) == 0 && loop_create(&pc.loop, NULL) == 0);
    require(serial_create(&pc.serial, pc.ports, 0x3f8, &pc.chip.chip, 4, &host, NULL) == 0);
    require(rtc_create(&rtc, pc.ports, &pc.chip.chip, 8, pc.loop, &config, NULL) == 0);
    require(i8042_create(&i8042, pc.ports, &pc.power.power, NULL) == 0);
    require(acpi_pm_create(&pc.pm, pc.ports, ACPI_PM_BASE, &pc.chip.chip, 9, pc.loop, &pc.clock,
                           &pc.power.power, NULL) == 0);
    pc.devices[0] = serial_device(pc.serial);
    pc.devices[1] = rtc_device(rtc);
    pc.devices[2] = i8042_device(i8042);
    pc.devices[3] = acpi_pm_device(pc.pm);
}

static void pause_all(void)
{
    for (unsigned i = 0; i < DEVICES; i++)
        if (pc.devices[i]->ops->pause)
            pc.devices[i]->ops->pause(pc.devices[i]);
    guest_clock_stop(&pc.clock);
}

static void resume_all(void)
{
    guest_clock_start(&pc.clock);
    for (unsigned i = 0; i < DEVICES; i++)
        pc.devices[i]->ops->resume(pc.devices[i]);
}

static void reset_all(void)
{
    pause_all();
    for (unsigned i = 0; i < DEVICES; i++)
        pc.devices[i]->ops->reset(pc.devices[i]);
    resume_all();
}

static uint16_t choose_port(unsigned choice, uint8_t more)
{
    switch (choice % 5) {
    case 0:
        return 0x3f8 + more % 8;
    case 1:
        return 0x70 + more % 2;
    case 2:
        return more % 2 ? 0x60 : 0x64;
    case 3:
        return ACPI_PM_BASE + more % ACPI_PM_SIZE;
    default:
        return more % 2 ? 0x92 : 0x3f7 + more % 10;
    }
}

static void access_port(struct program *program, unsigned choice, bool write)
{
    uint8_t more = take(program);
    uint16_t port = choose_port(choice, more >> 2);
    unsigned width = 1u << more % 4;

    if (write)
        bus_write(pc.ports, port, width, take_u32(program));
    else
        bus_read(pc.ports, port, width);
}

static void type_bytes(struct program *program)
{
    size_t count = take(program);

    if (count > program->left)
        count = program->left;
    serial_input(pc.serial, program->at, count);
    program->at += count;
    program->left -= count;
}

static void load_stranger(struct program *program, struct device *device)
{
    enum { CRC_SIZE = 4, END_SIZE = 1 + 3 + 4 + 2 + 4 + CRC_SIZE };
    struct state_item item = {device->table, device->instance, device->state};
    struct stream_buffer buffer;
    uint8_t before[512];

    require(device->table->size <= sizeof(before));
    pause_all();
    stream_buffer_init(&buffer, 0);
    require(state_save(&buffer.stream, &item, 1) == 0);
    memcpy(before, device->state, device->table->size);

    size_t crc_at = buffer.length - END_SIZE - CRC_SIZE;
    for (unsigned n = take(program) % 16; n; n--) {
        size_t position = take(program) % crc_at;
        buffer.bytes[position] ^= take(program);
    }
    uint32_t crc = crc32c(0, buffer.bytes, crc_at);
    memcpy(buffer.bytes + crc_at, &crc, CRC_SIZE);
    stream_buffer_rewind(&buffer);
    if (state_load(&buffer.stream, &item, 1, NULL) < 0)
        require(memcmp(before, device->state, device->table->size) == 0);
    stream_buffer_finish(&buffer);
    resume_all();
}

static void pass_time(uint64_t us)
{
    bool running = pc.clock.running;

    pause_all();
    pc.wall_ns += us * 1000;
    guest_clock_set(&pc.clock, guest_clock_now(&pc.clock) + us * 1000);
    if (running)
        resume_all();
}

static void do_step(struct program *program)
{
    uint8_t step = take(program);
    unsigned choice = step >> 4;

    switch ((enum step)(step & 0x0f)) {
    case READ:
    case WRITE:
        access_port(program, choice, (step & 0x0f) == WRITE);
        break;
    case TYPE:
        type_bytes(program);
        break;
    case BREAK:
        serial_break(pc.serial);
        break;
    case BUTTON:
        if (choice % 2)
            acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
        else
            acpi_pm_press_power_button(pc.pm);
        break;
    case TIME:
        pass_time(take_u32(program));
        break;
    case LOAD:
        load_stranger(program, pc.devices[choice % DEVICES]);
        break;
    case RESET:
        reset_all();
        break;
    case PAUSE:
        pause_all();
        break;
    case RESUME:
        resume_all();
        break;
    case RUN_LOOP:
        run_due(pc.loop);
        break;
    }
}

static void check_as_new(void)
{
    reset_all();
    require((bus_read(pc.ports, 0x3f8 + 5, 1) & ~1u) ==
            0x60); /* input that waited may be in again */
    require(bus_read(pc.ports, 0x64, 1) == 0x14);
    require(bus_read(pc.ports, ACPI_PM_BASE, 4) == 0);
    bus_write(pc.ports, 0x70, 1, 0x0b);
    require(bus_read(pc.ports, 0x71, 1) == 0x02);
    require(!pc.chip.level[4] && !pc.chip.level[8] && !pc.chip.level[9]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};

    set_up();
    reset_all();
    for (unsigned steps = 0; program.left && steps < 4096; steps++)
        do_step(&program);
    for (unsigned i = 0; i < DEVICES; i++)
        require(state_check(pc.devices[i]->table, pc.devices[i]->state, NULL) == 0);
    check_as_new();

    for (unsigned i = 0; i < DEVICES; i++)
        device_destroy(pc.devices[i]);
    loop_destroy(pc.loop);
    bus_destroy(pc.ports);
    return 0;
}
