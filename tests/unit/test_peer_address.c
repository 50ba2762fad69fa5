/* SPDX-License-Identifier: MIT */
#include "host/peer_address.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

START_TEST(what_reads_the_same_is_equal)
{
    ck_assert(peer_address_equal("hostB", "HOSTb:7420"));
    ck_assert(peer_address_equal("[fe80::1]", "[FE80::1]:7420"));
    ck_assert(!peer_address_equal("hostB", "hostB:7421"));
    ck_assert(!peer_address_equal("hostB", "hostC"));
    ck_assert(peer_address_equal("hostB,hostB-2", "hostC,hostb-2:7420")); /* two lines to a host */
    ck_assert(!peer_address_equal("hostB,hostB-2", "hostC,hostD"));
    ck_assert(!peer_address_equal("", "") && !peer_address_equal("hostB", "a b"));
}
END_TEST

START_TEST(what_leads_to_one_place_is_the_same)
{
    ck_assert(peer_address_same("127.0.0.1:7420", "[::ffff:127.0.0.1]"));
    ck_assert(!peer_address_same("127.0.0.1:7420", "127.0.0.1:7421"));
    ck_assert(!peer_address_same("127.0.0.1", "127.0.0.2"));
    ck_assert(peer_address_same("localhost", "localhost:7420"));
    ck_assert(!peer_address_same("no.such.invalid", "127.0.0.1"));
    ck_assert(!peer_address_same("127.0.0.1", "no.such.invalid"));
}
END_TEST

START_TEST(a_number_of_the_loopback_is_what_somebody_means)
{
    ck_assert(!peer_address_is_here("127.0.0.1:4711"));
    ck_assert(!peer_address_is_here("[::1]:4711"));
    /* A documentation address, and one that nobody finds. */
    ck_assert(!peer_address_is_here("203.0.113.77"));
    ck_assert(!peer_address_is_here("no.such.invalid"));
    ck_assert(!peer_address_is_here(""));
}
END_TEST

/* A name that leads to the loopback is this host. */
START_TEST(one_of_several_is_enough)
{
    ck_assert(peer_address_same("127.0.0.9,127.0.0.1", "localhost"));
    ck_assert(!peer_address_same("127.0.0.9,127.0.0.8", "127.0.0.1"));
    ck_assert(!peer_address_is_here("127.0.0.1,127.0.0.2"));
    ck_assert(peer_address_is_here("127.0.0.1,localhost"));
}
END_TEST

START_TEST(a_name_of_this_host_is_here)
{
    ck_assert(peer_address_is_here("localhost:4711"));
}
END_TEST

START_TEST(an_address_of_an_interface_is_here)
{
    struct ifaddrs *list;
    unsigned seen = 0;
    ck_assert_int_eq(getifaddrs(&list), 0);
    for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
        char text[INET_ADDRSTRLEN];
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET || (at->ifa_flags & IFF_LOOPBACK))
            continue;
        const struct sockaddr_in *four = (const void *)at->ifa_addr;
        ck_assert_ptr_nonnull(inet_ntop(AF_INET, &four->sin_addr, text, sizeof(text)));
        ck_assert_msg(peer_address_is_here(text), "%s", text);
        seen++;
    }
    if (seen == 0)
        fprintf(stderr, "no interface but the loopback here: not looked at\n");
    freeifaddrs(list);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peer_address");
    TCase *tcase = tcase_create("peer_address");
    tcase_set_timeout(tcase, 60); /* a name server that does not answer */
    tcase_add_test(tcase, what_reads_the_same_is_equal);
    tcase_add_test(tcase, what_leads_to_one_place_is_the_same);
    tcase_add_test(tcase, a_number_of_the_loopback_is_what_somebody_means);
    tcase_add_test(tcase, one_of_several_is_enough);
    tcase_add_test(tcase, a_name_of_this_host_is_here);
    tcase_add_test(tcase, an_address_of_an_interface_is_here);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
