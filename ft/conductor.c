/* SPDX-License-Identifier: MIT */
#include "ft/conductor.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"
#include "ft/asker.h"
#include "ft/following.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MOST_WORDS = 32, TICKS_A_BEAT = 4, PULSE_STACK = 64 << 10 };

struct spoken {
    uint64_t link;
    struct ft_word word;
};

struct conductor {
    struct conductor_config config;

    pthread_mutex_t lock; /* all of this */
    struct ft_protocol protocol;
    struct chronicle chronicle;
    struct spoken words[MOST_WORDS]; /* to be sent, in order */
    unsigned word_count, speakers;   /* threads that send some */
    struct ft_record keep;           /* to be persisted */
    uint64_t leash_ns;               /* as it was told last */
    uint64_t asked_ns;               /* the witness, the last time */
    bool keeps, ended, retired;
    struct err trouble; /* the witness's */
    struct err unkept;  /* why what is to be persisted is not */
    struct link *link;
    uint64_t link_number, links, broken;

    pthread_mutex_t writing; /* to the link; before lock */
    pthread_cond_t speak, kept, end, changed;
    struct thread pulse, speaker, keeper;
    struct asker *asker;
};

/* --- actions ---------------------------------------------------------------------------------- */

static void hang_up(struct conductor *conductor, uint64_t number)
{
    if (conductor->link && conductor->link_number == number) {
        link_break(conductor->link);
        conductor->broken = number;
    }
}

static void queue_word(struct conductor *conductor, const struct ft_action *action)
{
    const struct spoken spoken = {action->link, action->word};
    unsigned count = conductor->word_count;
    /* Where one waits anyway, a beat says nothing that it does not: so there is always room for
     * what matters. Who takes none of all that is as good as gone. */
    if (spoken.word.kind == FT_BEAT && count > 0 && conductor->words[count - 1].link == spoken.link)
        return;
    if (count == MOST_WORDS)
        hang_up(conductor, spoken.link);
    else
        conductor->words[conductor->word_count++] = spoken;
}

/* Each is said once in the log, until there is none or another. */
static void note_trouble(struct err *known, const struct err *trouble)
{
    if (trouble->kind && strcmp(trouble->text, known->text) != 0)
        log_err(LOG_WARNING, trouble);
    *known = *trouble;
}

/* Where the last question was dropped for this one before its time nobody was silent. */
static void ask(struct conductor *conductor, const struct ft_action *question)
{
    struct err err = {0};
    const struct ft_protocol *protocol = &conductor->protocol;
    uint64_t ask_ns = protocol->config.ask_ns, before = conductor->asked_ns;
    conductor->asked_ns = protocol->asked_ns;
    if (asker_ask(conductor->asker, question) || conductor->asked_ns - before < ask_ns)
        return;
    asker_say_silent(conductor->config.witness, ask_ns, &err);
    note_trouble(&conductor->trouble, &err);
}

static void carry_out(struct conductor *conductor, const struct ft_action *action)
{
    switch (action->kind) {
    case FT_SEND:
        queue_word(conductor, action);
        break;
    case FT_HANG_UP:
        hang_up(conductor, action->link);
        break;
    case FT_ASK:
    case FT_EXCHANGE:
        ask(conductor, action);
        break;
    case FT_PERSIST:
        conductor->keep = action->record;
        conductor->keeps = true;
        pthread_cond_signal(&conductor->kept);
        break;
    default:
        conductor->config.act(conductor->config.ctx, action);
    }
}

static bool opens(const struct ft_actions *actions)
{
    bool any = false;
    for (unsigned i = 0; i < actions->count; i++)
        any |= actions->list[i].kind == FT_OPEN;
    return any;
}

/* After away_ns without a tick the next one gates what is open: whoever sends meanwhile, because it
 * is awake before the pulse, has to find that by itself. Where the VM has ended what it said last
 * may leave, if we were there all the time. */
