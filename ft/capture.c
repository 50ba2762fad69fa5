/* SPDX-License-Identifier: MIT */
#include "ft/capture.h"

#include "core/clock.h"
#include <errno.h>

/* Since *at, which is now afterwards. */
static uint64_t lap(uint64_t *at)
{
    uint64_t now = clock_monotonic_ns(), ns = now - *at;
    *at = now;
    return ns;
}

int capture_take(struct capture *capture, struct err *err)
{
    struct capture_times *times = &capture->times;
    struct machine_record *record = NULL;
    int ret = capture->pages ? machine_record_create(&record, capture->machine, err) : 0;
    if (ret < 0)
        return ret;
    uint64_t begin = clock_monotonic_ns(), at = begin;
    if (capture->runs)
        machine_pause(capture->machine);
    if (!capture->ends && machine_has_wish(capture->machine)) {
        if (capture->runs)
            machine_resume(capture->machine);
        machine_record_destroy(record);
        return err_say(err, ERR_STATE, EAGAIN, "the machine is about to be reset");
    }
    if (capture->still)
        capture->still(capture->ctx);
    times->pause_ns = lap(&at);
    if (record)
        ret = machine_record_take(record, err);
    times->state_ns = lap(&at);
    if (ret == 0 && capture->disks)
        ret = disks_capture(capture->disks, err);
    times->disks_ns = lap(&at);
    if (ret == 0 && capture->pages)
        ret = pages_capture(capture->pages, err);
    times->pages_ns = lap(&at);
    if (ret == 0 && capture->moment)
        capture->moment(capture->ctx);
    times->state_ns += lap(&at);
    if (capture->runs)
        machine_resume(capture->machine);
    times->resume_ns = lap(&at);
    times->all_ns = capture->runs ? at - begin : 0;
    if (ret == 0 && record)
        ret = machine_record_write(record, &capture->state->stream, err);
    machine_record_destroy(record);
    return ret;
}
