/* SPDX-License-Identifier: MIT */
#include "ft/frames.h"
#include "tests/unit/golden_rig.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"

enum { HEAD = 32 /* bytes, with its CRC */ };

enum { KIB = 1 << 10, MIB = 1 << 20, NEWEST = FRAME_SETTINGS };

/* The payload's limits, as the format has them. */
static const struct {
    const char *name;
    uint8_t kind;
    uint32_t most;
} kinds[] = {
    {"HELLO", FRAME_HELLO, 256 * KIB},
    {"SUMS", FRAME_SUMS, 16 * MIB},
    {"STATE", FRAME_STATE, 128 * MIB},
    {"COMMIT", FRAME_COMMIT, 8},
    {"FILE", FRAME_FILE, 64 * MIB + KIB},
    {"DISK", FRAME_DISK, KIB},
    {"OPEN", FRAME_OPEN, 0},
    {"PAGES", FRAME_PAGES, 12 + 256 * (4096 + 3)},
    {"BLOCKS", FRAME_BLOCKS, MIB + 17},
    {"ROUND", FRAME_ROUND, 0},
    {"ACK", FRAME_ACK, 20},
    {"ERROR", FRAME_ERROR, KIB},
    {"GO", FRAME_GO, 16},
    {"ASK", FRAME_ASK, 32},
    {"COMPARE", FRAME_COMPARE, 16 * MIB + 4},
    {"SHARED", FRAME_SHARED, 2 * KIB},
    {"RELEASED", FRAME_RELEASED, 0},
    {"FOLLOW", FRAME_FOLLOW, KIB},
    {"WORD", FRAME_WORD, 20},
    {"CHANGES", FRAME_CHANGES, 4 + 65535 * 8},
    {"BASE", FRAME_BASE, 512 * KIB},
    {"LOOK", FRAME_LOOK, 32},
    {"LOOKED", FRAME_LOOKED, 16 + 4 * KIB},
    {"SYNCED", FRAME_SYNCED, 8},
    {"SETTINGS", FRAME_SETTINGS, KIB},
};

static void put_frame(struct stream_buffer *buffer, uint8_t kind, uint64_t epoch,
                      const void *payload, size_t length, struct frame_tally *tally)
{
    const struct frame frame = {
        .kind = kind, .length = (uint32_t)length, .generation = 7, .epoch = epoch};
    frame_write(&buffer->stream, &frame, payload, tally);
    ck_assert_int_eq(stream_error(&buffer->stream), 0);
}

/* A frame whose head says what it likes, signed. */
struct head {
    uint32_t magic;
    uint8_t kind, flags;
    uint16_t reserved;
    uint32_t length;
};

static void put_head(struct stream_buffer *buffer, const struct head *head)
{
    stream_checksum_start(&buffer->stream);
    stream_put_u32(&buffer->stream, head->magic);
    stream_put_u8(&buffer->stream, head->kind);
    stream_put_u8(&buffer->stream, head->flags);
    stream_put_u16(&buffer->stream, head->reserved);
    stream_put_u32(&buffer->stream, head->length);
    stream_put_u64(&buffer->stream, 7);
    stream_put_u64(&buffer->stream, 1);
    stream_put_u32(&buffer->stream, buffer->stream.checksum);
}

static void put_payload(struct stream_buffer *buffer, const void *payload, size_t length)
{
    stream_write(&buffer->stream, payload, length);
    stream_put_u32(&buffer->stream, crc32c(0, payload, length));
}

static const struct head good_head = {.magic = 0x3146564d, .kind = FRAME_STATE, .length = 5};

/* An epoch of three frames and its end. */
static void make_epoch(struct stream_buffer *ret_buffer)
{
    struct frame_tally tally = {0};
    stream_buffer_init(ret_buffer, 0);
    put_frame(ret_buffer, FRAME_HELLO, 3, "who we are", 10, &tally);
    put_frame(ret_buffer, FRAME_SUMS, 3, "12345678", 8, &tally);
    put_frame(ret_buffer, FRAME_STATE, 3, "what it was", 11, &tally);
    frame_write_commit(&ret_buffer->stream, 7, 3, &tally);
}

