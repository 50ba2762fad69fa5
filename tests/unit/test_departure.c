/* SPDX-License-Identifier: MIT */
/* When pages are made shorter, while all of a VM is sent. */
#include "ft/departure.c"

#include "tests/unit/unit.h"

/* How many looks at a line that is slow all the time it takes until the effort changes. */
static unsigned looks_until_change(struct departure_pace *pace, bool is_short)
{
    unsigned looks = 1;
    pace->looks = 0;
    while (!shall_change(pace, is_short, true))
        ck_assert_uint_lt(looks++, 1000);
    return looks;
}

START_TEST(what_gets_shorter_is_made_so_most_of_the_time)
{
    struct departure_pace pace = {0};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(looks_until_change(&pace, false), 1);
        ck_assert_uint_gt(looks_until_change(&pace, true), 10);
    }
}
END_TEST

START_TEST(what_gets_no_shorter_is_seldom_tried)
{
    struct departure_pace pace = {.in_vain = true};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(looks_until_change(&pace, true), 1);
        ck_assert_uint_gt(looks_until_change(&pace, false), 10);
    }
}
END_TEST

START_TEST(a_fast_line_is_left_alone)
{
    struct departure_pace pace = {0};
    for (unsigned i = 0; i < 100; i++)
        ck_assert(!shall_change(&pace, false, false));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("departure");
    TCase *tests = tcase_create("departure");
    tcase_add_test(tests, what_gets_shorter_is_made_so_most_of_the_time);
    tcase_add_test(tests, what_gets_no_shorter_is_seldom_tried);
    tcase_add_test(tests, a_fast_line_is_left_alone);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
