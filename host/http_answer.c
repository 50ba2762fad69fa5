/* SPDX-License-Identifier: MIT */
/*
 * What is taken of an HTTP answer (RFC 9112), and what is not:
 *
 *  1. "HTTP/1.1" or "HTTP/1.0", a status of three digits. Answers of 100 to 199 are passed over.
 *  2. Lines end with CR LF, have at most HTTP_LINE_MAX bytes, and no control characters but tabs.
 *     Head, trailers and the sizes of chunks together have at most HTTP_HEAD_MAX.
 *  3. A header has a name without blanks. One that goes on in the next line is refused.
 *  4. Content-Length is digits, once; Transfer-Encoding is "chunked", once; never both: where two
 *     could read two lengths, none is right.
 *  5. With neither there is no body for 204 and 304. An error's goes to the end of the connection:
 *     it is only for people. Any other is refused, since nobody could tell whether it was cut off.
 *  6. A chunk's size is 1 to 8 hexadecimal digits; what follows a semicolon is passed over.
 *  7. A body has at most HTTP_BODY_MAX bytes.
 */
#include "host/http_answer.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { STATUS, HEADER, LENGTH, TO_THE_END, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, WHOLE, BROKEN };

void http_answer_init(struct http_answer *answer)
{
    *answer = (struct http_answer){.state = STATUS};
}

static int refuse(struct http_answer *answer, const char *wrong)
{
    answer->state = BROKEN;
    answer->wrong = wrong;
    return -EBADMSG;
}

/* --- lines ------------------------------------------------------------------------------------ */

static int take_status(struct http_answer *answer)
{
    const char *line = answer->line, *digits = line + 9;

    bool is_http = strncmp(line, "HTTP/1.1 ", 9) == 0 || strncmp(line, "HTTP/1.0 ", 9) == 0;
    if (!is_http || strspn(digits, "0123456789") != 3 || digits[0] < '1' || digits[0] > '5' ||
        (digits[3] && digits[3] != ' '))
        return refuse(answer, "is no HTTP");
    answer->status = (unsigned)strtoul(digits, NULL, 10);
    answer->state = HEADER;
    return 0;
}

static int take_length(struct http_answer *answer, const char *value)
{
    size_t digits = strspn(value, "0123456789");

    if (answer->has_length || digits == 0 || value[digits])
        return refuse(answer, "has no clear length");
    if (digits > 9 || strtoul(value, NULL, 10) > HTTP_BODY_MAX)
        return refuse(answer, "is too long");
    answer->has_length = true;
    answer->left = strtoul(value, NULL, 10);
    return 0;
}

/* The value without the blanks around it, in the line itself. */
static char *value_of(char *colon)
{
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t length = strlen(value);

    while (length && (value[length - 1] == ' ' || value[length - 1] == '\t'))
        value[--length] = 0;
    return value;
}

static int take_header(struct http_answer *answer)
{
    char *line = answer->line, *colon = strchr(line, ':');

    if (!colon || colon == line || strcspn(line, " \t") < (size_t)(colon - line))
        return refuse(answer, "has a header that is none");
    *colon = 0;
    const char *value = value_of(colon);
    if (strcasecmp(line, "content-length") == 0)
        return take_length(answer, value);
    if (strcasecmp(line, "transfer-encoding") != 0)
        return 0;
    if (answer->is_chunked || strcasecmp(value, "chunked") != 0)
        return refuse(answer, "has an encoding that nobody asked for");
    answer->is_chunked = true;
    return 0;
}

/* What comes after the head. */
static int begin_body(struct http_answer *answer)
{
    if (answer->is_chunked && answer->has_length)
        return refuse(answer, "has two lengths");
    if (answer->status < 200) {
        if (answer->is_chunked || answer->has_length)
            return refuse(answer, "has no clear length");
        answer->status = 0;
        answer->state = STATUS;
    } else if (answer->status == 204 || answer->status == 304) {
        answer->state = WHOLE;
    } else if (answer->is_chunked) {
        answer->state = CHUNK_SIZE;
    } else if (answer->has_length) {
        answer->state = answer->left ? LENGTH : WHOLE;
    } else if (answer->status >= 400) {
        answer->state = TO_THE_END;
    } else {
        return refuse(answer, "has no length");
    }
    return 0;
}

