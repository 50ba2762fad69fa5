/* SPDX-License-Identifier: MIT */
/*
 * A folder as a witness. The record of generation g of a VM is the file UUID.g in it, g with twenty
 * digits (ft/witness_text.c has what is in it). It is whole and on stable storage before it has
 * this name, and never changes. The highest one is what is true; lower ones are history, of which
 * the last WITNESS_FILE_KEEP are kept at least.
 *
 * An exchange of g for g + 1:
 *
 *   1. write a temporary file, whose text has a random number that is in no other; fsync
 *   2. the highest one has to be g (on NFS a list may be old, unless we have just changed the
 * folder)
 *   3. link(2) it to UUID.(g + 1), once: of all who try exactly one succeeds
 *   4. read UUID.(g + 1): whose text is in it? (an answer may be lost, or come twice, on NFS: what
 *      link(2) says is not asked); fsync the folder
 *   5. list again: the highest one is below g + 1 + KEEP, and g is still there
 *   6. remove the temporary name, and, in rising order, what is at or below the highest - KEEP
 *
 * Why there are never two winners of one generation, wherever anybody stops, dies, or goes on after
 * hours:
 *
 *   a. The highest name is never removed, so the highest generation never goes down, and a list
 *      that begins later shows no lower one.
 *   b. UUID.n is removed only when a generation of n + KEEP or more is there. A remover who goes on
 *      hours later removes what by (a) still may be removed.
 *   c. So a name that is missing in 3 and had been there before leaves a trace that stays: a
 *      generation of g + 1 + KEEP at least. Whoever links it for the second time sees that in 5,
 *      and has not won. (He need not see it in 2: he may have stopped after it.) The list is new
 *      enough on NFS too: our own link(2) has told the client if the folder is another than the one
 *      that it knew. That g is still there is a second look at the same, by another way:
 *      removing goes upward.
 *   d. What such a one leaves behind, if he dies before 5, is a record that was never true; by (c)
 *      it lies KEEP below the highest at least, where nobody reads, and 6 removes it.
 *   e. A request that is still on its way to the server when its process has long given up is like
 *      a process that dies after 3: either it makes the very next generation, or nothing of
 *      meaning. Who has asked was told "not known".
 *   f. Who wins in 5 and stops before he says so has won nevertheless: nobody else ever will.
 *
 * Killed before 3: as if it never was, but for a temporary file, which witness_folder_probe()
 * sweeps (if it does so while we stand still before 3, link(2) fails). Killed after it: it took
 * place.
 *
 * Reading: the highest one of the list, and then by name upward, since a list may be old. It is on
 * stable storage (fsync of the folder) before anybody hears of it: or else a power cut could take
 * back what somebody acts upon. What is damaged, or somebody else's, is an error that names it:
 * neither it nor the one below is the truth.
 *
 * None of this helps against who removes records by hand, or brings an old copy back: for that the
 * nodes have what they keep themselves (ft/protocol.h). On NFS the server has to be one that
 * answers when it has written ("sync" in its exports).
 */
#include "ft/witness_parts.h"

#include "host/fd.h"
#include "host/small_file.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { UUID_LENGTH = 36, DIGITS = 20, READ_TRIES = 10, MOST_REMOVED = 64 };

struct witness_file {
    struct witness base;
    uint32_t uid; /* of files that we make there */
    char path[];
};

/* One call's view of the folder: opened anew, since it may have been mounted or moved. */
struct view {
    const struct witness_file *file;
    int folder;
    const uint8_t *uuid;
    uint64_t lowest, highest; /* generations that are there, 0: none */
};

struct name {
    char text[UUID_LENGTH + 1 + DIGITS + 1];
};

static struct name name_of(const uint8_t u[16], uint64_t generation)
{
    struct name name;

    snprintf(name.text, sizeof(name.text),
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x.%020llu", u[0],
             u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15], (unsigned long long)generation);
    return name;
}

static int say_bad(const struct view *view, const char *name, const char *what, struct err *err)
{
    int r = err_say(err, ERR_FAILED, EBADMSG, "witness: %.160s/%.100s %s", view->file->path, name,
                    what);

    err_hint(err, "who may run the VM is not known as long as this is there: look where it runs "
                  "before you remove it");
    return r;
}

