/* grammar_schema.c - from a JSON schema to an automaton.
 *
 * The compiler works on views: lists of schemas that must all hold. $ref and allOf add schemas
 * to a view; anyOf and oneOf make one view for each branch, with the branch added and the
 * keyword marked as done. What is left speaks of single types, whose keywords meet in the
 * builders: bounds by taking the narrower, properties by giving each property the view of all
 * that the parts say about it.
 *
 * Each view has one start in the automaton, however often it is met; that closes recursion. New
 * views wait in a list, so nesting costs no stack. Views, parts and states are counted, and too
 * many are refused: a schema can call for exponentially many views (allOf of anyOf), and this
 * is the bound on time and memory. */
#include "grammar_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 1 << 13, MAX_STATES = 1 << 17, MAX_CHAIN = 64, MAX_INDENT = 32 };

/* Failing */

static char *path_of(const struct schema *c, const json *v, struct json_out *path)
{
    if (v) json_put_path(path, c->doc, v);
    return path->text;
}

static bool is_prefixed(void)
{
    return strncmp(pm_last_error(), "schema: ", 8) == 0;
}

pm_status schema_prefix(const struct schema *c, const json *v, pm_status status)
{
    struct json_out path = {0};
    if (status == PM_OK || status == PM_ERR_NOMEM || is_prefixed()) return status;
    if (path_of(c, v, &path)) {
        status = fail_prefix(status, "schema: %s", path.text);
    } else {
        status = fail_prefix(status, "schema");
    }
    free(path.text);
    return status;
}

pm_status schema_fail(const struct schema *c, const json *v, const char *format, ...)
{
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return schema_prefix(c, v, fail(PM_ERR_ARG, "%s", message));
}

/* Keywords */

enum keyword_use { ANNOTATION = -1, REFUSED = -2 }; /* else the types that it speaks of */

static const struct {
    const char *name;
    int use;
} keywords[] = {
    {"type", 0},
    {"enum", 0},
    {"const", 0},
    {"$ref", 0},
    {"anyOf", 0},
    {"oneOf", 0},
    {"allOf", 0},
    {"nullable", 0},
    {"properties", TYPE_OBJECT},
    {"required", TYPE_OBJECT},
    {"additionalProperties", TYPE_OBJECT},
    {"minProperties", TYPE_OBJECT},
    {"maxProperties", TYPE_OBJECT},
    {"items", TYPE_ARRAY},
    {"prefixItems", TYPE_ARRAY},
    {"minItems", TYPE_ARRAY},
    {"maxItems", TYPE_ARRAY},
    {"uniqueItems", TYPE_ARRAY},
    {"minLength", TYPE_STRING},
    {"maxLength", TYPE_STRING},
    {"pattern", TYPE_STRING},
    {"format", TYPE_STRING},
    {"minimum", TYPE_NUMBER | TYPE_INTEGER},
    {"maximum", TYPE_NUMBER | TYPE_INTEGER},
    {"exclusiveMinimum", TYPE_NUMBER | TYPE_INTEGER},
    {"exclusiveMaximum", TYPE_NUMBER | TYPE_INTEGER},
    {"multipleOf", TYPE_NUMBER | TYPE_INTEGER},
    {"$schema", ANNOTATION},
    {"$id", ANNOTATION},
    {"id", ANNOTATION},
    {"$anchor", ANNOTATION},
    {"$comment", ANNOTATION},
    {"$defs", ANNOTATION},
    {"definitions", ANNOTATION},
    {"title", ANNOTATION},
    {"description", ANNOTATION},
    {"default", ANNOTATION},
    {"example", ANNOTATION},
    {"examples", ANNOTATION},
    {"deprecated", ANNOTATION},
    {"readOnly", ANNOTATION},
    {"writeOnly", ANNOTATION},
    {"discriminator", ANNOTATION},
    {"contentEncoding", ANNOTATION},
    {"contentMediaType", ANNOTATION},
    {"contentSchema", ANNOTATION},
};

const char *schema_keyword(int i, int *types)
{
    if (i < 0 || (size_t)i >= sizeof keywords / sizeof *keywords) return NULL;
    *types = keywords[i].use;
    return keywords[i].name;
}

bool same_text(const char *a, size_t n_a, const char *b, size_t n_b)
{
    return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a) == 0);
}

