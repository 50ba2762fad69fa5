/* SPDX-License-Identifier: MIT */
/* INT 13h, and what INT 19h and 18h start. */
#include "firmware/x86/bios_data.h"
#include "tests/unit/bios_rig.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { SECTORS = 4096, SIZE = SECTORS * 512, BUFFER = 0x20000, PACKET = 0x1F000 };
enum { BAD_PARAMETER = 1, PROTECTED = 3, NOT_FOUND = 4, BAD_BUFFER = 9, NOT_REMOVABLE = 0xB2 };
enum { WRITE_FAULT = 0xCC };

static struct bios_rig rig;

/* Bytes that differ from sector to sector. */
static void fill(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 9) * 13 + 1);
}

static void set_up(void)
{
    memset(&rig, 0, sizeof(rig));
    fill(bios_rig_add_drive(&rig, SIZE, 512), SIZE);
    fill(bios_rig_add_drive(&rig, 64 * 4096, 4096), 64 * 4096);
    bios_rig_start(&rig);
    ck_assert_int_eq(bios_write_data(rig.memory, NULL), 0);
    rig.mail.edx = 0x80;
}

static void tear_down(void)
{
    bios_rig_finish(&rig);
}

static uint8_t *ram(gpa_t at, size_t length)
{
    return bios_rig_ram(&rig, at, length);
}

/* The status, which must stand in AH, in CF and at 40:74. */
static uint8_t ask(uint16_t function)
{
    set_word(&rig.mail.eax, function);
    ck_assert_uint_eq(bios_rig_call(&rig, 0x13), BIOS_DONE);
    ck_assert_int_eq(bios_rig_failed(&rig), *ram(0x474, 1) != 0);
    if (bios_rig_failed(&rig))
        ck_assert_uint_eq(bios_rig_status(&rig), *ram(0x474, 1));
    return *ram(0x474, 1);
}

static uint8_t chs(uint16_t function, unsigned cylinder, unsigned head, unsigned sector,
                   gpa_t buffer)
{
    set_word(&rig.mail.ecx, (uint16_t)((cylinder & 0xFF) << 8 | (cylinder >> 8) << 6 | sector));
    set_high(&rig.mail.edx, (uint8_t)head);
    rig.mail.es = (uint16_t)(buffer >> 4);
    set_word(&rig.mail.ebx, buffer & 15);
    return ask(function);
}

struct packet {
    uint8_t size, zero;
    uint16_t count, offset, segment;
    uint64_t sector, flat;
};

static uint8_t ask_packet(uint16_t function, struct packet packet)
{
    if (!packet.size)
        packet.size = 0x10;
    memcpy(ram(PACKET, sizeof(packet)), &packet, sizeof(packet));
    rig.mail.ds = (PACKET - 0x10) >> 4;
    rig.mail.esi = 0x77770010;
    return ask(function);
}

static struct packet to_buffer(uint64_t sector, uint16_t count)
{
    return (struct packet){.count = count, .segment = BUFFER >> 4, .sector = sector};
}

static uint16_t packet_count(void)
{
    uint16_t count;
    memcpy(&count, ram(PACKET + 2, 2), 2);
    return count;
}

/* --- by cylinder, head and sector ---------------------------------------------------------------
 */

START_TEST(chs_counts_255_heads_and_63_sectors)
{
    ck_assert_uint_eq(chs(0x0201, 0, 0, 1, BUFFER), 0);
    ck_assert_uint_eq(word(rig.mail.eax), 0x0001);
    ck_assert_mem_eq(ram(BUFFER, 512), rig.disks[0].bytes, 512);
    ck_assert_uint_eq(chs(0x0203, 0, 63, 63, BUFFER + 15), 0);
    ck_assert_mem_eq(ram(BUFFER + 15, 1536), rig.disks[0].bytes + (size_t)(63 * 63 + 62) * 512,
                     1536);
    ck_assert_uint_eq(chs(0x02FF, 0, 1, 1, BUFFER), 0); /* as many as AL can say */
    ck_assert_mem_eq(ram(BUFFER, 255 * 512), rig.disks[0].bytes + 63 * 512, 255 * 512);
    ck_assert_uint_eq(rig.disks[0].reads, 2 + 3); /* two looks at what it is, and one a call */
}
END_TEST

