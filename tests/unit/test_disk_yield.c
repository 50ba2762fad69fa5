/* SPDX-License-Identifier: MIT */
/* A disk that lets its image go, and has it again, raw and qcow2 alike. */
#include "host/disk_limit.h"
#include "host/disk_point.h"
#include "host/disk_yield.h"
#include "host/lock.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SIZE = 1 << 20, LENGTH = 4096 };

static const enum disk_format kinds[] = {DISK_FORMAT_RAW, DISK_FORMAT_QCOW2};

static struct {
    char folder[64], path[128];
    struct loop *loop;
    struct disk_config config;
    struct disk *disk;
    uint8_t buffer[LENGTH];
    int result;
} t;

static void handle_nothing(void *ctx)
{
}

static const struct disk_client client = {.begin = handle_nothing, .end = handle_nothing};

static int try(const char *command)
{
    char whole[300];
    snprintf(whole, sizeof(whole), "cd %s && %s", t.folder, command);
    return system(whole); /* NOLINT(cert-env33-c) */
}

static void shell(const char *command)
{
    ck_assert_int_eq(try(command), 0);
}

/* A qcow2 one stands on another. False: it cannot be made here. */
static bool make_image(enum disk_format format)
{
    bool raw = format == DISK_FORMAT_RAW;
    if (!raw && try("qemu-img --version >/dev/null 2>&1") != 0) {
        fprintf(stderr, "SKIPPED: qemu-img is missing (Debian: sudo apt install qemu-utils)\n");
        return false;
    }
    shell(raw ? "truncate -s 1M disk"
              : "truncate -s 1M base && qemu-img create -q -f qcow2 -b base -F raw disk");
    t.config = (struct disk_config){.path = t.path,
                                    .format = format,
                                    .backing = true,
                                    .point = true,
                                    .limits_may_change = true};
    return true;
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    snprintf(t.folder, sizeof(t.folder), "/var/tmp/minivmm-yield-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(t.folder));
    snprintf(t.path, sizeof(t.path), "%s/disk", t.folder);
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
}

static void open_disk(struct disk **ret_disk)
{
    struct err err = {0};
    ck_assert_msg(disk_open(ret_disk, &t.config, &err) == 0, "%s", err.text);
    ck_assert_int_eq(disk_attach(*ret_disk, t.loop, &client, &err), 0);
}

static void close_disk(struct disk *disk)
{
    if (!disk)
        return;
    disk_drain(disk);
    disk_detach(disk);
    disk_destroy(disk);
}

static void tear_down(void)
{
    close_disk(t.disk);
    loop_destroy(t.loop);
    shell("rm -f disk base other && rmdir ../$(basename $PWD)");
}

static void handle_done(struct disk_request *request, int result)
{
    t.result = result;
}

static void transfer(struct disk *disk, enum disk_op op, uint64_t offset)
{
    struct iovec iov = {.iov_base = t.buffer, .iov_len = LENGTH};
    struct disk_request request = {.op = op,
                                   .offset = offset,
                                   .length = LENGTH,
                                   .iov = &iov,
                                   .iov_count = 1,
                                   .done = handle_done};
    t.result = 1;
    disk_submit(disk, &request);
    disk_kick(disk);
    disk_drain(disk);
    ck_assert_int_eq(t.result, 0);
}

static void put(struct disk *disk, uint64_t offset, uint8_t byte)
{
    memset(t.buffer, byte, LENGTH);
    transfer(disk, DISK_WRITE, offset);
}

static void expect(struct disk *disk, uint64_t offset, uint8_t byte)
{
    memset(t.buffer, ~byte, LENGTH);
    transfer(disk, DISK_READ, offset);
    for (size_t i = 0; i < LENGTH; i++)
        ck_assert_uint_eq(t.buffer[i], byte);
}

static bool is_locked(void)
{
    int fd = open(t.path, O_RDONLY | O_CLOEXEC);
    bool held = lock_is_held(fd);
    close(fd);
    return held;
}

START_TEST(two_take_turns_and_see_what_the_other_one_wrote)
{
    struct disk *other;
    if (!make_image(kinds[_i]))
        return;
    open_disk(&t.disk);
    t.config.absent = true;
    open_disk(&other);
    ck_assert(disk_is_yielded(other) && !disk_is_yielded(t.disk));
    struct disk *turn = t.disk, *rest = other;
    for (unsigned i = 0; i < 10; i++) {
        put(turn, i * 65536, (uint8_t)(i + 1));
        put(turn, 15 * 65536, (uint8_t)(i + 1));
        ck_assert_int_eq(disk_regain(rest, NULL), -EBUSY); /* as long as it is not let go */
        ck_assert(disk_is_yielded(rest) && is_locked());
        ck_assert_int_eq(disk_yield(turn, NULL), 0);
        ck_assert(disk_is_yielded(turn) && !is_locked() && disk_point_image(turn) == -1);
        disk_cancel(turn);
        disk_kick(turn);
        disk_drain(turn);
        ck_assert_int_eq(disk_regain(rest, NULL), 0);
        ck_assert(!disk_is_yielded(rest) && is_locked() && disk_point_image(rest) >= 0);
        for (unsigned j = 0; j <= i; j++)
            expect(rest, j * 65536, (uint8_t)(j + 1));
        expect(rest, 15 * 65536, (uint8_t)(i + 1));
        struct disk *swap = turn;
        turn = rest;
        rest = swap;
    }
    ck_assert_int_eq(disk_yield(turn, NULL), 0);
    ck_assert_int_eq(disk_yield(rest, NULL), 0); /* which has it not */
    if (kinds[_i] == DISK_FORMAT_QCOW2)
        shell("qemu-img check -q disk");
    close_disk(other);
}
END_TEST

START_TEST(who_only_looks_locks_nothing_and_changes_nothing)
{
    struct stat before, after;
    char value[8];
    if (!make_image(kinds[_i]))
        return;
    t.config.format = DISK_FORMAT_ANY;
    t.config.absent = true;
    ck_assert_int_eq(stat(t.path, &before), 0);
    open_disk(&t.disk);
    ck_assert(!is_locked());
    ck_assert_int_eq(stat(t.path, &after), 0);
    ck_assert(before.st_ctim.tv_nsec == after.st_ctim.tv_nsec &&
              before.st_ctim.tv_sec == after.st_ctim.tv_sec);
    ck_assert_int_lt(getxattr(t.path, "user.minivmm.format", value, sizeof(value)), 0);
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    ck_assert_uint_eq(t.disk->info.format, kinds[_i]);
    ck_assert(!t.disk->info.readonly && t.disk->info.discard);

    struct disk_info looked = t.disk->info;
    close_disk(t.disk);
    t.config.absent = false;
    open_disk(&t.disk);
    ck_assert_mem_eq(&looked, &t.disk->info, sizeof(looked)); /* a guest sees no difference */
}
END_TEST

START_TEST(who_looks_says_what_is_missing)
{
    struct err err = {0};
    if (!make_image(kinds[_i]))
        return;
    t.config.absent = true;
    shell(kinds[_i] == DISK_FORMAT_RAW ? "rm disk" : "rm base");
    ck_assert_int_eq(disk_open(&t.disk, &t.config, &err), -ENOENT);
    ck_assert_msg(strstr(err.text, kinds[_i] == DISK_FORMAT_RAW ? t.path : "/base"), "%s",
                  err.text);
    ck_assert_ptr_null(t.disk);
}
END_TEST

START_TEST(another_image_is_not_taken_for_the_one_that_was_let_go)
{
    struct err err = {0};
    if (!make_image(kinds[_i]))
        return;
    open_disk(&t.disk);
    put(t.disk, 0, 7);
    ck_assert_int_eq(disk_yield(t.disk, NULL), 0);
    shell(kinds[_i] == DISK_FORMAT_RAW ? "cp disk other; truncate -s 2M disk"
                                       : "cp disk other; qemu-img resize -q disk 2M");
    ck_assert_int_eq(disk_regain(t.disk, &err), -ESTALE);
    ck_assert_msg(strstr(err.text, t.path), "%s", err.text);
    ck_assert(disk_is_yielded(t.disk) && !is_locked());
    shell("rm disk");
    ck_assert_int_eq(disk_regain(t.disk, &err), -ENOENT);
    shell("mv other disk");
    ck_assert_int_eq(disk_regain(t.disk, &err), 0);
    expect(t.disk, 0, 7);
}
END_TEST

START_TEST(limits_stay)
{
    if (!make_image(kinds[_i]))
        return;
    open_disk(&t.disk);
    const struct limits limits = {.operations = 1000000};
    ck_assert_int_eq(disk_yield(t.disk, NULL), 0);
    ck_assert_int_eq(disk_set_limits(t.disk, &limits), 0);
    ck_assert_int_eq(disk_regain(t.disk, NULL), 0);
    put(t.disk, 4096, 9);
    expect(t.disk, 4096, 9);
}
END_TEST

START_TEST(a_disk_without_one_cannot_be_let_go)
{
    struct err err = {0};
    ck_assert(make_image(DISK_FORMAT_RAW));
    t.config.point = false;
    open_disk(&t.disk);
    ck_assert_int_eq(disk_yield(t.disk, &err), -ENOTSUP);
    ck_assert(!disk_is_yielded(t.disk) && is_locked());
    close_disk(t.disk);
    t.config.point = t.config.readonly = t.config.absent = true; /* it is nobody's alone */
    open_disk(&t.disk);
    ck_assert(!disk_is_yielded(t.disk) && is_locked());
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("disk_yield");
    TCase *tcase = tcase_create("disk_yield");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, two_take_turns_and_see_what_the_other_one_wrote, 0, 2);
    tcase_add_loop_test(tcase, who_only_looks_locks_nothing_and_changes_nothing, 0, 2);
    tcase_add_loop_test(tcase, who_looks_says_what_is_missing, 0, 2);
    tcase_add_loop_test(tcase, another_image_is_not_taken_for_the_one_that_was_let_go, 0, 2);
    tcase_add_loop_test(tcase, limits_stay, 0, 2);
    tcase_add_test(tcase, a_disk_without_one_cannot_be_let_go);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(suite());
}
