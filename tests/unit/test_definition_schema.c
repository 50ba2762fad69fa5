/* SPDX-License-Identifier: MIT */
/*
 * The parser's tables, docs/vm.schema.json and man/vm.json.5.scd say the same: the first two are
 * walked side by side, in both directions, and the parser is asked about the borders of what they
 * say. Whoever adds a key in one place only is told so here.
 */
#include "core/words.h"
#include "firmware/x86/layout.h"
#include "tests/unit/definition_rig.h"
#include "vmm/definition_parts.h"
#include <regex.h>

#define SCHEMA GOLDEN_DIR "/../../docs/vm.schema.json"
#define MAN    GOLDEN_DIR "/../../man/vm.json.5.scd"

static json_t *load(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(json, "%s:%d: %s", path, error.line, error.text);
    return json;
}

/* --- tables and schema ---------------------------------------------------------------------- */

struct side_by_side {
    json_t *schema;
    char *man;
    unsigned seen; /* keys */
};

static void compare_field(struct side_by_side *sides, const struct definition_field *field,
                          json_t *is, const char *path);

/* "#/$defs/disk" */
static json_t *follow(const struct side_by_side *sides, json_t *is)
{
    const char *where = json_string_value(json_object_get(is, "$ref"));
    if (!where)
        return is;
    ck_assert_int_eq(strncmp(where, "#/$defs/", 8), 0);
    ck_assert_uint_eq(json_object_size(is), 1);
    json_t *target = json_object_get(json_object_get(sides->schema, "$defs"), where + 8);
    ck_assert_msg(target, "%s", where);
    return target;
}

/* A word that is there and says nothing that this test looks at would be a promise of nobody. */
static void only_words(const json_t *is, const char *const *words, const char *path)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)is, key, value)
        ck_assert_msg(words_find(words, key) >= 0, "%s: the schema says %s", path, key);
}

static void has_type(const json_t *is, const char *type, const char *path)
{
    const char *said = json_string_value(json_object_get(is, "type"));
    ck_assert_msg(said && strcmp(said, type) == 0, "%s: %s", path, type);
}

static void has_number(const json_t *is, const char *word, uint64_t wanted, const char *path)
{
    const json_t *said = json_object_get(is, word);
    ck_assert_msg(json_is_integer(said) && json_integer_value(said) == (json_int_t)wanted, "%s: %s",
                  path, word);
}

static void has_size(const json_t *is, const char *word, uint64_t wanted, const char *path)
{
    const char *said = json_string_value(json_object_get(is, word));
    uint64_t bytes = 0;
    ck_assert_msg(said && parse_size(said, word, &bytes, NULL) == 0 && bytes == wanted, "%s: %s",
                  path, word);
}

static void has_pattern(const json_t *is, const char *path)
{
    has_type(is, "string", path);
    ck_assert_msg(json_is_string(json_object_get(is, "pattern")), "%s: pattern", path);
}

static void has_words(const json_t *is, const struct definition_field *field, const char *path)
{
    const json_t *list = json_object_get(is, "enum");
    size_t count = 0;
    for (; field->words[count]; count++) {
        const json_t *word = json_array_get(list, count);
        if (field->kind == KIND_CHOICE)
            ck_assert_int_eq(json_integer_value(word), atoi(field->words[count]));
        else
            ck_assert_msg(json_is_string(word) &&
                              strcmp(json_string_value(word), field->words[count]) == 0,
                          "%s: %s", path, field->words[count]);
    }
    ck_assert_msg(json_array_size(list) == count, "%s: enum", path);
}

