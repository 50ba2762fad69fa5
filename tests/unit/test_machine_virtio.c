/* SPDX-License-Identifier: MIT */
/*
 * Virtio devices in a real machine: guests that keep them busy hop from machine to machine, and
 * nothing of what was under way is lost.
 */
#include "tests/unit/machines.h"

#include <unistd.h>

enum { HOPS = 20, SECTORS = 2048, BLOCK = 4096, SECTOR = 512 };

/* An image whose blocks begin with the numbers of their sectors. */
static void make_image(char path[32])
{
    uint64_t block[BLOCK / 8] = {0};
    strcpy(path, "/tmp/minivmm-test-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    for (uint64_t sector = 0; sector < SECTORS; sector += BLOCK / SECTOR) {
        block[0] = sector;
        ck_assert_int_eq(write(fd, block, sizeof(block)), sizeof(block));
    }
    close(fd);
}

static void rig_init_with(struct rig *rig, const struct machine_config *more, const char *guest,
                          const char *cmdline)
{
    rig_init(rig, guest, 1, cmdline);
    machine_destroy(rig->machine);
    rig->config.disks = more->disks;
    rig->config.disk_count = more->disk_count;
    rig->machine = NULL;
    rig_create_machine(rig, &rig->machine);
}

static void check_good_end(struct rig *rig)
{
    struct machine_end end = rig_run_to_end(rig);
    ck_assert_msg(end.outcome == MACHINE_EXIT && end.code == 0, "outcome %d, code %u: %s",
                  end.outcome, end.code, rig_tail(rig));
}

static bool is_in_flight(const struct rig *rig)
{
    const struct vring_state *ring = &blk_virtio(rig->machine->disks[0].blk)->state->queues[0];
    return ring->next_available != ring->next_used;
}

/*
 * Both machines have the disk for a moment, so it is read-only. Its limit lets a second's worth
 * pass and then keeps reads waiting, so that a pause finds some under way, which the next machine
 * has to do.
 */
static void hop_reading(const struct disk_config *disk)
{
    struct rig rig;
    const struct machine_config more = {.disks = disk, .disk_count = 1};
    unsigned busy = 0;
    rig_init_with(&rig, &more, "queue", "requests=640 depth=16 pattern");
    for (unsigned i = 0; i < HOPS; i++) {
        rig_run_for(&rig, i == 0 ? 50000 : 10000);
        busy += is_in_flight(&rig);
        rig_hop(&rig);
    }
    ck_assert_uint_gt(busy, HOPS / 2);
    check_good_end(&rig);
    ck_assert_ptr_nonnull(strstr(rig.text, "queue 640 reads"));
    rig_finish(&rig);
}

START_TEST(test_reads_under_way_are_done_by_the_next_machine)
{
    char path[32];
    make_image(path);
    struct disk_config disk = {.path = path, .readonly = true, .iops = 30};
    hop_reading(&disk);
    disk.engine = DISK_ENGINE_THREADS;
    hop_reading(&disk);
    unlink(path);
}
END_TEST

START_TEST(test_messages_of_devices_are_not_lost_by_hops)
{
    struct rig rig;
    rig_init(&rig, "rng", 1, "rounds=2000");
    rig_run_until(&rig, 0, 20);
    for (unsigned i = 0; i < 2 * HOPS; i++) {
        rig_run_for(&rig, 700 * (i % 5));
        rig_hop(&rig);
        rig_run_until(&rig, 0, 2);
    }
    check_good_end(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(test_a_state_is_loaded_over_a_machine_that_works)
{
    char path[32];
    struct rig rig;
    struct stream_buffer state;
    struct err err = {0};
    make_image(path);
    struct disk_config disk = {.path = path, .readonly = true, .iops = 30};
    const struct machine_config more = {.disks = &disk, .disk_count = 1};
    rig_init_with(&rig, &more, "queue", "requests=100 depth=16 pattern");
    rig_run_for(&rig, 50000);
    rig_save(&rig, &state);
    struct machine *then = NULL;
    rig_create_machine(&rig, &then); /* keeps the memory of that moment */
    rig_copy_memory(rig.machine, then);
    for (unsigned i = 0; i < 3; i++) {
        rig_run_for(&rig, 30000);
        rig_copy_memory(then, rig.machine);
        stream_buffer_rewind(&state);
        ck_assert_msg(machine_load(rig.machine, &state.stream, &err) == 0, "%s", err.text);
        rig_copy_memory(then, rig.machine); /* what the disk did last before the load is undone */
    }
    machine_destroy(then);
    stream_buffer_finish(&state);
    check_good_end(&rig);
    rig_finish(&rig);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine_virtio");
    TCase *hops = tcase_create("hops");
    tcase_set_timeout(hops, 2 * PATIENCE_S);
    tcase_add_test(hops, test_reads_under_way_are_done_by_the_next_machine);
    tcase_add_test(hops, test_messages_of_devices_are_not_lost_by_hops);
    tcase_add_test(hops, test_a_state_is_loaded_over_a_machine_that_works);
    suite_add_tcase(suite, hops);
    return unit_main_with_kvm(suite, "machine_virtio");
}
