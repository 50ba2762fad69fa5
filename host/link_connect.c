/* SPDX-License-Identifier: MIT */
#include "host/link_parts.h"

#include "core/clock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who has a port. */

enum { TABLE_FIELDS = 10 }; /* of a line of /proc/net/tcp: 1 own address, 3 state, 9 inode */

static unsigned long inode_of_listener(char *line, unsigned port)
{
    char *fields[TABLE_FIELDS], *state = NULL;

    for (size_t i = 0; i < TABLE_FIELDS; i++, line = NULL)
        if (!(fields[i] = strtok_r(line, " \n", &state)))
            return 0;
    const char *colon = strrchr(fields[1], ':');
    if (!colon || strtoul(colon + 1, NULL, 16) != port || strcmp(fields[3], "0A") != 0)
        return 0;
    return strtoul(fields[9], NULL, 10);
}

/* The inode of the socket that listens at the port; 0: none does. */
static unsigned long find_listener(const char *table, unsigned port)
{
    FILE *file = fopen(table, "re");
    char line[512];
    unsigned long found = 0;

    while (file && !found && fgets(line, sizeof(line), file))
        found = inode_of_listener(line, port);
    if (file)
        fclose(file);
    return found;
}

static bool has_open(const char *pid, const char *link)
{
    char path[64], target[64];

    snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return false; /* another user's, or gone */
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(folder));) {
        ssize_t n = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (n > 0) {
            target[n] = 0;
            found = strcmp(target, link) == 0;
        }
    }
    closedir(folder);
    return found;
}

/* "nginx, pid 123"; false where we may not know. Reads all of /proc: for telling a person. */
static bool find_owner(unsigned port, char *ret_text, size_t size)
{
    unsigned long inode = find_listener("/proc/net/tcp", port);
    char link[64], path[64], name[64] = "";

    if (!inode)
        inode = find_listener("/proc/net/tcp6", port);
    DIR *folder = inode ? opendir("/proc") : NULL;
    if (!folder)
        return false;
    snprintf(link, sizeof(link), "socket:[%lu]", inode);
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && has_open(entry->d_name, link))
            break;
    if (entry) {
        snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file))
            name[strcspn(name, "\n")] = 0;
        if (file)
            fclose(file);
        snprintf(ret_text, size, "%s, pid %.16s", name, entry->d_name);
    }
    closedir(folder);
    return entry != NULL;
}

/* Listening. */

static int say_not_listening(int error, const char *text, const char *port, struct err *err)
{
    char owner[96];

    if (error == EADDRINUSE && find_owner((unsigned)strtoul(port, NULL, 10), owner, sizeof(owner)))
        return err_say(err, ERR_STATE, EADDRINUSE, "cannot listen at %s: %s has port %s", text,
                       owner, port);
    int r = err_sys(err, error == EADDRINUSE ? ERR_STATE : ERR_FAILED, error, "cannot listen at %s",
                    text);
    if (error == EADDRINUSE)
        err_hint(err, "sudo ss -ltnp 'sport = :%s' tells who has it; or name another port", port);
    else if (error == EADDRNOTAVAIL)
        err_hint(err, "ip -br address shows the addresses of this host; :%s is all of them", port);
    else if (error == EACCES)
        err_hint(err, "ports below 1024 are root's");
    return r;
}

