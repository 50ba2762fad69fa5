/* SPDX-License-Identifier: MIT */
#include "ft/file_sum.h"

#include "core/stream.h"
#include "host/fd.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 2 << 20 };

static bool is_hole(int fd, uint64_t offset, size_t length)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + length;
}

static int sum_chunks(int fd, uint64_t size, uint8_t *buffer, const struct copy_progress *progress,
                      uint32_t *ret_sum)
{
    uint32_t zeroes = 0, sum = 0;
    for (uint64_t at = 0; at < size; at += CHUNK) {
        size_t length = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
        uint32_t crc = zeroes;
        if (progress && !progress->tell(progress->ctx, at, size))
            return -ECANCELED;
        bool hole = is_hole(fd, at, length);
        if (!hole) {
            int ret = fd_read_at(fd, buffer, length, at);
            if (ret < 0)
                return ret;
            crc = crc32c(0, buffer, length);
        } else if (!zeroes || length < CHUNK) {
            memset(buffer, 0, length);
            crc = crc32c(0, buffer, length);
            if (length == CHUNK)
                zeroes = crc;
        }
        crc = htole32(crc);
        sum = crc32c(sum, &crc, sizeof(crc));
    }
    *ret_sum = sum;
    return 0;
}

int file_sum(int fd, const struct copy_progress *progress, uint32_t *ret_sum)
{
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return -errno;
    uint8_t *buffer = malloc(CHUNK);
    if (!buffer)
        return -ENOMEM;
    int ret = sum_chunks(fd, (uint64_t)stat.st_size, buffer, progress, ret_sum);
    free(buffer);
    return ret;
}
