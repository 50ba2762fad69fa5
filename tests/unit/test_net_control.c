/* SPDX-License-Identifier: MIT */
/*
 * What is around the frames of the network device: features, configuration, the control queue,
 * link, announcement, state. Frames themselves are test_net.c's.
 */
#include "core/stream.h"
#include "tests/unit/net_rig.h"
#include "tests/unit/unit.h"

enum {
    HEADER = NETIF_HEADER,
    RX = 0,
    TX = 1,
    OFFLOADS = 15,
    OK = 0,
    REFUSED = 1,
    NO_ANSWER = 0xee
};

static const struct netif_info offloading = {.offloads = OFFLOADS};
static const uint8_t own_mac[6] = {0x52, 0x54, 0, 0x11, 0x22, 0x33};

static struct rig rigs[2], *rig = &rigs[0];

static void set_up(void)
{
    rig_create(rig, &offloading, &(struct net_config){.queues = 4, .mtu = 1400});
    rig_start(rig, RIG_ALL);
    rig_pump(rig);
}

static void tear_down(void)
{
    rig_destroy(rig);
}

static bool is_broken(void)
{
    return rig->virtio->state->status & VIRTIO_NEEDS_RESET;
}

static struct net_stats stats(void)
{
    struct net_stats stats;
    net_stats(rig->net, &stats);
    return stats;
}

static uint64_t config(unsigned offset, unsigned width)
{
    uint64_t value = virtio_config_read(rig->virtio, offset, width);
    return width == 8 ? value : value & ((1ull << 8 * width) - 1);
}

static unsigned status(void)
{
    return (unsigned)config(6, 2);
}

/* Sends a command in pieces of `piece` bytes, and returns the answer. */
static unsigned command_in_pieces(const void *bytes, size_t length, size_t piece)
{
    struct model_driver *driver = &rig->drivers[rig->control];
    struct model_part parts[32];
    struct model_done done;
    unsigned count = 0;

    for (size_t at = 0; at < length; at += piece) {
        size_t part = length - at < piece ? length - at : piece;
        parts[count++] = model_out(driver, (const uint8_t *)bytes + at, (uint32_t)part);
        ck_assert_uint_lt(count, array_size(parts));
    }
    parts[count++] = model_in(driver, 1);
    ck_assert_int_ge(model_add(driver, parts, count, 0), 0);
    ck_assert(rig_show(rig, rig->control));
    rig_pump(rig);
    if (!model_reap(driver, &done))
        return NO_ANSWER;
    ck_assert_uint_eq(done.written, 1);
    return *(uint8_t *)model_bytes(driver, parts[count - 1].gpa, 1);
}

static unsigned command(const void *bytes, size_t length)
{
    return command_in_pieces(bytes, length, 4096);
}

#define COMMAND(...) command((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Whether a frame to that address, with that VLAN tag (-1: none), reaches the guest. */
static bool reaches(const uint8_t *mac, int vlan)
{
    struct model_part part = model_in(&rig->drivers[RX], 1600);
    uint8_t frame[HEADER + 60] = {0};
    struct model_done done;
    static bool given;

    memcpy(frame + HEADER, mac, 6);
    frame[HEADER + 12] = 0x08;
    if (vlan >= 0) {
        frame[HEADER + 12] = 0x81;
        frame[HEADER + 14] = (uint8_t)(0xe0 | vlan >> 8); /* with a priority */
        frame[HEADER + 15] = (uint8_t)vlan;
    }
    if (!given || model_outstanding(&rig->drivers[RX]) == 0)
        ck_assert_int_ge(model_add(&rig->drivers[RX], &part, 1, 0), 0);
    given = true;
    rig_show(rig, RX);
    rig_put(&rig->netif.in[0], frame, sizeof(frame));
    rig_pump(rig);
    ck_assert_uint_eq(rig->netif.in[0].count, 0);
    return model_reap(&rig->drivers[RX], &done);
}

static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t group[6] = {0x01, 0, 0x5e, 1, 2, 3}, group2[6] = {0x33, 0x33, 0, 0, 0, 1};
static const uint8_t other[6] = {0x52, 0x54, 0, 9, 9, 9}, third[6] = {2, 0, 0, 0, 0, 7};

static void stop_promiscuity(void)
{
    ck_assert_uint_eq(COMMAND(0, 0, 0), OK);
}

/* --- features and configuration ------------------------------------------------------------- */

