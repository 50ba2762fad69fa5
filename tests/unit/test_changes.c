/* SPDX-License-Identifier: MIT */
/* What a VM notes of its disks' changes is on stable storage before the change is made, and what
 * does not fit counts for nothing. */
#include "tests/unit/changes_rig.h"

#include <sys/resource.h>

/* --- marks ------------------------------------------------------------------------------------ */

START_TEST(each_kind_of_change_is_marked_and_nothing_else)
{
    begin(lineage);
    act(DISK_READ, 3 * REGION, BLOCK);
    act(DISK_FLUSH, 0, 0);
    ck_assert_uint_eq(changes_bytes(t.changes), 0);
    write_at(5);
    act(DISK_DISCARD, 10 * REGION, 2 * REGION);
    act(DISK_ZEROES, 20 * REGION - BLOCK, 2 * BLOCK);
    for (unsigned region = 0; region < REGIONS; region++)
        ck_assert_int_eq(is_marked(region), region == 5 || region == 10 || region == 11 ||
                                                region == 19 || region == 20);
    ck_assert_uint_eq(changes_bytes(t.changes), 5 * REGION);
}
END_TEST

START_TEST(without_a_lineage_nothing_is_noted)
{
    uint8_t found[CHANGES_LINEAGE];
    struct err err = {0};
    ck_assert_int_eq(changes_load(t.changes, &err), 0);
    write_at(5);
    ck_assert(!changes_lineage(t.changes, found));
    begin(lineage);
    write_at(6);
    ck_assert(changes_lineage(t.changes, found));
    ck_assert_mem_eq(found, lineage, sizeof(lineage));
    begin(other); /* what the old one noted is gone */
    ck_assert(!is_marked(6));
    write_at(7);
    changes_drop(t.changes);
    ck_assert(!changes_lineage(t.changes, found));
    ck_assert_int_lt(access(rig_path(FOLDER_CHANGES), F_OK), 0);
    write_at(8);
}
END_TEST

static bool keep_none(void)
{
    return false;
}

static bool keep_some(void)
{
    return roll(2);
}

static void check_marks(int folder, size_t point)
{
    struct changes_head head;
    struct err err = {0};
    uint64_t *bits;
    int fd = changes_file_open(folder, &head, &bits, &err);
    ck_assert_msg(fd >= 0, "at %zu: %s", point, err.text);
    for (unsigned i = 0; i < t.count; i++) {
        const struct passed *passed = &t.passed[i];
        bool marked = bits[passed->region / 64] >> passed->region % 64 & 1;
        ck_assert_msg(marked || passed->at > point,
                      "at %zu: region %u is not marked, and was written to at %zu", point,
                      (unsigned)passed->region, passed->at);
    }
    free(bits);
    close(fd);
}

/* Its bit comes before it: from the moment on at which a write passes, whatever a power cut leaves
 * of the file has it. */
