/* SPDX-License-Identifier: MIT */
/*
 * The machine with real guests on /dev/kvm: it ends as its guest wants, stands still when told to,
 * and hops from machine to machine in the middle of whatever it does.
 */
#include "core/zero.h"
#include "tests/unit/machines.h"
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { HOPS = 40 };

/* The number that `text` begins with, and where it ends. */
static uint64_t read_number(const char **text)
{
    char *end;
    uint64_t number = strtoull(*text, &end, 10);
    ck_assert_msg(end != *text, "no number: %.60s", *text);
    *text = end;
    return number;
}

/* --- how runs end ------------------------------------------------------------------------- */

START_TEST(test_a_guest_ends_as_it_wants)
{
    static const struct {
        const char *guest, *cmdline;
        bool stop_at_reset;
        enum machine_outcome outcome;
    } cases[] = {
        {"poweroff", "", false, MACHINE_OFF},   {"first", "", true, MACHINE_RESET},
        {"reset", "", false, MACHINE_EXIT}, /* three resets, and its end */
        {"smp", "cpus=7", false, MACHINE_EXIT}, {"triple", "", false, MACHINE_CRASHED},
    };
    static const unsigned codes[] = {0, 0, 0, 1, 0}; /* smp finds one processor, not seven */
    for (size_t i = 0; i < array_size(cases); i++) {
        struct rig rig;
        rig_init(&rig, cases[i].guest, 1, cases[i].cmdline);
        machine_destroy(rig.machine);
        rig.config.stop_at_reset = cases[i].stop_at_reset;
        rig_create_machine(&rig, &rig.machine);
        struct machine_end end = rig_run_to_end(&rig);
        ck_assert_msg(end.outcome == cases[i].outcome, "%s: outcome %d", cases[i].guest,
                      end.outcome);
        ck_assert_uint_eq(end.code, codes[i]);
        if (end.outcome == MACHINE_CRASHED) {
            ck_assert_ptr_nonnull(strstr(end.crash.reason, "triple fault"));
            ck_assert_ptr_nonnull(strstr(end.crash.registers, "rip "));
            ck_assert_ptr_nonnull(strstr(end.crash.registers, "stack "));
        }
        rig_finish(&rig);
    }
}
END_TEST

static void handle_stopper(void *arg)
{
    machine_stop(arg);
}

START_TEST(test_anybody_may_stop_it)
{
    struct rig rig;
    struct thread stopper = {0};
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 2, 0);
    ck_assert_int_eq(thread_start(&stopper, "stopper", handle_stopper, rig.machine, NULL), 0);
    struct machine_end end = rig_run_to_end(&rig);
    thread_join(&stopper);
    ck_assert_int_eq(end.outcome, MACHINE_STOPPED);
    rig_finish(&rig);
}
END_TEST

START_TEST(test_a_bad_config_is_refused_in_words)
{
    static const struct {
        unsigned cpus;
        uint64_t memory;
        const char *words;
    } cases[] = {
        {0, 8 << 20, "vCPUs"},
        {1025, 8 << 20, "vCPUs"},
        {1, 4096, "memory"},
        {1, 1ull << 50, "memory"},
    };
    struct rig rig;
    rig_init(&rig, "first", 1, "");
    for (size_t i = 0; i < array_size(cases); i++) {
        struct machine *machine = NULL;
        struct err err = {0};
        struct machine_config config = rig.config;
        config.cpus = cases[i].cpus;
        config.memory = cases[i].memory;
        ck_assert_int_lt(machine_create(&machine, &config, &err), 0);
        ck_assert_ptr_null(machine);
        ck_assert_msg(strstr(err.text, cases[i].words), "%s", err.text);
    }
    rig_finish(&rig);
}
END_TEST

/* Interrupts get theirs late, and would be lost without a word. */
START_TEST(test_interrupts_find_descriptors_left)
{
    struct rig rig;
    struct rlimit limit;
    int spare = dup(0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)spare + 1;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    close(spare);
    rig_init(&rig, "rng", 1, "");
    struct machine_end end = rig_run_to_end(&rig);
    ck_assert_int_eq(end.outcome, MACHINE_EXIT);
    ck_assert_msg(end.code == 0, "%s", rig_tail(&rig));
    rig_finish(&rig);
}
END_TEST

