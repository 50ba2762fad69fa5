/* SPDX-License-Identifier: MIT */
/*
 * INT 11h, 12h, 15h and 1Ah: the machine, its memory and its time. What is not here is refused with
 * AH=86h and CF, which says "no such function" since the AT.
 */
#include "firmware/x86/bios_parts.h"
#include "firmware/x86/e820.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { NO_SUCH_FUNCTION = 0x86 };

void bios_equipment(struct bios_call *call)
{
    set_word(&call->mail.eax, bios_get16(call, BDA_EQUIPMENT));
}

void bios_memory_size(struct bios_call *call)
{
    set_word(&call->mail.eax, bios_get16(call, BDA_MEMORY_KIB));
}

/* --- INT 15h: memory ------------------------------------------------------------------------ */

/* RAM between 1 MiB and the hole. */
static uint64_t extended_memory(const struct bios_call *call)
{
    uint64_t below;
    gpa_t above;

    layout_split(memory_size(call->memory), &below, &above);
    return below - LAYOUT_1M;
}

/* ACPI 6.5, 15.1. EBX says where the caller is in the list: 0, or what it got from us. */
static void memory_map(struct bios_call *call)
{
    enum { SMAP = 0x534D4150, ENTRY = 20, EXTENDED_ENTRY = 24 };
    struct bios_mailbox *mail = &call->mail;
    struct e820_map map;
    uint32_t index = mail->ebx;

    e820_build(call->memory, &map);
    if (mail->edx != SMAP || mail->ecx < ENTRY || index >= map.count) {
        call_bad(call, NO_SUCH_FUNCTION);
        return;
    }
    const struct e820_entry *entry = &map.entries[index];
    const struct {
        uint64_t base, size;
        uint32_t type, attributes;
    } answer = {entry->base, entry->size, entry->type, 1 /* to be regarded */};
    uint32_t length = mail->ecx >= EXTENDED_ENTRY ? EXTENDED_ENTRY : ENTRY;
    if (memory_write(call->memory, far(mail->es, mail->edi), &answer, length) < 0) {
        call_bad(call, NO_SUCH_FUNCTION);
        return;
    }
    mail->eax = SMAP;
    mail->ebx = index + 1 < map.count ? index + 1 : 0;
    mail->ecx = length;
    set_flag(call, FLAG_CARRY, false);
}

/* In KiB up to 16 MiB, and in units of 64 KiB above; said twice. */
static void memory_size_e801(struct bios_call *call)
{
    const uint64_t below_16m = 15 << 20;
    uint64_t size = extended_memory(call);
    uint16_t kib = (uint16_t)((size < below_16m ? size : below_16m) >> 10);
    uint16_t units = (uint16_t)(size < below_16m ? 0 : (size - below_16m) >> 16);

    set_word(&call->mail.eax, kib);
    set_word(&call->mail.ebx, units);
    set_word(&call->mail.ecx, kib);
    set_word(&call->mail.edx, units);
    set_flag(call, FLAG_CARRY, false);
}

/* At most 63 MiB: what has more is asked for by the calls above. */
static void memory_size_88(struct bios_call *call)
{
    const uint64_t most = 63 << 10;
    uint64_t kib = extended_memory(call) >> 10;

    set_word(&call->mail.eax, (uint16_t)(kib < most ? kib : most));
    set_flag(call, FLAG_CARRY, false);
}

/* Where a segment descriptor of the 386 begins. */
static gpa_t descriptor_base(const uint8_t *descriptor)
{
    return descriptor[2] | (gpa_t)descriptor[3] << 8 | (gpa_t)descriptor[4] << 16 |
           (gpa_t)descriptor[7] << 24;
}

/*
 * CX words from one place of the memory to another. ES:SI is a table of descriptors, the third
 * being the source and the fourth the target; their limits are not looked at, like on most PCs.
 */
