/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "tests/unit/device_rig.h"
#include "tests/unit/unit.h"
#include "virtio/balloon.h"

enum { INFLATE, DEFLATE, STATISTICS, THIRD, FOURTH, ALL = 31 };

#define STATS     (1ull << 1)
#define OOM       (1ull << 2)
#define REPORTING (1ull << 5)
#define FEATURES  (STATS | OOM | REPORTING)

static struct rig *rig;
static struct balloon *balloon;

static struct balloon *plug(struct rig *into)
{
    struct balloon *made;
    rig_init(into);
    ck_assert_int_eq(balloon_create(&made, &into->world, NULL), 0);
    rig_plug(into, balloon_virtio(made));
    return made;
}

static void set_up(void)
{
    rig = calloc(1, sizeof(*rig));
    balloon = plug(rig);
}

static void tear_down(void)
{
    rig_finish(rig);
    free(rig);
}

static uint8_t *page(uint32_t number)
{
    void *pointer;
    ck_assert_int_eq(memory_borrow(rig->memory, number * PAGE_SIZE, PAGE_SIZE, &pointer), 0);
    return pointer;
}

static void fill_pages(uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        memset(page(first + i), 0x5a, PAGE_SIZE);
}

/* How many of them are the host's again. */
static unsigned given(uint32_t first, uint32_t count)
{
    unsigned pages = 0;
    for (uint32_t i = 0; i < count; i++)
        pages += page(first + i)[0] == 0 && page(first + i)[4095] == 0;
    return pages;
}

static void report(unsigned queue, gpa_t gpa, uint32_t length)
{
    struct model_part part = {.gpa = gpa, .length = length, .writable = true};
    ck_assert_int_ge(model_add(&rig->queues[queue], &part, 1, gpa), 0);
    rig_show(rig, queue);
    rig_settle(rig);
    struct model_done done;
    ck_assert(model_reap(&rig->queues[queue], &done));
    ck_assert_uint_eq(done.written, 0);
}

START_TEST(inflated_pages_are_the_hosts_again)
{
    static const uint32_t numbers[] = {100, 101, 102, 110, 109, 108, 200, 202, 198, 100};
    struct model_done done;

    fill_pages(99, 110);
    rig_start(rig, FEATURES, ALL);
    rig_send(rig, INFLATE, numbers, sizeof(numbers));
    ck_assert(model_reap(&rig->queues[INFLATE], &done));
    ck_assert_uint_eq(given(99, 110), 9);
    ck_assert_uint_eq(given(100, 3), 3);
    ck_assert_uint_eq(given(108, 3), 3);
    ck_assert_uint_eq(given(198, 1) + given(200, 1) + given(202, 1), 3);
    ck_assert_uint_gt(rig->interrupts[INFLATE], 0);

    rig_send(rig, DEFLATE, numbers, sizeof(numbers));
    ck_assert(model_reap(&rig->queues[DEFLATE], &done));
    fill_pages(100, 3);
    ck_assert_uint_eq(given(100, 3), 0);
}
END_TEST

/* The others in the same request, and in the same run, are taken all the same. */
START_TEST(pages_out_of_ram_are_ignored)
{
    enum { END = RIG_MEMORY / 4096 };
    static const uint32_t numbers[] = {UINT32_MAX, END - 1, END, END + 1, 0x100000, 0xfffff, 100};
    struct model_done done;

    fill_pages(END - 1, 1);
    fill_pages(100, 1);
    rig_start(rig, FEATURES, ALL);
    rig_send(rig, INFLATE, numbers, sizeof(numbers));
    ck_assert(model_reap(&rig->queues[INFLATE], &done));
    ck_assert_uint_eq(given(END - 1, 1), 1);
    ck_assert_uint_eq(given(100, 1), 1);
    ck_assert(!rig_is_broken(rig));
}
END_TEST

START_TEST(a_request_without_a_whole_page_number_is_harmless)
{
    struct model_done done;
    fill_pages(0x64, 1);
    rig_start(rig, FEATURES, ALL);
    rig_send(rig, INFLATE, "\x64\0\0", 3);
    ck_assert(model_reap(&rig->queues[INFLATE], &done));
    ck_assert_uint_eq(given(0x64, 1), 0);
}
END_TEST

/* All of RAM, read as page numbers, again and again: every turn ends. */
START_TEST(a_huge_inflate_request_ends)
{
    struct model_done done;
    rig_start(rig, FEATURES | VIRTIO_F_INDIRECT, ALL);
    struct model_part parts[32];
    for (unsigned i = 0; i < array_size(parts); i++)
        parts[i] = (struct model_part){.gpa = 0, .length = RIG_PLACES};
    fill_pages(0, 1);
    ck_assert_int_ge(model_add_indirect(&rig->queues[INFLATE], parts, array_size(parts), 1), 0);
    rig_show(rig, INFLATE);
    rig_settle(rig);
    ck_assert(model_reap(&rig->queues[INFLATE], &done));
    ck_assert(!rig_is_broken(rig));
}
END_TEST

