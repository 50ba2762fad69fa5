/* SPDX-License-Identifier: MIT */
/*
 * The real helper, driven as a guest would: by frames. For the hostile cases this program is
 * started as the helper itself, and misbehaves in the way that the MTU asks for (see play_helper).
 */
#include "host/usernet.h"
#include "tests/unit/usernet_guest.h"
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

/* --- ARP, DHCP, echo ---------------------------------------------------------------------- */

static bool is_echo_reply(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return is_ip(frame, length, 1) && frame[AT_L4] == 0;
}

START_TEST(a_guest_gets_the_addresses_that_people_know)
{
    struct netif_bench *bench = open_bench(NULL, 0);

    ask_dhcp(bench, 1, 2);
    ask_dhcp(bench, 3, 5);
    const uint8_t *router = dhcp_option(bench->found, bench->found_length, 3);
    const uint8_t *dns = dhcp_option(bench->found, bench->found_length, 6);
    const uint8_t *mask = dhcp_option(bench->found, bench->found_length, 1);
    ck_assert(router && dns && mask);
    ck_assert_uint_eq(get32(router), 0x0a000202);
    ck_assert_uint_eq(get32(dns), 0x0a000203);
    ck_assert_uint_eq(get32(mask), 0xffffff00);
    ask_arp(bench);
    ck_assert_uint_ge(bench->netif->info.mtu, 1500);
    ck_assert_uint_eq(bench->netif->info.max_queues, 1);
    ck_assert_uint_eq(bench->netif->info.offloads, 0);
    ck_assert_uint_eq(bench->link_downs + bench->troubles, 0);
    bench_destroy(bench);
}
END_TEST

START_TEST(the_gateway_answers_an_echo_of_any_size)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    static uint8_t frame[USERNET_FRAME_MAX];
    enum { HEADERS = 20 + 8 };
    const size_t sizes[] = {0, 56, 1400, 15000, bench->netif->info.mtu - HEADERS};

    ask_arp(bench);
    for (size_t i = 0; i < array_size(sizes); i++) {
        uint8_t *icmp = frame + AT_L4;
        memset(icmp, (int)i + 1, 8 + sizes[i]);
        put16(icmp, 8 << 8);
        put16(icmp + 2, 0);
        put16(icmp + 2, fold(sum_of(icmp, 8 + sizes[i], 0)));
        size_t length = wrap_ip(&bench->net, frame, bench->net.ip, bench->net.gateway, 1,
                                8 + sizes[i]);
        bench_send(bench, frame, length);
        bench_await(bench, is_echo_reply);
        ck_assert_uint_eq(bench->found_length, length);
        ck_assert_mem_eq(bench->found + AT_L4 + 4, icmp + 4, 4 + sizes[i]);
    }
    bench_destroy(bench);
}
END_TEST

START_TEST(the_header_is_stripped_and_zeroed_and_a_long_frame_is_cut)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    const struct netif_ops *ops = bench->netif->ops;
    struct netif_child *child = container_of(bench->netif, struct netif_child, netif);
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t out[12 + 64], head[5], tail[40], buffer[2];
    memset(out, 0xee, sizeof(out));
    size_t length = 12 + build_arp(&bench->net, out + 12, 1, all, bench->net.gateway);
    /* In pieces that do not end with the header. */
    struct iovec pieces[3] = {{out, 5}, {out + 5, 20}, {out + 25, length - 25}};
    ck_assert_int_eq(ops->send(bench->netif, 0, pieces, 3), (ssize_t)length);

    struct pollfd arrived = {.fd = child->fd, .events = POLLIN};
    ck_assert_int_eq(poll(&arrived, 1, BENCH_PATIENCE_S * 1000), 1);
    memset(head, 0xee, sizeof(head));
    memset(tail, 0xee, sizeof(tail));
    struct iovec room[2] = {{head, sizeof(head)}, {tail, sizeof(tail)}};
    ck_assert_int_eq(ops->receive(bench->netif, 0, room, 2), 45);
    for (int i = 0; i < 12; i++)
        ck_assert_uint_eq(i < 5 ? head[i] : tail[i - 5], 0);
    ck_assert_mem_eq(tail + 7, bench->net.mac, 6);
    /* A buffer without room for anything swallows a frame, and is not a reason to fail. */
    ck_assert_int_eq(ops->send(bench->netif, 0, pieces, 3), (ssize_t)length);
    ck_assert_int_eq(poll(&arrived, 1, BENCH_PATIENCE_S * 1000), 1);
    struct iovec none = {buffer, sizeof(buffer)};
    ck_assert_int_eq(ops->receive(bench->netif, 0, &none, 1), 12);
    ck_assert_int_eq(ops->receive(bench->netif, 0, &none, 1), -EAGAIN);
    /* What is no frame is lost here. */
    struct iovec runt = {out, 12 + 13};
    ck_assert_int_eq(ops->send(bench->netif, 0, &runt, 1), -EMSGSIZE);
    static uint8_t large[NETIF_MAX_FRAME + 1];
    struct iovec giant = {large, sizeof(large)};
    ck_assert_int_eq(ops->send(bench->netif, 0, &giant, 1), -EMSGSIZE);
    bench_destroy(bench);
}
END_TEST

