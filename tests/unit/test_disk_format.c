/* SPDX-License-Identifier: MIT */
/* What a bare file is, and that no guest can change it: looking, the mark, and the guard. */
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SIZE = 1 << 20, SECTOR = 512 };

#define MARK "user.minivmm.format"

static struct {
    char folder[64], path[128];
    bool marks; /* the file system takes them */
    struct loop *loop;
    struct fake_disk inner;
    uint8_t bytes[SIZE];
    struct disk *disk;
    bool may_be_done;
    unsigned under_way;
    const char *trouble;
} t;

static void make_file(const char *name, const void *head, size_t length, off_t size)
{
    if (t.path[0])
        unlink(t.path);
    snprintf(t.path, sizeof(t.path), "%s/%s", t.folder, name);
    int fd = open(t.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, head, length), (ssize_t)length);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    close(fd);
}

static void use_folder(const char *where)
{
    snprintf(t.folder, sizeof(t.folder), "%s/minivmm-format-XXXXXX", where);
    ck_assert_ptr_nonnull(mkdtemp(t.folder));
    t.path[0] = '\0';
    make_file("disk.img", "", 0, SIZE);
    t.marks = setxattr(t.path, MARK, "?", 1, 0) == 0 && removexattr(t.path, MARK) == 0;
}

static void leave_folder(void)
{
    unlink(t.path);
    ck_assert_int_eq(rmdir(t.folder), 0);
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    use_folder("/var/tmp");
}

static void tear_down(void)
{
    leave_folder();
}

static bool is_marked(void)
{
    char value[8];
    ssize_t length = getxattr(t.path, MARK, value, sizeof(value));

    return length == 3 && memcmp(value, "raw", 3) == 0;
}

static void write_head(const void *head, size_t length)
{
    int fd = open(t.path, O_WRONLY | O_CLOEXEC);

    ck_assert_int_eq(pwrite(fd, head, length, 0), (ssize_t)length);
    close(fd);
}

static enum disk_format find(struct disk_config config, bool *ret_guard)
{
    enum disk_format format = DISK_FORMAT_ANY;
    struct err err = {0};

    config.path = t.path;
    int r = disk_format_find(&config, &format, ret_guard, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    return format;
}

static struct err refuse(void)
{
    enum disk_format format = DISK_FORMAT_ANY;
    struct disk_config config = {.path = t.path};
    struct err err = {0};
    bool guard = false;

    ck_assert_int_lt(disk_format_find(&config, &format, &guard, &err), 0);
    ck_assert_int_eq(format, DISK_FORMAT_ANY);
    ck_assert(!guard);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert_msg(strstr(err.text, t.path), "names no file: %s", err.text);
    ck_assert_str_ne(err.hint, "");
    return err;
}

static void expect(const char *text, const char *word)
{
    ck_assert_msg(strstr(text, word), "no \"%s\" in: %s", word, text);
}

/* Looking. */

START_TEST(a_bare_file_is_raw_unless_it_says_qcow2)
{
    bool guard = true;

    ck_assert_int_eq(find((struct disk_config){.readonly = true}, &guard), DISK_FORMAT_RAW);
    ck_assert(!guard && !is_marked());
    write_head("QFI\xfb\0\0\0\3", 8);
    ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_QCOW2);
    ck_assert(!guard && !is_marked());
    ck_assert_str_eq(disk_format_name(DISK_FORMAT_QCOW2), "qcow2");
    ck_assert_str_eq(disk_format_name(DISK_FORMAT_RAW), "raw");
}
END_TEST

START_TEST(a_file_shorter_than_a_magic_number_is_no_danger)
{
    bool guard;

    for (off_t size = 1; size < 4; size++) {
        make_file("short", "QFI", 3, size);
        expect(refuse().text, "text file");
        make_file("short", "\0\1\2", 3, size);
        ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_RAW);
    }
}
END_TEST

