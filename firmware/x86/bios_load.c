/* SPDX-License-Identifier: MIT */
/*
 * What POST leaves behind, written from outside: it costs the guest nothing. What only the guest
 * itself can do (its interrupt chips, the first INT 19h) is in the stubs.
 */
#include "firmware/x86/bios_data.h"
#include "firmware/x86/bios_parts.h"
#include "firmware/x86/boot_image.h"

#include "core/clock.h"
#include <string.h>

enum { VECTOR_FLOPPY_TABLE = 0x1E };

/* Vectors that are no interrupts but pointers to tables that we have not, or the user's own; there
 * a 0 says "nothing". */
static bool is_empty_vector(unsigned vector)
{
    return vector == 0x1D || vector == 0x1F || vector == 0x41 || vector == 0x43 || vector == 0x46 ||
           (vector >= 0x60 && vector <= 0x67);
}

static int write_vectors(struct memory *memory)
{
    uint16_t vectors[256][2] = {0}; /* offset, segment */

    for (unsigned i = 0; i < array_size(vectors); i++) {
        if (is_empty_vector(i))
            continue;
        vectors[i][0] = i < BIOS_VECTORS ? bios_vectors[i] : bios_vectors[0];
        vectors[i][1] = BIOS_SEGMENT;
    }
    vectors[VECTOR_FLOPPY_TABLE][0] = bios_floppy_table;
    return memory_write(memory, 0, vectors, sizeof(vectors));
}

/* Where a PC has its reset vector, the date of its BIOS, and its model: FCh, an AT. */
static int write_top(struct memory *memory)
{
    uint8_t top[16] = {0xEA, (uint8_t)bios_restart, (uint8_t)(bios_restart >> 8),
                       (uint8_t)BIOS_SEGMENT, BIOS_SEGMENT >> 8};

    memcpy(top + 5, "01/01/26", 8);
    top[14] = 0xFC;
    return memory_write(memory, LAYOUT_1M - sizeof(top), top, sizeof(top));
}

static void put16(uint8_t *data, unsigned at, uint16_t value)
{
    memcpy(data + (at - LAYOUT_BDA), &value, sizeof(value));
}

static void put_keyboard(uint8_t *data)
{
    enum { BEGIN = BDA_KEYS - LAYOUT_BDA, END = BEGIN + 32 };

    put16(data, BDA_KEY_HEAD, BEGIN);
    put16(data, BDA_KEY_TAIL, BEGIN);
    put16(data, BDA_KEYS_BEGIN, BEGIN);
    put16(data, BDA_KEYS_END, END);
    data[BDA_KEYBOARD - LAYOUT_BDA] = 0x10; /* 101 keys */
}

static void put_video(uint8_t *data)
{
    data[BDA_VIDEO_MODE - LAYOUT_BDA] = BIOS_TEXT_MODE;
    data[BDA_ROWS - LAYOUT_BDA] = BIOS_ROWS - 1;
    put16(data, BDA_COLUMNS, BIOS_COLUMNS);
    put16(data, BDA_PAGE_SIZE, 0x1000);
    put16(data, BDA_CURSOR_SHAPE, 0x0607);
    put16(data, BDA_CRTC, 0x3D4);
}

static uint32_t ticks_of_day(void)
{
    uint64_t ns = clock_wall_ns() % (86400 * NS_PER_SEC);
    return (uint32_t)clock_scale(ns, BIOS_TICKS_PER_DAY, 86400 * NS_PER_SEC);
}

int bios_write_data(struct memory *memory, struct err *err)
{
    enum { FPU = 0x0002, COLOUR_80 = 0x0020, ONE_SERIAL_PORT = 0x0200 };
    uint8_t data[BDA_SIZE] = {0};
    const uint8_t ebda_kib = LAYOUT_EBDA_SIZE >> 10;
    uint32_t ticks = ticks_of_day();
    int ret;

    put16(data, BDA_COM1, 0x3F8);
    data[BDA_COM1_TIMEOUT - LAYOUT_BDA] = 10;
    put16(data, BDA_EBDA, LAYOUT_EBDA >> 4);
    put16(data, BDA_EQUIPMENT, FPU | COLOUR_80 | ONE_SERIAL_PORT);
    put16(data, BDA_MEMORY_KIB, LAYOUT_EBDA >> 10);
    memcpy(data + (BDA_TICKS - LAYOUT_BDA), &ticks, sizeof(ticks));
    put_keyboard(data);
    put_video(data);
    ret = memory_write(memory, LAYOUT_BDA, data, sizeof(data));
    if (ret == 0)
        ret = memory_fill(memory, LAYOUT_EBDA, 0, LAYOUT_EBDA_SIZE);
    if (ret == 0)
        ret = memory_write(memory, LAYOUT_EBDA, &ebda_kib, sizeof(ebda_kib));
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the BIOS data area");
    return 0;
}

int bios_load(struct memory *memory, struct cpu_entry *ret_entry, struct err *err)
{
    int ret = memory_write(memory, LAYOUT_BIOS, bios_image, (size_t)(bios_image_end - bios_image));

    if (ret == 0)
        ret = write_vectors(memory);
    if (ret == 0)
        ret = write_top(memory);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the BIOS");
    *ret_entry = (struct cpu_entry){
        .mode = CPU_REAL, .ip = bios_post, .sp = 0x7C00, .segment_base = (gpa_t)BIOS_SEGMENT << 4};
    return 0;
}

static int load(struct boot_image *image, const struct boot_context *context,
                struct cpu_entry *ret_entry, struct err *err)
{
    return bios_load(context->memory, ret_entry, err);
}

const struct boot_protocol boot_bios = {.name = "BIOS", .load = load};
