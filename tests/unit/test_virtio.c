/* SPDX-License-Identifier: MIT */
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include "tests/unit/virtio_probe.h"
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#define MODERN VIRTIO_F_VERSION_1
enum { ALL = RIG_CLIMBED };

static struct virtio_rig rig;
static struct probe *probe;
static struct virtio *virtio;
static struct model_driver driver;

static void set_up(void)
{
    rig_init(&rig);
    probe = probe_create(&rig.world, NULL, NULL);
    ck_assert_ptr_nonnull(probe);
    virtio = &probe->virtio;
    rig_plug(&rig, virtio);
    virtio->device.ops->reset(&virtio->device);
    rig_resume(virtio);
    model_init(&driver, &(struct model_config){.memory = rig.memory, .base = 0x1000, .size = 8});
}

static void tear_down(void)
{
    rig_pause(virtio);
    device_destroy(&virtio->device);
    rig_finish(&rig);
}

static void add_request(void)
{
    struct model_part part = model_in(&driver, 16);
    ck_assert_int_ge(model_add(&driver, &part, 1, 1), 0);
    model_show(&driver);
}

/* --- status ----------------------------------------------------------------------------------- */

START_TEST(a_driver_climbs_step_by_step)
{
    virtio_accept(virtio, 1, MODERN >> 32);
    virtio_set_status(virtio, VIRTIO_DRIVER);
    ck_assert_uint_eq(virtio_status(virtio), 0);
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER_OK);
    ck_assert_uint_eq(virtio_status(virtio), 1);
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_FEATURES_OK);
    ck_assert_uint_eq(virtio_status(virtio), 1);
    virtio_set_status(virtio, 3);
    virtio_set_status(virtio, 7); /* DRIVER_OK without FEATURES_OK */
    ck_assert_uint_eq(virtio_status(virtio), 3);
    virtio_set_status(virtio, 11);
    ck_assert_uint_eq(virtio_status(virtio), 11);
    ck_assert_uint_eq(probe->starts, 0);
    virtio_set_status(virtio, ALL);
    ck_assert_uint_eq(virtio_status(virtio), ALL);
    ck_assert_uint_eq(probe->starts, 1);
    virtio_set_status(virtio, ALL);
    ck_assert_uint_eq(probe->starts, 1);
}
END_TEST

START_TEST(bits_that_a_driver_takes_away_stay)
{
    rig_climb(virtio, MODERN);
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE);
    ck_assert_uint_eq(virtio_status(virtio), ALL);
    virtio_set_status(virtio, VIRTIO_FAILED);
    ck_assert_uint_eq(virtio_status(virtio), ALL | VIRTIO_FAILED);
    ck_assert_uint_eq(probe->stops, 0);
}
END_TEST

START_TEST(a_driver_cannot_say_that_the_device_is_broken)
{
    rig_climb(virtio, MODERN);
    virtio_set_status(virtio, 0xff & ~VIRTIO_FAILED);
    ck_assert_uint_eq(virtio_status(virtio), ALL);
}
END_TEST

/* --- features --------------------------------------------------------------------------------- */

START_TEST(what_was_not_offered_is_not_agreed_to)
{
    const uint64_t bad[] = {0,
                            PROBE_FEATURE,
                            MODERN | 1,
                            MODERN | 1ull << 33,
                            MODERN | 1ull << 63,
                            MODERN | VIRTIO_F_INDIRECT << 2};
    for (size_t i = 0; i < array_size(bad); i++) {
        rig_climb(virtio, bad[i]);
        ck_assert_msg(virtio_status(virtio) == 3, "features %zu", i);
        ck_assert(!virtio_has(virtio, bad[i])); /* nothing holds before FEATURES_OK */
    }
    rig_climb(virtio, MODERN | PROBE_FEATURE | VIRTIO_F_INDIRECT); /* a second thought counts */
    ck_assert_uint_eq(virtio_status(virtio), ALL);
    ck_assert(virtio_has(virtio, PROBE_FEATURE) && virtio_has(virtio, VIRTIO_F_INDIRECT));
    ck_assert(!virtio_has(virtio, VIRTIO_F_EVENT_INDEX));
}
END_TEST