static const struct {
    const char *file, *head;
    size_t length;
    const char *word, *mend;
} foreign[] = {
    {"a.vmdk", "KDMV\1\0\0\0", 8, "VMDK", "qemu-img convert -O raw %s/a.vmdk %s/a.raw "},
    {"a.vhdx", "vhdxfile", 8, "VHDX", "qemu-img convert"},
    {"a.vhd", "conectix", 8, "VHD", "qemu-img convert"},
    {"a.qed", "QED\0", 4, "QED", "qemu-img convert"},
    {"a.img.gz", "\x1f\x8b\x08\x08", 4, "gzip", "gunzip %s/a.img.gz"},
    {"download", "\x1f\x8b\x08\x08", 4, "gzip", "gunzip <%s/download >%s/download.img"},
    {"a.xz", "\3757zXZ\0", 6, "xz", "unxz %s/a.xz"},
    {"a.zst", "\x28\xb5\x2f\xfd", 4, "zstd", "unzstd %s/a.zst"},
    {"a.bz2", "BZh9", 4, "bzip2", "bunzip2 "},
    {"a.zip", "PK\3\4", 4, "zip", "unzip "},
    {"vmlinux", "\177ELF\2\1\1", 7, "kernel", "--kernel %s/vmlinux"},
};

START_TEST(a_foreign_format_is_named_with_its_mend)
{
    char mend[300];

    make_file(foreign[_i].file, foreign[_i].head, foreign[_i].length, SIZE);
    struct err err = refuse();
    expect(err.text, foreign[_i].word);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(mend, sizeof(mend), foreign[_i].mend, t.folder, t.folder);
#pragma GCC diagnostic pop
    expect(err.hint, mend);
    ck_assert(!is_marked());
}
END_TEST

START_TEST(formats_that_begin_elsewhere_are_found_too)
{
    uint8_t head[600] = "<<< Oracle VM VirtualBox Disk Image >>>\n";

    memcpy(head + 64, "\x7f\x10\xda\xbe", 4);
    make_file("a.vdi", head, sizeof(head), SIZE);
    expect(refuse().text, "VDI");
    memset(head, 0, sizeof(head));
    memcpy(head + 514, "HdrS", 4);
    make_file("vmlinuz", head, sizeof(head), SIZE);
    expect(refuse().text, "Linux kernel");
    memset(t.bytes, 0, SIZE);
    memcpy(t.bytes + SIZE - SECTOR, "conectix", 8);
    make_file("fixed.vhd", t.bytes, SIZE, SIZE);
    expect(refuse().text, "VHD");
}
END_TEST

START_TEST(text_and_nothing_are_no_disks)
{
    bool guard;

    make_file("a.txt", "hello\n", 6, 6);
    struct err err = refuse();
    expect(err.text, "text file");
    expect(err.hint, ",format=raw");
    memset(t.bytes, 'x', SIZE);
    memcpy(t.bytes, "<!DOCTYPE html>", 15);
    make_file("debian.img", t.bytes, SIZE, SIZE); /* a web page that says 404 */
    expect(refuse().text, "text file");
    memcpy(t.bytes, "#!/bin/sh\n     ", 15);
    make_file("run.sh", t.bytes, SIZE, SIZE);
    expect(refuse().text, "text file");
    memcpy(t.bytes, "disk of letters", 15);
    make_file("large", t.bytes, SIZE, SIZE);
    ck_assert_int_eq(find((struct disk_config){.readonly = true}, &guard), DISK_FORMAT_RAW);
    make_file("empty", "", 0, 0);
    expect(refuse().text, "is empty");
}
END_TEST

START_TEST(what_is_no_file_is_refused_before_it_is_opened)
{
    struct disk_config config = {.path = t.folder};
    enum disk_format format;
    struct err err = {0};
    bool guard;

    ck_assert_int_eq(disk_format_find(&config, &format, &guard, &err), -EISDIR);
    expect(err.text, "directory without vm.json");
    config.path = "/nowhere/disk.img";
    ck_assert_int_eq(disk_format_find(&config, &format, &guard, &err), -ENOENT);
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    unlink(t.path);
    ck_assert_int_eq(mkfifo(t.path, 0600), 0); /* would hang whoever opens it */
    config.path = t.path;
    ck_assert_int_eq(disk_format_find(&config, &format, &guard, &err), -EINVAL);
}
END_TEST

/* The mark. */

START_TEST(a_disk_that_was_raw_stays_raw_whatever_its_guest_writes)
{
    static const char *const heads[] = {"QFI\xfb", "KDMV", "#!/bin/sh\n", "\x1f\x8b\x08"};
    bool guard;

    if (!t.marks) {
        fprintf(stderr, "SKIPPED: %s takes no user attributes\n", t.folder);
        return;
    }
    ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_RAW);
    ck_assert(is_marked() && !guard);
    for (size_t i = 0; i < array_size(heads); i++) {
        write_head(heads[i], strlen(heads[i]));
        ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_RAW);
        ck_assert(!guard);
    }
}
END_TEST

