/* SPDX-License-Identifier: MIT */
/* The machine from inside: only for the machine_*.c files. */
#pragma once

#include "core/clock.h"
#include "core/histogram.h"
#include "core/irq.h"
#include "core/log.h"
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/pci.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/vmgenid.h"
#include "firmware/x86/bios.h"
#include "firmware/x86/boot.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/virtio_pci.h"
#include "virtio/vsock.h"
#include "vmm/machine.h"
#include "vmm/routes.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/vcpu_state.h"

enum { MACHINE_MAX_DEVICES = 96 };

struct machine_disk {
    struct machine *machine;
    char name[16];
    const char *path;
    struct disk *disk;
    struct blk *blk;
    int told; /* the error that was reported last */
    uint64_t told_ns;
};

struct machine_net {
    struct machine *machine;
    char name[16];
    struct netif *netif;
    struct net *net;
    struct log_limit limit;
};

/* Guest time, as the platform's timers count it: a section of the machine's state. */
struct clock_state {
    uint64_t guest_ns;
};

extern const struct state_table clock_state_table;

struct machine {
    struct machine_config config;
    struct loop *loop;
    struct boot_image *image;
    struct memory *memory;
    struct guest_clock clock;
    bool running; /* between resume and pause */

    /* Pauses that have ended: from the order to stand still to the last vCPU's going on. */
    struct histogram pauses;
    uint64_t longest_pause_ns;
    uint64_t paused_ns; /* when the last one began; 0: it stands at power-on */

    _Atomic unsigned throttle; /* percent of the time that vCPUs sleep */
    _Atomic uint64_t brake_ns; /* from then on nearly all of it; 0: never */
    struct loop_timer throttle_timer;

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
    struct irq_chip intx;
    struct doorbell_board doorbells;
    struct routes *routes;
    uint64_t pci64_base, pci64_size; /* the window above all RAM; size 0: none fits */
    struct virtio_world virtio_world;
    bool ending; /* the VM is about to be closed as a whole */

    /* The list, in the order of creation, and those of them that the machine speaks to. */
    struct device *devices[MACHINE_MAX_DEVICES];
    unsigned device_count;
    struct pic *pic;
    struct ioapic *ioapic;
    struct pit *pit;
    struct rtc *rtc;
    struct i8042 *i8042;
    struct acpi_pm *acpi_pm;
    struct vmgenid *vmgenid;
    struct serial *serial;
    struct exit_port *exit_port;
    struct pci_bus *pci;
    struct bios *bios;
    struct balloon *balloon;
    struct console *console;
    struct vsock *vsock;

    /* What the host lends, in the order of the definition. Outlives the devices. */
    struct machine_disk disks[MACHINE_MAX_DISKS];
    struct bios_drive drives[MACHINE_MAX_DISKS]; /* the same, as our BIOS sees them */
    struct machine_net nets[MACHINE_MAX_NETS];
    struct shared_limits *disk_limits, *net_limits; /* NULL: there never will be any */
    _Atomic(struct loop_call *) announced_call;     /* who hears of an announcement; NULL */

    /* What the guest, or somebody outside, wants of the whole machine: the first wish counts. */
    pthread_mutex_t lock;
    enum machine_outcome wish; /* 0: none */
    struct machine_end end;
    struct loop_call wish_call;
    struct err reset_error; /* why a reset did not work */
};

/* Opens /dev/kvm and builds VM, memory and vCPUs, with their power-on state saved. */
int machine_lay_ground(struct machine *machine, struct err *err) must_check;

/* What the host has to say of a CPU model, and the machine. */
struct cpuid_config machine_cpuid_config(const struct kvm *kvm, unsigned cpus);

/* The BIOS has nothing to boot: the guest's last wish. On a vCPU's thread. */
void machine_handle_unbootable(void *ctx, const char *why);

/* Fills in how devices reach KVM and each other. Before any device is created. */
void machine_wire(struct machine *machine);
void machine_watch_misses(struct machine *machine);

/* The one list. */
int machine_add_devices(struct machine *machine, struct err *err) must_check;
void machine_add_device(struct machine *machine, struct device *device);

/* Puts a virtio device into a slot; it belongs to the list from now on, also after an error. */
int machine_plug(struct machine *machine, unsigned slot, struct virtio *virtio,
                 struct err *err) must_check;
int machine_make_limits(struct machine *machine, struct err *err) must_check;
int machine_add_disk(struct machine *machine, unsigned index, struct err *err) must_check;
int machine_add_net(struct machine *machine, unsigned index, struct err *err) must_check;
/* No vCPU waits for a disk in our BIOS from here on, or may again. */
void machine_interrupt_disks(struct machine *machine, bool interrupt);
void machine_show_drives(struct machine *machine); /* fills in `drives` */
void machine_close_host(struct machine *machine);  /* disks and interfaces; after the devices */

/* Power-on state of the vCPUs, kernel loaded, boot vCPU at its entry. Paused only. */
int machine_boot(struct machine *machine, struct err *err) must_check;
