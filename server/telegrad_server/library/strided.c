/* Copies of arrays of any layout and element size, and zeros. */
#include "telegrad.h"

enum { TG_AXES = 8 };

/* Runs of bytes, one for each index of some axes; `lines` are all but the last of these. */
struct tg_strided {
    const char *from;
    char *to;
    long begin; /* bytes from `to` to the first run */
    long bytes; /* of a run */
    long axes;  /* at least 1 */
    long size[TG_AXES], from_step[TG_AXES], to_step[TG_AXES]; /* steps in bytes */
    long lines, unit; /* so many lines are a unit */
};

/* A unit is some lines. */
void tg_copy_strided(const void *arguments, long begin, long end)
{
    const struct tg_strided *t = arguments;
    long last = t->axes - 1, count = t->size[last], from_step = t->from_step[last], to_step = t->to_step[last];
    long stop = end * t->unit < t->lines ? end * t->unit : t->lines;
    for (long line = begin * t->unit; line < stop; line++) {
        const char *from = t->from;
        char *to = t->to + t->begin;
        long rest = line;
        for (long axis = last - 1; axis >= 0; axis--) {
            long at = rest % t->size[axis];
            rest /= t->size[axis];
            from += at * t->from_step[axis];
            to += at * t->to_step[axis];
        }
        if (t->bytes == 4)
            for (long i = 0; i < count; i++)
                memcpy(to + i * to_step, from + i * from_step, 4);
        else if (t->bytes == 8)
            for (long i = 0; i < count; i++)
                memcpy(to + i * to_step, from + i * from_step, 8);
        else
            for (long i = 0; i < count; i++)
                memcpy(to + i * to_step, from + i * from_step, t->bytes);
    }
}

struct tg_zeros {
    char *to;
    long bytes, unit;
};

/* A unit is some bytes. */
void tg_zeros(const void *arguments, long begin, long end)
{
    const struct tg_zeros *t = arguments;
    long from = begin * t->unit, stop = end * t->unit < t->bytes ? end * t->unit : t->bytes;
    memset(t->to + from, 0, stop - from);
}
