/* SPDX-License-Identifier: MIT */
/* Our BIOS as a whole: what it leaves in memory, its port, and what it says of the machine. */
#include "firmware/x86/bios_data.h"
#include "firmware/x86/e820.h"
#include "tests/unit/bios_rig.h"
#include "tests/unit/unit.h"
#include <errno.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct bios_rig rig;

static void set_up_with(uint64_t memory_size)
{
    memset(&rig, 0, sizeof(rig));
    bios_rig_start_with(&rig, memory_size);
    ck_assert_int_eq(bios_write_data(rig.memory, NULL), 0);
}

static void set_up(void)
{
    set_up_with(BIOS_RIG_MEMORY);
}

static void tear_down(void)
{
    bios_rig_finish(&rig);
}

static uint16_t ram16(gpa_t at)
{
    uint16_t value;
    memcpy(&value, bios_rig_ram(&rig, at, 2), 2);
    return value;
}

static bool ask(uint16_t vector, uint32_t eax)
{
    rig.mail.eax = eax;
    ck_assert_uint_eq(bios_rig_call(&rig, vector), BIOS_DONE);
    return !bios_rig_failed(&rig);
}

/* --- what lies in memory ---------------------------------------------------------------------- */

START_TEST(every_vector_leads_into_the_image_or_nowhere)
{
    size_t size = (size_t)(bios_image_end - bios_image);
    unsigned empty = 0;

    for (gpa_t at = 0; at < 0x400; at += 4) {
        uint16_t offset = ram16(at), segment = ram16(at + 2);
        if (segment == 0) {
            ck_assert_uint_eq(offset, 0);
            empty++;
            continue;
        }
        ck_assert_uint_eq(segment, BIOS_SEGMENT);
        ck_assert_uint_ge(offset, BIOS_OFFSET + MAILBOX_SIZE);
        ck_assert_uint_lt(offset, BIOS_OFFSET + size);
    }
    ck_assert_uint_eq(empty, 13);
    ck_assert_uint_lt(size, 1024);
    ck_assert_mem_eq(bios_rig_ram(&rig, LAYOUT_BIOS, size), bios_image, size);
}
END_TEST

START_TEST(the_processor_begins_at_post_and_a_jump_to_the_reset_vector_restarts)
{
    struct cpu_entry entry;
    const uint8_t *top = bios_rig_ram(&rig, 0xFFFF0, 16);

    ck_assert_int_eq(bios_load(rig.memory, &entry, NULL), 0);
    ck_assert_int_eq(entry.mode, CPU_REAL);
    ck_assert_uint_eq(entry.segment_base, 0xF0000);
    ck_assert_uint_eq(entry.ip, bios_post);
    ck_assert_uint_eq(entry.sp, 0x7C00);
    ck_assert_uint_eq(top[0], 0xEA);
    ck_assert_uint_eq(ram16(0xFFFF1), bios_restart);
    ck_assert_uint_eq(ram16(0xFFFF3), BIOS_SEGMENT);
    ck_assert_uint_eq(top[14], 0xFC);
}
END_TEST

START_TEST(the_data_area_says_what_there_is)
{
    ck_assert_uint_eq(ram16(0x400), 0x3F8);
    ck_assert_uint_eq(ram16(0x402), 0);
    ck_assert_uint_eq(ram16(0x40E), LAYOUT_EBDA >> 4);
    ck_assert_uint_eq(ram16(0x413), 639);
    ck_assert_uint_eq(ram16(0x41A), 0x1E);
    ck_assert_uint_eq(ram16(0x41C), 0x1E);
    ck_assert_uint_eq(ram16(0x44A), 80);
    ck_assert_uint_eq(ram16(0x484) & 0xFF, 24);
    ck_assert_uint_eq(ram16(LAYOUT_EBDA) & 0xFF, 1);
    ck_assert_uint_lt(ram16(0x46C) | (uint32_t)ram16(0x46E) << 16, BIOS_TICKS_PER_DAY);
    ck_assert(ask(0x11, 0));
    ck_assert_uint_eq(word(rig.mail.eax), 0x0222);
    ck_assert(ask(0x12, 0));
    ck_assert_uint_eq(word(rig.mail.eax), 639);
}
END_TEST

