/* SPDX-License-Identifier: MIT */
/* What two folders have in common begins, ends, and makes place for what other two have. */
#include "tests/unit/changes_rig.h"
#include "tests/unit/fake_disk.h"

/* --- a disk that fails, or hangs ----------------------------------------------------------- */

static struct fake_disk fake;

/* One whose flushes fail, and whose writes wait, when they are told to. */
static void open_fake_disk(void)
{
    const struct disk_client client = {.begin = handle_nothing, .end = handle_nothing};
    struct err err = {0};
    end();
    fake_disk_init(&fake, NULL, REGIONS * REGION);
    ck_assert_int_eq(disk_point_create(&t.disk, &fake.disk, rig_path("disk.img"), &err), 0);
    ck_assert_int_eq(disk_tap_create(&t.disk, t.disk, &err), 0);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, &err), 0);
    t.tap = disk_tap_of(t.disk);
    create("ours");
}

static void use_fake_disk(void)
{
    open_fake_disk();
    begin(lineage);
}

static bool is_kept(const uint8_t wanted[CHANGES_LINEAGE])
{
    uint8_t found[CHANGES_LINEAGE];
    return changes_lineage(t.changes, found) && memcmp(found, wanted, sizeof(found)) == 0;
}

static bool has_file(void)
{
    return access(rig_path(FOLDER_CHANGES), F_OK) == 0;
}

/* All of the disk goes over, out of the page cache. What the disk lacks no flush brings there. */
static void expect_nothing_forgotten(const uint8_t new_lineage[CHANGES_LINEAGE])
{
    uint64_t until = clock_monotonic_ns() + 20000000000ull;
    begin_fresh(new_lineage);
    changes_cut(t.changes, 7, true);
    write_at(3);
    changes_cut(t.changes, 8, false);
    for (unsigned i = 0; i < 4; i++) {
        changes_note_stored(t.changes, 7 + i);
        settle();
        ck_assert_uint_eq(changes_bytes(t.changes), REGIONS * REGION);
    }
    while (has_file() && clock_monotonic_ns() < until)
        settle();
    ck_assert(!has_file() && is_kept(new_lineage));
}

static void handle_failed(struct disk_request *request, int result)
{
    ck_assert_int_eq(result, -EIO);
}

/* Ours has begun by then, and ends well. */
static void fail_a_guests_flush(void)
{
    fake.hold = true;
    settle();
    ck_assert_uint_eq(fake.held_count, 1);
    fake.hold = false;
    t.request = (struct disk_request){.op = DISK_FLUSH, .done = handle_failed};
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
    fake.fail = 0;
    fake_disk_release(&fake);
}

/* It is told once, and the next flush ends well: also where the one that failed came too late to
 * count, or was the guest's. */
START_TEST(a_flush_that_fails_ends_the_lineage)
{
    uint8_t found[CHANGES_LINEAGE];
    use_fake_disk();
    write_at(1);
    changes_cut(t.changes, 1, false);
    expect_forgotten(1, 1);
    write_at(2);
    changes_cut(t.changes, 2, false);
    fake.fail = -EIO;
    fake.fail_op = DISK_FLUSH;
    changes_note_stored(t.changes, 2);
    if (_i == 1)
        changes_cut(t.changes, 3, true);
    if (_i == 2)
        fail_a_guests_flush();
    uint64_t until = clock_monotonic_ns() + 20000000000ull;
    while (changes_lineage(t.changes, found) && clock_monotonic_ns() < until)
        settle();
    ck_assert(!changes_lineage(t.changes, found) && !has_file());
    fake.fail = 0;
    write_at(2);
    expect_nothing_forgotten(other);
    expect_nothing_forgotten(lineage);
    end();
    ck_assert(!has_file());
    open_disk(); /* with its page cache gone, say */
    create("ours");
    begin(other);
}
END_TEST

/* The guest's, before anything was noted, or asked for; or in a lineage that it ends. */
START_TEST(a_flush_that_fails_before_a_lineage_spoils_it)
{
    open_fake_disk();
    if (_i == 1)
        begin_fresh(other);
    fake.fail = -EIO;
    fake.fail_op = DISK_FLUSH;
    t.request = (struct disk_request){.op = DISK_FLUSH, .done = handle_failed};
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
    fake.fail = 0;
    while (_i == 1 && is_kept(other))
        settle();
    expect_nothing_forgotten(lineage);
}
END_TEST

/* The machine stands still by then, and nobody else would do it. */
START_TEST(a_flush_that_fails_at_the_end_ends_the_lineage)
{
    use_fake_disk();
    write_at(1);
    changes_quiet(t.changes);
    fake.fail = -EIO;
    fake.fail_op = DISK_FLUSH;
    t.request = (struct disk_request){.op = DISK_FLUSH, .done = handle_failed};
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
    ck_assert(has_file());
    end();
    ck_assert(!has_file());
}
END_TEST

/* What was written before may be in no more than the page cache. */
START_TEST(of_a_new_lineage_all_is_marked_until_both_have_it)
{
    begin_fresh(lineage);
    ck_assert_uint_eq(marks_in_file(), REGIONS);
    write_at(1);
    changes_cut(t.changes, 3, true);
    stored(2);
    ck_assert(is_marked(0) && is_marked(1) && is_marked(REGIONS - 1));
    expect_forgotten(3, 0);
    ck_assert_uint_eq(changes_bytes(t.changes), 0);
}
END_TEST

