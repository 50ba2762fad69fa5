/* SPDX-License-Identifier: MIT */
#include "ft/frames.h"

#include "ft/delta.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
    MAGIC = 0x3146564d, /* "MVF1" */
    COMMIT_LENGTH = 8,
    PIECE = 1 << 20,
};

static const struct {
    const char *name;
    uint32_t most; /* bytes */
} kinds[] = {
    [FRAME_HELLO] = {"HELLO", 256 << 10},
    [FRAME_SUMS] = {"SUMS", FRAME_MAX_SUMS * 4}, /* of 8 TiB */
    [FRAME_STATE] = {"STATE", 128 << 20},
    [FRAME_COMMIT] = {"COMMIT", COMMIT_LENGTH},
    [FRAME_FILE] = {"FILE", FRAME_MAX_FILE + 1024},
    [FRAME_DISK] = {"DISK", 1024},
    [FRAME_OPEN] = {"OPEN", 0},
    [FRAME_PAGES] = {"PAGES", 12 + FRAME_MAX_PAGES *(4096 + 3)},
    [FRAME_BLOCKS] = {"BLOCKS", FRAME_MAX_BLOCK + 17},
    [FRAME_ROUND] = {"ROUND", 0},
    [FRAME_ACK] = {"ACK", 20},
    [FRAME_ERROR] = {"ERROR", 1024},
    [FRAME_GO] = {"GO", 16},
    [FRAME_ASK] = {"ASK", 32},
    [FRAME_COMPARE] = {"COMPARE", 4 + FRAME_MAX_SUMS * 4}, /* 4 TiB */
    [FRAME_SHARED] = {"SHARED", 2048},
    [FRAME_RELEASED] = {"RELEASED", 0},
    [FRAME_FOLLOW] = {"FOLLOW", 1024},
    [FRAME_WORD] = {"WORD", 20},
    [FRAME_CHANGES] = {"CHANGES", 4 + DELTA_MOST},
    [FRAME_BASE] = {"BASE", 512 << 10},
    [FRAME_LOOK] = {"LOOK", 32},
    [FRAME_LOOKED] = {"LOOKED", 16 + 4096},
    [FRAME_SYNCED] = {"SYNCED", 8},
    [FRAME_SETTINGS] = {"SETTINGS", 1024},
};

const char *frame_name(uint8_t kind)
{
    return kind < array_size(kinds) && kinds[kind].name ? kinds[kind].name : "?";
}

static void count(struct frame_tally *tally, uint32_t crc)
{
    uint32_t wire = htole32(crc);
    if (!tally)
        return;
    tally->count++;
    tally->crc = crc32c(tally->crc, &wire, sizeof(wire));
}

void frame_write_summed(struct stream *stream, const struct frame *frame, const void *payload,
                        uint32_t crc, struct frame_tally *tally)
{
    if (frame->kind >= array_size(kinds) || !kinds[frame->kind].name ||
        frame->length > kinds[frame->kind].most)
        stream_fail(stream, -EMSGSIZE);
    stream_checksum_start(stream);
    stream_put_u32(stream, MAGIC);
    stream_put_u8(stream, frame->kind);
    stream_put_u8(stream, 0);
    stream_put_u16(stream, 0);
    stream_put_u32(stream, frame->length);
    stream_put_u64(stream, frame->generation);
    stream_put_u64(stream, frame->epoch);
    stream_put_u32(stream, stream->checksum);
    stream->summing = false; /* the payload's sum is known */
    stream_write(stream, payload, frame->length);
    stream_put_u32(stream, crc);
    count(tally, crc);
}

void frame_write(struct stream *stream, const struct frame *frame, const void *payload,
                 struct frame_tally *tally)
{
    frame_write_summed(stream, frame, payload, crc32c(0, payload, frame->length), tally);
}

void frame_write_commit(struct stream *stream, uint64_t generation, uint64_t epoch,
                        const struct frame_tally *tally)
{
    const struct frame frame = {
        .kind = FRAME_COMMIT, .length = COMMIT_LENGTH, .generation = generation, .epoch = epoch};
    uint32_t payload[] = {htole32(tally->count), htole32(tally->crc)};
    frame_write(stream, &frame, payload, NULL);
}

void frame_write_sections(struct stream *stream, const struct frame *frame,
                          const struct state_item *items, size_t item_count,
                          struct frame_tally *tally)
{
    struct frame whole = *frame;
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    int ret = state_save(&buffer.stream, items, item_count);
    whole.length = (uint32_t)buffer.length;
    if (ret < 0 || buffer.length > UINT32_MAX)
        stream_fail(stream, ret < 0 ? ret : -EMSGSIZE);
    else
        frame_write(stream, &whole, buffer.bytes, tally);
    stream_buffer_finish(&buffer);
}

