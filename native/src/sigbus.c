/*
 * A peer that shares memory by descriptor can cut the file short, and the next access to the lost part raises SIGBUS. The handler here
 * puts a private zero page under the address, if it lies in a mapping of ours, and the access goes on; any other SIGBUS goes to
 * whoever handled it before.
 *
 * Signals belong to the process, so this list does too: entries are claimed and read by atomics, which is all a handler may use. Adding and
 * removing happen under a spin flag that the handler never takes. An entry is removed before munmap: its addresses may be given out anew
 * right after. The library stays loaded (-z nodelete), since the handler does.
 */
#include "netemu.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARDS = 16384 };

static struct {
  _Atomic(uintptr_t) base;
  _Atomic(size_t) length;
  _Atomic(int) writable;
} guards[GUARDS];

static _Atomic(int) guard_end; /* entries at or behind it were never used */
static atomic_flag changing = ATOMIC_FLAG_INIT;
static bool installed;
static long page_bytes;
static struct sigaction previous;

static bool repair(uintptr_t address) {
  int end = atomic_load(&guard_end);
  for (int i = 0; i < end; i++) {
    uintptr_t base = atomic_load(&guards[i].base);
    size_t length = atomic_load(&guards[i].length);
    if (base == 0 || address < base || address - base >= length) continue;
    uintptr_t page = address & ~((uintptr_t)page_bytes - 1);
    int protection = PROT_READ | (atomic_load(&guards[i].writable) ? PROT_WRITE : 0);
    void *got = mmap((void *)page, (size_t)page_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return got != MAP_FAILED;
  }
  return false;
}

static void on_sigbus(int number, siginfo_t *info, void *state) {
  int error = errno;
  bool repaired = info->si_code > 0 && repair((uintptr_t)info->si_addr);
  errno = error;
  if (repaired) return;
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, state);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  } else {
    /* The access is repeated on return, and ends the process as it would have without us. */
    signal(SIGBUS, SIG_DFL);
    if (info->si_code <= 0) raise(SIGBUS);
  }
}

static void lock(void) {
  while (atomic_flag_test_and_set(&changing)) {
  }
}

int ne_guard_add(uint8_t *base, size_t length, bool writable) {
  int error = -ENOMEM;
  lock();
  if (!installed) {
    page_bytes = sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous) < 0) {
      error = -errno;
      goto out;
    }
    installed = true;
  }
  for (int i = 0; i < GUARDS; i++) {
    if (atomic_load(&guards[i].base) != 0) continue;
    atomic_store(&guards[i].length, length);
    atomic_store(&guards[i].writable, writable);
    atomic_store(&guards[i].base, (uintptr_t)base);
    if (i >= atomic_load(&guard_end)) atomic_store(&guard_end, i + 1);
    error = 0;
    break;
  }
out:
  atomic_flag_clear(&changing);
  return error;
}

void ne_guard_remove(uint8_t *base, size_t length) {
  lock();
  int end = atomic_load(&guard_end);
  for (int i = 0; i < end; i++) {
    if (atomic_load(&guards[i].base) != (uintptr_t)base || atomic_load(&guards[i].length) != length) continue;
    atomic_store(&guards[i].base, 0);
    atomic_store(&guards[i].length, 0);
    break;
  }
  atomic_flag_clear(&changing);
}
