/*
 * Gives up system calls that a running netemu never needs, for every thread of the process and for good (seccomp(2) with TSYNC): running other
 * programs, tracing and reaching into processes, mounting, new namespaces, loading code into the kernel, keys, new io_urings. They fail with
 * EPERM from then on. A list of what is denied and not of what is allowed: a runtime's own needs cannot be listed for every version of it.
 */

#include "netemu.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
/* Numbers from here on are the x32 ABI's, which would go round the list. */
#define FOREIGN_FROM 0x40000000u
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define FOREIGN_FROM 0xffffffffu
#endif

#ifdef ARCHITECTURE

static const uint32_t DENIED[] = {
    SYS_execve,       SYS_execveat,     SYS_ptrace,          SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount,
    SYS_umount2,      SYS_pivot_root,   SYS_chroot,          SYS_unshare,          SYS_setns,             SYS_bpf,
    SYS_perf_event_open, SYS_init_module, SYS_finit_module,  SYS_delete_module,    SYS_kexec_load,        SYS_reboot,
    SYS_swapon,       SYS_swapoff,      SYS_add_key,         SYS_request_key,      SYS_keyctl,            SYS_userfaultfd,
    SYS_open_by_handle_at, SYS_acct,    SYS_settimeofday,    SYS_clock_settime,    SYS_personality,       SYS_io_uring_setup,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_fsopen
    SYS_fsopen,       SYS_fsmount,      SYS_move_mount,      SYS_open_tree,
#endif
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
};

enum { COUNT = sizeof DENIED / sizeof DENIED[0], HEAD = 5 };

/* 0, or a negative errno. */
int ne_sandbox(void) {
  struct sock_filter program[HEAD + COUNT + 2];
  size_t n = 0;
  program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
  program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  /* Jumps count the statements between: to the refusal, which is the last one. */
  program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FOREIGN_FROM, COUNT + 1, 0);
  for (size_t i = 0; i < COUNT; i++)
    program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DENIED[i], (unsigned char)(COUNT - i), 0);
  program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog filter = {.len = (unsigned short)n, .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
  long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
  if (result < 0) return -errno;
  /* A thread's number: that one could not be brought along, and then none was. */
  return result == 0 ? 0 : -EBUSY;
}

#else

int ne_sandbox(void) { return -ENOSYS; }

#endif
