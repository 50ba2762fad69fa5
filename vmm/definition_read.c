/* SPDX-License-Identifier: MIT */
/* Objects and lists, by the tables of definition_fields.c: as deep as these are, whatever the text.
 */
#include "vmm/definition_parts.h"

#include "core/nearest.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

static bool take_value(struct definition_reader *reader, const struct definition_field *field,
                       uint32_t place, const json_t *value, void *base, uint64_t *ret_number);
static bool read_object(struct definition_reader *reader, const struct definition_object *object,
                        uint32_t place, const json_t *value, void *base);

/* --- values --------------------------------------------------------------------------------- */

static bool take_object(struct definition_taking *taking)
{
    return read_object(taking->reader, taking->form->object, taking->place, taking->value,
                       taking->base + taking->form->offset);
}

static char *items_of(struct definition_taking *taking, size_t count)
{
    char *at = taking->base + taking->form->offset;
    if (!taking->form->allocated)
        return at;
    void *items = count ? definition_allocate(taking->reader, count * taking->form->size) : NULL;
    *(const void **)(void *)at = items;
    return items;
}

static bool take_list(struct definition_taking *taking)
{
    const struct definition_field *form = taking->form;
    const struct json_places *places = &taking->reader->places;
    size_t count = json_array_size(taking->value);
    bool good = count <= form->max;
    uint32_t place = places->at[taking->place].first;

    if (!good)
        count = form->max;
    char *items = items_of(taking, count);
    for (size_t i = 0; i < count && items && place != JSON_NOWHERE; i++) {
        uint64_t ignored;
        good &= take_value(taking->reader, form->item, place, json_array_get(taking->value, i),
                           items + i * form->size, &ignored);
        place = places->at[place].next;
    }
    if (place != JSON_NOWHERE && items)
        definition_wrong(taking->reader, place, "is one too many; %llu are the most",
                         (unsigned long long)form->max);
    *(unsigned *)(void *)(taking->base + form->count) = items ? (unsigned)count : 0;
    return good;
}

static bool is_kind(enum definition_kind kind, const json_t *value)
{
    switch (kind) {
    case KIND_NUMBER:
    case KIND_CHOICE:
        return json_is_number(value);
    case KIND_BOOL:
        return json_is_boolean(value);
    case KIND_OBJECT:
        return json_is_object(value);
    case KIND_LIST:
        return json_is_array(value);
    default:
        return json_is_string(value);
    }
}

static bool take_value(struct definition_reader *reader, const struct definition_field *field,
                       uint32_t place, const json_t *value, void *base, uint64_t *ret_number)
{
    struct definition_taking taking = {.reader = reader,
                                       .field = field,
                                       .form = field,
                                       .text = json_string_value(value),
                                       .value = value,
                                       .place = place,
                                       .base = base};
    while (taking.form && !is_kind(taking.form->kind, value))
        taking.form = taking.form->instead;
    if (!taking.form)
        return definition_must_be(&taking);
    if (taking.form->said)
        *(bool *)(taking.base + taking.form->said) = true;
    bool good = taking.form->kind == KIND_OBJECT ? take_object(&taking)
                : taking.form->kind == KIND_LIST ? take_list(&taking)
                                                 : definition_take(&taking);
    *ret_number = taking.number;
    return good;
}

/* --- objects -------------------------------------------------------------------------------- */

/* "PATH ...", at the key. */
static void wrong_key(struct definition_reader *reader, uint32_t place, const char *what)
{
    char path[300];
    json_places_path(&reader->places, place, path, sizeof(path));
    definition_problem(&reader->problems, reader->places.at[place].key_spot, "%s %s", path, what);
}

static const char *field_name(const void *ctx, size_t i)
{
    const struct definition_object *object = ctx;
    return i < object->count ? object->fields[i].name : NULL;
}

static size_t find_field(const struct definition_object *object, const char *name)
{
    size_t i = 0;
    while (i < object->count && strcmp(object->fields[i].name, name) != 0)
        i++;
    return i;
}

