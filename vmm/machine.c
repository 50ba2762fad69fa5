/* SPDX-License-Identifier: MIT */
/*
 * What concerns the machine as a whole: pause, resume, reset, the guest's wishes, life and end.
 * What it stands on is built in machine_ground.c, the one list of its devices in machine_devices.c,
 * and saving and loading is in machine_state.c.
 */
#include "firmware/x86/layout.h"
#include "vmm/machine_parts.h"
#include "vmm/x86/vcpu_x86.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* --- wishes ------------------------------------------------------------------------------- */

/*
 * Stops every vCPU at once, before the one that asks runs another instruction; the rest is done on
 * the main loop. The first wish counts, but a stop from outside goes before the guest's reset.
 */
static void wish(struct machine *machine, const struct machine_end *end)
{
    pthread_mutex_lock(&machine->lock);
    bool counts = !machine->wish ||
                  (machine->wish == MACHINE_RESET && end->outcome == MACHINE_STOPPED);
    if (counts) {
        machine->wish = end->outcome;
        machine->end = *end;
    }
    pthread_mutex_unlock(&machine->lock);
    if (!counts)
        return;
    for (unsigned i = 0; i < machine->config.cpus; i++)
        vcpu_order_pause(machine->vcpus[i]);
    loop_post(machine->loop, &machine->wish_call);
}

static void handle_power(void *ctx, enum power_event event, unsigned code)
{
    struct machine_end end = {.code = code};
    switch (event) {
    case POWER_OFF:
        end.outcome = MACHINE_OFF;
        break;
    case POWER_RESET:
        end.outcome = MACHINE_RESET;
        break;
    case POWER_EXIT:
        end.outcome = MACHINE_EXIT;
        break;
    }
    wish(ctx, &end);
}

static void handle_crash(void *ctx, const struct vcpu *vcpu, const struct vcpu_crash *crash)
{
    struct machine_end end = {.outcome = MACHINE_CRASHED, .crash = *crash};
    wish(ctx, &end);
}

void machine_handle_unbootable(void *ctx, const char *why)
{
    struct machine_end end = {.outcome = MACHINE_UNBOOTABLE};
    snprintf(end.crash.reason, sizeof(end.crash.reason), "%s", why);
    wish(ctx, &end);
}

void machine_stop(struct machine *machine)
{
    struct machine_end end = {.outcome = MACHINE_STOPPED};
    wish(machine, &end);
}

static enum machine_outcome wanted(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    enum machine_outcome outcome = machine->wish;
    pthread_mutex_unlock(&machine->lock);
    return outcome;
}

bool machine_has_wish(struct machine *machine)
{
    return wanted(machine) != 0;
}

/* The wish is fulfilled; false when a stop has taken its place meanwhile. */
static bool take_back(struct machine *machine, enum machine_outcome outcome)
{
    pthread_mutex_lock(&machine->lock);
    bool same = machine->wish == outcome;
    if (same)
        machine->wish = 0;
    pthread_mutex_unlock(&machine->lock);
    return same;
}

/* On the main loop. */
static void handle_wish(void *arg)
{
    struct machine *machine = arg;
    bool was_running = machine->running; /* else somebody wants it to stand still */
    if (!wanted(machine))
        return; /* a reset from outside came first */
    machine_pause(machine);
    if (wanted(machine) != MACHINE_RESET || machine->config.stop_at_reset ||
        machine_reset(machine, &machine->reset_error) < 0 || !take_back(machine, MACHINE_RESET))
        loop_stop(machine->loop);
    else if (was_running)
        machine_resume(machine);
}

/* --- pause and resume --------------------------------------------------------------------- */

void machine_pause(struct machine *machine)
{
    enum { LOOK_NS = 100000 }; /* in all, however many vCPUs are slower than that */
    if (!machine->running)
        return;
    machine->paused_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < machine->config.cpus; i++)
        vcpu_order_pause(machine->vcpus[i]);
    machine_interrupt_disks(machine, true);
    for (unsigned i = 0; i < machine->config.cpus; i++)
        vcpu_wait_paused(machine->vcpus[i], machine->paused_ns + LOOK_NS);
    /* Devices before the interrupt chips that they pull at, which are first in the list. */
    for (unsigned i = machine->device_count; i-- > 0;)
        if (machine->devices[i]->ops->pause)
            machine->devices[i]->ops->pause(machine->devices[i]);
    guest_clock_stop(&machine->clock);
    machine->running = false;
}

