/* SPDX-License-Identifier: MIT */
#include "ft/delta.h"

#include "core/stream.h"
#include <endian.h>
#include <string.h>

enum { WORD = 8, CRC = 4, RUN_HEAD = 4 };

static uint8_t *put_u16(uint8_t *at, size_t value)
{
    uint16_t wire = htole16((uint16_t)value);
    memcpy(at, &wire, sizeof(wire));
    return at + sizeof(wire);
}

static unsigned get_u16(const uint8_t *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

/* From one word to another one, of which the last may be short. */
static size_t span(size_t first, size_t words, size_t length)
{
    size_t begin = first * WORD, end = begin + words * WORD;
    return (end < length ? end : length) - begin;
}

static bool differ(const uint8_t *old, const uint8_t *new, size_t word, size_t length)
{
    return memcmp(old + word * WORD, new + word *WORD, span(word, 1, length)) != 0;
}

uint8_t *delta_encode(const uint8_t *old, const uint8_t *new, size_t length, uint8_t *at,
                      const uint8_t *end)
{
    size_t words = (length + WORD - 1) / WORD;
    if (length > DELTA_MOST || end - at < CRC)
        return NULL;
    uint32_t crc = htole32(crc32c(0, new, length));
    memcpy(at, &crc, CRC);
    at += CRC;
    for (size_t word = 0; word < words; word++) {
        size_t first = word;
        while (word < words && differ(old, new, word, length))
            word++;
        if (word == first)
            continue;
        size_t bytes = span(first, word - first, length);
        if ((size_t)(end - at) < RUN_HEAD + bytes)
            return NULL;
        at = put_u16(put_u16(at, first), word - first);
        memcpy(at, new + first *WORD, bytes);
        at += bytes;
    }
    return at;
}

bool delta_apply(const uint8_t *delta, size_t delta_length, uint8_t *bytes, size_t length)
{
    const uint8_t *at = delta, *end = delta + delta_length;
    size_t words = (length + WORD - 1) / WORD;
    uint32_t crc;
    if (delta_length < CRC)
        return false;
    memcpy(&crc, at, CRC);
    at += CRC;
    while (end - at >= RUN_HEAD) {
        size_t first = get_u16(at), count = get_u16(at + 2);
        at += RUN_HEAD;
        if (first >= words || count > words - first)
            return false;
        size_t run = span(first, count, length);
        if ((size_t)(end - at) < run)
            return false;
        memcpy(bytes + first * WORD, at, run);
        at += run;
    }
    return at == end && crc32c(0, bytes, length) == le32toh(crc);
}
