/* SPDX-License-Identifier: MIT */
#include "ft/epoch_pace.h"
#include "tests/unit/unit.h"

#define MS 1000000ull

static const struct epoch_pace_config config = {
    .min_ns = MS, .max_ns = 50 * MS, .pause_percent = 20};

static struct epoch_pace begin(void)
{
    struct epoch_pace pace;
    epoch_pace_init(&pace, &config);
    return pace;
}

START_TEST(output_brings_the_next_epoch_and_idleness_does_not)
{
    struct epoch_pace pace = begin();
    enum pace_reason reason;
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, MS / 10, true, &reason), 1001 * MS);
    ck_assert_int_eq(reason, PACE_FREE);
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, MS / 10, false, &reason), 1050 * MS);
    ck_assert_int_eq(reason, PACE_FREE);
}
END_TEST

START_TEST(the_most_is_no_less_than_the_least)
{
    const struct epoch_pace_config narrow = {
        .min_ns = 100 * MS, .max_ns = 50 * MS, .pause_percent = 20};
    struct epoch_pace pace;
    enum pace_reason reason;
    epoch_pace_init(&pace, &narrow);
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, MS / 10, true, &reason), 1100 * MS);
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, MS / 10, false, &reason), 1100 * MS);
}
END_TEST

START_TEST(pauses_take_no_more_than_their_share)
{
    struct epoch_pace pace = begin();
    enum pace_reason reason;
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, 2 * MS, true, &reason), 1010 * MS);
    ck_assert_int_eq(reason, PACE_PAUSE);
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, 20 * MS, false, &reason), 1100 * MS);
    ck_assert_int_eq(reason, PACE_PAUSE);
}
END_TEST

static uint64_t number;

/* Epochs as they were, where a page costs so much by each effort: how many were of each. */
static void judge(struct epoch_pace *pace, uint64_t pages, const uint64_t cost_ns[PAGE_EFFORTS],
                  unsigned counts[PAGE_EFFORTS])
{
    memset(counts, 0, PAGE_EFFORTS * sizeof(*counts));
    for (unsigned i = 0; i < 2000; i++) {
        const struct epoch_record record = {
            .epoch = ++number,
            .cause = EPOCH_OUTPUT,
            .pages = pages,
            .pause_ns = MS,
            .commit_ns = pages * cost_ns[pace->effort],
            .effort = pace->effort,
        };
        counts[pace->effort]++;
        epoch_pace_judge(pace, &record);
    }
}

static const struct {
    uint64_t cost_ns[PAGE_EFFORTS];
    enum page_effort best;
} lines[] = {
    {{500, 700, 4000}, EFFORT_NONE},
    {{1500, 700, 4000}, EFFORT_DELTAS},
    {{30000, 20000, 9000}, EFFORT_LZ4},
};

START_TEST(as_much_is_done_as_makes_commits_shortest)
{
    unsigned counts[PAGE_EFFORTS];
    struct epoch_pace pace = begin();
    judge(&pace, 1000, lines[_i].cost_ns, counts);
    ck_assert_uint_gt(counts[lines[_i].best], 1900);
    for (unsigned i = 0; i < array_size(lines); i++) { /* another line, and that is noticed */
        judge(&pace, 1000, lines[i].cost_ns, counts);
        judge(&pace, 1000, lines[i].cost_ns, counts);
        ck_assert_uint_gt(counts[lines[i].best], 1900);
    }
}
END_TEST

/* The one before it is in the pages that are not sent by their changes. */
START_TEST(the_first_epoch_after_a_change_says_nothing)
{
    struct epoch_pace pace = begin();
    unsigned counts[PAGE_EFFORTS];
    judge(&pace, 1000, lines[0].cost_ns, counts);
    for (unsigned last = EFFORT_NONE, i = 0; i < 2000; i++) {
        bool changed = pace.effort != last;
        last = pace.effort;
        const struct epoch_record record = {
            .epoch = ++number,
            .cause = EPOCH_OUTPUT,
            .pages = 1000,
            .commit_ns = 1000 * (changed || last == EFFORT_NONE ? 1000 : 100),
            .effort = last,
        };
        epoch_pace_judge(&pace, &record);
    }
    ck_assert_int_ne(pace.effort, EFFORT_NONE);
}
END_TEST

