/* SPDX-License-Identifier: MIT */
/*
 * ssh runs `minivmm pair --accept` at the other host; both then say lines of text to each other, of
 * at most 1023 bytes. Nothing of it is on a command line, and a key is only ever on standard input.
 *
 *   answers first   minivmm-pair 1 VERSION     what a login shell printed before it is passed over
 *   asks            show NAME                  NAME: what the other side calls the one that asks
 *                   add NAME AS KEY            AS: what the one that asks calls the other side
 *                   settle NAME PRINT
 *                   drop NAME PRINT
 *   answers each    keys FIRST SECOND          fingerprints of what it has now; "-": none
 *                   error KIND SENTENCE<tab>HINT
 *
 * Rules:
 *  1. add: where there is no pair of that name it is made, with this key. Where there is one the
 *     key becomes its next one: good for who calls, and not used to call.
 *  2. settle: the key with this fingerprint, which it must have, is its only one from now on.
 *  3. drop: the pair of that name is no more, if it has a key with this fingerprint.
 *  4. An answer is given when what it says survives a power cut. Each side saves what it makes
 *     before it tells the other one, so that what was cut short can be taken up by either.
 *
 * A renewal, by who asks (A) and the other side (B); in brackets what is only good for who calls:
 *
 *   A makes K1         A: K0 (K1)      B: K0
 *   add K1             A: K0 (K1)      B: K0 (K1)
 *   A goes over        A: K1 (K0)      B: K0 (K1)
 *   settle K1          A: K1 (K0)      B: K1
 *   A forgets K0       A: K1           B: K1
 *
 * In each line whichever side calls has a key that is good at the other side.
 */
#include "cli/pair_talk.h"
#include "cli/table.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_NOISE = 1000 }; /* lines of a login shell */

/* Lines. */

int pair_read_line(int from, char ret_line[PAIR_LINE], int timeout_ms)
{
    for (size_t length = 0; length < PAIR_LINE; length++) {
        struct pollfd polled = {.fd = from, .events = POLLIN};
        int r;
        do
            r = poll(&polled, 1, timeout_ms);
        while (r < 0 && errno == EINTR);
        if (r == 0)
            return -ETIMEDOUT;
        /* Byte by byte: there are few, and no key stays behind in a buffer. */
        ssize_t n = r < 0 ? -1 : read(from, ret_line + length, 1);
        if (n <= 0)
            return n < 0 ? -errno : -ENODATA;
        if (ret_line[length] == '\n') {
            ret_line[length] = 0;
            return 0;
        }
    }
    return -EMSGSIZE;
}

int pair_write_line(int to, const char *line)
{
    char text[PAIR_LINE + 1];
    int length = snprintf(text, sizeof(text), "%s\n", line);
    int r = 0;

    for (int at = 0; r == 0 && at < length;) {
        ssize_t n = write(to, text + at, (size_t)(length - at));
        if (n < 0 && errno != EINTR)
            r = -errno;
        at += n > 0 ? (int)n : 0;
    }
    explicit_bzero(text, sizeof(text));
    return r;
}

/* ssh. */

