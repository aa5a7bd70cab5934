/* Doors of the kernel that are shut. */
#define _GNU_SOURCE
#include "hostile.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Numbers that older headers do not know; the same on every processor since 5.1. */
enum {
    IO_URING_SETUP = 425, OPEN_TREE = 428, MOVE_MOUNT = 429, FSOPEN = 430, PIDFD_OPEN = 434, CLONE3 = 435,
    PIDFD_GETFD = 438, MOUNT_SETATTR = 442,
};

static int looks_into_others(int argc, char **argv) {
    (void)argc, (void)argv;
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    REFUSED("ptrace process 1", ptrace(PTRACE_SEIZE, 1, 0, 0), EPERM);
    REFUSED("process_vm_readv", process_vm_readv(1, &here, 1, &there, 1, 0), EPERM);
    REFUSED("process_vm_writev", process_vm_writev(1, &here, 1, &there, 1, 0), EPERM);
    int pidfd = (int)syscall(PIDFD_OPEN, 1, 0);
    for (int fd = 0; fd < 8; fd++) REFUSED("pidfd_getfd", syscall(PIDFD_GETFD, pidfd, fd, 0), EPERM);
    REFUSED("kcmp", syscall(SYS_kcmp, 1, getpid(), 0, 0, 0), EPERM);
    REFUSED("open_by_handle_at", syscall(SYS_open_by_handle_at, 0, NULL, 0), EPERM);
    /* A child of our own either: a debugger in the box would see what the filter lets through. */
    REFUSED("PTRACE_TRACEME", ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM);
    return verdict();
}

static int mounts(int argc, char **argv) {
    (void)argc, (void)argv;
    REFUSED("mount ramfs", mount("x", "/tmp", "ramfs", 0, NULL), EPERM);
    REFUSED("mount tmpfs", mount("x", "/tmp", "tmpfs", 0, NULL), EPERM);
    REFUSED("mount proc", mount("x", "/tmp", "proc", 0, NULL), EPERM);
    REFUSED("bind /", mount("/", "/tmp", NULL, MS_BIND, NULL), EPERM);
    REFUSED("remount / writable", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL), EPERM);
    REFUSED("umount /proc", umount2("/proc", MNT_DETACH), EPERM);
    REFUSED("umount /dev/null", umount2("/dev/null", MNT_DETACH), EPERM);
    REFUSED("pivot_root", syscall(SYS_pivot_root, ".", "."), EPERM);
    REFUSED("chroot", chroot("/tmp"), EPERM);
    REFUSED("open_tree", syscall(OPEN_TREE, AT_FDCWD, "/", 1), EPERM);
    REFUSED("move_mount", syscall(MOVE_MOUNT, AT_FDCWD, "/proc", AT_FDCWD, "/tmp", 0), EPERM);
    REFUSED("fsopen", syscall(FSOPEN, "tmpfs", 0), EPERM);
    REFUSED("mount_setattr", syscall(MOUNT_SETATTR, AT_FDCWD, "/", 0, NULL, 0), EPERM);
    REFUSED("mknod the disk", mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)), EPERM);
    REFUSED("mknod /dev/mem", mknodat(AT_FDCWD, "/tmp/mem", S_IFCHR | 0600, makedev(1, 1)), EPERM);
    REFUSED("sethostname", sethostname("x", 1), EPERM);
    REFUSED("swapon", syscall(SYS_swapon, "/tmp/x", 0), EPERM);
    REFUSED("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0), EPERM);
    return verdict();
}

static int nothing(void *unused) {
    (void)unused;
    return 0;
}

