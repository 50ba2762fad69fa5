/* SPDX-License-Identifier: MIT */
/* The sentences: what a key may be, and what it is. */
#include "vmm/definition_parts.h"

#include <stdio.h>
#include <string.h>

void definition_wrong(struct definition_reader *reader, uint32_t place, const char *fmt, ...)
{
    char path[300], what[800];
    va_list args;

    json_places_path(&reader->places, place, path, sizeof(path));
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    definition_problem(&reader->problems, reader->places.at[place].value, "%s %s",
                       path[0] ? path : "the definition", what);
}

static void append(char *to, size_t room, const char *text)
{
    size_t used = strlen(to);
    snprintf(to + used, room - used, "%s", text);
}

/* "raw" or "qcow2" */
void definition_list(const char *const *words, const char *quote, const char *last, char *to,
                     size_t room)
{
    to[0] = '\0';
    for (size_t i = 0; words[i]; i++) {
        append(to, room, i == 0 ? "" : words[i + 1] ? ", " : last);
        append(to, room, quote);
        append(to, room, words[i]);
        append(to, room, quote);
    }
}

/* In the largest unit of which it is a multiple. */
static void format_size(uint64_t bytes, char *to, size_t room)
{
    static const char units[] = "KMGT";
    unsigned unit = 0;
    while (unit < 4 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(to, room, "%llu%.1s", (unsigned long long)bytes, unit ? units + unit - 1 : "");
}

static void describe_size(const struct definition_field *field, char *to, size_t room)
{
    char min[24], max[24];
    format_size(field->min, min, sizeof(min));
    format_size(field->max, max, sizeof(max));
    snprintf(to, room, "a size from %s to %s, like \"512M\"", min, max);
}

static void describe_number(const struct definition_field *field, char *to, size_t room)
{
    snprintf(to, room, "a number%s%s from %llu to %llu", field->unit_name ? " of " : "",
             field->unit_name ? field->unit_name : "", (unsigned long long)field->min,
             (unsigned long long)field->max);
}

static void describe_text(const struct definition_field *field, char *to, size_t room)
{
    const char *what = field->kind == KIND_PATH ? "a file's path" : "a text";
    if (field->max > 1000)
        snprintf(to, room, "%s", what);
    else
        snprintf(to, room, "%s of %llu to %llu characters", what, (unsigned long long)field->min,
                 (unsigned long long)field->max);
}

static void describe_form(const struct definition_field *form, char *to, size_t room)
{
    static const char *const fixed[] = {
        [KIND_BOOL] = "true or false",
        [KIND_MAC] = "six bytes like \"02:00:00:12:34:56\"",
        [KIND_FORWARD] = "a port forward like \"2222:22\" or \"127.0.0.1:5353:53/udp\"",
        [KIND_OBJECT] = "an object: {...}",
        [KIND_LIST] = "a list: [...]",
    };
    if (form->kind == KIND_SIZE)
        describe_size(form, to, room);
    else if (form->kind == KIND_NUMBER)
        describe_number(form, to, room);
    else if (form->kind == KIND_TEXT || form->kind == KIND_PATH)
        describe_text(form, to, room);
    else if (form->kind == KIND_WORD)
        definition_list(form->words, "\"", " or ", to, room);
    else if (form->kind == KIND_CHOICE)
        definition_list(form->words, "", " or ", to, room);
    else
        snprintf(to, room, "%s", fixed[form->kind]);
}

void definition_describe(const struct definition_field *field, char *to, size_t room)
{
    describe_form(field, to, room);
    if (!field->instead)
        return;
    size_t used = strlen(to);
    snprintf(to + used, room - used, field->kind == KIND_BOOL ? ", or " : " or ");
    used = strlen(to);
    describe_form(field->instead, to + used, room - used);
}

void definition_show(const struct definition_reader *reader, uint32_t place, char *to, size_t room)
{
    const struct json_place *at = &reader->places.at[place];
    if (at->text[0] == '{' || at->text[0] == '[')
        snprintf(to, room, "%s", at->text[0] == '{' ? "an object" : "a list");
    else
        json_show(at->text, at->length, to, room);
}

/* "cpus must be a number from 1 to 1024, not "two"". False, for those who return it. */
bool definition_must_be(const struct definition_taking *taking)
{
    char wanted[400], is[256];
    const char *more = "";
    definition_describe(taking->field, wanted, sizeof(wanted));
    definition_show(taking->reader, taking->place, is, sizeof(is));
    bool bare = taking->field->kind == KIND_NUMBER || taking->field->kind == KIND_BOOL ||
                taking->field->kind == KIND_CHOICE;
    if (bare && taking->text &&
        (strcmp(taking->text, "true") == 0 || strcmp(taking->text, "false") == 0 ||
         (taking->text[0] && strspn(taking->text, "0123456789") == strlen(taking->text))))
        more = "; leave out the quotes";
    definition_wrong(taking->reader, taking->place, "must be %s, not %s%s", wanted, is, more);
    return false;
}
