/* SPDX-License-Identifier: MIT */
/*
 * The BIOS's guest half: what bios_load() copies to LAYOUT_BIOS. Kept small, because a host without
 * hardware virtualization runs it at 2 million instructions a second, and every OUT costs 10 us.
 *
 * A service interrupt puts the caller's registers into the mailbox and writes to BIOS_PORT; when
 * the OUT is over, the service has been done (bios.c). Everything of a call lives in registers, in
 * the mailbox only while interrupts are off, or on the caller's stack: a timer handler may call any
 * service in the middle of another one's wait.
 */
#include "firmware/x86/bios_mailbox.h"

#define AT(label)   (label - bios_image + BIOS_OFFSET)
#define MAIL(field) %cs:(BIOS_OFFSET + MAILBOX_##field)

/* The BIOS data area, by segment 40h. */
#define BDA_TICKS     0x6C
#define BDA_MIDNIGHT  0x70
#define TICKS_PER_DAY 0x1800B0

#define FLAG_CARRY 1

#define PIC1        0x20
#define PIC2        0xA0
#define READ_ISR    0x0B
#define EOI         0x20
#define PIT_CONTROL 0x43
#define PIT_0       0x40
#define I8042       0x64
#define PULSE_RESET 0xFE

    .section .rodata
    .code16
    .balign 16
    .globl bios_image, bios_image_end
bios_image:
    .fill MAILBOX_VECTOR, 1, 0
    .word BIOS_NO_VECTOR
    .fill MAILBOX_SIZE - MAILBOX_VECTOR - 2, 1, 0
    .balign 4

/* --- power-on ------------------------------------------------------------------------------- */

    .macro send port, value
    movb $\value, %al
    outb %al, $\port
    .endm

/* In real mode, interrupts off, with a stack. All that lies in memory is there already. */
post:
    send PIC1, 0x11 /* ICW1: cascade, edge, ICW4 follows */
    send PIC1 + 1, 0x08 /* ICW2: the first vector */
    send PIC1 + 1, 0x04 /* ICW3: the slave is at input 2 */
    send PIC1 + 1, 0x01 /* ICW4: 8086 */
    send PIC1 + 1, 0xFA /* all masked but the timer and the slave */
    send PIC2, 0x11
    send PIC2 + 1, 0x70
    send PIC2 + 1, 0x02
    send PIC2 + 1, 0x01
    send PIC2 + 1, 0xFF
    send PIT_CONTROL, 0x34 /* counter 0, both bytes, rate generator */
    send PIT_0, 0 /* 65536: 18.2 times a second */
    send PIT_0, 0
    int $0x19

/* The reset vector: the machine begins anew, and comes back at post. */
restart:
    send I8042, PULSE_RESET
halt:
    cli
    hlt
    jmp halt

/* --- services ------------------------------------------------------------------------------- */

/* INT has switched interrupts off; a program that has hooked the vector and calls on may not have:
 * and an interrupt's own call would find the mailbox taken. */
    .macro service number
service_\number:
    cli
    movw $0x\number, MAIL(VECTOR)
    jmp service
    .endm

    service 10
    service 11
    service 12
    service 13
    service 14
    service 16
    service 17
    service 18
    service 19
    service 1a

service_15:
    cli
    cmpb $0x86, %ah
    je sleep
asleep:
    movw $0x15, MAIL(VECTOR)

service:
    movl %eax, MAIL(EAX)
    movl %ebx, MAIL(EBX)
    movl %ecx, MAIL(ECX)
    movl %edx, MAIL(EDX)
    movl %esi, MAIL(ESI)
    movl %edi, MAIL(EDI)
    movl %ebp, MAIL(EBP)
    movw %ds, MAIL(DS)
    movw %es, MAIL(ES)
    movw %sp, %bp
    movw 4(%bp), %ax
    movw %ax, MAIL(FLAGS)
    outb %al, $BIOS_PORT
    cmpw $BIOS_DONE, MAIL(ACTION)
    jne act
    movw MAIL(FLAGS), %ax
    movw %ax, 4(%bp)
    call load_registers
    iret

