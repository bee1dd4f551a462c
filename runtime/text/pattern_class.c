/* pattern_class.c - sets of characters: Oniguruma's classes for PCRE2.
 *
 * PCRE2 has no nested classes and no intersection, and some names mean other sets. Each class
 * is read as a set expression,
 *
 *   class   := "[" "^"? union ("&&" union)* "]"
 *   union   := (character | range | \d | \p{..} | [:alpha:] | class)*
 *
 * and written as an expression that matches exactly one character. A plain union stays a PCRE2
 * class, which is what nearly every tokenizer needs and what runs fast. Otherwise A or B is
 * (?:A|B), A and B is (?:(?=A)B), not A is (?:(?!A)(?s:.)): all of these look at one character.
 *
 * Names: properties are compared without case, blanks, "-" and "_". A script is matched by the
 * script property and not by its extensions, hence "sc:". \s is White_Space (PCRE2 adds
 * U+180E), \d is Nd, \h is a hexadecimal digit, \w is what UTS 18 says. */
#include "pattern_class.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/json.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MAX_NESTING = 16, NAME_BYTES = 64 };

#define SPACE "\\p{White_Space}"
/* Letters by Unicode 16 that PCRE2 10.42 does not call alphabetic yet. */
#define ALPHABETIC                                                                             \
    "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}"              \
    "\\x{11080}\\x{11081}"
#define WORD        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside a class the reference looks Latin-1 up in another table, which has these as well. */
#define WORD_MORE   "\\xb2\\xb3\\xb9\\xbc-\\xbe"
#define HEXADECIMAL "0-9A-Fa-f"

/* Names of \p{..}, folded. Without an inside it is \p{short}, the case as written here. */
static const struct {
    const char *brief, *name, *inside;
} properties[] = {
    {"C", "other", NULL},
    {"Cc", "control", NULL},
    {"Cf", "format", NULL},
    {"Cn", "unassigned", NULL},
    {"Co", "privateuse", NULL},
    {"L", "letter", NULL},
    {"LC", "casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}"},
    {"Ll", "lowercaseletter", NULL},
    {"Lm", "modifierletter", NULL},
    {"Lo", "otherletter", NULL},
    {"Lt", "titlecaseletter", NULL},
    {"Lu", "uppercaseletter", NULL},
    {"M", "mark", NULL},
    {"Mc", "spacingmark", NULL},
    {"Me", "enclosingmark", NULL},
    {"Mn", "nonspacingmark", NULL},
    {"N", "number", NULL},
    {"Nd", "decimalnumber", NULL},
    {"Nl", "letternumber", NULL},
    {"No", "othernumber", NULL},
    {"P", "punctuation", NULL},
    {"Pc", "connectorpunctuation", NULL},
    {"Pd", "dashpunctuation", NULL},
    {"Pe", "closepunctuation", NULL},
    {"Pf", "finalpunctuation", NULL},
    {"Pi", "initialpunctuation", NULL},
    {"Po", "otherpunctuation", NULL},
    {"Ps", "openpunctuation", NULL},
    {"S", "symbol", NULL},
    {"Sc", "currencysymbol", NULL},
    {"Sk", "modifiersymbol", NULL},
    {"Sm", "mathsymbol", NULL},
    {"So", "othersymbol", NULL},
    {"Z", "separator", NULL},
    {"Zl", "lineseparator", NULL},
    {"Zp", "paragraphseparator", NULL},
    {"Zs", "spaceseparator", NULL},
    {"alpha", "alphabetic", ALPHABETIC},
    {"alnum", "alnum", ALPHABETIC "\\p{Nd}"},
    {"ascii", "ascii", "\\x00-\\x7f"},
    {"blank", "blank", "\\t\\p{Zs}"},
    {"cntrl", "cntrl", "\\p{Cc}"},
    {"digit", "digit", "\\p{Nd}"},
    {"lower", "lowercase", "\\p{Lowercase}"},
    {"punct", "punct", "\\p{P}"},
    {"space", "whitespace", SPACE},
    {"upper", "uppercase", "\\p{Uppercase}"},
    {"word", "word", WORD},
    {"xdigit", "asciihexdigit", HEXADECIMAL},
    {"any", "any", "\\x{0}-\\x{10ffff}"},
};

pm_status pattern_fail(const struct pattern_reader *r, pm_status status, const char *what)
{
    char shown[JSON_EXCERPT];
    return fail(status, "%s: pattern \"%s\": %s", r->name, json_excerpt(shown, r->source, r->n),
                what);
}

