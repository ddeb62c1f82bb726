/* Products of float32 matrices: C[m, n] (+)= A[m, k] B[k, n], for other kernels, and as a kernel of its own.

   An element is the sum of blocks of TG_DEPTH products, the first block first; a block starts from zero and takes its products
   in their order, each with one rounding where the processor has such an instruction. Neither tiles, nor packing, nor who does
   it change that: a row has the same bits however many others there are. */
#include "telegrad.h"

/* C[m, n] (+)= A[m, k] B[k, n]; strides in floats; the columns of C lie together. */
struct tg_gemm {
    const float *a, *b;
    float *c;
    long m, n, k, a_row, a_inner, b_inner, b_column, c_row, accumulate;
};

#if defined(__AVX512F__)
enum { TG_WIDTH = 16, TG_ROWS = 8, TG_VECTORS = 2 }; /* 16 of 32 registers: enough for a latency of 4 cycles */
#elif defined(__AVX2__)
enum { TG_WIDTH = 8, TG_ROWS = 6, TG_VECTORS = 2 }; /* 12 of 16 registers; 2 hold B, 1 holds A */
#elif defined(__aarch64__)
enum { TG_WIDTH = 4, TG_ROWS = 6, TG_VECTORS = 4 };
#else
enum { TG_WIDTH = 4, TG_ROWS = 6, TG_VECTORS = 2 };
#endif
enum {
    TG_PANEL = TG_WIDTH * TG_VECTORS, /* columns of a tile */
    TG_DEPTH = 256,                   /* k of a block: a panel of B is in the first cache */
    TG_COLUMNS = 1024,                /* n of a block: what is packed of B is in the last one */
    TG_GROUP = 12,                    /* tiles of rows that go through the panels together: their A is in the second one */
    TG_PACKS_ROWS = 24,               /* so many rows pay for a copy of B that lies together */
    TG_PACKS_COLUMNS = 512,           /* so many columns pay for one of A */
    TG_FAR = 1 << 20                  /* floats: so large a B is in no cache, and is asked for before it is packed */
};

typedef float tg_vector __attribute__((vector_size(TG_WIDTH * 4), aligned(4), may_alias));