/* --- standing still ----------------------------------------------------------------------- */

START_TEST(test_pause_and_resume_may_be_repeated)
{
    struct rig rig;
    rig_init(&rig, "counter", 2, "");
    machine_pause(rig.machine); /* it was never resumed */
    rig_run_until(&rig, 3, 0);
    machine_pause(rig.machine);
    machine_pause(rig.machine);
    size_t length = rig.length;
    machine_resume(rig.machine);
    machine_resume(rig.machine);
    machine_pause(rig.machine);
    rig_run_until(&rig, 3, 0);
    ck_assert_uint_gt(rig.length, length);
    rig_finish(&rig);
}
END_TEST

/* Two states of a machine that stands still are the same, but for the clocks of the host. */
START_TEST(test_nothing_moves_while_paused)
{
    struct rig rig;
    struct stream_buffer first, second;
    rig_init(&rig, "ticks", 1, "");
    rig_run_until(&rig, 5, 0);
    size_t ram = 8 << 20;
    void *before = malloc(ram);
    ck_assert_int_eq(memory_read(machine_memory(rig.machine), 0, before, ram), 0);
    rig_save(&rig, &first);
    machine_pause(rig.machine);
    rig_save(&rig, &second);
    const struct memory_range *ranges;
    memory_ranges(machine_memory(rig.machine), &ranges);
    ck_assert_int_eq(memcmp(before, ranges[0].host, ram), 0);
    ck_assert_uint_eq(first.length, second.length);
    free(before);
    stream_buffer_finish(&first);
    stream_buffer_finish(&second);
    rig_finish(&rig);
}
END_TEST

/* The console of the `ports` guest: "ready", then 0, 1, 2, ... and what it echoed in between. */
static void check_ports_console(const char *text, const char *sent, size_t sent_count)
{
    const char *at = strstr(text, "ready\n");
    ck_assert_ptr_nonnull(at);
    at += strlen("ready\n");
    size_t echoed = 0;
    for (uint64_t number = 0; strchr(at, '\n');) {
        if (*at == '<') {
            ck_assert_msg(echoed < sent_count && at[1] == sent[echoed] && at[2] == '>',
                          "echo %zu of %zu: %.20s", echoed, sent_count, at);
            echoed++;
            at += 3;
            continue;
        }
        uint64_t got = read_number(&at);
        ck_assert_msg(got == number && *at == '\n', "%lu after %lu", got, number - 1);
        number++;
        at++;
    }
    ck_assert_uint_eq(echoed, sent_count);
}

struct storm {
    struct rig *rig;
    atomic_bool done;
};

static size_t lines_of(struct rig *rig)
{
    pthread_mutex_lock(&rig->lock);
    size_t lines = rig->lines;
    pthread_mutex_unlock(&rig->lock);
    return lines;
}

/* Hundreds of kicks, as fast as they can be sent, for every line that the guest gets out. */
static void handle_storm(void *arg)
{
    struct storm *storm = arg;
    struct machine *machine = storm->rig->machine;
    for (size_t seen = 0; !atomic_load(&storm->done); sched_yield()) {
        size_t lines = lines_of(storm->rig);
        for (unsigned i = 0; lines != seen && i < 300; i++)
            vcpu_kick(machine->vcpus[i % machine->config.cpus]);
        seen = lines;
    }
}

START_TEST(test_a_storm_of_kicks_does_no_harm)
{
    struct rig rig;
    struct storm storm = {.rig = &rig};
    struct thread kicker = {0};
    rig_init(&rig, "ports", 1, "");
    ck_assert_int_eq(thread_start(&kicker, "kicker", handle_storm, &storm, NULL), 0);
    rig_run_until(&rig, 100, 0);
    rig_run_until(&rig, 100, 0);
    atomic_store(&storm.done, true);
    thread_join(&kicker);
    check_ports_console(rig.text, "", 0);
    rig_finish(&rig);
}
END_TEST

