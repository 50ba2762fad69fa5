/* SPDX-License-Identifier: MIT */
/* How verbs speak of VMs: words of the command line, and the sockets of those that run. */
#pragma once

#include "cli/options.h"
#include "vmm/control.h"
#include "vmm/runtime.h"

/*
 * The command line of a verb with a table of options and up to `most` plain words. Prints
 * help(table) and leaves *ret_done where that was asked for.
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

/* How long a VM may take for an answer, ms. */
enum { VM_ANSWER_MS = 10000 };

/* The running VM that the word means. One that does not run is ERR_STATE, where it is a VM. */
int vm_find(const char *word, struct runtime_info *ret_info, struct err *err) must_check;
int vm_connect(const char *word, struct control_client **ret_client, struct runtime_info *ret_info,
               struct err *err) must_check;
/* One call and its answer (NULL: not wanted). arguments are taken over. */
int vm_call(const char *word, const char *verb, json_t *arguments, json_t **ret_answer,
            struct err *err) must_check;
