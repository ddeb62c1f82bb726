/* The pointers of a plan's kernels to what lies elsewhere in every run: operands of the plan, and results. */

struct tg_pointer {
    char **at;   /* in the arguments of a kernel */
    long base;   /* which array it points into */
    long offset; /* in bytes from that array's begin */
};

void tg_point(const struct tg_pointer *pointers, long count, char *const *bases)
{
    for (long i = 0; i < count; i++)
        *pointers[i].at = bases[pointers[i].base] + pointers[i].offset;
}

/* The same for arrays of NumPy, given by where the objects begin: with `head` bytes of Python, and then the address of the
   elements. */
void tg_point_arrays(const struct tg_pointer *pointers, long count, char *const *arrays, long head)
{
    for (long i = 0; i < count; i++)
        *pointers[i].at = *(char **)(arrays[pointers[i].base] + head) + pointers[i].offset;
}
