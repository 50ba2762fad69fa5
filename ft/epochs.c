/* SPDX-License-Identifier: MIT */
#include "ft/epochs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int epochs_init(struct epochs *epochs, struct err *err)
{
    *epochs = (struct epochs){.ring = calloc(EPOCHS_KEPT, sizeof(*epochs->ring))};
    if (!epochs->ring)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot keep a record of epochs");
    pthread_mutex_init(&epochs->lock, NULL);
    return 0;
}

void epochs_finish(struct epochs *epochs)
{
    if (!epochs->ring)
        return;
    pthread_mutex_destroy(&epochs->lock);
    free(epochs->ring);
    epochs->ring = NULL;
}

void epochs_add(struct epochs *epochs, const struct epoch_record *record)
{
    pthread_mutex_lock(&epochs->lock);
    epochs->ring[record->epoch % EPOCHS_KEPT] = *record;
    epochs->last_epoch = record->epoch;
    epochs->count++;
    epochs->pages += record->pages;
    histogram_add(&epochs->pauses, record->pause_ns);
    pthread_mutex_unlock(&epochs->lock);
}

/* NULL: it is not there any more. */
static struct epoch_record *find(struct epochs *epochs, uint64_t epoch)
{
    struct epoch_record *record = &epochs->ring[epoch % EPOCHS_KEPT];
    return epoch != 0 && record->epoch == epoch ? record : NULL;
}

void epochs_note_sent(struct epochs *epochs, uint64_t epoch, uint64_t send_ns, uint64_t wire_bytes,
                      const uint64_t kinds[4])
{
    pthread_mutex_lock(&epochs->lock);
    struct epoch_record *record = find(epochs, epoch);
    epochs->wire_bytes += wire_bytes;
    if (record) {
        record->send_ns = send_ns;
        record->wire_bytes = wire_bytes;
        memcpy(record->kinds, kinds, sizeof(record->kinds));
    }
    pthread_mutex_unlock(&epochs->lock);
}

void epochs_note_acked(struct epochs *epochs, uint64_t epoch, uint64_t now, uint64_t line_ns)
{
    pthread_mutex_lock(&epochs->lock);
    struct epoch_record *record = find(epochs, epoch);
    if (record && record->commit_ns == 0) {
        record->commit_ns = now - record->began_ns;
        /* less: it goes by the link's other path now */
        record->line_ns = line_ns > record->line_ns ? line_ns - record->line_ns : 0;
        histogram_add(&epochs->commits, record->commit_ns);
    }
    pthread_mutex_unlock(&epochs->lock);
}

void epochs_read_total(struct epochs *epochs, struct epochs_total *ret_total)
{
    pthread_mutex_lock(&epochs->lock);
    ret_total->count = epochs->count;
    ret_total->pages = epochs->pages;
    ret_total->wire_bytes = epochs->wire_bytes;
    histogram_read(&epochs->pauses, &ret_total->pauses);
    histogram_read(&epochs->commits, &ret_total->commits);
    pthread_mutex_unlock(&epochs->lock);
}

bool epochs_find(struct epochs *epochs, uint64_t epoch, struct epoch_record *ret_record)
{
    pthread_mutex_lock(&epochs->lock);
    const struct epoch_record *record = find(epochs, epoch);
    if (record)
        *ret_record = *record;
    pthread_mutex_unlock(&epochs->lock);
    return record;
}

/* --- for people ------------------------------------------------------------------------------- */

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static const char *cause_name(enum epoch_cause cause)
{
    static const char *const names[] = {
        [EPOCH_OUTPUT] = "output", [EPOCH_TIME] = "time",   [EPOCH_DISK] = "disk",
        [EPOCH_SET] = "set",       [EPOCH_FIRST] = "first", [EPOCH_LAST] = "last"};
    return names[cause];
}

static json_t *describe(const struct epoch_record *record)
{
    return json_pack(
        "{sI, ss, sf, sf, sf, sf, sf, sf, sf, sf, sI, sI, sI, sI, sI, sI, sI, sI}", "epoch",
        (json_int_t)record->epoch, "cause", cause_name(record->cause), "pause_us",
        us(record->pause_ns), "stop_us", us(record->stop_ns), "state_us", us(record->state_ns),
        "pages_us", us(record->pages_ns), "resume_us", us(record->resume_ns), "send_us",
        us(record->send_ns), "commit_us", us(record->commit_ns), "line_us",
        us(record->commit_ns ? record->line_ns : 0), "pages", (json_int_t)record->pages,
        "wire_bytes", (json_int_t)record->wire_bytes, "disk_bytes", (json_int_t)record->disk_bytes,
        "held_bytes", (json_int_t)record->held_bytes, "zero_pages", (json_int_t)record->kinds[0],
        "raw_pages", (json_int_t)record->kinds[1], "lz4_pages", (json_int_t)record->kinds[2],
        "delta_pages", (json_int_t)record->kinds[3]);
}

static uint64_t available(const struct epochs *epochs, unsigned most)
{
    uint64_t count = epochs->count < EPOCHS_KEPT ? epochs->count : EPOCHS_KEPT;
    return count < most ? count : most;
}

json_t *epochs_list(struct epochs *epochs, unsigned most)
{
    json_t *list = json_array();
    pthread_mutex_lock(&epochs->lock);
    for (uint64_t i = available(epochs, most); i-- > 0;) {
        const struct epoch_record *record = find(epochs, epochs->last_epoch - i);
        if (record)
            json_array_append_new(list, describe(record));
    }
    pthread_mutex_unlock(&epochs->lock);
    return list;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* {"median", "p99", "most"} of what is sorted here. */
static json_t *spread(uint64_t *values, size_t count)
{
    if (count == 0)
        return json_null();
    qsort(values, count, sizeof(*values), compare);
    return json_pack("{sf, sf, sf}", "median", us(values[count / 2]), "p99",
                     us(values[count * 99 / 100]), "most", us(values[count - 1]));
}

json_t *epochs_sum_up(struct epochs *epochs, unsigned window)
{
    uint64_t *pauses = calloc(2 * (size_t)window + 1, sizeof(*pauses));
    uint64_t *commits = pauses ? pauses + window : NULL;
    size_t pause_count = 0, commit_count = 0;
    uint64_t pages = 0, wire = 0, first = 0, last = 0, stood = 0;
    pthread_mutex_lock(&epochs->lock);
    for (uint64_t i = pauses ? available(epochs, window) : 0; i-- > 0;) {
        const struct epoch_record *record = find(epochs, epochs->last_epoch - i);
        if (!record)
            continue;
        pauses[pause_count++] = record->pause_ns;
        if (record->commit_ns)
            commits[commit_count++] = record->commit_ns;
        pages += record->pages;
        wire += record->wire_bytes;
        stood += record->pause_ns;
        first = first ? first : record->began_ns;
        last = record->began_ns;
    }
    pthread_mutex_unlock(&epochs->lock);
    double seconds = last > first ? (double)(last - first) / 1e9 : 0;
    json_t *sum = json_pack("{sI, so, so, sf, sf, sf, sf}", "epochs", (json_int_t)pause_count,
                            "pause_us", spread(pauses, pause_count), "commit_us",
                            spread(commits, commit_count), "epochs_per_s",
                            seconds > 0 ? (double)pause_count / seconds : 0, "dirty_bytes_per_s",
                            seconds > 0 ? (double)pages * 4096 / seconds : 0, "wire_bytes_per_s",
                            seconds > 0 ? (double)wire / seconds : 0, "stood_still_percent",
                            seconds > 0 ? (double)stood / 1e7 / seconds : 0);
    free(pauses);
    return sum;
}
