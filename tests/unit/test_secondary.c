/* SPDX-License-Identifier: MIT */
/*
 * Who follows a VM, and what its memory and disks have: the same as the owner's after each epoch,
 * where that is compared, and all of it on stable storage before it takes over. Its protocol, its
 * machine and the owner are played here.
 */
#include "tests/unit/secondary_rig.h"

/* --- set up ----------------------------------------------------------------------------------- */

static void make_arrival(void)
{
    struct arrival *arrival = &t.arrival;
    snprintf(arrival->hello.name, sizeof(arrival->hello.name), "web1");
    arrival->following.generation = GENERATION;
    arrival->pages = PAGES;
    arrival->host = calloc(PAGES, PAGE_SIZE);
    arrival->touched = calloc(1, sizeof(uint64_t));
    ck_assert(arrival->host && arrival->touched);
    arrival->folder = (struct arrival_folder){
        .fd = -1, .former = -1, .former_changes = -1, .disk_count = DISKS};
    arrival->following.durable = t.place[0];
    if (t.place[0])
        arrival->folder.fd = open(t.place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < DISKS; i++) {
        struct arrival_disk *disk = &arrival->folder.disks[i];
        *disk = (struct arrival_disk){.about = {.place = PLACE + i, .size = SIZE}};
        snprintf(disk->about.name, sizeof(disk->about.name), "disk%u.img", i);
        t.fds[i] = disk->fd = memfd_create("disk", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(disk->fd, SIZE), 0);
    }
    stream_buffer_init(&arrival->payload, 0);
    stream_buffer_init(&arrival->state, 0);
}

static void prepare(const char *place)
{
    const struct secondary_config config = {.arrival = &t.arrival,
                                            .settle = handle_settle,
                                            .taken_over = handle_taken_over,
                                            .failed = handle_failed};
    const struct link_config link = {.timeout_ms = PATIENCE_MS};
    struct err err = {0};
    memset(&t, 0, sizeof(t));
    snprintf(t.place, sizeof(t.place), "%s", place);
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    t.seed = 1;
    t.at = (struct frame){.generation = GENERATION, .epoch = 1};
    make_arrival();
    side_start(&t.side, "127.0.0.1", NULL);
    ck_assert_msg(link_connect(&t.owner, t.side.address, &link, &err) == 0, "%s", err.text);
    ck_assert_int_eq(side_end(&t.side), 0);
    t.arrival.link = t.side.link;
    ck_assert_msg(secondary_create(&t.secondary, &config, &err) == 0, "%s", err.text);
    ck_assert_msg(secondary_start(t.secondary, NULL, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
    prepare("");
}

static void set_up_durable(void)
{
    char place[] = "/tmp/minivmm-twin-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(place));
    prepare(place);
}

static void tear_down(void)
{
    secondary_abandon(t.secondary);
    secondary_destroy(t.secondary);
    link_destroy(t.owner);
    link_destroy(t.arrival.link);
    for (unsigned i = 0; i < DISKS; i++)
        close(t.fds[i]);
    stream_buffer_finish(&t.arrival.payload);
    stream_buffer_finish(&t.arrival.state);
    free(t.arrival.touched);
    free(t.arrival.host);
    if (t.place[0]) {
        unlinkat(t.arrival.folder.fd, FOLDER_EPOCHS, 0);
        close(t.arrival.folder.fd);
        ck_assert_int_eq(rmdir(t.place), 0);
    }
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.lock);
}

/* --- the owner -------------------------------------------------------------------------------- */

static unsigned chance(unsigned of)
{
    t.seed = t.seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(t.seed >> 33) % of;
}

static struct stream *line(void)
{
    return link_writer(t.owner);
}

/* It has changed at both, once the epoch is applied. */
static void change(unsigned disk, uint64_t offset, uint32_t length, bool zeroes)
{
    uint8_t *at = t.disks[disk] + offset;
    const struct moving_block block = {
        .place = PLACE + disk, .offset = offset, .length = length, .bytes = zeroes ? NULL : at};
    for (uint32_t i = 0; i < length; i++)
        at[i] = zeroes ? 0 : (uint8_t)chance(256);
    moving_put_block(line(), &t.at, &block, &t.tally);
}

static int read_bytes_of(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    memcpy(bytes, (const uint8_t *)ctx + offset, length);
    return 0;
}

static void put_sums(uint32_t place, void *bytes, uint64_t size)
{
    const struct compare_what what = {.size = size, .read = read_bytes_of, .ctx = bytes};
    struct frame frame = t.at;
    uint32_t *payload;
    frame.kind = FRAME_COMPARE;
    ck_assert_int_eq(compare_sum(place, &what, &payload, &frame.length, NULL), 0);
    frame_write(line(), &frame, payload, &t.tally);
    free(payload);
}

static void put_all_sums(void)
{
    put_sums(COMPARE_MEMORY, t.memory, sizeof(t.memory));
    for (unsigned i = 0; i < DISKS; i++)
        put_sums(PLACE + i, t.disks[i], SIZE);
}

static void put_state(void)
{
    struct frame frame = t.at;
    char state[6] = "state";
    frame.kind = FRAME_STATE;
    frame.length = sizeof(state) - 1;
    state[4] = (char)('0' + t.at.epoch % 10);
    frame_write(line(), &frame, state, &t.tally);
}

static void put_commit(void)
{
    frame_write_commit(line(), t.at.generation, t.at.epoch++, &t.tally);
    t.tally = (struct frame_tally){0};
    ck_assert_int_eq(stream_flush(line()), 0);
}

static void end_epoch(void)
{
    put_state();
    put_commit();
}

/* What the twin is not to have. */
static void put_astray(uint64_t offset)
{
    static const uint8_t bytes[4096] = "astray";
    const struct moving_block block = {
        .place = PLACE, .offset = offset, .length = sizeof(bytes), .bytes = bytes};
    moving_put_block(line(), &t.at, &block, &t.tally);
    ck_assert_int_eq(stream_flush(line()), 0);
}

static void expect_steps(const char *steps)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + PATIENCE_MS * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&t.lock);
    while (strlen(t.steps) < strlen(steps) && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&t.changed, &t.lock, CLOCK_MONOTONIC, &at);
    ck_assert_str_eq(t.steps, steps);
    pthread_mutex_unlock(&t.lock);
}

