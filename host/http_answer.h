/* SPDX-License-Identifier: MIT */
/*
 * An HTTP answer, taken apart as it comes. Pure. Whoever sends it is hostile: rules are at the top
 * of host/http_answer.c, and what breaks one is refused.
 */
#pragma once

#include "core/err.h"

enum { HTTP_LINE_MAX = 2048, HTTP_HEAD_MAX = 16384, HTTP_BODY_MAX = 65536 };

struct http_answer {
    unsigned status; /* 200 ... 599; 0: not known as yet */
    size_t length;
    char body[HTTP_BODY_MAX + 1]; /* a 0 behind it */
    const char *wrong;            /* a sentence's end: "has a line without an end" */

    /* Of host/http_answer.c: */
    unsigned state;
    bool is_chunked, has_length;
    uint64_t left; /* of the body, or of a chunk */
    size_t head_bytes;
    size_t line_length;
    char line[HTTP_LINE_MAX];
};

void http_answer_init(struct http_answer *answer);

/* 1: it is whole, and what comes after it is passed over. 0: more is wanted. -EBADMSG: `wrong`. */
int http_answer_take(struct http_answer *answer, const char *bytes, size_t length) must_check;
/* No more will come: 0 where that is an end, -EBADMSG where it was cut off. */
int http_answer_end(struct http_answer *answer) must_check;