START_TEST(chs_refuses_what_is_not_on_the_disk)
{
    static const struct {
        unsigned count, cylinder, head, sector;
        uint8_t status;
    } calls[] = {
        {0, 0, 0, 1, BAD_PARAMETER},   {1, 0, 0, 0, BAD_PARAMETER},
        {1, 1, 0, 1, NOT_FOUND},       {1, 0, 255, 1, NOT_FOUND},
        {1, 1023, 254, 63, NOT_FOUND}, {1, 0, 65, 2, NOT_FOUND}, /* the first behind the end */
        {2, 0, 65, 1, NOT_FOUND},
    };

    for (unsigned i = 0; i < array_size(calls); i++) {
        for (uint16_t function = 0x0200; function <= 0x0400; function += 0x100) {
            ck_assert_uint_eq(chs((uint16_t)(function | calls[i].count), calls[i].cylinder,
                                  calls[i].head, calls[i].sector, BUFFER),
                              calls[i].status);
            ck_assert_uint_eq(low(rig.mail.eax), 0);
        }
    }
    ck_assert_uint_eq(chs(0x0201, 0, 65, 1, BUFFER), 0); /* the very last one */
    ck_assert_uint_eq(rig.disks[0].writes, 0);
}
END_TEST

START_TEST(what_is_written_is_on_the_disk)
{
    memset(ram(BUFFER, 1024), 0x5A, 1024);
    ck_assert_uint_eq(chs(0x0302, 0, 2, 5, BUFFER), 0);
    ck_assert_uint_eq(low(rig.mail.eax), 2);
    const uint8_t *at = rig.disks[0].bytes + (size_t)(2 * 63 + 4) * 512;
    ck_assert_mem_eq(at, ram(BUFFER, 1024), 1024);
    ck_assert_uint_ne(at[-1], 0x5A);
    ck_assert_uint_ne(at[1024], 0x5A);
}
END_TEST

START_TEST(what_is_read_is_marked_as_written_memory)
{
    uint64_t log[BIOS_RIG_MEMORY / PAGE_SIZE / 64] = {0};

    ask(0x0000);
    ck_assert_int_eq(memory_log_start(rig.memory), 0);
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(0, 16)), 0);
    memory_log_harvest(rig.memory, 0, array_size(log), log);
    ck_assert_uint_eq(log[0] >> (BUFFER / PAGE_SIZE) & 7, 3);
}
END_TEST

START_TEST(parameters_name_the_last_cylinder_head_and_sector)
{
    ck_assert_uint_eq(ask(0x0800), 0);
    ck_assert_uint_eq(word(rig.mail.ecx), 63);
    ck_assert_uint_eq(word(rig.mail.edx), 254 << 8 | 2);
    rig.mail.edx = 0x80;
    ck_assert_uint_eq(ask(0x1500), 0);
    ck_assert_uint_eq(bios_rig_status(&rig), 3);
    ck_assert_uint_eq((uint32_t)word(rig.mail.ecx) << 16 | word(rig.mail.edx), SECTORS);
    rig.mail.edx = 0x82; /* not there: AH says so, and it is no error */
    ck_assert_uint_eq(ask(0x1500), 0);
    ck_assert_uint_eq(bios_rig_status(&rig), 0);
}
END_TEST

START_TEST(drives_that_are_not_there_are_refused)
{
    static const uint8_t numbers[] = {0x00, 0x01, 0x7F, 0x82, 0xDF, 0xE0, 0xE1, 0xFF};
    static const uint16_t functions[] = {0x0000, 0x0201, 0x0301, 0x0401, 0x0800, 0x1000,
                                         0x4100, 0x4200, 0x4300, 0x4800, 0x4B01};

    for (unsigned i = 0; i < array_size(numbers); i++) {
        for (unsigned j = 0; j < array_size(functions); j++) {
            rig.mail = (struct bios_mailbox){.ebx = 0x55AA, .ecx = 1, .edx = numbers[i]};
            ck_assert_uint_eq(ask(functions[j]), BAD_PARAMETER);
        }
    }
}
END_TEST

START_TEST(the_last_status_can_be_asked_for)
{
    ck_assert_uint_eq(chs(0x0201, 0, 255, 1, BUFFER), NOT_FOUND);
    set_word(&rig.mail.eax, 0x0100);
    bios_rig_call(&rig, 0x13);
    ck_assert(bios_rig_failed(&rig));
    ck_assert_uint_eq(bios_rig_status(&rig), NOT_FOUND);
    ck_assert_uint_eq(ask(0x0000), 0);
    set_word(&rig.mail.eax, 0x0100);
    bios_rig_call(&rig, 0x13);
    ck_assert(!bios_rig_failed(&rig));
    ck_assert_uint_eq(bios_rig_status(&rig), 0);
}
END_TEST