/* --- forwards ----------------------------------------------------------------------------- */

struct connection {
    struct tiny_tcp tcp;
    uint8_t got[8192];
    size_t count;
};

static bool is_for_ssh(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return is_tcp(frame, length, 22) && frame[AT_L4 + 13] & TCP_SYN;
}

/* Takes data in order, and acknowledges. Matches when all that is wanted is there. */
static bool takes_data(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    struct connection *connection = bench->arg;
    uint8_t ack[128];
    size_t n;
    if (!is_tcp(frame, length, connection->tcp.our_port))
        return false;
    const uint8_t *data = tcp_data(frame, &n);
    if (get32(frame + AT_L4 + 4) == connection->tcp.next_in && n > 0 &&
        connection->count + n <= sizeof(connection->got)) {
        memcpy(connection->got + connection->count, data, n);
        connection->count += n;
        connection->tcp.next_in += (uint32_t)n;
    }
    bench_send(bench, ack, build_tcp(&bench->net, ack, &connection->tcp, TCP_ACK, NULL, 0));
    return connection->count >= 5000;
}

static int connect_to(const char *address, uint16_t port, int type)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void fill_pattern(uint8_t *bytes, size_t count, unsigned seed)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void read_all(int fd, uint8_t *bytes, size_t count)
{
    for (size_t at = 0; at < count;) {
        struct pollfd in = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&in, 1, BENCH_PATIENCE_S * 1000), 1);
        ssize_t n = read(fd, bytes + at, count - at);
        ck_assert_int_gt(n, 0);
        at += (size_t)n;
    }
}

/* The guest's side of a connection that the host has begun, and bytes both ways. */
static void talk(struct netif_bench *bench, uint16_t port)
{
    static uint8_t frame[2048], there[5000], back[1000], got[1000];
    struct connection connection = {0};
    struct tiny_tcp *tcp = &connection.tcp;
    int fd = connect_to("127.0.0.1", port, SOCK_STREAM);

    bench_await(bench, is_for_ssh);
    *tcp = (struct tiny_tcp){.peer = get32(bench->found + AT_IP + 12),
                             .our_port = 22,
                             .peer_port = get16(bench->found + AT_L4),
                             .next_out = 0xfffffff0, /* over the edge of 32 bits */
                             .next_in = get32(bench->found + AT_L4 + 4) + 1};
    ck_assert_uint_eq(get32(bench->found + AT_IP + 16), bench->net.ip);
    bench_send(bench, frame, build_tcp(&bench->net, frame, tcp, TCP_SYN | TCP_ACK, NULL, 0));
    tcp->next_out++;

    fill_pattern(there, sizeof(there), 3);
    ck_assert_int_eq(write(fd, there, sizeof(there)), sizeof(there));
    bench->arg = &connection;
    bench_await(bench, takes_data);
    ck_assert_uint_eq(connection.count, sizeof(there));
    ck_assert_mem_eq(connection.got, there, sizeof(there));

    fill_pattern(back, sizeof(back), 99);
    bench_send(bench, frame,
               build_tcp(&bench->net, frame, tcp, TCP_ACK | TCP_PSH, back, sizeof(back)));
    read_all(fd, got, sizeof(got));
    ck_assert_mem_eq(got, back, sizeof(back));
    close(fd);
}

