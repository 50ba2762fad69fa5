/* SPDX-License-Identifier: MIT */
/* vsock: liars, limits, resets, loads, and the socket itself. */
#include "tests/unit/vsock_rig.h"
#include <fcntl.h>
#include <sys/stat.h>

/* --- liars ---------------------------------------------------------------------------------- */

START_TEST(a_packet_of_no_connection_is_reset)
{
    static const enum vsock_op ops[] = {
        VSOCK_OP_RESPONSE,       VSOCK_OP_SHUTDOWN, VSOCK_OP_RW,      VSOCK_OP_CREDIT_UPDATE,
        VSOCK_OP_CREDIT_REQUEST, (enum vsock_op)0,  (enum vsock_op)99};
    guest_up(0);
    guest_says(ops[_i], 5, 6);
    expect_packet(VSOCK_OP_RST, 5, 6);
    guest_says(VSOCK_OP_RST, 5, 6);
    expect_no_packet();
}
END_TEST

START_TEST(wrong_addresses_and_types_are_answered_as_the_header_says)
{
    struct vsock_header header = header_of(VSOCK_OP_REQUEST, 5, 6);
    struct vsock_header answer;
    guest_up(0);
    header.from_cid = CID + 1;
    guest_send(header, NULL, 0);
    expect_no_packet();
    header.from_cid = CID;
    header.to_cid = 0x123456789ab;
    guest_send(header, NULL, 0);
    ck_assert(next_packet(&answer, NULL));
    ck_assert_uint_eq(answer.op, VSOCK_OP_RST);
    ck_assert_uint_eq(answer.from_cid, 0x123456789ab);
    header.to_cid = VSOCK_HOST;
    header.type = 2;
    guest_send(header, NULL, 0);
    ck_assert(next_packet(&answer, NULL));
    ck_assert_uint_eq(answer.op, VSOCK_OP_RST);
    ck_assert_uint_eq(answer.type, 2);
    guest_send(header_of(VSOCK_OP_REQUEST, 5, 6), NULL, 0);
    expect_packet(VSOCK_OP_RST, 5, 6);
}
END_TEST

START_TEST(a_second_request_for_the_same_ports_kills_the_connection)
{
    guest_up(0);
    int fd = connect_from_guest(1000, 80);
    guest_says(VSOCK_OP_REQUEST, 1000, 80);
    expect_packet(VSOCK_OP_RST, 1000, 80);
    expect_no_packet();
    expect_end_from(fd);
    close(fd);
}
END_TEST

START_TEST(a_length_that_lies_kills_the_connection)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    struct vsock_header header = header_of(VSOCK_OP_RW, 52, port);
    header.length = 100;
    guest_send(header, "short", 5);
    expect_packet(VSOCK_OP_RST, 52, port);
    header.from_port = 53;
    guest_send(header, "short", 5);
    expect_packet(VSOCK_OP_RST, 53, port);
    expect_end_from(fd); /* and not a byte of it */
    close(fd);
}
END_TEST

START_TEST(a_packet_shorter_than_its_header_is_ignored)
{
    guest_up(0);
    rig_send(rig, TX, "short", 5);
    expect_no_packet();
    ck_assert(!rig_is_broken(rig));
}
END_TEST

START_TEST(useless_buffers_come_back_empty)
{
    struct model_done done;
    uint32_t port;
    rig_start(rig, STREAM, ALL);
    rig_offer(rig, RX, 43);
    rig_offer(rig, RX, 44);
    rig_offer(rig, RX, 44); /* fits a header and no byte */
    rig_offer(rig, RX, BUFFER);
    int fd = host_connect("CONNECT 52\n");
    ck_assert(model_reap(&rig->queues[RX], &done));
    ck_assert_uint_eq(done.written, 0);
    port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    ck_assert_int_eq(send(fd, "bytes", 5, MSG_NOSIGNAL), 5);
    guest_says(VSOCK_OP_RESPONSE, 52, port);
    ck_assert(model_reap(&rig->queues[RX], &done));
    ck_assert_uint_eq(done.written, 0);
    expect_bytes(52, port, "bytes");
    close(fd);
}
END_TEST

