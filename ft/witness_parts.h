/* SPDX-License-Identifier: MIT */
/* Between ft/witness.c and the kinds of witnesses. */
#pragma once

#include "ft/witness.h"

/* The promises of ft/witness.h. A kind begins with a struct witness; any thread may call. */
struct witness_ops {
    int (*read)(struct witness *witness, const uint8_t uuid[16], struct ft_record *ret_record,
                struct err *err);
    int (*exchange)(struct witness *witness, const uint8_t uuid[16], uint64_t expected,
                    const struct ft_record *next, struct ft_record *ret_is, struct err *err);
    void (*close)(struct witness *witness);
};

struct witness {
    const struct witness_ops *ops;
};

/* ft/witness_file.c: */

enum { WITNESS_FILE_KEEP = 1000 }; /* so many of a VM's records at least */

/* known: a VM's that it has a record of; NULL: any folder will do. */
int witness_file_open(struct witness **ret_witness, const char *path, const uint8_t known[16],
                      struct err *err) must_check;
int witness_file_since(const char *path, const uint8_t uuid[16], uint64_t generation,
                       int64_t *ret_seconds) must_check;

/*
 * ft/witness_folder.c: whether a record in this folder would be one. Looks at the file system and
 * at who may write there; witness_folder_probe() also tries it out, sweeps what crashes have left,
 * and tells whose files ours are there (a server may make others of root's).
 */
int witness_folder_check(int folder, const char *path, struct err *err) must_check;
int witness_folder_probe(int folder, const char *path, uint32_t *ret_uid,
                         struct err *err) must_check;

enum { WITNESS_NAME = 48 };
/* Of a temporary file; it and the random number are nobody else's, and never were. */
int witness_folder_new_name(char ret_name[WITNESS_NAME], uint64_t ret_attempt[2],
                            struct err *err) must_check;
int witness_folder_say(int error, const char *what, const char *path, struct err *err);

/* ft/witness_etcd.c; address is what comes after "etcd:". */
int witness_etcd_open(struct witness **ret_witness, const char *address, const uint8_t known[16],
                      struct err *err) must_check;

/* ft/witness_text.c: the text of one record. */

enum { WITNESS_TEXT_MAX = 512 };
#define WITNESS_MOST_GENERATIONS ((uint64_t)INT64_MAX) /* one more always is a number */

struct witness_text {
    uint8_t uuid[16];
    struct ft_record record;
    uint64_t attempt[2]; /* random: two that say the same are not the same */
};

/* Returns the length. */
size_t witness_text_format(const struct witness_text *text, char ret_bytes[WITNESS_TEXT_MAX]);
/* NULL: it is whole, each byte as format() makes it. Else what is wrong: "is empty". */
const char *witness_text_parse(struct witness_text *ret_text, const char *bytes, size_t length);
