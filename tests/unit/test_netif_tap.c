/* SPDX-License-Identifier: MIT */
/*
 * Taps, in a network namespace of the test's own: as root, or as anybody where user namespaces are
 * allowed. Where neither is, the tests say so and pass.
 */
#include "core/clock.h"
#include "core/loop.h"
#include "host/netif.h"
#include "tests/unit/unit.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ETHERTYPE = 0x88b5 /* for experiments */, FRAME = 400 };

static struct {
    bool root;   /* outside of the namespace too */
    bool usable; /* there is a namespace */
    int control; /* any socket, for ioctl */
    struct loop *loop;
    struct netif *netif;
    bool attached;
    struct err err;
    unsigned ready, links, troubles;
    unsigned ready_queue, ready_what;
    bool link_up;
    char trouble[400];
} host;

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
    close(fd);
}

static bool enter_namespace(void)
{
    char map[64];
    uid_t uid = geteuid();

    host.root = uid == 0;
    if (host.root)
        return unshare(CLONE_NEWNET) == 0;
    snprintf(map, sizeof(map), "0 %u 1", uid);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return false;
    write_file("/proc/self/uid_map", map);
    return true;
}

static void handle_ready(void *ctx, unsigned queue, unsigned what)
{
    host.ready++;
    host.ready_queue = queue;
    host.ready_what = what;
    loop_stop(host.loop);
}

static void handle_link(void *ctx, bool up)
{
    host.links++;
    host.link_up = up;
    loop_stop(host.loop);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    host.troubles++;
    snprintf(host.trouble, sizeof(host.trouble), "%s", sentence);
    loop_stop(host.loop);
}

static const struct netif_handlers handlers = {
    .ready = handle_ready, .link_changed = handle_link, .trouble = handle_trouble};

static void set_up(void)
{
    memset(&host, 0, sizeof(host));
    ck_assert_int_eq(loop_create(&host.loop, NULL), 0);
    host.usable = enter_namespace() && access("/dev/net/tun", R_OK | W_OK) == 0;
    if (!host.usable)
        fprintf(stderr, "SKIPPED: no network namespace or no /dev/net/tun: taps are not tested\n");
    host.control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static void close_tap(void)
{
    if (host.attached)
        host.netif->ops->detach(host.netif);
    netif_destroy(host.netif);
    host.netif = NULL;
    host.attached = false;
}

static void tear_down(void)
{
    close_tap();
    close(host.control);
    loop_destroy(host.loop);
}

static struct netif_config tap_config(const char *name)
{
    struct netif_config config = {.mode = NETIF_TAP};
    snprintf(config.name, sizeof(config.name), "%s", name);
    return config;
}

static void open_tap(const struct netif_config *config)
{
    ck_assert_msg(netif_tap_open(&host.netif, config, &host.err) == 0, "%s", host.err.text);
    ck_assert_msg(host.netif->ops->attach(host.netif, host.loop, &handlers, &host.err) == 0, "%s",
                  host.err.text);
    host.attached = true;
}

static void expect_refusal(const struct netif_config *config, int error, const char *words,
                           const char *mend)
{
    struct netif *netif = NULL;

    memset(&host.err, 0, sizeof(host.err));
    ck_assert_int_eq(netif_tap_open(&netif, config, &host.err), -error);
    ck_assert_ptr_null(netif);
    ck_assert_msg(strstr(host.err.text, words) != NULL, "\"%s\"", host.err.text);
    ck_assert_msg(strstr(host.err.hint, mend) != NULL, "hint \"%s\"", host.err.hint);
}

static void handle_too_late(void *arg)
{
    ck_abort_msg("nothing happened in 10 s");
}

/* Runs the loop until the handlers have been called so often. */
static void wait_for(const unsigned *counter, unsigned count)
{
    struct loop_timer timer;

    loop_timer_init(&timer, host.loop, handle_too_late, NULL);
    ck_assert_int_eq(loop_timer_arm(&timer, clock_monotonic_ns() + 10 * NS_PER_SEC), 0);
    while (*counter < count)
        ck_assert_int_eq(loop_run(host.loop), 0);
    loop_timer_cancel(&timer);
}

static void handle_end(void *arg)
{
    loop_stop(host.loop);
}

static void run_for_ms(unsigned ms)
{
    struct loop_timer timer;
    uint64_t end = clock_monotonic_ns() + ms * (NS_PER_SEC / 1000);

    loop_timer_init(&timer, host.loop, handle_end, NULL);
    ck_assert_int_eq(loop_timer_arm(&timer, end), 0);
    while (clock_monotonic_ns() < end)
        ck_assert_int_eq(loop_run(host.loop), 0);
    loop_timer_cancel(&timer);
}

/* --- the host's side ------------------------------------------------------------------------ */

static const char *tap_name(void)
{
    static char name[IFNAMSIZ];
    ck_assert_int_eq(sscanf(host.netif->info.description, "tap %15s", name), 1);
    return name;
}

static struct ifreq request_for(const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strlen(name));
    return request;
}

