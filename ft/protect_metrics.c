/* SPDX-License-Identifier: MIT */
#include "ft/protect_metrics.h"

#include "core/clock.h"
#include "ft/part.h"
#include "ft/protect_parts.h"

#define TELL(name)                                                                     \
    static void name(const struct metric *metric, const struct metrics_source *source, \
                     struct metrics_sink *sink)

static void one(struct metrics_sink *sink, const struct metric *metric, uint64_t value)
{
    sink->number(sink, metric, -1, NULL, value);
}

/* False: it is not protected. */
static bool look(const struct metrics_source *source, struct ft_protocol *ret_protocol)
{
    const struct protect *protect = ft_part_protect(source->part);
    if (!protect || !protect->conductor)
        return false;
    conductor_look(protect->conductor, ret_protocol);
    return true;
}

/* NULL: nobody follows it yet, or it is a twin. */
static struct primary *primary_of(const struct metrics_source *source)
{
    const struct protect *protect = ft_part_protect(source->part);
    return protect ? protect->primary : NULL;
}

static bool read_total(const struct metrics_source *source, struct epochs_total *ret_total)
{
    struct primary *primary = primary_of(source);
    if (primary)
        epochs_read_total(primary_epochs(primary), ret_total);
    return primary;
}

TELL(tell_state)
{
    struct ft_protocol protocol;
    if (!look(source, &protocol))
        return;
    for (enum ft_state state = FT_STARTING; state <= FT_OVER; state++)
        sink->number(sink, metric, -1, ft_state_name(state), state == protocol.state);
}

TELL(tell_generation)
{
    struct ft_protocol protocol;
    if (look(source, &protocol)) /* a twin has not asked, and knows what it was told */
        one(sink, metric, protocol.known ? protocol.record.generation : protocol.generation);
}

TELL(tell_epoch)
{
    struct ft_protocol protocol;
    if (look(source, &protocol))
        one(sink, metric, protocol.sent);
}

TELL(tell_acked)
{
    struct ft_protocol protocol;
    if (look(source, &protocol))
        one(sink, metric, protocol.acked);
}

TELL(tell_epochs)
{
    struct epochs_total total;
    if (read_total(source, &total))
        one(sink, metric, total.count);
}

TELL(tell_dirty)
{
    struct epochs_total total;
    if (read_total(source, &total))
        one(sink, metric, total.pages * PAGE_SIZE);
}

TELL(tell_wire)
{
    struct epochs_total total;
    if (read_total(source, &total))
        one(sink, metric, total.wire_bytes);
}

/* This process has had it taken over once at most. */
static void tell_taken(const struct metric *metric, const struct metrics_source *source,
                       struct metrics_sink *sink, enum protect_taken how)
{
    const struct protect *protect = ft_part_protect(source->part);
    if (protect && protect->conductor)
        one(sink, metric, protect->taken == how);
}

TELL(tell_takeovers)
{
    tell_taken(metric, source, sink, PROTECT_TAKEN);
}

TELL(tell_switchovers)
{
    tell_taken(metric, source, sink, PROTECT_SWITCHED);
}

TELL(tell_unprotected)
{
    const struct protect *protect = ft_part_protect(source->part);
    struct chronicle chronicle;
    if (!protect || !protect->conductor)
        return;
    conductor_remember(protect->conductor, &chronicle);
    one(sink, metric, chronicle_unprotected(&chronicle, clock_boot_ns()));
}

TELL(tell_pauses)
{
    struct epochs_total total;
    if (read_total(source, &total))
        sink->histogram(sink, metric, -1, NULL, &total.pauses);
}

TELL(tell_commits)
{
    struct epochs_total total;
    if (read_total(source, &total))
        sink->histogram(sink, metric, -1, NULL, &total.commits);
}

TELL(tell_held)
{
    struct primary *primary = primary_of(source);
    struct primary_news news;
    if (!primary)
        return;
    primary_look(primary, &news);
    one(sink, metric, news.held_bytes);
}

TELL(tell_resyncs)
{
    struct primary *primary = primary_of(source);
    struct primary_news news;
    if (!primary)
        return;
    primary_look(primary, &news);
    sink->number(sink, metric, -1, "delta", news.total_resyncs.deltas);
    sink->number(sink, metric, -1, "full", news.total_resyncs.copies);
}

TELL(tell_resync_bytes)
{
    struct primary *primary = primary_of(source);
    struct primary_news news;
    if (!primary)
        return;
    primary_look(primary, &news);
    one(sink, metric, news.total_resyncs.sent_bytes);
}

