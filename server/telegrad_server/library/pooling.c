/* Pooling and its gradients, and sums over all axes but one in the middle, float32. */
#include "telegrad.h"

/* Lines of a narrow image fill a vector together: it is put together of `parts` pieces that lie apart, where the compiler
   has a word for that. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && (defined(__AVX512F__) || defined(__AVX2__))
#define TG_JOINS
#endif
#endif

#ifdef TG_JOINS
enum { TG_PARTS = TG_WIDTH / 4 }; /* at most: pieces of four */
typedef float tg_half __attribute__((vector_size(TG_WIDTH * 2), aligned(4), may_alias));
typedef float tg_four __attribute__((vector_size(16), aligned(4), may_alias));

static inline __attribute__((always_inline)) tg_vector tg_joined(long parts, const float *const *at, long offset)
{
#define TG_PIECE(TYPE, K) (*(const TYPE *)(at[K] + offset))
#if defined(__AVX512F__)
    if (parts == 4) {
        tg_half low = __builtin_shufflevector(TG_PIECE(tg_four, 0), TG_PIECE(tg_four, 1), 0, 1, 2, 3, 4, 5, 6, 7);
        tg_half high = __builtin_shufflevector(TG_PIECE(tg_four, 2), TG_PIECE(tg_four, 3), 0, 1, 2, 3, 4, 5, 6, 7);
        return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    if (parts == 2)
        return __builtin_shufflevector(
            TG_PIECE(tg_half, 0), TG_PIECE(tg_half, 1), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    if (parts == 2)
        return __builtin_shufflevector(TG_PIECE(tg_four, 0), TG_PIECE(tg_four, 1), 0, 1, 2, 3, 4, 5, 6, 7);
#endif
    return *(const tg_vector *)(at[0] + offset);
}
#endif

/* x[planes, height, width] -> out[planes, rows, columns]: the number within its plane of the first largest element. */
struct tg_windows {
    const float *x;
    long *out;
    long planes, height, width, rows, columns;
    long kernel_y, kernel_x, stride_y, stride_x, before_y, before_x, dilation_y, dilation_x;
};

/* NaN is more than all numbers, and nothing is more than NaN. */
static inline int tg_is_more(float a, float b) { return !(a <= b) & (b == b); }

/* Columns of windows of 2 by 2 next to each other, in `parts` lines of windows, that fill a vector. Zero: there is no such way. */
static long tg_pairs_parts(long columns)
{
#ifdef TG_JOINS
    for (long parts = 1; parts <= TG_PARTS; parts *= 2)
        if (parts == 1 ? 2 * columns >= TG_WIDTH : 2 * columns * parts == TG_WIDTH)
            return parts;
#endif
    return 0;
}

#ifdef TG_JOINS

enum { TG_PAIRS = TG_WIDTH / 2 };
typedef int tg_whole __attribute__((vector_size(TG_PAIRS * 4), aligned(4), may_alias));

static inline tg_half tg_chosen(tg_whole mask, tg_half yes, tg_half no)
{
    return (tg_half)(((tg_whole)yes & mask) | ((tg_whole)no & ~mask));
}

static inline tg_whole tg_are_more(tg_half a, tg_half b) { return ~(a <= b) & (b == b); }

/* TG_PAIRS windows: their elements from `parts` places in the upper line, each after it in the lower one. */
static inline __attribute__((always_inline)) void tg_pairs_argmax(
    long parts, const float *const *upper, long width, const long *first, long *out, long pitch)
{
#if defined(__AVX512F__)
#define TG_EVEN(X) __builtin_shufflevector(X, X, 0, 2, 4, 6, 8, 10, 12, 14)
#define TG_ODD(X) __builtin_shufflevector(X, X, 1, 3, 5, 7, 9, 11, 13, 15)
#else
#define TG_EVEN(X) __builtin_shufflevector(X, X, 0, 2, 4, 6)
#define TG_ODD(X) __builtin_shufflevector(X, X, 1, 3, 5, 7)
#endif
    tg_vector one = tg_joined(parts, upper, 0), two = tg_joined(parts, upper, width);
    tg_half best = TG_EVEN(one), next = TG_ODD(one);
    tg_whole more = tg_are_more(next, best), which = more & 1;
    best = tg_chosen(more, next, best);
    next = TG_EVEN(two), more = tg_are_more(next, best);
    best = tg_chosen(more, next, best), which = (which & ~more) | (more & (int)width);
    next = TG_ODD(two), more = tg_are_more(next, best);
    which = (which & ~more) | (more & (int)(width + 1));
    int found[TG_PAIRS];
    *(tg_whole *)found = which;
#pragma GCC unroll 4
    for (long p = 0; p < parts; p++)
        for (long k = 0; k < TG_PAIRS / parts; k++)
            out[p * pitch + k] = first[p] + 2 * k + found[p * (TG_PAIRS / parts) + k];
}

/* Lines [0, rows) of windows, `parts` of them at a time; returns how many lines are done. The last windows of a line may be
   done twice. */
static inline __attribute__((always_inline)) long tg_pairs_lines(
    long parts, const float *x, long width, long rows, long columns, long *out)
{
    long row = 0;
    for (; row + parts <= rows; row += parts)
        for (long column = 0; column < columns; column += TG_PAIRS) {
            const float *upper[TG_PARTS];
            long first[TG_PARTS], from = parts == 1 && column + TG_PAIRS > columns ? columns - TG_PAIRS : column;
            for (long p = 0; p < parts; p++)
                first[p] = 2 * (row + p) * width + 2 * from, upper[p] = x + first[p];
            tg_pairs_argmax(parts, upper, width, first, out + row * columns + from, columns);
        }
    return row;
}

static long tg_pairs_plane(long parts, const float *x, long width, long rows, long columns, long *out)
{
    if (parts == 1)
        return tg_pairs_lines(1, x, width, rows, columns, out);
    if (parts == 2)
        return tg_pairs_lines(2, x, width, rows, columns, out);
    return tg_pairs_lines(TG_PARTS, x, width, rows, columns, out);
}

#else

static long tg_pairs_plane(long parts, const float *x, long width, long rows, long columns, long *out) { return 0; }

#endif

/* A unit is a plane. */
void tg_window_argmax(const void *arguments, long begin, long end)
{
    const struct tg_windows *g = arguments;
    long is_pairs = g->kernel_y == 2 && g->kernel_x == 2 && g->stride_y == 2 && g->stride_x == 2 && !g->before_y &&
                    !g->before_x && g->dilation_y == 1 && g->dilation_x == 1 && 2 * g->rows <= g->height &&
                    2 * g->columns <= g->width && g->width < 1 << 30;
    long parts = is_pairs ? tg_pairs_parts(g->columns) : 0;
    for (long plane = begin; plane < end; plane++) {
        const float *x = g->x + plane * g->height * g->width;
        long *out = g->out + plane * g->rows * g->columns;
        long done = parts ? tg_pairs_plane(parts, x, g->width, g->rows, g->columns, out) : 0;
        for (long row = done; row < g->rows; row++) {
            for (long column = 0; column < g->columns; column++) {
                float best = 0;
                long at = -1;
                for (long i = 0; i < g->kernel_y; i++) {
                    long y = row * g->stride_y - g->before_y + i * g->dilation_y;
                    if (y < 0 || y >= g->height)
                        continue;
                    for (long j = 0; j < g->kernel_x; j++) {
                        long place = column * g->stride_x - g->before_x + j * g->dilation_x;
                        if (place < 0 || place >= g->width)
                            continue;
                        place += y * g->width;
                        if (at < 0 || tg_is_more(x[place], best))
                            best = x[place], at = place;
                    }
                }
                out[row * g->columns + column] = at;
            }
        }
    }
}

/* Rows of `wide` elements, and for each so many numbers of elements of it. */
struct tg_along {
    const float *x;
    const long *index;
    float *out;
    long rows, wide, count;
};

/* x[rows, wide] -> out[rows, count]. A unit is a row. */
void tg_take_along(const void *arguments, long begin, long end)
{
    const struct tg_along *g = arguments;
    for (long row = begin; row < end; row++)
        for (long k = row * g->count; k < (row + 1) * g->count; k++)
            g->out[k] = g->x[row * g->wide + g->index[k]];
}

/* x[rows, count] -> out[rows, wide], each element added where it belongs, in order. A unit is a row. */
void tg_add_along(const void *arguments, long begin, long end)
{
    const struct tg_along *g = arguments;
    for (long row = begin; row < end; row++) {
        float *out = g->out + row * g->wide;
        memset(out, 0, g->wide * sizeof(float));
        for (long k = row * g->count; k < (row + 1) * g->count; k++)
            out[g->index[k]] += g->x[k];
    }
}

/* x[outer, channels, inner] -> out[channels]: lines in blocks of TG_SUMMED, each by the lanes of vectors, blocks in double. */
struct tg_channels {
    const float *x;
    float *out;
    long outer, channels, inner;
};

enum { TG_SUMMED = 1024, TG_LANES = 16 };

/* A unit is a channel. */
void tg_channel_sums(const void *arguments, long begin, long end)
{
    const struct tg_channels *g = arguments;
    for (long channel = begin; channel < end; channel++) {
        double total = 0;
        for (long n = 0; n < g->outer; n++) {
            const float *x = g->x + (n * g->channels + channel) * g->inner;
            for (long first = 0; first < g->inner; first += TG_SUMMED) {
                long last = g->inner - first < TG_SUMMED ? g->inner : first + TG_SUMMED, k = first;
                float lanes[TG_LANES] = {0}, sum = 0;
                for (; k + TG_LANES <= last; k += TG_LANES)
                    for (long lane = 0; lane < TG_LANES; lane++)
                        lanes[lane] += x[k + lane];
                for (; k < last; k++)
                    lanes[k % TG_LANES] += x[k];
                for (long lane = 0; lane < TG_LANES; lane++)
                    sum += lanes[lane];
                total += sum;
            }
        }
        g->out[channel] = total;
    }
}