static void expect_disks(void)
{
    static uint8_t is[SIZE];
    for (unsigned i = 0; i < DISKS; i++) {
        ck_assert_int_eq(pread(t.fds[i], is, SIZE, 0), SIZE);
        ck_assert(memcmp(is, t.disks[i], SIZE) == 0);
    }
}

/* From the twin, whatever else comes before; to be finished. */
static struct stream_buffer expect_frame(enum frame_kind kind)
{
    struct stream_buffer payload;
    struct frame frame;
    struct err err = {0};
    stream_buffer_init(&payload, 0);
    do
        ck_assert_msg(frame_read(link_reader(t.owner), &frame, &payload, NULL, &err) == 0, "%s",
                      err.text);
    while (frame.kind != kind);
    return payload;
}

/* What it says when it has had enough. */
static void expect_error(const char *words)
{
    struct stream_buffer payload = expect_frame(FRAME_ERROR);
    struct err err = {0};
    ck_assert_int_lt(moving_get_error(&payload, &err), 0);
    ck_assert_msg(strstr(err.text, words) != NULL, "%s", err.text);
    stream_buffer_finish(&payload);
}

/* It ends as by a crash, whatever becomes of the other side. */
static void expect_no_takeover(void)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + PATIENCE_MS * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&t.lock);
    while (!strpbrk(t.steps, "TF") && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&t.changed, &t.lock, CLOCK_MONOTONIC, &at);
    ck_assert_msg(strchr(t.steps, 'F') && !strpbrk(t.steps, "aLT"), "%s", t.steps);
    pthread_mutex_unlock(&t.lock);
}

static void two_epochs(void)
{
    change(0, 4096, 8192, false);
    end_epoch();
    change(0, 8192, 512, false);
    change(1, MIB, 4096, false);
    end_epoch();
    expect_steps("ee");
}

/* --- before the first epoch ------------------------------------------------------------------- */

static void ask_to_store(void)
{
    moving_put(line(), FRAME_ROUND, NULL, 0);
    ck_assert_int_eq(stream_flush(line()), 0);
}

START_TEST(what_it_was_filled_with_is_stored_when_it_is_asked)
{
    change(0, 4096, 8192, false);
    ask_to_store();
    struct stream_buffer payload = expect_frame(FRAME_ACK);
    ck_assert_uint_eq(stream_get_u32(&payload.stream), FRAME_STORED);
    stream_buffer_finish(&payload);
    expect_disks();
    end_epoch();
    expect_steps("e");
}
END_TEST

