/* For boxes that are used again: what a program finds, and what one may try to leave for the next. */
#define _GNU_SOURCE
#include "hostile.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *const rooms[] = {"/tmp", "/run", "/dev/shm", "/box"};
#define ROOMS (sizeof rooms / sizeof *rooms)

static int entry(const char *path, const struct stat *stat, int kind, struct FTW *place) {
    char names[4096];
    ssize_t length = listxattr(path, names, sizeof names);
    int flags = 0, fd = S_ISDIR(stat->st_mode) ? open(path, O_RDONLY) : -1;
    if (fd >= 0) ioctl(fd, FS_IOC_GETFLAGS, &flags), close(fd);
    printf("%s mode %o owner %d:%d size %ld marks %zd flags %x\n", path, stat->st_mode, stat->st_uid, stat->st_gid,
           S_ISDIR(stat->st_mode) ? 0 : (long)stat->st_size, length, flags);
    return 0;
}

static void file(const char *path) {
    char line[4096];
    FILE *file = fopen(path, "r");
    printf("%s: %s\n", path, file ? "" : strerror(errno));
    while (file && fgets(line, sizeof line, file)) {
        /* Memory of all of the machine, and what counts up by itself. */
        if (strstr(path, "sockstat")) {
            char *memory = strstr(line, " alloc");
            memory = memory ? memory : strstr(line, " mem");
            if (memory) strcpy(memory, "\n");
            char *orphans = strstr(line, " orphan "), *after = strstr(line, " tw ");
            if (orphans && after) memmove(orphans, after, strlen(after) + 1);
        }
        if (strstr(path, "status") && !(strstr(line, "id:") || strstr(line, "Groups") || strstr(line, "Cap") ||
                                         strstr(line, "Sig") || strstr(line, "Shd") || strstr(line, "Priv") ||
                                         strstr(line, "Sec") || strstr(line, "allowed") || strstr(line, "Umask")))
            continue;
        /* Numbers of processes go on, and the kernel counts its own sockets for a while. */
        static const char *const left_out[] = {"Pid:", "Tgid:", "Ngid:", "NStgid:", "NSpid:", "NSpgid:", "sockets:"};
        int left = 0;
        for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
            left |= !strncmp(line, left_out[i], strlen(left_out[i]));
        if (left) continue;
        char *rest = line;
        if (strstr(path, "mountinfo")) {
            /* Numbers of mounts and of file systems are the machine's. */
            for (int field = 0; field < 3 && (rest = strchr(rest, ' ')); field++) rest++;
        }
        /* So is that of a session's group. */
        if (strstr(path, "autogroup")) rest = strstr(line, "nice");
        printf("  %s", rest ? rest : line);
    }
    if (file) fclose(file);
}

