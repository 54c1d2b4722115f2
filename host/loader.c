/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backends: built in, or from a shared object. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "host/internal.h"

int backend_check(const char *name, const struct fe_backend *be)
{
	if (be->abi != FE_BACKEND_ABI || be->struct_size != sizeof(*be)) {
		fe_log(LOG_ERR, "%s was built for version %u of the backend interface (%u bytes), this program has "
		       "version %u (%zu bytes); build it against this program's backend.h", name, be->abi,
		       be->struct_size, FE_BACKEND_ABI, sizeof(*be));
		return -ENOEXEC;
	}
	if (!be->name || !be->open || !be->close || !be->lookup || !be->getattr || !be->key_size ||
	    be->key_size > be->node_size || be->node_size > RECORD_MAX || be->handle_size > RECORD_MAX) {
		fe_log(LOG_ERR, "%s is incomplete: it needs a name, open, close, lookup, getattr, and "
		       "0 < key_size <= node_size <= %u, handle_size <= %u", name, RECORD_MAX, RECORD_MAX);
		return -ENOEXEC;
	}
	return 0;
}

static int load_object(const char *path, const struct fe_backend **out)
{
	void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct fe_backend *be;

	if (!object) {
		fe_log(LOG_ERR, "%s", dlerror());
		return -ENOENT;
	}
	be = dlsym(object, FE_BACKEND_SYMBOL);
	if (!be) {
		fe_log(LOG_ERR, "%s is no backend: it does not export the symbol " FE_BACKEND_SYMBOL, path);
		dlclose(object);
		return -ENOEXEC;
	}
	*out = be;
	return backend_check(path, be);
}

int fe_backend_load(const char *name, const struct fe_backend **out)
{
	if (strchr(name, '/'))
		return load_object(name, out);
	for (const struct fe_backend *const *be = fe_builtin_backends; *be; be++) {
		if (!strcmp((*be)->name, name)) {
			*out = *be;
			return backend_check(name, *be);
		}
	}
	fe_log(LOG_ERR, "there is no backend \"%s\"; --help lists them, a shared object is named by its path", name);
	return -ENOENT;
}
