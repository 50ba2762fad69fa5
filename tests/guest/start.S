/* SPDX-License-Identifier: MIT */
/*
 * From the boot loader to guest_main() in 64-bit mode: the boot processor enters at `start`, the
 * others, when cpu_start_others() wakes them, at ap_trampoline.
 *
 * Page tables and descriptors are made by the assembler: on a host whose KVM interprets the kernel
 * mode of guests, a loop that fills them would take longer than everything else.
 */
#include "guest.h"

#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 2 /* wants the memory map */

#define CR0_PE_MP_PG 0x80000003
#define CR0_EM_TS    0xc
#define CR4_PAE_SSE  0x620 /* PAE, OSFXSR, OSXMMEXCPT: ring 3 may use SSE */
#define MSR_EFER     0xc0000080
#define EFER_SCE_LME 0x101

#define PRESENT_WRITE_USER 7
#define HUGE               0x80

    .section .head, "ax"
    .balign 4
    .long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

    .text
    .code32
    .globl start
start:
    cld
    movl %eax, boot_magic
    movl %ebx, boot_info
    lgdt gdt_pointer
    movl $(stacks + STACK_SIZE), %esp
    call enter_long_mode
    ljmp $KERNEL_CODE, $start64

/* Paging on; the caller then jumps into 64-bit code. Changes eax, ecx, edx. */
enter_long_mode:
    movl %cr4, %eax
    orl $CR4_PAE_SSE, %eax
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_SCE_LME, %eax
    wrmsr
    movl %cr0, %eax
    andl $~CR0_EM_TS, %eax
    orl $CR0_PE_MP_PG, %eax
    movl %eax, %cr0
    ret

    .code64
load_segments:
    movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    ret

start64:
    call load_segments
    xorl %ebp, %ebp
    call guest_start /* never returns */
    ud2

ap_start64:
    movl $1, %ebx
    lock xaddl %ebx, ap_next
    /* stack = stacks + (number + 1) * STACK_SIZE */
    leal 1(%rbx), %esp
    imull $STACK_SIZE, %esp, %esp
    addl $stacks, %esp
    call load_segments
    xorl %ebp, %ebp
    movl %ebx, %edi
    call cpu_start_here /* never returns */
    ud2

/* --- where another processor begins: copied to AP_START, entered in real mode -------------- */

    .balign 16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    .code16
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl (ap_gdt_pointer - ap_trampoline)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $KERNEL_CODE32, $ap_start32
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

    .code32
ap_start32:
    movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %ss
    /* One page for all: only one processor is ever on its way up. */
    movl $ap_early_stack_end, %esp
    call enter_long_mode
    ljmp $KERNEL_CODE, $ap_start64

/* --- interrupts --------------------------------------------------------------------------- */

    .code64
/* 256 stubs of 16 bytes. Where the CPU pushes no error code, a 0 takes its place. */
    .balign 16
    .globl interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

/* Pushes a struct frame and hands it over. */
interrupt_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call handle_interrupt
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

/* --- ring 3 ------------------------------------------------------------------------------- */

/* void enter_ring3(void (*code)(void), void *stack_top): never returns. */
    .globl enter_ring3
enter_ring3:
    movl $(USER_DATA | 3), %eax
    movl %eax, %ds
    movl %eax, %es
    pushq %rax
    subq $8, %rsi /* as if the code had been called */
    pushq %rsi
    pushq $RFLAGS_RING3
    pushq $(USER_CODE | 3)
    pushq %rdi
    iretq

/* --- descriptors and page tables ---------------------------------------------------------- */

    .data
    .balign 16
    .globl gdt, gdt_end
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* KERNEL_CODE32 */
    .quad 0x00af9b000000ffff /* KERNEL_CODE */
    .quad 0x00cf93000000ffff /* KERNEL_DATA */
    .quad 0x00cff3000000ffff /* USER_DATA */
    .quad 0x00affb000000ffff /* USER_CODE */
    .fill MAX_CPUS * 2, 8, 0 /* task state segments, from FIRST_TSS on */
gdt_end:

    .globl gdt_pointer
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

    .balign 4
ap_next:
    .long 1

/* The first MAPPED_GIB gigabytes, each address at itself, open to ring 3 too. */
    .balign 4096
pml4:
    .quad pdpt + PRESENT_WRITE_USER
    .fill 511, 8, 0
pdpt:
    .set gib, 0
    .rept MAPPED_GIB
    .quad page_directories + gib * 4096 + PRESENT_WRITE_USER
    .set gib, gib + 1
    .endr
    .fill 512 - MAPPED_GIB, 8, 0
page_directories:
    .set page, 0
    .rept MAPPED_GIB * 512
    .quad page * 0x200000 + HUGE + PRESENT_WRITE_USER
    .set page, page + 1
    .endr

    .bss
    .balign 4096
    .globl stacks
stacks:
    .skip MAX_CPUS * STACK_SIZE
    .skip 4096
ap_early_stack_end:
    .globl boot_magic, boot_info
boot_magic:
    .skip 4
boot_info:
    .skip 4

    .section .note.GNU-stack, "", @progbits
