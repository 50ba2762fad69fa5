/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a qcow2 image: opened, read, written, and closed again.
 *
 * The input: one byte (bit 0 readonly, bit 1 backing files are allowed, bit 2 write-through, bit 3
 * nothing is discarded), one with the number of requests, 4 for each of these
 *
 *   [op (0 to 4) and bit 7: unmap, offset (2) in units of a 65536th of the disk or, with bit 6 of
 *   the op, of blocks, length in units of 8 blocks and 1]
 *
 * and the image is the rest. The corpus has images of 8 KiB with clusters of 512 bytes as qemu-img
 * makes them, of each kind one, without the zeroes at their end. What is checked, besides what the
 * sanitizers see: every request ends, and what was written is read again, as long as no other
 * request came between. (An image that uses one place twice may well change elsewhere.)
 */
#include "host/disk.h"
#include "tests/fuzz/program.h"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { MOST_REQUESTS = 64, MOST_LENGTH = 256 * 4096, BLOCK = 512, MOST_IMAGE = 1 << 20 };

static struct {
    struct loop *loop;
    uint8_t *buffer, *written;
} world;

struct wait {
    bool done;
    int result;
};

static void handle_done(struct disk_request *request, int result)
{
    struct wait *wait = request->arg;
    wait->done = true;
    wait->result = result;
}

static void ignore(void *ctx)
{
}

static int run(struct disk *disk, enum disk_op op, bool unmap, uint64_t offset, uint64_t length,
               void *bytes)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = length};
    struct wait wait = {0};
    struct disk_request request = {.op = op,
                                   .unmap = unmap,
                                   .offset = offset,
                                   .length = length,
                                   .iov = &iov,
                                   .iov_count = 1,
                                   .done = handle_done,
                                   .arg = &wait};

    disk_submit(disk, &request);
    disk_kick(disk);
    if (!wait.done)
        disk_drain(disk);
    require(wait.done);
    return wait.result;
}

static void one_request(struct disk *disk, struct program *program)
{
    uint8_t what = take(program);
    uint64_t at = take_number(program, 2), blocks = disk->info.size / BLOCK, offset, length;
    enum disk_op op = DISK_READ + (what & 15) % 5;

    length = (1 + (uint64_t)take(program) * 8) * BLOCK;
    offset = (what & 64 ? at % blocks : (uint64_t)((unsigned __int128)at * blocks >> 16)) * BLOCK;
    if (length > disk->info.size - offset)
        length = disk->info.size - offset;
    if (op == DISK_FLUSH)
        offset = length = 0;
    if (op != DISK_WRITE) {
        (void)run(disk, op, what & 128, offset, length, world.buffer);
        return;
    }
    memset(world.written, what ^ (int)at, length);
    if (run(disk, DISK_WRITE, false, offset, length, world.written) < 0)
        return;
    if (run(disk, DISK_READ, false, offset, length, world.buffer) == 0 && length <= BLOCK)
        require(memcmp(world.buffer, world.written, length) == 0);
}

static void use(const struct disk_config *config, struct program *program)
{
    static const struct disk_client client = {.begin = ignore, .end = ignore};
    struct program requests = *program;
    struct disk *disk = NULL;
    struct err err;

    if (disk_qcow2_open(&disk, config, &err) < 0) {
        require(err.kind != ERR_NONE && err.text[0]);
        return;
    }
    require(disk->info.size && disk->info.block_size == BLOCK);
    require(disk_attach(disk, world.loop, &client, NULL) == 0);
    for (unsigned i = 0; i < MOST_REQUESTS && requests.left; i++)
        one_request(disk, &requests);
    disk_drain(disk);
    disk_detach(disk);
    disk_destroy(disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};
    uint8_t flags = take(&program);
    size_t requests = (size_t)(take(&program) % MOST_REQUESTS) * 4;
    char path[64];

    if (program.left < requests || program.left - requests > MOST_IMAGE)
        return 0;
    if (!world.loop) {
        require(loop_create(&world.loop, NULL) == 0);
        world.buffer = malloc(MOST_LENGTH);
        world.written = malloc(MOST_LENGTH);
    }
    int fd = memfd_create("image", MFD_CLOEXEC);
    require(fd >= 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    size_t size = program.left - requests;
    require(pwrite(fd, program.at + requests, size, 0) == (ssize_t)size);
    program.left = requests;
    const struct disk_config config = {.path = path,
                                       .format = DISK_FORMAT_QCOW2,
                                       .readonly = flags & 1,
                                       .backing = flags & 2,
                                       .write_through = flags & 4,
                                       .no_discard = flags & 8};
    use(&config, &program);
    use(&config, &program); /* and again, as it is now */
    close(fd);
    return 0;
}
