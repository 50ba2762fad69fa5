/* SPDX-License-Identifier: MIT */
/* libslirp with the addresses of host/usernet.h, and the one loop that runs it. */
#pragma once

#include "core/err.h"

struct stack;

/* Frames go to and from vmm_socket. NULL: no memory. */
struct stack *stack_create(int vmm_socket, unsigned mtu);

/* text: tcp|udp/ADDRESS/HOST_PORT/GUEST_PORT. -EINVAL, or why the host gives no such socket. */
int stack_forward(struct stack *stack, const char *text) must_check;

/* The name servers of the host come on `channel` (a SOCK_SEQPACKET socket), and are kept in `file`,
 * which libslirp sees as /etc/resolv.conf. -1, -1: it sees the real one. */
void stack_set_resolver(struct stack *stack, int channel, int file);

/* Returns when the VMM or the resolver's channel is gone. */
void stack_run(struct stack *stack);
