/* SPDX-License-Identifier: MIT */
#include "host/netif_child.h"

#include "core/clock.h"
#include "core/iov.h"
#include "host/program.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define DELAY_MIN_NS  (NS_PER_SEC / 10)
#define DELAY_MAX_NS  (10 * NS_PER_SEC)
#define GOOD_LIFE_NS  (60 * NS_PER_SEC)
#define READY_WAIT_NS (10 * NS_PER_SEC)

enum { WORDS_SIZE = 4096, LINE_SIZE = 160, PATIENCE_MS = 500, END_MS = 2000 };

static void handle_io(void *arg, unsigned events);
static void handle_death(void *arg, unsigned events);
static void handle_timer(void *arg);

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* --- starting ----------------------------------------------------------------------------- */

int netif_child_spawn(struct netif_child *child, char *const argv[], int their_socket,
                      int their_hello, struct err *err)
{
    /* Nobody reads the last words before the end. Neither side may block on them: when the pipe is
     * full, what comes later is lost. */
    int words[2] = {-1, -1};
    int ret = pipe2(words, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
    int fds[PROGRAM_FDS] = {-1, their_hello, words[1], their_socket};
    if (ret == 0)
        ret = program_start(&child->pid, &child->pidfd, argv, fds);
    for (unsigned i = 0; i < PROGRAM_FDS; i++)
        close_fd(&fds[i]);
    if (ret < 0) {
        close_fd(&words[0]);
        return err_sys(err, ERR_HOST, -ret, "cannot start %s", argv[0]);
    }
    child->words = words[0];
    return 0;
}

/* --- its end ------------------------------------------------------------------------------ */

/* The last line it wrote to stderr, without what could play tricks with a terminal. */
static void read_last_words(struct netif_child *child, char line[LINE_SIZE])
{
    char text[WORDS_SIZE];
    size_t length = 0;
    line[0] = '\0';
    /* At most what a pipe holds, and not for ever if somebody goes on writing. */
    for (int i = 0; i < 64 && child->words >= 0; i++) {
        if (length == sizeof(text)) {
            memmove(text, text + sizeof(text) / 2, sizeof(text) / 2);
            length = sizeof(text) / 2;
        }
        ssize_t n = read(child->words, text + length, sizeof(text) - length);
        if (n <= 0)
            break;
        length += (size_t)n;
    }
    while (length && (text[length - 1] == '\n' || text[length - 1] == '\0'))
        length--;
    size_t start = length;
    while (start && text[start - 1] != '\n')
        start--;
    if (length - start >= LINE_SIZE)
        length = start + LINE_SIZE - 1;
    for (size_t i = start; i < length; i++)
        line[i - start] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    line[length - start] = '\0';
}

static void describe_end(const struct netif_child *child, const siginfo_t *info, char *text,
                         size_t size)
{
    bool killed = info->si_code != CLD_EXITED;
    int number = info->si_status;
    if (!killed && child->kind->shell_status && number > 128) {
        killed = true;
        number -= 128;
    }
    if (killed)
        snprintf(text, size, "was killed by signal %d (%s)", number, strsignal(number));
    else
        snprintf(text, size, "ended with status %d", number);
}

/* Kills it if it still lives, reaps it and forgets its descriptors. */
static void bury(struct netif_child *child, char *how, size_t size)
{
    siginfo_t info = {0};
    if (child->pidfd >= 0) {
        bool dead = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) < 0 ||
                    info.si_pid != 0;
        if (!dead) {
            pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
            while (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED) < 0 && errno == EINTR)
                ;
        }
        if (how)
            describe_end(child, &info, how, size);
    }
    if (child->io_added)
        loop_io_remove(child->loop, &child->io);
    if (child->death_added)
        loop_io_remove(child->loop, &child->death);
    child->io_added = child->death_added = false;
    if (child->hello != child->fd)
        close_fd(&child->hello);
    child->hello = -1;
    close_fd(&child->fd);
    close_fd(&child->pidfd);
    close_fd(&child->words);
    child->pid = 0;
    child->state = NETIF_CHILD_GONE;
    child->netif.info.link_up = false;
    child->kind->forget(child);
}

