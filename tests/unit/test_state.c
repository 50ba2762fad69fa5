/* SPDX-License-Identifier: MIT */
#include "core/state.h"
#include "tests/unit/sample_state.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

/* The offsets of fields in the saved payload of make_sample(). */
enum { AT_FIFO_COUNT = 0, AT_DIVISOR = 9, AT_PENDING = 10, AT_LEVEL_1 = 13, AT_QUEUE_0 = 21 };
enum { AT_QUEUE_0_SIZE = AT_QUEUE_0 + 8, AT_QUEUE_0_HEAD_COUNT = AT_QUEUE_0 + 12 };
enum { AT_QUEUE_1 = AT_QUEUE_0 + 18, AT_QUEUE_1_READY = AT_QUEUE_1 + 10 };

/* Sections made by hand. */

struct section {
    const char *name;
    uint32_t instance;
    uint16_t version;
    const void *payload;
    uint32_t length;
};

static void put_section(struct stream *stream, const struct section *section)
{
    stream_checksum_start(stream);
    stream_put_u8(stream, (uint8_t)strlen(section->name));
    stream_write(stream, section->name, strlen(section->name));
    stream_put_u32(stream, section->instance);
    stream_put_u16(stream, section->version);
    stream_put_u32(stream, section->length);
    stream_write(stream, section->payload, section->length);
    stream_put_u32(stream, stream->checksum);
}

/* The payload that saving the sample gives. */
static struct section sample_section(struct stream_buffer *buffer)
{
    struct sample sample = make_sample();
    struct state_item item = {.table = &sample_table, .object = &sample};
    size_t header = 1 + strlen("sample") + 4 + 2 + 4;
    size_t end = 1 + strlen("end") + 4 + 2 + 4 + 4;

    stream_buffer_init(buffer, 0);
    ck_assert_int_eq(state_save(&buffer->stream, &item, 1), 0);
    return (struct section){.name = "sample",
                            .version = 2,
                            .payload = buffer->bytes + header,
                            .length = (uint32_t)(buffer->length - header - 4 - end)};
}

/* Loads sections and an end into one sample; after an error the sample must be as before. */
static int load_by_hand(const struct section *sections, size_t count, struct sample *sample,
                        struct err *err)
{
    struct state_item item = {.table = &sample_table, .object = sample};
    const struct section end = {.name = "end", .version = 1};
    struct sample before = *sample;
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 0);
    for (size_t i = 0; i < count; i++)
        put_section(&buffer.stream, &sections[i]);
    put_section(&buffer.stream, &end);
    *err = (struct err){0};
    int r = state_load(&buffer.stream, &item, 1, err);
    ck_assert_int_eq(stream_error(&buffer.stream), r);
    if (r < 0)
        ck_assert_mem_eq(sample, &before, sizeof(before));
    else
        ck_assert_uint_eq(buffer.read_at, buffer.length);
    stream_buffer_finish(&buffer);
    return r;
}

static void expect_refusal(const struct section *sections, size_t count, int error,
                           const char *sentence)
{
    struct sample sample = {.divisor = 99};
    struct err err;

    ck_assert_int_eq(load_by_hand(sections, count, &sample, &err), error);
    ck_assert_str_eq(err.text, sentence);
    ck_assert_int_eq(err.kind, ERR_FAILED);
}

START_TEST(sample_keeps_the_promises_of_a_table)
{
    struct sample sample = make_sample();
    unit_check_table(&sample_table, &sample);
}
END_TEST

