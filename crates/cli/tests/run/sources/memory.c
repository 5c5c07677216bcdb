// What a program may do to its mappings, and what it then finds there: MODE FILE, a sample of 600 pages and 100 bytes.
#include "sample.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define PAGES 600ul
#define SIZE (PAGES * PAGE + 100)
static const char *path;

static unsigned char *map(size_t pages, size_t from, int prot, int flags, void *at) {
    int file = open_file(path, O_RDONLY);
    unsigned char *bytes = mmap(at, pages * PAGE, prot, flags, file, from * PAGE);
    CHECK(bytes != MAP_FAILED && close(file) == 0);
    return bytes;
}

static unsigned char *map_plainly(size_t pages, size_t from) {
    unsigned char *bytes = map(pages, from, PROT_READ, MAP_PRIVATE, 0);
    CHECK(served(bytes));
    return bytes;
}

#define RIGHT(bytes, page, pages) CHECK(wrong(bytes, (page) * PAGE, (pages) * PAGE) == 0)

static void descriptors(void) {
    struct rlimit few = {24, 24};
    CHECK(syscall(SYS_close_range, 3, ~0u, 0) == 0);
    RIGHT(map_plainly(20, 0), 0, 20);
    int file = open_file(path, O_RDONLY);
    for (int i = 3; i < 60; i++) CHECK(i == file || dup2(file, i) == i);
    RIGHT(map_plainly(20, 100), 100, 20);
    CHECK(syscall(SYS_close_range, 3, ~0u, 0) == 0);
    // No descriptor is left, neither for the program nor in its name.
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    file = open_file(path, O_RDONLY);
    for (int next = file; (next = dup(file)) >= 0;) {}
    CHECK(errno == EMFILE);
    unsigned char *bytes = mmap(0, 20 * PAGE, PROT_READ, MAP_PRIVATE, file, 200 * PAGE);
    CHECK(bytes != MAP_FAILED);
    RIGHT(bytes, 200, 20);
    pid_t pid = fork();
    if (pid == 0) _exit(wrong(bytes, 200 * PAGE, 20 * PAGE) == 0 ? 4 : 5);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 4);
}

static void parts(void) {
    unsigned char *bytes = map(100, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    CHECK(munmap(bytes + 10 * PAGE, 10 * PAGE) == 0);
    CHECK(mprotect(bytes + 30 * PAGE, 10 * PAGE, PROT_NONE) == 0);
    CHECK(mprotect(bytes + 40 * PAGE, 10 * PAGE, PROT_READ) == 0);
    CHECK(mmap(bytes + 50 * PAGE, 10 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    CHECK(map(10, 300, PROT_READ, MAP_PRIVATE | MAP_FIXED, bytes + 60 * PAGE) == bytes + 60 * PAGE);
    memset(bytes + 70 * PAGE, 1, PAGE);
    RIGHT(bytes, 0, 10);
    RIGHT(bytes + 20 * PAGE, 20, 10);
    CHECK(mprotect(bytes + 30 * PAGE, 10 * PAGE, PROT_READ | PROT_EXEC) == 0);
    RIGHT(bytes + 30 * PAGE, 30, 20);
    for (size_t i = 0; i < 10 * PAGE; i++) CHECK(bytes[50 * PAGE + i] == 0);
    RIGHT(bytes + 60 * PAGE, 300, 10);
    RIGHT(bytes + 71 * PAGE, 71, 29);
    CHECK(mprotect(bytes + 80 * PAGE, 10 * PAGE, PROT_WRITE | PROT_READ) == 0);
    bytes[85 * PAGE] ^= 1;
    CHECK(wrong(bytes + 85 * PAGE, 85 * PAGE, PAGE) == 1);
    CHECK(map(10, 10, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, bytes + 10 * PAGE) == bytes + 10 * PAGE);
    RIGHT(bytes + 10 * PAGE, 10, 10);
    int file = open_file(path, O_RDONLY);
    CHECK(mmap(bytes, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, 0) == MAP_FAILED && errno == EEXIST);
    CHECK(mmap(0, 0, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED && errno == EINVAL);
    CHECK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, file, 100) == MAP_FAILED && errno == EINVAL);
    CHECK(mmap(0, PAGE, PROT_READ, 0, file, 0) == MAP_FAILED && errno == EINVAL);
    CHECK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED && errno == EBADF);
    CHECK(mmap(0, PAGE, PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED && errno == EACCES);
    int only = open_file(path, O_WRONLY);
    CHECK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, only, 0) == MAP_FAILED && errno == EACCES);
}

