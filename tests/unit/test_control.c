/* SPDX-License-Identifier: MIT */
#include "tests/unit/control_rig.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* --- requests and answers ----------------------------------------------------------------- */

START_TEST(a_request_gets_its_answer_under_its_id)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\": 7, \"verb\": \"echo\", \"a\": [1]}\n");
    raw_expect(fd, "{\"id\":7,\"ok\":{\"a\":[1]}}");
    raw_say(fd, "{\"verb\": \"count\", \"id\": \"x\"}\r\n{\"verb\": \"count\"}\n");
    raw_expect(fd, "{\"id\":\"x\",\"ok\":{}}");
    raw_expect(fd, "{\"id\":null,\"ok\":{}}");
    raw_say(fd, "{\"id\":1,\"verb\":\"verbs\"}\n");
    raw_expect(fd, "{\"id\":1,\"ok\":{\"verbs\":[\"verbs\",\"watch\",\"echo\",\"big\",\"fail\","
                   "\"count\",\"mark\",\"defer\",\"shout\",\"console\"]}}");
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_wrong_request_is_an_error_and_the_connection_goes_on)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"ehco\"}\n");
    raw_expect(fd, "{\"id\":1,\"error\":{\"code\":2,\"text\":\"the verb \\\"ehco\\\" is not "
                   "known\",\"hint\":\"did you mean \\\"echo\\\"?\"}}");
    raw_say(fd, "{\"id\":2,\"verb\":\"watch\",\"al\":1}\n");
    raw_expect(fd, "{\"id\":2,\"error\":{\"code\":2,\"text\":\"the argument \\\"al\\\" is not "
                   "known\"}}");
    raw_say(fd, "{\"id\":{},\"verb\":\"echo\"}\n");
    raw_expect(fd, "{\"id\":null,\"error\":{\"code\":2,\"text\":\"an id is a whole number or a "
                   "string\"}}");
    raw_say(fd, "{\"id\":3,\"verb\":4}\n{}\n");
    raw_expect(fd, "{\"id\":3,\"error\":{\"code\":2,\"text\":\"a request has a \\\"verb\\\", "
                   "which is a string\"}}");
    raw_expect(fd, "{\"id\":null,\"error\":{\"code\":2,\"text\":\"a request has a \\\"verb\\\", "
                   "which is a string\"}}");
    raw_say(fd, "{\"id\":5,\"verb\":\"fail\",\"silently\":1}\n");
    raw_expect(fd, "{\"id\":5,\"error\":{\"code\":1,\"text\":\"fail: Input/output error\"}}");
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(arguments_are_checked_with_the_nearest_word)
{
    static const char *const known[] = {"timeout", "force", NULL};
    struct err err;
    json_t *good = json_pack("{s:i, s:b}", "timeout", 3, "force", 1);
    json_t *bad = json_pack("{s:i, s:b}", "timeout", 3, "froce", 1);
    ck_assert_int_eq(control_check_keys(good, known, &err), 0);
    ck_assert_int_eq(control_check_keys(bad, known, &err), -EINVAL);
    ck_assert_int_eq(err.kind, ERR_USAGE);
    ck_assert_str_eq(err.text, "the argument \"froce\" is not known");
    ck_assert_str_eq(err.hint, "did you mean \"force\"?");
    json_decref(good);
    json_decref(bad);
}
END_TEST

