// SPDX-License-Identifier: MIT
/*
 * agent: the hands of the test harness inside a lab host.
 *
 * usage: agent PORT
 *
 * PORT is a virtio-serial port (any byte stream would do). The other end is labagent.py. The agent
 * runs shell commands and copies files, several at once; each is a job with a number that the
 * harness chooses.
 *
 * The protocol
 * ------------
 * Both directions carry frames. Integers are little-endian.
 *
 *     0  u32     length of the payload, at most 65536
 *     4  u8      type
 *     5  u8[3]   zero
 *     8  u32     job
 *    12  payload
 *
 * To the agent:
 *
 *     1 RUN      u16 rows, u16 columns, then a command for `sh -c`. With rows 0 the command gets
 * three pipes, otherwise a terminal of that size, whose output is all OUT. It leads a session of
 * its own. 2 PUT      u32 mode, then a path. What follows as INPUT becomes that file, whole or not
 * at all. 3 GET      a path. The file comes back as OUT. 4 INPUT    bytes for the job, never more
 * than 256 KiB ahead of what ROOM has given back. 5 END      the job's input is complete. 6 SIGNAL
 * u32 signal, to the job's whole process group. 7 RESIZE   u16 rows, u16 columns of the job's
 * terminal.
 *
 * From the agent:
 *
 *    16 HELLO    u32 version of this protocol, job 0: the first frame, the agent is ready.
 *    17 OUT      bytes of standard output, of the terminal or of the file.
 *    18 ERR      bytes of standard error.
 *    19 ROOM     u32 bytes of INPUT that have left the agent.
 *    20 EXIT     u32 exit code, or 128 + signal as in the shell. All that the command itself wrote
 * came before; more may come after it from processes that it left behind. 21 FAIL     a sentence:
 * the job could not be started or its file not be written. No EXIT follows.
 *
 * A job that has ended, or never was, is no error in a frame to the agent: the harness cannot know
 * yet. Any other breach is a bug in the harness, and the agent ends, which stops the lab host.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PROTOCOL_VERSION = 1,
    MAX_PAYLOAD = 65536,
    INPUT_WINDOW = 256 * 1024,
    MAX_JOBS = 64,
    PIPE_CAPACITY = 65536,
};

enum frame_type {
    FRAME_RUN = 1,
    FRAME_PUT = 2,
    FRAME_GET = 3,
    FRAME_INPUT = 4,
    FRAME_END = 5,
    FRAME_SIGNAL = 6,
    FRAME_RESIZE = 7,
    FRAME_HELLO = 16,
    FRAME_OUT = 17,
    FRAME_ERR = 18,
    FRAME_ROOM = 19,
    FRAME_EXIT = 20,
    FRAME_FAIL = 21,
};

struct frame_header {
    uint32_t length;
    uint8_t type;
    uint8_t zero[3];
    uint32_t job;
};
static_assert(sizeof(struct frame_header) == 12, "the header has no padding");

/*
 * A command, or a file transfer: then pid is 0 from the start, and `in` or `out` is the file. A
 * terminal is both `in` and `out`, as two descriptors, so that each can be closed alone. A closed
 * descriptor is -1.
 */
struct job {
    struct job *next;
    uint32_t id;
    pid_t pid;   /* 0 once reaped */
    pid_t group; /* outlives pid: what the command left behind can still be signalled */
    int in, out, err;
    bool is_terminal;
    bool input_complete;
    bool failed;    /* FAIL was sent: all that is left is to clean up */
    char *put_path; /* for PUT: the file's name, and the one it has until it is whole */
    char *put_temporary;
    size_t input_start, input_end; /* the bytes of input[] that the job has not taken yet */
    uint8_t input[INPUT_WINDOW];
};

