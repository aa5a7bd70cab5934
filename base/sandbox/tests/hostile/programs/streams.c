/* Input nobody reads, output nobody wants, ends nobody expects. */
#define _GNU_SOURCE
#include "hostile.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Arguments: descriptors to flood, as in `1`, `2`, `12`. */
static int flood(int argc, char **argv) {
    static char block[64 << 10];
    memset(block, 'x', sizeof block);
    signal(SIGPIPE, SIG_IGN);
    const char *outputs = argc > 1 ? argv[1] : "1";
    for (long i = 0; i < 1L << 20; i++)
        for (const char *output = outputs; *output; output++)
            if (write(*output - '0', block, sizeof block) < 0) return 3;
    return 0;
}

/* The same bytes the test has: NUL, broken UTF-8, UTF-8 in two writes, escapes of terminals. */
static int bytes(int argc, char **argv) {
    (void)argc, (void)argv;
    static const char first[] = "nul\0 bad\xff\xfe\x80 split \xe2\x82";
    static const char second[] = "\xac \x1b]0;title\x07\x1b[2J\x1b[31m\r\n\x00 end";
    if (write(1, first, sizeof first - 1) < 0 || write(1, second, sizeof second - 1) < 0) return 1;
    for (int byte = 0; byte < 256; byte++) {
        char one = (char)byte;
        if (write(1, &one, 1) < 0) return 1;
    }
    return 0;
}

static int crash(int argc, char **argv) {
    (void)argc, (void)argv;
    if (chdir("/tmp")) return 2;
    raise(SIGSEGV);
    return 0;
}

static int aborts(int argc, char **argv) {
    (void)argc, (void)argv;
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    REFUSED("a larger core limit", setrlimit(RLIMIT_CORE, &all), EPERM);
    if (chdir("/tmp") || verdict()) return 2;
    abort();
}

static int overflow_deeper(volatile char *above, long left) {
    volatile char here[4096];
    here[0] = above[0];
    return left == 0 ? 0 : overflow_deeper(here, left - 1) + here[0];
}

static int overflow(int argc, char **argv) {
    (void)argc;
    return overflow_deeper(argv[0], 1L << 30);
}

/* A stream can be opened again by name, with more rights than it came with. (Its mode is another matter: whoever owns
 * a file may change that through any descriptor, so a runner that is an ordinary user should give pipes.) */
static int streams_reopened(int argc, char **argv) {
    (void)argc, (void)argv;
    const char *const names[] = {"/proc/self/fd/0", "/proc/self/fd/1", "/dev/stdin", "/dev/stdout", "/dev/fd/0"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        REFUSED(names[i], open(names[i], O_RDWR), EACCES, EPERM, EROFS);
        REFUSED(names[i], open(names[i], O_WRONLY | O_TRUNC), EACCES, EPERM, EROFS);
    }
    REFUSED("truncate input", truncate("/proc/self/fd/0", 0), EACCES, EPERM, EROFS);
    REFUSED("truncate output", truncate("/proc/self/fd/1", 0), EACCES, EPERM, EROFS);
    REFUSED("link input", linkat(AT_FDCWD, "/proc/self/fd/0", AT_FDCWD, "/tmp/input", AT_SYMLINK_FOLLOW), EXDEV, EPERM, EACCES);
    return verdict();
}

const struct program streams[] = {
    {"flood", flood},
    {"bytes", bytes},
    {"streams-reopened", streams_reopened},
    {"crash", crash},
    {"aborts", aborts},
    {"overflow", overflow},
    {NULL, NULL},
};
