/* SPDX-License-Identifier: MIT */
/* Expects: a triple fault: minivmm says so, shows the registers, and ends with 7. */
#include "guest.h"

void guest_main(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing;
    print("an exception without a table\n");
    __asm__ volatile("lidt %0\n ud2" : : "m"(nothing));
}
