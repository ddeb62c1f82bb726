/* A loop whose trips are kernels alone: all of them without a step of Python. */
#include "telegrad.h"

/* Where a trip finds an array. */
struct tg_base {
    char *begin;
    char *other; /* what odd trips write instead, so that the one before can still be read; NULL if there is none */
    long step;   /* bytes from a slice to the next */
    long source; /* the array that the trip before has written and this one reads; -1 for none */
};

struct tg_loop {
    const struct tg_call *calls;
    long count;
    const struct tg_pointer *pointers;
    long pointer_count;
    const struct tg_base *each;
    char **bases; /* those of the last trip that was begun */
    long base_count;
    long length, is_reversed;
    long long *number;
};

/* Trips first..last, counted from the one that is run first. */
void tg_loop(const struct tg_loop *loop, long first, long last)
{
    for (long trip = first; trip < last; trip++) {
        long slice = loop->is_reversed ? loop->length - 1 - trip : trip;
        *loop->number = slice;
        for (long b = 0; b < loop->base_count; b++) { /* what is read from the trip before, while it is known where */
            const struct tg_base *base = loop->each + b;
            if (base->source >= 0)
                loop->bases[b] = trip ? loop->bases[base->source] : base->begin;
        }
        for (long b = 0; b < loop->base_count; b++) {
            const struct tg_base *base = loop->each + b;
            if (base->source < 0)
                loop->bases[b] = base->other && trip % 2 ? base->other : base->begin + slice * base->step;
        }
        tg_point(loop->pointers, loop->pointer_count, loop->bases);
        tg_run(loop->calls, loop->count);
    }
}
