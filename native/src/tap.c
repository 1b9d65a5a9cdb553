/*
 * Taps: /dev/net/tun with IFF_NO_PI, and with a virtio_net_hdr in front of each frame when asked. The header's fields are the frame's
 * offload facts (FACTS, GSO_SIZE, HEADER_LENGTH, CSUM_START, CSUM_OFFSET), in little-endian order (TUNSETVNETLE). A tap moves one frame
 * a system call; the loop over a batch is here.
 */
#include "netemu.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* struct virtio_net_hdr, little-endian; virtio 1.2 section 5.1.6. */
typedef struct {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t header_length;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
} vnet_header;

_Static_assert(sizeof(vnet_header) == 10, "virtio_net_hdr has 10 bytes");

/* ACCEPT_* of src/core/port.ts. */
enum { ACCEPT_CSUM = 1, ACCEPT_TSO4 = 2, ACCEPT_TSO6 = 4, ACCEPT_UFO = 8, ACCEPT_USO = 16, ACCEPT_ECN = 32 };

static int set_up_header(int fd) {
  int size = (int)sizeof(vnet_header);
  if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0) return -errno;
  int little = 1;
  if (ioctl(fd, TUNSETVNETLE, &little) < 0 && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) return -errno;
  return 0;
}

int ne_tap_open(ne_context *c, const char *name, bool vnet, bool multi_queue, char name_out[16]) {
  if (c->closed) return -EBADF;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (name != NULL) {
    if (strlen(name) >= IFNAMSIZ) return -EINVAL;
    strcpy(request.ifr_name, name);
  }
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  int flags = IFF_TAP | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0) | (multi_queue ? IFF_MULTI_QUEUE : 0);
  request.ifr_flags = (short)flags;
  int error = ioctl(fd, TUNSETIFF, &request) < 0 ? -errno : vnet ? set_up_header(fd) : 0;
  if (error < 0) {
    close(fd);
    return error;
  }
  memcpy(name_out, request.ifr_name, 15);
  name_out[15] = 0;
  return ne_handle_new(c, fd, NE_TAP, vnet ? NE_F_VNET : 0);
}

int ne_tap_offloads(ne_context *c, int32_t handle, unsigned accepts) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (h->kind != NE_TAP) return -EINVAL;
  unsigned bits = 0;
  if (accepts & ACCEPT_CSUM) {
    bits |= TUN_F_CSUM;
    if (accepts & ACCEPT_TSO4) bits |= TUN_F_TSO4;
    if (accepts & ACCEPT_TSO6) bits |= TUN_F_TSO6;
    if ((accepts & ACCEPT_ECN) && (bits & (TUN_F_TSO4 | TUN_F_TSO6))) bits |= TUN_F_TSO_ECN;
    if (accepts & ACCEPT_UFO) bits |= TUN_F_UFO;
    if (accepts & ACCEPT_USO) bits |= TUN_F_USO4 | TUN_F_USO6;
  }
  return ioctl(h->fd, TUNSETOFFLOAD, (unsigned long)bits) < 0 ? -errno : 0;
}

int ne_tap_of(ne_context *c, int32_t handle, char name_out[16]) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (ioctl(h->fd, TUNGETIFF, &request) < 0) return -errno;
  if ((request.ifr_flags & (IFF_TAP | IFF_NO_PI)) != (IFF_TAP | IFF_NO_PI)) return -EINVAL;
  bool vnet = (request.ifr_flags & IFF_VNET_HDR) != 0;
  int error = vnet ? set_up_header(h->fd) : 0;
  if (error < 0) return error;
  memcpy(name_out, request.ifr_name, 15);
  name_out[15] = 0;
  h->kind = NE_TAP;
  h->flags = (uint8_t)(vnet ? h->flags | NE_F_VNET : h->flags & ~NE_F_VNET);
  return vnet;
}

int ne_tap_send_buffer(ne_context *c, int32_t handle, int bytes) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  return ioctl(h->fd, TUNSETSNDBUF, &bytes) < 0 ? -errno : 0;
}

