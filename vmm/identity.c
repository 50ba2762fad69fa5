/* SPDX-License-Identifier: MIT */
#include "vmm/identity.h"

#include "core/clock.h"
#include "core/stream.h"
#include "host/small_file.h"
#include "vmm/identity_text.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Places. */

/* What tells one directory from another; machine and path are not touched. */
static int look_at(int folder, const char *path, struct birthplace *ret_place)
{
    int flags = path[0] ? 0 : AT_EMPTY_PATH;
    struct statx statx_of;

    if (statx(folder, path, flags, STATX_INO | STATX_BTIME, &statx_of) < 0)
        return -errno;
    ret_place->device = makedev(statx_of.stx_dev_major, statx_of.stx_dev_minor);
    ret_place->inode = statx_of.stx_ino;
    ret_place->born_ns = 0;
    if (statx_of.stx_mask & STATX_BTIME) /* compared only: a file system may say anything */
        ret_place->born_ns = (int64_t)((uint64_t)statx_of.stx_btime.tv_sec * NS_PER_SEC +
                                       statx_of.stx_btime.tv_nsec);
    return 0;
}

/* Containers and images that were never booted have none. */
static void learn_machine(char ret_machine[33])
{
    char text[32];
    bool good = false;

    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0) {
        good = read(fd, text, sizeof(text)) == (ssize_t)sizeof(text);
        close(fd);
    }
    for (unsigned i = 0; good && i < sizeof(text); i++)
        good = isxdigit((unsigned char)text[i]) != 0;
    memset(ret_machine, 0, 33);
    if (good)
        memcpy(ret_machine, text, sizeof(text));
}

static int find_here(struct birthplace *ret_here, const struct folder *folder, struct err *err)
{
    struct birthplace here = {0};

    int r = look_at(folder->fd, "", &here);
    if (r < 0)
        return err_sys(err, ERR_FAILED, -r, "cannot look at the folder %s", folder->path);
    learn_machine(here.machine);
    here.path = strdup(folder->path);
    if (!here.path)
        return err_sys(err, ERR_FAILED, ENOMEM, "cannot look at the folder %s", folder->path);
    *ret_here = here;
    return 0;
}

/*
 * Inodes are used again and again, the times of birth are not. Device numbers are given out anew at
 * each boot, so they are asked only where there is no time of birth.
 */
static bool is_same_directory(const struct birthplace *a, const struct birthplace *b)
{
    if (a->inode != b->inode)
        return false;
    if (a->born_ns && b->born_ns)
        return a->born_ns == b->born_ns;
    return a->device == b->device && strcmp(a->machine, b->machine) == 0;
}

static bool is_same_object(const struct birthplace *a, const struct birthplace *b)
{
    return a->device == b->device && a->inode == b->inode;
}

/* mv web1 old; cp -r old web1: the original has stayed in the folder around this one. */
static bool is_original_beside(const struct birthplace *birthplace, int folder)
{
    struct birthplace beside = {0};
    struct dirent *entry;
    bool found = false;

    memcpy(beside.machine, birthplace->machine, sizeof(beside.machine));
    int fd = openat(folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *around = fd >= 0 ? fdopendir(fd) : NULL;
    if (!around) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    while (!found && (entry = readdir(around)))
        found = entry->d_ino == birthplace->inode && look_at(fd, entry->d_name, &beside) == 0 &&
                is_same_directory(birthplace, &beside);
    closedir(around);
    return found;
}

/* The rules of identity.h, in their order. */
static enum identity_found judge(const struct birthplace *birthplace, const struct birthplace *here,
                                 int folder)
{
    bool same_machine = strcmp(birthplace->machine, here->machine) == 0;
    struct birthplace there = {0};
    int r;

    memcpy(there.machine, here->machine, sizeof(there.machine));
    if (is_same_directory(birthplace, here)) {
        if (same_machine && strcmp(birthplace->path, here->path) == 0)
            return IDENTITY_KEPT;
        bool original_stands = same_machine && look_at(AT_FDCWD, birthplace->path, &there) == 0 &&
                               is_same_directory(birthplace, &there) &&
                               !is_same_object(&there, here);
        return original_stands ? IDENTITY_COPIED : IDENTITY_MOVED;
    }
    if (!same_machine)
        return IDENTITY_COPIED;
    r = look_at(AT_FDCWD, birthplace->path, &there);
    /* On one device a move keeps the directory: this one is a copy whose original has been renamed
     * or removed since. */
    if (r == -ENOENT || r == -ENOTDIR)
        return birthplace->device != here->device ? IDENTITY_MOVED : IDENTITY_COPIED;
    if (r == 0 && is_same_object(&there, here))
        return is_original_beside(birthplace, folder) ? IDENTITY_COPIED : IDENTITY_MOVED;
    return IDENTITY_COPIED;
}

/* Making. */

static int make_random(void *bytes, size_t length, struct err *err)
{
    ssize_t n;

    do {
        n = getrandom(bytes, length, 0); /* whole, up to 256 bytes */
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)length)
        return 0;
    return err_sys(err, ERR_HOST, n < 0 ? errno : EIO, "cannot make a new identity");
}