START_TEST(features_are_settled_by_features_ok)
{
    rig_climb(virtio, MODERN);
    virtio_accept(virtio, 0, PROBE_FEATURE);
    ck_assert(!virtio_has(virtio, PROBE_FEATURE));
    ck_assert_uint_eq(virtio_accepted(virtio, 0), 0);
}
END_TEST

START_TEST(there_are_64_features_and_no_more)
{
    ck_assert_uint_eq(virtio_offered(virtio, 0),
                      PROBE_FEATURE | VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_INDEX);
    ck_assert_uint_eq(virtio_offered(virtio, 1), 1);
    for (uint32_t word = 2; word; word <<= 1) {
        virtio_accept(virtio, word, UINT32_MAX);
        ck_assert_uint_eq(virtio_offered(virtio, word), 0);
        ck_assert_uint_eq(virtio_accepted(virtio, word), 0);
    }
    virtio_accept(virtio, UINT32_MAX, UINT32_MAX);
    ck_assert_uint_eq(virtio->state->features, 0);
}
END_TEST

/* --- queues ----------------------------------------------------------------------------------- */

START_TEST(queues_are_served_only_after_driver_ok)
{
    rig_enable(virtio, 1, &driver);
    add_request();
    virtio_ring_doorbell(virtio, 1);
    rig_turn(&rig);
    ck_assert_ptr_null(virtio_ring(virtio, 1));
    ck_assert_uint_eq(probe->notified[1], 0);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    ck_assert_uint_eq(probe->notified[1], 1); /* without another word from the driver */
    ck_assert_uint_eq(probe->notified[0], 0);
    ck_assert_ptr_nonnull(virtio_ring(virtio, 1));
}
END_TEST

START_TEST(a_doorbell_of_a_queue_that_is_not_enabled_wakes_nobody)
{
    rig_climb(virtio, MODERN);
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES + 2; i++)
        virtio_ring_doorbell(virtio, i);
    rig_turn(&rig);
    ck_assert_uint_eq(probe->notified[0] + probe->notified[1], 0);
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES + 2; i++)
        ck_assert_ptr_null(virtio_ring(virtio, i));
}
END_TEST

START_TEST(each_ring_of_a_doorbell_is_heard)
{
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    for (unsigned i = 2; i < 100; i++) {
        virtio_ring_doorbell(virtio, 0);
        virtio_ring_doorbell(virtio, 0); /* two before anybody looks are one */
        rig_turn(&rig);
        ck_assert_uint_eq(probe->notified[0], i);
    }
}
END_TEST

START_TEST(a_served_request_interrupts)
{
    struct model_done done;
    probe->serve = true;
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    add_request();
    virtio_ring_doorbell(virtio, 0);
    rig_turn(&rig);
    ck_assert(model_reap(&driver, &done));
    ck_assert_uint_eq(rig.queue_interrupts[0], 1);
    ck_assert_uint_eq(rig.queue_interrupts[1], 0);
    virtio_publish(virtio, 0); /* nothing new */
    ck_assert_uint_eq(rig.queue_interrupts[0], 1);
}
END_TEST

START_TEST(an_enabled_queue_stays_where_it_is)
{
    ck_assert(virtio_queue_open_to_change(virtio, 0));
    rig_enable(virtio, 0, &driver);
    ck_assert(!virtio_queue_open_to_change(virtio, 0));
    ck_assert(virtio_queue_open_to_change(virtio, 1));
    for (unsigned i = PROBE_QUEUES; i < VIRTIO_MAX_QUEUES + 2; i++) {
        ck_assert(!virtio_queue_open_to_change(virtio, i));
        ck_assert_ptr_null(virtio_queue_state(virtio, i));
        virtio_queue_enable(virtio, i);
    }
    ck_assert_uint_eq(virtio_queue_state(virtio, 1)->size, PROBE_SIZE);
}
END_TEST

