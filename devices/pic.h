/* SPDX-License-Identifier: MIT */
/*
 * The PC's two interrupt controllers: 8259A master (IRQ 0-7) and slave (IRQ 8-15, its INT on the
 * master's input 2), with the edge/level registers of the PIIX.
 *
 * The local APICs are KVM's, this is ours ("split irqchip"). So the machine carries the two
 * signals between them: set_int tells it that INT changed, pic_acknowledge() is the INTA cycle that
 * the processor answers it with. Whether the processor listens (LVT0 of its local APIC) is KVM's to
 * say, in ready_for_interrupt_injection.
 *
 * All functions: any thread, unless said otherwise.
 */
#pragma once

#include "core/bus.h"
#include "devices/device.h"

struct pic;

/*
 * The master's INT pin changed. Called under the pic's lock, on the thread that changed it: it may
 * set a flag and kick a vCPU, and must not call back into the pic.
 */
struct pic_output {
    void (*set_int)(void *ctx, bool level);
    void *ctx;
};

enum { PIC_LINES = 16 };

/* output must outlive the pic. */
int pic_create(struct pic **ret_pic, struct bus *ports, const struct pic_output *output,
               struct err *err) must_check;

/*
 * One level per input; who shares a line combines the levels before. Input 2 belongs to the slave:
 * it and numbers from 16 are ignored. May be called under the lock of the device that owns the
 * line.
 */
void pic_set_line(struct pic *pic, unsigned irq, bool level);

/* The level of INT. Takes no lock: meant for the vCPU's loop. */
bool pic_pending(const struct pic *pic);

/*
 * The INTA cycle: marks the best request as in service and returns its vector. A request that went
 * away between INT and INTA gives the vector of input 7 and marks nothing, as on the chip.
 */
int pic_acknowledge(struct pic *pic);

struct device *pic_device(struct pic *pic);
