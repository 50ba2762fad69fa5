/* SPDX-License-Identifier: MIT */
#include "ft/protection.h"

#include "ft/asker.h"
#include "host/small_file.h"
#include "vmm/identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* --- the file --------------------------------------------------------------------------------- */

static int say_damaged(const char *what, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EBADMSG, FOLDER_PROTECTED " is damaged: %s", what);

    err_hint(err, "it says which witness knows who may run the VM: where that runs nowhere else, "
                  "and never will again, remove it");
    return r;
}

int protection_read(struct protection *ret_protection, int folder, struct err *err)
{
    size_t length;
    char *text;

    int r = small_file_read_in(folder, FOLDER_PROTECTED, PROTECTION_TEXT_MAX, &text, &length);
    if (r == -ENOENT)
        return r;
    if (r == -EFBIG)
        return say_damaged("it is too long", err);
    if (r == -EINVAL || r == -ELOOP)
        return say_damaged("it is no plain file", err);
    if (r < 0)
        return err_sys(err, ERR_FAILED, -r, "cannot read " FOLDER_PROTECTED);
    const char *wrong = protection_parse(ret_protection, text, length);
    free(text);
    return wrong ? say_damaged(wrong, err) : 0;
}

int protection_write(int folder, const struct protection *protection, struct err *err)
{
    const char *wrong = protection_find_wrong(protection);
    char *text = wrong ? NULL : protection_format(protection);

    if (wrong)
        return err_say(err, ERR_FAILED, EINVAL, "cannot write " FOLDER_PROTECTED ": %s", wrong);
    if (!text)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot write " FOLDER_PROTECTED);
    const struct small_file file = {
        .bytes = text, .length = strlen(text), .durable = true, .spare = FOLDER_SPARE};
    int r = small_file_replace(folder, FOLDER_PROTECTED, &file, err);
    free(text);
    return r;
}

int protection_remove(int folder, struct err *err)
{
    unlinkat(folder, FOLDER_SPARE, 0); /* nobody reads it */
    if ((unlinkat(folder, FOLDER_PROTECTED, 0) < 0 && errno != ENOENT) || fsync(folder) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot remove " FOLDER_PROTECTED);
    return 0;
}

int protection_find(struct protection *ret_protection, const struct folder *folder, struct err *err)
{
    struct protection protection;
    struct identity identity = {0};

    int r = protection_read(&protection, folder->fd, err);
    if (r < 0 && r != -ENOENT)
        err_prefix(err, "%s", folder->name);
    if (r < 0)
        return r;
    r = identity_read(&identity, folder, err);
    if (r < 0 && r != -ENOENT)
        return r;
    bool is_ours = r == 0 && memcmp(identity.uuid, protection.uuid, 16) == 0 &&
                   !identity_is_copied(folder);
    identity_finish(&identity);
    if (!is_ours)
        return -ESTALE;
    *ret_protection = protection;
    return 0;
}

int protection_draw_node(uint64_t *ret_node, struct err *err)
{
    uint64_t node = 0;

    while (node == 0)
        if (getrandom(&node, sizeof(node), 0) != sizeof(node) && errno != EINTR)
            return err_sys(err, ERR_HOST, errno, "cannot draw a random number");
    *ret_node = node;
    return 0;
}

/* --- who may run it --------------------------------------------------------------------------- */

static int say_old(const struct protection *protection, const struct ft_record *record,
                   const char *name, struct err *err)
{
    int r = err_say(err, ERR_STATE, ESTALE,
                    "who may run %s is not known: the witness says generation %llu, and it was %llu"
                    " already",
                    name, (unsigned long long)record->generation,
                    (unsigned long long)protection->generation);

    err_hint(
        err,
        "the witness's records were lost, or an old copy of them brought back: look "
        "where the VM runs; if nowhere, remove its record at the witness, and " FOLDER_PROTECTED
        " in the folder that shall go on");
    return r;
}

static int say_owned(const struct protection *protection, const struct ft_record *record,
                     const char *name, struct err *err)
{
    bool is_peer = record->owner == protection->peer_node && protection->peer[0];
    const char *where = is_peer ? protection->peer : "another host";
    unsigned long long generation = record->generation;
    int r;

    if (protection->role == PROTECTION_TWIN) {
        r = err_say(err, ERR_STATE, EBUSY, "%s is a twin: the VM runs at %s (generation %llu)",
                    name, where, generation);
        if (record->twin == 0) /* it was lost, or was let go by unprotect */
            err_hint(err,
                     "it has no twin now, and what this folder has is older: with 'minivmm "
                     "standby' here it becomes the twin again, after an unprotect by minivmm "
                     "protect %s there; where that host is gone for good: minivmm run %s "
                     "--force-owner",
                     name, name);
        else
            err_hint(err,
                     "it takes over by itself, as long as 'minivmm standby' runs here; where that "
                     "host is gone for good: minivmm run %s --force-owner",
                     name);
    } else {
        r = err_say(err, ERR_STATE, EBUSY,
                    "%s belongs to %s, which has taken it over (generation %llu)", name, where,
                    generation);
        err_hint(err,
                 "it runs there, and what this folder has is older; with 'minivmm standby' "
                 "here it becomes the twin; where that host is gone for good: minivmm run %s "
                 "--force-owner",
                 name);
    }
    return r;
}

int protection_judge(const struct protection *protection, const struct ft_record *record,
                     const char *name, struct err *err)
{
    if (record->generation < protection->generation)
        return say_old(protection, record, name, err);
    if (record->generation == 0 && protection->role == PROTECTION_TWIN)
        return err_say(err, ERR_STATE, EBUSY,
                       "%s is a twin, and the witness knows nothing of its VM", name);
    if (record->generation == 0 || record->owner == protection->node)
        return 0;
    return say_owned(protection, record, name, err);
}

/* Whatever is wrong with the witness: the VM may run elsewhere. */
static void say_no_answer(const char *name, bool hangs, bool waits, struct err *err)
{
    if (!err)
        return;
    err->kind = ERR_STATE;
    err_prefix(err, "who may run %s is not known", name);
    if (hangs && waits)
        err_hint(err, "does its storage hang, or the way to it? %s starts when the witness answers",
                 name);
    else if (!err->hint[0])
        err_hint(err, "it starts when the witness answers");
}

int protection_check(const struct protection *protection, const char *name, bool *ret_asks,
                     struct err *err)
{
    const struct asker_look look = {
        .witness = protection->witness, .uuid = protection->uuid, .patience_ms = ASKER_LOOK_MS};
    struct ft_record record;

    if (protection->role == PROTECTION_OFF)
        return 0;
    int r = asker_look(&look, &record, err);
    if (r < 0) {
        say_no_answer(name, r == -ETIMEDOUT, ret_asks != NULL, err);
        if (!ret_asks)
            return r;
        *ret_asks = true;
        return 0;
    }
    r = protection_judge(protection, &record, name, err);
    if (r == 0 && ret_asks)
        *ret_asks = false;
    return r;
}
