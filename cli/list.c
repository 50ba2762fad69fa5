/* SPDX-License-Identifier: MIT */
/* minivmm list. */
#include "cli/protection_text.h"
#include "cli/said.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "ft/protection.h"
#include "vmm/folder.h"
#include "vmm/identity.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The answers of all may take so long together; each has a moment, whatever the others took. */
enum { LIST_DEPTH = 3, ANSWERS_MS = 2000, ASK_MS = 200 };

struct list {
    bool json, quiet;
    const char *root;
    struct runtime_info *running;
    struct vm_place *places; /* of those that run; path NULL: not known */
    size_t running_count;
    uint64_t deadline_ns;
    char **folders;
    size_t folder_count;
    json_t *rows;
};

/* A VM that does not answer in time runs all the same. */
static const char *ask_state(const struct list *list, const struct runtime_info *info,
                             json_t **ret_answer)
{
    struct control_client *client;
    uint64_t now_ns = clock_monotonic_ns(), least_ns = now_ns + ASK_MS * 1000000ull;
    uint64_t until_ns = list->deadline_ns > least_ns ? list->deadline_ns : least_ns;
    unsigned patience_ms = (unsigned)((until_ns - now_ns) / 1000000);
    *ret_answer = NULL;
    if (control_connect(&client, info->control, patience_ms, NULL) < 0)
        return "unknown";
    int ret = control_call(client, "status", NULL, ret_answer, NULL);
    control_disconnect(client);
    const char *state = ret == 0 ? json_string_value(json_object_get(*ret_answer, "state")) : NULL;
    return state ? state : "unknown";
}

static void add_running(struct list *list, size_t at)
{
    const struct runtime_info *info = &list->running[at];
    const char *present = list->places[at].path;
    char uuid[37];
    json_t *answer;
    const char *state = ask_state(list, info, &answer);
    const json_t *protection = json_object_get(answer, "protection");
    identity_format_uuid(info->uuid, uuid);
    json_array_append_new(
        list->rows,
        json_pack("{ss, ss, ss?, sI, sI, ss?, ss, ss}", "name", info->name, "state", state,
                  "protection", json_string_value(json_object_get(protection, "state")), "pid",
                  (json_int_t)info->pid, "started", (json_int_t)info->started, "folder",
                  present ? present : info->folder, "uuid", uuid, "control", info->control));
    json_decref(answer);
}

/* Folders are moved, and others put in their place, while their VMs run. */
static bool is_folder_of(const struct list *list, size_t at, const char *folder,
                         const struct stat *stat)
{
    const struct vm_place *place = &list->places[at];
    const char *said = list->running[at].folder;
    if (place->path)
        return place->device == stat->st_dev && place->inode == stat->st_ino;
    return said && strcmp(said, folder) == 0 && folder_is_locked(folder);
}

static bool runs(const struct list *list, const char *folder)
{
    struct stat there;
    if (list->running_count == 0 || stat(folder, &there) < 0)
        return false;
    for (size_t i = 0; i < list->running_count; i++)
        if (is_folder_of(list, i, folder, &there))
            return true;
    return false;
}

/* A twin does not run, and is not there to be run. */
static bool is_twin(const char *path)
{
    char mark[PATH_MAX];
    struct protection protection;
    struct folder folder;
    if (snprintf(mark, sizeof(mark), "%s/" FOLDER_PROTECTED, path) >= (int)sizeof(mark) ||
        access(mark, F_OK) < 0 || folder_open(&folder, path, NULL) < 0)
        return false;
    bool found = protection_find(&protection, &folder, NULL) == 0;
    folder_close(&folder);
    return found && protection.role == PROTECTION_TWIN;
}

static void add_stopped(struct list *list, const char *folder)
{
    const char *slash = strrchr(folder, '/');
    json_array_append_new(list->rows,
                          json_pack("{ss, ss, sn, sn, sn, ss, sn, sn}", "name",
                                    slash ? slash + 1 : folder, "state",
                                    is_twin(folder) ? "twin" : "stopped", "protection", "pid",
                                    "started", "folder", folder, "uuid", "control"));
}

static int find_places(struct list *list, struct err *err)
{
    list->places = calloc(list->running_count + 1, sizeof(*list->places));
    if (!list->places)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot list what runs");
    for (size_t i = 0; i < list->running_count; i++)
        if (list->running[i].folder && !vm_find_place(list->running[i].pid, &list->places[i]))
            list->places[i] = (struct vm_place){0};
    return 0;
}

