/* SPDX-License-Identifier: MIT */
/*
 * minivmm standby: waits for VMs that come from other hosts, and runs them, each in a process of
 * its own that outlives this one.
 */
#include "cli/run.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "ft/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Who is coming has shown no key as yet, and may be anybody; who has come is a VM of this host. */
enum { MOST_COMING = 64, MOST_CHILDREN = 1024, HANDSHAKE_MS = 10000, MOST_SOCKETS = 2 };

struct standby {
    const char *listen[MOST_SOCKETS], *key_path;
    bool insecure;
    struct link_key key;
    struct key_finder finder;
    char *path; /* of the folder */
    int place, sockets[MOST_SOCKETS], signals;
    unsigned listens;  /* at so many addresses */
    unsigned children; /* alive, whatever has become of them */
    /* Of each that is coming: its end closes when it has come, or does not. */
    int coming[MOST_COMING];
    unsigned coming_count;
};

static struct arrival_config config_of(struct standby *standby)
{
    bool keyed = standby->key_path;
    return (struct arrival_config){.link = {.key = keyed ? &standby->key : NULL,
                                            .keys = keyed ? NULL : &standby->finder.keys,
                                            .insecure = standby->insecure,
                                            .timeout_ms = HANDSHAKE_MS},
                                   .key_path = standby->key_path,
                                   .finder = keyed ? NULL : &standby->finder,
                                   .place = standby->place,
                                   .path = standby->path};
}

/* In a process of its own; `coming` is closed when it is no longer a stranger. */
static int receive(struct standby *standby, int socket, int coming)
{
    const struct arrival_config config = config_of(standby);
    struct arrival *arrival;
    struct err err = {0};
    int ret = arrival_accept(&arrival, socket, &config, &err);
    close(coming);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return run_arrival(arrival);
}

/* What the standby has, and a VM of its own must not. */
static void leave(struct standby *standby)
{
    sigset_t none;
    for (unsigned i = 0; i < standby->listens; i++)
        close(standby->sockets[i]);
    for (unsigned i = 0; i < standby->coming_count; i++)
        close(standby->coming[i]);
    close(standby->signals);
    setsid(); /* what ends the standby does not end its VMs */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* False: there is no place for it. */
static bool has_room(const struct standby *standby)
{
    if (standby->coming_count >= MOST_COMING)
        log_warning("more than %d VMs come at once: one is turned away", MOST_COMING);
    else if (standby->children >= MOST_CHILDREN)
        log_warning("%d VMs have come here already: one is turned away", MOST_CHILDREN);
    else
        return true;
    return false;
}

static void take_in(struct standby *standby, int listener)
{
    int ends[2], socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (socket < 0)
        return;
    if (!has_room(standby)) {
        close(socket);
        return;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        log_error("cannot take a VM in: %s", strerror(errno));
        close(socket);
        return;
    }
    pid_t child = fork();
    if (child < 0)
        log_error("cannot take a VM in: %s", strerror(errno));
    if (child == 0) {
        leave(standby);
        close(ends[0]);
        _exit(receive(standby, socket, ends[1]));
    }
    close(socket);
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return;
    }
    standby->children++;
    standby->coming[standby->coming_count++] = ends[0];
}

/* True: it is to end. */
static bool hear_signal(struct standby *standby)
{
    struct signalfd_siginfo info;
    if (read(standby->signals, &info, sizeof(info)) != sizeof(info))
        return false;
    if (info.ssi_signo != SIGCHLD)
        return true;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        standby->children--;
    return false;
}

/* Of those that were polled, the last first: in the place of one that goes comes the last one. */
static void let_go(struct standby *standby, const struct pollfd *polled, unsigned count)
{
    for (unsigned i = count; i-- > 0;)
        if (polled[i].revents) {
            close(standby->coming[i]);
            standby->coming[i] = standby->coming[--standby->coming_count];
        }
}

static int wait_for_vms(struct standby *standby, struct err *err)
{
    enum { SIGNALS = MOST_SOCKETS, COMING };
    log_info("VMs may come to %s, at %s%s%s", standby->path, standby->listen[0],
             standby->listens > 1 ? " and " : "", standby->listens > 1 ? standby->listen[1] : "");
    for (;;) {
        struct pollfd polled[COMING + MOST_COMING] = {{.fd = standby->sockets[0], .events = POLLIN},
                                                      {.fd = standby->sockets[1], .events = POLLIN},
                                                      {.fd = standby->signals, .events = POLLIN}};
        unsigned coming = standby->coming_count;
        for (unsigned i = 0; i < coming; i++)
            polled[COMING + i] = (struct pollfd){.fd = standby->coming[i], .events = POLLIN};
        if (poll(polled, COMING + coming, -1) < 0) {
            if (errno != EINTR)
                return err_sys(err, ERR_HOST, errno, "cannot wait for VMs");
            continue;
        }
        if (polled[SIGNALS].revents && hear_signal(standby))
            return 0;
        let_go(standby, polled + COMING, coming);
        for (unsigned i = 0; i < MOST_SOCKETS; i++)
            if (polled[i].revents)
                take_in(standby, standby->sockets[i]);
    }
}

