/* SPDX-License-Identifier: MIT */
/*
 * etcd's v3 API as its gateway writes it in JSON: keys and values are base64, 64-bit numbers are
 * texts, and what is 0, false or empty is left out. An answer is somebody's bytes:
 *
 *  1. It is one object with a "header" that has a "cluster_id": else it is none of an etcd.
 *  2. Of a range there is no key, or the one that was asked for, with a mod_revision of 1 to 2^63-1
 *     and a value that can be a record by its length.
 *  3. Of a transaction that has not succeeded there is one answer, of a range.
 *  4. Base64 is as RFC 4648 writes it, with all of its padding.
 *  5. A token is visible ASCII: it goes into a header.
 */
#include "ft/witness_etcd_parts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENCODED(bytes) (((bytes) + 2) / 3 * 4)
#define NO_ETCD        "is none of an etcd"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void encode(const char *bytes, size_t length, char *ret_text)
{
    for (size_t i = 0; i < length; i += 3) {
        size_t n = length - i < 3 ? length - i : 3;
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (j < n ? (uint8_t)bytes[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            *ret_text++ = '=';
        for (size_t j = 0; j <= n; j++)
            ret_text[(ptrdiff_t)j - 4] = digits[bits >> (18 - 6 * j) & 63];
    }
    *ret_text = 0;
}

/* False: it is no base64, or of more than `size` bytes. */
static bool decode(const char *text, char *ret_bytes, size_t size, size_t *ret_length)
{
    size_t characters = strlen(text), length = characters / 4 * 3;
    char again[ENCODED(WITNESS_TEXT_MAX) + 1];

    if (characters % 4 || characters >= sizeof(again))
        return false;
    if (characters && text[characters - 1] == '=')
        length -= text[characters - 2] == '=' ? 2 : 1;
    if (length > size)
        return false;
    for (size_t i = 0; i < length; i++) {
        const char *group = text + i / 3 * 4 + i % 3;
        const char *high = strchr(digits, group[0]), *low = strchr(digits, group[1]);
        unsigned left = high && *high ? (unsigned)(high - digits) : 0;
        unsigned right = low && *low ? (unsigned)(low - digits) : 0;
        ret_bytes[i] = (char)(left << (2 + 2 * (i % 3)) | right >> (4 - 2 * (i % 3)));
    }
    encode(ret_bytes, length, again); /* there is one way to write each */
    *ret_length = length;
    return strcmp(again, text) == 0;
}

void etcd_text_key(const uint8_t u[16], char ret_key[ETCD_KEY])
{
    snprintf(ret_key, ETCD_KEY,
             ETCD_PLACE "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15]);
}

/* --- questions -------------------------------------------------------------------------------- */

/* Without "serializable": what is read is what the majority has now. */
char *etcd_text_range(const char *key)
{
    char encoded[ENCODED(ETCD_KEY) + 1], *text;

    encode(key, strlen(key), encoded);
    return asprintf(&text, "{\"key\":\"%s\"}", encoded) < 0 ? NULL : text;
}

char *etcd_text_probe(const char *key)
{
    char encoded[ENCODED(ETCD_KEY) + 1], *text;

    encode(key, strlen(key), encoded);
    return asprintf(&text,
                    "{\"compare\":[{\"key\":\"%s\",\"target\":\"VERSION\",\"result\":\"LESS\","
                    "\"version\":\"0\"}],\"success\":[{\"request_put\":{\"key\":\"%s\"}}],"
                    "\"failure\":[{\"request_range\":{\"key\":\"%s\"}}]}",
                    encoded, encoded, encoded) < 0
               ? NULL
               : text;
}

/* The revision alone would do, but for an etcd that was brought back from a copy: its count of
 * revisions goes back, and the same number comes a second time. The text of a record does not. */
static int format_compare(char **ret_text, const char *key, const struct etcd_found *found)
{
    char value[ENCODED(WITNESS_TEXT_MAX) + 1];

    if (!found->mod_revision)
        return asprintf(ret_text,
                        "{\"key\":\"%s\",\"target\":\"CREATE\",\"result\":\"EQUAL\","
                        "\"create_revision\":\"0\"}",
                        key);
    encode(found->bytes, found->length, value);
    return asprintf(ret_text,
                    "{\"key\":\"%s\",\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":"
                    "\"%llu\"},{\"key\":\"%s\",\"target\":\"VALUE\",\"result\":\"EQUAL\","
                    "\"value\":\"%s\"}",
                    key, (unsigned long long)found->mod_revision, key, value);
}

char *etcd_text_exchange(const char *key, const struct etcd_found *found, const char *value,
                         size_t length)
{
    char encoded[ENCODED(ETCD_KEY) + 1], put[ENCODED(WITNESS_TEXT_MAX) + 1];
    char *compare, *text;

    encode(key, strlen(key), encoded);
    encode(value, length, put);
    if (format_compare(&compare, encoded, found) < 0)
        return NULL;
    int n = asprintf(&text,
                     "{\"compare\":[%s],\"success\":[{\"request_put\":{\"key\":\"%s\",\"value\":"
                     "\"%s\"}}],\"failure\":[{\"request_range\":{\"key\":\"%s\"}}]}",
                     compare, encoded, put, encoded);
    free(compare);
    return n < 0 ? NULL : text;
}

char *etcd_text_login(const char *user, const char *password)
{
    json_t *root = json_pack("{s:s, s:s}", "name", user, "password", password);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

    json_decref(root);
    return text;
}

/* --- answers ---------------------------------------------------------------------------------- */

/* NULL: it is none of an etcd. */
static json_t *load(const char *body, size_t length)
{
    json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);

    if (json_is_string(json_object_get(json_object_get(root, "header"), "cluster_id")))
        return root;
    json_decref(root);
    return NULL;
}

/* 0: it is no number from 1 to 2^63 - 1. */
static uint64_t take_number(const json_t *value)
{
    const char *text = json_string_value(value);
    size_t length = text ? strlen(text) : 0;

    if (length == 0 || length > 19 || text[0] == '0' || strspn(text, "0123456789") != length)
        return 0;
    uint64_t number = strtoull(text, NULL, 10);
    return number <= INT64_MAX ? number : 0;
}

static const char *take_range(const json_t *range, const char *key, struct etcd_found *ret_found)
{
    const json_t *list = json_object_get(range, "kvs"), *one = json_array_get(list, 0);
    const char *name = json_string_value(json_object_get(one, "key"));
    const char *value = json_string_value(json_object_get(one, "value"));
    char encoded[ENCODED(ETCD_KEY) + 1];
    struct etcd_found found = {.length = 0};

    encode(key, strlen(key), encoded);
    if (list && !json_is_array(list))
        return NO_ETCD;
    if (json_array_size(list) == 0) {
        *ret_found = found;
        return NULL;
    }
    found.mod_revision = take_number(json_object_get(one, "mod_revision"));
    if (json_array_size(list) > 1 || !name || strcmp(name, encoded) != 0 || !found.mod_revision)
        return "has what nobody asked for";
    if (value && !decode(value, found.bytes, sizeof(found.bytes), &found.length))
        return "has a value that is no record";
    *ret_found = found;
    return NULL;
}

const char *etcd_text_parse_range(const char *body, size_t length, const char *key,
                                  struct etcd_found *ret_found)
{
    json_t *root = load(body, length);
    const char *wrong = root ? take_range(root, key, ret_found) : NO_ETCD;

    json_decref(root);
    return wrong;
}

static const char *take_exchange(const json_t *root, const char *key, bool *ret_succeeded,
                                 struct etcd_found *ret_found)
{
    const json_t *succeeded = json_object_get(root, "succeeded");
    const json_t *list = json_object_get(root, "responses");
    const json_t *range = json_object_get(json_array_get(list, 0), "response_range");

    if (succeeded && !json_is_boolean(succeeded))
        return NO_ETCD;
    *ret_succeeded = json_is_true(succeeded);
    if (*ret_succeeded)
        return NULL;
    if (json_array_size(list) != 1 || !json_is_object(range))
        return "has what nobody asked for";
    return take_range(range, key, ret_found);
}

const char *etcd_text_parse_exchange(const char *body, size_t length, const char *key,
                                     bool *ret_succeeded, struct etcd_found *ret_found)
{
    json_t *root = load(body, length);
    const char *wrong = root ? take_exchange(root, key, ret_succeeded, ret_found) : NO_ETCD;

    json_decref(root);
    return wrong;
}

const char *etcd_text_parse_login(const char *body, size_t length, char ret_token[ETCD_TOKEN])
{
    json_t *root = load(body, length);
    const char *token = json_string_value(json_object_get(root, "token"));
    const char *wrong = NULL;

    if (!root)
        wrong = NO_ETCD;
    else if (!token || !*token || strlen(token) >= ETCD_TOKEN)
        wrong = "has no token";
    for (const char *at = token; !wrong && *at; at++)
        if (*at <= ' ' || *at > '~')
            wrong = "has no token";
    if (!wrong)
        strcpy(ret_token, token);
    json_decref(root);
    return wrong;
}

/* For a terminal. */
static void take_words(const char *words, size_t length, char ret_words[ETCD_WORDS])
{
    snprintf(ret_words, ETCD_WORDS, "%.*s", (int)(length < ETCD_WORDS ? length : ETCD_WORDS),
             words);
    ret_words[strcspn(ret_words, "\r\n")] = 0;
    for (char *at = ret_words; *at; at++)
        if (*at < ' ' || *at > '~')
            *at = '?';
}

int etcd_text_parse_error(const char *body, size_t length, char ret_words[ETCD_WORDS])
{
    json_t *root = json_loadb(body, length, 0, NULL);
    const json_t *code = json_object_get(root, "code");
    const char *words = json_string_value(json_object_get(root, "message"));
    int is = -1;

    if (json_is_integer(code) && words && json_integer_value(code) >= 0 &&
        json_integer_value(code) <= 16)
        is = (int)json_integer_value(code);
    take_words(is >= 0 ? words : body, is >= 0 ? strlen(words) : length, ret_words);
    json_decref(root);
    return is;
}
