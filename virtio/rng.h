/* SPDX-License-Identifier: MIT */
/* Randomness for the guest (virtio 1.2, section 5.4), from the host's getrandom(). */
#pragma once

#include "virtio/virtio.h"

struct rng;

int rng_create(struct rng **ret_rng, const struct virtio_world *world, struct err *err) must_check;
struct virtio *rng_virtio(struct rng *rng);
