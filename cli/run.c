/* SPDX-License-Identifier: MIT */
/* minivmm run: a VM in the foreground, its console on this terminal, or in the background. */
#include "cli/run.h"
#include "cli/detach.h"
#include "cli/force_owner.h"
#include "cli/hold.h"
#include "cli/news.h"
#include "cli/restoring.h"
#include "cli/run_files.h"
#include "cli/run_words.h"
#include "cli/verbs.h"
#include "cli/vm_copy.h"
#include "core/log.h"
#include "ft/epoch_journal.h"
#include "ft/handover.h"
#include "ft/part.h"
#include "ft/protection.h"
#include "host/term.h"
#include "host/tree.h"
#include "vmm/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

struct run {
    struct run_words words;
    struct definition *loaded; /* of a VM's folder */
    struct folder folder;
    struct identity identity;
    struct detach detached;
    struct ft_part *part;
    struct protection protection; /* role 0: it has none */
    char definition[9];           /* the sum of vm.json, "": not known */
    char *snapshot_path;          /* whole; NULL: it boots */
    bool restores;         /* the VM is there: its own snapshot's files are in their places */
    bool is_new;           /* another VM than the snapshot's */
    bool is_clone;         /* cli/run.h */
    bool is_made, settled; /* its folder is there; and it is a VM */
    struct snapshot snapshot;
    struct arrival *arrival; /* NULL: it does not come from another host */
    struct instance *instance;
    struct term_handlers handlers;
    struct term *term; /* NULL where it runs in the background */
    struct loop_io signals;
    bool asked;  /* a signal pressed the power button */
    bool forced; /* a second one ended it */
};

/* --- the console -------------------------------------------------------------------------- */

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    struct run *run = ctx;
    if (run->term)
        term_write(run->term, bytes, length);
}

static void handle_input_room(void *ctx)
{
    struct run *run = ctx;
    if (run->term)
        term_input_room(run->term);
}

static size_t handle_input(void *ctx, const uint8_t *bytes, size_t length)
{
    struct run *run = ctx;
    return instance_input(run->instance, bytes, length);
}

static void handle_quit(void *ctx)
{
    struct run *run = ctx;
    instance_stop(run->instance, "person");
}

static void handle_break(void *ctx)
{
    struct run *run = ctx;
    machine_send_break(instance_machine(run->instance));
}

static void handle_detach(void *ctx)
{
    static const char text[] = "\r\n[minivmm: this VM runs in the foreground, there is nothing to "
                               "detach from; run --detach "
                               "puts it into the background; Ctrl-a x quits]\r\n";
    struct run *run = ctx;
    term_write(run->term, (const uint8_t *)text, sizeof(text) - 1);
}

/* A virtio console knows how large its terminal is. */
static void tell_size(struct run *run)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        machine_set_console_size(instance_machine(run->instance), size.ws_col, size.ws_row);
}

/* --- signals ------------------------------------------------------------------------------ */

static void handle_signal(void *arg, unsigned events)
{
    struct run *run = arg;
    struct signalfd_siginfo info;
    if (read(run->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        tell_size(run);
    } else if (info.ssi_signo == SIGCONT) {
        if (run->term)
            term_renew(run->term);
    } else if (!run->asked) {
        const char *signal = strsignal((int)info.ssi_signo);
        run->asked = true;
        if (instance_press_power_button(run->instance, "signal"))
            log_info("power button pressed (%s); a second signal ends the VM at once", signal);
        else
            log_info("it did not run here as yet, and ends (%s)", signal);
    } else {
        run->forced = true;
        instance_stop(run->instance, "signal");
    }
}

/* Before any thread starts, so that all of them leave these signals to the main loop. */
static void block_signals(sigset_t *ret_set)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCONT, SIGWINCH};
    sigemptyset(ret_set);
    for (size_t i = 0; i < array_size(ours); i++)
        sigaddset(ret_set, ours[i]);
    sigprocmask(SIG_BLOCK, ret_set, NULL);
}

static int watch_signals(struct run *run, const sigset_t *set, struct err *err)
{
    run->signals = (struct loop_io){.fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK),
                                    .events = LOOP_READ,
                                    .handle = handle_signal,
                                    .arg = run};
    if (run->signals.fd < 0)
        return err_sys(err, ERR_HOST, errno, "cannot watch signals");
    return loop_io_add(machine_loop(instance_machine(run->instance)), &run->signals, err);
}

