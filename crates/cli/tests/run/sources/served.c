// Serves a file system of one file by itself, in a process that forks before each answer, and maps that file.
//   served FOLDER   or `served FOLDER silent`, which never answers what is asked of the file once it is open
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sample.h"

#define LENGTH (16 * PAGE)

static int is_silent, is_open;

static struct fuse_attr attributes(uint64_t node) {
  struct fuse_attr attr = {.ino = node, .nlink = 1, .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644, .size = node == 1 ? 0 : LENGTH, .blksize = PAGE};
  attr.mtime = attr.ctime = 1000000000;
  return attr;
}

static void answer(int fuse, uint64_t unique, int error, const void *body, size_t length) {
  char buffer[LENGTH + 4096];
  struct fuse_out_header head = {.len = sizeof head + length, .error = error, .unique = unique};
  memcpy(buffer, &head, sizeof head);
  if (length) memcpy(buffer + sizeof head, body, length);
  if (write(fuse, buffer, head.len) < 0) perror("answer");
}

static void serve(int fuse) {
  static char buffer[1 << 18], bytes[LENGTH];
  for (;;) {
    ssize_t count = read(fuse, buffer, sizeof buffer);
    if (count < 0 && (errno == EINTR || errno == ENOENT)) continue;
    if (count < 0) _exit(0);
    struct fuse_in_header *in = (void *)buffer;
    void *body = buffer + sizeof *in;
    if (is_silent && is_open && in->opcode != FUSE_FORGET) continue;
    // The tracer has to do something before there is an answer.
    pid_t child = fork();
    if (!child) _exit(0);
    waitpid(child, 0, 0);
    if (in->opcode == FUSE_INIT) {
      struct fuse_init_in *asked = body;
      struct fuse_init_out out = {.major = 7, .minor = asked->minor, .max_readahead = 4096, .max_write = 4096, .max_background = 4, .congestion_threshold = 3};
      answer(fuse, in->unique, 0, &out, sizeof out);
    } else if (in->opcode == FUSE_LOOKUP) {
      struct fuse_entry_out out = {.nodeid = 2, .attr = attributes(2)};
      answer(fuse, in->unique, strcmp(body, "file") ? -ENOENT : 0, &out, strcmp(body, "file") ? 0 : sizeof out);
    } else if (in->opcode == FUSE_GETATTR) {
      struct fuse_attr_out out = {.attr = attributes(in->nodeid)};
      answer(fuse, in->unique, 0, &out, sizeof out);
    } else if (in->opcode == FUSE_OPEN || in->opcode == FUSE_OPENDIR) {
      struct fuse_open_out out = {.fh = 1};
      answer(fuse, in->unique, 0, &out, sizeof out);
      is_open = 1;
    } else if (in->opcode == FUSE_READ) {
      struct fuse_read_in *asked = body;
      size_t length = asked->offset >= LENGTH ? 0 : LENGTH - asked->offset;
      if (length > asked->size) length = asked->size;
      for (size_t at = 0; at < length; at++) bytes[at] = sample(asked->offset + at);
      answer(fuse, in->unique, 0, bytes, length);
    } else if (in->opcode == FUSE_STATFS) {
      struct fuse_statfs_out out = {.st = {.bsize = PAGE, .namelen = 255}};
      answer(fuse, in->unique, 0, &out, sizeof out);
    } else if (in->opcode != FUSE_FORGET && in->opcode != FUSE_INTERRUPT) {
      answer(fuse, in->unique, -ENOSYS, 0, 0);
    }
  }
}

int main(int count, char **words) {
  is_silent = count > 2;
  setvbuf(stdout, 0, _IOLBF, 0);
  int fuse = open("/dev/fuse", O_RDWR);
  char options[100], name[4096];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, getuid(), getgid());
  if (fuse < 0 || mount("served", words[1], "fuse", MS_NOSUID | MS_NODEV, options)) {
    puts("skipped: no file systems in user space");
    return 77;
  }
  pid_t server = fork();
  if (!server) serve(fuse);
  close(fuse);
  snprintf(name, sizeof name, "%s/file", words[1]);
  int file = open(name, O_RDONLY), wrong = 0;
  for (int round = 0; file >= 0 && round < 3; round++) {
    unsigned char *bytes = mmap(0, LENGTH, PROT_READ, MAP_PRIVATE, file, 0);
    if (bytes == MAP_FAILED) { wrong++; continue; }
    for (int at = 0; !is_silent && at < LENGTH; at += 100) wrong += bytes[at] != sample(at);
    munmap(bytes, LENGTH);
  }
  printf("open %d, wrong %d\n", file >= 0, wrong);
  umount2(words[1], MNT_DETACH);
  kill(server, SIGKILL);
  waitpid(server, 0, 0);
  return wrong;
}
