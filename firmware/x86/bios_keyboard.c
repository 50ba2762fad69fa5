/* SPDX-License-Identifier: MIT */
/*
 * INT 16h: keys, which come as bytes over the serial line and leave as a US keyboard's scan code
 * and character. A terminal sends keys that have no character as sequences that begin with ESC
 * (ECMA-48, and what xterm and the Linux console add to it); an ESC that nothing follows for a
 * while is the key itself. Bytes stay in the receiver until their key is whole.
 *
 * Keys wait in the BIOS data area's ring, where a PC has them; its pointers are the guest's.
 */
#include "firmware/x86/bios_parts.h"

#include "core/clock.h"
#include <string.h>

enum {
    ESCAPE = 0x1B,
    DELETE = 0x7F,
    GREY = 0xE0, /* the "character" of keys that only the 101-key keyboard has */
    NO_KEY = 0,
    LINE_MAX = 16, /* what the receiver holds */
};

#define ESCAPE_PATIENCE_NS (50 * NS_PER_SEC / 1000)

/* Scan codes by character; what needs Shift has the code of its key. */
static const uint8_t scan_codes[128] = {
    [0x01] = 0x1E, 0x30, 0x2E, 0x20,         0x12, 0x21, 0x22, /* Ctrl-A to Ctrl-G */
    [0x08] = 0x0E, 0x0F, 0x1C, 0x25,         0x26, 0x1C, 0x31, /* backspace, tab, LF, K, L, enter, N
                                                                */
    [0x0F] = 0x18, 0x19, 0x10, 0x13,         0x1F, 0x14, 0x16,         0x2F, 0x11, 0x2D,
    0x15,          0x2C, /* O to Z */
    [0x1B] = 0x01, 0x2B, 0x1B, 0x07,         0x0C, 0x39, ['!'] = 0x02, 0x28, 0x04, 0x05,
    0x06,          0x08, 0x28,                                               /* !"#$%&' */
    ['('] = 0x0A,  0x0B, 0x09, 0x0D,         0x33, 0x0C, 0x34,         0x35, /* ()*+,-./ */
    ['0'] = 0x0B,  0x02, 0x03, 0x04,         0x05, 0x06, 0x07,         0x08, 0x09, 0x0A,
    [':'] = 0x27,  0x27, 0x33, 0x0D,         0x34, 0x35, 0x03, /* :;<=>?@ */
    ['A'] = 0x1E,  0x30, 0x2E, 0x20,         0x12, 0x21, 0x22,         0x23, 0x17, 0x24,
    0x25,          0x26, 0x32, ['N'] = 0x31, 0x18, 0x19, 0x10,         0x13, 0x1F, 0x14,
    0x16,          0x2F, 0x11, 0x2D,         0x15, 0x2C, ['['] = 0x1A, 0x2B, 0x1B, 0x07,
    0x0C,          0x29, /* [\]^_` */
    ['a'] = 0x1E,  0x30, 0x2E, 0x20,         0x12, 0x21, 0x22,         0x23, 0x17, 0x24,
    0x25,          0x26, 0x32, ['n'] = 0x31, 0x18, 0x19, 0x10,         0x13, 0x1F, 0x14,
    0x16,          0x2F, 0x11, 0x2D,         0x15, 0x2C, ['{'] = 0x1A, 0x2B, 0x1B, 0x29, /* {|}~ */
};

static uint16_t key_of_byte(uint8_t byte)
{
    if (byte == DELETE)
        byte = '\b';
    return byte < 128 ? (uint16_t)(scan_codes[byte] << 8 | byte) : byte;
}

