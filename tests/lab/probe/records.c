/* SPDX-License-Identifier: MIT */
/*
 * What a database promises, as small as it can be: a record that somebody was told of is in the
 * file. Clients send the numbers from 1 on; each number becomes a line of 16 bytes, is fsynced, and
 * is then sent back.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { RECORD = 16, OFTEN = 10 };

static void keep_for(int fd, const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    uint64_t number;

    if (file < 0)
        die(errno, "cannot open %s", path);
    while (stream_read(fd, &number, sizeof(number))) {
        char record[RECORD + 1];
        snprintf(record, sizeof(record), "%015llu\n",
                 (unsigned long long)number % 1000000000000000);
        if (write(file, record, RECORD) != RECORD || fsync(file) < 0)
            die(errno, "cannot keep record %llu in %s", (unsigned long long)number, path);
        stream_write(fd, &number, sizeof(number));
    }
}

int verb_keep(char **words)
{
    if (!words[1])
        die(0, "for whom? ADDRESS");
    stream_serve(words[1], keep_for, words[0]);
}

int verb_ask(char **words)
{
    options_check(words + 1, "until");
    const char *until = option(words + 1, "until", NULL);
    const int fd = stream_connect(words[0]);
    uint64_t kept = 0;
    const double begin = seconds_now();
    double longest = 0;

    while (!until || access(until, F_OK) != 0) {
        const uint64_t number = kept + 1;
        uint64_t answer;
        const double asked = seconds_now();
        stream_write(fd, &number, sizeof(number));
        if (!stream_read(fd, &answer, sizeof(answer)))
            die(0, "the other end left after record %llu", (unsigned long long)kept);
        if (answer != number)
            die(0, "record %llu was answered by %llu", (unsigned long long)number,
                (unsigned long long)answer);
        kept = number;
        const double now = seconds_now();
        if (now - asked > longest)
            printf("at %.1f s longest wait %.1f ms\n", now - begin, (longest = now - asked) * 1e3);
        if (kept % OFTEN == 0)
            printf("at %.1f s kept %llu\n", now - begin, (unsigned long long)kept);
    }
    printf("all %llu kept, longest wait %.1f ms\n", (unsigned long long)kept, longest * 1e3);
    return 0;
}