/* A resume from power-on ends no pause. */
static void count_pause(struct machine *machine)
{
    if (!machine->paused_ns)
        return;
    uint64_t ns = clock_monotonic_ns() - machine->paused_ns;
    histogram_add(&machine->pauses, ns);
    if (ns > machine->longest_pause_ns)
        machine->longest_pause_ns = ns;
}

bool machine_runs(const struct machine *machine)
{
    return machine->running;
}

void machine_resume(struct machine *machine)
{
    if (machine->running)
        return;
    machine->running = true;
    guest_clock_start(&machine->clock);
    for (unsigned i = 0; i < machine->device_count; i++)
        if (machine->devices[i]->ops->resume)
            machine->devices[i]->ops->resume(machine->devices[i]);
    machine_interrupt_disks(machine, false);
    /* A guest that has asked for its end meanwhile (a timer of ours, a person) stays where it is.
     */
    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; i < machine->config.cpus && !machine->wish; i++)
        vcpu_resume(machine->vcpus[i]);
    pthread_mutex_unlock(&machine->lock);
    count_pause(machine);
}

/* --- throttling --------------------------------------------------------------------------- */

enum { THROTTLE_RUN_US = 10000, THROTTLE_NAP_US = 250000, BRAKE_PERCENT = 98 };

/*
 * A nap follows a while in which vCPUs run, and not so much of each 10 ms: a guest that does its
 * work in 10 ms' ticks would find the time for it in all of them.
 */
static void handle_throttle(void *arg)
{
    struct machine *machine = arg;
    unsigned percent = machine->throttle, nap = THROTTLE_NAP_US;
    uint64_t now = clock_monotonic_ns(), brake = machine->brake_ns, next = brake;
    if (brake && now >= brake && percent < BRAKE_PERCENT)
        percent = BRAKE_PERCENT;
    if (THROTTLE_RUN_US * percent < nap * (100 - percent))
        nap = THROTTLE_RUN_US * percent / (100 - percent);
    for (unsigned i = 0; i < machine->config.cpus && machine->running && nap > 0; i++)
        vcpu_nap(machine->vcpus[i], nap);
    if (percent > 0)
        next = now + nap * 100000ull / percent;
    if (next)
        (void)!loop_timer_arm(&machine->throttle_timer, next); /* no memory: it is not throttled */
}

void machine_throttle(struct machine *machine, unsigned percent)
{
    assert(percent < 100);
    if (atomic_exchange(&machine->throttle, percent) != percent && percent > 0)
        (void)!loop_timer_arm(&machine->throttle_timer, 0);
}

void machine_brake(struct machine *machine, uint64_t ns)
{
    uint64_t before = atomic_exchange(&machine->brake_ns, ns);
    bool braked = before && clock_monotonic_ns() >= before;
    for (unsigned i = 0; i < machine->config.cpus && braked; i++)
        vcpu_nap(machine->vcpus[i], 0);
    if (machine->throttle == 0 && ns)
        (void)!loop_timer_arm(&machine->throttle_timer, ns);
    else if (machine->throttle > 0 && braked) /* its turn may be far off */
        (void)!loop_timer_arm(&machine->throttle_timer, 0);
}

/* --- life --------------------------------------------------------------------------------- */

int machine_boot(struct machine *machine, struct err *err)
{
    struct boot_platform platform = {.cpus = machine->config.cpus,
                                     .pci64_base = machine->pci64_base,
                                     .pci64_size = machine->pci64_size};
    memcpy(platform.uuid, machine->config.uuid, sizeof(platform.uuid));
    struct cpu_entry entry;
    int ret = boot_load(machine->image, machine->memory, &platform, &entry, err);
    vmgenid_place(machine->vmgenid);
    if (ret == 0)
        ret = vcpu_x86_enter(machine->vcpus[0], &entry, err);
    return ret;
}

