/* SPDX-License-Identifier: MIT */
/* vsock: connections, their ends, credit. What goes wrong is in test_vsock_life.c. */
#include "tests/unit/vsock_rig.h"

static const uint64_t feature_sets[] = {0, VIRTIO_F_EVENT_INDEX,
                                        VIRTIO_F_EVENT_INDEX | VIRTIO_F_INDIRECT};

/* --- connections ---------------------------------------------------------------------------- */

START_TEST(a_host_program_reaches_the_guest)
{
    uint32_t port;
    guest_up(feature_sets[_i]);
    ck_assert_uint_eq(rig_config_read(rig, 0, 8), CID);
    int fd = connect_from_host(52, &port);
    ck_assert_int_eq(send(fd, "question", 8, MSG_NOSIGNAL), 8);
    rig_settle(rig);
    expect_bytes(52, port, "question");
    guest_writes(52, port, "answer", 6);
    expect_from(fd, "answer");
    expect_no_packet();
    close(fd);
}
END_TEST

START_TEST(the_guest_reaches_a_host_program)
{
    guest_up(feature_sets[_i]);
    int fd = connect_from_guest(1000, 80);
    guest_writes(1000, 80, "GET /", 5);
    expect_from(fd, "GET /");
    ck_assert_int_eq(send(fd, "200", 3, MSG_NOSIGNAL), 3);
    rig_settle(rig);
    expect_bytes(1000, 80, "200");
    expect_no_packet();
    close(fd);
}
END_TEST

START_TEST(a_port_where_nobody_listens_is_reset)
{
    guest_up(0);
    guest_says(VSOCK_OP_REQUEST, 1000, 80);
    expect_packet(VSOCK_OP_RST, 1000, 80);
    expect_no_packet();
}
END_TEST

START_TEST(a_guest_that_refuses_ends_the_host_programs_connection)
{
    guest_up(0);
    int fd = host_connect("CONNECT 52\n");
    uint32_t port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    expect_nothing_from(fd);
    guest_says(VSOCK_OP_RST, 52, port);
    expect_end_from(fd);
    expect_no_packet();
    close(fd);
}
END_TEST

START_TEST(bytes_behind_the_connect_line_are_the_guests)
{
    guest_up(0);
    int fd = host_connect("CONNECT 52\nhello");
    uint32_t port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    expect_no_packet(); /* not before it has accepted */
    guest_says(VSOCK_OP_RESPONSE, 52, port);
    expect_bytes(52, port, "hello");
    close(fd);
}
END_TEST

START_TEST(a_connect_line_may_come_in_pieces)
{
    guest_up(0);
    int fd = host_connect("CONN");
    ck_assert_int_eq(send(fd, "ECT 5", 5, MSG_NOSIGNAL), 5);
    rig_settle(rig);
    expect_no_packet();
    ck_assert_int_eq(send(fd, "2\n", 2, MSG_NOSIGNAL), 2);
    rig_settle(rig);
    expect_packet(VSOCK_OP_REQUEST, 52, 0);
    close(fd);
}
END_TEST

START_TEST(what_is_no_connect_line_ends_the_connection)
{
    static const char *const lines[] = {
        "\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT x\n",
        "CONNECT -1\n",
        "CONNECT 4294967295\n",
        "CONNECT 5 2\n",
        "CONNECT 99999999999\n",
        "HELLO 52\n",
        "CONNECT 52                       \n",
    };
    guest_up(0);
    int fd = host_connect(lines[_i]);
    expect_end_from(fd);
    expect_no_packet();
    close(fd);
}
END_TEST

START_TEST(without_a_driver_host_programs_are_turned_away)
{
    int fd = host_connect("CONNECT 52\n");
    expect_end_from(fd);
    close(fd);
}
END_TEST

START_TEST(ports_of_ours_differ)
{
    uint32_t first, second;
    guest_up(0);
    int a = connect_from_host(52, &first);
    int b = connect_from_host(52, &second);
    ck_assert_uint_ne(first, second);
    guest_writes(52, second, "b", 1);
    guest_writes(52, first, "a", 1);
    expect_from(a, "a");
    expect_from(b, "b");
    close(a);
    close(b);
}
END_TEST

/* --- ends ----------------------------------------------------------------------------------- */

START_TEST(a_host_program_that_closes_is_heard_of_after_its_last_byte)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    ck_assert_int_eq(send(fd, "bye", 3, MSG_NOSIGNAL), 3);
    close(fd);
    rig_settle(rig);
    expect_bytes(52, port, "bye");
    ck_assert_uint_eq(expect_packet(VSOCK_OP_SHUTDOWN, 52, port).flags, VSOCK_SHUT_BOTH);
    guest_writes(52, port, "too late", 8); /* crossed it on its way */
    expect_no_packet();
    guest_says(VSOCK_OP_RST, 52, port);
    expect_no_packet();
    guest_says(VSOCK_OP_CREDIT_REQUEST, 52, port); /* nothing is left of it */
    expect_packet(VSOCK_OP_RST, 52, port);
}
END_TEST

