/* SPDX-License-Identifier: MIT */
/* Between the files of ft/witness_etcd*.c. */
#pragma once

#include "ft/witness_parts.h"
#include "host/http_client.h"
#include <pthread.h>

/* ft/witness_etcd_config.c: which servers, and what they are told about us. */

struct etcd_config {
    struct http_server servers[HTTP_SERVERS];
    size_t count;
    char *path; /* of the file with the rest; NULL: there is none */
    char *user, *password;
    struct http_trust trust; /* ca NULL: no TLS */
};

/* "//HOST[:PORT],..." or "http[s]://HOST[:PORT],...": what is after "etcd:". */
int etcd_config_read(struct etcd_config *ret_config, const char *address,
                     struct err *err) must_check;
void etcd_config_finish(struct etcd_config *config);

/*
 * ft/witness_etcd_text.c: questions and answers as the JSON gateway has them. Questions are for
 * free(), NULL: no memory. What reads an answer returns NULL, or the end of a sentence ("is no
 * answer of an etcd").
 */

enum { ETCD_KEY = 64, ETCD_TOKEN = 4096, ETCD_WORDS = 120 };
#define ETCD_PLACE "minivmm/" /* before each key */

struct etcd_found {
    uint64_t mod_revision; /* 0: there is no such key */
    size_t length;
    char bytes[WITNESS_TEXT_MAX];
};

void etcd_text_key(const uint8_t uuid[16], char ret_key[ETCD_KEY]);

char *etcd_text_range(const char *key);
/* Changes nothing, ever, but is refused where a key at this place must not be written. */
char *etcd_text_probe(const char *key);
/* Puts the value where the key is as it was found. */
char *etcd_text_exchange(const char *key, const struct etcd_found *found, const char *value,
                         size_t length);
char *etcd_text_login(const char *user, const char *password);

const char *etcd_text_parse_range(const char *body, size_t length, const char *key,
                                  struct etcd_found *ret_found);
/* ret_found only where it has not succeeded. */
const char *etcd_text_parse_exchange(const char *body, size_t length, const char *key,
                                     bool *ret_succeeded, struct etcd_found *ret_found);
const char *etcd_text_parse_login(const char *body, size_t length, char ret_token[ETCD_TOKEN]);
/* Why it refuses: gRPC's code (-1: what it says is no error as the gateway writes them), and its
 * words, for a terminal. */
int etcd_text_parse_error(const char *body, size_t length, char ret_words[ETCD_WORDS]);

/* ft/witness_etcd_talk.c: asks one server after the other. */

struct etcd {
    struct witness base;
    struct etcd_config config;
    pthread_mutex_t lock; /* one question at a time */
    size_t last;          /* who has answered last */
    char token[ETCD_TOKEN];
    struct http_answer answer;
};

/*
 * Locked. What is asked must do no harm when it is asked twice, or takes place late. 0: an answer
 * is there. Else nobody has answered, or not to us; *ret_maybe: it may have taken place, or may
 * yet.
 */
int etcd_ask(struct etcd *etcd, const char *path, const char *question, bool *ret_maybe,
             struct err *err) must_check;
