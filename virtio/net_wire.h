/* SPDX-License-Identifier: MIT */
/*
 * The kernel's names for what stands in section 5.1 of virtio 1.2. Its header comes with one name
 * that virtio/virtio.h has too: there it is a mask, in the kernel the number of a bit.
 */
#pragma once

#include "virtio/virtio.h"

#pragma push_macro("VIRTIO_F_VERSION_1")
#undef VIRTIO_F_VERSION_1
#include <linux/virtio_net.h>
#undef VIRTIO_F_VERSION_1
#pragma pop_macro("VIRTIO_F_VERSION_1")
