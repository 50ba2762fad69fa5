/* SPDX-License-Identifier: MIT */
#include "host/link_parts.h"

#include "core/words.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static int say_bad(const char *text, struct err *err)
{
    int r = err_say(err, ERR_USAGE, EINVAL, "\"%.100s\" is no address", text);

    err_hint(err, "HOST, HOST:PORT, [::1]:PORT, or :PORT; the port is %d where none is given",
             LINK_DEFAULT_PORT);
    return r;
}

static int take_port(struct link_address *address, const char *text, bool listening,
                     struct err *err)
{
    uint64_t port;

    int r = parse_number(text, "the port", listening ? 0 : 1, 65535, &port, err);
    if (r == 0)
        snprintf(address->port, sizeof(address->port), "%u", (unsigned)port);
    return r;
}

int link_address_parse(struct link_address *ret_address, const char *text, bool listening,
                       struct err *err)
{
    struct link_address address = {.host = ""};
    const char *host = text, *end, *port;

    if (text[0] == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || end == host || (end[1] && end[1] != ':') || !memchr(host, ':', end - host))
            return say_bad(text, err);
        port = end[1] ? end + 2 : NULL;
    } else {
        const char *colon = strchr(text, ':');
        bool bare = colon && strchr(colon + 1, ':'); /* IPv6 as it is */
        end = colon && !bare ? colon : text + strlen(text);
        port = colon && !bare ? colon + 1 : NULL;
    }
    size_t length = (size_t)(end - host);
    if (!text[0] || length >= sizeof(address.host) || strpbrk(text, " \t\r\n/@,"))
        return say_bad(text, err);
    memcpy(address.host, host, length);
    snprintf(address.port, sizeof(address.port), "%d", LINK_DEFAULT_PORT);
    int r = port ? take_port(&address, port, listening, err) : 0;
    if (r == 0)
        *ret_address = address;
    return r;
}

/* An IPv4 address in IPv6's clothes is what a socket for both sees; NULL: it is none. */
static const struct in6_addr *as_mapped(const struct sockaddr *address)
{
    const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;

    return address->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(six) ? six : NULL;
}

void link_address_format(const struct sockaddr *address, socklen_t length, char *ret_text,
                         size_t size)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    const struct in6_addr *mapped = as_mapped(address);

    if (getnameinfo(address, length, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(ret_text, size, "an unknown address");
        return;
    }
    if (mapped)
        inet_ntop(AF_INET, mapped->s6_addr + 12, host, sizeof(host));
    snprintf(ret_text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

bool link_address_is_loopback(const struct sockaddr *address)
{
    const struct in6_addr *mapped = as_mapped(address);

    if (mapped)
        return mapped->s6_addr[12] == 127;
    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    const struct sockaddr_in *four = (const void *)address;
    return address->sa_family == AF_INET && ntohl(four->sin_addr.s_addr) >> 24 == 127;
}

bool link_address_is_number(const char *host)
{
    uint8_t bytes[16];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

int link_address_find(struct addrinfo **ret_list, const struct link_address *address,
                      bool listening, struct err *err)
{
    struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (listening ? AI_PASSIVE : 0),
    };
    const char *host = address->host[0] ? address->host : NULL;

    int code = getaddrinfo(host, address->port, &hints, ret_list);
    if (code == 0)
        return 0;
    if (code == EAI_SYSTEM || code == EAI_MEMORY)
        return err_sys(err, ERR_HOST, code == EAI_MEMORY ? ENOMEM : errno,
                       "cannot look up the host %s", address->host);
    if (code == EAI_AGAIN) {
        int r = err_say(err, ERR_FAILED, EAGAIN, "no name server tells where %s is", address->host);
        err_hint(err, "a numeric address needs none");
        return r;
    }
    int r = err_say(err, ERR_NOT_FOUND, ENOENT, "no host is called %s", address->host);
    err_hint(err, "getent ahosts %s shows what this host knows; a numeric address works too",
             address->host);
    return r;
}
