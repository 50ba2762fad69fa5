/* SPDX-License-Identifier: MIT */
#include "cli/run_files.h"

#include "vmm/folder.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct wanted {
    const char *what; /* "kernel ", or empty */
    const char *path; /* NULL: it is not wanted */
};

static int say_missing(const struct wanted *wanted, int error, const char *name, struct err *err)
{
    const char *path = wanted->path;
    int ret;
    if (path == name && !strchr(path, '/'))
        ret = err_say(err, ERR_NOT_FOUND, error, "there is no %s here", path);
    else
        ret = err_sys(err, ERR_NOT_FOUND, error, "cannot open %s%s", wanted->what, path);
    folder_hint_at_nearest(path, true, err);
    return ret;
}

static int check(const struct wanted *wanted, const char *name, struct err *err)
{
    struct stat stat_of;
    if (!wanted->path || stat(wanted->path, &stat_of) == 0 || (errno != ENOENT && errno != ENOTDIR))
        return 0;
    return say_missing(wanted, errno, name, err);
}

int run_files_check(const struct definition *definition, const char *name, struct err *err)
{
    const struct wanted boots[] = {{"kernel ", definition->kernel},
                                   {"initrd ", definition->initrd}};
    int ret = 0;
    for (size_t i = 0; i < array_size(boots) && ret == 0; i++)
        ret = check(&boots[i], name, err);
    for (unsigned i = 0; i < definition->disk_count && ret == 0; i++)
        ret = check(&(struct wanted){"", definition->disks[i].path}, name, err);
    return ret;
}
