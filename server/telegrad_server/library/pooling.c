/* Pooling and its gradients, and sums over all axes but one in the middle, float32. */
#include "telegrad.h"

/* x[planes, height, width] -> out[planes, rows, columns]: the number within its plane of the first largest element. */
struct tg_windows {
    const float *x;
    long *out;
    long planes, height, width, rows, columns;
    long kernel_y, kernel_x, stride_y, stride_x, before_y, before_x, dilation_y, dilation_x;
};

/* NaN is more than all numbers, and nothing is more than NaN. */
static inline int tg_is_more(float a, float b) { return !(a <= b) & (b == b); }

enum { TG_PAIRS = 128 };

/* Windows of 2 by 2 next to each other: `count` of them in two lines, the first element's number being `first`. */
static void tg_pairs_argmax(const float *x, long width, long first, long *out, long count)
{
    for (; count > 0; count -= TG_PAIRS, x += 2 * TG_PAIRS, first += 2 * TG_PAIRS, out += TG_PAIRS) {
        int which[TG_PAIRS], n = count < TG_PAIRS ? count : TG_PAIRS; /* numbers of 32 bits, as wide as a float */
        for (int k = 0; k < n; k++) {
            float best = x[2 * k];
            int is_more = tg_is_more(x[2 * k + 1], best), at = is_more;
            best = is_more ? x[2 * k + 1] : best;
            is_more = tg_is_more(x[width + 2 * k], best);
            best = is_more ? x[width + 2 * k] : best;
            at = is_more ? 2 : at;
            is_more = tg_is_more(x[width + 2 * k + 1], best);
            which[k] = is_more ? 3 : at;
        }
        for (int k = 0; k < n; k++)
            out[k] = first + 2 * k + (which[k] & 1) + (which[k] >> 1) * width;
    }
}

/* A unit is a plane. */
void tg_window_argmax(const void *arguments, long begin, long end)
{
    const struct tg_windows *g = arguments;
    long is_pairs = g->kernel_y == 2 && g->kernel_x == 2 && g->stride_y == 2 && g->stride_x == 2 && !g->before_y &&
                    !g->before_x && g->dilation_y == 1 && g->dilation_x == 1 && 2 * g->rows <= g->height &&
                    2 * g->columns <= g->width;
    for (long plane = begin; plane < end; plane++) {
        const float *x = g->x + plane * g->height * g->width;
        long *out = g->out + plane * g->rows * g->columns;
        for (long row = 0; row < g->rows; row++, out += g->columns) {
            if (is_pairs) {
                tg_pairs_argmax(x + 2 * row * g->width, g->width, 2 * row * g->width, out, g->columns);
                continue;
            }
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
                out[column] = at;
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
