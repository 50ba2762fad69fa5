/* SPDX-License-Identifier: MIT */
/* What the interfaces with port forwards share. */
#pragma once

#include "host/netif.h"

/* The host address, with "" spelled out. */
const char *netif_forward_address(const struct netif_forward *forward);

/* Why a forward cannot be: "-p 2222:22: host port 2222 is in use", with the mend. Returns -errnum.
 */
int netif_forward_error(const struct netif_forward *forward, int errnum, struct err *err);
