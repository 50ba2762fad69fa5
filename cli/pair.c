/* SPDX-License-Identifier: MIT */
/* minivmm pair, unpair and pairs: two hosts that share a key. */
#include "cli/pair_talk.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_DESTINATION = 400 };

struct pairing {
    const char *said_as, *said_name, *remote_command;
    bool renew, accept, renewed;
    char name[KEY_STORE_NAME], as[KEY_STORE_NAME]; /* the other host here, this one there */
    int store, lock;
    struct key_pair mine;
    bool has_mine;
    char print[LINK_KEY_PRINT], other_print[LINK_KEY_PRINT]; /* of mine */
    struct pair_prints theirs;
    struct pair_talk talk;
};

/* --- names ------------------------------------------------------------------------------------ */

/* No word of it may be an option of ssh, or do something to a terminal. */
static int check_destination(const char *destination, struct err *err)
{
    size_t length = strlen(destination);
    bool plain = length > 0 && length < MOST_DESTINATION && *destination != '-';

    for (size_t i = 0; plain && i < length; i++)
        plain = destination[i] > ' ' && destination[i] < 0x7f;
    if (plain)
        return 0;
    int r = err_say(err, ERR_USAGE, EINVAL, "that is no host for ssh");
    err_hint(err, "HOST or USER@HOST, as in ssh USER@HOST");
    return r;
}

static int name_both(struct pairing *pairing, const char *destination, struct err *err)
{
    const char *at = strrchr(destination, '@');
    char here[256] = "";

    int r = check_destination(destination, err);
    if (r == 0)
        r = key_store_name(pairing->name,
                           pairing->said_name ? pairing->said_name : (at ? at + 1 : destination),
                           err);
    if (r < 0)
        return r;
    if (!pairing->said_as && gethostname(here, sizeof(here) - 1) < 0)
        return err_sys(err, ERR_HOST, errno, "this host has no name");
    r = key_store_name(pairing->as, pairing->said_as ? pairing->said_as : here, err);
    if (r < 0 && !pairing->said_as)
        err_hint(err, "--as NAME says what %s shall call this host", pairing->name);
    pairing->talk = (struct pair_talk){
        .destination = destination, .as = pairing->as, .to = -1, .from = -1};
    return r;
}

/* --- what is here ----------------------------------------------------------------------------- */

static int print_mine(struct pairing *pairing, struct err *err)
{
    const struct key_pair *mine = &pairing->mine;

    pairing->other_print[0] = 0;
    int r = link_key_print(&mine->key, pairing->print, err);
    if (r == 0 && mine->state != KEY_PAIR_SETTLED)
        r = link_key_print(&mine->other, pairing->other_print, err);
    return r;
}

/* The lock is kept until all is done: two that pair at a time would each make a key. */
static int read_mine(struct pairing *pairing, struct err *err)
{
    struct err why = {0};

    int r = pairing->store = key_store_open(true, err);
    if (r >= 0)
        r = key_store_lock(&pairing->lock, pairing->store, err);
    if (r < 0)
        return r;
    r = key_store_read(pairing->store, pairing->name, &pairing->mine, &why);
    pairing->has_mine = r == 0;
    if (r < 0 && r != -ENOENT) {
        *err = why;
        return r;
    }
    if (pairing->has_mine && !pairing->said_as) { /* as it was said before */
        memcpy(pairing->as, pairing->mine.as, sizeof(pairing->as));
    }
    memcpy(pairing->mine.as, pairing->as, sizeof(pairing->as));
    return pairing->has_mine ? print_mine(pairing, err) : 0;
}

static int write_mine(struct pairing *pairing, enum key_pair_state state, struct err *err)
{
    pairing->mine.state = state;
    int r = key_store_write(pairing->store, pairing->name, &pairing->mine, err);
    pairing->has_mine = r == 0;
    return r < 0 ? r : print_mine(pairing, err);
}

static void finish(struct pairing *pairing)
{
    explicit_bzero(&pairing->mine, sizeof(pairing->mine));
    if (pairing->lock >= 0)
        close(pairing->lock);
    if (pairing->store >= 0)
        close(pairing->store);
}

/* --- both ------------------------------------------------------------------------------------- */

static bool they_have(const struct pairing *pairing, const char *print)
{
    return *print && (strcmp(pairing->theirs.first, print) == 0 ||
                      strcmp(pairing->theirs.second, print) == 0);
}

static int offer(struct pairing *pairing, const struct link_key *key, const char *print,
                 struct err *err)
{
    if (they_have(pairing, print))
        return 0;
    return pair_talk_add(&pairing->talk, pairing->name, key, &pairing->theirs, err);
}

