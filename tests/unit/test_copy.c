/* SPDX-License-Identifier: MIT */
/*
 * Copies of files, in a folder of their own. Tests that need another file system mount one in a
 * mount namespace of their own, and say so where they may not.
 */
#include "core/clock.h"
#include "host/copy.h"
#include "tests/unit/unit.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KIB = 1 << 10, MIB = 1 << 20, MAX_EXTENTS = 64 };

static struct {
    char path[64];
    int folder;
    struct err err;
    unsigned told, refuse_at; /* the tell that says no; 0: none */
    uint64_t last;
    uint64_t shorten; /* at the first tell the source becomes that long */
    unsigned files_meanwhile;
} t;

static void set_up(void)
{
    const char *folder = getenv("TMPDIR");

    memset(&t, 0, sizeof(t));
    snprintf(t.path, sizeof(t.path), "%s/minivmm-copy-XXXXXX",
             folder && strlen(folder) < 32 ? folder : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(t.path));
    t.folder = open(t.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(t.folder, 0);
}

/* Says how many files there are, and removes them if that is wanted. */
static unsigned files(int folder, bool remove)
{
    DIR *dir = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    unsigned count = 0;

    ck_assert_ptr_nonnull(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (remove)
            ck_assert_int_eq(unlinkat(folder, entry->d_name, 0), 0);
    }
    closedir(dir);
    return count;
}

static void tear_down(void)
{
    files(t.folder, true);
    close(t.folder);
    ck_assert_int_eq(rmdir(t.path), 0);
}

/* True: this test has its own mounts from now on, and they go with its process. */
static bool may_mount(void)
{
    if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        return true;
    printf("SKIPPED: no right to mount\n");
    return false;
}

/* A file system over the folder, in an image beside it. */
static bool mount_image(const char *mkfs)
{
    char command[512];

    snprintf(command, sizeof(command),
             "truncate -s 400M %s.img && %s %s.img >/dev/null 2>&1 && mount -o loop %s.img %s",
             t.path, mkfs, t.path, t.path, t.path);
    int r = system(command); /* NOLINT(cert-env33-c) */
    snprintf(command, sizeof(command), "%s.img", t.path);
    unlink(command); /* it lives as long as it is mounted */
    if (r != 0) {
        printf("SKIPPED: %s, or its mount, does not work here\n", mkfs);
        return false;
    }
    close(t.folder);
    t.folder = open(t.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(t.folder, 0);
    return true;
}

static void unmount_image(void)
{
    close(t.folder);
    ck_assert_int_eq(umount2(t.path, MNT_DETACH), 0);
    t.folder = open(t.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        bytes[i] = (uint8_t)(seed >> 56 | 1); /* no zeroes among them */
    }
}

static int make_file(const char *name, uint64_t size)
{
    int fd = openat(t.folder, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void put(int fd, uint64_t at, size_t length)
{
    uint8_t *bytes = malloc(length);
    ck_assert_ptr_nonnull(bytes);
    fill(bytes, length, at + 1);
    ck_assert_int_eq(pwrite(fd, bytes, length, (off_t)at), (ssize_t)length);
    free(bytes);
}

/* A file of data from its begin to its end. */
static void make_full(const char *name, uint64_t size)
{
    int fd = make_file(name, size);
    if (size)
        put(fd, 0, size);
    close(fd);
}

static void check_same(const char *one, const char *other)
{
    static uint8_t a[MIB], b[MIB];
    int fds[2] = {openat(t.folder, one, O_RDONLY), openat(t.folder, other, O_RDONLY)};
    ssize_t n;

    do {
        n = read(fds[0], a, sizeof(a));
        ck_assert_int_eq(read(fds[1], b, sizeof(b)), n);
        ck_assert_int_ge(n, 0);
        ck_assert_mem_eq(a, b, (size_t)n);
    } while (n > 0);
    close(fds[0]);
    close(fds[1]);
}

static struct stat stat_of(const char *name)
{
    struct stat stat;
    ck_assert_int_eq(fstatat(t.folder, name, &stat, AT_SYMLINK_NOFOLLOW), 0);
    return stat;
}

static bool handle_tell(void *ctx, uint64_t done, uint64_t total)
{
    ck_assert_uint_le(done, total);
    ck_assert_uint_ge(done, t.last);
    t.last = done;
    if (t.told++ == 0) {
        t.files_meanwhile = files(t.folder, false);
        if (t.shorten) {
            int fd = openat(t.folder, "from", O_RDWR | O_CLOEXEC);
            ck_assert_int_eq(ftruncate(fd, (off_t)t.shorten), 0);
            close(fd);
        }
    }
    return t.told != t.refuse_at;
}

static const struct copy_progress progress = {.tell = handle_tell};

static int copy(const char *from, const char *to, bool *ret_shared)
{
    return copy_file(t.folder, from, t.folder, to, &progress, ret_shared, &t.err);
}

static void check_good(int r)
{
    ck_assert_msg(r == 0, "%s", t.err.text);
}

START_TEST(a_copy_has_the_same_bytes_and_the_same_mode)
{
    static const struct {
        uint64_t size;
        mode_t mode;
    } cases[] = {{0, 0600}, {1, 0444}, {4095, 0640}, {MIB, 0755}, {5 * MIB + 777, 0400}};

    make_full("from", cases[_i].size);
    ck_assert_int_eq(fchmodat(t.folder, "from", cases[_i].mode, 0), 0);
    check_good(copy("from", "to", NULL));
    check_same("from", "to");
    ck_assert_uint_eq(stat_of("to").st_mode & 07777, cases[_i].mode);
    ck_assert_uint_eq(t.last, cases[_i].size);
    ck_assert_uint_ge(t.told, 1);
}
END_TEST

START_TEST(nobody_has_to_watch)
{
    char from[128], to[128];

    make_full("from", MIB);
    snprintf(from, sizeof(from), "%s/from", t.path);
    snprintf(to, sizeof(to), "%s/to", t.path);
    check_good(copy_file(AT_FDCWD, from, AT_FDCWD, to, NULL, NULL, NULL));
    check_same("from", "to");
}
END_TEST

struct extent {
    off_t begin, end;
};

static unsigned map_of(const char *name, struct extent *ret_extents)
{
    int fd = openat(t.folder, name, O_RDONLY);
    unsigned count = 0;

    for (off_t at = 0; (at = lseek(fd, at, SEEK_DATA)) >= 0 && count < MAX_EXTENTS; count++) {
        ret_extents[count].begin = at;
        at = ret_extents[count].end = lseek(fd, at, SEEK_HOLE);
    }
    close(fd);
    return count;
}

/* Data of odd places and lengths; `room` is there twice as often as it is used. */
static void make_sparse(const char *name, uint64_t room)
{
    int fd = make_file(name, 40 * room + 12345);
    for (unsigned i = 0; i < 40; i += 2)
        put(fd, i * room + 3, room - 5000 + i * 100);
    close(fd);
}

START_TEST(holes_stay_where_they_are)
{
    struct extent from[MAX_EXTENTS], to[MAX_EXTENTS];

    make_sparse("from", 256 * KIB);
    check_good(copy("from", "to", NULL));
    check_same("from", "to");
    unsigned count = map_of("from", from);
    ck_assert_uint_eq(map_of("to", to), count);
    ck_assert_uint_ge(count, 20);
    ck_assert_mem_eq(from, to, count * sizeof(from[0]));
    /* A few blocks are the file system's own. */
    ck_assert_int_le(stat_of("to").st_blocks, stat_of("from").st_blocks + 64);
}
END_TEST

START_TEST(a_hole_of_a_terabyte_takes_no_time)
{
    int fd = make_file("from", 1ull << 40);
    put(fd, 1ull << 39, 4 * KIB);
    close(fd);
    uint64_t before = clock_monotonic_ns();
    check_good(copy("from", "to", NULL));
    ck_assert_uint_lt(clock_monotonic_ns() - before, 20 * NS_PER_SEC);
    ck_assert_int_eq(stat_of("to").st_size, 1ll << 40);
    ck_assert_int_lt(stat_of("to").st_blocks, 1024);
}
END_TEST

START_TEST(zeroes_of_a_full_file_become_holes)
{
    static const uint8_t zeroes[8 * MIB];
    int fd = make_file("from", 0);

    ck_assert_int_eq(write(fd, zeroes, sizeof(zeroes)), sizeof(zeroes));
    put(fd, 3 * MIB + 64 * KIB, 10);
    put(fd, 5 * MIB - 10, 20);
    put(fd, 8 * MIB - 1, 1);
    close(fd);
    ck_assert_int_ge(stat_of("from").st_blocks, 8 * MIB / 512);
    check_good(copy("from", "to", NULL));
    check_same("from", "to");
    ck_assert_int_eq(stat_of("to").st_size, 8 * MIB);
    ck_assert_int_le(stat_of("to").st_blocks, 4 * 64 * KIB / 512 + 64);
}
END_TEST

START_TEST(a_block_device_is_read_to_its_end)
{
    char command[256], device[64] = "";

    make_sparse("from", 256 * KIB);
    int fd = openat(t.folder, "from", O_RDWR);
    ck_assert_int_eq(ftruncate(fd, 11 * MIB), 0);
    close(fd);
    snprintf(command, sizeof(command), "losetup -r -f --show %s/from 2>/dev/null", t.path);
    FILE *pipe = popen(command, "r"); /* NOLINT(cert-env33-c) */
    bool there = fgets(device, sizeof(device), pipe) != NULL;
    if (pclose(pipe) != 0 || !there) {
        printf("SKIPPED: no loop device\n");
        return;
    }
    device[strcspn(device, "\n")] = '\0';
    int r = copy_file(AT_FDCWD, device, t.folder, "to", &progress, NULL, &t.err);
    snprintf(command, sizeof(command), "losetup -d %s", device);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c) */
    check_good(r);
    check_same("from", "to");
    ck_assert_uint_eq(stat_of("to").st_mode & 0777, 0600);
    ck_assert_int_lt(stat_of("to").st_blocks, 20 * (256 + 128) * KIB / 512);
}
END_TEST

static void check_shared(const char *mkfs)
{
    bool shared = false;

    if (!may_mount() || !mount_image(mkfs))
        return;
    make_full("from", 16 * MIB);
    check_good(copy("from", "to", &shared));
    ck_assert(shared);
    check_same("from", "to");
    ck_assert_uint_eq(t.last, 16 * MIB);
    /* From one file system to another. */
    char here[128];
    snprintf(here, sizeof(here), "%s.to", t.path);
    t.last = 0;
    int r = copy_file(t.folder, "from", AT_FDCWD, here, &progress, &shared, &t.err);
    unlink(here);
    check_good(r);
    ck_assert(!shared);
    unmount_image();
}

START_TEST(xfs_shares)
{
    check_shared("mkfs.xfs -q -m reflink=1");
}
END_TEST

START_TEST(btrfs_shares)
{
    check_shared("mkfs.btrfs -q");
}
END_TEST

START_TEST(what_exists_is_left_alone)
{
    make_full("from", MIB);
    make_full("to", 100);
    ck_assert_int_eq(copy("from", "to", NULL), -EEXIST);
    ck_assert_int_eq(t.err.kind, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(t.err.text, "to exists already"));
    ck_assert_int_eq(stat_of("to").st_size, 100);
    ck_assert_uint_eq(t.told, 0); /* it was known before a byte was moved */
    ck_assert_int_eq(symlinkat("nowhere", t.folder, "link"), 0);
    ck_assert_int_eq(copy("from", "link", NULL), -EEXIST);
    ck_assert_int_eq(copy("from", "from", NULL), -EEXIST);
    ck_assert_int_eq(stat_of("from").st_size, MIB);
    ck_assert_uint_eq(files(t.folder, false), 3);
}
END_TEST

/* Somebody else was quicker. */
static bool handle_tell_late(void *ctx, uint64_t done, uint64_t total)
{
    if (t.told++ == 0)
        close(make_file("to", 7));
    return true;
}

START_TEST(what_comes_to_exist_is_left_alone_too)
{
    static const struct copy_progress late = {.tell = handle_tell_late};

    make_full("from", MIB);
    if (copy_file(t.folder, "from", t.folder, "to", &late, NULL, &t.err) == 0)
        ck_abort_msg("it was written over");
    ck_assert_int_eq(t.err.kind, ERR_STATE);
    ck_assert_int_eq(stat_of("to").st_size, 7);
}
END_TEST

START_TEST(cancel_leaves_nothing)
{
    make_full("from", 3 * MIB);
    t.refuse_at = (unsigned)_i; /* at the beginning; at the end */
    ck_assert_int_eq(copy("from", "to", NULL), -ECANCELED);
    ck_assert_uint_eq(t.told, (unsigned)_i);
    ck_assert_uint_eq(files(t.folder, false), 1);
}
END_TEST

START_TEST(half_a_copy_has_no_name)
{
    make_full("from", MIB);
    check_good(copy("from", "to", NULL));
    int fd = openat(t.folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        printf("SKIPPED: no O_TMPFILE here\n");
        return;
    }
    close(fd);
    ck_assert_uint_eq(t.files_meanwhile, 1);
    ck_assert_uint_eq(files(t.folder, false), 2);
}
END_TEST

/* Without /proc a file cannot be named afterwards. */
START_TEST(a_copy_that_has_a_name_from_the_beginning)
{
    if (!may_mount())
        return;
    ck_assert_int_eq(mount("none", "/proc", "tmpfs", 0, NULL), 0);
    make_sparse("from", 64 * KIB);
    check_good(copy("from", "to", NULL));
    ck_assert_uint_eq(t.files_meanwhile, 2);
    check_same("from", "to");
    t.refuse_at = t.told + 1;
    t.last = 0;
    ck_assert_int_eq(copy("from", "other", NULL), -ECANCELED);
    ck_assert_uint_eq(files(t.folder, false), 2);
    ck_assert_int_eq(umount2("/proc", MNT_DETACH), 0);
}
END_TEST

START_TEST(a_source_that_shrinks_is_no_source)
{
    make_full("from", 4 * MIB);
    t.shorten = (uint64_t)_i;
    ck_assert_int_eq(copy("from", "to", NULL), -EIO);
    ck_assert_ptr_nonnull(strstr(t.err.text, "became shorter"));
    ck_assert_uint_eq(files(t.folder, false), 1);
}
END_TEST

/* It has 4096 bytes, and gives fewer. */
START_TEST(a_source_that_ends_before_its_size)
{
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    struct stat stat_of_it;

    if (stat(path, &stat_of_it) < 0 || stat_of_it.st_size != 4096) {
        printf("SKIPPED: no %s\n", path);
        return;
    }
    ck_assert_int_eq(copy_file(AT_FDCWD, path, t.folder, "to", &progress, NULL, &t.err), -EIO);
    ck_assert_uint_eq(files(t.folder, false), 0);
}
END_TEST

START_TEST(a_full_disk_is_told_and_left_clean)
{
    char from[80];

    if (!may_mount())
        return;
    make_full("from", 3 * MIB);
    int old = t.folder;
    snprintf(from, sizeof(from), "/proc/self/fd/%d/from", old);
    ck_assert_int_eq(mount("none", t.path, "tmpfs", 0, "size=1m"), 0);
    t.folder = open(t.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(copy_file(AT_FDCWD, from, t.folder, "to", &progress, NULL, &t.err), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(t.err.text, "No space left"));
    ck_assert_ptr_nonnull(strstr(t.err.hint, "4 MiB"));
    ck_assert_uint_eq(files(t.folder, false), 0);
    /* And its room is free again. */
    int fd = make_file("probe", 0);
    put(fd, 0, MIB - 64 * KIB);
    close(fd);
    close(t.folder);
    ck_assert_int_eq(umount2(t.path, MNT_DETACH), 0);
    t.folder = old;
}
END_TEST

START_TEST(only_files_and_devices_are_copied)
{
    ck_assert_int_eq(mkfifoat(t.folder, "fifo", 0600), 0);
    ck_assert_int_eq(copy("fifo", "to", NULL), -EINVAL);
    ck_assert_int_eq(copy(".", "to", NULL), -EINVAL);
    ck_assert_int_eq(copy_file(AT_FDCWD, "/dev/zero", t.folder, "to", NULL, NULL, &t.err), -EINVAL);
    ck_assert_int_eq(copy("nothing", "to", NULL), -ENOENT);
    ck_assert_int_eq(t.err.kind, ERR_NOT_FOUND);
    make_full("from", 10);
    ck_assert_int_eq(copy("from", "", NULL), -EISDIR);
    ck_assert_int_eq(copy("from", "to/", NULL), -EISDIR);
    ck_assert_int_eq(copy("from", "no/to", NULL), -ENOENT);
    ck_assert_ptr_nonnull(strstr(t.err.text, "no/to"));
    ck_assert_uint_eq(files(t.folder, false), 2);
}
END_TEST

START_TEST(in_a_folder_no_link_is_followed)
{
    make_full("from", 10);
    ck_assert_int_eq(symlinkat("from", t.folder, "link"), 0);
    ck_assert_int_eq(copy("link", "to", NULL), -ELOOP);
    ck_assert_uint_eq(files(t.folder, false), 2);
}
END_TEST

START_TEST(only_the_file_that_was_seen_is_copied)
{
    struct stat seen;

    make_full("from", 10);
    make_full("other", 10);
    ck_assert_int_eq(fstatat(t.folder, "from", &seen, 0), 0);
    ck_assert_int_eq(renameat(t.folder, "other", t.folder, "from"), 0);
    ck_assert_int_eq(copy_file_seen(t.folder, "from", &seen, t.folder, "to", NULL, &t.err),
                     -ESTALE);
    ck_assert_ptr_nonnull(strstr(t.err.text, "from was replaced"));
    ck_assert_int_eq(fstatat(t.folder, "from", &seen, 0), 0);
    ck_assert_int_eq(copy_file_seen(t.folder, "from", &seen, t.folder, "to", NULL, &t.err), 0);
    ck_assert_uint_eq(files(t.folder, false), 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("copy");
    TCase *tests = tcase_create("copy");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, a_copy_has_the_same_bytes_and_the_same_mode, 0, 5);
    tcase_add_test(tests, nobody_has_to_watch);
    tcase_add_test(tests, holes_stay_where_they_are);
    tcase_add_test(tests, a_hole_of_a_terabyte_takes_no_time);
    tcase_add_test(tests, zeroes_of_a_full_file_become_holes);
    tcase_add_test(tests, a_block_device_is_read_to_its_end);
    tcase_add_test(tests, xfs_shares);
    tcase_add_test(tests, btrfs_shares);
    tcase_add_test(tests, what_exists_is_left_alone);
    tcase_add_test(tests, what_comes_to_exist_is_left_alone_too);
    tcase_add_loop_test(tests, cancel_leaves_nothing, 1, 3);
    tcase_add_test(tests, half_a_copy_has_no_name);
    tcase_add_test(tests, a_copy_that_has_a_name_from_the_beginning);
    tcase_add_loop_test(tests, a_source_that_shrinks_is_no_source, MIB - 1, MIB + 1);
    tcase_add_test(tests, a_source_that_ends_before_its_size);
    tcase_add_test(tests, a_full_disk_is_told_and_left_clean);
    tcase_add_test(tests, only_files_and_devices_are_copied);
    tcase_add_test(tests, in_a_folder_no_link_is_followed);
    tcase_add_test(tests, only_the_file_that_was_seen_is_copied);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
