/* SPDX-License-Identifier: MIT */
/*
 * One ring, many readers. Positions count all bytes ever written; byte p lies at p % HUB_RING, as
 * long as p is among the last HUB_RING. Each reader (a client, the log) has a position of its own.
 * Whoever the writer has lapped goes on half a ring behind it, so that he is not lapped again at
 * once, and finds a line in his bytes that says how many are missing.
 *
 * A guest that writes a byte at a time must not pay for a system call with each. So the writer
 * tells a reader only when that one sleeps: the main loop stays awake for PUMP_PAUSE_NS after it
 * has sent something, by a timer, and the log's thread takes what has gathered in LOG_PAUSE_NS, or
 * a quarter of a ring. (Timers, not posted calls: those could not be taken back by destroy.)
 *
 * console.log is opened with the first byte, on the thread that writes it: a guest that prints
 * nothing pays for no thread, and a folder that cannot be written to costs the log, not the VM. A
 * disk that is full now may have room later, so it is tried again every LOG_RETRY_NS.
 */
#include "vmm/console_hub.h"

#include "core/clock.h"
#include "core/thread.h"
#include "host/small_file.h"
#include "vmm/folder.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_OLD_NAME FOLDER_CONSOLE ".1"

enum {
    PIECE = 16 << 10,        /* copied out of the ring at a time, under the lock */
    PIECES_A_TURN = 4,       /* for one client, then the others' turn */
    INPUT_SIZE = 4096,       /* of one client */
    PUMP_PAUSE_NS = 1000000, /* a person does not notice */
    LOG_PAUSE_NS = 50000000, /* what a VMM that is killed loses of its log */
    LOG_URGENT = HUB_RING / 4,
    NOW = 1, /* a deadline that has passed */
};

static const uint64_t LOG_RETRY_NS = 2 * NS_PER_SEC;

struct reader {
    uint64_t at;
    bool begun; /* has got something: only then a gap is worth a word */
};

struct client {
    struct console_hub *hub;
    struct loop_io io;
    struct reader reader;
    uint8_t piece[PIECE]; /* on its way to the socket: [piece_at, piece_end) */
    size_t piece_at, piece_end;
    bool blocked;               /* its socket is full */
    bool ended;                 /* will send no more */
    bool gone;                  /* has closed: only what it has sent still counts */
    size_t input_at, input_end; /* what the guest has not taken yet */
    uint8_t input[];
};

struct console_hub {
    struct loop *loop;
    struct console_hub_handlers handlers;
    struct loop_timer pump, room;
    struct client *clients[HUB_MAX_CLIENTS];
    unsigned next_typist; /* whose input is offered first */
    int folder;
    struct thread logger;

    pthread_mutex_t lock; /* all below */
    uint8_t *ring;
    uint64_t head;    /* bytes written so far */
    bool told;        /* the loop needs no word: it is on its way, or has nobody to serve */
    bool log_idle;    /* the log's thread sleeps until it hears of a byte */
    bool log_gathers; /* ... or until it is urgent */
    bool end;
    int log_error;
    struct reader log;
    pthread_cond_t written, urgent;
};

/* --- the ring ----------------------------------------------------------------------------- */

static void put_locked(struct console_hub *hub, const uint8_t *bytes, size_t length)
{
    if (length > HUB_RING) { /* only its end would be there to see */
        hub->head += length - HUB_RING;
        bytes += length - HUB_RING;
        length = HUB_RING;
    }
    size_t at = hub->head % HUB_RING;
    size_t first = length < HUB_RING - at ? length : HUB_RING - at;
    memcpy(hub->ring + at, bytes, first);
    memcpy(hub->ring, bytes + first, length - first);
    hub->head += length;
}

