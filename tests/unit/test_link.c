/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "tests/unit/link_rig.h"
#include <dirent.h>
#include <stdlib.h>

static const struct link_key wrong_key = {.bytes = {1, 2, 3, [31] = 5}};

struct pair {
    struct link *near, *far;
};

static void pair_make(struct pair *pair, const struct link_key *key)
{
    struct link_config config = {.key = key, .timeout_ms = PATIENCE_MS};
    struct err err = {0};
    struct side side;

    side_start(&side, "127.0.0.1", key);
    int r = link_connect(&pair->near, side.address, &config, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_msg(side_end(&side) == 0, "%s", side.err.text);
    pair->far = side.link;
}

static void pair_end(struct pair *pair)
{
    link_destroy(pair->near);
    link_destroy(pair->far);
}

static const struct link_key *const both_kinds[] = {NULL, &right_key};

/* Bytes that no shift and no repetition of a buffer leaves alike. */
static void fill(uint8_t *bytes, size_t length, uint64_t *seed)
{
    for (size_t i = 0; i < length; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(*seed >> 56);
    }
}

/* One direction of a round trip: parts of many sizes, some flushed. */
struct flow {
    struct thread thread;
    struct stream *stream;
    uint64_t total, seed;
    bool sending, differs;
    int error;
};

enum { PART = 300000 };

static size_t part_length(uint64_t *sizes)
{
    static const size_t most[] = {1, 8, 100, 4096, 16384, 16385, 65536, PART};

    *sizes = *sizes * 6364136223846793005u + 1442695040888963407u;
    return 1 + (*sizes >> 40) % most[(*sizes >> 33) % array_size(most)];
}

static void run_flow(void *arg)
{
    struct flow *flow = arg;
    uint64_t bytes_seed = flow->seed, sizes = flow->seed ^ (flow->sending ? 1 : 2);
    uint8_t *expected = malloc(PART), *got = malloc(PART);

    for (uint64_t left = flow->total; left > 0 && !flow->differs;) {
        size_t length = part_length(&sizes);
        length = length < left ? length : left;
        left -= length;
        fill(expected, length, &bytes_seed);
        if (flow->sending) {
            stream_write(flow->stream, expected, length);
            if (sizes >> 63 && stream_flush(flow->stream) < 0)
                break;
        } else {
            stream_read(flow->stream, got, length);
            flow->differs = memcmp(got, expected, length) != 0;
        }
    }
    flow->error = flow->sending ? stream_flush(flow->stream) : stream_error(flow->stream);
    free(expected);
    free(got);
}

START_TEST(both_directions_at_once_carry_every_byte)
{
    enum { TOTAL = 12 << 20 };
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    struct flow flows[] = {
        {.stream = link_writer(pair.near), .seed = 1, .sending = true},
        {.stream = link_reader(pair.far), .seed = 1},
        {.stream = link_writer(pair.far), .seed = 2, .sending = true},
        {.stream = link_reader(pair.near), .seed = 2},
    };
    for (size_t i = 0; i < array_size(flows); i++) {
        flows[i].total = TOTAL;
        ck_assert_int_eq(thread_start(&flows[i].thread, "flow", run_flow, &flows[i], NULL), 0);
    }
    for (size_t i = 0; i < array_size(flows); i++)
        thread_join(&flows[i].thread);
    for (size_t i = 0; i < array_size(flows); i++) {
        ck_assert_int_eq(flows[i].error, 0);
        ck_assert(!flows[i].differs);
        ck_assert_uint_eq(flows[i].stream->position, TOTAL);
    }
    pair_end(&pair);
}
END_TEST

START_TEST(small_writes_wait_for_a_flush_and_then_arrive)
{
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    link_set_timeout(pair.far, 50);
    stream_put_u32(link_writer(pair.near), 77);
    (void)stream_get_u8(link_reader(pair.far));
    ck_assert_int_eq(stream_error(link_reader(pair.far)), -ETIMEDOUT);
    pair_end(&pair);

    pair_make(&pair, both_kinds[_i]);
    for (uint32_t i = 1; i <= 100; i++)
        stream_put_u32(link_writer(pair.near), i * 77);
    ck_assert_int_eq(stream_flush(link_writer(pair.near)), 0);
    for (uint32_t i = 1; i <= 100; i++)
        ck_assert_uint_eq(stream_get_u32(link_reader(pair.far)), i * 77);
    pair_end(&pair);
}
END_TEST

START_TEST(an_orderly_end_shows_as_such_after_what_was_flushed)
{
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    stream_put_u32(link_writer(pair.near), 4711);
    ck_assert_int_eq(stream_flush(link_writer(pair.near)), 0);
    stream_put_u32(link_writer(pair.near), 1); /* not flushed: not sent */
    link_destroy(pair.near);
    struct stream *reader = link_reader(pair.far);
    ck_assert_uint_eq(stream_get_u32(reader), 4711);
    ck_assert_int_eq(stream_error(reader), 0);
    ck_assert_uint_eq(stream_get_u32(reader), 0);
    ck_assert_int_eq(stream_error(reader), -ENODATA);
    link_destroy(pair.far);
}
END_TEST

START_TEST(an_end_in_the_middle_of_a_message_is_an_error)
{
    uint8_t bytes[1000];
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    memset(bytes, 7, sizeof(bytes));
    stream_write(link_writer(pair.near), bytes, 500);
    ck_assert_int_eq(stream_flush(link_writer(pair.near)), 0);
    link_destroy(pair.near);
    stream_read(link_reader(pair.far), bytes, sizeof(bytes));
    ck_assert_int_eq(stream_error(link_reader(pair.far)), -ENODATA);
    for (size_t i = 0; i < sizeof(bytes); i++)
        ck_assert_uint_eq(bytes[i], 0);
    link_destroy(pair.far);
}
END_TEST

START_TEST(a_cut_that_the_peer_did_not_mean_is_no_orderly_end_with_tls)
{
    struct pair pair;

    pair_make(&pair, &right_key);
    link_break(pair.near); /* sends TCP's end, and not TLS's */
    (void)stream_get_u8(link_reader(pair.far));
    ck_assert_int_eq(stream_error(link_reader(pair.far)), -ECONNRESET);
    pair_end(&pair);
}
END_TEST

/* Breaking. */

struct waiter {
    struct thread thread;
    struct stream *stream;
    bool sending;
    int error;
};

static void run_waiter(void *arg)
{
    static const uint8_t zeroes[65536];
    struct waiter *waiter = arg;

    if (waiter->sending)
        while (waiter->error == 0) { /* until the kernel takes no more */
            stream_write(waiter->stream, zeroes, sizeof(zeroes));
            waiter->error = stream_flush(waiter->stream);
        }
    else
        (void)stream_get_u8(waiter->stream);
    waiter->error = stream_error(waiter->stream);
}

/* Whether the thread of that name sleeps in a call, by /proc. */
static bool is_asleep(const char *name)
{
    char path[300], line[256], head[40];
    struct dirent *entry;
    bool found = false;
    DIR *folder = opendir("/proc/self/task");

    snprintf(head, sizeof(head), "(%s) S", name);
    while (!found && folder && (entry = readdir(folder))) {
        snprintf(path, sizeof(path), "/proc/self/task/%s/stat", entry->d_name);
        FILE *file = fopen(path, "r");
        found = file && fgets(line, sizeof(line), file) && strstr(line, head);
        if (file)
            fclose(file);
    }
    if (folder)
        closedir(folder);
    return found;
}

/* Many times in a row: a writer sleeps for moments too while the kernel makes room. */
static void wait_asleep(const char *name)
{
    for (unsigned times = 0; times < 20; poll(NULL, 0, 1))
        times = is_asleep(name) ? times + 1 : 0;
}

START_TEST(breaking_wakes_a_reader_and_a_writer_who_wait)
{
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    link_set_timeout(pair.near, 0);
    struct waiter reader = {.stream = link_reader(pair.near)};
    struct waiter writer = {.stream = link_writer(pair.near), .sending = true};
    ck_assert_int_eq(thread_start(&reader.thread, "waits-read", run_waiter, &reader, NULL), 0);
    ck_assert_int_eq(thread_start(&writer.thread, "waits-write", run_waiter, &writer, NULL), 0);
    wait_asleep("waits-read");
    wait_asleep("waits-write");
    link_break(pair.near);
    thread_join(&reader.thread);
    thread_join(&writer.thread);
    ck_assert_int_eq(reader.error, -ECONNABORTED);
    ck_assert_int_eq(writer.error, -ECONNABORTED);
    link_break(pair.near); /* again is fine */
    pair_end(&pair);
}
END_TEST

START_TEST(after_a_break_nothing_more_comes_or_goes)
{
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    stream_put_u32(link_writer(pair.far), 1);
    ck_assert_int_eq(stream_flush(link_writer(pair.far)), 0);
    link_break(pair.near);
    (void)stream_get_u32(link_reader(pair.near));
    ck_assert_int_eq(stream_error(link_reader(pair.near)), -ECONNABORTED);
    stream_put_u32(link_writer(pair.near), 1);
    ck_assert_int_eq(stream_flush(link_writer(pair.near)), -ECONNABORTED);
    pair_end(&pair);
}
END_TEST

/* Time limits. */

/* The kernel's time limits count its ticks, which come late where the machine stands still, and
 * then several at once: this clock does so, too. */
static uint64_t ticked_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

START_TEST(a_read_and_a_write_that_do_not_move_time_out)
{
    static const uint8_t zeroes[65536];
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    link_set_timeout(pair.near, 200);
    uint64_t begin = ticked_ns();
    (void)stream_get_u8(link_reader(pair.near));
    ck_assert_int_eq(stream_error(link_reader(pair.near)), -ETIMEDOUT);
    ck_assert_uint_ge(ticked_ns() - begin, 190 * 1000000ull); /* a tick is 10 ms at most */
    while (stream_error(link_writer(pair.near)) == 0)
        stream_write(link_writer(pair.near), zeroes, sizeof(zeroes));
    ck_assert_int_eq(stream_error(link_writer(pair.near)), -ETIMEDOUT);
    pair_end(&pair);
}
END_TEST

START_TEST(what_the_other_one_does_not_take_is_unsent)
{
    static const uint8_t zeroes[65536];
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    ck_assert_uint_eq(link_unsent(pair.near), 0);
    link_set_timeout(pair.near, 30);
    while (stream_error(link_writer(pair.near)) == 0)
        stream_write(link_writer(pair.near), zeroes, sizeof(zeroes));
    ck_assert_uint_gt(link_unsent(pair.near), 0);
    link_writer(pair.near)->error = 0;
    pair_end(&pair);
}
END_TEST

START_TEST(a_peer_who_takes_nothing_is_no_slow_line)
{
    static const uint8_t zeroes[65536];
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    link_set_timeout(pair.near, 500); /* from when there is no room any more */
    while (stream_error(link_writer(pair.near)) == 0)
        stream_write(link_writer(pair.near), zeroes, sizeof(zeroes));
    ck_assert_int_eq(stream_error(link_writer(pair.near)), -ETIMEDOUT);
    ck_assert_uint_lt(link_line_ns(pair.near), 250 * 1000000ull);
    link_writer(pair.near)->error = 0;
    pair_end(&pair);
}
END_TEST

/* At 250 KB a second, whoever has the CPU meanwhile. */
START_TEST(a_slow_line_is_seen)
{
    enum { RATE = 250000, PIECE = 65536, PIECES = 6, MOST_FDS = 256 };
    static uint8_t bytes[PIECE];
    const unsigned rate = RATE;
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    for (int fd = 0; fd < MOST_FDS; fd++)
        (void)setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
    uint64_t before = link_line_ns(pair.near);
    for (unsigned i = 0; i < PIECES; i++) {
        stream_write(link_writer(pair.near), bytes, sizeof(bytes));
        ck_assert_int_eq(stream_flush(link_writer(pair.near)), 0);
        stream_read(link_reader(pair.far), bytes, sizeof(bytes));
    }
    ck_assert_int_eq(stream_error(link_reader(pair.far)), 0);
    ck_assert_uint_gt(link_line_ns(pair.near) - before, 100 * 1000000ull);
    pair_end(&pair);
}
END_TEST

START_TEST(who_reads_and_waits_is_seen)
{
    struct pair pair;

    pair_make(&pair, both_kinds[_i]);
    expect_that_waiting_is_told(pair.near, pair.far);
    expect_that_waiting_is_told(pair.far, pair.near);
    pair_end(&pair);
}
END_TEST

START_TEST(destroying_never_waits_for_a_peer_who_does_not_read)
{
    static const uint8_t zeroes[65536];
    struct pair pair;

    pair_make(&pair, &right_key);
    link_set_timeout(pair.near, 30);
    while (stream_error(link_writer(pair.near)) == 0)
        stream_write(link_writer(pair.near), zeroes, sizeof(zeroes));
    link_writer(pair.near)->error = 0; /* as if the last write had just fitted */
    link_set_timeout(pair.near, 0);
    link_destroy(pair.near);
    link_destroy(pair.far);
}
END_TEST

START_TEST(a_peer_who_says_nothing_times_out)
{
    struct side side;

    side_listen(&side, "127.0.0.1", both_kinds[_i]);
    side.config.timeout_ms = 60;
    int raw = connect_raw(&side);
    run_side(&side);
    ck_assert_int_eq(side_end(&side), -ETIMEDOUT);
    ck_assert_int_eq(side.err.kind, ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(side.err.text, "says nothing"));
    close(raw);
}
END_TEST

static void run_dripping(void *arg)
{
    int fd = *(int *)arg;
    uint8_t byte = 'm';

    while (send(fd, &byte, 1, MSG_NOSIGNAL) == 1) /* one byte each 10 ms keeps any read moving */
        poll(NULL, 0, 10);
}

START_TEST(a_peer_who_drips_has_no_more_time_than_others)
{
    /* A greeting that is right, and then the head of a record that never ends. */
    static const uint8_t head[] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1,    1, 2,
                                   0,   0,   0,   0,   0,   22,  3,   3, 0x20, 0};
    struct thread thread = {.started = false};
    struct side side;

    side_listen(&side, "127.0.0.1", &right_key);
    side.config.timeout_ms = 200;
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, head, sizeof(head)), sizeof(head));
    ck_assert_int_eq(thread_start(&thread, "dripping", run_dripping, &raw, NULL), 0);
    uint64_t begin = clock_monotonic_ns();
    run_side(&side);
    ck_assert_uint_lt(clock_monotonic_ns() - begin, 20 * NS_PER_SEC);
    ck_assert_int_eq(side_end(&side), -ETIMEDOUT);
    thread_join(&thread); /* its next byte finds nobody */
    close(raw);
}
END_TEST

