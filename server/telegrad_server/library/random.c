/* Uniform random numbers in float32 from Philox 4x32-10 (Salmon et al. 2011, section 4.3), the same bits as
   executors/philox.py makes: an element's counter is its number in the stream. */
#include "telegrad.h"

#include <stdint.h>

enum { TG_BLOCKS = 16, TG_RANDOM_UNIT = 16384 };

struct tg_uniform {
    const uint32_t *key; /* four words: the seed, and the number of the call */
    float *out;
    long offset, count;
    long stream;
};

/* The four words of TG_BLOCKS counters from `first` on; word w of counter j is words[w][j]. */
static inline void tg_philox(uint32_t words[4][TG_BLOCKS], uint64_t first, uint32_t third, uint32_t key, uint32_t other)
{
#pragma omp simd
    for (int j = 0; j < TG_BLOCKS; j++) {
        uint32_t a = (uint32_t)(first + j), b = (uint32_t)((first + j) >> 32), c = third, d = 0;
#pragma GCC unroll 10
        for (uint32_t round = 0; round < 10; round++) {
            uint64_t one = (uint64_t)a * 0xD2511F53u, two = (uint64_t)c * 0xCD9E8D57u;
            a = (uint32_t)(two >> 32) ^ b ^ (key + round * 0x9E3779B9u);
            c = (uint32_t)(one >> 32) ^ d ^ (other + round * 0xBB67AE85u);
            b = (uint32_t)two;
            d = (uint32_t)one;
        }
        words[0][j] = a;
        words[1][j] = b;
        words[2][j] = c;
        words[3][j] = d;
    }
}

/* A unit is TG_RANDOM_UNIT numbers. */
void tg_random_uniform(const void *arguments, long begin, long end)
{
    const struct tg_uniform *t = arguments;
    uint32_t words[4][TG_BLOCKS];
    tg_philox(words, (uint64_t)t->key[3] << 32 | t->key[2], (uint32_t)t->stream, t->key[0], t->key[1]);
    uint32_t key = words[0][0], other = words[1][0];
    long from = begin * TG_RANDOM_UNIT, stop = end * TG_RANDOM_UNIT < t->count ? end * TG_RANDOM_UNIT : t->count;
    while (from < stop) {
        float numbers[4 * TG_BLOCKS];
        long at = t->offset + from, skipped = at % 4, many = 4 * TG_BLOCKS - skipped;
        tg_philox(words, (uint64_t)at / 4, 0, key, other);
        for (int j = 0; j < TG_BLOCKS; j++)
            for (int w = 0; w < 4; w++)
                numbers[4 * j + w] = (float)(int)(words[w][j] >> 8) * 0x1p-24f;
        many = many < stop - from ? many : stop - from;
        memcpy(t->out + from, numbers + skipped, many * sizeof(float));
        from += many;
    }
}
