/* SPDX-License-Identifier: MIT */
#include "ft/memory_file.h"

#include "core/stream.h"
#include "core/zero.h"
#include "host/fd.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_PAGES = MEMORY_FILE_CHUNK / PAGE_SIZE };

static uint32_t sum_of_zeroes(void)
{
    static const uint8_t zeroes[PAGE_SIZE];
    return crc32c(0, zeroes, sizeof(zeroes));
}

/* --- writing ---------------------------------------------------------------------------------- */

int memory_file_begin(struct memory_file *file, int fd, uint64_t size, struct err *err)
{
    uint64_t count = size / PAGE_SIZE;
    uint32_t zeroes = sum_of_zeroes();
    *file = (struct memory_file){.fd = fd, .size = size};
    file->pages = malloc(count * sizeof(*file->pages));
    file->holes = malloc(count * sizeof(*file->holes));
    if (!file->pages || !file->holes)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot keep checksums of guest memory");
    for (uint64_t i = 0; i < count; i++) {
        file->pages[i] = zeroes;
        file->holes[i] = true;
    }
    if (ftruncate(fd, (off_t)size) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make the file of guest memory");
    return 0;
}

void memory_file_end(struct memory_file *file)
{
    free(file->pages);
    free(file->holes);
    *file = (struct memory_file){.fd = -1};
}

/* Whether the page must be written: what is a hole, and zeroes again, stays one. */
static bool note(struct memory_file *file, uint64_t page, const uint8_t *bytes)
{
    if (file->holes[page] && is_zero(bytes, PAGE_SIZE))
        return false;
    file->holes[page] = false;
    file->pages[page] = crc32c(0, bytes, PAGE_SIZE);
    return true;
}

int memory_file_put(struct memory_file *file, uint64_t offset, const uint8_t *bytes, size_t length,
                    struct err *err)
{
    assert(offset % PAGE_SIZE == 0 && length % PAGE_SIZE == 0 && offset + length <= file->size);
    size_t begin = 0; /* of what is to be written */
    int ret = 0;
    for (size_t at = 0; at <= length && ret == 0; at += PAGE_SIZE) {
        if (at < length && note(file, (offset + at) / PAGE_SIZE, bytes + at))
            continue;
        ret = fd_write_at(file->fd, bytes + begin, at - begin, offset + begin);
        begin = at + PAGE_SIZE;
    }
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write guest memory");
    return 0;
}

/* --- sums ------------------------------------------------------------------------------------- */

uint64_t memory_file_chunks(uint64_t size)
{
    return (size + MEMORY_FILE_CHUNK - 1) / MEMORY_FILE_CHUNK;
}

static uint32_t sum_of(const uint32_t *pages, uint64_t count)
{
    uint32_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t wire = htole32(pages[i]);
        sum = crc32c(sum, &wire, sizeof(wire));
    }
    return sum;
}

static uint64_t pages_of_chunk(uint64_t size, uint64_t chunk)
{
    uint64_t left = size / PAGE_SIZE - chunk * CHUNK_PAGES;
    return left < CHUNK_PAGES ? left : CHUNK_PAGES;
}

void memory_file_sums(const struct memory_file *file, uint32_t *ret_sums)
{
    for (uint64_t i = 0; i < memory_file_chunks(file->size); i++)
        ret_sums[i] = sum_of(file->pages + i * CHUNK_PAGES, pages_of_chunk(file->size, i));
}

/* --- verifying -------------------------------------------------------------------------------- */

static int sum_chunk(int fd, uint64_t chunk, uint64_t pages, uint8_t *buffer, uint32_t *ret_sum)
{
    uint32_t sums[CHUNK_PAGES];
    uint64_t offset = chunk * MEMORY_FILE_CHUNK;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    bool empty = (data < 0 && errno == ENXIO) ||
                 (data >= 0 && (uint64_t)data >= offset + pages * PAGE_SIZE);
    uint32_t zeroes = empty ? sum_of_zeroes() : 0;
    int ret = empty ? 0 : fd_read_at(fd, buffer, pages * PAGE_SIZE, offset);
    for (uint64_t i = 0; i < pages && ret == 0; i++)
        sums[i] = empty ? zeroes : crc32c(0, buffer + i * PAGE_SIZE, PAGE_SIZE);
    if (ret == 0)
        *ret_sum = sum_of(sums, pages);
    return ret;
}

int memory_file_verify(int fd, uint64_t size, const uint32_t *sums, struct err *err)
{
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return err_sys(err, ERR_FAILED, errno, "guest memory");
    if ((uint64_t)stat.st_size != size)
        return err_say(err, ERR_DEFINITION, EBADMSG, "it has %llu bytes instead of %llu",
                       (unsigned long long)stat.st_size, (unsigned long long)size);
    uint8_t *buffer = malloc(MEMORY_FILE_CHUNK);
    if (!buffer)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot read guest memory");
    int ret = 0;
    for (uint64_t i = 0; i < memory_file_chunks(size) && ret == 0; i++) {
        uint32_t sum = 0;
        ret = sum_chunk(fd, i, pages_of_chunk(size, i), buffer, &sum);
        if (ret == -ENODATA || (ret == 0 && sum != sums[i]))
            ret = -EBADMSG;
        if (ret == -EBADMSG)
            err_say(err, ERR_DEFINITION, EBADMSG,
                    "it is not what was written, somewhere from byte %llu on",
                    (unsigned long long)i * MEMORY_FILE_CHUNK);
        else if (ret < 0)
            err_sys(err, ERR_FAILED, -ret, "cannot read it");
    }
    free(buffer);
    return ret;
}
