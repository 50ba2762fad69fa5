/* SPDX-License-Identifier: MIT */
/* What is remembered of a protocol's way: the protocol's own steps, by a clock of ours. */
#include "ft/chronicle.h"
#include "tests/unit/unit.h"

#define MS 1000000ull

static struct ft_protocol protocol;
static struct chronicle chronicle;
static uint64_t now;

static const struct ft_config config = {.node = 1,
                                        .beat_ns = 10 * MS,
                                        .lost_ns = 100 * MS,
                                        .stall_ns = 400 * MS,
                                        .ask_ns = 1000 * MS,
                                        .retry_ns = 50 * MS,
                                        .gap_ns = 1000 * MS,
                                        .away_ns = 2000 * MS,
                                        .yield_ns = 300 * MS,
                                        .watch_ns = 1500 * MS};

/* It happens so many ms later. */
static void step(uint64_t ms, struct ft_event event)
{
    struct ft_actions actions;
    now += ms * MS;
    ft_protocol_step(&protocol, &event, now, &actions);
    chronicle_step(&chronicle, &protocol, &event, now);
}

/* The witness does what it was asked to, and that is persisted. */
static void agree(uint64_t ms)
{
    step(ms, (struct ft_event){.kind = FT_ANSWER, .ask = protocol.ask, .answer = FT_EXCHANGED});
    step(0, (struct ft_event){.kind = FT_PERSISTED});
}

static void ack(uint64_t ms, uint64_t epoch)
{
    step(0, (struct ft_event){.kind = FT_CAPTURED, .epoch = epoch});
    step(ms, (struct ft_event){.kind = FT_HEARD,
                               .link = protocol.link,
                               .word = {FT_ACK, protocol.generation, epoch}});
}

static void begin(void)
{
    now = 1000000 * MS;
}

static void begin_solo(void)
{
    const struct ft_record record = {.generation = 5, .owner = 1};
    ft_protocol_init_solo(&protocol, &config, &record, now);
    chronicle_init(&chronicle, &protocol, now);
}

static void pair(uint64_t link)
{
    step(1, (struct ft_event){.kind = FT_CONNECTED, .link = link, .node = 2, .twin = 7});
    step(1, (struct ft_event){.kind = FT_SYNCED, .link = link});
    ack(2, protocol.sent + 1);
    agree(3);
    ck_assert_int_eq(protocol.state, FT_PAIRED);
}

static void begin_twin(void)
{
    const struct ft_event connected = {.link = 1, .generation = 5, .twin = 7};
    ft_protocol_init_follower(&protocol, &config, 5, &connected, now);
    chronicle_init(&chronicle, &protocol, now);
}

static void stage(uint64_t ms, uint64_t epoch)
{
    step(ms, (struct ft_event){.kind = FT_STAGED, .link = 1, .generation = 5, .epoch = epoch});
}

static struct chronicle_note expect(enum chronicle_kind kind)
{
    struct chronicle_note note = {0};
    ck_assert(chronicle_take(&chronicle, &note));
    ck_assert_int_eq(note.kind, kind);
    return note;
}

static void expect_nothing(void)
{
    struct chronicle_note note;
    ck_assert(!chronicle_take(&chronicle, &note));
}

START_TEST(protection_is_noted_with_the_time_without_it)
{
    begin_solo();
    uint64_t began = now;
    pair(1);
    ck_assert_uint_eq(expect(CHRONICLE_PROTECTED).since_ns, 0); /* the first time */
    ck_assert_uint_eq(chronicle_unprotected(&chronicle, now), 0);
    ack(10, 2);
    uint64_t acked = now;
    step(30, (struct ft_event){.kind = FT_DISCONNECTED, .link = 1});
    struct chronicle_note alone = expect(CHRONICLE_ALONE);
    ck_assert_str_eq(alone.why, "the connection ended");
    ck_assert_uint_eq(alone.since_ns, acked);
    expect_nothing();
    agree(20);
    struct chronicle_note solo = expect(CHRONICLE_SOLO);
    ck_assert_uint_eq(solo.since_ns, acked); /* so long output waited */
    ck_assert_uint_eq(solo.at_ns, acked + 50 * MS);
    step(950, (struct ft_event){.kind = FT_TICK});
    pair(2);
    struct chronicle_note again = expect(CHRONICLE_PROTECTED);
    ck_assert_uint_eq(again.since_ns, acked);
    ck_assert_uint_eq(chronicle_unprotected(&chronicle, now + 1000 * MS), again.at_ns - acked);
    ck_assert_uint_gt(acked, began);
    expect_nothing();
}
END_TEST

