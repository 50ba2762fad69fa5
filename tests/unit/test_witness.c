/* SPDX-License-Identifier: MIT */
#include "tests/unit/witness_rig.h"

#include <utime.h>

static struct witness *witness;

static void set_up(void)
{
    rig_begin();
    store_begin(false);
    witness = store_open();
}

static void tear_down(void)
{
    witness_close(witness);
    store_end();
}

static void expect(uint64_t generation, uint64_t owner, uint64_t twin)
{
    struct ft_record is = see(witness);

    ck_assert_uint_eq(is.generation, generation);
    ck_assert_uint_eq(is.owner, owner);
    ck_assert_uint_eq(is.twin, twin);
}

static void must_give(uint64_t expected, uint64_t owner)
{
    struct ft_record is;
    struct err err = {0};

    ck_assert_msg(give(witness, expected, owner, &is, &err) == 0, "%s", err.text);
}

/* --- addresses -------------------------------------------------------------------------------- */

static void refuse(const char *address, int error, const char *text, const char *hint)
{
    struct witness *none = NULL;
    struct err err = {0};

    ck_assert_int_eq(witness_open(&none, address, &err), -error);
    ck_assert_ptr_null(none);
    ck_assert_msg(strstr(err.text, text) && strstr(err.hint, hint), "%s (%s)", err.text, err.hint);
}

START_TEST(an_address_says_which_kind)
{
    refuse("etcd:10.0.0.1", EINVAL, "no address of an etcd", "etcd://HOST");
    refuse("fiel:/mnt/w", EINVAL, "fiel:/mnt/w", "did you mean file:");
    refuse("ectd:http://a", EINVAL, "ectd:http://a", "did you mean etcd:");
    refuse("consul:x", EINVAL, "consul:x", "file:PATH");
    refuse("/mnt/w", EINVAL, "/mnt/w", "file:/mnt/w");
    refuse("", EINVAL, "\"\"", "file:PATH");
    refuse(":/mnt", EINVAL, "\":/mnt\"", "file:PATH");
    refuse("file:mnt/w", EINVAL, "\"mnt/w\"", "file:/");
    refuse("file:", EINVAL, "\"\"", "file:/");
    witness_close(NULL);
}
END_TEST

/* Whoever names a witness to us makes us write in no folder that was none. */
START_TEST(a_witness_that_somebody_names_has_to_know_the_vm)
{
    struct witness *known = NULL;
    struct err err = {0};
    char address[400];

    snprintf(address, sizeof(address), "file:%s", store);
    hook.log = calloc(1, 100);
    ck_assert_ptr_nonnull(hook.log);
    ck_assert_int_eq(witness_open_known(&known, address, vm_a, &err), -ESTALE);
    ck_assert_msg(strstr(err.text, "no record") && strstr(err.hint, "same storage"), "%s",
                  err.text);
    ck_assert_str_eq(hook.log, ""); /* nothing was made, and nothing removed */
    free(hook.log);
    hook.log = NULL;
    must_give(0, 7);
    ck_assert_int_eq(witness_open_known(&known, address, vm_b, &err), -ESTALE);
    ck_assert_int_eq(witness_open_known(&known, address, vm_a, &err), 0);
    witness_close(known);
}
END_TEST

static void refuse_store(int error, const char *text, const char *hint)
{
    char address[400];

    snprintf(address, sizeof(address), "file:%s", store);
    refuse(address, error, text, hint);
}

