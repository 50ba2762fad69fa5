/* SPDX-License-Identifier: MIT */
/* Values that are neither objects nor lists: checked, and stored where the table says. */
#include "vmm/definition_parts.h"

#include "core/words.h"
#include "host/netif_forward.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- storing -------------------------------------------------------------------------------- */

void *definition_allocate(struct definition_reader *reader, size_t size)
{
    struct link {
        struct link *next;
        max_align_t bytes[];
    } *link = calloc(1, sizeof(*link) + size);
    if (!link) {
        reader->problems.no_memory = true;
        return NULL;
    }
    link->next = reader->definition->arena;
    reader->definition->arena = link;
    return link->bytes;
}

static void store_number(const struct definition_taking *taking, uint64_t number)
{
    void *to = taking->base + taking->form->offset;
    switch (taking->form->size) {
    case sizeof(bool):
        *(bool *)to = number != 0;
        break;
    case sizeof(uint16_t):
        *(uint16_t *)to = (uint16_t)number;
        break;
    case sizeof(uint32_t):
        *(uint32_t *)to = (uint32_t)number;
        break;
    case sizeof(uint64_t):
        *(uint64_t *)to = number;
        break;
    default: /* a rule stores it */
        break;
    }
}

static void store_text(const struct definition_taking *taking, const char *text)
{
    char *to = taking->base + taking->form->offset;
    if (taking->form->inside)
        snprintf(to, taking->form->size, "%s", text);
    else
        *(const char **)(void *)to = text;
}

const char *definition_whole_path(struct definition_reader *reader, uint32_t place,
                                  const char *path)
{
    bool whole_already = path[0] == '/';
    const char *before = whole_already ? "" : reader->folder, *slash = whole_already ? "" : "/";
    if (strncmp(path, "~/", 2) == 0) {
        before = getenv("HOME");
        path += 2;
        if (!before || before[0] != '/') {
            definition_wrong(reader, place, "begins with ~/, and there is no home folder here");
            return NULL;
        }
    }
    size_t length = strlen(before) + strlen(slash) + strlen(path);
    if (length >= PATH_MAX) {
        definition_wrong(reader, place, "is too long a path: with the folder before it %zu bytes",
                         length);
        return NULL;
    }
    char *whole = definition_allocate(reader, length + 1);
    if (whole)
        snprintf(whole, length + 1, "%s%s%s", before, slash, path);
    return whole;
}

/* --- one for each kind ---------------------------------------------------------------------- */

/* Digits say more than a double can. False where it is no whole number of 64 bits. */
static bool whole_number(const struct definition_taking *taking, uint64_t *ret_number)
{
    const struct json_place *at = &taking->reader->places.at[taking->place];
    double real = json_number_value(taking->value);
    char digits[24] = "";

    if (at->length < sizeof(digits))
        memcpy(digits, at->text, at->length);
    if (digits[0] && strspn(digits, "0123456789") == at->length) {
        errno = 0;
        *ret_number = strtoull(digits, NULL, 10);
        return errno == 0;
    }
    if (!(real >= 0 && real <= 1ull << 53) || (double)(uint64_t)real < real)
        return false;
    *ret_number = (uint64_t)real; /* 2.0, 1e3 */
    return true;
}

static bool take_number(struct definition_taking *taking)
{
    const struct definition_field *form = taking->form;
    uint64_t number = 0;
    if (!whole_number(taking, &number) || number < form->min || number > form->max)
        return definition_must_be(taking);
    store_number(taking, form->unit ? number * form->unit : number);
    taking->number = number;
    return true;
}

static bool take_choice(struct definition_taking *taking)
{
    uint64_t number = 0;
    if (!whole_number(taking, &number))
        return definition_must_be(taking);
    for (size_t i = 0; taking->form->words[i]; i++) {
        if (strtoull(taking->form->words[i], NULL, 10) != number)
            continue;
        store_number(taking, number);
        taking->number = number;
        return true;
    }
    return definition_must_be(taking);
}

static bool take_bool(struct definition_taking *taking)
{
    bool is = json_is_true(taking->value);
    store_number(taking, is != taking->form->inverted);
    taking->number = is;
    return true;
}

