// Sleeps in every way that there is, and says 0 if each has ended as it does when nobody interferes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IS(what) do { if (!(what)) { fprintf(stderr, "%s:%d: %s, errno %d\n", mode, __LINE__, #what, errno); return 1; } } while (0)

static const char *mode;
static volatile sig_atomic_t alarms, users;
static void on_alarm(int s) { alarms++; }
static void on_user(int s) { users++; }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void handle(int signal, void (*by)(int), int flags) {
  struct sigaction action = {.sa_handler = by, .sa_flags = flags};
  sigaction(signal, &action, 0);
}

static void alarm_in(int milliseconds) {
  struct itimerval timer = {.it_value = {.tv_usec = milliseconds * 1000}};
  setitimer(ITIMER_REAL, &timer, 0);
}

static void *writer(void *pipe) { usleep(150000); return (void *)write(((int *)pipe)[1], "x", 1); }
static void *waker(void *word) {
  usleep(150000);
  *(atomic_int *)word = 1;
  return (void *)syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
}

static int sleeps(void) {
  struct timespec t = {0, 150000000}, left;
  double since = now();
  IS(nanosleep(&t, 0) == 0 && now() - since >= 0.15);
  // A signal that is handled ends it, with what is left of its time.
  alarm_in(100);
  t.tv_sec = 20;
  IS(nanosleep(&t, &left) < 0 && errno == EINTR && alarms == 1 && left.tv_sec >= 10);
  since = now();
  IS(poll(0, 0, 150) == 0 && now() - since >= 0.15);
  alarm_in(100);
  IS(poll(0, 0, 20000) < 0 && errno == EINTR && alarms == 2);
  int e = epoll_create1(0);
  struct epoll_event event;
  alarm_in(100);
  IS(epoll_wait(e, &event, 1, -1) < 0 && errno == EINTR && alarms == 3);
  int ends[2];
  pthread_t thread;
  IS(pipe(ends) == 0 && epoll_ctl(e, EPOLL_CTL_ADD, ends[0], &(struct epoll_event){.events = EPOLLIN}) == 0);
  pthread_create(&thread, 0, writer, ends);
  IS(epoll_wait(e, &event, 1, -1) == 1);
  pthread_join(thread, 0);
  atomic_int word = 0;
  t = (struct timespec){0, 150000000};
  IS(syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, 0, 0) < 0 && errno == ETIMEDOUT);
  pthread_create(&thread, 0, waker, &word);
  while (!word) IS(syscall(SYS_futex, &word, FUTEX_WAIT, 0, 0, 0, 0) == 0 || errno == EAGAIN);
  pthread_join(thread, 0);
  return 0;
}

static int reads(void) {
  int ends[2];
  char byte = 0;
  pthread_t thread;
  IS(pipe(ends) == 0);
  pthread_create(&thread, 0, writer, ends);
  IS(read(ends[0], &byte, 1) == 1 && byte == 'x');
  pthread_join(thread, 0);
  alarm_in(100);
  IS(read(ends[0], &byte, 1) < 0 && errno == EINTR && alarms == 1);
  // One with SA_RESTART does not end it.
  handle(SIGALRM, on_alarm, SA_RESTART);
  alarm_in(50);
  pthread_create(&thread, 0, writer, ends);
  IS(read(ends[0], &byte, 1) == 1 && alarms == 2);
  pthread_join(thread, 0);
  return 0;
}

