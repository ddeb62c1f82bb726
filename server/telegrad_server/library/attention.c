/* Scaled dot-product attention of float32, and its gradient, without a matrix of all weights.

   A strip of 32 queries goes through the keys in chunks. Scores stand as [keys, queries], so that maxima, exponentials and
   sums run down the columns, a query in each lane, and all products have long rows of whole vectors. Chunks, strips and the
   order of every sum follow from the shapes of one matrix: not from threads, and not from how many matrices there are.

   With is_causal, query i sees keys 0 to i; chunks that no query of a strip sees are left out. */
#include "telegrad.h"

enum {
    TG_STRIP = 32,     /* queries */
    TG_KEYS = 512,     /* of a chunk, forward: 64 KiB of scores */
    TG_BACK_KEYS = 128 /* of a chunk, backward: 16 KiB of scores and as many slopes */
};

/* The operands of all matrices; strides and offsets in floats; elements of a row lie together. Results are contiguous. */
struct tg_attention {
    const float *q, *k, *v, *bias;
    float *out, *total;
    const float *g, *row; /* the gradient's further operands and results */
    float *dq, *dk, *dv;
    const long *q_offset, *k_offset, *v_offset, *bias_offset, *g_offset; /* of each matrix */
    long q_row, k_row, v_row, g_row, bias_row, bias_column;
    long matrices, queries, keys, size, width, is_causal;
    double scale;
};

typedef int tg_marks __attribute__((vector_size(TG_WIDTH * 4), aligned(4), may_alias));

static inline __attribute__((always_inline)) tg_vector tg_choose(tg_marks which, tg_vector x, tg_vector y)
{
    return (tg_vector)(((tg_marks)x & which) | ((tg_marks)y & ~which));
}

/* word_exp of each lane. */
static inline __attribute__((always_inline)) tg_vector tg_exp(tg_vector x)
{
    tg_vector y = tg_choose(x > 89.0f, (tg_vector){} + 89.0f, x);
    y = tg_choose(y < -104.0f, (tg_vector){} - 104.0f, y);
    tg_vector k = y * 1.44269504088896341f + 12582912.0f;
    tg_marks n = (tg_marks)k - 0x4B400000;
    k = k - 12582912.0f;
    tg_vector r = k * -0.693359375f + y;
    r = k * 2.12194440e-4f + r;
    tg_vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    n &= y == y;
    tg_marks half = n >> 1;
    return p * (tg_vector)((half + 127) << 23) * (tg_vector)((n - half + 127) << 23);
}

static inline __attribute__((always_inline)) tg_vector tg_load(const float *x)
{
    return *(const tg_vector *)x;
}

static inline __attribute__((always_inline)) void tg_store(float *x, tg_vector y)
{
    *(tg_vector *)x = y;
}

/* c[rows, columns] (+)= a[rows, depth] b[depth, columns], whose rows lie together; depth is at most TG_KEYS. */
static void attention_product(
    long rows, long columns, long depth, const float *a, long a_row, long a_inner, const float *b, long b_inner,
    float *c, long c_row, long accumulate, float *packed)
{
    for (long j = 0; j < columns; j += TG_PANEL) {
        long width = columns - j < TG_PANEL ? columns - j : TG_PANEL, is_whole = width % TG_WIDTH == 0;
        if (!is_whole)
            for (long p = 0; p < depth; p++)
                for (long s = 0; s < TG_PANEL; s++)
                    packed[p * TG_PANEL + s] = s < width ? b[p * b_inner + j + s] : 0.0f;
        for (long i = 0; i < rows; i += TG_ROWS) {
            long count = rows - i < TG_ROWS ? rows - i : TG_ROWS;
            if (is_whole && (count > 1 || width == TG_PANEL)) /* there is no tile of one row and one vector */
                tg_tiles(
                    count, width / TG_WIDTH, depth, a + i * a_row, a_row, a_inner, b + j, b_inner, c + i * c_row + j, c_row,
                    accumulate);
            else if (is_whole)
                for (long s = 0; s < width; s++) {
                    float sum = 0.0f;
                    for (long p = 0; p < depth; p++)
                        sum = __builtin_fmaf(a[i * a_row + p * a_inner], b[p * b_inner + j + s], sum);
                    c[i * c_row + j + s] = accumulate ? c[i * c_row + j + s] + sum : sum;
                }
            else
                tg_edge(count, width, depth, a + i * a_row, a_row, a_inner, packed, c + i * c_row + j, c_row, accumulate);
        }
    }
}