int machine_reset(struct machine *machine, struct err *err)
{
    assert(!machine->running);
    machine->paused_ns = 0; /* nobody waits for what begins anew */
    for (unsigned i = 0; i < machine->device_count; i++)
        machine->devices[i]->ops->reset(machine->devices[i]);
    for (unsigned i = 0; i < machine->config.cpus; i++) {
        int ret = vcpu_state_load(machine->vcpus[i]->fd, &machine->caps, &machine->power_on[i],
                                  VCPU_LOAD_RESET, err);
        if (ret < 0)
            return ret;
        vcpu_x86_forget_interrupts(machine->vcpus[i]);
    }
    return machine_boot(machine, err);
}

int machine_restart(struct machine *machine, struct err *err)
{
    int ret = machine_reset(machine, err);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&machine->lock);
    /* Somebody outside may have asked for the end meanwhile: that stands. */
    if (machine->wish != MACHINE_STOPPED)
        machine->wish = 0;
    pthread_mutex_unlock(&machine->lock);
    return 0;
}

/*
 * Each vCPU, queue and interrupt is a descriptor. Interrupts get theirs when the guest begins to
 * use them, and one that finds none left is lost without a word. The usual soft limit of 1024 is
 * there for the sake of select(), and too low for a big machine; this is enough for every one.
 */
static void allow_descriptors(void)
{
    enum { ENOUGH = 8192 };
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= ENOUGH)
        return;
    limit.rlim_cur = limit.rlim_max < ENOUGH ? limit.rlim_max : ENOUGH;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void fill_world(struct machine *machine)
{
    machine->world = (struct vcpu_world){.ports = machine->ports,
                                         .mmio = machine->mmio,
                                         .memory = machine->memory,
                                         .pic = machine->pic,
                                         .ioapic = machine->ioapic,
                                         .handle_crash = handle_crash,
                                         .ctx = machine};
}

int machine_create(struct machine **ret_machine, const struct machine_config *config,
                   struct err *err)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    if (!machine)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the machine");
    machine->config = *config;
    machine->kvm.fd = machine->vm = -1;
    pthread_mutex_init(&machine->lock, NULL);
    machine_wire(machine);
    machine->power = (struct power){.request = handle_power, .ctx = machine};
    machine->wish_call = (struct loop_call){.handle = handle_wish, .arg = machine};

    allow_descriptors();
    /* The user's mistakes first, before anything is asked of the host. */
    int ret = boot_open(&machine->image, config->kernel, config->initrd, config->cmdline, err);
    if (ret < 0)
        goto fail;
    if ((ret = thread_install_kick_handler(err)) < 0 ||
        (ret = loop_create(&machine->loop, err)) < 0)
        goto fail;
    loop_timer_init(&machine->throttle_timer, machine->loop, handle_throttle, machine);
    if ((ret = bus_create(&machine->ports, err)) < 0 ||
        (ret = bus_create(&machine->mmio, err)) < 0 ||
        (ret = machine_lay_ground(machine, err)) < 0 ||
        (ret = machine_add_devices(machine, err)) < 0)
        goto fail;
    fill_world(machine);
    machine_watch_misses(machine);
    for (unsigned i = 0; i < machine->device_count; i++)
        machine->devices[i]->ops->reset(machine->devices[i]);
    ret = config->blank ? 0 : machine_boot(machine, err);
    for (unsigned i = 0; i < config->cpus && ret == 0; i++)
        ret = vcpu_start(machine->vcpus[i], err);
    if (ret < 0)
        goto fail;
    *ret_machine = machine;
    return 0;

fail:
    machine_destroy(machine);
    return ret;
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    machine_pause(machine);
    if (machine->loop)
        loop_timer_cancel(&machine->throttle_timer);
    /* The vCPUs stand still, so devices go first: the PIC's pin still ends in a vCPU. */
    machine->ending = true;
    while (machine->device_count > 0)
        device_destroy(machine->devices[--machine->device_count]);
    machine_close_host(machine);
    routes_destroy(machine->routes);
    for (unsigned i = 0; machine->vcpus && i < machine->config.cpus; i++)
        vcpu_destroy(machine->vcpus[i]);
    if (machine->vm >= 0)
        close(machine->vm);
    kvm_close(&machine->kvm);
    memory_destroy(machine->memory);
    bus_destroy(machine->ports);
    bus_destroy(machine->mmio);
    loop_destroy(machine->loop);
    boot_close(machine->image);
    free(machine->power_on);
    free(machine->vcpus);
    pthread_mutex_destroy(&machine->lock);
    free(machine);
}

