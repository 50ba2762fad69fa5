/* SPDX-License-Identifier: MIT */
/* Frames (ft/frames.h) with checksums that are right: behind these there is more to find. */
#pragma once

#include "core/stream.h"
#include "ft/frames.h"

enum { MEND_HEAD = 28, MEND_CRC = 4 };

static inline void mend_put_u32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static inline uint32_t mend_get_u32(const uint8_t *at)
{
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline void mend_sections(uint8_t *bytes, size_t length)
{
    while (length > 0) {
        size_t header = 1 + (size_t)bytes[0] + 4 + 2 + 4;
        if (length < header + MEND_CRC)
            return;
        uint32_t payload = mend_get_u32(bytes + header - 4);
        if (payload > length - header - MEND_CRC)
            return;
        size_t section = header + payload;
        mend_put_u32(bytes + section, crc32c(0, bytes, section));
        bytes += section + MEND_CRC;
        length -= section + MEND_CRC;
    }
}

/* Which frames the COMMIT counts: all of a file, those of an epoch on a connection. */
enum mend_tally { MEND_ALL, MEND_OF_EPOCHS };

static inline void mend_frames(uint8_t *bytes, size_t length, enum mend_tally tally)
{
    uint32_t count = 0, crcs = 0;

    while (length >= MEND_HEAD + MEND_CRC) {
        uint32_t payload = mend_get_u32(bytes + 8);
        uint8_t kind = bytes[4], *at = bytes + MEND_HEAD + MEND_CRC;
        bool counts = tally == MEND_ALL || mend_get_u32(bytes + 20) || mend_get_u32(bytes + 24);
        mend_put_u32(bytes + MEND_HEAD, crc32c(0, bytes, MEND_HEAD));
        if (payload > length - MEND_HEAD - MEND_CRC ||
            length - MEND_HEAD - MEND_CRC - payload < MEND_CRC)
            return;
        if (kind == FRAME_HELLO || kind == FRAME_STATE)
            mend_sections(at, payload);
        if (kind == FRAME_COMMIT && payload == 8) {
            mend_put_u32(at, count);
            mend_put_u32(at + 4, crcs);
        }
        mend_put_u32(at + payload, crc32c(0, at, payload));
        if (kind == FRAME_COMMIT) {
            count = crcs = 0;
        } else if (counts) {
            crcs = crc32c(crcs, at + payload, MEND_CRC);
            count++;
        }
        bytes = at + payload + MEND_CRC;
        length -= MEND_HEAD + MEND_CRC + payload + MEND_CRC;
    }
}
