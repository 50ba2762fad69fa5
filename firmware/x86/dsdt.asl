/* SPDX-License-Identifier: MIT */
/*
 * What ACPI cannot say in its fixed tables: the devices that no bus enumerates, and how to switch off.
 * Addresses and interrupts agree with firmware/x86/layout.h and the devices' own headers.
 */
DefinitionBlock ("", "DSDT", 2, "MINIVM", "MINIVMM ", 1)
{
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
}
