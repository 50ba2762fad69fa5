/* SPDX-License-Identifier: MIT */
/*
 * Dirty tracking on /dev/kvm: a guest of a few instructions writes exactly the bytes that it is
 * told to, and we write through the one door.
 */
#include "tests/unit/machines.h"
#include "vmm/dirty.h"
#include "vmm/x86/kvm_x86.h"
#include <sys/mman.h>
#include <unistd.h>

/* RAM in two pieces, as around the hole, and the second one no multiple of 64 pages. */
#define PAGES_LOW  128ull
#define PAGES_HIGH 69ull
#define PAGES      (PAGES_LOW + PAGES_HIGH)
#define HIGH_BASE  0x1000000ull

enum { CODE = 0x1000, LIST = 0x2000, WORDS = 4 };

static struct {
    struct kvm kvm;
    int vm, vcpu;
    struct kvm_run *run;
    struct memory *memory;
    struct dirty *dirty;
    const struct memory_range *ranges;
    uint64_t bitmap[WORDS];
} vm;

/* Writes a byte to each address of the list, which ends with 0; then reports, and starts again. */
static const uint8_t code[] = {
    0xbe, 0x00, 0x20, 0x00, 0x00, /* again: mov esi, LIST */
    0xad,                         /* next:  lodsd */
    0x85, 0xc0,                   /*        test eax, eax */
    0x74, 0x05,                   /*        jz done */
    0xc6, 0x00, 0x55,             /*        mov byte [eax], 0x55 */
    0xeb, 0xf6,                   /*        jmp next */
    0xe6, 0xf4,                   /* done:  out 0xf4, al */
    0xeb, 0xed,                   /*        jmp again */
};

/* Flat 32-bit code without paging, so that not even a page table is written. */
static void set_registers(void)
{
    struct kvm_segment flat = {
        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .g = 1, .db = 1};
    struct kvm_sregs sregs;
    ck_assert_int_eq(kvm_x86_get_sregs(vm.vcpu, &sregs), 0);
    sregs.cs = flat;
    flat.type = 3;
    flat.selector = 16;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
    sregs.cr0 |= 1;
    ck_assert_int_eq(kvm_x86_set_sregs(vm.vcpu, &sregs), 0);
    struct kvm_regs regs = {.rip = CODE, .rflags = 2};
    ck_assert_int_eq(kvm_vcpu_set_regs(vm.vcpu, &regs), 0);
}

static void set_up(void)
{
    memset(&vm, 0, sizeof(vm));
    ck_assert_int_eq(kvm_open(&vm.kvm, NULL), 0);
    ck_assert_int_eq(kvm_create_vm(&vm.kvm, &vm.vm), 0);
    ck_assert_int_eq(dirty_prepare(vm.vm, NULL), 0);
    ck_assert_int_eq(
        memory_create(&vm.memory, PAGES * PAGE_SIZE, PAGES_LOW * PAGE_SIZE, HIGH_BASE, NULL), 0);
    ck_assert_uint_eq(memory_ranges(vm.memory, &vm.ranges), 2);
    for (unsigned slot = 0; slot < 2; slot++)
        ck_assert_int_eq(kvm_vm_set_memory(vm.vm, slot, 0, &vm.ranges[slot]), 0);
    ck_assert_int_eq(memory_write(vm.memory, CODE, code, sizeof(code)), 0);
    ck_assert_int_eq(kvm_vm_create_vcpu(vm.vm, 0, &vm.vcpu), 0);
    vm.run = mmap(NULL, vm.kvm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu, 0);
    ck_assert_ptr_ne(vm.run, MAP_FAILED);
    set_registers();
    ck_assert_int_eq(dirty_create(&vm.dirty, vm.vm, vm.memory, NULL), 0);
    ck_assert_uint_eq(dirty_words(vm.dirty), WORDS);
}

static void tear_down(void)
{
    dirty_destroy(vm.dirty);
    munmap(vm.run, vm.kvm.run_size);
    close(vm.vcpu);
    close(vm.vm);
    memory_destroy(vm.memory);
    kvm_close(&vm.kvm);
}

static void start(void)
{
    struct err err = {0};
    ck_assert_msg(dirty_start(vm.dirty, &err) == 0, "%s", err.text);
}