/* All ways were tried once, what a page costs by each, and epochs of the best one followed. */
static unsigned tries_in(uint64_t none_ns, unsigned epochs)
{
    const uint64_t costs[PAGE_EFFORTS] = {none_ns, 700, 900};
    unsigned counts[PAGE_EFFORTS], before[PAGE_EFFORTS];
    struct epoch_pace pace = begin();
    judge(&pace, 1000, costs, before);
    for (unsigned tries = 0, i = 0;; i += 2000) {
        if (i == epochs)
            return tries;
        judge(&pace, 1000, costs, counts);
        tries += counts[EFFORT_NONE];
    }
}

START_TEST(what_was_much_worse_is_tried_rarely)
{
    ck_assert_uint_ge(tries_in(800, 20000), 90);
    unsigned tries = tries_in(800000, 20000); /* it would bring a second each time */
    ck_assert(tries > 1 && tries < 5);
}
END_TEST

START_TEST(while_it_is_tried_the_guest_writes_as_much_as_in_an_epoch)
{
    const struct epoch_record record = {
        .epoch = ++number, .cause = EPOCH_TIME, .pages = 1000, .commit_ns = MS};
    struct epoch_pace pace = begin();
    for (unsigned i = 0; i < 50 && !pace.tries; i++) {
        struct epoch_record one = record;
        one.effort = pace.effort;
        epoch_pace_judge(&pace, &one);
    }
    ck_assert(pace.tries);
    ck_assert_uint_eq(epoch_pace_leave_ns(&pace, 300 << 10), 62500000);
    ck_assert_uint_eq(epoch_pace_leave_ns(&pace, 200 << 10), 0); /* so little is hardly a risk */
    for (unsigned i = 0; i < 50 && (pace.tries || pace.since == 0); i++) {
        struct epoch_record one = record;
        one.effort = pace.effort;
        one.commit_ns = pace.effort == EFFORT_DELTAS ? MS : 2 * MS;
        ck_assert_uint_eq(epoch_pace_leave_ns(&pace, 300 << 10), 62500000);
        epoch_pace_judge(&pace, &one);
    }
    ck_assert_uint_eq(epoch_pace_leave_ns(&pace, 1 << 30), 0);
}
END_TEST

START_TEST(small_epochs_say_nothing_of_what_a_page_costs)
{
    unsigned counts[PAGE_EFFORTS];
    struct epoch_pace pace = begin();
    judge(&pace, 10, lines[2].cost_ns, counts);
    ck_assert_uint_eq(counts[EFFORT_DELTAS], 2000);
}
END_TEST

/* Nearly all of it for what the guest has written. */
static void pause(struct epoch_pace *pace, enum epoch_cause cause, uint64_t pause_ns)
{
    const struct epoch_record record = {.epoch = ++number,
                                        .cause = cause,
                                        .pages = 5000,
                                        .pause_ns = pause_ns + MS,
                                        .pages_ns = pause_ns,
                                        .commit_ns = MS};
    epoch_pace_judge(pace, &record);
}

START_TEST(a_guest_whose_pauses_get_long_is_slowed_down_step_by_step)
{
    struct epoch_pace pace = begin();
    enum pace_reason reason;
    unsigned before = 0;
    for (unsigned i = 0; i < 120; i++) {
        pause(&pace, EPOCH_TIME, 21 * MS);
        ck_assert_uint_le(pace.throttle, before + 10);
        ck_assert_uint_ge(pace.throttle, before);
        before = pace.throttle;
    }
    ck_assert_uint_eq(pace.throttle, 98);
    (void)epoch_pace_due(&pace, 0, MS, true, &reason);
    ck_assert_int_eq(reason, PACE_MEMORY);
    pause(&pace, EPOCH_TIME, 15 * MS); /* neither long nor short: it stays as it is */
    ck_assert_uint_eq(pace.throttle, 98);
    for (unsigned i = 0; i < 40; i++)
        pause(&pace, EPOCH_TIME, MS);
    ck_assert_uint_eq(pace.throttle, 0);
}
END_TEST

