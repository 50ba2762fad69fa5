/* SPDX-License-Identifier: MIT */
/*
 * CRC-32C (Castagnoli): reflected, polynomial 0x1edc6f41, start and end inverted, as in RFC 3720.
 *
 * x86 has an instruction for it. One chain of it is bound by its latency, three cycles for eight
 * bytes, so a long run is three chains side by side (0.04 s a GiB where one took 0.11), which are
 * put together at the end: bytes that follow multiply a remainder by a power of x, and that power
 * is a constant for lanes of one length.
 * Out of memory it is 0.06 s a GiB, copying included 0.075, where memcpy alone takes 0.1: it
 * fetches ahead. Everybody else looks bytes up in a table.
 *
 * Where the CPU multiplies several of such numbers at once a long run is folded: what is at its
 * beginning is multiplied onto what is further on, until little is left that has the same
 * remainder. In the cache that is a third of what three chains take.
 */
#include "core/stream.h"
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

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

#define INSTRUCTIONS __attribute__((target("sse4.2,pclmul")))
#define WITHIN       __attribute__((always_inline)) static inline /* once for each `copies` */

typedef uint64_t __attribute__((aligned(1), may_alias)) loose_word;

enum { WORD = 8, LINE = 64 };

/*
 * A word is loaded once, whatever the compiler thinks of it: where somebody writes to it meanwhile,
 * what is summed is what is copied.
 */
INSTRUCTIONS WITHIN uint64_t add_word(uint64_t sum, uint8_t *to, const uint8_t *from, size_t at,
                                      bool copies)
{
    uint64_t word = *(const volatile loose_word *)(from + at);
    if (copies)
        memcpy(to + at, &word, sizeof(word));
    return _mm_crc32_u64(sum, word);
}

INSTRUCTIONS WITHIN uint32_t add_byte(uint32_t sum, uint8_t *to, const uint8_t *from, size_t at,
                                      bool copies)
{
    uint8_t byte = *(const volatile uint8_t *)(from + at);
    if (copies)
        to[at] = byte;
    return _mm_crc32_u8(sum, byte);
}

INSTRUCTIONS WITHIN uint32_t one_chain(uint32_t remainder, uint8_t *to, const uint8_t *from,
                                       size_t length, bool copies)
{
    uint64_t sum = remainder;
    size_t at = 0;

    for (; length - at >= WORD; at += WORD)
        sum = add_word(sum, to, from, at, copies);
    for (; at < length; at++)
        sum = add_byte((uint32_t)sum, to, from, at, copies);
    return (uint32_t)sum;
}

/*
 * x^(8n - 33) modulo the polynomial, reflected, for n = LANE and 2 LANE: 32 of the 33 are what the
 * instruction multiplies with by itself, and one is that of two reflected numbers' product.
 */
enum { LANE = 1024 };
static const uint32_t over_one_lane = 0x170076fa, over_two_lanes = 0xa51b6135;

INSTRUCTIONS static uint32_t follow(uint64_t remainder, uint32_t by)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)remainder),
                                           _mm_cvtsi64_si128((int64_t)by), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* What comes next is on its way from memory meanwhile: the CPU by itself does not see that far. */
static inline void fetch_ahead(const uint8_t *from)
{
    __builtin_prefetch(from + 3 * LANE);
    __builtin_prefetch(from + 4 * LANE);
    __builtin_prefetch(from + 5 * LANE);
}

INSTRUCTIONS WITHIN uint32_t three_chains(uint32_t remainder, uint8_t *to, const uint8_t *from,
                                          bool copies)
{
    uint64_t first = remainder, second = 0, third = 0;

    for (size_t line = 0; line < LANE; line += LINE) {
        fetch_ahead(from + line);
        for (size_t at = line; at < line + LINE; at += WORD) {
            first = add_word(first, to, from, at, copies);
            second = add_word(second, to, from, at + LANE, copies);
            third = add_word(third, to, from, at + 2 * LANE, copies);
        }
    }
    return follow(first, over_two_lanes) ^ follow(second, over_one_lane) ^ (uint32_t)third;
}

/*
 * Four registers of 64 bytes are FOLD bytes, which are multiplied by x^(8 FOLD) and so added to the
 * next FOLD bytes: of each 16 the first eight by x^(8 FOLD + 32) and the others by x^(8 FOLD - 32),
 * modulo the polynomial, reflected, and shifted by the one that two reflected numbers' product
 * lacks.
 */
