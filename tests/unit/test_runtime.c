/* SPDX-License-Identifier: MIT */
#include "tests/unit/folder_rig.h"
#include "vmm/runtime.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

static void begin(void)
{
    rig_begin();
    ck_assert_int_eq(setenv("MINIVMM_RUNTIME_DIR", rig_path("run"), 1), 0);
}

static struct runtime_info make_info(unsigned number, const char *name, const char *folder)
{
    struct runtime_info info = {.name = (char *)(uintptr_t)name,
                                .folder = (char *)(uintptr_t)folder,
                                .pid = getpid(),
                                .started = 1763712000};

    for (unsigned i = 0; i < 16; i++)
        info.uuid[i] = (uint8_t)(i < 4 ? number >> (24 - 8 * i) : 0x40 + i);
    return info;
}

static struct runtime create(unsigned number, const char *name, const char *folder)
{
    struct runtime_info info = make_info(number, name, folder);
    struct runtime runtime = {.lock = -1};
    struct err err = {0};

    ck_assert_msg(runtime_create(&runtime, &info, &err) == 0, "%s (%s)", err.text, err.hint);
    return runtime;
}

static void touch_in(const struct runtime *runtime, const char *name)
{
    char *path = runtime_path(runtime, name);
    FILE *file = fopen(path, "we");

    ck_assert_ptr_nonnull(file);
    fclose(file);
    free(path);
}

static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    struct dirent *entry;
    DIR *folder = opendir(path);

    while (folder && (entry = readdir(folder)))
        count += entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return count;
}

static size_t count_running(void)
{
    struct runtime_info *infos;
    size_t count;

    ck_assert_int_eq(runtime_list(&infos, &count, NULL), 0);
    runtime_free_list(infos, count);
    return count;
}

/* A VMM that is killed: its folder, sockets and all, stays. */
static void create_and_die(void *ctx)
{
    struct runtime runtime = create(*(unsigned *)ctx, "dead", NULL);

    touch_in(&runtime, "control.sock");
    touch_in(&runtime, "vsock.sock_1024");
    raise(SIGKILL);
}

static void leave_dead(unsigned number)
{
    ck_assert(WIFSIGNALED(rig_wait(rig_fork(create_and_die, &number))));
}