static void renew_leash(struct conductor *conductor, const struct ft_actions *actions, uint64_t now)
{
    const struct ft_protocol *protocol = &conductor->protocol;
    bool ends = protocol->state == FT_OVER && now < conductor->leash_ns;
    if (!conductor->config.leash || (protocol->state != FT_SOLO && !ends && !opens(actions)))
        return;
    conductor->leash_ns = protocol->tick_ns + protocol->config.away_ns;
    conductor->config.leash(conductor->config.ctx, conductor->leash_ns);
}

static void step_once(struct conductor *conductor, const struct ft_event *event, uint64_t now)
{
    struct ft_protocol *protocol = &conductor->protocol;
    struct ft_actions actions;
    enum ft_state before = protocol->state;
    uint64_t link = protocol->link;
    bool left = ft_protocol_is_left(protocol);
    ft_protocol_step(protocol, event, now, &actions);
    chronicle_step(&conductor->chronicle, protocol, event, now);
    renew_leash(conductor, &actions, now);
    for (unsigned i = 0; i < actions.count; i++)
        carry_out(conductor, &actions.list[i]);
    if (protocol->state == before && protocol->link == link &&
        ft_protocol_is_left(protocol) == left)
        return;
    if (protocol->state != before)
        log_debug("fault tolerance: %s, was %s", ft_state_name(protocol->state),
                  ft_state_name(before));
    pthread_cond_broadcast(&conductor->changed);
    conductor->config.changed(conductor->config.ctx);
}

/* Who was away for long learns that first. */
static void mind_absence(struct conductor *conductor, uint64_t now)
{
    const struct ft_event tick = {.kind = FT_TICK};
    const struct ft_protocol *protocol = &conductor->protocol;
    if (now - protocol->tick_ns > ft_protocol_gap(protocol))
        step_once(conductor, &tick, now);
}

static void step_locked(struct conductor *conductor, const struct ft_event *event)
{
    uint64_t now = clock_boot_ns();
    if (conductor->retired)
        return;
    if (event->kind != FT_TICK)
        mind_absence(conductor, now);
    step_once(conductor, event, now);
}

/* --- words ------------------------------------------------------------------------------------ */

static bool take_word(struct conductor *conductor, struct spoken *ret_spoken,
                      struct link **ret_link)
{
    pthread_mutex_lock(&conductor->lock);
    bool any = conductor->word_count > 0;
    if (any) {
        *ret_spoken = conductor->words[0];
        conductor->word_count--;
        memmove(conductor->words, conductor->words + 1,
                conductor->word_count * sizeof(conductor->words[0]));
        *ret_link = conductor->link_number == ret_spoken->link ? conductor->link : NULL;
    }
    pthread_mutex_unlock(&conductor->lock);
    return any;
}

/* A link that does not take them says so to its reader. */
static void speak(struct conductor *conductor)
{
    struct spoken spoken;
    struct link *link, *last = NULL;
    pthread_mutex_lock(&conductor->lock);
    conductor->speakers++;
    pthread_mutex_unlock(&conductor->lock);
    pthread_mutex_lock(&conductor->writing);
    while (take_word(conductor, &spoken, &link)) {
        if (link)
            following_put_word(link_writer(link), &spoken.word);
        last = link;
    }
    if (last)
        (void)!stream_flush(link_writer(last));
    pthread_mutex_unlock(&conductor->writing);
    pthread_mutex_lock(&conductor->lock);
    conductor->speakers--;
    pthread_cond_broadcast(&conductor->changed);
    pthread_mutex_unlock(&conductor->lock);
}

static void run_speaker(void *arg)
{
    struct conductor *conductor = arg;
    pthread_mutex_lock(&conductor->lock);
    while (!conductor->ended) {
        if (conductor->word_count == 0) {
            pthread_cond_wait(&conductor->speak, &conductor->lock);
            continue;
        }
        pthread_mutex_unlock(&conductor->lock);
        speak(conductor);
        pthread_mutex_lock(&conductor->lock);
    }
    pthread_mutex_unlock(&conductor->lock);
}