/* Then no paired host can come; this one itself can. */
static void warn_of_keys(void)
{
    struct err err = {0};
    int store = key_store_open(false, &err);
    if (store >= 0)
        close(store);
    else if (store != -ENOENT)
        log_err(LOG_WARNING, &err);
}

/* It is not made here: a file system that is not mounted just now looks like this, too. */
static int say_no_folder(const char *folder, int error, struct err *err)
{
    int ret = err_sys(err, error == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, error, "folder %s",
                      folder);
    if (error == ENOENT)
        err_hint(err, "mkdir -p %s; first mount what it is to lie on, if that is not mounted",
                 folder);
    return ret;
}

static int open_all(struct standby *standby, const char *folder, struct err *err)
{
    sigset_t set;
    standby->path = realpath(folder, NULL);
    if (standby->path)
        standby->place = open(standby->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (standby->place < 0)
        return say_no_folder(folder, errno, err);
    int ret = standby->key_path ? link_key_read(&standby->key, standby->key_path, err) : 0;
    key_finder_init(&standby->finder);
    if (!standby->key_path)
        warn_of_keys();
    for (unsigned i = 0; i < standby->listens && ret == 0; i++) {
        ret = link_listen(&standby->sockets[i], standby->listen[i], err);
        if (ret == 0)
            fcntl(standby->sockets[i], F_SETFL, O_NONBLOCK);
    }
    if (ret < 0)
        return ret;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGCHLD, SIG_DFL); /* where it is ignored nobody says who has ended */
    standby->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return standby->signals < 0 ? err_sys(err, ERR_HOST, errno, "cannot watch signals") : 0;
}

enum { STANDBY_LISTEN, STANDBY_KEY, STANDBY_INSECURE, STANDBY_HELP };

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    struct standby *standby = ctx;
    if (what == STANDBY_LISTEN && standby->listens == MOST_SOCKETS)
        return err_say(err, ERR_USAGE, EINVAL, "--listen: two addresses at most; :PORT is all");
    if (what == STANDBY_LISTEN)
        standby->listen[standby->listens++] = value;
    else if (what == STANDBY_KEY)
        standby->key_path = value;
    else if (what == STANDBY_INSECURE)
        standby->insecure = true;
    return 0;
}

int verb_standby(int argc, char **argv)
{
    static const struct option table[] = {
        [STANDBY_LISTEN] = {"listen", 0, "ADDRESS:PORT",
                            "where (every address, port 7420); one or two"},
        [STANDBY_KEY] = {"key", 0, "FILE", "this key, and not those of minivmm pair"},
        [STANDBY_INSECURE] =
            {"insecure", 0, NULL,
             "also without a key, from anybody who can connect, on other hosts too"},
        [STANDBY_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    struct standby standby = {.listen = {":7420"}, .place = -1, .sockets = {-1, -1}, .signals = -1};
    struct verb_words words = {
        .verb = "standby",
        .table = table,
        .count = array_size(table),
        .examples =
            "Examples:\n"
            "  minivmm standby /srv/vms\n"
            "  minivmm standby . --listen 127.0.0.1:7420\n"
            "\n"
            "Usage: minivmm standby FOLDER [OPTION...]\n"
            "\n"
            "Waits for VMs that minivmm migrate sends here, and for those that are to have "
            "their twin here\n"
            "(minivmm protect), from hosts that this one is paired with (minivmm pair), and "
            "from this one itself.\n"
            "Each gets a folder in FOLDER, and runs in the background, "
            "also when this ends.\n",
        .take = take_option,
        .ctx = &standby,
        .least = 1,
        .most = 1,
        .missing = "in which folder shall VMs come to live?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    if (standby.listens == 0)
        standby.listens = 1;
    ret = open_all(&standby, words.words[0], &err);
    if (ret == 0)
        ret = wait_for_vms(&standby, &err);
    free(standby.path);
    return ret < 0 ? fail(&err) : 0;
}
