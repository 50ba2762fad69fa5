/* SPDX-License-Identifier: MIT */
/*
 * What a checkpoint costs at least on this host: the floors that benchmarks print beside their own
 * figures, measured just before them. Nothing of minivmm is in here, on purpose.
 *
 *   floors [-r MS] [PAGES...]    (64 256 1024 4096 16384)
 *
 *   k     a vCPU that spins is stopped: immediate_exit and a signal, until KVM_RUN has returned
 *   s     all KVM_GET_* of that vCPU
 *   m(D)  D pages, scattered over 1 GiB, are copied by one thread
 *   R     64 bytes go to another thread over the loopback's TCP, and come back
 *
 * One line each: name, then microseconds: median, 99th percentile, least.
 *
 * With -r each comes after so many milliseconds in which all has slept, and the vCPU is halted
 * instead: what checkpoints of an idle guest begin with are CPUs that sleep, and caches that others
 * had.
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 2000, ROUNDS_AT_REST = 120, PAGE = 4096, MEMORY = 1 << 30, MOST_MSRS = 1024 };

static unsigned rest_ms; /* 0: one after the other at once */

static unsigned rounds_of(unsigned at_once)
{
    return rest_ms && at_once > ROUNDS_AT_REST ? ROUNDS_AT_REST : at_once;
}