START_TEST(a_text_that_is_no_utf8_is_mended_and_not_lost)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"fail\"}\n");
    raw_expect(fd,
               "{\"id\":1,\"error\":{\"code\":4,\"text\":\"web1 is of \xc3\xa4, \xef\xbf\xbd and "
               "\xef\xbf\xbd\xef\xbf\xbd made\",\"hint\":\"leave it\"}}");
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_deferred_answer_holds_up_its_own_connection_and_no_other)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int slow = raw_connect(rig.path), quick = raw_connect(rig.path);
    raw_say(slow, "{\"id\":1,\"verb\":\"defer\"}\n{\"id\":2,\"verb\":\"count\"}\n"
                  "{\"id\":3,\"verb\":\"defer\"}\n{\"id\":4,\"verb\":\"echo\"}\n");
    rig_wait(&rig);
    for (int i = 0; i < 3; i++) {
        raw_say(quick, "{\"id\":1,\"verb\":\"echo\"}\n");
        raw_expect(quick, "{\"id\":1,\"ok\":{}}");
    }
    raw_say(slow, "{\"id\":5,\"verb\":\"echo\"}\n"); /* read later */
    raw_say(quick, "{\"id\":2,\"verb\":\"mark\"}\n");
    raw_expect(quick, "{\"id\":2,\"ok\":{}}");
    on_loop(&rig, answer_deferred, 0);
    raw_expect(slow, "{\"id\":1,\"ok\":{\"late\":0}}");
    raw_expect(slow, "{\"id\":2,\"ok\":{}}");
    rig_wait(&rig);
    on_loop(&rig, answer_deferred, 1);
    raw_expect(slow, "{\"id\":3,\"ok\":{\"late\":1}}");
    raw_expect(slow, "{\"id\":4,\"ok\":{}}");
    raw_expect(slow, "{\"id\":5,\"ok\":{}}");
    close(slow);
    close(quick);
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served_before_mark, 0); /* 2 was not served while 1 was deferred */
    ck_assert_uint_eq(rig.served, 1);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_request_may_be_answered_inside_of_its_handler)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"defer\",\"short\":1}\n{\"id\":2,\"verb\":\"echo\"}\n");
    raw_expect(fd, "{\"id\":1,\"ok\":\"at once\"}");
    raw_expect(fd, "{\"id\":2,\"ok\":{}}");
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_client_that_goes_leaves_its_deferred_request_to_be_answered_into_the_void)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"defer\"}\n{\"id\":2,\"verb\":\"count\"}\n");
    rig_wait(&rig);
    close(fd);
    fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"echo\"}\n"); /* by now the other's end was noticed */
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    on_loop(&rig, answer_deferred, 0);
    raw_say(fd, "{\"id\":1,\"verb\":\"echo\"}\n");
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    close(fd);
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served, 0); /* what nobody waits for is not begun */
    rig_finish(&rig);
}
END_TEST

START_TEST(the_end_answers_deferred_requests_and_later_answers_do_no_harm)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path), watcher = raw_connect(rig.path), silent = raw_connect(rig.path);
    raw_say(watcher, "{\"id\":1,\"verb\":\"watch\"}\n");
    raw_expect(watcher, "{\"id\":1,\"ok\":{}}");
    raw_say(fd, "{\"id\":9,\"verb\":\"defer\"}\n{\"id\":10,\"verb\":\"count\"}\n");
    rig_wait(&rig);
    rig_halt(&rig);
    control_destroy(rig.control);
    rig.control = NULL;
    raw_expect(fd,
               "{\"id\":9,\"error\":{\"code\":4,\"text\":\"the VM ended before this was done\"}}");
    raw_expect_end(fd);
    raw_expect_end(watcher);
    raw_expect_end(silent);
    answer_deferred(&rig, 0);
    close(fd);
    close(watcher);
    close(silent);
    rig_finish(&rig);
    control_destroy(NULL);
}
END_TEST

/* --- hostile clients ---------------------------------------------------------------------- */

