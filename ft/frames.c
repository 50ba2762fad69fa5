/* SPDX-License-Identifier: MIT */
#include "ft/frames.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
    MAGIC = 0x3146564d, /* "MVF1" */
    COMMIT_LENGTH = 8,
};

static const struct {
    const char *name;
    uint32_t most; /* bytes */
} kinds[] = {
    [FRAME_HELLO] = {"HELLO", 256 << 10},
    [FRAME_SUMS] = {"SUMS", 16 << 20}, /* of 8 TiB */
    [FRAME_STATE] = {"STATE", 128 << 20},
    [FRAME_COMMIT] = {"COMMIT", COMMIT_LENGTH},
};

static void count(struct frame_tally *tally, uint32_t crc)
{
    uint32_t wire = htole32(crc);
    if (!tally)
        return;
    tally->count++;
    tally->crc = crc32c(tally->crc, &wire, sizeof(wire));
}

void frame_write(struct stream *stream, const struct frame *frame, const void *payload,
                 struct frame_tally *tally)
{
    uint32_t crc = crc32c(0, payload, frame->length);
    if (frame->kind >= array_size(kinds) || frame->length > kinds[frame->kind].most)
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
    stream_write(stream, payload, frame->length);
    stream_put_u32(stream, crc);
    count(tally, crc);
}

void frame_write_commit(struct stream *stream, uint64_t generation, uint64_t epoch,
                        const struct frame_tally *tally)
{
    const struct frame frame = {
        .kind = FRAME_COMMIT, .length = COMMIT_LENGTH, .generation = generation, .epoch = epoch};
    uint32_t payload[] = {htole32(tally->count), htole32(tally->crc)};
    frame_write(stream, &frame, payload, NULL);
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

static int read_header(struct stream *stream, struct frame *ret_frame, struct err *err)
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

static int read_payload(struct stream *stream, const struct frame *frame,
                        struct stream_buffer *payload, struct frame_tally *tally, struct err *err)
{
    uint8_t piece[4096];
    stream_checksum_start(stream);
    for (uint32_t left = frame->length; left > 0 && stream_error(stream) == 0;) {
        uint32_t length = left < sizeof(piece) ? left : (uint32_t)sizeof(piece);
        stream_read(stream, piece, length);
        stream_write(&payload->stream, piece, length);
        left -= length;
    }
    uint32_t sum = stream->checksum;
    uint32_t crc = stream_get_u32(stream);
    if (stream_error(stream) < 0)
        return stream_says(stream, err);
    if (stream_error(&payload->stream) < 0)
        return err_sys(err, ERR_HOST, ENOMEM, "no room for a frame of %u bytes", frame->length);
    if (crc != sum)
        return err_say(err, ERR_DEFINITION, EBADMSG, "a frame %s is damaged",
                       kinds[frame->kind].name);
    if (frame->kind != FRAME_COMMIT)
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

int frame_read(struct stream *stream, struct frame *ret_frame, struct stream_buffer *payload,
               struct frame_tally *tally, struct err *err)
{
    struct frame frame;
    int ret = read_header(stream, &frame, err);
    if (ret < 0)
        return ret;
    stream_buffer_finish(payload);
    stream_buffer_init(payload, 0);
    ret = read_payload(stream, &frame, payload, tally, err);
    if (ret < 0)
        return ret;
    stream_buffer_rewind(payload);
    if (frame.kind == FRAME_COMMIT)
        ret = check_commit(payload, tally, err);
    if (ret == 0)
        *ret_frame = frame;
    return ret;
}
