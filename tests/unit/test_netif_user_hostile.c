/* SPDX-License-Identifier: MIT */
/*
 * What a hostile guest may try against the helper; and what a helper that was broken into may try
 * against the VMM: for that this program is started as the helper, and misbehaves in the way that
 * the MTU asks for.
 */
#include "tests/unit/usernet_guest.h"
#include <signal.h>

/* --- hostile guests ----------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* A frame that means something, before it is spoilt. */
static size_t build_any(struct netif_bench *bench, uint8_t *frame, uint64_t random)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    static const uint8_t ours[16] = {0xfe, 0xc0, [15] = 0x15};
    struct tiny_tcp tcp = {.peer = bench->net.gateway,
                           .our_port = (unsigned)(random >> 8 & 7) + 1000,
                           .peer_port = 1,
                           .next_out = (uint32_t)(random >> 32)};
    switch (random & 7) {
    case 0:
        return build_arp(&bench->net, frame, 1 + (random >> 8 & 1), all, bench->net.gateway);
    case 1:
        return build_dhcp(&bench->net, frame, random >> 8 & 7);
    case 2:
        return build_solicitation(&bench->net, frame, ours);
    case 3:
    case 4:
        return build_tcp(&bench->net, frame, &tcp, random >> 16 & 0x3f, "abcdefgh",
                         random >> 24 & 7);
    case 5: /* TFTP, DNS, and nobody's */
        return build_udp(&bench->net, frame, bench->net.ip, 1234, bench->net.gateway,
                         random >> 8 & 1 ? 69 : 9, "\0\1file\0octet\0", 14);
    default:
        memset(frame, (int)(random >> 8), 60);
        put16(frame + 12, random >> 16 & 1 ? 0x0800 : 0x86dd);
        return 14 + (random >> 32) % 1500;
    }
}

START_TEST(spoilt_frames_do_no_harm)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    static uint8_t frame[4096];
    uint64_t random = 0x9e3779b97f4a7c15;

    ask_arp(bench);
    for (unsigned i = 0; i < 20000; i++) {
        size_t length = build_any(bench, frame, next_random(&random));
        for (uint64_t spoil = next_random(&random) % 4; spoil; spoil--) {
            uint64_t where = next_random(&random);
            frame[12 + where % (length - 12)] = (uint8_t)(where >> 32);
        }
        if (next_random(&random) % 4 == 0)
            length = 14 + next_random(&random) % length;
        bench_send(bench, frame, length);
        if (i % 500 == 499)
            ask_arp(bench);
    }
    ck_assert_uint_eq(bench->link_downs, 0);
    ask_dhcp(bench, 1, 2);
    bench_destroy(bench);
}
END_TEST

START_TEST(a_guest_that_never_reads_loses_only_its_own_frames)
{
    struct netif_bench *bench = open_bench(NULL, 0);
    uint8_t frame[512];
    bench->netif->ops->watch(bench->netif, 0, 0);
    size_t length = build_dhcp(&bench->net, frame, 1);
    for (unsigned i = 0; i < 20000; i++) /* each is answered with 590 bytes: 11 MB */
        bench_send(bench, frame, length);
    bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
    ask_dhcp(bench, 1, 2);
    ck_assert_uint_eq(bench->link_downs, 0);
    bench_destroy(bench);
}
END_TEST

/* --- hostile helpers ----------------------------------------------------------------------------
 */

enum play {
    PLAY_GOOD = USERNET_MTU_MIN,
    PLAY_EXITS,
    PLAY_SHORT_HELLO,
    PLAY_LONG_HELLO,
    PLAY_WRONG_HELLO,
    PLAY_FORWARD_OUT_OF_RANGE,
    PLAY_CLOSES_EARLY,
    PLAY_EMPTY_MESSAGE, /* from here on after a good hello */
    PLAY_RUNT,
    PLAY_GIANT,
    PLAY_DESCRIPTORS,
    PLAY_CLOSES,
    PLAY_FLOODS_STDERR,
    PLAY_END,
};

static void play(const void *bytes, size_t length)
{
    if (send(NETIF_CHILD_SOCKET, bytes, length, MSG_NOSIGNAL) < 0)
        _exit(9);
}

