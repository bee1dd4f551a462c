/* server_auth.c - keys are compared without an early exit.
 *
 * The secret is drawn for each process, so the names of tenants mean nothing outside of it. */
#define _GNU_SOURCE
#include "server_auth.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "runtime/command.h"

enum { MAX_KEY_FILE = 4 << 20 };

pm_status auth_init(struct auth *a)
{
    memset(a, 0, sizeof *a);
    if (getrandom(&a->secret, sizeof a->secret, 0) != (ssize_t)sizeof a->secret) {
        return fail(PM_ERR_IO, "getrandom: %s", strerror(errno));
    }
    return PM_OK;
}

void auth_clear(struct auth *a)
{
    for (int i = 0; i < a->n; i++) {
        explicit_bzero(a->key[i], a->n_byte[i]);
        free(a->key[i]);
    }
    a->n = 0;
}

pm_status auth_add(struct auth *a, const char *key, size_t n)
{
    if (a->n == MAX_API_KEY) return fail(PM_ERR_ARG, "api-key: more than %d keys", MAX_API_KEY);
    if (n == 0 || n > MAX_KEY_BYTES) {
        return fail(PM_ERR_ARG, "api-key: found %zu characters, wanted 1 to %d", n,
                    MAX_KEY_BYTES);
    }
    for (size_t i = 0; i < n; i++) {
        if (key[i] <= ' ' || key[i] > '~') {
            return fail(PM_ERR_ARG, "api-key: character %zu is not a visible ASCII one", i + 1);
        }
    }
    TRY(copy_text(&a->key[a->n], key, n));
    a->n_byte[a->n++] = n;
    return PM_OK;
}

pm_status auth_add_file(struct auth *a, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    pm_status status = read_file(&text, &n, path, MAX_KEY_FILE);
    for (size_t at = 0; status == PM_OK && at < n;) {
        size_t length = strcspn(text + at, "\r\n");
        if (length > 0 && text[at] != '#') status = auth_add(a, text + at, length);
        at += length + 1;
    }
    if (status == PM_ERR_ARG) status = fail_prefix(status, "%s", path);
    if (text) explicit_bzero(text, n);
    free(text);
    return status;
}

/* Four letters of base64 to three bytes; the password is what follows the first colon. */
static size_t decode_base64(const char *from, char *out, size_t max)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int n_bit = 0;
    size_t n = 0;
    for (; *from && *from != '='; from++) {
        const char *found = strchr(alphabet, *from);
        if (!found) return 0;
        bits = bits << 6 | (uint32_t)(found - alphabet);
        n_bit += 6;
        if (n_bit < 8) continue;
        if (n == max) return 0;
        n_bit -= 8;
        out[n++] = (char)(bits >> n_bit);
    }
    return n;
}

/* What the header presents as a key, in place or in room [max]. */
static const char *presented(const char *header, char *room, size_t max, size_t *n)
{
    *n = 0;
    if (!header) return "";
    if (strncasecmp(header, "Bearer ", 7) == 0) {
        header += 7;
        header += strspn(header, " ");
        *n = strlen(header);
        return header;
    }
    if (strncasecmp(header, "Basic ", 6) == 0) {
        size_t n_room = decode_base64(header + 6 + strspn(header + 6, " "), room, max);
        const char *colon = memchr(room, ':', n_room);
        if (!colon) return "";
        *n = n_room - (size_t)(colon + 1 - room);
        return colon + 1;
    }
    return "";
}

/* 0 when equal. Walks what was presented; the key repeats under it. */
static unsigned differs(const char *key, size_t n_key, const char *given, size_t n)
{
    unsigned difference = n_key != n;
    for (size_t i = 0, j = 0; i < n; i++) {
        difference |= (unsigned char)key[j] ^ (unsigned char)given[i];
        j = j + 1 == n_key ? 0 : j + 1;
    }
    return difference;
}

bool auth_check(const struct auth *a, const char *header, uint64_t *tenant)
{
    char room[2 * MAX_KEY_BYTES];
    size_t n;
    const char *given = presented(header, room, sizeof room, &n);
    unsigned found = 0;
    *tenant = 0;
    if (a->n == 0) return true;
    for (int i = 0; i < a->n; i++) {
        found |= differs(a->key[i], a->n_byte[i], given, n) == 0;
    }
    if (!found) return false;
    *tenant = siphash(a->secret, given, n).low | 1;
    return true;
}

uint64_t auth_hash(const struct auth *a, const char *text)
{
    return siphash(a->secret, text, strlen(text)).low;
}
