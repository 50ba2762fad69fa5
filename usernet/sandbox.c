/* SPDX-License-Identifier: MIT */
/*
 * In this order: namespaces (mounts, processes, IPC, host name; where we are not root also users,
 * which is what makes the others possible then; never the network, whose sockets are the purpose),
 * an empty root, no identity (root becomes nobody), no capabilities, no new privileges, limits, and
 * last the allow-list of system calls. Forwards are bound before: ports below 1024 may need root.
 *
 * Namespaces and the empty root are taken where the host gives them: some distributions forbid them
 * to users. Instead of the root Landlock then bars the user's files (Linux 5.13). The others must
 * stand, or the helper refuses to work.
 */
#include "usernet/sandbox.h"

#include "host/usernet.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NOBODY = 65534, MAX_SOCKETS = 2048 };

#define MAX_MEMORY ((rlim_t)1 << 30)

/* --- namespaces --------------------------------------------------------------------------- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return good;
}

/* We are ourselves in it; without this files could not even be made in our own tmpfs. */
static void map_ids(uid_t uid, gid_t gid)
{
    char text[64];
    snprintf(text, sizeof(text), "%u %u 1", uid, uid);
    if (!write_text("/proc/self/uid_map", text))
        return;
    snprintf(text, sizeof(text), "%u %u 1", gid, gid);
    if (write_text("/proc/self/setgroups", "deny") && !write_text("/proc/self/gid_map", text))
        return; /* then entering the root fails, and says so */
}

pid_t sandbox_fork(int *ret_channel, uint32_t *ret_walls)
{
    unsigned long ours = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int pair[2];

    *ret_channel = -1;
    *ret_walls = 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return 0;
    /* Root needs no user namespace, unless it is a container's that may do little. */
    for (int users = uid != 0; users <= 1; users++) {
        unsigned long flags = ours | (users ? CLONE_NEWUSER : 0UL) | SIGCHLD;
        pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, 0UL);
        if (pid < 0)
            continue;
        close(pair[pid > 0]);
        *ret_channel = pair[pid == 0];
        if (pid == 0) {
            *ret_walls = USERNET_WALL_NAMESPACES;
            if (users)
                map_ids(uid, gid);
        }
        return pid;
    }
    close(pair[0]);
    close(pair[1]);
    return 0;
}

/* --- root --------------------------------------------------------------------------------- */

int sandbox_enter_root(void)
{
    /* /tmp is only a place to stand on; it is ours alone to cover. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("usernet", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=64k,nr_inodes=8,mode=0755") < 0 ||
        chdir("/tmp") < 0 || mkdir("etc", 0755) < 0)
        return -1;
    int file = open("etc/resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0)
        return -1;
    /* On an initramfs there is no pivot_root. chroot holds too, once we have neither its capability
     * nor a directory open. */
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) < 0)
            goto fail;
    } else if (chroot(".") < 0) {
        goto fail;
    }
    if (chdir("/") < 0)
        goto fail;
    return file;

fail:
    close(file);
    return -1;
}

/* --- files without a root of our own ------------------------------------------------------ */

static void allow_reading(int ruleset, const char *directory)
{
    struct landlock_path_beneath_attr beneath = {
        .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
        .parent_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC),
    };
    if (beneath.parent_fd < 0)
        return;
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0)
        errno = 0; /* then names are not found */
    close(beneath.parent_fd);
}

bool sandbox_limit_files(void)
{
    /* All that the first version knows: reading is what matters, the calls see to the others. */
    struct landlock_ruleset_attr attr = {.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) -
                                                              1};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (ruleset < 0)
        return false;
    /* Where it is; and where it points to now, if anywhere. */
    allow_reading(ruleset, "/etc");
    char *path = realpath("/etc/resolv.conf", NULL);
    char *slash = path ? strrchr(path, '/') : NULL;
    if (slash && slash != path) {
        *slash = '\0';
        allow_reading(ruleset, path);
    }
    free(path);
    bool stands = syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    close(ruleset);
    return stands;
}

/* --- privileges --------------------------------------------------------------------------- */

static void limit(int what, rlim_t most)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)what, &now) == 0 && now.rlim_max < most)
        most = now.rlim_max;
    struct rlimit limits = {most, most};
    /* Lowering is always allowed. */
    if (setrlimit((__rlimit_resource_t)what, &limits) < 0)
        return;
}

static void limit_resources(void)
{
    limit(RLIMIT_NOFILE, MAX_SOCKETS);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NPROC, 0);
    limit(RLIMIT_FSIZE, 64 << 10);
    limit(RLIMIT_MEMLOCK, 0);
    limit(RLIMIT_MSGQUEUE, 0);
    if (!SANDBOX_WITH_ASAN) /* whose shadow takes terabytes of addresses */
        limit(RLIMIT_AS, MAX_MEMORY);
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int sandbox_drop_privileges(void)
{
    /* Each may fail where there is nothing to drop, or nobody to become (a user namespace). What
     * counts is that no capability is left. */
    bool root = geteuid() == 0;
    for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
        ; /* first: it needs a capability itself */
    if (setgroups(0, NULL) < 0)
        errno = 0;
    if (root && (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
        errno = 0;
    int ret = drop_capabilities();
    if (ret < 0)
        return ret;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    /* Again: the change of identity has undone it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return -errno;
    limit_resources();
    return 0;
}
