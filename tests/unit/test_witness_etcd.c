/* SPDX-License-Identifier: MIT */
/*
 * What becomes of an exchange when answers are lost or wrong, with servers that say what they are
 * told to. The real one: tests/system/test_witness_etcd.py.
 */
#include "ft/witness_etcd_parts.h"
#include "tests/unit/http_rig.h"

#include <sys/stat.h>

static const uint8_t vm[16] = {0x6f, 0x1e, 0xd0, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
#define HEADER "\"header\":{\"cluster_id\":\"1\"}"

static char home[64];
static struct fake one, two;
static char address[200];

static void set_up(void)
{
    strcpy(home, "/tmp/minivmm-etcd-XXXXXX");
    ck_assert(mkdtemp(home));
    ck_assert_int_eq(setenv("XDG_CONFIG_HOME", home, 1), 0);
    fake_listen(&one);
    fake_listen(&two);
    snprintf(address, sizeof(address), "etcd://127.0.0.1:%s,127.0.0.1:%s", one.server.port,
             two.server.port);
}

static const char *config_path(void)
{
    static char path[100];

    snprintf(path, sizeof(path), "%s/minivmm/etcd.json", home);
    return path;
}

static void tear_down(void)
{
    char folder[100];

    fake_end(&one);
    fake_end(&two);
    unlink(config_path());
    snprintf(folder, sizeof(folder), "%s/minivmm", home);
    rmdir(folder);
    rmdir(home);
}

static void write_config(const char *text, mode_t mode)
{
    char folder[100];

    snprintf(folder, sizeof(folder), "%s/minivmm", home);
    ck_assert(mkdir(folder, 0700) == 0 || errno == EEXIST);
    FILE *file = fopen(config_path(), "we");
    ck_assert(file && fputs(text, file) >= 0 && fchmod(fileno(file), mode) == 0);
    fclose(file);
}

/* --- answers ---------------------------------------------------------------------------------- */

/* Until the end of the test. */
static const char *reply(unsigned status, const char *body)
{
    static char kept[32][2048];
    static unsigned next;
    char *text = kept[next++ % 32];

    snprintf(text, sizeof(kept[0]), "HTTP/1.1 %u Said\r\nContent-Length: %zu\r\n\r\n%s", status,
             strlen(body), body);
    return text;
}

static const char nothing[] = "{" HEADER "}";
static const char probed[] =
    "{" HEADER ",\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"1\"}}}]}";
static const char done[] = "{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}";
static const char denied[] = "{\"message\":\"etcdserver: permission denied\",\"code\":7}";
static const char leaderless[] = "{\"message\":\"etcdserver: no leader\",\"code\":14}";
static const char stale[] = "{\"message\":\"etcdserver: invalid auth token\",\"code\":16}";

static const char *encoded(const char *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static char text[1000];
    size_t at = 0;

    for (size_t i = 0; i < length; i += 3) {
        unsigned bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (i + j < length ? (uint8_t)bytes[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            text[at++] = i + j <= length ? digits[bits >> (18 - 6 * j) & 63] : '=';
    }
    text[at] = 0;
    return text;
}

/* Of this record, as a key's only value; flip changes one of its bytes. */
static const char *kvs(uint64_t generation, uint64_t owner, const uint8_t uuid[16], char flip)
{
    struct witness_text text = {.record = {generation, owner, 0}, .attempt = {generation, owner}};
    static char list[1200];
    char bytes[WITNESS_TEXT_MAX], key[ETCD_KEY], name[100];

    memcpy(text.uuid, uuid, 16);
    size_t length = witness_text_format(&text, bytes);
    bytes[30] = (char)(bytes[30] ^ flip);
    etcd_text_key(vm, key);
    strcpy(name, encoded(key, strlen(key)));
    snprintf(list, sizeof(list),
             "\"kvs\":[{\"key\":\"%s\",\"mod_revision\":\"7\",\"value\":\"%s\"}]", name,
             encoded(bytes, length));
    return list;
}

static const char *has(uint64_t generation, uint64_t owner)
{
    char body[1500];

    snprintf(body, sizeof(body), "{" HEADER ",%s}", kvs(generation, owner, vm, 0));
    return reply(200, body);
}

static const char *has_instead(uint64_t generation, uint64_t owner)
{
    char body[1500];

    snprintf(body, sizeof(body), "{" HEADER ",\"responses\":[{\"response_range\":{%s}}]}",
             kvs(generation, owner, vm, 0));
    return reply(200, body);
}

static struct witness *open_one(void)
{
    struct witness *witness;
    struct err err = {0};

    fake_start(&one);
    if (two.count)
        fake_start(&two);
    ck_assert_msg(witness_open(&witness, address, &err) == 0, "%s", err.text);
    return witness;
}

static int give(struct witness *witness, uint64_t expected, struct ft_record *ret_is,
                struct err *err)
{
    const struct ft_record next = {.generation = expected + 1, .owner = 42};

    return witness_exchange(witness, vm, expected, &next, ret_is, err);
}

/* --- answers that are lost -------------------------------------------------------------------- */

/* The first member takes the transaction and says nothing; the second one has `answer` to it. */
static int give_twice(const char *answer, struct ft_record *ret_is, struct err *err)
{
    fake_will(&one, reply(200, probed));
    fake_will(&one, has(5, 7));
    fake_will(&one, "");
    fake_will(&two, answer);
    struct witness *witness = open_one();
    int r = give(witness, 5, ret_is, err);
    witness_close(witness);
    return r;
}

START_TEST(a_transaction_whose_answer_is_lost_is_sent_again_as_it_is)
{
    struct ft_record is = {9, 9, 9};
    struct err err = {0};

    ck_assert_msg(give_twice(reply(200, done), &is, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(is.generation, 9); /* not touched */
    const char *first = strstr(one.requests[2], "\r\n\r\n");
    const char *second = strstr(two.requests[0], "\r\n\r\n");
    ck_assert(first && second && strstr(first, "request_put"));
    ck_assert_str_eq(first, second);
    ck_assert(strstr(first, "\"MOD\"") && strstr(first, "\"mod_revision\":\"7\"") &&
              strstr(first, "\"VALUE\""));
}
END_TEST

START_TEST(who_made_it_by_the_answer_that_was_lost_hears_so)
{
    struct ft_record is;
    struct err err = {0};

    ck_assert_msg(give_twice(FAKE_MADE, &is, &err) == 0, "%s", err.text);
}
END_TEST

START_TEST(who_was_too_late_hears_who_was_first)
{
    struct ft_record is;
    struct err err = {0};

    ck_assert_int_eq(give_twice(has_instead(6, 8), &is, &err), -EAGAIN);
    ck_assert_uint_eq(is.generation, 6);
    ck_assert_uint_eq(is.owner, 8);
}
END_TEST

START_TEST(when_all_answers_are_lost_it_is_not_known)
{
    struct ft_record is = {9, 9, 9};
    struct err err = {0};

    ck_assert_int_eq(give_twice("", &is, &err), -ESTALE);
    ck_assert_msg(strstr(err.text, "not known") && strstr(err.text, "hung up"), "%s", err.text);
    ck_assert_uint_eq(is.generation, 9);
}
END_TEST

/* A refusal by the second member says nothing about what the first one did. */
START_TEST(a_refusal_after_a_lost_answer_is_not_known_either)
{
    struct ft_record is;
    struct err err = {0};

    ck_assert_int_eq(give_twice(reply(503, leaderless), &is, &err), -ESTALE);
    ck_assert_msg(strstr(err.text, "no leader"), "%s", err.text);
    ck_assert_msg(strstr(err.hint, "more than half"), "%s", err.hint);
}
END_TEST

/* Whoever asks has two seconds of patience (protect_config). */
START_TEST(a_silent_member_leaves_time_for_another_one)
{
    struct ft_record is;
    struct err err = {0};

    fake_will(&one, reply(200, probed));
    fake_will(&one, FAKE_HANGS);
    fake_will(&two, has(5, 7));
    struct witness *witness = open_one();
    uint64_t began = clock_monotonic_ns();
    ck_assert_msg(witness_read(witness, vm, &is, &err) == 0, "%s", err.text);
    ck_assert_uint_lt(clock_monotonic_ns() - began, 2 * NS_PER_SEC);
    ck_assert_uint_eq(is.generation, 5);
    witness_close(witness);
}
END_TEST

START_TEST(the_same_generation_written_by_hand_is_nobodys_win)
{
    struct ft_record is;
    struct err err = {0};

    ck_assert_int_eq(give_twice(has_instead(5, 7), &is, &err), -EBUSY);
}
END_TEST

START_TEST(what_is_refused_has_not_taken_place)
{
    struct ft_record is;
    struct err err = {0};

    fake_will(&one, reply(200, probed));
    fake_will(&one, has(5, 7));
    fake_will(&one, reply(403, denied));
    struct witness *witness = open_one();
    ck_assert_int_eq(give(witness, 5, &is, &err), -EACCES); /* and nobody else is asked */
    ck_assert_msg(strstr(err.text, one.server.port) && strstr(err.hint, "\"password\" in"),
                  "%s (%s)", err.text, err.hint);
    witness_close(witness);
}
END_TEST

START_TEST(only_the_generation_that_is_there_can_be_exchanged)
{
    struct ft_record is;
    struct err err = {0};

    fake_will(&one, reply(200, probed));
    fake_will(&one, has(5, 7));
    fake_will(&one, reply(200, nothing));
    fake_will(&one, reply(200, nothing));
    fake_will(&one, reply(200, done));
    struct witness *witness = open_one();
    ck_assert_int_eq(give(witness, 4, &is, &err), -EAGAIN);
    ck_assert_uint_eq(is.generation, 5);
    ck_assert_int_eq(give(witness, 5, &is, &err), -EAGAIN); /* the records are gone */
    ck_assert_uint_eq(is.generation, 0);
    ck_assert_int_eq(give(witness, 0, &is, &err), 0);
    ck_assert(strstr(one.requests[4], "\"create_revision\":\"0\""));
    witness_close(witness);
}
END_TEST

START_TEST(what_is_no_record_is_named_and_nothing_is_guessed)
{
    static const uint8_t other[16] = {1};
    char damaged[1500], copy[1500];
    struct ft_record is = {9, 9, 9};

    snprintf(damaged, sizeof(damaged), "{" HEADER ",%s}", kvs(5, 7, vm, 1));
    snprintf(copy, sizeof(copy), "{" HEADER ",%s}", kvs(5, 7, other, 0));
    const struct {
        const char *body, *text;
    } bad[] = {
        {damaged, "is damaged"},
        {copy, "copy of another"},
        {"{}", "none of an etcd"},
        {"[]", "none of an etcd"},
        {"{" HEADER ",\"kvs\":[{}]}", "nobody asked for"},
    };
    fake_will(&one, reply(200, probed));
    for (size_t i = 0; i < array_size(bad); i++)
        fake_will(&one, reply(200, bad[i].body));
    struct witness *witness = open_one();
    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        ck_assert_int_lt(give(witness, 5, &is, &err), 0);
        ck_assert_msg(strstr(err.text, bad[i].text), "%s", err.text);
    }
    ck_assert_uint_eq(is.generation, 9);
    witness_close(witness);
}
END_TEST

/* --- who asks --------------------------------------------------------------------------------- */

START_TEST(a_token_that_is_forgotten_is_asked_for_again)
{
    struct ft_record is;
    struct err err = {0};

    write_config("{\"user\": \"me\", \"password\": \"it's \\\"secret\\\"\"}", 0600);
    fake_will(&one, reply(200, "{" HEADER ",\"token\":\"first\"}"));
    fake_will(&one, reply(200, probed));
    fake_will(&one, reply(401, stale));
    fake_will(&one, reply(200, "{" HEADER ",\"token\":\"second\"}"));
    fake_will(&one, has(5, 7));
    struct witness *witness = open_one();
    ck_assert_msg(witness_read(witness, vm, &is, &err) == 0, "%s", err.text);
    witness_close(witness);
    ck_assert(strstr(one.requests[0], "POST /v3/auth/authenticate"));
    ck_assert(strstr(one.requests[0], "{\"name\":\"me\",\"password\":\"it's \\\"secret\\\"\"}"));
    ck_assert(strstr(one.requests[1], "Authorization: first\r\n"));
    ck_assert(strstr(one.requests[4], "Authorization: second\r\n"));
    ck_assert(!strstr(one.requests[3], "Authorization"));
}
END_TEST

static void refuse(const char *where, int error, const char *text, const char *hint)
{
    struct witness *none = NULL;
    struct err err = {0};

    ck_assert_int_eq(witness_open(&none, where, &err), -error);
    ck_assert_ptr_null(none);
    ck_assert_msg(strstr(err.text, text) && strstr(err.hint, hint), "%s (%s)", err.text, err.hint);
}

START_TEST(the_file_with_the_password_is_refused_with_the_reason)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "no JSON"},
        {"[]", "no object"},
        {"{\"usr\": \"x\"}", "nobody knows \"usr\""},
        {"{\"user\": \"x\"}", "go together"},
        {"{\"cert\": \"x\"}", "go together"},
        {"{\"ca\": 1}", "\"ca\" is no text"},
        {"{\"ca\": \"\"}", "\"ca\" is no text"},
        {"{\"ca\": \"nowhere.pem\"}", "minivmm/nowhere.pem"},
        {"{\"user\": \"x\", \"user\": \"y\"}", "no JSON"},
    };

    for (size_t i = 0; i < array_size(bad); i++) {
        write_config(bad[i].text, 0600);
        refuse("etcd://127.0.0.1:1", bad[i].says[0] == 'm' ? ENOENT : EINVAL, bad[i].says, "");
    }
    write_config("{}", 0640);
    refuse("etcd://127.0.0.1:1", EPERM, "read or written by others", "chmod 600");
    write_config("{}", 0600);
    refuse("etcd:https://127.0.0.1:1", EINVAL, "https://127.0.0.1:1", "{\"ca\"");
    write_config("{\"user\": \"x\", \"password\": \"y\"}", 0600);
    refuse("etcd://127.0.0.1:1,10.0.0.1:1", EPERM, "10.0.0.1:1 for everybody", "\"ca\"");
    refuse("etcd:http://10.0.0.1", EPERM, "10.0.0.1:2379", "\"ca\"");
}
END_TEST

START_TEST(an_address_is_a_list_of_members)
{
    static const struct {
        const char *text;
        size_t count;
    } good[] = {{"//a", 1},
                {"//a:1,b:2,[::1]:3", 3},
                {"http://a", 1},
                {"http://a:1/,http://b", 2},
                {"//a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", 16}};
    static const char *const bad[] = {"",
                                      "a",
                                      "//",
                                      "//a,",
                                      "//,a",
                                      "//a,http://b",
                                      "http://a,b",
                                      "ftp://a",
                                      "http://a/b",
                                      "//u:p@h",
                                      "http://",
                                      "//::1",
                                      "//a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"};

    for (size_t i = 0; i < array_size(good); i++) {
        struct etcd_config config;
        struct err err = {0};
        ck_assert_msg(etcd_config_read(&config, good[i].text, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(config.count, good[i].count);
        etcd_config_finish(&config);
    }
    refuse("etcd:https://a:1/,http://b", EINVAL, "https://a:1 must have", "{\"ca\"");
    for (size_t i = 0; i < array_size(bad); i++) {
        char whole[100];
        snprintf(whole, sizeof(whole), "etcd:%s", bad[i]);
        refuse(whole, EINVAL, whole, "etcd://HOST");
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("witness_etcd");
    TCase *tests = tcase_create("etcd");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_transaction_whose_answer_is_lost_is_sent_again_as_it_is);
    tcase_add_test(tests, who_made_it_by_the_answer_that_was_lost_hears_so);
    tcase_add_test(tests, who_was_too_late_hears_who_was_first);
    tcase_add_test(tests, when_all_answers_are_lost_it_is_not_known);
    tcase_add_test(tests, a_refusal_after_a_lost_answer_is_not_known_either);
    tcase_add_test(tests, a_silent_member_leaves_time_for_another_one);
    tcase_add_test(tests, the_same_generation_written_by_hand_is_nobodys_win);
    tcase_add_test(tests, what_is_refused_has_not_taken_place);
    tcase_add_test(tests, only_the_generation_that_is_there_can_be_exchanged);
    tcase_add_test(tests, what_is_no_record_is_named_and_nothing_is_guessed);
    tcase_add_test(tests, a_token_that_is_forgotten_is_asked_for_again);
    tcase_add_test(tests, the_file_with_the_password_is_refused_with_the_reason);
    tcase_add_test(tests, an_address_is_a_list_of_members);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
