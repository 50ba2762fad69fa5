/* SPDX-License-Identifier: MIT */
/*
 * The address of an etcd, and the file with what must be in no address:
 *
 *   {"ca": "ca.pem",                            who has signed the servers' certificates
 *    "cert": "client.pem", "key": "client.key", ours, where they want one
 *    "user": "minivmm", "password": "..."}
 *
 * It is ~/.config/minivmm/etcd.json ($XDG_CONFIG_HOME), else /etc/minivmm/etcd.json, and only its
 * owner may read it. Paths in it go from its own folder.
 *
 * Rules: 1. Each key is one of these, and text. 2. "cert" and "key", "user" and "password" come
 * together. 3. https wants "ca": an address may come from another host, and what this one trusts
 * besides must not be enough to be told a password. 4. For the same reason a password goes over
 * plain http to this host itself only. 5. With "ca", "//HOST" is https, and without it http.
 */
#include "ft/witness_etcd_parts.h"

#include "core/words.h"
#include "host/secret_file.h"
#include "host/small_file.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PORT = 2379, FILE_MAX = 16384, PEM_MAX = 1 << 20 };

#define SYSTEM_FILE "/etc/minivmm/etcd.json"

/* --- the address ------------------------------------------------------------------------------ */

/* Whether they are plain, or not, or as the file has it. */
enum way { WAY_BY_FILE, WAY_PLAIN, WAY_TLS };

static bool begins(const char **text, const char *with)
{
    size_t length = strlen(with);

    if (strncmp(*text, with, length) != 0)
        return false;
    *text += length;
    return true;
}

/* One server of the list. */
static bool take_server(struct http_server *ret_server, const char *text, size_t length)
{
    if (length > 0 && text[length - 1] == '/')
        length--;
    return http_server_parse(ret_server, text, length, PORT) == 0;
}

static bool take_address(struct etcd_config *config, enum way ways[HTTP_SERVERS],
                         const char *address)
{
    bool is_short = begins(&address, "//");

    for (;; address++) {
        enum way way = is_short                       ? WAY_BY_FILE
                       : begins(&address, "https://") ? WAY_TLS
                       : begins(&address, "http://")  ? WAY_PLAIN
                                                      : WAY_BY_FILE;
        size_t length = strcspn(address, ",");
        if ((!is_short && way == WAY_BY_FILE) || config->count == HTTP_SERVERS ||
            !take_server(&config->servers[config->count], address, length))
            return false;
        ways[config->count++] = way;
        address += length;
        if (!*address)
            return true;
    }
}

/* --- the file --------------------------------------------------------------------------------- */

static int say_wrong(const struct etcd_config *config, const char *what, struct err *err)
{
    return err_say(err, ERR_DEFINITION, EINVAL, "%.250s: %s", config->path, what);
}

/* From the folder of the file; NULL: no memory. */
static char *path_beside(const struct etcd_config *config, const char *path)
{
    const char *slash = strrchr(config->path, '/');
    char *whole;

    if (path[0] == '/' || !slash)
        return strdup(path);
    return asprintf(&whole, "%.*s/%s", (int)(slash - config->path), config->path, path) < 0 ? NULL
                                                                                            : whole;
}

static int read_public(const char *path, char **ret_text, struct err *err)
{
    size_t length;

    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int r = fd < 0 ? -errno : small_file_read(fd, PEM_MAX, ret_text, &length);
    if (fd >= 0)
        close(fd);
    return r < 0 ? err_sys(err, ERR_DEFINITION, -r, "cannot read the certificate %.250s", path) : 0;
}

static int read_pem(const struct etcd_config *config, const json_t *root, const char *name,
                    const char **ret_text, struct err *err)
{
    const char *said = json_string_value(json_object_get(root, name));
    char *text = NULL;
    size_t length;

    if (!said)
        return 0;
    char *path = path_beside(config, said);
    int r = !path ? err_sys(err, ERR_HOST, ENOMEM, "cannot read %.250s", config->path)
            : strcmp(name, "key") == 0
                ? secret_file_read(path, "the key", PEM_MAX, &text, &length, err)
                : read_public(path, &text, err);
    free(path);
    *ret_text = text;
    return r;
}

static int check_keys(const struct etcd_config *config, const json_t *root, struct err *err)
{
    static const char *const known[] = {"ca", "cert", "key", "user", "password", NULL};
    static const char *const pairs[][2] = {{"cert", "key"}, {"user", "password"}};
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)root, name, value)
    {
        int r = 0;
        if (words_find(known, name) < 0) {
            r = err_say(err, ERR_DEFINITION, EINVAL, "%.250s: nobody knows \"%.40s\"", config->path,
                        name);
            const char *nearest = words_nearest(known, name);
            if (nearest)
                err_hint(err, "did you mean \"%s\"?", nearest);
        } else if (!json_is_string(value) || !*json_string_value(value)) {
            r = err_say(err, ERR_DEFINITION, EINVAL, "%.250s: \"%s\" is no text", config->path,
                        name);
        }
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < array_size(pairs); i++)
        if (!json_object_get(root, pairs[i][0]) != !json_object_get(root, pairs[i][1]))
            return err_say(err, ERR_DEFINITION, EINVAL, "%.250s: \"%s\" and \"%s\" go together",
                           config->path, pairs[i][0], pairs[i][1]);
    return 0;
}

