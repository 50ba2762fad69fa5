/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the machine share: whether there is a KVM, and a rig: a machine with a test
 * guest (tests/guest), its console in a buffer, and the ways to run it for a while and to make it
 * hop into a machine that has just been built.
 */
#pragma once

#include "core/clock.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include "vmm/machine_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the guests lie; the build says it. */
#ifndef GUEST_DIR
#define GUEST_DIR "build/tests/guest"
#endif

enum { MESON_SKIP = 77, PATIENCE_S = 100 };

/* Runs the suite, or says aloud that it cannot. What main returns. */
static inline int unit_main_with_kvm(Suite *suite, const char *name)
{
    struct kvm kvm;
    struct err err = {0};
    if (kvm_open(&kvm, &err) == 0) {
        kvm_close(&kvm);
        return unit_main(suite);
    }
    printf("SKIPPED %s: %s\n", name, err.text);
    srunner_free(srunner_create(suite));
    return MESON_SKIP;
}

struct rig {
    struct machine *machine;
    struct machine_config config;
    struct serial_host serial;
    char kernel[256];
    struct loop_timer end_of_run;

    pthread_mutex_t lock; /* all below: the vCPUs write it */
    char *text;           /* the console, over all hops */
    size_t length, capacity;
    size_t lines;
    size_t stop_length, stop_lines; /* the run ends when the console is that long; 0: never */
    bool late;
};

static inline void rig_output(void *ctx, const uint8_t *bytes, size_t length)
{
    struct rig *rig = ctx;
    pthread_mutex_lock(&rig->lock);
    if (rig->length + length + 1 > rig->capacity) {
        rig->capacity = 2 * (rig->length + length + 1);
        rig->text = realloc(rig->text, rig->capacity);
    }
    memcpy(rig->text + rig->length, bytes, length);
    rig->length += length;
    rig->text[rig->length] = '\0';
    for (size_t i = 0; i < length; i++)
        rig->lines += bytes[i] == '\n';
    bool stop = (rig->stop_length && rig->length >= rig->stop_length) ||
                (rig->stop_lines && rig->lines >= rig->stop_lines);
    if (stop)
        rig->stop_length = rig->stop_lines = 0;
    struct loop *loop = rig->machine ? machine_loop(rig->machine) : NULL;
    pthread_mutex_unlock(&rig->lock);
    if (stop)
        loop_stop(loop);
}

static inline void rig_input_room(void *ctx)
{
}

