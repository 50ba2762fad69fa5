/* SPDX-License-Identifier: MIT */
/* TCP's state is few numbers, each said beside its field in tcp.h. */
#include "tcp.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum {
    TCP = 20,
    SEGMENT_SIZE_OPTION = 4,
    MOST_TRIES = 300,
    MOST_PATIENCE = 5 /* times the first */
};
enum { MOST_DATA = LONGEST_FRAME - ABOVE_IP_AT - TCP };

static struct tcp connections[TCP_CONNECTIONS];
static uint16_t our_port;
static uint64_t first_patience;
static tcp_taker take;

static bool is_before(uint32_t one, uint32_t other)
{
    return one - other > UINT32_MAX / 2;
}

/* --- what is sent ------------------------------------------------------------------------- */

/* Ports and addresses are there already. */
static void finish_segment(uint8_t *frame, const uint8_t *mac, const uint8_t *to, unsigned flags,
                           uint32_t end)
{
    uint8_t *head = frame + ABOVE_IP_AT;
    unsigned words = flags & SYN ? (TCP + SEGMENT_SIZE_OPTION) / 4 : TCP / 4;
    head[12] = (uint8_t)(words << 4);
    head[13] = (uint8_t)flags;
    put16be(head + 14, TCP_WINDOW);
    put32be(head + 16, 0); /* checksum, urgent */
    ip_put(frame, mac, card_address, to, PROTOCOL_TCP, end);
    put16be(head + 16, ip_checksum_above(frame));
    card_send(frame, end);
}

/* False: there is no frame for it now. */
static bool send_segment(struct tcp *tcp, unsigned flags, uint32_t from, uint32_t count)
{
    uint8_t *frame = card_frame(), *head = frame + ABOVE_IP_AT;
    uint32_t data_at = ABOVE_IP_AT + TCP;
    if (!frame)
        return false;
    put16be(head, our_port);
    put16be(head + 2, tcp->port);
    put32be(head + 4, from);
    put32be(head + 8, tcp->received);
    if (flags & SYN) {
        put32be(frame + data_at, 2u << 24 | SEGMENT_SIZE_OPTION << 16 | MOST_DATA);
        data_at += SEGMENT_SIZE_OPTION;
    }
    uint32_t place = from % TCP_BUFFER;
    uint32_t first = count < TCP_BUFFER - place ? count : TCP_BUFFER - place;
    copy(frame + data_at, tcp->buffer + place, first);
    copy(frame + data_at + first, tcp->buffer, count - first);
    finish_segment(frame, tcp->mac, tcp->address, flags | ACK, data_at + count);
    return true;
}

static void send_ack(struct tcp *tcp)
{
    (void)send_segment(tcp, 0, tcp->sent, 0);
}

/* To a segment of no connection. */
static void send_reset(const uint8_t *frame, uint32_t count)
{
    const uint8_t *cause = frame + ABOVE_IP_AT;
    uint8_t *answer = card_frame(), *head = answer + ABOVE_IP_AT;
    if (!answer)
        return;
    bool has_ack = cause[13] & ACK;
    put16be(head, get16be(cause + 2));
    put16be(head + 2, get16be(cause));
    put32be(head + 4, has_ack ? get32be(cause + 8) : 0);
    put32be(head + 8, has_ack ? 0 : get32be(cause + 4) + count);
    finish_segment(answer, frame + 6, frame + IP_AT + 12, has_ack ? RST : RST | ACK,
                   ABOVE_IP_AT + TCP);
}

static void set_timer(struct tcp *tcp, bool wanted)
{
    tcp->deadline = wanted ? rdtsc() + tcp->patience : 0;
}

/* The end of our data, and behind it the FIN where it is time for one. */
static uint32_t last_of(const struct tcp *tcp)
{
    return tcp->end + (tcp->state == TCP_PEER_DONE && tcp->owed == 0);
}

/* Everything that the peer's window has room for. */
static void send_data(struct tcp *tcp)
{
    while (is_before(tcp->sent, last_of(tcp))) {
        uint32_t room = tcp->acked + tcp->window - tcp->sent, count = tcp->end - tcp->sent;
        if (count > 0 && (room == 0 || room > tcp->window))
            break;
        count = count < room ? count : room;
        count = count < MOST_DATA ? count : MOST_DATA;
        if (!send_segment(tcp, tcp->sent == tcp->end ? FIN : PSH, tcp->sent, count))
            break;
        tcp->sent += count ? count : 1;
        if (is_before(tcp->most, tcp->sent))
            tcp->most = tcp->sent;
    }
    if (!tcp->deadline)
        set_timer(tcp, tcp->acked != last_of(tcp));
}

uint32_t tcp_room(const struct tcp *tcp)
{
    return TCP_BUFFER - (tcp->end - tcp->acked);
}

void tcp_send(struct tcp *tcp, const void *bytes, uint32_t count)
{
    uint32_t place = tcp->end % TCP_BUFFER;
    uint32_t first = count < TCP_BUFFER - place ? count : TCP_BUFFER - place;
    check(count <= tcp_room(tcp), "no room for what is sent");
    copy(tcp->buffer + place, bytes, first);
    copy(tcp->buffer, (const uint8_t *)bytes + first, count - first);
    tcp->end += count;
    send_data(tcp);
}

static void send_again(struct tcp *tcp)
{
    if (++tcp->tries > MOST_TRIES) {
        tcp->state = TCP_FREE;
        return;
    }
    tcp->patience *= 2;
    if (tcp->patience > MOST_PATIENCE * first_patience)
        tcp->patience = MOST_PATIENCE * first_patience;
    set_timer(tcp, true);
    if (tcp->state == TCP_SYN_RECEIVED) {
        (void)send_segment(tcp, SYN, tcp->acked, 0);
        return;
    }
    tcp->sent = tcp->acked;
    if (tcp->window == 0)
        tcp->window = 1; /* the answer says what it is now */
    send_data(tcp);
}

