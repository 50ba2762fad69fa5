/* SPDX-License-Identifier: MIT */
#include "core/stream.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int stream_error(const struct stream *stream)
{
    return stream->error;
}

void stream_fail(struct stream *stream, int error)
{
    assert(error < 0);
    if (stream->error == 0)
        stream->error = error;
}

static void account(struct stream *stream, const void *bytes, size_t length)
{
    stream->position += length;
    if (stream->summing)
        stream->checksum = crc32c(stream->checksum, bytes, length);
}

void stream_write(struct stream *stream, const void *from, size_t length)
{
    if (stream->error || length == 0)
        return;
    int r = stream->ops->write(stream, from, length);
    if (r < 0)
        stream->error = r;
    else
        account(stream, from, length);
}

void stream_read(struct stream *stream, void *to, size_t length)
{
    if (length == 0)
        return;
    if (stream->error == 0) {
        int r = stream->ops->read(stream, to, length);
        if (r == 0) {
            account(stream, to, length);
            return;
        }
        stream->error = r;
    }
    memset(to, 0, length); /* also over the part that may have been read before the failure */
}

int stream_flush(struct stream *stream)
{
    if (stream->error == 0 && stream->ops->flush)
        stream->error = stream->ops->flush(stream);
    return stream->error;
}

void stream_checksum_start(struct stream *stream)
{
    stream->checksum = 0;
    stream->summing = true;
}

/* Byte by byte: the compiler makes one access of it, and no byte order is assumed. */
static void put_number(struct stream *stream, uint64_t value, size_t width)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    stream_write(stream, bytes, width);
}

