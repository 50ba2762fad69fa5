/* SPDX-License-Identifier: MIT */
/* The wire format and the rules for loading stand in the header. */
#include "core/state.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a walk through nested tables is, for the sentences: "queues[2].size". */
struct place {
    const struct place *outer;
    const struct state_field *field;
    size_t index;
};

struct place_text {
    char text[128];
};

static void place_print(const struct place *place, struct place_text *to)
{
    if (place->outer)
        place_print(place->outer, to);
    size_t used = strlen(to->text);
    snprintf(to->text + used, sizeof(to->text) - used, "%s%s", used ? "." : "", place->field->name);
    used = strlen(to->text);
    if (place->field->count > 1)
        snprintf(to->text + used, sizeof(to->text) - used, "[%zu]", place->index);
}

static struct place_text place_text(const struct place *place)
{
    struct place_text text = {""};
    place_print(place, &text);
    return text;
}

/* Fields. */

static size_t element_size(const struct state_field *field)
{
    switch (field->kind) {
    case STATE_U8:
    case STATE_BOOL:
    case STATE_BYTES:
        return 1;
    case STATE_U16:
        return 2;
    case STATE_U32:
        return 4;
    case STATE_U64:
        return 8;
    case STATE_TABLE:
        return field->table->size;
    }
    return 0;
}

static bool is_number(const struct state_field *field)
{
    return field->kind >= STATE_U8 && field->kind <= STATE_BOOL;
}

/* On the wire as in memory; the machines that run KVM for us are all little-endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are copied as they are");

static uint64_t get_number(const uint8_t *from, size_t width)
{
    uint64_t value = 0;
    memcpy(&value, from, width);
    return value;
}

static int check_number(const struct place *place, uint64_t value, struct err *err)
{
    const struct state_field *field = place->field;
    bool bounded = field->min || field->max;
    uint64_t max = field->kind == STATE_BOOL ? 1 : bounded ? field->max : UINT64_MAX;

    if (value > max)
        return err_say(err, ERR_FAILED, EBADMSG, "field %s is %llu, at most %llu",
                       place_text(place).text, (unsigned long long)value, (unsigned long long)max);
    if (value < field->min)
        return err_say(err, ERR_FAILED, EBADMSG, "field %s is %llu, at least %llu",
                       place_text(place).text, (unsigned long long)value,
                       (unsigned long long)field->min);
    return 0;
}

static const struct state_field *find_count(const struct state_table *table,
                                            const struct state_field *field)
{
    for (const struct state_field *f = table->fields; f < field; f++)
        if (f->offset == field->count_offset)
            return f;
    return NULL;
}

/* How many elements of a valid object travel. */
static size_t elements(const struct state_field *field, const uint8_t *object)
{
    return field->counted ? get_number(object + field->count_offset, 4) : field->count;
}

/* The same of an object that may be hostile: the count has to fit its own bounds and the array. */
static int check_elements(const struct place *outer, const struct state_table *table,
                          const struct state_field *field, const uint8_t *object, size_t *ret_n,
                          struct err *err)
{
    size_t n = elements(field, object);

    if (field->counted) {
        const struct place place = {.outer = outer, .field = find_count(table, field)};
        int r = check_number(&place, n, err);
        if (r < 0)
            return r;
        if (n > field->count)
            return err_say(err, ERR_FAILED, EBADMSG, "field %s is %zu, at most %zu",
                           place_text(&place).text, n, field->count);
    }
    *ret_n = n;
    return 0;
}

/* Checking an object. */

static int check_object(const struct place *outer, const struct state_table *table,
                        const uint8_t *object, struct err *err)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        size_t size = element_size(field);
        size_t n;
        int r = check_elements(outer, table, field, object, &n, err);
        for (size_t j = 0; r == 0 && j < n && field->kind != STATE_BYTES; j++) {
            const struct place place = {.outer = outer, .field = field, .index = j};
            const uint8_t *element = object + field->offset + j * size;
            r = is_number(field) ? check_number(&place, get_number(element, size), err)
                                 : check_object(&place, field->table, element, err);
        }
        if (r < 0)
            return r;
    }

    int r = table->validate ? table->validate(object, err) : 0;
    if (r < 0 && outer)
        err_prefix(err, "field %s", place_text(outer).text);
    return r;
}