static int namespaces(int argc, char **argv) {
    (void)argc, (void)argv;
    static char stack[64 << 10] __attribute__((aligned(16)));
    const int kinds[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        REFUSED("unshare", unshare(kinds[i]), EPERM);
        REFUSED("clone", clone(nothing, stack + sizeof stack, kinds[i] | SIGCHLD, NULL), EPERM, ENOSPC);
        REFUSED("clone with a user namespace", clone(nothing, stack + sizeof stack, CLONE_NEWUSER | kinds[i] | SIGCHLD, NULL), EPERM);
    }
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(CLONE3, &arguments, sizeof arguments);
    if (child == 0) _exit(0);
    REFUSED("clone3", child, ENOSYS);
    int own = open("/proc/self/ns/user", O_RDONLY);
    REFUSED("setns", setns(own, 0), EPERM);
    int pidfd = (int)syscall(PIDFD_OPEN, 1, 0);
    REFUSED("setns by pidfd", setns(pidfd, CLONE_NEWNET), EPERM);
    return verdict();
}

static int families(int argc, char **argv) {
    (void)argc, (void)argv;
    for (int family = 0; family < 64; family++) {
        if (family == AF_UNIX || family == AF_INET || family == AF_INET6) continue;
        char what[32];
        snprintf(what, sizeof what, "socket family %d", family);
        REFUSED(what, socket(family, SOCK_RAW, 0), EPERM);
        REFUSED(what, socket(family, SOCK_DGRAM, 0), EPERM);
        REFUSED(what, socket(family, SOCK_SEQPACKET, 0), EPERM);
        int pair[2];
        snprintf(what, sizeof what, "socketpair family %d", family);
        REFUSED(what, socketpair(family, SOCK_DGRAM, 0, pair), EPERM);
    }
    REFUSED("raw IPv4", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
    REFUSED("raw IPv6", socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), EPERM);
    return verdict();
}

/* Arguments: the name of an abstract socket somebody outside listens on. */
static int abstract_socket(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc < 2) return 2;
    size_t length = strlen(argv[1]);
    memcpy(address.sun_path + 1, argv[1], length);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    REFUSED("an abstract socket of the machine", connect(client, (void *)&address, size), ECONNREFUSED, EPERM);
    return verdict();
}

static void try_connect(const char *host, int port, int kind) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    int client = socket(AF_INET, kind, 0);
    REFUSED(host, connect(client, (void *)&address, sizeof address), ENETUNREACH, ECONNREFUSED, EHOSTUNREACH);
    close(client);
}

/* Argument: a port somebody on the machine's loopback listens on. */
static int connects(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 80;
    const char *const hosts[] = {"127.0.0.1", "1.1.1.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.17.0.1", "100.64.0.1"};
    const int ports[] = {port, 22, 53, 80, 443, 2379, 6443, 7700, 10250};
    for (size_t h = 0; h < sizeof hosts / sizeof *hosts; h++)
        for (size_t p = 0; p < sizeof ports / sizeof *ports; p++) try_connect(hosts[h], ports[p], SOCK_STREAM);
    for (size_t h = 1; h < sizeof hosts / sizeof *hosts; h++) try_connect(hosts[h], 53, SOCK_DGRAM);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
    inet_pton(AF_INET6, "2606:4700:4700::1111", &six.sin6_addr);
    int client = socket(AF_INET6, SOCK_STREAM, 0);
    REFUSED("IPv6", client < 0 ? -1 : connect(client, (void *)&six, sizeof six), ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT);
    return verdict();
}

