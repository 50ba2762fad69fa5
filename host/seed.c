/* SPDX-License-Identifier: MIT */
/*
 * What a seed says. It is an ISO 9660 file system (iso.c) with the label "cidata" and two files,
 * which cloud-init reads as YAML:
 *
 *   meta-data     instance-id: "minivmm-00112233-..."     cloud-init begins anew when it is another
 *                 local-hostname: "web1"                  where one is given
 *
 *   user-data     #cloud-config
 *                 hostname: "web1"
 *                 ssh_pwauth: true                        with a password and no key
 *                 users:                                  with a user: he alone, not the image's
 *                   - name: "anna"
 *                     shell: "/bin/bash"
 *                     sudo: "ALL=(ALL) NOPASSWD:ALL"      not root, who has `disable_root: false`
 *                     lock_passwd: false
 *                     plain_text_passwd: "..."            cloud-init makes a hash of it
 *                     ssh_authorized_keys:
 *                       - "ssh-ed25519 AAAA... anna@home"
 *                 password: "..."                         without a user: for the image's own
 *                 chpasswd: {expire: false}
 *                 ssh_authorized_keys: [...]
 *
 * Rules:
 *  1. Every value is written between double quotes, and all but printable ASCII as \u escapes:
 *     no value can become YAML of its own.
 *  2. Control characters and what is no UTF-8 are refused.
 *  3. A user and a host have names as Linux takes them; a key is a public key, whose base64 part
 *     begins with the name of its kind.
 *  4. There is no network-config: cloud-init then asks for an address by DHCP.
 */
#include "host/seed.h"

#include "host/iso.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USER_MAX = 32, HOST_MAX = 64, KIND_MAX = 64, KEY_FILE_MAX = 64 << 10 };

/* Text as YAML. */

/* Of the character that begins so, in bytes; 0: none does. */
static unsigned sequence_length(uint8_t byte)
{
    if (byte < 0x80)
        return 1;
    if (byte < 0xc0)
        return 0;
    if (byte < 0xe0)
        return 2;
    if (byte < 0xf0)
        return 3;
    return byte < 0xf8 ? 4 : 0;
}

/* The character at *at, which goes on; 0 at the end; -1: not UTF-8. */
static int32_t next_character(const char **at)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* for a length: no detours */
    const uint8_t *bytes = (const uint8_t *)*at;
    unsigned length = sequence_length(bytes[0]);

    if (length == 0)
        return -1;
    int32_t character = length == 1 ? bytes[0] : bytes[0] & (0x7f >> length);
    for (unsigned i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return -1;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    if (character < least[length] || character > 0x10ffff ||
        (character >= 0xd800 && character <= 0xdfff))
        return -1;
    *at += character ? length : 0;
    return character;
}

static int check_text(const char *what, const char *text, struct err *err)
{
    int32_t character;

    if (!text[0])
        return err_say(err, ERR_USAGE, EINVAL, "the seed's %s is empty", what);
    while ((character = next_character(&text)) != 0) {
        if (character < 0)
            return err_say(err, ERR_USAGE, EINVAL, "the seed's %s is not UTF-8", what);
        if (character < ' ' || (character >= 0x7f && character < 0xa0))
            return err_say(err, ERR_USAGE, EINVAL, "the seed's %s holds a control character", what);
    }
    return 0;
}

/* Checked before. */
static void write_quoted(FILE *out, const char *text)
{
    int32_t character;

    fputc('"', out);
    while ((character = next_character(&text)) > 0) {
        if (character == '"' || character == '\\')
            fprintf(out, "\\%c", (int)character);
        else if (character < 0x7f)
            fputc((int)character, out);
        else if (character < 0x10000)
            fprintf(out, "\\u%04X", (unsigned)character);
        else
            fprintf(out, "\\U%08X", (unsigned)character);
    }
    fputc('"', out);
}

static void write_value(FILE *out, const char *key, const char *text)
{
    fprintf(out, "%s: ", key);
    write_quoted(out, text);
    fputc('\n', out);
}

/* Names. */

bool seed_is_user(const char *name)
{
    if (!islower((unsigned char)name[0]) && name[0] != '_')
        return false;
    for (const char *at = name; *at; at++)
        if (!islower((unsigned char)*at) && !isdigit((unsigned char)*at) && !strchr("_-.", *at))
            return false;
    return strlen(name) <= USER_MAX;
}

