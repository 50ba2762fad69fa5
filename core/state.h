/* SPDX-License-Identifier: MIT */
/*
 * State as data: one table per device serves saving and loading.
 *
 * A table lists the fields of one plain struct. The struct has fixed-width fields, no pointers and
 * no padding, and the table covers every byte of it: state_table_check() says so, and a forgotten
 * field fails the tests. A nested table has no version on the wire: its fields' `since` counts in
 * versions of the outermost table, the section's.
 *
 * Wire format of a set of sections (all numbers little-endian):
 *
 *   section   u8  name length, 1..STATE_NAME_MAX       } covered by
 *             ... name, printable ASCII                 } the checksum
 *             u32 instance                              }
 *             u16 version, from 1                       }
 *             u32 payload length                        }
 *             ... payload: the fields in table order    }
 *             u32 CRC-32C
 *   set       sections in any order, then a section named "end" with an empty payload
 *
 * Rules for loading, where the bytes are somebody's and not to be trusted:
 *   1. Every item that is asked for occurs exactly once; nothing else occurs.
 *   2. A version above the table's is refused; below the table's `oldest` too. Fields that came
 *      later than the section's version get their `fallback`.
 *   3. The payload has exactly the length that its fields need.
 *   4. Each number lies in its field's bounds, each count in its array.
 *   5. The table's own validate() agrees.
 *   6. The checksum agrees.
 *   7. Only when all sections have passed are they copied over the objects. On any error nothing
 *      has changed, and the error names section, instance and field.
 */
#pragma once

#include "core/err.h"
#include "core/stream.h"

enum { STATE_NAME_MAX = 32, STATE_MAX_PAYLOAD = 1 << 20 };

enum state_kind {
    STATE_U8 = 1,
    STATE_U16,
    STATE_U32,
    STATE_U64,
    STATE_BOOL,  /* a bool; only 0 and 1 load */
    STATE_BYTES, /* `count` raw bytes: FIFOs, and structs whose layout is the kernel's ABI */
    STATE_TABLE, /* `count` structs, each by `table` */
};

struct state_field {
    const char *name;
    enum state_kind kind;
    size_t offset;
    size_t count; /* elements that lie in the struct: 1, or the length of an array */
    uint64_t min; /* numbers: bounds, inclusive; both 0 means any value */
    uint64_t max;
    uint16_t since;      /* the table version that brought this field; 0 means 1 */
    uint64_t fallback;   /* number for sections older than that; bytes get 0 */
    bool counted;        /* only the first n elements travel, n being the u32 at count_offset, */
    size_t count_offset; /* ...a field that comes before this one; the rest loads as zero */
    const struct state_table *table; /* STATE_TABLE */
};

struct state_table {
    const char *name;
    uint16_t version; /* from 1 */
    uint16_t oldest;  /* oldest version that still loads; 0 means 1 */
    size_t size;      /* sizeof the struct */
    const struct state_field *fields;
    size_t field_count;
    /* What bounds cannot say. Sees a complete candidate; err gets a sentence. NULL: nothing more.
     */
    int (*validate)(const void *state, struct err *err);
};

#define STATE_FIELD_COUNT_(type, member, element) (sizeof(((type *)0)->member) / (element))

/* The usual fields; arrays are recognised by their size. */
#define STATE_FIELD(kind_, type, member, bytes, ...)                        \
    {                                                                       \
        .name = #member, .kind = (kind_), .offset = offsetof(type, member), \
        .count = STATE_FIELD_COUNT_(type, member, bytes), __VA_ARGS__       \
    }
#define STATE_FIELD_U8(type, member, ...)    STATE_FIELD(STATE_U8, type, member, 1, __VA_ARGS__)
#define STATE_FIELD_U16(type, member, ...)   STATE_FIELD(STATE_U16, type, member, 2, __VA_ARGS__)
#define STATE_FIELD_U32(type, member, ...)   STATE_FIELD(STATE_U32, type, member, 4, __VA_ARGS__)
#define STATE_FIELD_U64(type, member, ...)   STATE_FIELD(STATE_U64, type, member, 8, __VA_ARGS__)
#define STATE_FIELD_BOOL(type, member, ...)  STATE_FIELD(STATE_BOOL, type, member, 1, __VA_ARGS__)
#define STATE_FIELD_BYTES(type, member, ...) STATE_FIELD(STATE_BYTES, type, member, 1, __VA_ARGS__)
#define STATE_FIELD_TABLE(type, member, element, table_, ...) \
    STATE_FIELD(STATE_TABLE, type, member, sizeof(element), .table = (table_), __VA_ARGS__)

#define STATE_TABLE_OF(type, fields_) \
    .size = sizeof(type), .fields = (fields_), .field_count = array_size(fields_)

/* One object to save or to load. */
struct state_item {
    const struct state_table *table;
    uint32_t instance;
    void *object;
};

/*
 * Whether an object keeps its table's bounds, counts and validate(), and would load again. Where it
 * does not, err says why.
 */
int state_check(const struct state_table *table, const void *object, struct err *err) must_check;

/*
 * Writes the items' sections and the end. The error, if any, is the stream's. An object that fails
 * state_check() is our own bug: whatever a guest does, a device keeps its state inside its table.
 * Uses the stream's checksum, as state_load does: a caller's own sum goes around it, not through
 * it.
 */
int state_save(struct stream *stream, const struct state_item *items, size_t count) must_check;

/*
 * Loads them by the rules above. -EBADMSG for bytes that break a rule, -ENOTSUP for a version that
 * is not ours, what validate() says, or the stream's error. After an error the stream has it too,
 * and nothing more can be read from it.
 */
int state_load(struct stream *stream, const struct state_item *items, size_t count,
               struct err *err) must_check;

/*
 * Proves that a table is sound: fields in ascending order, nothing overlaps, no byte of the struct
 * is left out, counts refer to earlier fields, versions make sense. For tests; recursive.
 */
int state_table_check(const struct state_table *table, struct err *err) must_check;
