/* SPDX-License-Identifier: MIT */
/*
 * What the stubs (bios.S) and the services (bios.c) agree on. The image lies at LAYOUT_BIOS, which
 * is F000:1000, and begins with the mailbox.
 */
#pragma once

#define BIOS_SEGMENT 0xF000
#define BIOS_OFFSET  0x1000 /* of the image in its segment */

/* SeaBIOS and real PCs trap at 0xB2 too; a write finds nothing to do unless a stub has put a vector
 * into the mailbox. */
#define BIOS_PORT 0xB2

/* Offsets in the mailbox. */
#define MAILBOX_EAX      0x00
#define MAILBOX_EBX      0x04
#define MAILBOX_ECX      0x08
#define MAILBOX_EDX      0x0C
#define MAILBOX_ESI      0x10
#define MAILBOX_EDI      0x14
#define MAILBOX_EBP      0x18
#define MAILBOX_DS       0x1C
#define MAILBOX_ES       0x1E
#define MAILBOX_FLAGS    0x20
#define MAILBOX_VECTOR   0x22
#define MAILBOX_ACTION   0x24
#define MAILBOX_ENTRY_IP 0x26
#define MAILBOX_ENTRY_CS 0x28
#define MAILBOX_SIZE     0x2C

/* What the stub does when the service is back. */
#define BIOS_DONE  0 /* load the registers, return */
#define BIOS_WAIT  1 /* wait for an interrupt, then ask again */
#define BIOS_AGAIN 2 /* let interrupts in, then ask again */
#define BIOS_BOOT  3 /* start what was loaded, at ENTRY_CS:ENTRY_IP */
#define BIOS_HALT  4 /* nothing boots */

#define BIOS_NO_VECTOR 0xFFFF

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

struct bios_mailbox {
    uint32_t eax, ebx, ecx, edx, esi, edi, ebp;
    uint16_t ds, es;
    uint16_t flags; /* what the INT has put on the caller's stack, and what it gets back */
    uint16_t vector;
    uint16_t action;
    uint16_t entry_ip, entry_cs;
    uint16_t reserved;
};

_Static_assert(offsetof(struct bios_mailbox, ebp) == MAILBOX_EBP &&
                   offsetof(struct bios_mailbox, ds) == MAILBOX_DS &&
                   offsetof(struct bios_mailbox, flags) == MAILBOX_FLAGS &&
                   offsetof(struct bios_mailbox, vector) == MAILBOX_VECTOR &&
                   offsetof(struct bios_mailbox, action) == MAILBOX_ACTION &&
                   offsetof(struct bios_mailbox, entry_ip) == MAILBOX_ENTRY_IP &&
                   sizeof(struct bios_mailbox) == MAILBOX_SIZE &&
                   offsetof(struct bios_mailbox, entry_cs) == MAILBOX_ENTRY_CS,
               "the stubs' mailbox is the services'");

/* In bios.S. Offsets in `vectors` count from the segment's beginning. */
enum { BIOS_VECTORS = 0x78 };
extern const uint8_t bios_image[], bios_image_end[];
extern const uint16_t bios_vectors[BIOS_VECTORS];
extern const uint16_t bios_post, bios_restart, bios_floppy_table, bios_config_table;
#endif
