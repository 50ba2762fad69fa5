/* SPDX-License-Identifier: MIT */
/*
 * The format is in identity.h. Rules: 1. UUID and generation are not zero. 2. Each MAC is an
 * interface's own (not a group's, not zero), and none is there twice. 3. The birthplace's path is
 * whole, its machine 32 hexadecimal digits or empty. 4. Device and inode are numbers of 64 bits;
 * JSON's have a sign, so that the upper half of them is written as negative ones. 5. A key that
 * stands there twice is an error, one that nobody knows is passed over.
 */
#include "vmm/identity_text.h"
#include "core/words.h"
#include "core/zero.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void identity_format_uuid(const uint8_t uuid[16], char ret_text[37])
{
    char *at = ret_text;

    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += snprintf(at, 3, "%02x", uuid[i]);
    }
}

static bool take_uuid(const json_t *root, const char *key, uint8_t ret_uuid[16])
{
    const char *text = json_string_value(json_object_get(root, key));

    return text && parse_uuid(text, key, ret_uuid, NULL) == 0 && !is_zero(ret_uuid, 16);
}

static bool take_macs(const json_t *root, uint8_t ret_macs[MACHINE_MAX_NETS][6])
{
    const json_t *list = json_object_get(root, "macs");
    size_t count = json_array_size(list);

    if (!json_is_array(list) || count > MACHINE_MAX_NETS)
        return false;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || !parse_mac_address(text, ret_macs[i]) || (ret_macs[i][0] & 1) ||
            is_zero(ret_macs[i], 6))
            return false;
        for (size_t k = 0; k < i; k++)
            if (memcmp(ret_macs[i], ret_macs[k], 6) == 0)
                return false;
    }
    return true;
}

static bool is_machine(const char *text)
{
    size_t length = strlen(text);

    for (size_t i = 0; i < length; i++)
        if (!isxdigit((unsigned char)text[i]))
            return false;
    return length == 0 || length == 32;
}

static bool take_birthplace(const json_t *root, struct birthplace *ret_birthplace)
{
    const json_t *at = json_object_get(root, "birthplace");
    const char *machine = json_string_value(json_object_get(at, "machine"));
    const char *path = json_string_value(json_object_get(at, "path"));
    const json_t *device = json_object_get(at, "device");
    const json_t *inode = json_object_get(at, "inode");
    const json_t *born = json_object_get(at, "born");

    if (!machine || !is_machine(machine) || !path || path[0] != '/' || !json_is_integer(device) ||
        !json_is_integer(inode) || !json_is_integer(born))
        return false;
    memcpy(ret_birthplace->machine, machine, strlen(machine) + 1);
    ret_birthplace->device = (uint64_t)json_integer_value(device);
    ret_birthplace->inode = (uint64_t)json_integer_value(inode);
    ret_birthplace->born_ns = json_integer_value(born);
    ret_birthplace->path = strdup(path);
    return ret_birthplace->path != NULL;
}

int identity_say_damaged(const char *name, const char *what, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL, "%s/" FOLDER_IDENTITY " is damaged: %s", name,
                    what);

    err_hint(err, "put an old one back, or remove it: the VM gets a new UUID and new MACs then");
    return r;
}

int identity_parse(struct identity *ret_identity, const char *text, size_t length, const char *name,
                   struct err *err)
{
    struct identity identity = {0};
    const char *wrong = NULL;
    json_error_t error;
    char where[64];

    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        /* Without jansson's words, which repeat the file's own: these go to a terminal. */
        snprintf(where, sizeof(where), "line %d is no good JSON", error.line);
        wrong = where;
    } else if (!json_is_object(root)) {
        wrong = "it is no JSON object";
    } else if (!take_uuid(root, "uuid", identity.uuid)) {
        wrong = "\"uuid\" is missing, or is none";
    } else if (!take_uuid(root, "generation", identity.generation)) {
        wrong = "\"generation\" is missing, or is no UUID";
    } else if (!take_macs(root, identity.macs)) {
        wrong = "\"macs\" is no list of distinct MAC addresses";
    } else if (!take_birthplace(root, &identity.birthplace)) {
        wrong = "\"birthplace\" is missing or not whole";
    }
    json_decref(root);
    if (wrong) {
        identity_finish(&identity);
        return identity_say_damaged(name, wrong, err);
    }
    *ret_identity = identity;
    return 0;
}

static json_t *make_macs(const struct identity *identity)
{
    json_t *list = json_array();
    char text[18];

    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++) {
        const uint8_t *mac = identity->macs[i];
        snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
                 mac[3], mac[4], mac[5]);
        if (json_array_append_new(list, json_string(text)) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

char *identity_format(const struct identity *identity)
{
    const struct birthplace *birthplace = &identity->birthplace;
    char uuid[37], generation[37], *text = NULL, *lines = NULL;

    identity_format_uuid(identity->uuid, uuid);
    identity_format_uuid(identity->generation, generation);
    json_t *root = json_pack("{s:s, s:s, s:o, s:{s:s, s:I, s:I, s:I, s:s}}", "uuid", uuid,
                             "generation", generation, "macs", make_macs(identity), "birthplace",
                             "machine", birthplace->machine, "device",
                             (json_int_t)birthplace->device, "inode", (json_int_t)birthplace->inode,
                             "born", (json_int_t)birthplace->born_ns, "path", birthplace->path);
    if (root)
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (text && asprintf(&lines, "%s\n", text) < 0)
        lines = NULL;
    free(text);
    return lines;
}
