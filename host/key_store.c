/* SPDX-License-Identifier: MIT */
/*
 * One file a pair, NAME.key:
 *
 *   64 hex digits          the key with which this host calls
 *   as NAME                what the other host calls this one
 *   next 64 hex digits     one more key that is good for who calls: it shall take the first's place
 *   before 64 hex digits   the same: it had it
 *
 * Rules: 1. The first two lines are there, of the others none or one; each ends with a newline, and
 * nothing follows. 2. NAME is one (key_store_name). 3. A file is replaced as a whole, durably: a
 * renewal (cli/pair_talk.c) goes from one of these states to the next, and may end at any.
 */
#include "host/key_store.h"
#include "host/link_parts.h"
#include "host/lock.h"
#include "host/secret_file.h"
#include "host/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENDING ".key"
#define LOCK   ".lock"
enum {
    MOST_BYTES = 1024,
    DIGITS = 2 * LINK_KEY_BYTES,
    FILE_NAME = KEY_STORE_NAME + sizeof(ENDING)
};

/* Names. */

static bool fits_name(const char *text)
{
    static const char others[] = ".-_:%";

    if (strlen(text) >= KEY_STORE_NAME || !*text || strchr(".-%", *text))
        return false;
    for (const char *at = text; *at; at++) {
        bool letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z');
        if (!letter && !(*at >= '0' && *at <= '9') && !strchr(others, *at))
            return false;
    }
    return true;
}

int key_store_name(char ret_name[KEY_STORE_NAME], const char *text, struct err *err)
{
    if (!fits_name(text)) {
        int r = err_say(err, ERR_USAGE, EINVAL, "%.200s is no name of a host",
                        *text ? text : "\"\"");
        err_hint(err, "letters, digits, '.', '-', '_' and ':', as in hostB.example");
        return r;
    }
    size_t i = 0;
    for (; text[i]; i++)
        ret_name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    ret_name[i] = 0;
    return 0;
}

static void name_file(char ret_file[FILE_NAME], const char *name)
{
    snprintf(ret_file, FILE_NAME, "%s%s", name, ENDING);
}

/* The folder. */

static bool put_path(char ret_path[PATH_MAX], const char *parent, const char *more)
{
    return parent && *parent == '/' &&
           snprintf(ret_path, PATH_MAX, "%s%s", parent, more) < PATH_MAX - FILE_NAME - 1;
}

int key_store_path(char ret_path[PATH_MAX], struct err *err)
{
    const char *said = secure_getenv("MINIVMM_KEYS_DIR");

    if (said && *said) {
        if (put_path(ret_path, said, ""))
            return 0;
        int r = err_say(err, ERR_HOST, EINVAL, "MINIVMM_KEYS_DIR=%.200s cannot be used", said);
        err_hint(err, "it has to be a whole path");
        return r;
    }
    if (geteuid() == 0 && put_path(ret_path, "/etc", "/minivmm/keys"))
        return 0;
    if (put_path(ret_path, secure_getenv("XDG_CONFIG_HOME"), "/minivmm/keys") ||
        put_path(ret_path, secure_getenv("HOME"), "/.config/minivmm/keys"))
        return 0;
    int r = err_say(err, ERR_HOST, EINVAL, "there is no place for keys: HOME is not set");
    err_hint(err, "set HOME, or MINIVMM_KEYS_DIR to a folder");
    return r;
}

