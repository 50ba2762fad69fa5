/* SPDX-License-Identifier: MIT */
/* Who follows a VM, played by a test: it listens, reads what comes, and says what it likes. */
#pragma once

#include "core/clock.h"
#include "ft/following.h"
#include "ft/resync_talk.h"
#include "host/link.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TWIN_PATIENCE_MS = 60000, TWIN_NODE = 12 };

static struct {
    int listener;
    char address[80];
    struct link *link;
    int fd;                       /* the link's */
    struct stream_buffer payload; /* of the last frame that came */
    struct frame_tally tally;
    struct following following;        /* what it was told */
    struct ft_word heard[FT_TAKE + 1]; /* the last one of each kind; kind 0: none */
    uint64_t epoch;                    /* the last whole one */
    unsigned calls;
    bool slow; /* what is to be stored is only where a test says so */
} twin;

static inline void twin_listen(void)
{
    struct sockaddr_in at;
    socklen_t length = sizeof(at);
    twin.link = NULL;
    twin.calls = 0;
    twin.epoch = 0;
    twin.slow = false;
    stream_buffer_init(&twin.payload, 0);
    ck_assert_int_eq(link_listen(&twin.listener, "127.0.0.1:0", NULL), 0);
    ck_assert_int_eq(getsockname(twin.listener, (struct sockaddr *)&at, &length), 0);
    snprintf(twin.address, sizeof(twin.address), "127.0.0.1:%u", ntohs(at.sin_port));
}

static inline void twin_hang_up(void)
{
    link_destroy(twin.link);
    twin.link = NULL;
}

static inline void twin_finish(void)
{
    twin_hang_up();
    close(twin.listener);
    stream_buffer_finish(&twin.payload);
}

/* The socket of who calls. */
static inline int twin_be_called(void)
{
    struct pollfd poll_fd = {.fd = twin.listener, .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, TWIN_PATIENCE_MS), 1);
    int fd = accept(twin.listener, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static inline void twin_accept(void)
{
    const struct link_config config = {.insecure = true, .timeout_ms = TWIN_PATIENCE_MS};
    struct err err = {0};
    twin_hang_up();
    memset(twin.heard, 0, sizeof(twin.heard));
    twin.tally = (struct frame_tally){0};
    twin.fd = twin_be_called();
    ck_assert_msg(link_accept(&twin.link, twin.fd, &config, &err) == 0, "%s", err.text);
    twin.calls++;
}

/* Nobody reads, and no more comes than at the last look. */
static inline bool twin_stands_still(int *before)
{
    int last = *before;
    ck_assert_int_eq(ioctl(twin.fd, FIONREAD, before), 0);
    return *before > 0 && *before == last;
}

/* --- what it says ----------------------------------------------------------------------------- */

/* A frame of any kind. */
static inline void twin_put(enum frame_kind kind, const void *bytes, size_t length)
{
    moving_put(link_writer(twin.link), kind, bytes, length);
    (void)!stream_flush(link_writer(twin.link));
}

static inline void twin_say(enum ft_word_kind kind, uint64_t epoch)
{
    const struct ft_word word = {kind, twin.following.generation, epoch};
    following_put_word(link_writer(twin.link), &word);
    (void)!stream_flush(link_writer(twin.link));
}

static inline void twin_say_stored(void)
{
    moving_put_ack(link_writer(twin.link), FRAME_STORED);
    (void)!stream_flush(link_writer(twin.link));
}

static inline void twin_say_nonsense(void)
{
    static const char nonsense[100] = "GET / HTTP/1.1\r\n\r\n";
    stream_write(link_writer(twin.link), nonsense, sizeof(nonsense));
    (void)!stream_flush(link_writer(twin.link));
}

static inline void twin_say_error(void)
{
    struct err err = {0};
    err_say(&err, ERR_HOST, ENOSPC, "its disk is full there");
    moving_put_error(link_writer(twin.link), &err);
    (void)!stream_flush(link_writer(twin.link));
}

/* Under a number that it never had before. */
static inline void twin_put_welcome(uint64_t node)
{
    following_put_welcome(link_writer(twin.link), node, 100 + twin.calls);
    (void)!stream_flush(link_writer(twin.link));
}

static inline void twin_welcome(void)
{
    const struct resync_base base = {.why = "nothing of it was here"};
    twin_put_welcome(TWIN_NODE);
    resync_put_base(link_writer(twin.link), &base);
    ck_assert_int_eq(stream_flush(link_writer(twin.link)), 0);
}

/* --- what comes ------------------------------------------------------------------------------- */

static inline int twin_note(const struct frame *frame)
{
    struct ft_word word;
    if (frame->kind == FRAME_FOLLOW)
        return following_get(&twin.payload, &twin.following, NULL);
    if (frame->kind != FRAME_WORD)
        return 0;
    int ret = following_get_word(&twin.payload, &word, NULL);
    if (ret == 0)
        twin.heard[word.kind] = word;
    return ret;
}

/* The next frame; its bytes are whole, and so is an epoch where it ends one. */
static inline int twin_read(struct frame *ret_frame, struct err *err)
{
    struct stream *stream = link_reader(twin.link);
    int ret = frame_read_head(stream, ret_frame, err);
    struct frame_tally *tally = ret == 0 && ret_frame->epoch ? &twin.tally : NULL;
    if (ret == 0)
        ret = frame_read_rest(stream, ret_frame, &twin.payload, tally, err);
    if (ret == 0 && ret_frame->kind == FRAME_COMMIT) {
        twin.tally = (struct frame_tally){0};
        twin.epoch = ret_frame->epoch;
    }
    if (ret == 0 && ret_frame->kind == FRAME_ROUND && !twin.slow)
        twin_say_stored();
    return ret == 0 ? twin_note(ret_frame) : ret;
}

/* Beats come all the time. */
static inline struct frame twin_expect(enum frame_kind kind)
{
    uint64_t until = clock_monotonic_ns() + TWIN_PATIENCE_MS * 1000000ull;
    struct frame frame;
    struct err err = {0};
    do {
        ck_assert_msg(twin_read(&frame, &err) == 0, "no %s: %s", frame_name(kind), err.text);
        ck_assert_msg(clock_monotonic_ns() < until, "%s never comes", frame_name(kind));
    } while (frame.kind != kind);
    return frame;
}

/* Whatever else comes before. */
static inline struct ft_word twin_expect_word(enum ft_word_kind kind)
{
    uint64_t until = clock_monotonic_ns() + TWIN_PATIENCE_MS * 1000000ull;
    twin.heard[kind] = (struct ft_word){0};
    for (; twin.heard[kind].kind != kind; twin_expect(FRAME_WORD))
        ck_assert_msg(clock_monotonic_ns() < until, "word %d never comes", kind);
    return twin.heard[kind];
}

/* The number of the next whole one. */
static inline uint64_t twin_expect_epoch(void)
{
    struct frame frame = twin_expect(FRAME_COMMIT);
    ck_assert_uint_eq(frame.generation, twin.following.generation);
    return frame.epoch;
}