static void compare_object(struct side_by_side *sides, const struct definition_object *object,
                           json_t *is, const char *path)
{
    const json_t *properties = json_object_get(is, "properties"),
                 *required = json_object_get(is, "required");
    size_t wanted = 0;

    ck_assert_uint_le(object->count, DEFINITION_MAX_FIELDS);
    has_type(is, "object", path);
    ck_assert_msg(json_is_false(json_object_get(is, "additionalProperties")), "%s", path);
    for (size_t i = 0; i < object->count; i++) {
        const struct definition_field *field = &object->fields[i];
        char below[200];
        snprintf(below, sizeof(below), "%s.%s", path, field->name);
        json_t *property = json_object_get(properties, field->name);
        ck_assert_msg(property, "the schema lacks %s", below);
        if (field->required) {
            const char *name = json_string_value(json_array_get(required, wanted++));
            ck_assert_msg(name && strcmp(name, field->name) == 0, "%s is required", below);
        }
        char bold[64];
        snprintf(bold, sizeof(bold), "*%s*", field->name);
        ck_assert_msg(strstr(sides->man, bold), "vm.json(5) lacks %s", below);
        sides->seen++;
        compare_field(sides, field, property, below);
    }
    ck_assert_msg(json_array_size(required) == wanted, "%s: required", path);
    ck_assert_msg(json_object_size(properties) == object->count, "%s: the schema has more keys",
                  path);
}

static void compare_form(struct side_by_side *sides, const struct definition_field *field,
                         json_t *is, const char *path)
{
    switch (field->kind) {
    case KIND_NUMBER:
        has_type(is, "integer", path);
        has_number(is, "minimum", field->min, path);
        has_number(is, "maximum", field->max, path);
        break;
    case KIND_CHOICE:
    case KIND_WORD:
        has_words(is, field, path);
        break;
    case KIND_BOOL:
        has_type(is, "boolean", path);
        break;
    case KIND_TEXT:
    case KIND_PATH:
        has_type(is, "string", path);
        has_number(is, "minLength", field->min, path);
        has_number(is, "maxLength", field->max, path);
        ck_assert_msg(!field->wrong == !json_object_get(is, "pattern"), "%s: pattern", path);
        break;
    case KIND_SIZE:
        has_size(is, "x-minimum", field->min, path);
        has_size(is, "x-maximum", field->max, path);
        has_pattern(is, path);
        break;
    case KIND_MAC:
    case KIND_FORWARD:
        has_pattern(is, path);
        break;
    case KIND_OBJECT:
        compare_object(sides, field->object, is, path);
        break;
    case KIND_LIST:
        has_type(is, "array", path);
        has_number(is, "maxItems", field->max, path);
        compare_field(sides, field->item, json_object_get(is, "items"), path);
        break;
    }
}

static void compare_field(struct side_by_side *sides, const struct definition_field *field,
                          json_t *is, const char *path)
{
    static const char *const words[] = {
        "$comment",          "$schema",   "$defs",      "title",    "description",
        "default",           "type",      "enum",       "minimum",  "maximum",
        "minLength",         "maxLength", "maxItems",   "items",    "pattern",
        "x-minimum",         "x-maximum", "properties", "required", "additionalProperties",
        "dependentRequired", "anyOf",     NULL};
    const json_t *any = json_object_get(is, "anyOf");

    is = follow(sides, is);
    only_words(is, words, path);
    ck_assert_msg(!field->name || json_is_string(json_object_get(is, "description")),
                  "%s: description", path);
    if (!field->instead) {
        compare_form(sides, field, is, path);
        return;
    }
    ck_assert_msg(json_array_size(any) == 2 && !field->instead->instead, "%s: anyOf", path);
    compare_form(sides, field, json_array_get(any, 0), path);
    compare_form(sides, field->instead, json_array_get(any, 1), path);
}

START_TEST(tables_schema_and_manual_have_the_same_keys_and_bounds)
{
    static const struct definition_field whole = {.kind = KIND_OBJECT, .object = &definition_root};
    struct side_by_side sides = {.schema = load(SCHEMA), .man = read_whole(MAN)};
    compare_field(&sides, &whole, sides.schema, "");
    ck_assert_uint_gt(sides.seen, 50);
    json_decref(sides.schema);
    free(sides.man);
}
END_TEST

START_TEST(memory_has_the_bounds_of_the_firmware)
{
    for (size_t i = 0; i < definition_root.count; i++) {
        const struct definition_field *field = &definition_root.fields[i];
        if (strcmp(field->name, "memory") != 0)
            continue;
        ck_assert_uint_eq(field->min, LAYOUT_MIN_RAM);
        ck_assert_uint_eq(field->max, LAYOUT_MAX_RAM);
        ck_assert_uint_eq(field->instead->min << 20, LAYOUT_MIN_RAM);
        ck_assert_uint_eq(field->instead->max << 20, LAYOUT_MAX_RAM);
        return;
    }
    ck_abort();
}
END_TEST