static void unwatch_signals(struct run *run)
{
    if (run->signals.fd < 0)
        return;
    loop_io_remove(machine_loop(instance_machine(run->instance)), &run->signals);
    close(run->signals.fd);
}

/* --- the run ------------------------------------------------------------------------------ */

static int report(const struct run *run, const struct machine_end *end)
{
    switch (end->outcome) {
    case MACHINE_OFF:
        log_debug("the guest powered off");
        return 0;
    case MACHINE_RESET:
        log_debug("the guest rebooted");
        return 0;
    case MACHINE_EXIT:
        return (int)end->code;
    case MACHINE_UNBOOTABLE:
        log_error("no bootable disk: %s", end->crash.reason);
        return ERR_FAILED;
    case MACHINE_STOPPED:
        if (!run->forced)
            return 0;
        log_warning("the guest did not power off in time and was ended");
        return ERR_FAILED;
    case MACHINE_CRASHED:
        log_error("the guest crashed: %s", end->crash.reason);
        fprintf(stderr, "%s", end->crash.registers);
        if (end->crash.hint[0])
            fprintf(stderr, "hint: %s\n", end->crash.hint);
        return ERR_GUEST;
    }
    return ERR_FAILED;
}

/* --- who runs --------------------------------------------------------------------------------- */

static void handle_problem(void *ctx, const char *sentence)
{
    log_error("%s", sentence);
}

/* Whoever may write vm.json, or put another one in its place, has root open what he names. */
static void warn_of_foreign_owner(const struct folder *folder)
{
    struct stat file, around;
    if (geteuid() != 0 || fstatat(folder->fd, FOLDER_DEFINITION, &file, 0) < 0 ||
        fstat(folder->fd, &around) < 0)
        return;
    uid_t owner = file.st_uid ? file.st_uid : around.st_uid;
    if (owner == 0)
        return;
    const struct passwd *account = getpwuid(owner);
    char number[24];
    snprintf(number, sizeof(number), "user %u", owner);
    log_warning("%s/" FOLDER_DEFINITION " belongs to %s, and decides which files of this host root "
                "opens",
                folder->name, account ? account->pw_name : number);
}

/*
 * Whether the VM is this folder's to run, as far as that is known. What a copy has brought along is
 * not its own; where a copy keeps its identity nobody could tell it from the VM.
 */
static int check_protection(struct run *run, struct err *err)
{
    struct protection protection;
    bool asks = false;
    int ret = protection_find(&protection, &run->folder, err);
    if (ret == -ENOENT)
        return 0;
    if ((ret == 0 || ret == -ESTALE) && run->loaded->keep_identity) {
        ret = err_say(err, ERR_DEFINITION, EINVAL,
                      "%s is protected, and its \"identity\" is \"keep\": a copy would be taken "
                      "for it",
                      run->folder.name);
        err_hint(err, "take \"identity\" out of %s/" FOLDER_DEFINITION, run->folder.path);
        return ret;
    }
    if (ret == -ESTALE) {
        log_info("%s is not protected: its " FOLDER_PROTECTED " is of another VM, and is removed",
                 run->folder.name);
        return protection_remove(run->folder.fd, err);
    }
    if (ret == 0)
        ret = protection_check(&protection, run->folder.name, &asks, err);
    if (ret == 0 && asks)
        log_err(LOG_WARNING, err); /* it stands still until there is an answer */
    if (ret == 0)
        run->protection = protection;
    return ret;
}

/* Before anybody looks at the disks. Those of a snapshot are not what a journal belongs to. */
static int complete_disks(const struct run *run, struct err *err)
{
    const struct folder *folder = &run->folder;
    return run->snapshot_path ? epoch_journal_remove(folder->fd, err)
                              : hold_complete_disks(folder, err);
}

