/* SPDX-License-Identifier: MIT */
/* Frames through the network device, both ways; test_net_control.c has what is around them. */
#include "tests/unit/net_traffic.h"

enum { OFFLOADS = 15 };

static const struct netif_info plain = {0};
static const struct netif_info offloading = {.offloads = OFFLOADS};

static void set_up_with(const struct netif_info *info, uint64_t features)
{
    rig_create(&rig, info, &(struct net_config){0});
    rig_start(&rig, features);
    rig_pump(&rig);
}

static void set_up(void)
{
    set_up_with(&offloading, RIG_ALL);
}

static void tear_down(void)
{
    rig_destroy(&rig);
}

/* --- from the guest ------------------------------------------------------------------------- */

START_TEST(frames_leave_byte_for_byte_however_they_are_cut)
{
    static const size_t lengths[] = {26, 27, 60 + HEADER, 1514 + HEADER, 9000, NETIF_MAX_FRAME};
    static const size_t pieces[] = {1, 5, 11, 12, 13, 300, 4096, NETIF_MAX_FRAME};

    for (unsigned i = 0; i < array_size(lengths); i++) {
        for (unsigned j = 0; j < array_size(pieces); j++) {
            if (lengths[i] / pieces[j] >= 60)
                continue;
            make_frame(lengths[i], (uint8_t)(i + j));
            add_send(lengths[i], pieces[j], j);
            rig_show(&rig, TX);
            rig_pump(&rig);
            expect_sent(lengths[i]);
            expect_done(TX, j);
        }
    }
    ck_assert(!is_broken());
}
END_TEST

START_TEST(what_no_interface_can_take_is_dropped)
{
    static const size_t lengths[] = {1, 11, 12, 25, NETIF_MAX_FRAME + 1, NETIF_MAX_FRAME + 90};

    for (unsigned i = 0; i < array_size(lengths); i++) {
        make_frame(lengths[i], 1);
        add_send(lengths[i], 4096, i);
    }
    make_frame(100, 9);
    add_send(100, 4096, 99);
    rig_show(&rig, TX);
    rig_pump(&rig);
    for (unsigned i = 0; i < array_size(lengths); i++)
        expect_done(TX, i);
    expect_done(TX, 99);
    expect_sent(100);
    ck_assert_uint_eq(rig.netif.out[0].count, 0);
    ck_assert_uint_eq(stats().send_dropped, array_size(lengths));
    ck_assert_uint_eq(stats().sent, 1);
    ck_assert_uint_eq(stats().sent_bytes, 100 - HEADER);
}
END_TEST

static const struct header_case {
    struct virtio_net_hdr_v1 header;
    bool passes;
} header_cases[] = {
    {{0}, true},
    {{.flags = 1, .csum_start = 34, .csum_offset = 16}, true},
    {{.flags = 1, .csum_start = 86, .csum_offset = 12}, true}, /* to the last byte */
    {{.flags = 1, .csum_start = 86, .csum_offset = 13}, false},
    {{.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}, false},
    {{.flags = 1, .csum_start = 0xffff, .csum_offset = 1}, false},
    {{.flags = 1, .gso_type = 1, .gso_size = 10, .hdr_len = 54}, true},
    {{.flags = 1, .gso_type = 4, .gso_size = 10, .hdr_len = 74}, true},
    {{.flags = 1, .gso_type = 0x81, .gso_size = 10, .hdr_len = 54}, true},
    {{.flags = 1, .gso_type = 1, .gso_size = 0, .hdr_len = 54}, false},
    {{.flags = 1, .gso_type = 1, .gso_size = 10, .hdr_len = 101}, false},
    {{.flags = 0, .gso_type = 1, .gso_size = 10, .hdr_len = 54}, false},
    {{.flags = 1, .gso_type = 3, .gso_size = 10, .hdr_len = 54}, false}, /* UFO: nobody offered */
    {{.flags = 1, .gso_type = 5, .gso_size = 10, .hdr_len = 54}, false},
    {{.flags = 1, .gso_type = 0x80, .gso_size = 10, .hdr_len = 54}, false},
    {{.flags = 1, .gso_type = 0x7f, .gso_size = 10, .hdr_len = 54}, false},
};

static void send_with_header(const struct virtio_net_hdr_v1 *header)
{
    make_frame(HEADER + 100, 5);
    memcpy(frame, header, sizeof(*header));
    add_send(HEADER + 100, 40, 0);
    rig_show(&rig, TX);
    rig_pump(&rig);
    expect_done(TX, 0);
}

