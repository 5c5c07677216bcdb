// Files that change while they are mapped. Every mode prints what the mappings show; a native run prints the same.
#include "sample.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <time.h>
#include <unistd.h>

static const char *path;

static void need(int fine, const char *what) {
    if (!fine) {
        printf("%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void make(int pages, char letter) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
    need(fd >= 0, "make");
    char page[PAGE];
    for (int i = 0; i < pages; i++) {
        memset(page, letter + i % 10, PAGE);
        need(write(fd, page, PAGE) == PAGE, "write");
    }
    close(fd);
}

static char *map(int pages, int prot, int flags) {
    int fd = open(path, O_RDONLY);
    need(fd >= 0, "open");
    char *at = mmap(0, (size_t)pages * PAGE, prot, flags, fd, 0);
    need(at != MAP_FAILED, "mmap");
    close(fd);
    return at;
}

// Overwrites pages [from, to) by write(2) through a descriptor of its own.
static void overwrite(int from, int to, char letter) {
    int fd = open(path, O_WRONLY);
    need(fd >= 0, "open for writing");
    char page[PAGE];
    memset(page, letter, PAGE);
    for (int i = from; i < to; i++)
        need(pwrite(fd, page, PAGE, (off_t)i * PAGE) == PAGE, "pwrite");
    close(fd);
}

static void overwrite_in_child(int from, int to, char letter) {
    pid_t child = fork();
    if (child == 0) {
        overwrite(from, to, letter);
        _exit(0);
    }
    int status;
    need(waitpid(child, &status, 0) == child && status == 0, "child");
}

static void show(const char *what, const char *at, int pages) {
    printf("%s ", what);
    for (int i = 0; i < pages; i++)
        putchar(at[(size_t)i * PAGE + 7] ? at[(size_t)i * PAGE + 7] : '0');
    putchar('\n');
}

// A shared mapping for reading, and writers that come later: here, in a child, again.
static void shared(void) {
    make(20, 'a');
    char *at = map(20, PROT_READ, MAP_SHARED);
    show("before", at, 4);
    overwrite(0, 2, 'X');
    show("here", at, 4);
    overwrite_in_child(2, 3, 'Y');
    show("child", at, 20);
    char *again = map(20, PROT_READ, MAP_SHARED);
    overwrite(4, 5, 'Z');
    show("old", at, 6);
    show("new", again, 6);
}

// A private mapping: stored to, touched, not touched; and moved, split and protected before the writer comes.
static void private(void) {
    make(40, 'a');
    char *room = mmap(0, 80 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open(path, O_RDONLY);
    char *at = mmap(room, 40 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
    need(at == room && close(fd) == 0, "mmap");
    at[1 * PAGE + 7] = '1';
    at[5 * PAGE + 7] = '5';
    at[39 * PAGE + 7] = '9';
    show("touched", at, 10);
    need(mprotect(at + 8 * PAGE, 4 * PAGE, PROT_READ) == 0, "mprotect");
    need(munmap(at + 20 * PAGE, PAGE) == 0, "munmap");
    char *moved = mremap(at + 24 * PAGE, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + 60 * PAGE);
    need(moved == at + 60 * PAGE, "mremap");
    moved[2 * PAGE + 7] = '2';
    overwrite(0, 40, 'X');
    show("low", at, 20);
    show("middle", at + 21 * PAGE, 3);
    show("moved", moved, 8);
    show("high", at + 32 * PAGE, 8);
    at[3 * PAGE + 7] = '3';
    overwrite(0, 40, 'Y');
    show("low", at, 20);
    at[4 * PAGE + 7] = '4';
    show("high", at + 32 * PAGE, 8);
    char *fresh = map(8, PROT_READ, MAP_PRIVATE);
    show("file", fresh, 8);
}

// A mapping longer than its file, which then grows: by an append, by ftruncate, behind a page that it ended in.
static void grow(int flags) {
    make(1, 'a');
    char *at = map(8, PROT_READ, flags);
    show("one", at, 1);
    int fd = open(path, O_WRONLY | O_APPEND);
    char page[PAGE];
    memset(page, 'b', PAGE);
    need(write(fd, page, 1000) == 1000, "write");
    show("and a part", at, 2);
    printf("behind the end %d\n", at[PAGE + 2000]);
    need(write(fd, page, PAGE) == PAGE, "write");
    show("and more", at, 3);
    printf("where the end was %c\n", at[PAGE + 2000]);
    need(ftruncate(fd, 5 * PAGE) == 0, "ftruncate");
    show("zeros", at, 5);
    char *larger = mremap(at, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    need(larger != MAP_FAILED, "mremap");
    need(ftruncate(fd, 11 * PAGE) == 0 && pwrite(fd, "z", 1, 10 * PAGE + 7) == 1, "grow again");
    show("after mremap", larger, 11);
    close(fd);
}

// A mapping that was made larger first, and whose file grows afterwards.
static void grow_moved(void) {
    make(2, 'a');
    char *at = map(2, PROT_READ, MAP_PRIVATE);
    show("two", at, 2);
    at = mremap(at, 2 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    need(at != MAP_FAILED, "mremap");
    int fd = open(path, O_WRONLY | O_APPEND);
    char page[PAGE];
    memset(page, 'q', PAGE);
    need(write(fd, page, PAGE) == PAGE && write(fd, page, PAGE) == PAGE, "write");
    show("four", at, 4);
}

// A file that is cut off inside a page, by its name; and away from a mapping that then traps.
static sigjmp_buf *volatile trap;
static void trapped(int signal) {
    (void)signal;
    siglongjmp(*trap, 1);
}

static void load(const char *what, const char *at) {
    sigjmp_buf here;
    trap = &here;
    if (sigsetjmp(here, 1) == 0)
        printf("%s %d\n", what, *(const volatile char *)at);
    else
        printf("%s SIGBUS\n", what);
}

static void cut(int flags) {
    signal(SIGBUS, trapped);
    make(8, 'x');
    char *at = map(8, PROT_READ, flags);
    load("first", at + 100);
    need(truncate(path, 10000) == 0, "truncate");
    load("inside", at + 100);
    load("in the page of the end", at + 9000);
    load("behind the end", at + 11000);
    load("on the next page", at + 3 * PAGE);
    need(truncate(path, 0) == 0, "truncate");
    load("of nothing", at + 100);
}

// Threads that store to a private mapping while others open the file for writing: no store is lost.
static atomic_int over;
static char *field;
#define COUNTERS 64
static void *stores(void *which) {
    long n = (long)which;
    unsigned long rounds = 0;
    while (!over) {
        for (int i = (int)n; i < COUNTERS; i += 2) {
            volatile unsigned long *counter = (unsigned long *)(field + (size_t)i * PAGE);
            if (*counter != rounds) {
                printf("counter %d is %lu, not %lu\n", i, *counter, rounds);
                exit(1);
            }
            *counter = rounds + 1;
        }
        rounds++;
    }
    return 0;
}

static void race(void) {
    for (int round = 0; round < 20; round++) {
        int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
        need(ftruncate(fd, COUNTERS * PAGE) == 0, "ftruncate");
        close(fd);
        field = map(COUNTERS, PROT_READ | PROT_WRITE, MAP_PRIVATE);
        over = 0;
        pthread_t threads[2];
        for (long i = 0; i < 2; i++)
            pthread_create(&threads[i], 0, stores, (void *)i);
        fd = open(path, O_RDWR);
        need(fd >= 0, "open for writing");
        struct timespec moment = {0, 2000000};
        nanosleep(&moment, 0);
        over = 1;
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], 0);
        close(fd);
        munmap(field, COUNTERS * PAGE);
    }
    puts("no store was lost");
}

// Children that are forked while the file changes hands. Page 5 may have been stored to: then it stays so.
static volatile char stored;

static int sees(const volatile char *at, int page, char byte) {
    char want = page == 5 && stored ? stored : byte;
    return at[(size_t)page * PAGE + 7] == want;
}

static void *forks(void *at) {
    while (!over) {
        pid_t child = fork();
        if (child == 0) {
            for (int page = 0; page < 2; page++)
                if (!sees(at, page, 'a' + page) && !sees(at, page, 'X'))
                    _exit(1);
            _exit(!stored || sees(at, 5, stored) ? 0 : 1);
        }
        int status;
        need(waitpid(child, &status, 0) == child && status == 0, "child");
    }
    return 0;
}

static void forking(void) {
    for (int round = 0; round < 30; round++) {
        make(20, 'a');
        char *at = map(20, PROT_READ | (round % 3 ? 0 : PROT_WRITE), round % 3 == 1 ? MAP_SHARED : MAP_PRIVATE);
        stored = 0;
        if (round % 3 == 0)
            at[5 * PAGE + 7] = stored = 'S';
        over = 0;
        pthread_t threads[2];
        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], 0, forks, at);
        overwrite(0, 20, 'X');
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 20; i++)
                if (!sees(at, i, 'X'))
                    _exit(1);
            _exit(0);
        }
        int status;
        need(waitpid(child, &status, 0) == child && status == 0, "the last child");
        over = 1;
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], 0);
        munmap(at, 20 * PAGE);
    }
    puts("all children saw it");
}