START_TEST(small_services_answer)
{
    static const uint16_t good[] = {0x0000, 0x0900, 0x0C00, 0x0D00, 0x1000, 0x1100, 0x1400};
    static const uint16_t bad[] = {0x0500, 0x0600, 0x0A00, 0x1900, 0x4900, 0x4A00,
                                   0x4B01, 0x4C00, 0x4D00, 0x4E00, 0xFF00};

    for (unsigned i = 0; i < array_size(good); i++) {
        rig.mail.ecx = 1;
        ck_assert_uint_eq(ask(good[i]), 0);
    }
    for (unsigned i = 0; i < array_size(bad); i++)
        ck_assert_uint_eq(ask(bad[i]), BAD_PARAMETER);
    ck_assert_uint_eq(ask(0x4500), NOT_REMOVABLE);
    ck_assert_uint_eq(ask(0x4600), NOT_REMOVABLE);
}
END_TEST

/* --- by block
 * ------------------------------------------------------------------------------------- */

START_TEST(the_extensions_are_there)
{
    rig.mail.ebx = 0x123455AA;
    ck_assert_uint_eq(ask(0x4100), 0);
    ck_assert_uint_eq(rig.mail.ebx, 0x1234AA55);
    ck_assert_uint_eq(word(rig.mail.ecx), 5);
    ck_assert_uint_eq(bios_rig_status(&rig), 0x30);
    rig.mail.ebx = 0x55AB;
    ck_assert_uint_eq(ask(0x4100), BAD_PARAMETER);
}
END_TEST

START_TEST(packets_read_and_write_blocks)
{
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(SECTORS - 127, 127)), 0);
    ck_assert_mem_eq(ram(BUFFER, 127 * 512), rig.disks[0].bytes + SIZE - (size_t)127 * 512,
                     127 * 512);
    ck_assert_uint_eq(packet_count(), 127);
    memset(ram(BUFFER, 512), 0xA5, 512);
    for (unsigned verify = 0; verify <= 2; verify++)
        ck_assert_uint_eq(ask_packet((uint16_t)(0x4300 | verify), to_buffer(7 + verify, 1)), 0);
    for (unsigned i = 7 * 512; i < 10 * 512; i++)
        ck_assert_uint_eq(rig.disks[0].bytes[i], 0xA5);
    ck_assert_uint_eq(ask_packet(0x4303, to_buffer(7, 1)), BAD_PARAMETER);
    ck_assert_uint_eq(ask_packet(0x4400, to_buffer(SECTORS - 1, 1)), 0);
    ck_assert_uint_eq(ask_packet(0x4400, to_buffer(SECTORS, 1)), NOT_FOUND);
    ck_assert_uint_eq(ask_packet(0x4700, to_buffer(SECTORS - 1, 1)), 0);
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(5, 0)), 0); /* nothing is nothing */
}
END_TEST

START_TEST(a_flat_address_reaches_all_of_the_memory)
{
    struct packet packet = {.size = 0x18,
                            .count = 3,
                            .offset = 0xFFFF,
                            .segment = 0xFFFF,
                            .sector = 9,
                            .flat = BIOS_RIG_MEMORY - 3 * 512};

    ck_assert_uint_eq(ask_packet(0x4200, packet), 0);
    ck_assert_mem_eq(ram(packet.flat, 3 * 512), rig.disks[0].bytes + 9 * 512, 3 * 512);
    static const uint64_t bad[] = {BIOS_RIG_MEMORY - 3 * 512 + 1,
                                   BIOS_RIG_MEMORY,
                                   1ull << 32,
                                   UINT64_MAX,
                                   UINT64_MAX - 511,
                                   1ull << 63};
    for (unsigned i = 0; i < array_size(bad); i++) {
        packet.flat = bad[i];
        ck_assert_uint_eq(ask_packet(0x4200, packet), BAD_BUFFER);
        ck_assert_uint_eq(packet_count(), 0);
        ck_assert_uint_eq(ask_packet(0x4300, packet), BAD_BUFFER);
    }
    packet.size = 0x17; /* then it is the last byte of the first 1 MiB and 64 KiB */
    ck_assert_uint_eq(ask_packet(0x4200, packet), BAD_BUFFER);
}
END_TEST

