/* SPDX-License-Identifier: MIT */
/* What the interfaces with port forwards share. */
#pragma once

#include "host/netif.h"

/* [ADDRESS:]HOST:GUEST[/tcp|/udp], as -p and vm.json have it; an IPv6 address stands in brackets.
 * False where it is none. */
bool netif_forward_parse(const char *text, struct netif_forward *ret_forward) must_check;

/* Both want one port of this host: only one of them can have it. */
bool netif_forward_collide(const struct netif_forward *a, const struct netif_forward *b);

/* The host address, with "" spelled out. */
const char *netif_forward_address(const struct netif_forward *forward);

/* Why a forward cannot be: "-p 2222:22: host port 2222 is in use", with the mend. Returns -errnum.
 */
int netif_forward_error(const struct netif_forward *forward, int errnum, struct err *err);
