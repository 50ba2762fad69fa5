/* SPDX-License-Identifier: MIT */
#include "tests/unit/folder_rig.h"
#include "vmm/identity.h"

#include <jansson.h>
#include <sys/stat.h>

#define FILE_OF(name) name "/" FOLDER_IDENTITY

static struct identity settle_with(const char *name, bool keep, enum identity_found expected)
{
    struct folder folder = rig_lock(name);
    struct identity identity;
    enum identity_found found = 0;
    struct err err = {0};

    ck_assert_msg(identity_settle(&identity, &folder, keep, &found, &err) == 0, "%s", err.text);
    ck_assert_int_eq(found, expected);
    char *whole = realpath(rig_path(name), NULL);
    ck_assert_str_eq(identity.birthplace.path, whole);
    free(whole);
    folder_close(&folder);
    return identity;
}

static struct identity settle(const char *name, enum identity_found expected)
{
    return settle_with(name, false, expected);
}

static void run(const char *command)
{
    char line[1024];

    snprintf(line, sizeof(line), "cd %s && %s", rig, command);
    ck_assert_msg(system(line) == 0, "%s", line); /* NOLINT(cert-env33-c) */
}

static void expect_same(const struct identity *a, const struct identity *b)
{
    ck_assert_mem_eq(a->uuid, b->uuid, 16);
    ck_assert_mem_eq(a->generation, b->generation, 16);
    ck_assert_mem_eq(a->macs, b->macs, sizeof(a->macs));
}

/* In everything that a guest or a network could see. */
static void expect_other(const struct identity *a, const struct identity *b)
{
    ck_assert_mem_ne(a->uuid, b->uuid, 16);
    ck_assert_mem_ne(a->generation, b->generation, 16);
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
        for (unsigned k = 0; k < MACHINE_MAX_NETS; k++)
            ck_assert_mem_ne(a->macs[i], b->macs[k], 6);
}

/* A value of identity.json by its path in it ("birthplace", "path"), taken over. */
static void change(const char *file, const char *outer, const char *key, json_t *value)
{
    json_t *root = json_load_file(rig_path(file), 0, NULL);
    json_t *object = outer ? json_object_get(root, outer) : root;

    ck_assert_ptr_nonnull(object);
    ck_assert_int_eq(json_object_set_new(object, key, value), 0);
    ck_assert_int_eq(json_dump_file(root, rig_path(file), 0), 0);
    json_decref(root);
}

START_TEST(a_new_identity_is_well_formed_and_random)
{
    struct identity first, second;
    char name[16];

    for (unsigned i = 0; i < 16; i++) {
        snprintf(name, sizeof(name), "web%u", i);
        rig_make_vm(name);
        struct identity identity = settle(name, IDENTITY_NEW);
        ck_assert_uint_eq(identity.uuid[6] >> 4, 4); /* RFC 4122: version and variant */
        ck_assert_uint_eq(identity.uuid[8] >> 6, 2);
        for (unsigned k = 0; k < MACHINE_MAX_NETS; k++) {
            ck_assert_uint_eq(identity.macs[k][0] & 3, 2); /* local, and no group */
            for (unsigned j = 0; j < k; j++)
                ck_assert_mem_ne(identity.macs[k], identity.macs[j], 6);
        }
        ck_assert_mem_ne(identity.uuid, identity.generation, 16);
        if (i == 0)
            first = identity;
        else if (i == 1)
            second = identity;
        else
            identity_finish(&identity);
    }
    expect_other(&first, &second);
    identity_finish(&first);
    identity_finish(&second);
}
END_TEST

START_TEST(what_is_written_is_what_is_read)
{
    rig_make_vm("web1");
    struct identity settled = settle("web1", IDENTITY_NEW), read;
    struct folder folder = rig_open("web1");
    struct stat stat_of;
    ck_assert_int_eq(identity_read(&read, &folder, NULL), 0);
    expect_same(&settled, &read);
    ck_assert_str_eq(read.birthplace.path, folder.path);
    ck_assert_str_eq(read.birthplace.machine, settled.birthplace.machine);
    ck_assert_int_eq(fstat(folder.fd, &stat_of), 0);
    ck_assert_uint_eq(read.birthplace.inode, stat_of.st_ino);
    ck_assert_uint_eq(read.birthplace.device, stat_of.st_dev);
    ck_assert_int_eq(read.birthplace.born_ns, settled.birthplace.born_ns);
    identity_finish(&settled);
    identity_finish(&read);
    identity_finish(&read);
    folder_close(&folder);
}
END_TEST

