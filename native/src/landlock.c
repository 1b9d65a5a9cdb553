/*
 * Leaves this process only the files and folders that it is told (landlock(7)): whatever lies elsewhere cannot be opened, listed, made or
 * removed from then on, by any thread, for good. Descriptors that are open stay as they are; sockets are not the business of this.
 *
 * The kernel restricts the thread that asks and those it makes later. Node has had its threads for a while by then, and restricting one
 * thread alone would leave every asynchronous read free. So each thread is made to ask: a signal goes to one after the other, and its
 * handler makes the two system calls. The signal is the one that the C library keeps for itself to run setuid(2) on all threads: no thread
 * can block it. It is lent for as long as this takes; nobody calls setuid meanwhile, for this thread is the one that runs JavaScript.
 * Threads are listed again until no new one turns up, and the caller's own comes last.
 */

#include "netemu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The kernel's interface, by its numbers: the headers of an older system lack the later ones. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

enum {
  FS_EXECUTE = 1 << 0,
  FS_WRITE_FILE = 1 << 1,
  FS_READ_FILE = 1 << 2,
  FS_READ_DIR = 1 << 3,
  FS_REMOVE_FILE = 1 << 5,
  FS_MAKE_REG = 1 << 8,
  FS_MAKE_SOCK = 1 << 9,
  FS_MAKE_SYM = 1 << 12,
  FS_TRUNCATE = 1 << 14,  /* since ABI 3 */
  FS_IOCTL_DEV = 1 << 15, /* since ABI 5 */
  FS_FIRST = (1 << 13) - 1,
  FS_REFER = 1 << 13, /* since ABI 2 */
  FS_OF_FILES = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV
};

struct ruleset_attributes {
  uint64_t fs;
};

struct path_rule {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

int ne_landlock_abi(void) {
  long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
  return abi < 0 ? -errno : (int)abi;
}

static uint64_t rights_of(unsigned rights) {
  uint64_t fs = 0;
  if (rights & NE_MAY_READ) fs |= FS_READ_FILE | FS_READ_DIR;
  if (rights & NE_MAY_WRITE) fs |= FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE | FS_READ_DIR | FS_MAKE_REG | FS_MAKE_SYM | FS_REMOVE_FILE;
  if (rights & NE_MAY_BIND) fs |= FS_MAKE_SOCK | FS_REMOVE_FILE;
  if (rights & NE_MAY_RUN) fs |= FS_READ_FILE | FS_EXECUTE;
  if (rights & NE_MAY_DRIVE) fs |= FS_READ_FILE | FS_WRITE_FILE | FS_READ_DIR | FS_IOCTL_DEV;
  return fs;
}

int ne_landlock_ruleset(void) {
  int abi = ne_landlock_abi();
  if (abi < 0) return abi;
  struct ruleset_attributes attributes = {.fs = FS_FIRST};
  if (abi >= 2) attributes.fs |= FS_REFER;
  if (abi >= 3) attributes.fs |= FS_TRUNCATE;
  if (abi >= 5) attributes.fs |= FS_IOCTL_DEV;
  long fd = syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
  return fd < 0 ? -errno : (int)fd;
}

int ne_landlock_allow_open(int ruleset, int place, unsigned rights) {
  int abi = ne_landlock_abi();
  if (abi < 0) return abi;
  struct path_rule rule = {.allowed = rights_of(rights), .parent = place};
  struct stat about;
  if (fstat(place, &about) != 0) return -errno;
  if (!S_ISDIR(about.st_mode)) rule.allowed &= FS_OF_FILES;
  if (abi < 3) rule.allowed &= ~(uint64_t)FS_TRUNCATE;
  if (abi < 5) rule.allowed &= ~(uint64_t)FS_IOCTL_DEV;
  if (rule.allowed == 0) return 0;
  return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) == 0 ? 0 : -errno;
}

int ne_landlock_allow(int ruleset, const char *path, unsigned rights) {
  int place = open(path, O_PATH | O_CLOEXEC);
  if (place < 0) return -errno;
  int error = ne_landlock_allow_open(ruleset, place, rights);
  close(place);
  return error;
}

