/* SPDX-License-Identifier: MIT */
/* Expects: a DHCP server behind the network device. Gets an address of it (RFC 2131), says
 * "address A.B.C.D mac XX:..." and from then on answers ARP and ping; sleeps in between, asks again
 * where nobody answers, and begins anew where it is refused. The power button (an SCI) switches it
 * off. */
#include "virtio.h"

enum { RECEIVE, TRANSMIT, HEADER = 12, BUFFER = 2048, BUFFERS = 16 };
enum { WAKE_VECTOR = 0x50, TIMER_VECTOR, SCI_VECTOR, RECEIVE_ENTRY = 1, DIVIDE_BY_1 = 0xb };
enum { POWER_BUTTON = 1 << 8, PATIENCE_MS = 2000 };

/* Frames, behind the device's header. */
enum { ETHERNET = 14, IP = 20, UDP = 8, BOOTP = 236, COOKIE = 4, ARP = 28 };
enum { ARP_AT = ETHERNET, IP_AT = ETHERNET, ICMP_AT = IP_AT + IP, UDP_AT = IP_AT + IP };
enum { BOOTP_AT = UDP_AT + UDP, OPTIONS_AT = BOOTP_AT + BOOTP + COOKIE };
enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806, PROTOCOL_ICMP = 1, PROTOCOL_UDP = 17 };

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5, NAK = 6 };
enum {
    OPTION_PAD = 0,
    OPTION_ADDRESS = 50,
    OPTION_MESSAGE = 53,
    OPTION_SERVER = 54,
    OPTION_CLIENT = 61,
    OPTION_END = 255,
};

static struct queue receive, transmit;
static uint8_t incoming[BUFFERS][BUFFER], outgoing[BUFFERS][BUFFER];
static uint8_t mac[6];
static uint8_t offered[4], server[4]; /* addresses: the one that we ask for, and of whom */
static bool bound;                    /* offered is ours */
static uint32_t patience;             /* ticks of the timer */
static volatile bool pressed, late;   /* set by interrupts */
static uint16_t event_port;

/* --- bytes -------------------------------------------------------------------------------- */

static void copy(void *to, const void *from, size_t count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static bool same(const void *a, const void *b, unsigned count)
{
    const uint8_t *one = a, *two = b;
    while (count && *one == *two)
        one++, two++, count--;
    return count == 0;
}

static unsigned get16be(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static void put16be(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* --- interrupts: they end the sleep, and the main loop looks what there is ------------------ */

static void handle_wake(struct frame *frame)
{
    apic_eoi();
}

static void handle_timer(struct frame *frame)
{
    late = true;
    apic_eoi();
}

static void handle_sci(struct frame *frame)
{
    if (in16(event_port) & POWER_BUTTON) {
        out16(event_port, POWER_BUTTON);
        pressed = true;
    }
    apic_eoi();
}

static void use_power_button(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    uint16_t flags;
    check(fadt, "no FADT");
    event_port = (uint16_t)get32(fadt + FADT_PM1A_EVENT);
    on_interrupt(SCI_VECTOR, handle_sci);
    out16(event_port, 0xffff);
    out16(event_port + 2, POWER_BUTTON);
    ioapic_route(acpi_isa_pin(fadt[FADT_SCI], &flags), SCI_VECTOR | IOAPIC_LEVEL);
}

static void use_timer(void)
{
    uint32_t khz = cpuid(0x40000010).b;
    check(khz, "CPUID does not tell the frequency of the APIC timer");
    patience = khz * PATIENCE_MS;
    on_interrupt(TIMER_VECTOR, handle_timer);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
}

/* --- the card ----------------------------------------------------------------------------- */

static void use_card(void)
{
    struct virtio net;
    uint64_t has_mac = 1 << 5;
    check(virtio_find(VIRTIO_NET, &net), "no network device");
    check(virtio_start(&net, VIRTIO_F_VERSION_1 | has_mac) & has_mac, "the device has no address");
    for (unsigned i = 0; i < sizeof(mac); i++)
        mac[i] = net.device[i];
    on_interrupt(WAKE_VECTOR, handle_wake);
    virtio_use_vector(&net, RECEIVE_ENTRY, WAKE_VECTOR);
    virtio_set_queue_vector(&net, RECEIVE, RECEIVE_ENTRY);
    virtio_add_queue(&net, RECEIVE, &receive);
    virtio_add_queue(&net, TRANSMIT, &transmit);
    virtio_ready(&net);
    for (uint16_t i = 0; i < BUFFERS; i++) {
        receive.descriptors[i] = (struct descriptor){(uint64_t)incoming[i], BUFFER, WRITE, 0};
        queue_offer(&receive, i);
    }
    queue_ring(&receive);
}

/* One that was not used yet, or else one that comes back. */
static uint16_t free_buffer(void)
{
    static uint16_t unused;
    return unused < BUFFERS ? unused++ : queue_wait(&transmit, NULL);
}

static uint8_t *frame_of(uint16_t buffer)
{
    return outgoing[buffer] + HEADER; /* which stays zero: nothing is left to the device */
}

static void send(uint16_t buffer, uint32_t length)
{
    transmit.descriptors[buffer] = (struct descriptor){(uint64_t)outgoing[buffer], HEADER + length,
                                                       0, 0};
    queue_offer(&transmit, buffer);
    queue_ring(&transmit);
}

/* --- DHCP --------------------------------------------------------------------------------- */

static unsigned ip_checksum(const uint8_t *header)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < IP; i += 2)
        sum += get16be(header + i);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16)) & 0xffff;
}

