/* SPDX-License-Identifier: MIT */
/*
 * INT 13h: the old functions by cylinder, head and sector, and the Enhanced Disk Drive functions by
 * block (EDD 3.0, T13 1386D), on disks from 80h and CDs from E0h; of El Torito emulation only the
 * question for it, because there is none. No floppies.
 *
 * Data goes from the drive straight into guest RAM: one borrowed range per call, checked as a whole
 * before anything moves. Every call leaves its status at 40:74 too.
 */
#include "firmware/x86/bios_parts.h"

#include <errno.h>
#include <string.h>

enum {
    DISK_GOOD = 0x00,
    DISK_BAD_PARAMETER = 0x01,
    DISK_WRITE_PROTECTED = 0x03,
    DISK_NOT_FOUND = 0x04, /* the sector */
    DISK_BAD_BUFFER = 0x09,
    DISK_NOT_REMOVABLE = 0xB2,
    DISK_WRITE_FAULT = 0xCC,
};

enum { MOST_BLOCKS = 127 };

enum transfer { TRANSFER_READ, TRANSFER_WRITE, TRANSFER_VERIFY };

static uint8_t status_of(int ret, enum transfer transfer)
{
    if (ret == 0)
        return DISK_GOOD;
    if (ret == -EROFS || ret == -EPERM)
        return DISK_WRITE_PROTECTED;
    return transfer == TRANSFER_WRITE ? DISK_WRITE_FAULT : DISK_NOT_FOUND;
}

/* To verify is to say that the sectors exist: the medium's errors are the host's to find. */
static uint8_t move_sectors(struct bios_call *call, const struct bios_unit *unit,
                            enum transfer transfer, uint64_t sector, unsigned count, gpa_t buffer)
{
    const struct bios_drive *drive = unit->drive;
    uint64_t offset = sector * unit->sector_size;
    struct iovec iov = {.iov_len = (size_t)count * unit->sector_size};
    int ret;

    if (count > unit->sectors || sector > unit->sectors - count)
        return DISK_NOT_FOUND;
    if (transfer == TRANSFER_VERIFY || count == 0)
        return DISK_GOOD;
    if (transfer == TRANSFER_WRITE && drive->readonly)
        return DISK_WRITE_PROTECTED;
    if (memory_borrow(call->memory, buffer, iov.iov_len, &iov.iov_base) < 0)
        return DISK_BAD_BUFFER;
    if (transfer == TRANSFER_WRITE)
        return status_of(drive->write(drive->ctx, offset, &iov, 1), transfer);
    ret = drive->read(drive->ctx, offset, &iov, 1);
    /* Also when it failed: a part may have come. */
    memory_written(call->memory, buffer, iov.iov_len);
    return status_of(ret, transfer);
}

/* A buffer named by segment and offset ends below FFFF:FFFF, the last that such a name reaches. */
static bool fits_real_mode(gpa_t buffer, uint64_t length)
{
    const gpa_t end = 0x10FFF0;
    return buffer <= end && length <= end - buffer;
}

/* --- by cylinder, head and sector ------------------------------------------------------------ */

static uint8_t transfer_chs(struct bios_call *call, const struct bios_unit *unit,
                            enum transfer transfer)
{
    const struct bios_mailbox *mail = &call->mail;
    unsigned count = low(mail->eax), number = low(mail->ecx) & 0x3F, head = high(mail->edx);
    unsigned cylinder = high(mail->ecx) | (low(mail->ecx) & 0xC0u) << 2;
    gpa_t buffer = far(mail->es, mail->ebx);

    if (count == 0 || number == 0)
        return DISK_BAD_PARAMETER;
    if (number > unit->sectors_per_track || head >= unit->heads || cylinder >= unit->cylinders)
        return DISK_NOT_FOUND;
    if (!fits_real_mode(buffer, (uint64_t)count * unit->sector_size))
        return DISK_BAD_BUFFER;
    uint64_t sector = ((uint64_t)cylinder * unit->heads + head) * unit->sectors_per_track;
    return move_sectors(call, unit, transfer, sector + number - 1, count, buffer);
}

static uint8_t get_parameters(struct bios_call *call, const struct bios_unit *unit)
{
    struct bios_mailbox *mail = &call->mail;
    uint32_t last = (unit->cylinders < 1024 ? unit->cylinders : 1024) - 1;

    set_word(&mail->ecx,
             (uint16_t)((last & 0xFF) << 8 | (last >> 8) << 6 | unit->sectors_per_track));
    set_word(&mail->edx, (uint16_t)((unit->heads - 1) << 8 | call->bios->disk_count));
    set_word(&mail->eax, 0);
    return DISK_GOOD;
}