START_TEST(none_as_yet_is_told_from_a_damaged_one)
{
    struct identity identity;
    struct err err = {0};

    rig_make_vm("web1");
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(identity_read(&identity, &folder, &err), -ENOENT);
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    ck_assert_int_eq(folder_lock(&folder, NULL), 0); /* makes an empty one */
    ck_assert_int_eq(identity_read(&identity, &folder, &err), -ENOENT);
    folder_close(&folder);
}
END_TEST

/* The rules. */

START_TEST(a_second_start_changes_nothing)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    struct stat before, after;
    ck_assert_int_eq(stat(rig_path(FILE_OF("web1")), &before), 0);
    struct identity second = settle("web1", IDENTITY_KEPT);
    ck_assert_int_eq(stat(rig_path(FILE_OF("web1")), &after), 0);
    expect_same(&first, &second);
    ck_assert_uint_eq(before.st_ino, after.st_ino); /* not even written anew */
    identity_finish(&first);
    identity_finish(&second);
}
END_TEST

START_TEST(a_renamed_folder_is_the_same_vm)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run("mv web1 web2");
    struct identity second = settle("web2", IDENTITY_MOVED);
    struct identity third = settle("web2", IDENTITY_KEPT); /* it is at home there now */
    expect_same(&first, &second);
    expect_same(&first, &third);
    run("mkdir -p other/place && mv web2 other/place/web1");
    struct identity fourth = settle("other/place/web1", IDENTITY_MOVED);
    expect_same(&first, &fourth);
    identity_finish(&first);
    identity_finish(&second);
    identity_finish(&third);
    identity_finish(&fourth);
}
END_TEST

START_TEST(a_copy_is_a_vm_of_its_own)
{
    static const char *const ways[] = {"cp -r web1 web2", "cp -a web1 web2"};

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    rig_write("web1/" FOLDER_JOURNAL, "what befell web1\n");
    run(ways[_i]);
    struct identity copy = settle("web2", IDENTITY_COPIED);
    struct identity again = settle("web2", IDENTITY_KEPT);
    struct identity original = settle("web1", IDENTITY_KEPT);
    ck_assert_int_ne(access(rig_path("web2/" FOLDER_JOURNAL), F_OK), 0); /* it has a new history */
    ck_assert_int_eq(access(rig_path("web1/" FOLDER_JOURNAL), F_OK), 0);
    expect_other(&first, &copy);
    expect_same(&copy, &again);
    expect_same(&first, &original);
    identity_finish(&first);
    identity_finish(&copy);
    identity_finish(&again);
    identity_finish(&original);
}
END_TEST

START_TEST(a_copy_of_a_running_vm_is_one_too)
{
    struct identity first, copy;
    enum identity_found found;

    rig_make_vm("web1");
    struct folder running = rig_lock("web1");
    ck_assert_int_eq(identity_settle(&first, &running, false, &found, NULL), 0);
    run("cp -r web1 web2");
    copy = settle("web2", IDENTITY_COPIED);
    expect_other(&first, &copy);
    ck_assert_int_eq(folder_holder(rig_path("web1")), getpid());
    identity_finish(&first);
    identity_finish(&copy);
    folder_close(&running);
}
END_TEST

START_TEST(fifty_copies_are_fifty_vms)
{
    enum { COPIES = 50 };
    struct identity all[COPIES + 1];
    char command[64], name[16];

    rig_make_vm("web");
    all[COPIES] = settle("web", IDENTITY_NEW);
    for (unsigned i = 0; i < COPIES; i++) {
        snprintf(command, sizeof(command), "cp -r web web%u", i);
        run(command);
    }
    for (unsigned i = 0; i < COPIES; i++) {
        snprintf(name, sizeof(name), "web%u", i);
        all[i] = settle(name, IDENTITY_COPIED);
    }
    for (unsigned i = 0; i <= COPIES; i++) {
        for (unsigned k = 0; k < i; k++)
            expect_other(&all[i], &all[k]);
    }
    for (unsigned i = 0; i <= COPIES; i++)
        identity_finish(&all[i]);
}
END_TEST

START_TEST(keep_makes_a_copy_the_same_vm)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run("cp -r web1 web2");
    struct identity copy = settle_with("web2", true, IDENTITY_MOVED);
    struct identity again = settle_with("web2", true, IDENTITY_KEPT);
    expect_same(&first, &copy);
    expect_same(&first, &again);
    identity_finish(&first);
    identity_finish(&copy);
    identity_finish(&again);
}
END_TEST

