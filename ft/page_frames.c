/* SPDX-License-Identifier: MIT */
#include "ft/page_frames.h"

#include "core/zero.h"
#include "ft/delta.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <lz4.h>
#include <string.h>

enum {
    HEAD = 12,                      /* first page, count */
    MOST_DELTA = PAGE_SIZE * 3 / 4, /* a longer one is not worth its making */
};

#define PAGE_BYTES ((int)PAGE_SIZE)

/* --- what is sent ----------------------------------------------------------------------------- */

static uint8_t *put_u16(uint8_t *at, size_t value)
{
    uint16_t wire = htole16((uint16_t)value);
    memcpy(at, &wire, sizeof(wire));
    return at + sizeof(wire);
}

/* The end of it, or NULL: too much has changed. */
static uint8_t *encode_delta(const uint8_t *old, const uint8_t *new, uint8_t *at)
{
    uint8_t *end = delta_encode(old, new, PAGE_SIZE, at + 2, at + MOST_DELTA);
    if (end)
        put_u16(at, (size_t)(end - at) - 2);
    return end;
}

static uint8_t *encode_lz4(const uint8_t *page, uint8_t *at)
{
    int length = LZ4_compress_default((const char *)page, (char *)at + 2, PAGE_BYTES,
                                      PAGE_BYTES - PAGE_BYTES / 8);
    return length > 0 ? put_u16(at, (size_t)length) + length : NULL;
}

/* *at is where its bytes go, and then the next page's. */
static enum page_encoding encode(struct page_encoder *encoder, uint64_t number, const uint8_t *page,
                                 uint8_t **at)
{
    const uint8_t *old = encoder->cache ? page_cache_find(encoder->cache, number) : NULL;
    uint8_t *end;
    if (is_zero(page, PAGE_SIZE)) {
        if (old)
            page_cache_drop(encoder->cache, number);
        return PAGE_ZEROES;
    }
    end = old ? encode_delta(old, page, *at) : NULL;
    if (encoder->cache)
        page_cache_put(encoder->cache, number, page);
    if (end) {
        *at = end;
        return PAGE_DELTA;
    }
    end = encoder->effort == EFFORT_LZ4 ? encode_lz4(page, *at) : NULL;
    if (end) {
        *at = end;
        return PAGE_LZ4;
    }
    memcpy(*at, page, PAGE_SIZE);
    *at += PAGE_SIZE;
    return PAGE_RAW;
}

/* How many of them are raw, from the first on. */
static unsigned raw_run(const uint8_t *encodings, unsigned count)
{
    unsigned run = 0;
    while (run < count && encodings[run] == PAGE_RAW)
        run++;
    return run;
}

static bool makes_short(const struct page_encoder *encoder)
{
    return encoder->effort == EFFORT_LZ4 || (encoder->effort == EFFORT_DELTAS && encoder->cache);
}

/* As they are, each byte copied and summed in one pass: the sum of the payload up to *at. What the
 * other side holds is not known any more. */
static uint32_t put_copies(struct page_encoder *encoder, uint8_t *payload, uint8_t **at,
                           uint64_t first, const uint8_t *bytes, unsigned count)
{
    uint8_t *encodings = payload + HEAD;
    for (unsigned i = 0; i < count && encoder->cache; i++)
        page_cache_drop(encoder->cache, first + i);
    for (unsigned i = 0; i < count; i++)
        encodings[i] = is_zero(bytes + i * PAGE_SIZE, PAGE_SIZE) ? PAGE_ZEROES : PAGE_RAW;
    uint32_t crc = crc32c(0, payload, HEAD + count);
    for (unsigned i = 0, run; i < count; i += run ? run : 1) {
        run = raw_run(encodings + i, count - i);
        crc = crc32c_copy(crc, *at, bytes + i * PAGE_SIZE, run * PAGE_SIZE);
        *at += run * PAGE_SIZE;
    }
    return crc;
}

/* Each as short as it gets. */
static uint32_t put_encoded(struct page_encoder *encoder, uint8_t *payload, uint8_t **at,
                            uint64_t first, const uint8_t *bytes, unsigned count)
{
    uint8_t *encodings = payload + HEAD;
    for (unsigned i = 0; i < count; i++)
        encodings[i] = (uint8_t)encode(encoder, first + i, bytes + i * PAGE_SIZE, at);
    return crc32c(0, payload, (size_t)(*at - payload));
}