START_TEST(answers_to_a_flood_are_bounded_and_none_is_lost)
{
    rig_start(rig, STREAM, ALL);
    struct model_driver *driver = &rig->queues[TX];
    struct model_done done;
    unsigned taken = 0, answered = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 60; i++) {
            struct vsock_header header = header_of(VSOCK_OP_RW, i, round);
            struct model_part part = model_out(driver, &header, sizeof(header));
            if (model_add(driver, &part, 1, 0) < 0)
                break;
        }
        rig_show(rig, TX);
        rig_settle(rig);
        while (model_reap(driver, &done))
            taken++;
    }
    ck_assert_uint_eq(taken, VSOCK_RESETS); /* the rest waits in the guest's own ring */
    for (unsigned i = 0; i < 10; i++) {
        if (model_outstanding(&rig->queues[RX]) == 0)
            offer(32);
        struct vsock_header header;
        while (next_packet(&header, NULL)) {
            ck_assert_uint_eq(header.op, VSOCK_OP_RST);
            answered++;
        }
        while (model_reap(driver, &done))
            taken++;
    }
    ck_assert_uint_gt(taken, VSOCK_RESETS);
    ck_assert_uint_eq(answered, taken);
}
END_TEST

START_TEST(a_ring_that_lies_breaks_the_device_and_a_reset_mends_it)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    model_poke_head(&rig->queues[TX], 9999);
    virtio_ring_doorbell(rig->virtio, TX);
    rig_settle(rig);
    ck_assert(rig_is_broken(rig));
    ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), 1);
    rig_settle(rig);
    guest_up(0);
    ck_assert(!rig_is_broken(rig));
    close(fd);
    fd = connect_from_host(52, &port);
    close(fd);
}
END_TEST

/* --- limits --------------------------------------------------------------------------------- */

START_TEST(connections_have_a_limit_and_come_back)
{
    static int fds[VSOCK_CONNS];
    guest_up(0);
    int door = host_listen(80);
    for (unsigned i = 0; i < VSOCK_CONNS; i++) {
        guest_says(VSOCK_OP_REQUEST, i, 80);
        expect_packet(VSOCK_OP_RESPONSE, i, 80);
        fds[i] = accept(door, NULL, NULL);
        ck_assert_int_ge(fds[i], 0);
    }
    guest_says(VSOCK_OP_REQUEST, 5000, 80);
    expect_packet(VSOCK_OP_RST, 5000, 80);
    guest_writes(VSOCK_CONNS - 1, 80, "last", 4);
    expect_from(fds[VSOCK_CONNS - 1], "last");
    guest_says(VSOCK_OP_RST, 3, 80);
    expect_end_from(fds[3]);
    guest_says(VSOCK_OP_REQUEST, 5000, 80);
    expect_packet(VSOCK_OP_RESPONSE, 5000, 80);
    for (unsigned i = 0; i < VSOCK_CONNS; i++)
        close(fds[i]);
    close(door);
}
END_TEST

static void expire_all(void)
{
    virtio_lock(rig->virtio);
    for (unsigned i = 0; i < VSOCK_CONNS; i++)
        if (vsock->conns[i].deadline_ns)
            vsock->conns[i].deadline_ns = 1;
    vsock_wake_at(vsock, 1);
    virtio_unlock(rig->virtio);
    rig_settle(rig);
}

START_TEST(host_programs_that_say_nothing_are_few_and_leave_in_time)
{
    int fds[VSOCK_GREETERS], port_holder;
    guest_up(0);
    for (unsigned i = 0; i < VSOCK_GREETERS; i++)
        fds[i] = host_connect("CONN");
    port_holder = host_connect("CONNECT 52\n");
    expect_no_packet(); /* waits before the door */
    expire_all();
    for (unsigned i = 0; i < VSOCK_GREETERS; i++)
        expect_end_from(fds[i]);
    expect_packet(VSOCK_OP_REQUEST, 52, 0);
    for (unsigned i = 0; i < VSOCK_GREETERS; i++)
        close(fds[i]);
    close(port_holder);
}
END_TEST

START_TEST(a_greeter_that_leaves_makes_room_at_once)
{
    int fds[VSOCK_GREETERS], next;
    guest_up(0);
    for (unsigned i = 0; i < VSOCK_GREETERS; i++)
        fds[i] = host_connect("CONN");
    next = host_connect("CONNECT 52\n");
    expect_no_packet();
    close(fds[7]);
    rig_settle(rig);
    expect_packet(VSOCK_OP_REQUEST, 52, 0);
    for (unsigned i = 0; i < VSOCK_GREETERS; i++)
        if (i != 7)
            close(fds[i]);
    close(next);
}
END_TEST

