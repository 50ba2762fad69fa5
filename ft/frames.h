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
 *   HELLO   what is coming: sections (core/state.h) "hello" and "model" (vmm/machine_model.h)
 *   SUMS    checksums of guest memory in a file (ft/memory_file.h), u32 each
 *   STATE   all of the machine's state but its memory: the sections of machine_save()
 *   COMMIT  u32 how many frames the epoch has, this one not counted; u32 CRC-32C of their payloads'
 *           CRCs, in order
 *
 * Whoever reads them trusts nothing: a frame that is short, damaged, too long, unknown or out of
 * its place ends the reading with an error, and has changed nothing.
 */
#pragma once

#include "core/stream.h"

enum frame_kind { FRAME_HELLO = 1, FRAME_SUMS, FRAME_STATE, FRAME_COMMIT };

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
void frame_write_commit(struct stream *stream, uint64_t generation, uint64_t epoch,
                        const struct frame_tally *tally);

/*
 * The next frame; its payload is in *payload, which is initialised, and read from its start. The
 * COMMIT is compared with the tally. -EBADMSG, -ENODATA: the bytes end; or the stream's error.
 */
int frame_read(struct stream *stream, struct frame *ret_frame, struct stream_buffer *payload,
               struct frame_tally *tally, struct err *err) must_check;