/* Labels of letters, digits and hyphens, with points between them. */
bool seed_is_hostname(const char *name)
{
    char before = '.';

    for (const char *at = name; *at; before = *at++) {
        bool inside = isalnum((unsigned char)*at);
        if (!inside && (before == '.' || before == '-') && !(*at == '-' && before == '-'))
            return false;
        if (!inside && *at != '-' && *at != '.')
            return false;
    }
    return isalnum((unsigned char)before) && strlen(name) <= HOST_MAX;
}

static int check_names(const struct seed_config *config, struct err *err)
{
    if (config->user && !seed_is_user(config->user)) {
        int r = err_say(err, ERR_USAGE, EINVAL, "the seed's user \"%.40s\" is no user's name",
                        config->user);
        err_hint(err, "a small letter, then small letters, digits, - and _, 32 at most");
        return r;
    }
    if (config->hostname && !seed_is_hostname(config->hostname)) {
        int r = err_say(err, ERR_USAGE, EINVAL, "the seed's hostname \"%.70s\" is no host's name",
                        config->hostname);
        err_hint(err, "letters, digits and hyphens, with points between, 64 at most");
        return r;
    }
    return config->password ? check_text("password", config->password, err) : 0;
}

/* Keys. */

/* The value of a base64 digit; -1: none. */
static int digit_value(char digit)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "0123456789+/";
    const char *at = digit ? strchr(digits, digit) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* The first bytes of what base64 says; how many there were. */
static size_t decode(const char *text, uint8_t *to, size_t room)
{
    size_t length = 0;
    uint32_t bits = 0;
    unsigned count = 0;

    for (; length < room && digit_value(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)digit_value(*text);
        count += 6;
        if (count >= 8) {
            count -= 8;
            to[length++] = (uint8_t)(bits >> count);
        }
    }
    return length;
}

/* "KIND BASE64 [COMMENT]", where the base64 part begins with the length and the letters of KIND. */
static bool is_key(const char *line)
{
    uint8_t head[4 + KIND_MAX];
    size_t kind = strcspn(line, " \t");
    const char *base64 = line + kind + strspn(line + kind, " \t");
    size_t digits = 0;

    while (digit_value(base64[digits]) >= 0)
        digits++;
    while (base64[digits] == '=')
        digits++;
    if (kind == 0 || kind > KIND_MAX || digits < 32 || (base64[digits] && base64[digits] != ' '))
        return false;
    return decode(base64, head, 4 + kind) == 4 + kind && !head[0] && !head[1] && !head[2] &&
           head[3] == kind && memcmp(head + 4, line, kind) == 0;
}

static int check_key(const char *line, struct err *err)
{
    if (strncmp(line, "-----BEGIN", 10) == 0) {
        int r = err_say(err, ERR_USAGE, EINVAL, "the seed's key is a private key");
        err_hint(err, "the public one is wanted; its file ends in .pub");
        return r;
    }
    int r = check_text("key", line, err);
    if (r == 0 && !is_key(line)) {
        r = err_say(err, ERR_USAGE, EINVAL, "the seed's key \"%.30s...\" is no public ssh key",
                    line);
        err_hint(err, "such a line begins with ssh-ed25519, ssh-rsa or ecdsa-sha2-nistp256");
    }
    return r;
}

/* A line without its end and the spaces around it, cut out of *at; NULL after the last. */
static char *next_line(char **at)
{
    if (!*at)
        return NULL;
    char *line = *at + strspn(*at, " \t"), *newline = strchr(line, '\n');
    char *end = newline ? newline : line + strlen(line);

    *at = newline ? newline + 1 : NULL;
    while (end > line && strchr(" \t\r", end[-1]))
        end--;
    *end = '\0';
    return line;
}

/* Lines that are empty or a comment are allowed, as in authorized_keys. */
static int write_keys(FILE *out, const char *keys, const char *indent, struct err *err)
{
    char *copy = strdup(keys), *at = copy, *line;
    unsigned count = 0;
    int r = copy ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot make a seed");

    fprintf(out, "%sssh_authorized_keys:\n", indent);
    while (r == 0 && (line = next_line(&at))) {
        if (!line[0] || line[0] == '#')
            continue;
        r = check_key(line, err);
        if (r < 0)
            break;
        fprintf(out, "%s  - ", indent);
        write_quoted(out, line);
        fputc('\n', out);
        count++;
    }
    free(copy);
    if (r == 0 && count == 0)
        r = err_say(err, ERR_USAGE, EINVAL, "the seed's keys are empty");
    return r;
}

