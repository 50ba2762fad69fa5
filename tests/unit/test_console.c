/* SPDX-License-Identifier: MIT */
#include "tests/unit/device_rig.h"
#include "tests/unit/unit.h"
#include "virtio/console.h"

enum { RECEIVE, TRANSMIT, BOTH = 3 };

#define FEATURE_SIZE 1ull

static struct rig *rig;
static struct console *console;
static uint8_t output[1 << 17];
static size_t output_length;
static unsigned rooms;

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    ck_assert_uint_gt(length, 0);
    if (length > sizeof(output) - output_length)
        length = sizeof(output) - output_length;
    memcpy(output + output_length, bytes, length);
    output_length += length;
}

static void handle_room(void *ctx)
{
    rooms++;
}

static const struct console_host host = {.output = handle_output, .input_room = handle_room};

static struct console *plug(struct rig *into)
{
    struct console *made;
    rig_init(into);
    ck_assert_int_eq(console_create(&made, &into->world, &host, NULL), 0);
    rig_plug(into, console_virtio(made));
    return made;
}

static void set_up(void)
{
    rig = calloc(1, sizeof(*rig));
    output_length = 0;
    rooms = 0;
    console = plug(rig);
}

static void tear_down(void)
{
    rig_finish(rig);
    free(rig);
}

static size_t type(const char *text)
{
    return console_input(console, (const uint8_t *)text, strlen(text));
}

static void expect_done(struct rig *at, unsigned queue, const char *text)
{
    struct model_done done;
    ck_assert(model_reap(&at->queues[queue], &done));
    ck_assert_uint_eq(done.written, strlen(text));
    ck_assert_mem_eq(model_bytes(&at->queues[queue], done.token, strlen(text)), text, strlen(text));
}

static void expect_nothing(struct rig *at, unsigned queue)
{
    struct model_done done;
    ck_assert(!model_reap(&at->queues[queue], &done));
}

static const uint64_t feature_sets[] = {
    FEATURE_SIZE,
    FEATURE_SIZE | VIRTIO_F_EVENT_INDEX,
    FEATURE_SIZE | VIRTIO_F_EVENT_INDEX | VIRTIO_F_INDIRECT,
};

START_TEST(what_the_guest_writes_reaches_the_host)
{
    struct model_done done;
    rig_start(rig, feature_sets[_i], BOTH);
    for (unsigned i = 0; i < 100; i++) {
        rig_send(rig, TRANSMIT, "hello ", 6);
        ck_assert(model_reap(&rig->queues[TRANSMIT], &done));
        ck_assert_uint_eq(done.written, 0);
    }
    ck_assert_uint_eq(output_length, 600);
    ck_assert_mem_eq(output + 594, "hello ", 6);
    ck_assert_uint_gt(rig->interrupts[TRANSMIT], 0);
}
END_TEST

START_TEST(a_request_of_many_parts_is_written_in_order)
{
    struct model_driver *driver = &rig->queues[TRANSMIT];
    rig_start(rig, feature_sets[_i], BOTH);
    struct model_part parts[] = {model_out(driver, "one", 3), model_out(driver, "two", 3),
                                 model_out(driver, "three", 5), model_in(driver, 9)};
    ck_assert_int_ge(model_add(driver, parts, 4, 1), 0);
    rig_show(rig, TRANSMIT);
    rig_settle(rig);
    ck_assert_uint_eq(output_length, 11);
    ck_assert_mem_eq(output, "onetwothree", 11);
}
END_TEST