/* A tap that lives by itself, as `ip tuntap add` makes it. */
static void make_tap(const char *name, bool multi, int owner)
{
    struct ifreq request = request_for(name);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (multi ? IFF_MULTI_QUEUE : 0));
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ioctl(fd, TUNSETIFF, &request), 0);
    ck_assert_int_eq(ioctl(fd, TUNSETPERSIST, 1), 0);
    if (owner >= 0)
        ck_assert_int_eq(ioctl(fd, TUNSETOWNER, owner), 0);
    close(fd);
}

static void set_up_flag(const char *name, bool up)
{
    struct ifreq request = request_for(name);

    ck_assert_int_eq(ioctl(host.control, SIOCGIFFLAGS, &request), 0);
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    ck_assert_int_eq(ioctl(host.control, SIOCSIFFLAGS, &request), 0);
}

static void delete_device(const char *name)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = RTM_DELLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .info = {.ifi_index = (int)if_nametoindex(name)},
    };
    char answer[512];
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    ck_assert_int_eq(send(fd, &request, sizeof(request), 0), (int)sizeof(request));
    ck_assert_int_gt(recv(fd, answer, sizeof(answer), 0), 0);
    close(fd);
    ck_assert_uint_eq(if_nametoindex(name), 0);
}

static int open_packets(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETHERTYPE),
                                  .sll_ifindex = (int)if_nametoindex(name)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETHERTYPE));

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void drop_rights(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    ck_assert_int_eq(syscall(SYS_capset, &header, data), 0);
}

static void fill_frame(uint8_t *frame, size_t length, uint8_t seed)
{
    memset(frame, 0xff, 6);
    memset(frame + 6, 0x02, 6);
    frame[12] = ETHERTYPE >> 8;
    frame[13] = ETHERTYPE & 0xff;
    for (size_t i = 14; i < length; i++)
        frame[i] = (uint8_t)(seed + i);
}

/* The next frame of ours; the host's own chatter (IPv6) comes in between. */
static ssize_t receive_ours(unsigned queue, const struct iovec *iov, unsigned count)
{
    const struct netif_ops *ops = host.netif->ops;
    uint8_t bytes[NETIF_HEADER + 14];

    for (;;) {
        ops->watch(host.netif, queue, NETIF_READABLE);
        unsigned seen = host.ready;
        ssize_t got = ops->receive(host.netif, queue, iov, count);
        if (got == -EAGAIN) {
            wait_for(&host.ready, seen + 1);
            continue;
        }
        ck_assert_int_ge(got, (int)sizeof(bytes));
        size_t at = 0;
        for (unsigned i = 0; i < count && at < sizeof(bytes); i++) {
            size_t part = iov[i].iov_len < sizeof(bytes) - at ? iov[i].iov_len : sizeof(bytes) - at;
            memcpy(bytes + at, iov[i].iov_base, part);
            at += part;
        }
        if (bytes[NETIF_HEADER + 12] == ETHERTYPE >> 8 &&
            bytes[NETIF_HEADER + 13] == (ETHERTYPE & 0xff))
            return got;
    }
}

#define NEEDS_TAPS()    \
    if (!host.usable) { \
        return;         \
    }

/* --- promises ------------------------------------------------------------------------------- */

