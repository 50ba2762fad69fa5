/* SPDX-License-Identifier: MIT */
/* --seed user=NAME,key=FILE: an account for a cloud image, told by a disk that is made in memory.
 */
#include "cli/run_devices.h"

#include "cli/words.h"
#include "host/seed.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_key_itself(const char *text)
{
    return strncmp(text, "ssh-", 4) == 0 || strncmp(text, "ecdsa-", 6) == 0 ||
           strncmp(text, "sk-", 3) == 0;
}

/* "~/.ssh/id.pub" is the shell's to understand, which in the middle of a word it does not do. */
static const char *at_home(const char *name, char path[PATH_MAX])
{
    const char *home = getenv("HOME");
    if (strncmp(name, "~/", 2) != 0 || !home)
        return name;
    snprintf(path, PATH_MAX, "%s%s", home, name + 1);
    return path;
}

/* The public key, or a file that holds one or more. */
static int take_key(struct run_devices *devices, const char *value, struct err *err)
{
    if (!value[0])
        return err_say(err, ERR_USAGE, EINVAL, "--seed: key needs a file or a public key");
    if (is_key_itself(value)) {
        devices->seed_key = strdup(value);
        return devices->seed_key ? 0 : err_sys(err, ERR_HOST, ENOMEM, "--seed");
    }
    char path[PATH_MAX];
    int ret = seed_read_keys(at_home(value, path), &devices->seed_key, err);
    if (ret == -EINVAL)
        err->kind = ERR_USAGE;
    if (ret < 0)
        err_prefix(err, "--seed");
    return ret;
}

int run_devices_set_seed(struct run_devices *devices, const char *text, struct err *err)
{
    enum { USER, KEY, PASSWORD, HOSTNAME };
    static const char *const keys[] = {"user", "key", "password", "hostname", NULL};

    if (devices->has_seed)
        return err_say(err, ERR_USAGE, EINVAL, "--seed can be given once");
    devices->has_seed = true;
    char *at = run_devices_keep(devices, text);
    unsigned said = 0;
    if (!at)
        return err_sys(err, ERR_HOST, ENOMEM, "--seed");
    while (at) {
        char *key = words_cut(&at);
        const char *value = words_value(key);
        int what = words_find(keys, key);
        if (what < 0)
            return words_unknown("--seed", "option", key, keys, err);
        if (said & 1u << what)
            return err_say(err, ERR_USAGE, EINVAL, "--seed: %s is given twice", key);
        said |= 1u << what;
        int ret = words_check_value("--seed", key, value, false, err);
        if (ret == 0 && what == KEY)
            ret = take_key(devices, value, err);
        if (ret < 0)
            return ret;
        if (what == USER)
            devices->seed.user = value;
        else if (what == PASSWORD)
            devices->seed.password = value;
        else if (what == HOSTNAME)
            devices->seed.hostname = value;
    }
    if (!devices->seed_key && !devices->seed.password) {
        int ret = err_say(err, ERR_USAGE, EINVAL, "--seed: nobody could log in");
        err_hint(err, "name a public key: --seed user=NAME,key=FILE.pub");
        return ret;
    }
    return 0;
}

/* FNV-1a of 64 bits. */
static uint64_t hash(uint64_t sum, const char *text)
{
    for (const char *at = text ? text : ""; *at; at++)
        sum = (sum ^ (uint8_t)*at) * 0x100000001b3;
    return (sum ^ 0xff) * 0x100000001b3;
}

/*
 * cloud-init does its work once for each instance. The same seed is the same instance, so that a
 * disk which is run again with it does not begin anew. Everybody in the guest can read the
 * instance's name: so the password has no part in it.
 */
static void name_instance(struct seed_config *seed)
{
    for (uint64_t half = 0; half < 2; half++) {
        uint64_t sum = 0xcbf29ce484222325 + half;
        sum = hash(sum, seed->user);
        sum = hash(sum, seed->key);
        sum = hash(sum, seed->password ? "password" : NULL);
        sum = hash(sum, seed->hostname);
        memcpy(seed->instance + 8 * half, &sum, sizeof(sum));
    }
}

void run_devices_finish_seed(struct run_devices *devices)
{
    devices->seed.key = devices->seed_key;
    name_instance(&devices->seed);
}
