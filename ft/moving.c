/* SPDX-License-Identifier: MIT */
#include "ft/moving.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ZEROES = 0, RAW = 1 };

static int broken(struct err *err, uint8_t kind)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a frame %s makes no sense", frame_name(kind));
}

void moving_put(struct stream *stream, enum frame_kind kind, const void *payload, size_t length)
{
    const struct frame frame = {.kind = (uint8_t)kind, .length = (uint32_t)length};
    frame_write(stream, &frame, payload, NULL);
}

/* --- hello ------------------------------------------------------------------------------------ */

static int validate(const void *object, struct err *err)
{
    const struct moving_hello *hello = object;
    if (hello->protocol < MOVING_OLDEST || hello->protocol > MOVING_PROTOCOL)
        return err_say(err, ERR_STATE, EPROTONOSUPPORT,
                       "the other side speaks version %u, this minivmm version %d", hello->protocol,
                       MOVING_PROTOCOL);
    if (!memchr(hello->name, '\0', sizeof(hello->name)))
        return err_say(err, ERR_FAILED, EBADMSG, "the VM's name has no end");
    return 0;
}

static const struct state_field fields[] = {
    STATE_FIELD_U64(struct moving_hello, wall_ns),
    STATE_FIELD_U32(struct moving_hello, protocol),
    STATE_FIELD_BYTES(struct moving_hello, reserved),
    STATE_FIELD_BYTES(struct moving_hello, ticket),
    STATE_FIELD_BYTES(struct moving_hello, uuid),
    STATE_FIELD_BYTES(struct moving_hello, generation),
    STATE_FIELD_BYTES(struct moving_hello, macs),
    STATE_FIELD_BYTES(struct moving_hello, name),
};

static const struct state_table table = {
    .name = "moving",
    .version = 1,
    STATE_TABLE_OF(struct moving_hello, fields),
    .validate = validate,
};

void moving_put_hello(struct stream *stream, const struct moving_hello *hello,
                      struct machine_model *model)
{
    struct moving_hello copy = *hello;
    const struct state_item items[] = {{.table = &table, .object = &copy},
                                       machine_model_item(model)};
    const struct frame frame = {.kind = FRAME_HELLO};
    frame_write_sections(stream, &frame, items, array_size(items), NULL);
}

int moving_get_hello(struct stream_buffer *payload, struct moving_hello *ret_hello,
                     struct machine_model *ret_model, struct err *err)
{
    const struct state_item items[] = {{.table = &table, .object = ret_hello},
                                       machine_model_item(ret_model)};
    return state_load(&payload->stream, items, array_size(items), err);
}

/* --- files and disks -------------------------------------------------------------------------- */

static void put_name(struct stream *stream, const char *name)
{
    stream_put_u16(stream, (uint16_t)strlen(name));
    stream_write(stream, name, strlen(name));
}

/* One that leads out of the folder is none. */
static bool get_name(struct stream *stream, char ret_name[PATH_MAX])
{
    uint16_t length = stream_get_u16(stream);
    if (length == 0 || length > 512)
        return false;
    stream_read(stream, ret_name, length);
    ret_name[length] = '\0';
    if (stream_error(stream) < 0 || strlen(ret_name) != length || ret_name[0] == '/')
        return false;
    for (const char *at = ret_name; at; at = strchr(at, '/')) {
        at += *at == '/';
        if (*at == '\0' || *at == '/' || strcmp(at, ".") == 0 || strncmp(at, "./", 2) == 0 ||
            strcmp(at, "..") == 0 || strncmp(at, "../", 3) == 0)
            return false;
    }
    return true;
}

void moving_put_buffer(struct stream *stream, enum frame_kind kind, struct stream_buffer *buffer)
{
    if (stream_error(&buffer->stream) < 0)
        stream_fail(stream, stream_error(&buffer->stream));
    else
        moving_put(stream, kind, buffer->bytes, buffer->length);
    stream_buffer_finish(buffer);
}

void moving_put_file(struct stream *stream, const struct moving_file *file)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    put_name(&buffer.stream, file->name);
    stream_put_u32(&buffer.stream, file->mode);
    stream_write(&buffer.stream, file->bytes, file->length);
    moving_put_buffer(stream, FRAME_FILE, &buffer);
}

int moving_get_file(struct stream_buffer *payload, struct moving_file *ret_file, struct err *err)
{
    bool named = get_name(&payload->stream, ret_file->name);
    ret_file->mode = stream_get_u32(&payload->stream);
    if (!named || stream_error(&payload->stream) < 0)
        return broken(err, FRAME_FILE);
    ret_file->bytes = payload->bytes + payload->read_at;
    ret_file->length = payload->length - payload->read_at;
    return 0;
}

