/* SPDX-License-Identifier: MIT */
/*
 * A witness by hand, for the tests of one that is a server.
 *
 *   witness_try ADDRESS read UUID                  prints "GENERATION OWNER TWIN"
 *   witness_try ADDRESS give UUID EXPECTED OWNER   prints "done", or "is GENERATION OWNER TWIN"
 *   witness_try ADDRESS race UUID OWNER LAST       exchanges whatever is there, until LAST is;
 *                                                  prints "won G", "unknown G" or "late G" (there
 *                                                  is a later one already), and "last G"
 *
 * known:UUID before the address: by witness_open_known. On errors the sentence and the hint, 1.
 */
#include "core/words.h"
#include "ft/witness.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const struct err *err)
{
    fprintf(stderr, "%s\nhint: %s\n", err->text, err->hint);
    return 1;
}

static int say(const char *before, const struct ft_record *record)
{
    printf("%s%llu %llu %llu\n", before, (unsigned long long)record->generation,
           (unsigned long long)record->owner, (unsigned long long)record->twin);
    return 0;
}

static int give(struct witness *witness, const uint8_t uuid[16], uint64_t expected, uint64_t owner)
{
    struct ft_record next = {.generation = expected + 1, .owner = owner}, is;
    struct err err = {0};

    int r = witness_exchange(witness, uuid, expected, &next, &is, &err);
    if (r == 0)
        puts("done");
    else if (r == -EAGAIN)
        say("is ", &is);
    else
        return fail(&err);
    return 0;
}

static int race(struct witness *witness, const uint8_t uuid[16], uint64_t owner, uint64_t last)
{
    struct ft_record is = {0}, next;
    struct err err = {0};

    setvbuf(stdout, NULL, _IOLBF, 0);
    while (is.generation < last) {
        if (witness_read(witness, uuid, &is, &err) < 0) {
            fprintf(stderr, "%s\n", err.text);
            continue;
        }
        if (is.generation >= last)
            break;
        next = (struct ft_record){.generation = is.generation + 1, .owner = owner};
        int r = witness_exchange(witness, uuid, is.generation, &next, &is, &err);
        if (r == 0)
            printf("won %llu\n", (unsigned long long)next.generation);
        else if (r == -EAGAIN && is.generation > next.generation)
            printf("late %llu\n", (unsigned long long)next.generation);
        else if (r != -EAGAIN)
            printf("unknown %llu\n", (unsigned long long)next.generation);
        if (r < 0 && r != -EAGAIN)
            fprintf(stderr, "%s\n", err.text);
    }
    printf("last %llu\n", (unsigned long long)is.generation);
    return 0;
}

int main(int argc, char **argv)
{
    bool by_name = argc > 1 && strncmp(argv[1], "known:", 6) == 0;
    struct witness *witness;
    struct ft_record record;
    struct err err = {0};
    uint8_t uuid[16];

    argv += by_name;
    if (argc - by_name < 4 || parse_uuid(argv[3], "UUID", uuid, &err) < 0 ||
        (by_name && parse_uuid(argv[0] + 6, "UUID", uuid, &err) < 0))
        return 2;
    int r = by_name ? witness_open_known(&witness, argv[1], uuid, &err)
                    : witness_open(&witness, argv[1], &err);
    if (r < 0)
        return fail(&err);
    uint64_t numbers[2] = {0};
    for (int i = 4; i < argc - by_name && i < 6; i++)
        numbers[i - 4] = strtoull(argv[i], NULL, 10);
    if (strcmp(argv[2], "give") == 0)
        r = give(witness, uuid, numbers[0], numbers[1]);
    else if (strcmp(argv[2], "race") == 0)
        r = race(witness, uuid, numbers[0], numbers[1]);
    else
        r = witness_read(witness, uuid, &record, &err) < 0 ? fail(&err) : say("", &record);
    witness_close(witness);
    return r;
}
