/* SPDX-License-Identifier: MIT */
/* minivmm run: one machine in the foreground, its serial console on this terminal. */
#include "cli/options.h"
#include "cli/run_devices.h"
#include "cli/verbs.h"
#include "core/log.h"
#include "host/term.h"
#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum {
    RUN_KERNEL,
    RUN_INITRD,
    RUN_CMDLINE,
    RUN_CPUS,
    RUN_MEMORY,
    RUN_DISK,
    RUN_EPHEMERAL,
    RUN_SEED,
    RUN_NET,
    RUN_FORWARD,
    RUN_VSOCK,
    RUN_CONSOLE,
    RUN_BALLOON,
    RUN_UUID,
    RUN_NO_REBOOT,
    RUN_EXIT_PORT,
    RUN_VERBOSE,
    RUN_HELP
};

static const struct option run_options[] = {
    [RUN_KERNEL] = {"kernel", 'k', "FILE",
                    "Linux bzImage, PVH or multiboot ELF (the disk's own boot loader)"},
    [RUN_INITRD] = {"initrd", 'i', "FILE", "initial RAM disk, or the first multiboot module"},
    [RUN_CMDLINE] = {"cmdline", 0, "TEXT", "kernel command line (console=ttyS0)"},
    [RUN_CPUS] = {"cpus", 'c', "N", "virtual CPUs (1)"},
    [RUN_MEMORY] = {"memory", 'm', "SIZE", "guest memory: 512M, 6G (512M)"},
    [RUN_DISK] = {"disk", 'd', "FILE[,...]",
                  "one more disk: an image or a block device; more options below"},
    [RUN_EPHEMERAL] = {"ephemeral", 0, NULL, "what the guest writes to its disks is forgotten"},
    [RUN_SEED] = {"seed", 0, "user=NAME,key=FILE", "an account for a cloud image; more below"},
    [RUN_NET] = {"net", 'n', "MODE[,...]", "user, passt, tap[:NAME], bridge:NAME or none (user)"},
    [RUN_FORWARD] = {"forward", 'p', "HOST:GUEST", "a port of this host that leads into the guest"},
    [RUN_VSOCK] = {"vsock", 0, "PATH[,cid=N]",
                   "sockets to the guest, behind a Unix socket (cid 3)"},
    [RUN_CONSOLE] = {"console", 0, "WHICH", "serial or virtio (serial)"},
    [RUN_BALLOON] = {"balloon", 0, "SIZE|off", "memory that the guest shall do without (0)"},
    [RUN_UUID] = {"uuid", 0, "UUID", "the machine's UUID (a new one for each run)"},
    [RUN_NO_REBOOT] = {"no-reboot", 0, NULL, "end when the guest reboots"},
    [RUN_EXIT_PORT] = {"exit-port", 0, NULL,
                       "for test guests: a byte written to port 0xf4 is the exit code"},
    [RUN_VERBOSE] = {"verbose", 'v', NULL, "say more"},
    [RUN_HELP] = {"help", 'h', NULL, "this text"},
};

struct run {
    struct machine_config config;
    struct run_devices devices;
    struct serial_host serial;
    struct console_host console;
    struct term_handlers handlers;
    struct machine *machine;
    struct term *term;
    struct loop_io signals;
    bool asked;  /* a signal pressed the power button */
    bool forced; /* a second one ended it */
};

/* --- the console -------------------------------------------------------------------------- */

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    struct run *run = ctx;
    term_write(run->term, bytes, length);
}

static void handle_input_room(void *ctx)
{
    struct run *run = ctx;
    term_input_room(run->term);
}

static size_t handle_input(void *ctx, const uint8_t *bytes, size_t length)
{
    struct run *run = ctx;
    return machine_input(run->machine, bytes, length);
}

static void handle_quit(void *ctx)
{
    struct run *run = ctx;
    machine_stop(run->machine);
}

static void handle_break(void *ctx)
{
    struct run *run = ctx;
    machine_send_break(run->machine);
}