static uint64_t get_number(struct stream *stream, size_t width)
{
    uint8_t bytes[8];
    uint64_t value = 0;

    stream_read(stream, bytes, width);
    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

void stream_put_u8(struct stream *stream, uint8_t value)
{
    put_number(stream, value, 1);
}

void stream_put_u16(struct stream *stream, uint16_t value)
{
    put_number(stream, value, 2);
}

void stream_put_u32(struct stream *stream, uint32_t value)
{
    put_number(stream, value, 4);
}

void stream_put_u64(struct stream *stream, uint64_t value)
{
    put_number(stream, value, 8);
}

uint8_t stream_get_u8(struct stream *stream)
{
    return (uint8_t)get_number(stream, 1);
}

uint16_t stream_get_u16(struct stream *stream)
{
    return (uint16_t)get_number(stream, 2);
}

uint32_t stream_get_u32(struct stream *stream)
{
    return (uint32_t)get_number(stream, 4);
}

uint64_t stream_get_u64(struct stream *stream)
{
    return get_number(stream, 8);
}

/* Buffers. */

static struct stream_buffer *buffer_of(struct stream *stream)
{
    return container_of(stream, struct stream_buffer, stream);
}

static int grow(struct stream_buffer *buffer, size_t length)
{
    size_t capacity = buffer->capacity ? buffer->capacity : 256;

    while (capacity < length)
        if (__builtin_mul_overflow(capacity, 2, &capacity))
            return -ENOMEM;
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (!bytes)
        return -ENOMEM;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return 0;
}

static int buffer_write(struct stream *stream, const void *from, size_t length)
{
    struct stream_buffer *buffer = buffer_of(stream);
    size_t end;

    if (__builtin_add_overflow(buffer->length, length, &end) ||
        (buffer->limit && end > buffer->limit))
        return -ENOSPC;
    if (end > buffer->capacity) {
        int r = grow(buffer, end);
        if (r < 0)
            return r;
    }
    memcpy(buffer->bytes + buffer->length, from, length);
    buffer->length = end;
    return 0;
}

static int borrowed_write(struct stream *stream, const void *from, size_t length)
{
    return -EROFS;
}

static int buffer_read(struct stream *stream, void *to, size_t length)
{
    struct stream_buffer *buffer = buffer_of(stream);

    if (length > buffer->length - buffer->read_at)
        return -ENODATA;
    memcpy(to, buffer->bytes + buffer->read_at, length);
    buffer->read_at += length;
    return 0;
}

static const struct stream_ops buffer_ops = {.write = buffer_write, .read = buffer_read};
static const struct stream_ops borrowed_ops = {.write = borrowed_write, .read = buffer_read};

int stream_buffer_reserve(struct stream_buffer *buffer, size_t size)
{
    return size > buffer->capacity ? grow(buffer, size) : 0;
}

void stream_buffer_init(struct stream_buffer *buffer, size_t limit)
{
    *buffer = (struct stream_buffer){.stream.ops = &buffer_ops, .limit = limit};
}

void stream_buffer_init_read(struct stream_buffer *buffer, const void *bytes, size_t length)
{
    *buffer = (struct stream_buffer){
        .stream.ops = &borrowed_ops,
        .bytes = (uint8_t *)(uintptr_t)bytes, /* these ops only read them */
        .length = length,
    };
}

void stream_buffer_rewind(struct stream_buffer *buffer)
{
    buffer->read_at = 0;
    buffer->stream.error = 0;
    buffer->stream.position = 0;
}

void stream_buffer_finish(struct stream_buffer *buffer)
{
    if (buffer->capacity)
        free(buffer->bytes);
    buffer->bytes = NULL;
    buffer->length = buffer->capacity = buffer->read_at = 0;
}

/* Descriptors. */

enum { HALF = 64 * 1024 }; /* of the buffer: gathered writes below, read-ahead above */

static struct stream_fd *fd_of(struct stream *stream)
{
    return container_of(stream, struct stream_fd, stream);
}

/* A descriptor in blocking mode says "again" only when a time limit on the socket ran out. */
static int io_error(void)
{
    return errno == EAGAIN ? -ETIMEDOUT : -errno;
}

/* What was gathered and then `length` bytes more, in as few calls as the descriptor takes. */
static int write_out(struct stream_fd *file, const void *more, size_t length)
{
    struct iovec iov[2] = {
        {.iov_base = file->buffer, .iov_len = file->pending},
        {.iov_base = (void *)(uintptr_t)more, .iov_len = length},
    };
    size_t first = file->pending ? 0 : 1;
    size_t end = length ? 2 : 1;

    while (first < end) {
        struct msghdr message = {.msg_iov = iov + first, .msg_iovlen = end - first};
        ssize_t n = file->is_socket ? sendmsg(file->fd, &message, MSG_NOSIGNAL)
                                    : writev(file->fd, iov + first, (int)(end - first));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_error();
        size_t done = (size_t)n;
        while (first < end && done >= iov[first].iov_len)
            done -= iov[first++].iov_len;
        if (first < end) {
            iov[first].iov_base = (uint8_t *)iov[first].iov_base + done;
            iov[first].iov_len -= done;
        }
    }
    file->pending = 0;
    return 0;
}

static int fd_write(struct stream *stream, const void *from, size_t length)
{
    struct stream_fd *file = fd_of(stream);

    if (length > HALF - file->pending)
        return write_out(file, from, length);
    memcpy(file->buffer + file->pending, from, length);
    file->pending += length;
    return 0;
}

static int fd_flush(struct stream *stream)
{
    return write_out(fd_of(stream), NULL, 0);
}

/* One read of at most `length` bytes, -ENODATA at the end. */
static ssize_t read_some(struct stream_fd *file, void *to, size_t length)
{
    for (;;) {
        ssize_t n = read(file->fd, to, length);
        if (n > 0)
            return n;
        if (n == 0)
            return -ENODATA;
        if (errno != EINTR)
            return io_error();
    }
}

static int fd_read(struct stream *stream, void *to, size_t length)
{
    struct stream_fd *file = fd_of(stream);
    uint8_t *ahead = file->buffer + HALF;
    uint8_t *at = to;

    while (length > 0) {
        size_t ready = file->available - file->read_at;
        if (ready > 0) {
            size_t n = length < ready ? length : ready;
            memcpy(at, ahead + file->read_at, n);
            file->read_at += n;
            at += n;
            length -= n;
            continue;
        }
        bool direct = length >= HALF;
        ssize_t n = direct ? read_some(file, at, length) : read_some(file, ahead, HALF);
        if (n < 0)
            return (int)n;
        if (direct) {
            at += n;
            length -= (size_t)n;
        } else {
            file->read_at = 0;
            file->available = (size_t)n;
        }
    }
    return 0;
}

static const struct stream_ops fd_ops = {.write = fd_write, .read = fd_read, .flush = fd_flush};

int stream_fd_init(struct stream_fd *file, int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -errno;
    uint8_t *buffer = malloc(2 * HALF);
    if (!buffer)
        return -ENOMEM;
    *file = (struct stream_fd){
        .stream.ops = &fd_ops,
        .fd = fd,
        .is_socket = S_ISSOCK(status.st_mode),
        .buffer = buffer,
    };
    return 0;
}

void stream_fd_finish(struct stream_fd *file)
{
    free(file->buffer);
    file->buffer = NULL;
    file->pending = file->read_at = file->available = 0;
}
