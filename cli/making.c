/* SPDX-License-Identifier: MIT */
#include "cli/making.h"

#include "core/log.h"
#include "host/tree.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 100 };

/* --- signals ---------------------------------------------------------------------------------- */

/* Whoever has them ignored (nohup) goes on having so. */
void making_hold_signals(struct making *making)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action;

    sigemptyset(&making->signals);
    for (size_t i = 0; i < array_size(signals); i++)
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&making->signals, signals[i]);
    making->held = sigprocmask(SIG_BLOCK, &making->signals, &making->before) == 0;
}

bool making_is_interrupted(const struct making *making)
{
    sigset_t pending;

    return sigpending(&pending) == 0 && sigandset(&pending, &pending, &making->signals) == 0 &&
           !sigisemptyset(&pending);
}

void making_let_signals(struct making *making)
{
    if (making->held)
        sigprocmask(SIG_SETMASK, &making->before, NULL);
}

/* --- the folder ------------------------------------------------------------------------------- */

static int say_being_made(const struct making *making, struct err *err)
{
    char path[PATH_MAX + NAME_MAX + 2];

    snprintf(path, sizeof(path), "%s/%s", making->place.path, making->hidden);
    int64_t pid = folder_holder(path);
    if (pid > 0)
        return err_say(err, ERR_STATE, EBUSY, "%s is just being made (pid %lld)", making->path,
                       (long long)pid);
    return err_say(err, ERR_STATE, EBUSY, "%s is just being made", making->path);
}

/* 0: it is ours. 1: somebody else was quicker, who has finished or given up by now. */
static int try_hidden(struct making *making, struct err *err)
{
    struct folder *folder = &making->folder;

    if (mkdirat(making->place.parent, making->hidden, 0777) < 0 && errno != EEXIST)
        return err_sys(err, ERR_FAILED, errno, "cannot make %s", making->path);
    folder->fd = openat(making->place.parent, making->hidden,
                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder->fd < 0)
        return errno == ENOENT ? 1
                               : err_sys(err, ERR_FAILED, errno, "cannot make %s", making->path);
    int ret = folder_lock(folder, err);
    if (ret < 0 && err->kind == ERR_STATE)
        return say_being_made(making, err);
    if (ret < 0 && err->kind != ERR_NOT_FOUND)
        return ret;
    return ret == 0 && place_is(&making->place, making->hidden, folder->fd) ? 0 : 1;
}

int making_begin(struct making *making, struct err *err)
{
    snprintf(making->hidden, sizeof(making->hidden), ".%.220s.new", making->place.name);
    for (unsigned i = 0; i < TRIES; i++) {
        making->folder.name = strdup(making->place.name);
        if (!making->folder.name)
            return err_sys(err, ERR_HOST, ENOMEM, "cannot make %s", making->path);
        int ret = try_hidden(making, err);
        if (ret == 0)
            return tree_empty(making->folder.fd, FOLDER_IDENTITY, err);
        folder_close(&making->folder);
        if (ret < 0)
            return ret;
    }
    return err_sys(err, ERR_STATE, EBUSY, "cannot make %s", making->path);
}

int making_end(struct making *making, int ret, struct err *err)
{
    if (making_is_interrupted(making))
        ret = err_say(err, ERR_FAILED, ECANCELED, "%s was not made: interrupted", making->path);
    if (ret == 0)
        ret = tree_move(making->place.parent, making->hidden, making->place.parent,
                        making->place.name, err);
    if (ret < 0)
        (void)!tree_remove(making->place.parent, making->hidden, NULL);
    else
        place_sweep(&making->place);
    folder_close(&making->folder);
    return ret;
}

void making_tell_ready(const struct making *making, const char *path)
{
    const char *quote = strpbrk(path, " '\"\\$`!*?[](){};&|<>#~\t") ? "'" : "";

    log_info("%s is ready: minivmm run %s%s%s", making->place.name, quote, path, quote);
}
