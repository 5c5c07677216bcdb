/* What a caller of mmapobj relies on. Argument: a position-independent program. Files: see c.rs. */
#include <errno.h>
#include <fcntl.h>
#include <memobj.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOM 16
#define BOTH (MMOBJ_INTERPRET | MMOBJ_PADDING)

static mmapobj_result_t got[ROOM];
static unsigned count;

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "line %d: %s (errno %d, %u elements)\n", __LINE__, #condition, errno, count); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* The errno, or 0. */
static int call(int fd, unsigned flags, unsigned room, size_t *padding) {
    count = room;
    errno = 0;
    return mmapobj(fd, flags, got, &count, padding) == 0 ? 0 : errno;
}

static int file(const char *name, int flags) {
    int fd = open(name, flags);
    CHECK(fd >= 0);
    return fd;
}

static void unmap(void) {
    for (unsigned i = 0; i < count; i++) CHECK(munmap(got[i].mr_addr, got[i].mr_msize) == 0);
}

/* Lines in the table of mappings. */
static int mappings(void) {
    char buffer[1 << 14];
    int lines = 0, fd = file("/proc/self/maps", O_RDONLY);
    ssize_t length;
    while ((length = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < length; i++) lines += buffer[i] == '\n';
    close(fd);
    return lines;
}

static void layout(void) {
    CHECK(sizeof(mmapobj_result_t) == 40 && offsetof(mmapobj_result_t, mr_msize) == 8);
    CHECK(offsetof(mmapobj_result_t, mr_fsize) == 16 && offsetof(mmapobj_result_t, mr_offset) == 24);
    CHECK(offsetof(mmapobj_result_t, mr_prot) == 32 && offsetof(mmapobj_result_t, mr_flags) == 36);
    CHECK(MR_GET_TYPE(0x80000000u | MR_HDR_ELF) == MR_HDR_ELF);
}

static void shared(const char *program) {
    int fd = file(program, O_RDONLY);
    unsigned needed;
    size_t padding = 1;
    count = 0;
    CHECK(mmapobj(fd, MMOBJ_INTERPRET, NULL, &count, NULL) == -1 && errno == E2BIG && count > 1);
    needed = count;
    CHECK(call(fd, MMOBJ_INTERPRET, ROOM, NULL) == 0 && count == needed);
    CHECK(MR_GET_TYPE(got[0].mr_flags) == MR_HDR_ELF && memcmp(got[0].mr_addr + got[0].mr_offset, "\177ELF", 4) == 0);
    for (unsigned i = 0; i < count; i++) {
        char *byte = got[i].mr_addr + got[i].mr_offset + got[i].mr_fsize;
        if (got[i].mr_prot & PROT_READ)
            for (; byte < got[i].mr_addr + got[i].mr_msize; byte++) CHECK(*byte == 0);
        if (got[i].mr_prot & PROT_WRITE) got[i].mr_addr[got[i].mr_offset] = 1;
    }
    unmap();
    CHECK(call(fd, BOTH, needed + 1, &padding) == E2BIG && count == needed + 2);
    CHECK(call(fd, BOTH, ROOM, &padding) == 0 && count == needed + 2);
    CHECK(got[0].mr_flags == MR_PADDING && got[0].mr_msize == 4096 && got[0].mr_prot == PROT_NONE);
    CHECK(got[0].mr_addr + 4096 == got[1].mr_addr && got[count - 1].mr_flags == MR_PADDING);
    /* Padding becomes memory. */
    CHECK(mprotect(got[0].mr_addr, got[0].mr_msize, PROT_READ | PROT_WRITE) == 0 && got[0].mr_addr[7] == 0);
    unmap();
    padding = 0;
    CHECK(call(fd, BOTH, ROOM, &padding) == 0 && count == needed);
    unmap();
    padding = (size_t)-1;
    CHECK(call(fd, BOTH, ROOM, &padding) == ENOMEM);
    close(fd);
}

static void arguments(const char *program) {
    int fd = file(program, O_RDONLY), other;
    size_t padding = 4096;
    void *bad = (void *)16;
    int before;
    CHECK(call(fd, 0x40000, ROOM, NULL) == EINVAL && call(-1, 1, ROOM, NULL) == EINVAL);
    CHECK(call(-1, MMOBJ_INTERPRET, ROOM, &padding) == EINVAL);
    CHECK(call(-1, 0, ROOM, NULL) == EBADF && call(9999, 0, ROOM, NULL) == EBADF);
    other = file(program, O_PATH);
    CHECK(call(other, 0, ROOM, NULL) == EBADF);
    close(other);
    other = file("text", O_WRONLY);
    CHECK(mmapobj(other, 0, got, bad, NULL) == -1 && errno == EACCES);
    close(other);
    CHECK(mmapobj(fd, 0, got, bad, NULL) == -1 && errno == EFAULT);
    CHECK(mmapobj(fd, 0, got, NULL, NULL) == -1 && errno == EFAULT);
    CHECK(call(fd, BOTH, ROOM, NULL) == EFAULT && call(fd, BOTH, ROOM, bad) == EFAULT);
    before = mappings();
    count = ROOM;
    CHECK(mmapobj(fd, MMOBJ_INTERPRET, bad, &count, NULL) == -1 && errno == EFAULT);
    CHECK(count > 1 && count < ROOM);
    CHECK(mappings() == before);
    close(fd);
}

static void kinds(void) {
    int fd = file(".", O_RDONLY);
    size_t padding = 5000;
    CHECK(call(fd, 0, 0, NULL) == E2BIG && count == 1);
    CHECK(call(fd, 0, ROOM, NULL) == ENODEV && call(fd, MMOBJ_INTERPRET, ROOM, NULL) == ENODEV);
    close(fd);
    fd = file("/dev/null", O_RDONLY);
    CHECK(call(fd, 0, ROOM, NULL) == ENODEV && call(fd, MMOBJ_INTERPRET, ROOM, NULL) == ENODEV);
    close(fd);
    fd = file("empty", O_RDONLY);
    CHECK(call(fd, 0, ROOM, NULL) == EINVAL && call(fd, MMOBJ_INTERPRET, ROOM, NULL) == EINVAL);
    close(fd);
    fd = file("text", O_RDWR);
    CHECK(call(fd, MMOBJ_INTERPRET, ROOM, NULL) == ENOTSUP);
    CHECK(call(fd, MMOBJ_PADDING, 2, &padding) == E2BIG && count == 3);
    CHECK(call(fd, MMOBJ_PADDING, ROOM, &padding) == 0 && count == 3 && got[0].mr_msize == 8192);
    unmap();
    CHECK(call(fd, 0, ROOM, NULL) == 0 && count == 1 && got[0].mr_msize == 200 && got[0].mr_fsize == 200);
    CHECK(got[0].mr_prot == PROT_READ && got[0].mr_flags == 0 && memcmp(got[0].mr_addr, "some text\n", 10) == 0);
    unmap();
    close(fd);
}

static void objects(void) {
    struct stat attributes;
    int fd = open("object", O_RDONLY);
    CHECK(fd >= 0 && fstat(fd, &attributes) == 0);
    CHECK(call(fd, MMOBJ_INTERPRET, ROOM, NULL) == 0 && count == 1 && MR_GET_TYPE(got[0].mr_flags) == MR_HDR_ELF);
    CHECK(got[0].mr_msize == (size_t)attributes.st_size && got[0].mr_prot == PROT_READ);
    unmap();
    close(fd);
    fd = file("fixed", O_RDONLY);
    CHECK(call(fd, MMOBJ_INTERPRET, ROOM, NULL) == 0 && (size_t)got[0].mr_addr == 0x10000000);
    CHECK(call(fd, MMOBJ_INTERPRET, 0, NULL) == E2BIG);
    CHECK(call(fd, MMOBJ_INTERPRET, ROOM, NULL) == EADDRINUSE);
    close(fd);
}

static void locks(void) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = file("text", O_RDWR), status;
    CHECK(fcntl(fd, F_SETLK, &lock) == 0);
    CHECK(call(fd, 0, ROOM, NULL) == 0);
    unmap();
    if (fork() == 0) _exit(call(fd, 0, ROOM, NULL) == EAGAIN && call(fd, 0, 0, NULL) == E2BIG ? 0 : 1);
    CHECK(wait(&status) > 0 && status == 0);
    close(fd);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    layout();
    shared(argv[1]);
    arguments(argv[1]);
    kinds();
    objects();
    locks();
    puts("all of mmapobj");
    return 0;
}
