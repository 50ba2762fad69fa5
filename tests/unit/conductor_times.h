/* SPDX-License-Identifier: MIT */
/* A conductor's times, patient where a test does not say otherwise: this machine may have much else
 * to do. */
#pragma once

#include "ft/protocol.h"

#define MS 1000000ull

enum { NODE = 11 };

static const struct ft_config patient_times = {.node = NODE,
                                               .beat_ns = 4 * MS,
                                               .lost_ns = 20000 * MS,
                                               .stall_ns = 100000 * MS,
                                               .ask_ns = 20000 * MS,
                                               .retry_ns = 5 * MS,
                                               .gap_ns = 15000 * MS,
                                               .away_ns = 1000000 * MS,
                                               .yield_ns = 100 * MS};
