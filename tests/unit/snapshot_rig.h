/* SPDX-License-Identifier: MIT */
/* A snapshot of a machine that has never been: what its files hold, and how they are made. */
#pragma once

#include "ft/snapshot_parts.h"
#include "tests/unit/folder_rig.h"
#include "tests/unit/platform.h"
#include "tests/unit/sample_state.h"

#define MEMORY (5ull << 20)

enum { CHUNKS = 3 };

/* --- a sample --------------------------------------------------------------------------------- */

static const struct snapshot_hello sample_hello = {
    .wall_ns = 0x1122334455667788, .uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static inline void put_text(struct stream *stream, const char *text, size_t room)
{
    stream_write(stream, text, strlen(text));
    for (size_t i = strlen(text); i < room; i++)
        stream_put_u8(stream, 0);
}

enum { MODEL_WITHOUT_MSRS = 1, MODEL_NOW }; /* versions of the section */

/* What the section "model" holds, field by field: two devices, two entries of CPUID, two MSRs. */
static inline void put_model(struct stream *stream, uint16_t version, uint64_t memory)
{
    static const uint32_t numbers[] = {3, 2500000, 4096, 2, 2, 0};
    stream_put_u64(stream, memory);
    stream_put_u64(stream, memory);
    for (size_t i = 0; i < array_size(numbers); i++)
        stream_put_u32(stream, numbers[i]);
    for (unsigned i = 0; i < 2; i++) {
        put_text(stream, i ? "sample" : "serial", 40);
        stream_put_u32(stream, i);
        stream_put_u16(stream, (uint16_t)(i + 1));
        stream_put_u16(stream, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned j = 0; j < 7; j++)
            stream_put_u32(stream, 0x100 * i + j);
        for (unsigned j = 0; j < 3; j++)
            stream_put_u32(stream, 0);
    }
    static const uint32_t msrs[] = {2, 0, 0x10, 0xc0000082};
    for (size_t i = 0; version >= MODEL_NOW && i < array_size(msrs); i++)
        stream_put_u32(stream, msrs[i]);
}

static inline void put_section(struct stream_buffer *buffer, const char *name, uint16_t version,
                               const struct stream_buffer *payload)
{
    stream_checksum_start(&buffer->stream);
    stream_put_u8(&buffer->stream, (uint8_t)strlen(name));
    stream_write(&buffer->stream, name, strlen(name));
    stream_put_u32(&buffer->stream, 0);
    stream_put_u16(&buffer->stream, version);
    stream_put_u32(&buffer->stream, (uint32_t)payload->length);
    stream_write(&buffer->stream, payload->bytes, payload->length);
    stream_put_u32(&buffer->stream, buffer->stream.checksum);
}

static inline struct machine_model *make_model(uint16_t version, uint64_t memory)
{
    struct machine_model *model;
    struct stream_buffer payload, end, section;
    struct err err = {0};
    ck_assert_int_eq(machine_model_create(&model, NULL), 0);
    stream_buffer_init(&payload, 0);
    stream_buffer_init(&end, 0);
    stream_buffer_init(&section, 0);
    put_model(&payload.stream, version, memory);
    put_section(&section, "model", version, &payload);
    put_section(&section, "end", 1, &end);
    const struct state_item item = machine_model_item(model);
    int ret = state_load(&section.stream, &item, 1, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    stream_buffer_finish(&payload);
    stream_buffer_finish(&end);
    stream_buffer_finish(&section);
    return model;
}

/* Two samples, as of two devices. */
static inline void make_state(struct stream_buffer *ret_state)
{
    struct sample first = make_sample(), second = make_sample();
    second.divisor = 99;
    const struct state_item items[] = {{&sample_table, 0, &first}, {&sample_table, 1, &second}};
    stream_buffer_init(ret_state, 0);
    ck_assert_int_eq(state_save(&ret_state->stream, items, 2), 0);
}

static inline void write_state(int folder, const uint32_t *sums)
{
    struct machine_model *model = make_model(MODEL_NOW, MEMORY);
    struct stream_buffer state;
    struct err err = {0};
    make_state(&state);
    int ret = snapshot_write_state(folder, &sample_hello, model, sums, &state, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    stream_buffer_finish(&state);
    machine_model_destroy(model);
}

static inline void write_memory(int folder, uint32_t *ret_sums)
{
    struct memory_file file;
    uint8_t page[PAGE_SIZE];
    uint64_t seed = 21;
    int fd = openat(folder, SNAPSHOT_MEMORY, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(memory_file_begin(&file, fd, MEMORY, NULL), 0);
    for (uint64_t at = 0; at < MEMORY; at += 3 * PAGE_SIZE) {
        for (size_t i = 0; i < sizeof(page); i++)
            page[i] = (uint8_t)chance(&seed);
        ck_assert_int_eq(memory_file_put(&file, at, page, sizeof(page), NULL), 0);
    }
    memory_file_sums(&file, ret_sums);
    memory_file_end(&file);
    close(fd);
}

static inline int open_folder(const char *name)
{
    int fd = open(rig_path(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

/* Sealed; where the VM did not run, there is no memory and no state. */
static inline void make_snapshot(bool has_run)
{
    uint32_t sums[CHUNKS];
    struct err err = {0};
    rig_make_folder("snap");
    rig_make_folder("snap/notes");
    rig_write("snap/vm.json", "{\"memory\": \"5M\"}\n");
    rig_write("snap/disk.img", "this is what the disk holds");
    rig_write("snap/notes/one.txt", "a file of the user's");
    rig_write("snap/empty", "");
    int folder = open_folder("snap");
    if (has_run) {
        write_memory(folder, sums);
        write_state(folder, sums);
        ck_assert_int_eq(fchmodat(folder, SNAPSHOT_STATE, 0600, 0), 0); /* to be damaged */
    }
    int ret = snapshot_seal(folder, json_pack("{ss}", "name", "snap"), NULL, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    close(folder);
    ck_assert(snapshot_is_one(rig_path("snap")));
}
