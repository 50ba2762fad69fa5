/* SPDX-License-Identifier: MIT */
/* What people set of a VM that has a twin: they hear that it is so when the twin has it, too. */
#include "ft/protect_parts.h"

#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <string.h>

enum { PATIENCE_MS = 5000 }; /* less than a client's own */

static struct control_request *take_first(struct protect *protect)
{
    struct control_request *request = protect->shared[0].request;
    protect->shared_count--;
    memmove(protect->shared, protect->shared + 1, protect->shared_count * sizeof(*protect->shared));
    return request;
}

/* The first of them. What says "twin" nothing: nobody is there who would go on otherwise. */
static void answer_first(struct protect *protect, json_t *answer)
{
    control_answer(take_first(protect), answer, NULL);
}

/* It has gone on elsewhere, as it was there. */
static void refuse(const struct protect *protect, const struct ft_protocol *protocol,
                   struct control_request *request)
{
    const char *name = instance_config(protect->instance)->name;
    struct err err = {0};
    err_say(&err, ERR_STATE, ESTALE, "%s belongs to another host now (generation %llu)", name,
            (unsigned long long)protocol->record.generation);
    err_hint(&err, "it goes on as it was there: say it again on that host");
    control_answer(request, NULL, &err);
}

static json_t *twin_has_it(bool has)
{
    return json_pack("{sb}", "twin", (int)has);
}

/* An acknowledgement from before we were away says nothing: somebody may have taken over since. */
static bool has_first(const struct protect *protect, const struct ft_protocol *protocol)
{
    return protocol->acked >= protect->shared[0].epoch && protocol->acked > protocol->unsure;
}

static void wait_on(struct protect *protect)
{
    protect->shares = protect->shared_count > 0;
    if (!protect->shares)
        loop_timer_cancel(&protect->share_timer);
    else if (loop_timer_arm(&protect->share_timer, protect->shared[0].until_ns) < 0)
        log_warning("%s: no memory for a timer", instance_config(protect->instance)->name);
}

void protect_share_answer(struct protect *protect, const struct ft_protocol *protocol)
{
    bool gated = protocol && ft_protocol_is_gated(protocol);
    if (!protect->shares)
        return;
    while (protect->shared_count > 0 && protocol && protocol->state == FT_DEPOSED)
        refuse(protect, protocol, take_first(protect));
    while (protect->shared_count > 0 && (!gated || has_first(protect, protocol)))
        answer_first(protect, gated ? twin_has_it(true) : NULL);
    wait_on(protect);
}

static void handle_timer(void *arg)
{
    struct protect *protect = arg;
    uint64_t now = clock_monotonic_ns();
    while (protect->shared_count > 0 && protect->shared[0].until_ns <= now)
        answer_first(protect, twin_has_it(false));
    wait_on(protect);
}

void protect_share(struct protect *protect, struct control_request *request)
{
    struct ft_protocol protocol;
    if (!protect->conductor || !protect->primary)
        return;
    conductor_look(protect->conductor, &protocol);
    if (protocol.state == FT_DEPOSED) {
        control_defer(request);
        refuse(protect, &protocol, request);
        return;
    }
    if (!ft_protocol_is_gated(&protocol))
        return;
    if (protect->shared_count == PROTECT_SHARED_MAX) /* their clients have gone */
        answer_first(protect, twin_has_it(false));
    control_defer(request);
    protect->shares = true; /* before it can be acknowledged */
    protect->shared[protect->shared_count++] = (struct protect_shared){
        .request = request,
        .epoch = primary_press_set(protect->primary),
        .until_ns = clock_monotonic_ns() + PATIENCE_MS * 1000000ull,
    };
    wait_on(protect);
}

void protect_share_init(struct protect *protect)
{
    loop_timer_init(&protect->share_timer, instance_loop(protect->instance), handle_timer, protect);
}

void protect_share_abandon(struct protect *protect)
{
    while (protect->shared_count > 0)
        answer_first(protect, NULL);
    wait_on(protect);
}
