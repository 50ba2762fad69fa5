/* SPDX-License-Identifier: MIT */
#include "ft/outbox.h"

#include "host/byte_gate.h"
#include "host/netif_gate.h"
#include "vmm/instance.h"

#include <errno.h>
#include <stdlib.h>

struct outbox {
    unsigned net_count;
    struct netif_gate *nets[MACHINE_MAX_NETS];
    struct byte_gate *console;
    struct vsock *vsock; /* NULL: there is none */
    void (*waits)(void *ctx, bool urgent);
    void *ctx;
};

/* --- what can be held ------------------------------------------------------------------------- */

/* The other end of such a network is a program on this host, and all connections end in it. */
static int refuse_local(const struct instance_config *config, const char *net, struct err *err)
{
    int ret = err_say(err, ERR_STATE, ENOTSUP,
                      "%s: %s ends in this host: no connection would survive it", config->name,
                      net);
    err_hint(err, "a network that moves along is a bridge or a tap: "
                  "\"nets\": [{\"mode\": \"bridge\", \"bridge\": \"br0\"}] in vm.json");
    return ret;
}

static int check(const struct instance_config *config, struct err *err)
{
    const struct definition *definition = config->definition;
    if (!config->folder)
        return err_say(err, ERR_STATE, ENOTSUP, "%s: what an image by itself sends cannot be held",
                       config->name);
    if (!definition->nets_said)
        return refuse_local(config, "its network (user mode, the default)", err);
    for (unsigned i = 0; i < definition->net_count; i++) {
        enum netif_mode mode = definition->nets[i].mode;
        if (mode == NETIF_USER)
            return refuse_local(config, "a network in user mode", err);
        if (mode == NETIF_PASST)
            return refuse_local(config, "a network by passt", err);
    }
    return 0;
}

/* --- all gates -------------------------------------------------------------------------------- */

static void handle_bytes(void *ctx)
{
    const struct outbox *outbox = ctx;
    outbox->waits(outbox->ctx, true);
}

static void watch(struct outbox *outbox)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_watch(outbox->nets[i], outbox->waits, outbox->ctx);
    byte_gate_watch(outbox->console, handle_bytes, outbox);
    if (outbox->vsock)
        vsock_gate_watch(outbox->vsock, handle_bytes, outbox);
}

static void unwatch(struct outbox *outbox)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_watch(outbox->nets[i], NULL, NULL);
    byte_gate_watch(outbox->console, NULL, NULL);
    if (outbox->vsock)
        vsock_gate_watch(outbox->vsock, NULL, NULL);
}

static void find_gates(struct outbox *outbox, struct instance *instance)
{
    struct machine *machine = instance_machine(instance);
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++) {
        struct netif_gate *gate = netif_gate_of(machine_netif(machine, i));
        if (gate)
            outbox->nets[outbox->net_count++] = gate;
    }
    outbox->console = instance_console_gate(instance);
    outbox->vsock = machine_vsock(machine);
}

int outbox_create(struct outbox **ret_outbox, struct instance *instance,
                  void (*waits)(void *ctx, bool urgent), void *ctx, struct err *err)
{
    const struct instance_config *config = instance_config(instance);
    int ret = check(config, err);
    if (ret < 0)
        return ret;
    struct outbox *outbox = calloc(1, sizeof(*outbox));
    if (!outbox)
        return err_sys(err, ERR_HOST, ENOMEM, "%s: cannot hold what it sends", config->name);
    outbox->waits = waits;
    outbox->ctx = ctx;
    find_gates(outbox, instance);
    watch(outbox);
    *ret_outbox = outbox;
    return 0;
}

void outbox_destroy(struct outbox *outbox)
{
    if (!outbox)
        return;
    unwatch(outbox);
    outbox_leash(outbox, 0); /* who unprotects a VM goes on with it */
    free(outbox);
}

void outbox_hold(struct outbox *outbox, uint64_t number, size_t budget)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_hold(outbox->nets[i], number, budget / outbox->net_count);
    byte_gate_hold(outbox->console, number, OUTBOX_CONSOLE);
    if (outbox->vsock)
        vsock_gate_hold(outbox->vsock, number);
}

void outbox_mark(struct outbox *outbox, uint64_t number)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_mark(outbox->nets[i], number);
    byte_gate_mark(outbox->console, number);
    if (outbox->vsock)
        vsock_gate_mark(outbox->vsock, number);
}

void outbox_release(struct outbox *outbox, uint64_t number)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_release(outbox->nets[i], number);
    byte_gate_release(outbox->console, number);
    if (outbox->vsock)
        vsock_gate_release(outbox->vsock, number);
}

void outbox_open(struct outbox *outbox)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_open(outbox->nets[i]);
    byte_gate_open(outbox->console);
    if (outbox->vsock)
        vsock_gate_open(outbox->vsock);
}

void outbox_leash(struct outbox *outbox, uint64_t until_ns)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_leash(outbox->nets[i], until_ns);
}

void outbox_shut(struct outbox *outbox)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_shut(outbox->nets[i]);
    byte_gate_shut(outbox->console);
    if (outbox->vsock)
        vsock_gate_shut(outbox->vsock);
}

void outbox_limit(struct outbox *outbox, uint64_t ns)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_limit(outbox->nets[i], ns);
}

void outbox_flush(struct outbox *outbox)
{
    for (unsigned i = 0; i < outbox->net_count; i++)
        netif_gate_flush(outbox->nets[i]);
}

uint64_t outbox_held(struct outbox *outbox)
{
    uint64_t held = byte_gate_held(outbox->console);
    for (unsigned i = 0; i < outbox->net_count; i++)
        held += netif_gate_held(outbox->nets[i]);
    return held;
}