load_registers:
    movl MAIL(EAX), %eax
    movl MAIL(EBX), %ebx
    movl MAIL(ECX), %ecx
    movl MAIL(EDX), %edx
    movl MAIL(ESI), %esi
    movl MAIL(EDI), %edi
    movl MAIL(EBP), %ebp
    movw MAIL(ES), %es
    ret

act:
    movw MAIL(ACTION), %ax
    cmpw $BIOS_BOOT, %ax
    je boot
    cmpw $BIOS_HALT, %ax
    je halt
    pushw MAIL(VECTOR) /* the mailbox is anybody's while interrupts are on */
    cmpw $BIOS_WAIT, %ax
    call load_registers
    jne again
    sti
    hlt /* no interrupt comes between the two */
again:
    sti
    nop
    cli
    popw MAIL(VECTOR)
    jmp service

boot:
    xorw %ax, %ax
    movw %ax, %ss
    movw $0x7C00, %sp
    movw %ax, %ds
    pushw %cs
    call start_loaded
    int $0x18 /* where a loader gets to that returns */
start_loaded:
    call load_registers
    sti
    ljmpw *MAIL(ENTRY_IP)

/* INT 15h, AH=86h: its rounds count CX:DX down, and the caller gets them back as they were. */
sleep:
    pushw %cx
    pushw %dx
    pushfw
    pushw %cs
    call asleep
    popw %dx
    popw %cx
    pushw %bp
    movw %sp, %bp
    andw $~FLAG_CARRY, 6(%bp)
    popw %bp
    iret

/* --- hardware interrupts -------------------------------------------------------------------- */

timer:
    pushw %ax
    pushw %ds
    movw $0x40, %ax
    movw %ax, %ds
    incl BDA_TICKS
    cmpl $TICKS_PER_DAY, BDA_TICKS
    jb 1f
    movl $0, BDA_TICKS
    movb $1, BDA_MIDNIGHT
1:
    int $0x1C
    send PIC1, EOI
    popw %ds
    popw %ax
    iret

/* A request that went away is in nobody's service, and ending it would end another one's. */
other_master:
    pushw %ax
    send PIC1, READ_ISR
    inb $PIC1, %al
    testb %al, %al
    jz 1f
    send PIC1, EOI
1:
    popw %ax
nothing:
    iret

other_slave:
    pushw %ax
    send PIC2, READ_ISR
    inb $PIC2, %al
    testb %al, %al
    jz 1f
    send PIC2, EOI
1:
    send PIC1, EOI
    popw %ax
    iret

/* --- data ----------------------------------------------------------------------------------- */

/* INT 1Eh: boot sectors of floppies copy it (3.5", 1.44 MB). */
floppy_table:
    .byte 0xAF, 0x02, 0x25, 2, 18, 0x1B, 0xFF, 0x6C, 0xF6, 0x0F, 0x08

/* INT 15h, AH=C0h: length of the rest, model (an AT), submodel, revision; a second interrupt
 * controller, a real-time clock, an extended BIOS data area. */
config_table:
    .word 8
    .byte 0xFC, 0, 0, 0x64, 0, 0, 0, 0
bios_image_end:

/* --- where everything is, for bios_load() ----------------------------------------------------- */

    .balign 2
    .globl bios_vectors, bios_post, bios_restart, bios_floppy_table, bios_config_table
bios_vectors:
    .rept 8
    .word AT(nothing)
    .endr
    .word AT(timer)
    .rept 7
    .word AT(other_master)
    .endr
    .word AT(service_10), AT(service_11), AT(service_12), AT(service_13)
    .word AT(service_14), AT(service_15), AT(service_16), AT(service_17)
    .word AT(service_18), AT(service_19), AT(service_1a)
    .rept 0x70 - 0x1B
    .word AT(nothing)
    .endr
    .rept 8
    .word AT(other_slave)
    .endr
bios_post:
    .word AT(post)
bios_restart:
    .word AT(restart)
bios_floppy_table:
    .word AT(floppy_table)
bios_config_table:
    .word AT(config_table)

    .section .note.GNU-stack, "", @progbits
