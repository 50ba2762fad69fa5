/* SPDX-License-Identifier: MIT */
/* INT 10h and 16h: a screen and a keyboard that are a terminal on the serial line. */
#include "core/clock.h"
#include "firmware/x86/bios_data.h"
#include "tests/unit/bios_rig.h"
#include "tests/unit/unit.h"

static struct bios_rig rig;

static void set_up(void)
{
    memset(&rig, 0, sizeof(rig));
    bios_rig_start(&rig);
    ck_assert_int_eq(bios_write_data(rig.memory, NULL), 0);
}

static void tear_down(void)
{
    bios_rig_finish(&rig);
}

static uint16_t *ram16(gpa_t at)
{
    return bios_rig_ram(&rig, at, 2);
}

/* --- the screen ------------------------------------------------------------------------------- */

static void video(uint16_t ax, uint16_t bx, uint16_t cx, uint16_t dx)
{
    set_word(&rig.mail.eax, ax);
    set_word(&rig.mail.ebx, bx);
    set_word(&rig.mail.ecx, cx);
    set_word(&rig.mail.edx, dx);
    ck_assert_uint_eq(bios_rig_call(&rig, 0x10), BIOS_DONE);
}

static void type(const char *text)
{
    for (; *text; text++)
        video((uint16_t)(0x0E00 | (uint8_t)*text), 0, 0, 0);
}

/* What the terminal got since the last time. */
static void check_sent(const char *text)
{
    ck_assert_str_eq(rig.sent, text);
    memset(rig.sent, 0, sizeof(rig.sent));
    rig.sent_count = 0;
}

static void go(unsigned row, unsigned column)
{
    video(0x0200, 0, 0, (uint16_t)(row << 8 | column));
}

START_TEST(text_that_flows_leaves_as_it_is)
{
    type("one\r\ntwo\a\r\n");
    for (unsigned i = 0; i < 30; i++)
        type("line\r\n");
    ck_assert_ptr_null(strchr(rig.sent, '\033'));
    ck_assert_uint_eq(rig.sent_count, 11 + 30 * 6);
    ck_assert_uint_eq(*ram16(0x450), 24 << 8);
    type("12\b3");
    ck_assert_uint_eq(*ram16(0x450), 24 << 8 | 2);
    ck_assert_str_eq(rig.sent + 11 + 30 * 6, "12\b3");
}
END_TEST

START_TEST(a_full_line_goes_on_in_the_next)
{
    for (unsigned i = 0; i < 81; i++)
        type("x");
    ck_assert_uint_eq(*ram16(0x450), 1 << 8 | 1);
    ck_assert_uint_eq(rig.sent_count, 83);
    ck_assert_str_eq(rig.sent + 79, "x\r\nx");
}
END_TEST

/* What GRUB does for each character: where am I, write it, and go one further. */
START_TEST(cells_written_one_by_one_need_no_moves)
{
    for (const char *text = "menu"; *text; text++) {
        video(0x0300, 0, 0, 0);
        uint16_t at = word(rig.mail.edx);
        video((uint16_t)(0x0900 | (uint8_t)*text), 7, 1, 0);
        video(0x0200, 0, 0, (uint16_t)(at + 1));
    }
    check_sent("menu");
}
END_TEST

START_TEST(the_terminal_moves_when_something_is_written_elsewhere)
{
    go(5, 10);
    go(11, 39);
    check_sent("");
    type("a");
    check_sent("\033[12;40Ha");
    video(0x0300, 0, 0, 0);
    ck_assert_uint_eq(word(rig.mail.edx), 11 << 8 | 40);
    ck_assert_uint_eq(word(rig.mail.ecx), 0x0607);
    go(0, 79);
    video(0x0900 | 'b', 7, 1, 0); /* no terminal's cursor is sure to be anywhere after that */
    type("c");
    check_sent("\033[1;80Hb\033[1;80Hc\r\n");
}
END_TEST

START_TEST(colours_are_said_when_they_change)
{
    video(0x0900 | 'a', 0x70, 1, 0);
    go(0, 1);
    video(0x0900 | 'b', 0x70, 1, 0);
    go(0, 2);
    video(0x0900 | 'c', 0x07, 1, 0);
    go(0, 3);
    video(0x0900 | 'd', 0x9C, 1, 0); /* blinking bright red on blue */
    check_sent("\033[0;30;47mab\033[0mc\033[0;1;5;31;44md");
}
END_TEST

