/* pretokenizer.c - a chain of stages; each cuts pieces into smaller ones.
 *
 * A Sequence in the file is flattened. Pieces go depth first: what a stage cuts off goes
 * through all later stages to the sink before the stage looks further. So no list of pieces is
 * kept, and a word meets the model while it is in the cache. Cutting copies nothing; the two
 * stages that change text (Metaspace, ByteLevel) write into a buffer of their own, which is
 * free again when they move to their next piece.
 *
 * Every cutting stage is the same three things: something that finds matches, a rule what
 * happens to a match (struct joiner), and whether match and rest change roles (`invert`). The
 * joiner sees matches and rests in turn and holds back at most one piece.
 *
 * ByteLevel as the last stage, which is where files have it, does not spell its alphabet out:
 * pretokenizer_is_byte_level() tells the model to read bytes instead. */
#include "pretokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer_json.h"

enum { MAX_STAGES = 64 };

static const char GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum behavior { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};

enum scheme { ALWAYS, NEVER, FIRST };
static const char *const schemes[] = {"always", "never", "first"};

struct piece {
    const char *text;      /* [n] */
    const char *stand_ins; /* [n] the same for regular expressions, or text itself */
    size_t n, head;
};

struct run;
struct stage;
typedef pm_status (*stage_run)(struct run *run, size_t i, const struct piece *p);

struct stage {
    stage_run run;
    bool (*is_match)(uint32_t c); /* of stages that look at single characters */
    struct pattern *pattern;      /* Split, ByteLevel with use_regex */
    enum behavior behavior;
    bool invert;
    bool add_space;     /* ByteLevel */
    bool cut;           /* Metaspace: split */
    enum scheme scheme; /* Metaspace */
    uint32_t character; /* Metaspace: replacement; CharDelimiterSplit: delimiter */
};

struct pretokenizer {
    struct stage stage[MAX_STAGES];
    size_t n_stage;
    bool byte_level;
};

/* Scratch of a stage: what it wrote, and the same with stand-ins. */
struct pretokenization {
    struct {
        struct text text, stand_ins;
    } stage[MAX_STAGES + 1];
};

struct run {
    const struct pretokenizer *p;
    struct pretokenization *scratch;
    struct matcher *matcher;
    word_sink sink;
    void *context;
};

/* Hands a piece to the stage behind i. */
static pm_status emit(struct run *run, size_t i, const struct piece *p)
{
    if (p->n == 0) return PM_OK;
    if (i + 1 == run->p->n_stage) return run->sink(run->context, p->text, p->n);
    return run->p->stage[i + 1].run(run, i + 1, p);
}

static struct piece part(const struct piece *p, size_t start, size_t end)
{
    size_t head = p->head > start ? p->head - start : 0;
    return (struct piece){p->text + start, p->stand_ins + start, end - start, head};
}

/* What happens to matches */

struct joiner {
    struct run *run;
    size_t stage;
    const struct piece *whole;
    size_t start, end; /* the piece held back */
    bool holds, held_match, last_match;
};

static pm_status flush(struct joiner *j)
{
    struct piece p;
    if (!j->holds) return PM_OK;
    p = part(j->whole, j->start, j->end);
    j->holds = false;
    return emit(j->run, j->stage, &p);
}

/* Takes the next match or rest; they follow each other without gaps. */
static pm_status join(struct joiner *j, size_t start, size_t end, bool match)
{
    const struct stage *s = &j->run->p->stage[j->stage];
    bool last = j->last_match, extend = false;
    match = match != s->invert;
    j->last_match = match;
    switch (s->behavior) {
    case REMOVED:
        if (match) return PM_OK;
        break;
    case ISOLATED: break;
    case MERGED_WITH_PREVIOUS: extend = match && !last; break;
    case MERGED_WITH_NEXT: extend = !match && j->held_match; break;
    case CONTIGUOUS: extend = match == last; break;
    }
    if (extend && j->holds) {
        j->end = end;
        j->held_match = false; /* the rest takes one match, not the one before it */
        return PM_OK;
    }
    TRY(flush(j));
    j->start = start;
    j->end = end;
    j->holds = true;
    j->held_match = match;
    return PM_OK;
}

/* What finds matches */

