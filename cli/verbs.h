/* SPDX-License-Identifier: MIT */
/* One function for each verb of the command line; each returns the exit code. */
#pragma once

#include "core/err.h"

int verb_run(int argc, char **argv);
int verb_list(int argc, char **argv);
int verb_status(int argc, char **argv);
int verb_console(int argc, char **argv);
int verb_stop(int argc, char **argv);
int verb_pause(int argc, char **argv);
int verb_resume(int argc, char **argv);
int verb_reset(int argc, char **argv);
int verb_set(int argc, char **argv);
int verb_new(int argc, char **argv);
int verb_clone(int argc, char **argv);
int verb_snapshot(int argc, char **argv);
int verb_snapshots(int argc, char **argv);
int verb_remove_snapshot(int argc, char **argv);
int verb_restore(int argc, char **argv);
int verb_migrate(int argc, char **argv);
int verb_standby(int argc, char **argv);
int verb_protect(int argc, char **argv);
int verb_unprotect(int argc, char **argv);
int verb_switchover(int argc, char **argv);
int verb_epochs(int argc, char **argv);
int verb_rename(int argc, char **argv);
int verb_remove(int argc, char **argv);
int verb_report(int argc, char **argv);
int verb_key(int argc, char **argv);
int verb_pair(int argc, char **argv);
int verb_unpair(int argc, char **argv);
int verb_pairs(int argc, char **argv);
int verb_check(int argc, char **argv);

/* Prints what went wrong and returns the exit code that belongs to it. */
int fail(const struct err *err);
