/* SPDX-License-Identifier: MIT */
#include "cli/said.h"

#include "cli/table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *said_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

double said_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

void said_print_plain(const char *text)
{
    char *plain = strdup(text);
    if (plain)
        text_make_plain(plain);
    printf("%s", plain ? plain : "?");
    free(plain);
}

void said_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2));
    printf("\n");
}
