/* SPDX-License-Identifier: MIT */
/*
 *   prepare  (a thread) disks are made ready, and the rounds of memory are gone through
 *   capture  (the machine stands still)
 *   copy     (the disks' loops, and a thread for what was kept aside of memory) the guest goes on
 *   sync     (a thread) the new files and their folder
 *
 * Until the answer, clients that watch hear of the progress. If the asker goes away, or something
 * fails, what was made is removed.
 */
#include "ft/copies.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/capture.h"
#include "ft/memory_file.h"
#include "ft/snapshot.h"
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TICK_MS = 200 };

enum phase { PHASE_NONE, PHASE_PREPARE, PHASE_COPY, PHASE_SYNC };

struct copies {
    struct instance *instance;
    struct machine *machine;
    const char *definition;

    /* Of the one copy that is under way. */
    struct control_request *request;
    enum phase phase;
    char path[PATH_MAX];
    int folder;
    struct disks disks;
    bool with_memory;
    struct pages pages;
    struct pages_sink sink;
    struct memory_file memory;
    struct stream_buffer state;
    struct capture capture;

    struct thread thread;
    atomic_bool given_up;
    struct err thread_err; /* kind 0: it went well */
    struct loop_call thread_call, copy_call, again_call;
    struct loop_timer tick;
    struct err err; /* what has failed first */
};

static const char *vm_name(const struct copies *copies)
{
    return instance_config(copies->instance)->name;
}

/* --- threads ---------------------------------------------------------------------------------- */

static int put_pages(void *ctx, uint64_t offset, const uint8_t *bytes, size_t length,
                     struct err *err)
{
    struct copies *copies = ctx;
    return memory_file_put(&copies->memory, offset, bytes, length, err);
}

static void run_prepare(void *arg)
{
    struct copies *copies = arg;
    struct err *err = &copies->thread_err;
    disks_prepare(&copies->disks);
    if (copies->with_memory && pages_begin(&copies->pages, err) == 0)
        (void)!pages_rounds(&copies->pages, err);
    loop_post(instance_loop(copies->instance), &copies->thread_call);
}

static void write_state(struct copies *copies, struct err *err)
{
    struct snapshot_hello hello = {.wall_ns = clock_wall_ns()};
    struct machine_model *model = NULL;
    uint32_t *sums = malloc(memory_file_chunks(copies->memory.size) * sizeof(*sums));
    int ret = sums ? machine_model_of(&model, copies->machine, err)
                   : err_sys(err, ERR_HOST, ENOMEM, "no room for checksums");
    if (ret == 0) {
        memory_file_sums(&copies->memory, sums);
        memcpy(hello.uuid, instance_config(copies->instance)->identity->uuid, sizeof(hello.uuid));
        ret = snapshot_write_state(copies->folder, &hello, model, sums, &copies->state, err);
    }
    machine_model_destroy(model);
    free(sums);
}

static void run_rest(void *arg)
{
    struct copies *copies = arg;
    struct err *err = &copies->thread_err;
    int ret = pages_rest(&copies->pages, err);
    pages_end(&copies->pages); /* writes of the guest cost no more than usual from here on */
    if (ret == 0)
        write_state(copies, err);
    loop_post(instance_loop(copies->instance), &copies->thread_call);
}

static void run_sync(void *arg)
{
    struct copies *copies = arg;
    int ret = disks_sync(&copies->disks);
    if (ret == 0 && copies->with_memory && fsync(copies->memory.fd) < 0)
        ret = -errno;
    if (ret == 0 && fsync(copies->folder) < 0)
        ret = -errno;
    if (ret < 0)
        err_sys(&copies->thread_err, ERR_FAILED, -ret, "cannot write the copy");
    loop_post(instance_loop(copies->instance), &copies->thread_call);
}

static int start(struct copies *copies, void (*run)(void *arg), struct err *err)
{
    copies->thread_err = (struct err){0};
    return thread_start(&copies->thread, "copy", run, copies, err);
}

