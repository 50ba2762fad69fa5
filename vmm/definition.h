/* SPDX-License-Identifier: MIT */
/*
 * vm.json: what a person wants of a VM. Intent only; what minivmm makes up itself (UUID, MACs) is
 * in identity.json (vmm/identity.h), what runs is in the runtime folder (vmm/runtime.h).
 *
 * The text is JSON (parsed by jansson) and hostile until it is checked. All that is wrong with a
 * file is told at once, each with its place:
 *
 *     web1/vm.json:12:9: nets[0].mode "usr" is not known; did you mean "user"?
 *
 * docs/vm.schema.json says the same for other programs, vm.json(5) for people; a test keeps the
 * three together.
 */
#pragma once

#include "host/seed.h"
#include "vmm/machine.h"

enum definition_restart { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };

enum { DEFINITION_MAX_PEERS = 8 };

/* Accepted and checked; `minivmm protect` uses it. NULL and 0: not said. */
struct definition_ft {
    const char *peer; /* HOST[:PORT], or two with a comma: what "links" says is here, too */
    const char *links[2];
    unsigned link_count;
    const char *witness; /* file:PATH, etcd://HOST,... or etcd:URL,... */
    unsigned epoch_min_ms, epoch_max_ms, heartbeat_ms, timeout_ms;
    unsigned pause_percent; /* how much of the time the guest may stand still for checkpoints */
    const char *peers[DEFINITION_MAX_PEERS]; /* all hosts that it may be at, as `peer` */
    unsigned peer_count;
    unsigned peers_after_s;     /* so long the former one is waited for; if has_peers_after */
    bool has_peers_after;       /* 0 is a time, too */
    const char *preferred;      /* the one of them where it is at home */
    unsigned preferred_after_s; /* so long all has been well before it goes there by itself */
};

/* Strings and arrays belong to the definition. Paths are whole: relative ones are of the VM's
 * folder, and ~/ is the home of whoever asks. */
struct definition {
    unsigned cpus;
    enum cpu_model cpu;
    uint64_t memory; /* bytes */
    const char *kernel, *initrd, *cmdline;
    struct disk_config disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct netif_config nets[MACHINE_MAX_NETS];
    unsigned net_count;
    bool nets_said; /* "nets" is there, be it empty; else one in user mode is wanted, if it works */
    bool console_virtio;
    bool no_balloon;
    uint64_t balloon; /* bytes */
    bool vsock;
    uint64_t vsock_cid;     /* 0: minivmm chooses */
    const char *vsock_path; /* NULL: in the runtime folder */
    bool has_seed;
    struct seed_config seed;   /* without instance, which the identity gives */
    const char *seed_key_file; /* its keys are read when the VM starts */
    struct limits disk_limits; /* of all disks together */
    struct limits net_limits;  /* of all interfaces together */
    enum definition_restart restart;
    bool keep_identity;
    struct definition_ft ft;
    void *arena; /* the definition's own */
};

/* Told of each thing that is wrong, in the order of the file: a whole line for a person. */
struct definition_judge {
    void (*problem)(void *ctx, const char *sentence);
    void *ctx;
};

/*
 * Reads folder/vm.json. Only the text is judged here: whether files exist and devices are there is
 * for whoever opens them (and for `minivmm check VM`). Where the text is wrong: -EINVAL,
 * ERR_DEFINITION, with "web1/vm.json: 3 errors" in err after the judge has heard each; judge NULL:
 * the first is err's sentence. No vm.json: ERR_NOT_FOUND.
 */
int definition_load(struct definition **ret_definition, const char *folder,
                    const struct definition_judge *judge, struct err *err) must_check;

/* The same for text in memory; `name` is what the sentences call it, `folder` where paths begin. */
int definition_parse(struct definition **ret_definition, const char *text, size_t length,
                     const char *name, const char *folder, const struct definition_judge *judge,
                     struct err *err) must_check;
void definition_destroy(struct definition *definition); /* NULL is fine */
