/* SPDX-License-Identifier: MIT */
#include "ft/arrival_base.h"

#include "core/zero.h"
#include "ft/former.h"
#include "host/fd.h"
#include "host/tree.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void say_why(struct arrival_folder *folder, const char *why)
{
    snprintf(folder->base.why, sizeof(folder->base.why), "%.199s", why);
}

/* --- what is there ---------------------------------------------------------------------------- */

/* What it cannot be for is said in base.why. */
static int look_at_changes(struct arrival_folder *folder, const uint8_t uuid[16],
                           const struct following *following, struct err *err)
{
    struct resync_base *base = &folder->base;
    struct err why = {0};
    folder->former_changes = changes_file_open(folder->former, &base->head, &base->bits, &why);
    if (folder->former_changes == -ENOENT)
        say_why(folder, "the folder that is here has nothing in common with where it runs");
    else if (folder->former_changes == -ESTALE)
        say_why(folder, why.text);
    else if (folder->former_changes < 0)
        changes_say_unread(folder->path, &why, err);
    else if (memcmp(base->head.uuid, uuid, sizeof(base->head.uuid)) != 0)
        say_why(folder, "the folder that is here is another VM's");
    else if (memcmp(base->head.lineage, following->lineage, sizeof(base->head.lineage)) != 0)
        say_why(folder, "the folder that is here is not the one that it had its disks in common "
                        "with last");
    return folder->former_changes >= 0 || base->why[0] ? 0 : folder->former_changes;
}

int arrival_base_find(struct arrival_folder *folder, const uint8_t uuid[16],
                      const struct following *following, struct err *err)
{
    folder->base.why[0] = '\0';
    folder->former = former_open(folder->place, folder->name, uuid, following, err);
    if (folder->former == -ETIMEDOUT)
        return folder->former;
    folder->replaces |= folder->former >= 0;
    if (folder->former >= 0 && !is_zero(following->lineage, sizeof(following->lineage)))
        return look_at_changes(folder, uuid, following, err);
    say_why(folder, folder->former < 0 ? "nothing of it was here"
                                       : "where it runs it has not noted what has changed");
    return 0;
}

/* --- taking it over --------------------------------------------------------------------------- */

static int open_former(const struct arrival_folder *folder, const char *name)
{
    return name[0] == '.' ? -EINVAL : tree_open_file(folder->former, name, O_RDWR);
}

static const char *check_disk(const struct arrival_folder *folder, const struct moving_disk *about,
                              int fd)
{
    const struct changes_head *head = &folder->base.head;
    const struct changes_disk *disk = changes_head_find(head, about->place);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode))
        return "is not in the folder that is here";
    if (!disk || disk->size != about->size || (uint64_t)stat.st_size != about->size)
        return "has another size here";
    return changes_disk_differs(head, disk, fd);
}

static int give_name(const struct arrival_folder *folder, const char *name, int fd)
{
    const char *last = name;
    char path[64];
    int parent = tree_open_parent(folder->fd, name, true, &last);
    if (parent < 0)
        return parent;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int ret = linkat(AT_FDCWD, path, parent, last, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
    close(parent);
    return ret;
}

static const char *adopt(struct arrival_folder *folder, struct arrival_disk *disk)
{
    int fd = open_former(folder, disk->about.name);
    const char *why = check_disk(folder, &disk->about, fd);
    if (!why && give_name(folder, disk->about.name, fd) < 0)
        why = "cannot have a second name here";
    if (!why)
        disk->fd = fd;
    else if (fd >= 0)
        close(fd);
    return why;
}

static void let_go(struct arrival_folder *folder)
{
    for (unsigned i = 0; i < folder->disk_count; i++) {
        struct arrival_disk *disk = &folder->disks[i];
        const char *last = disk->about.name;
        int parent = disk->fd < 0 ? -1 : tree_open_parent(folder->fd, last, false, &last);
        if (parent >= 0) {
            unlinkat(parent, last, 0);
            close(parent);
        }
        if (disk->fd >= 0)
            close(disk->fd);
        disk->fd = -1;
    }
}

static int make_all(struct arrival_folder *folder, struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < folder->disk_count && ret == 0; i++)
        ret = arrival_folder_make_disk(folder, &folder->disks[i], err);
    return ret;
}

