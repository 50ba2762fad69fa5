/* SPDX-License-Identifier: MIT */
/* What a real machine tells of itself: with a guest that reads a disk. */
#include "tests/unit/machines.h"
#include "tests/unit/metrics_text.h"
#include "vmm/metrics.h"

#include <unistd.h>

enum { REQUESTS = 300, BLOCK = 4096, DISK_BYTES = 1 << 20 };

static void make_image(char path[32])
{
    strcpy(path, "/tmp/minivmm-test-XXXXXX");
    int fd = mkstemp(path);
    ck_assert(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
}

static struct metrics_source source_of(const struct rig *rig)
{
    return (struct metrics_source){
        .machine = rig->machine, .vm = "web1", .uuid = "6f1ed002", .started = 1763712000};
}

static char *text_of(const struct rig *rig)
{
    const struct metrics_source source = source_of(rig);
    char *text;
    size_t length;
    ck_assert_int_eq(metrics_text(metrics_table, &source, &text, &length), 0);
    ck_assert_uint_gt(text_check(text, length), 50);
    return text;
}

static double value(const struct rig *rig, const char *name, const char *labels)
{
    char *text = text_of(rig);
    double value = text_find(text, name, labels);
    ck_assert_msg(value >= 0, "%s %s is not in:\n%s", name, labels, text);
    free(text);
    return value;
}

static void rig_init_reading(struct rig *rig, const struct disk_config *disk)
{
    rig_init(rig, "queue", 1, "requests=300 depth=4");
    machine_destroy(rig->machine);
    rig->config.disks = disk;
    rig->config.disk_count = 1;
    rig->machine = NULL;
    rig_create_machine(rig, &rig->machine);
}

START_TEST(a_guest_that_reads_is_seen_to_read)
{
    char path[32];
    struct rig rig;
    make_image(path);
    struct disk_config disk = {.path = path, .readonly = true};
    rig_init_reading(&rig, &disk);
    ck_assert_double_eq(value(&rig, "minivmm_disk_operations_total", "disk=\"0\",op=\"read\""), 0);
    struct machine_end end = rig_run_to_end(&rig);
    ck_assert_msg(end.outcome == MACHINE_EXIT && end.code == 0, "%s", rig_tail(&rig));
    const char *read = "disk=\"0\",op=\"read\"";
    ck_assert_double_eq(value(&rig, "minivmm_disk_operations_total", read), REQUESTS);
    ck_assert_double_eq(value(&rig, "minivmm_disk_bytes_total", read), REQUESTS * BLOCK);
    ck_assert_double_eq(value(&rig, "minivmm_disk_errors_total", read), 0);
    ck_assert_double_eq(value(&rig, "minivmm_disk_latency_seconds_count", read), REQUESTS);
    ck_assert_double_gt(value(&rig, "minivmm_disk_latency_seconds_sum", read), 0);
    ck_assert_double_eq(value(&rig, "minivmm_disk_size_bytes", "disk=\"0\""), DISK_BYTES);
    ck_assert_double_gt(value(&rig, "minivmm_vcpu_exits_total", "vcpu=\"0\",reason=\"io\""), 0);
    ck_assert_double_gt(value(&rig, "minivmm_vcpu_cpu_seconds_total", "vcpu=\"0\""), 0);
    ck_assert_double_ge(value(&rig, "minivmm_cpu_seconds_total", ""),
                        value(&rig, "minivmm_vcpu_cpu_seconds_total", "vcpu=\"0\""));
    ck_assert_double_eq(value(&rig, "minivmm_memory_bytes", ""), 8 << 20);
    ck_assert_double_eq(value(&rig, "minivmm_start_time_seconds", ""), 1763712000);
    rig_finish(&rig);
    unlink(path);
}
END_TEST

struct seen {
    struct rig *rig;
    struct loop_timer timer;
    double exits, reads, time;
    unsigned looks;
    bool running;
};

static void grow(double *before, double now)
{
    ck_assert_double_ge(now, *before);
    *before = now;
}

/* While it runs, on the main loop. */
static void handle_look(void *arg)
{
    struct seen *seen = arg;
    grow(&seen->exits, value(seen->rig, "minivmm_vcpu_exits_total", "reason=\"io\""));
    grow(&seen->reads, value(seen->rig, "minivmm_disk_operations_total", "op=\"read\""));
    grow(&seen->time, value(seen->rig, "minivmm_cpu_seconds_total", ""));
    seen->running = value(seen->rig, "minivmm_running", "") > 0;
    seen->looks++;
    ck_assert_int_eq(loop_timer_arm(&seen->timer, clock_monotonic_ns() + 1000000), 0);
}

START_TEST(counters_only_grow_while_the_guest_runs)
{
    char path[32];
    struct rig rig;
    struct seen seen = {.rig = &rig};
    make_image(path);
    struct disk_config disk = {.path = path, .readonly = true, .iops = 50};
    rig_init_reading(&rig, &disk);
    loop_timer_init(&seen.timer, machine_loop(rig.machine), handle_look, &seen);
    handle_look(&seen);
    ck_assert(!seen.running);
    rig_run_for(&rig, 100000);
    loop_timer_cancel(&seen.timer);
    ck_assert(seen.running);
    ck_assert_uint_gt(seen.looks, 1);
    ck_assert_double_gt(seen.reads, 0);
    rig_finish(&rig);
    unlink(path);
}
END_TEST

START_TEST(each_pause_that_ended_is_counted)
{
    enum { PAUSE_MS = 20 };
    struct rig rig;
    struct err err = {0};
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 1, 0);
    ck_assert_double_eq(value(&rig, "minivmm_pause_seconds_count", ""), 0); /* it lasts */
    ck_assert_double_eq(value(&rig, "minivmm_running", ""), 0);
    usleep(PAUSE_MS * 1000);
    uint64_t began = clock_monotonic_ns();
    machine_resume(rig.machine);
    ck_assert_double_eq(value(&rig, "minivmm_running", ""), 1);
    ck_assert_double_eq(value(&rig, "minivmm_pause_seconds_count", ""), 1);
    double first = value(&rig, "minivmm_pause_longest_seconds", "");
    ck_assert_double_ge(first, PAUSE_MS / 1e3);
    ck_assert_double_eq(value(&rig, "minivmm_pause_seconds_sum", ""), first);
    machine_pause(rig.machine);
    machine_resume(rig.machine);
    ck_assert_double_eq(value(&rig, "minivmm_pause_seconds_count", ""), 2);
    double second = value(&rig, "minivmm_pause_seconds_sum", "") - first;
    ck_assert_double_gt(second, 0);
    ck_assert_double_le(second, (double)(clock_monotonic_ns() - began) / 1e9);
    ck_assert_double_ge(value(&rig, "minivmm_pause_longest_seconds", ""), first);
    /* What begins anew was not paused. */
    machine_pause(rig.machine);
    ck_assert_int_eq(machine_reset(rig.machine, &err), 0);
    machine_resume(rig.machine);
    ck_assert_double_eq(value(&rig, "minivmm_pause_seconds_count", ""), 2);
    rig_finish(&rig);
}
END_TEST

