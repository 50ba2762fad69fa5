/* SPDX-License-Identifier: MIT */
#include "host/netif.h"

#include <errno.h>

int netif_open(struct netif **ret_netif, const struct netif_config *config, struct err *err)
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
