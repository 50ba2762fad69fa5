/* SPDX-License-Identifier: MIT */
#include "vmm/journal.h"
#include "core/clock.h"
#include "host/small_file.h"
#include "vmm/folder.h"
#include "vmm/journal_lines.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writing. */

enum {
    WORDS_MAX = 400, /* bytes of a reason */
    BOOT_ID_MAX = 64,
    SET_SECONDS = 1, /* by so much more or less it was set, and not only kept right */

    /* Seconds since 1970 with three digits behind the point, until the year 2286. */
    DIGITS = 13,
};

static double now_seconds(void)
{
    uint64_t ms = clock_wall_ns() / 1000000;

    return (double)ms / 1e3;
}

static double boot_seconds(void)
{
    uint64_t ms = clock_boot_ns() / 1000000;

    return (double)ms / 1e3;
}

/* Where the host does not say it, lines have the wall clock's time alone. */
static void find_boot(struct journal *journal)
{
    int random = open("/proc/sys/kernel/random", O_PATH | O_DIRECTORY | O_CLOEXEC);
    unsigned digits = 0;
    size_t length;
    char *text = NULL;

    if (random >= 0 && small_file_read_in(random, "boot_id", BOOT_ID_MAX, &text, &length) == 0)
        for (const char *c = text; *c && digits < JOURNAL_BOOT; c++)
            if (isxdigit((unsigned char)*c))
                journal->boot[digits++] = *c;
    free(text);
    if (random >= 0)
        close(random);
    if (digits < JOURNAL_BOOT)
        journal->boot[0] = '\0';
    journal->born = now_seconds() - boot_seconds();
}

/* What is no UTF-8 text becomes ASCII: a crash's reason may repeat what a guest had in memory. */
static json_t *make_words(const char *words)
{
    size_t length = strnlen(words, WORDS_MAX);
    char plain[WORDS_MAX];

    json_t *text = json_stringn(words, length);
    if (text)
        return text;
    for (size_t i = 0; i < length; i++)
        plain[i] = words[i] >= ' ' && words[i] <= '~' ? words[i] : '?';
    return json_stringn(plain, length);
}

/* One write: a line is there whole or torn at its end, and what was torn is taken back. */
static void write_line(struct journal *journal, const char *line, size_t length)
{
    struct stat before;

    if (fstat(journal->fd, &before) < 0) {
        journal->error = -errno;
        return;
    }
    ssize_t n = write(journal->fd, line, length);
    if (n == (ssize_t)length)
        return;
    journal->error = n < 0 ? -errno : -ENOSPC;
    if (n > 0 && ftruncate(journal->fd, before.st_size) < 0)
        journal->error = -errno;
}

/* Takes both over (NULL: no memory for them). */
static void write_fields(struct journal *journal, json_t *root, json_t *fields)
{
    char *text = NULL, *line = NULL;

    if (root && fields && json_object_update(root, fields) == 0)
        text = json_dumps(root, JSON_REAL_PRECISION(DIGITS));
    int length = text ? asprintf(&line, "%s\n", text) : -1;
    if (length > 0) {
        write_line(journal, line, (size_t)length);
        free(line);
    } else {
        journal->error = -ENOMEM;
    }
    free(text);
    json_decref(root);
    json_decref(fields);
}

/* Now. Takes fields over. */
static void write_event(struct journal *journal, const char *event, json_t *fields)
{
    double at = now_seconds(), since = boot_seconds();
    json_t *root;

    if (journal->fd < 0) {
        json_decref(fields);
        return;
    }
    journal->born = at - since;
    if (journal->boot[0])
        root = json_pack("{s:f, s:s, s:f, s:s}", "at", at, "boot", journal->boot, "since_boot",
                         since, "event", event);
    else
        root = json_pack("{s:f, s:s}", "at", at, "event", event);
    write_fields(journal, root, fields);
}

void journal_start(struct journal *journal)
{
    write_event(journal, "start", json_pack("{s:I}", "pid", (json_int_t)getpid()));
}

void journal_stop(struct journal *journal, const char *by)
{
    write_event(journal, "stop", json_pack("{s:o}", "by", make_words(by)));
}

void journal_crash(struct journal *journal, const char *reason)
{
    write_event(journal, "crash", json_pack("{s:o}", "reason", make_words(reason)));
}

void journal_pause(struct journal *journal, const char *why, uint64_t ms)
{
    if (ms <= JOURNAL_PAUSE_MS)
        return;
    json_int_t said = ms < INT64_MAX ? (json_int_t)ms : INT64_MAX;
    write_event(journal, "pause", json_pack("{s:I, s:o}", "ms", said, "why", make_words(why)));
}

