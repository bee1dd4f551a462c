/* server_auth.h - API keys: who may call, and what is told apart by key.
 *
 * A key comes as "Authorization: Bearer KEY", or as the password of "Authorization: Basic",
 * which is what a browser sends once it asked its user. */
#ifndef RUNTIME_SERVER_AUTH_H
#define RUNTIME_SERVER_AUTH_H

#include "kernels/base.h"
#include "runtime/engine/siphash.h"

enum { MAX_API_KEY = 1024, MAX_KEY_BYTES = 1024 };

struct auth {
    char *key[MAX_API_KEY];
    size_t n_byte[MAX_API_KEY];
    int n;
    struct siphash secret; /* of this process */
};

/* Draws the secret. */
pm_status auth_init(struct auth *a);
void auth_clear(struct auth *a);
/* PM_ERR_ARG: empty, too long, too many, or with blanks or control characters. */
pm_status auth_add(struct auth *a, const char *key, size_t n);
/* One key a line; empty lines and lines that begin with # are left out. */
pm_status auth_add_file(struct auth *a, const char *path);

/* header: the value of Authorization or NULL. True when it holds one of the keys, or when there
 * are none. The time it takes depends on the length of what was sent and on the number of keys,
 * never on their content. *tenant names the key: 0 without keys, else a keyed hash. */
bool auth_check(const struct auth *a, const char *header, uint64_t *tenant);

/* A keyed hash of a text that a client made up, such as a salt. */
uint64_t auth_hash(const struct auth *a, const char *text);

#endif