// While it sleeps SIGUSR1 is blocked, and SIGALRM is not; before and after it is the other way round.
static int masks(void) {
  sigset_t usual, asleep, found;
  sigemptyset(&usual);
  sigaddset(&usual, SIGALRM);
  sigemptyset(&asleep);
  sigaddset(&asleep, SIGUSR1);
  sigprocmask(SIG_SETMASK, &usual, 0);
  for (int at = 0; at < 3; at++) {
    pid_t child = fork();
    if (!child) { usleep(50000); kill(getppid(), SIGUSR1); usleep(100000); kill(getppid(), SIGALRM); _exit(0); }
    struct timespec t = {20, 0};
    int answer = at == 0 ? sigsuspend(&asleep) : at == 1 ? ppoll(0, 0, &t, &asleep) : pselect(0, 0, 0, 0, &t, &asleep);
    IS(answer < 0 && errno == EINTR && alarms == at + 1);
    IS(users == at + 1);
    sigprocmask(SIG_SETMASK, 0, &found);
    IS(sigismember(&found, SIGALRM) && !sigismember(&found, SIGUSR1));
    IS(waitpid(child, 0, 0) == child);
  }
  return 0;
}

static atomic_int is_asleep;
static void *sleeper(void *x) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGUSR2);
  is_asleep = 1;
  return (void *)(intptr_t)sigwaitinfo(&wanted, 0);
}
static int waits(void) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGUSR2);
  sigprocmask(SIG_BLOCK, &wanted, 0);
  pthread_t thread;
  void *signal;
  pthread_create(&thread, 0, sleeper, 0);
  while (!is_asleep) sched_yield();
  usleep(150000);
  kill(getpid(), SIGUSR2);
  pthread_join(thread, &signal);
  IS((intptr_t)signal == SIGUSR2);
  return 0;
}

static int works(void) {
  uint64_t sum = 1, again = 1;
  double since = now();
  long rounds = 0;
  while (now() - since < 0.2) {
    double x = 1;
    for (int at = 0; at < 10000; at++) { sum = sum * 6364136223846793005u + 1; x *= 1.0001; }
    rounds++;
    IS(x > 2.7 && x < 2.72);
  }
  for (long at = 0; at < rounds * 10000; at++) again = again * 6364136223846793005u + 1;
  IS(sum == again);
  return 0;
}

static int faults(const char *file) {
  int fd = open(file, O_RDONLY);
  long length = 2 << 20;
  for (double since = now(); now() - since < 0.3;) {
    unsigned char *bytes = mmap(0, length, PROT_READ, MAP_PRIVATE, fd, 0), byte;
    IS(bytes != MAP_FAILED);
    for (long at = 0; at < length; at += 4096) { IS(pread(fd, &byte, 1, at) == 1); IS(bytes[at] == byte); }
    munmap(bytes, length);
  }
  return 0;
}

static int children(void) {
  for (int at = 0; at < 3; at++) {
    pid_t child = vfork();
    if (!child) { usleep(60000); _exit(5); }
    int status;
    IS(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    child = fork();
    if (!child) { usleep(30000); _exit(6); }
    IS(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 6);
  }
  return 0;
}

static int stops(void) {
  pid_t child = fork();
  if (!child) { for (;;) { kill(getppid(), SIGUSR1); usleep(1000); } }
  struct timespec t = {0, 1000000};
  while (users < 50) nanosleep(&t, 0);
  IS(kill(child, SIGSTOP) == 0);
  int status;
  IS(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  int before = users;
  usleep(100000);
  IS(users <= before + 1);
  IS(kill(child, SIGCONT) == 0 && waitpid(child, &status, WCONTINUED) == child);
  while (users < before + 50) nanosleep(&t, 0);
  kill(child, SIGKILL);
  IS(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
  return 0;
}

int main(int count, char **words) {
  mode = words[1];
  handle(SIGALRM, on_alarm, 0);
  handle(SIGUSR1, on_user, 0);
  if (!strcmp(mode, "sleeps")) return sleeps();
  if (!strcmp(mode, "reads")) return reads();
  if (!strcmp(mode, "masks")) return masks();
  if (!strcmp(mode, "waits")) return waits();
  if (!strcmp(mode, "works")) return works();
  if (!strcmp(mode, "faults")) return faults(words[2]);
  if (!strcmp(mode, "children")) return children();
  if (!strcmp(mode, "stops")) return stops();
  return 2;
}
