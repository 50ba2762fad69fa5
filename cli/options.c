/* SPDX-License-Identifier: MIT */
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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
