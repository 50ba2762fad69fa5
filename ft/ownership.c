/* SPDX-License-Identifier: MIT */
#include "ft/ownership.h"

#include "ft/asker.h"
#include "ft/moving.h"
#include "host/link.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 3000 };

/* --- may it be taken? ------------------------------------------------------------------------- */

static int find_protection(struct ownership *ownership, const struct folder *folder,
                           struct err *err)
{
    int ret = protection_find(&ownership->protection, folder, err);
    if (ret == -ENOENT || ret == -ESTALE ||
        (ret == 0 && ownership->protection.role == PROTECTION_OFF)) {
        ret = err_say(err, ERR_STATE, EINVAL, "%s is not protected, and nobody else owns it",
                      folder->name);
        err_hint(err, "minivmm run %s", folder->name);
    }
    return ret;
}

/* An epoch goes to a twin's disks block by block; only the journal of the level durable ends what
 * its host's end has cut off. */
static int check_whole(const struct ownership *ownership, bool torn, struct err *err)
{
    const struct protection *protection = &ownership->protection;
    if (protection->role != PROTECTION_TWIN || protection->durable || torn)
        return 0;
    int ret = err_say(err, ERR_STATE, EINVAL,
                      "%s was a twin at the level memory: its disks may have one part of an epoch "
                      "and lack the other",
                      ownership->name);
    err_hint(err,
             "where that is better than nothing: minivmm run %s --force-owner --torn, and "
             "have the guest check its file systems",
             ownership->name);
    return ret;
}

static int say_no_witness(const struct ownership *ownership, bool hangs, struct err *err)
{
    if (err) {
        err->kind = ERR_STATE;
        err_prefix(err, "%s cannot be taken without the witness", ownership->name);
    }
    if (err && !hangs)
        err_hint(err, "nobody else could tell the other host; where the witness is gone for good, "
                      "see \"After a power cut of both hosts\" in fault-tolerance.md");
    return -ESTALE;
}

static struct asker_look look_of(const struct protection *protection)
{
    return (struct asker_look){.witness = protection->witness,
                               .uuid = protection->uuid,
                               .known = true,
                               .patience_ms = ASKER_LOOK_MS};
}

static int read_record(struct ownership *ownership, struct err *err)
{
    const struct protection *protection = &ownership->protection;
    struct asker_look look = look_of(protection);
    int ret = asker_look(&look, &ownership->record, err);
    if (ret < 0)
        return say_no_witness(ownership, ret == -ETIMEDOUT, err);
    look.patience_ms = PATIENCE_MS; /* it can be taken without */
    if (asker_since(&look, ownership->record.generation, &ownership->since) < 0)
        ownership->since = 0;
    return 0;
}

/* Who has a newer record than the witness does not believe what it says now. */
static int check_record(const struct ownership *ownership, struct err *err)
{
    const struct ft_record *record = &ownership->record;
    if (record->generation >= ownership->protection.generation && record->generation > 0 &&
        record->owner != ownership->protection.node)
        return 0;
    int ret = protection_judge(&ownership->protection, record, ownership->name, err);
    if (ret < 0)
        return ret;
    ret = err_say(err, ERR_STATE, EALREADY, "%s is this folder's already (generation %llu)",
                  ownership->name, (unsigned long long)record->generation);
    err_hint(err, "minivmm run %s", ownership->name);
    return ret;
}

/* --- the other side --------------------------------------------------------------------------- */

/* The answer, or -errno: nobody does. */
static int ask_at(const struct ownership *ownership, const struct link_config *config,
                  struct err *err)
{
    uint8_t question[2 * MOVING_TICKET] = {0};
    struct stream_buffer payload;
    struct link *link;
    int ret = link_connect(&link, ownership->protection.peer, config, err);
    if (ret < 0)
        return ret;
    memcpy(question, ownership->protection.uuid, sizeof(ownership->protection.uuid));
    stream_buffer_init(&payload, 0);
    moving_put(link_writer(link), FRAME_ASK, question, sizeof(question));
    ret = stream_flush(link_writer(link)) < 0
              ? err_say(err, ERR_FAILED, EPIPE, "the connection is lost")
              : moving_wait_ack(link_reader(link), &payload, err);
    stream_buffer_finish(&payload);
    link_destroy(link);
    return ret;
}

static void ask_peer(struct ownership *ownership)
{
    const struct protection *protection = &ownership->protection;
    struct link_key key = {0};
    const struct link_config config = {.key = protection->key[0] ? &key : NULL,
                                       .insecure = protection->insecure,
                                       .timeout_ms = PATIENCE_MS};
    ownership->peer = OWNERSHIP_NO_PEER;
    if (!protection->peer[0])
        return;
    int ret = protection->key[0] ? link_key_read(&key, protection->key, &ownership->silence) : 0;
    if (ret == 0)
        ret = ask_at(ownership, &config, &ownership->silence);
    explicit_bzero(&key, sizeof(key));
    ownership->peer = ret == FRAME_YOURS      ? OWNERSHIP_RUNS
                      : ret < 0               ? OWNERSHIP_SILENT
                      : ret == FRAME_NOT_MINE ? OWNERSHIP_ANSWERS
                                              : OWNERSHIP_UNSURE;
}