START_TEST(a_forwarded_connection_carries_bytes_both_ways)
{
    struct netif_forward forward = {.host_address = "127.0.0.1", .guest_port = 22};
    forward.host_port = bench_free_port(SOCK_STREAM, "127.0.0.1");
    struct netif_bench *bench = open_bench(&forward, 1);
    talk(bench, forward.host_port);
    bench_destroy(bench);
    /* When the interface is gone, so is the port: it can be taken at once. */
    bench = open_bench(&forward, 1);
    bench_destroy(bench);
}
END_TEST

static bool is_datagram(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return is_ip(frame, length, 17) && get16(frame + AT_L4 + 2) == 53;
}

START_TEST(a_forwarded_datagram_is_answered)
{
    struct netif_forward forward = {.udp = true, .guest_port = 53};
    forward.host_port = bench_free_port(SOCK_DGRAM, "127.0.0.1");
    struct netif_bench *bench = open_bench(&forward, 1);
    uint8_t frame[256], got[16];

    int fd = connect_to("127.0.0.1", forward.host_port, SOCK_DGRAM);
    ck_assert_int_eq(write(fd, "question", 8), 8);
    bench_await(bench, is_datagram);
    ck_assert_mem_eq(bench->found + AT_UDP_DATA, "question", 8);
    bench_send(bench, frame,
               build_udp(&bench->net, frame, bench->net.ip, 53, get32(bench->found + AT_IP + 12),
                         get16(bench->found + AT_L4), "answer", 6));
    read_all(fd, got, 6);
    ck_assert_mem_eq(got, "answer", 6);
    close(fd);
    bench_destroy(bench);
}
END_TEST

static bool is_ipv6_syn(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return length >= ETH + 40 + 20 && get16(frame + 12) == 0x86dd && frame[ETH + 6] == 6 &&
           get16(frame + ETH + 40 + 2) == 22 && frame[ETH + 40 + 13] & TCP_SYN;
}

START_TEST(a_forward_from_an_ipv6_address_reaches_the_guest_by_ipv6)
{
    struct netif_forward forward = {.ipv6 = true, .host_address = "::1", .guest_port = 22};
    forward.host_port = bench_free_port(SOCK_STREAM, "::1");
    if (!forward.host_port) {
        printf("SKIPPED: this host has no ::1, IPv6 forwards were not tried\n");
        return;
    }
    struct netif_bench *bench = open_bench(&forward, 1);
    uint8_t frame[128], ours[16];
    inet_pton(AF_INET6, "fec0::5054:ff:fe12:3456", ours);
    bench_send(bench, frame, build_solicitation(&bench->net, frame, ours));
    ask_arp(bench); /* so it has been seen */

    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(forward.host_port)};
    to.sin6_addr.s6_addr[15] = 1;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    bench_await(bench, is_ipv6_syn);
    ck_assert_mem_eq(bench->found + ETH + 24, ours, 16);
    close(fd);
    bench_destroy(bench);
}
END_TEST

static void check_refused(const struct netif_forward *forward, enum err_kind kind,
                          const char *sentence, const char *helper)
{
    struct netif_bench *bench = bench_create();
    struct netif_config config = {.forwards = forward, .forward_count = 1, .helper = helper};
    struct err err = {0};
    ck_assert_int_eq(netif_user_open(&bench->netif, &config, &err), 0);
    ck_assert_int_lt(bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, &err),
                     0);
    ck_assert_str_eq(err.text, sentence);
    ck_assert_int_eq(err.kind, kind);
    bench_destroy(bench);
}

START_TEST(a_port_that_is_taken_is_named)
{
    static const struct {
        int type;
        const char *address, *form;
    } cases[] = {
        {SOCK_STREAM, "127.0.0.1", "-p 127.0.0.1:%u:22: host port %u is in use"},
        {SOCK_DGRAM, "127.0.0.1", "-p 127.0.0.1:%u:22/udp: host port %u is in use"},
        {SOCK_STREAM, "::1", "-p [::1]:%u:22: host port %u is in use"},
        {SOCK_DGRAM, "::1", "-p [::1]:%u:22/udp: host port %u is in use"},
    };
    for (size_t i = 0; i < array_size(cases); i++) {
        struct netif_forward forward = {.udp = cases[i].type == SOCK_DGRAM,
                                        .ipv6 = cases[i].address[0] == ':',
                                        .guest_port = 22};
        char sentence[100];
        snprintf(forward.host_address, sizeof(forward.host_address), "%s", cases[i].address);
        int fd = bench_bind(cases[i].type, cases[i].address, &forward.host_port);
        if (fd < 0)
            continue;
        snprintf(sentence, sizeof(sentence), cases[i].form, forward.host_port, forward.host_port);
        check_refused(&forward, ERR_STATE, sentence, USERNET);
        close(fd);
    }
    struct netif_forward foreign = {.host_address = "203.0.113.9", .host_port = 1, .guest_port = 2};
    foreign.host_port = bench_free_port(SOCK_STREAM, "127.0.0.1");
    char sentence[100];
    snprintf(sentence, sizeof(sentence),
             "-p 203.0.113.9:%u:2: this host has no address 203.0.113.9", foreign.host_port);
    check_refused(&foreign, ERR_HOST, sentence, USERNET);
}
END_TEST