static void standing(pid_t pid) {
    for (int which = 0; which < 16; which++) {
        struct rlimit limit = {0, 0};
        int result = prlimit(pid, which, NULL, &limit);
        printf("%d limit %d: %d %lu %lu\n", pid, which, result, limit.rlim_cur, limit.rlim_max);
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    int result = sched_getaffinity(pid, sizeof set, &set);
    printf("%d processors %d %d\n", pid, result, CPU_COUNT(&set));
    printf("%d nice %d scheduler %d disk %ld\n", pid, getpriority(PRIO_PROCESS, pid), sched_getscheduler(pid),
           syscall(SYS_ioprio_get, 1, pid));
}

/* All that can be seen of a box. Two that were never used say the same. */
static int look(int argc, char **argv) {
    for (size_t i = 0; i < ROOMS; i++) {
        struct statfs room;
        nftw(rooms[i], entry, 16, FTW_PHYS);
        /* What is not in memory is the machine's disk, which changes. */
        if (statfs(rooms[i], &room) == 0 && room.f_type == TMPFS_MAGIC)
            printf("%s: %lu of %lu blocks, %lu of %lu files\n", rooms[i], (unsigned long)room.f_bfree,
                   (unsigned long)room.f_blocks, (unsigned long)room.f_ffree, (unsigned long)room.f_files);
    }
    nftw("/dev", entry, 16, FTW_PHYS);
    const char *const told[] = {
        "/proc/self/status", "/proc/self/mountinfo", "/proc/self/net/unix", "/proc/self/net/tcp", "/proc/self/net/udp",
        "/proc/self/net/tcp6", "/proc/self/net/sockstat", "/proc/self/net/sockstat6", "/proc/self/net/ip6_flowlabel", "/proc/self/autogroup", "/proc/self/oom_score_adj",
        "/proc/self/cgroup", "/proc/self/limits", "/proc/locks",
    };
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) file(told[i]);
    standing(0);
    standing(1);
    int processes = 0;
    DIR *all = opendir("/proc");
    for (struct dirent *one; all && (one = readdir(all));) processes += one->d_name[0] >= '0' && one->d_name[0] <= '9';
    if (all) closedir(all);
    char name[256] = "";
    gethostname(name, sizeof name);
    printf("processes %d session %d host %s umask %o\n", processes, getsid(0), name, umask(0));
    for (int fd = 0; fd < 64; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("descriptor %d\n", fd);
    for (char **variable = environ; *variable; variable++) puts(*variable);
    /* Names and ports that somebody else holds. */
    for (int kind = 0; kind < 2; kind++) {
        struct sockaddr_un name = {AF_UNIX, "\0kept"};
        struct sockaddr_in port = {AF_INET, htons(4711), {htonl(INADDR_LOOPBACK)}};
        int one = socket(AF_UNIX, kind ? SOCK_STREAM : SOCK_DGRAM, 0), other = socket(AF_INET, kind ? SOCK_STREAM : SOCK_DGRAM, 0);
        printf("name %d", bind(one, (void *)&name, sizeof name));
        printf(" port %d\n", bind(other, (void *)&port, sizeof port));
        close(one), close(other);
    }
    return 0;
}

static void write_file(const char *path, size_t bytes) {
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    char block[4096];
    memset(block, 'x', sizeof block);
    for (size_t done = 0; fd >= 0 && done < bytes; done += sizeof block)
        if (write(fd, block, sizeof block) < 0) break;
    close(fd);
}

static int connection(int lingers) {
    struct sockaddr_in at = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (void *)&at, sizeof at);
    listen(listener, 1);
    getsockname(listener, (void *)&at, &length);
    if (connect(client, (void *)&at, sizeof at)) return 1;
    int server = accept(listener, NULL, NULL);
    /* Who closes first has the connection linger. */
    if (lingers) close(client), close(server);
    return 0;
}

/* What the kernel remembers of IPv6 for minutes. */
static int label(void) {
    /* struct in6_flowlabel_req, whose header does not go with others. */
    struct { struct in6_addr to; unsigned label; unsigned char action, share; unsigned short flags, expires, linger; unsigned pad; } wanted = {
        IN6ADDR_LOOPBACK_INIT, htonl(0x12345), 0, 255, 1, 60, 60, 0};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    if (fd < 0) return 0;
    setsockopt(fd, IPPROTO_IPV6, 32, &wanted, sizeof wanted);
    return close(fd);
}

/* A name that lives on in a ring of sockets which only the kernel's own cleaning finds. */
static void ring(void) {
    struct sockaddr_un name = {AF_UNIX, "\0kept"};
    int named = socket(AF_UNIX, SOCK_DGRAM, 0), pair[2];
    bind(named, (void *)&name, sizeof name);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    int sent[3] = {pair[0], pair[1], named};
    char space[CMSG_SPACE(sizeof sent)] = {0}, byte = 0;
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET, rights->cmsg_type = SCM_RIGHTS, rights->cmsg_len = CMSG_LEN(sizeof sent);
    memcpy(CMSG_DATA(rights), sent, sizeof sent);
    sendmsg(pair[0], &message, 0);
}

/* Lives on, writes when its parent is long dead. */
static void daemon_that_writes(void) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            close(0), close(1), close(2);
            for (int i = 0; i < 1000; i++) {
                char name[64];
                snprintf(name, sizeof name, "/tmp/late-%d", i);
                write_file(name, 1);
                usleep(1000);
            }
        }
        _exit(0);
    }
    usleep(2000);
}