static pm_status run_pattern(struct run *run, size_t i, const struct piece *p)
{
    struct joiner j = {.run = run, .stage = i, .whole = p};
    struct search search;
    size_t start, end, done = 0;
    bool found;
    search_init(&search, run->p->stage[i].pattern, run->matcher, p->text, p->stand_ins, p->n);
    for (;;) {
        TRY(search_next(&search, &start, &end, &found));
        if (!found) break;
        if (done != start) TRY(join(&j, done, start, false));
        TRY(join(&j, start, end, true));
        done = end;
    }
    if (done != p->n) TRY(join(&j, done, p->n, false));
    return flush(&j);
}

/* Each matching character is a match of its own. */
static pm_status run_characters(struct run *run, size_t i, const struct piece *p)
{
    const struct stage *s = &run->p->stage[i];
    struct joiner j = {.run = run, .stage = i, .whole = p};
    const char *at = p->text, *end = p->text + p->n;
    size_t done = 0;
    while (at < end) {
        size_t start = (size_t)(at - p->text);
        uint32_t c = utf8_next(&at);
        if (s->is_match ? !s->is_match(c) : c != s->character) continue;
        if (done < start) TRY(join(&j, done, start, false));
        done = (size_t)(at - p->text);
        TRY(join(&j, start, done, true));
    }
    if (done < p->n) TRY(join(&j, done, p->n, false));
    return flush(&j);
}

static int word_class(uint32_t c)
{
    return unicode_is_word(c) ? 2 : unicode_is_space(c) ? 0 : 1;
}

/* Runs of word characters and runs of others, blanks removed: \w+|[^\w\s]+ */
static pm_status run_words(struct run *run, size_t i, const struct piece *p)
{
    const char *at = p->text, *end = p->text + p->n;
    while (at < end) {
        const char *first = at;
        int class = word_class(utf8_next(&at));
        struct piece word;
        while (at < end) {
            const char *next = at;
            if (word_class(utf8_next(&next)) != class) break;
            at = next;
        }
        if (class == 0) continue;
        word = part(p, (size_t)(first - p->text), (size_t)(at - p->text));
        TRY(emit(run, i, &word));
    }
    return PM_OK;
}

/* What changes text */

/* The piece that stage i wrote to its buffer; slot MAX_STAGES is the whole input. */
static pm_status written(struct run *run, size_t i, const char *text, size_t n, size_t head,
                         struct piece *out)
{
    struct text *copy = &run->scratch->stage[i].stand_ins;
    bool differs;
    TRY(unicode_stand_ins(copy, text, n, &differs));
    *out = (struct piece){text, differs ? copy->byte : text, n, head};
    return PM_OK;
}

static pm_status run_metaspace(struct run *run, size_t i, const struct piece *p)
{
    const struct stage *s = &run->p->stage[i];
    struct text *out = &run->scratch->stage[i].text;
    const char *first = p->text;
    char mark[UTF8_MAX];
    size_t n = utf8_write(mark, s->character), head = 0;
    struct piece changed;
    bool starts;
    TRY(grow_array(&out->byte, &out->capacity, (p->n + 1) * n, 1));
    out->n = 0;
    starts = *first == ' ' || (p->n >= n && memcmp(first, mark, n) == 0);
    if (!starts && (s->scheme == ALWAYS || (s->scheme == FIRST && p->head > 0))) {
        memcpy(out->byte, mark, n);
        out->n = n;
    }
    if (p->head > 0) head = out->n;
    for (size_t k = 0; k < p->n; k++) {
        bool blank = first[k] == ' ';
        memcpy(out->byte + out->n, blank ? mark : first + k, blank ? n : 1);
        out->n += blank ? n : 1;
        if (k < p->head) head = out->n;
    }
    TRY(written(run, i, out->byte, out->n, head, &changed));
    return s->cut ? run_characters(run, i, &changed) : emit(run, i, &changed);
}

static pm_status run_byte_level(struct run *run, size_t i, const struct piece *p)
{
    const struct stage *s = &run->p->stage[i];
    struct text *out = &run->scratch->stage[i].text;
    struct piece changed = *p;
    if (s->add_space && *p->text != ' ') {
        out->n = 0;
        TRY(text_put(out, " ", 1));
        TRY(text_put(out, p->text, p->n));
        TRY(written(run, i, out->byte, out->n, p->head > 0 ? p->head + 1 : 0, &changed));
    }
    return s->pattern ? run_pattern(run, i, &changed) : emit(run, i, &changed);
}