/* What was begun before a lineage was given up, and ends later, counts in the next one. */
START_TEST(what_is_under_way_at_the_end_of_a_lineage)
{
    use_fake_disk();
    write_at(1);
    fake.hold = true;
    t.done = false;
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
    changes_drop(t.changes);
    fake.hold = false;
    fake_disk_release(&fake);
    ck_assert(t.done);
    begin(other);
    write_at(2);
    changes_cut(t.changes, 1, false);
    expect_forgotten(1, 2);
}
END_TEST

/* It is handed over, and taken back: the same disk, with another tap. */
START_TEST(a_disk_that_comes_back_is_followed_again)
{
    begin(lineage);
    changes_drop(t.changes);
    close_disk();
    open_disk();
    ck_assert_int_eq(changes_add_disk(t.changes, t.disk, 0, NULL), 0);
    begin(other);
    ck_assert(!is_marked(7));
    act(DISK_WRITE, 7 * REGION, BLOCK);
    ck_assert(is_marked(7));
}
END_TEST

/* --- another host is tried -------------------------------------------------------------------- */

static uint8_t lineage_in_file(void)
{
    struct changes_head head;
    uint64_t *bits;
    int fd = changes_file_open(t.folder, &head, &bits, NULL);
    ck_assert_int_ge(fd, 0);
    free(bits);
    close(fd);
    return head.lineage[0];
}

static void try_other(void)
{
    bool keeps;
    ck_assert_int_eq(changes_prepare(t.changes, other, &keeps, NULL), 0);
    ck_assert(keeps);
}

/* Twice in vain, and a third time: until then it is the old one that is noted, in the file too. */
START_TEST(the_old_lineage_is_kept_until_the_new_one_takes_its_place)
{
    bool keeps = true;
    ck_assert_int_eq(changes_prepare(t.changes, lineage, &keeps, NULL), 0);
    ck_assert(!keeps);
    begin(lineage);
    write_at(5);
    for (unsigned i = 0; i < 3; i++) {
        try_other();
        write_at(10 + i);
        ck_assert(is_kept(lineage) && lineage_in_file() == lineage[0]);
        ck_assert(is_marked(5) && is_marked(10 + i) && !is_marked(100));
        ck_assert_uint_le(marks_in_file(), 20);
    }
    end(); /* whatever dies here */
    ck_assert_int_lt(access(rig_path(FOLDER_CHANGES ".new"), F_OK), 0);
    open_disk();
    create("ours");
    ck_assert_int_eq(changes_load(t.changes, NULL), 0);
    ck_assert(is_kept(lineage) && is_marked(5) && is_marked(12) && !is_marked(100));
    try_other();
    ck_assert_int_eq(changes_place(t.changes, NULL), 0);
    ck_assert_int_eq(lineage_in_file(), other[0]);
    ck_assert_uint_eq(marks_in_file(), REGIONS);
    ck_assert_int_eq(changes_switch(t.changes, NULL), 0);
    ck_assert(is_kept(other) && is_marked(100));
    changes_cut(t.changes, 7, true);
    expect_forgotten(7, 100);
}
END_TEST

/* Linux tells it once: whoever begins afterwards would not hear of it. The thread has, or has not,
 * ended the old lineage by then. */
START_TEST(a_flush_that_fails_meanwhile_ends_the_new_one_too)
{
    uint64_t until = clock_monotonic_ns() + 20000000000ull;
    use_fake_disk();
    try_other();
    fake.fail = -EIO;
    fake.fail_op = DISK_FLUSH;
    t.request = (struct disk_request){.op = DISK_FLUSH, .done = handle_failed};
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
    while (_i == 1 && is_kept(lineage) && clock_monotonic_ns() < until)
        settle();
    ck_assert(_i == 0 || !is_kept(lineage));
    ck_assert_int_eq(changes_place(t.changes, NULL), 0);
    ck_assert_int_eq(changes_switch(t.changes, NULL), 0);
    while (is_kept(other) && clock_monotonic_ns() < until)
        settle();
    ck_assert(!is_kept(other));
    fake.fail = 0;
    expect_nothing_forgotten(lineage);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("changes_lineage");
    TCase *tcase = tcase_create("all");
    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, a_flush_that_fails_ends_the_lineage, 0, 3);
    tcase_add_loop_test(tcase, a_flush_that_fails_before_a_lineage_spoils_it, 0, 2);
    tcase_add_test(tcase, a_flush_that_fails_at_the_end_ends_the_lineage);
    tcase_add_test(tcase, of_a_new_lineage_all_is_marked_until_both_have_it);
    tcase_add_test(tcase, what_is_under_way_at_the_end_of_a_lineage);
    tcase_add_test(tcase, a_disk_that_comes_back_is_followed_again);
    tcase_add_test(tcase, the_old_lineage_is_kept_until_the_new_one_takes_its_place);
    tcase_add_loop_test(tcase, a_flush_that_fails_meanwhile_ends_the_new_one_too, 0, 2);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