/* The two files. */

static int write_meta_data(FILE *out, const struct seed_config *config, struct err *err)
{
    fprintf(out, "instance-id: \"minivmm-");
    for (unsigned i = 0; i < sizeof(config->instance); i++)
        fprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                config->instance[i]);
    fprintf(out, "\"\n");
    if (config->hostname)
        write_value(out, "local-hostname", config->hostname);
    return 0;
}

static int write_user(FILE *out, const struct seed_config *config, struct err *err)
{
    bool root = strcmp(config->user, "root") == 0;

    if (root)
        fprintf(out, "disable_root: false\n");
    fprintf(out, "users:\n");
    write_value(out, "  - name", config->user);
    write_value(out, "    shell", "/bin/bash");
    if (!root)
        write_value(out, "    sudo", "ALL=(ALL) NOPASSWD:ALL");
    fprintf(out, "    lock_passwd: %s\n", config->password ? "false" : "true");
    if (config->password)
        write_value(out, "    plain_text_passwd", config->password);
    return config->key ? write_keys(out, config->key, "    ", err) : 0;
}

static int write_user_data(FILE *out, const struct seed_config *config, struct err *err)
{
    fprintf(out, "#cloud-config\n");
    if (config->hostname)
        write_value(out, "hostname", config->hostname);
    if (config->password && !config->key)
        fprintf(out, "ssh_pwauth: true\n");
    if (config->user)
        return write_user(out, config, err);
    if (config->password) {
        write_value(out, "password", config->password);
        fprintf(out, "chpasswd: {expire: false}\n");
    }
    return config->key ? write_keys(out, config->key, "", err) : 0;
}

static int make_file(int (*write)(FILE *out, const struct seed_config *config, struct err *err),
                     const struct seed_config *config, char **ret_text, size_t *ret_length,
                     struct err *err)
{
    FILE *out = open_memstream(ret_text, ret_length);

    if (!out)
        return err_sys(err, ERR_HOST, errno, "cannot make a seed");
    int r = write(out, config, err);
    if (fclose(out) != 0 && r == 0)
        r = err_sys(err, ERR_HOST, ENOMEM, "cannot make a seed");
    return r;
}

int seed_make(const struct seed_config *config, void **ret_bytes, size_t *ret_size, struct err *err)
{
    char *meta = NULL, *user = NULL;
    size_t meta_length = 0, user_length = 0;
    int r = check_names(config, err);

    if (r == 0)
        r = make_file(write_meta_data, config, &meta, &meta_length, err);
    if (r == 0)
        r = make_file(write_user_data, config, &user, &user_length, err);
    if (r == 0) {
        const struct iso_file files[] = {{"meta-data", "META_DAT.;1", meta, meta_length},
                                         {"user-data", "USER_DAT.;1", user, user_length}};
        r = iso_make("cidata", files, array_size(files), ret_bytes, ret_size);
        if (r < 0)
            err_sys(err, ERR_HOST, -r, "cannot make a seed");
    }
    free(meta);
    free(user);
    return r;
}

/* Files of keys. */

int seed_read_keys(const char *path, char **ret_keys, struct err *err)
{
    FILE *file = fopen(path, "re");

    if (!file) {
        int r = err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno,
                        "cannot read the key file %s", path);
        err_hint(err, "ssh-keygen makes a pair of keys; the public one ends in .pub");
        return r;
    }
    char *text = calloc(1, KEY_FILE_MAX + 2);
    errno = 0;
    size_t length = text ? fread(text, 1, KEY_FILE_MAX + 1, file) : 0;
    int error = !text ? ENOMEM : !ferror(file) ? 0 : errno ? errno : EIO;
    fclose(file);
    if (error == 0 && length <= KEY_FILE_MAX && strlen(text) == length) {
        *ret_keys = text;
        return 0;
    }
    free(text);
    return error ? err_sys(err, ERR_FAILED, error, "cannot read the key file %s", path)
                 : err_say(err, ERR_DEFINITION, EINVAL, "%s is no file of public keys", path);
}