START_TEST(a_guest_that_never_answers_loses_the_connection)
{
    guest_up(0);
    int fd = host_connect("CONNECT 52\n");
    uint32_t port = expect_packet(VSOCK_OP_REQUEST, 52, 0).from_port;
    expire_all();
    expect_end_from(fd);
    expect_packet(VSOCK_OP_RST, 52, port);
    guest_says(VSOCK_OP_RESPONSE, 52, port); /* too late */
    expect_packet(VSOCK_OP_RST, 52, port);
    close(fd);
}
END_TEST

START_TEST(a_guest_that_ignores_the_end_is_reset)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    close(fd);
    rig_settle(rig);
    expect_packet(VSOCK_OP_SHUTDOWN, 52, port);
    expire_all();
    expect_packet(VSOCK_OP_RST, 52, port);
    expect_no_packet();
}
END_TEST

/* --- reset, pause, load --------------------------------------------------------------------- */

START_TEST(a_driver_that_resets_the_device_ends_all_connections)
{
    uint32_t port;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    int greeter = host_connect("CONN");
    rig_set_status(rig, 0);
    rig_settle(rig);
    expect_end_from(fd);
    expect_nothing_from(greeter);
    guest_up(0);
    guest_says(VSOCK_OP_CREDIT_REQUEST, 52, port);
    expect_packet(VSOCK_OP_RST, 52, port);
    ck_assert_int_eq(send(greeter, "ECT 9\n", 6, MSG_NOSIGNAL), 6);
    rig_settle(rig);
    expect_packet(VSOCK_OP_REQUEST, 9, 0);
    close(fd);
    close(greeter);
}
END_TEST

static _Atomic bool resets_over;

static void *reset_often(void *arg)
{
    for (unsigned i = 0; i < 300; i++) {
        rig_start(rig, STREAM, ALL);
        for (unsigned j = 0; j < 8; j++)
            rig_offer(rig, RX, BUFFER);
    }
    resets_over = true;
    return NULL;
}

/* On a vCPU's thread, while the loop serves connections. */
START_TEST(a_driver_may_reset_at_any_moment)
{
    int fds[8];
    pthread_t thread;

    for (unsigned i = 0; i < array_size(fds); i++)
        fds[i] = -1;
    ck_assert_int_eq(pthread_create(&thread, NULL, reset_often, NULL), 0);
    for (unsigned i = 0; !resets_over; i = (i + 1) % array_size(fds)) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = try_connect();
        if (fds[i] >= 0)
            ck_assert_int_le(send(fds[i], "CONNECT 52\n", 11, MSG_NOSIGNAL), 11);
        for (unsigned j = 0; j < 4; j++)
            rig_turn(rig);
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    rig_settle(rig);
    for (unsigned i = 0; i < array_size(fds); i++)
        close(fds[i]);
    rig_settle(rig);
    guest_up(0);
    close(connect_from_guest(1000, 80)); /* as if nothing had been */
}
END_TEST

START_TEST(connections_live_through_a_pause)
{
    uint32_t port;
    struct model_done done;
    guest_up(0);
    int fd = connect_from_host(52, &port);
    rig_pause(rig);
    ck_assert_int_eq(send(fd, "meanwhile", 9, MSG_NOSIGNAL), 9);
    int other = host_connect("CONNECT 60\n");
    expect_no_packet();
    rig_resume(rig);
    rig_settle(rig);
    expect_packet(VSOCK_OP_REQUEST, 60, 0); /* whose turn it was */
    expect_bytes(52, port, "meanwhile");
    ck_assert(!model_reap(&rig->queues[EVENT], &done));
    close(fd);
    close(other);
}
END_TEST

static void expect_reset_event(struct rig *at)
{
    struct model_done done;
    uint32_t event;
    ck_assert(model_reap(&at->queues[EVENT], &done));
    ck_assert_uint_eq(done.written, 4);
    memcpy(&event, model_bytes(&at->queues[EVENT], done.token, 4), 4);
    ck_assert_uint_eq(event, 0);
}

START_TEST(a_loaded_guest_hears_that_its_connections_are_gone)
{
    struct rig *first = rig;
    struct rig *second = calloc(1, sizeof(*second));
    struct model_done done;
    char other[100];
    uint32_t port;

    snprintf(other, sizeof(other), "%s/other", dir);
    guest_up(0);
    int fd = connect_from_host(52, &port);
    rig_pause(first);
    plug(second, other);
    rig_travel(second, first);
    rig_resume(second);
    rig_settle(second);
    expect_reset_event(second);
    rig_pause(second);
    rig_resume(second);
    rig_offer(second, EVENT, 4);
    rig_settle(second);
    ck_assert(!model_reap(&second->queues[EVENT], &done)); /* once */
    rig = second;
    guest_says(VSOCK_OP_CREDIT_REQUEST, 52, port);
    expect_packet(VSOCK_OP_RST, 52, port);
    rig = first;
    rig_finish(second);
    free(second);
    close(fd);
}
END_TEST

