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

/* Chunk by chunk, from the first one on. */
struct summing {
    const struct compare_what *what;
    uint8_t *bytes;  /* CHUNK of them */
    uint64_t data;   /* there is none before it */
    uint32_t zeroes; /* the sum of CHUNK of them; 0: not known */
};

static int begin_summing(struct summing *summing, const struct compare_what *what, struct err *err)
{
    *summing = (struct summing){.what = what, .bytes = malloc(CHUNK)};
    return summing->bytes ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot compare");
}

/* A large disk is mostly holes: their sum is made once. */
static uint32_t sum_zeroes(struct summing *summing, uint32_t length)
{
    if (length == CHUNK && summing->zeroes)
        return summing->zeroes;
    memset(summing->bytes, 0, length);
    uint32_t sum = crc32c(0, summing->bytes, length);
    if (length == CHUNK)
        summing->zeroes = sum;
    return sum;
}

static int sum_chunk(struct summing *summing, uint64_t chunk, uint32_t *ret_sum)
{
    const struct compare_what *what = summing->what;
    uint64_t offset = chunk * CHUNK, left = what->size - offset;
    uint32_t length = left < CHUNK ? (uint32_t)left : CHUNK;
    if (what->next_data && summing->data <= offset)
        summing->data = what->next_data(what->ctx, offset);
    if (summing->data >= offset + length) {
        *ret_sum = sum_zeroes(summing, length);
        return 0;
    }
    int ret = what->read(what->ctx, offset, summing->bytes, length);
    *ret_sum = ret < 0 ? 0 : crc32c(0, summing->bytes, length);
    return ret;
}

int compare_sum(uint32_t place, const struct compare_what *what, uint32_t **ret_payload,
                uint32_t *ret_length, struct err *err)
{
    uint64_t chunks = chunks_of(what->size);
    struct summing summing;
    if (chunks > FRAME_MAX_SUMS)
        return err_say(err, ERR_STATE, EFBIG, "%llu MiB are too much to be compared",
                       (unsigned long long)chunks);
    uint32_t length = (uint32_t)(4 + chunks * 4), *payload = malloc(length);
    int ret = begin_summing(&summing, what, err);
    if (ret == 0 && !payload)
        ret = err_sys(err, ERR_HOST, ENOMEM, "cannot compare");
    for (uint64_t i = 0; i < chunks && ret == 0; i++) {
        uint32_t sum;
        ret = sum_chunk(&summing, i, &sum);
        payload[1 + i] = htole32(sum);
        if (ret < 0)
            err_sys(err, ERR_FAILED, -ret, "cannot read what is to be compared");
    }
    free(summing.bytes);
    if (ret < 0) {
        free(payload);
        return ret;
    }
    payload[0] = htole32(place);
    *ret_payload = payload;
    *ret_length = length;
    return 0;
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
    struct summing summing;
    int ret = begin_summing(&summing, what, err);
    for (uint64_t i = 0; i < chunks && ret == 0; i++) {
        uint32_t sum, theirs = stream_get_u32(&payload->stream);
        ret = sum_chunk(&summing, i, &sum);
        if (ret < 0)
            err_sys(err, ERR_FAILED, -ret, "cannot read %s to compare it", name);
        else if (sum != theirs)
            ret = err_say(
                err, ERR_FAILED, EUCLEAN,
                "%s is not the same on both hosts, somewhere in the MiB from byte %llu on", name,
                (unsigned long long)i * CHUNK);
    }
    free(summing.bytes);
    return ret;
}
