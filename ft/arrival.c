/* SPDX-License-Identifier: MIT */
#include "ft/arrival_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/compare.h"
#include "ft/handover.h"
#include "ft/ownership.h"
#include "ft/page_frames.h"
#include "host/disk_yield.h"
#include "host/lock.h"
#include "host/meminfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the beginning ---------------------------------------------------------------------------- */

static int answer_question(struct arrival *arrival, int place, struct err *err)
{
    uint8_t ticket[MOVING_TICKET], wanted[MOVING_TICKET], ours[MOVING_TICKET];
    stream_read(&arrival->payload.stream, ticket, sizeof(ticket));
    stream_read(&arrival->payload.stream, wanted, sizeof(wanted));
    if (stream_error(&arrival->payload.stream) < 0)
        return err_say(err, ERR_FAILED, EBADMSG, "a frame ASK makes no sense");
    const uint8_t nowhere[MOVING_TICKET] = {0};
    bool of_owner = memcmp(wanted, nowhere, sizeof(wanted)) == 0;
    enum frame_ack answer = of_owner ? ownership_answer(place, ticket)
                            : handover_place(place, ours, NULL) < 0 ||
                                    memcmp(ours, wanted, sizeof(ours)) != 0
                                ? FRAME_UNKNOWN
                                : handover_answer(place, ticket);
    moving_put_ack(link_writer(arrival->link), answer);
    return stream_flush(link_writer(arrival->link)) < 0
               ? err_say(err, ERR_FAILED, EPIPE, "the connection is lost")
               : 1;
}

static int next_frame(struct arrival *arrival, struct frame *ret_frame, struct err *err)
{
    return moving_read(link_reader(arrival->link), ret_frame, &arrival->payload, &arrival->tally,
                       err);
}

int arrival_out_of_place(const struct frame *frame, struct err *err)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a frame %s comes where none may",
                   frame_name(frame->kind));
}

static int read_folder(struct arrival *arrival, struct err *err)
{
    struct frame frame;
    for (;;) {
        struct moving_file file;
        struct moving_disk disk;
        struct moving_shared shared;
        int ret = next_frame(arrival, &frame, err);
        if (ret < 0)
            return ret;
        switch (frame.kind) {
        case FRAME_FILE:
            ret = moving_get_file(&arrival->payload, &file, err);
            if (ret == 0)
                ret = arrival_folder_add_file(&arrival->folder, &file, err);
            break;
        case FRAME_DISK:
            ret = moving_get_disk(&arrival->payload, &disk, err);
            if (ret == 0)
                ret = arrival_folder_add_disk(&arrival->folder, &disk, err);
            break;
        case FRAME_SHARED: /* which a twin would write to while the VM runs elsewhere */
            ret = arrival_follows(arrival) ? arrival_out_of_place(&frame, err)
                                           : moving_get_shared(&arrival->payload, &shared, err);
            if (ret == 0)
                ret = arrival_folder_add_shared(&arrival->folder, &shared, err);
            break;
        case FRAME_OPEN:
            return arrival_folder_end(&arrival->folder, err);
        default:
            ret = arrival_out_of_place(&frame, err);
        }
        if (ret < 0)
            return ret;
    }
}

/* A VM may use all that it has, and whoever has too little for that loses it later, to the kernel.
 */
static int check_memory(const struct arrival *arrival, struct err *err)
{
    uint64_t wanted = machine_model_memory(arrival->model);
    uint64_t free = meminfo_find("MemAvailable") + meminfo_find("SwapFree");
    if (wanted <= free)
        return 0;
    int ret = err_say(err, ERR_STATE, ENOMEM,
                      "it has %llu MiB of memory, and this host has %llu MiB to give",
                      (unsigned long long)(wanted >> 20), (unsigned long long)(free >> 20));
    err_hint(err, "stop something else there, or add swap");
    return ret;
}

static int read_head(struct arrival *arrival, int place, const char *path, struct err *err)
{
    struct frame frame;
    int ret = next_frame(arrival, &frame, err);
    if (ret == 0 && frame.kind == FRAME_ASK)
        return answer_question(arrival, place, err);
    if (ret == 0 && frame.kind == FRAME_FOLLOW) {
        ret = following_get(&arrival->payload, &arrival->following, err);
        if (ret == 0)
            ret = next_frame(arrival, &frame, err);
    }
    if (ret == 0 && frame.kind != FRAME_HELLO)
        ret = arrival_out_of_place(&frame, err);
    if (ret == 0)
        ret = machine_model_create(&arrival->model, err);
    if (ret == 0)
        ret = moving_get_hello(&arrival->payload, &arrival->hello, arrival->model, err);
    if (ret == 0)
        ret = machine_model_check_host(arrival->model, err);
    if (ret == 0)
        ret = check_memory(arrival, err);
    if (ret == 0)
        ret = arrival_folder_begin(&arrival->folder, place, path, &arrival->hello,
                                   &arrival->following, err);
    return ret < 0 ? ret : read_folder(arrival, err);
}