static int open_folder(struct run *run, struct err *err)
{
    const struct definition_judge judge = {.problem = handle_problem};
    struct news news = {0};
    if (snapshot_is_one(run->words.folder)) {
        int refused = err_say(err, ERR_STATE, EINVAL, "%s is a snapshot, which stays as it is",
                              run->words.folder);
        err_hint(err, "a new VM made of it: minivmm run --from %s NAME", run->words.folder);
        return refused;
    }
    int ret = folder_open(&run->folder, run->words.folder, err);
    if (ret == 0)
        warn_of_foreign_owner(&run->folder);
    if (ret == 0 && snapshot_sum_definition(run->folder.fd, run->definition) < 0)
        run->definition[0] = '\0';
    if (ret == 0)
        ret = definition_load(&run->loaded, run->words.folder, &judge, err);
    if (ret == 0)
        ret = run_files_check(run->loaded, NULL, err);
    if (ret == 0)
        ret = hold_vm(&run->folder, err);
    if (ret == 0 && !run->arrival)
        ret = handover_check(run->folder.fd, run->folder.path, err);
    if (ret == 0 && !run->arrival)
        ret = check_protection(run, err);
    if (ret == 0)
        ret = restoring_check(&run->folder, run->snapshot_path, err);
    if (ret == 0 && !run->arrival)
        ret = complete_disks(run, err);
    if (ret == 0 && run->arrival) {
        arrival_identity(run->arrival, &run->identity);
        return identity_adopt(&run->identity, &run->folder, err);
    }
    if (ret == 0)
        ret = news_settle(&news, &run->identity, &run->folder, run->loaded->keep_identity, err);
    /* It goes on from a past state: whatever its guest has drawn since could be drawn again. */
    if (ret == 0 && run->snapshot_path && news.found != IDENTITY_NEW)
        ret = identity_renew_generation(&run->identity, &run->folder, err);
    if (ret < 0)
        return ret;
    news_tell(&news, &run->identity, &run->folder, run->snapshot_path);
    return 0;
}

/* --- from a snapshot -------------------------------------------------------------------------- */

static int open_snapshot(struct run *run, const char *path, struct err *err)
{
    run->snapshot_path = realpath(path, NULL);
    if (!run->snapshot_path)
        return err_sys(err, ERR_NOT_FOUND, errno, "snapshot %s", path);
    int ret = snapshot_open(&run->snapshot, run->snapshot_path, err);
    if (ret == 0)
        ret = snapshot_verify(&run->snapshot, NULL, err);
    if (ret == 0 && run->snapshot.has_memory)
        ret = snapshot_check_host(&run->snapshot, err);
    return ret;
}

static int mark(struct vm_copy *copy, struct err *err)
{
    return restoring_begin(&copy->making.folder, copy->word, err);
}

/* The VM's folder, with the snapshot's files. */
static int make_vm(struct run *run, struct err *err)
{
    struct vm_copy copy = VM_COPY_INIT;
    copy.word = run->snapshot_path;
    copy.making.path = run->words.folder;
    run->is_new = true;
    making_hold_signals(&copy.making);
    int ret = vm_copy_open(&copy, err);
    if (ret == 0)
        ret = place_find(&copy.making.place, copy.making.path, err);
    if (ret == 0)
        ret = vm_copy_make(&copy, mark, err);
    run->is_made = ret == 0;
    vm_copy_close(&copy);
    making_let_signals(&copy.making);
    return ret;
}

/*
 * Its guest has the MAC and the addresses of the snapshot's VM, until it boots again. Where others
 * would see them twice its cable is out at first.
 */
static int isolate(const struct run *run, struct err *err)
{
    struct machine *machine = instance_machine(run->instance);
    int ret = 0;
    for (unsigned i = 0; i < run->loaded->net_count && ret == 0; i++) {
        enum netif_mode mode = run->loaded->nets[i].mode;
        if (mode != NETIF_TAP && mode != NETIF_BRIDGE)
            continue;
        ret = machine_set_link(machine, i, false, err);
        if (ret == 0)
            log_info("%s has the addresses of the VM that it was made of: net%u is unplugged "
                     "(minivmm set %s --net %u --link up)",
                     run->folder.name, i, run->folder.name, i);
    }
    return ret;
}

/* It is mapped, and needs no name. */
static void remove_cloned_memory(const struct run *run)
{
    const char *name;
    int parent = tree_open_parent(run->folder.fd, RUN_CLONED_MEMORY, false, &name);
    if (parent < 0)
        return;
    (void)!tree_remove(parent, name, NULL);
    close(parent);
    unlinkat(run->folder.fd, FOLDER_SNAPSHOTS, AT_REMOVEDIR);
}

/* Nothing can go wrong any more that another try would not have to begin anew. */
static int begin_from_snapshot(struct run *run, struct err *err)
{
    int ret = run->is_new && run->snapshot.has_memory ? isolate(run, err) : 0;
    if (ret == 0) {
        if (run->is_clone)
            remove_cloned_memory(run);
        restoring_end(&run->folder);
        run->settled = true;
    }
    return ret;
}