START_TEST(two_instances_and_two_tables_travel_together)
{
    struct sample out[2] = {make_sample(), make_sample()};
    struct sample_queue queue_out = {.ring = 5, .size = 2}, queue_in = {0};
    struct sample in[2] = {0};
    struct stream_buffer buffer;

    out[1].divisor = 200;
    struct state_item to_save[] = {
        {&sample_table, 0, &out[0]}, {&sample_table, 7, &out[1]}, {&queue_table, 7, &queue_out}};
    struct state_item to_load[] = {{&queue_table, 7, &queue_in}, /* in another order */
                                   {&sample_table, 7, &in[1]},
                                   {&sample_table, 0, &in[0]}};
    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, to_save, 3), 0);
    stream_put_u8(&buffer.stream, 0x5a); /* what follows a set is somebody else's */
    ck_assert_int_eq(state_load(&buffer.stream, to_load, 3, NULL), 0);
    ck_assert_mem_eq(in, out, sizeof(in));
    ck_assert_mem_eq(&queue_in, &queue_out, sizeof(queue_in));
    ck_assert_uint_eq(stream_get_u8(&buffer.stream), 0x5a);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(an_empty_set_is_a_set)
{
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, NULL, 0), 0);
    ck_assert_int_eq(state_load(&buffer.stream, NULL, 0, NULL), 0);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(one_bad_section_leaves_all_objects_alone)
{
    struct sample sample = make_sample(), in = {.divisor = 99};
    struct sample_queue queue = {.size = 2}, queue_in = {.size = 3};
    struct state_item to_save[] = {{&sample_table, 0, &sample}, {&queue_table, 0, &queue}};
    struct state_item to_load[] = {{&sample_table, 0, &in}, {&queue_table, 0, &queue_in}};
    struct stream_buffer buffer;
    struct err err;

    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, to_save, 2), 0);
    buffer.bytes[buffer.length - 1] ^= 1; /* the very last byte: the checksum of the end */
    ck_assert_int_eq(state_load(&buffer.stream, to_load, 2, &err), -EBADMSG);
    ck_assert_str_eq(err.text, "end 0: the checksum does not match");
    ck_assert_uint_eq(in.divisor, 99);
    ck_assert_uint_eq(in.fifo_count, 0);
    ck_assert_uint_eq(queue_in.size, 3);
    stream_buffer_finish(&buffer);
}
END_TEST

/* Rule 1 */
START_TEST(each_item_occurs_exactly_once)
{
    struct stream_buffer buffer;
    struct section sample = sample_section(&buffer), other = sample, unknown = sample;

    other.instance = 1;
    unknown.name = "simple";
    struct section twice[] = {sample, sample};
    struct section more[] = {sample, other};
    struct section strange[] = {unknown, sample};

    expect_refusal(NULL, 0, -EBADMSG, "sample 0 is missing");
    expect_refusal(twice, 2, -EBADMSG, "sample 0 occurs twice");
    expect_refusal(more, 2, -EBADMSG, "sample 1 is not part of this machine");
    expect_refusal(strange, 2, -EBADMSG, "simple 0 is not part of this machine");
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(names_are_short_and_printable)
{
    struct section empty = {.name = ""};
    struct section long_ = {.name = "123456789012345678901234567890123"};
    struct section escape = {.name = "\033[2J"};

    expect_refusal(&empty, 1, -EBADMSG, "a section's name has 0 bytes, not 1 to 32");
    expect_refusal(&long_, 1, -EBADMSG, "a section's name has 33 bytes, not 1 to 32");
    expect_refusal(&escape, 1, -EBADMSG, "a section's name is not printable");
}
END_TEST

START_TEST(the_end_is_empty)
{
    struct section end = {.name = "end", .version = 1, .payload = "x", .length = 1};

    expect_refusal(&end, 1, -EBADMSG, "end 0: 1 bytes long, at most 0");
    end.length = 0;
    end.instance = 3;
    expect_refusal(&end, 1, -EBADMSG, "end 3 is not part of this machine");
    end.instance = 0;
    end.version = 2;
    expect_refusal(&end, 1, -ENOTSUP, "end 0: version 2, but 1 to 1 can be loaded");
}
END_TEST

/* Rule 2 */
START_TEST(other_versions_are_refused_with_a_reason)
{
    struct stream_buffer buffer;
    struct section section = sample_section(&buffer);
    struct sample sample = {0};
    struct err err;

    section.version = 0;
    expect_refusal(&section, 1, -ENOTSUP, "sample 0: version 0, but 1 to 2 can be loaded");
    section.version = 3;
    expect_refusal(&section, 1, -ENOTSUP, "sample 0: version 3, but 1 to 2 can be loaded");
    ck_assert_int_eq(load_by_hand(&section, 1, &sample, &err), -ENOTSUP);
    ck_assert_str_eq(err.hint, "it was saved by a newer minivmm: load it with that one");
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(a_version_below_the_oldest_is_refused)
{
    struct state_table table = sample_table;
    struct sample sample = make_sample(), in = {0};
    struct state_item item = {.table = &sample_table, .object = &sample};
    struct stream_buffer buffer;
    struct err err;

    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, &item, 1), 0);
    table.oldest = table.version = 3;
    item = (struct state_item){.table = &table, .object = &in};
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, &err), -ENOTSUP);
    ck_assert_str_eq(err.text, "sample 0: version 2, but 3 to 3 can be loaded");
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(fields_that_came_later_get_their_fallback)
{
    struct stream_buffer buffer;
    struct section section = sample_section(&buffer);
    struct sample sample = {0}, expected = make_sample();
    struct err err;

    section.version = 1;
    section.length -= 8;
    ck_assert_msg(load_by_hand(&section, 1, &sample, &err) == 0, "%s", err.text);
    expected.deadline_ns = 77;
    ck_assert_mem_eq(&sample, &expected, sizeof(sample));

    section.length += 8; /* version 1 with the payload of version 2 */
    expect_refusal(&section, 1, -EBADMSG, "sample 0: 8 bytes too long");
    stream_buffer_finish(&buffer);
}
END_TEST

