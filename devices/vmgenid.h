/* SPDX-License-Identifier: MIT */
/*
 * The VM generation id (Microsoft's "Virtual Machine Generation ID", 2012): sixteen bytes in guest
 * memory that change when the VM goes on from a past or copied state, and an ACPI event that says
 * so. Linux reseeds its random numbers by it.
 */
#pragma once

#include "core/memory.h"
#include "devices/device.h"

struct vmgenid;

/* notify: raises the ACPI event (acpi_pm's GPE); on the caller's thread. gpa:
 * firmware/x86/layout.h; the page is the firmware's, reserved in E820. */
int vmgenid_create(struct vmgenid **ret_vmgenid, struct memory *memory, gpa_t gpa,
                   const uint8_t id[16], void (*notify)(void *ctx), void *ctx,
                   struct err *err) must_check;
struct device *vmgenid_device(struct vmgenid *vmgenid);

/* Writes the id to its place, as the firmware writes its tables: at each boot, and not where a
 * state is loaded, which has memory of its own with it. The guest is not told. (paused) */
void vmgenid_place(struct vmgenid *vmgenid);

/*
 * A new id: written into guest memory, and the guest is told, or when it resumes. Between the load
 * of a state and the resume it is how a copy learns that it is one. (main loop; running or paused)
 */
void vmgenid_set(struct vmgenid *vmgenid, const uint8_t id[16]);