START_TEST(characters_of_code_page_437_become_utf8)
{
    video(0x0900 | 0xDA, 7, 1, 0);
    go(0, 1);
    video(0x0900 | 0xC4, 7, 2, 0);
    go(0, 3);
    video(0x0900 | 0x18, 7, 1, 0);
    go(0, 4);
    video(0x0A00 | 0x81, 0, 1, 0);
    go(0, 5);
    video(0x0900, 7, 1, 0);
    go(0, 6);
    type("\x1B"); /* no guest sends sequences of its own */
    check_sent("┌──↑ü ←");
}
END_TEST

START_TEST(a_mode_clears_the_screen_and_is_the_text_mode)
{
    static const uint8_t modes[] = {0x00, 0x03, 0x07, 0x12, 0x13, 0x6A};

    for (unsigned i = 0; i < array_size(modes); i++) {
        go(3, 4);
        video(modes[i], 0, 0, 0);
        ck_assert_uint_eq(*ram16(0x450), 0);
        video(0x0F00, 0xFFFF, 0, 0);
        ck_assert_uint_eq(word(rig.mail.eax), 80 << 8 | 3);
        ck_assert_uint_eq(word(rig.mail.ebx), 0x00FF);
    }
    check_sent("\033[H\033[2J\033[H\033[2J\033[H\033[2J\033[H\033[2J\033[H\033[2J\033[H\033[2J");
    video(0x0083, 0, 0, 0); /* keep what is there */
    check_sent("");
}
END_TEST

START_TEST(scrolling_and_clearing_windows)
{
    video(0x0600, 0x0700, 0, 24 << 8 | 79);
    check_sent("\033[H\033[2J");
    video(0x0601, 0x0700, 0, 24 << 8 | 79);
    check_sent("\033[1;25r\033[1S\033[r");
    video(0x0703, 0x7000, 2 << 8, 9 << 8 | 200);
    check_sent("\033[0;30;47m\033[3;10r\033[3T\033[r");
    video(0x0600, 0x0700, 1 << 8 | 2, 2 << 8 | 4);
    check_sent("\033[2;3H\033[0m   \033[3;3H   ");
    video(0x0601, 0x0700, 1 << 8 | 2, 2 << 8 | 4); /* the line that comes in */
    check_sent("\033[3;3H   ");
    video(0x0607, 0x0700, 0, 1 << 8 | 79); /* more lines than there are */
    ck_assert_uint_eq(rig.sent_count, 6 + 80 + 6 + 80);
    check_sent(rig.sent);
    video(0x0601, 0x0700, 9 << 8, 8 << 8 | 79); /* upside down */
    video(0x0601, 0x0700, 5, 8 << 8 | 4);
    video(0x0600, 0x0700, 0xFFFF, 0xFFFF);
    check_sent("");
}
END_TEST

START_TEST(a_screen_full_of_spaces_is_a_clear)
{
    go(0, 0);
    video(0x0920, 7, 80 * 25, 0);
    check_sent("\033[H\033[2J");
    ck_assert_uint_eq(*ram16(0x450), 0);
}
END_TEST

START_TEST(counts_end_with_the_screen)
{
    video(0x0900 | 'x', 7, 0xFFFF, 0);
    ck_assert_uint_eq(strspn(rig.sent, "x"), 80);
    unsigned cells = 0;
    for (size_t i = 0; i < rig.sent_count; i++)
        cells += rig.sent[i] == 'x';
    ck_assert_uint_eq(cells, 80 * 25);
    check_sent(rig.sent);
    go(24, 78);
    video(0x0900 | 0xB0, 7, 0xFFFF, 0);
    check_sent("\033[25;79H░░");
    video(0x0900 | 'x', 7, 0, 0);
    check_sent("");
}
END_TEST

START_TEST(strings_come_from_the_guests_memory)
{
    memcpy(bios_rig_ram(&rig, 0x12345, 8), "ab\r\nc\x07\x64\x70", 8);
    rig.mail.es = 0x1234;
    rig.mail.ebp = 5;
    video(0x1301, 7, 5, 2 << 8 | 3);
    check_sent("\033[3;4Hab\r\nc");
    ck_assert_uint_eq(*ram16(0x450), 3 << 8 | 1);
    rig.mail.ebp = 9;
    video(0x1302, 7, 2, 4 << 8); /* with attributes; the cursor stays */
    check_sent("\033[5;1Hc\033[0;30;47md");
    ck_assert_uint_eq(*ram16(0x450), 3 << 8 | 1);
    rig.mail.es = 0xFFFF;
    rig.mail.ebp = 0xFFFF;
    video(0x1303, 7, 0xFFFF, 0xFFFF); /* wherever that is, it ends */
    ck_assert_uint_lt(rig.sent_count, 80 * 25 * 4);
}
END_TEST

