/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "host/disk_limit.h"
#include "host/disk_point.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    CLUSTER = 64 << 10,
    SIZE = 40 * CLUSTER + 5 * SECTOR, /* its last cluster is a part of one */
    SECTORS = SIZE / SECTOR,
    GUESTS = 32, /* requests at a time */
    GUEST_BYTES = 300 << 10,
};

struct guest {
    struct disk_request request;
    struct iovec iov;
    uint8_t *bytes;
    uint64_t tag;
    bool busy;
};

static struct {
    struct loop *loop;
    struct fake_disk inner, target;
    uint8_t bytes[SIZE], copied[SIZE];
    struct disk *disk;
    struct disk_copy *copy;
    bool ended;
    int result;
    unsigned in_batch;

    struct guest guests[GUESTS];
    unsigned busy, cancelled;
    uint64_t tag;
    uint64_t model[SECTORS];  /* what the guest knows to be there */
    uint64_t moment[SECTORS]; /* and was at the moment of the copy */
    uint64_t race[SECTORS];   /* what was on its way there then; 0: nothing */
    bool taken[SECTORS];      /* by a request of the guest that is under way */
    uint32_t seed;
} t;

static uint32_t chance(uint32_t below)
{
    t.seed = t.seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)(t.seed >> 4) * below >> 28);
}

static uint64_t tag_at(const uint8_t *bytes, uint64_t sector)
{
    uint64_t tag;

    memcpy(&tag, bytes + sector * SECTOR, sizeof(tag));
    return tag;
}

static void put_tag(uint8_t *sector, uint64_t tag)
{
    for (unsigned i = 0; i < SECTOR; i += sizeof(tag))
        memcpy(sector + i, &tag, sizeof(tag));
}

/* Every sector is one tag, all through: none is torn. */
static void check_whole(const uint8_t *bytes)
{
    for (uint64_t sector = 0; sector < SECTORS; sector++)
        if (memcmp(bytes + sector * SECTOR, bytes + sector * SECTOR + 8, SECTOR - 8) != 0)
            ck_abort_msg("sector %llu is torn", (unsigned long long)sector);
}

/* --- the rig -------------------------------------------------------------------------------- */

static void handle_begin(void *ctx)
{
    ck_assert_uint_eq(t.in_batch++, 0);
}

static void handle_end(void *ctx)
{
    ck_assert_uint_eq(t.in_batch--, 1);
}

static const struct disk_client client = {.begin = handle_begin, .end = handle_end};

static void handle_ended(void *ctx, int result)
{
    ck_assert(!t.ended);
    t.ended = true;
    t.result = result;
}

static const struct disk_copy_handlers handlers = {.ended = handle_ended};

static void fill(void)
{
    for (uint64_t sector = 0; sector < SECTORS; sector++) {
        /* Some clusters are empty, some in part. */
        uint64_t cluster = sector * SECTOR / CLUSTER;
        bool empty = cluster % 5 == 1 || (cluster % 5 == 2 && sector % 128 < 100);
        t.model[sector] = empty ? 0 : ++t.tag;
        put_tag(t.bytes + sector * SECTOR, t.model[sector]);
    }
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.inner, t.bytes, SIZE);
    fake_disk_init(&t.target, t.copied, SIZE);
    fill();
    for (unsigned i = 0; i < GUESTS; i++)
        t.guests[i].bytes = malloc(GUEST_BYTES);
    /* Below a limiter, as in a VM. */
    ck_assert_int_eq(disk_point_create(&t.disk, &t.inner.disk, "/dev/null", NULL), 0);
    ck_assert_int_eq(disk_limit_create(&t.disk, t.disk, &(struct limits){0}, NULL, NULL), 0);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
}

static void tear_down(void)
{
    disk_drain(t.disk);
    ck_assert_uint_eq(t.busy, 0);
    disk_detach(t.disk);
    ck_assert(t.ended || !t.copy);
    ck_assert(!t.target.attached && !t.inner.attached);
    disk_copy_destroy(t.copy);
    disk_destroy(t.disk);
    for (unsigned i = 0; i < GUESTS; i++)
        free(t.guests[i].bytes);
    loop_destroy(t.loop);
}

static void handle_stop(void *arg)
{
    loop_stop(t.loop);
}

