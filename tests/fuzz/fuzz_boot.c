/* SPDX-License-Identifier: MIT */
/* A kernel file of any bytes is loaded or refused with a sentence; nothing else happens. */
#include "firmware/x86/boot.h"
#include "firmware/x86/layout.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM (64ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* The boot processor must start inside of RAM, whatever the headers said. */
static void load(struct boot_image *image)
{
    const struct boot_platform platform = {.cpus = 1};
    struct memory *memory;
    struct cpu_entry entry;
    struct err err = {0};
    uint64_t below;
    gpa_t above;

    layout_split(RAM, &below, &above);
    if (memory_create(&memory, RAM, below, above, &err) < 0)
        abort();
    if (boot_load(image, memory, &platform, &entry, &err) == 0) {
        if (entry.ip >= RAM || entry.gdt >= RAM || entry.page_table >= RAM)
            abort();
    } else if (!err.text[0] || err.kind == ERR_NONE) {
        abort();
    }
    memory_destroy(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct boot_image *image;
    struct err err = {0};
    char path[64];
    int fd = memfd_create("fuzz-kernel", MFD_CLOEXEC);

    if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (boot_open(&image, path, NULL, "console=ttyS0", &err) == 0) {
        load(image);
        boot_close(image);
    } else if (!err.text[0] || err.kind == ERR_NONE) {
        abort();
    }
    close(fd);
    return 0;
}
