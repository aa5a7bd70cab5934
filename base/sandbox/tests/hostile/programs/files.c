/* Disks filled, links planted, places probed. */
#define _GNU_SOURCE
#include "hostile.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1L << 20)

static const char *const writable[] = {"/tmp", "/run", "/dev/shm", "/dev", "/"};
enum { WRITABLE = sizeof writable / sizeof *writable };

/* Many files, each below any limit on the size of one. */
static int disk_fill(int argc, char **argv) {
    (void)argc, (void)argv;
    static char block[MIB];
    memset(block, 1, sizeof block);
    long all = 0;
    for (int place = 0; place < WRITABLE; place++) {
        long mib = 0;
        int error = 0;
        for (int number = 0; number < 64 && !error; number++) {
            char path[64];
            snprintf(path, sizeof path, "%s/fill-%d", writable[place], number);
            int file = open(path, O_CREAT | O_WRONLY, 0600);
            if (file < 0) {
                error = errno;
                break;
            }
            for (int i = 0; i < 16 && !error; i++) {
                ssize_t count = write(file, block, sizeof block);
                if (count < (ssize_t)sizeof block) error = count < 0 ? errno : ENOSPC;
                else mib++;
            }
            close(file);
        }
        errno = error;
        REFUSED(writable[place], error ? -1 : 0, ENOSPC, EROFS, EACCES, EPERM, EDQUOT);
        bounded(writable[place], mib, 0, 64);
        all += mib;
    }
    bounded("MiB on all of them", all, 1, 3 * 64);
    return verdict();
}

static int inode_fill(int argc, char **argv) {
    (void)argc, (void)argv;
    long made = 0;
    int error = 0;
    for (; made < 2 * 1000 * 1000 && !error; made += !error) {
        char path[64];
        snprintf(path, sizeof path, "/tmp/%ld", made);
        int file = open(path, O_CREAT | O_WRONLY, 0600);
        if (file < 0) error = errno;
        else close(file);
    }
    errno = error;
    REFUSED("a file too many", error ? -1 : 0, ENOSPC);
    bounded("files", made, 1, 70 * 1000);
    return verdict();
}

static int deep_folders(int argc, char **argv) {
    (void)argc, (void)argv;
    long depth = 0;
    if (chdir("/tmp")) return 2;
    /* Landlock walks up to the root at every step: more would measure the patience of whoever waits for it. */
    while (depth < 4096 && mkdir("d", 0700) == 0 && chdir("d") == 0) depth++;
    bounded("folders in each other", depth, 1, 4096);
    return verdict();
}

static int sparse_ignored(int argc, char **argv) {
    (void)argc, (void)argv;
    signal(SIGXFSZ, SIG_IGN);
    int file = open("/tmp/sparse", O_CREAT | O_RDWR, 0600);
    REFUSED("ftruncate to 1 TiB", ftruncate(file, 1L << 40), EFBIG, ENOSPC);
    REFUSED("write at 1 TiB", pwrite(file, "x", 1, 1L << 40), EFBIG, ENOSPC);
    REFUSED("fallocate 1 TiB", fallocate(file, 0, 0, 1L << 40), EPERM, EFBIG, ENOSPC);
    return verdict();
}

static int sparse(int argc, char **argv) {
    (void)argc, (void)argv;
    int file = open("/tmp/sparse", O_CREAT | O_RDWR, 0600);
    if (ftruncate(file, 1L << 40) == 0) return 1;
    return 2;
}

struct entry {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], kind, link[100], magic[8], rest[247];
};
_Static_assert(sizeof(struct entry) == 512, "a tar header is a block");

