/* SPDX-License-Identifier: MIT */
/*
 * A network interface (virtio 1.2, section 5.1). Queue 2n receives and queue 2n + 1 sends, for each
 * pair n; the control queue comes behind the pairs that the driver knows of.
 *
 * Frames go from and to the guest's own buffers (net_receive.c, net_send.c). Everything happens on
 * the device's loop: a doorbell or a ready interface begins a turn, which serves one queue, at most
 * NET_FRAMES_A_TURN frames of it. The interface belongs to that loop. What is decided on another
 * thread (the driver has started, the guest has moved) is noted as due, and the next turn begins
 * with it.
 *
 * The link that the guest sees is up when the interface's own is and the cable is plugged in. With
 * the cable pulled frames are lost in both directions, as they are in life.
 */
#include "core/clock.h"
#include "virtio/net_parts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_NETWORK = 0x020000 };

static struct net *from_virtio(struct virtio *virtio)
{
    return container_of(virtio, struct net, virtio);
}

/* --- pairs and the interface ---------------------------------------------------------------- */

unsigned net_known_pairs(const struct net *net)
{
    return net_has(net, NET_FEATURE(MQ)) ? net->pairs : 1;
}

/* The state may have been loaded, and say anything that its table allows. */
unsigned net_used_pairs(const struct net *net)
{
    unsigned known = net_known_pairs(net);
    return net->state.pairs < known ? net->state.pairs : known;
}

void net_watch(struct net *net, unsigned index)
{
    struct net_pair *pair = &net->pair[index];
    unsigned what = (pair->receiving ? NETIF_READABLE : 0u) | (pair->blocked ? NETIF_WRITABLE : 0u);

    if (what == pair->watched)
        return;
    pair->watched = what;
    net->netif->ops->watch(net->netif, index, what);
}

int net_configure(struct net *net)
{
    static const struct {
        uint64_t feature;
        unsigned offload;
    } names[] = {
        {NET_FEATURE(GUEST_CSUM), NETIF_CSUM},
        {NET_FEATURE(GUEST_TSO4), NETIF_TSO4},
        {NET_FEATURE(GUEST_TSO6), NETIF_TSO6},
        {NET_FEATURE(GUEST_ECN), NETIF_TSO_ECN},
    };
    unsigned offloads = 0;

    for (unsigned i = 0; i < array_size(names); i++)
        if (net->state.offloads & names[i].feature)
            offloads |= names[i].offload;
    return net->netif->ops->configure(net->netif, net_used_pairs(net), offloads);
}

/* A reverse ARP request from the guest's address, which asks nothing: switches learn from it where
 * the guest is now. For guests that do not announce themselves. */
static void send_rarp(struct net *net)
{
    enum { REVERSE_ARP = 14, OUR_MAC = 22, THEIR_MAC = 32, LEAST_FRAME = 60 };
    static const uint8_t arp[] = {0x80, 0x35, 0, 1, 0x08, 0, 6, 4, 0, 3};
    uint8_t bytes[NETIF_HEADER + LEAST_FRAME] = {0};
    uint8_t *frame = bytes + NETIF_HEADER;
    const uint8_t *mac = net->state.space.mac;
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};

    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + REVERSE_ARP - 2, arp, sizeof(arp));
    memcpy(frame + OUR_MAC, mac, 6);
    memcpy(frame + THEIR_MAC, mac, 6);
    if (!net->state.cable)
        return;
    ssize_t sent = net->netif->ops->send(net->netif, 0, &iov, 1);
    if (sent == -EAGAIN) {
        net->due |= NET_DUE_RARP;
        net->pair[0].blocked = true;
        net_watch(net, 0);
    } else if (sent >= 0 && net->config.announced) {
        net->config.announced(net->config.ctx);
    } /* else nobody hears us: the guest's own frames will do later */
}

static void do_what_is_due(struct net *net)
{
    unsigned due = net->due;

    net->due = 0;
    if ((due & NET_DUE_CONFIGURE) && net_configure(net) < 0 && net->config.trouble)
        net->config.trouble(
            net->config.ctx,
            "the network interface refuses the guest's settings: it may lose frames");
    for (unsigned i = 0; (due & NET_DUE_DISCARD) && i < net_used_pairs(net); i++)
        net_discard(net, i);
    if (due & NET_DUE_RARP)
        send_rarp(net);
}

