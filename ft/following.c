/* SPDX-License-Identifier: MIT */
#include "ft/following.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { WORD_LENGTH = 20, DURABLE = 1, ADAPTS = 2, VERIFY = 4 };

static int broken(struct err *err, enum frame_kind kind)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a frame %s makes no sense",
                   frame_name((uint8_t)kind));
}

static void put_text(struct stream *stream, const char *text)
{
    stream_put_u16(stream, (uint16_t)strlen(text));
    stream_write(stream, text, strlen(text));
}

/* It goes to files, and to a person's terminal. */
static bool get_text(struct stream *stream, char ret_text[FOLLOWING_WITNESS])
{
    uint16_t length = stream_get_u16(stream);
    if (length >= FOLLOWING_WITNESS)
        return false;
    stream_read(stream, ret_text, length);
    ret_text[length] = '\0';
    bool plain = true;
    for (uint16_t i = 0; i < length; i++)
        plain &= (unsigned char)ret_text[i] >= ' ' && ret_text[i] != 0x7f;
    return stream_error(stream) == 0 && plain;
}

void following_put(struct stream *stream, const struct following *following)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u32(&buffer.stream, FOLLOWING_VERSION);
    stream_put_u64(&buffer.stream, following->node);
    stream_put_u64(&buffer.stream, following->generation);
    stream_put_u32(&buffer.stream, following->beat_ms);
    stream_put_u32(&buffer.stream, following->lost_ms);
    stream_put_u32(&buffer.stream, (following->durable ? DURABLE : 0) |
                                       (following->adapts ? ADAPTS : 0) |
                                       (following->verify ? VERIFY : 0));
    stream_write(&buffer.stream, following->lineage, sizeof(following->lineage));
    stream_write(&buffer.stream, following->fresh, sizeof(following->fresh));
    put_text(&buffer.stream, following->witness);
    put_text(&buffer.stream, following->back);
    put_text(&buffer.stream, following->there);
    if (stream_error(&buffer.stream) < 0)
        stream_fail(stream, stream_error(&buffer.stream));
    else
        moving_put(stream, FRAME_FOLLOW, buffer.bytes, buffer.length);
    stream_buffer_finish(&buffer);
}

static bool makes_sense(const struct following *following)
{
    enum { MOST_MS = 1000000 };
    return following->node != 0 && following->generation != 0 && following->beat_ms > 0 &&
           following->lost_ms > following->beat_ms && following->lost_ms <= MOST_MS &&
           following->witness[0];
}

int following_get(struct stream_buffer *payload, struct following *ret_following, struct err *err)
{
    struct stream *stream = &payload->stream;
    struct following following = {0};
    uint32_t version = stream_get_u32(stream);
    if (stream_error(stream) == 0 && version != FOLLOWING_VERSION)
        return err_say(err, ERR_STATE, EPROTONOSUPPORT,
                       "the other side speaks version %u of fault tolerance, this minivmm "
                       "version %d",
                       version, FOLLOWING_VERSION);
    following.node = stream_get_u64(stream);
    following.generation = stream_get_u64(stream);
    following.beat_ms = stream_get_u32(stream);
    following.lost_ms = stream_get_u32(stream);
    uint32_t flags = stream_get_u32(stream);
    following.durable = flags & DURABLE;
    following.adapts = flags & ADAPTS;
    following.verify = flags & VERIFY;
    stream_read(stream, following.lineage, sizeof(following.lineage));
    stream_read(stream, following.fresh, sizeof(following.fresh));
    if (!get_text(stream, following.witness) || !get_text(stream, following.back) ||
        !get_text(stream, following.there) || payload->read_at != payload->length ||
        !makes_sense(&following))
        return broken(err, FRAME_FOLLOW);
    *ret_following = following;
    return 0;
}

void following_put_welcome(struct stream *stream, uint64_t node, uint64_t twin)
{
    uint8_t numbers[MOVING_TICKET];
    node = htole64(node);
    twin = htole64(twin);
    memcpy(numbers, &node, sizeof(node));
    memcpy(numbers + sizeof(node), &twin, sizeof(twin));
    moving_put_welcome(stream, numbers);
}

int following_wait_welcome(struct stream *stream, struct stream_buffer *payload, uint64_t *ret_node,
                           uint64_t *ret_twin, struct err *err)
{
    uint8_t numbers[MOVING_TICKET];
    uint64_t node, twin;
    int ret = moving_wait_welcome(stream, payload, numbers, err);
    if (ret < 0)
        return ret;
    memcpy(&node, numbers, sizeof(node));
    memcpy(&twin, numbers + sizeof(node), sizeof(twin));
    if (node == 0 || twin == 0)
        return broken(err, FRAME_ACK);
    *ret_node = le64toh(node);
    *ret_twin = le64toh(twin);
    return 0;
}

void following_put_settings(struct stream *stream, const struct frame *of,
                            const struct instance_settings *settings, struct frame_tally *tally)
{
    struct instance_settings copy = *settings;
    const struct state_item item = {.table = &instance_settings_table, .object = &copy};
    struct frame frame = *of;
    frame.kind = FRAME_SETTINGS;
    frame_write_sections(stream, &frame, &item, 1, tally);
}

int following_get_settings(struct stream_buffer *payload, struct instance_settings *ret_settings,
                           struct err *err)
{
    struct instance_settings settings;
    const struct state_item item = {.table = &instance_settings_table, .object = &settings};
    int ret = state_load(&payload->stream, &item, 1, err);
    if (ret < 0)
        return ret;
    if (payload->read_at != payload->length)
        return broken(err, FRAME_SETTINGS);
    *ret_settings = settings;
    return 0;
}

void following_put_word(struct stream *stream, const struct ft_word *word)
{
    uint8_t payload[WORD_LENGTH];
    uint32_t kind = htole32(word->kind);
    uint64_t numbers[] = {htole64(word->generation), htole64(word->epoch)};
    memcpy(payload, &kind, sizeof(kind));
    memcpy(payload + sizeof(kind), numbers, sizeof(numbers));
    moving_put(stream, FRAME_WORD, payload, sizeof(payload));
}

int following_get_word(struct stream_buffer *payload, struct ft_word *ret_word, struct err *err)
{
    struct stream *stream = &payload->stream;
    uint32_t kind = stream_get_u32(stream);
    struct ft_word word = {.generation = stream_get_u64(stream)};
    word.epoch = stream_get_u64(stream);
    if (stream_error(stream) < 0 || payload->read_at != payload->length || kind < FT_BEAT ||
        kind > FT_TAKE)
        return broken(err, FRAME_WORD);
    word.kind = (enum ft_word_kind)kind;
    *ret_word = word;
    return 0;
}