/* Nobody waits for that, but for each epoch. */
START_TEST(what_it_is_filled_with_is_taken_modestly_and_no_more_than_that)
{
    int ours = getpriority(PRIO_PROCESS, 0);
    change(0, 4096, 8192, false);
    ask_to_store();
    struct stream_buffer payload = expect_frame(FRAME_ACK);
    stream_buffer_finish(&payload);
    end_epoch();
    expect_steps("e");
    ck_assert_int_eq(t.followed_at, ours);
    ck_assert_int_gt(t.filled_at, ours);
}
END_TEST

START_TEST(what_cannot_be_stored_is_said)
{
    t.cannot_sync = true;
    ask_to_store();
    expect_error("cannot");
}
END_TEST

/* The disks are a former folder's, of which the other side knows what it has in common with it. */
static int make_former(char *name)
{
    struct arrival_folder *folder = &t.arrival.folder;
    struct changes_head *head = &folder->base.head;
    memset(head->lineage, 7, sizeof(head->lineage));
    for (unsigned i = 0; i < DISKS; i++)
        ck_assert_int_eq(changes_head_add(head, PLACE + i, SIZE, t.fds[i]), 0);
    ck_assert_ptr_nonnull(mkdtemp(name));
    int former = open(name, O_RDONLY | O_DIRECTORY);
    folder->former_changes = changes_file_make(former, head, false, NULL);
    ck_assert_int_ge(folder->former_changes, 0);
    return former;
}

/* The page cache has it, and the next one to come would find it there. */
START_TEST(what_could_not_be_stored_is_in_common_with_nobody)
{
    static const uint8_t none[CHANGES_LINEAGE];
    char name[] = "/tmp/minivmm-former-XXXXXX";
    int former = make_former(name);
    struct changes_head head;
    uint64_t *bits;
    change(0, 4096, 8192, false);
    ask_to_store();
    struct stream_buffer payload = expect_frame(FRAME_ACK);
    stream_buffer_finish(&payload);
    t.cannot_sync = true;
    change(1, 4096, 8192, false);
    ask_to_store();
    expect_error("cannot");
    int changes = changes_file_open(former, &head, &bits, NULL);
    ck_assert_int_ge(changes, 0);
    ck_assert_mem_eq(head.lineage, none, sizeof(none));
    ck_assert_uint_eq(head.flags, CHANGES_MIXED);
    free(bits);
    close(changes);
    close(t.arrival.folder.former_changes);
    ck_assert_int_eq(changes_file_remove(former), 0);
    close(former);
    ck_assert_int_eq(rmdir(name), 0);
}
END_TEST

START_TEST(nobody_asks_for_that_later)
{
    two_epochs();
    ask_to_store();
    expect_error("a frame ROUND comes where none may");
}
END_TEST

/* --- silence ---------------------------------------------------------------------------------- */

static void wait_until_it_is(bool busy)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    uint64_t until = clock_monotonic_ns() + PATIENCE_MS * 1000000ull;
    while (secondary_is_busy(t.secondary) != busy) {
        ck_assert_msg(clock_monotonic_ns() < until, "it stays %s", busy ? "idle" : "busy");
        nanosleep(&moment, NULL);
    }
}

/* As it is when the owner's host loses its power. */
START_TEST(who_waits_for_the_rest_of_a_frame_is_not_busy)
{
    static uint8_t whole[1 << 20];
    struct stream_buffer frame;
    stream_buffer_init(&frame, 0);
    const struct moving_block block = {.place = PLACE, .length = MIB / 2, .bytes = whole};
    moving_put_block(&frame.stream, &t.at, &block, &t.tally);
    size_t half = frame.length / 2;
    stream_write(line(), frame.bytes, half);
    ck_assert_int_eq(stream_flush(line()), 0);
    wait_until_it_is(false);
    stream_write(line(), frame.bytes + half, 1); /* a slow line is none that is silent */
    ck_assert_int_eq(stream_flush(line()), 0);
    wait_until_it_is(true);
    wait_until_it_is(false);
    stream_write(line(), frame.bytes + half + 1, frame.length - half - 1);
    end_epoch();
    stream_buffer_finish(&frame);
    expect_steps("e");
    expect_disks();
}
END_TEST

/* --- what counts, and what does not ----------------------------------------------------------- */

static void expect_takeover_of_two(void)
{
    expect_steps("eeDssaLT");
    expect_disks();
    ck_assert_str_eq(t.state, "stat2");
}

