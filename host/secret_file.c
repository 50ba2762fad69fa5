/* SPDX-License-Identifier: MIT */
#include "host/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whoever may write it can change it, whoever may read it knows it. */
int secret_file_check(int fd, const char *path, const char *what, struct err *err)
{
    struct stat stat;

    if (fstat(fd, &stat) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot read %s %s", what, path);
    if (!S_ISREG(stat.st_mode))
        return err_say(err, ERR_DEFINITION, EINVAL, "%s %s is not a regular file", what, path);
    if (stat.st_uid != geteuid() && stat.st_uid != 0) {
        int r = err_say(err, ERR_STATE, EPERM, "%s %s belongs to another user", what, path);
        err_hint(err, "sudo chown $USER %s", path);
        return r;
    }
    if (stat.st_mode & 077) {
        int r = err_say(err, ERR_STATE, EPERM, "%s %s can be read or written by others", what,
                        path);
        err_hint(err, "chmod 600 %s, and make a new one if somebody may have read it", path);
        return r;
    }
    return 0;
}

int secret_file_open(int *ret_fd, const char *path, const char *what, struct err *err)
{
    /* A pipe must not make us wait. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno,
                       "cannot read %s %s", what, path);
    int r = secret_file_check(fd, path, what, err);
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

static int read_all(int fd, char *text, size_t limit, size_t *ret_length)
{
    size_t length = 0;
    ssize_t n;

    while ((n = read(fd, text + length, limit + 1 - length)) != 0) {
        if (n < 0 && errno != EINTR)
            return -errno;
        length += n > 0 ? (size_t)n : 0;
        if (length > limit)
            return -EFBIG;
    }
    text[length] = 0;
    *ret_length = length;
    return 0;
}

int secret_file_read(const char *path, const char *what, size_t limit, char **ret_text,
                     size_t *ret_length, struct err *err)
{
    int fd;

    int r = secret_file_open(&fd, path, what, err);
    if (r < 0)
        return r;
    char *text = calloc(1, limit + 1); /* in one piece: a larger one would leave the first behind */
    r = text ? read_all(fd, text, limit, ret_length) : -ENOMEM;
    close(fd);
    if (r == 0) {
        *ret_text = text;
        return 0;
    }
    secret_file_free(text, limit + 1);
    return err_sys(err, r == -EFBIG ? ERR_DEFINITION : ERR_FAILED, -r, "cannot read %s %s", what,
                   path);
}

void secret_file_free(char *text, size_t length)
{
    if (text)
        explicit_bzero(text, length);
    free(text);
}
