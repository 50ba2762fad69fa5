/* SPDX-License-Identifier: MIT */
/* Opening an image: what may be a disk, how large it is, and what its file system can do. */
#include "host/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { SECTOR = 512, PAGE = 4096, MAX_BLOCK = 4096, MAX_OPTIMAL = 1 << 20 };

/* Before it is opened: opening a FIFO or a tape does things. */
int disk_image_kind(const char *path, bool *ret_device, struct err *err)
{
    char definition[4096];
    struct stat stat_of;

    if (stat(path, &stat_of) < 0)
        return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno, "cannot open %s",
                       path);
    if (S_ISREG(stat_of.st_mode) || S_ISBLK(stat_of.st_mode)) {
        *ret_device = S_ISBLK(stat_of.st_mode);
        return 0;
    }
    if (!S_ISDIR(stat_of.st_mode))
        return err_say(err, ERR_DEFINITION, EINVAL, "%s is neither a file nor a block device",
                       path);
    snprintf(definition, sizeof(definition), "%s/vm.json", path);
    if (access(definition, F_OK) == 0)
        return err_say(err, ERR_DEFINITION, EISDIR, "%s is a VM's folder, not a disk image", path);
    return err_say(err, ERR_DEFINITION, EISDIR,
                   "%s is a directory without vm.json: neither a disk image nor a VM's folder",
                   path);
}

static int say_cannot_open(const struct disk_config *config, int errnum, struct err *err)
{
    const char *path = config->path;

    if (errnum == EINVAL && config->direct) {
        int r = err_say(err, ERR_HOST, EINVAL, "the file system of %s does not do direct I/O",
                        path);
        err_hint(err, "leave out 'direct': the disk then goes through the host's page cache");
        return r;
    }
    if (errnum == EBUSY)
        return err_say(err, ERR_STATE, EBUSY,
                       "%s is in use by the host: mounted, or part of a "
                       "volume",
                       path);
    int r = err_sys(err, ERR_FAILED, errnum, "cannot open %s%s", path,
                    config->readonly ? "" : " for writing");
    if (!config->readonly && access(path, R_OK) == 0)
        err_hint(err, "if the guest need not write to it, add ',readonly' to the disk");
    return r;
}

static int open_image(struct disk_file *file, const struct disk_config *config, struct err *err)
{
    int flags = O_CLOEXEC | O_NOCTTY | (config->readonly ? O_RDONLY : O_RDWR) |
                (config->direct ? O_DIRECT : 0) | (config->write_through ? O_DSYNC : 0);
    int r = disk_image_kind(config->path, &file->device, err);

    if (r < 0)
        return r;
    /* A device is claimed as a whole: mounts, partitions and other nodes of it count too. */
    if (file->device && !config->readonly)
        flags |= O_EXCL;
    file->fd = open(config->path, flags);
    if (file->fd < 0)
        return say_cannot_open(config, errno, err);
    return config->unlocked ? 0 : disk_lock(file->fd, config->path, config->readonly, err);
}

/* Sizes. */

int disk_say_empty(const char *path, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL, "%s is empty", path);

    err_hint(err, "truncate -s 10G %s makes it a disk of 10 GiB", path);
    return r;
}