/* Copies the next bytes for this reader, at most PIECE; or the line about those that are lost. */
static size_t take_locked(struct console_hub *hub, struct reader *reader, uint8_t *to)
{
    uint64_t behind = hub->head - reader->at;
    if (behind > HUB_RING) {
        uint64_t lost = behind - HUB_RING / 2;
        reader->at += lost;
        if (reader->begun)
            return (size_t)sprintf((char *)to, "\r\n[minivmm: %llu bytes were lost here]\r\n",
                                   (unsigned long long)lost);
        behind = HUB_RING / 2;
    }
    size_t length = behind < PIECE ? (size_t)behind : PIECE;
    size_t at = reader->at % HUB_RING;
    size_t first = length < HUB_RING - at ? length : HUB_RING - at;
    memcpy(to, hub->ring + at, first);
    memcpy(to + first, hub->ring, length - first);
    reader->at += length;
    reader->begun |= length > 0;
    return length;
}

static size_t take(struct console_hub *hub, struct reader *reader, uint8_t *to)
{
    pthread_mutex_lock(&hub->lock);
    size_t length = take_locked(hub, reader, to);
    pthread_mutex_unlock(&hub->lock);
    return length;
}

/* --- writing ------------------------------------------------------------------------------ */

static void write_log(void *arg);

static bool has_log(const struct console_hub *hub)
{
    return hub->folder >= 0 && (hub->logger.started || !hub->log_error);
}

static void tell_log_locked(struct console_hub *hub)
{
    if (!hub->logger.started) {
        hub->log_error = thread_start(&hub->logger, FOLDER_CONSOLE, write_log, hub, NULL);
    } else if (hub->log_idle) {
        hub->log_idle = false;
        pthread_cond_signal(&hub->written);
    } else if (hub->log_gathers && hub->head - hub->log.at >= LOG_URGENT) {
        hub->log_gathers = false;
        pthread_cond_signal(&hub->urgent);
    }
}

void console_hub_write(struct console_hub *hub, const uint8_t *bytes, size_t length)
{
    if (!length)
        return;
    pthread_mutex_lock(&hub->lock);
    put_locked(hub, bytes, length);
    if (!hub->told)
        hub->told = loop_timer_arm(&hub->pump, NOW) == 0;
    if (has_log(hub))
        tell_log_locked(hub);
    pthread_mutex_unlock(&hub->lock);
}

/* --- clients ------------------------------------------------------------------------------ */

static void client_destroy(struct client *client)
{
    struct client **slot = client->hub->clients;
    while (*slot != client)
        slot++;
    *slot = NULL;
    loop_io_remove(client->hub->loop, &client->io);
    close(client->io.fd);
    free(client);
}

static bool has_input(const struct client *client)
{
    return client->input_at < client->input_end;
}

/* Sends what there is and what the socket takes, within limits. True when something was sent. */
static bool pump(struct client *client)
{
    bool some = false;
    client->blocked = false;
    for (unsigned i = 0; i < PIECES_A_TURN && !client->gone; i++) {
        if (client->piece_at == client->piece_end) {
            /* What the guest writes while we send is for the next turn. */
            if (i > 0 && client->piece_end < PIECE)
                break;
            client->piece_at = 0;
            client->piece_end = take(client->hub, &client->reader, client->piece);
        }
        if (client->piece_at == client->piece_end)
            break;
        ssize_t sent = send(client->io.fd, client->piece + client->piece_at,
                            client->piece_end - client->piece_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            client->piece_at += (size_t)sent;
            some = true;
        } else if (errno == EAGAIN) {
            client->blocked = true;
            break;
        } else if (errno != EINTR) {
            client->gone = true;
        }
    }
    return some;
}

static void offer_input(struct client *client)
{
    struct console_hub_handlers *handlers = &client->hub->handlers;
    if (has_input(client))
        client->input_at += handlers->input(handlers->ctx, client->input + client->input_at,
                                            client->input_end - client->input_at);
}

static void read_input(struct client *client)
{
    ssize_t got = recv(client->io.fd, client->input, INPUT_SIZE, MSG_DONTWAIT);
    if (got > 0) {
        client->input_at = 0;
        client->input_end = (size_t)got;
        offer_input(client);
    } else if (got == 0) {
        client->ended = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        client->ended = client->gone = true;
    }
}

/*
 * Who is not read from is watched edge-triggered, so that his end is heard of. But the end of
 * somebody who has gone is known, and waits until the guest has taken his last keys.
 */
