/* SPDX-License-Identifier: MIT */
/*
 * What the network device alone costs: nanoseconds per frame, from the doorbell (or the interface's
 * "there are frames") to the published ring, with the model driver in the same process and an
 * interface that touches headers only. Prints the median of many rounds and where the middle nine
 * tenths lie.
 *
 *   batch     63 frames a turn, one publish
 *   single    one frame a turn
 *   gate      behind an open gate (host/netif_gate.h)
 *
 * And what the gate alone costs, without a device: to hold a frame, and to let it go.
 */
#include "host/netif_gate.h"
#include "tests/unit/net_rig.h"
#include <time.h>

enum { ROUNDS = 3000, BATCH = 63, RX = 0, TX = 1, MOST_PARTS = 20 };

struct kind {
    const char *name;
    bool receive;
    unsigned length;  /* of a frame, with its header */
    unsigned segment; /* bytes of a buffer */
    unsigned batch;
    bool gate;
};

static const struct kind kinds[] = {
    {"send 60 bytes, batch", false, 72, 72, BATCH},
    {"send 1514 bytes, batch", false, 1526, 1526, BATCH},
    {"send 1514 bytes in 3 segments, batch", false, 1526, 600, BATCH},
    {"send 64 KiB in 17 segments, batch", false, 65550, 4000, 14},
    {"send 1514 bytes, single", false, 1526, 1526, 1},
    {"receive 60 bytes, batch", true, 72, 1536, BATCH},
    {"receive 1514 bytes, batch", true, 1526, 1536, BATCH},
    {"receive 9000 bytes in merged 1536, batch", true, 9026, 1536, 40},
    {"receive 64 KiB in merged 4096, batch", true, 65550, 4096, 15},
    {"receive 1514 bytes, single", true, 1526, 1536, 1},
    {"send 60 bytes, batch, gate", false, 72, 72, BATCH, true},
    {"send 1514 bytes, batch, gate", false, 1526, 1526, BATCH, true},
    {"receive 60 bytes, batch, gate", true, 72, 1536, BATCH, true},
    {"receive 1514 bytes, batch, gate", true, 1526, 1536, BATCH, true},
};

static struct rig rig;
static unsigned to_come;    /* frames for the guest */
static size_t frame_length; /* of each */

static ssize_t bench_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                          unsigned count)
{
    return (ssize_t)iov_size(iov, count);
}

