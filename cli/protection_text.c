/* SPDX-License-Identifier: MIT */
#include "cli/protection_text.h"

#include "cli/said.h"
#include "cli/table.h"
#include <stdarg.h>
#include <string.h>
#include <time.h>

/* --- pieces ----------------------------------------------------------------------------------- */

struct line {
    char text[PROTECTION_LINE];
};

static void add(struct line *line, const char *fmt, ...) printf_like(2, 3);

static void add(struct line *line, const char *fmt, ...)
{
    size_t length = strlen(line->text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line->text + length, sizeof(line->text) - length, fmt, args);
    va_end(args);
}

static void add_time(struct line *line, double us)
{
    add(line, "%.*f ms", us < 10000 ? 2 : us < 100000 ? 1 : 0, us / 1000);
}

static void add_size(struct line *line, double bytes)
{
    char size[32];
    format_size(bytes > 0 && bytes < 1e18 ? (uint64_t)bytes : 0, size, sizeof(size));
    add(line, "%s", size);
}

static void add_clock(struct line *line, double at)
{
    time_t seconds = at > 0 && at < 1e11 ? (time_t)at : 0;
    struct tm tm = {0};
    localtime_r(&seconds, &tm);
    strftime(line->text, sizeof(line->text), "%H:%M:%S ", &tm);
}

/* name NULL: a line by itself. */
static void put(FILE *to, const char *name, struct line *line)
{
    text_make_plain(line->text);
    if (name)
        fprintf(to, "%-9s ", name);
    fprintf(to, "%s\n", line->text);
}

static bool has_text(const json_t *object, const char *key)
{
    return json_string_length(json_object_get(object, key)) > 0;
}

static bool is_twin(const json_t *protection)
{
    return strcmp(said_text(protection, "role"), "twin") == 0;
}

/* --- how it goes ------------------------------------------------------------------------------ */

struct growth {
    const json_t *before, *now; /* metrics' "ft" */
};

static double grown(const struct growth *growth, const char *key)
{
    return said_number(growth->now, key) - said_number(growth->before, key);
}

/* Of a histogram. */
static double grown_part(const struct growth *growth, const char *key, const char *part)
{
    const struct growth inner = {.before = json_object_get(growth->before, key),
                                 .now = json_object_get(growth->now, key)};
    return grown(&inner, part);
}

static double mean_us(const struct growth *growth, const char *key)
{
    double count = grown_part(growth, key, "count");
    return count > 0 ? grown_part(growth, key, "sum") / count * 1e6 : 0;
}

static const json_t *find_metrics(const json_t *status)
{
    return json_object_get(json_object_get(status, "metrics"), "ft");
}

bool protection_pace(const json_t *before, const json_t *now, double seconds,
                     struct protection_pace *ret_pace)
{
    const struct growth growth = {.before = find_metrics(before), .now = find_metrics(now)};
    /* What counts anew was not counting on. */
    if (!json_object_get(growth.before, "epochs") || !json_object_get(growth.now, "epochs") ||
        grown(&growth, "epochs") < 0 || !(seconds > 0))
        return false;
    *ret_pace = (struct protection_pace){
        .epochs_per_s = grown(&growth, "epochs") / seconds,
        .dirty_bytes_per_s = grown(&growth, "dirty_bytes") / seconds,
        .wire_bytes_per_s = grown(&growth, "wire_bytes") / seconds,
        .stood_still_percent = grown_part(&growth, "pauses", "sum") / seconds * 100,
        .pause_us = mean_us(&growth, "pauses"),
        .commit_us = mean_us(&growth, "commits"),
    };
    return true;
}

static struct protection_pace recent_pace(const json_t *recent)
{
    return (struct protection_pace){
        .epochs_per_s = said_number(recent, "epochs_per_s"),
        .dirty_bytes_per_s = said_number(recent, "dirty_bytes_per_s"),
        .wire_bytes_per_s = said_number(recent, "wire_bytes_per_s"),
        .stood_still_percent = said_number(recent, "stood_still_percent"),
    };
}

/* --- its state -------------------------------------------------------------------------------- */

static const struct state {
    const char *name, *word, *begin, *end; /* the peer stands between them; end NULL: nowhere */
} states[] = {
    {"starting", "not protected", "not yet: the witness is asked whether it may run here", NULL},
    {"solo", "not protected", "no: nobody follows it at ", ""},
    {"gated", "not protected", "not yet: its twin at ", " has all of it, and the witness is asked"},
    {"paired", "protected", "yes: its twin at ", " goes on when this host dies"},
    {"alone", "not protected", "no: its twin at ",
     " is gone, and what it sends waits until the witness lets it go on alone"},
    {"handing over", "not protected", "it is being handed over to ", ""},
    {"follows", "", "not ready: it does not have all as yet of the VM at ", ""},
    {"twin", "", "ready: it goes on when the VM is lost, which runs at ", ""},
    {"claiming", "", "asks the witness whether it may go on: nothing is heard of ", ""},
    {"deposed", "not protected", "no: it belongs to another host now, and ends here", NULL},
    {"dismissed", "", "nobody needs it any more", NULL},
    {"over", "", "it has ended, or runs elsewhere", NULL},
};

