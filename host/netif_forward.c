/* SPDX-License-Identifier: MIT */
#include "host/netif_forward.h"

#include "core/words.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool take_port(const char *text, uint16_t *ret_port)
{
    uint64_t port;
    if (parse_number(text, "", 1, 65535, &port, NULL) < 0)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

/* Cuts "...:PORT" off the end. */
static bool take_last_port(char *text, uint16_t *ret_port)
{
    char *colon = strrchr(text, ':');
    if (!take_port(colon ? colon + 1 : text, ret_port))
        return false;
    *(colon ? colon : text) = '\0';
    return true;
}

static bool take_host_address(struct netif_forward *forward, char *text)
{
    size_t length = strlen(text);
    uint8_t bytes[16];
    if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
        text[length - 1] = '\0';
        text++;
        forward->ipv6 = true;
    }
    if (strlen(text) >= sizeof(forward->host_address) ||
        inet_pton(forward->ipv6 ? AF_INET6 : AF_INET, text, bytes) != 1)
        return false;
    strcpy(forward->host_address, text);
    return true;
}

bool netif_forward_parse(const char *text, struct netif_forward *ret_forward)
{
    struct netif_forward forward = {0};
    char word[100];
    if (strlen(text) >= sizeof(word))
        return false;
    strcpy(word, text);
    char *protocol = strchr(word, '/');
    if (protocol)
        *protocol++ = '\0';
    if (protocol && strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0)
        return false;
    forward.udp = protocol && strcmp(protocol, "udp") == 0;
    if (!strchr(word, ':') || !take_last_port(word, &forward.guest_port) ||
        !take_last_port(word, &forward.host_port) ||
        (word[0] && !take_host_address(&forward, word)))
        return false;
    *ret_forward = forward;
    return true;
}

bool netif_forward_collide(const struct netif_forward *a, const struct netif_forward *b)
{
    static const uint8_t any[16];
    uint8_t address_a[16] = {0}, address_b[16] = {0};
    int family = a->ipv6 ? AF_INET6 : AF_INET;
    size_t length = a->ipv6 ? 16 : 4;
    if (a->udp != b->udp || a->ipv6 != b->ipv6 || a->host_port != b->host_port)
        return false;
    (void)inet_pton(family, netif_forward_address(a), address_a);
    (void)inet_pton(family, netif_forward_address(b), address_b);
    return memcmp(address_a, address_b, length) == 0 || memcmp(address_a, any, length) == 0 ||
           memcmp(address_b, any, length) == 0;
}

const char *netif_forward_address(const struct netif_forward *forward)
{
    if (forward->host_address[0])
        return forward->host_address;
    return forward->ipv6 ? "::" : "0.0.0.0";
}

int netif_forward_error(const struct netif_forward *forward, int errnum, struct err *err)
{
    char spec[96];
    const char *address = forward->host_address;
    snprintf(spec, sizeof(spec), "-p %s%s%s%s%u:%u%s", forward->ipv6 && address[0] ? "[" : "",
             address, forward->ipv6 && address[0] ? "]" : "", address[0] ? ":" : "",
             forward->host_port, forward->guest_port, forward->udp ? "/udp" : "");
    switch (errnum) {
    case EADDRINUSE: {
        int ret = err_say(err, ERR_STATE, errnum, "%s: host port %u is in use", spec,
                          forward->host_port);
        err_hint(err, "see who has it: ss -%slnp 'sport = :%u'; or choose another",
                 forward->udp ? "u" : "t", forward->host_port);
        return ret;
    }
    case EACCES:
    case EPERM: {
        int ret = err_say(err, ERR_HOST, errnum, "%s: this user may not take host port %u", spec,
                          forward->host_port);
        err_hint(err,
                 "take one from 1024 up, or: sudo sysctl net.ipv4.ip_unprivileged_port_start=%u",
                 forward->host_port);
        return ret;
    }
    case EADDRNOTAVAIL:
        return err_say(err, ERR_HOST, errnum, "%s: this host has no address %s", spec, address);
    default:
        return err_sys(err, ERR_HOST, errnum, "%s: cannot take host port %u", spec,
                       forward->host_port);
    }
}
