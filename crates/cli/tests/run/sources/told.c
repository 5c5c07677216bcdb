// Says its number, waits for signals, and ends with 7 when it is told SIGTERM, with 8 when it is told SIGUSR1.
#include "sample.h"

static volatile sig_atomic_t told;

static void hear(int signal) { told = signal; }

int main(void) {
    sigset_t both, before;
    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &both, &before) == 0);
    CHECK(signal(SIGTERM, hear) != SIG_ERR && signal(SIGUSR1, hear) != SIG_ERR);
    printf("%d ready\n", getpid());
    fflush(stdout);
    while (!told) sigsuspend(&before);
    printf("told %s\n", told == SIGTERM ? "TERM" : "USR1");
    return told == SIGTERM ? 7 : 8;
}
