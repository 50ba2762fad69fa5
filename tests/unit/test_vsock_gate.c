/* SPDX-License-Identifier: MIT */
/* vsock: what the guest says waits in its queue until its number may leave. */
#include "core/thread.h"
#include "tests/unit/vsock_rig.h"

#include <stdatomic.h>

static const uint64_t feature_sets[] = {0, VIRTIO_F_EVENT_INDEX};
static unsigned waits;

static void handle_waits(void *ctx)
{
    waits++;
}

static void set_up_gate(void)
{
    set_up();
    waits = 0;
    vsock_gate_watch(vsock, handle_waits, NULL);
}

/* As an epoch ends: the machine stands still for a moment. */
static void hold(uint64_t number)
{
    rig_pause(rig);
    vsock_gate_hold(vsock, number);
    rig_resume(rig);
    rig_settle(rig);
}

static void mark(uint64_t number)
{
    rig_pause(rig);
    vsock_gate_mark(vsock, number);
    rig_resume(rig);
    rig_settle(rig);
}

static void release(uint64_t number)
{
    vsock_gate_release(vsock, number);
    rig_settle(rig);
}

START_TEST(bytes_leave_by_their_number_and_in_order)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(5);
    guest_writes(1000, 80, "fi", 2);
    guest_writes(1000, 80, "ve", 2);
    expect_nothing_from(fd);
    mark(6);
    guest_writes(1000, 80, "six", 3);
    mark(9);
    guest_writes(1000, 80, "nine", 4);
    release(4);
    expect_nothing_from(fd);
    release(5);
    expect_from(fd, "five");
    release(8);
    expect_from(fd, "six");
    release(7); /* late news */
    expect_nothing_from(fd);
    release(9);
    expect_from(fd, "nine");
    expect_no_packet();
    close(fd);
}
END_TEST

START_TEST(what_was_allowed_before_it_came_does_not_wait)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(1);
    release(2);
    guest_writes(1000, 80, "one", 3);
    expect_from(fd, "one");
    mark(2);
    guest_writes(1000, 80, "two", 3);
    expect_from(fd, "two");
    mark(3);
    guest_writes(1000, 80, "three", 5);
    expect_nothing_from(fd);
    ck_assert_uint_eq(waits, 1);
    close(fd);
}
END_TEST

START_TEST(who_watches_hears_once_for_each_mark)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(1);
    ck_assert_uint_eq(waits, 0);
    guest_writes(1000, 80, "a", 1);
    guest_writes(1000, 80, "b", 1);
    ck_assert_uint_eq(waits, 1);
    mark(2);
    ck_assert_uint_eq(waits, 1); /* what waits is of the number before */
    guest_writes(1000, 80, "c", 1);
    release(1); /* at the latest now it is seen */
    ck_assert_uint_eq(waits, 2);
    mark(3);
    release(2);
    expect_from(fd, "abc");
    ck_assert_uint_eq(waits, 2);
    guest_writes(1000, 80, "d", 1); /* the empty queue is listened to */
    ck_assert_uint_eq(waits, 3);
    close(fd);
}
END_TEST

START_TEST(connections_begin_and_end_when_that_may_be_known)
{
    guest_up(feature_sets[_i]);
    hold(1);
    int door = host_listen(80);
    guest_says(VSOCK_OP_REQUEST, 1000, 80);
    ck_assert_int_lt(accept4(door, NULL, NULL, SOCK_NONBLOCK), 0);
    mark(2);
    release(1);
    expect_packet(VSOCK_OP_RESPONSE, 1000, 80);
    int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK);
    ck_assert_int_ge(fd, 0);
    close(door);
    guest_writes(1000, 80, "last", 4);
    guest_shuts(1000, 80, VSOCK_SHUT_BOTH);
    expect_nothing_from(fd);
    mark(3);
    release(2);
    expect_from(fd, "last");
    expect_end_from(fd);
    expect_packet(VSOCK_OP_RST, 1000, 80);
    close(fd);
}
END_TEST