/* Whatever is due on the loop. */
static void turn(void)
{
    static struct loop_call stop = {.handle = handle_stop};

    for (unsigned i = 0; i < 2; i++) {
        loop_post(t.loop, &stop);
        ck_assert_int_eq(loop_run(t.loop), 0);
    }
}

static void make_copy(void)
{
    ck_assert_int_eq(disk_copy_create(&t.copy, t.disk, &t.target.disk, &handlers, NULL), 0);
}

static void start(void)
{
    memcpy(t.moment, t.model, sizeof(t.moment));
    for (unsigned i = 0; i < GUESTS; i++) {
        const struct disk_request *request = &t.guests[i].request;
        if (t.guests[i].busy && (request->op == DISK_WRITE || request->op == DISK_ZEROES))
            for (uint64_t at = 0; at < request->length; at += SECTOR)
                t.race[(request->offset + at) / SECTOR] = t.guests[i].tag ? t.guests[i].tag
                                                                          : UINT64_MAX;
    }
    ck_assert_int_eq(disk_copy_start(t.copy, NULL), 0);
}

static void check_copy(void)
{
    check_whole(t.copied);
    for (uint64_t sector = 0; sector < SECTORS; sector++) {
        uint64_t tag = tag_at(t.copied, sector), race = t.race[sector];
        if (tag != t.moment[sector] && (!race || tag != (race == UINT64_MAX ? 0 : race)))
            ck_abort_msg("sector %llu: %llu, not %llu", (unsigned long long)sector,
                         (unsigned long long)tag, (unsigned long long)t.moment[sector]);
    }
}

static void check_guest(void)
{
    for (uint64_t sector = 0; sector < SECTORS; sector++)
        if (tag_at(t.bytes, sector) != t.model[sector])
            ck_abort_msg("the guest's sector %llu has changed", (unsigned long long)sector);
}

/* --- the guest ------------------------------------------------------------------------------ */

static void handle_done(struct disk_request *request, int result)
{
    struct guest *guest = container_of(request, struct guest, request);
    bool changes = request->op == DISK_WRITE || request->op == DISK_ZEROES;

    ck_assert(guest->busy);
    guest->busy = false;
    t.busy--;
    t.cancelled += result == -ECANCELED;
    ck_assert(result == 0 || result == -ECANCELED);
    for (uint64_t at = 0; at < request->length; at += SECTOR) {
        uint64_t sector = (request->offset + at) / SECTOR;
        t.taken[sector] = false;
        if (result == 0 && changes)
            t.model[sector] = guest->tag;
        if (result == 0 && request->op == DISK_READ &&
            tag_at(guest->bytes, at / SECTOR) != t.model[sector])
            ck_abort_msg("the guest reads something else at %llu", (unsigned long long)sector);
    }
}

static struct guest *find_idle(void)
{
    for (unsigned i = 0; i < GUESTS; i++)
        if (!t.guests[i].busy)
            return &t.guests[i];
    return NULL;
}

static bool is_free(uint64_t offset, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += SECTOR)
        if (t.taken[(offset + at) / SECTOR])
            return false;
    return true;
}

/* False: all are busy, or there. */
static bool submit(enum disk_op op, uint64_t offset, uint64_t length)
{
    struct guest *guest = find_idle();

    if (!guest || !is_free(offset, length))
        return false;
    guest->tag = op == DISK_ZEROES ? 0 : ++t.tag;
    guest->iov = (struct iovec){.iov_base = guest->bytes, .iov_len = length};
    guest->request = (struct disk_request){.op = op,
                                           .unmap = chance(2),
                                           .offset = offset,
                                           .length = length,
                                           .iov = &guest->iov,
                                           .iov_count = 1,
                                           .done = handle_done};
    for (uint64_t at = 0; at < length; at += SECTOR) {
        t.taken[(offset + at) / SECTOR] = true;
        if (op == DISK_WRITE)
            put_tag(guest->bytes + at, guest->tag);
    }
    guest->busy = true;
    t.busy++;
    disk_submit(t.disk, &guest->request);
    return true;
}

static void submit_some(void)
{
    static const enum disk_op ops[] = {DISK_READ,   DISK_WRITE,   DISK_WRITE, DISK_WRITE,
                                       DISK_ZEROES, DISK_DISCARD, DISK_FLUSH};
    enum disk_op op = ops[chance(array_size(ops))];
    uint64_t most = chance(4) ? 16 : GUEST_BYTES / SECTOR;
    uint64_t first = chance(SECTORS), count = 1 + chance((uint32_t)most);

    if (count > SECTORS - first)
        count = SECTORS - first;
    if (op == DISK_FLUSH)
        first = count = 0;
    submit(op, first * SECTOR, count * SECTOR);
}