START_TEST(what_the_interface_cannot_do_is_not_offered)
{
    static const struct {
        unsigned offloads;
        uint64_t there, missing;
    } cases[] = {
        {0, 0, RIG_FEATURE(CSUM) | RIG_FEATURE(GUEST_CSUM) | RIG_FEATURE(CTRL_GUEST_OFFLOADS)},
        {NETIF_CSUM, RIG_FEATURE(CSUM) | RIG_FEATURE(GUEST_CSUM),
         RIG_FEATURE(HOST_TSO4) | RIG_FEATURE(GUEST_TSO6) | RIG_FEATURE(HOST_ECN)},
        {NETIF_CSUM | NETIF_TSO4, RIG_FEATURE(HOST_TSO4) | RIG_FEATURE(GUEST_TSO4),
         RIG_FEATURE(HOST_TSO6) | RIG_FEATURE(GUEST_TSO6)},
        {OFFLOADS, RIG_FEATURE(GUEST_ECN) | RIG_FEATURE(HOST_ECN) | RIG_FEATURE(HOST_TSO6),
         RIG_FEATURE(GUEST_UFO) | RIG_FEATURE(HOST_UFO)},
    };

    for (unsigned i = 0; i < array_size(cases); i++) {
        rig_destroy(rig);
        rig_create(rig, &(struct netif_info){.offloads = cases[i].offloads},
                   &(struct net_config){0});
        ck_assert_uint_eq(rig->virtio->offered & cases[i].there, cases[i].there);
        ck_assert_uint_eq(rig->virtio->offered & cases[i].missing, 0);
        ck_assert_uint_eq(rig->virtio->offered & (RIG_FEATURE(MTU) | RIG_FEATURE(MQ)), 0);
    }
}
END_TEST

START_TEST(configuration_space_says_what_there_is)
{
    ck_assert_uint_eq(rig->virtio->offered & RIG_FEATURE(MTU), RIG_FEATURE(MTU));
    for (unsigned i = 0; i < 6; i++)
        ck_assert_uint_eq(config(i, 1), own_mac[i]);
    ck_assert_uint_eq(status(), VIRTIO_NET_S_LINK_UP);
    ck_assert_uint_eq(config(8, 2), 4);
    ck_assert_uint_eq(config(10, 2), 1400);
    ck_assert_uint_eq(config(12, 4), 0xffffffff);
    virtio_config_write(rig->virtio, 0, 4, 0); /* a modern driver's way is the control queue */
    ck_assert_uint_eq(config(0, 1), own_mac[0]);
}
END_TEST

START_TEST(no_more_pairs_than_the_interface_has)
{
    rig_destroy(rig);
    rig_create(rig, &(struct netif_info){.max_queues = 2}, &(struct net_config){.queues = 8});
    ck_assert_uint_eq(config(8, 2), 2);
    ck_assert_uint_eq(rig->virtio->queue_count, 5);
}
END_TEST

START_TEST(the_interface_learns_what_the_driver_accepted)
{
    static const struct {
        uint64_t features;
        unsigned offloads;
    } cases[] = {{0, 0},
                 {RIG_FEATURE(GUEST_CSUM), NETIF_CSUM},
                 {RIG_FEATURE(GUEST_CSUM) | RIG_FEATURE(GUEST_TSO6), NETIF_CSUM | NETIF_TSO6},
                 {RIG_ALL, OFFLOADS}};

    for (unsigned i = 0; i < array_size(cases); i++) {
        rig_start(rig, cases[i].features);
        rig_pump(rig);
        ck_assert_uint_eq(rig->netif.queues, 1);
        ck_assert_uint_eq(rig->netif.offloads, cases[i].offloads);
    }
    rig->netif.refusal = -EIO;
    rig_start(rig, RIG_ALL);
    rig_pump(rig);
    ck_assert_uint_eq(rig->troubles, 1);
    ck_assert(!is_broken());
}
END_TEST

/* --- the filter ----------------------------------------------------------------------------- */

START_TEST(at_first_everything_arrives)
{
    ck_assert(reaches(own_mac, -1) && reaches(other, -1) && reaches(group, 5));
}
END_TEST

START_TEST(the_filter_knows_its_own_address_and_broadcasts)
{
    stop_promiscuity();
    ck_assert(reaches(own_mac, -1) && reaches(broadcast, -1));
    ck_assert(!reaches(other, -1) && !reaches(group, -1));
    ck_assert_uint_eq(stats().filtered, 2);
    ck_assert_uint_eq(COMMAND(0, 0, 1), OK);
    ck_assert(reaches(other, -1) && reaches(group, -1));
}
END_TEST

