/* normalizer.c - a list of steps, each of which rewrites the text.
 *
 * A Sequence in the file is flattened: only the order counts. Every step reads the text and
 * writes another, and the two buffers change places.
 *
 * The one thing that outlives a rewrite is `head`: the reference keeps for each byte where it
 * came from, and one later question needs it, whether a piece starts where the input starts.
 * That is so for the bytes that came from the first character, and these are always a prefix.
 * So each step says how long the prefix is afterwards: what replaces a match counts as the last
 * character of the match, what is put in front as the first character. */
#include "normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "normal_form.h"
#include "tokenizer_json.h"

enum {
    /* A file whose replacements feed each other could grow a text without end. Honest growth
     * is 11 times, a ligature of 3 bytes that NFKC spells out. */
    MAX_GROWTH = 32,
    MIN_LIMIT = 1 << 20
};

struct step;
typedef pm_status (*step_run)(const struct step *s, struct matcher *m, const struct passage *in,
                              struct passage *out);

struct step {
    step_run run;
    enum normal_form form;
    bool left, right; /* Strip */
    char *content;    /* Prepend, Replace: [n_content] */
    size_t n_content;
    struct pattern *pattern; /* Replace */
};

struct normalizer {
    struct step *step;
    size_t n_step, capacity;
};

/* Running */

static bool is_ascii(const struct text *t)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->byte[i] & 0x80) return false;
    }
    return true;
}

static pm_status run_form(const struct step *s, struct matcher *m, const struct passage *in,
                          struct passage *out)
{
    const struct text *t = &in->text;
    (void)m;
    if (is_ascii(t)) {
        out->head = in->head;
        return text_put(&out->text, t->byte, t->n);
    }
    TRY(normal_form_put(&out->text, s->form, t->byte, in->head));
    out->head = out->text.n;
    out->text.n = 0;
    TRY(normal_form_put(&out->text, s->form, t->byte, t->n));
    if (out->head > out->text.n) out->head = out->text.n;
    /* The first character may have become part of a longer one: e and acute. */
    while (out->head < out->text.n && (out->text.byte[out->head] & 0xc0) == 0x80) {
        out->head++;
    }
    return PM_OK;
}

static pm_status run_lowercase(const struct step *s, struct matcher *m,
                               const struct passage *in, struct passage *out)
{
    const char *at = in->text.byte, *end = at + in->text.n, *head = at + in->head;
    (void)s, (void)m;
    out->head = 0;
    while (at < end) {
        uint32_t lower[2];
        int n = unicode_lower(utf8_next(&at), lower);
        for (int i = 0; i < n; i++) {
            TRY(text_put_character(&out->text, lower[i]));
        }
        if (at <= head) out->head = out->text.n;
    }
    return PM_OK;
}

static pm_status run_strip_accents(const struct step *s, struct matcher *m,
                                   const struct passage *in, struct passage *out)
{
    const char *at = in->text.byte, *end = at + in->text.n, *head = at + in->head;
    (void)s, (void)m;
    out->head = 0;
    while (at < end) {
        uint32_t c = utf8_next(&at);
        if (!unicode_is_mark(c)) TRY(text_put_character(&out->text, c));
        if (at <= head) out->head = out->text.n;
    }
    return PM_OK;
}

static pm_status run_strip(const struct step *s, struct matcher *m, const struct passage *in,
                           struct passage *out)
{
    const char *first = in->text.byte, *end = first + in->text.n;
    (void)m;
    while (s->left && first < end) {
        const char *next = first;
        if (!unicode_is_space(utf8_next(&next))) break;
        first = next;
    }
    while (s->right && end > first && unicode_is_space(utf8_last(first, end))) {
        do {
            end--;
        } while ((*end & 0xc0) == 0x80);
    }
    TRY(text_put(&out->text, first, (size_t)(end - first)));
    out->head = (size_t)(first - in->text.byte);
    out->head = in->head > out->head ? in->head - out->head : 0;
    if (out->head > out->text.n) out->head = out->text.n;
    return PM_OK;
}

static pm_status run_prepend(const struct step *s, struct matcher *m, const struct passage *in,
                             struct passage *out)
{
    (void)m;
    out->head = in->head > 0 ? in->head + s->n_content : 0;
    TRY(text_put(&out->text, s->content, s->n_content));
    return text_put(&out->text, in->text.byte, in->text.n);
}

static pm_status run_byte_level(const struct step *s, struct matcher *m,
                                const struct passage *in, struct passage *out)
{
    (void)s, (void)m;
    TRY(byte_level_put(&out->text, in->text.byte, in->head));
    out->head = out->text.n;
    return byte_level_put(&out->text, in->text.byte + in->head, in->text.n - in->head);
}

/* Copies in[from, to) and moves the head along while it lasts. */
static pm_status copy_part(const struct passage *in, struct passage *out, size_t from,
                           size_t to)
{
    if (from < in->head && out->head == out->text.n) {
        out->head += (to < in->head ? to : in->head) - from;
    }
    return text_put(&out->text, in->text.byte + from, to - from);
}