/* Peers who do not agree. */

static void check_disagree(const struct link_key *near, const struct link_key *far,
                           const char *near_words, const char *far_words)
{
    struct link_config config = {.key = near, .timeout_ms = PATIENCE_MS};
    struct link *link = (struct link *)(uintptr_t)1;
    struct err err = {0};
    struct side side;

    side_start(&side, "127.0.0.1", far);
    ck_assert_int_lt(link_connect(&link, side.address, &config, &err), 0);
    ck_assert_int_lt(side_end(&side), 0);
    ck_assert_ptr_eq(link, (struct link *)(uintptr_t)1);
    ck_assert_ptr_null(side.link);
    ck_assert_msg(strstr(err.text, near_words), "\"%s\" lacks \"%s\"", err.text, near_words);
    ck_assert_msg(strstr(side.err.text, far_words), "\"%s\" lacks \"%s\"", side.err.text,
                  far_words);
    ck_assert_str_ne(err.hint, "");
    ck_assert_str_ne(side.err.hint, "");
}

START_TEST(both_sides_say_that_the_keys_differ)
{
    check_disagree(&right_key, &wrong_key, "the keys differ", "the keys differ");
}
END_TEST

START_TEST(a_key_on_one_side_only_is_named_on_both)
{
    check_disagree(&right_key, NULL, "does not use a key", "wants a key");
    check_disagree(NULL, &right_key, "wants a key", "does not use a key");
}
END_TEST