/* mv web1 old; cp -r old web1: in whatever order they start. */
START_TEST(the_original_that_was_renamed_stays_the_original)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW), original, copy;
    run("mv web1 old && cp -r old web1");
    if (_i) {
        original = settle("old", IDENTITY_MOVED);
        copy = settle("web1", IDENTITY_COPIED);
    } else {
        copy = settle("web1", IDENTITY_COPIED);
        original = settle("old", IDENTITY_MOVED);
    }
    expect_same(&first, &original);
    expect_other(&first, &copy);
    identity_finish(&first);
    identity_finish(&original);
    identity_finish(&copy);
}
END_TEST

START_TEST(a_folder_restored_in_place_is_the_same_vm)
{
    static const char *const ways[] = {
        "tar -cf b.tar web1 && rm -r web1 && mkdir web2 && rmdir web2 && mkdir x y && tar -xf "
        "b.tar",
        "mkdir there && cp -a web1 there/web1 && rm -r web1 && ln -s there/web1 web1", /* a link */
    };

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run(ways[_i]);
    const char *name = _i == 0 ? "web1" : "there/web1";
    struct identity now = settle(name, IDENTITY_MOVED);
    struct identity again = settle(name, IDENTITY_KEPT);
    expect_same(&first, &now);
    expect_same(&first, &again);
    identity_finish(&first);
    identity_finish(&now);
    identity_finish(&again);
}
END_TEST

/* cp -r web1 web2; mv web1 old: what would be web1's by the name of its birthplace is a copy. */
START_TEST(a_copy_whose_original_was_renamed_far_away_is_a_copy)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run("cp -r web1 web2 && mkdir far && mv web1 far/old");
    struct identity copy = settle("web2", IDENTITY_COPIED);
    struct identity original = settle("far/old", IDENTITY_MOVED);
    ck_assert_mem_ne(first.uuid, copy.uuid, sizeof(first.uuid));
    expect_same(&first, &original);
    identity_finish(&first);
    identity_finish(&copy);
    identity_finish(&original);
}
END_TEST

START_TEST(a_folder_moved_across_file_systems_is_the_same_vm)
{
    char there[] = "/dev/shm/minivmm-identity-XXXXXX", command[200];
    struct stat here, shm;

    if (stat(rig, &here) < 0 || stat("/dev/shm", &shm) < 0 || here.st_dev == shm.st_dev)
        return; /* one file system only: the test of renames has it */
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    ck_assert_ptr_nonnull(mkdtemp(there));
    snprintf(command, sizeof(command), "mv web1 %s/web1 && ln -s %s/web1 web9", there, there);
    run(command);
    struct identity now = settle("web9", IDENTITY_MOVED);
    expect_same(&first, &now);
    snprintf(command, sizeof(command), "rm -r %s", there);
    run(command);
    identity_finish(&first);
    identity_finish(&now);
}
END_TEST

START_TEST(a_folder_whose_place_another_vm_has_taken_is_a_copy)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run("cp -a web1 web2 && rm -r web1");
    rig_make_vm("web1");
    struct identity other = settle("web2", IDENTITY_COPIED);
    expect_other(&first, &other);
    identity_finish(&first);
    identity_finish(&other);
}
END_TEST

START_TEST(on_another_machine_the_directory_decides)
{
    static const char machine[] = "0123456789abcdef0123456789abcdef";

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    if (first.birthplace.born_ns == 0) {
        fprintf(stderr, "SKIPPED: this file system tells no time of birth\n");
        identity_finish(&first);
        return;
    }
    /* Shared storage: another host starts the very folder. */
    change(FILE_OF("web1"), "birthplace", "machine", json_string(machine));
    struct identity second = settle("web1", IDENTITY_MOVED);
    expect_same(&first, &second);
    /* scp: nothing is at the birthplace's path here, but nobody knows about there. */
    change(FILE_OF("web1"), "birthplace", "machine", json_string(machine));
    run("cp -a web1 web2 && rm -r web1");
    struct identity third = settle("web2", IDENTITY_COPIED);
    expect_other(&first, &third);
    identity_finish(&first);
    identity_finish(&second);
    identity_finish(&third);
}
END_TEST