static void rest(void)
{
    const struct timespec time = {.tv_sec = rest_ms / 1000, .tv_nsec = rest_ms % 1000 * 1000000};
    if (rest_ms)
        nanosleep(&time, NULL);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print(const char *name, uint64_t *ns, unsigned count)
{
    qsort(ns, count, sizeof(*ns), compare);
    printf("%-10s %10.1f %10.1f %10.1f\n", name, (double)ns[count / 2] / 1e3,
           (double)ns[count - 1 - count / 100] / 1e3, (double)ns[0] / 1e3);
    fflush(stdout);
}

static int request(int fd, unsigned long number, void *arg, const char *name)
{
    int ret = ioctl(fd, number, arg);
    if (ret < 0)
        err(1, "%s", name);
    return ret;
}
#define REQUEST(fd, name, arg) request(fd, name, (void *)(uintptr_t)(arg), #name)

/* --- a vCPU that spins, or sleeps ------------------------------------------------------------- */

static struct {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    pthread_t thread;
    _Atomic uint64_t returned_ns; /* 0: it runs */
    atomic_bool go, ended;
    struct kvm_msrs *msrs;
    size_t xsave_size;
} guest;

static void handle_signal(int number)
{
}

static void *run_vcpu(void *arg)
{
    while (!guest.ended) {
        while (!guest.go && !guest.ended)
            ;
        guest.go = false;
        int ret = ioctl(guest.vcpu, KVM_RUN, 0);
        guest.returned_ns = now_ns();
        if (ret == 0)
            errx(1, "the guest does not spin: exit %u", guest.run->exit_reason);
    }
    return NULL;
}

/* Only what can be read. */
static void list_msrs(void)
{
    struct kvm_msr_list *list = calloc(1, sizeof(*list) + MOST_MSRS * sizeof(list->indices[0]));
    struct kvm_msrs *one = calloc(1, sizeof(*one) + sizeof(one->entries[0]));
    guest.msrs = calloc(1, sizeof(*guest.msrs) + MOST_MSRS * sizeof(guest.msrs->entries[0]));
    if (!list || !one || !guest.msrs)
        err(1, "memory");
    list->nmsrs = MOST_MSRS;
    REQUEST(guest.kvm, KVM_GET_MSR_INDEX_LIST, list);
    for (unsigned i = 0; i < list->nmsrs; i++) {
        one->nmsrs = 1;
        one->entries[0].index = list->indices[i];
        if (ioctl(guest.vcpu, KVM_GET_MSRS, one) == 1)
            guest.msrs->entries[guest.msrs->nmsrs++].index = list->indices[i];
    }
    free(list);
    free(one);
}

/* In ring 3 of 64-bit mode, as guests are most of the time: a KVM without hardware virtualization
 * interprets what runs elsewhere, and stops that sooner. */
static void enter_ring_3(uint8_t *memory)
{
    enum { CODE = 0x1000, PML4 = 0x2000, PDPT = 0x3000, PD = 0x4000, ENTRY = 7, HUGE = 0x80 };
    static const uint8_t spin[] = {0xeb, 0xfe}; /* jmp . */
    const uint64_t pml4 = PDPT | ENTRY, pdpt = PD | ENTRY, pd = ENTRY | HUGE;
    struct kvm_sregs sregs;
    memcpy(memory + CODE, spin, sizeof(spin));
    memcpy(memory + PML4, &pml4, sizeof(pml4));
    memcpy(memory + PDPT, &pdpt, sizeof(pdpt));
    memcpy(memory + PD, &pd, sizeof(pd));
    REQUEST(guest.vcpu, KVM_GET_SREGS, &sregs);
    sregs.cr3 = PML4;
    sregs.cr4 = 0x620;
    sregs.cr0 = 0x80000033;
    sregs.efer = 0x501;
    sregs.cs = (struct kvm_segment){.selector = 0x33,
                                    .limit = UINT32_MAX,
                                    .type = 11,
                                    .present = 1,
                                    .dpl = 3,
                                    .s = 1,
                                    .l = 1,
                                    .g = 1};
    sregs.ss = sregs.cs;
    sregs.ss.selector = 0x2b;
    sregs.ss.type = 3;
    sregs.ss.l = 0;
    sregs.ss.db = 1;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
    REQUEST(guest.vcpu, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {.rip = CODE, .rflags = 2};
    REQUEST(guest.vcpu, KVM_SET_REGS, &regs);
}

static void make_guest(void)
{
    guest.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (guest.kvm < 0)
        err(1, "/dev/kvm");
    guest.vm = REQUEST(guest.kvm, KVM_CREATE_VM, 0);
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    REQUEST(guest.vm, KVM_ENABLE_CAP, &split);
    void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = 1 << 20,
                                                 .userspace_addr = (uintptr_t)memory};
    REQUEST(guest.vm, KVM_SET_USER_MEMORY_REGION, &region);
    guest.vcpu = REQUEST(guest.vm, KVM_CREATE_VCPU, 0);
    size_t size = (size_t)REQUEST(guest.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    guest.run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, guest.vcpu, 0);
    if (memory == MAP_FAILED || guest.run == MAP_FAILED)
        err(1, "mmap");
    enter_ring_3(memory);
    int xsave = ioctl(guest.vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    guest.xsave_size = xsave > (int)sizeof(struct kvm_xsave) ? (size_t)xsave
                                                             : sizeof(struct kvm_xsave);
    list_msrs();
}

static void read_state(void)
{
    static struct {
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct kvm_xcrs xcrs;
        struct kvm_lapic_state lapic;
        struct kvm_vcpu_events events;
        struct kvm_mp_state mp_state;
        struct kvm_debugregs debugregs;
    } state;
    static uint8_t xsave[1 << 16];
    REQUEST(guest.vcpu, KVM_GET_MP_STATE, &state.mp_state);
    REQUEST(guest.vcpu, KVM_GET_REGS, &state.regs);
    REQUEST(guest.vcpu, KVM_GET_SREGS, &state.sregs);
    if (guest.xsave_size > sizeof(struct kvm_xsave))
        REQUEST(guest.vcpu, KVM_GET_XSAVE2, xsave);
    else
        REQUEST(guest.vcpu, KVM_GET_XSAVE, xsave);
    REQUEST(guest.vcpu, KVM_GET_XCRS, &state.xcrs);
    REQUEST(guest.vcpu, KVM_GET_MSRS, guest.msrs);
    REQUEST(guest.vcpu, KVM_GET_LAPIC, &state.lapic);
    REQUEST(guest.vcpu, KVM_GET_VCPU_EVENTS, &state.events);
    REQUEST(guest.vcpu, KVM_GET_DEBUGREGS, &state.debugregs);
}

/* Until it has spun for a while, or slept. */
static void let_run(void)
{
    enum { SPINS_NS = 200000 };
    struct kvm_mp_state halted = {.mp_state = KVM_MP_STATE_HALTED};
    if (rest_ms)
        REQUEST(guest.vcpu, KVM_SET_MP_STATE, &halted);
    guest.returned_ns = 0;
    guest.run->immediate_exit = 0;
    guest.go = true;
    if (rest_ms)
        rest();
    else
        for (uint64_t begin = now_ns(); now_ns() - begin < SPINS_NS;)
            ;
}

static void measure_vcpu(void)
{
    static uint64_t kicks[ROUNDS], reads[ROUNDS];
    const struct sigaction action = {.sa_handler = handle_signal};
    sigaction(SIGUSR1, &action, NULL);
    make_guest();
    if (pthread_create(&guest.thread, NULL, run_vcpu, NULL) != 0)
        errx(1, "no thread");
    for (unsigned i = 0; i < rounds_of(ROUNDS); i++) {
        let_run();
        uint64_t begin = now_ns();
        guest.run->immediate_exit = 1;
        pthread_kill(guest.thread, SIGUSR1);
        while (!guest.returned_ns)
            ;
        kicks[i] = guest.returned_ns - begin;
        begin = now_ns();
        read_state();
        reads[i] = now_ns() - begin;
    }
    guest.ended = true;
    pthread_join(guest.thread, NULL);
    print("k", kicks, rounds_of(ROUNDS));
    print("s", reads, rounds_of(ROUNDS));
}

/* --- pages ------------------------------------------------------------------------------------ */

static void measure_copies(unsigned pages)
{
    enum { MOST = 400 };
    static uint64_t ns[MOST];
    static uint8_t *memory;
    uint64_t random = 88172645463325252ull;
    unsigned rounds = 2000000 / (pages + 1000) + 20;
    if (!memory) {
        memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory == MAP_FAILED)
            err(1, "memory");
        for (size_t at = 0; at < MEMORY; at += PAGE)
            memory[at] = (uint8_t)(at >> 12 | 1);
    }
    uint32_t *list = calloc(pages, sizeof(*list));
    uint8_t *to = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (!list || to == MAP_FAILED)
        err(1, "memory");
    rounds = rounds_of(rounds > MOST ? MOST : rounds);
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned page = 0; page < pages; page++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            list[page] = (uint32_t)(random % (MEMORY / PAGE));
        }
        rest();
        uint64_t begin = now_ns();
        for (unsigned page = 0; page < pages; page++)
            memcpy(to + (size_t)page * PAGE, memory + (size_t)list[page] * PAGE, PAGE);
        ns[i] = now_ns() - begin;
    }
    char name[32];
    snprintf(name, sizeof(name), "m(%u)", pages);
    print(name, ns, rounds);
    munmap(to, (size_t)pages * PAGE);
    free(list);
}

