/* SPDX-License-Identifier: MIT */
#include "ft/witness_parts.h"

#include "core/words.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const schemes[] = {"file", "etcd", NULL};

static int say_unknown(const char *address, const char *scheme, struct err *err)
{
    const char *nearest = words_nearest(schemes, scheme);
    int r = err_say(err, ERR_USAGE, EINVAL, "\"%.200s\" is no witness", address);

    if (address[0] == '/')
        err_hint(err, "file:%.200s is this folder", address);
    else if (nearest && *scheme)
        err_hint(err, "did you mean %s:...?", nearest);
    else
        err_hint(err, "file:PATH is a folder on storage that both hosts have, etcd://HOST,HOST... "
                      "an etcd");
    return r;
}

static int open_witness(struct witness **ret_witness, const char *address, const uint8_t known[16],
                        struct err *err)
{
    char scheme[16] = "";
    size_t length = strcspn(address, ":");

    if (length < sizeof(scheme))
        memcpy(scheme, address, length);
    if (address[length] && strcmp(scheme, "file") == 0)
        return witness_file_open(ret_witness, address + length + 1, known, err);
    if (address[length] && strcmp(scheme, "etcd") == 0)
        return witness_etcd_open(ret_witness, address + length + 1, known, err);
    return say_unknown(address, scheme, err);
}

int witness_open(struct witness **ret_witness, const char *address, struct err *err)
{
    return open_witness(ret_witness, address, NULL, err);
}

int witness_open_known(struct witness **ret_witness, const char *address, const uint8_t uuid[16],
                       struct err *err)
{
    return open_witness(ret_witness, address, uuid, err);
}

void witness_close(struct witness *witness)
{
    if (witness)
        witness->ops->close(witness);
}

int witness_read(struct witness *witness, const uint8_t uuid[16], struct ft_record *ret_record,
                 struct err *err)
{
    return witness->ops->read(witness, uuid, ret_record, err);
}

int witness_since(const char *address, const uint8_t uuid[16], uint64_t generation,
                  int64_t *ret_seconds)
{
    bool is_file = strncmp(address, "file:", 5) == 0;

    return is_file ? witness_file_since(address + 5, uuid, generation, ret_seconds) : -ENOENT;
}

int witness_exchange(struct witness *witness, const uint8_t uuid[16], uint64_t expected,
                     const struct ft_record *next, struct ft_record *ret_is, struct err *err)
{
    assert(next->generation == expected + 1);
    return witness->ops->exchange(witness, uuid, expected, next, ret_is, err);
}
