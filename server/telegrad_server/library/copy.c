/* Bytes from one place to another. */
#include "telegrad.h"

/* So many rows of so many bytes each, and from one row to the next. */
struct tg_copy_rows {
    const char *from;
    char *to;
    long rows, bytes, from_row, to_row;
    long begin; /* bytes from `to` to the first row */
    long unit;  /* rows in a unit of a trip that is cut by rows */
};

/* A unit is a row. */
void tg_copy_rows(const void *arguments, long begin, long end)
{
    const struct tg_copy_rows *t = arguments;
    for (long row = begin; row < end; row++)
        memcpy(t->to + t->begin + row * t->to_row, t->from + row * t->from_row, t->bytes);
}

/* A unit is that of a trip that is cut by rows. */
void tg_copy_units(const void *arguments, long begin, long end)
{
    const struct tg_copy_rows *t = arguments;
    tg_copy_rows(t, begin * t->unit, end * t->unit < t->rows ? end * t->unit : t->rows);
}