static void serve(struct net *net, unsigned pair, bool send, bool receive)
{
    uint64_t before = net->stats.sent + net->stats.received;

    if (send)
        net_send(net, pair);
    if (receive)
        net_receive(net, pair);
    pace_turn(&net->pace, (unsigned)(net->stats.sent + net->stats.received - before),
              clock_monotonic_ns());
}

static void handle_ready(void *ctx, unsigned queue, unsigned what)
{
    struct net *net = ctx;

    if (queue >= net->pairs)
        return;
    virtio_lock(&net->virtio);
    do_what_is_due(net);
    serve(net, queue, what & NETIF_WRITABLE, what & NETIF_READABLE);
    virtio_unlock(&net->virtio);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct net *net = ctx;
    if (net->config.trouble)
        net->config.trouble(net->config.ctx, sentence);
}

/* --- link and announcement ------------------------------------------------------------------ */

/* Lock held, any thread. */
static void update_link(struct net *net)
{
    uint16_t *status = &net->state.space.status;
    bool up = net->state.cable && net->link_up;

    if (up == !!(*status & VIRTIO_NET_S_LINK_UP))
        return;
    *status ^= VIRTIO_NET_S_LINK_UP;
    virtio_config_changed(&net->virtio);
}

static void handle_link(void *ctx, bool up)
{
    struct net *net = ctx;

    virtio_lock(&net->virtio);
    net->link_up = up;
    update_link(net);
    virtio_unlock(&net->virtio);
}

/* Lock held, any thread. */
static void make_due(struct net *net, unsigned due)
{
    net->due |= due;
    virtio_ring_doorbell(&net->virtio, 0);
}

static void plug(struct net *net, bool plugged)
{
    if (plugged && !net->state.cable)
        make_due(net, NET_DUE_DISCARD); /* of before it was */
    net->state.cable = plugged;
    update_link(net);
}

static void announce(struct net *net)
{
    make_due(net, NET_DUE_RARP);
    if (!net_has(net, NET_FEATURE(GUEST_ANNOUNCE)))
        return;
    net->state.space.status |= VIRTIO_NET_S_ANNOUNCE;
    virtio_config_changed(&net->virtio);
}

void net_set_link(struct net *net, bool up)
{
    virtio_lock(&net->virtio);
    if (net->virtio.running) {
        plug(net, up);
    } else {
        net->cable_wanted = true;
        net->cable_wish = up;
    }
    virtio_unlock(&net->virtio);
}

bool net_announce(struct net *net)
{
    virtio_lock(&net->virtio);
    const struct net_state *state = &net->state;
    bool up = net->virtio.running ? net->link_up : net->netif->info.link_up;
    bool heard = up && state->cable && (state->virtio.status & VIRTIO_DRIVER_OK);
    if (net->virtio.running)
        announce(net);
    else
        net->announce_wanted = true;
    virtio_unlock(&net->virtio);
    return heard;
}

void net_stats(struct net *net, struct net_stats *ret_stats)
{
    virtio_lock(&net->virtio);
    *ret_stats = net->stats;
    virtio_unlock(&net->virtio);
}

/* --- virtio --------------------------------------------------------------------------------- */

/* All but what is virtio.c's, and the cable, which is not the guest's. Lock held, any thread. */
static void set_power_on(struct net *net)
{
    struct net_state *state = &net->state;

    state->offloads = 0;
    state->pairs = 1;
    state->space = (struct net_space){.max_pairs = (uint16_t)net->pairs, .mtu = net->config.mtu};
    memcpy(state->space.mac, net->config.mac, sizeof(state->space.mac));
    if (state->cable && net->link_up)
        state->space.status = VIRTIO_NET_S_LINK_UP;
    net_filter_reset(&state->filter);
    for (unsigned i = 0; i < net->pairs; i++)
        net->pair[i].held_length = 0;
}

