/* SPDX-License-Identifier: MIT */
/*
 * What the peer of a link over two paths says (host/paths.c): the input is a list of what befalls
 * one side, records of its own making among that. Checked, besides what the sanitizers see: the
 * numbers stay in their order, and within the window; what is refused leaves nothing; what is to be
 * sent are records that the same code takes.
 */
#include "host/paths.h"
#include "tests/fuzz/program.h"

#include <endian.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { WINDOW = 20000, MS = 1000000 };

static void check(const struct paths *paths)
{
    require(paths->acked <= paths->sent && paths->sent <= paths->furthest &&
            paths->furthest <= paths->written && paths->written - paths->acked <= WINDOW);
    require(paths->taken <= paths->received && paths->received <= paths->told_limit &&
            paths->told_limit <= paths->taken + WINDOW && paths->told_received <= paths->received);
    require(paths->active == PATHS_NONE ? !paths->path[0].up && !paths->path[1].up
                                        : paths->path[paths->active].up);
}

static void hear(struct paths *paths, struct program *program, int path, uint64_t now)
{
    static const uint8_t payload[PATHS_PAYLOAD];
    uint8_t head[PATHS_HEAD];
    uint32_t words[] = {htole32(take(program)), htole32((uint32_t)take_number(program, 2))};
    /* Near what there is, or anything. */
    uint64_t offset = take(program) % 2 ? paths->received - take(program) : take_number(program, 8);
    uint64_t received = take(program) % 2 ? paths->furthest - take(program)
                                          : take_number(program, 8);
    uint64_t numbers[] = {htole64(offset), htole64(received), htole64(take_number(program, 8))};
    uint64_t before = paths->received, acked = paths->acked;
    memcpy(head, words, sizeof(words));
    memcpy(head + sizeof(words), numbers, sizeof(numbers));
    if (paths_length(head) < 0 || paths_take(paths, path, now, head, payload) < 0)
        require(paths->received == before && paths->acked == acked);
}

static void speak(struct paths *paths, int path, uint64_t now)
{
    static uint8_t batch[PATHS_BATCH];
    size_t length = paths_next(paths, path, now, batch);
    require(length <= PATHS_BATCH);
    for (size_t at = 0; at < length;) {
        int payload = paths_length(batch + at);
        require(payload >= 0);
        at += PATHS_HEAD + (size_t)payload;
        require(at <= length);
    }
    require(!paths_wants(paths, path) || (length == 0 ? !paths->path[path].up : true));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};
    const struct paths_config config = {.beat_ns = 20ull * MS,
                                        .stall_ns = 100ull * MS,
                                        .window = WINDOW,
                                        .decides = take(&program) & 1};
    static uint8_t some[WINDOW];
    struct paths paths;
    uint64_t now = 1000ull * MS;
    require(paths_init(&paths, &config, now) == 0);
    while (program.left > 0) {
        uint8_t what = take(&program);
        int path = what >> 7;
        switch (what % 8) {
        case 0:
            paths_up(&paths, path, now);
            break;
        case 1:
            paths_down(&paths, path, now);
            break;
        case 2:
            (void)paths_put(&paths, some, take_number(&program, 2) % sizeof(some));
            break;
        case 3:
            (void)paths_get(&paths, some, take_number(&program, 2) % sizeof(some));
            break;
        case 4:
            now += (uint64_t)take(&program) * MS;
            (void)paths_tick(&paths, now);
            break;
        case 5:
            speak(&paths, path, now);
            break;
        case 6:
            hear(&paths, &program, path, now);
            break;
        default:
            if (what == 7)
                paths_end(&paths);
        }
        check(&paths);
    }
    paths_finish(&paths);
    return 0;
}
