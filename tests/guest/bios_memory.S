/* SPDX-License-Identifier: MIT */
/* Expects: registers and flags survive a call; INT 11h, 12h and 15h describe 64 MiB of memory. */
#include "bios.inc"

#define SMAP 0x534d4150
#define MIB  0x100000

    boot_sector
    /* A call changes what it says, and nothing else: 32 bits of each register, DF and IF. */
    std
    movl $0x11112402, %eax
    movl $0x22222222, %ebx
    movl $0x33333333, %ecx
    movl $0x44444444, %edx
    movl $0x55555555, %esi
    movl $0x66666666, %edi
    movl $0x77777777, %ebp
    movw $0x1234, %es:0x600
    int $0x15
    must nc
    pushfw
    cld
    must_be %eax, 0x11110001
    must_be %ebx, 0x22222222
    must_be %ecx, 0x33333333
    must_be %edx, 0x44444444
    must_be %esi, 0x55555555
    must_be %edi, 0x66666666
    must_be %ebp, 0x77777777
    popw %ax
    andw $0x600, %ax
    must_be %ax, 0x600
    must_be %sp, 0x7c00

    int $0x11
    must_be %ax, 0x222
    int $0x12
    must_be %ax, 639

    /* E820: ascending, and as much RAM above 1 MiB as there is. */
    xorl %ebx, %ebx
    xorl %ebp, %ebp
next:
    movl $0xe820, %eax
    movl $24, %ecx
    movl $SMAP, %edx
    movw $entry, %di
    int $0x15
    must nc
    must_be %eax, SMAP
    must_be %ecx, 24
    cmpw $1, entry + 16
    jne 1f
    cmpl $MIB, entry
    jb 1f
    addl entry + 8, %ebp
1:
    testl %ebx, %ebx
    jnz next
    must_be %ebp, (63 * MIB)
    movl $0xe820, %eax
    movl $0x80000000, %ebx /* nothing that we were told */
    int $0x15
    must c

    movw $0xe801, %ax
    int $0x15
    must nc
    must_be %ax, 15360
    must_be %bx, 768
    movb $0x88, %ah
    int $0x15
    must nc
    must_be %ax, 64512

    /* Four bytes to 32 MiB and back; then a word behind the end of the memory. */
    movw $2, %cx
    movw $table, %si
    movb $0x87, %ah
    int $0x15
    must nc
    movw $word_back, target + 2
    movl $0x9300, target + 4
    movw $0, table + 0x12
    movl $0x02009300, table + 0x14 /* from 32 MiB */
    movw $2, %cx
    movb $0x87, %ah
    int $0x15
    must nc
    cmpl $0xfeedbeef, word_back
    must e
    movl $0x04009300, table + 0x14 /* from 64 MiB */
    movb $0x87, %ah
    int $0x15
    must c
    must_be %ah, 2
    movb $0x87, %ah
    movw $0xffff, %cx
    int $0x15
    must c

    movb $0xc0, %ah
    int $0x15
    must nc
    cmpw $8, %es:(%bx)
    must e
    movb $0xc1, %ah
    int $0x15
    must nc
    cmpb $1, %es:0 /* KiB */
    must e
    movb $0x41, %ah
    int $0x15
    must c
    must_be %ah, 0x86
    movw $0xb101, %ax
    int $0x1a
    must nc
    must_be %edx, 0x20494350 /* "PCI " */
    say "good\r\n"
    pass

    .balign 8
entry:
    .fill 24, 1, 0
word:
    .long 0xfeedbeef
word_back:
    .long 0
table:
    .fill 16, 1, 0
    .word 0xffff, word
    .long 0x9300
target:
    .word 0xffff, 0
    .long 0x02009300
    .fill 16, 1, 0

    end_of_disk
