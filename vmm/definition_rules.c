/* SPDX-License-Identifier: MIT */
/* What a text may say, beyond its length; and what does not go together. A rule keeps quiet about
 * what is wrong by itself: one mistake, one sentence. */
#include "vmm/definition_parts.h"

#include "core/words.h"
#include "host/netif_forward.h"
#include "host/peer_address.h"
#include "vmm/folder.h"
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* --- texts ---------------------------------------------------------------------------------- */

const char *definition_wrong_serial(const char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            return "must be of ASCII characters";
    return NULL;
}

/* As the kernel names them. */
const char *definition_wrong_device(const char *text)
{
    bool good = strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
    for (const char *at = text; *at; at++)
        good &= *at > ' ' && *at <= '~' && *at != '/' && *at != ':';
    return good ? NULL : "must be the name of a network device";
}

const char *definition_wrong_user(const char *text)
{
    return seed_is_user(text) ? NULL
                              : "must be a small letter, then small letters, digits, - and _";
}

const char *definition_wrong_hostname(const char *text)
{
    return seed_is_hostname(text) ? NULL
                                  : "must be letters, digits and hyphens, with points between";
}

static bool is_port(const char *text)
{
    uint64_t port;
    return parse_number(text, "", 1, 65535, &port, NULL) == 0;
}

