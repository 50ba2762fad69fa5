/* SPDX-License-Identifier: MIT */
#include "host/disk.h"

int disk_open(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    struct disk *disk = NULL;
    int r = disk_raw_open(&disk, config, err);

    if (r == 0 && (config->iops || config->bandwidth))
        r = disk_limit_create(&disk, disk, config->iops, config->bandwidth, err);
    if (r == 0)
        *ret_disk = disk;
    return r;
}
