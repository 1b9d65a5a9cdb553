/*
 * Descriptors and memory. Received descriptors (SCM_RIGHTS) beyond those the caller wants are closed here, before anybody can forget them.
 * A mapping is guarded (see sigbus.c): if its file is cut short, the lost part reads as zeros.
 */
#include "netemu.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

/* Makes a handle of any descriptor, of the kind it turns out to be. */
static int wrap(ne_context *c, int fd, bool vnet) {
  int kind = NE_OTHER;
  int flags = vnet ? NE_F_VNET : 0;
  int type = 0;
  int listening = 0;
  socklen_t length = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0) {
    flags |= NE_F_SOCKET;
    length = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0) listening = 0;
    kind = listening ? NE_LISTENER : type == SOCK_STREAM || type == SOCK_SEQPACKET ? NE_STREAM : NE_DATAGRAM;
    struct sockaddr_storage name;
    length = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &length) == 0) flags |= NE_F_CONNECTED;
    if (type == SOCK_RAW) {
      length = sizeof name;
      if (getsockname(fd, (struct sockaddr *)&name, &length) == 0 && name.ss_family == AF_INET) kind = NE_RAW4;
    }
  } else if (vnet) {
    kind = NE_TAP;
  }
  return ne_handle_new(c, fd, (enum ne_kind)kind, flags);
}

int ne_adopt(ne_context *c, int fd, bool vnet) {
  if (c->closed) return -EBADF;
  if (fd < 0) return -EBADF;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return -errno;
  return wrap(c, fd, vnet);
}

int ne_control(ne_context *c, int32_t handle, uint32_t request, void *argument) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  int result = ioctl(h->fd, (unsigned long)request, argument);
  return result < 0 ? -errno : result;
}

int ne_socket_pair(ne_context *c, int32_t out[2]) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
  out[0] = ne_handle_new(c, pair[0], NE_STREAM, NE_F_SOCKET | NE_F_CONNECTED);
  out[1] = ne_handle_new(c, pair[1], NE_STREAM, NE_F_SOCKET | NE_F_CONNECTED);
  if (out[0] > 0 && out[1] > 0) return 0;
  int error = out[0] < 0 ? out[0] : out[1];
  for (int i = 0; i < 2; i++) ne_close(c, out[i]);
  return error;
}

int64_t ne_send_with_fds(ne_context *c, int32_t handle, const uint8_t *source, size_t length, const int32_t *fds, uint32_t count) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (count > NE_MAX_FDS || length == 0) return -EINVAL;
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(NE_MAX_FDS * sizeof(int))];
  } control;
  struct iovec iov = {.iov_base = (void *)(uintptr_t)source, .iov_len = length};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *cm = CMSG_FIRSTHDR(&message);
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (uint32_t i = 0; i < count; i++) {
      const ne_handle *sent = ne_get(c, fds[i]);
      if (sent == NULL) return -EBADF;
      memcpy(CMSG_DATA(cm) + i * sizeof(int), &sent->fd, sizeof(int));
    }
  }
  ssize_t sent;
  do sent = sendmsg(h->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

int64_t ne_receive_with_fds(ne_context *c, int32_t handle, uint8_t *target, size_t length, int32_t *fds, uint32_t limit, uint32_t *count,
                            uint32_t *excess) {
  *count = 0;
  *excess = 0;
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (length == 0 || limit > NE_MAX_FDS) return -EINVAL;
  /* Room for every descriptor the kernel can pass at once, so that none is lost unseen. */
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(NE_MAX_FDS * sizeof(int)) + 256];
  } control;
  struct iovec iov = {.iov_base = target, .iov_len = length};
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got;
  do got = recvmsg(h->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  for (struct cmsghdr *cm = CMSG_FIRSTHDR(&message); cm != NULL; cm = CMSG_NXTHDR(&message, cm)) {
    if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS) continue;
    size_t many = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < many; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
      if (*count == limit) {
        close(fd);
        (*excess)++;
        continue;
      }
      /* A passed description's flags are shared with its sender: O_NONBLOCK is set all the same, since nothing here may block. */
      int flags = fcntl(fd, F_GETFL);
      if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
      int made = wrap(c, fd, false);
      if (made < 0) (*excess)++;
      else fds[(*count)++] = made;
    }
  }
  return got;
}

