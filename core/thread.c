/* SPDX-License-Identifier: MIT */
#include "core/thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/rseq.h>

/* Where the kernel writes down on which CPU it lets the calling thread go on: into a guest, too. */
static const uint32_t *find_cpu(void)
{
    const char *own = __builtin_thread_pointer();
    return __rseq_size > 0 ? &((const struct rseq *)(own + __rseq_offset))->cpu_id : NULL;
}

static void *thread_main(void *arg)
{
    struct thread *thread = arg;
    atomic_store(&thread->cpu, find_cpu());
    thread->run(thread->arg);
    atomic_store(&thread->cpu, NULL);
    return NULL;
}

/*
 * All signals but those that a thread brings upon itself: a fault whose signal is blocked kills
 * without a handler, and the handler is what restores the terminal.
 */
static void fill_blocked(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
    sigfillset(set);
    for (size_t i = 0; i < array_size(own); i++)
        sigdelset(set, own[i]);
}

static int start(pthread_t *ret_id, const pthread_attr_t *attributes, const char *name,
                 void *(*start_at)(void *arg), void *arg, struct err *err)
{
    /* The child inherits the mask that is in force at its creation: no window with signals open. */
    sigset_t all, before;
    fill_blocked(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(ret_id, attributes, start_at, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? err_sys(err, ERR_HOST, error, "cannot start thread %s", name) : 0;
}

int thread_start(struct thread *thread, const char *name, void (*run)(void *arg), void *arg,
                 struct err *err)
{
    thread->run = run;
    thread->arg = arg;
    snprintf(thread->name, sizeof(thread->name), "%s", name);

    int ret = start(&thread->id, NULL, name, thread_main, thread, err);
    if (ret < 0)
        return ret;
    thread->started = true;
    /* Not by the thread itself: it has its name when we return, whenever it gets its turn. */
    pthread_setname_np(thread->id, thread->name);
    return 0;
}

struct loose {
    void (*run)(void *arg);
    void *arg;
    char name[16];
};

/* It names itself: whoever started it cannot know that it is still there. */
static void *loose_main(void *arg)
{
    const struct loose loose = *(struct loose *)arg;
    free(arg);
    pthread_setname_np(pthread_self(), loose.name);
    loose.run(loose.arg);
    return NULL;
}

int thread_start_loose(const char *name, void (*run)(void *arg), void *arg, struct err *err)
{
    struct loose *loose = malloc(sizeof(*loose));
    pthread_attr_t attributes;
    pthread_t id;
    if (!loose)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot start thread %s", name);
    *loose = (struct loose){.run = run, .arg = arg};
    snprintf(loose->name, sizeof(loose->name), "%s", name);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int ret = start(&id, &attributes, name, loose_main, loose, err);
    pthread_attr_destroy(&attributes);
    if (ret < 0)
        free(loose);
    return ret;
}

int thread_cpu(const struct thread *thread)
{
    const uint32_t *cpu = atomic_load(&thread->cpu);
    return cpu ? (int)__atomic_load_n(cpu, __ATOMIC_RELAXED) : -1;
}

uint64_t thread_cpu_ns(const struct thread *thread)
{
    clockid_t clock;
    struct timespec time;
    if (!thread->started || pthread_getcpuclockid(thread->id, &clock) != 0 ||
        clock_gettime(clock, &time) < 0)
        return 0;
    return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

/* Of Linux's threads each has its own, whatever POSIX says. */
void thread_be_modest(void)
{
    enum { MODEST = 5 };
    if (getpriority(PRIO_PROCESS, 0) < MODEST)
        (void)setpriority(PRIO_PROCESS, 0, MODEST); /* nothing depends on it */
}

void thread_join(struct thread *thread)
{
    if (!thread->started)
        return;
    pthread_join(thread->id, NULL);
    thread->started = false;
}

int thread_kick_signal(void)
{
    return SIGRTMIN;
}

static void handle_kick(int signal)
{
}

int thread_install_kick_handler(struct err *err)
{
    struct sigaction action = {.sa_handler = handle_kick}; /* no SA_RESTART: it must interrupt */
    if (sigaction(thread_kick_signal(), &action, NULL) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot install the signal handler for kicks");
    return 0;
}

void thread_allow_kick(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, thread_kick_signal());
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void thread_kick(const struct thread *thread)
{
    if (thread->started)
        pthread_kill(thread->id, thread_kick_signal());
}