START_TEST(a_helper_that_is_not_there_is_named)
{
    struct netif *netif = NULL;
    struct netif_config config = {.helper = "/nowhere/minivmm-usernet"};
    struct err err = {0};
    ck_assert_int_lt(netif_user_open(&netif, &config, &err), 0);
    ck_assert_ptr_null(netif);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/minivmm-usernet"));
    config = (struct netif_config){.helper = USERNET, .mtu = 1279};
    ck_assert_int_lt(netif_user_open(&netif, &config, &err), 0);
    ck_assert_int_eq(err.kind, ERR_USAGE);
}
END_TEST

/* --- outward ------------------------------------------------------------------------------ */

static bool is_syn_ack(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return is_tcp(frame, length, 40000) && frame[AT_L4 + 13] == (TCP_SYN | TCP_ACK);
}

START_TEST(a_guest_reaches_the_host_at_the_gateways_address)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    uint8_t frame[512], got[5];
    uint16_t port;
    int listener = bench_bind(SOCK_STREAM, "127.0.0.1", &port);
    struct tiny_tcp tcp = {
        .peer = bench->net.gateway, .our_port = 40000, .peer_port = port, .next_out = 1000};

    ask_arp(bench);
    bench_send(bench, frame, build_tcp(&bench->net, frame, &tcp, TCP_SYN, NULL, 0));
    bench_await(bench, is_syn_ack);
    tcp.next_out++;
    tcp.next_in = get32(bench->found + AT_L4 + 4) + 1;
    bench_send(bench, frame, build_tcp(&bench->net, frame, &tcp, TCP_ACK | TCP_PSH, "hello", 5));
    struct pollfd arrived = {.fd = listener, .events = POLLIN};
    ck_assert_int_eq(poll(&arrived, 1, BENCH_PATIENCE_S * 1000), 1);
    int fd = accept(listener, NULL, NULL);
    read_all(fd, got, 5);
    ck_assert_mem_eq(got, "hello", 5);
    close(fd);
    close(listener);
    bench_destroy(bench);
}
END_TEST

/* A host of our own for this process: no interface but lo, and a resolv.conf that we write. */
static bool enter_offline_host(const char *resolv_conf)
{
    uid_t uid = geteuid();
    if (unshare((uid ? CLONE_NEWUSER : 0) | CLONE_NEWNET | CLONE_NEWNS) < 0)
        return false;
    if (uid) {
        char map[32];
        snprintf(map, sizeof(map), "0 %u 1", uid);
        int fd = open("/proc/self/uid_map", O_WRONLY);
        if (fd < 0 || write(fd, map, strlen(map)) < 0)
            return false;
        close(fd);
    }
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
    close(fd);
    return good && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(resolv_conf, "/etc/resolv.conf", NULL, MS_BIND, NULL) == 0;
}

