/* SPDX-License-Identifier: MIT */
/* Expects: a disk of sectors=N takes data at its both ends and gives it back, also after a flush,
 * and says no to what lies behind its end; with "again", finds what an earlier run wrote; with
 * "readonly", refuses to write. Exits 0. */
#include "virtio.h"

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8 };
enum { OK = 0, IOERR = 1, SECTOR = 512, MANY = 3 * SECTOR };

static struct queue queue;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint8_t data[MANY];
static volatile uint8_t status;

static uint8_t do_request(uint32_t type, uint64_t sector, uint32_t length)
{
    uint16_t next = 1;
    header.type = type;
    header.sector = sector;
    status = 0xff;
    queue.descriptors[0] = (struct descriptor){(uint64_t)&header, sizeof(header), NEXT, 1};
    if (length) {
        uint16_t write = type == OUT ? 0 : WRITE;
        queue.descriptors[1] = (struct descriptor){(uint64_t)data, length, NEXT | write, 2};
        next = 2;
    }
    queue.descriptors[next] = (struct descriptor){(uint64_t)&status, 1, WRITE, 0};
    queue_offer(&queue, 0);
    queue_ring(&queue);
    uint32_t written;
    check(queue_wait(&queue, &written) == 0, "another request came back");
    return status;
}

static void fill(uint64_t sector)
{
    for (unsigned i = 0; i < MANY / 8; i++)
        ((uint64_t *)data)[i] = sector * 1000003 + i;
}

static void check_data(uint64_t sector)
{
    for (unsigned i = 0; i < MANY / 8; i++)
        check(((uint64_t *)data)[i] == sector * 1000003 + i, "sector %lu, word %u: %lx", sector, i,
              ((uint64_t *)data)[i]);
}

void guest_main(void)
{
    struct virtio blk;
    uint64_t sectors = option("sectors", 0);
    check(virtio_find(VIRTIO_BLK, &blk), "no disk");
    virtio_start(&blk, VIRTIO_F_VERSION_1 | 1 << 9);
    virtio_add_queue(&blk, 0, &queue);
    virtio_ready(&blk);

    uint64_t capacity = *(volatile uint32_t *)blk.device;
    check(capacity == sectors, "%lu sectors, not %lu", capacity, sectors);
    uint64_t places[] = {0, 7, sectors - 3};
    for (unsigned i = 0; i < array_size(places); i++) {
        fill(places[i]);
        uint8_t result = do_request(OUT, places[i], MANY);
        check(result == (has_option("readonly") ? IOERR : OK), "write %u: %u", i, result);
    }
    check(do_request(FLUSH, 0, 0) == OK, "flush: %u", status);
    for (unsigned i = 0; i < array_size(places) && !has_option("readonly"); i++) {
        memset(data, 0, MANY);
        check(do_request(IN, places[i], MANY) == OK, "read %u: %u", i, status);
        check_data(places[i]);
    }
    check(do_request(IN, sectors - 2, MANY) == IOERR, "a read over the end: %u", status);
    check(do_request(OUT, sectors, SECTOR) == IOERR, "a write behind the end: %u", status);
    check(do_request(IN, ~0ull, SECTOR) == IOERR, "a read of the last sector there can be");
    check(do_request(GET_ID, 0, 20) == OK, "serial number: %u", status);
    data[20] = 0;
    print("disk %s, %lu sectors\n", (const char *)data, sectors);
}