/* They have nothing but the key with which we call, and say so; then that is so here, too. */
static int settle(struct pairing *pairing, struct err *err)
{
    struct pair_prints *theirs = &pairing->theirs;

    int r = offer(pairing, &pairing->mine.key, pairing->print, err);
    if (r == 0 && (theirs->second[0] || strcmp(theirs->first, pairing->print) != 0))
        r = pair_talk_settle(&pairing->talk, pairing->print, theirs, err);
    if (r == 0 && (theirs->second[0] || strcmp(theirs->first, pairing->print) != 0))
        r = err_say(err, ERR_FAILED, EPROTO, "%s has another key than it was given", pairing->name);
    if (r == 0 && pairing->mine.state != KEY_PAIR_SETTLED)
        r = write_mine(pairing, KEY_PAIR_SETTLED, err);
    return r;
}

/* The lines of pair_talk.c's table, from wherever it stands. */
static int renew(struct pairing *pairing, struct err *err)
{
    struct key_pair *mine = &pairing->mine;
    int r = 0;

    pairing->renewed = true;
    if (mine->state != KEY_PAIR_NEXT) {
        r = link_key_make(&mine->other, err);
        if (r == 0)
            r = write_mine(pairing, KEY_PAIR_NEXT, err);
    }
    if (r == 0)
        r = offer(pairing, &mine->other, pairing->other_print, err);
    if (r < 0)
        return r;
    struct link_key next = mine->other;
    mine->other = mine->key;
    mine->key = next;
    explicit_bzero(&next, sizeof(next));
    r = write_mine(pairing, KEY_PAIR_BEFORE, err);
    return r < 0 ? r : settle(pairing, err);
}

/* Their key is this host's, under another name: both would have it, and one of them only until the
 * next renewal. */
static int check_other_names(struct pairing *pairing, struct err *err)
{
    struct key_store_names *names = malloc(sizeof(*names));
    struct pairing other = {.theirs = pairing->theirs};
    const char *found = NULL;
    int r = names ? key_store_list(pairing->store, names, err)
                  : err_sys(err, ERR_HOST, ENOMEM, "pair");

    for (size_t i = 0; r == 0 && !found && i < names->count; i++)
        if (key_store_read(pairing->store, names->names[i], &other.mine, NULL) == 0 &&
            print_mine(&other, NULL) == 0 &&
            (they_have(&other, other.print) || they_have(&other, other.other_print)))
            found = names->names[i];
    explicit_bzero(&other.mine, sizeof(other.mine));
    if (found) {
        const char *destination = pairing->talk.destination;
        r = err_say(err, ERR_STATE, EEXIST, "this host calls %s %s already", pairing->name, found);
        err_hint(err,
                 "that pair: minivmm pair %s --name %s; where %s is the right name: minivmm unpair "
                 "%s --name %s, and pair again",
                 destination, found, pairing->name, destination, found);
    }
    free(names);
    return r;
}

static int begin(struct pairing *pairing, struct err *err)
{
    int r = pairing->theirs.first[0] ? check_other_names(pairing, err) : 0;
    if (r < 0)
        return r;
    if (pairing->theirs.first[0] && !pairing->renew) {
        r = err_say(err, ERR_STATE, EEXIST,
                    "%s has a key for a host %s already, and this host has none for it",
                    pairing->name, pairing->as);
        err_hint(err, "--renew replaces it there; --as NAME if that is another host than this one");
        return r;
    }
    pairing->renewed = true;
    r = link_key_make(&pairing->mine.key, err);
    if (r == 0)
        r = write_mine(pairing, KEY_PAIR_SETTLED, err);
    return r < 0 ? r : settle(pairing, err);
}

static int say_they_differ(struct pairing *pairing, struct err *err)
{
    int r = err_say(err, ERR_STATE, ENOKEY, "the keys differ: %s here, %s at %s", pairing->print,
                    pairing->theirs.first, pairing->name);

    err_hint(err, "minivmm pair --renew %s%s%s makes them one", pairing->talk.destination,
             pairing->said_name ? " --name " : "", pairing->said_name ? pairing->name : "");
    return r;
}

/* One of mine is known there, or nothing is: what was begun can be ended. */
static int go_on(struct pairing *pairing, struct err *err)
{
    bool known = they_have(pairing, pairing->print) || they_have(pairing, pairing->other_print) ||
                 !pairing->theirs.first[0];
    int r = 0;

    if (!known && !pairing->renew)
        return say_they_differ(pairing, err);
    if (pairing->mine.state == KEY_PAIR_NEXT)
        return renew(pairing, err);
    if (known)
        r = settle(pairing, err);
    return r == 0 && pairing->renew ? renew(pairing, err) : r;
}

