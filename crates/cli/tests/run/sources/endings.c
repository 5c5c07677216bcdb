// Processes that end in the middle of something.
//   exits MICROSECONDS   maps a file for ever; another thread ends the process with 7
//   maps                 maps a file for ever, having said its number
//   children COUNT       a second thread forks, and kills at once what it has forked
//   quiet                closes what it says, and ends when there is a file `go`
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *ender(void *microseconds) {
  usleep(atoi(microseconds));
  _exit(7);
}

static void *killer(void *count) {
  for (int left = atoi(count); left > 0; left--) {
    pid_t child = fork();
    if (!child) _exit(4);
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
  }
  return 0;
}

int main(int count, char **words) {
  pthread_t thread;
  if (!strcmp(words[1], "children")) {
    pthread_create(&thread, 0, killer, words[2]);
    pthread_join(thread, 0);
    puts("done");
    return 0;
  }
  if (!strcmp(words[1], "quiet")) {
    puts("quiet");
    fclose(stdout);
    close(1);
    while (access("go", F_OK)) usleep(1000);
    return 3;
  }
  if (!strcmp(words[1], "exits")) pthread_create(&thread, 0, ender, words[2]);
  printf("%d ready\n", getpid());
  fflush(stdout);
  int file = open("/proc/self/exe", O_RDONLY);
  for (;;) {
    void *mapped = mmap(0, 16384, PROT_READ, MAP_PRIVATE, file, 0);
    munmap(mapped, 16384);
  }
}
