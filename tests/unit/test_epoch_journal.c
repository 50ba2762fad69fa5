/* SPDX-License-Identifier: MIT */
#include "ft/epoch_journal.h"
#include "tests/unit/epoch_cut.h"
#include "tests/unit/folder_rig.h"

#include "host/lock.h"

enum { DISK = 32 << 10, EPOCHS = 40, GENERATION = 7, SMALL = 32 << 10 };

static struct arrival_folder *folder;
static struct epoch_journal *journal;
static uint8_t model[EPOCHS + 1][CUT_DISKS][DISK]; /* after each epoch */
static unsigned committed;
static uint64_t dice;

static unsigned roll(unsigned sides)
{
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(dice >> 33) % sides;
}

static bool keep_none(void)
{
    return false;
}

static bool keep_some(void)
{
    return roll(2);
}

static bool keep_most(void)
{
    return roll(16);
}

/* Many of them, then none of many. */
static bool keep_runs(void)
{
    static unsigned left;
    static bool keeps;
    if (left == 0) {
        left = 1 + roll(30);
        keeps = !keeps;
    }
    left--;
    return keeps;
}

static bool (*const keeps[])(void) = {keep_none, keep_some, keep_most, keep_runs, cut_keep_all};

/* --- a twin ----------------------------------------------------------------------------------- */

static void set_up(void)
{
    rig_begin();
    dice = 1;
    committed = 0;
    memset(model, 0, sizeof(model));
    cut.folder = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(arrival_folder_look(&folder, cut.folder, rig, NULL), 0);
    for (unsigned i = 0; i < CUT_DISKS; i++) {
        struct moving_disk disk = {.place = 3 * i + 1, .size = DISK};
        static struct cut_file file;
        file = (struct cut_file){.there = true, .size = DISK};
        memset(file.bytes, 'x', DISK);
        memset(model[0][i], 'x', DISK);
        cut_write(i, &file);
        strcpy(disk.name, cut_names[i]);
        ck_assert_int_eq(arrival_folder_open_disk(folder, &disk, NULL), 0);
    }
    ck_assert_int_eq(epoch_journal_create(&journal, folder, SMALL, NULL), 0);
}

/* The process of the twin is gone. */
static void die(void)
{
    cut.on = false;
    epoch_journal_destroy(journal);
    arrival_folder_leave(folder);
    journal = NULL;
    folder = NULL;
}

static void tear_down(void)
{
    die();
    cut_forget();
    close(cut.folder);
}

static int put(const struct frame *of, const struct moving_block *block, struct err *err)
{
    struct stream_buffer frames, payload;
    struct frame frame;
    stream_buffer_init(&frames, 0);
    stream_buffer_init(&payload, 0);
    moving_put_block(&frames.stream, of, block, NULL);
    ck_assert_int_eq(frame_read(&frames.stream, &frame, &payload, NULL, NULL), 0);
    int ret = epoch_journal_put(journal, &frame, payload.bytes, err);
    stream_buffer_finish(&frames);
    stream_buffer_finish(&payload);
    return ret;
}

static struct moving_block draw(uint8_t *bytes, unsigned epoch)
{
    struct moving_block block = {.place = 3 * roll(CUT_DISKS) + 1,
                                 .length = 512 * (1 + roll(5)),
                                 .offset = 512ull * roll(DISK / 512 - 5)};
    memset(bytes, (int)('A' + epoch % 26), block.length);
    block.bytes = roll(4) ? bytes : NULL;
    return block;
}

static void put_model(unsigned epoch, const struct moving_block *block)
{
    uint8_t *to = model[epoch][block->place / 3] + block->offset;
    if (block->bytes)
        memcpy(to, block->bytes, block->length);
    else
        memset(to, 0, block->length);
}

/* One that does not come to its end is the next one in the model, too. */
static int commit_next(struct err *err)
{
    static uint8_t bytes[8][4096];
    struct moving_block blocks[8];
    unsigned count = 1 + roll(8), epoch = committed + 1;
    const struct frame of = {.generation = GENERATION, .epoch = 2ull * epoch};
    int ret = 0;
    memcpy(model[epoch], model[committed], sizeof(model[0]));
    for (unsigned i = 0; i < count; i++) {
        blocks[i] = draw(bytes[i], epoch);
        put_model(epoch, &blocks[i]);
    }
    for (unsigned i = 0; i < count && ret == 0; i++)
        ret = put(&of, &blocks[i], err);
    if (ret == 0)
        ret = epoch_journal_commit(journal, of.generation, of.epoch, err);
    if (ret < 0)
        return ret;
    committed++;
    for (unsigned i = 0; i < count && ret == 0; i++)
        ret = arrival_folder_put_block(folder, &blocks[i], err);
    return ret < 0 ? ret : epoch_journal_applied(journal, err);
}