static void put_entry(int tar, const char *name, char kind, const char *link, long size) {
    struct entry entry;
    memset(&entry, 0, sizeof entry);
    snprintf(entry.name, sizeof entry.name, "%s", name);
    snprintf(entry.link, sizeof entry.link, "%s", link);
    snprintf(entry.mode, sizeof entry.mode, "%07o", 0777);
    snprintf(entry.uid, sizeof entry.uid, "%07o", 0);
    snprintf(entry.gid, sizeof entry.gid, "%07o", 0);
    snprintf(entry.size, sizeof entry.size, "%011lo", size);
    snprintf(entry.mtime, sizeof entry.mtime, "%011o", 0);
    memcpy(entry.magic, "ustar\00000", 8);
    entry.kind = kind;
    memset(entry.sum, ' ', sizeof entry.sum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof entry; i++) sum += ((unsigned char *)&entry)[i];
    snprintf(entry.sum, sizeof entry.sum, "%06o", sum);
    if (write(tar, &entry, sizeof entry) != sizeof entry) exit(3);
    static char block[512];
    for (long left = size; left > 0; left -= 512)
        if (write(tar, block, sizeof block) != sizeof block) exit(3);
}

/* An archive that climbs out, then one that fills the disk. Argument: a path outside that must not come to be; in the
 * box there may be one of the same name. */
static int archives(int argc, char **argv) {
    const char *outside = argc > 1 ? argv[1] : "/escaped";
    char climbing[90];
    snprintf(climbing, sizeof climbing, "../../../../../../../..%s", outside);
    int tar = open("/tmp/evil.tar", O_CREAT | O_WRONLY, 0600);
    put_entry(tar, climbing, '0', "", 512);
    put_entry(tar, "/usr/escaped", '0', "", 512);
    put_entry(tar, "way-out", '2', "/usr", 0);
    put_entry(tar, "way-out/escaped", '0', "", 512);
    put_entry(tar, "hard", '1', "/etc/passwd", 0);
    put_entry(tar, "inside", '0', "", 512);
    close(tar);
    /* With -P nothing is cleaned: what is refused, the box refuses. */
    if (system("mkdir /tmp/out && cd /tmp/out && tar -xPf /tmp/evil.tar 2>/dev/null") == -1) return 2;
    REFUSED("an absolute entry", access("/usr/escaped", F_OK), ENOENT);
    bounded("the harmless entry", access("/tmp/out/inside", F_OK), 0, 0);
    int status = system("head -c 1000000000 /dev/zero | gzip -1 | gunzip >/tmp/bomb 2>/dev/null");
    struct stat bomb;
    if (stat("/tmp/bomb", &bomb)) return 2;
    bounded("a gzip bomb's status", status != 0, 1, 1);
    bounded("MiB of it", bomb.st_size / MIB, 0, 64);
    return verdict();
}

/* Names a careless runner would open. */
static int planted_links(int argc, char **argv) {
    const char *names[] = {"exit.json", "state.json", "result", "stdout", "log", "run.sh", "script", "box.stdin"};
    const char *target = argc > 1 ? argv[1] : "/escaped";
    for (int place = 0; place < WRITABLE; place++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            char path[64];
            snprintf(path, sizeof path, "%s/%s", writable[place], names[i]);
            if (symlink(target, path) == 0) printf("planted %s\n", path);
        }
    REFUSED("hard link to a file of the machine", link("/etc/passwd", "/tmp/passwd"), EXDEV, EPERM, EROFS, EACCES);
    return verdict() ? 1 : 7;
}

static void probe(const char *path) {
    int file = open(path, O_RDONLY | O_NONBLOCK);
    char byte;
    /* A file that opens and gives nothing gave nothing. */
    long got = file < 0 ? -1 : read(file, &byte, 1);
    if (file >= 0 && got == 0) errno = ENODATA, got = -1;
    REFUSED(path, got, EACCES, ENOENT, EPERM, ESRCH, EIO, ENODATA, ENOTDIR);
    if (file >= 0) close(file);
}

