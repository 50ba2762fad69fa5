/* SPDX-License-Identifier: MIT */
#include "cli/run_words.h"

#include "cli/words.h"
#include "core/log.h"
#include "vmm/folder.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    RUN_KERNEL,
    RUN_INITRD,
    RUN_CMDLINE,
    RUN_CPUS,
    RUN_CPU,
    RUN_MEMORY,
    RUN_DISK,
    RUN_EPHEMERAL,
    RUN_FROM,
    RUN_SEED,
    RUN_NET,
    RUN_FORWARD,
    RUN_VSOCK,
    RUN_CONSOLE,
    RUN_BALLOON,
    RUN_UUID,
    RUN_DETACH,
    RUN_NO_REBOOT,
    RUN_EXIT_PORT,
    RUN_FORCE_OWNER,
    RUN_TORN,
    RUN_VERBOSE,
    RUN_HELP
};

static const struct option run_options[] = {
    [RUN_KERNEL] = {"kernel", 'k', "FILE",
                    "Linux bzImage, PVH or multiboot ELF (the disk's own boot loader)"},
    [RUN_INITRD] = {"initrd", 'i', "FILE", "initial RAM disk, or the first multiboot module"},
    [RUN_CMDLINE] = {"cmdline", 0, "TEXT", "kernel command line (console=ttyS0)"},
    [RUN_CPUS] = {"cpus", 'c', "N", "virtual CPUs (1)"},
    [RUN_CPU] = {"cpu", 0, "MODEL", "host, x86-64-v2, x86-64-v3 or x86-64-v4 (host)"},
    [RUN_MEMORY] = {"memory", 'm', "SIZE", "guest memory: 512M, 6G (512M)"},
    [RUN_DISK] = {"disk", 'd', "FILE[,...]",
                  "one more disk: an image or a block device; more options below"},
    [RUN_EPHEMERAL] = {"ephemeral", 0, NULL, "what the guest writes to its disks is forgotten"},
    [RUN_FROM] = {"from", 0, "SNAPSHOT", "a new VM, which goes on where the snapshot was taken"},
    [RUN_SEED] = {"seed", 0, "user=NAME,key=FILE", "an account for a cloud image; more below"},
    [RUN_NET] = {"net", 'n', "MODE[,...]", "user, passt, tap[:NAME], bridge:NAME or none (user)"},
    [RUN_FORWARD] = {"forward", 'p', "HOST:GUEST", "a port of this host that leads into the guest"},
    [RUN_VSOCK] = {"vsock", 0, "PATH[,cid=N]",
                   "sockets to the guest, behind a Unix socket (cid 3)"},
    [RUN_CONSOLE] = {"console", 0, "WHICH", "serial or virtio (serial)"},
    [RUN_BALLOON] = {"balloon", 0, "SIZE|off", "memory that the guest shall do without (0)"},
    [RUN_UUID] = {"uuid", 0, "UUID", "the machine's UUID (a new one for each run)"},
    [RUN_DETACH] = {"detach", 0, NULL, "in the background: the command ends when the VM runs"},
    [RUN_NO_REBOOT] = {"no-reboot", 0, NULL, "end when the guest reboots"},
    [RUN_EXIT_PORT] = {"exit-port", 0, NULL,
                       "for test guests: a byte written to port 0xf4 is the exit code"},
    [RUN_FORCE_OWNER] = {"force-owner", 0, NULL,
                         "a protected VM whose owner is gone for good: asks for its name"},
    [RUN_TORN] = {"torn", 0, NULL, "with --force-owner: a twin whose disks may be torn, too"},
    [RUN_VERBOSE] = {"verbose", 'v', NULL, "say more"},
    [RUN_HELP] = {"help", 'h', NULL, "this text"},
};

/* --- the command line --------------------------------------------------------------------- */

int run_print_help(void)
{
    printf(
        "Examples:\n"
        "  minivmm run disk.img\n"
        "  minivmm run web1\n"
        "  minivmm run web1 --detach\n"
        "  minivmm run --from web1/snapshots/ready web3\n"
        "  minivmm run disk.img --cpus 2 --memory 2G -p 2222:22\n"
        "  minivmm run cloud.qcow2 --ephemeral --seed user=me,key=~/.ssh/id_ed25519.pub\n"
        "  minivmm run --kernel vmlinuz --initrd initrd.img\n"
        "  minivmm run --kernel vmlinux --cmdline 'console=ttyS0 root=/dev/vda1' --disk disk.img\n"
        "\n"
        "Usage: minivmm run [VM | DISK] [OPTION...]\n"
        "\n"
        "VM is a folder with a vm.json, which says all that options say for a disk; --detach,\n"
        "--ephemeral, --force-owner, --no-reboot and --verbose go with it. With --from it is new, "
        "made of\n"
        "the snapshot: another UUID, other MACs at its next boot, the same disks and memory.\n"
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
           "In the terminal: Ctrl-a x quits, Ctrl-a a sends Ctrl-a, Ctrl-a ? lists the keys.\n"
           "SIGTERM presses the power button, a second one ends the VM at once.\n"
           "The guest's power-off ends with exit code 0, its crash with 7.\n");
    return 0;
}

/* What a folder's vm.json has the say of. */
static bool is_of_machine(int what)
{
    return what != RUN_EPHEMERAL && what != RUN_FROM && what != RUN_DETACH &&
           what != RUN_NO_REBOOT && what != RUN_EXIT_PORT && what != RUN_VERBOSE &&
           what != RUN_FORCE_OWNER && what != RUN_TORN;
}

