/* SPDX-License-Identifier: MIT */
/*
 * A record, numbers little-endian:
 *
 *    0   4  kind: 1; 2 where the stream ends: nothing comes after this
 *    4   4  length of its payload, 0 to 8192
 *    8   8  where in the stream the payload begins, or it ends; else not looked at
 *   16   8  received: who speaks has all before this offset of the other direction
 *   24   8  limit: nothing from this offset on may be sent to it
 *   32      payload
 *
 * Rules, for who receives:
 *  1. A payload begins at or before what has been received, and ends at or before the highest limit
 *     that was told. What is there already is passed over.
 *  2. `received` is at most what was ever sent. Of received and limit the highest counts: a record
 *     may come late, by the other path.
 *  3. An end has no payload, and is where what has been received ends. Payload after it has no
 *     place.
 *  4. A record that breaks a rule ends its path.
 *
 * So on one path there are no gaps: who begins to send on it begins with what was acknowledged, and
 * goes on from there.
 */
#include "host/paths.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 1, END = 2 };
enum { ACK_PART = 8, LIMIT_PART = 4 }; /* of the window: so much news is told at once */

/* --- rings ------------------------------------------------------------------------------------ */

static void ring_put(uint8_t *ring, size_t size, uint64_t offset, const uint8_t *from,
                     size_t length)
{
    size_t at = offset % size, first = length < size - at ? length : size - at;
    memcpy(ring + at, from, first);
    memcpy(ring, from + first, length - first);
}

static void ring_get(const uint8_t *ring, size_t size, uint64_t offset, uint8_t *to, size_t length)
{
    size_t at = offset % size, first = length < size - at ? length : size - at;
    memcpy(to, ring + at, first);
    memcpy(to + first, ring, length - first);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- who uses the stream ---------------------------------------------------------------------- */

size_t paths_put(struct paths *paths, const void *from, size_t length)
{
    size_t room = paths->config.window - (size_t)(paths->written - paths->acked);
    length = length < room ? length : room;
    ring_put(paths->out, paths->config.window, paths->written, from, length);
    paths->written += length;
    return length;
}

void paths_end(struct paths *paths)
{
    paths->ends = true;
    for (int i = 0; i < PATHS; i++)
        paths->path[i].owes = paths->path[i].up;
}

static uint64_t limit_of(const struct paths *paths)
{
    return paths->taken + paths->config.window;
}

size_t paths_get(struct paths *paths, void *to, size_t length)
{
    size_t window = paths->config.window;
    length = (size_t)least(length, paths->received - paths->taken);
    ring_get(paths->in, window, paths->taken, to, length);
    paths->taken += length;
    if (paths->active != PATHS_NONE && limit_of(paths) - paths->told_limit >= window / LIMIT_PART)
        paths->path[paths->active].owes = true;
    return length;
}

/* --- paths ------------------------------------------------------------------------------------ */

/* What the peer does not have is sent again. */
static void move_to(struct paths *paths, int path, uint64_t now)
{
    paths->moves += paths->active != PATHS_NONE && path != PATHS_NONE;
    paths->active = path;
    paths->sent = paths->acked;
    paths->progress_ns = now;
}

void paths_up(struct paths *paths, int path, uint64_t now)
{
    paths->path[path] = (struct path){.up = true, .owes = true, .heard_ns = now, .said_ns = now};
    if (paths->active == PATHS_NONE)
        move_to(paths, path, now);
}

void paths_down(struct paths *paths, int path, uint64_t now)
{
    paths->path[path].up = paths->path[path].owes = false;
    if (paths->active == path)
        move_to(paths, paths->path[!path].up ? !path : PATHS_NONE, now);
}

static bool is_bad(const struct paths *paths, int path, uint64_t now)
{
    const struct path *p = &paths->path[path];
    uint64_t stall = paths->config.stall_ns;
    bool stuck = path == paths->active && paths->sent > paths->acked &&
                 now - paths->progress_ns > stall;
    return p->up && (stuck || now - p->heard_ns > stall);
}

static bool is_alive(const struct paths *paths, int path, uint64_t now)
{
    const struct path *p = &paths->path[path];
    return p->up && now - p->heard_ns <= paths->config.stall_ns / 2;
}

/* Who was away for long has heard nothing meanwhile, which says nothing. */
static void forgive(struct paths *paths, uint64_t now)
{
    for (int i = 0; i < PATHS; i++)
        paths->path[i].heard_ns = now;
    paths->progress_ns = now;
}

static void note_due(struct paths *paths, uint64_t now)
{
    bool news = paths->received != paths->told_received || limit_of(paths) != paths->told_limit;
    for (int i = 0; i < PATHS; i++) {
        struct path *p = &paths->path[i];
        p->owes |= p->up && (news || now - p->said_ns >= paths->config.beat_ns);
    }
}

int paths_tick(struct paths *paths, uint64_t now)
{
    if (now - paths->tick_ns > paths->config.stall_ns / 2)
        forgive(paths, now);
    paths->tick_ns = now;
    note_due(paths, now);
    for (int i = 0; i < PATHS; i++) {
        if (!is_bad(paths, i, now) || !is_alive(paths, !i, now))
            continue;
        if (paths->active == i)
            move_to(paths, !i, now);
        if (paths->config.decides)
            return i;
    }
    return PATHS_NONE;
}

/* --- records that leave ----------------------------------------------------------------------- */

static uint64_t sendable(const struct paths *paths)
{
    uint64_t end = least(paths->written, paths->allowed);
    return end > paths->sent ? end - paths->sent : 0;
}

bool paths_wants(const struct paths *paths, int path)
{
    return paths->path[path].up &&
           (paths->path[path].owes || (path == paths->active && sendable(paths) > 0));
}

static void put_number(uint8_t *at, uint64_t number)
{
    number = htole64(number);
    memcpy(at, &number, sizeof(number));
}

/* Returns the record's length. */
static size_t put_record(struct paths *paths, uint8_t *at, uint32_t length)
{
    bool end = paths->ends && paths->acked == paths->written;
    const uint32_t words[] = {htole32(end ? END : BYTES), htole32(length)};
    memcpy(at, words, sizeof(words));
    put_number(at + 8, paths->sent);
    put_number(at + 16, paths->received);
    put_number(at + 24, limit_of(paths));
    ring_get(paths->out, paths->config.window, paths->sent, at + PATHS_HEAD, length);
    paths->sent += length;
    if (paths->sent > paths->furthest)
        paths->furthest = paths->sent;
    return PATHS_HEAD + length;
}

size_t paths_next(struct paths *paths, int path, uint64_t now, uint8_t ret_records[PATHS_BATCH])
{
    size_t length = 0;
    struct path *p = &paths->path[path];
    if (!paths_wants(paths, path))
        return 0;
    if (path == paths->active && paths->sent == paths->acked) /* from now on it can get on */
        paths->progress_ns = now;
    while (path == paths->active && sendable(paths) > 0 &&
           length + PATHS_HEAD + PATHS_PAYLOAD <= PATHS_BATCH)
        length += put_record(paths, ret_records + length,
                             (uint32_t)least(sendable(paths), PATHS_PAYLOAD));
    if (length == 0)
        length = put_record(paths, ret_records, 0);
    paths->told_received = paths->received;
    paths->told_limit = limit_of(paths);
    p->owes = false;
    p->said_ns = now;
    return length;
}

/* --- records that come ------------------------------------------------------------------------ */

static uint64_t get_number(const uint8_t *at)
{
    uint64_t number;
    memcpy(&number, at, sizeof(number));
    return le64toh(number);
}

static uint32_t get_word(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof(word));
    return le32toh(word);
}

