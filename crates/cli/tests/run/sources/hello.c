// Says its arguments, checks data that is stored to and data that is not, and ends with the number of arguments.
#include "sample.h"

static int stored_to[4096] = {1, 2, 3};
static const char constant[20000] = "constant";
static int cleared[5000];

int main(int count, char **words) {
    for (int i = 1; i < count; i++) printf("%s\n", words[i]);
    for (int i = 0; i < 4096; i++) stored_to[i] += i;
    long sum = 0;
    for (int i = 0; i < 4096; i++) sum += stored_to[i];
    for (int i = 0; i < 5000; i++) sum += cleared[i];
    for (int i = 0; i < 20000; i++) sum += constant[i];
    CHECK(served(constant) && served((void *)(uintptr_t)&main));
    char link[4096];
    long length = readlink("/proc/self/exe", link, sizeof link);
    CHECK(length > 0);
    printf("%ld %.*s\n", sum, (int)length, link);
    return count;
}
