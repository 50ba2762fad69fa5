/* SPDX-License-Identifier: MIT */
/* Start, words to the tester, and what the boot loader said (PVH start info, multiboot 1). */
#include "guest.h"

#include <stdarg.h>

extern uint32_t boot_magic, boot_info;
void guest_start(void);
void cpu_init(unsigned number);

/* What the compiler may call without being asked. */
void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);

void *memset(void *to, int byte, size_t count)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
    return to;
}

void guest_start(void)
{
    cpu_init(0);
    guest_main();
    quit(0);
}

/* --- words -------------------------------------------------------------------------------- */

/* The transmitter of a virtual port is always ready; asking would double the exits. */
static void put_char(char c)
{
    out8(SERIAL, (uint8_t)c);
}

static void put_text(const char *text)
{
    while (*text)
        put_char(*text++);
}

static void put_number(uint64_t value, unsigned base)
{
    char digits[20];
    unsigned count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (count)
        put_char(digits[--count]);
}

static void print_list(const char *format, va_list args)
{
    for (; *format; format++) {
        if (*format != '%') {
            put_char(*format);
            continue;
        }
        bool is_long = *++format == 'l';
        if (is_long)
            format++;
        if (*format == 's')
            put_text(va_arg(args, const char *));
        else if (*format == 'c')
            put_char((char)va_arg(args, int));
        else
            put_number(is_long ? va_arg(args, uint64_t) : va_arg(args, uint32_t),
                       *format == 'x' ? 16 : 10);
    }
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_list(format, args);
    va_end(args);
}

void quit(uint8_t code)
{
    out8(0xf4, code);
    /* Without --exit-port nobody heard it. */
    cpu_halt();
}

void fail(const char *format, ...)
{
    va_list args;
    put_text("FAIL: ");
    va_start(args, format);
    print_list(format, args);
    va_end(args);
    put_char('\n');
    quit(1);
}

/* --- the boot loader ---------------------------------------------------------------------- */

static const void *at(uint64_t address)
{
    return (const void *)address;
}

uint16_t get16(const void *from)
{
    uint16_t value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
}

uint32_t get32(const void *from)
{
    uint32_t value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
}

uint64_t get64(const void *from)
{
    uint64_t value;
    __builtin_memcpy(&value, from, sizeof(value));
    return value;
}

bool booted_by_pvh(void)
{
    if (boot_magic == 0x2badb002)
        return false;
    check(get32(at(boot_info)) == 0x336ec578, "neither multiboot nor PVH: ebx is %x\n", boot_info);
    return true;
}

const char *command_line(void)
{
    const uint8_t *info = at(boot_info);
    return booted_by_pvh() ? at(get64(info + 24)) : at(get32(info + 16));
}

/* What stands behind `name` where it begins a word, or NULL. */
static const char *find_word(const char *name)
{
    const char *text = command_line();
    for (bool begins = true; *text; begins = *text++ == ' ') {
        if (!begins)
            continue;
        unsigned i = 0;
        while (name[i] && text[i] == name[i])
            i++;
        if (!name[i])
            return text + i;
    }
    return NULL;
}

bool has_option(const char *name)
{
    const char *behind = find_word(name);
    return behind && (*behind == '\0' || *behind == ' ' || *behind == '=');
}

uint64_t option(const char *name, uint64_t otherwise)
{
    const char *behind = find_word(name);
    if (!behind || *behind != '=')
        return otherwise;
    uint64_t value = 0;
    while (*++behind >= '0' && *behind <= '9')
        value = value * 10 + (uint64_t)(*behind - '0');
    return value;
}

/* Multiboot: *entry is a byte offset, entries tell their size. PVH: an index, 24 bytes each. */
bool memory_map(unsigned *entry, struct map_entry *ret_entry)
{
    const uint8_t *info = at(boot_info), *from;
    if (booted_by_pvh()) {
        if (*entry >= get32(info + 48))
            return false;
        from = (const uint8_t *)at(get64(info + 40)) + 24 * *entry;
        *entry += 1;
    } else {
        if (*entry >= get32(info + 44))
            return false;
        from = (const uint8_t *)at(get32(info + 48)) + *entry;
        *entry += 4 + get32(from);
        from += 4;
    }
    *ret_entry = (struct map_entry){get64(from), get64(from + 8), get32(from + 16)};
    return true;
}