static void handle_detach(void *ctx)
{
    static const char text[] =
        "\r\n[minivmm: this VM runs in the foreground, there is nothing to detach from; Ctrl-a x "
        "quits]\r\n";
    struct run *run = ctx;
    term_write(run->term, (const uint8_t *)text, sizeof(text) - 1);
}

/* A virtio console knows how large its terminal is. */
static void tell_size(struct run *run)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        machine_set_console_size(run->machine, size.ws_col, size.ws_row);
}

/* --- signals ------------------------------------------------------------------------------ */

static void handle_signal(void *arg, unsigned events)
{
    struct run *run = arg;
    struct signalfd_siginfo info;
    if (read(run->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        tell_size(run);
    } else if (info.ssi_signo == SIGCONT) {
        term_renew(run->term);
    } else if (!run->asked) {
        run->asked = true;
        machine_press_power_button(run->machine);
        log_info("power button pressed (%s); a second signal ends the VM at once",
                 strsignal((int)info.ssi_signo));
    } else {
        run->forced = true;
        machine_stop(run->machine);
    }
}

/* Before any thread starts, so that all of them leave these signals to the main loop. */
static void block_signals(sigset_t *ret_set)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCONT, SIGWINCH};
    sigemptyset(ret_set);
    for (size_t i = 0; i < array_size(ours); i++)
        sigaddset(ret_set, ours[i]);
    sigprocmask(SIG_BLOCK, ret_set, NULL);
}

static int watch_signals(struct run *run, const sigset_t *set, struct err *err)
{
    run->signals = (struct loop_io){.fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK),
                                    .events = LOOP_READ,
                                    .handle = handle_signal,
                                    .arg = run};
    if (run->signals.fd < 0)
        return err_sys(err, ERR_HOST, errno, "cannot watch signals");
    return loop_io_add(machine_loop(run->machine), &run->signals, err);
}

static void unwatch_signals(struct run *run)
{
    if (run->signals.fd < 0)
        return;
    loop_io_remove(machine_loop(run->machine), &run->signals);
    close(run->signals.fd);
}

/* --- the command line --------------------------------------------------------------------- */

static int print_help(void)
{
    printf(
        "Examples:\n"
        "  minivmm run disk.img\n"
        "  minivmm run disk.img --cpus 2 --memory 2G -p 2222:22\n"
        "  minivmm run cloud.qcow2 --ephemeral --seed user=me,key=~/.ssh/id_ed25519.pub\n"
        "  minivmm run --kernel vmlinuz --initrd initrd.img\n"
        "  minivmm run --kernel vmlinux --cmdline 'console=ttyS0 root=/dev/vda1' --disk disk.img\n"
        "\n"
        "Usage: minivmm run [DISK] [OPTION...]\n"
        "\n"
        "Options (defaults in brackets):\n");
    options_print(run_options, array_size(run_options));
    printf("\n"
           "--disk FILE takes, each after a comma: readonly, direct, no-discard,\n"
           "  cache=writeback|writethrough|none, limit=SIZE (bytes a second), limit=Niops,\n"
           "  queues=N, serial=TEXT, block-size=512|4096, engine=io_uring|threads,\n"
           "  format=raw|qcow2 (looked at once), backing (a qcow2 image may stand on another)\n"
           "--seed takes user=NAME, key=FILE (of public ssh keys), password=TEXT, hostname=NAME.\n"
           "--net MODE takes mac=ADDRESS, queues=N, mtu=N. user needs no rights: the guest is\n"
           "  10.0.2.15, the host 10.0.2.2. passt is faster, where the package is installed.\n"
           "-p [ADDRESS:]HOST:GUEST[/udp] goes with user and passt.\n"
           "\n"
           "In the terminal: Ctrl-a x quits, Ctrl-a d detaches, Ctrl-a a sends Ctrl-a.\n"
           "SIGTERM presses the power button, a second one ends the VM at once.\n"
           "The guest's power-off ends with exit code 0, its crash with 7.\n");
    return 0;
}

