/* SPDX-License-Identifier: MIT */
/* minivmm stop, pause, resume, reset and set: one call each to the VM's control socket. */
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- stop ------------------------------------------------------------------------------------- */

enum { STOP_TIMEOUT, STOP_FORCE, STOP_HELP };

struct stop {
    uint64_t timeout_s;
    bool force;
};

static int take_stop_option(void *ctx, int what, const char *value, struct err *err)
{
    struct stop *stop = ctx;
    if (what == STOP_TIMEOUT)
        return parse_number(value, "--timeout", 1, 1000000, &stop->timeout_s, err);
    stop->force |= what == STOP_FORCE;
    return 0;
}

/* Until the process has ended: then its folder and disks are free again. */
static int wait_for_end(int process, const char *name, uint64_t timeout_s, struct err *err)
{
    struct pollfd poll_fd = {.fd = process, .events = POLLIN};
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_s * NS_PER_SEC;
    for (;;) {
        uint64_t now = clock_monotonic_ns();
        int left_ms = now < deadline_ns ? (int)((deadline_ns - now) / 1000000 + 1) : 0;
        int ready = poll(&poll_fd, 1, left_ms);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return err_sys(err, ERR_HOST, errno, "cannot wait for %s", name);
        if (ready == 0 && left_ms == 0)
            break;
    }
    int ret = err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%s did not power off within %llu s and goes on",
                      name, (unsigned long long)timeout_s);
    err_hint(err, "its guest may not listen to the power button; minivmm stop --force ends it "
                  "like a pulled plug");
    return ret;
}

static int stop_connected(struct control_client *client, const struct runtime_info *info,
                          const struct stop *stop, struct err *err)
{
    uint64_t start = clock_monotonic_ns();
    /* The connection stands, so the number is still this process's. */
    int process = (int)syscall(SYS_pidfd_open, (pid_t)info->pid, 0);
    if (process < 0)
        return err_sys(err, ERR_HOST, errno, "cannot wait for %s (pid %lld)", info->name,
                       (long long)info->pid);
    int ret = control_call(client, "stop", json_pack("{sb}", "force", (int)stop->force), NULL, err);
    if (ret == 0)
        ret = wait_for_end(process, info->name, stop->timeout_s, err);
    if (ret == 0)
        log_info("%s %s after %.1f s", info->name, stop->force ? "was ended" : "has stopped",
                 (double)(clock_monotonic_ns() - start) / NS_PER_SEC);
    close(process);
    return ret;
}

static int stop_one(const char *word, const void *ctx, struct err *err)
{
    struct control_client *client;
    struct runtime_info info;
    int ret = vm_connect(word, &client, &info, err);
    if (ret < 0)
        return ret;
    ret = stop_connected(client, &info, ctx, err);
    control_disconnect(client);
    runtime_info_finish(&info);
    return ret;
}

/* All of them, whatever becomes of one; the first error is the exit code. */
static int for_each(const struct verb_words *words,
                    int (*act)(const char *word, const void *ctx, struct err *err), const void *ctx)
{
    int code = 0;
    for (size_t i = 0; i < words->word_count; i++) {
        struct err err = {0};
        if (act(words->words[i], ctx, &err) < 0) {
            int failed = fail(&err);
            code = code ? code : failed;
        }
    }
    return code;
}

