/* SPDX-License-Identifier: MIT */
#include "ft/asker.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_IDLE = 2 }; /* who has asked, and who waited meanwhile */

struct asker {
    struct asker_config config;
    char *address;

    pthread_mutex_t lock;      /* all of this */
    pthread_cond_t wake;       /* there is a question, or the end */
    pthread_cond_t changed;    /* idle, telling */
    struct ft_action question; /* no thread has it as yet; kind 0: none */
    uint64_t open;             /* the number of the one that is to be answered; 0: none */
    struct witness *witness;   /* open, and nobody asks it; NULL: none */
    unsigned threads, idle, telling;
    unsigned references; /* the owner's, and one for each thread */
    bool ended;
};

static void unlock_and_release(struct asker *asker)
{
    bool last = --asker->references == 0;
    pthread_cond_broadcast(&asker->changed);
    pthread_mutex_unlock(&asker->lock);
    if (!last)
        return;
    witness_close(asker->witness);
    pthread_cond_destroy(&asker->wake);
    pthread_cond_destroy(&asker->changed);
    pthread_mutex_destroy(&asker->lock);
    free(asker->address);
    free(asker);
}

/* --- a thread --------------------------------------------------------------------------------- */

static int ask(const struct asker *asker, struct witness **witness,
               const struct ft_action *question, struct ft_event *ret_event, struct err *err)
{
    *ret_event = (struct ft_event){.kind = FT_ANSWER, .ask = question->ask, .answer = FT_NO_ANSWER};
    const uint8_t *uuid = asker->config.uuid;
    int ret = *witness              ? 0
              : asker->config.known ? witness_open_known(witness, asker->address, uuid, err)
                                    : witness_open(witness, asker->address, err);
    if (ret == 0)
        ret = question->kind == FT_ASK
                  ? witness_read(*witness, uuid, &ret_event->record, err)
                  : witness_exchange(*witness, uuid, question->expected, &question->record,
                                     &ret_event->record, err);
    if (ret == 0)
        ret_event->answer = question->kind == FT_ASK ? FT_IS : FT_EXCHANGED;
    else if (ret == -EAGAIN && question->kind == FT_EXCHANGE)
        ret_event->answer = FT_IS;
    return ret_event->answer == FT_NO_ANSWER ? ret : 0;
}

/* Nobody else asks meanwhile: an exchange is never seen twice, nor a record by two. */
static void tell(struct asker *asker, const struct ft_event *event, const struct err *trouble)
{
    if (asker->ended || asker->open != event->ask) {
        log_debug("the witness answers a question that was given up");
        return;
    }
    asker->open = 0;
    asker->telling++;
    pthread_mutex_unlock(&asker->lock);
    asker->config.answered(asker->config.ctx, event, trouble);
    pthread_mutex_lock(&asker->lock);
    asker->telling--;
    pthread_cond_broadcast(&asker->changed);
}

static void run(void *arg);

/* Whoever asks now may hang: somebody else waits for the next question. */
static void leave_another(struct asker *asker)
{
    struct err err = {0};
    if (asker->idle > 0 || asker->threads == ASKER_THREADS)
        return;
    asker->threads++;
    asker->references++;
    if (thread_start_loose("asker", run, asker, &err) == 0)
        return;
    log_err(LOG_WARNING, &err);
    asker->threads--;
    asker->references--;
}

/* One that a thread hangs in is of no use to the next one, which opens its own. */
static void give_back(struct asker *asker, struct witness *witness)
{
    struct witness *surplus = asker->witness ? witness : NULL;
    if (!surplus) {
        asker->witness = witness;
        return;
    }
    pthread_mutex_unlock(&asker->lock);
    witness_close(surplus);
    pthread_mutex_lock(&asker->lock);
}

static void answer_question(struct asker *asker)
{
    struct ft_action question = asker->question;
    struct witness *witness = asker->witness;
    struct ft_event event;
    struct err err = {0};
    asker->question.kind = 0;
    asker->witness = NULL;
    leave_another(asker);
    pthread_mutex_unlock(&asker->lock);
    int ret = ask(asker, &witness, &question, &event, &err);
    if (ret == 0)
        err = (struct err){0};
    pthread_mutex_lock(&asker->lock);
    give_back(asker, witness);
    tell(asker, &event, &err);
}

static void run(void *arg)
{
    struct asker *asker = arg;
    pthread_mutex_lock(&asker->lock);
    while (!asker->ended) {
        if (asker->question.kind) {
            answer_question(asker);
            continue;
        }
        if (asker->idle == MOST_IDLE)
            break;
        asker->idle++;
        pthread_cond_wait(&asker->wake, &asker->lock);
        asker->idle--;
    }
    asker->threads--;
    unlock_and_release(asker);
}

/* --- for its owner ---------------------------------------------------------------------------- */

bool asker_ask(struct asker *asker, const struct ft_action *question)
{
    pthread_mutex_lock(&asker->lock);
    bool answered = asker->open == 0;
    asker->question = *question;
    asker->open = question->ask;
    pthread_cond_signal(&asker->wake);
    pthread_mutex_unlock(&asker->lock);
    return answered;
}

int asker_create(struct asker **ret_asker, const struct asker_config *config, struct err *err)
{
    struct asker *asker = calloc(1, sizeof(*asker));
    if (asker)
        asker->address = strdup(config->witness);
    if (!asker || !asker->address) {
        free(asker);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot ask the witness");
    }
    asker->config = *config;
    asker->config.witness = asker->address;
    pthread_mutex_init(&asker->lock, NULL);
    pthread_cond_init(&asker->wake, NULL);
    pthread_cond_init(&asker->changed, NULL);
    asker->references = 2;
    asker->threads = 1;
    int ret = thread_start_loose("asker", run, asker, err);
    if (ret < 0) {
        pthread_mutex_lock(&asker->lock);
        asker->references--;
        unlock_and_release(asker);
        return ret;
    }
    *ret_asker = asker;
    return 0;
}

