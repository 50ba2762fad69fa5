/* SPDX-License-Identifier: MIT */
/*
 * How a VM moves from one host to another: what the two say to each other (ft/frames.h).
 *
 *   source                                        target
 *     HELLO, FILE..., DISK..., OPEN  ──────────►    looks whether it can, makes folder and machine
 *                                    ◄──────────  ACK welcome
 *     PAGES, BLOCKS ..., ROUND       ──────────►    into its memory and its disks
 *                                    ◄──────────  ACK stored
 *     ... round by round; then the VM stands still here
 *     PAGES, BLOCKS, STATE, COMMIT   ──────────►    all of it is loaded
 *     SETTINGS among them, if people have set something of the VM
 *                                    ◄──────────  ACK ready
 *     (shared disks:) RELEASED       ──────────►    opens them
 *                                    ◄──────────  ACK opened
 *   1 notes "handed over" in its folder
 *     GO                             ──────────►  2 notes "mine" in its folder; runs
 *                                    ◄──────────  ACK yours, and before it or after it "announced"
 *   3 ends
 *
 * Up to 1 a failure of whatever kind leaves the source running, untouched, and nothing at the
 * target. After it the source may run again only when the target has said that it does not: it asks
 * (ASK, by the ticket), for as long as that takes. Exactly one of 2 and the answer NOT_MINE comes
 * to pass: both need the same file of the target's folder under its old name (ft/arrival.h).
 *
 * With shared disks SHARED stands in place of DISK, and no BLOCKS follow. Both sides see the same
 * files: the source marks them (host/lock.h), and only a target that sees the marks says welcome.
 * Their locks decide who writes. The source lets them go before 1, in a pause that it can still
 * take back: where the target cannot open them, or says nothing more, it waits until it has the
 * locks again, and goes on. At the hand-over the target has them already.
 *
 * Either side may send ERROR instead of what the other one waits for, and hang up.
 */
#pragma once

#include "core/state.h"
#include "ft/frames.h"
#include "vmm/machine.h"
#include "vmm/machine_model.h"

#include <limits.h>

enum {
    MOVING_TICKET = 16,
    MOVING_EPOCH = 1,
    /* How long the other side may be busy: a slow disk may have gigabytes to store. A host that is
     * gone is noticed by TCP, within a minute. */
    MOVING_SILENCE_MS = 300000,
    MOVING_STILL_MS = 30000, /* the same while the VM stands still for it */
};

/* What HELLO says beside the model. */
struct moving_hello {
    uint64_t wall_ns;
    uint32_t protocol; /* MOVING_PROTOCOL */
    uint32_t reserved;
    uint8_t ticket[MOVING_TICKET]; /* of this one move */
    uint8_t uuid[16];
    uint8_t generation[16];
    uint8_t macs[MACHINE_MAX_NETS][6];
    char name[NAME_MAX + 1]; /* of the VM; ends with zeroes */
};

/* 2: SETTINGS, "announced", and the model has MSRs. Who speaks 1 may come here, and not go there.
 */
enum { MOVING_PROTOCOL = 2, MOVING_OLDEST = 1 };

void moving_put_hello(struct stream *stream, const struct moving_hello *hello,
                      struct machine_model *model);
int moving_get_hello(struct stream_buffer *payload, struct moving_hello *ret_hello,
                     struct machine_model *ret_model, struct err *err) must_check;

/* A name in the VM's folder, and what belongs to it. */
struct moving_file {
    char name[PATH_MAX];
    uint32_t mode;
    const uint8_t *bytes;
    size_t length;
};

void moving_put_file(struct stream *stream, const struct moving_file *file);
int moving_get_file(struct stream_buffer *payload, struct moving_file *ret_file,
                    struct err *err) must_check;

struct moving_disk {
    char name[PATH_MAX];
    uint32_t place; /* in vm.json */
    uint64_t size;
};

void moving_put_disk(struct stream *stream, const struct moving_disk *disk);
int moving_get_disk(struct stream_buffer *payload, struct moving_disk *ret_disk,
                    struct err *err) must_check;

/* A disk whose file both sides see. */
struct moving_shared {
    uint32_t place;  /* in vm.json */
    uint32_t format; /* enum disk_format, but not ANY */
    uint64_t size;
    uint64_t mark; /* host/lock.h; 0: there is none, because the guest only reads it */
    /* A symbolic link in the folder, on the way to it, and where that leads. Empty: none. */
    char link[PATH_MAX], target[PATH_MAX];
};

enum { MOVING_LINK_MAX = 1000 }; /* letters of a link's target */

void moving_put_shared(struct stream *stream, const struct moving_shared *shared);
int moving_get_shared(struct stream_buffer *payload, struct moving_shared *ret_shared,
                      struct err *err) must_check;

struct moving_block {
    uint32_t place, length; /* at most FRAME_MAX_BLOCK */
    uint64_t offset;
    const uint8_t *bytes; /* NULL: zeroes; of one that was read, in its payload */
};

/* `of`: its generation and epoch. */
void moving_put_block(struct stream *stream, const struct frame *of,
                      const struct moving_block *block, struct frame_tally *tally);
int moving_get_block(struct stream_buffer *payload, struct moving_block *ret_block,
                     struct err *err) must_check;

/* HELLO's epoch is 0, as of all that is not of the VM's one epoch. */
void moving_put(struct stream *stream, enum frame_kind kind, const void *payload, size_t length);
/* What was written into the buffer; finishes it. */
void moving_put_buffer(struct stream *stream, enum frame_kind kind, struct stream_buffer *buffer);
void moving_put_ack(struct stream *stream, enum frame_ack what);
void moving_put_error(struct stream *stream, const struct err *err);

/* ACK welcome, with the number of the place (ft/handover.h). */
void moving_put_welcome(struct stream *stream, const uint8_t place[MOVING_TICKET]);
int moving_wait_welcome(struct stream *stream, struct stream_buffer *payload,
                        uint8_t ret_place[MOVING_TICKET], struct err *err) must_check;

/* As frame_read; what is wrong is said of a connection. */
int moving_read(struct stream *stream, struct frame *ret_frame, struct stream_buffer *payload,
                struct frame_tally *tally, struct err *err) must_check;

/* What is wrong, of reading a frame by oneself, is said of a connection too. The same value. */
int moving_say(const struct stream *stream, int ret, struct err *err);

/* Of an ERROR frame: what the other side has to say; -EREMOTEIO. */
int moving_get_error(struct stream_buffer *payload, struct err *err) must_check;

/* ACK announced: how long after GO, which only people want to know. MOVING_UNHEARD: nothing was. */
#define MOVING_UNHEARD UINT32_MAX
void moving_put_announced(struct stream *stream, uint32_t us);
int moving_get_announced(struct stream_buffer *payload, uint32_t *ret_us,
                         struct err *err) must_check; /* of such an ACK, after moving_wait_ack */

/* Waits for an ACK. ERROR becomes err; anything else is one. The ACK's number, or -errno. */
int moving_wait_ack(struct stream *stream, struct stream_buffer *payload,
                    struct err *err) must_check;