START_TEST(silence_is_told_from_an_end)
{
    begin_solo();
    pair(1);
    (void)expect(CHRONICLE_PROTECTED);
    uint64_t heard = protocol.heard_ns;
    step(101, (struct ft_event){.kind = FT_TICK});
    struct chronicle_note alone = expect(CHRONICLE_ALONE);
    ck_assert_str_eq(alone.why, "silence");
    ck_assert_uint_eq(alone.since_ns, heard);
}
END_TEST

START_TEST(who_asks_for_no_twin_is_not_unprotected)
{
    begin_solo();
    pair(1);
    (void)expect(CHRONICLE_PROTECTED);
    step(10, (struct ft_event){.kind = FT_LEFT});
    agree(10);
    ck_assert_int_eq(protocol.state, FT_SOLO);
    ck_assert_uint_eq(chronicle_unprotected(&chronicle, now + 500 * MS), 0);
    expect_nothing();
}
END_TEST

START_TEST(a_start_without_a_twin_is_unprotected)
{
    ft_protocol_init_owner(&protocol, &config, 5, now);
    chronicle_init(&chronicle, &protocol, now);
    step(10, (struct ft_event){.kind = FT_TICK});
    step(1, (struct ft_event){.kind = FT_ANSWER,
                              .ask = protocol.ask,
                              .answer = FT_IS,
                              .record = {.generation = 5, .owner = 1}});
    agree(1);
    ck_assert_int_eq(protocol.state, FT_SOLO);
    struct chronicle_note solo = expect(CHRONICLE_SOLO);
    ck_assert_str_eq(solo.why, "start");
    ck_assert_uint_eq(solo.since_ns, 0);
    ck_assert_uint_eq(chronicle_unprotected(&chronicle, now + 500 * MS), 500 * MS);
}
END_TEST

START_TEST(a_takeover_has_all_its_moments)
{
    begin_twin();
    uint64_t followed = now;
    stage(40, 1);
    uint64_t twin = now;
    stage(10, 2);
    stage(10, 3);
    uint64_t told = now;
    stage(10, 4);
    stage(10, 5);
    uint64_t heard = now;
    step(151, (struct ft_event){.kind = FT_TICK});
    uint64_t gone = now;
    ck_assert_int_eq(protocol.state, FT_CLAIMING);
    ck_assert_uint_eq(chronicle.takeover.decided, 0);
    step(5, (struct ft_event){.kind = FT_APPLIED});
    step(5, (struct ft_event){.kind = FT_ANSWER,
                              .ask = protocol.ask,
                              .answer = FT_IS,
                              .record = {.generation = 6, .owner = 2, .twin = 7}});
    agree(5);
    ck_assert_int_eq(protocol.state, FT_SOLO);
    const struct chronicle_takeover *takeover = &chronicle.takeover;
    ck_assert(!takeover->planned);
    ck_assert_str_eq(takeover->why, "silence");
    ck_assert_uint_eq(takeover->followed, followed);
    ck_assert_uint_eq(takeover->twin, twin);
    ck_assert_uint_eq(takeover->told, told); /* two more may have left without that being read */
    ck_assert_uint_eq(takeover->heard, heard);
    ck_assert_uint_eq(takeover->gone, gone);
    ck_assert_uint_eq(takeover->decided, now);
    expect_nothing(); /* it is no solo of one that lost its twin */
    ck_assert_uint_eq(chronicle_unprotected(&chronicle, now + 7 * MS), 7 * MS);
}
END_TEST

START_TEST(a_twin_of_one_epoch_knows_that_one)
{
    begin_twin();
    stage(40, 1);
    uint64_t told = now;
    step(10, (struct ft_event){.kind = FT_DISCONNECTED, .link = 1});
    ck_assert_uint_eq(chronicle.takeover.told, told);
    ck_assert_str_eq(chronicle.takeover.why, "the connection ended");
}
END_TEST

