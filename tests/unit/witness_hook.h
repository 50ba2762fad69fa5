/* SPDX-License-Identifier: MIT */
/*
 * A program that can be stopped, killed or lied to at each step in a folder: its calls of the C
 * library's functions come by here. A step is one before or after such a call.
 */
#pragma once

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum hook_kind {
    HOOK_NONE,
    HOOK_ACT,  /* something happens there */
    HOOK_FAIL, /* the call fails, and nothing was done */
    HOOK_LOSE, /* the call does what it should, and seems to fail */
};

enum hook_link { LINK_WORKS, LINK_IS_NONE, LINK_REPLACES, LINK_COPIES };

static struct {
    /* Looked at on every thread: who was left with a question may ask on when the test has ended.
     */
    _Atomic enum hook_kind kind;
    _Atomic long thread; /* whose steps these are; the next ones are that thread's */
    int step, at;        /* so many there were; the one where it happens */
    int error;           /* FAIL, LOSE */
    void (*act)(void *arg);
    void *arg;
    bool happened;

    enum hook_link link;
    uint32_t fs; /* what fstatfs says */

    const char *old_list; /* NULL, or: lists know of no name from here on */

    bool full; /* no file can be made */

    /* NULL, or: on every thread, before a list is read ('r') and before a link is made ('l'). */
    void (*_Atomic pass)(char what);

    char *log; /* NULL, or: a letter for each call that makes or removes */
} hook;

static inline void hook_set(enum hook_kind kind, int at)
{
    hook.thread = syscall(SYS_gettid);
    hook.step = 0;
    hook.at = at;
    hook.happened = false;
    hook.kind = kind;
}

static inline enum hook_kind hook_point(void)
{
    enum hook_kind kind = hook.kind;

    if (!kind || hook.thread != syscall(SYS_gettid) || hook.step++ != hook.at)
        return HOOK_NONE;
    hook.happened = true;
    hook.kind = HOOK_NONE;
    if (kind == HOOK_ACT)
        hook.act(hook.arg);
    return kind;
}

static inline void hook_note(char letter)
{
    size_t length = hook.log ? strlen(hook.log) : 0;

    if (hook.log)
        memcpy(hook.log + length, (char[]){letter, 0}, 2);
}

static inline void hook_pass(char what)
{
    void (*pass)(char) = hook.pass;

    if (pass)
        pass(what);
}

#define HOOKED(call)                                                                 \
    do {                                                                             \
        enum hook_kind before = hook_point();                                        \
        long r = before == HOOK_FAIL ? -1 : (call);                                  \
        int error = before == HOOK_FAIL || before == HOOK_LOSE ? hook.error : errno; \
        if (before == HOOK_LOSE)                                                     \
            r = -1;                                                                  \
        if (hook.kind == HOOK_ACT)                                                   \
            hook_point();                                                            \
        errno = error;                                                               \
        return (int)r;                                                               \
    } while (0)

int openat(int folder, const char *name, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
    va_end(list);
    if (hook.full && flags & O_CREAT) {
        errno = ENOSPC;
        return -1;
    }
    HOOKED(syscall(SYS_openat, folder, name, flags, mode));
}

int fsync(int fd)
{
    struct stat stat;
    hook_note(fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode) ? 'd' : 'f');
    HOOKED(syscall(SYS_fsync, fd));
}

int unlinkat(int folder, const char *name, int flags)
{
    hook_note('u');
    HOOKED(syscall(SYS_unlinkat, folder, name, flags));
}

int linkat(int from, const char *name, int to, const char *second, int flags)
{
    hook_pass('l');
    if (hook.link == LINK_IS_NONE) {
        errno = EPERM;
        return -1;
    }
    if (hook.link == LINK_REPLACES)
        syscall(SYS_unlinkat, to, second, 0);
    if (hook.link == LINK_COPIES)
        return (int)syscall(SYS_openat, to, second, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    hook_note('l');
    HOOKED(syscall(SYS_linkat, from, name, to, second, flags));
}

struct dirent *readdir(DIR *list)
{
    struct dirent *(*next)(DIR * list) = NULL, *entry;
    void *symbol = dlsym(RTLD_NEXT, "readdir64");

    hook_pass('r');
    memcpy(&next, &symbol, sizeof(next));
    do
        entry = next(list);
    while (entry && hook.old_list && strcmp(entry->d_name, hook.old_list) >= 0);
    return entry;
}

int fstatfs(int fd, struct statfs *ret_statfs)
{
    int r = (int)syscall(SYS_fstatfs, fd, ret_statfs);
    if (r == 0 && hook.fs)
        ret_statfs->f_type = (__fsword_t)hook.fs;
    return r;
}