static const struct state *find_state(const char *name)
{
    for (size_t i = 0; i < array_size(states); i++)
        if (strcmp(states[i].name, name) == 0)
            return &states[i];
    return NULL;
}

const char *protection_word(const char *state)
{
    const struct state *found = find_state(state);
    return found ? found->word : "";
}

/* What has left may wait for the other host's disks, and is all then. */
static void add_sync(struct line *line, const json_t *sync)
{
    add_size(line, said_number(sync, "done"));
    add(line, " of ");
    add_size(line, said_number(sync, "total"));
    if (json_is_true(json_object_get(sync, "storing")))
        add(line, "; its disks take what was sent");
}

static void print_state(FILE *to, const json_t *protection)
{
    const json_t *sync = json_object_get(protection, "sync");
    const char *name = said_text(protection, "state");
    const char *peer = has_text(protection, "peer") ? said_text(protection, "peer") : "(not known)";
    const struct state *state = find_state(name);
    struct line line = {""};
    if (sync) {
        add(&line, "not yet: its twin at %s gets what it lacks, ", peer);
        add_sync(&line, sync);
    } else if (!state) {
        add(&line, "%s, by %s", name, peer);
    } else {
        add(&line, "%s%s%s", state->begin, state->end ? peer : "", state->end ? state->end : "");
    }
    put(to, is_twin(protection) ? "twin" : "protected", &line);
    if (!has_text(protection, "why"))
        return;
    line = (struct line){""};
    add(&line, "%s", said_text(protection, "why"));
    put(to, "why", &line);
}

/* --- the paragraph ---------------------------------------------------------------------------- */

static void print_spread(FILE *to, const char *name, const json_t *spread, double mean,
                         const char *more)
{
    struct line line = {""};
    if (!json_is_object(spread))
        return;
    if (mean > 0) {
        add_time(&line, mean);
        add(&line, "; lately ");
    }
    add(&line, "median ");
    add_time(&line, said_number(spread, "median"));
    add(&line, ", p99 ");
    add_time(&line, said_number(spread, "p99"));
    add(&line, ", longest ");
    add_time(&line, said_number(spread, "most"));
    add(&line, "%s", more);
    put(to, name, &line);
}

/* Why epochs are longer than they would have to be. */
static void print_throttle(FILE *to, const json_t *protection)
{
    const char *reason = json_string_value(json_object_get(protection, "throttle"));
    struct line line = {""};
    if (!reason || !reason[0])
        return;
    if (strcmp(reason, "memory") == 0)
        add(&line, "the guest writes too much, and is slowed down by %.0f %%",
            said_number(protection, "throttle_percent"));
    else if (strcmp(reason, "twin") == 0)
        add(&line, "epochs wait for the twin");
    else
        add(&line, "epochs wait: pauses have had their share of the time");
    put(to, "throttle", &line);
}

static void print_primary(FILE *to, const json_t *protection, const struct protection_pace *given)
{
    const json_t *recent = json_object_get(protection, "recent");
    const struct protection_pace pace = given ? *given : recent_pace(recent);
    struct line line = {""};
    char share[64];
    /* What was so before it was left alone is no news. */
    if (said_number(recent, "epochs") < 1 || !json_is_true(json_object_get(protection, "gated")))
        return;
    add(&line, "%.0f, acknowledged to %.0f", said_number(protection, "epoch"),
        said_number(protection, "acked"));
    if (pace.epochs_per_s > 0)
        add(&line, "; %.1f a second", pace.epochs_per_s);
    put(to, "epochs", &line);
    snprintf(share, sizeof(share), "; %.1f %% of the time", pace.stood_still_percent);
    print_spread(to, "pauses", json_object_get(recent, "pause_us"), pace.pause_us, share);
    print_spread(to, "commit", json_object_get(recent, "commit_us"), pace.commit_us, "");
    line = (struct line){""};
    add_size(&line, pace.dirty_bytes_per_s);
    add(&line, "/s of memory written, ");
    add_size(&line, pace.wire_bytes_per_s);
    add(&line, "/s sent");
    put(to, "rates", &line);
    print_throttle(to, protection);
}

static void print_patience(FILE *to, const json_t *protection)
{
    struct line line = {""};
    const json_t *patience = json_object_get(protection, "patience_ms");
    if (!patience)
        return;
    add(&line, "after %.0f ms of silence the other one counts as gone",
        json_number_value(patience));
    put(to, "patience", &line);
}

