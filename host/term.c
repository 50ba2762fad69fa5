/* SPDX-License-Identifier: MIT */
#include "host/term.h"

#include "core/clock.h"
#include "core/thread.h"
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
    RING_SIZE = 256 << 10, /* mapped, so only what is used costs memory */
    INPUT_SIZE = 4096,
    KEY_ESCAPE = 'a' & 0x1f,
};

struct term {
    struct loop *loop;
    const struct term_handlers *handlers;

    /* input, on the loop's thread */
    struct loop_io io;
    bool watching;
    bool interactive;
    bool escaped; /* Ctrl-a was typed, its second key not yet */
    struct termios cooked, raw;
    struct loop_call room;
    uint8_t input[INPUT_SIZE]; /* what the guest has not taken yet: [input_at, input_end) */
    size_t input_at, input_end;

    /* output */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t filled, emptied;
    struct thread writer;
    uint8_t *ring;
    size_t start, used;
    uint64_t dropped;
    bool writing; /* the writer is inside write(2) */
    int error;    /* why nothing is written (any more), -errno */
    bool end;
};

/* --- the terminal's mode ------------------------------------------------------------------ */

/*
 * A fatal signal's handler gets no argument of ours, so this is the place at file level where it
 * finds what to restore. NULL when there is nothing.
 */
static _Atomic(const struct termios *) restore_at_crash;

static void handle_fatal_signal(int number)
{
    const struct termios *cooked = atomic_load(&restore_at_crash);
    if (cooked) {
        signal(SIGTTOU, SIG_IGN);                 /* in the background it would stop us here */
        tcsetattr(STDIN_FILENO, TCSANOW, cooked); /* async-signal-safe by POSIX, as signal is */
    }
    raise(number); /* SA_RESETHAND: the default action now */
}

static void restore_on_fatal_signals(const struct termios *cooked)
{
    static const int fatal[] = {SIGSEGV, SIGBUS,  SIGILL,  SIGFPE,  SIGABRT, SIGSYS,
                                SIGTRAP, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU};
    struct sigaction action = {.sa_handler = handle_fatal_signal,
                               .sa_flags = SA_RESETHAND | SA_NODEFER};
    atomic_store(&restore_at_crash, cooked);
    for (size_t i = 0; i < array_size(fatal); i++)
        sigaction(fatal[i], &action, NULL);
}

/*
 * Sets the terminal's mode if it is ours to set: from the background, where a shell has put us, the
 * attempt would stop the program. The shell sets its own mode there, and SIGCONT brings us here
 * again.
 */
static void set_mode(const struct termios *mode, int when)
{
    sigset_t ttou, before;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou,
                    &before); /* for the moment between the question and the act */
    pid_t foreground = tcgetpgrp(STDIN_FILENO); /* -1: no terminal of our session, so no jobs */
    if (foreground < 0 || foreground == getpgrp())
        tcsetattr(STDIN_FILENO, when, mode);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void enter_raw_mode(struct term *term)
{
    if (tcgetattr(STDIN_FILENO, &term->cooked) < 0)
        return;
    term->raw = term->cooked;
    cfmakeraw(&term->raw);
    term->raw.c_oflag |= OPOST; /* our own lines on stderr still end in a carriage return */
    term->interactive = true;
    restore_on_fatal_signals(&term->cooked);
    set_mode(&term->raw, TCSANOW);
}

/* A terminal that takes no output is not waited for. */
static void leave_raw_mode(struct term *term, bool drained)
{
    if (!term->interactive)
        return;
    set_mode(&term->cooked, drained ? TCSADRAIN : TCSANOW);
    atomic_store(&restore_at_crash, NULL);
}

void term_renew(struct term *term)
{
    if (term && term->interactive)
        set_mode(&term->raw, TCSANOW);
}

/* --- output ------------------------------------------------------------------------------- */

static void put_locked(struct term *term, const uint8_t *bytes, size_t length)
{
    size_t at = (term->start + term->used) % RING_SIZE;
    size_t first = length < RING_SIZE - at ? length : RING_SIZE - at;
    memcpy(term->ring + at, bytes, first);
    memcpy(term->ring, bytes + first, length - first);
    term->used += length;
}

