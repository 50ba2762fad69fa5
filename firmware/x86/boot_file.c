/* SPDX-License-Identifier: MIT */
#include "firmware/x86/boot_file.h"

#include "firmware/x86/layout.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_kind(struct boot_file *file, const char *path, struct err *err)
{
    const char *what = file->what;
    struct stat status;

    if (fstat(file->fd, &status) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot look at %s %s", what, path);
    if (S_ISDIR(status.st_mode))
        return err_say(err, ERR_DEFINITION, EISDIR, "%s %s is a directory", what, path);
    if (!S_ISREG(status.st_mode))
        return err_say(err, ERR_DEFINITION, EINVAL, "%s %s is not a regular file", what, path);
    if (status.st_size == 0)
        return err_say(err, ERR_DEFINITION, ENODATA, "%s %s is empty", what, path);
    file->size = (uint64_t)status.st_size;
    return 0;
}

int boot_file_open(struct boot_file *file, const char *path, const char *what, struct err *err)
{
    struct boot_file opened = {.what = what};
    int ret;

    /* O_NONBLOCK: a named pipe is refused below, and must not hold us up before that. */
    opened.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (opened.fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_sys(err, ERR_NOT_FOUND, errno, "cannot open %s %s", what, path);
    if (opened.fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open %s %s", what, path);
    ret = check_kind(&opened, path, err);
    if (ret < 0)
        goto fail;
    opened.path = strdup(path);
    if (!opened.path) {
        ret = err_sys(err, ERR_FAILED, ENOMEM, "cannot open %s %s", what, path);
        goto fail;
    }
    *file = opened;
    return 0;
fail:
    close(opened.fd);
    return ret;
}

void boot_file_close(struct boot_file *file)
{
    if (!file->path)
        return;
    close(file->fd);
    free(file->path);
    file->path = NULL;
}

int boot_file_read(const struct boot_file *file, uint64_t offset, void *to, size_t length,
                   struct err *err)
{
    size_t done = 0;

    while (done < length) {
        ssize_t n = pread(file->fd, (char *)to + done, length - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, ERR_FAILED, errno, "cannot read %s %s", file->what, file->path);
        if (n == 0)
            return err_say(err, ERR_FAILED, ENODATA,
                           "%s %s shrank while it was in use: it had %llu bytes, and now it ends "
                           "before byte %llu",
                           file->what, file->path, (unsigned long long)file->size,
                           (unsigned long long)offset + done);
        done += (size_t)n;
    }
    return 0;
}

int boot_file_load(const struct boot_file *file, uint64_t offset, struct memory *memory, gpa_t at,
                   size_t length, struct err *err)
{
    void *to;
    int ret;

    if (length == 0)
        return 0;
    ret = memory_borrow(memory, at, length, &to);
    if (ret < 0)
        return err_say(err, ERR_DEFINITION, -ret,
                       "%s %s wants to lie at 0x%llx, where the machine has no RAM", file->what,
                       file->path, (unsigned long long)at);
    ret = boot_file_read(file, offset, to, length, err);
    memory_written(memory, at, length);
    return ret;
}

int boot_file_cut_off(const struct boot_file *file, uint64_t needed, struct err *err)
{
    err_say(err, ERR_DEFINITION, ENODATA,
            "%s %s is cut off: it should have %llu bytes, and has %llu", file->what, file->path,
            (unsigned long long)needed, (unsigned long long)file->size);
    err_hint(err, "copy or download it again");
    return -ENODATA;
}

unsigned long long boot_mib(uint64_t bytes)
{
    return (bytes >> 20) + (bytes & ((1 << 20) - 1) ? 1 : 0);
}

int boot_file_no_room(const struct boot_file *file, uint64_t end, uint64_t given, struct err *err)
{
    if (end > LAYOUT_HOLE)
        return err_say(err, ERR_DEFINITION, ENOMEM,
                       "%s %s needs %llu MiB of RAM below 4 GiB, and there are never more than "
                       "%llu MiB",
                       file->what, file->path, boot_mib(end), boot_mib(LAYOUT_HOLE));
    err_say(err, ERR_USAGE, ENOMEM, "%s %s needs %llu MiB of RAM, and the machine has %llu MiB",
            file->what, file->path, boot_mib(end), (unsigned long long)(given >> 20));
    err_hint(err, "give the VM at least %lluM of memory", boot_mib(end));
    return -ENOMEM;
}
