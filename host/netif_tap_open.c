/* SPDX-License-Identifier: MIT */
/*
 * Finds or makes a tap device, and sets it up.
 *
 * Rights. To make a tap, to bring one up, and to join a bridge takes CAP_NET_ADMIN; to use one that
 * `ip tuntap add ... user` made for us takes none. So everything that needs rights is tried, and
 * where it fails the sentence says what the person can do once, as root.
 *
 * Frames that a slow receiver has not taken yet are not counted against us (no limit of the send
 * buffer): a limit would let one receiver that does not read hold up the guest's other traffic.
 */
#include "host/netif_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- the device ----------------------------------------------------------------------------- */

static int open_tun(int *ret_fd, struct err *err)
{
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        err_sys(err, ERR_HOST, error, "cannot open /dev/net/tun");
        if (error == ENOENT || error == ENODEV || error == ENXIO)
            err_hint(err, "load the kernel's driver: sudo modprobe tun");
        else if (error == EACCES || error == EPERM)
            err_hint(err, "let users open it, as distributions do: sudo chmod 666 /dev/net/tun");
        return -error;
    }
    *ret_fd = fd;
    return 0;
}

/* What to tell the person whose tap cannot be taken; `there` says that a device of that name is. */
static int explain(const char *name, bool there, unsigned queues, int error, struct err *err)
{
    const char *multi = queues > 1 ? " multi_queue" : "";

    switch (error) {
    case EBUSY:
        err_say(err, ERR_STATE, error, "tap %s is in use by another program", name);
        err_hint(err, "each VM needs a tap of its own");
        break;
    case EINVAL:
        if (there)
            err_say(err, ERR_HOST, error, "network device %s is not a tap", name);
        else
            err_say(err, ERR_USAGE, error, "\"%s\" is no name for a tap", name);
        break;
    case EPERM:
        if (there) {
            err_say(err, ERR_HOST, error, "tap %s belongs to another user", name);
            err_hint(err,
                     "make it anew for yourself: sudo ip tuntap del %s mode tap; "
                     "sudo ip tuntap add %s mode tap user $USER%s",
                     name, name, multi);
        } else if (name[0]) {
            err_say(err, ERR_HOST, error, "there is no tap %s, and to make one takes CAP_NET_ADMIN",
                    name);
            err_hint(err, "sudo ip tuntap add %s mode tap user $USER%s && sudo ip link set %s up",
                     name, multi, name);
        } else {
            err_say(err, ERR_HOST, error, "to make a tap takes CAP_NET_ADMIN");
            err_hint(err,
                     "make one and name it (tap:vm0): sudo ip tuntap add vm0 mode tap "
                     "user $USER%s && sudo ip link set vm0 up",
                     multi);
        }
        break;
    default:
        err_sys(err, ERR_HOST, error, "cannot %s tap %s", there ? "use" : "make", name);
        break;
    }
    return -error;
}

/* Opens one more queue of the device called tap->name, or the first of a new one. -errno */
static int open_queue(struct tap *tap, bool multi, struct err *err)
{
    struct tap_queue *q = &tap->queues[tap->queue_count];
    struct ifreq request = {
        .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi ? IFF_MULTI_QUEUE : 0))};
    int fd = -1;

    int ret = open_tun(&fd, err);
    if (ret < 0)
        return ret;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", tap->name[0] ? tap->name : "mvm%d");
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    memcpy(tap->name, request.ifr_name, sizeof(tap->name));
    *q = (struct tap_queue){.tap = tap, .index = tap->queue_count, .fd = fd, .attached = true};
    tap->queue_count++;
    return 0;
}

/*
 * A tap is made for one queue or for many, and an existing one has to be opened as what it is,
 * which only trying tells.
 */