static void arm_timer(struct netif_child *child, uint64_t deadline_ns)
{
    /* Without memory for the loop's heap nothing else works either; the timer is in the heap since
     * the attach, which has told. */
    if (loop_timer_arm(&child->timer, deadline_ns) < 0)
        return;
}

static void arm_restart(struct netif_child *child)
{
    arm_timer(child, clock_monotonic_ns() + child->delay_ns);
    child->delay_ns = child->delay_ns * 2 < DELAY_MAX_NS ? child->delay_ns * 2 : DELAY_MAX_NS;
}

/* It is dead, or will be in a moment. `why` is given when we know better than its exit status. */
static void lose(struct netif_child *child, const char *why)
{
    char how[192], line[LINE_SIZE];
    bool was_up = child->state == NETIF_CHILD_UP;
    bool had_link = child->netif.info.link_up; /* since before the first start */
    uint64_t now = clock_monotonic_ns();

    read_last_words(child, line);
    bury(child, how, sizeof(how));
    if (why && why[0])
        snprintf(how, sizeof(how), "%s", why);
    struct err words;
    err_say(&words, ERR_FAILED, 0, "%s %s%s%s; the guest has no network until it runs again",
            child->kind->what, how, line[0] ? ": " : "", line);
    if (was_up && now - child->up_since_ns >= GOOD_LIFE_NS)
        child->delay_ns = DELAY_MIN_NS;
    arm_restart(child);
    bool tell = was_up || strcmp(words.text, child->said) != 0;
    memcpy(child->said, words.text, sizeof(child->said));

    /* The handlers last: they may detach. */
    const struct netif_handlers *handlers = child->handlers;
    if (had_link)
        handlers->link_changed(handlers->ctx, false);
    if (tell && child->loop)
        handlers->trouble(handlers->ctx, words.text);
}

void netif_child_condemn(struct netif_child *child, const char *reason)
{
    if (child->state == NETIF_CHILD_GONE || child->verdict[0])
        return;
    snprintf(child->verdict, sizeof(child->verdict), "%s", reason);
    pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
    if (!child->loop)
        return;
    if (child->io_added)
        loop_io_watch(child->loop, &child->io, 0);
    /* Not here and now: the caller may be inside of the device's handler. */
    arm_timer(child, clock_monotonic_ns());
}

void netif_child_hung_up(struct netif_child *child)
{
    if (!netif_child_usable(child))
        return;
    child->hung_up = true;
    if (!child->loop)
        return;
    if (child->io_added)
        loop_io_watch(child->loop, &child->io, 0);
    arm_timer(child, clock_monotonic_ns() + (uint64_t)PATIENCE_MS * (NS_PER_SEC / 1000));
}

/* --- watching ----------------------------------------------------------------------------- */

static int watch_fd(struct netif_child *child, int fd, unsigned events, struct err *err)
{
    if (child->io_added)
        loop_io_remove(child->loop, &child->io);
    child->io = (struct loop_io){.fd = fd, .events = events, .handle = handle_io, .arg = child};
    int ret = loop_io_add(child->loop, &child->io, err);
    child->io_added = ret == 0;
    return ret;
}

static int watch_death(struct netif_child *child, struct err *err)
{
    child->death = (struct loop_io){
        .fd = child->pidfd, .events = LOOP_READ, .handle = handle_death, .arg = child};
    int ret = loop_io_add(child->loop, &child->death, err);
    child->death_added = ret == 0;
    return ret;
}

static void become_up(struct netif_child *child)
{
    if (child->hello != child->fd)
        close_fd(&child->hello);
    child->hello = child->fd;
    child->state = NETIF_CHILD_UP;
    child->up_since_ns = clock_monotonic_ns();
    child->netif.info.link_up = true;
    child->said[0] = '\0';
}

