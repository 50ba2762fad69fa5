/* SPDX-License-Identifier: MIT */
/*
 * A qcow2 image after kills and power cuts at any moment: qemu-img may find clusters that nobody
 * uses, but no error, and what a completed flush covered is there.
 *
 * Each sector of the disk has versions; its bytes say which one they are. After a cut each sector
 * has one that is not older than what the last flush covered.
 */
#include "tests/unit/power_cut.h"
#include "tests/unit/qcow2_random.h"
#include <sys/mman.h>

enum { SIZE = 4 << 20, SECTOR = 512, SECTORS = SIZE / SECTOR, MOST_VERSIONS = 250, FLUSHES = 512 };

struct flush {
    size_t point; /* done when so much was recorded */
    uint8_t versions[SECTORS];
};

struct history {
    uint8_t begun[SECTORS], done[SECTORS];
    bool zero[SECTORS][MOST_VERSIONS + 1];
    struct flush flushes[FLUSHES];
    unsigned flush_count;
};

static struct history *history;
static uint8_t *base; /* version 0 */
static unsigned keep_percent;

static bool keep(void)
{
    return rig_random(100) < keep_percent;
}

static void stamp(uint8_t *bytes, uint64_t sector, unsigned version)
{
    memset(bytes, 0x80 | (int)(sector % 97), SECTOR);
    memcpy(bytes, &sector, sizeof(sector));
    bytes[8] = (uint8_t)version;
}

/* Which versions could these bytes be? */
static bool is_version(const uint8_t *bytes, uint64_t sector, unsigned version)
{
    static const uint8_t zeroes[SECTOR];
    uint8_t expected[SECTOR];

    if (version == 0)
        return memcmp(bytes, base + sector * SECTOR, SECTOR) == 0;
    if (history->zero[sector][version])
        return memcmp(bytes, zeroes, SECTOR) == 0;
    stamp(expected, sector, version);
    return memcmp(bytes, expected, SECTOR) == 0;
}

static void begin(struct rig_job *job)
{
    struct disk_request *request = &job->request;
    uint64_t first = request->offset / SECTOR, count = request->length / SECTOR;

    for (uint64_t i = 0; i < count; i++) {
        unsigned version = ++history->begun[first + i];
        ck_assert_uint_le(version, MOST_VERSIONS);
        history->zero[first + i][version] = request->op != DISK_WRITE;
        if (request->op == DISK_WRITE)
            stamp(job->buffer + i * SECTOR, first + i, version);
    }
    job->iov[0] = (struct iovec){.iov_base = job->buffer, .iov_len = request->length};
    request->iov_count = 1;
    rig_submit(job);
}

static void end(const struct rig_job *job)
{
    uint64_t first = job->request.offset / SECTOR;

    ck_assert(job->result == 0 || (cut.fail_percent && job->result == -EIO));
    for (uint64_t i = 0; job->result == 0 && i < job->request.length / SECTOR; i++)
        history->done[first + i] = history->begun[first + i];
}

static void flush(void)
{
    struct flush *flush = &history->flushes[history->flush_count];

    memcpy(flush->versions, history->done, sizeof(flush->versions));
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    flush->point = cut_now();
    history->flush_count++;
}

/* Several at a time, which do not overlap. */
static void write_round(unsigned depth, bool unmap)
{
    uint64_t place = SECTORS / depth;

    for (unsigned i = 0; i < depth; i++) {
        struct disk_request *request = &rig.jobs[i].request;
        uint64_t sectors = 1 + rig_random(rig_random(3) ? 16 : place < 256 ? place : 256);
        *request = (struct disk_request){.op = rig_random(4) ? DISK_WRITE : DISK_ZEROES,
                                         .unmap = unmap && rig_random(2),
                                         .offset = (i * place + rig_random(place - sectors + 1)) *
                                                   SECTOR,
                                         .length = sectors * SECTOR};
        begin(&rig.jobs[i]);
    }
    rig_wait();
    for (unsigned i = 0; i < depth; i++)
        end(&rig.jobs[i]);
}

static void check_versions(size_t point)
{
    const struct flush *last = NULL;
    uint8_t *bytes = malloc(SIZE);

    for (unsigned i = 0; i < history->flush_count; i++)
        if (history->flushes[i].point <= point)
            last = &history->flushes[i];
    ck_assert_int_eq(rig_run(DISK_READ, 0, SIZE, bytes), 0);
    for (uint64_t sector = 0; sector < SECTORS; sector++) {
        unsigned from = last ? last->versions[sector] : 0, version = from;
        while (version <= history->begun[sector] &&
               !is_version(bytes + sector * SECTOR, sector, version))
            version++;
        ck_assert_msg(version <= history->begun[sector],
                      "cut %zu: sector %llu has none of its versions %u to %u", point,
                      (unsigned long long)sector, from, history->begun[sector]);
    }
    free(bytes);
}