/* Hundreds of pauses, each after a chance number of bytes, most in the middle of an access. */
START_TEST(test_pauses_lose_and_repeat_no_access)
{
    struct rig rig;
    uint64_t seed = 7;
    rig_init(&rig, "ports", 1, "");
    for (unsigned i = 0; i < 300; i++)
        rig_run_until(&rig, 0, 1 + chance(&seed) % 7);
    check_ports_console(rig.text, "", 0);
    rig_finish(&rig);
}
END_TEST

/* --- hops --------------------------------------------------------------------------------- */

/* "count N N ...": the first goes up by one a line, the others never go down. */
static void check_counter_console(const char *text, unsigned cpus)
{
    uint64_t last[8] = {0};
    const char *at = text;
    while (strchr(at, '\n')) {
        ck_assert_msg(strncmp(at, "count", 5) == 0, "%.60s", at);
        at += 5;
        for (unsigned i = 0; i < cpus; i++) {
            uint64_t number = read_number(&at);
            if (i == 0)
                ck_assert_uint_eq(number, last[0] + 1);
            ck_assert_uint_ge(number, last[i]);
            last[i] = number;
        }
        ck_assert_int_eq(*at++, '\n');
    }
}

/* The numbers of the last whole line. */
static void last_counts(const struct rig *rig, unsigned cpus, uint64_t ret_counts[8])
{
    size_t at = rig->length;
    while (rig->text[at - 1] != '\n')
        at--;
    while (at >= 2 && rig->text[at - 2] != '\n')
        at--;
    const char *line = rig->text + at - 1 + strlen("count");
    for (unsigned i = 0; i < cpus; i++)
        ret_counts[i] = read_number(&line);
}

/* Every vCPU goes on: each number grows. */
static void run_until_all_count(struct rig *rig, unsigned cpus)
{
    uint64_t before[8], now[8];
    last_counts(rig, cpus, before);
    for (unsigned behind = 1, lines = 0; behind > 0; lines++) {
        ck_assert_msg(lines < 1000, "a vCPU stands still:\n%s", rig_tail(rig));
        rig_run_until(rig, 1, 0);
        last_counts(rig, cpus, now);
        behind = 0;
        for (unsigned i = 0; i < cpus; i++)
            behind += now[i] <= before[i];
    }
}

static void hop_counting(unsigned cpus)
{
    struct rig rig;
    uint64_t seed = 11;
    rig_init(&rig, "counter", cpus, "");
    rig_run_until(&rig, 2, 0);
    for (unsigned i = 0; i < HOPS; i++) {
        rig_run_for(&rig, 100 + chance(&seed) % 20000); /* in the middle of its registers */
        rig_hop(&rig);
        run_until_all_count(&rig, cpus);
    }
    check_counter_console(rig.text, cpus);
    rig_finish(&rig);
}

START_TEST(test_one_vcpu_counts_on_over_hops)
{
    hop_counting(1);
}
END_TEST

START_TEST(test_several_vcpus_count_on_over_hops)
{
    hop_counting(2);
    hop_counting(3);
}
END_TEST

/* Bytes go in as the port takes them; which ones it took is remembered. */
struct feed {
    char sent[4096];
    size_t count;
};

static void feed_some(struct rig *rig, struct feed *feed, size_t count)
{
    char bytes[16];
    ck_assert_uint_le(count, sizeof(bytes));
    for (size_t i = 0; i < count; i++)
        bytes[i] = (char)('a' + (feed->count + i) % 26);
    count = machine_input(rig->machine, (const uint8_t *)bytes, count);
    ck_assert_uint_le(feed->count + count, sizeof(feed->sent));
    memcpy(feed->sent + feed->count, bytes, count);
    feed->count += count;
}

/* On the main loop: while the machine runs, because a paused port takes nothing. */
struct feeder {
    struct loop_call call;
    struct rig *rig;
    struct feed *feed;
};

static void handle_feeder(void *arg)
{
    struct feeder *feeder = arg;
    feed_some(feeder->rig, feeder->feed, 5);
}