/* In the process that saved it: back to the snapshot, after time has passed. */
START_TEST(a_state_from_before_ends_the_connections_of_today)
{
    struct stream_buffer saved;
    uint32_t port;
    guest_up(0);
    struct state_item item = {rig->virtio->device.table, 0, rig->virtio->device.state};
    rig_pause(rig);
    stream_buffer_init(&saved, 0);
    ck_assert_int_eq(state_save(&saved.stream, &item, 1), 0);
    struct model_driver then[3] = {rig->queues[0], rig->queues[1], rig->queues[2]};
    rig_resume(rig);
    rig_pause(rig);
    rig_resume(rig);
    int fd = connect_from_host(52, &port);
    rig_pause(rig);
    stream_buffer_rewind(&saved);
    ck_assert_int_eq(state_load(&saved.stream, &item, 1, NULL), 0);
    stream_buffer_finish(&saved);
    for (unsigned i = 0; i < 3; i++) { /* the guest's memory of that time is not needed here */
        struct vring_state *state = virtio_queue_state(rig->virtio, i);
        rig->queues[i] = then[i];
        model_poke_index(&rig->queues[i], state->next_available);
    }
    rig_resume(rig);
    rig_settle(rig);
    expect_end_from(fd);
    ck_assert(vsock->state.reset_pending); /* until there is a buffer for it */
    close(fd);
}
END_TEST

START_TEST(an_event_waits_for_a_buffer_that_fits)
{
    struct model_done done;
    rig_start(rig, STREAM, ALL);
    rig_pause(rig);
    vsock->state.nonce++;
    rig_resume(rig);
    rig_settle(rig);
    rig_offer(rig, EVENT, 3);
    rig_settle(rig);
    ck_assert(model_reap(&rig->queues[EVENT], &done));
    ck_assert_uint_eq(done.written, 0);
    rig_offer(rig, EVENT, 8);
    rig_settle(rig);
    expect_reset_event(rig);
}
END_TEST

START_TEST(a_loaded_guest_has_the_context_id_of_this_machine)
{
    guest_up(0);
    rig_pause(rig);
    vsock->state.cid = 12345;
    vsock->state.nonce++;
    rig_resume(rig);
    ck_assert_uint_eq(rig_config_read(rig, 0, 8), CID);
}
END_TEST

/* --- the socket ----------------------------------------------------------------------------- */

static int try_create(uint64_t cid, const char *at, struct err *err)
{
    struct rig *other = calloc(1, sizeof(*other));
    struct vsock *made = NULL;
    const struct vsock_config config = {.cid = cid, .path = at};
    rig_init(other);
    int ret = vsock_create(&made, &other->world, &config, err);
    if (ret == 0)
        device_destroy(&vsock_virtio(made)->device);
    else
        ck_assert_ptr_null(made);
    rig_finish(other);
    free(other);
    return ret;
}

START_TEST(the_socket_is_its_owners_alone)
{
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0600);
}
END_TEST

START_TEST(a_live_socket_is_not_taken_away)
{
    struct err err = {0};
    ck_assert_int_eq(try_create(CID, path, &err), -EADDRINUSE);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, path));
    int fd = try_connect();
    ck_assert_int_ge(fd, 0);
    close(fd);
}
END_TEST

START_TEST(a_dead_socket_is_replaced)
{
    char at[100];
    struct err err = {0};
    snprintf(at, sizeof(at), "%s/dead", dir);
    close(listen_at(at));
    ck_assert_int_eq(access(at, F_OK), 0);
    ck_assert_msg(try_create(CID, at, &err) == 0, "%s", err.text);
    ck_assert_int_lt(access(at, F_OK), 0);
}
END_TEST

