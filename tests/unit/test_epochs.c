/* SPDX-License-Identifier: MIT */
/* The record of the last epochs: what is kept, what is forgotten, and what it comes to. */
#include "core/thread.h"
#include "ft/epochs.h"
#include "tests/unit/unit.h"

#include <string.h>

#define MS 1000000ull

static struct epochs epochs;

static void set_up(void)
{
    ck_assert_int_eq(epochs_init(&epochs, NULL), 0);
}

static void tear_down(void)
{
    epochs_finish(&epochs);
    epochs_finish(&epochs);
}

/* One every 10 ms. */
static void add(uint64_t epoch, uint64_t pause_ns)
{
    const struct epoch_record record = {.epoch = epoch,
                                        .began_ns = epoch * 10 * MS + 1,
                                        .pause_ns = pause_ns,
                                        .pages = 2,
                                        .cause = EPOCH_TIME};
    epochs_add(&epochs, &record);
}

static uint64_t number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_integer(value), "%s", key);
    return (uint64_t)json_integer_value(value);
}

static double real(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_real(value), "%s", key);
    return json_real_value(value);
}

/* The last `most` of them are those up to `last`, without a gap. */
static void expect_list(unsigned most, uint64_t first, uint64_t last)
{
    json_t *list = epochs_list(&epochs, most);
    ck_assert_uint_eq(json_array_size(list), last - first + 1);
    for (uint64_t i = first; i <= last; i++)
        ck_assert_uint_eq(number(json_array_get(list, i - first), "epoch"), i);
    json_decref(list);
}

static void expect_none(void)
{
    json_t *list = epochs_list(&epochs, EPOCHS_KEPT);
    ck_assert_uint_eq(json_array_size(list), 0);
    json_decref(list);
}

START_TEST(nothing_is_nothing)
{
    expect_none();
    epochs_note_acked(&epochs, 0, 1, 0);
    epochs_note_acked(&epochs, 7, 1, 0);
    json_t *sum = epochs_sum_up(&epochs, 100);
    ck_assert_uint_eq(number(sum, "epochs"), 0);
    ck_assert(json_is_null(json_object_get(sum, "pause_us")));
    ck_assert(json_is_null(json_object_get(sum, "commit_us")));
    ck_assert_double_eq(real(sum, "epochs_per_s"), 0);
    json_decref(sum);
    sum = epochs_sum_up(&epochs, 0);
    ck_assert_uint_eq(number(sum, "epochs"), 0);
    json_decref(sum);
}
END_TEST

START_TEST(all_that_is_known_of_an_epoch_is_told)
{
    static const char *const causes[] = {"output", "time", "disk", "set", "first"};
    static const uint64_t kinds[] = {11, 12, 13, 14};
    for (unsigned i = 0; i < 5; i++) {
        const struct epoch_record record = {.epoch = i + 1,
                                            .began_ns = 100 * MS,
                                            .pause_ns = 1000,
                                            .stop_ns = 100,
                                            .state_ns = 200,
                                            .pages_ns = 300,
                                            .line_ns = 3000,
                                            .resume_ns = 400,
                                            .pages = 5,
                                            .disk_bytes = 6,
                                            .held_bytes = 7,
                                            .cause = (enum epoch_cause)(EPOCH_OUTPUT + i)};
        epochs_add(&epochs, &record);
    }
    epochs_note_sent(&epochs, 5, 5000, 999, kinds);
    epochs_note_acked(&epochs, 5, 102 * MS, 7000);
    json_t *list = epochs_list(&epochs, 5);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_str_eq(json_string_value(json_object_get(json_array_get(list, i), "cause")),
                         causes[i]);
    const json_t *last = json_array_get(list, 4);
    static const struct {
        const char *key;
        double us;
    } times[] = {{"pause_us", 1},    {"stop_us", 0.1}, {"state_us", 0.2},   {"pages_us", 0.3},
                 {"resume_us", 0.4}, {"send_us", 5},   {"commit_us", 2000}, {"line_us", 4}};
    for (unsigned i = 0; i < array_size(times); i++)
        ck_assert_double_eq_tol(real(last, times[i].key), times[i].us, 1e-9);
    ck_assert(number(last, "pages") == 5 && number(last, "disk_bytes") == 6);
    ck_assert(number(last, "held_bytes") == 7 && number(last, "wire_bytes") == 999);
    ck_assert(number(last, "zero_pages") == 11 && number(last, "raw_pages") == 12);
    ck_assert(number(last, "lz4_pages") == 13 && number(last, "delta_pages") == 14);
    ck_assert_double_eq(real(json_array_get(list, 0), "commit_us"), 0); /* not yet */
    json_decref(list);
}
END_TEST