static unsigned wanted_events(const struct client *client)
{
    bool rests = client->ended || has_input(client);
    if (client->gone)
        return rests ? 0 : LOOP_READ;
    if (client->blocked)
        return rests ? LOOP_WRITE : LOOP_READ | LOOP_WRITE;
    return rests ? LOOP_READ | LOOP_EDGE : LOOP_READ;
}

static void finish_turn(struct client *client)
{
    if (client->gone && client->ended && !has_input(client))
        client_destroy(client);
    else
        loop_io_watch(client->hub->loop, &client->io, wanted_events(client));
}

/*
 * After clients were served. While the guest writes, the timer looks again in a moment, and at once
 * where somebody is a whole piece behind; else the writer is to call. Blocked clients call by
 * themselves.
 */
static void settle(struct console_hub *hub, bool sent)
{
    bool listens = false, behind = false, urgent = false;
    pthread_mutex_lock(&hub->lock);
    for (unsigned i = 0; i < HUB_MAX_CLIENTS; i++) {
        struct client *client = hub->clients[i];
        if (!client || client->gone || client->blocked)
            continue;
        listens = true;
        behind |= client->reader.at != hub->head;
        urgent |= hub->head - client->reader.at >= PIECE || client->piece_at < client->piece_end;
    }
    hub->told = !listens;
    if (urgent || behind || (listens && sent)) {
        uint64_t when = urgent ? NOW : clock_monotonic_ns() + PUMP_PAUSE_NS;
        hub->told = loop_timer_arm(&hub->pump, when) == 0;
    }
    pthread_mutex_unlock(&hub->lock);
}

static void handle_pump(void *arg)
{
    struct console_hub *hub = arg;
    bool sent = false;
    for (unsigned i = 0; i < HUB_MAX_CLIENTS; i++) {
        struct client *client = hub->clients[i];
        if (!client || client->blocked)
            continue;
        sent |= pump(client);
        finish_turn(client);
    }
    settle(hub, sent);
}

static void handle_client(void *arg, unsigned events)
{
    struct client *client = arg;
    struct console_hub *hub = client->hub;
    bool was_blocked = client->blocked;
    if (events & LOOP_HANGUP)
        client->gone = true;
    if ((events & (LOOP_READ | LOOP_HANGUP)) && !client->ended && !has_input(client))
        read_input(client);
    bool sent = was_blocked && (events & LOOP_WRITE) && pump(client);
    finish_turn(client);
    if (was_blocked)
        settle(hub, sent);
}

static void handle_room(void *arg)
{
    struct console_hub *hub = arg;
    unsigned first = hub->next_typist++;
    for (unsigned i = 0; i < HUB_MAX_CLIENTS; i++) {
        struct client *client = hub->clients[(first + i) % HUB_MAX_CLIENTS];
        if (!client)
            continue;
        offer_input(client);
        finish_turn(client);
    }
}

void console_hub_input_room(struct console_hub *hub)
{
    /* Without memory for it the input waits for the next key. */
    if (loop_timer_arm(&hub->room, NOW) < 0)
        return;
}

/* A free place; one of somebody who has gone, and whose keys nobody takes, counts as free. */
static struct client **find_place(struct console_hub *hub)
{
    struct client **place = NULL;
    for (unsigned i = 0; i < HUB_MAX_CLIENTS; i++) {
        if (!hub->clients[i])
            return &hub->clients[i];
        if (hub->clients[i]->gone)
            place = &hub->clients[i];
    }
    if (place)
        client_destroy(*place);
    return place;
}