/* ESC [ ... letter, and ESC O letter. */
static uint16_t key_of_letter(uint8_t letter)
{
    switch (letter) {
    case 'A':
        return 0x4800 | GREY; /* up */
    case 'B':
        return 0x5000 | GREY;
    case 'C':
        return 0x4D00 | GREY; /* right */
    case 'D':
        return 0x4B00 | GREY;
    case 'F':
        return 0x4F00 | GREY; /* end */
    case 'H':
        return 0x4700 | GREY; /* home */
    case 'P':
    case 'Q':
    case 'R':
    case 'S':
        return (uint16_t)((0x3B + letter - 'P') << 8); /* F1 to F4 */
    case 'Z':
        return 0x0F00; /* Shift-Tab */
    default:
        return NO_KEY;
    }
}

/* ESC [ number ~ */
static uint16_t key_of_number(unsigned number)
{
    static const uint8_t first[] = {[1] = 0x47, 0x52, 0x53, 0x4F, 0x49, 0x51, 0x47, 0x4F};

    if (number >= 1 && number < sizeof(first)) /* home, insert, delete, end, page up and down */
        return (uint16_t)(first[number] << 8 | GREY);
    if (number >= 11 && number <= 15)
        return (uint16_t)((0x3B + number - 11) << 8); /* F1 to F5 */
    if (number >= 17 && number <= 21)
        return (uint16_t)((0x40 + number - 17) << 8); /* F6 to F10 */
    if (number == 23 || number == 24)
        return (uint16_t)((0x85 + number - 23) << 8); /* F11, F12 */
    return NO_KEY;
}

/*
 * The key that the bytes begin with. Returns how many belong to it; 0 when it has only begun. A
 * sequence that we do not know is one key that is none.
 */
static size_t parse_escape(const uint8_t *bytes, size_t count, uint16_t *ret_key)
{
    unsigned number = 0;
    bool first = true;
    size_t at = 2;

    if (count < 2)
        return 0;
    if (bytes[1] != '[' && bytes[1] != 'O') {
        *ret_key = key_of_byte(ESCAPE);
        return 1;
    }
    if (count > 2 && bytes[1] == '[' && bytes[2] == '[') { /* the Linux console's F1 to F5 */
        if (count < 4)
            return 0;
        *ret_key = bytes[3] >= 'A' && bytes[3] <= 'E' ? key_of_number(11u + bytes[3] - 'A')
                                                      : NO_KEY;
        return 4;
    }
    for (; at < count && bytes[at] >= 0x20 && bytes[at] < 0x40; at++) {
        first = first && bytes[at] >= '0' && bytes[at] <= '9';
        if (first && number < 100)
            number = number * 10 + bytes[at] - '0';
    }
    if (at == count)
        return 0;
    *ret_key = bytes[at] == '~' ? key_of_number(number) : key_of_letter(bytes[at]);
    return at + 1;
}

static size_t parse(const uint8_t *bytes, size_t count, uint16_t *ret_key)
{
    if (bytes[0] == ESCAPE)
        return parse_escape(bytes, count, ret_key);
    *ret_key = bytes[0] ? key_of_byte(bytes[0]) : NO_KEY; /* a break on the line is a 0 */
    return 1;
}

/* Has half a key waited for its rest for too long? */
static bool out_of_patience(struct bios *bios)
{
    uint64_t now = clock_monotonic_ns();

    if (bios->escape_since == 0)
        bios->escape_since = now;
    return now - bios->escape_since > ESCAPE_PATIENCE_NS;
}

/* --- the ring ------------------------------------------------------------------------------- */

struct ring {
    uint16_t head, tail; /* offsets by segment 40h; inside, and even */
};

enum { RING_BEGIN = BDA_KEYS - LAYOUT_BDA, RING_END = RING_BEGIN + 32 };

static bool is_in_ring(uint16_t offset)
{
    return offset >= RING_BEGIN && offset < RING_END && offset % 2 == 0;
}

/* Pointers that make no sense mean an empty ring. (Where it lies can be changed at 40:80; nobody
 * does.) */
static struct ring get_ring(const struct bios_call *call)
{
    struct ring ring = {bios_get16(call, BDA_KEY_HEAD), bios_get16(call, BDA_KEY_TAIL)};

