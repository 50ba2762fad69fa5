/* SPDX-License-Identifier: MIT */
/* What two hosts say to each other to become a pair: over ssh, with `minivmm pair --accept`. */
#pragma once

#include "host/key_store.h"
#include <sys/types.h>

/* Fingerprints of the keys that the other side has for us; "": none. */
struct pair_prints {
    char first[LINK_KEY_PRINT], second[LINK_KEY_PRINT];
};

struct pair_talk {
    const char *destination; /* for ssh: [USER@]HOST */
    const char *as;          /* what the other side calls us */
    int to, from;
    pid_t ssh;
};

/*
 * Says on standard error what ssh says there, and may ask for a password at the terminal; then the
 * other side has greeted. `remote_command` is for a shell over there.
 */
int pair_talk_begin(struct pair_talk *talk, const char *remote_command, struct err *err) must_check;
/* Each tells what the other side has then. */
int pair_talk_show(struct pair_talk *talk, struct pair_prints *ret_prints,
                   struct err *err) must_check;
/* `name`: what we call the other side. */
int pair_talk_add(struct pair_talk *talk, const char *name, const struct link_key *key,
                  struct pair_prints *ret_prints, struct err *err) must_check;
int pair_talk_settle(struct pair_talk *talk, const char *print, struct pair_prints *ret_prints,
                     struct err *err) must_check;
int pair_talk_drop(struct pair_talk *talk, const char *print, struct pair_prints *ret_prints,
                   struct err *err) must_check;
void pair_talk_end(struct pair_talk *talk);

/* The other side of it, until `from` ends. */
int pair_accept(int from, int to, struct err *err) must_check;

/* Lines of text, for both sides. */
enum { PAIR_LINE = 1024, PAIR_VERSION = 1, PAIR_PATIENCE_MS = 30000 };
#define PAIR_GREETING "minivmm-pair"

/* Without its newline. -ENODATA at the end, -EMSGSIZE where it is too long, -ETIMEDOUT. timeout_ms
 * is for each byte; -1: none. */
int pair_read_line(int from, char ret_line[PAIR_LINE], int timeout_ms) must_check;
int pair_write_line(int to, const char *line) must_check; /* with its newline */
