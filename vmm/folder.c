/* SPDX-License-Identifier: MIT */
#include "vmm/folder.h"
#include "core/words.h"
#include "host/lock.h"
#include "host/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NAME_LIMIT = 200, /* bytes; leaves room for the names of what is made beside a folder */
    LOCK_TRIES = 1000,
};

/* Names. */

/* The next character of UTF-8 text and the rest of it, or -1: it is none. */
static int32_t next_character(const char **text)
{
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    const uint8_t *at = (const uint8_t *)*text;
    unsigned more = *at < 0x80 ? 0 : *at < 0xc2 ? 4 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : 3;

    if (more > 3 || *at > 0xf4)
        return -1;
    int32_t character = more ? *at & (0x3f >> more) : *at;
    for (unsigned i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80) /* the terminator too */
            return -1;
        character = character << 6 | (at[i] & 0x3f);
    }
    *text += more + 1;
    bool surrogate = character >= 0xd800 && character < 0xe000;
    return character < least[more] || character > 0x10ffff || surrogate ? -1 : character;
}

bool folder_is_text(const char *path)
{
    while (*path)
        if (next_character(&path) < 0)
            return false;
    return true;
}

bool folder_is_own(const char *path)
{
    static const char *const names[] = {FOLDER_IDENTITY, FOLDER_SNAPSHOTS, FOLDER_RESTORING,
                                        FOLDER_MOVED,    FOLDER_ARRIVING,  FOLDER_ARRIVED,
                                        FOLDER_UNWANTED, FOLDER_PROTECTED, FOLDER_SPARE,
                                        FOLDER_EPOCHS,   FOLDER_CHANGES};
    static const char *const logs[] = {FOLDER_JOURNAL, FOLDER_CONSOLE, FOLDER_LOG};
    size_t length = strcspn(path, "/");

    for (size_t i = 0; i < array_size(names); i++)
        if (strlen(names[i]) == length && memcmp(path, names[i], length) == 0)
            return true;
    for (size_t i = 0; i < array_size(logs); i++) {
        size_t most = strlen(logs[i]);
        if (length >= most && memcmp(path, logs[i], most) == 0 &&
            (length == most || path[most] == '.'))
            return true;
    }
    return false;
}

/* What a terminal does not show as itself: controls, and what turns the direction of writing. */
static bool is_printable(int32_t c)
{
    return c >= 0x20 && !(c >= 0x7f && c < 0xa0) && !(c >= 0x200b && c <= 0x200f) &&
           !(c >= 0x2028 && c <= 0x202e) && !(c >= 0x2060 && c <= 0x206f) && c != 0xfeff &&
           (c & 0xfffe) != 0xfffe;
}

int folder_check_name(const char *name, struct err *err)
{
    size_t length = strlen(name);
    const char *why = NULL;

    for (const char *at = name; *at && !why;) {
        int32_t c = next_character(&at);
        if (c < 0)
            return err_say(err, ERR_USAGE, EINVAL, "a VM's name has to be UTF-8 text");
        if (!is_printable(c))
            return err_say(err, ERR_USAGE, EINVAL,
                           "a VM's name cannot have characters that nobody sees");
        if (c == '/')
            why = "it is the name of a folder, and has no '/'";
    }
    if (length == 0)
        why = "it is empty";
    else if (name[0] == '-')
        why = "with '-' begin options";
    else if (name[0] == '.')
        why = "with '.' begin hidden files";
    else if (name[0] == ' ' || name[length - 1] == ' ')
        why = "nobody sees a blank at its beginning or end";
    else if (length > NAME_LIMIT)
        why = "it is too long";
    if (!why)
        return 0;
    return err_say(err, ERR_USAGE, EINVAL, "\"%.200s\" cannot be a VM's name: %s", name, why);
}

/* Opening. */

bool folder_is_vm(const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return false;
    bool is_vm = faccessat(fd, FOLDER_DEFINITION, F_OK, 0) == 0;
    close(fd);
    return is_vm;
}

enum { FILES_MOST = 1000 };

struct siblings {
    char **paths; /* of VMs */
    size_t count;
    char *files[FILES_MOST]; /* names */
    size_t file_count;
};

static const char *next_sibling(const void *ctx, size_t i)
{
    const struct siblings *siblings = ctx;

    if (i < siblings->count)
        return basename(siblings->paths[i]);
    i -= siblings->count;
    return i < siblings->file_count ? siblings->files[i] : NULL;
}

static void find_files(struct siblings *siblings, const char *path)
{
    struct dirent *entry;
    DIR *folder = opendir(path);

    while (folder && siblings->file_count < FILES_MOST && (entry = readdir(folder))) {
        bool is_file = entry->d_type == DT_REG || entry->d_type == DT_LNK;
        if (!is_file || entry->d_name[0] == '.' || !folder_is_text(entry->d_name))
            continue;
        char *name = strdup(entry->d_name);
        if (!name)
            break;
        siblings->files[siblings->file_count++] = name;
    }
    if (folder)
        closedir(folder);
}

