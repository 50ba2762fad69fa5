/* SPDX-License-Identifier: MIT */
/* A vsock device on a table: the guest's side of it, and connections that are there already. */
#pragma once

#include "tests/unit/vsock_programs.h"

enum { RX, TX, EVENT, ALL = 7, CID = 7, BUFFER = 4096 + 44, CREDIT = 1 << 18 };

#define STREAM 1ull

static struct vsock *vsock;
static char dir[64];
static uint32_t forwarded; /* what the guest says it has taken */

static inline struct vsock *plug(struct rig *into, const char *at)
{
    struct vsock *made;
    struct err err = {0};
    const struct vsock_config config = {.cid = CID, .path = at};
    rig_init(into);
    ck_assert_msg(vsock_create(&made, &into->world, &config, &err) == 0, "%s", err.text);
    rig_plug(into, vsock_virtio(made));
    return made;
}

static inline void set_up(void)
{
    snprintf(dir, sizeof(dir), "/tmp/test-vsock-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/sock", dir);
    forwarded = 0;
    rig = calloc(1, sizeof(*rig));
    vsock = plug(rig, path);
}

static inline void remove_dir(void)
{
    char command[100];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static inline void tear_down(void)
{
    rig_finish(rig);
    ck_assert_int_lt(access(path, F_OK), 0); /* the socket is removed at the end */
    free(rig);
    remove_dir();
}

/* --- the guest ------------------------------------------------------------------------------ */

static inline void offer(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        rig_offer(rig, RX, BUFFER);
    rig_settle(rig);
}

static inline void guest_up(uint64_t features)
{
    rig_start(rig, STREAM | features, ALL);
    offer(32);
    rig_offer(rig, EVENT, 4);
    rig_settle(rig);
}

static inline struct vsock_header header_of(enum vsock_op op, uint32_t guest_port,
                                            uint32_t host_port)
{
    return (struct vsock_header){.from_cid = CID,
                                 .to_cid = VSOCK_HOST,
                                 .from_port = guest_port,
                                 .to_port = host_port,
                                 .type = VSOCK_STREAM,
                                 .op = (uint16_t)op,
                                 .buffer = CREDIT,
                                 .forwarded = forwarded};
}

static inline void guest_send(struct vsock_header header, const void *bytes, uint32_t length)
{
    struct model_driver *driver = &rig->queues[TX];
    struct model_done done;
    struct model_part parts[2] = {model_out(driver, &header, sizeof(header))};
    if (length)
        parts[1] = model_out(driver, bytes, length);
    ck_assert_int_ge(model_add(driver, parts, length ? 2 : 1, 0), 0);
    rig_show(rig, TX);
    rig_settle(rig);
    while (model_reap(driver, &done))
        ck_assert_uint_eq(done.written, 0);
}

static inline void guest_says(enum vsock_op op, uint32_t guest_port, uint32_t host_port)
{
    guest_send(header_of(op, guest_port, host_port), NULL, 0);
}

static inline void guest_shuts(uint32_t guest_port, uint32_t host_port, uint32_t flags)
{
    struct vsock_header header = header_of(VSOCK_OP_SHUTDOWN, guest_port, host_port);
    header.flags = flags;
    guest_send(header, NULL, 0);
}

static inline void guest_writes(uint32_t guest_port, uint32_t host_port, const void *bytes,
                                uint32_t length)
{
    struct vsock_header header = header_of(VSOCK_OP_RW, guest_port, host_port);
    header.length = length;
    guest_send(header, bytes, length);
}

static inline bool next_packet(struct vsock_header *ret_header, uint8_t *bytes)
{
    struct model_done done;
    if (!model_reap(&rig->queues[RX], &done))
        return false;
    memcpy(ret_header, model_bytes(&rig->queues[RX], done.token, BUFFER), sizeof(*ret_header));
    ck_assert_uint_eq(done.written, sizeof(*ret_header) + ret_header->length);
    if (bytes)
        memcpy(bytes, (uint8_t *)model_bytes(&rig->queues[RX], done.token, BUFFER) + 44,
               ret_header->length);
    return true;
}

/* Takes one packet out and gives a new buffer for it. */
static inline struct vsock_header expect_packet(enum vsock_op op, uint32_t guest_port,
                                                uint32_t host_port)
{
    struct vsock_header header = {0};
    ck_assert_msg(next_packet(&header, NULL), "no packet, but %d is expected", op);
    ck_assert_uint_eq(header.op, op);
    ck_assert_uint_eq(header.from_cid, VSOCK_HOST);
    ck_assert_uint_eq(header.to_cid, CID);
    ck_assert_uint_eq(header.type, VSOCK_STREAM);
    ck_assert_uint_eq(header.to_port, guest_port);
    if (host_port)
        ck_assert_uint_eq(header.from_port, host_port);
    offer(1);
    return header;
}

static inline void expect_bytes(uint32_t guest_port, uint32_t host_port, const char *text)
{
    struct vsock_header header = {0};
    uint8_t bytes[BUFFER];
    ck_assert(next_packet(&header, bytes));
    ck_assert_uint_eq(header.op, VSOCK_OP_RW);
    ck_assert_uint_eq(header.to_port, guest_port);
    ck_assert_uint_eq(header.from_port, host_port);
    ck_assert_uint_eq(header.length, strlen(text));
    ck_assert_mem_eq(bytes, text, strlen(text));
    forwarded += header.length;
    offer(1);
}

static inline void expect_no_packet(void)
{
    struct vsock_header header = {0};
    ck_assert_msg(!next_packet(&header, NULL), "a packet that is not expected: %u", header.op);
}

/* Connections that are there already. */

static inline int connect_from_guest(uint32_t guest_port, uint32_t host_port)
{
    int door = host_listen(host_port);
    guest_says(VSOCK_OP_REQUEST, guest_port, host_port);
    struct vsock_header header = expect_packet(VSOCK_OP_RESPONSE, guest_port, host_port);
    ck_assert_uint_eq(header.buffer, VSOCK_BUFFER);
    int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK);
    ck_assert_int_ge(fd, 0);
    close(door);
    return fd;
}

static inline int connect_from_host(uint32_t guest_port, uint32_t *ret_host_port)
{
    char line[40];
    snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
    int fd = host_connect(line);
    *ret_host_port = expect_packet(VSOCK_OP_REQUEST, guest_port, 0).from_port;
    guest_says(VSOCK_OP_RESPONSE, guest_port, *ret_host_port);
    snprintf(line, sizeof(line), "OK %u\n", *ret_host_port);
    expect_from(fd, line);
    return fd;
}