START_TEST(test_accesses_are_neither_lost_nor_repeated_by_hops)
{
    struct rig rig;
    struct feed feed = {.count = 0};
    uint64_t seed = 5;
    rig_init(&rig, "ports", 1, "");
    rig_run_until(&rig, 1, 0); /* "ready": its FIFOs are on */
    for (unsigned i = 0; i < 3 * HOPS; i++) {
        struct feeder feeder = {.rig = &rig, .feed = &feed};
        feeder.call = (struct loop_call){.handle = handle_feeder, .arg = &feeder};
        loop_post(machine_loop(rig.machine), &feeder.call);
        if (i % 2)
            rig_run_until(&rig, 0, 1 + chance(&seed) % 100);
        else
            rig_run_for(&rig, chance(&seed) % 5000);
        rig_hop(&rig);
    }
    rig_run_until(&rig, 20, 0); /* by now it has echoed all */
    ck_assert_uint_gt(feed.count, HOPS);
    check_ports_console(rig.text, feed.sent, feed.count);
    rig_finish(&rig);
}
END_TEST

/* Each line proves that PIT, APIC timer and RTC have interrupted since the line before. */
START_TEST(test_no_interrupt_is_lost_by_hops)
{
    struct rig rig;
    uint64_t seed = 3;
    rig_init(&rig, "ticks", 1, "");
    rig_run_until(&rig, 3, 0);
    for (unsigned i = 0; i < 3 * HOPS; i++) {
        rig_run_for(&rig, chance(&seed) % 3000);
        rig_hop(&rig);
        rig_run_until(&rig, 2, 0);
    }
    rig_finish(&rig);
}
END_TEST

/* The EOI of a level-triggered interrupt may be under way inside KVM, where nothing shows it. */
START_TEST(test_no_level_interrupt_is_lost_by_hops)
{
    struct rig rig;
    uint64_t seed = 4;
    rig_init(&rig, "level", 1, "");
    rig_run_until(&rig, 3, 0);
    for (unsigned i = 0; i < 2 * HOPS; i++) {
        rig_run_for(&rig, chance(&seed) % 3000);
        rig_hop(&rig);
        rig_run_until(&rig, 2, 0);
    }
    rig_finish(&rig);
}
END_TEST

/* Nobody has started yet: the others wait for their start-up message. */
START_TEST(test_a_machine_at_power_on_travels)
{
    struct rig rig;
    rig_init(&rig, "smp", 4, "cpus=4");
    rig_hop(&rig);
    rig_hop(&rig);
    struct machine_end end = rig_run_to_end(&rig);
    ck_assert_int_eq(end.outcome, MACHINE_EXIT);
    ck_assert_msg(end.code == 0, "%s", rig.text);
    rig_finish(&rig);
}
END_TEST

/* Halted, with no interrupt but the one that we cause afterwards. */
START_TEST(test_a_halted_guest_wakes_up_after_a_hop)
{
    struct rig rig;
    rig_init(&rig, "button", 1, "");
    rig_run_until(&rig, 1, 0); /* "ready" */
    rig_run_for(&rig, 2000);
    rig_hop(&rig);
    rig_run_for(&rig, 2000);
    rig_hop(&rig);
    machine_press_power_button(rig.machine);
    struct machine_end end = rig_run_to_end(&rig);
    ck_assert_msg(end.outcome == MACHINE_OFF, "outcome %d: %s", end.outcome, rig.text);
    rig_finish(&rig);
}
END_TEST

START_TEST(test_a_reset_after_a_hop_starts_again)
{
    struct rig rig;
    struct err err = {0};
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 3, 0);
    rig_hop(&rig);
    int ret = machine_reset(rig.machine, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    size_t before = rig.length;
    rig_run_until(&rig, 3, 0);
    /* The line that the reset cut short is not finished. */
    ck_assert_msg(strncmp(rig.text + before, "count 1 ", 8) == 0, "%s", rig.text + before);
    rig_finish(&rig);
}
END_TEST

/* A machine may go back to where it was, and does the same again. */
START_TEST(test_the_same_state_runs_twice)
{
    struct rig rig;
    struct stream_buffer state;
    struct err err = {0};
    rig_init(&rig, "counter", 1, "");
    rig_run_until(&rig, 4, 0);
    rig_save(&rig, &state);
    size_t ram = rig.config.memory, length = rig.length;
    void *memory = malloc(ram);
    ck_assert_int_eq(memory_read(machine_memory(rig.machine), 0, memory, ram), 0);
    char next[2][200];
    for (unsigned i = 0; i < 2; i++) {
        rig_run_until(&rig, 4, 0);
        snprintf(next[i], sizeof(next[i]), "%.10s", rig.text + length);
        ck_assert_int_eq(memory_write(machine_memory(rig.machine), 0, memory, ram), 0);
        stream_buffer_rewind(&state);
        int ret = machine_load(rig.machine, &state.stream, &err);
        ck_assert_msg(ret == 0, "%s", err.text);
        rig.length = length;
        rig.lines = 4;
    }
    ck_assert_str_eq(next[0], next[1]);
    free(memory);
    stream_buffer_finish(&state);
    rig_finish(&rig);
}
END_TEST

