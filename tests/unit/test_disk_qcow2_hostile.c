/* SPDX-License-Identifier: MIT */
/*
 * qcow2 images that are broken, hostile, or ask for what we do not give: one clear line each, and
 * never a crash. And a host that has no room left.
 */
#include "tests/unit/qcow2_random.h"
#include <endian.h>
#include <sched.h>
#include <sys/mount.h>

enum { MIB = 1 << 20, CLUSTER = 64 << 10 };

static int open_file(void)
{
    int fd = open(rig.path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void patch(uint64_t offset, const void *bytes, size_t length)
{
    int fd = open_file();
    ck_assert_int_eq(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
    close(fd);
}

static void patch_u32(uint64_t offset, uint32_t value)
{
    value = htobe32(value);
    patch(offset, &value, sizeof(value));
}

static void patch_u64(uint64_t offset, uint64_t value)
{
    value = htobe64(value);
    patch(offset, &value, sizeof(value));
}

static uint64_t u64_at(uint64_t offset)
{
    uint64_t value = 0;
    int fd = open_file();
    ck_assert_int_eq(pread(fd, &value, sizeof(value), (off_t)offset), (ssize_t)sizeof(value));
    close(fd);
    return be64toh(value);
}

static struct err refuse(struct disk_config config, const char *words)
{
    struct err err = {0};
    int r = rig_try_open(config, &err);

    ck_assert_msg(r < 0, "opened, though it should say: %s", words);
    ck_assert_ptr_null(rig.disk);
    ck_assert_msg(strstr(err.text, rig.folder) != NULL, "names no file: %s", err.text);
    ck_assert_msg(strstr(err.text, words) != NULL, "'%s' does not say '%s'", err.text, words);
    ck_assert_ptr_null(strchr(err.text, '\n'));
    return err;
}

/* A disk of 4 MiB with something in its first MiB: L2 tables and refcounts are there. */
static bool make_image(const char *options)
{
    uint8_t *bytes = malloc(MIB);

    if (rig_has_qemu_img()) {
        rig_make("create -q -f qcow2 -o compat=1.1%s disk.qcow2 4M", options);
        rig_open((struct disk_config){0});
        memset(bytes, 0x11, MIB);
        ck_assert_int_eq(rig_run(DISK_WRITE, 0, MIB, bytes), 0);
        rig_close();
        free(bytes);
        return true;
    }
    free(bytes);
    return false;
}

/* Headers. */

static const struct {
    unsigned bytes;
    uint64_t offset, value;
    const char *words;
} headers[] = {
    {4, 0, 0x514649fa, "is not a qcow2 image"},
    {4, 4, 1, "version 1"},
    {4, 4, 4, "version 4"},
    {4, 20, 8, "cluster size"},
    {4, 20, 22, "cluster size"},
    {4, 20, UINT32_MAX, "cluster size"},
    {8, 24, 0, "the size of the disk"},
    {8, 24, 1000, "the size of the disk"},
    {8, 24, UINT64_MAX, "L1 table does not fit"},
    {8, 24, UINT64_C(1) << 62, "L1 table does not fit"},
    {4, 32, 1, "encrypted"},
    {4, 32, 2, "encrypted"},
    {4, 36, 0, "L1 table does not fit"},
    {4, 36, UINT32_MAX, "L1 table does not fit"},
    {8, 40, 0, "L1 table is not in the file"},
    {8, 40, 0x30001, "L1 table is not in the file"},
    {8, 40, UINT64_C(1) << 50, "L1 table is not in the file"},
    {8, 40, UINT64_MAX & ~0xffffull, "L1 table is not in the file"},
    {8, 40, 0x10000, "tables overlap"},
    {8, 48, 0, "refcount table is not in the file"},
    {8, 48, 0x1000, "refcount table is not in the file"},
    {8, 48, UINT64_C(1) << 40, "refcount table is not in the file"},
    {4, 56, 0, "refcount table is not in the file"},
    {4, 56, UINT32_MAX, "refcount table is not in the file"},
    {4, 60, UINT32_MAX, "snapshots are not in the file"},
    {4, 60, 3, "snapshots are not in the file"},
    {8, 72, 2, "marked as corrupt"},
    {8, 72, 4, "external data file"},
    {8, 72, 8, "contradicts itself"},
    {8, 72, 16, "subclusters"},
    {8, 72, UINT64_C(1) << 63, "the feature with number 63"},
    {4, 96, 7, "more than 64 bits"},
    {4, 96, UINT32_MAX, "more than 64 bits"},
    {4, 100, 96, "header has a length"},
    {4, 100, 105, "header has a length"},
    {4, 100, UINT32_MAX, "header has a length"},
    {4, 116, UINT32_MAX, "extension goes past"},
    {8, 8, 1 << 20, "name of its backing file"},
    {8, 8, 0xfffe, "name of its backing file"},
};

START_TEST(headers_that_break_a_rule_are_refused)
{
    if (!make_image(""))
        return;
    if (headers[_i].offset == 8)
        patch_u32(16, 4);
    if (headers[_i].bytes == 4)
        patch_u32(headers[_i].offset, (uint32_t)headers[_i].value);
    else
        patch_u64(headers[_i].offset, headers[_i].value);
    struct err err = refuse((struct disk_config){.backing = true}, headers[_i].words);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
}
END_TEST

START_TEST(files_that_are_no_image_are_refused)
{
    rig_save("disk.qcow2", NULL, 0);
    refuse((struct disk_config){0}, "empty");
    rig_save("disk.qcow2", (const uint8_t *)"QFI\xfb", 4);
    refuse((struct disk_config){0}, "is not a qcow2 image");
    rig_save("disk.qcow2", (const uint8_t *)"just a few words of text", 24);
    refuse((struct disk_config){0}, "is not a qcow2 image");
    refuse((struct disk_config){.path = rig.folder}, "directory");
    unlink(rig.path);
    refuse((struct disk_config){0}, "cannot open");
}
END_TEST

/* Every header cut off, and every byte of it changed: opened or refused, nothing else. */
START_TEST(no_header_is_too_strange)
{
    uint8_t bytes[4096];

    if (!make_image(""))
        return;
    rig_load("disk.qcow2", bytes, sizeof(bytes));
    for (unsigned i = 0; i < 700; i++) {
        uint8_t changed[4096];
        memcpy(changed, bytes, sizeof(changed));
        changed[i < 240 ? i / 2 : rig_random(512)] ^= (uint8_t)(i & 1 ? 0x80 : 1 + rig_random(255));
        patch(0, changed, sizeof(changed));
        if (rig_try_open((struct disk_config){.readonly = rig_random(2)}, NULL) == 0)
            rig_close();
    }
    for (unsigned length = 0; length < 700; length += 7) {
        ck_assert_int_eq(truncate(rig.path, 0), 0);
        patch(0, bytes, length);
        ck_assert_int_lt(rig_try_open((struct disk_config){.readonly = length % 2}, NULL), 0);
    }
}
END_TEST

START_TEST(a_feature_that_is_missing_is_named)
{
    uint8_t bytes[4096];

    if (!make_image(""))
        return;
    rig_load("disk.qcow2", bytes, sizeof(bytes));
    for (unsigned at = 104; at < sizeof(bytes) - 11; at++) /* the table of names has it */
        if (memcmp(bytes + at + 2, "dirty bit", 9) == 0 && bytes[at] == 0)
            bytes[at + 1] = 40;
    patch(0, bytes, sizeof(bytes));
    patch_u64(72, UINT64_C(1) << 40);
    refuse((struct disk_config){0}, "the feature 'dirty bit'");
    refuse((struct disk_config){.readonly = true}, "the feature 'dirty bit'");
}
END_TEST

START_TEST(what_qemu_img_makes_and_we_do_not_support_is_refused)
{
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 -o extended_l2=on,cluster_size=64k disk.qcow2 4M");
    refuse((struct disk_config){0}, "subclusters");
    rig_make("create -q -f qcow2 -o data_file=data.raw disk.qcow2 4M");
    struct err err = refuse((struct disk_config){0}, "external data file");
    ck_assert_ptr_nonnull(strstr(err.hint, "qemu-img convert"));
}
END_TEST

START_TEST(a_corrupt_image_is_read_and_not_written)
{
    uint8_t bytes[512];

    if (!make_image(""))
        return;
    patch_u64(72, 2);
    struct err err = refuse((struct disk_config){0}, "marked as corrupt");
    ck_assert_ptr_nonnull(strstr(err.hint, "qemu-img check -r all"));
    rig_open((struct disk_config){.readonly = true});
    ck_assert_int_eq(rig_run(DISK_READ, 0, sizeof(bytes), bytes), 0);
    ck_assert_uint_eq(bytes[0], 0x11);
}
END_TEST

/* What it stands on. */

START_TEST(backing_files_are_opened_only_where_that_is_allowed)
{
    struct disk_config allowed = {.backing = true};
    struct err err;

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f raw base.raw 1M");
    rig_make("create -q -f qcow2 -b base.raw -F raw disk.qcow2 1M");
    err = refuse((struct disk_config){0}, "stands on another image, 'base.raw'");
    ck_assert_ptr_nonnull(strstr(err.hint, ",backing"));
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    rig_open(allowed);
    rig_close();
    rig_shell("mv base.raw elsewhere.raw");
    err = refuse(allowed, "base.raw");
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    rig_make("rebase -u -F vmdk -b base.vmdk disk.qcow2");
    refuse(allowed, "whose format is vmdk");
    rig_make("rebase -u -F raw -b nbd://localhost/x disk.qcow2");
    refuse(allowed, "not the name of a file");
    rig_make("rebase -u -F raw -b 'json:{\"driver\":\"raw\"}' disk.qcow2");
    refuse(allowed, "not the name of a file");
}
END_TEST

START_TEST(a_backing_file_without_a_format_is_refused)
{
    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f raw base.raw 1M");
    rig_make("create -q -f qcow2 -o compat=0.10 disk.qcow2 1M");
    patch(512, "base.raw", 8);
    patch_u64(8, 512);
    patch_u32(16, 8);
    struct err err = refuse((struct disk_config){.backing = true}, "does not say which format");
    ck_assert_ptr_nonnull(strstr(err.hint, "qemu-img rebase -u -F FORMAT"));
}
END_TEST

START_TEST(a_chain_has_an_end)
{
    struct disk_config config = {.backing = true};

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 1M");
    rig_make("create -q -f qcow2 -b disk.qcow2 -F qcow2 b.qcow2");
    rig_make("rebase -u -F qcow2 -b b.qcow2 disk.qcow2");
    refuse(config, "stands on itself");
    config.readonly = true;
    refuse(config, "stands on itself");
    rig_make("rebase -u -F qcow2 -b ./disk.qcow2 disk.qcow2");
    refuse(config, "stands on itself");
    rig_make("create -q -f qcow2 l0 1M");
    ck_assert_int_eq(rig_shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do qemu-img create "
                               "-q -f qcow2 -b l$((i - 1)) -F qcow2 l$i || exit 1; done; "
                               "cp l15 disk.qcow2"),
                     0);
    rig_open((struct disk_config){.backing = true});
    rig_close();
    rig_make("create -q -f qcow2 -b l15 -F qcow2 disk.qcow2");
    refuse((struct disk_config){.backing = true}, "one image too many");
}
END_TEST

START_TEST(every_file_of_a_chain_is_locked)
{
    struct disk_config config = {.backing = true};
    struct disk_config base = {.format = DISK_FORMAT_RAW};
    struct disk *disk = NULL;
    char path[160];

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f raw base.raw 1M");
    rig_make("create -q -f qcow2 -b base.raw -F raw disk.qcow2");
    snprintf(path, sizeof(path), "%s/base.raw", rig.folder);
    base.path = path;
    rig_open(config);
    ck_assert_int_eq(disk_open(&disk, &base, NULL), -EBUSY);
    base.readonly = true;
    ck_assert_int_eq(disk_open(&disk, &base, NULL), 0);
    rig_close();
    disk_destroy(disk);
    base.readonly = false;
    ck_assert_int_eq(disk_open(&disk, &base, NULL), 0);
    refuse(config, "base.raw");
    disk_destroy(disk);
}
END_TEST

/* Tables. The image: cluster 1 refcount table, 2 block, 3 L1, 4 and on L2 and data, or so. */

static uint64_t l1_offset(void)
{
    return u64_at(40);
}

static uint64_t l2_offset(void)
{
    return u64_at(l1_offset()) & 0x00fffffffffffe00ull;
}

START_TEST(tables_that_lie_on_each_other_are_not_written_to)
{
    if (!make_image(""))
        return;
    uint64_t l2 = u64_at(l1_offset()), refcounts = u64_at(48);
    uint64_t block = u64_at(refcounts);
    const uint64_t bad[] = {block | 1ull << 63, refcounts | 1ull << 63,    l1_offset() | 1ull << 63,
                            l2 + 512,           (1ull << 50) | 1ull << 63, l2 | 1ull << 60};
    for (unsigned i = 0; i < array_size(bad) - 1; i++) {
        patch_u64(l1_offset(), bad[i]);
        refuse((struct disk_config){0}, "damaged");
    }
    patch_u64(l1_offset(), l2);
    patch_u64(refcounts, l2 & ~(1ull << 63));
    refuse((struct disk_config){0}, "damaged");
    patch_u64(refcounts, 1ull << 51);
    refuse((struct disk_config){0}, "damaged");
}
END_TEST

/*
 * What a broken entry does: its cluster is an error, the rest is read, nothing is written. Who only
 * reads does not know where all of the tables are (`met`), and need not.
 */
static void check_damaged(const char *what, bool met)
{
    uint8_t bytes[512] = {0};

    rig_open((struct disk_config){.readonly = true});
    ck_assert_msg(!met || rig_run(DISK_READ, 0, sizeof(bytes), bytes) == -EIO, "%s", what);
    ck_assert_uint_eq(rig.troubles, met);
    ck_assert_int_eq(rig_run(DISK_READ, CLUSTER, sizeof(bytes), bytes), 0);
    rig_close();
    rig_open((struct disk_config){0});
    switch (rig_random(3)) {
    case 0:
        ck_assert_msg(rig_run(DISK_READ, 0, sizeof(bytes), bytes) == -EIO, "%s", what);
        break;
    case 1:
        ck_assert_msg(rig_run(DISK_WRITE, 0, sizeof(bytes), bytes) == -EIO, "%s", what);
        break;
    default:
        ck_assert_msg(rig_run(DISK_ZEROES, 0, CLUSTER, NULL) == -EIO, "%s", what);
        break;
    }
    /* A person is told, once, which file it is. */
    ck_assert_msg(strstr(rig.trouble, rig.path) && strstr(rig.trouble, "an entry of an L2 table"),
                  "%s", rig.trouble);
    ck_assert_int_eq(rig_run(DISK_WRITE, CLUSTER, sizeof(bytes), bytes), -EIO);
    ck_assert_int_eq(rig_run(DISK_READ, CLUSTER, sizeof(bytes), bytes), 0);
    ck_assert_uint_eq(bytes[0], 0x11);
    ck_assert_uint_eq(rig.troubles, 1);
    rig_close();
    refuse((struct disk_config){0}, "marked as corrupt");
    patch_u64(72, 0);
}

START_TEST(broken_entries_are_errors_and_mark_the_image)
{
    if (!make_image(""))
        return;
    const uint64_t l2 = l2_offset(), copied = 1ull << 63, compressed = 1ull << 62;
    const uint64_t refcounts = u64_at(48), good = u64_at(l2);
    const struct {
        const char *what;
        uint64_t entry;
    } bad[] = {
        {"not at a cluster", good + 512},
        {"past the end", copied | 1ull << 40},
        {"far past the end", 0x00fffffffffe0000ull},
        {"L1 table", copied | l1_offset()},
        {"L2 table itself", copied | l2},
        {"refcount table", copied | refcounts},
        {"refcount block", copied | u64_at(refcounts)},
        {"reserved bits", good | 1ull << 58},
        {"reserved bits below", good | 1 << 3},
        {"nothing, and copied", copied},
        {"compressed past the end", compressed | 1ull << 45},
        {"compressed and copied", compressed | copied | 0x50000},
        {"compressed header", compressed | 0x100},
        {"compressed L2 table", compressed | (l2 + 77)},
        {"compressed into the L2 table", compressed | (l2 - 100) | 3ull << 54},
    };
    for (unsigned i = 0; i < array_size(bad); i++) {
        patch_u64(l2, bad[i].entry);
        check_damaged(bad[i].what, !strstr(bad[i].what, "L2") && !strstr(bad[i].what, "refcount"));
    }
    patch_u64(l2, good);
    rig_check(false);
}
END_TEST

/* The one below is damaged, and only read. */
START_TEST(trouble_below_names_the_file_below)
{
    uint8_t bytes[512];

    if (!make_image(""))
        return;
    patch_u64(l2_offset(), 1ull << 40 | 1ull << 63);
    rig_shell("mv disk.qcow2 below.qcow2");
    rig_make("create -q -f qcow2 -b below.qcow2 -F qcow2 disk.qcow2");
    rig_open((struct disk_config){.backing = true});
    ck_assert_uint_eq(rig.troubles, 0);
    ck_assert_int_eq(rig_run(DISK_READ, 0, sizeof(bytes), bytes), -EIO);
    ck_assert_int_eq(rig_run(DISK_READ, 0, sizeof(bytes), bytes), -EIO);
    ck_assert_uint_eq(rig.troubles, 1);
    ck_assert_msg(strstr(rig.trouble, "below.qcow2"), "%s", rig.trouble);
    ck_assert_int_eq(rig_run(DISK_WRITE, 0, sizeof(bytes), bytes), -EIO); /* needs the rest */
    rig_close();
    rig_check(false);
}
END_TEST

START_TEST(garbage_that_claims_to_be_compressed_is_an_error)
{
    uint8_t *bytes = malloc(CLUSTER);

    for (unsigned zstd = 0; zstd < 2; zstd++) {
        if (!rig_has_qemu_img())
            break;
        rig_make_raw("base.raw", MIB);
        rig_make("convert -c -O qcow2 %s base.raw disk.qcow2",
                 zstd ? "-o compression_type=zstd" : "");
        uint64_t l2 = l2_offset(), at = 0;
        while (at < 16 && !(u64_at(l2 + 8 * at) >> 62 & 1))
            at++;
        ck_assert_uint_lt(at, 16);
        uint64_t place = u64_at(l2 + 8 * at) & ((1ull << 54) - 1);
        for (unsigned i = 0; i < CLUSTER; i++)
            bytes[i] = (uint8_t)rig_random(256);
        bytes[0] = zstd ? 0x28 : 0x07; /* a magic number that goes on wrong; an invalid block */
        patch(place, bytes, 40);
        rig_open((struct disk_config){0});
        ck_assert_int_eq(rig_run(DISK_READ, at * CLUSTER, 512, bytes), -EIO);
        ck_assert_int_eq(rig_run(DISK_WRITE, at * CLUSTER, 512, bytes), -EIO); /* needs the rest */
        ck_assert_int_eq(rig_run(DISK_WRITE, at * CLUSTER, CLUSTER, bytes), 0);
        ck_assert_int_eq(rig_run(DISK_READ, at * CLUSTER, 512, bytes), 0);
        rig_close();
        rig_check(false);
    }
    free(bytes);
}
END_TEST

START_TEST(refcounts_that_lie_do_not_lead_to_metadata)
{
    static const uint8_t zeroes[CLUSTER];
    uint8_t bytes[512] = {0};

    if (!make_image(""))
        return;
    uint64_t block = u64_at(u64_at(48));
    patch(block, zeroes, sizeof(zeroes));
    rig_open((struct disk_config){0});
    ck_assert_int_eq(rig_run(DISK_WRITE, 2 * MIB, sizeof(bytes), bytes), -EIO);
    ck_assert_int_eq(rig_run(DISK_READ, 0, sizeof(bytes), bytes), 0);
    rig_close();
    refuse((struct disk_config){0}, "marked as corrupt");
}
END_TEST

START_TEST(an_image_that_was_not_closed_is_repaired)
{
    static const uint8_t zeroes[CLUSTER];

    for (unsigned order = 0; order < 3; order++) {
        if (!make_image(order == 2 ? ",lazy_refcounts=on,cluster_size=4k" : ",lazy_refcounts=on"))
            return;
        rig_open((struct disk_config){0});
        rig_take_shadow();
        rig_close();
        if (order == 1)
            rig_make("snapshot -c one disk.qcow2");
        /* Refcounts of all that was written are missing. */
        uint64_t block = u64_at(u64_at(48));
        patch(block, zeroes, 512);
        patch_u64(l2_offset(), u64_at(l2_offset()) & ~(1ull << 63)); /* a flag, too */
        patch_u64(72, 1);
        rig_open((struct disk_config){.readonly = true});
        rig_compare_all();
        rig_close();
        ck_assert_uint_eq(u64_at(72), 1);
        rig_open((struct disk_config){0});
        rig_compare_all();
        rig_rounds(10);
        rig_close();
        ck_assert_uint_eq(u64_at(72), 0);
        rig_check(false);
        rig_compare_with_qemu("");
    }
}
END_TEST

START_TEST(a_table_without_its_flag_is_looked_up)
{
    uint8_t bytes[512] = {9};

    if (!make_image(""))
        return;
    uint64_t l2 = l2_offset();
    patch_u64(l1_offset(), l2); /* its refcount says that it is ours alone */
    rig_open((struct disk_config){0});
    ck_assert_int_eq(rig_run(DISK_WRITE, 2 * MIB, sizeof(bytes), bytes), 0);
    rig_close();
    ck_assert_uint_eq(u64_at(l1_offset()), l2 | 1ull << 63);
    rig_check(false);
}
END_TEST

START_TEST(bitmaps_are_out_of_date_after_writing)
{
    if (!make_image(""))
        return;
    rig_make("bitmap --add disk.qcow2 one");
    ck_assert_uint_eq(u64_at(88) & 1, 1);
    rig_open((struct disk_config){.readonly = true});
    rig_close();
    ck_assert_uint_eq(u64_at(88) & 1, 1);
    rig_open((struct disk_config){0});
    rig_close();
    ck_assert_uint_eq(u64_at(88), 0);
    rig_check(true);
}
END_TEST

/* The host. */

START_TEST(a_full_file_system_is_an_error_and_the_image_stays_sound)
{
    char options[] = "size=2m";
    uint8_t *bytes = malloc(MIB);
    unsigned failed = 0;

    if (!rig_has_qemu_img() || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", rig.folder, "tmpfs", 0, options) < 0) {
        fprintf(stderr, "SKIPPED: a full file system needs root: %s\n", strerror(errno));
        free(bytes);
        return;
    }
    rig_make("create -q -f qcow2 -o cluster_size=%s disk.qcow2 8M", _i & 2 ? "4k" : "64k");
    rig_open((struct disk_config){.engine = rig_engines[_i & 1]});
    memset(bytes, 0x77, MIB);
    for (uint64_t at = 0; at < 8 * MIB; at += CLUSTER) {
        int r = rig_run(DISK_WRITE, at, CLUSTER, bytes);
        ck_assert(r == 0 || r == -ENOSPC || r == -EIO);
        failed += r != 0;
    }
    ck_assert_uint_gt(failed, 50);
    ck_assert_int_eq(rig_run(DISK_READ, 0, MIB, bytes), 0);
    ck_assert_uint_eq(bytes[MIB - 1], 0x77);
    ck_assert_int_eq(rig_run(DISK_DISCARD, 0, 8 * MIB, NULL), 0);
    rig_drain();
    ck_assert_int_eq(rig_run(DISK_WRITE, 7 * MIB, CLUSTER, bytes), 0); /* there is room again */
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    rig_close();
    ck_assert_int_eq(rig_shell("qemu-img check -q disk.qcow2"), 0);
    umount2(rig.folder, MNT_DETACH);
    free(bytes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_qcow2_hostile");
    TCase *tc = tcase_create("disk_qcow2_hostile");

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, rig_set_up, rig_tear_down);
    tcase_add_loop_test(tc, headers_that_break_a_rule_are_refused, 0, (int)array_size(headers));
    tcase_add_test(tc, files_that_are_no_image_are_refused);
    tcase_add_test(tc, no_header_is_too_strange);
    tcase_add_test(tc, a_feature_that_is_missing_is_named);
    tcase_add_test(tc, what_qemu_img_makes_and_we_do_not_support_is_refused);
    tcase_add_test(tc, a_corrupt_image_is_read_and_not_written);
    tcase_add_test(tc, trouble_below_names_the_file_below);
    tcase_add_test(tc, backing_files_are_opened_only_where_that_is_allowed);
    tcase_add_test(tc, a_backing_file_without_a_format_is_refused);
    tcase_add_test(tc, a_chain_has_an_end);
    tcase_add_test(tc, every_file_of_a_chain_is_locked);
    tcase_add_test(tc, tables_that_lie_on_each_other_are_not_written_to);
    tcase_add_test(tc, broken_entries_are_errors_and_mark_the_image);
    tcase_add_test(tc, garbage_that_claims_to_be_compressed_is_an_error);
    tcase_add_test(tc, refcounts_that_lie_do_not_lead_to_metadata);
    tcase_add_test(tc, an_image_that_was_not_closed_is_repaired);
    tcase_add_test(tc, a_table_without_its_flag_is_looked_up);
    tcase_add_test(tc, bitmaps_are_out_of_date_after_writing);
    tcase_add_loop_test(tc, a_full_file_system_is_an_error_and_the_image_stays_sound, 0, 4);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
