/* SPDX-License-Identifier: MIT */
/*
 * Bytes as what has changed in them since somebody was sent them: u32 CRC-32C of all of them as
 * they are now, then for each run of words of eight bytes that differ: u16 first word, u16 how
 * many, the words. The last word may be short.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DELTA_MOST = 65535 * 8 }; /* bytes that can have one */

/* Writes to [at, end). The end of it; NULL: there is no room, or too much to have one. */
uint8_t *delta_encode(const uint8_t *old, const uint8_t *new, size_t length, uint8_t *at,
                      const uint8_t *end);
/* `bytes` hold the old ones, and then the new ones. False: it is not one of these; they hold
 * anything. */
bool delta_apply(const uint8_t *delta, size_t delta_length, uint8_t *bytes, size_t length);
