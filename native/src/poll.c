/*
 * Readiness: one epoll set for each context, level-triggered, with a timerfd in it for the loop's deadlines.
 *
 * A handle with interest 0 stays in the set edge-triggered and without IN or OUT: a reset or hang-up is then told once, and cannot spin.
 * EPOLLRDHUP (the peer's FIN) is asked for only with READABLE, since it stays ready for as long as the socket lives. A handle leaves the
 * set before its descriptor is closed: the kernel would go on telling of a description that another process still holds.
 */
#include "netemu.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static uint32_t epoll_bits(unsigned interest) {
  uint32_t bits = 0;
  if (interest & NE_READABLE) bits |= EPOLLIN | EPOLLRDHUP;
  if (interest & NE_WRITABLE) bits |= EPOLLOUT;
  return bits != 0 ? bits : EPOLLET | EPOLLRDHUP;
}

int ne_watch(ne_context *c, int32_t handle, unsigned interest) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (interest > (NE_READABLE | NE_WRITABLE)) return -EINVAL;
  struct epoll_event event = {.events = epoll_bits(interest), .data = {.u64 = (uint32_t)handle}};
  if (h->flags & NE_F_IN_EPOLL) {
    if (h->interest == interest) return 0;
    if (epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, h->fd, &event) < 0) return -errno;
  } else {
    if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, h->fd, &event) < 0) return -errno;
    h->flags |= NE_F_IN_EPOLL;
  }
  h->interest = (uint8_t)interest;
  if (!(h->flags & NE_F_WATCHED)) {
    h->flags |= NE_F_WATCHED;
    c->watched_count++;
  }
  return 0;
}

int ne_unwatch(ne_context *c, ne_handle *h) {
  if (h->flags & NE_F_IN_EPOLL) epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, h->fd, NULL);
  if (h->flags & NE_F_WATCHED) c->watched_count--;
  h->flags &= (uint8_t)~(NE_F_IN_EPOLL | NE_F_WATCHED);
  return 0;
}

int ne_poll(ne_context *c, int32_t *out, int max_pairs) {
  struct epoll_event events[NE_MAX_EVENTS];
  if (c->closed) return -EBADF;
  c->stats.poll_calls++;
  if (max_pairs > NE_MAX_EVENTS) max_pairs = NE_MAX_EVENTS;
  int count = epoll_wait(c->epoll_fd, events, max_pairs, 0);
  if (count < 0) return errno == EINTR ? 0 : -errno;
  int pairs = 0;
  for (int i = 0; i < count; i++) {
    int32_t handle = (int32_t)events[i].data.u64;
    int32_t bits = 0;
    if (handle == 0) {
      uint64_t expirations;
      /* A disarmed timer may have been read as ready before; then there is nothing to tell. */
      if (read(c->timer_fd, &expirations, sizeof expirations) != sizeof expirations) continue;
      c->timer_armed = false;
    } else {
      const ne_handle *h = ne_get(c, handle);
      if (h == NULL) continue;
      uint32_t told = events[i].events;
      if (told & (EPOLLIN | EPOLLPRI)) bits |= NE_READABLE;
      if (told & EPOLLOUT) bits |= NE_WRITABLE;
      if (told & (EPOLLHUP | EPOLLRDHUP)) bits |= NE_HUNG_UP;
      if ((told & EPOLLERR) != 0 || h->error != 0) bits |= NE_FAILED;
    }
    out[2 * pairs] = handle;
    out[2 * pairs + 1] = bits;
    pairs++;
  }
  return pairs;
}

int ne_wait_ready(ne_context *c, int32_t handle, unsigned interest, uint32_t timeout_ms) {
  const ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (interest == 0 || interest > (NE_READABLE | NE_WRITABLE) || timeout_ms > INT_MAX) return -EINVAL;
  struct pollfd one = {.fd = h->fd};
  if (interest & NE_READABLE) one.events |= POLLIN | POLLRDHUP;
  if (interest & NE_WRITABLE) one.events |= POLLOUT;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t end_ms = now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000 + timeout_ms;
  int count;
  int64_t left_ms = timeout_ms;
  while ((count = poll(&one, 1, (int)left_ms)) < 0 && errno == EINTR) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    left_ms = end_ms - (now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000);
    if (left_ms < 0) left_ms = 0;
  }
  if (count <= 0) return count < 0 ? -errno : 0;
  int bits = 0;
  if (one.revents & POLLIN) bits |= NE_READABLE;
  if (one.revents & POLLOUT) bits |= NE_WRITABLE;
  if (one.revents & (POLLHUP | POLLRDHUP)) bits |= NE_HUNG_UP;
  if (one.revents & (POLLERR | POLLNVAL)) bits |= NE_FAILED;
  return bits;
}

int ne_timer(ne_context *c, int64_t delay_ns) {
  if (c->closed) return -EBADF;
  struct itimerspec spec = {{0, 0}, {0, 0}};
  if (delay_ns >= 0) {
    if (delay_ns == 0) delay_ns = 1;
    spec.it_value.tv_sec = (time_t)(delay_ns / 1000000000);
    spec.it_value.tv_nsec = (long)(delay_ns % 1000000000);
  } else if (!c->timer_armed) {
    return 0;
  }
  if (timerfd_settime(c->timer_fd, 0, &spec, NULL) < 0) return -errno;
  c->timer_armed = delay_ns > 0;
  return 0;
}