START_TEST(a_format_that_is_named_wins_and_is_remembered)
{
    bool guard;

    write_head("QFI\xfb", 4);
    ck_assert_int_eq(
        find((struct disk_config){.format = DISK_FORMAT_RAW, .readonly = true}, &guard),
        DISK_FORMAT_RAW);
    ck_assert(!guard && !is_marked());
    ck_assert_int_eq(find((struct disk_config){.format = DISK_FORMAT_RAW}, &guard),
                     DISK_FORMAT_RAW);
    ck_assert(!guard);
    ck_assert(!t.marks || is_marked());
    if (t.marks)
        ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_RAW);
    ck_assert_int_eq(find((struct disk_config){.format = DISK_FORMAT_QCOW2}, &guard),
                     DISK_FORMAT_QCOW2);
    ck_assert(!is_marked());
    ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_QCOW2);
}
END_TEST

START_TEST(an_unknown_mark_is_none)
{
    bool guard;

    if (!t.marks)
        return;
    ck_assert_int_eq(setxattr(t.path, MARK, "rawhide", 7, 0), 0);
    write_head("QFI\xfb", 4);
    ck_assert_int_eq(find((struct disk_config){0}, &guard), DISK_FORMAT_QCOW2);
}
END_TEST

START_TEST(an_ephemeral_run_leaves_no_mark)
{
    bool guard = true;

    ck_assert_int_eq(find((struct disk_config){.ephemeral = true}, &guard), DISK_FORMAT_RAW);
    ck_assert(!is_marked() && !guard);
}
END_TEST

/* The guard. */

static void handle_done(struct disk_request *request, int result)
{
    ck_assert(t.may_be_done);
    *(int *)request->arg = result;
    t.under_way--;
}

static void handle_begin(void *ctx)
{
    t.may_be_done = true;
}

static void handle_end(void *ctx)
{
    t.may_be_done = false;
    loop_stop(t.loop);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    t.trouble = sentence;
}

static void set_up_guard(void)
{
    static const struct disk_client client = {
        .begin = handle_begin, .end = handle_end, .trouble = handle_trouble};

    memset(&t, 0, sizeof(t));
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.inner, t.bytes, SIZE);
    ck_assert_int_eq(disk_guard_create(&t.disk, &t.inner.disk, NULL), 0);
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
}

static void tear_down_guard(void)
{
    disk_detach(t.disk);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
}

static void submit(struct disk_request *request, int *ret_result)
{
    request->done = handle_done;
    request->arg = ret_result;
    t.under_way++;
    disk_submit(t.disk, request);
}

static void kick(void)
{
    t.may_be_done = true;
    disk_kick(t.disk);
    t.may_be_done = false;
}

static int run(enum disk_op op, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct disk_request request = {
        .op = op, .offset = offset, .length = iov_size(iov, count), .iov = iov, .iov_count = count};
    int result = 1;

    submit(&request, &result);
    kick();
    ck_assert_uint_eq(t.under_way, 0);
    return result;
}

static int write_bytes(uint64_t offset, const void *bytes, size_t length)
{
    struct iovec iov = {.iov_base = (void *)bytes, .iov_len = length};

    return run(DISK_WRITE, offset, &iov, 1);
}

START_TEST(the_guard_refuses_the_headers_of_other_formats)
{
    static const char *const heads[] = {"QFI\xfb", "KDMV", "COWD", "vhdxfile", "conectix", "QED"};
    uint8_t sectors[2 * SECTOR] = {0};

    for (size_t i = 0; i < array_size(heads); i++) {
        memset(sectors, 0, sizeof(sectors));
        memcpy(sectors, heads[i], strlen(heads[i]));
        ck_assert_int_eq(write_bytes(0, sectors, SECTOR), -EPERM);
        ck_assert_int_eq(write_bytes(0, sectors, 2 * SECTOR), -EPERM);
        ck_assert_int_eq(write_bytes(SECTOR, sectors, 2 * SECTOR), 0); /* elsewhere they are data */
        ck_assert_uint_eq(t.bytes[0], 0);
    }
    memset(sectors, 0, sizeof(sectors));
    memcpy(sectors + 64, "\x7f\x10\xda\xbe", 4);
    ck_assert_int_eq(write_bytes(0, sectors, SECTOR), -EPERM);
}
END_TEST