/* --- from phase to phase ---------------------------------------------------------------------- */

static void finish(struct copies *copies);

static void give_up(struct copies *copies)
{
    copies->given_up = copies->disks.given_up = true;
    if (!copies->err.kind)
        err_say(&copies->err, ERR_FAILED, ECANCELED, "the copy was given up");
    disks_stop(&copies->disks);
}

static void handle_copied(void *arg)
{
    struct copies *copies = arg;
    if (copies->phase != PHASE_COPY)
        return;
    if (!copies->err.kind && disks_check(&copies->disks, &copies->err) < 0)
        give_up(copies);
    if (copies->thread.started || disks_copying(&copies->disks) > 0)
        return;
    copies->phase = PHASE_SYNC;
    if (copies->err.kind || start(copies, run_sync, &copies->err) < 0)
        finish(copies);
}

/* On any thread. */
static void handle_disk_ended(void *ctx)
{
    struct copies *copies = ctx;
    loop_post(instance_loop(copies->instance), &copies->copy_call);
}

/* Only who runs can have its disks copied: their loops do it. */
static int check_stillness(struct copies *copies, struct err *err)
{
    if (!instance_stands_still(copies->instance) || disks_all_share(&copies->disks))
        return 0;
    int ret = err_say(err, ERR_STATE, EBUSY,
                      "%s stands still, and its disks are copied only while it runs",
                      vm_name(copies));
    err_hint(err, "minivmm resume %s, or stop it", vm_name(copies));
    return ret;
}

static int take(struct copies *copies, struct err *err)
{
    copies->capture = (struct capture){.machine = copies->machine,
                                       .runs = !instance_stands_still(copies->instance),
                                       .disks = &copies->disks,
                                       .pages = copies->with_memory ? &copies->pages : NULL,
                                       .state = &copies->state};
    int ret = check_stillness(copies, err);
    if (ret == 0)
        ret = disks_set_up(&copies->disks, err);
    if (ret == 0)
        ret = capture_take(&copies->capture, err);
    instance_note_pause(copies->instance, "clone", copies->capture.times.all_ns);
    return ret;
}

static void begin_copy(struct copies *copies)
{
    int ret = copies->err.kind ? 0 : take(copies, &copies->err);
    if (ret == -EAGAIN) {
        copies->err = (struct err){0};
        loop_post(instance_loop(copies->instance), &copies->again_call);
        return;
    }
    copies->phase = PHASE_COPY;
    if (ret < 0)
        give_up(copies);
    if (!copies->err.kind && copies->with_memory && start(copies, run_rest, &copies->err) < 0)
        give_up(copies);
    handle_copied(copies);
}

static void handle_again(void *arg)
{
    struct copies *copies = arg;
    if (copies->phase == PHASE_PREPARE && !copies->thread.started)
        begin_copy(copies);
}

static void handle_thread(void *arg)
{
    struct copies *copies = arg;
    if (!copies->thread.started)
        return;
    thread_join(&copies->thread);
    copies->thread.started = false;
    if (copies->thread_err.kind && !copies->err.kind) {
        copies->err = copies->thread_err;
        disks_stop(&copies->disks);
    }
    if (copies->phase == PHASE_PREPARE)
        begin_copy(copies);
    else if (copies->phase == PHASE_COPY)
        handle_copied(copies);
    else
        finish(copies);
}

static void handle_tick(void *arg)
{
    struct copies *copies = arg;
    uint64_t done, total;
    if (!control_is_awaited(copies->request) && !copies->given_up)
        give_up(copies);
    disks_progress(&copies->disks, &done, &total);
    if (copies->with_memory) {
        done += copies->pages.sent * PAGE_SIZE;
        total += copies->pages.touched * PAGE_SIZE;
        total = total < done ? done : total;
    }
    control_event(instance_control(copies->instance), "clone-progress",
                  json_pack("{sI, sI}", "done", (json_int_t)done, "total", (json_int_t)total));
    if (loop_timer_arm(&copies->tick, clock_monotonic_ns() + TICK_MS * 1000000ull) < 0)
        log_warning("%s: no memory for a timer", vm_name(copies));
}

