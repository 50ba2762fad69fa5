/* SPDX-License-Identifier: MIT */
#include "ft/changes.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"
#include "host/disk_point.h"
#include "host/disk_tap.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    AHEAD = 8,     /* regions that are marked before who writes in order comes there */
    RECENT = 1024, /* regions that stay marked in the file when they are equal again, twice */
    TURN = 64,     /* for so many cuts at least, and not for twice as many */
    RETRY_MS = 1000
};

struct followed {
    struct changes *changes;
    struct disk *disk;
    struct disk_tap *tap;
    int image; /* its file */
    uint32_t place;
    struct changes_disk about; /* while there is a lineage, as the next */
    size_t first;              /* word */
    bool waits;
};

struct changes {
    struct changes_config config;
    struct followed disks[MACHINE_MAX_DISKS];
    unsigned count;
    struct thread thread;
    bool guarded; /* the taps ask */

    /* A new file, until it is switched to. */
    int fresh_fd;
    struct changes_head fresh;

    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    int fd;        /* -1: no lineage */
    bool replaces; /* the new file: one that is kept until then */
    struct changes_head head;
    size_t words;
    uint64_t *now, *before;  /* marked since the cut, and before it */
    uint64_t *there;         /* bits that are on stable storage, whatever comes */
    uint64_t *image;         /* the thread's: what it writes */
    uint64_t *recent[2];     /* equal again, and yet in the file: who writes there need not wait */
    unsigned turn;           /* cuts since the younger of these were begun */
    bool has_now;            /* a mark since the cut */
    bool before_is_all;      /* that one counts as a cut of everything */
    bool has_before, spoilt; /* spoilt: a write failed, and who knows what is there now */
    bool lost;               /* a flush did, and Linux says that only once */
    bool fileless;           /* it did before this lineage: nothing is forgotten, nor is it noted */
    uint64_t before_epoch;
    unsigned generation, under_way[2]; /* changes of this one and the one before */
    unsigned flushes, flush_number;    /* of the disks, that have not come back */
    bool flush_failed;
    bool wants, busy, quiet;
};

/* --- bits ------------------------------------------------------------------------------------- */

static bool has_bit(const uint64_t *words, uint64_t bit)
{
    return words[bit / CHANGES_WORD] >> bit % CHANGES_WORD & 1;
}

static void set_bit(uint64_t *words, uint64_t bit)
{
    words[bit / CHANGES_WORD] |= 1ull << bit % CHANGES_WORD;
}

static size_t count_bits(const struct changes *changes, const uint64_t *words)
{
    size_t count = 0;
    for (size_t i = 0; i < changes->words; i++)
        count += (size_t)__builtin_popcountll(words[i]);
    return count;
}

static void clear_words(struct changes *changes, uint64_t *words)
{
    memset(words, 0, changes->words * sizeof(*words));
}

static void free_bits(struct changes *changes)
{
    free(changes->now);
    free(changes->before);
    free(changes->there);
    free(changes->image);
    free(changes->recent[0]);
    free(changes->recent[1]);
    changes->now = changes->before = changes->there = changes->image = NULL;
    changes->recent[0] = changes->recent[1] = NULL;
    changes->words = 0;
}

static int make_bits(struct changes *changes, size_t words)
{
    free_bits(changes);
    changes->words = words;
    changes->now = calloc(words + 1, sizeof(uint64_t));
    changes->before = calloc(words + 1, sizeof(uint64_t));
    changes->there = calloc(words + 1, sizeof(uint64_t));
    changes->image = calloc(words + 1, sizeof(uint64_t));
    changes->recent[0] = calloc(words + 1, sizeof(uint64_t));
    changes->recent[1] = calloc(words + 1, sizeof(uint64_t));
    changes->turn = 0;
    return changes->now && changes->before && changes->there && changes->image &&
                   changes->recent[0] && changes->recent[1]
               ? 0
               : -ENOMEM;
}

/* --- marking ---------------------------------------------------------------------------------- */

static void want(struct changes *changes)
{
    changes->wants = true;
    pthread_cond_broadcast(&changes->changed);
}

