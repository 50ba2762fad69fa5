/* SPDX-License-Identifier: MIT */
/* Where runtime folders lie, for runtime*.c alone. */
#pragma once

#include "vmm/runtime.h"

#define RUNTIME_INFO "info.json"

enum { RUNTIME_BASES = 2 };

struct runtime_base {
    char path[RUNTIME_BASE_MAX + 1];
    bool among_strangers; /* in /tmp: anybody may have made it before us */
};

/* In the order in which they are tried. ERR_HOST: the one that was said is none. */
int runtime_bases(struct runtime_base ret_bases[RUNTIME_BASES], size_t *ret_count,
                  struct err *err) must_check;

/* Its descriptor, after it was seen to be ours alone; make: made where it is missing. */
int runtime_base_open(const struct runtime_base *base, bool make, struct err *err) must_check;

/* Waits until nobody else makes or removes folders in it; ends when the descriptor is closed. */
int runtime_base_lock(int base, struct err *err) must_check;

/*
 * The info.json of a VM that runs, as a descriptor. -ENOENT: it does not run; another error: that
 * is not known.
 */
int runtime_open_info(int base, const char *uuid) must_check;

/* What is in it; -EINVAL: not what a runtime folder of this UUID has. Without control. */
int runtime_read_info(int fd, const uint8_t uuid[16], struct runtime_info *ret_info) must_check;
