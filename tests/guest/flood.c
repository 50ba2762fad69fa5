/* SPDX-License-Identifier: MIT */
/* Expects: writes kib= KiB to the serial port, as fast as it can, and exits 0. */
#include "guest.h"

void guest_main(void)
{
    for (uint64_t left = option("kib", 64) << 10; left > 0; left--)
        out8(SERIAL, left % 64 == 1 ? '\n' : 'x');
}
