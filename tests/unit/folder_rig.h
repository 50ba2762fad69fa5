/* SPDX-License-Identifier: MIT */
/*
 * Folders to try things in: each test gets one of its own, and all are gone at the end of the
 * program, however the tests went. Use rig_suite_begin/end as an unchecked fixture, rig_begin as a
 * checked one.
 */
#pragma once

#include "core/clock.h"
#include "tests/unit/unit.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char rig_root[200]; /* of the suite */
static char rig[240];      /* of the test; whole, without symbolic links */

/* Short, so that sockets' paths fit, unless TMPDIR says another place. */
static inline void rig_suite_begin(void)
{
    const char *parent = getenv("TMPDIR");
    char made[160];

    snprintf(made, sizeof(made), "%s/mv-XXXXXX", parent && *parent ? parent : "/tmp");
    char *whole = mkdtemp(made) ? realpath(made, NULL) : NULL;
    if (!whole || strlen(whole) >= sizeof(rig_root))
        abort();
    strcpy(rig_root, whole);
    free(whole);
}

static inline int rig_remove(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void rig_suite_end(void)
{
    nftw(rig_root, rig_remove, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* What this process has computed: unlike the time on the wall it is no more on a busy machine. */
static inline uint64_t rig_cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

static inline void rig_begin(void)
{
    snprintf(rig, sizeof(rig), "%s/XXXXXX", rig_root);
    ck_assert(mkdtemp(rig));
}

/* A path in the test's folder; eight of them live at a time. */
static inline const char *rig_path(const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", rig, name);
    return path;
}

static inline void rig_write(const char *name, const char *text)
{
    FILE *file = fopen(rig_path(name), "we");

    ck_assert_msg(file, "%s: %s", name, strerror(errno));
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* All of it; the caller frees. */
static inline char *rig_read(const char *name)
{
    char *text = NULL;
    size_t room = 0;
    FILE *file = fopen(rig_path(name), "re");

    ck_assert_msg(file, "%s: %s", name, strerror(errno));
    ssize_t length = getdelim(&text, &room, 0, file);
    if (length < 0)
        text[0] = 0;
    fclose(file);
    return text;
}

static inline void rig_make_folder(const char *name)
{
    ck_assert_msg(mkdir(rig_path(name), 0755) == 0, "%s: %s", name, strerror(errno));
}

static inline const char *rig_make_vm(const char *name)
{
    char definition[600];

    rig_make_folder(name);
    snprintf(definition, sizeof(definition), "%s/" FOLDER_DEFINITION, name);
    rig_write(definition, "{}\n");
    return rig_path(name);
}

static inline struct folder rig_open(const char *name)
{
    struct folder folder;
    struct err err = {0};

    ck_assert_msg(folder_open(&folder, rig_path(name), &err) == 0, "%s", err.text);
    return folder;
}

static inline struct folder rig_lock(const char *name)
{
    struct folder folder = rig_open(name);
    struct err err = {0};

    ck_assert_msg(folder_lock(&folder, &err) == 0, "%s", err.text);
    return folder;
}

/* True: this test has its own mounts from now on, and they go with its process. */
static inline bool rig_may_mount(void)
{
    if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        return true;
    fprintf(stderr, "SKIPPED: no right to mount\n");
    return false;
}

/* This process is nobody's from now on. False: it is not root's, and cannot become that. */
static inline bool rig_become_nobody(void)
{
    if (geteuid() != 0 ||
        (setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0))
        return true;
    fprintf(stderr, "SKIPPED: cannot become another user\n");
    return false;
}

/* Runs body(ctx) in a child, which has what the test has. */
static inline pid_t rig_fork(void (*body)(void *ctx), void *ctx)
{
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        body(ctx);
        _exit(0);
    }
    return pid;
}

static inline int rig_wait(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}
