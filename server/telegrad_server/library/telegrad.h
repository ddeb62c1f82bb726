/* What the kernels of the library share. */
#ifndef TELEGRAD_H
#define TELEGRAD_H

#if defined(__clang__)
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("fp-contract=fast")
#endif

void *memset(void *, int, unsigned long);
void *memcpy(void *, const void *, unsigned long);

void *tg_scratch(long bytes);

/* C[m, n] (+)= A[m, k] B[k, n]; strides in floats; the columns of C lie together. */
struct tg_gemm {
    const float *a, *b;
    float *c;
    long m, n, k, a_row, a_inner, b_inner, b_column, c_row, accumulate;
};

#endif