static int bind_name_server(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_pton(AF_INET, address, &in.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    return fd;
}

static bool name_server_has_some(struct netif_bench *bench)
{
    struct pollfd in = {.fd = *(int *)bench->arg, .events = POLLIN};
    return poll(&in, 1, 0) == 1;
}

static bool is_answer(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return is_ip(frame, length, 17) && get16(frame + AT_L4) == 53 &&
           get32(frame + AT_IP + 12) == 0x0a000203;
}

/* Asks until the question reaches the given server: the keeper looks every two seconds. */
static void ask_name(struct netif_bench *bench, int server, unsigned port)
{
    uint8_t frame[256], got[64];
    struct sockaddr_in from;
    socklen_t length = sizeof(from);
    bench->arg = &server;
    for (int i = 0; i < 100; i++) {
        bench_send(bench, frame,
                   build_udp(&bench->net, frame, bench->net.ip, port++, 0x0a000203, 53,
                             "which address?", 14));
        if (bench_run(bench, name_server_has_some, NULL, 100))
            break;
    }
    ssize_t n = recvfrom(server, got, sizeof(got), 0, (struct sockaddr *)&from, &length);
    ck_assert_int_eq(n, 14);
    ck_assert_mem_eq(got, "which address?", 14);
    ck_assert_int_eq(sendto(server, "192.0.2.7", 9, 0, (struct sockaddr *)&from, length), 9);
    bench_await(bench, is_answer);
    ck_assert_mem_eq(bench->found + AT_UDP_DATA, "192.0.2.7", 9);
}

START_TEST(an_offline_host_works_and_a_change_of_its_name_server_is_followed)
{
    char path[] = "/tmp/minivmm-resolv-XXXXXX";
    int file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(fchmod(file, 0644), 0);
    static const char first[] = "# ours\nsearch example.org\nnameserver 127.0.0.2\n";
    static const char second[] = "# ours\nsearch example.org\nnameserver 127.0.0.3\n";
    ck_assert_int_eq(write(file, first, strlen(first)), (ssize_t)strlen(first));
    if (!enter_offline_host(path)) {
        printf("SKIPPED: no network namespace here, an offline host was not tried\n");
        unlink(path);
        return;
    }
    struct netif_forward forward = {.host_address = "127.0.0.1", .guest_port = 22};
    forward.host_port = bench_free_port(SOCK_STREAM, "127.0.0.1");
    struct netif_bench *bench = open_bench(&forward, 1);
    ask_dhcp(bench, 1, 2);
    talk(bench, forward.host_port);
    int one = bind_name_server("127.0.0.2"), two = bind_name_server("127.0.0.3");
    ask_name(bench, one, 40000);
    /* Of the same length, in the same second perhaps. */
    ck_assert_int_eq(pwrite(file, second, strlen(second), 0), (ssize_t)strlen(second));
    ask_name(bench, two, 41000);
    close(one);
    close(two);
    close(file);
    unlink(path);
    bench_destroy(bench);
}
END_TEST

/* --- its life and death ------------------------------------------------------------------- */

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *after = strrchr(text, ')');
    int parent = -1;
    return after && sscanf(after, ") %*c %d", &parent) == 1 ? parent : -1;
}

/* The process that handles frames: the keeper's child, or the child itself. */
static pid_t worker_of(pid_t child)
{
    DIR *proc = opendir("/proc");
    pid_t worker = child;
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && parent_of(pid) == child)
            worker = pid;
    }
    closedir(proc);
    return worker;
}

static bool is_down_and_up(struct netif_bench *bench)
{
    return bench->link_downs > 0 && bench->link_ups == bench->link_downs;
}

static bool is_down(struct netif_bench *bench)
{
    return bench->link_downs > 0 && bench->troubles > 0;
}

static void check_life_after_death(bool kill_worker)
{
    struct netif_forward forward = {.host_address = "127.0.0.1", .guest_port = 22};
    forward.host_port = bench_free_port(SOCK_STREAM, "127.0.0.1");
    struct netif_bench *bench = open_bench(&forward, 1);
    uint8_t frame[512];

    ask_dhcp(bench, 1, 2);
    pid_t first = bench_child(bench);
    ck_assert_int_eq(kill(kill_worker ? worker_of(first) : first, SIGKILL), 0);
    bench_until(bench, is_down);
    ck_assert_uint_eq(bench->link_ups, 0);
    ck_assert_str_eq(bench->trouble,
                     "user network: minivmm-usernet was killed by signal 9 (Killed); the guest has "
                     "no network until it runs again");
    bench_send(bench, frame, build_dhcp(&bench->net, frame, 1)); /* dropped */
    bench_until(bench, is_down_and_up);
    ck_assert_uint_eq(bench->troubles, 1);
    ck_assert_uint_eq(bench->link_downs, 1);
    ck_assert_int_ne(bench_child(bench), first);
    ask_dhcp(bench, 1, 2);
    talk(bench, forward.host_port);
    bench_destroy(bench);
}

START_TEST(a_killed_helper_is_told_of_and_started_again)
{
    check_life_after_death(false);
    check_life_after_death(true);
}
END_TEST