int ne_read_frames(ne_context *c, int32_t handle, ne_batch batch, int32_t *spill, uint32_t spills) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  bool vnet = (h->flags & NE_F_VNET) != 0;
  int done = 0;
  uint32_t spilled = 0;
  for (uint32_t i = batch.from; i < batch.to;) {
    uint8_t *start, *more = NULL;
    uint32_t room, more_room = 0;
    int error = ne_slot(c, batch.list[i], 0, &start, &room);
    if (error == 0 && spilled < spills) error = ne_slot(c, spill[spilled], 0, &more, &more_room);
    if (error < 0) return done > 0 ? done : error;
    /* Whoever gives such slots would lose a frame without one: the rest waits. */
    if (spills > 0 && spilled == spills) return done;
    vnet_header header;
    struct iovec iov[3] = {{&header, sizeof header}, {start, room}, {more, more_room}};
    size_t parts = more_room > 0 ? 2 : 1;
    ssize_t got;
    c->stats.receive_calls++;
    if (h->flags & NE_F_SOCKET) {
      /* Asks for the message's true length, to tell a frame that did not fit. */
      struct msghdr message = {.msg_iov = vnet ? iov : iov + 1, .msg_iovlen = vnet ? parts + 1 : parts};
      got = recvmsg(h->fd, &message, MSG_DONTWAIT | MSG_TRUNC);
    } else {
      got = vnet ? readv(h->fd, iov, (int)parts + 1) : readv(h->fd, iov + 1, (int)parts);
    }
    if (got < 0) {
      if (errno == EINTR) continue;
      return done > 0 ? done : -errno;
    }
    if (got == 0) return done;
    if (vnet) got -= (ssize_t)sizeof header;
    /* A tap cuts what is too long without a word: a slot filled to the brim is taken for that. */
    size_t limit = (size_t)room + more_room - (h->flags & NE_F_SOCKET ? 0 : 1);
    if (got < 0 || (size_t)got > limit) {
      c->stats.truncated++;
      continue;
    }
    int32_t *record = c->table + batch.list[i];
    if ((size_t)got > room) {
      ne_chain(c, batch.list[i], record[NE_SLOT], (int32_t)room, spill[spilled], (int32_t)got - (int32_t)room);
      spill[spilled++] = 0;
    } else {
      record[NE_OFFSET] = record[NE_SLOT];
      record[NE_LENGTH] = (int32_t)got;
      record[NE_TOTAL] = (int32_t)got;
    }
    if (vnet) {
      record[NE_FACTS] = (header.flags & 3) | header.gso_type << 8;
      record[NE_GSO_SIZE] = le16toh(header.gso_size);
      record[NE_HEADER_LENGTH] = le16toh(header.header_length);
      record[NE_CSUM_START] = le16toh(header.csum_start);
      record[NE_CSUM_OFFSET] = le16toh(header.csum_offset);
    } else {
      record[NE_FACTS] = 0;
    }
    done++;
    i++;
  }
  return done;
}

static void header_of(const ne_context *c, int32_t frame, vnet_header *header) {
  const int32_t *record = c->table + frame;
  int32_t facts = record[NE_FACTS];
  memset(header, 0, sizeof *header);
  header->flags = (uint8_t)(facts & 3);
  header->gso_type = (uint8_t)(facts >> 8);
  if (header->gso_type != 0) {
    header->gso_size = htole16((uint16_t)record[NE_GSO_SIZE]);
    header->header_length = htole16((uint16_t)record[NE_HEADER_LENGTH]);
  }
  if (facts & 1) {
    header->csum_start = htole16((uint16_t)record[NE_CSUM_START]);
    header->csum_offset = htole16((uint16_t)record[NE_CSUM_OFFSET]);
  }
}

int ne_write_frames(ne_context *c, int32_t handle, ne_batch batch) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  bool vnet = (h->flags & NE_F_VNET) != 0;
  int done = 0;
  bool touched = false;
  for (uint32_t i = batch.from; i < batch.to;) {
    vnet_header header;
    ne_gather g = {.iov = c->scratch->iov, .count = 0, .max = NE_MAX_IOV, .bytes = 0};
    if (vnet) g.iov[g.count++] = (struct iovec){&header, sizeof header};
    int error = ne_gather_frame(c, batch.list[i], 0, &g);
    if (error < 0) return done > 0 ? done : error;
    if (vnet) header_of(c, batch.list[i], &header);
    c->stats.send_calls++;
    ssize_t sent;
    if (h->flags & NE_F_SOCKET) {
      struct msghdr message = {.msg_iov = g.iov, .msg_iovlen = (size_t)g.count};
      sent = sendmsg(h->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      sent = writev(h->fd, g.iov, g.count);
    }
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EFAULT && !touched) {
        touched = true;
        ne_touch(g.iov, g.count);
        continue;
      }
      return done > 0 ? done : -errno;
    }
    done++;
    i++;
  }
  return done;
}