static void print_held(FILE *to, const json_t *protection)
{
    struct line line = {""};
    if (!json_object_get(protection, "held_bytes"))
        return;
    add_size(&line, said_number(protection, "held_bytes"));
    add(&line, " wait%s",
        json_is_true(json_object_get(protection, "gated")) ? " for its twin"
                                                           : "; what it sends leaves at once");
    put(to, "held", &line);
}

/* Where it is at home, where that is said. */
static void print_home(FILE *to, const json_t *protection)
{
    const json_t *home = json_object_get(protection, "home");
    double in_s = said_number(home, "in_s");
    struct line line = {""};
    if (!home)
        return;
    add(&line, "%s: %s", said_text(home, "preferred"), said_text(home, "why"));
    if (in_s > 0)
        add(&line, ", in %.0f s at the earliest", in_s);
    put(to, "home", &line);
}

static void print_resync(FILE *to, const json_t *protection)
{
    const json_t *resync = json_object_get(protection, "resync");
    struct line line = {""};
    if (!resync || !json_is_true(json_object_get(protection, "gated")))
        return;
    add(&line, "its twin got ");
    add_size(&line, said_number(resync, "sent_bytes"));
    add(&line, " of ");
    add_size(&line, said_number(resync, "disk_bytes"));
    if (has_text(resync, "why"))
        add(&line, ", all that is not zero: %s", said_text(resync, "why"));
    else
        add(&line, ", what differs: it had the rest");
    put(to, "disks", &line);
}

static void print_twin(FILE *to, const json_t *protection)
{
    const json_t *twin = json_object_get(protection, "twin");
    struct line line = {""};
    if (!twin)
        return;
    if (!is_twin(protection)) {
        add(&line, "it was the twin, and took over in ");
        add_time(&line, said_number(twin, "takeover_ms") * 1000);
        put(to, "before", &line);
        return;
    }
    add(&line, "%.0f came, acknowledged to %.0f; the last one was applied in ",
        said_number(twin, "epochs"), said_number(protection, "acked"));
    add_time(&line, said_number(twin, "apply_us"));
    put(to, "epochs", &line);
    if (strcmp(said_text(twin, "memory"), "not locked") != 0)
        return;
    line = (struct line){""};
    add(&line, "not locked (RLIMIT_MEMLOCK): where this host swaps, a takeover may be slow");
    put(to, "memory", &line);
}

static void print_paths(FILE *to, const json_t *protection)
{
    size_t i;
    json_t *path;
    json_array_foreach(json_object_get(protection, "paths"), i, path)
    {
        struct line line = {""};
        bool alive = json_is_true(json_object_get(path, "alive"));
        add(&line, "%s, %s for %.0f s", said_text(path, "address"), alive ? "there" : "AWAY",
            said_number(path, "since_s"));
        if (json_is_true(json_object_get(path, "active")))
            add(&line, "; epochs go by it");
        put(to, i == 0 ? "paths" : "", &line);
    }
}

void protection_print(FILE *to, const json_t *protection, const struct protection_pace *pace)
{
    struct line line = {""};
    print_state(to, protection);
    add(&line, "%s", said_text(protection, "witness"));
    if (said_number(protection, "generation") > 0) /* else nobody has asked it yet */
        add(&line, ", generation %.0f", said_number(protection, "generation"));
    put(to, "witness", &line);
    line = (struct line){""};
    add(&line, "%s",
        strcmp(said_text(protection, "level"), "durable") == 0
            ? "durable: an epoch counts when its twin has it on its disk"
            : "memory: an epoch counts when its twin has it in its memory");
    put(to, "level", &line);
    print_paths(to, protection);
    print_primary(to, protection, pace);
    print_held(to, protection);
    print_patience(to, protection);
    print_home(to, protection);
    print_resync(to, protection);
    print_twin(to, protection);
}

/* --- lines ------------------------------------------------------------------------------------ */

static void add_pace(struct line *line, const json_t *protection,
                     const struct protection_pace *pace)
{
    const json_t *recent = json_object_get(protection, "recent");
    add(line, "; epoch %.0f, acknowledged %.0f, %.1f/s", said_number(protection, "epoch"),
        said_number(protection, "acked"), pace->epochs_per_s);
    add(line, "; pause ");
    add_time(line, pace->pause_us);
    add(line, " (p99 ");
    add_time(line, said_number(json_object_get(recent, "pause_us"), "p99"));
    add(line, "), commit ");
    add_time(line, pace->commit_us);
    add(line, " (p99 ");
    add_time(line, said_number(json_object_get(recent, "commit_us"), "p99"));
    add(line, "); written ");
    add_size(line, pace->dirty_bytes_per_s);
    add(line, "/s, sent ");
    add_size(line, pace->wire_bytes_per_s);
    add(line, "/s, held ");
    add_size(line, said_number(protection, "held_bytes"));
}

