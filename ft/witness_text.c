/* SPDX-License-Identifier: MIT */
/*
 * A record of a witness, for people and for us:
 *
 *   minivmm witness record 1
 *   vm 6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f80
 *   generation 42
 *   owner 0123456789abcdef
 *   twin fedcba9876543210          or: twin nobody
 *   attempt 00112233445566778899aabbccddeeff
 *   crc32c 89abcdef                of all lines above
 *
 * There is one way to write each. So it is read without ceremony, written again, and has to be the
 * same in every byte.
 */
#include "ft/witness_parts.h"

#include "core/stream.h"
#include "core/words.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "minivmm witness record "

static void format_uuid(const uint8_t uuid[16], char ret_text[37])
{
    size_t at = 0;

    for (unsigned i = 0; i < 16; i++)
        at += (size_t)snprintf(ret_text + at, 37 - at, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

size_t witness_text_format(const struct witness_text *text, char ret_bytes[WITNESS_TEXT_MAX])
{
    char uuid[37], twin[17] = "nobody";

    format_uuid(text->uuid, uuid);
    if (text->record.twin)
        snprintf(twin, sizeof(twin), "%016llx", (unsigned long long)text->record.twin);
    size_t length = (size_t)snprintf(
        ret_bytes, WITNESS_TEXT_MAX,
        HEAD "1\nvm %s\ngeneration %llu\nowner %016llx\ntwin %s\nattempt %016llx%016llx\n", uuid,
        (unsigned long long)text->record.generation, (unsigned long long)text->record.owner, twin,
        (unsigned long long)text->attempt[0], (unsigned long long)text->attempt[1]);
    return length + (size_t)snprintf(ret_bytes + length, WITNESS_TEXT_MAX - length, "crc32c %08x\n",
                                     crc32c(0, ret_bytes, length));
}

/* So many characters of a line's value, "" where there is no such line. */
static void take_value(const char *bytes, const char *key, size_t skip, char *ret_value,
                       size_t size)
{
    const char *at = strstr(bytes, key);
    size_t length = at ? strcspn(at += strlen(key), "\n") : 0;

    length = length > skip ? length - skip : 0;
    snprintf(ret_value, size, "%.*s", (int)(length < size ? length : size - 1),
             length ? at + skip : "");
}

static uint64_t take_number(const char *bytes, const char *key, size_t skip, int base)
{
    char value[21]; /* 2^64 has 20 digits */

    take_value(bytes, key, skip, value, base == 16 ? 17 : sizeof(value));
    return strtoull(value, NULL, base);
}

const char *witness_text_parse(struct witness_text *ret_text, const char *bytes, size_t length)
{
    char whole[WITNESS_TEXT_MAX], again[WITNESS_TEXT_MAX], uuid[37];
    struct witness_text text = {.attempt = {0}};

    if (length == 0)
        return "is empty";
    if (length >= sizeof(whole) || length < strlen(HEAD) || memcmp(bytes, HEAD, strlen(HEAD)) != 0)
        return "is no record of a witness";
    memcpy(whole, bytes, length);
    whole[length] = 0;
    take_value(whole, "\nvm ", 0, uuid, sizeof(uuid));
    text.record.generation = take_number(whole, "\ngeneration ", 0, 10);
    text.record.owner = take_number(whole, "\nowner ", 0, 16);
    text.record.twin = take_number(whole, "\ntwin ", 0, 16);
    text.attempt[0] = take_number(whole, "\nattempt ", 0, 16);
    text.attempt[1] = take_number(whole, "\nattempt ", 16, 16);
    if (parse_uuid(uuid, "vm", text.uuid, NULL) < 0 ||
        witness_text_format(&text, again) != length || memcmp(again, bytes, length) != 0)
        return "is damaged";
    if (text.record.generation == 0 || text.record.generation > WITNESS_MOST_GENERATIONS)
        return "has a senseless generation";
    *ret_text = text;
    return NULL;
}
