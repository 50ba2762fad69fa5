/* SPDX-License-Identifier: MIT */
/*
 * INT 1Ah, AH=B1h: PCI BIOS 2.1. Boot programs find their devices by it (iPXE by nothing else);
 * operating systems do not ask. There is one bus. Configuration space is reached as the guest
 * itself would, by the ports of mechanism 1, whose address register is left as it was.
 */
#include "firmware/x86/bios_parts.h"

#define ADDRESS_PORT   0xCF8u
#define DATA_PORT      0xCFCu
#define ADDRESS_ENABLE 0x80000000u
#define SIGNATURE      0x20494350u /* "PCI " */

enum { FUNCTIONS = 256, REGISTERS = 256, NO_VENDOR = 0xFFFF };

enum {
    PCI_PRESENT = 0x01,
    PCI_FIND_DEVICE = 0x02,
    PCI_FIND_CLASS = 0x03,
    PCI_READ = 0x08, /* byte, word, double word */
    PCI_WRITE = 0x0B,
    PCI_END = 0x0E,
};

enum {
    NOT_SUPPORTED = 0x81,
    BAD_VENDOR = 0x83,
    NOT_FOUND = 0x86,
    BAD_REGISTER = 0x87,
};

/* Goes to a function's registers; returns what the guest had in the address register. */
static uint32_t point_at(struct bios_call *call, unsigned function, unsigned reg)
{
    struct bus *ports = call->bios->config.ports;
    uint32_t before = (uint32_t)bus_read(ports, ADDRESS_PORT, 4);

    bus_write(ports, ADDRESS_PORT, 4, ADDRESS_ENABLE | function << 8 | (reg & 0xFCu));
    return before;
}

static uint32_t read_config(struct bios_call *call, unsigned function, unsigned reg, unsigned width)
{
    uint32_t before = point_at(call, function, reg);
    uint32_t value = (uint32_t)bus_read(call->bios->config.ports, DATA_PORT + (reg & 3), width);

    bus_write(call->bios->config.ports, ADDRESS_PORT, 4, before);
    return value;
}

static void write_config(struct bios_call *call, unsigned function, unsigned reg, unsigned width,
                         uint32_t value)
{
    uint32_t before = point_at(call, function, reg);

    bus_write(call->bios->config.ports, DATA_PORT + (reg & 3), width, value);
    bus_write(call->bios->config.ports, ADDRESS_PORT, 4, before);
}

static void tell_presence(struct bios_call *call)
{
    enum { MECHANISM_1 = 0x01, VERSION = 0x0210, LAST_BUS = 0 };

    call_good(call);
    set_low(&call->mail.eax, MECHANISM_1);
    set_word(&call->mail.ebx, VERSION);
    set_low(&call->mail.ecx, LAST_BUS);
    call->mail.edx = SIGNATURE;
}

/* The SIth function whose register, shifted, has this value. All are asked: 256 reads at most. */
static void find(struct bios_call *call, unsigned reg, unsigned shift, uint32_t wanted)
{
    unsigned index = word(call->mail.esi);

    for (unsigned function = 0; function < FUNCTIONS; function++) {
        if (read_config(call, function, 0, 2) == NO_VENDOR ||
            read_config(call, function, reg, 4) >> shift != wanted || index-- > 0)
            continue;
        set_word(&call->mail.ebx, (uint16_t)function);
        call_good(call);
        return;
    }
    call_bad(call, NOT_FOUND);
}

static void find_device(struct bios_call *call)
{
    enum { IDS = 0x00 };
    uint16_t vendor = word(call->mail.edx);

    if (vendor == NO_VENDOR)
        call_bad(call, BAD_VENDOR);
    else
        find(call, IDS, 0, (uint32_t)word(call->mail.ecx) << 16 | vendor);
}

static void find_class(struct bios_call *call)
{
    enum { CLASS_AND_REVISION = 0x08 };

    find(call, CLASS_AND_REVISION, 8, call->mail.ecx & 0xFFFFFFu);
}

/* The register in DI, of the function in BX (the bus in BH). */
static void access_config(struct bios_call *call, bool write, unsigned width)
{
    unsigned reg = word(call->mail.edi), function = word(call->mail.ebx);
    uint32_t mask = width == 4 ? ~0u : (1u << 8 * width) - 1;

    if (reg >= REGISTERS || reg % width) {
        call_bad(call, BAD_REGISTER);
        return;
    }
    /* Other buses have nothing: the ports say so. */
    if (write)
        write_config(call, function, reg, width, call->mail.ecx & mask);
    else
        call->mail.ecx = (call->mail.ecx & ~mask) |
                         (read_config(call, function, reg, width) & mask);
    call_good(call);
}

void bios_pci(struct bios_call *call)
{
    unsigned service = low(call->mail.eax);

    if (service == PCI_PRESENT)
        tell_presence(call);
    else if (service == PCI_FIND_DEVICE)
        find_device(call);
    else if (service == PCI_FIND_CLASS)
        find_class(call);
    else if (service >= PCI_READ && service < PCI_WRITE)
        access_config(call, false, 1u << (service - PCI_READ));
    else if (service >= PCI_WRITE && service < PCI_END)
        access_config(call, true, 1u << (service - PCI_WRITE));
    else
        call_bad(call, NOT_SUPPORTED);
}
