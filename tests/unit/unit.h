/* SPDX-License-Identifier: MIT */
/* What every unit test shares: a main, and the promises each state table must keep. */
#pragma once

#include "core/err.h"
#include "core/state.h"
#include <check.h>

/*
 * Runs the suite and prints libcheck's summary ("NN%: Checks: N, Failures: N, Errors: N"). A suite
 * without a test fails. Returns what main returns. With CK_FORK unset the tests fork as usual.
 */
int unit_main(Suite *suite);

/* Where the golden files lie; the build says it, and by hand a test starts in the root of the
 * sources. */
#ifndef GOLDEN_DIR
#define GOLDEN_DIR "tests/golden"
#endif

/*
 * The promises of a state table, `sample` being a representative object (arrays not empty, numbers
 * not zero, so that the golden bytes show every field):
 *   - the table covers the struct (state_table_check)
 *   - what it saves equals tests/golden/<table name>.hex byte for byte (set MINIVMM_UPDATE_GOLDEN=1
 *     to write the file anew after a deliberate change)
 *   - what was saved loads into a zeroed object and gives the same bytes
 *   - every field, at every depth, filled with patterns inside its bounds, survives (a forgotten
 *     field would not). Patterns that validate() refuses are left out.
 *   - the saved bytes cut at every length, and with every single byte changed, are refused, and the
 *     object that was to be loaded has not changed
 *   - with a byte of the payload changed and the checksum made right again, they are refused in the
 *     same way, or load into an object that saves to these very bytes
 * Above 4 KiB of saved bytes the last two look at both ends and a sample of the middle, and of a
 * nested array the patterns vary the first elements and the last: a table of 10 KiB takes 2 s with
 * ASan on a slow machine, and libcheck's patience is 4.
 */
void unit_check_table_in(const char *golden_dir, const struct state_table *table,
                         const void *sample);

static inline void unit_check_table(const struct state_table *table, const void *sample)
{
    unit_check_table_in(GOLDEN_DIR, table, sample);
}
