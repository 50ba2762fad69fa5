/* SPDX-License-Identifier: MIT */
/* A VM's disk, whose changes are noted in its folder. */
#pragma once

#include "tests/unit/power_cut.h"

#include "core/clock.h"
#include "ft/changes.h"
#include "host/disk_point.h"
#include "host/disk_tap.h"
#include "tests/unit/folder_rig.h"

enum { REGIONS = 200, BLOCK = 4096, MOST = 600 };

#define REGION ((uint64_t)1 << CHANGES_LEAST_SHIFT)

static const uint8_t lineage[CHANGES_LINEAGE] = "one common base", other[CHANGES_LINEAGE] = "other";

/* One change that was let through. */
struct passed {
    uint64_t region;
    size_t at; /* entries of the record there were */
};

static struct {
    int folder;
    struct loop *loop;
    struct loop_timer timer;
    struct disk *disk;
    struct disk_tap *tap;
    struct changes *changes;
    struct disk_request request;
    struct iovec iov;
    uint8_t bytes[BLOCK];
    bool done;
    struct passed passed[MOST];
    unsigned count;
    uint64_t dice;
} t;

static inline unsigned roll(unsigned sides)
{
    t.dice = t.dice * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(t.dice >> 33) % sides;
}

/* --- a VM with a disk ------------------------------------------------------------------------- */

static inline void handle_nothing(void *ctx)
{
}

static inline bool handle_change(void *ctx, const struct disk_request *request)
{
    if (request->op != DISK_FLUSH && t.count < MOST)
        t.passed[t.count++] = (struct passed){request->offset / REGION, cut.on ? cut_now() : 0};
    return true;
}

static inline void handle_done(struct disk_request *request, int result)
{
    ck_assert_int_eq(result, 0);
    t.done = true;
    loop_stop(t.loop);
}

static inline void open_disk(void)
{
    const struct disk_client client = {.begin = handle_nothing, .end = handle_nothing};
    const struct disk_tap_handlers handlers = {.change = handle_change};
    struct disk_config config = {
        .path = rig_path("disk.img"), .format = DISK_FORMAT_RAW, .point = true, .tap = true};
    struct err err = {0};
    ck_assert_msg(disk_image_open(&t.disk, &config, &err) == 0, "%s", err.text);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, &err), 0);
    t.tap = disk_tap_of(t.disk);
    disk_tap_open(t.tap, &handlers);
}

static inline void close_disk(void)
{
    disk_drain(t.disk);
    disk_detach(t.disk);
    disk_destroy(t.disk);
}

static inline void create(const char *uuid)
{
    struct changes_config config = {.folder = t.folder, .name = "web1"};
    struct err err = {0};
    memcpy(config.uuid, uuid, strlen(uuid));
    ck_assert_int_eq(changes_create(&t.changes, &config, &err), 0);
    ck_assert_int_eq(changes_add_disk(t.changes, t.disk, 0, &err), 0);
}

static inline bool is_marked(uint64_t region)
{
    uint64_t words[REGIONS / CHANGES_WORD + 1] = {0};
    struct changes_disk disk;
    if (!changes_find_disk(t.changes, 0, &disk))
        return false;
    changes_read(t.changes, &disk, words);
    return words[region / CHANGES_WORD] >> region % CHANGES_WORD & 1;
}

static inline void handle_timer(void *arg)
{
    loop_stop(t.loop);
}

static inline void settle(void)
{
    for (unsigned i = 0; i < 3; i++) {
        loop_timer_init(&t.timer, t.loop, handle_timer, NULL);
        ck_assert_int_eq(loop_timer_arm(&t.timer, clock_monotonic_ns()), 0);
        ck_assert_int_eq(loop_run(t.loop), 0);
        loop_timer_cancel(&t.timer);
    }
}

/* The disk syncs in between. */
static inline void expect_forgotten(uint64_t epoch, uint64_t region)
{
    uint64_t until = clock_monotonic_ns() + 20000000000ull;
    changes_note_stored(t.changes, epoch);
    while (is_marked(region) && clock_monotonic_ns() < until)
        settle();
    ck_assert(!is_marked(region));
}

static inline void begin_fresh(const uint8_t new_lineage[CHANGES_LINEAGE])
{
    bool keeps;
    ck_assert_int_eq(changes_prepare(t.changes, new_lineage, &keeps, NULL), 0);
    ck_assert_int_eq(changes_place(t.changes, NULL), 0);
    ck_assert_int_eq(changes_switch(t.changes, NULL), 0);
    for (uint64_t region = 0; region < REGIONS; region++)
        ck_assert(is_marked(region));
    ck_assert_uint_eq(changes_bytes(t.changes), REGIONS * REGION);
}

static inline uint64_t marks_in_file(void)
{
    struct changes_head head;
    struct err err = {0};
    uint64_t *bits, marked = 0;
    int fd = changes_file_open(t.folder, &head, &bits, &err);
    ck_assert_msg(fd >= 0, "%s", err.text);
    for (size_t i = 0; i < changes_all_words(&head); i++)
        marked += (uint64_t)__builtin_popcountll(bits[i]);
    close(fd);
    free(bits);
    return marked;
}

/* ...and its first epoch is on stable storage on both sides, which the file says soon after. */
static inline void begin(const uint8_t new_lineage[CHANGES_LINEAGE])
{
    begin_fresh(new_lineage);
    changes_cut(t.changes, 0, true);
    expect_forgotten(0, 0);
    uint64_t until = clock_monotonic_ns() + 20000000000ull;
    while (marks_in_file() > 0 && clock_monotonic_ns() < until)
        settle();
    ck_assert_uint_eq(marks_in_file(), 0);
}

/* As a VM ends: in order. */
static inline void end(void)
{
    changes_quiet(t.changes);
    close_disk();
    changes_destroy(t.changes);
    t.changes = NULL;
}

static inline void set_up(void)
{
    struct err err = {0};
    rig_begin();
    memset(&t, 0, sizeof(t));
    t.dice = 1;
    t.folder = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = open(rig_path("disk.img"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(ftruncate(fd, (off_t)(REGIONS * REGION)), 0);
    close(fd);
    ck_assert_int_eq(loop_create(&t.loop, &err), 0);
    open_disk();
    create("ours");
}

static inline void tear_down(void)
{
    if (t.changes)
        end();
    loop_destroy(t.loop);
    close(t.folder);
}

static inline void act(enum disk_op op, uint64_t offset, uint64_t length)
{
    t.iov = (struct iovec){t.bytes, length};
    t.request = (struct disk_request){.op = op,
                                      .offset = offset,
                                      .length = length,
                                      .iov = &t.iov,
                                      .iov_count = op == DISK_WRITE || op == DISK_READ,
                                      .done = handle_done};
    t.done = false;
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
    while (!t.done)
        ck_assert_int_eq(loop_run(t.loop), 0);
}

static inline void write_at(uint64_t region)
{
    memset(t.bytes, (int)roll(256), sizeof(t.bytes));
    act(DISK_WRITE, region * REGION + BLOCK, BLOCK);
}

static inline void stored(uint64_t epoch)
{
    changes_note_stored(t.changes, epoch);
    settle();
    act(DISK_FLUSH, 0, 0); /* one that was asked for came before */
}