/* In our session, so that it can ask for a password at the terminal. */
static int spawn_ssh(struct pair_talk *talk, char *command, int in, int out)
{
    char *argv[] = {"ssh", "-T", "--", (char *)(uintptr_t)talk->destination, command, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t pipes;

    sigemptyset(&pipes);
    sigaddset(&pipes, SIGPIPE);
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return -error;
    error = posix_spawnattr_init(&attr);
    if (error == 0) {
        posix_spawnattr_setsigdefault(&attr, &pipes);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
        error = posix_spawn_file_actions_adddup2(&actions, in, 0);
        if (error == 0)
            error = posix_spawn_file_actions_adddup2(&actions, out, 1);
        if (error == 0)
            error = posix_spawnp(&talk->ssh, argv[0], &actions, &attr, argv, environ);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
    return -error;
}

static int start_ssh(struct pair_talk *talk, const char *remote_command, struct err *err)
{
    int in[2], out[2];
    char *command = NULL;

    if (pipe2(in, O_CLOEXEC) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot talk to ssh");
    if (pipe2(out, O_CLOEXEC) < 0) {
        int r = err_sys(err, ERR_HOST, errno, "cannot talk to ssh");
        close(in[0]);
        close(in[1]);
        return r;
    }
    int r = asprintf(&command, "%s pair --accept", remote_command) < 0
                ? -ENOMEM
                : spawn_ssh(talk, command, in[0], out[1]);
    free(command);
    close(in[0]);
    close(out[1]);
    talk->to = in[1];
    talk->from = out[0];
    if (r == 0)
        return 0;
    talk->ssh = 0;
    r = err_sys(err, ERR_HOST, -r, "cannot run ssh");
    if (r == -ENOENT)
        err_hint(err, "sudo apt install openssh-client");
    return r;
}

/* Its exit code; -1 where there is none. */
static int wait_for_ssh(struct pair_talk *talk)
{
    int status = 0;

    if (talk->to >= 0)
        close(talk->to);
    if (talk->from >= 0)
        close(talk->from);
    talk->to = talk->from = -1;
    pid_t ended = 0;
    if (talk->ssh > 0)
        do
            ended = waitpid(talk->ssh, &status, 0);
        while (ended < 0 && errno == EINTR);
    bool known = ended > 0 && WIFEXITED(status);
    talk->ssh = 0;
    return known ? WEXITSTATUS(status) : -1;
}

void pair_talk_end(struct pair_talk *talk)
{
    (void)wait_for_ssh(talk);
}

/* It ended before it greeted. */
static int say_no_greeting(struct pair_talk *talk, struct err *err)
{
    enum { NOT_FOUND = 127, SSH_FAILED = 255 };
    int code = wait_for_ssh(talk), r;

    if (code == SSH_FAILED) {
        r = err_say(err, ERR_FAILED, ECONNREFUSED, "ssh does not get to %s", talk->destination);
        err_hint(err, "ssh %s true has to work by itself, with what ~/.ssh/config says",
                 talk->destination);
    } else if (code == NOT_FOUND) {
        r = err_say(err, ERR_FAILED, ENOENT, "%s finds no minivmm", talk->destination);
        err_hint(err, "install it there, or say where it is: --remote-command /path/to/minivmm");
    } else if (code == ERR_USAGE) {
        r = err_say(err, ERR_FAILED, EPROTONOSUPPORT, "minivmm at %s is older, and knows no pairs",
                    talk->destination);
        err_hint(err, "install the same version on both hosts");
    } else {
        r = err_say(err, ERR_FAILED, EPROTO,
                    "minivmm pair --accept at %s ended (exit code %d) and said nothing",
                    talk->destination, code);
        err_hint(err, "what stands above are its words; --remote-command names another program");
    }
    return r;
}

static int check_greeting(struct pair_talk *talk, const char *line, struct err *err)
{
    char *end;
    unsigned long version = strtoul(line + sizeof(PAIR_GREETING), &end, 10);

    if (version == PAIR_VERSION)
        return 0;
    int r = err_say(err, ERR_FAILED, EPROTONOSUPPORT,
                    "minivmm%.40s at %s pairs by version %lu, and this one, %s, by version %d", end,
                    talk->destination, version, MINIVMM_VERSION, PAIR_VERSION);
    err_hint(err, "install the same version on both hosts");
    return r;
}

int pair_talk_begin(struct pair_talk *talk, const char *remote_command, struct err *err)
{
    char line[PAIR_LINE];

    talk->to = talk->from = -1;
    int r = start_ssh(talk, remote_command, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < MOST_NOISE; i++) {
        r = pair_read_line(talk->from, line, -1); /* a person may have to type a password */
        if (r < 0 && r != -EMSGSIZE)
            return say_no_greeting(talk, err);
        if (r == 0 && strncmp(line, PAIR_GREETING " ", sizeof(PAIR_GREETING)) == 0) {
            text_make_plain(line);
            return check_greeting(talk, line, err);
        }
    }
    r = err_say(err, ERR_FAILED, EPROTO, "what answers at %s is not minivmm pair --accept",
                talk->destination);
    err_hint(err, "does the login shell there print a lot? --remote-command names what to run");
    return r;
}

/* Questions. */

static int say_lost(struct pair_talk *talk, int error, struct err *err)
{
    int r = error == -ETIMEDOUT
                ? err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%s does not answer", talk->destination)
                : err_say(err, ERR_FAILED, EPIPE, "the connection to %s broke", talk->destination);

    err_hint(err, "the same command again goes on where this one was cut short");
    return r;
}

/* "KIND SENTENCE<tab>HINT" of anybody. */
static int take_error(struct pair_talk *talk, char *text, struct err *err)
{
    char *sentence, *hint = strchr(text, '\t');
    unsigned long kind = strtoul(text, &sentence, 10);

    if (hint)
        *hint++ = 0;
    text_make_plain(sentence);
    int r = err_say(err, kind > ERR_NONE && kind <= ERR_GUEST ? (enum err_kind)kind : ERR_FAILED,
                    EREMOTEIO, "%s:%.300s", talk->destination, sentence);
    if (hint && *hint) {
        text_make_plain(hint);
        err_hint(err, "%.200s", hint);
    }
    return r;
}

static bool take_print(const char *word, char ret_print[LINK_KEY_PRINT])
{
    if (strcmp(word, "-") == 0) {
        ret_print[0] = 0;
        return true;
    }
    if (strlen(word) != LINK_KEY_PRINT - 1 ||
        strspn(word, "0123456789abcdef") != LINK_KEY_PRINT - 1)
        return false;
    memcpy(ret_print, word, LINK_KEY_PRINT);
    return true;
}

static int ask(struct pair_talk *talk, const char *question, struct pair_prints *ret_prints,
               struct err *err)
{
    char line[PAIR_LINE], first[PAIR_LINE], second[PAIR_LINE];

    int r = pair_write_line(talk->to, question);
    if (r == 0)
        r = pair_read_line(talk->from, line, PAIR_PATIENCE_MS);
    if (r < 0)
        return say_lost(talk, r, err);
    if (strncmp(line, "error ", 6) == 0)
        return take_error(talk, line + 6, err);
    if (sscanf(line, "keys %1000s %1000s", first, second) != 2 ||
        !take_print(first, ret_prints->first) || !take_print(second, ret_prints->second))
        return err_say(err, ERR_FAILED, EPROTO, "%s answers out of step", talk->destination);
    return 0;
}

int pair_talk_show(struct pair_talk *talk, struct pair_prints *ret_prints, struct err *err)
{
    char line[PAIR_LINE];

    snprintf(line, sizeof(line), "show %s", talk->as);
    return ask(talk, line, ret_prints, err);
}

int pair_talk_add(struct pair_talk *talk, const char *name, const struct link_key *key,
                  struct pair_prints *ret_prints, struct err *err)
{
    char line[PAIR_LINE], digits[LINK_KEY_TEXT];

    link_key_format(key, digits);
    snprintf(line, sizeof(line), "add %s %s %s", talk->as, name, digits);
    int r = ask(talk, line, ret_prints, err);
    explicit_bzero(digits, sizeof(digits));
    explicit_bzero(line, sizeof(line));
    return r;
}

int pair_talk_settle(struct pair_talk *talk, const char *print, struct pair_prints *ret_prints,
                     struct err *err)
{
    char line[PAIR_LINE];

    snprintf(line, sizeof(line), "settle %s %s", talk->as, print);
    return ask(talk, line, ret_prints, err);
}

int pair_talk_drop(struct pair_talk *talk, const char *print, struct pair_prints *ret_prints,
                   struct err *err)
{
    char line[PAIR_LINE];

    snprintf(line, sizeof(line), "drop %s %s", talk->as, print);
    return ask(talk, line, ret_prints, err);
}