static void start_again(struct netif_child *child)
{
    struct err err = {0};
    child->verdict[0] = '\0';
    child->hung_up = false;
    int ret = child->kind->start(child, &err);
    if (ret == 0) {
        child->state = NETIF_CHILD_STARTING;
        ret = watch_death(child, &err);
    }
    if (ret == 0)
        ret = watch_fd(child, child->hello, LOOP_READ, &err);
    if (ret < 0) {
        char why[192];
        snprintf(why, sizeof(why), "cannot be started again (%.150s)", err.text);
        lose(child, why);
        return;
    }
    arm_timer(child, clock_monotonic_ns() + READY_WAIT_NS);
}

static void handle_timer(void *arg)
{
    struct netif_child *child = arg;
    if (child->state == NETIF_CHILD_GONE)
        start_again(child);
    else if (child->verdict[0])
        lose(child, child->verdict);
    else if (child->hung_up)
        lose(child, "closed its socket");
    else if (child->state == NETIF_CHILD_STARTING)
        lose(child, "did not get ready in time");
}

static void handle_death(void *arg, unsigned events)
{
    struct netif_child *child = arg;
    lose(child, child->verdict);
}

static void handle_hello(struct netif_child *child)
{
    struct err err = {0};
    char why[192];
    int ret = child->kind->greet(child, &err);
    if (ret == -EAGAIN)
        return;
    if (ret == -EPIPE) {
        loop_io_remove(child->loop, &child->io); /* its end follows, with a reason */
        child->io_added = false;
        return;
    }
    if (ret == 0) {
        loop_timer_cancel(&child->timer);
        become_up(child);
        ret = watch_fd(child, child->fd, child->kind->wants(child), &err);
    }
    if (ret < 0) {
        snprintf(why, sizeof(why), "cannot work (%.160s)", err.text);
        lose(child, why);
        return;
    }
    child->handlers->link_changed(child->handlers->ctx, true);
}

static void handle_io(void *arg, unsigned events)
{
    struct netif_child *child = arg;
    if (child->state == NETIF_CHILD_STARTING)
        handle_hello(child);
    else if (netif_child_usable(child))
        child->kind->handle_io(child, events);
}

/* --- for the two kinds -------------------------------------------------------------------- */

void netif_child_init(struct netif_child *child, const struct netif_child_kind *kind)
{
    child->kind = kind;
    child->fd = child->hello = child->pidfd = child->words = -1;
    child->delay_ns = DELAY_MIN_NS;
    child->netif.info.max_queues = 1;
}

void netif_child_finish(struct netif_child *child)
{
    /* A closed socket tells it to go. One that goes by itself has let go of its ports when we
     * return: the next VM may want them. What must be killed may keep them a moment longer. */
    if (child->hello == child->fd)
        child->hello = -1;
    close_fd(&child->fd);
    struct pollfd end = {.fd = child->pidfd, .events = POLLIN};
    if (child->pidfd >= 0 && poll(&end, 1, END_MS) < 0)
        assert(errno == EINTR);
    bury(child, NULL, 0);
}

int netif_child_open(struct netif_child *child, struct err *err)
{
    int ret = child->kind->start(child, err);
    if (ret < 0)
        return ret;
    child->state = NETIF_CHILD_STARTING;
    child->netif.info.link_up = true; /* it will be, or the attach fails */
    return 0;
}

void netif_child_open_later(struct netif_child *child)
{
    child->state = NETIF_CHILD_IDLE;
    child->netif.info.link_up = true; /* as far as anybody can know */
}

/* It died before it was ready. */
static int early_end(struct netif_child *child, struct err *err)
{
    char line[LINE_SIZE], how[192];
    read_last_words(child, line);
    bury(child, how, sizeof(how));
    if (child->kind->explain)
        return child->kind->explain(child, line, err);
    return err_say(err, ERR_FAILED, ECHILD, "%s %s%s%s", child->kind->what, how,
                   line[0] ? ": " : "", line);
}