/* One turn of the loop must not be a guest's to fill. */
START_TEST(a_long_request_takes_many_turns_and_survives_a_save_in_its_middle)
{
    enum { LENGTH = 100000 };
    uint8_t *bytes = malloc(LENGTH);
    for (unsigned i = 0; i < LENGTH; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    rig_start(rig, FEATURE_SIZE, BOTH);
    struct model_part part = model_out(&rig->queues[TRANSMIT], bytes, LENGTH);
    ck_assert_int_ge(model_add(&rig->queues[TRANSMIT], &part, 1, 0), 0);
    while (output_length == 0) {
        rig_show(rig, TRANSMIT);
        rig_turn(rig);
    }
    ck_assert_uint_lt(output_length, LENGTH);
    expect_nothing(rig, TRANSMIT);

    struct rig *second = calloc(1, sizeof(*second));
    rig_pause(rig);
    plug(second);
    rig_travel(second, rig);
    size_t before = output_length;
    rig_turn(rig); /* paused: nothing moves */
    ck_assert_uint_eq(output_length, before);
    rig_resume(second);
    rig_settle(second);
    ck_assert_uint_eq(output_length, LENGTH);
    ck_assert_mem_eq(output, bytes, LENGTH);
    struct model_done done;
    ck_assert(model_reap(&second->queues[TRANSMIT], &done));
    rig_finish(second);
    free(second);
    free(bytes);
}
END_TEST

START_TEST(what_is_typed_reaches_the_guest)
{
    rig_start(rig, feature_sets[_i], BOTH);
    for (unsigned i = 0; i < 100; i++) {
        rig_offer(rig, RECEIVE, 64);
        rig_settle(rig);
        expect_nothing(rig, RECEIVE);
        ck_assert_uint_eq(type("ls\n"), 3);
        rig_settle(rig);
        expect_done(rig, RECEIVE, "ls\n");
    }
    ck_assert_uint_gt(rig->interrupts[RECEIVE], 0);
    ck_assert_uint_eq(rooms, 0);
}
END_TEST

START_TEST(what_is_typed_waits_for_a_buffer)
{
    rig_start(rig, feature_sets[_i], BOTH);
    ck_assert_uint_eq(type("early bird"), 10);
    rig_settle(rig);
    rig_offer(rig, RECEIVE, 5);
    rig_settle(rig);
    expect_done(rig, RECEIVE, "early");
    rig_offer(rig, RECEIVE, 64);
    rig_settle(rig);
    expect_done(rig, RECEIVE, " bird");
}
END_TEST

START_TEST(input_is_bounded_and_room_is_told_once)
{
    uint8_t many[1000];
    memset(many, 'x', sizeof(many));
    rig_start(rig, FEATURE_SIZE, BOTH);
    size_t taken = console_input(console, many, sizeof(many));
    ck_assert_uint_gt(taken, 0);
    ck_assert_uint_lt(taken, sizeof(many));
    ck_assert_uint_eq(console_input(console, many, 1), 0);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 0);
    rig_offer(rig, RECEIVE, 1000);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 1);
    struct model_done done;
    ck_assert(model_reap(&rig->queues[RECEIVE], &done));
    ck_assert_uint_eq(done.written, taken);
    rig_offer(rig, RECEIVE, 1000);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 1);
    ck_assert_uint_eq(console_input(console, many, 10), 10);
}
END_TEST

START_TEST(without_a_driver_nothing_is_taken_and_the_host_hears_when_there_is_one)
{
    ck_assert_uint_eq(type("too early"), 0);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 0);
    rig_start(rig, FEATURE_SIZE, BOTH);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 1);

    rig_pause(rig);
    ck_assert_uint_eq(type("paused"), 0);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 1);
    rig_resume(rig);
    rig_settle(rig);
    ck_assert_uint_eq(rooms, 2);
}
END_TEST

START_TEST(what_was_typed_survives_a_save_but_not_a_reset)
{
    struct rig *second = calloc(1, sizeof(*second));
    rig_start(rig, FEATURE_SIZE, BOTH);
    ck_assert_uint_eq(type("typed"), 5);
    rig_settle(rig);
    rig_pause(rig);
    plug(second);
    rig_travel(second, rig);
    rig_resume(second);
    rig_offer(second, RECEIVE, 64);
    rig_settle(second);
    expect_done(second, RECEIVE, "typed");
    rig_finish(second);
    free(second);

    rig_resume(rig);
    rig_start(rig, FEATURE_SIZE, BOTH);
    rig_offer(rig, RECEIVE, 64);
    rig_settle(rig);
    expect_nothing(rig, RECEIVE);
}
END_TEST

START_TEST(the_size_of_the_terminal_is_told)
{
    rig_start(rig, FEATURE_SIZE, BOTH);
    ck_assert_uint_eq(rig_config_read(rig, 0, 4), 0);
    console_set_size(console, 132, 50);
    ck_assert_uint_eq(rig_config_read(rig, 0, 2), 132);
    ck_assert_uint_eq(rig_config_read(rig, 2, 2), 50);
    ck_assert_uint_eq(rig->config_interrupts, 1);
    console_set_size(console, 132, 50); /* the same again is no news */
    ck_assert_uint_eq(rig->config_interrupts, 1);
    console_set_size(console, 1u << 20, 50);
    ck_assert_uint_eq(rig_config_read(rig, 0, 2), 65535);
    rig_config_write(rig, 0, 4, 7); /* not the driver's to write */
    ck_assert_uint_eq(rig_config_read(rig, 0, 2), 65535);
    rig_start(rig, FEATURE_SIZE, BOTH);
    ck_assert_uint_eq(rig_config_read(rig, 0, 2), 65535);
}
END_TEST