START_TEST(a_new_tap_is_up_and_named_by_the_kernel)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("");
    open_tap(&config);
    ck_assert_str_eq(tap_name(), "mvm0");
    ck_assert(host.netif->info.link_up);
    ck_assert_uint_eq(host.netif->info.mtu, 1500);
    ck_assert_uint_eq(host.netif->info.max_queues, 1);
    ck_assert_uint_eq(host.netif->info.offloads,
                      NETIF_CSUM | NETIF_TSO4 | NETIF_TSO6 | NETIF_TSO_ECN);
    ck_assert_uint_eq(host.troubles, 0);
    close_tap();
    ck_assert_uint_eq(if_nametoindex("mvm0"), 0); /* and goes with us */
}
END_TEST

START_TEST(frames_arrive_byte_for_byte_both_ways)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    open_tap(&config);
    int packets = open_packets("given");
    uint8_t sent[FRAME], got[FRAME + 1], header[NETIF_HEADER] = {0};

    fill_frame(sent, FRAME, 3);
    struct iovec out[] = {{header, 5}, {header + 5, 7}, {sent, 20}, {sent + 20, FRAME - 20}};
    ck_assert_int_eq(host.netif->ops->send(host.netif, 0, out, 4), NETIF_HEADER + FRAME);
    ck_assert_int_eq(recv(packets, got, sizeof(got), 0), FRAME);
    ck_assert_mem_eq(got, sent, FRAME);

    fill_frame(sent, FRAME, 77);
    ck_assert_int_eq(send(packets, sent, FRAME, 0), FRAME);
    struct iovec in[] = {{header, NETIF_HEADER}, {got, 33}, {got + 33, FRAME - 33 + 1}};
    ck_assert_int_eq(receive_ours(0, in, 3), NETIF_HEADER + FRAME);
    ck_assert_mem_eq(got, sent, FRAME);

    fill_frame(sent, FRAME, 78); /* what does not fit is cut off, and nothing beyond is touched */
    ck_assert_int_eq(send(packets, sent, FRAME, 0), FRAME);
    memset(got, 0x5a, sizeof(got));
    in[1].iov_len = 100;
    ck_assert_int_eq(receive_ours(0, in, 2), NETIF_HEADER + 100);
    ck_assert_mem_eq(got, sent, 100);
    ck_assert_uint_eq(got[100], 0x5a);
    close(packets);
}
END_TEST

START_TEST(only_what_is_watched_is_told)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    open_tap(&config);
    int packets = open_packets("given");
    uint8_t frame[FRAME];

    fill_frame(frame, FRAME, 0);
    ck_assert_int_eq(send(packets, frame, FRAME, 0), FRAME);
    run_for_ms(20);
    ck_assert_uint_eq(host.ready, 0);
    host.netif->ops->watch(host.netif, 0, NETIF_READABLE);
    wait_for(&host.ready, 2); /* and again, as long as it lies there */
    ck_assert_uint_eq(host.ready_what, NETIF_READABLE);
    host.netif->ops->watch(host.netif, 0, NETIF_WRITABLE);
    unsigned seen = host.ready;
    wait_for(&host.ready, seen + 1);
    ck_assert_uint_eq(host.ready_what, NETIF_WRITABLE);
    host.netif->ops->watch(host.netif, 0, 0);
    seen = host.ready;
    run_for_ms(20);
    ck_assert_uint_eq(host.ready, seen);
    close(packets);
}
END_TEST

START_TEST(a_given_tap_is_used_and_left_behind)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    make_tap("given", false, -1);
    unsigned index = if_nametoindex("given");
    open_tap(&config);
    ck_assert_uint_eq(if_nametoindex("given"), index);
    ck_assert(host.netif->info.link_up); /* brought up, as we may */
    close_tap();
    ck_assert_uint_eq(if_nametoindex("given"), index);
}
END_TEST

START_TEST(a_tap_of_another_program_is_busy)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    for (unsigned queues = 1; queues <= 2; queues++) { /* the kernel alone would share a second */
        config.queues = queues;
        snprintf(config.name, sizeof(config.name), "given%u", queues);
        make_tap(config.name, queues > 1, -1);
        open_tap(&config);
        expect_refusal(&config, EBUSY, "in use by another program", "a tap of its own");
        ck_assert_int_eq(host.err.kind, ERR_STATE);
        ck_assert_ptr_nonnull(strstr(host.err.text, config.name));
        close_tap();
    }
}
END_TEST