static char *copy_text(const json_t *root, const char *name)
{
    const char *text = json_string_value(json_object_get(root, name));

    return text ? strdup(text) : NULL;
}

static int take_file(struct etcd_config *config, const char *text, size_t length, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);

    if (!json_is_object(root)) {
        json_decref(root);
        return say_wrong(config, root ? "is no object of JSON" : "is no JSON", err);
    }
    int r = check_keys(config, root, err);
    if (r == 0)
        r = read_pem(config, root, "ca", &config->trust.ca, err);
    if (r == 0)
        r = read_pem(config, root, "cert", &config->trust.cert, err);
    if (r == 0)
        r = read_pem(config, root, "key", &config->trust.key, err);
    if (r == 0 && json_object_get(root, "user")) {
        config->user = copy_text(root, "user");
        config->password = copy_text(root, "password");
        if (!config->user || !config->password)
            r = err_sys(err, ERR_HOST, ENOMEM, "cannot read %.250s", config->path);
    }
    json_decref(root);
    return r;
}

/* The person's own, else the host's. -ENOENT: neither is there. */
static int read_file(struct etcd_config *config, char **ret_text, size_t *ret_length,
                     struct err *err)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char *own = NULL;
    int r = -ENOENT;

    if (base && base[0] == '/')
        r = asprintf(&own, "%s/minivmm/etcd.json", base) < 0 ? -ENOMEM : -ENOENT;
    else if (home && home[0] == '/')
        r = asprintf(&own, "%s/.config/minivmm/etcd.json", home) < 0 ? -ENOMEM : -ENOENT;
    if (r == -ENOMEM)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot look for etcd.json");
    if (own)
        r = secret_file_read(own, "the file", FILE_MAX, ret_text, ret_length, err);
    if (r != -ENOENT) {
        config->path = own;
        return r;
    }
    free(own);
    config->path = strdup(SYSTEM_FILE);
    if (!config->path)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot look for etcd.json");
    r = secret_file_read(SYSTEM_FILE, "the file", FILE_MAX, ret_text, ret_length, err);
    if (r == -ENOENT) {
        free(config->path);
        config->path = NULL;
    }
    return r;
}

static int read_config(struct etcd_config *config, struct err *err)
{
    size_t length;
    char *text;

    int r = read_file(config, &text, &length, err);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    r = take_file(config, text, length, err);
    secret_file_free(text, length);
    return r;
}

/* --- both ------------------------------------------------------------------------------------- */

/* Rules 3 to 5. */
static int check_ways(struct etcd_config *config, const enum way ways[HTTP_SERVERS],
                      struct err *err)
{
    char name[300];
    int r = 0;

    for (size_t i = 0; i < config->count && r == 0; i++) {
        struct http_server *server = &config->servers[i];
        server->tls = ways[i] == WAY_TLS || (ways[i] == WAY_BY_FILE && config->trust.ca);
        http_server_name(server, name, sizeof(name));
        if (server->tls && !config->trust.ca) {
            r = err_say(err, ERR_DEFINITION, EINVAL,
                        "witness: whose certificate https://%.150s must have is not said", name);
            err_hint(err, "{\"ca\": \"FILE.pem\"} in %.150s, mode 600",
                     config->path ? config->path : "~/.config/minivmm/etcd.json");
        } else if (!server->tls && config->user && !http_server_is_local(server)) {
            r = err_say(err, ERR_DEFINITION, EPERM,
                        "witness: the password for etcd would go to %.150s for everybody to read",
                        name);
            err_hint(err, "\"ca\" in %.120s, and etcd://... or https://... as the address",
                     config->path);
        }
    }
    return r;
}

int etcd_config_read(struct etcd_config *ret_config, const char *address, struct err *err)
{
    struct etcd_config config = {.count = 0};
    enum way ways[HTTP_SERVERS];

    if (!take_address(&config, ways, address)) {
        int r = err_say(err, ERR_USAGE, EINVAL, "\"etcd:%.200s\" is no address of an etcd",
                        address);
        err_hint(err, "etcd://HOST[:PORT],HOST[:PORT]... names up to %d of its members",
                 HTTP_SERVERS);
        return r;
    }
    int r = read_config(&config, err);
    if (r == 0)
        r = check_ways(&config, ways, err);
    if (r < 0)
        etcd_config_finish(&config);
    else
        *ret_config = config;
    return r;
}

static void forget(const char *text)
{
    secret_file_free((char *)(uintptr_t)text, text ? strlen(text) : 0);
}

void etcd_config_finish(struct etcd_config *config)
{
    forget(config->path);
    forget(config->user);
    forget(config->password);
    forget(config->trust.ca);
    forget(config->trust.cert);
    forget(config->trust.key);
    *config = (struct etcd_config){.count = 0};
}
