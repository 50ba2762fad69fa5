/* SPDX-License-Identifier: MIT */
#include "firmware/x86/elf.h"

#include "firmware/x86/layout.h"
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NOTES_MAX_SIZE = 1 << 20 };

/* The header fields that we look at, of either class. */
struct header {
    uint64_t entry, table;
    unsigned machine, count, entry_size;
};

static int bad(const struct boot_file *file, struct err *err, const char *why)
{
    return err_say(err, ERR_DEFINITION, ENOEXEC, "kernel %s is a broken ELF file: %s", file->path,
                   why);
}

static struct header read_header(const uint8_t *head, bool is64)
{
    if (is64) {
        Elf64_Ehdr h;
        memcpy(&h, head, sizeof h);
        return (struct header){h.e_entry, h.e_phoff, h.e_machine, h.e_phnum, h.e_phentsize};
    }
    Elf32_Ehdr h;
    memcpy(&h, head, sizeof h);
    return (struct header){h.e_entry, h.e_phoff, h.e_machine, h.e_phnum, h.e_phentsize};
}

static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static int add_segment(struct elf *elf, const struct boot_file *file,
                       const struct elf_segment *segment, struct err *err)
{
    uint64_t end;

    if (segment->file_size > segment->memory_size)
        return bad(file, err, "a segment is larger in the file than in memory");
    if (segment->memory_size == 0)
        return 0;
    if (__builtin_add_overflow(segment->physical, segment->memory_size, &end))
        return bad(file, err, "a segment wraps around the end of memory");
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *other = &elf->segments[i];
        if (overlaps(segment->physical, segment->memory_size, other->physical, other->memory_size))
            return bad(file, err, "two segments overlap");
    }
    elf->segments[elf->segment_count++] = *segment;
    return 0;
}

static int add_program_header(struct elf *elf, const struct boot_file *file, uint32_t type,
                              const struct elf_segment *segment, uint64_t alignment,
                              struct err *err)
{
    uint64_t end;

    if (type != PT_LOAD && type != PT_NOTE)
        return 0;
    if (__builtin_add_overflow(segment->offset, segment->file_size, &end))
        return bad(file, err, "a segment wraps around the end of the file");
    if (end > file->size && segment->file_size > 0)
        return boot_file_cut_off(file, end, err);
    if (type == PT_LOAD)
        return add_segment(elf, file, segment, err);
    elf->notes_align8[elf->note_count] = alignment == 8;
    elf->notes[elf->note_count++] = *segment;
    return 0;
}

