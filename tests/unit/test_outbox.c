/* SPDX-License-Identifier: MIT */
/*
 * The outbox of an instance whose guest prints line after line, while epochs end and are allowed.
 * What each way out does by itself is in test_netif_gate.c, test_console_gate.c, test_vsock_gate.c.
 */
#include "core/clock.h"
#include "ft/outbox.h"
#include "tests/unit/machines.h"
#include "vmm/control.h"
#include "vmm/instance.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdatomic.h>
#include <unistd.h>

enum { LINES = 40, TURN_NS = 3000000 };

/* What the test does in each turn of its timer. */
enum manner { EPOCHS, OPEN_IN_THE_MIDDLE, SHUT_IN_THE_MIDDLE };

struct trial {
    char path[40];
    struct folder folder;
    struct definition *definition;
    struct identity identity;
    struct instance *instance;
    struct outbox *outbox;
    struct loop_timer timer;
    enum manner manner;
    uint64_t number, epochs;
    atomic_uint waits;
    char seen[8192];
    _Atomic size_t seen_count;
    size_t shut_at;
};

static struct trial trial;

static void handle_waits(void *ctx, bool urgent)
{
    trial.waits++;
}

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    ck_assert_uint_lt(trial.seen_count + length, sizeof(trial.seen));
    memcpy(trial.seen + trial.seen_count, bytes, length);
    trial.seen_count += length;
}

static void handle_input_room(void *ctx)
{
}

/* --- the instance's part ---------------------------------------------------------------------- */

static void arm(void)
{
    ck_assert_int_eq(loop_timer_arm(&trial.timer, clock_monotonic_ns() + TURN_NS), 0);
}

/* Ends the epoch, lets the guest go on, and allows only then what it had printed before. */
static void turn_epoch(void)
{
    struct machine *machine = instance_machine(trial.instance);
    size_t before = trial.seen_count;
    machine_pause(machine);
    size_t promised = before + outbox_held(trial.outbox);
    outbox_mark(trial.outbox, ++trial.number);
    machine_resume(machine);
    ck_assert_uint_eq(trial.seen_count, before);
    outbox_release(trial.outbox, trial.number - 1);
    ck_assert_uint_eq(trial.seen_count, promised);
    trial.epochs++;
}

static void handle_timer(void *arg)
{
    unsigned waits = trial.waits;
    if (waits > 0) {
        ck_assert_uint_eq(waits, 1); /* once for each epoch: there is one way out */
        trial.waits = 0;
        turn_epoch();
    }
    if (trial.epochs == 5 && trial.manner == OPEN_IN_THE_MIDDLE)
        outbox_open(trial.outbox);
    if (trial.epochs == 5 && trial.manner == SHUT_IN_THE_MIDDLE && !trial.shut_at) {
        outbox_shut(trial.outbox);
        trial.shut_at = trial.seen_count;
    }
    arm();
}

static int begin(void *ctx, struct instance *instance, struct err *err)
{
    trial.instance = instance;
    int ret = outbox_create(&trial.outbox, instance, handle_waits, NULL, err);
    if (ret < 0)
        return ret;
    outbox_hold(trial.outbox, trial.number, 1 << 20);
    loop_timer_init(&trial.timer, instance_loop(instance), handle_timer, NULL);
    arm();
    return 0;
}

