/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "programs/statustext.h"

#include <json-c/json.h>
#include <string.h>

#define COLUMN	16	/* where values begin */
#define WIDTH	80

/* Names come from the file system: what they hold must not reach the terminal as a command. */
static void print_safe(FILE *f, const char *s)
{
	for (; *s; s++)
		fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, f);
}

static int print_label(FILE *f, const char *key, int column)
{
	int len = 0;

	for (; *key; key++, len++)
		fputc(*key == '_' ? ' ' : *key, f);
	return fprintf(f, "%*s", len < column ? column - len : 1, "") + len;
}

static void print_scalar(FILE *f, struct json_object *value)
{
	switch (json_object_get_type(value)) {
	case json_type_null:
		fputs("none", f);
		break;
	case json_type_boolean:
		fputs(json_object_get_boolean(value) ? "yes" : "no", f);
		break;
	case json_type_string:
		print_safe(f, json_object_get_string(value));
		break;
	default:
		fputs(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), f);
	}
}

static void print_array(FILE *f, struct json_object *array)
{
	size_t count = json_object_array_length(array);
	int at = COLUMN;

	if (!count)
		fputs("none", f);
	for (size_t i = 0; i < count; i++) {
		struct json_object *item = json_object_array_get_idx(array, i);
		int len = (int)strlen(json_object_get_string(item));

		if (i && at + 1 + len > WIDTH) {
			fprintf(f, "\n%*s", COLUMN, "");
			at = COLUMN;
		} else if (i) {
			fputc(' ', f);
			at++;
		}
		print_scalar(f, item);
		at += len;
	}
	fputc('\n', f);
}

static int longest_key(struct json_object *object)
{
	int longest = 0;

	json_object_object_foreach(object, key, value) {
		int len = (int)strlen(key);

		(void)value;
		longest = len > longest ? len : longest;
	}
	return longest;
}

static void print_object(FILE *f, struct json_object *object)
{
	int column = longest_key(object) + 2;
	int indent = 0;

	if (!json_object_object_length(object))
		fputs("none\n", f);
	json_object_object_foreach(object, key, value) {
		fprintf(f, "%*s", indent, "");
		print_label(f, key, column);
		print_scalar(f, value);
		fputc('\n', f);
		indent = COLUMN;
	}
}

void status_print(FILE *f, struct json_object *status)
{
	json_object_object_foreach(status, key, value) {
		print_label(f, key, COLUMN);
		switch (json_object_get_type(value)) {
		case json_type_object:
			print_object(f, value);
			break;
		case json_type_array:
			print_array(f, value);
			break;
		default:
			print_scalar(f, value);
			fputc('\n', f);
		}
	}
}
