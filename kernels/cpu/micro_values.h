/* micro_values.h - the second half of attention: weighted sums of cached values, for several
 * queries at once. Included by micro_body.h.
 *
 *     y[q][i] += p[q][j] v[j][i]      for j = 0, 1, ... in order
 *
 * VALUE_QUERIES x VALUE_VECS sums stay in registers while the rows of v go by, so a row of v is
 * loaded and widened once for all queries of a group. Each sum is one chain of multiply-adds
 * over j, whatever the group: a query's result does not depend on its neighbours. */

#if defined(__AVX512F__)
enum { VALUE_QUERIES = 4, VALUE_VECS = 4 };
#else
enum { VALUE_QUERIES = 2, VALUE_VECS = 4 };
#endif

/* n_q queries (a constant after inlining) and n_vec vectors of values from i on. */
ALWAYS_INLINE void value_group(pm_dtype type, const struct values *s, int q0, int n_q,
                               int64_t i, int n_vec)
{
    vec sum[VALUE_QUERIES][VALUE_VECS];
    const char *v = (const char *)s->v;
    for (int q = 0; q < n_q; q++) {
        for (int c = 0; c < n_vec; c++) {
            sum[q][c] = v_load(s->y[q0 + q] + i + c * LANES);
        }
    }
    for (int j = 0; j < s->n_row; j++, v += s->v_stride) {
        vec value[VALUE_VECS];
        for (int c = 0; c < n_vec; c++) {
            value[c] = load_as(type, v, i + c * LANES);
        }
        for (int q = 0; q < n_q; q++) {
            vec p = v_all(s->p[q0 + q][j]);
            for (int c = 0; c < n_vec; c++) {
                sum[q][c] = v_fma(p, value[c], sum[q][c]);
            }
        }
    }
    for (int q = 0; q < n_q; q++) {
        for (int c = 0; c < n_vec; c++) {
            v_store(s->y[q0 + q] + i + c * LANES, sum[q][c]);
        }
    }
}

ALWAYS_INLINE void value_queries(pm_dtype type, const struct values *s, int q0, int n_q)
{
    int64_t i = 0;
    for (; i + VALUE_VECS * LANES <= s->dim; i += VALUE_VECS * LANES) {
        value_group(type, s, q0, n_q, i, VALUE_VECS);
    }
    for (; i + LANES <= s->dim; i += LANES) {
        value_group(type, s, q0, n_q, i, 1);
    }
    if (i == s->dim) return;
    int rest = (int)(s->dim - i);
    for (int q = q0; q < q0 + n_q; q++) {
        const char *v = (const char *)s->v;
        vec sum = v_load_n(s->y[q] + i, rest);
        for (int j = 0; j < s->n_row; j++, v += s->v_stride) {
            sum = v_fma(v_all(s->p[q][j]), load_n_as(type, v, i, rest), sum);
        }
        v_store_n(s->y[q] + i, sum, rest);
    }
}

ALWAYS_INLINE void values_as(pm_dtype type, const struct values *s)
{
    int q = 0;
    for (; q + VALUE_QUERIES <= s->n_query; q += VALUE_QUERIES) {
        value_queries(type, s, q, VALUE_QUERIES);
    }
    for (; q < s->n_query; q++) {
        value_queries(type, s, q, 1);
    }
}

static void values_f32(const struct values *s)
{
    values_as(PM_F32, s);
}

static void values_bf16(const struct values *s)
{
    values_as(PM_BF16, s);
}

static void values_f16(const struct values *s)
{
    values_as(PM_F16, s);
}
