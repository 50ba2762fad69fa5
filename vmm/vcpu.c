/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu.h"

#include "core/clock.h"
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int vcpu_create(struct vcpu **ret_vcpu, const struct kvm *kvm, int vm, unsigned id,
                const struct vcpu_world *world, struct err *err)
{
    struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create vCPU %u", id);
    vcpu->id = id;
    vcpu->fd = -1;
    vcpu->run = MAP_FAILED;
    vcpu->run_size = kvm->run_size;
    vcpu->world = world;
    vcpu->status = VCPU_PAUSED;
    atomic_init(&vcpu->order, VCPU_PAUSED);
    pthread_mutex_init(&vcpu->lock, NULL);
    pthread_cond_init(&vcpu->changed, NULL);

    int ret = kvm_vm_create_vcpu(vm, id, &vcpu->fd);
    if (ret < 0) {
        err_sys(err, ERR_HOST, -ret, "cannot create vCPU %u", id);
        goto fail;
    }
    vcpu->run = mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED) {
        ret = err_sys(err, ERR_HOST, errno, "cannot map the state of vCPU %u", id);
        goto fail;
    }
    *ret_vcpu = vcpu;
    return 0;

fail:
    vcpu_destroy(vcpu);
    return ret;
}

/* --- orders ------------------------------------------------------------------------------- */

static void set_immediate_exit(struct vcpu *vcpu, uint8_t value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

void vcpu_kick(struct vcpu *vcpu)
{
    set_immediate_exit(vcpu, 1);
    thread_kick(&vcpu->thread);
}

static void give_order(struct vcpu *vcpu, enum vcpu_status order)
{
    pthread_mutex_lock(&vcpu->lock);
    enum vcpu_status before = atomic_load(&vcpu->order);
    bool news = before != order && before != VCPU_FINISHED; /* the last order of all */
    if (news)
        atomic_store(&vcpu->order, order);
    pthread_cond_broadcast(&vcpu->changed);
    pthread_mutex_unlock(&vcpu->lock);
    if (news && before == VCPU_RUNNING)
        vcpu_kick(vcpu);
}

void vcpu_order_pause(struct vcpu *vcpu)
{
    give_order(vcpu, VCPU_PAUSED);
}

void vcpu_resume(struct vcpu *vcpu)
{
    give_order(vcpu, VCPU_RUNNING);
}

/*
 * Most stop within 70 us, and who sleeps meanwhile wakes up as much later where an idle CPU is one
 * that its own host has put to sleep. But a vCPU that waits for this very CPU gets it at once only
 * from one who sleeps: sched_yield() may give it to anybody, and for milliseconds.
 */
static bool look_until(const struct vcpu *vcpu, bool (*is_busy)(const struct vcpu *vcpu),
                       uint64_t until_ns)
{
    while (is_busy(vcpu)) {
        int cpu = thread_cpu(&vcpu->thread);
        if (cpu < 0 || cpu == sched_getcpu() || clock_monotonic_ns() >= until_ns)
            return false;
    }
    return true;
}

static bool is_running(const struct vcpu *vcpu)
{
    return atomic_load(&vcpu->status) == VCPU_RUNNING;
}

void vcpu_wait_paused(struct vcpu *vcpu, uint64_t look_until_ns)
{
    if (look_until(vcpu, is_running, look_until_ns))
        return;
    pthread_mutex_lock(&vcpu->lock);
    while (vcpu->status == VCPU_RUNNING)
        pthread_cond_wait(&vcpu->changed, &vcpu->lock);
    pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_nap(struct vcpu *vcpu, unsigned us)
{
    atomic_store(&vcpu->nap_until_ns, us ? clock_monotonic_ns() + us * 1000ull : 0);
    if (us) {
        vcpu_kick(vcpu);
        return;
    }
    pthread_mutex_lock(&vcpu->lock);
    pthread_cond_broadcast(&vcpu->changed);
    pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_lend(struct vcpu *vcpu, void (*work)(void *arg), void *arg)
{
    pthread_mutex_lock(&vcpu->lock);
    assert(vcpu->status == VCPU_PAUSED && !vcpu->work);
    vcpu->work = work;
    vcpu->work_arg = arg;
    pthread_cond_broadcast(&vcpu->changed);
    pthread_mutex_unlock(&vcpu->lock);
}

static bool is_at_work(const struct vcpu *vcpu)
{
    return atomic_load(&vcpu->at_work);
}

void vcpu_take_back(struct vcpu *vcpu, uint64_t look_until_ns)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->work = NULL;
    pthread_mutex_unlock(&vcpu->lock);
    if (look_until(vcpu, is_at_work, look_until_ns))
        return;
    pthread_mutex_lock(&vcpu->lock);
    while (vcpu->at_work)
        pthread_cond_wait(&vcpu->changed, &vcpu->lock);
    pthread_mutex_unlock(&vcpu->lock);
}

/* --- why it left the guest ----------------------------------------------------------------- */

const char *vcpu_exit_name(unsigned reason)
{
    static const char *const names[VCPU_EXITS] = {
        [KVM_EXIT_IO] = "io",
        [KVM_EXIT_MMIO] = "mmio",
        [KVM_EXIT_HLT] = "hlt",
        [KVM_EXIT_INTR] = "signal",
        [KVM_EXIT_IRQ_WINDOW_OPEN] = "irq_window",
        [KVM_EXIT_SET_TPR] = "set_tpr",
        [KVM_EXIT_IOAPIC_EOI] = "ioapic_eoi",
        [KVM_EXIT_SHUTDOWN] = "shutdown",
        [KVM_EXIT_FAIL_ENTRY] = "fail_entry",
        [KVM_EXIT_INTERNAL_ERROR] = "internal_error",
        [KVM_EXIT_SYSTEM_EVENT] = "system_event",
        [VCPU_EXIT_OTHER] = "other",
        [VCPU_EXIT_INTERRUPTED] = "interrupted",
    };
    return reason < VCPU_EXITS ? names[reason] : NULL;
}

void vcpu_read_exits(const struct vcpu *vcpu, uint64_t ret_exits[VCPU_EXITS])
{
    memset(ret_exits, 0, VCPU_EXITS * sizeof(*ret_exits));
    for (unsigned reason = 0; reason < VCPU_EXITS; reason++)
        ret_exits[vcpu_exit_name(reason) ? reason : VCPU_EXIT_OTHER] += counter_read(
            &vcpu->exits[reason]);
}

/* --- the thread --------------------------------------------------------------------------- */

static void handle_port_access(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned width = run->io.size;

    /* String instructions bring many accesses to one port. */
    for (uint32_t i = 0; i < run->io.count; i++, data += width) {
        uint64_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, width);
            bus_write(vcpu->world->ports, run->io.port, width, value);
        } else {
            value = bus_read(vcpu->world->ports, run->io.port, width);
            memcpy(data, &value, width);
        }
    }
}

