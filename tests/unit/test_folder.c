/* SPDX-License-Identifier: MIT */
#include "tests/unit/folder_rig.h"

#include <signal.h>

/* Names. */

START_TEST(names_that_people_give_are_good)
{
    static const char *const names[] = {
        "web1", "my web server", "Büro-Rechner", "数据库", "a.b", "x", "_", "🐧"};

    for (size_t i = 0; i < array_size(names); i++)
        ck_assert_int_eq(folder_check_name(names[i], NULL), 0);
}
END_TEST

START_TEST(names_that_would_be_trouble_are_refused_with_a_reason)
{
    char long_name[202];
    memset(long_name, 'x', 201);
    long_name[201] = 0;
    const char *const names[] = {"",
                                 ".",
                                 "..",
                                 ".hidden",
                                 "-f",
                                 "--force",
                                 "a/b",
                                 "/",
                                 "a\nb",
                                 "a\x1b[31mb",
                                 "a\x7f",
                                 " a",
                                 "a ",
                                 "\xff\xfe",
                                 "\xc0\xaf",
                                 "\xed\xa0\x80",
                                 "a\u202eb",
                                 "a\u200bb",
                                 "\xf4\x90\x80\x80",
                                 "a\xc3",
                                 long_name};

    for (size_t i = 0; i < array_size(names); i++) {
        struct err err = {0};
        ck_assert_msg(folder_check_name(names[i], &err) == -EINVAL, "%zu", i);
        ck_assert_int_eq(err.kind, ERR_USAGE);
        for (const char *at = err.text; *at; at++) /* nothing of it reaches a terminal raw */
            ck_assert_msg((unsigned char)*at >= 0x20 && *at != 0x7f, "%zu", i);
    }
}
END_TEST

/* Opening. */

START_TEST(a_folder_with_a_definition_is_a_vm)
{
    rig_make_vm("web1");
    rig_make_folder("none");
    rig_write("file", "");
    ck_assert(folder_is_vm(rig_path("web1")));
    ck_assert(folder_is_vm(rig_path("web1/")));
    ck_assert(!folder_is_vm(rig_path("none")));
    ck_assert(!folder_is_vm(rig_path("file")));
    ck_assert(!folder_is_vm(rig_path("nothing")));
}
END_TEST

START_TEST(the_path_is_whole_and_without_links)
{
    rig_make_vm("web1");
    ck_assert_int_eq(symlink("web1", rig_path("link")), 0);
    ck_assert_int_eq(chdir(rig), 0);
    static const char *const ways[] = {"web1", "./web1/", "link", "web1/../link/."};
    for (size_t i = 0; i < array_size(ways); i++) {
        struct folder folder;
        ck_assert_int_eq(folder_open(&folder, ways[i], NULL), 0);
        ck_assert_str_eq(folder.path, rig_path("web1"));
        ck_assert_str_eq(folder.name, "web1");
        ck_assert_int_eq(folder.lock, -1);
        folder_close(&folder);
        folder_close(&folder);
    }
}
END_TEST

static void make_long(char ret_name[512])
{
    char *at = ret_name;

    for (unsigned i = 0; i < 4; i++) {
        at += sprintf(at, "%sein langer Name, größer als üblich, %u xxxxxxxxxxxxxxxxxxxxxxxx",
                      i ? "/" : "", i);
        rig_make_folder(ret_name);
    }
    strcpy(at, "/web 1");
    rig_make_vm(ret_name);
}

START_TEST(long_paths_with_spaces_and_umlauts_are_locked_and_written)
{
    char name[512], identity[600];

    make_long(name);
    ck_assert_uint_gt(strlen(rig_path(name)), 200);
    struct folder folder = rig_lock(name);
    ck_assert_str_eq(folder.name, "web 1");
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, "x", 1, NULL), 0);
    ck_assert_int_eq(folder_holder(rig_path(name)), getpid());
    folder_close(&folder);
    snprintf(identity, sizeof(identity), "%s/" FOLDER_IDENTITY, name);
    char *text = rig_read(identity);
    ck_assert_str_eq(text, "x");
    free(text);
}
END_TEST

static struct err refuse(const char *path, int error, enum err_kind kind)
{
    struct folder folder = {.fd = -7};
    struct err err = {0};

    ck_assert_int_eq(folder_open(&folder, path, &err), -error);
    ck_assert_int_eq(err.kind, kind);
    ck_assert_int_eq(folder.fd, -7);
    return err;
}