static void remaps(void) {
    unsigned char *bytes = map(20, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    CHECK(served(bytes));
    bytes[3 * PAGE + 9] ^= 0xff;
    bytes = mremap(bytes, 20 * PAGE, 200 * PAGE, MREMAP_MAYMOVE);
    CHECK(bytes != MAP_FAILED && wrong(bytes, 0, 200 * PAGE) == 1);
    unsigned char *place = mmap(0, 300 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *moved = mremap(bytes, 200 * PAGE, 300 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    CHECK(moved == place && wrong(moved, 0, 300 * PAGE) == 1);
    // A part of the middle.
    unsigned char *middle = map_plainly(200, 200);
    place = mmap(0, 50 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mremap(middle + 50 * PAGE, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
    RIGHT(place, 250, 50);
    RIGHT(middle, 200, 50);
    RIGHT(middle + 100 * PAGE, 300, 100);
    CHECK(mremap(middle, 50 * PAGE, 5 * PAGE, 0) == middle);
    RIGHT(middle, 200, 5);
    // A second view of the same pages, and what a child sees of all that.
    pid_t pid = fork();
    if (pid == 0) {
        unsigned char *wider = mremap(place, 50 * PAGE, 350 * PAGE, MREMAP_MAYMOVE);
        _exit(wider != MAP_FAILED && wrong(wider, 250 * PAGE, 350 * PAGE) == 0 ? 4 : 5);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 4);
}

static void locks(void) {
    unsigned char *bytes = map_plainly(50, 0);
    CHECK(mlock(bytes + 10 * PAGE, 10 * PAGE) == 0 && mlock2(bytes + 30 * PAGE, 10 * PAGE, MLOCK_ONFAULT) == 0);
    RIGHT(bytes, 0, 50);
    RIGHT(map(30, 500, PROT_READ, MAP_PRIVATE | MAP_LOCKED, 0), 500, 30);
    CHECK(mlockall(MCL_FUTURE) == 0);
    RIGHT(map(30, 100, PROT_READ, MAP_PRIVATE, 0), 100, 30);
    RIGHT(map(30, 200, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0), 200, 30);
    RIGHT(map(30, 300, PROT_READ, MAP_SHARED, 0), 300, 30);
    RIGHT(map(30, 400, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_POPULATE, 0), 400, 30);
    CHECK(munlockall() == 0 && mlockall(MCL_CURRENT) == 0);
    RIGHT(map(30, 450, PROT_READ, MAP_PRIVATE, 0), 450, 30);
}

static void populates(void) {
    RIGHT(map(100, 0, PROT_READ, MAP_PRIVATE | MAP_POPULATE, 0), 0, 100);
    RIGHT(map(100, 100, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, 0), 100, 100);
    RIGHT(map(100, 200, PROT_READ, MAP_SHARED | MAP_POPULATE, 0), 200, 100);
    RIGHT(map(100, 300, PROT_READ, MAP_PRIVATE | MAP_POPULATE | MAP_NONBLOCK, 0), 300, 100);
    RIGHT(map(100, 400, PROT_READ, MAP_PRIVATE | MAP_NORESERVE | MAP_DENYWRITE | MAP_STACK, 0), 400, 100);
}

static void advice(void) {
    unsigned char *bytes = map(200, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    memset(bytes, 7, 20 * PAGE);
    CHECK(madvise(bytes, 10 * PAGE, MADV_DONTNEED) == 0);
    RIGHT(bytes, 0, 10);
    CHECK(bytes[10 * PAGE] == 7 && bytes[20 * PAGE - 1] == 7);
    int kinds[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_FREE, MADV_REMOVE, MADV_COLD,
                   MADV_PAGEOUT, MADV_DONTDUMP, MADV_DONTFORK, MADV_DOFORK, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
                   MADV_MERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        unsigned char *range = bytes + (20 + 10 * i) * PAGE;
        printf("%zu: %d\n", i, madvise(range, 10 * PAGE, kinds[i]) == 0 ? 0 : errno);
        RIGHT(range, 20 + 10 * i, 10);
    }
    CHECK(bytes[10 * PAGE] == 7);
    unsigned char inside[20];
    CHECK(mincore(bytes + 190 * PAGE, 10 * PAGE, inside) == 0 && msync(bytes, 200 * PAGE, MS_SYNC) == 0);
    RIGHT(bytes + 190 * PAGE, 190, 10);
}

static sigjmp_buf back;
static volatile uintptr_t trapped_at;
static volatile int trapped_by, trapped_why;
static void trap(int signal, siginfo_t *info, void *context) {
    (void)context;
    trapped_at = (uintptr_t)info->si_addr, trapped_by = signal, trapped_why = info->si_code;
    siglongjmp(back, 1);
}

static void traps_at(unsigned char *bytes, size_t offset) {
    trapped_by = 0;
    if (sigsetjmp(back, 1) == 0) (void)*(volatile unsigned char *)(bytes + offset);
    printf("at %zu: signal %d, code %d, %s address\n", offset, trapped_by, trapped_why,
           trapped_at == (uintptr_t)(bytes + offset) ? "right" : "wrong");
}

static void ends(void) {
    struct sigaction action = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGBUS, &action, 0) == 0 && sigaction(SIGSEGV, &action, 0) == 0);
    unsigned char *bytes = map_plainly(620, 0);
    CHECK(wrong(bytes, 0, SIZE) == 0);
    for (size_t i = SIZE; i < 601 * PAGE; i++) CHECK(bytes[i] == 0);
    traps_at(bytes, 601 * PAGE + 77);
    traps_at(bytes, 619 * PAGE + 4095);
    unsigned char *over = map_plainly(3, 599);
    CHECK(wrong(over, 599 * PAGE, PAGE + 100) == 0);
    traps_at(over, 2 * PAGE);
    unsigned char *beyond = map(2, 700, PROT_READ, MAP_PRIVATE, 0);
    traps_at(beyond, 5);
    unsigned char *closed = map(2, 0, PROT_NONE, MAP_PRIVATE, 0);
    traps_at(closed, PAGE + 3);
    int pipes[2];
    CHECK(pipe(pipes) == 0 && write(pipes[1], bytes + 601 * PAGE, 10) == -1 && errno == EFAULT);
}

static void calls(void) {
    unsigned char *bytes = map(300, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    CHECK(served(bytes));
    static unsigned char buffer[32 * 4096];
    int pipes[2], file = open_file(path, O_RDONLY);
    CHECK(pipe(pipes) == 0);
    // From pages that nobody has touched.
    CHECK(write(pipes[1], bytes + 5 * PAGE - 100, 9000) == 9000 && read(pipes[0], buffer, 9000) == 9000);
    CHECK(wrong(buffer, 5 * PAGE - 100, 9000) == 0);
    struct iovec parts[] = {{bytes + 40 * PAGE, PAGE}, {bytes + 80 * PAGE + 1, 3000}};
    CHECK(writev(pipes[1], parts, 2) == 7096 && read(pipes[0], buffer, sizeof buffer) == 7096);
    CHECK(wrong(buffer, 40 * PAGE, PAGE) == 0 && wrong(buffer + PAGE, 80 * PAGE + 1, 3000) == 0);
    struct iovec here = {buffer, 4 * PAGE}, there = {bytes + 100 * PAGE, 4 * PAGE};
    CHECK(process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 4 * PAGE && wrong(buffer, 100 * PAGE, 4 * PAGE) == 0);
    // Into them: the rest of each page stays the file's.
    CHECK(pread(file, bytes + 120 * PAGE + 50, 5000, 7) == 5000);
    CHECK(wrong(bytes + 120 * PAGE + 50, 7, 5000) == 0 && wrong(bytes + 120 * PAGE, 120 * PAGE, 50) == 0);
    CHECK(wrong(bytes + 121 * PAGE + 954, 121 * PAGE + 954, PAGE - 954) == 0);
    struct stat *about = (struct stat *)(bytes + 140 * PAGE);
    CHECK(fstat(file, about) == 0 && about->st_size == SIZE);
    CHECK(wrong(bytes + 140 * PAGE + sizeof *about, 140 * PAGE + sizeof *about, PAGE - sizeof *about) == 0);
    CHECK(getcwd((char *)bytes + 160 * PAGE, 100) && bytes[160 * PAGE] == '/');
    CHECK(write(pipes[1], bytes + 180 * PAGE, 1) == 1 && read(pipes[0], bytes + 200 * PAGE + 9, 1) == 1);
    CHECK(bytes[200 * PAGE + 9] == sample(180 * PAGE) && wrong(bytes + 200 * PAGE, 200 * PAGE, 9) == 0);
    CHECK(syscall(SYS_futex, bytes + 220 * PAGE, 1, 1, 0, 0, 0) == 0);
    RIGHT(bytes + 221 * PAGE, 221, 79);
}

static void filter(void) {
    unsigned char *before = map_plainly(50, 0);
    int file = open_file(path, O_RDONLY);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pid_t pid = fork();
    if (pid == 0) CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    if (pid != 0) CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
    unsigned char *after = mmap(0, 50 * PAGE, PROT_READ, MAP_PRIVATE, file, 100 * PAGE);
    CHECK(after != MAP_FAILED && wrong(after, 100 * PAGE, 50 * PAGE) == 0);
    RIGHT(before, 0, 50);
    pid_t other = fork();
    if (other == 0) _exit(wrong(mmap(0, 50 * PAGE, PROT_READ, MAP_PRIVATE, file, 200 * PAGE), 200 * PAGE, 50 * PAGE) == 0 ? 4 : 5);
    int status;
    CHECK(waitpid(other, &status, 0) == other && WEXITSTATUS(status) == 4);
    if (pid == 0) _exit(6);
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 6);
}

int main(int count, char **words) {
    CHECK(count == 3);
    path = words[2];
    static const struct { const char *name; void (*run)(void); } modes[] = {
        {"descriptors", descriptors}, {"parts", parts}, {"remaps", remaps}, {"locks", locks}, {"populates", populates},
        {"advice", advice}, {"ends", ends}, {"calls", calls}, {"filter", filter},
    };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(words[1], modes[i].name)) continue;
        modes[i].run();
        printf("%s done\n", words[1]);
        return 0;
    }
    return 97;
}
