/* SPDX-License-Identifier: MIT */
/*
 * Streams of bytes over TCP, vsock and Unix sockets, checked at their end, and what the tests want
 * to know or do about network devices.
 *
 * A client begins with a struct order. Push: then so many bytes, and the server answers with a
 * struct answer. Pull: the server sends so many bytes, and the answer behind them.
 */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PIECE = 256 << 10, ORDER_MAGIC = 0x42504d56 };

struct order {
    uint32_t magic;
    uint32_t is_pull;
    uint64_t length, seed;
};

struct answer {
    uint64_t length; /* received, or sent */
    uint64_t good;   /* of them before the first wrong one */
};

/* --- addresses ---------------------------------------------------------------------------- */

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_vm vm;
    struct sockaddr_un un;
};

/* "tcp:10.0.2.2:80", and "tcp:80" to listen. Returns the address's length. */
static socklen_t parse_address(const char *text, union address *ret)
{
    char host[200] = "";
    unsigned port = 0;
    memset(ret, 0, sizeof(*ret));
    if (sscanf(text, "tcp:%199[^:]:%u", host, &port) == 2 || sscanf(text, "tcp:%u", &port) == 1 ||
        sscanf(text, "udp:%199[^:]:%u", host, &port) == 2 || sscanf(text, "udp:%u", &port) == 1) {
        bool listens = port && strchr(text, ':') == strrchr(text, ':');
        ret->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        if (!listens && inet_pton(AF_INET, host, &ret->in.sin_addr) != 1)
            die(0, "%s is no IPv4 address", host);
        return sizeof(ret->in);
    }
    unsigned cid = VMADDR_CID_ANY;
    if (sscanf(text, "vsock:%u:%u", &cid, &port) == 2 || sscanf(text, "vsock:%u", &port) == 1) {
        if (strchr(text, ':') == strrchr(text, ':'))
            cid = VMADDR_CID_ANY;
        ret->vm = (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_port = port, .svm_cid = cid};
        return sizeof(ret->vm);
    }
    if (strncmp(text, "unix:", 5) == 0) {
        ret->un.sun_family = AF_UNIX;
        snprintf(ret->un.sun_path, sizeof(ret->un.sun_path), "%s", text + 5);
        return sizeof(ret->un);
    }
    die(0, "%s is no address", text);
}

void stream_write(int fd, const void *data, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t count = write(fd, (const char *)data + at, length - at);
        if (count <= 0)
            die(errno, "sending");
        at += (size_t)count;
    }
}

/* False when the stream ended before. */
bool stream_read(int fd, void *data, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t count = read(fd, (char *)data + at, length - at);
        if (count < 0)
            die(errno, "receiving");
        if (count == 0)
            return false;
        at += (size_t)count;
    }
    return true;
}

/* The host's side of a VM's vsock: "CONNECT port" is answered by "OK port". */
static void ask_for_port(int fd, const char *port)
{
    char line[64];
    stream_write(fd, line, (size_t)snprintf(line, sizeof(line), "CONNECT %s\n", port));
    size_t length = 0;
    do {
        if (length == sizeof(line) - 1 || !stream_read(fd, line + length, 1))
            die(0, "no answer to CONNECT %s", port);
    } while (line[length++] != '\n');
    line[length - 1] = '\0';
    if (strncmp(line, "OK ", 3) != 0)
        die(0, "CONNECT %s was answered by: %s", port, line);
}

int stream_connect(const char *text)
{
    char word[256];
    snprintf(word, sizeof(word), "%s", text);
    char *port = strncmp(word, "unix:", 5) == 0 ? strchr(word, ',') : NULL;
    if (port)
        *port++ = '\0';
    union address address;
    socklen_t length = parse_address(word, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &address.any, length) < 0)
        die(errno, "cannot connect to %s", text);
    if (port)
        ask_for_port(fd, port);
    return fd;
}

/* --- data --------------------------------------------------------------------------------- */

/* How it is sent: pause in us after each piece; until a file is there. */
struct pace {
    useconds_t pause;
    const char *until;
};

/* How many bytes it were. */
static uint64_t send_stream(int fd, uint64_t length, uint64_t seed, const struct pace *pace)
{
    static uint8_t piece[PIECE];
    uint64_t at = 0;
    while (at < length && !(pace && pace->until && access(pace->until, F_OK) == 0)) {
        size_t part = length - at < PIECE ? (size_t)(length - at) : PIECE;
        if (seed)
            pattern_fill(piece, part, seed, at);
        stream_write(fd, piece, part);
        at += part;
        if (pace && pace->pause)
            usleep(pace->pause);
    }
    return at;
}

/* As much as one read gives, but whole words for the check, unless it is the end. */
static size_t read_piece(int fd, uint8_t *piece, size_t room)
{
    ssize_t count = read(fd, piece, room);
    if (count < 0)
        die(errno, "receiving");
    size_t length = (size_t)count, missing = (8 - length % 8) % 8;
    if (missing > room - length)
        missing = room - length;
    return length + (missing && stream_read(fd, piece + length, missing) ? missing : 0);
}

/* Reads until all has come, or the end. */
static struct answer receive_stream(int fd, uint64_t length, uint64_t seed)
{
    static uint8_t piece[PIECE];
    struct answer answer = {0};
    while (answer.length < length) {
        uint64_t rest = length - answer.length;
        size_t count = read_piece(fd, piece, rest < PIECE ? (size_t)rest : PIECE);
        if (count == 0)
            break;
        if (answer.good == answer.length)
            answer.good += seed ? pattern_check(piece, count, seed, answer.length) : count;
        answer.length += count;
    }
    return answer;
}