START_TEST(the_oldest_make_room)
{
    for (uint64_t epoch = 1; epoch <= EPOCHS_KEPT; epoch++)
        add(epoch, 1000);
    expect_list(EPOCHS_KEPT + 5, 1, EPOCHS_KEPT);
    for (uint64_t epoch = EPOCHS_KEPT + 1; epoch <= EPOCHS_KEPT + 100; epoch++)
        add(epoch, 1000);
    expect_list(EPOCHS_KEPT + 5, 101, EPOCHS_KEPT + 100);
    expect_list(3, EPOCHS_KEPT + 98, EPOCHS_KEPT + 100);
    /* What comes late for one that is gone does nothing to the one in its place. */
    epochs_note_acked(&epochs, 50, 99 * MS * EPOCHS_KEPT, 0);
    json_t *list = epochs_list(&epochs, EPOCHS_KEPT);
    ck_assert_double_eq(real(json_array_get(list, EPOCHS_KEPT - 51), "commit_us"), 0);
    json_decref(list);
}
END_TEST

START_TEST(a_vm_that_was_taken_over_begins_in_the_middle)
{
    add(1000000, 1000);
    add(1000001, 1000);
    expect_list(100, 1000000, 1000001);
}
END_TEST

/* One that did not get as far as its number being known is taken again under the same one. */
START_TEST(an_epoch_that_is_taken_again_counts_once)
{
    add(1, 1000);
    add(2, 1000);
    add(2, 3000);
    add(2, 5000);
    expect_list(100, 1, 2);
    json_t *sum = epochs_sum_up(&epochs, 100);
    ck_assert_uint_eq(number(sum, "epochs"), 2);
    ck_assert_double_eq_tol(real(json_object_get(sum, "pause_us"), "most"), 5, 1e-9);
    json_decref(sum);
}
END_TEST

START_TEST(an_acknowledgement_counts_once)
{
    add(1, 1000);
    epochs_note_acked(&epochs, 1, 12 * MS + 1, 0);
    epochs_note_acked(&epochs, 1, 500 * MS, 0);
    json_t *list = epochs_list(&epochs, 1);
    ck_assert_double_eq_tol(real(json_array_get(list, 0), "commit_us"), 2000, 1e-9);
    json_decref(list);
}
END_TEST

START_TEST(sums_are_those_of_the_window)
{
    for (uint64_t epoch = 1; epoch <= 1000; epoch++)
        add(epoch, epoch <= 900 ? 50 * MS : (epoch - 900) * 1000); /* the last: 1 to 100 us */
    for (uint64_t epoch = 951; epoch <= 1000; epoch++)
        epochs_note_acked(&epochs, epoch, epoch * 10 * MS + 1 + MS, 0);
    json_t *sum = epochs_sum_up(&epochs, 100);
    const json_t *pause = json_object_get(sum, "pause_us");
    const json_t *commit = json_object_get(sum, "commit_us");
    ck_assert_uint_eq(number(sum, "epochs"), 100);
    ck_assert_double_eq_tol(real(pause, "median"), 51, 1e-9);
    ck_assert_double_eq_tol(real(pause, "p99"), 100, 1e-9);
    ck_assert_double_eq_tol(real(pause, "most"), 100, 1e-9);
    ck_assert_double_eq_tol(real(commit, "median"), 1000, 1e-9);
    /* 99 times 10 ms between the first and the last of them. */
    ck_assert_double_eq_tol(real(sum, "epochs_per_s"), 100 / 0.99, 0.01);
    ck_assert_double_eq_tol(real(sum, "dirty_bytes_per_s"), 100 * 2 * 4096 / 0.99, 1);
    ck_assert_double_eq_tol(real(sum, "stood_still_percent"), 5.050 / 990 * 100, 0.001);
    json_decref(sum);
}
END_TEST

static void run_reader(void *arg)
{
    atomic_bool *over = arg;
    while (!*over) {
        json_decref(epochs_list(&epochs, 50));
        json_decref(epochs_sum_up(&epochs, 50));
    }
}

START_TEST(who_looks_does_not_disturb_who_writes)
{
    static const uint64_t kinds[4];
    atomic_bool over = false;
    struct thread reader = {0};
    ck_assert_int_eq(thread_start(&reader, "reader", run_reader, &over, NULL), 0);
    for (uint64_t epoch = 1; epoch <= 20000; epoch++) {
        add(epoch, 1000);
        epochs_note_sent(&epochs, epoch, 1, 1, kinds);
        epochs_note_acked(&epochs, epoch, epoch * 10 * MS + 2, 0);
    }
    over = true;
    thread_join(&reader);
    expect_list(10, 19991, 20000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("epochs");
    TCase *tests = tcase_create("epochs");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, nothing_is_nothing);
    tcase_add_test(tests, all_that_is_known_of_an_epoch_is_told);
    tcase_add_test(tests, the_oldest_make_room);
    tcase_add_test(tests, a_vm_that_was_taken_over_begins_in_the_middle);
    tcase_add_test(tests, an_epoch_that_is_taken_again_counts_once);
    tcase_add_test(tests, an_acknowledgement_counts_once);
    tcase_add_test(tests, sums_are_those_of_the_window);
    tcase_add_test(tests, who_looks_does_not_disturb_who_writes);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
