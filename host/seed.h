/* SPDX-License-Identifier: MIT */
/*
 * A seed: the small disk from which cloud-init in a guest learns, at its first boot, whom it may
 * let in (data source NoCloud: a file system with the label "cidata" that holds meta-data and
 * user-data). It is made in memory; nothing is written to the host.
 */
#pragma once

#include "core/err.h"

struct seed_config {
    const char *user;     /* the account; NULL: the image's default one */
    const char *key;      /* one or more public ssh keys, a line each; NULL: none */
    const char *password; /* NULL: none can be used */
    const char *hostname; /* NULL: the image's */
    uint8_t instance[16]; /* another one makes cloud-init begin anew */
};

/* Names as a seed takes them. */
bool seed_is_user(const char *name);
bool seed_is_hostname(const char *name);

/* A file of public keys, a line each: *ret_keys, free() it. -EINVAL, of which ERR_DEFINITION is the
 * kind: it is none. */
int seed_read_keys(const char *path, char **ret_keys, struct err *err) must_check;

/* The disk's bytes (free() them), a multiple of 512. */
int seed_make(const struct seed_config *config, void **ret_bytes, size_t *ret_size,
              struct err *err) must_check;
