// 64 threads load copies of a library at once, call it, and unload it.
#include "sample.h"
#include <dlfcn.h>
#include <pthread.h>

static const char *folder;

static void *load(void *argument) {
    long index = (long)argument, sum = 0;
    char path[4096];
    for (int round = 0; round < 3; round++) {
        snprintf(path, sizeof path, "%s/plugin%ld.so", folder, (index + round) % 16);
        void *library = dlopen(path, RTLD_NOW);
        if (!library) dprintf(2, "%s\n", dlerror());
        CHECK(library);
        int (*call)(int) = (int (*)(int))dlsym(library, "plugin_sum");
        CHECK(call && served((void *)(uintptr_t)call));
        sum += call(index);
        CHECK(dlclose(library) == 0);
    }
    return (void *)sum;
}

int main(int count, char **words) {
    CHECK(count == 2);
    folder = words[1];
    pthread_t threads[64];
    long sum = 0;
    for (long i = 0; i < 64; i++) CHECK(pthread_create(&threads[i], 0, load, (void *)i) == 0);
    for (int i = 0; i < 64; i++) {
        void *part;
        CHECK(pthread_join(threads[i], &part) == 0);
        sum += (long)part;
    }
    printf("%ld\n", sum);
    return 0;
}