START_TEST(the_config_table_is_where_c0_says)
{
    ck_assert(ask(0x15, 0xC000));
    gpa_t at = far(rig.mail.es, rig.mail.ebx);
    ck_assert_uint_eq(ram16(at), 8);
    ck_assert_uint_eq(ram16(at + 2), 0x00FC);
    ck_assert(ask(0x15, 0xC100));
    ck_assert_uint_eq(rig.mail.es, LAYOUT_EBDA >> 4);
}
END_TEST

/* --- the port -----------------------------------------------------------------------------------
 */

START_TEST(a_stray_write_to_the_port_does_nothing)
{
    struct bios_mailbox *box = bios_rig_ram(&rig, LAYOUT_BIOS, sizeof(*box)), before;

    ck_assert(ask(0x12, 0));
    ck_assert_uint_eq(box->vector, BIOS_NO_VECTOR);
    before = *box;
    bus_write(rig.ports, BIOS_PORT, 4, 0xFFFFFFFF);
    ck_assert_mem_eq(box, &before, sizeof(before));
    ck_assert_uint_eq(bus_read(rig.ports, BIOS_PORT, 1), 0xFF);
}
END_TEST

START_TEST(an_unknown_vector_changes_no_register)
{
    memset(&rig.mail, 0xA5, sizeof(rig.mail));
    struct bios_mailbox before = rig.mail;
    before.vector = BIOS_NO_VECTOR;
    before.action = BIOS_DONE;
    ck_assert_uint_eq(bios_rig_call(&rig, 0x1B), BIOS_DONE);
    ck_assert_mem_eq(&rig.mail, &before, sizeof(before));
}
END_TEST

START_TEST(only_the_flags_of_the_answer_change)
{
    rig.mail.flags = 0xFFFF;
    ck_assert(ask(0x15, 0x2401));
    ck_assert_uint_eq(rig.mail.flags, 0xFFFE);
    rig.mail.flags = 0x0202;
    ck_assert(!ask(0x15, 0x2400));
    ck_assert_uint_eq(rig.mail.flags, 0x0203);
}
END_TEST

START_TEST(serial_and_printer_services_time_out)
{
    ask(0x14, 0x0141);
    ck_assert_uint_eq(bios_rig_status(&rig), 0x80);
    ask(0x17, 0x0041);
    ck_assert_uint_eq(bios_rig_status(&rig), 0x01);
}
END_TEST

/* --- memory
 * --------------------------------------------------------------------------------------- */

static unsigned read_map(uint32_t length, struct e820_map *ret_map)
{
    unsigned count = 0;

    rig.mail.ebx = 0;
    do {
        rig.mail.es = 0x1000;
        rig.mail.edi = 0xABCD0000 | 0x20;
        rig.mail.ecx = length;
        rig.mail.edx = 0x534D4150;
        memset(bios_rig_ram(&rig, 0x10020, 32), 0xEE, 32);
        ck_assert(ask(0x15, 0xE820));
        ck_assert_uint_eq(rig.mail.eax, 0x534D4150);
        ck_assert_uint_eq(rig.mail.ecx, length < 24 ? 20 : 24);
        const uint8_t *at = bios_rig_ram(&rig, 0x10020, 32);
        struct e820_entry *entry = &ret_map->entries[count++];
        memcpy(&entry->base, at, 8);
        memcpy(&entry->size, at + 8, 8);
        entry->type = at[16];
        ck_assert_uint_eq(at[20], length < 24 ? 0xEE : 1);
        ck_assert_uint_eq(at[24], 0xEE);
    } while (rig.mail.ebx != 0 && count < E820_MAX);
    ck_assert_uint_eq(rig.mail.ebx, 0);
    return count;
}

START_TEST(e820_gives_the_map_that_kernels_get)
{
    static const uint32_t lengths[] = {20, 24, 4096};
    struct e820_map map = {0}, expected;

    tear_down();
    set_up_with(6 * GIB);
    e820_build(rig.memory, &expected);
    for (unsigned i = 0; i < array_size(lengths); i++) {
        ck_assert_uint_eq(read_map(lengths[i], &map), expected.count);
        for (unsigned j = 0; j < expected.count; j++) {
            ck_assert_uint_eq(map.entries[j].base, expected.entries[j].base);
            ck_assert_uint_eq(map.entries[j].size, expected.entries[j].size);
            ck_assert_uint_eq(map.entries[j].type, expected.entries[j].type);
        }
    }
}
END_TEST

