/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as what a client sends to the control socket, and after "console" as keys.
 *
 * The input: one byte (bits 0 to 5: how many bytes are sent at a time, in steps of 37, 0: one by
 * one; bit 6: answers are read in between; bit 7: the client closes without having read the rest),
 * and the client's bytes. The verbs: "echo", "fail", "defer" (answered by "release", or at the
 * end), "event", "console" (a guest that echoes, and takes few keys at a time).
 *
 * What is checked, besides what the sanitizers see: all that comes back before a console is lines,
 * each an object with "event", or with "id" and either "ok" or "error"; and whatever was sent, the
 * next client is served.
 */
#include "tests/fuzz/program.h"
#include "vmm/console_hub.h"
#include "vmm/control.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { MOST_DEFERRED = 70, MOST_INPUT = 200 << 10, ROOM = 1 << 20, QUIET_TURNS = 6 };

struct world {
    struct loop *loop;
    struct control *control;
    struct console_hub *hub;
    struct control_request *deferred[MOST_DEFERRED];
    unsigned deferrals;
    unsigned taken; /* connections that became a console */
    char folder[32], path[64];
    char *got; /* what came back */
    size_t got_length;
};

/* --- the VM ------------------------------------------------------------------------------- */

static int handle_echo(void *ctx, struct control_request *request, const json_t *arguments,
                       json_t **ret_answer, struct err *err)
{
    *ret_answer = json_deep_copy(arguments);
    return 0;
}

static int handle_fail(void *ctx, struct control_request *request, const json_t *arguments,
                       json_t **ret_answer, struct err *err)
{
    static const char *const known[] = {"text", NULL};
    int ret = control_check_keys(arguments, known, err);
    if (ret < 0)
        return ret;
    const char *text = json_string_value(json_object_get(arguments, "text"));
    return err_say(err, ERR_STATE, EBUSY, "%.17s", text ? text : "");
}

static int handle_defer(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    struct world *world = ctx;
    control_defer(request);
    if (world->deferrals < MOST_DEFERRED)
        world->deferred[world->deferrals++] = request;
    else
        control_answer(request, NULL, NULL);
    return 0;
}

static void release_all(struct world *world)
{
    while (world->deferrals > 0)
        control_answer(world->deferred[--world->deferrals], NULL, NULL);
}

static int handle_release(void *ctx, struct control_request *request, const json_t *arguments,
                          json_t **ret_answer, struct err *err)
{
    release_all(ctx);
    return 0;
}

static int handle_event(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    struct world *world = ctx;
    control_event(world->control, "event", json_deep_copy(arguments));
    return 0;
}

static int handle_console(void *ctx, struct control_request *request, const json_t *arguments,
                          json_t **ret_answer, struct err *err)
{
    struct world *world = ctx;
    void *early;
    size_t length;
    int fd, ret = control_take_over(request, NULL, &fd, &early, &length, err);
    if (ret < 0)
        return ret;
    world->taken++;
    ret = console_hub_attach(world->hub, fd, early, length, err);
    free(early);
    return ret;
}

static size_t handle_keys(void *ctx, const uint8_t *bytes, size_t length)
{
    struct world *world = ctx;
    size_t taken = length < 5 ? length : length - length / 3;
    for (size_t i = 0; i < taken; i++)
        if (bytes[i] == 'X')
            for (unsigned times = 0; times < 300; times++)
                console_hub_write(world->hub, bytes, taken);
    console_hub_write(world->hub, bytes, taken);
    console_hub_input_room(world->hub);
    return taken;
}

static const struct control_verb verbs[] = {{"echo", handle_echo},
                                            {"fail", handle_fail},
                                            {"defer", handle_defer},
                                            {"release", handle_release},
                                            {"event", handle_event},
                                            {"console", handle_console},
                                            {NULL, NULL}};

