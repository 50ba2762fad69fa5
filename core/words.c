/* SPDX-License-Identifier: MIT */
#include "core/words.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- lists ---------------------------------------------------------------------------------- */

int words_find(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static const char *next_word(const void *ctx, size_t i)
{
    return ((const char *const *)ctx)[i];
}

const char *words_nearest(const char *const *words, const char *word)
{
    return nearest_word(word, next_word, (const void *)words);
}

/* --- values --------------------------------------------------------------------------------- */

static uint8_t digit_value(unsigned char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : tolower(digit) - 'a' + 10);
}

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
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | digit_value((unsigned char)text[i]));
        digits++;
    }
    if (i != 36 || text[i] || digits != 32)
        return err_say(err, ERR_USAGE, EINVAL,
                       "%s %s is no UUID: 8-4-4-4-12 hexadecimal digits are wanted", what, text);
    memcpy(ret_uuid, uuid, sizeof(uuid));
    return 0;
}

bool parse_mac_address(const char *text, uint8_t ret_mac[6])
{
    uint8_t mac[6] = {0};
    if (strlen(text) != 17)
        return false;
    for (size_t i = 0; i < 17; i++) {
        unsigned char c = (unsigned char)text[i];
        if (i % 3 == 2 ? c != ':' : !isxdigit(c))
            return false;
        if (i % 3 != 2)
            mac[i / 3] = (uint8_t)(mac[i / 3] << 4 | digit_value(c));
    }
    memcpy(ret_mac, mac, sizeof(mac));
    return true;
}
