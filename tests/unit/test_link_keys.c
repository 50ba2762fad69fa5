/* SPDX-License-Identifier: MIT */
/* An accepting side with the keys of several hosts. */
#include "tests/unit/link_rig.h"

static const struct link_key other_key = {.bytes = {9, 8, 7}};
static const struct link_key strange_key = {.bytes = {5}};

struct two_keys {
    struct link_keys keys;
    unsigned asked;
};

static int find(struct link_keys *keys, const char *print, struct link_key *ret_key)
{
    static const struct link_key *const known[] = {&right_key, &other_key};
    struct two_keys *two = container_of(keys, struct two_keys, keys);
    char its[LINK_KEY_PRINT];

    two->asked++;
    for (size_t i = 0; i < array_size(known); i++)
        if (link_key_print(known[i], its, NULL) == 0 && strcmp(its, print) == 0) {
            *ret_key = *known[i];
            return 0;
        }
    return -ENOENT;
}

static void start(struct side *side, struct two_keys *two)
{
    *two = (struct two_keys){.keys = {.find = find}};
    side_listen(side, "127.0.0.1", NULL);
    side->config.keys = &two->keys;
    ck_assert_int_eq(thread_start(&side->thread, "accepting", run_side, side, NULL), 0);
}

static void check_talk(struct link *near, struct link *far)
{
    stream_put_u32(link_writer(near), 4711);
    ck_assert_int_eq(stream_flush(link_writer(near)), 0);
    ck_assert_uint_eq(stream_get_u32(link_reader(far)), 4711);
    stream_put_u32(link_writer(far), 815);
    ck_assert_int_eq(stream_flush(link_writer(far)), 0);
    ck_assert_uint_eq(stream_get_u32(link_reader(near)), 815);
    link_destroy(near);
    link_destroy(far);
}

START_TEST(each_of_several_hosts_calls_with_its_own_key)
{
    static const struct link_key *const known[] = {&right_key, &other_key};
    struct link_config config = {.key = known[_i], .timeout_ms = PATIENCE_MS};
    struct two_keys two;
    struct link *link;
    struct side side;

    start(&side, &two);
    ck_assert_int_eq(link_connect(&link, side.address, &config, NULL), 0);
    ck_assert_int_eq(side_end(&side), 0);
    ck_assert_uint_eq(two.asked, 1);
    check_talk(link, side.link);
}
END_TEST

START_TEST(a_stranger_is_refused_and_both_hear_of_the_mend)
{
    struct link_config config = {.key = &strange_key, .timeout_ms = PATIENCE_MS};
    struct err err = {0};
    struct two_keys two;
    struct link *link;
    struct side side;

    start(&side, &two);
    ck_assert_int_lt(link_connect(&link, side.address, &config, &err), 0);
    ck_assert_int_lt(side_end(&side), 0);
    ck_assert_ptr_nonnull(strstr(side.err.text, "no such key"));
    ck_assert_ptr_nonnull(strstr(side.err.hint, "minivmm pair"));
    ck_assert_msg(strstr(err.text, "the keys differ"), "%s", err.text);
    ck_assert_ptr_nonnull(strstr(err.hint, "minivmm pair"));
}
END_TEST

START_TEST(without_a_key_it_is_as_it_would_be_without_keys)
{
    struct link_config config = {.timeout_ms = PATIENCE_MS};
    struct two_keys two;
    struct link *link;
    struct side side;

    start(&side, &two);
    ck_assert_int_eq(link_connect(&link, side.address, &config, NULL), 0);
    ck_assert_int_eq(side_end(&side), 0);
    ck_assert_uint_eq(two.asked, 0);
    check_talk(link, side.link);
}
END_TEST

START_TEST(who_wants_tls_gets_no_plain_link)
{
    /* A greeting that asks for TLS, and then no handshake: nothing that follows is taken as plain.
     */
    static const uint8_t words[64] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1, 1, 2};
    uint8_t answer[16];
    struct two_keys two;
    struct side side;

    start(&side, &two);
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, words, sizeof(words)), sizeof(words));
    ck_assert_int_eq(recv(raw, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
    ck_assert_uint_eq(answer[10], 2);
    ck_assert_int_lt(side_end(&side), 0);
    ck_assert_ptr_null(side.link);
    close(raw);
}
END_TEST

START_TEST(another_version_hears_of_ours)
{
    static const uint8_t words[16] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 77, 1, 2};
    uint8_t answer[16];
    struct two_keys two;
    struct side side;

    start(&side, &two);
    int raw = connect_raw(&side);
    ck_assert_int_eq(write(raw, words, sizeof(words)), sizeof(words));
    ck_assert_int_eq(recv(raw, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
    ck_assert_uint_eq(answer[8], 1);
    ck_assert_int_eq(side_end(&side), -EPROTONOSUPPORT);
    close(raw);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("link_keys");
    TCase *tcase = tcase_create("accepting");

    signal(SIGPIPE, SIG_IGN);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, each_of_several_hosts_calls_with_its_own_key, 0, 2);
    tcase_add_test(tcase, a_stranger_is_refused_and_both_hear_of_the_mend);
    tcase_add_test(tcase, without_a_key_it_is_as_it_would_be_without_keys);
    tcase_add_test(tcase, who_wants_tls_gets_no_plain_link);
    tcase_add_test(tcase, another_version_hears_of_ours);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