START_TEST(each_start_of_a_helper_that_keeps_dying_waits_longer)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    uint64_t waited[3];
    for (unsigned i = 0; i < 3; i++) {
        bench->link_downs = bench->link_ups = 0;
        ck_assert_int_eq(kill(bench_child(bench), SIGKILL), 0);
        bench_until(bench, is_down_and_up);
        waited[i] = bench->up_ns - bench->down_ns;
        ck_assert_uint_ge(waited[i], (100000000ull << i));
    }
    bench_destroy(bench);
}
END_TEST

static bool can_write(struct netif_bench *bench)
{
    return bench->writables > 0;
}

static bool is_told(struct netif_bench *bench)
{
    return bench->troubles > 0;
}

START_TEST(a_guest_that_is_faster_than_the_helper_loses_nothing)
{
    struct netif_bench *bench = bench_create();
    struct netif_config config = {.mode = NETIF_USER, .helper = USERNET};
    struct err err = {0};
    ck_assert_int_eq(netif_user_open(&bench->netif, &config, &err), 0);
    ck_assert_int_eq(bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, &err),
                     0);
    ck_assert_int_eq(bench_child(bench), 0); /* nobody has asked for it */

    uint8_t header[NETIF_HEADER] = {0}, frame[64];
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    struct iovec iov[2] = {
        {header, sizeof(header)},
        {frame, build_arp(&bench->net, frame, 1, all, bench->net.gateway)},
    };
    ck_assert_int_eq(bench->netif->ops->configure(bench->netif, 1, 0), 0);
    ck_assert_int_eq(bench->netif->ops->send(bench->netif, 0, iov, 2), -EAGAIN);
    bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE | NETIF_WRITABLE);
    bench_until(bench, can_write);
    bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
    ask_arp(bench);
    bench_destroy(bench);
}
END_TEST

START_TEST(a_helper_that_cannot_start_late_takes_the_link_down)
{
    struct netif_bench *bench = bench_create();
    struct netif_config config = {.mode = NETIF_USER, .helper = "/bin/false"};
    struct err err = {0};
    ck_assert_int_eq(netif_user_open(&bench->netif, &config, &err), 0);
    ck_assert_int_eq(bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, &err),
                     0);
    ck_assert_int_eq(bench->netif->ops->configure(bench->netif, 1, 0), 0);
    bench_until(bench, is_told);
    ck_assert_uint_eq(bench->link_downs, 1);
    ck_assert(!bench->netif->info.link_up);
    bench_destroy(bench);
}
END_TEST

START_TEST(what_happens_while_detached_is_made_up_for)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    ask_arp(bench);
    bench->netif->ops->detach(bench->netif);
    bench->netif->ops->detach(bench->netif);
    bench_attach(bench);
    ask_arp(bench);
    bench->netif->ops->detach(bench->netif);
    struct pollfd dead = {.fd = pidfd_open(bench_child(bench), 0), .events = POLLIN};
    ck_assert_int_eq(kill(bench_child(bench), SIGKILL), 0);
    ck_assert_int_eq(poll(&dead, 1, BENCH_PATIENCE_S * 1000), 1);
    close(dead.fd);
    bench_attach(bench);
    bench_until(bench, is_down_and_up);
    ask_arp(bench);
    bench_destroy(bench);
}
END_TEST

START_TEST(the_helper_does_not_outlive_a_vmm_that_is_killed)
{
    int tell[2];
    pid_t pids[2];
    ck_assert_int_eq(pipe(tell), 0);
    pid_t vmm = fork();
    if (vmm == 0) {
        struct netif_bench *bench = open_bench(NULL, 0);
        pids[0] = bench_child(bench);
        pids[1] = worker_of(pids[0]);
        if (write(tell[1], pids, sizeof(pids)) == sizeof(pids))
            for (;;)
                pause();
        _exit(1);
    }
    ck_assert_int_eq(read(tell[0], pids, sizeof(pids)), sizeof(pids));
    struct pollfd dead[2];
    for (int i = 0; i < 2; i++)
        dead[i] = (struct pollfd){.fd = pidfd_open(pids[i], 0), .events = POLLIN};
    ck_assert_int_eq(kill(vmm, SIGKILL), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_ge(dead[i].fd, 0);
        ck_assert_int_eq(poll(&dead[i], 1, BENCH_PATIENCE_S * 1000), 1);
    }
    ck_assert_int_eq(waitpid(vmm, NULL, 0), vmm);
}
END_TEST

