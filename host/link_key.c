/* SPDX-License-Identifier: MIT */
#include "host/key_store.h"
#include "host/link_parts.h"

#include "host/secret_file.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { DIGITS = 2 * LINK_KEY_BYTES };

static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static int say_no_key(const char *path, const char *why, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL, "%s is no key: %s", path, why);

    err_hint(err, "minivmm key > FILE makes one; both hosts need the same");
    return r;
}

bool link_key_parse(struct link_key *ret_key, const char digits[2 * LINK_KEY_BYTES])
{
    struct link_key key;

    for (size_t i = 0; i < LINK_KEY_BYTES; i++) {
        int high = digit_value(digits[2 * i]), low = digit_value(digits[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        key.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret_key = key;
    explicit_bzero(&key, sizeof(key));
    return true;
}

static int parse(struct link_key *ret_key, const char *text, size_t length, const char *path,
                 struct err *err)
{
    const size_t head = sizeof(KEY_STORE_SECOND_LINE) - 1;

    if (length > DIGITS + head && memcmp(text + DIGITS, KEY_STORE_SECOND_LINE, head) == 0)
        length = DIGITS; /* a pair's: the rest is for host/key_store.c */
    if (length == DIGITS + 1 && text[DIGITS] == '\n')
        length--;
    if (length != DIGITS)
        return say_no_key(path, "64 hex digits are one", err);
    return link_key_parse(ret_key, text) ? 0
                                         : say_no_key(path, "it holds more than hex digits", err);
}

static int open_key(int *ret_fd, const char *path, struct err *err)
{
    int r = secret_file_open(ret_fd, path, "the key", err);

    if (r == -EINVAL)
        return say_no_key(path, "it is not a regular file", err);
    if (r == -ENOENT && key_store_has_path(path))
        err_hint(err, "minivmm pair gives this host and the other one a key");
    else if (r == -ENOENT)
        err_hint(err, "make one with minivmm key > %s, and copy it to the other host", path);
    return r;
}

int link_key_read(struct link_key *ret_key, const char *path, struct err *err)
{
    char text[DIGITS + 2 + sizeof(KEY_STORE_SECOND_LINE)]; /* one more than is wanted tells too
                                                            * many */
    size_t length = 0;
    ssize_t n = 0;
    int fd;

    int r = open_key(&fd, path, err);
    if (r < 0)
        return r;
    while (r == 0 && length < sizeof(text)) {
        n = read(fd, text + length, sizeof(text) - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r = err_sys(err, ERR_FAILED, errno, "cannot read the key %s", path);
        if (n <= 0)
            break;
        length += (size_t)n;
    }
    close(fd);
    if (r == 0)
        r = parse(ret_key, text, length, path, err);
    explicit_bzero(text, sizeof(text));
    return r;
}

int link_key_make(struct link_key *ret_key, struct err *err)
{
    struct link_key key;

    /* So few bytes come in one piece, once the kernel has any. */
    if (getrandom(key.bytes, sizeof(key.bytes), 0) != sizeof(key.bytes))
        return err_sys(err, ERR_HOST, errno, "the kernel gives no random bytes");
    *ret_key = key;
    explicit_bzero(&key, sizeof(key));
    return 0;
}

void link_key_format(const struct link_key *key, char ret_text[LINK_KEY_TEXT])
{
    for (size_t i = 0; i < LINK_KEY_BYTES; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", key->bytes[i]);
}