void asker_destroy(struct asker *asker)
{
    if (!asker)
        return;
    pthread_mutex_lock(&asker->lock);
    asker->ended = true;
    pthread_cond_broadcast(&asker->wake);
    while (asker->telling > 0 || asker->idle > 0)
        pthread_cond_wait(&asker->changed, &asker->lock);
    unlock_and_release(asker);
}

/* --- one question ----------------------------------------------------------------------------- */

struct look {
    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    bool answered;
    struct ft_event answer;
    struct err trouble;
};

static void handle_look(void *ctx, const struct ft_event *answer, const struct err *trouble)
{
    struct look *look = ctx;
    pthread_mutex_lock(&look->lock);
    look->answered = true;
    look->answer = *answer;
    look->trouble = *trouble;
    pthread_cond_signal(&look->changed);
    pthread_mutex_unlock(&look->lock);
}

static void wait_for_answer(struct look *look, unsigned patience_ms)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + patience_ms * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&look->lock);
    while (!look->answered && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&look->changed, &look->lock, CLOCK_MONOTONIC, &at);
    pthread_mutex_unlock(&look->lock);
}

int asker_say_silent(const char *witness, uint64_t ns, struct err *err)
{
    int ret = err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%.200s has not answered for %g s", witness,
                      (double)ns / 1e9);
    err_hint(err, "does its storage hang, or the way to it?");
    return ret;
}

static int ask_once(const struct asker_look *look, const struct ft_action *question,
                    struct ft_event *ret_answer, struct err *err)
{
    struct look wait = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct asker_config config = {
        .witness = look->witness, .known = look->known, .answered = handle_look, .ctx = &wait};
    struct asker *asker;
    memcpy(config.uuid, look->uuid, sizeof(config.uuid));
    int ret = asker_create(&asker, &config, err);
    if (ret < 0)
        return ret;
    (void)asker_ask(asker, question);
    wait_for_answer(&wait, look->patience_ms);
    asker_destroy(asker); /* an answer comes before this, or never */
    if (!wait.answered)
        return asker_say_silent(look->witness, look->patience_ms * 1000000ull, err);
    if (wait.answer.answer == FT_NO_ANSWER) {
        if (err)
            *err = wait.trouble;
        return -EIO;
    }
    *ret_answer = wait.answer;
    return 0;
}

int asker_look(const struct asker_look *look, struct ft_record *ret_record, struct err *err)
{
    const struct ft_action question = {.kind = FT_ASK, .ask = 1};
    struct ft_event answer;
    int ret = ask_once(look, &question, &answer, err);
    if (ret == 0)
        *ret_record = answer.record;
    return ret;
}

int asker_exchange(const struct asker_look *look, uint64_t expected, const struct ft_record *next,
                   struct ft_record *ret_is, struct err *err)
{
    const struct ft_action question = {
        .kind = FT_EXCHANGE, .ask = 1, .expected = expected, .record = *next};
    struct ft_event answer;
    int ret = ask_once(look, &question, &answer, err);
    if (ret < 0 || answer.answer == FT_EXCHANGED)
        return ret;
    *ret_is = answer.record;
    return -EAGAIN;
}

/* --- since when ------------------------------------------------------------------------------- */

/* Whoever hangs has it for as long as there is this process. */
struct since {
    pthread_mutex_t lock; /* the next four */
    pthread_cond_t changed;
    unsigned references; /* who asks, and who looks */
    bool answered;
    int ret;
    int64_t seconds;

    uint8_t uuid[16];
    uint64_t generation;
    char witness[];
};

static void since_unlock_and_release(struct since *since)
{
    bool last = --since->references == 0;
    pthread_mutex_unlock(&since->lock);
    if (!last)
        return;
    pthread_cond_destroy(&since->changed);
    pthread_mutex_destroy(&since->lock);
    free(since);
}

static void run_since(void *arg)
{
    struct since *since = arg;
    int64_t seconds = 0;
    int ret = witness_since(since->witness, since->uuid, since->generation, &seconds);
    pthread_mutex_lock(&since->lock);
    since->ret = ret;
    since->seconds = seconds;
    since->answered = true;
    pthread_cond_signal(&since->changed);
    since_unlock_and_release(since);
}

static int since_wait(struct since *since, unsigned patience_ms, int64_t *ret_seconds)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + patience_ms * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&since->lock);
    while (!since->answered && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&since->changed, &since->lock, CLOCK_MONOTONIC, &at);
    ret = since->answered ? since->ret : -ETIMEDOUT;
    if (ret == 0)
        *ret_seconds = since->seconds;
    since_unlock_and_release(since);
    return ret;
}

int asker_since(const struct asker_look *look, uint64_t generation, int64_t *ret_seconds)
{
    size_t size = strlen(look->witness) + 1;
    struct since *since = calloc(1, sizeof(*since) + size);
    if (!since)
        return -ENOMEM;
    pthread_mutex_init(&since->lock, NULL);
    pthread_cond_init(&since->changed, NULL);
    since->references = 2;
    since->generation = generation;
    memcpy(since->uuid, look->uuid, sizeof(since->uuid));
    memcpy(since->witness, look->witness, size);
    int ret = thread_start_loose("asker", run_since, since, NULL);
    if (ret == 0)
        return since_wait(since, look->patience_ms, ret_seconds);
    since->references--;
    pthread_mutex_lock(&since->lock);
    since_unlock_and_release(since);
    return ret;
}
