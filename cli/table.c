/* SPDX-License-Identifier: MIT */
#include "cli/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void table_init(struct table *table, const char *const *header)
{
    *table = (struct table){0};
    while (header[table->columns])
        table->columns++;
    for (unsigned i = 0; i < table->columns; i++)
        table_add(table, header[i]);
}

void table_add(struct table *table, const char *cell)
{
    if (table->count == table->room) {
        size_t room = table->room ? table->room * 2 : 64;
        char **cells = realloc(table->cells, room * sizeof(*cells));
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    char *copy = strdup(cell);
    table->failed |= !copy;
    if (copy) {
        text_make_plain(copy);
        table->cells[table->count++] = copy;
    }
}

void table_addf(struct table *table, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    table_add(table, text);
}

/* How many bytes the character at `at` has, and which it is; -1: it is none, and has one. */
static unsigned read_character(const char *at, int32_t *ret_character)
{
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    const uint8_t *bytes = (const uint8_t *)at;
    unsigned more = bytes[0] < 0x80 ? 0 : bytes[0] < 0xe0 ? 1 : bytes[0] < 0xf0 ? 2 : 3;
    int32_t character = more ? bytes[0] & (0x3f >> more) : bytes[0];
    *ret_character = -1;
    if (more && (bytes[0] < 0xc2 || bytes[0] > 0xf4))
        return 1;
    for (unsigned i = 1; i <= more; i++) {
        if ((bytes[i] & 0xc0) != 0x80) /* the terminator too */
            return 1;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    if (character < least[more] || character > 0x10ffff || (character & ~0x7ff) == 0xd800)
        return 1;
    *ret_character = character;
    return more + 1;
}

/* Controls, and what turns the direction of writing or shows nothing. */
static bool is_plain(int32_t c)
{
    return c >= 0x20 && !(c >= 0x7f && c < 0xa0) && !(c >= 0x200b && c <= 0x200f) &&
           !(c >= 0x2028 && c <= 0x202e) && !(c >= 0x2060 && c <= 0x206f) && c != 0xfeff;
}

void text_make_plain(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        int32_t character;
        unsigned length = read_character(from, &character);
        if (is_plain(character)) {
            memmove(to, from, length);
            to += length;
        } else {
            *to++ = '?';
        }
        from += length;
    }
    *to = '\0';
}

/* Characters and not bytes: names may be UTF-8. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

void table_print(struct table *table)
{
    size_t widths[TABLE_MAX_COLUMNS] = {0};
    for (size_t i = 0; i < table->count; i++) {
        size_t width = width_of(table->cells[i]);
        if (width > widths[i % table->columns])
            widths[i % table->columns] = width;
    }
    for (size_t i = 0; i < table->count; i++) {
        unsigned column = (unsigned)(i % table->columns);
        bool last = column == table->columns - 1;
        int gap = last ? 0 : (int)(widths[column] - width_of(table->cells[i]) + 2);
        printf("%s%*s%s", table->cells[i], gap, "", last ? "\n" : "");
    }
}

void table_finish(struct table *table)
{
    while (table->count > 0)
        free(table->cells[--table->count]);
    free(table->cells);
}

void format_duration(double seconds, char *ret_text, size_t size)
{
    uint64_t s = !(seconds > 0) ? 0 : seconds < 1e15 ? (uint64_t)seconds : (uint64_t)1e15;
    if (s >= 86400)
        snprintf(ret_text, size, "%llu d %llu h", (unsigned long long)s / 86400,
                 (unsigned long long)s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(ret_text, size, "%llu h %llu min", (unsigned long long)s / 3600,
                 (unsigned long long)s % 3600 / 60);
    else if (s >= 60)
        snprintf(ret_text, size, "%llu min %llu s", (unsigned long long)s / 60,
                 (unsigned long long)s % 60);
    else
        snprintf(ret_text, size, "%llu s", (unsigned long long)s);
}

void format_time(double at, bool seconds, char *ret_text, size_t size)
{
    time_t time = (time_t)at;
    struct tm parts;
    if (!localtime_r(&time, &parts) ||
        !strftime(ret_text, size, seconds ? "%F %T" : "%F %H:%M", &parts))
        snprintf(ret_text, size, "%.0f", at);
}

void format_size(uint64_t bytes, char *ret_text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double number = (double)bytes;
    unsigned unit = 0;
    while (number >= 1024 && unit + 1 < array_size(units)) {
        number /= 1024;
        unit++;
    }
    bool whole = number == (double)(uint64_t)number;
    snprintf(ret_text, size, whole ? "%.0f %s" : "%.1f %s", number, units[unit]);
}
