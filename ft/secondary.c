/* SPDX-License-Identifier: MIT */
#include "ft/secondary.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/arrival_base.h"
#include "ft/arrival_parts.h"
#include "ft/compare.h"
#include "ft/delta.h"
#include "ft/epoch_journal.h"
#include "ft/staging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

struct secondary {
    struct secondary_config config;
    struct arrival *arrival;
    struct conductor *conductor;
    struct staging *staging;
    struct epoch_journal *journal; /* NULL: the commit level is "memory" */
    struct stream_buffer incoming; /* the state of the epoch that is coming in */
    /* As memory and disks have to be after it, if that came. */
    struct stream_buffer sums[1 + MACHINE_MAX_DISKS];
    unsigned sum_count;
    struct instance_settings settings, coming_settings;
    bool settings_came; /* with the epoch that is coming in */
    bool filled;        /* all of it has come once, and what comes now is waited for */
    bool whole;         /* the first epoch is here */
    atomic_bool spoilt; /* memory (--verify) or disks are not what they have to be */
    uint64_t epoch;     /* the last one that was whole */
    bool behind;        /* that one could not be applied, as yet */
    uint64_t unsynced;  /* bytes of blocks, before that */
    struct thread thread;
    struct thread syncer; /* once it is whole */
    atomic_bool busy;
    uint64_t come; /* bytes, when somebody asked last whether it is */

    pthread_mutex_t lock; /* what is wanted, and the news */
    pthread_cond_t changed;
    bool applies, applies_last, takes_over, ends;
    bool quiet;       /* nothing more is said of what is on stable storage */
    uint64_t applied; /* the last epoch of which memory and disks have everything */
    struct secondary_news news;
};

static const char *vm_name(const struct secondary *secondary)
{
    return secondary->arrival->hello.name;
}

/* --- the protocol's actions ------------------------------------------------------------------- */

static void want(struct secondary *secondary, bool *what)
{
    pthread_mutex_lock(&secondary->lock);
    *what = true;
    pthread_cond_broadcast(&secondary->changed);
    pthread_mutex_unlock(&secondary->lock);
}

void secondary_apply(struct secondary *secondary)
{
    want(secondary, &secondary->applies);
}

void secondary_apply_last(struct secondary *secondary)
{
    want(secondary, &secondary->applies_last);
}

void secondary_take_over(struct secondary *secondary)
{
    want(secondary, &secondary->takes_over);
    link_break(secondary->arrival->link); /* nothing more is to be heard of who had it */
}

void secondary_end(struct secondary *secondary)
{
    want(secondary, &secondary->ends);
}

/* Who has one part of a frame, and waits for the other, is as deaf as the line is silent. */
bool secondary_is_busy(struct secondary *secondary)
{
    uint64_t before = secondary->come;
    if (!secondary->busy)
        return false;
    bool waits = link_waits(secondary->arrival->link, &secondary->come);
    return !waits || secondary->come != before;
}

/* --- epochs ----------------------------------------------------------------------------------- */

static int put_page(void *ctx, uint64_t page, const uint8_t *bytes)
{
    struct secondary *secondary = ctx;
    return staging_put_page(secondary->staging, page, bytes);
}

static const uint8_t *held_page(void *ctx, uint64_t page)
{
    const struct secondary *secondary = ctx;
    return staging_page(secondary->staging, page);
}

static int take_pages(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    const struct page_taker taker = {.held = held_page, .put = put_page, .ctx = secondary};
    return secondary->whole
               ? page_frame_read(link_reader(arrival->link), frame, &taker, &arrival->tally, err)
               : arrival_take_pages(arrival, frame, err);
}

/* Before the first epoch is whole. Where that fails the next one to come gets all of the disks: the
 * page cache has what they lack. */
static int sync_filled(struct secondary *secondary, struct err *err)
{
    int ret = arrival_folder_sync(&secondary->arrival->folder, err);
    if (ret < 0)
        arrival_base_doubt(&secondary->arrival->folder);
    return ret;
}

