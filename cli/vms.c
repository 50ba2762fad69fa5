/* SPDX-License-Identifier: MIT */
#include "cli/vms.h"

#include "cli/verbs.h"
#include "core/clock.h"
#include "core/log.h"
#include "vmm/folder.h"
#include "vmm/identity.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How long is waited between two looks at a VM that starts or ends, ms. */
enum { FIRST_LOOK_MS = 2, LAST_LOOK_MS = 100 };

static int take_word(struct verb_words *words, const char *word, struct err *err)
{
    if (words->word_count < words->most && words->word_count < array_size(words->words)) {
        words->words[words->word_count++] = word;
        return 0;
    }
    return err_say(err, ERR_USAGE, EINVAL, "%s: unexpected argument %s", words->verb, word);
}

/* The last of each table is --help. */
int verb_words_read(struct verb_words *words, int argc, char **argv, struct err *err)
{
    struct options options = {.verb = words->verb,
                              .table = words->table,
                              .count = words->count,
                              .argc = argc,
                              .argv = argv,
                              .at = 1};
    for (;;) {
        int what;
        const char *value;
        int ret = options_next(&options, &what, &value, err);
        if (ret == 0 && what == OPTIONS_END)
            break;
        if (ret == 0 && what == (int)words->count - 1) {
            printf("%s\nOptions:\n", words->examples);
            options_print(words->table, words->count);
            return 1;
        }
        if (ret == 0)
            ret = what == OPTIONS_ARGUMENT ? take_word(words, value, err)
                                           : words->take(words->ctx, what, value, err);
        if (ret < 0)
            return ret;
    }
    if (words->word_count >= words->least)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "%s: %s", words->verb, words->missing);
    err_hint(err, "minivmm %s --help shows how", words->verb);
    return ret;
}

