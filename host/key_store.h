/* SPDX-License-Identifier: MIT */
/*
 * Keys of pairs of hosts: the store of this host, where each host that it is paired with has one
 * file. The store is MINIVMM_KEYS_DIR, root's /etc/minivmm/keys, or of another user
 * $XDG_CONFIG_HOME/minivmm/keys (~/.config). Folder and files are for their owner only, and reached
 * by no symbolic link below the store: what is not so is refused, with its mend.
 */
#pragma once

#include "host/link.h"
#include <limits.h>

enum { KEY_STORE_NAME = 201, KEY_STORE_MOST = 1024 };

/* While a key is replaced two are good for who calls; we call with the first one. */
enum key_pair_state {
    KEY_PAIR_SETTLED,
    KEY_PAIR_NEXT,   /* `other` shall take the place of `key` once the other host has it */
    KEY_PAIR_BEFORE, /* `other` had its place, until the other host uses `key`, too */
};

struct key_pair {
    struct link_key key, other;
    enum key_pair_state state;
    char as[KEY_STORE_NAME]; /* what the other host calls this one */
};

/*
 * Names of hosts, as they are connected to: letters, digits, '.', '-', '_', ':' and '%', the first
 * no '.', '-' or '%'. So each is the name of a file. Upper case is lowered.
 */
int key_store_name(char ret_name[KEY_STORE_NAME], const char *text, struct err *err) must_check;

/* The path of the store, there or not. */
int key_store_path(char ret_path[PATH_MAX], struct err *err) must_check;
/* Its descriptor. -ENOENT: there is none, and it is not to be made. */
int key_store_open(bool make, struct err *err) must_check;
/* Until the descriptor is closed nobody else changes pairs; who only reads needs no lock.
 * -EAGAIN: somebody else does. */
int key_store_lock(int *ret_lock, int store, struct err *err) must_check;

/* Names as key_store_name gives them. -ENOENT: there is no such pair. */
int key_store_read(int store, const char *name, struct key_pair *ret_pair,
                   struct err *err) must_check;
/* Survives a power cut. */
int key_store_write(int store, const char *name, const struct key_pair *pair,
                    struct err *err) must_check;
int key_store_remove(int store, const char *name, struct err *err) must_check;

/* All names, whatever is in their files, in order. */
struct key_store_names {
    size_t count;
    char names[KEY_STORE_MOST][KEY_STORE_NAME];
};
int key_store_list(int store, struct key_store_names *ret_names, struct err *err) must_check;

/*
 * The file of the pair with the host of this address ("hostB:7420"), or of the first of several,
 * with commas, that has one: a path for link_key_read. "" where there is none; where it is there
 * and not sound, that is an error.
 */
int key_store_for(char ret_path[PATH_MAX], const char *address, struct err *err) must_check;
/* Whether it is the path of a file in the store, there or not. */
bool key_store_has_path(const char *path);

/* For link_config.keys: all of the store, as it is when somebody calls. */
struct key_finder {
    struct link_keys keys;
    struct link_key key;
    char path[PATH_MAX]; /* of the file in which the key was found; "" */
};
void key_finder_init(struct key_finder *finder);