static int parse_program_headers(struct elf *elf, const struct boot_file *file, bool is64,
                                 unsigned count, const uint8_t *table, struct err *err)
{
    for (unsigned i = 0; i < count; i++) {
        struct elf_segment segment;
        Elf64_Phdr p;
        int ret;

        if (is64) {
            memcpy(&p, table + i * sizeof p, sizeof p);
        } else {
            Elf32_Phdr n;
            memcpy(&n, table + i * sizeof n, sizeof n);
            p = (Elf64_Phdr){n.p_type,  n.p_flags,  n.p_offset, n.p_vaddr,
                             n.p_paddr, n.p_filesz, n.p_memsz,  n.p_align};
        }
        segment = (struct elf_segment){p.p_offset, p.p_filesz, p.p_vaddr, p.p_paddr, p.p_memsz};
        ret = add_program_header(elf, file, p.p_type, &segment, p.p_align, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int read_program_headers(struct elf *elf, const struct boot_file *file, bool is64,
                                const struct header *header, struct err *err)
{
    uint8_t table[ELF_MAX_SEGMENTS * sizeof(Elf64_Phdr)];
    size_t each = is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    uint64_t end;
    int ret;

    if (header->count == 0)
        return bad(file, err, "it has no program headers, as if it was never linked");
    if (header->count > ELF_MAX_SEGMENTS)
        return bad(file, err, "it has more than 32 program headers");
    if (header->entry_size != each)
        return bad(file, err, "its program headers have an odd size");
    if (__builtin_add_overflow(header->table, header->count * each, &end) || end > file->size)
        return bad(file, err, "its program headers lie behind its end");
    ret = boot_file_read(file, header->table, table, header->count * each, err);
    if (ret < 0)
        return ret;
    return parse_program_headers(elf, file, is64, header->count, table, err);
}

int elf_parse(struct elf *elf, const struct boot_file *file, const uint8_t *head, struct err *err)
{
    struct elf parsed = {0};
    struct header header;
    bool is64;
    int ret;

    if (memcmp(head, ELFMAG, SELFMAG) != 0)
        return 0;
    if (head[EI_CLASS] != ELFCLASS32 && head[EI_CLASS] != ELFCLASS64)
        return bad(file, err, "it is neither of 32 nor of 64 bit");
    is64 = head[EI_CLASS] == ELFCLASS64;
    header = read_header(head, is64);
    if (head[EI_DATA] != ELFDATA2LSB || (header.machine != EM_386 && header.machine != EM_X86_64))
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s is an ELF file for another processor (machine %u), not for x86",
                       file->path, header.machine);
    parsed.entry = header.entry;
    ret = read_program_headers(&parsed, file, is64, &header, err);
    if (ret < 0)
        return ret;
    *elf = parsed;
    return 1;
}

/* Walks one PT_NOTE segment: u32 name size, u32 contents size, u32 type, name, contents, both
 * padded. */
static int search_notes(const uint8_t *notes, size_t size, size_t alignment, const char *name,
                        uint32_t type, void *to, size_t room)
{
    size_t at = 0, name_length = strlen(name) + 1;

    while (size - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        uint64_t contents, next;

        memcpy(&note, notes + at, sizeof note);
        contents = at + sizeof note + note.n_namesz;
        contents = (contents + alignment - 1) / alignment * alignment;
        next = contents + note.n_descsz;
        next = (next + alignment - 1) / alignment * alignment;
        if (contents + note.n_descsz > size)
            return 0;
        if (note.n_type == type && note.n_namesz == name_length &&
            memcmp(notes + at + sizeof note, name, name_length) == 0) {
            size_t length = note.n_descsz < room ? note.n_descsz : room;
            memcpy(to, notes + contents, length);
            return (int)length;
        }
        if (next > size)
            return 0;
        at = next;
    }
    return 0;
}

int elf_find_note(const struct elf *elf, const struct boot_file *file, const char *name,
                  uint32_t type, void *to, size_t size, struct err *err)
{
    int found = 0;

    for (unsigned i = 0; i < elf->note_count && found == 0; i++) {
        const struct elf_segment *segment = &elf->notes[i];
        uint8_t *notes;

        if (segment->file_size == 0)
            continue;
        if (segment->file_size > NOTES_MAX_SIZE)
            return bad(file, err, "its notes are larger than 1 MiB");
        notes = malloc(segment->file_size);
        if (!notes)
            return err_sys(err, ERR_FAILED, ENOMEM, "cannot read the notes of %s", file->path);
        found = boot_file_read(file, segment->offset, notes, segment->file_size, err);
        if (found == 0)
            found = search_notes(notes, segment->file_size, elf->notes_align8[i] ? 8 : 4, name,
                                 type, to, size);
        free(notes);
    }
    return found;
}

static int check_place(const struct elf_segment *segment, const struct boot_file *file,
                       gpa_t low_end, struct err *err)
{
    gpa_t at = segment->physical;
    uint64_t size = segment->memory_size;

    if (overlaps(at, size, 0, LAYOUT_LOW_END) ||
        overlaps(at, size, LAYOUT_EBDA, LAYOUT_1M - LAYOUT_EBDA))
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s wants to lie at 0x%llx to 0x%llx, where the firmware keeps its "
                       "tables (0 to 0xffff, and 0x9fc00 to 0xfffff)",
                       file->path, (unsigned long long)at, (unsigned long long)(at + size - 1));
    if (at >= LAYOUT_HOLE)
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s wants to lie at 0x%llx, where no machine has RAM (0xc0000000 and "
                       "above)",
                       file->path, (unsigned long long)at);
    if (at + size > low_end)
        return boot_file_no_room(file, at + size, low_end, err);
    return 0;
}

int elf_load_segment(const struct elf_segment *segment, const struct boot_file *file,
                     struct memory *memory, gpa_t low_end, struct err *err)
{
    int ret;

    ret = check_place(segment, file, low_end, err);
    if (ret == 0)
        ret = boot_file_load(file, segment->offset, memory, segment->physical, segment->file_size,
                             err);
    if (ret < 0)
        return ret;
    if (segment->memory_size > segment->file_size)
        ret = memory_fill(memory, segment->physical + segment->file_size, 0,
                          segment->memory_size - segment->file_size);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot load kernel %s", file->path);
    return 0;
}

int elf_load(const struct elf *elf, const struct boot_file *file, struct memory *memory,
             gpa_t low_end, struct err *err)
{
    if (elf->segment_count == 0)
        return bad(file, err, "it has nothing to load");
    for (unsigned i = 0; i < elf->segment_count; i++) {
        int ret = elf_load_segment(&elf->segments[i], file, memory, low_end, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

gpa_t elf_end(const struct elf *elf)
{
    gpa_t end = 0;

    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];
        if (segment->physical + segment->memory_size > end)
            end = segment->physical + segment->memory_size;
    }
    return end;
}

gpa_t elf_physical(const struct elf *elf, uint64_t address)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];
        if (address >= segment->virtual && address - segment->virtual < segment->memory_size)
            return segment->physical + (address - segment->virtual);
    }
    return address;
}

bool elf_covers(const struct elf *elf, gpa_t address)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];
        if (address >= segment->physical && address - segment->physical < segment->memory_size)
            return true;
    }
    return false;
}
