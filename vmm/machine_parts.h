/* SPDX-License-Identifier: MIT */
/* The machine from inside: only for the machine_*.c files. */
#pragma once

#include "core/clock.h"
#include "core/irq.h"
#include "core/log.h"
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "firmware/x86/boot.h"
#include "vmm/machine.h"
#include "vmm/x86/vcpu_state.h"

enum { MACHINE_MAX_DEVICES = 64 };

struct machine {
    struct machine_config config;
    struct loop *loop;
    struct boot_image *image;
    struct memory *memory;
    struct guest_clock clock;
    bool running; /* between resume and pause */

    struct kvm kvm;
    int vm;
    struct vcpu_state_caps caps;
    struct vcpu **vcpus;
    struct vcpu_state *power_on; /* one for each vCPU: what a reset goes back to */
    struct vcpu_world world;

    struct bus *ports, *mmio;
    struct log_limit miss_limit;
    struct irq_chip isa;
    struct msi_sink msi;
    struct power power;
    struct pic_output pic_output;
    struct ioapic_listener ioapic_listener;

    /* The list, in the order of creation, and those of them that the machine speaks to. */
    struct device *devices[MACHINE_MAX_DEVICES];
    unsigned device_count;
    struct pic *pic;
    struct ioapic *ioapic;
    struct pit *pit;
    struct rtc *rtc;
    struct i8042 *i8042;
    struct acpi_pm *acpi_pm;
    struct serial *serial;
    struct exit_port *exit_port;

    /* What the guest, or somebody outside, wants of the whole machine: the first wish counts. */
    pthread_mutex_t lock;
    enum machine_outcome wish; /* 0: none */
    struct machine_end end;
    struct loop_call wish_call;
    struct err reset_error; /* why a reset did not work */
};

/* Opens /dev/kvm and builds VM, memory and vCPUs, with their power-on state saved. */
int machine_lay_ground(struct machine *machine, struct err *err) must_check;

/* Power-on state of the vCPUs, kernel loaded, boot vCPU at its entry. Paused only. */
int machine_boot(struct machine *machine, struct err *err) must_check;
