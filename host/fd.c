/* SPDX-License-Identifier: MIT */
#include "host/fd.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int fd_write_at(int fd, const void *bytes, size_t length, uint64_t offset)
{
    const uint8_t *from = bytes;

    while (length > 0) {
        ssize_t done = pwrite(fd, from, length, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        from += done;
        length -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

int fd_read_at(int fd, void *bytes, size_t length, uint64_t offset)
{
    uint8_t *to = bytes;

    while (length > 0) {
        ssize_t done = pread(fd, to, length, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -ENODATA;
        to += done;
        length -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

int fd_path(int fd, char ret_path[PATH_MAX])
{
    char link[40];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, ret_path, PATH_MAX - 1);
    if (length < 0)
        return -errno;
    ret_path[length] = '\0';
    return 0;
}
