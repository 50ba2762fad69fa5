/* SPDX-License-Identifier: MIT */
/*
 * The one table of metrics, and how each is read. A metric of a vCPU, disk or interface is told for
 * all of them, also where it is still 0: who computes rates wants to have seen the beginning.
 */
#include "vmm/machine_parts.h"
#include "vmm/metrics.h"

#include <time.h>

#define TELL(name)                                                                     \
    static void name(const struct metric *metric, const struct metrics_source *source, \
                     struct metrics_sink *sink)

static void one(struct metrics_sink *sink, const struct metric *metric, uint64_t value)
{
    sink->number(sink, metric, -1, NULL, value);
}

/* --- the process and the machine -------------------------------------------------------------- */

TELL(tell_start)
{
    one(sink, metric, (uint64_t)source->started * NS_PER_SEC);
}

TELL(tell_process_cpu)
{
    struct timespec time = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    one(sink, metric, (uint64_t)time.tv_sec * NS_PER_SEC + (uint64_t)time.tv_nsec);
}

TELL(tell_running)
{
    one(sink, metric, source->machine->running);
}

TELL(tell_cpus)
{
    one(sink, metric, source->machine->config.cpus);
}

TELL(tell_memory)
{
    one(sink, metric, source->machine->config.memory);
}

TELL(tell_pauses)
{
    struct histogram_reading reading;
    histogram_read(&source->machine->pauses, &reading);
    sink->histogram(sink, metric, -1, NULL, &reading);
}

TELL(tell_longest_pause)
{
    one(sink, metric, source->machine->longest_pause_ns);
}

/* --- vCPUs ------------------------------------------------------------------------------------ */

TELL(tell_exits)
{
    for (unsigned i = 0; i < source->machine->config.cpus; i++) {
        uint64_t exits[VCPU_EXITS];
        vcpu_read_exits(source->machine->vcpus[i], exits);
        for (unsigned reason = 0; reason < VCPU_EXITS; reason++)
            if (vcpu_exit_name(reason))
                sink->number(sink, metric, (int)i, vcpu_exit_name(reason), exits[reason]);
    }
}

TELL(tell_vcpu_cpu)
{
    for (unsigned i = 0; i < source->machine->config.cpus; i++)
        sink->number(sink, metric, (int)i, NULL, thread_cpu_ns(&source->machine->vcpus[i]->thread));
}

/* --- disks ------------------------------------------------------------------------------------ */

static const char *const kinds[] = {[BLK_READS] = "read",
                                    [BLK_WRITES] = "write",
                                    [BLK_FLUSHES] = "flush",
                                    [BLK_DISCARDS] = "discard"};

static void tell_disks(const struct metric *metric, const struct metrics_source *source,
                       struct metrics_sink *sink,
                       uint64_t (*read)(const struct blk_kind_stats *stats))
{
    struct blk_stats stats;
    for (unsigned i = 0; i < source->machine->config.disk_count; i++) {
        blk_stats(source->machine->disks[i].blk, &stats);
        for (unsigned kind = 0; kind < BLK_KINDS; kind++)
            sink->number(sink, metric, (int)i, kinds[kind], read(&stats.of[kind]));
    }
}

static uint64_t read_operations(const struct blk_kind_stats *stats)
{
    return stats->latency.count;
}

static uint64_t read_bytes(const struct blk_kind_stats *stats)
{
    return stats->bytes;
}

static uint64_t read_errors(const struct blk_kind_stats *stats)
{
    return stats->errors;
}

TELL(tell_disk_operations)
{
    tell_disks(metric, source, sink, read_operations);
}

TELL(tell_disk_bytes)
{
    tell_disks(metric, source, sink, read_bytes);
}

TELL(tell_disk_errors)
{
    tell_disks(metric, source, sink, read_errors);
}

TELL(tell_disk_latency)
{
    struct blk_stats stats;
    for (unsigned i = 0; i < source->machine->config.disk_count; i++) {
        blk_stats(source->machine->disks[i].blk, &stats);
        for (unsigned kind = 0; kind < BLK_KINDS; kind++)
            sink->histogram(sink, metric, (int)i, kinds[kind], &stats.of[kind].latency);
    }
}

TELL(tell_disk_size)
{
    for (unsigned i = 0; i < source->machine->config.disk_count; i++)
        sink->number(sink, metric, (int)i, NULL, source->machine->disks[i].disk->info.size);
}

/* --- network interfaces ----------------------------------------------------------------------- */

struct both_ways {
    uint64_t received, sent;
};

