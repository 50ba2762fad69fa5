/* SPDX-License-Identifier: MIT */
/*
 * The facts of a snapshot's manifest, then after a zero byte its verified.json, in a folder with
 * some files, one of them a link that leads away. It runs as it is, and with the manifest's
 * checksum made right. What is checked: what is refused has a sentence, and no file is read but
 * those in the folder.
 */
#include "ft/snapshot.h"
#include "tests/fuzz/program.h"

#include "core/stream.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const char *const names[] = {"manifest.json", "verified.json", "disk.img",
                                    "memory",        "state",         "link"};

static void write_file(int folder, const char *name, const void *bytes, size_t length)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd >= 0 && write(fd, bytes, length) == (ssize_t)length && close(fd) == 0);
}

static void handle_begins(void *ctx, const char *file)
{
    require(strcmp(file, "link") != 0 && file[0] != '/' && strncmp(file, "../", 3) != 0);
}

static void try_snapshot(const char *path)
{
    const struct snapshot_check check = {.begins = handle_begins};
    struct snapshot snapshot;
    struct err err = {0};

    if (snapshot_open(&snapshot, path, &err) == 0) {
        int ret = snapshot_verify(&snapshot, &check, &err);
        require(ret < 0 || !snapshot.has_memory); /* this state is none */
        require(ret == 0 || (err.kind != ERR_NONE && err.text[0]));
        snapshot_close(&snapshot);
    } else {
        require(err.kind != ERR_NONE && err.text[0]);
    }
}

/* The facts in a manifest whose checksum fits; false: they are no JSON. */
static bool write_manifest(int folder, const uint8_t *bytes, size_t length)
{
    char sum[9];
    json_t *facts = json_loadb((const char *)bytes, length, JSON_REJECT_DUPLICATES, NULL);
    char *text = facts ? json_dumps(facts, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (text) {
        snprintf(sum, sizeof(sum), "%08x", crc32c(0, text, strlen(text)));
        json_t *root = json_pack("{ss, sO}", "crc32c", sum, "snapshot", facts);
        char *whole = json_dumps(root, 0);
        require(whole);
        write_file(folder, "manifest.json", whole, strlen(whole));
        free(whole);
        json_decref(root);
    }
    bool written = text;
    free(text);
    json_decref(facts);
    return written;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char path[32] = "/tmp/minivmm-fuzz-XXXXXX";
    const uint8_t *zero = length ? memchr(bytes, 0, length) : NULL;
    size_t facts = zero ? (size_t)(zero - bytes) : length;
    int folder = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    require(folder >= 0 && symlinkat("/etc/passwd", folder, "link") == 0);
    write_file(folder, "disk.img", "0123456789", 10);
    write_file(folder, "memory", "0123456789", 10);
    write_file(folder, "state", "0123456789", 10);
    write_file(folder, "manifest.json", bytes, facts);
    if (zero)
        write_file(folder, "verified.json", zero + 1, length - facts - 1);
    try_snapshot(path);
    if (write_manifest(folder, bytes, facts))
        try_snapshot(path);
    for (size_t i = 0; i < array_size(names); i++)
        unlinkat(folder, names[i], 0);
    unlinkat(folder, ".verified.json.new", 0);
    close(folder);
    require(rmdir(path) == 0);
    return 0;
}
