/* Convolutions over two axes, float32, forwards, to the input and to the weight: products of matrices whose one operand is
   read where it lies, through a table of offsets, in a copy of some rows of a sample with zeros around it.

   Forwards and to the input the tiles are TG_ROWS channels times TG_PANEL positions, and an element is a sum over channels
   and taps in blocks of at most TG_CONVOLUTION_DEPTH. To the weight they are TG_ROWS taps times TG_PANEL channels, summed
   over the samples in order. Units divide the result alone, so who does what changes no bit. */
#include "telegrad.h"

enum {
    TG_CONVOLUTION_DEPTH = 384,
    TG_COPIED = 48 << 10,     /* floats of a copied block of rows: half of the second cache */
    TG_CHANNELS = 16 * TG_ROWS, /* channels of a result in a unit */
    TG_POSITIONS = 256,       /* sums over at least so many positions before they are added to a weight */
    TG_WEIGHT_ROWS = 8 * TG_ROWS,  /* about so many taps of the weight in a unit */
    TG_WEIGHT_FLOATS = 512 << 10 /* of a part of the weight that is summed at a time */
};

/* x[samples, groups * channels, height, width], weight[groups * outputs, channels, kernel_y, kernel_x],
   y[samples, groups * outputs, rows, columns] */
struct tg_convolution {
    const float *left, *right; /* x and weight, y and weight, or x and y */
    float *out;
    long samples, groups, channels, height, width, outputs, rows, columns;
    long kernel_y, kernel_x, stride_y, stride_x, before_y, before_x, dilation_y, dilation_x;
};

/* What is read for each position: for tap t the element (row * step_y + tap_y[t], column * step_x + tap_x[t]), or zero
   outside; and how a block of rows is copied: each line as step_x phases, so that neighbours in a vector lie together. */
struct tg_reading {
    long channels, height, width, rows, columns, step_y, step_x, taps;
    long *tap_y, *tap_x;
    long low_y, low_x;                      /* the least of each */
    long block, blocks, lines, line, pitch; /* rows of positions in a block, blocks, lines and floats of a copy */
    long plane;                             /* floats of a channel's copy */
};

static long tg_most(long a, long b) { return a > b ? a : b; }
static long tg_least(long a, long b) { return a < b ? a : b; }
static long tg_parts(long n, long size) { return (n + size - 1) / size; }

static void tg_lay_out(struct tg_reading *r)
{
    long high_y = r->low_y = r->taps ? r->tap_y[0] : 0, high_x = r->low_x = r->taps ? r->tap_x[0] : 0;
    for (long t = 0; t < r->taps; t++) {
        r->low_y = tg_least(r->low_y, r->tap_y[t]), high_y = tg_most(high_y, r->tap_y[t]);
        r->low_x = tg_least(r->low_x, r->tap_x[t]), high_x = tg_most(high_x, r->tap_x[t]);
    }
    r->pitch = tg_parts((r->columns - 1) * r->step_x + high_x - r->low_x + 1, r->step_x);
    r->line = r->pitch * r->step_x;
    long lines = TG_COPIED / tg_most(1, r->channels * r->line), more = high_y - r->low_y + 1;
    r->block = tg_most(1, tg_least(r->rows, lines < more ? 1 : (lines - more) / r->step_y + 1));
    r->blocks = tg_parts(r->rows, r->block);
    r->block = tg_parts(r->rows, tg_most(1, r->blocks));
    r->lines = (r->block - 1) * r->step_y + more;
    r->plane = r->lines * r->line;
}

/* Where in a channel's copy the tap of the block's first position lies. */
static long tg_tap_offset(const struct tg_reading *r, long t)
{
    long x = r->tap_x[t] - r->low_x;
    return (r->tap_y[t] - r->low_y) * r->line + x % r->step_x * r->pitch + x / r->step_x;
}

