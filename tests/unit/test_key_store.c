/* SPDX-License-Identifier: MIT */
#include "tests/unit/key_store_rig.h"

#define GOOD "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef\n"

static void check_refused(const struct err *err, const char *words, const char *mend)
{
    ck_assert_msg(strstr(err->text, words), "\"%s\" lacks \"%s\"", err->text, words);
    ck_assert_msg(strstr(err->hint, mend), "\"%s\" lacks \"%s\"", err->hint, mend);
}

START_TEST(what_is_no_name_of_a_host_is_no_name_of_a_file)
{
    static const char *const bad[] = {"",      "..",   "../x",  "/etc/passwd", "a/b",
                                      ".lock", "-oX",  "a b",   "a\nb",        "a;b",
                                      "\xff",  "a\\b", "$HOME", "%2e",         "h\xc3\xa9"};
    static const char *const good[] = {"hostb", "10.0.0.2", "fe80::1%eth0", "a", "web-1_x.example"};
    char name[KEY_STORE_NAME], longest[KEY_STORE_NAME + 1];

    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        ck_assert_msg(key_store_name(name, bad[i], &err) == -EINVAL, "%s", bad[i]);
        check_refused(&err, "is no name of a host", "letters, digits");
    }
    for (size_t i = 0; i < array_size(good); i++) {
        ck_assert_int_eq(key_store_name(name, good[i], NULL), 0);
        ck_assert_str_eq(name, good[i]);
    }
    ck_assert_int_eq(key_store_name(name, "HostB.Example", NULL), 0);
    ck_assert_str_eq(name, "hostb.example");
    memset(longest, 'a', sizeof(longest));
    longest[KEY_STORE_NAME] = 0;
    ck_assert_int_eq(key_store_name(name, longest, NULL), -EINVAL);
    longest[KEY_STORE_NAME - 1] = 0;
    ck_assert_int_eq(key_store_name(name, longest, NULL), 0);
}
END_TEST

START_TEST(a_pair_comes_back_as_it_was_written_and_is_its_owners_alone)
{
    static const enum key_pair_state states[] = {KEY_PAIR_SETTLED, KEY_PAIR_NEXT, KEY_PAIR_BEFORE};
    struct key_pair pair = new_pair("hosta"), back;
    struct store_rig rig;
    struct stat stat;
    struct link_key key;
    char path[PATH_MAX];

    store_begin(&rig);
    mode_t before = umask(0);
    int store = store_open();
    ck_assert_int_eq(fstat(store, &stat), 0);
    ck_assert_uint_eq(stat.st_mode & 0777, 0700);
    ck_assert_int_eq(key_store_read(store, "hostb", &back, NULL), -ENOENT);
    for (size_t i = 0; i < array_size(states); i++) {
        pair.state = states[i];
        ck_assert_int_eq(key_store_write(store, "hostb", &pair, NULL), 0);
        ck_assert_int_eq(fstatat(store, "hostb.key", &stat, 0), 0);
        ck_assert_uint_eq(stat.st_mode & 0777, 0600);
        ck_assert_int_eq(key_store_read(store, "hostb", &back, NULL), 0);
        ck_assert_mem_eq(&back.key, &pair.key, sizeof(pair.key));
        ck_assert_int_eq(back.state, states[i]);
        ck_assert_str_eq(back.as, "hosta");
        if (states[i] != KEY_PAIR_SETTLED)
            ck_assert_mem_eq(&back.other, &pair.other, sizeof(pair.other));
        /* Who knows only the path of its file has the key with which to call. */
        ck_assert_int_eq(key_store_for(path, "HOSTB:7421", NULL), 0);
        ck_assert_int_eq(link_key_read(&key, path, NULL), 0);
        ck_assert_mem_eq(&key, &pair.key, sizeof(key));
        ck_assert(key_store_has_path(path));
    }
    umask(before);
    ck_assert(!key_store_has_path("/root/pair.key"));
    ck_assert_int_eq(key_store_remove(store, "hostb", NULL), 0);
    ck_assert_int_eq(key_store_remove(store, "hostb", NULL), -ENOENT);
    ck_assert_int_eq(key_store_for(path, "hostb:7420", NULL), 0);
    ck_assert_str_eq(path, "");
    close(store);
    store_end(&rig);
}
END_TEST