START_TEST(an_inode_that_is_used_again_is_another_directory)
{
    struct stat stat_of;

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run("cp -a web1 web2");
    ck_assert_int_eq(stat(rig_path("web2"), &stat_of), 0);
    change(FILE_OF("web2"), "birthplace", "inode", json_integer((json_int_t)stat_of.st_ino));
    struct identity copy = settle("web2",
                                  first.birthplace.born_ns ? IDENTITY_COPIED : IDENTITY_MOVED);
    if (first.birthplace.born_ns)
        expect_other(&first, &copy);
    identity_finish(&first);
    identity_finish(&copy);
}
END_TEST

START_TEST(without_a_time_of_birth_device_and_inode_decide)
{
    struct stat stat_of;

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    change(FILE_OF("web1"), "birthplace", "born", json_integer(0));
    struct identity second = settle("web1", IDENTITY_KEPT);
    expect_same(&first, &second);
    run("cp -a web1 web2");
    ck_assert_int_eq(stat(rig_path("web2"), &stat_of), 0);
    change(FILE_OF("web2"), "birthplace", "inode", json_integer((json_int_t)stat_of.st_ino));
    change(FILE_OF("web2"), "birthplace", "device", json_integer((json_int_t)stat_of.st_dev + 1));
    struct identity copy = settle("web2", IDENTITY_COPIED);
    expect_other(&first, &copy);
    identity_finish(&first);
    identity_finish(&second);
    identity_finish(&copy);
}
END_TEST

/* A snapshot of a subvolume: the same inode and time of birth, and the original still stands. */
START_TEST(a_snapshot_of_the_whole_file_system_is_a_copy)
{
    char command[512];

    if (!rig_may_mount())
        return;
    rig_make_folder("a");
    rig_make_folder("b");
    snprintf(command, sizeof(command),
             "truncate -s 8M one && mkfs.ext4 -q one && mount -o loop one a && mkdir a/web1 && "
             "echo '{}' >a/web1/vm.json");
    char line[1024];
    snprintf(line, sizeof(line), "cd %s && { %s; } 2>/dev/null", rig, command);
    if (system(line) != 0) { /* NOLINT(cert-env33-c) */
        fprintf(stderr, "SKIPPED: no loop devices\n");
        return;
    }
    struct identity first = settle("a/web1", IDENTITY_NEW);
    run("sync -f a && cp one two && mount -o loop two b");
    struct identity copy = settle("b/web1", IDENTITY_COPIED);
    struct identity original = settle("a/web1", IDENTITY_KEPT);
    expect_other(&first, &copy);
    expect_same(&first, &original);
    identity_finish(&copy);
    run("umount b && cp one two && umount a && mount -o loop two b");
    struct identity moved = settle("b/web1", IDENTITY_MOVED); /* that disk, mounted elsewhere */
    expect_same(&first, &moved);
    identity_finish(&first);
    identity_finish(&original);
    identity_finish(&moved);
    run("umount b");
}
END_TEST

/* The file. */

START_TEST(macs_that_a_later_version_wants_are_added)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    change(FILE_OF("web1"), NULL, "macs", json_pack("[s]", "52:54:00:12:34:56"));
    change(FILE_OF("web1"), NULL, "unknown", json_true());
    struct identity second = settle("web1", IDENTITY_KEPT);
    struct identity third = settle("web1", IDENTITY_KEPT);
    ck_assert_mem_eq(second.macs[0], "\x52\x54\x00\x12\x34\x56", 6);
    ck_assert_uint_eq(second.macs[7][0] & 3, 2);
    expect_same(&second, &third);
    identity_finish(&first);
    identity_finish(&second);
    identity_finish(&third);
}
END_TEST

static void expect_damaged(const char *what)
{
    struct folder folder = rig_lock("web1");
    struct identity identity = {.uuid = {7}};
    enum identity_found found = 99;
    struct err err = {0};
    struct stat before, after;

    ck_assert_int_eq(fstat(folder.lock, &before), 0);
    ck_assert_msg(identity_settle(&identity, &folder, false, &found, &err) == -EINVAL, "%s", what);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert(strncmp(err.text, "web1/identity.json is damaged: ", 31) == 0);
    ck_assert(strstr(err.hint, "remove it"));
    for (const char *at = err.text; *at; at++)
        ck_assert((unsigned char)*at >= ' ');
    ck_assert_int_eq(found, 99);
    ck_assert_uint_eq(identity.uuid[0], 7);
    ck_assert_int_eq(fstat(folder.lock, &after), 0);
    ck_assert_uint_eq(before.st_ino, after.st_ino); /* it is left for who wants to mend it */
    ck_assert_int_eq(before.st_size, after.st_size);
    folder_close(&folder);
}