/* RFC 4122, 4.4: version 4, made of random bits. */
static int make_uuid(uint8_t uuid[16], struct err *err)
{
    int r = make_random(uuid, 16, err);

    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    return r;
}

static bool has_mac(const struct identity *identity, unsigned at)
{
    static const uint8_t none[6];

    return memcmp(identity->macs[at], none, sizeof(none)) != 0;
}

/* Locally administered, and one interface's own; never the same twice in one VM. */
static int make_mac(struct identity *identity, unsigned at, struct err *err)
{
    uint8_t *mac = identity->macs[at];
    bool twice;

    do {
        int r = make_random(mac, 6, err);
        if (r < 0)
            return r;
        mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02);
        twice = false;
        for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
            twice = twice || (i != at && memcmp(identity->macs[i], mac, 6) == 0);
    } while (twice);
    return 0;
}

/* Whatever is not there yet. *ret_made: something was not. */
static int complete(struct identity *identity, bool anew, bool *ret_made, struct err *err)
{
    int r = 0;

    *ret_made = anew;
    if (anew) {
        memset(identity->macs, 0, sizeof(identity->macs));
        r = make_uuid(identity->uuid, err);
        if (r == 0)
            r = make_uuid(identity->generation, err);
    }
    for (unsigned i = 0; r == 0 && i < MACHINE_MAX_NETS; i++)
        if (!has_mac(identity, i)) {
            *ret_made = true;
            r = make_mac(identity, i, err);
        }
    return r;
}

/* The same for the same UUID. */
static void derive_macs(struct identity *identity)
{
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++) {
        uint8_t seed[17];
        memcpy(seed, identity->uuid, 16);
        seed[16] = (uint8_t)i;
        uint32_t low = crc32c(0, seed, sizeof(seed));
        uint32_t high = crc32c(low, seed, sizeof(seed));
        memcpy(identity->macs[i], &low, 4);
        memcpy(identity->macs[i] + 4, &high, 2);
        identity->macs[i][0] = 0x02;
    }
}

int identity_make(struct identity *ret_identity, const uint8_t *uuid, struct err *err)
{
    struct identity identity = {0};
    bool made;
    int r = complete(&identity, true, &made, err);

    if (r < 0)
        return r;
    if (uuid) {
        memcpy(identity.uuid, uuid, sizeof(identity.uuid));
        derive_macs(&identity);
    }
    *ret_identity = identity;
    return 0;
}

/* The file. */

static int read_file(struct identity *ret_identity, int fd, const char *name, struct err *err)
{
    size_t length;
    char *text;

    int r = small_file_read(fd, IDENTITY_MAX_BYTES, &text, &length);
    if (r == -EFBIG)
        return identity_say_damaged(name, "it is too long", err);
    if (r < 0)
        return err_sys(err, ERR_FAILED, -r, "cannot read %s/" FOLDER_IDENTITY, name);
    if (length == 0) /* made for its lock */
        r = err_say(err, ERR_NOT_FOUND, ENOENT, "%s has no identity yet", name);
    else
        r = identity_parse(ret_identity, text, length, name, err);
    free(text);
    return r;
}

