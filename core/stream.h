/* SPDX-License-Identifier: MIT */
/*
 * One stream of bytes for every kind of state that leaves or enters the machine: a buffer in
 * memory, a file, a socket. All numbers are little-endian.
 *
 * The error is sticky: after the first failure every further call does nothing (a read gives
 * zeroes), so a writer or a parser is written straight down and asks once, at the end or before it
 * trusts a value. A read past the end of a buffer or file is -ENODATA; a write past a buffer's
 * limit -ENOSPC.
 *
 * One stream belongs to one thread at a time.
 */
#pragma once

#include "core/err.h"

struct stream;

struct stream_ops {
    int (*write)(struct stream *stream, const void *from, size_t length);
    int (*read)(struct stream *stream, void *to, size_t length);
    int (*flush)(struct stream *stream);
};

struct stream {
    const struct stream_ops *ops;
    int error;         /* 0 or -errno, sticky */
    uint64_t position; /* bytes read or written so far */
    uint32_t checksum; /* CRC-32C of the bytes since stream_checksum_start */
    bool summing;      /* a stream that never started a checksum does not pay for one */
};

int stream_error(const struct stream *stream);
void stream_fail(struct stream *stream, int error); /* the parser's own verdict, -errno */

void stream_write(struct stream *stream, const void *from, size_t length);
void stream_read(struct stream *stream, void *to, size_t length);
int stream_flush(struct stream *stream) must_check; /* and the sticky error */

void stream_put_u8(struct stream *stream, uint8_t value);
void stream_put_u16(struct stream *stream, uint16_t value);
void stream_put_u32(struct stream *stream, uint32_t value);
void stream_put_u64(struct stream *stream, uint64_t value);
uint8_t stream_get_u8(struct stream *stream);
uint16_t stream_get_u16(struct stream *stream);
uint32_t stream_get_u32(struct stream *stream);
uint64_t stream_get_u64(struct stream *stream);

/* Between a start and the next one, `checksum` covers every byte written or read. */
void stream_checksum_start(struct stream *stream);

/*
 * CRC-32C (Castagnoli), continued from crc; 0 to begin. The portable one is what runs where the CPU
 * has no instruction for it; by name it is for tests.
 */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t length);
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t length);
/* And copies them, in one pass: the sum is that of the copy, also where somebody (a guest) writes
 * to `from` meanwhile. The two do not overlap. */
uint32_t crc32c_copy(uint32_t crc, void *to, const void *from, size_t length);

/*
 * A buffer: grows while written up to limit (0: no limit); the same object is then read from its
 * start. A write that would pass the limit leaves nothing of itself behind.
 */
struct stream_buffer {
    struct stream stream;
    uint8_t *bytes;
    size_t length;   /* bytes that are there */
    size_t capacity; /* 0 where the bytes are somebody else's */
    size_t limit;
    size_t read_at;
};

void stream_buffer_init(struct stream_buffer *buffer, size_t limit); /* no memory until a write */
/* Reads bytes that somebody else owns and keeps; writing to it is -EROFS. */
void stream_buffer_init_read(struct stream_buffer *buffer, const void *bytes, size_t length);
/* Room for so many bytes from the start, which the caller fills by itself: length is its to set. */
int stream_buffer_reserve(struct stream_buffer *buffer, size_t size) must_check;
void stream_buffer_rewind(struct stream_buffer *buffer); /* read from the start; clears the error */
void stream_buffer_finish(struct stream_buffer *buffer);

/*
 * A descriptor (file, pipe or socket) in blocking mode, which stays the caller's. Small writes are
 * gathered, so a stream_flush belongs to every message, and before the finish, which drops what was
 * not flushed. Reads are made ahead: the descriptor's own position is past what was handed out.
 *
 * A socket may be read and written, but position and checksum are one for both directions; two
 * threads use two streams. A time limit on the socket (SO_RCVTIMEO, SO_SNDTIMEO) that runs out is
 * -ETIMEDOUT. A peer that is gone is -EPIPE or -ECONNRESET, on sockets never with a signal; for
 * pipes only the process can say so: it ignores SIGPIPE (main does, and so must a test).
 */
struct stream_fd {
    struct stream stream;
    int fd;
    bool is_socket;
    size_t pending; /* gathered for writing */
    size_t read_at; /* what was read ahead: [read_at, available) */
    size_t available;
    uint8_t *buffer; /* two halves: gathered, read ahead */
};

int stream_fd_init(struct stream_fd *file, int fd) must_check; /* -EBADF, -ENOMEM */
void stream_fd_finish(struct stream_fd *file);
