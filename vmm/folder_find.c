/* SPDX-License-Identifier: MIT */
/*
 * The VMs below a folder. One faccessat for each folder that is looked at, and no stat: a thousand
 * VMs are listed in milliseconds.
 */
#include "vmm/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each level has a descriptor open. */
enum { DEEPEST = 64 };

struct search {
    char **paths;
    size_t count, capacity;
    bool no_memory;
};

/* Takes the path over. */
static void add_found(struct search *search, char *path)
{
    if (path && search->count == search->capacity) {
        size_t capacity = search->capacity ? 2 * search->capacity : 64;
        char **paths = reallocarray(search->paths, capacity, sizeof(*paths));
        if (paths) {
            search->paths = paths;
            search->capacity = capacity;
        }
    }
    if (path && search->count < search->capacity) {
        search->paths[search->count++] = path;
        return;
    }
    search->no_memory = true;
    free(path);
}

static bool is_vm(int folder, const char *name)
{
    char path[NAME_MAX + sizeof("/" FOLDER_DEFINITION)];

    snprintf(path, sizeof(path), "%.*s/" FOLDER_DEFINITION, NAME_MAX, name);
    return faccessat(folder, path, F_OK, 0) == 0;
}

static bool is_folder(int folder, const struct dirent *entry)
{
    struct stat stat;

    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(folder, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(stat.st_mode);
}

/* Takes fd over. What lies in hidden folders is not meant to be seen. */
static void look_into(struct search *search, int fd, const char *path, unsigned depth)
{
    struct dirent *entry;
    DIR *folder = fdopendir(fd);

    if (!folder) {
        close(fd);
        return;
    }
    while (!search->no_memory && (entry = readdir(folder))) {
        char *inner = NULL;
        if (entry->d_name[0] == '.' || !is_folder(fd, entry) || !folder_is_text(entry->d_name))
            continue;
        bool found = is_vm(fd, entry->d_name);
        if (!found && depth <= 1)
            continue;
        if (asprintf(&inner, "%s/%s", path[1] ? path : "", entry->d_name) < 0)
            inner = NULL;
        if (found || !inner) {
            add_found(search, inner);
            continue;
        }
        int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            look_into(search, below, inner, depth - 1);
        free(inner);
    }
    closedir(folder);
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int folder_find(const char *root, unsigned depth, char ***ret_paths, size_t *ret_count,
                struct err *err)
{
    struct search search = {0};
    char *whole = realpath(root, NULL);
    int fd = whole ? open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd < 0) {
        int error = errno;
        free(whole);
        return err_sys(err, error == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, error,
                       "cannot look for VMs in %s", root);
    }
    if (faccessat(fd, FOLDER_DEFINITION, F_OK, 0) == 0) {
        add_found(&search, strdup(whole));
        close(fd);
    } else if (depth > 0) {
        look_into(&search, fd, whole, depth < DEEPEST ? depth : DEEPEST);
    } else {
        close(fd);
    }
    free(whole);
    if (search.no_memory) {
        folder_free_found(search.paths, search.count);
        return err_sys(err, ERR_FAILED, ENOMEM, "cannot look for VMs in %s", root);
    }
    if (search.count > 1)
        qsort(search.paths, search.count, sizeof(*search.paths), compare_paths);
    *ret_paths = search.paths;
    *ret_count = search.count;
    return 0;
}

void folder_free_found(char **paths, size_t count)
{
    while (count > 0)
        free(paths[--count]);
    free(paths);
}