START_TEST(what_is_no_vm_is_refused_with_what_is_there)
{
    rig_make_vm("web1");
    ck_assert_str_eq(refuse(rig_path("web2"), ENOENT, ERR_NOT_FOUND).hint, "did you mean web1?");
    refuse(rig_path("web1/none/x"), ENOENT, ERR_NOT_FOUND);
    struct err err = refuse(rig, ENOENT, ERR_NOT_FOUND);
    ck_assert_str_eq(err.hint, "VMs in it: web1");

    rig_make_folder("empty");
    err = refuse(rig_path("empty"), ENOENT, ERR_NOT_FOUND);
    ck_assert_str_eq(err.text, "empty is no VM: there is no vm.json");
    ck_assert(strstr(err.hint, "it is empty"));
    rig_write("empty/disk.img", "");
    ck_assert(strstr(refuse(rig_path("empty"), ENOENT, ERR_NOT_FOUND).hint, "in it: disk.img"));
    err = refuse(rig_path("empty/disk.img"), ENOTDIR, ERR_NOT_FOUND);
    ck_assert(strstr(err.text, "disk.img is no folder"));
    refuse("", ENOENT, ERR_NOT_FOUND);
}
END_TEST

START_TEST(a_mistyped_name_gets_the_nearest_vm_or_file_as_hint)
{
    struct err err = {0};

    rig_make_vm("button");
    rig_write("debian.img", "");
    folder_hint_at_nearest(rig_path("butto"), true, &err);
    ck_assert_str_eq(err.hint, "did you mean button?");
    folder_hint_at_nearest(rig_path("debain.img"), true, &err);
    ck_assert_str_eq(err.hint, "did you mean debian.img?");
    folder_hint_at_nearest(rig_path("debain.img"), false, &err);
    ck_assert_str_eq(err.hint, "'minivmm list' shows the VMs below here");
}
END_TEST

START_TEST(a_path_that_is_no_text_is_refused)
{
    rig_make_vm("a\xff");
    ck_assert_str_eq(refuse(rig_path("a\xff"), EILSEQ, ERR_FAILED).hint, "rename the folder");
}
END_TEST

START_TEST(hints_of_a_crowded_folder_stay_inside_their_buffers)
{
    char name[64];

    rig_make_folder("many");
    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "many/a file with some name %u", i);
        rig_write(name, "");
    }
    refuse(rig_path("many"), ENOENT, ERR_NOT_FOUND);
    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "many/a machine with some name %u", i);
        rig_make_vm(name);
    }
    struct err err = refuse(rig_path("many"), ENOENT, ERR_NOT_FOUND);
    ck_assert(strstr(err.hint, "VMs in it: a machine with some name 0, "));
}
END_TEST

/* The lock. */

START_TEST(a_second_lock_names_the_holder)
{
    struct err err = {0};
    char sentence[100];

    rig_make_vm("web1");
    ck_assert_int_eq(folder_holder(rig_path("web1")), 0);
    ck_assert_int_eq(folder_holder(rig_path("none")), 0);
    struct folder first = rig_lock("web1"), second = rig_open("web1");
    ck_assert_int_eq(folder_lock(&first, NULL), 0); /* has it already */
    ck_assert_int_eq(folder_lock(&second, &err), -EBUSY);
    ck_assert_int_eq(err.kind, ERR_STATE);
    snprintf(sentence, sizeof(sentence), "web1 is in use (pid %d)", getpid());
    ck_assert_str_eq(err.text, sentence);
    ck_assert_int_eq(folder_holder(rig_path("web1")), getpid());
    ck_assert(folder_is_locked(rig_path("web1")));
    folder_close(&first);
    ck_assert(!folder_is_locked(rig_path("web1")));
    ck_assert_int_eq(folder_lock(&second, NULL), 0);
    folder_close(&second);
}
END_TEST

START_TEST(the_lock_stays_where_identity_is_replaced_and_the_folder_moved)
{
    struct err err = {0};

    rig_make_vm("web1");
    struct folder first = rig_lock("web1");
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(folder_write_file(&first, FOLDER_IDENTITY, "{}", 2, NULL), 0);
        struct folder second = rig_open("web1");
        ck_assert_int_eq(folder_lock(&second, &err), -EBUSY);
        ck_assert_int_eq(folder_holder(rig_path("web1")), getpid());
        folder_close(&second);
    }
    ck_assert_int_eq(rename(rig_path("web1"), rig_path("web2")), 0);
    ck_assert_int_eq(folder_write_file(&first, FOLDER_IDENTITY, "{}", 2, NULL), 0);
    struct folder second = rig_open("web2");
    ck_assert_int_eq(folder_lock(&second, &err), -EBUSY);
    folder_close(&second);
    folder_close(&first);
}
END_TEST

