/*
 * Contexts and the handle table. A handle number is (generation << 16 | index): a number that was closed names nothing until its
 * generation comes round again, so closing twice is harmless. Freed indexes are reused oldest first, which keeps generations apart long.
 */
#include "netemu.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { GENERATIONS = 1 << 14 };

ne_context *ne_context_new(void) {
  ne_context *c = calloc(1, sizeof *c);
  if (c == NULL) return NULL;
  c->epoll_fd = -1;
  c->timer_fd = -1;
  c->handle_count = 1;
  c->handles = calloc(64, sizeof *c->handles);
  c->scratch = calloc(1, sizeof *c->scratch);
  if (c->handles == NULL || c->scratch == NULL) goto fail;
  c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (c->epoll_fd < 0 || c->timer_fd < 0) goto fail;
  struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->timer_fd, &event) < 0) goto fail;
  return c;
fail : {
  int error = errno;
  ne_context_shutdown(c);
  ne_context_free(c);
  errno = error;
  return NULL;
}
}

ne_handle *ne_get(ne_context *c, int32_t handle) {
  if (handle <= 0) return NULL;
  int32_t index = handle & 0xffff;
  if (index == 0 || index >= c->handle_count) return NULL;
  ne_handle *h = &c->handles[index];
  if (h->kind == NE_CLOSED || h->generation != (uint32_t)handle >> 16) return NULL;
  return h;
}

static int32_t take_index(ne_context *c) {
  int32_t index = c->free_head;
  /* A fresh index while the table is small keeps closed numbers out of use longer. */
  if (index != 0 && (c->handle_count & 63) == 0) {
    c->free_head = c->handles[index].next_free;
    if (c->free_head == 0) c->free_tail = 0;
    return index;
  }
  if (c->handle_count == NE_MAX_HANDLES) return -EMFILE;
  if ((c->handle_count & 63) == 0) {
    ne_handle *grown = realloc(c->handles, (size_t)(c->handle_count + 64) * sizeof *grown);
    if (grown == NULL) return -ENOMEM;
    memset(grown + c->handle_count, 0, 64 * sizeof *grown);
    c->handles = grown;
  }
  return c->handle_count++;
}

int ne_handle_new(ne_context *c, int fd, enum ne_kind kind, int flags) {
  int32_t index = c->closed ? -EBADF : take_index(c);
  if (index < 0) {
    close(fd);
    return index;
  }
  ne_handle *h = &c->handles[index];
  uint16_t generation = h->generation;
  memset(h, 0, sizeof *h);
  h->generation = generation;
  h->fd = fd;
  h->kind = (uint8_t)kind;
  h->flags = (uint8_t)flags;
  h->gso_limit = INT32_MAX;
  c->open_count++;
  return (int32_t)((uint32_t)generation << 16 | (uint32_t)index);
}

int ne_close(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return 0;
  ne_unwatch(c, h);
  if (h->path != NULL) {
    /* Only the file that was made here: somebody may have replaced it. */
    struct stat now;
    if (lstat(h->path, &now) == 0 && now.st_dev == h->path_device && now.st_ino == h->path_inode) unlink(h->path);
    free(h->path);
    h->path = NULL;
  }
  close(h->fd);
  h->fd = -1;
  h->kind = NE_CLOSED;
  h->generation = (uint16_t)((h->generation + 1) % GENERATIONS);
  h->next_free = 0;
  int32_t index = (int32_t)(h - c->handles);
  if (c->free_tail != 0) c->handles[c->free_tail].next_free = index;
  else c->free_head = index;
  c->free_tail = index;
  c->open_count--;
  return 0;
}

void ne_context_shutdown(ne_context *c) {
  if (c->closed) return;
  for (int32_t i = 1; i < c->handle_count; i++) {
    if (c->handles[i].kind != NE_CLOSED) ne_close(c, (int32_t)((uint32_t)c->handles[i].generation << 16 | (uint32_t)i));
  }
  c->closed = true;
  if (c->timer_fd >= 0) close(c->timer_fd);
  if (c->epoll_fd >= 0) close(c->epoll_fd);
  c->timer_fd = -1;
  c->epoll_fd = -1;
  c->timer_armed = false;
  c->table = NULL;
  c->table_words = 0;
  c->copies = NULL;
  c->copies_max = 0;
  memset(c->regions, 0, sizeof c->regions);
  c->region_count = 0;
}

void ne_context_free(ne_context *c) {
  ne_context_shutdown(c);
  free(c->handles);
  free(c->scratch);
  free(c);
}
