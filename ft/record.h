/* SPDX-License-Identifier: MIT */
/*
 * What a witness keeps of a VM. The owner may run it; the twin, unless it is nobody ("solo"), may
 * make itself the owner. The only way to change a record is to exchange it for one of the next
 * generation, so that of two who want to exactly one does.
 */
#pragma once

#include <stdint.h>

/* The twin's number where a person has taken the VM for the owner: no twin ever has it. */
#define FT_FORCED UINT64_MAX

struct ft_record {
    uint64_t generation; /* 0: the witness knows nothing of this VM */
    uint64_t owner;      /* the number of a node's folder */
    uint64_t twin;       /* of a follower, new each time it begins to follow; 0: solo; FT_FORCED */
};