START_TEST(without_rights_the_mend_is_named)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("web1");
    struct netif_config mine = tap_config("mine");
    make_tap("mine", true, 0);
    drop_rights();
    expect_refusal(&config, EPERM, "there is no tap web1",
                   "ip tuntap add web1 mode tap user $USER");
    config.queues = 4;
    expect_refusal(&config, EPERM, "there is no tap web1", "user $USER multi_queue");
    config = tap_config("");
    expect_refusal(&config, EPERM, "CAP_NET_ADMIN", "ip tuntap add vm0");
    /* One's own works; it cannot be brought up, and that is said. */
    open_tap(&mine);
    ck_assert(!host.netif->info.link_up);
    ck_assert_uint_eq(host.troubles, 1);
    ck_assert_ptr_nonnull(strstr(host.trouble, "ip link set mine up"));
    close_tap();
    mine.mtu = 1400;
    expect_refusal(&mine, EPERM, "MTU of tap mine", "ip link set mine mtu 1400");
}
END_TEST

START_TEST(the_tap_of_another_user_is_refused)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("other");
    if (!host.root) {
        fprintf(stderr, "SKIPPED: not root: taps of other users are not tested\n");
        return;
    }
    make_tap("other", false, 12345);
    drop_rights();
    expect_refusal(&config, EPERM, "tap other belongs to another user", "ip tuntap del other");
}
END_TEST

START_TEST(what_is_no_tap_is_refused)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("lo");
    expect_refusal(&config, EINVAL, "lo is not a tap", "");
    config = tap_config("a/b");
    expect_refusal(&config, EINVAL, "\"a/b\" is no name", "");
    config = tap_config("a%d");
    expect_refusal(&config, EINVAL, "\"a%d\" is no name", "");
}
END_TEST

START_TEST(a_host_without_the_driver_is_told_how_to_load_it)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("");
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/dev/net", "tmpfs", 0, NULL) < 0) {
        fprintf(stderr, "SKIPPED: no mount namespace: a missing /dev/net/tun is not tested\n");
        return;
    }
    expect_refusal(&config, ENOENT, "/dev/net/tun", "modprobe tun");
}
END_TEST

START_TEST(a_bridge_gets_a_port)
{
    NEEDS_TAPS();
    struct netif_config config = {.mode = NETIF_BRIDGE, .name = "br0"};
    expect_refusal(&config, ENODEV, "there is no bridge br0", "ip link add br0 type bridge");
    if (ioctl(host.control, SIOCBRADDBR, "br0") < 0) {
        fprintf(stderr, "SKIPPED: no bridges in this kernel: they are not tested\n");
        return;
    }
    struct ifreq mtu = request_for("br0");
    mtu.ifr_mtu = 9000;
    ck_assert_int_eq(ioctl(host.control, SIOCSIFMTU, &mtu), 0);
    open_tap(&config);
    ck_assert_str_eq(host.netif->info.description, "tap mvm0 on bridge br0");
    ck_assert_uint_eq(host.netif->info.mtu, 9000);

    struct ifreq address = request_for("mvm0");
    ck_assert_int_eq(ioctl(host.control, SIOCGIFHWADDR, &address), 0);
    ck_assert_uint_eq((uint8_t)address.ifr_hwaddr.sa_data[0], 0xfe);
    struct ifreq port = request_for("br0");
    port.ifr_ifindex = (int)if_nametoindex("mvm0");
    ck_assert_int_eq(ioctl(host.control, SIOCBRDELIF, &port), 0); /* it was one */

    snprintf(config.name, sizeof(config.name), "lo");
    expect_refusal(&config, EINVAL, "lo is not a bridge", "");
    ck_assert_uint_eq(if_nametoindex("mvm1"), 0);
}
END_TEST

START_TEST(a_wanted_mtu_is_set)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("");
    config.mtu = 4000;
    open_tap(&config);
    struct ifreq request = request_for(tap_name());
    ck_assert_int_eq(ioctl(host.control, SIOCGIFMTU, &request), 0);
    ck_assert_int_eq(request.ifr_mtu, 4000);
    ck_assert_uint_eq(host.netif->info.mtu, 4000);
}
END_TEST

