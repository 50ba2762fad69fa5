/* SPDX-License-Identifier: MIT */
/* minivmm stop, pause, resume, reset and set: one call each to the VM's control socket. */
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * A guest that boots has not asked for the power button yet, and what is pressed then is lost: it
 * is pressed again every so often. To one that shuts down already that is nothing new.
 */
enum { PRESS_AGAIN_S = 5, PRESS_AGAIN_MS = 1000 };

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

/* What becomes of it is seen at the process. */
static void press_again(const struct runtime_info *info)
{
    struct control_client *client;
    if (control_connect(&client, info->control, PRESS_AGAIN_MS, NULL) < 0)
        return;
    if (control_call(client, "stop", NULL, NULL, NULL) < 0)
        log_debug("%s did not take the power button a second time", info->name);
    control_disconnect(client);
}

/* Until the process has ended. */
static int wait_for_end(int process, const struct runtime_info *info, const struct stop *stop,
                        struct err *err)
{
    uint64_t deadline_ns = clock_monotonic_ns() + stop->timeout_s * NS_PER_SEC;
    do {
        uint64_t next_ns = clock_monotonic_ns() + PRESS_AGAIN_S * NS_PER_SEC;
        int r = vm_wait_process(process, next_ns < deadline_ns ? next_ns : deadline_ns, info, err);
        if (r != -ETIMEDOUT)
            return r;
        if (next_ns < deadline_ns && !stop->force)
            press_again(info);
    } while (clock_monotonic_ns() < deadline_ns);
    int ret = err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%s did not power off within %llu s and goes on",
                      info->name, (unsigned long long)stop->timeout_s);
    err_hint(err, "its guest may not listen to the power button; minivmm stop --force ends it "
                  "like a pulled plug");
    return ret;
}

static void say_end(const struct runtime_info *info, const struct stop *stop, const json_t *answer,
                    uint64_t start)
{
    const char *was = json_string_value(json_object_get(answer, "was"));
    double seconds = (double)(clock_monotonic_ns() - start) / NS_PER_SEC;
    if (was)
        log_info("%s has ended here after %.1f s: it was %s, and did not run", info->name, seconds,
                 was);
    else
        log_info("%s %s after %.1f s", info->name, stop->force ? "was ended" : "has stopped",
                 seconds);
}

/* Who ends while he is asked to has done what was wanted: the process tells when he has. */
static int stop_process(int process, const struct runtime_info *info, const struct stop *stop,
                        struct err *err)
{
    struct control_client *client;
    json_t *answer = NULL;
    uint64_t start = clock_monotonic_ns();
    int ret = vm_connect_to(info, VM_ANSWER_MS, &client, err);
    if (ret == 0) {
        ret = control_call(client, "stop", json_pack("{sb}", "force", (int)stop->force), &answer,
                           err);
        control_disconnect(client);
        if (ret < 0 && ret != -EPIPE && ret != -EREMOTEIO)
            err_prefix(err, "%s", info->name);
    }
    if (ret == 0 || ret == -EPIPE)
        ret = wait_for_end(process, info, stop, err);
    if (ret == 0)
        say_end(info, stop, answer, start);
    json_decref(answer);
    return ret;
}

static int stop_one(const char *word, const void *ctx, struct err *err)
{
    struct runtime_info info;
    int ret = runtime_find(word, &info, err);
    if (ret < 0)
        return ret;
    ret = vm_open_process(&info, err);
    if (ret == -ESRCH) {
        log_info("%s has stopped", info.name); /* just now */
        ret = 0;
    } else if (ret >= 0) {
        int process = ret;
        ret = stop_process(process, &info, ctx, err);
        close(process);
    }
    runtime_info_finish(&info);
    return ret;
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
                                           "ended. A guest that boots may not\n"
                                           "feel it yet: it is pressed again every 5 "
                                           "seconds.\n",
                               .take = take_stop_option,
                               .ctx = &stop,
                               .least = 1,
                               .most = 64,
                               .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return verb_words_each(&words, stop_one, &stop);
}

