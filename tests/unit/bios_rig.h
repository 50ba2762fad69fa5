/* SPDX-License-Identifier: MIT */
/*
 * Our BIOS on a table: guest memory, a serial line whose far end is here, a real-time clock, and
 * drives in memory, a PCI bus. A test is the stub: it fills in the mailbox and writes to the port.
 * Aborts when the rig itself does not work, so that fuzzers can use it too.
 */
#pragma once

#include "core/loop.h"
#include "devices/pci.h"
#include "devices/rtc.h"
#include "firmware/x86/bios_parts.h"
#include "tests/unit/platform.h"
#include <stdlib.h>
#include <string.h>

enum { BIOS_RIG_DRIVES = 4, BIOS_RIG_SENT = 16384, BIOS_RIG_MEMORY = 16 << 20 };

struct bios_rig_drive {
    uint8_t *bytes;
    size_t size;
    int fail; /* -errno for whatever is asked */
    unsigned reads, writes;
};

struct bios_rig {
    struct memory *memory;
    struct bus *ports, *mmio;
    struct loop *loop;
    struct fake_chip chip;
    struct serial *serial;
    struct rtc *rtc;
    struct pci_bus *pci; /* with a host bridge and nothing else */
    struct bios *bios;
    struct bios_rig_drive disks[BIOS_RIG_DRIVES];
    struct bios_drive drives[BIOS_RIG_DRIVES];
    unsigned drive_count;
    struct bios_mailbox mail; /* what the next call gets, and what the last one gave */
    char sent[BIOS_RIG_SENT]; /* what the terminal got, always ending in a 0 */
    size_t sent_count;        /* also of what did not fit any more */
    unsigned unbootable_count;
    char why[512];
};

static inline void bios_rig_require(bool promise)
{
    if (!promise)
        abort();
}

static inline void bios_rig_handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    struct bios_rig *rig = ctx;

    for (size_t i = 0; i < length; i++, rig->sent_count++)
        if (rig->sent_count + 1 < BIOS_RIG_SENT)
            rig->sent[rig->sent_count] = (char)bytes[i];
}

static inline void bios_rig_handle_room(void *ctx)
{
}

static inline void bios_rig_handle_unbootable(void *ctx, const char *why)
{
    struct bios_rig *rig = ctx;

    rig->unbootable_count++;
    bios_rig_require(strlen(why) < sizeof(rig->why));
    strcpy(rig->why, why);
}

/* A quarter past ten, 16 March 2026, UTC. */
static inline uint64_t bios_rig_wall_ns(void)
{
    return 1773656107ull * 1000000000;
}

static inline int bios_rig_handle_read(void *ctx, uint64_t offset, const struct iovec *iov,
                                       unsigned count)
{
    struct bios_rig_drive *disk = ctx;

    disk->reads++;
    bios_rig_require(count == 1 && iov->iov_len <= disk->size &&
                     offset <= disk->size - iov->iov_len);
    if (disk->fail)
        return disk->fail;
    memcpy(iov->iov_base, disk->bytes + offset, iov->iov_len);
    return 0;
}

static inline int bios_rig_handle_write(void *ctx, uint64_t offset, const struct iovec *iov,
                                        unsigned count)
{
    struct bios_rig_drive *disk = ctx;

    disk->writes++;
    bios_rig_require(count == 1 && iov->iov_len <= disk->size &&
                     offset <= disk->size - iov->iov_len);
    if (disk->fail)
        return disk->fail;
    memcpy(disk->bytes + offset, iov->iov_base, iov->iov_len);
    return 0;
}

/* Zeroes; before bios_rig_start(). The names are disk0, disk1... */
static inline uint8_t *bios_rig_add_drive(struct bios_rig *rig, size_t size, uint32_t block_size)
{
    static const char *const names[BIOS_RIG_DRIVES] = {"disk0", "disk1", "disk2", "disk3"};
    unsigned i = rig->drive_count++;

    bios_rig_require(i < BIOS_RIG_DRIVES);
    rig->disks[i] = (struct bios_rig_drive){.bytes = calloc(1, size), .size = size};
    rig->drives[i] = (struct bios_drive){.name = names[i],
                                         .size = size,
                                         .block_size = block_size,
                                         .read = bios_rig_handle_read,
                                         .write = bios_rig_handle_write,
                                         .ctx = &rig->disks[i]};
    return rig->disks[i].bytes;
}