START_TEST(what_is_no_object_is_an_error_and_the_end_of_the_connection)
{
    static const struct {
        const char *bytes;
        size_t length;
    } garbage[] = {
        {"\n", 1},
        {"hello\n", 6},
        {"[]\n", 3},
        {"7\n", 2},
        {"{\"verb\":\"count\"\n", 16},
        {"{\"verb\":\"count\"} {}\n", 20},
        {"{\"verb\":\"count\",\"verb\":\"count\"}\n", 32},
        {"{\"verb\":\"co\0nt\"}\n", 17},
        {"{\"verb\":\"co\\u0000nt\"}\n", 22},
        {"\0\0\0\0\n", 5},
        {"{\"verb\":\"\xff\xfe\"}\n", 14},
        {"{\"id\":99999999999999999999,\"verb\":\"count\"}\n", 43},
    };
    struct rig rig;
    char line[1000];
    rig_make(&rig);
    rig_start(&rig);
    for (size_t i = 0; i < array_size(garbage); i++) {
        int fd = raw_connect(rig.path);
        raw_say(fd, "{\"id\":1,\"verb\":\"echo\"}\n");
        ck_assert(raw_send(fd, garbage[i].bytes, garbage[i].length));
        (void)raw_send(fd, "{\"verb\":\"count\"}\n", 17); /* comes too late */
        raw_expect(fd, "{\"id\":1,\"ok\":{}}");
        raw_line(fd, line, sizeof(line));
        ck_assert_msg(strstr(line, "{\"id\":null,\"error\":{\"code\":2,") == line, "%zu: %s", i,
                      line);
        raw_expect_end(fd);
        close(fd);
    }
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served, 0);
    rig_finish(&rig);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
    struct rig rig;
    char *deep = malloc(CONTROL_MAX_LINE);
    char line[1000];
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    memset(deep, '[', CONTROL_MAX_LINE);
    memcpy(deep, "{\"a\":", 5);
    deep[CONTROL_MAX_LINE - 1] = '\n';
    ck_assert(raw_send(fd, deep, CONTROL_MAX_LINE));
    raw_line(fd, line, sizeof(line));
    ck_assert_msg(strstr(line, "depth") != NULL, "%s", line);
    raw_expect_end(fd);
    close(fd);
    free(deep);
    rig_finish(&rig);
}
END_TEST

/* A request of exactly that many bytes, newline included. */
static char *make_line(size_t length)
{
    char *line = malloc(length);
    memset(line, ' ', length);
    memcpy(line, "{\"id\":1,\"verb\":\"echo\"}", 22);
    line[length - 1] = '\n';
    return line;
}

START_TEST(a_line_has_at_most_so_many_bytes)
{
    struct rig rig;
    char *line = make_line(CONTROL_MAX_LINE + 1), *rest = make_line(1 << 20);
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    for (int i = 0; i < 3; i++) {
        ck_assert(raw_send(fd, line, CONTROL_MAX_LINE + 1));
        raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    }
    ck_assert(raw_send(fd, line, CONTROL_MAX_LINE)); /* and no newline */
    raw_say(fd, "}");
    raw_expect(fd,
               "{\"id\":null,\"error\":{\"code\":2,\"text\":\"a line has at most 65536 bytes\"}}");
    raw_expect_end(fd);
    close(fd);

    fd = raw_connect(rig.path);
    ck_assert(!raw_send(fd, rest, (1 << 20) - 1)); /* hung up long before that */
    raw_expect(fd,
               "{\"id\":null,\"error\":{\"code\":2,\"text\":\"a line has at most 65536 bytes\"}}");
    raw_expect_end(fd);
    close(fd);
    free(line);
    free(rest);
    rig_finish(&rig);
}
END_TEST

START_TEST(half_a_line_at_the_end_is_not_done_and_those_before_are)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd,
            "{\"id\":1,\"verb\":\"defer\"}\n{\"id\":2,\"verb\":\"count\"}\n{\"verb\":\"count\"}");
    shutdown(fd, SHUT_WR);
    rig_wait(&rig);
    on_loop(&rig, answer_deferred, 0);
    raw_expect(fd, "{\"id\":1,\"ok\":{\"late\":0}}");
    raw_expect(fd, "{\"id\":2,\"ok\":{}}");
    raw_expect_end(fd);
    close(fd);
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served, 1);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_request_may_come_byte_by_byte)
{
    static const char request[] = "{\"id\":1,\"verb\":\"echo\"}\n{\"id\":2,\"verb\":\"echo\"}\n";
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    for (size_t i = 0; i < sizeof(request) - 1; i++)
        ck_assert(raw_send(fd, request + i, 1));
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    raw_expect(fd, "{\"id\":2,\"ok\":{}}");
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(who_asks_a_lot_gets_it_all_and_lets_others_in_between)
{
    struct rig rig;
    enum { LOT = 3000 };
    static const char request[] = "{\"verb\":\"count\"}\n";
    rig_make(&rig);
    int greedy = raw_connect(rig.path), modest = raw_connect(rig.path);
    char *lot = malloc(LOT * sizeof(request));
    for (size_t i = 0; i < LOT; i++)
        memcpy(lot + i * (sizeof(request) - 1), request, sizeof(request));
    raw_say(greedy, lot); /* in one piece: many small ones would not fit into the socket */
    free(lot);
    raw_say(modest, "{\"id\":1,\"verb\":\"mark\"}\n");
    rig_start(&rig);
    raw_expect(modest, "{\"id\":1,\"ok\":{}}");
    for (int i = 0; i < LOT; i++)
        raw_expect(greedy, "{\"id\":null,\"ok\":{}}");
    close(greedy);
    close(modest);
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served, LOT);
    ck_assert_uint_le(rig.served_before_mark, 64);
    rig_finish(&rig);
}
END_TEST