/* Bit by bit, while nobody waits for it. */
static int sync_now_and_then(struct secondary *secondary, uint32_t length, struct err *err)
{
    enum { SYNC_BYTES = 128 << 20 };
    secondary->unsynced += length;
    if (secondary->unsynced < SYNC_BYTES)
        return 0;
    secondary->unsynced = 0;
    return sync_filled(secondary, err);
}

/* What does not fit could not be applied later, and would be acknowledged. */
static int take_block(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    struct moving_block block;
    if (!secondary->whole) {
        int taken = arrival_take_block(arrival, err);
        return taken < 0 ? taken : sync_now_and_then(secondary, frame->length, err);
    }
    int ret = moving_get_block(&arrival->payload, &block, err);
    if (ret == 0)
        ret = arrival_folder_check_block(&arrival->folder, &block, err);
    if (ret == 0 && secondary->journal)
        ret = epoch_journal_put(secondary->journal, frame, arrival->payload.bytes, err);
    if (ret == 0 && (ret = staging_put_block(secondary->staging, &block)) < 0)
        err_sys(err, ERR_HOST, -ret, "cannot keep a block apart");
    return ret;
}

/* What was put with the lock on writing leaves, and the lock is given back. */
static int end_answer(struct secondary *secondary, struct err *err)
{
    int ret = stream_flush(link_writer(secondary->arrival->link));
    pthread_mutex_unlock(conductor_writing(secondary->conductor));
    return ret < 0 ? err_say(err, ERR_FAILED, EPIPE, "the connection is lost") : 0;
}

/* --- what the disks have ---------------------------------------------------------------------- */

static int take_look(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    uint8_t sums[RESYNC_SUMS];
    struct resync_look look;
    if (secondary->whole)
        return arrival_out_of_place(frame, err);
    int ret = resync_get_look(&arrival->payload, &look, err);
    if (ret == 0)
        ret = arrival_base_sum(&arrival->folder, &look, sums, err);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(conductor_writing(secondary->conductor));
    resync_put_looked(link_writer(arrival->link), &look, sums);
    return end_answer(secondary, err);
}

/* False: it is to end. */
static bool wait_for_epochs(struct secondary *secondary, uint64_t *ret_applied)
{
    enum { SYNC_MS = 1000 };
    const struct timespec at = clock_timespec(clock_monotonic_ns() + SYNC_MS * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&secondary->lock);
    while (!secondary->quiet && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&secondary->changed, &secondary->lock, CLOCK_MONOTONIC, &at);
    *ret_applied = secondary->applied;
    bool goes_on = !secondary->quiet;
    pthread_mutex_unlock(&secondary->lock);
    return goes_on;
}

/* No later twin begins with these disks. */
static void spoil(struct secondary *secondary)
{
    secondary->spoilt = true;
    (void)!changes_file_remove(secondary->arrival->folder.fd);
}

/* Where it fails the page cache has what a disk lacks, and sums would not tell. */
static int sync_disks(struct secondary *secondary, struct err *err)
{
    int ret = arrival_folder_sync(&secondary->arrival->folder, err);
    if (ret < 0)
        spoil(secondary);
    return ret;
}

/* Whoever runs the VM hears why. */
static void end_for(struct secondary *secondary, struct err *err)
{
    pthread_mutex_lock(conductor_writing(secondary->conductor));
    arrival_refuse(secondary->arrival, err);
    pthread_mutex_unlock(conductor_writing(secondary->conductor));
    err_prefix(err, "%s", vm_name(secondary));
    log_err(LOG_ERROR, err);
    link_break(secondary->arrival->link);
}

/* Beside the epochs, which do not wait for it: who runs the VM forgets what is on stable storage on
 * both sides. */
