/* SPDX-License-Identifier: MIT */
/*
 * Snapshots as files: whole ones, damaged ones, hostile ones. The machine whose state it is has
 * never been; test_snapshot_machine.c has those that were.
 */
#include "ft/file_sum.h"
#include "tests/unit/golden_rig.h"
#include "tests/unit/snapshot_rig.h"

#include <time.h>

/* --- looking at them -------------------------------------------------------------------------- */

/* Which files a verification has read. */
struct reads {
    unsigned count;
    char names[400];
};

static void handle_begins(void *ctx, const char *file)
{
    struct reads *reads = ctx;
    size_t used = strlen(reads->names);
    reads->count++;
    snprintf(reads->names + used, sizeof(reads->names) - used, "%s ", file);
}

static int verify(const char *name, bool always, struct reads *ret_reads, struct err *err)
{
    struct reads reads = {0};
    const struct snapshot_check check = {.always = always, .begins = handle_begins, .ctx = &reads};
    struct snapshot snapshot;
    int ret = snapshot_open(&snapshot, rig_path(name), err);
    if (ret < 0)
        return ret;
    ret = snapshot_verify(&snapshot, &check, err);
    snapshot_close(&snapshot);
    snapshot_close(&snapshot);
    if (ret_reads)
        *ret_reads = reads;
    return ret;
}