START_TEST(a_damaged_file_is_refused_and_left)
{
    static const char *const texts[] = {
        " ",
        "{",
        "{}",
        "[]",
        "null",
        "\x1b[31m{",
        "{\"uuid\": \"\\u0000\"}",
        "{\"uuid\": 1, \"uuid\": 2}",
    };

    rig_make_vm("web1");
    for (size_t i = 0; i < array_size(texts); i++) {
        rig_write(FILE_OF("web1"), texts[i]);
        expect_damaged(texts[i]);
    }
    char *deep = malloc(70001);
    memset(deep, '[', 70000);
    deep[70000] = 0;
    rig_write(FILE_OF("web1"), deep);
    expect_damaged("too long");
    deep[60000] = 0;
    rig_write(FILE_OF("web1"), deep);
    expect_damaged("too deep");
    free(deep);
}
END_TEST

START_TEST(a_file_cut_short_anywhere_is_refused)
{
    rig_make_vm("web1");
    struct identity identity = settle("web1", IDENTITY_NEW);
    char *text = rig_read(FILE_OF("web1"));
    for (size_t length = strlen(text) - 3; length > 0; length -= length > 7 ? 7 : length) {
        text[length] = 0;
        rig_write(FILE_OF("web1"), text);
        expect_damaged("cut");
    }
    free(text);
    identity_finish(&identity);
}
END_TEST

START_TEST(each_value_is_checked)
{
    static const struct {
        const char *outer, *key, *json;
    } wrong[] = {
        {NULL, "uuid", "\"00000000-0000-0000-0000-000000000000\""},
        {NULL, "uuid", "\"6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f8\""},
        {NULL, "uuid", "null"},
        {NULL, "generation", "\"x\""},
        {NULL, "macs", "{}"},
        {NULL, "macs", "[1]"},
        {NULL, "macs", "[\"01:00:00:00:00:00\"]"}, /* a group's */
        {NULL, "macs", "[\"00:00:00:00:00:00\"]"},
        {NULL, "macs", "[\"02:00:00:00:00:01\", \"02:00:00:00:00:01\"]"},
        {NULL, "macs", "[1,2,3,4,5,6,7,8,9]"},
        {NULL, "birthplace", "[]"},
        {"birthplace", "machine", "\"0123456789abcdef0123456789abcdef0\""},
        {"birthplace", "machine", "\"../../../../../../../etc/passwd.\""},
        {"birthplace", "device", "1.5"},
        {"birthplace", "inode", "\"7\""},
        {"birthplace", "born", "null"},
        {"birthplace", "path", "\"web1\""},
        {"birthplace", "path", "\"\""},
        {"birthplace", "path", "7"},
    };

    rig_make_vm("web1");
    struct identity identity = settle("web1", IDENTITY_NEW);
    char *text = rig_read(FILE_OF("web1"));
    for (size_t i = 0; i < array_size(wrong); i++) {
        rig_write(FILE_OF("web1"), text);
        change(FILE_OF("web1"), wrong[i].outer, wrong[i].key,
               json_loads(wrong[i].json, JSON_DECODE_ANY, NULL));
        expect_damaged(wrong[i].json);
    }
    free(text);
    identity_finish(&identity);
}
END_TEST

START_TEST(numbers_of_64_bits_survive)
{
    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW), second;
    change(FILE_OF("web1"), "birthplace", "inode", json_integer(-2));
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(identity_read(&second, &folder, NULL), 0);
    ck_assert_uint_eq(second.birthplace.inode, UINT64_MAX - 1);
    folder_close(&folder);
    identity_finish(&first);
    identity_finish(&second);
}
END_TEST

START_TEST(what_cannot_be_written_is_an_error_and_the_old_file_stays)
{
    struct identity identity = {.uuid = {7}};
    enum identity_found found = 99;
    struct err err = {0};

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    run("cp -a web1 web2");
    char *before = rig_read(FILE_OF("web2"));
    ck_assert_int_eq(mkdir(rig_path("web2/.identity.json.new"), 0700), 0); /* in its way */
    struct folder folder = rig_lock("web2");
    ck_assert_int_lt(identity_settle(&identity, &folder, false, &found, &err), 0);
    ck_assert(strstr(err.text, "web2: cannot write identity.json"));
    ck_assert_int_eq(found, 99);
    ck_assert_uint_eq(identity.uuid[0], 7);
    char *after = rig_read(FILE_OF("web2"));
    ck_assert_str_eq(before, after);
    ck_assert_int_eq(folder_holder(rig_path("web2")), getpid());
    folder_close(&folder);
    free(before);
    free(after);
    identity_finish(&first);
}
END_TEST

