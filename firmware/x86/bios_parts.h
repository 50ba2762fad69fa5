/* SPDX-License-Identifier: MIT */
/*
 * What the BIOS's services share, inside of firmware/ only. They run under the device's lock, one
 * at a time, on the thread of the vCPU that asks.
 */
#pragma once

#include "firmware/x86/bios.h"
#include "firmware/x86/bios_mailbox.h"
#include "firmware/x86/layout.h"
#include <pthread.h>

/* Fields of the BIOS data area: what the services read there is the guest's. */
enum {
    BDA_COM1 = 0x400,
    BDA_EBDA = 0x40E,
    BDA_EQUIPMENT = 0x410,
    BDA_MEMORY_KIB = 0x413,
    BDA_SHIFT_FLAGS = 0x417,
    BDA_KEY_HEAD = 0x41A, /* offsets by segment 40h, as are... */
    BDA_KEY_TAIL = 0x41C,
    BDA_KEYS = 0x41E,
    BDA_VIDEO_MODE = 0x449,
    BDA_COLUMNS = 0x44A,
    BDA_PAGE_SIZE = 0x44C,
    BDA_CURSOR = 0x450, /* column, row */
    BDA_CURSOR_SHAPE = 0x460,
    BDA_CRTC = 0x463,
    BDA_TICKS = 0x46C,
    BDA_MIDNIGHT = 0x470,
    BDA_DISK_STATUS = 0x474,
    BDA_DISK_COUNT = 0x475,
    BDA_COM1_TIMEOUT = 0x47C,
    BDA_KEYS_BEGIN = 0x480, /* ...these, of the first key and behind the last */
    BDA_KEYS_END = 0x482,
    BDA_ROWS = 0x484, /* minus 1 */
    BDA_KEYBOARD = 0x496,
    BDA_SIZE = 0x100,
};

enum { BIOS_ROWS = 25, BIOS_COLUMNS = 80, BIOS_TEXT_MODE = 3, BIOS_NORMAL = 0x07 };
enum { BIOS_TICKS_PER_DAY = 0x1800B0 };
enum { BIOS_SECTOR = 512, BIOS_CD_SECTOR = 2048 };

/*
 * All that outlasts a call and does not lie in guest memory. The screen is a terminal at the end of
 * the serial line: only we know where its cursor is.
 */
struct bios_state {
    uint8_t boot_next; /* the candidate that INT 18h tries */
    uint8_t row, column;
    bool lost; /* the terminal's cursor is not at row, column */
    uint8_t attribute;
};

/* The x86 no-emulation entry of an El Torito catalog. */
struct bios_cd_entry {
    uint32_t block; /* of 2048 bytes */
    uint16_t segment;
    uint16_t sectors; /* of 512 bytes */
};

/* A drive as INT 13h counts it. */
struct bios_unit {
    const struct bios_drive *drive;
    uint32_t sector_size;
    uint64_t sectors;
    uint32_t cylinders, heads, sectors_per_track;
    struct bios_cd_entry entry; /* of a CD */
};

/* A drive of the configuration, whose answers are watched for one: -ECANCELED. */
struct bios_watch {
    struct bios *bios;
    const struct bios_drive *drive;
};

struct bios {
    struct device device;
    pthread_mutex_t lock; /* everything below that changes */
    struct bios_state state;
    struct bios_config config;
    bool on_bus;
    struct bios_watch watches[BIOS_MAX_DRIVES];
    struct bios_drive drives[BIOS_MAX_DRIVES]; /* config.drives are these */
    bool interrupted; /* this call has met a drive that wants to be asked again later */
    /* Found out by reading the drives, once after each reset: disks 80h.., CDs E0h.. */
    bool probed;
    unsigned disk_count, cd_count;
    struct bios_unit disks[BIOS_MAX_DRIVES], cds[BIOS_MAX_DRIVES];
    uint64_t escape_since; /* host ns: since when a half of a key waits in the receiver; 0: not */
};

enum { BIOS_FIRST_DISK = 0x80, BIOS_FIRST_CD = 0xE0 };

/* --- a call --------------------------------------------------------------------------------- */

struct bios_call {
    struct bios *bios;
    struct memory *memory;
    struct bios_mailbox mail;
};

enum { FLAG_CARRY = 0x01, FLAG_ZERO = 0x40 };

static inline uint8_t low(uint32_t reg)
{
    return (uint8_t)reg;
}

static inline uint8_t high(uint32_t reg)
{
    return (uint8_t)(reg >> 8);
}

static inline uint16_t word(uint32_t reg)
{
    return (uint16_t)reg;
}

static inline void set_low(uint32_t *reg, uint8_t value)
{
    *reg = (*reg & ~0xFFu) | value;
}

static inline void set_high(uint32_t *reg, uint8_t value)
{
    *reg = (*reg & ~0xFF00u) | (uint32_t)value << 8;
}

static inline void set_word(uint32_t *reg, uint16_t value)
{
    *reg = (*reg & ~0xFFFFu) | value;
}

static inline void set_flag(struct bios_call *call, uint16_t flag, bool on)
{
    call->mail.flags = (uint16_t)((call->mail.flags & ~flag) | (on ? flag : 0));
}

/* The two ends that most calls have: a status in AH, and CF says whether it is an error. */
static inline void call_good(struct bios_call *call)
{
    set_high(&call->mail.eax, 0);
    set_flag(call, FLAG_CARRY, false);
}

static inline void call_bad(struct bios_call *call, uint8_t status)
{
    set_high(&call->mail.eax, status);
    set_flag(call, FLAG_CARRY, true);
}

/* A real-mode pointer; the A20 line is always on. */
static inline gpa_t far(uint16_t segment, uint32_t offset)
{
    return ((gpa_t)segment << 4) + word(offset);
}

/* --- memory: what cannot be read is 0, and what cannot be written is lost ------------------- */

uint8_t bios_get8(const struct bios_call *call, gpa_t at);
uint16_t bios_get16(const struct bios_call *call, gpa_t at);
uint32_t bios_get32(const struct bios_call *call, gpa_t at);
void bios_put8(struct bios_call *call, gpa_t at, uint8_t value);
void bios_put16(struct bios_call *call, gpa_t at, uint16_t value);
void bios_put32(struct bios_call *call, gpa_t at, uint32_t value);

/* --- services ------------------------------------------------------------------------------- */

void bios_video(struct bios_call *call);       /* INT 10h */
void bios_show_cursor(struct bios_call *call); /* the terminal's to where the guest has it */
void bios_equipment(struct bios_call *call);   /* 11h */
void bios_memory_size(struct bios_call *call); /* 12h */
void bios_disk(struct bios_call *call);        /* 13h */
void bios_system(struct bios_call *call);      /* 15h */
void bios_keyboard(struct bios_call *call);    /* 16h */
void bios_boot_next(struct bios_call *call);   /* 18h */
void bios_boot_first(struct bios_call *call);  /* 19h */
void bios_time(struct bios_call *call);        /* 1Ah */
void bios_pci(struct bios_call *call);         /* 1Ah, AH=B1h */

/* --- drives --------------------------------------------------------------------------------- */

/* Looks at every drive, where that has not been done since the reset. */
void bios_probe(struct bios *bios);

/* The unit with that number, or NULL. */
const struct bios_unit *bios_find_unit(struct bios *bios, uint8_t number);

/* Bytes that lie in one block of the drive. -ERANGE: past its end. */
int bios_read_some(const struct bios_drive *drive, uint64_t offset, void *to,
                   size_t length) must_check;