static int calls(int argc, char **argv) {
    (void)argc, (void)argv;
    static const struct { const char *name; long number; } shut[] = {
        {"io_uring_setup", IO_URING_SETUP}, {"io_uring_enter", 426}, {"io_uring_register", 427},
        {"userfaultfd", SYS_userfaultfd}, {"bpf", SYS_bpf}, {"keyctl", SYS_keyctl}, {"add_key", SYS_add_key},
        {"request_key", SYS_request_key}, {"perf_event_open", SYS_perf_event_open}, {"syslog", SYS_syslog},
        {"kexec_load", SYS_kexec_load}, {"init_module", SYS_init_module}, {"finit_module", SYS_finit_module},
        {"delete_module", SYS_delete_module}, {"acct", SYS_acct}, {"quotactl", SYS_quotactl},
        {"settimeofday", SYS_settimeofday}, {"clock_settime", SYS_clock_settime}, {"adjtimex", SYS_clock_adjtime},
        {"name_to_handle_at", SYS_name_to_handle_at}, {"fanotify_init", SYS_fanotify_init},
        {"mlockall", SYS_mlockall}, {"vmsplice", SYS_vmsplice}, {"mbind", SYS_mbind}, {"move_pages", SYS_move_pages},
#ifdef __x86_64__
        {"iopl", SYS_iopl}, {"ioperm", SYS_ioperm}, {"modify_ldt", SYS_modify_ldt}, {"uselib", SYS_uselib},
#endif
    };
    for (size_t i = 0; i < sizeof shut / sizeof *shut; i++)
        REFUSED(shut[i].name, syscall(shut[i].number, 1, 0, 0, 0, 0, 0), EPERM, ENOSYS);
    REFUSED("personality", personality(ADDR_NO_RANDOMIZE), EPERM);
    int terminal = open("/dev/tty", O_RDWR);
    REFUSED("TIOCSTI", ioctl(terminal < 0 ? 0 : terminal, TIOCSTI, "x"), EPERM);
    /* A request is 32 bits wide: what is above them must not get it past a filter. */
    REFUSED("TIOCSTI in disguise", syscall(SYS_ioctl, 0, TIOCSTI | 1UL << 32, "x"), EPERM);
    REFUSED("clone in disguise", syscall(SYS_clone, (unsigned long)CLONE_NEWUSER | 1UL << 63, 0, 0, 0, 0), EPERM, EINVAL);
    REFUSED("regain privileges", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    REFUSED("a capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0), EPERM, EINVAL);
    REFUSED("setuid", setuid(12345), EPERM, EINVAL);
    REFUSED("setgid", setgid(12345), EPERM, EINVAL);
#ifdef __x86_64__
    /* The third way to number a call: the same kernel entry, other numbers. */
    REFUSED("an x32 call", syscall(0x40000000 | SYS_getpid), ENOSYS, EPERM);
    REFUSED("an x32 ptrace", syscall(0x40000000 | 521, 16, 1, 0, 0), ENOSYS, EPERM);
    REFUSED("an x32 unshare", syscall(0x40000000 | SYS_unshare, CLONE_NEWUSER), ENOSYS, EPERM);
#endif
    return verdict();
}

/* System calls of 32-bit programs go by other numbers than the filter's. */
static int other_architecture(int argc, char **argv) {
    (void)argc, (void)argv;
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
    printf("ALLOWED int 0x80: %ld\n", result);
    return 1;
#else
    /* No such door on this processor; the same end. */
    raise(SIGSYS);
    return 1;
#endif
}

/* What is not shut, and documented: clocks as fine as the processor's, and locks on files two boxes share. */
static int side_channels(int argc, char **argv) {
    (void)argc, (void)argv;
    const char *const shut[] = {"/proc/pressure/cpu", "/proc/loadavg", "/proc/stat", "/proc/interrupts", "/sys/devices"};
    for (size_t i = 0; i < sizeof shut / sizeof *shut; i++) REFUSED(shut[i], access(shut[i], F_OK), ENOENT);
#ifdef __x86_64__
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    printf("open: rdtsc\n");
#endif
    int shared = open("/usr/bin/env", O_RDONLY);
    struct flock lock = {.l_type = F_RDLCK};
    if (shared >= 0 && fcntl(shared, F_SETLK, &lock) == 0) printf("open: locks on files of the root\n");
    return verdict();
}

const struct program kernel[] = {
    {"looks-into-others", looks_into_others},
    {"mounts", mounts},
    {"namespaces", namespaces},
    {"families", families},
    {"abstract-socket", abstract_socket},
    {"connects", connects},
    {"calls", calls},
    {"other-architecture", other_architecture},
    {"side-channels", side_channels},
    {NULL, NULL},
};
