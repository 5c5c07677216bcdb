// Processes and threads that share, copy and replace address spaces with file pages in them: MODE FILE.
#include "sample.h"
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/time.h>

#define PAGES 512
static const char *self, *file;

static void ended_with(pid_t pid, int code) {
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

// Forks to a depth; every process finds untouched pages, and its stores are its own.
static void generation(unsigned char *bytes, int depth) {
    // A quarter that nobody has touched before, so that it is not in memory.
    for (int page = depth * PAGES / 4; page < (depth + 1) * PAGES / 4; page += 5)
        CHECK(wrong(bytes + page * PAGE, page * PAGE, PAGE) == 0);
    CHECK(depth == 0 || bytes[5] == depth);
    memset(bytes, depth + 1, PAGE);
    if (depth < 3) {
        pid_t pid = fork();
        if (pid == 0) {
            generation(bytes, depth + 1);
            _exit(40 + depth);
        }
        ended_with(pid, 40 + depth);
    }
    CHECK(bytes[7] == depth + 1);
    CHECK(wrong(bytes + PAGE, PAGE, (PAGES - 1) * PAGE) == 0);
}

static void forks(void) {
    size_t length;
    unsigned char *bytes = map_private(file, &length);
    CHECK(length == PAGES * PAGE && served(bytes));
    generation(bytes, 0);
    for (int i = 0; i < 8; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(wrong(bytes + PAGE, PAGE, (PAGES - 1) * PAGE) == 0 && served(bytes) ? 3 : 4);
        ended_with(pid, 3);
    }
    unsigned char *shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (pid == 0) {
        unsigned char *more = map_private(file, 0);
        CHECK(served(more) && wrong(more, 0, PAGES * PAGE) == 0);
        shared[0] = 77;
        _exit(5);
    }
    ended_with(pid, 5);
    CHECK(shared[0] == 77);
}

static void spawns(void) {
    unsigned char *bytes = map_private(file, 0);
    volatile int seen = 0;
    pid_t pid = vfork();
    if (pid == 0) {
        // Runs in its parent's memory: touches pages, and stores.
        seen = wrong(bytes, 0, 20 * PAGE) == 0;
        bytes[30 * PAGE] = 9;
        execl(self, self, "child", file, (char *)0);
        _exit(99);
    }
    ended_with(pid, 21);
    CHECK(seen && bytes[30 * PAGE] == 9);
    pid = vfork();
    if (pid == 0) _exit(wrong(bytes + 31 * PAGE, 31 * PAGE, PAGE) == 0 ? 6 : 7);
    ended_with(pid, 6);
    char *words[] = {(char *)self, "child", (char *)file, 0}, *variables[] = {"SERVED=1", 0};
    for (int i = 0; i < 5; i++) {
        CHECK(posix_spawn(&pid, self, 0, 0, words, getenv("SERVED") ? variables : variables + 1) == 0);
        ended_with(pid, 21);
    }
    CHECK(execl("/no/such/program", "x", (char *)0) == -1 && errno == ENOENT);
    CHECK(wrong(bytes + 60 * PAGE, 60 * PAGE, PAGE) == 0);
    FILE *pipe = popen("echo from a shell; exit 9", "r");
    char line[100];
    CHECK(pipe && fgets(line, sizeof line, pipe) && WEXITSTATUS(pclose(pipe)) == 9);
    printf("%s", line);
}

static unsigned char *volatile found;
static int cloned(void *unused) {
    (void)unused;
    found = map_private(file, 0);
    return wrong(found, 0, 8 * PAGE) == 0 ? 11 : 12;
}

static void clones(void) {
    static char stacks[4][64 << 10];
    // A copy, by the bare call.
    pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(cloned(0));
    ended_with(pid, 11);
    CHECK(!found);
    // Another process in the same memory.
    pid = clone(cloned, stacks[0] + sizeof stacks[0], CLONE_VM | SIGCHLD, 0);
    ended_with(pid, 11);
    CHECK(found && served(found) && wrong(found, 0, PAGES * PAGE) == 0);
    pid = clone(cloned, stacks[1] + sizeof stacks[1], CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, 0);
    ended_with(pid, 11);
    CHECK(wrong(found, 0, PAGES * PAGE) == 0);
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, rest[6]; } arguments = {.exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) _exit(wrong(found, 0, PAGES * PAGE) == 0 ? cloned(0) : 13);
    ended_with(pid, 11);
}