/* A nested array that came with version 2, counted by a number that came with it. */

struct late {
    uint8_t first;
    uint8_t reserved[3];
    uint32_t count;
    struct late_part {
        uint16_t id, weight;
    } parts[4];
    uint8_t tail[4];
};

static const struct state_field part_fields[] = {
    STATE_FIELD_U16(struct late_part, id),
    STATE_FIELD_U16(struct late_part, weight, .min = 1, .max = 9, .fallback = 5),
};
static const struct state_table part_table = {
    .name = "late_part", .version = 1, STATE_TABLE_OF(struct late_part, part_fields)};
static const struct state_field late_fields[] = {
    STATE_FIELD_U8(struct late, first),
    STATE_FIELD_BYTES(struct late, reserved),
    STATE_FIELD_U32(struct late, count, .since = 2, .fallback = 3),
    STATE_FIELD_TABLE(struct late, parts, struct late_part, &part_table, .since = 2,
                      .counted = true, .count_offset = offsetof(struct late, count)),
    STATE_FIELD_BYTES(struct late, tail, .since = 2),
};
static const struct state_table late_table = {
    .name = "late", .version = 2, STATE_TABLE_OF(struct late, late_fields)};

START_TEST(fallbacks_reach_into_nested_tables)
{
    const struct section section = {"late", 0, 1, "\x42\0\0\0", 4};
    const struct section end = {.name = "end", .version = 1};
    struct late late = {.tail = "abc"};
    struct state_item item = {.table = &late_table, .object = &late};
    const struct late expected = {
        .first = 0x42, .count = 3, .parts = {{.weight = 5}, {.weight = 5}, {.weight = 5}}};
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 0);
    put_section(&buffer.stream, &section);
    put_section(&buffer.stream, &end);
    ck_assert_int_eq(state_table_check(&late_table, NULL), 0);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, NULL), 0);
    ck_assert_mem_eq(&late, &expected, sizeof(late));
    stream_buffer_finish(&buffer);
}
END_TEST

/* Rule 3 */
START_TEST(the_payload_has_exactly_the_length_of_its_fields)
{
    struct stream_buffer buffer;
    struct section section = sample_section(&buffer);

    section.length--;
    expect_refusal(&section, 1, -EBADMSG, "sample 0: ends in field deadline_ns");
    section.length = AT_QUEUE_1_READY;
    expect_refusal(&section, 1, -EBADMSG, "sample 0: ends in field queues[1].ready");
    section.length = 0;
    expect_refusal(&section, 1, -EBADMSG, "sample 0: ends in field fifo_count");
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(a_length_beyond_the_table_costs_no_memory)
{
    struct sample sample = {0};
    struct state_item item = {.table = &sample_table, .object = &sample};
    struct stream_buffer buffer;
    struct err err;

    stream_buffer_init(&buffer, 0);
    stream_put_u8(&buffer.stream, 6);
    stream_write(&buffer.stream, "sample", 6);
    stream_put_u32(&buffer.stream, 0);
    stream_put_u16(&buffer.stream, 2);
    stream_put_u32(&buffer.stream, UINT32_MAX);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, &err), -EBADMSG);
    ck_assert_str_eq(err.text, "sample 0: 4294967295 bytes long, at most 88");
    stream_buffer_finish(&buffer);
}
END_TEST

