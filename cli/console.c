/* SPDX-License-Identifier: MIT */
/* minivmm console: a terminal at the console of a VM that runs. */
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "host/term.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct attached {
    struct loop *loop;
    struct term *term;
    struct loop_io socket, signals;
    bool left; /* by the person; else the VM has ended */
    /* "~." at the beginning of a line leaves, too, as in ssh. */
    bool line_begins, tilde;
};

static void handle_output(void *arg, unsigned events)
{
    struct attached *attached = arg;
    uint8_t bytes[16384];
    ssize_t got = read(attached->socket.fd, bytes, sizeof(bytes));
    if (got > 0)
        term_write(attached->term, bytes, (size_t)got);
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        loop_stop(attached->loop);
    if (events & LOOP_WRITE) {
        loop_io_watch(attached->loop, &attached->socket, LOOP_READ);
        term_input_room(attached->term);
    }
}

static void handle_leave(void *ctx)
{
    struct attached *attached = ctx;
    attached->left = true;
    loop_stop(attached->loop);
}

/* False: nothing of it is the guest's, or it cannot be taken now. */
static bool pass_on(struct attached *attached, const uint8_t *bytes, size_t length)
{
    if (send(attached->socket.fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length)
        return true;
    loop_io_watch(attached->loop, &attached->socket, LOOP_READ | LOOP_WRITE);
    return false;
}

/* "~" waits for what follows: "." leaves, another "~" is one of them, all else goes with it. */
static bool take_after_tilde(struct attached *attached, uint8_t byte)
{
    const uint8_t both[] = {'~', byte};
    if (byte == '.') {
        handle_leave(attached);
        return true;
    }
    return pass_on(attached, both, byte == '~' ? 1 : 2);
}

static size_t handle_input(void *ctx, const uint8_t *bytes, size_t length)
{
    struct attached *attached = ctx;
    size_t taken = 0;
    for (; taken < length && !attached->left; taken++) {
        uint8_t byte = bytes[taken];
        if (attached->tilde) {
            if (!take_after_tilde(attached, byte))
                break;
            attached->tilde = false;
        } else if (byte == '~' && attached->line_begins) {
            attached->tilde = true;
        } else if (!pass_on(attached, &byte, 1)) {
            break;
        }
        attached->line_begins = byte == '\r' || byte == '\n';
    }
    return taken;
}

static void handle_break(void *ctx)
{
    static const char text[] =
        "\r\n[minivmm: a break is sent where the VM runs in the foreground]\r\n";
    struct attached *attached = ctx;
    term_write(attached->term, (const uint8_t *)text, sizeof(text) - 1);
}

/* --- signals ---------------------------------------------------------------------------------- */

/* What ends the program restores the terminal first: it leaves, as Ctrl-a d does. */
static void handle_signal(void *arg, unsigned events)
{
    struct attached *attached = arg;
    struct signalfd_siginfo info;
    if (read(attached->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCONT)
        term_renew(attached->term);
    else
        handle_leave(attached);
}

/* Before the terminal is touched, and before any thread starts. */
static int watch_signals(struct attached *attached, struct err *err)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCONT};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < array_size(ours); i++)
        sigaddset(&set, ours[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    attached->signals = (struct loop_io){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                                         .events = LOOP_READ,
                                         .handle = handle_signal,
                                         .arg = attached};
    if (attached->signals.fd < 0)
        return err_sys(err, ERR_HOST, errno, "cannot watch signals");
    return loop_io_add(attached->loop, &attached->signals, err);
}

/* --- being there ------------------------------------------------------------------------------ */

static int attach(struct attached *attached, const char *name, int fd, const void *early,
                  size_t length, struct err *err)
{
    const struct term_handlers handlers = {.input = handle_input,
                                           .quit = handle_leave,
                                           .detach = handle_leave,
                                           .send_break = handle_break,
                                           .ctx = attached};
    attached->socket = (struct loop_io){
        .fd = fd, .events = LOOP_READ, .handle = handle_output, .arg = attached};
    int ret = loop_create(&attached->loop, err);
    if (ret == 0)
        ret = watch_signals(attached, err);
    if (ret == 0)
        ret = term_create(&attached->term, attached->loop, &handlers, err);
    if (ret == 0)
        ret = loop_io_add(attached->loop, &attached->socket, err);
    if (ret < 0)
        return ret;
    /* Not before the terminal is the guest's: who reads this may type at once. */
    log_info("attached to %s; Ctrl-a d or ~. leaves", name);
    term_write(attached->term, early, length);
    ret = loop_run(attached->loop);
    loop_io_remove(attached->loop, &attached->socket);
    loop_io_remove(attached->loop, &attached->signals);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "the console failed") : 0;
}

static json_t *terminal_size(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
        return json_object();
    return json_pack("{si, si}", "columns", (int)size.ws_col, "rows", (int)size.ws_row);
}

static int run_console(const char *word, struct err *err)
{
    struct control_client *client;
    struct runtime_info info;
    struct attached attached = {.line_begins = true, .signals.fd = -1};
    int ret = vm_connect(word, &client, &info, err);
    if (ret < 0)
        return ret;
    ret = control_call(client, "console", terminal_size(), NULL, err);
    if (ret < 0) {
        control_disconnect(client);
        runtime_info_finish(&info);
        return ret;
    }
    void *early;
    size_t length;
    int fd = control_release(client, &early, &length);
    if (fd < 0) {
        control_disconnect(client);
        runtime_info_finish(&info);
        return err_sys(err, ERR_HOST, -fd, "the console failed");
    }
    ret = attach(&attached, info.name, fd, early, length, err);
    term_destroy(attached.term);
    if (attached.signals.fd >= 0)
        close(attached.signals.fd);
    loop_destroy(attached.loop);
    close(fd);
    free(early);
    if (ret == 0)
        log_info(attached.left ? "%s goes on" : "%s has ended", info.name);
    runtime_info_finish(&info);
    return ret;
}

int verb_console(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct verb_words words = {
        .verb = "console",
        .table = table,
        .count = array_size(table),
        .examples = "Example:\n"
                    "  minivmm console web1\n"
                    "\n"
                    "Usage: minivmm console VM\n"
                    "\n"
                    "Shows what the console has said lately, and then "
                    "what it says; keys go to the guest.\n"
                    "Ctrl-a d, or ~. at the beginning of a line, leaves, and the VM goes on.\n"
                    "Without a terminal every byte goes to the guest; at the end of the input the "
                    "output is still\n"
                    "shown, until the VM ends or a signal comes (timeout 10 minivmm console "
                    "web1).\n",
        .least = 1,
        .most = 1,
        .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return run_console(words.words[0], &err) < 0 ? fail(&err) : 0;
}