START_TEST(a_cursor_off_the_screen_is_on_its_edge)
{
    *ram16(0x450) = 0xFFFF;
    type("x");
    check_sent("\033[25;80Hx\r\n");
    go(25, 0);
    type("y");
    check_sent("y");
}
END_TEST

START_TEST(there_is_no_adapter)
{
    video(0x4F00, 0, 0, 0);
    ck_assert_uint_eq(word(rig.mail.eax), 0x0100);
    video(0x1A00, 0x1234, 0, 0);
    ck_assert_uint_eq(word(rig.mail.eax), 0x1A00);
    video(0x1200, 0xFF10, 0, 0);
    ck_assert_uint_eq(word(rig.mail.ebx), 0xFF10);
    video(0x0800, 0, 0, 0);
    ck_assert_uint_eq(word(rig.mail.eax), 0x0720);
    video(0x0501, 0, 0, 0);
    video(0x0B00, 0, 0, 0);
    check_sent("");
}
END_TEST

/* --- who the line belongs to --------------------------------------------------------------------
 */

START_TEST(a_guest_that_drives_the_port_silences_the_screen)
{
    type("a");
    bus_write(rig.ports, 0x3FB, 1, 0x83); /* setting it up... */
    bus_write(rig.ports, 0x3F8, 1, 1);
    bus_write(rig.ports, 0x3FB, 1, 3);
    bus_write(rig.ports, 0x3FA, 1, 7);
    bus_read(rig.ports, 0x3FD, 1);
    type("b"); /* ...is no reason yet */
    check_sent("ab");
    bus_write(rig.ports, 0x3F8, 1, 'c');
    type("d");
    video(0x0003, 0, 0, 0);
    check_sent("c");
    ck_assert_uint_eq(*ram16(0x450), 0); /* the guest cannot tell */
}
END_TEST

/* --- the keyboard -------------------------------------------------------------------------------
 */

static void press(const char *bytes)
{
    size_t length = strlen(bytes);
    ck_assert_uint_eq(serial_input(rig.serial, (const uint8_t *)bytes, length), length);
}

static bool look(uint16_t function, uint16_t *ret_key)
{
    set_word(&rig.mail.eax, function);
    ck_assert_uint_eq(bios_rig_call(&rig, 0x16), BIOS_DONE);
    *ret_key = word(rig.mail.eax);
    return !(rig.mail.flags & FLAG_ZERO);
}

static uint16_t read_key_by(uint16_t function)
{
    set_word(&rig.mail.eax, function);
    ck_assert_uint_eq(bios_rig_call(&rig, 0x16), BIOS_DONE);
    return word(rig.mail.eax);
}

static uint16_t read_key(void)
{
    return read_key_by(0x1000);
}

/* The first look tells the receiver who listens: from then on it holds whole sequences. */
static void listen(void)
{
    uint16_t key;
    ck_assert(!look(0x0100, &key));
}

START_TEST(characters_have_the_scan_codes_of_their_keys)
{
    static const struct {
        const char *byte;
        uint16_t key;
    } keys[] = {
        {"a", 0x1E61},    {"Z", 0x2C5A},  {"0", 0x0B30},  {"9", 0x0A39},  {" ", 0x3920},
        {"\r", 0x1C0D},   {"\n", 0x1C0A}, {"\t", 0x0F09}, {"\b", 0x0E08}, {"\x7F", 0x0E08},
        {"\x03", 0x2E03}, {"/", 0x352F},  {"~", 0x297E},  {"@", 0x0340},  {"\x1A", 0x2C1A},
        {"\x0E", 0x310E}, {"m", 0x326D},  {"}", 0x1B7D},  {"_", 0x0C5F},  {"\xE4", 0x00E4},
    };

    for (unsigned i = 0; i < array_size(keys); i++) {
        press(keys[i].byte);
        ck_assert_uint_eq(read_key(), keys[i].key);
    }
    for (char c = 1; c < 127; c++) { /* no character is without a key */
        char text[2] = {c, '\0'};
        if (c == '\033')
            continue;
        press(text);
        ck_assert_uint_ne(read_key() >> 8, 0);
    }
}
END_TEST

