/* SPDX-License-Identifier: MIT */
/* One protocol that is led step by step: it runs the VM, or follows who does. */
#pragma once

#include "ft/protocol.h"
#include "tests/unit/unit.h"

enum { MS = 1000000, US = 1, THEM = 2, LINK = 5, NUMBER = 77 };

static const struct ft_config config = {.node = US,
                                        .beat_ns = 10 * MS,
                                        .lost_ns = 50 * MS,
                                        .stall_ns = 500 * MS,
                                        .ask_ns = 100 * MS,
                                        .retry_ns = 50 * MS,
                                        .gap_ns = 100 * MS,
                                        .away_ns = 3000ull * MS,
                                        .yield_ns = 200 * MS,
                                        .watch_ns = 10000ull * MS,
                                        .forced_ns = 500 * MS};
static struct ft_protocol protocol;
static struct ft_actions actions;
static uint64_t now;

static inline void step(struct ft_event event)
{
    ft_protocol_step(&protocol, &event, now, &actions);
}

#define STEP(...) step((struct ft_event){__VA_ARGS__})

/* What is to be done, by kinds, and nothing else. */
static inline const struct ft_action *expect(unsigned count, const enum ft_action_kind *kinds)
{
    ck_assert_uint_eq(actions.count, count);
    for (unsigned i = 0; i < count; i++)
        ck_assert_int_eq(actions.list[i].kind, kinds[i]);
    return actions.list;
}

#define EXPECT(...)                                                                    \
    expect(sizeof((enum ft_action_kind[]){__VA_ARGS__}) / sizeof(enum ft_action_kind), \
           (const enum ft_action_kind[]){__VA_ARGS__})

static inline void expect_nothing(void)
{
    ck_assert_uint_eq(actions.count, 0);
}

static inline void tick(unsigned ms)
{
    now += (uint64_t)ms * MS;
    STEP(.kind = FT_TICK);
}

static inline void hear(enum ft_word_kind kind, uint64_t generation, uint64_t epoch)
{
    STEP(.kind = FT_HEARD, .link = LINK, .word = {kind, generation, epoch});
}

static inline void answer(enum ft_answer what, uint64_t generation, uint64_t owner, uint64_t twin)
{
    STEP(.kind = FT_ANSWER, .ask = protocol.ask, .answer = what,
         .record = {generation, owner, twin});
}

static inline void set_up(void)
{
    const struct ft_record record = {.generation = 3, .owner = US};
    now = 1000ull * MS;
    ft_protocol_init_solo(&protocol, &config, &record, now);
}

static inline void connect_follower(void)
{
    STEP(.kind = FT_CONNECTED, .link = LINK, .node = THEM, .twin = NUMBER);
    EXPECT(FT_SYNC);
}

/* One epoch is acknowledged, and the witness knows of the twin. */
static inline void pair(void)
{
    connect_follower();
    STEP(.kind = FT_SYNCED, .link = LINK);
    EXPECT(FT_GATE);
    STEP(.kind = FT_CAPTURED, .epoch = 1);
    expect_nothing();
    hear(FT_ACK, 3, 1);
    const struct ft_action *list = EXPECT(FT_RELEASE, FT_EXCHANGE);
    ck_assert_uint_eq(list[1].expected, 3);
    ck_assert(list[1].record.generation == 4 && list[1].record.owner == US &&
              list[1].record.twin == NUMBER);
    answer(FT_EXCHANGED, 4, US, NUMBER);
    EXPECT(FT_PERSIST);
    STEP(.kind = FT_PERSISTED);
    expect_nothing();
    ck_assert_int_eq(protocol.state, FT_PAIRED);
}

/* Until it asks: its twin goes on acknowledging. */
static inline void be_paired_until_it_asks(void)
{
    bool asks = false;
    for (unsigned i = 0; i < 1000 && !asks; i++) {
        tick(20);
        for (unsigned j = 0; j < actions.count; j++)
            asks |= actions.list[j].kind == FT_ASK;
        hear(FT_BEAT, 3, 0);
        expect_nothing();
    }
    ck_assert(asks);
}

/* The other side. */
static inline void follow(void)
{
    const struct ft_event connected = {
        .kind = FT_CONNECTED, .link = LINK, .twin = NUMBER, .generation = 3};
    ft_protocol_init_follower(&protocol, &config, 3, &connected, now);
}

static inline void stage(uint64_t epoch)
{
    STEP(.kind = FT_STAGED, .link = LINK, .generation = 3, .epoch = epoch);
}