/* --- tables and parser ---------------------------------------------------------------------- */

/* The full example with one value changed: what the parser says of that value's form. */
struct asker {
    json_t *root;
    char names[4096]; /* of the tables' fields that were met, each between spaces */
    unsigned asked;
};

/* Rules about what goes together may have something to say as well: not here. */
static bool takes(struct asker *asker, const char *path)
{
    static struct told told;
    char must[300], *text = json_dumps(asker->root, 0), *at;
    struct definition *definition = parse_text(&told, text);
    snprintf(must, sizeof(must), ": %s must be ", path);
    at = strstr(told.text, must);
    definition_destroy(definition);
    free(text);
    asker->asked++;
    return !at;
}

static void ask(struct asker *asker, json_t *object, const char *name, const char *path,
                json_t *value, bool wanted)
{
    json_t *before = json_incref(json_object_get(object, name));
    char *shown = json_dumps(value, JSON_ENCODE_ANY);
    json_object_set_new(object, name, value);
    ck_assert_msg(takes(asker, path) == wanted, "%s: %s", path, shown);
    json_object_set_new(object, name, before);
    free(shown);
}

static void ask_borders(struct asker *asker, const struct definition_field *field, json_t *object,
                        const char *path)
{
    char text[32];
    bool number_too = field->instead && field->instead->kind == KIND_NUMBER;
    switch (field->kind) {
    case KIND_NUMBER:
        ask(asker, object, field->name, path, json_integer((json_int_t)field->min), true);
        ask(asker, object, field->name, path, json_integer((json_int_t)field->max), true);
        ask(asker, object, field->name, path, json_integer((json_int_t)field->min - 1), false);
        ask(asker, object, field->name, path, json_integer((json_int_t)field->max + 1), false);
        break;
    case KIND_SIZE:
        snprintf(text, sizeof(text), "%lluK", (unsigned long long)field->max >> 10);
        ask(asker, object, field->name, path, json_string(text), true);
        snprintf(text, sizeof(text), "%lluK", ((unsigned long long)field->max >> 10) + 1);
        ask(asker, object, field->name, path, json_string(text), false);
        snprintf(text, sizeof(text), "%lluK", (unsigned long long)field->min >> 10);
        ask(asker, object, field->name, path, json_string(text), true);
        if (field->min)
            ask(asker, object, field->name, path, json_string("0"), false);
        break;
    case KIND_CHOICE:
        for (size_t i = 0; field->words[i]; i++) {
            ask(asker, object, field->name, path, json_integer(atoi(field->words[i])), true);
            ask(asker, object, field->name, path, json_integer(atoi(field->words[i]) + 1), false);
        }
        break;
    case KIND_WORD:
        for (size_t i = 0; field->words[i]; i++)
            ask(asker, object, field->name, path, json_string(field->words[i]), true);
        break;
    default:
        break;
    }
    ask(asker, object, field->name, path, json_null(), false);
    ask(asker, object, field->name, path, json_real(1.5), false);
    if (field->kind != KIND_NUMBER && field->kind != KIND_CHOICE && !number_too)
        ask(asker, object, field->name, path, json_integer(512), false);
    if (field->kind != KIND_LIST)
        ask(asker, object, field->name, path, json_array(), false);
}

static void ask_object(struct asker *asker, const struct definition_object *table, json_t *object,
                       const char *path)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct definition_field *field = &table->fields[i];
        json_t *value = json_object_get(object, field->name);
        char below[200];
        if (!value)
            continue;
        snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "." : "", field->name);
        size_t used = strlen(asker->names);
        snprintf(asker->names + used, sizeof(asker->names) - used, "%p ", (const void *)field);
        ask_borders(asker, field, object, below);
        if (json_is_object(value))
            ask_object(asker, field->object ? field->object : field->instead->object, value, below);
        for (size_t j = 0; json_is_object(json_array_get(value, j)); j++) {
            char item[220];
            snprintf(item, sizeof(item), "%s[%zu]", below, j);
            ask_object(asker, field->item->object, json_array_get(value, j), item);
        }
    }
}

