/* SPDX-License-Identifier: MIT */
/*
 * Commits: how changes of metadata get into the file, so that it is sound at every moment, whatever
 * part of the writes since the last sync is there.
 *
 * A commit copies all changed units at its beginning, and then goes through these phases. Each one
 * is asynchronous, waits for its writes, and is left out where it has nothing to do:
 *
 *   REFCOUNTS         changed refcount blocks; a refcount table that has moved, as a whole
 *   SYNC_REFCOUNTS    with them come the data that the mappings will point to
 *   REFCOUNT_TABLE    its entries for new blocks; the header, if the table has moved
 *   SYNC_TABLE
 *   MAPPINGS          L2 tables and the L1 table
 *   SYNC_ALL          a guest's FLUSH that came before the commit is done
 *
 * So whatever a mapping in the file points to is counted in the file, and has its bytes. The
 * other way round: what is no longer pointed to is put into `frees`, and only after the commit that
 * has written this, and after all parts that were under way when it was changed (they may still
 * read or write there), a hole is punched and the refcount goes down, to be written by the next
 * commit. Until then nobody else gets the cluster. What a crash leaves behind are clusters that are
 * counted and not used.
 *
 * Copies, because the next changes need not wait then, and what is written does not change under
 * the pen. A commit that failed puts its units back into the lists. Data that a sync could not
 * write are in no list, and the kernel tells of them once: where that was a commit that no FLUSH
 * waited for, the next one is told.
 */
#include "host/disk_qcow2.h"

#include "core/clock.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    /* Both kinds, an entry of L1 and one of the refcount table for each, and the header. */
    SLOTS = 4 * QCOW2_DIRTY_ROOM + 1,
};

static bool is_dirty(const struct qcow2 *q)
{
    return q->cache.dirty_count[QCOW2_L2] || q->cache.dirty_count[QCOW2_REFCOUNT] ||
           q->l1.dirty_count || q->refcounts.dirty_count || q->header_dirty || q->table_moved;
}

bool qcow2_commit_pending(const struct qcow2 *q)
{
    return is_dirty(q) || q->commit.free_count || q->commit.phase != QCOW2_IDLE;
}

static int wait_for_round(struct qcow2 *q)
{
    if (q->commit.error)
        return q->commit.error;
    q->commit.wanted = true;
    return 0;
}

int qcow2_commit_room(struct qcow2 *q)
{
    const struct qcow2_cache *cache = &q->cache;

    if (cache->dirty_count[QCOW2_L2] < QCOW2_MOST_DIRTY &&
        cache->dirty_count[QCOW2_REFCOUNT] < QCOW2_MOST_DIRTY &&
        q->l1.dirty_count < QCOW2_MOST_DIRTY && q->refcounts.dirty_count < QCOW2_MOST_DIRTY &&
        q->commit.free_count < QCOW2_MOST_FREES)
        return 1;
    return wait_for_round(q);
}

int qcow2_commit_room_for(struct qcow2 *q, const struct qcow2_unit *unit)
{
    if (unit->dirty || q->cache.dirty_count[QCOW2_L2] < QCOW2_MOST_DIRTY)
        return 1;
    return wait_for_round(q);
}

void qcow2_commit_later(struct qcow2 *q)
{
    if (q->timer_armed || !q->loop)
        return;
    if (loop_timer_arm(&q->timer, clock_monotonic_ns() + QCOW2_LATER_NS) == 0)
        q->timer_armed = true;
    else
        q->commit.wanted = true; /* no memory for a timer: now, then */
}

/* Copies. */

static void *add_slot(struct qcow2 *q, uint64_t offset)
{
    struct qcow2_commit *commit = &q->commit;
    unsigned index = commit->count++;
    uint8_t *bytes = commit->bytes + (size_t)index * q->cache.unit_size;

    commit->iov[index] = (struct iovec){.iov_base = bytes, .iov_len = q->cache.unit_size};
    commit->requests[index].offset = offset;
    return bytes;
}

static void copy_units(struct qcow2 *q, enum qcow2_kind kind)
{
    struct qcow2_cache *cache = &q->cache;

    for (unsigned i = 0; i < cache->dirty_count[kind]; i++) {
        struct qcow2_unit *unit = &cache->units[cache->dirty[kind][i]];
        memcpy(add_slot(q, unit->offset), qcow2_cache_bytes(cache, unit), cache->unit_size);
        unit->dirty = false;
        unit->busy = true;
        cache->busy[kind][i] = cache->dirty[kind][i];
    }
    cache->busy_count[kind] = cache->dirty_count[kind];
    cache->dirty_count[kind] = 0;
}

