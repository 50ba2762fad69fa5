/* SPDX-License-Identifier: MIT */
/*
 * The guest that watches everything (tests/guest/steady.c) hops from machine to machine and goes
 * back to where it was, and finds nothing wrong. And it does find what went wrong on the way: a
 * test that hops is worth as much as its guest notices.
 */
#include "tests/unit/machines.h"

#include <linux/kvm.h>
#include <unistd.h>

enum { HOPS = 30, RETURNS = 8, DISK_BYTES = 32 << 10, PAGE = 4096, EXIT_WRONG = 2 };
enum { ID_PLACE = 0xef000 }; /* the VM generation id's: firmware/x86/layout.h */
enum { TICK_VECTOR = 0x51, CALL_VECTOR = 0x61, ANSWER_VECTOR = 0x62 };

/* The first words of its pages: the name of processor 0's, and a sequence number. */
#define PAGE_NAME 0x7374656164790000u
#define PAGES     256u

struct steady {
    struct rig rig;
    struct disk_config disk;
    char path[32];
};

static void steady_init(struct steady *steady, unsigned cpus, const char *cmdline)
{
    *steady = (struct steady){.path = "/tmp/minivmm-test-XXXXXX"};
    int fd = mkstemp(steady->path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    steady->disk.path = steady->path;
    rig_init(&steady->rig, "steady", cpus, cmdline);
    machine_destroy(steady->rig.machine);
    steady->rig.machine = NULL;
    steady->rig.config.disks = &steady->disk;
    steady->rig.config.disk_count = 1;
    steady->rig.config.generation[0] = 1; /* in each machine the same VM */
    rig_create_machine(&steady->rig, &steady->rig.machine);
}

static void steady_finish(struct steady *steady)
{
    rig_finish(&steady->rig);
    unlink(steady->path);
}

static void check_nothing_is_wrong(const struct steady *steady)
{
    ck_assert_msg(!strstr(steady->rig.text, "WRONG"), "%s", rig_tail(&steady->rig));
}

/* --- what a guest takes along --------------------------------------------------------------- */

/* One moment: the machine's state, its memory (one range), its disk. */
struct moment {
    struct stream_buffer state;
    uint8_t *memory;
    uint8_t disk[DISK_BYTES];
};

static struct memory_range the_range(struct machine *machine)
{
    const struct memory_range *ranges;
    ck_assert_uint_eq(memory_ranges(machine_memory(machine), &ranges), 1);
    return ranges[0];
}

static struct moment *moment_take(struct steady *steady)
{
    struct moment *moment = calloc(1, sizeof(*moment));
    struct memory_range range = the_range(steady->rig.machine);
    rig_save(&steady->rig, &moment->state);
    moment->memory = malloc(range.size);
    memcpy(moment->memory, range.host, range.size);
    FILE *file = fopen(steady->path, "rb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(moment->disk, 1, DISK_BYTES, file), DISK_BYTES);
    fclose(file);
    return moment;
}

static void moment_forget(struct moment *moment)
{
    stream_buffer_finish(&moment->state);
    free(moment->memory);
    free(moment);
}

static void put_disk_back(const struct steady *steady, const struct moment *moment)
{
    FILE *file = fopen(steady->path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(moment->disk, 1, DISK_BYTES, file), DISK_BYTES);
    ck_assert_int_eq(fclose(file), 0);
}

/* A machine with the memory of that moment. The one that the guest leaves ends before: it has the
 * disk. */
static void build_for(struct steady *steady, const struct moment *moment)
{
    struct rig *rig = &steady->rig;
    machine_destroy(rig->machine);
    rig->machine = NULL;
    rig_create_machine(rig, &rig->machine);
    struct memory_range range = the_range(rig->machine);
    memcpy(range.host, moment->memory, range.size);
}

static void load(struct steady *steady, struct moment *moment)
{
    struct err err = {0};
    stream_buffer_rewind(&moment->state);
    int ret = machine_load(steady->rig.machine, &moment->state.stream, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

/* The guest goes on from that moment in a machine that has just been built. */
static void move_to(struct steady *steady, struct moment *moment, bool with_disk)
{
    machine_destroy(steady->rig.machine);
    steady->rig.machine = NULL;
    if (with_disk)
        put_disk_back(steady, moment);
    build_for(steady, moment);
    load(steady, moment);
}

/* --- nothing goes wrong --------------------------------------------------------------------- */

static void hop_for_a_while(unsigned cpus)
{
    struct steady steady;
    uint64_t seed = 23 + cpus;
    steady_init(&steady, cpus, "jump=20000");
    rig_run_until(&steady.rig, 1, 0);
    for (unsigned i = 0; i < HOPS; i++) {
        if (i % 3 == 0)
            rig_run_until(&steady.rig, 1, 0);
        else
            rig_run_for(&steady.rig, chance(&seed) % 30000);
        struct moment *moment = moment_take(&steady);
        move_to(&steady, moment, false);
        moment_forget(moment);
    }
    rig_run_until(&steady.rig, 3, 0);
    check_nothing_is_wrong(&steady);
    steady_finish(&steady);
}

START_TEST(test_nothing_is_lost_by_hops)
{
    hop_for_a_while(1);
    hop_for_a_while(2);
}
END_TEST

/* What it did after that moment has never been, not on its disk either. */
START_TEST(test_nothing_is_wrong_after_going_back)
{
    struct steady steady;
    uint64_t seed = 29;
    steady_init(&steady, 2, "");
    rig_run_until(&steady.rig, 2, 0);
    struct moment *moment = moment_take(&steady);
    for (unsigned i = 0; i < RETURNS; i++) {
        rig_run_for(&steady.rig, chance(&seed) % 200000);
        move_to(&steady, moment, true);
    }
    moment_forget(moment);
    rig_run_until(&steady.rig, 3, 0);
    check_nothing_is_wrong(&steady);
    steady_finish(&steady);
}
END_TEST

/* Who tries a state first has memory as it was sent, what KVM knows as its own too. */
START_TEST(test_a_trial_touches_no_memory)
{
    struct steady steady;
    struct err err = {0};
    steady_init(&steady, 2, "jump=20000");
    for (unsigned i = 0; i < RETURNS; i++) {
        rig_run_until(&steady.rig, 1, 0);
        struct moment *moment = moment_take(&steady);
        memset(moment->memory + ID_PLACE, (int)i, PAGE); /* as a guest can */
        build_for(&steady, moment);
        struct memory_range range = the_range(steady.rig.machine);
        int ret = machine_try(steady.rig.machine, &moment->state.stream, &err);
        ck_assert_msg(ret == 0, "%s", err.text);
        for (size_t at = 0; at < range.size; at += PAGE)
            ck_assert_msg(memcmp(range.host + at, moment->memory + at, PAGE) == 0,
                          "page %zx is not as it was", at / PAGE);
        load(&steady, moment);
        ck_assert_mem_eq(range.host + ID_PLACE, moment->memory + ID_PLACE, PAGE);
        moment_forget(moment);
    }
    rig_run_until(&steady.rig, 3, 0);
    check_nothing_is_wrong(&steady);
    steady_finish(&steady);
}
END_TEST

/* --- what goes wrong is found ----------------------------------------------------------------- */

static uint8_t *section(struct moment *moment, const char *name, uint32_t instance,
                        uint32_t *ret_length)
{
    uint8_t *at = rig_find_section(moment->state.bytes, moment->state.length, name, instance,
                                   ret_length);
    ck_assert_ptr_nonnull(at);
    return at;
}

/* Other bytes at a place of a section. */
static void overwrite(struct moment *moment, const char *name, uint32_t instance, size_t offset,
                      const void *bytes, size_t count)
{
    uint32_t length;
    uint8_t *at = section(moment, name, instance, &length);
    ck_assert_uint_le(offset + count, length);
    memcpy(at + offset, bytes, count);
    rig_sign_section(at, length, name);
}

static void keep_an_old_page(struct moment *now, const struct moment *then)
{
    for (size_t at = 0; at < 8u << 20; at += PAGE) {
        uint64_t words[2], old[2];
        memcpy(words, now->memory + at, sizeof(words));
        memcpy(old, then->memory + at, sizeof(old));
        if (words[0] - PAGE_NAME < PAGES && words[0] == old[0] && words[1] != old[1]) {
            memcpy(now->memory + at, then->memory + at, PAGE);
            return;
        }
    }
    ck_abort_msg("no page has changed");
}

/* Of what a page holds, one bit. */
static void change_a_bit(struct moment *now, const struct moment *then)
{
    for (size_t at = 0; at < 8u << 20; at += PAGE) {
        uint64_t name;
        memcpy(&name, now->memory + at, sizeof(name));
        if (name - PAGE_NAME < PAGES) {
            now->memory[at + PAGE - 1] ^= 0x40;
            return;
        }
    }
    ck_abort_msg("no page of the guest's");
}

static void keep_the_old_disk(struct moment *now, const struct moment *then)
{
    memcpy(now->disk, then->disk, DISK_BYTES);
}

/* The ring's places and numbers stay behind. */
static void keep_the_old_blk(struct moment *now, const struct moment *then)
{
    uint32_t length;
    const uint8_t *old = NULL;
    for (uint32_t slot = 0; slot < 32 && !old; slot++) {
        old = rig_find_section(then->state.bytes, then->state.length, "virtio-blk", slot, &length);
        if (old)
            overwrite(now, "virtio-blk", slot, 0, old, length);
    }
    ck_assert_ptr_nonnull(old);
}

static void stop_the_timer(struct moment *now, const struct moment *then)
{
    enum { INITIAL_COUNT = 0x380 };
    static const uint8_t zero[4];
    overwrite(now, "vcpu", 0, offsetof(struct vcpu_state, lapic) + INITIAL_COUNT, zero, 4);
}

static void stop_the_other(struct moment *now, const struct moment *then)
{
    static const uint32_t waits_for_start = KVM_MP_STATE_UNINITIALIZED;
    overwrite(now, "vcpu", 1, offsetof(struct vcpu_state, mp_state), &waits_for_start, 4);
}

static void change_number(struct moment *now, const char *name, size_t offset, int64_t by)
{
    uint32_t length;
    uint64_t value;
    memcpy(&value, section(now, name, 0, &length) + offset, sizeof(value));
    value += (uint64_t)by;
    overwrite(now, name, 0, offset, &value, sizeof(value));
}

static void put_tsc_back(struct moment *now, const struct moment *then)
{
    change_number(now, "time", offsetof(struct time_state, host_tsc), -2000000000);
}

static void put_kvmclock_forward(struct moment *now, const struct moment *then)
{
    change_number(now, "time", offsetof(struct time_state, kvmclock_ns), 100000000000);
}

static void put_kvmclock_back(struct moment *now, const struct moment *then)
{
    change_number(now, "time", offsetof(struct time_state, kvmclock_ns), -1000000000);
}

/* All of the section: what the PM timer counts by. */
static void put_guest_clock_back(struct moment *now, const struct moment *then)
{
    change_number(now, "clock", 0, -1000000000);
}

static const struct fault {
    void (*spoil)(struct moment *now, const struct moment *then);
    const char *words; /* of what the guest must say */
} faults[] = {
    {keep_an_old_page, "WRONG: sequence of page"},
    {change_a_bit, "WRONG: content of page"},
    {keep_the_old_disk, "WRONG: sequence of sector"},
    {keep_the_old_blk, "request"},
    {stop_the_timer, "WRONG: no tick after tick"},
    {stop_the_other, ", CPU 0,"}, /* which waits for a turn of it, and an answer */
    {put_kvmclock_forward, "WRONG: a clock's jump"},
    {put_kvmclock_back, "WRONG: kvmclock after"},
    {put_guest_clock_back, "WRONG: PM timer after"},
    {put_tsc_back, "WRONG: TSC after"},
};

/* A KVM that interprets ring 0 gives guests the host's TSC as it is. */
static bool can_be_made(const struct fault *fault)
{
    if (fault->spoil != put_tsc_back || access("/sys/module/kvm_pvm", F_OK) < 0)
        return true;
    printf("SKIPPED a TSC that goes back: this host's KVM cannot shift it\n");
    return false;
}

static void check_it_is_found(struct steady *steady, const char *words)
{
    struct machine_end end = rig_run_to_end(&steady->rig);
    ck_assert_msg(end.outcome == MACHINE_EXIT && end.code == EXIT_WRONG, "outcome %d, code %u: %s",
                  end.outcome, end.code, rig_tail(&steady->rig));
    const char *said = strstr(steady->rig.text, "WRONG");
    ck_assert_msg(said && strstr(said, words), "\"%s\" is not in:\n%s", words,
                  rig_tail(&steady->rig));
}

START_TEST(test_the_guest_finds_what_went_wrong)
{
    const struct fault *fault = &faults[_i];
    struct steady steady;
    if (!can_be_made(fault))
        return;
    steady_init(&steady, 2, "patience=800 jump=20000");
    rig_run_until(&steady.rig, 8, 0);
    struct moment *then = moment_take(&steady);
    rig_run_until(&steady.rig, 6, 0);
    struct moment *now = moment_take(&steady);
    check_nothing_is_wrong(&steady);
    fault->spoil(now, then);
    move_to(&steady, now, true);
    moment_forget(then);
    moment_forget(now);
    check_it_is_found(&steady, fault->words);
    steady_finish(&steady);
}
END_TEST

/* Takes one of the interrupts that wait for a processor away; false: it is not there. */
static bool take_away(struct moment *now, uint32_t cpu, uint8_t vector)
{
    enum { REQUESTED = 0x200 };
    uint32_t length;
    size_t at = offsetof(struct vcpu_state, lapic) + REQUESTED + vector / 32 * 16 + vector % 32 / 8;
    uint8_t byte = section(now, "vcpu", cpu, &length)[at], bit = (uint8_t)(1u << vector % 8);
    if (!(byte & bit))
        return false;
    byte &= (uint8_t)~bit;
    overwrite(now, "vcpu", cpu, at, &byte, 1);
    return true;
}

/* Others come again by themselves: of the disk after every load, and of the APIC's counter. */
static const struct loss {
    uint32_t cpu;
    uint8_t vector;
    const char *words;
} losses[] = {
    {0, CALL_VECTOR, "WRONG: unheard is call"},
    {0, ANSWER_VECTOR, "WRONG: no answer to call"},
    {1, TICK_VECTOR, "WRONG: no tick after tick"},
};

START_TEST(test_the_guest_finds_one_lost_interrupt)
{
    enum { MOST_TRIES = 10000 };
    const struct loss *loss = &losses[_i];
    struct steady steady;
    struct moment *now;
    uint64_t seed = 31;
    unsigned tries = 0;
    steady_init(&steady, 2, "patience=800");
    rig_run_until(&steady.rig, 1, 0);
    for (;; moment_forget(now)) {
        ck_assert_uint_lt(++tries, MOST_TRIES);
        rig_run_for(&steady.rig, chance(&seed) % 3000);
        now = moment_take(&steady);
        if (take_away(now, loss->cpu, loss->vector))
            break;
    }
    move_to(&steady, now, false);
    moment_forget(now);
    check_it_is_found(&steady, loss->words);
    steady_finish(&steady);
}
END_TEST

/* Stands before the disk's transport. */
struct thief {
    struct virtio_transport transport;
    const struct virtio_transport *real;
    const struct virtio *virtio;
    unsigned stolen;
};

/* Those of the last request under way: for others the next one makes up. Not only one, because the
 * guest may be about to look at the ring for the one before it. */
static void handle_queue_interrupt(void *ctx, unsigned queue)
{
    struct thief *thief = ctx;
    const struct vring_state *ring = &thief->virtio->state->queues[queue];
    if (ring->next_available == ring->next_used)
        thief->stolen++;
    else
        thief->real->queue_interrupt(thief->real->ctx, queue);
}

static void handle_config_interrupt(void *ctx)
{
    struct thief *thief = ctx;
    thief->real->config_interrupt(thief->real->ctx);
}

static void handle_unplug(void *ctx)
{
    struct thief *thief = ctx;
    thief->real->unplug(thief->real->ctx);
}

START_TEST(test_the_guest_finds_lost_interrupts_of_the_disk)
{
    struct steady steady;
    steady_init(&steady, 2, "patience=800");
    rig_run_until(&steady.rig, 2, 0);
    struct virtio *virtio = blk_virtio(steady.rig.machine->disks[0].blk);
    struct thief thief = {.transport = {.queue_interrupt = handle_queue_interrupt,
                                        .config_interrupt = handle_config_interrupt,
                                        .unplug = handle_unplug,
                                        .ctx = &thief},
                          .real = virtio->transport,
                          .virtio = virtio};
    virtio->transport = &thief.transport;
    check_it_is_found(&steady, "WRONG: no interrupt of the disk");
    ck_assert_uint_gt(thief.stolen, 0);
    steady_finish(&steady);
}
END_TEST

/* They prove the guest, which no sanitizer looks at, and wait for its patience to end. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

int main(void)
{
    Suite *suite = suite_create("machine_steady");
    TCase *hops = tcase_create("hops"), *wrong = tcase_create("wrong");
    tcase_add_test(hops, test_nothing_is_lost_by_hops);
    tcase_add_test(hops, test_nothing_is_wrong_after_going_back);
    tcase_add_test(hops, test_a_trial_touches_no_memory);
    if (!SANITIZED) {
        tcase_add_loop_test(wrong, test_the_guest_finds_what_went_wrong, 0, array_size(faults));
        tcase_add_loop_test(wrong, test_the_guest_finds_one_lost_interrupt, 0, array_size(losses));
        tcase_add_test(wrong, test_the_guest_finds_lost_interrupts_of_the_disk);
    }
    TCase *all[] = {hops, wrong};
    for (size_t i = 0; i < array_size(all); i++) {
        tcase_set_timeout(all[i], PATIENCE_S + 20);
        suite_add_tcase(suite, all[i]);
    }
    return unit_main_with_kvm(suite, "test_machine_steady");
}
