/* variant.c - see variant.h. Good for the files of tests/golden: no escapes in strings. */
#include "tests/moe/variant.h"

#include <stdio.h>
#include <string.h>

void variant_text(char *text, const char *golden)
{
    char path[512];
    size_t n;
    FILE *f;
    snprintf(path, sizeof path, "%s/tests/golden/%s/config.json", PM_SOURCE_DIR, golden);
    f = fopen(path, "rb");
    if (!f) FAIL("%s: cannot be opened", path);
    n = fread(text, 1, VARIANT_BYTES - 1, f);
    text[n] = 0;
    fclose(f);
}

/* The end of the JSON value at p. */
static char *value_end(char *p)
{
    int depth = 0;
    bool quoted = false;
    for (;; p++) {
        if (*p == '"') quoted = !quoted;
        if (quoted) continue;
        if (depth == 0 && (*p == ',' || *p == '}' || *p == ']')) return p;
        depth += (*p == '[' || *p == '{') - (*p == ']' || *p == '}');
    }
}

void variant_change(char *text, const char *key, const char *value)
{
    char quoted[96], rest[VARIANT_BYTES], *at, *end;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(text, quoted);
    if (!at && !value) return;
    if (!at) {
        at = strchr(text, '{') + 1;
        snprintf(rest, sizeof rest, "%s", at);
        snprintf(at, (size_t)(text + VARIANT_BYTES - at), "%s%s,%s", quoted, value, rest);
        return;
    }
    end = value_end(at + strlen(quoted));
    if (!value && *end == ',') {
        end++;
    } else if (!value) {
        /* The last member goes with the comma before it. */
        while (*at != ',') {
            at--;
        }
    }
    snprintf(rest, sizeof rest, "%s", end);
    snprintf(at, (size_t)(text + VARIANT_BYTES - at), "%s%s%s", value ? quoted : "",
             value ? value : "", rest);
}

struct config *variant_parse(const char *text)
{
    struct config *c = NULL;
    if (config_parse(&c, "config.json", text, strlen(text)) != PM_OK) {
        FAIL("%s\n%s", pm_last_error(), text);
    }
    return c;
}

struct config *variant_of(const char *golden, const char *key, const char *value)
{
    char text[VARIANT_BYTES];
    variant_text(text, golden);
    if (key) variant_change(text, key, value);
    return variant_parse(text);
}