/* Copy what the positions from row `first` on read, of `channels` channels. */
static void tg_copy(const struct tg_reading *r, const float *from, long first, long channels, float *to)
{
    for (long c = 0; c < channels; c++)
        for (long i = 0; i < r->lines; i++, to += r->line) {
            long y = first * r->step_y + r->low_y + i;
            if (y < 0 || y >= r->height) {
                memset(to, 0, r->line * sizeof(float));
                continue;
            }
            const float *row = from + (c * r->height + y) * r->width;
            for (long phase = 0; phase < r->step_x; phase++) {
                float *part = to + phase * r->pitch;
                long x = r->low_x + phase; /* of its first element; those in [begin, end) exist */
                long begin = x >= 0 ? 0 : tg_least(r->pitch, tg_parts(-x, r->step_x));
                long end = x >= r->width ? 0 : tg_least(r->pitch, tg_parts(r->width - x, r->step_x));
                end = tg_most(begin, end);
                for (long k = 0; k < begin; k++)
                    part[k] = 0.0f;
                if (r->step_x == 1)
                    for (long k = begin; k < end; k++)
                        part[k] = row[x + k];
                else if (r->step_x == 2)
                    for (long k = begin; k < end; k++)
                        part[k] = row[x + 2 * k];
                else
                    for (long k = begin; k < end; k++)
                        part[k] = row[x + k * r->step_x];
                for (long k = end; k < r->pitch; k++)
                    part[k] = 0.0f;
            }
        }
}

/* Lines of a narrow image fill a vector together: it is put together of `parts` pieces that lie apart. Where the compiler
   has no word for that a vector is one piece. */
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
#else
enum { TG_PARTS = 1 };

static inline __attribute__((always_inline)) tg_vector tg_joined(long parts, const float *const *at, long offset)
{
    return *(const tg_vector *)(at[0] + offset);
}
#endif

/* Some channels at TG_VECTORS vectors of positions: x points to each piece of them, c to each vector, `offsets` to what each
   product adds. */