int state_check(const struct state_table *table, const void *object, struct err *err)
{
    return check_object(NULL, table, object, err);
}

/* Saving. */

/* Bytes of the payload: of this object, or without one the most that a payload can have. */
static size_t payload_size(const struct state_table *table, const uint8_t *object)
{
    size_t sum = 0;

    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        size_t size = element_size(field);
        size_t n = object ? elements(field, object) : field->count;
        if (field->kind != STATE_TABLE) {
            sum += n * size;
            continue;
        }
        for (size_t j = 0; j < n; j++)
            sum += payload_size(field->table, object ? object + field->offset + j * size : NULL);
    }
    return sum;
}

static void write_object(struct stream *stream, const struct state_table *table,
                         const uint8_t *object)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        const uint8_t *element = object + field->offset;
        size_t size = element_size(field);
        size_t n = elements(field, object);
        if (field->kind != STATE_TABLE)
            stream_write(stream, element, n * size);
        for (size_t j = 0; j < n && field->kind == STATE_TABLE; j++)
            write_object(stream, field->table, element + j * size);
    }
}

static const struct state_table end_table = {.name = "end", .version = 1};

static void write_section(struct stream *stream, const struct state_item *item)
{
    const struct state_table *table = item->table;
    size_t name_length = strlen(table->name);
    size_t length = payload_size(table, item->object);

    assert(name_length <= STATE_NAME_MAX && length <= STATE_MAX_PAYLOAD);
    stream_checksum_start(stream);
    stream_put_u8(stream, (uint8_t)name_length);
    stream_write(stream, table->name, name_length);
    stream_put_u32(stream, item->instance);
    stream_put_u16(stream, table->version);
    stream_put_u32(stream, (uint32_t)length);
    write_object(stream, table, item->object);
    stream_put_u32(stream, stream->checksum);
}

int state_save(struct stream *stream, const struct state_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int sound = state_check(items[i].table, items[i].object, NULL);
        assert(sound == 0);
        (void)sound;
        write_section(stream, &items[i]);
    }
    write_section(stream, &(const struct state_item){.table = &end_table});
    return stream_error(stream);
}

/* Loading. Everything from here to state_load handles bytes that are not to be trusted. */

struct section {
    char name[STATE_NAME_MAX + 1];
    uint32_t instance;
    uint16_t version;
    uint32_t length;
};

/* A payload, read from its start. */
struct reader {
    const uint8_t *at;
    size_t left;
    uint16_t version;
};

/* The elements of one field that is not a table. */
static int read_elements(struct reader *reader, const struct place *place, uint8_t *to, size_t n,
                         bool present, struct err *err)
{
    size_t size = element_size(place->field);

    if (!present) {
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * size, &place->field->fallback, size);
        return 0;
    }
    if (reader->left < n * size)
        return err_say(err, ERR_FAILED, EBADMSG, "ends in field %s", place_text(place).text);
    memcpy(to, reader->at, n * size);
    reader->at += n * size;
    reader->left -= n * size;
    return 0;
}

/*
 * Fills a zeroed object from a payload. Only counts are checked here, because they steer the walk;
 * check_object comes after. Inside of a field that the section's version lacks nothing is present.
 */