START_TEST(each_mode_does_what_its_name_says)
{
    stop_promiscuity();
    ck_assert_uint_eq(COMMAND(0, 1, 1), OK); /* all multicast */
    ck_assert(reaches(group, -1) && !reaches(other, -1));
    ck_assert_uint_eq(COMMAND(0, 3, 9), OK); /* no multicast is stronger; any value is on */
    ck_assert(!reaches(group, -1) && reaches(broadcast, -1));
    ck_assert_uint_eq(COMMAND(0, 2, 1), OK); /* all unicast */
    ck_assert(reaches(other, -1));
    ck_assert_uint_eq(COMMAND(0, 4, 1), OK); /* no unicast */
    ck_assert(!reaches(other, -1) && !reaches(own_mac, -1));
    ck_assert_uint_eq(COMMAND(0, 5, 1), OK); /* no broadcast */
    ck_assert(!reaches(broadcast, -1));
    for (uint8_t mode = 1; mode < 6; mode++) {
        const uint8_t off[] = {0, mode, 0};
        ck_assert_uint_eq(command(off, sizeof(off)), OK);
    }
    ck_assert(reaches(broadcast, -1) && reaches(own_mac, -1) && !reaches(group, -1));
    ck_assert_uint_eq(COMMAND(0, 6, 1), REFUSED);
    ck_assert_uint_eq(COMMAND(0, 0xff, 1), REFUSED);
    ck_assert_uint_eq(COMMAND(0, 0), REFUSED);
}
END_TEST

static size_t put_table(uint8_t *to, unsigned count, uint8_t first)
{
    memset(to, 0, 4);
    to[0] = (uint8_t)count;
    to[1] = (uint8_t)(count >> 8);
    for (unsigned i = 0; i < count; i++) {
        memcpy(to + 4 + 6 * (size_t)i, (uint8_t[]){first, 0, 0, 0, (uint8_t)(i >> 8), (uint8_t)i},
               6);
    }
    return 4 + 6 * (size_t)count;
}

static unsigned set_tables(unsigned unicast, unsigned multicast, size_t piece)
{
    static uint8_t bytes[8192];
    size_t length = 2;

    bytes[0] = 1;
    bytes[1] = 0;
    length += put_table(bytes + length, unicast, 0x02);
    length += put_table(bytes + length, multicast, 0x03);
    return command_in_pieces(bytes, length, piece);
}

static bool passes(uint8_t first, unsigned number)
{
    const uint8_t mac[6] = {first, 0, 0, 0, (uint8_t)(number >> 8), (uint8_t)number};
    return reaches(mac, -1);
}

START_TEST(addresses_in_the_tables_pass_and_too_many_let_all_pass)
{
    stop_promiscuity();
    ck_assert_uint_eq(set_tables(3, 2, 7), OK);
    ck_assert(passes(2, 0) && passes(2, 2) && !passes(2, 3));
    ck_assert(passes(3, 0) && passes(3, 1) && !passes(3, 2));
    ck_assert_uint_eq(set_tables(64, 64, 4096), OK);
    ck_assert(passes(2, 63) && !passes(2, 64) && passes(3, 63) && !passes(3, 64));
    ck_assert_uint_eq(set_tables(65, 1, 4096), OK);
    ck_assert(passes(2, 900) && passes(3, 0) && !passes(3, 1));
    ck_assert_uint_eq(set_tables(1, 500, 4096), OK);
    ck_assert(passes(2, 0) && !passes(2, 1) && passes(3, 900));
    ck_assert_uint_eq(set_tables(0, 0, 4096), OK);
    ck_assert(!passes(2, 0) && !passes(3, 0) && reaches(own_mac, -1));
}
END_TEST

