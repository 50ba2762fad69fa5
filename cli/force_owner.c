/* SPDX-License-Identifier: MIT */
#include "cli/force_owner.h"

#include "cli/hold.h"
#include "cli/table.h"
#include "core/log.h"
#include "ft/handover.h"
#include "ft/ownership.h"
#include "vmm/definition.h"
#include "vmm/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TIME_TEXT = 32 };

/* --- what the person reads -------------------------------------------------------------------- */

static const char *time_text(int64_t seconds, char text[TIME_TEXT])
{
    format_time((double)seconds, true, text, TIME_TEXT);
    return text;
}

/* 0: not known. */
static int64_t last_written(const struct folder *folder)
{
    const struct definition_judge judge = {0};
    struct definition *definition;
    struct stat stat;
    int64_t last = 0;
    if (definition_load(&definition, folder->path, &judge, NULL) < 0)
        return 0;
    for (unsigned i = 0; i < definition->disk_count; i++)
        if (fstatat(folder->fd, definition->disks[i].path, &stat, 0) == 0 && stat.st_mtime > last)
            last = stat.st_mtime;
    definition_destroy(definition);
    if (fstatat(folder->fd, FOLDER_EPOCHS, &stat, AT_SYMLINK_NOFOLLOW) == 0 && stat.st_mtime > last)
        last = stat.st_mtime;
    return last;
}

static const char *owner_name(const struct ownership *ownership)
{
    const struct protection *protection = &ownership->protection;
    bool is_peer = ownership->record.owner == protection->peer_node && protection->peer[0];
    return is_peer ? protection->peer : "another host";
}

static void tell_owner(const struct ownership *ownership)
{
    const struct ft_record *record = &ownership->record;
    char text[TIME_TEXT] = "";
    fprintf(stderr, "%s belongs to %s (node %016llx, generation %llu%s%s), %s.\n", ownership->name,
            owner_name(ownership), (unsigned long long)record->owner,
            (unsigned long long)record->generation, ownership->since ? " since " : "",
            ownership->since ? time_text(ownership->since, text) : "",
            record->twin == FT_FORCED ? "for which somebody has taken it"
            : record->twin            ? "and had a twin"
                                      : "and had no twin");
}

static void tell_here(const struct ownership *ownership, const struct folder *folder)
{
    const struct protection *protection = &ownership->protection;
    char text[TIME_TEXT] = "";
    int64_t last = last_written(folder);
    fprintf(stderr, "This folder %s generation %llu",
            protection->role == PROTECTION_TWIN ? "has followed it since" : "was its owner until",
            (unsigned long long)protection->generation);
    if (last)
        fprintf(stderr, "; its disks were written last at %s", time_text(last, text));
    fprintf(stderr, ".\n");
}

static void tell_peer(const struct ownership *ownership)
{
    const char *peer = ownership->protection.peer;
    if (ownership->peer == OWNERSHIP_ANSWERS)
        fprintf(stderr, "%s answers: a standby is there, in whose folder the VM does not run.\n",
                peer);
    else if (ownership->peer == OWNERSHIP_UNSURE)
        fprintf(stderr,
                "%s answers: a standby is there, which cannot read all of its folders; whether the "
                "VM runs there is not known.\n"
                "See there first: 'minivmm list' says what runs, 'minivmm status' what is damaged "
                "or not its user's to read.\n",
                peer);
    else if (ownership->peer == OWNERSHIP_SILENT)
        fprintf(stderr, "%s does not answer: %s.\n", peer, ownership->silence.text);
    else
        fprintf(stderr, "Where the other host is this folder does not know.\n");
}

static void tell_loss(const struct ownership *ownership)
{
    bool followed = ownership->protection.role == PROTECTION_TWIN;
    if (followed && ownership->protection.durable && ownership->record.twin)
        fprintf(stderr, "Lost is what the VM has done since then. Where this folder is the twin "
                        "that it had, nobody has been told of that.\n");
    else
        fprintf(stderr, "Lost is what the VM has done since then, also what others have been told "
                        "of.\n");
    fprintf(stderr,
            "When the other host comes back it becomes the twin, and its own changes are gone.\n"
            "It must be off, or reach the witness: where it does neither, and runs the VM, both "
            "run.\n");
}

/* --- what the person says --------------------------------------------------------------------- */

/* Byte by byte: what comes behind the line is for the guest. */
static bool read_line(char *ret_line, size_t size)
{
    size_t length = 0;
    char byte;
    ssize_t n;
    while ((n = read(STDIN_FILENO, &byte, 1)) == 1 && byte != '\n')
        if (length + 1 < size)
            ret_line[length++] = byte;
        else
            ret_line[0] = '\0'; /* too long: whatever it is, it is not the name */
    ret_line[length] = '\0';
    return n == 1;
}

static int ask_name(const char *name, struct err *err)
{
    char line[NAME_MAX + 2];
    fprintf(stderr, "Type the VM's name to take it: ");
    fflush(stderr);
    bool any = read_line(line, sizeof(line));
    if (!any || !isatty(STDIN_FILENO))
        fputc('\n', stderr);
    if (any && strcmp(line, name) == 0)
        return 0;
    int ret = err_say(err, ERR_USAGE, ECANCELED, "%s stays its owner's: its name was not typed",
                      name);
    err_hint(err, "one line with %s and nothing else, on standard input", name);
    return ret;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void note(const struct folder *folder, uint64_t generation)
{
    struct journal journal = {.fd = -1};
    struct err err = {0};
    if (journal_open(&journal, folder->fd, &err) < 0)
        log_err(LOG_WARNING, &err);
    journal_say(&journal, "forced", json_pack("{s:I}", "generation", (json_int_t)generation));
    journal_close(&journal);
}

static int take(const struct folder *folder, bool torn, struct err *err)
{
    struct ownership ownership = {0};
    char owner[sizeof(ownership.protection.peer)];
    int ret = ownership_look(&ownership, folder, torn, err);
    if (ret == 0) {
        tell_owner(&ownership);
        tell_here(&ownership, folder);
        tell_peer(&ownership);
        tell_loss(&ownership);
        ret = ask_name(folder->name, err);
    }
    snprintf(owner, sizeof(owner), "%s", ret == 0 ? owner_name(&ownership) : "");
    if (ret == 0)
        ret = ownership_take(&ownership, folder->fd, err);
    if (ret == 0) {
        note(folder, ownership.record.generation);
        log_warning("%s is taken from %s (generation %llu); it begins in some seconds, when its "
                    "owner has had the time to hear of that",
                    folder->name, owner, (unsigned long long)ownership.record.generation);
    }
    return ret;
}

int force_owner(const char *path, bool torn, struct err *err)
{
    struct folder folder = {.fd = -1, .lock = -1};
    int ret = folder_open(&folder, path, err);
    if (ret == 0)
        ret = hold_vm(&folder, err);
    if (ret == -EBUSY)
        err_hint(err, "where it is the twin that has a process here, its owner lives: 'minivmm "
                      "switchover' there");
    if (ret == 0)
        ret = handover_check(folder.fd, folder.path, err);
    if (ret == 0)
        ret = take(&folder, torn, err);
    folder_close(&folder);
    return ret;
}
