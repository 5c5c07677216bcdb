// Threads and processes that read one large file at random, and check each byte: MODE FILE SEED.
//   threads    8 threads, for a while
//   race       one thread maps and unmaps where another one reads
//   processes  20 processes, until they are killed; who reads a wrong byte writes FILE.wrong
#include "sample.h"
#include <pthread.h>
#include <setjmp.h>
#include <time.h>

static const char *path;
static unsigned char *volatile bytes;
static size_t pages;
static volatile int over;
static uint64_t first_seed;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void check_one(uint64_t *state) {
    uint64_t offset = next(state) % (pages * PAGE - 64);
    CHECK(wrong(bytes + offset, offset, 64) == 0);
}

static void *reads(void *argument) {
    uint64_t state = first_seed * 1000 + (long)argument + 1, rounds = 0;
    unsigned char *own = map_private(path, 0);
    for (double until = now() + 1.2; now() < until; rounds++) {
        check_one(&state);
        // Stores are this thread's own, and stay while everything else comes and goes.
        uint64_t page = next(&state) % 16;
        unsigned char *place = own + page * 37 * PAGE + (long)argument;
        CHECK(*place == sample(place - own) || *place == (unsigned char)(page + 101));
        *place = page + 101;
        CHECK(wrong(own + (page * 37 + 1) * PAGE, (page * 37 + 1) * PAGE, 64) == 0);
    }
    return (void *)rounds;
}

static void threads(void) {
    pthread_t others[8];
    bytes = map_private(path, 0);
    CHECK(served(bytes));
    for (long i = 0; i < 8; i++) CHECK(pthread_create(&others[i], 0, reads, (void *)i) == 0);
    for (int i = 0; i < 8; i++) CHECK(pthread_join(others[i], 0) == 0);
}

static __thread sigjmp_buf back;
static void trap(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

static void *races(void *unused) {
    (void)unused;
    uint64_t state = first_seed + 99;
    long reads = 0;
    while (!over) {
        uint64_t offset = next(&state) % (pages * PAGE);
        if (sigsetjmp(back, 1)) continue;
        unsigned char byte = bytes[offset];
        // Where nothing is mapped there was a trap; where something is, it is the file.
        CHECK(byte == sample(offset));
        reads++;
    }
    return (void *)reads;
}

static void race(void) {
    pthread_t other;
    CHECK(signal(SIGSEGV, trap) != SIG_ERR);
    bytes = map_private(path, 0);
    int file = open_file(path, O_RDONLY);
    CHECK(pthread_create(&other, 0, races, 0) == 0);
    for (double until = now() + 1.2; now() < until;) {
        CHECK(munmap(bytes, pages * PAGE) == 0);
        CHECK(mmap(bytes, pages * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) == bytes);
        usleep(200);
    }
    over = 1;
    CHECK(pthread_join(other, 0) == 0);
    CHECK(served(bytes));
}

static void process(int index) {
    uint64_t state = first_seed * 7919 + index + 1;
    char name[4096];
    snprintf(name, sizeof name, "%s.wrong", path);
    for (;;) {
        uint64_t offset = next(&state) % (pages * PAGE);
        unsigned char byte = bytes[offset];
        if (byte != sample(offset)) {
            int file = open(name, O_WRONLY | O_CREAT | O_APPEND, 0600);
            dprintf(file, "process %d: %#x at %#lx\n", index, byte, (unsigned long)offset);
            _exit(1);
        }
    }
}

static void processes(void) {
    bytes = map_private(path, 0);
    CHECK(served(bytes));
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) process(i);
        printf("%d\n", pid);
    }
    printf("running\n");
    fflush(stdout);
    process(20);
}

int main(int count, char **words) {
    CHECK(count == 4);
    path = words[2], first_seed = strtoull(words[3], 0, 10);
    struct stat about;
    CHECK(stat(path, &about) == 0);
    pages = about.st_size / PAGE;
    if (!strcmp(words[1], "threads")) threads();
    else if (!strcmp(words[1], "race")) race();
    else if (!strcmp(words[1], "processes")) processes();
    else return 97;
    printf("%s done\n", words[1]);
    return 0;
}