START_TEST(e820_refuses_what_is_no_question)
{
    static const struct {
        uint32_t edx, ecx, ebx;
    } questions[] = {
        {0x534D4151, 20, 0}, {0x534D4150, 19, 0},          {0x534D4150, 0, 0},
        {0x534D4150, 20, 7}, {0x534D4150, 20, 0x80000000}, {0x534D4150, 20, UINT32_MAX},
    };

    for (unsigned i = 0; i < array_size(questions); i++) {
        rig.mail = (struct bios_mailbox){.edx = questions[i].edx,
                                         .ecx = questions[i].ecx,
                                         .ebx = questions[i].ebx,
                                         .es = 0x1000};
        ck_assert(!ask(0x15, 0xE820));
        ck_assert_uint_eq(bios_rig_status(&rig), 0x86);
    }
}
END_TEST

START_TEST(the_older_calls_tell_the_same_size)
{
    static const struct {
        uint64_t memory;
        uint16_t below_16m_kib, above_16m_units, kib_88;
    } sizes[] = {
        {2 * MIB, 1024, 0, 1024},
        {16 * MIB, 15360, 0, 15360},
        {64 * MIB, 15360, 768, 64512},
        {6 * GIB, 15360, (3072 - 16) * 16, 64512},
    };

    tear_down();
    set_up_with(sizes[_i].memory);
    ck_assert(ask(0x15, 0xE801));
    ck_assert_uint_eq(word(rig.mail.eax), sizes[_i].below_16m_kib);
    ck_assert_uint_eq(word(rig.mail.ecx), sizes[_i].below_16m_kib);
    ck_assert_uint_eq(word(rig.mail.ebx), sizes[_i].above_16m_units);
    ck_assert_uint_eq(word(rig.mail.edx), sizes[_i].above_16m_units);
    ck_assert(ask(0x15, 0x8800));
    ck_assert_uint_eq(word(rig.mail.eax), sizes[_i].kib_88);
}
END_TEST

static void put_descriptor(uint8_t *at, uint32_t base)
{
    at[2] = (uint8_t)base;
    at[3] = (uint8_t)(base >> 8);
    at[4] = (uint8_t)(base >> 16);
    at[7] = (uint8_t)(base >> 24);
}

static bool move_block(uint32_t from, uint32_t to, uint16_t words)
{
    uint8_t *table = bios_rig_ram(&rig, 0x20010, 0x30);

    memset(table, 0, 0x30);
    put_descriptor(table + 0x10, from);
    put_descriptor(table + 0x18, to);
    rig.mail.es = 0x2000;
    rig.mail.esi = 0x10;
    rig.mail.ecx = words;
    return ask(0x15, 0x8700);
}

START_TEST(a_block_moves_also_over_itself_and_is_marked_as_written)
{
    uint8_t *high_memory = bios_rig_ram(&rig, 8 * MIB, 0x10000), *low_memory;
    uint64_t log[BIOS_RIG_MEMORY / PAGE_SIZE / 64] = {0};

    for (unsigned i = 0; i < 0x10000; i++)
        high_memory[i] = (uint8_t)(i * 7 + (i >> 8));
    ck_assert_int_eq(memory_log_start(rig.memory), 0);
    ck_assert(move_block(8 * MIB, 0x30000, 0x8000)); /* the most there can be */
    low_memory = bios_rig_ram(&rig, 0x30000, 0x10000);
    ck_assert_mem_eq(low_memory, high_memory, 0x10000);
    memory_log_harvest(rig.memory, 0, array_size(log), log);
    ck_assert_uint_eq(log[0] >> 0x30, 0xFFFF);
    ck_assert(move_block(8 * MIB, 8 * MIB + 2, 100));
    ck_assert_mem_eq(high_memory + 2, low_memory, 200);
    ck_assert(move_block(UINT32_MAX, UINT32_MAX, 0));
}
END_TEST

START_TEST(a_block_outside_of_the_memory_does_not_move)
{
    static const struct {
        uint32_t from, to;
        uint16_t words;
    } moves[] = {
        {0x30000, 0x40000, 0x8001},    {BIOS_RIG_MEMORY, 0x40000, 1},
        {0x30000, BIOS_RIG_MEMORY, 1}, {0x30000, BIOS_RIG_MEMORY - 2, 2},
        {0xFFFFFFFE, 0x40000, 2},      {0x30000, 0xFEE00000, 16},
    };

    for (unsigned i = 0; i < array_size(moves); i++) {
        ck_assert(!move_block(moves[i].from, moves[i].to, moves[i].words));
        ck_assert_uint_eq(bios_rig_status(&rig), 2);
    }
}
END_TEST

