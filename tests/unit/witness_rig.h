/* SPDX-License-Identifier: MIT */
/* A witness's folder, and what is in it. */
#pragma once

#include "ft/witness_parts.h"
#include "tests/unit/folder_rig.h"
#include "tests/unit/witness_hook.h"

static const uint8_t vm_a[16] = {0x6f, 0x1e, 0xd0, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static const uint8_t vm_b[16] = {0x6f, 0x1e, 0xd0, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13};
#define NAME_A "6f1ed002-0102-0304-0506-0708090a0b0c."

static char store[300];
static char memory_root[] = "/dev/shm/mv-XXXXXX";

static inline void store_suite_begin(void)
{
    rig_suite_begin();
    if (!mkdtemp(memory_root))
        strcpy(memory_root, rig_root);
}

static inline void store_suite_end(void)
{
    nftw(memory_root, rig_remove, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    rig_suite_end();
}

/* Many generations are made in memory, where fsync takes no time; some where TMPDIR says. */
static inline void store_begin(bool in_memory)
{
    struct statfs fs;
    const char *parent = rig;

    memset(&hook, 0, sizeof(hook));
    if (statfs(rig, &fs) == 0 && (uint32_t)fs.f_type == 0x794c7630) /* no witness on overlay */
        in_memory = true;
    if (in_memory)
        parent = memory_root;
    snprintf(store, sizeof(store), "%s/store-XXXXXX", parent);
    ck_assert(mkdtemp(store));
}

static inline void store_end(void)
{
    hook.kind = HOOK_NONE;
    umount2(store, MNT_DETACH); /* some tests mount there */
    nftw(store, rig_remove, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static inline struct witness *store_open(void)
{
    struct witness *witness;
    struct err err = {0};
    char address[400];

    snprintf(address, sizeof(address), "file:%s", store);
    ck_assert_msg(witness_open(&witness, address, &err) == 0, "%s", err.text);
    return witness;
}

static inline const char *store_path(const char *name)
{
    static char paths[4][500];
    static unsigned next;
    char *path = paths[next++ % array_size(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", store, name);
    return path;
}

static inline const char *name_a(uint64_t generation)
{
    static char names[4][80];
    static unsigned next;
    char *name = names[next++ % array_size(names)];

    snprintf(name, sizeof(names[0]), NAME_A "%020llu", (unsigned long long)generation);
    return name;
}

static inline void store_write(const char *name, const char *bytes, size_t length)
{
    int fd = open(store_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ck_assert(fd >= 0 && write(fd, bytes, length) == (ssize_t)length && close(fd) == 0);
}

/* A record as it stands there after an exchange that nobody saw. */
static inline void store_put(uint64_t generation, uint64_t owner)
{
    struct witness_text text = {.record = {generation, owner, 0}, .attempt = {generation, owner}};
    char bytes[WITNESS_TEXT_MAX];

    memcpy(text.uuid, vm_a, 16);
    size_t length = witness_text_format(&text, bytes);
    store_write(name_a(generation), bytes, length);
}

/* How many names begin like this. */
static inline unsigned store_count(const char *prefix)
{
    const struct dirent *entry;
    unsigned count = 0;

    DIR *list = opendir(store);
    ck_assert(list);
    while ((entry = readdir(list)))
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(list);
    return count;
}

static inline int give(struct witness *witness, uint64_t expected, uint64_t owner,
                       struct ft_record *ret_is, struct err *err)
{
    struct ft_record next = {.generation = expected + 1, .owner = owner};

    return witness_exchange(witness, vm_a, expected, &next, ret_is, err);
}

static inline struct ft_record see(struct witness *witness)
{
    struct ft_record record;
    struct err err = {0};

    ck_assert_msg(witness_read(witness, vm_a, &record, &err) == 0, "%s", err.text);
    return record;
}