static int add_client(struct console_hub *hub, int fd, const void *early, size_t early_length,
                      struct client **ret_client, struct err *err)
{
    struct client **place = find_place(hub);
    if (!place)
        return err_say(err, ERR_STATE, EBUSY, "%d are attached to the console, which is the most",
                       HUB_MAX_CLIENTS);
    size_t room = early_length > INPUT_SIZE ? early_length : INPUT_SIZE;
    struct client *client = calloc(1, sizeof(*client) + room);
    if (!client)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot attach one more to the console");
    client->hub = hub;
    client->io = (struct loop_io){
        .fd = fd, .events = LOOP_READ, .handle = handle_client, .arg = client};
    int ret = loop_io_add(hub->loop, &client->io, err);
    if (ret < 0) {
        free(client);
        return ret;
    }
    if (early_length)
        memcpy(client->input, early, early_length);
    client->input_end = early_length;
    *place = client;
    *ret_client = client;
    return 0;
}

/* The control protocol's answer is out already, so a person reads this where the console would be.
 */
static void turn_away(int fd, const struct err *why)
{
    char line[sizeof(why->text) + 32];
    int length = snprintf(line, sizeof(line), "[minivmm: %s]\r\n", why->text);
    ssize_t told = send(fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)told;
    close(fd);
}

int console_hub_attach(struct console_hub *hub, int fd, const void *early, size_t early_length,
                       struct err *err)
{
    struct err why = {0};
    struct client *client = NULL;
    int ret = add_client(hub, fd, early, early_length, &client, &why);
    if (ret < 0) {
        turn_away(fd, &why);
        if (err)
            *err = why;
        return ret;
    }
    pthread_mutex_lock(&hub->lock);
    client->reader.at = hub->head > HUB_RING ? hub->head - HUB_RING : 0;
    pthread_mutex_unlock(&hub->lock);
    offer_input(client);
    bool sent = pump(client);
    finish_turn(client);
    settle(hub, sent);
    return 0;
}

unsigned console_hub_clients(struct console_hub *hub)
{
    unsigned count = 0;
    for (unsigned i = 0; i < HUB_MAX_CLIENTS; i++)
        count += hub->clients[i] && !hub->clients[i]->gone;
    return count;
}

/* --- the log ------------------------------------------------------------------------------ */

struct log_file {
    int fd;
    uint64_t size;
    uint8_t piece[PIECE]; /* on its way to the file: [piece_at, piece_end) */
    size_t piece_at, piece_end;
};

static int write_piece(struct log_file *file)
{
    while (file->piece_at < file->piece_end) {
        ssize_t written = write(file->fd, file->piece + file->piece_at,
                                file->piece_end - file->piece_at);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            file->piece_at += (size_t)written;
            file->size += (size_t)written;
        }
    }
    return 0;
}