/* Who wrote to the region before this one goes on to those behind it. */
static void mark_ahead(struct followed *disk, uint64_t last)
{
    struct changes *changes = disk->changes;
    uint64_t *now = changes->now + disk->first;
    uint64_t regions = ((disk->about.size - 1) >> disk->about.shift) + 1;
    uint64_t half = last + AHEAD / 2;
    if (half >= regions || has_bit(changes->there + disk->first, half))
        return;
    for (uint64_t region = last + 1; region < regions && region <= last + AHEAD; region++)
        set_bit(now, region);
    want(changes);
}

static bool handle_allows(void *ctx, const struct disk_request *request)
{
    struct followed *disk = ctx;
    struct changes *changes = disk->changes;
    bool there = true;
    if (request->length == 0)
        return true;
    pthread_mutex_lock(&changes->lock);
    if (changes->fd >= 0) {
        changes->has_now = true;
        uint64_t first = request->offset >> disk->about.shift;
        uint64_t last = (request->offset + request->length - 1) >> disk->about.shift;
        bool in_order = request->op == DISK_WRITE && first > 0 &&
                        has_bit(changes->now + disk->first, first - 1);
        for (uint64_t region = first; region <= last; region++) {
            set_bit(changes->now + disk->first, region);
            there &= has_bit(changes->there + disk->first, region);
        }
        if (in_order)
            mark_ahead(disk, last);
    }
    if (!there) {
        disk->waits = true;
        want(changes);
    }
    pthread_mutex_unlock(&changes->lock);
    return there;
}

static unsigned handle_begins(void *ctx)
{
    struct changes *changes = ((struct followed *)ctx)->changes;
    pthread_mutex_lock(&changes->lock);
    unsigned mark = changes->generation % 2;
    changes->under_way[mark]++;
    pthread_mutex_unlock(&changes->lock);
    return mark;
}

/* With the lock. What is in the page cache may be on no disk, and nobody would see: all of it is
 * copied next. */
static void lose(struct changes *changes)
{
    changes->spoilt = changes->lost = true;
    want(changes);
}

static void handle_ended(void *ctx, unsigned mark, enum disk_op op, int result)
{
    const struct followed *disk = ctx;
    struct changes *changes = disk->changes;
    pthread_mutex_lock(&changes->lock);
    changes->under_way[mark]--;
    if (result < 0 && result != -ECANCELED) {
        changes->spoilt = true;
        if (op == DISK_FLUSH || disk_tap_has_lost(disk->tap))
            lose(changes);
    }
    pthread_mutex_unlock(&changes->lock);
}

/* --- the thread ------------------------------------------------------------------------------- */

static void wake_all(struct changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++) {
        struct followed *disk = &changes->disks[i];
        if (disk->waits)
            disk_tap_go_on(disk->tap);
        disk->waits = false;
    }
}

/* What is not noted must not be taken for equal: the file goes, and who waits goes on. Where that
 * cannot be said for sure, nothing is written to the disks. False: not yet. */
static bool give_up(struct changes *changes, int error, const char *what)
{
    struct err err = {0};
    int ret = changes_file_remove(changes->config.folder);
    err_sys(&err, ERR_FAILED, -error,
            ret < 0 ? "%s: cannot write %s, and its disks wait"
                    : "%s: cannot write %s, so that its next twin gets all of it",
            changes->config.name, what);
    log_err(LOG_WARNING, &err);
    return ret == 0;
}

/* With the lock; without it while it writes. */
static void write_bits(struct changes *changes)
{
    int fd = changes->fd, folder = changes->config.folder;
    bool lost = changes->lost, fileless = changes->fileless, differs = false;
    for (size_t i = 0; i < changes->words; i++) {
        changes->image[i] = changes->now[i] | changes->before[i] | changes->recent[0][i] |
                            changes->recent[1][i];
        differs |= changes->image[i] != changes->there[i];
        changes->there[i] &= changes->image[i];
    }
    changes->wants = false;
    changes->busy = true;
    pthread_mutex_unlock(&changes->lock);
    int ret = lost       ? -EIO
              : fileless ? changes_file_remove(folder)
              : differs  ? changes_file_write_bits(fd, changes->image, changes->words)
                         : 0;
    bool gone = ret < 0 && give_up(changes, ret, lost ? "its disks" : FOLDER_CHANGES);
    pthread_mutex_lock(&changes->lock);
    changes->busy = false;
    if (ret == 0)
        memcpy(changes->there, changes->image, changes->words * sizeof(uint64_t));
    if (gone) {
        close(changes->fd);
        changes->fd = -1;
    }
    if (ret == 0 || gone)
        wake_all(changes);
    else
        changes->wants = true;
    pthread_cond_broadcast(&changes->changed);
    if (ret < 0 && !gone) {
        const struct timespec at = clock_timespec(clock_monotonic_ns() + RETRY_MS * 1000000ull);
        while (!changes->quiet && pthread_cond_clockwait(&changes->changed, &changes->lock,
                                                         CLOCK_MONOTONIC, &at) != ETIMEDOUT)
            continue;
    }
}