START_TEST(a_table_that_lies_about_its_length_changes_nothing)
{
    stop_promiscuity();
    ck_assert_uint_eq(set_tables(1, 1, 4096), OK);
    ck_assert_uint_eq(COMMAND(1, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 9), REFUSED);
    ck_assert_uint_eq(COMMAND(1, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9), REFUSED);
    ck_assert_uint_eq(COMMAND(1, 0, 0, 0, 0, 0, 1, 0, 0, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(1, 0, 0, 0, 0, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(1, 0), REFUSED);
    ck_assert(passes(2, 0) && passes(3, 0) && !passes(2, 9));
}
END_TEST

START_TEST(the_driver_may_have_another_address)
{
    stop_promiscuity();
    ck_assert_uint_eq(COMMAND(1, 1, 2, 0, 0, 0, 0, 7), OK);
    ck_assert(reaches(third, -1) && !reaches(own_mac, -1));
    ck_assert_uint_eq(config(0, 1), 2);
    ck_assert_uint_eq(config(5, 1), 7);
    ck_assert_uint_eq(COMMAND(1, 1, 2, 0, 0, 0, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(1, 2, 2, 0, 0, 0, 0, 7), REFUSED);
    rig_start(rig, RIG_ALL); /* a reset is the way back */
    ck_assert_uint_eq(config(0, 1), own_mac[0]);
}
END_TEST

START_TEST(vlans_are_filtered_when_the_driver_asked_for_it)
{
    stop_promiscuity();
    ck_assert(reaches(own_mac, -1) && !reaches(own_mac, 5));
    ck_assert_uint_eq(COMMAND(2, 0, 5, 0), OK);
    ck_assert_uint_eq(COMMAND(2, 0, 0xff, 0x0f), OK);
    ck_assert(reaches(own_mac, 5) && reaches(own_mac, 4095) && !reaches(own_mac, 6));
    ck_assert(!reaches(other, 5));
    ck_assert_uint_eq(COMMAND(2, 1, 5, 0), OK);
    ck_assert(!reaches(own_mac, 5) && reaches(own_mac, 4095));
    ck_assert_uint_eq(COMMAND(2, 0, 0, 0x10), REFUSED); /* 4096 */
    ck_assert_uint_eq(COMMAND(2, 1, 0xff, 0xff), REFUSED);
    ck_assert_uint_eq(COMMAND(2, 2, 5, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(2, 0, 5), REFUSED);

    rig_start(rig, ~RIG_FEATURE(CTRL_VLAN));
    rig_pump(rig);
    stop_promiscuity();
    ck_assert(reaches(own_mac, 5));
}
END_TEST

START_TEST(a_reset_opens_the_filter_again)
{
    stop_promiscuity();
    rig_start(rig, ~RIG_FEATURE(CTRL_RX));
    rig_pump(rig);
    ck_assert(reaches(other, 7) && reaches(group2, -1));
}
END_TEST

/* --- the other commands --------------------------------------------------------------------- */

START_TEST(what_was_not_negotiated_is_refused)
{
    static const struct {
        uint64_t feature;
        uint8_t bytes[16];
        size_t length;
    } cases[] = {
        {RIG_FEATURE(CTRL_RX), {0, 0, 0}, 3},
        {RIG_FEATURE(CTRL_RX), {1, 0}, 10},
        {RIG_FEATURE(CTRL_RX_EXTRA), {0, 2, 1}, 3},
        {RIG_FEATURE(CTRL_MAC_ADDR), {1, 1, 2}, 8},
        {RIG_FEATURE(CTRL_VLAN), {2, 0, 1}, 4},
        {RIG_FEATURE(GUEST_ANNOUNCE), {3, 0}, 2},
        {RIG_FEATURE(MQ), {4, 0, 1}, 4},
        {RIG_FEATURE(CTRL_GUEST_OFFLOADS), {5, 0}, 10},
    };

    for (unsigned i = 0; i < array_size(cases); i++) {
        rig_start(rig, RIG_ALL);
        rig_pump(rig);
        ck_assert_msg(command(cases[i].bytes, cases[i].length) == OK, "case %u", i);
        rig_start(rig, ~cases[i].feature);
        rig_pump(rig);
        ck_assert_msg(command(cases[i].bytes, cases[i].length) == REFUSED, "case %u", i);
    }
    ck_assert_uint_eq(COMMAND(6, 0, 1), REFUSED);
    ck_assert_uint_eq(COMMAND(255, 255), REFUSED);
}
END_TEST

START_TEST(without_a_control_queue_nobody_listens_there)
{
    rig_start(rig, ~RIG_FEATURE(CTRL_VQ));
    rig_pump(rig);
    ck_assert_uint_eq(COMMAND(0, 0, 0), NO_ANSWER);
    ck_assert(!is_broken());
}
END_TEST

START_TEST(a_command_without_room_for_the_answer_breaks_the_device)
{
    struct model_driver *driver = &rig->drivers[rig->control];
    for (unsigned i = 0; i < 3; i++) {
        rig_start(rig, RIG_ALL);
        rig_pump(rig);
        struct model_part parts[] = {model_out(driver, "\0\0\1", i == 0 ? 3 : 1),
                                     model_in(driver, 1)};
        ck_assert_int_ge(model_add(driver, i == 2 ? parts + 1 : parts, i == 0 ? 1 : 2 - i / 2, 0),
                         0);
        rig_show(rig, rig->control);
        rig_pump(rig);
        ck_assert_msg(is_broken(), "case %u", i);
    }
}
END_TEST

START_TEST(offloads_change_while_the_driver_runs)
{
    ck_assert_uint_eq(COMMAND(5, 0, 0, 0, 0, 0, 0, 0, 0, 0), OK);
    ck_assert_uint_eq(rig->netif.offloads, 0);
    ck_assert_uint_eq(COMMAND(5, 0, 0x82, 1, 0, 0, 0, 0, 0, 0), OK);
    ck_assert_uint_eq(rig->netif.offloads, NETIF_CSUM | NETIF_TSO4 | NETIF_TSO6);
    ck_assert_uint_eq(COMMAND(5, 0, 0x82, 5, 0, 0, 0, 0, 0, 0), REFUSED); /* UFO */
    ck_assert_uint_eq(COMMAND(5, 0, 2, 0, 0, 0, 0, 0, 0, 0x80), REFUSED);
    ck_assert_uint_eq(COMMAND(5, 0, 2, 0, 0, 0, 0, 0, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(5, 1, 2, 0, 0, 0, 0, 0, 0, 0), REFUSED);
    ck_assert_uint_eq(rig->netif.offloads, NETIF_CSUM | NETIF_TSO4 | NETIF_TSO6);
    rig->netif.refusal = -EIO;
    ck_assert_uint_eq(COMMAND(5, 0, 0, 0, 0, 0, 0, 0, 0, 0), REFUSED);
    rig_start(rig, ~RIG_FEATURE(GUEST_TSO6));
    rig_pump(rig);
    ck_assert_uint_eq(COMMAND(5, 0, 0x82, 1, 0, 0, 0, 0, 0, 0), REFUSED); /* not accepted before */
}
END_TEST

/* --- many queues ---------------------------------------------------------------------------- */

static void send_on(unsigned pair)
{
    static const uint8_t frame[HEADER + 60];
    struct model_driver *driver = &rig->drivers[2 * pair + 1];
    struct model_part part = model_out(driver, frame, sizeof(frame));
    struct model_done done;

    ck_assert_int_ge(model_add(driver, &part, 1, pair), 0);
    rig_show(rig, 2 * pair + 1);
    rig_pump(rig);
    ck_assert(model_reap(driver, &done));
}

static bool receives_on(unsigned pair)
{
    static const uint8_t frame[HEADER + 60];
    struct model_driver *driver = &rig->drivers[2 * pair];
    struct model_done done;

    if (model_outstanding(driver) == 0) {
        struct model_part part = model_in(driver, 2000);
        ck_assert_int_ge(model_add(driver, &part, 1, pair), 0);
        rig_show(rig, 2 * pair);
    }
    rig_put(&rig->netif.in[pair], frame, sizeof(frame));
    rig_pump(rig);
    bool got = model_reap(driver, &done);
    rig_empty(&rig->netif.in[pair]);
    return got;
}

START_TEST(pairs_come_into_use_by_command)
{
    static const unsigned counts[] = {1, 4, 2, 3, 1};

    for (unsigned i = 0; i < array_size(counts); i++) {
        ck_assert_uint_eq(COMMAND(4, 0, (uint8_t)counts[i], 0), OK);
        ck_assert_uint_eq(rig->netif.queues, counts[i]);
        for (unsigned pair = 0; pair < 4; pair++) {
            bool used = pair < counts[i];
            send_on(pair); /* comes back in any case */
            ck_assert_uint_eq(rig->netif.out[pair].count, used);
            rig_empty(&rig->netif.out[pair]);
            ck_assert_int_eq(receives_on(pair), used);
        }
    }
    ck_assert_uint_eq(COMMAND(4, 0, 0, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(4, 0, 5, 0), REFUSED);
    ck_assert_uint_eq(COMMAND(4, 0, 1, 1), REFUSED);
    ck_assert_uint_eq(COMMAND(4, 0, 1), REFUSED);
    ck_assert_uint_eq(COMMAND(4, 1, 1, 0), REFUSED);
    ck_assert_uint_eq(rig->netif.queues, 1);
}
END_TEST

START_TEST(pairs_that_the_interface_refuses_stay_out_of_use)
{
    rig->netif.refusal = -EIO;
    ck_assert_uint_eq(COMMAND(4, 0, 4, 0), REFUSED);
    ck_assert(!receives_on(3) && receives_on(0));
}
END_TEST

START_TEST(a_driver_that_does_not_know_of_pairs_has_its_control_queue_in_third_place)
{
    rig_start(rig, ~RIG_FEATURE(MQ));
    rig_pump(rig);
    ck_assert_uint_eq(rig->control, 2);
    stop_promiscuity();
    ck_assert(!reaches(other, -1));
    ck_assert(!receives_on(2));
    ck_assert(!is_broken());
}
END_TEST

/* --- link and announcement ------------------------------------------------------------------ */

START_TEST(the_link_is_the_interface_and_the_cable_together)
{
    const struct netif_handlers *handlers = rig->netif.handlers;
    unsigned interrupts = rig->config_interrupts;

    net_set_link(rig->net, false);
    ck_assert_uint_eq(status(), 0);
    ck_assert_uint_eq(rig->config_interrupts, ++interrupts);
    handlers->link_changed(handlers->ctx, false);
    net_set_link(rig->net, true);
    ck_assert_uint_eq(status(), 0);
    ck_assert_uint_eq(rig->config_interrupts, interrupts); /* nothing changed for the guest */
    handlers->link_changed(handlers->ctx, true);
    ck_assert_uint_eq(status(), VIRTIO_NET_S_LINK_UP);
    ck_assert_uint_eq(rig->config_interrupts, ++interrupts);
}
END_TEST

START_TEST(a_pulled_cable_loses_frames_and_harms_nobody)
{
    ck_assert(receives_on(0));
    net_set_link(rig->net, false);
    rig_pump(rig);
    ck_assert(!receives_on(0));
    send_on(0);
    ck_assert_uint_eq(rig->netif.out[0].count, 0);
    net_set_link(rig->net, true);
    rig_pump(rig);
    ck_assert(receives_on(0));
    send_on(0);
    ck_assert_uint_eq(rig->netif.out[0].count, 1);
    /* The cable is the host's: no reset of the driver plugs it in. */
    net_set_link(rig->net, false);
    rig_start(rig, RIG_ALL);
    ck_assert_uint_eq(status(), 0);
}
END_TEST

START_TEST(what_waited_while_the_cable_was_out_is_not_delivered_late)
{
    rig_start(rig, RIG_ALL); /* without buffers, so that nobody takes frames meanwhile */
    rig_pump(rig);
    net_set_link(rig->net, false);
    static const uint8_t frame[HEADER + 60];
    for (unsigned i = 0; i < 10; i++)
        rig_put(&rig->netif.in[0], frame, sizeof(frame));
    net_set_link(rig->net, true);
    rig_pump(rig);
    ck_assert_uint_eq(rig->netif.in[0].count, 0);
    ck_assert(receives_on(0));
}
END_TEST

START_TEST(an_announcement_is_asked_for_made_and_acknowledged)
{
    unsigned interrupts = rig->config_interrupts;

    ck_assert(net_announce(rig->net));
    ck_assert_uint_eq(status(), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    ck_assert_uint_eq(rig->config_interrupts, interrupts + 1);
    ck_assert_uint_eq(rig->announced, 0);
    rig_pump(rig);
    ck_assert_uint_eq(rig->announced, 1);
    struct rig_frame rarp = rig_get(&rig->netif.out[0]);
    ck_assert_ptr_nonnull(rarp.bytes);
    ck_assert_uint_eq(rarp.length, HEADER + 60);
    ck_assert_mem_eq(rarp.bytes + HEADER, broadcast, 6);
    ck_assert_mem_eq(rarp.bytes + HEADER + 6, own_mac, 6);
    ck_assert_mem_eq(rarp.bytes + HEADER + 12, "\x80\x35\0\1\x08\0\6\4\0\3", 10);
    ck_assert_mem_eq(rarp.bytes + HEADER + 22, own_mac, 6);
    ck_assert_mem_eq(rarp.bytes + HEADER + 32, own_mac, 6);
    free(rarp.bytes);

    ck_assert_uint_eq(COMMAND(3, 1), REFUSED);
    ck_assert_uint_ne(status() & VIRTIO_NET_S_ANNOUNCE, 0);
    ck_assert_uint_eq(COMMAND(3, 0), OK);
    ck_assert_uint_eq(status(), VIRTIO_NET_S_LINK_UP);
    ck_assert_uint_eq(rig->netif.out[0].count, 0); /* once */
}
END_TEST

START_TEST(a_guest_that_cannot_announce_is_announced)
{
    rig_start(rig, ~RIG_FEATURE(GUEST_ANNOUNCE));
    rig_pump(rig);
    ck_assert(net_announce(rig->net));
    rig_pump(rig);
    ck_assert_uint_eq(status(), VIRTIO_NET_S_LINK_UP);
    ck_assert_uint_eq(rig->netif.out[0].count, 1);
    ck_assert_uint_eq(rig->announced, 1);
}
END_TEST

/* Without a driver, with the cable out, with the interface down. */
START_TEST(where_nobody_hears_nothing_counts_as_announced)
{
    net_set_link(rig->net, false);
    ck_assert(!net_announce(rig->net));
    rig_pump(rig);
    net_set_link(rig->net, true);
    virtio_device_pause(&rig->virtio->device);
    rig->netif.netif.info.link_up = false;
    ck_assert(!net_announce(rig->net));
    rig->netif.netif.info.link_up = true;
    ck_assert(net_announce(rig->net));
    virtio_device_reset(&rig->virtio->device);
    ck_assert(!net_announce(rig->net));
    ck_assert_uint_eq(rig->announced, 0);
}
END_TEST

START_TEST(what_is_asked_in_a_pause_happens_after_it)
{
    virtio_device_pause(&rig->virtio->device);
    const void *state = rig->virtio->device.state;
    size_t size = rig->virtio->device.table->size;
    void *before = malloc(size);
    ck_assert_ptr_nonnull(before);
    memcpy(before, state, size);
    net_set_link(rig->net, false);
    net_announce(rig->net);
    ck_assert_mem_eq(before, state, size);
    free(before);
    virtio_device_resume(&rig->virtio->device);
    ck_assert_uint_eq(status(), VIRTIO_NET_S_ANNOUNCE);
}
END_TEST

/* --- state ---------------------------------------------------------------------------------- */

static struct state_item item(struct rig *of)
{
    const struct device *device = &of->virtio->device;
    return (struct state_item){device->table, device->instance, device->state};
}

/* Leaves every field different from 0, and not at its end. */
static void use_everything(void)
{
    stop_promiscuity();
    ck_assert_uint_eq(set_tables(5, 70, 4096), OK);
    ck_assert_uint_eq(set_tables(5, 6, 4096), OK);
    for (uint8_t mode = 1; mode < 6; mode += 2) {
        const uint8_t on[] = {0, mode, 1};
        ck_assert_uint_eq(command(on, sizeof(on)), OK);
    }
    ck_assert_uint_eq(COMMAND(2, 0, 5, 0), OK);
    ck_assert_uint_eq(COMMAND(4, 0, 3, 0), OK);
    net_announce(rig->net);
    rig_pump(rig);
    virtio_device_pause(&rig->virtio->device);
}

START_TEST(state_is_saved_whole)
{
    use_everything();
    unit_check_table(rig->virtio->device.table, rig->virtio->device.state);
}
END_TEST

/* What the driver and its memory are moves to a device of another machine; the state does by load.
 */
static void move_to(struct rig *there)
{
    struct state_item from = item(rig), to = item(there);
    struct stream_buffer buffer;
    void *ram;

    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, &from, 1), 0);
    stream_buffer_rewind(&buffer);
    ck_assert_int_eq(state_load(&buffer.stream, &to, 1, NULL), 0);
    stream_buffer_finish(&buffer);
    ck_assert_int_eq(memory_borrow(rig->memory, 0, RIG_RAM, &ram), 0);
    ck_assert_int_eq(memory_write(there->memory, 0, ram, RIG_RAM), 0);
    memcpy(there->drivers, rig->drivers, sizeof(rig->drivers));
    for (unsigned i = 0; i < RIG_QUEUES; i++)
        there->drivers[i].config.memory = there->memory;
    there->control = rig->control;
    rig_destroy(rig);
    rig = there;
}

START_TEST(another_device_goes_on_from_the_state)
{
    static const uint8_t frame[HEADER + 60] = {[HEADER] = 0x42};
    struct model_part part = model_out(&rig->drivers[TX], frame, sizeof(frame));
    struct model_done done;

    stop_promiscuity();
    ck_assert_uint_eq(COMMAND(1, 1, 2, 0, 0, 0, 0, 7), OK);
    ck_assert_uint_eq(COMMAND(4, 0, 2, 0), OK);
    ck_assert_uint_eq(COMMAND(5, 0, 2, 0, 0, 0, 0, 0, 0, 0), OK);
    ck_assert(reaches(third, -1) && !reaches(other, -1));
    rig->netif.full[0] = true; /* so that a frame is under way */
    ck_assert_int_ge(model_add(&rig->drivers[TX], &part, 1, 11), 0);
    rig_show(rig, TX);
    rig_pump(rig);
    virtio_device_pause(&rig->virtio->device);

    rig_create(&rigs[1], &offloading, &(struct net_config){.queues = 4, .mtu = 1400});
    virtio_device_pause(&rigs[1].virtio->device);
    move_to(&rigs[1]);
    net_announce(rig->net);
    virtio_device_resume(&rig->virtio->device);
    rig_pump(rig);
    ck_assert_uint_eq(rig->netif.queues, 2);
    ck_assert_uint_eq(rig->netif.offloads, NETIF_CSUM);
    ck_assert_uint_eq(rig->netif.out[0].count, 2); /* the announcement, and what was under way */
    free(rig_get(&rig->netif.out[0]).bytes);
    struct rig_frame sent = rig_get(&rig->netif.out[0]);
    ck_assert_uint_eq(sent.length, sizeof(frame));
    ck_assert_mem_eq(sent.bytes, frame, sizeof(frame));
    free(sent.bytes);
    ck_assert(model_reap(&rig->drivers[TX], &done) && done.token == 11);
    ck_assert_uint_ne(status() & VIRTIO_NET_S_ANNOUNCE, 0);
    ck_assert(reaches(third, -1) && !reaches(own_mac, -1) && !reaches(other, -1));
    stop_promiscuity(); /* the control queue goes on too */
}
END_TEST

START_TEST(a_state_that_fits_another_device_breaks_this_one_at_most)
{
    struct stream_buffer buffer;
    struct rig *small = &rigs[1];

    use_everything();
    rig_create(small, &(struct netif_info){0}, &(struct net_config){.queues = 1});
    virtio_device_pause(&small->virtio->device);
    stream_buffer_init(&buffer, 0);
    struct state_item from = item(rig), to = item(small);
    ck_assert_int_eq(state_save(&buffer.stream, &from, 1), 0);
    stream_buffer_rewind(&buffer);
    ck_assert_int_eq(state_load(&buffer.stream, &to, 1, NULL), 0);
    stream_buffer_finish(&buffer);
    virtio_device_resume(&small->virtio->device);
    rig_pump(small);
    ck_assert(small->virtio->state->status & VIRTIO_NEEDS_RESET);
    ck_assert_int_eq(state_check(to.table, to.object, NULL), 0); /* it can be saved again */
    rig_start(small, RIG_ALL);
    rig_pump(small);
    ck_assert(!(small->virtio->state->status & VIRTIO_NEEDS_RESET));
    rig_destroy(small);
}
END_TEST

static Suite *net_control_suite(void)
{
    Suite *suite = suite_create("net_control");
    TCase *tests = tcase_create("promises");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, what_the_interface_cannot_do_is_not_offered);
    tcase_add_test(tests, configuration_space_says_what_there_is);
    tcase_add_test(tests, no_more_pairs_than_the_interface_has);
    tcase_add_test(tests, the_interface_learns_what_the_driver_accepted);
    tcase_add_test(tests, at_first_everything_arrives);
    tcase_add_test(tests, the_filter_knows_its_own_address_and_broadcasts);
    tcase_add_test(tests, each_mode_does_what_its_name_says);
    tcase_add_test(tests, addresses_in_the_tables_pass_and_too_many_let_all_pass);
    tcase_add_test(tests, a_table_that_lies_about_its_length_changes_nothing);
    tcase_add_test(tests, the_driver_may_have_another_address);
    tcase_add_test(tests, vlans_are_filtered_when_the_driver_asked_for_it);
    tcase_add_test(tests, a_reset_opens_the_filter_again);
    tcase_add_test(tests, what_was_not_negotiated_is_refused);
    tcase_add_test(tests, without_a_control_queue_nobody_listens_there);
    tcase_add_test(tests, a_command_without_room_for_the_answer_breaks_the_device);
    tcase_add_test(tests, offloads_change_while_the_driver_runs);
    tcase_add_test(tests, pairs_come_into_use_by_command);
    tcase_add_test(tests, pairs_that_the_interface_refuses_stay_out_of_use);
    tcase_add_test(tests,
                   a_driver_that_does_not_know_of_pairs_has_its_control_queue_in_third_place);
    tcase_add_test(tests, the_link_is_the_interface_and_the_cable_together);
    tcase_add_test(tests, a_pulled_cable_loses_frames_and_harms_nobody);
    tcase_add_test(tests, what_waited_while_the_cable_was_out_is_not_delivered_late);
    tcase_add_test(tests, an_announcement_is_asked_for_made_and_acknowledged);
    tcase_add_test(tests, a_guest_that_cannot_announce_is_announced);
    tcase_add_test(tests, where_nobody_hears_nothing_counts_as_announced);
    tcase_add_test(tests, what_is_asked_in_a_pause_happens_after_it);
    tcase_add_test(tests, state_is_saved_whole);
    tcase_add_test(tests, another_device_goes_on_from_the_state);
    tcase_add_test(tests, a_state_that_fits_another_device_breaks_this_one_at_most);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(net_control_suite());
}