static void net_start(struct virtio *virtio)
{
    struct net *net = from_virtio(virtio);

    net->state.offloads = net->state.virtio.features & NET_GUEST_OFFLOADS;
    net->due |= NET_DUE_CONFIGURE | NET_DUE_DISCARD;
}

/* Nothing of ours touches guest memory outside of a turn, and a turn holds the lock. */
static bool net_stop(struct virtio *virtio)
{
    set_power_on(from_virtio(virtio));
    return true;
}

static void net_notify(struct virtio *virtio, unsigned queue)
{
    struct net *net = from_virtio(virtio);
    unsigned pair = queue / 2;

    do_what_is_due(net);
    if (queue == 2 * net_known_pairs(net)) {
        if (net_has(net, NET_FEATURE(CTRL_VQ)))
            net_control(net, queue);
    } else if (pair >= net_known_pairs(net)) {
        return; /* the driver does not know of these */
    } else if (queue % 2 == 1) {
        if (!net->pair[pair].blocked)
            serve(net, pair, true, false);
    } else if (!net->pair[pair].receiving || net->pair[pair].held_length > 0) {
        serve(net, pair, false, true);
    }
}

static void net_pause(struct virtio *virtio)
{
    struct net *net = from_virtio(virtio);

    for (unsigned i = 0; i < net->pairs; i++) {
        net->pair[i].receiving = net->pair[i].blocked = false;
        net_watch(net, i);
    }
}

/* Each queue is notified afterwards, which begins all that was going on. */
static void net_resume(struct virtio *virtio)
{
    struct net *net = from_virtio(virtio);

    /* A state from elsewhere may not fit: virtio.c has taken features away then. */
    net->state.offloads &= net->state.virtio.features;
    net->state.space.max_pairs = (uint16_t)net->pairs;
    net->due |= NET_DUE_CONFIGURE;
    net->link_up = net->netif->info.link_up;
    update_link(net);
    if (net->cable_wanted)
        plug(net, net->cable_wish);
    if (net->announce_wanted)
        announce(net);
    net->cable_wanted = net->announce_wanted = false;
}

static void net_reset(struct virtio *virtio)
{
    set_power_on(from_virtio(virtio));
}

static const struct virtio_ops ops = {
    .id = 1,
    .pci_class = CLASS_NETWORK,
    .start = net_start,
    .notify = net_notify,
    .stop = net_stop,
    .pause = net_pause,
    .resume = net_resume,
    .reset = net_reset,
};

static void net_destroy(struct device *device)
{
    struct net *net = container_of(device, struct net, virtio.device);

    if (net->attached)
        net->netif->ops->detach(net->netif);
    virtio_finish(&net->virtio);
    for (unsigned i = 0; i < net->pairs; i++)
        free(net->pair[i].held);
    free(net);
}

static const struct device_ops device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = net_destroy,
};

/* --- state ---------------------------------------------------------------------------------- */

static const struct state_field space_fields[] = {
    STATE_FIELD_BYTES(struct net_space, mac),
    STATE_FIELD_U16(struct net_space, status, .max = VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE),
    STATE_FIELD_U16(struct net_space, max_pairs, .min = 1, .max = NETIF_MAX_QUEUES),
    STATE_FIELD_U16(struct net_space, mtu),
};

static const struct state_table space_table = {
    .name = "net_space",
    .version = 1,
    STATE_TABLE_OF(struct net_space, space_fields),
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct net_state, virtio, struct virtio_state, &virtio_state_table),
    STATE_FIELD_U64(struct net_state, offloads),
    STATE_FIELD_TABLE(struct net_state, space, struct net_space, &space_table),
    STATE_FIELD_U16(struct net_state, pairs, .min = 1, .max = NETIF_MAX_QUEUES),
    STATE_FIELD_BOOL(struct net_state, cable),
    STATE_FIELD_U8(struct net_state, reserved),
    STATE_FIELD_TABLE(struct net_state, filter, struct net_filter, &net_filter_table),
};

