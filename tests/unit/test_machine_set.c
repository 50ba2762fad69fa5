/* SPDX-License-Identifier: MIT */
/* What somebody outside may change of a machine while its guest runs. */
#include "tests/unit/machines.h"

#include <unistd.h>

static void check_generation(const struct rig *rig, uint64_t number)
{
    char words[64];
    snprintf(words, sizeof(words), "generation %lx %lx\n", number, number + 1);
    size_t length = strlen(words);
    ck_assert_msg(rig->length >= length && strcmp(rig->text + rig->length - length, words) == 0,
                  "not %sbut %s", words, rig_tail(rig));
}

static void set_generation(struct rig *rig, uint64_t number)
{
    uint64_t id[2] = {number, number + 1};
    machine_set_generation(rig->machine, (const uint8_t *)id);
}

/* It changes while the guest runs; after a hop, as a copy's does; and stays over a mere hop. */
START_TEST(test_the_guest_hears_of_a_new_generation)
{
    struct rig rig;
    rig_init(&rig, "generation", 1, "changes=3");
    rig_run_until(&rig, 1, 0);
    set_generation(&rig, 0x1001);
    rig_run_until(&rig, 1, 0);
    check_generation(&rig, 0x1001);
    rig_hop(&rig);
    rig_run_for(&rig, 50000);
    ck_assert_uint_eq(rig.lines, 2);
    rig_hop(&rig);
    set_generation(&rig, 0x2001);
    rig_run_until(&rig, 1, 0);
    check_generation(&rig, 0x2001);
    rig_hop(&rig);
    /* Of two in a row the second counts. */
    machine_pause(rig.machine);
    set_generation(&rig, 0x3001);
    set_generation(&rig, 0x4001);
    struct machine_end end = rig_run_to_end(&rig);
    ck_assert_msg(end.outcome == MACHINE_EXIT && end.code == 0, "%s", rig_tail(&rig));
    check_generation(&rig, 0x4001);
    rig_finish(&rig);
}
END_TEST

START_TEST(test_a_generation_is_the_definitions_or_random)
{
    struct rig rig;
    uint64_t ids[3][2];
    rig_init(&rig, "generation", 1, "");
    for (unsigned i = 0; i < 3; i++) {
        if (i == 2)
            memset(rig.config.generation, 0x55, sizeof(rig.config.generation));
        machine_destroy(rig.machine);
        rig_create_machine(&rig, &rig.machine);
        struct machine_end end = rig_run_to_end(&rig);
        ck_assert_msg(end.outcome == MACHINE_EXIT && end.code == 0, "%s", rig_tail(&rig));
        const char *words = strrchr(rig.text, 'g');
        ck_assert_int_eq(sscanf(words, "generation %lx %lx", &ids[i][0], &ids[i][1]), 2);
    }
    ck_assert_mem_ne(ids[0], ids[1], sizeof(ids[0]));
    ck_assert_uint_ne(ids[0][0], 0);
    ck_assert_uint_eq(ids[2][0], 0x5555555555555555);
    ck_assert_uint_eq(ids[2][1], 0x5555555555555555);
    rig_finish(&rig);
}
END_TEST

/* With limits that may change. */
static void rig_init_changing(struct rig *rig, const struct machine_config *more, const char *guest,
                              const char *cmdline)
{
    rig_init(rig, guest, 1, cmdline);
    machine_destroy(rig->machine);
    rig->config.disks = more->disks;
    rig->config.disk_count = more->disk_count;
    rig->config.nets = more->nets;
    rig->config.net_count = more->net_count;
    rig->config.disk_limits = more->disk_limits;
    rig->config.limits_may_change = true;
    rig->machine = NULL;
    rig_create_machine(rig, &rig->machine);
}

