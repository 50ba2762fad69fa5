/* SPDX-License-Identifier: MIT */
/*
 * probe: what the system tests and benchmarks need inside guests and lab hosts, where there is
 * BusyBox and nothing else. One static program, one verb for each purpose; see probe.c.
 *
 * All data that is sent or stored is made from a seed and a position, so that whoever reads it can
 * tell every wrong byte without having the original.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Says what failed, with errno's words when number is not 0, and ends with 1. */
_Noreturn void die(int number, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "4096", "64k", "16M"; dies when it is none. */
uint64_t read_size(const char *text);

/* The value of NAME=VALUE among the words, or `otherwise`. Words nobody knows are refused by
 * options_check(), whose names are separated by blanks. */
const char *option(char **words, const char *name, const char *otherwise);
void options_check(char **words, const char *names);

double seconds_now(void); /* CLOCK_MONOTONIC */

/* The bytes that belong at `offset` (a multiple of 8) of the stream of this seed. */
void pattern_fill(void *buffer, size_t length, uint64_t seed, uint64_t offset);
/* The number of the first byte that is wrong, or `length`. */
size_t pattern_check(const void *buffer, size_t length, uint64_t seed, uint64_t offset);

/* Streams: tcp:HOST:PORT, vsock:CID:PORT, unix:PATH. They die of what goes wrong; read: false when
 * it ended before. */
int stream_connect(const char *where);
void stream_write(int fd, const void *data, size_t length);
bool stream_read(int fd, void *data, size_t length);
/* For each connection, in a process of its own. */
_Noreturn void stream_serve(const char *where, void (*serve)(int fd, const char *what),
                            const char *what);

/* The verbs. words: what follows the verb, NULL at the end. They return the exit code. */
int verb_verify(char **words);
int verb_bench(char **words);
int verb_files(char **words);
int verb_serve(char **words);
int verb_push(char **words);
int verb_pull(char **words);
int verb_beat(char **words);
int verb_hear(char **words);
int verb_keep(char **words);
int verb_ask(char **words);
int verb_offloads(char **words);
int verb_tap(char **words);
