/* SPDX-License-Identifier: MIT */
/*
 * The interval timer: an 8254 at 1193182 Hz of guest time, and port 0x61 beside it.
 *
 * Counter 0 interrupts: a loop timer wakes the main loop for each tick. Counter 2 is what guests
 * calibrate other clocks with: it is never ticked, every read computes it from guest time.
 *
 * Locks: the PIT's own, and under it whatever the line's chip takes.
 */
#pragma once

#include "core/bus.h"
#include "core/clock.h"
#include "core/irq.h"
#include "core/loop.h"
#include "devices/device.h"

enum { PIT_HZ = 1193182 };

struct pit;

/*
 * chip, loop and clock must outlive the PIT. The clock runs before resume and until after pause
 * (a clock that stands still means: no timer, see pit_run).
 */
int pit_create(struct pit **ret_pit, struct bus *ports, const struct irq_chip *chip, unsigned line,
               struct loop *loop, const struct guest_clock *clock, struct err *err) must_check;

/*
 * Delivers what counter 0 owes at this moment of guest time: one tick at most, see pit.c. The timer
 * does the same; this is for tests, where guest time is set by hand. (any thread)
 */
void pit_run(struct pit *pit);

struct device *pit_device(struct pit *pit);