static gpa_t gpa_of(uint64_t page)
{
    return page < PAGES_LOW ? page * PAGE_SIZE : HIGH_BASE + (page - PAGES_LOW) * PAGE_SIZE;
}

/* The guest writes into these pages (numbers in the file), in this order. */
static void guest_writes(const uint64_t *pages, size_t count)
{
    uint32_t *list = (uint32_t *)(void *)(vm.ranges[0].host + LIST);
    for (size_t i = 0; i < count; i++)
        list[i] = (uint32_t)gpa_of(pages[i]) + 77;
    list[count] = 0;
    ck_assert_int_eq(kvm_vcpu_run(vm.vcpu), 0);
    ck_assert_uint_eq(vm.run->exit_reason, KVM_EXIT_IO);
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = 0;
        ck_assert_int_eq(memory_read(vm.memory, gpa_of(pages[i]) + 77, &byte, 1), 0);
        ck_assert_uint_eq(byte, 0x55);
    }
}

/*
 * Harvests into a clean bitmap: exactly these pages, in ascending order. The guest's own code and
 * list are looked over: KVM may map what is read as writable, and then counts it as written.
 */
static void check_harvest(const uint64_t *pages, size_t count)
{
    uint64_t found = 0;
    memset(vm.bitmap, 0, sizeof(vm.bitmap));
    ck_assert_int_eq(dirty_harvest(vm.dirty, vm.bitmap, &found), 0);
    size_t at = 0;
    for (uint64_t page = 0; page < WORDS * 64; page++) {
        if (!(vm.bitmap[page / 64] >> page % 64 & 1))
            continue;
        if (page == CODE / PAGE_SIZE || page == LIST / PAGE_SIZE) {
            found--;
            continue;
        }
        ck_assert_msg(at < count && pages[at] == page, "page %lu", page);
        at++;
    }
    ck_assert_msg(at == count, "page %lu is missing", pages[at]);
    ck_assert_uint_eq(found, count);
}

START_TEST(test_what_the_guest_writes_shows_up_exactly)
{
    static const uint64_t pages[] = {0, 5, 63, 64, 127, 128, 191, 192, PAGES - 1};
    start();
    check_harvest(NULL, 0);
    guest_writes(pages, array_size(pages));
    check_harvest(pages, array_size(pages));
}
END_TEST

START_TEST(test_a_harvested_page_comes_again_only_when_written_again)
{
    static const uint64_t first[] = {7, 100, 130}, again[] = {100};
    start();
    for (unsigned i = 0; i < 10; i++) {
        guest_writes(first, array_size(first));
        guest_writes(first, array_size(first));
        check_harvest(first, array_size(first));
        check_harvest(NULL, 0);
        guest_writes(again, array_size(again));
        check_harvest(again, array_size(again));
    }
}
END_TEST

START_TEST(test_what_we_write_shows_up_exactly)
{
    static const uint64_t pages[] = {3, 4, 40, 41, 42, 126, 127, 128, 160};
    uint8_t bytes[PAGE_SIZE] = {1};
    void *pointer;
    start();
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(4) - 1, bytes, 2), 0);
    ck_assert_int_eq(memory_fill(vm.memory, gpa_of(40) + 5, 7, 2 * PAGE_SIZE), 0);
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(126) + 1, bytes, PAGE_SIZE), 0);
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(128), bytes, 1), 0);
    ck_assert_int_eq(memory_borrow(vm.memory, gpa_of(160), 16, &pointer), 0);
    check_harvest(pages, array_size(pages) - 1);
    memset(pointer, 1, 16);
    memory_written(vm.memory, gpa_of(160), 16);
    check_harvest(&pages[array_size(pages) - 1], 1);
    check_harvest(NULL, 0);
}
END_TEST

START_TEST(test_both_kinds_of_writes_are_one_harvest)
{
    static const uint64_t guest[] = {10, 11, 150}, all[] = {9, 10, 11, 150, 196};
    uint8_t byte = 1;
    start();
    guest_writes(guest, array_size(guest));
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(9), &byte, 1), 0);
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(11), &byte, 1), 0);
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(196) + PAGE_SIZE - 1, &byte, 1), 0);
    check_harvest(all, array_size(all));
    check_harvest(NULL, 0);
}
END_TEST