void arrival_refuse(struct arrival *arrival, const struct err *err)
{
    moving_put_error(link_writer(arrival->link), err);
    (void)!stream_flush(link_writer(arrival->link));
}

/* Whoever takes over goes the same way back. */
static void note_link(struct arrival *arrival, const struct arrival_config *config)
{
    arrival->insecure = config->link.insecure;
    arrival->has_key = config->link.key;
    if (config->link.key)
        arrival->key = *config->link.key;
    if (!config->key_path || !realpath(config->key_path, arrival->key_path))
        arrival->key_path[0] = '\0';
    if (config->finder && config->finder->path[0]) {
        arrival->has_key = true;
        arrival->key = config->finder->key;
        memcpy(arrival->key_path, config->finder->path, sizeof(arrival->key_path));
    }
}

int arrival_accept(struct arrival **ret_arrival, int socket, const struct arrival_config *config,
                   struct err *err)
{
    struct arrival *arrival = calloc(1, sizeof(*arrival));
    if (!arrival) {
        close(socket);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot take a VM in");
    }
    stream_buffer_init(&arrival->payload, 0);
    stream_buffer_init(&arrival->state, 0);
    arrival->folder.fd = -1;
    pthread_mutex_init(&arrival->writing, NULL);
    int ret = link_accept(&arrival->link, socket, &config->link, err);
    note_link(arrival, config);
    if (ret == 0) {
        link_set_timeout(arrival->link, MOVING_SILENCE_MS);
        ret = read_head(arrival, config->place, config->path, err);
        if (ret < 0)
            arrival_refuse(arrival, err);
    }
    if (ret != 0) {
        arrival_destroy(arrival);
        return ret;
    }
    *ret_arrival = arrival;
    return 0;
}

const char *arrival_folder(const struct arrival *arrival)
{
    return arrival->folder.path;
}

const char *arrival_peer(const struct arrival *arrival)
{
    return link_peer(arrival->link);
}

uint32_t arrival_absent_disks(const struct arrival *arrival)
{
    uint32_t places = 0;
    for (unsigned i = 0; i < arrival->folder.shared_count; i++)
        places |= 1u << arrival->folder.shared[i].place;
    return places;
}

void arrival_identity(const struct arrival *arrival, struct identity *ret_identity)
{
    *ret_identity = (struct identity){0};
    memcpy(ret_identity->uuid, arrival->hello.uuid, sizeof(ret_identity->uuid));
    memcpy(ret_identity->generation, arrival->hello.generation, sizeof(ret_identity->generation));
    memcpy(ret_identity->macs, arrival->hello.macs, sizeof(ret_identity->macs));
}

/* --- receiving -------------------------------------------------------------------------------- */

static int put_page(void *ctx, uint64_t page, const uint8_t *bytes)
{
    struct arrival *arrival = ctx;
    if (page >= arrival->pages)
        return -EBADMSG;
    uint64_t *word = &arrival->touched[page / 64], bit = 1ull << page % 64;
    uint8_t *to = arrival->host + page * PAGE_SIZE;
    if (bytes)
        memcpy(to, bytes, PAGE_SIZE);
    else if (*word & bit)
        memset(to, 0, PAGE_SIZE);
    if (bytes)
        *word |= bit;
    return 0;
}

static const uint8_t *held_page(void *ctx, uint64_t page)
{
    const struct arrival *arrival = ctx;
    return page < arrival->pages ? arrival->host + page * PAGE_SIZE : NULL;
}

static uint8_t *room_for(void *ctx, uint64_t first, unsigned count)
{
    struct arrival *arrival = ctx;
    if (first >= arrival->pages || count > arrival->pages - first)
        return NULL;
    for (uint64_t page = first; page < first + count; page++)
        arrival->touched[page / 64] |= 1ull << page % 64;
    return arrival->host + first * PAGE_SIZE;
}

static int read_memory(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct arrival *arrival = ctx;
    memcpy(bytes, arrival->host + offset, length);
    return 0;
}

