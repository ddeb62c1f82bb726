"""The words of the scalar language in CUDA, and the functions that every generated source begins with.

Functions are CUDA's own, to 2 units in the last place, and products are not fused with sums (`--fmad=false`): which
bits a value has follows from its own op. 16-bit floats are bits in memory and float32 in registers. Nothing is
included: the compiler needs no header. What only a device understands is in `DEVICE`; tests put their own in its place.
"""

from __future__ import annotations

from telegrad.ir import types as t

from telegrad_server.compiler.c_words import FLOAT_PREDICATES, FLOAT_WORDS
from telegrad_server.compiler.dialect import Dialect

CUDA = Dialect(
    types={
        t.float32: "float", t.bfloat16: "unsigned short", t.float16: "unsigned short",
        t.bool_: "unsigned char", t.int32: "int", t.int64: "long long",
    },
    float_words={
        **FLOAT_WORDS,
        "abs": "fabsf({0})", "sqrt": "sqrtf({0})", "exp": "expf({0})", "log": "logf({0})", "tanh": "tanhf({0})",
        "erf": "erff({0})", "log1p": "log1pf({0})",
    },
    float_predicates={
        **FLOAT_PREDICATES,
        "isinf": "fabsf({0}) == INFINITE", "isfinite": "fabsf({0}) < INFINITE", "signbit": "__float_as_int({0}) < 0",
    },
    infinity="INFINITE",
    nan="__int_as_float(0x7fc00000)",
    narrow={t.bfloat16: "bfloat16_rounded", t.float16: "float16_rounded"},
    draws=True,
)  # fmt: skip

DEVICE = r"""
#define INLINE static __device__ __forceinline__
#define CHECK_ALIGNED(pointer, bytes)

INLINE float bfloat16_load(unsigned short x) { return __int_as_float((int)x << 16); }

INLINE unsigned short bfloat16_store(float x) {
    unsigned short y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

INLINE float float16_load(unsigned short x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

INLINE unsigned short float16_store(float x) {
    unsigned short y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
"""

PRELUDE = r"""
#define INFINITE __int_as_float(0x7f800000)

INLINE float bfloat16_rounded(float x) { return bfloat16_load(bfloat16_store(x)); }
INLINE float float16_rounded(float x) { return float16_load(float16_store(x)); }

/* V elements that are read or written at once; 16 bytes at a time where they have so many. */
template <typename T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T x[V]; };

template <typename T, int V> INLINE Pack<T, V> load(const T *p) {
    CHECK_ALIGNED(p, alignof(Pack<T, V>));
    return *reinterpret_cast<const Pack<T, V> *>(p);
}

template <typename T, int V> INLINE void store(T *p, const Pack<T, V> &x) {
    CHECK_ALIGNED(p, alignof(Pack<T, V>));
    *reinterpret_cast<Pack<T, V> *>(p) = x;
}

/* The same for the end of an array, where fewer may be left. */
template <typename T, int V> INLINE Pack<T, V> load_some(const T *p, long long left) {
    if (left >= V) return load<T, V>(p);
    Pack<T, V> x = {};
#pragma unroll
    for (int k = 0; k < V; k++)
        if (k < left) x.x[k] = p[k];
    return x;
}

template <typename T, int V> INLINE void store_some(T *p, const Pack<T, V> &x, long long left) {
    if (left >= V) return store<T, V>(p, x);
#pragma unroll
    for (int k = 0; k < V; k++)
        if (k < left) p[k] = x.x[k];
}

INLINE float word_root(float x) {
    return x == 0.0f ? 0.0f : x == -INFINITE ? INFINITE : sqrtf(x);
}

INLINE float word_inverse_root(float x) {
    return x == 0.0f ? INFINITE : x == -INFINITE ? 0.0f : 1.0f / sqrtf(x);
}

INLINE float word_logaddexp(float x, float y) {
    float more = x > y ? x : y;
    return x == y ? x + 0.693147182f : more + log1pf(expf(-fabsf(x - y)));
}

struct Adds {
    INLINE float of(float x, float y) { return x + y; }
};

/* The larger, NaN if one of them is. */
struct Larger {
    INLINE float of(float x, float y) { return (y > x) | (y != y) ? y : x; }
};

/* One number of all threads of a row, in an order that only their number decides; all of them get it. */
template <typename F, int T> INLINE float of_row(float x) {
#pragma unroll
    for (int w = 16; w; w >>= 1) x = F::of(x, __shfl_xor_sync(0xffffffffu, x, w));
    if (T > 32) {
        __shared__ float parts[32];
        __syncthreads();
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
        __syncthreads();
        x = parts[0];
#pragma unroll
        for (int i = 1; i < T / 32; i++) x = F::of(x, parts[i]);
    }
    return x;
}

/* Philox 4x32-10. */
struct Words { unsigned x[4]; };

INLINE Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
#pragma unroll
    for (int i = 0; i < 10; i++) {
        unsigned long long p = 0xD2511F53ull * c0, q = 0xCD9E8D57ull * c2;
        c0 = (unsigned)(q >> 32) ^ c1 ^ k0;
        c2 = (unsigned)(p >> 32) ^ c3 ^ k1;
        c1 = (unsigned)q;
        c3 = (unsigned)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/* One of four words. Their number is no index: an array that is indexed so would lie in memory. */
INLINE unsigned word_of(const Words &w, unsigned n) {
    unsigned low = n & 1 ? w.x[1] : w.x[0], high = n & 1 ? w.x[3] : w.x[2];
    return n & 2 ? high : low;
}

/* The numbers on [0, 1) of V elements from the first on, by a random op's key. V is 1, or first a multiple of 4. */
template <int V> INLINE Pack<float, V> uniform(const Words &key, unsigned long long first) {
    Pack<float, V> y;
    Words w = {};
#pragma unroll
    for (int k = 0; k < V; k++) {
        unsigned long long i = first + k;
        if (k % 4 == 0) w = philox((unsigned)(i >> 2), (unsigned)(i >> 34), 0, 0, key.x[0], key.x[1]);
        y.x[k] = (float)((V == 1 ? word_of(w, (unsigned)i) : w.x[k & 3]) >> 8) * 0x1p-24f;
    }
    return y;
}
"""