START_TEST(the_guard_sees_through_any_cut_of_the_buffers)
{
    uint8_t sectors[2 * SECTOR] = "QFI\xfb";
    struct iovec iov[] = {{.iov_base = sectors, .iov_len = 1},
                          {.iov_base = sectors + 1, .iov_len = 2},
                          {.iov_base = sectors + 3, .iov_len = SECTOR},
                          {.iov_base = sectors + 3 + SECTOR, .iov_len = SECTOR - 3}};

    ck_assert_int_eq(run(DISK_WRITE, 0, iov, 4), -EPERM);
    ck_assert_uint_eq(t.inner.asked[DISK_WRITE], 0);
    for (size_t i = 0; i < sizeof(sectors); i++)
        sectors[i] = (uint8_t)(i % 251 + 1);
    ck_assert_int_eq(run(DISK_WRITE, 0, iov, 4), 0);
    ck_assert_mem_eq(t.bytes, sectors, sizeof(sectors)); /* what is good comes through whole */
    ck_assert_uint_eq(t.bytes[sizeof(sectors)], 0);
}
END_TEST

START_TEST(what_the_guard_has_judged_the_guest_cannot_change)
{
    uint8_t sectors[2 * SECTOR] = "MBR";
    struct iovec iov = {.iov_base = sectors, .iov_len = sizeof(sectors)};
    struct disk_request request = {
        .op = DISK_WRITE, .length = sizeof(sectors), .iov = &iov, .iov_count = 1};
    int result = 1;

    submit(&request, &result);
    memcpy(sectors, "QFI\xfb", 4); /* while the disk is busy with it */
    kick();
    ck_assert_int_eq(result, 0);
    ck_assert_mem_eq(t.bytes, "MBR", 4);
}
END_TEST

START_TEST(the_guard_is_told_nothing_else)
{
    uint8_t sector[SECTOR] = "#!/bin/sh";
    struct iovec iov = {.iov_base = sector, .iov_len = SECTOR};

    ck_assert_int_eq(run(DISK_WRITE, 0, &iov, 1), 0); /* text is not dangerous */
    ck_assert_int_eq(run(DISK_READ, 0, &iov, 1), 0);
    ck_assert_int_eq(run(DISK_ZEROES, 0, &iov, 1), 0);
    ck_assert_int_eq(run(DISK_DISCARD, 0, &iov, 1), 0);
    ck_assert_int_eq(run(DISK_FLUSH, 0, NULL, 0), 0);
    ck_assert_int_eq(run(DISK_WRITE, 0, NULL, 0), 0);
    t.inner.fail = -EIO;
    ck_assert_int_eq(run(DISK_WRITE, 0, &iov, 1), -EIO);
}
END_TEST

/* The client answers a read of its own with a forbidden write, within a batch of the inner disk. */
static int forbidden_result;
static struct disk_request forbidden;

static void handle_chain(struct disk_request *request, int result)
{
    t.under_way--;
    submit(&forbidden, &forbidden_result);
}

START_TEST(a_refusal_within_a_batch_is_told_before_its_end)
{
    static uint8_t sector[SECTOR] = "QFI\xfb";
    static struct iovec iov = {.iov_base = sector, .iov_len = SECTOR};
    struct disk_request first = {
        .op = DISK_READ, .length = SECTOR, .iov = &iov, .iov_count = 1, .done = handle_chain};
    struct loop_call release = {.handle = fake_disk_release, .arg = &t.inner};

    forbidden_result = 1;
    forbidden = (struct disk_request){
        .op = DISK_WRITE, .length = SECTOR, .iov = &iov, .iov_count = 1};
    memcpy(t.bytes, sector, SECTOR);
    t.inner.hold = true;
    t.under_way++;
    disk_submit(t.disk, &first);
    kick();
    loop_post(t.loop, &release);
    ck_assert_int_eq(loop_run(t.loop), 0);
    ck_assert_int_eq(forbidden_result, -EPERM);
    ck_assert_uint_eq(t.under_way, 0);
}
END_TEST

