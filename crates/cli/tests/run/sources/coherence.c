// Stores, and files that change: MODE FILE, a sample of 300 pages. "main" runs natively or served; its partner, a child
// that was forked from it, writes by write(2) or by a shared mapping.
#include "sample.h"

#define PAGES 300ul
static const char *path;

static unsigned char *map(int prot, int flags, int access, size_t length) {
    int file = open_file(path, access);
    unsigned char *bytes = mmap(0, length, prot, flags, file, 0);
    CHECK(bytes != MAP_FAILED && close(file) == 0);
    return bytes;
}

static void ended_well(pid_t pid) {
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// Stores to private pages are seen by nobody else, before and after they are made.
static void stores(void) {
    unsigned char *bytes = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, O_RDONLY, PAGES * PAGE);
    CHECK(served(bytes));
    unsigned char *writable = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, O_RDWR, PAGES * PAGE);
    for (size_t page = 0; page < PAGES; page += 2) memset(bytes + page * PAGE, 0x55, PAGE);
    memset(writable, 0x66, PAGES * PAGE);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(bytes[0] == 0x55 && writable[PAGE] == 0x66);
        memset(bytes, 0x77, PAGES * PAGE);
        unsigned char *fresh = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, O_RDONLY, PAGES * PAGE);
        CHECK(wrong(fresh, 0, PAGES * PAGE) == 0);
        memset(fresh, 0x88, PAGES * PAGE);
        _exit(0);
    }
    ended_well(pid);
    for (size_t page = 0; page < PAGES; page++)
        if (page % 2) CHECK(wrong(bytes + page * PAGE, page * PAGE, PAGE) == 0);
        else CHECK(bytes[page * PAGE] == 0x55 && bytes[page * PAGE + 4095] == 0x55);
    CHECK(wrong(map(PROT_READ, MAP_PRIVATE, O_RDONLY, PAGES * PAGE), 0, PAGES * PAGE) == 0);
    CHECK(wrong(map(PROT_READ, MAP_SHARED, O_RDONLY, PAGES * PAGE), 0, PAGES * PAGE) == 0);
    int file = open_file(path, O_RDONLY);
    static unsigned char read_bytes[PAGES * 4096];
    CHECK(pread(file, read_bytes, sizeof read_bytes, 0) == sizeof read_bytes && wrong(read_bytes, 0, PAGES * PAGE) == 0);
}

// A shared mapping and read(2) and write(2) of another process are of one mind.
static void shared(void) {
    unsigned char *bytes = map(PROT_READ | PROT_WRITE, MAP_SHARED, O_RDWR, PAGES * PAGE);
    int there[2], back[2];
    char letter = 'x';
    CHECK(pipe(there) == 0 && pipe(back) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int file = open_file(path, O_RDWR);
        for (size_t page = 0; page < PAGES; page++) {
            unsigned char read_byte;
            CHECK(read(there[0], &letter, 1) == 1 && pread(file, &read_byte, 1, page * PAGE + 7) == 1);
            CHECK(read_byte == (unsigned char)(page + 1));
            CHECK(pwrite(file, "w", 1, page * PAGE + 8) == 1 && write(back[1], &letter, 1) == 1);
        }
        _exit(0);
    }
    for (size_t page = 0; page < PAGES; page++) {
        bytes[page * PAGE + 7] = page + 1;
        CHECK(write(there[1], &letter, 1) == 1 && read(back[0], &letter, 1) == 1 && bytes[page * PAGE + 8] == 'w');
    }
    ended_well(pid);
}

// A mapping that only reads follows a process that had the file open for writing when it was made.
static void readers(void) {
    int there[2], back[2];
    char letter = 'x';
    CHECK(pipe(there) == 0 && pipe(back) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int file = open_file(path, O_RDWR);
        CHECK(write(back[1], &letter, 1) == 1);
        for (size_t page = 0; page < PAGES; page++)
            CHECK(read(there[0], &letter, 1) == 1 && pwrite(file, "new", 3, page * PAGE) == 3 &&
                  write(back[1], &letter, 1) == 1);
        _exit(0);
    }
    CHECK(read(back[0], &letter, 1) == 1);
    unsigned char *bytes = map(PROT_READ, MAP_SHARED, O_RDONLY, PAGES * PAGE);
    CHECK(wrong(bytes, 0, 20 * PAGE) == 0);
    for (size_t page = 0; page < PAGES; page++) {
        CHECK(write(there[1], &letter, 1) == 1 && read(back[0], &letter, 1) == 1);
        CHECK(memcmp(bytes + page * PAGE, "new", 3) == 0);
    }
    ended_well(pid);
}

