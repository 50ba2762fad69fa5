/* SPDX-License-Identifier: MIT */
/*
 *   LAYOUT_SMBIOS +0x00  _SM3_ entry point (DSP0134 5.2.2), 24 bytes
 *                 +0x20  _SM_ entry point (5.2.1), 31 bytes
 *                 +0x40  the structures: each a formatted part, which begins with type, length and
 *                        handle, and after it its strings, NUL-terminated, and one more NUL
 *
 * Strings are referred to by number, from 1. Handles are type << 8 plus an instance.
 */
#include "firmware/x86/smbios.h"

#include "core/stream.h"
#include "firmware/x86/e820.h"
#include "firmware/x86/layout.h"
#include <assert.h>
#include <string.h>

enum {
    ENTRY32_AT = 0x20,
    ENTRY32_SIZE = 31,
    ENTRY64_SIZE = 24,
    TABLE_AT = 0x40,
    MAJOR = 3,
    MINOR = 3,
    UNKNOWN = 2, /* in most enumerations of the specification */
    NO_HANDLE = 0xFFFE,
    BIOS = 0x0000,
    SYSTEM = 0x0100,
    CHASSIS = 0x0300,
    PROCESSOR = 0x0400,
    MEMORY_ARRAY = 0x1000,
    MEMORY_DEVICE = 0x1100,
    MEMORY_MAP = 0x1300,
    BOOT_STATUS = 0x2000,
    END = 0x7F00,
};

/* The table as it grows. */
struct table {
    struct stream_buffer bytes;
    size_t begin;  /* of the current structure */
    size_t length; /* of its formatted part, as declared */
    size_t largest;
    unsigned count;
};

static void put8(struct table *table, uint8_t value)
{
    stream_put_u8(&table->bytes.stream, value);
}

static void put16(struct table *table, uint16_t value)
{
    stream_put_u16(&table->bytes.stream, value);
}

static void put32(struct table *table, uint32_t value)
{
    stream_put_u32(&table->bytes.stream, value);
}

static void put64(struct table *table, uint64_t value)
{
    stream_put_u64(&table->bytes.stream, value);
}

static void begin(struct table *table, uint16_t handle, uint8_t length)
{
    table->begin = table->bytes.length;
    table->length = length;
    put8(table, (uint8_t)(handle >> 8));
    put8(table, length);
    put16(table, handle);
}

/* Its strings, up to a NULL; fewer than three of them is usual. */
static void end(struct table *table, const char *first, const char *second)
{
    size_t size = table->bytes.length - table->begin;

    assert(stream_error(&table->bytes.stream) < 0 || size == table->length);
    if (first)
        stream_write(&table->bytes.stream, first, strlen(first) + 1);
    if (second)
        stream_write(&table->bytes.stream, second, strlen(second) + 1);
    put8(table, 0);
    if (!first)
        put8(table, 0);
    size = table->bytes.length - table->begin;
    if (size > table->largest)
        table->largest = size;
    table->count++;
}

/* 7.1 */
static void put_bios(struct table *table)
{
    begin(table, BIOS, 0x1A);
    put8(table, 1); /* vendor */
    put8(table, 2); /* version */
    put16(table, LAYOUT_BIOS >> 4);
    put8(table, 0);                 /* release date: none */
    put8(table, 0);                 /* 64 KiB of ROM */
    put64(table, 1 << 3);           /* no other characteristics are known */
    put16(table, 1 << 12 | 1 << 0); /* a virtual machine, with ACPI */
    put8(table, 0);                 /* release 0.0 */
    put8(table, 0);
    put8(table, 0xFF); /* no embedded controller */
    put8(table, 0xFF);
    put16(table, 0);
    end(table, "minivmm", "1");
}

/* 7.2. The first three fields of a UUID are little-endian here, and big-endian as text (7.2.1). */
static void put_system(struct table *table, const uint8_t *uuid)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    enum { WAKE_POWER_SWITCH = 6 };

    begin(table, SYSTEM, 0x1B);
    put8(table, 1); /* manufacturer */
    put8(table, 1); /* product */
    put8(table, 0);
    put8(table, 0);
    for (size_t i = 0; i < array_size(order); i++)
        put8(table, uuid[order[i]]);
    put8(table, WAKE_POWER_SWITCH);
    put8(table, 0);
    put8(table, 0);
    end(table, "minivmm", NULL);
}

