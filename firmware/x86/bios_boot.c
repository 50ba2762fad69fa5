/* SPDX-License-Identifier: MIT */
/*
 * Which drives there are, and what INT 19h and 18h start: the first disk with a boot sector, then
 * the first CD (ISO 9660 with an El Torito catalog, version 1.0, that has an x86 entry without
 * emulation). A CD with such an entry is a CD only, also where it begins with a boot sector for
 * those who copy it to a stick; without one it is a disk like others.
 *
 * What lies on a disk is a guest's, and hostile.
 */
#include "firmware/x86/bios_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    BOOT_ADDRESS = 0x7C00,
    CODE_SIZE = 440, /* of an MBR: behind it are the disk's signature and the partitions */
    SIGNATURE_AT = 510,
    PARTITIONS_AT = 446,
    PARTITION_TYPE_AT = 4,
    TYPE_PROTECTIVE = 0xEE, /* the disk is in truth a GPT */
};

enum { CD_VOLUMES = 16, CD_BOOT_RECORD = 17, CD_ENTRY = 32 };

static uint16_t get16(const uint8_t *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}

static uint32_t get32(const uint8_t *from)
{
    return get16(from) | (uint32_t)get16(from + 2) << 16;
}

/* --- reading --------------------------------------------------------------------------------- */

static int read_drive(const struct bios_drive *drive, uint64_t offset, void *to, size_t length)
{
    struct iovec iov = {to, length};

    if (length > drive->size || offset > drive->size - length)
        return -ERANGE;
    return drive->read(drive->ctx, offset, &iov, 1);
}

int bios_read_some(const struct bios_drive *drive, uint64_t offset, void *to, size_t length)
{
    enum { LARGEST_BLOCK = 4096 };
    uint8_t block[LARGEST_BLOCK];
    uint64_t skip = offset % drive->block_size;

    if (drive->block_size > LARGEST_BLOCK || skip + length > drive->block_size)
        return -EINVAL;
    int ret = read_drive(drive, offset - skip, block, drive->block_size);
    if (ret == 0)
        memcpy(to, block + skip, length);
    return ret;
}

/* --- CDs ------------------------------------------------------------------------------------- */

/* A drive whose blocks are larger than a CD's is none. */
static int read_cd(const struct bios_drive *drive, uint32_t block, uint8_t *to)
{
    if (drive->block_size > BIOS_CD_SECTOR)
        return -EINVAL;
    return read_drive(drive, (uint64_t)block * BIOS_CD_SECTOR, to, BIOS_CD_SECTOR);
}

static bool is_iso(const struct bios_drive *drive)
{
    uint8_t volume[BIOS_CD_SECTOR];

    return read_cd(drive, CD_VOLUMES, volume) == 0 && memcmp(volume + 1, "CD001", 5) == 0;
}

/* The catalog begins with an entry whose 16-bit words add up to 0. */
static bool is_catalog(const uint8_t *catalog)
{
    uint16_t sum = 0;

    for (unsigned i = 0; i < CD_ENTRY; i += 2)
        sum = (uint16_t)(sum + get16(catalog + i));
    return catalog[0] == 1 && catalog[30] == 0x55 && catalog[31] == 0xAA && sum == 0;
}

static bool take_entry(const uint8_t *entry, struct bios_cd_entry *ret_entry)
{
    enum { BOOTABLE = 0x88, EMULATION = 0x0F, USUAL_SEGMENT = BOOT_ADDRESS >> 4 };
    uint16_t segment = get16(entry + 2), sectors = get16(entry + 6);

    if (entry[0] != BOOTABLE || (entry[1] & EMULATION) != 0)
        return false;
    *ret_entry = (struct bios_cd_entry){.block = get32(entry + 8),
                                        .segment = segment ? segment : USUAL_SEGMENT,
                                        .sectors = sectors ? sectors : 1};
    return true;
}

