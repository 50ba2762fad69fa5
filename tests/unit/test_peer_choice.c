/* SPDX-License-Identifier: MIT */
#include "ft/peer_choice.h"
#include "tests/unit/unit.h"

static const char *const peers[] = {"hostA", "hostB:7420", "hostC", "hostD"};

static void check_next(struct peer_choice *choice, const struct peer_list *list, uint64_t now,
                       const char *wanted)
{
    ck_assert_str_eq(peer_choice_next(choice, list, now), wanted);
}

START_TEST(the_former_one_is_waited_for)
{
    const struct peer_list list = {
        .former = "hostB", .peers = peers, .count = 3, .patience_ns = 100};
    struct peer_choice choice;
    peer_choice_begin(&choice, 1000);
    for (uint64_t now = 1000; now < 1100; now++)
        check_next(&choice, &list, now, "hostB");
    check_next(&choice, &list, 1100, "hostA");
}
END_TEST

START_TEST(then_all_have_their_turn)
{
    const struct peer_list list = {.former = "hostB", .peers = peers, .count = 4};
    static const char *const wanted[] = {"hostA", "hostB", "hostC", "hostB",
                                         "hostD", "hostB", "hostA", "hostB"};
    struct peer_choice choice;
    peer_choice_begin(&choice, 1000);
    for (size_t i = 0; i < array_size(wanted); i++)
        check_next(&choice, &list, 1000 + i, wanted[i]);
}
END_TEST

START_TEST(a_twin_that_was_lost_is_waited_for_anew)
{
    const struct peer_list list = {
        .former = "hostC", .peers = peers, .count = 4, .patience_ns = 100};
    struct peer_choice choice;
    peer_choice_begin(&choice, 1000);
    check_next(&choice, &list, 1100, "hostA");
    peer_choice_begin(&choice, 1200);
    check_next(&choice, &list, 1299, "hostC");
    check_next(&choice, &list, 1300, "hostA");
}
END_TEST

START_TEST(without_others_it_is_the_former_one)
{
    const struct peer_list none = {.former = "hostB"};
    const struct peer_list itself = {.former = "hostB", .peers = &peers[1], .count = 1};
    struct peer_choice choice;
    peer_choice_begin(&choice, 0);
    for (uint64_t now = 0; now < 4; now++) {
        check_next(&choice, &none, now, "hostB");
        check_next(&choice, &itself, now, "hostB");
    }
}
END_TEST

START_TEST(where_no_former_one_is_known_the_list_counts)
{
    const struct peer_list list = {.former = "", .peers = peers, .count = 2, .patience_ns = 100};
    const struct peer_list none = {.former = ""};
    struct peer_choice choice;
    peer_choice_begin(&choice, 0);
    check_next(&choice, &list, 1, "hostA");
    check_next(&choice, &list, 2, "hostB:7420");
    check_next(&choice, &list, 3, "hostA");
    ck_assert_ptr_null(peer_choice_next(&choice, &none, 4));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peer_choice");
    TCase *tcase = tcase_create("peer_choice");
    tcase_add_test(tcase, the_former_one_is_waited_for);
    tcase_add_test(tcase, then_all_have_their_turn);
    tcase_add_test(tcase, a_twin_that_was_lost_is_waited_for_anew);
    tcase_add_test(tcase, without_others_it_is_the_former_one);
    tcase_add_test(tcase, where_no_former_one_is_known_the_list_counts);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