/* At one read a second the guest would need minutes. */
START_TEST(test_limits_change_while_the_guest_waits)
{
    static const struct limits none = {0}, one = {.operations = 1};
    char path[] = "/tmp/minivmm-test-XXXXXX";
    struct rig rig;
    struct err err = {0};
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    struct disk_config disk = {.path = path, .readonly = true, .iops = _i ? 0 : 1};
    const struct machine_config more = {
        .disks = &disk, .disk_count = 1, .disk_limits = _i ? one : none};
    rig_init_changing(&rig, &more, "queue", "requests=300 depth=16");
    rig_run_for(&rig, 50000);
    const struct vring_state *ring = &blk_virtio(rig.machine->disks[0].blk)->state->queues[0];
    ck_assert_uint_ne(ring->next_available, ring->next_used);
    int ret = _i ? machine_set_shared_limits(rig.machine, &none, NULL, &err)
                 : machine_set_disk_limits(rig.machine, 0, &none, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    struct machine_end end = rig_run_to_end(&rig);
    ck_assert_msg(end.outcome == MACHINE_EXIT && end.code == 0, "%s", rig_tail(&rig));
    rig_finish(&rig);
    unlink(path);
}
END_TEST

static void check_refused(int ret, const struct err *err, enum err_kind kind, const char *words)
{
    ck_assert_int_lt(ret, 0);
    ck_assert_int_eq(err->kind, kind);
    ck_assert_msg(strstr(err->text, words) || strstr(err->hint, words), "%s; %s", err->text,
                  err->hint);
}

START_TEST(test_what_cannot_be_set_is_said_in_words)
{
    const struct limits limits = {.operations = 100};
    const struct netif_config net = {.mode = NETIF_USER, .helper = USERNET, .mac = {2, 0, 0, 1}};
    const struct machine_config more = {.nets = &net, .net_count = 1};
    struct rig rig;
    struct err err = {0};
    rig_init_changing(&rig, &more, "counter", "");
    rig_run_until(&rig, 1, 0);
    ck_assert_int_eq(machine_set_link(rig.machine, 0, false, &err), 0);
    ck_assert_int_eq(machine_set_link(rig.machine, 0, true, &err), 0);
    ck_assert_int_eq(machine_set_net_limits(rig.machine, 0, &limits, &err), 0);
    ck_assert_int_eq(machine_set_shared_limits(rig.machine, NULL, &limits, &err), 0);
    ck_assert_int_eq(machine_set_balloon(rig.machine, 1 << 20, &err), 0);
    check_refused(machine_set_link(rig.machine, 1, true, &err), &err, ERR_NOT_FOUND, "net1");
    check_refused(machine_set_link(rig.machine, 1, true, &err), &err, ERR_NOT_FOUND, "net0");
    check_refused(machine_set_net_limits(rig.machine, 99, &limits, &err), &err, ERR_NOT_FOUND,
                  "net99");
    check_refused(machine_set_disk_limits(rig.machine, 0, &limits, &err), &err, ERR_NOT_FOUND,
                  "disk0");
    check_refused(machine_set_balloon(rig.machine, 1ull << 40, &err), &err, ERR_USAGE, "8");

    machine_destroy(rig.machine);
    rig.machine = NULL;
    rig.config.limits_may_change = false;
    rig.config.no_balloon = true;
    rig_create_machine(&rig, &rig.machine);
    check_refused(machine_set_net_limits(rig.machine, 0, &limits, &err), &err, ERR_STATE,
                  "cannot change");
    check_refused(machine_set_shared_limits(rig.machine, &limits, NULL, &err), &err, ERR_STATE,
                  "cannot change");
    check_refused(machine_set_balloon(rig.machine, 0, &err), &err, ERR_STATE, "no balloon");
    rig_finish(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine_set");
    TCase *set = tcase_create("set");
    tcase_set_timeout(set, 2 * PATIENCE_S);
    tcase_add_test(set, test_the_guest_hears_of_a_new_generation);
    tcase_add_test(set, test_a_generation_is_the_definitions_or_random);
    tcase_add_loop_test(set, test_limits_change_while_the_guest_waits, 0, 2);
    tcase_add_test(set, test_what_cannot_be_set_is_said_in_words);
    suite_add_tcase(suite, set);
    return unit_main_with_kvm(suite, "machine_set");
}