/* Says what was dropped, as soon as there is room to say it. */
static void confess_locked(struct term *term)
{
    char line[96];
    int length = snprintf(
        line, sizeof(line),
        "\r\n[minivmm: %llu bytes of console output lost, the terminal is too slow]"
        "\r\n",
        (unsigned long long)term->dropped);
    if (term->used + (size_t)length > RING_SIZE / 2)
        return; /* wait for more room, else the next byte is lost at once */
    put_locked(term, (const uint8_t *)line, (size_t)length);
    term->dropped = 0;
}

/* Waits for room where somebody has made standard output non-blocking, as parents do. */
static ssize_t write_some(const uint8_t *from, size_t length)
{
    for (;;) {
        ssize_t written = write(STDOUT_FILENO, from, length);
        if (written >= 0)
            return written;
        if (errno == EAGAIN) {
            struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
            poll(&out, 1, -1);
        } else if (errno != EINTR) {
            return -errno;
        }
    }
}

/* Writes the next stretch without the lock. */
static void write_next_locked(struct term *term)
{
    const uint8_t *from = term->ring + term->start;
    size_t length = term->used < RING_SIZE - term->start ? term->used : RING_SIZE - term->start;
    if (length > 4096)
        length = 4096; /* small steps, so that room comes back early */
    term->writing = true;
    pthread_mutex_unlock(&term->lock);
    ssize_t written = write_some(from, length);
    pthread_mutex_lock(&term->lock);
    term->writing = false;
    if (written < 0) {
        term->error = (int)written;
        return;
    }
    term->start = (term->start + (size_t)written) % RING_SIZE;
    term->used -= (size_t)written;
    if (term->used == 0)
        term->start = 0; /* stay in the same few pages */
}

static void write_out(void *arg)
{
    struct term *term = arg;
    pthread_mutex_lock(&term->lock);
    for (;;) {
        if (term->dropped)
            confess_locked(term);
        if (term->used == 0) {
            pthread_cond_broadcast(&term->emptied);
            if (term->end)
                break;
            pthread_cond_wait(&term->filled, &term->lock);
        } else if (!term->error) {
            write_next_locked(term);
        } else {
            term->used = 0; /* the reader is gone: the guest goes on without one */
        }
    }
    pthread_mutex_unlock(&term->lock);
}

/*
 * The writer starts with the first byte, on the thread of whoever writes it. A guest that prints
 * nothing needs none, and its end does not wait for one: on a host with a busy CPU that was half of
 * the time from exec to exit.
 */
static bool has_writer_locked(struct term *term)
{
    if (!term->writer.started && !term->error)
        term->error = thread_start(&term->writer, "console", write_out, term, NULL);
    return !term->error;
}

void term_write(struct term *term, const uint8_t *bytes, size_t length)
{
    if (length == 0)
        return;
    pthread_mutex_lock(&term->lock);
    if (has_writer_locked(term)) {
        if (term->dropped)
            confess_locked(term);
        if (term->dropped || length > RING_SIZE - term->used)
            term->dropped += length;
        else
            put_locked(term, bytes, length);
        pthread_cond_signal(&term->filled);
    }
    pthread_mutex_unlock(&term->lock);
}

/* True when everything was written within a second. */
static bool drain(struct term *term)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&term->lock);
    term->end = true;
    pthread_cond_signal(&term->filled);
    int error = 0;
    while ((term->used || term->writing) && error == 0)
        error = pthread_cond_timedwait(&term->emptied, &term->lock, &until);
    bool done = !term->used && !term->writing;
    pthread_mutex_unlock(&term->lock);
    return done;
}

/* --- input -------------------------------------------------------------------------------- */

static void say(struct term *term, const char *text)
{
    term_write(term, (const uint8_t *)text, strlen(text));
}

static void handle_key_after_escape(struct term *term, uint8_t key, uint8_t *out, size_t *length)
{
    switch (key) {
    case 'x':
        term->handlers->quit(term->handlers->ctx);
        break;
    case 'd':
        term->handlers->detach(term->handlers->ctx);
        break;
    case 'b':
        term->handlers->send_break(term->handlers->ctx);
        break;
    case 'a':
    case KEY_ESCAPE:
        out[(*length)++] = KEY_ESCAPE;
        break;
    case '?':
    case 'h':
        say(term, "\r\nCtrl-a x  quit (ends the VM at once)\r\nCtrl-a d  detach\r\n"
                  "Ctrl-a b  send a break (Linux: the SysRq key)\r\n"
                  "Ctrl-a a  send Ctrl-a to the guest\r\n");
        break;
    default:
        break; /* an unknown key does nothing, in particular no harm */
    }
}