static void copy_table(struct qcow2 *q, struct qcow2_table *table)
{
    size_t per_unit = q->cache.unit_size / sizeof(*table->entries);

    for (size_t i = 0; table->dirty_count && i < table->room / per_unit; i++) {
        if (!(table->dirty[i] & QCOW2_TABLE_DIRTY))
            continue;
        qcow2_table_encode(add_slot(q, table->offset + i * q->cache.unit_size),
                           table->entries + i * per_unit, per_unit);
        table->dirty[i] = QCOW2_TABLE_BUSY;
        table->dirty_count--;
        table->busy_count++;
    }
}

static int copy_moved_table(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;
    struct qcow2_table *table = &q->refcounts;
    size_t bytes = table->room * sizeof(*table->entries);
    uint64_t fields[2];

    commit->moved = aligned_alloc(QCOW2_UNIT, (bytes + QCOW2_UNIT - 1) & ~(size_t)(QCOW2_UNIT - 1));
    if (!commit->moved)
        return -ENOMEM;
    qcow2_table_encode(commit->moved, table->entries, table->room);
    commit->moved_iov = (struct iovec){.iov_base = commit->moved, .iov_len = bytes};
    memset(table->dirty, 0, bytes / q->cache.unit_size);
    table->dirty_count = 0; /* nothing is busy: it belongs to no round yet, or that has ended */
    fields[0] = table->offset;
    qcow2_table_encode((uint64_t *)(void *)(q->header + 48), fields, 1);
    uint32_t clusters = __builtin_bswap32((uint32_t)(bytes >> q->cluster_bits));
    memcpy(q->header + 56, &clusters, sizeof(clusters));
    q->header_dirty = true;
    return 0;
}

/* The next phases, in their order. */

static void handle_done(struct disk_request *request, int result);

static void submit(struct qcow2 *q, struct disk_request *request, enum disk_op op)
{
    request->op = op;
    request->done = handle_done;
    request->arg = q;
    q->commit.under_way++;
    q->submitted = true;
    disk_submit(q->data, request);
}

static void submit_slots(struct qcow2 *q, unsigned from, unsigned end)
{
    for (unsigned i = from; i < end; i++) {
        struct disk_request *request = &q->commit.requests[i];
        request->length = q->cache.unit_size;
        request->iov = &q->commit.iov[i];
        request->iov_count = 1;
        submit(q, request, DISK_WRITE);
    }
}

static void submit_moved(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    commit->moved_request = (struct disk_request){.offset = q->refcounts.offset,
                                                  .length = commit->moved_iov.iov_len,
                                                  .iov = &commit->moved_iov,
                                                  .iov_count = 1};
    submit(q, &commit->moved_request, DISK_WRITE);
}

static void put_back(struct qcow2 *q, enum qcow2_kind kind, bool failed)
{
    struct qcow2_cache *cache = &q->cache;

    for (unsigned i = 0; i < cache->busy_count[kind]; i++) {
        struct qcow2_unit *unit = &cache->units[cache->busy[kind][i]];
        unit->busy = false;
        if (failed)
            qcow2_cache_dirty(q, unit, kind);
    }
    cache->busy_count[kind] = 0;
}

static void put_table_back(const struct qcow2 *q, struct qcow2_table *table, bool failed)
{
    size_t units = table->room * sizeof(*table->entries) / q->cache.unit_size;

    for (size_t i = 0; table->busy_count && i < units; i++) {
        if (!(table->dirty[i] & QCOW2_TABLE_BUSY))
            continue;
        table->busy_count--;
        table->dirty[i] &= QCOW2_TABLE_DIRTY;
        table->dirty_count += failed && !table->dirty[i];
        table->dirty[i] |= failed ? QCOW2_TABLE_DIRTY : 0;
    }
}

static void end_flushes(struct qcow2 *q)
{
    struct disk_queue waiting = q->flushing;
    struct disk_request *request;
    int result = q->commit.result < 0 ? q->commit.result : q->commit.lost;

    if (waiting.first == NULL)
        return;
    disk_queue_init(&q->flushing);
    while ((request = disk_queue_take(&waiting))) {
        if (request->private[1] > q -> commit.started) {
            disk_queue_add(&q->flushing, request);
            continue;
        }
        if (result < 0)
            request->private[0] = (uint64_t)-result;
        q->commit.lost = 0;
        disk_queue_add(&q->finished, request);
    }
}