START_TEST(sequences_are_the_keys_without_characters)
{
    static const struct {
        const char *bytes;
        uint16_t key;
    } keys[] = {
        {"\033[A", 0x48E0},   {"\033[B", 0x50E0},   {"\033[C", 0x4DE0},    {"\033[D", 0x4BE0},
        {"\033[H", 0x47E0},   {"\033[F", 0x4FE0},   {"\033OA", 0x48E0},    {"\033OF", 0x4FE0},
        {"\033[1~", 0x47E0},  {"\033[2~", 0x52E0},  {"\033[3~", 0x53E0},   {"\033[4~", 0x4FE0},
        {"\033[5~", 0x49E0},  {"\033[6~", 0x51E0},  {"\033[7~", 0x47E0},   {"\033[8~", 0x4FE0},
        {"\033OP", 0x3B00},   {"\033OS", 0x3E00},   {"\033[11~", 0x3B00},  {"\033[15~", 0x3F00},
        {"\033[17~", 0x4000}, {"\033[21~", 0x4400}, {"\033[23~", 0x8500},  {"\033[24~", 0x8600},
        {"\033[[A", 0x3B00},  {"\033[[E", 0x3F00},  {"\033[1;5A", 0x48E0}, {"\033[3;2~", 0x53E0},
        {"\033[Z", 0x0F00},
    };

    listen();
    for (unsigned i = 0; i < array_size(keys); i++) {
        press(keys[i].bytes);
        ck_assert_uint_eq(read_key(), keys[i].key);
    }
    press("\033[99~\033[?1cx"); /* nobody knows the first two */
    ck_assert_uint_eq(read_key(), 0x2D78);
    press("\033x"); /* Alt-x */
    ck_assert_uint_eq(read_key(), 0x011B);
    ck_assert_uint_eq(read_key(), 0x2D78);
    listen();
}
END_TEST

START_TEST(old_functions_see_the_old_keyboard)
{
    uint16_t key;

    listen();
    press("\033[A\033[B");
    ck_assert(look(0x0100, &key));
    ck_assert_uint_eq(key, 0x4800);
    ck_assert(look(0x1100, &key));
    ck_assert_uint_eq(key, 0x48E0);
    ck_assert_uint_eq(read_key_by(0x0000), 0x4800);
    ck_assert_uint_eq(read_key_by(0x1000), 0x50E0);
}
END_TEST

/* The stub waits for an interrupt, and asks again with the same registers. */
START_TEST(who_reads_where_no_key_is_waits)
{
    struct bios_mailbox before;

    rig.mail = (struct bios_mailbox){.eax = 0x12340000, .ebx = 1, .flags = 0x246};
    before = rig.mail;
    ck_assert_uint_eq(bios_rig_call(&rig, 0x16), BIOS_WAIT);
    ck_assert_uint_eq(rig.mail.eax, before.eax);
    ck_assert_uint_eq(rig.mail.flags, before.flags);
    ck_assert_uint_eq(rig.mail.vector, 0x16);
    press("k");
    ck_assert_uint_eq(bios_rig_call(&rig, 0x16), BIOS_DONE);
    ck_assert_uint_eq(rig.mail.eax, 0x1234256B);
}
END_TEST

START_TEST(an_escape_is_a_key_when_nothing_follows)
{
    uint64_t start;
    uint16_t key;

    listen();
    press("\033");
    start = clock_monotonic_ns();
    while (!look(0x0100, &key))
        ck_assert_uint_lt(clock_monotonic_ns() - start, 30 * NS_PER_SEC);
    ck_assert_uint_gt(clock_monotonic_ns() - start, 50000000);
    ck_assert_uint_eq(read_key(), 0x011B);
    press("\033["); /* half of an arrow, and the rest just in time */
    ck_assert(!look(0x0100, &key));
    press("A");
    ck_assert_uint_eq(read_key(), 0x48E0);
    press("\033[111111111111;1"); /* and one that never ends */
    ck_assert(look(0x0100, &key));
    ck_assert_uint_eq(key, 0x011B);
}
END_TEST

START_TEST(the_ring_holds_fifteen_keys_and_nothing_is_lost)
{
    uint16_t key;

    listen();
    press("0123456789abcde");
    ck_assert(look(0x0100, &key));
    press("fgh");
    ck_assert(look(0x0100, &key));
    rig.mail.ecx = 0x1234;
    ck_assert_uint_eq(low(read_key_by(0x0500)), 1); /* full */
    for (const char *c = "0123456789abcdefgh"; *c; c++)
        ck_assert_uint_eq(low(read_key()), *c);
    rig.mail.ecx = 0x1234;
    ck_assert_uint_eq(low(read_key_by(0x0500)), 0);
    ck_assert_uint_eq(read_key(), 0x1234);
    listen();
}
END_TEST

