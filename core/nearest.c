/* SPDX-License-Identifier: MIT */
#include "core/nearest.h"

#include <limits.h>
#include <string.h>

enum { MAX_WORD = 31 };

/* Edit distance, with neighbours that changed places counting as one (--mempry, --kenrel). */
static unsigned distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    if (la > MAX_WORD || lb > MAX_WORD)
        return UINT_MAX; /* as far as can be: half a word of that length is no typing error */
    unsigned d[MAX_WORD + 1][MAX_WORD + 1];
    for (size_t i = 0; i <= la; i++) {
        for (size_t j = 0; j <= lb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (unsigned)(i + j);
                continue;
            }
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[la][lb];
}

const char *nearest_word(const char *word, const char *(*next)(const void *ctx, size_t i),
                         const void *ctx)
{
    const char *nearest = NULL;
    unsigned best = (unsigned)strlen(word) / 3 +
                    1; /* further away is a guess, not a typing error */
    const char *candidate;
    for (size_t i = 0; (candidate = next(ctx, i)); i++) {
        unsigned d = distance(word, candidate);
        if (d <= best) {
            best = d - (d > 0); /* a later one must be strictly nearer */
            nearest = candidate;
        }
    }
    return nearest;
}
