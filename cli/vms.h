/* SPDX-License-Identifier: MIT */
/* How verbs speak of VMs: words of the command line, and the sockets of those that run. */
#pragma once

#include "cli/options.h"
#include "cli/progress.h"
#include "vmm/control.h"
#include "vmm/runtime.h"

#include <sys/types.h>

/*
 * The command line of a verb with a table of options and up to `most` plain words. Prints
 * help(table) where that is asked for.
 */
struct verb_words {
    const char *verb;
    const struct option *table;
    size_t count;
    const char *examples; /* the head of --help: examples, usage, what it does */
    /* Each option as it comes; NULL: there are only --help. */
    int (*take)(void *ctx, int what, const char *value, struct err *err);
    void *ctx;
    size_t least, most;
    const char *missing; /* what is said where there are fewer than `least`: "which VM?" */
    const char *words[64];
    size_t word_count;
};

/* 1: help was printed. */
int verb_words_read(struct verb_words *words, int argc, char **argv, struct err *err) must_check;

/* Does it with each word, whatever becomes of the others. Each error is said; the first one's exit
 * code is what comes back. */
int verb_words_each(const struct verb_words *words,
                    int (*act)(const char *word, const void *ctx, struct err *err),
                    const void *ctx) must_check;

/* A verb of words that are VMs, and nothing else: all of it, and its exit code. */
int verb_plain(const char *verb, const char *examples,
               int (*act)(const char *word, const void *ctx, struct err *err), const void *ctx,
               int argc, char **argv) must_check;

/* How long a VM may take for an answer, ms. */
enum { VM_ANSWER_MS = 10000 };

/*
 * To a VM that runtime_find has found. Between the lock on its info.json and its control socket
 * lies a start, and an end: both are waited for. -EPIPE: it has ended since (ERR_STATE); -EAGAIN:
 * neither came within VM_ANSWER_MS (ERR_STATE). `silence_ms`: how long it may later say nothing
 * where an answer is due.
 */
int vm_connect_to(const struct runtime_info *info, unsigned silence_ms,
                  struct control_client **ret_client, struct err *err) must_check;
/* Both in one: what runtime_find and vm_connect_to return. */
int vm_connect(const char *word, struct control_client **ret_client, struct runtime_info *ret_info,
               struct err *err) must_check;
/* One call and its answer (NULL: not wanted). arguments are taken over. -ESRCH: it does not run;
 * -EPIPE: it has ended while it was asked. */
int vm_call(const char *word, const char *verb, json_t *arguments, json_t **ret_answer,
            struct err *err) must_check;

/*
 * The process of a VM that runs, to wait for: afterwards its number may be another's. -ESRCH: it
 * has just ended.
 */
int vm_open_process(const struct runtime_info *info, struct err *err) must_check;
/* 0: it has ended, and its folder and disks are free again. -ETIMEDOUT, not said: not until then.
 */
int vm_wait_process(int process, uint64_t until_ns, const struct runtime_info *info,
                    struct err *err) must_check;

/* Closes the process (-1: there is none). Where its VM has gone to another host: not before nothing
 * of it is in the way of its return. */
void vm_see_off(int process, const struct runtime_info *info, bool gone);

/* The file of a link's key, by its whole path, into a verb's arguments. */
int vm_put_key(json_t *arguments, const char *path, struct err *err) must_check;

/* An event of this name tells how far something is: it is shown. */
void vm_show_progress(const json_t *event, const char *name, struct progress *progress);

/* A folder, whatever it is called. */
struct vm_place {
    char *path;
    dev_t device;
    ino_t inode;
};

/* Where the folder of this process's VM is now: it may have been moved since the start. False:
 * nobody can tell. */
bool vm_find_place(int64_t pid, struct vm_place *ret_place) must_check;