START_TEST(who_does_not_read_his_answers_is_hung_up_on)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int deaf = raw_connect(rig.path), other = raw_connect(rig.path);
    bool open = true;
    for (int i = 0; i < 200 && open; i++)
        open = raw_send(deaf, "{\"verb\":\"big\",\"size\":100000}\n", 30);
    /* It may all have fitted into the socket: then the end comes when it is read. */
    size_t got, total = 0;
    char bytes[4096];
    raw_say(other, "{\"id\":1,\"verb\":\"echo\"}\n");
    raw_expect(other, "{\"id\":1,\"ok\":{}}");
    struct pollfd io = {.fd = deaf, .events = 0}; /* until the hang-up */
    ck_assert_int_eq(poll(&io, 1, PATIENCE_MS), 1);
    while ((got = raw_receive(deaf, bytes, sizeof(bytes))) > 0)
        total += got;
    ck_assert_uint_lt(total, 4 << 20);
    close(deaf);
    close(other);
    rig_finish(&rig);
}
END_TEST

START_TEST(one_long_answer_reaches_who_reads_it)
{
    struct rig rig;
    struct control_client *client;
    json_t *answer;
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, PATIENCE_MS, NULL), 0);
    for (int i = 0; i < 3; i++) {
        int ret = control_call(client, "big", json_pack("{s:i}", "size", 5 << 20), &answer, NULL);
        ck_assert_int_eq(ret, 0);
        ck_assert_uint_eq(json_string_length(answer), 5 << 20);
        json_decref(answer);
    }
    control_disconnect(client);
    rig_finish(&rig);
}
END_TEST

START_TEST(clients_that_come_and_go_at_once_leave_nothing)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    for (int i = 0; i < 1000; i++) {
        int fd = raw_connect(rig.path);
        if (i % 3 == 0)
            raw_say(fd, "{\"verb\":\"big\",\"size\":10000}\n{\"verb\":\"watch\"}\n");
        if (i % 7 == 0)
            raw_say(fd, "{");
        close(fd);
    }
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"echo\"}\n");
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(the_newest_of_too_many_is_told_so_and_has_room_when_another_goes)
{
    struct rig rig;
    int fds[CONTROL_MAX_CLIENTS];
    rig_make(&rig);
    rig_start(&rig);
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        fds[i] = raw_connect(rig.path);
        raw_say(fds[i], "{\"id\":1,\"verb\":\"watch\"}\n");
        raw_expect(fds[i], "{\"id\":1,\"ok\":{}}");
        shutdown(fds[i], SHUT_WR); /* half closed, and still there */
    }
    int late = raw_connect(rig.path);
    raw_expect(late, "{\"id\":null,\"error\":{\"code\":4,\"text\":\"64 programs are connected "
                     "already, which is the most\"}}");
    raw_expect_end(late);
    close(late);
    for (int i = 0; i < CONTROL_MAX_CLIENTS; i++)
        close(fds[i]);
    bool in = false;
    while (!in) { /* their ends are heard of one by one */
        char line[200];
        late = raw_connect(rig.path);
        (void)raw_send(late, "{\"id\":1,\"verb\":\"echo\"}\n", 23);
        in = strcmp(raw_line(late, line, sizeof(line)), "{\"id\":1,\"ok\":{}}") == 0;
        close(late);
    }
    rig_finish(&rig);
}
END_TEST

