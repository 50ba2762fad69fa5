/* SPDX-License-Identifier: MIT */
/* Expects: switches off by ACPI S5, as FADT and DSDT describe it: minivmm ends with 0. */
#include "guest.h"

void guest_main(void)
{
    print("switching off, SLP_TYP %u\n", acpi_s5());
    acpi_power_off();
}