START_TEST(a_folder_that_cannot_be_one_is_refused_with_the_mend)
{
    char address[600];

    snprintf(address, sizeof(address), "file:%s", store_path("none"));
    refuse(address, ENOENT, store_path("none"), "make the folder");
    store_write("plain", "x", 1);
    snprintf(address, sizeof(address), "file:%s", store_path("plain"));
    refuse(address, ENOTDIR, store_path("plain"), "a folder is wanted");

    ck_assert_int_eq(chmod(store, 0777), 0);
    refuse_store(EPERM, "everybody", "chmod o-w");
    ck_assert_int_eq(chmod(store, 01777), 0); /* like /tmp: nobody removes what is not theirs */
    struct witness *sticky = store_open();
    witness_close(sticky);

    chmod(rig_root, 0755);
    chmod(rig, 0755);
    ck_assert_int_eq(chmod(store, 0555), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    refuse_store(EACCES, "cannot write in", "writable");
    ck_assert_int_eq(getuid() == 0 ? seteuid(0) : 0, 0);
    ck_assert_int_eq(chmod(store, 0755), 0);
}
END_TEST

START_TEST(a_file_system_without_what_it_takes_is_refused_with_the_reason)
{
    static const uint32_t unfit[] = {0x794c7630, 0x61756673, 0xff534d42, 0xfe534d42,
                                     0x517b,     0x01021997, 0x4d44,     0x2011bab0};
    static const uint32_t fit[] = {0x6969, 0x65735546, 0xef53, 0x01021994};
    struct ft_record is;

    for (size_t i = 0; i < array_size(unfit); i++) {
        hook.fs = unfit[i];
        refuse_store(EOPNOTSUPP, "cannot be one", "NFS");
        /* Also when it was mounted there later. */
        ck_assert_int_eq(give(witness, 0, 7, &is, NULL), -EOPNOTSUPP);
        ck_assert_int_eq(witness_read(witness, vm_a, &is, NULL), -EOPNOTSUPP);
    }
    for (size_t i = 0; i < array_size(fit); i++) {
        hook.fs = fit[i];
        witness_close(store_open());
    }
    hook.link = LINK_IS_NONE;
    refuse_store(EOPNOTSUPP, "no hard links", "NFS");
    hook.link = LINK_REPLACES;
    refuse_store(EOPNOTSUPP, "one name twice", "NFS");
    hook.link = LINK_COPIES;
    refuse_store(EOPNOTSUPP, "copies", "NFS");
    ck_assert_uint_eq(store_count(""), 2); /* nothing is left but . and .. */
}
END_TEST

/* In a world of mounts of our own, where we may. */
static bool mount_on_store(const char *type, unsigned long flags, const char *options)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", store, type, flags, options) == 0;
}

START_TEST(a_real_overlay_is_refused_by_its_name)
{
    char options[900];

    snprintf(options, sizeof(options), "lowerdir=%s/l,upperdir=%s/u,workdir=%s/w", rig, rig, rig);
    for (const char *at = "luw"; *at; at++)
        ck_assert_int_eq(mkdir(rig_path((char[]){*at, 0}), 0755), 0);
    if (mount_on_store("overlay", 0, options))
        refuse_store(EOPNOTSUPP, "(overlay)", "NFS");
}
END_TEST

