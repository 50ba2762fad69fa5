/* SPDX-License-Identifier: MIT */
#include "cli/restoring.h"

#include "host/small_file.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int restoring_begin(const struct folder *folder, const char *snapshot, struct err *err)
{
    const struct small_file file = {.bytes = snapshot, .length = strlen(snapshot), .durable = true};
    return small_file_replace(folder->fd, FOLDER_RESTORING, &file, err);
}

int restoring_check(const struct folder *folder, const char *snapshot, struct err *err)
{
    char *path;
    size_t length;
    int ret = small_file_read_in(folder->fd, FOLDER_RESTORING, PATH_MAX, &path, &length);
    if (ret == -ENOENT)
        return snapshot ? err_say(err, ERR_STATE, EBUSY, "somebody else has started %s just now",
                                  folder->name)
                        : 0;
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s/" FOLDER_RESTORING, folder->path);
    if (!snapshot || strcmp(path, snapshot) != 0) {
        const char *slash = strrchr(path, '/');
        size_t depth = strlen(folder->path);
        bool own = strncmp(path, folder->path, depth) == 0 &&
                   strncmp(path + depth, "/" FOLDER_SNAPSHOTS "/", strlen(FOLDER_SNAPSHOTS) + 2) ==
                       0;
        ret = err_say(err, ERR_STATE, EBUSY,
                      "%s was just being restored from %s, and that was cut short", folder->name,
                      path);
        if (own && slash && slash[1] == '.') /* cli/run.h: a clone's */
            err_hint(err, "minivmm remove --yes %s, and clone it again", folder->path);
        else if (own && slash)
            err_hint(err, "minivmm restore %s %s does it again", folder->path, slash + 1);
        else
            err_hint(err, "minivmm remove --yes %s; then minivmm run --from %s %s", folder->path,
                     path, folder->name);
    }
    free(path);
    return ret;
}

void restoring_end(const struct folder *folder)
{
    unlinkat(folder->fd, FOLDER_RESTORING, 0);
}