static void all_met(const struct asker *asker, const struct definition_object *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct definition_field *field = &table->fields[i];
        char name[40];
        snprintf(name, sizeof(name), "%p ", (const void *)field);
        ck_assert_msg(strstr(asker->names, name), "the full example lacks %s", field->name);
        if (field->object)
            all_met(asker, field->object);
        if (field->instead && field->instead->object)
            all_met(asker, field->instead->object);
        if (field->item && field->item->object)
            all_met(asker, field->item->object);
    }
}

START_TEST(the_parser_keeps_the_bounds_of_every_key_and_the_full_example_has_all)
{
    static struct asker asker;
    asker.root = load(DEFINITION_FULL);
    ask_object(&asker, &definition_root, asker.root, "");
    all_met(&asker, &definition_root);
    ck_assert_uint_gt(asker.asked, 200);
    json_decref(asker.root);
}
END_TEST

/* --- patterns and parser -------------------------------------------------------------------- */

/* What the schema's pattern and the parser must be of one mind about. */
static const struct {
    const char *path; /* in the schema, words between slashes */
    const char *text; /* a definition, with the sample for %s */
    const char *samples[24];
} patterns[] = {
    {"properties/memory/anyOf/0",
     "{\"boot\":{\"kernel\":\"k\"},\"memory\":\"%s\"}",
     {"512M", "512", "3g", "4GiB", "4gIb", "2048K", "1T", "", "M", "1.5G", "-1G", "5 G", "5GB",
      "5Gi", " 5G", "5G "}},
    {"$defs/net/properties/mac",
     "{\"boot\":{\"kernel\":\"k\"},\"nets\":[{\"mac\":\"%s\"}]}",
     {"52:54:00:12:34:56", "02:AB:cd:eF:00:00", "01:00:00:00:00:00", "52-54-00-12-34-56",
      "52:54:00:12:34", "52:54:00:12:34:567", "5g:54:00:12:34:56", ""}},
    {"$defs/net/properties/forwards/items",
     "{\"boot\":{\"kernel\":\"k\"},\"nets\":[{\"forwards\":[\"%s\"]}]}",
     {"2222:22", "2222:22/tcp", "53:53/udp", "127.0.0.1:80:80", "[::1]:80:80/udp", "", "80",
      "80:", ":80", "80:80/sctp", "::1:80:80", "host:80:80", "80:80 ", "80:x"}},
    {"$defs/net/properties/tap",
     "{\"boot\":{\"kernel\":\"k\"},\"nets\":[{\"mode\":\"tap\",\"tap\":\"%s\"}]}",
     {"tap0", "web-1.2", "~!", "a b", "a/b", "a:b", "\u00e4"}},
    {"$defs/disk/properties/serial",
     "{\"disks\":[{\"file\":\"a\",\"serial\":\"%s\"}]}",
     {"A", "a b~!", "\u00e4", ""}},
    {"properties/seed/properties/user",
     "{\"boot\":{\"kernel\":\"k\"},\"seed\":{\"key\":\"k\",\"user\":\"%s\"}}",
     {"anna", "_a-b.c9", "Anna", "9a", "a b", "-a", "a:", ""}},
    {"properties/seed/properties/hostname",
     "{\"boot\":{\"kernel\":\"k\"},\"seed\":{\"key\":\"k\",\"hostname\":\"%s\"}}",
     {"web1", "a", "Web-1.example.org", "-a", "a-", ".a", "a.", "a_b", "a b", ""}},
    {"properties/ft/properties/peer",
     "{\"boot\":{\"kernel\":\"k\"},\"ft\":{\"peer\":\"%s\"}}",
     {"web2", "web2:7000", "10.0.0.2:1", "[fe80::1]", "[fe80::1]:7000", "fe80::1",
      "web2:", "web2:x", ":7000", "[fe80::1", "a b", "-a", ""}},
    {"properties/ft/properties/peers/items",
     "{\"boot\":{\"kernel\":\"k\"},\"ft\":{\"peers\":[\"%s\"]}}",
     {"web2", "10.0.0.2:1", "[fe80::1]:7000", "fe80::1", "web2:", ":7000", ""}},
    {"properties/ft/properties/preferred",
     "{\"boot\":{\"kernel\":\"k\"},\"ft\":{\"preferred\":\"%s\",\"peers\":[\"%s\"]}}",
     {"web2", "10.0.0.2:1", "[fe80::1]:7000", "fe80::1", "web2:", ":7000", ""}},
    {"properties/ft/properties/witness",
     "{\"boot\":{\"kernel\":\"k\"},\"ft\":{\"witness\":\"%s\"}}",
     {"file:w", "file:/a b", "etcd://a", "etcd://a:1,b,[::1]:2", "etcd://", "etcd://a,",
      "etcd://,a", "etcd://a b", "etcd:http://a", "etcd:http://a:1,https://b/",
      "file:", "etcd:", "etcd:a", "etcd:http://", "etcd:http://a,", "etcd:http://a,b",
      "etcd:http://a b", "http://a", ""}},
};