/* --- reading ---------------------------------------------------------------------------------- */

static int say(struct err *err, const char *what)
{
    return err_say(err, ERR_DEFINITION, EBADMSG, "%s", what);
}

static int stream_says(const struct stream *stream, struct err *err)
{
    int error = stream_error(stream);
    if (error == -ENODATA)
        return err_say(err, ERR_DEFINITION, ENODATA, "it ends in the middle");
    return err_sys(err, ERR_FAILED, -error, "cannot read it");
}

int frame_read_head(struct stream *stream, struct frame *ret_frame, struct err *err)
{
    struct frame frame;
    stream_checksum_start(stream);
    uint32_t magic = stream_get_u32(stream);
    frame.kind = stream_get_u8(stream);
    uint8_t flags = stream_get_u8(stream);
    uint16_t reserved = stream_get_u16(stream);
    frame.length = stream_get_u32(stream);
    frame.generation = stream_get_u64(stream);
    frame.epoch = stream_get_u64(stream);
    uint32_t sum = stream->checksum;
    uint32_t crc = stream_get_u32(stream);
    if (stream_error(stream) < 0)
        return stream_says(stream, err);
    if (magic != MAGIC && (magic & 0xffffff) == (MAGIC & 0xffffff))
        return err_say(err, ERR_DEFINITION, ENOTSUP, "it is of a newer minivmm");
    if (magic != MAGIC)
        return say(err, "there is no frame where one should begin");
    if (crc != sum)
        return say(err, "the head of a frame is damaged");
    if (frame.kind >= array_size(kinds) || !kinds[frame.kind].name || flags || reserved)
        return err_say(err, ERR_DEFINITION, ENOTSUP, "a frame of kind %u: it is of a newer minivmm",
                       frame.kind);
    if (frame.length > kinds[frame.kind].most)
        return err_say(err, ERR_DEFINITION, EBADMSG, "a frame %s of %u bytes, which is too long",
                       kinds[frame.kind].name, frame.length);
    *ret_frame = frame;
    return 0;
}

/* The buffer grows with the bytes that are really there, whatever the head says, and is kept. */
static int read_bytes(struct stream *stream, uint32_t length, struct stream_buffer *payload)
{
    payload->length = 0;
    stream_buffer_rewind(payload);
    while (payload->length < length && stream_error(stream) == 0) {
        size_t piece = length - payload->length < PIECE ? length - payload->length : PIECE;
        int ret = stream_buffer_reserve(payload, payload->length + piece);
        if (ret < 0)
            return ret;
        stream_read(stream, payload->bytes + payload->length, piece);
        payload->length += piece;
    }
    return 0;
}

int frame_read_end(struct stream *stream, const struct frame *frame, struct frame_tally *tally,
                   struct err *err)
{
    uint32_t sum = stream->checksum;
    uint32_t crc = stream_get_u32(stream);
    if (stream_error(stream) < 0)
        return stream_says(stream, err);
    if (crc != sum)
        return err_say(err, ERR_DEFINITION, EBADMSG, "a frame %s is damaged",
                       kinds[frame->kind].name);
    if (frame->kind != FRAME_COMMIT && frame->epoch != 0)
        count(tally, crc);
    return 0;
}

static int check_commit(struct stream_buffer *payload, const struct frame_tally *tally,
                        struct err *err)
{
    uint32_t frames = stream_get_u32(&payload->stream), crc = stream_get_u32(&payload->stream);
    if (stream_error(&payload->stream) < 0 || payload->read_at != payload->length ||
        (tally && (frames != tally->count || crc != tally->crc)))
        return say(err, "an epoch ends, and not all of its frames are there");
    stream_buffer_rewind(payload);
    return 0;
}

int frame_read_rest(struct stream *stream, const struct frame *frame, struct stream_buffer *payload,
                    struct frame_tally *tally, struct err *err)
{
    stream_checksum_start(stream);
    int ret = read_bytes(stream, frame->length, payload);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "no room for a frame of %u bytes", frame->length);
    ret = frame_read_end(stream, frame, tally, err);
    if (ret < 0)
        return ret;
    stream_buffer_rewind(payload);
    return frame->kind == FRAME_COMMIT ? check_commit(payload, tally, err) : 0;
}

int frame_read(struct stream *stream, struct frame *ret_frame, struct stream_buffer *payload,
               struct frame_tally *tally, struct err *err)
{
    struct frame frame;
    int ret = frame_read_head(stream, &frame, err);
    if (ret == 0)
        ret = frame_read_rest(stream, &frame, payload, tally, err);
    if (ret == 0)
        *ret_frame = frame;
    return ret;
}