START_TEST(blocks_past_the_end_and_wrapping_counts_are_refused)
{
    static const struct {
        uint64_t sector;
        uint16_t count;
        uint8_t status;
    } calls[] = {
        {SECTORS, 1, NOT_FOUND},
        {SECTORS - 1, 2, NOT_FOUND},
        {SECTORS - 126, 127, NOT_FOUND},
        {UINT64_MAX, 1, NOT_FOUND},
        {UINT64_MAX - 1, 127, NOT_FOUND},
        {UINT64_MAX / 512, 1, NOT_FOUND},
        {1ull << 55, 1, NOT_FOUND},
        {0, 128, BAD_PARAMETER},
        {0, 0xFF, BAD_PARAMETER},
        {0, 0xFFFF, BAD_PARAMETER},
        {UINT64_MAX, 0xFF7F, BAD_PARAMETER},
    };

    for (unsigned i = 0; i < array_size(calls); i++) {
        unsigned reads = (ask(0), rig.disks[0].reads);
        for (uint16_t function = 0x4200; function <= 0x4400; function += 0x100) {
            ck_assert_uint_eq(ask_packet(function, to_buffer(calls[i].sector, calls[i].count)),
                              calls[i].status);
        }
        ck_assert_uint_eq(rig.disks[0].reads, reads);
    }
    ck_assert_uint_eq(rig.disks[0].writes, 0);
    struct packet small = to_buffer(0, 1);
    small.size = 0x0F;
    ck_assert_uint_eq(ask_packet(0x4200, small), BAD_PARAMETER);
}
END_TEST

START_TEST(a_buffer_ends_where_real_mode_does)
{
    struct packet packet = {.count = 1, .segment = 0xFFFF, .offset = 0xFFF0 - 512 + 15};

    ck_assert_uint_eq(ask_packet(0x4200, packet), 0); /* above 1 MiB, for A20 is on */
    ck_assert_mem_eq(ram(0x10FFEF - 512, 512), rig.disks[0].bytes, 512);
    packet.offset += 2;
    ck_assert_uint_eq(ask_packet(0x4200, packet), BAD_BUFFER);
    ck_assert_uint_eq(chs(0x0280, 0, 0, 1, 0xFFFFF), BAD_BUFFER);
    packet = (struct packet){.count = 127, .segment = 0xF800, .offset = 0xFFFF};
    ck_assert_uint_eq(ask_packet(0x4200, packet), BAD_BUFFER);
}
END_TEST

START_TEST(drive_parameters_come_in_three_sizes)
{
    static const struct {
        uint16_t asked, got;
    } sizes[] = {{0x1A, 0x1A}, {0x1D, 0x1A}, {0x1E, 0x1E}, {0x42, 0x1E}, {0xFFFF, 0x1E}};

    rig.mail.ds = BUFFER >> 4;
    rig.mail.esi = 0;
    for (unsigned i = 0; i < array_size(sizes); i++) {
        uint8_t *at = ram(BUFFER, 0x60);
        uint64_t sectors;
        memset(at, 0xEE, 0x60);
        memcpy(at, &sizes[i].asked, 2);
        ck_assert_uint_eq(ask(0x4800), 0);
        ck_assert_uint_eq(at[0] | at[1] << 8, sizes[i].got);
        memcpy(&sectors, at + 0x10, 8);
        ck_assert_uint_eq(sectors, SECTORS);
        ck_assert_uint_eq(at[0x18] | at[0x19] << 8, 512);
        ck_assert_uint_eq(at[0x1A], sizes[i].got == 0x1A ? 0xEE : 0xFF);
        ck_assert_uint_eq(at[0x1E], 0xEE);
    }
    memset(ram(BUFFER, 2), 0, 2);
    ck_assert_uint_eq(ask(0x4800), BAD_PARAMETER);
}
END_TEST

START_TEST(large_blocks_are_sectors_of_4096)
{
    uint8_t *at = ram(BUFFER, 0x1A);

    rig.mail.edx = 0x81;
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(63, 1)), 0);
    ck_assert_mem_eq(ram(BUFFER, 4096), rig.disks[1].bytes + (size_t)63 * 4096, 4096);
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(63, 2)), NOT_FOUND);
    ck_assert_uint_eq(chs(0x0201, 0, 0, 2, BUFFER), 0);
    ck_assert_mem_eq(ram(BUFFER, 4096), rig.disks[1].bytes + 4096, 4096);
    rig.mail.ds = BUFFER >> 4;
    rig.mail.esi = 0;
    rig.mail.edx = 0x81;
    memcpy(at, "\x1a", 2);
    ck_assert_uint_eq(ask(0x4800), 0);
    ck_assert_uint_eq(at[0x18] | at[0x19] << 8, 4096);
    ck_assert_uint_eq(at[0x10], 64);
}
END_TEST

