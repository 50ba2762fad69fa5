/* SPDX-License-Identifier: MIT */
/* minivmm check: what this host can do, line by line, each lack with its mend. */
#include "cli/check_vm.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "core/log.h"
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

struct host_check {
    struct findings findings;
    bool want_hardware; /* stock kernels are to run here: an emulated KVM is not enough */
};

static void check_kind(struct host_check *check)
{
    switch (kvm_host_kind()) {
    case KVM_HOST_INTEL:
        findings_add(&check->findings, FINDING_GOOD, "hardware virtualization", NULL,
                     "yes (kvm_intel)");
        break;
    case KVM_HOST_AMD:
        findings_add(&check->findings, FINDING_GOOD, "hardware virtualization", NULL,
                     "yes (kvm_amd)");
        break;
    case KVM_HOST_PVM:
        findings_add(
            &check->findings, check->want_hardware ? FINDING_BAD : FINDING_NOTE,
            "hardware virtualization",
            "use a host with hardware virtualization, or a software one: tests/lab/lab shell",
            "no (kvm_pvm): small guests run, stock kernels do not");
        break;
    case KVM_HOST_UNKNOWN:
        findings_add(&check->findings, check->want_hardware ? FINDING_BAD : FINDING_NOTE,
                     "hardware virtualization", NULL, "unknown: no KVM module that we know");
        break;
    }
}

static void check_capabilities(struct findings *findings, const struct kvm *kvm)
{
    const struct kvm_capability *table;
    size_t count = kvm_capabilities(&table);
    for (size_t i = 0; i < count; i++) {
        int value = kvm_check(kvm, table[i].number);
        char what[64];
        snprintf(what, sizeof(what), "kvm %s", table[i].name);
        if (value > 0)
            findings_add(findings, FINDING_GOOD, what, NULL, "%s", table[i].purpose);
        else
            findings_add(findings, table[i].need == KVM_REQUIRED ? FINDING_BAD : FINDING_NOTE, what,
                         "a newer kernel or CPU", "not there: %s", table[i].purpose);
    }
    findings_add(findings, FINDING_GOOD, "kvm vCPUs", NULL, "up to %d in a VM, %d recommended",
                 kvm_check(kvm, KVM_CAP_MAX_VCPUS), kvm_check(kvm, KVM_CAP_NR_VCPUS));
}

static void check_kvm(struct host_check *check)
{
    struct kvm kvm;
    struct err err = {0};
    if (kvm_open_any(&kvm, &err) < 0) {
        findings_add(&check->findings, FINDING_BAD, "/dev/kvm", err.hint, "%s", err.text);
        return;
    }
    findings_add(&check->findings, FINDING_GOOD, "/dev/kvm", NULL, "opens, API version %d",
                 KVM_API_VERSION);
    check_kind(check);
    check_capabilities(&check->findings, &kvm);
    kvm_close(&kvm);
}

static void check_tap(struct findings *findings)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        findings_add(findings, FINDING_GOOD, "tap interfaces", NULL, "/dev/net/tun opens");
        close(fd);
    } else {
        findings_add(findings, FINDING_NOTE, "tap interfaces",
                     errno == ENOENT ? "modprobe tun"
                                     : "run as root, or use an interface made for you",
                     "/dev/net/tun: %s", strerror(errno));
    }
}

