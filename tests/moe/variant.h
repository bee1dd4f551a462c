/* variant.h - configurations of tests/golden, as they are or with one key changed.
 *
 * Changes are made in the text, so that a test says in JSON what a file may say. This header
 * brings cmocka along, without the macro that hides fail(). */
#ifndef TESTS_MOE_VARIANT_H
#define TESTS_MOE_VARIANT_H

#include <setjmp.h>
#include <stdarg.h>

#include "moe/config.h"

#include <cmocka.h>
#undef fail

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { VARIANT_BYTES = 16384 };

/* The config.json of a golden checkpoint in text [VARIANT_BYTES]. */
void variant_text(char *text, const char *golden);

/* Sets the first `key` in the text to `value` (JSON), adds it to the root where there is none,
 * or takes it out where value is NULL. */
void variant_change(char *text, const char *key, const char *value);

/* Parses a text that must be good; freed with config_free. */
struct config *variant_parse(const char *text);

/* A golden configuration with key = value; key NULL changes nothing. */
struct config *variant_of(const char *golden, const char *key, const char *value);

#endif
