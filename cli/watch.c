/* SPDX-License-Identifier: MIT */
/*
 * What is drawn on a terminal is one write each time: up to where it begins, each line with what
 * was right of it wiped out, and then all below. So nothing is ever seen half. Events stand above,
 * and scroll away.
 */
#include "cli/watch.h"

#include "cli/protection_text.h"
#include "cli/said.h"
#include "cli/table.h"
#include "cli/vms.h"
#include "core/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { EACH_MS = 1000, ROWS = 24, COLUMNS = 80, NARROWEST = 20 };

struct watch {
    struct control_client *client;
    bool terminal;
    unsigned drawn;     /* lines that stand there */
    json_t *before;     /* the status before */
    uint64_t before_ns; /* when */
    FILE *events;       /* lines that were not shown yet */
    char *text;         /* theirs */
    size_t length;
};

/* --- drawing ---------------------------------------------------------------------------------- */

struct screen {
    unsigned rows, columns;
};

/* Less one each: in the last column, and in the last row, some begin a new line. */
static struct screen find_screen(void)
{
    struct winsize window;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col == 0 || window.ws_row == 0)
        return (struct screen){.rows = ROWS - 1, .columns = COLUMNS - 1};
    return (struct screen){.rows = window.ws_row > 2 ? window.ws_row - 1u : 1,
                           .columns = window.ws_col > NARROWEST ? window.ws_col - 1u : NARROWEST};
}

/* The bytes of so many characters at most. */
static size_t cut(const char *line, size_t length, unsigned columns)
{
    unsigned width = 0;
    for (size_t i = 0; i < length; i++) {
        bool begins = ((unsigned char)line[i] & 0xc0) != 0x80;
        if (begins && width++ == columns)
            return i;
    }
    return length;
}

/* Each line of the text, cut where the screen ends; the number of them. */
static unsigned draw_lines(FILE *to, const char *text, unsigned rows, unsigned columns)
{
    unsigned count = 0;
    for (const char *end; *text && count < rows && (end = strchr(text, '\n')); text = end + 1) {
        size_t length = cut(text, (size_t)(end - text), columns);
        fprintf(to, "%.*s\033[K\n", (int)length, text);
        count++;
    }
    return count;
}

static void draw(struct watch *watch, const char *events, const char *lines)
{
    const struct screen screen = find_screen();
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    if (!to)
        return;
    if (watch->drawn)
        fprintf(to, "\033[%uA\r", watch->drawn);
    draw_lines(to, events, UINT32_MAX, screen.columns);
    watch->drawn = draw_lines(to, lines, screen.rows, screen.columns);
    fputs("\033[J", to);
    if (fclose(to) == 0) {
        fwrite(text, 1, length, stdout);
        fflush(stdout);
    }
    free(text);
}

/* --- what is seen ----------------------------------------------------------------------------- */

static void print_head(FILE *to, const json_t *status)
{
    char head[PROTECTION_LINE], up[40];
    format_duration(said_number(status, "uptime"), up, sizeof(up));
    snprintf(head, sizeof(head), "%s, %s, for %s", said_text(status, "name"),
             said_text(status, "state"), up);
    text_make_plain(head);
    fprintf(to, "%s\n", head);
}

static void show_lines(struct watch *watch, const char *events, const json_t *status,
                       const struct protection_pace *pace)
{
    const json_t *protection = json_object_get(status, "protection");
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    if (!to)
        return;
    print_head(to, status);
    if (protection)
        protection_print(to, protection, pace);
    else
        fprintf(to, "%-9s no\n", "protected");
    if (fclose(to) == 0)
        draw(watch, events, text);
    free(text);
}

static int begin_events(struct watch *watch, struct err *err)
{
    watch->events = open_memstream(&watch->text, &watch->length);
    return watch->events ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot gather events");
}

/* What has happened since the last time: free it. NULL: no memory. */
static char *end_events(struct watch *watch)
{
    int ret = watch->events ? fclose(watch->events) : -1;
    char *text = watch->text;
    watch->events = NULL;
    watch->text = NULL;
    if (ret == 0)
        return text;
    free(text);
    return NULL;
}

static int show(struct watch *watch, const json_t *status, struct err *err)
{
    uint64_t now = clock_monotonic_ns();
    struct protection_pace pace;
    double seconds = (double)(now - watch->before_ns) / NS_PER_SEC;
    bool paced = watch->before && protection_pace(watch->before, status, seconds, &pace);
    char *events = end_events(watch);
    if (watch->terminal) {
        show_lines(watch, events ? events : "", status, paced ? &pace : NULL);
    } else {
        fputs(events ? events : "", stdout);
        protection_print_line(stdout, (double)clock_wall_ns() / NS_PER_SEC, status,
                              paced ? &pace : NULL);
        fflush(stdout);
    }
    free(events);
    watch->before_ns = now;
    return begin_events(watch, err);
}

/* --- hearing ---------------------------------------------------------------------------------- */

static bool handle_event(void *ctx, const json_t *event)
{
    struct watch *watch = ctx;
    protection_print_event(watch->events, event);
    return true;
}

/* Its events, until it is time to look again. */
static int hear(struct watch *watch, uint64_t until_ns, struct err *err)
{
    for (uint64_t now; (now = clock_monotonic_ns()) < until_ns;) {
        json_t *event;
        unsigned ms = (unsigned)((until_ns - now + 999999) / 1000000);
        int ret = control_next_event(watch->client, ms, &event, err);
        if (ret == -ETIMEDOUT)
            return 0;
        if (ret < 0)
            return ret;
        handle_event(watch, event);
        json_decref(event);
    }
    return 0;
}

static int watch_on(struct watch *watch, struct err *err)
{
    uint64_t next_ns = clock_monotonic_ns();
    control_hear(watch->client, handle_event, watch);
    int ret = control_call(watch->client, "watch", NULL, NULL, err);
    while (ret == 0 && !ferror(stdout)) {
        json_t *status;
        ret = control_call(watch->client, "status", NULL, &status, err);
        if (ret < 0)
            break;
        ret = show(watch, status, err);
        json_decref(watch->before);
        watch->before = status;
        if (ret < 0)
            break;
        next_ns += EACH_MS * 1000000ull;
        ret = hear(watch, next_ns, err);
    }
    return ret;
}

static void say_end(struct watch *watch, const char *name)
{
    char *events = end_events(watch);
    printf("%s", events ? events : "");
    said_print_plain(name);
    printf(" has ended here\n");
    fflush(stdout);
    free(events);
}

int watch_vm(const char *word, struct err *err)
{
    struct watch watch = {.terminal = isatty(STDOUT_FILENO) == 1};
    struct runtime_info info;
    int ret = begin_events(&watch, err);
    if (ret < 0)
        return ret;
    ret = vm_connect(word, &watch.client, &info, err);
    if (ret == 0) {
        ret = watch_on(&watch, err);
        if (ret == -EPIPE) {
            say_end(&watch, info.name);
            ret = 0;
        }
        control_disconnect(watch.client);
        runtime_info_finish(&info);
    }
    json_decref(watch.before);
    free(end_events(&watch));
    return ret;
}
