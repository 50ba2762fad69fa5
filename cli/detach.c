/* SPDX-License-Identifier: MIT */
#include "cli/detach.h"

#include "core/log.h"
#include "host/small_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOG_MAX = 256 << 10 };

/* The child closes its end when it is ready, or when it ends: its exit code tells which. */
static int wait_for_child(pid_t child, int pipe)
{
    char ready = 0;
    ssize_t got;
    do {
        got = read(pipe, &ready, 1);
    } while (got < 0 && errno == EINTR);
    close(pipe);
    if (got == 1)
        return 0;
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return ERR_FAILED;
    return WIFEXITED(status) ? WEXITSTATUS(status) : ERR_FAILED;
}

int detach_fork(struct detach *ret_detach, int *ret_code, struct err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot detach");
    pid_t child = fork();
    if (child < 0) {
        int error = errno;
        close(ends[0]);
        close(ends[1]);
        return err_sys(err, ERR_HOST, error, "cannot detach");
    }
    if (child > 0) {
        close(ends[1]);
        *ret_code = wait_for_child(child, ends[0]);
        return 1;
    }
    close(ends[0]);
    setsid(); /* no terminal's Ctrl-C and no hangup reach it */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        close(null);
    }
    ret_detach->ready = ends[1];
    return 0;
}

/* What has grown too large in earlier runs begins anew. */
static int open_log(int folder, const char *name)
{
    struct stat info;
    int fd = small_file_append(folder, name, 0644);
    if (fd < 0)
        return fd;
    if (fstat(fd, &info) == 0 && (info.st_size <= LOG_MAX || ftruncate(fd, 0) == 0))
        return fd;
    int error = errno;
    close(fd);
    return -error;
}

static const char *why_not(int error)
{
    return error == -EINVAL   ? "it is no plain file"
           : error == -EMLINK ? "it is a hard link to some other file"
                              : strerror(-error);
}

/* A VM that runs does not end for want of a log: who started it reads why there is none. */
static int open_words(int folder, const char *log)
{
    int fd = log ? open_log(folder, log) : -1;
    if (log && fd < 0)
        log_warning("cannot write %s: %s: what is said from now on is lost", log, why_not(fd));
    return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

void detach_log(int log_folder, const char *log)
{
    int fd = open_words(log_folder, log);
    if (fd < 0)
        return;
    dup2(fd, STDERR_FILENO);
    close(fd);
}

void detach_ready(struct detach *detach, int log_folder, const char *log)
{
    if (detach->ready < 0)
        return;
    detach_log(log_folder, log);
    ssize_t sent = write(detach->ready, "r", 1);
    (void)sent; /* a parent that has gone (Ctrl-C) is no reason to end a VM that runs */
    close(detach->ready);
    detach->ready = -1;
}

void notify_manager(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = path ? strlen(path) : 0;
    if (length < 2 || length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') /* an abstract name */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    (void)sent; /* nobody to tell that nobody listens */
    close(fd);
}
