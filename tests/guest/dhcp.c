/* SPDX-License-Identifier: MIT */
/* Expects: a DHCP server behind the network device. Gets an address of it (RFC 2131), says
 * "address A.B.C.D mac XX:..." and from then on answers ARP and ping; sleeps in between, asks again
 * where nobody answers, and begins anew where it is refused. The power button (an SCI) switches it
 * off. */
#include "card.h"

enum { WAKE_VECTOR = 0x50, TIMER_VECTOR, SCI_VECTOR, DIVIDE_BY_1 = 0xb, PATIENCE_MS = 2000 };

enum { BOOTP = 236, COOKIE = 4, UDP_AT = ABOVE_IP_AT, BOOTP_AT = UDP_AT + UDP };
enum { OPTIONS_AT = BOOTP_AT + BOOTP + COOKIE };

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACK = 5, NAK = 6 };
enum {
    OPTION_PAD = 0,
    OPTION_ADDRESS = 50,
    OPTION_MESSAGE = 53,
    OPTION_SERVER = 54,
    OPTION_CLIENT = 61,
    OPTION_END = 255,
};

static uint8_t offered[4], server[4]; /* addresses: the one that we ask for, and of whom */
static bool bound;                    /* offered is ours */
static uint32_t patience;             /* ticks of the timer */
static volatile bool pressed, late;   /* set by interrupts */

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

static void use_timer(void)
{
    uint32_t khz = cpuid(0x40000010).b;
    check(khz, "CPUID does not tell the frequency of the APIC timer");
    patience = khz * PATIENCE_MS;
    on_interrupt(TIMER_VECTOR, handle_timer);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
}

/* --- DHCP --------------------------------------------------------------------------------- */

static uint8_t *put_option(uint8_t *at, uint8_t code, const void *bytes, uint8_t length)
{
    *at++ = code;
    *at++ = length;
    copy(at, bytes, length);
    return at + length;
}

/* From 0.0.0.0:68 to 255.255.255.255:67, around what is there of BOOTP and options. */
static void send_broadcast(uint8_t *frame, uint32_t length)
{
    static const uint8_t nobody[4], everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t *udp = frame + UDP_AT;
    ip_put(frame, everybody, nobody, everybody, PROTOCOL_UDP, length);
    put16be(udp, 68);
    put16be(udp + 2, 67);
    put16be(udp + 4, length - UDP_AT);
    put16be(udp + 6, 0); /* no checksum */
    card_send(frame, length);
}

static void ask(uint8_t message)
{
    static const uint8_t cookie[COOKIE] = {0x63, 0x82, 0x53, 0x63};
    uint8_t client[7] = {1}; /* Ethernet */
    uint8_t *frame = card_frame();
    late = false;
    apic_write(APIC_TIMER_INITIAL, patience);
    if (!frame)
        return;
    uint8_t *bootp = frame + BOOTP_AT, *at = frame + OPTIONS_AT;
    copy(client + 1, card_mac, 6);
    memset(bootp, 0, BOOTP);
    bootp[0] = 1; /* a request, Ethernet, addresses of 6 bytes */
    bootp[1] = 1;
    bootp[2] = 6;
    copy(bootp + 4, card_mac + 2, 4); /* the transaction */
    copy(bootp + 28, card_mac, 6);
    copy(bootp + BOOTP, cookie, COOKIE);
    at = put_option(at, OPTION_MESSAGE, &message, 1);
    at = put_option(at, OPTION_CLIENT, client, sizeof(client));
    if (message == REQUEST) {
        at = put_option(at, OPTION_ADDRESS, offered, 4);
        at = put_option(at, OPTION_SERVER, server, 4);
    }
    *at++ = OPTION_END;
    send_broadcast(frame, (uint32_t)(at - frame));
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
    for (unsigned i = 0; i < sizeof(card_mac); i++)
        print("%s%x%x", i ? ":" : "", card_mac[i] >> 4, card_mac[i] & 15u);
    print("\n");
}

static void take_answer(const uint8_t *frame, uint32_t length)
{
    const uint8_t *bootp = frame + BOOTP_AT;
    if (bound || get16be(frame + UDP_AT + 2) != 68 || bootp[0] != 2 ||
        !same(bootp + 4, card_mac + 2, 4) || !same(bootp + 28, card_mac, 6))
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
        copy(card_address, offered, 4);
        say_address();
    } else if (*message == NAK) {
        ask(DISCOVER); /* somebody else was faster with the address */
    }
}

static void take_all(void)
{
    const uint8_t *frame;
    uint32_t length;
    while ((frame = card_take(&length))) {
        if (length >= OPTIONS_AT && get16be(frame + 12) == TYPE_IP && frame[IP_AT] == 0x45 &&
            frame[IP_AT + 9] == PROTOCOL_UDP)
            take_answer(frame, length);
        card_answer(frame, length);
    }
}

void guest_main(void)
{
    apic_enable(false);
    acpi_use_power_button(SCI_VECTOR, &pressed);
    use_timer();
    card_start(WAKE_VECTOR, handle_wake);
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