START_TEST(the_hosts_errors_are_the_disks)
{
    rig.bios->drives[0].readonly = true;
    ck_assert_uint_eq(ask_packet(0x4300, to_buffer(0, 1)), PROTECTED);
    ck_assert_uint_eq(chs(0x0301, 0, 0, 1, BUFFER), PROTECTED);
    ck_assert_uint_eq(rig.disks[0].writes, 0);
    rig.bios->drives[0].readonly = false;
    rig.disks[0].fail = -EIO;
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(0, 1)), NOT_FOUND);
    ck_assert_uint_eq(packet_count(), 0);
    ck_assert_uint_eq(ask_packet(0x4300, to_buffer(0, 1)), WRITE_FAULT);
    ck_assert_uint_eq(chs(0x0201, 0, 0, 1, BUFFER), NOT_FOUND);
    ck_assert_uint_eq(low(rig.mail.eax), 0);
    rig.disks[0].fail = -EPERM; /* the guard of a disk's first bytes */
    ck_assert_uint_eq(ask_packet(0x4300, to_buffer(0, 1)), PROTECTED);
}
END_TEST

/* What ask() does, for a call that does not end. */
static void expect_again(unsigned vector)
{
    ck_assert_uint_eq(bios_rig_call(&rig, (uint8_t)vector), BIOS_AGAIN);
    ck_assert_uint_eq(rig.mail.vector, vector);
}

START_TEST(a_call_that_was_interrupted_is_made_again_by_the_stub)
{
    rig.disks[0].fail = -ECANCELED; /* the vCPU is wanted elsewhere */
    set_word(&rig.mail.eax, 0x0202);
    set_word(&rig.mail.ecx, 0x0002);
    set_word(&rig.mail.edx, 0x0080);
    rig.mail.es = BUFFER >> 4;
    rig.mail.ebx = 0;
    expect_again(0x13);
    ck_assert_uint_eq(word(rig.mail.eax), 0x0202); /* as if it had not begun */
    rig.disks[0].fail = 0;
    ck_assert_uint_eq(ask(0x0202), 0);
    ck_assert_mem_eq(ram(BUFFER, 1024), rig.disks[0].bytes + 512, 1024);
}
END_TEST

START_TEST(a_start_that_was_interrupted_gives_up_nothing)
{
    struct device *device = bios_device(rig.bios);

    device->ops->reset(device); /* nothing is probed yet */
    rig.disks[0].fail = rig.disks[1].fail = -ECANCELED;
    expect_again(0x19);
    ck_assert_uint_eq(rig.unbootable_count, 0);
    ck_assert_uint_eq(rig.bios->state.boot_next, 0);
    ck_assert(!rig.bios->probed);
}
END_TEST

/* --- starting
 * --------------------------------------------------------------------------------------- */

enum { CD_SIZE = 64 * 2048 };

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

/* A catalog in block 20, the boot image (2048 bytes and a bit) in block 21. */
static void make_cd(uint8_t *bytes, uint8_t platform, uint8_t bootable, uint8_t media,
                    uint16_t segment)
{
    uint8_t *volume = bytes + 16 * 2048, *record = bytes + 17 * 2048, *catalog = bytes + 20 * 2048;
    uint16_t sum = 0;

    fill(bytes + 21 * 2048, 4096);
    memcpy(volume, "\1CD001\1", 7);
    memcpy(record, "\0CD001\1EL TORITO SPECIFICATION", 30);
    put32(record + 71, 20);
    memset(catalog, 0, 2048);
    catalog[0] = 1;
    catalog[1] = platform;
    catalog[30] = 0x55;
    catalog[31] = 0xAA;
    for (unsigned i = 0; i < 32; i += 2)
        sum = (uint16_t)(sum + (catalog[i] | catalog[i + 1] << 8));
    catalog[28] = (uint8_t)-sum;
    catalog[29] = (uint8_t)((0x10000 - sum) >> 8);
    catalog[32] = bootable;
    catalog[33] = media;
    memcpy(catalog + 34, &segment, 2);
    catalog[38] = 5; /* sectors of 512 bytes */
    put32(catalog + 40, 21);
}

static void make_bootable(uint8_t *sector)
{
    memset(sector, 0, 512);
    memcpy(sector, "\xEB\xFE", 2);
    memcpy(sector + 510, "\x55\xAA", 2);
}

static void set_up_empty(void)
{
    memset(&rig, 0, sizeof(rig));
}

static unsigned boot(uint16_t vector)
{
    memset(&rig.mail, 0xEE, sizeof(rig.mail));
    return bios_rig_call(&rig, vector);
}

static void check_started(uint8_t drive, uint16_t segment, uint16_t offset)
{
    ck_assert_uint_eq(rig.mail.action, BIOS_BOOT);
    ck_assert_uint_eq(rig.mail.edx, drive);
    ck_assert_uint_eq(rig.mail.es, 0);
    ck_assert_uint_eq(rig.mail.edi, 0);
    ck_assert_uint_eq(rig.mail.entry_cs, segment);
    ck_assert_uint_eq(rig.mail.entry_ip, offset);
}

