/* SPDX-License-Identifier: MIT */
/* Where a protected VM is at home, and that it goes there (ft/give_back.h decides when). Names are
 * looked up on the thread of the protection; what is decided is done on the main loop. */
#include "ft/protect_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "host/peer_address.h"
#include "host/small_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_AFTER_S = 300, PATIENCE_S = 30, BUSY_S = 1 };

static const struct definition_ft *wishes(const struct protect *protect)
{
    return &instance_config(protect->instance)->definition->ft;
}

static uint64_t wall_s(void)
{
    return clock_wall_ns() / NS_PER_SEC;
}

/* --- what is remembered ----------------------------------------------------------------------- */

static int folder_of(const struct protect *protect)
{
    return instance_config(protect->instance)->folder->fd;
}

/* What cannot be read counts for nothing. */
static struct give_back_past read_past(const struct protect *protect)
{
    struct give_back_past past = {0};
    size_t length;
    char *text;
    if (small_file_read_in(folder_of(protect), GIVE_BACK_FILE, GIVE_BACK_TEXT_MAX, &text, &length))
        return past;
    if (!give_back_parse(&past, text, wall_s()))
        log_warning("%s: %s makes no sense, and is passed over",
                    instance_config(protect->instance)->name, GIVE_BACK_FILE);
    free(text);
    return past;
}

static void write_past(const struct protect *protect, const struct give_back_past *past)
{
    char text[GIVE_BACK_TEXT_MAX];
    struct err err = {0};
    give_back_format(past, text);
    const struct small_file file = {.bytes = text, .length = strlen(text)};
    if (small_file_replace(folder_of(protect), GIVE_BACK_FILE, &file, &err) < 0)
        log_err(LOG_WARNING, &err);
}

void protect_home_forget(struct protect *protect)
{
    (void)!unlinkat(folder_of(protect), GIVE_BACK_FILE, 0);
    pthread_mutex_lock(&protect->lock);
    protect->home.past = (struct give_back_past){0};
    protect->home.looked = true;
    pthread_mutex_unlock(&protect->lock);
}

/* --- where it is ------------------------------------------------------------------------------ */

static enum give_back_place find_place(struct protect *protect, const char *preferred,
                                       const char *peer)
{
    char back[FOLLOWING_WITNESS];
    pthread_mutex_lock(&protect->lock);
    memcpy(back, protect->following.back, sizeof(back));
    pthread_mutex_unlock(&protect->lock);
    if (peer_address_equal(back, preferred) || peer_address_is_here(preferred))
        return GIVE_BACK_HERE;
    return peer_address_same(peer, preferred) ? GIVE_BACK_PEER : GIVE_BACK_ELSEWHERE;
}

/* The past has come along with the VM's other files, and goes along to whoever follows next. */
static struct give_back_past look_back(const struct protect *protect, enum give_back_place place)
{
    struct give_back_past past = read_past(protect);
    if (!protect->taken_over)
        return past;
    give_back_note_takeover(&past, place, protect->taken_over_handed, wall_s());
    write_past(protect, &past);
    return past;
}

void protect_home_look(struct protect *protect, const char *peer)
{
    struct protect_home *home = &protect->home;
    const char *preferred = wishes(protect)->preferred;
    if (!preferred || !peer[0])
        return;
    enum give_back_place place = find_place(protect, preferred, peer);
    pthread_mutex_lock(&protect->lock);
    bool looked = home->looked;
    pthread_mutex_unlock(&protect->lock);
    struct give_back_past past = {0};
    if (!looked)
        past = look_back(protect, place);
    pthread_mutex_lock(&protect->lock);
    if (!looked)
        home->past = past;
    home->looked = true;
    home->place = place;
    pthread_mutex_unlock(&protect->lock);
    loop_post(instance_loop(protect->instance), &protect->turn);
}

/* --- what is done ----------------------------------------------------------------------------- */

static void wait_until(struct protect *protect, uint64_t at)
{
    if (loop_timer_arm(&protect->home.timer, at) < 0)
        log_warning("%s: no memory for a timer", instance_config(protect->instance)->name);
}