static uint8_t *put_option(uint8_t *at, uint8_t code, const void *bytes, uint8_t length)
{
    *at++ = code;
    *at++ = length;
    copy(at, bytes, length);
    return at + length;
}

/* From 0.0.0.0:68 to 255.255.255.255:67, around what is there of BOOTP and options. */
static void send_broadcast(uint16_t buffer, uint32_t length)
{
    uint8_t *frame = frame_of(buffer), *ip = frame + IP_AT, *udp = frame + UDP_AT;
    memset(frame, 0xff, 6);
    copy(frame + 6, mac, 6);
    put16be(frame + 12, TYPE_IP);
    memset(ip, 0, IP);
    ip[0] = 0x45;
    put16be(ip + 2, length - IP_AT);
    ip[8] = 64;
    ip[9] = PROTOCOL_UDP;
    memset(ip + 16, 0xff, 4);
    put16be(ip + 10, ip_checksum(ip));
    put16be(udp, 68);
    put16be(udp + 2, 67);
    put16be(udp + 4, length - UDP_AT);
    put16be(udp + 6, 0); /* no checksum */
    send(buffer, length);
}

static void ask(uint8_t message)
{
    static const uint8_t cookie[COOKIE] = {0x63, 0x82, 0x53, 0x63};
    uint8_t client[7] = {1}; /* Ethernet */
    uint16_t buffer = free_buffer();
    uint8_t *frame = frame_of(buffer), *bootp = frame + BOOTP_AT, *at = frame + OPTIONS_AT;
    copy(client + 1, mac, 6);
    memset(bootp, 0, BOOTP);
    bootp[0] = 1; /* a request, Ethernet, addresses of 6 bytes */
    bootp[1] = 1;
    bootp[2] = 6;
    copy(bootp + 4, mac + 2, 4); /* the transaction */
    copy(bootp + 28, mac, 6);
    copy(bootp + BOOTP, cookie, COOKIE);
    at = put_option(at, OPTION_MESSAGE, &message, 1);
    at = put_option(at, OPTION_CLIENT, client, sizeof(client));
    if (message == REQUEST) {
        at = put_option(at, OPTION_ADDRESS, offered, 4);
        at = put_option(at, OPTION_SERVER, server, 4);
    }
    *at++ = OPTION_END;
    send_broadcast(buffer, (uint32_t)(at - frame));
    late = false;
    apic_write(APIC_TIMER_INITIAL, patience);
}

/* The bytes of an option, of which there are `size`; or NULL. */
static const uint8_t *find_option(const uint8_t *frame, uint32_t length, uint8_t code, uint8_t size)
{
    uint32_t at = OPTIONS_AT;
    while (at + 2 <= length && frame[at] != OPTION_END) {
        if (frame[at] == OPTION_PAD) {
            at++;
            continue;
        }
        uint32_t next = at + 2 + frame[at + 1];
        if (frame[at] == code)
            return frame[at + 1] == size && next <= length ? frame + at + 2 : NULL;
        at = next;
    }
    return NULL;
}

