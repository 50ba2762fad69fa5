/* SPDX-License-Identifier: MIT */
#include "tests/unit/unit.h"
#include "core/stream.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int unit_main(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    bool good = srunner_ntests_run(runner) > 0 && srunner_ntests_failed(runner) == 0;
    srunner_free(runner);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* One table under test. */
struct trial {
    const struct state_table *table;
    uint8_t *base;      /* the sample, as it looks after a save and a load */
    uint8_t *candidate; /* a variation of it */
    uint8_t *target;    /* what is loaded into */
    struct stream_buffer saved;
};

static void save(const struct state_table *table, const void *object, struct stream_buffer *into)
{
    /* A state_item carries a pointer for both directions; saving only reads through it. */
    struct state_item item = {.table = table, .object = (void *)(uintptr_t)object};

    stream_buffer_init(into, 0);
    ck_assert_int_eq(state_save(&into->stream, &item, 1), 0);
}

static int load(const struct state_table *table, void *object, const uint8_t *bytes, size_t length,
                struct err *err)
{
    struct state_item item = {.table = table, .object = object};
    struct stream_buffer from;

    stream_buffer_init_read(&from, bytes, length);
    int r = state_load(&from.stream, &item, 1, err);
    stream_buffer_finish(&from);
    return r;
}

/* Golden files: lines of 32 bytes in hex. */

static void write_golden(const char *path, const struct stream_buffer *saved)
{
    FILE *file = fopen(path, "we");

    ck_assert_msg(file, "cannot write %s: %s", path, strerror(errno));
    for (size_t i = 0; i < saved->length; i++) {
        bool last = i % 32 == 31 || i + 1 == saved->length;
        fprintf(file, last ? "%02x\n" : "%02x", saved->bytes[i]);
    }
    ck_assert_int_eq(fclose(file), 0);
}

static void check_golden(const char *dir, const struct state_table *table,
                         const struct stream_buffer *saved)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s.hex", dir, table->name);
    if (getenv("MINIVMM_UPDATE_GOLDEN"))
        write_golden(path, saved);

    FILE *file = fopen(path, "re");
    ck_assert_msg(file, "cannot open %s: %s (MINIVMM_UPDATE_GOLDEN=1 writes it)", path,
                  strerror(errno));
    size_t at = 0;
    unsigned byte;
    while (fscanf(file, " %2x", &byte) == 1) {
        ck_assert_msg(at < saved->length && saved->bytes[at] == byte,
                      "%s: saved bytes differ at byte %zu", path, at);
        at++;
    }
    ck_assert_msg(feof(file) && at == saved->length, "%s: %zu bytes, but %zu were saved", path, at,
                  saved->length);
    fclose(file);
}

static void check_round_trip(struct trial *trial)
{
    struct stream_buffer again;
    struct err err = {0};

    memset(trial->base, 0, trial->table->size);
    int r = load(trial->table, trial->base, trial->saved.bytes, trial->saved.length, &err);
    ck_assert_msg(r == 0, "what was saved does not load: %s", err.text);
    save(trial->table, trial->base, &again);
    ck_assert_uint_eq(again.length, trial->saved.length);
    ck_assert_mem_eq(again.bytes, trial->saved.bytes, again.length);
    stream_buffer_finish(&again);
}

/* Patterns. */

enum { PATTERNS = 12 };

static size_t element_size(const struct state_field *field)
{
    switch (field->kind) {
    case STATE_U16:
        return 2;
    case STATE_U32:
        return 4;
    case STATE_U64:
        return 8;
    case STATE_TABLE:
        return field->table->size;
    default:
        return 1;
    }
}

/* Little-endian hosts only, like the tests' other raw looks into structs. */
static uint64_t get_number(const uint8_t *from, size_t width)
{
    uint64_t value = 0;
    memcpy(&value, from, width);
    return value;
}

static uint64_t pattern_number(uint64_t old, size_t index, unsigned pattern)
{
    switch (pattern / 2) {
    case 0:
        return old + 1 + index;
    case 1:
        return old - 1 - index;
    case 2:
        return old ^ 0x8181818181818181;
    default: /* any odd factor spreads the bits */
        return (index + 1) * (pattern + 1) * 0x9e3779b97f4a7c15;
    }
}

static void fill_field(const struct state_field *field, uint8_t *object, unsigned pattern)
{
    size_t size = element_size(field);
    size_t count = field->count;

    if (field->counted) { /* even patterns keep the count, odd ones fill the array */
        uint32_t n = (uint32_t)get_number(object + field->count_offset, 4);
        if (pattern % 2 || n > field->count)
            n = (uint32_t)field->count;
        memcpy(object + field->count_offset, &n, 4);
        count = n;
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t *element = object + field->offset + i * size;
        if (field->kind == STATE_TABLE) {
            for (size_t j = 0; j < field->table->field_count; j++)
                fill_field(&field->table->fields[j], element, pattern);
            continue;
        }
        uint64_t value = pattern_number(get_number(element, size), i, pattern);
        if (field->kind == STATE_BOOL)
            value &= 1;
        if ((field->min || field->max) && (value < field->min || value > field->max))
            value = field->min + value % (field->max - field->min + 1);
        memcpy(element, &value, size);
    }
}

/* Elements beyond their count do not travel, and load as zero. */
static void clear_tails(const struct state_table *table, uint8_t *object)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        uint8_t *array = object + field->offset;
        size_t size = element_size(field);
        size_t n = field->counted ? get_number(object + field->count_offset, 4) : field->count;
        memset(array + n * size, 0, (field->count - n) * size);
        for (size_t j = 0; j < n && field->kind == STATE_TABLE; j++)
            clear_tails(field->table, array + j * size);
    }
}