struct agent {
    int port;
    int children; /* signalfd of SIGCHLD */
    struct job *jobs;
    int job_count;
    struct frame_header header; /* of the frame that is arriving */
    size_t header_received;
    size_t payload_received;
    uint8_t payload[MAX_PAYLOAD + 1];
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "lab agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Sending blocks when the harness does not read. It always does, from a thread that does nothing
 * else. */

static void port_write(struct agent *agent, const void *data, size_t length)
{
    const uint8_t *next = data;

    while (length > 0) {
        ssize_t n = write(agent->port, next, length);
        if (n < 0 && errno != EINTR)
            die("cannot write to the port");
        if (n > 0) {
            next += n;
            length -= (size_t)n;
        }
    }
}

static void send_frame(struct agent *agent, enum frame_type type, uint32_t job, const void *payload,
                       size_t length)
{
    uint8_t frame[sizeof(struct frame_header) + MAX_PAYLOAD];
    struct frame_header header = {
        .length = htole32((uint32_t)length),
        .type = (uint8_t)type,
        .job = htole32(job),
    };

    /* One write: each costs an exit of the lab host to its emulator. */
    memcpy(frame, &header, sizeof(header));
    if (length > 0)
        memcpy(frame + sizeof(header), payload, length);
    port_write(agent, frame, sizeof(header) + length);
}

static void send_u32(struct agent *agent, enum frame_type type, uint32_t job, uint32_t value)
{
    value = htole32(value);
    send_frame(agent, type, job, &value, sizeof(value));
}

/* Jobs */

/* The job is over, with this sentence. */
__attribute__((format(printf, 3, 4))) static void fail(struct agent *agent, struct job *job,
                                                       const char *format, ...)
{
    char sentence[512];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    send_frame(agent, FRAME_FAIL, job->id, sentence, strlen(sentence));
    job->failed = true;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static struct job *job_create(struct agent *agent, uint32_t id)
{
    static const char too_many[] = "cannot start a job: too many are running";
    struct job *job;

    if (agent->job_count == MAX_JOBS) {
        send_frame(agent, FRAME_FAIL, id, too_many, strlen(too_many));
        return NULL;
    }
    job = malloc(sizeof(*job));
    if (job == NULL)
        die("out of memory");
    /* Not calloc: the large input buffer need not be touched until it is used. */
    memset(job, 0, offsetof(struct job, input));
    job->id = id;
    job->in = job->out = job->err = -1;
    job->next = agent->jobs;
    agent->jobs = job;
    agent->job_count++;
    return job;
}

static void job_destroy(struct agent *agent, struct job *job)
{
    struct job **link = &agent->jobs;

    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    agent->job_count--;

    close_fd(&job->in);
    close_fd(&job->out);
    close_fd(&job->err);
    if (job->put_temporary != NULL)
        unlink(job->put_temporary);
    free(job->put_temporary);
    free(job->put_path);
    free(job);
}

static bool job_is_get(const struct job *job)
{
    return job->group == 0 && job->put_path == NULL;
}

/* A PUT is whole when its temporary name is gone; any other job is over when nothing more can come
 * from it. */
static bool job_is_over(const struct job *job)
{
    if (job->failed)
        return true;
    if (job->put_path != NULL)
        return job->put_temporary == NULL;
    return job->pid == 0 && job->out < 0 && job->err < 0;
}

static struct job *job_find(struct agent *agent, uint32_t id)
{
    struct job *job = agent->jobs;

    while (job != NULL && job->id != id)
        job = job->next;
    return job;
}

/* Starting a job */

static void open_terminal(struct job *job, const struct winsize *size, int ret_child[3])
{
    int terminal = -1;

    job->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    job->in = fcntl(job->out, F_DUPFD_CLOEXEC, 0);
    if (unlockpt(job->out) == 0)
        terminal = ioctl(job->out, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (job->in < 0 || terminal < 0)
        die("cannot open a terminal");
    ioctl(terminal, TIOCSWINSZ, size);
    job->is_terminal = true;
    for (int i = 0; i < 3; i++)
        ret_child[i] = terminal;
}

static void open_pipes(struct job *job, int ret_child[3])
{
    int *const ours[3] = {&job->in, &job->out, &job->err};

    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
            die("cannot open a pipe");
        *ours[i] = ends[i == 0 ? 1 : 0];
        ret_child[i] = ends[i == 0 ? 0 : 1];
        /* Only our end: programs expect pipes that block. */
        fcntl(*ours[i], F_SETFL, O_NONBLOCK);
    }
}

static _Noreturn void become_command(const char *command, const int fds[3], bool is_terminal)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* The shell that started the agent made it ignore the keyboard's signals; a command must not.
     */
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (is_terminal)
        ioctl(fds[0], TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(fds[i], i);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static void start_command(struct agent *agent, uint32_t id, const struct winsize *size,
                          const char *command)
{
    struct job *job = job_create(agent, id);
    int fds[3];

    if (job == NULL)
        return;
    if (size->ws_row > 0)
        open_terminal(job, size, fds);
    else
        open_pipes(job, fds);

    job->pid = fork();
    if (job->pid == 0)
        become_command(command, fds, job->is_terminal);
    if (job->pid < 0)
        fail(agent, job, "cannot start a command: %s", strerror(errno));
    else
        job->group = job->pid;
    close(fds[0]);
    if (!job->is_terminal) {
        close(fds[1]);
        close(fds[2]);
    }
}

static void make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
}

static void start_put(struct agent *agent, uint32_t id, mode_t mode, const char *path)
{
    struct job *job = job_create(agent, id);

    if (job == NULL)
        return;
    job->put_path = strdup(path);
    if (job->put_path == NULL || asprintf(&job->put_temporary, "%s.put-%u", path, id) < 0)
        die("out of memory");
    make_parents(job->put_path);
    job->in = open(job->put_temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (job->in < 0 || fchmod(job->in, mode) < 0)
        fail(agent, job, "cannot create %s: %s", path, strerror(errno));
}

static void start_get(struct agent *agent, uint32_t id, const char *path)
{
    struct job *job = job_create(agent, id);
    struct stat st;

    if (job == NULL)
        return;
    job->out = open(path, O_RDONLY | O_CLOEXEC);
    if (job->out < 0 || fstat(job->out, &st) < 0)
        fail(agent, job, "cannot open %s: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        fail(agent, job, "cannot read %s: it is a folder", path);
}

/* Input: harness -> job */

static void finish_put(struct agent *agent, struct job *job)
{
    close_fd(&job->in);
    if (rename(job->put_temporary, job->put_path) < 0) {
        fail(agent, job, "cannot create %s: %s", job->put_path, strerror(errno));
        return;
    }
    free(job->put_temporary);
    job->put_temporary = NULL;
    send_u32(agent, FRAME_EXIT, job->id, 0);
}

static void give_input(struct agent *agent, struct job *job)
{
    size_t waiting = job->input_end - job->input_start;

    if (waiting > 0) {
        ssize_t n = write(job->in, job->input + job->input_start, waiting);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0 && job->put_path != NULL) {
            fail(agent, job, "cannot write %s: %s", job->put_path, strerror(errno));
            return;
        }
        if (n < 0) {
            /* A command that has closed its input: the rest goes nowhere, as in a shell's pipe. */
            close_fd(&job->in);
            n = (ssize_t)waiting;
        }
        job->input_start += (size_t)n;
        send_u32(agent, FRAME_ROOM, job->id, (uint32_t)n);
    }
    if (job->input_start < job->input_end || !job->input_complete)
        return;
    if (job->put_path != NULL)
        finish_put(agent, job);
    else
        close_fd(&job->in);
}

static int take_input(struct agent *agent, struct job *job, const uint8_t *data, size_t length)
{
    size_t waiting = job->input_end - job->input_start;

    if (length > sizeof(job->input) - waiting)
        return -EPROTO;
    if (job->in < 0) {
        send_u32(agent, FRAME_ROOM, job->id, (uint32_t)length);
        return 0;
    }
    memmove(job->input, job->input + job->input_start, waiting);
    memcpy(job->input + waiting, data, length);
    job->input_start = 0;
    job->input_end = waiting + length;
    give_input(agent, job);
    return 0;
}

static int end_input(struct agent *agent, struct job *job)
{
    static const uint8_t ctrl_d = 4;

    /* A terminal has no end of input, only the key that says so; closing our side would hang it up.
     */
    if (job->is_terminal)
        return take_input(agent, job, &ctrl_d, 1);
    job->input_complete = true;
    if (job->in >= 0)
        give_input(agent, job);
    return 0;
}

/* Output: job -> harness */

/* Returns the bytes sent; 0 when there are none now, or when the stream has come to its end and is
 * closed. */
static size_t take_output(struct agent *agent, struct job *job, int *fd, enum frame_type type)
{
    uint8_t data[MAX_PAYLOAD];
    ssize_t n = *fd >= 0 ? read(*fd, data, sizeof(data)) : 0;

    if (n > 0) {
        send_frame(agent, type, job->id, data, (size_t)n);
        return (size_t)n;
    }
    /* Other errors are an end too: EIO is what a terminal says when the last program has closed it.
     */
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_fd(fd);
    return 0;
}

/* What a command wrote before it ended is in the pipe now, and a pipe holds no more than its
 * capacity. */
static void drain_output(struct agent *agent, struct job *job, int *fd, enum frame_type type)
{
    size_t total = 0;
    size_t n;

    do {
        n = take_output(agent, job, fd, type);
        total += n;
    } while (n > 0 && total < PIPE_CAPACITY);
}

static void handle_exit(struct agent *agent, struct job *job, int status)
{
    drain_output(agent, job, &job->out, FRAME_OUT);
    drain_output(agent, job, &job->err, FRAME_ERR);
    send_u32(agent, FRAME_EXIT, job->id,
             (uint32_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
    job->pid = 0;
    close_fd(&job->in);
}

static void handle_children(struct agent *agent)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    /* Signals merge: one read may stand for several children. */
    if (read(agent->children, &info, sizeof(info)) < 0)
        return;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (struct job *job = agent->jobs; job != NULL; job = job->next)
            if (job->pid == pid)
                handle_exit(agent, job, status);
}

/* Frames from the harness */

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static struct winsize get_size(const uint8_t *p)
{
    return (struct winsize){
        .ws_row = (uint16_t)(p[0] | p[1] << 8),
        .ws_col = (uint16_t)(p[2] | p[3] << 8),
    };
}

/* The fixed part of the payload, or -EPROTO for a type that is not for the agent. */
static int fixed_length(uint8_t type)
{
    switch (type) {
    case FRAME_RUN:
    case FRAME_PUT:
    case FRAME_SIGNAL:
    case FRAME_RESIZE:
        return 4;
    case FRAME_GET:
    case FRAME_INPUT:
    case FRAME_END:
        return 0;
    default:
        return -EPROTO;
    }
}

static int start_job(struct agent *agent, uint8_t type, uint32_t id, const uint8_t *payload)
{
    const struct winsize size = get_size(payload);

    if (type == FRAME_RUN)
        start_command(agent, id, &size, (const char *)payload + 4);
    else if (type == FRAME_PUT)
        start_put(agent, id, get_u32(payload) & 07777, (const char *)payload + 4);
    else
        start_get(agent, id, (const char *)payload);
    return 0;
}

/* The payload is followed by a 0 byte that length does not count, so that its text is a string. */
static int handle_frame(struct agent *agent, uint8_t type, uint32_t id, const uint8_t *payload,
                        size_t length)
{
    const bool starts = type == FRAME_RUN || type == FRAME_PUT || type == FRAME_GET;
    const int fixed = fixed_length(type);
    struct job *job = job_find(agent, id);
    struct winsize size;

    if (fixed < 0 || length < (size_t)fixed || (starts && job != NULL))
        return -EPROTO;
    if (starts)
        return start_job(agent, type, id, payload);
    if (job == NULL)
        return 0;

    switch (type) {
    case FRAME_INPUT:
        return take_input(agent, job, payload, length);
    case FRAME_END:
        return end_input(agent, job);
    case FRAME_SIGNAL:
        if (job->group > 0)
            kill(-job->group, (int)get_u32(payload));
        return 0;
    case FRAME_RESIZE:
        size = get_size(payload);
        if (job->is_terminal)
            ioctl(job->out, TIOCSWINSZ, &size);
        return 0;
    default:
        return -EPROTO;
    }
}

/* Takes what has arrived, at most up to the end of one frame. */
static int handle_port(struct agent *agent)
{
    struct frame_header *const header = &agent->header;
    const size_t header_missing = sizeof(*header) - agent->header_received;
    ssize_t n;

    if (header_missing > 0) {
        n = read(agent->port, (uint8_t *)header + agent->header_received, header_missing);
        if (n <= 0)
            return -EIO;
        agent->header_received += (size_t)n;
        if (le32toh(header->length) > MAX_PAYLOAD && (size_t)n == header_missing)
            return -EPROTO;
    } else {
        n = read(agent->port, agent->payload + agent->payload_received,
                 le32toh(header->length) - agent->payload_received);
        if (n <= 0)
            return -EIO;
        agent->payload_received += (size_t)n;
    }

    const size_t length = le32toh(header->length);
    if (agent->header_received < sizeof(*header) || agent->payload_received < length)
        return 0;
    agent->header_received = agent->payload_received = 0;
    agent->payload[length] = '\0';
    return handle_frame(agent, header->type, le32toh(header->job), agent->payload, length);
}

/* The main loop */

/* Three entries for each job, in the order of the list; poll passes over descriptors of -1. */
static nfds_t fill_polls(const struct agent *agent, struct pollfd *polls)
{
    nfds_t count = 0;

    polls[count++] = (struct pollfd){.fd = agent->port, .events = POLLIN};
    polls[count++] = (struct pollfd){.fd = agent->children, .events = POLLIN};
    for (const struct job *job = agent->jobs; job != NULL; job = job->next) {
        const bool has_input = job->input_end > job->input_start;
        polls[count++] = (struct pollfd){.fd = has_input ? job->in : -1, .events = POLLOUT};
        polls[count++] = (struct pollfd){.fd = job->out, .events = POLLIN};
        polls[count++] = (struct pollfd){.fd = job->err, .events = POLLIN};
    }
    return count;
}

static void serve_job(struct agent *agent, struct job *job, const struct pollfd polls[3])
{
    if (polls[0].revents != 0)
        give_input(agent, job);
    if (polls[1].revents != 0) {
        take_output(agent, job, &job->out, FRAME_OUT);
        if (job->out < 0 && job_is_get(job))
            send_u32(agent, FRAME_EXIT, job->id, 0);
    }
    if (polls[2].revents != 0)
        take_output(agent, job, &job->err, FRAME_ERR);
}

static int turn(struct agent *agent)
{
    struct pollfd polls[2 + 3 * MAX_JOBS];
    const struct pollfd *next = polls + 2;
    int ret = 0;

    if (poll(polls, fill_polls(agent, polls), -1) < 0)
        return errno == EINTR ? 0 : -errno;

    for (struct job *job = agent->jobs; job != NULL; job = job->next, next += 3)
        serve_job(agent, job, next);
    if (polls[1].revents != 0)
        handle_children(agent);
    if (polls[0].revents != 0)
        ret = handle_port(agent);

    for (struct job *job = agent->jobs, *following; job != NULL; job = following) {
        following = job->next;
        if (job_is_over(job))
            job_destroy(agent, job);
    }
    return ret;
}

int main(int argc, char **argv)
{
    static struct agent agent;
    sigset_t children;
    int ret;

    if (argc != 2) {
        fprintf(stderr, "usage: agent PORT\n");
        return 2;
    }
    agent.port = open(argv[1], O_RDWR | O_CLOEXEC);
    if (agent.port < 0)
        die(argv[1]);

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    agent.children = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (agent.children < 0)
        die("signalfd");

    send_u32(&agent, FRAME_HELLO, 0, PROTOCOL_VERSION);
    do
        ret = turn(&agent);
    while (ret == 0);
    errno = -ret;
    die("lost the harness");
}
