/* SPDX-License-Identifier: MIT */
/* Expects: jumps to the reset vector, twice, and finds on its disk that it has done so; what it had
 * spoilt in memory is right again. */
#include "bios.inc"

    boot_sector
    say "here\r\n"
    word_must_be 0x413, 639
    word_must_be 0x475, 1
    incw count
    cmpw $3, count
    je done
    movw $0x0301, %ax /* this very sector */
    movw $2, %cx
    movb drive, %dl
    movb $0, %dh
    movw $start + 512, %bx
    int $0x13
    must nc
    movw $0, 0x413
    movb $9, 0x475
    cli
    xorw %di, %di /* no vector is left */
    movw $512, %cx
    xorw %ax, %ax
    rep stosw
    ljmpw $0xffff, $0
done:
    pass

    .balign 2
count:
    .word 0

    end_of_disk
