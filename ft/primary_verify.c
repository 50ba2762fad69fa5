/* SPDX-License-Identifier: MIT */
/*
 * The owner's disks are at an epoch's boundary only when nothing is under way in them, and the twin
 * was told of all that was: so they are drained in its pause. What ends so the device begins anew
 * after it (virtio/blk.c).
 */
#include "ft/primary_parts.h"

#include "core/log.h"

static struct disk *compared_disk(const struct primary *primary, unsigned place)
{
    return primary->compared >> place & 1 ? machine_disk(primary->machine, place) : NULL;
}

/* The twin does not hear of what is discarded in another format than raw (ft/replica_disk.c), and
 * both may read as they like there. */
static bool is_exact(const struct disk *disk)
{
    return disk->info.format == DISK_FORMAT_RAW || !disk->info.discard;
}

void primary_verify_plan(struct primary *primary)
{
    const struct departure *out = &primary->out;
    primary->compared = 0;
    for (unsigned i = 0; i < out->disk_count && primary->verify; i++) {
        const struct departure_disk *disk = &out->disks[i];
        if (is_exact(disk->disk))
            primary->compared |= 1u << disk->about.place;
        else
            log_warning("%s: %s is not compared with the twin's: what its guest discards may read "
                        "otherwise there; with \"discard\": false it is",
                        instance_config(primary->config.instance)->name, disk->about.name);
    }
}

void primary_verify_still(struct primary *primary)
{
    for (unsigned place = 0; place < MACHINE_MAX_DISKS; place++) {
        struct disk *disk = compared_disk(primary, place);
        if (disk)
            disk_drain(disk);
    }
}

static int read_disk(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    return disk_watch_read(ctx, offset, bytes, length, true);
}

static uint64_t next_data(void *ctx, uint64_t offset)
{
    return disk_watch_next_data(ctx, offset);
}

static int send_disk(struct primary *primary, unsigned place, struct err *err)
{
    struct disk *disk = compared_disk(primary, place);
    struct disk_watch *watch;
    if (!disk)
        return 0;
    int ret = disk_watch_start(&watch, disk, err);
    if (ret < 0)
        return ret;
    const struct compare_what what = {
        .size = disk->info.size, .read = read_disk, .next_data = next_data, .ctx = watch};
    ret = departure_send_sums_of(&primary->out, place, &what, err);
    disk_watch_stop(watch);
    return ret;
}

void primary_verify_moment(struct primary *primary)
{
    primary->unsummed = (struct err){0};
    if (!primary->verify)
        return;
    int ret = departure_send_memory_sums(&primary->out, &primary->unsummed);
    for (unsigned place = 0; place < MACHINE_MAX_DISKS && ret == 0; place++)
        ret = send_disk(primary, place, &primary->unsummed);
}
