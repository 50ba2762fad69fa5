/* SPDX-License-Identifier: MIT */
/* What a worker of user networking that was broken into can still ask the kernel for. */
#include "tests/unit/unit.h"
#include "usernet/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void own_signals(int fd)
{
    fcntl(fd, F_SETOWN, getppid());
}

static void choose_signal(int fd)
{
    fcntl(fd, F_SETSIG, SIGUSR1);
}

static void take_a_port(int fd)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) == 0)
        _exit(1);
}

static void wait_for_callers(int fd)
{
    if (listen(fd, 1) == 0)
        _exit(1);
}

static void signal_another(int fd)
{
    kill(getppid(), SIGCONT);
}

static void not_wait(int fd)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || !(fcntl(fd, F_GETFL) & O_NONBLOCK))
        _exit(1);
}

static void open_the_usual(int fd)
{
    const struct {
        int type, protocol;
    } usual[] = {{SOCK_STREAM, 0},
                 {SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP},
                 {SOCK_DGRAM, 0},
                 {SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP}};
    for (size_t i = 0; i < array_size(usual); i++)
        if (socket(AF_INET, usual[i].type, usual[i].protocol) < 0)
            _exit(1);
    /* Not everybody may ping, but everybody may ask. */
    int ping = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6), raw = socket(AF_INET, SOCK_RAW, 1);
    (void)ping;
    if (raw >= 0 || errno != EPERM)
        _exit(1);
}

static void open_a_rare_protocol(int fd)
{
    socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
}

static void open_a_rare_type(int fd)
{
    socket(AF_INET6, SOCK_SEQPACKET, 0);
}

static const struct {
    void (*attempt)(int fd);
    bool allowed;
} attempts[] = {
    {own_signals, false},      {choose_signal, false},        {take_a_port, false},
    {wait_for_callers, false}, {signal_another, false},       {not_wait, true},
    {open_the_usual, true},    {open_a_rare_protocol, false}, {open_a_rare_type, false},
};

START_TEST(what_a_worker_does_not_need_ends_it)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || sandbox_drop_privileges() < 0 || sandbox_limit_calls_of_worker(-1) < 0)
            _exit(2);
        attempts[_i].attempt(fd);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (attempts[_i].allowed)
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    else
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}
END_TEST

START_TEST(a_worker_without_a_root_of_its_own_reads_no_files_of_the_users)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (open("/proc/self/status", O_RDONLY | O_CLOEXEC) < 0 || sandbox_drop_privileges() < 0)
            _exit(2);
        if (!sandbox_limit_files())
            _exit(0); /* a kernel without Landlock */
        if (open("/proc/self/status", O_RDONLY | O_CLOEXEC) >= 0 ||
            open("/", O_RDONLY | O_CLOEXEC) >= 0)
            _exit(1);
        _exit(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("usernet_calls");
    TCase *tcase = tcase_create("all");
    tcase_add_loop_test(tcase, what_a_worker_does_not_need_ends_it, 0, array_size(attempts));
    tcase_add_test(tcase, a_worker_without_a_root_of_its_own_reads_no_files_of_the_users);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(suite());
}
