/* SPDX-License-Identifier: MIT */
/*
 * Seconds and the date registers of the MC146818: pure arithmetic, for every value of either.
 *
 * `b` is register B, which says how the registers are written (BCD or binary, 12 or 24 hours), and
 * `ram` the register file. Seconds count from 1970 in UTC, and may be negative. (libc's calendar is
 * not asked: it reads the time zone file at first use, in the middle of a vCPU exit.)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    RTC_B_24_HOURS = 0x02,
    RTC_B_BINARY = 0x04,
};

bool rtc_date_is_time(unsigned reg); /* seconds to year, and the century */
bool rtc_date_is_alarm(unsigned reg);

/* Writes the time registers; years wrap at 10000. */
void rtc_date_show(int64_t seconds, uint8_t b, uint8_t *ram);

/* What the time registers say. An impossible number counts as the nearest possible one, and
 * 30 February as two days after the 28th; the day of the week is not asked. */
int64_t rtc_date_take(uint8_t b, const uint8_t *ram);

/* The first second after `seconds` that the alarm registers agree with; INT64_MAX when they never
 * do. */
int64_t rtc_date_next_alarm(int64_t seconds, uint8_t b, const uint8_t *ram);