// A thread that sleeps in some call while a child writes: what the call answers, and what the mapping shows.
static void tick(int signal) { (void)signal; }

static void sleeping(const char *how) {
    make(4, 'a');
    char *at = map(4, PROT_READ, MAP_SHARED);
    show("before", at, 4);
    int pipes[2];
    need(pipe(pipes) == 0, "pipe");
    signal(SIGUSR1, tick);
    sigset_t mask, none;
    sigemptyset(&none);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, 0);
    pid_t self = getpid();
    pid_t child = fork();
    if (child == 0) {
        struct timespec moment = {0, 20000000};
        nanosleep(&moment, 0);
        overwrite(0, 4, 'X');
        nanosleep(&moment, 0);
        if (write(pipes[1], "!", 1) != 1)
            _exit(1);
        kill(self, SIGUSR1);
        _exit(0);
    }
    char letter = '-';
    long answer = -1;
    errno = 0;
    if (!strcmp(how, "nanosleep")) {
        struct timespec time = {0, 200000000};
        answer = nanosleep(&time, 0);
    } else if (!strcmp(how, "read")) {
        answer = read(pipes[0], &letter, 1);
    } else if (!strcmp(how, "poll")) {
        struct pollfd fd = {pipes[0], POLLIN, 0};
        answer = poll(&fd, 1, 60000);
    } else if (!strcmp(how, "ppoll")) {
        struct pollfd fd = {-1, 0, 0};
        answer = ppoll(&fd, 1, 0, &none);
    } else if (!strcmp(how, "sigsuspend")) {
        answer = sigsuspend(&none);
    } else if (!strcmp(how, "futex")) {
        static int word;
        struct timespec time = {0, 200000000};
        answer = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time, 0, 0);
    } else if (!strcmp(how, "sigwait")) {
        int got = 0;
        answer = sigwait(&mask, &got) == 0 ? got : -1;
    } else if (!strcmp(how, "wait")) {
        answer = waitpid(child, 0, 0) == child;
    } else if (!strcmp(how, "busy")) {
        while (*(volatile char *)(at + 7) != 'X')
            ;
        answer = 0;
    }
    printf("%s: %ld %s\n", how, answer, answer < 0 ? strerror(errno) : "");
    sigset_t now;
    sigprocmask(SIG_SETMASK, 0, &now);
    printf("blocked %d\n", sigismember(&now, SIGUSR1));
    waitpid(child, 0, 0);
    show("after", at, 4);
}

