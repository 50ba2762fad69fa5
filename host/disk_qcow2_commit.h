/* SPDX-License-Identifier: MIT */
/* How changes of a qcow2 image's metadata get into the file (disk_qcow2_commit.c). */
#pragma once

#include "host/disk.h"

enum {
    QCOW2_MOST_FREES = 4096, /* then whoever frees more waits */
    QCOW2_LATER_NS = 1000000000,
};

struct qcow2;
struct qcow2_unit;

/* Clusters whose references are gone. */
struct qcow2_free {
    uint64_t first, count;
};

enum qcow2_phase {
    QCOW2_IDLE,
    QCOW2_REFCOUNTS,
    QCOW2_SYNC_REFCOUNTS,
    QCOW2_REFCOUNT_TABLE,
    QCOW2_SYNC_TABLE,
    QCOW2_MAPPINGS,
    QCOW2_SYNC_ALL,
    QCOW2_COMMITTED,
};

struct qcow2_commit {
    enum qcow2_phase phase;
    bool wanted;
    bool links, round_links; /* mappings point to data that were written since the last round */
    int error;               /* of the last round */
    int result;              /* of this one */
    int lost;                /* of a sync, of which no flush was told as yet */
    uint64_t started;
    unsigned under_way;
    unsigned count, from_table, from_mappings; /* slots */
    uint8_t *bytes;
    struct disk_request *requests;
    struct iovec *iov;
    uint64_t *moved; /* the whole refcount table, at its new place */
    struct disk_request sync, moved_request;
    struct iovec moved_iov;

    struct qcow2_free *frees;
    size_t free_count, free_room;
    size_t round_frees, ready; /* of frees, from the beginning */
    size_t free_at;            /* of ready ones: is being given back */
    uint64_t free_done;        /* clusters of it */
    uint8_t parity;            /* of `ready`: parts that began before must have ended */
    struct disk_request punch;
    uint64_t punch_first, punch_count;
    bool punching;
};

int qcow2_commit_init(struct qcow2 *q) must_check;
void qcow2_commit_finish(struct qcow2 *q);
/*
 * 1: go on; 0: wait for a commit, which is wanted now; -errno: commits fail. The first is for
 * whoever begins something: it also waits for clusters to be given back, and these wait for parts
 * that are under way. The second is for parts: only for that unit of an L2 table.
 */
int qcow2_commit_room(struct qcow2 *q) must_check;
int qcow2_commit_room_for(struct qcow2 *q, const struct qcow2_unit *unit) must_check;
void qcow2_commit_later(struct qcow2 *q);
void qcow2_commit_serve(struct qcow2 *q);
bool qcow2_commit_pending(const struct qcow2 *q); /* there is something to commit */
int qcow2_commit_now(struct qcow2 *q) must_check; /* all of it; waits. At opening */
void qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t count);
