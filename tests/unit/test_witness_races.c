/* SPDX-License-Identifier: MIT */
/*
 * Several at one witness: never two winners of one generation, whoever is stopped, killed or lied
 * to, wherever.
 */
#include "tests/unit/witness_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { KEEP = WITNESS_FILE_KEEP, US = 7, OTHERS = 1000 };

static struct witness *ours, *others;

static void set_up(void)
{
    rig_begin();
    store_begin(true);
    ours = store_open();
    others = store_open();
}

static void tear_down(void)
{
    witness_close(ours);
    witness_close(others);
    store_end();
}

/* --- stopped at a step, while others go on ---------------------------------------------------- */

static struct {
    unsigned count; /* how far they go meanwhile */
    bool dies;      /* and then that is the end of us */
    bool old_list;  /* we see nothing of it in lists */
    bool lost;      /* they were the first to have the generation that we want */
} meanwhile;

static uint64_t owner_of(uint64_t generation)
{
    return OTHERS + generation;
}

/* As exchanges of others would leave it, but quicker than a thousand of them. */
static void go_on(void *arg)
{
    struct ft_record is = see(others);

    meanwhile.lost = is.owner != US && meanwhile.count > 0;
    for (unsigned i = 0; i < meanwhile.count; i++) {
        uint64_t generation = is.generation + 1 + i;
        store_put(generation, owner_of(generation));
        if (generation > KEEP)
            unlink(store_path(name_a(generation - KEEP)));
    }
    if (meanwhile.dies)
        raise(SIGKILL);
    if (meanwhile.old_list)
        hook.old_list = name_a(is.generation + 2);
}

static void expect_true(const struct ft_record *record, uint64_t at_least)
{
    ck_assert_uint_ge(record->generation, at_least);
    ck_assert(record->owner == owner_of(record->generation) ||
              (record->owner == US && record->generation == at_least));
}

/* Nobody who wants an old generation gets it, whatever lies there; and the newest one goes on. */
static void expect_history_is_whole(void)
{
    struct ft_record is = see(others), no, now;

    for (uint64_t back = 1; back <= is.generation && back <= KEEP + 20; back += back < 5 ? 1 : 83)
        ck_assert_int_eq(give(others, is.generation - back, US, &no, NULL), -EAGAIN);
    struct err err = {0};
    uint64_t next = is.generation + 1;
    ck_assert_msg(give(others, is.generation, owner_of(next), &no, &err) == 0, "%s", err.text);
    now = see(ours);
    ck_assert_uint_eq(now.generation, next);
    ck_assert_uint_eq(now.owner, owner_of(next));
    ck_assert_uint_le(store_count(NAME_A), KEEP + 2); /* it is cleaned, too */
}

static void start_at(uint64_t generation)
{
    store_end();
    store_begin(true);
    witness_close(ours);
    witness_close(others);
    ours = store_open();
    others = store_open();
    for (uint64_t g = generation > 3 ? generation - 3 : 1; g <= generation; g++)
        store_put(g, owner_of(g));
}

static const unsigned paces[] = {1, 2, KEEP - 1, KEEP, KEEP + 1, KEEP + 2};

START_TEST(who_is_stopped_at_any_step_never_wins_what_others_have_won)
{
    unsigned late = 0, won = 0, beaten = 0;
    hook.act = go_on;

    for (unsigned i = 0; i < array_size(paces) * 2; i++) {
        uint64_t first = i % 2 ? 2 : 0;
        for (int step = 0;; step++) {
            struct ft_record is;
            struct err err = {0};
            start_at(first);
            hook.act = go_on;
            meanwhile.count = paces[i / 2];
            meanwhile.lost = false;
            hook_set(HOOK_ACT, step);
            int r = give(ours, first, US, &is, &err);
            hook.kind = HOOK_NONE;
            if (!hook.happened) {
                ck_assert_int_eq(r, 0);
                ck_assert_int_gt(step, 10);
                break;
            }
            if (r == 0)
                ck_assert(!meanwhile.lost);
            else if (r == -EAGAIN)
                ck_assert(meanwhile.lost);
            else
                ck_assert_msg(meanwhile.count >= KEEP - 1, "step %d: %s", step, err.text);
            if (r == -EAGAIN)
                expect_true(&is, first + 1);
            won += r == 0;
            beaten += r == -EAGAIN;
            late += r != 0 && r != -EAGAIN && meanwhile.lost;
            struct ft_record now = see(others);
            expect_true(&now, first + 1);
            if (step % 3 == 0)
                expect_history_is_whole();
        }
    }
    ck_assert(won && beaten && late); /* all of it was seen */
}
END_TEST

START_TEST(nor_when_no_list_tells_him)
{
    unsigned late = 0;

    for (int step = 0;; step++) {
        struct ft_record is;
        start_at(2);
        hook.act = go_on;
        meanwhile.count = KEEP + 2;
        meanwhile.old_list = true;
        hook_set(HOOK_ACT, step);
        int r = give(ours, 2, US, &is, NULL);
        hook.kind = HOOK_NONE;
        hook.old_list = NULL;
        if (!hook.happened)
            break;
        if (meanwhile.lost)
            ck_assert_int_ne(r, 0);
        late += r == -ESTALE;
    }
    ck_assert_uint_gt(late, 0);
}
END_TEST