int verb_words_each(const struct verb_words *words,
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

int verb_plain(const char *verb, const char *examples,
               int (*act)(const char *word, const void *ctx, struct err *err), const void *ctx,
               int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct verb_words words = {.verb = verb,
                               .table = table,
                               .count = array_size(table),
                               .examples = examples,
                               .least = 1,
                               .most = 64,
                               .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return verb_words_each(&words, act, ctx);
}

/* --- talking ---------------------------------------------------------------------------------- */

/* Whether this very process still has its info.json locked. */
static bool still_runs(const struct runtime_info *info)
{
    struct runtime_info now;
    char uuid[37];
    identity_format_uuid(info->uuid, uuid);
    if (runtime_find(uuid, &now, NULL) < 0)
        return false;
    bool same = now.pid == info->pid;
    runtime_info_finish(&now);
    return same;
}

static void rest(unsigned ms)
{
    const struct timespec time = {.tv_sec = 0, .tv_nsec = (long)ms * 1000000};
    nanosleep(&time, NULL);
}

int vm_connect_to(const struct runtime_info *info, unsigned silence_ms,
                  struct control_client **ret_client, struct err *err)
{
    uint64_t deadline_ns = clock_monotonic_ns() + VM_ANSWER_MS * 1000000ull;
    for (unsigned ms = FIRST_LOOK_MS;; ms = ms < LAST_LOOK_MS / 2 ? 2 * ms : LAST_LOOK_MS) {
        int ret = control_connect(ret_client, info->control, silence_ms, err);
        if (ret != -ENOENT && ret != -ECONNREFUSED) {
            if (ret < 0)
                err_prefix(err, "%s", info->name);
            return ret;
        }
        if (!still_runs(info))
            return err_say(err, ERR_STATE, EPIPE, "%s has ended", info->name);
        if (clock_monotonic_ns() > deadline_ns)
            break;
        rest(ms);
    }
    int ret = err_say(err, ERR_STATE, EAGAIN, "%s is starting or ending, and does not answer yet",
                      info->name);
    err_hint(err, "it is process %lld", (long long)info->pid);
    return ret;
}

int vm_connect(const char *word, struct control_client **ret_client, struct runtime_info *ret_info,
               struct err *err)
{
    int ret = runtime_find(word, ret_info, err);
    if (ret < 0)
        return ret;
    ret = vm_connect_to(ret_info, VM_ANSWER_MS, ret_client, err);
    if (ret < 0)
        runtime_info_finish(ret_info);
    return ret;
}

int vm_call(const char *word, const char *verb, json_t *arguments, json_t **ret_answer,
            struct err *err)
{
    struct control_client *client;
    struct runtime_info info;
    int ret = vm_connect(word, &client, &info, err);
    if (ret < 0) {
        json_decref(arguments);
        return ret;
    }
    json_t *answer = NULL;
    ret = control_call(client, verb, arguments, &answer, err);
    if (ret == 0 && ret_answer)
        *ret_answer = answer;
    else
        json_decref(answer);
    if (ret < 0 && ret != -EREMOTEIO) /* it calls itself by its name */
        err_prefix(err, "%s", info.name);
    control_disconnect(client);
    runtime_info_finish(&info);
    return ret;
}

/* --- its end ---------------------------------------------------------------------------------- */

int vm_open_process(const struct runtime_info *info, struct err *err)
{
    int process = (int)syscall(SYS_pidfd_open, (pid_t)info->pid, 0);
    if (process >= 0)
        return process;
    return err_sys(err, ERR_HOST, errno, "cannot wait for %s (pid %lld)", info->name,
                   (long long)info->pid);
}

/* Milliseconds until then, as poll wants them, rounded up. */
static int ms_until(uint64_t ns)
{
    uint64_t now = clock_monotonic_ns();
    return now < ns ? (int)((ns - now + 999999) / 1000000) : 0;
}

int vm_wait_process(int process, uint64_t until_ns, const struct runtime_info *info,
                    struct err *err)
{
    struct pollfd poll_fd = {.fd = process, .events = POLLIN};
    for (;;) {
        int ready = poll(&poll_fd, 1, ms_until(until_ns));
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return err_sys(err, ERR_HOST, errno, "cannot wait for %s", info->name);
        if (clock_monotonic_ns() >= until_ns)
            return -ETIMEDOUT;
    }
}

void vm_see_off(int process, const struct runtime_info *info, bool gone)
{
    struct err err = {0};
    uint64_t until_ns = clock_monotonic_ns() + VM_ANSWER_MS * 1000000ull;
    if (process < 0)
        return;
    int ret = gone ? vm_wait_process(process, until_ns, info, &err) : 0;
    if (ret == -ETIMEDOUT)
        log_warning("its process here (%lld) has not come to its end yet", (long long)info->pid);
    else if (ret < 0)
        log_err(LOG_WARNING, &err);
    close(process);
}

/* --- where it is ------------------------------------------------------------------------------ */

/* What this descriptor of a process has open, where that is the identity.json of a VM's folder. */
static bool read_place(int fds, const char *number, struct vm_place *ret_place)
{
    static const char end[] = "/" FOLDER_IDENTITY;
    struct stat opened, named;
    char path[PATH_MAX];
    ssize_t length = readlinkat(fds, number, path, sizeof(path) - 1);
    if (length < (ssize_t)sizeof(end))
        return false;
    path[length] = '\0';
    char *last = path + length - strlen(end);
    /* It may see other file systems than we do. */
    if (strcmp(last, end) != 0 || fstatat(fds, number, &opened, 0) < 0 || stat(path, &named) < 0 ||
        opened.st_dev != named.st_dev || opened.st_ino != named.st_ino)
        return false;
    *last = '\0';
    if (!folder_is_locked(path) || stat(path, &named) < 0)
        return false;
    *ret_place = (struct vm_place){
        .path = strdup(path), .device = named.st_dev, .inode = named.st_ino};
    return ret_place->path;
}

/* Its lock is on an open file, whose name the kernel knows, moved or not. */
bool vm_find_place(int64_t pid, struct vm_place *ret_place)
{
    char path[64];
    struct dirent *entry;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%lld/fd", (long long)pid);
    DIR *fds = opendir(path);
    while (fds && !found && (entry = readdir(fds)))
        found = read_place(dirfd(fds), entry->d_name, ret_place);
    if (fds)
        closedir(fds);
    return found;
}

int vm_put_key(json_t *arguments, const char *path, struct err *err)
{
    char *whole = realpath(path, NULL); /* the VM has another working directory */
    if (!whole)
        return err_sys(err, ERR_NOT_FOUND, errno, "key %s", path);
    json_object_set_new(arguments, "key", json_string(whole));
    free(whole);
    return 0;
}

void vm_show_progress(const json_t *event, const char *name, struct progress *progress)
{
    const char *what = json_string_value(json_object_get(event, "event"));
    json_int_t done = json_integer_value(json_object_get(event, "done"));
    json_int_t total = json_integer_value(json_object_get(event, "total"));
    if (what && strcmp(what, name) == 0 && total > 0)
        progress_tell(progress, (uint64_t)done, (uint64_t)total);
}