static void run_syncer(void *arg)
{
    struct secondary *secondary = arg;
    struct stream *stream = link_writer(secondary->arrival->link);
    pthread_mutex_t *writing = conductor_writing(secondary->conductor);
    struct err err = {0};
    uint64_t told = 0, applied;
    int ret = 0;
    while (ret == 0 && wait_for_epochs(secondary, &applied)) {
        if (applied == told)
            continue;
        ret = sync_disks(secondary, &err);
        if (ret < 0) {
            end_for(secondary, &err);
            break;
        }
        pthread_mutex_lock(writing);
        resync_put_synced(stream, applied);
        ret = stream_flush(stream);
        pthread_mutex_unlock(writing);
        told = applied;
    }
}

static void be_quiet(struct secondary *secondary)
{
    pthread_mutex_lock(&secondary->lock);
    secondary->quiet = true;
    pthread_cond_broadcast(&secondary->changed);
    pthread_mutex_unlock(&secondary->lock);
}

static int put_block(void *ctx, const struct moving_block *block, struct err *err)
{
    struct arrival *arrival = ctx;
    return arrival_folder_put_block(&arrival->folder, block, err);
}

static int read_memory(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct arrival *arrival = ctx;
    memcpy(bytes, arrival->host + offset, length);
    return 0;
}

static int verify_one(struct secondary *secondary, struct stream_buffer *sums, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    const struct compare_what memory = {
        .size = arrival->pages * PAGE_SIZE, .read = read_memory, .ctx = arrival};
    uint32_t place;
    stream_buffer_rewind(sums);
    int ret = compare_place(sums, &place, err);
    if (ret < 0)
        return ret;
    return place == COMPARE_MEMORY ? compare_check(sums, "guest memory", &memory, err)
                                   : arrival_folder_compare(&arrival->folder, place, sums, err);
}

/* Memory and disks have everything of their epoch, and nothing of the next one. */
static int verify(struct secondary *secondary, struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < secondary->sum_count && ret == 0; i++)
        ret = verify_one(secondary, &secondary->sums[i], err);
    secondary->sum_count = 0;
    return ret;
}

static int apply(struct secondary *secondary, struct err *err)
{
    const struct staging_disks disks = {.put = put_block, .ctx = secondary->arrival};
    uint64_t begin = clock_monotonic_ns();
    int ret = staging_apply(secondary->staging, &disks, err);
    secondary->behind = ret < 0;
    pthread_mutex_lock(&secondary->lock);
    secondary->applied = ret < 0 ? secondary->applied : secondary->epoch;
    secondary->news.apply_ns = clock_monotonic_ns() - begin;
    pthread_mutex_unlock(&secondary->lock);
    return ret;
}

/* What the first epoch wrote, settle() syncs. */
static int journal_commit(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    if (!secondary->journal)
        return 0;
    return epoch_journal_commit(secondary->journal, frame->generation, frame->epoch, err);
}

static void swap_states(struct secondary *secondary)
{
    struct stream_buffer swap = secondary->arrival->state;
    secondary->arrival->state = secondary->incoming;
    secondary->incoming = swap;
}

static int step_try(void *ctx, struct err *err)
{
    struct secondary *secondary = ctx;
    return arrival_try(secondary->arrival, err);
}

/* So it is there at least for now. */
static void bring_memory_in(struct secondary *secondary)
{
    struct arrival *arrival = secondary->arrival;
    if (!secondary->news.locked)
        memory_bring_in(machine_memory(arrival->machine), arrival->touched);
}

/* While it is being filled, what takes long: nobody waits for it yet. */
static int store(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    if (secondary->whole)
        return arrival_out_of_place(frame, err);
    bring_memory_in(secondary);
    int ret = sync_filled(secondary, err);
    secondary->filled = true;
    if (ret < 0)
        return ret;
    pthread_mutex_lock(conductor_writing(secondary->conductor));
    moving_put_ack(link_writer(secondary->arrival->link), FRAME_STORED);
    return end_answer(secondary, err);
}

/* What could not be taken over is better known now than then. Memory is not touched: whoever runs
 * the VM sends what changes in the pages that it has sent. */
