/* SPDX-License-Identifier: MIT */
/*
 * The machine: guest memory, vCPUs and devices as one list, from power-on to its end.
 *
 * One thread owns a machine: it creates it, runs its main loop, pauses, saves and destroys it.
 * Functions marked (any thread) are the exceptions.
 */
#pragma once

#include "core/loop.h"
#include "core/stream.h"
#include "devices/serial.h"
#include "host/disk.h"
#include "host/netif.h"
#include "virtio/console.h"
#include "virtio/vsock.h"
#include "vmm/cpu_model.h"
#include "vmm/vcpu.h"

struct machine;

/* As many as slots of the PCI bus are kept for them (firmware/x86/layout.h). */
enum { MACHINE_MAX_DISKS = 19, MACHINE_MAX_NETS = 8 };

struct machine_config {
    const char *kernel;  /* what boots: bzImage, PVH or multiboot ELF; NULL: a disk, by our BIOS */
    const char *initrd;  /* or NULL */
    const char *cmdline; /* or NULL */
    unsigned cpus;
    enum cpu_model cpu;
    uint64_t memory; /* bytes, a multiple of the page size */
    uint8_t uuid[16];
    uint8_t generation[16]; /* the VM generation id; all zero: a random one */
    bool stop_at_reset;     /* the guest's reboot ends the run */
    bool exit_port;         /* the port with which test guests say how they ended */
    bool blank; /* nothing is loaded into guest memory: it comes with a state, before the first run
                 */
    const struct serial_host *serial;   /* outlives the machine */
    const struct console_host *console; /* the same; NULL: no virtio console */
    const struct disk_config *disks;    /* outlive the machine; the place here gives the slot */
    unsigned disk_count;
    const struct netif_config *nets;
    unsigned net_count;
    bool net_optional; /* without a network rather than not at all; the log says why */
    /* Of all disks, and of all interfaces, together; beside those of each. */
    struct limits disk_limits, net_limits;
    bool limits_may_change;    /* machine_set_*_limits will do, also where there are none yet */
    struct vsock_config vsock; /* path NULL: none */
    bool no_balloon;
    uint64_t balloon; /* bytes that the guest shall do without */
    /* What a person was just told of "disk0", "net0"...; on any thread, and must not block. NULL:
     * nobody else listens. */
    void (*trouble)(void *ctx, const char *device, const char *sentence);
    void *ctx;
};

enum machine_outcome {
    MACHINE_OFF = 1,    /* the guest powered off */
    MACHINE_RESET,      /* it rebooted, and the run ends there */
    MACHINE_EXIT,       /* it wrote to the exit port */
    MACHINE_CRASHED,    /* it cannot go on: crash says why */
    MACHINE_STOPPED,    /* machine_stop() */
    MACHINE_UNBOOTABLE, /* no disk boots: crash.reason says why */
};

struct machine_end {
    enum machine_outcome outcome;
    unsigned code; /* MACHINE_EXIT */
    struct vcpu_crash crash;
};

/* After: the machine stands paused at power-on, its kernel loaded unless it is to be blank. */
int machine_create(struct machine **ret_machine, const struct machine_config *config,
                   struct err *err) must_check;
void machine_destroy(struct machine *machine); /* NULL and half-built are fine */

/* The main loop, to which the owner may add what it likes. */
struct loop *machine_loop(struct machine *machine);

/* Handles events until the guest's end or machine_stop(); whether it runs meanwhile is the caller's
 * to say, before and at any time. After: paused. */
int machine_run(struct machine *machine, struct machine_end *ret_end, struct err *err) must_check;
void machine_stop(struct machine *machine); /* (any thread) */

/* Its guest, or somebody, has just asked for its end or its reset, which is not part of its state:
 * the main loop does it next. */
bool machine_has_wish(struct machine *machine);

void machine_press_power_button(struct machine *machine); /* (any thread) */
void machine_send_break(struct machine *machine);         /* serial */
/* To the virtio console where the guest has a driver for it, else to the serial port: boot loaders
 * have none. */
size_t machine_input(struct machine *machine, const uint8_t *bytes, size_t length);
/* The hosts of the serial port and the virtio console take output again. (any thread) */
void machine_output_room(struct machine *machine);
/* Of the terminal, for a console that wants to know. (any thread) */
void machine_set_console_size(struct machine *machine, unsigned columns, unsigned rows);