/*
 * A clone's start does not wait for the disk (two flushes, 2 to 20 ms). What a power cut right then
 * takes away is made anew at the next start: a copy gets one more identity, and none is shared.
 */
static int write_file(const struct identity *identity, struct folder *folder, struct err *err)
{
    char *text = identity_format(identity);

    if (!text)
        return err_sys(err, ERR_FAILED, ENOMEM, "%s: cannot write " FOLDER_IDENTITY, folder->name);
    int r = folder_write_file_soon(folder, FOLDER_IDENTITY, text, strlen(text), err);
    free(text);
    return r;
}

int identity_settle(struct identity *ret_identity, struct folder *folder, bool keep,
                    enum identity_found *ret_found, struct err *err)
{
    enum identity_found found = IDENTITY_NEW;
    struct birthplace here = {0};
    struct identity identity = {0};
    bool made = false;

    assert(folder->lock >= 0);
    int r = find_here(&here, folder, err);
    if (r < 0)
        return r;
    r = read_file(&identity, folder->lock, folder->name, err);
    if (r < 0 && r != -ENOENT)
        goto fail;
    if (r == 0) {
        found = judge(&identity.birthplace, &here, folder->fd);
        if (found == IDENTITY_COPIED && keep)
            found = IDENTITY_MOVED;
    }
    r = complete(&identity, found == IDENTITY_NEW || found == IDENTITY_COPIED, &made, err);
    if (r < 0)
        goto fail;
    if (found == IDENTITY_COPIED) { /* what befell the original is not its history */
        unlinkat(folder->fd, FOLDER_JOURNAL, 0);
        unlinkat(folder->fd, FOLDER_PROTECTED, 0);
        unlinkat(folder->fd, FOLDER_SPARE, 0);
    }
    bool rewrite = made || found != IDENTITY_KEPT;
    free(identity.birthplace.path);
    identity.birthplace = here;
    here.path = NULL;
    if (rewrite && (r = write_file(&identity, folder, err)) < 0)
        goto fail;
    *ret_identity = identity;
    *ret_found = found;
    return 0;
fail:
    free(here.path);
    identity_finish(&identity);
    return r;
}

int identity_read(struct identity *ret_identity, const struct folder *folder, struct err *err)
{
    int fd = openat(folder->fd, FOLDER_IDENTITY, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return err_say(err, ERR_NOT_FOUND, ENOENT, "%s has no identity yet", folder->name);
    if (fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot read %s/" FOLDER_IDENTITY, folder->name);
    int r = read_file(ret_identity, fd, folder->name, err);
    close(fd);
    return r;
}

bool identity_is_copied(const struct folder *folder)
{
    struct identity identity = {0};
    struct birthplace here = {0};
    bool copied = identity_read(&identity, folder, NULL) == 0 &&
                  find_here(&here, folder, NULL) == 0 &&
                  judge(&identity.birthplace, &here, folder->fd) == IDENTITY_COPIED;

    free(here.path);
    identity_finish(&identity);
    return copied;
}

int identity_adopt(struct identity *identity, struct folder *folder, struct err *err)
{
    struct birthplace here;
    int r = find_here(&here, folder, err);
    if (r < 0)
        return r;
    free(identity->birthplace.path);
    identity->birthplace = here;
    return write_file(identity, folder, err);
}

int identity_renew_generation(struct identity *identity, struct folder *folder, struct err *err)
{
    struct identity renewed = *identity;

    int r = make_uuid(renewed.generation, err);
    if (r == 0)
        r = write_file(&renewed, folder, err);
    if (r == 0)
        memcpy(identity->generation, renewed.generation, sizeof(identity->generation));
    return r;
}

void identity_finish(struct identity *identity)
{
    free(identity->birthplace.path);
    *identity = (struct identity){0};
}

void identity_disk_serial(const struct identity *identity, unsigned index, char ret_serial[21])
{
    const uint8_t *u = identity->uuid;

    snprintf(ret_serial, 21, "%02x%02x%02x%02x%02x%02x%02x%02x-%03u", u[0], u[1], u[2], u[3], u[4],
             u[5], u[6], u[7], index % 1000);
}
