// Whether a file can be executed: MODE FILE. "later": mapped for reading and then made executable; "at once".
#include "sample.h"

int main(int count, char **words) {
    CHECK(count == 3);
    int at_once = !strcmp(words[1], "at-once");
    int file = open_file(words[2], O_RDONLY);
    int prot = at_once ? PROT_READ | PROT_EXEC : PROT_READ;
    unsigned char *at = mmap(0, PAGE, prot, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED) {
        printf("mmap: %s\n", strerror(errno));
        return 0;
    }
    volatile unsigned char touched = at[0];
    (void)touched;
    if (at_once || mprotect(at, PAGE, PROT_READ | PROT_EXEC) == 0) puts("executable");
    else printf("mprotect: %s\n", strerror(errno));
    return 0;
}