/* What arrives counts on zeroes where nothing came. */
START_TEST(test_a_blank_machine_has_only_zeroes)
{
    struct rig rig;
    const struct memory_range *ranges;
    rig_init(&rig, "counter", 1, "");
    machine_destroy(rig.machine);
    rig.machine = NULL;
    rig.config.blank = true;
    rig_create_machine(&rig, &rig.machine);
    unsigned count = memory_ranges(machine_memory(rig.machine), &ranges);
    for (unsigned i = 0; i < count; i++)
        for (uint64_t at = 0; at < ranges[i].size; at += PAGE_SIZE)
            ck_assert_msg(is_zero(ranges[i].host + at, PAGE_SIZE),
                          "page %llx of range %u holds something",
                          (unsigned long long)(at / PAGE_SIZE), i);
    rig_finish(&rig);
}
END_TEST

/* --- states that are refused -------------------------------------------------------------- */

static void refuse(struct rig *rig, const uint8_t *bytes, size_t length, const char *words)
{
    struct stream_buffer state;
    struct err err = {0};
    stream_buffer_init_read(&state, bytes, length);
    int ret = machine_load(rig->machine, &state.stream, &err);
    stream_buffer_finish(&state);
    ck_assert_msg(ret < 0, "loaded, though %s", words ? words : "it is broken");
    ck_assert_msg(err.text[0], "no word of why");
    if (words)
        ck_assert_msg(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
}

START_TEST(test_broken_states_are_refused_and_the_machine_runs_on)
{
    struct rig rig;
    struct stream_buffer good;
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 3, 0);
    rig_save(&rig, &good);
    uint8_t *bytes = malloc(good.length);
    for (size_t i = 0; i < 60; i++) {
        size_t cut = i < 20 ? i : i < 40 ? good.length - 1 - (i - 20) : i * good.length / 60;
        refuse(&rig, good.bytes, cut, NULL);
        memcpy(bytes, good.bytes, good.length);
        bytes[cut] ^= 0x10;
        refuse(&rig, bytes, good.length, NULL);
        if (i % 10 == 0)
            rig_run_until(&rig, 1, 0);
    }
    rig_run_until(&rig, 2, 0);
    check_counter_console(rig.text, 2);
    free(bytes);
    stream_buffer_finish(&good);
    rig_finish(&rig);
}
END_TEST

static struct device_ops counting_ops;
static void (*reset_of_ours)(struct device *device);
static unsigned resets;

static void count_reset(struct device *device)
{
    resets++;
    reset_of_ours(device);
}

/* A reset ends what the host does for a device: connections, requests. */
START_TEST(test_a_refused_state_resets_no_device)
{
    struct rig rig;
    struct stream_buffer good;
    rig_init(&rig, "counter", 1, "");
    rig_run_until(&rig, 2, 0);
    struct device *device = rig.machine->devices[rig.machine->device_count - 1];
    counting_ops = *device->ops;
    reset_of_ours = counting_ops.reset;
    counting_ops.reset = count_reset;
    device->ops = &counting_ops;
    resets = 0;
    rig_save(&rig, &good);
    refuse(&rig, good.bytes, good.length - 1, NULL);
    refuse(&rig, good.bytes, good.length / 2, NULL);
    ck_assert_uint_eq(resets, 0);
    ck_assert_int_eq(machine_load(rig.machine, &good.stream, NULL), 0);
    ck_assert_uint_eq(resets, 1);
    rig_run_until(&rig, 2, 0);
    stream_buffer_finish(&good);
    rig_finish(&rig);
}
END_TEST