/* What it was meant to be counts as said, so that nothing is told to lack. */
static void unknown_key(struct definition_reader *reader, struct definition_found *found,
                        uint32_t place)
{
    const struct definition_object *object = found->object;
    const char *near = nearest_word(reader->places.at[place].key, field_name, object);
    char what[400] = "is not known; there are ";

    if (near) {
        size_t field = find_field(object, near);
        if (found->said[field] == JSON_NOWHERE)
            found->said[field] = place;
        snprintf(what, sizeof(what), "is not known; did you mean \"%s\"?", near);
    }
    for (size_t i = 0; i < object->count && !near; i++) {
        size_t used = strlen(what);
        const char *comma = i == 0 ? "" : i + 1 == object->count ? " and " : ", ";
        snprintf(what + used, sizeof(what) - used, "%s%s", comma, object->fields[i].name);
    }
    wrong_key(reader, place, what);
}

/* What comes twice would be read by one program so and by another one so. */
static void tell_twin(struct definition_reader *reader, uint32_t place)
{
    const struct json_place *at = &reader->places.at[place];
    const struct json_spot twin = reader->places.at[at->twin].key_spot;
    char what[120];
    snprintf(what, sizeof(what),
             "is there twice: first in line %u (column %u), again in line %u; leave one out",
             twin.line, twin.column, at->key_spot.line);
    wrong_key(reader, place, what);
}

static void read_member(struct definition_reader *reader, struct definition_found *found,
                        uint32_t place, const json_t *value)
{
    const struct json_place *at = &reader->places.at[place];
    size_t field = find_field(found->object, at->key);
    if (at->twin != JSON_NOWHERE)
        tell_twin(reader, place);
    if (at->shadowed)
        return;
    if (field == found->object->count) {
        unknown_key(reader, found, place);
        return;
    }
    found->said[field] = place;
    found->good[field] = take_value(reader, &found->object->fields[field], place, value,
                                    found->base, &found->number[field]);
}

static bool read_object(struct definition_reader *reader, const struct definition_object *object,
                        uint32_t place, const json_t *value, void *base)
{
    struct definition_found found = {.object = object, .base = base, .place = place};
    unsigned before = reader->problems.count;

    for (size_t i = 0; i < object->count; i++)
        found.said[i] = JSON_NOWHERE;
    if (object->begin)
        object->begin(base);
    const struct json_place *at = reader->places.at;
    for (uint32_t i = at[place].first; i != JSON_NOWHERE; i = at[i].next)
        read_member(reader, &found, i, json_object_get(value, at[i].key));
    for (size_t i = 0; i < object->count; i++)
        if (object->fields[i].required && found.said[i] == JSON_NOWHERE)
            definition_wrong(reader, place, "lacks \"%s\"", object->fields[i].name);
    if (object->check)
        object->check(reader, &found);
    return reader->problems.count == before;
}

void definition_read(struct definition_reader *reader, const json_t *root)
{
    static const struct definition_field whole = {.kind = KIND_OBJECT, .object = &definition_root};
    uint64_t ignored;
    (void)take_value(reader, &whole, 0, root, reader->definition, &ignored);
}

/* --- for the rules -------------------------------------------------------------------------- */

/* The rules and the tables are of one mind, or the first test fails. */
static size_t field_of(const struct definition_found *found, const char *name)
{
    size_t field = find_field(found->object, name);
    assert(field < found->object->count);
    return field;
}

uint32_t definition_place(const struct definition_found *found, const char *name)
{
    return found->said[field_of(found, name)];
}

bool definition_is_bad(const struct definition_found *found, const char *name)
{
    size_t field = field_of(found, name);
    return found->said[field] != JSON_NOWHERE && !found->good[field];
}

uint64_t definition_number(const struct definition_found *found, const char *name,
                           uint64_t otherwise)
{
    size_t field = field_of(found, name);
    return found->said[field] != JSON_NOWHERE && found->good[field] ? found->number[field]
                                                                    : otherwise;
}
