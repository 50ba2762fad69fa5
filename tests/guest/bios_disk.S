/* SPDX-License-Identifier: MIT */
/* Expects: INT 13h reads and writes a disk of 256 sectors, and refuses what it cannot do. */
#include "bios.inc"

#define SECTORS 256

    boot_sector
    say "disk\r\n"

    /* By cylinder, head and sector: the sector that this is. */
    call to_buffer
    movw $0x0201, %ax
    movw $1, %cx
    movb $0, %dh
    int $0x13
    must nc
    must_be %ax, 1
    word_must_be %es:510, 0xaa55
    movw $0x0201, %ax
    movw $0, %cx /* sector 0 is none */
    int $0x13
    must c
    must_be %ah, 1
    movw $0x02ff, %ax
    movw $3, %cx /* 255 from the third on: the last one is not there */
    int $0x13
    must c
    must_be %ax, 0x0400
    movw $0x02ff, %ax
    movw $1, %cx
    movw $0xffff, %bx /* up to behind 1 MiB and 64 KiB */
    movw %bx, %es
    int $0x13
    must c
    must_be %ah, 9
    call to_buffer

    /* Parameters and type. */
    movb $0x08, %ah
    int $0x13
    must nc
    must_be %dx, 0xfe01
    must_be %cx, 63
    movb drive, %dl
    movb $0x15, %ah
    int $0x13
    must nc
    must_be %ah, 3
    must_be %cx, 0
    must_be %dx, SECTORS
    movb $0x08, %ah
    movb $0, %dl /* no floppy */
    int $0x13
    must c

    /* The extensions. */
    movb drive, %dl
    movw $0x4100, %ax
    movw $0x55aa, %bx
    int $0x13
    must nc
    must_be %bx, 0xaa55
    movb $0x48, %ah
    movw $parameters, %si
    int $0x13
    must nc
    word_must_be parameters, 0x1e
    word_must_be parameters + 16, SECTORS
    word_must_be parameters + 24, 512

    /* Write the last sector, and read it back to another place. */
    movw $packet, %si
    movw %si, %es:0
    movl $0x12345678, %es:508
    movw $0x4300, %ax
    int $0x13
    must nc
    movl $0, %es:508
    movl $0xffffffff, packet_buffer /* then by the flat address, 16 bytes further */
    movw $0x4200, %ax
    int $0x13
    must nc
    cmpl $0x12345678, %es:508 + 16
    must e
    word_must_be packet_count, 1

    /* Past the end, a count that wraps, a buffer where no memory is. */
    incw packet_sector
    call read_packet
    must_be %ah, 4
    word_must_be packet_count, 0
    movl $0xffffffff, packet_sector
    movl $0xffffffff, packet_sector + 4
    movw $127, packet_count
    call read_packet
    must_be %ah, 4
    movw $0xff, packet_count
    call read_packet
    must_be %ah, 1
    movl $0, packet_sector
    movl $0, packet_sector + 4
    movw $1, packet_count
    movl $0xfffffff0, packet_flat
    call read_packet
    must_be %ah, 9
    movw $1, packet_count /* the answer was 0 */
    movl $1, packet_flat + 4
    movl $0xffffffff, packet_flat
    call read_packet
    must_be %ah, 9
    movb $0x01, %ah /* and that stays the last status */
    int $0x13
    must c
    must_be %ah, 9
    movw $0x4b01, %ax /* no CD */
    int $0x13
    must c
    say "good\r\n"
    pass

/* Must fail. */
read_packet:
    movb drive, %dl
    movw $packet, %si
    movw $0x4200, %ax
    int $0x13
    must c
    ret

to_buffer:
    movw $BUFFER >> 4, %ax
    movw %ax, %es
    xorw %bx, %bx
    ret

    .balign 8
packet:
    .byte 0x18, 0
packet_count:
    .word 1
packet_buffer:
    .word 0, BUFFER >> 4
packet_sector:
    .quad SECTORS - 1
packet_flat:
    .quad BUFFER + 16

parameters:
    .word 0x1e
    .fill 0x1c, 1, 0

    end_of_disk