static ssize_t bench_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                             unsigned count)
{
    static const uint8_t header[NETIF_HEADER + 18];

    if (to_come == 0)
        return -EAGAIN;
    to_come--;
    iov_write(iov, count, 0, header, sizeof(header));
    return (ssize_t)frame_length;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fill_send(const struct kind *kind)
{
    struct model_driver *driver = &rig.drivers[TX];
    struct model_part parts[MOST_PARTS];

    for (unsigned i = 0; i < kind->batch; i++) {
        unsigned count = 0;
        for (unsigned at = 0; at < kind->length; at += kind->segment) {
            unsigned left = kind->length - at;
            unsigned length = left < kind->segment ? left : kind->segment;
            parts[count++] = (struct model_part){model_buffer(driver, length), length, false};
        }
        memset(model_bytes(driver, parts[0].gpa, NETIF_HEADER), 0, NETIF_HEADER);
        int head = count > 4 ? model_add_indirect(driver, parts, count, i)
                             : model_add(driver, parts, count, i);
        rig_require(head >= 0, "the ring is full");
    }
    (void)model_show(driver);
}

static void fill_receive(const struct kind *kind)
{
    struct model_driver *driver = &rig.drivers[RX];

    while (model_outstanding(driver) < driver->size) {
        struct model_part part = {model_buffer(driver, kind->segment), kind->segment, true};
        rig_require(model_add(driver, &part, 1, 0) >= 0, "the ring is full");
    }
    (void)model_show(driver);
    to_come = kind->batch;
    frame_length = kind->length;
}

static void serve(const struct kind *kind)
{
    if (kind->receive) {
        rig.netif.handlers->ready(rig.netif.handlers->ctx, 0, NETIF_READABLE);
        return;
    }
    virtio_lock(rig.virtio);
    rig.virtio->ops->notify(rig.virtio, TX);
    virtio_unlock(rig.virtio);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void create(const struct kind *kind, const struct netif_ops *ops)
{
    struct netif *netif = &rig.netif.netif;

    memset(&rig, 0, sizeof(rig));
    *netif = (struct netif){.ops = ops, .info = {.max_queues = 1, .offloads = 15, .link_up = true}};
    rig_require(!kind->gate || netif_gate_create(&netif, netif, NULL) == 0, "no gate");
    rig_create_with(&rig, &(struct net_config){.netif = netif, .queues = 1, .mtu = 1500});
}

static void print(const char *name, double *ns)
{
    qsort(ns, ROUNDS, sizeof(ns[0]), compare);
    printf("%-42s %7.1f ns  (%.1f to %.1f)\n", name, ns[ROUNDS / 2], ns[ROUNDS / 20],
           ns[ROUNDS - 1 - ROUNDS / 20]);
}

static void measure(const struct kind *kind)
{
    static double ns[ROUNDS];
    unsigned queue = kind->receive ? RX : TX;
    struct model_done done;
    struct net_stats stats;

    struct netif_ops ops = rig_ops;
    ops.send = bench_send;
    ops.receive = bench_receive;
    create(kind, &ops);
    rig_start(&rig, RIG_ALL);
    rig_pump(&rig);
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (kind->receive)
            fill_receive(kind);
        else
            fill_send(kind);
        double begin = now_ns();
        serve(kind);
        ns[round] = (now_ns() - begin) / kind->batch;
        while (model_reap(&rig.drivers[queue], &done))
            continue;
        (void)model_want_interrupt(&rig.drivers[queue], 1);
    }
    net_stats(rig.net, &stats);
    rig_require((kind->receive ? stats.received : stats.sent) == (uint64_t)ROUNDS * kind->batch,
                "frames are missing");
    print(kind->name, ns);
    rig_destroy(&rig);
}

/* --- the gate alone --------------------------------------------------------------------------- */

static struct loop *loop;
static struct netif_gate *gate;
static unsigned left; /* frames that have not arrived yet */

static ssize_t last_stops(struct netif *netif, unsigned queue, const struct iovec *iov,
                          unsigned count)
{
    if (--left == 0)
        loop_stop(loop);
    return (ssize_t)iov_size(iov, count);
}

static int attach_nothing(struct netif *netif, struct loop *on,
                          const struct netif_handlers *handlers, struct err *err)
{
    return 0;
}

static void nothing(struct netif *netif)
{
}

static void measure_gate(unsigned length, unsigned batch)
{
    static double held[ROUNDS], released[ROUNDS];
    static uint8_t bytes[NETIF_MAX_FRAME];
    static struct netif_handlers nobody;
    const struct iovec iov = {.iov_base = bytes, .iov_len = length};
    struct netif_ops ops = rig_ops;
    struct netif inner = {.ops = &ops, .info = {.max_queues = 1}}, *netif;
    char name[64];

    ops.send = last_stops;
    ops.attach = attach_nothing;
    ops.detach = nothing;
    ops.destroy = nothing;
    rig_require(loop_create(&loop, NULL) == 0, "no loop");
    rig_require(netif_gate_create(&netif, &inner, NULL) == 0, "no gate");
    rig_require(netif->ops->attach(netif, loop, &nobody, NULL) == 0, "no gate");
    gate = netif_gate_of(netif);
    netif_gate_hold(gate, 0, 64 << 20);
    for (unsigned round = 0; round < ROUNDS; round++) {
        netif_gate_mark(gate, round);
        left = batch;
        double begin = now_ns();
        for (unsigned i = 0; i < batch; i++)
            rig_require(netif->ops->send(netif, 0, &iov, 1) == (ssize_t)length, "a frame is lost");
        double end = now_ns();
        netif_gate_release(gate, round);
        rig_require(loop_run(loop) == 0, "the loop fails");
        held[round] = (end - begin) / batch;
        released[round] = (now_ns() - end) / batch;
    }
    snprintf(name, sizeof(name), "gate alone: hold %u of %u bytes, each", batch,
             length - NETIF_HEADER);
    print(name, held);
    snprintf(name, sizeof(name), "gate alone: release them, each");
    print(name, released);
    netif->ops->detach(netif);
    netif_destroy(netif);
    loop_destroy(loop);
}

int main(void)
{
    printf("%-42s %10s  (5%% to 95%% of %d rounds)\n", "device's side, per frame", "median",
           ROUNDS);
    for (size_t i = 0; i < array_size(kinds); i++)
        measure(&kinds[i]);
    measure_gate(72, 1);
    measure_gate(72, 200);
    measure_gate(1526, 200);
    measure_gate(65550, 16);
    return EXIT_SUCCESS;
}
