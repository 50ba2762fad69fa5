/* SPDX-License-Identifier: MIT */
/* minivmm migrate: a VM that runs goes to another host. */
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "core/words.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 120000 };

struct migrate {
    const char *word;
    json_t *arguments;
    bool cancel, shared_disk;
    struct progress progress;
    uint64_t round;
};

static bool handle_event(void *ctx, const json_t *event)
{
    struct migrate *migrate = ctx;
    vm_show_progress(event, "migrate-progress", &migrate->progress);
    return true;
}

static double number(const json_t *answer, const char *key)
{
    return json_number_value(json_object_get(answer, key));
}

static void tell(const struct migrate *migrate, const json_t *answer)
{
    char size[32];
    double seconds = number(answer, "rounds_ms") / 1000;
    format_size((uint64_t)number(answer, "bytes"), size, sizeof(size));
    log_info("%s runs on %s: %s in %.0f rounds and %.1f s", migrate->word,
             json_string_value(json_object_get(answer, "to")), size, number(answer, "rounds"),
             seconds);
    if (migrate->shared_disk)
        log_info("its disks stayed where they are, and changed hands in %.1f ms",
                 number(answer, "disks_ms"));
    log_info("it stood still for %.1f ms: state %.1f, last pages %.1f, loading %.1f, going on %.1f",
             number(answer, "downtime_ms"), number(answer, "state_ms"), number(answer, "last_ms"),
             number(answer, "load_ms"), number(answer, "resume_ms"));
    const json_t *announced = json_object_get(answer, "announce_ms");
    if (json_is_null(announced))
        log_info("its network was not told: no interface of its guest is up");
    else if (announced)
        log_info("its network was told over there %.1f ms after the hand-over",
                 json_number_value(announced));
    if (number(answer, "throttle") > 0)
        log_info("it wrote faster than the connection, and was slowed down by %.0f %%",
                 number(answer, "throttle"));
    if (json_is_true(json_object_get(answer, "too_long")))
        log_warning("that is longer than --downtime");
}

static int move(struct migrate *migrate, struct err *err)
{
    struct control_client *client;
    struct runtime_info info;
    json_t *answer = NULL;
    int ret = runtime_find(migrate->word, &info, err);
    if (ret < 0)
        return ret;
    int process = vm_open_process(&info, NULL);
    ret = vm_connect_to(&info, PATIENCE_MS, &client, err);
    if (ret == 0) {
        control_hear(client, handle_event, migrate);
        ret = control_call(client, "watch", NULL, NULL, err);
        progress_begin(&migrate->progress, migrate->word);
        if (ret == 0)
            ret = control_call(client, "migrate", json_incref(migrate->arguments), &answer, err);
        progress_end(&migrate->progress);
        control_disconnect(client);
    }
    if (ret == 0)
        tell(migrate, answer);
    vm_see_off(process, &info, ret == 0);
    json_decref(answer);
    runtime_info_finish(&info);
    return ret;
}

enum {
    MIGRATE_KEY,
    MIGRATE_INSECURE,
    MIGRATE_DOWNTIME,
    MIGRATE_COMPRESS,
    MIGRATE_VERIFY,
    MIGRATE_SHARED_DISK,
    MIGRATE_CANCEL,
    MIGRATE_HELP
};

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    struct migrate *migrate = ctx;
    uint64_t ms;
    int ret = 0;
    switch (what) {
    case MIGRATE_KEY:
        return vm_put_key(migrate->arguments, value, err);
    case MIGRATE_INSECURE:
        json_object_set_new(migrate->arguments, "insecure", json_true());
        return 0;
    case MIGRATE_DOWNTIME:
        ret = parse_number(value, "--downtime", 1, 3600000, &ms, err);
        if (ret == 0)
            json_object_set_new(migrate->arguments, "downtime_ms", json_integer((json_int_t)ms));
        return ret;
    case MIGRATE_COMPRESS:
        json_object_set_new(migrate->arguments, "compress", json_true());
        return 0;
    case MIGRATE_VERIFY:
        json_object_set_new(migrate->arguments, "verify", json_true());
        return 0;
    case MIGRATE_SHARED_DISK:
        migrate->shared_disk = true;
        json_object_set_new(migrate->arguments, "shared_disk", json_true());
        return 0;
    case MIGRATE_CANCEL:
        migrate->cancel = true;
        return 0;
    default:
        return 0;
    }
}

int verb_migrate(int argc, char **argv)
{
    static const struct option table[] = {
        [MIGRATE_KEY] = {"key", 0, "FILE", "this key, and not that of minivmm pair"},
        [MIGRATE_INSECURE] = {"insecure", 0, NULL,
                              "without a key, though others can read and change what is sent"},
        [MIGRATE_DOWNTIME] = {"downtime", 0, "MS", "how long it may stand still (300)"},
        [MIGRATE_COMPRESS] = {"compress", 0, NULL, "memory by LZ4 and by what has changed"},
        [MIGRATE_VERIFY] = {"verify", 0, NULL, "compare memory and disks on both hosts first"},
        [MIGRATE_SHARED_DISK] = {"shared-disk", 0, NULL,
                                 "both hosts see the disks' files, which stay where they are"},
        [MIGRATE_CANCEL] = {"cancel", 0, NULL, "a migration that is under way; it goes on here"},
        [MIGRATE_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    struct migrate migrate = {.arguments = json_object()};
    struct verb_words words = {
        .verb = "migrate",
        .table = table,
        .count = array_size(table),
        .examples = "Examples:\n"
                    "  minivmm migrate web1 hostB\n"
                    "  minivmm migrate web1 hostB --shared-disk\n"
                    "  minivmm migrate web1 --cancel\n"
                    "\n"
                    "Usage: minivmm migrate VM HOST[:PORT] [OPTION...]\n"
                    "\n"
                    "The VM goes on over there, where minivmm standby waits, with its disks and "
                    "its memory.\n"
                    "Until it does it goes on here, whatever happens. Its folder stays here, and "
                    "does not run.\n",
        .take = take_option,
        .ctx = &migrate,
        .least = 1,
        .most = 2,
        .missing = "a VM and a host are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret == 0) {
        migrate.word = words.words[0];
        if (migrate.cancel && words.word_count == 1)
            ret = vm_call(migrate.word, "migrate-cancel", NULL, NULL, &err);
        else if (migrate.cancel || words.word_count != 2)
            ret = err_say(&err, ERR_USAGE, EINVAL,
                          migrate.cancel ? "migrate --cancel takes a VM, and no host"
                                         : "migrate: to which host?");
        else {
            json_object_set_new(migrate.arguments, "to", json_string(words.words[1]));
            ret = move(&migrate, &err);
        }
    } else if (ret > 0) {
        ret = 0;
    }
    json_decref(migrate.arguments);
    return ret < 0 ? fail(&err) : 0;
}
