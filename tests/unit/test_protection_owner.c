/* SPDX-License-Identifier: MIT */
/* Whether a VM may be run from a folder: copies and moved ones, and what the witness says. */
#include "ft/ownership.h"
#include "ft/protection.h"
#include "tests/unit/witness_rig.h"
#include "vmm/identity.h"

static const struct protection sample = {
    .role = PROTECTION_OWNER,
    .uuid = {0x6f, 0x1e, 0xd0, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, /* vm_a */
    .node = 0x0123456789abcdef,
    .generation = 42,
    .peer_node = 0xfedcba9876543210,
    .peer = "hostB:7420",
    .witness = "file:/net/witness",
};

/* --- copies ----------------------------------------------------------------------------------- */

static void command(const char *text)
{
    char line[600];
    snprintf(line, sizeof(line), "cd %s && %s", rig, text);
    ck_assert_int_eq(system(line), 0); /* NOLINT(cert-env33-c) */
}

static enum identity_found settle(const char *name)
{
    struct folder folder = rig_lock(name);
    struct identity identity = {0};
    enum identity_found found;
    struct err err = {0};
    ck_assert_msg(identity_settle(&identity, &folder, false, &found, &err) == 0, "%s", err.text);
    identity_finish(&identity);
    folder_close(&folder);
    return found;
}

static int find(const char *name)
{
    struct folder folder = rig_open(name);
    struct protection protection;
    struct err err = {0};
    int ret = protection_find(&protection, &folder, &err);
    ck_assert_msg(ret == 0 || ret == -ENOENT || ret == -ESTALE || err.text[0], "no word");
    folder_close(&folder);
    return ret;
}

static void make_protected(const char *name)
{
    struct protection protection = sample;
    struct identity identity = {0};
    rig_make_vm(name);
    settle(name);
    struct folder folder = rig_open(name);
    ck_assert_int_eq(identity_read(&identity, &folder, NULL), 0);
    memcpy(protection.uuid, identity.uuid, 16);
    ck_assert_int_eq(protection_write(folder.fd, &protection, NULL), 0);
    identity_finish(&identity);
    folder_close(&folder);
}

START_TEST(a_copy_is_not_protected_and_loses_the_mark_with_its_first_run)
{
    make_protected("web1");
    ck_assert_int_eq(find("web1"), 0);
    command("cp -r web1 web2");
    ck_assert_int_eq(find("web2"), -ESTALE);
    ck_assert_int_eq(settle("web2"), IDENTITY_COPIED);
    ck_assert_int_eq(find("web2"), -ENOENT);
    ck_assert_int_eq(access(rig_path("web2/" FOLDER_PROTECTED), F_OK), -1);
    ck_assert_int_eq(find("web1"), 0);
    command("cp web1/" FOLDER_PROTECTED " web2");
    ck_assert_int_eq(find("web2"), -ESTALE); /* nor does another VM's make it so */
}
END_TEST

START_TEST(a_folder_that_was_moved_stays_protected)
{
    make_protected("web1");
    command("mv web1 web2");
    ck_assert_int_eq(find("web2"), 0);
    ck_assert_int_eq(settle("web2"), IDENTITY_MOVED);
    ck_assert_int_eq(find("web2"), 0);
}
END_TEST

START_TEST(without_its_identity_it_is_another_vm)
{
    make_protected("web1");
    command("rm web1/" FOLDER_IDENTITY);
    ck_assert_int_eq(find("web1"), -ESTALE);
    ck_assert_int_eq(settle("web1"), IDENTITY_NEW);
    ck_assert_int_eq(find("web1"), -ESTALE);
    command("echo x >web1/" FOLDER_IDENTITY); /* whose it is nobody knows */
    ck_assert_int_eq(find("web1"), -EINVAL);
    command("echo x >web1/" FOLDER_PROTECTED);
    ck_assert_int_eq(find("web1"), -EBADMSG);
}
END_TEST

/* --- who may run it --------------------------------------------------------------------------- */

enum { US = 100, PEER = 200, THIRD = 300 };

START_TEST(the_witness_says_who_may_run_it)
{
    static const struct {
        enum protection_role role;
        uint64_t generation;
        struct ft_record record;
        const char *words, *hint; /* NULL: it may */
    } cases[] = {
        {PROTECTION_OWNER, 7, {7, US, 0}, NULL, NULL},
        {PROTECTION_OWNER, 7, {7, US, 55}, NULL, NULL},
        {PROTECTION_OWNER, 7, {8, US, 0}, NULL, NULL}, /* taken, and never written down here */
        {PROTECTION_TWIN, 7, {8, US, 0}, NULL, NULL},  /* it has taken over, and died */
        {PROTECTION_OWNER, 0, {0, 0, 0}, NULL, NULL},  /* protected as of now */
        {PROTECTION_OWNER, 7, {8, PEER, 0}, "web1 belongs to hostB:7420, .*generation 8", "older"},
        {PROTECTION_OWNER, 7, {7, PEER, 0}, "web1 belongs to hostB:7420, .*generation 7", "older"},
        {PROTECTION_OWNER, 7, {9, THIRD, 0}, "web1 belongs to another host, .*9", "older"},
        {PROTECTION_TWIN,
         7,
         {7, PEER, 55},
         "web1 is a twin: .* at hostB:7420 .*7",
         "takes over by itself"},
        {PROTECTION_TWIN,
         7,
         {8, PEER, 0},
         "web1 is a twin: .* at hostB:7420 .*8",
         "minivmm protect web1 there"}, /* nobody takes over that no record names */
        {PROTECTION_TWIN,
         7,
         {9, THIRD, 0},
         "web1 is a twin: .* at another host .*9",
         "minivmm protect web1 there"},
        {PROTECTION_TWIN, 0, {0, 0, 0}, "web1 is a twin, and .* knows nothing", ""},
        {PROTECTION_OWNER, 7, {6, US, 0}, "not known: .* generation 6, and it was 7", "look"},
        {PROTECTION_OWNER, 7, {6, PEER, 0}, "not known: .* generation 6, and it was 7", "look"},
        {PROTECTION_OWNER, 7, {0, 0, 0}, "not known: .* generation 0, and it was 7", "look"},
        {PROTECTION_TWIN, 1, {0, 0, 0}, "not known: .* generation 0, and it was 1", "look"},
    };
    for (size_t i = 0; i < array_size(cases); i++) {
        struct protection protection = sample;
        struct err err = {0};
        protection.role = cases[i].role;
        protection.generation = cases[i].generation;
        protection.node = US;
        protection.peer_node = PEER;
        int ret = protection_judge(&protection, &cases[i].record, "web1", &err);
        if (!cases[i].words) {
            ck_assert_msg(ret == 0, "%zu: %s", i, err.text);
            continue;
        }
        ck_assert_msg(ret < 0 && err.kind == ERR_STATE, "%zu", i);
        char pattern[200];
        snprintf(pattern, sizeof(pattern), "%s", cases[i].words);
        const char *at = err.text;
        for (char *save, *part = strtok_r(pattern, "*", &save); part;
             part = strtok_r(NULL, "*", &save)) {
            size_t length = strlen(part);
            if (part[length - 1] == '.')
                part[length - 1] = 0;
            at = at ? strstr(at, part) : NULL;
        }
        ck_assert_msg(at, "%zu: %s", i, err.text);
        ck_assert_msg(strstr(err.hint, cases[i].hint), "%zu: %s", i, err.hint);
    }
}
END_TEST

START_TEST(a_peer_that_is_not_known_is_not_named)
{
    struct protection protection = {.role = PROTECTION_TWIN, .node = US, .peer_node = PEER};
    const struct ft_record record = {.generation = 3, .owner = PEER};
    struct err err = {0};
    ck_assert_int_eq(protection_judge(&protection, &record, "web1", &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "at another host (generation 3)"));
}
END_TEST

static void use_store(struct protection *protection)
{
    store_begin(false);
    int length = snprintf(protection->witness, sizeof(protection->witness), "file:%s", store);
    ck_assert_int_lt(length, (int)sizeof(protection->witness));
}

START_TEST(the_witness_is_asked)
{
    struct protection protection = sample;
    struct err err = {0};
    bool asks = true;
    use_store(&protection);
    protection.generation = 0;
    ck_assert_int_eq(protection_check(&protection, "web1", &asks, &err), 0);
    ck_assert(!asks);
    store_put(1, protection.node);
    ck_assert_int_eq(protection_check(&protection, "web1", NULL, &err), 0);
    store_put(2, protection.peer_node);
    asks = true;
    ck_assert_int_eq(protection_check(&protection, "web1", &asks, &err), -EBUSY);
    ck_assert(asks); /* nothing was promised */
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, "web1 belongs to hostB:7420"));
    store_end();
}
END_TEST