START_TEST(a20_is_always_on)
{
    ck_assert(!ask(0x15, 0x2400));
    ck_assert(ask(0x15, 0x2401));
    ck_assert(ask(0x15, 0x2402));
    ck_assert_uint_eq(word(rig.mail.eax), 1);
    ck_assert(ask(0x15, 0x2403));
    ck_assert_uint_eq(word(rig.mail.ebx), 3);
}
END_TEST

START_TEST(what_there_is_not_is_refused)
{
    static const uint16_t functions[] = {0x0000, 0x4100, 0x4F1E, 0x5300, 0x8000, 0x8900,
                                         0xC200, 0xD800, 0xE820, 0xE881, 0xE8FF, 0xFFFF};

    for (unsigned i = 0; i < array_size(functions); i++) {
        rig.mail = (struct bios_mailbox){0};
        ck_assert(!ask(0x15, functions[i]));
        ck_assert_uint_eq(bios_rig_status(&rig), 0x86);
        ck_assert_uint_eq(low(rig.mail.eax), functions[i] & 0xFF);
    }
    ck_assert(ask(0x15, 0x9002));
    ck_assert(!ask(0x1A, 0x0600));
}
END_TEST

/* --- time ------------------------------------------------------------------------------------- */

START_TEST(a_wait_comes_in_pieces_and_ends)
{
    unsigned rounds = 0, action;

    rig.mail.ecx = 0xABCD0000;
    rig.mail.edx = 12000;
    do {
        rig.mail.eax = 0x8600;
        action = bios_rig_call(&rig, 0x15);
        ck_assert_uint_eq(rig.mail.vector, action == BIOS_AGAIN ? 0x15 : BIOS_NO_VECTOR);
        rounds++;
    } while (action == BIOS_AGAIN && rounds < 10);
    ck_assert_uint_eq(action, BIOS_DONE);
    ck_assert_uint_eq(rounds, 3);
    ck_assert(!bios_rig_failed(&rig));
    ck_assert_uint_eq(bios_rig_status(&rig), 0);
}
END_TEST

START_TEST(the_tick_count_is_the_data_areas)
{
    rig.mail.ecx = 0x0012;
    rig.mail.edx = 0x3456;
    ck_assert(ask(0x1A, 0x0100));
    ck_assert_uint_eq(ram16(0x46C), 0x3456);
    ck_assert_uint_eq(ram16(0x46E), 0x0012);
    *(uint8_t *)bios_rig_ram(&rig, 0x470, 1) = 1;
    ck_assert(ask(0x1A, 0));
    ck_assert_uint_eq(word(rig.mail.eax), 1); /* it has been midnight, which is said once */
    ck_assert_uint_eq(word(rig.mail.ecx), 0x0012);
    ck_assert_uint_eq(word(rig.mail.edx), 0x3456);
    ck_assert(ask(0x1A, 0));
    ck_assert_uint_eq(word(rig.mail.eax), 0);
}
END_TEST

START_TEST(time_and_date_are_the_clocks)
{
    ck_assert(ask(0x1A, 0x0200));
    ck_assert_uint_eq(word(rig.mail.ecx), 0x1015);
    ck_assert_uint_eq(word(rig.mail.edx), 0x0700);
    ck_assert(ask(0x1A, 0x0400));
    ck_assert_uint_eq(word(rig.mail.ecx), 0x2026);
    ck_assert_uint_eq(word(rig.mail.edx), 0x0316);
    rig.mail.ecx = 0x2359;
    rig.mail.edx = 0x5800;
    ck_assert(ask(0x1A, 0x0300));
    rig.mail.ecx = 0x1999;
    rig.mail.edx = 0x1231;
    ck_assert(ask(0x1A, 0x0500));
    ck_assert(ask(0x1A, 0x0200));
    ck_assert_uint_eq(word(rig.mail.ecx), 0x2359);
    ck_assert_uint_eq(word(rig.mail.edx), 0x5800);
    ck_assert(ask(0x1A, 0x0400));
    ck_assert_uint_eq(word(rig.mail.ecx), 0x1999);
    ck_assert_uint_eq(word(rig.mail.edx), 0x1231);
}
END_TEST