static int compare(struct arrival *arrival, struct err *err)
{
    const struct compare_what memory = {
        .size = arrival->pages * PAGE_SIZE, .read = read_memory, .ctx = arrival};
    uint32_t place;
    int ret = compare_place(&arrival->payload, &place, err);
    if (ret < 0)
        return ret;
    return place == COMPARE_MEMORY
               ? compare_check(&arrival->payload, "guest memory", &memory, err)
               : arrival_folder_compare(&arrival->folder, place, &arrival->payload, err);
}

int arrival_take_block(struct arrival *arrival, struct err *err)
{
    struct moving_block block;
    int ret = moving_get_block(&arrival->payload, &block, err);
    return ret < 0 ? ret : arrival_folder_put_block(&arrival->folder, &block, err);
}

int arrival_load(struct arrival *arrival, struct err *err)
{
    stream_buffer_rewind(&arrival->state);
    return machine_load(arrival->machine, &arrival->state.stream, err);
}

int arrival_try(struct arrival *arrival, struct err *err)
{
    stream_buffer_rewind(&arrival->state);
    return machine_try(arrival->machine, &arrival->state.stream, err);
}

static int step_load(void *ctx, struct err *err)
{
    return arrival_load(ctx, err);
}

static int step_open(void *ctx, struct err *err)
{
    struct arrival *arrival = ctx;
    int ret = 0;
    for (unsigned i = 0; i < arrival->folder.shared_count && ret == 0; i++)
        ret = disk_regain(machine_disk(arrival->machine, arrival->folder.shared[i].place), err);
    return ret;
}

static int acknowledge(struct arrival *arrival, enum frame_ack what, struct err *err)
{
    pthread_mutex_lock(&arrival->writing);
    moving_put_ack(link_writer(arrival->link), what);
    int ret = stream_flush(link_writer(arrival->link));
    pthread_mutex_unlock(&arrival->writing);
    return ret < 0 ? err_say(err, ERR_FAILED, EPIPE, "the connection is lost") : 0;
}

/* Only for people: where it does not arrive, so be it. */
static void tell_announced(struct arrival *arrival, uint32_t us)
{
    if (arrival->hello.protocol < 2)
        return;
    pthread_mutex_lock(&arrival->writing);
    moving_put_announced(link_writer(arrival->link), us);
    (void)!stream_flush(link_writer(arrival->link));
    pthread_mutex_unlock(&arrival->writing);
}

static void handle_announced(void *arg)
{
    struct arrival *arrival = arg;
    uint64_t us = (clock_monotonic_ns() - arrival->go_ns) / 1000;
    tell_announced(arrival, us < MOVING_UNHEARD ? (uint32_t)us : MOVING_UNHEARD - 1);
}

static int step_go(void *ctx, struct err *err)
{
    struct arrival *arrival = ctx;
    arrival->announced_call = (struct loop_call){.handle = handle_announced, .arg = arrival};
    instance_take_settings(arrival->instance, &arrival->settings);
    machine_hear_announcement(arrival->machine, &arrival->announced_call);
    if (!machine_announce(arrival->machine))
        tell_announced(arrival, MOVING_UNHEARD);
    instance_release(arrival->instance);
    return 0;
}

static int take_epoch(struct arrival *arrival, struct err *err)
{
    if (arrival->state.length == 0)
        return err_say(err, ERR_FAILED, EBADMSG, "the VM's state is missing");
    int ret = arrival_folder_sync(&arrival->folder, err);
    if (ret == 0)
        ret = loop_step_do(&arrival->step, step_load, arrival, err);
    return ret < 0 ? ret : acknowledge(arrival, FRAME_READY, err);
}

static int open_shared(struct arrival *arrival, bool ready, struct err *err)
{
    if (!ready || arrival->opened)
        return err_say(err, ERR_FAILED, EBADMSG, "disks are handed over that cannot be");
    int ret = loop_step_do(&arrival->step, step_open, arrival, err);
    arrival->opened = ret == 0;
    return ret < 0 ? ret : acknowledge(arrival, FRAME_OPENED, err);
}

/* From here on it is ours, whatever becomes of the connection. */
static int take_over(struct arrival *arrival, bool ready, struct err *err)
{
    uint8_t ticket[MOVING_TICKET];
    stream_read(&arrival->payload.stream, ticket, sizeof(ticket));
    if (!ready || !arrival->opened || memcmp(ticket, arrival->hello.ticket, sizeof(ticket)) != 0)
        return err_say(err, ERR_FAILED, EBADMSG, "the VM is handed over before it is here");
    arrival->go_ns = clock_monotonic_ns();
    int ret = handover_claim(arrival->folder.fd, err);
    if (ret < 0)
        return ret;
    arrival->come = true;
    ret = loop_step_do(&arrival->step, step_go, arrival, err);
    (void)!acknowledge(arrival, FRAME_YOURS, NULL); /* or it asks */
    return ret;
}

