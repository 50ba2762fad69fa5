/* SPDX-License-Identifier: MIT */
/*
 * minivmm-usernet: the network stack of one VM in user mode, in a process and a sandbox of its own.
 * Started by the VMM (host/netif_user.c; the protocol is in host/usernet.h), never by hand.
 */
#include "host/netif_child.h"
#include "host/usernet.h"
#include "usernet/sandbox.h"
#include "usernet/stack.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static bool say(uint32_t outcome, uint32_t forward, int errnum, uint32_t walls)
{
    struct usernet_hello hello = {.magic = USERNET_MAGIC,
                                  .outcome = outcome,
                                  .forward = forward,
                                  .errnum = (uint32_t)errnum,
                                  .walls = walls};
    return send(NETIF_CHILD_SOCKET, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello);
}

_Noreturn static void refuse(uint32_t outcome, uint32_t forward, int ret)
{
    say(outcome, forward, -ret, 0);
    _exit(EXIT_FAILURE);
}

static bool started_by_the_vmm(int argc)
{
    int type;
    socklen_t length = sizeof(type);
    return argc >= 2 && argc <= NETIF_MAX_FORWARDS + 2 &&
           getsockopt(NETIF_CHILD_SOCKET, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
           type == SOCK_SEQPACKET;
}

int main(int argc, char **argv)
{
    if (!started_by_the_vmm(argc)) {
        fprintf(stderr, "minivmm-usernet: minivmm starts this program, for a VM with --net user\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);

    struct stack *stack = stack_create(NETIF_CHILD_SOCKET, (unsigned)strtoul(argv[1], NULL, 10));
    if (!stack)
        refuse(USERNET_NO_SANDBOX, 0, -ENOMEM);
    for (int i = 2; i < argc; i++) {
        int ret = stack_forward(stack, argv[i]);
        if (ret < 0)
            refuse(USERNET_NO_FORWARD, (uint32_t)i - 2, ret);
    }

    int channel, resolver_file = -1;
    uint32_t walls;
    pid_t worker = sandbox_fork(&channel, &walls);
    if (worker > 0)
        keeper_run(worker, channel);

    if (walls & USERNET_WALL_NAMESPACES)
        resolver_file = sandbox_enter_root();
    if (resolver_file >= 0) {
        walls |= USERNET_WALL_ROOT;
        stack_set_resolver(stack, channel, resolver_file);
    }
    int ret = sandbox_drop_privileges();
    if (ret == 0 && resolver_file < 0 && sandbox_limit_files())
        walls |= USERNET_WALL_FILES;
    if (ret == 0)
        ret = sandbox_limit_calls_of_worker(resolver_file);
    if (ret < 0)
        refuse(USERNET_NO_SANDBOX, 0, ret);
    if (say(USERNET_READY, 0, 0, walls | USERNET_WALL_CAPS | USERNET_WALL_SECCOMP))
        stack_run(stack);
    _exit(EXIT_SUCCESS);
}