/* One of those that the disk holds, any of them. */
static void release_one(struct fake_disk *fake)
{
    struct disk_queue rest;
    unsigned count = 0;

    for (struct disk_request *request = fake->held.first; request; request = request->next)
        count++;
    if (count == 0)
        return;
    unsigned which = chance(count);
    struct disk_request *chosen = NULL;
    disk_queue_init(&rest);
    for (unsigned i = 0; i < count; i++) {
        struct disk_request *request = disk_queue_take(&fake->held);
        if (i == which)
            chosen = request;
        else
            disk_queue_add(&rest, request);
    }
    disk_queue_join(&fake->held, &rest);
    fake->held_count--;
    fake->client.begin(fake->client.ctx);
    chosen->done(chosen, fake_disk_carry_out(fake, chosen));
    fake_disk_kick(&fake->disk);
    fake->client.end(fake->client.ctx);
}

/* Anything that can happen. */
static void step(void)
{
    switch (chance(12)) {
    case 0:
    case 1:
    case 2:
        submit_some();
        if (chance(2))
            disk_kick(t.disk);
        break;
    case 3:
        disk_kick(t.disk);
        break;
    case 4:
    case 5:
    case 6:
        release_one(&t.inner);
        break;
    case 7:
    case 8:
        if (t.target.attached)
            release_one(&t.target);
        break;
    default:
        turn();
    }
}

/* A reset of the guest's driver. */
static void cancel(void)
{
    t.inner.may_cancel = chance(2);
    disk_cancel(t.disk);
    if (chance(2))
        disk_drain(t.disk);
}

static void finish_copy(void)
{
    for (unsigned i = 0; !t.ended; i++) {
        ck_assert_uint_lt(i, 100000);
        disk_kick(t.disk);
        release_one(&t.inner);
        if (t.target.attached)
            release_one(&t.target);
        turn();
    }
}

/* --- promises ------------------------------------------------------------------------------- */

START_TEST(the_copy_is_what_was_there_at_the_moment)
{
    t.seed = (uint32_t)_i;
    t.inner.hold = t.target.hold = true;
    for (unsigned i = 0; i < 60; i++)
        step();
    make_copy();
    for (unsigned i = 0; i < 10; i++)
        step();
    start();
    for (unsigned i = 0; i < 1500 && !t.ended; i++)
        step();
    finish_copy();
    ck_assert_int_eq(t.result, 0);
    ck_assert_uint_eq(disk_copy_bytes(t.copy), SIZE);
    disk_drain(t.disk);
    check_copy();
    check_guest();
    check_whole(t.bytes);
}
END_TEST

START_TEST(resets_of_the_guest_do_not_hurt_it)
{
    t.seed = (uint32_t)_i;
    t.inner.hold = t.target.hold = true;
    for (unsigned i = 0; i < 60; i++)
        step();
    make_copy();
    start();
    for (unsigned i = 0; i < 1500 && !t.ended; i++) {
        step();
        if (chance(40) == 0)
            cancel();
    }
    finish_copy();
    ck_assert_int_eq(t.result, 0);
    disk_drain(t.disk);
    check_copy();
    check_guest();
}
END_TEST

/* At any time: by the person, by the disk's end, by the target's disk that is full. */
START_TEST(a_copy_that_is_given_up_does_not_hurt_the_guest)
{
    t.seed = (uint32_t)_i;
    t.inner.hold = t.target.hold = true;
    for (unsigned i = 0; i < 30; i++)
        step();
    make_copy();
    start();
    for (unsigned i = chance(600); i > 0; i--)
        step();
    bool over = t.ended;
    int expected = -ECANCELED;
    switch (_i % 3) {
    case 0:
        disk_copy_stop(t.copy);
        disk_copy_stop(t.copy);
        break;
    case 1:
        expected = -ENOSPC;
        t.target.fail = expected;
        break;
    default:
        expected = -EIO;
        t.target.fail = expected;
        t.target.fail_op = DISK_FLUSH;
    }
    for (unsigned i = 0; i < 50; i++)
        step();
    finish_copy();
    if (!over)
        ck_assert_int_eq(t.result, expected);
    ck_assert(!t.target.attached);
    for (unsigned i = 0; i < 300; i++)
        step();
    disk_drain(t.disk);
    check_guest();
}
END_TEST

