/* SPDX-License-Identifier: MIT */
#include "ft/resync.h"

#include "core/zero.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Where we are in a disk: pieces of marked regions. */
struct cursor {
    const struct departure_disk *disk;
    struct changes_disk about;
    uint64_t *marks;
    uint64_t at; /* byte */
};

/* --- asking ----------------------------------------------------------------------------------- */

/* The next piece that is marked. False: there is none. */
static bool next_piece(struct cursor *cursor, struct resync_look *look)
{
    uint64_t size = cursor->about.size;
    for (; cursor->at < size;) {
        uint64_t region = cursor->at >> cursor->about.shift;
        uint64_t word = cursor->marks[region / CHANGES_WORD] >> region % CHANGES_WORD;
        if (word & 1)
            break;
        region += word ? (uint64_t)__builtin_ctzll(word) : CHANGES_WORD - region % CHANGES_WORD;
        cursor->at = region << cursor->about.shift;
    }
    if (cursor->at >= size)
        return false;
    uint64_t left = size - cursor->at;
    look->place = cursor->disk->about.place;
    look->offset = cursor->at;
    look->length = left < RESYNC_PIECE ? (uint32_t)left : RESYNC_PIECE;
    cursor->at += look->length;
    return true;
}

static int ask(struct resync *resync, struct departure *departure, struct cursor *cursor,
               struct err *err)
{
    struct stream *stream = link_writer(departure->link);
    struct resync_look look;
    bool asks = false;
    memcpy(look.key, resync->key, sizeof(look.key));
    pthread_mutex_lock(departure->writing);
    while (resync->asked - resync->used < RESYNC_WINDOW && next_piece(cursor, &look)) {
        pthread_mutex_lock(&resync->lock);
        resync->answers[resync->asked++ % RESYNC_WINDOW].look = look;
        pthread_mutex_unlock(&resync->lock);
        resync_put_look(stream, &look);
        resync->marked += look.length;
        asks = true;
    }
    int ret = asks ? stream_flush(stream) : 0;
    pthread_mutex_unlock(departure->writing);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "the connection is lost") : 0;
}

static int wait_for_answer(struct resync *resync, struct err *err)
{
    pthread_mutex_lock(&resync->lock);
    while (resync->answered == resync->used && !resync->over)
        pthread_cond_wait(&resync->changed, &resync->lock);
    bool there = resync->answered != resync->used;
    pthread_mutex_unlock(&resync->lock);
    return there ? 0 : err_say(err, ERR_FAILED, ECANCELED, "the copy was given up");
}

int resync_take(struct resync *resync, struct stream_buffer *payload, struct err *err)
{
    struct resync_look look;
    uint8_t sums[RESYNC_SUMS];
    int ret = resync_get_looked(payload, &look, sums, err);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&resync->lock);
    struct resync_answer *answer = &resync->answers[resync->answered % RESYNC_WINDOW];
    bool fits = resync->answered != resync->asked && answer->look.place == look.place &&
                answer->look.offset == look.offset && answer->look.length == look.length;
    if (fits) {
        memcpy(answer->sums, sums, sizeof(sums));
        resync->answered++;
        resync->sums += payload->length;
        pthread_cond_broadcast(&resync->changed);
    }
    pthread_mutex_unlock(&resync->lock);
    return fits ? 0 : err_say(err, ERR_FAILED, EBADMSG, "a frame LOOKED answers nothing");
}

void resync_end(struct resync *resync)
{
    if (!resync)
        return;
    pthread_mutex_lock(&resync->lock);
    resync->over = true;
    pthread_cond_broadcast(&resync->changed);
    pthread_mutex_unlock(&resync->lock);
}

/* --- sending ---------------------------------------------------------------------------------- */

static int send_run(struct departure *departure, const struct resync_look *look, uint32_t from,
                    uint32_t to, struct err *err)
{
    const uint8_t *bytes = departure->block + from;
    const struct moving_block block = {
        .place = look->place,
        .offset = look->offset + from,
        .length = to - from,
        .bytes = is_zero(bytes, to - from) ? NULL : bytes,
    };
    return to > from ? departure_put_block(departure, &block, err) : 0;
}

