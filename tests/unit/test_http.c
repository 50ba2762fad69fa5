/* SPDX-License-Identifier: MIT */
#include "tests/unit/http_rig.h"

#define OK   "HTTP/1.1 200 OK\r\n"
#define OK_2 OK "Content-Length: 2\r\n\r\nhi"

/* --- answers ---------------------------------------------------------------------------------- */

/* Fed in pieces of `piece` bytes. */
static int feed(struct http_answer *answer, const char *text, size_t length, size_t piece)
{
    int r = 0;

    http_answer_init(answer);
    for (size_t at = 0; at < length && r == 0; at += piece)
        r = http_answer_take(answer, text + at, piece < length - at ? piece : length - at);
    return r;
}

START_TEST(an_answer_is_the_same_however_it_is_cut)
{
    static const struct {
        const char *text, *body;
        unsigned status;
    } good[] = {
        {OK_2, "hi", 200},
        {OK_2 "and what nobody asked for", "hi", 200},
        {"HTTP/1.0 200 \r\ncontent-length:2 \t\r\n\r\nhi", "hi", 200},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", 200},
        {OK "Transfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n00B; x=y\r\n, everybody\r\n0\r\n\r\n",
         "hi, everybody", 200},
        {OK "Trailer: A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n0\r\nA: b\r\nC: d\r\n\r\n",
         "h", 200},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 \r\nA: b\r\n\r\n" OK_2, "hi", 200},
        {"HTTP/1.1 204 No\r\n\r\n", "", 204},
        {"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", "no", 503},
    };
    static struct http_answer answer;

    for (size_t i = 0; i < array_size(good); i++) {
        size_t length = strlen(good[i].text);
        for (size_t piece = 1; piece <= length; piece++) {
            ck_assert_msg(feed(&answer, good[i].text, length, piece) == 1, "%zu: %s", i,
                          answer.wrong ? answer.wrong : "more is wanted");
            ck_assert_uint_eq(answer.status, good[i].status);
            ck_assert_str_eq(answer.body, good[i].body);
            ck_assert_uint_eq(answer.length, strlen(good[i].body));
        }
    }
}
END_TEST