static void play_descriptors(void)
{
    static uint8_t frame[60];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {frame, sizeof(frame)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    *(int *)(void *)CMSG_DATA(&control.header) = 0;
    for (int i = 0; i < 100; i++)
        if (sendmsg(NETIF_CHILD_SOCKET, &message, MSG_NOSIGNAL) < 0)
            _exit(9);
}

static int play_helper(unsigned how)
{
    static uint8_t bytes[100000];
    struct usernet_hello hello = {.magic = USERNET_MAGIC, .outcome = USERNET_READY};
    if (how == PLAY_EXITS) {
        fprintf(stderr, "first line\nit is \033[31mfull\033[0m moon\n");
        return 3;
    }
    if (how == PLAY_CLOSES_EARLY)
        close(NETIF_CHILD_SOCKET);
    if (how == PLAY_WRONG_HELLO)
        hello.magic++;
    if (how == PLAY_FORWARD_OUT_OF_RANGE)
        hello = (struct usernet_hello){USERNET_MAGIC, USERNET_NO_FORWARD, 1, UINT32_MAX, 0};
    memcpy(bytes, &hello, sizeof(hello));
    if (how != PLAY_CLOSES_EARLY)
        play(bytes, how == PLAY_SHORT_HELLO  ? 3
                    : how == PLAY_LONG_HELLO ? sizeof(bytes)
                                             : sizeof(hello));
    if (how == PLAY_EMPTY_MESSAGE)
        play(bytes, 0);
    if (how == PLAY_RUNT)
        play(bytes, 13);
    if (how == PLAY_GIANT)
        play(bytes, sizeof(bytes));
    if (how == PLAY_DESCRIPTORS)
        play_descriptors();
    if (how == PLAY_CLOSES)
        close(NETIF_CHILD_SOCKET);
    if (how == PLAY_FLOODS_STDERR)
        for (int i = 0; i < 1000; i++)
            fprintf(stderr, "%01000d\n", i);
    if (how == PLAY_FLOODS_STDERR)
        play(bytes, 1);
    for (;;)
        pause();
}

static struct netif_bench *open_player(unsigned how, const struct netif_forward *forward,
                                       struct err *err, int *ret)
{
    struct netif_bench *bench = bench_create();
    struct netif_config config = {.mtu = (uint16_t)how,
                                  .helper = "/proc/self/exe",
                                  .forwards = forward,
                                  .forward_count = forward != NULL};
    *ret = netif_user_open(&bench->netif, &config, err);
    ck_assert_msg(*ret == 0, "%s", err->text);
    *ret = bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, err);
    if (*ret == 0)
        bench_bring_up(bench);
    return bench;
}

START_TEST(a_helper_that_does_not_begin_well_is_an_error)
{
    for (unsigned how = PLAY_EXITS; how < PLAY_CLOSES_EARLY; how++) {
        struct netif_forward forward = {.host_port = 1, .guest_port = 1};
        struct err err = {0};
        int ret;
        struct netif_bench *bench = open_player(how, &forward, &err, &ret);
        ck_assert_int_lt(ret, 0);
        ck_assert_msg(err.text[0], "case %u says nothing", how - PLAY_GOOD);
        if (how == PLAY_EXITS)
            ck_assert_str_eq(err.text, "user network: minivmm-usernet ended with status 3: it is "
                                       "?[31mfull?[0m moon");
        bench_destroy(bench);
    }
}
END_TEST

static bool is_told(struct netif_bench *bench)
{
    return bench->troubles > 0;
}

START_TEST(a_helper_that_breaks_the_protocol_counts_as_dead)
{
    static const char *const words[PLAY_END] = {
        [PLAY_EMPTY_MESSAGE] = "closed its socket",     [PLAY_RUNT] = "sent what is no frame",
        [PLAY_GIANT] = "sent what is no frame",         [PLAY_CLOSES] = "closed its socket",
        [PLAY_FLOODS_STDERR] = "sent what is no frame",
    };
    for (unsigned how = PLAY_EMPTY_MESSAGE; how < PLAY_END; how++) {
        if (how == PLAY_DESCRIPTORS)
            continue;
        struct err err = {0};
        int ret;
        struct netif_bench *bench = open_player(how, NULL, &err, &ret);
        ck_assert_msg(ret == 0, "%s", err.text);
        bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
        pid_t first = bench_child(bench);
        bench_until(bench, is_told);
        ck_assert_uint_eq(bench->link_downs, 1);
        ck_assert_ptr_nonnull(strstr(bench->trouble, words[how]));
        ck_assert_int_eq(kill(first, 0), -1); /* it lives on no more */
        bench_destroy(bench);
    }
}
END_TEST

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static bool has_come_a_hundred_times(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    unsigned *count = bench->arg;
    return ++*count == 100;
}

START_TEST(descriptors_that_a_helper_sends_are_not_taken)
{
    struct err err = {0};
    unsigned count = 0;
    int ret;
    struct netif_bench *bench = open_player(PLAY_DESCRIPTORS, NULL, &err, &ret);
    ck_assert_int_eq(ret, 0);
    unsigned before = count_descriptors();
    bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
    bench->arg = &count;
    bench_await(bench, has_come_a_hundred_times);
    ck_assert_uint_eq(count_descriptors(), before);
    bench_destroy(bench);
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("netif_user_hostile");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, spoilt_frames_do_no_harm);
    tcase_add_test(tcase, a_guest_that_never_reads_loses_only_its_own_frames);
    tcase_add_test(tcase, a_helper_that_does_not_begin_well_is_an_error);
    tcase_add_test(tcase, a_helper_that_breaks_the_protocol_counts_as_dead);
    tcase_add_test(tcase, descriptors_that_a_helper_sends_are_not_taken);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strtoul(argv[1], NULL, 10) >= PLAY_GOOD)
        return play_helper((unsigned)strtoul(argv[1], NULL, 10));
    return unit_main(suite());
}
