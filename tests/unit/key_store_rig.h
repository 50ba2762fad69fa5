/* SPDX-License-Identifier: MIT */
/* A store of keys in a folder of its own. */
#pragma once

#include "host/key_store.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct store_rig {
    char root[64], path[96];
};

static inline void store_begin(struct store_rig *rig)
{
    snprintf(rig->root, sizeof(rig->root), "/tmp/minivmm-keys-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(rig->root));
    snprintf(rig->path, sizeof(rig->path), "%s/made/keys", rig->root);
    ck_assert_int_eq(setenv("MINIVMM_KEYS_DIR", rig->path, 1), 0);
}

static inline void store_end(struct store_rig *rig)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -r %s", rig->root);
    ck_assert_int_eq(system(command), 0);
    unsetenv("MINIVMM_KEYS_DIR");
}

static inline int store_open(void)
{
    struct err err = {0};
    int store = key_store_open(true, &err);

    ck_assert_msg(store >= 0, "%s", err.text);
    return store;
}

static inline struct key_pair new_pair(const char *as)
{
    struct key_pair pair = {0};

    ck_assert_int_eq(link_key_make(&pair.key, NULL), 0);
    ck_assert_int_eq(link_key_make(&pair.other, NULL), 0);
    snprintf(pair.as, sizeof(pair.as), "%s", as);
    return pair;
}