static int make_folder(const char *path)
{
    char part[PATH_MAX];

    snprintf(part, sizeof(part), "%s", path);
    for (char *at = strchr(part + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return -errno;
        *at = '/';
    }
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int check_folder(int fd, const char *path, struct err *err)
{
    struct stat stat;
    int r;

    if (fstat(fd, &stat) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot look at the folder of keys %s", path);
    if (stat.st_uid != geteuid() && stat.st_uid != 0) {
        r = err_say(err, ERR_STATE, EPERM, "the folder of keys %s belongs to another user", path);
        err_hint(err, "sudo chown $USER %s", path);
        return r;
    }
    if (stat.st_mode & 077) {
        r = err_say(err, ERR_STATE, EPERM, "others can get into the folder of keys %s", path);
        err_hint(err, "chmod 700 %s; minivmm pair --renew makes new keys if somebody did", path);
        return r;
    }
    return 0;
}

int key_store_open(bool make, struct err *err)
{
    char path[PATH_MAX];

    int r = key_store_path(path, err);
    if (r < 0)
        return r;
    if (make && (r = make_folder(path)) < 0) {
        r = err_sys(err, ERR_FAILED, -r, "cannot make the folder of keys %s", path);
        err_hint(err, "MINIVMM_KEYS_DIR can name another one");
        return r;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        r = err_sys(err, error == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, error,
                    "cannot open the folder of keys %s", path);
        if (error == ENOENT)
            err_hint(err, "minivmm pair HOST makes it");
        else if (error == ELOOP || error == ENOTDIR)
            err_hint(err, "it has to be a folder itself, and no symbolic link to one");
        return r;
    }
    r = check_folder(fd, path, err);
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

int key_store_lock(int *ret_lock, int store, struct err *err)
{
    int fd = small_file_append(store, LOCK, 0600);

    if (fd < 0)
        return err_sys(err, ERR_FAILED, -fd, "cannot lock the folder of keys");
    int r = lock_try(fd, false);
    if (r < 0) {
        close(fd);
        r = err_say(err, ERR_STATE, EAGAIN, "somebody else is pairing hosts here just now");
        err_hint(err, "wait until that minivmm pair has ended, and try again");
        return r;
    }
    *ret_lock = fd;
    return 0;
}

/* Files. */

static int say_not_sound(const char *file, const char *why, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL, "the key file %s is not sound: %s", file, why);

    err_hint(err, "remove it, and pair the hosts again: minivmm pair --renew");
    return r;
}

/* The line at *at, which ends there; NULL: there is none. */
static char *take_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');

    if (!end)
        return NULL;
    *end = 0;
    *at = end + 1;
    return line;
}

static bool take_key(const char *digits, struct link_key *ret_key)
{
    return strlen(digits) == DIGITS && link_key_parse(ret_key, digits);
}

/* The text is used up. NULL, or what is wrong. */
static const char *parse(struct key_pair *ret_pair, char *text, size_t length)
{
    static const char as[] = "as ", next[] = "next ", before[] = "before ";
    struct key_pair pair = {0};
    char *at = text, *line;

    if (strlen(text) != length)
        return "it has a zero byte";
    if (!(line = take_line(&at)) || !take_key(line, &pair.key))
        return "its first line is no key";
    if (!(line = take_line(&at)) || strncmp(line, as, strlen(as)) != 0 ||
        key_store_name(pair.as, line + strlen(as), NULL) < 0)
        return "its second line names no host";
    line = take_line(&at);
    if (line && strncmp(line, next, strlen(next)) == 0) {
        pair.state = KEY_PAIR_NEXT;
        line += strlen(next);
    } else if (line && strncmp(line, before, strlen(before)) == 0) {
        pair.state = KEY_PAIR_BEFORE;
        line += strlen(before);
    }
    if (line && (pair.state == KEY_PAIR_SETTLED || !take_key(line, &pair.other)))
        return "its third line is no key";
    if (*at)
        return "there is more in it";
    *ret_pair = pair;
    explicit_bzero(&pair, sizeof(pair));
    return NULL;
}

int key_store_read(int store, const char *name, struct key_pair *ret_pair, struct err *err)
{
    char file[FILE_NAME], *text = NULL;
    size_t length = 0;

    name_file(file, name);
    int fd = openat(store, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno == ELOOP)
        return say_not_sound(file, "it is a symbolic link", err);
    if (fd < 0)
        return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno,
                       "cannot read the key file %s", file);
    int r = secret_file_check(fd, file, "the key", err);
    if (r == 0) {
        r = small_file_read(fd, MOST_BYTES, &text, &length);
        if (r == -EFBIG)
            r = say_not_sound(file, "it is too large", err);
        else if (r < 0)
            r = err_sys(err, ERR_FAILED, -r, "cannot read the key file %s", file);
    }
    close(fd);
    const char *wrong = r == 0 ? parse(ret_pair, text, length) : NULL;
    if (wrong)
        r = say_not_sound(file, wrong, err);
    if (text)
        explicit_bzero(text, length);
    free(text);
    return r;
}

int key_store_write(int store, const char *name, const struct key_pair *pair, struct err *err)
{
    static const char *const words[] = {[KEY_PAIR_NEXT] = "next", [KEY_PAIR_BEFORE] = "before"};
    char file[FILE_NAME], digits[LINK_KEY_TEXT], text[MOST_BYTES];

    name_file(file, name);
    link_key_format(&pair->key, digits);
    int length = snprintf(text, sizeof(text), "%s\nas %s\n", digits, pair->as);
    if (pair->state != KEY_PAIR_SETTLED) {
        link_key_format(&pair->other, digits);
        length += snprintf(text + length, sizeof(text) - (size_t)length, "%s %s\n",
                           words[pair->state], digits);
    }
    const struct small_file made = {
        .bytes = text, .length = (size_t)length, .durable = true, .mode = 0600};
    int r = small_file_replace(store, file, &made, err);
    explicit_bzero(digits, sizeof(digits));
    explicit_bzero(text, sizeof(text));
    return r;
}

int key_store_remove(int store, const char *name, struct err *err)
{
    char file[FILE_NAME];

    name_file(file, name);
    if (unlinkat(store, file, 0) < 0 || fsync(store) < 0)
        return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno,
                       "cannot remove the key file %s", file);
    return 0;
}