static void accept(const char *name, bool always, struct reads *ret_reads)
{
    struct err err = {0};
    int ret = verify(name, always, ret_reads, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

/* It says which file, and what people read holds nothing that a terminal would take for more. */
static void refuse(const char *file, const char *words)
{
    for (int always = 0; always < 2; always++) {
        struct err err = {0};
        int ret = verify("snap", always, NULL, &err);
        ck_assert_msg(ret < 0, "%s: taken, though %s", file, words);
        ck_assert_msg(err.kind == ERR_DEFINITION, "%s: %d: %s", file, err.kind, err.text);
        ck_assert_msg(strstr(err.text, file), "\"%s\" lacks \"%s\"", err.text, file);
        ck_assert_msg(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
    }
    ck_assert_int_lt(verify("snap", true, NULL, NULL), 0);
}

/* The file system's clock goes in ticks: what changes within one has no newer time. */
static void wait_for_tick(void)
{
    struct timespec now, then;
    clock_gettime(CLOCK_REALTIME_COARSE, &then);
    do {
        sched_yield();
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    } while (now.tv_nsec == then.tv_nsec);
}

static const char *in_snapshot(const char *file)
{
    char name[200];
    snprintf(name, sizeof(name), "snap/%s", file);
    return rig_path(name);
}

static uint64_t size_of(const char *file)
{
    struct stat stat;
    ck_assert_int_eq(lstat(in_snapshot(file), &stat), 0);
    return (uint64_t)stat.st_size;
}

static void flip(const char *file, uint64_t at, uint8_t bits)
{
    uint8_t byte;
    int fd = open(in_snapshot(file), O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= bits;
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

/* --- whole ones ------------------------------------------------------------------------------- */

START_TEST(what_was_sealed_is_whole_and_says_what_it_is)
{
    struct snapshot snapshot;
    struct err err = {0};
    struct sample samples[2];
    make_snapshot(true);
    ck_assert_int_eq(snapshot_open(&snapshot, rig_path("snap"), &err), 0);
    ck_assert(snapshot.has_memory);
    ck_assert_str_eq(json_string_value(json_object_get(snapshot.facts, "name")), "snap");
    int ret = snapshot_verify(&snapshot, NULL, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_mem_eq(&snapshot.hello, &sample_hello, sizeof(sample_hello));
    ck_assert_uint_eq(machine_model_memory(snapshot.model), MEMORY);
    ck_assert_int_ge(snapshot.memory, 0);
    const struct state_item items[] = {{&sample_table, 0, &samples[0]},
                                       {&sample_table, 1, &samples[1]}};
    ck_assert_int_eq(state_load(&snapshot.state.stream, items, 2, NULL), 0);
    ck_assert_uint_eq(samples[0].divisor, 12);
    ck_assert_uint_eq(samples[1].divisor, 99);
    snapshot_close(&snapshot);
}
END_TEST

START_TEST(a_vm_that_did_not_run_has_no_memory)
{
    struct snapshot snapshot;
    make_snapshot(false);
    ck_assert_int_eq(snapshot_open(&snapshot, rig_path("snap"), NULL), 0);
    ck_assert(!snapshot.has_memory);
    ck_assert_int_eq(snapshot_verify(&snapshot, NULL, NULL), 0);
    ck_assert_int_eq(snapshot.memory, -1);
    snapshot_close(&snapshot);
    accept("snap", true, NULL);
    flip("disk.img", 3, 1);
    refuse("disk.img", "it does not fit its checksum");
}
END_TEST

START_TEST(what_is_no_snapshot_says_so)
{
    struct snapshot snapshot;
    struct err err = {0};
    ck_assert(!snapshot_is_one(rig_path("none")));
    ck_assert_int_lt(snapshot_open(&snapshot, rig_path("none"), &err), 0);
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    rig_make_folder("vm");
    ck_assert(!snapshot_is_one(rig_path("vm")));
    ck_assert_int_lt(snapshot_open(&snapshot, rig_path("vm"), &err), 0);
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "is no snapshot"));
    rig_write("file", "");
    ck_assert_int_lt(snapshot_open(&snapshot, rig_path("file"), &err), 0);

    snapshot = (struct snapshot){.folder = -1, .memory = -1};
    snapshot_close(&snapshot);
}
END_TEST

START_TEST(a_definitions_sum_is_that_of_its_file)
{
    char first[9] = "", again[9] = "", other[9] = "unset";
    rig_make_folder("vm");
    int folder = open_folder("vm");
    ck_assert_int_eq(snapshot_sum_definition(folder, other), -ENOENT);
    ck_assert_str_eq(other, "unset");
    rig_write("vm/vm.json", "{}\n");
    ck_assert_int_eq(snapshot_sum_definition(folder, first), 0);
    ck_assert_int_eq(snapshot_sum_definition(folder, again), 0);
    ck_assert_str_eq(first, again);
    rig_write("vm/vm.json", "{}\n\n");
    ck_assert_int_eq(snapshot_sum_definition(folder, again), 0);
    ck_assert_str_ne(first, again);
    close(folder);
}
END_TEST

START_TEST(a_state_is_never_written_over_another)
{
    const uint32_t sums[CHUNKS] = {0};
    struct machine_model *model = make_model(MODEL_NOW, MEMORY);
    struct stream_buffer state;
    struct err err = {0};
    make_state(&state);
    rig_make_folder("snap");
    rig_write("snap/" SNAPSHOT_STATE, "mine");
    int folder = open_folder("snap");
    ck_assert_int_eq(snapshot_write_state(folder, &sample_hello, model, sums, &state, &err),
                     -EEXIST);
    char *text = rig_read("snap/" SNAPSHOT_STATE);
    ck_assert_str_eq(text, "mine");
    free(text);
    close(folder);
    stream_buffer_finish(&state);
    machine_model_destroy(model);
}
END_TEST

/* --- the file "state" ------------------------------------------------------------------------- */

/* As a snapshot with nothing but this file. */
static int read_state(struct snapshot *snapshot, const uint8_t *bytes, size_t length,
                      struct err *err)
{
    FILE *file = fopen(in_snapshot(SNAPSHOT_STATE), "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
    *snapshot = (struct snapshot){
        .path = strdup("snap"), .folder = open_folder("snap"), .memory = -1};
    stream_buffer_init(&snapshot->state, 0);
    return snapshot_read_state(snapshot, err);
}

static const uint32_t golden_sums[CHUNKS] = {0x11111111, 0x22222222, 0x33333333};

/* These bytes have meant the same ever since they were written. */
static void check_state_means(const char *name, uint16_t model_version)
{
    static struct golden golden;
    struct snapshot snapshot;
    struct err err = {0};
    golden_read(&golden, name);
    int ret = read_state(&snapshot, golden.bytes, golden.length, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_mem_eq(&snapshot.hello, &sample_hello, sizeof(sample_hello));
    ck_assert_mem_eq(snapshot.sums, golden_sums, sizeof(golden_sums));
    struct stream_buffer model, wanted, state;
    struct machine_model *sample = make_model(model_version, MEMORY);
    const struct state_item items[] = {machine_model_item(snapshot.model),
                                       machine_model_item(sample)};
    stream_buffer_init(&model, 0);
    stream_buffer_init(&wanted, 0);
    ck_assert_int_eq(state_save(&model.stream, &items[0], 1), 0);
    ck_assert_int_eq(state_save(&wanted.stream, &items[1], 1), 0);
    ck_assert_uint_eq(model.length, wanted.length);
    ck_assert_mem_eq(model.bytes, wanted.bytes, model.length);
    make_state(&state);
    ck_assert_uint_eq(snapshot.state.length, state.length);
    ck_assert_mem_eq(snapshot.state.bytes, state.bytes, state.length);
    stream_buffer_finish(&model);
    stream_buffer_finish(&wanted);
    stream_buffer_finish(&state);
    machine_model_destroy(sample);
    snapshot_close(&snapshot);
}

/* Snapshots outlive the program that made them: also those whose model had no MSRs. */
START_TEST(a_state_has_its_golden_bytes_and_they_mean_the_same)
{
    static struct golden golden;
    rig_make_folder("snap");
    int folder = open_folder("snap");
    write_state(folder, golden_sums);
    int fd = openat(folder, SNAPSHOT_STATE, O_RDONLY | O_CLOEXEC);
    golden.length = (size_t)read(fd, golden.bytes, sizeof(golden.bytes));
    close(fd);
    golden_check("snapshot-state-2", golden.bytes, golden.length);
    ck_assert_int_eq(unlinkat(folder, SNAPSHOT_STATE, 0), 0);
    close(folder);
    check_state_means("snapshot-state-2", MODEL_NOW);
    check_state_means("snapshot-state", MODEL_WITHOUT_MSRS);
}
END_TEST

START_TEST(a_state_that_is_cut_or_changed_is_refused)
{
    static struct golden golden;
    struct snapshot snapshot;
    golden_read(&golden, "snapshot-state-2");
    rig_make_folder("snap");
    for (size_t i = 0; i < 2 * golden.length; i++) {
        struct err err = {0};
        size_t length = i < golden.length ? i : golden.length;
        uint8_t bits = (uint8_t)(1 << i % 8);
        golden.bytes[i % golden.length] ^= i < golden.length ? 0 : bits;
        int ret = read_state(&snapshot, golden.bytes, length, &err);
        ck_assert_msg(ret < 0, "byte %zu", i);
        ck_assert_int_eq(err.kind, ERR_DEFINITION);
        ck_assert_ptr_nonnull(strstr(err.text, "snap/state is damaged"));
        golden.bytes[i % golden.length] ^= i < golden.length ? 0 : bits;
        snapshot_close(&snapshot);
    }
}
END_TEST

/* --- damaged ones ----------------------------------------------------------------------------- */

static const char *const files[] = {"manifest.json", "state",    "memory",
                                    "vm.json",       "disk.img", "notes/one.txt"};

START_TEST(each_missing_file_is_named)
{
    make_snapshot(true);
    for (size_t i = 1; i < array_size(files) + 1; i++) {
        const char *file = i < array_size(files) ? files[i] : "empty";
        ck_assert_int_eq(rename(in_snapshot(file), rig_path("aside")), 0);
        refuse(file, strcmp(file, "state") == 0 ? "No such file" : "it is not there");
        ck_assert_int_eq(rename(rig_path("aside"), in_snapshot(file)), 0);
        accept("snap", false, NULL);
    }
}
END_TEST

START_TEST(each_file_of_another_length_is_named)
{
    make_snapshot(true);
    for (size_t i = 0; i < array_size(files); i++) {
        uint64_t size = size_of(files[i]);
        const uint64_t lengths[] = {0, 1, size / 2, size - 1, size + 1, size + 4096};
        char *whole = malloc(size);
        int fd = open(in_snapshot(files[i]), O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(pread(fd, whole, size, 0), (ssize_t)size);
        for (size_t j = 0; j < array_size(lengths); j++) {
            ck_assert_int_eq(ftruncate(fd, (off_t)lengths[j]), 0);
            refuse(files[i], "");
            ck_assert_int_eq(pwrite(fd, whole, size, 0), (ssize_t)size);
            ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
        }
        close(fd);
        free(whole);
        accept("snap", false, NULL);
    }
}
END_TEST

START_TEST(each_damaged_file_is_named)
{
    uint64_t seed = 33;
    make_snapshot(true);
    for (size_t i = 0; i < array_size(files); i++) {
        for (unsigned j = 0; j < 40; j++) {
            uint64_t size = size_of(files[i]);
            uint64_t at = j == 0 ? 0 : j == 1 ? size - 1 : chance(&seed) % size;
            uint8_t bits = (uint8_t)(1 << chance(&seed) % 8);
            wait_for_tick();
            flip(files[i], at, bits);
            refuse(files[i], "damaged");
            flip(files[i], at, bits);
        }
        accept("snap", false, NULL);
    }
}
END_TEST

START_TEST(each_bit_of_a_manifest_counts)
{
    struct snapshot snapshot;
    make_snapshot(true);
    uint64_t size = size_of(SNAPSHOT_MANIFEST);
    for (uint64_t bit = 0; bit < 8 * size; bit++) {
        struct err err = {0};
        flip(SNAPSHOT_MANIFEST, bit / 8, (uint8_t)(1 << bit % 8));
        ck_assert_msg(snapshot_open(&snapshot, rig_path("snap"), &err) < 0, "bit %llu",
                      (unsigned long long)bit);
        ck_assert_int_eq(err.kind, ERR_DEFINITION);
        ck_assert_ptr_nonnull(strstr(err.text, "manifest.json is damaged"));
        flip(SNAPSHOT_MANIFEST, bit / 8, (uint8_t)(1 << bit % 8));
    }
    accept("snap", false, NULL);
}
END_TEST

/* Of one snapshot and of another, both whole. */
START_TEST(a_mixture_is_refused)
{
    make_snapshot(true);
    ck_assert_int_eq(rename(rig_path("snap"), rig_path("first")), 0);
    make_snapshot(false);
    ck_assert_int_eq(rename(in_snapshot(SNAPSHOT_MANIFEST), rig_path("aside")), 0);
    ck_assert_int_eq(rename(rig_path("first/" SNAPSHOT_MANIFEST), in_snapshot(SNAPSHOT_MANIFEST)),
                     0);
    refuse("state", "No such file");
    ck_assert_int_eq(rename(rig_path("first/" SNAPSHOT_STATE), in_snapshot(SNAPSHOT_STATE)), 0);
    refuse("memory", "it is not there");
}
END_TEST

/* --- verified.json ---------------------------------------------------------------------------- */

/* Those with a checksum: all but the manifest; the state is always read, and has its own. */
enum { SUMMED = 6 };

START_TEST(what_nobody_touched_is_not_read_again)
{
    struct reads reads;
    make_snapshot(true);
    for (unsigned i = 0; i < 3; i++) {
        accept("snap", false, &reads);
        ck_assert_str_eq(reads.names, "");
    }
    accept("snap", true, &reads);
    ck_assert_uint_eq(reads.count, SUMMED);
    accept("snap", false, &reads);
    ck_assert_uint_eq(reads.count, 0);
}
END_TEST

START_TEST(what_was_touched_is_read_once)
{
    struct reads reads;
    make_snapshot(true);
    accept("snap", false, NULL);
    for (size_t i = 1; i < array_size(files); i++) {
        char wanted[40];
        wait_for_tick();
        ck_assert_int_eq(utimensat(AT_FDCWD, in_snapshot(files[i]), NULL, 0), 0);
        accept("snap", false, &reads);
        snprintf(wanted, sizeof(wanted), "%s ", files[i]);
        ck_assert_str_eq(reads.names, wanted);
        accept("snap", false, &reads);
        ck_assert_uint_eq(reads.count, 0);
    }
    /* Another file in its place, with the same bytes and times. */
    struct stat stat;
    ck_assert_int_eq(lstat(in_snapshot("disk.img"), &stat), 0);
    wait_for_tick();
    ck_assert_int_eq(unlink(in_snapshot("disk.img")), 0);
    rig_write("snap/disk.img", "this is what the disk holds");
    const struct timespec times[] = {stat.st_atim, stat.st_mtim};
    ck_assert_int_eq(utimensat(AT_FDCWD, in_snapshot("disk.img"), times, 0), 0);
    accept("snap", false, &reads);
    ck_assert_str_eq(reads.names, "disk.img ");
}
END_TEST

static void copy_snapshot(const char *to)
{
    char path[80];
    rig_make_folder(to);
    snprintf(path, sizeof(path), "%s/notes", to);
    rig_make_folder(path);
    int from_folder = open_folder("snap"), to_folder = open_folder(to);
    static const char *const all[] = {"manifest.json", "verified.json", "state",         "memory",
                                      "vm.json",       "disk.img",      "notes/one.txt", "empty"};
    for (size_t i = 0; i < array_size(all); i++)
        ck_assert_int_eq(copy_file(from_folder, all[i], to_folder, all[i], NULL, NULL, NULL), 0);
    close(from_folder);
    close(to_folder);
}

START_TEST(a_copy_is_read_once)
{
    struct reads reads;
    make_snapshot(true);
    copy_snapshot("copy");
    accept("copy", false, &reads);
    ck_assert_uint_eq(reads.count, SUMMED);
    accept("copy", false, &reads);
    ck_assert_uint_eq(reads.count, 0);
    /* A folder that was moved has the same files. */
    ck_assert_int_eq(rename(rig_path("copy"), rig_path("moved")), 0);
    accept("moved", false, &reads);
    ck_assert_uint_eq(reads.count, 0);
}
END_TEST

/* It can only cost time. */
START_TEST(a_damaged_list_of_what_was_verified_is_of_no_use)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "null",
        "{}",
        "{\"crc32c\": 1, \"files\": 2}",
        "{\"crc32c\": \"00000000\", \"files\": {}}",
        "{\"files\": {\"memory\": [1, 2, 3]}}",
    };
    struct reads reads;
    make_snapshot(true);
    char *whole = rig_read("snap/" SNAPSHOT_VERIFIED);
    for (size_t i = 0; i < array_size(texts) + strlen(whole); i++) {
        if (i < array_size(texts))
            rig_write("snap/" SNAPSHOT_VERIFIED, texts[i]);
        else if (i % 16 == 0) {
            char *text = strdup(whole);
            text[i - array_size(texts)] ^= 1;
            rig_write("snap/" SNAPSHOT_VERIFIED, text);
            free(text);
        } else
            continue;
        accept("snap", false, &reads);
        ck_assert(i >= array_size(texts) || reads.count == SUMMED);
    }
    free(whole);

    ck_assert_int_eq(unlink(in_snapshot(SNAPSHOT_VERIFIED)), 0);
    accept("snap", false, &reads);
    ck_assert_uint_eq(reads.count, SUMMED);
    ck_assert_int_eq(unlink(in_snapshot(SNAPSHOT_VERIFIED)), 0);
    ck_assert_int_eq(mkfifo(in_snapshot(SNAPSHOT_VERIFIED), 0600), 0); /* nobody waits */
    accept("snap", false, &reads);
    ck_assert_uint_eq(reads.count, SUMMED);
}
END_TEST

/* --- hostile ones ----------------------------------------------------------------------------- */

static json_t *read_facts(void)
{
    json_t *root = json_load_file(in_snapshot(SNAPSHOT_MANIFEST), 0, NULL);
    json_t *facts = json_incref(json_object_get(root, "snapshot"));
    ck_assert_ptr_nonnull(facts);
    json_decref(root);
    return facts;
}

/* As anybody can: checksums are no signatures. Takes the facts over. */
static void write_facts(json_t *facts)
{
    char sum[9];
    char *text = json_dumps(facts, JSON_COMPACT | JSON_SORT_KEYS);
    snprintf(sum, sizeof(sum), "%08x", crc32c(0, text, strlen(text)));
    free(text);
    json_t *root = json_pack("{ss, so}", "crc32c", sum, "snapshot", facts);
    text = json_dumps(root, 0);
    rig_write("snap/" SNAPSHOT_MANIFEST, text);
    free(text);
    json_decref(root);
}

START_TEST(a_newer_format_says_so)
{
    make_snapshot(true);
    json_t *facts = read_facts();
    json_object_set_new(facts, "format", json_integer(SNAPSHOT_FORMAT + 1));
    write_facts(facts);
    refuse("has format 2", "it is of a newer minivmm");
}
END_TEST

/* Each would be found whole if it were followed. */
START_TEST(names_that_lead_outside_are_refused)
{
    char absolute[300];
    struct stat folder;
    uint32_t sum;
    make_snapshot(false);
    rig_write("outside", "somebody's secret");
    snprintf(absolute, sizeof(absolute), "%s", rig_path("outside"));
    int fd = open(absolute, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(file_sum(fd, NULL, &sum), 0);
    close(fd);
    ck_assert_int_eq(symlink("../outside", in_snapshot("link")), 0);
    ck_assert_int_eq(symlink("..", in_snapshot("way")), 0);
    ck_assert_int_eq(symlink(".", in_snapshot("here")), 0);
    ck_assert_int_eq(mkfifo(in_snapshot("pipe"), 0600), 0);
    ck_assert_int_eq(lstat(in_snapshot("notes"), &folder), 0);
    const struct {
        const char *name;
        json_int_t size;
    } cases[] = {
        {"../outside", 17},
        {absolute, 17},
        {"notes/../../outside", 17},
        {"link", 17},
        {"way/outside", 17},
        {"", 17},
        {"..", 17},
        {".", 17},
        {"notes/..", 17},
        {"pipe", 0},
        {"notes", folder.st_size},
        {"/dev/null", 0},
        {"here/link", 17},
        {"here/way/outside", 17},
    };
    for (size_t i = 0; i < array_size(cases); i++) {
        char text[9];
        json_t *facts = read_facts();
        json_t *names = json_object();
        snprintf(text, sizeof(text), "%08x", sum);
        json_object_set_new(names, cases[i].name,
                            json_pack("{sI, ss}", "size", cases[i].size, "crc32c", text));
        json_object_set_new(facts, "files", names);
        write_facts(facts);
        struct err err = {0};
        ck_assert_msg(verify("snap", true, NULL, &err) < 0, "\"%s\" was followed", cases[i].name);
        ck_assert_msg(err.kind == ERR_DEFINITION, "%s: %s", cases[i].name, err.text);
    }
}
END_TEST

START_TEST(a_file_that_is_described_badly_is_refused)
{
    static const char *const descriptions[] = {
        "17",
        "null",
        "[]",
        "\"27\"",
        "{}",
        "{\"size\": -1}",
        "{\"size\": \"27\"}",
        "{\"size\": 27.0}",
        "{\"size\": 9223372036854775807}",
        "{\"size\": 27, \"crc32c\": \"\"}",
        "{\"size\": 27, \"crc32c\": \"zzzzzzzz\"}",
    };
    make_snapshot(false);
    for (size_t i = 0; i < array_size(descriptions); i++) {
        json_t *facts = read_facts();
        json_object_set_new(json_object_get(facts, "files"), "disk.img",
                            json_loads(descriptions[i], JSON_DECODE_ANY, NULL));
        write_facts(facts);
        refuse("", "damaged");
    }
}
END_TEST

START_TEST(a_manifest_that_is_no_manifest_is_refused)
{
    static const char *const texts[] = {
        "",
        "[]",
        "null",
        "{\"crc32c\": \"00000000\"}",
        "{\"crc32c\": \"00000000\", \"snapshot\": []}",
        "{\"crc32c\": 0, \"snapshot\": {}}",
        "{\"snapshot\": {}, \"snapshot\": {}}",
    };
    make_snapshot(false);
    for (size_t i = 0; i < array_size(texts); i++) {
        rig_write("snap/" SNAPSHOT_MANIFEST, texts[i]);
        refuse(SNAPSHOT_MANIFEST, "it does not fit its checksum");
    }
}
END_TEST

/* Whoever opens it waits for nobody. */
START_TEST(a_manifest_that_is_no_file_is_refused)
{
    struct err err = {0};
    make_snapshot(false);
    ck_assert_int_eq(unlink(in_snapshot(SNAPSHOT_MANIFEST)), 0);
    ck_assert_int_eq(mkfifo(in_snapshot(SNAPSHOT_MANIFEST), 0600), 0);
    ck_assert_int_lt(verify("snap", false, NULL, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, SNAPSHOT_MANIFEST));
    ck_assert_int_eq(unlink(in_snapshot(SNAPSHOT_MANIFEST)), 0);
    ck_assert_int_eq(mkdir(in_snapshot(SNAPSHOT_MANIFEST), 0700), 0);
    ck_assert_int_lt(verify("snap", false, NULL, &err), 0);
    ck_assert_int_eq(rmdir(in_snapshot(SNAPSHOT_MANIFEST)), 0);
    ck_assert_int_eq(symlink("../manifest.json", in_snapshot(SNAPSHOT_MANIFEST)), 0);
    rig_write("manifest.json", "{}");
    ck_assert_int_lt(verify("snap", false, NULL, &err), 0);
}
END_TEST

/* Who maps a memory that is shorter than the machine's dies as soon as its guest looks there. */
START_TEST(a_memory_of_another_size_is_refused_whatever_is_said_of_it)
{
    make_snapshot(true);
    ck_assert_int_eq(truncate(in_snapshot(SNAPSHOT_MEMORY), PAGE_SIZE), 0);
    json_t *facts = read_facts();
    json_object_set_new(json_object_get(facts, "files"), SNAPSHOT_MEMORY,
                        json_pack("{sI}", "size", (json_int_t)PAGE_SIZE));
    write_facts(json_incref(facts));
    int folder = open_folder("snap");
    int memory = openat(folder, SNAPSHOT_MEMORY, O_RDONLY | O_CLOEXEC);
    json_t *stamps = json_object();
    json_object_set_new(stamps, SNAPSHOT_MEMORY, snapshot_stamp(memory));
    ck_assert_int_eq(snapshot_write_stamps(folder, facts, stamps, NULL), 0);
    json_decref(facts);
    close(memory);
    close(folder);
    refuse("memory", "4096 bytes instead of");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot");
    TCase *whole = tcase_create("whole"), *damaged = tcase_create("damaged"),
          *verified = tcase_create("verified"), *hostile = tcase_create("hostile");
    tcase_add_test(whole, what_was_sealed_is_whole_and_says_what_it_is);
    tcase_add_test(whole, a_vm_that_did_not_run_has_no_memory);
    tcase_add_test(whole, what_is_no_snapshot_says_so);
    tcase_add_test(whole, a_definitions_sum_is_that_of_its_file);
    tcase_add_test(whole, a_state_is_never_written_over_another);
    tcase_add_test(whole, a_state_has_its_golden_bytes_and_they_mean_the_same);
    tcase_add_test(damaged, a_state_that_is_cut_or_changed_is_refused);
    tcase_add_test(damaged, each_missing_file_is_named);
    tcase_add_test(damaged, each_file_of_another_length_is_named);
    tcase_add_test(damaged, each_damaged_file_is_named);
    tcase_add_test(damaged, each_bit_of_a_manifest_counts);
    tcase_add_test(damaged, a_mixture_is_refused);
    tcase_add_test(verified, what_nobody_touched_is_not_read_again);
    tcase_add_test(verified, what_was_touched_is_read_once);
    tcase_add_test(verified, a_copy_is_read_once);
    tcase_add_test(verified, a_damaged_list_of_what_was_verified_is_of_no_use);
    tcase_add_test(hostile, a_newer_format_says_so);
    tcase_add_test(hostile, names_that_lead_outside_are_refused);
    tcase_add_test(hostile, a_file_that_is_described_badly_is_refused);
    tcase_add_test(hostile, a_manifest_that_is_no_manifest_is_refused);
    tcase_add_test(hostile, a_manifest_that_is_no_file_is_refused);
    tcase_add_test(hostile, a_memory_of_another_size_is_refused_whatever_is_said_of_it);
    TCase *all[] = {whole, damaged, verified, hostile};
    for (size_t i = 0; i < array_size(all); i++) {
        tcase_add_unchecked_fixture(all[i], i == 0 ? rig_suite_begin : NULL,
                                    i + 1 == array_size(all) ? rig_suite_end : NULL);
        tcase_add_checked_fixture(all[i], rig_begin, NULL);
        tcase_set_timeout(all[i], 60);
        suite_add_tcase(suite, all[i]);
    }
    return unit_main(suite);
}
