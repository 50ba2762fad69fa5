/* SPDX-License-Identifier: MIT */
/* Expects: on a host that interprets ring 0, an SSE instruction there ends the guest: minivmm names
 * the lab as the way out and ends with 7. Elsewhere exits 0. */
#include "guest.h"

void guest_main(void)
{
    print("SSE in ring 0\n");
    __asm__ volatile("mulps %xmm0, %xmm1");
}