static void tell_nets(const struct metric *metric, const struct metrics_source *source,
                      struct metrics_sink *sink,
                      struct both_ways (*read)(const struct net_stats *stats))
{
    struct net_stats stats;
    for (unsigned i = 0; i < source->machine->config.net_count; i++) {
        if (!source->machine->nets[i].net)
            continue; /* the VM runs without it */
        net_stats(source->machine->nets[i].net, &stats);
        struct both_ways ways = read(&stats);
        sink->number(sink, metric, (int)i, "received", ways.received);
        sink->number(sink, metric, (int)i, "sent", ways.sent);
    }
}

static struct both_ways read_frames(const struct net_stats *stats)
{
    return (struct both_ways){.received = stats->received, .sent = stats->sent};
}

static struct both_ways read_net_bytes(const struct net_stats *stats)
{
    return (struct both_ways){.received = stats->received_bytes, .sent = stats->sent_bytes};
}

static struct both_ways read_dropped(const struct net_stats *stats)
{
    return (struct both_ways){.received = stats->receive_dropped, .sent = stats->send_dropped};
}

TELL(tell_frames)
{
    tell_nets(metric, source, sink, read_frames);
}

TELL(tell_net_bytes)
{
    tell_nets(metric, source, sink, read_net_bytes);
}

TELL(tell_dropped)
{
    tell_nets(metric, source, sink, read_dropped);
}

