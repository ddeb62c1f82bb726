/* What generated CUDA needs of a GPU, on the host: a block's threads are fibers. A warp runs on until all of it waits for
   the block, so that warps are as far apart as barriers let them be; blocks follow each other. */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define INLINE static inline
#define __global__
#define __shared__ static
#define __launch_bounds__(n)

struct Dim { unsigned x, y, z; };
static Dim threadIdx, blockIdx, blockDim, gridDim;

#define CHECK_ALIGNED(pointer, bytes) \
    if ((unsigned long long)(pointer) % (bytes)) fault("an address that is not aligned")

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    unsigned warp_steps, block_steps;
    float given[2];
    bool is_done, is_at_barrier;
};

static std::vector<Fiber> fibers;
static ucontext_t home;
static unsigned current;
static void (*body)(void *);
static void *argument;

static char faulted[200];

static void fault(const char *what) {
    std::snprintf(faulted, sizeof faulted, "%s (block %u %u, thread %u)", what, blockIdx.x, blockIdx.y, current);
    swapcontext(&fibers[current].context, &home);
}

static void rest() { swapcontext(&fibers[current].context, &home); }

static void begin() {
    body(argument);
    fibers[current].is_done = true;
    swapcontext(&fibers[current].context, &home);
}

static void wait_for(unsigned first, unsigned last, unsigned Fiber::*steps) {
    Fiber &own = fibers[current];
    unsigned wanted = ++(own.*steps);
    for (;;) {
        bool is_together = true;
        for (unsigned i = first; i < last; i++) {
            if (fibers[i].*steps < wanted && fibers[i].is_done) fault("a thread ended before a barrier");
            is_together &= fibers[i].*steps >= wanted;
        }
        if (is_together) return;
        rest();
    }
}

static void __syncthreads() {
    fibers[current].is_at_barrier = true;
    wait_for(0, blockDim.x, &Fiber::block_steps);
    fibers[current].is_at_barrier = false;
}

static float __shfl_xor_sync(unsigned mask, float x, int w) {
    unsigned first = current / 32 * 32, turn = fibers[current].warp_steps % 2;
    if (mask != 0xffffffffu || first + 32 > blockDim.x) fault("a shuffle of less than a warp");
    fibers[current].given[turn] = x;
    wait_for(first, first + 32, &Fiber::warp_steps);
    return fibers[current ^ w].given[turn];
}

static int __float_as_int(float x) { int i; std::memcpy(&i, &x, 4); return i; }
static float __int_as_float(int i) { float x; std::memcpy(&x, &i, 4); return x; }

static float bfloat16_load(unsigned short x) { return __int_as_float((int)((unsigned)x << 16)); }
static unsigned short bfloat16_store(float x) {
    unsigned i = (unsigned)__float_as_int(x);
    if (x != x) return 0x7fff;
    return (unsigned short)((i + 0x7fff + ((i >> 16) & 1)) >> 16);
}
static float float16_load(unsigned short x) { _Float16 y; std::memcpy(&y, &x, 2); return (float)y; }
static unsigned short float16_store(float x) {
    _Float16 y = (_Float16)x;
    unsigned short i;
    std::memcpy(&i, &y, 2);
    return i;
}

template <typename... A, std::size_t... I> static void call(void (*f)(A...), void **p, std::index_sequence<I...>) {
    f(reinterpret_cast<A>(p[I])...);
}

static void run_block(unsigned threads, int backwards) {
    for (bool is_over = false; !is_over;) {
        is_over = true;
        for (unsigned w = 0; w < threads / 32; w++)
            for (bool goes_on = true; goes_on;) {
                goes_on = false;
                for (unsigned i = 0; i < 32; i++) {
                    unsigned n = 32 * w + i;
                    if (backwards) n = threads - 1 - n;
                    if (fibers[n].is_done) continue;
                    current = n;
                    threadIdx = {n, 0, 0};
                    swapcontext(&home, &fibers[n].context);
                    if (faulted[0]) return;
                    is_over &= fibers[n].is_done;
                    goes_on |= !fibers[n].is_done && !fibers[n].is_at_barrier;
                }
            }
    }
}

template <typename... A> static void launch(void (*f)(A...), unsigned x, unsigned y, unsigned threads, void **p, int backwards) {
    struct All { void (*f)(A...); void **p; } all = {f, p};
    body = [](void *given) {
        All &all = *static_cast<All *>(given);
        call(all.f, all.p, std::index_sequence_for<A...>{});
    };
    argument = &all;
    gridDim = {x, y, 1};
    blockDim = {threads, 1, 1};
    fibers.resize(threads);
    for (unsigned b = 0; b < x * y; b++) {
        unsigned at = backwards ? x * y - 1 - b : b;
        blockIdx = {at % x, at / x, 0};
        for (Fiber &fiber : fibers) {
            fiber.stack.resize(1 << 15);
            fiber.warp_steps = fiber.block_steps = 0;
            fiber.is_done = fiber.is_at_barrier = false;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.data();
            fiber.context.uc_stack.ss_size = fiber.stack.size();
            makecontext(&fiber.context, begin, 0);
        }
        run_block(threads, backwards);
        if (faulted[0]) return;
    }
}
