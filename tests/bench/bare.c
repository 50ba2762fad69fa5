/* SPDX-License-Identifier: MIT */
/*
 * The floor of this host's KVM: a VM with one vCPU and one memory slot that runs a guest until it
 * resets itself, and not one request more. What another monitor costs, it costs on top of this.
 *
 *   bare GUEST SIZE      GUEST: an ELF file that is entered in 32-bit mode; SIZE: 128M, 6G
 *
 * Exit code 0: the guest wrote 0xfe to port 0x64. Nothing of minivmm is in here, on purpose.
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BELOW_4G 0xc0000000ull /* RAM ends here and goes on at 4 GiB */
#define ABOVE_4G 0x100000000ull

static int request(int fd, unsigned long number, void *arg, const char *name)
{
    int ret = ioctl(fd, number, arg);
    if (ret < 0)
        err(1, "%s", name);
    return ret;
}
#define REQUEST(fd, name, arg) request(fd, name, (void *)(uintptr_t)(arg), #name)

static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t size = strtoull(text, &end, 10);
    if (*end == 'M')
        size <<= 20;
    else if (*end == 'G')
        size <<= 30;
    return size;
}

/* Copies the file's segments to where they belong and returns its entry. */
static uint64_t load(const char *path, uint8_t *memory, uint64_t size)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) < 0)
        err(1, "%s", path);
    const uint8_t *file = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED)
        err(1, "%s", path);
    const Elf64_Ehdr *header = (const void *)file;
    const Elf64_Phdr *segment = (const void *)(file + header->e_phoff);
    for (unsigned i = 0; i < header->e_phnum; i++) {
        if (segment[i].p_type != PT_LOAD)
            continue;
        if (segment[i].p_paddr + segment[i].p_memsz > size)
            errx(1, "%s does not fit", path);
        memcpy(memory + segment[i].p_paddr, file + segment[i].p_offset, segment[i].p_filesz);
    }
    return header->e_entry;
}

static void add_memory(int vm, uint8_t *memory, uint64_t size)
{
    uint64_t below = size < BELOW_4G ? size : BELOW_4G;
    struct kvm_userspace_memory_region low = {.memory_size = below,
                                              .userspace_addr = (uintptr_t)memory};
    struct kvm_userspace_memory_region high = {.slot = 1,
                                               .guest_phys_addr = ABOVE_4G,
                                               .memory_size = size - below,
                                               .userspace_addr = (uintptr_t)memory + below};
    REQUEST(vm, KVM_SET_USER_MEMORY_REGION, &low);
    if (high.memory_size)
        REQUEST(vm, KVM_SET_USER_MEMORY_REGION, &high);
}

/* Flat 32-bit protected mode, as multiboot and PVH kernels are entered. */
static void set_registers(int vcpu, uint64_t entry)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 0x10, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_segment data = code;
    data.selector = 0x18;
    data.type = 3;
    struct kvm_sregs sregs;
    REQUEST(vcpu, KVM_GET_SREGS, &sregs);
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cr0 |= 1;
    REQUEST(vcpu, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {.rip = entry, .rflags = 2};
    REQUEST(vcpu, KVM_SET_REGS, &regs);
}

int main(int argc, char **argv)
{
    uint64_t size = argc == 3 ? parse_size(argv[2]) : 0;
    if (size == 0)
        errx(2, "usage: bare GUEST SIZE");
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        err(1, "/dev/kvm");
    int vm = REQUEST(kvm, KVM_CREATE_VM, 0);
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        err(1, "guest memory");
    add_memory(vm, memory, size);
    int vcpu = REQUEST(vm, KVM_CREATE_VCPU, 0);
    size_t run_size = (size_t)REQUEST(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "the vCPU's shared page");
    set_registers(vcpu, load(argv[1], memory, size));

    REQUEST(vcpu, KVM_RUN, 0);
    const uint8_t *value = (const uint8_t *)run + run->io.data_offset;
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x64 || *value != 0xfe)
        errx(1, "the guest did something else: exit reason %u", run->exit_reason);
    return 0;
}
