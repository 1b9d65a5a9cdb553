/*
 * Byte streams to and from frames: what is received lies in slots at once, what is sent is gathered from all segments of many frames in
 * one system call. `peek` and `discard` let a caller leave the bytes in the kernel's socket until it knows they are needed no more. A
 * handle that is no socket (a pipe, a character device) is read and written plainly. SIGPIPE is never raised for a socket; a broken
 * pipe's is ignored by Node.
 */
#include "netemu.h"
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

int64_t ne_receive_stream(ne_context *c, int32_t handle, ne_batch batch, uint32_t at, uint32_t each, bool peek) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (batch.from == batch.to) return -EINVAL;
  struct iovec *iov = c->scratch->iov;
  int count = 0;
  for (uint32_t i = batch.from; i < batch.to && count < NE_MAX_IOV; i++) {
    uint8_t *start;
    uint32_t room;
    int error = ne_slot(c, batch.list[i], at, &start, &room);
    if (error < 0) return error;
    if (each == 0 || each > room) return -EINVAL;
    iov[count++] = (struct iovec){.iov_base = start, .iov_len = each};
  }
  c->stats.receive_calls++;
  ssize_t got;
  if (h->flags & NE_F_SOCKET) {
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    do got = recvmsg(h->fd, &message, MSG_DONTWAIT | (peek ? MSG_PEEK : 0));
    while (got < 0 && errno == EINTR);
  } else {
    if (peek) return -ENOTSOCK;
    do got = readv(h->fd, iov, count);
    while (got < 0 && errno == EINTR);
  }
  return got < 0 ? -errno : got;
}

int64_t ne_discard_stream(ne_context *c, int32_t handle, uint32_t length) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (h->kind != NE_STREAM) return -EINVAL;
  if (length == 0) return 0;
  c->stats.receive_calls++;
  /* TCP throws away without copying when told MSG_TRUNC; unix sockets copy, so they get a place to copy to. */
  ssize_t got;
  do got = recv(h->fd, NULL, length, MSG_DONTWAIT | MSG_TRUNC);
  while (got < 0 && errno == EINTR);
  if (got >= 0 || errno != EFAULT) return got < 0 ? -errno : got;
  uint8_t waste[16384];
  uint32_t done = 0;
  while (done < length) {
    uint32_t part = length - done < sizeof waste ? length - done : (uint32_t)sizeof waste;
    do got = recv(h->fd, waste, part, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got <= 0) break;
    done += (uint32_t)got;
  }
  return done > 0 || got >= 0 ? (int64_t)done : -errno;
}

static ssize_t send_list(ne_context *c, ne_handle *h, struct iovec *iov, int count) {
  for (int tries = 0;; tries++) {
    ssize_t sent;
    c->stats.send_calls++;
    if (h->flags & NE_F_SOCKET) {
      struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
      sent = sendmsg(h->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      sent = writev(h->fd, iov, count);
    }
    if (sent >= 0) return sent;
    if (errno == EFAULT && tries == 0) ne_touch(iov, count);
    else if (errno != EINTR) return -errno;
  }
}

int64_t ne_send_stream(ne_context *c, int32_t handle, ne_batch batch, uint64_t skip, bool framed) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (batch.from == batch.to) return skip == 0 ? 0 : -EINVAL;
  int64_t done = 0;
  uint32_t next = batch.from;
  while (next < batch.to) {
    ne_gather g = {.iov = c->scratch->iov, .count = 0, .max = NE_MAX_IOV, .bytes = 0};
    int prefixes = 0;
    uint32_t first = next;
    for (; next < batch.to; next++) {
      int32_t frame = batch.list[next];
      int64_t bytes = ne_frame_bytes(c, frame);
      if (bytes < 0) {
        if (next > first) break; /* told when it is the first */
        return done > 0 ? done : bytes;
      }
      uint64_t left = skip;
      if (left > (uint64_t)bytes + (framed ? 4 : 0)) return -EINVAL;
      const ne_gather before = g;
      if (framed) {
        if (g.count == g.max) break;
        uint32_t length = htonl((uint32_t)bytes);
        uint8_t *prefix = c->scratch->prefix[prefixes++];
        memcpy(prefix, &length, 4);
        if (left < 4) {
          g.iov[g.count++] = (struct iovec){.iov_base = prefix + left, .iov_len = 4 - left};
          g.bytes += 4 - left;
          left = 0;
        } else {
          left -= 4;
        }
      }
      int error = ne_gather_frame(c, frame, left, &g);
      if (error < 0) {
        g = before;
        if (next > first) break; /* the list is full, and this frame begins the next one */
        return done > 0 ? done : error;
      }
      skip = 0;
    }
    if (g.bytes == 0) continue;
    ssize_t sent = send_list(c, h, g.iov, g.count);
    if (sent < 0) return done > 0 ? done : sent;
    done += sent;
    if ((uint64_t)sent < g.bytes || done > INT32_MAX / 2) break;
  }
  return done;
}

int64_t ne_receive_bytes(ne_context *c, int32_t handle, uint8_t *target, size_t length) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (length == 0) return -EINVAL;
  ssize_t got;
  do got = h->flags & NE_F_SOCKET ? recv(h->fd, target, length, MSG_DONTWAIT) : read(h->fd, target, length);
  while (got < 0 && errno == EINTR);
  return got < 0 ? -errno : got;
}

int64_t ne_send_bytes(ne_context *c, int32_t handle, const uint8_t *source, size_t length) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  ssize_t sent;
  do sent = h->flags & NE_F_SOCKET ? send(h->fd, source, length, MSG_DONTWAIT | MSG_NOSIGNAL) : write(h->fd, source, length);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}
