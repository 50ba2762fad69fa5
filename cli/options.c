/* SPDX-License-Identifier: MIT */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the nearest word --------------------------------------------------------------------- */

enum { MAX_WORD = 31 };

/* Edit distance, with neighbours that changed places counting as one (--mempry, --kenrel). */
static unsigned distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    if (la > MAX_WORD || lb > MAX_WORD)
        return MAX_WORD;
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

/* --- options ------------------------------------------------------------------------------ */

static const char *option_name(const void *ctx, size_t i)
{
    const struct options *options = ctx;
    return i < options->count ? options->table[i].name : NULL;
}

static int unknown_option(const struct options *options, const char *word, struct err *err)
{
    int ret = err_say(err, ERR_USAGE, EINVAL, "%s: unknown option %s", options->verb, word);
    const char *nearest = word[1] == '-' ? nearest_word(word + 2, option_name, options) : NULL;
    if (nearest)
        err_hint(err, "did you mean --%s?", nearest);
    else
        err_hint(err, "minivmm %s --help lists them", options->verb);
    return ret;
}

static int find_long(const struct options *options, const char *name, size_t length)
{
    for (size_t i = 0; i < options->count; i++)
        if (strlen(options->table[i].name) == length &&
            memcmp(options->table[i].name, name, length) == 0)
            return (int)i;
    return OPTIONS_END;
}

static int find_short(const struct options *options, char letter)
{
    for (size_t i = 0; i < options->count; i++)
        if (options->table[i].letter == letter)
            return (int)i;
    return OPTIONS_END;
}

int options_next(struct options *options, int *ret_what, const char **ret_value, struct err *err)
{
    *ret_value = NULL;
    if (options->at >= options->argc) {
        *ret_what = OPTIONS_END;
        return 0;
    }
    const char *word = options->argv[options->at++];
    if (!options->only_arguments && strcmp(word, "--") == 0) {
        options->only_arguments = true;
        return options_next(options, ret_what, ret_value, err);
    }
    if (options->only_arguments || word[0] != '-' || word[1] == '\0') {
        *ret_what = OPTIONS_ARGUMENT;
        *ret_value = word;
        return 0;
    }

    bool is_long = word[1] == '-';
    const char *equals = is_long ? strchr(word, '=') : NULL;
    size_t length = equals ? (size_t)(equals - word - 2) : is_long ? strlen(word + 2) : 0;
    int what = is_long        ? find_long(options, word + 2, length)
               : word[2] == 0 ? find_short(options, word[1])
                              : OPTIONS_END;
    if (what == OPTIONS_END)
        return unknown_option(options, word, err);
    const struct option *option = &options->table[what];
    if (!option->value && equals)
        return err_say(err, ERR_USAGE, EINVAL, "%s: --%s takes no value", options->verb,
                       option->name);
    if (option->value && !equals && options->at >= options->argc)
        return err_say(err, ERR_USAGE, EINVAL, "%s: --%s needs a value: --%s %s", options->verb,
                       option->name, option->name, option->value);
    if (option->value)
        *ret_value = equals ? equals + 1 : options->argv[options->at++];
    *ret_what = what;
    return 0;
}

void options_print(const struct option *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char left[64];
        int used = table[i].letter ? snprintf(left, sizeof(left), "-%c, ", table[i].letter)
                                   : snprintf(left, sizeof(left), "    ");
        snprintf(left + used, sizeof(left) - (size_t)used, "--%s%s%s", table[i].name,
                 table[i].value ? " " : "", table[i].value ? table[i].value : "");
        printf("  %-24s %s\n", left, table[i].help);
    }
}

/* --- values ------------------------------------------------------------------------------- */

int parse_number(const char *text, const char *what, uint64_t min, uint64_t max,
                 uint64_t *ret_number, struct err *err)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || number < min || number > max)
        return err_say(err, ERR_USAGE, EINVAL, "%s %s: a number from %llu to %llu is wanted", what,
                       text, (unsigned long long)min, (unsigned long long)max);
    *ret_number = number;
    return 0;
}

int parse_size(const char *text, const char *what, uint64_t *ret_bytes, struct err *err)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 20},    {"K", 10},   {"M", 20},   {"G", 30},  {"T", 40},
                 {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    char *end = NULL;
    errno = 0;
    unsigned long long number = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    for (size_t i = 0; end && !errno && i < array_size(units); i++) {
        if (strcasecmp(end, units[i].unit) == 0 && number <= UINT64_MAX >> units[i].shift) {
            *ret_bytes = (uint64_t)number << units[i].shift;
            return 0;
        }
    }
    int ret = err_say(err, ERR_USAGE, EINVAL, "%s %s is no size", what, text);
    err_hint(err, "a whole number with a unit: 512M, 6G (K, M, G or T; without one it means MiB)");
    return ret;
}

int parse_uuid(const char *text, const char *what, uint8_t ret_uuid[16], struct err *err)
{
    uint8_t uuid[16] = {0};
    size_t digits = 0, i = 0;
    for (; text[i] && i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            break;
        if (dash)
            continue;
        unsigned char c = (unsigned char)tolower((unsigned char)text[i]);
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | (c <= '9' ? c - '0' : c - 'a' + 10));
        digits++;
    }
    if (i != 36 || text[i] || digits != 32)
        return err_say(err, ERR_USAGE, EINVAL,
                       "%s %s is no UUID: 8-4-4-4-12 hexadecimal digits are wanted", what, text);
    memcpy(ret_uuid, uuid, sizeof(uuid));
    return 0;
}
