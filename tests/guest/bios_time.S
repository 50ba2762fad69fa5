/* SPDX-License-Identifier: MIT */
/*
 * Expects: ticks come by IRQ 0 and INT 1Ch, waits end, and the clock has a date.
 *
 * It halts where it waits for a tick: a KVM that interprets real mode may look for interrupts
 * nowhere else, and a loop without an exit could only be killed.
 */
#include "bios.inc"

#define VECTOR_13 0x13 * 4
#define VECTOR_1C 0x1c * 4
#define TICKS     0x46c
#define MIDNIGHT  0x470

    boot_sector
    cli
    movw $handler, VECTOR_1C
    movw $0, VECTOR_1C + 2
    sti

    /* Five ticks, of 55 ms each. */
1:
    hlt
    cmpw $5, count
    jb 1b

    /* A program that has hooked INT 13h calls on with interrupts on, and the tick's handler calls
     * the BIOS too: each gets its own answer. */
    movb $1, busy
1:
    movw $0x4100, %ax
    movw $0x55aa, %bx
    movw $0, %cx
    movb drive, %dl
    sti
    pushfw
    lcallw *VECTOR_13
    must nc
    must_be %bx, 0xaa55
    must_be %cx, 5
    cmpw $15, count
    jb 1b
    movb $0, busy

    /* A wait of 150 ms gives the registers back. */
    movl $0xaaaa0002, %ecx
    movl $0xbbbb49f0, %edx
    movl $0x12348600, %eax
    int $0x15
    must nc
    must_be %ecx, 0xaaaa0002
    must_be %edx, 0xbbbb49f0
    must_be %ah, 0

    /* Midnight. */
    movb $1, %ah
    movw $0x0018, %cx
    movw $0x00af, %dx /* the day's last tick */
    int $0x1a
    must nc
1:
    hlt
    cmpw $0x0018, TICKS + 2
    je 1b
    movb $0, %ah
    int $0x1a
    must_be %al, 1
    must_be %cx, 0
    movb $0, %ah
    int $0x1a
    must_be %al, 0

    /* The clock: this century, a month, a day. */
    movb $4, %ah
    int $0x1a
    must nc
    must_be %ch, 0x20
    cmpb $0x12, %dh
    must be
    cmpb $0x31, %dl
    must be
    movb $2, %ah
    int $0x1a
    must nc
    cmpb $0x23, %ch
    must be
    cmpb $0x59, %cl
    must be
    say "good\r\n"
    pass

handler:
    incw %cs:count
    cmpb $0, %cs:busy
    je 1f
    pushaw
    movb $0, %ah
    int $0x1a
    popaw
1:
    iret

    .balign 2
count:
    .word 0
busy:
    .byte 0

    end_of_disk
