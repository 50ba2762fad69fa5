/* SPDX-License-Identifier: MIT */
/* What befell a VM's folder since its last run: worth a line where it is news. */
#pragma once

#include "vmm/identity.h"

struct news {
    enum identity_found found;
    bool keep;    /* by its vm.json */
    bool cut_off; /* the last run, as its journal has it */
};

/* identity_settle, and what it came upon. */
int news_settle(struct news *ret_news, struct identity *ret_identity, struct folder *folder,
                bool keep, struct err *err) must_check;

/* goes_on: it does not boot. */
void news_tell(const struct news *news, const struct identity *identity,
               const struct folder *folder, bool goes_on);
