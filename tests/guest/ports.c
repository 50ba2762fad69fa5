/* SPDX-License-Identifier: MIT */
/* Expects: in ring 3, prints "ready", "0", "1", ... line by line until lines=N, by string output
 * and byte by byte in turns; in between echoes what the serial port receives as "<x>", at least
 * keys=N before the last line, reads a counter that gives its low and its high byte in turns, and
 * asks the I/O APIC for what it wrote there; exits 0, or 1 when that ever differs. For hops in the
 * middle of accesses. */
#include "guest.h"

enum {
    RING3_STACK = 16384,
    COUNTER2 = 0x42,
    LINE_STATUS = 5,
    DATA_READY = 1,
    IOAPIC_PIN0_HIGH = 0x11
};

static uint64_t lines, keys, echoed;
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));

static void print_string(uint64_t number)
{
    char text[24];
    char *at = text + sizeof(text);
    *--at = '\n';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    uint64_t count = (uint64_t)(text + sizeof(text) - at);
    __asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(SERIAL) : "memory");
}

/* All that is there, and what is missing of so many. */
static void echo_keys(uint64_t wanted)
{
    bool is_there;

    while ((is_there = in8(SERIAL + LINE_STATUS) & DATA_READY) || echoed < wanted) {
        if (is_there) {
            print("<%c>", in8(SERIAL));
            echoed++;
        }
    }
}

/* A read too many or too few, and the bytes change places. */
static void read_counter(void)
{
    uint8_t bytes[64];
    void *to = bytes + 48;
    uint64_t count = 16;
    for (unsigned i = 0; i < 48; i++)
        bytes[i] = in8(COUNTER2);
    __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(COUNTER2) : "memory");
    for (unsigned i = 0; i < sizeof(bytes); i += 2)
        check(bytes[i] == 0x34 && bytes[i + 1] == 0x12, "byte %u of the counter: %x, then %x", i,
              bytes[i], bytes[i + 1]);
}

/* Counter 2 of the PIT with its gate low, so that it keeps what it was given. */
static void stop_counter(void)
{
    out8(0x61, 0);
    out8(0x43, 0xb0); /* mode 0, low byte then high byte */
    out8(COUNTER2, 0x34);
    out8(COUNTER2, 0x12);
}

static void ring3_main(void)
{
    for (uint64_t number = 0; lines == 0 || number < lines; number++) {
        if (number & 1)
            print_string(number);
        else
            print("%lu\n", number);
        echo_keys(number + 2 >= lines ? keys : 0);
        read_counter();
        uint32_t wanted = (uint32_t)number << 24;
        ioapic_write(IOAPIC_PIN0_HIGH, wanted);
        check(ioapic_read(IOAPIC_PIN0_HIGH) == wanted, "the I/O APIC has %x, not %x",
              ioapic_read(IOAPIC_PIN0_HIGH), wanted);
    }
    quit(0);
}

void guest_main(void)
{
    lines = option("lines", 0);
    keys = option("keys", 0);
    stop_counter();
    (void)ioapic_read(0); /* finds its address */
    out8(SERIAL + 2, 1);  /* FIFOs on, and empty */
    print("ready\n");
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
