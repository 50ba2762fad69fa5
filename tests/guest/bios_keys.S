/* SPDX-License-Identifier: MIT */
/* Expects: the keys a, up, F1 and enter, with their scan codes, after it has said "ready"; while it
 * waits for one more a timer handler asks for other services. */
#include "bios.inc"

#define VECTOR_1C 0x1c * 4

    boot_sector
    movb $1, %ah
    int $0x16
    must z
    cli
    movw $handler, VECTOR_1C
    movw $0, VECTOR_1C + 2
    sti
    movl $0x22222222, %ebx
    movl $0x33333333, %ecx
    movl $0x44444444, %edx
    movl $0x55555555, %esi
    movl $0x77777777, %ebp
    movw $0x1234, %ax
    movw %ax, %es
    call ready
    movw $keys, %di
1:
    movl $0x66660000, %eax
    int $0x16
    cmpw (%di), %ax
    must e
    addw $2, %di
    cmpw $keys_end, %di
    jb 1b
    must_be %ebx, 0x22222222
    must_be %ecx, 0x33333333
    must_be %edx, 0x44444444
    must_be %esi, 0x55555555
    must_be %ebp, 0x77777777
    movw %es, %bx
    must_be %bx, 0x1234
    shrl $16, %eax
    must_be %ax, 0x6666

    /* One that the timer handler presses, after a while. */
    movw $0, ticks
    movb $0, %ah
    int $0x16
    must_be %ax, 0x1234
    cmpw $3, ticks
    must ae
    movb $0x11, %ah
    int $0x16
    must z
    pass

ready:
    pushal
    say "ready\r\n"
    popal
    ret

/* Asks a service with all registers changed: the interrupted one must not notice. */
handler:
    pushal
    pushw %ds
    pushw %es
    xorw %ax, %ax
    movw %ax, %ds
    incw ticks
    movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $20, %ecx
    xorl %ebx, %ebx
    movw $BUFFER >> 4, %di
    movw %di, %es
    xorw %di, %di
    int $0x15
    movw $0x0501, %ax
    movw $0x1234, %cx
    cmpw $3, ticks
    jne 1f
    int $0x16
1:
    popw %es
    popw %ds
    popal
    iret

    .balign 2
ticks:
    .word 0x8000 /* far from any tick on which something is to happen */
keys:
    .word 0x1e61, 0x4800, 0x3b00, 0x1c0d
keys_end:

    end_of_disk