static void end_round(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;
    bool failed = commit->result < 0;

    put_back(q, QCOW2_L2, failed);
    put_back(q, QCOW2_REFCOUNT, failed);
    put_table_back(q, &q->l1, failed);
    put_table_back(q, &q->refcounts, failed);
    if (failed) {
        q->table_moved |= commit->moved != NULL;
        q->header_dirty = true;
        commit->links |= commit->round_links;
        qcow2_commit_later(q);
    } else if (commit->round_frees) {
        commit->ready = commit->round_frees;
        commit->free_at = commit->free_done = 0;
    }
    commit->round_frees = 0;
    free(commit->moved);
    commit->moved = NULL;
    commit->error = commit->result;
    commit->phase = QCOW2_IDLE;
    q->retry = true;
    end_flushes(q);
}

static void begin_phase(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    switch (commit->phase) {
    case QCOW2_REFCOUNTS:
        submit_slots(q, 0, commit->from_table);
        if (commit->moved)
            submit_moved(q);
        break;
    case QCOW2_SYNC_REFCOUNTS: /* with nothing to come after it the last sync will do */
        if (commit->count > commit->from_table &&
            (commit->from_table || commit->moved || commit->round_links))
            submit(q, &commit->sync, DISK_FLUSH);
        break;
    case QCOW2_REFCOUNT_TABLE:
        submit_slots(q, commit->from_table, commit->from_mappings);
        break;
    case QCOW2_SYNC_TABLE:
        if (commit->from_mappings > commit->from_table && commit->count > commit->from_mappings)
            submit(q, &commit->sync, DISK_FLUSH);
        break;
    case QCOW2_MAPPINGS:
        submit_slots(q, commit->from_mappings, commit->count);
        break;
    case QCOW2_SYNC_ALL:
        submit(q, &commit->sync, DISK_FLUSH);
        break;
    default:
        break;
    }
}

static void go_on(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    while (!commit->under_way) {
        if (commit->result < 0 || ++commit->phase == QCOW2_COMMITTED) {
            end_round(q);
            return;
        }
        begin_phase(q);
    }
}

static void handle_done(struct disk_request *request, int result)
{
    struct qcow2 *q = request->arg;

    if (result == -ECANCELED) { /* what others have asked for */
        q->submitted = true;
        disk_submit(q->data, request);
        return;
    }
    if (result < 0 && q->commit.result == 0)
        q->commit.result = result;
    if (result < 0 && request == &q->commit.sync)
        q->commit.lost = result;
    if (--q->commit.under_way == 0)
        go_on(q);
}

static void begin_round(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    commit->started++;
    commit->wanted = false;
    commit->result = 0;
    commit->count = 0;
    commit->round_links = commit->links;
    commit->links = false;
    copy_units(q, QCOW2_REFCOUNT);
    commit->from_table = commit->count;
    if (q->table_moved)
        commit->result = copy_moved_table(q);
    if (commit->moved)
        q->table_moved = false;
    copy_table(q, &q->refcounts);
    if (q->header_dirty)
        memcpy(add_slot(q, 0), q->header, q->cache.unit_size);
    q->header_dirty = false;
    commit->from_mappings = commit->count;
    copy_table(q, &q->l1);
    copy_units(q, QCOW2_L2);
    /* What was let go so far is free after this round, once who began before it has ended. */
    if (!commit->ready && commit->free_count && !q->under_way[(q->epoch + 1) & 1]) {
        commit->round_frees = commit->free_count;
        commit->parity = (uint8_t)(q->epoch & 1);
        q->epoch++;
    }
    q->retry = true;
    commit->phase = QCOW2_IDLE;
    go_on(q);
}

/* Giving clusters back. */

void qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t count)
{
    struct qcow2_commit *commit = &q->commit;
    struct qcow2_free *last = NULL;

    /* What a round has taken over does not grow. */
    if (commit->free_count > commit->ready && commit->free_count > commit->round_frees)
        last = &commit->frees[commit->free_count - 1];
    if (last && last->first + last->count == first) {
        last->count += count;
        return;
    }
    if (commit->free_count == commit->free_room) {
        size_t room = commit->free_room ? 2 * commit->free_room : 64;
        struct qcow2_free *frees = realloc(commit->frees, room * sizeof(*frees));
        if (!frees)
            return; /* lost, until somebody checks the image */
        commit->frees = frees;
        commit->free_room = room;
    }
    commit->frees[commit->free_count++] = (struct qcow2_free){first, count};
    qcow2_commit_later(q);
}

