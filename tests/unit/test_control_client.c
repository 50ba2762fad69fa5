/* SPDX-License-Identifier: MIT */
#include "tests/unit/control_rig.h"

START_TEST(the_client_brings_answers_errors_and_hints)
{
    struct rig rig;
    struct control_client *client;
    struct err err = {0};
    json_t *answer;
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, 0, &err), 0);
    ck_assert_int_eq(control_call(client, "echo", json_pack("{s:s}", "a", "b"), &answer, &err), 0);
    ck_assert_str_eq(json_string_value(json_object_get(answer, "a")), "b");
    ck_assert_uint_eq(json_object_size(answer), 1);
    json_decref(answer);
    ck_assert_int_eq(control_call(client, "fail", NULL, &answer, &err), -EREMOTEIO);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, "web1 is of"));
    ck_assert_str_eq(err.hint, "leave it");
    /* What would not fit is not sent, and the connection lives. */
    char *line = calloc(1, CONTROL_MAX_LINE + 1);
    memset(line, 'x', CONTROL_MAX_LINE);
    int ret = control_call(client, "echo", json_pack("{s:s}", "a", line), &answer, &err);
    ck_assert_int_eq(ret, -EMSGSIZE);
    ck_assert_int_eq(err.kind, ERR_USAGE);
    ck_assert_int_eq(control_call(client, "count", NULL, NULL, &err), 0);
    free(line);
    control_disconnect(client);
    control_disconnect(NULL);
    rig_finish(&rig);
}
END_TEST

START_TEST(an_answer_that_is_late_is_a_timeout_and_does_not_become_that_of_the_next_question)
{
    struct rig rig;
    struct control_client *client;
    struct err err = {0};
    json_t *answer;
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, 30, &err), 0);
    ck_assert_int_eq(control_call(client, "defer", NULL, &answer, &err), -ETIMEDOUT);
    ck_assert_int_eq(err.kind, ERR_TIMEOUT);
    rig_wait(&rig);
    on_loop(&rig, answer_deferred, 0);
    int ret;
    do /* the limit of 30 ms may be too short for a busy host */
        ret = control_call(client, "echo", json_pack("{s:i}", "a", 1), &answer, &err);
    while (ret == -ETIMEDOUT);
    ck_assert_int_eq(ret, 0);
    ck_assert_ptr_nonnull(json_object_get(answer, "a"));
    json_decref(answer);
    control_disconnect(client);
    rig_finish(&rig);
}
END_TEST

START_TEST(events_that_come_before_an_answer_are_kept_in_order_and_bounded)
{
    struct rig rig;
    struct control_client *client;
    json_t *event;
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, PATIENCE_MS, NULL), 0);
    ck_assert_int_eq(control_call(client, "watch", NULL, NULL, NULL), 0);
    ck_assert_int_eq(control_next_event(client, 1, &event, NULL), -ETIMEDOUT);
    ck_assert_int_eq(control_call(client, "shout", json_pack("{s:i}", "times", 1030), NULL, NULL),
                     0);
    for (int i = 6; i < 1030; i++) { /* the newest 1024 */
        ck_assert_int_eq(control_next_event(client, 1, &event, NULL), 0);
        ck_assert_int_eq(json_integer_value(json_object_get(event, "number")), i);
        json_decref(event);
    }
    on_loop(&rig, tell_paused, 77);
    ck_assert_int_eq(control_next_event(client, 0, &event, NULL), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(event, "number")), 77);
    json_decref(event);
    rig_halt(&rig);
    control_destroy(rig.control);
    rig.control = NULL;
    struct err err = {0};
    ck_assert_int_eq(control_next_event(client, PATIENCE_MS, &event, &err), -EPIPE);
    ck_assert_ptr_nonnull(strstr(err.text, "has ended"));
    ck_assert_int_eq(control_call(client, "count", NULL, NULL, &err), -EPIPE);
    control_disconnect(client);
    ck_assert_int_eq(control_connect(&client, rig.path, 0, &err), -ENOENT);
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    rig_finish(&rig);
}
END_TEST

struct heard {
    int count, most; /* the call is to end after so many */
};

static bool handle_heard(void *ctx, const json_t *event)
{
    struct heard *heard = ctx;
    ck_assert_int_eq(json_integer_value(json_object_get(event, "number")), heard->count);
    return ++heard->count < heard->most;
}

