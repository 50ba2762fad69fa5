/* SPDX-License-Identifier: MIT */
/*
 * A .protected, from a folder that was copied from anywhere. What is taken keeps the rules at the
 * top of ft/protection_text.c, and is the same once it was written and read again; what is refused
 * is refused in words of our own.
 */
#include "ft/protection.h"
#include "tests/fuzz/program.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static bool is_same(const struct protection *a, const struct protection *b)
{
    return a->role == b->role && memcmp(a->uuid, b->uuid, 16) == 0 && a->node == b->node &&
           a->generation == b->generation && a->peer_node == b->peer_node &&
           strcmp(a->peer, b->peer) == 0 && strcmp(a->witness, b->witness) == 0 &&
           strcmp(a->key, b->key) == 0 && a->insecure == b->insecure && a->durable == b->durable &&
           a->timeout_ms == b->timeout_ms && a->min_us == b->min_us && a->max_us == b->max_us;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct protection protection, again;

    if (length > PROTECTION_TEXT_MAX)
        return 0;
    const char *wrong = protection_parse(&protection, (const char *)bytes, length);
    if (wrong) {
        require(wrong[0] != 0);
        return 0;
    }
    require(!protection_find_wrong(&protection));
    require(protection.node != 0 && protection.node != protection.peer_node);
    require(memchr(protection.peer, 0, sizeof(protection.peer)));
    require(memchr(protection.witness, 0, sizeof(protection.witness)));
    require(memchr(protection.key, 0, sizeof(protection.key)));
    char *text = protection_format(&protection);
    require(text && strlen(text) <= PROTECTION_TEXT_MAX);
    require(!protection_parse(&again, text, strlen(text)) && is_same(&protection, &again));
    free(text);
    return 0;
}