/* --- the loopback ----------------------------------------------------------------------------- */

static void *echo(void *arg)
{
    char bytes[64];
    int fd = *(const int *)arg;
    while (recv(fd, bytes, sizeof(bytes), MSG_WAITALL) == sizeof(bytes))
        if (send(fd, bytes, sizeof(bytes), 0) != sizeof(bytes))
            break;
    return NULL;
}

static void measure_round_trip(void)
{
    static uint64_t ns[ROUNDS];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int server = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    int here = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0 || here < 0 || bind(server, (struct sockaddr *)&address, length) < 0 ||
        listen(server, 1) < 0 || getsockname(server, (struct sockaddr *)&address, &length) < 0 ||
        connect(here, (struct sockaddr *)&address, length) < 0)
        err(1, "the loopback");
    int there = accept(server, NULL, NULL);
    setsockopt(here, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(there, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    pthread_t thread;
    if (there < 0 || pthread_create(&thread, NULL, echo, &there) != 0)
        err(1, "the other side");
    for (unsigned i = 0; i < rounds_of(ROUNDS); i++) {
        char bytes[64] = {0};
        rest();
        uint64_t begin = now_ns();
        if (send(here, bytes, sizeof(bytes), 0) != sizeof(bytes) ||
            recv(here, bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes))
            err(1, "the loopback");
        ns[i] = now_ns() - begin;
    }
    close(here);
    pthread_join(thread, NULL);
    print("R", ns, rounds_of(ROUNDS));
}

int main(int argc, char **argv)
{
    static const unsigned usual[] = {64, 256, 1024, 4096, 16384};
    int first = 1;
    if (argc > 2 && strcmp(argv[1], "-r") == 0) {
        rest_ms = (unsigned)strtoul(argv[2], NULL, 10);
        first = 3;
    }
    measure_vcpu();
    for (int i = first; i < argc; i++)
        measure_copies((unsigned)strtoul(argv[i], NULL, 10));
    for (unsigned i = 0; first == argc && i < sizeof(usual) / sizeof(usual[0]); i++)
        measure_copies(usual[i]);
    measure_round_trip();
    return 0;
}
