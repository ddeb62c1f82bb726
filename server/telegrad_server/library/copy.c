/* Bytes from one place to another. */
#include "telegrad.h"

/* So many rows of so many bytes each, and from one row to the next. */
struct tg_copy_rows {
    const char *from;
    char *to;
    long rows, bytes, from_row, to_row;
    long begin; /* bytes from `to` to the first row */
};

/* A unit is a row. */
void tg_copy_rows(const void *arguments, long begin, long end)
{
    const struct tg_copy_rows *t = arguments;
    for (long row = begin; row < end; row++)
        memcpy(t->to + t->begin + row * t->to_row, t->from + row * t->from_row, t->bytes);
}