void moving_put_disk(struct stream *stream, const struct moving_disk *disk)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u32(&buffer.stream, disk->place);
    stream_put_u64(&buffer.stream, disk->size);
    put_name(&buffer.stream, disk->name);
    moving_put_buffer(stream, FRAME_DISK, &buffer);
}

int moving_get_disk(struct stream_buffer *payload, struct moving_disk *ret_disk, struct err *err)
{
    ret_disk->place = stream_get_u32(&payload->stream);
    ret_disk->size = stream_get_u64(&payload->stream);
    if (!get_name(&payload->stream, ret_disk->name) || stream_error(&payload->stream) < 0 ||
        ret_disk->place >= MACHINE_MAX_DISKS || ret_disk->size == 0 || ret_disk->size > INT64_MAX ||
        ret_disk->size % 512 != 0)
        return broken(err, FRAME_DISK);
    return 0;
}

void moving_put_shared(struct stream *stream, const struct moving_shared *shared)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u32(&buffer.stream, shared->place);
    stream_put_u64(&buffer.stream, shared->size);
    stream_put_u32(&buffer.stream, shared->format);
    stream_put_u64(&buffer.stream, shared->mark);
    put_name(&buffer.stream, shared->link);
    put_name(&buffer.stream, shared->target);
    moving_put_buffer(stream, FRAME_SHARED, &buffer);
}

static bool get_link(struct stream_buffer *payload, struct moving_shared *shared)
{
    struct stream *stream = &payload->stream;
    uint16_t length = 0;
    shared->link[0] = shared->target[0] = '\0';
    if (payload->length - payload->read_at == 2 * sizeof(length)) /* both are empty */
        return stream_get_u16(stream) == 0 && stream_get_u16(stream) == 0;
    if (!get_name(stream, shared->link))
        return false;
    length = stream_get_u16(stream);
    if (length == 0 || length > MOVING_LINK_MAX)
        return false;
    stream_read(stream, shared->target, length);
    shared->target[length] = '\0';
    return stream_error(stream) == 0 && strlen(shared->target) == length;
}

int moving_get_shared(struct stream_buffer *payload, struct moving_shared *ret_shared,
                      struct err *err)
{
    struct stream *stream = &payload->stream;
    ret_shared->place = stream_get_u32(stream);
    ret_shared->size = stream_get_u64(stream);
    ret_shared->format = stream_get_u32(stream);
    ret_shared->mark = stream_get_u64(stream);
    if (stream_error(stream) < 0 || ret_shared->place >= MACHINE_MAX_DISKS ||
        (ret_shared->format != DISK_FORMAT_RAW && ret_shared->format != DISK_FORMAT_QCOW2) ||
        !get_link(payload, ret_shared))
        return broken(err, FRAME_SHARED);
    return 0;
}

/* --- blocks ----------------------------------------------------------------------------------- */

void moving_put_block(struct stream *stream, const struct frame *of,
                      const struct moving_block *block, struct frame_tally *tally)
{
    uint8_t payload[17 + FRAME_MAX_BLOCK];
    uint32_t wire_place = htole32(block->place), wire_length = htole32(block->length);
    uint64_t wire_offset = htole64(block->offset);
    uint32_t length = block->bytes ? block->length : 0;

    assert(block->length <= FRAME_MAX_BLOCK);
    memcpy(payload, &wire_place, 4);
    memcpy(payload + 4, &wire_offset, 8);
    memcpy(payload + 12, &wire_length, 4);
    payload[16] = block->bytes ? RAW : ZEROES;
    if (block->bytes)
        memcpy(payload + 17, block->bytes, length);
    const struct frame frame = {.kind = FRAME_BLOCKS,
                                .length = 17 + length,
                                .generation = of->generation,
                                .epoch = of->epoch};
    frame_write(stream, &frame, payload, tally);
}

int moving_get_block(struct stream_buffer *payload, struct moving_block *ret_block, struct err *err)
{
    struct stream *stream = &payload->stream;
    struct moving_block block = {.place = stream_get_u32(stream)};
    block.offset = stream_get_u64(stream);
    block.length = stream_get_u32(stream);
    uint8_t encoding = stream_get_u8(stream);
    size_t left = payload->length - payload->read_at;
    if (stream_error(stream) < 0 || encoding > RAW || block.length == 0 ||
        block.length > FRAME_MAX_BLOCK || left != (encoding == RAW ? block.length : 0))
        return broken(err, FRAME_BLOCKS);
    block.bytes = encoding == RAW ? payload->bytes + payload->read_at : NULL;
    *ret_block = block;
    return 0;
}

/* --- words ------------------------------------------------------------------------------------ */