static int take_chunk_size(struct http_answer *answer)
{
    size_t digits = strspn(answer->line, "0123456789abcdefABCDEF");
    const char *after = answer->line + digits;

    after += strspn(after, " \t");
    if (digits == 0 || digits > 8 || (*after && *after != ';'))
        return refuse(answer, "has a chunk of no clear length");
    answer->left = strtoul(answer->line, NULL, 16);
    answer->state = answer->left ? CHUNK : TRAILER;
    return 0;
}

static int take_line(struct http_answer *answer)
{
    bool is_empty = answer->line[0] == 0;

    switch (answer->state) {
    case STATUS:
        return take_status(answer);
    case HEADER:
        return is_empty ? begin_body(answer) : take_header(answer);
    case CHUNK_SIZE:
        return take_chunk_size(answer);
    case CHUNK_END:
        answer->state = CHUNK_SIZE;
        return is_empty ? 0 : refuse(answer, "has a chunk of no clear length");
    default: /* TRAILER: nothing in it is of use */
        answer->state = is_empty ? WHOLE : TRAILER;
        return 0;
    }
}

static int take_of_line(struct http_answer *answer, char c)
{
    bool ends = answer->line_length && answer->line[answer->line_length - 1] == '\r';

    if (++answer->head_bytes > HTTP_HEAD_MAX)
        return refuse(answer, "has a head that is too long");
    if (ends != (c == '\n'))
        return refuse(answer, "has a line of no clear end");
    if (ends) {
        answer->line[answer->line_length - 1] = 0;
        answer->line_length = 0;
        return take_line(answer);
    }
    if (iscntrl((unsigned char)c) && c != '\r' && c != '\t')
        return refuse(answer, "has control characters in its head");
    if (answer->line_length == HTTP_LINE_MAX)
        return refuse(answer, "has a line that is too long");
    answer->line[answer->line_length++] = c;
    return 0;
}

/* --- the body --------------------------------------------------------------------------------- */

/* How much of it was body; -EBADMSG. */
static ssize_t take_of_body(struct http_answer *answer, const char *bytes, size_t length)
{
    size_t n = answer->state == TO_THE_END || length < answer->left ? length : answer->left;

    if (n > HTTP_BODY_MAX - answer->length)
        return refuse(answer, "is too long");
    memcpy(answer->body + answer->length, bytes, n);
    answer->length += n;
    answer->body[answer->length] = 0;
    if (answer->state == TO_THE_END)
        return (ssize_t)n;
    answer->left -= n;
    if (answer->left == 0)
        answer->state = answer->state == CHUNK ? CHUNK_END : WHOLE;
    return (ssize_t)n;
}

int http_answer_take(struct http_answer *answer, const char *bytes, size_t length)
{
    ssize_t n;

    for (; answer->state < WHOLE && length > 0; bytes += n, length -= (size_t)n) {
        bool is_body = answer->state == LENGTH || answer->state == TO_THE_END ||
                       answer->state == CHUNK;
        n = is_body ? take_of_body(answer, bytes, length) : take_of_line(answer, *bytes);
        if (n < 0)
            return -EBADMSG;
        if (!is_body)
            n = 1;
    }
    return answer->state == BROKEN ? -EBADMSG : answer->state == WHOLE;
}

int http_answer_end(struct http_answer *answer)
{
    if (answer->state == WHOLE)
        return 0;
    if (answer->state == TO_THE_END) {
        answer->state = WHOLE;
        return 0;
    }
    if (answer->state == BROKEN)
        return -EBADMSG;
    return refuse(answer, answer->head_bytes ? "was cut off" : "is empty");
}