START_TEST(a_handover_is_planned)
{
    begin_twin();
    stage(40, 1);
    step(1, (struct ft_event){.kind = FT_HEARD, .link = 1, .word = {FT_HAND, 5, 1}});
    step(1, (struct ft_event){.kind = FT_APPLIED});
    step(1, (struct ft_event){.kind = FT_HEARD, .link = 1, .word = {FT_TAKE, 6, 1}});
    ck_assert_int_eq(protocol.state, FT_CLAIMING);
    ck_assert(chronicle.takeover.planned);
    ck_assert_str_eq(chronicle.takeover.why, "switchover");
    ck_assert_uint_eq(chronicle.takeover.heard, chronicle.takeover.gone);
}
END_TEST

START_TEST(who_was_deposed_knows_since_when_nothing_left)
{
    begin_solo();
    pair(1);
    (void)expect(CHRONICLE_PROTECTED);
    ack(10, 2);
    uint64_t acked = now;
    step(5000, (struct ft_event){.kind = FT_TICK}); /* it was away */
    step(1, (struct ft_event){.kind = FT_DISCONNECTED, .link = 1});
    (void)expect(CHRONICLE_ALONE);
    step(1, (struct ft_event){.kind = FT_ANSWER,
                              .ask = protocol.ask,
                              .answer = FT_IS,
                              .record = {.generation = 9, .owner = 2}});
    ck_assert_int_eq(protocol.state, FT_DEPOSED);
    ck_assert_uint_eq(expect(CHRONICLE_DEPOSED).since_ns, acked);
    ck_assert(chronicle_unprotected(&chronicle, now + 1000 * MS) < 1000 * MS);
}
END_TEST

START_TEST(who_was_deposed_while_alone_held_nothing)
{
    begin_solo();
    pair(1);
    (void)expect(CHRONICLE_PROTECTED);
    step(10, (struct ft_event){.kind = FT_DISCONNECTED, .link = 1});
    (void)expect(CHRONICLE_ALONE);
    agree(10);
    (void)expect(CHRONICLE_SOLO);
    step(800, (struct ft_event){.kind = FT_TICK});
    step(800, (struct ft_event){.kind = FT_TICK}); /* it looks at the witness */
    step(1, (struct ft_event){.kind = FT_ANSWER,
                              .ask = protocol.ask,
                              .answer = FT_IS,
                              .record = {.generation = 9, .owner = 2, .twin = FT_FORCED}});
    ck_assert_int_eq(protocol.state, FT_DEPOSED);
    ck_assert_uint_eq(expect(CHRONICLE_DEPOSED).since_ns, 0);
}
END_TEST

START_TEST(notes_that_nobody_takes_make_room_for_newer_ones)
{
    begin_solo();
    for (uint64_t link = 1; link <= 5; link++) {
        pair(link);
        step(10, (struct ft_event){.kind = FT_DISCONNECTED, .link = link});
        agree(10);
    }
    ck_assert(chronicle.lost);
    ck_assert_uint_eq(chronicle.count, CHRONICLE_NOTES);
    struct chronicle_note last = {0};
    while (chronicle_take(&chronicle, &last))
        continue;
    ck_assert_int_eq(last.kind, CHRONICLE_SOLO);
    ck_assert_uint_eq(last.at_ns, now);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chronicle");
    TCase *tcase = tcase_create("chronicle");

    tcase_add_checked_fixture(tcase, begin, NULL);
    tcase_add_test(tcase, protection_is_noted_with_the_time_without_it);
    tcase_add_test(tcase, silence_is_told_from_an_end);
    tcase_add_test(tcase, who_asks_for_no_twin_is_not_unprotected);
    tcase_add_test(tcase, a_start_without_a_twin_is_unprotected);
    tcase_add_test(tcase, a_takeover_has_all_its_moments);
    tcase_add_test(tcase, a_twin_of_one_epoch_knows_that_one);
    tcase_add_test(tcase, a_handover_is_planned);
    tcase_add_test(tcase, who_was_deposed_knows_since_when_nothing_left);
    tcase_add_test(tcase, who_was_deposed_while_alone_held_nothing);
    tcase_add_test(tcase, notes_that_nobody_takes_make_room_for_newer_ones);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