START_TEST(a_queue_that_is_enabled_late_is_served)
{
    rig_climb(virtio, MODERN);
    rig_enable(virtio, 0, &driver);
    rig_turn(&rig);
    ck_assert_uint_eq(probe->notified[0], 1);
}
END_TEST

START_TEST(bad_places_break_the_device_and_nothing_else)
{
    struct vring_state good = model_places(&driver);
    for (unsigned late = 0; late < 2; late++) {
        for (unsigned which = 0; which < 6; which++) {
            struct vring_state *queue = virtio_queue_state(virtio, 0);
            unsigned starts = probe->starts;
            unsigned interrupts = rig.config_interrupts;
            if (late)
                rig_climb(virtio, MODERN);
            *queue = good;
            queue->enabled = false;
            if (which < 3)
                *(uint64_t *[]){&queue->descriptors, &queue->available,
                                &queue->used}[which] = RIG_MEMORY;
            else
                *(uint64_t *[]){&queue->descriptors, &queue->available,
                                &queue->used}[which - 3] = UINT64_MAX & ~15ull;
            virtio_queue_enable(virtio, 0);
            if (!late)
                rig_climb(virtio, MODERN);
            ck_assert_uint_eq(virtio_status(virtio), ALL | VIRTIO_NEEDS_RESET);
            ck_assert_uint_eq(rig.config_interrupts, interrupts + 1);
            ck_assert_uint_eq(probe->starts, starts + late); /* a broken one is never started */
            rig_turn(&rig);
            ck_assert_uint_eq(probe->notified[0], 0);
            virtio_set_status(virtio, 0);
            ck_assert_uint_eq(virtio_status(virtio), 0);
        }
    }
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    ck_assert_uint_eq(probe->notified[0], 1);
}
END_TEST

START_TEST(a_broken_device_says_so_once_and_serves_nothing)
{
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    virtio_break(virtio);
    virtio_break(virtio);
    ck_assert_uint_eq(rig.config_interrupts, 1);
    ck_assert_ptr_null(virtio_ring(virtio, 0));
    virtio_ring_doorbell(virtio, 0);
    rig_turn(&rig);
    ck_assert_uint_eq(probe->notified[0], 1);
    rig_pause(virtio);
    rig_resume(virtio); /* no cure */
    rig_climb(virtio, MODERN);
    ck_assert_uint_eq(virtio_status(virtio), ALL | VIRTIO_NEEDS_RESET);
    ck_assert_ptr_null(virtio_ring(virtio, 0));
}
END_TEST

START_TEST(a_break_before_driver_ok_does_not_interrupt)
{
    virtio_break(virtio);
    ck_assert_uint_eq(rig.config_interrupts, 0);
    ck_assert_uint_eq(virtio_status(virtio), VIRTIO_NEEDS_RESET);
}
END_TEST

/* --- reset ------------------------------------------------------------------------------------ */

START_TEST(a_reset_leads_back_to_power_on)
{
    struct virtio_state new = probe->state.virtio;
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN | PROBE_FEATURE);
    virtio_config_changed(virtio);
    virtio_set_status(virtio, 0);
    ck_assert_uint_eq(probe->stops, 1);
    ck_assert_ptr_null(virtio_ring(virtio, 0));
    new.config_generation = 1; /* that one goes on */
    ck_assert_mem_eq(&probe->state.virtio, &new, sizeof(new));
    virtio_set_status(virtio, 0);
    ck_assert_mem_eq(&probe->state.virtio, &new, sizeof(new));
}
END_TEST

