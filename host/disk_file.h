/* SPDX-License-Identifier: MIT */
/*
 * The inside of a raw disk: an open file, and how a request becomes system calls. Two engines make
 * these calls: disk_uring.c lets the kernel do them asynchronously, disk_threads.c has threads for
 * them. Only disk_*.c includes this.
 *
 * A request is carried out in steps, one system call each: begin, then { next, the call, took }
 * until took says that it is finished. Short transfers go on where they stopped; what the file
 * system does not offer is done in another way.
 */
#pragma once

#include "host/disk.h"
#include <stdatomic.h>

enum {
    DISK_ZEROES_SIZE = 1 << 20, /* written at once where zeroes must be written */
    DISK_BOUNCE_SIZE = 256 << 10,
};

struct disk_file {
    int fd; /* -1: none */
    struct disk_info info;
    bool device; /* a block device */
    bool direct;
    uint32_t memory_align; /* direct: what addresses are multiples of */
    uint32_t length_align; /* direct: what lengths are multiples of */
    bool in_memory;        /* a file system without a disk below it: nothing to wait for */
    bool zero_past_end;    /* the file grows under us: reads past its end give zeroes */
    void *zeroes;          /* DISK_ZEROES_SIZE bytes, never touched: the kernel's zero page */
    /* Learned from what the file system refuses, and from what it has done. */
    _Atomic bool no_punch, no_zero_range, no_nowait, has_punch, has_zero_range;
    uint64_t patient_until_ns; /* until then no writes at once: one of them had to wait */
    unsigned read_misses;      /* reads at once, in a row, that were not to be had */
    unsigned skip_reads;       /* so many are not tried */
};

/*
 * Opens and locks what config names, and learns what it can do; info.size is the file's. Where that
 * is not the disk's size it is set before blocks are chosen. Errors name the file.
 */
int disk_file_open(struct disk_file *file, const struct disk_config *config,
                   struct err *err) must_check;
int disk_file_choose_blocks(struct disk_file *file, const struct disk_config *config,
                            struct err *err) must_check;
void disk_file_close(struct disk_file *file);

/* Lies in the request's private space while it is ours. */
struct disk_job {
    uint64_t done;   /* bytes */
    uint8_t *bounce; /* DISK_BOUNCE_SIZE bytes to go through, or NULL */
    int32_t result;
    uint8_t method; /* of DISCARD and ZEROES: enum in disk_file.c */
    uint8_t retries;
    uint16_t life; /* the engine's, when it was submitted: cancel begins another one */
};

static inline struct disk_job *disk_job(struct disk_request *request)
{
    _Static_assert(sizeof(struct disk_job) <= sizeof(request->private), "private is too small");
    return (struct disk_job *)(void *)request->private;
}

enum disk_call {
    DISK_CALL_NONE,
    DISK_CALL_READ,
    DISK_CALL_WRITE,
    DISK_CALL_SYNC,
    DISK_CALL_ALLOCATE
};

struct disk_step {
    enum disk_call call;     /* NONE: there is nothing to do, which succeeds */
    const struct iovec *iov; /* READ, WRITE; NULL: `one` */
    unsigned count;
    struct iovec one;
    uint64_t offset, length; /* length: ALLOCATE */
    int mode;                /* ALLOCATE */
};

void disk_job_begin(const struct disk_file *file, struct disk_request *request);

/* O_DIRECT wants aligned buffers; others need a bounce buffer, set in the job before the first
 * step. */
bool disk_needs_bounce(const struct disk_file *file, const struct disk_request *request);

void disk_step_next(const struct disk_file *file, struct disk_request *request,
                    struct disk_step *ret_step);
/* result: as the system call's, or -errno. True: finished, the job has its result. */
bool disk_step_took(struct disk_file *file, struct disk_request *request,
                    const struct disk_step *step, int result);
int disk_step_run(const struct disk_file *file, const struct disk_step *step); /* may wait */

/*
 * Carries out at once what takes less time than to hand it over: small writes into the page cache
 * and small reads from it. False: the ordinary way, from wherever this has come to. On the loop's
 * thread.
 */
bool disk_try_at_once(struct disk_file *file, struct disk_request *request);

/* As disk_ops.zeroes_cost. Until the file system has shown that it can do without, all. */
uint64_t disk_file_zeroes_cost(const struct disk_file *file, const struct disk_request *request);

/* The engines. They take over the file on success. */
int disk_uring_create(struct disk **ret_disk, const struct disk_file *file,
                      struct err *err) must_check;
int disk_threads_create(struct disk **ret_disk, const struct disk_file *file,
                        struct err *err) must_check;

/* A disk of an open file whose `info` is right: the engine is chosen here. Takes over the file,
 * also on failure. */
int disk_file_start(struct disk **ret_disk, struct disk_file *file, enum disk_engine engine,
                    struct err *err) must_check;

/* What lies at the path: a file or a block device; all else is an error. Nothing is opened. */
int disk_image_kind(const char *path, bool *ret_device, struct err *err) must_check;
int disk_say_empty(const char *path, struct err *err);

/* The image format that the first bytes of a disk announce, "qcow2"; NULL: none (disk_format.c). */
const char *disk_format_announced(const void *head, size_t length);

/* Locks an open image against others: ERR_STATE names who has it. */
int disk_lock(int fd, const char *path, bool shared, struct err *err) must_check;
