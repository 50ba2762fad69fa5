/* SPDX-License-Identifier: MIT */
/* The command line of `minivmm run`. */
#pragma once

#include "cli/run_devices.h"

struct run_words {
    const char *folder;           /* a VM's; its vm.json has the say, and NULL: */
    const char *from;             /* the snapshot of which that VM is to be made */
    struct definition definition; /* what the options come to, for a disk or a kernel */
    const char *name;             /* of that disk or kernel */
    struct run_devices devices;
    uint8_t uuid[16];
    bool uuid_said;
    bool ephemeral, detach, no_reboot, exit_port;
    bool force_owner, torn;     /* cli/force_owner.h */
    const char *machine_option; /* the first that is not for a VM's folder */
};

/* Zeroed before, with the defaults of definition. *ret_help: no more than that was asked. */
int run_words_read(struct run_words *words, int argc, char **argv, bool *ret_help,
                   struct err *err) must_check;
void run_words_finish(struct run_words *words);
int run_print_help(void);