static void log_vcpu(const struct vcpu *vcpu)
{
    uint64_t exits[VCPU_EXITS], all = 0;
    vcpu_read_exits(vcpu, exits);
    for (unsigned i = 0; i < VCPU_EXITS; i++)
        all += exits[i];
    log_debug("vCPU %u left KVM %llu times, its thread ran %llu us", vcpu->id,
              (unsigned long long)all, (unsigned long long)thread_cpu_ns(&vcpu->thread) / 1000);
}

int machine_run(struct machine *machine, struct machine_end *ret_end, struct err *err)
{
    int ret = loop_run(machine->loop);
    machine_pause(machine);
    for (unsigned i = 0; i < machine->config.cpus && log_enabled(LOG_DEBUG); i++)
        log_vcpu(machine->vcpus[i]);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "the main loop failed");
    if (machine->reset_error.kind) {
        if (err)
            *err = machine->reset_error;
        err_prefix(err, "the guest rebooted, and its machine cannot start again");
        return -EIO;
    }
    *ret_end = machine->end;
    return 0;
}

struct loop *machine_loop(struct machine *machine)
{
    return machine->loop;
}

void machine_describe_vcpu(const struct machine *machine, unsigned id, char ret_text[VCPU_TEXT])
{
    assert(!machine->running && id < machine->config.cpus);
    vcpu_arch_describe(machine->vcpus[id], ret_text, VCPU_TEXT);
}

struct vsock *machine_vsock(struct machine *machine)
{
    return machine->vsock;
}

struct memory *machine_memory(struct machine *machine)
{
    return machine->memory;
}

int machine_vm(struct machine *machine)
{
    return machine->vm;
}

void machine_press_power_button(struct machine *machine)
{
    acpi_pm_press_power_button(machine->acpi_pm);
}

void machine_set_generation(struct machine *machine, const uint8_t id[16])
{
    vmgenid_set(machine->vmgenid, id);
}

bool machine_announce(struct machine *machine)
{
    bool heard = false;
    for (unsigned i = 0; i < machine->config.net_count; i++)
        if (machine->nets[i].net)
            heard |= net_announce(machine->nets[i].net);
    return heard;
}

void machine_hear_announcement(struct machine *machine, struct loop_call *call)
{
    machine->announced_call = call;
}

uint64_t machine_first_frame(const struct machine *machine)
{
    uint64_t first = 0;
    for (unsigned i = 0; i < machine->config.net_count; i++) {
        struct net_stats stats = {0};
        if (machine->nets[i].net)
            net_stats(machine->nets[i].net, &stats);
        if (stats.first_sent_ns && (!first || stats.first_sent_ns < first))
            first = stats.first_sent_ns;
    }
    return first;
}

/* --- work for idle threads ------------------------------------------------------------------ */

void machine_share_work(struct machine *machine, void (*work)(void *arg), void *arg)
{
    enum { LOOK_NS = 50000 };
    long others = sysconf(_SC_NPROCESSORS_ONLN) - 1;
    unsigned count = machine->config.cpus;
    assert(!machine->running);
    if (others >= 0 && count > (unsigned long)others)
        count = (unsigned)others;
    for (unsigned i = 0; i < count; i++)
        vcpu_lend(machine->vcpus[i], work, arg);
    work(arg);
    uint64_t look_until_ns = clock_monotonic_ns() + LOOK_NS;
    for (unsigned i = 0; i < count; i++)
        vcpu_take_back(machine->vcpus[i], look_until_ns);
}

/* --- what a person does ----------------------------------------------------------------------- */

size_t machine_input(struct machine *machine, const uint8_t *bytes, size_t length)
{
    if (machine->console && console_listens(machine->console))
        return console_input(machine->console, bytes, length);
    return serial_input(machine->serial, bytes, length);
}

void machine_output_room(struct machine *machine)
{
    serial_output_room(machine->serial);
    if (machine->console)
        console_output_room(machine->console);
}

void machine_send_break(struct machine *machine)
{
    serial_break(machine->serial);
}

void machine_set_console_size(struct machine *machine, unsigned columns, unsigned rows)
{
    if (machine->console)
        console_set_size(machine->console, columns, rows);
}