// A process that puts itself behind a filter that kills for opening files.
static void filtered(void) {
    make(8, 'a');
    char *at = map(8, PROT_READ, MAP_SHARED);
    char *own = map(8, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    own[2 * PAGE + 7] = '2';
    show("before", at, 2);
    int fd = open(path, O_RDWR);
    close(fd);
    at = map(8, PROT_READ, MAP_SHARED);
    pid_t child = fork();
    if (child == 0) {
        struct timespec moment = {0, 50000000};
        nanosleep(&moment, 0);
        overwrite(0, 8, 'X');
        _exit(0);
    }
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new rights");
    need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "filter");
    int status;
    waitpid(child, &status, 0);
    show("shared", at, 8);
    show("private", own, 8);
    fflush(stdout);
    syscall(SYS_exit_group, status);
}

// A shared mapping that is mapped once more by mremap(2), and its file changes.
static void twice(void) {
    make(8, 'a');
    char *at = map(8, PROT_READ, MAP_SHARED);
    char *again = mremap(at, 0, 8 * PAGE, MREMAP_MAYMOVE);
    need(again != MAP_FAILED && again != at, "mremap");
    char *part = mremap(at + 2 * PAGE, 0, 3 * PAGE, MREMAP_MAYMOVE);
    need(part != MAP_FAILED, "mremap of a part");
    show("again", again, 8);
    show("part", part, 3);
    overwrite(0, 4, 'X');
    show("again", again, 8);
    show("part", part, 3);
    char *own = map(8, PROT_READ, MAP_PRIVATE);
    char *refused = mremap(own, 0, 8 * PAGE, MREMAP_MAYMOVE);
    printf("private %s\n", refused == MAP_FAILED ? strerror(errno) : "works");
}