START_TEST(a_lying_header_reaches_no_interface)
{
    for (unsigned i = 0; i < array_size(header_cases); i++) {
        send_with_header(&header_cases[i].header);
        ck_assert_msg(rig.netif.out[0].count == header_cases[i].passes, "case %u", i);
        if (header_cases[i].passes)
            expect_sent(HEADER + 100);
    }
}
END_TEST

START_TEST(what_was_not_negotiated_is_not_asked_of_the_interface)
{
    /* An interface without offloads gets headers of zeroes, whatever the guest writes there. */
    rig_destroy(&rig);
    set_up_with(&plain, RIG_ALL);
    for (unsigned i = 0; i < array_size(header_cases); i++) {
        const struct virtio_net_hdr_v1 *header = &header_cases[i].header;
        bool asks = (header->flags & 1) || header->gso_type;
        send_with_header(header);
        ck_assert_uint_eq(rig.netif.out[0].count, !asks);
        rig_empty(&rig.netif.out[0]);
    }
    static const struct virtio_net_hdr_v1 odd = {
        .flags = 0xfe, .hdr_len = 7, .gso_size = 7, .csum_start = 7, .num_buffers = 0xffff};
    send_with_header(&odd);
    memset(frame, 0, HEADER);
    expect_sent(HEADER + 100);
}
END_TEST

START_TEST(a_full_interface_holds_frames_and_nothing_else)
{
    rig.netif.full[0] = true;
    for (unsigned i = 0; i < 200; i++) {
        make_frame(100, (uint8_t)i);
        add_send(100, 100, i);
    }
    rig_show(&rig, TX);
    ck_assert_uint_lt(rig_pump(&rig), 5);
    ck_assert_uint_eq(rig.netif.watched[0], NETIF_WRITABLE);
    ck_assert_uint_eq(model_outstanding(&rig.drivers[TX]), 200);

    struct model_part part = model_in(&rig.drivers[RX], 2000); /* the other way goes on */
    ck_assert_int_ge(model_add(&rig.drivers[RX], &part, 1, 7), 0);
    rig_show(&rig, RX);
    make_frame(100, 1);
    rig_put(&rig.netif.in[0], frame, 100);
    rig_pump(&rig);
    expect_done(RX, 7);

    rig.netif.full[0] = false;
    rig_pump(&rig);
    ck_assert_uint_eq(rig.netif.watched[0] & NETIF_WRITABLE, 0);
    for (unsigned i = 0; i < 200; i++) {
        make_frame(100, (uint8_t)i);
        expect_sent(100);
        expect_done(TX, i);
    }
    ck_assert_uint_eq(stats().send_dropped, 0);
}
END_TEST

/* As with a limit, or with a program behind it that has just begun. */
START_TEST(an_announcement_waits_for_room)
{
    rig.netif.full[0] = true;
    ck_assert(net_announce(rig.net));
    rig_pump(&rig);
    ck_assert_uint_eq(rig.announced, 0);
    ck_assert_uint_eq(rig.netif.watched[0] & NETIF_WRITABLE, NETIF_WRITABLE);
    rig.netif.full[0] = false;
    rig_pump(&rig);
    ck_assert_uint_eq(rig.netif.out[0].count, 1);
    ck_assert_uint_eq(rig.announced, 1);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.netif.out[0].count, 1);
    ck_assert_uint_eq(rig.netif.watched[0] & NETIF_WRITABLE, 0);
}
END_TEST

START_TEST(a_flood_is_served_in_bounded_turns_with_few_interrupts)
{
    for (unsigned i = 0; i < 128; i++) {
        make_frame(60, (uint8_t)i);
        add_send(60, 60, i);
    }
    rig_show(&rig, TX);
    ck_assert(rig_turn_of_queue(&rig, TX));
    ck_assert_uint_eq(rig.netif.out[0].count, 64); /* and no more, though more wait */
    rig_pump(&rig);
    ck_assert_uint_eq(rig.netif.out[0].count, 128);
    ck_assert_uint_le(rig.interrupts[TX], 3);
    ck_assert_uint_ge(rig.interrupts[TX], 1);
}
END_TEST

/* --- to the guest --------------------------------------------------------------------------- */

static void set_up_receive(void)
{
    set_up();
    given_count = taken_count = 0;
}

