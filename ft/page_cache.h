/* SPDX-License-Identifier: MIT */
/*
 * What the other side holds of the pages that were sent to it lately, so that only what has changed
 * since need be sent. It remembers as many as it has room for; the newer push out the older.
 */
#pragma once

#include "core/memory.h"

struct page_cache;

/* Room for so many bytes of pages, which cost memory as they are used. */
int page_cache_create(struct page_cache **ret_cache, uint64_t bytes, struct err *err) must_check;
void page_cache_destroy(struct page_cache *cache); /* NULL is fine */

/* NULL: not known. Valid until the next put. */
const uint8_t *page_cache_find(const struct page_cache *cache, uint64_t page);
void page_cache_put(struct page_cache *cache, uint64_t page, const uint8_t bytes[PAGE_SIZE]);
void page_cache_drop(struct page_cache *cache, uint64_t page);