static bool is_pair(const char *file, char ret_name[KEY_STORE_NAME])
{
    size_t length = strlen(file), ending = strlen(ENDING);

    if (length <= ending || length - ending >= KEY_STORE_NAME ||
        strcmp(file + length - ending, ENDING) != 0)
        return false;
    memcpy(ret_name, file, length - ending);
    ret_name[length - ending] = 0;
    return fits_name(ret_name);
}

static int compare(const void *one, const void *other)
{
    return strcmp(one, other);
}

int key_store_list(int store, struct key_store_names *ret_names, struct err *err)
{
    char name[KEY_STORE_NAME];
    struct dirent *entry;
    int again = openat(store, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);

    if (!folder) {
        int r = err_sys(err, ERR_FAILED, errno, "cannot list the folder of keys");
        if (again >= 0)
            close(again);
        return r;
    }
    ret_names->count = 0;
    while (ret_names->count < KEY_STORE_MOST && (entry = readdir(folder)))
        if (is_pair(entry->d_name, name))
            memcpy(ret_names->names[ret_names->count++], name, sizeof(name));
    closedir(folder);
    qsort(ret_names->names, ret_names->count, sizeof(ret_names->names[0]), compare);
    return 0;
}

/* Who is called. */

static int check_pair(int store, const char *name, struct err *err)
{
    struct key_pair pair;
    int r = key_store_read(store, name, &pair, err);

    explicit_bzero(&pair, sizeof(pair));
    return r;
}

static int find_for(char ret_path[PATH_MAX], const char *text, struct err *err)
{
    struct link_address address;
    char name[KEY_STORE_NAME];
    struct err why = {0};

    ret_path[0] = 0;
    if (link_address_parse(&address, text, false, NULL) < 0 ||
        key_store_name(name, address.host, NULL) < 0)
        return 0; /* no paired host; what is wrong with it is said where it is connected to */
    int store = key_store_open(false, &why);
    int r = store < 0 ? store : check_pair(store, name, &why);
    if (store >= 0)
        close(store);
    if (r == -ENOENT)
        return 0;
    if (r < 0) {
        if (err)
            *err = why;
        return r;
    }
    r = key_store_path(ret_path, err);
    if (r == 0)
        snprintf(ret_path + strlen(ret_path), PATH_MAX - strlen(ret_path), "/%s%s", name, ENDING);
    return r;
}

int key_store_for(char ret_path[PATH_MAX], const char *address, struct err *err)
{
    char one[300];
    int r = 0;

    ret_path[0] = 0;
    for (const char *at = address; r == 0 && !ret_path[0] && *at; at += *at == ',') {
        size_t length = strcspn(at, ",");
        snprintf(one, sizeof(one), "%.*s", (int)length, at);
        r = find_for(ret_path, one, err);
        at += length;
    }
    return r;
}

bool key_store_has_path(const char *path)
{
    char store[PATH_MAX];

    if (key_store_path(store, NULL) < 0)
        return false;
    size_t length = strlen(store);
    return strncmp(path, store, length) == 0 && path[length] == '/';
}

/* Who calls. */

static bool is_print_of(const struct link_key *key, const char *print)
{
    char its[LINK_KEY_PRINT];

    return link_key_print(key, its, NULL) == 0 && strcmp(its, print) == 0;
}

static bool find_in(struct key_finder *finder, int store, const char *name, const char *print)
{
    struct key_pair pair;
    bool found = false;

    if (key_store_read(store, name, &pair, NULL) < 0)
        return false;
    if (is_print_of(&pair.key, print)) {
        finder->key = pair.key;
        found = true;
    } else if (pair.state != KEY_PAIR_SETTLED && is_print_of(&pair.other, print)) {
        finder->key = pair.other;
        found = true;
    }
    explicit_bzero(&pair, sizeof(pair));
    return found && key_store_path(finder->path, NULL) == 0;
}

static int find(struct link_keys *keys, const char *print, struct link_key *ret_key)
{
    struct key_finder *finder = container_of(keys, struct key_finder, keys);
    struct key_store_names *names;
    bool found = false;

    if (strlen(print) != LINK_KEY_PRINT - 1)
        return -ENOENT;
    int store = key_store_open(false, NULL);
    if (store < 0)
        return store;
    names = malloc(sizeof(*names));
    if (names && key_store_list(store, names, NULL) == 0)
        for (size_t i = 0; i < names->count && !found; i++)
            if ((found = find_in(finder, store, names->names[i], print))) {
                size_t length = strlen(finder->path);
                snprintf(finder->path + length, PATH_MAX - length, "/%s%s", names->names[i],
                         ENDING);
                *ret_key = finder->key;
            }
    free(names);
    close(store);
    return found ? 0 : -ENOENT;
}

void key_finder_init(struct key_finder *finder)
{
    *finder = (struct key_finder){.keys = {.find = find}};
}
