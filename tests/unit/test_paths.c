/* SPDX-License-Identifier: MIT */
#include "host/paths.h"
#include "tests/unit/unit.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull

enum { NEAR, FAR, SIDES, TICK_MS = 5, BEAT_MS = 20, STALL_MS = 100, WINDOW = 100000, DEEP = 128 };

/* --- two sides, and the lines between them ---------------------------------------------------- */

struct record {
    uint32_t length; /* of the payload */
    uint8_t bytes[PATHS_HEAD + PATHS_PAYLOAD];
};

/* One direction of a connection; what a side said last is at the end. */
struct line {
    struct record *queue;
    size_t begin, end;
    bool stuck, big_stuck; /* nothing comes through; nothing with a payload, and the rest does */
};

struct world {
    struct paths side[SIDES];
    struct line line[PATHS][SIDES]; /* by who speaks */
    bool connected[PATHS];
    uint64_t now, put[SIDES], got[SIDES], gave_up;
};

static uint8_t byte_at(int side, uint64_t offset)
{
    uint64_t mixed = (offset + 1) * 0x9e3779b97f4a7c15u + (uint64_t)side;
    return (uint8_t)(mixed >> 56 ^ mixed >> 24);
}

static struct record queues[PATHS][SIDES][DEEP];

static void begin(struct world *world)
{
    *world = (struct world){.now = 1000 * MS};
    for (int i = 0; i < SIDES; i++) {
        const struct paths_config config = {.beat_ns = BEAT_MS * MS,
                                            .stall_ns = STALL_MS * MS,
                                            .window = WINDOW,
                                            .decides = i == NEAR};
        ck_assert_int_eq(paths_init(&world->side[i], &config, world->now), 0);
        for (int path = 0; path < PATHS; path++)
            world->line[path][i].queue = queues[path][i];
    }
}

static void end(struct world *world)
{
    for (int i = 0; i < SIDES; i++)
        paths_finish(&world->side[i]);
}

static void set_up(struct world *world, int path)
{
    world->connected[path] = true;
    for (int i = 0; i < SIDES; i++) {
        world->line[path][i].begin = world->line[path][i].end = 0;
        paths_up(&world->side[i], path, world->now);
    }
}

static void set_down(struct world *world, int path)
{
    if (!world->connected[path])
        return;
    world->connected[path] = false;
    for (int i = 0; i < SIDES; i++)
        paths_down(&world->side[i], path, world->now);
}

static void stick(struct world *world, int path, bool stuck)
{
    for (int i = 0; i < SIDES; i++)
        world->line[path][i].stuck = stuck;
}

/* What a side has to say goes onto its lines. */
static void speak(struct world *world, int side)
{
    static uint8_t batch[PATHS_BATCH];
    for (int path = 0; path < PATHS; path++) {
        struct line *line = &world->line[path][side];
        if (!world->connected[path] || line->end + 16 > DEEP)
            continue;
        bool wants = paths_wants(&world->side[side], path);
        size_t length = paths_next(&world->side[side], path, world->now, batch);
        ck_assert_int_eq(wants, length > 0);
        for (size_t at = 0; at < length;) {
            struct record *record = &line->queue[line->end++];
            int payload = paths_length(batch + at);
            ck_assert_int_ge(payload, 0);
            record->length = (uint32_t)payload;
            memcpy(record->bytes, batch + at, PATHS_HEAD + record->length);
            at += PATHS_HEAD + record->length;
            ck_assert_uint_le(at, length);
        }
    }
}

static bool passes(const struct line *line)
{
    return line->begin < line->end && !line->stuck &&
           !(line->big_stuck && line->queue[line->begin].length > 0);
}

/* One record, from that side; false: there is none. */
static bool deliver_one(struct world *world, int path, int from)
{
    struct line *line = &world->line[path][from];
    if (!world->connected[path] || !passes(line))
        return false;
    const struct record *record = &line->queue[line->begin++];
    ck_assert_int_eq(paths_take(&world->side[!from], path, world->now, record->bytes,
                                record->bytes + PATHS_HEAD),
                     0);
    if (line->begin == line->end)
        line->begin = line->end = 0;
    return true;
}

