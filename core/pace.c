/* SPDX-License-Identifier: MIT */
#include "core/pace.h"

#include "core/clock.h"
#include <sched.h>

enum {
    WINDOW = 16, /* turns between two decisions */
    /* So fast they must follow each other that it is worth a try, and so soon that it goes on:
     * a patient thread may wait for the vCPU's whole turn and somebody else's. */
    WINDOW_NS = 50 * 1000 * 1000,
    PAUSE_NS = 20 * 1000 * 1000,
    /* After a try that brought nothing. It cost at most 16 delayed turns. */
    REST_NS = 250 * 1000 * 1000,
};

static void begin_window(struct pace *pace, uint64_t now_ns)
{
    pace->turns = pace->items = 0;
    pace->began_ns = now_ns;
}

static void set_patient(struct pace *pace, bool patient)
{
    const struct sched_param param = {0};
    int now = sched_getscheduler(0);

    if (now != (pace->patient ? SCHED_BATCH : SCHED_OTHER) ||
        sched_setscheduler(0, patient ? SCHED_BATCH : SCHED_OTHER, &param) < 0)
        pace->fixed = true;
    else
        pace->patient = patient;
}

static void give_up(struct pace *pace, uint64_t now_ns)
{
    set_patient(pace, false);
    pace->rest_until_ns = now_ns + REST_NS;
}

void pace_turn(struct pace *pace, unsigned items, uint64_t now_ns)
{
    if (items == 0 || pace->fixed)
        return;
    if (now_ns - pace->last_ns > PAUSE_NS) {
        if (pace->patient)
            set_patient(pace, false);
        begin_window(pace, now_ns);
    }
    pace->last_ns = now_ns;
    pace->turns++;
    pace->items += items;
    if (pace->turns < WINDOW)
        return;
    if (pace->patient && pace->items < pace->turns + pace->turns / 4)
        give_up(pace, now_ns);
    else if (!pace->patient && now_ns - pace->began_ns < WINDOW_NS && now_ns >= pace->rest_until_ns)
        set_patient(pace, true);
    begin_window(pace, now_ns);
}