START_TEST(queues_come_and_go_by_configure)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    uint8_t frame[NETIF_HEADER + FRAME] = {0}, got[FRAME];
    struct iovec iov = {frame, sizeof(frame)};

    config.queues = 4;
    open_tap(&config);
    const struct netif_ops *ops = host.netif->ops;
    int packets = open_packets("given");
    ck_assert_uint_eq(host.netif->info.max_queues, 4);
    for (unsigned i = 0; i < 4; i++)
        ops->watch(host.netif, i, NETIF_READABLE | NETIF_WRITABLE);

    static const unsigned counts[] = {4, 1, 3, 3, 4};
    for (unsigned i = 0; i < array_size(counts); i++) {
        ck_assert_int_eq(ops->configure(host.netif, counts[i], 0), 0);
        for (unsigned queue = 0; queue < 4; queue++) {
            fill_frame(frame + NETIF_HEADER, FRAME, (uint8_t)(10 * i + queue));
            ssize_t sent = ops->send(host.netif, queue, &iov, 1);
            ck_assert_int_eq(sent, queue < counts[i] ? (int)sizeof(frame) : -ENETDOWN);
            if (sent > 0) {
                ck_assert_int_eq(recv(packets, got, sizeof(got), 0), FRAME);
                ck_assert_mem_eq(got, frame + NETIF_HEADER, FRAME);
            }
        }
    }
    ck_assert_int_eq(ops->configure(host.netif, 0, 0), -EINVAL);
    ck_assert_int_eq(ops->configure(host.netif, 5, 0), -EINVAL);
    close(packets);
}
END_TEST

START_TEST(a_tap_for_one_queue_gives_one_and_says_so)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("single");
    make_tap("single", false, -1);
    config.queues = 4;
    open_tap(&config);
    ck_assert_uint_eq(host.netif->info.max_queues, 1);
    ck_assert_uint_eq(host.troubles, 1);
    ck_assert_ptr_nonnull(strstr(host.trouble, "multi_queue"));
    close_tap();

    config = tap_config("multi"); /* and the other way round it is no trouble */
    make_tap("multi", true, -1);
    open_tap(&config);
    ck_assert_uint_eq(host.netif->info.max_queues, 1);
    ck_assert_uint_eq(host.troubles, 1);
}
END_TEST

static unsigned ask_ethtool(const char *name, unsigned command)
{
    struct ethtool_value value = {.cmd = command};
    struct ifreq request = request_for(name);

    request.ifr_data = (char *)&value;
    ck_assert_int_eq(ioctl(host.control, SIOCETHTOOL, &request), 0);
    return value.data;
}

START_TEST(the_kernel_leaves_undone_what_the_driver_accepted)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    static const struct {
        unsigned offloads, csum, tso;
    } cases[] = {{0, 0, 0},          {NETIF_CSUM, 1, 0}, {NETIF_CSUM | NETIF_TSO4, 1, 1},
                 {NETIF_TSO4, 0, 0}, {~0u, 1, 1},        {0, 0, 0}};

    open_tap(&config);
    for (unsigned i = 0; i < array_size(cases); i++) {
        ck_assert_int_eq(host.netif->ops->configure(host.netif, 1, cases[i].offloads), 0);
        ck_assert_uint_eq(ask_ethtool("given", ETHTOOL_GTXCSUM), cases[i].csum);
        ck_assert_uint_eq(ask_ethtool("given", ETHTOOL_GTSO), cases[i].tso);
    }
}
END_TEST

START_TEST(the_link_follows_the_device)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    uint8_t frame[NETIF_HEADER + FRAME] = {0};
    struct iovec iov = {frame, sizeof(frame)};

    open_tap(&config);
    for (unsigned i = 1; i < 6; i += 2) {
        set_up_flag("given", false);
        wait_for(&host.links, i);
        ck_assert(!host.link_up && !host.netif->info.link_up);
        ck_assert_int_lt(host.netif->ops->send(host.netif, 0, &iov, 1), 0);
        set_up_flag("given", true);
        wait_for(&host.links, i + 1);
        ck_assert(host.link_up && host.netif->info.link_up);
    }
    ck_assert_uint_eq(host.troubles, 0);
}
END_TEST

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