/* The first entry belongs to the catalog's own platform; then come sections, each with its own. */
static bool find_entry(const uint8_t *catalog, struct bios_cd_entry *ret_entry)
{
    enum { PLATFORM_X86 = 0, SECTION = 0x90, LAST_SECTION = 0x91, EXTENSION = 0x44 };
    uint8_t platform = catalog[1];

    for (unsigned at = CD_ENTRY; at < BIOS_CD_SECTOR; at += CD_ENTRY) {
        const uint8_t *entry = catalog + at;
        if (entry[0] == SECTION || entry[0] == LAST_SECTION)
            platform = entry[1];
        else if (entry[0] != EXTENSION && platform == PLATFORM_X86 && take_entry(entry, ret_entry))
            return true;
    }
    return false;
}

static bool is_cd(const struct bios_drive *drive, struct bios_cd_entry *ret_entry)
{
    static const char system[] = "EL TORITO SPECIFICATION";
    uint8_t sector[BIOS_CD_SECTOR];

    if (!is_iso(drive) || read_cd(drive, CD_BOOT_RECORD, sector) < 0)
        return false;
    if (sector[0] != 0 || memcmp(sector + 1, "CD001", 5) != 0 ||
        memcmp(sector + 7, system, sizeof(system) - 1) != 0)
        return false;
    return read_cd(drive, get32(sector + 71), sector) == 0 && is_catalog(sector) &&
           find_entry(sector, ret_entry);
}

/* --- geometry -------------------------------------------------------------------------------- */

/*
 * The BIOS parameter block of a FAT or NTFS that begins on the first sector: its boot code counts
 * by it. An MBR has code in this place, which hardly ever passes for one.
 */
static bool has_parameter_block(const uint8_t *sector, uint32_t sector_size)
{
    bool jumps = (sector[0] == 0xEB && sector[2] == 0x90) || sector[0] == 0xE9;
    unsigned per_cluster = sector[13];

    return jumps && get16(sector + 11) == sector_size && per_cluster != 0 &&
           (per_cluster & (per_cluster - 1)) == 0 && sector[21] >= 0xF0 && sector[16] <= 2 &&
           get16(sector + 24) >= 1 && get16(sector + 24) <= 63 && get16(sector + 26) >= 1 &&
           get16(sector + 26) <= 255;
}

/* Else as every PC counts a disk of more than 8 GB, whatever its size: what makes partitions counts
 * so, too. */
static void choose_geometry(struct bios_unit *unit)
{
    uint8_t sector[BIOS_SECTOR];

    unit->heads = 255;
    unit->sectors_per_track = 63;
    if (bios_read_some(unit->drive, 0, sector, sizeof(sector)) == 0 &&
        has_parameter_block(sector, unit->sector_size)) {
        unit->sectors_per_track = get16(sector + 24);
        unit->heads = get16(sector + 26);
    }
    uint64_t track = (uint64_t)unit->heads * unit->sectors_per_track;
    /* What a last, incomplete cylinder has can be reached too. */
    uint64_t cylinders = unit->sectors / track + (unit->sectors % track != 0);
    unit->cylinders = (uint32_t)(cylinders < UINT32_MAX ? cylinders : UINT32_MAX);
    if (unit->cylinders == 0)
        unit->cylinders = 1;
}

void bios_probe(struct bios *bios)
{
    if (bios->probed)
        return;
    bios->disk_count = bios->cd_count = 0;
    for (unsigned i = 0; i < bios->config.drive_count; i++) {
        const struct bios_drive *drive = &bios->config.drives[i];
        struct bios_unit unit = {.drive = drive, .sector_size = drive->block_size};
        if (is_cd(drive, &unit.entry)) {
            unit.sector_size = BIOS_CD_SECTOR;
            unit.sectors = drive->size / BIOS_CD_SECTOR;
            bios->cds[bios->cd_count++] = unit;
        } else {
            unit.sectors = drive->size / drive->block_size;
            choose_geometry(&unit);
            bios->disks[bios->disk_count++] = unit;
        }
    }
    bios->probed = !bios->interrupted;
}