/* What discarding changes must travel with a migration. */
START_TEST(given_pages_count_as_written)
{
    uint64_t log[RIG_MEMORY / 4096 / 64] = {0};
    uint32_t number = 128;

    rig_start(rig, FEATURES, ALL);
    ck_assert_int_eq(memory_log_start(rig->memory), 0);
    rig_send(rig, INFLATE, &number, sizeof(number));
    report(FOURTH, 192 * PAGE_SIZE, PAGE_SIZE);
    memory_log_harvest(rig->memory, 0, array_size(log), log);
    memory_log_stop(rig->memory);
    ck_assert_uint_eq(log[128 / 64], 1);
    ck_assert_uint_eq(log[192 / 64], 1);
}
END_TEST

/* The spec's number, Linux's with statistics, and Linux's without. */
START_TEST(reported_pages_are_the_hosts_again)
{
    static const struct {
        uint64_t features;
        unsigned queue;
    } cases[] = {
        {FEATURES, FOURTH}, {FEATURES, THIRD}, {REPORTING, STATISTICS}, {REPORTING, FOURTH}};

    fill_pages(50, 70);
    rig_start(rig, cases[_i].features, ALL);
    report(cases[_i].queue, 64 * PAGE_SIZE, 32 * PAGE_SIZE);
    ck_assert_uint_eq(given(50, 70), 32);
    ck_assert_uint_eq(given(64, 32), 32);
    ck_assert_uint_eq(balloon_reported(balloon), 32 * PAGE_SIZE);
}
END_TEST

START_TEST(what_is_not_whole_pages_is_not_given_back)
{
    fill_pages(50, 20);
    rig_start(rig, FEATURES, ALL);
    report(THIRD, 64 * PAGE_SIZE + 16, PAGE_SIZE);
    report(THIRD, 64 * PAGE_SIZE, PAGE_SIZE - 16);
    report(THIRD, 64 * PAGE_SIZE, 2 * PAGE_SIZE + 8);
    ck_assert_uint_eq(given(50, 20), 0);
    ck_assert_uint_eq(balloon_reported(balloon), 0);
}
END_TEST

START_TEST(nothing_is_discarded_that_was_not_negotiated)
{
    uint32_t number = 100;
    fill_pages(64, 1);
    rig_start(rig, STATS, ALL);
    report(THIRD, 64 * PAGE_SIZE, PAGE_SIZE);
    report(FOURTH, 64 * PAGE_SIZE, PAGE_SIZE);
    ck_assert_uint_eq(given(64, 1), 0);
    ck_assert_uint_eq(balloon_reported(balloon), 0);
    fill_pages(100, 1);
    rig_send(rig, DEFLATE, &number, sizeof(number));
    ck_assert_uint_eq(given(100, 1), 0);
}
END_TEST

/* What is discarded may hold the rings themselves. */
START_TEST(a_guest_that_gives_its_rings_away_hurts_nobody_else)
{
    rig_start(rig, FEATURES, ALL);
    struct model_part part = {.gpa = 0, .length = RIG_MEMORY, .writable = true};
    ck_assert_int_ge(model_add(&rig->queues[THIRD], &part, 1, 0), 0);
    rig_show(rig, THIRD);
    rig_settle(rig);
    ck_assert_uint_eq(balloon_reported(balloon), RIG_MEMORY);
    rig_start(rig, FEATURES, ALL);
    fill_pages(64, 1);
    report(THIRD, 64 * PAGE_SIZE, PAGE_SIZE);
    ck_assert_uint_eq(given(64, 1), 1);
}
END_TEST

START_TEST(the_target_is_told_in_whole_pages_up_to_all_of_ram)
{
    rig_start(rig, FEATURES, ALL);
    balloon_set_target(balloon, 5 * PAGE_SIZE + 100);
    ck_assert_uint_eq(rig_config_read(rig, 0, 4), 5);
    ck_assert_uint_eq(balloon_target(balloon), 5 * PAGE_SIZE);
    ck_assert_uint_eq(rig->config_interrupts, 1);
    balloon_set_target(balloon, 5 * PAGE_SIZE);
    ck_assert_uint_eq(rig->config_interrupts, 1);
    balloon_set_target(balloon, UINT64_MAX);
    ck_assert_uint_eq(balloon_target(balloon), RIG_MEMORY);
    ck_assert_uint_eq(rig_config_read(rig, 0, 4), RIG_MEMORY / PAGE_SIZE);
}
END_TEST

