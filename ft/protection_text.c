/* SPDX-License-Identifier: MIT */
/*
 * .protected as text:
 *
 *   {"role": "owner", "twin", or "off"
 *    "uuid": "6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f80",
 *    "node": "0123456789abcdef", "generation": 42, "peer_node": "fedcba9876543210",
 *    "peer": "hostB:7420", "back": "hostA:7420", "witness": "file:/net/witness",
 *    "key": "/etc/minivmm/pair.key", "insecure": false, "durable": false, "timeout_ms": 0,
 *    "min_us": 0, "max_us": 0}
 *
 * Rules: 1. Each key but "back" is there, and no key twice; one that nobody knows is passed
 * over. 2. Numbers of nodes are 16 hexadecimal digits (not every tool that reads JSON has 64 bits),
 * small letters; node is not 0, peer_node is another one or 0. 3. The UUID is not zero. 4.
 * generation is from 0 to what a witness can count to; times are at most an hour, and min_us at
 * most max_us where both are said. 5. The peer is an address without blanks, or empty, as is back;
 * the witness says something; the key's path is whole, or empty. Each is text that a terminal shows
 * as it is.
 */
#include "ft/protection.h"

#include "core/words.h"
#include "core/zero.h"
#include "ft/witness_parts.h"
#include "vmm/identity.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_MS 3600000u
#define MOST_US 3600000000u

static const char *const roles[] = {"owner", "twin", "off", NULL};

/* --- what may be ------------------------------------------------------------------------------ */

/* Text without controls, those of two bytes too. */
static bool is_plain(const char *text)
{
    for (const char *at = text; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)at[1] < 0xa0))
            return false;
    }
    return folder_is_text(text);
}

