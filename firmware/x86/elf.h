/* SPDX-License-Identifier: MIT */
/*
 * ELF executables of x86, 32- and 64-bit, as far as loading a kernel needs them: program headers
 * and notes, by the System V gABI. Sections are never looked at.
 *
 * What is refused: more segments than ELF_MAX_SEGMENTS, a segment whose bytes lie outside of the
 * file, one that wraps around the address space, two that overlap in guest memory, and one that
 * touches memory that is no RAM or that our own tables lie in.
 */
#pragma once

#include "firmware/x86/boot_file.h"

enum { ELF_MAX_SEGMENTS = 32 };

struct elf_segment {
    uint64_t offset; /* in the file */
    uint64_t file_size;
    uint64_t virtual;
    gpa_t physical;
    uint64_t memory_size; /* not below file_size; the rest is zeroed */
};

struct elf {
    uint64_t entry; /* as in the header, usually virtual */
    unsigned segment_count;
    struct elf_segment segments[ELF_MAX_SEGMENTS]; /* only those with memory_size > 0 */
    unsigned note_count;
    struct elf_segment notes[ELF_MAX_SEGMENTS];
    bool notes_align8[ELF_MAX_SEGMENTS];
};

/* head: the first head_length bytes of the file, at least 64. Returns 1, 0 (no ELF) or -errno. */
int elf_parse(struct elf *elf, const struct boot_file *file, const uint8_t *head,
              struct err *err) must_check;

/*
 * Looks for the note; the first `size` bytes of its contents, or all when there are fewer, come
 * into `to`. Returns how many those are, 0 when there is no such note, or -errno.
 */
int elf_find_note(const struct elf *elf, const struct boot_file *file, const char *name,
                  uint32_t type, void *to, size_t size, struct err *err) must_check;

/* Loads the segments. low_end: where RAM below the hole ends; all segments must lie below it. */
int elf_load(const struct elf *elf, const struct boot_file *file, struct memory *memory,
             gpa_t low_end, struct err *err) must_check;

/* For one segment, which need not come from an ELF file. */
int elf_load_segment(const struct elf_segment *segment, const struct boot_file *file,
                     struct memory *memory, gpa_t low_end, struct err *err) must_check;

/* The end of the highest segment. */
gpa_t elf_end(const struct elf *elf);

/* A virtual address as a physical one; addresses in no segment stay as they are. */
gpa_t elf_physical(const struct elf *elf, uint64_t address);

/* Does a segment cover this physical address? */
bool elf_covers(const struct elf *elf, gpa_t address);