/* Rules 4 and 5: one byte of the payload forged, the checksum made for it. */

static const struct {
    size_t at;
    uint8_t byte;
    int error;
    const char *sentence;
} forgeries[] = {
    {AT_FIFO_COUNT, 17, -EBADMSG, "sample 0: field fifo_count is 17, at most 16"},
    {AT_DIVISOR, 0, -EBADMSG, "sample 0: field divisor is 0, at least 1"},
    {AT_DIVISOR, 201, -EBADMSG, "sample 0: field divisor is 201, at most 200"},
    {AT_PENDING, 2, -EBADMSG, "sample 0: field pending is 2, at most 1"},
    {AT_LEVEL_1 + 1, 4, -EBADMSG, "sample 0: field levels[1] is 1044, at most 1000"},
    {AT_QUEUE_0 - 4, 3, -EBADMSG, "sample 0: field queue_count is 3, at most 2"},
    {AT_QUEUE_0_SIZE, 1, -EBADMSG, "sample 0: field queues[0].size is 257, at most 256"},
    {AT_QUEUE_0_SIZE + 1, 0, -EINVAL, "sample 0: field queues[0]: ready, but of size 0"},
    {AT_QUEUE_0_HEAD_COUNT, 5, -EBADMSG, "sample 0: field queues[0].head_count is 5, at most 4"},
    {AT_QUEUE_0_HEAD_COUNT + 3, 255, -EBADMSG,
     "sample 0: field queues[0].head_count is 4278190081, at most 4"},
    {AT_QUEUE_1_READY, 255, -EBADMSG, "sample 0: field queues[1].ready is 255, at most 1"},
};

START_TEST(values_out_of_bounds_are_refused_by_name)
{
    struct stream_buffer buffer;
    struct section section = sample_section(&buffer);
    uint8_t forged[256];

    memcpy(forged, section.payload, section.length);
    forged[forgeries[_i].at] = forgeries[_i].byte;
    section.payload = forged;
    expect_refusal(&section, 1, forgeries[_i].error, forgeries[_i].sentence);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(elements_beyond_the_count_load_as_zero)
{
    struct stream_buffer buffer;
    struct section section = sample_section(&buffer);
    struct sample sample;
    struct err err;

    memset(&sample, 0, sizeof(sample));
    memset(sample.fifo, 0xee, sizeof(sample.fifo));
    ck_assert_int_eq(load_by_hand(&section, 1, &sample, &err), 0);
    ck_assert_mem_eq(sample.fifo, "hello\0\0\0\0\0\0\0\0\0\0\0", 16);
    stream_buffer_finish(&buffer);
}
END_TEST

/* Rule 6 is in unit_check_table: every byte changed. */

START_TEST(what_the_stream_says_is_what_save_and_load_say)
{
    struct sample sample = make_sample();
    struct state_item item = {.table = &sample_table, .object = &sample};
    struct stream_buffer buffer;
    struct err err;

    stream_buffer_init(&buffer, 50);
    ck_assert_int_eq(state_save(&buffer.stream, &item, 1), -ENOSPC);
    stream_buffer_finish(&buffer);

    stream_buffer_init_read(&buffer, "\6samp", 5);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, &err), -ENODATA);
    ck_assert_str_eq(err.text, "the state ends too early");
    stream_fail(&buffer.stream, -EIO);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, &err), -ENODATA);
    stream_buffer_finish(&buffer);

    stream_buffer_init_read(&buffer, "", 0);
    stream_fail(&buffer.stream, -ETIMEDOUT);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, &err), -ETIMEDOUT);
    ck_assert_str_eq(err.text, "cannot read the state: Connection timed out");
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(check_says_what_is_wrong_with_an_object)
{
    struct sample sample = make_sample();
    struct err err;

    ck_assert_int_eq(state_check(&sample_table, &sample, &err), 0);
    sample.queues[1].size = 999;
    ck_assert_int_eq(state_check(&sample_table, &sample, &err), -EBADMSG);
    ck_assert_str_eq(err.text, "field queues[1].size is 999, at most 256");
    sample.queue_count = 1; /* then nobody looks there */
    ck_assert_int_eq(state_check(&sample_table, &sample, &err), 0);
}
END_TEST

