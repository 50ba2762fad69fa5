/* SPDX-License-Identifier: MIT */
/* A small disk that is bytes in memory, read only: a seed. All is done within the kick. */
#include "host/disk_queue.h"

#include "core/iov.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { SECTOR = 512, PAGE = 4096 };

struct memory_disk {
    struct disk disk;
    uint8_t *bytes;
    struct disk_queue submitted;
};

static struct memory_disk *memory_disk_of(struct disk *disk)
{
    return container_of(disk, struct memory_disk, disk);
}

static int carry_out(const struct memory_disk *memory, const struct disk_request *request)
{
    switch (request->op) {
    case DISK_READ:
        iov_write(request->iov, request->iov_count, 0, memory->bytes + request->offset,
                  request->length);
        return 0;
    case DISK_FLUSH:
        return 0;
    case DISK_WRITE:
    case DISK_DISCARD:
    case DISK_ZEROES:
        break;
    }
    return -EROFS;
}

static void memory_submit(struct disk *disk, struct disk_request *request)
{
    disk_queue_add(&memory_disk_of(disk)->submitted, request);
}

static void memory_kick(struct disk *disk)
{
    struct memory_disk *memory = memory_disk_of(disk);

    for (struct disk_request *request; (request = disk_queue_take(&memory->submitted));)
        request->done(request, carry_out(memory, request));
}

static int memory_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                         struct err *err)
{
    return 0;
}

static void memory_detach(struct disk *disk)
{
}

static void memory_destroy(struct disk *disk)
{
    struct memory_disk *memory = memory_disk_of(disk);

    free(memory->bytes);
    free(memory);
}

static const struct disk_ops ops = {
    .name = "memory",
    .attach = memory_attach,
    .detach = memory_detach,
    .submit = memory_submit,
    .kick = memory_kick,
    .cancel = memory_kick,
    .drain = memory_kick,
    .destroy = memory_destroy,
};

int disk_memory_create(struct disk **ret_disk, void *bytes, size_t size, struct err *err)
{
    struct memory_disk *memory = calloc(1, sizeof(*memory));

    assert(size && size % SECTOR == 0);
    if (!memory) {
        free(bytes);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    memory->disk.ops = &ops;
    memory->disk.info = (struct disk_info){
        .size = size, .block_size = SECTOR, .optimal_size = PAGE, .readonly = true};
    memory->bytes = bytes;
    disk_queue_init(&memory->submitted);
    *ret_disk = &memory->disk;
    return 0;
}
