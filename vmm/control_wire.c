/* SPDX-License-Identifier: MIT */
#include "vmm/control_wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { FIRST_CAPACITY = 4096 };

/* --- lines in ----------------------------------------------------------------------------- */

/* Makes room for at least one byte more. */
static int make_room(struct wire_lines *lines)
{
    if (lines->at > 0) {
        memmove(lines->bytes, lines->bytes + lines->at, lines->end - lines->at);
        lines->end -= lines->at;
        lines->scanned -= lines->at;
        lines->at = 0;
    }
    if (lines->end < lines->capacity)
        return 0;
    size_t most = lines->limit + 1; /* the newline */
    if (lines->capacity >= most)
        return -EMSGSIZE;
    size_t capacity = lines->capacity ? lines->capacity * 2 : FIRST_CAPACITY;
    if (capacity > most)
        capacity = most;
    char *bytes = realloc(lines->bytes, capacity);
    if (!bytes)
        return -ENOMEM;
    lines->bytes = bytes;
    lines->capacity = capacity;
    return 0;
}

ssize_t wire_receive(struct wire_lines *lines, int fd)
{
    if (lines->end == lines->capacity) {
        int ret = make_room(lines);
        if (ret < 0)
            return ret;
    }
    ssize_t got;
    do
        got = recv(fd, lines->bytes + lines->end, lines->capacity - lines->end, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    lines->end += (size_t)got;
    if (!wire_has_line(lines) && lines->end - lines->at > lines->limit)
        return -EMSGSIZE;
    return got;
}

bool wire_has_line(struct wire_lines *lines)
{
    if (lines->scanned == lines->end)
        return false;
    const char *newline = memchr(lines->bytes + lines->scanned, '\n', lines->end - lines->scanned);
    lines->scanned = newline ? (size_t)(newline - lines->bytes) : lines->end;
    return newline != NULL;
}

bool wire_next_line(struct wire_lines *lines, const char **ret_line, size_t *ret_length)
{
    if (!wire_has_line(lines))
        return false;
    *ret_line = lines->bytes + lines->at;
    *ret_length = lines->scanned - lines->at;
    lines->at = ++lines->scanned;
    return true;
}

int wire_take_rest(struct wire_lines *lines, void **ret_bytes, size_t *ret_length)
{
    size_t length = lines->end - lines->at;
    void *bytes = NULL;
    if (length) {
        bytes = malloc(length);
        if (!bytes)
            return -ENOMEM;
        memcpy(bytes, lines->bytes + lines->at, length);
        lines->at = lines->scanned = lines->end;
    }
    *ret_bytes = bytes;
    *ret_length = length;
    return 0;
}

void wire_lines_finish(struct wire_lines *lines)
{
    free(lines->bytes);
}

/* --- lines out ---------------------------------------------------------------------------- */

static int append(const char *bytes, size_t length, void *arg)
{
    struct wire_backlog *backlog = arg;
    if (length > backlog->capacity - backlog->end) {
        size_t need = backlog->end + length;
        size_t capacity = backlog->capacity ? backlog->capacity : FIRST_CAPACITY;
        while (capacity < need)
            capacity *= 2;
        char *grown = realloc(backlog->bytes, capacity);
        if (!grown)
            return -ENOMEM;
        backlog->bytes = grown;
        backlog->capacity = capacity;
    }
    memcpy(backlog->bytes + backlog->end, bytes, length);
    backlog->end += length;
    return 0;
}

/* What has been sent makes room before the buffer grows; half of it at least, so that the moving
 * costs no more than the sending did. */
static void compact(struct wire_backlog *backlog)
{
    if (backlog->at < backlog->end - backlog->at)
        return;
    memmove(backlog->bytes, backlog->bytes + backlog->at, backlog->end - backlog->at);
    backlog->end -= backlog->at;
    backlog->at = 0;
}

int wire_put(struct wire_backlog *backlog, const json_t *message)
{
    if (backlog->at)
        compact(backlog);
    size_t before = backlog->end;
    if (json_dump_callback(message, append, backlog, WIRE_FLAGS) == 0 &&
        append("\n", 1, backlog) == 0)
        return 0;
    backlog->end = before;
    return -ENOMEM;
}

int wire_send(struct wire_backlog *backlog, int fd)
{
    while (backlog->at < backlog->end) {
        ssize_t sent = send(fd, backlog->bytes + backlog->at, backlog->end - backlog->at,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0)
            backlog->at += (size_t)sent;
        else if (errno == EAGAIN)
            return 0;
        else if (errno != EINTR)
            return -errno;
    }
    /* An idle connection has no memory but its own few bytes, however long its last answer was. */
    if (backlog->capacity > FIRST_CAPACITY) {
        free(backlog->bytes);
        *backlog = (struct wire_backlog){0};
    }
    backlog->at = backlog->end = 0;
    return 0;
}

void wire_backlog_finish(struct wire_backlog *backlog)
{
    free(backlog->bytes);
}

/* --- errors ------------------------------------------------------------------------------- */

/* How many bytes at `at` are one character by the judgement of jansson itself, 0 for none. */
static size_t character_length(const char *at)
{
    for (size_t length = 1; length <= 4 && at[length - 1]; length++) {
        json_t *one = json_stringn(at, length);
        json_decref(one);
        if (one)
            return length;
    }
    return 0;
}

json_t *wire_text(const char *text)
{
    json_t *sound = json_string(text); /* refuses what is no UTF-8: a path, or one cut in two */
    if (sound)
        return sound;
    char mended[3 * sizeof(((struct err *)0)->text)];
    size_t used = 0;
    while (*text && used < sizeof(mended) - 4) {
        size_t length = character_length(text);
        memcpy(mended + used, length ? text : "\xef\xbf\xbd", length ? length : 3);
        used += length ? length : 3;
        text += length ? length : 1;
    }
    return json_stringn(mended, used);
}

json_t *wire_error(const struct err *err)
{
    json_t *error = json_object();
    json_object_set_new(error, "code", json_integer(err->kind ? err->kind : ERR_FAILED));
    json_object_set_new(error, "text", wire_text(err->text[0] ? err->text : "it failed"));
    if (err->hint[0])
        json_object_set_new(error, "hint", wire_text(err->hint));
    return error;
}

static enum err_kind known_kind(json_int_t code)
{
    bool known = (code >= ERR_FAILED && code <= ERR_GUEST) || code == ERR_TIMEOUT;
    return known ? (enum err_kind)code : ERR_FAILED;
}

int wire_read_error(const json_t *error, struct err *err)
{
    const char *text = json_string_value(json_object_get(error, "text"));
    const char *hint = json_string_value(json_object_get(error, "hint"));
    int ret = err_say(err, known_kind(json_integer_value(json_object_get(error, "code"))),
                      EREMOTEIO, "%s", text ? text : "it failed, and did not say why");
    if (hint)
        err_hint(err, "%s", hint);
    return ret;
}