void folder_hint_at_nearest(const char *path, bool files, struct err *err)
{
    char parent[PATH_MAX], last[PATH_MAX];
    struct siblings siblings = {0};

    if (!err || strlen(path) >= PATH_MAX)
        return;
    memcpy(parent, path, strlen(path) + 1);
    memcpy(last, path, strlen(path) + 1);
    const char *around = dirname(parent);
    if (folder_find(around, 1, &siblings.paths, &siblings.count, NULL) < 0)
        return;
    if (files)
        find_files(&siblings, around);
    const char *nearest = nearest_word(basename(last), next_sibling, &siblings);
    if (nearest)
        err_hint(err, "did you mean %s?", nearest);
    else
        err_hint(err, "'minivmm list' shows the VMs below here");
    folder_free_found(siblings.paths, siblings.count);
    while (siblings.file_count > 0)
        free(siblings.files[--siblings.file_count]);
}

static int say_cannot_open(int error, const char *path, struct err *err)
{
    int r;

    if (error == ENOTDIR) {
        r = err_say(err, ERR_NOT_FOUND, ENOTDIR, "%s is no folder", path);
        err_hint(err, "a VM is a folder with a " FOLDER_DEFINITION
                      "; 'minivmm new NAME --disk FILE' makes one of an image");
    } else if (error == ENOENT) {
        r = err_say(err, ERR_NOT_FOUND, ENOENT, "there is no folder %s", path);
        folder_hint_at_nearest(path, false, err);
    } else {
        r = err_sys(err, ERR_FAILED, error, "cannot open the folder %s", path);
    }
    return r;
}

/* Names what is there instead of a VM: VMs in it, else a few of its files. */
static int say_no_vm(const struct folder *folder, struct err *err)
{
    int r = err_say(err, ERR_NOT_FOUND, ENOENT, "%s is no VM: there is no " FOLDER_DEFINITION,
                    folder->name);
    char names[160] = "";
    size_t used = 0, count = 0;
    char **vms = NULL;

    if (!err || folder_find(folder->path, 1, &vms, &count, NULL) < 0)
        return r;
    for (size_t i = 0; i < count && used < sizeof(names) - 1; i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
                                 basename(vms[i]));
    folder_free_found(vms, count);
    if (count > 0) {
        err_hint(err, used < sizeof(names) ? "VMs in it: %s" : "VMs in it: %s...", names);
        return r;
    }
    DIR *files = opendir(folder->path);
    struct dirent *entry;
    while (files && used < sizeof(names) - 1 && (entry = readdir(files)))
        if (entry->d_name[0] != '.')
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "",
                                     entry->d_name);
    if (files)
        closedir(files);
    if (used == 0)
        err_hint(err, "it is empty; 'minivmm new NAME --disk FILE' makes a VM of an image");
    else
        err_hint(err, "in it: %s; 'minivmm run FILE' boots an image as it is", names);
    return r;
}

int folder_open(struct folder *ret_folder, const char *path, struct err *err)
{
    struct folder folder = {.fd = -1, .lock = -1};
    int r;

    folder.path = realpath(path, NULL);
    if (!folder.path)
        return say_cannot_open(errno, path, err);
    folder.fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder.fd < 0) {
        r = say_cannot_open(errno, path, err);
        goto fail;
    }
    const char *slash = strrchr(folder.path, '/');
    folder.name = strdup(slash && slash[1] ? slash + 1 : folder.path);
    if (!folder.name) {
        r = err_sys(err, ERR_FAILED, ENOMEM, "cannot open the folder %s", path);
        goto fail;
    }
    /* It is written into JSON: identity.json, what the control socket says, `list --json`. */
    if (!folder_is_text(folder.path)) {
        r = err_say(err, ERR_FAILED, EILSEQ, "the path of %s is not UTF-8 text", path);
        err_hint(err, "rename the folder");
        goto fail;
    }
    if (faccessat(folder.fd, FOLDER_DEFINITION, F_OK, 0) < 0) {
        r = say_no_vm(&folder, err);
        goto fail;
    }
    *ret_folder = folder;
    return 0;
fail:
    folder_close(&folder);
    return r;
}

/* An identity that was never written, for want of room, say, leaves no empty file behind. */
static void remove_empty_lock(const struct folder *folder)
{
    struct stat stat;

    if (fstat(folder->lock, &stat) == 0 && stat.st_size == 0 &&
        lock_is_current(folder->lock, folder->fd, FOLDER_IDENTITY))
        unlinkat(folder->fd, FOLDER_IDENTITY, 0);
}

void folder_close(struct folder *folder)
{
    if (folder->lock >= 0) {
        remove_empty_lock(folder);
        close(folder->lock);
    }
    if (folder->fd >= 0)
        close(folder->fd);
    free(folder->name);
    free(folder->path);
    *folder = (struct folder){.fd = -1, .lock = -1};
}

/* The lock. */