START_TEST(the_end_of_the_disk_ends_the_copy)
{
    t.seed = (uint32_t)_i;
    t.inner.hold = t.target.hold = true;
    for (unsigned i = 0; i < 30; i++)
        step();
    make_copy();
    start();
    for (unsigned i = chance(300); i > 0; i--)
        step();
    disk_cancel(t.disk);
    disk_drain(t.disk);
    ck_assert_uint_eq(t.busy, 0);
    check_guest();
    bool over = t.ended;
    disk_detach(t.disk);
    ck_assert(t.ended);
    if (!over)
        ck_assert_int_eq(t.result, -ECANCELED);
    ck_assert(!t.target.attached);
    turn(); /* nothing of it is left on the loop */
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
}
END_TEST

START_TEST(a_read_error_of_the_image_ends_the_copy_alone)
{
    make_copy();
    start();
    t.inner.fail = -EIO;
    t.inner.fail_op = DISK_READ;
    submit(DISK_WRITE, 0, 4096);
    disk_kick(t.disk);
    finish_copy();
    ck_assert_int_eq(t.result, -EIO);
    ck_assert_uint_eq(t.busy, 0);
    check_guest();
}
END_TEST

START_TEST(one_copy_after_the_other)
{
    for (unsigned i = 0; i < 3; i++) {
        fake_disk_init(&t.target, t.copied, SIZE);
        memset(t.copied, 0, SIZE);
        t.ended = false;
        make_copy();
        start();
        struct fake_disk other;
        struct disk_copy *second;
        struct err err = {0};
        fake_disk_init(&other, NULL, SIZE);
        ck_assert_int_eq(disk_copy_create(&second, t.disk, &other.disk, &handlers, NULL), 0);
        ck_assert_int_eq(disk_copy_start(second, &err), -EBUSY);
        ck_assert_int_eq(err.kind, ERR_STATE);
        disk_copy_stop(second);
        disk_copy_destroy(second);
        submit(DISK_WRITE, 12 * SECTOR, 300 * SECTOR);
        disk_kick(t.disk);
        finish_copy();
        ck_assert_int_eq(t.result, 0);
        check_copy();
        check_guest();
        disk_copy_stop(t.copy); /* too late is no harm */
        disk_copy_destroy(t.copy);
        t.copy = NULL;
        submit(DISK_WRITE, i * CLUSTER, CLUSTER);
        disk_kick(t.disk);
    }
}
END_TEST

START_TEST(a_target_of_another_size_is_refused)
{
    struct fake_disk other;
    struct err err = {0};

    fake_disk_init(&other, NULL, SIZE + SECTOR);
    ck_assert_int_lt(disk_copy_create(&t.copy, t.disk, &other.disk, &handlers, &err), 0);
    ck_assert(err.kind);
}
END_TEST

START_TEST(empty_clusters_are_not_written)
{
    memset(t.bytes, 0, SIZE);
    memset(t.model, 0, sizeof(t.model));
    t.model[700] = 7;
    put_tag(t.bytes + 700 * SECTOR, 7);
    make_copy();
    start();
    finish_copy();
    ck_assert_uint_eq(t.target.asked[DISK_WRITE], 1);
    check_copy();
}
END_TEST

/* It waits for one cluster at most, and neither for the rest of the copy nor for the target. */
START_TEST(a_write_waits_for_its_own_cluster_only)
{
    make_copy();
    start();
    t.target.hold = true;
    turn(); /* the background has all its lanes, which wait for the target */
    t.inner.hold = true;
    submit(DISK_WRITE, 30 * CLUSTER, 4096);
    disk_kick(t.disk);
    ck_assert_uint_eq(t.inner.held_count, 1); /* the read */
    ck_assert_uint_eq(t.busy, 1);
    release_one(&t.inner);
    ck_assert_uint_eq(t.inner.held_count, 1); /* and then the write */
    release_one(&t.inner);
    ck_assert_uint_eq(t.busy, 0);
    t.inner.hold = t.target.hold = false;
    finish_copy();
    check_copy();
}
END_TEST

