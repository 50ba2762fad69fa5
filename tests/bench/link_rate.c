/* SPDX-License-Identifier: MIT */
/*
 * How fast a link is over the loopback, plain and with TLS, against a TCP connection that is
 * written and read with the same sizes and nothing else. One direction, two threads of one process;
 * the kinds take turns. Prints the median of the rounds, and the lowest and highest.
 *
 * With "memory" all of a round's bytes lie in memory of their own, and go into memory that nobody
 * has touched: what a copy of as much memory to another process costs at least.
 *
 * usage: link_rate [MIB-PER-ROUND [ROUNDS [BYTES [memory [KIND]]]]]    (512, 7, writes of three
 * sizes; KIND is a part of a kind's name)
 */
#include "core/clock.h"
#include "core/thread.h"
#include "host/link.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TCP, PLAIN, TLS, KINDS, ROUNDS_MAX = 99 };

static const char *const kind_names[] = {"TCP alone", "plain link", "link with TLS"};
static const size_t sizes[] = {4096, 65536, 1 << 20};

struct round {
    struct thread thread;
    unsigned kind;
    int listener, socket;
    struct link *link;
    struct link_config config;
    size_t size;
    uint64_t count;
    size_t step; /* from the bytes of one write to those of the next; 0: always the same */
    uint8_t *bytes;
};

static void give_up(const struct err *err, const char *what)
{
    fprintf(stderr, "link_rate: %s\n", err && err->text[0] ? err->text : what);
    exit(EXIT_FAILURE);
}

/* Untouched, and aligned for huge pages, as a VM's memory is. */
static uint8_t *make_bytes(const struct round *round)
{
    const size_t huge = 2 << 20;
    size_t size = round->step ? round->count * round->size : round->size;
    uint8_t *bytes = aligned_alloc(huge, (size + huge - 1) / huge * huge);

    if (!bytes)
        give_up(NULL, "no memory");
    (void)madvise(bytes, size, MADV_HUGEPAGE);
    return bytes;
}

static uint8_t *bytes_of(const struct round *round, uint8_t *bytes, uint64_t number)
{
    return bytes + number * round->step;
}

static void receive(void *arg)
{
    struct round *round = arg;
    struct err err = {0};
    uint8_t *bytes = make_bytes(round);
    uint64_t total = round->count * round->size;

    int fd = accept(round->listener, NULL, NULL);
    if (fd < 0)
        give_up(NULL, "nobody connected");
    if (round->kind == TCP) {
        for (uint64_t done = 0, n; done < total; done += n) {
            uint64_t at = done % round->size;
            ssize_t got = recv(fd, bytes_of(round, bytes, done / round->size) + at,
                               round->size - at, 0);
            if (got <= 0)
                give_up(NULL, "TCP broke");
            n = (uint64_t)got;
        }
        (void)send(fd, "", 1, MSG_NOSIGNAL);
        close(fd);
    } else {
        struct link *link;
        if (link_accept(&link, fd, &round->config, &err) < 0)
            give_up(&err, "");
        for (uint64_t i = 0; i < round->count; i++)
            stream_read(link_reader(link), bytes_of(round, bytes, i), round->size);
        stream_put_u8(link_writer(link), 1);
        if (stream_error(link_reader(link)) < 0 || stream_flush(link_writer(link)) < 0)
            give_up(NULL, "the link broke");
        link_destroy(link);
    }
    free(bytes);
}

static void send_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n <= 0)
            give_up(NULL, "TCP broke");
        bytes += n;
        length -= (size_t)n;
    }
}

/* Seconds until the last byte was received, and the receiver has said so. */
static double transfer(struct round *round)
{
    uint64_t begin = clock_monotonic_ns();

    if (round->kind == TCP) {
        char byte;
        for (uint64_t i = 0; i < round->count; i++)
            send_all(round->socket, bytes_of(round, round->bytes, i), round->size);
        if (recv(round->socket, &byte, 1, 0) != 1)
            give_up(NULL, "TCP broke");
    } else {
        struct stream *writer = link_writer(round->link);
        for (uint64_t i = 0; i < round->count; i++)
            stream_write(writer, bytes_of(round, round->bytes, i), round->size);
        if (stream_flush(writer) < 0 || stream_get_u8(link_reader(round->link)) != 1)
            give_up(NULL, "the link broke");
    }
    return (double)(clock_monotonic_ns() - begin) / NS_PER_SEC;
}

static double measure(unsigned kind, size_t size, uint64_t bytes, bool memory)
{
    static const struct link_key key = {.bytes = {1}};
    struct round round = {
        .kind = kind, .size = size, .count = bytes / size, .step = memory ? size : 0, .socket = -1};
    struct sockaddr_in to;
    socklen_t length = sizeof(to);
    struct err err = {0};
    char address[32];

    round.config.key = kind == TLS ? &key : NULL;
    round.bytes = make_bytes(&round);
    memset(round.bytes, 0xa5, memory ? round.count * size : size);
    if (link_listen(&round.listener, "127.0.0.1:0", &err) < 0 ||
        getsockname(round.listener, (struct sockaddr *)&to, &length) < 0 ||
        thread_start(&round.thread, "receive", receive, &round, &err) < 0)
        give_up(&err, "no socket");
    snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(to.sin_port));
    if (kind == TCP) {
        round.socket = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(round.socket, (struct sockaddr *)&to, length) < 0)
            give_up(NULL, "cannot connect");
    } else if (link_connect(&round.link, address, &round.config, &err) < 0) {
        give_up(&err, "");
    }
    double seconds = transfer(&round);
    thread_join(&round.thread);
    link_destroy(round.link);
    if (round.socket >= 0)
        close(round.socket);
    close(round.listener);
    free(round.bytes);
    return (double)(round.count * size) / seconds / (1 << 20);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 512;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 7;
    size_t only = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    bool memory = argc > 4 && strcmp(argv[4], "memory") == 0;
    const char *wanted = argc > 5 ? argv[5] : "";

    signal(SIGPIPE, SIG_IGN);
    if (mib < 1 || mib > 1 << 20 || rounds < 1 || rounds > ROUNDS_MAX || only > mib << 20)
        give_up(NULL, "usage: link_rate [MIB-PER-ROUND [ROUNDS [BYTES [memory [KIND]]]]]");
    printf("MiB/s over the loopback, median of %u rounds of %u MiB (lowest to highest)\n", rounds,
           (unsigned)mib);
    for (size_t i = 0; i < (only ? 1 : array_size(sizes)); i++) {
        double rates[KINDS][ROUNDS_MAX];
        size_t size = only ? only : sizes[i];
        for (unsigned round = 0; round < rounds; round++)
            for (unsigned kind = 0; kind < KINDS; kind++)
                if (strstr(kind_names[kind], wanted))
                    rates[kind][round] = measure(kind, size, mib << 20, memory);
        for (unsigned kind = 0; kind < KINDS; kind++) {
            if (!strstr(kind_names[kind], wanted))
                continue;
            qsort(rates[kind], rounds, sizeof(double), compare);
            printf("%7u bytes  %-14s %7.0f  (%.0f to %.0f)\n", (unsigned)size, kind_names[kind],
                   rates[kind][rounds / 2], rates[kind][0], rates[kind][rounds - 1]);
        }
    }
    return EXIT_SUCCESS;
}
