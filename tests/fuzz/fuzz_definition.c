/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a vm.json. What is checked, besides what the sanitizers see: it is either taken,
 * with numbers in their bounds, or sentences come, printable, each with its place and in the order
 * of the file. And any bytes are walked for places, be they JSON or not.
 */
#include "tests/fuzz/program.h"
#include "vmm/definition.h"
#include "vmm/json_places.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

#define NAME "web1/vm.json"

struct heard {
    unsigned count, line, column;
};

static void handle_problem(void *ctx, const char *sentence)
{
    struct heard *heard = ctx;
    unsigned line, column;
    int used = 0;

    heard->count++;
    for (const char *at = sentence; *at; at++)
        require((unsigned char)*at >= ' ' && *at != 0x7f);
    if (heard->count > 100) { /* "and 12 more" */
        require(heard->count == 101);
        return;
    }
    require(sscanf(sentence, NAME ":%u:%u: %n", &line, &column, &used) == 2 && used > 0);
    require(sentence[used] && line > 0 && column > 0);
    require(line > heard->line || (line == heard->line && column >= heard->column));
    heard->line = line;
    heard->column = column;
}

static void check_definition(const struct definition *definition)
{
    require(definition->cpus >= 1 && definition->cpus <= 1024);
    require(definition->memory >= 2 << 20 && definition->memory % 4096 == 0);
    require(definition->balloon < definition->memory);
    require(definition->disk_count + definition->has_seed <= MACHINE_MAX_DISKS);
    require(definition->disk_count > 0 || definition->kernel);
    require(definition->net_count <= MACHINE_MAX_NETS);
    for (unsigned i = 0; i < definition->disk_count; i++) {
        const struct disk_config *disk = &definition->disks[i];
        require(disk->path && disk->path[0] && memchr(disk->serial, '\0', sizeof(disk->serial)));
    }
    for (unsigned i = 0; i < definition->net_count; i++) {
        const struct netif_config *net = &definition->nets[i];
        require(net->mode != NETIF_NONE && memchr(net->name, '\0', sizeof(net->name)));
        for (unsigned j = 0; j < net->forward_count; j++)
            require(net->forwards[j].host_port && net->forwards[j].guest_port);
    }
}

static void check_places(const char *text, size_t length)
{
    struct json_places places = {0};
    struct json_spot stop;
    struct err err;
    char path[256];

    if (json_places_find(&places, text, length, &stop, &err) < 0) {
        require(stop.line > 0 && stop.column > 0 && err.text[0]);
        return;
    }
    for (uint32_t i = 0; i < places.count; i++) {
        const struct json_place *at = &places.at[i];
        require(at->value.line > 0 && at->value.column > 0 && at->text >= text);
        require(at->text + at->length <= text + length);
        require(at->next == JSON_NOWHERE || (at->next > i && at->next < places.count));
        require(at->parent == JSON_NOWHERE || at->parent < i);
        json_places_path(&places, i, path, sizeof(path));
    }
    json_places_finish(&places);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    /* A copy that has exactly these bytes, without a zero behind them. */
    char *text = malloc(length ? length : 1);
    struct heard heard = {0};
    const struct definition_judge judge = {.problem = handle_problem, .ctx = &heard};
    struct definition *definition = NULL;
    struct err err = {0};

    require(text);
    if (length)
        memcpy(text, bytes, length);
    check_places(text, length);
    int ret = definition_parse(&definition, text, length, NAME, "web1", &judge, &err);
    if (ret == 0) {
        require(heard.count == 0);
        check_definition(definition);
    } else {
        require(ret == -EINVAL && err.kind == ERR_DEFINITION && heard.count > 0 && !definition);
        require(definition_parse(&definition, text, length, NAME, "web1", NULL, &err) == ret);
        require(strncmp(err.text, NAME ":", strlen(NAME ":")) == 0);
    }
    definition_destroy(definition);
    free(text);
    return 0;
}
