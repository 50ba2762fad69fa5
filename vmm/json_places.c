/* SPDX-License-Identifier: MIT */
#include "vmm/json_places.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- tokens ------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_mark(char c)
{
    return c && strchr("{}[],:", c);
}

/* A character of UTF-8 is its first byte; the others are 10xxxxxx. */
static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static void step(struct json_tokens *tokens)
{
    char c = *tokens->at++;
    if (c == '\n')
        tokens->spot = (struct json_spot){.line = tokens->spot.line + 1, .column = 1};
    else if (tokens->at == tokens->end || begins_character(*tokens->at))
        tokens->spot.column++;
}

static void step_text(struct json_tokens *tokens, struct json_token *token)
{
    step(tokens);
    while (tokens->at < tokens->end && *tokens->at != '\n' && !token->closed) {
        token->closed = *tokens->at == '"';
        bool escape = *tokens->at == '\\';
        step(tokens);
        if (escape && tokens->at < tokens->end && *tokens->at != '\n')
            step(tokens);
    }
}

void json_tokens_begin(struct json_tokens *tokens, const char *text, size_t length)
{
    *tokens = (struct json_tokens){
        .at = text, .end = text + length, .spot = {.line = 1, .column = 1}};
}

void json_tokens_next(struct json_tokens *tokens, struct json_token *ret_token)
{
    while (tokens->at < tokens->end && is_space(*tokens->at))
        step(tokens);
    struct json_token token = {.text = tokens->at, .spot = tokens->spot};
    if (tokens->at < tokens->end && *tokens->at == '"') {
        token.kind = '"';
        step_text(tokens, &token);
    } else if (tokens->at < tokens->end && is_mark(*tokens->at)) {
        token.kind = *tokens->at;
        step(tokens);
    } else if (tokens->at < tokens->end) {
        token.kind = 'w';
        while (tokens->at < tokens->end && *tokens->at != '"' && !is_space(*tokens->at) &&
               !is_mark(*tokens->at))
            step(tokens);
    }
    token.length = (size_t)(tokens->at - token.text);
    *ret_token = token;
}

/* --- places ------------------------------------------------------------------------------- */

struct walk {
    struct json_places places;
    uint32_t room;
    uint32_t around;                   /* the list or object that is open */
    uint32_t last[JSON_MAX_DEPTH + 1]; /* what came last, at each depth */
    unsigned depth;
    struct json_token key; /* kind 0: none waits for its value */
};

/* Keys can have escapes. What they mean is jansson's to say, so that no key has two meanings. */
static char *unescape(const struct json_token *key)
{
    if (!memchr(key->text, '\\', key->length))
        return key->length < 2 ? strdup("") : strndup(key->text + 1, key->length - 2);
    json_t *string = json_loadb(key->text, key->length, JSON_DECODE_ANY, NULL);
    char *copy = strdup(json_is_string(string) ? json_string_value(string) : "");
    json_decref(string);
    return copy;
}

/* FNV-1a: 4096 members are compared with each other, and most comparisons shall be short. */
static uint32_t hash(const char *key)
{
    uint32_t sum = 0x811c9dc5;
    for (; *key; key++)
        sum = (sum ^ (uint8_t)*key) * 0x01000193;
    return sum;
}

static void find_twin(struct walk *walk, uint32_t place)
{
    struct json_place *at = walk->places.at;
    at[place].hash = hash(at[place].key);
    for (uint32_t i = at[at[place].parent].first; i != place; i = at[i].next) {
        if (at[i].hash != at[place].hash || at[i].shadowed || strcmp(at[i].key, at[place].key) != 0)
            continue;
        at[i].shadowed = true;
        at[place].twin = i;
        return;
    }
}

static bool make_room(struct walk *walk)
{
    if (walk->places.count < walk->room)
        return true;
    uint32_t room = walk->room ? walk->room * 2 : 64;
    struct json_place *at = reallocarray(walk->places.at, room, sizeof(*at));
    if (!at)
        return false;
    walk->places.at = at;
    walk->room = room;
    return true;
}

static void link_place(struct walk *walk, uint32_t place)
{
    struct json_place *at = walk->places.at;
    uint32_t before = walk->last[walk->depth];
    if (before != JSON_NOWHERE) {
        at[before].next = place;
        at[place].index = at[before].index + 1;
    } else if (walk->around != JSON_NOWHERE) {
        at[walk->around].first = place;
    }
    walk->last[walk->depth] = place;
    if (at[place].key)
        find_twin(walk, place);
}

static int add_place(struct walk *walk, const struct json_token *token, struct err *err)
{
    if (walk->places.count == JSON_MAX_PLACES)
        return err_say(err, ERR_DEFINITION, E2BIG, "there are more than %d values",
                       JSON_MAX_PLACES);
    struct json_place place = {.value = token->spot,
                               .key_spot = walk->key.spot,
                               .parent = walk->around,
                               .first = JSON_NOWHERE,
                               .next = JSON_NOWHERE,
                               .twin = JSON_NOWHERE,
                               .text = token->text,
                               .length = (uint32_t)token->length};
    bool is_member = walk->around != JSON_NOWHERE && walk->places.at[walk->around].text[0] == '{';
    place.key = is_member && walk->key.kind ? unescape(&walk->key) : NULL;
    walk->key.kind = 0;
    if (!make_room(walk) || (is_member && !place.key)) {
        free(place.key);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot read the definition");
    }
    walk->places.at[walk->places.count++] = place;
    link_place(walk, walk->places.count - 1);
    return 0;
}