static void move_block(struct bios_call *call)
{
    enum { SOURCE = 0x10, TARGET = 0x18, TABLE = 0x20, MOST_WORDS = 0x8000, FAULT = 2 };
    uint8_t table[TABLE];
    uint32_t words = word(call->mail.ecx);
    void *from, *to;

    if (words > MOST_WORDS ||
        memory_read(call->memory, far(call->mail.es, call->mail.esi), table, sizeof(table)) < 0) {
        call_bad(call, FAULT);
        return;
    }
    gpa_t target = descriptor_base(table + TARGET);
    size_t length = (size_t)words * 2;
    if (length > 0) {
        if (memory_borrow(call->memory, descriptor_base(table + SOURCE), length, &from) < 0 ||
            memory_borrow(call->memory, target, length, &to) < 0) {
            call_bad(call, FAULT);
            return;
        }
        memmove(to, from, length);
        memory_written(call->memory, target, length);
    }
    call_good(call);
}

/* A20 is on, for good: our machine has no gate. */
static void a20(struct bios_call *call)
{
    switch (low(call->mail.eax)) {
    case 0x01: /* on */
        call_good(call);
        break;
    case 0x02: /* is it on? */
        call_good(call);
        set_low(&call->mail.eax, 1);
        break;
    case 0x03: /* who has the switch: the keyboard controller and port 92h */
        call_good(call);
        set_word(&call->mail.ebx, 3);
        break;
    default:
        call_bad(call, NO_SUCH_FUNCTION);
        break;
    }
}

/* --- INT 15h: the rest ---------------------------------------------------------------------- */

static void config_table(struct bios_call *call)
{
    call->mail.es = BIOS_SEGMENT;
    set_word(&call->mail.ebx, bios_config_table);
    call_good(call);
}

/*
 * Waits CX:DX microseconds, a few milliseconds at a time, so that neither interrupts nor a pause of
 * the machine have to wait longer. The registers count down; the stub keeps the caller's.
 */
static void wait(struct bios_call *call)
{
    const uint32_t longest_us = 5000;
    uint32_t left_us = (uint32_t)word(call->mail.ecx) << 16 | word(call->mail.edx);
    uint32_t now_us = left_us < longest_us ? left_us : longest_us;
    struct timespec time = {.tv_nsec = (long)now_us * 1000}, rest = {0};

    (void)nanosleep(&time, &rest); /* a signal ends it early: somebody wants the vCPU */
    left_us -= now_us - (uint32_t)(rest.tv_nsec / 1000);
    set_word(&call->mail.ecx, (uint16_t)(left_us >> 16));
    set_word(&call->mail.edx, (uint16_t)left_us);
    if (left_us > 0)
        call->mail.action = BIOS_AGAIN;
    else
        call_good(call);
}

void bios_system(struct bios_call *call)
{
    switch (high(call->mail.eax)) {
    case 0x24:
        a20(call);
        return;
    case 0x86:
        wait(call);
        return;
    case 0x87:
        move_block(call);
        return;
    case 0x88:
        memory_size_88(call);
        return;
    case 0x90: /* a device is busy, and... */
    case 0x91: /* ...ready again: told to a multitasking system, which nobody is here */
        call_good(call);
        return;
    case 0xC0:
        config_table(call);
        return;
    case 0xC1:
        call->mail.es = bios_get16(call, BDA_EBDA);
        set_flag(call, FLAG_CARRY, false);
        return;
    case 0xE8:
        if (low(call->mail.eax) == 0x20) {
            memory_map(call);
            return;
        }
        if (low(call->mail.eax) == 0x01) {
            memory_size_e801(call);
            return;
        }
        break;
    }
    call_bad(call, NO_SUCH_FUNCTION);
}

/* --- INT 1Ah -------------------------------------------------------------------------------- */

enum {
    CMOS_INDEX = 0x70,
    CMOS_DATA = 0x71,
    CMOS_SECONDS = 0,
    CMOS_MINUTES = 2,
    CMOS_HOURS = 4,
    CMOS_DAY = 7,
    CMOS_MONTH = 8,
    CMOS_YEAR = 9,
    CMOS_B = 0x0B,
    CMOS_B_SET = 0x80,
    CMOS_CENTURY = 0x32,
};

static uint8_t read_cmos(const struct bios_call *call, uint8_t reg)
{
    bus_write(call->bios->config.ports, CMOS_INDEX, 1, reg);
    return (uint8_t)bus_read(call->bios->config.ports, CMOS_DATA, 1);
}

