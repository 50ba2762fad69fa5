/* SPDX-License-Identifier: MIT */
/*
 * A record of a witness, from storage that others may write to. With an even first byte the rest is
 * the text; with an odd one what is to be in it, so that whole ones are tried, too. What is taken
 * is written back as the same bytes.
 */
#include "ft/witness_parts.h"
#include "tests/fuzz/program.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void try_text(const char *bytes, size_t length)
{
    char again[WITNESS_TEXT_MAX];
    struct witness_text text;

    const char *wrong = witness_text_parse(&text, bytes, length);
    if (wrong) {
        require(wrong[0] != 0);
        return;
    }
    require(text.record.generation > 0 && text.record.generation <= WITNESS_MOST_GENERATIONS);
    require(witness_text_format(&text, again) == length && memcmp(again, bytes, length) == 0);
}

static void try_record(struct program *program)
{
    struct witness_text text, again;
    char bytes[WITNESS_TEXT_MAX];

    memset(&text, 0, sizeof(text));
    text.record.generation = take_number(program, 8);
    text.record.owner = take_number(program, 8);
    text.record.twin = take_number(program, 8);
    text.attempt[0] = take_number(program, 8);
    text.attempt[1] = take_number(program, 8);
    for (unsigned i = 0; i < sizeof(text.uuid); i++)
        text.uuid[i] = take(program);
    size_t length = witness_text_format(&text, bytes);
    bool good = text.record.generation > 0 && text.record.generation <= WITNESS_MOST_GENERATIONS;
    require((witness_text_parse(&again, bytes, length) == NULL) == good);
    require(!good || memcmp(&text, &again, sizeof(text)) == 0);
    size_t place = take_u32(program) % length;
    uint8_t flip = take(program);
    bytes[place] = (char)(bytes[place] ^ flip);
    require(!flip || witness_text_parse(&again, bytes, length) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {bytes + 1, length ? length - 1 : 0};

    if (length == 0)
        return 0;
    if (bytes[0] & 1)
        try_record(&program);
    else
        try_text((const char *)bytes + 1, length - 1);
    return 0;
}
