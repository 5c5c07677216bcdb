// Pages that fail or never come, and who suffers from it: MODE FILE, a sample of 256 pages of which page 100 is bad.
#include "sample.h"

#define PAGES 256ul
#define BAD 100ul
static unsigned char *bytes;

// A child that reads these pages and exits with 3.
static pid_t reads(size_t from, size_t to) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0) return pid;
    for (size_t page = from; page < to; page++)
        if (wrong(bytes + page * PAGE, page * PAGE, PAGE)) _exit(66);
    _exit(3);
}

static void tell(const char *name, pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFSIGNALED(status)) printf("%s: signal %d\n", name, WTERMSIG(status));
    else printf("%s: status %d\n", name, WEXITSTATUS(status));
    fflush(stdout);
}

static void errors(void) {
    tell("before", reads(0, BAD));
    tell("bad", reads(BAD, BAD + 1));
    tell("behind", reads(BAD + 1, PAGES));
    CHECK(wrong(bytes + (BAD - 1) * PAGE, (BAD - 1) * PAGE, PAGE) == 0);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    long count = write(pipes[1], bytes + BAD * PAGE, PAGE);
    printf("write: %ld\n", count);
    // What is stored over, is there.
    CHECK(mmap(bytes + BAD * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    CHECK(bytes[BAD * PAGE] == 0);
}

static void hangs(void) {
    pid_t stuck = reads(BAD, BAD + 1);
    // It is asleep before the others begin, as a rule.
    usleep(50000);
    tell("far", reads(0, 64));
    tell("behind", reads(128, PAGES));
    CHECK(waitpid(stuck, 0, WNOHANG) == 0 && kill(stuck, SIGKILL) == 0);
    tell("stuck", stuck);
}

// Maps a file, reads all of it, and lives until the file FILE.go is there.
static void copies(const char *path) {
    char name[4096];
    snprintf(name, sizeof name, "%s.go", path);
    CHECK(wrong(bytes, 0, PAGES * PAGE) == 0);
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (access(name, F_OK)) usleep(5000);
}

int main(int count, char **words) {
    CHECK(count == 3);
    bytes = map_private(words[2], 0);
    CHECK(served(bytes));
    if (!strcmp(words[1], "errors")) errors();
    else if (!strcmp(words[1], "hangs")) hangs();
    else if (!strcmp(words[1], "copies")) copies(words[2]);
    else return 97;
    printf("%s done\n", words[1]);
    return 0;
}