/* A tile: `rows` times `vectors` registers. Both are constants where it is called. */
static inline __attribute__((always_inline)) void tg_tile(
    long rows, long vectors, long depth, const float *a, long a_row, long a_inner, const float *b, long b_inner,
    float *c, long c_row, long accumulate)
{
    tg_vector sum[TG_ROWS][TG_VECTORS];
#pragma GCC unroll 8
    for (long i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (long j = 0; j < vectors; j++)
            sum[i][j] = (tg_vector){0};
    for (long p = 0; p < depth; p++) {
        tg_vector right[TG_VECTORS];
#pragma GCC unroll 8
        for (long j = 0; j < vectors; j++)
            right[j] = *(const tg_vector *)(b + j * TG_WIDTH);
#pragma GCC unroll 8
        for (long i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (long j = 0; j < vectors; j++)
                sum[i][j] += a[i * a_row] * right[j];
        a += a_inner;
        b += b_inner;
    }
#pragma GCC unroll 8
    for (long i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (long j = 0; j < vectors; j++) {
            tg_vector *to = (tg_vector *)(c + i * c_row + j * TG_WIDTH);
            if (accumulate)
                sum[i][j] += *to;
            *to = sum[i][j];
        }
}

/* A tile of any number of rows and of whole vectors. */
static void tg_tiles(
    long rows, long vectors, long depth, const float *a, long a_row, long a_inner, const float *b, long b_inner,
    float *c, long c_row, long accumulate)
{
#define TG_CASE(R, V) \
    case (R) * 8 + (V): \
        tg_tile(R, V, depth, a, a_row, a_inner, b, b_inner, c, c_row, accumulate); \
        return;
#define TG_CASES(V) \
    TG_CASE(2, V) TG_CASE(3, V) TG_CASE(4, V) TG_CASE(5, V) TG_CASE(6, V)
#if defined(__AVX512F__)
#define TG_ALL(V) TG_CASES(V) TG_CASE(7, V) TG_CASE(8, V)
#else
#define TG_ALL(V) TG_CASES(V)
#endif
    switch (rows * 8 + vectors) {
        TG_CASE(1, TG_VECTORS)
        TG_ALL(1)
        TG_ALL(2)
#if defined(__aarch64__)
        TG_ALL(3)
        TG_ALL(4)
#endif
    }
}

#if defined(__clang__)
#define TG_MIX(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define TG_MIX(x, y, ...) __builtin_shuffle(x, y, (tg_eight_numbers){__VA_ARGS__})
#endif
typedef float tg_eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef int tg_eight_numbers __attribute__((vector_size(32)));

/* to[j * to_row + i] = from[i * from_row + j] for i < rows and j < columns. */
static void tg_transpose(float *to, long to_row, const float *from, long from_row, long rows, long columns)
{
    long high = rows & -8, wide = columns & -8;
    for (long i = 0; i < high; i += 8)
        for (long j = 0; j < wide; j += 8) {
            tg_eight x[8], y[8];
#pragma GCC unroll 8
            for (long r = 0; r < 8; r++)
                x[r] = *(const tg_eight *)(from + (i + r) * from_row + j);
#pragma GCC unroll 4
            for (long r = 0; r < 8; r += 2) {
                y[r] = TG_MIX(x[r], x[r + 1], 0, 8, 1, 9, 4, 12, 5, 13);
                y[r + 1] = TG_MIX(x[r], x[r + 1], 2, 10, 3, 11, 6, 14, 7, 15);
            }
#pragma GCC unroll 2
            for (long r = 0; r < 8; r += 4)
#pragma GCC unroll 2
                for (long s = 0; s < 2; s++) {
                    x[r + 2 * s] = TG_MIX(y[r + s], y[r + 2 + s], 0, 1, 8, 9, 4, 5, 12, 13);
                    x[r + 2 * s + 1] = TG_MIX(y[r + s], y[r + 2 + s], 2, 3, 10, 11, 6, 7, 14, 15);
                }
#pragma GCC unroll 4
            for (long r = 0; r < 4; r++) {
                *(tg_eight *)(to + (j + r) * to_row + i) = TG_MIX(x[r], x[r + 4], 0, 1, 2, 3, 8, 9, 10, 11);
                *(tg_eight *)(to + (j + r + 4) * to_row + i) = TG_MIX(x[r], x[r + 4], 4, 5, 6, 7, 12, 13, 14, 15);
            }
        }
    for (long i = 0; i < rows; i++)
        for (long j = i < high ? wide : 0; j < columns; j++)
            to[j * to_row + i] = from[i * from_row + j];
}

/* B[depth, columns] as panels of TG_PANEL columns, each TG_DEPTH rows that lie together, with zeros beyond the last column. */
static void tg_pack_columns(float *to, const float *b, long b_inner, long b_column, long depth, long columns)
{
    long whole = columns / TG_PANEL * TG_PANEL, rest = columns - whole;
    float *last = to + whole * TG_DEPTH;
    for (long p = 0; rest && p < depth; p++)
        for (long j = rest; j < TG_PANEL; j++)
            last[p * TG_PANEL + j] = 0.0f;
    if (b_column == 1)
        for (long p = 0; p < depth; p++) {
            for (long j = 0; j < whole; j += TG_PANEL) {
                __builtin_prefetch(b + (p + 8) * b_inner + j); /* the next rows are in other pages */
                memcpy(to + j * TG_DEPTH + p * TG_PANEL, b + p * b_inner + j, TG_PANEL * sizeof(float));
            }
            for (long j = 0; j < rest; j++)
                last[p * TG_PANEL + j] = b[p * b_inner + whole + j];
        }
    else if (b_inner == 1)
        for (long j = 0; j < columns; j += TG_PANEL)
            tg_transpose(
                to + j * TG_DEPTH, TG_PANEL, b + j * b_column, b_column, columns - j < TG_PANEL ? columns - j : TG_PANEL, depth);
    else
        for (long j = 0; j < columns; j++)
            for (long p = 0; p < depth; p++)
                to[j / TG_PANEL * TG_PANEL * TG_DEPTH + p * TG_PANEL + j % TG_PANEL] = b[p * b_inner + j * b_column];
}

/* Some rows of A, a strip of TG_ROWS after the other, each as TG_DEPTH times TG_ROWS floats. */
static void tg_pack_rows(float *to, const float *a, long a_row, long a_inner, long depth, long rows)
{
    long whole = a_row == 1 ? rows / TG_ROWS * TG_ROWS : 0;
    for (long p = 0; p < depth; p++)
        for (long i = 0; i < whole; i += TG_ROWS) {
            __builtin_prefetch(a + (p + 16) * a_inner + i); /* the next rows are in other pages */
            memcpy(to + i * TG_DEPTH + p * TG_ROWS, a + p * a_inner + i, TG_ROWS * sizeof(float));
        }
    for (; a_inner == 1 && whole + TG_ROWS <= rows; whole += TG_ROWS)
        tg_transpose(to + whole * TG_DEPTH, TG_ROWS, a + whole * a_row, a_row, TG_ROWS, depth);
    for (long i = whole; i < rows; i++)
        for (long p = 0; p < depth; p++)
            to[i / TG_ROWS * TG_ROWS * TG_DEPTH + p * TG_ROWS + i % TG_ROWS] = a[i * a_row + p * a_inner];
}

/* C of at most TG_ROWS rows and `width` <= TG_PANEL columns; the rows of B are whole vectors. */
static void tg_edge(
    long rows, long width, long depth, const float *a, long a_row, long a_inner, const float *b, float *c, long c_row,
    long accumulate)
{
    float edge[TG_ROWS * TG_PANEL];
    for (long r = 0; accumulate && r < rows; r++)
        for (long s = 0; s < width; s++)
            edge[r * TG_PANEL + s] = c[r * c_row + s];
    /* gcc splits one single chain of fused products in two roundings for some processors: no tile is 1 by 1 */
    long vectors = rows == 1 ? TG_VECTORS : (width + TG_WIDTH - 1) / TG_WIDTH;
    tg_tiles(rows, vectors, depth, a, a_row, a_inner, b, TG_PANEL, edge, TG_PANEL, accumulate);
    for (long r = 0; r < rows; r++)
        for (long s = 0; s < width; s++)
            c[r * c_row + s] = edge[r * TG_PANEL + s];
}

/* Ask for the parts from..to, of `parts`, of a panel of B that will soon be packed. */
static inline void tg_ask(
    const float *b, long b_inner, long b_column, long depth, long width, long from, long to, long parts)
{
    long is_row = b_column == 1, lines = is_row ? depth : width, length = is_row ? width : depth;
    for (long i = lines * from / parts; i < lines * to / parts; i++)
        for (long j = 0; j < length; j += 16)
            __builtin_prefetch(b + i * (is_row ? b_inner : b_column) + j, 0, 2);
}

/* Bytes of scratch for the functions below. */
enum { TG_GEMM_BYTES = 4 * (TG_DEPTH * (TG_COLUMNS + TG_PANEL) + TG_GROUP * TG_ROWS * TG_DEPTH) };

/* At most TG_COLUMNS columns of C. What lies apart in memory is packed where that is soon paid back. */
static void tg_gemm_block(const struct tg_gemm *g, long rows, long columns, float *scratch)
{
    float *block = scratch, *group = block + TG_DEPTH * (TG_COLUMNS + TG_PANEL);
    long packs_b = g->b_column != 1 || rows >= TG_PACKS_ROWS;
    /* what lies 2 KiB apart is in the same few places of the first cache: it is packed sooner */
    long packs_a = columns > (g->a_row == 1 && g->a_inner % 512 ? 4 : 2) * TG_PANEL;
    if (g->a_inner == 1)
        packs_a = columns >= TG_PACKS_COLUMNS;
    long is_far = packs_b && g->k * g->n >= TG_FAR && (g->b_inner == 1 || g->b_column == 1);
    long unpacked = packs_b ? 0 : columns / TG_PANEL * TG_PANEL; /* columns of B that are read where they are */
    for (long begin = 0; begin < g->k || begin == 0; begin += TG_DEPTH) {
        long depth = g->k - begin < TG_DEPTH ? g->k - begin : TG_DEPTH;
        long accumulate = g->accumulate || begin > 0;
        const float *right = g->b + begin * g->b_inner;
        if (!is_far)
            tg_pack_columns(
                block + unpacked * TG_DEPTH, right + unpacked * g->b_column, g->b_inner, g->b_column, depth, columns - unpacked);
        for (long top = 0; top < rows; top += TG_GROUP * TG_ROWS) {
            long bottom = rows - top < TG_GROUP * TG_ROWS ? rows : top + TG_GROUP * TG_ROWS;
            const float *left = g->a + top * g->a_row + begin * g->a_inner;
            if (packs_a)
                tg_pack_rows(group, left, g->a_row, g->a_inner, depth, bottom - top);
            for (long j = 0; j < columns; j += TG_PANEL) {
                long width = columns - j < TG_PANEL ? columns - j : TG_PANEL, is_packed = j >= unpacked;
                const float *b = is_packed ? block + j * TG_DEPTH : right + j;
                long b_inner = is_packed ? TG_PANEL : g->b_inner;
                long asks = is_far && top == 0, is_last = j + TG_PANEL >= columns, next = is_last ? 0 : j + TG_PANEL;
                const float *wanted = right + next * g->b_column + (is_last ? depth * g->b_inner : 0);
                long wide = columns - next < TG_PANEL ? columns - next : TG_PANEL, ahead = depth;
                if (is_last) /* then the next block of k */
                    ahead = g->k - begin - depth < TG_DEPTH ? g->k - begin - depth : TG_DEPTH;
                if (asks)
                    tg_pack_columns(block + j * TG_DEPTH, right + j * g->b_column, g->b_inner, g->b_column, depth, width);
                for (long i = top; i < bottom; i += TG_ROWS) {
                    long count = bottom - i < TG_ROWS ? bottom - i : TG_ROWS;
                    const float *a = packs_a ? group + (i - top) * TG_DEPTH : left + (i - top) * g->a_row;
                    long a_row = packs_a ? 1 : g->a_row, a_inner = packs_a ? TG_ROWS : g->a_inner;
                    float *c = g->c + i * g->c_row + j;
                    if (asks)
                        tg_ask(
                            wanted, g->b_inner, g->b_column, ahead, wide, i - top, i - top + count, bottom - top);
                    for (long r = 0; r < count; r++)
                        __builtin_prefetch(c + r * g->c_row, 1), __builtin_prefetch(c + r * g->c_row + width - 1, 1);
                    if (width == TG_PANEL)
                        tg_tiles(count, TG_VECTORS, depth, a, a_row, a_inner, b, b_inner, c, g->c_row, accumulate);
                    else
                        tg_edge(count, width, depth, a, a_row, a_inner, b, c, g->c_row, accumulate);
                }
            }
        }
    }
}

/* The whole product, on this thread; `scratch` has TG_GEMM_BYTES. */
static inline void tg_gemm(const struct tg_gemm *g, float *scratch)
{
    for (long j = 0; j < g->n; j += TG_COLUMNS) {
        struct tg_gemm part = *g;
        part.b += j * g->b_column;
        part.c += j;
        tg_gemm_block(&part, g->m, g->n - j < TG_COLUMNS ? g->n - j : TG_COLUMNS, scratch);
    }
}

/* Products of matrices as a kernel. A unit is TG_UNIT_ROWS rows times a panel's columns of one matrix of the batch, those of the
   same columns next to each other: whoever does several packs their B once, and threads have equally much to do. */
enum { TG_UNIT_ROWS = 24, TG_UNIT_COLUMNS = TG_PANEL };

struct tg_matmul {
    struct tg_gemm one;   /* the first product of the batch */
    long batch;
    const long *a_offset; /* floats from the first to each product's operands and result; NULL for none */
    const long *b_offset;
    const long *c_offset;
};

long tg_matmul_units(long m, long n, long batch)
{
    return batch * ((n + TG_UNIT_COLUMNS - 1) / TG_UNIT_COLUMNS) * ((m + TG_UNIT_ROWS - 1) / TG_UNIT_ROWS);
}

void tg_matmul(const void *arguments, long begin, long end)
{
    const struct tg_matmul *given = arguments;
    const struct tg_gemm *one = &given->one;
    long strips = (one->m + TG_UNIT_ROWS - 1) / TG_UNIT_ROWS, blocks = (one->n + TG_UNIT_COLUMNS - 1) / TG_UNIT_COLUMNS;
    float *scratch = tg_scratch(TG_GEMM_BYTES);
    while (begin < end) {
        long batch = begin / (strips * blocks), block = begin / strips % blocks, strip = begin % strips;
        long high = strips - strip < end - begin ? strips - strip : end - begin, wide = 1;
        if (high == strips) { /* whole columns: as many as are wanted */
            wide = (end - begin) / strips;
            wide = wide < blocks - block ? wide : blocks - block;
            wide = wide < TG_COLUMNS / TG_UNIT_COLUMNS ? wide : TG_COLUMNS / TG_UNIT_COLUMNS;
        }
        long row = strip * TG_UNIT_ROWS, column = block * TG_UNIT_COLUMNS;
        long rows = one->m - row < high * TG_UNIT_ROWS ? one->m - row : high * TG_UNIT_ROWS;
        long columns = one->n - column < wide * TG_UNIT_COLUMNS ? one->n - column : wide * TG_UNIT_COLUMNS;
        struct tg_gemm part = *one;
        part.a += (given->a_offset ? given->a_offset[batch] : 0) + row * one->a_row;
        part.b += (given->b_offset ? given->b_offset[batch] : 0) + column * one->b_column;
        part.c += (given->c_offset ? given->c_offset[batch] : 0) + row * one->c_row + column;
        tg_gemm_block(&part, rows, columns, scratch);
        begin += high * wide;
    }
}
