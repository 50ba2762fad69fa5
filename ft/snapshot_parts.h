/* SPDX-License-Identifier: MIT */
/* A snapshot from inside: only for the snapshot*.c files. */
#pragma once

#include "ft/snapshot.h"

/* Fills in hello, model, sums and state. ERR_DEFINITION: damaged. */
int snapshot_read_state(struct snapshot *snapshot, struct err *err) must_check;

int snapshot_sum_of(const json_t *facts, char ret_sum[9]) must_check;
json_t *snapshot_stamp(int fd);
/* Takes the stamps over. */
int snapshot_write_stamps(int folder, const json_t *facts, json_t *stamps,
                          struct err *err) must_check;