void conductor_tell(struct conductor *conductor, const struct ft_event *event)
{
    pthread_mutex_lock(&conductor->lock);
    step_locked(conductor, event);
    bool speaks = conductor->word_count > 0;
    pthread_mutex_unlock(&conductor->lock);
    if (speaks)
        speak(conductor);
}

void conductor_post(struct conductor *conductor, const struct ft_event *event)
{
    pthread_mutex_lock(&conductor->lock);
    step_locked(conductor, event);
    if (conductor->word_count > 0)
        pthread_cond_signal(&conductor->speak);
    pthread_mutex_unlock(&conductor->lock);
}

/* --- time ------------------------------------------------------------------------------------- */

static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    const struct timespec at = clock_timespec(ns);
    (void)pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &at);
}

/* Late words look like a host that is gone: a load of our own making must not do that. Where that
 * is not allowed it goes without. Not inline: the room is where its caller calls others. */
__attribute__((noinline)) static void hurry(void)
{
    uint8_t room[PULSE_STACK];
    const struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_RR)};
    int error = pthread_setschedparam(pthread_self(), SCHED_RR, &lowest);
    bool locked = mlock(room, sizeof(room)) == 0;
    log_debug("fault tolerance: the pulse has %s priority, and its stack is %slocked in memory",
              error ? "no real-time" : "real-time", locked ? "" : "not ");
}

/* What the others need not say, because it is seen here. */
static void look_around(struct conductor *conductor, uint64_t *moved)
{
    const struct conductor_config *config = &conductor->config;
    const struct ft_event left = {.kind = FT_MOVED};
    const struct ft_event heard = {
        .kind = FT_HEARD,
        .link = conductor->protocol.link,
        .word = {FT_BEAT, conductor->protocol.generation, 0},
    };
    uint64_t before = *moved;
    if (config->is_busy && config->is_busy(config->ctx))
        step_locked(conductor, &heard);
    *moved = config->moved ? config->moved(config->ctx) : 0;
    *moved -= conductor->link ? link_unsent(conductor->link) : 0;
    if (*moved != before)
        step_locked(conductor, &left);
}

static void run_pulse(void *arg)
{
    struct conductor *conductor = arg;
    hurry();
    const struct ft_event tick = {.kind = FT_TICK};
    uint64_t moved = 0;
    uint64_t pace = conductor->protocol.config.beat_ns / TICKS_A_BEAT;
    pthread_mutex_lock(&conductor->lock);
    while (!conductor->ended) {
        uint64_t next = clock_monotonic_ns() + pace;
        look_around(conductor, &moved);
        step_locked(conductor, &tick);
        if (conductor->word_count > 0)
            pthread_cond_signal(&conductor->speak);
        while (!conductor->ended && clock_monotonic_ns() < next)
            wait_until(&conductor->end, &conductor->lock, next);
    }
    pthread_mutex_unlock(&conductor->lock);
}

/* --- the witness ------------------------------------------------------------------------------ */

static void handle_answer(void *ctx, const struct ft_event *answer, const struct err *trouble)
{
    struct conductor *conductor = ctx;
    pthread_mutex_lock(&conductor->lock);
    note_trouble(&conductor->trouble, trouble);
    step_locked(conductor, answer);
    if (conductor->word_count > 0)
        pthread_cond_signal(&conductor->speak);
    pthread_mutex_unlock(&conductor->lock);
}

static void keep_record(struct conductor *conductor)
{
    const struct ft_event event = {.kind = FT_PERSISTED};
    struct ft_record record = conductor->keep;
    struct err err = {0};
    pthread_mutex_unlock(&conductor->lock);
    int ret = conductor->config.persist(conductor->config.ctx, &record, &err);
    pthread_mutex_lock(&conductor->lock);
    note_trouble(&conductor->unkept, &err);
    if (ret == 0) {
        conductor->keeps = false;
        step_locked(conductor, &event);
        return;
    }
    uint64_t again = clock_monotonic_ns() + conductor->protocol.config.retry_ns;
    while (!conductor->ended && clock_monotonic_ns() < again)
        wait_until(&conductor->kept, &conductor->lock, again);
}

