/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* "9p://HOST[:PORT]/EXPORT", "9p+unix:PATH:/EXPORT", "9p:/EXPORT" with a command; and the options. */
#include "backends/remote/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT "564"

static char *cut(const char *from, const char *to)
{
	return strndup(from, (size_t)(to - from));
}

/* A number: a name of a service would not say which of them speaks 9P. */
static bool is_port(const char *text)
{
	return strlen(text) <= 5 && strspn(text, "0123456789") == strlen(text) && atoi(text) > 0 && atoi(text) <= 65535;
}

static int parse_tcp(const char *text, struct address *a)
{
	const char *slash, *end, *port;

	if (*text == '[') {
		end = strchr(++text, ']');
		port = end ? end + 1 : NULL;
	} else {
		end = port = text + strcspn(text, ":/");
	}
	slash = end ? strchr(end, '/') : NULL;
	if (!slash || (*port != ':' && port != slash) || (*port == ':' && port + 1 == slash))
		return -EINVAL;
	a->host = cut(text, end);
	a->port = *port == ':' ? cut(port + 1, slash) : strdup(PORT);
	a->aname = strdup(slash);
	if (!a->host || !a->port || !a->aname)
		return -ENOMEM;
	return is_port(a->port) ? 0 : -EINVAL;
}

static int parse_unix(const char *text, struct address *a)
{
	const char *end = NULL;

	for (const char *p = strstr(text, ":/"); p; p = strstr(p + 1, ":/"))
		end = p;
	if (!end || end == text)
		return -EINVAL;
	a->path = cut(text, end);
	a->aname = strdup(end + 1);
	return a->path && a->aname ? 0 : -ENOMEM;
}

int address_parse(const char *text, const char *command, struct address *a)
{
	int err = -EINVAL;

	*a = (struct address){ 0 };
	if (!strncmp(text, "9p://", 5))
		err = parse_tcp(text + 5, a);
	else if (!strncmp(text, "9p+unix:", 8))
		err = parse_unix(text + 8, a);
	else if (!strncmp(text, "9p:/", 4) && command)
		err = (a->aname = strdup(text + 3)) ? 0 : -ENOMEM;
	if (!err && a->host && !*a->host && !command)
		err = -EINVAL;
	if (!err && command && !(a->command = strdup(command)))
		err = -ENOMEM;
	if (err)
		address_free(a);
	return err;
}

static int number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return *text < '0' || *text > '9' || *end || errno || *out < least || *out > most ? -EINVAL : 0;
}

static int set_number(struct remote_options *o, const char *name, const char *value)
{
	uint64_t n;

	if (!strcmp(name, "msize") && !number(value, P9_MSIZE_MIN, P9_MSIZE_MAX, &n))
		o->msize = (uint32_t)n;
	else if (!strcmp(name, "timeout") && !number(value, 1, 86400, &n))
		o->timeout = n * 1000000000u;
	else if (!strcmp(name, "fids") && !number(value, 64, 65536, &n))
		o->fids = (uint32_t)n;
	else if (!strcmp(name, "uid") && !number(value, 0, UINT32_MAX - 1, &n))
		o->uid = (uint32_t)n;
	else
		return -EINVAL;
	return 0;
}

static int set_string(char **where, const char *value)
{
	free(*where);
	*where = strdup(value);
	return *where ? 0 : -ENOMEM;
}

static int set_option(struct remote_options *o, char *word)
{
	char *value = strchr(word, '=');

	if (!strcmp(word, "soft") || !strcmp(word, "hard"))
		return o->soft = !strcmp(word, "soft"), 0;
	if (!strcmp(word, "access=user") || !strcmp(word, "access=client"))
		return o->per_user = !strcmp(word, "access=user"), 0;
	if (!strcmp(word, "acl") || !strcmp(word, "noacl"))
		return o->acl = !strcmp(word, "acl"), 0;
	if (!strcmp(word, "locks=source") || !strcmp(word, "locks=local"))
		return o->source_locks = !strcmp(word, "locks=source"), 0;
	if (!value)
		return -EINVAL;
	*value = 0;
	if (!strcmp(word, "command") && value[1])
		return set_string(&o->command, value + 1);
	if (!strcmp(word, "uname"))
		return set_string(&o->uname, value + 1);
	if (!set_number(o, word, value + 1))
		return 0;
	*value = '=';
	return -EINVAL;
}

void remote_options_free(struct remote_options *o)
{
	free(o->command);
	free(o->uname);
	free(o->unknown);
	*o = (struct remote_options){ 0 };
}

int remote_options_parse(const char *text, struct remote_options *o)
{
	char *copy = strdup(text), *save = NULL;
	int err = copy ? 0 : -ENOMEM;

	for (char *word = copy ? strtok_r(copy, ",", &save) : NULL; word && !err; word = strtok_r(NULL, ",", &save)) {
		err = set_option(o, word);
		if (err == -EINVAL)
			o->unknown = strdup(word);
	}
	free(copy);
	return err;
}
