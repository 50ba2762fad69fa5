/* SPDX-License-Identifier: MIT */
/*
 * Disks whose files the other side sees, too. They do not lie in the VM's folder, which goes along
 * and is left behind: vm.json leads to them by a whole path, by one that leaves the folder, or by a
 * symbolic link in it.
 */
#include "ft/migration_parts.h"
#include "host/disk_point.h"
#include "host/disk_yield.h"
#include "host/fd.h"
#include "host/lock.h"
#include "host/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct instance_config *vm_of(const struct migration *migration)
{
    return instance_config(migration->instance);
}

/* --- where they lie --------------------------------------------------------------------------- */

/* What `path` leads to lies in the folder itself. */
static int lies_in_folder(int folder, int image, bool *ret_inside, struct err *err)
{
    char ours[PATH_MAX], there[PATH_MAX];
    if (fd_path(folder, ours) < 0 || fd_path(image, there) < 0)
        return err_sys(err, ERR_HOST, ENOENT, "cannot find the disks");
    size_t length = strlen(ours);
    *ret_inside = strncmp(there, ours, length) == 0 && there[length] == '/';
    return 0;
}

/* The first symbolic link on the way that `file` goes through the folder; a way that leaves the
 * folder by itself has none. */
static int find_link(int folder, const char *file, struct moving_shared *shared, struct err *err)
{
    char way[PATH_MAX];
    shared->link[0] = '\0';
    if (file[0] == '/' || file[0] == '~' || strlen(file) > 500)
        return 0;
    for (const char *end = file; *end; end += *end == '/') {
        const char *part = end;
        struct stat stat;
        end += strcspn(end, "/");
        if ((end - part == 1 && *part == '.') || (end - part == 2 && memcmp(part, "..", 2) == 0))
            return 0;
        snprintf(way, sizeof(way), "%.*s", (int)(end - file), file);
        if (fstatat(folder, way, &stat, AT_SYMLINK_NOFOLLOW) < 0)
            return err_sys(err, ERR_FAILED, errno, "cannot find %.200s", way);
        if (!S_ISLNK(stat.st_mode))
            continue;
        ssize_t length = readlinkat(folder, way, shared->target, sizeof(shared->target));
        if (length <= 0 || length > MOVING_LINK_MAX)
            return err_say(err, ERR_STATE, ENAMETOOLONG, "the link %.200s cannot go along", way);
        shared->target[length] = '\0';
        memcpy(shared->link, way, sizeof(way));
        return 0;
    }
    return 0;
}

/* As vm.json has it: the definition's own paths are whole. NULL: it does not say it any more. */
static const char *file_of(const json_t *root, unsigned place)
{
    const json_t *disk = json_array_get(json_object_get(root, "disks"), place);
    return json_string_value(json_object_get(disk, "file"));
}

static int mark(struct migration_shared *shared, const char *path, struct err *err)
{
    struct stat ours, image;
    shared->mark = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (shared->mark < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open %s", path);
    if (fstat(shared->mark, &ours) < 0 || fstat(disk_point_image(shared->disk), &image) < 0 ||
        ours.st_dev != image.st_dev || ours.st_ino != image.st_ino)
        return err_say(err, ERR_STATE, ESTALE, "%s is not the file any more that the VM has open",
                       path);
    while (shared->about.mark == 0)
        if (getrandom(&shared->about.mark, sizeof(shared->about.mark), 0) !=
            sizeof(shared->about.mark))
            return err_sys(err, ERR_HOST, errno, "cannot draw a random number");
    int ret = lock_mark(shared->mark, shared->about.mark);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot lock %s", path) : 0;
}

static int say_inside(const char *path, struct err *err)
{
    int ret = err_say(err, ERR_STATE, ENOTSUP,
                      "%s lies in the VM's folder, which is left behind: no shared disk can", path);
    err_hint(err, "put it where both hosts see it, and its whole path, or a link, in its place");
    return ret;
}

static int plan_disk(struct migration *migration, unsigned place, const json_t *root,
                     struct err *err)
{
    const struct disk_config *config = &vm_of(migration)->definition->disks[place];
    int folder = vm_of(migration)->folder->fd;
    struct disk *row = machine_disk(migration->machine, place);
    struct migration_shared *shared = &migration->shared[migration->shared_count];
    const char *file = file_of(root, place);
    bool inside = false;
    *shared = (struct migration_shared){.disk = row, .mark = -1};
    shared->about.place = place;
    shared->about.size = row->info.size;
    shared->about.format = row->info.format;
    int image = open(config->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (image < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open %s", config->path);
    int ret = lies_in_folder(folder, image, &inside, err);
    close(image);
    if (ret < 0)
        return ret;
    if (inside && config->readonly)
        return 0; /* it goes along, as a file */
    if (inside)
        return say_inside(config->path, err);
    ret = file ? find_link(folder, file, &shared->about, err)
               : err_say(err, ERR_STATE, ESTALE, FOLDER_DEFINITION " was changed: it lacks %s",
                         config->path);
    migration->shared_count++; /* a mark is taken off, whatever happens */
    return ret == 0 && !config->readonly ? mark(shared, config->path, err) : ret;
}

static json_t *read_definition(int folder)
{
    enum { TEXT_MAX = 1 << 20 };
    char *text;
    size_t length;
    int fd = openat(folder, FOLDER_DEFINITION, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int ret = fd < 0 ? -errno : small_file_read(fd, TEXT_MAX, &text, &length);
    if (fd >= 0)
        close(fd);
    if (ret < 0)
        return NULL;
    json_t *root = json_loadb(text, length, 0, NULL);
    free(text);
    return root;
}

int migration_plan_shared(struct migration *migration, struct err *err)
{
    const struct definition *definition = vm_of(migration)->definition;
    json_t *root = read_definition(vm_of(migration)->folder->fd);
    int ret = 0;
    for (unsigned i = 0; i < definition->disk_count && ret == 0; i++)
        ret = plan_disk(migration, i, root, err);
    json_decref(root);
    return ret;
}

void migration_send_shared(struct migration *migration)
{
    for (unsigned i = 0; i < migration->shared_count; i++)
        moving_put_shared(link_writer(migration->out.link), &migration->shared[i].about);
}

void migration_unmark(struct migration *migration)
{
    for (unsigned i = 0; i < migration->shared_count; i++) {
        struct migration_shared *shared = &migration->shared[i];
        if (shared->mark >= 0)
            close(shared->mark);
        shared->mark = -1;
    }
}

/* --- changing hands --------------------------------------------------------------------------- */

void migration_sync_shared(struct migration *migration)
{
    for (unsigned i = 0; i < migration->shared_count; i++) {
        int image = disk_point_image(migration->shared[i].disk);
        if (image >= 0)
            (void)!fdatasync(image); /* who releases it hears of errors */
    }
}

int migration_release(struct migration *migration, struct err *err)
{
    int ret = 0;
    migration->released = true;
    for (unsigned i = 0; i < migration->shared_count && ret == 0; i++)
        if (migration->shared[i].about.mark)
            ret = disk_yield(migration->shared[i].disk, err);
    return ret;
}

int migration_regain(struct migration *migration, struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < migration->shared_count && ret == 0; i++)
        ret = disk_regain(migration->shared[i].disk, err);
    return ret;
}