/* Everything is in order for us, and KVM refuses the second vCPU when the first has its state. */
START_TEST(test_what_kvm_refuses_in_the_middle_is_taken_back)
{
    struct rig rig;
    struct stream_buffer good;
    uint32_t length;
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 3, 0);
    for (unsigned i = 0; i < 3; i++) {
        rig_save(&rig, &good);
        uint8_t *vcpu = rig_find_section(good.bytes, good.length, "vcpu", 1, &length);
        ck_assert_ptr_nonnull(vcpu);
        uint64_t cr0 = 1ull << 31; /* paging without protection */
        memcpy(vcpu + offsetof(struct vcpu_state, sregs) + offsetof(struct kvm_sregs2, cr0), &cr0,
               sizeof(cr0));
        rig_sign_section(vcpu, length, "vcpu");
        refuse(&rig, good.bytes, good.length, "vCPU 1: KVM refuses a vCPU's SREGS");
        stream_buffer_finish(&good);
        rig_run_until(&rig, 2, 0);
    }
    check_counter_console(rig.text, 2);
    rig_finish(&rig);
}
END_TEST

/* Guest time goes on from the last moment that a state can have, and what is saved then loads. */
START_TEST(test_a_state_of_the_end_of_time_can_be_saved_again)
{
    const uint64_t end = INT64_MAX;
    struct rig rig;
    struct stream_buffer state, again;
    uint32_t length;
    struct err err = {0};
    rig_init(&rig, "counter", 1, "");
    rig_run_until(&rig, 3, 0);
    rig_save(&rig, &state);
    uint8_t *clock = rig_find_section(state.bytes, state.length, "clock", 0, &length);
    ck_assert(clock && length == sizeof(end));
    memcpy(clock, &end, sizeof(end));
    rig_sign_section(clock, length, "clock");
    ck_assert_int_eq(machine_load(rig.machine, &state.stream, &err), 0);
    rig_run_for(&rig, 1000);
    ck_assert_uint_gt(guest_clock_now(&rig.machine->clock), end);
    rig_save(&rig, &again);
    ck_assert_int_eq(machine_load(rig.machine, &again.stream, &err), 0);
    stream_buffer_finish(&state);
    stream_buffer_finish(&again);
    rig_finish(&rig);
}
END_TEST

/* A sender who signs whatever he likes: it loads or not, but nothing of ours breaks. */
START_TEST(test_a_hostile_state_breaks_nothing)
{
    struct rig rig;
    struct stream_buffer good;
    uint64_t seed = 17;
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 3, 0);
    rig_save(&rig, &good);
    uint8_t *bytes = malloc(good.length);
    for (unsigned i = 0; i < 200; i++) {
        static const char *names[] = {"vcpu", "vcpu", "vcpu", "time", "clock"};
        const char *name = names[i % array_size(names)];
        uint32_t length, instance = i % array_size(names) == 1;
        memcpy(bytes, good.bytes, good.length);
        uint8_t *payload = rig_find_section(bytes, good.length, name, instance, &length);
        ck_assert_ptr_nonnull(payload);
        for (unsigned j = 0; j < 1 + chance(&seed) % 8; j++)
            payload[chance(&seed) % length] = (uint8_t)chance(&seed);
        rig_sign_section(payload, length, name);
        struct stream_buffer state;
        struct err err = {0};
        stream_buffer_init_read(&state, bytes, good.length);
        int ret = machine_load(rig.machine, &state.stream, &err);
        ck_assert(ret == 0 || err.text[0]);
        stream_buffer_finish(&state);
    }
    stream_buffer_rewind(&good);
    ck_assert_int_eq(machine_load(rig.machine, &good.stream, NULL), 0);
    rig_run_until(&rig, 3, 0);
    check_counter_console(rig.text, 2);
    free(bytes);
    stream_buffer_finish(&good);
    rig_finish(&rig);
}
END_TEST

/* An interrupt is under way to the guest in the state: the PIT's, once more than it ticked. However
 * often that is loaded before the guest runs, the guest goes on. */
