/* SPDX-License-Identifier: MIT */
/* minivmm epochs: why a protected guest stood still. */
#include "ft/epochs.h"
#include "cli/protection_text.h"
#include "cli/said.h"
#include "cli/verbs.h"
#include "cli/vms.h"

#include <stdio.h>

enum { EPOCHS_LAST, EPOCHS_JSON, EPOCHS_HELP, DEFAULT_LAST = 20 };

struct wish {
    bool json;
    uint64_t last;
};

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    struct wish *wish = ctx;
    if (what == EPOCHS_LAST)
        return parse_number(value, "--last", 1, EPOCHS_KEPT, &wish->last, err);
    wish->json |= what == EPOCHS_JSON;
    return 0;
}

static void print(const char *word, const json_t *answer, const struct wish *wish)
{
    if (wish->json)
        said_print_json(json_object_get(answer, "epochs"));
    else if (json_array_size(json_object_get(answer, "epochs")) > 0)
        protection_print_epochs(answer);
    else
        fprintf(stderr, "%s has no epochs: nobody has followed it\n", word);
}

int verb_epochs(int argc, char **argv)
{
    static const struct option table[] = {
        [EPOCHS_LAST] = {"last", 'n', "N", "how many of them (20)"},
        [EPOCHS_JSON] = {"json", 0, NULL, "one JSON array, for programs, which tells more"},
        [EPOCHS_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct wish wish = {.last = DEFAULT_LAST};
    struct err err = {0};
    json_t *answer = NULL;
    struct verb_words words = {
        .verb = "epochs",
        .table = table,
        .count = array_size(table),
        .examples = "Examples:\n"
                    "  minivmm epochs web1\n"
                    "  minivmm epochs web1 --last 1000 --json\n"
                    "\n"
                    "Usage: minivmm epochs VM [OPTION...]\n"
                    "\n"
                    "The last epochs of a protected VM: what ended each, how long the guest stood "
                    "still for it, and\n"
                    "for which part; what was sent, and when its twin had it.\n",
        .take = take_option,
        .ctx = &wish,
        .least = 1,
        .most = 1,
        .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret > 0)
        return 0;
    if (ret == 0)
        ret = vm_call(words.words[0], "epochs", json_pack("{sI}", "last", (json_int_t)wish.last),
                      &answer, &err);
    if (ret == 0)
        print(words.words[0], answer, &wish);
    json_decref(answer);
    return ret < 0 ? fail(&err) : 0;
}