START_TEST(disks_start_in_order_and_then_cds)
{
    bios_rig_add_drive(&rig, 1 << 20, 512); /* empty */
    make_cd(bios_rig_add_drive(&rig, CD_SIZE, 512), 0, 0x88, 0, 0);
    make_bootable(bios_rig_add_drive(&rig, 1 << 20, 512));
    make_bootable(bios_rig_add_drive(&rig, 1 << 20, 4096));
    bios_rig_start(&rig);

    boot(0x19);
    check_started(0x81, 0, 0x7C00);
    ck_assert_mem_eq(ram(0x7C00, 512), rig.disks[2].bytes, 512);
    ck_assert_uint_eq(*ram(0x475, 1), 3);
    boot(0x18);
    check_started(0x82, 0, 0x7C00);
    boot(0x18);
    check_started(0xE0, 0, 0x7C00);
    ck_assert_mem_eq(ram(0x7C00, 5 * 512), rig.disks[1].bytes + 21 * 2048, 5 * 512);
    ck_assert_uint_eq(rig.unbootable_count, 0);
    ck_assert_uint_eq(boot(0x18), BIOS_HALT);
    ck_assert_uint_eq(rig.unbootable_count, 1);
    ck_assert_str_eq(rig.why, "disk0 is empty where its boot sector should be; "
                              "disk2 was started, and its loader gave up; "
                              "disk3 was started, and its loader gave up; "
                              "disk1 was started, and its loader gave up");
    boot(0x19); /* from the beginning */
    check_started(0x81, 0, 0x7C00);
}
END_TEST

START_TEST(what_does_not_boot_says_why)
{
    uint8_t *text = bios_rig_add_drive(&rig, 1 << 20, 512);
    uint8_t *data = bios_rig_add_drive(&rig, 1 << 20, 512);
    uint8_t *gpt = bios_rig_add_drive(&rig, 1 << 20, 512);
    bios_rig_add_drive(&rig, 512, 512);

    memcpy(text, "some text", 9);
    memcpy(data + 510, "\x55\xAA", 2);
    data[446 + 4] = 0x83;
    memcpy(gpt, data, 512);
    gpt[446 + 4] = 0xEE;
    rig.disks[3].fail = -EIO;
    bios_rig_start(&rig);
    ck_assert_uint_eq(boot(0x19), BIOS_HALT);
    ck_assert_str_eq(rig.why, "disk0 has no boot sector, which has 55 AA at byte 510; "
                              "disk1 has partitions and no boot code; "
                              "disk2 has a GPT and no boot code for a BIOS; was it made for UEFI?; "
                              "disk3 cannot be read: Input/output error");
}
END_TEST

START_TEST(a_machine_without_disks_says_so)
{
    bios_rig_start(&rig);
    ck_assert_uint_eq(boot(0x19), BIOS_HALT);
    ck_assert_str_eq(rig.why, "the machine has no disk at all");
    ck_assert_uint_eq(boot(0x18), BIOS_HALT);
    ck_assert_uint_eq(rig.unbootable_count, 2);
}
END_TEST

START_TEST(a_cd_loads_where_its_catalog_says)
{
    static const struct {
        uint16_t segment, cs, ip;
    } places[] = {{0x7C0, 0, 0x7C00}, {0x1000, 0x1000, 0}, {0x2345, 0x2000, 0x3450}};

    make_cd(bios_rig_add_drive(&rig, CD_SIZE, 512), 0, 0x88, 0, places[_i].segment);
    make_bootable(rig.disks[0].bytes); /* those who copy it to a stick boot that */
    bios_rig_start(&rig);
    boot(0x19);
    check_started(0xE0, places[_i].cs, places[_i].ip);
    ck_assert_mem_eq(ram((gpa_t)places[_i].segment << 4, 5 * 512), rig.disks[0].bytes + 21 * 2048,
                     5 * 512);
    ck_assert_uint_eq(*ram(0x475, 1), 0);
}
END_TEST

