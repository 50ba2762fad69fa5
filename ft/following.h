/* SPDX-License-Identifier: MIT */
/*
 * What is said between a VM and the twin that follows it, beside what a move has (ft/moving.h):
 *
 *   who runs it                                   who follows
 *     FOLLOW, HELLO, FILE..., DISK..., OPEN ────►   makes folder and machine; asks the witness
 *                                           ◄────  ACK welcome, with its numbers; what it has of
 *                                                 these disks already (ft/resync_talk.h)
 *     PAGES, BLOCKS ... of epoch 1          ────►   into its memory and its disks
 *     ROUND, when that is nearly all        ────►   onto stable storage; its memory is in RAM
 *                                           ◄────  ACK stored; until then nothing waits for it
 *     STATE, COMMIT of epoch 1              ────►   looked at: it could go on from here
 *                                           ◄────  WORD ack
 *     PAGES, BLOCKS, STATE, COMMIT of 2     ────►   staged, looked at, acknowledged, applied
 *     SETTINGS among them, where people have changed what is set
 *     COMPARE among them (--verify)         ────►   compared when the epoch is applied
 *     ...
 *     WORDs in between, both ways (ft/protocol.h)
 */
#pragma once

#include "ft/moving.h"
#include "ft/protocol.h"
#include "vmm/instance.h"

enum { FOLLOWING_WITNESS = 300, FOLLOWING_VERSION = 4, FOLLOWING_LINEAGE = 16 };

struct following {
    uint64_t node, generation; /* of who runs it */
    uint32_t beat_ms, lost_ms;
    bool durable, adapts; /* adapts: lost_ms where the line is rough, less where it is not */
    bool verify;          /* what the twin has is compared, also with the twin that it gets later */
    /* What the disks have in common with one other folder (ft/changes.h), zeroes: nothing; and what
     * that is called where the twin gets all of them. */
    uint8_t lineage[FOLLOWING_LINEAGE], fresh[FOLLOWING_LINEAGE];
    char witness[FOLLOWING_WITNESS];
    char back[FOLLOWING_WITNESS];  /* where its own host waits for VMs; "": nowhere */
    char there[FOLLOWING_WITNESS]; /* where it has found the other one: the way back from there */
};

void following_put(struct stream *stream, const struct following *following);
int following_get(struct stream_buffer *payload, struct following *ret_following,
                  struct err *err) must_check;

/* The numbers of who follows, in the place of a welcome's. */
void following_put_welcome(struct stream *stream, uint64_t node, uint64_t twin);
int following_wait_welcome(struct stream *stream, struct stream_buffer *payload, uint64_t *ret_node,
                           uint64_t *ret_twin, struct err *err) must_check;

/* `of`: its generation and epoch. */
void following_put_settings(struct stream *stream, const struct frame *of,
                            const struct instance_settings *settings, struct frame_tally *tally);
int following_get_settings(struct stream_buffer *payload, struct instance_settings *ret_settings,
                           struct err *err) must_check;

void following_put_word(struct stream *stream, const struct ft_word *word);
int following_get_word(struct stream_buffer *payload, struct ft_word *ret_word,
                       struct err *err) must_check;