static json_t *describe(const struct copies *copies)
{
    const struct capture_times *times = &copies->capture.times;
    json_t *answer = json_pack("{sf, so}", "paused_ms", (double)times->all_ns / 1e6, "disks",
                               disks_describe(&copies->disks));
    if (!copies->with_memory)
        return answer;
    if (copies->definition[0])
        json_object_set_new(answer, "definition", json_string(copies->definition));
    json_object_set_new(
        answer, "memory",
        json_pack("{sI, sI, sI, sI, sf, sf, sf, sf, sf}", "size", (json_int_t)copies->memory.size,
                  "rounds", (json_int_t)copies->pages.rounds, "pages",
                  (json_int_t)copies->pages.sent, "pages_in_pause",
                  (json_int_t)copies->pages.captured, "stop_ms", (double)times->pause_ns / 1e6,
                  "state_ms", (double)times->state_ns / 1e6, "disks_ms",
                  (double)times->disks_ns / 1e6, "copy_ms", (double)times->pages_ns / 1e6,
                  "resume_ms", (double)times->resume_ns / 1e6));
    return answer;
}

/* Nothing of it is under way. */
static void clear(struct copies *copies)
{
    bool keep = !copies->err.kind;
    disks_finish(&copies->disks, keep);
    pages_end(&copies->pages);
    if (copies->memory.fd >= 0) {
        close(copies->memory.fd);
        if (!keep)
            unlinkat(copies->folder, SNAPSHOT_MEMORY, 0);
    }
    memory_file_end(&copies->memory);
    stream_buffer_finish(&copies->state);
    if (copies->folder >= 0)
        close(copies->folder);
    copies->folder = -1;
    copies->phase = PHASE_NONE;
}

static void finish(struct copies *copies)
{
    struct control_request *request = copies->request;
    bool failed = copies->err.kind;
    json_t *answer = failed ? NULL : describe(copies);
    loop_timer_cancel(&copies->tick);
    clear(copies);
    copies->request = NULL;
    control_answer(request, answer, failed ? &copies->err : NULL);
}

/* --- the verb --------------------------------------------------------------------------------- */

