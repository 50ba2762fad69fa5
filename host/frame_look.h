/* SPDX-License-Identifier: MIT */
/* What can be seen of a frame that a guest sends, which may be anything. */
#pragma once

#include <stdbool.h>
#include <sys/uio.h>

/*
 * Whether it (host/netif.h) is an acknowledgement of TCP and nothing else: no data, no beginning
 * and no end. Whoever gets it goes on with what he does; the answer that he waits for is another
 * frame. Over IPv4 or IPv6 with no extension headers; false: it may be one all the same.
 */
bool frame_is_bare_ack(const struct iovec *iov, unsigned count);
