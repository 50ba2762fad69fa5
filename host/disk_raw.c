/* SPDX-License-Identifier: MIT */
/* Raw images: the file's bytes are the disk's. */
#include "host/disk_file.h"

int disk_raw_open(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    struct disk_file file = {.fd = -1};
    int r = disk_file_open(&file, config, err);

    if (r == 0)
        r = disk_file_choose_blocks(&file, config, err);
    if (r == 0)
        return disk_file_start(ret_disk, &file, config->engine, err);
    disk_file_close(&file);
    return r;
}