/* 7.4 */
static void put_chassis(struct table *table)
{
    enum { OTHER = 1, SAFE = 3, NO_SECURITY = 3 };

    begin(table, CHASSIS, 0x16);
    put8(table, 1);
    put8(table, OTHER);
    put8(table, 0);
    put8(table, 0);
    put8(table, 0);
    put8(table, SAFE);
    put8(table, SAFE);
    put8(table, SAFE);
    put8(table, NO_SECURITY);
    put32(table, 0);
    put8(table, 0); /* height */
    put8(table, 0); /* power cords */
    put8(table, 0); /* contained elements: none, */
    put8(table, 0); /* ...of no size */
    put8(table, 0); /* SKU */
    end(table, "minivmm", NULL);
}

/* 7.5. Speeds, caches and the CPUID signature stay open: the guest's own CPUID says it better. */
static void put_processor(struct table *table, unsigned cpus)
{
    enum {
        CENTRAL = 3,
        ENABLED_AND_POPULATED = 0x41,
        UPGRADE_OTHER = 1,
        NO_CACHE = 0xFFFF,
        CAN_64_BIT = 1 << 2,
        MULTI_CORE = 1 << 3,
    };
    uint8_t few = cpus < 256 ? (uint8_t)cpus : 0xFF;

    begin(table, PROCESSOR, 0x30);
    put8(table, 1); /* socket */
    put8(table, CENTRAL);
    put8(table, UNKNOWN); /* family */
    put8(table, 2);       /* manufacturer */
    put64(table, 0);
    put8(table, 0); /* version */
    put8(table, 0); /* voltage */
    put16(table, 0);
    put16(table, 0);
    put16(table, 0);
    put8(table, ENABLED_AND_POPULATED);
    put8(table, UPGRADE_OTHER);
    put16(table, NO_CACHE);
    put16(table, NO_CACHE);
    put16(table, NO_CACHE);
    put8(table, 0);
    put8(table, 0);
    put8(table, 0);
    put8(table, few); /* cores, enabled, threads */
    put8(table, few);
    put8(table, few);
    put16(table, (uint16_t)(CAN_64_BIT | (cpus > 1 ? MULTI_CORE : 0)));
    put16(table, UNKNOWN);
    put16(table, (uint16_t)cpus);
    put16(table, (uint16_t)cpus);
    put16(table, (uint16_t)cpus);
    end(table, "CPU 0", "minivmm");
}

/* 7.17 */
static void put_memory_array(struct table *table, uint64_t size)
{
    enum { MAINBOARD = 3, SYSTEM_MEMORY = 3, NO_ECC = 3 };
    const uint32_t in_extended = 0x80000000;
    uint64_t kib = size >> 10;

    begin(table, MEMORY_ARRAY, 0x17);
    put8(table, MAINBOARD);
    put8(table, SYSTEM_MEMORY);
    put8(table, NO_ECC);
    put32(table, kib < in_extended ? (uint32_t)kib : in_extended);
    put16(table, NO_HANDLE);
    put16(table, 1); /* devices */
    put64(table, kib < in_extended ? 0 : size);
    end(table, NULL, NULL);
}

/* 7.18: one module with all of the RAM. */
static void put_memory_device(struct table *table, uint64_t size)
{
    enum { DIMM = 9, RAM = 7, OTHER = 1 << 1, IN_EXTENDED = 0x7FFF };
    uint64_t mib = size >> 20;

    begin(table, MEMORY_DEVICE, 0x28);
    put16(table, MEMORY_ARRAY);
    put16(table, NO_HANDLE);
    put16(table, 64);
    put16(table, 64);
    put16(table, mib < IN_EXTENDED ? (uint16_t)mib : IN_EXTENDED);
    put8(table, DIMM);
    put8(table, 0);
    put8(table, 1); /* locator */
    put8(table, 0);
    put8(table, RAM);
    put16(table, OTHER);
    put16(table, 0);
    put8(table, 2); /* manufacturer */
    put8(table, 0);
    put8(table, 0);
    put8(table, 0);
    put8(table, 0);
    put32(table, mib < IN_EXTENDED ? 0 : (uint32_t)mib);
    put16(table, 0); /* clock */
    put16(table, 0); /* voltages */
    put16(table, 0);
    put16(table, 0);
    end(table, "DIMM 0", "minivmm");
}