int arrival_base_adopt(struct arrival_folder *folder, struct err *err)
{
    if (!folder->base.why[0] && folder->base.head.count != folder->disk_count)
        say_why(folder, "it has other disks than it had here");
    for (unsigned i = 0; i < folder->disk_count && !folder->base.why[0]; i++) {
        const char *why = adopt(folder, &folder->disks[i]);
        if (why)
            snprintf(folder->base.why, sizeof(folder->base.why), "%.100s %s",
                     folder->disks[i].about.name, why);
    }
    if (!folder->base.why[0])
        return 0;
    let_go(folder);
    return make_all(folder, err);
}

/* --- while it comes --------------------------------------------------------------------------- */

int arrival_base_mix(struct arrival_folder *folder, struct err *err)
{
    struct changes_head *head = &folder->base.head;
    if (folder->base.why[0] || folder->former_changes < 0 || folder->mixed)
        return 0;
    head->flags = CHANGES_MIXED;
    int ret = changes_file_write_head(folder->former_changes, head);
    folder->mixed = ret == 0;
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot write " FOLDER_CHANGES) : 0;
}

void arrival_base_doubt(struct arrival_folder *folder)
{
    struct changes_head *head = &folder->base.head;
    if (folder->base.why[0] || folder->former_changes < 0)
        return;
    memset(head->lineage, 0, sizeof(head->lineage));
    (void)!changes_file_write_head(folder->former_changes, head);
}

int arrival_base_sum(struct arrival_folder *folder, const struct resync_look *look,
                     uint8_t ret_sums[RESYNC_SUMS], struct err *err)
{
    const struct moving_block block = {
        .place = look->place, .offset = look->offset, .length = look->length};
    if (folder->base.why[0])
        return err_say(err, ERR_FAILED, EBADMSG, "a frame LOOK comes where none may");
    int ret = arrival_folder_check_block(folder, &block, err);
    if (ret < 0)
        return ret;
    uint8_t *bytes = malloc(look->length);
    if (!bytes)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot compare disks");
    ret = arrival_folder_read_disk(folder, look->place, look->offset, bytes, look->length, err);
    if (ret == 0)
        (void)resync_sum(look->key, bytes, look->length, ret_sums);
    free(bytes);
    return ret;
}

/* --- the end of it ---------------------------------------------------------------------------- */

int arrival_base_settle(struct arrival_folder *folder, const uint8_t uuid[16],
                        const struct following *following, struct err *err)
{
    struct changes_head head = {0};
    int ret = 0;
    memcpy(head.uuid, uuid, sizeof(head.uuid));
    memcpy(head.lineage, folder->base.why[0] ? following->fresh : following->lineage,
           sizeof(head.lineage));
    for (unsigned i = 0; i < folder->disk_count && ret == 0; i++)
        ret = changes_head_add(&head, folder->disks[i].about.place, folder->disks[i].about.size,
                               folder->disks[i].fd);
    /* A folder that stays behind must not be taken for one that has the same later. */
    if (ret == 0 && folder->former >= 0)
        ret = changes_file_remove(folder->former);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot settle as a twin");
    int fd = changes_file_make(folder->fd, &head, false, err);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

void arrival_base_rest(const struct arrival_folder *folder)
{
    struct changes_head head;
    uint64_t *bits;
    bool known = true;
    int fd = folder->fd < 0 ? -1 : changes_file_open(folder->fd, &head, &bits, NULL);
    if (fd < 0)
        return;
    for (unsigned i = 0; i < folder->disk_count; i++)
        for (uint32_t j = 0; j < head.count; j++)
            if (head.disks[j].place == folder->disks[i].about.place)
                known &= changes_disk_rest(&head.disks[j], folder->disks[i].fd) == 0;
    head.flags |= CHANGES_AT_REST;
    if (known)
        (void)!changes_file_write_head(fd, &head);
    free(bits);
    close(fd);
}

void arrival_base_finish(struct arrival_folder *folder)
{
    free(folder->base.bits);
    folder->base.bits = NULL;
    if (folder->former_changes >= 0)
        close(folder->former_changes);
    if (folder->former >= 0)
        close(folder->former);
    folder->former = folder->former_changes = -1;
}
