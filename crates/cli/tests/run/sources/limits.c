// Programs near the limits of who serves them.
//   crowd COUNT FILE     COUNT children that have mapped FILE live at once, and look at it again when all are there
//   files COUNT FOLDER   maps COUNT files and looks at all
//   untraced FILE        children that ask not to be traced map FILE
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sample.h"

static unsigned char *map(const char *name) {
  int file = open(name, O_RDONLY);
  unsigned char *bytes = mmap(0, 4 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  return bytes == MAP_FAILED ? 0 : bytes;
}

static int is_wrong(unsigned char *bytes) {
  for (int at = 0; at < 4 * PAGE; at += 500)
    if (bytes[at] != sample(at)) return 1;
  return 0;
}

static int crowd(int count, const char *name) {
  int go[2], ready[2], wrong = 0, status;
  char byte;
  if (pipe(go) || pipe(ready)) return 2;
  unsigned char *ours = map(name);
  for (int at = 0; at < count; at++) {
    pid_t child = fork();
    if (child < 0) return 2;
    if (!child) {
      close(go[1]);
      if (write(ready[1], "r", 1) != 1) _exit(3);
      if (read(go[0], &byte, 1) != 0) _exit(4);
      _exit(is_wrong(ours) || is_wrong(map(name)) ? 1 : 0);
    }
  }
  for (int at = 0; at < count; at++)
    if (read(ready[0], &byte, 1) != 1) return 2;
  close(go[1]);
  while (wait(&status) > 0) wrong += status != 0;
  printf("%d wrong of %d\n", wrong, count);
  return 0;
}

static int files(int count, const char *folder) {
  char name[4096];
  int wrong = 0;
  unsigned char **all = calloc(count, sizeof *all);
  for (int at = 0; at < count; at++) {
    snprintf(name, sizeof name, "%s/%d", folder, at);
    all[at] = map(name);
    wrong += !all[at];
  }
  for (int at = 0; at < count; at++) wrong += all[at] && is_wrong(all[at]);
  pid_t child = fork();
  if (!child) {
    for (int at = 0; at < count; at += 7)
      if (is_wrong(all[at])) _exit(1);
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  printf("%d wrong of %d, child %x\n", wrong, count, status);
  return 0;
}

static int untraced(const char *name) {
  unsigned char *ours = map(name);
  for (int how = 0; how < 2; how++) {
    struct clone_args args = {.flags = CLONE_UNTRACED, .exit_signal = SIGCHLD};
    long child = how ? syscall(SYS_clone3, &args, sizeof args) : syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
    if (!child) _exit(is_wrong(ours) || is_wrong(map(name)) ? 1 : 9);
    int status;
    waitpid(child, &status, 0);
    printf("status %x\n", status);
  }
  return 0;
}

int main(int count, char **words) {
  if (!strcmp(words[1], "crowd")) return crowd(atoi(words[2]), words[3]);
  if (!strcmp(words[1], "files")) return files(atoi(words[2]), words[3]);
  return untraced(words[2]);
}
