/* SPDX-License-Identifier: MIT */
/* The network device on its thread, the driver on ours, and the network on a third. */
#include "core/clock.h"
#include "core/loop.h"
#include "core/thread.h"
#include "tests/unit/net_traffic.h"
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* An interface with descriptors of its own: what is sent comes back, as from a wire with a loop. */
struct wire {
    struct netif netif;
    const struct netif_handlers *handlers;
    struct loop *loop;
    int ours, theirs;
    struct loop_io io;
    atomic_bool end;
};

static void handle_wire(void *arg, unsigned events)
{
    struct wire *wire = arg;
    wire->handlers->ready(wire->handlers->ctx, 0,
                          (events & LOOP_READ ? NETIF_READABLE : 0u) |
                              (events & LOOP_WRITE ? NETIF_WRITABLE : 0u));
}

static int wire_attach(struct netif *netif, struct loop *loop,
                       const struct netif_handlers *handlers, struct err *err)
{
    struct wire *wire = container_of(netif, struct wire, netif);
    wire->handlers = handlers;
    wire->loop = loop;
    wire->io = (struct loop_io){.fd = wire->ours, .handle = handle_wire, .arg = wire};
    return loop_io_add(loop, &wire->io, err);
}

static void wire_detach(struct netif *netif)
{
    struct wire *wire = container_of(netif, struct wire, netif);
    loop_io_remove(wire->loop, &wire->io);
}

static ssize_t wire_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                         unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
    ssize_t sent = sendmsg(container_of(netif, struct wire, netif)->ours, &message, MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

static ssize_t wire_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                            unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
    ssize_t got = recvmsg(container_of(netif, struct wire, netif)->ours, &message, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}

static void wire_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct wire *wire = container_of(netif, struct wire, netif);
    loop_io_watch(wire->loop, &wire->io,
                  (what & NETIF_READABLE ? LOOP_READ : 0u) |
                      (what & NETIF_WRITABLE ? LOOP_WRITE : 0u));
}

static int wire_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    return 0;
}

static const struct netif_ops wire_ops = {.name = "wire",
                                          .attach = wire_attach,
                                          .detach = wire_detach,
                                          .send = wire_send,
                                          .receive = wire_receive,
                                          .watch = wire_watch,
                                          .configure = wire_configure};

/* The far end: sends back what it gets. */
static void run_far_end(void *arg)
{
    struct wire *wire = arg;
    uint8_t bytes[4096];

    while (!atomic_load(&wire->end)) {
        struct pollfd fd = {.fd = wire->theirs, .events = POLLIN};
        if (poll(&fd, 1, 20) <= 0)
            continue;
        ssize_t got = recv(wire->theirs, bytes, sizeof(bytes), 0);
        if (got > 0 && send(wire->theirs, bytes, (size_t)got, 0) < 0)
            return;
    }
}

static void ignore_interrupt(void *ctx, unsigned queue)
{
}

static void ignore_config_interrupt(void *ctx)
{
}

START_TEST(frames_go_around_while_the_machine_pauses_and_the_cable_moves)
{
    enum { FRAMES = 3000, WINDOW = 32, LENGTH = HEADER + 600 };
    static struct wire wire;
    struct thread far_end = {0};
    struct net_config config = {.name = "net0", .queues = 1, .netif = &wire.netif};
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    wire = (struct wire){.netif = {.ops = &wire_ops, .info = {.max_queues = 1, .link_up = true}},
                         .ours = pair[0],
                         .theirs = pair[1]};
    rig_create_with(&rig, &config);
    rig.transport.queue_interrupt = ignore_interrupt; /* we look all the time */
    rig.transport.config_interrupt = ignore_config_interrupt;
    ck_assert_int_eq(thread_start(&far_end, "far end", run_far_end, &wire, NULL), 0);
    rig_start(&rig, RIG_ALL);

    given_count = taken_count = 0;
    unsigned sent = 0, got = 0, acknowledged = 0;
    uint64_t limit = clock_monotonic_ns() + 60 * NS_PER_SEC;
    give_many(64, 1536);
    while (got < FRAMES) {
        struct model_done done;
        ck_assert_msg(clock_monotonic_ns() < limit, "%u of %u frames in 60 s", got, FRAMES);
        while (model_reap(&rig.drivers[TX], &done))
            acknowledged++;
        if (sent < FRAMES && sent - got < WINDOW && sent - acknowledged < WINDOW) {
            make_frame(LENGTH, (uint8_t)sent);
            add_send(LENGTH, 300, sent++);
            rig_show(&rig, TX);
        }
        while (model_used_index(&rig.drivers[RX]) != rig.drivers[RX].seen) {
            expect_frame(LENGTH, (uint8_t)got++);
            give_many(1, 1536);
            if (got % 500 == 0) {
                virtio_device_pause(&rig.virtio->device);
                net_set_link(rig.net, true);
                virtio_device_resume(&rig.virtio->device);
            } else if (got % 100 == 0) {
                net_set_link(rig.net, true);
                net_stats(rig.net, &(struct net_stats){0});
            }
        }
    }
    atomic_store(&wire.end, true);
    thread_join(&far_end);
    ck_assert(!is_broken());
    rig_destroy(&rig);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

static Suite *net_threads_suite(void)
{
    Suite *suite = suite_create("net_threads");
    TCase *tests = tcase_create("promises");

    tcase_set_timeout(tests, 90);
    tcase_add_test(tests, frames_go_around_while_the_machine_pauses_and_the_cable_moves);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(net_threads_suite());
}