START_TEST(test_an_interrupt_under_way_can_be_loaded_again)
{
    struct rig rig;
    struct stream_buffer state;
    struct kvm_vcpu_events events;
    uint32_t length;
    rig_init(&rig, "ticks", 1, "");
    rig_run_until(&rig, 3, 0);
    rig_save(&rig, &state);
    uint8_t *vcpu = rig_find_section(state.bytes, state.length, "vcpu", 0, &length);
    ck_assert_ptr_nonnull(vcpu);
    uint8_t *at = vcpu + offsetof(struct vcpu_state, events);
    memcpy(&events, at, sizeof(events));
    events.interrupt.injected = 1;
    events.interrupt.nr = 0x20;
    memcpy(at, &events, sizeof(events));
    rig_sign_section(vcpu, length, "vcpu");
    for (unsigned i = 0; i < 3; i++) {
        struct err err = {0};
        stream_buffer_rewind(&state);
        int ret = machine_load(rig.machine, &state.stream, &err);
        ck_assert_msg(ret == 0, "%s", err.text);
        refuse(&rig, state.bytes, state.length - 1, NULL);
        if (i == 1)
            rig_hop(&rig);
    }
    stream_buffer_finish(&state);
    rig_run_until(&rig, 5, 0);
    rig_finish(&rig);
}
END_TEST

START_TEST(test_a_state_for_another_machine_is_refused)
{
    struct rig one, two;
    struct stream_buffer state;
    rig_init(&one, "counter", 1, "");
    rig_init(&two, "counter", 2, "");
    rig_save(&two, &state);
    refuse(&one, state.bytes, state.length, "vcpu");
    stream_buffer_finish(&state);
    rig_save(&one, &state);
    refuse(&two, state.bytes, state.length, "vcpu");
    stream_buffer_finish(&state);
    rig_run_until(&one, 2, 0);
    rig_run_until(&two, 2, 0);
    rig_finish(&one);
    rig_finish(&two);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine");
    TCase *life = tcase_create("life"), *still = tcase_create("still"),
          *hops = tcase_create("hops"), *refused = tcase_create("refused");
    tcase_add_test(life, test_a_guest_ends_as_it_wants);
    tcase_add_test(life, test_anybody_may_stop_it);
    tcase_add_test(life, test_a_bad_config_is_refused_in_words);
    tcase_add_test(life, test_interrupts_find_descriptors_left);
    tcase_add_test(still, test_pause_and_resume_may_be_repeated);
    tcase_add_test(still, test_nothing_moves_while_paused);
    tcase_add_test(still, test_a_storm_of_kicks_does_no_harm);
    tcase_add_test(still, test_pauses_lose_and_repeat_no_access);
    tcase_add_test(hops, test_one_vcpu_counts_on_over_hops);
    tcase_add_test(hops, test_several_vcpus_count_on_over_hops);
    tcase_add_test(hops, test_accesses_are_neither_lost_nor_repeated_by_hops);
    tcase_add_test(hops, test_no_interrupt_is_lost_by_hops);
    tcase_add_test(hops, test_no_level_interrupt_is_lost_by_hops);
    tcase_add_test(hops, test_a_machine_at_power_on_travels);
    tcase_add_test(hops, test_a_halted_guest_wakes_up_after_a_hop);
    tcase_add_test(hops, test_a_reset_after_a_hop_starts_again);
    tcase_add_test(hops, test_the_same_state_runs_twice);
    tcase_add_test(hops, test_a_blank_machine_has_only_zeroes);
    tcase_add_test(refused, test_broken_states_are_refused_and_the_machine_runs_on);
    tcase_add_test(refused, test_a_refused_state_resets_no_device);
    tcase_add_test(refused, test_what_kvm_refuses_in_the_middle_is_taken_back);
    tcase_add_test(refused, test_a_state_of_the_end_of_time_can_be_saved_again);
    tcase_add_test(refused, test_a_hostile_state_breaks_nothing);
    tcase_add_test(refused, test_an_interrupt_under_way_can_be_loaded_again);
    tcase_add_test(refused, test_a_state_for_another_machine_is_refused);
    TCase *all[] = {life, still, hops, refused};
    for (size_t i = 0; i < array_size(all); i++) {
        tcase_set_timeout(all[i], PATIENCE_S + 20);
        suite_add_tcase(suite, all[i]);
    }
    return unit_main_with_kvm(suite, "test_machine");
}
