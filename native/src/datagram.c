/*
 * Datagrams in batches: recvmmsg and sendmmsg with up to NE_MAX_MESSAGES messages a call, their scatter/gather lists made from frame
 * records. On a UDP socket a run of equal-size frames to one destination (the last may be shorter) goes out as one message with
 * UDP_SEGMENT, which the kernel cuts as late as it can; where the kernel refuses (datagrams longer than the path takes unfragmented),
 * that socket sends such sizes singly from then on. With UDP_GRO a received frame may hold a run, told by GSO_SIZE.
 *
 * A message longer than its slot goes on in a second one where the caller gives some; else it is thrown away and counted: half a frame is
 * of no use to anybody.
 */
#include "netemu.h"
#include <errno.h>
#include <linux/udp.h>
#include <string.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
  GSO_MAX_SEGMENTS = 64,
  GSO_MAX_BYTES = 65000 /* below 65535 less the longest headers */
};

/* Takes the IPv4 header off a message of a raw socket, whose first 20 bytes were received apart. Returns the options' length, or -1. */
static int raw_options(const uint8_t header[20], uint32_t received) {
  int length = (header[0] & 15) * 4;
  if (header[0] >> 4 != 4 || length < 20 || (uint32_t)length > received) return -1;
  return length - 20;
}

/* One recvmmsg into batch.list[from..from + count). Returns frames filled (bad messages moved behind them), or a negative errno. */
static int receive_some(ne_context *c, ne_handle *h, int32_t *list, uint32_t count, uint32_t at, uint8_t *addresses, int32_t *spill,
                        bool *more) {
  ne_scratch *s = c->scratch;
  bool raw = h->kind == NE_RAW4;
  struct iovec *iov = s->iov;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t *start;
    uint32_t room;
    int error = ne_slot(c, list[i], at, &start, &room);
    if (error < 0) return error;
    struct msghdr *m = &s->messages[i].msg_hdr;
    memset(m, 0, sizeof *m);
    m->msg_iov = iov;
    if (raw) *iov++ = (struct iovec){.iov_base = s->ip_header[i], .iov_len = 20};
    *iov++ = (struct iovec){.iov_base = start, .iov_len = room};
    if (spill != NULL && spill[i] != 0) {
      error = ne_slot(c, spill[i], 0, &start, &room);
      if (error < 0) return error;
      *iov++ = (struct iovec){.iov_base = start, .iov_len = room};
    }
    m->msg_iovlen = (size_t)(iov - m->msg_iov);
    if (addresses != NULL) {
      m->msg_name = &s->names[i];
      m->msg_namelen = sizeof s->names[i];
      s->names[i].ss_family = 0;
    }
    if (h->flags & NE_F_GRO) {
      m->msg_control = &s->control[i];
      m->msg_controllen = sizeof s->control[i];
    }
  }
  int got;
  c->stats.receive_calls++;
  do got = recvmmsg(h->fd, s->messages, count, MSG_DONTWAIT, NULL);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  *more = (uint32_t)got == count;
  int good = 0;
  for (int i = 0; i < got; i++) {
    struct msghdr *m = &s->messages[i].msg_hdr;
    uint32_t length = s->messages[i].msg_len;
    uint32_t offset = at;
    bool bad = (m->msg_flags & MSG_TRUNC) != 0;
    if (raw && !bad) {
      int options = raw_options(s->ip_header[i], length);
      if (options < 0) {
        bad = true;
      } else {
        offset += (uint32_t)options;
        length -= 20 + (uint32_t)options;
      }
    }
    if (bad) {
      c->stats.truncated++;
      continue;
    }
    int32_t frame = list[i];
    int32_t *record = c->table + frame;
    int32_t start = record[NE_SLOT] + (int32_t)offset;
    int32_t room = record[NE_ROOM] - (int32_t)offset;
    if ((int32_t)length > room && spill != NULL && spill[i] != 0) {
      ne_chain(c, frame, start, room, spill[i], (int32_t)length - room);
      spill[i] = 0;
    } else {
      record[NE_OFFSET] = start;
      record[NE_LENGTH] = (int32_t)length;
      record[NE_TOTAL] = (int32_t)length;
    }
    if (h->flags & NE_F_GRO) {
      int size = 0;
      for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm != NULL; cm = CMSG_NXTHDR(m, cm)) {
        if (cm->cmsg_level == SOL_UDP && cm->cmsg_type == UDP_GRO) memcpy(&size, CMSG_DATA(cm), sizeof size);
      }
      record[NE_GSO_SIZE] = size;
    }
    if (addresses != NULL) ne_pack_address(&s->names[i], addresses + (size_t)good * NE_ADDRESS_BYTES);
    /* The filled ones come first; a slot whose message was thrown away goes behind them. */
    list[i] = list[good];
    list[good] = frame;
    good++;
  }
  return good;
}

int ne_receive_datagrams(ne_context *c, int32_t handle, ne_batch batch, uint32_t at, uint8_t *addresses, int32_t *spill) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (h->kind != NE_DATAGRAM && h->kind != NE_RAW4) return -EINVAL;
  int done = 0;
  uint32_t next = batch.from;
  while (next < batch.to) {
    uint32_t count = batch.to - next < NE_MAX_MESSAGES ? batch.to - next : NE_MAX_MESSAGES;
    bool more = false;
    uint8_t *place = addresses == NULL ? NULL : addresses + (size_t)next * NE_ADDRESS_BYTES;
    int got = receive_some(c, h, batch.list + next, count, at, place, spill == NULL ? NULL : spill + next, &more);
    if (got < 0) return done > 0 ? done : got;
    done += got;
    next += (uint32_t)got;
    if (!more) return done > 0 ? done : got == 0 ? -EAGAIN : done;
  }
  return done;
}