static void say_address(void)
{
    print("address %u.%u.%u.%u mac ", offered[0], offered[1], offered[2], offered[3]);
    for (unsigned i = 0; i < sizeof(mac); i++)
        print("%s%x%x", i ? ":" : "", mac[i] >> 4, mac[i] & 15u);
    print("\n");
}

static void take_answer(const uint8_t *frame, uint32_t length)
{
    const uint8_t *bootp = frame + BOOTP_AT;
    if (bound || length < OPTIONS_AT || get16be(frame + UDP_AT + 2) != 68 || bootp[0] != 2 ||
        !same(bootp + 4, mac + 2, 4) || !same(bootp + 28, mac, 6))
        return;
    const uint8_t *message = find_option(frame, length, OPTION_MESSAGE, 1);
    const uint8_t *from = find_option(frame, length, OPTION_SERVER, 4);
    if (!message || !from)
        return;
    if (*message == OFFER) {
        copy(offered, bootp + 16, 4);
        copy(server, from, 4);
        ask(REQUEST);
    } else if (*message == ACK && same(bootp + 16, offered, 4)) {
        bound = true;
        say_address();
    } else if (*message == NAK) {
        ask(DISCOVER); /* somebody else was faster with the address */
    }
}

/* --- ARP and ping ------------------------------------------------------------------------- */

static void take_arp(const uint8_t *frame, uint32_t length)
{
    const uint8_t *request = frame + ARP_AT;
    if (!bound || length < ARP_AT + ARP || get16be(request + 6) != 1 ||
        !same(request + 24, offered, 4))
        return;
    uint16_t buffer = free_buffer();
    uint8_t *answer = frame_of(buffer), *arp = answer + ARP_AT;
    copy(answer, frame + 6, 6);
    copy(answer + 6, mac, 6);
    put16be(answer + 12, TYPE_ARP);
    copy(arp, request, 6);
    put16be(arp + 6, 2);
    copy(arp + 8, mac, 6);
    copy(arp + 14, offered, 4);
    copy(arp + 18, request + 8, 10); /* whoever asks */
    send(buffer, ARP_AT + ARP);
}

/* The same back. Only the type changes, from 8 to 0, and the checksum by as much. */
static void take_ping(const uint8_t *frame, uint32_t length)
{
    if (!bound || length < ICMP_AT + 8 || frame[ICMP_AT] != 8 ||
        !same(frame + IP_AT + 16, offered, 4))
        return;
    uint16_t buffer = free_buffer();
    uint8_t *answer = frame_of(buffer);
    copy(answer, frame, length);
    copy(answer, frame + 6, 6);
    copy(answer + 6, mac, 6);
    copy(answer + IP_AT + 12, frame + IP_AT + 16, 4);
    copy(answer + IP_AT + 16, frame + IP_AT + 12, 4);
    answer[ICMP_AT] = 0;
    unsigned sum = get16be(frame + ICMP_AT + 2) + 0x0800;
    put16be(answer + ICMP_AT + 2, sum + (sum >> 16));
    send(buffer, length);
}

static void take(const uint8_t *frame, uint32_t length)
{
    if (length < IP_AT + IP)
        return;
    unsigned type = get16be(frame + 12);
    if (type == TYPE_ARP)
        take_arp(frame, length);
    else if (type == TYPE_IP && frame[IP_AT] == 0x45 && frame[IP_AT + 9] == PROTOCOL_UDP)
        take_answer(frame, length);
    else if (type == TYPE_IP && frame[IP_AT] == 0x45 && frame[IP_AT + 9] == PROTOCOL_ICMP)
        take_ping(frame, length);
}

static void take_all(void)
{
    while (*(volatile uint16_t *)&receive.used.index != receive.seen) {
        uint32_t written;
        uint16_t buffer = queue_wait(&receive, &written);
        check(buffer < BUFFERS && written >= HEADER && written <= BUFFER,
              "buffer %u came back with %u bytes", buffer, written);
        take(incoming[buffer] + HEADER, written - HEADER);
        queue_offer(&receive, buffer);
        queue_ring(&receive);
    }
}

void guest_main(void)
{
    apic_enable(false);
    use_power_button();
    use_timer();
    use_card();
    ask(DISCOVER);
    /* Interrupts are off but in the sleep, so none comes between the look and the sleep. */
    while (!pressed) {
        take_all();
        if (late && !bound)
            ask(DISCOVER);
        wait_for_interrupt();
    }
    print("power button\n");
    acpi_power_off();
}
