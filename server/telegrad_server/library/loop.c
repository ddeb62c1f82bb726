/* A loop whose trips are kernels alone: all of them without a step of Python. */
#include "telegrad.h"

/* Where a trip finds an array. */
struct tg_base {
    char *begin;
    char *other; /* what odd trips write instead, so that the one before can still be read; NULL if there is none */
    long step;   /* bytes from a slice to the next */
    long source; /* the array that the trip before has written and this one reads; -1 for none */
};

/* Calls, their arguments one behind the other, and the pointers in these. */
struct tg_table {
    struct tg_call *calls;
    long count;
    struct tg_pointer *pointers;
    long pointer_count;
    char *frame;
    long bytes;
};

struct tg_loop {
    struct tg_table once; /* what is done before the first trip */
    struct tg_table trip;
    const struct tg_base *each;
    char **bases; /* those of the last trip that was begun */
    long base_count;
    long length, is_reversed;
    long long *number;
    const tg_kernel *by_rows; /* a trip's kernels as they do some rows: units of them all */
    long rows;                /* units of rows, 0 if trips cannot be cut */
};

/* The arrays of a trip, given those of the one before; the slice that it reads. */
static long tg_trip(const struct tg_loop *loop, long trip, char **bases)
{
    long slice = loop->is_reversed ? loop->length - 1 - trip : trip;
    for (long b = 0; b < loop->base_count; b++) { /* what is read from the trip before, while it is known where */
        const struct tg_base *base = loop->each + b;
        if (base->source >= 0)
            bases[b] = trip ? bases[base->source] : base->begin;
    }
    for (long b = 0; b < loop->base_count; b++) {
        const struct tg_base *base = loop->each + b;
        if (base->source < 0)
            bases[b] = base->other && trip % 2 ? base->other : base->begin + slice * base->step;
    }
    return slice;
}

struct tg_trips {
    const struct tg_loop *loop;
    long first, last;
};

/* Trips by rows: this thread does its units of all of them, with arguments of its own, and waits for nobody. */
static void tg_trips_by_rows(const void *arguments, long begin, long end)
{
    const struct tg_trips *t = arguments;
    const struct tg_loop *loop = t->loop;
    const struct tg_table *from = &loop->trip;
    long bases_bytes = loop->base_count * sizeof(char *), pointers_bytes = from->pointer_count * sizeof(struct tg_pointer);
    char *own = malloc(from->bytes + bases_bytes + pointers_bytes + 1);
    if (!own) {
        fprintf(stderr, "telegrad: no room for the arguments of a loop\n");
        abort();
    }
    char **bases = (char **)(own + from->bytes);
    struct tg_pointer *pointers = (struct tg_pointer *)(own + from->bytes + bases_bytes);
    memcpy(own, from->frame, from->bytes);
    memcpy(bases, loop->bases, bases_bytes);
    memcpy(pointers, from->pointers, pointers_bytes);
    for (long i = 0; i < from->pointer_count; i++)
        pointers[i].at = (char **)(own + ((char *)pointers[i].at - from->frame));
    for (long trip = t->first; trip < t->last; trip++) {
        tg_trip(loop, trip, bases);
        tg_point(pointers, from->pointer_count, bases);
        for (long i = 0; i < from->count; i++)
            loop->by_rows[i](own + ((const char *)from->calls[i].arguments - from->frame), begin, end);
    }
    free(own);
}

/* Trips first..last, counted from the one that is run first. */
void tg_loop(const struct tg_loop *loop, long first, long last)
{
    if (first == 0 && last > 0 && loop->once.count) {
        tg_trip(loop, 0, loop->bases);
        tg_point(loop->once.pointers, loop->once.pointer_count, loop->bases);
        tg_run(loop->once.calls, loop->once.count);
    }
    if (loop->rows && loop->rows >= tg_threads()) {
        struct tg_trips trips = {loop, first, last};
        struct tg_call call = {tg_trips_by_rows, &trips, loop->rows, 0};
        tg_run(&call, 1);
        for (long trip = first; trip < last; trip++)
            tg_trip(loop, trip, loop->bases);
        return;
    }
    for (long trip = first; trip < last; trip++) {
        *loop->number = tg_trip(loop, trip, loop->bases);
        tg_point(loop->trip.pointers, loop->trip.pointer_count, loop->bases);
        tg_run(loop->trip.calls, loop->trip.count);
    }
}