/* to[depth, TG_STRIP] = the transpose of some rows, zeros beyond the last. */
static void attention_turn(float *to, const float *from, long from_row, long rows, long depth)
{
    if (rows < TG_STRIP)
        memset(to, 0, depth * TG_STRIP * sizeof(float));
    tg_transpose(to, TG_STRIP, from, from_row, rows, depth);
}

/* scores[keys, TG_STRIP] = scores * scale + bias; minus infinity for keys that a query does not see. */
static void attention_finish_scores(
    const struct tg_attention *t, float *scores, const float *bias, long first, long queries, long begin, long keys)
{
    float scale = (float)t->scale;
    for (long j = 0; j < keys * TG_STRIP; j += TG_WIDTH)
        tg_store(scores + j, tg_load(scores + j) * scale);
    for (long p = 0; bias && p < keys; p++) {
        const float *more = bias + first * t->bias_row + (begin + p) * t->bias_column;
        for (long j = 0; j < queries; j++)
            scores[p * TG_STRIP + j] += more[j * t->bias_row];
    }
    for (long p = first + 1 < begin ? 0 : first + 1 - begin; t->is_causal && p < keys; p++)
        for (long j = 0; j < begin + p - first && j < TG_STRIP; j++)
            scores[p * TG_STRIP + j] = -__builtin_inff();
}

static long attention_seen(const struct tg_attention *t, long first, long queries)
{
    long seen = t->is_causal ? first + queries : t->keys;
    return seen < t->keys ? seen : t->keys;
}

static void attention_strip(const struct tg_attention *t, long matrix, long first, float *scratch)
{
    float *turned = scratch, *scores = turned + t->size * TG_STRIP, *packed = scores + TG_KEYS * TG_STRIP;
    float top[TG_STRIP], shift[TG_STRIP], sum[TG_STRIP], factor[TG_STRIP];
    long queries = t->queries - first < TG_STRIP ? t->queries - first : TG_STRIP;
    const float *q = t->q + t->q_offset[matrix] + first * t->q_row, *k = t->k + t->k_offset[matrix];
    const float *v = t->v + t->v_offset[matrix], *bias = t->bias ? t->bias + t->bias_offset[matrix] : 0;
    float *out = t->out + (matrix * t->queries + first) * t->width, *total = t->total + matrix * t->queries + first;
    long seen = attention_seen(t, first, queries);
    attention_turn(turned, q, t->q_row, queries, t->size);
    for (long j = 0; j < TG_STRIP; j++)
        top[j] = -__builtin_inff(), shift[j] = sum[j] = 0.0f;
    if (!seen)
        memset(out, 0, queries * t->width * sizeof(float));
    for (long begin = 0; begin < seen; begin += TG_KEYS) {
        long keys = seen - begin < TG_KEYS ? seen - begin : TG_KEYS;
        attention_product(
            keys, TG_STRIP, t->size, k + begin * t->k_row, t->k_row, 1, turned, TG_STRIP, scores, TG_STRIP, 0, packed);
        attention_finish_scores(t, scores, bias, first, queries, begin, keys);
        for (long j = 0; j < TG_STRIP; j++)
            factor[j] = top[j];
        for (long j = 0; j < TG_STRIP; j += TG_WIDTH) {
            tg_vector most = tg_load(top + j);
            for (long p = 0; p < keys; p++) {
                tg_vector s = tg_load(scores + p * TG_STRIP + j);
                most = tg_choose((s > most) | (s != s), s, most);
            }
            tg_store(top + j, most);
        }
        for (long j = 0; j < TG_STRIP; j++) {
            float now = top[j] == -__builtin_inff() ? 0.0f : top[j];
            factor[j] = factor[j] == -__builtin_inff() ? 0.0f : word_exp(shift[j] - now);
            shift[j] = now;
            sum[j] *= factor[j];
        }
        for (long j = 0; j < TG_STRIP; j += TG_WIDTH)
            for (long part = 0; part < keys; part += 64) { /* sums of sums: rounding grows with neither's length */
                tg_vector some = {0}, shifted = tg_load(shift + j);
                for (long p = part; p < keys && p < part + 64; p++) {
                    tg_vector e = tg_exp(tg_load(scores + p * TG_STRIP + j) - shifted);
                    tg_store(scores + p * TG_STRIP + j, e);
                    some += e;
                }
                tg_store(sum + j, tg_load(sum + j) + some);
            }
        for (long i = 0; begin && i < queries; i++)
            for (long d = 0; d < t->width; d++)
                out[i * t->width + d] *= factor[i];
        attention_product(
            queries, t->width, keys, scores, 1, TG_STRIP, v + begin * t->v_row, t->v_row, out, t->width, begin > 0, packed);
    }
    for (long j = 0; j < TG_STRIP; j++) {
        factor[j] = word_log(sum[j]) + shift[j];
        sum[j] = sum[j] == 0.0f ? 1.0f : sum[j];
    }
    for (long i = 0; i < queries; i++) {
        total[i] = factor[i];
        for (long d = 0; d < t->width; d++)
            out[i * t->width + d] /= sum[i];
    }
}