static int leave(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    struct rlimit limit = {16, 16};
    struct sched_param none = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    char name[64];
    if (!strcmp(what, "nothing")) return 0;
    if (!strcmp(what, "files")) {
        mkdir("/tmp/a", 0700), mkdir("/tmp/a/b", 0755), write_file("/tmp/a/b/c", 100000), write_file("/dev/shm/x", 10);
        symlink("/tmp", "/tmp/a/link"), mkfifo("/run/pipe", 0600), link("/dev/shm/x", "/dev/shm/y");
    } else if (!strcmp(what, "names")) {
        for (int i = 0; i < 1000; i++) snprintf(name, sizeof name, "/tmp/%d", i), write_file(name, 0);
    } else if (!strcmp(what, "bytes")) {
        write_file("/tmp/large", 20 << 20);
    } else if (!strcmp(what, "deep")) {
        for (int i = 0; i < 100; i++) mkdir("/tmp/d", 0700), chdir("/tmp/d"), mkdir("d", 0700), chdir("d");
        chdir("/tmp");
        for (int i = 0; i < 40; i++) mkdir("d", 0700), chdir("d");
    } else if (!strcmp(what, "closed")) {
        mkdir("/tmp/closed", 0700), write_file("/tmp/closed/x", 1), chmod("/tmp/closed", 0);
    } else if (!strcmp(what, "mode")) {
        return chmod("/tmp", 0700);
    } else if (!strcmp(what, "mark")) {
        return setxattr("/tmp", "user.kept", "x", 1, 0) < 0 && errno != ENOTSUP;
    } else if (!strcmp(what, "flag")) {
        int fd = open("/tmp", O_RDONLY), flags = FS_NODUMP_FL;
        /* Kernels before 6.6 have none in memory. */
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    } else if (!strcmp(what, "limit")) {
        REFUSED("limits of process 1", prlimit(1, RLIMIT_NOFILE, &limit, NULL), EPERM);
        return verdict();
    } else if (!strcmp(what, "nice")) {
        return setpriority(PRIO_PROCESS, 1, 19);
    } else if (!strcmp(what, "idle")) {
        REFUSED("the scheduling of process 1", sched_setscheduler(1, SCHED_IDLE, &none), EPERM);
        return verdict();
    } else if (!strcmp(what, "processor")) {
        /* Refused as yet. */
        sched_setaffinity(1, sizeof one, &one);
    } else if (!strcmp(what, "disk")) {
        return (int)syscall(SYS_ioprio_set, 1, 1, 3 << 13);
    } else if (!strcmp(what, "autogroup")) {
        int fd = open("/proc/self/autogroup", O_WRONLY);
        if (fd >= 0) REFUSED("the niceness of the session", write(fd, "19", 2), EACCES, EPERM, EROFS);
        return verdict();
    } else if (!strcmp(what, "terminals")) {
        REFUSED("the mode of ptmx", chmod("/dev/pts/ptmx", 0), EACCES, EPERM, EROFS);
        return verdict();
    } else if (!strcmp(what, "label")) {
        return label();
    } else if (!strcmp(what, "connection")) {
        return connection(0);
    } else if (!strcmp(what, "lingers")) {
        return connection(1);
    } else if (!strcmp(what, "ring")) {
        ring();
    } else if (!strcmp(what, "daemon")) {
        daemon_that_writes();
    } else if (!strcmp(what, "lock")) {
        int fd = open("/bin/sh", O_RDONLY);
        struct flock lock = {.l_type = F_RDLCK};
        fcntl(fd, F_OFD_SETLK, &lock);
    } else if (!strcmp(what, "memory")) {
        size_t bytes = 64 << 20;
        char *taken = malloc(bytes);
        memset(taken, 1, bytes);
        return taken[bytes / 2] != 1;
    } else {
        return 102;
    }
    return 0;
}

const struct program again[] = {{"look", look}, {"leave", leave}, {NULL, NULL}};