/* Our own piece is what it is now, or newer: then it is sent once more. */
static int send_piece(const struct resync *resync, struct departure *departure,
                      const struct departure_disk *disk, const struct resync_answer *answer,
                      struct err *err)
{
    const struct resync_look *look = &answer->look;
    uint8_t ours[RESYNC_SUMS];
    int ret = disk_watch_read(disk->watch, look->offset, departure->block, look->length, false);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s", disk->about.name);
    size_t sums = resync_sum(resync->key, departure->block, look->length, ours);
    uint32_t from = 0, at = 0;
    for (size_t i = 0; i < sums && ret == 0; i += SIPHASH_SUM) {
        uint32_t next = look->length - at < RESYNC_BLOCK ? look->length : at + RESYNC_BLOCK;
        if (memcmp(ours + i, answer->sums + i, SIPHASH_SUM) == 0) {
            ret = send_run(departure, look, from, at, err);
            from = next;
        }
        at = next;
    }
    return ret < 0 ? ret : send_run(departure, look, from, at, err);
}

static int send_marked(struct resync *resync, struct departure *departure, struct cursor *cursor,
                       struct err *err)
{
    for (;;) {
        int ret = ask(resync, departure, cursor, err);
        if (ret < 0 || resync->used == resync->asked)
            return ret;
        ret = wait_for_answer(resync, err);
        const struct resync_answer *answer = &resync->answers[resync->used % RESYNC_WINDOW];
        if (ret == 0)
            ret = send_piece(resync, departure, cursor->disk, answer, err);
        if (ret < 0)
            return ret;
        departure->sent += answer->look.length;
        resync->used++;
    }
}

/* Where either of the two may differ. */
static int begin(struct cursor *cursor, const struct resync *resync, struct changes *changes,
                 struct err *err)
{
    const struct changes_head *head = &resync->base.head;
    const struct changes_disk *theirs = changes_head_find(head, cursor->disk->about.place);
    if (!theirs || !changes_find_disk(changes, cursor->disk->about.place, &cursor->about) ||
        theirs->size != cursor->about.size || theirs->shift != cursor->about.shift)
        return err_say(err, ERR_FAILED, EBADMSG, "the other side has other disks than it says");
    size_t words = changes_words(theirs);
    cursor->marks = calloc(words, sizeof(uint64_t));
    if (!cursor->marks)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot compare disks");
    memcpy(cursor->marks, resync->base.bits + changes_first_word(head, theirs),
           words * sizeof(uint64_t));
    changes_read(changes, theirs, cursor->marks);
    return 0;
}

static uint64_t count_marked(const struct cursor *cursor)
{
    uint64_t bytes = 0;
    struct cursor copy = *cursor;
    struct resync_look look;
    while (next_piece(&copy, &look))
        bytes += look.length;
    return bytes;
}

int resync_send_disks(struct resync *resync, struct departure *departure, struct changes *changes,
                      struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < departure->disk_count && ret == 0; i++) {
        struct cursor cursor = {.disk = &departure->disks[i]};
        ret = begin(&cursor, resync, changes, err);
        if (ret == 0) {
            departure->total -= cursor.about.size - count_marked(&cursor);
            ret = send_marked(resync, departure, &cursor, err);
        }
        free(cursor.marks);
    }
    return ret;
}

/* --- life ------------------------------------------------------------------------------------- */

bool resync_is_delta(const struct resync *resync)
{
    return resync && !resync->base.why[0];
}

int resync_create(struct resync **ret_resync, const struct resync_base *base, struct err *err)
{
    struct resync *resync = calloc(1, sizeof(*resync));
    if (resync && getrandom(resync->key, sizeof(resync->key), 0) != sizeof(resync->key)) {
        free(resync);
        resync = NULL;
    }
    if (!resync) {
        free(base->bits);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot compare disks");
    }
    resync->base = *base;
    pthread_mutex_init(&resync->lock, NULL);
    pthread_cond_init(&resync->changed, NULL);
    *ret_resync = resync;
    return 0;
}

void resync_destroy(struct resync *resync)
{
    if (!resync)
        return;
    free(resync->base.bits);
    pthread_cond_destroy(&resync->changed);
    pthread_mutex_destroy(&resync->lock);
    explicit_bzero(resync->key, sizeof(resync->key));
    free(resync);
}