static void run(void *arg)
{
    struct changes *changes = arg;
    pthread_mutex_lock(&changes->lock);
    while (!changes->quiet) {
        if (changes->wants && changes->fd >= 0)
            write_bits(changes);
        else
            pthread_cond_wait(&changes->changed, &changes->lock);
    }
    pthread_mutex_unlock(&changes->lock);
}

/* --- forgetting ------------------------------------------------------------------------------- */

/* Swapping costs nothing, so there is no second cut before the first one is stored. */
void changes_cut(struct changes *changes, uint64_t epoch, bool all)
{
    pthread_mutex_lock(&changes->lock);
    if (changes->fd >= 0 && (all || (changes->has_now && !changes->has_before))) {
        for (size_t i = 0; i < changes->words && all; i++)
            changes->now[i] |= changes->before[i];
        uint64_t *now = changes->now;
        changes->now = changes->before;
        changes->before = now;
        clear_words(changes, changes->now);
        changes->has_now = false;
        changes->has_before = true;
        changes->before_is_all = all;
        changes->before_epoch = epoch;
        changes->flushes = 0; /* one that is under way began before all this had ended */
        changes->generation++;
    }
    pthread_mutex_unlock(&changes->lock);
}

void changes_note_stored(struct changes *changes, uint64_t epoch)
{
    pthread_mutex_lock(&changes->lock);
    bool ends = changes->fd >= 0 && changes->has_before && !changes->spoilt && !changes->quiet &&
                changes->flushes == 0 && epoch >= changes->before_epoch &&
                changes->under_way[(changes->generation + 1) % 2] == 0;
    if (ends) {
        changes->flushes = changes->count;
        changes->flush_failed = false;
        changes->flush_number++;
        for (unsigned i = 0; i < changes->count; i++)
            disk_tap_flush(changes->disks[i].tap, changes->flush_number);
    }
    pthread_mutex_unlock(&changes->lock);
}

/*
 * With the lock. What was written lately will be written again, and each time that would wait for
 * the file: so for a while it stays marked there, and costs a comparison after a crash. What was
 * marked for other reasons, or is more than there is room for, goes at once.
 */
static void keep_recent(struct changes *changes)
{
    size_t more = changes->before_is_all ? 0 : count_bits(changes, changes->before);
    if (++changes->turn > TURN || count_bits(changes, changes->recent[0]) + more > RECENT) {
        uint64_t *old = changes->recent[1];
        changes->recent[1] = changes->recent[0];
        changes->recent[0] = old;
        clear_words(changes, old);
        changes->turn = 0;
    }
    for (size_t i = 0; i < changes->words && more > 0 && more <= RECENT; i++)
        changes->recent[0][i] |= changes->before[i];
}

static void handle_flushed(void *ctx, unsigned number, int result)
{
    struct changes *changes = ((struct followed *)ctx)->changes;
    pthread_mutex_lock(&changes->lock);
    bool counts = changes->flushes > 0 && number == changes->flush_number;
    changes->flush_failed |= counts && result < 0;
    if (result < 0 && result != -ECANCELED)
        lose(changes);
    if (counts && --changes->flushes == 0 && !changes->flush_failed && !changes->spoilt) {
        keep_recent(changes);
        clear_words(changes, changes->before);
        changes->has_before = false;
        want(changes); /* the file need not say it at once, but then fewer are looked at */
    }
    pthread_mutex_unlock(&changes->lock);
}

/* --- lineages --------------------------------------------------------------------------------- */

