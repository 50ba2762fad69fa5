/* SPDX-License-Identifier: MIT */
/*
 * All tables are gathered in one buffer that mirrors guest memory from LAYOUT_ACPI on, each aligned
 * as it likes, so the address of a table is where the buffer ends when the table begins. A table
 * that points to others is written after them; the root pointer comes last.
 *
 *   header of a table (5.2.6)
 *     0 signature · 4 length · 8 revision · 9 checksum · 10 OEM id (6) · 16 OEM table id (8)
 *     24 OEM revision · 28 creator id · 32 creator revision · 36 contents
 */
#include "firmware/x86/acpi.h"

#include "core/stream.h"
#include "devices/acpi_pm.h"
#include "firmware/dsdt.hex" /* dsdt_aml_code, made by iasl from dsdt.asl */
#include "firmware/x86/layout.h"
#include <errno.h>
#include <string.h>

enum { HEADER_SIZE = 36, LENGTH_AT = 4, CHECKSUM_AT = 9 };

/* Address spaces of a generic address (5.2.3.2). */
enum { SPACE_IO = 1 };

static const char OEM_ID[] = "MINIVM";         /* 6 characters */
static const char OEM_TABLE_ID[] = "MINIVMM "; /* 8 characters */

static void put_text(struct stream_buffer *to, const char *text, size_t length)
{
    stream_write(&to->stream, text, length);
}

static void put8(struct stream_buffer *to, uint8_t value)
{
    stream_put_u8(&to->stream, value);
}

static void put16(struct stream_buffer *to, uint16_t value)
{
    stream_put_u16(&to->stream, value);
}

static void put32(struct stream_buffer *to, uint32_t value)
{
    stream_put_u32(&to->stream, value);
}

static void put64(struct stream_buffer *to, uint64_t value)
{
    stream_put_u64(&to->stream, value);
}

static void put_zeroes(struct stream_buffer *to, size_t count)
{
    while (count--)
        put8(to, 0);
}

static gpa_t align(struct stream_buffer *to, size_t alignment)
{
    put_zeroes(to, -to->length % alignment);
    return LAYOUT_ACPI + to->length;
}

/* Makes the bytes [at, at + length) add up to 0 by the one at checksum_at. */
static void set_checksum(struct stream_buffer *to, size_t at, size_t length, size_t checksum_at)
{
    uint8_t sum = 0;

    if (stream_error(&to->stream) < 0)
        return;
    to->bytes[checksum_at] = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + to->bytes[at + i]);
    to->bytes[checksum_at] = (uint8_t)-sum;
}

static gpa_t begin_table(struct stream_buffer *to, const char *signature, uint8_t revision)
{
    gpa_t at = align(to, 16);

    put_text(to, signature, 4);
    put32(to, 0); /* length: end_table */
    put8(to, revision);
    put8(to, 0); /* checksum: end_table */
    put_text(to, OEM_ID, 6);
    put_text(to, OEM_TABLE_ID, 8);
    put32(to, 1);
    put_text(to, "MVMM", 4);
    put32(to, 1);
    return at;
}

static gpa_t end_table(struct stream_buffer *to, gpa_t table)
{
    size_t at = table - LAYOUT_ACPI;
    uint32_t length = (uint32_t)(to->length - at);

    if (stream_error(&to->stream) < 0)
        return table;
    memcpy(to->bytes + at + LENGTH_AT, &length, sizeof length);
    set_checksum(to, at, length, at + CHECKSUM_AT);
    return table;
}

/* The firmware control structure: where the guest leaves its wakeup vector, which nobody reads. */
static gpa_t put_facs(struct stream_buffer *to)
{
    enum { SIZE = 64, VERSION = 2 };
    gpa_t at = align(to, 64);

    put_text(to, "FACS", 4);
    put32(to, SIZE);
    put_zeroes(to, 24);
    put8(to, VERSION);
    put_zeroes(to, 31);
    return at;
}

static gpa_t put_dsdt(struct stream_buffer *to)
{
    gpa_t at = align(to, 16);

    stream_write(&to->stream, dsdt_aml_code, sizeof dsdt_aml_code);
    return at;
}

