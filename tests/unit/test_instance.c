/* SPDX-License-Identifier: MIT */
/* An instance whose guest crashes and starts again, while somebody holds it. */
#include "tests/unit/machines.h"
#include "vmm/control.h"
#include "vmm/instance_parts.h"
#include "vmm/journal.h"

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

enum { TURN_NS = 3000000 };

static struct {
    char path[40];
    struct folder folder;
    struct definition *definition;
    struct identity identity;
    struct instance *instance;
    struct loop_timer timer;
    bool holds, held, ran;
    bool is_paused;
    unsigned step;
} t;

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
}

static void handle_input_room(void *ctx)
{
}

/* --- the instance's part ---------------------------------------------------------------------- */

static void arm(void)
{
    ck_assert_int_eq(loop_timer_arm(&t.timer, clock_monotonic_ns() + TURN_NS), 0);
}

static unsigned count_starts(void)
{
    char text[4096];
    unsigned count = 0;
    int fd = openat(t.folder.fd, FOLDER_JOURNAL, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ssize_t length = read(fd, text, sizeof(text) - 1);
    close(fd);
    ck_assert_int_ge(length, 0);
    text[length] = '\0';
    for (const char *at = text; (at = strstr(at, "\"start\"")); at++)
        count++;
    return count;
}

/* It is held while it waits for its new start, and let go when that has come. */
static void handle_timer(void *arg)
{
    bool waits = strcmp(instance_state(t.instance), "restarting") == 0;
    if (waits && t.held) {
        instance_stop(t.instance, "test");
    } else if (waits && !t.holds) {
        instance_hold(t.instance, "held");
        t.holds = true;
    } else if (t.holds && !t.held && count_starts() == 2) {
        t.ran = machine_runs(instance_machine(t.instance));
        t.held = true;
        instance_release(t.instance);
    }
    arm();
}

/* Paused while it waits for its new start, held when that is due, and resumed by a person before it
 * is let go. */
static void handle_paused_timer(void *arg)
{
    bool waits = strcmp(instance_state(t.instance), "restarting") == 0;
    if (waits && t.step == 0) {
        instance_pause(t.instance, "test");
        t.step = 1;
    } else if (t.step == 1 && t.instance->restart_is_due) {
        instance_hold(t.instance, "held");
        instance_resume(t.instance, "test");
        instance_release(t.instance);
        t.step = 2;
    } else if (waits && t.step == 2 && count_starts() == 2) {
        instance_stop(t.instance, "test");
    }
    arm();
}

static int begin(void *ctx, struct instance *instance, struct err *err)
{
    t.instance = instance;
    loop_timer_init(&t.timer, instance_loop(instance),
                    t.is_paused ? handle_paused_timer : handle_timer, NULL);
    arm();
    return 0;
}

static void abandon(void *ctx)
{
    loop_timer_cancel(&t.timer);
}

static void finish(void *ctx)
{
}

static const struct control_verb no_verbs[] = {{NULL, NULL}};
static const struct instance_part part = {
    .verbs = no_verbs, .begin = begin, .abandon = abandon, .finish = finish};

/* --- an instance ------------------------------------------------------------------------------ */

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    strcpy(t.path, "/tmp/minivmm-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(t.path));
    ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", t.path, 1), 0);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    return remove(path);
}

static void tear_down(void)
{
    definition_destroy(t.definition);
    identity_finish(&t.identity);
    folder_close(&t.folder);
    nftw(t.path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void write_definition(void)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/vm.json", t.path);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "{\"boot\": {\"kernel\": \"%s/triple.elf\"}, \"memory\": \"8M\", \"nets\": [],"
            " \"restart\": \"on-failure\"}",
            GUEST_DIR);
    ck_assert_int_eq(fclose(file), 0);
}

static int make_instance(struct err *err)
{
    enum identity_found found;
    struct instance_config config = {.identity = &t.identity,
                                     .name = "web1",
                                     .folder = &t.folder,
                                     .part = &part,
                                     .output = handle_output,
                                     .input_room = handle_input_room};
    write_definition();
    int ret = folder_open(&t.folder, t.path, err);
    if (ret == 0)
        ret = folder_lock(&t.folder, err);
    if (ret == 0)
        ret = definition_load(&t.definition, t.path, NULL, err);
    if (ret == 0)
        ret = identity_settle(&t.identity, &t.folder, false, &found, err);
    config.definition = t.definition;
    return ret == 0 ? instance_create(&t.instance, &config, err) : ret;
}

/* Whoever holds it reads its state, or has given it away. */
START_TEST(who_is_held_does_not_start_again)
{
    struct machine_end end;
    struct err err = {0};
    int ret = make_instance(&err);
    if (ret == 0)
        ret = instance_run(t.instance, &end, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert(t.held && !t.ran);
    ck_assert_uint_eq(count_starts(), 2); /* when it was let go it ran, and crashed again */
    instance_destroy(t.instance);
}
END_TEST

/* Whoever let it go on while it was held meant what comes after that, too. */
START_TEST(who_was_resumed_while_held_starts_again)
{
    struct machine_end end;
    struct err err = {0};
    t.is_paused = true;
    int ret = make_instance(&err);
    if (ret == 0)
        ret = instance_run(t.instance, &end, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_uint_eq(count_starts(), 2);
    instance_destroy(t.instance);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("instance");
    TCase *tcase = tcase_create("instance");

    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, who_is_held_does_not_start_again);
    tcase_add_test(tcase, who_was_resumed_while_held_starts_again);
    suite_add_tcase(suite, tcase);
    return unit_main_with_kvm(suite, "instance");
}
