/* SPDX-License-Identifier: MIT
 *
 * The FreeSWITCH headers that build.rs binds, and constants for what bindgen cannot evaluate.
 */
#include <switch.h>

/* A macro with no value that bindgen could take: the version that the loader compares. */
static const int RUSTBRIDGE_SWITCH_API_VERSION = SWITCH_API_VERSION;