static void handle_punched(struct disk_request *request, int result)
{
    struct qcow2 *q = request->arg;

    if (result == -ECANCELED) {
        q->submitted = true;
        disk_submit(q->data, request);
        return;
    }
    q->commit.punching = false;
    q->retry = true; /* there may be more to give back, and somebody who waits for it */
    qcow2_release(q, q->commit.punch_first, q->commit.punch_count);
}

/* The cluster has one reference less. True: it was the last. */
static bool drop(struct qcow2 *q, uint64_t cluster)
{
    uint64_t refcount = 0;
    int r = qcow2_refcount_get(q, cluster, &refcount);

    if (r == 0 && refcount > 1)
        r = qcow2_refcount_set(q, cluster, refcount - 1);
    else if (r == 0 && (refcount == 0 || qcow2_is_metadata(q, cluster, 1)))
        r = qcow2_corrupt(q, "a cluster that was in use has no reference, or is one of its tables");
    return r == 0 && refcount == 1;
}

static void punch(struct qcow2 *q, uint64_t first, uint64_t count)
{
    struct qcow2_commit *commit = &q->commit;

    commit->punching = true;
    commit->punch_first = first;
    commit->punch_count = count;
    commit->punch = (struct disk_request){.op = DISK_DISCARD,
                                          .offset = first << q->cluster_bits,
                                          .length = count << q->cluster_bits,
                                          .done = handle_punched,
                                          .arg = q};
    q->submitted = true;
    disk_submit(q->data, &commit->punch);
}

/*
 * One hole at a time. Clusters that end here in a row go together. The hole first: as long as the
 * refcount is not 0 nobody writes there.
 */
static void give_back(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    while (commit->free_at < commit->ready && !commit->punching) {
        const struct qcow2_free *range = &commit->frees[commit->free_at];
        uint64_t run = 0;
        if (q->cache.dirty_count[QCOW2_REFCOUNT] >= QCOW2_MOST_DIRTY) {
            if (!commit->error)
                commit->wanted = true;
            return;
        }
        uint64_t first = range->first + commit->free_done;
        /* As many as one unit counts at most: so much may become dirty at once. */
        while (commit->free_done < range->count && run < q->cache.unit_size) {
            bool last = drop(q, first + run);
            commit->free_done++;
            if (!last)
                break;
            run++;
        }
        if (commit->free_done == range->count) {
            commit->free_at++;
            commit->free_done = 0;
        }
        if (run && q->unmap)
            punch(q, first, run);
        else if (run)
            qcow2_release(q, first, run);
    }
    if (commit->free_at < commit->ready || commit->punching)
        return;
    commit->free_count -= commit->ready;
    memmove(commit->frees, commit->frees + commit->ready,
            commit->free_count * sizeof(*commit->frees));
    commit->ready = commit->free_at = 0;
    q->retry = true;
    if (qcow2_commit_pending(q))
        qcow2_commit_later(q);
}

void qcow2_commit_serve(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    /* In between no round has taken over frees: `ready` is 0 when one begins to. */
    if (commit->ready && !commit->punching && !q->under_way[commit->parity])
        give_back(q);
    if (commit->phase == QCOW2_IDLE && (commit->wanted || q->flushing.first))
        begin_round(q);
}

/* At opening, before there is a loop. */
int qcow2_commit_now(struct qcow2 *q)
{
    while (qcow2_commit_pending(q)) {
        q->commit.wanted = true;
        qcow2_commit_serve(q);
        disk_drain(q->data);
        if (q->commit.error)
            return q->commit.error;
    }
    return 0;
}

int qcow2_commit_init(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;
    void *bytes = mmap(NULL, (size_t)SLOTS * q->cache.unit_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (bytes != MAP_FAILED)
        commit->bytes = bytes;
    commit->requests = calloc(SLOTS, sizeof(*commit->requests));
    commit->iov = calloc(SLOTS, sizeof(*commit->iov));
    return commit->bytes && commit->requests && commit->iov ? 0 : -ENOMEM;
}

void qcow2_commit_finish(struct qcow2 *q)
{
    struct qcow2_commit *commit = &q->commit;

    if (commit->bytes)
        munmap(commit->bytes, (size_t)SLOTS * q->cache.unit_size);
    free(commit->requests);
    free(commit->iov);
    free(commit->moved);
    free(commit->frees);
}
