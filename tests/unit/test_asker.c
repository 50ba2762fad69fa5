/* SPDX-License-Identifier: MIT */
/*
 * One question to a witness, and what becomes of it when the storage, the network or the name
 * servers hang: it is given up in time, by all who ask on their own thread.
 */
#include "core/clock.h"
#include "ft/asker.h"
#include "ft/former.h"
#include "ft/ownership.h"
#include "ft/protection.h"
#include "host/link_parts.h"
#include "tests/unit/witness_wall.h"
#include "vmm/identity.h"

#include <netdb.h>
#include <sys/socket.h>

enum {
    LOOK_NS = 1000000,
    SHORT_MS = 50,
    LONG_MS = 1000 * PATIENCE_S,
    NODE = 11,
    PEER = 12,
    RECORD_NAME = 57
};

static char address[400];
static int place;

/* --- the C library's ---------------------------------------------------------------------------*/

/* What a whole patience is, without its time: over as soon as somebody hangs at the wall. */
static struct {
    bool flies;
    bool looks;       /* the same, but what is answered before that is waited for */
    uint64_t most_ns; /* of what was waited for */
} waiting;

typedef int clockwait(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

static bool somebody_hangs(void)
{
    pthread_mutex_lock(&wall.lock);
    bool hangs = wall.hang > 0;
    pthread_mutex_unlock(&wall.lock);
    return hangs;
}

int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *lock, clockid_t clock,
                           const struct timespec *until)
{
    clockwait *real = NULL;
    void *symbol = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    memcpy(&real, &symbol, sizeof(real));
    if (lock == &wall.lock || !(waiting.flies || waiting.looks))
        return real(cond, lock, clock, until);
    if (waiting.looks && !somebody_hangs()) {
        const struct timespec soon = clock_timespec(clock_monotonic_ns() + LOOK_NS);
        (void)!real(cond, lock, clock, &soon);
        return 0;
    }
    uint64_t at = (uint64_t)until->tv_sec * NS_PER_SEC + (uint64_t)until->tv_nsec;
    uint64_t now = clock_monotonic_ns();
    if (at > now && at - now > waiting.most_ns)
        waiting.most_ns = at - now;
    wait_for_hanging(1, 1);
    return ETIMEDOUT;
}

/* Of a record, by its name: when it was made. */
int fstatat(int folder, const char *name, struct stat *ret_stat, int flags)
{
    if (flags == AT_SYMLINK_NOFOLLOW && strlen(name) == RECORD_NAME)
        hook_pass('s');
    return (int)syscall(SYS_newfstatat, folder, name, ret_stat, flags);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret_list)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = NULL;
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
    memcpy(&real, &symbol, sizeof(real));
    if (name && !link_address_is_number(name)) {
        hook_pass('n');
        return EAI_AGAIN;
    }
    return real(name, service, hints, ret_list);
}

/* --- one question ----------------------------------------------------------------------------- */

static int look_for(const uint8_t vm[16], bool known, unsigned patience_ms,
                    struct ft_record *ret_record, struct err *err)
{
    const struct asker_look look = {
        .witness = address, .uuid = vm, .known = known, .patience_ms = patience_ms};
    *err = (struct err){0};
    return asker_look(&look, ret_record, err);
}

static void expect_silence(void)
{
    char words[500];
    struct ft_record record = {.generation = 77};
    struct err err;
    ck_assert_int_eq(look_for(vm_a, false, SHORT_MS, &record, &err), -ETIMEDOUT);
    snprintf(words, sizeof(words), "%.200s has not answered for 0.05 s", address);
    ck_assert_str_eq(err.text, words);
    ck_assert_int_eq(err.kind, ERR_TIMEOUT);
    ck_assert_msg(strstr(err.hint, "does its storage hang"), "%s", err.hint);
    ck_assert_uint_eq(record.generation, 77);
}

START_TEST(what_it_knows_is_told)
{
    struct ft_record record;
    struct err err;
    ck_assert_int_eq(look_for(vm_a, true, LONG_MS, &record, &err), 0);
    ck_assert_uint_eq(record.generation, 5);
    ck_assert_uint_eq(record.owner, PEER);
    ck_assert_int_eq(look_for(vm_b, false, LONG_MS, &record, &err), 0);
    ck_assert_uint_eq(record.generation, 0);
}
END_TEST

