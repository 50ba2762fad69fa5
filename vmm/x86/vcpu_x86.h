/* SPDX-License-Identifier: MIT */
/* What an x86 machine asks of its vCPUs beyond vmm/vcpu.h. */
#pragma once

#include "firmware/x86/boot.h"
#include "vmm/vcpu.h"

/* The PIC's INT pin of the boot vCPU changed. (any thread) */
void vcpu_x86_set_extint(struct vcpu *vcpu, bool level);

/* After a state was loaded: what KVM said of the old one no longer holds. PAUSED only. */
void vcpu_x86_forget_interrupts(struct vcpu *vcpu);

/* Puts the boot vCPU, fresh from reset, where the boot protocol wants it. PAUSED only. */
int vcpu_x86_enter(struct vcpu *vcpu, const struct cpu_entry *entry, struct err *err) must_check;