static inline void bios_rig_start_with(struct bios_rig *rig, uint64_t memory_size)
{
    static const struct rtc_config rtc = {.wall_ns = bios_rig_wall_ns};
    const struct serial_host host = {
        .output = bios_rig_handle_output, .input_room = bios_rig_handle_room, .ctx = rig};
    struct cpu_entry entry;
    uint64_t below;
    gpa_t above;

    layout_split(memory_size, &below, &above);
    fake_chip_init(&rig->chip);
    bios_rig_require(memory_create(&rig->memory, memory_size, below, above, NULL) == 0);
    bios_rig_require(bus_create(&rig->ports, NULL) == 0);
    bios_rig_require(bus_create(&rig->mmio, NULL) == 0);
    bios_rig_require(loop_create(&rig->loop, NULL) == 0);
    bios_rig_require(
        serial_create(&rig->serial, rig->ports, 0x3F8, &rig->chip.chip, 4, &host, NULL) == 0);
    bios_rig_require(rtc_create(&rig->rtc, rig->ports, &rig->chip.chip, 8, rig->loop, &rtc, NULL) ==
                     0);
    const struct pci_bus_config pci = {
        .ports = rig->ports, .mmio = rig->mmio, .intx = &rig->chip.chip, .ecam = LAYOUT_ECAM};
    bios_rig_require(pci_bus_create(&rig->pci, &pci, NULL) == 0);
    const struct bios_config config = {.memory = rig->memory,
                                       .ports = rig->ports,
                                       .serial = rig->serial,
                                       .drives = rig->drives,
                                       .drive_count = rig->drive_count,
                                       .unbootable = bios_rig_handle_unbootable,
                                       .ctx = rig};
    bios_rig_require(bios_create(&rig->bios, &config, NULL) == 0);
    struct device *const devices[] = {serial_device(rig->serial), rtc_device(rig->rtc),
                                      pci_bus_device(rig->pci), bios_device(rig->bios)};
    for (unsigned i = 0; i < array_size(devices); i++) {
        devices[i]->ops->reset(devices[i]);
        devices[i]->ops->resume(devices[i]);
    }
    bios_rig_require(bios_load(rig->memory, &entry, NULL) == 0);
}

static inline void bios_rig_start(struct bios_rig *rig)
{
    bios_rig_start_with(rig, BIOS_RIG_MEMORY);
}

static inline void bios_rig_finish(struct bios_rig *rig)
{
    device_destroy(bios_device(rig->bios));
    device_destroy(pci_bus_device(rig->pci));
    device_destroy(rtc_device(rig->rtc));
    device_destroy(serial_device(rig->serial));
    loop_destroy(rig->loop);
    bus_destroy(rig->ports);
    bus_destroy(rig->mmio);
    memory_destroy(rig->memory);
    for (unsigned i = 0; i < rig->drive_count; i++)
        free(rig->disks[i].bytes);
}

static inline void *bios_rig_ram(struct bios_rig *rig, gpa_t at, size_t length)
{
    void *pointer = NULL;
    bios_rig_require(memory_borrow(rig->memory, at, length, &pointer) == 0);
    return pointer;
}

/* What the stub does. Says what the service wants of it. */
static inline unsigned bios_rig_call(struct bios_rig *rig, uint16_t vector)
{
    struct bios_mailbox *box = bios_rig_ram(rig, LAYOUT_BIOS, sizeof(*box));

    rig->mail.vector = vector;
    rig->mail.action = 0x5555;
    *box = rig->mail;
    bus_write(rig->ports, BIOS_PORT, 1, 0);
    rig->mail = *box;
    return rig->mail.action;
}

static inline bool bios_rig_failed(const struct bios_rig *rig)
{
    return rig->mail.flags & FLAG_CARRY;
}

static inline uint8_t bios_rig_status(const struct bios_rig *rig)
{
    return high(rig->mail.eax);
}