START_TEST(why_there_is_no_answer_is_told)
{
    struct ft_record record;
    struct err err;
    ck_assert_int_eq(look_for(vm_b, true, LONG_MS, &record, &err), -EIO);
    ck_assert_int_eq(err.kind, ERR_STATE);
    strcat(address, "/away");
    ck_assert_int_eq(look_for(vm_a, false, LONG_MS, &record, &err), -EIO);
    ck_assert_msg(strstr(err.text, "/away") && err.kind, "%s", err.text);
}
END_TEST

/* Whether an exchange that fails took place is not known: that is no answer, and not another's
 * record. */
START_TEST(an_exchange_that_fails_says_nothing_of_the_record)
{
    struct ft_record next = {.generation = 5, .owner = NODE};
    struct ft_record is = {.generation = 77};
    struct err err = {0};
    struct asker_look look = {.witness = address, .uuid = vm_a, .patience_ms = LONG_MS};
    ck_assert_int_eq(asker_exchange(&look, 4, &next, &is, &err), -EAGAIN);
    ck_assert_uint_eq(is.generation, 5);
    next.generation = 6;
    is.generation = 77;
    strcat(address, "/away");
    ck_assert_int_eq(asker_exchange(&look, 5, &next, &is, &err), -EIO);
    ck_assert_msg(strstr(err.text, "/away") && err.kind, "%s", err.text);
    ck_assert_uint_eq(is.generation, 77);
}
END_TEST

/* Of this process. */
static unsigned count_threads(void)
{
    const struct dirent *entry;
    unsigned count = 0;
    DIR *list = opendir("/proc/self/task");
    ck_assert(list);
    while ((entry = readdir(list)))
        count += entry->d_name[0] != '.';
    closedir(list);
    return count;
}

START_TEST(one_that_hangs_is_left_and_holds_up_nobody)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    uint64_t until = clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC;
    unsigned before = count_threads();
    struct ft_record record;
    struct err err;
    build_wall('r', 1);
    expect_silence();
    wait_for_hanging(1, 1);
    ck_assert_int_eq(look_for(vm_a, true, LONG_MS, &record, &err), 0);
    ck_assert_uint_eq(record.generation, 5);
    tear_wall_down(); /* its answer is nobody's, and it ends with what was its */
    while (count_threads() > before) {
        ck_assert_msg(clock_monotonic_ns() < until, "%u threads", count_threads());
        nanosleep(&moment, NULL);
    }
}
END_TEST

/* The name servers say nothing. */
START_TEST(a_name_that_nobody_looks_up_is_given_up)
{
    strcpy(address, "etcd://hostc");
    build_wall('n', 1);
    expect_silence();
    wait_for_hanging(1, 1);
    tear_wall_down();
}
END_TEST

START_TEST(an_etcd_that_says_nothing_is_given_up)
{
    struct sockaddr_in name;
    socklen_t length = sizeof(name);
    int listener;
    ck_assert_int_eq(link_listen(&listener, "127.0.0.1:0", NULL), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&name, &length), 0);
    snprintf(address, sizeof(address), "etcd://127.0.0.1:%u", ntohs(name.sin_port));
    expect_silence();
    close(listener);
}
END_TEST

/* --- who asks --------------------------------------------------------------------------------- */

static const struct following following = {.node = PEER, .generation = 5};
static struct protection ours;

/* One question at most, of that patience; who asked it is gone. */
static void build_silence(void)
{
    build_wall('r', 1);
    waiting.flies = true;
}

static void end_silence(void)
{
    waiting.flies = false;
    ck_assert_uint_gt(waiting.most_ns, 0);
    ck_assert_uint_le(waiting.most_ns, ASKER_LOOK_MS * 1000000ull);
    wait_for_hanging(1, 1);
    tear_wall_down();
}

static void expect_named(const struct err *err, const char *words)
{
    ck_assert_msg(strstr(err->text, words), "%s", err->text);
    ck_assert_msg(strstr(err->text, address), "%s", err->text);
    ck_assert_msg(strstr(err->text, "has not answered for 15 s"), "%s", err->text);
    ck_assert_msg(strstr(err->hint, "does its storage hang"), "%s", err->hint);
}