static void check_survives(struct trial *trial, const char *field)
{
    size_t size = trial->table->size;
    struct stream_buffer saved;
    struct err err = {0};

    if (state_check(trial->table, trial->candidate, NULL) < 0)
        return;
    clear_tails(trial->table, trial->candidate);
    save(trial->table, trial->candidate, &saved);
    memset(trial->target, 0, size);
    int r = load(trial->table, trial->target, saved.bytes, saved.length, &err);
    ck_assert_msg(r == 0, "field %s: a pattern does not load: %s", field, err.text);
    if (memcmp(trial->target, trial->candidate, size) != 0)
        ck_abort_msg("field %s: a pattern does not survive", field);
    stream_buffer_finish(&saved);
}

/* Varies the fields of the struct at byte `at` of the base, one at a time. */
static void check_patterns(struct trial *trial, const struct state_table *table, size_t at)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        for (unsigned pattern = 0; pattern < PATTERNS; pattern++) {
            memcpy(trial->candidate, trial->base, trial->table->size);
            fill_field(field, trial->candidate + at, pattern);
            check_survives(trial, field->name);
        }
        if (field->kind != STATE_TABLE)
            continue;
        size_t count = field->counted ? get_number(trial->base + at + field->count_offset, 4)
                                      : field->count;
        for (size_t j = 0; j < count; j++)
            if (j < 4 || j + 1 == count)
                check_patterns(trial, field->table, at + field->offset + j * field->table->size);
    }
}

/* Hostile bytes. */

/* Every byte costs a load of all bytes: all of 4 KiB, of more both ends and some 2000 between. */
static bool is_looked_at(size_t position, size_t length)
{
    if (length <= 4096 || position < 256 || position + 256 >= length)
        return true;
    return position % (length / 2048 | 1) == 0; /* odd: no byte of a word is always missed */
}

static void expect_refused(struct trial *trial, const uint8_t *bytes, size_t length,
                           const char *what, size_t position)
{
    size_t size = trial->table->size;

    memset(trial->candidate, 0xa5, size);
    memset(trial->target, 0xa5, size);
    if (load(trial->table, trial->target, bytes, length, NULL) == 0)
        ck_abort_msg("%s at byte %zu is not refused", what, position);
    if (memcmp(trial->target, trial->candidate, size) != 0)
        ck_abort_msg("%s at byte %zu is refused, but the object has changed", what, position);
}

static void check_cut_and_changed(struct trial *trial)
{
    size_t length = trial->saved.length;

    for (size_t i = 0; i < length; i++) {
        if (!is_looked_at(i, length))
            continue;
        /* A copy of its own, so that ASan sees a read past the cut. */
        uint8_t *cut = malloc(i + 1);
        memcpy(cut, trial->saved.bytes, i + 1);
        cut[i] ^= (uint8_t)(1u << i % 8);
        expect_refused(trial, cut, i + 1, "a cut", i);
        expect_refused(trial, cut, i, "a cut", i);
        free(cut);

        trial->saved.bytes[i] ^= 0xff;
        expect_refused(trial, trial->saved.bytes, length, "a changed byte", i);
        trial->saved.bytes[i] ^= 0xff;
    }
}

/* Bytes that no checksum protects: accepted only if they are what their own object saves to. */
static void expect_canonical(struct trial *trial, const uint8_t *bytes, size_t length, size_t at)
{
    struct stream_buffer again;

    memset(trial->target, 0, trial->table->size);
    if (load(trial->table, trial->target, bytes, length, NULL) < 0) {
        expect_refused(trial, bytes, length, "a forged byte", at);
        return;
    }
    save(trial->table, trial->target, &again);
    if (again.length != length || memcmp(again.bytes, bytes, length) != 0)
        ck_abort_msg("a forged byte at %zu loads into something else", at);
    stream_buffer_finish(&again);
}

static void check_forged(struct trial *trial)
{
    size_t length = trial->saved.length;
    uint8_t *bytes = trial->saved.bytes;
    size_t payload = 1 + strlen(trial->table->name) + 4 + 2 + 4;
    size_t crc_at = payload + get_number(bytes + payload - 4, 4);

    for (size_t i = payload - 4; i < crc_at; i++) {
        if (!is_looked_at(i, length))
            continue;
        uint8_t old = bytes[i];
        bytes[i] ^= (uint8_t)(i % 2 ? 0xff : 1u << i / 2 % 8);
        uint32_t crc = crc32c(0, bytes, crc_at);
        memcpy(bytes + crc_at, &crc, 4);
        expect_canonical(trial, bytes, length, i);
        bytes[i] = old;
    }
    uint32_t crc = crc32c(0, bytes, crc_at);
    memcpy(bytes + crc_at, &crc, 4);
}

void unit_check_table_in(const char *golden_dir, const struct state_table *table,
                         const void *sample)
{
    struct err err = {0};
    struct trial trial = {
        .table = table,
        .base = calloc(1, table->size),
        .candidate = calloc(1, table->size),
        .target = calloc(1, table->size),
    };

    ck_assert_msg(state_table_check(table, &err) == 0, "%s", err.text);
    ck_assert_msg(state_check(table, sample, &err) == 0, "the sample is not valid: %s", err.text);
    save(table, sample, &trial.saved);
    check_golden(golden_dir, table, &trial.saved);
    check_round_trip(&trial);
    check_patterns(&trial, table, 0);
    check_cut_and_changed(&trial);
    check_forged(&trial);

    stream_buffer_finish(&trial.saved);
    free(trial.base);
    free(trial.candidate);
    free(trial.target);
}
