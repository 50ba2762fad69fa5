/* SPDX-License-Identifier: MIT */
/*
 * Who carries the protocol out: time, words, links, the witness and what is persisted, over a link
 * whose other end is ours, and a witness in a folder.
 */
#include "core/clock.h"
#include "ft/asker.h"
#include "ft/conductor.h"
#include "ft/following.h"
#include "host/link_parts.h"
#include "tests/unit/conductor_times.h"
#include "tests/unit/witness_wall.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { PEER = 12, TWIN = 13, MOST_ACTIONS = 4096 };

static struct {
    struct witness *witness; /* ours */
    char address[400];
    struct conductor *conductor;
    struct link *link, *peer;
    struct stream_buffer payload; /* the peer's */
    uint64_t number;
    struct ft_config times;

    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    struct ft_action actions[MOST_ACTIONS];
    unsigned count, looked, changes;
    unsigned persist_calls, persist_fails;
    struct ft_record persisted;

    atomic_bool busy;
} t;

/* --- what the conductor calls ----------------------------------------------------------------- */

static void handle_action(void *ctx, const struct ft_action *action)
{
    pthread_mutex_lock(&t.lock);
    t.actions[t.count++ % MOST_ACTIONS] = *action;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static void handle_changed(void *ctx)
{
    pthread_mutex_lock(&t.lock);
    t.changes++;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static int handle_persist(void *ctx, const struct ft_record *record, struct err *err)
{
    pthread_mutex_lock(&t.lock);
    bool fails = t.persist_calls++ < t.persist_fails;
    if (!fails)
        t.persisted = *record;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
    return fails ? err_say(err, ERR_FAILED, ENOSPC, "the disk is full") : 0;
}

static bool handle_busy(void *ctx)
{
    return t.busy;
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* The next action of that kind; others in between are passed over. */
static struct ft_action expect_action(enum ft_action_kind kind)
{
    const struct timespec at = patience();
    int ret = 0;
    pthread_mutex_lock(&t.lock);
    for (;;) {
        while (t.looked < t.count) {
            struct ft_action action = t.actions[t.looked++ % MOST_ACTIONS];
            if (action.kind != kind)
                continue;
            pthread_mutex_unlock(&t.lock);
            return action;
        }
        ck_assert_msg(ret != ETIMEDOUT, "action %d never comes", kind);
        ret = pthread_cond_clockwait(&t.changed, &t.lock, CLOCK_MONOTONIC, &at);
    }
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

/* The next word that reaches the peer; -errno where there is no more. */
static int hear(struct ft_word *ret_word)
{
    struct frame frame;
    int ret = moving_read(link_reader(t.peer), &frame, &t.payload, NULL, NULL);
    if (ret < 0)
        return ret;
    ck_assert_uint_eq(frame.kind, FRAME_WORD);
    ck_assert_int_eq(following_get_word(&t.payload, ret_word, NULL), 0);
    return 0;
}

static struct ft_word expect_word(enum ft_word_kind kind)
{
    struct ft_word word;
    do
        ck_assert_int_eq(hear(&word), 0);
    while (word.kind != kind);
    return word;
}

/* --- two ends --------------------------------------------------------------------------------- */

static void run_accepting(void *arg)
{
    const struct link_config config = {.insecure = true, .timeout_ms = PATIENCE_S * 1000};
    ck_assert_int_eq(link_start(&t.peer, *(int *)arg, true, &config, NULL), 0);
}

static void make_link(void)
{
    const struct link_config config = {.insecure = true};
    struct thread accepting = {0};
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ck_assert_int_eq(thread_start(&accepting, "accepting", run_accepting, &ends[1], NULL), 0);
    ck_assert_int_eq(link_start(&t.link, ends[0], false, &config, NULL), 0);
    thread_join(&accepting);
}

static void drop_link(void)
{
    if (!t.link)
        return;
    conductor_detach(t.conductor);
    link_destroy(t.link);
    link_destroy(t.peer);
    t.link = t.peer = NULL;
}

static void begin(const struct ft_protocol *protocol)
{
    struct conductor_config config = {.witness = t.address,
                                      .act = handle_action,
                                      .changed = handle_changed,
                                      .persist = handle_persist,
                                      .is_busy = handle_busy,
                                      .ctx = &t};
    struct err err = {0};
    memcpy(config.uuid, vm_a, sizeof(config.uuid));
    ck_assert_msg(conductor_create(&t.conductor, &config, protocol, &err) == 0, "%s", err.text);
}

static void attach(void)
{
    make_link();
    t.number = conductor_attach(t.conductor, t.link);
}

static void begin_solo(void)
{
    struct ft_record record = {.generation = 1, .owner = NODE}, is;
    struct ft_protocol protocol;
    ck_assert_int_eq(witness_exchange(t.witness, vm_a, 0, &record, &is, NULL), 0);
    ft_protocol_init_solo(&protocol, &t.times, &record, clock_boot_ns());
    begin(&protocol);
}

static void begin_owner(uint64_t persisted)
{
    struct ft_protocol protocol;
    ft_protocol_init_owner(&protocol, &t.times, persisted, clock_boot_ns());
    begin(&protocol);
}

/* As a twin's, of generation 1. */
static void begin_follower(void)
{
    const struct ft_event connected = {
        .kind = FT_CONNECTED, .link = CONDUCTOR_FIRST_LINK, .generation = 1, .twin = TWIN};
    struct ft_protocol protocol;
    make_link();
    ft_protocol_init_follower(&protocol, &t.times, 1, &connected, clock_boot_ns());
    begin(&protocol);
    t.number = conductor_attach(t.conductor, t.link);
    ck_assert_uint_eq(t.number, CONDUCTOR_FIRST_LINK);
}

static void tell(struct ft_event event)
{
    event.link = t.number;
    conductor_tell(t.conductor, &event);
}

static void be_followed(void)
{
    attach();
    tell((struct ft_event){.kind = FT_CONNECTED, .node = PEER, .twin = TWIN});
    expect_action(FT_SYNC);
}

static void be_gated(void)
{
    be_followed();
    tell((struct ft_event){.kind = FT_SYNCED});
    expect_action(FT_GATE);
    tell((struct ft_event){.kind = FT_CAPTURED, .epoch = 1});
}

static void say(enum ft_word_kind kind, uint64_t generation, uint64_t epoch)
{
    tell((struct ft_event){.kind = FT_HEARD, .word = {kind, generation, epoch}});
}

static void stage(uint64_t epoch)
{
    tell((struct ft_event){.kind = FT_STAGED, .generation = 1, .epoch = epoch});
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    stream_buffer_init(&t.payload, 0);
    t.times = patient_times;
    rig_begin();
    store_begin(true);
    t.witness = store_open();
    snprintf(t.address, sizeof(t.address), "file:%s", store);
}

static void tear_down(void)
{
    drop_link();
    conductor_destroy(t.conductor);
    witness_close(t.witness);
    store_end();
    stream_buffer_finish(&t.payload);
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.lock);
}

/* --- words ------------------------------------------------------------------------------------ */

static void run_staging(void *arg)
{
    for (uint64_t epoch = 1; epoch <= 2000; epoch++)
        stage(epoch);
}

START_TEST(words_arrive_in_order_and_none_is_lost)
{
    struct thread staging = {0};
    struct ft_word word;
    begin_follower();
    ck_assert_int_eq(thread_start(&staging, "staging", run_staging, NULL, NULL), 0);
    for (uint64_t epoch = 1; epoch <= 2000; epoch++) {
        word = expect_word(FT_ACK);
        ck_assert_uint_eq(word.epoch, epoch);
        ck_assert_uint_eq(word.generation, 1);
    }
    thread_join(&staging);
    for (uint64_t epoch = 1; epoch <= 2000; epoch++)
        ck_assert_uint_eq(expect_action(FT_APPLY).epoch, epoch);
}
END_TEST

START_TEST(a_beat_comes_again_and_again)
{
    struct ft_word word;
    begin_solo();
    be_followed();
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(hear(&word), 0);
        ck_assert_int_eq(word.kind, FT_BEAT);
    }
}
END_TEST

static void wait_for_beats(unsigned count)
{
    struct ft_protocol protocol;
    uint64_t last = 0, until = clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
    for (unsigned seen = 0; seen <= count;) {
        conductor_wait(t.conductor, 1);
        conductor_look(t.conductor, &protocol);
        seen += protocol.said_ns != last;
        last = protocol.said_ns;
        ck_assert_uint_lt(clock_monotonic_ns(), until);
    }
}

static void run_stage_one(void *arg)
{
    stage(1);
}

/* Somebody else writes a long frame to a slow line. */
START_TEST(what_matters_is_not_lost_behind_beats_that_wait)
{
    struct thread staging = {0};
    begin_follower();
    pthread_mutex_lock(conductor_writing(t.conductor));
    wait_for_beats(100);
    ck_assert_int_eq(thread_start(&staging, "staging", run_stage_one, NULL, NULL), 0);
    expect_action(FT_APPLY); /* the step is done, its word waits */
    pthread_mutex_unlock(conductor_writing(t.conductor));
    ck_assert_uint_eq(expect_word(FT_ACK).epoch, 1);
    thread_join(&staging);
}
END_TEST

static int policy_of(const char *thread)
{
    char path[300], name[32];
    const struct dirent *entry;
    int policy = -1;
    DIR *tasks = opendir("/proc/self/task");
    ck_assert(tasks);
    while ((entry = readdir(tasks))) {
        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file) && strncmp(name, thread, strlen(thread)) == 0)
            policy = sched_getscheduler(atoi(entry->d_name));
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return policy;
}

/* Neither being root nor a limit says so alone: there may be a group of processes without any time
 * for that. */
static bool may_hurry(void)
{
    const struct sched_param lowest = {.sched_priority = 1}, none = {0};
    bool may = sched_setscheduler(0, SCHED_RR, &lowest) == 0;
    ck_assert_int_eq(sched_setscheduler(0, SCHED_OTHER, &none), 0);
    return may;
}

START_TEST(the_pulse_has_a_priority_of_its_own_where_it_may)
{
    int wanted = may_hurry() ? SCHED_RR : SCHED_OTHER;
    begin_solo();
    be_followed();
    wait_for_beats(2);
    ck_assert_int_eq(policy_of("pulse"), wanted);
    ck_assert_int_eq(policy_of("speaker"), SCHED_OTHER);
}
END_TEST

/* --- links ------------------------------------------------------------------------------------ */

START_TEST(a_hang_up_breaks_the_link)
{
    struct ft_word word;
    begin_solo();
    be_followed();
    say(FT_ACK, 1, 1); /* nothing has left yet */
    expect_action(FT_UNSYNC);
    while (hear(&word) == 0)
        ck_assert_int_eq(word.kind, FT_BEAT);
    tell((struct ft_event){.kind = FT_DISCONNECTED});
    expect_state(FT_SOLO);
}
END_TEST

START_TEST(whoever_says_nothing_is_gone)
{
    struct ft_word word;
    t.times.lost_ns = t.times.stall_ns = 50 * MS;
    begin_solo();
    be_followed();
    expect_action(FT_UNSYNC);
    while (hear(&word) == 0)
        continue;
}
END_TEST

START_TEST(who_is_busy_concludes_nothing_from_silence)
{
    t.times.lost_ns = t.times.stall_ns = 20 * MS;
    t.busy = true;
    begin_follower();
    for (unsigned i = 0; i < 50; i++) /* of which each is 4 ms */
        expect_word(FT_BEAT);
    expect_state(FT_FOLLOWING);
    t.busy = false;
    expect_state(FT_DISMISSED);
    expect_action(FT_END);
}
END_TEST

START_TEST(links_have_numbers_and_a_word_of_an_old_one_is_nobodys)
{
    begin_solo();
    be_followed();
    uint64_t first = t.number;
    say(FT_ACK, 1, 1);
    expect_action(FT_UNSYNC);
    drop_link();
    be_followed();
    ck_assert_uint_eq(t.number, first + 1);
    const struct ft_event old = {.kind = FT_DISCONNECTED, .link = first};
    conductor_tell(t.conductor, &old);
    for (unsigned i = 0; i < 3; i++)
        expect_word(FT_BEAT);
    struct ft_protocol protocol;
    conductor_look(t.conductor, &protocol);
    ck_assert_uint_eq(protocol.link, t.number);
}
END_TEST

static atomic_bool writer_waits;

static void run_writer(void *arg)
{
    static const uint8_t bytes[64 << 10];
    struct stream *stream = link_writer(t.link);
    pthread_mutex_lock(conductor_writing(t.conductor));
    writer_waits = true;
    while (stream_error(stream) == 0)
        stream_write(stream, bytes, sizeof(bytes));
    pthread_mutex_unlock(conductor_writing(t.conductor));
}

/* The peer reads nothing, and a frame is on its way for ever. */
START_TEST(a_line_that_takes_nothing_makes_time_not_stand_still)
{
    struct thread writer = {0};
    t.times.lost_ns = t.times.stall_ns = 100 * MS;
    begin_solo();
    be_followed();
    ck_assert_int_eq(thread_start(&writer, "writer", run_writer, NULL, NULL), 0);
    expect_action(FT_UNSYNC);
    thread_join(&writer); /* the hang-up wakes it */
    ck_assert(writer_waits);
}
END_TEST

START_TEST(a_detach_ends_who_writes)
{
    struct thread writer = {0};
    writer_waits = false;
    begin_solo();
    be_followed();
    ck_assert_int_eq(thread_start(&writer, "writer", run_writer, NULL, NULL), 0);
    while (!writer_waits)
        sched_yield();
    drop_link(); /* while it writes, and words wait */
    thread_join(&writer);
}
END_TEST

/* Whoever may not wait for a line leaves the words to somebody who may. */
START_TEST(a_post_waits_for_no_line)
{
    const struct ft_event staged = {
        .kind = FT_STAGED, .link = CONDUCTOR_FIRST_LINK, .generation = 1, .epoch = 1};
    begin_follower();
    pthread_mutex_lock(conductor_writing(t.conductor));
    conductor_post(t.conductor, &staged);
    expect_action(FT_APPLY);
    pthread_mutex_unlock(conductor_writing(t.conductor));
    ck_assert_uint_eq(expect_word(FT_ACK).epoch, 1);
}
END_TEST

/* --- the witness ------------------------------------------------------------------------------ */

START_TEST(who_starts_has_asked_exchanged_and_persisted_before_it_runs)
{
    begin_owner(0);
    expect_action(FT_RUN);
    expect_action(FT_OPEN);
    ck_assert_uint_eq(see(t.witness).owner, NODE);
    ck_assert_uint_eq(t.persisted.generation, 1);
    ck_assert_uint_eq(t.persisted.owner, NODE);
}
END_TEST

START_TEST(a_pair_is_one_when_witness_and_disk_say_so)
{
    begin_solo();
    be_gated();
    say(FT_ACK, 1, 1);
    ck_assert_uint_eq(expect_action(FT_RELEASE).epoch, 1);
    expect_state(FT_PAIRED);
    struct ft_record record = see(t.witness);
    ck_assert(record.owner == NODE && record.twin == TWIN && record.generation == 2);
    ck_assert_uint_eq(t.persisted.generation, 2);
}
END_TEST

START_TEST(what_cannot_be_persisted_is_tried_until_it_can)
{
    t.persist_fails = 5;
    begin_solo();
    be_gated();
    say(FT_ACK, 1, 1);
    expect_state(FT_PAIRED);
    ck_assert_uint_eq(t.persist_calls, 6);
    ck_assert_uint_eq(t.persisted.generation, 2);
}
END_TEST

START_TEST(a_record_of_somebody_else_ends_it)
{
    struct ft_record record = {.generation = 1, .owner = PEER}, is;
    ck_assert_int_eq(witness_exchange(t.witness, vm_a, 0, &record, &is, NULL), 0);
    begin_owner(0);
    expect_action(FT_STOP);
    expect_action(FT_END);
    expect_state(FT_DEPOSED);
}
END_TEST

START_TEST(an_exchange_that_comes_too_late_is_known_for_what_it_is)
{
    struct ft_record record = {.generation = 2, .owner = PEER}, is;
    begin_solo();
    be_gated();
    ck_assert_int_eq(witness_exchange(t.witness, vm_a, 1, &record, &is, NULL), 0);
    say(FT_ACK, 1, 1);
    expect_action(FT_STOP);
    expect_state(FT_DEPOSED);
}
END_TEST

START_TEST(a_witness_that_is_away_is_named_and_asked_again)
{
    char away[400];
    struct err trouble = {0};
    uint64_t until = clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
    snprintf(away, sizeof(away), "%s.away", store);
    ck_assert_int_eq(rename(store, away), 0);
    begin_owner(0);
    while (!trouble.kind && clock_monotonic_ns() < until) {
        conductor_wait(t.conductor, 10);
        conductor_trouble(t.conductor, &trouble);
    }
    ck_assert_msg(strstr(trouble.text, store), "%s", trouble.text);
    expect_state(FT_STARTING);
    ck_assert_int_eq(rename(away, store), 0);
    expect_action(FT_RUN);
    while (trouble.kind && clock_monotonic_ns() < until)
        conductor_trouble(t.conductor, &trouble);
    ck_assert_int_eq(trouble.kind, ERR_NONE);
}
END_TEST

/* --- a witness that hangs --------------------------------------------------------------------- */

static void wait_for_questions(uint64_t count)
{
    uint64_t until = clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
    struct ft_protocol protocol;
    do {
        conductor_wait(t.conductor, 1);
        conductor_look(t.conductor, &protocol);
        ck_assert_uint_lt(clock_monotonic_ns(), until);
    } while (protocol.ask < count);
}

START_TEST(a_question_that_hangs_holds_up_no_later_one)
{
    struct err trouble;
    t.times.ask_ns = 50 * MS;
    build_wall('r', 2);
    begin_owner(0);
    expect_action(FT_RUN);
    wait_for_hanging(2, 2);
    conductor_trouble(t.conductor, &trouble);
    ck_assert_int_eq(trouble.kind, 0);
    ck_assert_uint_eq(see(t.witness).owner, NODE);
    tear_wall_down();
}
END_TEST

/* Whether it is still ours; a twin that is there is not kept waiting for that. */
START_TEST(a_look_that_hangs_holds_up_nothing)
{
    t.times.ask_ns = 1000 * NS_PER_SEC;
    t.times.watch_ns = 10 * MS;
    begin_solo();
    build_wall('r', 1);
    wait_for_hanging(1, 1);
    be_gated();
    say(FT_ACK, 1, 1);
    expect_state(FT_PAIRED);
    tear_wall_down();
}
END_TEST

START_TEST(not_more_than_so_many_hang_and_who_comes_back_is_asked)
{
    struct err trouble;
    t.times.ask_ns = 50 * MS;
    build_wall('r', UINT32_MAX);
    begin_owner(0);
    wait_for_questions(3 * ASKER_THREADS);
    ck_assert_uint_eq(wait_for_hanging(1, UINT32_MAX), ASKER_THREADS);
    conductor_trouble(t.conductor, &trouble);
    ck_assert_msg(strstr(trouble.text, "has not answered"), "%s", trouble.text);
    let_pass(1); /* what it was asked nobody wants to know; the newest question it answers */
    expect_action(FT_RUN);
    wait_for_hanging(ASKER_THREADS - 1, ASKER_THREADS - 1);
    tear_wall_down();
}
END_TEST

/* Another one has taken place meanwhile: whatever is on its way then fails. */
START_TEST(an_exchange_that_comes_through_late_changes_nothing)
{
    t.times.ask_ns = 50 * MS;
    begin_solo();
    be_gated();
    build_wall('l', 1);
    say(FT_ACK, 1, 1);
    expect_state(FT_PAIRED);
    wait_for_hanging(1, 1);
    struct ft_record before = see(t.witness);
    ck_assert_uint_eq(before.twin, TWIN);
    tear_wall_down();
    wait_for_beats(5);
    expect_state(FT_PAIRED);
    ck_assert_uint_eq(see(t.witness).generation, before.generation);
}
END_TEST

START_TEST(the_end_waits_for_no_question)
{
    build_wall('r', 1);
    begin_owner(0);
    wait_for_hanging(1, 1);
    conductor_destroy(t.conductor); /* hangs here, or does not */
    t.conductor = NULL;
    wait_for_hanging(1, 1);
    tear_wall_down();
}
END_TEST

/* --- the end ---------------------------------------------------------------------------------- */

START_TEST(it_ends_whatever_is_under_way)
{
    for (unsigned i = 0; i < 20; i++) {
        t.persist_calls = 0;
        t.persist_fails = i % 2 ? UINT32_MAX : 0;
        begin_owner(i % 2 ? see(t.witness).generation : 0);
        if (i % 4 == 0)
            expect_action(FT_RUN);
        conductor_destroy(t.conductor);
        t.conductor = NULL;
        t.count = t.looked = 0;
    }
    conductor_destroy(NULL);
}
END_TEST

static bool has_acted(enum ft_action_kind kind)
{
    bool has = false;
    pthread_mutex_lock(&t.lock);
    for (unsigned i = 0; i < t.count && i < MOST_ACTIONS; i++)
        has |= t.actions[i].kind == kind;
    pthread_mutex_unlock(&t.lock);
    return has;
}

START_TEST(who_has_retired_does_nothing_more)
{
    const struct ft_event connected = {
        .kind = FT_CONNECTED, .link = CONDUCTOR_FIRST_LINK, .node = PEER, .twin = TWIN};
    struct ft_protocol protocol;
    begin_solo();
    ck_assert(conductor_retire(t.conductor));
    ck_assert(conductor_retire(t.conductor));
    conductor_tell(t.conductor, &connected);
    conductor_look(t.conductor, &protocol);
    ck_assert_uint_eq(protocol.link, 0);
    ck_assert_uint_eq(t.count, 0);
}
END_TEST

START_TEST(who_is_followed_or_waits_does_not_retire)
{
    build_wall('r', 1);
    begin_owner(0);
    ck_assert(!conductor_retire(t.conductor));
    tear_wall_down();
    expect_action(FT_RUN);
    be_followed();
    ck_assert(!conductor_retire(t.conductor));
    say(FT_ACK, 1, 1); /* nothing has left yet */
    expect_action(FT_UNSYNC);
    ck_assert(conductor_retire(t.conductor));
}
END_TEST

static void run_taking(void *arg)
{
    struct ft_record record = {.generation = 2, .owner = PEER, .twin = FT_FORCED}, is;
    ck_assert_int_eq(witness_exchange(t.witness, vm_a, 1, &record, &is, NULL), 0);
}

/* Somebody takes the VM in the very moment: it is told to stop, or nobody ever tells it. */
START_TEST(who_is_taken_has_stopped_or_retired)
{
    struct thread taking = {0};
    t.times.watch_ns = MS;
    begin_solo();
    ck_assert_int_eq(thread_start(&taking, "taking", run_taking, NULL, NULL), 0);
    if (_i % 2 == 0)
        expect_state(FT_DEPOSED);
    else
        conductor_wait(t.conductor, 2);
    bool retired = conductor_retire(t.conductor);
    ck_assert(!retired || _i % 2);
    thread_join(&taking);
    conductor_destroy(t.conductor);
    t.conductor = NULL;
    ck_assert(has_acted(FT_STOP) == !retired);
}
END_TEST

/* Taken (1) or not: by what the witness said a while ago it is not let go. */
START_TEST(who_is_let_go_has_looked_once_more)
{
    const struct ft_event left = {.kind = FT_LEFT};
    begin_solo();
    if (_i)
        run_taking(NULL);
    conductor_post(t.conductor, &left);
    expect_state(_i ? FT_DEPOSED : FT_SOLO);
    while (!_i && !conductor_retire(t.conductor))
        conductor_wait(t.conductor, 10);
    ck_assert(conductor_retire(t.conductor) == !_i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("conductor");
    TCase *tests = tcase_create("conductor");
    tcase_set_timeout(tests, 60);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, words_arrive_in_order_and_none_is_lost);
    tcase_add_test(tests, a_beat_comes_again_and_again);
    tcase_add_test(tests, what_matters_is_not_lost_behind_beats_that_wait);
    tcase_add_test(tests, the_pulse_has_a_priority_of_its_own_where_it_may);
    tcase_add_test(tests, a_hang_up_breaks_the_link);
    tcase_add_test(tests, whoever_says_nothing_is_gone);
    tcase_add_test(tests, who_is_busy_concludes_nothing_from_silence);
    tcase_add_test(tests, links_have_numbers_and_a_word_of_an_old_one_is_nobodys);
    tcase_add_test(tests, a_line_that_takes_nothing_makes_time_not_stand_still);
    tcase_add_test(tests, a_detach_ends_who_writes);
    tcase_add_test(tests, a_post_waits_for_no_line);
    tcase_add_test(tests, who_starts_has_asked_exchanged_and_persisted_before_it_runs);
    tcase_add_test(tests, a_pair_is_one_when_witness_and_disk_say_so);
    tcase_add_test(tests, what_cannot_be_persisted_is_tried_until_it_can);
    tcase_add_test(tests, a_record_of_somebody_else_ends_it);
    tcase_add_test(tests, an_exchange_that_comes_too_late_is_known_for_what_it_is);
    tcase_add_test(tests, a_witness_that_is_away_is_named_and_asked_again);
    tcase_add_test(tests, a_question_that_hangs_holds_up_no_later_one);
    tcase_add_test(tests, a_look_that_hangs_holds_up_nothing);
    tcase_add_test(tests, not_more_than_so_many_hang_and_who_comes_back_is_asked);
    tcase_add_test(tests, an_exchange_that_comes_through_late_changes_nothing);
    tcase_add_test(tests, the_end_waits_for_no_question);
    tcase_add_test(tests, it_ends_whatever_is_under_way);
    tcase_add_test(tests, who_has_retired_does_nothing_more);
    tcase_add_test(tests, who_is_followed_or_waits_does_not_retire);
    tcase_add_loop_test(tests, who_is_taken_has_stopped_or_retired, 0, 20);
    tcase_add_loop_test(tests, who_is_let_go_has_looked_once_more, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
