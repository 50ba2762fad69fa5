/* SPDX-License-Identifier: MIT */
#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct verb {
    const char *name, *words, *text;
    int (*run)(char **words);
} verbs[] = {
    {"verify", "FILE [size=] [block=] [depth=] [jobs=] [ops=] [seed=]",
     "writes all blocks in random order, then reads and writes at random; every byte is checked",
     verb_verify},
    {"bench", "FILE [op=read|write] [order=random|sequential] [size=] [block=] [depth=] [seconds=]",
     "operations per second", verb_bench},
    {"files", "write|check FOLDER [size=] [count=]",
     "writes files, each fsynced before \"synced N\" is said; or checks that so many are whole",
     verb_files},
    {"serve", "ADDRESS", "the other end of push and pull, for any number of connections",
     verb_serve},
    {"push", "ADDRESS BYTES [seed=] [pause=] [until=]",
     "sends; the server checks every byte (seed=0: just counts); us after each 256k; a file",
     verb_push},
    {"pull", "ADDRESS BYTES [seed=]", "receives, and checks every byte", verb_pull},
    {"beat", "ADDRESS [us=]", "sends a datagram to udp:HOST:PORT every so often, for ever",
     verb_beat},
    {"hear", "udp:PORT", "says each gap between datagrams that is longer than those before",
     verb_hear},
    {"keep", "FILE ADDRESS",
     "for clients that ask: each record is in the file, and fsynced, before it answers", verb_keep},
    {"ask", "ADDRESS [until=]", "has one record after the other kept, until a file is there",
     verb_ask},
    {"offloads", "INTERFACE", "which offloads are on", verb_offloads},
    {"tap", "NAME [multi]", "makes a tap device that stays, perhaps with several queues", verb_tap},
};

static int usage(void)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        fprintf(stderr, "probe %s %s\n    %s\n", verbs[i].name, verbs[i].words, verbs[i].text);
    fprintf(stderr, "ADDRESS: tcp:HOST:PORT  vsock:CID:PORT  unix:PATH  unix:PATH,PORT (by a "
                    "CONNECT line)\n  to serve: tcp:PORT  vsock:PORT  unix:PATH\n");
    return 2;
}

int main(int argc, char **argv)
{
    /* What has been said must be seen when the power goes. */
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; argc > 2 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argv + 2);
    return usage();
}

void die(int number, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "probe: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "%s%s\n", number ? ": " : "", number ? strerror(number) : "");
    va_end(arguments);
    exit(1);
}

uint64_t read_size(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    unsigned shift = *end == 'k' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (end == text || end[shift != 0])
        die(0, "%s is no number", text);
    return value << shift;
}

const char *option(char **words, const char *name, const char *otherwise)
{
    size_t length = strlen(name);
    for (; *words; words++)
        if (strncmp(*words, name, length) == 0 && (*words)[length] == '=')
            return *words + length + 1;
    return otherwise;
}

void options_check(char **words, const char *names)
{
    for (; *words; words++) {
        size_t length = strcspn(*words, "=");
        const char *at = names;
        while (at && (strncmp(at, *words, length) != 0 || (at[length] != ' ' && at[length]))) {
            at = strchr(at, ' ');
            at = at ? at + 1 : NULL;
        }
        if (!at || (*words)[length] != '=')
            die(0, "%s is no option; there are: %s", *words, names);
    }
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Any two positions and any two seeds give unrelated words. */
static uint64_t pattern_word(uint64_t seed, uint64_t index)
{
    uint64_t x = (seed + 1) * 0xd1342543de82ef95 + index * 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9;
    return x ^ (x >> 32);
}

void pattern_fill(void *buffer, size_t length, uint64_t seed, uint64_t offset)
{
    uint8_t *to = buffer;
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = pattern_word(seed, (offset + at) / 8);
        memcpy(to + at, &word, length - at < 8 ? length - at : 8);
    }
}

size_t pattern_check(const void *buffer, size_t length, uint64_t seed, uint64_t offset)
{
    const uint8_t *from = buffer;
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = pattern_word(seed, (offset + at) / 8);
        size_t part = length - at < 8 ? length - at : 8;
        if (memcmp(from + at, &word, part) == 0)
            continue;
        while (from[at] == ((const uint8_t *)&word)[at % 8])
            at++;
        return at;
    }
    return length;
}
