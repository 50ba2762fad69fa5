/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of machines: a guest goes on from one as if nothing had been, and from none that is not
 * its own or not whole.
 */
#include "ft/snapshot_parts.h"
#include "tests/unit/machines.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

struct trial {
    struct rig rig;
    char path[40];
};

static void write_memory(struct trial *trial, int folder, uint32_t *ret_sums)
{
    const struct memory_range *ranges;
    struct memory_file file;
    struct err err = {0};
    int fd = openat(folder, SNAPSHOT_MEMORY, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    memory_ranges(machine_memory(trial->rig.machine), &ranges);
    int ret = memory_file_begin(&file, fd, ranges[0].size, &err);
    if (ret == 0)
        ret = memory_file_put(&file, 0, ranges[0].host, ranges[0].size, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    memory_file_sums(&file, ret_sums);
    memory_file_end(&file);
    close(fd);
}

/* Of the paused machine. */
static void make_snapshot(struct trial *trial)
{
    const struct snapshot_hello hello = {.wall_ns = 7, .uuid = {9}};
    struct machine_model *model;
    struct stream_buffer state;
    struct err err = {0};
    strcpy(trial->path, "/tmp/minivmm-test-XXXXXX");
    ck_assert(mkdtemp(trial->path));
    int folder = open(trial->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint32_t sums[32];
    write_memory(trial, folder, sums);
    rig_save(&trial->rig, &state);
    ck_assert_int_eq(machine_model_of(&model, trial->rig.machine, NULL), 0);
    int ret = snapshot_write_state(folder, &hello, model, sums, &state, &err);
    if (ret == 0)
        ret = snapshot_seal(folder, json_object(), NULL, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    machine_model_destroy(model);
    stream_buffer_finish(&state);
    close(folder);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    return remove(path);
}

static void remove_snapshot(const struct trial *trial)
{
    nftw(trial->path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void trial_init(struct trial *trial, unsigned cpus)
{
    rig_init(&trial->rig, "counter", cpus, "");
    rig_run_until(&trial->rig, 3, 0);
    make_snapshot(trial);
}

static void trial_finish(struct trial *trial)
{
    rig_finish(&trial->rig);
    remove_snapshot(trial);
}

/* This machine, and another one of these qualities in its place. */
static void replace_machine(struct trial *trial, bool blank)
{
    machine_destroy(trial->rig.machine);
    trial->rig.machine = NULL;
    trial->rig.config.blank = blank;
    rig_create_machine(&trial->rig, &trial->rig.machine);
}

static void open_snapshot(const struct trial *trial, struct snapshot *ret_snapshot)
{
    struct err err = {0};
    int ret = snapshot_open(ret_snapshot, trial->path, &err);
    if (ret == 0)
        ret = snapshot_verify(ret_snapshot, NULL, &err);
    if (ret == 0)
        ret = snapshot_check_host(ret_snapshot, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void load(struct trial *trial)
{
    struct snapshot snapshot;
    struct err err = {0};
    open_snapshot(trial, &snapshot);
    int ret = snapshot_load(&snapshot, trial->rig.machine, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    snapshot_close(&snapshot);
}

/* Of each line, which the first processor writes, from byte `from` on: "count N ...". */
static uint64_t check_counts(const struct rig *rig, size_t from, uint64_t last)
{
    const char *at = rig->text + from;
    for (const char *end; (end = strchr(at, '\n')); at = end + 1) {
        unsigned long long number;
        ck_assert_msg(sscanf(at, "count %llu", &number) == 1, "%.60s", at);
        ck_assert_uint_eq(number, last + 1);
        last = number;
    }
    return last;
}

START_TEST(test_a_guest_goes_on_from_its_snapshot)
{
    struct trial trial;
    trial_init(&trial, _i ? 2 : 1);
    char *start = strdup(trial.rig.text);
    uint64_t last = check_counts(&trial.rig, 0, 0);
    for (unsigned i = 0; i < 4; i++) {
        /* As often as one likes, each time from the same line on: the file stays what it is. */
        replace_machine(&trial, true);
        load(&trial);
        if (i == 3)
            remove_snapshot(&trial); /* what is mapped is there */
        strcpy(trial.rig.text, start);
        trial.rig.length = strlen(start);
        rig_run_until(&trial.rig, 4, 0);
        ck_assert_uint_ge(check_counts(&trial.rig, 0, 0), last + 4);
    }
    free(start);
    trial_finish(&trial);
}
END_TEST

/* A machine that runs from a snapshot can be the next one's. */
START_TEST(test_a_snapshot_of_a_restored_machine)
{
    struct trial trial;
    trial_init(&trial, 1);
    for (unsigned i = 0; i < 3; i++) {
        replace_machine(&trial, true);
        load(&trial);
        rig_run_until(&trial.rig, 3, 0);
        remove_snapshot(&trial);
        make_snapshot(&trial);
    }
    replace_machine(&trial, true);
    load(&trial);
    rig_run_until(&trial.rig, 3, 0);
    check_counts(&trial.rig, 0, 0);
    trial_finish(&trial);
}
END_TEST

static struct disk_config no_disk;

static void other_memory(struct machine_config *config)
{
    config->memory = 16u << 20;
}

static void other_cpus(struct machine_config *config)
{
    config->cpus = 1;
}

static void no_balloon(struct machine_config *config)
{
    config->no_balloon = true;
}

static void one_disk(struct machine_config *config)
{
    config->disks = &no_disk;
    config->disk_count = 1;
}

static const struct {
    void (*change)(struct machine_config *config);
    const char *words;
} others[] = {
    {other_memory, "a machine with 8 MiB of memory, this one has 16"},
    {other_cpus, "a machine with 2 vCPUs, this one has 1"},
    {no_balloon, "the state has, and this machine lacks, a device \"virtio-"},
    {one_disk, "this machine has, and the state lacks, a device \"virtio-"},
};

START_TEST(test_another_machine_says_what_differs_and_is_usable)
{
    struct trial trial;
    struct snapshot snapshot;
    struct err err = {0};
    char image[] = "/tmp/minivmm-test-XXXXXX";
    int fd = mkstemp(image);
    ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    no_disk = (struct disk_config){.path = image};
    trial_init(&trial, 2);
    open_snapshot(&trial, &snapshot);
    others[_i].change(&trial.rig.config);
    replace_machine(&trial, false); /* it could boot by itself, and does */
    ck_assert_int_lt(snapshot_load(&snapshot, trial.rig.machine, &err), 0);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_msg(strstr(err.text, others[_i].words), "%s", err.text);
    ck_assert(!memory_is_file(machine_memory(trial.rig.machine)));
    size_t from = trial.rig.length;
    rig_run_until(&trial.rig, 3, 0);
    ck_assert_msg(strncmp(trial.rig.text + from, "count 1", 7) == 0, "%s", trial.rig.text + from);
    snapshot_close(&snapshot);
    unlink(image);
    trial_finish(&trial);
}
END_TEST

/* Whole, but no state that a machine takes. */
START_TEST(test_a_state_that_no_machine_takes_is_refused)
{
    struct trial trial;
    struct snapshot snapshot;
    struct err err = {0};
    trial_init(&trial, 2);
    open_snapshot(&trial, &snapshot);
    replace_machine(&trial, true);
    snapshot.state.bytes[snapshot.state.length / 2] ^= 1;
    ck_assert_int_lt(snapshot_load(&snapshot, trial.rig.machine, &err), 0);
    ck_assert_msg(strncmp(err.text, trial.path, strlen(trial.path)) == 0, "%s", err.text);
    snapshot.state.bytes[snapshot.state.length / 2] ^= 1;
    ck_assert_int_eq(snapshot_load(&snapshot, trial.rig.machine, &err), 0);
    snapshot_close(&snapshot);
    rig_run_until(&trial.rig, 3, 0);
    check_counts(&trial.rig, 0, 0);
    trial_finish(&trial);
}
END_TEST

/* A section "model" as a machine has it, but with this number at that place of the payload, from
 * its end where that is negative. */
static int load_model(struct machine_model *model, struct machine_model *into, int place,
                      uint32_t number)
{
    struct stream_buffer bytes;
    uint32_t length;
    const struct state_item from = machine_model_item(model), to = machine_model_item(into);
    stream_buffer_init(&bytes, 0);
    ck_assert_int_eq(state_save(&bytes.stream, &from, 1), 0);
    uint8_t *payload = rig_find_section(bytes.bytes, bytes.length, "model", 0, &length);
    ck_assert_ptr_nonnull(payload);
    memcpy(payload + (place < 0 ? (int)length + place : place), &number, sizeof(number));
    rig_sign_section(payload, length, "model");
    int ret = state_load(&bytes.stream, &to, 1, NULL);
    stream_buffer_finish(&bytes);
    return ret;
}

enum { AT_CPUS = 16, AT_TSC_KHZ = 20, AT_LAST_MSR = -4 };

/* Before any memory comes: an MSR of a newer KVM, a TSC that is faster. */
START_TEST(test_a_host_says_beforehand_what_it_lacks)
{
    enum { MSR_NOBODY = 0x4b5640ff };
    static const struct {
        int place;
        uint32_t number;
        const char *words;
    } wishes[] = {{AT_LAST_MSR, MSR_NOBODY, "MSR 0x4b5640ff"}, {AT_TSC_KHZ, 1000, "kHz"}};
    struct trial trial;
    struct machine_model *model, *other;
    trial_init(&trial, 1);
    struct machine *machine = trial.rig.machine;
    struct kvm_x86_msrs nobody = {.count = 1, .entries = {{.index = MSR_NOBODY}}};
    const bool matters[] = {kvm_x86_get_msrs(machine->vcpus[0]->fd, &nobody) != 1,
                            machine->power_on[0].tsc_khz != 0};
    ck_assert_int_eq(machine_model_of(&model, machine, NULL), 0);
    for (size_t i = 0; i < array_size(wishes); i++) {
        struct err err = {0};
        ck_assert_int_eq(machine_model_create(&other, NULL), 0);
        ck_assert_int_eq(load_model(model, other, AT_CPUS, 1), 0);
        int ret = machine_model_check_host(other, &err);
        ck_assert_msg(ret == 0, "%s", err.text);
        ck_assert_int_eq(load_model(model, other, wishes[i].place, wishes[i].number), 0);
        ret = machine_model_check_host(other, &err);
        if (!matters[i])
            printf("SKIPPED: to this host's KVM \"%s\" is all the same\n", wishes[i].words);
        else
            ck_assert_msg(ret == -ENOTSUP && err.kind == ERR_HOST &&
                              strstr(err.text, wishes[i].words) && err.hint[0],
                          "%d: %s (%s)", ret, err.text, err.hint);
        machine_model_destroy(other);
    }
    machine_model_destroy(model);
    trial_finish(&trial);
}
END_TEST

/* A number of vCPUs that no machine has is refused, or does no harm: it comes from a file. */
START_TEST(test_a_model_with_any_number_of_vcpus_is_looked_at_safely)
{
    static const uint32_t counts[] = {0, 1, 255, 1024, 1025, 1u << 31, (1u << 31) + 1, UINT32_MAX};
    struct trial trial;
    struct machine_model *model, *other;
    struct err err = {0};
    trial_init(&trial, 2);
    ck_assert_int_eq(machine_model_of(&model, trial.rig.machine, NULL), 0);
    ck_assert_int_eq(machine_model_check(model, trial.rig.machine, &err), 0);
    for (size_t i = 0; i < array_size(counts); i++) {
        ck_assert_int_eq(machine_model_create(&other, NULL), 0);
        bool valid = load_model(model, other, AT_CPUS, counts[i]) == 0;
        ck_assert(valid || counts[i] == 0 || counts[i] > 1024);
        if (valid) {
            (void)!machine_model_check_host(other, &err);
            ck_assert_int_lt(machine_model_check(other, trial.rig.machine, &err), 0);
            ck_assert_ptr_nonnull(strstr(err.text, "vCPUs"));
        }
        machine_model_destroy(other);
    }
    machine_model_destroy(model);
    trial_finish(&trial);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_machine");
    TCase *tests = tcase_create("tests");
    tcase_add_loop_test(tests, test_a_guest_goes_on_from_its_snapshot, 0, 2);
    tcase_add_test(tests, test_a_snapshot_of_a_restored_machine);
    tcase_add_loop_test(tests, test_another_machine_says_what_differs_and_is_usable, 0,
                        (int)array_size(others));
    tcase_add_test(tests, test_a_state_that_no_machine_takes_is_refused);
    tcase_add_test(tests, test_a_host_says_beforehand_what_it_lacks);
    tcase_add_test(tests, test_a_model_with_any_number_of_vcpus_is_looked_at_safely);
    tcase_set_timeout(tests, PATIENCE_S + 20);
    suite_add_tcase(suite, tests);
    return unit_main_with_kvm(suite, "test_snapshot_machine");
}
