/* SPDX-License-Identifier: MIT */
/* What of a VM's protection goes into its journal (vmm/journal.h). All on the main loop. */
#include "ft/protect_parts.h"

#include "core/clock.h"

#include <assert.h>

/* What was let go before an epoch began is what the other side knew to be acknowledged. */
static_assert(CHRONICLE_ACKS == PRIMARY_AHEAD + 1, "how long a twin looks back");

static double ms_between(uint64_t from, uint64_t until)
{
    uint64_t us = from && until > from ? (until - from) / 1000 : 0;
    return (double)us / 1e3;
}

static void write_note(struct protect *protect, const struct chronicle_note *note)
{
    json_int_t generation = (json_int_t)note->generation;
    double ms = ms_between(note->since_ns, note->at_ns);
    protect->noted = true;
    switch (note->kind) {
    case CHRONICLE_PROTECTED: {
        pthread_mutex_lock(&protect->lock);
        json_t *fields = json_pack("{ss, sI}", "peer", protect->saved.peer, "generation",
                                   generation);
        pthread_mutex_unlock(&protect->lock);
        if (note->since_ns && fields)
            json_object_set_new(fields, "after_ms", json_real(ms));
        instance_note(protect->instance, "protected", fields);
        break;
    }
    case CHRONICLE_ALONE:
        instance_note(
            protect->instance, "alone",
            json_pack("{ss, sf, sI}", "why", note->why, "silent_ms", ms, "generation", generation));
        break;
    case CHRONICLE_SOLO:
        instance_note(
            protect->instance, "solo",
            json_pack("{ss, sf, sI}", "why", note->why, "held_ms", ms, "generation", generation));
        break;
    case CHRONICLE_DEPOSED:
        instance_note(protect->instance, "deposed",
                      json_pack("{sf, sI}", "held_ms", ms, "generation", generation));
        break;
    }
}

void protect_note(struct protect *protect)
{
    struct chronicle_note note;
    while (protect->conductor && conductor_take_note(protect->conductor, &note))
        write_note(protect, &note);
}

void protect_note_unprotected(struct protect *protect)
{
    protect_note(protect);
    if (protect->noted)
        instance_note(protect->instance, "unprotected", json_pack("{ss}", "by", "person"));
    protect->noted = false;
}

/* The next moment the guest runs. */
void protect_note_takeover(struct protect *protect)
{
    struct chronicle chronicle;
    struct ft_protocol protocol;
    uint64_t now = clock_boot_ns();
    conductor_remember(protect->conductor, &chronicle);
    conductor_look(protect->conductor, &protocol);
    const struct chronicle_takeover *takeover = &chronicle.takeover;
    uint64_t decided = takeover->decided ? takeover->decided : now;
    protect->noted = true;
    protect->taken = takeover->planned ? PROTECT_SWITCHED : PROTECT_TAKEN;
    protect->told_ns = takeover->told ? takeover->told : takeover->twin;
    instance_note(protect->instance, "takeover",
                  json_pack("{sb, ss, sI, sf, sf, sf, sf, sf, sf}", "planned",
                            (int)takeover->planned, "why", takeover->why ? takeover->why : "",
                            "generation", (json_int_t)protocol.record.generation, "detect_ms",
                            ms_between(takeover->heard, takeover->gone), "decide_ms",
                            ms_between(takeover->gone, decided), "load_ms",
                            ms_between(decided, now), "gap_ms", ms_between(protect->told_ns, now),
                            "ran_ms", ms_between(takeover->followed, now), "protected_ms",
                            ms_between(takeover->twin, now)));
}

/* Once; the first word of a guest that nobody asks may come after hours, and says nothing. */
void protect_note_output(struct protect *protect)
{
    uint64_t first = protect->told_ns ? machine_first_frame(protect->machine) : 0;
    if (!first)
        return;
    instance_note(protect->instance, "output",
                  json_pack("{sf}", "silent_ms", ms_between(protect->told_ns, first)));
    protect->told_ns = 0;
}
