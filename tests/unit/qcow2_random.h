/* SPDX-License-Identifier: MIT */
/* Requests to a disk of qcow2_rig.h; random ones, several at a time, against its copy. */
#pragma once

#include "tests/unit/qcow2_rig.h"

static inline void rig_submit(struct rig_job *job)
{
    job->done = false;
    job->request.done = rig_handle_done;
    job->request.iov = job->iov;
    rig.under_way++;
    disk_submit(rig.disk, &job->request);
}

static inline void rig_wait(void)
{
    rig.may_be_done = true;
    disk_kick(rig.disk);
    rig.may_be_done = false;
    if (rig.under_way)
        ck_assert_int_eq(loop_run(rig.loop), 0);
    ck_assert_uint_eq(rig.under_way, 0);
}

static inline int rig_run(enum disk_op op, uint64_t offset, uint64_t length, void *bytes)
{
    struct rig_job job = {
        .request = {.op = op, .offset = offset, .length = length, .iov_count = 1, .unmap = true}};

    job.iov[0] = (struct iovec){.iov_base = bytes, .iov_len = length};
    rig_submit(&job);
    rig_wait();
    return job.result;
}

static inline void rig_compare_all(void)
{
    uint8_t *bytes = malloc(rig.size);
    ck_assert_int_eq(rig_run(DISK_READ, 0, rig.size, bytes), 0);
    rig_compare(bytes, rig.shadow, 0, rig.size);
    free(bytes);
}

/* The copy begins as what the disk reads. */
static inline void rig_take_shadow(void)
{
    rig.size = rig.disk->info.size;
    rig.shadow = realloc(rig.shadow, rig.size);
    ck_assert_int_eq(rig_run(DISK_READ, 0, rig.size, rig.shadow), 0);
}

static inline void rig_cut(struct rig_job *job, uint64_t length)
{
    uint64_t at = 0, many = rig_random(8) == 0;

    job->request.iov_count = 0;
    while (at < length) {
        uint64_t part = length - at;
        if (job->request.iov_count + 1 < RIG_SEGMENTS && (many || rig_random(2)))
            part = 1 + rig_random(many && part > 16 ? part / 16 : part);
        job->iov[job->request.iov_count++] = (struct iovec){.iov_base = job->buffer + at,
                                                            .iov_len = part};
        at += part;
    }
}

static inline void rig_choose_op(struct disk_request *request)
{
    uint64_t dice = rig_random(100);

    request->unmap = rig_random(2);
    request->op = dice < 35   ? DISK_READ
                  : dice < 78 ? DISK_WRITE
                  : dice < 86 ? DISK_DISCARD
                  : dice < 97 ? DISK_ZEROES
                              : DISK_FLUSH;
}

/* What a range reads after a discard is the disk's choice; but it stays with it. */
static inline void rig_settle(struct rig_job *job)
{
    struct disk_request *request = &job->request;
    uint8_t *shadow = rig.shadow + request->offset;

    ck_assert_int_eq(job->result, 0);
    if (request->op == DISK_READ)
        rig_compare(job->buffer, shadow, request->offset, request->length);
    else if (request->op == DISK_WRITE)
        memcpy(shadow, job->buffer, request->length);
    else if (request->op == DISK_ZEROES)
        memset(shadow, 0, request->length);
    else if (request->op == DISK_DISCARD)
        ck_assert_int_eq(rig_run(DISK_READ, request->offset, request->length, shadow), 0);
}

/* Requests of one round do not overlap, but lie in the same clusters. How many. */
static inline unsigned rig_submit_round(uint64_t block)
{
    unsigned depth = 1 + (unsigned)rig_random(RIG_DEPTH);
    uint64_t place = rig.size / block / depth, from = 0; /* blocks for each */
    uint64_t most = RIG_REQUEST / block;

    if (place < most && place > 1 && rig_random(2)) { /* all close together */
        place = 1 + rig_random(16);
        from = rig_random(rig.size / block - place * depth);
    }
    for (unsigned i = 0; i < depth; i++) {
        struct disk_request *request = &rig.jobs[i].request;
        uint64_t room = place < most ? place : most;
        uint64_t blocks = 1 + rig_random(rig_random(4) ? (room + 7) / 8 : room);
        rig_choose_op(request);
        request->length = blocks * block;
        request->offset = (from + i * place + rig_random(place - blocks + 1)) * block;
        rig_cut(&rig.jobs[i], request->length);
        uint64_t value = rig_random(UINT32_MAX);
        for (uint64_t at = 0; at < request->length; at += 8)
            memcpy(rig.jobs[i].buffer + at, &(uint64_t){value * 0x9e3779b97f4a7c15u + at}, 8);
        if (request->op == DISK_FLUSH)
            request->offset = request->length = 0;
        rig_submit(&rig.jobs[i]);
    }
    return depth;
}

static inline void rig_round(uint64_t block)
{
    unsigned depth = rig_submit_round(block);

    rig_wait();
    for (unsigned i = 0; i < depth; i++)
        rig_settle(&rig.jobs[i]);
}

static inline void rig_rounds(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        rig_round(rig.disk->info.block_size);
    rig_compare_all();
}

/* Random bytes and holes, as a raw file. */
static inline void rig_make_raw(const char *name, uint64_t size)
{
    uint8_t *bytes = calloc(1, size);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t from = rig_random(size), length = rig_random(size / 8);
        if (length > size - from)
            length = size - from;
        bool text = rig_random(2); /* compressible */
        for (uint64_t at = 0; at < length; at++)
            bytes[from + at] = (uint8_t)(text ? at / 64 : rig_random(256));
    }
    rig_save(name, bytes, size);
    free(bytes);
}
