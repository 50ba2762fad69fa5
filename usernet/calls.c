/* SPDX-License-Identifier: MIT */
/*
 * The system calls that are left to the helper, by what they are for. All others kill it: there is
 * no way to open a file for writing, to run a program, to see or touch another process, to make a
 * socket that is not of the Internet's usual ones, or to take a port of the host's (forwards have
 * theirs before).
 *
 * Found by strace, and by reading what libslirp and glibc may call; tests/unit/test_netif_user.c
 * walks through them. A new libslirp that needs another dies with SIGSYS, and the sentence that the
 * VMM prints then names the signal.
 */
#include "usernet/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALL(name) SCMP_SYS(name)

/* Both: memory without execution is below, with its arguments. */
static const int common_calls[] = {
    CALL(read),
    CALL(close),
    CALL(fstat),
    CALL(newfstatat),
    CALL(stat),
    CALL(statx),
    CALL(lseek),
    CALL(poll),
    CALL(ppoll),
    CALL(brk),
    CALL(munmap),
    CALL(mremap),
    CALL(madvise),
    CALL(clock_gettime),
    CALL(gettimeofday),
    CALL(clock_getres),
    CALL(restart_syscall),
    CALL(getpid),
    CALL(gettid),
    CALL(getuid),
    CALL(geteuid),
    CALL(getgid),
    CALL(getegid),
    CALL(rt_sigaction),
    CALL(rt_sigprocmask),
    CALL(rt_sigreturn),
    CALL(futex),
    CALL(sched_yield),
    CALL(getrandom),
    CALL(exit),
    CALL(exit_group),
    CALL(sendto),
};

static const int worker_calls[] = {
    CALL(accept),      CALL(accept4),    CALL(connect),    CALL(recvfrom),
    CALL(recvmsg),     CALL(sendmsg),    CALL(shutdown),   CALL(getsockname),
    CALL(getpeername), CALL(getsockopt), CALL(setsockopt),
};

/* Not needed, but a C library may ask at any time, and goes on without an answer. */
static const int refused_calls[] = {
    CALL(prlimit64),  CALL(sysinfo), CALL(uname),     CALL(sched_getaffinity), CALL(readlink),
    CALL(readlinkat), CALL(access),  CALL(faccessat), CALL(faccessat2),        CALL(getcwd),
};

static const int keeper_calls[] = {CALL(waitid)};

struct filter {
    scmp_filter_ctx context;
    int ret;
};

static void allow(struct filter *filter, const int *calls, size_t count)
{
    for (size_t i = 0; i < count && filter->ret == 0; i++)
        filter->ret = seccomp_rule_add(filter->context, SCMP_ACT_ALLOW, calls[i], 0);
}

static void refuse(struct filter *filter, const int *calls, size_t count)
{
    for (size_t i = 0; i < count && filter->ret == 0; i++)
        filter->ret = seccomp_rule_add(filter->context, SCMP_ACT_ERRNO(EPERM), calls[i], 0);
}

static void allow_if_all(struct filter *filter, uint32_t action, int call,
                         const struct scmp_arg_cmp *args, unsigned count)
{
    if (filter->ret == 0)
        filter->ret = seccomp_rule_add_array(filter->context, action, call, count, args);
}

static void allow_if(struct filter *filter, uint32_t action, int call, struct scmp_arg_cmp arg)
{
    allow_if_all(filter, action, call, &arg, 1);
}