static void put(struct world *world, int side, size_t length)
{
    static uint8_t bytes[WINDOW];
    length = length < sizeof(bytes) ? length : sizeof(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = byte_at(side, world->put[side] + i);
    world->put[side] += paths_put(&world->side[side], bytes, length);
}

/* What the other side of `side` has said. */
static void get(struct world *world, int side, size_t most)
{
    static uint8_t bytes[WINDOW];
    size_t length = paths_get(&world->side[side], bytes, most < WINDOW ? most : WINDOW);
    size_t same = 0;
    while (same < length && bytes[same] == byte_at(!side, world->got[!side] + same))
        same++;
    ck_assert_uint_eq(same, length);
    world->got[!side] += length;
}

static void tick(struct world *world)
{
    world->now += TICK_MS * MS;
    for (int side = 0; side < SIDES; side++) {
        int bad = paths_tick(&world->side[side], world->now);
        if (bad == PATHS_NONE)
            continue;
        ck_assert_int_eq(side, NEAR);
        world->gave_up++;
        set_down(world, bad);
    }
}

/* All that can pass does, for so long; `reads`: what has come is taken. */
static void run_for(struct world *world, unsigned ms, bool reads)
{
    for (unsigned at = 0; at < ms; at += TICK_MS) {
        tick(world);
        for (bool more = true; more;) {
            more = false;
            for (int side = 0; side < SIDES; side++) {
                speak(world, side);
                for (int path = 0; path < PATHS; path++)
                    while (deliver_one(world, path, side))
                        more = true;
                if (reads)
                    get(world, side, WINDOW);
            }
        }
    }
}

static void all_is_there(const struct world *world)
{
    for (int side = 0; side < SIDES; side++) {
        ck_assert_uint_eq(world->got[side], world->put[side]);
        ck_assert_uint_eq(world->side[side].acked, world->put[side]);
    }
}

/* --- the stream ------------------------------------------------------------------------------- */

START_TEST(both_directions_carry_every_byte)
{
    struct world world;
    begin(&world);
    set_up(&world, 0);
    set_up(&world, 1);
    for (unsigned i = 0; i < 200; i++) {
        put(&world, NEAR, 50000);
        put(&world, FAR, 77);
        run_for(&world, TICK_MS, true);
    }
    run_for(&world, 50, true);
    all_is_there(&world);
    ck_assert_uint_ge(world.put[NEAR], 200 * 50000);
    ck_assert_uint_eq(world.side[NEAR].moves + world.side[FAR].moves + world.gave_up, 0);
    end(&world);
}
END_TEST

/* `records` of the data, and `answers` of what acknowledges them, come through before path 0 is
 * gone. */
static void cut_at(unsigned records, unsigned answers, bool again)
{
    struct world world;
    begin(&world);
    set_up(&world, 0);
    set_up(&world, 1);
    run_for(&world, TICK_MS, true);
    put(&world, NEAR, 5 * PATHS_PAYLOAD + 100);
    put(&world, FAR, 2 * PATHS_PAYLOAD + 1);
    for (unsigned i = 0; i < records; i++) {
        speak(&world, NEAR);
        (void)deliver_one(&world, 0, NEAR);
    }
    for (unsigned i = 0; i < answers; i++) {
        tick(&world);
        speak(&world, FAR);
        (void)deliver_one(&world, 0, FAR);
    }
    set_down(&world, 0);
    put(&world, NEAR, 300);
    if (again)
        set_up(&world, 0);
    run_for(&world, 30, true);
    all_is_there(&world);
    ck_assert_uint_eq(world.side[NEAR].moves, 1);
    set_down(&world, 1); /* and back, where there is a way */
    put(&world, NEAR, 300);
    run_for(&world, 30, true);
    ck_assert_uint_eq(world.put[NEAR] - world.got[NEAR], again ? 0 : 300);
    end(&world);
}

START_TEST(wherever_a_path_is_cut_nothing_is_lost_or_comes_twice)
{
    for (unsigned records = 0; records < 10; records++)
        for (unsigned answers = 0; answers < 6; answers++) {
            cut_at(records, answers, false);
            cut_at(records, answers, true);
        }
}
END_TEST

static uint64_t random_state;

static unsigned pick(unsigned below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % below;
}

static void befall(struct world *world)
{
    int path = (int)pick(PATHS), from = (int)pick(SIDES);
    switch (pick(12)) {
    case 0:
        world->line[path][from].stuck = !world->line[path][from].stuck;
        break;
    case 1:
        world->line[path][from].big_stuck = !world->line[path][from].big_stuck;
        break;
    case 2:
        set_down(world, path);
        break;
    case 3:
    case 4:
        if (!world->connected[path])
            set_up(world, path);
        break;
    case 5:
        world->now += pick(STALL_MS) * MS;
        break;
    default:
        put(world, from, pick(WINDOW / 8));
    }
}

/* Records of both paths come in any order among each other, and late. */
START_TEST(whatever_befalls_the_paths_the_stream_is_whole)
{
    uint64_t moves = 0;
    for (unsigned seed = 1; seed <= 12; seed++) {
        struct world world;
        random_state = seed;
        begin(&world);
        set_up(&world, 0);
        for (unsigned step = 0; step < 1200; step++) {
            if (pick(8) == 0)
                befall(&world);
            if (pick(4) == 0)
                tick(&world);
            speak(&world, (int)pick(SIDES));
            for (unsigned i = pick(8); i > 0; i--)
                (void)deliver_one(&world, (int)pick(PATHS), (int)pick(SIDES));
            get(&world, (int)pick(SIDES), pick(WINDOW));
        }
        for (int path = 0; path < PATHS; path++) {
            set_down(&world, path);
            stick(&world, path, false);
            for (int side = 0; side < SIDES; side++)
                world.line[path][side].big_stuck = false;
            set_up(&world, path);
        }
        run_for(&world, 100, true);
        all_is_there(&world);
        moves += world.side[NEAR].moves + world.side[FAR].moves;
        end(&world);
    }
    ck_assert_uint_gt(moves, 10);
}
END_TEST

/* --- which path is the active one ------------------------------------------------------------- */

static void begin_with_both(struct world *world)
{
    begin(world);
    set_up(world, 0);
    set_up(world, 1);
    put(world, NEAR, 1000);
    run_for(world, 3 * STALL_MS, true);
    ck_assert_int_eq(world->side[NEAR].active, 0);
    ck_assert_int_eq(world->side[FAR].active, 0);
    ck_assert_uint_eq(world->gave_up, 0);
}

START_TEST(a_stream_that_stalls_moves_in_time_and_stays)
{
    struct world world;
    begin_with_both(&world);
    world.line[0][_i].stuck = true; /* one direction is enough */
    run_for(&world, STALL_MS / 2, true);
    put(&world, NEAR, 1000);
    put(&world, FAR, 1000);
    run_for(&world, STALL_MS / 2 - 2 * TICK_MS, true);
    ck_assert_uint_eq(world.side[NEAR].moves, 0);
    run_for(&world, STALL_MS, true);
    ck_assert_int_eq(world.side[NEAR].active, 1);
    ck_assert_int_eq(world.side[FAR].active, 1);
    ck_assert_uint_eq(world.gave_up, 1);
    all_is_there(&world);
    stick(&world, 0, false);
    set_up(&world, 0);
    for (unsigned i = 0; i < 50; i++) {
        put(&world, NEAR, 1000);
        run_for(&world, 20, true);
    }
    ck_assert_int_eq(world.side[NEAR].active, 1);
    all_is_there(&world);
    stick(&world, 1, true);
    put(&world, NEAR, 1000);
    run_for(&world, 2 * STALL_MS, true);
    ck_assert_int_eq(world.side[NEAR].active, 0);
    all_is_there(&world);
    end(&world);
}
END_TEST

START_TEST(small_records_alone_do_not_make_a_path_good)
{
    struct world world;
    begin_with_both(&world);
    world.line[0][NEAR].big_stuck = true;
    put(&world, NEAR, 20000);
    for (unsigned i = 0; i < 2 * STALL_MS / TICK_MS; i++) {
        run_for(&world, TICK_MS, true);
        /* whatever is small gets by: worse than any line would be */
        if (world.connected[0])
            ck_assert_int_eq(
                paths_take(&world.side[FAR], 0, world.now, (uint8_t[PATHS_HEAD]){1}, NULL), 0);
    }
    ck_assert_int_eq(world.side[NEAR].active, 1);
    ck_assert_int_eq(world.side[FAR].active, 1);
    all_is_there(&world);
    end(&world);
}
END_TEST

START_TEST(who_hears_nothing_on_either_path_leaves_none)
{
    struct world world;
    begin_with_both(&world);
    stick(&world, 0, true);
    stick(&world, 1, true);
    put(&world, NEAR, 1000);
    run_for(&world, 50 * STALL_MS, true);
    ck_assert_uint_eq(world.gave_up, 0);
    stick(&world, 0, false);
    stick(&world, 1, false);
    run_for(&world, STALL_MS, true);
    ck_assert_uint_eq(world.gave_up, 0);
    all_is_there(&world);
    end(&world);
}
END_TEST

START_TEST(who_was_away_takes_no_path_for_dead)
{
    struct world world;
    begin_with_both(&world);
    put(&world, NEAR, 1000);
    speak(&world, NEAR);
    world.now += 20 * STALL_MS * MS;
    ck_assert_int_eq(paths_tick(&world.side[NEAR], world.now), PATHS_NONE);
    run_for(&world, STALL_MS, true);
    ck_assert_uint_eq(world.gave_up + world.side[NEAR].moves + world.side[FAR].moves, 0);
    all_is_there(&world);
    end(&world);
}
END_TEST

START_TEST(a_reader_that_takes_its_time_is_no_stall)
{
    struct world world;
    begin_with_both(&world);
    for (unsigned i = 0; i < 10; i++)
        put(&world, NEAR, WINDOW);
    run_for(&world, 20 * STALL_MS, false);
    for (unsigned i = 0; i < 10; i++)
        put(&world, NEAR, WINDOW);
    run_for(&world, 20 * STALL_MS, false);
    ck_assert_uint_eq(world.gave_up + world.side[NEAR].moves, 0);
    ck_assert_uint_eq(world.put[NEAR], 1000 + 2 * WINDOW); /* what both sides keep */
    run_for(&world, TICK_MS, true);
    all_is_there(&world);
    end(&world);
}
END_TEST

START_TEST(a_spare_path_that_is_silent_is_made_anew)
{
    struct world world;
    begin_with_both(&world);
    stick(&world, 1, true);
    run_for(&world, 2 * STALL_MS, true);
    ck_assert_uint_eq(world.gave_up, 1);
    ck_assert_uint_eq(world.side[NEAR].moves, 0);
    ck_assert_int_eq(world.side[NEAR].active, 0);
    ck_assert(!world.side[NEAR].path[1].up);
    end(&world);
}
END_TEST

START_TEST(a_line_that_is_slow_gets_on)
{
    struct world world;
    begin_with_both(&world);
    put(&world, NEAR, WINDOW);
    for (unsigned i = 0; world.got[NEAR] < world.put[NEAR]; i++) {
        tick(&world);
        for (int side = 0; side < SIDES; side++)
            speak(&world, side);
        if (i % 16 == 0) /* some 100 KB/s */
            (void)deliver_one(&world, 0, NEAR);
        while (deliver_one(&world, 0, FAR) || deliver_one(&world, 1, FAR) ||
               deliver_one(&world, 1, NEAR))
            continue;
        get(&world, FAR, WINDOW);
    }
    ck_assert_uint_eq(world.gave_up + world.side[NEAR].moves, 0);
    end(&world);
}
END_TEST

START_TEST(the_end_is_heard_when_all_is_there)
{
    struct world world;
    begin_with_both(&world);
    put(&world, NEAR, 5000);
    paths_end(&world.side[NEAR]);
    speak(&world, NEAR);
    ck_assert(deliver_one(&world, 0, NEAR));
    ck_assert(!world.side[FAR].ended);
    run_for(&world, 2 * BEAT_MS, true);
    ck_assert(world.side[FAR].ended);
    ck_assert(!world.side[NEAR].ended);
    all_is_there(&world);
    end(&world);
}
END_TEST

/* --- a hostile peer --------------------------------------------------------------------------- */

static int take(struct paths *paths, uint32_t kind, uint32_t length, uint64_t offset,
                uint64_t received)
{
    static const uint8_t payload[PATHS_PAYLOAD];
    uint8_t head[PATHS_HEAD];
    const uint32_t words[] = {htole32(kind), htole32(length)};
    const uint64_t numbers[] = {htole64(offset), htole64(received), htole64(UINT64_MAX)};
    memcpy(head, words, sizeof(words));
    memcpy(head + sizeof(words), numbers, sizeof(numbers));
    return paths_take(paths, 0, 1000 * MS, head, payload);
}

START_TEST(records_that_break_a_rule_leave_nothing)
{
    struct world world;
    begin(&world);
    set_up(&world, 0);
    put(&world, NEAR, 100);
    struct paths *paths = &world.side[NEAR];
    ck_assert_int_eq(take(paths, 0, 0, 0, 0), -EBADMSG);
    ck_assert_int_eq(take(paths, 3, 0, 0, 0), -EBADMSG);
    ck_assert_int_eq(take(paths, 1, PATHS_PAYLOAD + 1, 0, 0), -EBADMSG);
    ck_assert_int_eq(take(paths, 1, 1, 1, 0), -EBADMSG);
    ck_assert_int_eq(take(paths, 1, 1, UINT64_MAX, 0), -EBADMSG);
    ck_assert_int_eq(take(paths, 1, 10, 0, 1), -EBADMSG); /* nothing was sent */
    ck_assert_int_eq(take(paths, 2, 1, 0, 0), -EBADMSG);
    ck_assert_int_eq(take(paths, 2, 0, 1, 0), -EBADMSG);
    ck_assert_uint_eq(paths->received, 0);
    ck_assert_uint_eq(paths->acked, 0);
    ck_assert(!paths->ended);
    for (unsigned i = 0; i < WINDOW / PATHS_PAYLOAD; i++)
        ck_assert_int_eq(take(paths, 1, PATHS_PAYLOAD, i * PATHS_PAYLOAD, 0), 0);
    ck_assert_int_eq(take(paths, 1, PATHS_PAYLOAD, paths->received, 0), -EBADMSG); /* no room */
    ck_assert_int_eq(take(paths, 1, PATHS_PAYLOAD, 0, 0), 0); /* it is there already */
    ck_assert_int_eq(take(paths, 2, 0, paths->received, 0), 0);
    ck_assert_int_eq(take(paths, 1, 1, paths->received, 0), -EBADMSG);
    end(&world);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("paths");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, both_directions_carry_every_byte);
    tcase_add_test(tcase, wherever_a_path_is_cut_nothing_is_lost_or_comes_twice);
    tcase_add_test(tcase, whatever_befalls_the_paths_the_stream_is_whole);
    tcase_add_loop_test(tcase, a_stream_that_stalls_moves_in_time_and_stays, 0, SIDES);
    tcase_add_test(tcase, small_records_alone_do_not_make_a_path_good);
    tcase_add_test(tcase, who_hears_nothing_on_either_path_leaves_none);
    tcase_add_test(tcase, who_was_away_takes_no_path_for_dead);
    tcase_add_test(tcase, a_reader_that_takes_its_time_is_no_stall);
    tcase_add_test(tcase, a_spare_path_that_is_silent_is_made_anew);
    tcase_add_test(tcase, a_line_that_is_slow_gets_on);
    tcase_add_test(tcase, the_end_is_heard_when_all_is_there);
    tcase_add_test(tcase, records_that_break_a_rule_leave_nothing);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
