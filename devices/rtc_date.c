/* SPDX-License-Identifier: MIT */
/* Days count from 1 January of the year 0 (Gregorian, backwards too); 1970 begins with day 719528.
 */
#include "devices/rtc_date.h"

enum {
    REG_SECONDS = 0x00,
    REG_SECONDS_ALARM = 0x01,
    REG_MINUTES = 0x02,
    REG_MINUTES_ALARM = 0x03,
    REG_HOURS = 0x04,
    REG_HOURS_ALARM = 0x05,
    REG_WEEKDAY = 0x06, /* 1 is Sunday */
    REG_DAY = 0x07,
    REG_MONTH = 0x08,
    REG_YEAR = 0x09,
    REG_CENTURY = 0x32,

    HOURS_PM = 0x80,
    ALARM_ANY = 0xc0, /* both upper bits set: every value agrees */

    MINUTE = 60,
    HOUR = 60 * MINUTE,
    DAY = 24 * HOUR,

    DAYS_IN_400_YEARS = 146097,
    DAYS_IN_10000_YEARS = 25 * DAYS_IN_400_YEARS,
    FIRST_OF_1970 = 719528,
};

bool rtc_date_is_time(unsigned reg)
{
    return reg == REG_SECONDS || reg == REG_MINUTES || reg == REG_HOURS ||
           (reg >= REG_WEEKDAY && reg <= REG_YEAR) || reg == REG_CENTURY;
}

bool rtc_date_is_alarm(unsigned reg)
{
    return reg == REG_SECONDS_ALARM || reg == REG_MINUTES_ALARM || reg == REG_HOURS_ALARM;
}

static int64_t modulo(int64_t a, int64_t b) /* never negative */
{
    return (a % b + b) % b;
}

static bool is_leap(unsigned year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static unsigned days_before_year(unsigned year)
{
    if (year == 0)
        return 0;
    unsigned past = year - 1; /* whole years since the end of the leap year 0 */
    return 366 + past * 365 + past / 4 - past / 100 + past / 400;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

static uint8_t encode(unsigned value, uint8_t b)
{
    return b & RTC_B_BINARY ? value : value / 10 << 4 | value % 10;
}

static unsigned decode(uint8_t value, uint8_t b)
{
    return b & RTC_B_BINARY ? value : (value >> 4) * 10u + (value & 0x0f);
}

static unsigned decode_within(uint8_t value, uint8_t b, unsigned least, unsigned most)
{
    unsigned decoded = decode(value, b);

    if (decoded < least)
        return least;
    return decoded > most ? most : decoded;
}

static uint8_t encode_hour(unsigned hour, uint8_t b)
{
    if (b & RTC_B_24_HOURS)
        return encode(hour, b);
    return encode(hour % 12 ? hour % 12 : 12, b) | (hour >= 12 ? HOURS_PM : 0);
}

static unsigned decode_hour(uint8_t value, uint8_t b)
{
    if (b & RTC_B_24_HOURS)
        return decode_within(value, b, 0, 23);
    return decode_within(value & ~HOURS_PM, b, 1, 12) % 12 + (value & HOURS_PM ? 12 : 0);
}

void rtc_date_show(int64_t seconds, uint8_t b, uint8_t *ram)
{
    unsigned second = modulo(seconds, DAY);
    int64_t days = (seconds - second) / DAY + FIRST_OF_1970;
    unsigned day = modulo(days, DAYS_IN_10000_YEARS);
    unsigned year = day * 400ull /
                    DAYS_IN_400_YEARS; /* or one more or less: leap years are uneven */
    unsigned month = 1;

    ram[REG_WEEKDAY] = encode((day + 6) % 7 + 1, b); /* the year 0 began with a Saturday */
    while (days_before_year(year) > day)
        year--;
    while (days_before_year(year + 1) <= day)
        year++;
    day -= days_before_year(year);
    while (day >= days_in_month(year, month))
        day -= days_in_month(year, month++);

    ram[REG_SECONDS] = encode(second % 60, b);
    ram[REG_MINUTES] = encode(second / MINUTE % 60, b);
    ram[REG_HOURS] = encode_hour(second / HOUR, b);
    ram[REG_DAY] = encode(day + 1, b);
    ram[REG_MONTH] = encode(month, b);
    ram[REG_YEAR] = encode(year % 100, b);
    ram[REG_CENTURY] = encode(year / 100, b);
}

int64_t rtc_date_take(uint8_t b, const uint8_t *ram)
{
    unsigned year = decode_within(ram[REG_CENTURY], b, 0, 99) * 100 +
                    decode_within(ram[REG_YEAR], b, 0, 99);
    unsigned month = decode_within(ram[REG_MONTH], b, 1, 12);
    int64_t days = (int64_t)days_before_year(year) - FIRST_OF_1970;

    for (unsigned m = 1; m < month; m++)
        days += days_in_month(year, m);
    days += decode_within(ram[REG_DAY], b, 1, 31) - 1;
    return days * DAY + decode_hour(ram[REG_HOURS], b) * HOUR +
           decode_within(ram[REG_MINUTES], b, 0, 59) * MINUTE +
           decode_within(ram[REG_SECONDS], b, 0, 59);
}

/* Like the chip we compare what is written, so that an impossible alarm never comes. */
static bool agrees(uint8_t alarm, uint8_t shown)
{
    return (alarm & ALARM_ANY) == ALARM_ANY || alarm == shown;
}

int64_t rtc_date_next_alarm(int64_t seconds, uint8_t b, const uint8_t *ram)
{
    int64_t midnight = seconds - modulo(seconds, DAY);
    int64_t t = modulo(seconds, DAY) + 1;

    /*
     * Jump over hours, then minutes, then seconds that do not agree. At most that is the rest of a
     * minute, the rest of an hour, a day of hours, then an hour of minutes and a minute of seconds.
     */
    for (unsigned step = 0; step < 60 + 60 + 24 + 60 + 60; step++) {
        if (!agrees(ram[REG_HOURS_ALARM], encode_hour(t / HOUR % 24, b)))
            t = (t / HOUR + 1) * HOUR;
        else if (!agrees(ram[REG_MINUTES_ALARM], encode(t / MINUTE % 60, b)))
            t = (t / MINUTE + 1) * MINUTE;
        else if (!agrees(ram[REG_SECONDS_ALARM], encode(t % 60, b)))
            t++;
        else
            return midnight + t;
    }
    return INT64_MAX;
}