START_TEST(an_answer_to_a_host_program_waits_and_its_bytes_do_not)
{
    guest_up(feature_sets[_i]);
    int open_fd = connect_from_guest(1000, 80);
    hold(1);
    int fd = host_connect("CONNECT 52\n");
    uint32_t port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    guest_says(VSOCK_OP_RESPONSE, 52, port);
    expect_nothing_from(fd);
    ck_assert_int_eq(send(open_fd, "in", 2, MSG_NOSIGNAL), 2);
    rig_settle(rig);
    expect_bytes(1000, 80, "in"); /* what comes in waits nowhere */
    release(1);
    char line[40];
    snprintf(line, sizeof(line), "OK %u\n", port);
    expect_from(fd, line);
    close(fd);
    close(open_fd);
}
END_TEST

START_TEST(what_waited_for_other_reasons_before_the_hold_is_free)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    rig_pause(rig);
    guest_writes(1000, 80, "before ", 7);
    vsock_gate_hold(vsock, 1);
    rig_resume(rig);
    rig_settle(rig);
    expect_from(fd, "before ");
    guest_writes(1000, 80, "behind", 6);
    expect_nothing_from(fd);
    vsock_gate_open(vsock);
    rig_settle(rig);
    expect_from(fd, "behind");
    guest_writes(1000, 80, "open", 4);
    expect_from(fd, "open");
    hold(1); /* numbers begin anew */
    guest_writes(1000, 80, "again", 5);
    expect_nothing_from(fd);
    release(1);
    expect_from(fd, "again");
    close(fd);
}
END_TEST

/* The queue is the bound: what does not fit waits in the guest. */
START_TEST(a_full_queue_loses_nothing)
{
    enum { PIECES = 150 };
    uint64_t number = 1;
    char expected[PIECES + 1] = {0};
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(number);
    for (unsigned i = 0; i < PIECES; i++) {
        struct vsock_header header = header_of(VSOCK_OP_RW, 1000, 80);
        header.length = 1;
        expected[i] = (char)('a' + i % 26);
        struct model_driver *driver = &rig->queues[TX];
        struct model_part parts[2] = {model_out(driver, &header, sizeof(header)),
                                      model_out(driver, &expected[i], 1)};
        while (model_add(driver, parts, 2, 0) < 0) { /* full */
            struct model_done done;
            ck_assert(!model_reap(driver, &done));
            mark(++number);
            release(number - 1);
            while (model_reap(driver, &done))
                ck_assert_uint_eq(done.written, 0);
        }
        rig_show(rig, TX);
        rig_settle(rig);
    }
    release(number);
    ck_assert_uint_gt(number, 3);
    expect_from(fd, expected);
    close(fd);
}
END_TEST

START_TEST(more_spans_than_places_leave_late_and_never_early)
{
    enum { PIECES = VSOCK_SPANS + 20 };
    size_t seen = 0;
    char bytes[PIECES];
    rig->queue_size = VSOCK_QUEUE_SIZE;
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(0);
    for (unsigned i = 0; i < PIECES; i++) {
        guest_writes(1000, 80, "x", 1);
        mark(i + 1);
    }
    for (unsigned i = 0; i < PIECES; i++) {
        release(i);
        ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        seen += got > 0 ? (size_t)got : 0;
        ck_assert_uint_le(seen, i + 1);
    }
    ck_assert_uint_eq(seen, PIECES);
    close(fd);
}
END_TEST

START_TEST(shut_is_for_good)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(1);
    guest_writes(1000, 80, "a", 1);
    vsock_gate_shut(vsock);
    vsock_gate_open(vsock);
    release(5);
    hold(6);
    mark(7);
    guest_writes(1000, 80, "b", 1);
    release(9);
    expect_nothing_from(fd);
    close(fd);
}
END_TEST