/* Up to a COMMIT, or the first error. Whatever is refused leaves the result as it was. */
static int read_epoch(const uint8_t *bytes, size_t length, struct err *err)
{
    struct stream_buffer from, payload;
    struct frame_tally tally = {0};
    struct frame frame;
    int ret;
    stream_buffer_init_read(&from, bytes, length);
    stream_buffer_init(&payload, 0);
    do {
        const struct frame untouched = {
            .kind = 99, .length = 98, .generation = UINT64_MAX, .epoch = 97};
        memcpy(&frame, &untouched, sizeof(frame));
        ret = frame_read(&from.stream, &frame, &payload, &tally, err);
        if (ret < 0)
            ck_assert_mem_eq(&frame, &untouched, sizeof(frame));
    } while (ret == 0 && frame.kind != FRAME_COMMIT);
    if (ret == 0)
        ck_assert_uint_eq(from.read_at, length);
    stream_buffer_finish(&payload);
    stream_buffer_finish(&from);
    return ret;
}

static void refuse(const uint8_t *bytes, size_t length, int error, const char *words)
{
    struct err err = {0};
    int ret = read_epoch(bytes, length, &err);
    ck_assert_msg(ret < 0, "%zu bytes were read, though %s", length, words ? words : "damaged");
    ck_assert_msg(!error || ret == -error, "%d: %s", ret, err.text);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert(err.text[0]);
    if (words)
        ck_assert_msg(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
    ck_assert_int_lt(read_epoch(bytes, length, NULL), 0);
}

/* --- what is right ---------------------------------------------------------------------------- */

START_TEST(what_is_written_is_read)
{
    static const size_t lengths[] = {0, 1, 3, 4095, 4096, 4097, 3 * 4096, 200000};
    uint64_t seed = 31;
    uint8_t *bytes = malloc(200000 + array_size(lengths));
    struct stream_buffer buffer, payload;
    struct frame_tally written = {0}, read = {0};
    struct frame frame;
    struct err err = {0};

    for (size_t i = 0; i < 200000 + array_size(lengths); i++)
        bytes[i] = (uint8_t)chance(&seed);
    stream_buffer_init(&buffer, 0);
    for (size_t i = 0; i < array_size(lengths); i++)
        put_frame(&buffer, kinds[i % 3].kind, UINT64_MAX - i, bytes + i, lengths[i] - (i && i < 4),
                  &written);
    frame_write_commit(&buffer.stream, UINT64_MAX, UINT64_MAX, &written);

    stream_buffer_init(&payload, 0);
    stream_buffer_rewind(&buffer);
    for (size_t i = 0; i < array_size(lengths); i++) {
        size_t length = lengths[i] - (i && i < 4);
        int ret = frame_read(&buffer.stream, &frame, &payload, &read, &err);
        ck_assert_msg(ret == 0, "%s", err.text);
        ck_assert_uint_eq(frame.kind, kinds[i % 3].kind);
        ck_assert_uint_eq(frame.generation, 7);
        ck_assert_uint_eq(frame.epoch, UINT64_MAX - i);
        ck_assert_uint_eq(frame.length, length);
        ck_assert_uint_eq(payload.length, length);
        ck_assert_uint_eq(payload.read_at, 0);
        if (length)
            ck_assert_mem_eq(payload.bytes, bytes + i, length);
    }
    ck_assert_int_eq(frame_read(&buffer.stream, &frame, &payload, &read, &err), 0);
    ck_assert_uint_eq(frame.kind, FRAME_COMMIT);
    ck_assert_uint_eq(frame.generation, UINT64_MAX);
    ck_assert_uint_eq(stream_get_u32(&payload.stream), array_size(lengths));
    ck_assert_uint_eq(stream_get_u32(&payload.stream), written.crc);
    ck_assert_uint_eq(buffer.read_at, buffer.length);
    ck_assert_int_eq(frame_read(&buffer.stream, &frame, &payload, &read, &err), -ENODATA);
    stream_buffer_finish(&payload);
    stream_buffer_finish(&buffer);
    free(bytes);
}
END_TEST

/* As on a connection that stays: one buffer, and a large frame before a small one. */
START_TEST(a_payload_has_nothing_of_the_one_before)
{
    static const size_t lengths[] = {3 * MIB + 5, 7, 0, MIB, 1, 2 * MIB};
    uint8_t *bytes = malloc(4 * MIB);
    struct stream_buffer buffer, payload;
    struct frame frame;

    memset(bytes, 0x5a, 4 * MIB);
    stream_buffer_init(&buffer, 0);
    stream_buffer_init(&payload, 0);
    for (size_t i = 0; i < array_size(lengths); i++) {
        bytes[0] = (uint8_t)i;
        put_frame(&buffer, FRAME_SUMS, 1, bytes, lengths[i], NULL);
    }
    for (size_t i = 0; i < array_size(lengths); i++) {
        ck_assert_int_eq(frame_read(&buffer.stream, &frame, &payload, NULL, NULL), 0);
        ck_assert_uint_eq(payload.length, lengths[i]);
        bytes[0] = (uint8_t)i;
        ck_assert(lengths[i] == 0 || memcmp(payload.bytes, bytes, lengths[i]) == 0);
        for (size_t j = 0; j < lengths[i] && j < 100; j++) /* half read by whoever has it */
            ck_assert_uint_eq(stream_get_u8(&payload.stream), bytes[j]);
        stream_get_u64(&payload.stream);
    }
    stream_buffer_finish(&payload);
    stream_buffer_finish(&buffer);
    free(bytes);
}
END_TEST

START_TEST(without_a_tally_frames_are_read_too)
{
    struct stream_buffer epoch, payload;
    struct frame frame = {0};

    make_epoch(&epoch);
    stream_buffer_init(&payload, 0);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(frame_read(&epoch.stream, &frame, &payload, NULL, NULL), 0);
    ck_assert_uint_eq(frame.kind, FRAME_COMMIT);
    stream_buffer_finish(&payload);
    stream_buffer_finish(&epoch);
}
END_TEST

/* Files and connections outlive the program that wrote the bytes. */
START_TEST(each_kind_has_its_golden_bytes)
{
    const struct frame_tally tally = {.count = 3, .crc = 0xdeadbeef};
    struct stream_buffer buffer, payload;
    struct frame frame;
    char name[32] = "frame-";
    size_t length = kinds[_i].most < 7 ? kinds[_i].most : 7;

    for (const char *c = kinds[_i].name; *c; c++)
        name[strlen(name)] = (char)(*c | 0x20);
    ck_assert_str_eq(frame_name(kinds[_i].kind), kinds[_i].name);
    stream_buffer_init(&buffer, 0);
    stream_buffer_init(&payload, 0);
    if (kinds[_i].kind == FRAME_COMMIT)
        frame_write_commit(&buffer.stream, 7, 0x1122334455667788, &tally);
    else
        put_frame(&buffer, kinds[_i].kind, 0x1122334455667788, "payload", length, NULL);
    golden_check(name, buffer.bytes, buffer.length);
    ck_assert_int_eq(frame_read(&buffer.stream, &frame, &payload, NULL, NULL), 0);
    ck_assert_uint_eq(frame.kind, kinds[_i].kind);
    ck_assert_uint_eq(frame.epoch, 0x1122334455667788);
    ck_assert_uint_eq(payload.length, kinds[_i].kind == FRAME_COMMIT ? 8 : length);
    ck_assert_uint_eq(buffer.read_at, buffer.length);
    stream_buffer_finish(&buffer);
    stream_buffer_finish(&payload);
}
END_TEST

START_TEST(what_is_too_long_is_not_written)
{
    struct frame frame = {.kind = FRAME_COMMIT, .length = 9};
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 0);
    frame_write(&buffer.stream, &frame, "123456789", NULL);
    ck_assert_int_eq(stream_error(&buffer.stream), -EMSGSIZE);
    ck_assert_uint_eq(buffer.length, 0);
    stream_buffer_finish(&buffer);

    stream_buffer_init(&buffer, 0);
    frame.kind = NEWEST + 1;
    frame_write(&buffer.stream, &frame, "123456789", NULL);
    ck_assert_int_eq(stream_error(&buffer.stream), -EMSGSIZE);
    ck_assert_uint_eq(buffer.length, 0);
    stream_buffer_finish(&buffer);
}
END_TEST