static int open_container(struct walk *walk, const struct json_token *token, struct err *err)
{
    if (walk->depth == JSON_MAX_DEPTH)
        return err_say(err, ERR_DEFINITION, E2BIG, "there are more than %d brackets in brackets",
                       JSON_MAX_DEPTH);
    int ret = add_place(walk, token, err);
    if (ret < 0)
        return ret;
    walk->around = walk->places.count - 1;
    walk->last[++walk->depth] = JSON_NOWHERE;
    return 0;
}

static void close_container(struct walk *walk)
{
    walk->key.kind = 0;
    if (walk->depth == 0)
        return;
    walk->depth--;
    walk->around = walk->places.at[walk->around].parent;
}

static int take_token(struct walk *walk, const struct json_token *token, struct err *err)
{
    bool in_object = walk->around != JSON_NOWHERE && walk->places.at[walk->around].text[0] == '{';
    switch (token->kind) {
    case '{':
    case '[':
        return open_container(walk, token, err);
    case '}':
    case ']':
        close_container(walk);
        return 0;
    case ',':
        walk->key.kind = 0;
        return 0;
    case ':':
        return 0;
    default:
        if (!in_object || walk->key.kind)
            return add_place(walk, token, err);
        walk->key = *token;
        return 0;
    }
}

int json_places_find(struct json_places *ret_places, const char *text, size_t length,
                     struct json_spot *ret_stop, struct err *err)
{
    struct walk walk = {.around = JSON_NOWHERE, .last = {JSON_NOWHERE}};
    struct json_tokens tokens;
    struct json_token token;
    int ret = 0;

    json_tokens_begin(&tokens, text, length);
    for (json_tokens_next(&tokens, &token); token.kind && ret == 0;) {
        ret = take_token(&walk, &token, err);
        if (ret == 0)
            json_tokens_next(&tokens, &token);
    }
    if (ret < 0) {
        *ret_stop = token.spot;
        json_places_finish(&walk.places);
        return ret;
    }
    *ret_places = walk.places;
    return 0;
}

void json_places_finish(struct json_places *places)
{
    for (uint32_t i = 0; i < places->count; i++)
        free(places->at[i].key);
    free(places->at);
    *places = (struct json_places){0};
}

uint32_t json_places_member(const struct json_places *places, uint32_t object, const char *key)
{
    uint32_t place = object == JSON_NOWHERE ? JSON_NOWHERE : places->at[object].first;
    for (; place != JSON_NOWHERE; place = places->at[place].next) {
        const struct json_place *at = &places->at[place];
        if (at->key && !at->shadowed && strcmp(at->key, key) == 0)
            return place;
    }
    return JSON_NOWHERE;
}

uint32_t json_places_item(const struct json_places *places, uint32_t list, uint32_t index)
{
    uint32_t place = list == JSON_NOWHERE ? JSON_NOWHERE : places->at[list].first;
    for (; place != JSON_NOWHERE && index > 0; index--)
        place = places->at[place].next;
    return place;
}

/* --- for people --------------------------------------------------------------------------- */

enum { SHOW_MAX = 40 };

/* The bytes of the character that begins here; 0: it cannot be shown. C0, DEL, and C1 (c2 80 to
 * c2 9f) are what a terminal may obey. */
static size_t shown_length(const unsigned char *at, size_t left)
{
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (length > left || at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0))
        return 0;
    for (size_t i = 1; i < length; i++)
        if (begins_character((char)at[i]))
            return 0;
    return length;
}

void json_show(const char *text, size_t length, char *to, size_t room)
{
    bool quoted = length > 1 && text[0] == '"' && text[length - 1] == '"';
    size_t used = 0, i = 0;
    for (unsigned characters = 0; i < length && characters < SHOW_MAX && used + 10 < room;
         characters++) {
        size_t shown = shown_length((const unsigned char *)text + i, length - i);
        memcpy(to + used, shown ? text + i : "?", shown ? shown : 1);
        used += shown ? shown : 1;
        i += shown ? shown : 1;
    }
    snprintf(to + used, room - used, "%s%s", i < length ? "..." : "",
             i < length && quoted ? "\"" : "");
}

void json_places_path(const struct json_places *places, uint32_t place, char *to, size_t room)
{
    uint32_t chain[JSON_MAX_DEPTH + 1];
    unsigned depth = 0;
    size_t used = 0;

    for (; place != JSON_NOWHERE && places->at[place].parent != JSON_NOWHERE;
         place = places->at[place].parent)
        chain[depth++] = place;
    to[0] = '\0';
    while (depth > 0 && used < room) {
        const struct json_place *at = &places->at[chain[--depth]];
        char part[4 * SHOW_MAX + 16];
        if (at->key)
            json_show(at->key, strlen(at->key), part, sizeof(part));
        else
            snprintf(part, sizeof(part), "[%u]", at->index);
        used += (size_t)snprintf(to + used, room - used, "%s%s", at->key && used ? "." : "", part);
    }
}