static int take_option(struct run *run, int what, const char *value, struct err *err)
{
    struct machine_config *config = &run->config;
    struct run_devices *devices = &run->devices;
    uint64_t number = 0;
    int ret = 0;
    switch (what) {
    case RUN_KERNEL:
        config->kernel = value;
        break;
    case RUN_INITRD:
        config->initrd = value;
        break;
    case RUN_CMDLINE:
        config->cmdline = value;
        break;
    case RUN_CPUS:
        ret = parse_number(value, "--cpus", 1, 1024, &number, err);
        config->cpus = (unsigned)number;
        break;
    case RUN_MEMORY:
        ret = parse_size(value, "--memory", &config->memory, err);
        config->memory &= ~(PAGE_SIZE - 1);
        break;
    case RUN_DISK:
        ret = run_devices_add_disk(devices, value, err);
        break;
    case RUN_EPHEMERAL:
        devices->ephemeral = true;
        break;
    case RUN_SEED:
        ret = run_devices_set_seed(devices, value, err);
        break;
    case RUN_NET:
        ret = run_devices_add_net(devices, value, err);
        break;
    case RUN_FORWARD:
        ret = run_devices_add_forward(devices, value, err);
        break;
    case RUN_VSOCK:
        ret = run_devices_set_vsock(devices, value, err);
        break;
    case RUN_CONSOLE:
        ret = run_devices_set_console(devices, value, err);
        break;
    case RUN_BALLOON:
        ret = run_devices_set_balloon(devices, value, err);
        break;
    case RUN_UUID:
        ret = parse_uuid(value, "--uuid", config->uuid, err);
        break;
    case RUN_NO_REBOOT:
        config->stop_at_reset = true;
        break;
    case RUN_EXIT_PORT:
        config->exit_port = true;
        break;
    case RUN_VERBOSE:
        log_set_level(LOG_DEBUG);
        break;
    default:
        break;
    }
    return ret;
}

/* There must be something to boot, and what is meant for a kernel goes with one. */
static int check_boot(const struct run *run, struct err *err)
{
    const struct machine_config *config = &run->config;
    if (config->kernel)
        return 0;
    if (config->initrd || config->cmdline) {
        int ret = err_say(err, ERR_USAGE, EINVAL, "run: %s is for a kernel, and none is named",
                          config->initrd ? "--initrd" : "--cmdline");
        err_hint(err, "name it: --kernel FILE; or leave the option out, and the disk boots itself");
        return ret;
    }
    if (run->devices.disk_count > 0)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "run: nothing to boot");
    err_hint(err, "name a disk: minivmm run disk.img; or a kernel: minivmm run --kernel FILE");
    return ret;
}

static int read_command_line(int argc, char **argv, struct run *run, bool *ret_help,
                             struct err *err)
{
    const char *image = NULL;
    struct options options = {.verb = "run",
                              .table = run_options,
                              .count = array_size(run_options),
                              .argc = argc,
                              .argv = argv,
                              .at = 1};
    for (;;) {
        int what;
        const char *value;
        int ret = options_next(&options, &what, &value, err);
        if (ret < 0)
            return ret;
        if (what == OPTIONS_END)
            break;
        if (what == RUN_HELP) {
            *ret_help = true;
            return 0;
        }
        if (what != OPTIONS_ARGUMENT) {
            ret = take_option(run, what, value, err);
        } else if (image) {
            ret = err_say(err, ERR_USAGE, EINVAL, "run: %s and %s: one disk boots", image, value);
            err_hint(err, "name further ones with --disk: minivmm run %s --disk %s", image, value);
        } else {
            image = value;
        }
        if (ret < 0)
            return ret;
    }
    int ret = image ? run_devices_set_image(&run->devices, image, err) : 0;
    if (ret == 0)
        ret = check_boot(run, err);
    if (ret < 0)
        return ret;
    if (run->config.kernel && !run->config.cmdline)
        run->config.cmdline = run->devices.console_virtio ? "console=ttyS0 console=hvc0"
                                                          : "console=ttyS0";
    if (run->devices.console_virtio)
        run->config.console = &run->console;
    return run_devices_apply(&run->devices, &run->config, err);
}

