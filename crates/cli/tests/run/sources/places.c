// A program that does something to its vDSO, then maps a file and forks in a thread.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sample.h"

static const char *name;

static int maps(const char *who) {
  int file = open(name, O_RDONLY);
  unsigned char *bytes = mmap(0, 16 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  int wrong = bytes == MAP_FAILED;
  for (int at = 0; !wrong && at < 16 * PAGE; at += 100) wrong = bytes[at] != sample(at);
  printf("%s: %s\n", who, wrong ? "wrong" : "right");
  fflush(stdout);
  return wrong;
}

static void *forks(void *x) {
  for (int at = 0; at < 3; at++) {
    int status = 0;
    pid_t child = syscall(SYS_fork);
    if (!child) syscall(SYS_exit_group, maps("child") ? 9 : 4);
    syscall(SYS_wait4, child, &status, 0, 0);
    printf("status %x\n", status);
  }
  return 0;
}

int main(int count, char **words) {
  char *vdso = (char *)getauxval(AT_SYSINFO_EHDR);
  name = words[2];
  if (!strcmp(words[1], "unmapped")) printf("%d\n", munmap(vdso, 2 * PAGE));
  if (!strcmp(words[1], "moved"))
    printf("%d\n", mremap(vdso, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, 0x200000000) == MAP_FAILED);
  if (!strcmp(words[1], "protected")) printf("%d\n", mprotect(vdso, 2 * PAGE, PROT_READ));
  if (!strcmp(words[1], "closed")) printf("%d\n", mprotect(vdso, 2 * PAGE, PROT_NONE));
  if (!strcmp(words[1], "replaced"))
    printf("%d\n", mmap(vdso, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != vdso);
  maps("first");
  pthread_t thread;
  pthread_create(&thread, 0, forks, 0);
  pthread_join(thread, 0);
  maps("last");
  return 0;
}
