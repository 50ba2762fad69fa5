/* SPDX-License-Identifier: MIT */
/*
 * The real-time clock and its battery-backed RAM (MC146818) at ports 0x70 and 0x71.
 *
 * The clock runs in UTC: the host's wall clock plus whatever the guest has set it off by. So it is
 * right after a pause, a restore or a move, unlike guest time, which stands still. Its alarm,
 * periodic and update interrupts come from one timer on the main loop, which is idle unless the
 * guest waits for one of them.
 */
#pragma once

#include "core/bus.h"
#include "core/irq.h"
#include "core/loop.h"
#include "devices/device.h"

struct rtc;

struct rtc_config {
    uint64_t ram_below_4g; /* bytes, for the memory sizes in the CMOS RAM */
    uint64_t ram_above_4g;
    uint64_t (*wall_ns)(void); /* NULL: clock_wall_ns. (any thread) */
};

int rtc_create(struct rtc **ret_rtc, struct bus *ports, const struct irq_chip *chip, unsigned line,
               struct loop *loop, const struct rtc_config *config, struct err *err) must_check;
struct device *rtc_device(struct rtc *rtc); /* destroy on the loop's thread, or when it stands */
