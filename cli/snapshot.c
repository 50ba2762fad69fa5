/* SPDX-License-Identifier: MIT */
/* minivmm snapshot, snapshots and remove-snapshot. */
#include "ft/snapshot.h"
#include "cli/hold.h"
#include "cli/restoring.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/vm_copy.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "core/log.h"
#include "host/small_file.h"
#include "host/tree.h"
#include "vmm/identity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- snapshot --------------------------------------------------------------------------------- */

static void default_name(char ret_name[64])
{
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(ret_name, 64, "%Y-%m-%d-%H%M%S", &tm);
}

static int check_name(const char *name, struct err *err)
{
    int ret = folder_check_name(name, NULL);
    return ret < 0 ? err_say(err, ERR_USAGE, EINVAL, "\"%.100s\" cannot be a snapshot's name", name)
                   : 0;
}

/* What a `snapshot` or `remove-snapshot` that was killed has left, whatever it was called. */
static void sweep(const struct folder *vm)
{
    char path[PATH_MAX], one[PATH_MAX + NAME_MAX + 2];
    snprintf(path, sizeof(path), "%s/" FOLDER_SNAPSHOTS, vm->path);
    DIR *list = opendir(path);
    struct dirent *entry;
    while (list && (entry = readdir(list))) {
        const char *name = entry->d_name;
        size_t length = strlen(name);
        bool made = length > 5 && strcmp(name + length - 4, ".new") == 0;
        if (name[0] != '.' || (!made && !strstr(name, ".removed-")))
            continue;
        snprintf(one, sizeof(one), "%s/%s", path, name);
        if (!folder_is_locked(one))
            (void)!tree_remove(dirfd(list), name, NULL);
    }
    if (list)
        closedir(list);
}

static int find_place(struct vm_copy *copy, const char *name, char path[PATH_MAX], struct err *err)
{
    int ret = check_name(name, err);
    if (ret < 0)
        return ret;
    sweep(&copy->from);
    if (mkdirat(copy->from.fd, FOLDER_SNAPSHOTS, 0777) == 0) {
        int fd = openat(copy->from.fd, FOLDER_SNAPSHOTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            small_file_give_to_owner(copy->from.fd, fd);
            close(fd);
        }
        (void)!fsync(copy->from.fd);
    } else if (errno != EEXIST) {
        return err_sys(err, ERR_FAILED, errno, "cannot make %s/" FOLDER_SNAPSHOTS, copy->from.path);
    }
    if (snprintf(path, PATH_MAX, "%s/" FOLDER_SNAPSHOTS "/%s", copy->from.path, name) >= PATH_MAX)
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "cannot make %.200s", name);
    copy->making.path = path;
    return place_find(&copy->making.place, path, err);
}

/*
 * The sum of the VM's own vm.json, which a restore leaves in its place while it is still the same:
 * the snapshot's has absolute paths. Not where a disk of the copy is another file, or a raw one.
 */
static void add_definition(const struct vm_copy *copy, json_t *facts)
{
    size_t i;
    json_t *disk;
    char sum[9];
    json_array_foreach(json_object_get(copy->answer, "disks"), i, disk)
    {
        if (!json_equal(json_object_get(disk, "from"), json_object_get(disk, "file")) ||
            !json_is_true(json_object_get(disk, "same_format")))
            return;
    }
    if (snapshot_sum_definition(copy->from.fd, sum) == 0)
        json_object_set_new(facts, SNAPSHOT_DEFINITION, json_string(sum));
}

static json_t *gather_facts(const struct vm_copy *copy)
{
    struct identity identity = {0};
    char uuid[37] = "";
    if (identity_read(&identity, &copy->from, NULL) == 0)
        identity_format_uuid(identity.uuid, uuid);
    identity_finish(&identity);
    const json_t *paused = json_object_get(copy->answer, "paused_ms");
    json_t *pause = json_object_get(copy->answer, "memory"); /* what it was made of */
    return json_pack("{ss, ss, ss, ss, sI, sb, si, sI, sf, sO?}", "name", copy->making.place.name,
                     "vm", copy->from.name, "uuid", uuid, "by", "minivmm " MINIVMM_VERSION, "taken",
                     (json_int_t)(clock_wall_ns() / NS_PER_SEC), "running", (int)copy->runs, "cpus",
                     (int)copy->definition->cpus, "guest_memory",
                     (json_int_t)copy->definition->memory, "paused_ms", json_number_value(paused),
                     "pause", pause);
}

static int seal(struct vm_copy *copy, struct err *err)
{
    const struct copy_progress progress = {.tell = vm_copy_handle_progress, .ctx = copy};
    json_t *facts = gather_facts(copy);
    if (!facts)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot write the snapshot's manifest");
    add_definition(copy, facts);
    progress_begin(&copy->progress, "checksums");
    int ret = snapshot_seal(copy->making.folder.fd, facts, &progress, err);
    progress_end(&copy->progress);
    return ret;
}

