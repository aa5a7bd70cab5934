/* Programs that mean harm, each a function named on the command line. Every loop is bounded: a box that holds nothing
 * still gives the machine back.
 *
 * A program ends with 0 when all it tried was refused or bounded as it should be. What should not have worked is a
 * line `ALLOWED …`, and the end is then 1. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stddef.h>

struct program {
    const char *name;
    int (*run)(int argc, char **argv);
};

extern const struct program processes[], memory[], files[], kernel[], streams[], again[];

/* Notes an attempt that gave `result` (negative: refused, with errno): it should have failed, with one of the errno
 * values of the list, which ends with 0. An empty list takes any. */
void refused(const char *what, long result, const int *expected);
#define REFUSED(what, result, ...) refused(what, (long)(result), (const int[]){__VA_ARGS__, 0})

/* Notes that `found` must be at most `most` and at least `least`. */
void bounded(const char *what, long found, long least, long most);

/* 1 when anything was noted that should not be. */
int verdict(void);

#endif
