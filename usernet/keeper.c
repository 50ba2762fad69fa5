/* SPDX-License-Identifier: MIT */
/*
 * The worker cannot see the host's files, yet must follow its name servers: a laptop meets new ones
 * every day. So the keeper looks at /etc/resolv.conf every two seconds and sends its nameserver
 * lines, and nothing else of it, when they have changed. Looking beats inotify here: the file may
 * be a link, to a place that is not there yet, and is mostly replaced, not written.
 */
#include "usernet/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_SIZE = 16384, TEXT_SIZE = 2048, LOOK_MS = 2000 };

/* Where its two descriptors are, above stderr. */
enum { CHANNEL = 3, PIDFD = 4 };

static size_t read_file(char *text, size_t size)
{
    size_t length = 0;
    /* A FIFO in its place must not hang us. */
    int fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd >= 0 && length < size) {
        ssize_t n = read(fd, text + length, size - length);
        if (n <= 0)
            break;
        length += (size_t)n;
    }
    if (fd >= 0)
        close(fd);
    return length;
}

/* The nameserver lines; at least one byte, since an empty message would mean the end. */
static size_t read_servers(char servers[TEXT_SIZE])
{
    static const char word[] = "nameserver";
    char text[FILE_SIZE];
    size_t length = read_file(text, sizeof(text)), used = 0;
    for (size_t at = 0; at < length;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t line = newline ? (size_t)(newline - text) - at : length - at;
        if (line >= sizeof(word) && memcmp(text + at, word, sizeof(word) - 1) == 0 &&
            used + line + 1 < TEXT_SIZE) {
            memcpy(servers + used, text + at, line);
            used += line;
            servers[used++] = '\n';
        }
        at += line + 1;
    }
    if (!used)
        servers[used++] = '\n';
    return used;
}

_Noreturn static void end_like(pid_t worker)
{
    siginfo_t info = {0};
    while (waitid(P_PID, (id_t)worker, &info, WEXITED) < 0)
        if (errno != EINTR)
            _exit(1);
    _exit(info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
}

void keeper_run(pid_t worker, int channel)
{
    char sent[TEXT_SIZE], servers[TEXT_SIZE];
    size_t sent_length = 0;
    int pidfd = pidfd_open(worker, 0);

    /* What the worker holds is its alone: forwarded ports are free when it is gone, and the VMM
     * hears it at once. */
    if (pidfd < 0 || dup2(channel, CHANNEL) < 0 || dup2(pidfd, PIDFD) < 0 ||
        close_range(PIDFD + 1, ~0U, 0) < 0 || sandbox_drop_privileges() < 0 ||
        sandbox_limit_calls_of_keeper() < 0)
        _exit(1); /* and the worker with us */
    struct pollfd end = {.fd = PIDFD, .events = POLLIN};
    for (;;) {
        size_t length = read_servers(servers);
        if ((length != sent_length || memcmp(servers, sent, length) != 0) &&
            send(CHANNEL, servers, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length) {
            memcpy(sent, servers, length);
            sent_length = length;
        }
        if (poll(&end, 1, LOOK_MS) > 0)
            end_like(worker);
    }
}