/* A disk by itself has no identity but the one that --uuid gives it. */
static int open_image(struct run *run, struct err *err)
{
    const struct run_words *words = &run->words;
    int ret = run_files_check(&words->definition, words->name, err);
    if (ret < 0)
        return ret;
    return identity_make(&run->identity, words->uuid_said ? words->uuid : NULL, err);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* What it stands still for at first; NULL: nothing. */
static const char *awaits(const struct run *run)
{
    if (run->arrival)
        return arrival_follows(run->arrival) ? "a twin" : "arriving";
    bool asks = run->protection.role && run->protection.role != PROTECTION_OFF;
    return asks ? "asking the witness" : NULL;
}

static int create_instance(struct run *run, struct err *err)
{
    const struct run_words *words = &run->words;
    struct ft_part_config ft = {.restore = run->snapshot.has_memory ? &run->snapshot : NULL,
                                .arrival = run->arrival,
                                .protection = run->protection.role ? &run->protection : NULL};
    if (words->folder)
        memcpy(ft.definition, run->definition, sizeof(ft.definition));
    int ret = ft_part_create(&run->part, &ft, err);
    if (ret < 0)
        return ret;
    struct instance_config config = {
        .definition = words->folder ? run->loaded : &words->definition,
        .identity = &run->identity,
        .name = words->folder ? run->folder.name : last_part(words->name),
        .folder = words->folder ? &run->folder : NULL,
        .ephemeral = words->ephemeral,
        .stop_at_reset = words->no_reboot,
        .exit_port = words->exit_port,
        .blank = run->snapshot.has_memory || run->arrival,
        .awaited = awaits(run),
        .absent_disks = run->arrival ? arrival_absent_disks(run->arrival) : 0,
        .part = ft_part_of(run->part),
        .output = handle_output,
        .input_room = handle_input_room,
        .ctx = run,
    };
    return instance_create(&run->instance, &config, err);
}

/* --- the run ---------------------------------------------------------------------------------- */

static int open_terminal(struct run *run, struct err *err)
{
    run->handlers = (struct term_handlers){
        .input = handle_input,
        .quit = handle_quit,
        .detach = handle_detach,
        .send_break = handle_break,
        .ctx = run,
    };
    struct loop *loop = machine_loop(instance_machine(run->instance));
    int ret = term_create(&run->term, loop, &run->handlers, err);
    if (ret == 0)
        tell_size(run);
    return ret;
}

static int run_instance(struct run *run, const sigset_t *signals, struct machine_end *ret_end,
                        struct err *err)
{
    int ret = run->words.from ? open_snapshot(run, run->words.from, err) : 0;
    if (ret == 0 && run->words.from && !run->restores)
        ret = make_vm(run, err);
    if (ret == 0)
        ret = run->words.folder ? open_folder(run, err) : open_image(run, err);
    if (ret == 0)
        ret = create_instance(run, err);
    if (ret == 0 && run->snapshot_path)
        ret = begin_from_snapshot(run, err);
    if (ret == 0)
        ret = watch_signals(run, signals, err);
    if (ret == 0 && run->detached.ready < 0)
        ret = open_terminal(run, err);
    if (ret < 0)
        return ret;
    if (run->words.detach)
        log_info("%s runs in the background (pid %d)",
                 run->words.folder ? run->folder.name : last_part(run->words.name), getpid());
    detach_ready(&run->detached, run->folder.fd, run->words.folder ? FOLDER_LOG : NULL);
    notify_manager("READY=1");
    ret = instance_run(run->instance, ret_end, err);
    notify_manager("STOPPING=1");
    return ret;
}

/* A VM that was made of a snapshot, and never ran: whatever was wrong, the next try begins anew. */
static void unmake_vm(const struct run *run)
{
    struct place place;
    if (place_of(&place, &run->folder, NULL) < 0)
        return;
    (void)!tree_remove(place.parent, place.name, NULL);
    place_close(&place);
}

static void finish(struct run *run)
{
    /* What waited for a twin leaves on other threads, until now. */
    instance_silence(run->instance);
    int output = run->term ? term_output_error(run->term) : 0;
    /* The terminal first: what is printed below must find it as a person expects it. */
    term_destroy(run->term);
    run->term = NULL;
    if (run->instance)
        unwatch_signals(run);
    instance_destroy(run->instance);
    ft_part_destroy(run->part);
    snapshot_close(&run->snapshot);
    free(run->snapshot_path);
    identity_finish(&run->identity);
    definition_destroy(run->loaded);
    if (run->is_made && !run->settled && run->folder.fd >= 0)
        unmake_vm(run);
    folder_close(&run->folder);
    run_words_finish(&run->words);
    if (output < 0 && output != -EPIPE && output != -EIO) /* a reader that left needs no word */
        log_warning("standard output: %s: console output was lost", strerror(-output));
}

/* It is another host's now: as it should be, or as somebody should know. */
static int take_reason(const struct run *run, struct err *err)
{
    const struct err *reason = ft_part_gone(run->part);
    if (!reason || !reason->kind)
        return 0;
    *err = *reason;
    return -ESTALE;
}

static int run_all(struct run *run)
{
    struct err err = {0};
    int code = 0, ret = run->words.detach ? detach_fork(&run->detached, &code, &err) : 0;
    if (ret != 0) {
        run_words_finish(&run->words);
        return ret < 0 ? fail(&err) : code;
    }
    sigset_t signals;
    block_signals(&signals);
    struct machine_end end = {0};
    ret = run_instance(run, &signals, &end, &err);
    if (ret == 0)
        ret = take_reason(run, &err);
    finish(run);
    return ret < 0 ? fail(&err) : report(run, &end);
}

static const struct run beginning = {
    .words.definition = {.cpus = 1, .memory = 512ull << 20},
    .folder = {.fd = -1, .lock = -1},
    .snapshot = {.folder = -1, .memory = -1},
    .detached.ready = -1,
    .signals.fd = -1,
};

int run_from_snapshot(const char *folder, const char *snapshot, bool detach)
{
    struct run run = beginning;
    run.words.folder = folder;
    run.words.from = snapshot;
    run.words.detach = detach;
    run.restores = true;
    return run_all(&run);
}

int run_clone(const char *folder)
{
    char memory[PATH_MAX];
    struct run run = beginning;
    if (snprintf(memory, sizeof(memory), "%s/" RUN_CLONED_MEMORY, folder) >= PATH_MAX)
        return ERR_USAGE;
    run.words.folder = folder;
    run.words.from = memory;
    run.words.detach = run.restores = run.is_new = run.is_made = run.is_clone = true;
    return run_all(&run);
}

/* Standard error is shared with the standby's until the VM has a log. */
int run_arrival(struct arrival *arrival)
{
    struct run run = beginning;
    struct machine_end end = {0};
    struct err err = {0};
    sigset_t signals;
    int words = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    run.words.folder = arrival_folder(arrival);
    run.arrival = arrival;
    block_signals(&signals);
    log_info("%s is coming from %s", run.words.folder, arrival_peer(arrival));
    int ret = open_folder(&run, &err);
    if (ret == 0)
        ret = create_instance(&run, &err);
    if (ret == 0)
        ret = watch_signals(&run, &signals, &err);
    if (ret < 0)
        arrival_refuse(arrival, &err);
    if (ret == 0) {
        detach_log(run.folder.fd, FOLDER_LOG);
        ret = instance_run(run.instance, &end, &err);
    }
    bool come = arrival_has_come(arrival), follows = arrival_follows(arrival);
    if (!come && words >= 0)
        dup2(words, STDERR_FILENO);
    if (ret == 0)
        ret = take_reason(&run, &err);
    if (!come && ret == 0)
        err = *arrival_error(arrival);
    finish(&run);
    arrival_destroy(arrival);
    if (!come && !follows)
        err_prefix(&err, "a VM did not come");
    return ret < 0 || !come ? fail(&err) : report(&run, &end);
}

int verb_run(int argc, char **argv)
{
    struct err err = {0};
    bool help = false;
    struct run run = beginning;
    int ret = run_words_read(&run.words, argc, argv, &help, &err);
    if (ret < 0 || help) {
        run_words_finish(&run.words);
        return help ? run_print_help() : fail(&err);
    }
    if (run.words.force_owner)
        ret = force_owner(run.words.folder, run.words.torn, &err);
    if (ret < 0) {
        run_words_finish(&run.words);
        return fail(&err);
    }
    return run_all(&run);
}
