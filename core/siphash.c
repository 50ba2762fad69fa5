/* SPDX-License-Identifier: MIT */
#include "core/siphash.h"

#include <endian.h>
#include <string.h>

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t turn(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static void round_once(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = turn(s->v1, 13) ^ s->v0;
    s->v0 = turn(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = turn(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = turn(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = turn(s->v1, 17) ^ s->v2;
    s->v2 = turn(s->v2, 32);
}

static void take(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    round_once(s);
    round_once(s);
    s->v0 ^= word;
}

static uint64_t finish(struct sip *s)
{
    for (unsigned i = 0; i < 4; i++)
        round_once(s);
    return htole64(s->v0 ^ s->v1 ^ s->v2 ^ s->v3);
}

static uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return le64toh(word);
}

void siphash(const uint8_t key[SIPHASH_KEY], const void *bytes, size_t length,
             uint8_t ret_sum[SIPHASH_SUM])
{
    const uint8_t *at = bytes, *end = at + (length & ~(size_t)7);
    const uint64_t k0 = word_at(key), k1 = word_at(key + 8);
    struct sip s = {.v0 = k0 ^ 0x736f6d6570736575,
                    .v1 = k1 ^ 0x646f72616e646f6d ^ 0xee,
                    .v2 = k0 ^ 0x6c7967656e657261,
                    .v3 = k1 ^ 0x7465646279746573};
    for (; at < end; at += 8)
        take(&s, word_at(at));
    uint8_t last[8] = {0};
    memcpy(last, at, length & 7);
    last[7] = (uint8_t)length;
    take(&s, word_at(last));
    s.v2 ^= 0xee;
    uint64_t sum[2] = {finish(&s)};
    s.v1 ^= 0xdd;
    sum[1] = finish(&s);
    memcpy(ret_sum, sum, SIPHASH_SUM);
}
