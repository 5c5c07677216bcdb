// What the test programs share.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul

// Ends the program, naming the line, unless the condition holds.
#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            dprintf(2, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);  \
            _exit(98);                                                                            \
        }                                                                                         \
    } while (0)

// The byte at an offset of every sample file.
static inline unsigned char sample(uint64_t offset) {
    uint64_t z = (offset / 8 + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z ^= z >> 27;
    return z >> (8 * (offset % 8));
}

// How many of these bytes are not the sample's.
static inline uint64_t wrong(const volatile unsigned char *bytes, uint64_t offset, uint64_t length) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < length; i++) count += bytes[i] != sample(offset + i);
    return count;
}

// Whether lent frames are mapped at the address; always, as far as anybody asks, in a native run.
static inline int served(const void *address) {
    if (!getenv("SERVED")) return 1;
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4352];
    int found = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= (unsigned long)address && (unsigned long)address < end)
            found = strstr(line, "/memfd:memobj") != 0;
    }
    if (maps) fclose(maps);
    return found;
}

static inline int open_file(const char *path, int flags) {
    int file = open(path, flags | O_CLOEXEC);
    CHECK(file >= 0);
    return file;
}

// A mapping of a whole file, privately, that may be stored to.
static inline unsigned char *map_private(const char *path, size_t *length) {
    int file = open_file(path, O_RDONLY);
    struct stat about;
    CHECK(fstat(file, &about) == 0);
    unsigned char *bytes = mmap(0, about.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    CHECK(bytes != MAP_FAILED && close(file) == 0);
    if (length) *length = about.st_size;
    return bytes;
}
