/* SPDX-License-Identifier: MIT */
#include "core/stream.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* CRC-32C */

typedef uint32_t crc_fn(uint32_t crc, const void *bytes, size_t length);

static void check_vectors(crc_fn *crc)
{
    uint8_t bytes[32];
    /* RFC 3720 B.4: an iSCSI read command */
    static const uint8_t command[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02,
    };

    memset(bytes, 0, 32);
    ck_assert_uint_eq(crc(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    ck_assert_uint_eq(crc(0, bytes, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    ck_assert_uint_eq(crc(0, bytes, 32), 0x46dd794e);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    ck_assert_uint_eq(crc(0, bytes, 32), 0x113fdb5c);
    ck_assert_uint_eq(crc(0, command, sizeof(command)), 0xd9963a56);
    ck_assert_uint_eq(crc(0, "123456789", 9), 0xe3069283);
    ck_assert_uint_eq(crc(0, "", 0), 0);
}

START_TEST(crc32c_agrees_with_the_rfc)
{
    check_vectors(crc32c);
    check_vectors(crc32c_portable);
}
END_TEST

START_TEST(crc32c_is_the_same_with_and_without_the_instruction)
{
    uint8_t bytes[10000]; /* long runs are several chains */
    uint32_t seed = 1;

    for (size_t i = 0; i < sizeof(bytes); i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(seed >> 24);
    }
    for (size_t start = 0; start < 9; start++)
        for (size_t length = 0; start + length <= sizeof(bytes); length += length < 300 ? 1 : 97)
            ck_assert_uint_eq(crc32c(seed, bytes + start, length),
                              crc32c_portable(seed, bytes + start, length));
}
END_TEST

START_TEST(crc32c_in_pieces_is_crc32c_of_the_whole)
{
    const char *text = "as it came, byte by byte, or all at once";
    size_t length = strlen(text);

    for (size_t cut = 0; cut <= length; cut++)
        ck_assert_uint_eq(crc32c(crc32c(0, text, cut), text + cut, length - cut),
                          crc32c(0, text, length));
}
END_TEST

/* Copied and summed at once is the same as one after the other, and touches nothing beside it. */
START_TEST(crc32c_copy_sums_what_it_copies)
{
    enum { MOST = 7000, EDGE = 16 };
    uint8_t from[MOST + EDGE], to[MOST + 2 * EDGE], untouched[EDGE];
    uint32_t seed = 1;

    memset(untouched, 0xee, sizeof(untouched));
    for (size_t i = 0; i < sizeof(from); i++) {
        seed = seed * 1664525 + 1013904223;
        from[i] = (uint8_t)(seed >> 24);
    }
    for (size_t shift = 0; shift < 9; shift++)
        for (size_t length = 0; length <= MOST; length += length < 70 ? 1 : 61) {
            uint8_t *at = to + EDGE - shift;
            memset(to, 0xee, sizeof(to));
            ck_assert_uint_eq(crc32c_copy(seed, at, from + shift / 2, length),
                              crc32c_portable(seed, from + shift / 2, length));
            ck_assert_mem_eq(at, from + shift / 2, length);
            ck_assert_mem_eq(at + length, untouched, EDGE);
            ck_assert_mem_eq(to, untouched, EDGE - shift);
        }
}
END_TEST

struct changing {
    uint64_t words[1024];
    atomic_bool enough;
};

static void keep_changing(void *arg)
{
    struct changing *changing = arg;
    for (uint64_t value = 0; !atomic_load(&changing->enough); value++)
        for (size_t i = 0; i < array_size(changing->words); i++)
            *(volatile uint64_t *)&changing->words[i] = value;
}

START_TEST(crc32c_copy_sums_its_copy_while_somebody_writes)
{
    static struct changing changing;
    static uint64_t copy[array_size(changing.words)];
    struct thread thread = {0};
    struct err err;
    unsigned changed = 0;

    ck_assert_int_eq(thread_start(&thread, "writer", keep_changing, &changing, &err), 0);
    for (unsigned i = 0; i < 20000 || changed < 100; i++) {
        uint64_t before = copy[0];
        uint32_t crc = crc32c_copy(0, copy, changing.words, sizeof(copy));
        ck_assert_uint_eq(crc, crc32c(0, copy, sizeof(copy)));
        changed += copy[0] != before;
    }
    atomic_store(&changing.enough, true);
    thread_join(&thread);
}
END_TEST

/* Buffers */

START_TEST(numbers_are_little_endian_and_come_back)
{
    static const uint8_t expected[] = {0x12, 0x56, 0x34, 0xde, 0xbc, 0x9a, 0x78, 0xef,
                                       0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0xf1};
    struct stream_buffer buffer;
    struct stream *stream = &buffer.stream;

    stream_buffer_init(&buffer, 0);
    stream_put_u8(stream, 0x12);
    stream_put_u16(stream, 0x3456);
    stream_put_u32(stream, 0x789abcde);
    stream_put_u64(stream, 0xf123456789abcdef);
    ck_assert_int_eq(stream_flush(stream), 0);
    ck_assert_uint_eq(buffer.length, sizeof(expected));
    ck_assert_uint_eq(stream->position, sizeof(expected));
    ck_assert_mem_eq(buffer.bytes, expected, sizeof(expected));

    stream_buffer_rewind(&buffer);
    ck_assert_uint_eq(stream_get_u8(stream), 0x12);
    ck_assert_uint_eq(stream_get_u16(stream), 0x3456);
    ck_assert_uint_eq(stream_get_u32(stream), 0x789abcde);
    ck_assert_uint_eq(stream_get_u64(stream), 0xf123456789abcdef);
    ck_assert_int_eq(stream_error(stream), 0);
    ck_assert_uint_eq(stream->position, sizeof(expected));
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(buffer_grows_as_it_is_written)
{
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 0);
    for (uint32_t i = 0; i < 100000; i++)
        stream_put_u32(&buffer.stream, i * 7);
    ck_assert_uint_eq(buffer.length, 400000);
    stream_buffer_rewind(&buffer);
    for (uint32_t i = 0; i < 100000; i++)
        if (stream_get_u32(&buffer.stream) != i * 7)
            ck_abort_msg("number %u has changed", i);
    ck_assert_int_eq(stream_error(&buffer.stream), 0);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(write_past_the_limit_fails_and_leaves_nothing)
{
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 6);
    stream_put_u32(&buffer.stream, 1);
    stream_put_u32(&buffer.stream, 2);
    ck_assert_int_eq(stream_error(&buffer.stream), -ENOSPC);
    stream_put_u8(&buffer.stream, 3); /* would fit, but the error is sticky */
    ck_assert_int_eq(stream_flush(&buffer.stream), -ENOSPC);
    ck_assert_uint_eq(buffer.length, 4);
    ck_assert_uint_eq(buffer.stream.position, 4);
    stream_buffer_finish(&buffer);

    stream_buffer_init(&buffer, 6);
    stream_write(&buffer.stream, "abc", SIZE_MAX); /* refused before a byte is touched */
    ck_assert_int_eq(stream_error(&buffer.stream), -ENOSPC);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(read_past_the_end_gives_zeroes_and_a_sticky_error)
{
    struct stream_buffer buffer;
    uint8_t bytes[4] = {9, 9, 9, 9};

    stream_buffer_init_read(&buffer, "\x01\x02\x03", 3);
    ck_assert_uint_eq(stream_get_u16(&buffer.stream), 0x0201);
    stream_read(&buffer.stream, bytes, 4);
    ck_assert_mem_eq(bytes, "\0\0\0\0", 4);
    ck_assert_int_eq(stream_error(&buffer.stream), -ENODATA);
    ck_assert_uint_eq(stream_get_u8(&buffer.stream), 0); /* one byte is there, but it is too late */
    ck_assert_uint_eq(buffer.stream.position, 2);

    stream_buffer_rewind(&buffer);
    ck_assert_int_eq(stream_error(&buffer.stream), 0);
    ck_assert_uint_eq(stream_get_u8(&buffer.stream), 1);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(borrowed_bytes_cannot_be_written)
{
    static const char text[] = "constant";
    struct stream_buffer buffer;

    stream_buffer_init_read(&buffer, text, sizeof(text));
    stream_put_u8(&buffer.stream, 1);
    ck_assert_int_eq(stream_error(&buffer.stream), -EROFS);
    stream_buffer_finish(&buffer);
    ck_assert_str_eq(text, "constant");
}
END_TEST

START_TEST(first_verdict_stands)
{
    struct stream_buffer buffer;

    stream_buffer_init_read(&buffer, "abc", 3);
    stream_fail(&buffer.stream, -EBADMSG);
    stream_fail(&buffer.stream, -EIO);
    ck_assert_uint_eq(stream_get_u8(&buffer.stream), 0);
    ck_assert_int_eq(stream_error(&buffer.stream), -EBADMSG);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(checksum_covers_what_passed_since_its_start)
{
    struct stream_buffer buffer;
    struct stream *stream = &buffer.stream;

    stream_buffer_init(&buffer, 0);
    stream_write(stream, "not covered", 11);
    ck_assert_uint_eq(stream->checksum, 0);
    stream_checksum_start(stream);
    stream_write(stream, "1234", 4);
    stream_write(stream, "56789", 5);
    ck_assert_uint_eq(stream->checksum, 0xe3069283);
    stream_checksum_start(stream);
    ck_assert_uint_eq(stream->checksum, 0);

    char bytes[11];
    stream_buffer_rewind(&buffer);
    stream_read(stream, bytes, 11);
    stream_checksum_start(stream);
    stream_read(stream, bytes, 9);
    ck_assert_uint_eq(stream->checksum, 0xe3069283);
    stream_read(stream, bytes, 1); /* a read that fails does not count */
    ck_assert_uint_eq(stream->checksum, 0xe3069283);
    stream_buffer_finish(&buffer);
}
END_TEST

/* Descriptors */

static struct stream_fd open_stream(int fd)
{
    struct stream_fd file;
    ck_assert_int_eq(stream_fd_init(&file, fd), 0);
    return file;
}

static void open_pair(int type, int ret_fds[2])
{
    int r = type ? socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) : pipe2(ret_fds, O_CLOEXEC);
    ck_assert_int_eq(r, 0);
}

START_TEST(small_writes_leave_with_the_flush)
{
    int fds[2];
    char got[16];

    open_pair(SOCK_STREAM, fds);
    struct stream_fd file = open_stream(fds[0]);
    stream_put_u32(&file.stream, 1);
    stream_put_u32(&file.stream, 2);
    ck_assert_int_eq(recv(fds[1], got, sizeof(got), MSG_DONTWAIT), -1);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(stream_flush(&file.stream), 0);
    ck_assert_int_eq(recv(fds[1], got, sizeof(got), MSG_DONTWAIT), 8);
    ck_assert_mem_eq(got, "\1\0\0\0\2\0\0\0", 8);
    ck_assert_int_eq(stream_flush(&file.stream), 0); /* nothing more to say */
    ck_assert_int_eq(recv(fds[1], got, sizeof(got), MSG_DONTWAIT), -1);
    stream_fd_finish(&file);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

/* A stretch of numbers in pieces of all sizes, small and beyond every buffer. */
static const size_t pieces[] = {1, 3, 8, 4096, 65535, 1, 65536, 65537, 7, 300000, 2, 131072, 5};

struct peer {
    struct thread thread;
    int fd;
};

static void write_pieces(void *arg)
{
    struct peer *peer = arg;
    struct stream_fd file = open_stream(peer->fd);
    uint8_t *bytes = malloc(300000);
    size_t at = 0;

    for (size_t i = 0; i < array_size(pieces); i++) {
        for (size_t j = 0; j < pieces[i]; j++, at++)
            bytes[j] = (uint8_t)(at ^ at >> 8);
        stream_write(&file.stream, bytes, pieces[i]);
    }
    ck_assert_int_eq(stream_flush(&file.stream), 0);
    free(bytes);
    stream_fd_finish(&file);
    close(peer->fd);
}

static void read_pieces(struct stream *stream)
{
    uint8_t *bytes = malloc(300000);
    size_t at = 0;

    for (size_t i = array_size(pieces); i-- > 0;) { /* in another rhythm than they were written */
        stream_read(stream, bytes, pieces[i]);
        for (size_t j = 0; j < pieces[i]; j++, at++)
            if (bytes[j] != (uint8_t)(at ^ at >> 8))
                ck_abort_msg("byte %zu has changed", at);
    }
    ck_assert_int_eq(stream_error(stream), 0);
    ck_assert_uint_eq(stream->position, at);
    ck_assert_uint_eq(stream_get_u8(stream), 0);
    ck_assert_int_eq(stream_error(stream), -ENODATA);
    free(bytes);
}

static const int pair_types[] = {SOCK_STREAM, 0};

START_TEST(pieces_of_every_size_pass_sockets_and_pipes)
{
    struct peer peer = {0};
    int fds[2];

    open_pair(pair_types[_i], fds);
    peer.fd = fds[1];
    ck_assert_int_eq(thread_start(&peer.thread, "writer", write_pieces, &peer, NULL), 0);
    struct stream_fd file = open_stream(fds[0]);
    read_pieces(&file.stream);
    thread_join(&peer.thread);
    stream_fd_finish(&file);
    close(fds[0]);
}
END_TEST

START_TEST(pieces_of_every_size_pass_a_file)
{
    struct peer peer = {0};
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    peer.fd = dup(fd);
    write_pieces(&peer);
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    struct stream_fd file = open_stream(fd);
    read_pieces(&file.stream);
    stream_fd_finish(&file);
    close(fd);
}
END_TEST

START_TEST(a_peer_that_left_is_an_error_and_no_signal)
{
    int fds[2];

    signal(SIGPIPE, SIG_DFL); /* would end the test */
    open_pair(SOCK_STREAM, fds);
    struct stream_fd file = open_stream(fds[0]);
    close(fds[1]);
    stream_put_u8(&file.stream, 1);
    ck_assert_int_eq(stream_flush(&file.stream), -EPIPE);
    ck_assert_int_eq(stream_flush(&file.stream), -EPIPE);
    stream_fd_finish(&file);
    close(fds[0]);

    signal(SIGPIPE, SIG_IGN); /* what callers with pipes have to do */
    open_pair(0, fds);
    file = open_stream(fds[1]);
    close(fds[0]);
    stream_put_u8(&file.stream, 1);
    ck_assert_int_eq(stream_flush(&file.stream), -EPIPE);
    stream_fd_finish(&file);
    close(fds[1]);
}
END_TEST

START_TEST(a_message_that_ends_too_early_is_no_data)
{
    int fds[2];

    open_pair(SOCK_STREAM, fds);
    ck_assert_int_eq(write(fds[1], "abc", 3), 3);
    close(fds[1]);
    struct stream_fd file = open_stream(fds[0]);
    ck_assert_uint_eq(stream_get_u32(&file.stream), 0);
    ck_assert_int_eq(stream_error(&file.stream), -ENODATA);
    stream_fd_finish(&file);
    close(fds[0]);
}
END_TEST

START_TEST(a_time_limit_on_the_socket_is_a_timeout)
{
    struct timeval limit = {.tv_usec = 1000};
    int fds[2];

    open_pair(SOCK_STREAM, fds);
    ck_assert_int_eq(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    struct stream_fd file = open_stream(fds[0]);
    ck_assert_uint_eq(stream_get_u8(&file.stream), 0);
    ck_assert_int_eq(stream_error(&file.stream), -ETIMEDOUT);
    stream_fd_finish(&file);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

static void handle_alarm(int number)
{
}

START_TEST(signals_do_not_tear_a_transfer)
{
    struct sigaction action = {.sa_handler = handle_alarm}; /* no SA_RESTART */
    struct itimerval often = {.it_interval.tv_usec = 200, .it_value.tv_usec = 200};
    struct itimerval never = {0};
    struct peer peer = {0};
    int fds[2];

    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    open_pair(SOCK_STREAM, fds);
    peer.fd = fds[1];
    ck_assert_int_eq(thread_start(&peer.thread, "writer", write_pieces, &peer, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    struct stream_fd file = open_stream(fds[0]);
    read_pieces(&file.stream);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    thread_join(&peer.thread);
    stream_fd_finish(&file);
    close(fds[0]);
}
END_TEST

START_TEST(a_closed_descriptor_is_refused)
{
    struct stream_fd file;
    ck_assert_int_eq(stream_fd_init(&file, -1), -EBADF);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream");
    TCase *crc = tcase_create("crc32c");
    TCase *buffer = tcase_create("buffer");
    TCase *file = tcase_create("descriptor");

    tcase_add_test(crc, crc32c_agrees_with_the_rfc);
    tcase_add_test(crc, crc32c_is_the_same_with_and_without_the_instruction);
    tcase_add_test(crc, crc32c_in_pieces_is_crc32c_of_the_whole);
    tcase_add_test(crc, crc32c_copy_sums_what_it_copies);
    tcase_add_test(crc, crc32c_copy_sums_its_copy_while_somebody_writes);
    suite_add_tcase(suite, crc);

    tcase_add_test(buffer, numbers_are_little_endian_and_come_back);
    tcase_add_test(buffer, buffer_grows_as_it_is_written);
    tcase_add_test(buffer, write_past_the_limit_fails_and_leaves_nothing);
    tcase_add_test(buffer, read_past_the_end_gives_zeroes_and_a_sticky_error);
    tcase_add_test(buffer, borrowed_bytes_cannot_be_written);
    tcase_add_test(buffer, first_verdict_stands);
    tcase_add_test(buffer, checksum_covers_what_passed_since_its_start);
    suite_add_tcase(suite, buffer);

    tcase_add_test(file, small_writes_leave_with_the_flush);
    tcase_add_loop_test(file, pieces_of_every_size_pass_sockets_and_pipes, 0, 2);
    tcase_add_test(file, pieces_of_every_size_pass_a_file);
    tcase_add_test(file, a_peer_that_left_is_an_error_and_no_signal);
    tcase_add_test(file, a_message_that_ends_too_early_is_no_data);
    tcase_add_test(file, a_time_limit_on_the_socket_is_a_timeout);
    tcase_add_test(file, signals_do_not_tear_a_transfer);
    tcase_add_test(file, a_closed_descriptor_is_refused);
    suite_add_tcase(suite, file);
    return unit_main(suite);
}
