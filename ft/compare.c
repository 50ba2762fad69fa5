/* SPDX-License-Identifier: MIT */
#include "ft/compare.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = FRAME_MAX_BLOCK };

static uint64_t chunks_of(uint64_t size)
{
    return (size + CHUNK - 1) / CHUNK;
}

static int sum_chunk(const struct compare_what *what, uint64_t chunk, uint8_t *bytes,
                     uint32_t *ret_sum)
{
    uint64_t offset = chunk * CHUNK, left = what->size - offset;
    uint32_t length = left < CHUNK ? (uint32_t)left : CHUNK;
    int ret = what->read(what->ctx, offset, bytes, length);
    *ret_sum = crc32c(0, bytes, length);
    return ret;
}

int compare_put(struct stream *stream, const struct frame *frame, uint32_t place,
                const struct compare_what *what, struct frame_tally *tally, struct err *err)
{
    uint64_t chunks = chunks_of(what->size);
    struct frame whole = *frame;
    whole.kind = FRAME_COMPARE;
    if (chunks > FRAME_MAX_SUMS)
        return err_say(err, ERR_STATE, EFBIG, "%llu MiB are too much to be compared",
                       (unsigned long long)chunks);
    whole.length = (uint32_t)(4 + chunks * 4);
    uint32_t *payload = malloc(whole.length);
    uint8_t *bytes = malloc(CHUNK);
    int ret = payload && bytes ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot compare");
    for (uint64_t i = 0; i < chunks && ret == 0; i++) {
        uint32_t sum;
        ret = sum_chunk(what, i, bytes, &sum);
        payload[1 + i] = htole32(sum);
        if (ret < 0)
            err_sys(err, ERR_FAILED, -ret, "cannot read what is to be compared");
    }
    if (ret == 0) {
        payload[0] = htole32(place);
        frame_write(stream, &whole, payload, tally);
    }
    free(payload);
    free(bytes);
    return ret;
}

static int broken(struct err *err)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a frame COMPARE makes no sense");
}

int compare_place(struct stream_buffer *payload, uint32_t *ret_place, struct err *err)
{
    uint32_t place = stream_get_u32(&payload->stream);
    if (stream_error(&payload->stream) < 0)
        return broken(err);
    *ret_place = place;
    return 0;
}

int compare_check(struct stream_buffer *payload, const char *name, const struct compare_what *what,
                  struct err *err)
{
    uint64_t chunks = chunks_of(what->size);
    if ((payload->length - payload->read_at) / 4 != chunks || payload->length % 4 != 0)
        return broken(err);
    uint8_t *bytes = malloc(CHUNK);
    int ret = bytes ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot compare");
    for (uint64_t i = 0; i < chunks && ret == 0; i++) {
        uint32_t sum, theirs = stream_get_u32(&payload->stream);
        ret = sum_chunk(what, i, bytes, &sum);
        if (ret < 0)
            err_sys(err, ERR_FAILED, -ret, "cannot read %s to compare it", name);
        else if (sum != theirs)
            ret = err_say(
                err, ERR_FAILED, EUCLEAN,
                "%s is not the same on both hosts, somewhere in the MiB from byte %llu on", name,
                (unsigned long long)i * CHUNK);
    }
    free(bytes);
    return ret;
}