TELL(tell_filtered)
{
    struct net_stats stats;
    for (unsigned i = 0; i < source->machine->config.net_count; i++) {
        if (!source->machine->nets[i].net)
            continue;
        net_stats(source->machine->nets[i].net, &stats);
        sink->number(sink, metric, (int)i, NULL, stats.filtered);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

TELL(tell_balloon_target)
{
    if (source->machine->balloon)
        one(sink, metric, balloon_target(source->machine->balloon));
}

TELL(tell_balloon_actual)
{
    if (source->machine->balloon)
        one(sink, metric, balloon_actual(source->machine->balloon));
}

TELL(tell_reported)
{
    if (source->machine->balloon)
        one(sink, metric, balloon_reported(source->machine->balloon));
}

static void tell_known(const struct metric *metric, struct metrics_sink *sink, const char *word,
                       uint64_t value)
{
    if (value != UINT64_MAX)
        sink->number(sink, metric, -1, word, value);
}

/* False where the guest has not told; whoever asks makes it tell anew, for the next one to ask. */
static bool ask_guest(const struct metrics_source *source, struct balloon_stats *ret_stats)
{
    if (!source->machine->balloon)
        return false;
    balloon_stats(source->machine->balloon, ret_stats);
    return ret_stats->at_ns != 0;
}

TELL(tell_guest_memory)
{
    struct balloon_stats stats;
    if (!ask_guest(source, &stats))
        return;
    tell_known(metric, sink, "total", stats.total);
    tell_known(metric, sink, "free", stats.free);
    tell_known(metric, sink, "available", stats.available);
    tell_known(metric, sink, "caches", stats.caches);
}

TELL(tell_guest_swap)
{
    struct balloon_stats stats;
    if (!ask_guest(source, &stats))
        return;
    tell_known(metric, sink, "in", stats.swap_in);
    tell_known(metric, sink, "out", stats.swap_out);
}

TELL(tell_guest_faults)
{
    struct balloon_stats stats;
    if (!ask_guest(source, &stats))
        return;
    tell_known(metric, sink, "major", stats.major_faults);
    tell_known(metric, sink, "minor", stats.minor_faults);
}

TELL(tell_guest_age)
{
    struct balloon_stats stats;
    if (ask_guest(source, &stats))
        one(sink, metric, clock_monotonic_ns() - stats.at_ns);
}

/* --- the table -------------------------------------------------------------------------------- */

#define COUNTER   .type = METRIC_COUNTER
#define GAUGE     .type = METRIC_GAUGE
#define HISTOGRAM .type = METRIC_HISTOGRAM, .seconds = true

/* clang-format off */
const struct metric metrics_table[] = {
    {"minivmm_start_time_seconds", "When the VM's process began, in seconds since 1970.",
     GAUGE, .seconds = true, .group = "process", .key = "start_time", .tell = tell_start},
    {"minivmm_cpu_seconds_total", "CPU time of the VM's process, its vCPUs included.",
     COUNTER, .seconds = true, .group = "process", .key = "cpu_seconds", .tell = tell_process_cpu},

    {"minivmm_running", "1 while the guest runs, 0 while it stands still.",
     GAUGE, .group = "machine", .key = "running", .tell = tell_running},
    {"minivmm_vcpus", "How many vCPUs the VM has.",
     GAUGE, .group = "machine", .key = "cpus", .tell = tell_cpus},
    {"minivmm_memory_bytes", "How much memory the VM has, what its balloon holds included.",
     GAUGE, .group = "machine", .key = "memory", .tell = tell_memory},
    {"minivmm_pause_seconds", "How long the guest stood still, each time that it went on again.",
     HISTOGRAM, .group = "machine", .key = "pauses", .tell = tell_pauses},
    {"minivmm_pause_longest_seconds", "The longest of these pauses.",
     GAUGE, .seconds = true, .group = "machine", .key = "longest_pause", .tell = tell_longest_pause},

    {"minivmm_vcpu_exits_total", "How often a vCPU left the guest for minivmm, and why.",
     COUNTER, .group = "vcpus", .key = "exits", .index_label = "vcpu", .word_label = "reason", .tell = tell_exits},
    {"minivmm_vcpu_cpu_seconds_total", "CPU time of a vCPU, in the guest and for it.",
     COUNTER, .seconds = true, .group = "vcpus", .key = "cpu_seconds", .index_label = "vcpu", .tell = tell_vcpu_cpu},

    {"minivmm_disk_operations_total", "Requests of the guest that were answered.",
     COUNTER, .group = "disks", .key = "operations", .index_label = "disk", .word_label = "op", .tell = tell_disk_operations},
    {"minivmm_disk_bytes_total", "Bytes of these requests that were read, written or discarded.",
     COUNTER, .group = "disks", .key = "bytes", .index_label = "disk", .word_label = "op", .tell = tell_disk_bytes},
    {"minivmm_disk_errors_total", "Requests that were answered with an error.",
     COUNTER, .group = "disks", .key = "errors", .index_label = "disk", .word_label = "op", .tell = tell_disk_errors},
    {"minivmm_disk_latency_seconds", "How long requests took, from the guest's queue and back.",
     HISTOGRAM, .group = "disks", .key = "latency", .index_label = "disk", .word_label = "op", .tell = tell_disk_latency},
    {"minivmm_disk_size_bytes", "How large a disk is for the guest.",
     GAUGE, .group = "disks", .key = "size", .index_label = "disk", .tell = tell_disk_size},

    {"minivmm_net_frames_total", "Frames that the guest received and sent.",
     COUNTER, .group = "nets", .key = "frames", .index_label = "net", .word_label = "direction", .tell = tell_frames},
    {"minivmm_net_bytes_total", "Bytes of these frames, from the Ethernet header on.",
     COUNTER, .group = "nets", .key = "bytes", .index_label = "net", .word_label = "direction", .tell = tell_net_bytes},
    {"minivmm_net_dropped_total", "Frames that were lost between the guest and its network.",
     COUNTER, .group = "nets", .key = "dropped", .index_label = "net", .word_label = "direction", .tell = tell_dropped},
    {"minivmm_net_filtered_total", "Frames that came and that the guest had not asked for.",
     COUNTER, .group = "nets", .key = "filtered", .index_label = "net", .tell = tell_filtered},

    {"minivmm_balloon_target_bytes", "Memory that the guest is asked to do without.",
     GAUGE, .group = "balloon", .key = "target", .tell = tell_balloon_target},
    {"minivmm_balloon_actual_bytes", "Memory that the guest does without.",
     GAUGE, .group = "balloon", .key = "actual", .tell = tell_balloon_actual},
    {"minivmm_memory_given_back_bytes_total", "Free memory that the guest gave back unasked (free page reporting).",
     COUNTER, .group = "balloon", .key = "given_back", .tell = tell_reported},

    {"minivmm_guest_memory_bytes", "What the guest says of its memory.",
     GAUGE, .group = "guest", .key = "memory", .word_label = "kind", .tell = tell_guest_memory},
    {"minivmm_guest_swap_bytes_total", "What the guest says of its swapping, since its boot.",
     COUNTER, .group = "guest", .key = "swap", .word_label = "direction", .tell = tell_guest_swap},
    {"minivmm_guest_faults_total", "What the guest says of its page faults, since its boot.",
     COUNTER, .group = "guest", .key = "faults", .word_label = "kind", .tell = tell_guest_faults},
    {"minivmm_guest_age_seconds", "How old what the guest says is.",
     GAUGE, .seconds = true, .group = "guest", .key = "age", .tell = tell_guest_age},
    {.name = NULL},
};
/* clang-format on */
