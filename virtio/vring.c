/* SPDX-License-Identifier: MIT */
/*
 * The split ring (virtio 1.2, section 2.7). All numbers in guest memory are little-endian.
 *
 *   descriptor   u64 address, u32 length, u16 flags, u16 next                    16 bytes
 *   available    u16 flags, u16 index, u16 heads[size], u16 used_event           2-byte aligned
 *   used         u16 flags, u16 index, {u32 head, u32 written}[size], u16 avail_event   4-byte
 *
 * What breaks one of these rules breaks the ring:
 *   1. The size is a power of two, at most VRING_MAX_SIZE. The three parts are aligned as said
 *      above (descriptors: 16) and lie in RAM as a whole.
 *   2. What waits and what is in flight together are at most `size` requests: a driver that asks
 *      for more has taken an index back, or offers descriptors that it does not own. So a device
 *      never holds more than `size` requests, whatever the guest does. (Their heads need not
 *      differ: a lying guest may offer the same request twice.)
 *   3. A head is less than the size; `next` is less than the number of descriptors in its table.
 *   4. A chain has at most `size` descriptors, those in an indirect table counted and the one that
 *      points to the table not. This also ends every loop. (2.7.5.3.1)
 *   5. A chain has at most 2^32 bytes. (2.7.5.2)
 *   6. No buffer that the device reads comes after one that it writes. (2.7.4.2)
 *   7. Each buffer lies in one stretch of RAM. One without length is allowed, wherever it points,
 *      and left out.
 *   8. An indirect table needs the feature; its descriptor does not go on with NEXT, and its WRITE
 *      flag means nothing. (2.7.5.3)
 *   9. An indirect table is not empty, a whole number of descriptors, and lies in RAM as a whole.
 *      No descriptor in it is indirect. It may be longer than the ring; its chain may not.
 *
 * Unknown flags are ignored.
 *
 * Order of accesses, the other side being a vCPU that runs at the same time:
 *   - available.index is loaded with acquire: heads and descriptors are read after it.
 *   - used.index is stored with release: entries and buffers are seen before it.
 *   - Between telling (used.index, avail_event, flags) and looking (used_event, flags,
 *     available.index) stands a full fence, here and in the driver. So of two sides that tell at
 * the same moment at least one sees the other, and nobody sleeps with work waiting.
 */
#include "virtio/vring.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>

enum {
    NEXT = 1,
    WRITE = 2,
    INDIRECT = 4,

    NO_INTERRUPT = 1, /* available.flags */
    NO_NOTIFY = 1,    /* used.flags */

    DESCRIPTOR_BYTES = 16,
    USED_BYTES = 8,
};

#define CHAIN_MAX_BYTES (1ull << 32)

/* Indirect tables may lie at any address. */
struct wire_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
} __attribute__((packed));

struct wire_available {
    uint16_t flags;
    uint16_t index;
    uint16_t heads[]; /* size of them, then used_event */
};

struct wire_used_entry {
    uint32_t head;
    uint32_t written;
};

struct wire_used {
    uint16_t flags;
    uint16_t index;
    struct wire_used_entry entries[]; /* size of them, then avail_event */
};

_Static_assert(sizeof(struct wire_descriptor) == DESCRIPTOR_BYTES, "the spec's layout");
_Static_assert(sizeof(struct wire_used_entry) == USED_BYTES, "the spec's layout");

/* Shared fields: each of these is one access. */

static uint16_t load(const uint16_t *field)
{
    return le16toh(__atomic_load_n(field, __ATOMIC_RELAXED));
}

static uint16_t load_acquire(const uint16_t *field)
{
    return le16toh(__atomic_load_n(field, __ATOMIC_ACQUIRE));
}

static void store(struct vring *ring, uint16_t *field, uint16_t value)
{
    __atomic_store_n(field, htole16(value), __ATOMIC_RELAXED);
    memory_written_at(ring->memory, field, sizeof(*field));
}

static void full_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static const uint16_t *used_event(const struct vring *ring)
{
    const struct wire_available *available = ring->available;
    return &available->heads[ring->size];
}

static uint16_t *avail_event(const struct vring *ring)
{
    struct wire_used *used = ring->used;
    return (uint16_t *)(void *)&used->entries[ring->size];
}

/* Open and close. */

void vring_init(struct vring *ring, struct vring_state *state, struct memory *memory)
{
    *ring = (struct vring){.state = state, .memory = memory};
}

void vring_close(struct vring *ring)
{
    ring->descriptors = ring->available = ring->used = NULL;
}

static bool is_open(const struct vring *ring)
{
    return ring->used != NULL;
}

/* A broken ring has let go of its places: whoever sees it open may use it. */
static int break_ring(struct vring *ring)
{
    vring_close(ring);
    ring->broken = true;
    return -EPROTO;
}

/* Popped and not yet pushed. */
static uint16_t in_flight(const struct vring_state *state)
{
    return (uint16_t)(state->next_available - state->next_used);
}

static bool is_size(uint16_t size)
{
    return size > 0 && size <= VRING_MAX_SIZE && (size & (size - 1)) == 0;
}

