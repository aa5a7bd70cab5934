/* More memory than anybody gave. */
#define _GNU_SOURCE
#include "hostile.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (1L << 20)

static int touch(size_t bytes) {
    char *memory = malloc(bytes);
    if (!memory) return -1;
    for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
    __asm__ volatile("" ::"r"(memory) : "memory");
    return 0;
}

/* Up to 4 GiB; says how far it came when the kernel says no. */
static int malloc_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    long mib = 0;
    while (mib < 4096 && touch(16 * MIB) == 0) mib += 16;
    bounded("MiB in one process", mib, 0, 4095);
    return verdict();
}

/* Address space alone: nothing is touched, so only a limit on it says no. */
static int address_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    long gib = 0;
    while (gib < 4096 && mmap(NULL, 1024 * MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED)
        gib++;
    REFUSED("a mapping too many", gib < 4096 ? -1 : 0, ENOMEM);
    return verdict();
}

static int memory_bomb_shared_out(int argc, char **argv) {
    (void)argc, (void)argv;
    for (int i = 0; i < 20; i++)
        if (fork() == 0) {
            touch(100 * MIB);
            for (int n = 0; n < 600; n++) sleep(1);
            _exit(0);
        }
    for (int n = 0; n < 600; n++) sleep(1);
    return 0;
}

static int memfd_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    REFUSED("memfd_create", syscall(SYS_memfd_create, "x", 0), EPERM, ENOSYS);
    REFUSED("memfd_secret", syscall(447, 0), EPERM, ENOSYS);
    return verdict();
}

static int shm_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    REFUSED("shmget", shmget(IPC_PRIVATE, 64 * MIB, IPC_CREAT | 0600), EPERM);
    REFUSED("semget", syscall(SYS_semget, IPC_PRIVATE, 1, IPC_CREAT | 0600), EPERM);
    REFUSED("msgget", syscall(SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600), EPERM);
    REFUSED("mq_open", syscall(SYS_mq_open, "x", O_CREAT | O_RDWR, 0600, NULL), EPERM);
    return verdict();
}

/* Kernel memory behind descriptors. */
static int buffer_hoard(int argc, char **argv) {
    (void)argc, (void)argv;
    long pipes = 0, bytes = 0;
    static char block[64 << 10];
    int ends[2];
    for (; pipes < 4096 && pipe2(ends, O_NONBLOCK) == 0; pipes++) {
        fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
        for (ssize_t count; (count = write(ends[1], block, sizeof block)) > 0;) bytes += count;
    }
    if (pipes < 4096) REFUSED("a pipe too many", -1, EMFILE);
    bounded("pipes", pipes, 1, 128);
    bounded("MiB in them", bytes / MIB, 0, 128);
    return verdict();
}

static int socket_hoard(int argc, char **argv) {
    (void)argc, (void)argv;
    long pairs = 0, bytes = 0;
    static char block[64 << 10];
    int ends[2];
    for (; pairs < 4096 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0; pairs++)
        for (ssize_t count; (count = write(ends[0], block, sizeof block)) > 0;) bytes += count;
    if (pairs < 4096) REFUSED("a socket pair too many", -1, EMFILE);
    bounded("socket pairs", pairs, 1, 128);
    bounded("MiB in them", bytes / MIB, 0, 64);
    return verdict();
}

static long fill_socket_pairs(void) {
    long bytes = 0;
    static char block[64 << 10];
    int ends[2];
    for (long pairs = 0; pairs < 4096 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0; pairs++)
        for (ssize_t count; (count = write(ends[0], block, sizeof block)) > 0;) bytes += count;
    return bytes;
}

/* The limit on descriptors is each process's own. */
static int socket_hoard_shared_out(int argc, char **argv) {
    (void)argc, (void)argv;
    int told[2];
    if (pipe(told)) return 2;
    for (int i = 0; i < 20; i++)
        if (fork() == 0) {
            long bytes = fill_socket_pairs();
            if (write(told[1], &bytes, sizeof bytes) != sizeof bytes) _exit(2);
            for (int n = 0; n < 600; n++) sleep(1);
            _exit(0);
        }
    long all = 0, bytes;
    for (int i = 0; i < 20 && read(told[0], &bytes, sizeof bytes) == sizeof bytes; i++) all += bytes;
    bounded("MiB behind sockets of 20 processes", all / MIB, 1, 20 * 128 * (256L << 10) / MIB);
    return verdict();
}

static int descriptor_hoard(int argc, char **argv) {
    (void)argc, (void)argv;
    long open_now = 0;
    while (open_now < 100000 && dup(1) >= 0) open_now++;
    if (open_now < 100000) REFUSED("a descriptor too many", -1, EMFILE);
    bounded("descriptors", open_now, 1, 256);
    return verdict();
}

/* Pages of shared memory stay when they are taken out of the page table: resident nowhere, held all the same. */
static int hidden_bomb(int argc, char **argv) {
    (void)argc, (void)argv;
    long mib = 0;
    while (mib < 3072) {
        char *memory = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) break;
        for (long at = 0; at < 64 * MIB; at += 4096) {
            memory[at] = 1;
            if ((at & (MIB - 1)) == MIB - 4096) madvise(memory + (at & ~(MIB - 1)), MIB, MADV_DONTNEED);
        }
        mib += 64;
        printf("hidden MiB: %ld\n", mib);
        fflush(stdout);
    }
    return verdict();
}

const struct program memory[] = {
    {"malloc-bomb", malloc_bomb},
    {"address-bomb", address_bomb},
    {"memory-bomb-shared-out", memory_bomb_shared_out},
    {"memfd-bomb", memfd_bomb},
    {"shm-bomb", shm_bomb},
    {"buffer-hoard", buffer_hoard},
    {"socket-hoard", socket_hoard},
    {"socket-hoard-shared-out", socket_hoard_shared_out},
    {"descriptor-hoard", descriptor_hoard},
    {"hidden-bomb", hidden_bomb},
    {NULL, NULL},
};
