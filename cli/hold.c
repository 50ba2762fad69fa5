/* SPDX-License-Identifier: MIT */
#include "cli/hold.h"

#include "core/log.h"
#include "ft/epoch_journal.h"
#include "ft/protection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TRIES = 100,
    ENDING_TRIES = 1000, /* much memory takes the kernel long */
    PAUSE_US = 10000,
    EXITING = 4 /* the kernel's PF_EXITING, in proc(5)'s stat */
};

/* It was killed, say: what it held it lets go as the kernel clears up, which takes a moment. */
static bool is_ending(int64_t pid)
{
    char path[40], line[300];
    snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    FILE *stat = fopen(path, "re");
    if (!stat)
        return true;
    const char *end = fgets(line, sizeof(line), stat) ? strrchr(line, ')') : NULL;
    fclose(stat);
    unsigned long flags = 0;
    char state = end ? end[2] : 'X';
    for (unsigned field = 0; end && field < 7; field++) /* state, five numbers, flags */
        end = strchr(end + 1, ' ');
    if (end)
        flags = strtoul(end, NULL, 10);
    return state == 'X' || state == 'Z' || (flags & EXITING);
}

int hold_vm_or_find(struct folder *folder, struct runtime_info *ret_info, struct err *err)
{
    unsigned tries = TRIES;
    for (unsigned i = 0; i < tries; i++) {
        if (folder_lock(folder, NULL) != -EBUSY)
            break;
        if (runtime_find(folder->path, ret_info, NULL) == 0) {
            if (!is_ending(ret_info->pid))
                return 1;
            runtime_info_finish(ret_info);
            tries = ENDING_TRIES;
        }
        usleep(PAUSE_US);
    }
    return folder_lock(folder, err);
}

/* What ends the process of a twin, or of a VM that arrives, is not what somebody wants who has been
 * told to stop a VM. */
static int say_running(const struct folder *folder, const struct runtime_info *info,
                       struct err *err)
{
    struct protection protection;
    long long pid = info->pid;
    int ret;
    if (protection_read(&protection, folder->fd, NULL) == 0 && protection.role == PROTECTION_TWIN) {
        ret = err_say(err, ERR_STATE, EBUSY, "%s is the twin of a VM that runs at %s (pid %lld)",
                      folder->name, protection.peer[0] ? protection.peer : "another host", pid);
        err_hint(err,
                 "there: minivmm switchover %s brings it here, minivmm unprotect %s ends its twin",
                 folder->name, folder->name);
    } else if (faccessat(folder->fd, FOLDER_ARRIVING, F_OK, 0) == 0) {
        ret = err_say(err, ERR_STATE, EBUSY, "%s is just arriving from another host (pid %lld)",
                      folder->name, pid);
    } else {
        ret = err_say(err, ERR_STATE, EBUSY, "%s is already running (pid %lld)", folder->name, pid);
        err_hint(err, "minivmm stop %s", folder->name);
    }
    return ret;
}

int hold_vm(struct folder *folder, struct err *err)
{
    struct runtime_info info;
    int ret = hold_vm_or_find(folder, &info, err);
    if (ret <= 0)
        return ret;
    ret = say_running(folder, &info, err);
    runtime_info_finish(&info);
    return ret;
}

int hold_complete_disks(const struct folder *folder, struct err *err)
{
    struct epoch_replay replay;
    int ret = epoch_journal_replay(folder->fd, folder->path, &replay, err);
    if (ret == 0 && (replay.epochs > 0 || replay.torn > 0))
        log_info("%s was a twin: its disks have %llu epochs more that were committed (%llu writes; "
                 "%llu bytes of one that was not were dropped)",
                 folder->name, (unsigned long long)replay.epochs, (unsigned long long)replay.blocks,
                 (unsigned long long)replay.torn);
    return ret;
}