/* --- PCI
 * ------------------------------------------------------------------------------------------ */

enum { BRIDGE = 0x00081B36, NOT_FOUND = 0x86, BAD_REGISTER = 0x87, NO_VENDOR = 0xFFFF };

static bool ask_pci(uint16_t service, unsigned function, unsigned reg)
{
    rig.mail.ebx = function;
    rig.mail.edi = reg;
    return ask(0x1A, service);
}

START_TEST(the_pci_bios_finds_what_is_on_the_bus)
{
    ck_assert(ask(0x1A, 0xB101));
    ck_assert_uint_eq(rig.mail.edx, 0x20494350);
    ck_assert_uint_eq(word(rig.mail.ebx), 0x0210);
    ck_assert_uint_eq(word(rig.mail.eax), 0x0001);
    rig.mail.ebx = 0xFFFF;
    rig.mail.ecx = BRIDGE >> 16;
    rig.mail.edx = BRIDGE & 0xFFFF;
    ck_assert(ask(0x1A, 0xB102));
    ck_assert_uint_eq(word(rig.mail.ebx), 0);
    rig.mail.esi = 1; /* a second one */
    ck_assert(!ask(0x1A, 0xB102));
    ck_assert_uint_eq(bios_rig_status(&rig), NOT_FOUND);
    rig.mail.esi = 0;
    rig.mail.ecx = 0x060000;
    ck_assert(ask(0x1A, 0xB103));
    rig.mail.ecx = 0x020000;
    ck_assert(!ask(0x1A, 0xB103));
    rig.mail.edx = NO_VENDOR;
    ck_assert(!ask(0x1A, 0xB102));
    ck_assert_uint_eq(bios_rig_status(&rig), 0x83);
}
END_TEST

START_TEST(the_pci_bios_reads_and_writes_as_the_ports_do)
{
    bus_write(rig.ports, 0xCF8, 4, 0x8000AB40);
    rig.mail.ecx = 0x11223344;
    ck_assert(ask_pci(0xB108, 0, 0));
    ck_assert_uint_eq(rig.mail.ecx, 0x11223336);
    ck_assert(ask_pci(0xB109, 0, 2));
    ck_assert_uint_eq(rig.mail.ecx, 0x11220008);
    ck_assert(ask_pci(0xB10A, 0, 0));
    ck_assert_uint_eq(rig.mail.ecx, BRIDGE);
    rig.mail.ecx = 0xFFFFFF5A;
    ck_assert(ask_pci(0xB10B, 0, 0x3C)); /* a register that keeps what it is told */
    ck_assert(ask_pci(0xB10A, 0, 0x3C));
    ck_assert_uint_eq(low(rig.mail.ecx), 0x5A);
    ck_assert(ask_pci(0xB10A, 0xFF08, 0)); /* another bus */
    ck_assert_uint_eq(rig.mail.ecx, UINT32_MAX);
    ck_assert_uint_eq(bus_read(rig.ports, 0xCF8, 4), 0x8000AB40);
}
END_TEST

START_TEST(the_pci_bios_refuses_what_is_no_register)
{
    static const struct {
        uint16_t service, reg;
        uint8_t status;
    } calls[] = {{0xB109, 1, BAD_REGISTER},
                 {0xB10A, 2, BAD_REGISTER},
                 {0xB108, 0x100, BAD_REGISTER},
                 {0xB10D, 0xFFFF, BAD_REGISTER},
                 {0xB10C, 0xFF, BAD_REGISTER},
                 {0xB104, 0, 0x81},
                 {0xB10E, 0, 0x81},
                 {0xB1FF, 0, 0x81}};

    for (unsigned i = 0; i < array_size(calls); i++) {
        ck_assert(!ask_pci(calls[i].service, 0, calls[i].reg));
        ck_assert_uint_eq(bios_rig_status(&rig), calls[i].status);
    }
}
END_TEST

/* --- life ----------------------------------------------------------------------------------------
 */

START_TEST(state_table_keeps_its_promises)
{
    const struct bios_state sample = {
        .boot_next = 2, .row = 3, .column = 40, .lost = true, .attribute = 0x70};

    unit_check_table(bios_device(rig.bios)->table, &sample);
}
END_TEST

