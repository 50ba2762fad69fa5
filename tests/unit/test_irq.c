/* SPDX-License-Identifier: MIT */
#include "core/irq.h"
#include "tests/unit/unit.h"

/* What the far end was told. */
struct told {
    unsigned calls;
    unsigned number;
    bool level;
    uint64_t address;
    uint32_t data;
};

static void handle_set_line(void *ctx, unsigned number, bool level)
{
    struct told *told = ctx;
    told->calls++;
    told->number = number;
    told->level = level;
}

static void handle_send(void *ctx, uint64_t address, uint32_t data)
{
    struct told *told = ctx;
    told->calls++;
    told->address = address;
    told->data = data;
}

START_TEST(a_line_tells_its_chip_of_changes_only)
{
    struct told told = {0};
    struct irq_chip chip = {.set_line = handle_set_line, .ctx = &told};
    struct irq_line line;

    irq_line_init(&line, &chip, 4);
    ck_assert_uint_eq(told.calls, 0);
    irq_line_set(&line, false); /* a new line is low */
    ck_assert_uint_eq(told.calls, 0);
    irq_line_set(&line, true);
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_uint_eq(told.number, 4);
    ck_assert(told.level);
    irq_line_set(&line, true);
    ck_assert_uint_eq(told.calls, 1);
    irq_line_set(&line, false);
    ck_assert_uint_eq(told.calls, 2);
    ck_assert(!told.level);
}
END_TEST

START_TEST(a_renewed_line_tells_its_chip_in_any_case)
{
    struct told told = {0};
    struct irq_chip chip = {.set_line = handle_set_line, .ctx = &told};
    struct irq_line line;

    irq_line_init(&line, &chip, 9);
    irq_line_renew(&line, false);
    ck_assert_uint_eq(told.calls, 1);
    irq_line_renew(&line, true);
    irq_line_renew(&line, true);
    ck_assert_uint_eq(told.calls, 3);
    ck_assert(told.level);
    irq_line_set(&line, true); /* and it knows what it said */
    ck_assert_uint_eq(told.calls, 3);
}
END_TEST

START_TEST(a_message_arrives_as_it_was_sent)
{
    struct told told = {0};
    struct msi_sink sink = {.send = handle_send, .ctx = &told};

    msi_send(&sink, 0x1fee00000, 0x4041);
    ck_assert_uint_eq(told.calls, 1);
    ck_assert_uint_eq(told.address, 0x1fee00000);
    ck_assert_uint_eq(told.data, 0x4041);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("irq");
    TCase *all = tcase_create("all");

    tcase_add_test(all, a_line_tells_its_chip_of_changes_only);
    tcase_add_test(all, a_renewed_line_tells_its_chip_in_any_case);
    tcase_add_test(all, a_message_arrives_as_it_was_sent);
    suite_add_tcase(suite, all);
    return unit_main(suite);
}
