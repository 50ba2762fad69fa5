/* SPDX-License-Identifier: MIT */
#include "ft/protection.h"
#include "tests/unit/folder_rig.h"
#include "tests/unit/witness_hook.h"

#include <signal.h>

static const struct protection sample = {
    .role = PROTECTION_OWNER,
    .uuid = {0x6f, 0x1e, 0xd0, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
    .node = 0x0123456789abcdef,
    .generation = 42,
    .peer_node = 0xfedcba9876543210,
    .peer = "hostB:7420",
    .witness = "file:/net/wit\"ness",
    .key = "/etc/minivmm/pär.key",
    .durable = true,
    .timeout_ms = 75,
    .min_us = 1000,
    .max_us = 25000,
};

static const char golden[] = "{\n"
                             "  \"role\": \"owner\",\n"
                             "  \"uuid\": \"6f1ed002-0102-0304-0506-0708090a0b0c\",\n"
                             "  \"node\": \"0123456789abcdef\",\n"
                             "  \"generation\": 42,\n"
                             "  \"peer_node\": \"fedcba9876543210\",\n"
                             "  \"peer\": \"hostB:7420\",\n"
                             "  \"witness\": \"file:/net/wit\\\"ness\",\n"
                             "  \"key\": \"/etc/minivmm/pär.key\",\n"
                             "  \"insecure\": false,\n"
                             "  \"durable\": true,\n"
                             "  \"timeout_ms\": 75,\n"
                             "  \"min_us\": 1000,\n"
                             "  \"max_us\": 25000\n"
                             "}\n";

static void expect_same(const struct protection *a, const struct protection *b)
{
    ck_assert_int_eq(a->role, b->role);
    ck_assert_mem_eq(a->uuid, b->uuid, sizeof(a->uuid));
    ck_assert(a->node == b->node && a->peer_node == b->peer_node);
    ck_assert_uint_eq(a->generation, b->generation);
    ck_assert_str_eq(a->peer, b->peer);
    ck_assert_str_eq(a->back, b->back);
    ck_assert_str_eq(a->witness, b->witness);
    ck_assert_str_eq(a->key, b->key);
    ck_assert(a->insecure == b->insecure && a->durable == b->durable);
    ck_assert(a->timeout_ms == b->timeout_ms && a->min_us == b->min_us && a->max_us == b->max_us);
}

static int open_rig(void)
{
    int folder = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(folder, 0);
    return folder;
}

static struct protection read_back(int folder)
{
    struct protection protection;
    struct err err = {0};
    ck_assert_msg(protection_read(&protection, folder, &err) == 0, "%s", err.text);
    return protection;
}

static void write_good(int folder, const struct protection *protection)
{
    struct err err = {0};
    ck_assert_msg(protection_write(folder, protection, &err) == 0, "%s", err.text);
}

/* --- the file --------------------------------------------------------------------------------- */

/* Older folders do not have it. */
START_TEST(where_our_own_standby_is_may_be_missing)
{
    struct protection protection = sample, parsed;
    memset(protection.back, 'b', sizeof(protection.back) - 1);
    char *text = protection_format(&protection);
    ck_assert_ptr_null(protection_parse(&parsed, text, strlen(text)));
    expect_same(&protection, &parsed);
    char *address = strstr(text, "bbb");
    *address = ' ';
    ck_assert_ptr_nonnull(protection_parse(&parsed, text, strlen(text)));
    memcpy(strstr(text, "\"back\""), "\"kcab\"", 6);
    ck_assert_ptr_null(protection_parse(&parsed, text, strlen(text)));
    ck_assert_str_eq(parsed.back, "");
    free(text);
}
END_TEST

START_TEST(what_is_written_is_read)
{
    int folder = open_rig();
    struct protection there, ends = sample;
    struct err err = {0};
    ck_assert_int_eq(protection_read(&there, folder, &err), -ENOENT);
    ck_assert_str_eq(err.text, "");
    write_good(folder, &sample);
    there = read_back(folder);
    expect_same(&there, &sample);

    ends.role = PROTECTION_TWIN; /* all fields at their ends */
    memset(ends.uuid, 0xff, sizeof(ends.uuid));
    ends.node = UINT64_MAX;
    ends.generation = INT64_MAX;
    ends.peer_node = 0;
    memset(ends.peer, '~', sizeof(ends.peer) - 1);
    memset(ends.witness, '"', sizeof(ends.witness) - 1);
    memset(ends.key, '/', sizeof(ends.key) - 1);
    ends.insecure = true;
    ends.durable = false;
    ends.timeout_ms = 3600000;
    ends.min_us = ends.max_us = 3600000000;
    write_good(folder, &ends);
    there = read_back(folder);
    expect_same(&there, &ends);

    struct protection least = {.role = PROTECTION_OWNER, .uuid = {1}, .node = 1, .witness = "x"};
    write_good(folder, &least);
    there = read_back(folder);
    expect_same(&there, &least);

    ck_assert_int_eq(protection_remove(folder, &err), 0);
    ck_assert_int_eq(protection_read(&there, folder, &err), -ENOENT);
    ck_assert_int_eq(protection_remove(folder, &err), 0);
    close(folder);
}
END_TEST

START_TEST(the_text_is_what_it_was_from_the_beginning)
{
    int folder = open_rig();
    write_good(folder, &sample);
    char *text = rig_read(FOLDER_PROTECTED);
    ck_assert_str_eq(text, golden);
    free(text);
    close(folder);
}
END_TEST

START_TEST(a_number_is_drawn_that_nobody_has)
{
    uint64_t one = 0, other = 0;
    ck_assert_int_eq(protection_draw_node(&one, NULL), 0);
    ck_assert_int_eq(protection_draw_node(&other, NULL), 0);
    ck_assert(one != 0 && other != 0 && one != other);
}
END_TEST

#define U "6f1ed002-0102-0304-0506-0708090a0b0c"

/* In the golden text, this for that; and what is said then. */
static const struct damage {
    const char *that, *this, *words;
} damages[] = {
    {"{\n  \"role\"", "[\n  \"role\"", "JSON"},
    {golden, "[1, 2]", "no JSON object"},
    {golden, "\"owner\"", "JSON"},
    {golden, "{}", "\"role\""},
    {"}\n", "}}\n", "JSON"},
    {"\"owner\"", "\"Owner\"", "\"role\""},
    {"\"owner\"", "1", "\"role\""},
    {"\"owner\"", "\"owner\", \"role\": \"twin\"", "JSON"},
    {"\"role\"", "\"rule\"", "\"role\""},
    {"\"uuid\"", "\"UUID\"", "\"uuid\""},
    {U, "6f1ed002", "\"uuid\""},
    {U, "00000000-0000-0000-0000-000000000000", "\"uuid\""},
    {U, U "d", "\"uuid\""},
    {"\"" U "\"", "null", "\"uuid\""},
    {"\"node\"", "\"nude\"", "\"node\""},
    {"0123456789abcdef", "0000000000000000", "\"node\""},
    {"0123456789abcdef", "0123456789abcde", "\"node\""},
    {"0123456789abcdef", "0123456789abcdef0", "\"node\""},
    {"0123456789abcdef", "0123456789ABCDEF", "\"node\""},
    {"0123456789abcdef", "0x23456789abcdef", "\"node\""},
    {"0123456789abcdef", "-123456789abcdef", "\"node\""},
    {"0123456789abcdef", "fedcba9876543210", "\"peer_node\""},
    {"\"0123456789abcdef\"", "1234567890123456", "\"node\""},
    {"42", "-1", "\"generation\""},
    {"42", "42.0", "\"generation\""},
    {"42", "\"42\"", "\"generation\""},
    {"42", "9223372036854775808", "JSON"},
    {"\"generation\"", "\"g\"", "\"generation\""},
    {"fedcba9876543210", "fedcba987654321g", "\"peer_node\""},
    {"\"peer_node\"", "\"p\"", "\"peer_node\""},
    {"\"peer\"", "\"p\"", "\"peer\""},
    {"hostB:7420", "host B:7420", "\"peer\""},
    {"hostB:7420", "host\\u001b[31m", "\"peer\""},
    {"hostB:7420", "hostB\\u0000", "JSON"},
    {"hostB:7420", "höstB", "\"peer\""},
    {"\"file:/net/wit\\\"ness\"", "\"\"", "\"witness\""},
    {"\"file:/net/wit\\\"ness\"", "{}", "\"witness\""},
    {"/net/", "/net/\\n", "\"witness\""},
    {"/net/", "/net/\\u009b", "\"witness\""},
    {"\"witness\"", "\"w\"", "\"witness\""},
    {"\"/etc", "\"etc", "\"key\""},
    {"\"/etc", "\"/etc\\u007f", "\"key\""},
    {"p\xc3\xa4r", "p\xc3r", "JSON"},
    {"\"key\"", "\"k\"", "\"key\""},
    {"false", "0", "\"insecure\""},
    {"true", "\"yes\"", "\"durable\""},
    {"\"durable\": true,", "", "\"durable\""},
    {"75", "3600001", "hour"},
    {"75", "-5", "\"timeout_ms\""},
    {"75", "75e3", "\"timeout_ms\""},
    {"1000", "25001", "\"min_us\""},
    {"1000", "3600000001", "\"min_us\""},
    {"25000", "99999999999999999999999", "JSON"},
    {",\n  \"max_us\": 25000", "", "\"max_us\""},
};

static void damage_golden(const struct damage *damage, char *ret_text, size_t size)
{
    const char *at = strstr(golden, damage->that);
    ck_assert_msg(at, "nothing is damaged: %s", damage->that);
    snprintf(ret_text, size, "%.*s%s%s", (int)(at - golden), golden, damage->this,
             at + strlen(damage->that));
}

START_TEST(what_is_damaged_is_refused_with_what_is_wrong)
{
    char text[2 * sizeof(golden)];
    for (size_t i = 0; i < array_size(damages); i++) {
        struct protection protection = {.node = 7};
        damage_golden(&damages[i], text, sizeof(text));
        const char *wrong = protection_parse(&protection, text, strlen(text));
        ck_assert_msg(wrong, "taken: %s", text);
        ck_assert_msg(strstr(wrong, damages[i].words), "%zu: \"%s\" for %s", i, wrong, text);
        ck_assert(protection.node == 7);
    }
    for (size_t cut = 0; cut < strlen(golden) - 2; cut++) {
        struct protection protection;
        ck_assert_msg(protection_parse(&protection, golden, cut), "cut at %zu", cut);
    }
}
END_TEST

START_TEST(text_that_is_too_long_for_its_field_is_refused)
{
    static const struct {
        const char *that, *words;
        size_t most;
        char fill;
    } fields[] = {{"hostB:7420", "\"peer\"", sizeof(sample.peer) - 1, 'x'},
                  {"file:/net/wit\\\"ness", "\"witness\"", sizeof(sample.witness) - 1, 'x'},
                  {"/etc/minivmm/pär.key", "\"key\"", sizeof(sample.key) - 1, '/'}};
    static char longest[PATH_MAX + 2], text[2 * PATH_MAX];
    for (size_t i = 0; i < array_size(fields); i++) {
        struct damage damage = {.that = fields[i].that, .this = longest};
        struct protection protection;
        for (size_t over = 0; over < 2; over++) {
            memset(longest, 0, sizeof(longest));
            memset(longest, fields[i].fill, fields[i].most + over);
            damage_golden(&damage, text, sizeof(text));
            const char *wrong = protection_parse(&protection, text, strlen(text));
            ck_assert_msg(!wrong == !over, "%zu: %s", i, wrong ? wrong : "taken");
            ck_assert(!wrong || strstr(wrong, fields[i].words));
        }
    }
}
END_TEST

START_TEST(keys_that_nobody_knows_are_passed_over)
{
    const struct damage damage = {.that = "{\n", .this = "{\"later\": {\"than\": [\"us\"]},\n"};
    struct protection protection;
    char text[2 * sizeof(golden)];
    damage_golden(&damage, text, sizeof(text));
    ck_assert_ptr_null(protection_parse(&protection, text, strlen(text)));
    expect_same(&protection, &sample);
}
END_TEST

static void put_nothing(void)
{
    rig_write(FOLDER_PROTECTED, "");
}

static void put_half(void)
{
    rig_write(FOLDER_PROTECTED, "{\"role\": \"ow");
}

static void put_much(void)
{
    char *much = malloc(PROTECTION_TEXT_MAX + 2);
    memset(much, ' ', PROTECTION_TEXT_MAX + 1);
    much[PROTECTION_TEXT_MAX + 1] = 0;
    rig_write(FOLDER_PROTECTED, much);
    free(much);
}

static void put_folder(void)
{
    rig_make_folder(FOLDER_PROTECTED);
}

static void put_link(void)
{
    rig_write("good", golden);
    ck_assert_int_eq(symlink("good", rig_path(FOLDER_PROTECTED)), 0);
}

static void put_pipe(void)
{
    ck_assert_int_eq(mkfifo(rig_path(FOLDER_PROTECTED), 0600), 0);
}

/* A pipe would be waited for by who is not careful. */
START_TEST(a_file_that_is_none_is_refused_and_said)
{
    static void (*const puts[])(void) = {put_nothing, put_half, put_much,
                                         put_folder,  put_link, put_pipe};
    struct protection protection = {.node = 7};
    struct err err = {0};
    puts[_i]();
    int folder = open_rig();
    ck_assert_int_eq(protection_read(&protection, folder, &err), -EBADMSG);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert_ptr_nonnull(strstr(err.text, FOLDER_PROTECTED " is damaged: it is "));
    ck_assert_ptr_nonnull(strstr(err.hint, "remove it"));
    ck_assert(protection.node == 7);
    close(folder);
}
END_TEST

START_TEST(what_could_not_be_read_again_is_not_written)
{
    struct protection bad[12];
    struct err err = {0};
    int folder = open_rig();
    write_good(folder, &sample);
    for (size_t i = 0; i < array_size(bad); i++)
        bad[i] = sample;
    bad[0].role = 0;
    bad[1].role = PROTECTION_OFF + 1;
    memset(bad[2].uuid, 0, 16);
    bad[3].node = 0;
    bad[4].generation = (uint64_t)INT64_MAX + 1;
    bad[5].peer_node = bad[5].node;
    strcpy(bad[6].peer, "a b");
    bad[7].witness[0] = 0;
    strcpy(bad[8].witness, "file:/\xff");
    strcpy(bad[9].key, "pair.key");
    strcpy(bad[10].key, "/pair\n.key");
    bad[11].max_us = 999;
    for (size_t i = 0; i < array_size(bad); i++) {
        err.text[0] = 0;
        ck_assert_int_eq(protection_write(folder, &bad[i], &err), -EINVAL);
        ck_assert_ptr_nonnull(strstr(err.text, "cannot write " FOLDER_PROTECTED));
        struct protection there = read_back(folder);
        expect_same(&there, &sample);
    }
    close(folder);
}
END_TEST

/* --- where there is no room --------------------------------------------------------------------
 */

/* What it was before, and what is put aside now. */
static uint64_t inode_of(int folder, const char *name)
{
    struct stat stat;
    ck_assert_int_eq(fstatat(folder, name, &stat, AT_SYMLINK_NOFOLLOW), 0);
    return stat.st_ino;
}

START_TEST(room_for_the_next_one_is_put_aside)
{
    struct protection next = sample;
    struct err err = {0};
    int folder = open_rig();
    write_good(folder, &sample);
    uint64_t first = inode_of(folder, FOLDER_PROTECTED), other = inode_of(folder, FOLDER_SPARE);
    hook.full = true;
    for (next.generation = 43; next.generation < 47; next.generation++) {
        strcpy(next.key, next.generation % 2 ? "" : sample.key); /* of another length */
        write_good(folder, &next);
        struct protection there = read_back(folder);
        expect_same(&there, &next);
        ck_assert_uint_eq(inode_of(folder, FOLDER_PROTECTED), next.generation % 2 ? other : first);
    }
    ck_assert_int_eq(unlinkat(folder, FOLDER_SPARE, 0), 0);
    ck_assert_int_eq(protection_write(folder, &next, &err), -ENOSPC);
    ck_assert_msg(strstr(err.text, "cannot write " FOLDER_PROTECTED), "%s", err.text);
    ck_assert_uint_eq(read_back(folder).generation, 46);
    hook.full = false;
    write_good(folder, &next);
    ck_assert_int_eq(faccessat(folder, FOLDER_SPARE, F_OK, 0), 0);
    ck_assert_int_eq(protection_remove(folder, NULL), 0);
    ck_assert_int_lt(faccessat(folder, FOLDER_SPARE, F_OK, 0), 0);
    close(folder);
}
END_TEST

/* Nothing is written through what somebody has put there. */
START_TEST(a_spare_that_is_something_else_is_replaced)
{
    static const char *const makers[] = {"ln -s victim " FOLDER_SPARE, "ln victim " FOLDER_SPARE,
                                         "mkfifo " FOLDER_SPARE, "touch " FOLDER_SPARE};
    struct protection next = sample;
    int folder = open_rig();
    for (size_t i = 0; i < array_size(makers); i++) {
        char command[3 * PATH_MAX];
        write_good(folder, &sample);
        rig_write("victim", "untouched");
        snprintf(command, sizeof(command), "cd %s && rm " FOLDER_SPARE " && %s", rig_path("."),
                 makers[i]);
        ck_assert_int_eq(system(command), 0);
        next.generation++;
        write_good(folder, &next);
        struct protection there = read_back(folder);
        expect_same(&there, &next);
        char *text = rig_read("victim");
        ck_assert_str_eq(text, "untouched");
        free(text);
    }
    close(folder);
}
END_TEST

/* --- at each step ----------------------------------------------------------------------------- */

/* What lies there at first; in every other loop without room for the next one. */
static void write_first(int folder, int loop)
{
    write_good(folder, &sample);
    if (loop == 0)
        ck_assert_int_eq(unlinkat(folder, FOLDER_SPARE, 0), 0);
}

static struct steps {
    int folder;
    char log[64], *seen_log;
    uint64_t generation; /* of what lay there */
} steps;

/* Not by our own reading, whose steps would count. */
static void look(void *arg)
{
    char *text = rig_read(FOLDER_PROTECTED);
    steps.generation = strstr(text, "\"generation\": 42")   ? 42
                       : strstr(text, "\"generation\": 43") ? 43
                                                            : 0;
    steps.seen_log = strdup(steps.log);
    free(text);
}

/* The text is on the disk before it has the name, and the name is before anybody hears of it; what
 * had the name last has it there no more before it is written over. */
START_TEST(at_each_step_the_file_is_whole_and_the_disk_has_it_in_order)
{
    struct protection next = sample;
    unsigned old = 0, new = 0;
    next.generation = 43;
    steps.folder = open_rig();
    for (int at = 0;; at++) {
        write_first(steps.folder, _i);
        steps.log[0] = 0;
        hook.log = steps.log;
        hook.act = look;
        hook_set(HOOK_ACT, at);
        write_good(steps.folder, &next);
        bool happened = hook.happened;
        hook_set(HOOK_NONE, 0);
        hook.log = NULL;
        ck_assert(strchr(steps.log, 'f') && strchr(steps.log, 'f') < strrchr(steps.log, 'd'));
        ck_assert(_i == 0 || steps.log[0] == 'd');
        if (!happened)
            break;
        ck_assert(steps.generation == 42 || steps.generation == 43);
        if (steps.generation == 43)
            ck_assert_ptr_nonnull(strchr(steps.seen_log, 'f'));
        if (strchr(steps.seen_log, 'f') && strchr(strchr(steps.seen_log, 'f'), 'd'))
            ck_assert_uint_eq(steps.generation, 43);
        steps.generation == 42 ? old++ : new ++;
        free(steps.seen_log);
    }
    ck_assert_uint_ge(old, 3);
    ck_assert_uint_ge(new, 2);
    close(steps.folder);
}
END_TEST

static void die(void *arg)
{
    raise(SIGKILL);
}

static void write_and_die(void *ctx)
{
    const struct protection *next = ctx;
    hook.act = die;
    hook_set(HOOK_ACT, hook.at);
    _exit(protection_write(steps.folder, next, NULL) == 0 ? 0 : 1);
}

START_TEST(killed_at_each_step_it_is_the_old_one_or_the_new_one)
{
    struct protection next = sample;
    int killed = 0;
    next.generation = 43;
    steps.folder = open_rig();
    for (int at = 0;; at++) {
        write_first(steps.folder, _i);
        hook.at = at;
        int status = rig_wait(rig_fork(write_and_die, &next));
        struct protection there = read_back(steps.folder);
        if (!WIFSIGNALED(status)) {
            ck_assert_int_eq(status, 0);
            expect_same(&there, &next);
            break;
        }
        killed++;
        expect_same(&there, there.generation == 43 ? &next : &sample);
    }
    ck_assert_int_ge(killed, 6);
    write_good(steps.folder, &next); /* sweeps what is left beside it */
    ck_assert_int_eq(faccessat(steps.folder, "." FOLDER_PROTECTED ".new", F_OK, 0), -1);
    close(steps.folder);
}
END_TEST

START_TEST(a_step_that_fails_is_said_and_leaves_a_whole_file)
{
    struct protection next = sample;
    unsigned failed = 0;
    next.generation = 43;
    steps.folder = open_rig();
    for (int at = 0;; at++) {
        struct err err = {0};
        write_first(steps.folder, _i);
        hook.error = EIO;
        hook_set(HOOK_FAIL, at);
        int ret = protection_write(steps.folder, &next, &err);
        bool happened = hook.happened;
        hook_set(HOOK_NONE, 0);
        struct protection there = read_back(steps.folder);
        expect_same(&there, there.generation == 43 ? &next : &sample);
        if (!happened)
            break;
        if (ret < 0)
            ck_assert_ptr_nonnull(strstr(err.text, "cannot write " FOLDER_PROTECTED));
        else
            ck_assert_uint_eq(there.generation, 43);
        failed += ret < 0;
    }
    /* Making it, its bytes to the disk, its name; what goes wrong with a spare goes without. */
    ck_assert_uint_ge(failed, _i == 0 ? 3 : 1);
    close(steps.folder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protection");
    TCase *tcase = tcase_create("protection");

    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, rig_begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, where_our_own_standby_is_may_be_missing);
    tcase_add_test(tcase, what_is_written_is_read);
    tcase_add_test(tcase, the_text_is_what_it_was_from_the_beginning);
    tcase_add_test(tcase, a_number_is_drawn_that_nobody_has);
    tcase_add_test(tcase, what_is_damaged_is_refused_with_what_is_wrong);
    tcase_add_test(tcase, text_that_is_too_long_for_its_field_is_refused);
    tcase_add_test(tcase, keys_that_nobody_knows_are_passed_over);
    tcase_add_loop_test(tcase, a_file_that_is_none_is_refused_and_said, 0, 6);
    tcase_add_test(tcase, what_could_not_be_read_again_is_not_written);
    tcase_add_test(tcase, room_for_the_next_one_is_put_aside);
    tcase_add_test(tcase, a_spare_that_is_something_else_is_replaced);
    tcase_add_loop_test(tcase, at_each_step_the_file_is_whole_and_the_disk_has_it_in_order, 0, 2);
    tcase_add_loop_test(tcase, killed_at_each_step_it_is_the_old_one_or_the_new_one, 0, 2);
    tcase_add_loop_test(tcase, a_step_that_fails_is_said_and_leaves_a_whole_file, 0, 2);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