START_TEST(a_folder_that_is_not_its_owners_alone_is_refused)
{
    struct store_rig rig;
    char path[PATH_MAX], aside[128];
    struct err err = {0};

    store_begin(&rig);
    ck_assert_int_eq(key_store_open(false, &err), -ENOENT);
    check_refused(&err, "cannot open", "minivmm pair");
    ck_assert_int_eq(key_store_for(path, "hostb", &err), 0); /* no store, no key: no error */
    close(store_open());
    ck_assert_int_eq(chmod(rig.path, 0750), 0);
    ck_assert_int_eq(key_store_open(true, &err), -EPERM);
    check_refused(&err, "others can get into", "chmod 700");
    ck_assert_int_eq(key_store_for(path, "hostb", &err), -EPERM);
    ck_assert_int_eq(chmod(rig.path, 0700), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(chown(rig.path, 65534, 65534), 0);
        ck_assert_int_eq(key_store_open(true, &err), -EPERM);
        check_refused(&err, "another user", "chown");
    }
    snprintf(aside, sizeof(aside), "%s/aside", rig.root);
    ck_assert_int_eq(rename(rig.path, aside), 0);
    ck_assert_int_eq(symlink(aside, rig.path), 0);
    ck_assert_int_lt(key_store_open(true, &err), 0);
    check_refused(&err, "cannot open", "no symbolic link");
    store_end(&rig);
}
END_TEST

static void put(int store, const char *file, const char *text, size_t length, mode_t mode)
{
    (void)unlinkat(store, file, 0);
    int fd = openat(store, file, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    close(fd);
}

START_TEST(a_file_that_is_not_sound_is_refused_and_says_why)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        {"", "first line"},
        {GOOD, "second line"},
        {GOOD "as ", "second line"},
        {GOOD "as hosta", "second line"},
        {GOOD "as ../x\n", "second line"},
        {GOOD "is hosta\n", "second line"},
        {"x" GOOD "as hosta\n", "first line"},
        {GOOD "as hosta\nnext 00\n", "third line"},
        {GOOD "as hosta\nbefore " GOOD "\n", "more in it"},
        {GOOD "as hosta\nlater " GOOD, "third line"},
        {GOOD "as hosta\nnext " GOOD "next " GOOD, "more in it"},
        {GOOD "as hosta\nx", "more in it"},
    };
    struct key_pair pair;
    struct store_rig rig;
    struct err err = {0};
    char large[2000];

    store_begin(&rig);
    int store = store_open();
    for (size_t i = 0; i < array_size(wrong); i++) {
        put(store, "hostb.key", wrong[i].text, strlen(wrong[i].text), 0600);
        ck_assert_int_eq(key_store_read(store, "hostb", &pair, &err), -EINVAL);
        check_refused(&err, wrong[i].words, "minivmm pair --renew");
    }
    put(store, "hostb.key", GOOD "as hosta\n\0", sizeof(GOOD "as hosta\n"), 0600);
    ck_assert_int_eq(key_store_read(store, "hostb", &pair, &err), -EINVAL);
    check_refused(&err, "zero byte", "--renew");
    memset(large, 'a', sizeof(large));
    put(store, "hostb.key", large, sizeof(large), 0600);
    ck_assert_int_lt(key_store_read(store, "hostb", &pair, &err), 0);
    check_refused(&err, "too large", "--renew");
    put(store, "hostb.key", GOOD "as hosta\n", strlen(GOOD "as hosta\n"), 0640);
    ck_assert_int_eq(key_store_read(store, "hostb", &pair, &err), -EPERM);
    check_refused(&err, "by others", "chmod 600");
    put(store, "aside", GOOD "as hosta\n", strlen(GOOD "as hosta\n"), 0600);
    ck_assert_int_eq(unlinkat(store, "hostb.key", 0), 0);
    ck_assert_int_eq(symlinkat("aside", store, "hostb.key"), 0);
    ck_assert_int_lt(key_store_read(store, "hostb", &pair, &err), 0);
    check_refused(&err, "symbolic link", "--renew");
    ck_assert_int_eq(unlinkat(store, "hostb.key", 0), 0);
    ck_assert_int_eq(mkfifoat(store, "hostb.key", 0600), 0);
    ck_assert_int_lt(key_store_read(store, "hostb", &pair, &err), 0); /* and did not wait */
    close(store);
    store_end(&rig);
}
END_TEST