static void run_keeper(void *arg)
{
    struct conductor *conductor = arg;
    pthread_mutex_lock(&conductor->lock);
    while (!conductor->ended) {
        if (conductor->keeps)
            keep_record(conductor);
        else
            pthread_cond_wait(&conductor->kept, &conductor->lock);
        if (conductor->word_count > 0)
            pthread_cond_signal(&conductor->speak);
    }
    pthread_mutex_unlock(&conductor->lock);
}

/* --- the link --------------------------------------------------------------------------------- */

uint64_t conductor_attach(struct conductor *conductor, struct link *link)
{
    pthread_mutex_lock(&conductor->lock);
    assert(!conductor->link);
    conductor->link = link;
    uint64_t number = conductor->link_number = CONDUCTOR_FIRST_LINK + conductor->links++;
    pthread_mutex_unlock(&conductor->lock);
    link_watch(link, conductor->config.paths_changed, conductor->config.ctx);
    return number;
}

void conductor_detach(struct conductor *conductor)
{
    pthread_mutex_lock(&conductor->lock);
    if (conductor->link)
        link_break(conductor->link); /* who is writing to it does not wait for long */
    pthread_mutex_unlock(&conductor->lock);
    pthread_mutex_lock(&conductor->writing);
    pthread_mutex_lock(&conductor->lock);
    if (conductor->link)
        link_watch(conductor->link, NULL, NULL);
    conductor->link = NULL;
    pthread_mutex_unlock(&conductor->lock);
    pthread_mutex_unlock(&conductor->writing);
}

bool conductor_has_hung_up(struct conductor *conductor, uint64_t number)
{
    pthread_mutex_lock(&conductor->lock);
    bool has = conductor->broken == number;
    pthread_mutex_unlock(&conductor->lock);
    return has;
}

void conductor_look_paths(struct conductor *conductor, struct link_news *ret_news)
{
    *ret_news = (struct link_news){.active = -1};
    pthread_mutex_lock(&conductor->lock);
    if (conductor->link)
        link_look(conductor->link, ret_news);
    pthread_mutex_unlock(&conductor->lock);
}

void conductor_finish_words(struct conductor *conductor)
{
    pthread_mutex_lock(&conductor->lock);
    uint64_t until = clock_monotonic_ns() + conductor->protocol.config.lost_ns;
    pthread_cond_signal(&conductor->speak);
    while ((conductor->word_count > 0 || conductor->speakers > 0) && clock_monotonic_ns() < until)
        wait_until(&conductor->changed, &conductor->lock, until);
    pthread_mutex_unlock(&conductor->lock);
}

pthread_mutex_t *conductor_writing(struct conductor *conductor)
{
    return &conductor->writing;
}

bool conductor_retire(struct conductor *conductor)
{
    const struct ft_protocol *protocol = &conductor->protocol;
    pthread_mutex_lock(&conductor->lock);
    if (!conductor->retired)
        mind_absence(conductor, clock_boot_ns());
    bool retires = ft_protocol_is_left(protocol);
    conductor->retired = retires;
    if (conductor->word_count > 0)
        pthread_cond_signal(&conductor->speak);
    pthread_mutex_unlock(&conductor->lock);
    return retires;
}

/* --- for people ------------------------------------------------------------------------------- */

void conductor_look(struct conductor *conductor, struct ft_protocol *ret_protocol)
{
    pthread_mutex_lock(&conductor->lock);
    *ret_protocol = conductor->protocol;
    pthread_mutex_unlock(&conductor->lock);
}

void conductor_wait(struct conductor *conductor, unsigned ms)
{
    pthread_mutex_lock(&conductor->lock);
    wait_until(&conductor->changed, &conductor->lock, clock_monotonic_ns() + ms * 1000000ull);
    pthread_mutex_unlock(&conductor->lock);
}