static json_t *describe(const struct protect *protect, uint64_t now)
{
    const struct protect_home *home = &protect->home;
    enum give_back_verdict verdict = home->plan.verdict ? home->plan.verdict : GIVE_BACK_NOT_KNOWN;
    json_t *says = json_pack("{ss, ss, ss, si}", "preferred", wishes(protect)->preferred, "state",
                             give_back_word(verdict), "why", give_back_why(verdict), "moves",
                             (int)home->past.moves);
    if (home->plan.at_ns > now)
        json_object_set_new(says, "in_s", json_real((double)(home->plan.at_ns - now) / 1e9));
    return says;
}

void protect_home_describe(struct protect *protect, json_t *answer)
{
    if (!wishes(protect)->preferred || !protect->primary)
        return;
    pthread_mutex_lock(&protect->lock);
    json_object_set_new(answer, "home", describe(protect, clock_monotonic_ns()));
    pthread_mutex_unlock(&protect->lock);
}

static void tell(struct protect *protect, uint64_t now)
{
    pthread_mutex_lock(&protect->lock);
    json_t *says = describe(protect, now);
    pthread_mutex_unlock(&protect->lock);
    if (instance_control(protect->instance))
        control_event(instance_control(protect->instance), "home", says);
    else
        json_decref(says);
}

/* It was to go, and is still here. */
static void give_up(struct protect *protect, uint64_t now)
{
    struct protect_home *home = &protect->home;
    log_warning("%s did not get home to %s", instance_config(protect->instance)->name,
                wishes(protect)->preferred);
    home->goes_ns = 0;
    home->paired_ns = now;
    pthread_mutex_lock(&protect->lock);
    give_back_note_failure(&home->past, wall_s());
    const struct give_back_past past = home->past;
    pthread_mutex_unlock(&protect->lock);
    write_past(protect, &past);
}

static void go(struct protect *protect, uint64_t now)
{
    if (protect->asked || protect->leaving || protect->switching) {
        wait_until(protect, now + BUSY_S * NS_PER_SEC);
        return;
    }
    log_info("%s goes home to %s", instance_config(protect->instance)->name,
             wishes(protect)->preferred);
    protect->home.goes_ns = now;
    wait_until(protect, now + PATIENCE_S * NS_PER_SEC);
    primary_hand_over(protect->primary);
}

static void note_pair(struct protect_home *home, const struct ft_protocol *protocol, uint64_t now)
{
    bool paired = protocol->state == FT_PAIRED;
    if (paired && (!home->paired_ns || home->generation != protocol->record.generation))
        home->paired_ns = now;
    if (!paired)
        home->paired_ns = 0;
    home->generation = protocol->record.generation;
}

static void decide(struct protect *protect, uint64_t now)
{
    struct protect_home *home = &protect->home;
    const unsigned after_s = wishes(protect)->preferred_after_s;
    pthread_mutex_lock(&protect->lock);
    const struct give_back_facts facts = {
        .home = home->place,
        .paired = home->paired_ns != 0,
        .paired_ns = home->paired_ns,
        .after_ns = (after_s ? after_s : DEFAULT_AFTER_S) * NS_PER_SEC,
        .past = home->past,
        .wall_s = wall_s(),
    };
    pthread_mutex_unlock(&protect->lock);
    enum give_back_verdict before = home->plan.verdict;
    home->plan = give_back_decide(&facts, now);
    if (home->plan.verdict != before)
        tell(protect, now);
    if (home->plan.verdict == GIVE_BACK_MOVES)
        go(protect, now);
    else if (home->plan.at_ns)
        wait_until(protect, home->plan.at_ns);
}

void protect_home_turn(struct protect *protect, const struct ft_protocol *protocol)
{
    struct protect_home *home = &protect->home;
    uint64_t now = clock_monotonic_ns();
    if (!wishes(protect)->preferred || !protect->primary)
        return;
    if (home->goes_ns &&
        (protocol->state == FT_SOLO ||
         (protocol->state == FT_PAIRED && now - home->goes_ns >= PATIENCE_S * NS_PER_SEC)))
        give_up(protect, now);
    if (home->goes_ns || !ft_protocol_runs(protocol))
        return;
    note_pair(home, protocol, now);
    decide(protect, now);
}

static void handle_timer(void *arg)
{
    struct protect *protect = arg;
    struct ft_protocol protocol;
    if (!protect->conductor)
        return;
    conductor_look(protect->conductor, &protocol);
    protect_home_turn(protect, &protocol);
}

void protect_home_init(struct protect *protect)
{
    loop_timer_init(&protect->home.timer, instance_loop(protect->instance), handle_timer, protect);
}