int verb_stop(int argc, char **argv)
{
    static const struct option table[] = {
        [STOP_TIMEOUT] = {"timeout", 't', "SECONDS", "how long the guest may take (60)"},
        [STOP_FORCE] = {"force", 'f', NULL, "at once, like a pulled plug"},
        [STOP_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct stop stop = {.timeout_s = 60};
    struct err err = {0};
    struct verb_words words = {.verb = "stop",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm stop web1\n"
                                           "  minivmm stop web1 --timeout 300\n"
                                           "\n"
                                           "Usage: minivmm stop VM... [OPTION...]\n"
                                           "\n"
                                           "Presses the power button and waits until the VM has "
                                           "ended.\n",
                               .take = take_stop_option,
                               .ctx = &stop,
                               .least = 1,
                               .most = 64,
                               .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return for_each(&words, stop_one, &stop);
}

/* --- pause, resume, reset --------------------------------------------------------------------- */

struct plain {
    const char *verb, *done; /* "pause", "is paused" */
};

static int act_plainly(const char *word, const void *ctx, struct err *err)
{
    const struct plain *plain = ctx;
    int ret = vm_call(word, plain->verb, NULL, NULL, err);
    if (ret == 0)
        log_info("%s %s", word, plain->done);
    return ret;
}

static int plain_verb(const struct plain *plain, const char *examples, int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct verb_words words = {.verb = plain->verb,
                               .table = table,
                               .count = array_size(table),
                               .examples = examples,
                               .least = 1,
                               .most = 64,
                               .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return for_each(&words, act_plainly, plain);
}

int verb_pause(int argc, char **argv)
{
    static const struct plain plain = {"pause", "is paused"};
    return plain_verb(&plain,
                      "Example:\n"
                      "  minivmm pause web1\n"
                      "\n"
                      "Usage: minivmm pause VM...\n"
                      "\n"
                      "The guest stands still, in memory, until minivmm resume.\n",
                      argc, argv);
}

int verb_resume(int argc, char **argv)
{
    static const struct plain plain = {"resume", "goes on"};
    return plain_verb(&plain,
                      "Example:\n"
                      "  minivmm resume web1\n"
                      "\n"
                      "Usage: minivmm resume VM...\n"
                      "\n"
                      "A paused guest goes on.\n",
                      argc, argv);
}

int verb_reset(int argc, char **argv)
{
    static const struct plain plain = {"reset", "was reset"};
    return plain_verb(&plain,
                      "Example:\n"
                      "  minivmm reset web1\n"
                      "\n"
                      "Usage: minivmm reset VM...\n"
                      "\n"
                      "The reset button: the guest is not asked, and boots anew.\n",
                      argc, argv);
}

/* --- set -------------------------------------------------------------------------------------- */

enum { SET_BALLOON, SET_DISK, SET_NET, SET_LINK, SET_IOPS, SET_PACKETS, SET_BANDWIDTH, SET_HELP };

struct set {
    json_t *arguments, *limits;
};

static int put(json_t *object, const char *key, uint64_t number, struct err *err)
{
    if (json_object_set_new(object, key, json_integer((json_int_t)number)) < 0)
        return err_sys(err, ERR_HOST, ENOMEM, "set");
    return 0;
}

static int take_set_option(void *ctx, int what, const char *value, struct err *err)
{
    struct set *set = ctx;
    uint64_t number = 0;
    int ret = 0;
    switch (what) {
    case SET_BALLOON:
        ret = parse_size(value, "--balloon", &number, err);
        return ret < 0 ? ret : put(set->arguments, "balloon", number, err);
    case SET_DISK:
        ret = parse_number(value, "--disk", 0, 1000, &number, err);
        return ret < 0 ? ret : put(set->arguments, "disk", number, err);
    case SET_NET:
        ret = parse_number(value, "--net", 0, 1000, &number, err);
        return ret < 0 ? ret : put(set->arguments, "net", number, err);
    case SET_LINK:
        if (strcmp(value, "up") != 0 && strcmp(value, "down") != 0)
            return err_say(err, ERR_USAGE, EINVAL, "--link is up or down, not %s", value);
        json_object_set_new(set->arguments, "link", json_string(value));
        return 0;
    case SET_IOPS:
        ret = parse_number(value, "--iops", 0, UINT32_MAX, &number, err);
        return ret < 0 ? ret : put(set->limits, "iops", number, err);
    case SET_PACKETS:
        ret = parse_number(value, "--packets", 0, UINT32_MAX, &number, err);
        return ret < 0 ? ret : put(set->limits, "packets", number, err);
    case SET_BANDWIDTH:
        if (strcmp(value, "0") != 0)
            ret = parse_size(value, "--bandwidth", &number, err);
        return ret < 0 ? ret : put(set->limits, "bandwidth", number, err);
    default:
        return 0;
    }
}

int verb_set(int argc, char **argv)
{
    static const struct option table[] = {
        [SET_BALLOON] = {"balloon", 0, "SIZE", "memory that the guest shall do without"},
        [SET_DISK] = {"disk", 0, "N", "the disk that the limits are for, as status counts them"},
        [SET_NET] = {"net", 0, "N", "the network interface that the others are for"},
        [SET_LINK] = {"link", 0, "up|down", "its cable"},
        [SET_IOPS] = {"iops", 0, "N", "operations of a disk in a second (0: no limit)"},
        [SET_PACKETS] = {"packets", 0, "N", "frames of an interface in a second (0: no limit)"},
        [SET_BANDWIDTH] = {"bandwidth", 0, "SIZE", "bytes in a second (0: no limit)"},
        [SET_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct set set = {.arguments = json_object(), .limits = json_object()};
    struct err err = {0};
    struct verb_words words = {.verb = "set",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm set web1 --balloon 512M\n"
                                           "  minivmm set web1 --net 0 --link down\n"
                                           "  minivmm set web1 --disk 0 --iops 500 --bandwidth "
                                           "50M\n"
                                           "\n"
                                           "Usage: minivmm set VM OPTION...\n"
                                           "\n"
                                           "Changes a VM while it runs, until it ends: vm.json "
                                           "stays as it is.\n",
                               .take = take_set_option,
                               .ctx = &set,
                               .least = 1,
                               .most = 1,
                               .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret == 0 && json_object_size(set.limits) > 0)
        json_object_set(set.arguments, "limits", set.limits);
    if (ret == 0)
        ret = vm_call(words.words[0], "set", json_incref(set.arguments), NULL, &err);
    json_decref(set.arguments);
    json_decref(set.limits);
    return ret < 0 ? fail(&err) : 0;
}