static int settle(struct secondary *secondary, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    bring_memory_in(secondary);
    int ret = loop_step_do(&arrival->step, step_try, secondary, err);
    if (ret == 0)
        ret = sync_filled(secondary, err);
    if (ret == 0)
        ret = secondary->config.settle(secondary->config.ctx, err);
    secondary->whole = secondary->filled = ret == 0;
    return ret < 0 ? ret : thread_start(&secondary->syncer, "syncer", run_syncer, secondary, err);
}

static int commit(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    const struct ft_event staged = {.kind = FT_STAGED,
                                    .link = CONDUCTOR_FIRST_LINK,
                                    .generation = frame->generation,
                                    .epoch = frame->epoch};
    if (secondary->incoming.length == 0)
        return err_say(err, ERR_FAILED, EBADMSG, "the VM's state is missing");
    int ret = journal_commit(secondary, frame, err);
    if (ret < 0)
        return ret;
    arrival->tally = (struct frame_tally){0};
    swap_states(secondary);
    ret = secondary->whole ? 0 : settle(secondary, err);
    if (ret < 0)
        return ret;
    conductor_tell(secondary->conductor, &staged);
    pthread_mutex_lock(&secondary->lock);
    bool taken = secondary->applies;
    secondary->applies = false;
    secondary->news.epochs += taken;
    pthread_mutex_unlock(&secondary->lock);
    if (!taken) { /* too late: it is claimed as it was before */
        swap_states(secondary);
        return err_say(err, ERR_STATE, ECANCELED, "an epoch comes too late");
    }
    secondary->epoch = frame->epoch;
    secondary->incoming.length = 0;
    if (secondary->settings_came)
        secondary->settings = secondary->coming_settings;
    secondary->settings_came = false;
    ret = apply(secondary, err);
    if (ret == 0 && secondary->journal)
        ret = epoch_journal_applied(secondary->journal, err);
    if (ret < 0)
        return ret;
    ret = verify(secondary, err);
    if (ret < 0)
        spoil(secondary);
    return ret;
}

/* --- frames ----------------------------------------------------------------------------------- */

static int take_word(struct secondary *secondary, struct err *err)
{
    struct ft_event event = {.kind = FT_HEARD, .link = CONDUCTOR_FIRST_LINK};
    int ret = following_get_word(&secondary->arrival->payload, &event.word, err);
    pthread_mutex_lock(&secondary->lock);
    secondary->news.handed |= ret == 0 && event.word.kind == FT_HAND;
    pthread_mutex_unlock(&secondary->lock);
    if (ret == 0)
        conductor_tell(secondary->conductor, &event);
    return ret;
}

/* The payload is `to`, for as long as that is needed; what it was is room for the next one. */
static int keep_payload(struct secondary *secondary, struct stream_buffer *to)
{
    struct stream_buffer swap = *to;
    *to = secondary->arrival->payload;
    secondary->arrival->payload = swap;
    return 0;
}

/* Until the epoch is applied. */
static int keep_sums(struct secondary *secondary, struct err *err)
{
    if (secondary->sum_count == array_size(secondary->sums))
        return err_say(err, ERR_FAILED, EBADMSG, "sums come of more than there is");
    return keep_payload(secondary, &secondary->sums[secondary->sum_count++]);
}

/* Of the state of the epoch before, which is the last one that came. */
static int take_changes(struct secondary *secondary, struct err *err)
{
    struct stream_buffer *payload = &secondary->arrival->payload, *to = &secondary->incoming;
    const struct stream_buffer *before = &secondary->arrival->state;
    uint32_t size = stream_get_u32(&payload->stream);
    if (stream_error(&payload->stream) < 0 || size == 0 || size != before->length)
        return err_say(err, ERR_FAILED, EBADMSG, "the changes of a state do not fit it");
    if (stream_buffer_reserve(to, size) < 0)
        return err_sys(err, ERR_HOST, ENOMEM, "no room for the VM's state");
    memcpy(to->bytes, before->bytes, size);
    to->length = size;
    return delta_apply(payload->bytes + sizeof(size), payload->length - sizeof(size), to->bytes,
                       size)
               ? 0
               : err_say(err, ERR_FAILED, EBADMSG, "the changes of a state make no sense");
}

