/* SPDX-License-Identifier: MIT */
/* minivmm key: a new key for two hosts. */
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "host/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The shell that opened the file knew nothing of keys: with a usual umask everybody could read it,
 * and then no minivmm would take it.
 */
static void close_to_others(int fd)
{
    struct stat stat;

    if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) || !(stat.st_mode & 077))
        return;
    if (stat.st_uid == geteuid() && fchmod(fd, 0600) == 0)
        return;
    log_warning(
        "others can read the file that the key goes to; hint: chmod 600 FILE, by its owner");
}

static int print_key(struct err *err)
{
    char text[LINK_KEY_TEXT];
    struct link_key key;

    int r = link_key_make(&key, err);
    if (r < 0)
        return r;
    close_to_others(STDOUT_FILENO);
    link_key_format(&key, text);
    if (printf("%s\n", text) < 0 || fflush(stdout) != 0)
        r = err_sys(err, ERR_FAILED, errno, "cannot write the key");
    explicit_bzero(text, sizeof(text));
    explicit_bzero(&key, sizeof(key));
    return r;
}

int verb_key(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct verb_words words = {.verb = "key",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm key > pair.key\n"
                                           "  scp -p pair.key hostB:\n"
                                           "\n"
                                           "Usage: minivmm key\n"
                                           "\n"
                                           "Prints a new key, for --key FILE on two hosts. Whoever "
                                           "has it can take part in\n"
                                           "what the two say to each other, and nobody else can "
                                           "read it.\n"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = print_key(&err);
    return ret < 0 ? fail(&err) : 0;
}