/* HOST, ADDRESS or [ADDRESS], and :PORT behind it. */
const char *definition_wrong_peer(const char *text)
{
    static const char wrong[] = "must be HOST or HOST:PORT, an IPv6 address in brackets";
    bool bracket = text[0] == '[';
    size_t length = bracket ? strspn(text + 1, "0123456789abcdefABCDEF:.") + 1
                            : strspn(text, "0123456789abcdefghijklmnopqrstuvwxyz"
                                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_");
    const char *after = text + length;
    if (bracket && *after++ != ']')
        return wrong;
    if (length < (bracket ? 3 : 1) || text[0] == '-' || text[0] == '.')
        return wrong;
    return !*after || (*after == ':' && is_port(after + 1)) ? NULL : wrong;
}

/* A list of one or more, each of which begins so. Who opens it looks closer. */
static bool is_list(const char *text, const char *one, const char *other)
{
    for (;; text++) {
        const char *begin = strncmp(text, one, strlen(one)) == 0                ? one
                            : other && strncmp(text, other, strlen(other)) == 0 ? other
                                                                                : NULL;
        size_t length = strcspn(text, ",");
        if (!begin || length <= strlen(begin))
            return false;
        for (size_t i = 0; i < length; i++)
            if (text[i] <= ' ' || text[i] > '~')
                return false;
        text += length;
        if (!*text)
            return true;
    }
}

const char *definition_wrong_witness(const char *text)
{
    static const char wrong[] = "must be file:PATH, etcd://HOST[:PORT][,...] or etcd:URL[,URL...]";
    if (strncmp(text, "file:", 5) == 0)
        return text[5] ? NULL : wrong;
    if (strncmp(text, "etcd:", 5) != 0)
        return wrong;
    text += 5;
    bool good = strncmp(text, "//", 2) == 0 ? is_list(text + 2, "", NULL)
                                            : is_list(text, "http://", "https://");
    return good ? NULL : wrong;
}

/* --- one object ----------------------------------------------------------------------------- */

static bool is_said(const struct definition_found *found, const char *name)
{
    return definition_place(found, name) != JSON_NOWHERE;
}

static bool is_good(const struct definition_found *found, const char *name)
{
    return is_said(found, name) && !definition_is_bad(found, name);
}

void definition_check_boot(struct definition_reader *reader, const struct definition_found *found)
{
    static const char *const names[] = {"initrd", "cmdline"};
    for (size_t i = 0; i < array_size(names); i++)
        if (is_said(found, names[i]) && !is_said(found, "kernel"))
            definition_wrong(reader, definition_place(found, names[i]),
                             "is for a kernel, and boot.kernel names none");
}

void definition_check_disk(struct definition_reader *reader, const struct definition_found *found)
{
    enum { WRITEBACK, WRITETHROUGH, NONE };
    struct disk_config *disk = found->base;
    uint64_t cache = definition_number(found, "cache", WRITEBACK);

    if (disk->backing && disk->format == DISK_FORMAT_RAW)
        definition_wrong(reader, definition_place(found, "backing"),
                         "has no place: a raw image stands on no other");
    if (cache == NONE && !definition_number(found, "direct", true))
        definition_wrong(reader, definition_place(found, "direct"),
                         "is false, and \"cache\": \"none\" means true");
    disk->write_through = cache == WRITETHROUGH;
    disk->direct |= cache == NONE;
}

void definition_begin_net(void *base)
{
    struct netif_config *net = base;
    net->mode = NETIF_USER;
}

void definition_check_net(struct definition_reader *reader, const struct definition_found *found)
{
    const struct netif_config *net = found->base;
    bool forwards = net->mode == NETIF_USER || net->mode == NETIF_PASST;

    if (definition_is_bad(found, "mode"))
        return;
    if (is_said(found, "bridge") && net->mode != NETIF_BRIDGE)
        definition_wrong(reader, definition_place(found, "bridge"),
                         "has no place here; it goes with \"mode\": \"bridge\"");
    if (is_said(found, "tap") && net->mode != NETIF_TAP)
        definition_wrong(reader, definition_place(found, "tap"),
                         "has no place here; it goes with \"mode\": \"tap\"");
    if (net->mode == NETIF_BRIDGE && !is_said(found, "bridge"))
        definition_wrong(reader, definition_place(found, "mode"),
                         "\"bridge\" needs the bridge's name: \"bridge\": \"br0\"");
    if (net->forward_count > 0 && !forwards)
        definition_wrong(reader, definition_place(found, "forwards"),
                         "go with the modes \"user\" and \"passt\"; this guest has an address of "
                         "its own");
}

void definition_check_seed(struct definition_reader *reader, const struct definition_found *found)
{
    if (!is_said(found, "key") && !is_said(found, "password"))
        definition_wrong(reader, found->place,
                         "lets nobody in; name a file of public keys: \"key\": "
                         "\"~/.ssh/id_ed25519.pub\"");
}

void definition_check_epoch(struct definition_reader *reader, const struct definition_found *found)
{
    uint64_t min = definition_number(found, "min_ms", 0);
    uint64_t max = definition_number(found, "max_ms", UINT64_MAX);
    if (min > max)
        definition_wrong(reader, definition_place(found, "min_ms"), "is %llu, and max_ms only %llu",
                         (unsigned long long)min, (unsigned long long)max);
}

/* Who is named twice would be tried twice; and a home that is no host's would never be found. */
static void check_peers(struct definition_reader *reader, const struct definition_found *found)
{
    const struct definition_ft *ft = found->base;
    uint32_t list = definition_place(found, "peers");
    bool known = false;
    if (is_said(found, "peers_after_s") && !is_said(found, "peers"))
        definition_wrong(reader, definition_place(found, "peers_after_s"),
                         "is for ft.peers, which is not there");
    if (is_said(found, "preferred_after_s") && !is_said(found, "preferred"))
        definition_wrong(reader, definition_place(found, "preferred_after_s"),
                         "is for ft.preferred, which is not there");
    if (definition_is_bad(found, "peers"))
        return;
    for (unsigned i = 0; i < ft->peer_count; i++) {
        known |= ft->preferred && peer_address_equal(ft->preferred, ft->peers[i]);
        for (unsigned j = 0; j < i; j++)
            if (peer_address_equal(ft->peers[i], ft->peers[j]))
                definition_wrong(reader, json_places_item(&reader->places, list, i),
                                 "is ft.peers[%u] too", j);
    }
    if (is_good(found, "preferred") && !known)
        definition_wrong(reader, definition_place(found, "preferred"),
                         "is none of ft.peers, which is to name every host that may have the VM");
}

/* The peer's addresses, one or two. */
static void check_links(struct definition_reader *reader, const struct definition_found *found)
{
    struct definition_ft *ft = found->base;
    const char *first = ft->links[0], *second = ft->links[1];
    uint32_t place = definition_place(found, "links");

    if (!is_good(found, "links") || ft->link_count == 0)
        return;
    if (ft->peer && strcmp(ft->peer, first) != 0)
        definition_wrong(reader, place, "begins with another host than peer: %s", first);
    if (ft->link_count == 1) {
        ft->peer = first;
        return;
    }
    if (strcmp(first, second) == 0)
        definition_wrong(reader, place, "has one address twice");
    char *both = definition_allocate(reader, strlen(first) + strlen(second) + 2);
    if (both)
        ft->peer = strcat(strcat(strcpy(both, first), ","), second);
}

/* One heartbeat may be lost, and one late; only then silence means something. */
void definition_check_ft(struct definition_reader *reader, const struct definition_found *found)
{
    enum { HEARTBEATS = 3 };
    struct definition_ft *ft = found->base;
    unsigned long long least = HEARTBEATS * definition_number(found, "heartbeat_ms", 0);
    uint64_t timeout = definition_number(found, "timeout_ms", UINT64_MAX);

    if (timeout < least)
        definition_wrong(reader, definition_place(found, "timeout_ms"),
                         "is %llu, and %d heartbeats are %llu", (unsigned long long)timeout,
                         HEARTBEATS, least);
    check_peers(reader, found);
    check_links(reader, found);
    if (!is_good(found, "witness") || strncmp(ft->witness, "file:", 5) != 0)
        return;
    const char *path = definition_whole_path(reader, definition_place(found, "witness"),
                                             ft->witness + 5);
    char *whole = path ? definition_allocate(reader, strlen(path) + 6) : NULL;
    if (whole)
        ft->witness = strcat(strcpy(whole, "file:"), path);
}

/* --- the whole ------------------------------------------------------------------------------ */

static uint32_t place_in(const struct definition_reader *reader,
                         const struct definition_found *found, const char *list, unsigned index,
                         const char *key)
{
    uint32_t item = json_places_item(&reader->places, definition_place(found, list),
                                     (uint32_t)index);
    return json_places_member(&reader->places, item, key);
}

static uint32_t line_of(const struct definition_reader *reader, uint32_t place)
{
    return reader->places.at[place].value.line;
}

/* Past "./" and doubled slashes, which make no difference. */
static const char *skip_nothing(const char *path, bool begins)
{
    while (begins && (path[0] == '/' || (path[0] == '.' && (path[1] == '/' || !path[1]))))
        path++;
    return path;
}

static bool same_path(const char *a, const char *b)
{
    bool begins = false;
    for (;;) {
        a = skip_nothing(a, begins);
        b = skip_nothing(b, begins);
        if (*a != *b || !*a)
            return *a == *b;
        begins = *a == '/';
        a++;
        b++;
    }
}

/* A guest writes to its disks. */
static bool is_of_the_folder(const struct definition_reader *reader, const char *path)
{
    static const char *const names[] = {FOLDER_DEFINITION, FOLDER_IDENTITY, FOLDER_CONSOLE,
                                        FOLDER_JOURNAL, FOLDER_LOG};
    char ours[PATH_MAX];
    for (size_t i = 0; i < array_size(names); i++) {
        snprintf(ours, sizeof(ours), "%s/%s", reader->folder, names[i]);
        if (same_path(path, ours))
            return true;
    }
    return false;
}

static void check_files(struct definition_reader *reader, const struct definition_found *found)
{
    const struct definition *definition = reader->definition;
    for (unsigned i = 0; i < definition->disk_count; i++) {
        const char *path = definition->disks[i].path;
        if (path && is_of_the_folder(reader, path))
            definition_wrong(reader, place_in(reader, found, "disks", i, "file"),
                             "is a file in which minivmm keeps what it knows of the VM");
    }
    for (unsigned i = 1; i < definition->disk_count; i++) {
        for (unsigned j = 0; j < i; j++) {
            const char *path = definition->disks[i].path, *other = definition->disks[j].path;
            if (!path || !other || !same_path(path, other))
                continue;
            uint32_t first = place_in(reader, found, "disks", j, "file");
            definition_wrong(reader, place_in(reader, found, "disks", i, "file"),
                             "is the file of disks[%u] too, in line %u", j, line_of(reader, first));
            break;
        }
    }
}

static void check_macs(struct definition_reader *reader, const struct definition_found *found)
{
    static const uint8_t none[6];
    const struct definition *definition = reader->definition;
    for (unsigned i = 1; i < definition->net_count; i++) {
        const uint8_t *mac = definition->nets[i].mac;
        unsigned j = 0;
        while (j < i && memcmp(mac, definition->nets[j].mac, sizeof(none)) != 0)
            j++;
        if (j == i || memcmp(mac, none, sizeof(none)) == 0)
            continue;
        uint32_t first = place_in(reader, found, "nets", j, "mac");
        definition_wrong(reader, place_in(reader, found, "nets", i, "mac"),
                         "is the address of nets[%u] too, in line %u", j, line_of(reader, first));
    }
}

/* Forwards of all interfaces, in one row. */
struct row {
    const struct netif_forward *forward[MACHINE_MAX_NETS * NETIF_MAX_FORWARDS];
    uint32_t place[MACHINE_MAX_NETS * NETIF_MAX_FORWARDS];
    unsigned count;
};

static void check_forward(struct definition_reader *reader, const struct row *row, unsigned i)
{
    for (unsigned j = 0; j < i; j++) {
        if (!row->forward[i]->host_port || !netif_forward_collide(row->forward[i], row->forward[j]))
            continue;
        definition_wrong(reader, row->place[i], "takes port %u of this host, which line %u has",
                         row->forward[i]->host_port, line_of(reader, row->place[j]));
        return;
    }
}

static void check_forwards(struct definition_reader *reader, const struct definition_found *found)
{
    const struct definition *definition = reader->definition;
    struct row row = {.count = 0};
    for (unsigned i = 0; i < definition->net_count; i++) {
        const struct netif_config *net = &definition->nets[i];
        uint32_t list = place_in(reader, found, "nets", i, "forwards");
        uint32_t place = json_places_item(&reader->places, list, 0);
        for (unsigned j = 0; j < net->forward_count && place != JSON_NOWHERE; j++) {
            row.forward[row.count] = &net->forwards[j];
            row.place[row.count++] = place;
            check_forward(reader, &row, row.count - 1);
            place = reader->places.at[place].next;
        }
    }
}

/* "none" is for a VM without a network. */
static void check_none(struct definition_reader *reader, const struct definition_found *found)
{
    struct definition *definition = reader->definition;
    for (unsigned i = 0; i < definition->net_count; i++)
        if (definition->nets[i].mode == NETIF_NONE && definition->net_count > 1)
            definition_wrong(reader, place_in(reader, found, "nets", i, "mode"),
                             "\"none\" does not go with another interface");
    if (definition->net_count == 1 && definition->nets[0].mode == NETIF_NONE)
        definition->net_count = 0;
}

static void check_memory(struct definition_reader *reader, const struct definition_found *found)
{
    enum { PAGE = 4096 };
    struct definition *definition = reader->definition;
    definition->memory &= ~(uint64_t)(PAGE - 1);
    if (definition->balloon >= definition->memory && is_good(found, "balloon") &&
        !definition_is_bad(found, "memory"))
        definition_wrong(reader, definition_place(found, "balloon"),
                         "takes all the memory there is (%llu MiB)",
                         (unsigned long long)definition->memory >> 20);
}

void definition_check_root(struct definition_reader *reader, const struct definition_found *found)
{
    const struct definition *definition = reader->definition;
    if (definition->disk_count == 0 && !is_said(found, "boot") &&
        !definition_is_bad(found, "disks"))
        definition_wrong(reader, found->place,
                         "has nothing to boot; name a disk: \"disks\": [{\"file\": \"disk.img\"}]");
    else if (definition->disk_count == 0 && is_good(found, "boot") && !definition->kernel)
        definition_wrong(reader, definition_place(found, "boot"),
                         "names no kernel, and there is no disk");
    if (definition->has_seed && definition->disk_count == MACHINE_MAX_DISKS)
        definition_wrong(reader,
                         json_places_item(&reader->places, definition_place(found, "disks"),
                                          MACHINE_MAX_DISKS - 1),
                         "is one too many; the seed takes the last of the %d places",
                         MACHINE_MAX_DISKS);
    check_memory(reader, found);
    check_files(reader, found);
    check_macs(reader, found);
    check_forwards(reader, found);
    check_none(reader, found);
}