START_TEST(a_vm_starts_standing_still)
{
    struct err err = {0};
    bool asks = false;
    build_silence();
    ck_assert_int_eq(protection_check(&ours, "web1", &asks, &err), 0);
    ck_assert(asks);
    expect_named(&err, "who may run web1 is not known: ");
    ck_assert_msg(strstr(err.hint, "web1 starts when the witness answers"), "%s", err.hint);
    end_silence();
    ck_assert_int_eq(protection_check(&ours, "web1", &asks, &err), -EBUSY);
}
END_TEST

START_TEST(what_cannot_wait_is_refused)
{
    struct err err = {0};
    build_silence();
    ck_assert_int_lt(protection_check(&ours, "web1", NULL, &err), 0);
    ck_assert_int_eq(err.kind, ERR_STATE);
    expect_named(&err, "who may run web1 is not known: ");
    end_silence();
}
END_TEST

START_TEST(a_former_folder_stays_where_it_is)
{
    struct following theirs = following;
    struct err err = {0};
    strcpy(theirs.witness, address);
    build_silence();
    ck_assert_int_eq(former_put_aside(place, "web1", vm_a, &theirs, &err), -ETIMEDOUT);
    expect_named(&err, "web1 is at the twin's host already");
    ck_assert_int_eq(access(rig_path("web1/" FOLDER_PROTECTED), F_OK), 0);
    end_silence();
    ck_assert_int_eq(former_put_aside(place, "web1", vm_a, &theirs, &err), 0);
    ck_assert_int_eq(access(rig_path("web1"), F_OK), -1);
}
END_TEST

START_TEST(a_folder_that_was_put_aside_is_not_taken_for_none)
{
    struct following theirs = following;
    struct err err = {0};
    strcpy(theirs.witness, address);
    ck_assert_int_eq(former_put_aside(place, "web1", vm_a, &theirs, &err), 0);
    build_silence();
    ck_assert_int_eq(former_open(place, "web1", vm_a, &theirs, &err), -ETIMEDOUT);
    expect_named(&err, "web1 is at the twin's host already");
    end_silence();
    int former = former_open(place, "web1", vm_a, &theirs, &err);
    ck_assert_int_ge(former, 0);
    close(former);
}
END_TEST

/* --- run --force-owner ------------------------------------------------------------------------ */

static struct folder settled(void)
{
    struct folder folder = rig_lock("web1");
    struct identity identity = {0};
    enum identity_found found;
    ck_assert_int_eq(identity_settle(&identity, &folder, false, &found, NULL), 0);
    memcpy(ours.uuid, identity.uuid, sizeof(ours.uuid));
    ck_assert_int_eq(protection_write(folder.fd, &ours, NULL), 0);
    identity_finish(&identity);
    return folder;
}

/* Of this VM, whatever it is called; at first it is PEER's, generation 5. */
static void put_record(void)
{
    const struct ft_record record = {.generation = 1, .owner = PEER};
    struct witness *witness = store_open();
    struct ft_record is = {0};
    for (struct ft_record next = record; next.generation <= 5; next.generation++)
        ck_assert_int_eq(
            witness_exchange(witness, ours.uuid, next.generation - 1, &next, &is, NULL), 0);
    witness_close(witness);
}

START_TEST(a_vm_is_not_taken_by_who_cannot_ask)
{
    struct folder folder = settled();
    struct ownership ownership;
    struct err err = {0};
    put_record();
    build_silence();
    ck_assert_int_lt(ownership_look(&ownership, &folder, false, &err), 0);
    ck_assert_int_eq(err.kind, ERR_STATE);
    expect_named(&err, "web1 cannot be taken without the witness: ");
    end_silence();
    ck_assert_int_eq(ownership_look(&ownership, &folder, false, &err), 0);
    ck_assert_uint_eq(ownership.record.generation, 5);
    folder_close(&folder);
}
END_TEST

/* It answers, and then hangs. Nobody needs to know since when the record is so. */
START_TEST(since_when_is_not_waited_for)
{
    struct folder folder = settled();
    struct ownership ownership;
    struct err err = {0};
    put_record();
    ck_assert_int_eq(ownership_look(&ownership, &folder, false, &err), 0);
    ck_assert_int_gt(ownership.since, 0);
    build_wall('s', 1);
    waiting.looks = true;
    ck_assert_int_eq(ownership_look(&ownership, &folder, false, &err), 0);
    waiting.looks = false;
    ck_assert_uint_eq(ownership.record.generation, 5);
    ck_assert_int_eq(ownership.since, 0);
    ck_assert_uint_le(waiting.most_ns, 3 * NS_PER_SEC);
    wait_for_hanging(1, 1);
    tear_wall_down();
    folder_close(&folder);
}
END_TEST

