/* SPDX-License-Identifier: MIT */
/*
 * What ACPI cannot say in its fixed tables: the devices that no bus enumerates, and how to switch off.
 * Addresses and interrupts agree with firmware/x86/layout.h and the devices' own headers.
 */
DefinitionBlock ("", "DSDT", 2, "MINIVM", "MINIVMM ", 1)
{
    // The 64-bit PCI window depends on how much RAM there is: acpi.c writes these two into an SSDT.
    External (\P64B, IntObj) // base
    External (\P64S, IntObj) // size; 0: no window

    // Soft off: SLP_TYP 5 in PM1a_CNT, which devices/acpi_pm takes for "switch off".
    Name (\_S5, Package () {5, 0, 0, 0})

    Scope (\_SB)
    {
        // The ports of the power management block, so that nothing else is put there.
        Device (PMIO)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0600, 0x0600, 1, 0x10)
            })
        }

        // The configuration space of all buses that could be (ECAM; MCFG has the one that is), which is no window for BARs.
        Device (ECAM)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 2)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000)
            })
        }

        // Sixteen bytes that change when the VM goes on from a copied or a past state ("Virtual Machine Generation
        // ID", 2012). The first compatible name is for systems that keep to ACPI's rules for names.
        Device (VGEN)
        {
            Name (_HID, "MVMM0001")
            Name (_CID, Package () {"VMGENCTR", "VM_Gen_Counter"})
            Name (_DDN, "VM_Gen_Counter")
            Name (ADDR, Package () {0x000EF000, 0x00000000}) // low half, high half
        }

        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)

            // What is always there. No function has I/O BARs; the range is for guests that look for one.
            Name (LOW, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0, 0x00, 0x00, 0, 0x01)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0, 0x1000, 0xFFFF, 0, 0xF000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xC0000000, 0xDFFFFFFF, 0, 0x20000000)
            })

            // The numbers here are placeholders.
            Name (HIGH, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0x100000000, 0x1FFFFFFFF, 0, 0x100000000,,, WIN)
            })

            Method (_CRS, 0, Serialized)
            {
                If (\P64S == 0)
                {
                    Return (LOW)
                }
                CreateQWordField (HIGH, ^WIN._MIN, BASE)
                CreateQWordField (HIGH, ^WIN._MAX, LAST)
                CreateQWordField (HIGH, ^WIN._LEN, SIZE)
                BASE = \P64B
                LAST = \P64B + \P64S - 1
                SIZE = \P64S
                Return (ConcatenateResTemplate (LOW, HIGH))
            }

            // INTA..INTD of slots 1..31 take turns on the I/O APIC's pins 16..19. A number in place of a
            // link device means: level-triggered, active low and shareable, as PCI has it.
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (124) {}
                For (Local1 = 0, Local1 < 124, Local1++)
                {
                    Local2 = (Local1 >> 2) + 1 // slot
                    Local3 = Local1 & 3        // pin
                    Local4 = Package (4) {0, 0, 0, 0}
                    Local4[0] = (Local2 << 16) | 0xFFFF
                    Local4[1] = Local3
                    Local4[3] = 16 + ((Local2 + Local3) & 3)
                    Local0[Local1] = Local4
                }
                Return (Local0)
            }

            // The operating system may have all that it knows how to handle: hot-plug, PME, errors and
            // the PCI Express capability have no other owner.
            Method (_OSC, 4, Serialized)
            {
                CreateDWordField (Arg3, 0, STAT)
                If (Arg0 != ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
                {
                    STAT |= 0x04 // that is not a host bridge's
                    Return (Arg3)
                }
                If (Arg1 != 1)
                {
                    STAT |= 0x08 // unknown revision
                }
                CreateDWordField (Arg3, 8, CTRL)
                Local0 = CTRL & 0x1F
                If (Local0 != CTRL)
                {
                    STAT |= 0x10 // less than was asked for
                }
                CTRL = Local0
                Return (Arg3)
            }
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 1, 8)
                IRQNoFlags () {4}
            })
        }

        Device (RTC0)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0070, 0x0070, 1, 2)
                IRQNoFlags () {8}
            })
        }
    }

    // General-purpose events of devices/acpi_pm. E: the bit is cleared before the method runs, so what happens meanwhile
    // is another event.
    Scope (\_GPE)
    {
        Method (_E00)
        {
            Notify (\_SB.VGEN, 0x80)
        }
    }
}