static long attention_bytes(const struct tg_attention *t)
{
    long forward = t->size * TG_STRIP + TG_KEYS * (TG_STRIP + TG_PANEL);
    long backward = (t->size + t->width) * TG_STRIP + TG_BACK_KEYS * (2 * TG_STRIP + TG_PANEL);
    return 4 * (forward > backward ? forward : backward);
}

static long attention_strips(const struct tg_attention *t)
{
    return (t->queries + TG_STRIP - 1) / TG_STRIP;
}

static long attention_chunks(const struct tg_attention *t)
{
    return (t->keys + TG_BACK_KEYS - 1) / TG_BACK_KEYS;
}

/* A unit is a strip of a matrix. */
void tg_attention(const void *arguments, long begin, long end)
{
    const struct tg_attention *t = arguments;
    float *scratch = tg_scratch(attention_bytes(t));
    for (long unit = begin; unit < end; unit++)
        attention_strip(t, unit / attention_strips(t), unit % attention_strips(t) * TG_STRIP, scratch);
}

/* ---- the gradient */

/* What a strip of queries and the chunk of keys from `begin` give to dq, or to dk and dv, or to all. */
static void attention_meet(
    const struct tg_attention *t, long matrix, long first, long begin, long to_query, long to_key, float *scratch)
{
    float *turned_q = scratch, *turned_g = turned_q + t->size * TG_STRIP, *weights = turned_g + t->width * TG_STRIP;
    float *slopes = weights + TG_BACK_KEYS * TG_STRIP, *packed = slopes + TG_BACK_KEYS * TG_STRIP;
    float total[TG_STRIP], row[TG_STRIP], scale = (float)t->scale;
    long queries = t->queries - first < TG_STRIP ? t->queries - first : TG_STRIP;
    long seen = attention_seen(t, first, queries), keys = seen - begin < TG_BACK_KEYS ? seen - begin : TG_BACK_KEYS;
    const float *q = t->q + t->q_offset[matrix] + first * t->q_row, *g = t->g + t->g_offset[matrix] + first * t->g_row;
    const float *k = t->k + t->k_offset[matrix] + begin * t->k_row, *v = t->v + t->v_offset[matrix] + begin * t->v_row;
    const float *bias = t->bias ? t->bias + t->bias_offset[matrix] : 0;
    if (keys <= 0)
        return;
    for (long j = 0; j < TG_STRIP; j++) {
        total[j] = j < queries ? t->total[matrix * t->queries + first + j] : 0.0f;
        row[j] = j < queries ? t->row[matrix * t->queries + first + j] : 0.0f;
    }
    attention_product(keys, TG_STRIP, t->size, k, t->k_row, 1, turned_q, TG_STRIP, weights, TG_STRIP, 0, packed);
    attention_product(keys, TG_STRIP, t->width, v, t->v_row, 1, turned_g, TG_STRIP, slopes, TG_STRIP, 0, packed);
    attention_finish_scores(t, weights, bias, first, queries, begin, keys);
    for (long j = 0; j < TG_STRIP; j += TG_WIDTH) {
        tg_vector sums = tg_load(total + j), rows = tg_load(row + j);
        tg_marks any = sums != -__builtin_inff();
        for (long p = 0; p < keys; p++) {
            float *w = weights + p * TG_STRIP + j, *s = slopes + p * TG_STRIP + j;
            tg_vector e = tg_exp(tg_load(w) - sums);
            e = (tg_vector)((tg_marks)e & any);
            tg_store(w, e);
            tg_store(s, e * (tg_load(s) - rows) * scale);
        }
    }
    for (long p = first + 1 < begin ? 0 : first + 1 - begin; t->is_causal && p < keys; p++)
        for (long j = 0; j < begin + p - first && j < TG_STRIP; j++) /* whatever the slope: these are not seen */
            weights[p * TG_STRIP + j] = slopes[p * TG_STRIP + j] = 0.0f;
    if (to_key) {
        long key = matrix * t->keys + begin;
        attention_product(
            keys, t->width, queries, weights, TG_STRIP, 1, g, t->g_row, t->dv + key * t->width, t->width, 1, packed);
        attention_product(
            keys, t->size, queries, slopes, TG_STRIP, 1, q, t->q_row, t->dk + key * t->size, t->size, 1, packed);
    }
    if (to_query)
        attention_product(
            queries, t->size, keys, slopes, 1, TG_STRIP, k, t->k_row, t->dq + (matrix * t->queries + first) * t->size,
            t->size, begin > 0, packed);
}

