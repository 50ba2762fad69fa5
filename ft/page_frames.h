/* SPDX-License-Identifier: MIT */
/*
 * PAGES frames (ft/frames.h): guest memory on a connection, each page in whatever is short.
 *
 *   0 zeroes  nothing
 *   1 raw     4096 bytes
 *   2 LZ4     u16 length, block
 *   3 delta   u16 length of what follows: what has changed since the receiver was sent it before
 *             (ft/delta.h)
 *
 * What is longer than the page is no encoding of it.
 */
#pragma once

#include "ft/frames.h"
#include "ft/page_cache.h"

enum page_encoding { PAGE_ZEROES, PAGE_RAW, PAGE_LZ4, PAGE_DELTA, PAGE_ENCODINGS };

/* What is done to make pages shorter than they are; zeroes cost nothing in any case. */
enum page_effort {
    EFFORT_NONE,
    EFFORT_DELTAS, /* what has changed since a page was sent last, where that is known */
    EFFORT_LZ4,    /* that, and compression */
    PAGE_EFFORTS,
};

/* Of one connection, in the order in which its frames are sent. */
struct page_encoder {
    enum page_effort effort;
    struct page_cache *cache;        /* what the other side holds; NULL: that is not known */
    uint64_t counts[PAGE_ENCODINGS]; /* pages, for people */
};

/* At most FRAME_MAX_PAGES of them, from page `first` on. `frame`: its generation and epoch. */
void page_frame_put(struct stream *stream, const struct frame *frame, struct page_encoder *encoder,
                    uint64_t first, const uint8_t *bytes, unsigned count,
                    struct frame_tally *tally);

/* Where pages go that have come. */
struct page_taker {
    /* What came for it before; NULL: there is no such page. For deltas. */
    const uint8_t *(*held)(void *ctx, uint64_t page);
    /* NULL: zeroes. */
    int (*put)(void *ctx, uint64_t page, const uint8_t *bytes);
    /* Where the bytes of so many raw pages go; it gives NULL: there are no such pages. Where this
     * is NULL itself each raw page is put. */
    uint8_t *(*room)(void *ctx, uint64_t first, unsigned count);
    void *ctx;
};

/*
 * Each page, in order, from a stream of which the frame's head was read: raw pages come into their
 * room without a copy, before it is known that the frame is whole. After an error they hold
 * anything.
 */
int page_frame_read(struct stream *stream, const struct frame *frame,
                    const struct page_taker *taker, struct frame_tally *tally,
                    struct err *err) must_check;