START_TEST(a_lock_without_an_identity_leaves_no_file)
{
    rig_make_vm("web1");
    struct folder folder = rig_lock("web1");
    ck_assert_int_eq(access(rig_path("web1/" FOLDER_IDENTITY), F_OK), 0);
    folder_close(&folder);
    ck_assert_int_ne(access(rig_path("web1/" FOLDER_IDENTITY), F_OK), 0);
    folder = rig_lock("web1");
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, "{}", 2, NULL), 0);
    folder_close(&folder);
    ck_assert_int_eq(access(rig_path("web1/" FOLDER_IDENTITY), F_OK), 0);
}
END_TEST

START_TEST(a_copy_has_a_lock_of_its_own)
{
    rig_make_vm("web1");
    struct folder first = rig_lock("web1");
    rig_make_vm("web2");
    rig_write("web2/" FOLDER_IDENTITY, "");
    struct folder copy = rig_lock("web2");
    folder_close(&copy);
    folder_close(&first);
}
END_TEST

/* One round: all begin at once, and hold what they have got until all have tried. */
struct round {
    int begin[2], tried[2], end[2];
    bool replace; /* the winner replaces identity.json at once */
};

static void contend(void *ctx)
{
    struct round *round = ctx;
    struct folder folder;
    char c;

    close(round->begin[1]);
    close(round->end[1]);
    if (folder_open(&folder, rig_path("web1"), NULL) < 0)
        _exit(9);
    (void)!read(round->begin[0], &c, 1);
    int r = folder_lock(&folder, NULL);
    if (r == 0 && round->replace && folder_write_file(&folder, FOLDER_IDENTITY, "{}", 2, NULL) < 0)
        _exit(9);
    c = r == 0 ? 'w' : r == -EBUSY ? 'l' : '?';
    (void)!write(round->tried[1], &c, 1);
    (void)!read(round->end[0], &c, 1);
}

START_TEST(of_many_at_once_exactly_one_wins)
{
    enum { ROUNDS = 200, CHILDREN = 3 };

    rig_make_vm("web1");
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct round round = {.replace = _i};
        unsigned winners = 0, losers = 0;
        pid_t pids[CHILDREN];

        if (i % 4 == 0)
            unlink(rig_path("web1/" FOLDER_IDENTITY)); /* they race for making it, too */
        ck_assert(pipe(round.begin) == 0 && pipe(round.tried) == 0 && pipe(round.end) == 0);
        for (unsigned k = 0; k < CHILDREN; k++)
            pids[k] = rig_fork(contend, &round);
        close(round.begin[1]);
        for (unsigned k = 0; k < CHILDREN; k++) {
            char c = 0;
            ck_assert_int_eq(read(round.tried[0], &c, 1), 1);
            winners += c == 'w';
            losers += c == 'l';
        }
        close(round.end[1]);
        for (unsigned k = 0; k < CHILDREN; k++)
            ck_assert_int_eq(rig_wait(pids[k]), 0);
        ck_assert_msg(winners == 1 && losers == CHILDREN - 1, "round %u: %u won, %u lost", i,
                      winners, losers);
        close(round.begin[0]);
        close(round.end[0]);
        close(round.tried[0]);
        close(round.tried[1]);
    }
}
END_TEST

static void replace_for_ever(void *ctx)
{
    struct folder folder;

    if (folder_open(&folder, rig_path("web1"), NULL) < 0 || folder_lock(&folder, NULL) < 0)
        _exit(9);
    (void)!write(*(int *)ctx, "x", 1);
    for (;;)
        if (folder_write_file(&folder, FOLDER_IDENTITY, "{}", 2, NULL) < 0)
            _exit(9);
}

/* In memory, where a file is replaced a hundred thousand times a second: the moments that could go
 * wrong are short. */