static int wait_until_ready(struct netif_child *child, struct err *err)
{
    uint64_t deadline = clock_monotonic_ns() + READY_WAIT_NS;
    struct pollfd fds[2] = {{.fd = child->hello, .events = POLLIN},
                            {.fd = child->pidfd, .events = POLLIN}};
    for (;;) {
        uint64_t now = clock_monotonic_ns();
        if (now >= deadline) {
            bury(child, NULL, 0);
            return err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%s did not get ready in %llu s",
                           child->kind->what, READY_WAIT_NS / NS_PER_SEC);
        }
        if (poll(fds, 2, (int)((deadline - now) / 1000000) + 1) < 0 && errno != EINTR)
            return err_sys(err, ERR_FAILED, errno, "%s", child->kind->what);
        int ret = fds[0].fd < 0 ? -EAGAIN : child->kind->greet(child, err);
        if (ret == 0) {
            become_up(child);
            return 0;
        }
        if (ret != -EAGAIN && ret != -EPIPE) {
            bury(child, NULL, 0);
            return ret;
        }
        if (ret == -EPIPE)
            fds[0].fd = -1;
        if (fds[1].revents)
            return early_end(child, err);
    }
}

int netif_child_attach(struct netif *netif, struct loop *loop,
                       const struct netif_handlers *handlers, struct err *err)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    int ret = child->state == NETIF_CHILD_STARTING ? wait_until_ready(child, err) : 0;
    if (ret < 0)
        return ret;
    child->loop = loop;
    child->handlers = handlers;
    child->watched = 0;
    loop_timer_init(&child->timer, loop, handle_timer, child);
    if (child->state == NETIF_CHILD_UP) {
        ret = watch_death(child, err);
        if (ret == 0)
            ret = watch_fd(child, child->fd, 0, err);
    }
    /* Armed once in any case: then the heap has its place. What was condemned while detached is
     * dealt with, too. */
    if (ret == 0 && loop_timer_arm(&child->timer, clock_monotonic_ns()) < 0)
        ret = err_sys(err, ERR_FAILED, ENOMEM, "%s", child->kind->what);
    if (ret < 0)
        netif_child_detach(netif);
    return ret;
}

void netif_child_detach(struct netif *netif)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    if (!child->loop)
        return;
    loop_timer_cancel(&child->timer);
    /* Half a start is not worth keeping: the next attach begins anew, without waiting. */
    if (child->state == NETIF_CHILD_STARTING)
        bury(child, NULL, 0);
    if (child->io_added)
        loop_io_remove(child->loop, &child->io);
    if (child->death_added)
        loop_io_remove(child->loop, &child->death);
    child->io_added = child->death_added = false;
    child->loop = NULL;
    child->handlers = NULL;
}

void netif_child_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    child->watched = what;
    if (netif_child_usable(child) && child->io_added)
        loop_io_watch(child->loop, &child->io, child->kind->wants(child));
}

int netif_child_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    if (child->state == NETIF_CHILD_IDLE && child->loop) {
        child->state = NETIF_CHILD_GONE; /* and the loop starts it */
        arm_timer(child, clock_monotonic_ns());
    }
    return queues == 1 && !(offloads & ~netif->info.offloads) ? 0 : -EINVAL;
}

int netif_child_frame(const struct netif_child *child, const struct iovec *iov, unsigned count,
                      struct iovec *part, size_t *ret_length)
{
    /* Before the first start is over, the link counts as up. */
    if (child->state != NETIF_CHILD_UP && child->netif.info.link_up)
        return -EAGAIN;
    if (!netif_child_usable(child))
        return -ENETDOWN;
    if (count > UIO_MAXIOV)
        return -EMSGSIZE;
    size_t size = iov_size(iov, count);
    if (size < NETIF_HEADER + 14 || size > NETIF_MAX_FRAME)
        return -EMSGSIZE;
    *ret_length = size - NETIF_HEADER;
    return (int)iov_part(iov, count, NETIF_HEADER, *ret_length, part);
}