static inline void rig_create_machine(struct rig *rig, struct machine **ret_machine)
{
    struct err err = {0};
    int ret = machine_create(ret_machine, &rig->config, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

/* A machine of 8 MiB with this guest, at power-on. */
static inline void rig_init(struct rig *rig, const char *guest, unsigned cpus, const char *cmdline)
{
    *rig = (struct rig){0};
    pthread_mutex_init(&rig->lock, NULL);
    snprintf(rig->kernel, sizeof(rig->kernel), "%s/%s.elf", GUEST_DIR, guest);
    rig->serial = (struct serial_host){
        .output = rig_output, .input_room = rig_input_room, .ctx = rig};
    rig->config = (struct machine_config){.kernel = rig->kernel,
                                          .cmdline = cmdline,
                                          .cpus = cpus,
                                          .memory = 8ull << 20,
                                          .exit_port = true,
                                          .serial = &rig->serial};
    rig_create_machine(rig, &rig->machine);
}

static inline void rig_finish(struct rig *rig)
{
    machine_destroy(rig->machine);
    free(rig->text);
    pthread_mutex_destroy(&rig->lock);
}

static inline void rig_handle_late(void *arg)
{
    struct rig *rig = arg;
    rig->late = true;
    loop_stop(machine_loop(rig->machine));
}

static inline void rig_handle_enough(void *arg)
{
    struct rig *rig = arg;
    loop_stop(machine_loop(rig->machine));
}

/* The last that the guest said. */
static inline const char *rig_tail(const struct rig *rig)
{
    return !rig->text ? "" : rig->text + (rig->length > 300 ? rig->length - 300 : 0);
}

/* Runs until somebody stops the loop or the guest ends, or the time is over. */
static inline struct machine_end rig_run(struct rig *rig, void (*handle_time)(void *arg),
                                         uint64_t ns)
{
    struct machine_end end = {0};
    struct err err = {0};
    loop_timer_init(&rig->end_of_run, machine_loop(rig->machine), handle_time, rig);
    ck_assert_int_eq(loop_timer_arm(&rig->end_of_run, clock_monotonic_ns() + ns), 0);
    machine_resume(rig->machine);
    int ret = machine_run(rig->machine, &end, &err);
    loop_timer_cancel(&rig->end_of_run);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_msg(!rig->late, "nothing more came after:\n%s", rig_tail(rig));
    return end;
}

static inline void rig_check_goes_on(const struct rig *rig, const struct machine_end *end)
{
    ck_assert_msg(end->outcome == 0, "outcome %d, code %u: %s\n%s", end->outcome, end->code,
                  end->crash.reason, rig_tail(rig));
}

/* The guest goes on for that long, and does not end. */
static inline void rig_run_for(struct rig *rig, uint64_t us)
{
    struct machine_end end = rig_run(rig, rig_handle_enough, us * 1000);
    rig_check_goes_on(rig, &end);
}

/* Runs until so many more lines, or bytes, have come; the guest stops somewhere behind them. */
static inline void rig_run_until(struct rig *rig, size_t more_lines, size_t more_bytes)
{
    pthread_mutex_lock(&rig->lock);
    size_t lines = more_lines ? rig->lines + more_lines : 0;
    size_t length = more_bytes ? rig->length + more_bytes : 0;
    rig->stop_lines = lines;
    rig->stop_length = length;
    pthread_mutex_unlock(&rig->lock);
    /* A stop that was meant for the run before may end this one. */
    while (rig->lines < lines || rig->length < length) {
        struct machine_end end = rig_run(rig, rig_handle_late, PATIENCE_S * NS_PER_SEC);
        rig_check_goes_on(rig, &end);
    }
}

/* Runs to the guest's own end. */
static inline struct machine_end rig_run_to_end(struct rig *rig)
{
    return rig_run(rig, rig_handle_late, PATIENCE_S * NS_PER_SEC);
}

static inline void rig_save(struct rig *rig, struct stream_buffer *ret_state)
{
    struct err err = {0};
    stream_buffer_init(ret_state, 0);
    int ret = machine_save(rig->machine, &ret_state->stream, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    stream_buffer_rewind(ret_state);
}

static inline void rig_copy_memory(struct machine *from, struct machine *to)
{
    const struct memory_range *source, *target;
    unsigned count = memory_ranges(machine_memory(from), &source);
    ck_assert_uint_eq(memory_ranges(machine_memory(to), &target), count);
    for (unsigned i = 0; i < count; i++)
        memcpy(target[i].host, source[i].host, source[i].size);
}

/* The guest goes on in another machine; the one that it leaves is gone. */
static inline void rig_hop(struct rig *rig)
{
    struct stream_buffer state;
    struct machine *next;
    struct err err = {0};
    rig_save(rig, &state);
    rig_create_machine(rig, &next);
    rig_copy_memory(rig->machine, next);
    int ret = machine_load(next, &state.stream, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    stream_buffer_finish(&state);
    /* Guest time stood still on the way. */
    ck_assert_uint_eq(guest_clock_now(&next->clock), guest_clock_now(&rig->machine->clock));
    machine_destroy(rig->machine);
    rig->machine = next;
}

/* The payload of a section (core/state.h), with its length; NULL: not there. */
static inline uint8_t *rig_find_section(uint8_t *bytes, size_t length, const char *name,
                                        uint32_t instance, uint32_t *ret_length)
{
    for (size_t at = 0; at < length;) {
        size_t name_length = bytes[at];
        uint32_t number, payload;
        memcpy(&number, bytes + at + 1 + name_length, 4);
        memcpy(&payload, bytes + at + 1 + name_length + 6, 4);
        *ret_length = payload;
        if (name_length == strlen(name) && memcmp(bytes + at + 1, name, name_length) == 0 &&
            number == instance)
            return bytes + at + 1 + name_length + 10;
        at += 1 + name_length + 10 + payload + 4;
    }
    return NULL;
}

/* Makes the section's checksum right again. */
static inline void rig_sign_section(uint8_t *payload, uint32_t length, const char *name)
{
    size_t head = 1 + strlen(name) + 10;
    uint32_t sum = crc32c(0, payload - head, head + length);
    memcpy(payload + length, &sum, 4);
}