static void guard(struct changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++) {
        const struct disk_tap_guard guard = {.allows = handle_allows,
                                             .begins = handle_begins,
                                             .ended = handle_ended,
                                             .flushed = handle_flushed,
                                             .ctx = &changes->disks[i]};
        disk_tap_set_guard(changes->disks[i].tap, &guard);
    }
    changes->guarded = true;
}

static void place_disks(struct changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++) {
        struct followed *disk = &changes->disks[i];
        const struct changes_disk *about = changes_head_find(&changes->head, disk->place);
        disk->about = *about;
        disk->first = changes_first_word(&changes->head, about);
    }
}

static bool has_lost(const struct changes *changes)
{
    for (unsigned i = 0; i < changes->count; i++)
        if (disk_tap_has_lost(changes->disks[i].tap))
            return true;
    return false;
}

/*
 * With the lock. A flush that has failed, while what this replaces was kept, ends this one, too.
 * After an earlier one the twin gets all of the disks, as the page cache has them; what they lack
 * no later flush brings there, or tells of. So all stays marked for as long as they are open, which
 * makes good for a twin that comes back. This host, when it comes back itself, must not compare,
 * because its page cache may be there still: without a file it gets all of them, and writes it.
 */
static int take(struct changes *changes, int fd, const struct changes_head *head,
                const uint64_t *bits)
{
    bool lost = changes->lost && (changes->fd >= 0 || changes->replaces);
    if (changes->fd >= 0)
        close(changes->fd);
    changes->fd = -1;
    changes->flushes = 0;
    int ret = make_bits(changes, changes_all_words(head));
    if (ret < 0) {
        wake_all(changes);
        return ret;
    }
    changes->fd = fd;
    changes->head = *head;
    memcpy(changes->now, bits, changes->words * sizeof(*bits));
    memcpy(changes->there, bits, changes->words * sizeof(*bits));
    changes->has_now = true;
    changes->has_before = false;
    changes->lost = lost;
    changes->fileless = has_lost(changes);
    changes->spoilt = lost || changes->fileless;
    if (changes->spoilt)
        want(changes);
    place_disks(changes);
    return 0;
}

/* With the lock. */
static void wait_until_written(struct changes *changes)
{
    while (changes->busy)
        pthread_cond_wait(&changes->changed, &changes->lock);
}

static int begin(struct changes *changes, int fd, const struct changes_head *head,
                 const uint64_t *bits, struct err *err)
{
    pthread_mutex_lock(&changes->lock);
    wait_until_written(changes);
    int ret = take(changes, fd, head, bits);
    bool fileless = changes->fileless && !changes->lost;
    pthread_mutex_unlock(&changes->lock);
    if (ret < 0) {
        close(fd);
        return err_sys(err, ERR_HOST, -ret, "cannot note what changes");
    }
    if (fileless)
        log_warning("%s: its disks have failed to store, and they may lack what is read from them: "
                    "'minivmm switchover' mends that, as this host gets all of them then",
                    changes->config.name);
    guard(changes);
    return changes->thread.started ? 0
                                   : thread_start(&changes->thread, "changes", run, changes, err);
}

static const char *find_difference(const struct changes *changes, const struct changes_head *head)
{
    if (memcmp(head->uuid, changes->config.uuid, sizeof(head->uuid)) != 0)
        return "it is of another VM";
    if (head->count != changes->count)
        return "it has other disks";
    for (unsigned i = 0; i < changes->count; i++) {
        const struct followed *disk = &changes->disks[i];
        const struct changes_disk *about = changes_head_find(head, disk->place);
        if (!about || about->size != disk->disk->info.size)
            return "a disk has another size";
        const char *differs = changes_disk_differs(head, about, disk->image);
        if (differs)
            return differs;
    }
    return NULL;
}

static int say_failed(struct err *err, int error)
{
    return err_sys(err, ERR_FAILED, -error, "cannot write " FOLDER_CHANGES);
}