START_TEST(a_paused_balloon_tells_its_target_when_it_resumes)
{
    rig_start(rig, FEATURES, ALL);
    rig_pause(rig);
    balloon_set_target(balloon, 9 * PAGE_SIZE);
    ck_assert_uint_eq(balloon_target(balloon), 9 * PAGE_SIZE);
    ck_assert_uint_eq(rig->config_interrupts, 0);
    rig_resume(rig);
    ck_assert_uint_eq(rig_config_read(rig, 0, 4), 9);
    ck_assert_uint_eq(rig->config_interrupts, 1);
    rig_pause(rig);
    rig_resume(rig);
    ck_assert_uint_eq(rig->config_interrupts, 1);
}
END_TEST

/* What the other one was set to when it was made is not what the host wants of this guest; and a
 * wish that the guest has not heard of yet goes along. */
START_TEST(the_target_travels)
{
    struct rig *second = calloc(1, sizeof(*second));

    rig_start(rig, FEATURES, ALL);
    balloon_set_target(balloon, PAGE_SIZE * 3);
    rig_pause(rig);
    if (_i)
        balloon_set_target(balloon, PAGE_SIZE * 4);
    struct balloon *other = plug(second);
    rig_pause(second);
    balloon_set_target(other, PAGE_SIZE * 8);
    second->virtio->device.ops->reset(&second->virtio->device);
    rig_travel(second, rig);
    rig_resume(second);
    ck_assert_uint_eq(balloon_target(other), PAGE_SIZE * (3 + (unsigned)_i));
    ck_assert_uint_eq(rig_config_read(second, 0, 4), 3 + (unsigned)_i);
    ck_assert_uint_eq(second->config_interrupts, 1);
    rig_finish(second);
    free(second);
}
END_TEST

START_TEST(the_driver_tells_what_it_has_given)
{
    rig_start(rig, FEATURES, ALL);
    rig_config_write(rig, 4, 4, 77);
    ck_assert_uint_eq(balloon_actual(balloon), 77 * PAGE_SIZE);
    rig_config_write(rig, 4, 2, 1); /* not a whole field */
    rig_config_write(rig, 0, 4, 1); /* not its field */
    rig_config_write(rig, 0, 8, 1);
    ck_assert_uint_eq(balloon_actual(balloon), 77 * PAGE_SIZE);
    ck_assert_uint_eq(balloon_target(balloon), 0);
    rig_config_write(rig, 4, 4, UINT32_MAX); /* more than there is */
    ck_assert_uint_eq(balloon_actual(balloon), RIG_MEMORY);
    balloon_set_target(balloon, PAGE_SIZE);
    rig_start(rig, FEATURES, ALL); /* a new driver has everything; the host's wish stands */
    ck_assert_uint_eq(balloon_actual(balloon), 0);
    ck_assert_uint_eq(balloon_target(balloon), PAGE_SIZE);
}
END_TEST

static uint8_t *put_stat(uint8_t *to, uint16_t tag, uint64_t value)
{
    memcpy(to, &tag, 2);
    memcpy(to + 2, &value, 8);
    return to + 10;
}

static void send_stats(uint64_t free_bytes)
{
    uint8_t wire[40];
    uint8_t *end = put_stat(wire, 4, free_bytes);
    end = put_stat(end, 5, 1 << 24);
    end = put_stat(end, 999, 1);
    rig_send(rig, STATISTICS, wire, (uint32_t)(end - wire) + 3); /* and a piece of one */
}

START_TEST(statistics_come_when_they_are_asked_for)
{
    struct balloon_stats stats;
    struct model_done done;

    balloon_stats(balloon, &stats);
    ck_assert_uint_eq(stats.at_ns, 0);
    rig_start(rig, FEATURES | (_i ? VIRTIO_F_EVENT_INDEX : 0), ALL);
    send_stats(1000); /* Linux does so at once */
    ck_assert(!model_reap(&rig->queues[STATISTICS], &done));

    for (unsigned i = 0; i < 5; i++) {
        balloon_stats(balloon, &stats);
        ck_assert_uint_gt(stats.at_ns, 0);
        ck_assert_uint_eq(stats.free, 1000 + i);
        ck_assert_uint_eq(stats.total, 1 << 24);
        ck_assert_uint_eq(stats.swap_in, UINT64_MAX);
        rig_settle(rig);
        ck_assert(model_reap(&rig->queues[STATISTICS], &done));
        balloon_stats(balloon, &stats); /* asked again before it has answered: one answer */
        rig_settle(rig);
        send_stats(1001 + i);
        ck_assert(!model_reap(&rig->queues[STATISTICS], &done));
    }
}
END_TEST

