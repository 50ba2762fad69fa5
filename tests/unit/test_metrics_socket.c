/* SPDX-License-Identifier: MIT */
/* The metrics' HTTP: what good clients get, and what bad ones cannot do. */
#include "core/clock.h"
#include "core/loop.h"
#include "core/thread.h"
#include "tests/unit/control_raw.h"
#include "vmm/metrics_socket.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { MANY = 2 << 20, ANSWER_MAX = MANY + 4096 };

static struct {
    struct loop *loop;
    struct metrics_socket *socket;
    struct thread thread;
    char folder[64], path[96];
    size_t page; /* bytes; 0: cannot be made */
    _Atomic unsigned pages;
    char *answer;
} t;

static int handle_write(void *ctx, char **ret_text, size_t *ret_length)
{
    t.pages++;
    if (t.page == 0)
        return -ENOMEM;
    *ret_text = malloc(t.page);
    memset(*ret_text, 'm', t.page);
    *ret_length = t.page;
    return 0;
}

static void run_loop(void *arg)
{
    ck_assert_int_eq(loop_run(t.loop), 0);
}

static void begin(unsigned patience_ms)
{
    struct err err = {0};
    const struct metrics_socket_config config = {
        .path = t.path, .write = handle_write, .patience_ms = patience_ms};
    int ret = metrics_socket_create(&t.socket, t.loop, &config, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    t.thread = (struct thread){0};
    ck_assert_int_eq(thread_start(&t.thread, "metrics", run_loop, NULL, NULL), 0);
}

static void end(void)
{
    loop_stop(t.loop);
    thread_join(&t.thread);
    metrics_socket_destroy(t.socket);
    t.socket = NULL;
}

static void begin_anew(unsigned patience_ms)
{
    end();
    begin(patience_ms);
}

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(t.folder, sizeof(t.folder), "%s/metrics-XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(t.folder));
    snprintf(t.path, sizeof(t.path), "%s/metrics.sock", t.folder);
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    t.page = 100;
    t.pages = 0;
    t.answer = malloc(ANSWER_MAX + 1);
    begin(0);
}

static void tear_down(void)
{
    end();
    loop_destroy(t.loop);
    free(t.answer);
    ck_assert_int_eq(rmdir(t.folder), 0); /* so the socket is gone */
}

/* All that comes until the end. */
static size_t receive_all(int fd)
{
    size_t length = 0, got;
    while (length < ANSWER_MAX && (got = raw_receive(fd, t.answer + length, ANSWER_MAX - length)))
        length += got;
    t.answer[length] = '\0';
    return length;
}

static const char *ask(const char *request, size_t length)
{
    int fd = raw_connect(t.path);
    ck_assert(raw_send(fd, request, length));
    receive_all(fd);
    close(fd);
    return t.answer;
}

static void check_status(const char *request, const char *status)
{
    const char *answer = ask(request, strlen(request));
    ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && strncmp(answer + 9, status, 3) == 0,
                  "%s\ngot:\n%s", request, answer);
    ck_assert_ptr_nonnull(strstr(answer, "\r\nConnection: close\r\n"));
}