int changes_load(struct changes *changes, struct err *err)
{
    struct changes_head head;
    struct err why = {0};
    uint64_t *bits = NULL;
    int fd = changes_file_open(changes->config.folder, &head, &bits, &why), ret;
    if (fd == -ENOENT)
        return 0;
    if (fd < 0 && fd != -ESTALE) {
        changes_say_unread(changes->config.name, &why, err);
        return fd;
    }
    if (fd >= 0 && head.flags & CHANGES_MIXED &&
        memcmp(head.uuid, changes->config.uuid, sizeof(head.uuid)) == 0) {
        free(bits);
        close(fd);
        return changes_say_mixed(changes->config.name, err);
    }
    const char *differs = fd >= 0 ? find_difference(changes, &head) : why.text;
    if (!differs) { /* from here on it is written to */
        bool rests = head.flags & CHANGES_AT_REST;
        head.flags &= ~(uint32_t)CHANGES_AT_REST;
        ret = rests ? changes_file_write_head(fd, &head) : 0;
        if (ret < 0)
            close(fd);
        ret = ret < 0 ? say_failed(err, ret) : begin(changes, fd, &head, bits, err);
        free(bits);
        return ret;
    }
    log_info("%s: what it has in common with its twin is not known: %s", changes->config.name,
             differs);
    free(bits);
    if (fd >= 0)
        close(fd);
    ret = changes_file_remove(changes->config.folder);
    return ret < 0 ? say_failed(err, ret) : 0;
}

int changes_prepare(struct changes *changes, const uint8_t lineage[CHANGES_LINEAGE],
                    bool *ret_keeps, struct err *err)
{
    struct changes_head head = {0};
    memcpy(head.uuid, changes->config.uuid, sizeof(head.uuid));
    memcpy(head.lineage, lineage, sizeof(head.lineage));
    int ret = 0;
    for (unsigned i = 0; i < changes->count && ret == 0; i++)
        ret = changes_head_add(&head, changes->disks[i].place, changes->disks[i].disk->info.size,
                               changes->disks[i].image);
    if (ret < 0)
        return say_failed(err, ret);
    if (changes->fresh_fd >= 0)
        close(changes->fresh_fd);
    changes->fresh = head;
    changes->fresh_fd = changes_file_draw(changes->config.folder, &head, true, err);
    if (changes->fresh_fd < 0)
        return changes->fresh_fd;
    pthread_mutex_lock(&changes->lock);
    changes->replaces = *ret_keeps = changes->fd >= 0;
    pthread_mutex_unlock(&changes->lock);
    return 0;
}

int changes_place(struct changes *changes, struct err *err)
{
    return changes_file_place(changes->config.folder, err);
}

int changes_switch(struct changes *changes, struct err *err)
{
    int fd = changes->fresh_fd;
    changes->fresh_fd = -1;
    uint64_t *all = changes_all_bits(&changes->fresh);
    if (!all) {
        close(fd);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot note what changes");
    }
    int ret = begin(changes, fd, &changes->fresh, all, err);
    free(all);
    return ret;
}

/* The guard stays, so that it hears the end of what is under way. */
void changes_drop(struct changes *changes)
{
    pthread_mutex_lock(&changes->lock);
    wait_until_written(changes);
    int ret = changes_file_remove(changes->config.folder);
    if (ret == 0 && changes->fd >= 0) {
        close(changes->fd);
        changes->fd = -1;
    }
    wake_all(changes);
    pthread_mutex_unlock(&changes->lock);
    if (ret < 0) { /* it is kept, then, and so stays true */
        struct err err = {0};
        err_sys(&err, ERR_FAILED, -ret, "%s: cannot remove " FOLDER_CHANGES, changes->config.name);
        log_err(LOG_WARNING, &err);
    }
}

/* --- for others ------------------------------------------------------------------------------- */

bool changes_lineage(struct changes *changes, uint8_t ret_lineage[CHANGES_LINEAGE])
{
    pthread_mutex_lock(&changes->lock);
    bool there = changes->fd >= 0;
    if (there)
        memcpy(ret_lineage, changes->head.lineage, CHANGES_LINEAGE);
    pthread_mutex_unlock(&changes->lock);
    return there;
}

bool changes_find_disk(struct changes *changes, uint32_t place, struct changes_disk *ret_disk)
{
    pthread_mutex_lock(&changes->lock);
    const struct changes_disk *disk = changes->fd >= 0 ? changes_head_find(&changes->head, place)
                                                       : NULL;
    if (disk)
        *ret_disk = *disk;
    pthread_mutex_unlock(&changes->lock);
    return disk;
}