START_TEST(nobody_slips_in_while_the_holder_replaces_identity)
{
    struct err err = {0};
    int ready[2];
    char c;

    if (!rig_may_mount() || mount("none", rig, "tmpfs", 0, NULL) < 0)
        fprintf(stderr, "on a disk this test sees less\n");
    const char *web1 = rig_make_vm("web1");
    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = rig_fork(replace_for_ever, &ready[1]);
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    struct folder folder = rig_open("web1");
    for (unsigned i = 0; i < 20000; i++) {
        ck_assert_int_eq(folder_lock(&folder, i % 1000 ? NULL : &err), -EBUSY);
        for (unsigned k = 0; k < 5; k++)
            ck_assert(folder_is_locked(web1));
    }
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    rig_wait(pid);
    ck_assert_int_eq(folder_lock(&folder, NULL), 0); /* with the killed one its lock has gone */
    folder_close(&folder);
    umount2(rig, MNT_DETACH);
}
END_TEST

START_TEST(what_is_no_plain_file_is_no_lock)
{
    struct err err = {0};

    rig_make_vm("web1");
    rig_write("elsewhere", "precious");
    for (unsigned i = 0; i < 3; i++) {
        const char *path = rig_path("web1/" FOLDER_IDENTITY);
        ck_assert_int_eq(i == 0   ? symlink("../elsewhere", path)
                         : i == 1 ? mkfifo(path, 0600)
                                  : mkdir(path, 0700),
                         0);
        struct folder folder = rig_open("web1");
        ck_assert_int_eq(folder_lock(&folder, &err), -EINVAL);
        ck_assert_int_eq(err.kind, ERR_DEFINITION);
        ck_assert_int_eq(folder.lock, -1);
        ck_assert_int_eq(folder_holder(rig_path("web1")), 0);
        folder_close(&folder);
        ck_assert_int_eq(remove(path), 0);
    }
}
END_TEST

START_TEST(a_removed_folder_cannot_be_locked)
{
    struct err err = {0};

    rig_make_vm("web1");
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(unlink(rig_path("web1/vm.json")), 0);
    ck_assert_int_eq(rmdir(rig_path("web1")), 0);
    ck_assert_int_eq(folder_lock(&folder, &err), -ENOENT);
    ck_assert_str_eq(err.text, "web1 has been removed");
    folder_close(&folder);
}
END_TEST

START_TEST(on_a_read_only_file_system_a_folder_cannot_be_locked)
{
    struct err err = {0};

    rig_make_vm("web1");
    if (_i)
        rig_write("web1/" FOLDER_IDENTITY, "");
    if (!rig_may_mount())
        return;
    ck_assert_int_eq(mount(rig, rig, NULL, MS_BIND, NULL), 0);
    ck_assert_int_eq(mount(NULL, rig, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(folder_lock(&folder, &err), -EROFS);
    ck_assert_str_eq(err.text, "web1 is on a read-only file system: it cannot run there");
    ck_assert(strstr(err.hint, "cp -r"));
    folder_close(&folder);
    umount2(rig, MNT_DETACH);
}
END_TEST

START_TEST(without_permission_a_folder_cannot_be_locked)
{
    struct err err = {0};

    rig_make_vm("web1");
    if (_i)
        rig_write("web1/" FOLDER_IDENTITY, "");
    chmod(rig_root, 0755);
    chmod(rig, 0755);
    if (!rig_become_nobody())
        return;
    chmod(rig_path("web1/" FOLDER_IDENTITY), 0444); /* where the test was nobody's before */
    chmod(rig_path("web1"), 0555);
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(folder_lock(&folder, &err), -EACCES);
    ck_assert_str_eq(err.text, "cannot lock web1 (its identity.json): Permission denied");
    ck_assert(strstr(err.hint, "writable"));
    folder_close(&folder);
    chmod(rig_path("web1"), 0755);
}
END_TEST

/* Writing. */

START_TEST(a_file_is_replaced_whole_and_keeps_its_mode)
{
    struct stat stat_of;
    static const char text[] = "{\"cpus\": 2}\n";

    rig_make_vm("web1");
    rig_write("elsewhere", "precious");
    ck_assert_int_eq(chmod(rig_path("web1/vm.json"), 0600), 0);
    ck_assert_int_eq(symlink("../elsewhere", rig_path("web1/.vm.json.new")), 0);
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(folder_write_file(&folder, "vm.json", text, strlen(text), NULL), 0);
    ck_assert_int_eq(folder.lock, -1);
    char *now = rig_read("web1/vm.json"), *other = rig_read("elsewhere");
    ck_assert_str_eq(now, text);
    ck_assert_str_eq(other, "precious");
    ck_assert_int_eq(stat(rig_path("web1/vm.json"), &stat_of), 0);
    ck_assert_uint_eq(stat_of.st_mode & 0777, 0600);
    ck_assert_int_ne(access(rig_path("web1/.vm.json.new"), F_OK), 0);
    free(now);
    free(other);
    folder_close(&folder);
}
END_TEST

START_TEST(what_root_writes_belongs_to_the_folders_owner)
{
    struct stat stat_of;

    rig_make_vm("web1");
    if (geteuid() != 0 || chown(rig_path("web1"), 65534, 65534) < 0) {
        fprintf(stderr, "SKIPPED: not root\n");
        return;
    }
    struct folder folder = rig_lock("web1");
    ck_assert_int_eq(stat(rig_path("web1/" FOLDER_IDENTITY), &stat_of), 0);
    ck_assert_uint_eq(stat_of.st_uid, 65534);
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, "x", 1, NULL), 0);
    ck_assert_int_eq(stat(rig_path("web1/" FOLDER_IDENTITY), &stat_of), 0);
    ck_assert_uint_eq(stat_of.st_uid, 65534);
    folder_close(&folder);
}
END_TEST