static void finish(struct view *view)
{
    close(view->folder);
}

static int begin(struct view *view, const struct witness_file *file, const uint8_t uuid[16],
                 struct err *err)
{
    *view = (struct view){.file = file, .uuid = uuid};
    view->folder = open(file->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (view->folder < 0)
        return witness_folder_say(-errno, "open", file->path, err);
    int r = witness_folder_check(view->folder, file->path, err);
    if (r < 0)
        finish(view);
    return r;
}

/* --- looking ---------------------------------------------------------------------------------- */

static int note(struct view *view, const char *name, struct err *err)
{
    const char *digits = name + UUID_LENGTH + 1;
    uint64_t generation = strtoull(digits, NULL, 10);

    if (strspn(digits, "0123456789") != DIGITS || digits[DIGITS] || generation == 0 ||
        generation > WITNESS_MOST_GENERATIONS)
        return say_bad(view, name, "is no name of a record", err);
    if (generation > view->highest)
        view->highest = generation;
    if (!view->lowest || generation < view->lowest)
        view->lowest = generation;
    return 0;
}

static int look(struct view *view, struct err *err)
{
    struct name ours = name_of(view->uuid, 0);
    int fd = openat(view->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!list) {
        r = witness_folder_say(-errno, "list", view->file->path, err);
        if (fd >= 0)
            close(fd);
        return r;
    }
    view->lowest = view->highest = 0;
    while (r == 0 && (errno = 0, entry = readdir(list)))
        if (strncmp(entry->d_name, ours.text, UUID_LENGTH + 1) == 0)
            r = note(view, entry->d_name, err);
    if (r == 0 && errno)
        r = witness_folder_say(-errno, "list", view->file->path, err);
    closedir(list);
    return r;
}

/* -ENOENT without a word: there is none. */
static int read_one(const struct view *view, uint64_t generation, struct witness_text *ret_text,
                    struct err *err)
{
    struct name name = name_of(view->uuid, generation);
    struct witness_text text;
    struct stat stat;
    size_t length;
    char *bytes;

    int fd = openat(view->folder, name.text,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ENOENT
               : errno == ELOOP
                   ? say_bad(view, name.text, "is no plain file", err)
                   : witness_folder_say(-errno, "read a record in", view->file->path, err);
    int r = fstat(fd, &stat) < 0 ? -errno : 0;
    if (r == 0 && !S_ISREG(stat.st_mode)) {
        close(fd);
        return say_bad(view, name.text, "is no plain file", err);
    }
    if (r == 0 && stat.st_size >= WITNESS_TEXT_MAX)
        r = -EFBIG;
    if (r == 0)
        r = small_file_read(fd, WITNESS_TEXT_MAX, &bytes, &length);
    close(fd);
    if (r == -EFBIG)
        return say_bad(view, name.text, "is no record of a witness", err);
    if (r < 0)
        return witness_folder_say(r, "read a record in", view->file->path, err);
    const char *wrong = witness_text_parse(&text, bytes, length);
    free(bytes);
    if (!wrong && (memcmp(text.uuid, view->uuid, 16) != 0 || text.record.generation != generation))
        wrong = "is a copy of another record";
    if (!wrong &&
        ((stat.st_uid != view->file->uid && stat.st_uid != 0) || (stat.st_mode & S_IWOTH)))
        wrong = "is, or may be, of another user; on both hosts it has to be the same one, or root";
    if (wrong)
        return say_bad(view, name.text, wrong, err);
    *ret_text = text;
    return 0;
}

/* The highest one, from `at_least` on if that is known to have been there. */
static int read_highest(struct view *view, uint64_t at_least, struct ft_record *ret_record,
                        struct err *err)
{
    struct witness_text text = {.record = {0}}, later;
    int r = -ENOENT;

