/* SPDX-License-Identifier: MIT */
/* The PVH note (XEN_ELFNOTE_PHYS32_ENTRY). A guest that is linked without it boots by multiboot. */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18 /* lengths of name and contents, type */
    .asciz "Xen"
    .long start

    .section .note.GNU-stack, "", @progbits