static void take_state(struct arrival *arrival)
{
    struct stream_buffer swap = arrival->state;
    arrival->state = arrival->payload;
    arrival->payload = swap;
}

static int take_frame(struct arrival *arrival, const struct frame *frame, bool *ready,
                      struct err *err)
{
    int ret;
    if (*ready && frame->kind != FRAME_GO && frame->kind != FRAME_RELEASED)
        return arrival_out_of_place(frame, err);
    switch (frame->kind) {
    case FRAME_BLOCKS:
        return arrival_take_block(arrival, err);
    case FRAME_ROUND:
        ret = arrival_folder_sync(&arrival->folder, err);
        return ret < 0 ? ret : acknowledge(arrival, FRAME_STORED, err);
    case FRAME_COMPARE:
        return compare(arrival, err);
    case FRAME_STATE:
        take_state(arrival);
        return 0;
    case FRAME_SETTINGS:
        return following_get_settings(&arrival->payload, &arrival->settings, err);
    case FRAME_COMMIT:
        ret = take_epoch(arrival, err);
        *ready = ret == 0;
        return ret;
    case FRAME_RELEASED:
        return open_shared(arrival, *ready, err);
    case FRAME_GO:
        return take_over(arrival, *ready, err);
    default:
        return arrival_out_of_place(frame, err);
    }
}

int arrival_take_pages(struct arrival *arrival, const struct frame *frame, struct err *err)
{
    const struct page_taker taker = {
        .held = held_page, .put = put_page, .room = room_for, .ctx = arrival};
    return page_frame_read(link_reader(arrival->link), frame, &taker, &arrival->tally, err);
}

static int take_next(struct arrival *arrival, bool *ready, struct err *err)
{
    struct stream *stream = link_reader(arrival->link);
    struct frame frame;
    int ret = frame_read_head(stream, &frame, err);
    bool pages = ret == 0 && frame.kind == FRAME_PAGES && !*ready;
    if (pages)
        ret = arrival_take_pages(arrival, &frame, err);
    else if (ret == 0)
        ret = frame_read_rest(stream, &frame, &arrival->payload, &arrival->tally, err);
    if (ret < 0)
        return moving_say(stream, ret, err);
    return pages ? 0 : take_frame(arrival, &frame, ready, err);
}

static void say_unwanted(const struct arrival *arrival, struct err *err)
{
    (void)!err_say(err, ERR_STATE, ECANCELED, "%s was stopped at the target while it arrived",
                   arrival->hello.name);
}

static void run(void *arg)
{
    struct arrival *arrival = arg;
    bool ready = false;
    int ret = 0;
    while (ret == 0 && !arrival->come) {
        ret = take_next(arrival, &ready, &arrival->err);
        if (ready) /* the other side notes something on its disk */
            link_set_timeout(arrival->link, 0);
    }
    if (ret < 0 && arrival->unwanted)
        say_unwanted(arrival, &arrival->err); /* which was said already */
    else if (ret < 0 && !arrival->come && arrival->err.kind)
        arrival_refuse(arrival, &arrival->err);
    loop_post(instance_loop(arrival->instance), &arrival->end_call);
}

static void handle_end(void *arg)
{
    struct arrival *arrival = arg;
    if (!arrival->thread.started)
        return;
    thread_join(&arrival->thread);
    arrival->thread.started = false;
    if (arrival->come)
        log_info("%s has come from %s, and runs", arrival->hello.name, arrival_peer(arrival));
    else
        instance_stop(arrival->instance, "migration");
}

/* --- shared disks ----------------------------------------------------------------------------- */

/*
 * What lies at that name here is what the source has open, and who has it is seen from both. Opened
 * as if to write: an NFS client that was promised that nobody else writes (a delegation) keeps
 * locks to itself, and this makes the server take that back. Nothing is written, and nothing but
 * the lock says who may.
 */