START_TEST(a_paused_console_changes_its_size_when_it_resumes)
{
    rig_start(rig, FEATURE_SIZE, BOTH);
    rig_pause(rig);
    console_set_size(console, 80, 25);
    ck_assert_uint_eq(rig_config_read(rig, 0, 4), 0);
    ck_assert_uint_eq(rig->config_interrupts, 0);
    rig_resume(rig);
    ck_assert_uint_eq(rig_config_read(rig, 0, 2), 80);
    ck_assert_uint_eq(rig->config_interrupts, 1);
}
END_TEST

START_TEST(a_guest_that_lies_breaks_the_device_and_a_reset_mends_it)
{
    rig_start(rig, FEATURE_SIZE, BOTH);
    model_poke_descriptor(&rig->queues[TRANSMIT], rig->queues[TRANSMIT].descriptors, 0, 0xffff0000,
                          0x10000, 0, 0);
    model_poke_head(&rig->queues[TRANSMIT], 0);
    virtio_ring_doorbell(rig->virtio, TRANSMIT);
    rig_settle(rig);
    ck_assert(rig_is_broken(rig));
    ck_assert_uint_eq(output_length, 0);
    ck_assert_uint_eq(type("x"), 0);
    rig_start(rig, FEATURE_SIZE, BOTH);
    rig_settle(rig);
    ck_assert(!rig_is_broken(rig));
    rig_send(rig, TRANSMIT, "ok", 2);
    ck_assert_uint_eq(output_length, 2);
    ck_assert_uint_eq(rooms, 1);
}
END_TEST

/* Buffers that take nothing come back empty, and nothing is lost. */
START_TEST(useless_buffers_lose_no_input)
{
    struct model_driver *driver = &rig->queues[RECEIVE];
    rig_start(rig, FEATURE_SIZE, BOTH);
    struct model_part part = model_out(driver, "read-only", 9);
    for (unsigned i = 0; i < 40; i++)
        ck_assert_int_ge(model_add(driver, &part, 1, part.gpa), 0);
    rig_show(rig, RECEIVE);
    ck_assert_uint_eq(type("kept"), 4);
    rig_settle(rig);
    for (unsigned i = 0; i < 40; i++)
        expect_done(rig, RECEIVE, "");
    rig_offer(rig, RECEIVE, 64);
    rig_settle(rig);
    expect_done(rig, RECEIVE, "kept");
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    rig_start(rig, FEATURE_SIZE | VIRTIO_F_EVENT_INDEX, BOTH);
    console_set_size(console, 80, 25);
    rig_send(rig, TRANSMIT, "hello", 5);
    type("typed");
    rig_settle(rig);
    rig_pause(rig);
    unit_check_table(rig->virtio->device.table, rig->virtio->device.state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console");
    TCase *tcase = tcase_create("console");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, what_the_guest_writes_reaches_the_host, 0, array_size(feature_sets));
    tcase_add_loop_test(tcase, a_request_of_many_parts_is_written_in_order, 0,
                        array_size(feature_sets));
    tcase_add_test(tcase, a_long_request_takes_many_turns_and_survives_a_save_in_its_middle);
    tcase_add_loop_test(tcase, what_is_typed_reaches_the_guest, 0, array_size(feature_sets));
    tcase_add_loop_test(tcase, what_is_typed_waits_for_a_buffer, 0, array_size(feature_sets));
    tcase_add_test(tcase, input_is_bounded_and_room_is_told_once);
    tcase_add_test(tcase, without_a_driver_nothing_is_taken_and_the_host_hears_when_there_is_one);
    tcase_add_test(tcase, what_was_typed_survives_a_save_but_not_a_reset);
    tcase_add_test(tcase, the_size_of_the_terminal_is_told);
    tcase_add_test(tcase, a_paused_console_changes_its_size_when_it_resumes);
    tcase_add_test(tcase, a_guest_that_lies_breaks_the_device_and_a_reset_mends_it);
    tcase_add_test(tcase, useless_buffers_lose_no_input);
    tcase_add_test(tcase, state_table_keeps_its_promises);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