START_TEST(who_dies_at_any_step_leaves_a_history_for_the_others)
{
    for (unsigned i = 0; i <= array_size(paces); i++) {
        for (int step = 0;; step++) {
            start_at(2);
            hook.act = go_on;
            meanwhile.count = i ? paces[i - 1] : 0;
            meanwhile.dies = true;
            pid_t child = fork();
            if (child == 0) {
                struct ft_record is;
                hook_set(HOOK_ACT, step);
                (void)!give(ours, 2, US, &is, NULL);
                _exit(0);
            }
            int status;
            ck_assert_int_eq(waitpid(child, &status, 0), child);
            if (WIFEXITED(status))
                break;
            ck_assert_int_eq(WTERMSIG(status), SIGKILL);
            struct ft_record now = see(others);
            ck_assert_uint_ge(now.generation, 2);
            expect_true(&now, now.owner == US ? 3 : 2);
            ck_assert_uint_le(store_count("."), 3); /* but for . and .. one temporary file */
            expect_history_is_whole();
        }
    }
}
END_TEST

static void move_away(void *arg)
{
    char away[500];

    snprintf(away, sizeof(away), "%s/away", rig);
    ck_assert(rename(store, away) == 0 && mkdir(store, 0755) == 0);
}

START_TEST(in_a_folder_that_is_moved_away_nobody_wins)
{
    unsigned lost = 0;

    for (int step = 0;; step++) {
        struct ft_record is;
        store_end();
        store_begin(false);
        struct witness *witness = store_open();
        hook.act = move_away;
        hook_set(HOOK_ACT, step);
        int r = give(witness, 0, US, &is, NULL);
        hook.kind = HOOK_NONE;
        witness_close(witness);
        nftw(rig_path("away"), rig_remove, 32, FTW_DEPTH | FTW_PHYS);
        if (r == 0) /* he had won before that, and is only clearing up */
            break;
        lost++;
    }
    ck_assert_uint_ge(lost, 10);
}
END_TEST

/* --- answers that are lost, and calls that fail ------------------------------------------------
 */

START_TEST(no_failure_of_a_call_is_taken_for_a_success_or_a_defeat)
{
    static const int errors[] = {EIO, ENOSPC, ETIMEDOUT, EEXIST, ENOENT};
    unsigned recovered = 0;

    for (unsigned i = 0; i < array_size(errors) * 2; i++) {
        for (int step = 0;; step++) {
            struct ft_record is, now;
            start_at(2);
            hook.error = errors[i / 2];
            hook_set(i % 2 ? HOOK_LOSE : HOOK_FAIL, step);
            int r = give(ours, 2, US, &is, NULL);
            hook.kind = HOOK_NONE;
            now = see(others);
            ck_assert_int_ne(r, -EAGAIN); /* nobody else was there */
            ck_assert(now.generation == 3 ? now.owner == US : now.generation == 2 && r != 0);
            recovered += r == 0 && hook.happened;
            if (!hook.happened)
                break;
            expect_history_is_whole();
        }
    }
    ck_assert_uint_ge(recovered, array_size(errors)); /* that of link(2) is not asked */
}
END_TEST

/* --- cleaning --------------------------------------------------------------------------------- */

START_TEST(the_last_thousand_records_stay_and_no_more)
{
    struct ft_record is;

    for (uint64_t g = 0; g < KEEP + 50; g++)
        ck_assert_int_eq(give(ours, g, owner_of(g + 1), &is, NULL), 0);
    ck_assert_uint_eq(store_count(NAME_A), KEEP);
    ck_assert_int_eq(access(store_path(name_a(50)), F_OK), -1);
    ck_assert_int_eq(access(store_path(name_a(51)), F_OK), 0);
    /* One that was never true lies below all others. */
    store_put(5, US);
    ck_assert_uint_eq(see(others).generation, KEEP + 50);
    ck_assert_int_eq(give(others, 5, US, &is, NULL), -EAGAIN);
    expect_history_is_whole();
    ck_assert_int_eq(access(store_path(name_a(5)), F_OK), -1);
}
END_TEST

/* --- many at once ----------------------------------------------------------------------------- */

enum { MOST = 6000, THREADS = 4 };

struct board {
    atomic_uint_least64_t winners[MOST], seen[MOST];
    atomic_uint_least64_t next_owner;
    atomic_uint wrong, wins, defeats;
    uint64_t until;
};

static struct board *board;

static void note(atomic_uint_least64_t *place, uint64_t owner)
{
    uint_least64_t nobody = 0;

    if (!atomic_compare_exchange_strong(place, &nobody, owner) && nobody != owner)
        atomic_fetch_add(&board->wrong, 1);
}

static void note_seen(const struct ft_record *is)
{
    if (is->generation)
        note(&board->seen[is->generation], is->owner);
}