START_TEST(on_a_full_file_system_the_old_file_stays_and_the_lock_too)
{
    static char much[200000];
    char options[] = "size=64k";
    struct err err = {0};

    if (!rig_may_mount())
        return;
    ck_assert_int_eq(mount("none", rig, "tmpfs", 0, options), 0);
    rig_make_vm("web1");
    struct folder folder = rig_lock("web1");
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, much, sizeof(much), &err),
                     -ENOSPC);
    ck_assert(!strstr(err.hint, "old file")); /* there is none */
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, "old", 3, NULL), 0);
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, much, sizeof(much), &err),
                     -ENOSPC);
    ck_assert_str_eq(err.text, "web1: cannot write identity.json: No space left on device");
    ck_assert(strstr(err.hint, "make room"));
    ck_assert(strstr(err.hint, "the old file is as it was"));
    char *text = rig_read("web1/" FOLDER_IDENTITY);
    ck_assert_str_eq(text, "old");
    free(text);
    ck_assert_int_ne(access(rig_path("web1/.identity.json.new"), F_OK), 0);
    ck_assert_int_eq(folder_holder(rig_path("web1")), getpid());
    ck_assert_int_eq(folder_write_file(&folder, FOLDER_IDENTITY, "new", 3, NULL), 0);
    folder_close(&folder);
    umount2(rig, MNT_DETACH);
}
END_TEST

/* Finding. */

static void expect_found(const char *root, unsigned depth, const char *const *names)
{
    char **paths = NULL;
    size_t count = 0, i = 0;

    ck_assert_int_eq(folder_find(root, depth, &paths, &count, NULL), 0);
    for (; names[i]; i++) {
        ck_assert_uint_lt(i, count);
        ck_assert_str_eq(paths[i], rig_path(names[i]));
    }
    ck_assert_uint_eq(i, count);
    folder_free_found(paths, count);
}

#define expect(root, depth, ...) expect_found(root, depth, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(vms_are_found_to_the_depth_that_is_asked_for)
{
    rig_make_vm("web2");
    rig_make_vm("web1");
    rig_make_vm("web1/inner"); /* a VM's folder is its own affair */
    rig_make_folder("team");
    rig_make_vm("team/db 1");
    rig_make_folder("team/deep");
    rig_make_vm("team/deep/x");
    rig_make_folder("nothing");
    rig_make_folder(".cache");
    rig_make_vm(".cache/hidden");
    rig_make_vm("b\xff");
    rig_write("file", "");
    ck_assert_int_eq(symlink(".", rig_path("loop")), 0);
    ck_assert_int_eq(symlink("web1", rig_path("again")), 0);
    expect(rig, 0, NULL);
    expect(rig, 1, "web1", "web2");
    expect(rig, 2, "team/db 1", "web1", "web2");
    expect(rig, 3, "team/db 1", "team/deep/x", "web1", "web2");
    expect(rig, UINT32_MAX, "team/db 1", "team/deep/x", "web1", "web2");
    expect(rig_path("web1"), 3, "web1");
    expect(rig_path("again"), 0, "web1");
    ck_assert_int_eq(chdir(rig), 0);
    expect(".", 1, "web1", "web2");
}
END_TEST

