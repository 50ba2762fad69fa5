/* SPDX-License-Identifier: MIT */
/* minivmm pair --accept: who is asked. What is said stands at the top of pair_talk.c. */
#include "cli/pair_talk.h"
#include "host/link_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_WORDS = 4 };

struct question {
    int store, lock;
    char name[KEY_STORE_NAME];
    char *words[MOST_WORDS + 1];
    size_t count;
    struct key_pair pair;
    bool has_pair;
};

static bool has_print(const struct link_key *key, const char *print, int *ret, struct err *err)
{
    char its[LINK_KEY_PRINT] = "";

    if (*ret == 0)
        *ret = link_key_print(key, its, err);
    return *ret == 0 && strcmp(its, print) == 0;
}

static int say_other_key(const char *name, struct err *err)
{
    int r = err_say(err, ERR_STATE, ENOKEY, "the key for %s is another one here", name);

    err_hint(err, "minivmm pairs shows both; minivmm pair --renew makes them one");
    return r;
}

static int write_pair(struct question *question, struct err *err)
{
    int r = key_store_write(question->store, question->name, &question->pair, err);

    question->has_pair = r == 0;
    return r;
}

static int add(struct question *question, struct err *err)
{
    struct key_pair *pair = &question->pair;
    struct link_key key;
    char as[KEY_STORE_NAME];

    if (strlen(question->words[3]) != LINK_KEY_TEXT - 1 ||
        !link_key_parse(&key, question->words[3]))
        return err_say(err, ERR_USAGE, EINVAL, "add: that is no key");
    int r = key_store_name(as, question->words[2], err);
    if (r < 0)
        return r;
    memcpy(pair->as, as, sizeof(as));
    if (!question->has_pair) {
        pair->key = key;
        pair->state = KEY_PAIR_SETTLED;
    } else if (memcmp(&pair->key, &key, sizeof(key)) != 0) {
        pair->other = key;
        pair->state = KEY_PAIR_NEXT;
    }
    explicit_bzero(&key, sizeof(key));
    return write_pair(question, err);
}

static int settle(struct question *question, struct err *err)
{
    struct key_pair *pair = &question->pair;
    const char *print = question->words[2];
    int r = 0;

    if (!question->has_pair)
        return say_other_key(question->name, err);
    if (!has_print(&pair->key, print, &r, err)) {
        if (r == 0 && (pair->state == KEY_PAIR_SETTLED || !has_print(&pair->other, print, &r, err)))
            r = r < 0 ? r : say_other_key(question->name, err);
        if (r < 0)
            return r;
        pair->key = pair->other;
    }
    pair->state = KEY_PAIR_SETTLED;
    return write_pair(question, err);
}

static int drop(struct question *question, struct err *err)
{
    const struct key_pair *pair = &question->pair;
    const char *print = question->words[2];
    int r = 0;

    if (!question->has_pair)
        return 0;
    if (!has_print(&pair->key, print, &r, err) &&
        (r < 0 || pair->state == KEY_PAIR_SETTLED || !has_print(&pair->other, print, &r, err)))
        return r < 0 ? r : say_other_key(question->name, err);
    r = key_store_remove(question->store, question->name, err);
    question->has_pair = r < 0;
    return r;
}

static int show(struct question *question, struct err *err)
{
    return 0;
}

static const struct {
    const char *word;
    size_t count;
    bool changes;
    int (*act)(struct question *question, struct err *err);
} questions[] = {
    {"show", 2, false, show},
    {"add", 4, true, add},
    {"settle", 3, true, settle},
    {"drop", 3, true, drop},
};

/* Who changes it has the lock, and keeps it until all is answered. */
static int read_pair(struct question *question, bool changes, struct err *err)
{
    struct err why = {0};
    int r = question->store = key_store_open(changes, &why);

    if (r >= 0 && changes)
        r = key_store_lock(&question->lock, question->store, &why);
    if (r >= 0)
        r = key_store_read(question->store, question->name, &question->pair, &why);
    question->has_pair = r == 0;
    if (r == 0 || r == -ENOENT)
        return 0;
    *err = why;
    return r;
}

static int act(struct question *question, struct err *err)
{
    size_t what = 0;

    while (what < array_size(questions) &&
           (question->count == 0 || strcmp(questions[what].word, question->words[0]) != 0))
        what++;
    if (what == array_size(questions) || question->count != questions[what].count)
        return err_say(err, ERR_USAGE, EINVAL, "that is no question that pair --accept knows");
    int r = key_store_name(question->name, question->words[1], err);
    if (r == 0)
        r = read_pair(question, questions[what].changes, err);
    return r < 0 ? r : questions[what].act(question, err);
}

static int format_prints(const struct question *question, char ret_line[PAIR_LINE], struct err *err)
{
    char first[LINK_KEY_PRINT] = "-", second[LINK_KEY_PRINT] = "-";
    int r = 0;

    if (question->has_pair)
        r = link_key_print(&question->pair.key, first, err);
    if (r == 0 && question->has_pair && question->pair.state != KEY_PAIR_SETTLED)
        r = link_key_print(&question->pair.other, second, err);
    snprintf(ret_line, PAIR_LINE, "keys %s %s", first, second);
    return r;
}

/* The line is used up. */
static int answer(char *line, int to)
{
    struct question question = {.store = -1, .lock = -1};
    struct err err = {0};
    char said[PAIR_LINE], *state = NULL;

    for (char *word = strtok_r(line, " ", &state); word && question.count <= MOST_WORDS;
         word = strtok_r(NULL, " ", &state))
        question.words[question.count++] = word;
    int r = act(&question, &err);
    if (r == 0)
        r = format_prints(&question, said, &err);
    if (r < 0)
        snprintf(said, sizeof(said), "error %d %s\t%s", (int)err.kind, err.text, err.hint);
    if (question.lock >= 0)
        close(question.lock);
    if (question.store >= 0)
        close(question.store);
    explicit_bzero(&question.pair, sizeof(question.pair));
    return pair_write_line(to, said);
}

int pair_accept(int from, int to, struct err *err)
{
    char line[PAIR_LINE];

    snprintf(line, sizeof(line), "%s %d %s", PAIR_GREETING, PAIR_VERSION, MINIVMM_VERSION);
    int r = pair_write_line(to, line);
    while (r == 0) {
        r = pair_read_line(from, line, -1);
        if (r == 0)
            r = answer(line, to);
        explicit_bzero(line, sizeof(line));
    }
    if (r == -ENODATA || r == -EPIPE)
        return 0;
    return err_sys(err, ERR_FAILED, -r, "pair --accept: cannot talk to the other host");
}
