/* SPDX-License-Identifier: MIT */
/*
 * SipHash-2-4 with 128 bits (Aumasson, Bernstein): a sum with a key. Who does not know the key, and
 * never sees a sum, cannot make two pieces of the same sum but by luck, of which there is little in
 * 128 bits.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { SIPHASH_KEY = 16, SIPHASH_SUM = 16 };

void siphash(const uint8_t key[SIPHASH_KEY], const void *bytes, size_t length,
             uint8_t ret_sum[SIPHASH_SUM]);
