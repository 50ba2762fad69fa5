/* SPDX-License-Identifier: MIT */
#include "ft/resync_talk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int broken(struct err *err, enum frame_kind kind)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a frame %s makes no sense",
                   frame_name((uint8_t)kind));
}

static bool is_over(const struct stream_buffer *payload)
{
    return stream_error(&payload->stream) == 0 && payload->read_at == payload->length;
}

/* --- BASE ------------------------------------------------------------------------------------- */

void resync_put_base(struct stream *stream, const struct resync_base *base)
{
    const struct changes_head *head = &base->head;
    uint32_t count = base->why[0] ? 0 : head->count;
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u16(&buffer.stream, (uint16_t)strlen(base->why));
    stream_write(&buffer.stream, base->why, strlen(base->why));
    stream_put_u32(&buffer.stream, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct changes_disk *disk = &head->disks[i];
        stream_put_u32(&buffer.stream, disk->place);
        stream_put_u32(&buffer.stream, disk->shift);
        stream_put_u64(&buffer.stream, disk->size);
        stream_write(&buffer.stream, base->bits + changes_first_word(head, disk),
                     changes_words(disk) * sizeof(uint64_t));
    }
    moving_put_buffer(stream, FRAME_BASE, &buffer);
}

static bool get_why(struct stream *stream, char ret_why[RESYNC_WHY])
{
    uint16_t length = stream_get_u16(stream);
    if (length >= RESYNC_WHY)
        return false;
    stream_read(stream, ret_why, length);
    ret_why[length] = '\0';
    for (uint16_t i = 0; i < length; i++) /* it goes to a person's terminal */
        if ((unsigned char)ret_why[i] < ' ' || ret_why[i] == 0x7f)
            return false;
    return stream_error(stream) == 0;
}

static bool get_disk(struct stream *stream, struct resync_base *base)
{
    struct changes_disk *disk = &base->head.disks[base->head.count];
    disk->place = stream_get_u32(stream);
    disk->shift = stream_get_u32(stream);
    disk->size = stream_get_u64(stream);
    if (stream_error(stream) < 0 || disk->size == 0 || disk->shift < CHANGES_LEAST_SHIFT ||
        disk->shift >= CHANGES_WORD || (disk->size - 1) >> disk->shift >= CHANGES_MOST_REGIONS ||
        changes_head_find(&base->head, disk->place))
        return false;
    size_t first = changes_all_words(&base->head), words = changes_words(disk);
    uint64_t *bits = realloc(base->bits, (first + words) * sizeof(*bits));
    if (!bits)
        return false;
    base->bits = bits;
    stream_read(stream, bits + first, words * sizeof(*bits));
    base->head.count++;
    return stream_error(stream) == 0;
}

int resync_get_base(struct stream_buffer *payload, struct resync_base *ret_base, struct err *err)
{
    struct stream *stream = &payload->stream;
    struct resync_base base = {0};
    bool good = get_why(stream, base.why);
    uint32_t count = good ? stream_get_u32(stream) : 0;
    good &= count <= MACHINE_MAX_DISKS && (count == 0 || !base.why[0]);
    for (uint32_t i = 0; i < count && good; i++)
        good = get_disk(stream, &base);
    if (!good || !is_over(payload)) {
        free(base.bits);
        return broken(err, FRAME_BASE);
    }
    *ret_base = base;
    return 0;
}

/* --- LOOK ------------------------------------------------------------------------------------- */

static bool makes_sense(const struct resync_look *look)
{
    return look->length > 0 && look->length <= RESYNC_PIECE && look->length % 512 == 0 &&
           look->offset % RESYNC_BLOCK == 0;
}

static size_t sums_of(uint32_t length)
{
    return (size_t)(length + RESYNC_BLOCK - 1) / RESYNC_BLOCK * SIPHASH_SUM;
}

void resync_put_look(struct stream *stream, const struct resync_look *look)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_write(&buffer.stream, look->key, sizeof(look->key));
    stream_put_u32(&buffer.stream, look->place);
    stream_put_u64(&buffer.stream, look->offset);
    stream_put_u32(&buffer.stream, look->length);
    moving_put_buffer(stream, FRAME_LOOK, &buffer);
}

int resync_get_look(struct stream_buffer *payload, struct resync_look *ret_look, struct err *err)
{
    struct stream *stream = &payload->stream;
    struct resync_look look;
    stream_read(stream, look.key, sizeof(look.key));
    look.place = stream_get_u32(stream);
    look.offset = stream_get_u64(stream);
    look.length = stream_get_u32(stream);
    if (!is_over(payload) || !makes_sense(&look))
        return broken(err, FRAME_LOOK);
    *ret_look = look;
    return 0;
}

void resync_put_looked(struct stream *stream, const struct resync_look *look, const uint8_t *sums)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u32(&buffer.stream, look->place);
    stream_put_u64(&buffer.stream, look->offset);
    stream_put_u32(&buffer.stream, look->length);
    stream_write(&buffer.stream, sums, sums_of(look->length));
    moving_put_buffer(stream, FRAME_LOOKED, &buffer);
}

int resync_get_looked(struct stream_buffer *payload, struct resync_look *ret_look,
                      uint8_t ret_sums[RESYNC_SUMS], struct err *err)
{
    struct stream *stream = &payload->stream;
    struct resync_look look = {.place = stream_get_u32(stream)};
    look.offset = stream_get_u64(stream);
    look.length = stream_get_u32(stream);
    if (stream_error(stream) < 0 || !makes_sense(&look))
        return broken(err, FRAME_LOOKED);
    stream_read(stream, ret_sums, sums_of(look.length));
    if (!is_over(payload))
        return broken(err, FRAME_LOOKED);
    *ret_look = look;
    return 0;
}

size_t resync_sum(const uint8_t key[SIPHASH_KEY], const uint8_t *bytes, uint32_t length,
                  uint8_t ret_sums[RESYNC_SUMS])
{
    uint8_t *to = ret_sums;
    for (uint32_t at = 0; at < length; at += RESYNC_BLOCK, to += SIPHASH_SUM)
        siphash(key, bytes + at, length - at < RESYNC_BLOCK ? length - at : RESYNC_BLOCK, to);
    return (size_t)(to - ret_sums);
}

/* --- SYNCED ----------------------------------------------------------------------------------- */

void resync_put_synced(struct stream *stream, uint64_t epoch)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u64(&buffer.stream, epoch);
    moving_put_buffer(stream, FRAME_SYNCED, &buffer);
}

int resync_get_synced(struct stream_buffer *payload, uint64_t *ret_epoch, struct err *err)
{
    uint64_t epoch = stream_get_u64(&payload->stream);
    if (!is_over(payload))
        return broken(err, FRAME_SYNCED);
    *ret_epoch = epoch;
    return 0;
}