/* Takes our own keys out, in place. */
static size_t filter_keys(struct term *term, uint8_t *bytes, size_t length)
{
    size_t kept = 0;
    for (size_t i = 0; i < length; i++) {
        if (term->escaped) {
            term->escaped = false;
            handle_key_after_escape(term, bytes[i], bytes, &kept);
        } else if (bytes[i] == KEY_ESCAPE) {
            term->escaped = true;
        } else {
            bytes[kept++] = bytes[i];
        }
    }
    return kept;
}

/*
 * Gives the guest what it takes. Reading rests while it does not take all; but a person's own keys
 * must work then too, so from a terminal reading goes on, and what does not fit into the buffer is
 * lost, like keys typed at a machine that hangs.
 */
static void offer_input(void *arg)
{
    struct term *term = arg;
    if (term->input_at < term->input_end)
        term->input_at += term->handlers->input(term->handlers->ctx, term->input + term->input_at,
                                                term->input_end - term->input_at);
    bool full = term->input_at < term->input_end && !term->interactive;
    if (term->watching)
        loop_io_watch(term->loop, &term->io, full ? 0 : LOOP_READ);
}

static void handle_input(void *arg, unsigned events)
{
    struct term *term = arg;
    uint8_t fresh[INPUT_SIZE];
    size_t room = INPUT_SIZE - (term->input_end - term->input_at);
    ssize_t got = read(STDIN_FILENO, fresh, term->interactive ? sizeof(fresh) : room);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) { /* the end: the guest keeps running without input */
        loop_io_remove(term->loop, &term->io);
        term->watching = false;
        return;
    }
    size_t length = (size_t)got;
    if (term->interactive)
        length = filter_keys(term, fresh, length);
    if (length > room)
        length = room;
    memmove(term->input, term->input + term->input_at, term->input_end - term->input_at);
    term->input_end -= term->input_at;
    term->input_at = 0;
    memcpy(term->input + term->input_end, fresh, length);
    term->input_end += length;
    offer_input(term);
}

int term_output_error(struct term *term)
{
    pthread_mutex_lock(&term->lock);
    int error = term->error;
    pthread_mutex_unlock(&term->lock);
    return error;
}

void term_input_room(struct term *term)
{
    loop_post(term->loop, &term->room);
}

/* --- life --------------------------------------------------------------------------------- */

static int create_ring(struct term *term, struct err *err)
{
    term->ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (term->ring == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot create the console's buffer");
    return 0;
}

int term_create(struct term **ret_term, struct loop *loop, const struct term_handlers *handlers,
                struct err *err)
{
    struct term *term = calloc(1, sizeof(*term));
    if (!term)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the console");
    term->loop = loop;
    term->handlers = handlers;
    term->ring = MAP_FAILED;
    term->room = (struct loop_call){.handle = offer_input, .arg = term};
    term->io = (struct loop_io){
        .fd = STDIN_FILENO, .events = LOOP_READ, .handle = handle_input, .arg = term};
    pthread_mutex_init(&term->lock, NULL);
    pthread_cond_init(&term->filled, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&term->emptied, &attr);
    pthread_condattr_destroy(&attr);

    int ret = create_ring(term, err);
    if (ret < 0)
        goto fail;
    ret = loop_io_add(loop, &term->io, err);
    if (ret < 0)
        goto fail;
    term->watching = true;
    if (isatty(STDIN_FILENO))
        enter_raw_mode(term);
    *ret_term = term;
    return 0;

fail:
    term_destroy(term);
    return ret;
}

void term_destroy(struct term *term)
{
    if (!term)
        return;
    if (term->watching)
        loop_io_remove(term->loop, &term->io);
    bool drained = drain(term);
    leave_raw_mode(term, drained);
    if (!drained)
        return; /* the writer is stuck inside write(2) and still uses all this; the process ends now
                 */
    thread_join(&term->writer);
    if (term->ring != MAP_FAILED)
        munmap(term->ring, RING_SIZE);
    pthread_cond_destroy(&term->filled);
    pthread_cond_destroy(&term->emptied);
    pthread_mutex_destroy(&term->lock);
    free(term);
}