START_TEST(when_descriptors_run_out_clients_wait_and_are_served_later)
{
    struct rig rig;
    struct rlimit limit;
    rig_make(&rig);
    int fd = raw_connect(rig.path), more[64], count = 0;
    rig_start(&rig);
    raw_say(fd, "{\"id\":1,\"verb\":\"echo\"}\n");
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    int late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)late + 4;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (count < 64 && (more[count] = dup(late)) >= 0)
        count++;
    ck_assert_int_lt(count, 64);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, rig.path, strlen(rig.path));
    ck_assert_int_eq(connect(late, (struct sockaddr *)&address, sizeof(address)), 0);
    raw_say(late, "{\"id\":2,\"verb\":\"echo\"}\n");
    raw_say(fd, "{\"id\":1,\"verb\":\"echo\"}\n"); /* the others are served meanwhile */
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    while (count > 0)
        close(more[--count]);
    raw_expect(late, "{\"id\":2,\"ok\":{}}");
    close(fd);
    close(late);
    rig_finish(&rig);
}
END_TEST

/* --- the door ----------------------------------------------------------------------------- */

START_TEST(the_socket_is_its_owners_alone_from_its_first_moment)
{
    struct rig rig;
    struct stat info;
    mode_t before = umask(0);
    rig_make(&rig);
    umask(before);
    ck_assert_int_eq(lstat(rig.path, &info), 0);
    ck_assert_uint_eq(info.st_mode, S_IFSOCK | 0600);
    rig_finish(&rig);
}
END_TEST

START_TEST(another_user_is_told_to_go_even_where_the_file_lets_him_in)
{
    struct rig rig;
    if (geteuid() != 0)
        return; /* only root can be somebody else */
    rig_make(&rig);
    ck_assert_int_eq(chmod(rig.folder, 0755), 0);
    ck_assert_int_eq(chmod(rig.path, 0666), 0);
    rig_start(&rig);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct control_client *client;
        struct err err = {0};
        if (setresuid(65534, 65534, 65534) < 0)
            _exit(2);
        if (control_connect(&client, rig.path, PATIENCE_MS, &err) < 0)
            _exit(3);
        int ret = control_call(client, "count", NULL, NULL, &err);
        _exit(ret == -EREMOTEIO && err.kind == ERR_STATE && strstr(err.text, "belongs to user 0")
                  ? 0
                  : 4);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served, 0);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_path_that_no_socket_can_have_is_an_error_with_a_hint)
{
    struct rig rig;
    struct control *control = NULL;
    struct err err = {0};
    char path[300];
    rig_make(&rig);
    snprintf(path, sizeof(path), "%s/%0150d", rig.folder, 1);
    ck_assert_int_eq(control_create(&control, rig.loop, path, rig_verbs, &rig, &err),
                     -ENAMETOOLONG);
    ck_assert_ptr_nonnull(strstr(err.text, "too long"));
    ck_assert_ptr_nonnull(strstr(err.hint, "XDG_RUNTIME_DIR"));

    /* What is there already is not ours to remove. */
    ck_assert_int_eq(control_create(&control, rig.loop, rig.path, rig_verbs, &rig, &err),
                     -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(err.text, rig.path));
    ck_assert_int_eq(access(rig.path, F_OK), 0);
    snprintf(path, sizeof(path), "%s/nowhere/sock", rig.folder);
    ck_assert_int_eq(control_create(&control, rig.loop, path, rig_verbs, &rig, &err), -ENOENT);
    ck_assert_ptr_null(control);
    rig_finish(&rig);
}
END_TEST

/* --- events ------------------------------------------------------------------------------- */