START_TEST(frames_arrive_byte_for_byte_in_merged_buffers)
{
    static const size_t lengths[] = {26,   60 + HEADER, 1526, 1514 + HEADER,   1536,
                                     1537, 3072,        9014, NETIF_MAX_FRAME, NETIF_MAX_FRAME - 1};
    static const uint32_t sizes[] = {512, 1536, 4096, 70000};

    for (unsigned i = 0; i < array_size(sizes); i++) {
        for (unsigned j = 0; j < array_size(lengths); j++) {
            unsigned needed = (unsigned)(lengths[j] / sizes[i]) + 2;
            give_many(needed, sizes[i]);
            arrive(lengths[j], (uint8_t)(10 * i + j));
            rig_pump(&rig);
            expect_frame(lengths[j], (uint8_t)(10 * i + j));
        }
        while (model_outstanding(&rig.drivers[RX])) { /* uses up what is left of this size */
            arrive(60, 0);
            rig_pump(&rig);
            ck_assert_uint_gt(reap_frame(), 0);
        }
    }
    ck_assert_uint_eq(stats().receive_dropped, 0);
    ck_assert(!is_broken());
}
END_TEST

START_TEST(frames_of_all_lengths_in_one_stream_lose_nothing)
{
    unsigned seed = 1, sent = 0, got = 0;
    uint64_t bytes = 0;
    size_t lengths[600];

    while (got < array_size(lengths)) {
        while (sent < array_size(lengths) && sent - got < 40) {
            seed = seed * 1103515245 + 12345;
            lengths[sent] = seed >> 16 & 3 ? 60 + HEADER + (seed >> 20) % 1500
                                           : 2000 + (seed >> 12) % (NETIF_MAX_FRAME - 2000);
            arrive(lengths[sent], (uint8_t)sent);
            sent++;
        }
        while (model_outstanding(&rig.drivers[RX]) < 100)
            give(1536);
        rig_show(&rig, RX);
        rig_pump(&rig);
        while (got < sent && model_used_index(&rig.drivers[RX]) != rig.drivers[RX].seen) {
            expect_frame(lengths[got], (uint8_t)got);
            got++;
        }
    }
    ck_assert_uint_eq(stats().received, array_size(lengths));
    for (unsigned i = 0; i < array_size(lengths); i++)
        bytes += lengths[i] - HEADER;
    ck_assert_uint_eq(stats().received_bytes, bytes);
    ck_assert_uint_eq(stats().receive_dropped, 0);
}
END_TEST

START_TEST(without_merging_a_frame_takes_one_buffer)
{
    struct model_part parts[18];

    rig_start(&rig, ~RIG_FEATURE(MRG_RXBUF));
    rig_pump(&rig);
    for (unsigned round = 0; round < 3; round++) {
        size_t length = round == 1 ? NETIF_MAX_FRAME : 700;
        for (unsigned i = 0; i < array_size(parts); i++)
            parts[i] = model_in(&rig.drivers[RX], i == 0 ? HEADER : 4096);
        ck_assert_int_ge(model_add(&rig.drivers[RX], parts, array_size(parts), round), 0);
        rig_show(&rig, RX);
        arrive(length, (uint8_t)round);
        rig_pump(&rig);

        struct model_done done;
        ck_assert(model_reap(&rig.drivers[RX], &done));
        ck_assert_uint_eq(done.written, length);
        for (size_t at = 0, i = 0; at < length; at += parts[i++].length) {
            const uint8_t *bytes = model_bytes(&rig.drivers[RX], parts[i].gpa, parts[i].length);
            size_t part = length - at < parts[i].length ? length - at : parts[i].length;
            frame[10] = 1; /* num_buffers is 1 here (5.1.6.4.1) */
            ck_assert_mem_eq(bytes, frame + at, part);
            if (part < parts[i].length)
                ck_assert_uint_eq(bytes[part], 0xee); /* and nothing behind it was touched */
        }
    }
}
END_TEST

START_TEST(a_frame_that_fits_into_no_buffer_is_dropped_and_counted)
{
    rig_start(&rig, ~RIG_FEATURE(MRG_RXBUF));
    rig_pump(&rig);
    give_many(4, 1526);
    arrive(1526, 1);
    arrive(1527, 2);
    arrive(NETIF_MAX_FRAME, 3);
    arrive(500, 4);
    rig_pump(&rig);
    expect_frame(1526, 1);
    expect_frame(500, 4);
    ck_assert_uint_eq(stats().receive_dropped, 2);
    ck_assert_uint_eq(model_outstanding(&rig.drivers[RX]), 2);
}
END_TEST