/* The only proof is to make one, in a child, which is gone again at once. */
static void check_user_namespaces(struct findings *findings)
{
    pid_t child = fork();
    if (child == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
        findings_add(findings, FINDING_NOTE, "user namespaces",
                     "sudo sysctl kernel.unprivileged_userns_clone=1",
                     "not for this user: helpers cannot be walled off without root");
    else
        findings_add(findings, FINDING_GOOD, "user namespaces", NULL, "can be made");
}

static void check_disks(struct findings *findings)
{
    struct io_uring_params params = {0};
    long fd = syscall(SYS_io_uring_setup, 1, &params);
    if (fd >= 0) {
        findings_add(findings, FINDING_GOOD, "io_uring", NULL, "disks use it");
        close((int)fd);
    } else {
        findings_add(findings, FINDING_NOTE, "io_uring", "sudo sysctl kernel.io_uring_disabled=0",
                     "%s: disks use threads, which cost more", strerror(errno));
    }
}

static void check_memory(struct findings *findings)
{
    struct sysinfo info;
    if (sysinfo(&info) < 0)
        return;
    uint64_t unit = info.mem_unit;
    findings_add(findings, FINDING_GOOD, "memory", NULL, "%llu MiB, %llu MiB free; %d CPUs online",
                 (unsigned long long)(info.totalram * unit >> 20),
                 (unsigned long long)((info.freeram + info.bufferram) * unit >> 20), get_nprocs());

    char text[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (file) {
        if (!fgets(text, sizeof(text), file))
            text[0] = '\0';
        fclose(file);
    }
    if (strstr(text, "[never]"))
        findings_add(findings, FINDING_NOTE, "huge pages for guests",
                     "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
                     "switched off: guests run, with more TLB misses");
    else
        findings_add(findings, FINDING_GOOD, "huge pages for guests", NULL, "%s",
                     text[0] ? "allowed" : "unknown");
}

static int print_help(const struct option *table, size_t count)
{
    printf(
        "Examples:\n"
        "  minivmm check\n"
        "  minivmm check web1\n"
        "  minivmm check --quiet --hardware && echo stock kernels run here\n"
        "\n"
        "Usage: minivmm check [VM] [OPTION...]\n"
        "\n"
        "Says what this host can do for VMs, and how to mend what it cannot. With a VM: whether\n"
        "its vm.json is right, and whether all that it wants is there.\n"
        "Exit code 0: it runs here; 5: something is wrong with vm.json or an image; 6: something\n"
        "is missing on this host.\n"
        "\n"
        "Options:\n");
    options_print(table, count);
    return 0;
}

static int check_host(bool quiet, bool want_hardware)
{
    struct host_check check = {.findings.quiet = quiet, .want_hardware = want_hardware};

    check_kvm(&check);
    check_tap(&check.findings);
    check_user_namespaces(&check.findings);
    check_disks(&check.findings);
    check_memory(&check.findings);
    return check.findings.bad ? ERR_HOST : 0;
}

int verb_check(int argc, char **argv)
{
    enum { CHECK_HARDWARE, CHECK_QUIET, CHECK_HELP };
    static const struct option table[] = {
        [CHECK_HARDWARE] = {"hardware", 0, NULL,
                            "want hardware virtualization, as stock kernels do"},
        [CHECK_QUIET] = {"quiet", 'q', NULL, "print nothing, the exit code says it"},
        [CHECK_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct options options = {.verb = "check",
                              .table = table,
                              .count = array_size(table),
                              .argc = argc,
                              .argv = argv,
                              .at = 1};
    bool quiet = false, want_hardware = false;
    const char *vm = NULL, *value;
    struct err err = {0};
    int what = 0;

    while (what != OPTIONS_END) {
        if (options_next(&options, &what, &value, &err) < 0)
            return fail(&err);
        if (what == CHECK_HELP)
            return print_help(table, array_size(table));
        if (what == OPTIONS_ARGUMENT && vm) {
            int ret = err_say(&err, ERR_USAGE, EINVAL, "check: unexpected argument %s", value);
            (void)ret;
            return fail(&err);
        }
        if (what == OPTIONS_ARGUMENT)
            vm = value;
        want_hardware |= what == CHECK_HARDWARE;
        quiet |= what == CHECK_QUIET;
    }
    int code = vm ? check_vm(vm, quiet) : 0;
    return code == 0 && (!vm || want_hardware) ? check_host(quiet, want_hardware) : code;
}