/* 7.20: one per stretch of RAM. Addresses in KiB, or where those do not fit, in bytes behind. */
static void put_memory_maps(struct table *table, const struct memory *memory)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(memory, &ranges);

    for (unsigned i = 0; i < count; i++) {
        gpa_t first = ranges[i].base, last = first + ranges[i].size - 1;
        bool wide = last >> 10 >= UINT32_MAX;

        begin(table, (uint16_t)(MEMORY_MAP + i), 0x1F);
        put32(table, wide ? UINT32_MAX : (uint32_t)(first >> 10));
        put32(table, wide ? UINT32_MAX : (uint32_t)(last >> 10));
        put16(table, MEMORY_ARRAY);
        put8(table, 1); /* devices that make up a row */
        put64(table, wide ? first : 0);
        put64(table, wide ? last : 0);
        end(table, NULL, NULL);
    }
}

static void put_structures(struct table *table, const struct memory *memory,
                           const struct boot_platform *platform)
{
    put_bios(table);
    put_system(table, platform->uuid);
    put_chassis(table);
    put_processor(table, platform->cpus);
    put_memory_array(table, memory_size(memory));
    put_memory_device(table, memory_size(memory));
    put_memory_maps(table, memory);

    begin(table, BOOT_STATUS, 0x0B); /* 7.33 */
    put32(table, 0);
    put16(table, 0);
    put8(table, 0); /* no errors */
    end(table, NULL, NULL);

    begin(table, END, 4);
    end(table, NULL, NULL);
}

static uint8_t checksum(const uint8_t *bytes, size_t length)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return (uint8_t)-sum;
}

static void store16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

static void store32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void fill_entries(uint8_t *to, const struct table *table)
{
    const uint32_t address = LAYOUT_SMBIOS + TABLE_AT;
    uint8_t *wide = to, *old = to + ENTRY32_AT, *inner = old + 16;

    memcpy(wide, "_SM3_", 5);
    wide[6] = ENTRY64_SIZE;
    wide[7] = MAJOR;
    wide[8] = MINOR;
    wide[10] = 1; /* revision of this entry point */
    store32(wide + 12, (uint32_t)table->bytes.length);
    store32(wide + 16, address); /* its upper half stays 0 */
    wide[5] = checksum(wide, ENTRY64_SIZE);

    memcpy(old, "_SM_", 4);
    old[5] = ENTRY32_SIZE;
    old[6] = MAJOR;
    old[7] = MINOR;
    store16(old + 8, (uint16_t)table->largest);
    memcpy(inner, "_DMI_", 5);
    store16(old + 22, (uint16_t)table->bytes.length);
    store32(old + 24, address);
    store16(old + 28, (uint16_t)table->count);
    old[30] = MAJOR << 4 | MINOR;
    inner[5] = checksum(inner, ENTRY32_SIZE - 16);
    old[4] = checksum(old, ENTRY32_SIZE);
}

int smbios_write(struct memory *memory, const struct boot_platform *platform, struct err *err)
{
    uint8_t entries[TABLE_AT] = {0};
    struct table table = {0};
    int ret;

    stream_buffer_init(&table.bytes, LAYOUT_SMBIOS_SIZE - TABLE_AT);
    put_structures(&table, memory, platform);
    ret = stream_error(&table.bytes.stream);
    if (ret == 0) {
        fill_entries(entries, &table);
        ret = memory_write(memory, LAYOUT_SMBIOS, entries, sizeof entries);
    }
    if (ret == 0)
        ret = memory_write(memory, LAYOUT_SMBIOS + TABLE_AT, table.bytes.bytes, table.bytes.length);
    stream_buffer_finish(&table.bytes);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the SMBIOS tables");
    return 0;
}