/* KVM cuts accesses at page borders, so a length of 3, 5, 6 or 7 bytes occurs: those go in pieces.
 */
static void handle_memory_access(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint64_t address = run->mmio.phys_addr;
    uint8_t *data = run->mmio.data;

    for (unsigned left = run->mmio.len; left > 0;) {
        unsigned width = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        uint64_t value = 0;
        if (run->mmio.is_write) {
            memcpy(&value, data, width);
            bus_write(vcpu->world->mmio, address, width, value);
        } else {
            value = bus_read(vcpu->world->mmio, address, width);
            memcpy(data, &value, width);
        }
        address += width;
        data += width;
        left -= width;
    }
}

static bool handle_exit(struct vcpu *vcpu, struct vcpu_crash *ret_crash)
{
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
        handle_port_access(vcpu);
        return true;
    case KVM_EXIT_MMIO:
        handle_memory_access(vcpu);
        return true;
    default:
        return vcpu_arch_handle_exit(vcpu, ret_crash);
    }
}

static void crash(struct vcpu *vcpu, const struct vcpu_crash *crash)
{
    vcpu_order_pause(vcpu);
    vcpu->world->handle_crash(vcpu->world->ctx, vcpu, crash);
}

static void count_exit(struct vcpu *vcpu, int ret)
{
    uint32_t reason = vcpu->run->exit_reason;
    if (ret < 0)
        reason = VCPU_EXIT_INTERRUPTED;
    else if (reason > VCPU_EXIT_OTHER)
        reason = VCPU_EXIT_OTHER;
    counter_add(&vcpu->exits[reason], 1);
}

/* One entry into KVM and what came of it. False: the guest cannot go on. */
static bool enter_guest(struct vcpu *vcpu)
{
    struct vcpu_crash why = {0};
    int ret = kvm_vcpu_run(vcpu->fd);
    count_exit(vcpu, ret);
    /* EAGAIN: a vCPU that waited for its start-up message was woken. */
    vcpu_arch_after_run(vcpu, ret < 0);
    vcpu->unfinished = ret >= 0;
    if (ret == -EINTR || ret == -EAGAIN)
        return true;
    if (ret < 0)
        vcpu_arch_describe_error(vcpu, ret, &why);
    else if (handle_exit(vcpu, &why))
        return true;
    crash(vcpu, &why);
    return false;
}