/* The socket, or -errno. */
static int listen_at(const struct sockaddr *address, socklen_t length)
{
    const int on = 1, off = 0;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    bool any = address->sa_family == AF_INET6 &&
               IN6_IS_ADDR_UNSPECIFIED(
                   &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (any && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0) ||
        bind(fd, address, length) < 0 || listen(fd, SOMAXCONN) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

int link_listen(int *ret_fd, const char *text, struct err *err)
{
    struct link_address address;
    struct addrinfo *list;

    int r = link_address_parse(&address, text, true, err);
    if (r < 0)
        return r;
    if (!address.host[0]) { /* both families by one socket, where there is IPv6 */
        struct sockaddr_in6 any = {.sin6_family = AF_INET6};
        any.sin6_port = htons((uint16_t)strtoul(address.port, NULL, 10));
        int fd = listen_at((struct sockaddr *)&any, sizeof(any));
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (fd == -EADDRINUSE)
            return say_not_listening(-fd, text, address.port, err);
    }
    r = link_address_find(&list, &address, true, err);
    if (r < 0)
        return r;
    int fd = -EADDRNOTAVAIL;
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next)
        fd = listen_at(at->ai_addr, at->ai_addrlen);
    freeaddrinfo(list);
    if (fd < 0)
        return say_not_listening(-fd, text, address.port, err);
    *ret_fd = fd;
    return 0;
}

/* Calling off. */

void link_attempt_init(struct link_attempt *attempt)
{
    *attempt = (struct link_attempt){.socket = -1};
    pthread_mutex_init(&attempt->lock, NULL);
}

void link_attempt_finish(struct link_attempt *attempt)
{
    pthread_mutex_destroy(&attempt->lock);
}

void link_attempt_renew(struct link_attempt *attempt)
{
    pthread_mutex_lock(&attempt->lock);
    attempt->is_off = false;
    pthread_mutex_unlock(&attempt->lock);
}

/* Whoever waits in it wakes up, be it for the other side or for what that says. */
void link_attempt_call_off(struct link_attempt *attempt)
{
    pthread_mutex_lock(&attempt->lock);
    attempt->is_off = true;
    if (attempt->socket >= 0)
        (void)shutdown(attempt->socket, SHUT_RDWR);
    pthread_mutex_unlock(&attempt->lock);
}

static bool is_off(struct link_attempt *attempt)
{
    if (!attempt)
        return false;
    pthread_mutex_lock(&attempt->lock);
    bool off = attempt->is_off;
    pthread_mutex_unlock(&attempt->lock);
    return off;
}

/* It is tried now; negative: none is. By a number of its own, since others close theirs. */
static int try_socket(struct link_attempt *attempt, int fd)
{
    int r = 0;

    if (!attempt)
        return 0;
    pthread_mutex_lock(&attempt->lock);
    if (attempt->socket >= 0)
        close(attempt->socket);
    attempt->socket = -1;
    if (fd >= 0 && attempt->is_off)
        r = -ECANCELED;
    else if (fd >= 0 && (attempt->socket = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0)
        r = -errno;
    pthread_mutex_unlock(&attempt->lock);
    return r;
}

/* Connecting. */

/* limit_ns 0: as long as the kernel tries. */
static int wait_connected(int fd, uint64_t limit_ns)
{
    uint64_t end = clock_monotonic_ns() + limit_ns;
    int error = 0;
    socklen_t size = sizeof(error);

    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        uint64_t now = clock_monotonic_ns();
        uint64_t ms = now < end ? (end - now) / 1000000 + 1 : 0;
        if (limit_ns && ms == 0)
            return -ETIMEDOUT;
        int n = poll(&poll_fd, 1, !limit_ns ? -1 : ms < INT_MAX ? (int)ms : INT_MAX);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            break;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return -errno;
    return -error;
}

/* The socket, in blocking mode, or -errno. */
static int connect_to(const struct addrinfo *at, uint64_t limit_ns, struct link_attempt *attempt)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    int r = connect(fd, at->ai_addr, at->ai_addrlen) < 0 ? -errno : 0;
    int tried = try_socket(attempt, fd); /* what has not begun cannot be shut down */
    if (tried < 0)
        r = tried;
    if (r == -EINPROGRESS || r == -EINTR)
        r = wait_connected(fd, limit_ns);
    int flags = r == 0 ? fcntl(fd, F_GETFL) : 0;
    if (r == 0 && (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0))
        r = -errno;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

/* Where one address has no way at all, what the others say is worth more. */
static bool says_more(int error, int than)
{
    return than == 0 || than == -ENETUNREACH || than == -EAFNOSUPPORT || than == -EADDRNOTAVAIL ||
           error == -ECONNREFUSED;
}

/* Each address gets its share of the time, so that one that is dead does not use up all of it. */
static int connect_to_any(const struct addrinfo *list, unsigned timeout_ms,
                          struct link_attempt *attempt)
{
    uint64_t end = clock_monotonic_ns() + timeout_ms * 1000000ull;
    unsigned left = 0;
    int error = 0;

    for (const struct addrinfo *at = list; at; at = at->ai_next)
        left++;
    for (const struct addrinfo *at = list; at; at = at->ai_next, left--) {
        uint64_t now = clock_monotonic_ns();
        uint64_t share = now < end ? (end - now) / left : 1;
        int fd = connect_to(at, timeout_ms ? share : 0, attempt);
        if (fd >= 0)
            return fd;
        if (is_off(attempt))
            return -ECANCELED;
        if (says_more(fd, error))
            error = fd;
    }
    return error ? error : -EADDRNOTAVAIL;
}

static int say_not_connected(int error, const struct link_address *address, unsigned timeout_ms,
                             struct err *err)
{
    const char *host = address->host[0] ? address->host : "localhost";
    char name[280];
    int r;

    snprintf(name, sizeof(name), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, address->port);
    if (error == ECONNREFUSED) {
        r = err_say(err, ERR_FAILED, error, "nobody listens at %s", name);
        err_hint(err, "start minivmm standby there, or name the port that it listens at");
    } else if (error == ETIMEDOUT) {
        r = timeout_ms ? err_say(err, ERR_TIMEOUT, error, "%s did not answer within %g s", name,
                                 timeout_ms / 1000.0)
                       : err_say(err, ERR_TIMEOUT, error, "%s does not answer", name);
        err_hint(err, "is the host up, and does a firewall let port %s through?", address->port);
    } else {
        r = err_sys(err, ERR_FAILED, error, "cannot connect to %s", name);
        if (error == EHOSTUNREACH || error == ENETUNREACH)
            err_hint(err, "is the host up? ip route shows where this host's ways lead");
    }
    return r;
}

int link_dial(int *ret_socket, const char *text, const struct link_config *config, struct err *err)
{
    struct link_address address;
    struct addrinfo *list;

    int r = link_address_parse(&address, text, false, err);
    if (r == 0)
        r = link_address_find(&list, &address, false, err);
    if (r < 0)
        return r;
    if (!config->key && !config->insecure && !link_address_is_loopback(list->ai_addr))
        r = link_say_key_is_missing(text, err);
    int fd = r == 0 ? connect_to_any(list, config->timeout_ms, config->attempt) : -1;
    freeaddrinfo(list);
    if (r < 0)
        return r;
    if (fd < 0)
        return say_not_connected(-fd, &address, config->timeout_ms, err);
    *ret_socket = fd;
    return 0;
}

int link_attempt_end(struct link_attempt *attempt, const char *text, int r, struct err *err)
{
    (void)try_socket(attempt, -1);
    if (r < 0 && is_off(attempt))
        return err_say(err, ERR_STATE, ECANCELED, "connecting to %s was called off", text);
    return r;
}

int link_connect(struct link **ret_link, const char *text, const struct link_config *config,
                 struct err *err)
{
    int fd;
    int r = link_dial(&fd, text, config, err);
    if (r == 0)
        r = link_start(ret_link, fd, false, config, err);
    return link_attempt_end(config->attempt, text, r, err);
}
