/* Too many, too long, too stubborn. */
#define _GNU_SOURCE
#include "hostile.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MANY = 20000, CHILDREN_MOST = 64 };

static int fork_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    long made = 0;
    for (; made < MANY; made++) {
        pid_t child = fork();
        if (child == 0) {
            pause();
            _exit(0);
        }
        if (child < 0) break;
    }
    if (made < MANY && errno != EAGAIN) REFUSED("fork", -1, EAGAIN);
    bounded("children", made, 1, CHILDREN_MOST);
    return verdict();
}

/* Bounded all the same: each process gives up after so many forks. */
static int fork_bomb_endless(int argc, char **argv) {
    (void)argc, (void)argv;
    signal(SIGCHLD, SIG_IGN);
    for (long tries = 0; tries < 50 * 1000 * 1000; tries++)
        if (fork() < 0) sched_yield();
    return 0;
}

static void *wait_for_ever(void *nothing) {
    pause();
    return nothing;
}

static int thread_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    long made = 0;
    int error = 0;
    for (; made < MANY && !error; made += !error) {
        pthread_t thread;
        error = pthread_create(&thread, &small, wait_for_ever, NULL);
    }
    errno = error;
    REFUSED("a thread too many", error ? -1 : 0, EAGAIN);
    bounded("threads", made, 1, CHILDREN_MOST);
    return verdict();
}

/* Argument: a process id of the machine outside. */
static int kills(int argc, char **argv) {
    if (argc > 1) REFUSED("kill a process of the machine", kill(atoi(argv[1]), SIGKILL), ESRCH);
    kill(1, SIGKILL);
    kill(1, SIGSTOP);
    kill(1, SIGTERM);
    signal(SIGUSR1, SIG_IGN);
    pid_t child = fork();
    if (child == 0) {
        /* All in the box but the sender and process 1. */
        kill(-1, SIGUSR1);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    bounded("the box after kill(-1) and kill(1)", status, 0, 0);
    return verdict();
}

static int daemon_left_behind(int argc, char **argv) {
    (void)argc, (void)argv;
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            setsid();
            if (fork() > 0) _exit(0);
            for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
            for (;;) pause();
        }
        waitpid(child, NULL, 0);
    }
    return 0;
}

static int stubborn(int argc, char **argv) {
    (void)argc, (void)argv;
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < 600; i++) sleep(1);
    return 0;
}

static void spin(void) {
    for (volatile unsigned long i = 0; i < 1UL << 40; i++) {}
}

static int spin_everywhere(int argc, char **argv) {
    (void)argc, (void)argv;
    cpu_set_t every;
    memset(&every, 0xff, sizeof every);
    REFUSED("sched_setaffinity", sched_setaffinity(0, sizeof every, &every), EPERM);
    REFUSED("nice -20", setpriority(PRIO_PROCESS, 0, -20), EPERM, EACCES);
    struct sched_param real = {.sched_priority = 99};
    REFUSED("SCHED_FIFO", sched_setscheduler(0, SCHED_FIFO, &real), EPERM);
    if (verdict()) return 1;
    for (int i = 0; i < 4; i++)
        if (fork() == 0) spin();
    spin();
    return 0;
}

/* Processor time of children nobody waits for is in nobody's account. */
static int spin_unaccounted(int argc, char **argv) {
    (void)argc, (void)argv;
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 100 * 1000; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (volatile long n = 0; n < 2 * 1000 * 1000; n++) {}
            _exit(0);
        }
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
    }
    return 0;
}

static int sleeps(int argc, char **argv) {
    (void)argc, (void)argv;
    if (write(1, "asleep\n", 7) != 7) return 1;
    for (int i = 0; i < 600; i++) sleep(1);
    return 0;
}

const struct program processes[] = {
    {"fork-bomb", fork_bomb},
    {"fork-bomb-endless", fork_bomb_endless},
    {"thread-bomb", thread_bomb},
    {"kills", kills},
    {"daemon-left-behind", daemon_left_behind},
    {"stubborn", stubborn},
    {"spin-everywhere", spin_everywhere},
    {"spin-unaccounted", spin_unaccounted},
    {"sleeps", sleeps},
    {NULL, NULL},
};