static bool take_word(struct definition_taking *taking)
{
    char is[256], list[256];
    int word = words_find(taking->form->words, taking->text);
    if (word >= 0) {
        store_number(taking, (uint64_t)word + taking->form->first_word);
        taking->number = (uint64_t)word;
        return true;
    }
    definition_show(taking->reader, taking->place, is, sizeof(is));
    const char *near = words_nearest(taking->form->words, taking->text);
    definition_list(taking->form->words, "\"", " and ", list, sizeof(list));
    if (near)
        definition_wrong(taking->reader, taking->place, "%s is not known; did you mean \"%s\"?", is,
                         near);
    else
        definition_wrong(taking->reader, taking->place, "%s is not known; there are %s", is, list);
    return false;
}

/* Characters, and whether there is one that a terminal or a log would obey. Checked UTF-8. */
static size_t count_characters(const char *text, bool *ret_control)
{
    size_t count = 0;
    *ret_control = false;
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        count += (*at & 0xc0) != 0x80;
        if (*at < ' ' || *at == 0x7f || (*at == 0xc2 && at[1] < 0xa0))
            *ret_control = true;
    }
    return count;
}

static bool check_text(struct definition_taking *taking)
{
    bool control;
    size_t characters = count_characters(taking->text, &control);
    if (characters < taking->form->min || characters > taking->form->max) {
        if (characters == 0)
            definition_wrong(taking->reader, taking->place, "is empty");
        else
            definition_wrong(taking->reader, taking->place,
                             "has %zu characters, and %llu is the most", characters,
                             (unsigned long long)taking->form->max);
        return false;
    }
    if (control) {
        definition_wrong(taking->reader, taking->place, "holds a control character");
        return false;
    }
    const char *wrong = taking->form->wrong ? taking->form->wrong(taking->text) : NULL;
    if (wrong) {
        char is[256];
        definition_show(taking->reader, taking->place, is, sizeof(is));
        definition_wrong(taking->reader, taking->place, "%s, not %s", wrong, is);
    }
    return !wrong;
}

static bool take_text(struct definition_taking *taking)
{
    if (!check_text(taking))
        return false;
    if (taking->form->inside) {
        store_text(taking, taking->text);
        return true;
    }
    char *copy = definition_allocate(taking->reader, strlen(taking->text) + 1);
    if (copy)
        strcpy(copy, taking->text);
    store_text(taking, copy);
    return copy;
}

static bool take_path(struct definition_taking *taking)
{
    if (!check_text(taking))
        return false;
    const char *whole = definition_whole_path(taking->reader, taking->place, taking->text);
    store_text(taking, whole);
    return whole;
}

static bool take_size(struct definition_taking *taking)
{
    uint64_t bytes = 0;
    if (parse_size(taking->text, "", &bytes, NULL) < 0) {
        char is[256];
        definition_show(taking->reader, taking->place, is, sizeof(is));
        definition_wrong(taking->reader, taking->place,
                         "%s is no size; a whole number with K, M, G or T is: \"512M\", \"6G\"",
                         is);
        return false;
    }
    if (bytes < taking->form->min || bytes > taking->form->max)
        return definition_must_be(taking);
    store_number(taking, bytes);
    return true;
}

static bool take_mac(struct definition_taking *taking)
{
    static const uint8_t none[6];
    uint8_t mac[6];
    if (!parse_mac_address(taking->text, mac))
        return definition_must_be(taking);
    if (mac[0] & 1) {
        definition_wrong(taking->reader, taking->place,
                         "\"%s\" is the address of a group; the first byte must be even",
                         taking->text);
        return false;
    }
    if (memcmp(mac, none, sizeof(mac)) == 0) {
        definition_wrong(taking->reader, taking->place,
                         "is zero, which is nobody's address; without the key minivmm makes one");
        return false;
    }
    memcpy(taking->base + taking->form->offset, mac, sizeof(mac));
    return true;
}

static bool take_forward(struct definition_taking *taking)
{
    struct netif_forward *forward = (struct netif_forward *)(void *)taking->base;
    return netif_forward_parse(taking->text, forward) || definition_must_be(taking);
}

static bool (*const takers[])(struct definition_taking *taking) = {
    [KIND_NUMBER] = take_number, [KIND_CHOICE] = take_choice, [KIND_BOOL] = take_bool,
    [KIND_WORD] = take_word,     [KIND_TEXT] = take_text,     [KIND_PATH] = take_path,
    [KIND_SIZE] = take_size,     [KIND_MAC] = take_mac,       [KIND_FORWARD] = take_forward,
};

bool definition_take(struct definition_taking *taking)
{
    return takers[taking->form->kind](taking);
}
