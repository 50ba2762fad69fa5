/* SPDX-License-Identifier: MIT */
/*
 * The keyboard controller (ports 0x60 and 0x64) with nothing attached, and system control port A
 * (0x92). They are here for what has always hung on them: reset and the A20 gate.
 */
#pragma once

#include "core/bus.h"
#include "devices/device.h"

struct i8042;

int i8042_create(struct i8042 **ret_i8042, struct bus *ports, const struct power *power,
                 struct err *err) must_check;
struct device *i8042_device(struct i8042 *i8042);