START_TEST(saving_a_broken_object_is_our_own_bug)
{
    struct sample sample = make_sample();
    struct state_item item = {.table = &sample_table, .object = &sample};
    struct stream_buffer buffer;

    sample.divisor = 0;
    stream_buffer_init(&buffer, 0);
    int r = state_save(&buffer.stream, &item, 1);
    ck_abort_msg("saved, with %d", r);
}
END_TEST

/* Unsound tables. */

struct small {
    uint8_t a, b;
    uint16_t c;
    uint32_t n;
    uint32_t list[2];
};

static const struct state_field small_fields[] = {
    STATE_FIELD_U8(struct small, a),
    STATE_FIELD_U8(struct small, b),
    STATE_FIELD_U16(struct small, c),
    STATE_FIELD_U32(struct small, n),
    STATE_FIELD_U32(struct small, list, .counted = true, .count_offset = offsetof(struct small, n)),
};

static void expect_unsound(const struct state_field *fields, size_t count, const char *sentence)
{
    struct state_table table = {.name = "small",
                                .version = 2,
                                .oldest = 1,
                                .size = sizeof(struct small),
                                .fields = fields,
                                .field_count = count};
    struct err err = {0};

    ck_assert_int_eq(state_table_check(&table, &err), -EINVAL);
    ck_assert_str_eq(err.text, sentence);
}

/* The small table with one field replaced. */
static void expect_unsound_with(size_t index, struct state_field field, const char *sentence)
{
    struct state_field fields[5];

    memcpy(fields, small_fields, sizeof(fields));
    fields[index] = field;
    expect_unsound(fields, 5, sentence);
}

START_TEST(a_forgotten_field_is_found)
{
    struct state_field fields[5];

    memcpy(fields, small_fields, sizeof(fields));
    expect_unsound(fields, 4, "table small: fields end at byte 8 of 16");
    expect_unsound(fields, 0, "table small: fields end at byte 0 of 16");
    expect_unsound(fields + 1, 4, "table small: field b leaves bytes before it out");
    memmove(fields + 1, fields + 2, 3 * sizeof(fields[0]));
    expect_unsound(fields, 4, "table small: field c leaves bytes before it out");
}
END_TEST

START_TEST(fields_out_of_order_are_found)
{
    struct state_field fields[5];

    memcpy(fields, small_fields, sizeof(fields));
    fields[1] = small_fields[0];
    expect_unsound(fields, 5,
                   "table small: field a overlaps the one before it, or is out of order");
}
END_TEST

START_TEST(impossible_bounds_are_found)
{
    const char *none = "table small: field a has bounds that no value can keep";

    expect_unsound_with(0, (struct state_field)STATE_FIELD_U8(struct small, a, .max = 256), none);
    expect_unsound_with(0, (struct state_field)STATE_FIELD_U8(struct small, a, .min = 1), none);
    expect_unsound_with(0, (struct state_field)STATE_FIELD_U8(struct small, a, .min = 9, .max = 8),
                        none);
    expect_unsound_with(0, (struct state_field)STATE_FIELD_BOOL(struct small, a, .max = 1),
                        "table small: field a is a bool and needs no bounds");
    expect_unsound_with(0, (struct state_field)STATE_FIELD_BYTES(struct small, a, .max = 1),
                        "table small: field a is no number, but has a number's bounds or fallback");
}
END_TEST

START_TEST(versions_that_make_no_sense_are_found)
{
    struct state_table table = sample_table;

    expect_unsound_with(0, (struct state_field)STATE_FIELD_U8(struct small, a, .since = 3),
                        "table small: field a comes from a later version");
    expect_unsound_with(0,
                        (struct state_field)STATE_FIELD_U8(struct small, a, .since = 2, .min = 3,
                                                           .max = 5, .fallback = 2),
                        "table small: field a has a fallback outside of its bounds");
    table.oldest = 3;
    ck_assert_int_eq(state_table_check(&table, NULL), -EINVAL);
    table.oldest = 0;
    table.version = 0;
    ck_assert_int_eq(state_table_check(&table, NULL), -EINVAL);
}
END_TEST

