/* SPDX-License-Identifier: MIT */
/*
 * ".changes" in a VM's folder: which parts of its disks may differ from those in one other folder,
 * the one of the same *lineage*. The content of two folders of one lineage is equal outside of what
 * either of them has marked; ft/changes.h keeps that true while the VM runs.
 *
 *   head     4096 bytes, little-endian: magic "MVchang1", uuid of the VM (16), lineage (16), u32
 *            flags, u32 how many disks; of each: u32 place, u32 shift, u64 size, u64 inode, u64
 *            born_ns, u64 mtime_ns; then u32 CRC-32C of all this; zeroes
 *   bitmaps  of one disk after the other, in whole u64: a bit for each 2^shift bytes of what the
 *            guest sees
 *
 * It counts for nothing, and all of the disks has to be copied, unless: 1. it is as long as it has
 * to be, and its head is whole; 2. it is of this VM; 3. each disk has its size, and is the same
 * file; 4. none was written to since the end of the run, where that came in order. Bits need no
 * sum: a write that was torn leaves more of them than are needed, or some that nobody relied on.
 */
#pragma once

#include "core/err.h"
#include "vmm/machine.h"

enum {
    CHANGES_LINEAGE = 16,
    CHANGES_HEAD = 4096,
    CHANGES_LEAST_SHIFT = 20,
    CHANGES_MOST_REGIONS = 1 << 17, /* of a disk: of a larger one they are larger */
    CHANGES_WORD = 64,
};

enum changes_flag {
    CHANGES_AT_REST = 1, /* nobody writes, and mtime_ns says when somebody did last */
    CHANGES_MIXED = 2,   /* parts of the other folder's disks are in it, and others not yet */
};

struct changes_disk {
    uint32_t place, shift; /* in vm.json; a region's bytes */
    uint64_t size;
    uint64_t inode, born_ns, mtime_ns; /* of its file */
};

struct changes_head {
    uint8_t uuid[16];
    uint8_t lineage[CHANGES_LINEAGE];
    uint32_t flags; /* enum changes_flag */
    uint32_t count;
    struct changes_disk disks[MACHINE_MAX_DISKS];
};

/* One more disk, whose file this is. -errno. */
int changes_head_add(struct changes_head *head, uint32_t place, uint64_t size, int fd) must_check;
/* NULL: it is what the file was, by 3 and 4. Else what is wrong with it. */
const char *changes_disk_differs(const struct changes_head *head, const struct changes_disk *disk,
                                 int fd);
/* Nobody writes to its file any more (CHANGES_AT_REST): it is as it is now. -errno. */
int changes_disk_rest(struct changes_disk *disk, int fd) must_check;
const struct changes_disk *changes_head_find(const struct changes_head *head, uint32_t place);

size_t changes_words(const struct changes_disk *disk); /* u64 of its bitmap */
size_t changes_all_words(const struct changes_head *head);
size_t changes_first_word(const struct changes_head *head, const struct changes_disk *disk);

/* Of all that there is: the bits. NULL: no memory. Free them. */
uint64_t *changes_all_bits(const struct changes_head *head);

/* A new one, with all bits or none, on stable storage in the place of an old one: its fd. */
int changes_file_make(int folder, const struct changes_head *head, bool all,
                      struct err *err) must_check;
/* The same in two steps: what was drawn counts for nothing, and an old one does, until it is put in
 * its place. */
int changes_file_draw(int folder, const struct changes_head *head, bool all,
                      struct err *err) must_check;
int changes_file_place(int folder, struct err *err) must_check;
void changes_file_forget(int folder); /* what was drawn */
/*
 * The one that is there, for reading and writing, and its bits (free them). -ENOENT without a word:
 * there is none. -ESTALE: it counts for nothing, and why. Else it could not be read, and may count.
 */
int changes_file_open(int folder, struct changes_head *ret_head, uint64_t **ret_bits,
                      struct err *err) must_check;
/* On stable storage. Bits: all words. -errno. */
int changes_file_write_head(int fd, const struct changes_head *head) must_check;
int changes_file_write_bits(int fd, const uint64_t *bits, size_t words) must_check;
/* Nothing is in common with anybody, from here on, and after a power cut too. -errno. */
int changes_file_remove(int folder) must_check;

/* ERR_STATE: the folder's disks are a mix (CHANGES_MIXED), and must not run. Else: who knows. */
int changes_file_check(int folder, const char *name, struct err *err) must_check;
int changes_say_mixed(const char *name, struct err *err);
/* Of what open() said. */
void changes_say_unread(const char *name, const struct err *why, struct err *err);