static int take_cpu(struct definition *definition, const char *value, struct err *err)
{
    int model = words_find(cpu_model_names, value);
    if (model < 0)
        return words_unknown("--cpu", "model", value, cpu_model_names, err);
    definition->cpu = (enum cpu_model)model;
    return 0;
}

static int take_option(struct run_words *words, int what, const char *value, struct err *err)
{
    struct definition *definition = &words->definition;
    struct run_devices *devices = &words->devices;
    uint64_t number = 0;
    int ret = 0;
    if (is_of_machine(what) && !words->machine_option)
        words->machine_option = run_options[what].name;
    switch (what) {
    case RUN_KERNEL:
        definition->kernel = value;
        break;
    case RUN_INITRD:
        definition->initrd = value;
        break;
    case RUN_CMDLINE:
        definition->cmdline = value;
        break;
    case RUN_CPUS:
        ret = parse_number(value, "--cpus", 1, 1024, &number, err);
        definition->cpus = (unsigned)number;
        break;
    case RUN_CPU:
        ret = take_cpu(definition, value, err);
        break;
    case RUN_MEMORY:
        ret = parse_size(value, "--memory", &definition->memory, err);
        definition->memory &= ~(PAGE_SIZE - 1);
        break;
    case RUN_DISK:
        ret = run_devices_add_disk(devices, value, err);
        break;
    case RUN_EPHEMERAL:
        words->ephemeral = true;
        break;
    case RUN_FROM:
        words->from = value;
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
        ret = parse_uuid(value, "--uuid", words->uuid, err);
        words->uuid_said = true;
        break;
    case RUN_DETACH:
        words->detach = true;
        break;
    case RUN_NO_REBOOT:
        words->no_reboot = true;
        break;
    case RUN_EXIT_PORT:
        words->exit_port = true;
        break;
    case RUN_FORCE_OWNER:
        words->force_owner = true;
        break;
    case RUN_TORN:
        words->torn = true;
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
static int check_boot(const struct run_words *words, struct err *err)
{
    const struct definition *definition = &words->definition;
    if (definition->kernel)
        return 0;
    if (definition->initrd || definition->cmdline) {
        int ret = err_say(err, ERR_USAGE, EINVAL, "run: %s is for a kernel, and none is named",
                          definition->initrd ? "--initrd" : "--cmdline");
        err_hint(err, "name it: --kernel FILE; or leave the option out, and the disk boots itself");
        return ret;
    }
    if (words->devices.disk_count > 0)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "run: nothing to boot");
    err_hint(err, "name a VM's folder or a disk: minivmm run disk.img; or a kernel: minivmm run "
                  "--kernel FILE");
    return ret;
}

/* A folder's vm.json says it all: two places that say how many CPUs there are would be one too
 * many.
 */
static int check_folder(const struct run_words *words, struct err *err)
{
    if (!words->machine_option)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "run: --%s is for a disk or kernel; %s is a VM",
                      words->machine_option, words->folder);
    err_hint(err, "write it into %s/vm.json", words->folder);
    return ret;
}

/* For a VM that is there, and as it is. */
static int check_force(const struct run_words *words, struct err *err)
{
    if (words->torn && !words->force_owner)
        return err_say(err, ERR_USAGE, EINVAL, "run: --torn goes with --force-owner");
    if (words->force_owner && (!words->folder || words->from || words->ephemeral))
        return err_say(err, ERR_USAGE, EINVAL,
                       "run: --force-owner is for a VM's folder, without --from and --ephemeral");
    return 0;
}

static int check_from(struct run_words *words, const char *name, struct err *err)
{
    if (words->ephemeral)
        return err_say(err, ERR_USAGE, EINVAL, "run: --ephemeral and --from do not go together");
    if (words->folder)
        return err_say(err, ERR_STATE, EEXIST, "run --from makes a new VM, and %s is there already",
                       words->folder);
    if (!name) {
        int ret = err_say(err, ERR_USAGE, EINVAL, "run --from makes a new VM: what is its name?");
        err_hint(err, "minivmm run --from %s NAME", words->from);
        return ret;
    }
    words->folder = name;
    return 0;
}

static int take_argument(struct run_words *words, const char **image, const char *word,
                         struct err *err)
{
    const char *before = *image ? *image : words->folder;
    if (before) {
        int ret = err_say(err, ERR_USAGE, EINVAL, "run: %s and %s: one disk boots", before, word);
        err_hint(err, "name further ones with --disk: minivmm run %s --disk %s", before, word);
        return ret;
    }
    if (folder_is_vm(word))
        words->folder = word;
    else
        *image = word;
    return 0;
}

int run_words_read(struct run_words *words, int argc, char **argv, bool *ret_help, struct err *err)
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
        ret = what == OPTIONS_ARGUMENT ? take_argument(words, &image, value, err)
                                       : take_option(words, what, value, err);
        if (ret < 0)
            return ret;
    }
    int ret = check_force(words, err);
    if (ret == 0 && words->from)
        ret = check_from(words, image, err);
    if (ret < 0 || words->folder)
        return ret < 0 ? ret : check_folder(words, err);
    ret = image ? run_devices_set_image(&words->devices, image, err) : 0;
    if (ret == 0)
        ret = check_boot(words, err);
    if (ret < 0)
        return ret;
    words->name = image                      ? image
                  : words->definition.kernel ? words->definition.kernel
                                             : words->devices.disks[0].path;
    return run_devices_apply(&words->devices, &words->definition, err);
}

void run_words_finish(struct run_words *words)
{
    run_devices_finish(&words->devices);
}
