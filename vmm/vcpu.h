/* SPDX-License-Identifier: MIT */
/*
 * A vCPU: a thread that runs the guest, answers its exits, and stops on request.
 *
 *   PAUSED --resume--> RUNNING --pause--> PAUSED ... --finish--> FINISHED
 *
 * A vCPU is created PAUSED. Whoever wants it to stop gives the order (from any thread, at once,
 * even from a handler on the vCPU's own thread), and waits where it needs to. A PAUSED vCPU has
 * finished the access that made it exit, so its state is complete and can be read and loaded.
 *
 * How a stop cannot be lost: the order is written first, then run->immediate_exit, then the signal
 * is sent. The vCPU clears immediate_exit, then reads the order, then enters KVM. Whichever way the
 * two sides interleave, the vCPU sees the order, or KVM sees immediate_exit, or the signal
 * interrupts KVM_RUN.
 */
#pragma once

#include "core/bus.h"
#include "core/counter.h"
#include "core/memory.h"
#include "core/thread.h"
#include "vmm/kvm.h"
#include <stdatomic.h>

/* Why KVM_RUN came back: KVM's reasons by their numbers, and ours. */
enum {
    VCPU_EXIT_OTHER = 62, /* and all above: reasons that came after this was written */
    VCPU_EXIT_INTERRUPTED,
    VCPU_EXITS,
};

enum vcpu_status { VCPU_PAUSED = 1, VCPU_RUNNING, VCPU_FINISHED };

struct vcpu;
struct pic;
struct ioapic;

enum { VCPU_TEXT = 3200 };

/* Why a guest cannot go on, in words, and the registers at that point. */
struct vcpu_crash {
    char reason[400];
    char hint[240];
    char registers[VCPU_TEXT];
};

/* What a vCPU's accesses reach. One for all vCPUs of a machine. */
struct vcpu_world {
    struct bus *ports;
    struct bus *mmio;
    struct memory *memory; /* where the stack is, for vcpu_arch_describe */
    struct pic *pic;
    struct ioapic *ioapic;
    /* On the vCPU's thread, which has given itself the order to pause. */
    void (*handle_crash)(void *ctx, const struct vcpu *vcpu, const struct vcpu_crash *crash);
    void *ctx;
};

struct vcpu {
    unsigned id;
    int fd;
    struct kvm_run *run; /* shared with KVM; only immediate_exit is written by other threads */
    size_t run_size;
    const struct vcpu_world *world;
    struct thread thread;
    _Atomic(enum vcpu_status) order; /* what the vCPU is to be */

    pthread_mutex_t lock; /* status, and changes of order */
    pthread_cond_t changed;
    _Atomic(enum vcpu_status) status; /* what it is */
    void (*work)(void *arg);          /* that waits for the thread; NULL: none */
    void *work_arg;
    atomic_bool at_work;
    _Atomic uint64_t nap_until_ns;    /* the guest does not go on before (monotonic) */
    struct counter exits[VCPU_EXITS]; /* how often KVM_RUN came back; counted by its own thread */
    bool unfinished; /* the next KVM_RUN takes in what its own thread has answered to the last */

    /* x86: the PIC's INT pin (boot vCPU only); and an access is answered but not finished. */
    _Atomic bool extint;
    bool in_access;
};

/* vm and world outlive the vCPU. After: PAUSED, without a thread as yet. */
int vcpu_create(struct vcpu **ret_vcpu, const struct kvm *kvm, int vm, unsigned id,
                const struct vcpu_world *world, struct err *err) must_check;
int vcpu_start(struct vcpu *vcpu, struct err *err) must_check; /* starts the thread, once */
void vcpu_destroy(struct vcpu *vcpu); /* finishes the thread first; NULL and half-built are fine */

void vcpu_order_pause(struct vcpu *vcpu); /* returns at once (any thread) */
/* Looks until then, where that is quicker than sleep. (any thread but the vCPU's own) */
void vcpu_wait_paused(struct vcpu *vcpu, uint64_t look_until_ns);
void vcpu_resume(struct vcpu *vcpu); /* (any thread) PAUSED only */

/*
 * The thread of a PAUSED vCPU has time for other work: lend returns at once. Taking it back calls
 * off what has not begun, and waits for what has: it looks until then, and sleeps afterwards. By
 * whoever has paused the vCPU, and before it resumes it.
 */
void vcpu_lend(struct vcpu *vcpu, void (*work)(void *arg), void *arg);
void vcpu_take_back(struct vcpu *vcpu, uint64_t look_until_ns);

/* Keeps the guest from running for so long from now on, pauses included; 0: no longer. (any
 * thread) */
void vcpu_nap(struct vcpu *vcpu, unsigned us);

/* A word for a reason; NULL where there is none, which counts as VCPU_EXIT_OTHER then. */
const char *vcpu_exit_name(unsigned reason);
/* By reason; those without a name are 0. (any thread) */
void vcpu_read_exits(const struct vcpu *vcpu, uint64_t ret_exits[VCPU_EXITS]);

/* Makes a running vCPU leave KVM_RUN, look around, and go on. (any thread) */
void vcpu_kick(struct vcpu *vcpu);

/*
 * The architecture's part (vmm/x86/vcpu_arch.c), called on the vCPU's thread. before_run: delivers
 * what waits outside of KVM. after_run: KVM_RUN came back, with an exit or interrupted.
 * handle_exit: an exit that is not plain port or memory access; false where the guest cannot go on,
 * with ret_crash filled in.
 */
void vcpu_arch_before_run(struct vcpu *vcpu);
void vcpu_arch_after_run(struct vcpu *vcpu, bool interrupted);
bool vcpu_arch_handle_exit(struct vcpu *vcpu, struct vcpu_crash *ret_crash) must_check;
/* The registers and the top of the stack, for a person. On the vCPU's thread, or PAUSED. */
void vcpu_arch_describe(const struct vcpu *vcpu, char *ret_text, size_t size);
void vcpu_arch_describe_error(struct vcpu *vcpu, int error, struct vcpu_crash *ret_crash);