START_TEST(a_mark_is_on_stable_storage_before_its_write)
{
    begin(lineage);
    write_at(150); /* this one is in the file before */
    changes_cut(t.changes, 1, false);
    expect_forgotten(1, 150);
    t.count = 0;
    cut_start(rig_path(FOLDER_CHANGES));
    write_at(150);
    for (unsigned i = 0; i < 60; i++)
        write_at(i % 3 ? roll(REGIONS) : i);
    changes_quiet(t.changes);
    cut.on = false;
    ck_assert_uint_ge(t.count, 60);
    ck_assert_int_eq(mkdir(rig_path("cut"), 0700), 0);
    int folder = open(rig_path("cut"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool (*const keeps[])(void) = {keep_none, keep_some, cut_keep};
    for (size_t point = 0; point <= cut.count; point++) {
        for (unsigned i = 0; i < array_size(keeps); i++) {
            cut_make(rig_path("cut/" FOLDER_CHANGES), point, true, keeps[i]);
            check_marks(folder, point);
        }
    }
    close(folder);
    cut_finish();
}
END_TEST

START_TEST(who_writes_in_order_finds_marks_ahead)
{
    begin(lineage);
    cut_start(rig_path(FOLDER_CHANGES));
    for (unsigned region = 0; region < 64; region++)
        write_at(region);
    changes_quiet(t.changes);
    size_t writes = cut_now() / 2; /* each with its sync */
    cut.on = false;
    ck_assert_uint_lt(writes, 32);
    cut_finish();
}
END_TEST

/* --- forgetting ------------------------------------------------------------------------------- */

START_TEST(what_the_twin_has_is_forgotten_unless_it_was_written_again)
{
    begin(lineage);
    write_at(1);
    write_at(90);
    changes_cut(t.changes, 7, false);
    write_at(2);
    write_at(90);
    stored(6);
    ck_assert(is_marked(1));
    changes_cut(t.changes, 8, false); /* does not count: the first is not stored yet */
    write_at(3);
    expect_forgotten(7, 1);
    ck_assert(is_marked(2) && is_marked(3) && is_marked(90));
    stored(8);
    ck_assert(is_marked(2));
    changes_cut(t.changes, 9, false);
    expect_forgotten(20, 2);
    ck_assert_uint_eq(changes_bytes(t.changes), 0);
    write_at(1);
    changes_cut(t.changes, 21, false);
    write_at(100);
    changes_cut(t.changes, 22, true); /* a twin that is whole as of now */
    stored(21);
    ck_assert(is_marked(1) && is_marked(100));
    expect_forgotten(22, 1);
    ck_assert_uint_eq(changes_bytes(t.changes), 0);
}
END_TEST

/* A guest writes again where it has just written: its file says so all the while. */
START_TEST(what_was_written_lately_is_not_waited_for_again)
{
    enum { LONG = 150 };
    begin(lineage);
    write_at(5);
    write_at(90);
    changes_cut(t.changes, 1, false);
    expect_forgotten(1, 5);
    ck_assert(changes_bytes(t.changes) == 0 && marks_in_file() == 2);
    cut_start(rig_path(FOLDER_CHANGES));
    write_at(5);
    ck_assert_uint_eq(cut_now(), 0);
    ck_assert(is_marked(5) && !is_marked(90));
    for (unsigned epoch = 2; epoch < LONG; epoch++) {
        write_at(5);
        changes_cut(t.changes, epoch, false);
        expect_forgotten(epoch, 5);
    }
    uint64_t until = clock_monotonic_ns() + 20000000000ull;
    while (marks_in_file() > 1 && clock_monotonic_ns() < until)
        settle();
    ck_assert_uint_eq(marks_in_file(), 1);
    changes_quiet(t.changes);
    cut.on = false;
    ck_assert_uint_le(cut_now() / 2, 2); /* 90 went out */
    cut_finish();
}
END_TEST

/* The twin may have what is not on our own disk yet. */
START_TEST(what_is_under_way_here_is_not_forgotten)
{
    begin(lineage);
    write_at(1);
    t.iov = (struct iovec){t.bytes, BLOCK};
    t.request = (struct disk_request){.op = DISK_WRITE,
                                      .offset = REGION,
                                      .length = BLOCK,
                                      .iov = &t.iov,
                                      .iov_count = 1,
                                      .done = handle_done};
    t.done = false;
    disk_submit(t.disk, &t.request); /* without a kick: it has passed, and is not done */
    changes_cut(t.changes, 1, false);
    changes_note_stored(t.changes, 1);
    settle();
    ck_assert(!t.done && is_marked(1));
    disk_kick(t.disk);
    while (!t.done)
        ck_assert_int_eq(loop_run(t.loop), 0);
    expect_forgotten(1, 1);
}
END_TEST

/* One that was asked for before a later cut says nothing of what that has. */
START_TEST(an_old_flush_does_not_count)
{
    begin(lineage);
    write_at(1);
    changes_cut(t.changes, 1, false);
    changes_note_stored(t.changes, 1); /* asked for, and has had no turn */
    changes_cut(t.changes, 2, true);
    settle();
    settle();
    ck_assert(is_marked(1));
    expect_forgotten(2, 1);
}
END_TEST

/* --- what counts for nothing ------------------------------------------------------------------ */

static bool loads(const char *uuid)
{
    uint8_t found[CHANGES_LINEAGE];
    struct err err = {0};
    open_disk();
    create(uuid);
    ck_assert_msg(changes_load(t.changes, &err) == 0, "%s", err.text);
    bool there = changes_lineage(t.changes, found);
    ck_assert_int_eq(there, access(rig_path(FOLDER_CHANGES), F_OK) == 0);
    return there;
}

static void run_once(void)
{
    begin(lineage);
    write_at(50);
    end();
}

START_TEST(the_next_run_goes_on)
{
    run_once();
    ck_assert(loads("ours"));
    ck_assert(is_marked(50));
    write_at(60);
    end();
    ck_assert(loads("ours"));
    ck_assert(is_marked(50) && is_marked(60) && !is_marked(55));
}
END_TEST

START_TEST(of_another_vm)
{
    run_once();
    ck_assert(!loads("another"));
}
END_TEST

START_TEST(a_disk_that_was_written_to_meanwhile)
{
    run_once();
    int fd = open(rig_path("disk.img"), O_RDWR | O_CLOEXEC);
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    ck_assert_int_eq(futimens(fd, times), 0);
    close(fd);
    ck_assert(!loads("ours"));
}
END_TEST

START_TEST(a_disk_that_was_replaced)
{
    run_once();
    int fd = open(rig_path("new.img"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(ftruncate(fd, (off_t)(REGIONS * REGION)), 0);
    close(fd);
    ck_assert_int_eq(rename(rig_path("new.img"), rig_path("disk.img")), 0);
    ck_assert(!loads("ours"));
}
END_TEST

START_TEST(a_disk_that_has_grown)
{
    run_once();
    ck_assert_int_eq(truncate(rig_path("disk.img"), (off_t)((REGIONS + 1) * REGION)), 0);
    ck_assert(!loads("ours"));
}
END_TEST

/* Whatever is wrong with the file: no byte of the head may change, and it has its length. */
START_TEST(a_damaged_file)
{
    uint8_t bytes[CHANGES_HEAD];
    struct changes_head head;
    uint64_t *bits;
    struct err err = {0};
    run_once();
    int fd = open(rig_path(FOLDER_CHANGES), O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    for (unsigned i = 0; i < 8 + 16 + 16 + 8 + 40 + 4; i++) {
        uint8_t changed = bytes[i] ^ (uint8_t)(1 + roll(255));
        ck_assert_int_eq(pwrite(fd, &changed, 1, i), 1);
        ck_assert_int_eq(changes_file_open(t.folder, &head, &bits, &err), -ESTALE);
        ck_assert_int_eq(pwrite(fd, &bytes[i], 1, i), 1);
    }
    struct stat stat;
    ck_assert_int_eq(fstat(fd, &stat), 0);
    for (off_t size = 0; size < stat.st_size; size += 1 + (off_t)roll(300)) {
        ck_assert_int_eq(truncate(rig_path(FOLDER_CHANGES), size), 0);
        ck_assert_int_eq(changes_file_open(t.folder, &head, &bits, &err), -ESTALE);
    }
    close(fd);
    ck_assert(!loads("ours"));
}
END_TEST

START_TEST(what_is_no_plain_file)
{
    struct err err = {0};
    if (_i == 0)
        ck_assert_int_eq(mkdir(rig_path(FOLDER_CHANGES), 0700), 0);
    else if (_i == 1)
        ck_assert_int_eq(symlink("disk.img", rig_path(FOLDER_CHANGES)), 0);
    else
        ck_assert_int_eq(mkfifo(rig_path(FOLDER_CHANGES), 0600), 0);
    ck_assert_int_eq(changes_file_check(t.folder, "web1", &err), 0);
    ck_assert_int_eq(err.kind, ERR_NONE);
    end();
    if (_i > 0)
        ck_assert(!loads("ours"));
}
END_TEST

static void mix(void)
{
    struct changes_head head;
    uint64_t *bits;
    struct err err = {0};
    int fd = changes_file_open(t.folder, &head, &bits, &err);
    head.flags |= CHANGES_MIXED;
    ck_assert_int_eq(changes_file_write_head(fd, &head), 0);
    free(bits);
    close(fd);
}

START_TEST(a_mix_does_not_run)
{
    struct err err = {0};
    run_once();
    ck_assert_int_eq(changes_file_check(t.folder, "web1", &err), 0);
    mix();
    ck_assert_int_eq(changes_file_check(t.folder, "web1", &err), -ESTALE);
    open_disk();
    create("ours");
    ck_assert_int_eq(changes_load(t.changes, &err), -ESTALE);
    ck_assert(strstr(err.hint, "standby"));
    ck_assert_int_eq(access(rig_path(FOLDER_CHANGES), F_OK), 0);
}
END_TEST

/* --- failures --------------------------------------------------------------------------------- */

static int read_fails; /* errno; 0: it does not */

ssize_t pread(int fd, void *bytes, size_t length, off_t offset)
{
    errno = read_fails;
    return read_fails ? -1 : syscall(SYS_pread64, fd, bytes, length, offset);
}

static int next_descriptor(void)
{
    int fd = open("/", O_PATH | O_CLOEXEC);
    close(fd);
    return fd;
}

static void expect_unread(int error)
{
    struct err err = {0};
    ck_assert_int_eq(changes_file_check(t.folder, "web1", &err), -error);
    ck_assert_ptr_nonnull(strstr(err.text, "web1: cannot read " FOLDER_CHANGES));
    err = (struct err){0};
    ck_assert_int_eq(changes_load(t.changes, &err), -error);
    ck_assert_ptr_nonnull(strstr(err.text, "web1: cannot read " FOLDER_CHANGES));
    ck_assert_int_eq(access(rig_path(FOLDER_CHANGES), F_OK), 0);
}

START_TEST(a_note_whose_head_cannot_be_written_keeps_no_descriptor)
{
    struct err err = {0};
    run_once();
    open_disk();
    create("ours");
    cut_start(rig_path(FOLDER_CHANGES));
    cut.fail_percent = 100;
    int next = next_descriptor();
    ck_assert_int_eq(changes_load(t.changes, &err), -EIO);
    ck_assert_int_eq(next_descriptor(), next);
    cut.on = false;
    cut.fail_percent = 0;
    cut_finish();
}
END_TEST

/* It may say that the disks are a mix. */
START_TEST(a_note_that_cannot_be_read_just_now_stays)
{
    struct rlimit limit;
    run_once();
    mix();
    open_disk();
    create("ours");
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const struct rlimit none = {(rlim_t)next_descriptor(), limit.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    expect_unread(EMFILE);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    read_fails = ESTALE; /* NFS */
    expect_unread(EIO);
    read_fails = EIO;
    expect_unread(EIO);
    read_fails = 0;
    ck_assert_int_eq(changes_load(t.changes, NULL), -ESTALE);
}
END_TEST

START_TEST(a_note_that_cannot_be_written_ends_the_lineage_and_not_the_guest)
{
    uint8_t found[CHANGES_LINEAGE];
    begin(lineage);
    cut_start(rig_path(FOLDER_CHANGES));
    cut.fail_percent = 100;
    write_at(1);
    changes_quiet(t.changes);
    cut.on = false;
    cut.fail_percent = 0;
    ck_assert(!changes_lineage(t.changes, found));
    ck_assert_int_lt(access(rig_path(FOLDER_CHANGES), F_OK), 0);
    cut_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("changes");
    TCase *tcase = tcase_create("all");
    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, each_kind_of_change_is_marked_and_nothing_else);
    tcase_add_test(tcase, without_a_lineage_nothing_is_noted);
    tcase_add_test(tcase, a_mark_is_on_stable_storage_before_its_write);
    tcase_add_test(tcase, who_writes_in_order_finds_marks_ahead);
    tcase_add_test(tcase, what_the_twin_has_is_forgotten_unless_it_was_written_again);
    tcase_add_test(tcase, what_was_written_lately_is_not_waited_for_again);
    tcase_add_test(tcase, what_is_under_way_here_is_not_forgotten);
    tcase_add_test(tcase, an_old_flush_does_not_count);
    tcase_add_test(tcase, the_next_run_goes_on);
    tcase_add_test(tcase, of_another_vm);
    tcase_add_test(tcase, a_disk_that_was_written_to_meanwhile);
    tcase_add_test(tcase, a_disk_that_was_replaced);
    tcase_add_test(tcase, a_disk_that_has_grown);
    tcase_add_test(tcase, a_damaged_file);
    tcase_add_loop_test(tcase, what_is_no_plain_file, 0, 3);
    tcase_add_test(tcase, a_mix_does_not_run);
    tcase_add_test(tcase, a_note_that_cannot_be_read_just_now_stays);
    tcase_add_test(tcase, a_note_whose_head_cannot_be_written_keeps_no_descriptor);
    tcase_add_test(tcase, a_note_that_cannot_be_written_ends_the_lineage_and_not_the_guest);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