START_TEST(a_new_generation_is_written_down_and_changes_nothing_else)
{
    enum identity_found found;
    struct identity identity;

    rig_make_vm("web1");
    struct identity first = settle("web1", IDENTITY_NEW);
    struct folder folder = rig_lock("web1");
    ck_assert_int_eq(identity_settle(&identity, &folder, false, &found, NULL), 0);
    ck_assert_int_eq(identity_renew_generation(&identity, &folder, NULL), 0);
    folder_close(&folder);
    struct identity second = settle("web1", IDENTITY_KEPT);
    expect_same(&identity, &second);
    ck_assert_mem_eq(first.uuid, second.uuid, 16);
    ck_assert_mem_eq(first.macs, second.macs, sizeof(first.macs));
    ck_assert_mem_ne(first.generation, second.generation, 16);
    identity_finish(&identity);
    identity_finish(&first);
    identity_finish(&second);
}
END_TEST

START_TEST(serials_are_of_twenty_characters_and_distinct)
{
    struct identity identity = {.uuid = {0x6f, 0x1e, 0xd0, 0x02, 0xab, 0x5a, 0x4b, 0x0c, 0x8d}};
    char serial[21], text[37];

    identity_disk_serial(&identity, 0, serial);
    ck_assert_str_eq(serial, "6f1ed002ab5a4b0c-000");
    identity_disk_serial(&identity, 18, serial);
    ck_assert_str_eq(serial, "6f1ed002ab5a4b0c-018");
    identity_disk_serial(&identity, UINT32_MAX, serial);
    ck_assert_uint_eq(strlen(serial), 20);
    identity_format_uuid(identity.uuid, text);
    ck_assert_str_eq(text, "6f1ed002-ab5a-4b0c-8d00-000000000000");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("identity");
    TCase *tcase = tcase_create("identity");

    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, rig_begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_new_identity_is_well_formed_and_random);
    tcase_add_test(tcase, what_is_written_is_what_is_read);
    tcase_add_test(tcase, none_as_yet_is_told_from_a_damaged_one);
    tcase_add_test(tcase, a_second_start_changes_nothing);
    tcase_add_test(tcase, a_renamed_folder_is_the_same_vm);
    tcase_add_loop_test(tcase, a_copy_is_a_vm_of_its_own, 0, 2);
    tcase_add_test(tcase, a_copy_of_a_running_vm_is_one_too);
    tcase_add_test(tcase, fifty_copies_are_fifty_vms);
    tcase_add_test(tcase, keep_makes_a_copy_the_same_vm);
    tcase_add_loop_test(tcase, the_original_that_was_renamed_stays_the_original, 0, 2);
    tcase_add_loop_test(tcase, a_folder_restored_in_place_is_the_same_vm, 0, 2);
    tcase_add_test(tcase, a_copy_whose_original_was_renamed_far_away_is_a_copy);
    tcase_add_test(tcase, a_folder_moved_across_file_systems_is_the_same_vm);
    tcase_add_test(tcase, a_folder_whose_place_another_vm_has_taken_is_a_copy);
    tcase_add_test(tcase, on_another_machine_the_directory_decides);
    tcase_add_test(tcase, an_inode_that_is_used_again_is_another_directory);
    tcase_add_test(tcase, without_a_time_of_birth_device_and_inode_decide);
    tcase_add_test(tcase, a_snapshot_of_the_whole_file_system_is_a_copy);
    tcase_add_test(tcase, macs_that_a_later_version_wants_are_added);
    tcase_add_test(tcase, a_damaged_file_is_refused_and_left);
    tcase_add_test(tcase, a_file_cut_short_anywhere_is_refused);
    tcase_add_test(tcase, each_value_is_checked);
    tcase_add_test(tcase, numbers_of_64_bits_survive);
    tcase_add_test(tcase, what_cannot_be_written_is_an_error_and_the_old_file_stays);
    tcase_add_test(tcase, a_new_generation_is_written_down_and_changes_nothing_else);
    tcase_add_test(tcase, serials_are_of_twenty_characters_and_distinct);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
