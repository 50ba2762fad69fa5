/* SPDX-License-Identifier: MIT */
/* Expects: returns from its boot sector as if it had been called; nothing else boots. */
    .code16
    .globl start
start:
    movw $0x0e00 + '!', %ax
    xorw %bx, %bx
    int $0x10
    lretw
    .org 510
    .byte 0x55, 0xaa
    .section .note.GNU-stack, "", @progbits
