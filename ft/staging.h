/* SPDX-License-Identifier: MIT */
/*
 * An epoch that is coming in: its pages and blocks stand apart until all of it is here and looked
 * at. Then it is applied as a whole, or dropped, and nothing has changed. It takes as much memory
 * as the epoch has, and gives it back.
 */
#pragma once

#include "ft/moving.h"

struct staging;

/* For guest memory of so many pages, which lies there. */
int staging_create(struct staging **ret_staging, uint8_t *host, uint64_t pages,
                   struct err *err) must_check;
void staging_destroy(struct staging *staging); /* NULL is fine */

/* As the page would be afterwards; NULL: there is none of that number. */
const uint8_t *staging_page(const struct staging *staging, uint64_t page);
/* NULL: zeroes. -EBADMSG: there is none of that number. -ENOMEM. */
int staging_put_page(struct staging *staging, uint64_t page, const uint8_t *bytes) must_check;
/* -EFBIG: more than an epoch can have. */
int staging_put_block(struct staging *staging, const struct moving_block *block) must_check;

void staging_drop(struct staging *staging);

/* Where blocks go: in the order in which they came. */
struct staging_disks {
    int (*put)(void *ctx, const struct moving_block *block, struct err *err);
    void *ctx;
};

/* All of it; then it is empty. An error is that of a block: the pages are in their places, and the
 * blocks from there on are not; again begins where it stopped. */
int staging_apply(struct staging *staging, const struct staging_disks *disks,
                  struct err *err) must_check;

uint64_t staging_pages(const struct staging *staging); /* that wait */
uint64_t staging_bytes(const struct staging *staging); /* that are used, pages and blocks */
