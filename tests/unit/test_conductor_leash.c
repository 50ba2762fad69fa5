/* SPDX-License-Identifier: MIT */
/* For how long output that waits for nobody may leave, as the conductor says it. No link is here:
 * words of the other side are told, and what is said to it goes nowhere. */
#include "core/clock.h"
#include "ft/conductor.h"
#include "tests/unit/conductor_times.h"
#include "tests/unit/witness_rig.h"

enum { PATIENCE_S = 30, PEER = 12, TWIN = 13, LINK = 1 };

static struct {
    struct witness *witness;
    char address[400];
    struct conductor *conductor;
    struct ft_config times;

    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    uint64_t leash_ns;
    unsigned leashes, gates, opens;
    unsigned at_gate, at_open; /* so often it was renewed: until then, and since the gate */
} t;

static void handle_action(void *ctx, const struct ft_action *action)
{
    pthread_mutex_lock(&t.lock);
    if (action->kind == FT_GATE) {
        t.gates++;
        t.at_gate = t.leashes;
    } else if (action->kind == FT_OPEN) {
        t.opens++;
        t.at_open = t.leashes - t.at_gate;
    }
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static void handle_leash(void *ctx, uint64_t until_ns)
{
    pthread_mutex_lock(&t.lock);
    t.leashes++;
    t.leash_ns = until_ns;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static void handle_changed(void *ctx)
{
}

static int handle_persist(void *ctx, const struct ft_record *record, struct err *err)
{
    return 0;
}

static void wait_for(const unsigned *count, unsigned wanted)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC);
    pthread_mutex_lock(&t.lock);
    while (*count < wanted)
        ck_assert_int_eq(pthread_cond_clockwait(&t.changed, &t.lock, CLOCK_MONOTONIC, &at), 0);
    pthread_mutex_unlock(&t.lock);
}

static uint64_t read_leash(void)
{
    pthread_mutex_lock(&t.lock);
    uint64_t leash = t.leash_ns;
    pthread_mutex_unlock(&t.lock);
    return leash;
}

static void expect_state(enum ft_state state)
{
    uint64_t until = clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
    struct ft_protocol protocol;
    for (;;) {
        conductor_look(t.conductor, &protocol);
        if (protocol.state == state)
            return;
        ck_assert_msg(clock_monotonic_ns() < until, "it is %s", ft_state_name(protocol.state));
        conductor_wait(t.conductor, 10);
    }
}

static void wait_for_ticks(unsigned count)
{
    struct ft_protocol protocol;
    uint64_t last = 0, until = clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
    for (unsigned seen = 0; seen <= count;) {
        conductor_wait(t.conductor, 1);
        conductor_look(t.conductor, &protocol);
        seen += protocol.tick_ns != last;
        last = protocol.tick_ns;
        ck_assert_uint_lt(clock_monotonic_ns(), until);
    }
}

static void tell(struct ft_event event)
{
    event.link = LINK;
    conductor_tell(t.conductor, &event);
}

static void begin(void)
{
    struct conductor_config config = {.witness = t.address,
                                      .act = handle_action,
                                      .leash = handle_leash,
                                      .changed = handle_changed,
                                      .persist = handle_persist};
    struct ft_record record = {.generation = 1, .owner = NODE}, is;
    struct ft_protocol protocol;
    struct err err = {0};
    ck_assert_int_eq(witness_exchange(t.witness, vm_a, 0, &record, &is, NULL), 0);
    ft_protocol_init_solo(&protocol, &t.times, &record, clock_boot_ns());
    memcpy(config.uuid, vm_a, sizeof(config.uuid));
    ck_assert_msg(conductor_create(&t.conductor, &config, &protocol, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    t.times = patient_times;
    rig_begin();
    store_begin(true);
    t.witness = store_open();
    snprintf(t.address, sizeof(t.address), "file:%s", store);
}

static void tear_down(void)
{
    conductor_destroy(t.conductor);
    witness_close(t.witness);
    store_end();
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.lock);
}

START_TEST(who_is_alone_renews_it_with_each_tick)
{
    uint64_t before = clock_boot_ns();
    struct ft_protocol protocol;
    begin();
    ck_assert_uint_ge(read_leash(), before + t.times.away_ns); /* from the first moment on */
    wait_for(&t.leashes, 20);
    conductor_look(t.conductor, &protocol);
    uint64_t leash = read_leash();
    ck_assert_uint_ge(leash, protocol.tick_ns + t.times.away_ns);
    ck_assert_uint_le(leash, clock_boot_ns() + t.times.away_ns);
}
END_TEST

START_TEST(who_waits_for_a_twin_needs_none)
{
    begin();
    tell((struct ft_event){.kind = FT_CONNECTED, .node = PEER, .twin = TWIN});
    tell((struct ft_event){.kind = FT_SYNCED});
    wait_for(&t.gates, 1);
    wait_for_ticks(10);
    tell((struct ft_event){.kind = FT_CAPTURED, .epoch = 1});
    tell((struct ft_event){.kind = FT_HEARD, .word = {FT_ACK, 1, 1}});
    expect_state(FT_PAIRED);
    wait_for_ticks(10);
    ck_assert_uint_eq(t.leashes, t.at_gate);
    tell((struct ft_event){.kind = FT_LEFT});
    wait_for(&t.opens, 1);
    ck_assert_uint_eq(t.at_open, 1); /* before it is open */
    wait_for(&t.leashes, t.at_gate + 10);
}
END_TEST

/* Each tick finds itself away. */
START_TEST(who_was_away_does_not_renew_it_before_the_witness_has_spoken)
{
    t.times.gap_ns = t.times.away_ns = 1;
    begin();
    for (unsigned i = 1; i <= 5; i++) {
        wait_for(&t.opens, i);
        pthread_mutex_lock(&t.lock);
        bool asked = t.gates >= t.opens;
        unsigned renewed = t.at_open;
        pthread_mutex_unlock(&t.lock);
        ck_assert(asked);
        ck_assert_uint_eq(renewed, 1);
    }
}
END_TEST

START_TEST(what_was_said_last_may_leave)
{
    begin();
    tell((struct ft_event){.kind = FT_GUEST_OFF});
    expect_state(FT_OVER);
    pthread_mutex_lock(&t.lock);
    unsigned leashes = t.leashes;
    pthread_mutex_unlock(&t.lock);
    wait_for(&t.leashes, leashes + 10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("conductor_leash");
    TCase *tests = tcase_create("leash");
    tcase_set_timeout(tests, 60);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, who_is_alone_renews_it_with_each_tick);
    tcase_add_test(tests, who_waits_for_a_twin_needs_none);
    tcase_add_test(tests, who_was_away_does_not_renew_it_before_the_witness_has_spoken);
    tcase_add_test(tests, what_was_said_last_may_leave);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