START_TEST(a_place_that_cannot_be_searched_is_an_error)
{
    struct err err = {0};
    char **paths;
    size_t count;

    ck_assert_int_eq(folder_find(rig_path("none"), 1, &paths, &count, &err), -ENOENT);
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
    rig_write("file", "");
    ck_assert_int_eq(folder_find(rig_path("file"), 1, &paths, &count, &err), -ENOTDIR);
}
END_TEST

/* "list" of as many has 100 ms for all that it does. */
START_TEST(a_thousand_vms_are_found_quickly)
{
    char **paths, name[64];
    size_t count;
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "vm%04u", i);
        rig_make_vm(name);
    }
    for (unsigned i = 0; i < 5; i++) {
        uint64_t begin = rig_cpu_ns();
        ck_assert_int_eq(folder_find(rig, 3, &paths, &count, NULL), 0);
        uint64_t took = rig_cpu_ns() - begin;
        best = took < best ? took : best;
        ck_assert_uint_eq(count, 1000);
        ck_assert_str_eq(paths[999], rig_path("vm0999"));
        folder_free_found(paths, count);
    }
    if (getenv("BENCH"))
        fprintf(stderr, "1000 folders: %.2f ms\n", (double)best / 1e6);
    ck_assert_uint_lt(best, 50000000);
}
END_TEST

START_TEST(what_is_of_this_place_is_known)
{
    static const char *const own[] = {
        "identity.json", "journal.jsonl", "console.log", "console.log.1",    "minivmm.log",
        "snapshots",     "snapshots/a/b", ".restoring",  ".moved",           ".arriving",
        ".arrived",      ".unwanted",     ".protected",  ".protected.spare", ".epochs"};
    static const char *const goes[] = {
        "vm.json",          "disk.img", "snapshots.txt", "console.logs", "sub/identity.json",
        "my.identity.json", "",         ".profile"};
    for (size_t i = 0; i < array_size(own); i++)
        ck_assert_msg(folder_is_own(own[i]), "%s", own[i]);
    for (size_t i = 0; i < array_size(goes); i++)
        ck_assert_msg(!folder_is_own(goes[i]), "%s", goes[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("folder");
    TCase *tcase = tcase_create("folder");

    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, rig_begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, names_that_people_give_are_good);
    tcase_add_test(tcase, what_is_of_this_place_is_known);
    tcase_add_test(tcase, names_that_would_be_trouble_are_refused_with_a_reason);
    tcase_add_test(tcase, a_folder_with_a_definition_is_a_vm);
    tcase_add_test(tcase, the_path_is_whole_and_without_links);
    tcase_add_test(tcase, long_paths_with_spaces_and_umlauts_are_locked_and_written);
    tcase_add_test(tcase, what_is_no_vm_is_refused_with_what_is_there);
    tcase_add_test(tcase, a_mistyped_name_gets_the_nearest_vm_or_file_as_hint);
    tcase_add_test(tcase, a_path_that_is_no_text_is_refused);
    tcase_add_test(tcase, hints_of_a_crowded_folder_stay_inside_their_buffers);
    tcase_add_test(tcase, a_second_lock_names_the_holder);
    tcase_add_test(tcase, the_lock_stays_where_identity_is_replaced_and_the_folder_moved);
    tcase_add_test(tcase, a_lock_without_an_identity_leaves_no_file);
    tcase_add_test(tcase, a_copy_has_a_lock_of_its_own);
    tcase_add_loop_test(tcase, of_many_at_once_exactly_one_wins, 0, 2);
    tcase_add_test(tcase, nobody_slips_in_while_the_holder_replaces_identity);
    tcase_add_test(tcase, what_is_no_plain_file_is_no_lock);
    tcase_add_test(tcase, a_removed_folder_cannot_be_locked);
    tcase_add_loop_test(tcase, on_a_read_only_file_system_a_folder_cannot_be_locked, 0, 2);
    tcase_add_loop_test(tcase, without_permission_a_folder_cannot_be_locked, 0, 2);
    tcase_add_test(tcase, a_file_is_replaced_whole_and_keeps_its_mode);
    tcase_add_test(tcase, what_root_writes_belongs_to_the_folders_owner);
    tcase_add_test(tcase, on_a_full_file_system_the_old_file_stays_and_the_lock_too);
    tcase_add_test(tcase, vms_are_found_to_the_depth_that_is_asked_for);
    tcase_add_test(tcase, a_place_that_cannot_be_searched_is_an_error);
    tcase_add_test(tcase, a_thousand_vms_are_found_quickly);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