static const struct {
    const char *make;
    bool backing;
    bool keep; /* zeroes keep their place: mappings change, and no refcount does */
} kinds[] = {
    {"qemu-img create -q -f qcow2 disk.qcow2 4M", false, false},
    {"qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k disk.qcow2 4M", false, false},
    {"qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk.qcow2 4M", false,
     false},
    {"qemu-img create -q -f qcow2 -o cluster_size=16k -b base.raw -F raw disk.qcow2 4M", true,
     false},
    {"qemu-img create -q -f qcow2 -o preallocation=metadata disk.qcow2 4M", false, false},
    {"qemu-img create -q -f qcow2 -o preallocation=metadata,cluster_size=4k disk.qcow2 4M", false,
     true},
    {"qemu-img convert -c -O qcow2 base.raw disk.qcow2", false, false},
    {"qemu-img convert -O qcow2 -o cluster_size=4k base.raw disk.qcow2 && "
     "qemu-img snapshot -c one disk.qcow2",
     false, false},
};

static void take_base(void)
{
    base = malloc(SIZE);
    ck_assert_int_eq(rig_run(DISK_READ, 0, SIZE, base), 0);
}

/* Anywhere, or where it is most delicate: when all is begun that a sync has to wait for. */
static size_t choose_point(void)
{
    size_t point = rig_random(cut.count + 1);

    if (rig_random(4) == 0)
        return point;
    while (point < cut.count && cut.entries[point].kind != CUT_SYNC)
        point++;
    return point - (rig_random(2) && point > 8 ? rig_random(8) : 0);
}

START_TEST(no_cut_leaves_errors_or_loses_what_was_flushed)
{
    struct disk_config config = {.backing = kinds[_i].backing, .engine = DISK_ENGINE_THREADS};
    uint64_t points = 28;

    if (!rig_has_qemu_img())
        return;
    rig.random = (uint64_t)_i + 100;
    history = calloc(1, sizeof(*history));
    rig_make_raw("base.raw", SIZE);
    ck_assert_int_eq(rig_shell("%s", kinds[_i].make), 0);
    cut_start(rig.path);
    rig_open(config);
    take_base();
    for (unsigned i = 0; i < 30; i++) {
        write_round(1 + (unsigned)rig_random(RIG_DEPTH), !kinds[_i].keep);
        if (rig_random(4) == 0)
            flush();
        else if (rig_random(8) == 0)
            rig_drain();
    }
    rig_close();
    cut.on = false;
    for (uint64_t i = 0; i < points; i++) {
        static const unsigned percents[] = {0, 20, 50, 80, 99};
        size_t point = i == 0 ? cut.count : choose_point();
        keep_percent = percents[rig_random(array_size(percents))];
        cut_make(rig.path, point, i % 4 != 0, keep);
        rig_check(true);
        /* And it is a disk that can be read, and written to. */
        rig_open((struct disk_config){.readonly = true, .backing = kinds[_i].backing});
        check_versions(point);
        rig_close();
        if (i % 4)
            continue;
        rig_open(config);
        rig_take_shadow();
        rig_rounds(2);
        rig_close();
        rig_check(true);
    }
    cut_finish();
    free(history);
    free(base);
}
END_TEST

/* The real thing, as far as that goes: what was written is in the page cache. */
static void write_until_killed(int acknowledge)
{
    uint8_t block[4096];

    rig_open((struct disk_config){.engine = rig_engines[rig_random(2)]});
    for (uint32_t i = 0;; i++) {
        memset(block, (int)(i % 255 + 1), sizeof(block));
        if (rig_run(DISK_WRITE, (uint64_t)i * 7 % 1021 * 4096, sizeof(block), block) != 0)
            _exit(1);
        if (i % 11 == 3 && rig_run(DISK_ZEROES, (uint64_t)i * 7 % 1021 * 4096, 4096, NULL) != 0)
            _exit(1);
        if (i % 16 != 15)
            continue;
        if (rig_run(DISK_FLUSH, 0, 0, NULL) != 0 ||
            write(acknowledge, &i, sizeof(i)) != (ssize_t)sizeof(i))
            _exit(1);
    }
}

/* Any write and any sync may fail, of data and of metadata; then the host is well again. */
START_TEST(errors_of_the_host_leave_a_sound_image)
{
    struct disk_config config = {.backing = kinds[_i].backing, .engine = DISK_ENGINE_THREADS};

    if (!rig_has_qemu_img())
        return;
    history = calloc(1, sizeof(*history));
    rig_make_raw("base.raw", SIZE);
    ck_assert_int_eq(rig_shell("%s", kinds[_i].make), 0);
    rig_open(config);
    take_base();
    cut_start(rig.path);
    for (unsigned i = 0; i < 24; i++) {
        cut.fail_percent = i % 8 ? (unsigned)rig_random(12) : 60;
        write_round(1 + (unsigned)rig_random(RIG_DEPTH), !kinds[_i].keep);
        if (rig_random(4) == 0)
            (void)rig_run(DISK_FLUSH, 0, 0, NULL);
        else if (rig_random(8) == 0)
            rig_drain();
    }
    cut.fail_percent = 0;
    rig_drain();
    memcpy(history->flushes[0].versions, history->done, sizeof(history->done));
    history->flush_count = 1;
    check_versions(SIZE_MAX);
    rig_close();
    rig_check(true);
    rig_open(config);
    check_versions(SIZE_MAX);
    rig_close();
    cut.on = false;
    cut_finish();
    free(history);
    free(base);
}
END_TEST

