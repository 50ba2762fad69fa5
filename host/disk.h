/* SPDX-License-Identifier: MIT */
/*
 * A disk: bytes at offsets, read and written asynchronously. The interface is narrow so that one
 * disk can stand before another: a limiter does (disk_limit.c), and a tap (disk_tap.h).
 *
 * A disk belongs to the loop that it is attached to: submit, kick and all handlers happen on that
 * loop's thread; attach, drain and detach also where that loop stands still.
 */
#pragma once

#include "core/loop.h"
#include <sys/uio.h>

enum disk_op {
    DISK_READ = 1,
    DISK_WRITE,
    DISK_FLUSH,   /* what was completed before is on stable storage when this is done */
    DISK_DISCARD, /* the range is no longer needed; reads of it may give anything */
    DISK_ZEROES,  /* the range reads as zeroes; `unmap` allows to give its space back */
};

/* The caller's until done is called, and the disk's in between. */
struct disk_request {
    enum disk_op op;
    bool unmap;
    uint64_t offset, length; /* bytes, multiples of the block size, inside the disk */
    const struct iovec *iov; /* READ, WRITE: `length` bytes; stays as it is until done */
    unsigned iov_count;
    /* result: 0 or -errno. Called from within kick, cancel or drain, or between the client's begin
     * and end; never from within submit. It may submit: the disk kicks by itself then. */
    void (*done)(struct disk_request *request, int result);
    void *arg; /* the caller's */
    /* The disk's own, for whoever holds the request at the moment. */
    struct disk_request *next;
    uint64_t private[4];
};

/* ANY: looked at once, at the first opening (disk_format.c says how that is safe). */
enum disk_format { DISK_FORMAT_ANY, DISK_FORMAT_RAW, DISK_FORMAT_QCOW2 };

struct disk_info {
    enum disk_format format; /* set by disk_open; ANY where it is no file */
    uint64_t size;           /* bytes, a multiple of block_size */
    uint32_t block_size;     /* smallest unit of access, 512 or more */
    uint32_t optimal_size;   /* of a write that needs no read-modify-write; block_size or more */
    bool readonly;
    bool discard; /* DISCARD and unmapping ZEROES are wanted. They may have no other effect than to
                   * succeed: whether they save space is the host's file system's business. */
    bool write_through; /* a completed write is on stable storage: the guest need not flush */
};

/*
 * Whoever submits. What completes by itself comes in batches, on the loop's thread, between begin
 * and end: there is a lock to take and an interrupt to send once. What completes within the
 * client's own kick, cancel or drain comes without them.
 */
struct disk_client {
    void (*begin)(void *ctx);
    void (*end)(void *ctx);
    /* What a person should hear of, beside errors of requests: a sentence that names the file. Once
     * for each thing; where requests are submitted or completed. May be NULL. */
    void (*trouble)(void *ctx, const char *sentence);
    void *ctx;
};

struct disk;

struct disk_ops {
    const char *name; /* "raw" */
    /* Before the first request: completions are handled on this loop. */
    int (*attach)(struct disk *disk, struct loop *loop, const struct disk_client *client,
                  struct err *err);
    /* Drained: the loop is left, and attach may follow. Fine where it was not attached. */
    void (*detach)(struct disk *disk);
    void (*submit)(struct disk *disk, struct disk_request *request);
    /* What was submitted since the last kick begins now, if not before: many for one system call.
     * What is done at once (it lay in the page cache) is told before kick returns. */
    void (*kick)(struct disk *disk);
    /* Nobody wants the results any more: what the host has not begun ends now, in -ECANCELED, and
     * what it has begun where its next step would come; what is in its hands ends later, by itself.
     * A write that ends so may have been carried out in part. Kicks. */
    void (*cancel)(struct disk *disk);
    /* Returns when nothing is under way; done has been called for all. The loop stands still, or it
     * is its thread. */
    void (*drain)(struct disk *disk);
    /* Bytes that the host has to write for ZEROES, as far as is known; for limits. NULL: all. */
    uint64_t (*zeroes_cost)(struct disk *disk, const struct disk_request *request);
    struct disk *(*inner)(struct disk *disk); /* which this one stands before; NULL: none to tell */
    void (*destroy)(struct disk *disk);       /* detached; takes half-built ones */
};

struct disk {
    const struct disk_ops *ops;
    struct disk_info info;
};