START_TEST(test_our_reads_and_refused_writes_mark_nothing)
{
    uint8_t bytes[64];
    start();
    ck_assert_int_eq(memory_read(vm.memory, gpa_of(20), bytes, sizeof(bytes)), 0);
    ck_assert_int_lt(memory_write(vm.memory, gpa_of(127) + PAGE_SIZE - 1, bytes, 2), 0);
    ck_assert_int_lt(memory_write(vm.memory, UINT64_MAX - 1, bytes, 4), 0);
    check_harvest(NULL, 0);
}
END_TEST

START_TEST(test_a_harvest_adds_to_what_is_in_the_bitmap)
{
    static const uint64_t pages[] = {64};
    uint64_t found;
    start();
    guest_writes(pages, 1);
    vm.bitmap[0] = 1ull << 5;
    ck_assert_int_eq(dirty_harvest(vm.dirty, vm.bitmap, &found), 0);
    ck_assert_uint_eq(vm.bitmap[0] & 1ull << 5, 1ull << 5);
    ck_assert_uint_eq(vm.bitmap[1], 1);
}
END_TEST

START_TEST(test_only_what_comes_after_the_start_counts)
{
    static const uint64_t before[] = {30, 140}, after[] = {31};
    uint8_t byte = 1;
    guest_writes(before, array_size(before));
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(32), &byte, 1), 0);
    start();
    check_harvest(NULL, 0);
    guest_writes(before, array_size(before));
    dirty_stop(vm.dirty);
    guest_writes(before, array_size(before)); /* the guest does not notice */
    ck_assert_int_eq(memory_write(vm.memory, gpa_of(33), &byte, 1), 0);
    start(); /* a second life knows nothing of the first */
    guest_writes(after, array_size(after));
    check_harvest(after, array_size(after));
}
END_TEST

/* With the guest running nothing may get lost between two harvests, only come in the later one. */
START_TEST(test_no_write_is_lost_between_harvests)
{
    struct rig rig;
    struct dirty *dirty;
    struct err err = {0};
    uint64_t found, total = 0;
    rig_init(&rig, "counter", 2, "");
    rig_run_until(&rig, 1, 0); /* both count */
    struct memory *memory = machine_memory(rig.machine);
    ck_assert_int_eq(dirty_create(&dirty, machine_vm(rig.machine), memory, &err), 0);
    ck_assert_int_eq(dirty_start(dirty, &err), 0);
    /* A second copy of memory, kept up by what the harvests say. */
    uint8_t *copy = malloc(memory_size(memory));
    const struct memory_range *range;
    memory_ranges(memory, &range);
    memcpy(copy, range->host, range->size);
    uint64_t *bitmap = calloc(dirty_words(dirty), sizeof(*bitmap));
    for (unsigned i = 0; i < 30 || total == 0; i++) {
        rig_run_for(&rig, 3000);
        memset(bitmap, 0, dirty_words(dirty) * sizeof(*bitmap));
        ck_assert_int_eq(dirty_harvest(dirty, bitmap, &found), 0);
        total += found;
        for (uint64_t page = 0; page < memory_size(memory) / PAGE_SIZE; page++)
            if (bitmap[page / 64] >> page % 64 & 1)
                memcpy(copy + page * PAGE_SIZE, range->host + page * PAGE_SIZE, PAGE_SIZE);
        ck_assert_msg(memcmp(copy, range->host, range->size) == 0, "epoch %u", i);
    }
    free(bitmap);
    free(copy);
    dirty_destroy(dirty);
    rig_finish(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dirty");
    TCase *tests = tcase_create("dirty"), *running = tcase_create("running");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, test_what_the_guest_writes_shows_up_exactly);
    tcase_add_test(tests, test_a_harvested_page_comes_again_only_when_written_again);
    tcase_add_test(tests, test_what_we_write_shows_up_exactly);
    tcase_add_test(tests, test_both_kinds_of_writes_are_one_harvest);
    tcase_add_test(tests, test_our_reads_and_refused_writes_mark_nothing);
    tcase_add_test(tests, test_a_harvest_adds_to_what_is_in_the_bitmap);
    tcase_add_test(tests, test_only_what_comes_after_the_start_counts);
    tcase_add_test(running, test_no_write_is_lost_between_harvests);
    tcase_set_timeout(running, PATIENCE_S);
    suite_add_tcase(suite, tests);
    suite_add_tcase(suite, running);
    return unit_main_with_kvm(suite, "test_dirty");
}