void page_frame_put(struct stream *stream, const struct frame *frame, struct page_encoder *encoder,
                    uint64_t first, const uint8_t *bytes, unsigned count, struct frame_tally *tally)
{
    uint8_t payload[HEAD + FRAME_MAX_PAGES * (PAGE_SIZE + 3)];
    uint64_t wire_first = htole64(first);
    uint32_t wire_count = htole32(count);
    /* The encodings first, because their number is known. */
    uint8_t *encodings = payload + HEAD, *at = encodings + count;

    assert(count <= FRAME_MAX_PAGES);
    memcpy(payload, &wire_first, 8);
    memcpy(payload + 8, &wire_count, 4);
    uint32_t crc = makes_short(encoder) ? put_encoded(encoder, payload, &at, first, bytes, count)
                                        : put_copies(encoder, payload, &at, first, bytes, count);
    for (unsigned i = 0; i < count; i++)
        encoder->counts[encodings[i]]++;
    struct frame whole = *frame;
    whole.kind = FRAME_PAGES;
    whole.length = (uint32_t)(at - payload);
    frame_write_summed(stream, &whole, payload, crc, tally);
}

/* --- what has come ---------------------------------------------------------------------------- */

static int broken(struct err *err)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a frame PAGES makes no sense");
}

static bool decode_short(uint8_t encoding, const uint8_t *at, size_t length, const uint8_t *held,
                         uint8_t page[PAGE_SIZE])
{
    if (encoding == PAGE_LZ4)
        return LZ4_decompress_safe((const char *)at, (char *)page, (int)length, PAGE_BYTES) ==
               PAGE_BYTES;
    if (!held)
        return false;
    memcpy(page, held, PAGE_SIZE);
    return delta_apply(at, length, page, PAGE_SIZE);
}

/* One that is not raw. */
static bool read_page(struct stream *stream, uint8_t encoding, uint64_t number, uint64_t end,
                      const struct page_taker *taker)
{
    uint8_t block[PAGE_SIZE], page[PAGE_SIZE];
    if (encoding == PAGE_ZEROES)
        return taker->put(taker->ctx, number, NULL) == 0;
    size_t length = stream_get_u16(stream);
    if (encoding >= PAGE_ENCODINGS || length > sizeof(block) || stream->position + length > end)
        return false;
    stream_read(stream, block, length);
    const uint8_t *held = encoding == PAGE_DELTA ? taker->held(taker->ctx, number) : NULL;
    return decode_short(encoding, block, length, held, page) &&
           taker->put(taker->ctx, number, page) == 0;
}

static bool read_raw(struct stream *stream, uint64_t first, unsigned count, uint64_t end,
                     const struct page_taker *taker)
{
    size_t length = count * PAGE_SIZE;
    if (stream->position + length > end)
        return false;
    uint8_t *to = taker->room(taker->ctx, first, count);
    if (to)
        stream_read(stream, to, length);
    return to;
}

/* For who has no room that is one piece. */
static bool read_raw_page(struct stream *stream, uint64_t number, uint64_t end,
                          const struct page_taker *taker)
{
    uint8_t page[PAGE_SIZE];
    if (stream->position + sizeof(page) > end)
        return false;
    stream_read(stream, page, sizeof(page));
    return stream_error(stream) < 0 || taker->put(taker->ctx, number, page) == 0;
}

int page_frame_read(struct stream *stream, const struct frame *frame,
                    const struct page_taker *taker, struct frame_tally *tally, struct err *err)
{
    uint8_t encodings[FRAME_MAX_PAGES];
    uint64_t end = stream->position + frame->length;
    stream_checksum_start(stream);
    uint64_t first = stream_get_u64(stream);
    uint32_t count = stream_get_u32(stream);
    if (count == 0 || count > FRAME_MAX_PAGES || frame->length < HEAD + count)
        return broken(err);
    stream_read(stream, encodings, count);
    for (uint32_t i = 0, run; i < count && stream_error(stream) == 0; i += run) {
        run = taker->room ? raw_run(encodings + i, count - i) : 0;
        bool good;
        if (run > 0)
            good = read_raw(stream, first + i, run, end, taker);
        else if (encodings[i] == PAGE_RAW)
            good = read_raw_page(stream, first + i, end, taker);
        else
            good = read_page(stream, encodings[i], first + i, end, taker);
        run += run == 0;
        if (!good || stream->position > end)
            return broken(err);
    }
    if (stream_error(stream) == 0 && stream->position != end)
        return broken(err);
    return frame_read_end(stream, frame, tally, err);
}