START_TEST(a_guest_whose_pauses_are_very_long_is_slowed_down_by_as_much)
{
    struct epoch_pace pace = begin();
    pause(&pace, EPOCH_TIME, 40 * MS);
    ck_assert_uint_eq(pace.throttle, 50);
    pause(&pace, EPOCH_TIME, 40 * MS); /* this one, and the next, were under way */
    pause(&pace, EPOCH_TIME, 40 * MS);
    ck_assert_uint_eq(pace.throttle, 50);
    pause(&pace, EPOCH_TIME, 2000 * MS);
    ck_assert_uint_eq(pace.throttle, 95);
}
END_TEST

static const struct epoch_record not_the_guests[] = {
    {.pages = 10,
     .pause_ns = 90 * MS,
     .pages_ns = 80 * MS,
     .commit_ns = 800 * MS}, /* it wrote little */
    {.pages = 5000, .pause_ns = 90 * MS, .stop_ns = 80 * MS, .commit_ns = 100 * MS}, /* busy host */
    {.pages = 5000,
     .pause_ns = MS,
     .pages_ns = MS,
     .send_ns = MS,
     .commit_ns = 240 * MS}, /* slow disks */
};

START_TEST(what_is_not_of_its_pages_slows_no_guest_down)
{
    struct epoch_pace pace = begin();
    struct epoch_record record = not_the_guests[_i];
    record.cause = EPOCH_OUTPUT;
    for (unsigned i = 0; i < 100; i++) {
        record.epoch = ++number;
        epoch_pace_judge(&pace, &record);
        ck_assert_uint_eq(pace.throttle, 0);
    }
    pause(&pace, EPOCH_TIME, 400 * MS);
    ck_assert_uint_eq(pace.throttle, 90);
    for (unsigned i = 0; i < 40; i++) { /* nor does that keep it slow */
        record.epoch = ++number;
        epoch_pace_judge(&pace, &record);
    }
    ck_assert_uint_eq(pace.throttle, 0);
}
END_TEST

/* No output waits for a guest whose pauses are so long that their share is seconds. */
START_TEST(the_share_of_a_very_long_pause_is_not_waited_for)
{
    struct epoch_pace pace = begin();
    enum pace_reason reason;
    ck_assert_uint_eq(epoch_pace_due(&pace, 1000 * MS, 1500 * MS, true, &reason), 1250 * MS);
}
END_TEST

static struct epoch_record long_one(uint64_t commit_ns)
{
    return (struct epoch_record){.epoch = ++number,
                                 .cause = EPOCH_TIME,
                                 .pages = 5000,
                                 .pause_ns = MS,
                                 .send_ns = commit_ns - MS,
                                 .line_ns = commit_ns - MS,
                                 .wire_bytes = 5000ull * 4096,
                                 .commit_ns = commit_ns};
}

static void judge_some(struct epoch_pace *pace, unsigned count, uint64_t commit_ns)
{
    for (unsigned i = 0; i < count; i++) {
        const struct epoch_record record = long_one(commit_ns);
        epoch_pace_judge(pace, &record);
    }
}