START_TEST(what_is_not_minivmm_is_named)
{
    static const char garbage[] = "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    struct side side;

    side_listen(&side, "127.0.0.1", both_kinds[_i]);
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, garbage, sizeof(garbage)), sizeof(garbage));
    run_side(&side);
    ck_assert_int_eq(side_end(&side), -EPROTO);
    ck_assert_ptr_nonnull(strstr(side.err.text, "is not minivmm"));
    close(raw);
}
END_TEST

START_TEST(our_own_greeting_thrown_back_is_refused)
{
    static const uint8_t greeting[16] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1, 2, 1};
    struct side side;

    side_start(&side, "127.0.0.1", NULL);
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, greeting, sizeof(greeting)), sizeof(greeting));
    ck_assert_int_eq(side_end(&side), -EPROTO);
    close(raw);
}
END_TEST

START_TEST(another_version_is_named)
{
    static const uint8_t greeting[16] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 9, 1, 1};
    struct side side;

    side_start(&side, "127.0.0.1", NULL);
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, greeting, 16), 16);
    ck_assert_int_eq(side_end(&side), -EPROTONOSUPPORT);
    ck_assert_ptr_nonnull(strstr(side.err.text, "version 9"));
    close(raw);
}
END_TEST

START_TEST(garbage_instead_of_a_handshake_is_an_error)
{
    static const uint8_t greeting[16] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1, 1, 2};
    uint8_t garbage[4096];
    uint64_t seed = (uint64_t)_i;
    struct side side;

    fill(garbage, sizeof(garbage), &seed);
    if (_i & 1) { /* the head of a record of a handshake */
        static const uint8_t head[] = {22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
        memcpy(garbage, head, sizeof(head));
    }
    side_start(&side, "127.0.0.1", &right_key);
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, greeting, 16), 16);
    ck_assert_int_gt(send(raw, garbage, sizeof(garbage), MSG_NOSIGNAL), 0);
    shutdown(raw, SHUT_WR);
    ck_assert_int_lt(side_end(&side), 0);
    ck_assert_str_ne(side.err.text, "");
    close(raw);
}
END_TEST