/* A random one, as RFC 4122 wants it marked (version 4, variant 1). */
static int make_uuid(uint8_t ret_uuid[16], struct err *err)
{
    if (getrandom(ret_uuid, 16, 0) != 16)
        return err_sys(err, ERR_HOST, errno, "cannot make a UUID");
    ret_uuid[6] = (ret_uuid[6] & 0x0f) | 0x40;
    ret_uuid[8] = (ret_uuid[8] & 0x3f) | 0x80;
    return 0;
}

/* Guest memory comes as it is touched, so more than the host has is allowed, and worth a word. */
static void warn_of_overcommit(uint64_t memory)
{
    struct sysinfo info;
    if (sysinfo(&info) == 0 && memory > (uint64_t)info.totalram * info.mem_unit)
        log_warning("the guest may use %llu MiB, this host has %llu: it can run out of memory",
                    (unsigned long long)memory >> 20,
                    (unsigned long long)((uint64_t)info.totalram * info.mem_unit >> 20));
}

/* --- the run ------------------------------------------------------------------------------ */

static int report(const struct run *run, const struct machine_end *end)
{
    switch (end->outcome) {
    case MACHINE_OFF:
        log_debug("the guest powered off");
        return 0;
    case MACHINE_RESET:
        log_debug("the guest rebooted");
        return 0;
    case MACHINE_EXIT:
        return (int)end->code;
    case MACHINE_UNBOOTABLE:
        log_error("no bootable disk: %s", end->crash.reason);
        return ERR_FAILED;
    case MACHINE_STOPPED:
        if (!run->forced)
            return 0;
        log_warning("the guest did not power off in time and was ended");
        return ERR_FAILED;
    case MACHINE_CRASHED:
        log_error("the guest crashed: %s", end->crash.reason);
        fprintf(stderr, "%s", end->crash.registers);
        if (end->crash.hint[0])
            fprintf(stderr, "hint: %s\n", end->crash.hint);
        return ERR_GUEST;
    }
    return ERR_FAILED;
}

static int run_machine(struct run *run, const sigset_t *signals, struct machine_end *ret_end,
                       struct err *err)
{
    int ret = machine_create(&run->machine, &run->config, err);
    if (ret < 0)
        return ret;
    warn_of_overcommit(run->config.memory);
    run->handlers = (struct term_handlers){
        .input = handle_input,
        .quit = handle_quit,
        .detach = handle_detach,
        .send_break = handle_break,
        .ctx = run,
    };
    ret = watch_signals(run, signals, err);
    if (ret == 0)
        ret = term_create(&run->term, machine_loop(run->machine), &run->handlers, err);
    if (ret == 0) {
        tell_size(run);
        ret = machine_run(run->machine, ret_end, err);
    }
    return ret;
}

int verb_run(int argc, char **argv)
{
    struct err err = {0};
    bool help = false;
    struct run run = {.config = {.cpus = 1, .memory = 512ull << 20}, .signals.fd = -1};
    run.serial = (struct serial_host){
        .output = handle_output, .input_room = handle_input_room, .ctx = &run};
    run.config.serial = &run.serial;
    run.console = (struct console_host){
        .output = handle_output, .input_room = handle_input_room, .ctx = &run};

    if (make_uuid(run.config.uuid, &err) < 0 ||
        read_command_line(argc, argv, &run, &help, &err) < 0) {
        run_devices_finish(&run.devices);
        return fail(&err);
    }
    if (help)
        return print_help();

    sigset_t signals;
    block_signals(&signals);
    struct machine_end end = {0};
    int ret = run_machine(&run, &signals, &end, &err);

    int output = run.term ? term_output_error(run.term) : 0;
    /* The terminal first: what is printed below must find it as a person expects it. */
    term_destroy(run.term);
    if (run.machine)
        unwatch_signals(&run);
    machine_destroy(run.machine);
    run_devices_finish(&run.devices);
    if (output < 0 && output != -EPIPE && output != -EIO) /* a reader that left needs no word */
        log_warning("standard output: %s: console output was lost", strerror(-output));
    return ret < 0 ? fail(&err) : report(&run, &end);
}