START_TEST(a_discard_does_not_wait)
{
    make_copy();
    start();
    submit(DISK_DISCARD, 0, GUEST_BYTES / SECTOR * SECTOR);
    disk_kick(t.disk);
    ck_assert_uint_eq(t.busy, 0);
    ck_assert_uint_eq(t.inner.asked[DISK_DISCARD], 0);
    finish_copy();
    check_copy();
    submit(DISK_DISCARD, 0, GUEST_BYTES / SECTOR * SECTOR);
    ck_assert_uint_eq(t.inner.asked[DISK_DISCARD], 1);
}
END_TEST

/* Between two guest's requests the background takes one lane, else more. */
START_TEST(the_background_yields_to_the_guest)
{
    t.target.hold = true;
    make_copy();
    start();
    submit(DISK_READ, 0, 4096);
    disk_kick(t.disk);
    turn();
    unsigned busy = t.target.held_count;
    ck_assert_uint_eq(busy, 1);
    turn();
    turn();
    ck_assert_uint_ge(t.target.held_count, busy);
    t.target.hold = false;
    finish_copy();
    check_copy();
}
END_TEST

START_TEST(the_guest_gets_all_through_a_drain)
{
    t.inner.hold = t.target.hold = true;
    make_copy();
    start();
    for (unsigned i = 0; i < GUESTS; i++)
        submit(DISK_WRITE, i * CLUSTER, 4096);
    submit(DISK_WRITE, 20 * CLUSTER + 8192, 2 * CLUSTER);
    disk_drain(t.disk); /* before its first turn */
    ck_assert_uint_eq(t.busy, 0);
    ck_assert(!t.ended);
    finish_copy();
    check_copy();
    check_guest();
}
END_TEST

START_TEST(a_disk_without_a_point_has_none)
{
    ck_assert_int_eq(disk_point_image(&t.inner.disk), -1);
    ck_assert_int_ge(disk_point_image(t.disk), 0);
}
END_TEST

/* --- real files ----------------------------------------------------------------------------- */

enum { FILE_SIZE = 48 << 20, WRITERS = 8, WRITE_BYTES = 12 << 10 };

static struct {
    char folder[64], image[96], copy[96];
    struct disk *disk;
    struct disk_request requests[WRITERS];
    struct iovec iov[WRITERS];
    uint8_t bytes[WRITERS][WRITE_BYTES] __attribute__((aligned(4096)));
    uint8_t *before, *after;
    uint64_t writes;
    bool stop;
} f;

static void handle_file_ended(void *ctx, int result)
{
    t.ended = true;
    t.result = result;
    f.stop = true;
}

static void write_more(struct disk_request *request)
{
    memset(request->iov->iov_base, (int)(f.writes++ % 251 + 1), WRITE_BYTES);
    request->offset = (uint64_t)chance((FILE_SIZE - WRITE_BYTES) / 4096) * 4096;
    disk_submit(f.disk, request);
}

static void handle_file_written(struct disk_request *request, int result)
{
    ck_assert_int_eq(result, 0);
    if (f.stop) {
        if (--t.busy == 0)
            loop_stop(t.loop);
        return;
    }
    write_more(request);
}

static void make_image(void)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(f.folder, sizeof(f.folder), "%.30s/disk-point-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(f.folder));
    snprintf(f.image, sizeof(f.image), "%s/disk.img", f.folder);
    snprintf(f.copy, sizeof(f.copy), "%s/copy.img", f.folder);
    int fd = open(f.image, O_CREAT | O_RDWR, 0600), copy = open(f.copy, O_CREAT | O_RDWR, 0600);
    ck_assert(fd >= 0 && copy >= 0);
    ck_assert_int_eq(ftruncate(fd, FILE_SIZE) | ftruncate(copy, FILE_SIZE), 0);
    memset(f.before, 0, FILE_SIZE);
    for (unsigned i = 0; i < FILE_SIZE >> 20; i++) { /* every other MiB, from an odd place on */
        uint8_t *at = f.before + ((size_t)i << 20) + 5 * SECTOR;
        if (i % 2 == 0)
            continue;
        memset(at, (int)i + 1, 300 << 10);
        ck_assert_int_eq(pwrite(fd, at, 300 << 10, at - f.before), 300 << 10);
    }
    close(fd);
    close(copy);
}

static void set_up_file(void)
{
    memset(&t, 0, sizeof(t));
    memset(&f, 0, sizeof(f));
    f.before = malloc(FILE_SIZE);
    f.after = malloc(FILE_SIZE);
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    make_image();
}