/* The page as it should be, and nothing behind it. */
static void check_page(const char *answer)
{
    char length[64];
    const char *body = strstr(answer, "\r\n\r\n");
    snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", t.page);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17) == 0, "%.300s", answer);
    ck_assert_ptr_nonnull(
        strstr(answer, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    ck_assert_ptr_nonnull(strstr(answer, length));
    ck_assert_ptr_nonnull(body);
    ck_assert_uint_eq(strlen(body + 4), t.page);
    ck_assert_uint_eq(strspn(body + 4, "m"), t.page);
}

static void check_serves(void)
{
    static const char request[] = "GET /metrics HTTP/1.0\r\n\r\n";
    check_page(ask(request, strlen(request)));
}

/* --- good clients ----------------------------------------------------------------------------- */

START_TEST(the_page_is_there_for_both_versions_and_names)
{
    static const char *const requests[] = {
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics?collect[]=disk HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "GET /metrics HTTP/1.0\n\n", /* typed by hand */
    };
    for (unsigned i = 0; i < array_size(requests); i++)
        check_page(ask(requests[i], strlen(requests[i])));
    ck_assert_uint_eq(t.pages, array_size(requests));
}
END_TEST

START_TEST(a_head_has_no_body)
{
    check_status("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200");
    ck_assert_ptr_nonnull(strstr(t.answer, "\r\nContent-Length: 100\r\n"));
    ck_assert_str_eq(strstr(t.answer, "\r\n\r\n"), "\r\n\r\n");
    check_status("HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404");
    ck_assert_str_eq(strstr(t.answer, "\r\n\r\n"), "\r\n\r\n");
}
END_TEST

START_TEST(a_request_may_come_byte_by_byte)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = raw_connect(t.path);
    for (unsigned i = 0; i < sizeof(request) - 1; i++)
        ck_assert(raw_send(fd, request + i, 1));
    receive_all(fd);
    check_page(t.answer);
    close(fd);
}
END_TEST

START_TEST(a_client_that_has_said_all_still_hears_the_answer)
{
    int fd = raw_connect(t.path);
    raw_say(fd, "GET /metrics HTTP/1.1\r\n\r\n");
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    receive_all(fd);
    check_page(t.answer);
    close(fd);
}
END_TEST

START_TEST(a_page_of_any_length_comes_whole)
{
    t.page = MANY;
    check_serves();
    t.page = 1;
    check_serves();
}
END_TEST

START_TEST(clients_one_after_the_other_are_no_limit)
{
    for (unsigned i = 0; i < 10 * METRICS_MAX_CLIENTS; i++)
        check_serves();
}
END_TEST

START_TEST(a_page_that_cannot_be_made_is_said_so)
{
    t.page = 0;
    check_status("GET /metrics HTTP/1.1\r\n\r\n", "503");
    t.page = 100;
    check_serves();
}
END_TEST

/* --- bad ones --------------------------------------------------------------------------------- */

START_TEST(what_is_no_request_for_the_page_is_refused)
{
    static const char *const wrong[][2] = {
        {"GET /other HTTP/1.1\r\n\r\n", "404"},
        {"GET /metrics/ HTTP/1.1\r\n\r\n", "404"},
        {"GET /../metrics HTTP/1.1\r\n\r\n", "404"},
        {"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405"},
        {"get /metrics HTTP/1.1\r\n\r\n", "405"},
        {" /metrics HTTP/1.1\r\n\r\n", "405"},
        {"GET /metrics HTTP/2.0\r\n\r\n", "505"},
        {"GET /metrics HTTP/1.15\r\n\r\n", "505"},
        {"GET /metrics HTTP/\r\n\r\n", "505"},
        {"GET /metrics\r\n\r\n", "400"},
        {"GET  /metrics HTTP/1.1\r\n\r\n", "400"},
        {"GET /metrics  HTTP/1.1\r\n\r\n", "400"},
        {"GET metrics HTTP/1.1\r\n\r\n", "400"},
        {"GET\r\n\r\n", "400"},
        {"\r\n\r\n", "400"},
        {"\n\n", "400"},
        {"%s%n%x HTTP/1.1\r\n\r\n", "400"},
        {"\x16\x03\x01\x02 / \n\n", "400"},
    };
    for (unsigned i = 0; i < array_size(wrong); i++)
        check_status(wrong[i][0], wrong[i][1]);
    ck_assert_uint_eq(t.pages, 0);
    check_status("POST / HTTP/1.1\r\n\r\n", "405");
    ck_assert_ptr_nonnull(strstr(t.answer, "\r\nAllow: GET, HEAD\r\n"));
    check_serves();
}
END_TEST

START_TEST(a_zero_byte_hides_nothing)
{
    static const char request[] = "GET /metrics HTTP/1.1\0 X\r\n\r\n";
    ck_assert_ptr_eq(strstr(ask(request, sizeof(request) - 1), "HTTP/1.1 400"), t.answer);
    static const char second[] = "GET /metrics\0/../ HTTP/1.1\r\n\r\n";
    ck_assert_ptr_eq(strstr(ask(second, sizeof(second) - 1), "HTTP/1.1 400"), t.answer);
}
END_TEST

START_TEST(a_request_without_an_end_is_refused_at_its_limit)
{
    char *request = malloc(64 << 10);
    memset(request, 'a', 64 << 10);
    memcpy(request, "GET /metrics HTTP/1.1\r\n", 23);
    int fd = raw_connect(t.path);
    ck_assert(raw_send(fd, request, METRICS_MAX_REQUEST));
    receive_all(fd);
    ck_assert_ptr_eq(strstr(t.answer, "HTTP/1.1 431"), t.answer);
    close(fd);
    /* Also when more comes than will ever be read: the answer is not lost to a reset. */
    fd = raw_connect(t.path);
    ck_assert(raw_send(fd, request, 64 << 10));
    receive_all(fd);
    ck_assert_ptr_eq(strstr(t.answer, "HTTP/1.1 431"), t.answer);
    close(fd);
    /* The longest that is allowed. */
    memcpy(request + METRICS_MAX_REQUEST - 4, "\r\n\r\n", 5);
    check_page(ask(request, METRICS_MAX_REQUEST));
    free(request);
}
END_TEST

START_TEST(a_client_that_ends_in_the_middle_is_told)
{
    int fd = raw_connect(t.path);
    raw_say(fd, "GET /metrics HTTP/1.1\r\n");
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    receive_all(fd);
    ck_assert_ptr_eq(strstr(t.answer, "HTTP/1.1 400"), t.answer);
    close(fd);
}
END_TEST

START_TEST(a_second_request_gets_nothing)
{
    static const char two[] = "GET /metrics HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n";
    check_page(ask(two, strlen(two)));
    ck_assert_uint_eq(t.pages, 1);
}
END_TEST

START_TEST(a_silent_client_is_dropped_in_time)
{
    char byte;
    begin_anew(50);
    uint64_t began = clock_monotonic_ns();
    int silent = raw_connect(t.path), half = raw_connect(t.path);
    raw_say(half, "GET /metrics HTTP/1.1\r\nX: ");
    ck_assert_uint_eq(raw_receive(silent, &byte, 1), 0);
    ck_assert_uint_eq(raw_receive(half, &byte, 1), 0);
    ck_assert_uint_ge(clock_monotonic_ns() - began, 45000000);
    close(silent);
    close(half);
    check_serves();
}
END_TEST

/* Each byte of his is not a new lease. */
START_TEST(a_client_that_drips_is_dropped_in_time)
{
    begin_anew(100);
    int fd = raw_connect(t.path);
    raw_say(fd, "GET / HTTP/1.1\r\n");
    uint64_t began = clock_monotonic_ns();
    while (raw_send(fd, "x", 1)) {
        usleep(2000);
        ck_assert_uint_lt(clock_monotonic_ns() - began, PATIENCE_MS * 1000000ull);
    }
    close(fd);
}
END_TEST

START_TEST(a_client_that_does_not_read_is_dropped_in_time)
{
    begin_anew(50);
    t.page = MANY; /* more than the socket takes */
    int fd = raw_connect(t.path);
    raw_say(fd, "GET / HTTP/1.1\r\n\r\n");
    struct pollfd io = {.fd = fd, .events = 0}; /* a hang-up is reported without being asked for */
    ck_assert_int_eq(poll(&io, 1, PATIENCE_MS), 1);
    ck_assert_uint_lt(receive_all(fd), MANY);
    close(fd);
    check_serves();
}
END_TEST

START_TEST(so_many_clients_and_no_more)
{
    int fds[METRICS_MAX_CLIENTS];
    for (unsigned i = 0; i < METRICS_MAX_CLIENTS; i++)
        fds[i] = raw_connect(t.path);
    int more = raw_connect(t.path);
    raw_say(more, "GET /metrics HTTP/1.1\r\n\r\n");
    struct pollfd io = {.fd = more, .events = POLLIN};
    ck_assert_int_eq(poll(&io, 1, 50), 0);
    /* Those who are in are served, and then there is room for him. */
    raw_say(fds[3], "GET /metrics HTTP/1.1\r\n\r\n");
    receive_all(fds[3]);
    check_page(t.answer);
    ck_assert_int_eq(poll(&io, 1, 50), 0);
    close(fds[3]);
    receive_all(more);
    check_page(t.answer);
    close(more);
    raw_say(fds[4], "GET /");
    for (unsigned i = 0; i < METRICS_MAX_CLIENTS; i++)
        if (i != 3)
            close(fds[i]);
    check_serves();
}
END_TEST

START_TEST(who_goes_away_at_any_moment_leaves_nothing)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    t.page = 300000;
    for (unsigned i = 0; i < 200; i++) {
        int fd = raw_connect(t.path);
        size_t length = i % sizeof(request);
        ck_assert(raw_send(fd, request, length));
        if (length == sizeof(request) - 1 && i % 2)
            ck_assert_uint_gt(raw_receive(fd, t.answer, 10), 0);
        close(fd);
    }
    check_serves();
}
END_TEST

