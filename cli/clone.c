/* SPDX-License-Identifier: MIT */
/* minivmm clone: a VM made from another one, which may run meanwhile. */
#include "cli/verbs.h"
#include "cli/vm_copy.h"
#include "cli/vms.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A plain name lies beside the VM, whatever that was called by. */
static int find_place(struct vm_copy *copy, const char *name, char path[PATH_MAX], struct err *err)
{
    char here[PATH_MAX] = "";
    const char *slash = strrchr(copy->from.path, '/');
    int length = (int)(slash - copy->from.path);

    bool beside = !strchr(name, '/') && getcwd(here, sizeof(here)) &&
                  ((int)strlen(here) != length ||
                   strncmp(copy->from.path, here, strlen(here)) != 0);
    if (snprintf(path, PATH_MAX, "%.*s%s%s", beside ? length : 0, copy->from.path,
                 beside ? "/" : "", name) >= PATH_MAX)
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "cannot make %.200s", name);
    copy->making.path = path;
    return place_find(&copy->making.place, path, err);
}

static void tell(const struct vm_copy *copy)
{
    if (copy->runs)
        log_info("%s stood still for %.1f ms; the clone boots as after a power cut",
                 copy->from.name, json_number_value(json_object_get(copy->answer, "paused_ms")));
    making_tell_ready(&copy->making, copy->making.path);
}

int verb_clone(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    char path[PATH_MAX];
    struct vm_copy copy = VM_COPY_INIT;
    struct verb_words words = {.verb = "clone",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm clone web1 web2\n"
                                           "  minivmm clone web1 /srv/vms/web2\n"
                                           "\n"
                                           "Usage: minivmm clone VM NAME\n"
                                           "\n"
                                           "Makes a copy of a VM, which may run meanwhile: a VM of "
                                           "its own, with the same\n"
                                           "disks. NAME lies beside the VM, unless it has a path. "
                                           "The copies take no space\n"
                                           "where the file system can share it. With its memory, "
                                           "too: minivmm snapshot.\n",
                               .least = 2,
                               .most = 2,
                               .missing = "a VM and the name of its clone are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    copy.word = words.words[0];
    making_hold_signals(&copy.making);
    ret = vm_copy_open(&copy, &err);
    if (ret == 0)
        ret = find_place(&copy, words.words[1], path, &err);
    if (ret == 0)
        ret = vm_copy_make(&copy, NULL, &err);
    if (ret == 0)
        tell(&copy);
    vm_copy_close(&copy);
    int code = ret < 0 ? fail(&err) : 0;
    making_let_signals(&copy.making);
    return code;
}