static int open_folder(struct copies *copies, const char *path, struct err *err)
{
    if (path[0] != '/' || strlen(path) >= sizeof(copies->path))
        return err_say(err, ERR_USAGE, EINVAL, "clone: \"to\" is the whole path of a folder");
    memcpy(copies->path, path, strlen(path) + 1);
    copies->folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (copies->folder < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open the folder %.200s", path);
    return 0;
}

static int open_memory(struct copies *copies, struct err *err)
{
    if (!copies->with_memory)
        return 0;
    int fd = openat(copies->folder, SNAPSHOT_MEMORY,
                    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
    if (fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s/" SNAPSHOT_MEMORY, copies->path);
    return memory_file_begin(&copies->memory, fd, memory_size(machine_memory(copies->machine)),
                             err);
}

/* All that clear() undoes is in a known state before anything can fail. */
static void set_up(struct copies *copies, bool with_memory)
{
    const struct instance_config *vm = instance_config(copies->instance);
    copies->err = (struct err){0};
    copies->given_up = false;
    copies->with_memory = with_memory;
    copies->folder = -1;
    copies->capture = (struct capture){0};
    copies->memory = (struct memory_file){.fd = -1};
    copies->sink = (struct pages_sink){.put = put_pages, .ctx = copies};
    copies->pages = (struct pages){
        .machine = copies->machine, .sink = &copies->sink, .given_up = &copies->given_up};
    stream_buffer_init(&copies->state, 0);
    copies->disks.machine = copies->machine;
    copies->disks.machine_disks = instance_disks(copies->instance);
    copies->disks.vm = vm->name;
    copies->disks.vm_folder = vm->folder->fd;
    copies->disks.path = copies->path;
    copies->disks.handle_ended = handle_disk_ended;
    copies->disks.ctx = copies;
    disks_init(&copies->disks);
}

static int begin(struct copies *copies, struct control_request *request, const char *to,
                 bool with_memory, struct err *err)
{
    set_up(copies, with_memory);
    int ret = open_folder(copies, to, err);
    copies->disks.folder = copies->folder;
    if (ret == 0)
        ret = disks_plan(&copies->disks, err);
    if (ret == 0)
        ret = open_memory(copies, err);
    if (ret == 0)
        ret = loop_timer_arm(&copies->tick, 0);
    if (ret == 0)
        ret = start(copies, run_prepare, err);
    if (ret < 0) {
        copies->err.kind = ERR_FAILED; /* so that what was made is removed */
        loop_timer_cancel(&copies->tick);
        clear(copies);
        return ret;
    }
    copies->phase = PHASE_PREPARE;
    copies->request = request;
    control_defer(request);
    return 0;
}

int copies_clone(struct copies *copies, struct control_request *request, const json_t *arguments,
                 struct err *err)
{
    static const char *const keys[] = {"to", "memory", NULL};
    const char *to = json_string_value(json_object_get(arguments, "to"));
    const json_t *memory = json_object_get(arguments, "memory");
    int ret = control_check_keys(arguments, keys, err);
    if (ret < 0)
        return ret;
    if (!to)
        return err_say(err, ERR_USAGE, EINVAL, "clone: \"to\" is the whole path of a folder");
    if (memory && !json_is_boolean(memory))
        return err_say(err, ERR_USAGE, EINVAL, "clone: \"memory\" is true or false");
    if (!instance_config(copies->instance)->folder)
        return err_say(err, ERR_STATE, ENOTSUP, "%s runs without a folder that could be cloned",
                       vm_name(copies));
    if (json_is_true(memory) && instance_has_ephemeral(copies->instance))
        return err_say(err, ERR_STATE, ENOTSUP,
                       "%s has an ephemeral disk, which no copy of its memory can go on with",
                       vm_name(copies));
    if (copies->phase != PHASE_NONE)
        return err_say(err, ERR_STATE, EBUSY, "%s is just being copied", vm_name(copies));
    return begin(copies, request, to, json_is_true(memory), err);
}

bool copies_are_under_way(const struct copies *copies)
{
    return copies->phase != PHASE_NONE;
}

/* --- life ------------------------------------------------------------------------------------- */

int copies_create(struct copies **ret_copies, struct instance *instance, const char *definition,
                  struct err *err)
{
    struct copies *copies = calloc(1, sizeof(*copies));
    if (!copies)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make room for clones");
    copies->folder = -1;
    copies->definition = definition;
    copies->instance = instance;
    copies->machine = instance_machine(instance);
    copies->thread_call = (struct loop_call){.handle = handle_thread, .arg = copies};
    copies->again_call = (struct loop_call){.handle = handle_again, .arg = copies};
    copies->copy_call = (struct loop_call){.handle = handle_copied, .arg = copies};
    loop_timer_init(&copies->tick, instance_loop(instance), handle_tick, copies);
    *ret_copies = copies;
    return 0;
}

void copies_abandon(struct copies *copies)
{
    if (copies->phase == PHASE_NONE)
        return;
    copies->given_up = copies->disks.given_up = true;
    thread_join(&copies->thread);
    copies->thread.started = false;
    err_say(&copies->err, ERR_STATE, ESHUTDOWN, "%s ended before its clone was done",
            vm_name(copies));
    control_answer(copies->request, NULL, &copies->err);
    copies->request = NULL;
    loop_timer_cancel(&copies->tick);
    pages_end(&copies->pages); /* the machine is still there */
}

void copies_destroy(struct copies *copies)
{
    if (!copies)
        return;
    if (copies->phase != PHASE_NONE)
        clear(copies);
    free(copies);
}