static int pair(struct pairing *pairing, struct err *err)
{
    int r = read_mine(pairing, err);
    if (r == 0)
        r = pair_talk_begin(&pairing->talk,
                            pairing->remote_command ? pairing->remote_command : "minivmm", err);
    if (r == 0)
        r = pair_talk_show(&pairing->talk, &pairing->theirs, err);
    bool were = pairing->has_mine && they_have(pairing, pairing->print);
    if (r == 0)
        r = pairing->has_mine ? go_on(pairing, err) : begin(pairing, err);
    pair_talk_end(&pairing->talk);
    if (r < 0)
        return r;
    log_info("%s: this host calls it %s, and is called %s there; both have key %s",
             !were              ? "paired"
             : pairing->renewed ? "paired anew"
                                : "they are paired already",
             pairing->name, pairing->as, pairing->print);
    return 0;
}

/* --- the verb pair ---------------------------------------------------------------------------- */

enum { PAIR_AS, PAIR_NAME, PAIR_RENEW, PAIR_REMOTE, PAIR_ACCEPT, PAIR_HELP };

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    struct pairing *pairing = ctx;

    if (what == PAIR_AS)
        pairing->said_as = value;
    else if (what == PAIR_NAME)
        pairing->said_name = value;
    else if (what == PAIR_RENEW)
        pairing->renew = true;
    else if (what == PAIR_REMOTE)
        pairing->remote_command = value;
    else if (what == PAIR_ACCEPT)
        pairing->accept = true;
    return 0;
}

#define SAY_AS   "what the other host calls this one (its host name)"
#define SAY_NAME "what this host calls the other one (HOST)"
#define SAY_REMOTE \
    "how minivmm is called there, for its shell (minivmm); \"sudo minivmm\" for root's pairs"