static volatile int over;
static void *maps_and_reads(void *argument) {
    unsigned seed = (unsigned)(long)argument;
    for (long round = 0; !over || round < 3; round++) {
        unsigned char *bytes = map_private(file, 0);
        for (int i = 0; i < 12; i++) {
            size_t page = rand_r(&seed) % PAGES;
            CHECK(wrong(bytes + page * PAGE, page * PAGE, PAGE) == 0);
        }
        CHECK(munmap(bytes, PAGES * PAGE) == 0);
    }
    return 0;
}

// Forks while other threads map, read and unmap.
static void threads(void) {
    pthread_t others[4];
    for (long i = 0; i < 4; i++) CHECK(pthread_create(&others[i], 0, maps_and_reads, (void *)(i + 1)) == 0);
    unsigned char *bytes = map_private(file, 0);
    for (int i = 0; i < 25; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(wrong(bytes + i * PAGE, i * PAGE, (PAGES - i) * PAGE) == 0 ? 14 : 15);
        ended_with(pid, 14);
    }
    over = 1;
    for (int i = 0; i < 4; i++) CHECK(pthread_join(others[i], 0) == 0);
}

static void *forks_and_checks(void *argument) {
    unsigned char *bytes = argument;
    for (int i = 0; i < 12; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(wrong(bytes + 3 * i * PAGE, 3 * i * PAGE, 60 * PAGE) == 0 ? 16 : 17);
        ended_with(pid, 16);
    }
    return 0;
}

// Several threads fork at once, and each child finds its own pages.
static void forks_at_once(void) {
    pthread_t others[4];
    unsigned char *bytes = map_private(file, 0);
    for (long i = 0; i < 4; i++) CHECK(pthread_create(&others[i], 0, forks_and_checks, bytes) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(others[i], 0) == 0);
}

static void *executes(void *unused) {
    (void)unused;
    execl(self, self, "child", file, (char *)0);
    return 0;
}

// A thread that is not the first begins another program, while all others run.
static void thread_executes(void) {
    pthread_t others[4], last;
    for (long i = 0; i < 4; i++) CHECK(pthread_create(&others[i], 0, maps_and_reads, (void *)(i + 1)) == 0);
    CHECK(pthread_create(&last, 0, executes, 0) == 0);
    for (;;) pause();
}

static void tick(int signal) {
    (void)signal;
    found = (unsigned char *)&over;
}

// Calls are made in the name of a program that signals interrupt all the time.
static void interrupted(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    CHECK(sigaction(SIGALRM, &action, 0) == 0 && setitimer(ITIMER_REAL, &often, 0) == 0);
    for (int round = 0; round < 150; round++) {
        unsigned char *bytes = map_private(file, 0);
        size_t page = round * 7 % PAGES;
        CHECK(wrong(bytes + page * PAGE, page * PAGE, PAGE) == 0 && munmap(bytes, PAGES * PAGE) == 0);
    }
    CHECK(setitimer(ITIMER_REAL, &never, 0) == 0);
    CHECK(found);
}

int main(int count, char **words) {
    CHECK(count == 3);
    self = words[0], file = words[2];
    if (!strcmp(words[1], "forks")) forks();
    else if (!strcmp(words[1], "spawns")) spawns();
    else if (!strcmp(words[1], "clones")) clones();
    else if (!strcmp(words[1], "threads")) threads();
    else if (!strcmp(words[1], "forks-at-once")) forks_at_once();
    else if (!strcmp(words[1], "thread-executes")) thread_executes();
    else if (!strcmp(words[1], "interrupted")) interrupted();
    else if (!strcmp(words[1], "child")) {
        unsigned char *bytes = map_private(file, 0);
        return served(bytes) && wrong(bytes, 0, PAGES * PAGE) == 0 ? 21 : 22;
    } else return 97;
    printf("%s done\n", words[1]);
    return 0;
}
