/* SPDX-License-Identifier: MIT */
/* Where a twin comes to a host that ran the VM before: the folder that it had there is put aside,
 * and is back where it was whatever fails. */
#include "ft/arrival_folder.h"
#include "ft/protection.h"
#include "tests/unit/witness_rig.h"

enum { US = 21, THEM = 22 };

static struct {
    int place;
    struct moving_hello hello;
    struct following following;
    ino_t former;

    int fails_at; /* this rename from now on; negative: none */
    int error;
    const char *appears; /* NULL, or: a VM of that name is there just before it */
} t;

/* In place of the C library's. */
int renameat2(int from, const char *name, int to, const char *new_name, unsigned flags)
{
    if (t.fails_at >= 0 && t.fails_at-- == 0) {
        if (t.appears)
            rig_make_vm(t.appears);
        errno = t.error;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from, name, to, new_name, flags);
}

/* --- what is there ---------------------------------------------------------------------------- */

static bool is_there(const char *name)
{
    return faccessat(t.place, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static ino_t inode_of(const char *name)
{
    struct stat stat;
    ck_assert_msg(fstatat(t.place, name, &stat, AT_SYMLINK_NOFOLLOW) == 0, "no %s", name);
    return stat.st_ino;
}

/* The folder of a VM that was ours in generation 1; the witness says that it is theirs since. */
static void make_former(void)
{
    struct protection protection = {
        .role = PROTECTION_OWNER, .node = US, .generation = 1, .peer_node = THEM, .insecure = true};
    struct err err = {0};
    struct ft_record is;
    memcpy(protection.uuid, vm_a, sizeof(protection.uuid));
    snprintf(protection.witness, sizeof(protection.witness), "%s", t.following.witness);
    rig_make_vm("web1");
    struct folder folder = rig_open("web1");
    ck_assert_msg(protection_write(folder.fd, &protection, &err) == 0, "%s", err.text);
    folder_close(&folder);
    struct witness *witness = store_open();
    ck_assert_int_eq(give(witness, 0, US, &is, NULL), 0);
    ck_assert_int_eq(give(witness, 1, THEM, &is, NULL), 0);
    witness_close(witness);
    t.former = inode_of("web1");
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    t.fails_at = -1;
    rig_begin();
    store_begin(true);
    t.place = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(t.place, 0);
    t.hello = (struct moving_hello){.protocol = MOVING_PROTOCOL, .ticket = {1, 2, 3}};
    memcpy(t.hello.uuid, vm_a, sizeof(t.hello.uuid));
    strcpy(t.hello.name, "web1");
    t.following = (struct following){.node = THEM, .generation = 2, .beat_ms = 50, .lost_ms = 500};
    snprintf(t.following.witness, sizeof(t.following.witness), "file:%.200s", store);
}

static void tear_down(void)
{
    close(t.place);
    store_end();
}

static int begin(struct arrival_folder *folder, struct err *err)
{
    return arrival_folder_begin(folder, t.place, rig, &t.hello, &t.following, err);
}

static void expect_former_alone(void)
{
    ck_assert_uint_eq(inode_of("web1"), t.former);
    ck_assert(!is_there(".web1.former"));
    ck_assert(!is_there(".web1.coming"));
}

/* --- a former folder -------------------------------------------------------------------------- */

START_TEST(a_former_folder_is_put_aside_and_goes_when_the_twin_is_whole)
{
    struct arrival_folder folder;
    struct err err = {0};
    make_former();
    ck_assert_msg(begin(&folder, &err) == 0, "%s", err.text);
    ck_assert_uint_ne(inode_of("web1"), t.former);
    ck_assert_uint_eq(inode_of(".web1.former"), t.former);
    arrival_folder_settle(&folder);
    ck_assert(!is_there(".web1.former"));
    arrival_folder_finish(&folder, true);
    ck_assert(is_there("web1"));
}
END_TEST

START_TEST(a_former_folder_is_back_where_the_twin_never_is_whole)
{
    struct arrival_folder folder;
    struct err err = {0};
    make_former();
    ck_assert_msg(begin(&folder, &err) == 0, "%s", err.text);
    arrival_folder_finish(&folder, false);
    expect_former_alone();
}
END_TEST

/* Its own name, which is taken; the former one's, aside; its own again. */
START_TEST(a_former_folder_is_back_whichever_rename_fails)
{
    struct arrival_folder folder;
    struct err err = {0};
    make_former();
    t.fails_at = _i;
    t.error = EIO;
    ck_assert_int_eq(begin(&folder, &err), -EIO);
    ck_assert_int_lt(t.fails_at, 0);
    ck_assert_msg(strstr(err.text, "web1"), "%s", err.text);
    expect_former_alone();
    arrival_folder_finish(&folder, false);
    expect_former_alone();

    ck_assert_msg(begin(&folder, &err) == 0, "%s", err.text); /* the next try */
    ck_assert_uint_eq(inode_of(".web1.former"), t.former);
    arrival_folder_finish(&folder, false);
    expect_former_alone();
}
END_TEST

/* Then the former one stays aside: it is nobody's to remove. */
START_TEST(another_vm_that_takes_the_name_just_then_is_left_alone)
{
    struct arrival_folder folder;
    struct err err = {0};
    make_former();
    t.fails_at = 2;
    t.error = EEXIST;
    t.appears = "web1";
    ck_assert_int_eq(begin(&folder, &err), -EEXIST);
    ck_assert_msg(strstr(err.text, "is there already"), "%s", err.text);
    ino_t other = inode_of("web1");
    ck_assert_uint_ne(other, t.former);
    ck_assert_uint_eq(inode_of(".web1.former"), t.former);
    arrival_folder_finish(&folder, false);
    ck_assert_uint_eq(inode_of("web1"), other);
}
END_TEST

START_TEST(a_folder_that_is_nobodys_former_one_is_not_touched)
{
    struct arrival_folder folder;
    struct err err = {0};
    make_former();
    t.following.generation = 3; /* the witness knows of none */
    ck_assert_int_eq(begin(&folder, &err), -EEXIST);
    ck_assert_msg(strstr(err.text, "is there already"), "%s", err.text);
    expect_former_alone();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arrival_folder");
    TCase *tests = tcase_create("arrival_folder");
    tcase_set_timeout(tests, 60);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_former_folder_is_put_aside_and_goes_when_the_twin_is_whole);
    tcase_add_test(tests, a_former_folder_is_back_where_the_twin_never_is_whole);
    tcase_add_loop_test(tests, a_former_folder_is_back_whichever_rename_fails, 0, 3);
    tcase_add_test(tests, another_vm_that_takes_the_name_just_then_is_left_alone);
    tcase_add_test(tests, a_folder_that_is_nobodys_former_one_is_not_touched);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