START_TEST(without_an_answer_it_does_not_start_or_asks_on)
{
    static const char *const bad[] = {"file:/nonexistent/witness", "file:relative", "nothing"};
    struct protection protection = sample;
    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        bool asks = false;
        strcpy(protection.witness, bad[i]);
        ck_assert_int_lt(protection_check(&protection, "web1", NULL, &err), 0);
        ck_assert_int_eq(err.kind, ERR_STATE);
        ck_assert_ptr_nonnull(strstr(err.text, "who may run web1 is not known: "));
        ck_assert(err.hint[0]);
        ck_assert_int_eq(protection_check(&protection, "web1", &asks, &err), 0);
        ck_assert(asks);
        ck_assert_int_lt(protection_check(&protection, "web1", NULL, NULL), 0);
    }
}
END_TEST

START_TEST(a_damaged_record_is_no_answer)
{
    struct protection protection = sample;
    struct err err = {0};
    bool asks = false;
    use_store(&protection);
    store_put(41, protection.node);
    store_write(name_a(42), "x", 1);
    ck_assert_int_lt(protection_check(&protection, "web1", NULL, &err), 0);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, name_a(42)));
    ck_assert_int_eq(protection_check(&protection, "web1", &asks, &err), 0);
    ck_assert(asks);
    store_end();
}
END_TEST

