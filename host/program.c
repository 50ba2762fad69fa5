/* SPDX-License-Identifier: MIT */
#include "host/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* A copy above the numbers that they are going to have there: no dup2 hits another's source. */
static int copy_high(int fd)
{
    int from = fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fd;
    int copy = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 10);
    int ret = copy < 0 ? -errno : copy;
    if (fd < 0 && from >= 0)
        close(from);
    return ret;
}

static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr,
                   const int fds[PROGRAM_FDS])
{
    sigset_t none, all;
    int ret = 0;
    for (int i = 0; i < PROGRAM_FDS && !ret; i++)
        ret = posix_spawn_file_actions_adddup2(actions, fds[i], i);
    if (!ret)
        ret = posix_spawn_file_actions_addclosefrom_np(actions, PROGRAM_FDS);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setsigdefault(attr, &all);
    /* A session of its own: a Ctrl-C in our terminal is for us alone, the guest's shutdown may need
     * its network. */
    posix_spawnattr_setflags(attr,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    return -ret;
}

static int spawn(pid_t *ret_pid, char *const argv[], const int fds[PROGRAM_FDS])
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;

    int ret = -posix_spawn_file_actions_init(&actions);
    if (ret < 0)
        return ret;
    ret = -posix_spawnattr_init(&attr);
    if (ret == 0) {
        ret = prepare(&actions, &attr, fds);
        if (ret == 0)
            ret = -posix_spawnp(ret_pid, argv[0], &actions, &attr, argv, environ);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
    return ret;
}

int program_start(pid_t *ret_pid, int *ret_pidfd, char *const argv[], const int fds[PROGRAM_FDS])
{
    int copies[PROGRAM_FDS], ret = 0;
    pid_t pid = -1;

    for (int i = 0; i < PROGRAM_FDS; i++) {
        copies[i] = copy_high(fds[i]);
        if (copies[i] < 0)
            ret = copies[i];
    }
    if (ret == 0)
        ret = spawn(&pid, argv, copies);
    for (int i = 0; i < PROGRAM_FDS; i++)
        if (copies[i] >= 0)
            close(copies[i]);
    if (ret < 0)
        return ret;
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        ret = -errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return ret;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}