static void set_segment(struct msghdr *m, void *control, size_t room, uint16_t size) {
  memset(control, 0, room);
  m->msg_control = control;
  m->msg_controllen = CMSG_SPACE(sizeof size);
  struct cmsghdr *cm = CMSG_FIRSTHDR(m);
  cm->cmsg_level = SOL_UDP;
  cm->cmsg_type = UDP_SEGMENT;
  cm->cmsg_len = CMSG_LEN(sizeof size);
  memcpy(CMSG_DATA(cm), &size, sizeof size);
}

/* Lays out messages for frames[next..to); sets how many messages, and how many frames each holds. Returns 0, or the error of the first frame. */
static int lay_out(ne_context *c, const ne_handle *h, ne_batch b, uint32_t next, const ne_address *remote, const uint8_t *headers,
                   uint32_t header_bytes, int *messages_out, int *iov_out) {
  ne_scratch *s = c->scratch;
  ne_gather g = {.iov = s->iov, .count = 0, .max = NE_MAX_IOV, .bytes = 0};
  bool one_destination = (h->flags & NE_F_CONNECTED) != 0 || remote != NULL;
  bool group_ok = (h->flags & NE_F_GSO) != 0 && one_destination;
  int messages = 0;
  bool grouping = false;
  for (; next < b.to; next++) {
    int32_t frame = b.list[next];
    int64_t size = ne_frame_bytes(c, frame);
    int error = size < 0 ? (int)size : 0;
    const ne_gather before = g;
    if (error == 0 && header_bytes > 0) {
      size += header_bytes;
      if (g.count == g.max) break;
      g.iov[g.count++] = (struct iovec){.iov_base = (void *)(uintptr_t)(headers + (size_t)next * header_bytes), .iov_len = header_bytes};
      g.bytes += header_bytes;
    }
    if (error == 0) error = ne_gather_frame(c, frame, 0, &g);
    if (error < 0) {
      g = before;
      if (messages == 0) return error;
      break; /* told when it is the first */
    }
    if (grouping) {
      int last = messages - 1;
      struct msghdr *m = &s->messages[last].msg_hdr;
      int64_t bytes = s->group_size[last] * s->group[last] + size;
      if (size <= s->group_size[last] && size > 0 && s->group[last] < GSO_MAX_SEGMENTS && bytes <= GSO_MAX_BYTES) {
        /* Frames of a run that was received in one slot lie side by side: the kernel copies them as one piece. */
        struct iovec *piece = g.iov + before.count;
        if (g.count == before.count + 1 && (uint8_t *)piece[-1].iov_base + piece[-1].iov_len == (uint8_t *)piece->iov_base) {
          piece[-1].iov_len += piece->iov_len;
          g.count--;
        }
        m->msg_iovlen = (size_t)(s->iov + g.count - m->msg_iov);
        s->group[last]++;
        /* A shorter one ends the run. */
        grouping = size == s->group_size[last];
        continue;
      }
    }
    if (messages == NE_MAX_MESSAGES) {
      g = before;
      break;
    }
    struct msghdr *m = &s->messages[messages].msg_hdr;
    memset(m, 0, sizeof *m);
    m->msg_iov = s->iov + before.count;
    m->msg_iovlen = (size_t)(g.count - before.count);
    if (remote != NULL) {
      m->msg_name = (void *)(uintptr_t)&remote->u;
      m->msg_namelen = remote->length;
    }
    s->group[messages] = 1;
    s->group_size[messages] = size;
    messages++;
    grouping = group_ok && size > 0 && size <= h->gso_limit && size <= GSO_MAX_BYTES / 2;
  }
  for (int i = 0; i < messages; i++) {
    if (s->group[i] > 1) set_segment(&s->messages[i].msg_hdr, &s->control[i], sizeof s->control[i], (uint16_t)s->group_size[i]);
  }
  *messages_out = messages;
  *iov_out = g.count;
  return 0;
}

int ne_send_datagrams(ne_context *c, int32_t handle, ne_batch batch, const ne_address *remote, const uint8_t *headers, uint32_t header_bytes) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (h->kind != NE_DATAGRAM && h->kind != NE_RAW4) return -EINVAL;
  ne_scratch *s = c->scratch;
  int done = 0;
  bool touched = false;
  for (uint32_t next = batch.from; next < batch.to;) {
    int messages = 0;
    int iovs = 0;
    int error = lay_out(c, h, batch, next, remote, headers, header_bytes, &messages, &iovs);
    if (error < 0) return done > 0 ? done : error;
    c->stats.send_calls++;
    int sent = sendmmsg(h->fd, s->messages, (unsigned)messages, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      error = errno;
      if (error == EINTR) continue;
      if (error == EFAULT && !touched) {
        touched = true;
        ne_touch(s->iov, iovs);
        continue;
      }
      bool refused = error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP;
      if (s->group[0] > 1 && refused) {
        h->gso_limit = (int32_t)(s->group_size[0] - 1);
        continue;
      }
      return done > 0 ? done : -error;
    }
    int frames = 0;
    for (int i = 0; i < sent; i++) frames += s->group[i];
    done += frames;
    next += (uint32_t)frames;
    /* Less than all: the next call tells why. Going on here could swallow the socket's pending error. */
    if (sent < messages) break;
  }
  return done;
}
