/* SPDX-License-Identifier: MIT */
#include "vmm/routes.h"

#include "vmm/kvm.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Enough for 31 devices with every vector that they can have; KVM's own limit is 4096. */
enum { FIRST_FREE = IOAPIC_PINS, MAX_GSIS = 1024 };

struct route {
    uint64_t address;
    uint32_t data;
    bool taken; /* somebody has this GSI */
    bool set;   /* it says something: it is in KVM's table */
};

struct routes {
    int vm;
    struct msi_router router;
    pthread_mutex_t lock;
    struct route table[MAX_GSIS];
    unsigned end; /* no GSI from here on is taken */
};

/* An error would be out of memory: KVM goes on with the table that it has. */
static void tell_kvm_locked(struct routes *routes)
{
    struct kvm_irq_routing *all;
    all = calloc(1, sizeof(*all) + routes->end * sizeof(all->entries[0]));
    if (!all)
        return;
    for (unsigned gsi = 0; gsi < routes->end; gsi++) {
        const struct route *route = &routes->table[gsi];
        if (!route->set)
            continue;
        uint64_t address = routes_address_for_kvm(route->address);
        all->entries[all->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)address,
                      .address_hi = (uint32_t)(address >> 32),
                      .data = route->data},
        };
    }
    int ret = kvm_vm_set_routing(routes->vm, all);
    (void)ret;
    free(all);
}

/* --- messages of devices ------------------------------------------------------------------- */

static int take_gsi(struct routes *routes, uint32_t *ret_gsi)
{
    int ret = -ENOSPC;
    pthread_mutex_lock(&routes->lock);
    for (unsigned gsi = FIRST_FREE; gsi < MAX_GSIS && ret < 0; gsi++) {
        if (routes->table[gsi].taken)
            continue;
        routes->table[gsi] = (struct route){.taken = true};
        if (routes->end <= gsi)
            routes->end = gsi + 1;
        *ret_gsi = gsi;
        ret = 0;
    }
    pthread_mutex_unlock(&routes->lock);
    return ret;
}

/* What KVM's table says of it stays until the next change: nobody can raise it any more. */
static void give_gsi(struct routes *routes, uint32_t gsi)
{
    pthread_mutex_lock(&routes->lock);
    routes->table[gsi] = (struct route){0};
    pthread_mutex_unlock(&routes->lock);
}

static int handle_create(void *ctx, struct msi_route *ret_route, struct err *err)
{
    struct routes *routes = ctx;
    uint32_t gsi;
    int ret = take_gsi(routes, &gsi);
    if (ret < 0)
        return err_say(err, ERR_HOST, ENOSPC, "no place for another interrupt: there are %d",
                       MAX_GSIS - FIRST_FREE);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ret = fd < 0 ? -errno : kvm_vm_irqfd(routes->vm, fd, gsi, true);
    if (ret < 0) {
        if (fd >= 0)
            close(fd);
        give_gsi(routes, gsi);
        return err_sys(err, ERR_HOST, -ret, "cannot make an interrupt");
    }
    *ret_route = (struct msi_route){.fd = fd, .gsi = gsi};
    return 0;
}

static void handle_destroy(void *ctx, struct msi_route *route)
{
    struct routes *routes = ctx;
    if (route->fd < 0)
        return;
    /* KVM lets go of it when it is closed; to be told as well costs it a second grace period. */
    close(route->fd);
    route->fd = -1;
    give_gsi(routes, route->gsi);
}

static void handle_set(void *ctx, struct msi_route *route, uint64_t address, uint32_t data)
{
    struct routes *routes = ctx;
    if (route->fd < 0)
        return;
    pthread_mutex_lock(&routes->lock);
    struct route *entry = &routes->table[route->gsi];
    if (!entry->set || entry->address != address || entry->data != data) {
        entry->set = true;
        entry->address = address;
        entry->data = data;
        tell_kvm_locked(routes);
    }
    pthread_mutex_unlock(&routes->lock);
}

/* --- the I/O APIC's pins -------------------------------------------------------------------- */

void routes_set_ioapic(struct routes *routes, const struct ioapic_route *pins, unsigned count)
{
    struct route wanted[IOAPIC_PINS] = {0};
    for (unsigned i = 0; i < count; i++)
        wanted[pins[i].pin] = (struct route){
            .taken = true, .set = true, .address = pins[i].address, .data = pins[i].data};
    pthread_mutex_lock(&routes->lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        routes->table[pin] = wanted[pin];
    tell_kvm_locked(routes);
    pthread_mutex_unlock(&routes->lock);
}

/* --- life ----------------------------------------------------------------------------------- */

int routes_create(struct routes **ret_routes, int vm, struct err *err)
{
    struct routes *routes = calloc(1, sizeof(*routes));
    if (!routes)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the interrupt routing table");
    routes->vm = vm;
    routes->end = IOAPIC_PINS;
    routes->router = (struct msi_router){
        .create = handle_create, .destroy = handle_destroy, .set = handle_set, .ctx = routes};
    pthread_mutex_init(&routes->lock, NULL);
    *ret_routes = routes;
    return 0;
}

void routes_destroy(struct routes *routes)
{
    if (!routes)
        return;
    pthread_mutex_destroy(&routes->lock);
    free(routes);
}

const struct msi_router *routes_router(struct routes *routes)
{
    return &routes->router;
}