static void allow_files_and_memory(struct filter *filter)
{
    /* To read. Others are answered as on a read-only disk. */
    scmp_datum_t writing = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
    allow_if(filter, SCMP_ACT_ALLOW, CALL(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, writing, 0));
    for (scmp_datum_t bit = 1; bit <= writing; bit <<= 1)
        if (bit & writing)
            allow_if(filter, SCMP_ACT_ERRNO(EROFS), CALL(openat),
                     SCMP_A2(SCMP_CMP_MASKED_EQ, bit, bit));
    allow_if(filter, SCMP_ACT_ALLOW, CALL(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    allow_if(filter, SCMP_ACT_ALLOW, CALL(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    /* Last words of glib or of abort, which also raises a signal: on itself. */
    allow_if(filter, SCMP_ACT_ALLOW, CALL(write), SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO));
    allow_if(filter, SCMP_ACT_ALLOW, CALL(writev), SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO));
    allow_if(filter, SCMP_ACT_ALLOW, CALL(tgkill), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

/* Not F_SETOWN and F_SETSIG, which let the kernel send any signal to any process of the user's. */
static void allow_flags(struct filter *filter)
{
    static const int commands[] = {F_GETFD, F_SETFD, F_GETFL, F_SETFL};
    for (size_t i = 0; i < array_size(commands); i++)
        allow_if(filter, SCMP_ACT_ALLOW, CALL(fcntl),
                 SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)commands[i]));
}

/* TCP, UDP and pings: the kernel has others, whose code few have looked at. */
static void allow_protocols(struct filter *filter, int family, int icmp)
{
    enum { TYPE = 0xf }; /* beside it: SOCK_CLOEXEC, SOCK_NONBLOCK */
    const struct {
        int type, protocol;
    } usual[] = {{SOCK_STREAM, 0},
                 {SOCK_STREAM, IPPROTO_TCP},
                 {SOCK_DGRAM, 0},
                 {SOCK_DGRAM, IPPROTO_UDP},
                 {SOCK_DGRAM, icmp}};
    struct scmp_arg_cmp args[] = {SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family),
                                  SCMP_A1(SCMP_CMP_MASKED_EQ, TYPE, SOCK_RAW),
                                  SCMP_A2(SCMP_CMP_EQ, 0)};
    /* Tried where pings as a datagram are refused. */
    allow_if_all(filter, SCMP_ACT_ERRNO(EPERM), CALL(socket), args, 2);
    for (size_t i = 0; i < array_size(usual); i++) {
        args[1].datum_b = (scmp_datum_t)usual[i].type;
        args[2].datum_a = (scmp_datum_t)usual[i].protocol;
        allow_if_all(filter, SCMP_ACT_ALLOW, CALL(socket), args, 3);
    }
}

static void allow_sockets(struct filter *filter)
{
    allow_protocols(filter, AF_INET, IPPROTO_ICMP);
    allow_protocols(filter, AF_INET6, IPPROTO_ICMPV6);
    /* Tried by glibc where another would do, too. */
    allow_if(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), CALL(socket), SCMP_A0(SCMP_CMP_LT, AF_INET));
    /* FIONREAD and FIONBIO; the rest (a terminal? an interface's number?) gets a no. */
    enum { READABLE_BYTES = 0x541b, NONBLOCKING = 0x5421 };
    allow_if(filter, SCMP_ACT_ALLOW, CALL(ioctl), SCMP_A1(SCMP_CMP_EQ, READABLE_BYTES));
    allow_if(filter, SCMP_ACT_ALLOW, CALL(ioctl), SCMP_A1(SCMP_CMP_EQ, NONBLOCKING));
    allow_if(filter, SCMP_ACT_ERRNO(ENOTTY), CALL(ioctl), SCMP_A1(SCMP_CMP_LT, READABLE_BYTES));
    allow_if(filter, SCMP_ACT_ERRNO(ENOTTY), CALL(ioctl), SCMP_A1(SCMP_CMP_GT, NONBLOCKING));
}

static int load(struct filter *filter)
{
    if (filter->ret == 0)
        filter->ret = seccomp_load(filter->context);
    seccomp_release(filter->context);
    return filter->ret;
}

static struct filter begin(void)
{
    struct filter filter = {.context = seccomp_init(SCMP_ACT_KILL_PROCESS)};
    if (!filter.context)
        filter.ret = -ENOMEM;
    else
        filter.ret = seccomp_attr_set(filter.context, SCMP_FLTATR_ACT_BADARCH,
                                      SCMP_ACT_KILL_PROCESS);
    allow(&filter, common_calls, array_size(common_calls));
    refuse(&filter, refused_calls, array_size(refused_calls));
    allow_files_and_memory(&filter);
    if (SANDBOX_WITH_ASAN)
        allow(&filter, (const int[]){CALL(sigaltstack)}, 1);
    return filter;
}

int sandbox_limit_calls_of_worker(int resolver_file)
{
    struct filter filter = begin();
    allow(&filter, worker_calls, array_size(worker_calls));
    allow_flags(&filter);
    allow_sockets(&filter);
    if (resolver_file >= 0) {
        scmp_datum_t file = (scmp_datum_t)resolver_file;
        allow_if(&filter, SCMP_ACT_ALLOW, CALL(pwrite64), SCMP_A0(SCMP_CMP_EQ, file));
        allow_if(&filter, SCMP_ACT_ALLOW, CALL(ftruncate), SCMP_A0(SCMP_CMP_EQ, file));
    }
    return load(&filter);
}

int sandbox_limit_calls_of_keeper(void)
{
    struct filter filter = begin();
    allow(&filter, keeper_calls, array_size(keeper_calls));
    return load(&filter);
}