START_TEST(a_reset_waits_for_work_under_way)
{
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    probe->busy = true;
    virtio_set_status(virtio, 0);
    ck_assert_uint_eq(virtio_status(virtio), ALL);
    ck_assert_ptr_null(virtio_ring(virtio, 0));

    /* Nothing that a driver does meanwhile counts. */
    struct probe_state before = probe->state;
    virtio_set_status(virtio, 0);
    virtio_set_status(virtio, VIRTIO_FAILED);
    virtio_accept(virtio, 0, 1);
    virtio_config_write(virtio, 0, 1, 0x55);
    virtio_queue_enable(virtio, 1);
    ck_assert(!virtio_queue_open_to_change(virtio, 1));
    virtio_ring_doorbell(virtio, 0);
    rig_turn(&rig);
    ck_assert_mem_eq(&probe->state, &before, sizeof(before));
    ck_assert_uint_eq(probe->stops, 1);
    ck_assert_uint_eq(probe->notified[0], 1);
    virtio_config_changed(virtio);
    virtio_break(virtio);
    ck_assert_uint_eq(rig.config_interrupts, 0);
    ck_assert_uint_ne(virtio_status(virtio), 0);

    probe->busy = false;
    virtio_stop_done(virtio);
    ck_assert_uint_eq(virtio_status(virtio), 0);
    virtio_stop_done(virtio); /* once too often */
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    virtio_stop_done(virtio);
    ck_assert_uint_eq(virtio_status(virtio), ALL);
}
END_TEST

START_TEST(a_reset_under_way_survives_a_pause)
{
    rig_climb(virtio, MODERN);
    probe->busy = true;
    virtio_set_status(virtio, 0);
    rig_pause(virtio);
    rig_resume(virtio);
    ck_assert_uint_eq(probe->stops, 2); /* asked again: somebody else may be waiting now */
    ck_assert_uint_eq(virtio_status(virtio), ALL);
    rig_pause(virtio);
    probe->busy = false;
    rig_resume(virtio);
    ck_assert_uint_eq(virtio_status(virtio), 0);
}
END_TEST

START_TEST(the_machines_reset_waits_for_nobody)
{
    struct probe_state new = probe->state;
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    probe->busy = true;
    virtio_set_status(virtio, 0);
    virtio->state->config_generation = 7;
    rig_pause(virtio);
    virtio->device.ops->reset(&virtio->device);
    ck_assert_uint_eq(probe->resets, 2); /* the first one is the test's */
    ck_assert_mem_eq(&probe->state, &new, sizeof(new));
    rig_resume(virtio);
    ck_assert_uint_eq(virtio_status(virtio), 0);
}
END_TEST

/* --- configuration space ---------------------------------------------------------------------- */

START_TEST(a_changed_configuration_has_a_new_generation)
{
    virtio_config_changed(virtio);
    ck_assert_uint_eq(virtio->state->config_generation, 1);
    ck_assert_uint_eq(rig.config_interrupts, 0);
    rig_climb(virtio, MODERN);
    virtio_config_changed(virtio);
    ck_assert_uint_eq(virtio->state->config_generation, 2);
    ck_assert_uint_eq(rig.config_interrupts, 1);
}
END_TEST

START_TEST(configuration_ends_where_it_ends)
{
    for (unsigned i = 0; i < PROBE_CONFIG; i++)
        probe->state.config[i] = (uint8_t)(0x10 + i);
    const uint64_t offsets[] = {0, 1, 4, 7, 9, 11, 12, 13, 4095, 1ull << 32, UINT64_MAX - 1};
    for (size_t i = 0; i < array_size(offsets); i++) {
        for (unsigned width = 1; width <= 8; width *= 2) {
            uint64_t value = virtio_config_read(virtio, offsets[i], width);
            for (unsigned byte = 0; byte < width; byte++) {
                uint64_t at = offsets[i] + byte;
                bool there = offsets[i] < PROBE_CONFIG && at < PROBE_CONFIG;
                ck_assert_uint_eq(value >> 8 * byte & 0xff, there ? 0x10 + at : 0xff);
            }
            struct probe_state before = probe->state;
            unsigned writes = probe->config_writes;
            bool fits = offsets[i] < PROBE_CONFIG && offsets[i] + width <= PROBE_CONFIG;
            virtio_config_write(virtio, offsets[i], width, value);
            ck_assert_uint_eq(probe->config_writes, writes + fits);
            ck_assert_mem_eq(&probe->state, &before, sizeof(before));
        }
    }
    ck_assert_uint_gt(probe->config_reads, 0);
}
END_TEST

