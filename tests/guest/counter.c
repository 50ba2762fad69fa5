/* SPDX-License-Identifier: MIT */
/* Expects: each processor counts in ring 3 in vector and x87 registers and in memory; prints
 * "count N N ..." (one number a processor) until lines=N, then exits 0; 1 when two counts of one
 * processor ever differ. */
#include "guest.h"

enum { RING3_STACK = 16384, LINE_STEPS = 1 << 20 };

struct count {
    volatile uint64_t value;
    uint64_t padding[7]; /* a cache line each */
};

static struct count counts[MAX_CPUS];
static unsigned cpus;
static uint64_t lines;
static uint8_t user_stacks[8][RING3_STACK];

/*
 * Counts to `steps` in rcx, in both halves of all sixteen xmm registers and on the x87 stack, and
 * says whether they agree. Everything stays in registers: a hop in the middle takes them along.
 */
static bool count_in_registers(uint64_t steps)
{
    static const uint64_t ones[2] __attribute__((aligned(16))) = {1, 1};
    uint64_t seen[16][2] __attribute__((aligned(16)));
    uint64_t x87 = 0;
    __asm__ volatile("fninit\n fldz\n"
                     ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
                     "pxor %%xmm\\n, %%xmm\\n\n"
                     ".endr\n"
                     "1:\n"
                     ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
                     "paddq %[ones], %%xmm\\n\n"
                     ".endr\n"
                     "fld1\n faddp\n"
                     "dec %[steps]\n"
                     "jnz 1b\n"
                     ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
                     "movdqa %%xmm\\n, 16*\\n(%[seen])\n"
                     ".endr\n"
                     "fistpll %[x87]\n"
                     : [x87] "+m"(x87), [steps] "+r"(steps)
                     : [ones] "m"(ones), [seen] "r"(seen)
                     : "memory", "cc");
    for (unsigned i = 0; i < 16; i++)
        if (seen[i][0] != x87 || seen[i][1] != x87)
            return false;
    return x87 == LINE_STEPS;
}

static void print_line(void)
{
    print("count");
    for (unsigned i = 0; i < cpus; i++)
        print(" %lu", counts[i].value);
    print("\n");
}

static void ring3_main(void)
{
    /* Which processor: the stack says it, for ring 3 may not ask the task register everywhere. */
    unsigned number = (unsigned)(((uint64_t)__builtin_frame_address(0) - (uint64_t)user_stacks) /
                                 RING3_STACK);
    for (uint64_t round = 1; lines == 0 || round <= lines || number > 0; round++) {
        check(count_in_registers(LINE_STEPS), "processor %u: registers differ", number);
        counts[number].value++;
        check(counts[number].value == round, "processor %u: memory says %lu, a register %lu",
              number, counts[number].value, round);
        if (number == 0)
            print_line();
    }
    quit(0);
}

static void count(unsigned number)
{
    enter_ring3(ring3_main, user_stacks[number] + RING3_STACK);
}

void guest_main(void)
{
    uint32_t ids[8];
    lines = option("lines", 0);
    cpus = acpi_cpus(ids, array_size(ids));
    if (cpus > 1) {
        apic_enable(false);
        check(cpu_start_others(ids, cpus, count), "a processor did not come");
    }
    count(0);
}