static int check_root(const struct list *list, char *ret_root, struct err *err)
{
    struct stat stat_of;
    if (!realpath(list->root, ret_root))
        return err_sys(err, ERR_NOT_FOUND, errno, "cannot look into %s", list->root);
    if (stat(ret_root, &stat_of) == 0 && !S_ISDIR(stat_of.st_mode))
        return err_say(err, ERR_USAGE, ENOTDIR, "list: %s is no folder", list->root);
    return 0;
}

static int gather(struct list *list, struct err *err)
{
    char root[PATH_MAX];
    int ret = check_root(list, root, err);
    if (ret < 0)
        return ret;
    ret = runtime_list(&list->running, &list->running_count, err);
    if (ret == 0)
        ret = find_places(list, err);
    if (ret == 0)
        ret = folder_find(root, LIST_DEPTH, &list->folders, &list->folder_count, err);
    if (ret < 0)
        return ret;
    list->rows = json_array();
    list->deadline_ns = clock_monotonic_ns() + ANSWERS_MS * 1000000ull;
    for (size_t i = 0; i < list->running_count; i++)
        add_running(list, i);
    for (size_t i = 0; i < list->folder_count; i++)
        if (!runs(list, list->folders[i]))
            add_stopped(list, list->folders[i]);
    return 0;
}

static void print_rows(const struct list *list)
{
    static const char *const header[] = {"NAME", "STATE", "PID", "UPTIME", "FOLDER", NULL};
    struct table table;
    size_t i;
    json_t *row;
    double now = (double)clock_wall_ns() / NS_PER_SEC;
    table_init(&table, header);
    json_array_foreach(list->rows, i, row)
    {
        json_int_t pid = json_integer_value(json_object_get(row, "pid"));
        char uptime[40] = "-", number[24] = "-";
        if (pid) {
            snprintf(number, sizeof(number), "%lld", (long long)pid);
            format_duration(now - (double)json_integer_value(json_object_get(row, "started")),
                            uptime, sizeof(uptime));
        }
        table_add(&table, said_text(row, "name"));
        const char *word = protection_word(said_text(row, "protection"));
        table_addf(&table, "%s%s%s", said_text(row, "state"), word[0] ? ", " : "", word);
        table_add(&table, number);
        table_add(&table, uptime);
        table_add(&table, said_text(row, "folder"));
    }
    table_print(&table);
    table_finish(&table);
}

static void print_list(const struct list *list)
{
    size_t i;
    json_t *row;
    if (list->json) {
        said_print_json(list->rows);
    } else if (list->quiet) {
        json_array_foreach(list->rows, i, row)
        {
            said_print_plain(said_text(row, "name"));
            printf("\n");
        }
    } else if (json_array_size(list->rows) > 0) {
        print_rows(list);
    } else {
        fprintf(stderr, "no VMs in %s, and none runs\n", list->root);
    }
}

enum { LIST_JSON, LIST_QUIET, LIST_HELP };

static int take_list_option(void *ctx, int what, const char *value, struct err *err)
{
    struct list *list = ctx;
    list->json |= what == LIST_JSON;
    list->quiet |= what == LIST_QUIET;
    return 0;
}

int verb_list(int argc, char **argv)
{
    static const struct option table[] = {
        [LIST_JSON] = {"json", 0, NULL, "one JSON array, for programs"},
        [LIST_QUIET] = {"quiet", 'q', NULL, "only names"},
        [LIST_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct list list = {.root = "."};
    struct err err = {0};
    struct verb_words words = {.verb = "list",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm list\n"
                                           "  minivmm list --json /srv/vms\n"
                                           "\n"
                                           "Usage: minivmm list [DIR] [OPTION...]\n"
                                           "\n"
                                           "VMs whose folders are here or in DIR, up to three "
                                           "levels down, and all that run.\n",
                               .take = take_list_option,
                               .ctx = &list,
                               .most = 1};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    if (words.word_count > 0)
        list.root = words.words[0];
    ret = gather(&list, &err);
    if (ret == 0)
        print_list(&list);
    json_decref(list.rows);
    for (size_t i = 0; list.places && i < list.running_count; i++)
        free(list.places[i].path);
    free(list.places);
    runtime_free_list(list.running, list.running_count);
    folder_free_found(list.folders, list.folder_count);
    return ret < 0 ? fail(&err) : 0;
}
