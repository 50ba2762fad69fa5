/* SPDX-License-Identifier: MIT */
/*
 * Who runs a protected VM, and has a twin follow it that is slow, lies, goes, or is away: whatever
 * it does, the VM runs on, what it says is seen in its time, and the next twin gets all of it.
 */
#include "tests/unit/primary_rig.h"
#include "tests/unit/twin_rig.h"

#include "host/byte_gate.h"

#include <sys/mman.h>

#define MS 1000000ull

/* --- memory that is short --------------------------------------------------------------------- */

static atomic_bool no_memory; /* for anything as large as a cache of pages */

/* In place of the C library's. */
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (no_memory && length >= 32 << 20) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

/* --- the VM ----------------------------------------------------------------------------------- */

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    t.seen += length;
}

static void handle_input_room(void *ctx)
{
}

static void run_machine(void *arg)
{
    struct machine_end end;
    (void)!instance_run(t.instance, &end, NULL);
    instance_silence(t.instance);
}

static void write_definition(const char *guest, const char *cmdline, const char *memory)
{
    char text[600];
    rig_make_folder("web1");
    snprintf(text, sizeof(text),
             "{\"boot\": {\"kernel\": \"%s/%s.elf\", \"cmdline\": \"%s\"}, \"memory\": \"%s\","
             " \"nets\": []}",
             GUEST_DIR, guest, cmdline, memory);
    rig_write("web1/vm.json", text);
}

