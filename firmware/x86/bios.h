/* SPDX-License-Identifier: MIT */
/*
 * Our BIOS: what a boot sector finds on a PC. bios.S holds the real-mode stubs: they put the
 * registers into a mailbox in their own segment and write to one port; the services are the C
 * functions behind that port (bios_*.c), which see guest memory through the one door. They run on
 * the vCPU's thread and wait for the disk.
 *
 * Of a guest's state only this lives here: which drive it boots from next, and where the cursor of
 * the terminal is. All else lies in the BIOS data area, and is as hostile as any guest memory.
 */
#pragma once

#include "core/bus.h"
#include "devices/device.h"
#include "devices/serial.h"
#include "firmware/x86/boot.h"
#include <sys/uio.h>

enum { BIOS_MAX_DRIVES = 20 };

/* A disk as the services see it; drive 80h is the first that is no ISO. */
struct bios_drive {
    const char *name; /* for sentences: the file */
    uint64_t size;
    uint32_t block_size;
    bool readonly;
    /* All of iov, at a multiple of the block size. Waits; -errno. On a vCPU thread. -ECANCELED:
     * the vCPU is wanted elsewhere; the guest asks again when it runs, for the whole call. */
    int (*read)(void *ctx, uint64_t offset, const struct iovec *iov, unsigned count);
    int (*write)(void *ctx, uint64_t offset, const struct iovec *iov, unsigned count);
    void *ctx;
};

struct bios_config {
    struct memory *memory;
    struct bus *ports;
    struct serial *serial;           /* text goes there, keys come from there */
    const struct bios_drive *drives; /* outlive the device */
    unsigned drive_count;
    /* Nothing boots: `why` lists what was tried, as a sentence's second half. Called on a vCPU
     * thread, whose guest halts, under the BIOS's lock; a guest can bring it about again and again.
     */
    void (*unbootable)(void *ctx, const char *why);
    void *ctx;
};

struct bios;

int bios_create(struct bios **ret_bios, const struct bios_config *config,
                struct err *err) must_check;
struct device *bios_device(struct bios *bios);

/*
 * Writes what POST would leave beside the data areas and the tables: stubs and vectors; the boot
 * processor begins in the stub that sets up the interrupt chips and asks for the first boot sector.
 * Called by boot_load() for an image without a kernel.
 */
int bios_load(struct memory *memory, struct cpu_entry *ret_entry, struct err *err) must_check;
