/* SPDX-License-Identifier: MIT */
/* "Did you mean...?": the word that a person probably meant to type. */
#pragma once

#include "core/err.h"

/* The nearest of the candidates, or NULL where none is near. next(ctx, i) is NULL at the end. */
const char *nearest_word(const char *word, const char *(*next)(const void *ctx, size_t i),
                         const void *ctx);
