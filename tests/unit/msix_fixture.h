/* SPDX-License-Identifier: MIT */
/* A function with MSI-X, and a router that counts, for the tests and the fuzzer. */
#pragma once

#include "devices/pci_msix.h"
#include "tests/unit/pci_fixture.h"
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MSIX_VECTORS = 5, MSIX_BAR = 4, ROUTER_ROUTES = 64 };

/* What each route would send, by its place. */
struct fake_router {
    struct msi_router router;
    bool failing;
    unsigned creates, destroys, sets;
    uint64_t addresses[ROUTER_ROUTES];
    uint32_t datas[ROUTER_ROUTES];
};

static inline int fake_router_handle_create(void *ctx, struct msi_route *ret_route, struct err *err)
{
    struct fake_router *fake = ctx;

    fake->creates++;
    if (fake->failing)
        return err_sys(err, ERR_HOST, EMFILE, "no more of them");
    *ret_route = (struct msi_route){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                                    .gsi = fake->creates % ROUTER_ROUTES};
    return 0;
}

static inline void fake_router_handle_destroy(void *ctx, struct msi_route *route)
{
    struct fake_router *fake = ctx;

    if (route->fd < 0)
        return;
    fake->destroys++;
    close(route->fd);
    route->fd = -1;
}

static inline void fake_router_handle_set(void *ctx, struct msi_route *route, uint64_t address,
                                          uint32_t data)
{
    struct fake_router *fake = ctx;

    fake->sets++;
    fake->addresses[route->gsi] = address;
    fake->datas[route->gsi] = data;
}

static inline void fake_router_init(struct fake_router *fake)
{
    *fake = (struct fake_router){.router = {.create = fake_router_handle_create,
                                            .destroy = fake_router_handle_destroy,
                                            .set = fake_router_handle_set,
                                            .ctx = fake}};
}

struct msix_toy {
    pthread_mutex_t lock;
    struct pci_state state;
    struct pci_msix_state msix_state;
    struct pci_function function;
    struct pci_msix msix;
};

static inline void msix_toy_after_write(struct pci_function *function, unsigned offset,
                                        unsigned width)
{
    struct msix_toy *toy = function->owner;

    pci_msix_config_written(&toy->msix);
}

static const struct pci_function_ops msix_toy_ops = {.after_write = msix_toy_after_write};

static inline int msix_toy_init(struct msix_toy *toy, const struct msi_router *router)
{
    const struct pci_id id = {.vendor = 0x1af4, .device = 0x1041, .class_code = 0x020000};

    *toy = (struct msix_toy){0};
    pthread_mutex_init(&toy->lock, NULL);
    pci_function_init(&toy->function, &id, &toy->state, &toy->lock, &msix_toy_ops, toy);
    return pci_msix_init(&toy->msix, &toy->function, MSIX_BAR, MSIX_VECTORS, &toy->msix_state,
                         router, NULL);
}

static inline void msix_toy_finish(struct msix_toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_detach(&toy->function);
    pci_msix_finish(&toy->msix);
    pthread_mutex_unlock(&toy->lock);
    pthread_mutex_destroy(&toy->lock);
}

static inline void msix_toy_reset(struct msix_toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_reset(&toy->function);
    pci_msix_reset(&toy->msix);
    pthread_mutex_unlock(&toy->lock);
}

static inline void msix_toy_resume(struct msix_toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_resume(&toy->function);
    pci_msix_resume(&toy->msix);
    pthread_mutex_unlock(&toy->lock);
}

static inline void msix_toy_raise(struct msix_toy *toy, unsigned vector)
{
    pthread_mutex_lock(&toy->lock);
    pci_msix_raise(&toy->msix, vector);
    pthread_mutex_unlock(&toy->lock);
}

/* How many messages went out since the last question. */
static inline uint64_t msix_toy_sent(struct msix_toy *toy, unsigned vector)
{
    uint64_t count = 0;

    if (toy->msix.routes[vector].fd < 0 ||
        read(toy->msix.routes[vector].fd, &count, sizeof(count)) != sizeof(count))
        return 0;
    return count;
}
