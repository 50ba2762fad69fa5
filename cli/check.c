/* SPDX-License-Identifier: MIT */
/* minivmm check: what this host can do, line by line, each lack with its mend. */
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

enum verdict { GOOD = 1, NOTE, BAD }; /* BAD: no guest runs here */

struct findings {
    bool quiet;
    bool want_hardware; /* stock kernels are to run here: an emulated KVM is not enough */
    bool bad;
};

static void say(struct findings *findings, enum verdict verdict, const char *what, const char *mend,
                const char *fmt, ...) printf_like(5, 6);
static void say(struct findings *findings, enum verdict verdict, const char *what, const char *mend,
                const char *fmt, ...)
{
    static const char *const words[] = {[GOOD] = "ok", [NOTE] = "note", [BAD] = "BAD"};
    findings->bad |= verdict == BAD;
    if (findings->quiet)
        return;
    va_list args;
    va_start(args, fmt);
    printf("%-5s %-28s ", words[verdict], what);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    if (verdict != GOOD && mend)
        printf("      %-28s mend: %s\n", "", mend);
}

static void check_kind(struct findings *findings)
{
    switch (kvm_host_kind()) {
    case KVM_HOST_INTEL:
        say(findings, GOOD, "hardware virtualization", NULL, "yes (kvm_intel)");
        break;
    case KVM_HOST_AMD:
        say(findings, GOOD, "hardware virtualization", NULL, "yes (kvm_amd)");
        break;
    case KVM_HOST_PVM:
        say(findings, findings->want_hardware ? BAD : NOTE, "hardware virtualization",
            "use a host with hardware virtualization, or a software one: tests/lab/lab shell",
            "no (kvm_pvm): small guests run, stock kernels do not");
        break;
    case KVM_HOST_UNKNOWN:
        say(findings, findings->want_hardware ? BAD : NOTE, "hardware virtualization", NULL,
            "unknown: no KVM module that we know");
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
            say(findings, GOOD, what, NULL, "%s", table[i].purpose);
        else
            say(findings, table[i].need == KVM_REQUIRED ? BAD : NOTE, what, "a newer kernel or CPU",
                "not there: %s", table[i].purpose);
    }
    say(findings, GOOD, "kvm vCPUs", NULL, "up to %d in a VM, %d recommended",
        kvm_check(kvm, KVM_CAP_MAX_VCPUS), kvm_check(kvm, KVM_CAP_NR_VCPUS));
}

static void check_kvm(struct findings *findings)
{
    struct kvm kvm;
    struct err err = {0};
    if (kvm_open_any(&kvm, &err) < 0) {
        say(findings, BAD, "/dev/kvm", err.hint, "%s", err.text);
        return;
    }
    say(findings, GOOD, "/dev/kvm", NULL, "opens, API version %d", KVM_API_VERSION);
    check_kind(findings);
    check_capabilities(findings, &kvm);
    kvm_close(&kvm);
}

static void check_tap(struct findings *findings)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        say(findings, GOOD, "tap interfaces", NULL, "/dev/net/tun opens");
        close(fd);
    } else {
        say(findings, NOTE, "tap interfaces",
            errno == ENOENT ? "modprobe tun" : "run as root, or use an interface made for you",
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
        say(findings, NOTE, "user namespaces", "sudo sysctl kernel.unprivileged_userns_clone=1",
            "not for this user: helpers cannot be walled off without root");
    else
        say(findings, GOOD, "user namespaces", NULL, "can be made");
}

static void check_disks(struct findings *findings)
{
    struct io_uring_params params = {0};
    long fd = syscall(SYS_io_uring_setup, 1, &params);
    if (fd >= 0) {
        say(findings, GOOD, "io_uring", NULL, "disks use it");
        close((int)fd);
    } else {
        say(findings, NOTE, "io_uring", "sudo sysctl kernel.io_uring_disabled=0",
            "%s: disks use threads, which cost more", strerror(errno));
    }
}

static void check_memory(struct findings *findings)
{
    struct sysinfo info;
    if (sysinfo(&info) < 0)
        return;
    uint64_t unit = info.mem_unit;
    say(findings, GOOD, "memory", NULL, "%llu MiB, %llu MiB free; %d CPUs online",
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
        say(findings, NOTE, "huge pages for guests",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
            "switched off: guests run, with more TLB misses");
    else
        say(findings, GOOD, "huge pages for guests", NULL, "%s", text[0] ? "allowed" : "unknown");
}

static int print_help(const struct option *table, size_t count)
{
    printf("Examples:\n"
           "  minivmm check\n"
           "  minivmm check --quiet --hardware && echo stock kernels run here\n"
           "\n"
           "Usage: minivmm check [OPTION...]\n"
           "\n"
           "Says what this host can do for VMs, and how to mend what it cannot.\n"
           "Exit code 0: guests run here; 6: something that they need is missing.\n"
           "\n"
           "Options:\n");
    options_print(table, count);
    return 0;
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
    struct findings findings = {0};
    struct err err = {0};
    int what = 0;
    const char *value;
    while (what != OPTIONS_END) {
        if (options_next(&options, &what, &value, &err) < 0)
            return fail(&err);
        if (what == CHECK_HELP)
            return print_help(table, array_size(table));
        if (what == OPTIONS_ARGUMENT) {
            int ret = err_say(&err, ERR_USAGE, EINVAL, "check: unexpected argument %s", value);
            (void)ret;
            return fail(&err);
        }
        findings.want_hardware |= what == CHECK_HARDWARE;
        findings.quiet |= what == CHECK_QUIET;
    }
    check_kvm(&findings);
    check_tap(&findings);
    check_user_namespaces(&findings);
    check_disks(&findings);
    check_memory(&findings);
    return findings.bad ? ERR_HOST : 0;
}