static void serve_one(int fd, const char *what)
{
    (void)what;
    struct order order;
    if (!stream_read(fd, &order, sizeof(order)) || order.magic != ORDER_MAGIC)
        _exit(1);
    struct answer answer = {.length = order.length, .good = order.length};
    if (order.is_pull)
        (void)send_stream(fd, order.length, order.seed, NULL);
    else
        answer = receive_stream(fd, order.length, order.seed);
    stream_write(fd, &answer, sizeof(answer));
}

void stream_serve(const char *where, void (*serve)(int fd, const char *what), const char *what)
{
    union address address;
    socklen_t length = parse_address(where, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    if (address.any.sa_family == AF_UNIX)
        unlink(address.un.sun_path);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, &address.any, length) < 0 || listen(fd, 16) < 0)
        die(errno, "cannot serve %s", where);
    printf("serving\n");
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0 && errno != EINTR)
            die(errno, "accept");
        if (connection >= 0 && fork() == 0) {
            serve(connection, what);
            _exit(0);
        }
        close(connection);
    }
}

int verb_serve(char **words)
{
    stream_serve(words[0], serve_one, NULL);
}

static int exchange(char **words, bool is_pull)
{
    if (!words[1])
        die(0, "how many bytes?");
    options_check(words + 2, "seed pause until");
    const struct pace pace = {.pause = (useconds_t)read_size(option(words, "pause", "0")),
                              .until = option(words, "until", NULL)};
    struct order order = {.magic = ORDER_MAGIC,
                          .is_pull = is_pull,
                          .length = read_size(words[1]),
                          .seed = read_size(option(words, "seed", "1"))};
    signal(SIGPIPE, SIG_IGN);
    int fd = stream_connect(words[0]);
    double begin = seconds_now();
    uint64_t sent = order.length;
    struct answer mine = {.length = order.length, .good = order.length}, theirs;
    stream_write(fd, &order, sizeof(order));
    if (is_pull)
        mine = receive_stream(fd, order.length, order.seed);
    else
        sent = send_stream(fd, order.length, order.seed, &pace);
    if (sent < order.length)
        shutdown(fd, SHUT_WR);
    if (!stream_read(fd, &theirs, sizeof(theirs)))
        die(0, "the other end left after %llu bytes", (unsigned long long)mine.length);
    double took = seconds_now() - begin;
    struct answer *receiver = is_pull ? &mine : &theirs;
    if (receiver->length != sent || receiver->good != sent)
        die(0, "%llu bytes of %llu came, the first wrong one is number %llu",
            (unsigned long long)receiver->length, (unsigned long long)sent,
            (unsigned long long)receiver->good);
    printf("%s: %llu bytes in %.3f s\n", is_pull ? "pull" : "push", (unsigned long long)sent, took);
    return 0;
}

int verb_push(char **words)
{
    return exchange(words, false);
}

int verb_pull(char **words)
{
    return exchange(words, true);
}

/* --- datagrams ---------------------------------------------------------------------------- */

int verb_beat(char **words)
{
    union address address;
    socklen_t length = parse_address(words[0], &address);
    options_check(words + 1, "us");
    useconds_t pause = (useconds_t)read_size(option(words, "us", "2000"));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (;;) {
        /* One that cannot be sent is one that does not come. */
        (void)!sendto(fd, "beat", 4, 0, &address.any, length);
        usleep(pause);
    }
}

int verb_hear(char **words)
{
    union address address;
    socklen_t length = parse_address(words[0], &address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    double before = 0, longest = 0;
    char beat[64];
    if (fd < 0 || bind(fd, &address.any, length) < 0)
        die(errno, "cannot hear %s", words[0]);
    while (recv(fd, beat, sizeof(beat), 0) >= 0) {
        double now = seconds_now();
        if (before == 0)
            printf("hearing\n");
        else if (now - before > longest)
            printf("longest gap %.2f ms\n", (longest = now - before) * 1e3);
        before = now;
    }
    die(errno, "receiving");
}

/* --- network devices ---------------------------------------------------------------------- */

static void set_name(struct ifreq *request, const char *name)
{
    if (strlen(name) >= IFNAMSIZ)
        die(0, "%s is too long a name", name);
    memset(request, 0, sizeof(*request));
    memcpy(request->ifr_name, name, strlen(name));
}

int verb_offloads(char **words)
{
    static const struct {
        const char *name;
        uint32_t command;
    } features[] = {{"rx-checksum", ETHTOOL_GRXCSUM},
                    {"tx-checksum", ETHTOOL_GTXCSUM},
                    {"tso", ETHTOOL_GTSO},
                    {"gso", ETHTOOL_GGSO},
                    {"gro", ETHTOOL_GGRO}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        struct ethtool_value value = {.cmd = features[i].command};
        struct ifreq request;
        set_name(&request, words[0]);
        request.ifr_data = (void *)&value;
        if (ioctl(fd, SIOCETHTOOL, &request) < 0)
            die(errno, "%s", words[0]);
        printf("%s %s\n", features[i].name, value.data ? "on" : "off");
    }
    close(fd);
    return 0;
}

int verb_tap(char **words)
{
    bool multi = words[1] && strcmp(words[1], "multi") == 0;
    struct ifreq request;
    set_name(&request, words[0]);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi ? IFF_MULTI_QUEUE : 0));
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0)
        die(errno, "cannot make the tap %s", words[0]);
    close(fd);
    return 0;
}
