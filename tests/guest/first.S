/* SPDX-License-Identifier: MIT */
/* Expects: resets by its first instructions: what a machine costs until it runs. For --no-reboot.
 * Where there is no keyboard controller (other monitors, as peers) a triple fault does it. */
    .section .head, "ax"
    .code32
    .globl start
start:
    movb $0xfe, %al
    outb %al, $0x64
    lidt nothing
    ud2
nothing:
    .word 0
    .long 0

    .section .note.GNU-stack, "", @progbits