/* --- what the other side answers -------------------------------------------------------------- */

/* Who asks for the VM that web1 is, or was. */
static enum frame_ack answer_of(const uint8_t uuid[16])
{
    int place = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(place, 0);
    enum frame_ack answer = ownership_answer(place, uuid);
    close(place);
    return answer;
}

START_TEST(whether_it_runs_here_is_said_only_where_it_is_known)
{
    struct protection protection;
    rig_make_vm("web2");
    make_protected("web1");
    rig_write("a file", "");
    command("ln -s web1 link");
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(protection_read(&protection, folder.fd, NULL), 0);
    ck_assert_int_eq(answer_of(protection.uuid), FRAME_NOT_MINE);
    ck_assert_int_eq(folder_lock(&folder, NULL), 0);
    ck_assert_int_eq(answer_of(protection.uuid), FRAME_YOURS);
    ck_assert_int_eq(answer_of(sample.uuid), FRAME_NOT_MINE);
    rig_write("web1/" FOLDER_PROTECTED, "x");
    ck_assert_int_eq(answer_of(protection.uuid), FRAME_UNKNOWN);
    folder_close(&folder);
    ck_assert_int_eq(answer_of(protection.uuid), FRAME_NOT_MINE); /* no process has it */
}
END_TEST

START_TEST(one_that_cannot_be_read_hides_none_that_can)
{
    struct protection protection;
    make_protected("web1");
    make_protected("web2");
    struct folder folder = rig_lock("web1"), other = rig_lock("web2");
    ck_assert_int_eq(protection_read(&protection, folder.fd, NULL), 0);
    rig_write("web2/" FOLDER_PROTECTED, "x");
    ck_assert_int_eq(answer_of(protection.uuid), FRAME_YOURS);
    folder_close(&other);
    folder_close(&folder);
}
END_TEST

/* As another user, for whom `path` is closed. */
static enum frame_ack closed_answer(const char *path, const uint8_t uuid[16])
{
    int place = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat before;
    uid_t me = geteuid();
    ck_assert(place >= 0 && stat(rig_path(path), &before) == 0);
    ck_assert_int_eq(chmod(rig_path(path), 0), 0);
    ck_assert(me != 0 || seteuid(65534) == 0);
    enum frame_ack answer = ownership_answer(place, uuid);
    ck_assert_int_eq(seteuid(me), 0);
    ck_assert_int_eq(chmod(rig_path(path), before.st_mode & 07777), 0);
    close(place);
    return answer;
}

START_TEST(what_may_not_be_read_is_not_known)
{
    static const char *const closed[] = {".", "web1", "web1/" FOLDER_PROTECTED,
                                         "web1/" FOLDER_IDENTITY};
    struct protection protection;
    make_protected("web1");
    struct folder folder = rig_lock("web1");
    ck_assert_int_eq(protection_read(&protection, folder.fd, NULL), 0);
    ck_assert_int_eq(chmod(rig, 0755), 0);
    ck_assert_int_eq(closed_answer("web1/" FOLDER_DEFINITION, protection.uuid), FRAME_YOURS);
    for (size_t i = 0; i < array_size(closed); i++)
        ck_assert_msg(closed_answer(closed[i], protection.uuid) == FRAME_UNKNOWN, "%s", closed[i]);
    folder_close(&folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protection_owner");
    TCase *tcase = tcase_create("protection_owner");

    tcase_add_unchecked_fixture(tcase, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tcase, rig_begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_copy_is_not_protected_and_loses_the_mark_with_its_first_run);
    tcase_add_test(tcase, a_folder_that_was_moved_stays_protected);
    tcase_add_test(tcase, without_its_identity_it_is_another_vm);
    tcase_add_test(tcase, the_witness_says_who_may_run_it);
    tcase_add_test(tcase, a_peer_that_is_not_known_is_not_named);
    tcase_add_test(tcase, the_witness_is_asked);
    tcase_add_test(tcase, without_an_answer_it_does_not_start_or_asks_on);
    tcase_add_test(tcase, a_damaged_record_is_no_answer);
    tcase_add_test(tcase, whether_it_runs_here_is_said_only_where_it_is_known);
    tcase_add_test(tcase, one_that_cannot_be_read_hides_none_that_can);
    tcase_add_test(tcase, what_may_not_be_read_is_not_known);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