void changes_read(struct changes *changes, const struct changes_disk *disk, uint64_t *words)
{
    pthread_mutex_lock(&changes->lock);
    const struct changes_disk *ours = changes->fd >= 0
                                          ? changes_head_find(&changes->head, disk->place)
                                          : NULL;
    size_t first = ours ? changes_first_word(&changes->head, ours) : 0;
    for (size_t i = 0; ours && i < changes_words(disk) && i < changes_words(ours); i++)
        words[i] |= changes->now[first + i] | changes->before[first + i];
    pthread_mutex_unlock(&changes->lock);
}

uint64_t changes_bytes(struct changes *changes)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&changes->lock);
    for (uint32_t i = 0; changes->fd >= 0 && i < changes->head.count; i++) {
        const struct changes_disk *disk = &changes->head.disks[i];
        size_t first = changes_first_word(&changes->head, disk);
        for (size_t word = first; word < first + changes_words(disk); word++)
            bytes += (uint64_t)__builtin_popcountll(changes->now[word] | changes->before[word])
                     << disk->shift;
    }
    pthread_mutex_unlock(&changes->lock);
    return bytes;
}

/* --- life ------------------------------------------------------------------------------------- */

int changes_create(struct changes **ret_changes, const struct changes_config *config,
                   struct err *err)
{
    struct changes *changes = calloc(1, sizeof(*changes));
    if (!changes)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot note what changes");
    changes->config = *config;
    changes->fd = changes->fresh_fd = -1;
    pthread_mutex_init(&changes->lock, NULL);
    pthread_cond_init(&changes->changed, NULL);
    *ret_changes = changes;
    return 0;
}

int changes_add_disk(struct changes *changes, struct disk *disk, uint32_t place, struct err *err)
{
    unsigned index = 0;
    while (index < changes->count && changes->disks[index].place != place)
        index++;
    struct followed *followed = &changes->disks[index];
    struct disk_tap *tap = disk_tap_of(disk);
    if (!tap)
        return err_say(err, ERR_STATE, ENOTSUP, "the writes to disk%u cannot be followed", place);
    if (changes->guarded) { /* the same file, but it may have been another VM's for a moment */
        pthread_mutex_lock(&changes->lock);
        followed->disk = disk;
        followed->tap = tap;
        pthread_mutex_unlock(&changes->lock);
        return 0;
    }
    /* Of our own: it is looked at when the disk is gone. */
    int image = fcntl(disk_point_image(disk), F_DUPFD_CLOEXEC, 3);
    if (image < 0)
        return err_sys(err, ERR_HOST, errno, "cannot note what changes");
    if (index < changes->count)
        close(followed->image);
    else
        changes->count++;
    *followed = (struct followed){
        .changes = changes, .disk = disk, .tap = tap, .image = image, .place = place};
    return 0;
}

void changes_quiet(struct changes *changes)
{
    pthread_mutex_lock(&changes->lock);
    changes->quiet = true;
    pthread_cond_broadcast(&changes->changed);
    pthread_mutex_unlock(&changes->lock);
    thread_join(&changes->thread);
    changes->thread.started = false;
}

/* Where it cannot be said, the next run knows less, and that is all. */
static void rest(struct changes *changes)
{
    struct changes_head *head = &changes->head;
    bool known = true;
    for (uint32_t i = 0; i < head->count; i++)
        for (unsigned j = 0; j < changes->count; j++)
            if (changes->disks[j].place == head->disks[i].place)
                known &= changes_disk_rest(&head->disks[i], changes->disks[j].image) == 0;
    head->flags |= CHANGES_AT_REST;
    if (known)
        (void)!changes_file_write_head(changes->fd, head);
}

void changes_destroy(struct changes *changes)
{
    if (!changes)
        return;
    if (changes->fresh_fd >= 0) {
        changes_file_forget(changes->config.folder);
        close(changes->fresh_fd);
    }
    if (changes->fd >= 0) {
        if (changes->lost || changes->fileless) /* the thread had no time for it */
            (void)!changes_file_remove(changes->config.folder);
        else
            rest(changes);
        close(changes->fd);
    }
    for (unsigned i = 0; i < changes->count; i++)
        close(changes->disks[i].image);
    free_bits(changes);
    pthread_cond_destroy(&changes->changed);
    pthread_mutex_destroy(&changes->lock);
    free(changes);
}