/* --- what is not ------------------------------------------------------------------------------ */

START_TEST(an_epoch_that_is_cut_anywhere_is_refused)
{
    struct stream_buffer epoch;

    make_epoch(&epoch);
    ck_assert_int_eq(read_epoch(epoch.bytes, epoch.length, NULL), 0);
    for (size_t length = 0; length < epoch.length; length++) {
        uint8_t *exact = malloc(length + !length); /* so that a sanitizer sees a read past it */
        memcpy(exact, epoch.bytes, length);
        refuse(exact, length, ENODATA, "it ends in the middle");
        free(exact);
    }
    stream_buffer_finish(&epoch);
}
END_TEST

START_TEST(every_single_bit_counts)
{
    struct stream_buffer epoch;

    make_epoch(&epoch);
    for (size_t bit = 0; bit < 8 * epoch.length; bit++) {
        epoch.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refuse(epoch.bytes, epoch.length, 0, NULL);
        epoch.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(read_epoch(epoch.bytes, epoch.length, NULL), 0);
    stream_buffer_finish(&epoch);
}
END_TEST

START_TEST(what_is_newer_says_so)
{
    struct head heads[] = {good_head, good_head, good_head, good_head, good_head, good_head};
    heads[0].magic = 0x3246564d; /* "MVF2" */
    heads[1].kind = 0;
    heads[2].kind = NEWEST + 1;
    heads[3].kind = 255;
    heads[4].flags = 1;
    heads[5].reserved = 1 << 15;
    for (size_t i = 0; i < array_size(heads); i++) {
        struct stream_buffer buffer;
        stream_buffer_init(&buffer, 0);
        put_head(&buffer, &heads[i]);
        put_payload(&buffer, "12345", 5);
        refuse(buffer.bytes, buffer.length, ENOTSUP, "it is of a newer minivmm");
        stream_buffer_finish(&buffer);
    }
}
END_TEST

START_TEST(what_is_no_frame_says_so)
{
    struct stream_buffer buffer;
    struct head head = good_head;
    head.magic = 0x7b0a2022; /* some JSON */
    stream_buffer_init(&buffer, 0);
    put_head(&buffer, &head);
    refuse(buffer.bytes, buffer.length, EBADMSG, "there is no frame where one should begin");
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(a_frame_that_is_too_long_is_refused_by_its_head)
{
    static const uint32_t more[] = {1, 4096, 1u << 31};
    for (size_t i = 0; i < array_size(kinds); i++) {
        for (size_t j = 0; j < array_size(more); j++) {
            struct head head = good_head;
            struct stream_buffer buffer;
            head.kind = kinds[i].kind;
            head.length = kinds[i].most + more[j];
            stream_buffer_init(&buffer, 0);
            put_head(&buffer, &head);
            refuse(buffer.bytes, buffer.length, EBADMSG, "which is too long");
            stream_buffer_finish(&buffer);
        }
    }
}
END_TEST

/* A head is cheap to write: what it says costs nothing until the bytes are there. */
START_TEST(memory_grows_only_with_bytes_that_are_there)
{
    for (size_t i = 0; i < array_size(kinds); i++) {
        struct head head = good_head;
        struct stream_buffer from, payload;
        if (kinds[i].most <= 2 * MIB)
            continue;
        struct frame frame;
        head.kind = kinds[i].kind;
        head.length = kinds[i].most;
        stream_buffer_init(&from, 0);
        put_head(&from, &head);
        put_payload(&from, "12345", 5);
        stream_buffer_init(&payload, 0);
        ck_assert_int_eq(frame_read(&from.stream, &frame, &payload, NULL, NULL), -ENODATA);
        ck_assert_uint_le(payload.capacity, 2 * MIB);
        stream_buffer_finish(&payload);
        stream_buffer_finish(&from);
    }
}
END_TEST

START_TEST(a_damaged_payload_is_named_by_its_frame)
{
    struct stream_buffer epoch;

    make_epoch(&epoch);
    epoch.bytes[HEAD] ^= 1;
    refuse(epoch.bytes, epoch.length, EBADMSG, "a frame HELLO is damaged");
    stream_buffer_finish(&epoch);
}
END_TEST

/* --- epochs ----------------------------------------------------------------------------------- */

enum { WRONG_EPOCHS = 8 };

/* What the COMMIT says is true of its own frames, but those came otherwise. */
static void make_wrong_epoch(unsigned way, struct stream_buffer *ret_buffer)
{
    static const char *const payloads[] = {"first", "second", "third"};
    static const uint8_t orders[][4] = {{1, 2}, {0, 2},       {0, 1},    {0, 2, 1},
                                        {0},    {0, 1, 2, 2}, {0, 1, 1}, {2, 1, 0}};
    static const unsigned counts[WRONG_EPOCHS] = {2, 2, 2, 3, 0, 4, 3, 3};
    struct stream_buffer unused;
    struct frame_tally tally = {0};
    stream_buffer_init(ret_buffer, 0);
    stream_buffer_init(&unused, 0);
    for (unsigned i = 0; i < 3; i++)
        put_frame(&unused, FRAME_STATE, 1, payloads[i], strlen(payloads[i]), &tally);
    for (unsigned i = 0; i < counts[way]; i++) {
        const char *payload = payloads[orders[way][i]];
        put_frame(ret_buffer, FRAME_STATE, 1, payload, strlen(payload), NULL);
    }
    frame_write_commit(&ret_buffer->stream, 7, 1, &tally);
    stream_buffer_finish(&unused);
}

START_TEST(an_epoch_counts_only_as_a_whole)
{
    struct stream_buffer buffer;

    for (unsigned way = 0; way < WRONG_EPOCHS; way++) {
        make_wrong_epoch(way, &buffer);
        refuse(buffer.bytes, buffer.length, EBADMSG, "not all of its frames are there");
        stream_buffer_finish(&buffer);
    }
}
END_TEST

START_TEST(a_commit_has_its_own_length)
{
    uint32_t zeroes[2] = {0};
    for (uint32_t length = 0; length < 8; length++) {
        struct head head = {.magic = good_head.magic, .kind = FRAME_COMMIT, .length = length};
        struct stream_buffer buffer;
        stream_buffer_init(&buffer, 0);
        put_head(&buffer, &head);
        put_payload(&buffer, zeroes, length);
        refuse(buffer.bytes, buffer.length, EBADMSG, "not all of its frames are there");
        stream_buffer_finish(&buffer);
    }
    struct frame_tally none = {0};
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, 0);
    frame_write_commit(&buffer.stream, 7, 1, &none);
    ck_assert_int_eq(read_epoch(buffer.bytes, buffer.length, NULL), 0);
    stream_buffer_finish(&buffer);
}
END_TEST

/* No two frames in a tally are the same as other two. */
START_TEST(a_tally_knows_what_it_counted)
{
    uint64_t seed = 8;
    for (unsigned i = 0; i < 200; i++) {
        struct stream_buffer buffer;
        struct frame_tally tally = {0};
        uint8_t bytes[64];
        for (size_t j = 0; j < sizeof(bytes); j++)
            bytes[j] = (uint8_t)chance(&seed);
        stream_buffer_init(&buffer, 0);
        for (unsigned j = 0; j < 1 + chance(&seed) % 5; j++)
            put_frame(&buffer, kinds[chance(&seed) % 3].kind, 1, bytes, chance(&seed) % 64, &tally);
        size_t before = buffer.length;
        frame_write_commit(&buffer.stream, 7, 1, &tally);
        ck_assert_int_eq(read_epoch(buffer.bytes, buffer.length, NULL), 0);
        buffer.length = before;
        if (chance(&seed) % 2)
            tally.count += 1 + (uint32_t)chance(&seed);
        else
            tally.crc ^= 1u << chance(&seed) % 32;
        frame_write_commit(&buffer.stream, 7, 1, &tally);
        refuse(buffer.bytes, buffer.length, EBADMSG, "not all of its frames are there");
        stream_buffer_finish(&buffer);
    }
}
END_TEST

/* Any bytes end, with an error or without. */
START_TEST(noise_is_refused)
{
    uint64_t seed = 77;
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t bytes[256];
        size_t length = chance(&seed) % sizeof(bytes);
        for (size_t j = 0; j < length; j++)
            bytes[j] = (uint8_t)chance(&seed);
        if (length > 4)
            memcpy(bytes, "MVF1", 4);
        refuse(bytes, length, 0, NULL);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frames");
    TCase *right = tcase_create("right"), *wrong = tcase_create("wrong"),
          *epochs = tcase_create("epochs");
    tcase_add_test(right, what_is_written_is_read);
    tcase_add_test(right, a_payload_has_nothing_of_the_one_before);
    tcase_add_test(right, without_a_tally_frames_are_read_too);
    tcase_add_loop_test(right, each_kind_has_its_golden_bytes, 0, (int)array_size(kinds));
    tcase_add_test(right, what_is_too_long_is_not_written);
    tcase_add_test(wrong, an_epoch_that_is_cut_anywhere_is_refused);
    tcase_add_test(wrong, every_single_bit_counts);
    tcase_add_test(wrong, what_is_newer_says_so);
    tcase_add_test(wrong, what_is_no_frame_says_so);
    tcase_add_test(wrong, a_frame_that_is_too_long_is_refused_by_its_head);
    tcase_add_test(wrong, memory_grows_only_with_bytes_that_are_there);
    tcase_add_test(wrong, a_damaged_payload_is_named_by_its_frame);
    tcase_add_test(wrong, noise_is_refused);
    tcase_add_test(epochs, an_epoch_counts_only_as_a_whole);
    tcase_add_test(epochs, a_commit_has_its_own_length);
    tcase_add_test(epochs, a_tally_knows_what_it_counted);
    suite_add_tcase(suite, right);
    suite_add_tcase(suite, wrong);
    suite_add_tcase(suite, epochs);
    return unit_main(suite);
}
