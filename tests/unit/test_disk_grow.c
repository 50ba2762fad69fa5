/* SPDX-License-Identifier: MIT */
/* Images that become larger; qemu-img makes them, and judges what became of them. */
#include "host/disk_grow.h"
#include "host/lock.h"
#include "tests/unit/qcow2_random.h"
#include <endian.h>

#define MIB (1ull << 20)

static int folder(void)
{
    int fd = open(rig.folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static int grow(const char *name, enum disk_format format, uint64_t size, struct err *err)
{
    int fd = folder(), r = disk_grow(fd, name, format, size, err);
    close(fd);
    return r;
}

static void grow_well(const char *name, enum disk_format format, uint64_t size)
{
    struct err err = {0};
    int r = grow(name, format, size, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

/* It fails, and nothing of the image has changed. */
static void refuse(const char *name, enum disk_format format, uint64_t size, enum err_kind kind,
                   const char *text)
{
    struct err err = {0};
    rig_shell("cp %s before", name);
    ck_assert_int_lt(grow(name, format, size, &err), 0);
    ck_assert_int_eq(err.kind, kind);
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
    ck_assert_int_eq(rig_shell("cmp %s before", name), 0);
}

static void poke(const char *name, uint64_t offset, const void *bytes, size_t length)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", rig.folder, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
    close(fd);
}

static void poke_u64(const char *name, uint64_t offset, uint64_t value)
{
    value = htobe64(value);
    poke(name, offset, &value, sizeof(value));
}

static void poke_u32(const char *name, uint64_t offset, uint32_t value)
{
    value = htobe32(value);
    poke(name, offset, &value, sizeof(value));
}

static uint64_t peek_u64(const char *name, uint64_t offset)
{
    char path[160];
    uint64_t value = 0;
    snprintf(path, sizeof(path), "%s/%s", rig.folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(pread(fd, &value, 8, (off_t)offset), 8);
    close(fd);
    return be64toh(value);
}

START_TEST(a_raw_image_grows_with_zeroes)
{
    rig_make_raw("disk.raw", 3 * MIB);
    rig_shell("cp disk.raw old.raw");
    grow_well("disk.raw", DISK_FORMAT_RAW, 40 * MIB);
    ck_assert_int_eq(rig_shell("test $(stat -c %%s disk.raw) = %llu", 40 * MIB), 0);
    ck_assert_int_eq(rig_shell("head -c 3145728 disk.raw | cmp - old.raw"), 0);
    ck_assert_int_eq(rig_shell("tail -c +3145729 disk.raw | tr -d '\\000' | test $(wc -c) = 0"), 0);
}
END_TEST

START_TEST(no_image_becomes_smaller)
{
    rig_make_raw("disk.raw", 3 * MIB);
    refuse("disk.raw", DISK_FORMAT_RAW, 2 * MIB, ERR_USAGE, "not become smaller");
    grow_well("disk.raw", DISK_FORMAT_RAW, 3 * MIB);
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 30M");
    refuse("disk.qcow2", DISK_FORMAT_QCOW2, 20 * MIB, ERR_USAGE, "not become smaller");
    grow_well("disk.qcow2", DISK_FORMAT_QCOW2, 30 * MIB);
}
END_TEST

static const struct kind {
    const char *options;
    uint64_t from, to;
} kinds[] = {
    {"cluster_size=512", MIB, 2 * MIB},
    {"cluster_size=4k", 5 * MIB, 1000 * MIB},
    {"cluster_size=64k", 5 * MIB, 4096 * 1024 * MIB},
    {"cluster_size=64k,compat=0.10", 600 * MIB, 3000 * MIB},
    {"cluster_size=64k,lazy_refcounts=on,refcount_bits=1", 16 * MIB, 16 * MIB + 512},
    {"cluster_size=2M,compression_type=zstd", 5 * MIB, 1024 * 1024 * MIB},
};

START_TEST(a_qcow2_image_grows_with_zeroes)
{
    const struct kind *kind = &kinds[_i];
    if (!rig_has_qemu_img())
        return;
    rig_make_raw("old.raw", kind->from);
    rig_make("convert -q -f raw -O qcow2 -o %s old.raw disk.qcow2", kind->options);
    grow_well("disk.qcow2", DISK_FORMAT_QCOW2, kind->to);
    rig_check(false);
    ck_assert_int_eq(rig_shell("qemu-img info disk.qcow2 | grep -q '(%llu bytes)'",
                               (unsigned long long)kind->to),
                     0);
    ck_assert_int_eq(rig_shell("qemu-img compare -q -f raw -F qcow2 old.raw disk.qcow2"), 0);
}
END_TEST

START_TEST(what_is_new_can_be_written_to_its_last_block)
{
    uint8_t bytes[4096], read[4096];
    uint64_t at = 2000 * MIB - sizeof(bytes);
    if (!rig_has_qemu_img())
        return;
    memset(bytes, 0x5a, sizeof(bytes));
    rig_make("create -q -f qcow2 disk.qcow2 10M");
    grow_well("disk.qcow2", DISK_FORMAT_QCOW2, 2000 * MIB);
    rig_open((struct disk_config){.direct = false});
    ck_assert_uint_eq(rig.disk->info.size, 2000 * MIB);
    ck_assert_int_eq(rig_run(DISK_WRITE, at, sizeof(bytes), bytes), 0);
    ck_assert_int_eq(rig_run(DISK_READ, at, sizeof(read), read), 0);
    ck_assert_mem_eq(read, bytes, sizeof(read));
    rig_close();
    rig_check(false);
}
END_TEST

START_TEST(what_lies_behind_the_table_does_not_become_part_of_the_disk)
{
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 10M");
    uint64_t l1 = peek_u64("disk.qcow2", 40);
    for (unsigned i = 1; i < 20; i++) /* the header's cluster as an L2 table */
        poke_u64("disk.qcow2", l1 + 8 * i, 1ull << 63);
    grow_well("disk.qcow2", DISK_FORMAT_QCOW2, 4000 * MIB);
    rig_check(false);
}
END_TEST

START_TEST(bitmaps_do_not_count_any_more)
{
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 10M");
    rig_make("bitmap --add disk.qcow2 one");
    ck_assert_uint_ne(peek_u64("disk.qcow2", 88), 0);
    grow_well("disk.qcow2", DISK_FORMAT_QCOW2, 4000 * MIB);
    ck_assert_uint_eq(peek_u64("disk.qcow2", 88), 0);
    rig_check(true);
}
END_TEST

START_TEST(a_table_without_room_is_left_to_qemu)
{
    struct err err = {0};
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 -o cluster_size=512 disk.qcow2 1M");
    refuse("disk.qcow2", DISK_FORMAT_QCOW2, 1000 * MIB, ERR_DEFINITION, "no room");
    ck_assert_int_lt(grow("disk.qcow2", DISK_FORMAT_QCOW2, 1000 * MIB, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.hint, "qemu-img resize disk.qcow2"));
}
END_TEST

START_TEST(snapshots_and_backing_images_are_left_to_qemu)
{
    char path[160];
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 10M");
    rig_make("snapshot -c one disk.qcow2");
    refuse("disk.qcow2", DISK_FORMAT_QCOW2, 20 * MIB, ERR_DEFINITION, "snapshots");
    rig_make("create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2");
    refuse("top.qcow2", DISK_FORMAT_QCOW2, 20 * MIB, ERR_DEFINITION, "another image");
    snprintf(path, sizeof(path), "%s/top.qcow2", rig.folder);
    ck_assert(disk_has_backing(path));
    snprintf(path, sizeof(path), "%s/disk.qcow2", rig.folder);
    ck_assert(!disk_has_backing(path));
    ck_assert(!disk_has_backing(rig.folder));
}
END_TEST

START_TEST(an_image_in_use_stays_as_it_is)
{
    char path[160];
    rig_make_raw("disk.raw", MIB);
    snprintf(path, sizeof(path), "%s/disk.raw", rig.folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(lock_try(fd, true), 0);
    refuse("disk.raw", DISK_FORMAT_RAW, 2 * MIB, ERR_STATE, "disk.raw");
    close(fd);
}
END_TEST

START_TEST(damaged_headers_are_refused)
{
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 good.qcow2 10M");
    static const struct {
        uint64_t offset, value;
        unsigned bytes;
    } damages[] = {
        {0, 0, 4},           {4, 4, 4},           {20, 0, 4},         {20, 63, 4},
        {32, 1, 4},          {36, 0xffffffff, 4}, {36, 0, 4},         {40, 0, 8},
        {40, 0x30001, 8},    {40, 1ull << 62, 8}, {40, -65536ull, 8}, {72, 4, 8},
        {72, 1ull << 63, 8}, {36, 0x00400001, 4}, {8, 100, 8},
    };
    for (size_t i = 0; i < array_size(damages); i++) {
        rig_shell("cp good.qcow2 disk.qcow2");
        if (damages[i].bytes == 4)
            poke_u32("disk.qcow2", damages[i].offset, (uint32_t)damages[i].value);
        else
            poke_u64("disk.qcow2", damages[i].offset, damages[i].value);
        refuse("disk.qcow2", DISK_FORMAT_QCOW2, 1000 * MIB, ERR_DEFINITION, "disk.qcow2");
    }
    for (unsigned length = 0; length < 104; length += 13) {
        rig_shell("head -c %u good.qcow2 >disk.qcow2", length);
        refuse("disk.qcow2", DISK_FORMAT_QCOW2, 1000 * MIB, ERR_DEFINITION, "disk.qcow2");
    }
}
END_TEST

START_TEST(only_files_in_this_folder_grow)
{
    struct err err = {0};
    rig_make_raw("disk.raw", MIB);
    rig_shell("ln -s disk.raw link && mkfifo pipe");
    ck_assert_int_lt(grow("link", DISK_FORMAT_RAW, 2 * MIB, &err), 0);
    ck_assert_int_lt(grow("pipe", DISK_FORMAT_RAW, 2 * MIB, &err), 0);
    ck_assert_int_lt(grow(".", DISK_FORMAT_RAW, 2 * MIB, &err), 0);
    refuse("disk.raw", DISK_FORMAT_RAW, 2 * MIB + 1, ERR_USAGE, "512");
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("disk_grow");
    TCase *tests = tcase_create("growing");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, rig_set_up, rig_tear_down);
    tcase_add_test(tests, a_raw_image_grows_with_zeroes);
    tcase_add_test(tests, no_image_becomes_smaller);
    tcase_add_loop_test(tests, a_qcow2_image_grows_with_zeroes, 0, (int)array_size(kinds));
    tcase_add_test(tests, what_is_new_can_be_written_to_its_last_block);
    tcase_add_test(tests, what_lies_behind_the_table_does_not_become_part_of_the_disk);
    tcase_add_test(tests, bitmaps_do_not_count_any_more);
    tcase_add_test(tests, a_table_without_room_is_left_to_qemu);
    tcase_add_test(tests, snapshots_and_backing_images_are_left_to_qemu);
    tcase_add_test(tests, an_image_in_use_stays_as_it_is);
    tcase_add_test(tests, damaged_headers_are_refused);
    tcase_add_test(tests, only_files_in_this_folder_grow);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