START_TEST(who_watches_gets_events_and_nobody_else)
{
    struct rig rig;
    char line[200];
    rig_make(&rig);
    rig_start(&rig);
    int watcher = raw_connect(rig.path), other = raw_connect(rig.path);
    raw_say(watcher, "{\"id\":1,\"verb\":\"watch\"}\n");
    raw_expect(watcher, "{\"id\":1,\"ok\":{}}");
    on_loop(&rig, tell_paused, 5);
    raw_line(watcher, line, sizeof(line));
    ck_assert_msg(strstr(line, "{\"event\":\"paused\",\"at\":") == line, "%s", line);
    ck_assert_msg(strstr(line, ",\"number\":5}") != NULL, "%s", line);
    ck_assert_uint_lt(strlen(line), 70); /* at: to the millisecond, without noise */
    raw_say(other, "{\"id\":1,\"verb\":\"shout\",\"times\":2}\n");
    raw_expect(other, "{\"id\":1,\"ok\":{}}");
    for (int i = 0; i < 2; i++) {
        char number[32];
        snprintf(number, sizeof(number), "\"number\":%d}", i);
        raw_line(watcher, line, sizeof(line));
        ck_assert_msg(strstr(line, number) != NULL, "%s", line);
        ck_assert_ptr_null(strstr(line, "no time")); /* "at" is the control's */
    }
    /* A watcher's own request, with an event in it. */
    raw_say(watcher, "{\"id\":2,\"verb\":\"shout\",\"times\":1}\n");
    raw_line(watcher, line, sizeof(line));
    ck_assert_ptr_nonnull(strstr(line, "shouted"));
    raw_expect(watcher, "{\"id\":2,\"ok\":{}}");
    close(watcher);
    close(other);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_watcher_that_does_not_read_is_hung_up_on_and_nobody_waits)
{
    struct rig rig;
    char line[300];
    rig_make(&rig);
    rig_start(&rig);
    int deaf = raw_connect(rig.path), awake = raw_connect(rig.path), other = raw_connect(rig.path);
    raw_say(deaf, "{\"id\":1,\"verb\":\"watch\"}\n");
    raw_expect(deaf, "{\"id\":1,\"ok\":{}}");
    raw_say(awake, "{\"id\":1,\"verb\":\"watch\"}\n");
    raw_expect(awake, "{\"id\":1,\"ok\":{}}");
    struct pollfd io = {.fd = deaf, .events = 0};
    while (poll(&io, 1, 0) == 0) {
        raw_say(other, "{\"id\":2,\"verb\":\"shout\",\"times\":500}\n");
        raw_expect(other, "{\"id\":2,\"ok\":{}}");
        for (int i = 0; i < 500; i++) {
            raw_line(awake, line, sizeof(line));
            ck_assert_ptr_nonnull(strstr(line, "shouted"));
        }
    }
    ck_assert(io.revents & POLLHUP);
    close(deaf);
    close(awake);
    close(other);
    rig_finish(&rig);
}
END_TEST

/* Who is lost by an event that his own request sent goes quietly at the end of his turn. */
START_TEST(a_watcher_may_drown_in_the_events_of_his_own_request)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path), other = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"watch\"}\n{\"verb\":\"shout\",\"times\":60000}\n"
                "{\"verb\":\"count\"}\n");
    struct pollfd io = {.fd = fd, .events = 0};
    ck_assert_int_eq(poll(&io, 1, PATIENCE_MS), 1);
    raw_say(other, "{\"id\":1,\"verb\":\"echo\"}\n");
    raw_expect(other, "{\"id\":1,\"ok\":{}}");
    close(fd);
    close(other);
    rig_halt(&rig);
    ck_assert_uint_eq(rig.served, 0);
    rig_finish(&rig);
}
END_TEST

/* --- the console -------------------------------------------------------------------------- */

START_TEST(after_console_the_connection_is_bytes_both_ways)
{
    struct rig rig;
    char bytes[16] = "";
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"watch\"}\n{\"id\":2,\"verb\":\"console\"}\nearly\n");
    raw_expect(fd, "{\"id\":1,\"ok\":{}}");
    raw_expect(fd, "{\"id\":2,\"ok\":{\"replay\":3}}");
    rig_wait(&rig);
    on_loop(&rig, tell_paused, 1); /* no event may come between its bytes */
    ck_assert_uint_eq(rig.early_length, 6);
    ck_assert_int_eq(memcmp(rig.early, "early\n", 6), 0);
    ck_assert_int_eq(fcntl(rig.console, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    ck_assert_int_eq(write(rig.console, "login: ", 7), 7);
    ck_assert_uint_eq(raw_receive(fd, bytes, sizeof(bytes)), 7);
    ck_assert_str_eq(bytes, "login: ");
    raw_say(fd, "root");
    ck_assert_uint_eq(raw_receive(rig.console, bytes, sizeof(bytes)), 4);
    close(fd);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_console_that_fails_after_it_was_taken_over_is_not_answered_twice)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":2,\"verb\":\"console\",\"late error\":1}\n");
    raw_expect(fd, "{\"id\":2,\"ok\":{\"replay\":3}}");
    rig_wait(&rig);
    rig_halt(&rig);
    close(rig.console);
    rig.console = -1;
    raw_expect_end(fd);
    close(fd);
    rig_finish(&rig);
}
END_TEST