int verb_pair(int argc, char **argv)
{
    static const struct option table[] = {
        [PAIR_AS] = {"as", 0, "NAME", SAY_AS},
        [PAIR_NAME] = {"name", 0, "NAME", SAY_NAME},
        [PAIR_RENEW] = {"renew", 0, NULL, "a new key in the place of the one that both have"},
        [PAIR_REMOTE] = {"remote-command", 0, "COMMAND", SAY_REMOTE},
        [PAIR_ACCEPT] = {"accept", 0, NULL, "what ssh runs at the other host; for no one else"},
        [PAIR_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    struct pairing pairing = {.store = -1, .lock = -1};
    struct verb_words words = {
        .verb = "pair",
        .table = table,
        .count = array_size(table),
        .examples =
            "Examples:\n"
            "  minivmm pair hostB\n"
            "  minivmm pair ops@hostB --as hostA.example --remote-command \"sudo minivmm\"\n"
            "  minivmm pair hostB --renew\n"
            "\n"
            "Usage: minivmm pair [USER@]HOST [OPTION...]\n"
            "\n"
            "Gives this host and another one, where ssh leads, a key of their own: migrate, "
            "protect and standby\n"
            "use it from then on by themselves. Again it says that they are paired, or ends what "
            "was cut short.\n",
        .take = take_option,
        .ctx = &pairing,
        .most = 1};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    if (pairing.accept) {
        ret = pair_accept(STDIN_FILENO, STDOUT_FILENO, &err);
        return ret < 0 ? fail(&err) : 0;
    }
    if (words.word_count == 0) {
        ret = err_say(&err, ERR_USAGE, EINVAL, "pair: with which host?");
        err_hint(&err, "minivmm pair --help shows how; minivmm pairs lists those that are");
    }
    if (ret == 0)
        ret = name_both(&pairing, words.words[0], &err);
    if (ret == 0)
        ret = pair(&pairing, &err);
    finish(&pairing);
    return ret < 0 ? fail(&err) : 0;
}

/* --- unpair ----------------------------------------------------------------------------------- */

/* Here first: whatever the other host says, or does not say, it has no way in any more. */
static int unpair(struct pairing *pairing, struct err *err)
{
    int r = read_mine(pairing, err);
    bool sound = pairing->has_mine;

    if (pairing->store < 0 || pairing->lock < 0)
        return r;
    int removed = key_store_remove(pairing->store, pairing->name, err);
    if (removed == -ENOENT) {
        removed = err_say(err, ERR_NOT_FOUND, ENOENT, "this host has no pair %s", pairing->name);
        err_hint(err, "minivmm pairs lists those that it has");
    }
    if (removed < 0)
        return removed;
    if (!sound) {
        log_warning(
            "%s: its key was not sound, and is gone here; minivmm unpair %s removes it there",
            pairing->name, pairing->as);
        return 0;
    }
    r = pair_talk_begin(&pairing->talk,
                        pairing->remote_command ? pairing->remote_command : "minivmm", err);
    if (r == 0)
        r = pair_talk_drop(&pairing->talk, pairing->print, &pairing->theirs, err);
    pair_talk_end(&pairing->talk);
    if (r < 0) {
        err_prefix(err, "the key is gone here, and may still be at %s", pairing->name);
        err_hint(err, "there: minivmm unpair %s", pairing->as);
        return r;
    }
    log_info("%s: no pair any more, here and there", pairing->name);
    return 0;
}

enum { UNPAIR_AS, UNPAIR_NAME, UNPAIR_REMOTE, UNPAIR_HELP };

static int take_unpair_option(void *ctx, int what, const char *value, struct err *err)
{
    static const int as[] = {
        [UNPAIR_AS] = PAIR_AS, [UNPAIR_NAME] = PAIR_NAME, [UNPAIR_REMOTE] = PAIR_REMOTE};

    return take_option(ctx, as[what], value, err);
}

int verb_unpair(int argc, char **argv)
{
    static const struct option table[] = {
        [UNPAIR_AS] = {"as", 0, "NAME", "what the other host calls this one (as for pair)"},
        [UNPAIR_NAME] = {"name", 0, "NAME", SAY_NAME},
        [UNPAIR_REMOTE] = {"remote-command", 0, "COMMAND", SAY_REMOTE},
        [UNPAIR_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    struct pairing pairing = {.store = -1, .lock = -1};
    struct verb_words words = {
        .verb = "unpair",
        .table = table,
        .count = array_size(table),
        .examples = "Example:\n"
                    "  minivmm unpair hostB\n"
                    "\n"
                    "Usage: minivmm unpair [USER@]HOST [OPTION...]\n"
                    "\n"
                    "Removes the key of this host and another one, here and then there. What is "
                    "connected goes on;\n"
                    "it cannot connect again.\n",
        .take = take_unpair_option,
        .ctx = &pairing,
        .least = 1,
        .most = 1,
        .missing = "from which host?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = name_both(&pairing, words.words[0], &err);
    if (ret == 0)
        ret = unpair(&pairing, &err);
    finish(&pairing);
    return ret < 0 ? fail(&err) : 0;
}

/* --- pairs ------------------------------------------------------------------------------------ */

/* 0, or what is wrong with it. */
static int add_row(struct table *table, int store, const char *name, struct err *err)
{
    static const char *const states[] = {[KEY_PAIR_SETTLED] = "sound",
                                         [KEY_PAIR_NEXT] = "sound; a renewal is under way",
                                         [KEY_PAIR_BEFORE] = "sound; a renewal is under way"};
    char print[LINK_KEY_PRINT] = "-";
    struct key_pair pair = {.as = "-"};

    int r = key_store_read(store, name, &pair, err);
    if (r == 0)
        r = link_key_print(&pair.key, print, err);
    table_add(table, name);
    table_add(table, pair.as);
    table_add(table, print);
    table_add(table, r == 0 ? states[pair.state] : "not sound");
    explicit_bzero(&pair, sizeof(pair));
    return r;
}

/* What is wrong is said after the table; the first of it is the exit code. */
static int print_pairs(int store, struct err *err)
{
    static const char *const header[] = {"HOST", "CALLS THIS ONE", "KEY", "STATE", NULL};
    struct key_store_names *names = malloc(sizeof(*names));
    struct table table;
    size_t wrong = 0;

    int r = names ? key_store_list(store, names, err) : err_sys(err, ERR_HOST, ENOMEM, "pairs");
    table_init(&table, header);
    for (size_t i = 0; r == 0 && i < names->count; i++) {
        struct err why = {0};
        if (add_row(&table, store, names->names[i], &why) < 0 && wrong++ == 0)
            *err = why;
    }
    if (r == 0)
        table_print(&table);
    table_finish(&table);
    free(names);
    return r < 0 ? r : wrong ? -EINVAL : 0;
}

int verb_pairs(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct verb_words words = {.verb = "pairs",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Example:\n"
                                           "  minivmm pairs\n"
                                           "\n"
                                           "Usage: minivmm pairs\n"
                                           "\n"
                                           "Hosts that this one is paired with, the fingerprints "
                                           "of their keys, which are the same\n"
                                           "at both ends, and whether the files are as they "
                                           "have to be.\n"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    int store = key_store_open(false, &err);
    if (store == -ENOENT)
        return 0; /* none */
    ret = store < 0 ? store : print_pairs(store, &err);
    if (store >= 0)
        close(store);
    return ret < 0 ? fail(&err) : 0;
}