static void attention_turn_both(const struct tg_attention *t, long matrix, long first, float *scratch)
{
    long queries = t->queries - first < TG_STRIP ? t->queries - first : TG_STRIP;
    attention_turn(scratch, t->q + t->q_offset[matrix] + first * t->q_row, t->q_row, queries, t->size);
    attention_turn(
        scratch + t->size * TG_STRIP, t->g + t->g_offset[matrix] + first * t->g_row, t->g_row, queries, t->width);
}

/* The gradient of q from a strip of a matrix. */
void tg_attention_queries(const void *arguments, long begin, long end)
{
    const struct tg_attention *t = arguments;
    float *scratch = tg_scratch(attention_bytes(t));
    for (long unit = begin; unit < end; unit++) {
        long matrix = unit / attention_strips(t), first = unit % attention_strips(t) * TG_STRIP;
        attention_turn_both(t, matrix, first, scratch);
        if (!t->keys)
            memset(t->dq + (matrix * t->queries + first) * t->size, 0,
                   (t->queries - first < TG_STRIP ? t->queries - first : TG_STRIP) * t->size * sizeof(float));
        for (long chunk = 0; chunk < attention_chunks(t); chunk++)
            attention_meet(t, matrix, first, chunk * TG_BACK_KEYS, 1, 0, scratch);
    }
}

/* The gradients of k and v from a chunk of a matrix. */
void tg_attention_keys(const void *arguments, long begin, long end)
{
    const struct tg_attention *t = arguments;
    float *scratch = tg_scratch(attention_bytes(t));
    for (long unit = begin; unit < end; unit++) {
        long matrix = unit / attention_chunks(t), at = unit % attention_chunks(t) * TG_BACK_KEYS;
        long keys = t->keys - at < TG_BACK_KEYS ? t->keys - at : TG_BACK_KEYS;
        memset(t->dk + (matrix * t->keys + at) * t->size, 0, keys * t->size * sizeof(float));
        memset(t->dv + (matrix * t->keys + at) * t->width, 0, keys * t->width * sizeof(float));
        for (long first = t->is_causal ? at : 0; first < t->queries; first += TG_STRIP) {
            attention_turn_both(t, matrix, first, scratch);
            attention_meet(t, matrix, first, at, 0, 1, scratch);
        }
    }
}

/* All gradients of a matrix, with the bits of the two kernels above, which make scores twice: for matrices enough. */
void tg_attention_gradient(const void *arguments, long begin, long end)
{
    const struct tg_attention *t = arguments;
    float *scratch = tg_scratch(attention_bytes(t));
    memset(t->dk + begin * t->keys * t->size, 0, (end - begin) * t->keys * t->size * sizeof(float));
    memset(t->dv + begin * t->keys * t->width, 0, (end - begin) * t->keys * t->width * sizeof(float));
    if (!t->keys)
        memset(t->dq + begin * t->queries * t->size, 0, (end - begin) * t->queries * t->size * sizeof(float));
    for (long matrix = begin; matrix < end; matrix++)
        for (long first = 0; first < t->queries; first += TG_STRIP) {
            attention_turn_both(t, matrix, first, scratch);
            for (long chunk = 0; chunk < attention_chunks(t); chunk++)
                attention_meet(t, matrix, first, chunk * TG_BACK_KEYS, 1, 1, scratch);
        }
}