/* --- what a replay makes ---------------------------------------------------------------------- */

static bool is_at(unsigned epoch)
{
    static struct cut_file file;
    bool same = true;
    for (unsigned i = 0; i < CUT_DISKS; i++) {
        cut_read(i, &file);
        same &= file.size == DISK && memcmp(file.bytes, model[epoch][i], DISK) == 0;
    }
    return same;
}

static bool is_there(const char *name)
{
    return faccessat(cut.folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static struct epoch_replay replay(void)
{
    struct epoch_replay replay;
    struct err err = {0};
    ck_assert_msg(epoch_journal_replay(cut.folder, "web1", &replay, &err) == 0, "%s", err.text);
    ck_assert(!is_there(".epochs"));
    return replay;
}

static void expect_at_least(unsigned epoch, size_t step)
{
    bool more = epoch < EPOCHS && is_at(epoch + 1);
    ck_assert_msg(more || is_at(epoch), "not epoch %u, cut at step %zu", epoch, step);
}

/* --- power cuts ------------------------------------------------------------------------------- */

/* When what was committed was committed. */
static size_t step_of[EPOCHS + 1];

static void run_epochs(unsigned count)
{
    struct err err = {0};
    for (unsigned i = 0; i < count; i++) {
        size_t before = committed;
        ck_assert_msg(commit_next(&err) == 0, "%s", err.text);
        ck_assert_uint_eq(committed, before + 1);
    }
}

/* Of the epoch's steps: the journal's sync is the last of the commit. */
static void note_commits(void)
{
    unsigned epoch = 0;
    bool fresh = false; /* written to since */
    for (size_t i = 0; i < cut.count; i++) {
        const struct cut_step *step = &cut.steps[i];
        if (step->who != CUT_JOURNAL)
            continue;
        if (step->kind == CUT_SYNC && fresh)
            step_of[++epoch] = i + 1;
        fresh = step->kind == CUT_WRITE || (fresh && step->kind != CUT_SYNC);
    }
    ck_assert_uint_eq(epoch, committed);
}

static unsigned committed_at(size_t step)
{
    unsigned epoch = 0;
    while (epoch < committed && step_of[epoch + 1] < step)
        epoch++;
    return epoch;
}

START_TEST(after_a_power_cut_at_any_step_all_that_was_committed_is_there)
{
    static struct cut_step steps[CUT_MOST];
    static struct cut_file before[CUT_FILES];
    unsigned cuts = 0;
    dice = (uint64_t)_i + 1;
    cut_start();
    run_epochs(EPOCHS);
    cut.on = false;
    note_commits();
    die();
    size_t count = cut.count;
    memcpy(steps, cut.steps, sizeof(steps));
    memcpy(before, cut.before, sizeof(before));
    for (size_t step = 1; step <= count; step++) {
        for (size_t keep = 0; keep < array_size(keeps); keep++) {
            memcpy(cut.steps, steps, sizeof(steps));
            memcpy(cut.before, before, sizeof(before));
            cut.count = count;
            cut_make(step - 1, step, keeps[keep]);
            cut.count = 0; /* and once more, while it is replayed */
            cut_start();
            replay();
            size_t replayed = cut.count;
            cut.on = false;
            expect_at_least(committed_at(step), step);
            if (replayed > 0) {
                size_t again = 1 + roll((unsigned)replayed);
                cut_make(again - 1, again, keeps[roll(array_size(keeps))]);
                replay();
                expect_at_least(committed_at(step), step);
                cuts++;
            }
            cut_forget();
        }
    }
    ck_assert_uint_gt(cuts, 100);
    memcpy(cut.steps, steps, sizeof(steps));
    cut.count = count;
}
END_TEST

START_TEST(what_a_vm_that_took_over_has_written_stays)
{
    static struct cut_file file;
    static uint8_t ours[DISK];
    const struct moving_block block = {.place = 1, .length = sizeof(ours), .bytes = ours};
    memset(ours, '!', sizeof(ours));
    cut_start();
    run_epochs(5);
    ck_assert_int_eq(arrival_folder_sync(folder, NULL), 0);
    size_t began = cut.count;
    ck_assert_int_eq(epoch_journal_end(journal, NULL), 0);
    size_t ended = cut.count;
    ck_assert_int_eq(arrival_folder_put_block(folder, &block, NULL), 0);
    ck_assert_int_eq(arrival_folder_sync(folder, NULL), 0);
    die();
    for (size_t step = began; step <= cut.count; step++)
        for (size_t keep = 0; keep < array_size(keeps); keep++) {
            cut_make(step, step, keeps[keep]);
            ck_assert(step < ended || !is_there(".epochs"));
            replay();
            cut_read(0, &file);
            ck_assert(step < cut.count || memcmp(file.bytes, ours, DISK) == 0);
            ck_assert(step > ended || is_at(5));
        }
}
END_TEST

/* --- failures --------------------------------------------------------------------------------- */

/* Under a sanitizer a fourth of the steps: it looks for other things than these do. */
#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 16 };
#else
enum { STRIDE = 4 };
#endif

static void expect_failure_at(long step, int error)
{
    struct err err = {0};
    int ret = 0;
    cut_start();
    cut.fails_at = step;
    cut.error = error;
    while (ret == 0 && committed < EPOCHS)
        ret = commit_next(&err);
    if (ret < 0) {
        ck_assert_int_eq(ret, -error);
        ck_assert_ptr_nonnull(strstr(err.text, strerror(error)));
        ck_assert_ptr_nonnull(strstr(err.text, rig)); /* which file */
    }
    die();
    cut.on = false;
    cut_make(cut.count, cut.count, keep_some);
    replay();
    ck_assert(is_at(committed) || (committed < EPOCHS && is_at(committed + 1)));
}

/* Most of the steps of a run; each in its own folder. */
START_TEST(whatever_fails_it_is_said_and_nothing_is_lost)
{
    tear_down();
    for (long step = _i; step < 220; step += STRIDE) {
        set_up();
        expect_failure_at(step, step % 2 ? ENOSPC : EIO);
        tear_down();
    }
    set_up();
}
END_TEST

/* Linux says it once: who asks again would hear that all is well. */
START_TEST(a_sync_that_failed_fails_from_then_on)
{
    for (unsigned i = 0; i < 3; i++) {
        struct err err = {0};
        cut_start();
        cut.fails_at = i == 0 ? 1 : -1;
        cut.error = EIO;
        ck_assert_int_eq(arrival_folder_sync(folder, &err), -EIO);
        ck_assert_ptr_nonnull(strstr(err.text, cut_names[1]));
    }
}
END_TEST

/* --- torn and damaged ------------------------------------------------------------------------- */

static struct cut_file written;
static uint64_t ends[EPOCHS + 1]; /* of each epoch in it */
static unsigned epochs;

static void write_journal(unsigned count)
{
    epochs = 0;
    for (unsigned i = 0; i < count; i++) {
        ck_assert_int_eq(commit_next(NULL), 0);
        cut_read(CUT_JOURNAL, &written);
        ends[++epochs] = written.size;
    }
    die();
}

static void put_journal(const struct cut_file *file)
{
    static struct cut_file disk;
    disk = (struct cut_file){.there = true, .size = DISK};
    for (unsigned i = 0; i < CUT_DISKS; i++) {
        memcpy(disk.bytes, model[0][i], DISK);
        cut_write(i, &disk);
    }
    cut_write(CUT_JOURNAL, file);
}

static unsigned whole_at(uint64_t size)
{
    unsigned count = 0;
    while (count < epochs && ends[count + 1] <= size)
        count++;
    return count;
}

static void write_small_journal(void)
{
    epoch_journal_destroy(journal);
    ck_assert_int_eq(epoch_journal_create(&journal, folder, 1 << 20, NULL), 0);
    write_journal(3);
}

START_TEST(a_journal_that_is_cut_anywhere_has_its_whole_epochs)
{
    static struct cut_file torn;
    write_small_journal();
    torn = written;
    for (torn.size = 0; torn.size <= written.size; torn.size++) {
        put_journal(&torn);
        struct epoch_replay says = replay();
        unsigned whole = whole_at(torn.size);
        ck_assert_uint_eq(says.epochs, whole);
        ck_assert_msg(is_at(whole), "cut at %llu", (unsigned long long)torn.size);
        ck_assert(whole == 0 || says.torn == torn.size - ends[whole]);
    }
}
END_TEST

/* An error is one that leaves all as it was. */
START_TEST(a_byte_that_is_wrong_ends_it_there)
{
    static struct cut_file wrong;
    unsigned refused = 0;
    write_small_journal();
    for (uint64_t at = 0; at < written.size; at++) {
        struct epoch_replay says;
        wrong = written;
        wrong.bytes[at] ^= (uint8_t)(1 << at % 8);
        put_journal(&wrong);
        bool is_error = epoch_journal_replay(cut.folder, "web1", &says, NULL) < 0;
        ck_assert_int_eq(is_there(".epochs"), is_error);
        ck_assert_msg(is_at(is_error ? 0 : whole_at(at)), "byte %llu", (unsigned long long)at);
        refused += is_error;
    }
    ck_assert_uint_lt(refused, written.size / 100); /* what looks like a newer version */
}
END_TEST

/* --- ordinary life ---------------------------------------------------------------------------- */

START_TEST(what_overlaps_ends_as_it_was_written)
{
    dice = (uint64_t)_i + 100;
    for (unsigned i = 0; i < EPOCHS; i++)
        ck_assert_int_eq(commit_next(NULL), 0);
    ck_assert(is_at(EPOCHS));
    die();
    struct epoch_replay says = replay();
    ck_assert_uint_lt(says.epochs, EPOCHS); /* it was begun anew */
    ck_assert(says.blocks >= says.epochs && says.torn == 0);
    ck_assert(is_at(EPOCHS));
    says = replay();
    ck_assert(says.epochs == 0 && says.blocks == 0);
}
END_TEST

START_TEST(an_epoch_without_blocks_costs_nothing)
{
    cut_start();
    for (uint64_t epoch = 1; epoch < 100; epoch++) {
        ck_assert_int_eq(epoch_journal_commit(journal, GENERATION, epoch, NULL), 0);
        ck_assert_int_eq(epoch_journal_applied(journal, NULL), 0);
    }
    ck_assert_int_eq(epoch_journal_end(journal, NULL), 0);
    ck_assert_uint_eq(cut.count, 0);
    ck_assert(!is_there(".epochs"));
}
END_TEST

START_TEST(it_begins_anew_after_its_end)
{
    struct stat stat_of;
    ck_assert_int_eq(commit_next(NULL), 0);
    ck_assert_int_eq(fstatat(cut.folder, ".epochs", &stat_of, 0), 0);
    ck_assert_uint_eq(stat_of.st_mode, S_IFREG | 0600);
    ck_assert_int_eq(epoch_journal_end(journal, NULL), 0);
    ck_assert(!is_there(".epochs"));
    ck_assert_int_eq(commit_next(NULL), 0);
    die();
    ck_assert_uint_eq(replay().epochs, 1);
    ck_assert(is_at(2));
}
END_TEST

/* Of an epoch of 5 MiB most has been written when its host dies. */
START_TEST(what_is_large_and_not_committed_is_dropped)
{
    static uint8_t bytes[DISK];
    const struct frame of = {.generation = GENERATION, .epoch = 50};
    const struct moving_block block = {.place = 1, .length = DISK, .bytes = bytes};
    struct stat stat_of;
    ck_assert_int_eq(commit_next(NULL), 0);
    for (unsigned i = 0; i < (5 << 20) / DISK; i++)
        ck_assert_int_eq(put(&of, &block, NULL), 0);
    ck_assert_int_eq(fstatat(cut.folder, ".epochs", &stat_of, 0), 0);
    ck_assert_int_ge(stat_of.st_size, 4 << 20);
    die();
    struct epoch_replay says = replay();
    ck_assert(says.epochs == 1 && says.torn > 4 << 20);
    ck_assert(is_at(1));
}
END_TEST

/* --- hostile ---------------------------------------------------------------------------------- */

struct hostile {
    const char *name;
    uint64_t size;
    uint32_t place;
    struct moving_block block;
    uint8_t kind; /* a frame more */
    bool early;   /* before OPEN */
};

static const uint8_t some[512];

#define GOOD_BLOCK                               \
    {                                            \
        .place = 1, .length = 512, .bytes = some \
    }

static const struct hostile hostile[] = {
    {"../a.img", DISK, 1, GOOD_BLOCK},
    {"sub/../../a.img", DISK, 1, GOOD_BLOCK},
    {"/etc/hostname", 512, 1, GOOD_BLOCK},
    {"vm.json", 512, 1, GOOD_BLOCK},
    {"identity.json", 512, 1, GOOD_BLOCK},
    {".epochs", 512, 1, GOOD_BLOCK},
    {".protected", 512, 1, GOOD_BLOCK},
    {"snapshots/x", 512, 1, GOOD_BLOCK},
    {"link.img", DISK, 1, GOOD_BLOCK},
    {"way/a.img", DISK, 1, GOOD_BLOCK},
    {"pipe.img", DISK, 1, GOOD_BLOCK},
    {"sub", DISK, 1, GOOD_BLOCK},
    {"nothing.img", DISK, 1, GOOD_BLOCK},
    {"a.img", DISK + 512, 1, GOOD_BLOCK},
    {"a.img", DISK, 1000, GOOD_BLOCK},
    {"a.img", DISK, 1, {.place = 2, .length = 512, .bytes = some}},
    {"a.img", DISK, 1, {.place = 1, .length = 512, .offset = DISK}},
    {"a.img", DISK, 1, {.place = 1, .length = 1024, .offset = DISK - 512}},
    {"a.img", DISK, 1, {.place = 1, .length = 512, .offset = UINT64_MAX - 100}},
    {"a.img", DISK, 1, GOOD_BLOCK, .kind = FRAME_STATE},
    {"a.img", DISK, 1, GOOD_BLOCK, .kind = FRAME_DISK},
    {"a.img", DISK, 1, GOOD_BLOCK, .kind = FRAME_OPEN},
    {"a.img", DISK, 1, GOOD_BLOCK, .early = true},
};

static void put_hostile(struct stream_buffer *to, const struct hostile *what)
{
    const struct frame of = {.generation = 1, .epoch = 1};
    struct moving_disk disk = {.place = what->place, .size = what->size};
    struct frame_tally tally = {0};
    strcpy(disk.name, what->name);
    moving_put_disk(&to->stream, &disk);
    if (!what->early)
        moving_put(&to->stream, FRAME_OPEN, "", 0);
    moving_put_block(&to->stream, &of, &what->block, &tally);
    frame_write_commit(&to->stream, 1, 1, &tally);
    if (what->kind == FRAME_DISK)
        moving_put_disk(&to->stream, &disk);
    else if (what->kind)
        moving_put(&to->stream, what->kind, "", 0);
}

static void make_traps(void)
{
    rig_write("vm.json", "{}");
    rig_write("identity.json", "{}");
    rig_write(".protected", "{}");
    rig_make_folder("sub");
    rig_make_folder("snapshots");
    rig_write("snapshots/x", "{}");
    ck_assert_int_eq(symlink("a.img", rig_path("link.img")), 0);
    ck_assert_int_eq(symlink(".", rig_path("way")), 0);
    ck_assert_int_eq(mkfifo(rig_path("pipe.img"), 0600), 0);
}

START_TEST(what_makes_no_sense_changes_nothing)
{
    static struct cut_file file;
    struct stream_buffer bytes;
    struct epoch_replay says;
    struct err err = {0};
    die();
    make_traps();
    stream_buffer_init(&bytes, 0);
    put_hostile(&bytes, &hostile[_i]);
    file = (struct cut_file){.there = true, .size = bytes.length};
    memcpy(file.bytes, bytes.bytes, bytes.length);
    cut_write(CUT_JOURNAL, &file);
    stream_buffer_finish(&bytes);
    cut_start();
    ck_assert_int_lt(epoch_journal_replay(cut.folder, "web1", &says, &err), 0);
    ck_assert_msg(strncmp(err.text, "web1/.epochs: ", 14) == 0, "%s", err.text);
    ck_assert_uint_eq(cut.count, 0);
    cut.on = false;
    ck_assert(is_at(0) && is_there(".epochs"));
}
END_TEST

/* Were they taken, they would bring back what was there long ago. */
START_TEST(older_epochs_and_those_of_another_generation_do_not_follow)
{
    static uint8_t bytes[512];
    const struct {
        uint64_t generation, epoch;
    } later[] = {{GENERATION, 2}, {GENERATION, 1}, {GENERATION, 0}, {GENERATION + 1, 3}, {0, 3}};
    const struct moving_block block = {.place = 1, .length = sizeof(bytes), .bytes = bytes};
    const struct frame of = {.generation = later[_i].generation, .epoch = later[_i].epoch};
    ck_assert_int_eq(commit_next(NULL), 0); /* number 2 */
    ck_assert_int_eq(put(&of, &block, NULL), 0);
    ck_assert_int_eq(epoch_journal_commit(journal, of.generation, of.epoch, NULL), 0);
    die();
    struct epoch_replay says = replay();
    ck_assert(says.epochs == 1 && says.torn > sizeof(bytes));
    ck_assert(is_at(1));
}
END_TEST

START_TEST(a_journal_that_is_no_file_is_an_error)
{
    struct epoch_replay says;
    struct err err = {0};
    die();
    if (_i == 0)
        ck_assert_int_eq(mkfifo(rig_path(".epochs"), 0600), 0);
    else if (_i == 1)
        ck_assert_int_eq(symlink("a.img", rig_path(".epochs")), 0);
    else
        rig_make_folder(".epochs");
    ck_assert_int_lt(epoch_journal_replay(cut.folder, "web1", &says, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "web1/.epochs"));
    ck_assert(is_there(".epochs"));
}
END_TEST

START_TEST(a_disk_that_somebody_has_is_not_touched)
{
    struct epoch_replay says;
    struct err err = {0};
    write_small_journal();
    put_journal(&written);
    int fd = open(rig_path("b.img"), O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(lock_try(fd, false), 0);
    ck_assert_int_eq(epoch_journal_replay(cut.folder, "web1", &says, &err), -EBUSY);
    ck_assert_str_eq(err.text, "web1/.epochs: web1/b.img is in use");
    ck_assert(is_at(0) && is_there(".epochs"));
    close(fd);
    ck_assert_uint_eq(replay().epochs, epochs);
    ck_assert(is_at(epochs));
}
END_TEST

START_TEST(disks_that_are_others_now_need_none)
{
    ck_assert_int_eq(commit_next(NULL), 0);
    die();
    ck_assert_int_eq(epoch_journal_remove(cut.folder, NULL), 0);
    ck_assert(!is_there(".epochs"));
    ck_assert_int_eq(epoch_journal_remove(cut.folder, NULL), 0);
    ck_assert_uint_eq(replay().epochs, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("epoch_journal");
    TCase *tc = tcase_create("epoch_journal");

    tcase_add_unchecked_fixture(tc, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, after_a_power_cut_at_any_step_all_that_was_committed_is_there, 0, 4);
    tcase_add_test(tc, what_a_vm_that_took_over_has_written_stays);
    tcase_add_loop_test(tc, whatever_fails_it_is_said_and_nothing_is_lost, 0, 4);
    tcase_add_test(tc, a_sync_that_failed_fails_from_then_on);
    tcase_add_test(tc, a_journal_that_is_cut_anywhere_has_its_whole_epochs);
    tcase_add_test(tc, a_byte_that_is_wrong_ends_it_there);
    tcase_add_loop_test(tc, what_overlaps_ends_as_it_was_written, 0, 20);
    tcase_add_test(tc, an_epoch_without_blocks_costs_nothing);
    tcase_add_test(tc, it_begins_anew_after_its_end);
    tcase_add_test(tc, what_is_large_and_not_committed_is_dropped);
    tcase_add_loop_test(tc, what_makes_no_sense_changes_nothing, 0, array_size(hostile));
    tcase_add_loop_test(tc, older_epochs_and_those_of_another_generation_do_not_follow, 0, 5);
    tcase_add_loop_test(tc, a_journal_that_is_no_file_is_an_error, 0, 3);
    tcase_add_test(tc, a_disk_that_somebody_has_is_not_touched);
    tcase_add_test(tc, disks_that_are_others_now_need_none);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