// The file is opened for writing without waiting, where nobody else has it open.
static void nonblock(void) {
    make(4, 'a');
    char *at = map(4, PROT_READ, MAP_SHARED);
    show("before", at, 4);
    int fd = open(path, O_RDWR | O_NONBLOCK);
    need(fd >= 0, "open");
    need(pwrite(fd, "XXXXXXXXXX", 10, 0) == 10, "pwrite");
    show("after", at, 4);
}

// The program waits for a line, and shows its mappings again.
static void told(void) {
    char *at = map(8, PROT_READ, MAP_SHARED);
    char *own = map(8, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    own[3 * PAGE + 7] = '3';
    show("shared", at, 8);
    show("private", own, 4);
    puts("ready");
    fflush(stdout);
    char line[80];
    while (fgets(line, sizeof line, stdin)) {
        show("shared", at, 8);
        show("private", own, 8);
        puts("ready");
        fflush(stdout);
    }
}

int main(int count, char **words) {
    need(count > 2, "mode and path");
    const char *mode = words[1];
    path = words[2];
    if (!strcmp(mode, "shared"))
        shared();
    else if (!strcmp(mode, "private"))
        private();
    else if (!strcmp(mode, "grow-shared"))
        grow(MAP_SHARED);
    else if (!strcmp(mode, "grow-private"))
        grow(MAP_PRIVATE);
    else if (!strcmp(mode, "grow-moved"))
        grow_moved();
    else if (!strcmp(mode, "cut-shared"))
        cut(MAP_SHARED);
    else if (!strcmp(mode, "cut-private"))
        cut(MAP_PRIVATE);
    else if (!strcmp(mode, "race"))
        race();
    else if (!strcmp(mode, "forking"))
        forking();
    else if (!strcmp(mode, "filtered"))
        filtered();
    else if (!strcmp(mode, "nonblock"))
        nonblock();
    else if (!strcmp(mode, "twice"))
        twice();
    else if (!strcmp(mode, "told"))
        told();
    else
        sleeping(mode);
    return 0;
}