static int measure(struct disk_file *file, const struct disk_config *config, struct err *err)
{
    struct disk_info *info = &file->info;
    struct stat stat;
    int r;

    if (file->device) {
        r = ioctl(file->fd, BLKGETSIZE64, &info->size);
        (void)ioctl(file->fd, BLKPBSZGET, &info->optimal_size);
    } else if ((r = fstat(file->fd, &stat)) == 0) {
        info->size = (uint64_t)stat.st_size;
        info->optimal_size = (uint32_t)stat.st_blksize;
    }
    if (r < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot learn the size of %s", config->path);
    return info->size ? 0 : disk_say_empty(config->path, err);
}

/* O_DIRECT's rules. A kernel that does not tell (before 6.1) gets what pleases all devices. */
static void learn_alignment(struct disk_file *file)
{
    struct statx statx_of;
    int sector = 0;

    file->memory_align = PAGE;
    file->length_align = SECTOR;
    if (ioctl(file->fd, BLKSSZGET, &sector) == 0 && sector > 0)
        file->length_align = (uint32_t)sector;
#ifdef STATX_DIOALIGN
    if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &statx_of) == 0 &&
        (statx_of.stx_mask & STATX_DIOALIGN) && statx_of.stx_dio_offset_align) {
        file->memory_align = statx_of.stx_dio_mem_align;
        file->length_align = statx_of.stx_dio_offset_align;
    }
#else
    (void)statx_of;
#endif
}

int disk_file_choose_blocks(struct disk_file *file, const struct disk_config *config,
                            struct err *err)
{
    struct disk_info *info = &file->info;
    uint32_t block = config->block_size ? config->block_size : SECTOR;

    if (block != SECTOR && block != MAX_BLOCK)
        return err_say(err, ERR_DEFINITION, EINVAL, "the block size of %s is 512 or 4096, not %u",
                       config->path, block);
    if (file->direct && file->length_align > block) {
        if (file->length_align > MAX_BLOCK)
            return err_say(err, ERR_HOST, EINVAL, "direct I/O on %s needs blocks of %u bytes",
                           config->path, file->length_align);
        block = file->length_align;
    }
    if (info->size % block) {
        int r = err_say(err, ERR_DEFINITION, EINVAL,
                        "the size of %s, %llu bytes, is not a multiple of %u", config->path,
                        (unsigned long long)info->size, block);
        err_hint(err, "a raw disk has whole sectors of %u bytes: is this a disk image?", block);
        return r;
    }
    info->block_size = block;
    if (info->optimal_size < block || (info->optimal_size & (info->optimal_size - 1)))
        info->optimal_size = block;
    if (info->optimal_size > MAX_OPTIMAL)
        info->optimal_size = MAX_OPTIMAL;
    return 0;
}

/* What it can do. */

static bool is_in_memory(const struct disk_file *file)
{
    struct statfs fs;

    return !file->device && fstatfs(file->fd, &fs) == 0 &&
           (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static int make_zeroes(struct disk_file *file, struct err *err)
{
    void *zeroes = mmap(NULL, DISK_ZEROES_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (zeroes == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot set up disk I/O");
    file->zeroes = zeroes;
    return 0;
}

int disk_file_open(struct disk_file *file, const struct disk_config *config, struct err *err)
{
    int r = open_image(file, config, err);

    if (r == 0)
        r = measure(file, config, err);
    if (r < 0)
        return r;
    file->direct = config->direct;
    if (file->direct)
        learn_alignment(file);
    file->info.readonly = config->readonly;
    file->info.write_through = config->write_through;
    /* As it was asked for, and not what this file system can do: that a guest is told once, and it
     * may go on on another host. */
    file->info.discard = !config->readonly && !config->no_discard;
    file->no_punch = !file->info.discard;
    return 0;
}

int disk_file_start(struct disk **ret_disk, struct disk_file *file, enum disk_engine engine,
                    struct err *err)
{
    file->in_memory = is_in_memory(file);
    int r = make_zeroes(file, err);

    if (r == 0 && engine != DISK_ENGINE_THREADS) {
        r = disk_uring_create(ret_disk, file, err);
        if (r == 0 || engine == DISK_ENGINE_URING)
            goto out;
        /* Old kernel, seccomp, io_uring_disabled, too little locked memory: no matter which. */
        if (err)
            *err = (struct err){.kind = ERR_NONE};
        r = 0;
    }
    if (r == 0)
        r = disk_threads_create(ret_disk, file, err);
out:
    if (r < 0)
        disk_file_close(file);
    return r;
}