/* The kernel says it once, and here to a commit that no flush waits for. */
START_TEST(the_error_of_a_commit_by_itself_is_told_to_the_next_flush)
{
    struct disk_config config = {.engine = DISK_ENGINE_THREADS};
    uint8_t bytes[4096] = {1};

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 4M");
    rig_open(config);
    cut_start(rig.path);
    ck_assert_int_eq(rig_run(DISK_WRITE, 0, sizeof(bytes), bytes), 0);
    cut.fail_syncs = 1;
    rig_drain();
    ck_assert_uint_eq(cut.fail_syncs, 0);
    rig_drain(); /* what it knows is in the file now; what the guest wrote may be nowhere */
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), -EIO);
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    ck_assert_int_eq(rig_run(DISK_WRITE, SIZE / 2, sizeof(bytes), bytes), 0);
    cut.fail_syncs = 1;
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), -EIO); /* told at once */
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    rig_close();
    cut.on = false;
    cut_finish();
}
END_TEST

/* The kernel may end a dead process's requests a moment later, and its lock with them. */
static void wait_for_lock(void)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int fd = open(rig.path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_OFD_SETLKW, &lock), 0);
    close(fd);
}

/* No flush: what is done is there. */
START_TEST(no_cut_loses_what_was_written_through)
{
    struct disk_config config = {.write_through = true, .engine = DISK_ENGINE_THREADS};

    if (!rig_has_qemu_img())
        return;
    history = calloc(1, sizeof(*history));
    rig_make_raw("base.raw", SIZE);
    rig_make("convert -c -O qcow2 -o cluster_size=%s base.raw disk.qcow2", _i ? "64k" : "4k");
    cut_start(rig.path);
    cut.dsync = true;
    rig_open(config);
    take_base();
    for (unsigned i = 0; i < 20; i++) {
        struct flush *flush = &history->flushes[history->flush_count];
        write_round(1 + (unsigned)rig_random(8), true);
        memcpy(flush->versions, history->done, sizeof(flush->versions));
        flush->point = cut_now();
        history->flush_count++;
    }
    rig_close();
    cut.on = false;
    for (unsigned i = 0; i < 24; i++) {
        size_t point = choose_point();
        keep_percent = i % 3 * 40;
        cut_make(rig.path, point, true, keep);
        rig_check(true);
        rig_open((struct disk_config){.readonly = true});
        check_versions(point);
        rig_close();
    }
    cut_finish();
    cut.dsync = false;
    free(history);
    free(base);
}
END_TEST

START_TEST(a_killed_process_leaves_a_sound_image)
{
    uint8_t block[4096];

    if (!rig_has_qemu_img())
        return;
    for (unsigned round = 0; round < 8; round++) {
        int pipes[2];
        uint32_t last = 0, wanted = 1 + (uint32_t)rig_random(20), got = 0;
        rig.random += round;
        rig_make("create -q -f qcow2 -o cluster_size=%s disk.qcow2 4M", round % 2 ? "64k" : "4k");
        ck_assert_int_eq(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0)
            write_until_killed(pipes[1]);
        close(pipes[1]);
        while (got < wanted && read(pipes[0], &last, sizeof(last)) == (ssize_t)sizeof(last))
            got++;
        ck_assert_uint_eq(got, wanted);
        usleep((useconds_t)rig_random(2000)); /* into the middle of something */
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(pipes[0], &last, sizeof(last)) == (ssize_t)sizeof(last))
            got++;
        close(pipes[0]);
        wait_for_lock();
        rig_check(true);
        rig_open((struct disk_config){0});
        for (uint32_t i = 0; i <= last; i++) {
            /* Written again later: perhaps, or surely. */
            if (i + 1021 <= last + 64)
                continue;
            ck_assert_int_eq(rig_run(DISK_READ, (uint64_t)i * 7 % 1021 * 4096, 4096, block), 0);
            ck_assert_uint_eq(block[4095], i % 11 == 3 ? 0 : i % 255 + 1);
        }
        rig_close();
        rig_check(true);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_qcow2_crash");
    TCase *tc = tcase_create("disk_qcow2_crash");

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, rig_set_up, rig_tear_down);
    tcase_add_loop_test(tc, no_cut_leaves_errors_or_loses_what_was_flushed, 0,
                        (int)array_size(kinds));
    tcase_add_loop_test(tc, errors_of_the_host_leave_a_sound_image, 0, (int)array_size(kinds));
    tcase_add_test(tc, the_error_of_a_commit_by_itself_is_told_to_the_next_flush);
    tcase_add_loop_test(tc, no_cut_loses_what_was_written_through, 0, 2);
    tcase_add_test(tc, a_killed_process_leaves_a_sound_image);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