START_TEST(a_guest_that_writes_more_than_the_line_takes_is_slowed_down)
{
    struct epoch_pace pace = begin();
    judge_some(&pace, 1, 500 * MS);
    ck_assert_uint_eq(pace.throttle, 75); /* a quarter of it would have been in time */
    judge_some(&pace, 2, 500 * MS);       /* were under way */
    ck_assert_uint_eq(pace.throttle, 75);
    judge_some(&pace, 20, 500 * MS);
    ck_assert_uint_eq(pace.throttle, 98);
    judge_some(&pace, 1, 200 * MS); /* as long as it may be: it stays so */
    ck_assert_uint_eq(pace.throttle, 98);
    judge_some(&pace, 40, 20 * MS);
    ck_assert_uint_eq(pace.throttle, 0);
    struct epoch_record record = long_one(800 * MS);
    record.pages = 10; /* what else takes so long is not the guest's */
    epoch_pace_judge(&pace, &record);
    ck_assert_uint_eq(pace.throttle, 0);
}
END_TEST

START_TEST(little_is_late_because_of_a_line_only)
{
    struct epoch_pace pace = begin();
    struct epoch_record record = long_one(500 * MS);
    record.wire_bytes = 200000;
    record.line_ns = 100 * MS; /* the rest of it a host had */
    for (unsigned i = 0; i < 10; i++) {
        record.epoch = ++number;
        epoch_pace_judge(&pace, &record);
        ck_assert_uint_eq(pace.throttle, 0);
    }
    record.line_ns = 400 * MS;
    record.epoch = ++number;
    epoch_pace_judge(&pace, &record);
    ck_assert_uint_eq(pace.throttle, 75);
}
END_TEST

START_TEST(a_host_that_hardly_gets_to_send_is_no_slow_line)
{
    struct epoch_pace pace = begin();
    for (unsigned i = 0; i < 10; i++) {
        struct epoch_record record = long_one(200 * MS);
        record.wire_bytes = 2 << 20;
        record.line_ns = 10 * MS;
        epoch_pace_judge(&pace, &record);
    }
    ck_assert(epoch_pace_sends_early(&pace));
    ck_assert_uint_eq(pace.throttle, 0);
}
END_TEST

/* --- a slow line ------------------------------------------------------------------------------ */

/* So many bytes took so long; the effort is what it wanted. */
static void over_the_line(struct epoch_pace *pace, unsigned count, uint64_t bytes, uint64_t ns)
{
    for (unsigned i = 0; i < count; i++) {
        struct epoch_record record = long_one(ns + MS);
        record.wire_bytes = bytes;
        record.send_ns = record.line_ns = ns;
        record.effort = pace->effort;
        epoch_pace_judge(pace, &record);
    }
}

START_TEST(on_a_slow_line_pages_are_made_as_short_as_they_get_and_nothing_is_tried)
{
    struct epoch_pace pace = begin();
    over_the_line(&pace, 2, 1 << 20, 60 * MS); /* 16 MiB a second */
    ck_assert(epoch_pace_sends_early(&pace));
    over_the_line(&pace, 1, 1 << 20, 60 * MS);
    ck_assert(!epoch_pace_sends_early(&pace));
    ck_assert_uint_eq(epoch_pace_leave_ns(&pace, 1 << 20), 62500000);
    ck_assert_uint_eq(epoch_pace_leave_ns(&pace, 850 << 10), 0); /* which is over in 50 ms */
    ck_assert_uint_eq(epoch_pace_slowed(&pace, 0, 60 * MS), 0);
    ck_assert_uint_eq(epoch_pace_slowed(&pace, 150 * MS, 200 * MS), 75);
    ck_assert_uint_eq(epoch_pace_slowed(&pace, 200 * MS, 200 * MS), 100);
    pace.throttle = 50;
    ck_assert_uint_eq(epoch_pace_slowed(&pace, 0, 60 * MS), 50);
    ck_assert_uint_eq(epoch_pace_slowed(&pace, 150 * MS, 200 * MS), 88);
    pace.throttle = 0;
    for (unsigned i = 0; i < 900; i++) { /* they are short, which says nothing of the line */
        ck_assert_int_eq(pace.effort, EFFORT_LZ4);
        over_the_line(&pace, 1, 10000, 2 * MS);
    }
    ck_assert_int_eq(pace.effort, EFFORT_LZ4);
    over_the_line(&pace, 101, 10000, 2 * MS); /* that was long ago */
    ck_assert(epoch_pace_sends_early(&pace));
    ck_assert_int_ne(pace.effort, EFFORT_LZ4);
}
END_TEST