void protection_print_line(FILE *to, double at, const json_t *status,
                           const struct protection_pace *pace)
{
    const json_t *protection = json_object_get(status, "protection");
    const json_t *sync = json_object_get(protection, "sync");
    const char *state = said_text(protection, "state");
    struct line line = {""};
    add_clock(&line, at);
    add(&line, "%s", said_text(status, "state"));
    if (!protection)
        add(&line, ", not protected");
    else if (strcmp(protection_word(state), "protected") == 0)
        add(&line, ", protected");
    else if (!is_twin(protection))
        add(&line, ", not protected: %s", state);
    else
        add(&line, ": %s, acknowledged %.0f", state, said_number(protection, "acked"));
    if (has_text(protection, "why"))
        add(&line, " (%.300s)", said_text(protection, "why"));
    if (sync) {
        add(&line, "; its twin has ");
        add_sync(&line, sync);
    }
    if (pace && pace->epochs_per_s > 0)
        add_pace(&line, protection, pace);
    put(to, NULL, &line);
}

static void add_fields(struct line *line, const json_t *event)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)event, key, value)
    {
        if (strcmp(key, "event") == 0 || strcmp(key, "at") == 0)
            continue;
        if (json_is_string(value))
            add(line, ", %s: %s", key, json_string_value(value));
        else if (json_is_number(value))
            add(line, ", %s: %.15g", key, json_number_value(value));
    }
}

void protection_print_event(FILE *to, const json_t *event)
{
    static const char far[] = "-progress";
    const char *name = json_string_value(json_object_get(event, "event"));
    size_t length = name ? strlen(name) : 0;
    struct line line = {""};
    if (!name)
        return;
    if (length >= strlen(far) && strcmp(name + length - strlen(far), far) == 0)
        return;
    add_clock(&line, said_number(event, "at"));
    add(&line, "%s", name);
    if (strcmp(name, "protection") == 0) {
        add(&line, ": %s, generation %.0f", said_text(event, "state"),
            said_number(event, "generation"));
        if (has_text(event, "why"))
            add(&line, " (%.300s)", said_text(event, "why"));
    } else {
        add_fields(&line, event);
    }
    put(to, NULL, &line);
}

void protection_sum_up(char *ret_text, size_t size, const char *vm, const json_t *answer,
                       uint64_t bytes, double seconds)
{
    struct line line = {""};
    add(&line, "%s is protected: a twin follows at %s, ", vm, said_text(answer, "peer"));
    if (bytes) {
        add_size(&line, (double)bytes);
        add(&line, " went over in %.1f s", seconds);
    } else {
        add(&line, "ready after %.1f s", seconds);
    }
    add(&line, "; level %s, generation %.0f", said_text(answer, "level"),
        said_number(answer, "generation"));
    text_make_plain(line.text);
    snprintf(ret_text, size, "%s", line.text);
}

/* --- epochs ----------------------------------------------------------------------------------- */

static void add_cell_time(struct table *table, const json_t *epoch, const char *key)
{
    struct line line = {""};
    double us = said_number(epoch, key);
    if (us > 0)
        add_time(&line, us);
    table_add(table, us > 0 ? line.text : "-");
}

static void add_cell_size(struct table *table, const json_t *epoch, const char *key)
{
    struct line line = {""};
    add_size(&line, said_number(epoch, key));
    table_add(table, line.text);
}

void protection_print_epochs(const json_t *answer)
{
    static const char *const header[] = {"EPOCH", "CAUSE", "PAUSE", "STOP", "STATE",  "COPY",
                                         "GO ON", "PAGES", "DISKS", "WIRE", "COMMIT", NULL};
    static const char *const parts[] = {"pause_us", "stop_us", "state_us", "pages_us", "resume_us"};
    struct table table;
    json_t *epoch;
    size_t i;
    table_init(&table, header);
    json_array_foreach(json_object_get(answer, "epochs"), i, epoch)
    {
        table_addf(&table, "%.0f", said_number(epoch, "epoch"));
        table_add(&table, said_text(epoch, "cause"));
        for (size_t part = 0; part < array_size(parts); part++)
            add_cell_time(&table, epoch, parts[part]);
        table_addf(&table, "%.0f", said_number(epoch, "pages"));
        add_cell_size(&table, epoch, "disk_bytes");
        add_cell_size(&table, epoch, "wire_bytes");
        add_cell_time(&table, epoch, "commit_us");
    }
    table_print(&table);
    table_finish(&table);
}
