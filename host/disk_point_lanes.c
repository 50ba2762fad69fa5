/* SPDX-License-Identifier: MIT */
/* The map of a disk's copy, and its lanes: clusters that are read, and written to the target. What
 * they are for is in disk_point_copy.c. */
#include "host/disk_point_parts.h"

#include "core/zero.h"
#include <errno.h>
#include <string.h>

enum { HOLE = 64 << 10 }; /* fewer zeroes are not worth one */

/* --- the map -------------------------------------------------------------------------------- */

/* The first in [from, end) without its bit; or end. */
uint64_t copy_find_unread(const struct disk_copy *copy, uint64_t from, uint64_t end)
{
    while (from < end) {
        uint64_t unread = ~copy->map[from / COPY_WORD] >> from % COPY_WORD;
        if (unread) {
            from += (unsigned)__builtin_ctzll(unread);
            break;
        }
        from += COPY_WORD - from % COPY_WORD;
    }
    return from < end ? from : end;
}

void copy_set_read(struct disk_copy *copy, uint64_t from, uint64_t end)
{
    while (from < end) {
        uint64_t count = COPY_WORD - from % COPY_WORD;
        if (count > end - from)
            count = end - from;
        copy->map[from / COPY_WORD] |=
            (count == COPY_WORD ? UINT64_MAX : (UINT64_C(1) << count) - 1) << from % COPY_WORD;
        from += count;
    }
}

/* The lane that is just reading this cluster, or NULL. */
const struct lane *copy_find_reader(const struct disk_copy *copy, uint64_t cluster)
{
    for (unsigned i = 0; i < COPY_LANES && copy->reading; i++) {
        const struct lane *lane = &copy->lanes[i];
        if (lane->reads && cluster >= lane->first && cluster - lane->first < lane->count)
            return lane;
    }
    return NULL;
}

/* How many clusters from an unread one on a lane can take. */
uint64_t copy_count_unread(const struct disk_copy *copy, uint64_t first, uint64_t end)
{
    uint64_t most = COPY_LANE_BYTES >> copy->shift, count = 1;

    while (count < most && first + count < end && !copy_is_read(copy, first + count) &&
           !copy_find_reader(copy, first + count))
        count++;
    return count;
}

/* --- lanes ---------------------------------------------------------------------------------- */

/* A turn of the copy's own, soon. */
void copy_want_turn(struct disk_copy *copy)
{
    int r = loop_timer_arm(&copy->turn, 0);
    (void)r; /* it is armed, so this takes no memory */
}

void copy_fail(struct disk_copy *copy, int result)
{
    if (copy->result == 0)
        copy->result = result;
    copy->moved = true; /* whoever waits waits in vain */
    copy_want_turn(copy);
}

static void free_lane(struct lane *lane)
{
    struct disk_copy *copy = lane->copy;

    lane->busy = false;
    copy->busy--;
    copy->background -= lane->background;
    copy->moved = true;
    copy_want_turn(copy);
}

/* The next bytes of the lane that are worth writing; length 0: there are none. */
static uint64_t next_data(struct lane *lane)
{
    uint64_t base = lane->first << lane->copy->shift, length = 0;

    while (lane->at + length < lane->end) {
        uint64_t left = lane->end - lane->at - length, part = left < HOLE ? left : HOLE;
        bool zero = is_zero(lane->buffer + (lane->at + length - base), part);
        if (zero && length)
            break;
        if (zero)
            lane->at += part;
        else
            length += part;
    }
    return length;
}

static void write_on(struct lane *lane);

static void handle_written(struct disk_request *request, int result)
{
    struct lane *lane = container_of(request, struct lane, request);

    if (result < 0) {
        copy_fail(lane->copy, result);
        lane->at = lane->end;
    } else {
        lane->at += request->length;
        lane->copy->unflushed += request->length;
    }
    write_on(lane);
}

static void write_on(struct lane *lane)
{
    struct disk_copy *copy = lane->copy;
    uint64_t length = copy->result ? 0 : next_data(lane);

    if (length == 0) {
        copy->bytes += lane->end - (lane->first << copy->shift);
        free_lane(lane);
        return;
    }
    lane->iov = (struct iovec){.iov_base = lane->buffer + (lane->at - (lane->first << copy->shift)),
                               .iov_len = length};
    lane->request = (struct disk_request){.op = DISK_WRITE,
                                          .offset = lane->at,
                                          .length = length,
                                          .iov = &lane->iov,
                                          .iov_count = 1,
                                          .done = handle_written};
    copy->moved = true;
    disk_submit(copy->target, &lane->request);
}

static void handle_read(struct disk_request *request, int result)
{
    struct lane *lane = container_of(request, struct lane, request);
    struct disk_copy *copy = lane->copy;

    copy->moved = true;
    if (result == -ECANCELED && copy->result == 0) {
        lane->again = true; /* what the guest has asked for was given up, and this with it */
        return;
    }
    lane->reads = false;
    copy->reading--;
    if (result < 0) {
        copy_fail(copy, result);
        free_lane(lane);
        return;
    }
    copy_set_read(copy, lane->first, lane->first + lane->count);
    write_on(lane);
}

static void read_lane(struct lane *lane)
{
    struct disk_copy *copy = lane->copy;

    lane->again = false;
    lane->iov = (struct iovec){.iov_base = lane->buffer, .iov_len = lane->end - lane->at};
    lane->request = (struct disk_request){.op = DISK_READ,
                                          .offset = lane->at,
                                          .length = lane->end - lane->at,
                                          .iov = &lane->iov,
                                          .iov_count = 1,
                                          .done = handle_read};
    copy->moved = true;
    disk_submit(copy->point->inner, &lane->request);
}

/* Before: a lane is free. */
void copy_start_lane(struct disk_copy *copy, uint64_t first, uint64_t count, bool background)
{
    struct lane *lane = copy->lanes;

    while (lane->busy)
        lane++;
    lane->copy = copy;
    lane->first = first;
    lane->count = count;
    lane->at = copy_offset_of(copy, first);
    lane->end = copy_offset_of(copy, first + count);
    lane->busy = lane->reads = true;
    lane->background = background;
    copy->busy++;
    copy->reading++;
    copy->background += background;
    read_lane(lane);
}

/* A cancel has met reads of ours. */
void copy_read_again(struct disk_copy *copy)
{
    for (unsigned i = 0; i < COPY_LANES && copy->reading; i++) {
        struct lane *lane = &copy->lanes[i];
        if (!lane->again)
            continue;
        if (copy->result == 0) {
            read_lane(lane);
            continue;
        }
        lane->again = lane->reads = false;
        copy->reading--;
        free_lane(lane);
    }
}
