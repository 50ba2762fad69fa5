/* SPDX-License-Identifier: MIT */
/*
 * Who keeps the records of who may run which VM (ft/record.h), where both hosts can ask: nothing of
 * our own making runs there. All of it blocks, for as long as the storage or the network does: from
 * a thread that nobody waits for (ft/asker.h has them, and also questions that are bounded).
 *
 * A record that is read was true once, and may be old. An exchange is never wrong: it takes place
 * only if the record still is of the expected generation at that moment, for everybody.
 */
#pragma once

#include "core/err.h"
#include "ft/record.h"

struct witness;

/*
 * "file:PATH", a folder on storage that both hosts have (ft/witness_file.c), or the members of an
 * etcd, "etcd://HOST[:PORT],..." or "etcd:http[s]://HOST[:PORT],..." (ft/witness_etcd.c). Errors
 * name it and the mend: not there, not writable, a file system without what it takes, nobody who
 * answers, not the right password.
 */
int witness_open(struct witness **ret_witness, const char *address, struct err *err) must_check;
/*
 * The same for an address that somebody else has named: nothing is tried out there, or made, where
 * it has no record of this VM yet: ERR_STATE.
 */
int witness_open_known(struct witness **ret_witness, const char *address, const uint8_t uuid[16],
                       struct err *err) must_check;
void witness_close(struct witness *witness); /* NULL is fine */

/* Generation 0: it knows nothing of this VM. */
int witness_read(struct witness *witness, const uint8_t uuid[16], struct ft_record *ret_record,
                 struct err *err) must_check;

/* When this generation began, by the witness's clock: seconds since 1970. -ENOENT: not known. */
int witness_since(const char *address, const uint8_t uuid[16], uint64_t generation,
                  int64_t *ret_seconds) must_check;

/*
 * next->generation is expected + 1. 0: done, and it stays so whatever becomes of us. -EAGAIN: it is
 * not of that generation, *ret_is is what is there instead. Anything else: it is not known whether
 * it took place.
 */
int witness_exchange(struct witness *witness, const uint8_t uuid[16], uint64_t expected,
                     const struct ft_record *next, struct ft_record *ret_is,
                     struct err *err) must_check;