static int read_object(struct reader *reader, const struct place *outer,
                       const struct state_table *table, uint8_t *object, bool present,
                       struct err *err)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        bool here = present && field->since <= reader->version;
        struct place place = {.outer = outer, .field = field};
        uint8_t *element = object + field->offset;
        size_t n;
        int r = check_elements(outer, table, field, object, &n, err);
        if (r == 0 && field->kind != STATE_TABLE)
            r = read_elements(reader, &place, element, n, here, err);
        for (; r == 0 && field->kind == STATE_TABLE && place.index < n; place.index++) {
            r = read_object(reader, &place, field->table, element, here, err);
            element += field->table->size;
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int stream_verdict(const struct stream *stream, struct err *err)
{
    int error = stream_error(stream);

    if (error == -ENODATA)
        return err_say(err, ERR_FAILED, ENODATA, "the state ends too early");
    return error ? err_sys(err, ERR_FAILED, -error, "cannot read the state") : 0;
}

static int read_header(struct stream *stream, struct section *ret_section, struct err *err)
{
    struct section section = {0};

    stream_checksum_start(stream);
    size_t length = stream_get_u8(stream);
    if (stream_error(stream) == 0 && (length < 1 || length > STATE_NAME_MAX))
        return err_say(err, ERR_FAILED, EBADMSG, "a section's name has %zu bytes, not 1 to %d",
                       length, STATE_NAME_MAX);
    stream_read(stream, section.name, length);
    section.instance = stream_get_u32(stream);
    section.version = stream_get_u16(stream);
    section.length = stream_get_u32(stream);
    int r = stream_verdict(stream, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < length; i++)
        if (section.name[i] < ' ' || section.name[i] > '~')
            return err_say(err, ERR_FAILED, EBADMSG, "a section's name is not printable");
    *ret_section = section;
    return 0;
}

static int check_version(const struct section *section, const struct state_table *table,
                         struct err *err)
{
    unsigned oldest = table->oldest ? table->oldest : 1;

    if (section->version >= oldest && section->version <= table->version)
        return 0;
    int r = err_say(err, ERR_FAILED, ENOTSUP, "version %u, but %u to %u can be loaded",
                    section->version, oldest, table->version);
    if (section->version > table->version)
        err_hint(err, "it was saved by a newer minivmm: load it with that one");
    return r;
}

/* The payload and its checksum; *ret_payload is the caller's to free. */
static int read_payload(struct stream *stream, const struct section *section, size_t most,
                        uint8_t **ret_payload, struct err *err)
{
    if (section->length > most)
        return err_say(err, ERR_FAILED, EBADMSG, "%u bytes long, at most %zu", section->length,
                       most);
    uint8_t *payload = malloc(section->length + 1);
    if (!payload)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot load");
    stream_read(stream, payload, section->length);
    uint32_t sum = stream->checksum;
    uint32_t expected = stream_get_u32(stream);
    int r = stream_verdict(stream, err);
    if (r == 0 && sum != expected)
        r = err_say(err, ERR_FAILED, EBADMSG, "the checksum does not match");
    if (r < 0) {
        free(payload);
        return r;
    }
    *ret_payload = payload;
    return 0;
}

static int load_section(struct stream *stream, const struct section *section,
                        const struct state_table *table, uint8_t *object, struct err *err)
{
    uint8_t *payload = NULL;
    int r = check_version(section, table, err);
    if (r == 0)
        r = read_payload(stream, section, payload_size(table, NULL), &payload, err);
    if (r < 0)
        return r;

    struct reader reader = {.at = payload, .left = section->length, .version = section->version};
    r = read_object(&reader, NULL, table, object, true, err);
    if (r == 0 && reader.left > 0)
        r = err_say(err, ERR_FAILED, EBADMSG, "%zu bytes too long", reader.left);
    if (r == 0)
        r = check_object(NULL, table, object, err);
    free(payload);
    return r;
}

/* Loads sections into scratch objects, one per item, until the end. */
static int load_sections(struct stream *stream, const struct state_item *items, size_t count,
                         uint8_t **scratch, struct err *err)
{
    for (;;) {
        struct section section;
        int r = read_header(stream, &section, err);
        if (r < 0)
            return r;
        bool is_end = strcmp(section.name, end_table.name) == 0 && section.instance == 0;
        const struct state_table *table = is_end ? &end_table : NULL;
        uint8_t *object = NULL;

        for (size_t i = 0; !table && i < count; i++) {
            if (strcmp(section.name, items[i].table->name) != 0 ||
                section.instance != items[i].instance)
                continue;
            table = items[i].table;
            if (scratch[i])
                return err_say(err, ERR_FAILED, EBADMSG, "%s %u occurs twice", section.name,
                               section.instance);
            object = scratch[i] = calloc(1, table->size);
            if (!object)
                return err_sys(err, ERR_HOST, ENOMEM, "%s %u: cannot load", section.name,
                               section.instance);
        }
        if (!table)
            return err_say(err, ERR_FAILED, EBADMSG, "%s %u is not part of this machine",
                           section.name, section.instance);
        r = load_section(stream, &section, table, object, err);
        if (r < 0)
            err_prefix(err, "%s %u", section.name, section.instance);
        if (r < 0 || is_end)
            return r;
    }
}

int state_load(struct stream *stream, const struct state_item *items, size_t count, struct err *err)
{
    uint8_t **scratch = calloc(count + 1, sizeof(*scratch));
    if (!scratch)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot load the state");

    int r = load_sections(stream, items, count, scratch, err);
    for (size_t i = 0; r == 0 && i < count; i++)
        if (!scratch[i])
            r = err_say(err, ERR_FAILED, EBADMSG, "%s %u is missing", items[i].table->name,
                        items[i].instance);
    for (size_t i = 0; r == 0 && i < count; i++)
        memcpy(items[i].object, scratch[i], items[i].table->size);
    if (r < 0)
        stream_fail(stream, r);

    for (size_t i = 0; i < count; i++)
        free(scratch[i]);
    free(scratch);
    return r;
}

/* Proving a table. */

enum { MAX_DEPTH = 4 };

static bool is_name(const char *name)
{
    if (!name || !*name || strlen(name) > STATE_NAME_MAX)
        return false;
    for (; *name; name++)
        if (*name <= ' ' || *name > '~')
            return false;
    return true;
}

static const char *find_number_fault(const struct state_field *field, bool may_lack)
{
    size_t width = element_size(field);
    uint64_t most = width < 8 ? (1ull << 8 * width) - 1 : UINT64_MAX;
    bool bounded = field->min || field->max;
    uint64_t max = field->kind == STATE_BOOL ? 1 : bounded ? field->max : most;

    if (field->min > max || max > most)
        return "has bounds that no value can keep";
    if (field->kind == STATE_BOOL && (field->min || field->max))
        return "is a bool and needs no bounds";
    if (may_lack && (field->fallback < field->min || field->fallback > max))
        return "has a fallback outside of its bounds";
    return NULL;
}

/* may_lack: some version that still loads does not have the field. */
static const char *find_fault(const struct state_table *table, const struct state_field *field,
                              unsigned version, bool may_lack)
{
    if (!field->name || !*field->name)
        return "has no name";
    if (field->kind < STATE_U8 || field->kind > STATE_TABLE || field->count == 0)
        return "has no kind or no elements";
    if ((field->kind == STATE_TABLE) != (field->table != NULL))
        return "has a table and is none, or the reverse";
    if (field->since > version)
        return "comes from a later version";
    if (!is_number(field) && (field->min || field->max || field->fallback))
        return "is no number, but has a number's bounds or fallback";
    if (field->counted) {
        const struct state_field *count = find_count(table, field);
        if (!count || count->kind != STATE_U32 || count->count != 1)
            return "is not counted by an earlier u32";
        if (count->since > field->since)
            return "is older than its count";
    }
    return is_number(field) ? find_number_fault(field, may_lack) : NULL;
}

static int check_table(const struct state_table *table, const struct state_table *section,
                       unsigned depth, bool lacking, struct err *err)
{
    size_t end = 0;

    if (depth > MAX_DEPTH || !is_name(table->name) || strcmp(table->name, end_table.name) == 0)
        return err_say(err, ERR_FAILED, EINVAL, "a table is nested too deep or has no proper name");
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        bool may_lack = lacking || (field->since > 1 && field->since > section->oldest);
        const char *fault = find_fault(table, field, section->version, may_lack);
        if (!fault && field->offset != end)
            fault = field->offset > end ? "leaves bytes before it out"
                                        : "overlaps the one before it, or is out of order";
        if (fault)
            return err_say(err, ERR_FAILED, EINVAL, "table %s: field %s %s", table->name,
                           field->name ? field->name : "?", fault);
        if (field->kind == STATE_TABLE) {
            int r = check_table(field->table, section, depth + 1, may_lack, err);
            if (r < 0)
                return r;
        }
        end += element_size(field) * field->count;
    }
    if (end == 0 || end != table->size)
        return err_say(err, ERR_FAILED, EINVAL, "table %s: fields end at byte %zu of %zu",
                       table->name, end, table->size);
    return 0;
}

int state_table_check(const struct state_table *table, struct err *err)
{
    int r = check_table(table, table, 1, false, err);
    if (r < 0)
        return r;
    if (table->version == 0 || table->oldest > table->version)
        return err_say(err, ERR_FAILED, EINVAL, "table %s: versions make no sense", table->name);
    if (payload_size(table, NULL) > STATE_MAX_PAYLOAD)
        return err_say(err, ERR_FAILED, EINVAL, "table %s is too large", table->name);
    return 0;
}