static pm_status replace_all(const struct step *s, struct search *search,
                             const struct passage *in, struct passage *out)
{
    size_t start, end, copied = 0;
    bool found;
    out->head = 0;
    for (;;) {
        bool headed;
        TRY(search_next(search, &start, &end, &found));
        if (!found) break;
        TRY(copy_part(in, out, copied, start));
        headed = in->head > 0 && end <= in->head && out->head == out->text.n;
        TRY(text_put(&out->text, s->content, s->n_content));
        if (out->text.n > out->most) break;
        if (headed) out->head = out->text.n;
        copied = end;
    }
    return copy_part(in, out, copied, in->text.n);
}

static pm_status run_replace(const struct step *s, struct matcher *m, const struct passage *in,
                             struct passage *out)
{
    struct text stand_ins = {0};
    struct search search;
    bool differs;
    pm_status status;
    TRY_DONE(unicode_stand_ins(&stand_ins, in->text.byte, in->text.n, &differs));
    search_init(&search, s->pattern, m, in->text.byte, differs ? stand_ins.byte : in->text.byte,
                in->text.n);
    TRY_DONE(replace_all(s, &search, in, out));
done:
    free(stand_ins.byte);
    return status;
}

pm_status normalizer_run(const struct normalizer *z, struct matcher *m, struct passage *p,
                         struct text *spare)
{
    size_t n = p->text.n;
    p->most = n < SIZE_MAX / MAX_GROWTH - MIN_LIMIT ? MIN_LIMIT + MAX_GROWTH * n : SIZE_MAX;
    for (size_t i = 0; i < z->n_step && p->text.n > 0; i++) {
        struct passage out = {.text = *spare, .most = p->most};
        pm_status status;
        out.text.n = 0;
        status = z->step[i].run(&z->step[i], m, p, &out);
        /* Whatever happened, each buffer keeps one owner. */
        *spare = out.text;
        TRY(status);
        *spare = p->text;
        *p = out;
        if (p->text.n > p->most) {
            return fail(PM_ERR_TOO_LONG, "the normalizer makes %zu bytes out of %zu", p->text.n,
                        n);
        }
    }
    return PM_OK;
}

/* Reading */

static pm_status read_prepend(struct step *s, struct json_doc *doc, const json *v)
{
    return tokenizer_need_bytes(doc, v, "prepend", &s->content, &s->n_content);
}

static pm_status read_replace(struct step *s, struct json_doc *doc, const json *v)
{
    TRY(tokenizer_need_bytes(doc, v, "content", &s->content, &s->n_content));
    return pattern_parse(&s->pattern, doc, v, "pattern");
}

static pm_status read_strip(struct step *s, struct json_doc *doc, const json *v)
{
    TRY(tokenizer_need_bool(doc, v, "strip_left", &s->left));
    return tokenizer_need_bool(doc, v, "strip_right", &s->right);
}

static const struct {
    const char *type;
    step_run run;
    pm_status (*read)(struct step *s, struct json_doc *doc, const json *v);
    enum normal_form form;
} kinds[] = {
    {"NFC", run_form, NULL, NORMAL_C},         {"NFD", run_form, NULL, NORMAL_D},
    {"NFKC", run_form, NULL, NORMAL_KC},       {"NFKD", run_form, NULL, NORMAL_KD},
    {"Lowercase", run_lowercase, NULL, 0},     {"StripAccents", run_strip_accents, NULL, 0},
    {"Strip", run_strip, read_strip, 0},       {"Prepend", run_prepend, read_prepend, 0},
    {"Replace", run_replace, read_replace, 0}, {"ByteLevel", run_byte_level, NULL, 0},
};

static pm_status read_step(struct normalizer *z, struct json_doc *doc, const json *v)
{
    const char *type;
    struct step *s;
    TRY(json_need_text(doc, v, "type", &type));
    if (strcmp(type, "Sequence") == 0) {
        const json *list = json_get(v, "normalizers");
        if (!json_is_array(list)) return json_fail(doc, list ? list : v, "normalizers: [...]");
        for (const json *one = json_child(list); one; one = json_next(one)) {
            TRY(read_step(z, doc, one));
        }
        return PM_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(type, kinds[i].type) != 0) continue;
        TRY(grow_array(&z->step, &z->capacity, z->n_step + 1, sizeof *z->step));
        s = &z->step[z->n_step++];
        *s = (struct step){.run = kinds[i].run, .form = kinds[i].form};
        return kinds[i].read ? kinds[i].read(s, doc, v) : PM_OK;
    }
    return tokenizer_fail_type(doc, "normalizer", type);
}

pm_status normalizer_parse(struct normalizer **out, struct json_doc *doc, const json *v)
{
    struct normalizer *z;
    pm_status status = PM_OK;
    TRY(alloc_array(&z, 1, sizeof *z, "normalizer"));
    if (v && !json_is_null(v)) status = read_step(z, doc, v);
    if (status != PM_OK) {
        normalizer_free(z);
        return status;
    }
    *out = z;
    return PM_OK;
}

void normalizer_free(struct normalizer *z)
{
    if (!z) return;
    for (size_t i = 0; i < z->n_step; i++) {
        free(z->step[i].content);
        pattern_free(z->step[i].pattern);
    }
    free(z->step);
    free(z);
}