START_TEST(random_bytes_do_no_harm)
{
    static const char *const pieces[] = {"GET ", "/metrics", "/", " ",  "HTTP/1.1", "\r\n",
                                         "\n",   "\r",       "?", "\0", "HEAD ",    "HTTP/1.0"};
    unsigned seed = 5;
    for (unsigned i = 0; i < 500; i++) {
        int fd = raw_connect(t.path);
        for (unsigned j = 0; j < 12; j++) {
            seed = seed * 1103515245 + 12345;
            const char *piece = pieces[(seed >> 16) % array_size(pieces)];
            if (!raw_send(fd, piece, *piece ? strlen(piece) : 1))
                break;
        }
        shutdown(fd, SHUT_WR);
        size_t got = receive_all(fd);
        ck_assert(got == 0 || strncmp(t.answer, "HTTP/1.1 ", 9) == 0);
        close(fd);
    }
    check_serves();
}
END_TEST

/* --- the door --------------------------------------------------------------------------------- */

START_TEST(only_its_owner_can_open_the_socket)
{
    struct stat status;
    ck_assert_int_eq(stat(t.path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0600);
}
END_TEST

/* Somebody else, whom the file's mode does not stop: he gets in, and hears nothing. */
static int ask_as_nobody(void)
{
    char byte;
    if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
        return 2;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, t.path, strlen(t.path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return 3;
    (void)!send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL);
    return recv(fd, &byte, 1, 0) <= 0 ? 0 : 1;
}

START_TEST(others_are_sent_away)
{
    if (geteuid() != 0)
        return; /* only root can be two users */
    ck_assert_int_eq(chmod(t.folder, 0755), 0);
    ck_assert_int_eq(chmod(t.path, 0666), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(ask_as_nobody());
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert(WIFEXITED(status));
    ck_assert_uint_eq(t.pages, 0);
    check_serves();
}
END_TEST

START_TEST(a_path_that_cannot_be_is_said_so)
{
    struct metrics_socket *none = NULL;
    struct err err = {0};
    char path[200];
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    struct metrics_socket_config config = {.path = path, .write = handle_write};
    ck_assert_int_eq(metrics_socket_create(&none, t.loop, &config, &err), -ENAMETOOLONG);
    ck_assert_ptr_nonnull(strstr(err.text, "too long"));
    config.path = "/nowhere/at/all";
    ck_assert_int_eq(metrics_socket_create(&none, t.loop, &config, &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "metrics socket /nowhere/at/all"));
    config.path = t.path; /* somebody else's: it stays */
    ck_assert_int_eq(metrics_socket_create(&none, t.loop, &config, &err), -EADDRINUSE);
    ck_assert_ptr_null(none);
    check_serves();
}
END_TEST

START_TEST(the_end_does_not_wait_for_clients)
{
    char byte;
    int fds[3];
    for (unsigned i = 0; i < array_size(fds); i++)
        fds[i] = raw_connect(t.path);
    raw_say(fds[1], "GET /");
    raw_say(fds[2], "GET / HTTP/1.1\r\n\r\n");
    receive_all(fds[2]); /* so all are in */
    end();
    for (unsigned i = 0; i < 2; i++)
        ck_assert_uint_eq(raw_receive(fds[i], &byte, 1), 0);
    for (unsigned i = 0; i < array_size(fds); i++)
        close(fds[i]);
    begin(0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics_socket");
    TCase *good = tcase_create("good");
    tcase_set_timeout(good, 60);
    tcase_add_checked_fixture(good, set_up, tear_down);
    tcase_add_test(good, the_page_is_there_for_both_versions_and_names);
    tcase_add_test(good, a_head_has_no_body);
    tcase_add_test(good, a_request_may_come_byte_by_byte);
    tcase_add_test(good, a_client_that_has_said_all_still_hears_the_answer);
    tcase_add_test(good, a_page_of_any_length_comes_whole);
    tcase_add_test(good, clients_one_after_the_other_are_no_limit);
    tcase_add_test(good, a_page_that_cannot_be_made_is_said_so);
    suite_add_tcase(suite, good);
    TCase *bad = tcase_create("bad");
    tcase_set_timeout(bad, 60);
    tcase_add_checked_fixture(bad, set_up, tear_down);
    tcase_add_test(bad, what_is_no_request_for_the_page_is_refused);
    tcase_add_test(bad, a_zero_byte_hides_nothing);
    tcase_add_test(bad, a_request_without_an_end_is_refused_at_its_limit);
    tcase_add_test(bad, a_client_that_ends_in_the_middle_is_told);
    tcase_add_test(bad, a_second_request_gets_nothing);
    tcase_add_test(bad, a_silent_client_is_dropped_in_time);
    tcase_add_test(bad, a_client_that_drips_is_dropped_in_time);
    tcase_add_test(bad, a_client_that_does_not_read_is_dropped_in_time);
    tcase_add_test(bad, so_many_clients_and_no_more);
    tcase_add_test(bad, who_goes_away_at_any_moment_leaves_nothing);
    tcase_add_test(bad, random_bytes_do_no_harm);
    suite_add_tcase(suite, bad);
    TCase *door = tcase_create("door");
    tcase_set_timeout(door, 60);
    tcase_add_checked_fixture(door, set_up, tear_down);
    tcase_add_test(door, only_its_owner_can_open_the_socket);
    tcase_add_test(door, others_are_sent_away);
    tcase_add_test(door, a_path_that_cannot_be_is_said_so);
    tcase_add_test(door, the_end_does_not_wait_for_clients);
    suite_add_tcase(suite, door);
    return unit_main(suite);
}
