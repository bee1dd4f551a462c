/* grammar.h - constrained sampling: a JSON schema decides which tokens may come next.
 *
 * A schema is compiled to a grammar, a tokenizer's tokens to a vocabulary; both are immutable
 * and shared by threads. A state follows one text through a grammar and belongs to one thread
 * at a time. The promise: whatever is sampled from the allowed tokens until an end token is
 * allowed and taken is one JSON value that the schema accepts.
 *
 *   What is enforced      type, enum, const, $ref into the schema itself (recursion included),
 *                         anyOf, allOf, oneOf of branches that exclude each other; properties,
 *                         required, additionalProperties, minProperties and maxProperties where
 *                         they follow from these; items, prefixItems, minItems, maxItems;
 *                         minLength, maxLength, pattern, format (date, time, date-time, uuid,
 *                         ipv4, email); minimum, maximum, exclusive ones, multipleOf of whole
 *                         numbers; nullable
 *   What is annotation    title, description, default, examples, $schema, $id, $comment, ...
 *   All other keywords    fail, with their path, rather than be ignored
 *
 * Where a schema leaves freedom the grammar takes less of it, never more:
 *
 *   Properties come in the order of `properties`, optional ones may be left out, additional
 * ones follow. An object with `properties` and without `additionalProperties` has no others. A
 *   schema without `type` means the types that its keywords speak of. An additional key may
 * come twice, as RFC 8259 allows. White space is nothing, one blank, or a line feed with up to
 * 32 blanks; only one blank behind a colon, none after the value: no text can loop on blanks.
 *   Numbers have at most 19 digits before and behind the point, exponents 2; with bounds they
 * have 15 digits in all, as many as a double keeps, and no exponent.
 *   Strings are well-formed UTF-8; escapes of surrogates come in pairs. Under a pattern and in
 *   keys, enum and const, a character has one spelling: itself, or its shortest escape.
 *   Nesting ends at GRAMMAR_MAX_DEPTH: what would need more is not begun. */
#ifndef RUNTIME_GRAMMAR_H
#define RUNTIME_GRAMMAR_H

#include "runtime/text/tokenizer.h"

enum { GRAMMAR_MAX_DEPTH = 64, GRAMMAR_MAX_BYTES = 1 << 18 };

struct grammar_vocabulary;
struct grammar;
struct grammar_state;

/* The bytes of all tokens below n_vocab (rows of the model's logits; ids that the tokenizer
 * lacks are never allowed, nor are special tokens). end [n_end]: the ids that end a text.
 * PM_ERR_UNSUPPORTED: the tokenizer's decoder does not give a token bytes of its own. t is not
 * kept. */
pm_status grammar_vocabulary_open(struct grammar_vocabulary **out, const struct tokenizer *t,
                                  int n_vocab, const int32_t *end, int n_end);
/* The same from the tokens' bytes: token i is byte[start[i]] .. byte[start[i + 1]]; an empty
 * one is never allowed. Nothing is kept. */
pm_status grammar_vocabulary_new(struct grammar_vocabulary **out, const char *byte,
                                 const size_t *start, int n_vocab, const int32_t *end,
                                 int n_end);
void grammar_vocabulary_close(struct grammar_vocabulary *v);

/* Compiles n bytes of JSON schema. PM_ERR_ARG and PM_ERR_UNSUPPORTED are sentences that start
 * with "schema: " and the path of the keyword; PM_ERR_TOO_LONG names the limit. `{}` is any
 * JSON value, {"type":"object"} any object. Time and memory are bounded. */
pm_status grammar_open(struct grammar **out, const char *schema, size_t n);
void grammar_close(struct grammar *g);

/* A text at its beginning. g and v are borrowed until grammar_state_close. */
pm_status grammar_state_open(struct grammar_state **out, const struct grammar *g,
                             const struct grammar_vocabulary *v);
void grammar_state_close(struct grammar_state *s);
/* The same place in the same text, to go on from separately. */
pm_status grammar_state_copy(struct grammar_state **out, const struct grammar_state *from);

/* Fills allowed [(n_vocab + 31) / 32]: bit id % 32 of word id / 32 says that the token may come
 * next. PM_ERR_UNSUPPORTED: the vocabulary has no token to go on with (none of its tokens
 * starts with the byte that must come). */
pm_status grammar_allowed(struct grammar_state *s, uint32_t *allowed);
/* Appends a token. PM_ERR_ARG, and s is as before: it is not allowed. */
pm_status grammar_accept(struct grammar_state *s, int32_t id);
/* The text is a whole value: end tokens are allowed exactly then. */
bool grammar_complete(const struct grammar_state *s);

#endif
