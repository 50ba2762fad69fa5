/* SPDX-License-Identifier: MIT */
/*
 * Where the values of a JSON text stand. jansson parses, but keeps no places; this walks the same
 * text once more and notes line and column of every value and key, so that a sentence about a value
 * can say where it is.
 *
 * The text has been parsed before, but nothing here relies on that: any bytes are walked to their
 * end, without recursion.
 */
#pragma once

#include "core/err.h"

/* More than any definition has: 19 disks and 8 nets with all that can be said of them are 1500. */
enum { JSON_MAX_DEPTH = 32, JSON_MAX_PLACES = 4096 };
#define JSON_NOWHERE UINT32_MAX

/* From 1. A column counts characters, not bytes. */
struct json_spot {
    uint32_t line, column;
};

/* --- tokens ------------------------------------------------------------------------------- */

struct json_token {
    char kind;        /* the bracket, comma or colon; '"' a text, 'w' any other word, 0 the end */
    bool closed;      /* a text has its second quote on the same line */
    const char *text; /* with the quotes */
    size_t length;    /* bytes */
    struct json_spot spot;
};

struct json_tokens {
    const char *at, *end;
    struct json_spot spot;
};

void json_tokens_begin(struct json_tokens *tokens, const char *text, size_t length);
void json_tokens_next(struct json_tokens *tokens, struct json_token *ret_token);

/* --- places ------------------------------------------------------------------------------- */

struct json_place {
    struct json_spot value;
    struct json_spot key_spot;
    char *key;        /* a member's, without quotes and escapes; else NULL */
    uint32_t hash;    /* of the key */
    uint32_t index;   /* in the list or object around it */
    uint32_t parent;  /* the list or object around it, or JSON_NOWHERE */
    uint32_t first;   /* inside it, or JSON_NOWHERE */
    uint32_t next;    /* behind it in the same list or object, or JSON_NOWHERE */
    uint32_t twin;    /* the member of the same name before it, or JSON_NOWHERE */
    bool shadowed;    /* a member of the same name follows: jansson has that one */
    const char *text; /* the value as it was written; of a list or object its bracket only */
    uint32_t length;
};

struct json_places {
    struct json_place *at; /* in the order of the text; the first is the root */
    uint32_t count;
};

/*
 * The text must outlive the places. -E2BIG: too many values, or nested too deeply; the sentence
 * says which, *ret_stop where.
 */
int json_places_find(struct json_places *ret_places, const char *text, size_t length,
                     struct json_spot *ret_stop, struct err *err) must_check;
void json_places_finish(struct json_places *places); /* zeroed is fine */

/* The member of this name (the last one), or the item of this number; or JSON_NOWHERE. */
uint32_t json_places_member(const struct json_places *places, uint32_t object, const char *key);
uint32_t json_places_item(const struct json_places *places, uint32_t list, uint32_t index);

/* "nets[0].mode"; "" for the root. Printable, and cut off where there is no room. */
void json_places_path(const struct json_places *places, uint32_t place, char *to, size_t room);

/* What somebody wrote, for a sentence: no control characters, and no longer than a few words. */
void json_show(const char *text, size_t length, char *to, size_t room);