static int open_first_queue(struct tap *tap, unsigned queues, struct err *err)
{
    char name[IFNAMSIZ];
    struct err why = {0};

    memcpy(name, tap->name, sizeof(name));
    bool there = name[0] && if_nametoindex(name) != 0;
    tap->multi = queues > 1;
    int ret = open_queue(tap, tap->multi, &why);
    if (ret == -EINVAL && there) {
        tap->multi = !tap->multi;
        ret = open_queue(tap, tap->multi, &why);
    }
    if (ret < 0 && why.kind) { /* /dev/net/tun itself: it is said already */
        if (err)
            *err = why;
        return ret;
    }
    if (ret < 0)
        return explain(name, there, queues, -ret, err);
    tap->index = (int)if_nametoindex(tap->name);
    /* The kernel lets many programs share the queues of one tap; frames would go to either. */
    if (there && tap->multi && rtlink_tun_queues(tap->index) > 1)
        return explain(name, there, queues, EBUSY, err);
    if (queues > 1 && !tap->multi)
        snprintf(tap->note, sizeof(tap->note),
                 "tap %s was made for one queue, so the guest has one (ip tuntap add ... "
                 "multi_queue makes one for many)",
                 tap->name);
    return 0;
}

static int open_queues(struct tap *tap, unsigned queues, struct err *err)
{
    int ret = open_first_queue(tap, queues, err);
    if (ret < 0)
        return ret;
    while (tap->multi && tap->queue_count < queues) {
        ret = open_queue(tap, true, err);
        if (ret < 0)
            return explain(tap->name, true, queues, -ret, err);
    }
    int size = NETIF_HEADER, little_endian = 1, no_limit = INT_MAX;
    int fd = tap->queues[0].fd; /* these are the device's, not the queue's */
    if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0 ||
        ioctl(fd, TUNSETSNDBUF, &no_limit) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot set up tap %s", tap->name);
    tap->netif.info.offloads = TAP_OFFLOADS;
    if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)TAP_OFFLOADS) < 0)
        tap->netif.info.offloads = 0;
    ret = tap_configure(&tap->netif, 1, 0); /* until the driver has said what it takes */
    return ret < 0 ? err_sys(err, ERR_HOST, -ret, "cannot set up tap %s", tap->name) : 0;
}

/* --- the device's settings, by way of any socket -------------------------------------------- */

static struct ifreq name_request(const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, IFNAMSIZ);
    return request;
}

static int set_mtu(const struct tap *tap, int fd, unsigned mtu, struct err *err)
{
    struct ifreq request = name_request(tap->name);

    if (ioctl(fd, SIOCGIFMTU, &request) == 0 && (unsigned)request.ifr_mtu == mtu)
        return 0;
    request.ifr_mtu = (int)mtu;
    if (ioctl(fd, SIOCSIFMTU, &request) == 0)
        return 0;
    int error = errno;
    err_sys(err, ERR_HOST, error, "cannot set the MTU of tap %s to %u", tap->name, mtu);
    if (error == EPERM)
        err_hint(err, "sudo ip link set %s mtu %u", tap->name, mtu);
    return -error;
}

/*
 * A bridge takes the lowest address of its ports for its own, and changing it costs everybody on
 * the bridge their neighbour entries. So a port of ours gets a high one.
 */
static void raise_address(const struct tap *tap, int fd)
{
    struct ifreq request = name_request(tap->name);

    if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
        return;
    request.ifr_hwaddr.sa_data[0] = (char)0xfe;
    if (ioctl(fd, SIOCSIFHWADDR, &request) < 0)
        return; /* works as well without, only less smoothly */
}

static int join_bridge(const struct tap *tap, int fd, const struct netif_config *config,
                       struct err *err)
{
    struct ifreq request = name_request(config->name);
    struct ifreq mtu = name_request(config->name);

