/* SPDX-License-Identifier: MIT */
/*
 * For test guests only: a write to port 0xf4 ends the program with that byte as the guest's
 * verdict.
 */
#pragma once

#include "core/bus.h"
#include "devices/device.h"

struct exit_port;

enum { EXIT_PORT = 0xf4 };

/* A write of any width requests POWER_EXIT with its low byte as the code. */
int exit_port_create(struct exit_port **ret_port, struct bus *ports, const struct power *power,
                     struct err *err) must_check;
struct device *exit_port_device(struct exit_port *port);