/* --- pause and resume ------------------------------------------------------------------------- */

START_TEST(what_rings_in_a_pause_is_heard_afterwards)
{
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    rig_turn(&rig);
    rig_pause(virtio);
    virtio_ring_doorbell(virtio, 0);
    rig_turn(&rig); /* the main loop goes on */
    ck_assert_uint_eq(probe->notified[0], 1);
    ck_assert_ptr_null(virtio_ring(virtio, 0));
    rig_resume(virtio);
    ck_assert_ptr_nonnull(virtio_ring(virtio, 0));
    rig_turn(&rig);
    ck_assert_uint_eq(probe->notified[0], 2);
    ck_assert_uint_eq(probe->pauses, 1);
    ck_assert_uint_eq(probe->resumes, 2);
}
END_TEST

static void save(const struct virtio *from, struct stream_buffer *into)
{
    struct state_item item = {from->device.table, 0, from->device.state};
    stream_buffer_init(into, 0);
    ck_assert_int_eq(state_save(&into->stream, &item, 1), 0);
    stream_buffer_rewind(into);
}

static int load(struct virtio *to, struct stream_buffer *from, struct err *err)
{
    struct state_item item = {to->device.table, 0, to->device.state};
    return state_load(&from->stream, &item, 1, err);
}

START_TEST(a_loaded_state_goes_on_where_it_was)
{
    struct stream_buffer saved;
    struct model_done done;
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN | PROBE_FEATURE);
    add_request(); /* and no doorbell */
    rig_pause(virtio);
    save(virtio, &saved);

    struct probe *other = probe_create(&rig.world, NULL, NULL);
    ck_assert_int_eq(load(&other->virtio, &saved, NULL), 0);
    other->serve = true;
    rig_resume(&other->virtio);
    ck_assert(virtio_has(&other->virtio, PROBE_FEATURE));
    rig_turn(&rig);
    ck_assert(model_reap(&driver, &done));
    rig_pause(&other->virtio);
    device_destroy(&other->virtio.device);
    stream_buffer_finish(&saved);
}
END_TEST

START_TEST(a_loaded_reset_comes_to_its_end)
{
    struct stream_buffer saved;
    rig_climb(virtio, MODERN);
    probe->busy = true;
    virtio_set_status(virtio, 0);
    rig_pause(virtio);
    save(virtio, &saved);
    struct probe *other = probe_create(&rig.world, NULL, NULL);
    ck_assert_int_eq(load(&other->virtio, &saved, NULL), 0);
    rig_resume(&other->virtio);
    ck_assert_uint_eq(virtio_status(&other->virtio), 0);
    rig_pause(&other->virtio);
    device_destroy(&other->virtio.device);
    stream_buffer_finish(&saved);
}
END_TEST