START_TEST(a_line_that_is_fast_again_is_found_out)
{
    struct epoch_pace pace = begin();
    over_the_line(&pace, 3, 1 << 20, 60 * MS);
    ck_assert(!epoch_pace_sends_early(&pace));
    over_the_line(&pace, 1, 1 << 20, 2 * MS);
    ck_assert(epoch_pace_sends_early(&pace));
}
END_TEST

START_TEST(a_twin_whose_disks_are_slow_is_no_slow_line)
{
    struct epoch_pace pace = begin();
    for (unsigned i = 0; i < 20; i++) {
        struct epoch_record record = long_one(100 * MS);
        record.wire_bytes = 1 << 20;
        record.send_ns = MS;
        epoch_pace_judge(&pace, &record);
    }
    ck_assert(epoch_pace_sends_early(&pace));
}
END_TEST

START_TEST(two_slow_epochs_or_small_ones_are_no_slow_line)
{
    struct epoch_pace pace = begin();
    for (unsigned i = 0; i < 20; i++) {
        over_the_line(&pace, 2, 1 << 20, 60 * MS);
        over_the_line(&pace, 1, 1 << 20, 2 * MS);
    }
    over_the_line(&pace, 20, 100000, 60 * MS);
    ck_assert(epoch_pace_sends_early(&pace));
}
END_TEST

START_TEST(the_first_epoch_and_the_last_one_do_not_count)
{
    struct epoch_pace pace = begin();
    pause(&pace, EPOCH_FIRST, 1000 * MS);
    pause(&pace, EPOCH_LAST, 1000 * MS);
    ck_assert_uint_eq(pace.throttle, 0);
    ck_assert_uint_eq(pace.judged, number);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("epoch_pace");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, output_brings_the_next_epoch_and_idleness_does_not);
    tcase_add_test(tcase, the_most_is_no_less_than_the_least);
    tcase_add_test(tcase, pauses_take_no_more_than_their_share);
    tcase_add_loop_test(tcase, as_much_is_done_as_makes_commits_shortest, 0, array_size(lines));
    tcase_add_test(tcase, the_first_epoch_after_a_change_says_nothing);
    tcase_add_test(tcase, what_was_much_worse_is_tried_rarely);
    tcase_add_test(tcase, while_it_is_tried_the_guest_writes_as_much_as_in_an_epoch);
    tcase_add_test(tcase, small_epochs_say_nothing_of_what_a_page_costs);
    tcase_add_test(tcase, a_guest_whose_pauses_get_long_is_slowed_down_step_by_step);
    tcase_add_test(tcase, a_guest_whose_pauses_are_very_long_is_slowed_down_by_as_much);
    tcase_add_loop_test(tcase, what_is_not_of_its_pages_slows_no_guest_down, 0,
                        array_size(not_the_guests));
    tcase_add_test(tcase, the_share_of_a_very_long_pause_is_not_waited_for);
    tcase_add_test(tcase, a_guest_that_writes_more_than_the_line_takes_is_slowed_down);
    tcase_add_test(tcase, little_is_late_because_of_a_line_only);
    tcase_add_test(tcase, a_host_that_hardly_gets_to_send_is_no_slow_line);
    tcase_add_test(tcase, on_a_slow_line_pages_are_made_as_short_as_they_get_and_nothing_is_tried);
    tcase_add_test(tcase, a_line_that_is_fast_again_is_found_out);
    tcase_add_test(tcase, a_twin_whose_disks_are_slow_is_no_slow_line);
    tcase_add_test(tcase, two_slow_epochs_or_small_ones_are_no_slow_line);
    tcase_add_test(tcase, the_first_epoch_and_the_last_one_do_not_count);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