START_TEST(the_waiting_request_survives_a_save)
{
    struct rig *first = rig;
    struct rig *second = calloc(1, sizeof(*second));
    struct balloon_stats stats;
    struct model_done done;

    rig_start(first, FEATURES, ALL);
    balloon_set_target(balloon, PAGE_SIZE * 3);
    send_stats(1);
    rig_pause(first);
    struct balloon *other = plug(second);
    rig_travel(second, first);
    rig_resume(second);
    ck_assert_uint_eq(balloon_target(other), PAGE_SIZE * 3);
    balloon_stats(other, &stats);
    rig_settle(second);
    ck_assert(model_reap(&second->queues[STATISTICS], &done));
    rig = second;
    send_stats(2);
    rig = first;
    balloon_stats(other, &stats);
    ck_assert_uint_eq(stats.free, 2);
    rig_finish(second);
    free(second);
}
END_TEST

START_TEST(a_second_waiting_request_takes_the_place_of_the_first)
{
    struct balloon_stats stats;
    struct model_done done;

    rig_start(rig, FEATURES, ALL);
    for (unsigned i = 0; i < 100; i++) {
        send_stats(i);
        ck_assert_int_eq(model_reap(&rig->queues[STATISTICS], &done), i > 0);
    }
    balloon_stats(balloon, &stats);
    ck_assert_uint_eq(stats.free, 99);
}
END_TEST

/* States that no run of ours leaves behind: a request is held, but the ring knows of none. */
START_TEST(a_loaded_lie_breaks_the_device_only)
{
    struct balloon_stats stats;
    struct rig *second = calloc(1, sizeof(*second));
    struct balloon *other = plug(second);

    rig_start(rig, FEATURES, ALL);
    send_stats(1);
    rig_pause(rig);
    rig_travel(second, rig);
    struct vring_state *ring = virtio_queue_state(second->virtio, STATISTICS);
    ring->next_available = ring->next_used;
    model_poke_index(&second->queues[STATISTICS], ring->next_used);
    rig_resume(second);
    balloon_stats(other, &stats);
    rig_settle(second);
    ck_assert(rig_is_broken(second));
    rig_start(second, FEATURES, ALL);
    ck_assert(!rig_is_broken(second));
    rig_finish(second);
    free(second);
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    rig_start(rig, FEATURES, ALL);
    balloon_set_target(balloon, 8 << 20);
    rig_config_write(rig, 4, 4, 1234);
    for (unsigned i = 0; i < 3; i++) /* so that the last head is not 0 */
        ck_assert_int_ge(model_add(&rig->queues[STATISTICS],
                                   &(struct model_part){.gpa = 0x1000, .length = 10}, 1, 0),
                         0);
    rig_show(rig, STATISTICS);
    rig_settle(rig);
    rig_pause(rig);
    unit_check_table(rig->virtio->device.table, rig->virtio->device.state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("balloon");
    TCase *tcase = tcase_create("balloon");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, inflated_pages_are_the_hosts_again);
    tcase_add_test(tcase, pages_out_of_ram_are_ignored);
    tcase_add_test(tcase, a_request_without_a_whole_page_number_is_harmless);
    tcase_add_test(tcase, a_huge_inflate_request_ends);
    tcase_add_test(tcase, given_pages_count_as_written);
    tcase_add_loop_test(tcase, reported_pages_are_the_hosts_again, 0, 4);
    tcase_add_test(tcase, what_is_not_whole_pages_is_not_given_back);
    tcase_add_test(tcase, nothing_is_discarded_that_was_not_negotiated);
    tcase_add_test(tcase, a_guest_that_gives_its_rings_away_hurts_nobody_else);
    tcase_add_test(tcase, the_target_is_told_in_whole_pages_up_to_all_of_ram);
    tcase_add_test(tcase, a_paused_balloon_tells_its_target_when_it_resumes);
    tcase_add_loop_test(tcase, the_target_travels, 0, 2);
    tcase_add_test(tcase, the_driver_tells_what_it_has_given);
    tcase_add_loop_test(tcase, statistics_come_when_they_are_asked_for, 0, 2);
    tcase_add_test(tcase, the_waiting_request_survives_a_save);
    tcase_add_test(tcase, a_second_waiting_request_takes_the_place_of_the_first);
    tcase_add_test(tcase, a_loaded_lie_breaks_the_device_only);
    tcase_add_test(tcase, state_table_keeps_its_promises);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