const struct bios_unit *bios_find_unit(struct bios *bios, uint8_t number)
{
    if (number >= BIOS_FIRST_CD)
        return number - BIOS_FIRST_CD < (int)bios->cd_count ? &bios->cds[number - BIOS_FIRST_CD]
                                                            : NULL;
    if (number >= BIOS_FIRST_DISK && number - BIOS_FIRST_DISK < (int)bios->disk_count)
        return &bios->disks[number - BIOS_FIRST_DISK];
    return NULL;
}

/* --- starting -------------------------------------------------------------------------------- */

/* Why something does not boot, for a person. */
struct reason {
    char text[160];
};

enum { NAME_SIZE = 100, MORE_SIZE = 32 };

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static bool is_protective(const uint8_t *sector)
{
    for (unsigned i = 0; i < 4; i++)
        if (sector[PARTITIONS_AT + 16 * i + PARTITION_TYPE_AT] == TYPE_PROTECTIVE)
            return true;
    return false;
}

static bool refuse(struct reason *reason, const char *text)
{
    snprintf(reason->text, sizeof(reason->text), "%s", text);
    return false;
}

static bool refuse_unreadable(struct reason *reason, int error)
{
    char words[80];

    snprintf(reason->text, sizeof(reason->text), "cannot be read: %s",
             strerror_r(-error, words, sizeof(words)));
    return false;
}

static bool read_boot_sector(const struct bios_unit *unit, uint8_t *to, struct reason *reason)
{
    if (unit->sectors == 0)
        return refuse(reason, "is too small for a boot sector");
    int ret = bios_read_some(unit->drive, 0, to, BIOS_SECTOR);
    if (ret < 0)
        return refuse_unreadable(reason, ret);
    bool iso = is_iso(unit->drive);
    if (is_zero(to, BIOS_SECTOR))
        return refuse(reason, iso ? "is a CD without an entry for PCs that needs no emulation"
                                  : "is empty where its boot sector should be");
    if (to[SIGNATURE_AT] != 0x55 || to[SIGNATURE_AT + 1] != 0xAA)
        return refuse(reason, "has no boot sector, which has 55 AA at byte 510");
    if (is_zero(to, CODE_SIZE))
        return refuse(reason, is_protective(to) ? "has a GPT and no boot code for a BIOS; was it "
                                                  "made for UEFI?"
                                                : "has partitions and no boot code");
    return true;
}

/* Above the data areas, and below the extended one. */
static bool load_cd(struct bios_call *call, const struct bios_unit *unit, struct reason *reason)
{
    const struct bios_cd_entry *entry = &unit->entry;
    gpa_t at = (gpa_t)entry->segment << 4;
    uint64_t offset = (uint64_t)entry->block * BIOS_CD_SECTOR;
    /* Whole blocks of the drive. */
    size_t length = ((size_t)entry->sectors * BIOS_SECTOR + BIOS_CD_SECTOR - 1) / BIOS_CD_SECTOR *
                    BIOS_CD_SECTOR;
    void *to;

    if (at < LAYOUT_GDT || at > LAYOUT_EBDA || length > LAYOUT_EBDA - at)
        return refuse(reason, "has a boot image that does not fit into low memory");
    if (length > unit->drive->size || offset > unit->drive->size - length ||
        offset % unit->drive->block_size || length % unit->drive->block_size)
        return refuse(reason, "has a boot image that is not inside of it");
    if (memory_borrow(call->memory, at, length, &to) < 0)
        return refuse(reason, "has a boot image that is larger than the memory");
    int ret = read_drive(unit->drive, offset, to, length);
    memory_written(call->memory, at, length);
    if (ret < 0)
        return refuse_unreadable(reason, ret);
    call->mail.entry_cs = entry->segment & 0xF000;
    call->mail.entry_ip = (uint16_t)((entry->segment & 0x0FFF) << 4);
    return true;
}

