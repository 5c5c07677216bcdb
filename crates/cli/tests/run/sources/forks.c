// Threads map files while others fork. MODE FILE: "leaks" counts the descriptors that children find.
#include "sample.h"
#include <pthread.h>

static int file;
static volatile int over;

static void *maps(void *nothing) {
    (void)nothing;
    while (!over) {
        void *at = mmap(0, 2 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
        CHECK(at != MAP_FAILED && munmap(at, 2 * PAGE) == 0);
    }
    return 0;
}

#define NUMBERS 64
static char known[NUMBERS];

// How many descriptors this process has that its maker did not open.
static int strange(void) {
    int count = 0;
    for (int number = 0; number < NUMBERS; number++) count += !known[number] && fcntl(number, F_GETFD) >= 0;
    return count;
}

int main(int count, char **words) {
    CHECK(count == 3);
    file = open_file(words[2], O_RDONLY);
    for (int number = 0; number < NUMBERS; number++) known[number] = fcntl(number, F_GETFD) >= 0;
    pthread_t thread;
    int found = 0;
    CHECK(pthread_create(&thread, 0, maps, 0) == 0);
    for (int round = 0; round < 300; round++) {
        pid_t child = fork();
        if (child == 0) _exit(strange() != 0);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        found += WEXITSTATUS(status);
    }
    over = 1;
    CHECK(pthread_join(thread, 0) == 0);
    printf("%d children found descriptors\n", found);
    return 0;
}