START_TEST(events_can_be_heard_while_an_answer_is_waited_for)
{
    struct rig rig;
    struct control_client *client;
    struct heard heard = {.most = 100};
    json_t *event;
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, PATIENCE_MS, NULL), 0);
    control_hear(client, handle_heard, &heard);
    ck_assert_int_eq(control_call(client, "watch", NULL, NULL, NULL), 0);
    ck_assert_int_eq(control_call(client, "shout", json_pack("{s:i}", "times", 5), NULL, NULL), 0);
    ck_assert_int_eq(heard.count, 5);
    ck_assert_int_eq(control_next_event(client, 1, &event, NULL), -ETIMEDOUT);
    heard = (struct heard){.most = 3};
    ck_assert_int_eq(control_call(client, "shout", json_pack("{s:i}", "times", 5), NULL, NULL),
                     -ECANCELED);
    ck_assert_int_eq(heard.count, 3);
    control_disconnect(client);
    rig_finish(&rig);
}
END_TEST

static void note_awaited(struct rig *rig, unsigned number)
{
    rig->served = control_is_awaited(rig->deferred[number]);
}

START_TEST(who_defers_can_see_whether_the_answer_is_still_wanted)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    int fd = raw_connect(rig.path);
    raw_say(fd, "{\"id\":1,\"verb\":\"defer\"}\n");
    rig_wait(&rig);
    on_loop(&rig, note_awaited, 0);
    ck_assert_uint_eq(rig.served, 1);
    close(fd);
    while (rig.served) /* until the loop has heard of it */
        on_loop(&rig, note_awaited, 0);
    on_loop(&rig, answer_deferred, 0);
    rig_finish(&rig);
}
END_TEST

START_TEST(an_answer_without_end_is_an_error_for_the_client)
{
    struct rig rig;
    struct control_client *client;
    struct err err = {0};
    json_t *answer;
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, PATIENCE_MS, &err), 0);
    int ret = control_call(client, "big", json_pack("{s:i}", "size", 17 << 20), &answer, &err);
    ck_assert_int_eq(ret, -EMSGSIZE);
    control_disconnect(client);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_released_client_is_a_descriptor_with_what_came_early)
{
    struct rig rig;
    struct control_client *client;
    void *early;
    size_t length;
    char bytes[16];
    rig_make(&rig);
    rig_start(&rig);
    ck_assert_int_eq(control_connect(&client, rig.path, PATIENCE_MS, NULL), 0);
    ck_assert_int_eq(control_call(client, "console", NULL, NULL, NULL), 0);
    rig_wait(&rig);
    ck_assert_int_eq(write(rig.console, "boot", 4), 4);
    int fd = control_release(client, &early, &length);
    ck_assert_int_ge(fd, 0);
    size_t got = length + (length < 4 ? raw_receive(fd, bytes, sizeof(bytes)) : 0);
    ck_assert_uint_eq(got, 4);
    free(early);
    close(fd);
    rig_finish(&rig);
}
END_TEST

/* A listener that nobody serves and whose door is full. */
START_TEST(connecting_has_a_limit_too)
{
    struct rig rig;
    struct control_client *clients[CONTROL_MAX_CLIENTS + 2];
    struct err err = {0};
    unsigned count = 0;
    int ret = 0;
    rig_make(&rig);
    while (count < array_size(clients) &&
           (ret = control_connect(&clients[count], rig.path, 20, &err)) == 0)
        count++;
    ck_assert_int_eq(ret, -ETIMEDOUT);
    ck_assert_int_eq(err.kind, ERR_TIMEOUT);
    while (count > 0)
        control_disconnect(clients[--count]);
    rig_finish(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control_client");
    TCase *tcase = tcase_create("control_client");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, the_client_brings_answers_errors_and_hints);
    tcase_add_test(
        tcase, an_answer_that_is_late_is_a_timeout_and_does_not_become_that_of_the_next_question);
    tcase_add_test(tcase, events_that_come_before_an_answer_are_kept_in_order_and_bounded);
    tcase_add_test(tcase, events_can_be_heard_while_an_answer_is_waited_for);
    tcase_add_test(tcase, who_defers_can_see_whether_the_answer_is_still_wanted);
    tcase_add_test(tcase, an_answer_without_end_is_an_error_for_the_client);
    tcase_add_test(tcase, a_released_client_is_a_descriptor_with_what_came_early);
    tcase_add_test(tcase, connecting_has_a_limit_too);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