/* AH is no status here: 3 is a hard disk, and CX:DX its size. */
static void get_type(struct bios_call *call, const struct bios_unit *unit)
{
    uint64_t sectors = unit->sectors < UINT32_MAX ? unit->sectors : UINT32_MAX;

    set_word(&call->mail.ecx, (uint16_t)(sectors >> 16));
    set_word(&call->mail.edx, (uint16_t)sectors);
    call_good(call);
    set_high(&call->mail.eax, 3);
}

/* --- by block -------------------------------------------------------------------------------- */

/* DS:SI */
struct address_packet {
    uint8_t size, reserved;
    uint16_t count; /* a byte in the standard, and the next one 0 */
    uint16_t offset, segment;
    uint64_t sector;
    uint64_t flat; /* where segment and offset are all ones, and the packet is that long */
};

enum { PACKET_SIZE = 0x10, PACKET_WITH_FLAT = 0x18, PACKET_COUNT_AT = 2 };

static uint8_t transfer_blocks(struct bios_call *call, const struct bios_unit *unit,
                               enum transfer transfer)
{
    gpa_t at = far(call->mail.ds, call->mail.esi);
    struct address_packet packet = {0};
    uint8_t status;
    gpa_t buffer;

    if (memory_read(call->memory, at, &packet, PACKET_SIZE) < 0 || packet.size < PACKET_SIZE ||
        packet.count > MOST_BLOCKS)
        return DISK_BAD_PARAMETER;
    bool flat = packet.size >= PACKET_WITH_FLAT && packet.offset == 0xFFFF &&
                packet.segment == 0xFFFF;
    if (flat && memory_read(call->memory, at + PACKET_SIZE, &packet.flat, sizeof(packet.flat)) < 0)
        return DISK_BAD_PARAMETER;
    buffer = flat ? packet.flat : far(packet.segment, packet.offset);
    if (transfer != TRANSFER_VERIFY && !flat &&
        !fits_real_mode(buffer, (uint64_t)packet.count * unit->sector_size))
        status = DISK_BAD_BUFFER;
    else
        status = move_sectors(call, unit, transfer, packet.sector, packet.count, buffer);
    if (status != DISK_GOOD)
        bios_put16(call, at + PACKET_COUNT_AT, 0); /* how many were moved */
    return status;
}

static uint8_t write_blocks(struct bios_call *call, const struct bios_unit *unit)
{
    enum { WRITE_AND_VERIFY = 2 };

    if (low(call->mail.eax) > WRITE_AND_VERIFY)
        return DISK_BAD_PARAMETER;
    return transfer_blocks(call, unit, TRANSFER_WRITE);
}

static uint8_t check_extensions(struct bios_call *call)
{
    enum { PACKETS = 1, EDD = 4, VERSION_30 = 0x30 };

    if (word(call->mail.ebx) != 0x55AA)
        return DISK_BAD_PARAMETER;
    set_word(&call->mail.ebx, 0xAA55);
    set_word(&call->mail.ecx, PACKETS | EDD);
    set_high(&call->mail.eax, VERSION_30);
    return DISK_GOOD;
}

/* What EDD 48h returns, without the path to the device: it is on no bus that the table knows. */
struct drive_parameters {
    uint16_t size, flags;
    uint32_t cylinders, heads, sectors_per_track;
    uint64_t sectors;
    uint16_t bytes_per_sector;
    uint16_t configuration[2]; /* of an ATA drive; all ones: there is none */
};

static uint8_t get_drive_parameters(struct bios_call *call, const struct bios_unit *unit, bool cd)
{
    enum { BASIC = 0x1A, WITH_CONFIGURATION = 0x1E };
    enum { DMA_BOUNDARY_HANDLED = 1, GEOMETRY_VALID = 2, REMOVABLE = 4 };
    gpa_t at = far(call->mail.ds, call->mail.esi);
    uint16_t size = bios_get16(call, at);
    struct drive_parameters answer = {
        .size = size < WITH_CONFIGURATION ? BASIC : WITH_CONFIGURATION,
        .flags = DMA_BOUNDARY_HANDLED | (cd ? REMOVABLE : GEOMETRY_VALID),
        .cylinders = cd ? 0 : unit->cylinders,
        .heads = cd ? 0 : unit->heads,
        .sectors_per_track = cd ? 0 : unit->sectors_per_track,
        .sectors = unit->sectors,
        .bytes_per_sector = (uint16_t)unit->sector_size,
        .configuration = {0xFFFF, 0xFFFF},
    };

    if (size < BASIC || memory_write(call->memory, at, &answer, answer.size) < 0)
        return DISK_BAD_PARAMETER;
    return DISK_GOOD;
}

