/* SPDX-License-Identifier: MIT */
/* minivmm protect and unprotect, and switchover of VMs that are named: a VM that survives the death
 * of its host. */
#include "cli/progress.h"
#include "cli/protection_text.h"
#include "cli/said.h"
#include "cli/switch_all.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/words.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The witness and the other host may take their time; each word of the VM's renews it. */
enum { PATIENCE_MS = 120000 };

struct call {
    const char *word, *verb;
    bool departs; /* the VM, where all goes well */
    json_t *arguments;
    struct progress progress;
    char storing[300]; /* what it is called while nothing leaves */
    uint64_t bytes;    /* that have gone over, as far as was told */
};

static bool handle_event(void *ctx, const json_t *event)
{
    struct call *call = ctx;
    if (strcmp(said_text(event, "event"), "protect-progress") == 0)
        call->bytes = (uint64_t)json_integer_value(json_object_get(event, "done"));
    call->progress.what = json_is_true(json_object_get(event, "storing")) ? call->storing
                                                                          : call->word;
    vm_show_progress(event, "protect-progress", &call->progress);
    return true;
}

/* A question that takes as long as it takes: for as long as something is heard of it. */
static int ask(struct call *call, json_t **ret_answer, struct err *err)
{
    struct control_client *client;
    struct runtime_info info;
    int ret = runtime_find(call->word, &info, err);
    if (ret < 0)
        return ret;
    int process = call->departs ? vm_open_process(&info, NULL) : -1;
    ret = vm_connect_to(&info, PATIENCE_MS, &client, err);
    if (ret == 0) {
        control_hear(client, handle_event, call);
        ret = control_call(client, "watch", NULL, NULL, err);
        progress_begin(&call->progress, call->word);
        snprintf(call->storing, sizeof(call->storing), "%s: its twin's disks take what was sent",
                 call->word);
        if (ret == 0)
            ret = control_call(client, call->verb, json_incref(call->arguments), ret_answer, err);
        progress_end(&call->progress);
        control_disconnect(client);
    }
    if (ret == -ETIMEDOUT)
        err_hint(err, "minivmm status %s says how it stands", call->word);
    vm_see_off(process, &info, ret == 0);
    runtime_info_finish(&info);
    return ret;
}

/* --- protect ---------------------------------------------------------------------------------- */

enum {
    PROTECT_TO,
    PROTECT_WITNESS,
    PROTECT_KEY,
    PROTECT_INSECURE,
    PROTECT_LEVEL,
    PROTECT_BACK,
    PROTECT_VERIFY,
    PROTECT_HELP
};

/* As it is called, and not where symbolic links lead: the other host looks under this name, too. */
static int put_witness(json_t *arguments, const char *witness, struct err *err)
{
    static const char file[] = "file:";
    const char *path = witness + strlen(file);
    char here[PATH_MAX];
    if (strncmp(witness, file, strlen(file)) != 0 || !*path || *path == '/') {
        json_object_set_new(arguments, "witness", json_string(witness));
        return 0;
    }
    if (access(path, F_OK) < 0 || !getcwd(here, sizeof(here)))
        return err_sys(err, ERR_NOT_FOUND, errno, "witness %s", path);
    json_object_set_new(arguments, "witness", json_sprintf("%s%s/%s", file, here, path));
    return 0;
}

static int put_level(json_t *arguments, const char *level, struct err *err)
{
    static const char *const levels[] = {"memory", "durable", NULL};
    for (const char *const *known = levels; *known; known++)
        if (strcmp(level, *known) == 0) {
            json_object_set_new(arguments, "level", json_string(level));
            return 0;
        }
    int ret = err_say(err, ERR_USAGE, EINVAL, "--level: %s is neither memory nor durable", level);
    const char *nearest = words_nearest(levels, level);
    if (nearest)
        err_hint(err, "did you mean --level %s?", nearest);
    return ret;
}

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    json_t *arguments = ctx;
    switch (what) {
    case PROTECT_TO:
        json_object_set_new(arguments, "to", json_string(value));
        return 0;
    case PROTECT_WITNESS:
        return put_witness(arguments, value, err);
    case PROTECT_KEY:
        return vm_put_key(arguments, value, err);
    case PROTECT_INSECURE:
        json_object_set_new(arguments, "insecure", json_true());
        return 0;
    case PROTECT_LEVEL:
        return put_level(arguments, value, err);
    case PROTECT_BACK:
        json_object_set_new(arguments, "back", json_string(value));
        return 0;
    case PROTECT_VERIFY:
        json_object_set_new(arguments, "verify", json_true());
        return 0;
    default:
        return 0;
    }
}

static int protect(struct call *call, struct err *err)
{
    uint64_t begin = clock_monotonic_ns();
    char text[PROTECTION_LINE];
    json_t *answer = NULL;
    int ret = ask(call, &answer, err);
    if (ret == 0) {
        double seconds = (double)(clock_monotonic_ns() - begin) / NS_PER_SEC;
        protection_sum_up(text, sizeof(text), call->word, answer, call->bytes, seconds);
        log_info("%s", text);
    }
    json_decref(answer);
    return ret;
}

