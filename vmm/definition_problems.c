/* SPDX-License-Identifier: MIT */
#include "vmm/definition_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void definition_problem(struct definition_problems *problems, struct json_spot spot,
                        const char *fmt, ...)
{
    char what[1200];
    va_list args;

    if (problems->count++ >= DEFINITION_MAX_PROBLEMS)
        return;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    struct definition_problem *problem = &problems->list[problems->count - 1];
    *problem = (struct definition_problem){.spot = spot, .order = problems->count};
    if (asprintf(&problem->sentence, "%s:%u:%u: %s", problems->name, spot.line, spot.column, what) <
        0) {
        problem->sentence = NULL;
        problems->no_memory = true;
    }
}

static int compare(const void *a, const void *b)
{
    const struct definition_problem *one = a, *other = b;
    if (one->spot.line != other->spot.line)
        return one->spot.line < other->spot.line ? -1 : 1;
    if (one->spot.column != other->spot.column)
        return one->spot.column < other->spot.column ? -1 : 1;
    return one->order < other->order ? -1 : 1;
}

static void tell(const struct definition_problems *problems, unsigned listed,
                 const struct definition_judge *judge)
{
    char more[400];
    for (unsigned i = 0; i < listed; i++)
        judge->problem(judge->ctx, problems->list[i].sentence);
    if (listed == problems->count)
        return;
    snprintf(more, sizeof(more), "%s: and %u more", problems->name, problems->count - listed);
    judge->problem(judge->ctx, more);
}

int definition_judge(struct definition_problems *problems, const struct definition_judge *judge,
                     struct err *err)
{
    unsigned listed = problems->count < DEFINITION_MAX_PROBLEMS ? problems->count
                                                                : DEFINITION_MAX_PROBLEMS;
    if (problems->no_memory)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot read %s", problems->name);
    if (listed == 0)
        return 0;
    qsort(problems->list, listed, sizeof(problems->list[0]), compare);
    if (!judge)
        return err_say(err, ERR_DEFINITION, EINVAL, "%s", problems->list[0].sentence);
    tell(problems, listed, judge);
    return err_say(err, ERR_DEFINITION, EINVAL, "%s: %u error%s", problems->name, problems->count,
                   problems->count == 1 ? "" : "s");
}

void definition_forget(struct definition_problems *problems)
{
    for (unsigned i = 0; i < DEFINITION_MAX_PROBLEMS; i++)
        free(problems->list[i].sentence);
    *problems = (struct definition_problems){.name = problems->name};
}
