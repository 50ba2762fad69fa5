/* SPDX-License-Identifier: MIT */
/*
 * vm.json, from its bytes to a struct definition:
 *
 *   1. The file is regular, and 1 MiB at most.
 *   2. Its bytes are UTF-8 without a byte order mark and without NUL.
 *   3. jansson parses it. Where it cannot, definition_explain() says why, and that is all that is
 *      told: behind a syntax error everything is a guess.
 *   4. Every value and key gets its place (json_places.c): 4096 of them, in 32 levels, at most.
 *   5. The tables read it, the rules look at what does not go together, and all problems are told
 * in the order of the file.
 */
#include "vmm/definition_parts.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_TEXT = 1 << 20 };

static const struct definition defaults = {.cpus = 1, .memory = 512ull << 20};

void definition_destroy(struct definition *definition)
{
    void *link = definition ? definition->arena : NULL;
    while (link) {
        void *next = *(void **)link;
        free(link);
        link = next;
    }
    free(definition);
}

/* --- text ----------------------------------------------------------------------------------- */

static void read_text(struct definition_reader *reader, const char *text, size_t length)
{
    json_error_t error = {0};
    struct json_spot stop = {.line = 1, .column = 1};
    struct err err = {0};

    if (length > MAX_TEXT) {
        definition_problem(&reader->problems, stop,
                           "there is more than 1 MiB: this is no definition of a VM");
        return;
    }
    if (!definition_check_bytes(&reader->problems, text, length))
        return;
    /* Numbers of any length are taken, and judged by what their key may say. */
    json_t *root = json_loadb(text, length, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
    if (!root && json_error_code(&error) == json_error_out_of_memory)
        reader->problems.no_memory = true;
    else if (!root)
        definition_explain(&reader->problems, text, length, &error);
    else if (json_places_find(&reader->places, text, length, &stop, &err) < 0)
        definition_problem(&reader->problems, stop, "%s", err.text);
    else
        definition_read(reader, root);
    json_decref(root);
}

int definition_parse(struct definition **ret_definition, const char *text, size_t length,
                     const char *name, const char *folder, const struct definition_judge *judge,
                     struct err *err)
{
    struct definition_reader *reader = calloc(1, sizeof(*reader));
    struct definition *definition = malloc(sizeof(*definition));
    int ret = -ENOMEM;

    if (!reader || !definition) {
        err_sys(err, ERR_HOST, ENOMEM, "cannot read %s", name);
        goto done;
    }
    *definition = defaults;
    reader->definition = definition;
    reader->folder = folder[0] ? folder : ".";
    reader->problems.name = name;
    read_text(reader, text, length);
    ret = definition_judge(&reader->problems, judge, err);
    json_places_finish(&reader->places);
    definition_forget(&reader->problems);
done:
    free(reader);
    if (ret == 0)
        *ret_definition = definition;
    else
        definition_destroy(definition);
    return ret;
}

/* --- file ----------------------------------------------------------------------------------- */

static int cannot_open(const char *name, const char *folder, int errnum, struct err *err)
{
    if (errnum == ENOENT || errnum == ENOTDIR) {
        int ret = err_sys(err, ERR_NOT_FOUND, errnum, "%s", name);
        err_hint(err, "a VM is a folder with a " FOLDER_DEFINITION
                      "; the least that can be in it: {\"disks\": [{\"file\": \"disk.img\"}]}");
        return ret;
    }
    int ret = err_sys(err, ERR_FAILED, errnum, "cannot read %s", name);
    if (errnum == EACCES)
        err_hint(err, "see who may: ls -ld '%s' '%s'", folder, name);
    return ret;
}

/* One byte more than is allowed, so that definition_parse can tell. */
static int read_all(int fd, char *text, size_t *ret_length)
{
    size_t length = 0;
    for (;;) {
        ssize_t got = read(fd, text + length, MAX_TEXT + 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        length += (size_t)got;
        if (got == 0 || length > MAX_TEXT)
            break;
    }
    *ret_length = length;
    return 0;
}

static int read_file(const char *name, const char *folder, char *text, size_t *ret_length,
                     struct err *err)
{
    struct stat stat;
    /* Nothing that waits for somebody: a pipe in the place of a file must not stop anybody. */
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return cannot_open(name, folder, errno, err);
    int ret = fstat(fd, &stat) < 0 ? -errno : 0;
    if (ret == 0 && !S_ISREG(stat.st_mode)) {
        close(fd);
        return err_say(err, ERR_DEFINITION, EINVAL, "%s is no regular file", name);
    }
    if (ret == 0)
        ret = read_all(fd, text, ret_length);
    close(fd);
    return ret < 0 ? cannot_open(name, folder, -ret, err) : 0;
}

/* "web1/" is web1, and "." needs no name. */
static char *name_file(const char *folder)
{
    char *name;
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    bool here = length == 1 && folder[0] == '.';
    bool root = length == 1 && folder[0] == '/';
    if (asprintf(&name, "%.*s%s%s", here ? 0 : (int)length, folder, here || root ? "" : "/",
                 FOLDER_DEFINITION) < 0)
        return NULL;
    return name;
}

int definition_load(struct definition **ret_definition, const char *folder,
                    const struct definition_judge *judge, struct err *err)
{
    char *name = name_file(folder), *text = malloc(MAX_TEXT + 1);
    size_t length = 0;
    int ret;

    if (!name || !text)
        ret = err_sys(err, ERR_HOST, ENOMEM, "cannot read %s/%s", folder, FOLDER_DEFINITION);
    else
        ret = read_file(name, folder, text, &length, err);
    if (ret == 0)
        ret = definition_parse(ret_definition, text, length, name, folder, judge, err);
    free(text);
    free(name);
    return ret;
}
