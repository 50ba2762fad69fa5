/* SPDX-License-Identifier: MIT */
/* What the kernel tells of network devices (rtnetlink): up, down, removed. */
#pragma once

#include "core/err.h"

struct rtlink {
    int fd;
    bool open;
};

enum rtlink_news { RTLINK_SAME, RTLINK_UP, RTLINK_DOWN, RTLINK_REMOVED };

/* From now on changes of devices of this network namespace arrive at fd, which never blocks. */
int rtlink_init(struct rtlink *link, struct err *err) must_check;
void rtlink_finish(struct rtlink *link); /* zeroed is fine */

/* Reads all that has arrived, and says the last of what concerns the device with this index. */
enum rtlink_news rtlink_read(struct rtlink *link, int index);

/* How many queues a multi-queue tap has by now, of all its users; 0 where nobody knows. */
unsigned rtlink_tun_queues(int index);
