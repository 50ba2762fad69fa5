/* SPDX-License-Identifier: MIT */
/*
 * CRC-32C (Castagnoli): reflected, polynomial 0x1edc6f41, start and end inverted, as in RFC 3720.
 *
 * x86 has an instruction for it; one chain of it is bound by its latency, three cycles for eight
 * bytes, which is more than any stream of ours carries. Everybody else looks bytes up in a table.
 */
#include "core/stream.h"
#include <string.h>

/*
 * What one byte does to the remainder. The CRC is linear, so the entry for a byte is the XOR of the
 * entries of its bits: eight numbers give the compiler the table of 256.
 */
#define BIT(byte, bit, entry) (((byte) >> (bit)&1) ? (entry) : 0u)
#define ENTRY(b)                                                                \
    (BIT(b, 0, 0xf26b8303u) ^ BIT(b, 1, 0xe13b70f7u) ^ BIT(b, 2, 0xc79a971fu) ^ \
     BIT(b, 3, 0x8ad958cfu) ^ BIT(b, 4, 0x105ec76fu) ^ BIT(b, 5, 0x20bd8edeu) ^ \
     BIT(b, 6, 0x417b1dbcu) ^ BIT(b, 7, 0x82f63b78u))
#define ENTRIES_4(b)  ENTRY(b), ENTRY((b) + 1), ENTRY((b) + 2), ENTRY((b) + 3)
#define ENTRIES_16(b) ENTRIES_4(b), ENTRIES_4((b) + 4), ENTRIES_4((b) + 8), ENTRIES_4((b) + 12)
#define ENTRIES_64(b) \
    ENTRIES_16(b), ENTRIES_16((b) + 16), ENTRIES_16((b) + 32), ENTRIES_16((b) + 48)

static const uint32_t table[256] = {ENTRIES_64(0), ENTRIES_64(64), ENTRIES_64(128),
                                    ENTRIES_64(192)};

uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;

    crc = ~crc;
    while (length--)
        crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
    return ~crc;
}

#ifdef __x86_64__

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *bytes,
                                                               size_t length)
{
    const uint8_t *at = bytes;
    uint64_t sum = ~crc;

    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        sum = __builtin_ia32_crc32di(sum, word);
    }
    while (length--)
        sum = __builtin_ia32_crc32qi((uint32_t)sum, *at++);
    return ~(uint32_t)sum;
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse42(crc, bytes, length);
    return crc32c_portable(crc, bytes, length);
}

#else

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
    return crc32c_portable(crc, bytes, length);
}

#endif
