/* SPDX-License-Identifier: MIT */
#include "core/iov.h"

#include <string.h>

size_t iov_size(const struct iovec *iov, unsigned count)
{
    size_t size = 0;
    for (unsigned i = 0; i < count; i++)
        size += iov[i].iov_len;
    return size;
}

enum way { READ, WRITE, FILL };

/* One walk serves all: `bytes` is what is read into, written from, or the byte to fill with. */
static size_t walk(const struct iovec *iov, unsigned count, size_t offset, uint8_t *bytes,
                   size_t length, enum way way)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < length; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        uint8_t *at = (uint8_t *)iov[i].iov_base + offset;
        size_t part = iov[i].iov_len - offset;
        if (part > length - done)
            part = length - done;
        if (way == READ)
            memcpy(bytes + done, at, part);
        else if (way == WRITE)
            memcpy(at, bytes + done, part);
        else
            memset(at, *bytes, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t length)
{
    return walk(iov, count, offset, to, length, READ);
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *from,
                 size_t length)
{
    return walk(iov, count, offset, (uint8_t *)from, length, WRITE);
}

size_t iov_fill(const struct iovec *iov, unsigned count, size_t offset, uint8_t byte, size_t length)
{
    return walk(iov, count, offset, &byte, length, FILL);
}

unsigned iov_part(const struct iovec *iov, unsigned count, size_t offset, size_t length,
                  struct iovec *ret)
{
    unsigned parts = 0;
    for (unsigned i = 0; i < count && length > 0; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - offset;
        if (part > length)
            part = length;
        ret[parts++] = (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + offset,
                                      .iov_len = part};
        length -= part;
        offset = 0;
    }
    return parts;
}