START_TEST(a_peer_who_hangs_up_at_any_byte_of_the_greeting_is_an_error)
{
    static const uint8_t greeting[16] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1, 1, 2};

    for (size_t length = 0; length <= sizeof(greeting); length++) {
        struct side side;
        side_start(&side, "127.0.0.1", &right_key);
        int raw = connect_raw(&side);
        ck_assert_int_eq(send(raw, greeting, length, 0), (ssize_t)length);
        close(raw);
        ck_assert_int_lt(side_end(&side), 0);
        ck_assert_str_ne(side.err.text, "");
    }
}
END_TEST

/* A man in the middle who hands everything on but changes one byte of the stream at `at`. */
struct middle {
    struct thread thread;
    int listener, there;
    uint64_t at, passed;
};

static void run_middle(void *arg)
{
    struct middle *middle = arg;
    int here = accept_one(middle->listener);
    struct pollfd fds[] = {{.fd = here, .events = POLLIN}, {.fd = middle->there, .events = POLLIN}};
    uint8_t bytes[4096];
    ssize_t n = 1;

    while (n > 0 && poll(fds, 2, PATIENCE_MS) > 0) {
        bool onward = fds[0].revents != 0;
        n = read(onward ? here : middle->there, bytes, sizeof(bytes));
        if (n > 0 && onward) {
            if (middle->at >= middle->passed && middle->at < middle->passed + (uint64_t)n)
                bytes[middle->at - middle->passed] ^= 1;
            middle->passed += (uint64_t)n;
        }
        if (n > 0)
            n = send(onward ? middle->there : here, bytes, (size_t)n, MSG_NOSIGNAL);
    }
    close(here);
    close(middle->there);
}