void journal_say(struct journal *journal, const char *event, json_t *fields)
{
    write_event(journal, event, fields);
}

void journal_tick(struct journal *journal)
{
    double born = now_seconds() - boot_seconds();

    if (journal->fd >= 0 && journal->boot[0] && fabs(born - journal->born) > SET_SECONDS)
        write_event(journal, "clock", json_object());
    if (journal->fd >= 0 && futimens(journal->fd, NULL) < 0)
        journal->error = -errno;
}

/* Opening. */

/* Where the last run has not ended, says so; a torn last line gets its end first. */
static int say_lost(struct journal *journal, struct err *err)
{
    struct journal_tail tail;
    struct stat stat;

    if (fstat(journal->fd, &stat) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot read " FOLDER_JOURNAL);
    int r = journal_read_tail(journal->fd, stat.st_size, &tail);
    if (r < 0)
        return err_sys(err, ERR_FAILED, -r, "cannot read " FOLDER_JOURNAL);
    if (tail.torn)
        write_line(journal, "\n", 1);
    if (tail.running) {
        /* The file's clock is a coarse one, and may lie a few ms before the last line's. */
        double at = journal_file_time(&stat), now = now_seconds();
        at = at > tail.last_at ? at : tail.last_at;
        write_fields(journal, json_pack("{s:f, s:s}", "at", at < now ? at : now, "event", "lost"),
                     json_object());
    }
    if (journal->error)
        return err_sys(err, ERR_FAILED, -journal->error, "cannot write " FOLDER_JOURNAL);
    return 0;
}

int journal_open(struct journal *ret_journal, int folder_fd, struct err *err)
{
    struct journal journal = {.fd = small_file_append(folder_fd, FOLDER_JOURNAL, 0644)};

    if (journal.fd == -EINVAL || journal.fd == -EMLINK)
        return err_say(err, ERR_FAILED, -journal.fd, FOLDER_JOURNAL " is %s",
                       journal.fd == -EINVAL ? "no plain file" : "a hard link to some other file");
    if (journal.fd < 0)
        return err_sys(err, ERR_FAILED, -journal.fd, "cannot open " FOLDER_JOURNAL);
    find_boot(&journal);
    int r = say_lost(&journal, err);
    if (r < 0) {
        close(journal.fd);
        return r;
    }
    *ret_journal = journal;
    return 0;
}

/* From the first whole line on, where the beginning is missing. */
static int copy_lines(int from, off_t size, struct journal *to)
{
    off_t begin = size > JOURNAL_INHERITED ? size - JOURNAL_INHERITED : 0;
    size_t length = (size_t)(size - begin), skipped = 0;

    char *bytes = malloc(length + 1);
    if (!bytes)
        return -ENOMEM;
    ssize_t n = pread(from, bytes, length, begin);
    int r = n == (ssize_t)length ? 0 : n < 0 ? -errno : -EIO;
    const char *newline = begin > 0 && r == 0 ? memchr(bytes, '\n', length) : NULL;
    if (newline)
        skipped = (size_t)(newline + 1 - bytes);
    if (r == 0 && length > skipped)
        write_line(to, bytes + skipped, length - skipped);
    free(bytes);
    return r < 0 ? r : to->error;
}

int journal_inherit(int from_folder, int to_folder, struct err *err)
{
    struct journal from = {.fd = -1}, to = {.fd = -1};
    struct stat stat;

    int r = journal_open(&from, from_folder, err);
    if (r == 0)
        r = journal_open(&to, to_folder, err);
    int fd = r == 0 ? openat(from_folder, FOLDER_JOURNAL, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (r == 0 && (fd < 0 || fstat(fd, &stat) < 0))
        r = err_sys(err, ERR_FAILED, errno, "cannot read " FOLDER_JOURNAL);
    int copied = r == 0 ? copy_lines(fd, stat.st_size, &to) : 0;
    if (copied < 0)
        r = err_sys(err, ERR_FAILED, -copied, "cannot copy " FOLDER_JOURNAL);
    if (fd >= 0)
        close(fd);
    journal_close(&from);
    journal_close(&to);
    return r;
}

bool journal_is_of_a_run(int folder_fd)
{
    struct journal_tail tail = {0};
    struct stat stat;

    int fd = openat(folder_fd, FOLDER_JOURNAL, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool good = fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) &&
                journal_read_tail(fd, stat.st_size, &tail) == 0;
    close(fd);
    return good && tail.running;
}

void journal_close(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    *journal = (struct journal){.fd = -1};
}