START_TEST(a_read_only_file_system_is_named_as_such)
{
    struct ft_record is;
    struct err err = {0};

    if (!mount_on_store("tmpfs", 0, "size=1m"))
        return;
    must_give(0, 7);
    ck_assert_int_eq(mount("none", store, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    refuse_store(EROFS, "cannot write in", "read-only");
    ck_assert_int_eq(give(witness, 1, 8, &is, &err), -EROFS);
    ck_assert_msg(strstr(err.hint, "read-only"), "%s", err.hint);
    expect(1, 7, 0);
}
END_TEST

START_TEST(a_full_disk_leaves_nothing_half_made)
{
    static const char bytes[65536];
    struct ft_record is;
    struct err err = {0};

    if (!mount_on_store("tmpfs", 0, "size=64k"))
        return;
    must_give(0, 7);
    int fd = open(store_path("filler"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_gt(write(fd, bytes, sizeof(bytes)), 0);
    close(fd);
    ck_assert_int_eq(give(witness, 1, 8, &is, &err), -ENOSPC);
    ck_assert_msg(strstr(err.hint, "make room"), "%s", err.hint);
    expect(1, 7, 0);
    ck_assert_uint_eq(store_count(""), 4); /* the record and the filler */
    ck_assert_int_eq(unlink(store_path("filler")), 0);
    must_give(1, 8);
    expect(2, 8, 0);
}
END_TEST

/* --- records ---------------------------------------------------------------------------------- */

START_TEST(what_was_exchanged_is_read_by_everybody)
{
    struct witness *other = store_open();
    struct ft_record next = {1, 0x1234, 0x5678}, is = {9, 9, 9};

    expect(0, 0, 0);
    ck_assert_int_eq(witness_exchange(witness, vm_a, 0, &next, &is, NULL), 0);
    ck_assert_uint_eq(is.generation, 9); /* not touched */
    expect(1, 0x1234, 0x5678);
    ck_assert_int_eq(witness_read(other, vm_b, &is, NULL), 0);
    ck_assert_uint_eq(is.generation, 0);
    next = (struct ft_record){1, 1, 0};
    ck_assert_int_eq(witness_exchange(other, vm_b, 0, &next, &is, NULL), 0);
    next = (struct ft_record){2, UINT64_MAX, UINT64_MAX};
    ck_assert_int_eq(witness_exchange(other, vm_a, 1, &next, &is, NULL), 0);
    expect(2, UINT64_MAX, UINT64_MAX);
    ck_assert_uint_eq(store_count(NAME_A), 2);
    ck_assert_uint_eq(store_count(""), 5);
    witness_close(other);
}
END_TEST

START_TEST(what_anybody_hears_of_is_on_stable_storage)
{
    char log[50] = "";
    struct ft_record is;

    hook.log = log;
    must_give(0, 7);
    ck_assert_str_eq(log, "fldu"); /* the text before its name, and the name before the answer */
    log[0] = 0;
    expect(1, 7, 0);
    ck_assert_str_eq(log, "d");
    log[0] = 0;
    ck_assert_int_eq(give(witness, 0, 8, &is, NULL), -EAGAIN);
    ck_assert_str_eq(log, "fdu");
    hook.log = NULL;
}
END_TEST

START_TEST(only_the_newest_generation_can_be_exchanged)
{
    struct ft_record is;

    for (uint64_t g = 0; g < 20; g++)
        must_give(g, 100 + g);
    for (uint64_t g = 0; g < 30; g++) {
        struct err err = {0};
        if (g == 20)
            continue;
        ck_assert_int_eq(give(witness, g, 7, &is, &err), -EAGAIN);
        ck_assert_uint_eq(is.generation, 20);
        ck_assert_uint_eq(is.owner, 119);
        ck_assert_msg(strstr(err.text, "generation 20"), "%s", err.text);
    }
    struct ft_record next = {.generation = (uint64_t)INT64_MAX + 1};
    ck_assert_int_eq(witness_exchange(witness, vm_a, INT64_MAX, &next, &is, NULL), -EOVERFLOW);
    expect(20, 119, 0);
    ck_assert_uint_eq(store_count(""), 22);
}
END_TEST

/* NFS knows folders by heart for a while. */
START_TEST(an_old_list_hides_nothing_and_gives_nothing_twice)
{
    struct ft_record is;
    struct err err = {0};

    for (uint64_t g = 0; g < 5; g++)
        must_give(g, 100 + g);
    hook.old_list = name_a(3);
    expect(5, 104, 0);
    ck_assert_int_eq(give(witness, 2, 7, &is, NULL), -EAGAIN);
    ck_assert_uint_eq(is.generation, 5);
    hook.old_list = name_a(1);
    expect(5, 104, 0);
    ck_assert_int_eq(give(witness, 0, 7, &is, NULL), -EAGAIN);
    /* Whether it is the first one that had its name is not to be seen in such a list. */
    ck_assert_int_eq(give(witness, 5, 7, &is, &err), -ESTALE);
    ck_assert_msg(strstr(err.text, "not known"), "%s", err.text);
    hook.old_list = NULL;
    expect(6, 7, 0);
    ck_assert_int_eq(give(witness, 5, 8, &is, NULL), -EAGAIN);
}
END_TEST

static void expect_refused(const char *name, const char *what)
{
    struct ft_record is = {99, 99, 99};
    struct err err = {0};

    ck_assert_int_eq(witness_read(witness, vm_a, &is, &err), -EBADMSG);
    ck_assert_msg(strstr(err.text, name) && strstr(err.text, what) && err.hint[0], "%s", err.text);
    for (uint64_t g = 0; g < 4; g++)
        ck_assert_int_eq(give(witness, g, 7, &is, NULL), -EBADMSG);
    ck_assert_uint_eq(is.generation, 99);
    ck_assert_int_eq(unlink(store_path(name)), 0);
}

START_TEST(what_is_no_record_is_named_and_nothing_is_guessed)
{
    char text[WITNESS_TEXT_MAX], big[2000];

    must_give(0, 7);
    must_give(1, 8);
    FILE *file = fopen(store_path(name_a(2)), "re");
    size_t length = fread(text, 1, sizeof(text), file);
    fclose(file);
    memset(big, 'x', sizeof(big));
    for (unsigned i = 0; i < 6; i++) {
        const char *name = name_a(3);
        if (i == 0)
            store_write(name, "", 0);
        else if (i == 1)
            store_write(name, text, length);
        else if (i == 2)
            store_write(name, text, length - 1);
        else if (i == 3)
            store_write(name, big, sizeof(big));
        else if (i == 4)
            ck_assert_int_eq(symlink(name_a(2), store_path(name)), 0);
        else
            ck_assert_int_eq(mkfifo(store_path(name), 0644), 0);
        static const char *const what[] = {"is empty",  "a copy",     "is damaged",
                                           "no record", "plain file", "plain file"};
        expect_refused(name, what[i]);
    }
    store_put(3, 9);
    chmod(store_path(name_a(3)), 0666);
    expect_refused(name_a(3), "another user");
    store_put(3, 9);
    if (geteuid() == 0 && chown(store_path(name_a(3)), 4321, 4321) == 0)
        expect_refused(name_a(3), "another user");
    else
        unlink(store_path(name_a(3)));
    static const char *const names[] = {NAME_A "1", NAME_A "00000000000000000000",
                                        NAME_A "99999999999999999999", NAME_A,
                                        NAME_A "00000000000000000002~"};
    for (size_t i = 0; i < array_size(names); i++) {
        store_write(names[i], text, length);
        expect_refused(names[i], "no name");
    }
    store_write("README", "of somebody", 11);
    expect(2, 8, 0);
    must_give(2, 9);
}
END_TEST

START_TEST(a_text_that_is_not_whole_to_the_byte_is_damaged)
{
    struct witness_text text = {.record = {42, 0x1234, 0}, .attempt = {1, 2}}, again;
    char bytes[WITNESS_TEXT_MAX], bad[WITNESS_TEXT_MAX + 1];

    memcpy(text.uuid, vm_a, 16);
    for (int twin = 0; twin < 2; twin++) {
        text.record.twin = twin ? UINT64_MAX : 0;
        size_t length = witness_text_format(&text, bytes);
        ck_assert_ptr_null(witness_text_parse(&again, bytes, length));
        ck_assert_mem_eq(&again, &text, sizeof(text));
        for (size_t i = 0; i < length; i++) {
            ck_assert_ptr_nonnull(witness_text_parse(&again, bytes, i));
            for (unsigned bit = 0; bit < 8; bit++) {
                memcpy(bad, bytes, length);
                bad[i] = (char)(bad[i] ^ 1 << bit);
                ck_assert_ptr_nonnull(witness_text_parse(&again, bad, length));
            }
        }
        snprintf(bad, sizeof(bad), "%s\n", bytes);
        ck_assert_ptr_nonnull(witness_text_parse(&again, bad, length + 1));
    }
    text.record.generation = (uint64_t)INT64_MAX + 1;
    ck_assert_ptr_nonnull(witness_text_parse(&again, bytes, witness_text_format(&text, bytes)));
}
END_TEST

START_TEST(what_crashes_have_left_is_swept_when_it_is_old)
{
    struct stat now;

    store_write(".minivmm-old", "x", 1);
    store_write(".minivmm-new", "x", 1);
    store_write(".other", "x", 1);
    must_give(0, 7);
    ck_assert_int_eq(stat(store_path(".minivmm-new"), &now), 0);
    struct utimbuf long_ago = {now.st_mtime - 7200, now.st_mtime - 7200};
    utime(store_path(".minivmm-old"), &long_ago);
    utime(store_path(".other"), &long_ago);
    utime(store_path(name_a(1)), &long_ago);
    witness_close(store_open());
    ck_assert_uint_eq(store_count(".minivmm-old"), 0);
    ck_assert_uint_eq(store_count(".minivmm-new"), 1);
    ck_assert_uint_eq(store_count(".other"), 1);
    expect(1, 7, 0);
}
END_TEST

START_TEST(another_folder_under_the_path_is_seen_for_what_it_is)
{
    char away[600];

    must_give(0, 7);
    snprintf(away, sizeof(away), "%s/away", rig);
    ck_assert_int_eq(rename(store, away), 0);
    struct ft_record is;
    struct err err = {0};
    ck_assert_int_eq(witness_read(witness, vm_a, &is, &err), -ENOENT);
    ck_assert_int_eq(mkdir(store, 0755), 0);
    expect(0, 0, 0);
    ck_assert_int_eq(give(witness, 1, 8, &is, NULL), -EAGAIN);
    ck_assert_uint_eq(is.generation, 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("witness");
    TCase *tests = tcase_create("file");

    tcase_set_timeout(tests, 60);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, an_address_says_which_kind);
    tcase_add_test(tests, a_witness_that_somebody_names_has_to_know_the_vm);
    tcase_add_test(tests, a_folder_that_cannot_be_one_is_refused_with_the_mend);
    tcase_add_test(tests, a_file_system_without_what_it_takes_is_refused_with_the_reason);
    tcase_add_test(tests, a_real_overlay_is_refused_by_its_name);
    tcase_add_test(tests, a_read_only_file_system_is_named_as_such);
    tcase_add_test(tests, a_full_disk_leaves_nothing_half_made);
    tcase_add_test(tests, what_was_exchanged_is_read_by_everybody);
    tcase_add_test(tests, what_anybody_hears_of_is_on_stable_storage);
    tcase_add_test(tests, only_the_newest_generation_can_be_exchanged);
    tcase_add_test(tests, an_old_list_hides_nothing_and_gives_nothing_twice);
    tcase_add_test(tests, what_is_no_record_is_named_and_nothing_is_guessed);
    tcase_add_test(tests, a_text_that_is_not_whole_to_the_byte_is_damaged);
    tcase_add_test(tests, what_crashes_have_left_is_swept_when_it_is_old);
    tcase_add_test(tests, another_folder_under_the_path_is_seen_for_what_it_is);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
