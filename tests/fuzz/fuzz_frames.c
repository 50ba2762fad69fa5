/* SPDX-License-Identifier: MIT */
/*
 * Frames (ft/frames.h) from any bytes, and the same bytes as a snapshot's file `state`. Each input
 * runs twice: as it is, and with all checksums made right, of frames and of the sections in them.
 * What is checked, besides what the sanitizers see: what is refused has a sentence, and what is
 * taken is whole.
 */
#include "ft/page_frames.h"
#include "ft/snapshot_parts.h"
#include "tests/fuzz/mend.h"
#include "tests/fuzz/program.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_refusal(const struct err *err)
{
    require(err->kind != ERR_NONE && err->text[0]);
    for (const char *at = err->text; *at; at++)
        require((unsigned char)*at >= ' ' && *at != 0x7f);
}

enum { PAGES = 16 };

static const uint8_t *held_page(void *ctx, uint64_t page)
{
    const uint8_t *memory = ctx;
    return page < PAGES ? memory + page * PAGE_SIZE : NULL;
}

static int put_page(void *ctx, uint64_t page, const uint8_t *bytes)
{
    static const uint8_t zeroes[PAGE_SIZE];
    uint8_t *memory = ctx;
    if (page >= PAGES)
        return -EBADMSG;
    memcpy(memory + page * PAGE_SIZE, bytes ? bytes : zeroes, PAGE_SIZE);
    return 0;
}

static uint8_t *room_for(void *ctx, uint64_t first, unsigned count)
{
    uint8_t *memory = ctx;
    return first < PAGES && count <= PAGES - first ? memory + first * PAGE_SIZE : NULL;
}

static void read_pages(const struct stream_buffer *payload)
{
    uint8_t *memory = calloc(PAGES, PAGE_SIZE);
    const struct page_taker taker = {
        .held = held_page, .put = put_page, .room = room_for, .ctx = memory};
    struct frame frame = {.kind = FRAME_PAGES, .length = (uint32_t)payload->length, .epoch = 1};
    struct stream_buffer stream;
    struct err err = {0};
    require(memory);
    stream_buffer_init(&stream, 0);
    frame_write(&stream.stream, &frame, payload->bytes, NULL);
    require(frame_read_head(&stream.stream, &frame, NULL) == 0);
    if (page_frame_read(&stream.stream, &frame, &taker, NULL, &err) < 0)
        check_refusal(&err);
    else
        require(stream.read_at == stream.length);
    stream_buffer_finish(&stream);
    free(memory);
}

static void read_frames(const uint8_t *bytes, size_t length)
{
    struct stream_buffer from, payload;
    struct frame_tally tally = {0};
    struct frame frame = {0};
    struct err err = {0};

    stream_buffer_init_read(&from, bytes, length);
    stream_buffer_init(&payload, 0);
    while (frame_read(&from.stream, &frame, &payload, &tally, &err) == 0) {
        require(payload.length == frame.length && payload.read_at == 0);
        require(strcmp(frame_name(frame.kind), "?") != 0);
        if (frame.kind == FRAME_PAGES)
            read_pages(&payload);
        if (frame.kind == FRAME_COMMIT)
            tally = (struct frame_tally){0};
    }
    check_refusal(&err);
    stream_buffer_finish(&payload);
    stream_buffer_finish(&from);
}

static void read_state(const uint8_t *bytes, size_t length)
{
    char path[32] = "/tmp/minivmm-fuzz-XXXXXX";
    struct snapshot snapshot = {.memory = -1, .path = strdup("web1")};
    struct err err = {0};

    stream_buffer_init(&snapshot.state, 0);
    snapshot.folder = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    require(snapshot.folder >= 0 && snapshot.path);
    int file = openat(snapshot.folder, SNAPSHOT_STATE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    require(file >= 0 && write(file, bytes, length) == (ssize_t)length && close(file) == 0);
    if (snapshot_read_state(&snapshot, &err) < 0) {
        check_refusal(&err);
    } else {
        uint64_t memory = machine_model_memory(snapshot.model);
        require(memory > 0 && memory % PAGE_SIZE == 0 && snapshot.sums);
        require(snapshot.sums[memory_file_chunks(memory) - 1] || 1); /* it is there */
    }
    require(unlinkat(snapshot.folder, SNAPSHOT_STATE, 0) == 0 && rmdir(path) == 0);
    snapshot_close(&snapshot);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    uint8_t *mended = malloc(length + 1);

    require(mended);
    read_frames(bytes, length);
    read_state(bytes, length);
    if (length > 0)
        memcpy(mended, bytes, length);
    mend_frames(mended, length, MEND_ALL);
    read_frames(mended, length);
    read_state(mended, length);
    free(mended);
    return 0;
}
