/* SPDX-License-Identifier: MIT */
/*
 * What a host says that has its VM followed here. The first byte says where it begins:
 *
 *   even  on a new connection: greeting, FOLLOW, HELLO, FILE..., OPEN (ft/arrival.c), in a folder
 *         that is empty
 *   odd   after the welcome: pages, blocks, states, words and sums, into the memory and the disk of
 *         a twin that has a protocol and no machine (ft/secondary.c)
 *
 * Checksums are made right first. Checked, besides what the sanitizers see: nothing is left in the
 * folder; once an epoch was whole memory and disk change by whole epochs only, in order, and after
 * their acknowledgement; and what is taken over is the last one of these.
 */
#define conductor_tell    fuzz_conductor_tell
#define conductor_detach  fuzz_conductor_detach
#define conductor_writing fuzz_conductor_writing
#define loop_step_do      fuzz_loop_step_do
#define arrival_load      fuzz_arrival_load
#define arrival_try       fuzz_arrival_try
#define machine_announce  fuzz_machine_announce
#define machine_memory    fuzz_machine_memory
#define memory_lock       fuzz_memory_lock
#define memory_unlock     fuzz_memory_unlock
#define log_err           fuzz_log_err
#define log_line          fuzz_log_line
#include "ft/secondary.c"

#include "ft/handover.h"
#include "host/link_parts.h"
#include "tests/fuzz/mend.h"
#include "tests/fuzz/program.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { MOST = 1 << 16, PAGES = 16, DISK_BYTES = 1 << 16, NODE = 11, OWNER = 12, TWIN = 13 };
enum { GREETING = 16 };

static const uint8_t greeting[GREETING] = "minivmm\0\1\1\1";

/* --- a twin ----------------------------------------------------------------------------------- */

static struct {
    struct secondary *secondary;
    struct ft_protocol protocol;
    struct arrival *arrival;
    uint64_t now;
    struct ft_event next; /* what comes of a step; kind 0: nothing */
    uint64_t applied;     /* the last epoch that there was an APPLY for */
    bool applies, stood;  /* that is under way; memory and disk are as they were after it: */
    uint32_t memory_sum, disk_sum;
    bool loaded, taken;
} t;

static void sum(uint32_t *ret_memory, uint32_t *ret_disk)
{
    static uint8_t disk[DISK_BYTES];
    require(pread(t.arrival->folder.disks[0].fd, disk, sizeof(disk), 0) == sizeof(disk));
    *ret_memory = crc32c(0, t.arrival->host, PAGES * PAGE_SIZE);
    *ret_disk = crc32c(0, disk, sizeof(disk));
}

/* Since the last APPLY was carried out, which is before anything else is said, nothing changes. */
static void check_still(void)
{
    uint32_t memory, disk;
    sum(&memory, &disk);
    if (t.applies) {
        t.memory_sum = memory;
        t.disk_sum = disk;
        t.stood = true;
        t.applies = false;
    }
    require(!t.stood || (memory == t.memory_sum && disk == t.disk_sum));
}

static void carry_out(const struct ft_action *action)
{
    switch (action->kind) {
    case FT_HANG_UP:
        link_break(t.arrival->link);
        break;
    case FT_ASK:
        t.next = (struct ft_event){
            .kind = FT_ANSWER, .ask = action->ask, .answer = FT_IS, .record = {7, OWNER, TWIN}};
        break;
    case FT_EXCHANGE:
        require(t.protocol.applied);
        t.next = (struct ft_event){.kind = FT_ANSWER, .ask = action->ask, .answer = FT_EXCHANGED};
        break;
    case FT_PERSIST:
        t.next = (struct ft_event){.kind = FT_PERSISTED};
        break;
    case FT_APPLY:
        require(!t.taken && (t.applied == 0 || action->epoch == t.applied + 1));
        t.applied = action->epoch;
        t.applies = true;
        secondary_apply(t.secondary);
        break;
    case FT_APPLY_LAST:
        require(action->epoch == t.applied);
        secondary_apply_last(t.secondary);
        break;
    case FT_TAKE_OVER:
        require(t.applied > 0 || t.protocol.acked == 0);
        secondary_take_over(t.secondary);
        break;
    case FT_END:
        secondary_end(t.secondary);
        break;
    default:
        break;
    }
}

static void step(const struct ft_event *event)
{
    struct ft_actions actions;
    ft_protocol_step(&t.protocol, event, ++t.now, &actions);
    for (unsigned i = 0; i < actions.count; i++)
        carry_out(&actions.list[i]);
}

void conductor_tell(struct conductor *conductor, const struct ft_event *event)
{
    check_still();
    step(event);
    while (t.next.kind) {
        const struct ft_event next = t.next;
        t.next.kind = 0;
        step(&next);
    }
    /* Whoever cannot go on here is ended by a person. */
    bool wishes = t.secondary->applies_last || t.secondary->takes_over;
    if (event->kind == FT_DISCONNECTED && (t.secondary->spoilt || !wishes))
        secondary_end(t.secondary);
}

void conductor_detach(struct conductor *conductor)
{
}

pthread_mutex_t *conductor_writing(struct conductor *conductor)
{
    static pthread_mutex_t nobody_else = PTHREAD_MUTEX_INITIALIZER;
    return &nobody_else;
}

int loop_step_do(struct loop_step *unused, int (*run_step)(void *ctx, struct err *err), void *ctx,
                 struct err *err)
{
    return run_step(ctx, err);
}

