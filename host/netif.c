/* SPDX-License-Identifier: MIT */
#include "host/netif_gate.h"

#include <errno.h>

static int open_mode(struct netif **ret_netif, const struct netif_config *config, struct err *err)
{
    switch (config->mode) {
    case NETIF_USER:
        return netif_user_open(ret_netif, config, err);
    case NETIF_PASST:
        return netif_passt_open(ret_netif, config, err);
    case NETIF_TAP:
    case NETIF_BRIDGE:
        return netif_tap_open(ret_netif, config, err);
    case NETIF_NONE:
        break;
    }
    return err_say(err, ERR_USAGE, EINVAL, "there is no interface to open without a network");
}

int netif_open(struct netif **ret_netif, const struct netif_config *config, struct err *err)
{
    struct netif *netif = NULL;
    bool limited = config->limits.operations || config->limits.bytes || config->shared ||
                   config->limits_may_change;

    int r = open_mode(&netif, config, err);
    if (r == 0 && limited)
        r = netif_limit_create(&netif, netif, &config->limits, config->shared, err);
    if (r == 0 && config->gate) /* before the limits, which are of what leaves */
        r = netif_gate_create(&netif, netif, err);
    if (r == 0)
        *ret_netif = netif;
    return r;
}