static int probes(int argc, char **argv) {
    (void)argc, (void)argv;
    const char *const paths[] = {
        "/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/auxv", "/proc/1/exe", "/proc/1/root/etc/passwd",
        "/proc/1/cwd/etc/passwd", "/proc/1/fd/0", "/proc/1/fd/3", "/proc/1/ns/net", "/proc/1/syscall",
        "/proc/1/stack", "/proc/1/io", "/proc/kallsyms", "/proc/kcore", "/proc/kmsg", "/proc/loadavg",
        "/proc/meminfo", "/proc/pressure/cpu", "/proc/pressure/memory", "/proc/net/tcp", "/proc/sys/kernel/version",
        "/proc/sysrq-trigger", "/proc/config.gz", "/proc/modules", "/proc/cmdline", "/proc/keys", "/proc/timer_list",
        "/proc/cgroups", "/proc/partitions", "/proc/stat", "/proc/uptime", "/proc/interrupts", "/proc/iomem",
        "/sys/kernel/notes", "/sys/class/net/lo/address", "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/vmcoreinfo",
        "/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/sda", "/dev/vda",
        "/dev/input/event0", "/etc/shadow", "/etc/gshadow", "/root/.bashrc", "/home", "/var/log/syslog", "/boot/grub",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) probe(paths[i]);
    char link[256];
    REFUSED("readlink /proc/1/exe", readlink("/proc/1/exe", link, sizeof link), EACCES, EPERM);
    REFUSED("readlink /proc/1/root", readlink("/proc/1/root", link, sizeof link), EACCES, EPERM);
    /* Nothing of ours is open in a program but its three streams. */
    long open_now = 0;
    for (int fd = 3; fd < 4096; fd++) open_now += fcntl(fd, F_GETFD) >= 0;
    bounded("descriptors from outside", open_now, 0, 0);
    return verdict();
}

static void try_write(const char *path) {
    int file = open(path, O_WRONLY);
    REFUSED(path, file, EACCES, ENOENT, EROFS, EPERM, ETXTBSY, ENOTDIR);
    if (file >= 0) close(file);
}

static int writes(int argc, char **argv) {
    (void)argc, (void)argv;
    const char *const paths[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
        "/proc/sys/user/max_user_namespaces", "/proc/sysrq-trigger", "/proc/self/exe", "/proc/1/oom_score_adj",
        "/proc/1/mem", "/usr/bin/true", "/bin/sh", "/etc/passwd", "/etc/ld.so.preload", "/programs/hostile",
        "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs", "/dev/mem",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) try_write(paths[i]);
    const char *const new_files[] = {"/usr/x", "/etc/x", "/bin/x", "/x", "/proc/x", "/programs/x", "/etc/cron.d/x"};
    for (size_t i = 0; i < sizeof new_files / sizeof *new_files; i++)
        REFUSED(new_files[i], open(new_files[i], O_CREAT | O_WRONLY, 0600), EACCES, ENOENT, EROFS, EPERM, ENOTDIR);
    REFUSED("unlink /usr/bin/true", unlink("/usr/bin/true"), EACCES, EROFS, EPERM, EXDEV);
    REFUSED("rename /etc/passwd", rename("/etc/passwd", "/etc/x"), EACCES, EROFS, EPERM, EXDEV);
    REFUSED("chmod /usr/bin/true", chmod("/usr/bin/true", 04777), EROFS, EPERM);
    REFUSED("chown /programs/hostile", chown("/programs/hostile", 0, 0), EROFS, EPERM);
    int score = open("/proc/self/oom_score_adj", O_WRONLY);
    if (score >= 0) REFUSED("lower the own oom score", write(score, "-1000", 5), EACCES, EPERM);
    return verdict();
}

const struct program files[] = {
    {"disk-fill", disk_fill},
    {"inode-fill", inode_fill},
    {"deep-folders", deep_folders},
    {"sparse", sparse},
    {"sparse-ignored", sparse_ignored},
    {"archives", archives},
    {"planted-links", planted_links},
    {"probes", probes},
    {"writes", writes},
    {NULL, NULL},
};