/* El Torito 1.0, figure 7. AL=1 only asks; there is no emulation that AL=0 could end. */
static uint8_t get_emulation(struct bios_call *call, const struct bios_unit *unit)
{
    struct specification {
        uint8_t size, media, drive, controller;
        uint32_t block;
        uint16_t device, buffer_segment, load_segment, sectors;
        uint8_t chs[3], reserved;
    } answer = {.size = 0x13,
                .drive = low(call->mail.edx),
                .block = unit->entry.block,
                .load_segment = unit->entry.segment,
                .sectors = unit->entry.sectors};

    if (low(call->mail.eax) != 1)
        return DISK_BAD_PARAMETER;
    if (memory_write(call->memory, far(call->mail.ds, call->mail.esi), &answer, answer.size) < 0)
        return DISK_BAD_BUFFER;
    return DISK_GOOD;
}

/* --- the table ------------------------------------------------------------------------------- */

static uint8_t serve_old(struct bios_call *call, const struct bios_unit *unit)
{
    switch (high(call->mail.eax)) {
    case 0x02:
        return transfer_chs(call, unit, TRANSFER_READ);
    case 0x03:
        return transfer_chs(call, unit, TRANSFER_WRITE);
    case 0x04:
        return transfer_chs(call, unit, TRANSFER_VERIFY);
    case 0x08:
        return get_parameters(call, unit);
    case 0x0C: /* seek */
        return low(call->mail.ecx) & 0x3F ? DISK_GOOD : DISK_BAD_PARAMETER;
    case 0x09: /* the table of parameters is ours */
    case 0x11: /* recalibrate */
    case 0x14: /* diagnostics */
        return DISK_GOOD;
    }
    return DISK_BAD_PARAMETER;
}

static uint8_t serve(struct bios_call *call, const struct bios_unit *unit, bool cd)
{
    switch (high(call->mail.eax)) {
    case 0x00: /* reset */
    case 0x0D:
    case 0x10: /* ready? */
        return DISK_GOOD;
    case 0x41:
        return check_extensions(call);
    case 0x42:
        return transfer_blocks(call, unit, TRANSFER_READ);
    case 0x43:
        return write_blocks(call, unit);
    case 0x44:
    case 0x47: /* seek */
        return transfer_blocks(call, unit, TRANSFER_VERIFY);
    case 0x45: /* lock */
    case 0x46: /* eject */
        return DISK_NOT_REMOVABLE;
    case 0x48:
        return get_drive_parameters(call, unit, cd);
    case 0x4B:
        return cd ? get_emulation(call, unit) : DISK_BAD_PARAMETER;
    }
    return cd ? DISK_BAD_PARAMETER : serve_old(call, unit);
}

/* Their AH is an answer, not a status. */
static bool serve_special(struct bios_call *call, const struct bios_unit *unit, bool cd)
{
    switch (high(call->mail.eax)) {
    case 0x01: /* the last call's status */
        set_high(&call->mail.eax, bios_get8(call, BDA_DISK_STATUS));
        set_flag(call, FLAG_CARRY, high(call->mail.eax) != DISK_GOOD);
        return true;
    case 0x15:
        if (unit && !cd)
            get_type(call, unit);
        else
            call_good(call); /* AH=0: no such drive */
        return true;
    }
    return false;
}

void bios_disk(struct bios_call *call)
{
    uint8_t number = low(call->mail.edx), function = high(call->mail.eax);
    bool cd = number >= BIOS_FIRST_CD;

    bios_probe(call->bios);
    const struct bios_unit *unit = bios_find_unit(call->bios, number);
    if (serve_special(call, unit, cd))
        return;
    uint8_t status = unit ? serve(call, unit, cd) : DISK_BAD_PARAMETER;
    bios_put8(call, BDA_DISK_STATUS, status);
    set_flag(call, FLAG_CARRY, status != DISK_GOOD);
    if (status != DISK_GOOD || function != 0x41) /* whose AH is a version */
        set_high(&call->mail.eax, status);
    if (status != DISK_GOOD && function >= 0x02 && function <= 0x04)
        set_low(&call->mail.eax, 0); /* sectors moved */
}
