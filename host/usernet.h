/* SPDX-License-Identifier: MIT */
/*
 * Between netif_user and its helper program, which come from one build:
 *
 *   minivmm-usernet MTU [FORWARD...]       FORWARD: tcp|udp/ADDRESS/HOST_PORT/GUEST_PORT
 *
 * Descriptor NETIF_CHILD_SOCKET is an AF_UNIX SOCK_SEQPACKET socket. The helper's first message is
 * a struct usernet_hello; after USERNET_READY each message is one Ethernet frame, in both
 * directions, without any header. The helper ends when the socket is closed.
 *
 * The guest sees 10.0.2.0/24 and fec0::/64, its gateway (which leads to the host) at .2, a name
 * server at .3, leases from .15 on: the addresses that people know from QEMU.
 */
#pragma once

#include "host/netif.h"

enum {
    USERNET_MAGIC = 0x6e75766d, /* "mvun" */
    USERNET_MTU_MIN = 1280,     /* what IPv6 asks for */
    USERNET_MTU_MAX = 65520,    /* libslirp's */
    USERNET_FRAME_MIN = 14,
    USERNET_FRAME_MAX = NETIF_MAX_FRAME - NETIF_HEADER,
};

enum usernet_outcome {
    USERNET_READY = 1,
    USERNET_NO_FORWARD, /* number `forward` of the command line, because of `errnum` */
    USERNET_NO_SANDBOX, /* a wall that must stand does not: errnum */
};

/* What stands around the helper. The first two always do, the others where the host allows it. */
enum {
    USERNET_WALL_SECCOMP = 1,    /* and no_new_privs */
    USERNET_WALL_CAPS = 2,       /* no capability, no supplementary group that can be dropped */
    USERNET_WALL_NAMESPACES = 4, /* mounts, processes, IPC, host name; users too when not root */
    USERNET_WALL_ROOT = 8,       /* an empty root directory but for etc/resolv.conf */
    USERNET_WALL_FILES = 16,     /* or else: no files but those beside /etc/resolv.conf */
};

struct usernet_hello {
    uint32_t magic;
    uint32_t outcome;
    uint32_t forward;
    uint32_t errnum;
    uint32_t walls;
};