static bool is_address(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

const char *protection_find_wrong(const struct protection *protection)
{
    const struct protection *p = protection;

    if (p->role < PROTECTION_OWNER || p->role > PROTECTION_OFF)
        return "\"role\" is neither owner, twin nor off";
    if (is_zero(p->uuid, sizeof(p->uuid)))
        return "\"uuid\" is none";
    if (p->node == 0)
        return "\"node\" is 0";
    if (p->generation > WITNESS_MOST_GENERATIONS)
        return "\"generation\" is senseless";
    if (p->peer_node == p->node)
        return "\"peer_node\" is the node itself";
    if (!is_address(p->peer))
        return "\"peer\" is no address";
    if (!is_address(p->back))
        return "\"back\" is no address";
    if (!p->witness[0] || !is_plain(p->witness))
        return "\"witness\" is none";
    if ((p->key[0] && p->key[0] != '/') || !is_plain(p->key))
        return "\"key\" is no whole path of a file";
    if (p->timeout_ms > MOST_MS || p->min_us > MOST_US || p->max_us > MOST_US)
        return "a time is longer than an hour";
    if (p->min_us && p->max_us && p->min_us > p->max_us)
        return "\"min_us\" is more than \"max_us\"";
    return NULL;
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool take_node(const json_t *root, const char *key, uint64_t *ret_node)
{
    enum { DIGITS = 16 };
    const char *text = json_string_value(json_object_get(root, key));

    if (!text || strlen(text) != DIGITS || strspn(text, "0123456789abcdef") != DIGITS)
        return false;
    *ret_node = strtoull(text, NULL, 16);
    return true;
}

static bool take_text(const json_t *root, const char *key, char *ret_text, size_t size)
{
    const char *text = json_string_value(json_object_get(root, key));

    if (!text || strlen(text) >= size)
        return false;
    memcpy(ret_text, text, strlen(text) + 1);
    return true;
}

static bool take_number(const json_t *root, const char *key, uint64_t most, uint64_t *ret_number)
{
    const json_t *value = json_object_get(root, key);
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < 0 || (uint64_t)number > most)
        return false;
    *ret_number = (uint64_t)number;
    return true;
}

static bool take_time(const json_t *root, const char *key, unsigned *ret_time)
{
    uint64_t number;

    if (!take_number(root, key, MOST_US, &number))
        return false;
    *ret_time = (unsigned)number;
    return true;
}

static bool take_bool(const json_t *root, const char *key, bool *ret_value)
{
    const json_t *value = json_object_get(root, key);

    *ret_value = json_is_true(value);
    return json_is_boolean(value);
}

static bool take_uuid(const json_t *root, uint8_t ret_uuid[16])
{
    const char *text = json_string_value(json_object_get(root, "uuid"));

    return text && parse_uuid(text, "uuid", ret_uuid, NULL) == 0;
}

static const char *take_all(struct protection *protection, const json_t *root)
{
    struct protection *p = protection;
    const char *role = json_string_value(json_object_get(root, "role"));

    if (!json_is_object(root))
        return "it is no JSON object";
    p->role = role ? (enum protection_role)(words_find(roles, role) + 1) : 0;
    if (!p->role)
        return "\"role\" is neither owner, twin nor off";
    if (!take_uuid(root, p->uuid))
        return "\"uuid\" is missing, or is none";
    if (!take_node(root, "node", &p->node))
        return "\"node\" is missing, or is no number of 16 digits";
    if (!take_number(root, "generation", WITNESS_MOST_GENERATIONS, &p->generation))
        return "\"generation\" is missing, or is none";
    if (!take_node(root, "peer_node", &p->peer_node))
        return "\"peer_node\" is missing, or is no number of 16 digits";
    if (!take_text(root, "peer", p->peer, sizeof(p->peer)))
        return "\"peer\" is missing, or is no address";
    if (json_object_get(root, "back") && !take_text(root, "back", p->back, sizeof(p->back)))
        return "\"back\" is no address";
    if (!take_text(root, "witness", p->witness, sizeof(p->witness)))
        return "\"witness\" is missing, or is none";
    if (!take_text(root, "key", p->key, sizeof(p->key)))
        return "\"key\" is missing, or is no whole path of a file";
    if (!take_bool(root, "insecure", &p->insecure) || !take_bool(root, "durable", &p->durable))
        return "\"insecure\" or \"durable\" is neither true nor false";
    if (!take_time(root, "timeout_ms", &p->timeout_ms) || !take_time(root, "min_us", &p->min_us) ||
        !take_time(root, "max_us", &p->max_us))
        return "\"timeout_ms\", \"min_us\" or \"max_us\" is no time";
    return protection_find_wrong(p);
}

const char *protection_parse(struct protection *ret_protection, const char *text, size_t length)
{
    struct protection protection = {0};

    if (length == 0)
        return "it is empty";
    /* Without jansson's words, which repeat the file's own: these go to a terminal. */
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        return "it is no good JSON";
    const char *wrong = take_all(&protection, root);
    json_decref(root);
    if (!wrong)
        *ret_protection = protection;
    return wrong;
}

/* --- writing ---------------------------------------------------------------------------------- */

char *protection_format(const struct protection *protection)
{
    const struct protection *p = protection;
    char uuid[37], node[17], peer_node[17], *text, *lines = NULL;

    identity_format_uuid(p->uuid, uuid);
    snprintf(node, sizeof(node), "%016llx", (unsigned long long)p->node);
    snprintf(peer_node, sizeof(peer_node), "%016llx", (unsigned long long)p->peer_node);
    json_t *root = json_pack("{ss, ss, ss, sI, ss, ss, ss, ss, sb, sb, sI, sI, sI}", "role",
                             roles[p->role - 1], "uuid", uuid, "node", node, "generation",
                             (json_int_t)p->generation, "peer_node", peer_node, "peer", p->peer,
                             "witness", p->witness, "key", p->key, "insecure", (int)p->insecure,
                             "durable", (int)p->durable, "timeout_ms", (json_int_t)p->timeout_ms,
                             "min_us", (json_int_t)p->min_us, "max_us", (json_int_t)p->max_us);
    if (p->back[0] && root)
        json_object_set_new(root, "back", json_string(p->back));
    text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (text && asprintf(&lines, "%s\n", text) < 0)
        lines = NULL;
    free(text);
    return lines;
}
