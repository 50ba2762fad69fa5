/* SPDX-License-Identifier: MIT */
#include "vmm/door.h"

#include "core/clock.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    ENTRIES_A_TURN = 8,
    REST_MS = 200, /* when the process is out of descriptors */
};

struct door {
    struct loop *loop;
    struct door_config config;
    char *path;
    struct loop_io listener;
    struct loop_timer again;
    bool shut;    /* somebody wants it so */
    bool resting; /* until `again` */
    bool bound, listening;
};

static int check_peer(int fd, struct err *err)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot see who you are");
    if (peer.uid != 0 && peer.uid != geteuid())
        return err_say(err, ERR_STATE, EACCES,
                       "this VM belongs to user %u: only its owner and root get in", geteuid());
    return 0;
}

static void answer_door(struct door *door, int fd)
{
    const struct door_config *config = &door->config;
    struct err why = {0};
    if (check_peer(fd, &why) == 0)
        config->enter(config->ctx, fd);
    else if (config->turn_away)
        config->turn_away(config->ctx, fd, &why);
    else
        close(fd);
}

static void watch(struct door *door)
{
    loop_io_watch(door->loop, &door->listener, door->shut || door->resting ? 0 : LOOP_READ);
}

void door_shut(struct door *door, bool shut)
{
    door->shut = shut;
    watch(door);
}

/* Out of descriptors or memory: the listener would be ready all the time, so it rests a while. */
static void rest(struct door *door)
{
    door->resting = loop_timer_arm(&door->again, clock_monotonic_ns() + REST_MS * 1000000ull) == 0;
    watch(door);
}

static void handle_again(void *arg)
{
    struct door *door = arg;
    door->resting = false;
    watch(door);
}

static void handle_listener(void *arg, unsigned events)
{
    struct door *door = arg;
    for (unsigned i = 0; i < ENTRIES_A_TURN && !door->shut; i++) {
        int fd = accept4(door->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            answer_door(door, fd);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            rest(door);
            return;
        }
    }
}

static int bind_path(struct door *door, const struct door_config *config, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(door->path) >= sizeof(address.sun_path)) {
        err_say(err, ERR_HOST, ENAMETOOLONG, "%s is too long for a socket: %zu bytes are the most",
                door->path, sizeof(address.sun_path) - 1);
        err_hint(err, "let XDG_RUNTIME_DIR be a shorter path");
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, door->path, strlen(door->path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    door->listener.fd = fd;
    /* Linux gives the file the mode of the socket (less the umask), so that there is no moment at
     * which it is anybody else's. */
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot make the %s %s", config->name, door->path);
    door->bound = true;
    if (chmod(door->path, 0600) < 0 || listen(fd, (int)config->backlog) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot serve the %s %s", config->name, door->path);
    return 0;
}

int door_open(struct door **ret_door, struct loop *loop, const struct door_config *config,
              struct err *err)
{
    struct door *door = calloc(1, sizeof(*door));
    char *path = strdup(config->path);
    if (!door || !path) {
        free(door);
        free(path);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the %s %s", config->name, config->path);
    }
    door->loop = loop;
    door->config = *config;
    door->path = path;
    door->listener = (struct loop_io){
        .fd = -1, .events = LOOP_READ, .handle = handle_listener, .arg = door};
    loop_timer_init(&door->again, loop, handle_again, door);
    int ret = bind_path(door, config, err);
    if (ret == 0)
        ret = loop_io_add(loop, &door->listener, err);
    if (ret < 0) {
        door_close(door);
        return ret;
    }
    door->listening = true;
    *ret_door = door;
    return 0;
}

void door_close(struct door *door)
{
    if (!door)
        return;
    loop_timer_cancel(&door->again);
    if (door->listening)
        loop_io_remove(door->loop, &door->listener);
    if (door->listener.fd >= 0)
        close(door->listener.fd);
    if (door->bound)
        unlink(door->path);
    free(door->path);
    free(door);
}