int ne_event_fd(ne_context *c) {
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return fd < 0 ? -errno : ne_handle_new(c, fd, NE_OTHER, 0);
}

int ne_signal(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  uint64_t one = 1;
  if (write(h->fd, &one, sizeof one) == sizeof one) return 0;
  /* A counter at its end is signalled already. */
  return errno == EAGAIN ? 0 : -errno;
}

int64_t ne_drain(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  uint64_t count = 0;
  ssize_t got = read(h->fd, &count, sizeof count);
  if (got == sizeof count) return count > INT32_MAX ? INT32_MAX : (int64_t)count;
  if (got >= 0) return -EINVAL;
  return errno == EAGAIN ? 0 : -errno;
}

int ne_memory_fd(ne_context *c, const char *name, uint64_t bytes) {
  if (bytes == 0 || bytes > INT64_MAX) return -EINVAL;
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  int error = 0;
  if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0) error = -errno;
  if (error == 0) return ne_handle_new(c, fd, NE_OTHER, 0);
  close(fd);
  return error;
}

/* The slave stays open as a handle of its own: without any, the master would be hung up all the time. Raw: bytes pass as they are. */
int ne_pty_open(ne_context *c, char name[64], int32_t *slave) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (master < 0) return -errno;
  int error = grantpt(master) < 0 || unlockpt(master) < 0 ? errno : ptsname_r(master, name, 64);
  int other = error == 0 ? open(name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) : -1;
  if (error == 0 && other < 0) error = errno;
  struct termios line;
  if (error == 0 && tcgetattr(other, &line) < 0) error = errno;
  if (error == 0) {
    cfmakeraw(&line);
    if (tcsetattr(other, TCSANOW, &line) < 0) error = errno;
  }
  if (error != 0) {
    close(master);
    if (other >= 0) close(other);
    return -error;
  }
  *slave = ne_handle_new(c, other, NE_OTHER, 0);
  int made = ne_handle_new(c, master, NE_OTHER, 0);
  if (*slave < 0 || made < 0) {
    int failure = *slave < 0 ? *slave : made;
    if (*slave >= 0) ne_close(c, *slave);
    if (made >= 0) ne_close(c, made);
    return failure;
  }
  return made;
}

int ne_map(ne_context *c, int32_t handle, uint64_t offset, uint64_t length, bool writable, ne_mapping *out) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (length == 0 || length > UINT64_C(1) << 40 || offset > INT64_MAX - length) return -EINVAL;
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  struct stat file;
  if (fstat(h->fd, &file) < 0) return -errno;
  if (S_ISREG(file.st_mode)) {
    if ((uint64_t)file.st_size < offset + length) return -EINVAL;
    struct statfs system;
    if (fstatfs(h->fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC) page = (uint64_t)system.f_bsize;
  }
  uint64_t skew = offset % page;
  uint64_t whole = (skew + length + page - 1) / page * page;
  int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  void *base = mmap(NULL, whole, protection, MAP_SHARED, h->fd, (off_t)(offset - skew));
  if (base == MAP_FAILED) return -errno;
  int error = ne_guard_add(base, whole, writable);
  if (error < 0) {
    munmap(base, whole);
    return error;
  }
  *out = (ne_mapping){.base = base, .length = whole, .skew = skew, .wanted = length};
  return 0;
}

void ne_unmap(const ne_mapping *mapping) {
  ne_guard_remove(mapping->base, mapping->length);
  munmap(mapping->base, mapping->length);
}