uint64_t tcp_work(void)
{
    uint64_t next = UINT64_MAX;
    for (struct tcp *tcp = connections; tcp < connections + TCP_CONNECTIONS; tcp++) {
        if (tcp->state == TCP_FREE || !tcp->deadline)
            continue;
        if (tcp->deadline <= rdtsc())
            send_again(tcp);
        if (tcp->state != TCP_FREE && tcp->deadline && tcp->deadline < next)
            next = tcp->deadline;
    }
    return next;
}

/* --- what comes --------------------------------------------------------------------------- */

static struct tcp *find(const uint8_t *frame)
{
    for (struct tcp *tcp = connections; tcp < connections + TCP_CONNECTIONS; tcp++)
        if (tcp->state != TCP_FREE && tcp->port == get16be(frame + ABOVE_IP_AT) &&
            same(tcp->address, frame + IP_AT + 12, 4))
            return tcp;
    return NULL;
}

/* Where there is no place the peer asks again. */
static void open_connection(const uint8_t *frame)
{
    static uint32_t life;
    const uint8_t *head = frame + ABOVE_IP_AT;
    struct tcp *tcp = connections;
    while (tcp < connections + TCP_CONNECTIONS && tcp->state != TCP_FREE)
        tcp++;
    if (tcp == connections + TCP_CONNECTIONS)
        return;
    tcp->state = TCP_SYN_RECEIVED;
    tcp->life = ++life;
    copy(tcp->mac, frame + 6, 6);
    copy(tcp->address, frame + IP_AT + 12, 4);
    tcp->port = (uint16_t)get16be(head);
    tcp->received = get32be(head + 4) + 1;
    tcp->acked = (uint32_t)(rdtsc() >> 10);
    tcp->sent = tcp->most = tcp->end = tcp->acked + 1;
    tcp->window = get16be(head + 14);
    tcp->have = tcp->owed = tcp->tries = 0;
    tcp->patience = first_patience;
    set_timer(tcp, true);
    (void)send_segment(tcp, SYN, tcp->acked, 0);
}

/* False: what it acknowledges was never sent. */
static bool take_ack(struct tcp *tcp, const uint8_t *head)
{
    uint32_t ack = get32be(head + 8);
    if (is_before(tcp->most, ack))
        return false;
    if (is_before(ack, tcp->acked))
        return true; /* an old segment */
    tcp->window = get16be(head + 14);
    if (ack == tcp->acked)
        return true;
    if (tcp->state == TCP_SYN_RECEIVED)
        tcp->state = TCP_OPEN;
    tcp->acked = ack;
    if (is_before(tcp->sent, ack))
        tcp->sent = ack;
    tcp->tries = 0;
    tcp->patience = first_patience;
    set_timer(tcp, ack != last_of(tcp));
    if (tcp->state == TCP_PEER_DONE && ack == tcp->end + 1)
        tcp->state = TCP_FREE;
    return true;
}

static void take_data(struct tcp *tcp, const uint8_t *head, const uint8_t *data, uint32_t count)
{
    uint32_t known = tcp->received - get32be(head + 4);
    if (known <= count && tcp->state == TCP_OPEN) {
        uint32_t taken = take(tcp, data + known, count - known);
        tcp->received += taken;
        if (taken == count - known && head[13] & FIN) {
            tcp->received++;
            tcp->state = TCP_PEER_DONE;
        }
    }
    send_ack(tcp);
}

static void take_segment(struct tcp *tcp, const uint8_t *frame, uint32_t end)
{
    const uint8_t *head = frame + ABOVE_IP_AT, *data = head + head[12] / 16 * 4;
    uint32_t count = (uint32_t)(frame + end - data), sequence = get32be(head + 4);
    if (head[13] & RST) {
        if (sequence - tcp->received < TCP_WINDOW)
            tcp->state = TCP_FREE;
    } else if (head[13] & SYN) {
        if (tcp->state == TCP_SYN_RECEIVED)
            (void)send_segment(tcp, SYN, tcp->acked, 0);
        else
            send_ack(tcp);
    } else if (head[13] & ACK) {
        if (!take_ack(tcp, head)) {
            send_ack(tcp);
            return;
        }
        if (tcp->state != TCP_FREE && (count > 0 || head[13] & FIN))
            take_data(tcp, head, data, count);
        if (tcp->state > TCP_SYN_RECEIVED)
            send_data(tcp);
    }
}

void tcp_take_frame(const uint8_t *frame, uint32_t length)
{
    const uint8_t *head = frame + ABOVE_IP_AT;
    uint32_t end;
    if (!ip_is_ours(frame, length, PROTOCOL_TCP, &end) || end < ABOVE_IP_AT + TCP)
        return;
    uint32_t data_at = ABOVE_IP_AT + head[12] / 16u * 4;
    if (data_at < ABOVE_IP_AT + TCP || data_at > end)
        return;
    struct tcp *tcp = get16be(head + 2) == our_port ? find(frame) : NULL;
    if (tcp)
        take_segment(tcp, frame, end);
    else if ((head[13] & (SYN | ACK | RST)) == SYN && get16be(head + 2) == our_port)
        open_connection(frame);
    else if (!(head[13] & RST))
        send_reset(frame, end - data_at + (head[13] & (SYN | FIN) ? 1 : 0));
}

void tcp_listen(uint16_t port, uint64_t patience, tcp_taker taker)
{
    our_port = port;
    first_patience = patience;
    take = taker;
}
