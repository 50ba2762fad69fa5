/* SPDX-License-Identifier: MIT */
/*
 * Messages are struct nlmsghdr, struct ifinfomsg and a list of attributes (struct rtattr), some of
 * which are lists again. They come from the kernel alone: senders are checked, lengths too.
 */
#include "host/rtlink.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union message {
    struct nlmsghdr header;
    char bytes[16 << 10];
};

static int open_netlink(unsigned groups, int flags)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);

    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

int rtlink_init(struct rtlink *link, struct err *err)
{
    int fd = open_netlink(RTMGRP_LINK, SOCK_NONBLOCK);
    if (fd < 0)
        return err_sys(err, ERR_HOST, -fd, "cannot ask the kernel about network devices");
    *link = (struct rtlink){.fd = fd, .open = true};
    return 0;
}

void rtlink_finish(struct rtlink *link)
{
    if (link->open)
        close(link->fd);
    link->open = false;
}

static int ask(int fd, int index)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = RTM_GETLINK,
                   .nlmsg_flags = NLM_F_REQUEST},
        .info = {.ifi_family = AF_UNSPEC, .ifi_index = index},
    };
    return send(fd, &request, sizeof(request), 0) < 0 ? -errno : 0;
}

/* One datagram from the kernel: its length, 0 for one from somebody else, or -errno. */
static ssize_t take(int fd, union message *message)
{
    struct sockaddr_nl from = {0};
    socklen_t length = sizeof(from);
    ssize_t got = recvfrom(fd, message, sizeof(*message), 0, (struct sockaddr *)&from, &length);

    if (got < 0)
        return -errno;
    return from.nl_pid == 0 ? got : 0;
}

static enum rtlink_news judge(const struct nlmsghdr *header, int index, enum rtlink_news before)
{
    const struct ifinfomsg *info = NLMSG_DATA(header);
    const unsigned up = IFF_UP | IFF_RUNNING;

    if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) || info->ifi_index != index)
        return before;
    if (header->nlmsg_type == RTM_DELLINK && info->ifi_family == AF_UNSPEC)
        return RTLINK_REMOVED; /* of another family it says that the device has left a bridge */
    if (header->nlmsg_type == RTM_NEWLINK)
        return (info->ifi_flags & up) == up ? RTLINK_UP : RTLINK_DOWN;
    return before;
}

enum rtlink_news rtlink_read(struct rtlink *link, int index)
{
    enum rtlink_news news = RTLINK_SAME;
    union message message;
    ssize_t got;

    while ((got = take(link->fd, &message)) != -EAGAIN) {
        if (got == -ENOBUFS) { /* some were lost: the answer to this comes as news */
            if (ask(link->fd, index) < 0)
                break;
        } else if (got < 0 && got != -EINTR) {
            break;
        }
        ssize_t at = 0;
        while (got - at >= (ssize_t)sizeof(struct nlmsghdr)) {
            const struct nlmsghdr *header = (const void *)(message.bytes + at);
            if (header->nlmsg_len < sizeof(*header) || (ssize_t)header->nlmsg_len > got - at)
                break;
            news = judge(header, index, news);
            at += (ssize_t)NLMSG_ALIGN(header->nlmsg_len);
        }
    }
    return news;
}

/* The attribute of that type in a list of attributes, or NULL. */
static const struct rtattr *find(const void *list, int length, unsigned short type)
{
    for (const struct rtattr *at = list; RTA_OK(at, length); at = RTA_NEXT(at, length))
        if ((at->rta_type & NLA_TYPE_MASK) == type)
            return at;
    return NULL;
}

static const struct rtattr *find_in(const struct rtattr *outer, unsigned short type)
{
    return outer ? find(RTA_DATA(outer), (int)RTA_PAYLOAD(outer), type) : NULL;
}

static unsigned count_queues(const struct nlmsghdr *header)
{
    const struct ifinfomsg *info = NLMSG_DATA(header);
    static const unsigned short kinds[] = {IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES};
    unsigned count = 0;

    if (header->nlmsg_type != RTM_NEWLINK || header->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
        return 0;
    const struct rtattr *data = find_in(
        find(IFLA_RTA(info), (int)IFLA_PAYLOAD(header), IFLA_LINKINFO), IFLA_INFO_DATA);
    for (size_t i = 0; i < array_size(kinds); i++) {
        const struct rtattr *attribute = find_in(data, kinds[i]);
        uint32_t number = 0;
        if (attribute && RTA_PAYLOAD(attribute) >= sizeof(number))
            memcpy(&number, RTA_DATA(attribute), sizeof(number));
        count += number;
    }
    return count;
}

unsigned rtlink_tun_queues(int index)
{
    union message message;
    unsigned count = 0;

    int fd = open_netlink(0, 0);
    if (fd < 0)
        return 0;
    ssize_t got = ask(fd, index) == 0 ? take(fd, &message) : 0;
    if (got >= (ssize_t)sizeof(message.header) && (ssize_t)message.header.nlmsg_len <= got)
        count = count_queues(&message.header);
    close(fd);
    return count;
}