START_TEST(an_answer_that_is_cut_off_is_none)
{
    static const char *const texts[] = {
        OK_2, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n"};
    static struct http_answer answer;

    for (size_t i = 0; i < array_size(texts); i++)
        for (size_t length = 0; length < strlen(texts[i]); length++) {
            ck_assert_int_eq(feed(&answer, texts[i], length, 7), 0);
            ck_assert_int_eq(http_answer_end(&answer), -EBADMSG);
            ck_assert_str_eq(answer.wrong, length ? "was cut off" : "is empty");
            ck_assert_int_eq(http_answer_take(&answer, "x", 1), -EBADMSG);
        }
    /* Words for people end with the connection; nothing else does. */
    ck_assert_int_eq(feed(&answer, "HTTP/1.0 400 Bad\r\n\r\nsorry", 25, 3), 0);
    ck_assert_int_eq(http_answer_end(&answer), 0);
    ck_assert_str_eq(answer.body, "sorry");
}
END_TEST

START_TEST(an_answer_that_breaks_a_rule_is_refused_with_the_reason)
{
    static const struct {
        const char *text, *wrong;
    } bad[] = {
        {"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"},
        {"HTTP/1.1 2000 OK\r\n", "no HTTP"},
        {"HTTP/1.1 20 OK\r\n", "no HTTP"},
        {"HTTP/1.1 099 OK\r\n", "no HTTP"},
        {"HTTP/1.1 600 OK\r\n", "no HTTP"},
        {"HTTP/2 200 OK\r\n", "no HTTP"},
        {"\r\n", "no HTTP"},
        {"HTTP/1.1 200 OK\n", "line of no clear end"},
        {"HTTP/1.1 200 OK\rX", "line of no clear end"},
        {OK "A: \001\r\n", "control characters"},
        {OK "\025\003\r\n", "control characters"},
        {OK ": b\r\n", "header that is none"},
        {OK "none\r\n", "header that is none"},
        {OK "A : b\r\n", "header that is none"},
        {OK "A: b\r\n c\r\n", "header that is none"},
        {OK "Content-Length: 2\r\nContent-Length: 2\r\n", "no clear length"},
        {OK "Content-Length: -2\r\n", "no clear length"},
        {OK "Content-Length: +2\r\n", "no clear length"},
        {OK "Content-Length: 2, 2\r\n", "no clear length"},
        {OK "Content-Length: 0x2\r\n", "no clear length"},
        {OK "Content-Length: \r\n", "no clear length"},
        {OK "Content-Length: 65537\r\n", "too long"},
        {OK "Content-Length: 99999999999999999999\r\n", "too long"},
        {OK "Transfer-Encoding: gzip, chunked\r\n", "encoding"},
        {OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "encoding"},
        {OK "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", "two lengths"},
        {OK "\r\n", "has no length"},
        {"HTTP/1.1 100 \r\nContent-Length: 2\r\n\r\n", "no clear length"},
        {OK "Transfer-Encoding: chunked\r\n\r\n-1\r\n", "no clear length"},
        {OK "Transfer-Encoding: chunked\r\n\r\n\r\n", "no clear length"},
        {OK "Transfer-Encoding: chunked\r\n\r\n123456789\r\n", "no clear length"},
        {OK "Transfer-Encoding: chunked\r\n\r\n2 x\r\n", "no clear length"},
        {OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhix\r\n", "no clear length"},
    };
    static struct http_answer answer;

    for (size_t i = 0; i < array_size(bad); i++)
        for (size_t piece = 1; piece < 100; piece += 33) {
            ck_assert_msg(feed(&answer, bad[i].text, strlen(bad[i].text), piece) == -EBADMSG,
                          "%zu is taken: %s", i, bad[i].text);
            ck_assert_msg(strstr(answer.wrong, bad[i].wrong), "%zu: %s", i, answer.wrong);
        }
}
END_TEST

/* Feeds a text again and again; how often it was taken before it was too much. */
static unsigned feed_on(struct http_answer *answer, const char *head, const char *more)
{
    unsigned times = 0;

    int r = feed(answer, head, strlen(head), 100);
    for (; r == 0 && times < 1000000; times++)
        r = http_answer_take(answer, more, strlen(more));
    ck_assert_int_eq(r, -EBADMSG);
    return times;
}

START_TEST(an_answer_without_an_end_is_refused)
{
    static struct http_answer answer;

    ck_assert_uint_eq(feed_on(&answer, OK "A: ", "aaaa"), (HTTP_LINE_MAX - 3) / 4 + 1);
    ck_assert_msg(strstr(answer.wrong, "line that is too long"), "%s", answer.wrong);
    ck_assert_uint_lt(feed_on(&answer, OK, "A: b\r\n"), HTTP_HEAD_MAX / 6 + 1);
    ck_assert_msg(strstr(answer.wrong, "head that is too long"), "%s", answer.wrong);
    ck_assert_uint_le(feed_on(&answer, "", "HTTP/1.1 100 \r\n\r\n"), HTTP_HEAD_MAX / 17 + 1);
    feed_on(&answer, OK "Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n");
    ck_assert_msg(strstr(answer.wrong, "head that is too long"), "%s", answer.wrong);
    ck_assert_uint_eq(feed_on(&answer, OK "Transfer-Encoding: chunked\r\n\r\nfffff\r\n", "aaaa"),
                      HTTP_BODY_MAX / 4 + 1);
    ck_assert_msg(strstr(answer.wrong, "is too long"), "%s", answer.wrong);
    ck_assert_uint_eq(feed_on(&answer, "HTTP/1.1 400 \r\n\r\n", "aaaa"), HTTP_BODY_MAX / 4 + 1);
    ck_assert_uint_eq(answer.length, HTTP_BODY_MAX);
}
END_TEST

/* --- servers ---------------------------------------------------------------------------------- */

START_TEST(a_servers_address_is_host_and_port)
{
    static const struct {
        const char *text, *name;
        bool local;
    } good[] = {
        {"h", "h:2379", false},
        {"h.example:1", "h.example:1", false},
        {"10.0.0.1", "10.0.0.1:2379", false},
        {"[::1]", "[::1]:2379", true},
        {"[fe80::1]:65535", "[fe80::1]:65535", false},
        {"localhost", "localhost:2379", true},
        {"127.1.2.3:4", "127.1.2.3:4", true},
        {"127.evil.example", "127.evil.example:2379", false},
        {"localhost.evil.example", "localhost.evil.example:2379", false},
    };
    static const char *const bad[] = {"",    ":1",   "h:",  "h:0",    "h:65536", "h:1:2",
                                      "::1", "[::1", "[]",  "h/x",    "u@h",     "h h",
                                      "[h]", "h:x",  "h\r", "[::1]x", "h:-1"};
    struct http_server server;
    char name[300], large[400];

    for (size_t i = 0; i < array_size(good); i++) {
        ck_assert_int_eq(http_server_parse(&server, good[i].text, strlen(good[i].text), 2379), 0);
        http_server_name(&server, name, sizeof(name));
        ck_assert_str_eq(name, good[i].name);
        ck_assert(http_server_is_local(&server) == good[i].local);
    }
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_msg(http_server_parse(&server, bad[i], strlen(bad[i]), 2379) == -EINVAL, "%s",
                      bad[i]);
    memset(large, 'a', sizeof(large));
    ck_assert_int_eq(http_server_parse(&server, large, sizeof(large), 1), -EINVAL);
}
END_TEST

static uint64_t in_a_while(void)
{
    return clock_monotonic_ns() + PATIENCE_MS * 1000000ull;
}

static int ask(const struct fake *fake, uint64_t deadline_ns, struct http_answer *answer,
               bool *ret_sent, struct err *err)
{
    const struct http_request request = {
        .path = "/v3/kv/range", .token = "secret", .body = "{\"a\":1}"};
    int why[HTTP_SERVERS];
    size_t which = 9;

    int fd = http_dial(&fake->server, 1, 0, 0, deadline_ns, &which, why);
    ck_assert_int_ge(fd, 0);
    ck_assert_uint_eq(which, 0);
    return http_post(fd, &fake->server, NULL, &request, deadline_ns, answer, ret_sent, err);
}

START_TEST(a_question_has_all_that_it_takes)
{
    static struct http_answer answer;
    static struct fake fake;
    struct err err = {0};
    char wanted[500];
    bool sent;

    fake_listen(&fake);
    fake_will(&fake, OK_2);
    fake_start(&fake);
    ck_assert_msg(ask(&fake, in_a_while(), &answer, &sent, &err) == 0, "%s", err.text);
    fake_end(&fake);
    ck_assert(sent);
    ck_assert_str_eq(answer.body, "hi");
    snprintf(wanted, sizeof(wanted),
             "POST /v3/kv/range HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n"
             "Content-Type: application/json\r\nContent-Length: 7\r\nConnection: close\r\n"
             "Authorization: secret\r\n\r\n{\"a\":1}",
             fake.server.port);
    ck_assert_str_eq(fake.requests[0], wanted);
}
END_TEST

START_TEST(a_hostile_server_gets_no_more_than_our_time)
{
    static struct http_answer answer;
    static struct fake fake;
    static const struct {
        const char *answer, *text;
        int error;
    } bad[] = {
        {"", "hung up", ECONNRESET},
        {OK "Content-Length: 3\r\n\r\nhi", "was cut off", EBADMSG},
        {OK "Content-Length: 3, 3\r\n\r\nhi", "no clear length", EBADMSG},
        {FAKE_HANGS, "did not answer in time", ETIMEDOUT},
        {FAKE_DRIPS, "did not answer in time", ETIMEDOUT},
    };
    bool sent;

    fake_listen(&fake);
    for (size_t i = 0; i < array_size(bad); i++)
        fake_will(&fake, bad[i].answer);
    fake_start(&fake);
    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        uint64_t until = bad[i].error == ETIMEDOUT ? clock_monotonic_ns() + 100000000
                                                   : in_a_while();
        ck_assert_int_eq(ask(&fake, until, &answer, &sent, &err), -bad[i].error);
        ck_assert_msg(strstr(err.text, bad[i].text), "%s", err.text);
        ck_assert(sent);
    }
    fake_end(&fake);
}
END_TEST

START_TEST(without_a_ca_no_question_is_sent)
{
    static const struct http_trust trust = {.ca = "nothing"};
    static struct http_answer answer;
    static struct fake fake;
    struct err err = {0};
    bool sent;

    fake_listen(&fake);
    int why[HTTP_SERVERS];
    size_t which;
    int fd = http_dial(&fake.server, 1, 0, 0, in_a_while(), &which, why);
    const struct http_request request = {.path = "/", .token = "secret", .body = "secret"};
    fake.server.tls = true;
    ck_assert_int_eq(
        http_post(fd, &fake.server, &trust, &request, in_a_while(), &answer, &sent, &err), -EINVAL);
    ck_assert_msg(strstr(err.text, "holds no certificate"), "%s", err.text);
    ck_assert(!sent);
    fake_end(&fake);
}
END_TEST

START_TEST(whoever_is_there_is_called)
{
    static struct fake dead, alive;
    struct http_server servers[3];
    int why[HTTP_SERVERS] = {0};
    size_t which = 9;

    fake_listen(&dead);
    fake_listen(&alive);
    close(dead.listener);
    servers[0] = dead.server;
    servers[1] = alive.server;
    servers[2] = dead.server;
    memset(servers[2].host, 'x', 80); /* no part of a name may be so long: no server is asked */
    servers[2].host[80] = 0;
    for (size_t first = 0; first < 4; first++) {
        int fd = http_dial(servers, 3, 0, first, in_a_while(), &which, why);
        ck_assert_int_ge(fd, 0);
        ck_assert_uint_eq(which, 1);
        close(fd);
    }
    ck_assert_int_lt(http_dial(servers, 3, 1u << 1, 1, in_a_while(), &which, why), 0);
    ck_assert_int_eq(why[0], -ECONNREFUSED);
    ck_assert(why[2] == -ENOENT || why[2] == -EAGAIN);
    close(alive.listener);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("http");
    TCase *tests = tcase_create("http");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, an_answer_is_the_same_however_it_is_cut);
    tcase_add_test(tests, an_answer_that_is_cut_off_is_none);
    tcase_add_test(tests, an_answer_that_breaks_a_rule_is_refused_with_the_reason);
    tcase_add_test(tests, an_answer_without_an_end_is_refused);
    tcase_add_test(tests, a_servers_address_is_host_and_port);
    tcase_add_test(tests, a_question_has_all_that_it_takes);
    tcase_add_test(tests, a_hostile_server_gets_no_more_than_our_time);
    tcase_add_test(tests, without_a_ca_no_question_is_sent);
    tcase_add_test(tests, whoever_is_there_is_called);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