static pm_status put_string(struct text *out, const char *s)
{
    return text_put(out, s, strlen(s));
}

pm_status pattern_put_literal(struct text *out, uint32_t c)
{
    char escaped[16];
    bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    if (c >= 0x80 || plain) return text_put_character(out, c);
    snprintf(escaped, sizeof escaped, "\\x{%x}", (unsigned)c);
    return put_string(out, escaped);
}

/* Characters */

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* Up to `most` digits of a base; returns how many were read. */
static int read_digits(struct pattern_reader *r, int base, int most, uint32_t *value)
{
    int n = 0;
    *value = 0;
    while (n < most && r->at < r->end && digit_value(*r->at) < base) {
        *value = *value * (uint32_t)base + (uint32_t)digit_value(*r->at++);
        n++;
    }
    return n;
}

static pm_status check_character(const struct pattern_reader *r, uint32_t c)
{
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        return pattern_fail(r, PM_ERR_FORMAT, "an escape is not a character");
    }
    return PM_OK;
}

/* Behind "\x", "\u" or "\o". */
static pm_status read_number(struct pattern_reader *r, char kind, uint32_t *c)
{
    int n;
    if (kind != 'u' && r->at < r->end && *r->at == '{') {
        r->at++;
        n = read_digits(r, kind == 'o' ? 8 : 16, 8, c);
        if (n == 0 || r->at == r->end || *r->at != '}') {
            return pattern_fail(r, PM_ERR_UNSUPPORTED, "an escape in braces is not one number");
        }
        r->at++;
    } else if (kind == 'u') {
        if (read_digits(r, 16, 4, c) != 4) {
            return pattern_fail(r, PM_ERR_FORMAT, "\\u without four digits");
        }
    } else {
        read_digits(r, kind == 'o' ? 8 : 16, 2, c);
        /* The reference takes these as bytes of a character, not as characters. */
        if (*c > 0x7f) return pattern_fail(r, PM_ERR_UNSUPPORTED, "\\x above 7F");
    }
    return check_character(r, *c);
}

pm_status pattern_read_character(struct pattern_reader *r, uint32_t *c, bool *is_character)
{
    static const char letters[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1b";
    const char *found;
    char kind;
    if (r->end - r->at < 2) return pattern_fail(r, PM_ERR_FORMAT, "ends with a backslash");
    kind = r->at[1];
    *is_character = true;
    if (kind == 'x' || kind == 'u' || (kind == 'o' && r->end - r->at > 2 && r->at[2] == '{')) {
        r->at += 2;
        return read_number(r, kind, c);
    }
    if (kind == '0') {
        r->at += 2;
        read_digits(r, 8, 2, c);
        return PM_OK;
    }
    found = kind ? strchr(letters, kind) : NULL;
    if (found) {
        r->at += 2;
        *c = (uint32_t)codes[found - letters];
        return PM_OK;
    }
    if (digit_value(kind) < 10 || ((kind | 32) >= 'a' && (kind | 32) <= 'z')) {
        *is_character = false;
        return PM_OK;
    }
    r->at++;
    *c = utf8_next(&r->at);
    return PM_OK;
}

/* Named sets */

static bool same_folded(const char *a, const char *b)
{
    while (*a && (*a | 32) == (*b | 32)) {
        a++;
        b++;
    }
    return *a == 0 && *b == 0;
}

static bool find_property(const char *name, char inside[SET_BYTES])
{
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++) {
        if (!same_folded(name, properties[i].brief) && !same_folded(name, properties[i].name)) {
            continue;
        }
        if (properties[i].inside) {
            snprintf(inside, SET_BYTES, "%s", properties[i].inside);
        } else {
            snprintf(inside, SET_BYTES, "\\p{%s}", properties[i].brief);
        }
        return true;
    }
    return false;
}