/* The second half of a ByteLevel that is not the last stage. */
static pm_status run_spell_out(struct run *run, size_t i, const struct piece *p)
{
    struct text *out = &run->scratch->stage[i].text;
    struct piece changed;
    size_t head;
    out->n = 0;
    TRY(byte_level_put(out, p->text, p->head < p->n ? p->head : p->n));
    head = out->n;
    if (p->head < p->n) TRY(byte_level_put(out, p->text + p->head, p->n - p->head));
    TRY(written(run, i, out->byte, out->n, head, &changed));
    return emit(run, i, &changed);
}

pm_status pretokenizer_run(const struct pretokenizer *p, struct pretokenization *scratch,
                           struct matcher *m, const char *text, size_t n, size_t head,
                           word_sink sink, void *context)
{
    struct run run = {p, scratch, m, sink, context};
    struct piece whole;
    if (p->n_stage == 0) return sink(context, text, n);
    TRY(written(&run, MAX_STAGES, text, n, head, &whole));
    return p->stage[0].run(&run, 0, &whole);
}

/* Reading */

/* *out = index of the string object[key] in names. */
static pm_status read_name(struct json_doc *doc, const json *object, const char *key,
                           const char *const *names, int n, int *out)
{
    const json *v = json_get(object, key);
    for (int i = 0; v && json_is_string(v) && i < n; i++) {
        if (strcmp(json_text(v), names[i]) == 0) {
            *out = i;
            return PM_OK;
        }
    }
    return v ? json_fail(doc, v, "one of the known names") : json_fail(doc, object, key);
}

static pm_status read_behavior(struct stage *s, struct json_doc *doc, const json *v)
{
    int i = ISOLATED;
    TRY(read_name(doc, v, "behavior", behaviors, 5, &i));
    s->behavior = (enum behavior)i;
    return PM_OK;
}

static pm_status read_split(struct stage *s, struct json_doc *doc, const json *v)
{
    TRY(read_behavior(s, doc, v));
    TRY(tokenizer_need_bool(doc, v, "invert", &s->invert));
    return pattern_parse(&s->pattern, doc, v, "pattern");
}

static pm_status read_byte_level(struct stage *s, struct json_doc *doc, const json *v)
{
    bool use_regex = true;
    TRY(tokenizer_need_bool(doc, v, "add_prefix_space", &s->add_space));
    TRY(json_want_bool(doc, v, "use_regex", &use_regex));
    if (!use_regex) return PM_OK;
    return pattern_regex(&s->pattern, json_name(doc), GPT2_PATTERN, sizeof GPT2_PATTERN - 1);
}

static pm_status read_metaspace(struct stage *s, struct json_doc *doc, const json *v)
{
    bool add = true;
    int scheme = ALWAYS;
    TRY(tokenizer_need_character(doc, v, "replacement", &s->character));
    TRY(json_want_bool(doc, v, "add_prefix_space", &add));
    if (json_get(v, "prepend_scheme")) {
        TRY(read_name(doc, v, "prepend_scheme", schemes, 3, &scheme));
    }
    s->scheme = add ? (enum scheme)scheme : NEVER;
    s->cut = true;
    TRY(json_want_bool(doc, v, "split", &s->cut));
    s->behavior = MERGED_WITH_NEXT;
    return PM_OK;
}

static pm_status read_digits(struct stage *s, struct json_doc *doc, const json *v)
{
    bool individual = false;
    TRY(tokenizer_need_bool(doc, v, "individual_digits", &individual));
    s->behavior = individual ? ISOLATED : CONTIGUOUS;
    return PM_OK;
}

static pm_status read_punctuation(struct stage *s, struct json_doc *doc, const json *v)
{
    return json_get(v, "behavior") ? read_behavior(s, doc, v) : PM_OK;
}

static pm_status read_delimiter(struct stage *s, struct json_doc *doc, const json *v)
{
    return tokenizer_need_character(doc, v, "delimiter", &s->character);
}