START_TEST(a_state_that_does_not_fit_breaks_the_device)
{
    for (unsigned which = 0; which < 7; which++) {
        struct virtio_state *state = virtio->state;
        rig_enable(virtio, 0, &driver);
        rig_climb(virtio, MODERN);
        rig_pause(virtio);
        switch (which) {
        case 0:
            state->queue_count = VIRTIO_MAX_QUEUES;
            break;
        case 1:
            state->queue_count = 0;
            break;
        case 2:
            state->features |= 1ull << 40;
            break;
        case 3:
            state->features = 0;
            break;
        case 4:
            state->queues[0].size = PROBE_SIZE * 2;
            break;
        case 5:
            state->queues[1].size = 0;
            break;
        default:
            state->queues[0].used = UINT64_MAX - 3;
            break;
        }
        unsigned interrupts = rig.config_interrupts;
        ck_assert_int_eq(state_check(&probe_table, state, NULL), 0);
        rig_resume(virtio);
        ck_assert_uint_eq(virtio_status(virtio), ALL | VIRTIO_NEEDS_RESET);
        ck_assert_uint_eq(rig.config_interrupts, interrupts + 1);
        ck_assert_int_eq(state_check(&probe_table, state, NULL), 0);
        virtio_ring_doorbell(virtio, 0);
        rig_turn(&rig);
        ck_assert_uint_eq(probe->notified[0], 0);
        virtio_set_status(virtio, 0);
        ck_assert_uint_eq(virtio_status(virtio), 0);
    }
}
END_TEST

START_TEST(a_status_that_no_driver_reaches_is_refused)
{
    unsigned good = 0;
    for (unsigned status = 0; status < 256; status++) {
        probe->state.virtio.status = (uint8_t)status;
        good += state_check(&probe_table, &probe->state, NULL) == 0;
    }
    ck_assert_uint_eq(good, 5 * 4); /* the steps, each with FAILED and NEEDS_RESET or without */
    probe->state.virtio.status = 0;
}
END_TEST

START_TEST(no_loaded_state_does_harm)
{
    uint64_t seed = 88172645463325252;
    for (unsigned round = 0; round < 3000; round++) {
        struct virtio_state *state = virtio->state;
        static const uint8_t ladder[] = {0, 1, 3, 11, 15, 15};
        rig_pause(virtio);
        uint8_t *bytes = (uint8_t *)state;
        for (size_t i = 0; i < sizeof(*state); i++)
            bytes[i] = (uint8_t)chance(&seed);
        state->status = ladder[chance(&seed) % array_size(ladder)];
        state->queue_count = chance(&seed) % 4 ? PROBE_QUEUES : chance(&seed) % 21;
        state->resetting = chance(&seed) % 8 == 0;
        state->features = chance(&seed) % 4 ? MODERN : state->features;
        for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
            struct vring_state *queue = &state->queues[i];
            bool in_use = i < state->queue_count;
            *queue = in_use ? *queue : (struct vring_state){0};
            if (in_use && chance(&seed) % 4) {
                *queue = model_places(&driver);
                queue->next_available = (uint16_t)chance(&seed) % 16;
                queue->next_used = (uint16_t)chance(&seed) % 16;
            }
            queue->size = in_use ? (uint16_t)(1u << chance(&seed) % 5) : 0;
            queue->enabled = chance(&seed) % 2;
        }
        ck_assert_int_eq(state_check(&probe_table, &probe->state, NULL), 0);
        probe->serve = true;
        rig_resume(virtio);
        rig_turn(&rig);
        ck_assert_int_eq(state_check(&probe_table, &probe->state, NULL), 0);
        if (chance(&seed) % 2)
            virtio_set_status(virtio, 0);
    }
    virtio_set_status(virtio, 0);
    ck_assert_uint_eq(virtio_status(virtio), 0);
}
END_TEST

/* --- life ------------------------------------------------------------------------------------- */

START_TEST(what_was_never_made_can_be_finished)
{
    struct virtio none = {0};
    virtio_finish(&none);
}
END_TEST

