/* SPDX-License-Identifier: MIT */
/*
 * Words that people write, on command lines and in vm.json: found in lists, and read as numbers,
 * sizes and addresses. Pure.
 */
#pragma once

#include "core/nearest.h"

/* The word's place in the list, which ends with NULL; or -1. */
int words_find(const char *const *words, const char *word);

/* nearest_word() in such a list. */
const char *words_nearest(const char *const *words, const char *word);

/* "4", in [min, max]. what names the number in error sentences ("--cpus"). */
int parse_number(const char *text, const char *what, uint64_t min, uint64_t max,
                 uint64_t *ret_number, struct err *err) must_check;

/* "512M", "6G"; "1.5G" is none; K, M, G, T are powers of 1024 (also KiB...); a bare number is MiB.
 */
int parse_size(const char *text, const char *what, uint64_t *ret_bytes, struct err *err) must_check;

/* "6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f80" */
int parse_uuid(const char *text, const char *what, uint8_t ret_uuid[16],
               struct err *err) must_check;

/* "02:00:00:12:34:56"; false where it is none. */
bool parse_mac_address(const char *text, uint8_t ret_mac[6]) must_check;