static const struct kind {
    const char *type;
    stage_run run;
    bool (*is_match)(uint32_t c);
    enum behavior behavior;
    pm_status (*read)(struct stage *s, struct json_doc *doc, const json *v);
} kinds[] = {
    {"Split", run_pattern, NULL, ISOLATED, read_split},
    {"ByteLevel", run_byte_level, NULL, ISOLATED, read_byte_level},
    {"Metaspace", run_metaspace, NULL, MERGED_WITH_NEXT, read_metaspace},
    {"Digits", run_characters, unicode_is_numeric, ISOLATED, read_digits},
    {"Punctuation", run_characters, unicode_is_punctuation, ISOLATED, read_punctuation},
    {"Whitespace", run_words, NULL, ISOLATED, NULL},
    {"WhitespaceSplit", run_characters, unicode_is_space, REMOVED, NULL},
    {"CharDelimiterSplit", run_characters, NULL, REMOVED, read_delimiter},
    /* BertPreTokenizer is WhitespaceSplit and then Punctuation. */
    {"BertPreTokenizer", run_characters, unicode_is_space, REMOVED, NULL},
};

static pm_status add_stage(struct pretokenizer *p, struct json_doc *doc, const json *v,
                           const struct kind *kind, struct stage **out)
{
    if (p->n_stage == MAX_STAGES) return json_fail(doc, v, "at most 64 pre-tokenizers");
    *out = &p->stage[p->n_stage++];
    **out = (struct stage){
        .run = kind->run, .is_match = kind->is_match, .behavior = kind->behavior};
    return PM_OK;
}

static pm_status read_stage(struct pretokenizer *p, struct json_doc *doc, const json *v)
{
    static const struct kind bert_punctuation = {NULL, run_characters, unicode_is_punctuation,
                                                 ISOLATED, NULL};
    const char *type;
    struct stage *s = NULL;
    TRY(json_need_text(doc, v, "type", &type));
    if (strcmp(type, "Sequence") == 0) {
        const json *list = json_get(v, "pretokenizers");
        if (!json_is_array(list))
            return json_fail(doc, list ? list : v, "pretokenizers: [...]");
        for (const json *one = json_child(list); one; one = json_next(one)) {
            TRY(read_stage(p, doc, one));
        }
        return PM_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(type, kinds[i].type) != 0) continue;
        TRY(add_stage(p, doc, v, &kinds[i], &s));
        if (kinds[i].read) TRY(kinds[i].read(s, doc, v));
        if (strcmp(type, "BertPreTokenizer") == 0) {
            return add_stage(p, doc, v, &bert_punctuation, &s);
        }
        return PM_OK;
    }
    return tokenizer_fail_type(doc, "pre_tokenizer", type);
}

/* Puts a stage that spells the alphabet out behind each ByteLevel but a last one. */
static pm_status spell_out(struct pretokenizer *p, struct json_doc *doc)
{
    for (size_t i = 0; i < p->n_stage; i++) {
        if (p->stage[i].run != run_byte_level) continue;
        if (i + 1 == p->n_stage) {
            p->byte_level = true;
            return PM_OK;
        }
        if (p->n_stage == MAX_STAGES) {
            return fail(PM_ERR_UNSUPPORTED, "%s: more than %d pre-tokenizers", json_name(doc),
                        (int)MAX_STAGES);
        }
        memmove(&p->stage[i + 2], &p->stage[i + 1], (p->n_stage++ - i - 1) * sizeof *p->stage);
        p->stage[++i] = (struct stage){.run = run_spell_out};
    }
    return PM_OK;
}

pm_status pretokenizer_parse(struct pretokenizer **out, struct json_doc *doc, const json *v)
{
    struct pretokenizer *p;
    pm_status status = PM_OK;
    TRY(alloc_array(&p, 1, sizeof *p, "pre-tokenizer"));
    if (v && !json_is_null(v)) status = read_stage(p, doc, v);
    if (status == PM_OK) status = spell_out(p, doc);
    if (status != PM_OK) {
        pretokenizer_free(p);
        return status;
    }
    *out = p;
    return PM_OK;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n_stage; i++) {
        pattern_free(p->stage[i].pattern);
    }
    free(p);
}

bool pretokenizer_is_byte_level(const struct pretokenizer *p)
{
    return p->byte_level;
}

pm_status pretokenization_new(struct pretokenization **out)
{
    return alloc_array(out, 1, sizeof **out, "pre-tokenizer");
}

void pretokenization_free(struct pretokenization *run)
{
    if (!run) return;
    for (size_t i = 0; i <= MAX_STAGES; i++) {
        free(run->stage[i].text.byte);
        free(run->stage[i].stand_ins.byte);
    }
    free(run);
}