static int take_settings(struct secondary *secondary, struct err *err)
{
    int ret = following_get_settings(&secondary->arrival->payload, &secondary->coming_settings,
                                     err);
    secondary->settings_came = ret == 0;
    return ret;
}

static int take_frame(struct secondary *secondary, const struct frame *frame, struct err *err)
{
    switch (frame->kind) {
    case FRAME_BLOCKS:
        return take_block(secondary, frame, err);
    case FRAME_STATE:
        return keep_payload(secondary, &secondary->incoming);
    case FRAME_CHANGES:
        return take_changes(secondary, err);
    case FRAME_COMPARE:
        return keep_sums(secondary, err);
    case FRAME_SETTINGS:
        return take_settings(secondary, err);
    case FRAME_ROUND:
        return store(secondary, frame, err);
    case FRAME_COMMIT:
        return commit(secondary, frame, err);
    case FRAME_WORD:
        return take_word(secondary, err);
    case FRAME_LOOK:
        return take_look(secondary, frame, err);
    default:
        return arrival_out_of_place(frame, err);
    }
}

static bool is_of_no_epoch(const struct frame *frame)
{
    return frame->kind == FRAME_WORD || frame->kind == FRAME_LOOK || frame->kind == FRAME_ROUND;
}

/* Of another epoch than the one that is due it could not be told apart later. */
static bool is_due(const struct secondary *secondary, const struct frame *frame)
{
    if (is_of_no_epoch(frame))
        return true;
    return frame->generation == secondary->arrival->following.generation && frame->epoch > 0 &&
           (!secondary->whole || frame->epoch == secondary->epoch + 1);
}

/* Whatever comes, somebody is there: its words may lie behind much else. */
static void note_life(struct secondary *secondary, const struct frame *frame)
{
    const struct ft_event heard = {
        .kind = FT_HEARD,
        .link = CONDUCTOR_FIRST_LINK,
        .word = {FT_BEAT, secondary->arrival->following.generation, 0},
    };
    if (frame->kind != FRAME_WORD)
        conductor_tell(secondary->conductor, &heard);
}

static int take_next(struct secondary *secondary, struct err *err)
{
    struct arrival *arrival = secondary->arrival;
    struct stream *stream = link_reader(arrival->link);
    struct frame frame;
    secondary->busy = false;
    int ret = frame_read_head(stream, &frame, err);
    secondary->busy = true;
    if (ret == 0 && !is_due(secondary, &frame))
        return arrival_out_of_place(&frame, err);
    if (ret == 0)
        note_life(secondary, &frame);
    bool pages = ret == 0 && frame.kind == FRAME_PAGES;
    if (pages)
        ret = take_pages(secondary, &frame, err);
    else if (ret == 0)
        ret = frame_read_rest(stream, &frame, &arrival->payload,
                              is_of_no_epoch(&frame) ? NULL : &arrival->tally, err);
    if (ret < 0)
        return moving_say(stream, ret, err);
    return pages ? 0 : take_frame(secondary, &frame, err);
}

/* --- the end ---------------------------------------------------------------------------------- */

static int step_take_over(void *ctx, struct err *err)
{
    struct secondary *secondary = ctx;
    int ret = arrival_load(secondary->arrival, err);
    if (ret < 0)
        return ret;
    machine_announce(secondary->arrival->machine);
    secondary->arrival->come = true;
    secondary->config.taken_over(secondary->config.ctx);
    return 0;
}

static bool take_wish(struct secondary *secondary, bool *wish)
{
    pthread_mutex_lock(&secondary->lock);
    bool wanted = *wish;
    *wish = false;
    pthread_mutex_unlock(&secondary->lock);
    return wanted;
}

/* The disks hold the last epoch that was acknowledged, and nothing of what came after it. Whoever
 * has acknowledged what it does not have, on its disks or in memory, wins nothing: its process ends
 * as by a crash, whatever becomes of the other side. */