START_TEST(what_runs_is_listed_with_all_that_was_said)
{
    struct runtime_info *infos;
    size_t count;

    ck_assert_uint_eq(count_running(), 0); /* and no base is no error */
    struct runtime b = create(2, "web 2 ü", "/vms/web 2 ü"), a = create(1, "disk.img", NULL);
    ck_assert_int_eq(runtime_list(&infos, &count, NULL), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(infos[0].name, "disk.img"); /* by name */
    ck_assert_ptr_null(infos[0].folder);
    ck_assert_str_eq(infos[1].name, "web 2 ü");
    ck_assert_str_eq(infos[1].folder, "/vms/web 2 ü");
    ck_assert_int_eq(infos[1].pid, getpid());
    ck_assert_int_eq(infos[1].started, 1763712000);
    ck_assert_mem_eq(infos[1].uuid, make_info(2, "", NULL).uuid, 16);
    char *control = runtime_path(&b, "control.sock");
    ck_assert_str_eq(infos[1].control, control);
    free(control);
    runtime_free_list(infos, count);
    runtime_destroy(&a);
    ck_assert_uint_eq(count_running(), 1);
    runtime_destroy(&b);
    runtime_destroy(&b);
    ck_assert_uint_eq(count_running(), 0);
    ck_assert_uint_eq(count_entries(rig_path("run")), 0);
}
END_TEST

START_TEST(only_the_owner_gets_in_and_only_what_is_known_is_removed)
{
    struct stat stat_of;

    struct runtime runtime = create(1, "web1", NULL);
    ck_assert_int_eq(stat(rig_path("run"), &stat_of), 0);
    ck_assert_uint_eq(stat_of.st_mode & 0777, 0700);
    ck_assert_int_eq(stat(runtime.folder, &stat_of), 0);
    ck_assert_uint_eq(stat_of.st_mode & 0777, 0700);
    touch_in(&runtime, "control.sock");
    touch_in(&runtime, "vsock.sock_1024");
    touch_in(&runtime, "somebody's notes");
    char *folder = strdup(runtime.folder);
    runtime_destroy(&runtime);
    ck_assert_uint_eq(count_entries(folder), 1);
    ck_assert_uint_eq(count_running(), 0);
    runtime = create(1, "web1", NULL); /* and that is in nobody's way */
    runtime_destroy(&runtime);
    free(folder);
}
END_TEST

START_TEST(sockets_paths_fit)
{
    char base[300];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(base, sizeof(base), "%s/", rig);
    memset(base + strlen(base), 'x', RUNTIME_BASE_MAX - strlen(base));
    base[RUNTIME_BASE_MAX] = 0;
    setenv("MINIVMM_RUNTIME_DIR", base, 1);
    struct runtime runtime = create(1, "web1", NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *path = runtime_path(&runtime, "vsock.sock");
    ck_assert_uint_le(strlen(path), 90); /* VSOCK_PATH_MAX */
    strcpy(address.sun_path, path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    runtime_destroy(&runtime);
    ck_assert_uint_eq(count_entries(base), 0);
    close(fd);
    free(path);
}
END_TEST

static struct err refuse(const struct runtime_info *info, int error, enum err_kind kind)
{
    struct runtime runtime = {.lock = -7};
    struct err err = {0};

    ck_assert_int_eq(runtime_create(&runtime, info, &err), -error);
    ck_assert_int_eq(err.kind, kind);
    ck_assert_int_eq(runtime.lock, -7);
    return err;
}

START_TEST(one_uuid_runs_once)
{
    char sentence[200];

    struct runtime runtime = create(1, "web1", "/vms/web1");
    struct runtime_info twin = make_info(1, "web1b", "/other/web1b");
    struct err err = refuse(&twin, EBUSY, ERR_STATE);
    snprintf(sentence, sizeof(sentence),
             "a VM with the UUID of web1b is already running: /vms/web1 (pid %d)", getpid());
    ck_assert_str_eq(err.text, sentence);
    ck_assert(strstr(err.hint, "remove identity.json"));
    runtime_destroy(&runtime);
    runtime = create(1, "web1b", NULL);
    runtime_destroy(&runtime);
}
END_TEST

START_TEST(what_cannot_be_json_is_refused)
{
    struct runtime_info info = make_info(1, "web\xff", NULL);

    refuse(&info, EILSEQ, ERR_FAILED);
    ck_assert_uint_eq(count_entries(rig_path("run")), 0);
}
END_TEST

START_TEST(what_the_killed_have_left_is_passed_over_and_swept)
{
    leave_dead(1);
    leave_dead(2); /* sweeps 1 */
    ck_assert_uint_eq(count_entries(rig_path("run")), 1);
    ck_assert_uint_eq(count_running(), 0);
    struct runtime same = create(2, "web2", NULL);
    ck_assert_uint_eq(count_entries(same.folder), 1); /* no socket of the dead one */
    leave_dead(3);
    struct runtime other = create(4, "web4", NULL);
    ck_assert_uint_eq(count_entries(rig_path("run")), 2);
    ck_assert_uint_eq(count_running(), 2);
    runtime_destroy(&same);
    runtime_destroy(&other);
}
END_TEST

START_TEST(strangers_in_the_base_are_passed_over_and_left)
{
    rig_make_folder("run");
    rig_make_folder("run/not a uuid");
    rig_write("run/not a uuid/info.json", "{}");
    rig_write("run/6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f80", "a file");
    rig_make_folder("target");
    rig_write("target/info.json", "{}");
    ck_assert_int_eq(symlink("../target", rig_path("run/6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f81")), 0);
    rig_make_folder("run/6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f82");
    ck_assert_int_eq(mkfifo(rig_path("run/6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f82/info.json"), 0600),
                     0);
    ck_assert_int_eq(chmod(rig_path("run"), 0700), 0);
    struct runtime runtime = create(1, "web1", NULL);
    ck_assert_uint_eq(count_running(), 1);
    ck_assert_int_eq(access(rig_path("run/not a uuid/info.json"), F_OK), 0);
    ck_assert_int_eq(access(rig_path("run/6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f80"), F_OK), 0);
    ck_assert_int_eq(access(rig_path("target/info.json"), F_OK), 0);
    runtime_destroy(&runtime);
}
END_TEST

START_TEST(an_info_that_makes_no_sense_is_passed_over)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"name\": 1, \"folder\": null, \"pid\": 1, \"started\": 1}",
        "{\"name\": \"a\", \"folder\": 1, \"pid\": 1, \"started\": 1}",
        "{\"name\": \"a\", \"folder\": null, \"pid\": 0, \"started\": 1}",
        "{\"name\": \"a\", \"folder\": null, \"pid\": -1, \"started\": 1}",
        "{\"name\": \"a\", \"folder\": null, \"pid\": 1}",
        "{\"name\": \"a\", \"folder\": null, \"pid\": 1, \"pid\": 1, \"started\": 1}",
    };
    struct runtime good = create(2, "good", NULL);
    struct runtime bad = create(1, "bad", NULL);

    for (size_t i = 0; i < array_size(texts); i++) {
        ck_assert_int_eq(ftruncate(bad.lock, 0), 0);
        ck_assert_int_eq(pwrite(bad.lock, texts[i], strlen(texts[i]), 0),
                         (ssize_t)strlen(texts[i]));
        ck_assert_msg(count_running() == 1, "%s", texts[i]);
    }
    ck_assert_int_eq(ftruncate(bad.lock, 1 << 20), 0);
    ck_assert_uint_eq(count_running(), 1);
    struct runtime_info twin = make_info(1, "bad", NULL); /* it runs, all the same */
    refuse(&twin, EBUSY, ERR_STATE);
    runtime_destroy(&good);
    runtime_destroy(&bad);
}
END_TEST

/* Where it is. */

START_TEST(a_base_that_was_said_is_whole_and_short_or_an_error)
{
    struct runtime_info info = make_info(1, "web1", NULL);
    struct runtime_info *infos;
    struct err err = {0};
    size_t count;

    setenv("MINIVMM_RUNTIME_DIR", "relative", 1);
    ck_assert(strstr(refuse(&info, EINVAL, ERR_HOST).hint, "whole path"));
    setenv("MINIVMM_RUNTIME_DIR", "/tmp/0123456789012345678901234567890123456789", 1);
    refuse(&info, EINVAL, ERR_HOST);
    ck_assert_int_eq(runtime_list(&infos, &count, &err), -EINVAL);
    setenv("MINIVMM_RUNTIME_DIR", rig_path("none/run"), 1);
    refuse(&info, ENOENT, ERR_HOST);
    ck_assert_int_eq(runtime_list(&infos, &count, &err), 0);
    runtime_free_list(infos, count);
}
END_TEST

START_TEST(a_base_where_others_may_write_is_refused)
{
    struct runtime_info info = make_info(1, "web1", NULL);

    rig_make_folder("run");
    ck_assert_int_eq(chmod(rig_path("run"), 0777), 0);
    ck_assert(strstr(refuse(&info, EPERM, ERR_HOST).hint, "chmod 700"));
    ck_assert_int_eq(rmdir(rig_path("run")), 0);
    rig_make_folder("elsewhere");
    ck_assert_int_eq(symlink("elsewhere", rig_path("run")), 0);
    refuse(&info, ENOTDIR, ERR_HOST);
}
END_TEST

/* A world with a /tmp of its own, as another user, with the folder /tmp/x. */
static bool become_nobody_in_tmp(void)
{
    if (!rig_may_mount() || mount("none", "/tmp", "tmpfs", 0, NULL) < 0)
        return false;
    ck_assert_int_eq(chmod("/tmp", 01777), 0);
    if (!rig_become_nobody())
        return false;
    ck_assert_int_eq(mkdir("/tmp/x", 0700), 0);
    unsetenv("MINIVMM_RUNTIME_DIR");
    unsetenv("XDG_RUNTIME_DIR");
    return true;
}

static void expect_in(const char *base)
{
    char folder[200];
    struct runtime runtime = create(1, "web1", NULL);

    snprintf(folder, sizeof(folder), "%s/00000001-4445-4647-4849-4a4b4c4d4e4f", base);
    ck_assert_str_eq(runtime.folder, folder);
    ck_assert_uint_eq(count_running(), 1);
    runtime_destroy(&runtime);
}

START_TEST(the_session_says_where_and_else_tmp)
{
    char name[100] = "/tmp/x/";

    if (!become_nobody_in_tmp())
        return;
    expect_in("/tmp/minivmm-65534");
    setenv("XDG_RUNTIME_DIR", "/tmp/x", 1);
    expect_in("/tmp/x/minivmm");
    setenv("XDG_RUNTIME_DIR", "tmp/x", 1);
    expect_in("/tmp/minivmm-65534");
    setenv("XDG_RUNTIME_DIR", "/tmp/none", 1);
    expect_in("/tmp/minivmm-65534");
    memset(name + 7, 'y', 40);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    setenv("XDG_RUNTIME_DIR", name, 1);
    expect_in("/tmp/minivmm-65534");
}
END_TEST

START_TEST(a_vm_started_elsewhere_is_still_found)
{
    if (!become_nobody_in_tmp())
        return;
    struct runtime runtime = create(1, "web1", NULL); /* from a cron job, say */
    setenv("XDG_RUNTIME_DIR", "/tmp/x", 1);
    ck_assert_uint_eq(count_running(), 1);
    struct runtime_info twin = make_info(1, "web1", NULL);
    refuse(&twin, EBUSY, ERR_STATE);
    runtime_destroy(&runtime);
}
END_TEST

START_TEST(in_tmp_nobody_can_be_there_before_us)
{
    struct runtime_info info = make_info(1, "web1", NULL);
    struct runtime runtime;
    struct err err = {0};

    if (geteuid() != 0 || !rig_may_mount() || mount("none", "/tmp", "tmpfs", 0, NULL) < 0)
        return;
    ck_assert_int_eq(chmod("/tmp", 01777), 0);
    if (_i == 0)
        ck_assert_int_eq(mkdir("/tmp/minivmm-65534", 0777), 0); /* root's, not ours */
    ck_assert(rig_become_nobody());
    unsetenv("MINIVMM_RUNTIME_DIR");
    unsetenv("XDG_RUNTIME_DIR");
    if (_i == 1)
        ck_assert_int_eq(mkdir("/tmp/minivmm-65534", 0750), 0);
    if (_i == 2)
        ck_assert(mkdir("/tmp/x", 0700) == 0 && symlink("x", "/tmp/minivmm-65534") == 0);
    ck_assert_int_lt(runtime_create(&runtime, &info, &err), 0);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_uint_eq(count_running(), 0);
}
END_TEST

/* Many at once. */

struct crowd {
    int begin[2], made[2], end[2];
    unsigned number;
    bool same;
};

static void join_crowd(void *ctx)
{
    struct crowd *crowd = ctx;
    struct runtime runtime = {.lock = -1};
    char c = 0;

    close(crowd->begin[1]);
    close(crowd->end[1]);
    struct runtime_info info = make_info(crowd->same ? 1 : crowd->number, "crowd", NULL);
    (void)!read(crowd->begin[0], &c, 1);
    int r = runtime_create(&runtime, &info, NULL);
    c = r == 0 ? 'w' : r == -EBUSY ? 'l' : '?';
    (void)!write(crowd->made[1], &c, 1);
    (void)!read(crowd->end[0], &c, 1);
    runtime_destroy(&runtime);
}

START_TEST(fifty_start_and_end_at_once)
{
    enum { CHILDREN = 50 };
    struct crowd crowd = {.same = _i};
    unsigned winners = 0, losers = 0;
    pid_t pids[CHILDREN];

    leave_dead(99);
    ck_assert(pipe(crowd.begin) == 0 && pipe(crowd.made) == 0 && pipe(crowd.end) == 0);
    for (crowd.number = 0; crowd.number < CHILDREN; crowd.number++)
        pids[crowd.number] = rig_fork(join_crowd, &crowd);
    close(crowd.begin[1]);
    for (unsigned i = 0; i < CHILDREN; i++) {
        char c = 0;
        ck_assert_int_eq(read(crowd.made[0], &c, 1), 1);
        winners += c == 'w';
        losers += c == 'l';
    }
    ck_assert_uint_eq(winners, _i ? 1 : CHILDREN);
    ck_assert_uint_eq(losers, _i ? CHILDREN - 1 : 0);
    ck_assert_uint_eq(count_running(), winners);
    close(crowd.end[1]);
    for (unsigned i = 0; i < CHILDREN; i++)
        ck_assert_int_eq(rig_wait(pids[i]), 0);
    ck_assert_uint_eq(count_entries(rig_path("run")), 0);
}
END_TEST

static void come_and_go(void *ctx)
{
    for (unsigned i = 0; i < 200; i++) {
        struct runtime runtime = {.lock = -1};
        struct runtime_info info = make_info(i % 3, "busy", NULL);
        struct err err = {0};
        int r = runtime_create(&runtime, &info, &err);
        if (r < 0 && r != -EBUSY) {
            fprintf(stderr, "%s\n", err.text);
            _exit(9);
        }
        if (r == 0 && access(runtime.folder, F_OK) < 0)
            _exit(8);
        runtime_destroy(&runtime);
    }
}

START_TEST(those_that_come_and_go_do_not_hurt_each_other)
{
    pid_t pids[4];

    for (unsigned i = 0; i < 4; i++)
        pids[i] = rig_fork(come_and_go, NULL);
    for (unsigned i = 0; i < 100; i++)
        ck_assert_uint_le(count_running(), 3);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(rig_wait(pids[i]), 0);
    ck_assert_uint_eq(count_entries(rig_path("run")), 0);
}
END_TEST

START_TEST(a_hundred_are_listed_quickly)
{
    struct runtime runtimes[100];
    struct runtime_info *infos;
    uint64_t best = UINT64_MAX;
    size_t count;

    for (unsigned i = 0; i < 100; i++)
        runtimes[i] = create(i, "one of many", "/vms/one of many");
    for (unsigned i = 0; i < 10; i++) {
        uint64_t start = rig_cpu_ns();
        ck_assert_int_eq(runtime_list(&infos, &count, NULL), 0);
        uint64_t took = rig_cpu_ns() - start;
        best = took < best ? took : best;
        ck_assert_uint_eq(count, 100);
        runtime_free_list(infos, count);
    }
    if (getenv("BENCH"))
        fprintf(stderr, "100 running: %.2f ms\n", (double)best / 1e6);
    ck_assert_uint_lt(best, 20000000);
    for (unsigned i = 0; i < 100; i++)
        runtime_destroy(&runtimes[i]);
}
END_TEST

/* Finding. */

static void expect_found(const char *word, unsigned number)
{
    struct runtime_info info;
    struct err err = {0};

    ck_assert_msg(runtime_find(word, &info, &err) == 0, "%s: %s", word, err.text);
    ck_assert_mem_eq(info.uuid, make_info(number, "", NULL).uuid, 16);
    ck_assert_ptr_nonnull(info.control);
    runtime_info_finish(&info);
    runtime_info_finish(&info);
}

static struct err expect_none(const char *word, int error, enum err_kind kind)
{
    struct runtime_info info = {.pid = -7};
    struct err err = {0};

    ck_assert_msg(runtime_find(word, &info, &err) == -error, "%s", word);
    ck_assert_int_eq(err.kind, kind);
    ck_assert_int_eq(info.pid, -7);
    return err;
}

START_TEST(a_name_or_the_beginning_of_a_uuid_finds_a_vm)
{
    ck_assert_str_eq(expect_none("web1", ENOENT, ERR_NOT_FOUND).hint, "nothing runs at the moment");
    struct runtime a = create(0xabcd1234, "web1", NULL), b = create(0xabcd5678, "web2", NULL),
                   c = create(0x12345678, "abcd", NULL);
    expect_found("web1", 0xabcd1234);
    expect_found("abcd1", 0xabcd1234);
    expect_found("ABCD5", 0xabcd5678);
    expect_found("abcd5678-4445-4647-4849-4a4b4c4d4e4f", 0xabcd5678);
    expect_found("abcd", 0x12345678); /* a name comes first */
    ck_assert_str_eq(expect_none("wbe1", ENOENT, ERR_NOT_FOUND).hint, "did you mean web1?");
    expect_none("123", ENOENT, ERR_NOT_FOUND); /* too short for a UUID */
    expect_none("abcd5678-4445-4647-4849-4a4b4c4d4e4f0", ENOENT, ERR_NOT_FOUND);
    expect_none("", ENOENT, ERR_NOT_FOUND);
    runtime_destroy(&c);
    struct err err = expect_none("abcd", EINVAL, ERR_USAGE);
    ck_assert_str_eq(err.text, "2 running VMs could be meant by abcd");
    ck_assert(strstr(err.hint, "abcd1234-4445-4647-4849-4a4b4c4d4e4f"));
    runtime_destroy(&a);
    runtime_destroy(&b);
}
END_TEST

START_TEST(namesakes_are_told_apart_by_their_folders)
{
    char here[300];

    rig_make_folder("a");
    rig_make_folder("b");
    rig_make_vm("a/web1");
    rig_make_vm("b/web1");
    struct folder in_a = rig_lock("a/web1"), in_b = rig_lock("b/web1");
    struct runtime a = create(1, "web1", in_a.path), b = create(2, "web1", in_b.path);
    snprintf(here, sizeof(here), "%s", rig_path("a"));
    expect_found(rig_path("a/web1"), 1);
    expect_found(rig_path("b/../b/web1/"), 2);
    expect_none("web1", EINVAL, ERR_USAGE);
    ck_assert_int_eq(chdir(here), 0);
    expect_found("web1", 1);
    runtime_destroy(&a);
    folder_close(&in_a);
    /* It is this one that is meant, and not its namesake. */
    struct err err = expect_none("web1", ESRCH, ERR_STATE);
    ck_assert_str_eq(err.text, "web1 is not running");
    runtime_destroy(&b);
    folder_close(&in_b);
}
END_TEST

START_TEST(a_folder_that_was_renamed_while_it_runs_is_found)
{
    rig_make_vm("web1");
    struct folder folder = rig_lock("web1");
    struct runtime runtime = create(1, "web1", folder.path);
    ck_assert_int_eq(rename(rig_path("web1"), rig_path("web2")), 0);
    rig_make_vm("web1");
    expect_found(rig_path("web2"), 1);
    expect_none(rig_path("web1"), ESRCH, ERR_STATE);
    expect_found("web1", 1); /* by the name that it had; there is no such folder here */
    runtime_destroy(&runtime);
    folder_close(&folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("runtime");
    TCase *tcase = tcase_create("runtime");

    unsetenv("TMPDIR"); /* paths of sockets are short */
    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, what_runs_is_listed_with_all_that_was_said);
    tcase_add_test(tcase, only_the_owner_gets_in_and_only_what_is_known_is_removed);
    tcase_add_test(tcase, sockets_paths_fit);
    tcase_add_test(tcase, one_uuid_runs_once);
    tcase_add_test(tcase, what_cannot_be_json_is_refused);
    tcase_add_test(tcase, what_the_killed_have_left_is_passed_over_and_swept);
    tcase_add_test(tcase, strangers_in_the_base_are_passed_over_and_left);
    tcase_add_test(tcase, an_info_that_makes_no_sense_is_passed_over);
    tcase_add_test(tcase, a_base_that_was_said_is_whole_and_short_or_an_error);
    tcase_add_test(tcase, a_base_where_others_may_write_is_refused);
    tcase_add_test(tcase, the_session_says_where_and_else_tmp);
    tcase_add_test(tcase, a_vm_started_elsewhere_is_still_found);
    tcase_add_loop_test(tcase, in_tmp_nobody_can_be_there_before_us, 0, 3);
    tcase_add_loop_test(tcase, fifty_start_and_end_at_once, 0, 2);
    tcase_add_test(tcase, those_that_come_and_go_do_not_hurt_each_other);
    tcase_add_test(tcase, a_hundred_are_listed_quickly);
    tcase_add_test(tcase, a_name_or_the_beginning_of_a_uuid_finds_a_vm);
    tcase_add_test(tcase, namesakes_are_told_apart_by_their_folders);
    tcase_add_test(tcase, a_folder_that_was_renamed_while_it_runs_is_found);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