/* REFUSED for unknown ones: they may be what somebody relies on. */
static int keyword_use(const json *member)
{
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        if (same_text(json_key(member), json_key_bytes(member), keywords[i].name,
                      strlen(keywords[i].name)))
            return keywords[i].use;
    }
    return REFUSED;
}

static pm_status check_keywords(const struct schema *c, const json *s)
{
    for (const json *m = json_child(s); m; m = json_next(m)) {
        if (keyword_use(m) == REFUSED) {
            return schema_fail(c, m, "not supported: this keyword cannot be enforced");
        }
    }
    return PM_OK;
}

const json *view_get(const struct view *view, const char *key)
{
    const json *found = NULL;
    for (int i = 0; i < view->n && !found; i++) {
        found = json_get(view->part[i], key);
    }
    return found;
}

/* Types */

static int type_bits(const json *name)
{
    static const struct {
        const char *name;
        int bits;
    } types[] = {{"null", TYPE_NULL},       {"boolean", TYPE_BOOLEAN},
                 {"integer", TYPE_INTEGER}, {"number", TYPE_NUMBER | TYPE_INTEGER},
                 {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (json_is_string(name) && same_text(json_text(name), json_text_bytes(name),
                                              types[i].name, strlen(types[i].name)))
            return types[i].bits;
    }
    return 0;
}

/* *bits = 0: there is no "type". */
static pm_status read_type(const struct schema *c, const json *s, int *bits)
{
    const json *type = json_get(s, "type"), *nullable = json_get(s, "nullable");
    const json *one = json_is_array(type) ? json_child(type) : type;
    *bits = 0;
    if (!type) return PM_OK;
    if (!one) return schema_fail(c, type, "wanted at least one type");
    for (; one; one = json_is_array(type) ? json_next(one) : NULL) {
        if (type_bits(one) == 0) {
            return schema_fail(c, one,
                               "wanted one of null, boolean, integer, number, string, "
                               "array, object");
        }
        *bits |= type_bits(one);
    }
    if (json_true(nullable)) *bits |= TYPE_NULL;
    return PM_OK;
}

pm_status view_types(struct schema *c, const struct view *view, bool is_explicit, int *types)
{
    int hints = 0, all = TYPE_ALL, bits;
    bool typed = false;
    for (int i = 0; i < view->n; i++) {
        TRY(read_type(c, view->part[i], &bits));
        if (bits != 0) all &= bits;
        typed = typed || bits != 0;
        for (const json *m = json_child(view->part[i]); m; m = json_next(m)) {
            int use = keyword_use(m);
            if (use > 0) hints |= use;
        }
    }
    *types = !typed && hints != 0 && !is_explicit ? hints : all;
    return PM_OK;
}

/* Views */

/* The value that a pointer like /$defs/a~1b/0 leads to, or NULL. */
static const json *follow_pointer(const json *v, const char *at, const char *end)
{
    while (v && at < end) {
        const char *name = ++at;
        const json *child = json_child(v);
        size_t index = 0;
        bool in_array = json_is_array(v);
        while (at < end && *at != '/') {
            at++;
        }
        for (; child; child = json_next(child), index++) {
            char text[24];
            const char *key = in_array ? text : json_key(child);
            size_t n = in_array ? (size_t)snprintf(text, sizeof text, "%zu", index)
                                : json_key_bytes(child);
            const char *from = name;
            size_t k = 0;
            for (; from < at && k < n; from++, k++) {
                char one = *from;
                if (one == '~' && from + 1 < at) one = *++from == '1' ? '/' : '~';
                if (one != key[k]) break;
            }
            if (from == at && k == n) break;
        }
        v = child;
    }
    return v;
}

static pm_status find_reference(const struct schema *c, const json *ref, const json **target)
{
    const char *text = json_text(ref);
    size_t n = json_text_bytes(ref);
    if (!json_is_string(ref)) return schema_fail(c, ref, "wanted a string");
    if (n == 0 || text[0] != '#' || (n > 1 && text[1] != '/')) {
        return schema_fail(c, ref, "only references into this schema, #/..., are supported");
    }
    *target = follow_pointer(json_root(c->doc), text + 1, text + n);
    return *target ? PM_OK : schema_fail(c, ref, "leads to nothing");
}

/* Whether part `i` is among those that brought `from`. */
static bool brought(const struct view *view, int from, int i)
{
    while (from >= 0 && from != i) {
        from = view->origin[from];
    }
    return from == i;
}

static pm_status add_part(struct schema *c, struct view *view, const json *s, int origin)
{
    if (json_is_bool(s)) {
        view->never = view->never || !json_true(s);
        return PM_OK;
    }
    if (!json_is_object(s)) return schema_fail(c, s, "wanted a schema: an object, true, false");
    for (int i = 0; i < view->n; i++) {
        if (view->part[i] != s) continue;
        view->never = view->never || (origin >= 0 && brought(view, origin, i));
        return PM_OK;
    }
    TRY(check_keywords(c, s));
    if (!json_child(s)) return PM_OK;
    if (view->n == MAX_PARTS) {
        return schema_fail(c, s, "too complex: more than %d schemas hold at once", MAX_PARTS);
    }
    view->done[view->n] = 0;
    view->origin[view->n] = (int8_t)origin;
    view->part[view->n++] = s;
    return PM_OK;
}

pm_status view_add(struct schema *c, struct view *view, const json *s, int origin)
{
    int first = view->n;
    TRY(add_part(c, view, s, origin));
    /* Parts that are added on the way are visited in their turn. */
    for (int i = first; i < view->n; i++) {
        const json *all = json_get(view->part[i], "allOf");
        const json *ref = json_get(view->part[i], "$ref"), *target;
        if (ref) {
            TRY(find_reference(c, ref, &target));
            TRY(add_part(c, view, target, i));
        }
        if (all && !json_is_array(all)) return schema_fail(c, all, "wanted a list of schemas");
        for (const json *one = json_child(all); one; one = json_next(one)) {
            TRY(add_part(c, view, one, i));
        }
    }
    return PM_OK;
}

static uint64_t hash_view(const struct view *view)
{
    uint64_t h = (uint64_t)view->n;
    for (int i = 0; i < view->n; i++) {
        h = (h ^ (uintptr_t)view->part[i] ^ view->done[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

static bool is_same(const struct view *a, const struct view *b)
{
    if (a->n != b->n) return false;
    for (int i = 0; i < a->n; i++) {
        if (a->part[i] != b->part[i] || a->done[i] != b->done[i]) return false;
        if (a->origin[i] != b->origin[i]) return false;
    }
    return true;
}

pm_status schema_start(struct schema *c, const struct view *view, uint32_t *start)
{
    struct rule rule = {.view = *view, .hash = hash_view(view)};
    uint32_t *bucket = &c->bucket[rule.hash % N_RULE_BUCKET];
    if (view->never) {
        *start = automaton_node(&c->a);
        return c->a.status;
    }
    for (uint32_t i = *bucket; i > 0; i = c->rule[i - 1].next) {
        if (!is_same(&c->rule[i - 1].view, view)) continue;
        *start = c->rule[i - 1].start;
        return PM_OK;
    }
    if (c->n_rule == MAX_RULES) {
        return fail(PM_ERR_ARG, "too complex: more than %d combinations of schemas", MAX_RULES);
    }
    TRY(grow_array(&c->rule, &c->rule_capacity, c->n_rule + 1, sizeof *c->rule));
    *start = rule.start = automaton_node(&c->a);
    rule.next = *bucket;
    c->rule[c->n_rule++] = rule;
    *bucket = (uint32_t)c->n_rule;
    return c->a.status;
}

/* Building */

/* One view for each branch. */
static pm_status build_branches(struct schema *c, const struct view *view, int part,
                                const json *list, int done, uint32_t start)
{
    if (!json_is_array(list) || json_size(list) == 0) {
        return schema_fail(c, list, "wanted a list of schemas");
    }
    if (done == DONE_ONE_OF) TRY(check_exclusive(c, list));
    for (const json *one = json_child(list); one; one = json_next(one)) {
        struct view branch = *view;
        uint32_t to;
        branch.done[part] |= (uint8_t)done;
        TRY(view_add(c, &branch, one, part));
        TRY(schema_start(c, &branch, &to));
        automaton_jump(&c->a, start, to);
    }
    return c->a.status;
}

static void build_word(struct schema *c, uint32_t start, const char *word)
{
    automaton_jump(&c->a, automaton_text(&c->a, start, word, strlen(word)), c->end);
}

static pm_status build_types(struct schema *c, const struct view *view, uint32_t start)
{
    int types;
    TRY(view_types(c, view, false, &types));
    if (view_get(view, "enum") || view_get(view, "const")) {
        TRY(view_types(c, view, true, &types));
        return build_values(c, view, types, start);
    }
    if (types & TYPE_NULL) build_word(c, start, "null");
    if (types & TYPE_BOOLEAN) {
        build_word(c, start, "true");
        build_word(c, start, "false");
    }
    if (types & TYPE_INTEGER) {
        TRY(build_number(c, view, (types & TYPE_NUMBER) == 0, start));
    }
    if (types & TYPE_STRING) TRY(build_string(c, view, start));
    if (types & TYPE_ARRAY) TRY(build_array(c, view, start));
    if (types & TYPE_OBJECT) TRY(build_object(c, view, start));
    return c->a.status;
}

static pm_status build_rule(struct schema *c, const struct view *view, uint32_t start)
{
    for (int i = 0; i < view->n; i++) {
        const json *any = json_get(view->part[i], "anyOf");
        const json *one = json_get(view->part[i], "oneOf");
        if (any && !(view->done[i] & DONE_ANY_OF)) {
            return build_branches(c, view, i, any, DONE_ANY_OF, start);
        }
        if (one && !(view->done[i] & DONE_ONE_OF)) {
            return build_branches(c, view, i, one, DONE_ONE_OF, start);
        }
    }
    return build_types(c, view, start);
}

/* Nothing, a blank, or a line feed and some blanks. */
static void build_space(struct schema *c)
{
    uint32_t at = automaton_node(&c->a), blank = automaton_node(&c->a);
    c->space = automaton_node(&c->a);
    automaton_accept(&c->a, c->space);
    automaton_range(&c->a, c->space, ' ', ' ', blank);
    automaton_accept(&c->a, blank);
    automaton_range(&c->a, c->space, '\n', '\n', at);
    for (int i = 0; i < MAX_INDENT; i++) {
        uint32_t next = automaton_node(&c->a);
        automaton_accept(&c->a, at);
        automaton_range(&c->a, at, ' ', ' ', next);
        at = next;
    }
    automaton_accept(&c->a, at);
}

/* The start of the text: the value, perhaps behind a blank, which some tokenizers put there. */
static uint32_t build_start(struct schema *c, uint32_t value)
{
    uint32_t start = automaton_node(&c->a);
    automaton_jump(&c->a, start, value);
    automaton_range(&c->a, start, ' ', ' ', value);
    return start;
}

static pm_status compile(struct schema *c, uint32_t *start)
{
    struct view view = {0};
    uint32_t value;
    c->end = automaton_node(&c->a);
    automaton_accept(&c->a, c->end);
    c->free_string = automaton_string(&c->a, 0, UNLIMITED, c->end);
    build_space(c);
    TRY(view_add(c, &view, json_root(c->doc), -1));
    TRY(schema_start(c, &view, &value));
    while (c->n_built < c->n_rule) {
        struct rule rule = c->rule[c->n_built++];
        TRY(build_rule(c, &rule.view, rule.start));
    }
    *start = build_start(c, value);
    TRY(automaton_freeze(&c->a));
    if (c->a.node[*start].need != NEED_NEVER) return PM_OK;
    return fail(PM_ERR_ARG, "no value fulfils it, or only one nested deeper than %d",
                GRAMMAR_MAX_DEPTH);
}

/* Failures of the compiler itself have the prefix already. */
static pm_status name_schema(pm_status status)
{
    if (status == PM_OK || status == PM_ERR_NOMEM) return status;
    if (!is_prefixed()) fail_prefix(status, "schema");
    return PM_ERR_ARG;
}

pm_status grammar_open(struct grammar **out, const char *schema, size_t n)
{
    struct schema c = {0};
    struct grammar *g = NULL;
    pm_status status;
    if (n > GRAMMAR_MAX_BYTES) {
        return fail(PM_ERR_ARG, "schema: found %zu bytes, wanted at most %d", n,
                    GRAMMAR_MAX_BYTES);
    }
    automaton_init(&c.a, MAX_STATES);
    TRY_DONE(alloc_array(&g, 1, sizeof *g, "grammar"));
    TRY_DONE(json_parse(&c.doc, "schema", schema, n));
    TRY_DONE(compile(&c, &g->start));
    g->automaton = c.a;
    c.a = (struct automaton){0};
    *out = g;
    g = NULL;
done:
    automaton_clear(&c.a);
    json_free(c.doc);
    free(c.rule);
    free(g);
    return name_schema(status);
}

void grammar_close(struct grammar *g)
{
    if (!g) return;
    automaton_clear(&g->automaton);
    free(g);
}