START_TEST(a_large_frame_waits_for_buffers_and_the_interface_is_left_alone)
{
    give_many(3, 1536);
    arrive(9000, 1);
    arrive(300, 2);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.netif.watched[0], 0); /* or it would be ready for ever */
    ck_assert_uint_eq(reap_frame(), 0);
    ck_assert_uint_eq(rig.netif.in[0].count, 1);
    give(1536);
    ck_assert(rig_show(&rig, RX)); /* the device asked to be told */
    rig_pump(&rig);
    ck_assert_uint_eq(reap_frame(), 0); /* four are not enough either */
    give(1536);
    give(1536);
    ck_assert(rig_show(&rig, RX));
    rig_pump(&rig);
    expect_frame(9000, 1);
    ck_assert_uint_eq(reap_frame(), 0);
    give(1536);
    ck_assert(rig_show(&rig, RX));
    rig_pump(&rig);
    expect_frame(300, 2);
    ck_assert_uint_eq(stats().receive_dropped, 0);
}
END_TEST

START_TEST(a_large_frame_at_the_end_of_a_turn_is_not_forgotten)
{
    give_many(100, 1536);
    rig_pump(&rig);
    for (unsigned i = 0; i < 63; i++)
        arrive(100, (uint8_t)i);
    arrive(9000, 63); /* the 64th, and longer than was to be expected */
    rig_pump(&rig);
    for (unsigned i = 0; i < 63; i++)
        expect_frame(100, (uint8_t)i);
    expect_frame(9000, 63);
}
END_TEST

START_TEST(a_frame_that_all_buffers_together_cannot_take_is_dropped)
{
    give_many(256, 100); /* the whole ring */
    arrive(25601, 1);
    arrive(25600, 2);
    rig_pump(&rig);
    expect_frame(25600, 2);
    ck_assert_uint_eq(stats().receive_dropped, 1);
    ck_assert(!is_broken());
}
END_TEST

START_TEST(buffers_of_one_byte_do_no_harm)
{
    give_many(256, 1); /* less than a header: the driver breaks a rule of its own */
    arrive(200, 1);
    arrive(300, 2);
    rig_pump(&rig);
    for (unsigned i = 0; i < 200; i++) {
        struct model_done done;
        ck_assert(model_reap(&rig.drivers[RX], &done));
        ck_assert_uint_eq(done.written, 1);
        if (i >= HEADER)
            ck_assert_mem_eq(model_bytes(&rig.drivers[RX], given[i].gpa, 1),
                             (uint8_t[]){(uint8_t)(1 + i * 7)}, 1);
    }
    give_many(200, 1);
    rig_pump(&rig);
    ck_assert_uint_eq(stats().received, 1);
    ck_assert_uint_eq(stats().receive_dropped, 1); /* 300 bytes in 256 buffers: never */
    ck_assert(!is_broken());
}
END_TEST

START_TEST(without_buffers_nothing_spins_and_nothing_is_lost)
{
    for (unsigned i = 0; i < 500; i++)
        arrive(100, (uint8_t)i);
    ck_assert_uint_lt(rig_pump(&rig), 5);
    ck_assert_uint_eq(rig.netif.watched[0], 0);
    ck_assert_uint_eq(rig.netif.in[0].count, 500);
    for (unsigned got = 0; got < 500;) {
        give_many(7, 1536);
        rig_pump(&rig);
        for (unsigned i = 0; i < 7 && got < 500; i++, got++)
            expect_frame(100, (uint8_t)got);
    }
}
END_TEST

START_TEST(a_driver_that_gives_buffers_in_time_need_not_ring)
{
    unsigned rings = 0;

    give_many(64, 1536);
    rig_pump(&rig);
    for (unsigned i = 0; i < 1000; i++) {
        arrive(1000, (uint8_t)i);
        rig_pump(&rig);
        expect_frame(1000, (uint8_t)i);
        give(1536);
        rings += rig_show(&rig, RX);
    }
    ck_assert_uint_le(rings, 1);
}
END_TEST

START_TEST(a_batch_is_one_interrupt)
{
    give_many(64, 1536);
    rig_pump(&rig);
    model_want_interrupt(&rig.drivers[RX], 1);
    unsigned before = rig.interrupts[RX];
    for (unsigned i = 0; i < 30; i++)
        arrive(100, (uint8_t)i);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.interrupts[RX], before + 1);
}
END_TEST

