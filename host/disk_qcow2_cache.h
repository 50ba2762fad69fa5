/* SPDX-License-Identifier: MIT */
/* Metadata of a qcow2 image: in memory, where it lies in the file, who uses which cluster. */
#pragma once

#include "host/disk.h"

enum {
    QCOW2_UNIT = 4096,  /* metadata are read, kept and written by units: a cluster, or this */
    QCOW2_UNITS = 8192, /* of the cache: 32 MiB, touched as they are needed */
    QCOW2_BUCKETS = 2 * QCOW2_UNITS,
    QCOW2_MOST_DIRTY = 512, /* of one kind: then whoever needs another one waits for a commit */
    QCOW2_BURST = 320,      /* what the largest step makes dirty: the refcount table grows */
    QCOW2_DIRTY_ROOM = 2 * (QCOW2_MOST_DIRTY + QCOW2_BURST), /* after a commit that failed */
};

struct qcow2;

enum qcow2_kind { QCOW2_L2, QCOW2_REFCOUNT };

struct qcow2_unit {
    uint64_t offset; /* 0: none */
    uint16_t next;   /* in the bucket: index + 1 */
    bool used;       /* since the hand passed */
    bool dirty;      /* differs from what was last handed to a commit */
    bool busy;       /* a commit is writing it */
};

struct qcow2_cache {
    uint32_t unit_size;
    uint8_t *bytes;
    struct qcow2_unit *units, *last;
    uint16_t *buckets; /* index + 1 */
    unsigned filled, hand;
    unsigned dirty_count[2], busy_count[2];
    uint16_t dirty[2][QCOW2_DIRTY_ROOM], busy[2][QCOW2_DIRTY_ROOM];
};

enum { QCOW2_TABLE_DIRTY = 1, QCOW2_TABLE_BUSY = 2 };

/* A table that is in memory as a whole, in the host's byte order. */
struct qcow2_table {
    uint64_t offset, count, room; /* room: entries in memory and in the file, whole units */
    uint64_t *entries;
    uint8_t *dirty; /* by unit: QCOW2_TABLE_x */
    unsigned dirty_count, busy_count;
};

struct qcow2_set {
    uint64_t *slots; /* value + 1 */
    size_t size, count;
};

/* All int functions: 0 or -errno. */
int qcow2_file_read(struct qcow2 *q, uint64_t offset, void *bytes, size_t length) must_check;
int qcow2_file_write(struct qcow2 *q, uint64_t offset, const void *bytes, size_t length) must_check;
int qcow2_file_sync(struct qcow2 *q) must_check;
int qcow2_file_extend(struct qcow2 *q, uint64_t end) must_check; /* at least to there */
int qcow2_file_reserve(struct qcow2 *q, uint64_t offset, uint64_t length) must_check;

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t unit_size) must_check;
void qcow2_cache_finish(struct qcow2_cache *cache);
/* The unit with the byte at `offset`. It stays until the next one is asked for. */
int qcow2_cache_get(struct qcow2 *q, uint64_t offset, struct qcow2_unit **ret_unit) must_check;
void qcow2_cache_forget(struct qcow2 *q, uint64_t offset, uint64_t length);
void *qcow2_cache_bytes(const struct qcow2_cache *cache, const struct qcow2_unit *unit);
void qcow2_cache_dirty(struct qcow2 *q, struct qcow2_unit *unit, enum qcow2_kind kind);

int qcow2_table_load(struct qcow2 *q, struct qcow2_table *table) must_check; /* offset, count set */
int qcow2_table_make(struct qcow2 *q, struct qcow2_table *table) must_check; /* empty */
void qcow2_table_finish(struct qcow2_table *table);
void qcow2_table_set(struct qcow2 *q, struct qcow2_table *table, uint64_t index, uint64_t value);
void qcow2_table_encode(uint64_t *to, const uint64_t *from, size_t count);

int qcow2_set_add(struct qcow2_set *set, uint64_t value, bool *ret_new) must_check;
bool qcow2_set_has(const struct qcow2_set *set, uint64_t value);

/* Clusters [first, first + count) hold metadata: header, tables, blocks. */
bool qcow2_is_metadata(const struct qcow2 *q, uint64_t first, uint64_t count);
bool qcow2_is_fixed(const struct qcow2 *q, uint64_t first, uint64_t count); /* header, L1, ... */
/* A cluster of metadata may lie there: aligned, in the file, clear of the fixed ones. */
bool qcow2_is_place(const struct qcow2 *q, uint64_t offset);

/* disk_qcow2_refcount.c */
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret) must_check;
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value) must_check;
uint64_t qcow2_refcount_max(const struct qcow2 *q);
/*
 * Clusters in a row, 1 to `count` of them; their refcount is 1. Fresh: they were never used, so
 * they read as zeroes.
 */
int qcow2_allocate(struct qcow2 *q, uint64_t count, uint64_t *ret_first, uint64_t *ret_count,
                   bool *ret_fresh) must_check;
int qcow2_allocate_metadata(struct qcow2 *q, uint64_t *ret_offset, bool *ret_fresh) must_check;
void qcow2_release(struct qcow2 *q, uint64_t first, uint64_t count); /* never referred to */

/* disk_qcow2_map.c */
struct qcow2_extent;
/* The longest run of one kind that begins at `offset`, up to `length`. */
int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t length,
              struct qcow2_extent *ret) must_check;
/* There is an L2 table of our own for the cluster: what follows can hardly fail. */
int qcow2_map_prepare(struct qcow2 *q, uint64_t cluster) must_check;
/*
 * Maps `count` clusters from `cluster` to `entry` and up (step is added for each), within one
 * unit. `keep`: what they were mapped to before stays allocated. 1; 0: no room, a commit is
 * wanted; -errno.
 */
int qcow2_map_set(struct qcow2 *q, uint64_t cluster, uint64_t count, uint64_t entry, uint64_t step,
                  bool keep) must_check;
bool qcow2_compressed_range(const struct qcow2 *q, uint64_t descriptor, uint64_t *ret_offset,
                            uint64_t *ret_length);