static int apply_last(struct secondary *secondary, struct err *err)
{
    const struct ft_event applied = {.kind = FT_APPLIED};
    if (secondary->spoilt)
        return err_say(err, ERR_FAILED, EIO, "it has lost what it acknowledged");
    int ret = secondary->behind ? apply(secondary, err) : 0; /* it was acknowledged */
    if (ret < 0)
        return ret;
    staging_drop(secondary->staging);
    ret = sync_disks(secondary, err);
    if (ret == 0 && secondary->journal)
        ret = epoch_journal_end(secondary->journal, err);
    if (ret == 0)
        conductor_tell(secondary->conductor, &applied);
    return ret;
}

static int take_over(struct secondary *secondary, struct err *err)
{
    uint64_t begin = clock_monotonic_ns();
    conductor_detach(secondary->conductor); /* the next link is that of our own twin */
    int ret = loop_step_do(&secondary->arrival->step, step_take_over, secondary, err);
    pthread_mutex_lock(&secondary->lock);
    secondary->news.takeover_ns = clock_monotonic_ns() - begin;
    pthread_mutex_unlock(&secondary->lock);
    if (ret == 0) /* from here on its memory is that of any VM */
        memory_unlock(machine_memory(secondary->arrival->machine));
    return ret;
}

/* What the protocol wants that takes long; at any moment but while an epoch is applied. */
static int fulfil(struct secondary *secondary, struct err *err)
{
    int ret = 0;
    if (take_wish(secondary, &secondary->applies_last))
        ret = apply_last(secondary, err);
    if (ret == 0 && take_wish(secondary, &secondary->takes_over))
        ret = take_over(secondary, err);
    return ret;
}

static bool wait_for_wish(struct secondary *secondary)
{
    pthread_mutex_lock(&secondary->lock);
    while (!secondary->ends && !secondary->applies_last && !secondary->takes_over)
        pthread_cond_wait(&secondary->changed, &secondary->lock);
    bool goes_on = !secondary->ends;
    pthread_mutex_unlock(&secondary->lock);
    return goes_on && !secondary->arrival->come;
}

static int take_until(struct secondary *secondary, const bool *until, struct err *err)
{
    int ret = 0;
    while (ret == 0 && !*until) {
        ret = take_next(secondary, err);
        if (ret == 0)
            ret = fulfil(secondary, err);
    }
    return ret;
}

/* Also on a thread of its own, for the sake of the VMs that run here: as long as it lasts nobody
 * waits for it, as for who sends it (ft/primary_sync.c). */
struct filling {
    struct secondary *secondary;
    struct err *err;
    int ret;
};

static void run_filling(void *arg)
{
    struct filling *filling = arg;
    thread_be_modest();
    filling->ret = take_until(filling->secondary, &filling->secondary->filled, filling->err);
}

static int take_modestly(struct secondary *secondary, struct err *err)
{
    struct filling filling = {.secondary = secondary, .err = err};
    struct thread thread = {0};
    int ret = thread_start(&thread, "filling", run_filling, &filling, err);
    thread_join(&thread);
    return ret < 0 ? ret : filling.ret;
}

static void run(void *arg)
{
    const bool never = false;
    struct secondary *secondary = arg;
    struct err *err = &secondary->arrival->err;
    const struct ft_event gone = {.kind = FT_DISCONNECTED, .link = CONDUCTOR_FIRST_LINK};
    int ret = take_modestly(secondary, err);
    if (ret == 0)
        ret = take_until(secondary, &never, err);
    if (secondary->spoilt)
        log_error("%s: this twin has lost what it acknowledged, and takes nothing over: %s",
                  vm_name(secondary), err->text);
    else if (err->kind)
        log_info("%s is followed no more: %s", vm_name(secondary), err->text);
    if (ret != -ENODATA && err->kind) {
        pthread_mutex_lock(conductor_writing(secondary->conductor));
        arrival_refuse(secondary->arrival, err);
        pthread_mutex_unlock(conductor_writing(secondary->conductor));
    }
    conductor_tell(secondary->conductor, &gone);
    conductor_detach(secondary->conductor);
    be_quiet(secondary);
    secondary->busy = false; /* from here on silence is what it is, our own twin's too */
    while (wait_for_wish(secondary)) {
        struct err why = {0};
        if (fulfil(secondary, &why) < 0) {
            err_prefix(&why, "%s cannot go on here", vm_name(secondary));
            log_err(LOG_ERROR, &why);
            secondary->config.failed(secondary->config.ctx);
            break;
        }
    }
}

