/* SPDX-License-Identifier: MIT */
/* Hosts by the addresses that people give them ("HOST[:PORT]", host/link.h): which are the same,
 * and which is this one. */
#pragma once

#include "core/err.h"

/* Each may be several, with commas in between: then one that fits is enough. */

/* They read the same: the same name, in small or large letters, and the same port. Pure. */
bool peer_address_equal(const char *one, const char *other);

/*
 * The same, or both lead to one address with one port. Asks name servers, and so may take long;
 * what cannot be found is no other's.
 */
bool peer_address_same(const char *one, const char *other);

/*
 * It leads to this host, by one of its names or addresses. Not so where the address is a number of
 * the loopback, "127.0.0.1" say: who writes that means this host, and has a reason. May take long,
 * too; what cannot be found is not here.
 */
bool peer_address_is_here(const char *address);
