/* SPDX-License-Identifier: MIT */
#include "ft/handover.h"

#include "host/small_file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { HEX = 2 * MOVING_TICKET, MARK_MAX = 4096 };

/* --- numbers ---------------------------------------------------------------------------------- */

void handover_format(const uint8_t bytes[MOVING_TICKET], char ret_text[HEX + 1])
{
    for (unsigned i = 0; i < MOVING_TICKET; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
}

static bool parse(const char *text, uint8_t ret_bytes[MOVING_TICKET])
{
    if (!text || strlen(text) < HEX)
        return false;
    for (unsigned i = 0; i < MOVING_TICKET; i++) {
        const char digits[3] = {text[2 * i], text[2 * i + 1]};
        if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]))
            return false;
        ret_bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

static int read_mark(int folder, const char *name, char **ret_text)
{
    size_t length;
    return small_file_read_in(folder, name, MARK_MAX, ret_text, &length);
}

/* 1: it has; 0: there is none, or that is no number; -errno: it could not be looked at. */
static int read_number(int folder, const char *name, uint8_t ret_bytes[MOVING_TICKET])
{
    char *text;
    int ret = read_mark(folder, name, &text);
    if (ret == -ENOENT || ret == -ELOOP || ret == -EINVAL || ret == -EFBIG) /* nobody's of us */
        return 0;
    if (ret < 0)
        return ret;
    bool good = parse(text, ret_bytes);
    free(text);
    return good;
}

static int write_number(int folder, const char *name, const uint8_t bytes[MOVING_TICKET],
                        struct err *err)
{
    char text[HEX + 2];
    handover_format(bytes, text);
    text[HEX] = '\n';
    const struct small_file file = {.bytes = text, .length = HEX + 1, .durable = true};
    return small_file_replace(folder, name, &file, err);
}

/* --- the source ------------------------------------------------------------------------------- */

int handover_write(int folder, const struct handover *handover, struct err *err)
{
    char ticket[HEX + 1], place[HEX + 1];
    handover_format(handover->ticket, ticket);
    handover_format(handover->place, place);
    json_t *root = json_pack("{ss, ss, ss, ss, sb}", "to", handover->to, "name", handover->name,
                             "ticket", ticket, "place", place, "over", (int)handover->over);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot write " FOLDER_MOVED);
    const struct small_file file = {.bytes = text, .length = strlen(text), .durable = true};
    int ret = small_file_replace(folder, FOLDER_MOVED, &file, err);
    free(text);
    return ret;
}

int handover_read(int folder, struct handover *ret_handover, struct err *err)
{
    char *text;
    int ret = read_mark(folder, FOLDER_MOVED, &text);
    if (ret == -ENOENT)
        return ret;
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read " FOLDER_MOVED);
    json_t *root = json_loads(text, 0, NULL);
    const char *to = json_string_value(json_object_get(root, "to"));
    const char *name = json_string_value(json_object_get(root, "name"));
    struct handover handover = {.over = json_is_true(json_object_get(root, "over"))};
    bool good = to && name &&
                parse(json_string_value(json_object_get(root, "ticket")), handover.ticket) &&
                parse(json_string_value(json_object_get(root, "place")), handover.place);
    if (good) {
        snprintf(handover.to, sizeof(handover.to), "%s", to);
        snprintf(handover.name, sizeof(handover.name), "%s", name);
        *ret_handover = handover;
    } else {
        ret = err_say(err, ERR_DEFINITION, EBADMSG, FOLDER_MOVED " is damaged");
    }
    json_decref(root);
    free(text);
    return ret;
}

