/* SPDX-License-Identifier: MIT */
/*
 * The first byte chooses: the rest is an identity.json, or a journal.jsonl. Folders are copied from
 * anywhere. What is checked, besides what the sanitizers see: an identity that is taken is whole,
 * and is the same once it was written and read again; a report's seconds are a part of its period,
 * however senseless the lines.
 */
#include "tests/fuzz/program.h"
#include "vmm/identity_text.h"
#include "vmm/journal.h"
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static bool has_any(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return true;
    return false;
}

static void try_identity(const char *text, size_t length)
{
    struct identity identity, again;
    struct err err = {0};

    if (identity_parse(&identity, text, length, "web1", &err) < 0) {
        require(err.kind == ERR_DEFINITION && err.hint[0]);
        for (const char *at = err.text; *at; at++)
            require((unsigned char)*at >= ' ' && *at != 0x7f);
        return;
    }
    require(has_any(identity.uuid, 16) && has_any(identity.generation, 16));
    require(identity.birthplace.path && identity.birthplace.path[0] == '/');
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++) {
        if (!has_any(identity.macs[i], 6)) { /* those are filled in before it is written */
            identity_finish(&identity);
            return;
        }
    }
    char *written = identity_format(&identity);
    require(written && identity_parse(&again, written, strlen(written), "web1", NULL) == 0);
    require(memcmp(identity.uuid, again.uuid, 16) == 0);
    require(memcmp(identity.macs, again.macs, sizeof(again.macs)) == 0);
    require(strcmp(identity.birthplace.path, again.birthplace.path) == 0);
    require(identity.birthplace.inode == again.birthplace.inode);
    free(written);
    identity_finish(&identity);
    identity_finish(&again);
}

static int with_journal(const char *text, size_t length, char path[32])
{
    strcpy(path, "/tmp/minivmm-fuzz-XXXXXX");
    int folder = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    require(folder >= 0);
    int file = openat(folder, FOLDER_JOURNAL, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    require(file >= 0 && write(file, text, length) == (ssize_t)length && close(file) == 0);
    return folder;
}

static void try_journal(const char *text, size_t length)
{
    const double now = 1763712000.5;
    struct journal_report report;
    struct err err = {0};
    char path[32];
    int folder = with_journal(text, length, path);

    for (int running = 0; running < 2; running++) {
        require(journal_report(folder, 0, now, running, &report, &err) == 0);
        require(report.from <= report.to && isfinite(report.from) && isfinite(report.to));
        require(report.up >= 0 && report.down >= 0 && report.asked_down >= 0 && report.paused >= 0);
        require(isfinite(report.up + report.down + report.asked_down + report.paused));
        require(report.elsewhere >= 0 && report.held >= 0 && report.protected >= 0);
        require(report.unprotected >= 0 && isfinite(report.unprotected + report.protected));
        require(report.sightless <= report.failures && report.takeovers <= report.failures);
        require(isnan(report.availability) ||
                (report.availability >= 0 && report.availability <= 1));
        require(isnan(report.mttf) == (report.failures == 0));
    }
    require(unlinkat(folder, FOLDER_JOURNAL, 0) == 0 && rmdir(path) == 0);
    close(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (length == 0)
        return 0;
    if (bytes[0] & 1)
        try_journal((const char *)bytes + 1, length - 1);
    else
        try_identity((const char *)bytes + 1, length - 1);
    return 0;
}