START_TEST(a_host_program_that_leaves_before_the_answer_is_forgotten)
{
    guest_up(0);
    int fd = host_connect("CONNECT 52\n");
    uint32_t port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    close(fd);
    rig_settle(rig);
    expect_packet(VSOCK_OP_RST, 52, port);
    expect_no_packet();
}
END_TEST

START_TEST(half_a_connection_goes_on_when_the_host_ends_its_half)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    ck_assert_int_eq(send(fd, "last", 4, MSG_NOSIGNAL), 4);
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    rig_settle(rig);
    expect_bytes(52, port, "last");
    ck_assert_uint_eq(expect_packet(VSOCK_OP_SHUTDOWN, 52, port).flags, VSOCK_SHUT_SEND);
    guest_writes(52, port, "reply", 5);
    expect_from(fd, "reply");
    guest_shuts(52, port, VSOCK_SHUT_BOTH);
    expect_packet(VSOCK_OP_RST, 52, port);
    expect_end_from(fd);
    close(fd);
}
END_TEST

START_TEST(half_a_connection_goes_on_when_the_guest_ends_its_half)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    guest_writes(52, port, "last", 4);
    guest_shuts(52, port, VSOCK_SHUT_SEND);
    expect_from(fd, "last");
    expect_end_from(fd);
    ck_assert_int_eq(send(fd, "reply", 5, MSG_NOSIGNAL), 5);
    rig_settle(rig);
    expect_bytes(52, port, "reply");
    guest_writes(52, port, "liar", 4);
    expect_packet(VSOCK_OP_RST, 52, port);
    close(fd);
}
END_TEST

START_TEST(a_guest_that_reads_no_more_is_not_written_to)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    guest_shuts(52, port, VSOCK_SHUT_RECEIVE);
    ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    ck_assert_int_eq(errno, EPIPE);
    guest_writes(52, port, "still", 5);
    expect_from(fd, "still");
    expect_no_packet();
    close(fd);
    rig_settle(rig);
    ck_assert_uint_eq(expect_packet(VSOCK_OP_SHUTDOWN, 52, port).flags, VSOCK_SHUT_BOTH);
}
END_TEST

START_TEST(a_guest_that_closes_gets_rst_and_the_host_program_its_end)
{
    guest_up(0);
    int fd = connect_from_guest(1000, 80);
    guest_writes(1000, 80, "all", 3);
    guest_shuts(1000, 80, VSOCK_SHUT_BOTH);
    expect_packet(VSOCK_OP_RST, 1000, 80);
    expect_from(fd, "all");
    expect_end_from(fd);
    close(fd);
}
END_TEST