// A private mapping has what a shared one has stored before it was made, although no time of the file says so.
static void mixed(void) {
    unsigned char *bytes = map(PROT_READ | PROT_WRITE, MAP_SHARED, O_RDWR, PAGES * PAGE);
    for (int round = 1; round < 6; round++) {
        memset(bytes + 7 * PAGE, round, PAGE);
        if (round == 2) usleep(40000);
        unsigned char *own = map(PROT_READ, MAP_PRIVATE, O_RDONLY, PAGES * PAGE);
        for (size_t i = 0; i < PAGE; i++) CHECK(own[7 * PAGE + i] == round);
    }
}

static void must_read(const char *text, size_t offset, size_t length) {
    unsigned char *bytes = map(PROT_READ, MAP_PRIVATE, O_RDONLY, length);
    CHECK(memcmp(bytes + offset, text, strlen(text)) == 0);
    CHECK(wrong(bytes + offset + strlen(text), offset + strlen(text), 100) == 0);
    CHECK(munmap(bytes, length) == 0);
}

// Every new mapping has the bytes that the file has then, however shortly ago it was written.
static void rewrites(void) {
    char text[40];
    int file = open_file(path, O_RDWR);
    for (int round = 0; round < 300; round++) {
        size_t offset = (round * 37 % PAGES) * PAGE;
        snprintf(text, sizeof text, "round %d", round);
        CHECK(pwrite(file, text, strlen(text), offset) == (ssize_t)strlen(text));
        // Now and then it has been so for long, and is served when it changes again at once.
        if (round % 20 == 0) usleep(30000);
        must_read(text, offset, PAGES * PAGE);
        if (round % 20 == 0) {
            snprintf(text, sizeof text, "again %d", round);
            CHECK(pwrite(file, text, strlen(text), offset) == (ssize_t)strlen(text));
            must_read(text, offset, PAGES * PAGE);
        }
    }
}

static void replace(const char *with, const char *text, size_t pages) {
    int file = open(with, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0);
    for (size_t i = 0; i < pages * PAGE; i++) {
        static unsigned char page[4096];
        page[i % PAGE] = sample(i);
        if (i % PAGE == PAGE - 1) CHECK(write(file, page, PAGE) == (ssize_t)PAGE);
    }
    CHECK(pwrite(file, text, strlen(text), 0) == (ssize_t)strlen(text) && close(file) == 0);
}

// A file that is replaced, grows and shrinks: mappings that were made before keep theirs, new ones have the new bytes.
static void replaces(void) {
    char other[4096];
    snprintf(other, sizeof other, "%s.other", path);
    unsigned char *old = map(PROT_READ, MAP_PRIVATE, O_RDONLY, PAGES * PAGE);
    CHECK(served(old) && wrong(old, 0, 10 * PAGE) == 0);
    replace(other, "second", PAGES);
    CHECK(rename(other, path) == 0);
    must_read("second", 0, PAGES * PAGE);
    CHECK(wrong(old, 0, PAGES * PAGE) == 0);
    usleep(30000);
    unsigned char *second = map(PROT_READ, MAP_PRIVATE, O_RDONLY, PAGES * PAGE);
    CHECK(served(second));
    int file = open_file(path, O_RDWR | O_APPEND);
    for (int i = 0; i < 3; i++) {
        CHECK(write(file, "tail", 4) == 4);
        if (i == 1) usleep(30000);
        unsigned char *longer = map(PROT_READ, MAP_PRIVATE, O_RDONLY, (PAGES + 1) * PAGE);
        CHECK(memcmp(longer + PAGES * PAGE + 4 * i, "tail\0", 5) == 0 && memcmp(longer, "second", 6) == 0);
    }
    CHECK(ftruncate(file, 5 * PAGE + 50) == 0);
    for (int i = 0; i < 2; i++) {
        unsigned char *shorter = map(PROT_READ, MAP_PRIVATE, O_RDONLY, 6 * PAGE);
        CHECK(wrong(shorter + 100, 100, 5 * PAGE - 50) == 0);
        for (size_t at = 5 * PAGE + 50; at < 6 * PAGE; at++) CHECK(shorter[at] == 0);
        usleep(30000);
    }
}

int main(int count, char **words) {
    CHECK(count == 3);
    path = words[2];
    if (!strcmp(words[1], "stores")) stores();
    else if (!strcmp(words[1], "shared")) shared();
    else if (!strcmp(words[1], "readers")) readers();
    else if (!strcmp(words[1], "mixed")) mixed();
    else if (!strcmp(words[1], "rewrites")) rewrites();
    else if (!strcmp(words[1], "replaces")) replaces();
    else return 97;
    printf("%s done\n", words[1]);
    return 0;
}
