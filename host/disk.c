/* SPDX-License-Identifier: MIT */
#include "host/disk_limit.h"
#include "host/disk_point.h"
#include "host/disk_tap.h"
#include "host/disk_yield.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_bytes(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    void *copy = malloc(config->byte_count);

    if (!copy)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make disk %s", config->path);
    memcpy(copy, config->bytes, config->byte_count);
    return disk_memory_create(ret_disk, copy, config->byte_count, err);
}

int disk_image_open(struct disk **ret_disk, const struct disk_config *wanted, struct err *err)
{
    struct disk_config config = *wanted;
    bool guard = false;

    config.readonly |= config.ephemeral;
    int r = disk_format_find(wanted, &config.format, &guard, err);
    if (r < 0)
        return r;
    r = config.format == DISK_FORMAT_QCOW2 ? disk_qcow2_open(ret_disk, &config, err)
                                           : disk_raw_open(ret_disk, &config, err);
    if (r == 0)
        (*ret_disk)->info.format = config.format;
    if (r == 0 && config.point && !config.readonly)
        r = disk_point_create(ret_disk, *ret_disk, config.path, err);
    /* Before the point, whose own reads must not wait; behind the guard, so that what that refuses
     * is told to nobody. */
    if (r == 0 && config.tap && !config.readonly)
        r = disk_tap_create(ret_disk, *ret_disk, err);
    if (r == 0 && guard)
        r = disk_guard_create(ret_disk, *ret_disk, err);
    return r;
}

static int open_any(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    if (config->bytes)
        return open_bytes(ret_disk, config, err);
    if (config->point && !config->readonly && !config->ephemeral)
        return disk_yield_create(ret_disk, config, err);
    return disk_image_open(ret_disk, config, err);
}

/* For what may become large and is not needed after a reboot. */
static const char *temporary_folder(void)
{
    const char *folder = getenv("TMPDIR");

    if (folder && folder[0])
        return folder;
    return access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
}

static int put_overlay(struct disk **disk, const struct disk_config *config, struct err *err)
{
    int r = disk_overlay_create(disk, *disk, temporary_folder(), err);
    if (r == 0)
        (*disk)->info.discard = !config->no_discard;
    return r;
}

int disk_open(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    const struct limits limits = {.operations = config->iops, .bytes = config->bandwidth};
    struct disk *disk = NULL;
    int r = open_any(&disk, config, err);

    if (r == 0 && config->ephemeral && !config->readonly)
        r = put_overlay(&disk, config, err);
    if (r == 0 &&
        (limits.operations || limits.bytes || config->shared || config->limits_may_change))
        r = disk_limit_create(&disk, disk, &limits, config->shared, err);
    if (r == 0)
        *ret_disk = disk;
    return r;
}