/* What a player does libcheck must not hear of: its words from several threads and processes at
 * once are one broken word. */
static struct ft_record look(struct witness *witness)
{
    struct ft_record record = {0};
    if (witness_read(witness, vm_a, &record, NULL) < 0)
        atomic_fetch_add(&board->wrong, 1);
    return record;
}

static struct witness *join(void)
{
    struct witness *witness = NULL;
    char address[400];
    snprintf(address, sizeof(address), "file:%s", store);
    if (witness_open(&witness, address, NULL) < 0)
        atomic_fetch_add(&board->wrong, 1);
    return witness;
}

/* Each attempt is of another owner, so that a win that was not one is seen. */
static void *play(void *arg)
{
    struct witness *witness = join();
    struct ft_record is = {.generation = 0};
    uint64_t last = 0;

    while (witness && is.generation < board->until) {
        struct err err = {0};
        uint64_t owner = atomic_fetch_add(&board->next_owner, 1) + 1;
        int r = give(witness, is.generation, owner, &is, &err);
        if (r == 0) {
            if (atomic_exchange(&board->winners[is.generation + 1], owner))
                atomic_fetch_add(&board->wrong, 1);
            atomic_fetch_add(&board->wins, 1);
            is = look(witness);
        } else if (r == -EAGAIN) {
            atomic_fetch_add(&board->defeats, 1);
        } else {
            fprintf(stderr, "%s\n", err.text);
            atomic_fetch_add(&board->wrong, 1);
            is = look(witness);
        }
        if (is.generation < last)
            atomic_fetch_add(&board->wrong, 1);
        last = is.generation;
        note_seen(&is);
    }
    witness_close(witness);
    return NULL;
}

static void play_all(void)
{
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, play, NULL) != 0)
            abort();
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void make_board(uint64_t until)
{
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(board, MAP_FAILED);
    board->until = until;
}

static void race(uint64_t until)
{
    make_board(until);
    pid_t child = fork();
    if (child == 0) {
        play_all();
        _exit(0);
    }
    play_all();
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert_uint_eq(board->wrong, 0);
    ck_assert_uint_ge(board->wins, until);
    ck_assert_uint_gt(board->defeats, 0);
    for (uint64_t g = 1; g <= until; g++) {
        ck_assert_uint_ne(board->winners[g], 0);
        if (board->seen[g])
            ck_assert_uint_eq(board->seen[g], board->winners[g]);
    }
}

START_TEST(of_two_processes_of_many_threads_one_wins_each_generation)
{
    race(4000);
}
END_TEST

START_TEST(so_it_is_on_a_disk)
{
    start_at(0);
    store_end();
    store_begin(false);
    race(60);
}
END_TEST

/* Killed like this, who had won does not say so: but what was seen once stays. */
START_TEST(killed_at_random_moments_nobody_takes_anything_back)
{
    enum { ROUNDS = 200 };
    unsigned dice = 1;
    uint64_t last = 0;

    make_board(MOST - 100);
    for (unsigned i = 0; i < ROUNDS; i++) {
        pid_t children[2];
        for (unsigned k = 0; k < 2; k++) {
            children[k] = fork();
            if (children[k] == 0) {
                play(NULL);
                _exit(0);
            }
        }
        for (unsigned k = 0; k < 2; k++) {
            dice = dice * 1103515245 + 12345;
            nanosleep(&(struct timespec){.tv_nsec = dice / 65536 % 3000 * 1000}, NULL);
            kill(children[k], SIGKILL);
            ck_assert_int_eq(waitpid(children[k], NULL, 0), children[k]);
        }
        struct ft_record is = see(ours);
        ck_assert_uint_ge(is.generation, last);
        note_seen(&is);
        ck_assert_uint_eq(board->wrong, 0);
        last = is.generation;
        if (last + 100 > board->until)
            break;
    }
    ck_assert_uint_gt(last, 10);
    for (uint64_t g = 1; g <= last; g++)
        if (board->seen[g] && board->winners[g])
            ck_assert_uint_eq(board->seen[g], board->winners[g]);
    struct ft_record no;
    ck_assert_int_eq(give(ours, last, US, &no, NULL), 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("witness_races");
    TCase *tests = tcase_create("file");

    tcase_set_timeout(tests, 120);
    tcase_add_unchecked_fixture(tests, store_suite_begin, store_suite_end);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, who_is_stopped_at_any_step_never_wins_what_others_have_won);
    tcase_add_test(tests, nor_when_no_list_tells_him);
    tcase_add_test(tests, who_dies_at_any_step_leaves_a_history_for_the_others);
    tcase_add_test(tests, in_a_folder_that_is_moved_away_nobody_wins);
    tcase_add_test(tests, no_failure_of_a_call_is_taken_for_a_success_or_a_defeat);
    tcase_add_test(tests, the_last_thousand_records_stay_and_no_more);
    tcase_add_test(tests, of_two_processes_of_many_threads_one_wins_each_generation);
    tcase_add_test(tests, so_it_is_on_a_disk);
    tcase_add_test(tests, killed_at_random_moments_nobody_takes_anything_back);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