START_TEST(json_has_a_place_for_each_device)
{
    char path[32];
    struct rig rig;
    make_image(path);
    struct disk_config disk = {.path = path, .readonly = true};
    rig_init_reading(&rig, &disk);
    rig_run_to_end(&rig);
    const struct metrics_source source = source_of(&rig);
    json_t *root = metrics_json(metrics_table, &source);
    json_int_t reads = 0, bytes = 0, cpus = 0;
    ck_assert_int_eq(json_unpack(root, "{s: [{s: {s: I}, s: {s: {s: I}}}], s: {s: I}}", "disks",
                                 "bytes", "read", &bytes, "latency", "read", "count", &reads,
                                 "machine", "cpus", &cpus),
                     0);
    ck_assert_int_eq(reads, REQUESTS);
    ck_assert_int_eq(bytes, REQUESTS * BLOCK);
    ck_assert_int_eq(cpus, 1);
    ck_assert_uint_eq(json_array_size(json_object_get(root, "vcpus")), 1);
    ck_assert_ptr_null(json_object_get(root, "nets"));
    json_decref(root);
    rig_finish(&rig);
    unlink(path);
}
END_TEST

START_TEST(every_exit_has_one_reason)
{
    uint64_t exits[VCPU_EXITS];
    struct rig rig;
    rig_init(&rig, "counter", 1, "");
    rig_run_until(&rig, 5, 0);
    vcpu_read_exits(rig.machine->vcpus[0], exits);
    for (unsigned i = 0; i < VCPU_EXITS; i++) {
        ck_assert(vcpu_exit_name(i) || exits[i] == 0);
        for (unsigned j = 0; j < i && vcpu_exit_name(i); j++)
            ck_assert(!vcpu_exit_name(j) || strcmp(vcpu_exit_name(i), vcpu_exit_name(j)) != 0);
    }
    ck_assert_uint_ge(exits[KVM_EXIT_IO], rig.length); /* each byte of the console is one */
    /* A pause may meet the vCPU outside of the guest, but not each time. */
    for (unsigned i = 0; i < 1000 && !exits[VCPU_EXIT_INTERRUPTED]; i++) {
        rig_run_for(&rig, 1000);
        vcpu_read_exits(rig.machine->vcpus[0], exits);
    }
    ck_assert_uint_gt(exits[VCPU_EXIT_INTERRUPTED], 0);
    ck_assert_ptr_null(vcpu_exit_name(VCPU_EXITS));
    rig_finish(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics_machine");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 2 * PATIENCE_S);
    tcase_add_test(all, a_guest_that_reads_is_seen_to_read);
    tcase_add_test(all, counters_only_grow_while_the_guest_runs);
    tcase_add_test(all, each_pause_that_ended_is_counted);
    tcase_add_test(all, json_has_a_place_for_each_device);
    tcase_add_test(all, every_exit_has_one_reason);
    suite_add_tcase(suite, all);
    return unit_main_with_kvm(suite, "metrics_machine");
}