/*
 * pause: first the vCPUs, then the devices, then time. resume is its mirror. After a pause nothing
 * of the machine moves and all state can be read.
 */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);
bool machine_runs(const struct machine *machine); /* resumed, and not paused since */

/* The guest gets so many percent less of the time, from now on; 0: all of it again. Any thread. */
void machine_throttle(struct machine *machine, unsigned percent);

/* From `ns` (monotonic) on it has next to nothing of the time, until that is another moment; 0: no
 * such one. Any thread. */
void machine_brake(struct machine *machine, uint64_t ns);

/* A vCPU's registers and the top of its stack, for a person. Paused only. */
void machine_describe_vcpu(const struct machine *machine, unsigned id, char ret_text[VCPU_TEXT]);

/* Power-on state, kernel loaded again. Paused only. */
int machine_reset(struct machine *machine, struct err *err) must_check;
/* The same, and what the guest has asked for is forgotten: another machine_run may follow. */
int machine_restart(struct machine *machine, struct err *err) must_check;

/* The VM goes on from a copied or a past state: its guest learns of it at once, or at the resume.
 * After a load, which brings the id of its state. */
void machine_set_generation(struct machine *machine, const uint8_t id[16]);

/* The network learns where the guest is now: after a load, somewhere else. Paused or not. False:
 * there is none as yet that could hear of it. */
bool machine_announce(struct machine *machine);
/* The call is posted to the main loop once, when the next announcement has left. Before that. */
void machine_hear_announcement(struct machine *machine, struct loop_call *call);
/* When the guest sent its first frame here, by clock_boot_ns; 0: it did not. What machine_announce
 * says is ours. Any thread. */
uint64_t machine_first_frame(const struct machine *machine);

/*
 * Work in which the threads of the vCPUs help while the machine is paused: work(arg) is called here
 * and, as they come, on theirs at the same time. A call takes one piece after the other until none
 * is left; this returns when all that have begun are done.
 */
void machine_share_work(struct machine *machine, void (*work)(void *arg), void *arg);

/*
 * While it runs, or paused; at once. An index of nothing is ERR_NOT_FOUND; what this machine cannot
 * do, ERR_STATE.
 */
int machine_set_link(struct machine *machine, unsigned net, bool up, struct err *err) must_check;
int machine_set_balloon(struct machine *machine, uint64_t bytes, struct err *err) must_check;
uint64_t machine_balloon(struct machine *machine); /* bytes that the guest does without now */
int machine_set_disk_limits(struct machine *machine, unsigned disk, const struct limits *limits,
                            struct err *err) must_check;
int machine_set_net_limits(struct machine *machine, unsigned net, const struct limits *limits,
                           struct err *err) must_check;
/* Of all of them together; NULL: as they were. */
int machine_set_shared_limits(struct machine *machine, const struct limits *disks,
                              const struct limits *nets, struct err *err) must_check;

/*
 * All state but guest memory, as a set of sections (core/state.h). Paused only. A load that fails
 * leaves the machine as it was.
 */
int machine_save(struct machine *machine, struct stream *stream, struct err *err) must_check;
int machine_load(struct machine *machine, struct stream *stream, struct err *err) must_check;
/*
 * Whether it can be loaded. Nothing writes guest memory, then or later; so this machine does not
 * run until a state is loaded.
 */
int machine_try(struct machine *machine, struct stream *stream, struct err *err) must_check;

/*
 * A save in two steps, for who lets the machine go on in between: take what it is, while it is
 * paused; write that. Room is made once for any number of them.
 */
struct machine_record;
int machine_record_create(struct machine_record **ret_record, struct machine *machine,
                          struct err *err) must_check;
int machine_record_take(struct machine_record *record, struct err *err) must_check;
int machine_record_write(const struct machine_record *record, struct stream *stream,
                         struct err *err) must_check;       /* (any thread) */
void machine_record_destroy(struct machine_record *record); /* NULL is fine */

/* Of machine_config.disks; its thread is the device's. */
struct disk *machine_disk(struct machine *machine, unsigned index);
/* Of machine_config.nets, and its device's too; NULL: there is none, or it runs without. */
struct netif *machine_netif(struct machine *machine, unsigned index);
struct vsock *machine_vsock(struct machine *machine); /* NULL: there is none */
struct memory *machine_memory(struct machine *machine);
int machine_vm(struct machine *machine); /* KVM's descriptor, for vmm/dirty.h */
