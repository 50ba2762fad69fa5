/* SPDX-License-Identifier: MIT */
#include "cli/vms.h"

#include "vmm/folder.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int take_word(struct verb_words *words, const char *word, struct err *err)
{
    if (words->word_count < words->most && words->word_count < array_size(words->words)) {
        words->words[words->word_count++] = word;
        return 0;
    }
    return err_say(err, ERR_USAGE, EINVAL, "%s: unexpected argument %s", words->verb, word);
}

/* The last of each table is --help. */
int verb_words_read(struct verb_words *words, int argc, char **argv, struct err *err)
{
    struct options options = {.verb = words->verb,
                              .table = words->table,
                              .count = words->count,
                              .argc = argc,
                              .argv = argv,
                              .at = 1};
    for (;;) {
        int what;
        const char *value;
        int ret = options_next(&options, &what, &value, err);
        if (ret == 0 && what == OPTIONS_END)
            break;
        if (ret == 0 && what == (int)words->count - 1) {
            printf("%s\nOptions:\n", words->examples);
            options_print(words->table, words->count);
            return 1;
        }
        if (ret == 0)
            ret = what == OPTIONS_ARGUMENT ? take_word(words, value, err)
                                           : words->take(words->ctx, what, value, err);
        if (ret < 0)
            return ret;
    }
    if (words->word_count >= words->least)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "%s: %s", words->verb, words->missing);
    err_hint(err, "minivmm %s --help shows how", words->verb);
    return ret;
}

int vm_find(const char *word, struct runtime_info *ret_info, struct err *err)
{
    int ret = runtime_find(word, ret_info, err);
    if (ret == 0 || !folder_is_vm(word))
        return ret;
    ret = err_say(err, ERR_STATE, ESRCH, "%s does not run", word);
    err_hint(err, "start it: minivmm run %s", word);
    return ret;
}

int vm_connect(const char *word, struct control_client **ret_client, struct runtime_info *ret_info,
               struct err *err)
{
    int ret = vm_find(word, ret_info, err);
    if (ret < 0)
        return ret;
    ret = control_connect(ret_client, ret_info->control, VM_ANSWER_MS, err);
    if (ret < 0) {
        err_prefix(err, "%s", ret_info->name);
        runtime_info_finish(ret_info);
    }
    return ret;
}

int vm_call(const char *word, const char *verb, json_t *arguments, json_t **ret_answer,
            struct err *err)
{
    struct control_client *client;
    struct runtime_info info;
    int ret = vm_connect(word, &client, &info, err);
    if (ret < 0) {
        json_decref(arguments);
        return ret;
    }
    json_t *answer = NULL;
    ret = control_call(client, verb, arguments, &answer, err);
    if (ret == 0 && ret_answer)
        *ret_answer = answer;
    else
        json_decref(answer);
    control_disconnect(client);
    runtime_info_finish(&info);
    return ret;
}