static bool load_disk(struct bios_call *call, const struct bios_unit *unit, struct reason *reason)
{
    uint8_t sector[BIOS_SECTOR];

    if (!read_boot_sector(unit, sector, reason))
        return false;
    if (memory_write(call->memory, BOOT_ADDRESS, sector, sizeof(sector)) < 0)
        return refuse(reason, "finds no memory for its boot sector");
    call->mail.entry_cs = 0;
    call->mail.entry_ip = BOOT_ADDRESS;
    return true;
}

/* Candidates are numbered: disks, then CDs. */
static const struct bios_unit *candidate(struct bios *bios, unsigned index, uint8_t *ret_number)
{
    bool cd = index >= bios->disk_count;

    *ret_number = (uint8_t)(cd ? BIOS_FIRST_CD + index - bios->disk_count
                               : BIOS_FIRST_DISK + index);
    return bios_find_unit(bios, *ret_number);
}

static bool load(struct bios_call *call, const struct bios_unit *unit, uint8_t number,
                 struct reason *reason)
{
    return number >= BIOS_FIRST_CD ? load_cd(call, unit, reason) : load_disk(call, unit, reason);
}

/* The end of a name is what tells it from others. */
static const char *short_name(const char *name, char to[NAME_SIZE])
{
    size_t length = strlen(name);

    if (length < NAME_SIZE)
        return name;
    snprintf(to, NAME_SIZE, "...%s", name + length - (NAME_SIZE - 4));
    return to;
}

/* One sentence with all of them; those that would load have been started, and gave up. */
static void give_up(struct bios_call *call)
{
    struct bios *bios = call->bios;
    unsigned count = bios->disk_count + bios->cd_count, i;
    char why[400];
    int length = snprintf(why, sizeof(why), "%s", count ? "" : "the machine has no disk at all");

    for (i = 0; i < count; i++) {
        struct reason reason;
        uint8_t number;
        const struct bios_unit *unit = candidate(bios, i, &number);
        if (load(call, unit, number, &reason))
            (void)refuse(&reason, "was started, and its loader gave up");
        char name_space[NAME_SIZE];
        const char *name = short_name(unit->drive->name, name_space);
        if ((size_t)length + strlen(name) + strlen(reason.text) + MORE_SIZE > sizeof(why))
            break;
        length += snprintf(why + length, sizeof(why) - (size_t)length, "%s%s %s", i ? "; " : "",
                           name, reason.text);
    }
    if (bios->interrupted)
        return;
    if (i < count)
        snprintf(why + length, sizeof(why) - (size_t)length, "%s%u more", i ? "; and " : "",
                 count - i);
    call->mail.action = BIOS_HALT;
    bios->config.unbootable(bios->config.ctx, why);
}

/* A loader finds the drive's number in DL, and no plug-and-play BIOS by ES:DI. */
static void start(struct bios_call *call, uint8_t number)
{
    struct bios_mailbox *mail = &call->mail;

    mail->eax = mail->ebx = mail->ecx = mail->esi = mail->edi = mail->ebp = 0;
    mail->edx = number;
    mail->es = 0;
    mail->action = BIOS_BOOT;
}

void bios_boot_next(struct bios_call *call)
{
    struct bios *bios = call->bios;

    bios_probe(bios);
    while (bios->state.boot_next < bios->disk_count + bios->cd_count) {
        struct reason reason;
        uint8_t number;
        const struct bios_unit *unit = candidate(bios, bios->state.boot_next, &number);
        bios->state.boot_next++;
        if (load(call, unit, number, &reason)) {
            start(call, number);
            return;
        }
    }
    if (!call->bios->interrupted)
        give_up(call);
}

void bios_boot_first(struct bios_call *call)
{
    bios_probe(call->bios);
    bios_put8(call, BDA_DISK_COUNT, (uint8_t)call->bios->disk_count);
    call->bios->state.boot_next = 0;
    bios_boot_next(call);
}