START_TEST(a_cd_has_blocks_of_2048_and_its_emulation_can_be_asked_for)
{
    uint8_t *at;

    make_cd(bios_rig_add_drive(&rig, CD_SIZE, 512), 0, 0x88, 0, 0);
    bios_rig_start(&rig);
    at = ram(BUFFER, 0x20);
    rig.mail.edx = 0xE0;
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(21, 2)), 0);
    ck_assert_mem_eq(ram(BUFFER, 4096), rig.disks[0].bytes + 21 * 2048, 4096);
    ck_assert_uint_eq(ask_packet(0x4200, to_buffer(63, 2)), NOT_FOUND);
    ck_assert_uint_eq(chs(0x0201, 0, 0, 1, BUFFER), BAD_PARAMETER);
    rig.mail.edx = 0xE0;
    rig.mail.ds = BUFFER >> 4;
    rig.mail.esi = 0;
    ck_assert_uint_eq(ask(0x4B01), 0);
    ck_assert_uint_eq(at[0], 0x13);
    ck_assert_uint_eq(at[1], 0);
    ck_assert_uint_eq(at[2], 0xE0);
    ck_assert_uint_eq(at[4], 21);
    ck_assert_uint_eq(at[0x0C] | at[0x0D] << 8, 0x7C0);
    ck_assert_uint_eq(at[0x0E], 5);
    ck_assert_uint_eq(ask(0x4B00), BAD_PARAMETER);
    memcpy(at, "\x1a", 2);
    ck_assert_uint_eq(ask(0x4800), 0);
    ck_assert_uint_eq(at[2], 5); /* removable, and no geometry */
    ck_assert_uint_eq(at[0x18] | at[0x19] << 8, 2048);
    ck_assert_uint_eq(at[0x10], 64);
    rig.mail.edx = 0x80;
    ck_assert_uint_eq(ask(0), BAD_PARAMETER);
}
END_TEST

START_TEST(an_x86_section_behind_an_efi_entry_is_found)
{
    uint8_t *bytes = bios_rig_add_drive(&rig, CD_SIZE, 512), *catalog = bytes + 20 * 2048;

    make_cd(bytes, 0xEF, 0x88, 0, 0);
    catalog[64] = 0x91;
    catalog[65] = 0;
    catalog[66] = 1;
    memcpy(catalog + 96, catalog + 32, 32);
    catalog[96 + 8] = 22;
    bios_rig_start(&rig);
    boot(0x19);
    check_started(0xE0, 0, 0x7C00);
    ck_assert_mem_eq(ram(0x7C00, 512), bytes + 22 * 2048, 512);
}
END_TEST

/* Then it is a disk like others, and boots as one where it can. */
START_TEST(a_cd_that_is_none_is_a_disk)
{
    static const struct {
        uint8_t platform, bootable, media;
        unsigned at; /* a byte to spoil, or 0 */
    } cds[] = {{0xEF, 0x88, 0, 0},
               {0, 0x00, 0, 0},
               {0, 0x88, 2, 0},
               {0, 0x88, 0, 16 * 2048 + 1},
               {0, 0x88, 0, 17 * 2048 + 9},
               {0, 0x88, 0, 17 * 2048 + 74},
               {0, 0x88, 0, 20 * 2048 + 5},
               {0, 0x88, 0, 20 * 2048 + 30}};
    uint8_t *bytes = bios_rig_add_drive(&rig, CD_SIZE, 512);

    make_cd(bytes, cds[_i].platform, cds[_i].bootable, cds[_i].media, 0);
    if (cds[_i].at)
        bytes[cds[_i].at] ^= 0x40;
    if (_i % 2)
        make_bootable(bytes);
    bios_rig_start(&rig);
    boot(0x19);
    if (_i % 2)
        check_started(0x80, 0, 0x7C00);
    else
        ck_assert_ptr_nonnull(strstr(rig.why, bytes[16 * 2048 + 1] == 'C'
                                                  ? "needs no emulation"
                                                  : "is empty where its boot sector"));
}
END_TEST

START_TEST(a_hostile_catalog_loads_nothing)
{
    static const struct {
        uint16_t segment, sectors;
        uint32_t block;
    } entries[] = {
        {0x0001, 4, 21},
        {0x0040, 4, 21},
        {0x9FC0, 4, 21},
        {0x9F00, 16, 21},
        {0xF100, 4, 21},
        {0xFFFF, 4, 21},
        {0x7C0, 0xFFFF, 21},
        {0x7C0, 4, 64},
        {0x7C0, 8, 63},
        {0x7C0, 4, UINT32_MAX},
        {0x7C0, 0xFFFF, UINT32_MAX},
    };
    uint8_t *bytes = bios_rig_add_drive(&rig, CD_SIZE, 512), *entry = bytes + 20 * 2048 + 32;

    make_cd(bytes, 0, 0x88, 0, entries[_i].segment);
    memcpy(entry + 6, &entries[_i].sectors, 2);
    put32(entry + 8, entries[_i].block);
    bios_rig_start(&rig);
    memset(ram(0x500, LAYOUT_EBDA - 0x500), 0xC3, LAYOUT_EBDA - 0x500);
    ck_assert_uint_eq(boot(0x19), BIOS_HALT);
    ck_assert_ptr_nonnull(strstr(rig.why, "has a boot image that"));
    for (gpa_t at = 0x500; at < LAYOUT_EBDA; at += 16)
        ck_assert_uint_eq(*ram(at, 1), 0xC3);
}
END_TEST