static const char *pattern_of(const json_t *schema, const char *path)
{
    char copy[200], *rest = NULL;
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *word = strtok_r(copy, "/", &rest); word; word = strtok_r(NULL, "/", &rest))
        schema = json_is_array(schema) ? json_array_get(schema, (size_t)atoi(word))
                                       : json_object_get(schema, word);
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));
    ck_assert_msg(pattern, "%s", path);
    return pattern;
}

START_TEST(patterns_of_the_schema_and_the_parser_are_of_one_mind)
{
    static struct told told;
    json_t *schema = load(SCHEMA);
    regex_t regex;
    unsigned taken = 0;

    ck_assert_int_eq(
        regcomp(&regex, pattern_of(schema, patterns[_i].path), REG_EXTENDED | REG_NOSUB), 0);
    for (size_t i = 0; i < array_size(patterns[_i].samples) && patterns[_i].samples[i]; i++) {
        const char *sample = patterns[_i].samples[i], *form = patterns[_i].text;
        char text[400] = "";
        for (const char *gap; (gap = strstr(form, "%s")); form = gap + 2) {
            size_t used = strlen(text);
            snprintf(text + used, sizeof(text) - used, "%.*s%s", (int)(gap - form), form, sample);
        }
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s", form);
        struct definition *definition = parse_text(&told, text);
        ck_assert_msg((regexec(&regex, sample, 0, NULL, 0) == 0) == (definition != NULL),
                      "%s: \"%s\" %s", patterns[_i].path, sample, told.text);
        taken += definition != NULL;
        definition_destroy(definition);
    }
    ck_assert_uint_gt(taken, 0);
    regfree(&regex);
    json_decref(schema);
}
END_TEST

/* --- the manual ----------------------------------------------------------------------------- */

START_TEST(the_examples_of_the_manual_are_definitions)
{
    static const char fence[] = "```\n";
    char *man = read_whole(MAN), *at = man;
    unsigned count = 0;
    while ((at = strstr(at, fence))) {
        char *end = strstr(at + 1, fence);
        ck_assert_ptr_nonnull(end);
        *end = '\0';
        definition_destroy(parse_good(at + strlen(fence)));
        at = end + 1;
        count++;
    }
    ck_assert_uint_ge(count, 2);
    free(man);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("definition_schema");
    TCase *tcase = tcase_create("schema");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, tables_schema_and_manual_have_the_same_keys_and_bounds);
    tcase_add_test(tcase, memory_has_the_bounds_of_the_firmware);
    tcase_add_test(tcase, the_parser_keeps_the_bounds_of_every_key_and_the_full_example_has_all);
    tcase_add_loop_test(tcase, patterns_of_the_schema_and_the_parser_are_of_one_mind, 0,
                        array_size(patterns));
    tcase_add_test(tcase, the_examples_of_the_manual_are_definitions);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
