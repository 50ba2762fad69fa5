/* SPDX-License-Identifier: MIT */
/* Makes images larger that no VM has open. */
#pragma once

#include "host/disk.h"

/*
 * The guest of this image, a file, sees `size` bytes from now on, a multiple of 512; what is new
 * reads as zeroes. On stable storage when this returns. ERR_USAGE: it is larger already; ERR_STATE:
 * a VM has it open. `name` is relative to folder; on failure the image is as it was.
 */
int disk_grow(int folder, const char *name, enum disk_format format, uint64_t size,
              struct err *err) must_check;

/* The name of the image on which this qcow2 image stands is not looked at; only whether there is
 * one. False for whatever is no qcow2 image. */
bool disk_has_backing(const char *path);