/* The first byte says whether the state is one. */
int arrival_try(struct arrival *arrival, struct err *err)
{
    require(arrival->state.length > 0);
    t.loaded = arrival->state.bytes[0] != 'x';
    return t.loaded ? 0 : err_say(err, ERR_FAILED, EBADMSG, "this state is none");
}

int arrival_load(struct arrival *arrival, struct err *err)
{
    return arrival_try(arrival, err);
}

struct memory *machine_memory(struct machine *machine)
{
    return NULL; /* there is no machine, and nothing to lock */
}

int memory_lock(struct memory *memory)
{
    return 0;
}

void memory_unlock(struct memory *memory)
{
}

bool machine_announce(struct machine *machine)
{
    require(t.loaded);
    return false;
}

void log_line(enum log_level level, const char *fmt, ...)
{
}

void log_err(enum log_level level, const struct err *err)
{
    require(err->kind != ERR_NONE && err->text[0]);
}

static int handle_settle(void *ctx, struct err *err)
{
    return 0;
}

static void handle_taken_over(void *ctx)
{
    check_still();
    t.taken = true;
    secondary_end(t.secondary);
}

/* --- where it begins -------------------------------------------------------------------------- */

static void connect_to(int ends[2], const uint8_t *bytes, size_t length)
{
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    require(send(ends[1], greeting, GREETING, MSG_DONTWAIT) == GREETING);
    require(send(ends[1], bytes, length, MSG_DONTWAIT) == (ssize_t)length);
    require(shutdown(ends[1], SHUT_WR) == 0);
}

static void begin_twin(struct arrival *arrival)
{
    const struct secondary_config config = {
        .arrival = arrival, .settle = handle_settle, .taken_over = handle_taken_over};
    const struct ft_event connected = {
        .kind = FT_CONNECTED, .link = CONDUCTOR_FIRST_LINK, .generation = 7, .twin = TWIN};
    const struct ft_config times = {.node = NODE,
                                    .beat_ns = UINT64_MAX,
                                    .lost_ns = UINT64_MAX,
                                    .stall_ns = UINT64_MAX,
                                    .ask_ns = UINT64_MAX,
                                    .retry_ns = 1,
                                    .gap_ns = UINT64_MAX,
                                    .away_ns = UINT64_MAX};
    memset(&t, 0, sizeof(t));
    t.arrival = arrival;
    arrival->following.generation = 7;
    arrival->pages = PAGES;
    arrival->host = calloc(PAGES, PAGE_SIZE);
    arrival->touched = calloc(1, sizeof(uint64_t));
    arrival->folder = (struct arrival_folder){
        .fd = -1,
        .former = -1,
        .former_changes = -1,
        .disk_count = 1,
        .disks[0] = {.about = {.place = 0, .size = DISK_BYTES}}};
    arrival->folder.disks[0].fd = memfd_create("disk", MFD_CLOEXEC);
    require(arrival->host && arrival->touched &&
            ftruncate(arrival->folder.disks[0].fd, DISK_BYTES) == 0);
    stream_buffer_init(&arrival->payload, 0);
    stream_buffer_init(&arrival->state, 0);
    ft_protocol_init_follower(&t.protocol, &times, 7, &connected, ++t.now);
    require(secondary_create(&t.secondary, &config, NULL) == 0);
}

static void follow(const uint8_t *bytes, size_t length)
{
    const struct link_config config = {.insecure = true, .timeout_ms = 10000};
    struct arrival arrival = {0};
    int ends[2];
    begin_twin(&arrival);
    connect_to(ends, bytes, length);
    require(link_start(&arrival.link, ends[0], true, &config, NULL) == 0);
    run(t.secondary);
    secondary_destroy(t.secondary);
    link_destroy(arrival.link);
    close(ends[1]);
    close(arrival.folder.disks[0].fd);
    stream_buffer_finish(&arrival.payload);
    stream_buffer_finish(&arrival.state);
    free(arrival.touched);
    free(arrival.host);
}

static void accept_from(const uint8_t *bytes, size_t length)
{
    char path[32] = "/tmp/minivmm-fuzz-XXXXXX";
    struct arrival *arrival = NULL;
    struct err err = {0};
    int ends[2], place = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    const struct arrival_config config = {
        .link = {.insecure = true, .timeout_ms = 10000}, .place = place, .path = path};
    require(place >= 0);
    connect_to(ends, bytes, length);
    int ret = arrival_accept(&arrival, ends[0], &config, &err);
    require(ret >= 0 || (err.kind != ERR_NONE && err.text[0]));
    if (ret == 0) {
        char *text = realpath(arrival_folder(arrival), NULL);
        require(text && strncmp(text, path, strlen(path)) == 0);
        free(text);
        arrival_destroy(arrival);
    }
    close(ends[1]);
    (void)!unlinkat(place, HANDOVER_PLACE, 0); /* the folder's own number, for who asks */
    close(place);
    require(rmdir(path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (length < 1 || length > MOST)
        return 0;
    uint8_t *mended = malloc(length);
    require(mended);
    memcpy(mended, bytes, length);
    mend_frames(mended + 1, length - 1, MEND_OF_EPOCHS);
    if (bytes[0] & 1)
        follow(mended + 1, length - 1);
    else
        accept_from(mended + 1, length - 1);
    free(mended);
    return 0;
}