/* A pause interrupts it, and does not end it. */
static void nap(struct vcpu *vcpu)
{
    uint64_t until = atomic_load(&vcpu->nap_until_ns);
    pthread_mutex_lock(&vcpu->lock);
    while (atomic_load(&vcpu->order) == VCPU_RUNNING && clock_monotonic_ns() < until) {
        const struct timespec end = clock_timespec(until);
        (void)pthread_cond_clockwait(&vcpu->changed, &vcpu->lock, CLOCK_MONOTONIC, &end);
        until = atomic_load(&vcpu->nap_until_ns);
    }
    pthread_mutex_unlock(&vcpu->lock);
    if (clock_monotonic_ns() >= until) /* over, unless there is another one by now */
        (void)atomic_compare_exchange_strong(&vcpu->nap_until_ns, &until, 0);
}

static bool run_guest(struct vcpu *vcpu)
{
    for (;;) {
        set_immediate_exit(vcpu, 0);
        if (atomic_load(&vcpu->order) != VCPU_RUNNING)
            return true;
        if (atomic_load_explicit(&vcpu->nap_until_ns, memory_order_relaxed))
            nap(vcpu);
        vcpu_arch_before_run(vcpu);
        if (!enter_guest(vcpu))
            return false;
    }
}

/*
 * After a port or memory exit the instruction is finished only by the next KVM_RUN; state that is
 * read before would repeat or drop the access. With immediate_exit KVM does just that and comes
 * back interrupted, or brings the next piece of an access that it had cut. A vCPU that was
 * interrupted has nothing to finish, and saves a pause these 12 us.
 */
static void finish_access(struct vcpu *vcpu)
{
    struct vcpu_crash why = {0};
    while (vcpu->unfinished) {
        set_immediate_exit(vcpu, 1);
        int ret = kvm_vcpu_run(vcpu->fd);
        vcpu_arch_after_run(vcpu, ret < 0);
        vcpu->unfinished = ret >= 0;
        if (ret >= 0 && !handle_exit(vcpu, &why)) {
            crash(vcpu, &why);
            return;
        }
    }
}

static void set_status(struct vcpu *vcpu, enum vcpu_status status)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->status = status;
    pthread_cond_broadcast(&vcpu->changed);
    pthread_mutex_unlock(&vcpu->lock);
}

/* Lock held, and given back meanwhile. */
static void do_lent_work(struct vcpu *vcpu)
{
    void (*work)(void *arg) = vcpu->work;
    void *arg = vcpu->work_arg;
    vcpu->work = NULL;
    vcpu->at_work = true;
    pthread_mutex_unlock(&vcpu->lock);
    work(arg);
    pthread_mutex_lock(&vcpu->lock);
    vcpu->at_work = false;
    pthread_cond_broadcast(&vcpu->changed);
}

static enum vcpu_status wait_for_order(struct vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->status = VCPU_PAUSED;
    pthread_cond_broadcast(&vcpu->changed);
    enum vcpu_status order;
    while ((order = atomic_load(&vcpu->order)) == VCPU_PAUSED || vcpu->work)
        if (vcpu->work)
            do_lent_work(vcpu);
        else
            pthread_cond_wait(&vcpu->changed, &vcpu->lock);
    /* In one step with the order, so that nobody who gave it sees the vCPU still paused. */
    vcpu->status = order;
    pthread_mutex_unlock(&vcpu->lock);
    return order;
}

static void vcpu_main(void *arg)
{
    struct vcpu *vcpu = arg;
    thread_allow_kick();
    while (wait_for_order(vcpu) == VCPU_RUNNING)
        if (run_guest(vcpu))
            finish_access(vcpu);
    set_status(vcpu, VCPU_FINISHED);
}

int vcpu_start(struct vcpu *vcpu, struct err *err)
{
    char name[16];
    snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
    return thread_start(&vcpu->thread, name, vcpu_main, vcpu, err);
}

void vcpu_destroy(struct vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->thread.started) {
        give_order(vcpu, VCPU_FINISHED);
        thread_join(&vcpu->thread);
    }
    if (vcpu->run != MAP_FAILED)
        munmap(vcpu->run, vcpu->run_size);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    pthread_cond_destroy(&vcpu->changed);
    pthread_mutex_destroy(&vcpu->lock);
    free(vcpu);
}