static void create(struct world *world)
{
    struct console_hub_handlers handlers = {.input = handle_keys, .ctx = world};
    *world = (struct world){.folder = "/tmp/fuzz-control-XXXXXX"};
    require(mkdtemp(world->folder) != NULL);
    snprintf(world->path, sizeof(world->path), "%s/sock", world->folder);
    require(loop_create(&world->loop, NULL) == 0);
    require(console_hub_create(&world->hub, world->loop, -1, &handlers, NULL) == 0);
    require(control_create(&world->control, world->loop, world->path, verbs, world, NULL) == 0);
    world->got = malloc(ROOM);
    require(world->got != NULL);
}

static void destroy(struct world *world)
{
    control_destroy(world->control);
    release_all(world); /* into the void */
    console_hub_destroy(world->hub);
    loop_destroy(world->loop);
    require(rmdir(world->folder) == 0);
    free(world->got);
}

/* --- the client --------------------------------------------------------------------------- */

static int enter(const struct world *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, world->path, strlen(world->path));
    require(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

static void handle_stop(void *arg)
{
    loop_stop(arg);
}

/* What is ready is served: events of a loop take turns, and the stop is one of them. */
static void turn(struct world *world)
{
    for (unsigned i = 0; i < 4; i++) {
        struct loop_call stop = {.handle = handle_stop, .arg = world->loop};
        loop_post(world->loop, &stop);
        require(loop_run(world->loop) == 0);
    }
}

/* Reads what there is; how much. */
static size_t gather(struct world *world, int fd)
{
    char rest[4096];
    bool full = world->got_length == ROOM;
    ssize_t got = full ? recv(fd, rest, sizeof(rest), 0)
                       : recv(fd, world->got + world->got_length, ROOM - world->got_length, 0);
    if (got > 0 && !full)
        world->got_length += (size_t)got;
    return got > 0 ? (size_t)got : 0;
}

static void play(struct world *world, int fd, uint8_t how, const uint8_t *bytes, size_t length)
{
    size_t step = how & 63 ? (size_t)(how & 63) * 37 : 1;
    for (unsigned stuck = 0; length && stuck < 50;) {
        ssize_t sent = send(fd, bytes, length < step ? length : step, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            break;
        stuck = sent < 0 ? stuck + 1 : 0;
        bytes += sent > 0 ? sent : 0;
        length -= sent > 0 ? (size_t)sent : 0;
        turn(world);
        if (how & 64)
            (void)gather(world, fd);
    }
    if (how & 128)
        return;
    shutdown(fd, SHUT_WR);
    for (unsigned quiet = 0; quiet < QUIET_TURNS; quiet++) {
        turn(world);
        while (gather(world, fd) > 0)
            quiet = 0;
    }
}

static void check_line(const char *line, size_t length)
{
    json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    require(json_is_object(message));
    if (!json_is_string(json_object_get(message, "event"))) {
        bool ok = json_object_get(message, "ok") != NULL;
        const json_t *error = json_object_get(message, "error");
        require(json_object_get(message, "id") && ok == !error);
        require(ok || (json_integer_value(json_object_get(error, "code")) > 0 &&
                       json_is_string(json_object_get(error, "text"))));
    }
    json_decref(message);
}

static void check_lines(const struct world *world)
{
    const char *at = world->got, *end = world->got + world->got_length, *newline;
    while ((newline = memchr(at, '\n', (size_t)(end - at)))) {
        check_line(at, (size_t)(newline - at));
        at = newline + 1;
    }
}

static void check_life(struct world *world)
{
    int fd = enter(world);
    world->got_length = 0;
    require(send(fd, "{\"id\":1,\"verb\":\"echo\"}\n", 23, MSG_NOSIGNAL) == 23);
    for (unsigned i = 0; i < 100 && world->got_length < 17; i++) {
        turn(world);
        (void)gather(world, fd);
    }
    require(world->got_length == 17 && memcmp(world->got, "{\"id\":1,\"ok\":{}}\n", 17) == 0);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct world world;

    if (length < 1 || length > MOST_INPUT)
        return 0;
    create(&world);
    int fd = enter(&world);
    play(&world, fd, bytes[0], bytes + 1, length - 1);
    if (!world.taken)
        check_lines(&world);
    if (bytes[0] & 128)
        close(fd);
    check_life(&world);
    if (!(bytes[0] & 128))
        close(fd);
    destroy(&world);
    return 0;
}
