/* Finds the program by its name. */
#define _GNU_SOURCE
#include "hostile.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int allowed;

void refused(const char *what, long result, const int *expected) {
    int error = errno;
    if (result >= 0) {
        allowed = 1;
        printf("ALLOWED %s: %ld\n", what, result);
        return;
    }
    for (int i = 0; expected[i]; i++)
        if (expected[i] == error) return;
    if (expected[0] == 0) return;
    allowed = 1;
    printf("ALLOWED %s: refused in an unexpected way: %s\n", what, strerror(error));
}

void bounded(const char *what, long found, long least, long most) {
    if (found < least || found > most) {
        allowed = 1;
        printf("ALLOWED %s: %ld is not within %ld to %ld\n", what, found, least, most);
    } else {
        printf("%s: %ld\n", what, found);
    }
}

int verdict(void) {
    fflush(stdout);
    return allowed;
}

int main(int argc, char **argv) {
    const struct program *lists[] = {processes, memory, files, kernel, streams, again};
    if (argc < 2) return 100;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const struct program *program = lists[i]; program->name; program++)
            if (!strcmp(program->name, argv[1])) return program->run(argc - 1, argv + 1);
    return 101;
}