enum { REGISTER = 64, REGISTERS = 4, FOLD = REGISTERS * REGISTER, WORTH_FOLDING = 4096 };
static const int64_t over_fold_first = 0xdcb17aa4, over_fold_second = 0xb9e02b86;

#define WIDE __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

/* Loaded once, as a word is above. */
WIDE WITHIN __m512i load_wide(uint8_t *to, const uint8_t *from, bool copies)
{
    __m512i value = _mm512_loadu_si512(from);
    __asm__ volatile("" : "+v"(value));
    if (copies)
        _mm512_storeu_si512(to, value);
    return value;
}

/* Takes multiples of FOLD. */
WIDE WITHIN uint32_t fold(uint32_t remainder, uint8_t *to, const uint8_t *from, size_t length,
                          bool copies)
{
    const __m512i by = _mm512_set4_epi64(over_fold_second, over_fold_first, over_fold_second,
                                         over_fold_first);
    __m512i sums[REGISTERS];
    uint8_t left[FOLD];

    for (unsigned i = 0; i < REGISTERS; i++)
        sums[i] = load_wide(copies ? to + i * REGISTER : to, from + i * REGISTER, copies);
    sums[0] = _mm512_xor_si512(sums[0], _mm512_maskz_set1_epi32(1, (int)remainder));
    for (size_t at = FOLD; at < length; at += FOLD) {
        for (unsigned i = 0; i < REGISTERS; i++) {
            size_t here = at + i * REGISTER;
            __builtin_prefetch(from + here + WORTH_FOLDING);
            sums[i] = _mm512_ternarylogic_epi64(
                _mm512_clmulepi64_epi128(sums[i], by, 0x00),
                _mm512_clmulepi64_epi128(sums[i], by, 0x11),
                load_wide(copies ? to + here : to, from + here, copies), 0x96);
        }
    }
    for (unsigned i = 0; i < REGISTERS; i++)
        _mm512_storeu_si512(left + i * REGISTER, sums[i]);
    return one_chain(0, NULL, left, FOLD, false);
}

WIDE WITHIN uint32_t add_wide(uint32_t crc, uint8_t *to, const uint8_t *from, size_t length,
                              bool copies)
{
    size_t folded = length / FOLD * FOLD;
    uint32_t remainder = fold(~crc, to, from, folded, copies);
    return ~one_chain(remainder, copies ? to + folded : to, from + folded, length - folded, copies);
}

INSTRUCTIONS WITHIN uint32_t add(uint32_t crc, uint8_t *to, const uint8_t *from, size_t length,
                                 bool copies)
{
    size_t at = 0;

    crc = ~crc;
    for (; length - at >= 3 * LANE; at += 3 * LANE)
        crc = three_chains(crc, copies ? to + at : to, from + at, copies);
    return ~one_chain(crc, copies ? to + at : to, from + at, length - at, copies);
}

INSTRUCTIONS static uint32_t fast(uint32_t crc, const void *bytes, size_t length)
{
    return add(crc, NULL, bytes, length, false);
}

INSTRUCTIONS static uint32_t fast_copy(uint32_t crc, void *to, const void *from, size_t length)
{
    return add(crc, to, from, length, true);
}

WIDE static uint32_t wide(uint32_t crc, const void *bytes, size_t length)
{
    return add_wide(crc, NULL, bytes, length, false);
}

WIDE static uint32_t wide_copy(uint32_t crc, void *to, const void *from, size_t length)
{
    return add_wide(crc, to, from, length, true);
}

static bool is_wide(size_t length)
{
    return length >= WORTH_FOLDING && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("vpclmulqdq");
}

static bool is_fast(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
    if (length == 0)
        return crc; /* bytes may be NULL, to which nothing may be added, not even 0 */
    if (is_wide(length))
        return wide(crc, bytes, length);
    return is_fast() ? fast(crc, bytes, length) : crc32c_portable(crc, bytes, length);
}

uint32_t crc32c_copy(uint32_t crc, void *to, const void *from, size_t length)
{
    if (is_wide(length))
        return wide_copy(crc, to, from, length);
    if (is_fast())
        return fast_copy(crc, to, from, length);
    memcpy(to, from, length);
    return crc32c_portable(crc, to, length);
}

#else

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
    return crc32c_portable(crc, bytes, length);
}

uint32_t crc32c_copy(uint32_t crc, void *to, const void *from, size_t length)
{
    memcpy(to, from, length);
    return crc32c_portable(crc, to, length);
}

#endif