    for (unsigned i = 0; i < READ_TRIES && r == -ENOENT; i++) {
        r = look(view, err);
        if (r < 0)
            return r;
        uint64_t generation = view->highest > at_least ? view->highest : at_least;
        r = generation ? read_one(view, generation, &text, err) : 0;
    }
    if (r == -ENOENT)
        return err_say(err, ERR_FAILED, EBUSY, "witness: what %.200s lists is not there",
                       view->file->path);
    while (r == 0 && (r = read_one(view, text.record.generation + 1, &later, err)) == 0)
        text = later;
    if (r != -ENOENT)
        return r;
    *ret_record = text.record;
    return 0;
}

/* Somebody is going to act upon it. */
static int tell(const struct view *view, const struct ft_record *record,
                struct ft_record *ret_record, struct err *err)
{
    if (fsync(view->folder) < 0)
        return witness_folder_say(-errno, "write in", view->file->path, err);
    *ret_record = *record;
    return 0;
}

static int witness_file_read(struct witness *witness, const uint8_t uuid[16],
                             struct ft_record *ret_record, struct err *err)
{
    struct ft_record record;
    struct view view;

    int r = begin(&view, container_of(witness, struct witness_file, base), uuid, err);
    if (r < 0)
        return r;
    r = read_highest(&view, 0, &record, err);
    if (r == 0)
        r = tell(&view, &record, ret_record, err);
    finish(&view);
    return r;
}

/* --- exchanging ------------------------------------------------------------------------------- */

/* What is removed here is so for ever, by (b). The highest one is of a list that we saw. */
static void clean(const struct view *view)
{
    uint64_t generation = view->lowest;

    for (unsigned i = 0; i < MOST_REMOVED && generation + WITNESS_FILE_KEEP <= view->highest; i++) {
        if (unlinkat(view->folder, name_of(view->uuid, generation++).text, 0) < 0 &&
            errno != ENOENT)
            return; /* and none above it */
    }
}

static int write_new(const struct view *view, const char *name, const struct witness_text *text,
                     struct err *err)
{
    char bytes[WITNESS_TEXT_MAX];
    size_t length = witness_text_format(text, bytes);

    int fd = openat(view->folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return witness_folder_say(-errno, "write in", view->file->path, err);
    int r = fd_write_at(fd, bytes, length, 0);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (close(fd) < 0 && r == 0) /* NFS says only here that there was no room */
        r = -errno;
    return r < 0 ? witness_folder_say(r, "write in", view->file->path, err) : 0;
}

static int say_not_known(const struct view *view, const char *why, struct err *err)
{
    return err_say(err, ERR_FAILED, ESTALE,
                   "witness: whether %.200s took what we said is not known: %s", view->file->path,
                   why);
}

/* Ours has its name. Whether it is the first one that ever had it: step 5. */
static int make_sure(struct view *view, uint64_t expected, struct err *err)
{
    struct stat here, there;

    if (fsync(view->folder) < 0)
        return say_not_known(view, strerror(errno), err);
    int r = look(view, err);
    if (r < 0)
        return r;
    if (view->highest < expected + 1)
        return say_not_known(view, "what it lists is old", err);
    bool is_late = view->highest - (expected + 1) >= WITNESS_FILE_KEEP;
    if (is_late || (expected && faccessat(view->folder, name_of(view->uuid, expected).text, F_OK,
                                          AT_SYMLINK_NOFOLLOW) < 0))
        return say_not_known(view, "we stood still while others went on", err);
    if (fstat(view->folder, &here) < 0 || stat(view->file->path, &there) < 0 ||
        here.st_dev != there.st_dev || here.st_ino != there.st_ino)
        return say_not_known(view, "the folder was moved away", err);
    return 0;
}

static int say_other(const struct view *view, const struct ft_record *is, uint64_t expected,
                     struct ft_record *ret_is, struct err *err)
{
    int r = tell(view, is, ret_is, err);

    return r < 0 ? r
                 : err_say(err, ERR_STATE, EAGAIN,
                           "witness: %.200s has generation %llu of the VM, and not %llu",
                           view->file->path, (unsigned long long)is->generation,
                           (unsigned long long)expected);
}

/* Steps 2 to 5. */
static int exchange(struct view *view, const char *name, const struct witness_text *text,
                    struct ft_record *ret_is, struct err *err)
{
    uint64_t generation = text->record.generation;
    struct name final = name_of(text->uuid, generation);
    struct witness_text there;
    struct ft_record is;

