/* SPDX-License-Identifier: MIT */
/*
 * Options with parts: "FILE,key=value,flag". A comma that belongs to a part is written twice.
 */
#pragma once

#include "core/words.h"

/* Cuts off the part up to the next single comma, in place; *at is NULL after the last. */
char *words_cut(char **at);

/* "key=value" becomes key and value; of "flag" the value is NULL. */
char *words_value(char *part);

/* "--disk: option "readnoly" is not known", and what is near it, or all that there is. */
int words_unknown(const char *option, const char *what, const char *word, const char *const *words,
                  struct err *err);

/* A flag must come without, any other key with a value. */
int words_check_value(const char *option, const char *key, const char *value, bool is_flag,
                      struct err *err) must_check;