/* --- every thread --- */

enum { EVERY_THREAD_SIGNAL = 33, PATIENCE_S = 5, MAX_THREADS = 4096 };

/* rt_sigaction(2)'s own structure: the C library's function does not take this signal. */
struct kernel_action {
  void (*handler)(int);
  unsigned long flags;
#if defined(__x86_64__) || defined(__aarch64__)
  void (*restorer)(void);
#endif
  uint64_t mask;
};

static _Atomic int wanted_ruleset = -1;
static _Atomic int thread_error;
static sem_t answered;

static int restrict_thread(int ruleset) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  return syscall(SYS_landlock_restrict_self, ruleset, 0) == 0 ? 0 : errno;
}

static void on_signal(int signal_number) {
  (void)signal_number;
  int before = errno;
  int error = restrict_thread(atomic_load(&wanted_ruleset));
  if (error != 0) atomic_store(&thread_error, error);
  sem_post(&answered);
  errno = before;
}

#if defined(__x86_64__)
/* Where the handler returns to: rt_sigreturn(2). */
__attribute__((naked)) static void back_to_kernel(void) { __asm__ volatile("mov $15, %eax\n\tsyscall"); }
#endif

static int set_action(const struct kernel_action *action, struct kernel_action *before) {
  return syscall(SYS_rt_sigaction, EVERY_THREAD_SIGNAL, action, before, sizeof(uint64_t)) == 0 ? 0 : -errno;
}

/* 0: it asked (with what result, thread_error tells); 1: there is no such thread any more. */
static int tell(pid_t process, pid_t thread) {
  if (syscall(SYS_tgkill, process, thread, EVERY_THREAD_SIGNAL) != 0) return errno == ESRCH ? 1 : -errno;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += PATIENCE_S;
  while (sem_timedwait(&answered, &until) != 0) {
    if (errno == EINTR) continue;
    return syscall(SYS_tgkill, process, thread, 0) != 0 && errno == ESRCH ? 1 : -EBUSY;
  }
  return 0;
}

static bool known(const pid_t *told, size_t count, pid_t thread) {
  for (size_t i = 0; i < count; i++)
    if (told[i] == thread) return true;
  return false;
}

/* Tells every thread but this one that is not in told[0..count) yet. Returns how many there were, or a negative errno. */
static int tell_new_threads(pid_t *told, size_t *count) {
  pid_t process = getpid(), self = (pid_t)syscall(SYS_gettid);
  DIR *tasks = opendir("/proc/self/task");
  if (tasks == NULL) return -errno;
  int found = 0;
  for (struct dirent *entry; found >= 0 && (entry = readdir(tasks)) != NULL;) {
    pid_t thread = (pid_t)atoi(entry->d_name);
    if (thread <= 0 || thread == self || known(told, *count, thread)) continue;
    if (*count == MAX_THREADS) found = -EAGAIN;
    else {
      told[(*count)++] = thread;
      int result = tell(process, thread);
      found = result < 0 ? result : found + 1;
    }
  }
  closedir(tasks);
  return found;
}

int ne_landlock_enter(int ruleset) {
  pid_t *told = calloc(MAX_THREADS, sizeof *told);
  if (told == NULL) return -ENOMEM;
  size_t count = 0;
  struct kernel_action before, ours = {.handler = on_signal, .flags = SA_RESTART | SA_ONSTACK};
#if defined(__x86_64__)
  ours.flags |= 0x04000000; /* SA_RESTORER */
  ours.restorer = back_to_kernel;
#endif
  atomic_store(&wanted_ruleset, ruleset);
  atomic_store(&thread_error, 0);
  sem_init(&answered, 0, 0);
  int result = set_action(&ours, &before);
  if (result == 0) {
    do result = tell_new_threads(told, &count);
    while (result > 0);
    set_action(&before, NULL);
  }
  free(told);
  if (result == 0) result = -atomic_load(&thread_error);
  if (result == 0) result = -restrict_thread(ruleset);
  return result;
}
