/* SPDX-License-Identifier: MIT */
#include "cli/check_vm.h"

#include "cli/place.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "host/meminfo.h"
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

void check_vm_fail(struct vm_check *check, const char *what, const struct err *err)
{
    check->bad_definition |= err->kind == ERR_DEFINITION;
    findings_add(&check->findings, FINDING_BAD, what, err->hint, "%s", err->text);
}

/* --- the definition and the folder ------------------------------------------------------------ */

static void handle_problem(void *ctx, const char *sentence)
{
    struct vm_check *check = ctx;

    check->bad_definition = true;
    findings_add(&check->findings, FINDING_BAD, FOLDER_DEFINITION, NULL, "%s", sentence);
}

static bool check_definition(struct vm_check *check, const char *word)
{
    const struct definition_judge judge = {.problem = handle_problem, .ctx = check};
    const char *folder = folder_is_vm(word) ? word : check->folder.path;
    struct err err = {0};

    if (definition_load(&check->definition, folder, &judge, &err) == 0) {
        findings_add(&check->findings, FINDING_GOOD, FOLDER_DEFINITION, NULL, "says what it wants");
        return true;
    }
    if (!check->bad_definition) /* it was not even read */
        check_vm_fail(check, FOLDER_DEFINITION, &err);
    return false;
}

static void check_folder(struct vm_check *check)
{
    struct statvfs fs;
    char room[32];

    if (faccessat(check->folder.fd, ".", W_OK, AT_EACCESS) < 0) {
        findings_add(&check->findings, FINDING_BAD, "folder",
                     errno == EROFS ? "copy it to where it can be written: cp -r"
                                    : "give it to who runs the VM: sudo chown -R",
                     "%s cannot be written to: %s", check->folder.name, strerror(errno));
        return;
    }
    if (fstatvfs(check->folder.fd, &fs) < 0)
        return;
    format_size((uint64_t)fs.f_bavail * fs.f_frsize, room, sizeof(room));
    findings_add(&check->findings, FINDING_GOOD, "folder", NULL, "%s, %s free", check->folder.path,
                 room);
}

static void check_running(struct vm_check *check)
{
    check->holder = folder_holder(check->folder.path);
    if (check->holder > 0)
        findings_add(&check->findings, FINDING_NOTE, "state", NULL,
                     "it runs (pid %lld): locks and ports are not looked at",
                     (long long)check->holder);
    else if (check->holder < 0)
        findings_add(&check->findings, FINDING_NOTE, "state", NULL,
                     "it runs: locks and ports are not looked at");
    else
        findings_add(&check->findings, FINDING_GOOD, "state", NULL, "stopped");
}

/* --- files ------------------------------------------------------------------------------------ */

/* path NULL: none is wanted. */
static void check_file(struct vm_check *check, const char *what, const char *path)
{
    struct err err = {0};
    struct stat stat;
    char size[32];
    int ret = 0;

    if (!path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &stat) < 0)
        ret = err_sys(&err, ERR_HOST, errno, "cannot read %s", path);
    else if (!S_ISREG(stat.st_mode))
        ret = err_say(&err, ERR_HOST, EINVAL, "%s is not a file", path);
    else if (stat.st_size == 0)
        ret = err_say(&err, ERR_HOST, EINVAL, "%s is empty", path);
    if (fd >= 0)
        close(fd);
    if (ret < 0) {
        check_vm_fail(check, what, &err);
        return;
    }
    format_size((uint64_t)stat.st_size, size, sizeof(size));
    findings_add(&check->findings, FINDING_GOOD, what, NULL, "%s, %s", path, size);
}

/* --- the host --------------------------------------------------------------------------------- */

static void check_cpus(struct vm_check *check)
{
    unsigned cpus = check->definition->cpus;
    struct err err = {0};
    struct kvm kvm;

    if (kvm_open(&kvm, &err) < 0) {
        check_vm_fail(check, "/dev/kvm", &err);
        return;
    }
    int most = kvm_check(&kvm, KVM_CAP_MAX_VCPUS), online = get_nprocs();
    kvm_close(&kvm);
    if (most > 0 && cpus > (unsigned)most)
        findings_add(&check->findings, FINDING_BAD, "cpus", "write a smaller number into vm.json",
                     "%u are wanted, and this host's KVM gives a VM %d at most", cpus, most);
    else if (cpus > (unsigned)online)
        findings_add(&check->findings, FINDING_NOTE, "cpus", NULL,
                     "%u are wanted, and this host has %d: they will wait for each other", cpus,
                     online);
    else
        findings_add(&check->findings, FINDING_GOOD, "cpus", NULL, "%u of this host's %d", cpus,
                     online);
}

static void check_memory(struct vm_check *check)
{
    uint64_t wanted = check->definition->memory;
    uint64_t available = meminfo_find("MemAvailable"), total = meminfo_find("MemTotal");
    char want[32], have[32], all[32];

    format_size(wanted, want, sizeof(want));
    format_size(available, have, sizeof(have));
    format_size(total, all, sizeof(all));
    if (total && wanted > total)
        findings_add(&check->findings, FINDING_BAD, "memory", "write a smaller size into vm.json",
                     "%s are wanted, and this host has %s", want, all);
    else if (available && wanted > available && !check->holder)
        findings_add(&check->findings, FINDING_NOTE, "memory", "stop something else before",
                     "%s are wanted, and %s are available now: the host may swap", want, have);
    else
        findings_add(&check->findings, FINDING_GOOD, "memory", NULL, "%s of %s that are available",
                     want, have);
}

/* --- the whole -------------------------------------------------------------------------------- */

static void look(struct vm_check *check, const char *word)
{
    bool good = check_definition(check, word);

    check_folder(check);
    check_running(check);
    if (!good)
        return;
    check_file(check, "kernel", check->definition->kernel);
    check_file(check, "initrd", check->definition->initrd);
    check_file(check, "seed key", check->definition->seed_key_file);
    check_vm_disks(check);
    check_vm_nets(check);
    check_cpus(check);
    check_memory(check);
}

int check_vm(const char *word, bool quiet)
{
    struct vm_check check = {.findings.quiet = quiet, .folder = {.fd = -1, .lock = -1}};
    struct err err = {0};

    if (place_open_vm(&check.folder, word, &err) < 0)
        return fail(&err);
    look(&check, word);
    definition_destroy(check.definition);
    folder_close(&check.folder);
    if (check.bad_definition)
        return ERR_DEFINITION;
    return check.findings.bad ? ERR_HOST : 0;
}