static int validate(const void *object, struct err *err)
{
    const struct net_state *state = object;

    if (state->offloads & ~(state->virtio.features & NET_GUEST_OFFLOADS))
        return err_say(err, ERR_FAILED, EBADMSG, "offloads are in force that nobody negotiated");
    return 0;
}

static const struct state_table table = {
    .name = "virtio-net",
    .version = 1,
    STATE_TABLE_OF(struct net_state, fields),
    .validate = validate,
};

/* --- create --------------------------------------------------------------------------------- */

struct virtio *net_virtio(struct net *net)
{
    return &net->virtio;
}

static uint64_t features(const struct net *net)
{
    static const struct {
        unsigned offload;
        uint64_t features;
    } names[] = {
        {NETIF_CSUM,
         NET_FEATURE(CSUM) | NET_FEATURE(GUEST_CSUM) | NET_FEATURE(CTRL_GUEST_OFFLOADS)},
        {NETIF_TSO4, NET_FEATURE(HOST_TSO4) | NET_FEATURE(GUEST_TSO4)},
        {NETIF_TSO6, NET_FEATURE(HOST_TSO6) | NET_FEATURE(GUEST_TSO6)},
        {NETIF_TSO_ECN, NET_FEATURE(HOST_ECN) | NET_FEATURE(GUEST_ECN)},
    };
    uint64_t features = NET_FEATURE(MAC) | NET_FEATURE(STATUS) | NET_FEATURE(MRG_RXBUF) |
                        NET_FEATURE(CTRL_VQ) | NET_FEATURE(CTRL_RX) | NET_FEATURE(CTRL_RX_EXTRA) |
                        NET_FEATURE(CTRL_VLAN) | NET_FEATURE(CTRL_MAC_ADDR) |
                        NET_FEATURE(GUEST_ANNOUNCE);

    for (unsigned i = 0; i < array_size(names); i++)
        if (net->netif->info.offloads & names[i].offload)
            features |= names[i].features;
    if (net->config.mtu)
        features |= NET_FEATURE(MTU);
    if (net->pairs > 1)
        features |= NET_FEATURE(MQ);
    return features;
}

static int allocate_held(struct net *net, struct err *err)
{
    /* Touched only by frames that arrive in pieces, so mostly this costs addresses and no memory.
     */
    for (unsigned i = 0; i < net->pairs; i++) {
        net->pair[i].held = malloc(NETIF_MAX_FRAME);
        if (!net->pair[i].held)
            return err_sys(err, ERR_HOST, ENOMEM, "cannot make network device %s",
                           net->config.name);
    }
    return 0;
}

int net_create(struct net **ret_net, const struct virtio_world *world,
               const struct net_config *config, struct err *err)
{
    unsigned most = config->netif->info.max_queues;

    assert(config->queues >= 1 && config->queues <= NETIF_MAX_QUEUES);
    struct net *net = calloc(1, sizeof(*net));
    if (!net)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make a network device");
    net->config = *config;
    net->netif = config->netif;
    net->pairs = config->queues < most ? config->queues : most;
    net->handlers = (struct netif_handlers){
        .ready = handle_ready, .link_changed = handle_link, .trouble = handle_trouble, .ctx = net};
    net->virtio.device = (struct device){.ops = &device_ops, .table = &table, .state = &net->state};

    const struct virtio_setup setup = {.ops = &ops,
                                       .world = world,
                                       .state = &net->state.virtio,
                                       .features = features(net),
                                       .config = &net->state.space,
                                       .config_size = sizeof(net->state.space),
                                       .queue_count = 2 * net->pairs + 1,
                                       .queue_size = NET_QUEUE_SIZE,
                                       .own_thread = config->name};
    int ret = virtio_init(&net->virtio, &setup, err);
    if (ret == 0)
        ret = allocate_held(net, err);
    if (ret == 0)
        ret = net->netif->ops->attach(net->netif, net->virtio.loop, &net->handlers, err);
    if (ret < 0) {
        net_destroy(&net->virtio.device);
        return ret;
    }
    net->attached = true;
    net->link_up = net->netif->info.link_up;
    net->state.cable = true;
    set_power_on(net);
    *ret_net = net;
    return 0;
}