/* Somebody has removed the path of ours, and listens there now. */
START_TEST(anothers_socket_stays_when_the_device_goes)
{
    struct rig *other = calloc(1, sizeof(*other));
    struct vsock *made = NULL;
    char at[100];
    snprintf(at, sizeof(at), "%s/shared", dir);
    const struct vsock_config config = {.cid = CID, .path = at};
    rig_init(other);
    ck_assert_int_eq(vsock_create(&made, &other->world, &config, NULL), 0);
    ck_assert_int_eq(unlink(at), 0);
    int fd = listen_at(at);
    device_destroy(&vsock_virtio(made)->device);
    rig_finish(other);
    free(other);
    ck_assert_int_eq(access(at, F_OK), 0);
    close(fd);
    unlink(at);
}
END_TEST

START_TEST(a_file_that_is_no_socket_stays)
{
    char at[100];
    struct err err = {0};
    snprintf(at, sizeof(at), "%s/file", dir);
    close(open(at, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(try_create(CID, at, &err), -EEXIST);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_int_eq(access(at, F_OK), 0);
}
END_TEST

START_TEST(impossible_settings_are_refused_with_a_sentence)
{
    char at[200];
    struct err err = {0};
    snprintf(at, sizeof(at), "%s/x", dir);
    ck_assert_int_eq(try_create(2, at, &err), -EINVAL);
    ck_assert_int_eq(try_create(UINT32_MAX, at, &err), -EINVAL);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert_int_eq(try_create(CID, "", &err), -ENAMETOOLONG);
    memset(at, 'a', 91);
    at[91] = 0;
    ck_assert_int_eq(try_create(CID, at, &err), -ENAMETOOLONG);
    snprintf(at, sizeof(at), "%s/no/such/place", dir);
    ck_assert_int_eq(try_create(CID, at, &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, at));
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    guest_up(VIRTIO_F_EVENT_INDEX);
    guest_says(VSOCK_OP_REQUEST, 1, 2);
    rig_pause(rig);
    struct vsock_state sample = vsock->state;
    sample.nonce = 0x1122334455667788;
    sample.reset_pending = true;
    unit_check_table(rig->virtio->device.table, &sample);
}
END_TEST

static void add_liars_and_limits(TCase *tcase)
{
    tcase_add_loop_test(tcase, a_packet_of_no_connection_is_reset, 0, 7);
    tcase_add_test(tcase, wrong_addresses_and_types_are_answered_as_the_header_says);
    tcase_add_test(tcase, a_second_request_for_the_same_ports_kills_the_connection);
    tcase_add_test(tcase, a_length_that_lies_kills_the_connection);
    tcase_add_test(tcase, a_packet_shorter_than_its_header_is_ignored);
    tcase_add_test(tcase, useless_buffers_come_back_empty);
    tcase_add_test(tcase, answers_to_a_flood_are_bounded_and_none_is_lost);
    tcase_add_test(tcase, a_ring_that_lies_breaks_the_device_and_a_reset_mends_it);
    tcase_add_test(tcase, connections_have_a_limit_and_come_back);
    tcase_add_test(tcase, host_programs_that_say_nothing_are_few_and_leave_in_time);
    tcase_add_test(tcase, a_greeter_that_leaves_makes_room_at_once);
    tcase_add_test(tcase, a_guest_that_never_answers_loses_the_connection);
    tcase_add_test(tcase, a_guest_that_ignores_the_end_is_reset);
}

static void add_life(TCase *tcase)
{
    tcase_add_test(tcase, a_driver_that_resets_the_device_ends_all_connections);
    tcase_add_test(tcase, a_driver_may_reset_at_any_moment);
    tcase_add_test(tcase, connections_live_through_a_pause);
    tcase_add_test(tcase, a_loaded_guest_hears_that_its_connections_are_gone);
    tcase_add_test(tcase, a_state_from_before_ends_the_connections_of_today);
    tcase_add_test(tcase, an_event_waits_for_a_buffer_that_fits);
    tcase_add_test(tcase, a_loaded_guest_has_the_context_id_of_this_machine);
    tcase_add_test(tcase, the_socket_is_its_owners_alone);
    tcase_add_test(tcase, a_live_socket_is_not_taken_away);
    tcase_add_test(tcase, a_dead_socket_is_replaced);
    tcase_add_test(tcase, anothers_socket_stays_when_the_device_goes);
    tcase_add_test(tcase, a_file_that_is_no_socket_stays);
    tcase_add_test(tcase, impossible_settings_are_refused_with_a_sentence);
    tcase_add_test(tcase, state_table_keeps_its_promises);
}

int main(void)
{
    Suite *suite = suite_create("vsock_life");
    TCase *tcase = tcase_create("vsock_life");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    add_liars_and_limits(tcase);
    add_life(tcase);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
