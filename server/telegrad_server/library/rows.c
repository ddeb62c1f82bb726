/* Rows of a table picked by number, as an embedding picks them, and the gradient of that.

   Numbers were looked at before a kernel is called: each is at least -rows and less than rows, and counts from the end if
   it is negative. */
#include "telegrad.h"

struct tg_rows {
    const char *from; /* the table, or what is added to it */
    const void *index;
    char *to;
    const long *offset; /* bytes from `from` to each row that is added */
    long count;         /* of numbers */
    long is_wide;       /* whether a number has 64 bits, or 32 */
    long rows;          /* of the table */
    long bytes;         /* of a row */
    long step;          /* bytes from a row of `from` to the next, where rows are picked */
    long unit;          /* so many rows of the result a unit makes */
};

static inline long tg_row(const struct tg_rows *t, long i)
{
    long row = t->is_wide ? ((const long long *)t->index)[i] : ((const int *)t->index)[i];
    return row < 0 ? row + t->rows : row;
}

/* A unit is some rows of the result. */
void tg_pick_rows(const void *arguments, long begin, long end)
{
    const struct tg_rows *t = arguments;
    long last = end * t->unit < t->count ? end * t->unit : t->count;
    for (long i = begin * t->unit; i < last; i++)
        memcpy(t->to + i * t->bytes, t->from + tg_row(t, i) * t->step, t->bytes);
}

/* Zeros, to which float32 rows are added in the order of their numbers. A unit is some rows of the result. */
void tg_add_rows(const void *arguments, long begin, long end)
{
    const struct tg_rows *t = arguments;
    long width = t->bytes / (long)sizeof(float);
    for (long unit = begin; unit < end; unit++) {
        long low = unit * t->unit, high = low + t->unit < t->rows ? low + t->unit : t->rows;
        memset(t->to + low * t->bytes, 0, (high - low) * t->bytes);
        for (long i = 0; i < t->count; i++) {
            long row = tg_row(t, i);
            if (row < low || row >= high)
                continue;
            float *to = (float *)(t->to + row * t->bytes);
            const float *from = (const float *)(t->from + t->offset[i]);
            for (long c = 0; c < width; c++)
                to[c] += from[c];
        }
    }
}