START_TEST(a_spoilt_ring_is_an_empty_one)
{
    static const uint16_t pointers[] = {0, 0x1D, 0x1F, 0x3E, 0x8000, 0xFFFF, 0xFFFE};

    for (unsigned i = 0; i < array_size(pointers); i++) {
        uint16_t key;
        *ram16(0x41A) = pointers[i];
        ck_assert(!look(0x0100, &key));
        *ram16(0x41C) = pointers[i];
        press("k");
        ck_assert_uint_eq(read_key(), 0x256B);
    }
}
END_TEST

START_TEST(keys_go_to_the_guest_that_reads_the_port)
{
    uint16_t key;

    listen();
    bus_read(rig.ports, 0x3FD, 1);
    bus_read(rig.ports, 0x3F8, 1); /* nothing there: no claim */
    press("abcd");
    ck_assert_uint_eq(bus_read(rig.ports, 0x3F8, 1), 'a');
    ck_assert(!look(0x0100, &key));
    ck_assert_uint_eq(bus_read(rig.ports, 0x3F8, 1), 'b');
    *ram16(0x41A) = *ram16(0x41C) = 0x1E;
    rig.mail.eax = 0;
    ck_assert_uint_eq(bios_rig_call(&rig, 0x16), BIOS_WAIT);
}
END_TEST

START_TEST(the_cursor_shows_where_keys_are_awaited)
{
    uint16_t key;

    type("grub> ");
    go(0, 3);
    check_sent("grub> ");
    ck_assert(!look(0x0100, &key));
    ck_assert(!look(0x0100, &key));
    check_sent("\033[1;4H");
    video(0x0100, 0, 0x2000, 0); /* hidden */
    go(0, 0);
    ck_assert(!look(0x0100, &key));
    check_sent("");
}
END_TEST

START_TEST(shift_states_are_the_data_areas)
{
    memcpy(bios_rig_ram(&rig, 0x417, 2), "\x20\x04", 2);
    ck_assert_uint_eq(low(read_key_by(0x0200)), 0x20);
    ck_assert_uint_eq(read_key_by(0x1200), 0x0420);
    ck_assert_uint_eq(low(read_key_by(0x0900)), 0x20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bios_console");
    TCase *screen = tcase_create("screen"), *keyboard = tcase_create("keyboard");

    tcase_add_checked_fixture(screen, set_up, tear_down);
    tcase_add_test(screen, text_that_flows_leaves_as_it_is);
    tcase_add_test(screen, a_full_line_goes_on_in_the_next);
    tcase_add_test(screen, cells_written_one_by_one_need_no_moves);
    tcase_add_test(screen, the_terminal_moves_when_something_is_written_elsewhere);
    tcase_add_test(screen, colours_are_said_when_they_change);
    tcase_add_test(screen, characters_of_code_page_437_become_utf8);
    tcase_add_test(screen, a_mode_clears_the_screen_and_is_the_text_mode);
    tcase_add_test(screen, scrolling_and_clearing_windows);
    tcase_add_test(screen, a_screen_full_of_spaces_is_a_clear);
    tcase_add_test(screen, counts_end_with_the_screen);
    tcase_add_test(screen, strings_come_from_the_guests_memory);
    tcase_add_test(screen, a_cursor_off_the_screen_is_on_its_edge);
    tcase_add_test(screen, there_is_no_adapter);
    tcase_add_test(screen, a_guest_that_drives_the_port_silences_the_screen);
    suite_add_tcase(suite, screen);

    tcase_add_checked_fixture(keyboard, set_up, tear_down);
    tcase_add_test(keyboard, characters_have_the_scan_codes_of_their_keys);
    tcase_add_test(keyboard, sequences_are_the_keys_without_characters);
    tcase_add_test(keyboard, old_functions_see_the_old_keyboard);
    tcase_add_test(keyboard, who_reads_where_no_key_is_waits);
    tcase_add_test(keyboard, an_escape_is_a_key_when_nothing_follows);
    tcase_add_test(keyboard, the_ring_holds_fifteen_keys_and_nothing_is_lost);
    tcase_add_test(keyboard, a_spoilt_ring_is_an_empty_one);
    tcase_add_test(keyboard, keys_go_to_the_guest_that_reads_the_port);
    tcase_add_test(keyboard, the_cursor_shows_where_keys_are_awaited);
    tcase_add_test(keyboard, shift_states_are_the_data_areas);
    suite_add_tcase(suite, keyboard);
    return unit_main(suite);
}