START_TEST(a_torn_epoch_leaves_no_trace)
{
    two_epochs();
    put_astray(0);
    put_state();
    link_break(t.owner);
    expect_takeover_of_two();
}
END_TEST

/* The witness may have been asked already, with the one before. */
START_TEST(an_epoch_that_comes_too_late_leaves_no_trace)
{
    two_epochs();
    t.claims = true;
    put_astray(0);
    end_epoch();
    expect_error("too late");
    expect_takeover_of_two();
}
END_TEST

START_TEST(what_is_not_due_is_not_taken)
{
    static const struct {
        int epochs, generations;
    } off[] = {{1, 0}, {-1, 0}, {0, 1}, {0, -1}};
    two_epochs();
    t.at.epoch += (uint64_t)off[_i].epochs;
    t.at.generation += (uint64_t)off[_i].generations;
    put_astray(0);
    end_epoch();
    expect_error("comes where none may");
    expect_takeover_of_two();
}
END_TEST

/* Else it would be acknowledged. */
START_TEST(what_could_not_be_applied_is_not_taken)
{
    two_epochs();
    put_astray(_i == 0 ? SIZE - 512 : 0);
    if (_i == 0)
        put_state();
    put_commit();
    expect_error(_i == 0 ? "not there" : "state is missing");
    expect_takeover_of_two();
}
END_TEST

START_TEST(settings_come_with_their_epoch)
{
    struct instance_settings settings = {.paused = true};
    two_epochs();
    ck_assert(!secondary_settings(t.secondary)->paused);
    following_put_settings(line(), &t.at, &settings, &t.tally);
    end_epoch();
    settings.paused = false;
    following_put_settings(line(), &t.at, &settings, &t.tally);
    put_state();
    ck_assert_int_eq(stream_flush(line()), 0);
    link_break(t.owner);
    expect_steps("eeeDssaLT");
    ck_assert(secondary_settings(t.secondary)->paused);
}
END_TEST

/* A disk that fails once, or for good. */
START_TEST(what_was_acknowledged_is_applied_before_a_takeover)
{
    two_epochs();
    wait_until_it_is(false); /* so the second one is applied, too */
    change(1, 0, 4096, false);
    t.failing_writes = _i == 0 ? 1 : 1000;
    end_epoch();
    if (_i == 1) {
        expect_no_takeover();
        return;
    }
    expect_steps("eeeDssaLT");
    expect_disks();
    ck_assert_str_eq(t.state, "stat3");
}
END_TEST

/* And that is on stable storage. */
START_TEST(what_is_acknowledged_is_in_the_journal)
{
    end_epoch(); /* by the thread that filled it */
    end_epoch();
    change(0, 0, 4096, false);
    end_epoch();
    expect_steps("eese");
    ck_assert_ptr_nonnull(memmem(t.journal, t.journalled, t.disks[0], 4096));
}
END_TEST

/* --- before a takeover ------------------------------------------------------------------------ */

START_TEST(before_a_takeover_the_disks_are_on_stable_storage)
{
    two_epochs();
    link_break(t.owner);
    expect_steps("eeDssaLT");
    expect_disks();
}
END_TEST

START_TEST(a_disk_that_cannot_be_synced_is_not_taken_over)
{
    two_epochs();
    t.cannot_sync = true;
    link_break(t.owner);
    expect_no_takeover();
}
END_TEST

/* --- comparing -------------------------------------------------------------------------------- */

START_TEST(what_is_the_same_is_found_to_be)
{
    static const char many[] = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
    char steps[80];
    for (unsigned i = 0; i < strlen(many); i++) {
        for (unsigned j = chance(4); j > 0; j--) {
            uint32_t length = 512 * (1 + chance(64));
            change(chance(DISKS), 512 * chance(SIZE / 512 - 64), length, chance(2) == 0);
        }
        put_all_sums();
        end_epoch();
    }
    expect_steps(many);
    link_break(t.owner);
    snprintf(steps, sizeof(steps), "%sDssaLT", many);
    expect_steps(steps);
    expect_disks();
}
END_TEST

/* Behind its back. */
static void spoil_disk(unsigned disk, off_t offset)
{
    ck_assert_int_eq(pwrite(t.fds[disk], "!", 1, offset), 1);
}