/* --- the sandbox -------------------------------------------------------------------------- */

static bool has_status(pid_t pid, const char *key, const char *value)
{
    char path[64], text[4096];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    ck_assert_int_gt(n, 0);
    close(fd);
    text[n] = '\0';
    const char *line = strstr(text, key);
    ck_assert_ptr_nonnull(line);
    line += strlen(key) + strspn(line + strlen(key), " \t");
    return strncmp(line, value, strlen(value)) == 0;
}

static void check_status(pid_t pid, const char *key, const char *value)
{
    ck_assert_msg(has_status(pid, key, value), "%s is not %s", key, value);
}

/* Not of a user namespace where nobody is not mapped, and not without its capabilities. */
static bool is_true_root(void)
{
    char map[128] = "";
    int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    bool all = fd >= 0 && read(fd, map, sizeof(map) - 1) > 0 && strstr(map, "4294967295");
    if (fd >= 0)
        close(fd);
    return all && geteuid() == 0 && !has_status(getpid(), "\nCapEff:", "0000000000000000");
}

static bool keeper_is_locked_in(struct netif_bench *bench)
{
    return has_status(bench_child(bench), "\nSeccomp:", "2\n");
}

START_TEST(the_helper_is_locked_in)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    pid_t pids[2] = {bench_child(bench), worker_of(bench_child(bench))};
    bench_until(bench, keeper_is_locked_in); /* the worker has been, since it was ready */
    for (int i = 0; i < 2; i++) {
        check_status(pids[i], "\nSeccomp:", "2\n");
        check_status(pids[i], "\nNoNewPrivs:", "1\n");
        check_status(pids[i], "\nCapEff:", "0000000000000000");
        check_status(pids[i], "\nCapPrm:", "0000000000000000");
        check_status(pids[i], "\nCapInh:", "0000000000000000");
        if (is_true_root()) {
            check_status(pids[i], "\nCapBnd:", "0000000000000000");
            check_status(pids[i], "\nUid:", "65534\t65534\t65534\t65534");
            check_status(pids[i], "\nGid:", "65534\t65534\t65534\t65534");
            check_status(pids[i], "\nGroups:", "\n");
        }
    }
    if (is_true_root() && pids[0] != pids[1]) {
        char path[64];
        unsigned names = 0;
        snprintf(path, sizeof(path), "/proc/%d/root", pids[1]);
        DIR *root = opendir(path);
        ck_assert_ptr_nonnull(root);
        for (struct dirent *entry; (entry = readdir(root)) != NULL;)
            names += entry->d_name[0] != '.';
        closedir(root);
        ck_assert_uint_eq(names, 1); /* etc */
    }
    bench_destroy(bench);
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("netif_user");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, a_guest_gets_the_addresses_that_people_know);
    tcase_add_test(tcase, the_gateway_answers_an_echo_of_any_size);
    tcase_add_test(tcase, the_header_is_stripped_and_zeroed_and_a_long_frame_is_cut);
    tcase_add_test(tcase, a_forwarded_connection_carries_bytes_both_ways);
    tcase_add_test(tcase, a_forwarded_datagram_is_answered);
    tcase_add_test(tcase, a_forward_from_an_ipv6_address_reaches_the_guest_by_ipv6);
    tcase_add_test(tcase, a_port_that_is_taken_is_named);
    tcase_add_test(tcase, a_helper_that_is_not_there_is_named);
    tcase_add_test(tcase, a_guest_reaches_the_host_at_the_gateways_address);
    tcase_add_test(tcase, an_offline_host_works_and_a_change_of_its_name_server_is_followed);
    tcase_add_test(tcase, a_killed_helper_is_told_of_and_started_again);
    tcase_add_test(tcase, each_start_of_a_helper_that_keeps_dying_waits_longer);
    tcase_add_test(tcase, a_guest_that_is_faster_than_the_helper_loses_nothing);
    tcase_add_test(tcase, a_helper_that_cannot_start_late_takes_the_link_down);
    tcase_add_test(tcase, what_happens_while_detached_is_made_up_for);
    tcase_add_test(tcase, the_helper_does_not_outlive_a_vmm_that_is_killed);
    tcase_add_test(tcase, the_helper_is_locked_in);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(suite());
}