START_TEST(a_count_comes_before_what_it_counts)
{
    const char *sentence = "table small: field list is not counted by an earlier u32";

    expect_unsound_with(
        4,
        (struct state_field)STATE_FIELD_U32(struct small, list, .counted = true, .count_offset = 8),
        sentence);
    expect_unsound_with(
        4,
        (struct state_field)STATE_FIELD_U32(struct small, list, .counted = true, .count_offset = 2),
        sentence);
    expect_unsound_with(3, (struct state_field)STATE_FIELD_U32(struct small, n, .since = 2),
                        "table small: field list is older than its count");
}
END_TEST

START_TEST(faults_of_nested_tables_are_found)
{
    struct state_table inner = part_table;
    struct state_field fields[5];
    struct state_table table = late_table;
    struct err err;

    memcpy(fields, late_fields, sizeof(fields));
    fields[3].table = &inner;
    table.fields = fields;
    ck_assert_int_eq(state_table_check(&table, &err), 0);
    inner.field_count = 1;
    ck_assert_int_eq(state_table_check(&table, &err), -EINVAL);
    ck_assert_str_eq(err.text, "table late_part: fields end at byte 2 of 4");
}
END_TEST

START_TEST(a_name_that_cannot_travel_is_found)
{
    struct state_table table = sample_table;

    table.name = "end"; /* would be taken for the end of the set */
    ck_assert_int_eq(state_table_check(&table, NULL), -EINVAL);
    table.name = "";
    ck_assert_int_eq(state_table_check(&table, NULL), -EINVAL);
    table.name = "123456789012345678901234567890123";
    ck_assert_int_eq(state_table_check(&table, NULL), -EINVAL);
}
END_TEST

static void add_table_tests(TCase *tables)
{
    tcase_add_test(tables, a_forgotten_field_is_found);
    tcase_add_test(tables, fields_out_of_order_are_found);
    tcase_add_test(tables, impossible_bounds_are_found);
    tcase_add_test(tables, versions_that_make_no_sense_are_found);
    tcase_add_test(tables, a_count_comes_before_what_it_counts);
    tcase_add_test(tables, faults_of_nested_tables_are_found);
    tcase_add_test(tables, a_name_that_cannot_travel_is_found);
}

static void add_load_tests(TCase *loads)
{
    tcase_add_test(loads, each_item_occurs_exactly_once);
    tcase_add_test(loads, names_are_short_and_printable);
    tcase_add_test(loads, the_end_is_empty);
    tcase_add_test(loads, other_versions_are_refused_with_a_reason);
    tcase_add_test(loads, a_version_below_the_oldest_is_refused);
    tcase_add_test(loads, fields_that_came_later_get_their_fallback);
    tcase_add_test(loads, fallbacks_reach_into_nested_tables);
    tcase_add_test(loads, the_payload_has_exactly_the_length_of_its_fields);
    tcase_add_test(loads, a_length_beyond_the_table_costs_no_memory);
    tcase_add_loop_test(loads, values_out_of_bounds_are_refused_by_name, 0, array_size(forgeries));
    tcase_add_test(loads, elements_beyond_the_count_load_as_zero);
    tcase_add_test(loads, what_the_stream_says_is_what_save_and_load_say);
}

int main(void)
{
    Suite *suite = suite_create("state");
    TCase *sets = tcase_create("sets");
    TCase *loads = tcase_create("hostile");
    TCase *tables = tcase_create("tables");

    tcase_add_test(sets, sample_keeps_the_promises_of_a_table);
    tcase_add_test(sets, two_instances_and_two_tables_travel_together);
    tcase_add_test(sets, an_empty_set_is_a_set);
    tcase_add_test(sets, one_bad_section_leaves_all_objects_alone);
    tcase_add_test(sets, check_says_what_is_wrong_with_an_object);
    tcase_add_test_raise_signal(sets, saving_a_broken_object_is_our_own_bug, SIGABRT);
    suite_add_tcase(suite, sets);
    add_load_tests(loads);
    suite_add_tcase(suite, loads);
    add_table_tests(tables);
    suite_add_tcase(suite, tables);
    return unit_main(suite);
}
