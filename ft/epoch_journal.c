/* SPDX-License-Identifier: MIT */
#include "ft/epoch_journal.h"

#include "host/fd.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    GATHERED = 1 << 20, /* bytes that wait to be written */
    PUSHES = 16,
};

struct epoch_journal {
    struct arrival_folder *folder;
    int fd; /* -1: there is no file, and nothing was committed */
    uint64_t longest;
    uint64_t begin, end;           /* of the epochs in it */
    uint64_t pushed;               /* up to here what the disks got is on its way */
    struct stream_buffer gathered; /* belongs behind that */
    struct frame_tally tally;      /* of the epoch that is coming in */
};

static int say(const struct epoch_journal *journal, int error, struct err *err)
{
    return err_sys(err, ERR_FAILED, -error, "cannot write %s/" FOLDER_EPOCHS,
                   journal->folder->path);
}

/* --- writing ---------------------------------------------------------------------------------- */

int epoch_journal_create(struct epoch_journal **ret_journal, struct arrival_folder *folder,
                         uint64_t longest, struct err *err)
{
    struct epoch_journal *journal = calloc(1, sizeof(*journal));
    if (!journal)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot keep a journal of epochs");
    journal->folder = folder;
    journal->longest = longest;
    journal->fd = -1;
    stream_buffer_init(&journal->gathered, 0);
    *ret_journal = journal;
    return 0;
}

void epoch_journal_destroy(struct epoch_journal *journal)
{
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd);
    stream_buffer_finish(&journal->gathered);
    free(journal);
}

static int write_gathered(struct epoch_journal *journal)
{
    struct stream_buffer *gathered = &journal->gathered;
    int ret = stream_error(&gathered->stream);
    if (ret == 0)
        ret = fd_write_at(journal->fd, gathered->bytes, gathered->length, journal->end);
    if (ret == 0)
        journal->end += gathered->length;
    gathered->length = 0;
    return ret;
}

/* The name is on stable storage before anything counts on it. */
static int make(struct epoch_journal *journal)
{
    struct stream *stream = &journal->gathered.stream;
    int how = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    journal->fd = openat(journal->folder->fd, FOLDER_EPOCHS, how, 0600);
    if (journal->fd < 0)
        return -errno;
    for (unsigned i = 0; i < journal->folder->disk_count; i++)
        moving_put_disk(stream, &journal->folder->disks[i].about);
    moving_put(stream, FRAME_OPEN, "", 0);
    journal->end = 0;
    int ret = write_gathered(journal);
    journal->begin = journal->pushed = journal->end;
    return ret == 0 && fsync(journal->folder->fd) < 0 ? -errno : ret;
}

int epoch_journal_put(struct epoch_journal *journal, const struct frame *frame,
                      const uint8_t *payload, struct err *err)
{
    int ret = journal->fd < 0 ? make(journal) : 0;
    if (ret == 0)
        frame_write(&journal->gathered.stream, frame, payload, &journal->tally);
    if (ret == 0 && journal->gathered.length >= GATHERED)
        ret = write_gathered(journal);
    return ret < 0 ? say(journal, ret, err) : 0;
}

int epoch_journal_commit(struct epoch_journal *journal, uint64_t generation, uint64_t epoch,
                         struct err *err)
{
    if (journal->tally.count == 0)
        return 0;
    frame_write_commit(&journal->gathered.stream, generation, epoch, &journal->tally);
    journal->tally = (struct frame_tally){0};
    int ret = write_gathered(journal);
    if (ret == 0 && fdatasync(journal->fd) < 0)
        ret = -errno;
    return ret < 0 ? say(journal, ret, err) : 0;
}

/* Were the cut not synced, a power cut could leave old epochs before the beginning of a new one. */
int epoch_journal_applied(struct epoch_journal *journal, struct err *err)
{
    if (journal->fd < 0)
        return 0;
    if (journal->end - journal->pushed >= journal->longest / PUSHES) {
        arrival_folder_push(journal->folder);
        journal->pushed = journal->end;
    }
    if (journal->end - journal->begin < journal->longest)
        return 0;
    int ret = arrival_folder_sync(journal->folder, err);
    if (ret < 0)
        return ret;
    if (ftruncate(journal->fd, (off_t)journal->begin) < 0 || fdatasync(journal->fd) < 0)
        return say(journal, -errno, err);
    journal->end = journal->pushed = journal->begin;
    return 0;
}