START_TEST(a_byte_of_a_disk_that_is_not_the_same_is_found)
{
    static const struct {
        unsigned disk;
        off_t offset;
        const char *words;
    } cases[] = {
        {0, 5, "disk0.img is not the same on both hosts, somewhere in the MiB from byte 0"},
        {0, MIB - 1, "disk0.img is not the same on both hosts, somewhere in the MiB from byte 0"},
        {1, 2 * MIB,
         "disk1.img is not the same on both hosts, somewhere in the MiB from byte 2097"},
        {1, SIZE - 1,
         "disk1.img is not the same on both hosts, somewhere in the MiB from byte 314"},
    };
    two_epochs();
    spoil_disk(cases[_i].disk, cases[_i].offset);
    put_all_sums();
    end_epoch();
    expect_error(cases[_i].words);
    expect_no_takeover();
}
END_TEST

/* Where the twin lacks what its owner has. */
START_TEST(a_block_that_never_came_is_found)
{
    two_epochs();
    t.disks[1][700] = 1;
    put_all_sums();
    end_epoch();
    expect_error("disk1.img is not the same on both hosts");
    expect_no_takeover();
}
END_TEST

START_TEST(a_byte_of_memory_that_is_not_the_same_is_found)
{
    two_epochs();
    t.arrival.host[5 * PAGE_SIZE] = 1;
    put_all_sums();
    end_epoch();
    expect_error("guest memory is not the same on both hosts");
    expect_no_takeover();
}
END_TEST

/* In the first epoch everything goes straight in; it is compared, too. */
START_TEST(the_first_epoch_is_compared)
{
    spoil_disk(0, 1);
    put_all_sums();
    end_epoch();
    expect_error("disk0.img is not the same on both hosts");
    expect_no_takeover();
}
END_TEST

START_TEST(sums_that_make_no_sense_are_refused)
{
    two_epochs();
    switch (_i) {
    case 0: /* a disk that it does not have */
        put_sums(PLACE + DISKS, t.disks[0], SIZE);
        break;
    case 1: /* of another size */
        put_sums(PLACE, t.disks[0], SIZE - MIB);
        break;
    default:
        for (unsigned i = 0; i < 2 + MACHINE_MAX_DISKS; i++)
            put_sums(PLACE, t.disks[0], SIZE);
    }
    end_epoch();
    expect_error(_i == 0 ? "not there" : _i == 1 ? "makes no sense" : "more than there is");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("secondary");
    TCase *tests = tcase_create("secondary");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, what_it_was_filled_with_is_stored_when_it_is_asked);
    if (getpriority(PRIO_PROCESS, 0) < 5) /* who runs us may be more modest than that */
        tcase_add_test(tests, what_it_is_filled_with_is_taken_modestly_and_no_more_than_that);
    tcase_add_test(tests, what_cannot_be_stored_is_said);
    tcase_add_test(tests, what_could_not_be_stored_is_in_common_with_nobody);
    tcase_add_test(tests, nobody_asks_for_that_later);
    tcase_add_test(tests, who_waits_for_the_rest_of_a_frame_is_not_busy);
    tcase_add_test(tests, before_a_takeover_the_disks_are_on_stable_storage);
    tcase_add_test(tests, a_disk_that_cannot_be_synced_is_not_taken_over);
    tcase_add_test(tests, what_is_the_same_is_found_to_be);
    tcase_add_loop_test(tests, a_byte_of_a_disk_that_is_not_the_same_is_found, 0, 4);
    tcase_add_test(tests, a_block_that_never_came_is_found);
    tcase_add_test(tests, a_byte_of_memory_that_is_not_the_same_is_found);
    tcase_add_test(tests, the_first_epoch_is_compared);
    tcase_add_loop_test(tests, sums_that_make_no_sense_are_refused, 0, 3);
    tcase_add_test(tests, a_torn_epoch_leaves_no_trace);
    tcase_add_test(tests, an_epoch_that_comes_too_late_leaves_no_trace);
    tcase_add_loop_test(tests, what_is_not_due_is_not_taken, 0, 4);
    tcase_add_loop_test(tests, what_could_not_be_applied_is_not_taken, 0, 2);
    tcase_add_test(tests, settings_come_with_their_epoch);
    tcase_add_loop_test(tests, what_was_acknowledged_is_applied_before_a_takeover, 0, 2);
    suite_add_tcase(suite, tests);
    TCase *durable = tcase_create("durable");
    tcase_add_checked_fixture(durable, set_up_durable, tear_down);
    tcase_add_test(durable, what_is_acknowledged_is_in_the_journal);
    suite_add_tcase(suite, durable);
    return unit_main(suite);
}
