/* SPDX-License-Identifier: MIT */
/*
 * Guest memory on its way out, with a guest that writes to it all the time: what a sink has got in
 * the end is memory as it was in the pause, byte for byte.
 */
#include "core/clock.h"
#include "ft/pages.h"
#include "tests/unit/machines.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB 1048576ull

/* Nobody uses these pages. */
#define OURS (6 * MIB)
enum { OUR_PAGES = 64 };

enum { DISK_BYTES = 32 << 10, NEVER = 0 };

struct trial {
    struct rig rig;
    struct disk_config disk;
    char path[32];

    struct pages_sink sink;
    struct pages pages;
    uint8_t *got, *then; /* what the sink has, and memory in the pause */
    uint64_t size;
    unsigned puts;
    unsigned fail_at, give_up_at, discard_at; /* the put with this number, from 1 */
    atomic_bool given_up;

    /* A step on a thread of its own, while the guest runs. */
    struct thread thread;
    int (*step)(struct pages *pages, struct err *err);
    int result;
    struct err err;
    atomic_bool done;
};

static int put(void *ctx, uint64_t offset, const uint8_t *bytes, size_t length, struct err *err)
{
    struct trial *trial = ctx;
    ck_assert_uint_eq(offset % PAGE_SIZE, 0);
    ck_assert_uint_eq(length % PAGE_SIZE, 0);
    ck_assert_uint_gt(length, 0);
    ck_assert(offset < trial->size && length <= trial->size - offset);
    trial->puts++;
    if (trial->puts == trial->fail_at)
        return err_say(err, ERR_FAILED, EDQUOT, "the sink is full");
    if (trial->puts == trial->give_up_at)
        trial->given_up = true;
    memcpy(trial->got + offset, bytes, length);
    if (offset <= OURS && OURS + PAGE_SIZE <= offset + length && trial->discard_at) {
        trial->discard_at = NEVER;
        struct memory *memory = machine_memory(trial->rig.machine);
        ck_assert_int_eq(memory_discard(memory, OURS, PAGE_SIZE), 0);
    }
    /* The bytes stand still. */
    ck_assert_int_eq(memcmp(trial->got + offset, bytes, length), 0);
    return 0;
}

