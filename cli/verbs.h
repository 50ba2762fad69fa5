/* SPDX-License-Identifier: MIT */
/* One function for each verb of the command line; each returns the exit code. */
#pragma once

#include "core/err.h"

int verb_run(int argc, char **argv);
int verb_check(int argc, char **argv);

/* Prints what went wrong and returns the exit code that belongs to it. */
int fail(const struct err *err);