/* A takeover must not wait for a swap disk. */
static void lock_memory(struct secondary *secondary)
{
    struct sysinfo host = {0};
    struct memory *memory = machine_memory(secondary->arrival->machine);
    secondary->news.locked = memory_lock(memory) == 0;
    if (secondary->news.locked || sysinfo(&host) < 0 || host.totalswap == 0)
        return;
    log_warning("%s: this host may swap out the twin's memory, and a takeover be slow: it may not "
                "lock %llu MiB (RLIMIT_MEMLOCK)",
                vm_name(secondary), (unsigned long long)(memory_size(memory) >> 20));
}

/* --- life ------------------------------------------------------------------------------------- */

const struct instance_settings *secondary_settings(const struct secondary *secondary)
{
    return &secondary->settings;
}

void secondary_look(struct secondary *secondary, struct secondary_news *ret_news)
{
    pthread_mutex_lock(&secondary->lock);
    *ret_news = secondary->news;
    pthread_mutex_unlock(&secondary->lock);
}

int secondary_create(struct secondary **ret_secondary, const struct secondary_config *config,
                     struct err *err)
{
    struct secondary *secondary = calloc(1, sizeof(*secondary));
    if (!secondary)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot follow a VM");
    secondary->config = *config;
    secondary->arrival = config->arrival;
    pthread_mutex_init(&secondary->lock, NULL);
    pthread_cond_init(&secondary->changed, NULL);
    stream_buffer_init(&secondary->incoming, 0);
    for (unsigned i = 0; i < array_size(secondary->sums); i++)
        stream_buffer_init(&secondary->sums[i], 0);
    lock_memory(secondary);
    int ret = staging_create(&secondary->staging, config->arrival->host, config->arrival->pages,
                             err);
    if (ret == 0 && config->arrival->following.durable)
        ret = epoch_journal_create(&secondary->journal, &config->arrival->folder,
                                   EPOCH_JOURNAL_LONGEST, err);
    if (ret < 0) {
        secondary_destroy(secondary);
        return ret;
    }
    *ret_secondary = secondary;
    return 0;
}

int secondary_start(struct secondary *secondary, struct conductor *conductor, struct err *err)
{
    secondary->conductor = conductor;
    return thread_start(&secondary->thread, "secondary", run, secondary, err);
}

static void end_syncer(struct secondary *secondary)
{
    be_quiet(secondary);
    thread_join(&secondary->syncer);
    secondary->syncer.started = false;
}

void secondary_abandon(struct secondary *secondary)
{
    if (!secondary->thread.started)
        return;
    loop_step_abandon(&secondary->arrival->step);
    secondary_end(secondary); /* first: whoever ends because we do claims nothing */
    link_break(secondary->arrival->link);
    thread_join(&secondary->thread);
    secondary->thread.started = false;
    end_syncer(secondary);
}

void secondary_destroy(struct secondary *secondary)
{
    if (!secondary)
        return;
    end_syncer(secondary);
    staging_destroy(secondary->staging);
    epoch_journal_destroy(secondary->journal);
    stream_buffer_finish(&secondary->incoming);
    for (unsigned i = 0; i < array_size(secondary->sums); i++)
        stream_buffer_finish(&secondary->sums[i]);
    pthread_cond_destroy(&secondary->changed);
    pthread_mutex_destroy(&secondary->lock);
    free(secondary);
}