static void trial_init(struct trial *trial, unsigned cpus, uint64_t memory, const char *cmdline)
{
    *trial = (struct trial){.path = "/tmp/minivmm-test-XXXXXX", .size = memory};
    int fd = mkstemp(trial->path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    trial->disk.path = trial->path;
    rig_init(&trial->rig, "steady", cpus, cmdline);
    machine_destroy(trial->rig.machine);
    trial->rig.machine = NULL;
    trial->rig.config.memory = memory;
    trial->rig.config.disks = &trial->disk;
    trial->rig.config.disk_count = 1;
    rig_create_machine(&trial->rig, &trial->rig.machine);
    trial->got = calloc(1, memory);
    trial->then = malloc(memory);
    rig_run_until(&trial->rig, 1, 0);
}

static void trial_finish(struct trial *trial)
{
    rig_run_until(&trial->rig, 2, 0);
    ck_assert_msg(!strstr(trial->rig.text, "WRONG"), "%s", rig_tail(&trial->rig));
    rig_finish(&trial->rig);
    unlink(trial->path);
    free(trial->got);
    free(trial->then);
}

static const uint8_t *host_of(const struct trial *trial)
{
    const struct memory_range *ranges;
    ck_assert_uint_eq(memory_ranges(machine_memory(trial->rig.machine), &ranges), 1);
    return ranges[0].host;
}

/* --- steps ------------------------------------------------------------------------------------ */

static void begin(struct trial *trial)
{
    struct err err = {0};
    memset(trial->got, 0, trial->size);
    trial->puts = 0;
    trial->given_up = false;
    trial->sink = (struct pages_sink){.put = put, .ctx = trial};
    trial->pages = (struct pages){
        .machine = trial->rig.machine, .sink = &trial->sink, .given_up = &trial->given_up};
    int ret = pages_begin(&trial->pages, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void run_step(void *arg)
{
    struct trial *trial = arg;
    trial->result = trial->step(&trial->pages, &trial->err);
    trial->done = true;
    loop_stop(machine_loop(trial->rig.machine));
}

/* While the guest goes on. After: paused. */
static int beside(struct trial *trial, int (*step)(struct pages *pages, struct err *err))
{
    trial->step = step;
    trial->err = (struct err){0};
    trial->done = false;
    ck_assert_int_eq(thread_start(&trial->thread, "step", run_step, trial, NULL), 0);
    while (!trial->done) {
        struct machine_end end = rig_run(&trial->rig, rig_handle_late, PATIENCE_S * NS_PER_SEC);
        rig_check_goes_on(&trial->rig, &end);
    }
    thread_join(&trial->thread);
    return trial->result;
}

static void rounds(struct trial *trial)
{
    int ret = beside(trial, pages_rounds);
    ck_assert_msg(ret == 0, "%s", trial->err.text);
}

/* Saving the state comes first, as always: it may write to memory. */
static void capture(struct trial *trial)
{
    struct stream_buffer state;
    struct err err = {0};
    rig_save(&trial->rig, &state);
    stream_buffer_finish(&state);
    memcpy(trial->then, host_of(trial), trial->size);
    int ret = pages_capture(&trial->pages, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void rest(struct trial *trial)
{
    int ret = beside(trial, pages_rest);
    ck_assert_msg(ret == 0, "%s", trial->err.text);
}

static void check_got(const struct trial *trial)
{
    for (uint64_t at = 0; at < trial->size; at += PAGE_SIZE)
        ck_assert_msg(memcmp(trial->got + at, trial->then + at, PAGE_SIZE) == 0,
                      "page %llu is not what it was", (unsigned long long)(at / PAGE_SIZE));
    ck_assert(!trial->pages.aside || trial->pages.held <= trial->pages.room);
}

static void end(struct trial *trial)
{
    pages_end(&trial->pages);
    pages_end(&trial->pages);
}

/* --- what the sink gets ----------------------------------------------------------------------- */

static const struct {
    unsigned cpus;
    uint64_t memory;
    const char *cmdline;
} guests[] = {
    {1, 8 * MIB, "pages=64"},
    {2, 8 * MIB, "pages=256"},
    {1, 64 * MIB, "pages=1500"}, /* many threads copy aside */
    {2, 64 * MIB, "pages=1000"},
};

START_TEST(test_the_sink_has_memory_as_it_was_in_the_pause)
{
    struct trial trial;
    trial_init(&trial, guests[_i].cpus, guests[_i].memory, guests[_i].cmdline);
    for (unsigned i = 0; i < 4; i++) {
        begin(&trial);
        rounds(&trial);
        rig_run_for(&trial.rig, 3000 * i);
        capture(&trial);
        rest(&trial);
        check_got(&trial);
        ck_assert_uint_ge(trial.pages.rounds, 1);
        ck_assert_uint_ge(trial.pages.sent, trial.pages.touched);
        end(&trial);
    }
    trial_finish(&trial);
}
END_TEST

/* A round that has begun only now: what the first line tells may be the end of one. */
static void write_all_pages(struct trial *trial)
{
    rig_run_until(&trial->rig, 2, 0);
}

/* The room was made when there was little to do. */
START_TEST(test_more_written_pages_than_there_is_room_for)
{
    struct trial trial;
    trial_init(&trial, 1, 64 * MIB, "pages=6000");
    begin(&trial);
    rounds(&trial);
    uint64_t room = trial.pages.room;
    ck_assert_uint_eq(room, 16 * MIB / PAGE_SIZE); /* of a guest with more it is an eighth */
    write_all_pages(&trial);
    capture(&trial);
    ck_assert_uint_gt(trial.pages.captured, room);
    ck_assert_uint_eq(trial.pages.held, room);
    rest(&trial);
    check_got(&trial);
    end(&trial);
    trial_finish(&trial);
}
END_TEST

static int one_round(struct pages *pages, struct err *err)
{
    uint64_t found;
    return pages_round(pages, &found, err);
}

/* Where the machine goes on elsewhere it stands still for the last of the rounds. */
static bool is_mapped(const struct pages *pages, uint64_t page)
{
    unsigned char resident;
    return mincore(pages->aside + page * PAGE_SIZE, PAGE_SIZE, &resident) == 0 && resident;
}

/* As if that time had gone by, and so much was written in each epoch meanwhile. */
static void write_for_long(struct pages *pages, uint64_t each)
{
    for (unsigned i = 0; i < 20; i++) {
        if (i == 10)
            pages->turned_ns -= PAGES_KEEP_S * NS_PER_SEC;
        ck_assert_int_eq(pages_make_room(pages, each, NULL), 0);
    }
}

/* No machine is needed for that. */
START_TEST(test_room_that_nobody_needs_any_more_is_given_back)
{
    enum { COUNT = 1 << 18, MOST = COUNT / 8, LEAST = 4096 };
    struct pages pages = {.count = COUNT};
    ck_assert_int_eq(pages_make_room(&pages, COUNT, NULL), 0);
    uint8_t *aside = pages.aside;
    ck_assert(pages.room == MOST && is_mapped(&pages, MOST - 1));
    for (unsigned i = 0; i < 100; i++) /* one large epoch says nothing of the next ones */
        ck_assert_int_eq(pages_make_room(&pages, 10, NULL), 0);
    ck_assert(pages.room == MOST && is_mapped(&pages, MOST - 1));
    write_for_long(&pages, 10); /* what was large was in this time */
    write_for_long(&pages, MOST / 2 - 1);
    write_for_long(&pages, MOST / 2 - 1);
    ck_assert(pages.room == MOST && is_mapped(&pages, MOST - 1)); /* not worth it */
    write_for_long(&pages, 10);
    write_for_long(&pages, 10);
    ck_assert(pages.room == LEAST && pages.mapped == LEAST && pages.aside == aside);
    ck_assert(is_mapped(&pages, LEAST - 1));
    ck_assert_int_eq(pages_make_room(&pages, COUNT, NULL), 0); /* at once */
    ck_assert(pages.room == MOST && is_mapped(&pages, MOST - 1));
    pages_end(&pages);
    ck_assert_uint_eq(pages.mapped, 0);
}
END_TEST

/* What is about to be given back is taken again, and a piece goes with each epoch. */
START_TEST(test_room_goes_in_pieces)
{
    enum { COUNT = 1 << 18, MOST = COUNT / 8, LEAST = 4096 };
    struct pages pages = {.count = COUNT};
    ck_assert_int_eq(pages_make_room(&pages, COUNT, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        pages.turned_ns -= PAGES_KEEP_S * NS_PER_SEC;
        ck_assert_int_eq(pages_make_room(&pages, 10, NULL), 0);
    }
    ck_assert_uint_eq(pages.room, LEAST);
    uint64_t mapped = pages.mapped;
    ck_assert_uint_lt(mapped, MOST);
    ck_assert_uint_ge(mapped, MOST - LEAST);
    uint8_t *aside = pages.aside;
    ck_assert_int_eq(pages_make_room(&pages, 6000, NULL), 0);
    ck_assert(pages.room == 12000 && pages.aside == aside && is_mapped(&pages, 11999));
    for (unsigned i = 0; i < 20; i++)
        ck_assert_int_eq(pages_make_room(&pages, 10, NULL), 0);
    ck_assert(pages.mapped == 12000 && is_mapped(&pages, 11999));
    pages_end(&pages);
}
END_TEST

START_TEST(test_rounds_one_by_one_end_with_a_pause)
{
    struct trial trial;
    struct err err = {0};
    uint64_t found = 0;
    trial_init(&trial, 2, 8 * MIB, "pages=256");
    begin(&trial);
    ck_assert_int_eq(beside(&trial, pages_all), 0);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(beside(&trial, one_round), 0);
    ck_assert_uint_eq(trial.pages.rounds, 3);
    rig_run_until(&trial.rig, 1, 0);
    for (unsigned i = 0; i < 2; i++) {
        memcpy(trial.then, host_of(&trial), trial.size);
        ck_assert_int_eq(pages_round(&trial.pages, &found, &err), 0);
        ck_assert((found > 0) == (i == 0));
        check_got(&trial);
    }
    end(&trial);
    trial_finish(&trial);
}
END_TEST

/* All of memory, of which every border of what is looked at at once is a part. */
START_TEST(test_every_page_may_be_written)
{
    struct trial trial;
    trial_init(&trial, 1, 8 * MIB, "pages=64");
    for (unsigned way = 0; way < 3; way++) {
        begin(&trial);
        rounds(&trial);
        /* Each page, each second one, or none. */
        for (uint64_t at = 0; at < trial.size && way < 2; at += PAGE_SIZE << way)
            memory_written(machine_memory(trial.rig.machine), at, 1);
        capture(&trial);
        ck_assert(way != 0 || trial.pages.captured == trial.size / PAGE_SIZE);
        rest(&trial);
        check_got(&trial);
        end(&trial);
    }
    trial_finish(&trial);
}
END_TEST

START_TEST(test_what_we_write_ourselves_comes_too)
{
    struct trial trial;
    trial_init(&trial, 1, 8 * MIB, "pages=64");
    struct memory *memory = machine_memory(trial.rig.machine);
    begin(&trial);
    ck_assert_int_eq(memory_fill(memory, OURS, 1, OUR_PAGES * PAGE_SIZE), 0);
    rounds(&trial);
    ck_assert_uint_eq(trial.got[OURS + 5 * PAGE_SIZE], 1);
    ck_assert_int_eq(memory_fill(memory, OURS + 5 * PAGE_SIZE, 2, 3), 0);
    capture(&trial);
    /* It may be written again as soon as the machine runs. */
    ck_assert_int_eq(memory_fill(memory, OURS + 5 * PAGE_SIZE, 3, 3), 0);
    ck_assert_uint_eq(trial.got[OURS + 5 * PAGE_SIZE], 1); /* not in the pause */
    rest(&trial);
    ck_assert_uint_eq(trial.got[OURS + 5 * PAGE_SIZE], 2);
    check_got(&trial);
    end(&trial);
    trial_finish(&trial);
}
END_TEST

START_TEST(test_discarded_pages_come_as_zeroes)
{
    struct trial trial;
    trial_init(&trial, 1, 8 * MIB, "pages=64");
    struct memory *memory = machine_memory(trial.rig.machine);
    ck_assert_int_eq(memory_fill(memory, OURS, 0xab, OUR_PAGES * PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, OURS + 2 * PAGE_SIZE, PAGE_SIZE), 0);
    begin(&trial);
    trial.discard_at = 1; /* the first of our pages, as soon as the sink has it */
    rounds(&trial);
    ck_assert_uint_eq(trial.discard_at, NEVER);
    ck_assert_uint_eq(trial.got[OURS + PAGE_SIZE], 0xab);
    ck_assert_int_eq(memory_discard(memory, OURS + 8 * PAGE_SIZE, 16 * PAGE_SIZE), 0);
    capture(&trial);
    rest(&trial);
    check_got(&trial);
    for (unsigned page = 0; page < OUR_PAGES; page++) {
        bool gone = page == 0 || page == 2 || (page >= 8 && page < 24);
        ck_assert_uint_eq(trial.got[OURS + page * PAGE_SIZE + 100], gone ? 0 : 0xab);
    }
    end(&trial);
    trial_finish(&trial);
}
END_TEST

/* A machine that is large and has done little is copied quickly. */
START_TEST(test_pages_that_nobody_touched_do_not_come)
{
    struct trial trial;
    trial_init(&trial, 1, 256 * MIB, "pages=64");
    begin(&trial);
    rounds(&trial);
    capture(&trial);
    rest(&trial);
    check_got(&trial);
    /* Huge pages are touched as a whole. */
    ck_assert_uint_le(trial.pages.touched, 64 * MIB / PAGE_SIZE);
    ck_assert_uint_ge(trial.pages.touched, 64);
    ck_assert_uint_lt(trial.pages.sent, 128 * MIB / PAGE_SIZE);
    end(&trial);
    trial_finish(&trial);
}
END_TEST

/* The guest goes on in a machine whose memory is a file with what it was. */
static void move_to_file(struct trial *trial)
{
    struct stream_buffer state;
    struct err err = {0};
    int fd = memfd_create("test", MFD_CLOEXEC);
    rig_save(&trial->rig, &state);
    ck_assert_int_eq(pwrite(fd, host_of(trial), trial->size, 0), (ssize_t)trial->size);
    machine_destroy(trial->rig.machine);
    trial->rig.machine = NULL;
    trial->rig.config.blank = true;
    rig_create_machine(&trial->rig, &trial->rig.machine);
    int ret = memory_map_file(machine_memory(trial->rig.machine), fd, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    close(fd);
    ret = machine_load(trial->rig.machine, &state.stream, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    stream_buffer_finish(&state);
}

/* There a page that this process never saw holds something all the same. */
START_TEST(test_memory_that_is_a_file_comes_whole)
{
    struct trial trial;
    trial_init(&trial, 1, 8 * MIB, "pages=256");
    struct memory *memory = machine_memory(trial.rig.machine);
    ck_assert_int_eq(memory_fill(memory, OURS, 0xcd, OUR_PAGES * PAGE_SIZE), 0);
    move_to_file(&trial);
    memory = machine_memory(trial.rig.machine);
    ck_assert_int_eq(memory_discard(memory, OURS + 4 * PAGE_SIZE, 4 * PAGE_SIZE), 0);
    for (unsigned i = 0; i < 2; i++) {
        begin(&trial);
        rounds(&trial);
        ck_assert_int_eq(memory_discard(memory, OURS + (16 + i) * PAGE_SIZE, PAGE_SIZE), 0);
        capture(&trial);
        rest(&trial);
        check_got(&trial);
        ck_assert_uint_eq(trial.got[OURS], 0xcd);
        ck_assert_uint_eq(trial.got[OURS + 4 * PAGE_SIZE], 0);
        ck_assert_uint_eq(trial.got[OURS + 16 * PAGE_SIZE], 0);
        end(&trial);
    }
    trial_finish(&trial);
}
END_TEST

/* --- early ends ------------------------------------------------------------------------------- */

START_TEST(test_who_gives_up_is_soon_free)
{
    struct trial trial;
    trial_init(&trial, 1, 8 * MIB, "pages=1000");
    begin(&trial);
    trial.given_up = true;
    ck_assert_int_eq(beside(&trial, pages_rounds), -ECANCELED);
    ck_assert(trial.err.text[0]);
    ck_assert_uint_le(trial.puts, 1);
    end(&trial);

    begin(&trial);
    trial.give_up_at = 3;
    ck_assert_int_eq(beside(&trial, pages_rounds), -ECANCELED);
    ck_assert_uint_le(trial.puts, 4);
    end(&trial);

    /* What was kept aside, too. */
    trial.give_up_at = NEVER;
    begin(&trial);
    rounds(&trial);
    for (uint64_t at = 0; at < 64; at++)
        memory_written(machine_memory(trial.rig.machine), OURS + 2 * at * PAGE_SIZE % MIB, 1);
    capture(&trial);
    trial.give_up_at = trial.puts + 1;
    unsigned before = trial.puts;
    ck_assert_int_eq(beside(&trial, pages_rest), -ECANCELED);
    ck_assert_uint_le(trial.puts, before + 2);
    end(&trial);

    /* And the next one gets all. */
    trial.give_up_at = NEVER;
    begin(&trial);
    rounds(&trial);
    capture(&trial);
    rest(&trial);
    check_got(&trial);
    end(&trial);
    trial_finish(&trial);
}
END_TEST

START_TEST(test_a_sink_that_fails_ends_it)
{
    struct trial trial;
    struct err err = {0};
    trial_init(&trial, 1, 64 * MIB, "pages=6000");
    begin(&trial);
    trial.fail_at = 2;
    ck_assert_int_eq(beside(&trial, pages_rounds), -EDQUOT);
    ck_assert_str_eq(trial.err.text, "the sink is full");
    ck_assert_uint_eq(trial.puts, 2);
    end(&trial);

    trial.fail_at = NEVER;
    begin(&trial);
    rounds(&trial);
    write_all_pages(&trial);
    trial.fail_at = trial.puts + 1; /* in the pause: there is no room for all */
    ck_assert_int_eq(pages_capture(&trial.pages, &err), -EDQUOT);
    trial.fail_at = trial.puts + 1;
    ck_assert_int_eq(beside(&trial, pages_rest), -EDQUOT);
    end(&trial);
    trial.fail_at = NEVER;
    trial_finish(&trial);
}
END_TEST

START_TEST(test_an_end_is_always_possible)
{
    struct trial trial;
    struct pages none = {0};
    pages_end(&none);
    pages_end(&none);
    trial_init(&trial, 1, 8 * MIB, "pages=64");
    begin(&trial); /* nothing else */
    end(&trial);
    begin(&trial);
    rounds(&trial);
    end(&trial);
    begin(&trial);
    rounds(&trial);
    capture(&trial);
    end(&trial);
    trial_finish(&trial);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pages");
    TCase *gets = tcase_create("gets"), *early = tcase_create("early");
    tcase_add_loop_test(gets, test_the_sink_has_memory_as_it_was_in_the_pause, 0,
                        (int)array_size(guests));
    tcase_add_test(gets, test_more_written_pages_than_there_is_room_for);
    tcase_add_test(gets, test_room_that_nobody_needs_any_more_is_given_back);
    tcase_add_test(gets, test_room_goes_in_pieces);
    tcase_add_test(gets, test_rounds_one_by_one_end_with_a_pause);
    tcase_add_test(gets, test_every_page_may_be_written);
    tcase_add_test(gets, test_what_we_write_ourselves_comes_too);
    tcase_add_test(gets, test_discarded_pages_come_as_zeroes);
    tcase_add_test(gets, test_pages_that_nobody_touched_do_not_come);
    tcase_add_test(gets, test_memory_that_is_a_file_comes_whole);
    tcase_add_test(early, test_who_gives_up_is_soon_free);
    tcase_add_test(early, test_a_sink_that_fails_ends_it);
    tcase_add_test(early, test_an_end_is_always_possible);
    TCase *all[] = {gets, early};
    for (size_t i = 0; i < array_size(all); i++) {
        tcase_set_timeout(all[i], PATIENCE_S + 20);
        suite_add_tcase(suite, all[i]);
    }
    return unit_main_with_kvm(suite, "test_pages");
}