static void start_vm(const char *guest, const char *cmdline, const char *memory)
{
    struct instance_config config = {.identity = &t.identity,
                                     .name = "web1",
                                     .folder = &t.folder,
                                     .exit_port = true,
                                     .part = &part,
                                     .output = handle_output,
                                     .input_room = handle_input_room};
    enum identity_found found;
    struct err err = {0};
    write_definition(guest, cmdline, memory);
    t.folder = rig_lock("web1");
    int ret = definition_load(&t.definition, rig_path("web1"), NULL, &err);
    if (ret == 0)
        ret = identity_settle(&t.identity, &t.folder, false, &found, &err);
    config.definition = t.definition;
    if (ret == 0)
        ret = instance_create(&t.instance, &config, &err);
    if (ret == 0)
        ret = thread_start(&t.machine, "machine", run_machine, NULL, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

/* The guest counts, and says so, for ever. */
static void start_counter(void)
{
    start_vm("counter", "lines=0", "8M");
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    /* Patient where a test does not say otherwise: this machine may have much else to do. */
    t.times = (struct ft_config){.node = NODE,
                                 .beat_ns = 10 * MS,
                                 .lost_ns = 1000000 * MS,
                                 .stall_ns = 1000000 * MS,
                                 .ask_ns = 20000 * MS,
                                 .retry_ns = 5 * MS,
                                 .gap_ns = 1000000 * MS,
                                 .away_ns = 1000000 * MS};
    rig_begin();
    store_begin(true);
    t.witness = store_open();
    snprintf(t.address, sizeof(t.address), "file:%s", store);
    rig_make_folder("run");
    ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", rig_path("run"), 1), 0);
    twin_listen();
}

static void end_vm(void)
{
    loop_post(instance_loop(t.instance), &t.stop);
    thread_join(&t.machine);
    t.machine.started = false;
    ck_assert_msg(t.over, "the protocol comes to no end");
}

static void tear_down(void)
{
    twin_hang_up();
    if (t.machine.started)
        end_vm();
    instance_destroy(t.instance);
    twin_finish();
    witness_close(t.witness);
    definition_destroy(t.definition);
    identity_finish(&t.identity);
    folder_close(&t.folder);
    store_end();
}

/* --- what is so ------------------------------------------------------------------------------- */

static struct ft_protocol protocol_now(void)
{
    struct ft_protocol protocol;
    conductor_look(t.conductor, &protocol);
    return protocol;
}

static struct primary_news news_now(void)
{
    struct primary_news news;
    primary_look(t.primary, &news);
    return news;
}

static uint64_t give_it_time(void)
{
    return clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
}

static void expect_state(enum ft_state state)
{
    uint64_t until = give_it_time();
    while (protocol_now().state != state) {
        ck_assert_msg(clock_monotonic_ns() < until, "it is %s",
                      ft_state_name(protocol_now().state));
        conductor_wait(t.conductor, 10);
    }
}

/* The guest runs, and what it says is seen. */
static void expect_more_is_seen(void)
{
    uint64_t until = give_it_time();
    for (size_t before = t.seen; t.seen == before; conductor_wait(t.conductor, 10))
        ck_assert_msg(clock_monotonic_ns() < until, "nothing more is seen");
}

/* No twin is there, and the VM is as it was before there was one. */
static void expect_free(void)
{
    ck_assert_msg(wait_for(&t.follows, false), "it is followed for ever");
    thread_join(&t.follower);
    t.follower.started = false;
    expect_state(FT_SOLO);
    expect_more_is_seen();
    struct primary_news news = news_now();
    ck_assert(!news.syncs);
    ck_assert_str_eq(news.reason, "");
    ck_assert_uint_eq(news.throttle, 0);
    ck_assert_uint_eq(news.held_bytes, 0);
}

/* --- being followed --------------------------------------------------------------------------- */

static void run_follow(void *arg)
{
    const struct following following = {
        .node = NODE, .beat_ms = 10, .lost_ms = 1000000, .witness = "file:/anywhere"};
    const struct primary_target target = {
        .to = twin.address, .insecure = true, .following = &following};
    t.result = primary_follow(t.primary, &target, &t.err);
    set(&t.follows, false);
}

static void begin_follow(void)
{
    t.err = (struct err){0};
    t.follows = true;
    primary_begin_anew(t.primary);
    ck_assert_int_eq(thread_start(&t.follower, "follower", run_follow, NULL, NULL), 0);
}

/* Up to where the twin says welcome. */
static void be_introduced(void)
{
    begin_follow();
    twin_accept();
    twin_expect(FRAME_OPEN);
}

/* Up to its first epoch, which is not acknowledged. */
static uint64_t be_filled(void)
{
    be_introduced();
    twin_welcome();
    return twin_expect_epoch();
}

static uint64_t be_paired(void)
{
    uint64_t epoch = be_filled();
    twin_say(FT_ACK, epoch);
    expect_state(FT_PAIRED);
    return epoch;
}

/* A few epochs, until what the guest says comes through. */
static uint64_t expect_epochs(uint64_t epoch)
{
    uint64_t until = give_it_time();
    for (size_t before = t.seen; t.seen == before;) {
        ck_assert_uint_eq(twin_expect_epoch(), epoch + 1);
        twin_say(FT_ACK, ++epoch);
        ck_assert_msg(clock_monotonic_ns() < until, "nothing more is seen");
    }
    return epoch;
}

/* --- as it should be -------------------------------------------------------------------------- */

START_TEST(what_the_guest_says_is_seen_when_the_twin_has_its_epoch)
{
    start_counter();
    uint64_t epoch = be_filled();
    ck_assert_uint_eq(epoch, 1);
    ck_assert_int_eq(protocol_now().state, FT_GATED);
    size_t seen = t.seen;
    uint64_t until = give_it_time();
    while (news_now().held_bytes == 0) {
        conductor_wait(t.conductor, 10);
        ck_assert_uint_lt(clock_monotonic_ns(), until);
    }
    ck_assert_uint_eq(t.seen, seen);
    twin_say(FT_ACK, epoch);
    expect_state(FT_PAIRED);
    ck_assert_uint_eq(t.seen, seen); /* that was of the next one */
    for (unsigned i = 0; i < 10; i++)
        epoch = expect_epochs(epoch);
    ck_assert_uint_gt(news_now().sync_bytes, 0);
    ck_assert(news_now().resync.done && !news_now().resync.delta);
    ck_assert_str_eq(news_now().resync.why, "nothing of it was here");
}
END_TEST

START_TEST(what_waits_ends_an_epoch_early)
{
    t.max_ms = 1000000; /* none comes by itself */
    start_counter();
    uint64_t epoch = be_paired();
    for (unsigned i = 0; i < 5; i++)
        epoch = expect_epochs(epoch);
}
END_TEST

START_TEST(a_twin_that_is_told_to_go_hears_so_and_the_guest_runs_on)
{
    const struct ft_event left = {.kind = FT_LEFT};
    start_counter();
    expect_epochs(be_paired());
    conductor_post(t.conductor, &left);
    ck_assert_uint_eq(twin_expect_word(FT_OFF).epoch, protocol_now().sent);
    twin_hang_up();
    expect_free();
    be_paired();
}
END_TEST

static void come_to_store(void)
{
    twin.slow = true;
    be_introduced();
    twin_welcome();
    twin_expect(FRAME_ROUND);
    twin.slow = false; /* the next one is not */
}

START_TEST(nothing_waits_while_a_twin_stores_what_it_was_filled_with)
{
    start_counter();
    come_to_store();
    twin.slow = true;
    for (uint64_t until = clock_monotonic_ns() + 300 * MS; clock_monotonic_ns() < until;)
        expect_more_is_seen();
    ck_assert(protocol_now().state == FT_SOLO && protocol_now().sent == 0);
    ck_assert_msg(stores(), "nobody says what is waited for");
    primary_throttle(t.primary, 40); /* as in a round before that */
    twin_say_stored();
    twin_expect(FRAME_ROUND); /* it took long: what was written meanwhile goes over, too */
    ck_assert(stores() && news_now().throttle == 0);
    twin.slow = false; /* on a busy host that took long, too, and is asked for again */
    twin_say_stored();
    twin_say(FT_ACK, twin_expect_epoch());
    expect_state(FT_PAIRED);
    ck_assert(!stores());
}
END_TEST

START_TEST(what_is_not_urgent_ends_an_epoch_a_little_later)
{
    t.max_ms = 1000000; /* none comes by itself */
    start_vm("worker", "random=1 sleep", "32M");
    expect_more_is_seen(); /* and nothing after that */
    uint64_t epoch = be_paired(), begin = clock_monotonic_ns();
    primary_press_soon(t.primary);
    ck_assert_uint_eq(twin_expect_epoch(), epoch + 1);
    ck_assert_uint_ge(clock_monotonic_ns() - begin, PRIMARY_SOON_US * 1000ull);
}
END_TEST

/* --- a slow twin ------------------------------------------------------------------------------ */

static void expect_reason(const char *reason)
{
    uint64_t until = give_it_time();
    while (strcmp(news_now().reason, reason) != 0) {
        ck_assert_msg(clock_monotonic_ns() < until, "it is \"%s\"", news_now().reason);
        ck_assert_uint_le(protocol_now().sent, protocol_now().acked + PRIMARY_AHEAD);
        conductor_wait(t.conductor, 1);
    }
}

START_TEST(a_slow_twin_has_so_many_epochs_before_it_and_no_more)
{
    start_counter();
    uint64_t acked = be_paired();
    for (unsigned i = 0; i < 5; i++) {
        while (twin_expect_epoch() < acked + PRIMARY_AHEAD)
            continue;
        expect_reason("twin");
        ck_assert_uint_eq(protocol_now().sent, acked + PRIMARY_AHEAD);
        ck_assert_uint_eq(t.released, acked);
        twin_say(FT_ACK, ++acked);
    }
}
END_TEST

START_TEST(what_waits_for_a_slow_twin_is_bounded)
{
    start_vm("flood", "kib=1000000", "8M");
    uint64_t until = give_it_time();
    be_paired();
    while (byte_gate_takes(instance_console_gate(t.instance)) > 0) {
        ck_assert_uint_lt(clock_monotonic_ns(), until);
        conductor_wait(t.conductor, 10);
    }
    uint64_t held = news_now().held_bytes;
    ck_assert_uint_ge(held, OUTBOX_CONSOLE);
    ck_assert_uint_le(held, OUTBOX_CONSOLE + BYTE_GATE_RESERVE);
}
END_TEST

/* --- the line breaks -------------------------------------------------------------------------- */

static void come_to_hello(void)
{
    begin_follow();
    twin_accept();
    twin_expect(FRAME_HELLO);
}

static void come_to_welcome(void)
{
    be_introduced();
    twin_put_welcome(TWIN_NODE);
}

static void come_to_pages(void)
{
    be_introduced();
    twin_welcome();
    twin_expect(FRAME_PAGES);
}

static void come_to_state(void)
{
    be_introduced();
    twin_welcome();
    twin_expect(FRAME_STATE);
}

static void come_to_first(void)
{
    be_filled();
}

static void come_to_epochs(void)
{
    expect_epochs(be_paired());
}

static void come_into_an_epoch(void)
{
    struct frame frame;
    uint64_t epoch = be_paired();
    do
        ck_assert_int_eq(twin_read(&frame, NULL), 0);
    while (frame.epoch <= epoch || frame.kind == FRAME_COMMIT);
}

static void come_to_a_stop(void)
{
    be_paired();
    expect_reason("twin");
}

static void (*const ways[])(void) = {
    begin_follow,  come_to_hello, be_introduced,  come_to_welcome,    come_to_pages, come_to_store,
    come_to_state, come_to_first, come_to_epochs, come_into_an_epoch, come_to_a_stop};

/* Another one may come, and gets all of it, from the next epoch on. */
static void expect_next_twin(void)
{
    uint64_t sent = protocol_now().sent;
    ck_assert_uint_eq(be_paired(), sent + 1);
    expect_epochs(sent + 1);
}

START_TEST(wherever_the_line_breaks_the_guest_runs_on_and_a_next_twin_gets_all)
{
    start_counter();
    ways[_i]();
    if (twin.link)
        twin_hang_up();
    else
        close(twin_be_called());
    expect_free();
    ck_assert(t.err.kind != 0);
    expect_next_twin();
}
END_TEST

START_TEST(wherever_it_is_given_up_it_ends_at_once_and_can_begin_anew)
{
    start_counter();
    ways[_i]();
    primary_give_up(t.primary);
    expect_free();
    if (!twin.link)
        close(twin_be_called());
    expect_next_twin();
}
END_TEST

/* Nobody reads: the line is full. */
static void fill_the_line(void)
{
    uint64_t until = give_it_time();
    start_vm("worker", "random=6000 pages=6000 rounds=0", "48M");
    expect_more_is_seen();
    be_introduced();
    twin_welcome();
    for (int before = 0; !twin_stands_still(&before);) {
        conductor_wait(t.conductor, 10);
        ck_assert_uint_lt(clock_monotonic_ns(), until);
    }
}

START_TEST(it_can_be_given_up_while_nobody_reads)
{
    fill_the_line();
    primary_give_up(t.primary);
    expect_free();
    twin_hang_up();
    be_paired();
}
END_TEST

START_TEST(how_much_the_guest_is_slowed_down_by_is_told)
{
    fill_the_line();
    ck_assert_str_eq(news_now().reason, "");
    hinder(40);
    ck_assert(news_now().throttle == 40 && strcmp(news_now().reason, "memory") == 0);
    twin_hang_up();
    expect_free(); /* looks at that, too */
    const struct machine *machine = instance_machine(t.instance);
    ck_assert(machine->throttle == 0 && machine->brake_ns == 0);
}
END_TEST

/* It was told to go, and does not: that is waited for, but not if nobody wants to. */
START_TEST(a_twin_that_does_not_go_can_be_given_up)
{
    const struct ft_event left = {.kind = FT_LEFT};
    start_counter();
    be_paired();
    conductor_post(t.conductor, &left);
    twin_expect_word(FT_OFF);
    expect_state(FT_SOLO);
    expect_more_is_seen();
    primary_give_up(t.primary);
    expect_free();
    expect_next_twin();
}
END_TEST

/* --- what a twin may not say ------------------------------------------------------------------ */

static void say_ahead(void)
{
    twin_say(FT_ACK, protocol_now().sent + 50);
}

static void say_again(void)
{
    twin_say(FT_ACK, 1);
}

static void say_take(void)
{
    twin_say(FT_TAKE, protocol_now().sent);
}

static void say_ready(void)
{
    twin_say(FT_READY, protocol_now().sent);
}

static void say_of_old(void)
{
    twin.following.generation--;
    twin_say(FT_ACK, protocol_now().sent);
}

static void say_no_word(void)
{
    twin_put(FRAME_WORD, "what", 4);
}

static void say_open(void)
{
    twin_put(FRAME_OPEN, NULL, 0);
}

static void say_looked(void)
{
    twin_put(FRAME_LOOKED, "sums", 4);
}

static void say_synced(void)
{
    twin_put(FRAME_SYNCED, "x", 1);
}

static void welcome_as_nobody(void)
{
    twin_put_welcome(0);
}

static void welcome_as_us(void)
{
    const struct resync_base base = {.why = "nothing of it was here"};
    twin_put_welcome(NODE);
    resync_put_base(link_writer(twin.link), &base);
    (void)!stream_flush(link_writer(twin.link));
}

static void welcome_without_sense(void)
{
    twin_put_welcome(TWIN_NODE);
    twin_put(FRAME_BASE, "base", 4);
}

static void welcome_out_of_place(void)
{
    twin_put_welcome(TWIN_NODE);
    twin_put(FRAME_SYNCED, "12345678", 8);
}

static const struct {
    void (*come)(void), (*say)(void);
    const char *why; /* of what is told */
} wrongs[] = {
    {come_to_epochs, say_ahead, ""},
    {come_to_epochs, say_again, ""},
    {come_to_epochs, say_take, ""},
    {come_to_epochs, say_ready, ""},
    {come_to_epochs, say_of_old, ""},
    {come_to_epochs, say_no_word, "WORD"},
    {come_to_epochs, say_open, "OPEN comes where none may"},
    {come_to_epochs, say_looked, "LOOKED"},
    {come_to_epochs, say_synced, "SYNCED"},
    {come_to_epochs, twin_say_nonsense, ""},
    {come_to_epochs, twin_say_error, "its disk is full there"},
    {come_to_pages, twin_say_error, "its disk is full there"},
    {come_to_pages, say_ahead, ""},
    {come_to_pages, say_open, "OPEN comes where none may"},
    {be_introduced, twin_say_error, "its disk is full there"},
    {be_introduced, say_open, ""},
    {be_introduced, twin_say_nonsense, ""},
    {be_introduced, welcome_as_nobody, ""},
    {be_introduced, welcome_as_us, "nobody may follow"},
    {be_introduced, welcome_without_sense, "BASE"},
    {be_introduced, welcome_out_of_place, "SYNCED comes where none may"},
};

START_TEST(a_twin_that_says_what_it_may_not_is_one_no_more)
{
    start_counter();
    wrongs[_i].come();
    uint64_t acked = twin.epoch;
    wrongs[_i].say();
    expect_free();
    ck_assert_uint_le(t.released, acked);
    ck_assert_uint_le(protocol_now().acked, acked);
    ck_assert_msg(t.err.kind && strstr(t.err.text, wrongs[_i].why), "%s", t.err.text);
    expect_next_twin();
}
END_TEST

/* --- what goes wrong here --------------------------------------------------------------------- */

START_TEST(where_memory_is_short_that_is_what_is_said)
{
    start_counter();
    be_introduced();
    no_memory = true;
    twin_welcome();
    ck_assert(wait_for(&t.follows, false));
    no_memory = false;
    expect_free();
    ck_assert_int_eq(t.result, -ENOMEM);
    ck_assert_msg(strstr(t.err.text, "cannot remember pages"), "%s", t.err.text);
    expect_next_twin();
}
END_TEST

/* --- the end ---------------------------------------------------------------------------------- */

START_TEST(the_end_of_the_guest_is_one_more_epoch)
{
    start_counter();
    uint64_t epoch = expect_epochs(be_paired());
    loop_post(instance_loop(t.instance), &t.stop);
    ck_assert_uint_eq(twin_expect_word(FT_OFF).epoch, twin.epoch);
    ck_assert_uint_gt(twin.epoch, epoch);
    twin_say(FT_ACK, twin.epoch);
    end_vm();
    ck_assert(t.sent_end);
    ck_assert_uint_eq(t.released, twin.epoch);
}
END_TEST

START_TEST(an_end_that_nobody_acknowledges_is_one_all_the_same)
{
    start_counter();
    be_paired();
    expect_reason("twin"); /* one more leaves, though there is no room for it */
    loop_post(instance_loop(t.instance), &t.stop);
    ck_assert_uint_eq(twin_expect_word(FT_OFF).epoch, twin.epoch);
    ck_assert_uint_eq(twin.epoch, 1 + PRIMARY_AHEAD + 1);
    twin_hang_up();
    end_vm();
    ck_assert(t.sent_end);
}
END_TEST

START_TEST(an_end_while_nobody_follows_is_not_sent)
{
    start_counter();
    expect_more_is_seen();
    end_vm();
    ck_assert(!t.sent_end);
}
END_TEST

START_TEST(the_guest_can_end_while_it_is_being_sent)
{
    fill_the_line();
    end_vm();
    ck_assert(!t.sent_end);
    ck_assert(!t.follows);
    ck_assert_int_lt(t.result, 0);
}
END_TEST

/* --- handing over ----------------------------------------------------------------------------- */

static void hand_over(void)
{
    start_counter();
    expect_epochs(be_paired());
    primary_hand_over(t.primary);
    twin.heard[FT_HAND] = (struct ft_word){0};
    while (twin.heard[FT_HAND].kind != FT_HAND) {
        struct frame frame;
        ck_assert_int_eq(twin_read(&frame, NULL), 0);
        if (frame.kind == FRAME_COMMIT)
            twin_say(FT_ACK, frame.epoch);
    }
    ck_assert_uint_eq(twin.heard[FT_HAND].epoch, twin.epoch);
    ck_assert_uint_eq(protocol_now().sent, twin.epoch);
    ck_assert(!machine_runs(instance_machine(t.instance)));
}

START_TEST(who_has_been_handed_over_stands_still)
{
    hand_over();
    twin_say(FT_READY, twin.epoch);
    ck_assert_uint_gt(twin_expect_word(FT_TAKE).generation, twin.following.generation);
    ck_assert(wait_for(&t.over, true));
    ck_assert_int_eq(protocol_now().state, FT_OVER);
    ck_assert(!machine_runs(instance_machine(t.instance)));
}
END_TEST

START_TEST(who_cannot_be_handed_over_runs_again)
{
    hand_over();
    twin_hang_up();
    expect_free();
    expect_next_twin();
}
END_TEST

/* The witness knows of no twin yet. */
START_TEST(who_has_nobody_to_be_handed_over_to_as_yet_runs_on)
{
    start_counter();
    uint64_t epoch = be_filled();
    primary_hand_over(t.primary);
    ck_assert(wait_for(&t.runs, true));
    while (epoch < protocol_now().sent)
        epoch = twin_expect_epoch();
    twin_say(FT_ACK, epoch);
    expect_state(FT_PAIRED);
    expect_epochs(epoch);
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tests = tcase_create(name);
    tcase_set_timeout(tests, 2 * PATIENCE_S);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    suite_add_tcase(suite, tests);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("primary");
    TCase *epochs = add_case(suite, "epochs");
    tcase_add_test(epochs, what_the_guest_says_is_seen_when_the_twin_has_its_epoch);
    tcase_add_test(epochs, what_waits_ends_an_epoch_early);
    tcase_add_test(epochs, what_is_not_urgent_ends_an_epoch_a_little_later);
    tcase_add_test(epochs, nothing_waits_while_a_twin_stores_what_it_was_filled_with);
    tcase_add_test(epochs, a_slow_twin_has_so_many_epochs_before_it_and_no_more);
    tcase_add_test(epochs, what_waits_for_a_slow_twin_is_bounded);

    TCase *breaks = add_case(suite, "breaks");
    tcase_add_loop_test(breaks, wherever_the_line_breaks_the_guest_runs_on_and_a_next_twin_gets_all,
                        0, array_size(ways));
    tcase_add_loop_test(breaks, wherever_it_is_given_up_it_ends_at_once_and_can_begin_anew, 0,
                        array_size(ways));
    tcase_add_test(breaks, it_can_be_given_up_while_nobody_reads);
    tcase_add_test(breaks, how_much_the_guest_is_slowed_down_by_is_told);
    tcase_add_test(breaks, where_memory_is_short_that_is_what_is_said);

    TCase *words = add_case(suite, "words");
    tcase_add_loop_test(words, a_twin_that_says_what_it_may_not_is_one_no_more, 0,
                        array_size(wrongs));
    tcase_add_test(words, a_twin_that_is_told_to_go_hears_so_and_the_guest_runs_on);
    tcase_add_test(words, a_twin_that_does_not_go_can_be_given_up);

    TCase *ends = add_case(suite, "ends");
    tcase_add_test(ends, the_end_of_the_guest_is_one_more_epoch);
    tcase_add_test(ends, an_end_that_nobody_acknowledges_is_one_all_the_same);
    tcase_add_test(ends, an_end_while_nobody_follows_is_not_sent);
    tcase_add_test(ends, the_guest_can_end_while_it_is_being_sent);
    tcase_add_test(ends, who_has_been_handed_over_stands_still);
    tcase_add_test(ends, who_has_nobody_to_be_handed_over_to_as_yet_runs_on);
    tcase_add_test(ends, who_cannot_be_handed_over_runs_again);
    return unit_main_with_kvm(suite, "primary");
}