START_TEST(drain_tells_refusals)
{
    uint8_t sector[SECTOR] = "QFI\xfb";
    struct iovec iov = {.iov_base = sector, .iov_len = SECTOR};
    struct disk_request request = {.op = DISK_WRITE, .length = SECTOR, .iov = &iov, .iov_count = 1};
    int result = 1;

    submit(&request, &result);
    t.may_be_done = true;
    disk_drain(t.disk);
    ck_assert_int_eq(result, -EPERM);
}
END_TEST

START_TEST(the_guard_passes_on_cancels_and_trouble)
{
    uint8_t sector[SECTOR] = {0};
    struct iovec iov = {.iov_base = sector, .iov_len = SECTOR};
    struct disk_request request = {.op = DISK_WRITE, .length = SECTOR, .iov = &iov, .iov_count = 1};
    int result = 1;

    t.inner.hold = t.inner.may_cancel = true;
    submit(&request, &result);
    t.may_be_done = true;
    disk_kick(t.disk);
    ck_assert_int_eq(result, 1);
    disk_cancel(t.disk);
    ck_assert_int_eq(result, -ECANCELED);
    t.inner.client.trouble(t.inner.client.ctx, "it is damaged");
    ck_assert_str_eq(t.trouble, "it is damaged");
}
END_TEST

/* All together, where marks are not to be had: one of the mounts that every Linux has. */
START_TEST(where_no_mark_can_be_left_the_guard_stands)
{
    uint8_t sector[SECTOR] = "QFI\xfb";
    struct iovec iov = {.iov_base = sector, .iov_len = SECTOR};
    struct disk_request request = {.op = DISK_WRITE, .length = SECTOR, .iov = &iov, .iov_count = 1};
    static const struct disk_client client = {.begin = handle_begin, .end = handle_end};
    int result = 1;
    struct err err;

    leave_folder();
    use_folder("/dev/shm");
    struct disk_config config = {.path = t.path};
    ck_assert_int_eq(disk_open(&t.disk, &config, &err), 0);
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    submit(&request, &result);
    t.may_be_done = true;
    disk_drain(t.disk);
    ck_assert_int_eq(result, t.marks ? 0 : -EPERM);
    disk_detach(t.disk);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
    ck_assert_int_eq(is_marked(), t.marks);
    ck_assert_int_eq(disk_open(&t.disk, &config, &err), 0); /* raw it is, and raw it was */
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    disk_destroy(t.disk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_format");
    TCase *format = tcase_create("format"), *guard = tcase_create("guard");

    tcase_add_checked_fixture(format, set_up, tear_down);
    tcase_add_test(format, a_bare_file_is_raw_unless_it_says_qcow2);
    tcase_add_test(format, a_file_shorter_than_a_magic_number_is_no_danger);
    tcase_add_loop_test(format, a_foreign_format_is_named_with_its_mend, 0, array_size(foreign));
    tcase_add_test(format, formats_that_begin_elsewhere_are_found_too);
    tcase_add_test(format, text_and_nothing_are_no_disks);
    tcase_add_test(format, what_is_no_file_is_refused_before_it_is_opened);
    tcase_add_test(format, a_disk_that_was_raw_stays_raw_whatever_its_guest_writes);
    tcase_add_test(format, a_format_that_is_named_wins_and_is_remembered);
    tcase_add_test(format, an_unknown_mark_is_none);
    tcase_add_test(format, an_ephemeral_run_leaves_no_mark);
    tcase_add_test(format, where_no_mark_can_be_left_the_guard_stands);
    tcase_add_checked_fixture(guard, set_up_guard, tear_down_guard);
    tcase_add_test(guard, the_guard_refuses_the_headers_of_other_formats);
    tcase_add_test(guard, the_guard_sees_through_any_cut_of_the_buffers);
    tcase_add_test(guard, what_the_guard_has_judged_the_guest_cannot_change);
    tcase_add_test(guard, the_guard_is_told_nothing_else);
    tcase_add_test(guard, a_refusal_within_a_batch_is_told_before_its_end);
    tcase_add_test(guard, drain_tells_refusals);
    tcase_add_test(guard, the_guard_passes_on_cancels_and_trouble);
    suite_add_tcase(suite, format);
    suite_add_tcase(suite, guard);
    return unit_main(suite);
}