static int say_runs(const struct ownership *ownership, struct err *err)
{
    int ret = err_say(err, ERR_STATE, EBUSY, "%s runs at %s, which answers", ownership->name,
                      ownership->protection.peer);
    err_hint(err,
             "to have it here: 'minivmm standby' here, and when it is paired 'minivmm "
             "switchover %s' there",
             ownership->name);
    return ret;
}

/* A folder whose record cannot be read may be the one, where a process has it. */
static enum frame_ack look_into(int folder, const uint8_t uuid[16])
{
    struct protection protection;
    char path[PATH_MAX];
    int ret = protection_read(&protection, folder, NULL);
    bool ours = ret == 0 && memcmp(protection.uuid, uuid, sizeof(protection.uuid)) == 0;
    if (ret == -ENOENT || (ret == 0 && !ours))
        return FRAME_NOT_MINE;
    if (faccessat(folder, FOLDER_IDENTITY, R_OK, AT_EACCESS) < 0 && errno != ENOENT)
        return FRAME_UNKNOWN; /* its lock */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", folder);
    if (!folder_is_locked(path))
        return FRAME_NOT_MINE;
    return ours ? FRAME_YOURS : FRAME_UNKNOWN;
}

static enum frame_ack ask_folder(int place, const char *name, const uint8_t uuid[16])
{
    int folder = openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) /* a file, a link, or gone; else it cannot be looked into */
        return errno == ENOTDIR || errno == ELOOP || errno == ENOENT ? FRAME_NOT_MINE
                                                                     : FRAME_UNKNOWN;
    enum frame_ack answer = look_into(folder, uuid);
    close(folder);
    return answer;
}

static enum frame_ack ask_all(DIR *list, int place, const uint8_t uuid[16])
{
    enum frame_ack answer = FRAME_NOT_MINE;
    const struct dirent *entry;
    for (errno = 0; (entry = readdir(list)); errno = 0) {
        if (entry->d_name[0] == '.')
            continue;
        enum frame_ack one = ask_folder(place, entry->d_name, uuid);
        if (one == FRAME_YOURS)
            return one;
        if (one == FRAME_UNKNOWN)
            answer = one;
    }
    return errno ? FRAME_UNKNOWN : answer;
}

enum frame_ack ownership_answer(int place, const uint8_t uuid[16])
{
    int copy = openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
    if (!list) {
        if (copy >= 0)
            close(copy);
        return FRAME_UNKNOWN;
    }
    enum frame_ack answer = ask_all(list, place, uuid);
    closedir(list);
    return answer;
}

/* --- all of it -------------------------------------------------------------------------------- */

int ownership_look(struct ownership *ret_ownership, const struct folder *folder, bool torn,
                   struct err *err)
{
    struct ownership *ownership = ret_ownership;
    *ownership = (struct ownership){.name = folder->name};
    int ret = find_protection(ownership, folder, err);
    if (ret == 0)
        ret = read_record(ownership, err);
    if (ret == 0)
        ret = check_record(ownership, err);
    if (ret == 0)
        ret = check_whole(ownership, torn, err);
    if (ret < 0)
        return ret;
    ask_peer(ownership);
    return ownership->peer == OWNERSHIP_RUNS ? say_runs(ownership, err) : 0;
}

/* What was asked for may take place when nobody waits any more; then it runs here by itself. */
static int say_not_known(const struct ownership *ownership, struct err *err)
{
    if (err) {
        err->kind = ERR_STATE;
        err_prefix(err, "whose %s is now is not known", ownership->name);
        err_hint(err, "minivmm run %s says so when the witness answers", ownership->name);
    }
    return -ETIMEDOUT;
}

int ownership_take(struct ownership *ownership, int folder, struct err *err)
{
    struct protection taken = ownership->protection;
    struct ft_record is, next = {.generation = ownership->record.generation + 1,
                                 .owner = taken.node,
                                 .twin = FT_FORCED};
    const struct asker_look look = look_of(&taken);
    int ret = asker_exchange(&look, ownership->record.generation, &next, &is, err);
    if (ret == -ETIMEDOUT)
        return say_not_known(ownership, err);
    if (ret == -EAGAIN)
        return err_say(err, ERR_STATE, EAGAIN,
                       "whose %s is has changed just now (generation %llu): somebody is there",
                       ownership->name, (unsigned long long)is.generation);
    if (ret < 0)
        return ret;
    taken.role = PROTECTION_OWNER;
    taken.generation = next.generation;
    taken.peer_node = ownership->record.owner;
    ret = protection_write(folder, &taken, err);
    if (ret == 0) {
        ownership->protection = taken;
        ownership->record = next;
    }
    return ret;
}