    int r = read_highest(view, 0, &is, err);
    if (r < 0)
        return r;
    if (is.generation != generation - 1)
        return say_other(view, &is, generation - 1, ret_is, err);
    int error = linkat(view->folder, name, view->folder, final.text, 0) < 0 ? -errno : 0;
    r = read_one(view, generation, &there, err);
    if (r == -ENOENT)
        return error && error != -EEXIST
                   ? witness_folder_say(error, "link in", view->file->path, err)
                   : say_not_known(view, "it is not there", err);
    if (r < 0)
        return r;
    if (memcmp(there.attempt, text->attempt, sizeof(there.attempt)) == 0)
        return make_sure(view, generation - 1, err);
    r = read_highest(view, generation, &is, err);
    return r < 0 ? r : say_other(view, &is, generation - 1, ret_is, err);
}

/* What it expects is the generation before, says ft/witness.h. */
static int witness_file_exchange(struct witness *witness, const uint8_t uuid[16], uint64_t expected,
                                 const struct ft_record *next, struct ft_record *ret_is,
                                 struct err *err)
{
    struct witness_text text = {.record = *next};
    char name[WITNESS_NAME];
    struct view view;

    if (next->generation == 0 || next->generation > WITNESS_MOST_GENERATIONS)
        return err_say(err, ERR_FAILED, EOVERFLOW, "witness: generation %llu is senseless",
                       (unsigned long long)next->generation);
    int r = begin(&view, container_of(witness, struct witness_file, base), uuid, err);
    if (r < 0)
        return r;
    memcpy(text.uuid, uuid, 16);
    r = witness_folder_new_name(name, text.attempt, err);
    if (r == 0) {
        r = write_new(&view, name, &text, err);
        if (r == 0)
            r = exchange(&view, name, &text, ret_is, err);
        unlinkat(view.folder, name, 0);
    }
    if (r == 0)
        clean(&view);
    finish(&view);
    return r;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void witness_file_close(struct witness *witness)
{
    free(container_of(witness, struct witness_file, base));
}

static const struct witness_ops file_ops = {
    .read = witness_file_read,
    .exchange = witness_file_exchange,
    .close = witness_file_close,
};

/* Without a change: there is nothing to be tried out where this is not so. */
static int check_known(int folder, const char *path, const uint8_t uuid[16], struct err *err)
{
    struct name ours = name_of(uuid, 0);
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    bool known = false;

    if (!list) {
        int error = -errno;
        if (fd >= 0)
            close(fd);
        return witness_folder_say(error, "list", path, err);
    }
    while (!known && (entry = readdir(list)))
        known = strncmp(entry->d_name, ours.text, UUID_LENGTH + 1) == 0;
    closedir(list);
    if (known)
        return 0;
    int r = err_say(err, ERR_STATE, ESTALE, "witness: %.200s has no record of the VM", path);
    err_hint(err, "both hosts must see the same storage under that path");
    return r;
}

int witness_file_open(struct witness **ret_witness, const char *path, const uint8_t known[16],
                      struct err *err)
{
    if (path[0] != '/') {
        int r = err_say(err, ERR_USAGE, EINVAL, "witness: \"%.200s\" is no whole path", path);
        err_hint(err, "file:/... is a folder on storage that both hosts have");
        return r;
    }
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return witness_folder_say(-errno, "open", path, err);
    struct witness_file *file = malloc(sizeof(*file) + strlen(path) + 1);
    int r = file ? witness_folder_check(folder, path, err)
                 : err_sys(err, ERR_HOST, ENOMEM, "witness");
    if (r == 0 && known)
        r = check_known(folder, path, known, err);
    if (r == 0)
        r = witness_folder_probe(folder, path, &file->uid, err);
    close(folder);
    if (r < 0) {
        free(file);
        return r;
    }
    file->base.ops = &file_ops;
    strcpy(file->path, path);
    *ret_witness = &file->base;
    return 0;
}

int witness_file_since(const char *path, const uint8_t uuid[16], uint64_t generation,
                       int64_t *ret_seconds)
{
    struct name name = name_of(uuid, generation);
    struct stat stat;
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = folder < 0 || fstatat(folder, name.text, &stat, AT_SYMLINK_NOFOLLOW) < 0 ? -ENOENT : 0;

    if (folder >= 0)
        close(folder);
    if (r == 0)
        *ret_seconds = stat.st_mtime;
    return r;
}
