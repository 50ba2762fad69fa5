/* SPDX-License-Identifier: MIT */
#include "host/peer_address.h"

#include "host/link_parts.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* An IP address as a socket that takes both kinds sees it. */
struct number {
    uint8_t bytes[16];
};

static bool number_of(const struct sockaddr *address, struct number *ret_number)
{
    const struct sockaddr_in *four = (const void *)address;
    const struct sockaddr_in6 *six = (const void *)address;
    *ret_number = (struct number){.bytes = {[10] = 0xff, [11] = 0xff}};
    if (address && address->sa_family == AF_INET)
        memcpy(ret_number->bytes + 12, &four->sin_addr, sizeof(four->sin_addr));
    else if (address && address->sa_family == AF_INET6)
        memcpy(ret_number->bytes, &six->sin6_addr, sizeof(six->sin6_addr));
    else
        return false;
    return true;
}

static bool is_same(const struct sockaddr *one, const struct sockaddr *other)
{
    struct number a, b;
    return number_of(one, &a) && number_of(other, &b) &&
           memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

static bool find(const char *text, struct link_address *ret_address, struct addrinfo **ret_list)
{
    return link_address_parse(ret_address, text, false, NULL) == 0 && ret_address->host[0] &&
           link_address_find(ret_list, ret_address, false, NULL) == 0;
}

static bool reads_same(const char *one, const char *other)
{
    struct link_address a, b;
    return link_address_parse(&a, one, false, NULL) == 0 &&
           link_address_parse(&b, other, false, NULL) == 0 && strcasecmp(a.host, b.host) == 0 &&
           strcmp(a.port, b.port) == 0;
}

static bool meet(const struct addrinfo *ones, const struct addrinfo *others)
{
    for (const struct addrinfo *one = ones; one; one = one->ai_next)
        for (const struct addrinfo *other = others; other; other = other->ai_next)
            if (is_same(one->ai_addr, other->ai_addr))
                return true;
    return false;
}

static bool is_one(const char *one, const char *other)
{
    struct link_address a, b;
    struct addrinfo *ones, *others;
    if (reads_same(one, other))
        return true;
    if (!find(one, &a, &ones))
        return false;
    bool same = false;
    if (find(other, &b, &others)) {
        same = strcmp(a.port, b.port) == 0 && meet(ones, others);
        freeaddrinfo(others);
    }
    freeaddrinfo(ones);
    return same;
}

/* A host's own name may lead to its loopback: Debian has 127.0.1.1 for it. */
static bool is_ours(const struct ifaddrs *interfaces, const struct sockaddr *address)
{
    if (link_address_is_loopback(address))
        return true;
    for (; interfaces; interfaces = interfaces->ifa_next)
        if (is_same(interfaces->ifa_addr, address))
            return true;
    return false;
}

static bool leads_here(const char *address)
{
    struct link_address parsed;
    struct addrinfo *list;
    struct ifaddrs *interfaces = NULL;
    bool here = false;
    if (!find(address, &parsed, &list))
        return false;
    bool means_it = link_address_is_number(parsed.host) && link_address_is_loopback(list->ai_addr);
    if (!means_it && getifaddrs(&interfaces) == 0) {
        for (const struct addrinfo *one = list; one && !here; one = one->ai_next)
            here = is_ours(interfaces, one->ai_addr);
        freeifaddrs(interfaces);
    }
    freeaddrinfo(list);
    return here;
}

/* --- of several ------------------------------------------------------------------------------- */

enum { MOST_TEXT = 300 };

/* The next one of a list; *text goes on behind it. False: there is none. */
static bool next_of(const char **text, char ret_one[MOST_TEXT])
{
    if (!**text)
        return false;
    size_t length = strcspn(*text, ",");
    snprintf(ret_one, MOST_TEXT, "%.*s", (int)length, *text);
    *text += length + ((*text)[length] == ',');
    return true;
}

static bool any_pair(const char *ones, const char *others,
                     bool (*fits)(const char *one, const char *other))
{
    char one[MOST_TEXT], other[MOST_TEXT];
    while (next_of(&ones, one))
        for (const char *rest = others; next_of(&rest, other);)
            if (fits(one, other))
                return true;
    return false;
}

bool peer_address_equal(const char *one, const char *other)
{
    return any_pair(one, other, reads_same);
}

bool peer_address_same(const char *one, const char *other)
{
    return any_pair(one, other, is_one);
}

bool peer_address_is_here(const char *address)
{
    char one[MOST_TEXT];
    while (next_of(&address, one))
        if (leads_here(one))
            return true;
    return false;
}
