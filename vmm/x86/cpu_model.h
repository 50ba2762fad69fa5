/* SPDX-License-Identifier: MIT */
/*
 * CPU models that many hosts can give, and whether a guest can go on at another host. Pure.
 */
#pragma once

#include "vmm/cpu_model.h"
#include "vmm/x86/kvm_x86.h"

/* Every CPU of level v3 has so many, and those of level v2 but for a few desktops'. */
enum { CPU_MODEL_ADDRESS_BITS = 39 };

/*
 * Cuts what this host offers down to the model; CPU_HOST leaves it as it is. The guest is told of
 * address_bits. What the VM itself brings (topology, KVM's frequencies) comes after it.
 * A host that lacks what the model demands: -ENOTSUP, ERR_HOST, and nothing has changed.
 */
int cpu_model_apply(struct kvm_x86_cpuid *cpuid, enum cpu_model model, unsigned address_bits,
                    struct err *err) must_check;

/* The highest level that this host can give; CPU_HOST: none. */
enum cpu_model cpu_model_best(const struct kvm_x86_cpuid *host);

/*
 * Whether a guest whose vCPUs had the CPUID `wanted` can go on at a host whose vCPUs get `host`.
 * Both as KVM gives them back (kvm_x86_get_cpuid): kvm_pvm adds to what it was given, and more than
 * it offers. `host` is of CPU_HOST, or of the model that the guest has. `wanted` may be hostile.
 * No: -ENOTSUP, ERR_HOST, and a sentence about "this host"; a hint where something helps.
 */
int cpu_model_check(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted,
                    struct err *err) must_check;