static void tell_of(const struct vm_copy *copy)
{
    const char *name = copy->making.place.name;
    if (copy->runs)
        log_info("%s stood still for %.1f ms", copy->from.name,
                 json_number_value(json_object_get(copy->answer, "paused_ms")));
    log_info("snapshot %s is ready: minivmm restore %s %s", name, copy->word, name);
}

int verb_snapshot(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    char path[PATH_MAX], name[64];
    struct vm_copy copy = VM_COPY_INIT;
    struct verb_words words = {
        .verb = "snapshot",
        .table = table,
        .count = array_size(table),
        .examples = "Examples:\n"
                    "  minivmm snapshot web1\n"
                    "  minivmm snapshot web1 before-upgrade\n"
                    "\n"
                    "Usage: minivmm snapshot VM [NAME]\n"
                    "\n"
                    "Keeps the VM as it is now in its folder's snapshots/NAME (the date and time): "
                    "its disks,\n"
                    "its vm.json, and if it runs its memory and state too. It stands still only "
                    "for a moment.\n",
        .least = 1,
        .most = 2,
        .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    default_name(name);
    copy.word = words.words[0];
    copy.with_memory = copy.for_itself = true;
    making_hold_signals(&copy.making);
    ret = vm_copy_open(&copy, &err);
    if (ret == 0)
        ret = find_place(&copy, words.word_count > 1 ? words.words[1] : name, path, &err);
    if (ret == 0)
        ret = vm_copy_make(&copy, seal, &err);
    if (ret == 0)
        tell_of(&copy);
    vm_copy_close(&copy);
    int code = ret < 0 ? fail(&err) : 0;
    making_let_signals(&copy.making);
    return code;
}

/* --- snapshots -------------------------------------------------------------------------------- */

struct entry {
    char name[NAME_MAX + 1];
    struct snapshot snapshot; /* facts NULL: damaged */
    uint64_t bytes;
};

struct entries {
    struct entry *list;
    size_t count;
};

static int by_time(const void *a, const void *b)
{
    const struct entry *first = a, *second = b;
    json_int_t one = json_integer_value(json_object_get(first->snapshot.facts, "taken"));
    json_int_t other = json_integer_value(json_object_get(second->snapshot.facts, "taken"));
    return one != other ? (one < other ? -1 : 1) : strcmp(first->name, second->name);
}

static int add_entry(struct entries *entries, int folder, const char *path, const char *name,
                     struct err *err)
{
    char whole[PATH_MAX];
    struct tree_size size;
    struct entry *list = reallocarray(entries->list, entries->count + 1, sizeof(*list));
    if (!list)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot list %s", path);
    entries->list = list;
    struct entry *entry = &list[entries->count];
    *entry = (struct entry){.snapshot = {.folder = -1, .memory = -1}};
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    if ((size_t)snprintf(whole, sizeof(whole), "%s/%s", path, name) >= sizeof(whole))
        return 0;
    int ret = snapshot_open(&entry->snapshot, whole, NULL);
    if (ret == -ENOENT) /* something else lies here */
        return 0;
    if (tree_measure(folder, name, &size, NULL) == 0)
        entry->bytes = size.bytes;
    entries->count++;
    return 0;
}

static int read_entries(struct entries *entries, const struct folder *vm, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/" FOLDER_SNAPSHOTS, vm->path);
    DIR *folder = opendir(path);
    struct dirent *entry;
    int ret = 0;
    if (!folder)
        return errno == ENOENT ? 0 : err_sys(err, ERR_FAILED, errno, "cannot read %s", path);
    while (ret == 0 && (entry = readdir(folder)))
        if (entry->d_name[0] != '.')
            ret = add_entry(entries, dirfd(folder), path, entry->d_name, err);
    closedir(folder);
    if (entries->count > 0)
        qsort(entries->list, entries->count, sizeof(*entries->list), by_time);
    return ret;
}

static const char *kind_of(const struct entry *entry)
{
    if (!entry->snapshot.facts)
        return "damaged";
    return entry->snapshot.has_memory ? "running" : "stopped";
}

static void print_table(const struct entries *entries)
{
    static const char *const header[] = {"NAME", "TAKEN", "VM WAS", "SIZE", NULL};
    struct table table;
    table_init(&table, header);
    for (size_t i = 0; i < entries->count; i++) {
        const struct entry *entry = &entries->list[i];
        json_int_t taken = json_integer_value(json_object_get(entry->snapshot.facts, "taken"));
        char when[64] = "-", size[32];
        if (taken)
            format_time((double)taken, true, when, sizeof(when));
        format_size(entry->bytes, size, sizeof(size));
        table_add(&table, entry->name);
        table_add(&table, when);
        table_add(&table, kind_of(entry));
        table_add(&table, size);
    }
    table_print(&table);
    table_finish(&table);
}

static void print_list(const struct entries *entries)
{
    json_t *list = json_array();
    for (size_t i = 0; i < entries->count; i++) {
        const struct entry *entry = &entries->list[i];
        json_t *taken = json_object_get(entry->snapshot.facts, "taken");
        json_array_append_new(list, json_pack("{ss, sO?, ss, sI}", "name", entry->name, "taken",
                                              taken, "state", kind_of(entry), "bytes",
                                              (json_int_t)entry->bytes));
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(list);
}

static void forget(struct entries *entries)
{
    for (size_t i = 0; i < entries->count; i++)
        snapshot_close(&entries->list[i].snapshot);
    free(entries->list);
}

enum { LIST_JSON, LIST_HELP };

static int take_list_option(void *ctx, int what, const char *value, struct err *err)
{
    bool *json = ctx;
    *json |= what == LIST_JSON;
    return 0;
}

int verb_snapshots(int argc, char **argv)
{
    static const struct option table[] = {
        [LIST_JSON] = {"json", 0, NULL, "a JSON array, for programs"},
        [LIST_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    bool json = false;
    struct folder vm = {.fd = -1, .lock = -1};
    struct entries entries = {0};
    struct verb_words words = {.verb = "snapshots",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm snapshots web1\n"
                                           "\n"
                                           "Usage: minivmm snapshots VM [OPTION...]\n",
                               .take = take_list_option,
                               .ctx = &json,
                               .least = 1,
                               .most = 1,
                               .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = place_open_vm(&vm, words.words[0], &err);
    if (ret == 0)
        ret = read_entries(&entries, &vm, &err);
    if (ret == 0 && json)
        print_list(&entries);
    else if (ret == 0)
        print_table(&entries);
    forget(&entries);
    folder_close(&vm);
    return ret < 0 ? fail(&err) : 0;
}

/* --- remove-snapshot -------------------------------------------------------------------------- */

/* It may be a link, to a place of the VM's owner. */
static int open_snapshots(const struct folder *vm)
{
    struct stat there, here;
    int fd = openat(vm->fd, FOLDER_SNAPSHOTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &there) == 0 && fstat(vm->fd, &here) == 0 &&
        there.st_uid == here.st_uid)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int remove_one(const char *name, const void *ctx, struct err *err)
{
    const struct folder *vm = ctx;
    char hidden[NAME_MAX + 1], path[PATH_MAX];
    int ret = check_name(name, err);
    if (ret == 0 && faccessat(vm->fd, FOLDER_RESTORING, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        ret = restoring_check(vm, NULL, err); /* it may be the one that is needed for that */
    if (ret < 0)
        return ret;
    sweep(vm);
    snprintf(path, sizeof(path), "%s/" FOLDER_SNAPSHOTS "/%s/" SNAPSHOT_MANIFEST, vm->path, name);
    int folder = open_snapshots(vm);
    if (folder < 0 || faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        ret = err_say(err, ERR_NOT_FOUND, ENOENT, "%s has no snapshot %s", vm->name, name);
        err_hint(err, "minivmm snapshots %s lists them", vm->path);
    } else if (access(path, F_OK) < 0) { /* a damaged one, too, has this */
        ret = err_say(err, ERR_STATE, EINVAL, "%s/" FOLDER_SNAPSHOTS "/%s is no snapshot", vm->path,
                      name);
    }
    /* Under another name first: there is all of it, or nothing. */
    struct place place = {.parent = folder};
    snprintf(place.name, sizeof(place.name), "%s", name);
    place_removed_name(&place, hidden);
    if (ret == 0)
        ret = tree_move(folder, name, folder, hidden, err);
    if (ret == 0)
        ret = tree_remove(folder, hidden, err);
    if (folder >= 0)
        close(folder);
    return ret;
}

int verb_remove_snapshot(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct folder vm = {.fd = -1, .lock = -1};
    struct verb_words words = {.verb = "remove-snapshot",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm remove-snapshot web1 before-upgrade\n"
                                           "\n"
                                           "Usage: minivmm remove-snapshot VM NAME...\n",
                               .least = 2,
                               .most = array_size(words.words),
                               .missing = "a VM and the names of snapshots are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = place_open_vm(&vm, words.words[0], &err);
    if (ret < 0)
        return fail(&err);
    memmove(words.words, words.words + 1, --words.word_count * sizeof(words.words[0]));
    int code = verb_words_each(&words, remove_one, &vm);
    folder_close(&vm);
    return code;
}
