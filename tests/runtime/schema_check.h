/* schema_check.h - whether a value fulfils a JSON schema, written for clarity alone. */
#ifndef TESTS_RUNTIME_SCHEMA_CHECK_H
#define TESTS_RUNTIME_SCHEMA_CHECK_H

#include "moe/json.h"

/* root: where references start. `pattern` and `format` are not looked at; a chain of references
 * that is longer than any sensible one counts as fulfilled. */
bool schema_check(const json *root, const json *schema, const json *value);

#endif