START_TEST(frames_that_the_driver_cannot_finish_are_not_given_to_it)
{
    static const struct virtio_net_hdr_v1 undone[] = {{.flags = 1, .csum_start = 34},
                                                      {.gso_type = 1, .gso_size = 1000},
                                                      {.gso_type = 4, .gso_size = 1000},
                                                      {.gso_type = 3, .gso_size = 1000}};
    static const uint64_t features[] = {~RIG_FEATURE(GUEST_CSUM), ~RIG_FEATURE(GUEST_TSO4),
                                        ~RIG_FEATURE(GUEST_TSO6), RIG_ALL};

    for (unsigned i = 0; i < array_size(undone); i++) {
        rig_start(&rig, features[i]);
        rig_pump(&rig);
        given_count = taken_count = 0;
        give_many(4, 1536);
        make_frame(200, 1);
        memcpy(frame, &undone[i], sizeof(undone[i]));
        rig_put(&rig.netif.in[0], frame, 200);
        rig_pump(&rig);
        ck_assert_uint_eq(reap_frame(), 0);
        ck_assert_uint_eq(stats().receive_dropped, i + 1);
    }
    /* "The checksum is fine" is not for a driver that does not know of it: flags are 0 then. */
    rig_start(&rig, ~RIG_FEATURE(GUEST_CSUM));
    rig_pump(&rig);
    given_count = taken_count = 0;
    give_many(1, 1536);
    make_frame(200, 1);
    frame[0] = VIRTIO_NET_HDR_F_DATA_VALID;
    rig_put(&rig.netif.in[0], frame, 200);
    rig_pump(&rig);
    expect_frame(200, 1);
}
END_TEST

START_TEST(what_came_before_the_driver_is_not_for_it)
{
    rig_start(&rig, RIG_ALL);
    for (unsigned i = 0; i < 100; i++)
        arrive(100, (uint8_t)i);
    give_many(10, 1536);
    rig_pump(&rig);
    ck_assert_uint_eq(reap_frame(), 0);
    arrive(100, 7);
    rig_pump(&rig);
    expect_frame(100, 7);
}
END_TEST

START_TEST(a_runt_is_dropped)
{
    static const size_t lengths[] = {1, 12, 25};

    give_many(4, 1536);
    for (unsigned i = 0; i < array_size(lengths); i++)
        arrive(lengths[i], 0);
    arrive(26, 4);
    rig_pump(&rig);
    expect_frame(26, 4);
    ck_assert_uint_eq(stats().receive_dropped, 3);
}
END_TEST

/* --- liars ---------------------------------------------------------------------------------- */

START_TEST(a_receive_buffer_that_is_to_be_read_breaks_the_device_and_a_reset_mends_it)
{
    struct model_part readable[] = {model_out(&rig.drivers[RX], "x", 1),
                                    model_in(&rig.drivers[RX], 2000)};

    ck_assert_int_ge(model_add(&rig.drivers[RX], readable, 2, 0), 0);
    rig_show(&rig, RX);
    arrive(100, 0);
    rig_pump(&rig);
    ck_assert(is_broken());
    ck_assert_uint_ge(rig.config_interrupts, 1);
    ck_assert_uint_eq(rig.netif.watched[0], 0);

    rig_start(&rig, RIG_ALL);
    rig_pump(&rig);
    given_count = taken_count = 0;
    give_many(2, 1536);
    arrive(100, 3);
    rig_pump(&rig);
    expect_frame(100, 3);
}
END_TEST

START_TEST(broken_rings_break_only_the_device)
{
    for (unsigned queue = 0; queue < 3; queue++) {
        for (unsigned lie = 0; lie < 4; lie++) {
            rig_start(&rig, RIG_ALL);
            rig_pump(&rig);
            struct model_driver *driver = &rig.drivers[queue];
            uint16_t write = queue == RX ? MODEL_WRITE : 0;
            switch (lie) {
            case 0: /* a loop */
                model_poke_descriptor(driver, driver->descriptors, 0, 0x1000, 4, MODEL_NEXT | write,
                                      0);
                break;
            case 1: /* no RAM there */
                model_poke_descriptor(driver, driver->descriptors, 0, 1ull << 40, 4000, write, 0);
                break;
            case 2: /* nothing at all */
                model_poke_descriptor(driver, driver->descriptors, 0, 0x1000, 0, write, 0);
                break;
            case 3: /* too many */
                model_poke_index(driver, 1000);
                break;
            }
            if (lie != 3)
                model_poke_head(driver, 0);
            virtio_ring_doorbell(rig.virtio, queue);
            arrive(100, 0);
            rig_pump(&rig);
            ck_assert(is_broken() || (queue == TX && lie == 2)); /* a frame of 0 bytes: dropped */
            rig_empty(&rig.netif.in[0]);
        }
    }
}
END_TEST