int paths_length(const uint8_t head[PATHS_HEAD])
{
    uint32_t kind = get_word(head), length = get_word(head + 4);
    return kind >= BYTES && kind <= END && length <= (kind == END ? 0 : PATHS_PAYLOAD) ? (int)length
                                                                                       : -EBADMSG;
}

/* A path that was silent and is back has brought nothing on meanwhile, and gets its time anew. */
static void note_heard(struct paths *paths, int path, uint64_t now)
{
    struct path *p = &paths->path[path];
    if (path == paths->active && now - p->heard_ns > paths->config.stall_ns / 2)
        paths->progress_ns = now;
    p->heard_ns = now;
}

static void take_ack(struct paths *paths, uint64_t received, uint64_t limit, uint64_t now)
{
    if (limit > paths->allowed)
        paths->allowed = limit;
    if (received <= paths->acked)
        return;
    paths->acked = received;
    paths->progress_ns = now;
    if (paths->sent < received) /* it had come before it was to be sent again */
        paths->sent = received;
}

int paths_take(struct paths *paths, int path, uint64_t now, const uint8_t head[PATHS_HEAD],
               const uint8_t *payload)
{
    int length = paths_length(head);
    uint64_t offset = get_number(head + 8), received = get_number(head + 16);
    if (length < 0 || received > paths->furthest)
        return -EBADMSG;
    bool end_here = get_word(head) == END;
    if ((end_here && offset != paths->received) || (length > 0 && paths->ended))
        return -EBADMSG;
    if (length > 0 && (offset > paths->received || offset + (uint64_t)length > paths->told_limit))
        return -EBADMSG;
    note_heard(paths, path, now);
    paths->ended |= end_here;
    take_ack(paths, received, get_number(head + 24), now);
    uint64_t end = offset + (uint64_t)length;
    if (length == 0 || end <= paths->received)
        return 0;
    uint64_t skip = paths->received - offset;
    ring_put(paths->in, paths->config.window, paths->received, payload + skip,
             (size_t)(end - paths->received));
    paths->received = end;
    if (paths->received - paths->told_received >= paths->config.window / ACK_PART)
        paths->path[path].owes = paths->path[path].up;
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

int paths_init(struct paths *paths, const struct paths_config *config, uint64_t now)
{
    *paths = (struct paths){.config = *config, .active = PATHS_NONE, .tick_ns = now};
    paths->allowed = paths->told_limit = config->window;
    paths->progress_ns = now;
    paths->out = malloc(config->window);
    paths->in = malloc(config->window);
    if (paths->out && paths->in)
        return 0;
    paths_finish(paths);
    return -ENOMEM;
}

void paths_finish(struct paths *paths)
{
    free(paths->out);
    free(paths->in);
    paths->out = paths->in = NULL;
}
