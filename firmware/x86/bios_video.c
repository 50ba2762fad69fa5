/* SPDX-License-Identifier: MIT */
/*
 * INT 10h: a text screen of 80x25 with one page, which is a terminal at the end of the serial line
 * (ECMA-48). There is no adapter and no screen memory, and whoever asks for one is told so: EGA,
 * VGA and VESA calls change nothing.
 *
 * The cursor that the guest sets lies in the BIOS data area; where the terminal's is, we know. The
 * two are brought together when a character is written, so text that simply flows leaves as it is,
 * without a single control sequence. A character costs at most what a screen full of them does.
 */
#include "firmware/x86/bios_parts.h"

#include <stdio.h>
#include <string.h>

enum { CELLS = BIOS_ROWS * BIOS_COLUMNS };

/* Text on its way out. */
struct screen {
    struct bios_call *call;
    struct bios_state *terminal;
    unsigned row, column; /* the guest's cursor, on the screen */
    size_t used;
    char text[512];
};

/* Code page 437: 0..31 where they are no controls, and 127..255. */
static const uint16_t low_glyphs[32] = {
    0x0020, 0x263A, 0x263B, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25D8, 0x25CB, 0x25D9,
    0x2642, 0x2640, 0x266A, 0x266B, 0x263C, 0x25BA, 0x25C4, 0x2195, 0x203C, 0x00B6, 0x00A7,
    0x25AC, 0x21A8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221F, 0x2194, 0x25B2, 0x25BC,
};
static const uint16_t high_glyphs[129] = {
    0x2302, 0x00C7, 0x00FC, 0x00E9, 0x00E2, 0x00E4, 0x00E0, 0x00E5, 0x00E7, 0x00EA, 0x00EB, 0x00E8,
    0x00EF, 0x00EE, 0x00EC, 0x00C4, 0x00C5, 0x00C9, 0x00E6, 0x00C6, 0x00F4, 0x00F6, 0x00F2, 0x00FB,
    0x00F9, 0x00FF, 0x00D6, 0x00DC, 0x00A2, 0x00A3, 0x00A5, 0x20A7, 0x0192, 0x00E1, 0x00ED, 0x00F3,
    0x00FA, 0x00F1, 0x00D1, 0x00AA, 0x00BA, 0x00BF, 0x2310, 0x00AC, 0x00BD, 0x00BC, 0x00A1, 0x00AB,
    0x00BB, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551,
    0x2557, 0x255D, 0x255C, 0x255B, 0x2510, 0x2514, 0x2534, 0x252C, 0x251C, 0x2500, 0x253C, 0x255E,
    0x255F, 0x255A, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256C, 0x2567, 0x2568, 0x2564, 0x2565,
    0x2559, 0x2558, 0x2552, 0x2553, 0x256B, 0x256A, 0x2518, 0x250C, 0x2588, 0x2584, 0x258C, 0x2590,
    0x2580, 0x03B1, 0x00DF, 0x0393, 0x03C0, 0x03A3, 0x03C3, 0x00B5, 0x03C4, 0x03A6, 0x0398, 0x03A9,
    0x03B4, 0x221E, 0x03C6, 0x03B5, 0x2229, 0x2261, 0x00B1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00F7,
    0x2248, 0x00B0, 0x2219, 0x00B7, 0x221A, 0x207F, 0x00B2, 0x25A0, 0x0020,
};

/* --- the terminal --------------------------------------------------------------------------- */

static void flush(struct screen *screen)
{
    if (screen->used > 0) /* false: the line is the guest's own now, and this text is dropped */
        (void)serial_firmware_write(screen->call->bios->config.serial,
                                    (const uint8_t *)screen->text, screen->used);
    screen->used = 0;
}

static void emit(struct screen *screen, const char *text, size_t length)
{
    if (length > sizeof(screen->text) - screen->used)
        flush(screen);
    memcpy(screen->text + screen->used, text, length);
    screen->used += length;
}

static void emit_text(struct screen *screen, const char *text)
{
    emit(screen, text, strlen(text));
}

