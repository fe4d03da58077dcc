/* SPDX-License-Identifier: MIT */
#include "shim.h"

void rustbridge_release_api(switch_api_interface_t *api)
{
	UNPROTECT_INTERFACE(api);
}

void rustbridge_release_application(switch_application_interface_t *application)
{
	UNPROTECT_INTERFACE(application);
}