int handover_remove(int folder, struct err *err)
{
    if (unlinkat(folder, FOLDER_MOVED, 0) < 0 || fsync(folder) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot remove " FOLDER_MOVED);
    return 0;
}

/* --- the target ------------------------------------------------------------------------------- */

int handover_arrive(int folder, const uint8_t ticket[MOVING_TICKET], struct err *err)
{
    return write_number(folder, FOLDER_ARRIVING, ticket, err);
}

int handover_claim(int folder, struct err *err)
{
    if (renameat2(folder, FOLDER_ARRIVING, folder, FOLDER_ARRIVED, RENAME_NOREPLACE) < 0 &&
        (errno != EEXIST || renameat(folder, FOLDER_ARRIVING, folder, FOLDER_ARRIVED) < 0)) {
        int error = errno == ENOENT ? ECANCELED : errno;
        return err_sys(err, ERR_STATE, error, "the VM cannot begin here");
    }
    /* It is decided, whatever this says: who asks from now on is told that it is ours. */
    (void)!fsync(folder);
    return 0;
}

int handover_decline(int folder)
{
    if (renameat(folder, FOLDER_ARRIVING, folder, FOLDER_UNWANTED) < 0)
        return -errno;
    (void)fsync(folder);
    return 0;
}

/* As read_number. */
static int is_of(int folder, const char *mark, const uint8_t ticket[MOVING_TICKET])
{
    uint8_t found[MOVING_TICKET];
    int ret = read_number(folder, mark, found);
    return ret > 0 ? memcmp(found, ticket, MOVING_TICKET) == 0 : ret;
}

/* 0: this folder knows nothing of the ticket; -errno: it may. */
static int answer_in(int folder, const uint8_t ticket[MOVING_TICKET])
{
    int ret = is_of(folder, FOLDER_ARRIVED, ticket);
    if (ret != 0)
        return ret < 0 ? ret : FRAME_YOURS;
    ret = is_of(folder, FOLDER_UNWANTED, ticket);
    if (ret != 0)
        return ret < 0 ? ret : FRAME_NOT_MINE;
    ret = is_of(folder, FOLDER_ARRIVING, ticket);
    if (ret <= 0)
        return ret;
    if (renameat(folder, FOLDER_ARRIVING, folder, FOLDER_UNWANTED) == 0 && fsync(folder) == 0)
        return FRAME_NOT_MINE;
    ret = is_of(folder, FOLDER_ARRIVED, ticket);
    return ret > 0 ? FRAME_YOURS : ret < 0 ? ret : -EBUSY;
}

static int answer_at(int place, const char *name, const uint8_t ticket[MOVING_TICKET])
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    int folder = openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) /* it is gone, no folder, or another user's */
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EACCES ? 0
                                                                                        : -errno;
    int ret = answer_in(folder, ticket);
    close(folder);
    return ret;
}

/* What never came so far, or was cleared away again, does not run and cannot. But what could not be
 * looked at may: where that is said to be nobody's it runs where it came from, too. */
enum frame_ack handover_answer(int place, const uint8_t ticket[MOVING_TICKET])
{
    int copy = openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
    enum frame_ack answer = FRAME_NOT_MINE;
    const struct dirent *entry;
    int found = 0;
    if (!list) {
        if (copy >= 0)
            close(copy);
        return FRAME_UNKNOWN;
    }
    while (found <= 0 && (errno = 0, entry = readdir(list))) {
        found = answer_at(place, entry->d_name, ticket);
        if (found < 0)
            answer = FRAME_UNKNOWN;
    }
    if (found <= 0 && errno)
        answer = FRAME_UNKNOWN;
    closedir(list);
    return found > 0 ? (enum frame_ack)found : answer;
}

int handover_place(int place, uint8_t ret_id[MOVING_TICKET], struct err *err)
{
    int ret = read_number(place, HANDOVER_PLACE, ret_id);
    if (ret < 0) /* another one would make all that was handed over to this place unknown */
        return err_sys(err, ERR_FAILED, -ret, "cannot read " HANDOVER_PLACE);
    if (ret > 0)
        return 0;
    if (getrandom(ret_id, MOVING_TICKET, 0) != MOVING_TICKET)
        return err_sys(err, ERR_HOST, errno, "cannot draw a random number");
    return write_number(place, HANDOVER_PLACE, ret_id, err);
}

/* --- both ------------------------------------------------------------------------------------- */

int handover_check(int folder, const char *name, struct err *err)
{
    struct handover handover;
    int ret = handover_read(folder, &handover, err);
    if (ret == 0) {
        ret = err_say(err, ERR_STATE, EBUSY,
                      handover.over ? "%s was moved to %s, and runs there"
                                    : "%s was handed over to %s, which has not said that it runs",
                      name, handover.to);
        err_hint(err, "where it does not, and never will again: remove %s/" FOLDER_MOVED, name);
        return ret;
    }
    if (ret != -ENOENT)
        return ret;
    if (faccessat(folder, FOLDER_ARRIVING, F_OK, 0) == 0 ||
        faccessat(folder, FOLDER_UNWANTED, F_OK, 0) == 0) {
        ret = err_say(err, ERR_STATE, EBUSY,
                      "%s was arriving from another host, and never came whole", name);
        err_hint(err, "it runs where it was; minivmm remove %s", name);
        return ret;
    }
    return 0;
}
