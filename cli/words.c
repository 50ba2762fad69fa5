/* SPDX-License-Identifier: MIT */
#include "cli/words.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

char *words_cut(char **at)
{
    char *part = *at, *to = part, *from = part;
    for (; *from && !(from[0] == ',' && from[1] != ','); from++) {
        if (from[0] == ',')
            from++;
        *to++ = *from;
    }
    *at = *from ? from + 1 : NULL;
    *to = '\0';
    return part;
}

char *words_value(char *part)
{
    char *equals = strchr(part, '=');
    if (equals)
        *equals++ = '\0';
    return equals;
}

int words_unknown(const char *option, const char *what, const char *word, const char *const *words,
                  struct err *err)
{
    int ret = err_say(err, ERR_USAGE, EINVAL, "%s: %s \"%s\" is not known", option, what, word);
    const char *near = words_nearest(words, word);
    if (near) {
        err_hint(err, "did you mean \"%s\"?", near);
        return ret;
    }
    char list[200] = "";
    for (size_t i = 0; words[i]; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
    }
    err_hint(err, "there are: %s", list);
    return ret;
}

int words_check_value(const char *option, const char *key, const char *value, bool is_flag,
                      struct err *err)
{
    if (is_flag && value)
        return err_say(err, ERR_USAGE, EINVAL, "%s: %s takes no value", option, key);
    if (!is_flag && !value)
        return err_say(err, ERR_USAGE, EINVAL, "%s: %s needs a value: %s=...", option, key, key);
    return 0;
}
