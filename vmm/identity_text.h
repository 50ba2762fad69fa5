/* SPDX-License-Identifier: MIT */
/* identity.json as text, for identity.c alone. */
#pragma once

#include "vmm/identity.h"

enum { IDENTITY_MAX_BYTES = 64 << 10 };

/*
 * Checks all of it. MACs that are not said stay zero: a later minivmm may want more of them. name
 * is the VM's, for the sentence.
 */
int identity_parse(struct identity *ret_identity, const char *text, size_t length, const char *name,
                   struct err *err) must_check;

int identity_say_damaged(const char *name, const char *what, struct err *err);

/* NULL: no memory. */
char *identity_format(const struct identity *identity);
