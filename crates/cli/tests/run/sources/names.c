// For each line of a file, a name: what all calls answer that name files. The first argument is a folder that relative
// names begin in, by its descriptor, the second the file; with a third one, files are made.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct how {
    uint64_t flags, mode, resolve;
};

static void say(const char *what, long answer) {
    printf(" %s=%s", what, answer < 0 ? strerrorname_np(errno) : "ok");
}

static void told(const char *what, long answer, const struct stat *file) {
    if (answer < 0)
        say(what, answer);
    else
        printf(" %s=%o:%lu", what, file->st_mode, (unsigned long)file->st_ino);
}

// What was opened, and what the descriptor can be used for; without the flags that say how the name was looked at, and
// that files may be long.
static void opened(const char *what, int file) {
    struct stat stat;
    char byte[2] = "";
    if (file < 0) {
        say(what, file);
        return;
    }
    told(what, fstat(file, &stat), &stat);
    long count = read(file, byte, 1);
    printf("/%s%o", count < 0 ? strerrorname_np(errno) : byte, fcntl(file, F_GETFL) & ~0500000);
    close(file);
}

// Files that are made have other numbers each time.
static void made(const char *what, int file) {
    struct stat stat;
    if (file < 0 || fstat(file, &stat) < 0) {
        say(what, -1);
        return;
    }
    printf(" %s=%o:%ld", what, stat.st_mode, (long)stat.st_size);
    close(file);
}

static void ask(int folder, const char *name) {
    static const uint64_t ways[] = {1, 2, 4, 8, 16, 0x40, 8 | 16};
    struct stat stat;
    struct statx x;
    char link[5000];
    long count;
    printf("%s:", name);
    told("stat", syscall(SYS_stat, name, &stat), &stat);
    told("lstat", syscall(SYS_lstat, name, &stat), &stat);
    told("fstatat", fstatat(folder, name, &stat, 0), &stat);
    told("nofollow", fstatat(folder, name, &stat, AT_SYMLINK_NOFOLLOW), &stat);
    long answer = statx(folder, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x);
    printf(" statx=%s:%lx", answer < 0 ? strerrorname_np(errno) : "ok", answer < 0 ? 0 : (long)x.stx_ino);
    say("flags", fstatat(folder, name, &stat, 0x10000000));
    say("access", syscall(SYS_access, name, R_OK));
    say("mode", syscall(SYS_access, name, 99));
    say("faccessat", syscall(SYS_faccessat2, folder, name, W_OK, AT_SYMLINK_NOFOLLOW));
    count = readlinkat(folder, name, link, sizeof link);
    printf(" readlink=%s:%.*s", count < 0 ? strerrorname_np(errno) : "ok", count < 0 ? 0 : (int)count, link);
    count = readlinkat(folder, name, link, 2);
    printf(" short=%s:%.*s", count < 0 ? strerrorname_np(errno) : "ok", count < 0 ? 0 : (int)count, link);
    say("nothing", syscall(SYS_readlinkat, folder, name, link, 0));
    opened("open", syscall(SYS_open, name, O_RDONLY | O_NONBLOCK));
    opened("openat", openat(folder, name, O_RDONLY | O_NONBLOCK));
    opened("O_NOFOLLOW", openat(folder, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
    opened("O_PATH", openat(folder, name, O_PATH | O_NOFOLLOW));
    opened("O_DIRECTORY", openat(folder, name, O_RDONLY | O_DIRECTORY));
    opened("both", openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    opened("O_RDWR", openat(folder, name, O_RDWR | O_NONBLOCK));
    for (unsigned at = 0; at < sizeof ways / sizeof *ways; at++) {
        struct how how = {O_RDONLY | O_NONBLOCK | (at % 2 ? O_NOFOLLOW : 0), 0, ways[at]};
        char what[20];
        int file;
        snprintf(what, sizeof what, "resolve%lx", (long)ways[at]);
        do
            file = syscall(SYS_openat2, folder, name, &how, sizeof how);
        while (file < 0 && errno == EAGAIN);
        opened(what, file);
    }
    struct how wrong = {O_RDONLY, 0600, 0};
    say("wrong", syscall(SYS_openat2, folder, name, &wrong, sizeof wrong));
    say("truncate", truncate(name, -1));
    printf("\n");
}

static void make(int folder, const char *name) {
    struct how how = {O_CREAT | O_WRONLY, 0640, 16};
    printf("%s:", name);
    made("exclusive", openat(folder, name, O_CREAT | O_EXCL | O_WRONLY, 0600));
    made("again", openat(folder, name, O_CREAT | O_EXCL | O_WRONLY, 0600));
    made("make", openat(folder, name, O_CREAT | O_RDWR, 0644));
    made("nofollow", openat(folder, name, O_CREAT | O_RDWR | O_NOFOLLOW, 0644));
    made("folder", openat(folder, name, O_CREAT | O_RDONLY | O_DIRECTORY, 0644));
    made("openat2", syscall(SYS_openat2, folder, name, &how, sizeof how));
    made("temporary", openat(folder, name, O_TMPFILE | O_RDWR, 0600));
    struct stat stat;
    long answer = lstat(name, &stat);
    printf(" after=%s:%o", answer < 0 ? strerrorname_np(errno) : "ok", answer < 0 ? 0 : stat.st_mode);
    printf("\n");
}

int main(int count, char **arguments) {
    static char name[9000];
    int makes = count > 3;
    FILE *names = fopen(arguments[2], "r");
    int folder = open(arguments[1], O_RDONLY | O_DIRECTORY);
    if (folder < 0 || !names) {
        perror(arguments[1]);
        return 1;
    }
    while (fgets(name, sizeof name, names)) {
        name[strcspn(name, "\n")] = 0;
        if (makes)
            make(folder, name);
        else
            ask(folder, name);
    }
    return 0;
}