static inline int disk_attach(struct disk *disk, struct loop *loop,
                              const struct disk_client *client, struct err *err)
{
    return disk->ops->attach(disk, loop, client, err);
}

static inline void disk_detach(struct disk *disk)
{
    disk->ops->detach(disk);
}

static inline void disk_submit(struct disk *disk, struct disk_request *request)
{
    disk->ops->submit(disk, request);
}

static inline void disk_kick(struct disk *disk)
{
    disk->ops->kick(disk);
}

static inline void disk_cancel(struct disk *disk)
{
    disk->ops->cancel(disk);
}

static inline void disk_drain(struct disk *disk)
{
    disk->ops->drain(disk);
}

static inline void disk_destroy(struct disk *disk)
{
    if (disk)
        disk->ops->destroy(disk);
}

/* How disk I/O is done. AUTO: io_uring where the host has it, else threads. */
enum disk_engine { DISK_ENGINE_AUTO, DISK_ENGINE_URING, DISK_ENGINE_THREADS };

/* What somebody wants of a disk; 0 and NULL are the defaults. */
struct disk_config {
    const char *path;
    enum disk_format format;
    bool backing; /* the image may stand on another one, which its header names */
    /* Instead of a file: `path` is a name for people then. disk_open copies them. */
    const void *bytes;
    size_t byte_count;
    bool ephemeral; /* writes go to a file that vanishes; the image is not touched */
    bool readonly;
    bool direct;        /* O_DIRECT: past the host's page cache */
    bool write_through; /* every write is on stable storage before it is done (O_DSYNC) */
    bool no_discard;
    uint32_t block_size;          /* what the guest sees: 512 (default) or 4096 */
    unsigned queues;              /* virtio queues; 0: one for each vCPU, up to BLK_MAX_QUEUES */
    char serial[21];              /* what the guest reads as the disk's serial number */
    uint64_t iops, bandwidth;     /* limits per second, operations and bytes; 0: none */
    struct shared_limits *shared; /* with other disks; outlives it; NULL: none */
    bool limits_may_change;       /* disk_set_limits (disk_limit.h) will do */
    bool point;    /* copies of one moment can be made (disk_point.h), and another VM can have the
                    * image for a while (disk_yield.h) */
    bool absent;   /* such a one has it now, unless it is readonly */
    bool unlocked; /* whoever has it */
    bool tap;      /* changes can be told of (disk_tap.h) */
    enum disk_engine engine;
};

/* A raw file or block device. Locked against a second VM (shared lock when readonly): ERR_STATE
 * names the holder's pid where it is known. Errors name the file and the mend. */
int disk_raw_open(struct disk **ret_disk, const struct disk_config *config,
                  struct err *err) must_check;

/* A qcow2 image (disk_qcow2.c). The same promises as a raw one; of a chain each file is locked. */
int disk_qcow2_open(struct disk **ret_disk, const struct disk_config *config,
                    struct err *err) must_check;

/*
 * ANY becomes RAW or QCOW2, by the first bytes of the file, unless an earlier run has found it raw
 * and written that down: a raw disk stays raw, whatever a guest writes to its beginning.
 * *ret_guard: that could not be written down, so the guest must not be able to write such bytes.
 */
int disk_format_find(const struct disk_config *config, enum disk_format *ret_format,
                     bool *ret_guard, struct err *err) must_check;
const char *disk_format_name(enum disk_format format);

/* Writes that would make the disk's first bytes those of another format end in -EPERM.
 * Takes over `inner`, also on failure. */
int disk_guard_create(struct disk **ret_disk, struct disk *inner, struct err *err) must_check;

/* Reads come from `inner` where nothing was written since; writes go to an unlinked file in
 * `folder`, sparse. Takes over `inner`, which may be readonly, also on failure. */
int disk_overlay_create(struct disk **ret_disk, struct disk *inner, const char *folder,
                        struct err *err) must_check;

/* Bytes in memory, read only; `size` is a multiple of 512. Takes over `bytes` (of malloc). */
int disk_memory_create(struct disk **ret_disk, void *bytes, size_t size,
                       struct err *err) must_check;

/* The image by itself: its format is found, and what `point` asks for is before it. */
int disk_image_open(struct disk **ret_disk, const struct disk_config *config,
                    struct err *err) must_check;

/* What a VM opens: the image, and the limiter where limits are asked for. */
int disk_open(struct disk **ret_disk, const struct disk_config *config, struct err *err) must_check;