/* Made where there is none. A link, a pipe or a folder by its name is none of ours. */
static int open_lock(const struct folder *folder)
{
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    struct stat stat;

    int fd = openat(folder->fd, FOLDER_IDENTITY, flags);
    if (fd < 0 && errno == ENOENT) {
        fd = openat(folder->fd, FOLDER_IDENTITY, flags | O_CREAT | O_EXCL, 0644);
        if (fd >= 0)
            small_file_give_to_owner(folder->fd, fd);
    }
    if (fd < 0)
        return -errno;
    if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode))
        return fd;
    close(fd);
    return -ELOOP;
}

static int say_cannot_lock(int error, const struct folder *folder, struct err *err)
{
    int r;

    if (error == -EROFS) {
        r = err_say(err, ERR_FAILED, EROFS, "%s is on a read-only file system: it cannot run there",
                    folder->name);
        err_hint(err, "copy the folder to where it can be written (cp -r), and run the copy");
    } else if (error == -ELOOP || error == -EISDIR) {
        r = err_say(err, ERR_DEFINITION, EINVAL, "%s/" FOLDER_IDENTITY " is not a plain file",
                    folder->name);
        err_hint(err, "remove it: minivmm makes a new one, with a new UUID and MACs");
    } else if (error == -ENOENT) {
        r = err_say(err, ERR_NOT_FOUND, ENOENT, "%s has been removed", folder->name);
    } else if (error == -EACCES || error == -EPERM) {
        r = err_sys(err, ERR_FAILED, -error, "cannot lock %s (its " FOLDER_IDENTITY ")",
                    folder->name);
        err_hint(err, "the folder and its " FOLDER_IDENTITY " have to be writable for you");
    } else {
        r = err_sys(err, ERR_FAILED, -error, "cannot lock %s", folder->name);
        if (error == -ENOLCK || error == -EINVAL)
            err_hint(err, "its file system has to support locks");
    }
    return r;
}

static int say_in_use(int fd, const struct folder *folder, struct err *err)
{
    int64_t pid = err ? lock_holder(fd) : 0;

    if (pid)
        return err_say(err, ERR_STATE, EBUSY, "%s is in use (pid %lld)", folder->name,
                       (long long)pid);
    return err_say(err, ERR_STATE, EBUSY, "%s is in use", folder->name);
}

int folder_lock(struct folder *folder, struct err *err)
{
    for (unsigned i = 0; folder->lock < 0; i++) {
        int fd = open_lock(folder);
        if (fd == -EEXIST && i < LOCK_TRIES)
            continue; /* somebody else has made it just now */
        if (fd < 0)
            return say_cannot_lock(fd, folder, err);
        int r = lock_try(fd, false);
        /* Between the two, the holder may have replaced the file: then this one says nothing. */
        bool current = lock_is_current(fd, folder->fd, FOLDER_IDENTITY);
        if (r == 0 && current) {
            folder->lock = fd;
            return 0;
        }
        if (r == -EAGAIN && (current || i >= LOCK_TRIES))
            r = say_in_use(fd, folder, err);
        else if ((r < 0 && r != -EAGAIN) || i >= LOCK_TRIES)
            r = say_cannot_lock(r < 0 ? r : -EBUSY, folder, err);
        else
            r = 0;
        close(fd);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The locked identity.json as a descriptor, or -1: nobody has it. */
static int open_held(const char *path)
{
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool again = folder >= 0;
    int held = -1;

    for (unsigned i = 0; again && i < LOCK_TRIES; i++) {
        int fd = openat(folder, FOLDER_IDENTITY, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            break;
        if (lock_is_held(fd)) {
            held = fd;
            break;
        }
        again = !lock_is_current(fd, folder, FOLDER_IDENTITY);
        close(fd);
    }
    if (folder >= 0)
        close(folder);
    return held;
}

bool folder_is_locked(const char *path)
{
    int fd = open_held(path);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int64_t folder_holder(const char *path)
{
    int fd = open_held(path);

    if (fd < 0)
        return 0;
    int64_t pid = lock_holder(fd);
    close(fd);
    return pid ? pid : -1;
}

static int write_file(struct folder *folder, const char *name, const void *bytes, size_t length,
                      bool durable, struct err *err)
{
    bool is_lock = strcmp(name, FOLDER_IDENTITY) == 0 && folder->lock >= 0;
    struct small_file file = {.bytes = bytes,
                              .length = length,
                              .durable = durable,
                              .lock = is_lock ? &folder->lock : NULL};

    int r = small_file_replace(folder->fd, name, &file, err);
    if (r < 0)
        err_prefix(err, "%s", folder->name);
    return r;
}

int folder_write_file(struct folder *folder, const char *name, const void *bytes, size_t length,
                      struct err *err)
{
    return write_file(folder, name, bytes, length, true, err);
}

int folder_write_file_soon(struct folder *folder, const char *name, const void *bytes,
                           size_t length, struct err *err)
{
    return write_file(folder, name, bytes, length, false, err);
}
