/* What every kernel of the library uses. The sources are compiled as one, in the order that executors/library.py names.

A kernel does the units begin..end of its work. Units are cut by shapes and constants alone, never by threads or load,
so the bits of a unit do not depend on who does it. `arguments` points to a struct that Python has filled. */

#ifndef TELEGRAD_H
#define TELEGRAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <string.h>

/* a * b + c is one rounding wherever the processor has an instruction for it, in every source of the library. */
#if defined(__clang__)
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("fp-contract=fast")
#endif

typedef void (*tg_kernel)(const void *arguments, long begin, long end);

/* A kernel and its work. The first thread does what is serial, or has one unit. */
struct tg_call {
    tg_kernel kernel;
    const void *arguments;
    long units;
    long serial;
};

/* Do the calls in order, each on all threads: of T the one with number t takes units [units*t/T, units*(t+1)/T). */
void tg_run(const struct tg_call *calls, long count);

/* How many threads run calls from now on, the caller among them. */
void tg_use_threads(long threads);

/* How many that are. */
long tg_threads(void);

/* This thread's own memory, 64-byte aligned. What was in it is gone with the next kernel, and with a second call. */
void *tg_scratch(long bytes);

#endif
