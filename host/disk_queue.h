/* SPDX-License-Identifier: MIT */
/* What disks use of each other, beside disk.h; and requests in a row, first in first out. */
#pragma once

#include "host/disk.h"

/* The first disk of this kind in the row that begins with `disk`, or NULL. */
static inline struct disk *disk_find(struct disk *disk, const struct disk_ops *ops)
{
    while (disk && disk->ops != ops)
        disk = disk->ops->inner ? disk->ops->inner(disk) : NULL;
    return disk;
}

static inline uint64_t disk_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk->ops->zeroes_cost ? disk->ops->zeroes_cost(disk, request) : request->length;
}

static inline void disk_tell_trouble(const struct disk_client *client, const char *sentence)
{
    if (client->trouble)
        client->trouble(client->ctx, sentence);
}

struct disk_queue {
    struct disk_request *first, **end;
};

static inline void disk_queue_init(struct disk_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static inline void disk_queue_add(struct disk_queue *queue, struct disk_request *request)
{
    request->next = NULL;
    *queue->end = request;
    queue->end = &request->next;
}

static inline struct disk_request *disk_queue_take(struct disk_queue *queue)
{
    struct disk_request *request = queue->first;

    if (!request)
        return NULL;
    queue->first = request->next;
    if (!queue->first)
        queue->end = &queue->first;
    return request;
}

/* Moves all of `from` to the end of `queue`. */
static inline void disk_queue_join(struct disk_queue *queue, struct disk_queue *from)
{
    if (!from->first)
        return;
    *queue->end = from->first;
    queue->end = from->end;
    disk_queue_init(from);
}