static void move_terminal(struct screen *screen, unsigned row, unsigned column)
{
    struct bios_state *terminal = screen->terminal;
    char text[16];

    if (!terminal->lost && terminal->row == row && terminal->column == column)
        return;
    snprintf(text, sizeof(text), "\033[%u;%uH", row + 1, column + 1);
    emit_text(screen, text);
    terminal->row = (uint8_t)row;
    terminal->column = (uint8_t)column;
    terminal->lost = false;
}

/* A PC's attribute: blink, background, bright, foreground; each colour is blue, green, red. */
static void set_attribute(struct screen *screen, uint8_t attribute)
{
    static const char ansi[8] = "04261537";
    char text[24];
    unsigned foreground = attribute & 7, background = attribute >> 4 & 7;
    size_t length;

    if (screen->terminal->attribute == attribute)
        return;
    screen->terminal->attribute = attribute;
    length = (size_t)snprintf(text, sizeof(text), "\033[0%s%s", attribute & 0x08 ? ";1" : "",
                              attribute & 0x80 ? ";5" : "");
    /* White on black is whatever the person's terminal begins with. */
    if (foreground != 7)
        length += (size_t)snprintf(text + length, sizeof(text) - length, ";3%c", ansi[foreground]);
    if (background != 0)
        length += (size_t)snprintf(text + length, sizeof(text) - length, ";4%c", ansi[background]);
    emit(screen, text, length);
    emit_text(screen, "m");
}

static void emit_glyph(struct screen *screen, uint8_t character)
{
    char text[3];
    size_t length = 0;
    uint16_t glyph = character;

    if (character < 32)
        glyph = low_glyphs[character];
    else if (character >= 127)
        glyph = high_glyphs[character - 127];
    if (glyph < 0x80) {
        text[length++] = (char)glyph;
    } else if (glyph < 0x800) {
        text[length++] = (char)(0xC0 | glyph >> 6);
        text[length++] = (char)(0x80 | (glyph & 0x3F));
    } else {
        text[length++] = (char)(0xE0 | glyph >> 12);
        text[length++] = (char)(0x80 | (glyph >> 6 & 0x3F));
        text[length++] = (char)(0x80 | (glyph & 0x3F));
    }
    emit(screen, text, length);
}

/* Behind the last column terminals differ, and some are wider than ours. */
static void put_cells(struct screen *screen, unsigned row, unsigned column, uint8_t character,
                      uint8_t attribute, unsigned count)
{
    struct bios_state *terminal = screen->terminal;

    move_terminal(screen, row, column);
    set_attribute(screen, attribute);
    for (unsigned i = 0; i < count; i++)
        emit_glyph(screen, character);
    if (column + count < BIOS_COLUMNS)
        terminal->column = (uint8_t)(column + count);
    else
        terminal->lost = true;
}

static void clear_terminal(struct screen *screen, uint8_t attribute)
{
    set_attribute(screen, attribute);
    emit_text(screen, "\033[H\033[2J");
    screen->terminal->row = screen->terminal->column = 0;
    screen->terminal->lost = false;
}

/* --- the cursor ----------------------------------------------------------------------------- */

/* There is one page, whatever BH says. A guest may have put its cursor off the screen. */
static void begin(struct screen *screen, struct bios_call *call)
{
    uint16_t cursor = bios_get16(call, BDA_CURSOR);
    unsigned row = cursor >> 8, column = cursor & 0xFF;

    screen->call = call;
    screen->terminal = &call->bios->state;
    screen->row = row < BIOS_ROWS ? row : BIOS_ROWS - 1;
    screen->column = column < BIOS_COLUMNS ? column : BIOS_COLUMNS - 1;
    screen->used = 0;
}

static void keep_cursor(struct screen *screen)
{
    bios_put16(screen->call, BDA_CURSOR, (uint16_t)(screen->row << 8 | screen->column));
}

void bios_show_cursor(struct bios_call *call)
{
    enum { HIDDEN = 0x2000 };
    struct screen screen;

    if (bios_get16(call, BDA_CURSOR_SHAPE) & HIDDEN)
        return;
    begin(&screen, call);
    move_terminal(&screen, screen.row, screen.column);
    flush(&screen);
}

/* At the bottom the screen moves up. Elsewhere nothing has to be said, unless the two cursors are
 * together: then the text flows. */