static void tear_down_file(void)
{
    unlink(f.image);
    unlink(f.copy);
    rmdir(f.folder);
    loop_destroy(t.loop);
    free(f.before);
    free(f.after);
}

static void compare_copy(void)
{
    int fd = open(f.copy, O_RDONLY);

    ck_assert_int_eq(pread(fd, f.after, FILE_SIZE, 0), FILE_SIZE);
    close(fd);
    for (size_t i = 0; i < FILE_SIZE; i += 4096)
        ck_assert_msg(memcmp(f.before + i, f.after + i, 4096) == 0, "at byte %zu", i);
}

START_TEST(of_a_file_under_load)
{
    static const enum disk_engine engines[] = {DISK_ENGINE_AUTO, DISK_ENGINE_THREADS};
    const struct disk_copy_handlers ours = {.ended = handle_file_ended};
    struct disk_config config = {.path = f.image,
                                 .format = DISK_FORMAT_RAW,
                                 .engine = engines[_i],
                                 .point = true,
                                 .limits_may_change = true};
    struct disk_config target_config = {
        .path = f.copy, .format = DISK_FORMAT_RAW, .engine = engines[_i]};
    struct disk *target;
    struct stat stat_of;

    ck_assert_int_eq(disk_open(&f.disk, &config, NULL), 0);
    ck_assert_int_eq(disk_attach(f.disk, t.loop, &client, NULL), 0);
    ck_assert_int_eq(disk_open(&target, &target_config, NULL), 0);
    ck_assert_int_eq(disk_copy_create(&t.copy, f.disk, target, &ours, NULL), 0);
    ck_assert_int_eq(disk_copy_start(t.copy, NULL), 0);
    t.busy = WRITERS;
    for (unsigned i = 0; i < WRITERS; i++) {
        f.iov[i] = (struct iovec){.iov_base = f.bytes[i], .iov_len = WRITE_BYTES};
        f.requests[i] = (struct disk_request){.op = DISK_WRITE,
                                              .length = WRITE_BYTES,
                                              .iov = &f.iov[i],
                                              .iov_count = 1,
                                              .done = handle_file_written};
        write_more(&f.requests[i]);
    }
    disk_kick(f.disk);
    ck_assert_int_eq(loop_run(t.loop), 0);
    ck_assert(t.ended);
    ck_assert_int_eq(t.result, 0);
    ck_assert_uint_eq(disk_copy_bytes(t.copy), FILE_SIZE);
    disk_copy_destroy(t.copy);
    disk_drain(f.disk);
    disk_detach(f.disk);
    disk_destroy(f.disk);
    compare_copy();
    ck_assert_int_eq(stat(f.copy, &stat_of), 0);
    ck_assert_int_lt(stat_of.st_blocks * 512, FILE_SIZE / 2); /* sparse as the image was */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_point");
    TCase *fake = tcase_create("fake"), *file = tcase_create("file");

    tcase_add_checked_fixture(fake, set_up, tear_down);
    tcase_set_timeout(fake, 60);
    tcase_add_loop_test(fake, the_copy_is_what_was_there_at_the_moment, 0, 60);
    tcase_add_loop_test(fake, resets_of_the_guest_do_not_hurt_it, 0, 60);
    tcase_add_loop_test(fake, a_copy_that_is_given_up_does_not_hurt_the_guest, 0, 60);
    tcase_add_loop_test(fake, the_end_of_the_disk_ends_the_copy, 0, 40);
    tcase_add_test(fake, a_read_error_of_the_image_ends_the_copy_alone);
    tcase_add_test(fake, one_copy_after_the_other);
    tcase_add_test(fake, a_target_of_another_size_is_refused);
    tcase_add_test(fake, empty_clusters_are_not_written);
    tcase_add_test(fake, a_write_waits_for_its_own_cluster_only);
    tcase_add_test(fake, a_discard_does_not_wait);
    tcase_add_test(fake, the_background_yields_to_the_guest);
    tcase_add_test(fake, the_guest_gets_all_through_a_drain);
    tcase_add_test(fake, a_disk_without_a_point_has_none);
    tcase_add_checked_fixture(file, set_up_file, tear_down_file);
    tcase_set_timeout(file, 60);
    tcase_add_loop_test(file, of_a_file_under_load, 0, 2);
    suite_add_tcase(suite, fake);
    suite_add_tcase(suite, file);
    return unit_main(suite);
}