void conductor_trouble(struct conductor *conductor, struct err *ret_trouble)
{
    pthread_mutex_lock(&conductor->lock);
    *ret_trouble = conductor->trouble;
    pthread_mutex_unlock(&conductor->lock);
}

void conductor_unkept(struct conductor *conductor, struct err *ret_trouble)
{
    pthread_mutex_lock(&conductor->lock);
    *ret_trouble = conductor->unkept;
    pthread_mutex_unlock(&conductor->lock);
}

bool conductor_take_note(struct conductor *conductor, struct chronicle_note *ret_note)
{
    pthread_mutex_lock(&conductor->lock);
    bool any = chronicle_take(&conductor->chronicle, ret_note);
    pthread_mutex_unlock(&conductor->lock);
    return any;
}

void conductor_remember(struct conductor *conductor, struct chronicle *ret_chronicle)
{
    pthread_mutex_lock(&conductor->lock);
    *ret_chronicle = conductor->chronicle;
    pthread_mutex_unlock(&conductor->lock);
}

/* --- life ------------------------------------------------------------------------------------- */

static int create_asker(struct conductor *conductor, struct err *err)
{
    struct asker_config config = {
        .witness = conductor->config.witness, .answered = handle_answer, .ctx = conductor};
    memcpy(config.uuid, conductor->config.uuid, sizeof(config.uuid));
    return asker_create(&conductor->asker, &config, err);
}

int conductor_create(struct conductor **ret_conductor, const struct conductor_config *config,
                     const struct ft_protocol *protocol, struct err *err)
{
    struct conductor *conductor = calloc(1, sizeof(*conductor));
    if (!conductor)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot begin fault tolerance");
    conductor->config = *config;
    conductor->protocol = *protocol;
    chronicle_init(&conductor->chronicle, protocol, clock_boot_ns());
    pthread_mutex_init(&conductor->lock, NULL);
    pthread_mutex_init(&conductor->writing, NULL);
    pthread_cond_init(&conductor->speak, NULL);
    pthread_cond_init(&conductor->kept, NULL);
    pthread_cond_init(&conductor->end, NULL);
    pthread_cond_init(&conductor->changed, NULL);
    pthread_mutex_lock(&conductor->lock); /* the caller has it before it is called back */
    renew_leash(conductor, &(struct ft_actions){0}, clock_boot_ns());
    int ret = create_asker(conductor, err);
    if (ret == 0)
        ret = thread_start(&conductor->pulse, "pulse", run_pulse, conductor, err);
    if (ret == 0)
        ret = thread_start(&conductor->speaker, "speaker", run_speaker, conductor, err);
    if (ret == 0)
        ret = thread_start(&conductor->keeper, "keeper", run_keeper, conductor, err);
    if (ret == 0)
        *ret_conductor = conductor;
    pthread_mutex_unlock(&conductor->lock);
    if (ret < 0)
        conductor_destroy(conductor);
    return ret;
}

void conductor_destroy(struct conductor *conductor)
{
    if (!conductor)
        return;
    pthread_mutex_lock(&conductor->lock);
    conductor->ended = true;
    pthread_cond_broadcast(&conductor->speak);
    pthread_cond_broadcast(&conductor->kept);
    pthread_cond_broadcast(&conductor->end);
    pthread_cond_broadcast(&conductor->changed);
    pthread_mutex_unlock(&conductor->lock);
    thread_join(&conductor->pulse);
    thread_join(&conductor->speaker);
    thread_join(&conductor->keeper);
    asker_destroy(conductor->asker); /* from here on no answer comes */
    pthread_cond_destroy(&conductor->speak);
    pthread_cond_destroy(&conductor->kept);
    pthread_cond_destroy(&conductor->end);
    pthread_cond_destroy(&conductor->changed);
    pthread_mutex_destroy(&conductor->writing);
    pthread_mutex_destroy(&conductor->lock);
    free(conductor);
}
