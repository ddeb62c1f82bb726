/* Products with a right operand that stays the same in all trips of a loop: it is packed once. The bits are those of gemm.c.

   B[k, n] lies as blocks of TG_DEPTH of its rows, a block as panels of TG_PANEL columns, a panel as its rows one after the
   other, with zeros beyond the last column. */
#include "telegrad.h"

enum { TG_TRIP_ROWS = 4, TG_PACKED_PANELS = 4 }; /* UNIT_ROWS in compiler/trips.py; panels of a unit that has all rows */

struct tg_packed {
    struct tg_gemm one; /* `b` is packed; b_inner and b_column tell where it is packed from */
    const float *from;
};

static inline long tg_panels(long n)
{
    return (n + TG_PANEL - 1) / TG_PANEL;
}

long tg_packed_floats(long n, long k)
{
    return tg_panels(n) * TG_PANEL * k;
}

long tg_pack_units(long n)
{
    return tg_panels(n);
}

/* A unit is a panel, in all blocks. */
void tg_pack(const void *arguments, long begin, long end)
{
    const struct tg_packed *t = arguments;
    const struct tg_gemm *g = &t->one;
    for (long panel = begin; panel < end; panel++)
        for (long first = 0; first < g->k; first += TG_DEPTH) {
            long depth = g->k - first < TG_DEPTH ? g->k - first : TG_DEPTH, left = g->n - panel * TG_PANEL;
            float *to = (float *)g->b + tg_panels(g->n) * TG_PANEL * first + panel * TG_PANEL * depth;
            const float *from = t->from + first * g->b_inner + panel * TG_PANEL * g->b_column;
            tg_pack_columns(to, from, g->b_inner, g->b_column, depth, left < TG_PANEL ? left : TG_PANEL);
        }
}

/* Rows row..bottom of the panels panel..last. */
static void tg_packed_part(const struct tg_gemm *g, long row, long bottom, long panel, long last)
{
    for (long first = 0; first < g->k || first == 0; first += TG_DEPTH) {
        long depth = g->k - first < TG_DEPTH ? g->k - first : TG_DEPTH;
        const float *block = g->b + tg_panels(g->n) * TG_PANEL * first;
        for (long p = panel; p < last; p++) {
            const float *b = block + p * TG_PANEL * depth;
            long width = g->n - p * TG_PANEL < TG_PANEL ? g->n - p * TG_PANEL : TG_PANEL;
            for (long i = row; i < bottom; i += TG_ROWS) {
                long rows = bottom - i < TG_ROWS ? bottom - i : TG_ROWS;
                const float *a = g->a + i * g->a_row + first * g->a_inner;
                float *c = g->c + i * g->c_row + p * TG_PANEL;
                if (width == TG_PANEL)
                    tg_tiles(rows, TG_VECTORS, depth, a, g->a_row, g->a_inner, b, TG_PANEL, c, g->c_row, first > 0);
                else
                    tg_edge(rows, width, depth, a, g->a_row, g->a_inner, b, c, g->c_row, first > 0);
            }
        }
    }
}

long tg_packed_units(long n)
{
    return (tg_panels(n) + TG_PACKED_PANELS - 1) / TG_PACKED_PANELS;
}

/* A unit is some columns, of all rows. */
void tg_packed_columns(const void *arguments, long begin, long end)
{
    const struct tg_gemm *g = &((const struct tg_packed *)arguments)->one;
    long panels = tg_panels(g->n), last = end * TG_PACKED_PANELS;
    tg_packed_part(g, 0, g->m, begin * TG_PACKED_PANELS, last < panels ? last : panels);
}

/* A unit is some rows, with all columns. */
void tg_packed_rows(const void *arguments, long begin, long end)
{
    const struct tg_gemm *g = &((const struct tg_packed *)arguments)->one;
    long bottom = end * TG_TRIP_ROWS;
    tg_packed_part(g, begin * TG_TRIP_ROWS, bottom < g->m ? bottom : g->m, 0, tg_panels(g->n));
}

/* Of a product whose right operand is another one in each trip, some rows. */
void tg_matmul_by_rows(const void *arguments, long begin, long end)
{
    struct tg_gemm part = ((const struct tg_matmul *)arguments)->one;
    long row = begin * TG_TRIP_ROWS, bottom = end * TG_TRIP_ROWS < part.m ? end * TG_TRIP_ROWS : part.m;
    part.a += row * part.a_row;
    part.c += row * part.c_row;
    part.m = bottom - row;
    tg_gemm(&part, tg_scratch(TG_GEMM_BYTES));
}