TELL(tell_marked)
{
    const struct protect *protect = ft_part_protect(source->part);
    if (protect && protect->changes && protect->conductor)
        one(sink, metric, changes_bytes(protect->changes));
}

static bool look_paths(const struct metrics_source *source, struct link_news *ret_news)
{
    const struct protect *protect = ft_part_protect(source->part);
    if (!protect || !protect->conductor)
        return false;
    conductor_look_paths(protect->conductor, ret_news);
    return ret_news->count > 0;
}

TELL(tell_paths)
{
    struct link_news news;
    if (look_paths(source, &news))
        one(sink, metric, (uint64_t)news.path[0].alive + news.path[1].alive);
}

TELL(tell_path_moves)
{
    struct link_news news;
    if (look_paths(source, &news))
        one(sink, metric, news.moves);
}

/* clang-format off */
const struct metric protect_metrics[] = {
    {"minivmm_ft_state", "1 for the state that the VM's protection is in, 0 for the others.",
     METRIC_GAUGE, .group = "ft", .key = "state", .word_label = "state", .tell = tell_state},
    {"minivmm_ft_generation", "What the witness counts: it grows with each change of who runs the VM, and how.",
     METRIC_GAUGE, .group = "ft", .key = "generation", .tell = tell_generation},
    {"minivmm_ft_epoch", "The number of the newest epoch.",
     METRIC_GAUGE, .group = "ft", .key = "epoch", .tell = tell_epoch},
    {"minivmm_ft_acked_epoch", "The number of the newest epoch that the twin has.",
     METRIC_GAUGE, .group = "ft", .key = "acked_epoch", .tell = tell_acked},
    {"minivmm_ft_epochs_total", "Epochs that were taken.",
     METRIC_COUNTER, .group = "ft", .key = "epochs", .tell = tell_epochs},
    {"minivmm_ft_pause_seconds", "How long the guest stood still for an epoch.",
     METRIC_HISTOGRAM, .seconds = true, .group = "ft", .key = "pauses", .tell = tell_pauses},
    {"minivmm_ft_commit_seconds", "From the pause of an epoch until the twin had acknowledged it.",
     METRIC_HISTOGRAM, .seconds = true, .group = "ft", .key = "commits", .tell = tell_commits},
    {"minivmm_ft_dirty_bytes_total", "Memory that epochs found changed.",
     METRIC_COUNTER, .group = "ft", .key = "dirty_bytes", .tell = tell_dirty},
    {"minivmm_ft_wire_bytes_total", "Bytes that were sent for epochs.",
     METRIC_COUNTER, .group = "ft", .key = "wire_bytes", .tell = tell_wire},
    {"minivmm_ft_held_bytes", "Output and changes of disks that wait for the twin.",
     METRIC_GAUGE, .group = "ft", .key = "held_bytes", .tell = tell_held},
    {"minivmm_ft_takeovers_total", "1 once this process has gone on with a VM whose host was gone.",
     METRIC_COUNTER, .group = "ft", .key = "takeovers", .tell = tell_takeovers},
    {"minivmm_ft_switchovers_total", "1 once this process has gone on with a VM that was handed over to it.",
     METRIC_COUNTER, .group = "ft", .key = "switchovers", .tell = tell_switchovers},
    {"minivmm_ft_unprotected_seconds_total", "How long the VM ran without a twin, after it had one or was started to have one.",
     METRIC_COUNTER, .seconds = true, .group = "ft", .key = "unprotected_seconds", .tell = tell_unprotected},
    {"minivmm_ft_resyncs_total", "How often a twin's disks became whole: it had them, and got what differs (delta), or got all of them (full).",
     METRIC_COUNTER, .group = "ft", .key = "resyncs", .word_label = "what", .tell = tell_resyncs},
    {"minivmm_ft_resync_bytes_total", "Bytes of disks that were sent for that.",
     METRIC_COUNTER, .group = "ft", .key = "resync_bytes", .tell = tell_resync_bytes},
    {"minivmm_ft_marked_bytes", "Parts of the disks that may differ from those on the other host.",
     METRIC_GAUGE, .group = "ft", .key = "marked_bytes", .tell = tell_marked},
    {"minivmm_ft_paths", "Ways to the other host that are alive, where it has two addresses.",
     METRIC_GAUGE, .group = "ft", .key = "paths", .tell = tell_paths},
    {"minivmm_ft_path_moves", "How often epochs went on by the other way, since the twin came.",
     METRIC_GAUGE, .group = "ft", .key = "path_moves", .tell = tell_path_moves},
    {.name = NULL},
};
/* clang-format on */