static int check_mark(const struct moving_shared *shared, const char *path, struct err *err)
{
    int how = shared->mark ? O_RDWR : O_RDONLY;
    int fd = open(path, how | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open %s", path);
    bool same = shared->mark == 0 || lock_has_mark(fd, shared->mark);
    close(fd);
    if (same)
        return 0;
    err_say(err, ERR_STATE, EXDEV,
            "%s is not the file that the VM has open, or its file system does not show locks to "
            "other hosts",
            path);
    err_hint(err, "without --shared-disk its disks go along");
    return -EXDEV;
}

static int check_shared(const struct arrival *arrival, struct err *err)
{
    const struct definition *definition = instance_config(arrival->instance)->definition;
    int ret = 0;
    for (unsigned i = 0; i < arrival->folder.shared_count && ret == 0; i++) {
        const struct moving_shared *shared = &arrival->folder.shared[i];
        if (shared->place >= definition->disk_count)
            return err_say(err, ERR_FAILED, EBADMSG, "a disk comes that vm.json does not have");
        const char *path = definition->disks[shared->place].path;
        struct disk *disk = machine_disk(arrival->machine, shared->place);
        ret = check_mark(shared, path, err);
        if (ret == 0 && disk->info.size != shared->size)
            ret = err_say(err, ERR_STATE, EXDEV, "%s has %llu bytes here, and %llu where it runs",
                          path, (unsigned long long)disk->info.size,
                          (unsigned long long)shared->size);
        if (ret == 0 && shared->mark == 0 && disk_is_yielded(disk))
            ret = err_say(err, ERR_FAILED, EBADMSG, "a disk that is written comes without a mark");
    }
    return ret;
}

/* --- a part of the VM ------------------------------------------------------------------------- */

int arrival_prepare(struct arrival *arrival, struct instance *instance, struct err *err)
{
    const struct memory_range *ranges;
    arrival->instance = instance;
    arrival->machine = instance_machine(instance);
    loop_step_init(&arrival->step, instance_loop(instance));
    arrival->opened = arrival->folder.shared_count == 0;
    int ret = machine_model_check(arrival->model, arrival->machine, err);
    if (ret == 0)
        ret = check_shared(arrival, err);
    if (ret < 0)
        return ret;
    struct memory *memory = machine_memory(arrival->machine);
    memory_ranges(memory, &ranges);
    arrival->host = ranges[0].host;
    arrival->pages = memory_size(memory) / PAGE_SIZE;
    arrival->touched = calloc(arrival->pages / 64 + 1, sizeof(*arrival->touched));
    return arrival->touched ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot take a VM in");
}

bool arrival_follows(const struct arrival *arrival)
{
    return arrival->following.generation != 0;
}

int arrival_begin(struct arrival *arrival, struct instance *instance, struct err *err)
{
    uint8_t place[MOVING_TICKET];
    arrival->end_call = (struct loop_call){.handle = handle_end, .arg = arrival};
    int ret = arrival_prepare(arrival, instance, err);
    if (ret == 0)
        ret = handover_place(arrival->folder.place, place, err);
    if (ret == 0) {
        moving_put_welcome(link_writer(arrival->link), place);
        ret = stream_flush(link_writer(arrival->link)) < 0
                  ? err_say(err, ERR_FAILED, EPIPE, "the connection is lost")
                  : 0;
    }
    return ret < 0 ? ret : thread_start(&arrival->thread, "arrival", run, arrival, err);
}

/* Whoever renames the mark first decides: this, take_over, or a question of the source's. */
bool arrival_give_up(struct arrival *arrival)
{
    struct err err = {0};
    if (!arrival->thread.started)
        return !arrival->come;
    if (!arrival->unwanted && handover_decline(arrival->folder.fd) < 0)
        return false;
    if (atomic_exchange(&arrival->unwanted, true))
        return true;
    say_unwanted(arrival, &err);
    pthread_mutex_lock(&arrival->writing);
    arrival_refuse(arrival, &err);
    pthread_mutex_unlock(&arrival->writing);
    return true;
}

void arrival_abandon(struct arrival *arrival)
{
    if (!arrival->thread.started)
        return;
    loop_step_abandon(&arrival->step);
    link_break(arrival->link);
    thread_join(&arrival->thread);
    arrival->thread.started = false;
}

bool arrival_has_come(const struct arrival *arrival)
{
    return arrival->come;
}

const struct err *arrival_error(const struct arrival *arrival)
{
    return &arrival->err;
}

void arrival_destroy(struct arrival *arrival)
{
    if (!arrival)
        return;
    arrival_folder_finish(&arrival->folder, arrival->come || arrival->stays);
    link_destroy(arrival->link);
    machine_model_destroy(arrival->model);
    stream_buffer_finish(&arrival->payload);
    stream_buffer_finish(&arrival->state);
    explicit_bzero(&arrival->key, sizeof(arrival->key));
    free(arrival->touched);
    loop_step_finish(&arrival->step);
    pthread_mutex_destroy(&arrival->writing);
    free(arrival);
}