static void feed_line(struct screen *screen)
{
    struct bios_state *terminal = screen->terminal;
    bool together = !terminal->lost && terminal->row == screen->row &&
                    terminal->column == screen->column;
    bool bottom = screen->row == BIOS_ROWS - 1;

    if (!bottom)
        screen->row++;
    if (!together && !bottom)
        return;
    if (!together)
        move_terminal(screen, screen->row, screen->column);
    emit_text(screen, "\n");
    terminal->row = (uint8_t)screen->row;
}

static void return_carriage(struct screen *screen)
{
    struct bios_state *terminal = screen->terminal;

    if (!terminal->lost && terminal->row == screen->row && terminal->column != 0) {
        emit_text(screen, "\r");
        terminal->column = 0;
    }
    screen->column = 0;
}

static void go_back(struct screen *screen)
{
    struct bios_state *terminal = screen->terminal;

    if (screen->column == 0)
        return;
    if (!terminal->lost && terminal->row == screen->row && terminal->column == screen->column) {
        emit_text(screen, "\b");
        terminal->column--;
    }
    screen->column--;
}

static void write_glyph(struct screen *screen, uint8_t character, uint8_t attribute)
{
    put_cells(screen, screen->row, screen->column, character, attribute, 1);
    if (++screen->column < BIOS_COLUMNS)
        return;
    /* The next line, in a way that suits terminals of any width. */
    screen->column = 0;
    emit_text(screen, "\r\n");
    if (screen->row < BIOS_ROWS - 1)
        screen->row++;
    screen->terminal->row = (uint8_t)screen->row;
    screen->terminal->column = 0;
    screen->terminal->lost = false;
}

static void type(struct screen *screen, uint8_t character, uint8_t attribute)
{
    switch (character) {
    case '\a':
        emit_text(screen, "\a");
        break;
    case '\b':
        go_back(screen);
        break;
    case '\n':
        feed_line(screen);
        break;
    case '\r':
        return_carriage(screen);
        break;
    default:
        write_glyph(screen, character, attribute);
        break;
    }
}

/* --- calls ---------------------------------------------------------------------------------- */

/* Whatever mode is asked for, the text mode is what there is. */
static void set_mode(struct screen *screen)
{
    enum { KEEP_CONTENTS = 0x80 };
    struct bios_call *call = screen->call;

    bios_put8(call, BDA_VIDEO_MODE, BIOS_TEXT_MODE);
    bios_put16(call, BDA_COLUMNS, BIOS_COLUMNS);
    bios_put8(call, BDA_ROWS, BIOS_ROWS - 1);
    if (!(call->mail.eax & KEEP_CONTENTS))
        clear_terminal(screen, BIOS_NORMAL);
    screen->row = screen->column = 0;
    keep_cursor(screen);
    set_low(&call->mail.eax, 0x30);
}

struct window {
    unsigned top, left, bottom, right; /* inclusive */
};

static bool is_whole(const struct window *window)
{
    return window->top == 0 && window->left == 0 && window->bottom == BIOS_ROWS - 1 &&
           window->right == BIOS_COLUMNS - 1;
}

static void clear_window(struct screen *screen, const struct window *window, uint8_t attribute)
{
    if (is_whole(window)) {
        clear_terminal(screen, attribute);
        return;
    }
    for (unsigned row = window->top; row <= window->bottom; row++)
        put_cells(screen, row, window->left, ' ', attribute, window->right - window->left + 1);
}

/* Lines of full width are the terminal's to move. A narrower window it cannot move, and we do not
 * know what is in there: only the lines that come in are right. */
static void scroll(struct screen *screen, bool up)
{
    const struct bios_mailbox *mail = &screen->call->mail;
    struct window window = {high(mail->ecx), low(mail->ecx), high(mail->edx), low(mail->edx)};
    unsigned lines = low(mail->eax);
    uint8_t attribute = high(mail->ebx);
    char text[32];

    if (window.bottom >= BIOS_ROWS)
        window.bottom = BIOS_ROWS - 1;
    if (window.right >= BIOS_COLUMNS)
        window.right = BIOS_COLUMNS - 1;
    if (window.top > window.bottom || window.left > window.right)
        return;
    if (lines == 0 || lines > window.bottom - window.top) {
        clear_window(screen, &window, attribute);
        return;
    }
    if (window.left == 0 && window.right == BIOS_COLUMNS - 1) {
        set_attribute(screen, attribute);
        snprintf(text, sizeof(text), "\033[%u;%ur\033[%u%c\033[r", window.top + 1,
                 window.bottom + 1, lines, up ? 'S' : 'T');
        emit_text(screen, text);
        screen->terminal->lost = true; /* setting the margins has moved it */
        return;
    }
    if (up)
        window.top = window.bottom - lines + 1;
    else
        window.bottom = window.top + lines - 1;
    clear_window(screen, &window, attribute);
}

