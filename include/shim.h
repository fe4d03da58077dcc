/* SPDX-License-Identifier: MIT
 *
 * What bindgen cannot reach: FreeSWITCH offers these as macros alone.
 */
#ifndef RUSTBRIDGE_SHIM_H
#define RUSTBRIDGE_SHIM_H

#include <switch.h>

/* UNPROTECT_INTERFACE: gives back what switch_loadable_module_get_*_interface took. */
void rustbridge_release_api(switch_api_interface_t *api);
void rustbridge_release_application(switch_application_interface_t *application);

#endif