int verb_protect(int argc, char **argv)
{
    static const struct option table[] = {
        [PROTECT_TO] = {"to", 0, "HOST[:PORT]",
                        "where its twin shall be (\"peer\" in vm.json); or HOST,HOST"},
        [PROTECT_WITNESS] =
            {"witness", 0, "file:PATH",
             "a folder that both hosts see, or etcd://HOST,... (\"witness\" in vm.json)"},
        [PROTECT_KEY] = {"key", 0, "FILE", "this key, and not that of minivmm pair"},
        [PROTECT_INSECURE] = {"insecure", 0, NULL,
                              "without a key, though others can read and change what is sent"},
        [PROTECT_LEVEL] = {"level", 0, "memory|durable",
                           "where the twin must have what may leave: in memory, or on its disk"},
        [PROTECT_BACK] = {"back", 0, "HOST:PORT",
                          "where a standby waits here, for the way back (this host, 7420)"},
        [PROTECT_VERIFY] = {"verify", 0, NULL,
                            "compare its memory and disks with the twin's in each epoch (slow)"},
        [PROTECT_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    struct call call = {.verb = "protect", .arguments = json_object()};
    struct verb_words words = {
        .verb = "protect",
        .table = table,
        .count = array_size(table),
        .examples = "Examples:\n"
                    "  minivmm protect web1 --to hostB --witness file:/nfs/witness\n"
                    "  minivmm protect web1\n"
                    "\n"
                    "Usage: minivmm protect VM [OPTION...]\n"
                    "\n"
                    "A twin follows the VM at another host, where minivmm standby waits, and goes "
                    "on with it when\n"
                    "this host dies: nothing that the VM has said to anybody is lost. Ends when "
                    "that is so; status\n"
                    "VM --watch shows how it goes on. What is not said is taken from \"ft\" in "
                    "vm.json.\n",
        .take = take_option,
        .ctx = call.arguments,
        .least = 1,
        .most = 1,
        .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret == 0) {
        call.word = words.words[0];
        ret = protect(&call, &err);
    }
    json_decref(call.arguments);
    return ret < 0 ? fail(&err) : 0;
}

/* --- unprotect, switchover -------------------------------------------------------------------- */

static int unprotect(const char *word, const void *ctx, struct err *err)
{
    struct call call = {.verb = "unprotect", .word = word};
    int ret = ask(&call, NULL, err);
    if (ret == 0)
        log_info("%s is not protected any more, and goes on here", word);
    return ret;
}

static int switch_over(const char *word, const void *ctx, struct err *err)
{
    struct call call = {.verb = "switchover", .word = word, .departs = true};
    json_t *answer = NULL;
    int ret = ask(&call, &answer, err);
    if (ret == 0)
        switched_say(word, answer);
    json_decref(answer);
    return ret;
}

int verb_unprotect(int argc, char **argv)
{
    return verb_plain("unprotect",
                      "Example:\n"
                      "  minivmm unprotect web1\n"
                      "\n"
                      "Usage: minivmm unprotect VM...\n"
                      "\n"
                      "The VM goes on here, and nowhere else: its twin is sent away. The witness "
                      "has to agree.\n",
                      unprotect, NULL, argc, argv);
}

enum { SWITCH_ALL, SWITCH_TIMEOUT, SWITCH_HELP };

struct switching {
    bool all;
    uint64_t timeout_s; /* 0: was not said */
};

static int take_switch_option(void *ctx, int what, const char *value, struct err *err)
{
    struct switching *switching = ctx;
    if (what == SWITCH_TIMEOUT)
        return parse_number(value, "--timeout", 1, 1000000, &switching->timeout_s, err);
    switching->all |= what == SWITCH_ALL;
    return 0;
}

/* Which ones is said once, and in one way. */
static int check_switch(const struct switching *switching, const struct verb_words *words,
                        struct err *err)
{
    int ret = 0;
    if (switching->all && words->word_count > 0)
        ret = err_say(err, ERR_USAGE, EINVAL, "switchover: --all, or %s: not both",
                      words->words[0]);
    else if (!switching->all && words->word_count == 0)
        ret = err_say(err, ERR_USAGE, EINVAL, "switchover: %s", words->missing);
    else if (!switching->all && switching->timeout_s)
        ret = err_say(err, ERR_USAGE, EINVAL, "switchover: --timeout goes with --all");
    if (ret < 0)
        err_hint(err, "minivmm switchover --help shows how");
    return ret;
}

int verb_switchover(int argc, char **argv)
{
    static const struct option table[] = {
        [SWITCH_ALL] = {"all", 0, NULL, "each VM that runs here and has a twin that could go on"},
        [SWITCH_TIMEOUT] = {"timeout", 't', "SECONDS", "with --all: how long that may take (60)"},
        [SWITCH_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct switching switching = {0};
    struct err err = {0};
    struct verb_words words = {
        .verb = "switchover",
        .table = table,
        .count = array_size(table),
        .examples = "Examples:\n"
                    "  minivmm switchover web1\n"
                    "  minivmm switchover --all\n"
                    "\n"
                    "Usage: minivmm switchover VM...\n"
                    "       minivmm switchover --all [--timeout SECONDS]\n"
                    "\n"
                    "The VM goes on at its twin's host, and nothing is lost; where a standby "
                    "waits here, its new\n"
                    "twin comes to be here. Then the same verb, over there, brings it back. "
                    "With --all what has\n"
                    "no twin stays here, and is named: before this host is shut down.\n",
        .take = take_switch_option,
        .ctx = &switching,
        .most = 64,
        .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret == 0)
        ret = check_switch(&switching, &words, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    if (switching.all)
        return switch_all(switching.timeout_s ? switching.timeout_s : SWITCH_ALL_S);
    return verb_words_each(&words, switch_over, NULL);
}
