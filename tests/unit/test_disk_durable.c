/* SPDX-License-Identifier: MIT */
/* Raw disks: what is said to be on stable storage is there, with both engines. A power cut of a
 * process loses nothing that it has written, so no other test sees a flush that is none. */
#include "host/disk_file.h"
#include "tests/unit/unit.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const enum disk_engine engines[] = {DISK_ENGINE_URING, DISK_ENGINE_THREADS};

static struct {
    struct loop *loop;
    struct disk *disk;
    int result;
} t;

static void handle_batch(void *ctx)
{
}

static void handle_done(struct disk_request *request, int result)
{
    t.result = result;
}

static int run(enum disk_op op, void *bytes, uint64_t length)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = length};
    struct disk_request request = {
        .op = op, .length = length, .iov = &iov, .iov_count = 1, .done = handle_done};

    t.result = -EINPROGRESS;
    disk_submit(t.disk, &request);
    disk_drain(t.disk);
    return t.result;
}

static void attach(void)
{
    static const struct disk_client client = {.begin = handle_batch, .end = handle_batch};

    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
}

static void finish(void)
{
    disk_detach(t.disk);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
}

/* An eventfd takes bytes, and has nothing to be synchronized: the kernel says so to whoever asks.
 */
START_TEST(a_flush_is_the_hosts_and_its_failure_is_told)
{
    struct disk_file file = {.fd = eventfd(0, EFD_CLOEXEC)};

    ck_assert_int_ge(file.fd, 0);
    file.info = (struct disk_info){.size = 1 << 20, .block_size = 512, .optimal_size = 4096};
    ck_assert_int_eq(disk_file_start(&t.disk, &file, engines[_i], NULL), 0);
    attach();
    ck_assert_int_eq(run(DISK_FLUSH, NULL, 0), -EINVAL);
    finish();
}
END_TEST

/* The flags of the descriptor that this process has for the file. */
static int flags_of(const char *path)
{
    char name[300], target[256];
    struct dirent *entry;
    DIR *all = opendir("/proc/self/fd");
    int flags = -1;

    ck_assert_ptr_nonnull(all);
    while ((entry = readdir(all))) {
        snprintf(name, sizeof(name), "/proc/self/fd/%s", entry->d_name);
        ssize_t length = readlink(name, target, sizeof(target));
        if (length > 0 && (size_t)length == strlen(path) && memcmp(target, path, strlen(path)) == 0)
            flags = fcntl((int)strtol(entry->d_name, NULL, 10), F_GETFL);
    }
    closedir(all);
    return flags;
}

START_TEST(only_writes_that_go_through_are_synchronized_by_the_host)
{
    char path[] = "/tmp/minivmm-durable-XXXXXX", bytes[512] = {1};
    int fd = mkstemp(path);

    ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    for (int through = 0; through < 2; through++) {
        struct disk_config config = {.path = path, .engine = engines[_i], .write_through = through};
        ck_assert_int_eq(disk_open(&t.disk, &config, NULL), 0);
        ck_assert_int_eq((flags_of(path) & O_DSYNC) != 0, through);
        attach();
        ck_assert_int_eq(run(DISK_WRITE, bytes, sizeof(bytes)), 0);
        finish();
    }
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk durable");
    TCase *tc = tcase_create("disk durable");

    tcase_add_loop_test(tc, a_flush_is_the_hosts_and_its_failure_is_told, 0, array_size(engines));
    tcase_add_loop_test(tc, only_writes_that_go_through_are_synchronized_by_the_host, 0,
                        array_size(engines));
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