START_TEST(a_byte_changed_on_the_way_never_goes_unnoticed)
{
    static const uint64_t places[] = {8, 10, 16, 30, 60, 200, 300, 400, 500, 600, 700, 900, 1000};
    struct link_config config = {.key = &right_key, .timeout_ms = 500};
    uint8_t sent[600], got[600];
    uint64_t seed = 3;

    fill(sent, sizeof(sent), &seed);
    for (size_t i = 0; i < array_size(places); i++) {
        struct middle middle = {.at = places[i]};
        struct link *link = NULL;
        struct side side;
        char address[32];

        side_listen(&side, "127.0.0.1", &right_key);
        side.config.timeout_ms = 500;
        middle.there = connect_raw(&side);
        ck_assert_int_eq(link_listen(&middle.listener, "127.0.0.1:0", NULL), 0);
        snprintf(address, sizeof(address), "127.0.0.1:%u", port_of(middle.listener));
        ck_assert_int_eq(thread_start(&side.thread, "accepting", run_side, &side, NULL), 0);
        ck_assert_int_eq(thread_start(&middle.thread, "middle", run_middle, &middle, NULL), 0);
        int r = link_connect(&link, address, &config, NULL);
        if (r == 0) {
            stream_write(link_writer(link), sent, sizeof(sent));
            r = stream_flush(link_writer(link));
        }
        int there = side_end(&side);
        if (there == 0) {
            stream_read(link_reader(side.link), got, sizeof(got));
            there = stream_error(link_reader(side.link));
        }
        ck_assert_msg(there < 0 || (r < 0 && i == 0) || middle.passed <= middle.at,
                      "byte %u was changed, and nobody saw it", (unsigned)places[i]);
        link_destroy(link);
        link_destroy(side.link);
        thread_join(&middle.thread);
        close(middle.listener);
        if (middle.passed > middle.at)
            ck_assert(there < 0);
    }
}
END_TEST

