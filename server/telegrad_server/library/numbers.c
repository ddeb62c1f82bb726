/* Ops on single numbers in float64: an optimiser keeps a few for each parameter (steps, corrections of its moments), and
   a call from Python for each would take longer than the update. */

#include <math.h>

struct tg_number {
    const double *x, *y;
    void *out;
};

#define TG_NUMBER(NAME, TYPE, EXPRESSION) \
    void tg_number_##NAME(const void *arguments, long begin, long end) \
    { \
        const struct tg_number *given = arguments; \
        double x = *given->x, y = given->y ? *given->y : 0.0; \
        *(TYPE *)given->out = EXPRESSION; \
    }

TG_NUMBER(add, double, x + y)
TG_NUMBER(subtract, double, x - y)
TG_NUMBER(multiply, double, x * y)
TG_NUMBER(divide, double, x / y)
TG_NUMBER(power, double, pow(x, y))
TG_NUMBER(negative, double, -x)
TG_NUMBER(sqrt, double, sqrt(x))
TG_NUMBER(float64, double, x)
TG_NUMBER(float32, float, x)