/* Bytes that were allowed, and are still with us because their program is slow. */
START_TEST(shut_keeps_what_the_program_has_not_taken)
{
    static uint8_t bytes[60000];
    uint32_t sent = 0;
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    struct conn *conn = conn_find(vsock, 1000, 80);
    while (conn->count == 0) {
        guest_writes(1000, 80, bytes, sizeof(bytes));
        sent += sizeof(bytes);
    }
    uint32_t left = sent - conn->count;
    vsock_gate_shut(vsock);
    for (ssize_t got; (got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0;) {
        ck_assert_uint_le((uint32_t)got, left);
        left -= (uint32_t)got;
        rig_settle(rig);
    }
    ck_assert_uint_eq(left, 0);
    expect_nothing_from(fd);
    close(fd);
}
END_TEST

START_TEST(a_driver_that_resets_the_device_begins_with_an_empty_gate)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(1);
    guest_writes(1000, 80, "lost", 4);
    mark(2);
    guest_up(feature_sets[_i]);
    expect_end_from(fd);
    close(fd);
    int door = host_listen(81);
    guest_says(VSOCK_OP_REQUEST, 1000, 81); /* of the second number, not the lost one's */
    release(1);
    expect_no_packet();
    release(2);
    expect_packet(VSOCK_OP_RESPONSE, 1000, 81);
    close(door);
}
END_TEST

/* The twin has an open gate and other sockets, and its guest's connections are gone. */
START_TEST(what_did_not_leave_is_reset_elsewhere)
{
    struct rig *first = rig, *second = calloc(1, sizeof(*second));
    char other[100];
    snprintf(other, sizeof(other), "%s/other", dir);
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    hold(1);
    guest_writes(1000, 80, "lost", 4);
    rig_pause(first);
    plug(second, other);
    rig_travel(second, first);
    rig_resume(second);
    rig_settle(second);
    rig = second;
    expect_packet(VSOCK_OP_RST, 1000, 80);
    rig = first;
    expect_nothing_from(fd);
    rig_finish(second);
    free(second);
    close(fd);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------- */

static _Atomic bool stop;

static void open_and_release(void *arg)
{
    for (uint64_t number = 0; !atomic_load(&stop); number++) {
        vsock_gate_release(vsock, number);
        if (number % 16 == 0)
            vsock_gate_open(vsock);
    }
}

START_TEST(released_and_opened_from_elsewhere_all_arrives_in_order)
{
    struct thread thread;
    uint64_t number = 1;
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    stop = false;
    ck_assert_int_eq(thread_start(&thread, "releases", open_and_release, NULL, NULL), 0);
    for (unsigned i = 0; i < 500; i++) {
        char text[4], byte;
        snprintf(text, sizeof(text), "%c", (char)('a' + i % 26));
        hold(number += 100000);
        guest_writes(1000, 80, text, 1);
        while (recv(fd, &byte, 1, MSG_DONTWAIT) < 0)
            rig_turn(rig);
        ck_assert_int_eq(byte, text[0]);
    }
    vsock_gate_shut(vsock);
    guest_writes(1000, 80, "x", 1);
    expect_nothing_from(fd);
    stop = true;
    thread_join(&thread);
    rig_settle(rig);
    expect_nothing_from(fd);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_gate");
    TCase *tcase = tcase_create("vsock_gate");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up_gate, tear_down);
    tcase_add_loop_test(tcase, bytes_leave_by_their_number_and_in_order, 0, 2);
    tcase_add_loop_test(tcase, what_was_allowed_before_it_came_does_not_wait, 0, 2);
    tcase_add_loop_test(tcase, who_watches_hears_once_for_each_mark, 0, 2);
    tcase_add_loop_test(tcase, connections_begin_and_end_when_that_may_be_known, 0, 2);
    tcase_add_loop_test(tcase, an_answer_to_a_host_program_waits_and_its_bytes_do_not, 0, 2);
    tcase_add_loop_test(tcase, what_waited_for_other_reasons_before_the_hold_is_free, 0, 2);
    tcase_add_loop_test(tcase, a_full_queue_loses_nothing, 0, 2);
    tcase_add_loop_test(tcase, more_spans_than_places_leave_late_and_never_early, 0, 2);
    tcase_add_loop_test(tcase, shut_is_for_good, 0, 2);
    tcase_add_loop_test(tcase, shut_keeps_what_the_program_has_not_taken, 0, 2);
    tcase_add_loop_test(tcase, a_driver_that_resets_the_device_begins_with_an_empty_gate, 0, 2);
    tcase_add_loop_test(tcase, what_did_not_leave_is_reset_elsewhere, 0, 2);
    tcase_add_loop_test(tcase, released_and_opened_from_elsewhere_all_arrives_in_order, 0, 2);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