START_TEST(a_superfloppys_geometry_is_its_own)
{
    uint8_t *sector = bios_rig_add_drive(&rig, 2880 * 512, 512);

    make_bootable(sector);
    memcpy(sector, "\xEB\x3C\x90", 3);
    sector[12] = 2; /* 512 bytes a sector */
    sector[13] = 1;
    sector[14] = 1;
    sector[16] = 2;
    sector[21] = 0xF0;
    sector[24] = 18;
    sector[26] = 2;
    bios_rig_start(&rig);
    rig.mail.edx = 0x80;
    ck_assert_uint_eq(ask(0x0800), 0);
    ck_assert_uint_eq(word(rig.mail.ecx), 79 << 8 | 18);
    ck_assert_uint_eq(high(rig.mail.edx), 1);
    fill(rig.disks[0].bytes + 512, 2879 * 512);
    rig.mail.edx = 0x80;
    ck_assert_uint_eq(chs(0x0201, 79, 1, 18, BUFFER), 0);
    ck_assert_mem_eq(ram(BUFFER, 512), rig.disks[0].bytes + 2879 * 512, 512);
    ck_assert_uint_eq(chs(0x0201, 0, 0, 19, BUFFER), NOT_FOUND);
}
END_TEST

START_TEST(a_reset_looks_at_the_drives_again)
{
    struct device *device;

    bios_rig_add_drive(&rig, CD_SIZE, 512);
    bios_rig_start(&rig);
    ck_assert_uint_eq(boot(0x19), BIOS_HALT);
    make_cd(rig.disks[0].bytes, 0, 0x88, 0, 0);
    device = bios_device(rig.bios);
    device->ops->reset(device);
    boot(0x19);
    check_started(0xE0, 0, 0x7C00);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bios_disk");
    TCase *disk = tcase_create("disk"), *start = tcase_create("start");

    tcase_add_checked_fixture(disk, set_up, tear_down);
    tcase_add_test(disk, chs_counts_255_heads_and_63_sectors);
    tcase_add_test(disk, chs_refuses_what_is_not_on_the_disk);
    tcase_add_test(disk, what_is_written_is_on_the_disk);
    tcase_add_test(disk, what_is_read_is_marked_as_written_memory);
    tcase_add_test(disk, parameters_name_the_last_cylinder_head_and_sector);
    tcase_add_test(disk, drives_that_are_not_there_are_refused);
    tcase_add_test(disk, the_last_status_can_be_asked_for);
    tcase_add_test(disk, small_services_answer);
    tcase_add_test(disk, the_extensions_are_there);
    tcase_add_test(disk, packets_read_and_write_blocks);
    tcase_add_test(disk, a_flat_address_reaches_all_of_the_memory);
    tcase_add_test(disk, blocks_past_the_end_and_wrapping_counts_are_refused);
    tcase_add_test(disk, a_buffer_ends_where_real_mode_does);
    tcase_add_test(disk, drive_parameters_come_in_three_sizes);
    tcase_add_test(disk, large_blocks_are_sectors_of_4096);
    tcase_add_test(disk, the_hosts_errors_are_the_disks);
    tcase_add_test(disk, a_call_that_was_interrupted_is_made_again_by_the_stub);
    tcase_add_test(disk, a_start_that_was_interrupted_gives_up_nothing);
    suite_add_tcase(suite, disk);

    tcase_add_checked_fixture(start, set_up_empty, tear_down);
    tcase_add_test(start, disks_start_in_order_and_then_cds);
    tcase_add_test(start, what_does_not_boot_says_why);
    tcase_add_test(start, a_machine_without_disks_says_so);
    tcase_add_loop_test(start, a_cd_loads_where_its_catalog_says, 0, 3);
    tcase_add_test(start, a_cd_has_blocks_of_2048_and_its_emulation_can_be_asked_for);
    tcase_add_test(start, an_x86_section_behind_an_efi_entry_is_found);
    tcase_add_loop_test(start, a_cd_that_is_none_is_a_disk, 0, 8);
    tcase_add_loop_test(start, a_hostile_catalog_loads_nothing, 0, 11);
    tcase_add_test(start, a_superfloppys_geometry_is_its_own);
    tcase_add_test(start, a_reset_looks_at_the_drives_again);
    suite_add_tcase(suite, start);
    return unit_main(suite);
}
