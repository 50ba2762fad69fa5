/* SPDX-License-Identifier: MIT */
#include "host/netif_forward.h"

#include <errno.h>
#include <stdio.h>

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