/* --- a pause -------------------------------------------------------------------------------- */

START_TEST(in_a_pause_nothing_moves_and_afterwards_all_goes_on)
{
    rig.netif.full[0] = true;
    make_frame(100, 9);
    add_send(100, 100, 3);
    rig_show(&rig, TX);
    give_many(2, 1536);
    arrive(5000, 1);
    rig_pump(&rig); /* one frame waits for buffers now, one for the interface */
    virtio_device_pause(&rig.virtio->device);
    rig.netif.full[0] = false;
    ck_assert_uint_eq(rig.netif.watched[0], 0);
    give_many(20, 1536);
    struct vring_state before = rig.virtio->state->queues[RX];
    rig_pump(&rig);
    ck_assert_mem_eq(&before, &rig.virtio->state->queues[RX], sizeof(before));
    ck_assert_uint_eq(rig.netif.out[0].count, 0);
    ck_assert_uint_eq(before.next_available, before.next_used); /* nothing is under way */

    virtio_device_resume(&rig.virtio->device);
    rig_pump(&rig);
    expect_frame(5000, 1);
    make_frame(100, 9);
    expect_sent(100);
    expect_done(TX, 3);
}
END_TEST

static Suite *net_suite(void)
{
    Suite *suite = suite_create("net");
    TCase *out = tcase_create("from the guest");
    TCase *in = tcase_create("to the guest");

    tcase_set_timeout(out, 60);
    tcase_add_checked_fixture(out, set_up, tear_down);
    tcase_add_test(out, frames_leave_byte_for_byte_however_they_are_cut);
    tcase_add_test(out, what_no_interface_can_take_is_dropped);
    tcase_add_test(out, a_lying_header_reaches_no_interface);
    tcase_add_test(out, what_was_not_negotiated_is_not_asked_of_the_interface);
    tcase_add_test(out, a_full_interface_holds_frames_and_nothing_else);
    tcase_add_test(out, an_announcement_waits_for_room);
    tcase_add_test(out, a_flood_is_served_in_bounded_turns_with_few_interrupts);
    suite_add_tcase(suite, out);

    tcase_set_timeout(in, 90);
    tcase_add_checked_fixture(in, set_up_receive, tear_down);
    tcase_add_test(in, frames_arrive_byte_for_byte_in_merged_buffers);
    tcase_add_test(in, frames_of_all_lengths_in_one_stream_lose_nothing);
    tcase_add_test(in, without_merging_a_frame_takes_one_buffer);
    tcase_add_test(in, a_frame_that_fits_into_no_buffer_is_dropped_and_counted);
    tcase_add_test(in, a_large_frame_waits_for_buffers_and_the_interface_is_left_alone);
    tcase_add_test(in, a_large_frame_at_the_end_of_a_turn_is_not_forgotten);
    tcase_add_test(in, a_frame_that_all_buffers_together_cannot_take_is_dropped);
    tcase_add_test(in, buffers_of_one_byte_do_no_harm);
    tcase_add_test(in, without_buffers_nothing_spins_and_nothing_is_lost);
    tcase_add_test(in, a_driver_that_gives_buffers_in_time_need_not_ring);
    tcase_add_test(in, a_batch_is_one_interrupt);
    tcase_add_test(in, frames_that_the_driver_cannot_finish_are_not_given_to_it);
    tcase_add_test(in, what_came_before_the_driver_is_not_for_it);
    tcase_add_test(in, a_runt_is_dropped);
    tcase_add_test(in, a_receive_buffer_that_is_to_be_read_breaks_the_device_and_a_reset_mends_it);
    tcase_add_test(in, broken_rings_break_only_the_device);
    tcase_add_test(in, in_a_pause_nothing_moves_and_afterwards_all_goes_on);
    suite_add_tcase(suite, in);
    return suite;
}

int main(void)
{
    return unit_main(net_suite());
}