static void take_deferred(struct rig *rig, unsigned number)
{
    void *early;
    struct err err;
    int ret = control_take_over(rig->deferred[number], NULL, &rig->console, &early,
                                &rig->early_length, &err);
    if (ret < 0)
        control_answer(rig->deferred[number], NULL, &err);
    else
        rig->early = early;
}

START_TEST(a_deferred_request_can_be_taken_over_and_one_of_a_client_that_has_gone_cannot)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":2,\"verb\":\"defer\"}\nls\n");
    rig_wait(&rig);
    close(raw_connect(rig.path));
    on_loop(&rig, take_deferred, 0);
    raw_expect(fd, "{\"id\":2,\"ok\":{}}");
    ck_assert_uint_eq(rig.early_length, 3);
    int other = raw_connect(rig.path);
    raw_say(other, "{\"id\":2,\"verb\":\"defer\"}\n");
    rig_wait(&rig);
    close(other);
    other = raw_connect(rig.path);
    raw_say(other, "{\"id\":1,\"verb\":\"echo\"}\n");
    raw_expect(other, "{\"id\":1,\"ok\":{}}");
    int before = rig.console;
    on_loop(&rig, take_deferred, 1);
    ck_assert_int_eq(rig.console, before);
    close(other);
    close(fd);
    rig_finish(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control");
    TCase *tcase = tcase_create("control");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, a_request_gets_its_answer_under_its_id);
    tcase_add_test(tcase, a_wrong_request_is_an_error_and_the_connection_goes_on);
    tcase_add_test(tcase, arguments_are_checked_with_the_nearest_word);
    tcase_add_test(tcase, a_text_that_is_no_utf8_is_mended_and_not_lost);
    tcase_add_test(tcase, a_deferred_answer_holds_up_its_own_connection_and_no_other);
    tcase_add_test(tcase, a_request_may_be_answered_inside_of_its_handler);
    tcase_add_test(tcase,
                   a_client_that_goes_leaves_its_deferred_request_to_be_answered_into_the_void);
    tcase_add_test(tcase, the_end_answers_deferred_requests_and_later_answers_do_no_harm);
    tcase_add_test(tcase, what_is_no_object_is_an_error_and_the_end_of_the_connection);
    tcase_add_test(tcase, deep_nesting_is_refused);
    tcase_add_test(tcase, a_line_has_at_most_so_many_bytes);
    tcase_add_test(tcase, half_a_line_at_the_end_is_not_done_and_those_before_are);
    tcase_add_test(tcase, a_request_may_come_byte_by_byte);
    tcase_add_test(tcase, who_asks_a_lot_gets_it_all_and_lets_others_in_between);
    tcase_add_test(tcase, who_does_not_read_his_answers_is_hung_up_on);
    tcase_add_test(tcase, one_long_answer_reaches_who_reads_it);
    tcase_add_test(tcase, clients_that_come_and_go_at_once_leave_nothing);
    tcase_add_test(tcase, the_newest_of_too_many_is_told_so_and_has_room_when_another_goes);
    tcase_add_test(tcase, when_descriptors_run_out_clients_wait_and_are_served_later);
    tcase_add_test(tcase, the_socket_is_its_owners_alone_from_its_first_moment);
    tcase_add_test(tcase, another_user_is_told_to_go_even_where_the_file_lets_him_in);
    tcase_add_test(tcase, a_path_that_no_socket_can_have_is_an_error_with_a_hint);
    tcase_add_test(tcase, who_watches_gets_events_and_nobody_else);
    tcase_add_test(tcase, a_watcher_that_does_not_read_is_hung_up_on_and_nobody_waits);
    tcase_add_test(tcase, a_watcher_may_drown_in_the_events_of_his_own_request);
    tcase_add_test(tcase, after_console_the_connection_is_bytes_both_ways);
    tcase_add_test(tcase, a_console_that_fails_after_it_was_taken_over_is_not_answered_twice);
    tcase_add_test(tcase,
                   a_deferred_request_can_be_taken_over_and_one_of_a_client_that_has_gone_cannot);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
