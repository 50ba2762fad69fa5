/* SPDX-License-Identifier: MIT */
#include "host/turn.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void handle_io(void *arg, unsigned events)
{
    struct turn *turn = arg;

    atomic_store(&turn->asked, false); /* before the turn looks at what there is to do */
    turn->handle(turn->arg);
}

void turn_ask(struct turn *turn)
{
    const uint64_t one = 1;

    if (!atomic_exchange(&turn->asked, true) && write(turn->io.fd, &one, sizeof(one)) < 0)
        return; /* its counter is full: not within the age of the universe */
}

int turn_attach(struct turn *turn, struct loop *loop, struct err *err)
{
    int r = loop_io_add(loop, &turn->io, err);
    if (r < 0)
        return r;
    turn->loop = loop;
    return 0;
}

void turn_detach(struct turn *turn)
{
    if (turn->loop)
        loop_io_remove(turn->loop, &turn->io);
    turn->loop = NULL;
}

int turn_init(struct turn *turn, void (*handle)(void *arg), void *arg, struct err *err)
{
    *turn = (struct turn){.handle = handle, .arg = arg};
    turn->io = (struct loop_io){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                .events = LOOP_READ | LOOP_EDGE,
                                .handle = handle_io,
                                .arg = turn};
    return turn->io.fd < 0 ? err_sys(err, ERR_HOST, errno, "cannot make an eventfd") : 0;
}

void turn_finish(struct turn *turn)
{
    if (turn->io.fd >= 0)
        close(turn->io.fd);
}