static inline __attribute__((always_inline)) void tg_window_tile(
    long rows, long parts, long depth, const float *a, long a_row, const float *const *x, const long *offsets,
    float *const *c, long c_row, long accumulate)
{
    tg_vector sum[TG_ROWS][TG_VECTORS];
    const float *at[TG_VECTORS * TG_PARTS];
#pragma GCC unroll 8
    for (long j = 0; j < TG_VECTORS * parts; j++)
        at[j] = x[j];
#pragma GCC unroll 8
    for (long j = 0; j < TG_VECTORS; j++)
#pragma GCC unroll 8
        for (long i = 0; i < rows; i++)
            sum[i][j] = (tg_vector){0};
    for (long p = 0; p < depth; p++) {
        tg_vector right[TG_VECTORS];
#pragma GCC unroll 8
        for (long j = 0; j < TG_VECTORS; j++)
            right[j] = tg_joined(parts, at + j * parts, offsets[p]);
#pragma GCC unroll 8
        for (long i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (long j = 0; j < TG_VECTORS; j++)
                sum[i][j] += a[i * a_row + p] * right[j];
    }
#pragma GCC unroll 8
    for (long j = 0; j < TG_VECTORS; j++)
#pragma GCC unroll 8
        for (long i = 0; i < rows; i++) {
            tg_vector *to = (tg_vector *)(c[j] + i * c_row);
            if (accumulate)
                sum[i][j] += *to;
            *to = sum[i][j];
        }
}

/* CASE for each number of rows that a tile may have: one tile is compiled for each. */
#if defined(__AVX512F__)
#define TG_ROWS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#else
#define TG_ROWS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#endif

static void tg_window_tiles(
    long rows, long depth, const float *a, long a_row, const float *const *x, const long *offsets, float *const *c,
    long c_row, long accumulate)
{
#define TG_CASE_OF_ROWS(R) \
    case R: \
        tg_window_tile(R, 1, depth, a, a_row, x, offsets, c, c_row, accumulate); \
        return;
    switch (rows) {
        TG_ROWS(TG_CASE_OF_ROWS)
    }
}

/* The same for TG_ROWS rows at vectors of several pieces. */
static void tg_joined_tiles(
    long parts, long depth, const float *a, long a_row, const float *const *x, const long *offsets, float *const *c, long c_row)
{
    if (parts == 2)
        tg_window_tile(TG_ROWS, TG_PARTS < 2 ? TG_PARTS : 2, depth, a, a_row, x, offsets, c, c_row, 0);
    else
        tg_window_tile(TG_ROWS, TG_PARTS, depth, a, a_row, x, offsets, c, c_row, 0);
}

/* So many of the rows that are left are done next: two middling tiles are faster than a large and a tiny one. */
static long tg_next_rows(long left)
{
    return left <= TG_ROWS ? left : left < 2 * TG_ROWS ? (left + 1) / 2 : TG_ROWS;
}

/* Of how many pieces vectors for so many rows of positions are: of one, unless others are a tenth fewer. */
static long tg_pieces(long rows, long columns, long channels)
{
    long found = 1, least = rows * tg_parts(columns, TG_WIDTH);
    for (long parts = 2; parts <= TG_PARTS && channels >= TG_ROWS; parts *= 2) {
        long vectors = tg_parts(rows * tg_parts(columns, TG_WIDTH / parts), parts);
        if (10 * vectors < 9 * least)
            found = parts, least = vectors;
    }
    return found;
}

/* Store, or add, `count` neighbours, or such with a distance. */
static inline void tg_put(float *to, long distance, const float *from, long count, long accumulate)
{
    if (distance == 1 && !accumulate)
        for (long s = 0; s < count; s++)
            to[s] = from[s];
    else
        for (long s = 0; s < count; s++)
            to[s * distance] = accumulate ? to[s * distance] + from[s] : from[s];
}

/* A block of rows of positions, already copied, for `channels` channels of the result: weight[channels, r->channels * taps]. */
static void tg_windows(
    const struct tg_reading *r, long first, const float *copy, const long *offsets, const float *weight, long channels,
    float *to, long to_channel, long to_row, long to_column)
{
    long inner = r->channels * r->taps, last = tg_least(r->rows, first + r->block);
    long parts = tg_pieces(r->block, r->columns, channels), width = TG_WIDTH / parts;
    long of_line = tg_parts(r->columns, width), pieces = (last - first) * of_line;
    long depth = tg_most(1, tg_parts(inner, tg_most(1, tg_parts(inner, TG_CONVOLUTION_DEPTH))));
    float edge[TG_VECTORS][TG_ROWS * TG_WIDTH];
    for (long begin = 0; begin < inner || begin == 0; begin += depth) {
        long deep = tg_least(depth, inner - begin), accumulate = begin > 0;
        for (long v = 0; v < pieces; v += TG_VECTORS * parts) {
            const float *x[TG_VECTORS * TG_PARTS];
            float *c[TG_VECTORS * TG_PARTS], *at[TG_VECTORS];
            long widths[TG_VECTORS * TG_PARTS], is_whole = to_column == 1 && parts == 1;
            for (long j = 0; j < TG_VECTORS * parts; j++) {
                long k = tg_least(v + j, pieces - 1), row = k / of_line, column = k % of_line * width;
                x[j] = copy + row * r->step_y * r->line + column;
                c[j] = to + (first + row) * to_row + column * to_column;
                widths[j] = v + j < pieces ? tg_least(width, r->columns - column) : 0;
                is_whole &= widths[j] == width;
            }
            for (long i = 0, rows; i < channels; i += rows) {
                rows = tg_next_rows(channels - i);
                const float *a = weight + i * inner + begin;
                if (is_whole) {
                    for (long j = 0; j < TG_VECTORS; j++)
                        at[j] = c[j] + i * to_channel;
                    tg_window_tiles(rows, deep, a, inner, x, offsets + begin, at, to_channel, accumulate);
                    continue;
                }
                for (long j = 0; j < TG_VECTORS; j++)
                    at[j] = edge[j];
                long before = 0; /* rows of the tile that have been done already */
                if (parts == 1)
                    tg_window_tiles(rows, deep, a, inner, x, offsets + begin, at, TG_WIDTH, 0);
                else {
                    before = tg_most(0, i + TG_ROWS - channels);
                    rows = TG_ROWS - before;
                    tg_joined_tiles(parts, deep, a - before * inner, inner, x, offsets + begin, at, TG_WIDTH);
                }
                for (long j = 0; j < TG_VECTORS * parts; j++)
                    for (long k = 0; k < rows; k++)
                        tg_put(
                            c[j] + (i + k) * to_channel, to_column,
                            edge[j / parts] + (before + k) * TG_WIDTH + j % parts * width, widths[j], accumulate);
            }
        }
    }
}

static void tg_offsets(const struct tg_reading *r, long channels, long *to)
{
    for (long c = 0; c < channels; c++)
        for (long t = 0; t < r->taps; t++)
            to[c * r->taps + t] = c * r->plane + tg_tap_offset(r, t);
}

/* The reading of x for y; `taps` has room for two numbers for each. */
static struct tg_reading tg_forwards(const struct tg_convolution *g, long *taps)
{
    long count = g->kernel_y * g->kernel_x;
    struct tg_reading r = {g->channels, g->height, g->width, g->rows, g->columns, g->stride_y, g->stride_x, count, taps, taps + count};
    for (long t = 0; t < count; t++) {
        r.tap_y[t] = t / g->kernel_x * g->dilation_y - g->before_y;
        r.tap_x[t] = t % g->kernel_x * g->dilation_x - g->before_x;
    }
    tg_lay_out(&r);
    return r;
}

static long tg_is_plain(const struct tg_convolution *g)
{
    return g->kernel_y * g->kernel_x == 1 && g->stride_y == 1 && g->stride_x == 1 && !g->before_y && !g->before_x &&
           g->rows == g->height && g->columns == g->width;
}

/* Units of a convolution: a block of rows of a sample, and some of the channels of a group. */
long tg_convolution_units(const struct tg_convolution *g)
{
    long taps[2 * g->kernel_y * g->kernel_x];
    long blocks = tg_is_plain(g) ? 1 : tg_forwards(g, taps).blocks;
    return g->samples * blocks * g->groups * tg_parts(g->outputs, TG_CHANNELS);
}

void tg_convolution(const void *arguments, long begin, long end)
{
    const struct tg_convolution *g = arguments;
    long taps[2 * g->kernel_y * g->kernel_x];
    struct tg_reading r = tg_forwards(g, taps);
    long inner = g->channels * r.taps, parts = tg_parts(g->outputs, TG_CHANNELS), is_plain = tg_is_plain(g);
    long *offsets = tg_scratch(
        is_plain ? TG_GEMM_BYTES : inner * sizeof(long) + (g->channels * r.plane + 2 * TG_WIDTH) * sizeof(float));
    float *copy = (float *)(offsets + inner);
    if (is_plain)
        r.blocks = 1;
    else {
        tg_offsets(&r, g->channels, offsets);
        memset(copy + g->channels * r.plane, 0, 2 * TG_WIDTH * sizeof(float)); /* a line's last vector reads on */
    }
    for (long unit = begin, copied = -1; unit < end; unit++) {
        long part = unit % parts, group = unit / parts % g->groups, rest = unit / (parts * g->groups);
        long sample = rest / r.blocks, first = rest % r.blocks * r.block;
        long channel = part * TG_CHANNELS, channels = tg_least(TG_CHANNELS, g->outputs - channel);
        const float *x = g->left + (sample * g->groups + group) * g->channels * g->height * g->width;
        const float *weight = g->right + (group * g->outputs + channel) * inner;
        float *y = g->out + ((sample * g->groups + group) * g->outputs + channel) * g->rows * g->columns;
        if (is_plain) {
            long size = g->rows * g->columns;
            struct tg_gemm product = {weight, x, y, channels, size, inner, inner, 1, size, 1, size, 0};
            tg_gemm(&product, (float *)offsets);
            continue;
        }
        if (unit / parts != copied)
            tg_copy(&r, x, first, g->channels, copy);
        copied = unit / parts;
        tg_windows(&r, first, copy, offsets, weight, channels, y, g->rows * g->columns, g->columns, 1);
    }
}

/* The reading of y for those elements of x that are `phase` beyond a multiple of the stride; which taps do is in `numbers`. */
static struct tg_reading tg_backwards(const struct tg_convolution *g, long phase, long *taps, long *numbers)
{
    long phase_y = phase / g->stride_x, phase_x = phase % g->stride_x, count = g->kernel_y * g->kernel_x;
    struct tg_reading r = {
        g->outputs, g->rows, g->columns, tg_parts(tg_most(0, g->height - phase_y), g->stride_y),
        tg_parts(tg_most(0, g->width - phase_x), g->stride_x), 1, 1, 0, taps, taps + count};
    for (long t = 0; t < count; t++) {
        long y = phase_y + g->before_y - t / g->kernel_x * g->dilation_y;
        long x = phase_x + g->before_x - t % g->kernel_x * g->dilation_x;
        if (y % g->stride_y || x % g->stride_x)
            continue;
        r.tap_y[r.taps] = y / g->stride_y, r.tap_x[r.taps] = x / g->stride_x;
        numbers[r.taps++] = t;
    }
    tg_lay_out(&r);
    return r;
}

long tg_convolution_input_units(const struct tg_convolution *g)
{
    long phases = tg_is_plain(g) ? 1 : g->stride_y * g->stride_x;
    return g->samples * phases * g->groups * tg_parts(g->channels, TG_CHANNELS);
}

/* A unit: one phase of a sample, and some of the channels of a group. */
void tg_convolution_input(const void *arguments, long begin, long end)
{
    const struct tg_convolution *g = arguments;
    long count = g->kernel_y * g->kernel_x, phases = g->stride_y * g->stride_x, parts = tg_parts(g->channels, TG_CHANNELS);
    if (tg_is_plain(g)) {
        float *scratch = tg_scratch(TG_GEMM_BYTES);
        for (long unit = begin; unit < end; unit++) {
            long part = unit % parts, group = unit / parts % g->groups, sample = unit / (parts * g->groups);
            long channel = part * TG_CHANNELS, size = g->rows * g->columns, pair = sample * g->groups + group;
            struct tg_gemm product = {
                g->right + group * g->outputs * g->channels + channel, g->left + pair * g->outputs * size,
                g->out + (pair * g->channels + channel) * size, tg_least(TG_CHANNELS, g->channels - channel), size,
                g->outputs, 1, g->channels, size, 1, size, 0};
            tg_gemm(&product, scratch);
        }
        return;
    }
    long taps[3 * count], largest = 0;
    for (long phase = 0; phase < phases; phase++)
        largest = tg_most(largest, tg_backwards(g, phase, taps, taps + 2 * count).plane);
    long weights = g->channels * g->outputs * count; /* of one group */
    long *offsets = tg_scratch(
        g->outputs * count * sizeof(long) + (weights + g->outputs * largest + 2 * TG_WIDTH) * sizeof(float));
    float *turned = (float *)(offsets + g->outputs * count), *copy = turned + weights;
    /* the units are done phase by phase, group by group, so that each phase's weights are turned round once */
    long per = phases * g->groups * parts;
    for (long phase = 0; phase < phases; phase++) {
        struct tg_reading r = tg_backwards(g, phase, taps, taps + 2 * count);
        const long *numbers = taps + 2 * count;
        long inner = g->outputs * r.taps;
        tg_offsets(&r, g->outputs, offsets);
        memset(copy + g->outputs * r.plane, 0, 2 * TG_WIDTH * sizeof(float));
        for (long group = 0; group < g->groups; group++) {
            long is_turned = 0;
            for (long sample = begin / per; sample * per < end; sample++) {
                long unit = sample * per + (phase * g->groups + group) * parts;
                long from = tg_most(0, begin - unit), to = tg_least(parts, end - unit);
                if (from >= to || r.rows * r.columns == 0)
                    continue;
                const float *weight = g->right + group * weights;
                for (long o = 0; !is_turned && o < g->outputs; o++)
                    for (long c = 0; c < g->channels; c++)
                        for (long t = 0; t < r.taps; t++)
                            turned[(c * g->outputs + o) * r.taps + t] = weight[(o * g->channels + c) * count + numbers[t]];
                is_turned = 1;
                long pair = sample * g->groups + group, channel = from * TG_CHANNELS;
                float *x = g->out + (pair * g->channels + channel) * g->height * g->width;
                for (long first = 0; first < r.rows; first += r.block) {
                    tg_copy(&r, g->left + pair * g->outputs * g->rows * g->columns, first, g->outputs, copy);
                    tg_windows(
                        &r, first, copy, offsets, turned + channel * inner, tg_least(g->channels, to * TG_CHANNELS) - channel,
                        x + phase / g->stride_x * g->width + phase % g->stride_x, g->height * g->width,
                        g->stride_y * g->width, g->stride_x);
                }
            }
        }
    }
}

/* Some taps times TG_PANEL channels, summed over the positions of some samples: x is the first copy, b the rows of y. */
static inline __attribute__((always_inline)) void tg_weight_tile(
    long rows, long samples, long copy, long lines, long line, long columns, const float *x, const long *offsets,
    const float *b, float *to, long accumulate)
{
    tg_vector sum[TG_ROWS][TG_VECTORS];
    long at[TG_ROWS];
#pragma GCC unroll 8
    for (long i = 0; i < rows; i++) {
        at[i] = offsets[i];
#pragma GCC unroll 8
        for (long j = 0; j < TG_VECTORS; j++)
            sum[i][j] = (tg_vector){0};
    }
    for (long n = 0; n < samples; n++)
        for (long l = 0; l < lines; l++) {
            const float *a = x + n * copy + l * line;
            for (const float *end = a + columns; a < end; a++, b += TG_PANEL) {
                tg_vector right[TG_VECTORS];
#pragma GCC unroll 8
                for (long j = 0; j < TG_VECTORS; j++)
                    right[j] = *(const tg_vector *)(b + j * TG_WIDTH);
#pragma GCC unroll 8
                for (long i = 0; i < rows; i++)
#pragma GCC unroll 8
                    for (long j = 0; j < TG_VECTORS; j++)
                        sum[i][j] += a[at[i]] * right[j];
            }
        }
#pragma GCC unroll 8
    for (long i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (long j = 0; j < TG_VECTORS; j++) {
            tg_vector *at = (tg_vector *)(to + i * TG_PANEL + j * TG_WIDTH);
            if (accumulate)
                sum[i][j] += *at;
            *at = sum[i][j];
        }
}

static void tg_weight_tiles(
    long rows, long samples, long copy, long lines, long line, long columns, const float *x, const long *offsets,
    const float *b, float *to, long accumulate)
{
#undef TG_CASE_OF_ROWS
#define TG_CASE_OF_ROWS(R) \
    case R: \
        tg_weight_tile(R, samples, copy, lines, line, columns, x, offsets, b, to, accumulate); \
        return;
    switch (rows) {
        TG_ROWS(TG_CASE_OF_ROWS)
    }
}

static long tg_weight_channels(const struct tg_convolution *g)
{
    return tg_least(g->channels, tg_parts(TG_WEIGHT_ROWS, g->kernel_y * g->kernel_x));
}

long tg_convolution_weight_units(const struct tg_convolution *g)
{
    return g->groups * tg_parts(g->outputs, TG_PANEL) * tg_parts(g->channels, tg_weight_channels(g));
}

/* weight[o, c..] of channels [channel, channel + channels) and outputs [output, output + outputs) of a group. */
static void tg_weight_part(
    const struct tg_convolution *g, const struct tg_reading *r, long group, long channel, long channels, long output,
    long outputs, long together)
{
    long taps = channels * r->taps, panels = tg_parts(outputs, TG_PANEL), copy = channels * r->plane;
    long positions = together * r->block * g->columns;
    long *offsets = tg_scratch(
        taps * sizeof(long) + (together * copy + panels * TG_PANEL * (taps + positions)) * sizeof(float));
    float *copies = (float *)(offsets + taps), *turned = copies + together * copy, *sums = turned + panels * TG_PANEL * positions;
    long size = g->rows * g->columns;
    tg_offsets(r, channels, offsets);
    memset(turned, 0, panels * TG_PANEL * positions * sizeof(float));
    memset(sums, 0, panels * TG_PANEL * taps * sizeof(float));
    for (long sample = 0; sample < g->samples; sample += together)
        for (long first = 0; first < g->rows; first += r->block) {
            long count = tg_least(together, g->samples - sample), lines = tg_least(r->block, g->rows - first);
            for (long n = 0; n < count; n++) {
                long pair = (sample + n) * g->groups + group;
                tg_copy(
                    r, g->left + (pair * g->channels + channel) * g->height * g->width, first, channels, copies + n * copy);
                const float *y = g->right + (pair * g->outputs + output) * size + first * g->columns;
                for (long j = 0; j < outputs; j += TG_PANEL)
                    tg_transpose(
                        turned + (j * count + n * TG_PANEL) * lines * g->columns, TG_PANEL, y + j * size, size,
                        tg_least(TG_PANEL, outputs - j), lines * g->columns);
            }
            for (long j = 0; j < outputs; j += TG_PANEL)
                for (long i = 0, rows; i < taps; i += rows) {
                    rows = tg_next_rows(taps - i);
                    tg_weight_tiles(
                        rows, count, copy, lines, r->step_y * r->line, g->columns, copies, offsets + i,
                        turned + j * count * lines * g->columns, sums + j * taps + i * TG_PANEL, 1);
                }
        }
    for (long j = 0; j < outputs; j += TG_PANEL)
        tg_transpose(
            g->out + ((group * g->outputs + output + j) * g->channels + channel) * r->taps, g->channels * r->taps,
            sums + j * taps, TG_PANEL, taps, tg_least(TG_PANEL, outputs - j));
}

/* A unit: TG_PANEL outputs times tg_weight_channels channels. Those of the same outputs are next to each other. */
void tg_convolution_weight(const void *arguments, long begin, long end)
{
    const struct tg_convolution *g = arguments;
    long taps[2 * g->kernel_y * g->kernel_x];
    struct tg_reading r = tg_forwards(g, taps);
    long each = tg_weight_channels(g), strips = tg_parts(g->channels, each), blocks = tg_parts(g->outputs, TG_PANEL);
    long together = r.blocks > 1 ? 1 : tg_most(1, tg_parts(TG_POSITIONS, tg_most(1, g->rows * g->columns)));
    while (begin < end) {
        long group = begin / (strips * blocks), block = begin / strips % blocks, strip = begin % strips;
        long high = tg_least(strips - strip, end - begin), wide = 1;
        if (high == strips) /* all channels: for as many outputs as are wanted */
            wide = tg_least(
                tg_least((end - begin) / strips, blocks - block),
                tg_most(1, TG_WEIGHT_FLOATS / (g->channels * r.taps * TG_PANEL)));
        tg_weight_part(
            g, &r, group, strip * each, tg_least(high * each, g->channels - strip * each), block * TG_PANEL,
            tg_least(wide * TG_PANEL, g->outputs - block * TG_PANEL), together);
        begin += high * wide;
    }
}