START_TEST(a_second_one_and_too_many_drives_are_refused)
{
    struct bios_config config = {.memory = rig.memory, .ports = rig.ports, .serial = rig.serial};
    struct bios *second = NULL;
    struct err err = {0};

    ck_assert_int_eq(bios_create(&second, &config, &err), -EEXIST);
    config.drive_count = BIOS_MAX_DRIVES + 1;
    ck_assert_int_eq(bios_create(&second, &config, &err), -E2BIG);
    ck_assert_ptr_null(second);
    ck_assert(ask(0x12, 0)); /* the first still answers */
    ck_assert_uint_eq(word(rig.mail.eax), 639);
}
END_TEST

/* Registers, flags and the data areas of anybody's making; whatever comes of it, the BIOS lives. */
START_TEST(garbage_in_mailbox_and_data_area_does_no_harm)
{
    static const uint8_t vectors[] = {0x10, 0x11, 0x12, 0x13, 0x15, 0x16, 0x18, 0x19, 0x1A, 0x60};
    uint64_t seed = 0xB105;

    for (unsigned i = 0; i < 20000; i++) {
        uint32_t *at = (uint32_t *)(void *)&rig.mail;
        for (unsigned j = 0; j < sizeof(rig.mail) / 4; j++)
            at[j] = (uint32_t)(chance(&seed) >> 13) & (chance(&seed) % 2 ? 0xFFFFFFFF : 0x00FF00FF);
        if (chance(&seed) % 4)
            set_high(&rig.mail.eax, (uint8_t)(chance(&seed) % 0x20));
        if (i % 16 == 0) {
            uint64_t dice = chance(&seed);
            memcpy(bios_rig_ram(&rig, 0x400 + dice % 0xF8, 8), &dice, 8);
        }
        if (high(rig.mail.eax) == 0x86)
            continue; /* waits */
        bios_rig_call(&rig, vectors[chance(&seed) % array_size(vectors)]);
        ck_assert_uint_le(rig.mail.action, BIOS_HALT);
        ck_assert_int_eq(
            state_check(bios_device(rig.bios)->table, bios_device(rig.bios)->state, NULL), 0);
    }
    ck_assert_uint_gt(rig.unbootable_count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bios");
    TCase *bios = tcase_create("bios");

    tcase_add_checked_fixture(bios, set_up, tear_down);
    tcase_add_test(bios, every_vector_leads_into_the_image_or_nowhere);
    tcase_add_test(bios, the_processor_begins_at_post_and_a_jump_to_the_reset_vector_restarts);
    tcase_add_test(bios, the_data_area_says_what_there_is);
    tcase_add_test(bios, the_config_table_is_where_c0_says);
    tcase_add_test(bios, a_stray_write_to_the_port_does_nothing);
    tcase_add_test(bios, an_unknown_vector_changes_no_register);
    tcase_add_test(bios, only_the_flags_of_the_answer_change);
    tcase_add_test(bios, serial_and_printer_services_time_out);
    tcase_add_test(bios, e820_gives_the_map_that_kernels_get);
    tcase_add_test(bios, e820_refuses_what_is_no_question);
    tcase_add_loop_test(bios, the_older_calls_tell_the_same_size, 0, 4);
    tcase_add_test(bios, a_block_moves_also_over_itself_and_is_marked_as_written);
    tcase_add_test(bios, a_block_outside_of_the_memory_does_not_move);
    tcase_add_test(bios, a20_is_always_on);
    tcase_add_test(bios, what_there_is_not_is_refused);
    tcase_add_test(bios, a_wait_comes_in_pieces_and_ends);
    tcase_add_test(bios, the_tick_count_is_the_data_areas);
    tcase_add_test(bios, time_and_date_are_the_clocks);
    tcase_add_test(bios, the_pci_bios_finds_what_is_on_the_bus);
    tcase_add_test(bios, the_pci_bios_reads_and_writes_as_the_ports_do);
    tcase_add_test(bios, the_pci_bios_refuses_what_is_no_register);
    tcase_add_test(bios, state_table_keeps_its_promises);
    tcase_add_test(bios, a_second_one_and_too_many_drives_are_refused);
    tcase_add_test(bios, garbage_in_mailbox_and_data_area_does_no_harm);
    suite_add_tcase(suite, bios);
    return unit_main(suite);
}