static int borrow_places(struct vring *ring)
{
    const struct vring_state *state = ring->state;
    size_t size = ring->size;

    if (!is_size(ring->size) || in_flight(state) > size || state->descriptors % 16 != 0 ||
        state->available % 2 != 0 || state->used % 4 != 0)
        return -EINVAL;
    int ret = memory_borrow(ring->memory, state->descriptors, size * DESCRIPTOR_BYTES,
                            &ring->descriptors);
    if (ret < 0)
        return ret;
    ret = memory_borrow(ring->memory, state->available,
                        sizeof(struct wire_available) + (size + 1) * sizeof(uint16_t),
                        &ring->available);
    if (ret < 0)
        return ret;
    return memory_borrow(ring->memory, state->used,
                         sizeof(struct wire_used) + size * USED_BYTES + sizeof(uint16_t),
                         &ring->used);
}

int vring_open(struct vring *ring, bool event_index, bool indirect)
{
    vring_close(ring);
    ring->broken = false;
    ring->event_index = event_index;
    ring->indirect = indirect;
    ring->size = ring->state->size;
    int ret = borrow_places(ring);
    if (ret < 0)
        (void)break_ring(ring);
    return ret;
}

/* Requests. */

static struct wire_descriptor load_descriptor(const void *table, unsigned index)
{
    /* volatile: copied now and once, however often it is looked at afterwards */
    const volatile struct wire_descriptor *from = (const struct wire_descriptor *)table + index;
    return (struct wire_descriptor){
        .address = le64toh(from->address),
        .length = le32toh(from->length),
        .flags = le16toh(from->flags),
        .next = le16toh(from->next),
    };
}

/* One walk along a chain. */
struct walk {
    const struct vring *ring;
    struct vring_chain *chain;
    unsigned descriptors; /* seen */
    unsigned segments;    /* more than the chain's capacity: the rest is only checked */
    bool writing;         /* the writable part has begun */
};

/* Rules 4 to 7. */
static int take_buffer(struct walk *walk, const struct wire_descriptor *descriptor)
{
    struct vring_chain *chain = walk->chain;
    void *buffer;

    if (++walk->descriptors > walk->ring->size)
        return -EPROTO;
    if (descriptor->flags & WRITE)
        walk->writing = true;
    else if (walk->writing)
        return -EPROTO;
    if (descriptor->length == 0)
        return 0;
    if (memory_borrow(walk->ring->memory, descriptor->address, descriptor->length, &buffer) < 0)
        return -EPROTO;
    if (walk->writing)
        chain->writable_bytes += descriptor->length;
    else
        chain->readable_bytes += descriptor->length;
    if (chain->readable_bytes + chain->writable_bytes > CHAIN_MAX_BYTES)
        return -EPROTO;

    if (walk->segments < chain->capacity) {
        chain->iov[walk->segments] = (struct iovec){.iov_base = buffer,
                                                    .iov_len = descriptor->length};
        if (walk->writing)
            chain->writable++;
        else
            chain->readable++;
    }
    walk->segments++;
    return 0;
}

/* Rules 8 and 9. */
static int enter_indirect(const struct vring *ring, const struct wire_descriptor *descriptor,
                          void **ret_table, unsigned *ret_entries)
{
    if (!ring->indirect || (descriptor->flags & NEXT))
        return -EPROTO;
    if (descriptor->length == 0 || descriptor->length % DESCRIPTOR_BYTES != 0)
        return -EPROTO;
    if (memory_borrow(ring->memory, descriptor->address, descriptor->length, ret_table) < 0)
        return -EPROTO;
    *ret_entries = descriptor->length / DESCRIPTOR_BYTES;
    return 0;
}

static int follow(struct walk *walk, unsigned at)
{
    void *table = walk->ring->descriptors;
    unsigned entries = walk->ring->size;
    bool nested = false;

    for (;;) {
        if (at >= entries)
            return -EPROTO;
        struct wire_descriptor descriptor = load_descriptor(table, at);
        if (descriptor.flags & INDIRECT) {
            if (nested || enter_indirect(walk->ring, &descriptor, &table, &entries) < 0)
                return -EPROTO;
            nested = true;
            at = 0;
            continue;
        }
        if (take_buffer(walk, &descriptor) < 0)
            return -EPROTO;
        if (!(descriptor.flags & NEXT))
            return 0;
        at = descriptor.next;
    }
}

static int read_chain(struct vring *ring, uint16_t head, struct vring_chain *chain)
{
    struct walk walk = {.ring = ring, .chain = chain};

    chain->head = head;
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    if (follow(&walk, head) < 0)
        return break_ring(ring);
    if (walk.segments <= chain->capacity)
        return 1;
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    return -E2BIG;
}

/* What the guest's index says, true or not. */
static uint16_t claimed(const struct vring *ring)
{
    const struct wire_available *available = ring->available;
    return (uint16_t)(load_acquire(&available->index) - ring->state->next_available);
}