int epoch_journal_end(struct epoch_journal *journal, struct err *err)
{
    journal->gathered.length = 0;
    journal->tally = (struct frame_tally){0};
    if (journal->fd < 0)
        return 0;
    close(journal->fd);
    journal->fd = -1;
    return epoch_journal_remove(journal->folder->fd, err);
}

int epoch_journal_remove(int folder, struct err *err)
{
    if (unlinkat(folder, FOLDER_EPOCHS, 0) < 0)
        return errno == ENOENT ? 0
                               : err_sys(err, ERR_FAILED, errno, "cannot remove " FOLDER_EPOCHS);
    return fsync(folder) < 0 ? err_sys(err, ERR_FAILED, errno, "cannot remove " FOLDER_EPOCHS) : 0;
}

/* --- reading ---------------------------------------------------------------------------------- */

struct reading {
    int fd;
    struct arrival_folder *folder;
    struct stream_fd file;
    struct stream_buffer payload;
    struct frame_tally tally;
    struct frame frame; /* the last one */

    uint64_t whole; /* where the last whole epoch ends */
    uint64_t generation, epoch;
    uint64_t blocks; /* of the epoch that is not whole yet */
    struct epoch_replay replay;
};

enum next { NEXT_FRAME = 1, NEXT_NONE };

static int say_senseless(const struct reading *reading, struct err *err)
{
    return err_say(err, ERR_DEFINITION, EBADMSG, "a frame %s is out of its place",
                   frame_name(reading->frame.kind));
}

static int rewind_to_begin(struct reading *reading, struct err *err)
{
    stream_fd_finish(&reading->file);
    int ret = lseek(reading->fd, 0, SEEK_SET) < 0 ? -errno
                                                  : stream_fd_init(&reading->file, reading->fd);
    reading->tally = (struct frame_tally){0};
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot read it") : 0;
}

/* What is torn is no error; what cannot be read, or not by us, is. */
static int next_frame(struct reading *reading, struct err *err)
{
    struct err why = {0};
    struct stream *stream = &reading->file.stream;
    int ret = frame_read(stream, &reading->frame, &reading->payload, &reading->tally, &why);
    if (ret == 0)
        return NEXT_FRAME;
    if (ret == -ENODATA || (ret == -EBADMSG && stream_error(stream) == 0))
        return NEXT_NONE;
    if (err)
        *err = why;
    return ret;
}

/* Disks and OPEN. */
static int read_head(struct reading *reading, bool opens, struct err *err)
{
    int ret;
    while ((ret = next_frame(reading, err)) == NEXT_FRAME && reading->frame.kind == FRAME_DISK) {
        struct moving_disk disk;
        ret = moving_get_disk(&reading->payload, &disk, err);
        if (ret == 0 && opens)
            ret = arrival_folder_open_disk(reading->folder, &disk, err);
        if (ret < 0)
            return ret;
    }
    if (ret == NEXT_FRAME && reading->frame.kind != FRAME_OPEN)
        return say_senseless(reading, err);
    return ret;
}

static bool is_due(const struct reading *reading)
{
    const struct frame *frame = &reading->frame;
    bool goes_on = reading->blocks > 0, is_first = reading->replay.epochs == 0 && !goes_on;
    if (frame->epoch == 0 || (!is_first && frame->generation != reading->generation))
        return false;
    return goes_on ? frame->epoch == reading->epoch : frame->epoch > reading->epoch;
}