/* Scripts and binary properties: PCRE2 is asked. */
static bool ask_property(const char *name, char inside[SET_BYTES])
{
    static const char *const prefixes[] = {"sc:", ""};
    for (size_t i = 0; i < 2; i++) {
        int code;
        PCRE2_SIZE at;
        pcre2_code *compiled;
        snprintf(inside, SET_BYTES, "\\p{%s%s}", prefixes[i], name);
        compiled = pcre2_compile((PCRE2_SPTR)inside, PCRE2_ZERO_TERMINATED,
                                 PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
        pcre2_code_free(compiled);
        if (compiled) return true;
    }
    return false;
}

/* Reads "{^Name}" of \p. */
static pm_status read_property(struct pattern_reader *r, struct character_set *set)
{
    char name[NAME_BYTES], what[NAME_BYTES + 40];
    size_t n = 0;
    r->at++;
    if (r->at < r->end && *r->at == '^') {
        set->negated = !set->negated;
        r->at++;
    }
    for (; r->at < r->end && *r->at != '}'; r->at++) {
        char c = *r->at;
        bool ignored = c == ' ' || c == '-' || c == '_';
        bool letter = ((c | 32) >= 'a' && (c | 32) <= 'z') || digit_value(c) < 10;
        if (!ignored && (!letter || n + 1 >= sizeof name)) {
            return pattern_fail(r, PM_ERR_UNSUPPORTED, "unknown name in \\p{}");
        }
        if (!ignored) name[n++] = c;
    }
    name[n] = 0;
    if (r->at == r->end || n == 0) return pattern_fail(r, PM_ERR_FORMAT, "\\p{ without }");
    r->at++;
    if (find_property(name, set->inside) || ask_property(name, set->inside)) return PM_OK;
    snprintf(what, sizeof what, "unknown property \\p{%s}", name);
    return pattern_fail(r, PM_ERR_UNSUPPORTED, what);
}

pm_status pattern_read_set(struct pattern_reader *r, bool in_class, struct character_set *set,
                           bool *is_set)
{
    static const struct {
        char kind;
        const char *inside;
    } kinds[] = {{'d', "\\p{Nd}"}, {'s', SPACE}, {'h', HEXADECIMAL}, {'w', WORD}};
    char kind = r->end - r->at < 2 ? 0 : r->at[1];
    *is_set = true;
    if ((kind == 'p' || kind == 'P') && r->end - r->at > 2 && r->at[2] == '{') {
        set->negated = kind == 'P';
        r->at += 2;
        return read_property(r, set);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if ((kind | 32) != kinds[i].kind || (kind & 64) == 0) continue;
        set->negated = (kind & 32) == 0;
        snprintf(set->inside, SET_BYTES, "%s%s", kinds[i].inside,
                 kinds[i].kind == 'w' && !in_class ? WORD_MORE : "");
        r->at += 2;
        return PM_OK;
    }
    *is_set = false;
    return PM_OK;
}

/* Classes */

struct operand {
    struct text plain;  /* the inside of a PCRE2 class */
    struct text others; /* expressions of one character, with | between them */
};

static pm_status read_nested(struct pattern_reader *r, struct text *out, int depth);

static pm_status put_other(struct operand *o, const char *s, size_t n)
{
    if (o->others.n > 0) TRY(text_put(&o->others, "|", 1));
    return text_put(&o->others, s, n);
}

static pm_status put_set(struct operand *o, const struct character_set *set)
{
    char negated[SET_BYTES + 8];
    if (!set->negated) return put_string(&o->plain, set->inside);
    snprintf(negated, sizeof negated, "[^%s]", set->inside);
    return put_other(o, negated, strlen(negated));
}

/* Reads "[:name:]" at its "["; *is_bracket = false reads nothing. */
static pm_status read_bracket(struct pattern_reader *r, struct operand *o, bool *is_bracket)
{
    struct character_set set = {{0}, false};
    char name[NAME_BYTES];
    const char *at = r->at + 2;
    size_t n = 0;
    *is_bracket = false;
    if (r->end - r->at < 4 || r->at[1] != ':') return PM_OK;
    if (*at == '^') {
        set.negated = true;
        at++;
    }
    while (at < r->end && *at >= 'a' && *at <= 'z' && n + 1 < sizeof name) {
        name[n++] = *at++;
    }
    name[n] = 0;
    if (r->end - at < 2 || at[0] != ':' || at[1] != ']') return PM_OK;
    if (strcmp(name, "punct") == 0) {
        snprintf(set.inside, SET_BYTES, "\\p{P}\\p{S}");
    } else if (!find_property(name, set.inside)) {
        return pattern_fail(r, PM_ERR_UNSUPPORTED, "unknown name in [: :]");
    }
    *is_bracket = true;
    r->at = at + 2;
    return put_set(o, &set);
}

/* One character of a class, literal or escaped; not a set. */
static pm_status read_member(struct pattern_reader *r, uint32_t *c)
{
    bool is_character;
    if (r->at == r->end) return pattern_fail(r, PM_ERR_FORMAT, "[ without ]");
    if (*r->at != '\\') {
        *c = utf8_next(&r->at);
        return PM_OK;
    }
    TRY(pattern_read_character(r, c, &is_character));
    if (is_character) return PM_OK;
    if (r->at[1] != 'b') return pattern_fail(r, PM_ERR_UNSUPPORTED, "an escape in a class");
    r->at += 2;
    *c = '\b';
    return PM_OK;
}

static pm_status read_range(struct pattern_reader *r, struct operand *o)
{
    uint32_t first, last;
    TRY(read_member(r, &first));
    last = first;
    if (r->end - r->at >= 2 && r->at[0] == '-' && r->at[1] != ']') {
        r->at++;
        if (*r->at == '[' || (r->end - r->at >= 2 && memcmp(r->at, "&&", 2) == 0)) {
            return pattern_fail(r, PM_ERR_UNSUPPORTED, "a range of a class that ends in a set");
        }
        TRY(read_member(r, &last));
        if (last < first) return pattern_fail(r, PM_ERR_FORMAT, "an empty range in a class");
    }
    TRY(pattern_put_literal(&o->plain, first));
    if (last == first) return PM_OK;
    TRY(text_put(&o->plain, "-", 1));
    return pattern_put_literal(&o->plain, last);
}

static pm_status read_item(struct pattern_reader *r, struct operand *o, int depth)
{
    struct character_set set;
    bool done = false;
    if (*r->at == '[') {
        TRY(read_bracket(r, o, &done));
        if (done) return PM_OK;
        if (o->others.n > 0) TRY(text_put(&o->others, "|", 1));
        return read_nested(r, &o->others, depth + 1);
    }
    if (*r->at == '\\') {
        TRY(pattern_read_set(r, true, &set, &done));
        if (done) return put_set(o, &set);
    }
    return read_range(r, o);
}

/* The expression of a union; `negated` only where it is the whole class. */
static pm_status put_union(struct text *out, const struct operand *o, bool negated)
{
    bool plain = o->others.n == 0;
    if (plain && o->plain.n == 0) return put_string(out, negated ? "(?s:.)" : "(?!)");
    if (!plain) TRY(put_string(out, negated ? "(?:(?!" : "(?:"));
    if (o->plain.n > 0) {
        TRY(put_string(out, plain && negated ? "[^" : "["));
        TRY(text_put(out, o->plain.byte, o->plain.n));
        TRY(put_string(out, plain ? "]" : "]|"));
    }
    TRY(text_put(out, o->others.byte, o->others.n));
    if (!plain) TRY(put_string(out, negated ? ")(?s:.))" : ")"));
    return PM_OK;
}

/* From behind "[" or "[^" to behind "]". */
static pm_status read_operands(struct pattern_reader *r, struct text *out, bool negated,
                               int depth)
{
    struct operand o = {0};
    struct text all = {0}; /* the operands before the last, each as (?=..) */
    const char *first = r->at;
    pm_status status = PM_OK;
    while (r->at < r->end && (*r->at != ']' || r->at == first)) {
        if (r->end - r->at >= 2 && memcmp(r->at, "&&", 2) == 0) {
            r->at += 2;
            TRY_DONE(put_string(&all, "(?="));
            TRY_DONE(put_union(&all, &o, false));
            TRY_DONE(put_string(&all, ")"));
            o.plain.n = o.others.n = 0;
        } else {
            TRY_DONE(read_item(r, &o, depth));
        }
    }
    if (r->at == r->end) {
        status = pattern_fail(r, PM_ERR_FORMAT, "[ without ]");
        goto done;
    }
    r->at++;
    if (all.n == 0) {
        TRY_DONE(put_union(out, &o, negated));
    } else {
        TRY_DONE(put_string(out, negated ? "(?:(?!" : "(?:"));
        TRY_DONE(text_put(out, all.byte, all.n));
        TRY_DONE(put_union(out, &o, false));
        TRY_DONE(put_string(out, negated ? ")(?s:.))" : ")"));
    }
done:
    free(o.plain.byte);
    free(o.others.byte);
    free(all.byte);
    return status;
}

static pm_status read_nested(struct pattern_reader *r, struct text *out, int depth)
{
    bool negated;
    if (depth > MAX_NESTING) return pattern_fail(r, PM_ERR_UNSUPPORTED, "classes too deep");
    r->at++;
    negated = r->at < r->end && *r->at == '^';
    if (negated) r->at++;
    return read_operands(r, out, negated, depth);
}

pm_status pattern_read_class(struct pattern_reader *r, struct text *out)
{
    return read_nested(r, out, 0);
}
