/* SPDX-License-Identifier: MIT */
/*
 * ISO 9660 (ECMA-119) with Rock Ridge (IEEE P1282), as much as one folder of files needs. In
 * sectors of 2048 bytes:
 *
 *   0-15  nothing: no boot sector, and BIOSes take it for none
 *   16    primary volume descriptor: the label, where the rest lies
 *   17    end of the descriptors
 *   18    path table, little-endian; 19 the same, big-endian: one entry, the root
 *   20    the root folder: ".", "..", and a record for each file
 *   21    the files, each from the beginning of a sector
 *
 * Numbers are mostly there twice, little-endian and then big-endian. A record's own name is one
 * that ISO 9660 allows; Rock Ridge adds to it the real one (NM) and an owner and mode (PX): a file
 * is root's, and nobody else reads it. The root's "." says that there is Rock Ridge (SP, ER).
 */
#include "host/iso.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    DESCRIPTOR = 16,
    DESCRIPTORS_END,
    PATHS_LITTLE,
    PATHS_BIG,
    ROOT,
    DATA,
    PATHS_LENGTH = 10,
    ROOT_RECORD = 34,
    FILE_MAX = 64 << 20,
};

static void put(uint8_t *at, const void *bytes, size_t length)
{
    memcpy(at, bytes, length);
}

static void put_little(uint8_t *at, uint32_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static void put_big(uint8_t *at, uint32_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        at[width - 1 - i] = (uint8_t)(value >> 8 * i);
}

static void put_both(uint8_t *at, uint32_t value, unsigned width)
{
    put_little(at, value, width);
    put_big(at + width, value, width);
}

/* Directory records; they return their length. */

static size_t put_record(uint8_t *at, uint32_t sector, uint32_t length, bool folder,
                         const void *name, size_t name_length)
{
    static const uint8_t date[7] = {100, 1, 1, 0, 0, 0, 0}; /* the beginning of 2000 */
    size_t size = 33 + name_length + (name_length + 1) % 2;

    at[0] = (uint8_t)size;
    put_both(at + 2, sector, 4);
    put_both(at + 10, length, 4);
    put(at + 18, date, sizeof(date));
    at[25] = folder ? 2 : 0;
    put_both(at + 28, 1, 2);
    at[32] = (uint8_t)name_length;
    put(at + 33, name, name_length);
    return size;
}

/* What Rock Ridge adds; each begins with two letters, its length and a version. */

static uint8_t *begin_entry(uint8_t *record, const char *letters, size_t length)
{
    uint8_t *at = record + record[0];

    put(at, letters, 2);
    at[2] = (uint8_t)length;
    at[3] = 1;
    record[0] = (uint8_t)(record[0] + length);
    return at;
}

static void add_owner(uint8_t *record, uint32_t mode, uint32_t links)
{
    uint8_t *at = begin_entry(record, "PX", 36);

    put_both(at + 4, mode, 4);
    put_both(at + 12, links, 4);
}

static void add_announcement(uint8_t *record)
{
    static const uint8_t check[3] = {0xbe, 0xef, 0};
    static const char id[] = "RRIP_1991A";

    put(begin_entry(record, "SP", 7) + 4, check, sizeof(check));
    uint8_t *at = begin_entry(record, "ER", 8 + sizeof(id) - 1);
    at[4] = sizeof(id) - 1;
    at[7] = 1;
    put(at + 8, id, sizeof(id) - 1);
}

static void add_name(uint8_t *record, const char *name)
{
    size_t length = strlen(name);

    put(begin_entry(record, "NM", 5 + length) + 5, name, length);
}

/* A record has an even length. */
static uint8_t *end_record(uint8_t *record)
{
    record[0] = (uint8_t)(record[0] + record[0] % 2);
    return record + record[0];
}

static void write_root(uint8_t *at, const struct iso_file *files, unsigned count)
{
    uint32_t sector = DATA;

    put_record(at, ROOT, ISO_SECTOR, true, "\0", 1);
    add_announcement(at);
    add_owner(at, S_IFDIR | 0555, 2);
    at = end_record(at);
    put_record(at, ROOT, ISO_SECTOR, true, "\1", 1);
    add_owner(at, S_IFDIR | 0555, 2);
    at = end_record(at);
    for (unsigned i = 0; i < count; i++) {
        const struct iso_file *file = &files[i];
        put_record(at, sector, (uint32_t)file->length, false, file->short_name,
                   strlen(file->short_name));
        add_owner(at, S_IFREG | 0400, 1);
        add_name(at, file->name);
        at = end_record(at);
        sector += (uint32_t)((file->length + ISO_SECTOR - 1) / ISO_SECTOR);
    }
}

static void write_descriptor(uint8_t *at, const char *label, uint32_t sectors)
{
    at[0] = 1;
    put(at + 1, "CD001\1", 6);
    memset(at + 8, ' ', 64); /* the system's name, and the label */
    put(at + 40, label, strlen(label));
    put_both(at + 80, sectors, 4);
    put_both(at + 120, 1, 2); /* the first volume of one */
    put_both(at + 124, 1, 2);
    put_both(at + 128, ISO_SECTOR, 2);
    put_both(at + 132, PATHS_LENGTH, 4);
    put_little(at + 140, PATHS_LITTLE, 4);
    put_big(at + 148, PATHS_BIG, 4);
    put_record(at + 156, ROOT, ISO_SECTOR, true, "\0", 1);
    memset(at + 190, ' ', 623); /* publisher and the like */
    memset(at + 813, '0', 68);  /* created, modified, not valid after, not valid before: no dates */
    for (unsigned i = 0; i < 4; i++)
        at[813 + 17 * i + 16] = 0; /* their time zones */
    at[881] = 1;
}

static void write_path(uint8_t *at, bool big)
{
    at[0] = 1; /* the length of the root's name, a zero byte */
    (big ? put_big : put_little)(at + 2, ROOT, 4);
    (big ? put_big : put_little)(at + 6, 1, 2); /* its parent: itself */
}

int iso_make(const char *label, const struct iso_file *files, unsigned count, void **ret_bytes,
             size_t *ret_size)
{
    size_t sectors = DATA;

    assert(count <= ISO_MOST_FILES && strlen(label) <= 32);
    for (unsigned i = 0; i < count; i++) {
        assert(strlen(files[i].name) <= ISO_NAME_MAX && strlen(files[i].short_name) <= 12);
        if (files[i].length > FILE_MAX)
            return -EFBIG;
        sectors += (files[i].length + ISO_SECTOR - 1) / ISO_SECTOR;
    }
    uint8_t *bytes = calloc(sectors, ISO_SECTOR);
    if (!bytes)
        return -ENOMEM;
    write_descriptor(bytes + DESCRIPTOR * ISO_SECTOR, label, (uint32_t)sectors);
    put(bytes + DESCRIPTORS_END * ISO_SECTOR, "\377CD001\1", 7);
    write_path(bytes + PATHS_LITTLE * ISO_SECTOR, false);
    write_path(bytes + PATHS_BIG * ISO_SECTOR, true);
    write_root(bytes + ROOT * ISO_SECTOR, files, count);
    uint8_t *at = bytes + DATA * ISO_SECTOR;
    for (unsigned i = 0; i < count; i++) {
        put(at, files[i].bytes, files[i].length);
        at += (files[i].length + ISO_SECTOR - 1) / ISO_SECTOR * ISO_SECTOR;
    }
    *ret_bytes = bytes;
    *ret_size = sectors * ISO_SECTOR;
    return 0;
}
