/* SPDX-License-Identifier: MIT */
/*
 * A machine of 1 GiB is captured again and again, as fault tolerance does it: paused, its state
 * read, the pages that were written since the last time copied aside, resumed.
 *
 *   captures GUEST CMDLINE [CPUS [TIMES [INTERVAL-US]]]     (1 1000 5000)
 *
 * One line for each part: name, then microseconds: median, 99th percentile, least; "pages" instead
 * counts them.
 */
#include "core/clock.h"
#include "ft/capture.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 6, MOST = 20000, WARM_UP = 20, SETTLES_NS = 500000000 };

static const char *const names[PARTS] = {"pause", "stop", "state", "copy", "resume", "pages"};

static struct {
    struct machine *machine;
    struct loop_timer timer;
    struct pages pages;
    struct stream_buffer state;
    unsigned done, times;
    uint64_t interval_ns;
    uint64_t values[PARTS][MOST];
} bench;

static void drop_output(void *ctx, const uint8_t *bytes, size_t length)
{
}

/* Nobody takes them. */
static int put(void *ctx, uint64_t offset, const uint8_t *bytes, size_t length, struct err *err)
{
    return 0;
}

static void fail(const struct err *why)
{
    errx(1, "%s", why->text);
}

static void handle_timer(void *arg)
{
    struct err why = {0};
    struct capture capture = {
        .machine = bench.machine, .runs = true, .pages = &bench.pages, .state = &bench.state};
    bench.state.length = 0;
    if (capture_take(&capture, &why) < 0 || pages_rest(&bench.pages, &why) < 0)
        fail(&why);
    const struct capture_times *times = &capture.times;
    const uint64_t row[PARTS] = {times->all_ns,   times->pause_ns,  times->state_ns,
                                 times->pages_ns, times->resume_ns, bench.pages.captured};
    for (unsigned i = 0; i < PARTS && bench.done >= WARM_UP; i++)
        bench.values[i][bench.done - WARM_UP] = row[i];
    if (++bench.done == bench.times + WARM_UP)
        machine_stop(bench.machine);
    else if (loop_timer_arm(&bench.timer, clock_monotonic_ns() + bench.interval_ns) < 0)
        errx(1, "no timer");
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print(void)
{
    for (unsigned i = 0; i < PARTS; i++) {
        uint64_t *values = bench.values[i];
        double unit = i == PARTS - 1 ? 1 : 1e3;
        qsort(values, bench.times, sizeof(*values), compare);
        printf("%-8s %10.1f %10.1f %10.1f\n", names[i], (double)values[bench.times / 2] / unit,
               (double)values[bench.times - 1 - bench.times / 100] / unit,
               (double)values[0] / unit);
    }
}

static unsigned number(int argc, char **argv, int at, unsigned usual)
{
    return argc > at ? (unsigned)strtoul(argv[at], NULL, 10) : usual;
}

int main(int argc, char **argv)
{
    struct err why = {0};
    struct machine_end end;
    const struct serial_host serial = {.output = drop_output};
    if (argc < 3)
        errx(2, "usage: captures GUEST CMDLINE [CPUS [TIMES [INTERVAL-US]]]");
    const struct machine_config config = {.kernel = argv[1],
                                          .cmdline = argv[2],
                                          .cpus = number(argc, argv, 3, 1),
                                          .memory = 1 << 30,
                                          .serial = &serial,
                                          .no_balloon = true};
    bench.times = number(argc, argv, 4, 1000);
    bench.interval_ns = number(argc, argv, 5, 5000) * 1000ull;
    if (bench.times == 0 || bench.times > MOST)
        errx(2, "at most %d times", MOST);
    if (machine_create(&bench.machine, &config, &why) < 0)
        fail(&why);
    static const struct pages_sink sink = {.put = put};
    bench.pages = (struct pages){.machine = bench.machine, .sink = &sink};
    stream_buffer_init(&bench.state, 0);
    if (pages_begin(&bench.pages, &why) < 0 || pages_rounds(&bench.pages, &why) < 0)
        fail(&why);
    loop_timer_init(&bench.timer, machine_loop(bench.machine), handle_timer, NULL);
    if (loop_timer_arm(&bench.timer, clock_monotonic_ns() + SETTLES_NS) < 0)
        errx(1, "no timer");
    machine_resume(bench.machine);
    if (machine_run(bench.machine, &end, &why) < 0)
        fail(&why);
    if (end.outcome != MACHINE_STOPPED)
        errx(1, "the guest ended by itself");
    print();
    pages_end(&bench.pages);
    stream_buffer_finish(&bench.state);
    loop_timer_cancel(&bench.timer);
    machine_destroy(bench.machine);
    return 0;
}