static void fill(uint8_t *bytes, size_t length, uint32_t seed)
{
    for (size_t i = 0; i < length; i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

/* Writes as much as the credit allows while nobody reads; returns how much that was. */
static size_t write_until_credit_ends(uint32_t guest_port, uint32_t host_port, const uint8_t *bytes,
                                      size_t length)
{
    size_t done = 0;
    struct vsock_header header;
    uint32_t theirs = 0; /* what they have forwarded, as far as we know */
    while (done < length) {
        uint32_t room = VSOCK_BUFFER - ((uint32_t)done - theirs);
        uint32_t part = room < 16384 ? room : 16384;
        if (part == 0)
            break;
        guest_writes(guest_port, host_port, bytes + done, part);
        done += part;
        while (next_packet(&header, NULL)) {
            ck_assert_uint_eq(header.op, VSOCK_OP_CREDIT_UPDATE);
            theirs = header.forwarded;
            offer(1);
        }
    }
    return done;
}

/* The device's end of a connection takes little at a time. */
static void make_narrow(void)
{
    int size = 4096;
    ck_assert_int_eq(setsockopt(vsock->conns[0].io.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)),
                     0);
}

/* Guest and host at their own pace, through a buffer that goes round and round. */
START_TEST(bytes_keep_their_order_whatever_the_pace)
{
    enum { LENGTH = 1 << 20 };
    uint8_t *bytes = malloc(LENGTH);
    uint8_t *seen = malloc(LENGTH);
    size_t sent = 0, got = 0;
    uint32_t port, theirs = 0, chance = 7;
    struct vsock_header header;

    fill(bytes, LENGTH, 5);
    guest_up(0);
    int fd = connect_from_host(52, &port);
    make_narrow();
    while (got < LENGTH) {
        chance = chance * 1664525 + 1013904223;
        size_t room = VSOCK_BUFFER - ((uint32_t)sent - theirs);
        size_t part = (chance >> 16) % 40000;
        part = part < room ? part : room;
        part = part < LENGTH - sent ? part : LENGTH - sent;
        if (part)
            guest_writes(52, port, bytes + sent, (uint32_t)part);
        sent += part;
        ssize_t taken = recv(fd, seen + got, (chance >> 8) % 30000 + 1, MSG_DONTWAIT);
        got += taken > 0 ? (size_t)taken : 0;
        rig_turn(rig);
        while (next_packet(&header, NULL)) {
            ck_assert_uint_eq(header.op, VSOCK_OP_CREDIT_UPDATE);
            theirs = header.forwarded;
            offer(1);
        }
    }
    ck_assert_mem_eq(seen, bytes, LENGTH);
    close(fd);
    free(bytes);
    free(seen);
}
END_TEST

START_TEST(a_slow_host_program_gets_every_byte_though_the_guest_has_closed)
{
    enum { MOST = 1 << 20 };
    uint8_t *bytes = malloc(MOST);
    uint8_t *seen = malloc(MOST);
    size_t got = 0;
    uint32_t port;

    fill(bytes, MOST, 1);
    guest_up(0);
    int fd = connect_from_host(52, &port);
    make_narrow();
    size_t sent = write_until_credit_ends(52, port, bytes, MOST);
    ck_assert_uint_ge(sent, VSOCK_BUFFER);
    ck_assert_uint_lt(sent, MOST);
    guest_shuts(52, port, VSOCK_SHUT_BOTH);
    expect_no_packet(); /* not before the last byte is over there */
    if (_i)
        guest_says(VSOCK_OP_RST, 52, port); /* patience ends */
    for (;;) {
        ssize_t part = recv(fd, seen + got, 5000, MSG_DONTWAIT);
        if (part == 0)
            break;
        if (part > 0)
            got += (size_t)part;
        rig_turn(rig);
    }
    ck_assert_uint_eq(got, sent);
    ck_assert_mem_eq(seen, bytes, sent);
    rig_settle(rig);
    if (_i == 0)
        expect_packet(VSOCK_OP_RST, 52, port);
    expect_no_packet();
    close(fd);
    free(bytes);
    free(seen);
}
END_TEST

/* --- credit --------------------------------------------------------------------------------- */

START_TEST(a_slow_host_program_stops_its_own_connection_only)
{
    enum { MOST = 1 << 20 };
    uint8_t *bytes = malloc(MOST);
    uint32_t slow, quick;

    fill(bytes, MOST, 2);
    guest_up(0);
    int a = connect_from_host(52, &slow);
    int b = connect_from_host(53, &quick);
    size_t sent = write_until_credit_ends(52, slow, bytes, MOST);
    guest_writes(53, quick, "quick", 5);
    expect_from(b, "quick");

    size_t got = 0;
    while (got < sent) {
        uint8_t piece[10000];
        ssize_t part = recv(a, piece, sizeof(piece), MSG_DONTWAIT);
        if (part > 0) {
            ck_assert_mem_eq(piece, bytes + got, part);
            got += (size_t)part;
        }
        rig_turn(rig);
    }
    rig_settle(rig);
    struct vsock_header header = {0}; /* and the guest hears that there is room again */
    while (next_packet(&header, NULL))
        ck_assert_uint_eq(header.op, VSOCK_OP_CREDIT_UPDATE);
    ck_assert_uint_ge(VSOCK_BUFFER - ((uint32_t)sent - header.forwarded), VSOCK_BUFFER / 2);
    close(a);
    close(b);
    free(bytes);
}
END_TEST

START_TEST(more_bytes_than_credit_kill_the_connection)
{
    enum { MOST = 1 << 20 };
    uint8_t *bytes = malloc(MOST);
    uint32_t port;

    fill(bytes, MOST, 3);
    guest_up(0);
    int fd = connect_from_host(52, &port);
    write_until_credit_ends(52, port, bytes, MOST);
    for (unsigned i = 0; i < 3 && model_used_index(&rig->queues[RX]) == rig->queues[RX].seen; i++)
        guest_writes(52, port, bytes, VSOCK_BUFFER / 2);
    expect_packet(VSOCK_OP_RST, 52, port);
    expect_no_packet();
    close(fd);
    free(bytes);
}
END_TEST

START_TEST(the_guests_credit_is_kept)
{
    uint8_t bytes[8000];
    uint32_t port;
    struct vsock_header update;

    fill(bytes, sizeof(bytes), 4);
    guest_up(0);
    int fd = host_connect("CONNECT 52\n");
    port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    update = header_of(VSOCK_OP_RESPONSE, 52, port);
    update.buffer = 100;
    guest_send(update, NULL, 0);
    ck_assert_int_eq(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
    rig_settle(rig);
    ck_assert_uint_eq(expect_packet(VSOCK_OP_RW, 52, port).length, 100);
    expect_packet(VSOCK_OP_CREDIT_REQUEST, 52, port);
    expect_no_packet(); /* asked once */

    update.op = VSOCK_OP_CREDIT_UPDATE;
    guest_send(update, NULL, 0); /* still none */
    expect_no_packet();
    update.forwarded = 40;
    guest_send(update, NULL, 0);
    ck_assert_uint_eq(expect_packet(VSOCK_OP_RW, 52, port).length, 40);
    expect_packet(VSOCK_OP_CREDIT_REQUEST, 52, port);
    update.forwarded = 5000; /* more than it ever got: no credit, and no harm */
    guest_send(update, NULL, 0);
    expect_no_packet();
    update.forwarded = 140;
    update.buffer = UINT32_MAX;
    guest_send(update, NULL, 0);
    ck_assert_uint_eq(expect_packet(VSOCK_OP_RW, 52, port).length, 4096);
    ck_assert_uint_eq(expect_packet(VSOCK_OP_RW, 52, port).length, 8000 - 140 - 4096);
    expect_no_packet();
    close(fd);
}
END_TEST

START_TEST(a_guest_that_asks_for_its_credit_is_told)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    guest_writes(52, port, "12345", 5);
    guest_says(VSOCK_OP_CREDIT_REQUEST, 52, port);
    struct vsock_header header = expect_packet(VSOCK_OP_CREDIT_UPDATE, 52, port);
    ck_assert_uint_eq(header.forwarded, 5);
    ck_assert_uint_eq(header.buffer, VSOCK_BUFFER);
    close(fd);
}
END_TEST

START_TEST(bytes_wait_for_buffers)
{
    uint32_t port;
    rig_start(rig, STREAM, ALL);
    offer(1);
    int fd = host_connect("CONNECT 52\n");
    struct vsock_header header;
    ck_assert(next_packet(&header, NULL));
    port = header.from_port;
    guest_says(VSOCK_OP_RESPONSE, 52, port);
    ck_assert_int_eq(send(fd, "patience", 8, MSG_NOSIGNAL), 8);
    rig_settle(rig);
    expect_no_packet();
    offer(1);
    expect_bytes(52, port, "patience");
    close(fd);
}
END_TEST

static void add_connections(TCase *tcase)
{
    tcase_add_loop_test(tcase, a_host_program_reaches_the_guest, 0, array_size(feature_sets));
    tcase_add_loop_test(tcase, the_guest_reaches_a_host_program, 0, array_size(feature_sets));
    tcase_add_test(tcase, a_port_where_nobody_listens_is_reset);
    tcase_add_test(tcase, a_guest_that_refuses_ends_the_host_programs_connection);
    tcase_add_test(tcase, bytes_behind_the_connect_line_are_the_guests);
    tcase_add_test(tcase, a_connect_line_may_come_in_pieces);
    tcase_add_loop_test(tcase, what_is_no_connect_line_ends_the_connection, 0, 10);
    tcase_add_test(tcase, without_a_driver_host_programs_are_turned_away);
    tcase_add_test(tcase, ports_of_ours_differ);
    tcase_add_test(tcase, a_host_program_that_closes_is_heard_of_after_its_last_byte);
    tcase_add_test(tcase, half_a_connection_goes_on_when_the_host_ends_its_half);
    tcase_add_test(tcase, half_a_connection_goes_on_when_the_guest_ends_its_half);
    tcase_add_test(tcase, a_guest_that_reads_no_more_is_not_written_to);
    tcase_add_test(tcase, a_guest_that_closes_gets_rst_and_the_host_program_its_end);
    tcase_add_test(tcase, bytes_keep_their_order_whatever_the_pace);
    tcase_add_test(tcase, a_host_program_that_leaves_before_the_answer_is_forgotten);
    tcase_add_loop_test(tcase, a_slow_host_program_gets_every_byte_though_the_guest_has_closed, 0,
                        2);
    tcase_add_test(tcase, a_slow_host_program_stops_its_own_connection_only);
    tcase_add_test(tcase, more_bytes_than_credit_kill_the_connection);
    tcase_add_test(tcase, the_guests_credit_is_kept);
    tcase_add_test(tcase, a_guest_that_asks_for_its_credit_is_told);
    tcase_add_test(tcase, bytes_wait_for_buffers);
}

int main(void)
{
    Suite *suite = suite_create("vsock");
    TCase *tcase = tcase_create("vsock");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    add_connections(tcase);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