/* Nothing is in the folder of what may take place later; what did, the next one sees. */
START_TEST(a_vm_whose_taking_hangs_is_not_known_to_be_ours)
{
    struct folder folder = settled();
    struct ownership ownership;
    struct protection now;
    struct err err = {0};
    put_record();
    ck_assert_int_eq(ownership_look(&ownership, &folder, false, &err), 0);
    build_wall('l', 1);
    waiting.flies = true;
    ck_assert_int_eq(ownership_take(&ownership, folder.fd, &err), -ETIMEDOUT);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_msg(strstr(err.text, "whose web1 is now is not known: ") &&
                      strstr(err.text, "has not answered for 15 s"),
                  "%s", err.text);
    ck_assert_msg(strstr(err.hint, "minivmm run web1"), "%s", err.hint);
    end_silence();
    ck_assert_int_eq(protection_read(&now, folder.fd, NULL), 0);
    ck_assert_uint_eq(now.generation, 4);
    folder_close(&folder);
}
END_TEST

START_TEST(a_vm_that_can_be_taken_is)
{
    struct folder folder = settled();
    struct ownership ownership, late;
    struct protection now;
    struct err err = {0};
    put_record();
    ck_assert_int_eq(ownership_look(&ownership, &folder, false, &err), 0);
    late = ownership;
    ck_assert_int_eq(ownership_take(&ownership, folder.fd, &err), 0);
    ck_assert_uint_eq(ownership.record.generation, 6);
    ck_assert_int_eq(protection_read(&now, folder.fd, NULL), 0);
    ck_assert_uint_eq(now.generation, 6);
    ck_assert_int_eq(ownership_take(&late, folder.fd, &err), -EAGAIN);
    ck_assert_msg(strstr(err.text, "whose web1 is has changed just now (generation 6)"), "%s",
                  err.text);
    folder_close(&folder);
}
END_TEST

/* --- all of it -------------------------------------------------------------------------------- */

static void set_up(void)
{
    rig_begin();
    store_begin(true);
    store_put(5, PEER);
    snprintf(address, sizeof(address), "file:%s", store);
    ours = (struct protection){
        .role = PROTECTION_OWNER, .node = NODE, .generation = 4, .peer_node = PEER};
    memcpy(ours.uuid, vm_a, sizeof(ours.uuid));
    strcpy(ours.witness, address);
    rig_make_vm("web1");
    struct folder folder = rig_open("web1");
    ck_assert_int_eq(protection_write(folder.fd, &ours, NULL), 0);
    folder_close(&folder);
    place = open(rig, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(place, 0);
}

static void tear_down(void)
{
    close(place);
    store_end();
}

int main(void)
{
    Suite *suite = suite_create("asker");
    TCase *tests = tcase_create("asker");
    tcase_set_timeout(tests, 2.0 * PATIENCE_S);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, what_it_knows_is_told);
    tcase_add_test(tests, why_there_is_no_answer_is_told);
    tcase_add_test(tests, an_exchange_that_fails_says_nothing_of_the_record);
    tcase_add_test(tests, one_that_hangs_is_left_and_holds_up_nobody);
    tcase_add_test(tests, a_name_that_nobody_looks_up_is_given_up);
    tcase_add_test(tests, an_etcd_that_says_nothing_is_given_up);
    tcase_add_test(tests, a_vm_starts_standing_still);
    tcase_add_test(tests, what_cannot_wait_is_refused);
    tcase_add_test(tests, a_former_folder_stays_where_it_is);
    tcase_add_test(tests, a_folder_that_was_put_aside_is_not_taken_for_none);
    tcase_add_test(tests, a_vm_is_not_taken_by_who_cannot_ask);
    tcase_add_test(tests, since_when_is_not_waited_for);
    tcase_add_test(tests, a_vm_whose_taking_hangs_is_not_known_to_be_ours);
    tcase_add_test(tests, a_vm_that_can_be_taken_is);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
