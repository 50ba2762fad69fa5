/* SPDX-License-Identifier: MIT */
#include "host/tree.h"

#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    char path[64];
    int fd;
} box;

static void set_up(void)
{
    const char *where = getenv("TMPDIR");
    snprintf(box.path, sizeof(box.path), "%s/minivmm-tree-XXXXXX", where ? where : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(box.path));
    box.fd = open(box.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(box.fd, 0);
}

static void tear_down(void)
{
    ck_assert_int_eq(tree_empty(box.fd, NULL, NULL), 0);
    close(box.fd);
    ck_assert_int_eq(rmdir(box.path), 0);
}

static void make_folder(const char *name)
{
    ck_assert_int_eq(mkdirat(box.fd, name, 0755), 0);
}

static void make_file(const char *name, size_t size)
{
    char bytes[4096] = "x";
    int fd = openat(box.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    for (size_t at = 0; at < size; at += sizeof(bytes))
        ck_assert_int_eq(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    ck_assert_int_eq(fsync(fd), 0); /* until then some file systems have no blocks for it */
    close(fd);
}

static bool is_there(const char *name)
{
    return faccessat(box.fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

START_TEST(a_tree_goes_as_a_whole_and_nothing_else_does)
{
    make_folder("web1");
    make_folder("web1/snapshots");
    make_folder("web1/snapshots/one");
    make_folder("other");
    make_file("web1/vm.json", 4096);
    make_file("web1/snapshots/one/memory", 8192);
    make_file("other/precious", 4096);
    ck_assert_int_eq(symlinkat("../other", box.fd, "web1/link"), 0);
    ck_assert_int_eq(symlinkat("../other/precious", box.fd, "web1/snapshots/file"), 0);
    ck_assert_int_eq(mkfifoat(box.fd, "web1/pipe", 0600), 0);
    ck_assert_int_eq(tree_remove(box.fd, "web1", NULL), 0);
    ck_assert(!is_there("web1"));
    ck_assert(is_there("other/precious"));
}
END_TEST

START_TEST(a_link_to_a_folder_is_removed_as_a_link)
{
    make_folder("web1");
    make_file("web1/vm.json", 4096);
    ck_assert_int_eq(symlinkat("web1", box.fd, "link"), 0);
    ck_assert_int_eq(tree_remove(box.fd, "link", NULL), 0);
    ck_assert(!is_there("link"));
    ck_assert(is_there("web1/vm.json"));
}
END_TEST

START_TEST(what_would_be_free_is_counted)
{
    struct tree_size size;
    make_folder("web1");
    make_folder("web1/snapshots");
    make_file("web1/disk.img", 65536);
    make_file("web1/snapshots/memory", 32768);
    make_file("shared", 65536);
    ck_assert_int_eq(linkat(box.fd, "shared", box.fd, "web1/shared", 0), 0);
    int sparse = openat(box.fd, "web1/sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_eq(ftruncate(sparse, 1ll << 34), 0);
    close(sparse);
    ck_assert_int_eq(tree_measure(box.fd, "web1", &size, NULL), 0);
    ck_assert_uint_eq(size.files, 4);
    ck_assert_uint_ge(size.bytes, 65536 + 32768);
    ck_assert_uint_lt(size.bytes, 65536 + 32768 + 65536);
    ck_assert(is_there("web1/snapshots/memory"));
}
END_TEST

START_TEST(an_entry_can_be_kept)
{
    make_folder("web1");
    make_file("web1/keep", 0);
    make_file("web1/disk.img", 0);
    make_folder("web1/keeper");
    make_folder("web1/keeper/keep");
    int fd = openat(box.fd, "web1", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(tree_empty(fd, "keep", NULL), 0);
    close(fd);
    ck_assert(is_there("web1/keep"));
    ck_assert(!is_there("web1/disk.img"));
    ck_assert(!is_there("web1/keeper"));
}
END_TEST

START_TEST(what_is_mounted_in_it_stays)
{
    struct err err = {0};
    struct tree_size size;
    char path[128];

    make_folder("other");
    make_file("other/precious", 0);
    make_folder("web1");
    make_folder("web1/mnt");
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        fprintf(stderr, "SKIPPED: to mount something takes root\n");
        return;
    }
    close(box.fd); /* it leads to where nothing is mounted */
    box.fd = open(box.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* The same file system, so the device number tells nothing. */
    char other[128];
    snprintf(other, sizeof(other), "%s/other", box.path);
    snprintf(path, sizeof(path), "%s/web1/mnt", box.path);
    ck_assert_int_eq(mount(other, path, NULL, MS_BIND, NULL), 0);
    ck_assert_int_eq(tree_measure(box.fd, "web1", &size, &err), -EXDEV);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, "mnt"));
    ck_assert_int_lt(tree_remove(box.fd, "web1", NULL), 0);
    ck_assert(is_there("other/precious"));
    ck_assert_int_eq(umount2(path, MNT_DETACH), 0);
}
END_TEST

START_TEST(a_tree_that_is_too_deep_is_no_crash)
{
    char path[1024] = "a";
    struct err err = {0};
    make_folder(path);
    for (unsigned i = 0; i < 100; i++) {
        strcat(path, "/a");
        make_folder(path);
    }
    ck_assert_int_eq(tree_remove(box.fd, "a", &err), -ELOOP);
    /* From the middle on it is not. */
    path[2 * 50 + 1] = '\0';
    ck_assert_int_eq(tree_remove(box.fd, path, NULL), 0);
}
END_TEST

START_TEST(a_name_that_is_taken_is_not_taken_away)
{
    struct err err = {0};
    make_folder("web1");
    make_folder("web2"); /* empty: a plain rename would replace it */
    make_file("web1/vm.json", 0);
    ck_assert_int_eq(tree_move(box.fd, "web1", box.fd, "web2", &err), -EEXIST);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert(is_there("web1/vm.json"));
    ck_assert_int_eq(tree_move(box.fd, "web1", box.fd, "web3", NULL), 0);
    ck_assert(is_there("web3/vm.json"));
    ck_assert_int_lt(tree_move(box.fd, "web1", box.fd, "web4", &err), 0);
}
END_TEST

START_TEST(what_is_gone_already_is_no_error)
{
    struct tree_size size;
    ck_assert_int_eq(tree_remove(box.fd, "nothing", NULL), 0);
    ck_assert_int_eq(tree_measure(box.fd, "nothing", &size, NULL), 0);
    ck_assert_uint_eq(size.files, 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("tree");
    TCase *tests = tcase_create("trees");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_tree_goes_as_a_whole_and_nothing_else_does);
    tcase_add_test(tests, a_link_to_a_folder_is_removed_as_a_link);
    tcase_add_test(tests, what_would_be_free_is_counted);
    tcase_add_test(tests, an_entry_can_be_kept);
    tcase_add_test(tests, what_is_mounted_in_it_stays);
    tcase_add_test(tests, a_tree_that_is_too_deep_is_no_crash);
    tcase_add_test(tests, a_name_that_is_taken_is_not_taken_away);
    tcase_add_test(tests, what_is_gone_already_is_no_error);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