static int look_at(struct reading *reading, struct err *err)
{
    struct moving_block block;
    reading->generation = reading->frame.generation;
    reading->epoch = reading->frame.epoch;
    if (reading->frame.kind == FRAME_COMMIT) {
        reading->whole = reading->file.stream.position;
        reading->replay.epochs++;
        reading->replay.blocks += reading->blocks;
        reading->blocks = 0;
        reading->tally = (struct frame_tally){0};
        return 0;
    }
    int ret = moving_get_block(&reading->payload, &block, err);
    if (ret == 0)
        ret = arrival_folder_check_block(reading->folder, &block, err);
    reading->blocks++;
    return ret;
}

/* All of it, before anything is changed. */
static int look_through(struct reading *reading, struct err *err)
{
    int ret = read_head(reading, true, err);
    reading->whole = ret == NEXT_FRAME ? reading->file.stream.position : 0;
    while (ret == NEXT_FRAME && (ret = next_frame(reading, err)) == NEXT_FRAME) {
        if (reading->frame.kind != FRAME_BLOCKS && reading->frame.kind != FRAME_COMMIT)
            return say_senseless(reading, err);
        if (!is_due(reading))
            return 0;
        if ((ret = look_at(reading, err)) == 0)
            ret = NEXT_FRAME;
    }
    return ret < 0 ? ret : 0;
}

static int put_blocks(struct reading *reading, struct err *err)
{
    int ret = rewind_to_begin(reading, err);
    if (ret == 0)
        ret = read_head(reading, false, err);
    while (ret == NEXT_FRAME && reading->file.stream.position < reading->whole) {
        struct moving_block block;
        ret = next_frame(reading, err);
        if (ret == NEXT_FRAME && reading->frame.kind == FRAME_COMMIT)
            reading->tally = (struct frame_tally){0};
        if (ret != NEXT_FRAME || reading->frame.kind != FRAME_BLOCKS)
            continue;
        ret = moving_get_block(&reading->payload, &block, err);
        if (ret == 0)
            ret = arrival_folder_put_block(reading->folder, &block, err);
        if (ret == 0)
            ret = NEXT_FRAME;
    }
    if (ret == NEXT_NONE) /* it was whole a moment ago */
        return say_senseless(reading, err);
    return ret < 0 ? ret : arrival_folder_sync(reading->folder, err);
}

static int replay(struct reading *reading, struct err *err)
{
    struct stat stat;
    int ret = rewind_to_begin(reading, err);
    if (ret == 0)
        ret = look_through(reading, err);
    if (ret == 0 && fstat(reading->fd, &stat) < 0)
        ret = err_sys(err, ERR_FAILED, errno, "cannot read it");
    if (ret < 0)
        return ret;
    reading->replay.torn = reading->whole < (uint64_t)stat.st_size
                               ? (uint64_t)stat.st_size - reading->whole
                               : 0;
    if (reading->replay.epochs > 0)
        ret = put_blocks(reading, err);
    return ret < 0 ? ret : epoch_journal_remove(reading->folder->fd, err);
}

static int open_journal(int folder, const char *path, struct err *err)
{
    struct stat stat;
    int fd = openat(folder, FOLDER_EPOCHS, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    int error = fd < 0 || fstat(fd, &stat) < 0 ? errno : S_ISREG(stat.st_mode) ? 0 : EINVAL;
    if (error == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_sys(err, ERR_FAILED, error, "cannot read %s/" FOLDER_EPOCHS, path);
}

int epoch_journal_replay(int folder, const char *path, struct epoch_replay *ret_replay,
                         struct err *err)
{
    struct reading reading = {.fd = open_journal(folder, path, err)};
    if (reading.fd == -ENOENT) {
        *ret_replay = (struct epoch_replay){0};
        return 0;
    }
    if (reading.fd < 0)
        return reading.fd;
    stream_buffer_init(&reading.payload, 0);
    int ret = arrival_folder_look(&reading.folder, folder, path, err);
    if (ret == 0)
        ret = replay(&reading, err);
    arrival_folder_leave(reading.folder);
    stream_fd_finish(&reading.file);
    stream_buffer_finish(&reading.payload);
    close(reading.fd);
    if (ret == 0)
        *ret_replay = reading.replay;
    else if (err)
        err_prefix(err, "%s/" FOLDER_EPOCHS, path);
    return ret;
}
