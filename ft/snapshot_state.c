/* SPDX-License-Identifier: MIT */
/* A snapshot's file "state". */
#include "ft/frames.h"
#include "ft/snapshot_parts.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EPOCH = 1 };

static const struct state_field hello_fields[] = {
    STATE_FIELD_U64(struct snapshot_hello, wall_ns),
    STATE_FIELD_BYTES(struct snapshot_hello, uuid),
};

static const struct state_table hello_table = {
    .name = "hello", .version = 1, STATE_TABLE_OF(struct snapshot_hello, hello_fields)};

/* --- writing ---------------------------------------------------------------------------------- */

static void put(struct stream *stream, enum frame_kind kind, const void *bytes, size_t length,
                struct frame_tally *tally)
{
    const struct frame frame = {.kind = (uint8_t)kind, .length = (uint32_t)length, .epoch = EPOCH};
    if (length > UINT32_MAX)
        stream_fail(stream, -EMSGSIZE);
    else
        frame_write(stream, &frame, bytes, tally);
}

static void put_hello(struct stream *stream, const struct snapshot_hello *hello,
                      struct machine_model *model, struct frame_tally *tally)
{
    struct snapshot_hello hello_copy = *hello;
    const struct state_item items[] = {{.table = &hello_table, .object = &hello_copy},
                                       machine_model_item(model)};
    const struct frame frame = {.kind = FRAME_HELLO, .epoch = EPOCH};
    frame_write_sections(stream, &frame, items, array_size(items), tally);
}

static void put_sums(struct stream *stream, const uint32_t *sums, uint64_t count,
                     struct frame_tally *tally)
{
    uint32_t *wire = malloc(count * sizeof(*wire));
    if (!wire) {
        stream_fail(stream, -ENOMEM);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        wire[i] = htole32(sums[i]);
    put(stream, FRAME_SUMS, wire, count * sizeof(*wire), tally);
    free(wire);
}

int snapshot_write_state(int folder, const struct snapshot_hello *hello,
                         struct machine_model *model, const uint32_t *sums,
                         const struct stream_buffer *state, struct err *err)
{
    struct frame_tally tally = {0};
    struct stream_fd file;
    int fd = openat(folder, SNAPSHOT_STATE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    0400);
    int ret = fd < 0 ? -errno : stream_fd_init(&file, fd);
    if (ret == 0) {
        put_hello(&file.stream, hello, model, &tally);
        put_sums(&file.stream, sums, memory_file_chunks(machine_model_memory(model)), &tally);
        put(&file.stream, FRAME_STATE, state->bytes, state->length, &tally);
        frame_write_commit(&file.stream, 0, EPOCH, &tally);
        ret = stream_flush(&file.stream);
        if (ret == 0 && fsync(fd) < 0)
            ret = -errno;
        stream_fd_finish(&file);
    }
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && ret < 0)
        unlinkat(folder, SNAPSHOT_STATE, 0);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot write the machine's state") : 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* The frames come in this order, and none but these. */
static int next(struct stream *stream, enum frame_kind wanted, struct stream_buffer *payload,
                struct frame_tally *tally, struct err *err)
{
    struct frame frame;
    int ret = frame_read(stream, &frame, payload, tally, err);
    if (ret == 0 && (frame.kind != wanted || frame.epoch != EPOCH || frame.generation != 0))
        ret = err_say(err, ERR_DEFINITION, EBADMSG, "a frame is not where it belongs");
    return ret;
}

static int read_hello(struct snapshot *snapshot, struct stream_buffer *payload, struct err *err)
{
    const struct state_item items[] = {{.table = &hello_table, .object = &snapshot->hello},
                                       machine_model_item(snapshot->model)};
    int ret = state_load(&payload->stream, items, array_size(items), err);
    if (ret < 0 && err)
        err->kind = ERR_DEFINITION;
    return ret;
}

static int read_sums(struct snapshot *snapshot, struct stream_buffer *payload, struct err *err)
{
    uint64_t count = memory_file_chunks(machine_model_memory(snapshot->model));
    if (payload->length != count * sizeof(*snapshot->sums))
        return err_say(err, ERR_DEFINITION, EBADMSG, "its checksums are of another memory");
    snapshot->sums = malloc(payload->length);
    if (!snapshot->sums)
        return err_sys(err, ERR_HOST, ENOMEM, "no room for checksums");
    for (uint64_t i = 0; i < count; i++)
        snapshot->sums[i] = stream_get_u32(&payload->stream);
    return stream_error(&payload->stream);
}

static int read_frames(struct snapshot *snapshot, struct stream *stream, struct err *err)
{
    struct frame_tally tally = {0};
    struct stream_buffer payload;
    stream_buffer_init(&payload, 0);
    int ret = next(stream, FRAME_HELLO, &payload, &tally, err);
    if (ret == 0)
        ret = read_hello(snapshot, &payload, err);
    if (ret == 0)
        ret = next(stream, FRAME_SUMS, &payload, &tally, err);
    if (ret == 0)
        ret = read_sums(snapshot, &payload, err);
    if (ret == 0)
        ret = next(stream, FRAME_STATE, &snapshot->state, &tally, err);
    if (ret == 0)
        ret = next(stream, FRAME_COMMIT, &payload, &tally, err);
    stream_buffer_finish(&payload);
    return ret;
}

int snapshot_read_state(struct snapshot *snapshot, struct err *err)
{
    struct stream_fd file;
    int fd = openat(snapshot->folder, SNAPSHOT_STATE,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int ret = fd < 0 ? -errno : stream_fd_init(&file, fd);
    if (ret < 0) {
        if (fd >= 0)
            close(fd);
        return err_sys(err, ERR_DEFINITION, -ret, "cannot read %s/" SNAPSHOT_STATE, snapshot->path);
    }
    free(snapshot->sums);
    machine_model_destroy(snapshot->model);
    snapshot->sums = NULL;
    snapshot->model = NULL;
    ret = machine_model_create(&snapshot->model, err);
    if (ret == 0)
        ret = read_frames(snapshot, &file.stream, err);
    err_prefix(ret < 0 ? err : NULL, "%s/" SNAPSHOT_STATE " is damaged", snapshot->path);
    stream_fd_finish(&file);
    close(fd);
    return ret;
}