int vring_pop(struct vring *ring, struct vring_chain *chain)
{
    struct vring_state *state = ring->state;

    if (!is_open(ring))
        return -EPROTO;
    unsigned waiting = claimed(ring);
    if (waiting == 0)
        return 0;
    if (waiting + in_flight(state) > ring->size)
        return break_ring(ring);

    const struct wire_available *available = ring->available;
    uint16_t head = load(&available->heads[state->next_available & (ring->size - 1)]);
    state->next_available++;
    return read_chain(ring, head, chain);
}

void vring_unpop(struct vring *ring, unsigned count)
{
    if (!is_open(ring))
        return;
    /* Not an assertion, here and below: a loaded state may be at odds with its device's. */
    if (count > in_flight(ring->state))
        (void)break_ring(ring);
    else
        ring->state->next_available = (uint16_t)(ring->state->next_available - count);
}

int vring_reopen(struct vring *ring, uint16_t head, struct vring_chain *chain)
{
    if (!is_open(ring))
        return -EPROTO;
    if (in_flight(ring->state) == 0)
        return break_ring(ring);
    return read_chain(ring, head, chain);
}

static void mark_written(struct vring *ring, const struct vring_chain *chain, uint32_t written)
{
    const struct iovec *iov = vring_writable(chain);

    assert(written <= chain->writable_bytes);
    for (; written > 0; iov++) {
        uint32_t part = iov->iov_len < written ? (uint32_t)iov->iov_len : written;
        memory_written_at(ring->memory, iov->iov_base, part);
        written -= part;
    }
}

void vring_push(struct vring *ring, const struct vring_chain *chain, uint32_t written)
{
    struct vring_state *state = ring->state;

    /* Of a broken ring too: its bytes have changed, and must travel. */
    mark_written(ring, chain, written);
    if (!is_open(ring))
        return;
    if (in_flight(state) == 0) {
        (void)break_ring(ring);
        return;
    }
    struct wire_used *used = ring->used;
    struct wire_used_entry *entry = &used->entries[state->next_used & (ring->size - 1)];
    __atomic_store_n(&entry->head, htole32(chain->head), __ATOMIC_RELAXED);
    __atomic_store_n(&entry->written, htole32(written), __ATOMIC_RELAXED);
    memory_written_at(ring->memory, entry, sizeof(*entry));
    state->next_used++;
}

/* Telling each other. */

/* Whether `event` is among the indexes passed on the way from `before` to `now` (2.7.10). */
static bool has_passed(uint16_t event, uint16_t before, uint16_t now)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

bool vring_publish(struct vring *ring)
{
    struct vring_state *state = ring->state;

    if (!is_open(ring) || state->next_used == state->signalled)
        return false;
    uint16_t before = state->signalled;
    struct wire_used *used = ring->used;
    const struct wire_available *available = ring->available;
    __atomic_store_n(&used->index, htole16(state->next_used), __ATOMIC_RELEASE);
    memory_written_at(ring->memory, &used->index, sizeof(used->index));
    state->signalled = state->next_used;

    full_fence();
    if (ring->event_index)
        return has_passed(load(used_event(ring)), before, state->next_used);
    return !(load(&available->flags) & NO_INTERRUPT);
}

void vring_disarm(struct vring *ring)
{
    struct wire_used *used = ring->used;

    /* With the event index there is nothing to do: avail_event lies behind us already. */
    if (is_open(ring) && !ring->event_index)
        store(ring, &used->flags, NO_NOTIFY);
}

bool vring_arm(struct vring *ring)
{
    struct wire_used *used = ring->used;

    if (!is_open(ring))
        return false;
    if (ring->event_index)
        store(ring, avail_event(ring), ring->state->next_available);
    else
        store(ring, &used->flags, 0);
    full_fence();
    return claimed(ring) != 0;
}

unsigned vring_waiting(struct vring *ring)
{
    if (!is_open(ring))
        return 0;
    unsigned waiting = claimed(ring);
    return waiting < ring->size ? waiting : ring->size; /* pop finds out whether it is a lie */
}

/* State. */

static int validate(const void *object, struct err *err)
{
    const struct vring_state *state = object;

    if (state->size != 0 && !is_size(state->size))
        return err_say(err, ERR_FAILED, EBADMSG,
                       "a ring has %u entries: not a power of two up to %d", state->size,
                       VRING_MAX_SIZE);
    return 0;
}

static const struct state_field vring_fields[] = {
    STATE_FIELD_U64(struct vring_state, descriptors),
    STATE_FIELD_U64(struct vring_state, available),
    STATE_FIELD_U64(struct vring_state, used),
    STATE_FIELD_U16(struct vring_state, size),
    STATE_FIELD_U16(struct vring_state, next_available),
    STATE_FIELD_U16(struct vring_state, next_used),
    STATE_FIELD_U16(struct vring_state, signalled),
    STATE_FIELD_BOOL(struct vring_state, enabled),
    STATE_FIELD_BYTES(struct vring_state, reserved),
};

const struct state_table vring_state_table = {
    .name = "vring",
    .version = 1,
    STATE_TABLE_OF(struct vring_state, vring_fields),
    .validate = validate,
};