/* With so few descriptors left, creating fails at each of its steps in turn. */
START_TEST(a_host_without_descriptors_is_an_error)
{
    struct rlimit limit;
    int next = dup(0);
    unsigned failed[2] = {0};
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (unsigned own_thread = 0; own_thread < 2; own_thread++) {
        for (unsigned spare = 0;; spare++) {
            struct err err = {0};
            struct rlimit less = {.rlim_cur = (rlim_t)next + spare, .rlim_max = limit.rlim_max};
            ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &less), 0);
            struct probe *other = probe_create(&rig.world, own_thread ? "probe" : NULL, &err);
            ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
            if (other) {
                device_destroy(&other->virtio.device);
                break;
            }
            ck_assert_ptr_nonnull(strstr(err.text, "Too many open files"));
            failed[own_thread]++;
        }
    }
    ck_assert_uint_ge(failed[0], PROBE_QUEUES);
    ck_assert_uint_ge(failed[1], PROBE_QUEUES + 3); /* a loop has three */
    ck_assert_int_eq(dup(0), next);                 /* and nothing was left open */
    close(next);
}
END_TEST

START_TEST(a_device_that_ends_unplugs_itself)
{
    struct probe *other = probe_create(&rig.world, NULL, NULL);
    rig_plug(&rig, &other->virtio);
    device_destroy(&other->virtio.device);
    ck_assert_uint_eq(rig.unplugs, 1);
    rig_plug(&rig, virtio);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio");
    TCase *main_loop = tcase_create("main loop");

    tcase_add_checked_fixture(main_loop, set_up, tear_down);
    tcase_add_test(main_loop, a_driver_climbs_step_by_step);
    tcase_add_test(main_loop, bits_that_a_driver_takes_away_stay);
    tcase_add_test(main_loop, a_driver_cannot_say_that_the_device_is_broken);
    tcase_add_test(main_loop, what_was_not_offered_is_not_agreed_to);
    tcase_add_test(main_loop, features_are_settled_by_features_ok);
    tcase_add_test(main_loop, there_are_64_features_and_no_more);
    tcase_add_test(main_loop, queues_are_served_only_after_driver_ok);
    tcase_add_test(main_loop, a_doorbell_of_a_queue_that_is_not_enabled_wakes_nobody);
    tcase_add_test(main_loop, each_ring_of_a_doorbell_is_heard);
    tcase_add_test(main_loop, a_served_request_interrupts);
    tcase_add_test(main_loop, an_enabled_queue_stays_where_it_is);
    tcase_add_test(main_loop, a_queue_that_is_enabled_late_is_served);
    tcase_add_test(main_loop, bad_places_break_the_device_and_nothing_else);
    tcase_add_test(main_loop, a_broken_device_says_so_once_and_serves_nothing);
    tcase_add_test(main_loop, a_break_before_driver_ok_does_not_interrupt);
    tcase_add_test(main_loop, a_reset_leads_back_to_power_on);
    tcase_add_test(main_loop, a_reset_waits_for_work_under_way);
    tcase_add_test(main_loop, a_reset_under_way_survives_a_pause);
    tcase_add_test(main_loop, the_machines_reset_waits_for_nobody);
    tcase_add_test(main_loop, a_changed_configuration_has_a_new_generation);
    tcase_add_test(main_loop, configuration_ends_where_it_ends);
    tcase_add_test(main_loop, what_rings_in_a_pause_is_heard_afterwards);
    tcase_add_test(main_loop, a_loaded_state_goes_on_where_it_was);
    tcase_add_test(main_loop, a_loaded_reset_comes_to_its_end);
    tcase_add_test(main_loop, a_state_that_does_not_fit_breaks_the_device);
    tcase_add_test(main_loop, a_status_that_no_driver_reaches_is_refused);
    tcase_add_test(main_loop, no_loaded_state_does_harm);
    tcase_add_test(main_loop, what_was_never_made_can_be_finished);
    tcase_add_test(main_loop, a_host_without_descriptors_is_an_error);
    tcase_add_test(main_loop, a_device_that_ends_unplugs_itself);
    suite_add_tcase(suite, main_loop);

    return unit_main(suite);
}
