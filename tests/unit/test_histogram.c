/* SPDX-License-Identifier: MIT */
#include "core/histogram.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <stdlib.h>

START_TEST(a_duration_is_in_the_first_bucket_that_it_does_not_exceed)
{
    ck_assert_uint_eq(histogram_bucket(0), 0);
    for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++) {
        ck_assert_uint_eq(histogram_bucket(histogram_bound(i)), i);
        ck_assert_uint_eq(histogram_bucket(histogram_bound(i) + 1), i + 1);
    }
    ck_assert_uint_eq(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(bounds_double_from_a_microsecond_to_nine_seconds)
{
    ck_assert_uint_eq(histogram_bound(0), 1024);
    ck_assert_uint_eq(histogram_bound(HISTOGRAM_BOUNDS - 1), 1ull << 33);
    for (unsigned i = 1; i < HISTOGRAM_BOUNDS; i++)
        ck_assert_uint_eq(histogram_bound(i), 2 * histogram_bound(i - 1));
}
END_TEST

START_TEST(nothing_that_was_added_is_lost)
{
    struct histogram histogram = {0};
    struct histogram_reading reading;
    uint64_t sum = 0, added = 0;
    for (uint64_t ns = 1; ns < 1ull << 40; ns = ns * 3 + 1) {
        histogram_add(&histogram, ns);
        sum += ns;
        added++;
        histogram_read(&histogram, &reading);
        ck_assert_uint_eq(reading.sum, sum);
    }
    ck_assert_uint_eq(reading.count, added);
    ck_assert_uint_gt(reading.buckets[0], 0);
    ck_assert_uint_gt(reading.buckets[HISTOGRAM_BUCKETS - 1], 0);
    uint64_t count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += reading.buckets[i];
    ck_assert_uint_eq(count, reading.count);
}
END_TEST

enum { TIMES = 2000000 };

static void write_many(void *arg)
{
    for (uint64_t i = 0; i < TIMES; i++)
        histogram_add(arg, i % 4096);
}

/* With tsan, or the compiler's eyes, a plain number here would be a race. */
START_TEST(readers_see_numbers_that_only_grow)
{
    static struct histogram histogram;
    struct histogram_reading before = {0}, now;
    struct thread writer = {0};
    ck_assert_int_eq(thread_start(&writer, "writer", write_many, &histogram, NULL), 0);
    do {
        histogram_read(&histogram, &now);
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
            ck_assert_uint_ge(now.buckets[i], before.buckets[i]);
        ck_assert_uint_ge(now.count, before.count);
        ck_assert_uint_ge(now.sum, before.sum);
        before = now;
    } while (now.count < TIMES);
    thread_join(&writer);
    histogram_read(&histogram, &now);
    ck_assert_uint_eq(now.count, TIMES);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("histogram");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, a_duration_is_in_the_first_bucket_that_it_does_not_exceed);
    tcase_add_test(all, bounds_double_from_a_microsecond_to_nine_seconds);
    tcase_add_test(all, nothing_that_was_added_is_lost);
    tcase_add_test(all, readers_see_numbers_that_only_grow);
    suite_add_tcase(suite, all);
    return unit_main(suite);
}
