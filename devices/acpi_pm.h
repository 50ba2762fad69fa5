/* SPDX-License-Identifier: MIT */
/*
 * ACPI fixed hardware: power button, soft-off, PM timer and reset register, and general-purpose
 * events, in one block of ports.
 *
 * The machine is always in ACPI mode (there is no SMM to switch it), so the FADT names no SMI
 * command port. Register widths and offsets for the FADT and the DSDT are here and nowhere else.
 */
#pragma once

#include "core/bus.h"
#include "core/clock.h"
#include "core/irq.h"
#include "core/loop.h"
#include "devices/device.h"

enum {
    ACPI_PM_BASE = 0x600, /* the usual place of the block */
    ACPI_PM_SIZE = 16,

    ACPI_PM1A_STATUS = 0,  /* u16; with the enables this is the PM1a event block of 4 bytes */
    ACPI_PM1A_ENABLE = 2,  /* u16 */
    ACPI_PM1A_CONTROL = 4, /* u16, the PM1a control block */
    ACPI_GPE0_STATUS = 6,  /* u8; with the enables this is the GPE0 block of 2 bytes */
    ACPI_GPE0_ENABLE = 7,  /* u8 */
    ACPI_PM_TIMER = 8,     /* u32: all 32 bits count (the FADT's TMR_VAL_EXT) */
    ACPI_PM_RESET = 12,    /* u8, RESET_REG */

    ACPI_PM_RESET_VALUE = 0x01,
    ACPI_PM_SLEEP_TYPE_OFF = 5, /* SLP_TYPa of \_S5, and the only one that does something */
    ACPI_PM_TIMER_HZ = 3579545,
};

/* General-purpose events, by their bits; dsdt.asl has a method for each. */
enum acpi_event {
    ACPI_EVENT_GENERATION = 0, /* the VM generation id has changed */
};

struct acpi_pm;

/* line carries the SCI: level-triggered, active high. clock runs whenever the device does. */
int acpi_pm_create(struct acpi_pm **ret_pm, struct bus *ports, uint16_t base,
                   const struct irq_chip *chip, unsigned line, struct loop *loop,
                   const struct guest_clock *clock, const struct power *power,
                   struct err *err) must_check;
struct device *acpi_pm_device(
    struct acpi_pm *pm); /* destroy on the loop's thread, or when it stands */

/* A short press. While the device is paused it is kept, and felt at resume. (any thread) */
void acpi_pm_press_power_button(struct acpi_pm *pm);
/* The same for an event. */
void acpi_pm_raise_event(struct acpi_pm *pm, enum acpi_event event);
