/* SPDX-License-Identifier: MIT */
/*
 * Any bytes load, or are refused with a sentence and without a trace: two samples of the unit tests
 * are loaded from them. Each input runs twice: as it is, and with the checksums of its sections
 * made right, because no fuzzer guesses a checksum and the interesting code lies behind it.
 */
#include "core/state.h"
#include "core/stream.h"
#include "tests/unit/sample_state.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { INSTANCES = 2 };

struct set {
    struct sample samples[INSTANCES];
};

static void list_items(struct set *set, struct state_item items[INSTANCES])
{
    for (uint32_t i = 0; i < INSTANCES; i++)
        items[i] = (struct state_item){&sample_table, i, &set->samples[i]};
}

/* What has loaded is valid, and comes back from a save. */
static void check_loaded(struct set *set)
{
    struct stream_buffer buffer;
    struct set again = {0};
    struct state_item items[INSTANCES];

    list_items(set, items);
    stream_buffer_init(&buffer, 0);
    if (state_save(&buffer.stream, items, INSTANCES) < 0)
        abort();
    list_items(&again, items);
    if (state_load(&buffer.stream, items, INSTANCES, NULL) < 0)
        abort();
    if (memcmp(&again, set, sizeof(again)) != 0)
        abort();
    stream_buffer_finish(&buffer);
}

static void load(const uint8_t *bytes, size_t length)
{
    struct stream_buffer buffer;
    struct set set, before;
    struct state_item items[INSTANCES];
    struct err err = {0};

    memset(&before, 0x5a, sizeof(before));
    set = before;
    list_items(&set, items);
    stream_buffer_init_read(&buffer, bytes, length);
    if (state_load(&buffer.stream, items, INSTANCES, &err) == 0)
        check_loaded(&set);
    else if (!err.text[0] || err.kind == ERR_NONE || memcmp(&set, &before, sizeof(set)) != 0)
        abort();
    stream_buffer_finish(&buffer);
}

static void mend_checksums(uint8_t *bytes, size_t length)
{
    while (length > 0) {
        size_t header = 1 + (size_t)bytes[0] + 4 + 2 + 4;
        uint32_t payload;
        if (length < header + 4)
            return;
        memcpy(&payload, bytes + header - 4, 4);
        if (payload > length - header - 4)
            return;
        size_t section = header + payload;
        uint32_t sum = crc32c(0, bytes, section);
        memcpy(bytes + section, &sum, 4);
        bytes += section + 4;
        length -= section + 4;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    uint8_t *mended = malloc(length + 1);

    if (!mended)
        abort();
    load(bytes, length);
    if (length > 0)
        memcpy(mended, bytes, length);
    mend_checksums(mended, length);
    load(mended, length);
    free(mended);
    return 0;
}