    raise_address(tap, fd);
    /* Joining with a smaller MTU would shrink the bridge's. */
    if (!config->mtu && ioctl(fd, SIOCGIFMTU, &mtu) == 0)
        (void)set_mtu(tap, fd, (unsigned)mtu.ifr_mtu, NULL);
    request.ifr_ifindex = tap->index;
    if (ioctl(fd, SIOCBRADDIF, &request) == 0)
        return 0;
    int error = errno;
    if (error == EOPNOTSUPP || error == EINVAL)
        return err_say(err, ERR_HOST, EINVAL, "network device %s is not a bridge", config->name);
    return err_sys(err, ERR_HOST, error, "cannot join bridge %s", config->name);
}

static int bring_up(struct tap *tap, int fd, struct err *err)
{
    struct ifreq request = name_request(tap->name);

    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot look at tap %s", tap->name);
    if (!(request.ifr_flags & IFF_UP)) {
        request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) {
            if (errno != EPERM)
                return err_sys(err, ERR_HOST, errno, "cannot bring up tap %s", tap->name);
            snprintf(tap->note, sizeof(tap->note),
                     "tap %s is down: the guest has a link after: sudo ip link set %s up",
                     tap->name, tap->name);
        }
    }
    if (ioctl(fd, SIOCGIFFLAGS, &request) == 0)
        tap->netif.info.link_up = (request.ifr_flags & IFF_UP) && (request.ifr_flags & IFF_RUNNING);
    return 0;
}

static int set_up_device(struct tap *tap, int fd, const struct netif_config *config,
                         struct err *err)
{
    int ret = config->mtu ? set_mtu(tap, fd, config->mtu, err) : 0;
    if (ret == 0 && config->mode == NETIF_BRIDGE)
        ret = join_bridge(tap, fd, config, err);
    if (ret == 0)
        ret = bring_up(tap, fd, err);
    if (ret < 0)
        return ret;
    struct ifreq request = name_request(tap->name);
    if (ioctl(fd, SIOCGIFMTU, &request) == 0 && request.ifr_mtu > 0 && request.ifr_mtu <= 0xffff)
        tap->netif.info.mtu = (uint16_t)request.ifr_mtu;
    return 0;
}

static int check_names(const struct netif_config *config, struct err *err)
{
    const char *name = config->name;

    if (config->mode == NETIF_BRIDGE) {
        if (name[0] && if_nametoindex(name) != 0)
            return 0;
        err_say(err, ERR_HOST, ENODEV, "there is no bridge %s", name);
        err_hint(err, "sudo ip link add %s type bridge && sudo ip link set %s up", name, name);
        return -ENODEV;
    }
    if (strchr(name, '%')) /* the kernel would put a number there */
        return explain(name, false, 1, EINVAL, err);
    return 0;
}

int netif_tap_open(struct netif **ret_netif, const struct netif_config *config, struct err *err)
{
    unsigned queues = config->queues ? config->queues : 1;
    int fd = -1;

    int ret = check_names(config, err);
    if (ret < 0)
        return ret;
    struct tap *tap = calloc(1, sizeof(*tap));
    if (!tap)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot open a tap");
    tap->netif.ops = &tap_ops;
    if (config->mode == NETIF_TAP)
        memcpy(tap->name, config->name, sizeof(tap->name));
    /* Before the device is looked at, so that no change between is missed. */
    ret = rtlink_init(&tap->link, err);
    if (ret < 0)
        goto fail;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        ret = err_sys(err, ERR_HOST, errno, "cannot open a socket");
        goto fail;
    }
    ret = open_queues(tap, queues < NETIF_MAX_QUEUES ? queues : NETIF_MAX_QUEUES, err);
    if (ret == 0)
        ret = set_up_device(tap, fd, config, err);
    if (ret < 0)
        goto fail;
    close(fd);
    tap->netif.info.max_queues = tap->queue_count;
    snprintf(tap->netif.info.description, sizeof(tap->netif.info.description),
             config->mode == NETIF_BRIDGE ? "tap %s on bridge %s" : "tap %s", tap->name,
             config->name);
    *ret_netif = &tap->netif;
    return 0;
fail:
    if (fd >= 0)
        close(fd);
    tap_destroy(&tap->netif);
    return ret;
}
