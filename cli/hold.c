/* SPDX-License-Identifier: MIT */
#include "cli/hold.h"

#include <errno.h>
#include <unistd.h>

enum { TRIES = 100, PAUSE_US = 10000 };

int hold_vm_or_find(struct folder *folder, struct runtime_info *ret_info, struct err *err)
{
    for (unsigned i = 0; i < TRIES; i++) {
        if (folder_lock(folder, NULL) != -EBUSY)
            break;
        if (runtime_find(folder->path, ret_info, NULL) == 0)
            return 1;
        usleep(PAUSE_US);
    }
    return folder_lock(folder, err);
}

int hold_vm(struct folder *folder, struct err *err)
{
    struct runtime_info info;
    int ret = hold_vm_or_find(folder, &info, err);
    if (ret <= 0)
        return ret;
    ret = err_say(err, ERR_STATE, EBUSY, "%s is already running (pid %lld)", folder->name,
                  (long long)info.pid);
    err_hint(err, "minivmm stop %s", folder->name);
    runtime_info_finish(&info);
    return ret;
}