/* A generic address: I/O port, 0 meaning that there is none. */
static void put_port(struct stream_buffer *to, uint16_t port, uint8_t bytes)
{
    enum { ACCESS_BYTE = 1, ACCESS_WORD, ACCESS_DWORD };
    uint8_t access = bytes == 1 ? ACCESS_BYTE : bytes == 2 ? ACCESS_WORD : ACCESS_DWORD;

    put8(to, port ? SPACE_IO : 0);
    put8(to, port ? (uint8_t)(bytes * 8) : 0);
    put8(to, 0);
    put8(to, port ? access : 0);
    put64(to, port);
}

/* 5.2.9. The registers are those of devices/acpi_pm: no second blocks, no PM2. */
static gpa_t put_fadt(struct stream_buffer *to, gpa_t facs, gpa_t dsdt)
{
    enum {
        REVISION = 6,
        MINOR = 5,
        PROFILE_ENTERPRISE_SERVER = 4,
        SCI = 9,
        RTC_CENTURY = 0x32, /* its index in CMOS RAM, see devices/rtc */
        EVENT_SIZE = 4,
        CONTROL_SIZE = 2,
        TIMER_SIZE = 4,
        EVENTS_SIZE = 2,
        NO_C2 = 101, /* latencies above 100 and 1000 mean: not there */
        NO_C3 = 1001,
        BOOT_LEGACY_DEVICES = 1 << 0,
        /* Bit 1, an 8042 keyboard controller, stays clear although its reset line works: a guest
         * that hears of one spends its time looking for a keyboard. */
        BOOT_NO_VGA = 1 << 2,
        WBINVD = 1 << 0,
        C1_EVERYWHERE = 1 << 2,
        NO_FIXED_SLEEP_BUTTON = 1 << 5, /* bit 4 clear: a fixed power button */
        NO_FIXED_RTC_WAKE = 1 << 6,
        TIMER_32_BIT = 1 << 8,
        RESET_REGISTER = 1 << 10,
    };
    gpa_t at = begin_table(to, "FACP", REVISION);

    put32(to, (uint32_t)facs);
    put32(to, (uint32_t)dsdt);
    put8(to, 0);
    put8(to, PROFILE_ENTERPRISE_SERVER);
    put16(to, SCI);
    put32(to, 0);      /* SMI_CMD: none, so ACPI mode is always on */
    put_zeroes(to, 4); /* ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT */
    put32(to, ACPI_PM_BASE + ACPI_PM1A_STATUS);
    put32(to, 0); /* PM1b event */
    put32(to, ACPI_PM_BASE + ACPI_PM1A_CONTROL);
    put32(to, 0); /* PM1b control */
    put32(to, 0); /* PM2 control */
    put32(to, ACPI_PM_BASE + ACPI_PM_TIMER);
    put32(to, ACPI_PM_BASE + ACPI_GPE0_STATUS);
    put32(to, 0); /* GPE1 */
    put8(to, EVENT_SIZE);
    put8(to, CONTROL_SIZE);
    put8(to, 0); /* PM2 */
    put8(to, TIMER_SIZE);
    put8(to, EVENTS_SIZE);
    put_zeroes(to, 3); /* GPE1 length and base, CST_CNT */
    put16(to, NO_C2);
    put16(to, NO_C3);
    put_zeroes(to, 8); /* flush size and stride, duty cycle, RTC alarm */
    put8(to, RTC_CENTURY);
    put16(to, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
    put8(to, 0);
    put32(to, WBINVD | C1_EVERYWHERE | NO_FIXED_SLEEP_BUTTON | NO_FIXED_RTC_WAKE | TIMER_32_BIT |
                  RESET_REGISTER);
    put_port(to, ACPI_PM_BASE + ACPI_PM_RESET, 1);
    put8(to, ACPI_PM_RESET_VALUE);
    put16(to, 0); /* ARM boot flags */
    put8(to, MINOR);
    put64(to, 0); /* X_FIRMWARE_CTRL: the 32-bit one is set */
    put64(to, dsdt);
    put_port(to, ACPI_PM_BASE + ACPI_PM1A_STATUS, EVENT_SIZE);
    put_port(to, 0, 0);
    put_port(to, ACPI_PM_BASE + ACPI_PM1A_CONTROL, CONTROL_SIZE);
    put_port(to, 0, 0);
    put_port(to, 0, 0);
    put_port(to, ACPI_PM_BASE + ACPI_PM_TIMER, TIMER_SIZE);
    put_port(to, ACPI_PM_BASE + ACPI_GPE0_STATUS, EVENTS_SIZE);
    put_port(to, 0, 0); /* GPE1 */
    put_port(to, 0, 0); /* sleep control and status, for reduced hardware */
    put_port(to, 0, 0);
    put_text(to, "MINIVMM", 8); /* hypervisor vendor */
    return end_table(to, at);
}

/* One processor (5.2.12.2, 5.2.12.12). APIC id 255 means everybody, so from there on it is x2APIC.
 */
static void put_processor(struct stream_buffer *to, uint32_t id)
{
    enum { LOCAL_APIC = 0, LOCAL_X2APIC = 9, ENABLED = 1 };

    if (id < 255) {
        put8(to, LOCAL_APIC);
        put8(to, 8);
        put8(to, (uint8_t)id); /* UID */
        put8(to, (uint8_t)id);
        put32(to, ENABLED);
    } else {
        put8(to, LOCAL_X2APIC);
        put8(to, 16);
        put16(to, 0);
        put32(to, id);
        put32(to, ENABLED);
        put32(to, id); /* UID */
    }
}

/* ISA interrupt `source` arrives at the I/O APIC as gsi (5.2.12.5). */
static void put_override(struct stream_buffer *to, uint8_t source, uint32_t gsi, uint16_t flags)
{
    enum { INTERRUPT_OVERRIDE = 2 };

    put8(to, INTERRUPT_OVERRIDE);
    put8(to, 10);
    put8(to, 0); /* ISA */
    put8(to, source);
    put32(to, gsi);
    put16(to, flags);
}

/* The NMI line of every processor is LINT1, as wired on a PC (5.2.12.7, 5.2.12.13). */
static void put_nmi(struct stream_buffer *to, bool x2apic)
{
    enum { LOCAL_APIC_NMI = 4, LOCAL_X2APIC_NMI = 10, LINT1 = 1 };

    put8(to, LOCAL_APIC_NMI);
    put8(to, 6);
    put8(to, 0xFF);
    put16(to, 0);
    put8(to, LINT1);
    if (!x2apic)
        return;
    put8(to, LOCAL_X2APIC_NMI);
    put8(to, 12);
    put16(to, 0);
    put32(to, 0xFFFFFFFF);
    put8(to, LINT1);
    put_zeroes(to, 3);
}

static gpa_t put_madt(struct stream_buffer *to, unsigned cpus)
{
    enum {
        REVISION = 5,
        PCAT_COMPAT = 1, /* a pair of 8259 is there too */
        IO_APIC = 1,
        AS_THE_BUS = 0,
        LEVEL_ACTIVE_HIGH = 0xD,
    };
    gpa_t at = begin_table(to, "APIC", REVISION);

    put32(to, LAYOUT_LAPIC);
    put32(to, PCAT_COMPAT);
    for (uint32_t id = 0; id < cpus; id++)
        put_processor(to, id);
    put8(to, IO_APIC);
    put8(to, 12);
    put8(to, 0); /* id */
    put8(to, 0);
    put32(to, LAYOUT_IOAPIC);
    put32(to, 0);                              /* first GSI */
    put_override(to, 0, 2, AS_THE_BUS);        /* the PIT, as wired on a PC */
    put_override(to, 9, 9, LEVEL_ACTIVE_HIGH); /* the SCI */
    put_nmi(to, cpus > 255);
    return end_table(to, at);
}

/*
 * Where the configuration space of PCI lies (PCI Firmware Specification 3.2, 4.1.2). There is one
 * bus, and it says so: Linux reads a register of each slot up to the last bus it is told of, two
 * exits for each of 8192.
 */
static gpa_t put_mcfg(struct stream_buffer *to)
{
    gpa_t at = begin_table(to, "MCFG", 1);

    put_zeroes(to, 8);
    put64(to, LAYOUT_ECAM);
    put16(to, 0); /* segment */
    put8(to, 0);  /* first bus */
    put8(to, 0);  /* last bus */
    put_zeroes(to, 4);
    return end_table(to, at);
}

/* Name (\name, value) in AML (20.2.5.1); the name has four characters. */
static void put_aml_name(struct stream_buffer *to, const char *name, uint64_t value)
{
    enum { NAME_OP = 0x08, ROOT = '\\', QWORD_PREFIX = 0x0E };

    put8(to, NAME_OP);
    put8(to, ROOT);
    put_text(to, name, 4);
    put8(to, QWORD_PREFIX);
    put64(to, value);
}

/* What dsdt.asl refers to and is known only now. Revision 2: integers have 64 bits. */
static gpa_t put_ssdt(struct stream_buffer *to, const struct boot_platform *platform)
{
    gpa_t at = begin_table(to, "SSDT", 2);

    put_aml_name(to, "P64B", platform->pci64_base);
    put_aml_name(to, "P64S", platform->pci64_size);
    return end_table(to, at);
}

/* 5.2.7, 5.2.8: the list of tables, with pointers of 8 bytes (XSDT) or 4 (RSDT). */
static gpa_t put_root_table(struct stream_buffer *to, bool wide, const gpa_t *tables, size_t count)
{
    gpa_t at = begin_table(to, wide ? "XSDT" : "RSDT", 1);

    for (size_t i = 0; i < count; i++) {
        if (wide)
            put64(to, tables[i]);
        else
            put32(to, (uint32_t)tables[i]);
    }
    return end_table(to, at);
}

/* 5.2.5.3. Two checksums: one over the 20 bytes of revision 0, one over all. */
static gpa_t put_rsdp(struct stream_buffer *to, gpa_t rsdt, gpa_t xsdt)
{
    enum { OLD_SIZE = 20, SIZE = 36, OLD_CHECKSUM = 8, CHECKSUM = 32, REVISION = 2 };
    gpa_t at = align(to, 16);
    size_t offset = at - LAYOUT_ACPI;

    put_text(to, "RSD PTR ", 8);
    put8(to, 0);
    put_text(to, OEM_ID, 6);
    put8(to, REVISION);
    put32(to, (uint32_t)rsdt);
    put32(to, SIZE);
    put64(to, xsdt);
    put_zeroes(to, 4); /* checksum and 3 reserved */
    set_checksum(to, offset, OLD_SIZE, offset + OLD_CHECKSUM);
    set_checksum(to, offset, SIZE, offset + CHECKSUM);
    return at;
}

int acpi_write(struct memory *memory, const struct boot_platform *platform, gpa_t *ret_rsdp,
               struct err *err)
{
    struct stream_buffer to;
    gpa_t facs, dsdt, rsdt, xsdt, rsdp, tables[4];
    int ret;

    stream_buffer_init(&to, LAYOUT_ACPI_SIZE);
    facs = put_facs(&to);
    dsdt = put_dsdt(&to);
    tables[0] = put_fadt(&to, facs, dsdt);
    tables[1] = put_madt(&to, platform->cpus);
    tables[2] = put_mcfg(&to);
    tables[3] = put_ssdt(&to, platform);
    rsdt = put_root_table(&to, false, tables, array_size(tables));
    xsdt = put_root_table(&to, true, tables, array_size(tables));
    rsdp = put_rsdp(&to, rsdt, xsdt);
    ret = stream_error(&to.stream);
    if (ret == 0)
        ret = memory_write(memory, LAYOUT_ACPI, to.bytes, to.length);
    if (ret < 0)
        err_sys(err, ERR_FAILED, -ret, "cannot write the ACPI tables of %u CPUs", platform->cpus);
    else
        *ret_rsdp = rsdp;
    stream_buffer_finish(&to);
    return ret;
}
