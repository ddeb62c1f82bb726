"""The words of the scalar language in C: what each is printed as, and the functions that the printed text calls.

Sums, products, quotients and roots are rounded as IEEE 754 says, so they have NumPy's bits wherever they stand
(`-ffp-contract=off`: no product is fused with a sum unless it is written so). The functions are polynomials in plain C
that a compiler turns into vector code; their errors against float64 are in `tests/compiler/test_words.py`. NaN,
infinities and signed zeros come out as from NumPy. Nothing is included and no library is linked: names are built in.
"""

from __future__ import annotations

from collections.abc import Mapping

FLOAT_WORDS: Mapping[str, str] = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "abs": "__builtin_fabsf({0})",
    "sign": "{0} > 0.0f ? 1.0f : {0} < 0.0f ? -1.0f : {0} == 0.0f ? 0.0f : {0}",
    "reciprocal": "1.0f / {0}",
    "square": "{0} * {0}",
    "minimum": "({0} < {1}) | ({0} != {0}) ? {0} : {1}",
    "maximum": "({0} > {1}) | ({0} != {0}) ? {0} : {1}",
    "sqrt": "__builtin_sqrtf({0})",
    "exp": "word_exp({0})",
    "log": "word_log({0})",
    "log1p": "word_log1p({0})",
    "logaddexp": "word_logaddexp({0}, {1})",
    "tanh": "word_tanh({0})",
    "erf": "word_erf({0})",
}
"""Words from float32 to float32."""

PREDICATES: Mapping[str, str] = {
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
}
"""Words from two operands of one type to a truth."""

FLOAT_PREDICATES: Mapping[str, str] = {
    "isnan": "{0} != {0}",
    "isinf": "__builtin_fabsf({0}) == __builtin_inff()",
    "isfinite": "__builtin_fabsf({0}) < __builtin_inff()",
    "signbit": "word_bits({0}) < 0",
}

LOGIC: Mapping[str, str] = {
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "logical_xor": "{0} ^ {1}",
    "logical_not": "{0} ^ 1",
}

UNLIKE_NUMPY = frozenset({"exp", "log", "log1p", "logaddexp", "tanh", "erf"})
"""Words whose last bits differ from NumPy's. Where there are kernels they are always run by one, wherever they stand:
so the bits of a value do not depend on which other ops a kernel holds."""

CHOICES = """
#if !defined(__clang__)
#pragma GCC optimize("no-thread-jumps", "no-tree-pre")
#endif
"""
"""Before the prelude of printed kernels: gcc 12 makes branches of choices in a row, and then no vector code."""

