/* SPDX-License-Identifier: MIT */
/*
 * The frames in which the state of a VM leaves a machine: one after the other in a file (a
 * snapshot's "state"), or on a connection between two hosts. All numbers are little-endian.
 *
 *   u32 magic       "MVF1"
 *   u8  kind        enum frame_kind
 *   u8  flags       0
 *   u16 reserved    0
 *   u32 length      of the payload; at most what frames.c says for the kind
 *   u64 generation  how often the VM was taken over
 *   u64 epoch       which of its states this belongs to, from 1; 0: none
 *   u32 CRC-32C of all this
 *   ... payload
 *   u32 CRC-32C of the payload
 *
 * An epoch is the frames from its first up to a COMMIT with the same number: it counts only as a
 * whole, and nothing of it is used before.
 *
 *   HELLO   what is coming: sections (core/state.h) "hello" (of a snapshot) or "moving" (on a
 *           connection), and "model" (vmm/machine_model.h)
 *   SUMS    checksums of guest memory in a file (ft/memory_file.h), u32 each
 *   STATE   all of the machine's state but its memory: the sections of machine_save()
 *   COMMIT  u32 how many frames the epoch has, this one not counted; u32 CRC-32C of their payloads'
 *           CRCs, in order
 *
 * On a connection only (ft/moving.h says in which order):
 *
 *   FILE    of the VM's folder: u16 length of the name, name, u32 mode, content
 *   DISK    u32 place in vm.json, u64 bytes, u16 length of the name, name
 *   SHARED  a disk that both sides see: u32 place in vm.json, u64 bytes, u32 format (1: raw,
 *           2: qcow2), u64 mark (host/lock.h; 0: none), then twice u16 length and text: a symbolic
 *           link on the way to it, by its name in the folder, and where it leads; or empty
 *   OPEN    no more of these
 *   PAGES   u64 first page, u32 count, u8 encoding of each page, then what the encodings ask for
 *           (ft/page_frames.h)
 *   BLOCKS  u32 place of the disk, u64 offset, u32 length, u8 encoding; 0 zeroes, 1 raw: the bytes
 *   ROUND   all that came before is to be on stable storage; is acknowledged
 *   ACK     u32 what for: enum frame_ack; with a welcome 16 bytes place, with "announced" u32 us
 *   ERROR   u32 kind (core/err.h), then sentence and hint, each u16 length and text
 *   RELEASED  the shared disks are on stable storage, and nobody has them open
 *   GO      16 bytes ticket: the VM is yours
 *   ASK     16 bytes ticket, 16 bytes place: whose is it? Or UUID and zeroes: has anybody that VM?
 *   FOLLOW  before HELLO: it is not to move, but to be followed (ft/following.h)
 *   CHANGES of the STATE of the epoch before, in the place of this one's: u32 bytes, of which it
 *           has as many; what has changed (ft/delta.h)
 *   WORD    of the protocol of fault tolerance: u32 kind, u64 generation, u64 epoch
 *   BASE    what a twin has of the VM's disks already, LOOK and LOOKED, which compare them, and
 *           SYNCED: ft/resync_talk.h
 *   SETTINGS  what people have set of the VM: a section "settings" (vmm/instance.h). Without it in
 *           an epoch that is as it was in the epoch before; before the first, nothing is set
 *   COMPARE u32 place of a disk, or 0xffffffff for guest memory; u32 CRC-32C of each MiB of it
 *
 * A connection is one VM's, from its HELLO on, which has the UUID: it is said once, a second HELLO
 * is out of its place, and each VM has a connection and a process of its own on either side. So no
 * later frame names the VM again, and neither does a WORD: one of another VM cannot come here. What
 * a word is about it says itself (generation and epoch); one of an older generation, or that nobody
 * waits for, ends the connection (ft/protocol.c).
 *
 * Whoever reads them trusts nothing: a frame that is short, damaged, too long, unknown or out of
 * its place ends the reading with an error, and has changed nothing.
 */
#pragma once

#include "core/state.h"

enum frame_kind {
    FRAME_HELLO = 1,
    FRAME_SUMS,
    FRAME_STATE,
    FRAME_COMMIT,
    FRAME_FILE,
    FRAME_DISK,
    FRAME_OPEN,
    FRAME_PAGES,
    FRAME_BLOCKS,
    FRAME_ROUND,
    FRAME_ACK,
    FRAME_ERROR,
    FRAME_GO,
    FRAME_ASK,
    FRAME_COMPARE,
    FRAME_SHARED,
    FRAME_RELEASED,
    FRAME_FOLLOW,
    FRAME_WORD,
    FRAME_CHANGES,
    FRAME_BASE,
    FRAME_LOOK,
    FRAME_LOOKED,
    FRAME_SYNCED,
    FRAME_SETTINGS,
};

enum frame_ack {
    FRAME_WELCOME = 1, /* it can come: the pages may follow */
    FRAME_STORED,      /* of a ROUND */
    FRAME_READY,       /* all of the epoch is here, whole, and loaded */
    FRAME_YOURS,       /* to GO and ASK: it runs here, and nowhere else */
    FRAME_NOT_MINE,    /* to ASK: it never ran here, and never will by that ticket */
    FRAME_UNKNOWN,     /* to ASK: another place than the one that was asked for; or not readable */
    FRAME_OPENED,      /* to RELEASED: the shared disks are this side's */
    FRAME_ANNOUNCED,   /* to GO, beside YOURS: the network knows where the VM is now */
};

enum {
    FRAME_MAX_PAGES = 256,
    FRAME_MAX_BLOCK = 1 << 20,
    FRAME_MAX_FILE = 64 << 20,
    FRAME_MAX_SUMS = 4 << 20
};

struct frame {
    uint8_t kind;
    uint32_t length;
    uint64_t generation, epoch;
};

/* What a COMMIT says of the frames before it. Zeroed at the beginning of an epoch. */
struct frame_tally {
    uint32_t count, crc;
};

/* Frame by frame into the tally, which may be NULL. The error is the stream's. */
void frame_write(struct stream *stream, const struct frame *frame, const void *payload,
                 struct frame_tally *tally);
/* The payload's CRC-32C is known already. */
void frame_write_summed(struct stream *stream, const struct frame *frame, const void *payload,
                        uint32_t crc, struct frame_tally *tally);
void frame_write_commit(struct stream *stream, uint64_t generation, uint64_t epoch,
                        const struct frame_tally *tally);

/* A frame of sections (core/state.h); length is not looked at. */
void frame_write_sections(struct stream *stream, const struct frame *frame,
                          const struct state_item *items, size_t count, struct frame_tally *tally);

/*
 * The next frame; its payload is in *payload, which is initialised, and read from its start. The
 * COMMIT is compared with the tally. -EBADMSG, -ENODATA: the bytes end; or the stream's error.
 */
int frame_read(struct stream *stream, struct frame *ret_frame, struct stream_buffer *payload,
               struct frame_tally *tally, struct err *err) must_check;

const char *frame_name(uint8_t kind); /* "HELLO" */

/*
 * The same in steps, for who has each byte of a payload put where it belongs as it comes: the head,
 * frame.length bytes of the stream, the end. Only after that it is known that they are whole.
 */
int frame_read_head(struct stream *stream, struct frame *ret_frame, struct err *err) must_check;
int frame_read_rest(struct stream *stream, const struct frame *frame, struct stream_buffer *payload,
                    struct frame_tally *tally, struct err *err) must_check;
int frame_read_end(struct stream *stream, const struct frame *frame, struct frame_tally *tally,
                   struct err *err) must_check; /* since stream_checksum_start() */
