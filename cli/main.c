/* SPDX-License-Identifier: MIT */
#include "cli/options.h"
#include "cli/verbs.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int verb_help(int argc, char **argv);

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the verb */
    const char *help;
} verbs[] = {
    {"new", verb_new, "make a VM from an image"},
    {"clone", verb_clone, "make a VM from another one, which may run"},
    {"run", verb_run, "boot a VM, or a disk by itself, with its console on this terminal"},
    {"list", verb_list, "VMs in this folder, and all that run"},
    {"status", verb_status, "all about one VM"},
    {"console", verb_console, "a terminal at the console of a VM that runs"},
    {"stop", verb_stop, "press the power button, and wait"},
    {"pause", verb_pause, "let a VM stand still"},
    {"resume", verb_resume, "let it go on"},
    {"reset", verb_reset, "press the reset button"},
    {"set", verb_set, "change a VM while it runs"},
    {"snapshot", verb_snapshot, "keep a VM as it is now, with its memory if it runs"},
    {"snapshots", verb_snapshots, "which snapshots a VM has"},
    {"restore", verb_restore, "go back to a snapshot"},
    {"remove-snapshot", verb_remove_snapshot, "remove snapshots of a VM"},
    {"migrate", verb_migrate, "let a VM go on on another host"},
    {"standby", verb_standby, "wait for VMs from other hosts"},
    {"protect", verb_protect, "have a twin go on with a VM when this host dies"},
    {"unprotect", verb_unprotect, "have no twin any more"},
    {"switchover", verb_switchover, "let the twin go on, and this host be free"},
    {"epochs", verb_epochs, "why a protected VM stood still"},
    {"rename", verb_rename, "give a VM another name"},
    {"remove", verb_remove, "remove VMs, with their disks"},
    {"report", verb_report, "how available a VM was"},
    {"pair", verb_pair, "give this host and another one a key for what they say to each other"},
    {"unpair", verb_unpair, "take it from both"},
    {"pairs", verb_pairs, "hosts that this one is paired with"},
    {"key", verb_key, "make a key by hand, for --key FILE on two hosts"},
    {"check", verb_check,
     "say what this host can do, or judge a VM, with the mend of what is wrong"},
    {"help", verb_help, "this text; minivmm VERB --help for each verb"},
};

static int verb_help(int argc, char **argv)
{
    printf("Examples:\n"
           "  minivmm run disk.img\n"
           "  minivmm run web1 --detach\n"
           "  minivmm console web1\n"
           "  minivmm run --kernel vmlinuz --initrd initrd.img --cpus 2 --memory 1G\n"
           "  minivmm check\n"
           "\n"
           "Usage: minivmm VERB [OPTION...]\n"
           "\n"
           "Verbs:\n");
    for (size_t i = 0; i < array_size(verbs); i++)
        printf("  %-15s %s\n", verbs[i].name, verbs[i].help);
    printf("\n"
           "Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 wrong state or locked,\n"
           "5 bad definition or image, 6 the host lacks something, 7 the guest crashed, 124 timed "
           "out\n");
    return 0;
}

int fail(const struct err *err)
{
    log_err(LOG_ERROR, err);
    return (int)(err->kind ? err->kind : ERR_FAILED);
}

static const char *verb_name(const void *ctx, size_t i)
{
    return i < array_size(verbs) ? verbs[i].name : NULL;
}

static int unknown_verb(const char *word)
{
    struct err err = {0};
    int ret = err_say(&err, ERR_USAGE, EINVAL, "unknown verb %s", word);
    const char *nearest = nearest_word(word, verb_name, NULL);
    if (nearest)
        err_hint(&err, "did you mean minivmm %s?", nearest);
    else
        err_hint(&err, "minivmm help lists them");
    (void)ret;
    return fail(&err);
}

/*
 * Started with a standard stream closed, the next file that is opened would take its number, and
 * guest output would go into /dev/kvm.
 */
static int fill_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return -1;
    return 0;
}

/*
 * By default the first large buffer that is freed (a file was read) has all later ones lie in the
 * heap, up to its size, where calloc writes to all of them: a VM with a folder had a MiB of rooms
 * that nobody had ever entered.
 */
static void keep_large_out_of_the_heap(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 128 << 10); /* the default, but for ever */
}

int main(int argc, char **argv)
{
    keep_large_out_of_the_heap();
    if (fill_standard_streams() < 0)
        return ERR_HOST;      /* and nowhere to say so */
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is an error of write(2) */
    if (argc < 2) {
        verb_help(0, NULL);
        return ERR_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("minivmm %s\n", MINIVMM_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return verb_help(0, NULL);
    for (size_t i = 0; i < array_size(verbs); i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    return unknown_verb(argv[1]);
}