PRELUDE = r"""
typedef float lanes __attribute__((vector_size(64)));
typedef int marks __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) int word_bits(float x) {
    int i;
    __builtin_memcpy(&i, &x, 4);
    return i;
}

static inline __attribute__((always_inline)) float word_float(int i) {
    float x;
    __builtin_memcpy(&x, &i, 4);
    return x;
}

/* 2^n r with r = exp of what is left of x; n is at most 128 in size, and 2^n is multiplied in by halves. */
static inline __attribute__((always_inline)) float word_exp(float x) {
    float y = x > 89.0f ? 89.0f : x;
    y = y < -104.0f ? -104.0f : y;
    float k = __builtin_fmaf(y, 1.44269504088896341f, 12582912.0f);
    int n = word_bits(k) - 0x4B400000;
    k = k - 12582912.0f;
    float r = __builtin_fmaf(k, -0.693359375f, y);
    r = __builtin_fmaf(k, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r) + 1.0f;
    n = y == y ? n : 0;
    int half = n >> 1;
    return p * word_float((half + 127) << 23) * word_float((n - half + 127) << 23);
}

static inline __attribute__((always_inline)) float word_log(float x) {
    float y = x < 1.17549435e-38f ? x * 8388608.0f : x;
    int i = word_bits(y);
    int n = (i - 0x3F3504F3) >> 23;
    float m = word_float(i - (int)((unsigned)n << 23)) - 1.0f;
    float e = (float)(x < 1.17549435e-38f ? n - 23 : n);
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = __builtin_fmaf(p, m, -1.1514610310e-1f);
    p = __builtin_fmaf(p, m, 1.1676998740e-1f);
    p = __builtin_fmaf(p, m, -1.2420140846e-1f);
    p = __builtin_fmaf(p, m, 1.4249322787e-1f);
    p = __builtin_fmaf(p, m, -1.6668057665e-1f);
    p = __builtin_fmaf(p, m, 2.0000714765e-1f);
    p = __builtin_fmaf(p, m, -2.4999993993e-1f);
    p = __builtin_fmaf(p, m, 3.3333331174e-1f);
    p = p * m * z;
    p = __builtin_fmaf(e, -2.12194440e-4f, p);
    p = __builtin_fmaf(z, -0.5f, p);
    p = m + p;
    p = __builtin_fmaf(e, 0.693359375f, p);
    p = x == 0.0f ? -__builtin_inff() : p;
    p = x < 0.0f ? __builtin_nanf("") : p;
    return x == __builtin_inff() || x != x ? x : p;
}

/* log of the rounded sum, and what rounding took from it. */
static inline __attribute__((always_inline)) float word_log1p(float x) {
    float u = 1.0f + x;
    float y = word_log(u) + (x - (u - 1.0f)) / u;
    y = u == 0.0f ? -__builtin_inff() : y;
    return x == 0.0f || x == __builtin_inff() ? x : y;
}

static inline __attribute__((always_inline)) float word_logaddexp(float x, float y) {
    float larger = x > y ? x : y;
    float apart = x == y ? 0.0f : __builtin_fabsf(x - y); /* equal infinities are not apart */
    return larger + word_log1p(word_exp(-apart));
}

static inline __attribute__((always_inline)) float word_tanh(float x) {
    float a = __builtin_fabsf(x);
    float z = a * a;
    float p = -5.70498872745e-3f;
    p = __builtin_fmaf(p, z, 2.06390887954e-2f);
    p = __builtin_fmaf(p, z, -5.37397155531e-2f);
    p = __builtin_fmaf(p, z, 1.33314422036e-1f);
    p = __builtin_fmaf(p, z, -3.33332819422e-1f);
    p = __builtin_fmaf(p * z, a, a);
    float q = 1.0f - 2.0f / (word_exp(a + a) + 1.0f);
    return __builtin_copysignf(a < 0.625f ? p : q, x);
}

/* N. Juffa's two polynomials: below 475/512 in x, above in the logarithm of 1 - erf. */
static inline __attribute__((always_inline)) float word_erf(float x) {
    float a = __builtin_fabsf(x);
    float z = x * x;
    float p = __builtin_fmaf(-1.72853470e-5f, a, 3.83197126e-4f);
    float q = __builtin_fmaf(-3.88396438e-3f, a, 2.42546219e-2f);
    p = __builtin_fmaf(p, z, q);
    p = __builtin_fmaf(p, a, -1.06777877e-1f);
    p = __builtin_fmaf(p, a, -6.34846687e-1f);
    p = __builtin_fmaf(p, a, -1.28717512e-1f);
    p = __builtin_fmaf(p, a, -a);
    p = a > 4.0f ? -20.0f : p;
    p = __builtin_copysignf(1.0f - word_exp(p), x);
    float r = -5.96761703e-4f;
    r = __builtin_fmaf(r, z, 4.99119423e-3f);
    r = __builtin_fmaf(r, z, -2.67681349e-2f);
    r = __builtin_fmaf(r, z, 1.12819925e-1f);
    r = __builtin_fmaf(r, z, -3.76125336e-1f);
    r = __builtin_fmaf(r, z, 1.28379166e-1f);
    r = __builtin_fmaf(r, x, x);
    return x != x ? x : a > 0.927734375f ? p : r;
}

/* x to the power -1/2 and 1/2, which differ from the root at -0 and at -infinity. */
static inline __attribute__((always_inline)) float word_root(float x) {
    float y = __builtin_sqrtf(x);
    return x == 0.0f ? 0.0f : x == -__builtin_inff() ? __builtin_inff() : y;
}

static inline __attribute__((always_inline)) float word_inverse_root(float x) {
    float y = 1.0f / __builtin_sqrtf(x);
    return x == 0.0f ? __builtin_inff() : x == -__builtin_inff() ? 0.0f : y;
}

/* The sum of a row: 64 partial sums, and those of each 8192 elements in double precision, from 0 as in NumPy. */
static __attribute__((noinline)) float row_sum(const float *x, long n) {
    double total = 0.0;
    for (long start = 0; start < n; start += 8192) {
        long end = start + 8192 < n ? start + 8192 : n, i = start;
        lanes zero = {0}, a[4] = {zero, zero, zero, zero};
        for (; i + 64 <= end; i += 64)
            for (int k = 0; k < 4; k++) {
                lanes y;
                __builtin_memcpy(&y, x + i + 16 * k, 64);
                a[k] += y;
            }
        for (int k = 0; i < end; k++, i += 16) {
            lanes y = zero;
            long left = end - i < 16 ? end - i : 16;
            for (long j = 0; j < left; j++) y[j] = x[i + j];
            a[k] += y;
        }
        lanes s = (a[0] + a[1]) + (a[2] + a[3]);
        float part[16];
        __builtin_memcpy(part, &s, 64);
        for (int w = 8; w; w >>= 1)
            for (int j = 0; j < w; j++) part[j] += part[j + w];
        total += (double)part[0];
    }
    return (float)total;
}

static inline lanes row_larger(lanes x, lanes m) {
    marks take = (x > m) | (x != x);
    return (lanes)(((marks)x & take) | ((marks)m & ~take));
}

/* The largest of a row, NaN if there is one. */
static __attribute__((noinline)) float row_max(const float *x, long n) {
    lanes m;
    long i = 0;
    for (int k = 0; k < 16; k++) m[k] = x[0];
    for (; i + 16 <= n; i += 16) {
        lanes y;
        __builtin_memcpy(&y, x + i, 64);
        m = row_larger(y, m);
    }
    float part[16], best;
    __builtin_memcpy(part, &m, 64);
    best = part[0];
    for (int j = 1; j < 16; j++) best = part[j] > best || part[j] != part[j] ? part[j] : best;
    for (; i < n; i++) best = x[i] > best || x[i] != x[i] ? x[i] : best;
    return best;
}
"""