    if (!is_in_ring(ring.head) || !is_in_ring(ring.tail))
        ring.head = ring.tail = RING_BEGIN;
    return ring;
}

static void put_ring(struct bios_call *call, const struct ring *ring)
{
    bios_put16(call, BDA_KEY_HEAD, ring->head);
    bios_put16(call, BDA_KEY_TAIL, ring->tail);
}

static uint16_t behind(uint16_t offset)
{
    return offset + 2 < RING_END ? (uint16_t)(offset + 2) : RING_BEGIN;
}

static bool push(struct bios_call *call, uint16_t key)
{
    struct ring ring = get_ring(call);

    if (behind(ring.tail) == ring.head)
        return false;
    bios_put16(call, LAYOUT_BDA + ring.tail, key);
    ring.tail = behind(ring.tail);
    put_ring(call, &ring);
    return true;
}

/* Moves what has come in to the ring; what has no place there stays where it is. */
static void collect(struct bios_call *call)
{
    struct bios *bios = call->bios;
    uint8_t line[LINE_MAX];
    size_t count = serial_firmware_peek(bios->config.serial, line, sizeof(line)), at = 0;

    while (at < count) {
        uint16_t key = NO_KEY;
        size_t used = parse(line + at, count - at, &key);
        if (used == 0 && count - at < sizeof(line) && !out_of_patience(bios))
            break;
        if (used == 0) {
            key = key_of_byte(ESCAPE);
            used = 1;
        }
        if (key != NO_KEY && !push(call, key))
            break;
        bios->escape_since = 0;
        at += used;
    }
    if (at == count)
        bios->escape_since = 0;
    if (at > 0)
        serial_firmware_take(bios->config.serial, at);
}

/* --- calls ---------------------------------------------------------------------------------- */

/* The oldest key, if there is one. Asked by the old functions it is one of the old keyboard. */
static bool peek(struct bios_call *call, bool extended, uint16_t *ret_key)
{
    collect(call);
    struct ring ring = get_ring(call);
    if (ring.head == ring.tail)
        return false;
    uint16_t key = bios_get16(call, LAYOUT_BDA + ring.head);
    *ret_key = !extended && (key & 0xFF) == GREY && key != GREY ? key & 0xFF00 : key;
    return true;
}

static void read_key(struct bios_call *call, bool extended)
{
    uint16_t key;

    if (!peek(call, extended, &key)) {
        bios_show_cursor(call);
        call->mail.action = BIOS_WAIT;
        return;
    }
    struct ring ring = get_ring(call);
    ring.head = behind(ring.head);
    put_ring(call, &ring);
    set_word(&call->mail.eax, key);
}

static void look_for_key(struct bios_call *call, bool extended)
{
    uint16_t key;
    bool found = peek(call, extended, &key);

    if (found)
        set_word(&call->mail.eax, key);
    else
        bios_show_cursor(call);
    set_flag(call, FLAG_ZERO, !found);
}

void bios_keyboard(struct bios_call *call)
{
    uint8_t function = high(call->mail.eax);
    bool extended = function & 0x10;

    switch (function) {
    case 0x00:
    case 0x10:
        read_key(call, extended);
        break;
    case 0x01:
    case 0x11:
        look_for_key(call, extended);
        break;
    case 0x02:
        set_low(&call->mail.eax, bios_get8(call, BDA_SHIFT_FLAGS));
        break;
    case 0x12:
        set_word(&call->mail.eax, bios_get16(call, BDA_SHIFT_FLAGS));
        break;
    case 0x05:
        set_low(&call->mail.eax, push(call, word(call->mail.ecx)) ? 0 : 1);
        break;
    case 0x09: /* which functions there are: 10h to 12h beside the old ones */
        set_low(&call->mail.eax, 0x20);
        break;
    }
}