START_TEST(a_list_has_the_pairs_and_nothing_else)
{
    struct key_pair pair = new_pair("hosta");
    struct key_store_names *names = malloc(sizeof(*names));
    struct store_rig rig;

    store_begin(&rig);
    int store = store_open(), lock, other;
    ck_assert_ptr_nonnull(names);
    ck_assert_int_eq(key_store_write(store, "hostc", &pair, NULL), 0);
    ck_assert_int_eq(key_store_write(store, "10.0.0.2", &pair, NULL), 0);
    put(store, "hostd.key", "rubbish", 7, 0644);
    put(store, ".hostb.key.new", "rubbish", 7, 0600);
    put(store, "a b.key", "rubbish", 7, 0600);
    put(store, ".key", "rubbish", 7, 0600);
    ck_assert_int_eq(key_store_lock(&lock, store, NULL), 0);
    ck_assert_int_eq(key_store_lock(&other, store, NULL), -EAGAIN);
    ck_assert_int_eq(key_store_list(store, names, NULL), 0);
    ck_assert_uint_eq(names->count, 3);
    ck_assert_str_eq(names->names[0], "10.0.0.2");
    ck_assert_str_eq(names->names[1], "hostc");
    ck_assert_str_eq(names->names[2], "hostd");
    close(lock);
    close(store);
    free(names);
    store_end(&rig);
}
END_TEST

START_TEST(who_calls_is_found_by_the_fingerprint_of_any_key_that_is_good)
{
    static const char *const strangers[] = {
        "",
        "minivmm",
        "../../x",
        "00112233445566778899aabbccddeeff",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "%s%s%s%n"};
    struct key_pair one = new_pair("hosta"), two = new_pair("hosta");
    char print[LINK_KEY_PRINT], wanted[PATH_MAX];
    struct key_finder finder;
    struct store_rig rig;
    struct link_key key;

    store_begin(&rig);
    key_finder_init(&finder);
    ck_assert_int_eq(link_key_print(&one.key, print, NULL), 0);
    ck_assert_uint_eq(strspn(print, "0123456789abcdef"), LINK_KEY_PRINT - 1);
    ck_assert_int_lt(finder.keys.find(&finder.keys, print, &key), 0); /* no store */
    int store = store_open();
    two.state = KEY_PAIR_NEXT;
    put(store, "aaa.key", "rubbish", 7, 0600); /* one that is not sound hides no other */
    ck_assert_int_eq(key_store_write(store, "hostb", &one, NULL), 0);
    ck_assert_int_eq(key_store_write(store, "hostc", &two, NULL), 0);
    const struct link_key *const known[] = {&one.key, &two.key, &two.other};
    for (size_t i = 0; i < array_size(known); i++) {
        ck_assert_int_eq(link_key_print(known[i], print, NULL), 0);
        key_finder_init(&finder);
        ck_assert_int_eq(finder.keys.find(&finder.keys, print, &key), 0);
        ck_assert_mem_eq(&key, known[i], sizeof(key));
        snprintf(wanted, sizeof(wanted), "%s/%s.key", rig.path, i ? "hostc" : "hostb");
        ck_assert_str_eq(finder.path, wanted);
    }
    key_finder_init(&finder);
    for (size_t i = 0; i < array_size(strangers); i++)
        ck_assert_int_lt(finder.keys.find(&finder.keys, strangers[i], &key), 0);
    ck_assert_int_eq(link_key_print(&one.other, print, NULL), 0); /* of a pair that is settled */
    ck_assert_int_lt(finder.keys.find(&finder.keys, print, &key), 0);
    ck_assert_int_eq(fchmodat(store, "hostb.key", 0644, 0), 0); /* others may have read it */
    ck_assert_int_eq(link_key_print(&one.key, print, NULL), 0);
    ck_assert_int_lt(finder.keys.find(&finder.keys, print, &key), 0);
    ck_assert_str_eq(finder.path, "");
    close(store);
    store_end(&rig);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("key_store");
    TCase *tcase = tcase_create("files");

    tcase_add_test(tcase, what_is_no_name_of_a_host_is_no_name_of_a_file);
    tcase_add_test(tcase, a_pair_comes_back_as_it_was_written_and_is_its_owners_alone);
    tcase_add_test(tcase, a_folder_that_is_not_its_owners_alone_is_refused);
    tcase_add_test(tcase, a_file_that_is_not_sound_is_refused_and_says_why);
    tcase_add_test(tcase, a_list_has_the_pairs_and_nothing_else);
    tcase_add_test(tcase, who_calls_is_found_by_the_fingerprint_of_any_key_that_is_good);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