START_TEST(nothing_is_destroyed_without_complaint)
{
    link_destroy(NULL);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("link");
    TCase *bytes = tcase_create("bytes"), *peers = tcase_create("peers");

    signal(SIGPIPE, SIG_IGN);
    tcase_set_timeout(bytes, 60);
    tcase_set_timeout(peers, 60);
    tcase_add_loop_test(bytes, both_directions_at_once_carry_every_byte, 0, 2);
    tcase_add_loop_test(bytes, small_writes_wait_for_a_flush_and_then_arrive, 0, 2);
    tcase_add_loop_test(bytes, an_orderly_end_shows_as_such_after_what_was_flushed, 0, 2);
    tcase_add_loop_test(bytes, an_end_in_the_middle_of_a_message_is_an_error, 0, 2);
    tcase_add_test(bytes, a_cut_that_the_peer_did_not_mean_is_no_orderly_end_with_tls);
    tcase_add_loop_test(bytes, breaking_wakes_a_reader_and_a_writer_who_wait, 0, 2);
    tcase_add_loop_test(bytes, after_a_break_nothing_more_comes_or_goes, 0, 2);
    tcase_add_loop_test(bytes, a_read_and_a_write_that_do_not_move_time_out, 0, 2);
    tcase_add_loop_test(bytes, what_the_other_one_does_not_take_is_unsent, 0, 2);
    tcase_add_loop_test(bytes, a_peer_who_takes_nothing_is_no_slow_line, 0, 2);
    tcase_add_loop_test(bytes, a_slow_line_is_seen, 0, 2);
    tcase_add_loop_test(bytes, who_reads_and_waits_is_seen, 0, 2);
    tcase_add_test(bytes, destroying_never_waits_for_a_peer_who_does_not_read);
    tcase_add_test(bytes, nothing_is_destroyed_without_complaint);
    tcase_add_loop_test(peers, a_peer_who_says_nothing_times_out, 0, 2);
    tcase_add_test(peers, a_peer_who_drips_has_no_more_time_than_others);
    tcase_add_test(peers, both_sides_say_that_the_keys_differ);
    tcase_add_test(peers, a_key_on_one_side_only_is_named_on_both);
    tcase_add_loop_test(peers, what_is_not_minivmm_is_named, 0, 2);
    tcase_add_test(peers, our_own_greeting_thrown_back_is_refused);
    tcase_add_test(peers, another_version_is_named);
    tcase_add_loop_test(peers, garbage_instead_of_a_handshake_is_an_error, 0, 20);
    tcase_add_test(peers, a_peer_who_hangs_up_at_any_byte_of_the_greeting_is_an_error);
    tcase_add_test(peers, a_byte_changed_on_the_way_never_goes_unnoticed);
    suite_add_tcase(suite, bytes);
    suite_add_tcase(suite, peers);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