static void write_cmos(const struct bios_call *call, uint8_t reg, uint8_t value)
{
    bus_write(call->bios->config.ports, CMOS_INDEX, 1, reg);
    bus_write(call->bios->config.ports, CMOS_DATA, 1, value);
}

/*
 * Reads up to four registers that belong together, in the form in which the clock keeps them (BCD,
 * unless the guest has changed that). Again when the second changes meanwhile, as often as a clock
 * that somebody plays with deserves.
 */
static void read_clock(const struct bios_call *call, const uint8_t *regs, uint8_t *ret_values,
                       unsigned count)
{
    uint8_t second = read_cmos(call, CMOS_SECONDS);

    for (unsigned tries = 0; tries < 3; tries++) {
        uint8_t before = second;
        for (unsigned i = 0; i < count; i++)
            ret_values[i] = read_cmos(call, regs[i]);
        second = read_cmos(call, CMOS_SECONDS);
        if (second == before)
            return;
    }
}

/* The clock stands still while its registers change. */
static void write_clock(const struct bios_call *call, const uint8_t *regs, const uint8_t *values,
                        unsigned count)
{
    uint8_t b = read_cmos(call, CMOS_B);

    write_cmos(call, CMOS_B, b | CMOS_B_SET);
    for (unsigned i = 0; i < count; i++)
        write_cmos(call, regs[i], values[i]);
    write_cmos(call, CMOS_B, b & (uint8_t)~CMOS_B_SET);
}

static const uint8_t time_regs[] = {CMOS_HOURS, CMOS_MINUTES, CMOS_SECONDS};
static const uint8_t date_regs[] = {CMOS_CENTURY, CMOS_YEAR, CMOS_MONTH, CMOS_DAY};

static void get_ticks(struct bios_call *call)
{
    uint32_t ticks = bios_get32(call, BDA_TICKS);

    set_word(&call->mail.ecx, (uint16_t)(ticks >> 16));
    set_word(&call->mail.edx, (uint16_t)ticks);
    call_good(call);
    set_low(&call->mail.eax, bios_get8(call, BDA_MIDNIGHT));
    bios_put8(call, BDA_MIDNIGHT, 0);
}

static void set_ticks(struct bios_call *call)
{
    bios_put32(call, BDA_TICKS, (uint32_t)word(call->mail.ecx) << 16 | word(call->mail.edx));
    bios_put8(call, BDA_MIDNIGHT, 0);
    call_good(call);
}

static void get_time(struct bios_call *call)
{
    uint8_t time[3];

    read_clock(call, time_regs, time, 3);
    set_word(&call->mail.ecx, (uint16_t)(time[0] << 8 | time[1]));
    set_word(&call->mail.edx, (uint16_t)(time[2] << 8)); /* DL: no daylight saving */
    call_good(call);
}

static void set_time(struct bios_call *call)
{
    const uint8_t time[] = {high(call->mail.ecx), low(call->mail.ecx), high(call->mail.edx)};

    write_clock(call, time_regs, time, 3);
    call_good(call);
}

static void get_date(struct bios_call *call)
{
    uint8_t date[4];

    read_clock(call, date_regs, date, 4);
    set_word(&call->mail.ecx, (uint16_t)(date[0] << 8 | date[1]));
    set_word(&call->mail.edx, (uint16_t)(date[2] << 8 | date[3]));
    call_good(call);
}

static void set_date(struct bios_call *call)
{
    const uint8_t date[] = {high(call->mail.ecx), low(call->mail.ecx), high(call->mail.edx),
                            low(call->mail.edx)};

    write_clock(call, date_regs, date, 4);
    call_good(call);
}

void bios_time(struct bios_call *call)
{
    enum { PCI = 0xB1 };

    switch (high(call->mail.eax)) {
    case 0x00:
        get_ticks(call);
        break;
    case 0x01:
        set_ticks(call);
        break;
    case 0x02:
        get_time(call);
        break;
    case 0x03:
        set_time(call);
        break;
    case 0x04:
        get_date(call);
        break;
    case 0x05:
        set_date(call);
        break;
    case PCI:
        bios_pci(call);
        break;
    default: /* AH stays: nobody has changed it */
        set_flag(call, FLAG_CARRY, true);
        break;
    }
}