START_TEST(a_deleted_tap_is_a_link_down_and_one_sentence)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    uint8_t frame[NETIF_HEADER + FRAME] = {0};
    struct iovec iov = {frame, sizeof(frame)};

    config.queues = 2;
    open_tap(&config);
    const struct netif_ops *ops = host.netif->ops;
    ck_assert_int_eq(ops->configure(host.netif, 2, 0), 0);
    ops->watch(host.netif, 0, NETIF_READABLE);
    ops->watch(host.netif, 1, NETIF_READABLE | NETIF_WRITABLE);
    delete_device("given");
    wait_for(&host.troubles, 1);
    ck_assert(!host.link_up && host.links == 1);
    ck_assert_ptr_nonnull(strstr(host.trouble, "tap given was deleted"));

    uint64_t before = cpu_ns();
    unsigned ready = host.ready;
    ops->watch(host.netif, 0, NETIF_READABLE | NETIF_WRITABLE);
    run_for_ms(100);
    ck_assert_uint_lt(cpu_ns() - before, NS_PER_SEC / 20); /* no busy loop */
    ck_assert_uint_eq(host.ready, ready);
    ck_assert_uint_eq(host.troubles, 1);
    ck_assert_uint_eq(host.links, 1);
    ck_assert_int_lt(ops->send(host.netif, 0, &iov, 1), 0);
    ck_assert_int_eq(ops->receive(host.netif, 0, &iov, 1), -EAGAIN);
    ck_assert_int_eq(ops->configure(host.netif, 1, 0), 0);
}
END_TEST

START_TEST(a_tap_deleted_while_nobody_watches_is_noticed)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");

    open_tap(&config);
    delete_device("given");
    wait_for(&host.troubles, 1);
    ck_assert(!host.link_up);
}
END_TEST

START_TEST(it_can_be_attached_again)
{
    NEEDS_TAPS();
    struct netif_config config = tap_config("given");
    struct loop *other;

    open_tap(&config);
    host.netif->ops->watch(host.netif, 0, NETIF_WRITABLE);
    wait_for(&host.ready, 1);
    host.netif->ops->detach(host.netif);
    ck_assert_int_eq(loop_create(&other, NULL), 0);
    loop_destroy(host.loop); /* nothing is left on it */
    host.loop = other;
    ck_assert_int_eq(host.netif->ops->attach(host.netif, other, &handlers, NULL), 0);
    unsigned seen = host.ready;
    run_for_ms(10);
    ck_assert_uint_eq(host.ready, seen);
    host.netif->ops->watch(host.netif, 0, NETIF_WRITABLE);
    wait_for(&host.ready, seen + 1);
}
END_TEST

static Suite *netif_tap_suite(void)
{
    Suite *suite = suite_create("netif_tap");
    TCase *tests = tcase_create("promises");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_new_tap_is_up_and_named_by_the_kernel);
    tcase_add_test(tests, frames_arrive_byte_for_byte_both_ways);
    tcase_add_test(tests, only_what_is_watched_is_told);
    tcase_add_test(tests, a_given_tap_is_used_and_left_behind);
    tcase_add_test(tests, a_tap_of_another_program_is_busy);
    tcase_add_test(tests, without_rights_the_mend_is_named);
    tcase_add_test(tests, the_tap_of_another_user_is_refused);
    tcase_add_test(tests, what_is_no_tap_is_refused);
    tcase_add_test(tests, a_host_without_the_driver_is_told_how_to_load_it);
    tcase_add_test(tests, a_bridge_gets_a_port);
    tcase_add_test(tests, a_wanted_mtu_is_set);
    tcase_add_test(tests, queues_come_and_go_by_configure);
    tcase_add_test(tests, a_tap_for_one_queue_gives_one_and_says_so);
    tcase_add_test(tests, the_kernel_leaves_undone_what_the_driver_accepted);
    tcase_add_test(tests, the_link_follows_the_device);
    tcase_add_test(tests, a_deleted_tap_is_a_link_down_and_one_sentence);
    tcase_add_test(tests, a_tap_deleted_while_nobody_watches_is_noticed);
    tcase_add_test(tests, it_can_be_attached_again);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(netif_tap_suite());
}
