/* SPDX-License-Identifier: MIT */
/*
 * What a stranger says on a new connection (host/link.c): its greeting, and the handshake after it.
 * The first byte of the input says who we are and what we allow, the rest is what the stranger
 * says, before it hangs up. Checked, besides what the sanitizers see: only a greeting that is right
 * makes a link, and never one with a key; whoever is refused hears a sentence that is only text;
 * what follows the greeting arrives unchanged, and then its end.
 */
#include "host/link_parts.h"
#include "tests/fuzz/program.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { ACCEPTING = 1, WITH_KEY = 2, INSECURE = 4, GREETING = 16, MOST = 1 << 16 };
enum { CONNECTED = 1, ACCEPTED = 2, PLAIN = 1 };

static void check_text(const char *text)
{
    for (const char *at = text; *at; at++)
        require((unsigned char)*at >= ' ' && *at != 0x7f);
}

/* As the rules in link.c have it. */
static bool is_right(const uint8_t *greeting, size_t length, uint8_t flags)
{
    uint8_t who = flags & ACCEPTING ? CONNECTED : ACCEPTED;

    return length >= GREETING && memcmp(greeting, "minivmm\0\1", 9) == 0 && greeting[9] == who &&
           greeting[10] == PLAIN && !(flags & WITH_KEY) && flags & INSECURE;
}

static void read_all(struct link *link, const uint8_t *said, size_t length)
{
    uint8_t got[512];
    struct stream *stream = link_reader(link);

    for (size_t at = 0; at < length;) {
        size_t piece = length - at < sizeof(got) ? length - at : sizeof(got);
        stream_read(stream, got, piece);
        require(stream_error(stream) == 0 && memcmp(got, said + at, piece) == 0);
        at += piece;
    }
    stream_read(stream, got, 1);
    require(stream_error(stream) == -ENODATA);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const struct link_key key = {.bytes = {1, 2, 3}};
    struct program program = {.at = bytes, .left = length < MOST ? length : MOST};
    uint8_t flags = take(&program);
    /* An address that is no host's is no loopback: plain only where that is allowed. */
    const struct link_config config = {
        .key = flags & WITH_KEY ? &key : NULL, .insecure = flags & INSECURE, .timeout_ms = 10000};
    struct link *link = NULL;
    struct err err = {0};
    int ends[2];

    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    require(send(ends[1], program.at, program.left, MSG_DONTWAIT) == (ssize_t)program.left);
    require(shutdown(ends[1], SHUT_WR) == 0);
    int ret = link_start(&link, ends[0], flags & ACCEPTING, &config, &err);
    if (flags & ACCEPTING && program.left >= GREETING &&
        (program.at[11] == LINK_FIRST || program.at[11] == LINK_ANOTHER)) {
        /* It has to say more, and is no ordinary link: what it may be is judged in fuzz_paths. */
        require(ret < 0 || is_right(program.at, program.left, flags));
        link_destroy(ret == 0 ? link : NULL);
        close(ends[1]);
        return 0;
    }
    require((ret == 0) == is_right(program.at, program.left, flags));
    if (ret == 0) {
        read_all(link, program.at + GREETING, program.left - GREETING);
        link_destroy(link);
    } else {
        require(!link && err.kind != ERR_NONE && err.text[0]);
        check_text(err.text);
        check_text(err.hint);
    }
    close(ends[1]);
    return 0;
}
