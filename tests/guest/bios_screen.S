/* SPDX-License-Identifier: MIT */
/* Expects: its words in their places; then it drives the port itself, and INT 10h is silent. */
#include "bios.inc"

    boot_sector
    movw $0x0003, %ax
    int $0x10
    say "top\r\n"
    movb $0x02, %ah
    movw $0x0509, %dx
    xorw %bx, %bx
    int $0x10
    movw $0x09c4, %ax /* a line of five */
    movw $0x0070, %bx
    movw $5, %cx
    int $0x10
    movb $0x03, %ah
    int $0x10
    must_be %dx, 0x0509
    movw $0x0e00 + 'x', %ax
    int $0x10
    movb $0x03, %ah
    int $0x10
    must_be %dx, 0x050a
    movb $0x0f, %ah
    int $0x10
    must_be %ax, 0x5003
    movw $0x1301, %ax
    movw $7, %bx
    movw $6, %cx
    movw $0x0a00, %dx
    movw $string, %bp
    int $0x10
    movw $0x4f00, %ax
    int $0x10
    cmpb $0x4f, %al
    must ne

    /* Everything is more than there is. */
    movw $0x0920, %ax
    movw $0xffff, %cx
    int $0x10
    movw $0x0607, %ax
    movw $0xff07, %bx
    xorw %cx, %cx
    movw $0xffff, %dx
    int $0x10
    movb $0x02, %ah
    movw $0xffff, %dx
    int $0x10
    say "\r\nend\r\n"
    movw $SERIAL, %dx
    movb $'=', %al
    outb %al, %dx
    say "never seen"
    pass

string:
    .ascii "string"

    end_of_disk