/* What was asked for is so. Where it runs, at least. */
static void warn_of_twin(const char *word, const json_t *answer)
{
    if (json_is_false(json_object_get(answer, "twin")))
        log_warning("%s: this is so here, and its twin has not heard of it as yet: if it took over "
                    "now the VM would go on as it was before. minivmm status %s says more",
                    word, word);
}

/* --- pause, resume, reset --------------------------------------------------------------------- */

struct plain {
    const char *verb, *done; /* "pause", "is paused" */
};

static int act_plainly(const char *word, const void *ctx, struct err *err)
{
    const struct plain *plain = ctx;
    json_t *answer = NULL;
    int ret = vm_call(word, plain->verb, NULL, &answer, err);
    if (ret == 0) {
        log_info("%s %s", word, plain->done);
        warn_of_twin(word, answer);
    }
    json_decref(answer);
    return ret;
}

int verb_pause(int argc, char **argv)
{
    static const struct plain plain = {"pause", "is paused"};
    return verb_plain(plain.verb,
                      "Example:\n"
                      "  minivmm pause web1\n"
                      "\n"
                      "Usage: minivmm pause VM...\n"
                      "\n"
                      "The guest stands still, in memory, until minivmm resume.\n",
                      act_plainly, &plain, argc, argv);
}

int verb_resume(int argc, char **argv)
{
    static const struct plain plain = {"resume", "goes on"};
    return verb_plain(plain.verb,
                      "Example:\n"
                      "  minivmm resume web1\n"
                      "\n"
                      "Usage: minivmm resume VM...\n"
                      "\n"
                      "A paused guest goes on.\n",
                      act_plainly, &plain, argc, argv);
}

int verb_reset(int argc, char **argv)
{
    static const struct plain plain = {"reset", "was reset"};
    return verb_plain(plain.verb,
                      "Example:\n"
                      "  minivmm reset web1\n"
                      "\n"
                      "Usage: minivmm reset VM...\n"
                      "\n"
                      "The reset button: the guest is not asked, and boots anew.\n",
                      act_plainly, &plain, argc, argv);
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

/* What cannot mean anything is said before a VM is looked for. */
static int check_set(const struct set *set, struct err *err)
{
    bool disk = json_object_get(set->arguments, "disk"),
         net = json_object_get(set->arguments, "net"),
         balloon = json_object_get(set->arguments, "balloon");
    bool link = json_object_get(set->arguments, "link");
    bool change = link || json_object_size(set->limits) > 0;
    int ret = 0;
    if (!disk && !net && !balloon && !change)
        ret = err_say(err, ERR_USAGE, EINVAL, "set: nothing to change was said");
    else if (disk + net + balloon > 1)
        ret = err_say(err, ERR_USAGE, EINVAL, "set: one of --balloon, --disk and --net at a time");
    else if (change && !disk && !net)
        ret = err_say(err, ERR_USAGE, EINVAL, "set: of which %s?",
                      link || json_object_get(set->limits, "packets") ? "--net"
                      : json_object_get(set->limits, "iops")          ? "--disk"
                                                                      : "--disk, or --net");
    else if ((disk || net) && !change)
        ret = err_say(err, ERR_USAGE, EINVAL, "set: nothing to change was said of this %s",
                      disk ? "disk" : "interface");
    if (ret < 0)
        err_hint(err, "minivmm set --help shows how");
    return ret;
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
    json_t *answer = NULL;
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
    if (ret == 0)
        ret = check_set(&set, &err);
    if (ret == 0 && json_object_size(set.limits) > 0)
        json_object_set(set.arguments, "limits", set.limits);
    if (ret == 0)
        ret = vm_call(words.words[0], "set", json_incref(set.arguments), &answer, &err);
    if (ret == 0)
        warn_of_twin(words.words[0], answer);
    json_decref(answer);
    json_decref(set.arguments);
    json_decref(set.limits);
    return ret < 0 ? fail(&err) : 0;
}
