// A machine monitor without a machine: restores memory by the handshake of Firecracker, and touches it as virtual processors do.
//
//   monitor SOCKET FILE [name=value]...
//
//   regions=N    the memory is in N regions                    threads=N   so many threads touch each page
//   huge=1       pages of 2 MiB                                rounds=N    so often
//   kernel=1     every other thread touches by write(2)        part=N      N of 100 pages, in an order of its own
//   remove=N     so many blocks are given up, at random        seed=N      of all that is random
//   pause=N      microseconds after each page                  store=1     every page is stored to as well
//   plain=1      the memory is a private mapping of FILE, which the kernel serves; each page is loaded, not compared
//   load=1       pages are loaded, not compared
//
// Each page is compared with FILE, or with zeros once it was given up. Exit status: 0 all were right, 1 some were not, 2 it could not
// begin.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MOST_REGIONS = 8, MOST_THREADS = 128 };
static const uint64_t BLOCK = 2 << 20;

static struct {
    char *start;
    uint64_t length;
} regions[MOST_REGIONS];
static int region_count;
static const char *file;
static uint64_t length, pages;
// Of each block: whether it was given up, and who looks at it meanwhile.
static unsigned char *given_up;
static pthread_rwlock_t *looks;
static uint32_t *order;
static uint64_t order_length, wrong;
static long threads = 4, rounds = 1, kernel, removes, pause_microseconds, part = 100, seed = 1, huge, stores, plain, loads;

static void fail(const char *what) {
    fprintf(stderr, "monitor: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint64_t random_number(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static char *at(uint64_t offset) {
    int index = 0;
    while (offset >= regions[index].length)
        offset -= regions[index++].length;
    return regions[index].start + offset;
}

static void compare(uint64_t page, const char *bytes, const char *how) {
    static const char zeros[PAGE];
    const char *want = given_up[page * PAGE / BLOCK] ? zeros : file + page * PAGE;
    if (memcmp(bytes, want, PAGE) && __sync_fetch_and_add(&wrong, 1) < 3)
        fprintf(stderr, "monitor: page %lu is wrong (%s, %s)\n", page, how,
                given_up[page * PAGE / BLOCK] ? "given up" : "of the file");
}

static void touch(uint64_t page, int pipes[2]) {
    char *bytes = at(page * PAGE);
    if (loads || plain) {
        (void)*(volatile char *)bytes;
        return;
    }
    if (!pipes) {
        compare(page, bytes, "load");
        if (stores) {
            // The same byte: what is compared later stays right.
            volatile char *first = bytes;
            *first = *first;
        }
        return;
    }
    char copy[PAGE];
    if (write(pipes[1], bytes, PAGE) != PAGE) {
        fprintf(stderr, "monitor: write of page %lu: %s\n", page, strerror(errno));
        __sync_fetch_and_add(&wrong, 1);
        return;
    }
    for (ssize_t got = 0, more; got < PAGE; got += more)
        if ((more = read(pipes[0], copy + got, PAGE - got)) <= 0)
            fail("read a pipe");
    compare(page, copy, "write(2)");
}

static void *processor(void *argument) {
    long number = (long)argument;
    uint64_t state = seed * 1000 + number;
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC))
        fail("make a pipe");
    for (long round = 0; round < rounds; round++) {
        // In rounds of an even number from some page on, else at random; a part of all pages in its order.
        uint64_t first = random_number(&state) % order_length;
        for (uint64_t i = 0; i < order_length; i++) {
            uint64_t index = part < 100 ? i : round % 2 ? random_number(&state) % order_length : (first + i) % order_length;
            if (part < 100 && i % threads != (uint64_t)number)
                continue;
            uint64_t page = order[index];
            pthread_rwlock_rdlock(&looks[page * PAGE / BLOCK]);
            touch(page, kernel && number % 2 ? pipes : 0);
            pthread_rwlock_unlock(&looks[page * PAGE / BLOCK]);
            if (pause_microseconds)
                usleep(pause_microseconds);
        }
    }
    close(pipes[0]);
    close(pipes[1]);
    return 0;
}

static void *balloon(void *argument) {
    (void)argument;
    uint64_t state = seed * 77;
    for (long i = 0; i < removes; i++) {
        uint64_t block = random_number(&state) % (length / BLOCK);
        // Who gives pages up expects nothing of them meanwhile.
        pthread_rwlock_wrlock(&looks[block]);
        if (madvise(at(block * BLOCK), BLOCK, MADV_DONTNEED))
            fprintf(stderr, "monitor: madvise: %s\n", strerror(errno));
        given_up[block] = 1;
        pthread_rwlock_unlock(&looks[block]);
        usleep(1000);
    }
    return 0;
}

static int make_userfaultfd(void) {
    int flags = O_CLOEXEC | O_NONBLOCK;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int descriptor = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, flags) : (int)syscall(SYS_userfaultfd, flags);
    if (descriptor < 0)
        fail("make a userfaultfd");
    if (device >= 0)
        close(device);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    if (ioctl(descriptor, UFFDIO_API, &api))
        fail("UFFDIO_API");
    return descriptor;
}

