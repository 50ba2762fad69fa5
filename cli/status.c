/* SPDX-License-Identifier: MIT */
/* minivmm status. */
#include "cli/protection_text.h"
#include "cli/said.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "cli/watch.h"
#include "ft/protection.h"
#include "vmm/folder.h"
#include "vmm/identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { STATUS_TRIES = 4 };

static void print_item(const char *name, const char *text)
{
    printf("%-9s ", name);
    said_print_plain(text);
    printf("\n");
}

static void print_devices(const json_t *status)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(status, "disks"), i, item)
    {
        printf("disk %-4zu ", i);
        said_print_plain(said_text(item, "file"));
        printf(" (%s%s%s)\n", said_text(item, "format"),
               json_is_true(json_object_get(item, "readonly")) ? ", read only" : "",
               json_is_true(json_object_get(item, "ephemeral")) ? ", ephemeral" : "");
    }
    json_array_foreach(json_object_get(status, "nets"), i, item)
    {
        printf("net %-5zu %s %s ", i, said_text(item, "mode"), said_text(item, "mac"));
        said_print_plain(said_text(item, "name"));
        printf("\n");
    }
}

/* Of a VM that does not run: as its folder has it. */
static void print_marks(const json_t *protection)
{
    char text[800];
    const char *error = json_string_value(json_object_get(protection, "error"));
    const char *peer = said_text(protection, "peer");
    snprintf(text, sizeof(text), "as %s of generation %lld, peer %s, witness %s",
             said_text(protection, "role"),
             (long long)json_integer_value(json_object_get(protection, "generation")),
             peer[0] ? peer : "not known", said_text(protection, "witness"));
    print_item("protected", error ? error : text);
}

static void print_status(const json_t *status)
{
    char text[64];
    print_item("name", said_text(status, "name"));
    print_item("state", said_text(status, "state"));
    print_item("uuid", said_text(status, "uuid"));
    print_item("folder", said_text(status, "folder"));
    const json_t *protection = json_object_get(status, "protection");
    bool runs = json_object_get(status, "pid");
    if (protection && runs)
        protection_print(stdout, protection, NULL);
    else if (protection)
        print_marks(protection);
    if (!runs)
        return;
    printf("%-9s %lld\n", "pid", (long long)json_integer_value(json_object_get(status, "pid")));
    format_duration((double)json_integer_value(json_object_get(status, "uptime")), text,
                    sizeof(text));
    print_item("uptime", text);
    printf("%-9s %lld\n", "cpus", (long long)json_integer_value(json_object_get(status, "cpus")));
    format_size((uint64_t)json_integer_value(json_object_get(status, "memory")), text,
                sizeof(text));
    print_item("memory", text);
    print_devices(status);
}

/* As the file has it: what is so, the witness knows. NULL: it has none. */
static json_t *describe_protection(const struct folder *folder, bool *ret_is_twin)
{
    struct protection protection;
    struct err err = {0};
    int ret = protection_find(&protection, folder, &err);
    if (ret < 0)
        return ret == -ENOENT || ret == -ESTALE ? NULL : json_pack("{ss}", "error", err.text);
    char *text = protection_format(&protection);
    json_t *root = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    *ret_is_twin = protection.role == PROTECTION_TWIN;
    return root;
}

/* A VM that does not run: its folder says who it is. */
static int describe_stopped(const char *word, json_t **ret_status, struct err *err)
{
    struct folder folder = {.fd = -1, .lock = -1};
    struct identity identity = {0};
    char uuid[37] = "";
    int ret = folder_open(&folder, word, err);
    if (ret < 0)
        return ret;
    if (identity_read(&identity, &folder, NULL) == 0)
        identity_format_uuid(identity.uuid, uuid);
    bool is_twin = false;
    json_t *protection = describe_protection(&folder, &is_twin);
    *ret_status = json_pack("{ss, ss, ss, ss, so*}", "name", folder.name, "state",
                            is_twin ? "twin" : "stopped", "folder", folder.path, "uuid",
                            uuid[0] ? uuid : "-", "protection", protection);
    identity_finish(&identity);
    folder_close(&folder);
    return *ret_status ? 0 : err_sys(err, ERR_HOST, ENOMEM, "%s", word);
}

enum { STATUS_JSON, STATUS_REGISTERS, STATUS_WATCH, STATUS_HELP };

struct status_wish {
    bool json, registers, watch;
};

static int take_status_option(void *ctx, int what, const char *value, struct err *err)
{
    struct status_wish *wish = ctx;
    wish->json |= what == STATUS_JSON;
    wish->registers |= what == STATUS_REGISTERS;
    wish->watch |= what == STATUS_WATCH;
    return 0;
}

/* It says where it was when it started. */
static void correct_folder(json_t *status)
{
    struct vm_place place;
    if (!json_is_string(json_object_get(status, "folder")) ||
        !vm_find_place(json_integer_value(json_object_get(status, "pid")), &place))
        return;
    json_t *path = json_string(place.path); /* NULL: no text */
    if (path)
        json_object_set_new(status, "folder", path);
    free(place.path);
}

/* Its connection breaks, then its door is shut, then it does not run: one that ends is asked again.
 */
static int ask_status(const char *word, json_t **ret_status, struct err *err)
{
    int ret = -EPIPE;
    for (unsigned i = 0; i < STATUS_TRIES && ret == -EPIPE; i++)
        ret = vm_call(word, "status", NULL, ret_status, err);
    if (ret == 0)
        correct_folder(*ret_status);
    /* This very error, and no other, says that it is stopped. */
    return ret == -ESRCH ? describe_stopped(word, ret_status, err) : ret;
}

static void print_registers(const json_t *answer)
{
    size_t i;
    json_t *text;
    json_array_foreach(json_object_get(answer, "vcpus"), i, text)
    {
        printf("vCPU %zu:\n%s", i, json_string_value(text) ? json_string_value(text) : "");
    }
}

static int show(const char *word, const struct status_wish *wish, struct err *err)
{
    json_t *status = NULL;
    if (wish->watch)
        return wish->json || wish->registers
                   ? err_say(err, ERR_USAGE, EINVAL,
                             "status: --watch goes with neither --json nor --registers")
                   : watch_vm(word, err);
    int ret = wish->registers ? vm_call(word, "registers", NULL, &status, err)
                              : ask_status(word, &status, err);
    if (ret < 0)
        return ret;
    if (wish->json)
        said_print_json(status);
    else if (wish->registers)
        print_registers(status);
    else
        print_status(status);
    json_decref(status);
    return 0;
}

int verb_status(int argc, char **argv)
{
    static const struct option table[] = {
        [STATUS_JSON] = {"json", 0, NULL, "one JSON object, for programs"},
        [STATUS_REGISTERS] = {"registers", 0, NULL,
                              "those of its vCPUs, and their stacks, instead"},
        [STATUS_WATCH] = {"watch", 'w', NULL,
                          "how it goes on: its protection, each second, and what befalls it"},
        [STATUS_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct status_wish wish = {0};
    struct err err = {0};
    struct verb_words words = {.verb = "status",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm status web1\n"
                                           "  minivmm status web1 --json\n"
                                           "  minivmm status web1 --registers\n"
                                           "  minivmm status web1 --watch\n"
                                           "\n"
                                           "Usage: minivmm status VM [OPTION...]\n"
                                           "\n"
                                           "VM is a folder, or the name or UUID of one that "
                                           "runs.\n",
                               .take = take_status_option,
                               .ctx = &wish,
                               .least = 1,
                               .most = 1,
                               .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = show(words.words[0], &wish, &err);
    return ret < 0 ? fail(&err) : 0;
}