static int open_log(const struct console_hub *hub, struct log_file *file)
{
    struct stat info;
    int fd = small_file_append(hub->folder, FOLDER_CONSOLE, 0600);
    if (fd < 0)
        return fd;
    if (fstat(fd, &info) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    file->fd = fd;
    file->size = (uint64_t)info.st_size;
    return 0;
}

/* The log is two files in turn; each has half of what both may have. */
static int make_room(const struct console_hub *hub, struct log_file *file)
{
    size_t length = file->piece_end - file->piece_at;
    int ret = file->fd < 0 ? open_log(hub, file) : 0;
    if (ret < 0 || !file->size || file->size + length <= HUB_LOG_MAX / 2)
        return ret;
    close(file->fd);
    file->fd = -1;
    if (renameat(hub->folder, FOLDER_CONSOLE, hub->folder, LOG_OLD_NAME) < 0)
        return -errno;
    return open_log(hub, file);
}

static struct timespec moment_in(uint64_t ns)
{
    return clock_timespec(clock_monotonic_ns() + ns);
}

/* Sleeps until there is a byte; then a little longer, for those that come behind it. */
static void wait_for_bytes_locked(struct console_hub *hub)
{
    while (hub->log.at == hub->head && !hub->end) {
        hub->log_idle = true;
        pthread_cond_wait(&hub->written, &hub->lock);
    }
    hub->log_idle = false;
    struct timespec until = moment_in(LOG_PAUSE_NS);
    int late = 0;
    hub->log_gathers = true;
    while (hub->log_gathers && !hub->end && late == 0 && hub->head - hub->log.at < LOG_URGENT)
        late = pthread_cond_timedwait(&hub->urgent, &hub->lock, &until);
    hub->log_gathers = false;
}

/* What the guest writes meanwhile waits in the ring, as long as that has it. */
static void wait_for_better_times_locked(struct console_hub *hub)
{
    struct timespec until = moment_in(LOG_RETRY_NS);
    int late = 0;
    while (!hub->end && late == 0)
        late = pthread_cond_timedwait(&hub->urgent, &hub->lock, &until);
}

static void log_piece_locked(struct console_hub *hub, struct log_file *file)
{
    pthread_mutex_unlock(&hub->lock);
    int ret = make_room(hub, file);
    if (ret == 0)
        ret = write_piece(file);
    pthread_mutex_lock(&hub->lock);
    hub->log_error = ret;
}

static void write_log(void *arg)
{
    struct console_hub *hub = arg;
    struct log_file file = {.fd = -1};
    pthread_mutex_lock(&hub->lock);
    for (;;) {
        bool last = hub->end; /* then what cannot be written is lost */
        if (file.piece_at == file.piece_end) {
            file.piece_at = 0;
            file.piece_end = take_locked(hub, &hub->log, file.piece);
        }
        if (file.piece_at < file.piece_end)
            log_piece_locked(hub, &file);
        else if (last)
            break;
        else
            wait_for_bytes_locked(hub);
        if (hub->log_error && last)
            break;
        if (hub->log_error)
            wait_for_better_times_locked(hub);
    }
    pthread_mutex_unlock(&hub->lock);
    if (file.fd >= 0)
        close(file.fd);
}

int console_hub_log_error(struct console_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    int error = hub->log_error;
    pthread_mutex_unlock(&hub->lock);
    return error;
}

/* --- life --------------------------------------------------------------------------------- */

static int create_ring(struct console_hub *hub, int folder_fd, struct err *err)
{
    hub->ring = mmap(NULL, HUB_RING, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (hub->ring == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot create the console's buffer");
    if (folder_fd < 0)
        return 0;
    hub->folder = fcntl(folder_fd, F_DUPFD_CLOEXEC, 0);
    if (hub->folder < 0)
        return err_sys(err, ERR_HOST, errno, "cannot create the console's log");
    return 0;
}

int console_hub_create(struct console_hub **ret_hub, struct loop *loop, int folder_fd,
                       const struct console_hub_handlers *handlers, struct err *err)
{
    struct console_hub *hub = calloc(1, sizeof(*hub));
    if (!hub)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the console");
    hub->loop = loop;
    hub->handlers = *handlers;
    hub->folder = -1;
    hub->told = true; /* nobody listens yet */
    hub->log.begun = true;
    loop_timer_init(&hub->pump, loop, handle_pump, hub);
    loop_timer_init(&hub->room, loop, handle_room, hub);
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->written, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&hub->urgent, &attr);
    pthread_condattr_destroy(&attr);
    int ret = create_ring(hub, folder_fd, err);
    if (ret < 0) {
        console_hub_destroy(hub);
        return ret;
    }
    *ret_hub = hub;
    return 0;
}

static void end_log(struct console_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    hub->end = true;
    pthread_cond_signal(&hub->written);
    pthread_cond_signal(&hub->urgent);
    pthread_mutex_unlock(&hub->lock);
    thread_join(&hub->logger);
}

void console_hub_destroy(struct console_hub *hub)
{
    if (!hub)
        return;
    for (unsigned i = 0; i < HUB_MAX_CLIENTS; i++) {
        struct client *client = hub->clients[i];
        if (!client)
            continue;
        while (pump(client) && !client->blocked)
            ;
        client_destroy(client);
    }
    loop_timer_cancel(&hub->pump);
    loop_timer_cancel(&hub->room);
    end_log(hub);
    if (hub->folder >= 0)
        close(hub->folder);
    if (hub->ring != MAP_FAILED)
        munmap(hub->ring, HUB_RING);
    pthread_cond_destroy(&hub->written);
    pthread_cond_destroy(&hub->urgent);
    pthread_mutex_destroy(&hub->lock);
    free(hub);
}