void moving_put_ack(struct stream *stream, enum frame_ack what)
{
    uint32_t wire = htole32(what);
    moving_put(stream, FRAME_ACK, &wire, sizeof(wire));
}

void moving_put_welcome(struct stream *stream, const uint8_t place[MOVING_TICKET])
{
    uint32_t wire = htole32(FRAME_WELCOME);
    uint8_t payload[sizeof(wire) + MOVING_TICKET];
    memcpy(payload, &wire, sizeof(wire));
    memcpy(payload + sizeof(wire), place, MOVING_TICKET);
    moving_put(stream, FRAME_ACK, payload, sizeof(payload));
}

void moving_put_error(struct stream *stream, const struct err *err)
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    stream_put_u32(&buffer.stream, (uint32_t)err->kind);
    put_name(&buffer.stream, err->text);
    put_name(&buffer.stream, err->hint);
    moving_put_buffer(stream, FRAME_ERROR, &buffer);
}

static void get_text(struct stream *stream, char *ret_text, size_t size)
{
    uint16_t length = stream_get_u16(stream);
    for (uint16_t i = 0; i < length && stream_error(stream) == 0; i++) {
        uint8_t c = stream_get_u8(stream);
        if (i + 1u < size) {
            ret_text[i] = c >= ' ' && c != 0x7f ? (char)c : '?';
            ret_text[i + 1] = '\0';
        }
    }
}

/* What the other side says goes to a person's terminal: it is text and nothing else. */
int moving_get_error(struct stream_buffer *payload, struct err *err)
{
    struct err theirs = {.kind = ERR_FAILED};
    uint32_t kind = stream_get_u32(&payload->stream);
    get_text(&payload->stream, theirs.text, sizeof(theirs.text));
    get_text(&payload->stream, theirs.hint, sizeof(theirs.hint));
    if (stream_error(&payload->stream) < 0)
        return broken(err, FRAME_ERROR);
    if (kind >= ERR_FAILED && kind <= ERR_HOST)
        theirs.kind = (enum err_kind)kind;
    if (err)
        *err = theirs;
    return -EREMOTEIO;
}

int moving_say(const struct stream *stream, int ret, struct err *err)
{
    int error = stream_error(stream);
    if (ret == 0)
        return 0;
    if (error == -ENODATA)
        err_say(err, ERR_FAILED, ENODATA, "the other side hung up");
    else if (error == -ETIMEDOUT)
        err_say(err, ERR_TIMEOUT, ETIMEDOUT, "the other side says nothing any more");
    else if (error < 0)
        err_sys(err, ERR_FAILED, -error, "the connection is lost");
    else if (err)
        err_prefix(err, "what the other side says makes no sense");
    if (error == 0 && err)
        err->kind = ERR_FAILED;
    return ret;
}

int moving_read(struct stream *stream, struct frame *ret_frame, struct stream_buffer *payload,
                struct frame_tally *tally, struct err *err)
{
    return moving_say(stream, frame_read(stream, ret_frame, payload, tally, err), err);
}

int moving_wait_ack(struct stream *stream, struct stream_buffer *payload, struct err *err)
{
    struct frame frame;
    int ret = moving_read(stream, &frame, payload, NULL, err);
    if (ret < 0)
        return ret;
    if (frame.kind == FRAME_ERROR)
        return moving_get_error(payload, err);
    uint32_t what = frame.kind == FRAME_ACK ? stream_get_u32(&payload->stream) : 0;
    if (what < FRAME_WELCOME || what > FRAME_ANNOUNCED || stream_error(&payload->stream) < 0)
        return broken(err, frame.kind);
    return (int)what;
}

int moving_wait_welcome(struct stream *stream, struct stream_buffer *payload,
                        uint8_t ret_place[MOVING_TICKET], struct err *err)
{
    int ret = moving_wait_ack(stream, payload, err);
    if (ret < 0)
        return ret;
    stream_read(&payload->stream, ret_place, MOVING_TICKET);
    return ret == FRAME_WELCOME && stream_error(&payload->stream) == 0 ? 0 : broken(err, FRAME_ACK);
}

void moving_put_announced(struct stream *stream, uint32_t us)
{
    const uint32_t payload[] = {htole32(FRAME_ANNOUNCED), htole32(us)};
    moving_put(stream, FRAME_ACK, payload, sizeof(payload));
}

int moving_get_announced(struct stream_buffer *payload, uint32_t *ret_us, struct err *err)
{
    uint32_t us = stream_get_u32(&payload->stream);
    if (stream_error(&payload->stream) < 0)
        return broken(err, FRAME_ACK);
    *ret_us = us;
    return 0;
}
