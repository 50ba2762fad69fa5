/* SPDX-License-Identifier: MIT */
/* A fuzzer's input as a program: bytes and little-endian numbers, and zeroes when it is over. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct program {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t take(struct program *program)
{
    if (!program->left)
        return 0;
    program->left--;
    return *program->at++;
}

static inline uint64_t take_number(struct program *program, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)take(program) << 8 * i;
    return value;
}

static inline uint32_t take_u32(struct program *program)
{
    return (uint32_t)take_number(program, 4);
}

static inline void require(bool promise)
{
    if (!promise)
        abort();
}
