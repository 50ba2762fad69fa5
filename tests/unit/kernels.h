/* SPDX-License-Identifier: MIT */
/* What the tests of the boot protocols share: kernels made byte by byte, opened and loaded. */
#pragma once

#include "firmware/x86/boot.h"
#include "firmware/x86/e820.h"
#include "firmware/x86/layout.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

enum { FILE_MAX = 64 << 10, PAYLOAD_AT = 0x1000 };

/* A file in the making; it becomes a memfd when it is opened. */
struct file {
    uint8_t bytes[FILE_MAX];
    size_t length;
    int fd;
    char path[64];
};

static const char *file_path(struct file *file)
{
    file->fd = memfd_create("test-kernel", MFD_CLOEXEC);
    ck_assert_int_ge(file->fd, 0);
    ck_assert_int_eq(write(file->fd, file->bytes, file->length), (ssize_t)file->length);
    snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->fd);
    return file->path;
}

/* Bytes that differ from place to place, so that a shifted copy is noticed. */
static inline void fill_payload(uint8_t *at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        at[i] = (uint8_t)(i * 7 + (i >> 8) + 1);
}

static inline struct memory *make_memory(uint64_t size)
{
    struct memory *memory;
    uint64_t below;
    gpa_t above;

    layout_split(size, &below, &above);
    ck_assert_int_eq(memory_create(&memory, size, below, above, NULL), 0);
    return memory;
}

static inline void *borrow(struct memory *memory, gpa_t at, size_t length)
{
    void *pointer = NULL;
    ck_assert_int_eq(memory_borrow(memory, at, length, &pointer), 0);
    return pointer;
}

static inline struct boot_image *open_good(struct file *kernel, struct file *initrd,
                                           const char *cmdline)
{
    struct boot_image *image = NULL;
    struct err err = {0};
    int ret = boot_open(&image, file_path(kernel), initrd ? file_path(initrd) : NULL, cmdline,
                        &err);

    ck_assert_msg(ret == 0, "%s", err.text);
    return image;
}

static inline void load_good(struct boot_image *image, struct memory *memory,
                             struct cpu_entry *entry)
{
    struct err err = {0};
    int ret = boot_load(image, memory, &(struct boot_platform){.cpus = 2}, entry, &err);

    ck_assert_msg(ret == 0, "%s", err.text);
}

static inline void check_err(const struct err *err, enum err_kind kind, const char *words)
{
    ck_assert_msg(err->kind == kind, "kind %d: %s", err->kind, err->text);
    ck_assert_msg(strstr(err->text, words) != NULL, "\"%s\" lacks \"%s\"", err->text, words);
}

/* Opening fails with this kind and these words, and the sentence names the file. */
static inline void refuse_open(struct file *kernel, enum err_kind kind, const char *words)
{
    struct boot_image *image = NULL;
    struct err err = {0};

    ck_assert_int_lt(boot_open(&image, file_path(kernel), NULL, "quiet", &err), 0);
    ck_assert_ptr_null(image);
    check_err(&err, kind, words);
    check_err(&err, kind, kernel->path);
    close(kernel->fd);
}

/* It opens, but does not load into that much memory. The entry stays untouched. */
static inline void refuse_load(struct file *kernel, struct file *initrd, uint64_t size,
                               enum err_kind kind, const char *words)
{
    struct boot_image *image = open_good(kernel, initrd, "quiet");
    struct memory *memory = make_memory(size);
    struct cpu_entry entry = {.ip = 0x1234};
    struct err err = {0};

    ck_assert_int_lt(boot_load(image, memory, &(struct boot_platform){.cpus = 2}, &entry, &err), 0);
    ck_assert_uint_eq(entry.ip, 0x1234);
    check_err(&err, kind, words);
    check_err(&err, kind, initrd ? initrd->path : kernel->path);
    memory_destroy(memory);
    boot_close(image);
}

static inline struct file *make_initrd(size_t length)
{
    struct file *file = calloc(1, sizeof *file);

    file->length = length;
    fill_payload(file->bytes, length);
    return file;
}
