/* SPDX-License-Identifier: MIT */
/* What ft/secondary.c stands on, for its test: the protocol and the machine are played here. */
#pragma once

#define conductor_tell    test_conductor_tell
#define conductor_detach  test_conductor_detach
#define conductor_writing test_conductor_writing
#define loop_step_do      test_loop_step_do
#define arrival_load      test_arrival_load
#define arrival_try       test_arrival_try
#define machine_announce  test_machine_announce
#define machine_memory    test_machine_memory
#define memory_lock       test_memory_lock
#define memory_unlock     test_memory_unlock
#include "ft/secondary.c"

#include "tests/unit/link_rig.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { MIB = 1 << 20, PAGES = 16, DISKS = 2, SIZE = 3 * MIB + 512, GENERATION = 7, PLACE = 4 };

static struct {
    struct side side;
    struct link *owner;
    struct frame at;
    struct frame_tally tally;
    uint8_t disks[DISKS][SIZE]; /* as the owner has them */
    uint8_t memory[PAGES * PAGE_SIZE];
    uint64_t seed;

    struct arrival arrival;
    struct secondary *secondary;
    int fds[DISKS];
    atomic_bool cannot_sync;
    atomic_uint failing_writes; /* so many of those that come */
    char place[40];             /* the folder of its journal; "": it has none */

    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    bool follows;
    bool claims; /* the protocol: nothing more is taken */
    pthread_t follower;
    uint8_t journal[1 << 16];   /* as it was when the last epoch was acknowledged, and... */
    size_t journalled;          /* ...its bytes */
    char state[6];              /* what was loaded */
    int filled_at, followed_at; /* nice values of who takes what comes: before, in the last epoch */
    /* What it did, a letter each: e has an epoch; D has lost its owner; s has synced a disk; a says
     * that it has applied; L loads; T has taken over; F could not. */
    char steps[80];
} t;

static void note(char step)
{
    pthread_mutex_lock(&t.lock);
    size_t length = strlen(t.steps);
    if (length + 1 < sizeof(t.steps))
        t.steps[length] = step;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

/* --- what it stands on ------------------------------------------------------------------------ */

/* In place of the C library's: only what its own thread does between its epochs counts; there is
 * another one that syncs now and then. */
int fdatasync(int fd)
{
    pthread_mutex_lock(&t.lock);
    bool counts = t.follows && pthread_equal(t.follower, pthread_self());
    pthread_mutex_unlock(&t.lock);
    if (counts)
        note('s');
    if (t.cannot_sync) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* In place of the C library's. */
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    if (t.failing_writes > 0) {
        t.failing_writes--;
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

static void look_at_journal(void)
{
    int fd = t.place[0] ? openat(t.arrival.folder.fd, FOLDER_EPOCHS, O_RDONLY) : -1;
    ssize_t length = fd < 0 ? 0 : read(fd, t.journal, sizeof(t.journal));
    t.journalled = length < 0 ? 0 : (size_t)length;
    if (fd >= 0)
        close(fd);
}

void conductor_tell(struct conductor *conductor, const struct ft_event *event)
{
    switch (event->kind) {
    case FT_HEARD:
        pthread_mutex_lock(&t.lock);
        if (!t.secondary->filled)
            t.filled_at = getpriority(PRIO_PROCESS, 0);
        pthread_mutex_unlock(&t.lock);
        break;
    case FT_STAGED:
        if (t.claims)
            break;
        look_at_journal();
        pthread_mutex_lock(&t.lock);
        t.followed_at = getpriority(PRIO_PROCESS, 0);
        t.follower = pthread_self();
        t.follows = true;
        pthread_mutex_unlock(&t.lock);
        secondary_apply(t.secondary);
        note('e');
        break;
    case FT_DISCONNECTED:
        note('D');
        secondary_apply_last(t.secondary);
        break;
    case FT_APPLIED:
        note('a');
        secondary_take_over(t.secondary);
        break;
    default:
        break;
    }
}

void conductor_detach(struct conductor *conductor)
{
}

pthread_mutex_t *conductor_writing(struct conductor *conductor)
{
    static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
    return &writing;
}

int loop_step_do(struct loop_step *unused, int (*run_step)(void *ctx, struct err *err), void *ctx,
                 struct err *err)
{
    return run_step(ctx, err);
}

int arrival_try(struct arrival *arrival, struct err *err)
{
    return 0;
}

int arrival_load(struct arrival *arrival, struct err *err)
{
    memcpy(t.state, arrival->state.bytes, sizeof(t.state) - 1);
    note('L');
    return 0;
}

bool machine_announce(struct machine *machine)
{
    return false;
}

struct memory *machine_memory(struct machine *machine)
{
    return NULL; /* there is no machine, and nothing to lock */
}

int memory_lock(struct memory *memory)
{
    return 0;
}

void memory_unlock(struct memory *memory)
{
}

static int handle_settle(void *ctx, struct err *err)
{
    return 0;
}

static void handle_taken_over(void *ctx)
{
    note('T');
}

static void handle_failed(void *ctx)
{
    note('F');
}