/* Cells from the cursor on, which stays. */
static void write_cells(struct screen *screen, uint8_t attribute)
{
    const struct bios_mailbox *mail = &screen->call->mail;
    uint8_t character = low(mail->eax);
    unsigned row = screen->row, column = screen->column;
    unsigned count = word(mail->ecx), room = CELLS - (row * BIOS_COLUMNS + column);

    if (count > room)
        count = room;
    if (count == CELLS && (character == ' ' || character == 0)) {
        clear_terminal(screen, attribute);
        return;
    }
    while (count > 0) {
        unsigned here = BIOS_COLUMNS - column < count ? BIOS_COLUMNS - column : count;
        put_cells(screen, row, column, character, attribute, here);
        count -= here;
        column = 0;
        row++;
    }
}

/* AL bit 0: the cursor goes along; bit 1: each character is followed by its attribute. */
static void write_string(struct screen *screen)
{
    enum { MOVE = 1, ATTRIBUTES = 2 };
    struct bios_call *call = screen->call;
    const struct bios_mailbox *mail = &call->mail;
    uint16_t before = bios_get16(call, BDA_CURSOR);
    bool attributes = mail->eax & ATTRIBUTES;
    unsigned count = word(mail->ecx), width = attributes ? 2 : 1;
    gpa_t from = far(mail->es, mail->ebp);
    uint8_t attribute = low(mail->ebx);

    bios_put16(call, BDA_CURSOR, word(mail->edx));
    begin(screen, call);
    for (unsigned i = 0; i < count && i < CELLS; i++) {
        uint8_t character = bios_get8(call, from + i * width);
        if (attributes)
            attribute = bios_get8(call, from + i * width + 1);
        type(screen, character, attribute);
    }
    if (mail->eax & MOVE)
        keep_cursor(screen);
    else
        bios_put16(call, BDA_CURSOR, before);
}

static void get_cursor(struct bios_call *call)
{
    set_word(&call->mail.eax, 0);
    set_word(&call->mail.ecx, bios_get16(call, BDA_CURSOR_SHAPE));
    set_word(&call->mail.edx, bios_get16(call, BDA_CURSOR));
}

static void get_mode(struct bios_call *call)
{
    set_word(&call->mail.eax, BIOS_COLUMNS << 8 | BIOS_TEXT_MODE);
    set_high(&call->mail.ebx, 0);
}

static void serve(struct screen *screen)
{
    struct bios_call *call = screen->call;
    struct bios_mailbox *mail = &call->mail;

    switch (high(mail->eax)) {
    case 0x00:
        set_mode(screen);
        break;
    case 0x01:
        bios_put16(call, BDA_CURSOR_SHAPE, word(mail->ecx));
        break;
    case 0x02:
        bios_put16(call, BDA_CURSOR, word(mail->edx));
        break;
    case 0x03:
        get_cursor(call);
        break;
    case 0x06:
    case 0x07:
        scroll(screen, high(mail->eax) == 0x06);
        break;
    case 0x08: /* nobody knows what stands there */
        set_word(&mail->eax, BIOS_NORMAL << 8 | ' ');
        break;
    case 0x09:
        write_cells(screen, low(mail->ebx));
        break;
    case 0x0A:
        write_cells(screen, BIOS_NORMAL);
        break;
    case 0x0E:
        type(screen, low(mail->eax), BIOS_NORMAL);
        keep_cursor(screen);
        break;
    case 0x0F:
        get_mode(call);
        break;
    case 0x13:
        write_string(screen);
        break;
    case 0x4F: /* VESA: not here */
        set_word(&mail->eax, 0x0100);
        break;
    }
}

void bios_video(struct bios_call *call)
{
    struct screen screen;

    begin(&screen, call);
    serve(&screen);
    flush(&screen);
}