static void map_memory(int faults) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (huge ? MAP_HUGETLB | 21 << MAP_HUGE_SHIFT : 0);
    for (int i = 0; i < region_count; i++) {
        regions[i].length = length / region_count;
        regions[i].start = mmap(0, regions[i].length, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (regions[i].start == MAP_FAILED)
            fail("map memory");
        struct uffdio_register range = {.range = {(uint64_t)regions[i].start, regions[i].length},
                                        .mode = UFFDIO_REGISTER_MODE_MISSING};
        if (ioctl(faults, UFFDIO_REGISTER, &range))
            fail("UFFDIO_REGISTER");
    }
}

static void shake_hands(const char *path, int faults) {
    char text[4096];
    int count = 0;
    uint64_t offset = 0;
    for (int i = 0; i < region_count; i++) {
        count += snprintf(text + count, sizeof text - count,
                          "%c{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":%lu,\"page_size\":%lu,\"page_size_kib\":%lu}",
                          i ? ',' : '[', (uint64_t)regions[i].start, regions[i].length, offset, huge ? BLOCK : PAGE,
                          huge ? BLOCK : PAGE);
        offset += regions[i].length;
    }
    text[count++] = ']';
    struct sockaddr_un address = {AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (line < 0 || connect(line, (void *)&address, sizeof address))
        fail(path);
    char control[CMSG_SPACE(sizeof faults)] = {0};
    struct iovec bytes = {text, count};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof faults);
    memcpy(CMSG_DATA(head), &faults, sizeof faults);
    if (sendmsg(line, &message, 0) != count)
        fail("send the regions");
}

static void choose_order(void) {
    order = malloc(pages * sizeof *order);
    for (uint64_t i = 0; i < pages; i++)
        order[i] = i;
    order_length = pages;
    if (part < 100) {
        uint64_t state = seed;
        order_length = pages * part / 100;
        for (uint64_t i = 0; i < order_length; i++) {
            uint64_t other = i + random_number(&state) % (pages - i);
            uint32_t page = order[i];
            order[i] = order[other];
            order[other] = page;
        }
    }
}

static void read_options(int count, char **words) {
    struct {
        const char *name;
        long *value;
    } known[] = {{"threads", &threads}, {"rounds", &rounds}, {"kernel", &kernel}, {"remove", &removes},
                 {"pause", &pause_microseconds}, {"part", &part}, {"seed", &seed}, {"huge", &huge}, {"store", &stores}, {"plain", &plain}, {"load", &loads}};
    region_count = 1;
    for (int i = 3; i < count; i++) {
        char *value = strchr(words[i], '=');
        int found = 0;
        for (size_t k = 0; value && k < sizeof known / sizeof *known; k++)
            if (!strncmp(words[i], known[k].name, value - words[i]) && !known[k].name[value - words[i]]) {
                *known[k].value = strtol(value + 1, 0, 0);
                found = 1;
            }
        if (value && !strncmp(words[i], "regions=", 8)) {
            region_count = atoi(value + 1);
            found = 1;
        }
        if (!found || region_count < 1 || region_count > MOST_REGIONS || threads > MOST_THREADS) {
            fprintf(stderr, "monitor: %s is no option\n", words[i]);
            exit(2);
        }
    }
}

int main(int count, char **words) {
    if (count < 3)
        return fprintf(stderr, "usage: monitor SOCKET FILE [name=value]...\n"), 2;
    read_options(count, words);
    int descriptor = open(words[2], O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status))
        fail(words[2]);
    length = status.st_size;
    pages = length / PAGE;
    if (!length || length % (BLOCK * region_count)) {
        errno = EINVAL;
        fail("the length must be a multiple of 2 MiB for each region");
    }
    file = mmap(0, length, PROT_READ, MAP_PRIVATE, descriptor, 0);
    given_up = calloc(length / BLOCK, 1);
    looks = calloc(length / BLOCK, sizeof *looks);
    for (uint64_t i = 0; i < length / BLOCK; i++)
        pthread_rwlock_init(&looks[i], 0);
    choose_order();
    double connects = now();
    if (plain) {
        region_count = 1;
        regions[0].length = length;
        regions[0].start = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
    } else {
        int faults = make_userfaultfd();
        map_memory(faults);
        connects = now();
        shake_hands(words[1], faults);
    }
    pthread_t processors[MOST_THREADS], gives_up;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&processors[i], 0, processor, (void *)i))
            fail("start a thread");
    if (removes && pthread_create(&gives_up, 0, balloon, 0))
        fail("start a thread");
    for (long i = 0; i < threads; i++)
        pthread_join(processors[i], 0);
    if (removes)
        pthread_join(gives_up, 0);
    printf("wrong=%lu seconds=%.6f\n", wrong, now() - connects);
    return wrong ? 1 : 0;
}