static void abandon(void *ctx)
{
    if (trial.outbox)
        loop_timer_cancel(&trial.timer);
    outbox_destroy(trial.outbox);
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
    trial = (struct trial){.number = 1};
    strcpy(trial.path, "/tmp/minivmm-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(trial.path));
    ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", trial.path, 1), 0);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    return remove(path);
}

static void tear_down(void)
{
    definition_destroy(trial.definition);
    identity_finish(&trial.identity);
    folder_close(&trial.folder);
    nftw(trial.path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void write_definition(const char *nets)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/vm.json", trial.path);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "{\"boot\": {\"kernel\": \"%s/counter.elf\", \"cmdline\": \"lines=%d\"}, \"memory\": "
            "\"8M\","
            " \"vsock\": true%s}",
            GUEST_DIR, LINES, nets);
    ck_assert_int_eq(fclose(file), 0);
}

static int make_instance(const char *nets, bool has_folder, struct err *err)
{
    enum identity_found found;
    struct instance_config config = {.identity = &trial.identity,
                                     .name = "web1",
                                     .folder = has_folder ? &trial.folder : NULL,
                                     .exit_port = true,
                                     .part = &part,
                                     .output = handle_output,
                                     .input_room = handle_input_room};
    write_definition(nets);
    int ret = folder_open(&trial.folder, trial.path, err);
    if (ret == 0)
        ret = folder_lock(&trial.folder, err);
    if (ret == 0)
        ret = definition_load(&trial.definition, trial.path, NULL, err);
    if (ret == 0)
        ret = identity_settle(&trial.identity, &trial.folder, false, &found, err);
    ck_assert_msg(ret == 0, "%s", err->text);
    config.definition = trial.definition;
    return instance_create(&trial.instance, &config, err);
}

static void run(enum manner manner)
{
    struct machine_end end;
    struct err err = {0};
    trial.manner = manner;
    int ret = make_instance(", \"nets\": []", true, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ret = instance_run(trial.instance, &end, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_int_eq(end.outcome, MACHINE_EXIT);
    ck_assert_uint_eq(end.code, 0);
}

/* All that the guest has printed, once and in order. */
static void expect_all(const char *text)
{
    char line[40];
    for (unsigned i = 1; i <= LINES; i++) {
        size_t length = (size_t)snprintf(line, sizeof(line), "count %u", i);
        text = strstr(text, "count ");
        ck_assert_ptr_nonnull(text);
        ck_assert_mem_eq(text, line, length);
        text += length;
    }
    ck_assert_ptr_null(strstr(text, "count "));
}

static void read_log(char *text, size_t size)
{
    int fd = openat(trial.folder.fd, FOLDER_CONSOLE, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ssize_t got = read(fd, text, size - 1);
    ck_assert_int_ge(got, 0);
    text[got] = '\0';
    close(fd);
}

START_TEST(nothing_is_seen_before_its_epoch_is_allowed)
{
    char log[sizeof(trial.seen)];
    run(EPOCHS);
    ck_assert_uint_gt(trial.epochs, 5);
    outbox_release(trial.outbox, trial.number);
    ck_assert_uint_eq(outbox_held(trial.outbox), 0);
    instance_destroy(trial.instance);
    expect_all(trial.seen);
    read_log(log, sizeof(log));
    ck_assert_str_eq(log, trial.seen);
}
END_TEST

START_TEST(an_opened_outbox_holds_nothing)
{
    run(OPEN_IN_THE_MIDDLE);
    ck_assert_uint_eq(trial.epochs, 5);
    ck_assert_uint_eq(outbox_held(trial.outbox), 0);
    expect_all(trial.seen);
    instance_destroy(trial.instance);
}
END_TEST

START_TEST(a_shut_outbox_lets_nothing_out)
{
    run(SHUT_IN_THE_MIDDLE);
    ck_assert_uint_gt(trial.shut_at, 0);
    outbox_release(trial.outbox, UINT64_MAX);
    outbox_open(trial.outbox);
    instance_destroy(trial.instance);
    ck_assert_uint_eq(trial.seen_count, trial.shut_at);
}
END_TEST

/* Its connections would end with this host. */
START_TEST(a_network_that_cannot_move_is_refused_with_the_way_out)
{
    struct err err = {0};
    ck_assert_int_lt(make_instance("", true, &err), 0);
    ck_assert_msg(strstr(err.text, "ends in this host"), "%s", err.text);
    ck_assert_msg(strstr(err.hint, "bridge"), "%s", err.hint);
}
END_TEST

START_TEST(an_image_by_itself_is_refused)
{
    struct err err = {0};
    ck_assert_int_lt(make_instance(", \"nets\": []", false, &err), 0);
    ck_assert_msg(strstr(err.text, "cannot be held"), "%s", err.text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outbox");
    TCase *tcase = tcase_create("outbox");

    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, nothing_is_seen_before_its_epoch_is_allowed);
    tcase_add_test(tcase, an_opened_outbox_holds_nothing);
    tcase_add_test(tcase, a_shut_outbox_lets_nothing_out);
    tcase_add_test(tcase, a_network_that_cannot_move_is_refused_with_the_way_out);
    tcase_add_test(tcase, an_image_by_itself_is_refused);
    suite_add_tcase(suite, tcase);
    return unit_main_with_kvm(suite, "outbox");
}
