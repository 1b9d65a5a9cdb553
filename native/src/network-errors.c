/*
 * How far packets may go, and what routers say when that was not far enough. A socket whose errors are kept (IP_RECVERR) holds each ICMP
 * error about one of its packets in a queue of its own, with who said it and with the beginning of the packet; as long as one waits, the
 * socket is told as FAILED.
 */
#include "netemu.h"
#include <errno.h>
#include <time.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>

enum { LOOKED_AT_MAX = 32 };

static int family_of(int fd) {
  int family;
  socklen_t length = sizeof family;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) < 0 ? -errno : family;
}

static int set_both(int fd, int option4, int option6, int value) {
  int family = family_of(fd);
  if (family < 0) return family;
  bool six = family == AF_INET6;
  if (!six && family != AF_INET) return -EINVAL;
  return setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? option6 : option4, &value, sizeof value) < 0 ? -errno : 0;
}

int ne_keep_network_errors(int fd, bool on) {
  return set_both(fd, IP_RECVERR, IPV6_RECVERR, on);
}

int ne_set_hop_limit(int fd, int hops) {
  return set_both(fd, IP_TTL, IPV6_UNICAST_HOPS, hops == 0 ? -1 : hops);
}

int ne_hop_limit(ne_context *c, int32_t handle, int hops) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (hops < 0 || hops > 255) return -EINVAL;
  /* A stream keeps errors only while it connects: later ones, which TCP outlives, would end it. */
  if (h->kind == NE_STREAM && hops == 0) ne_keep_network_errors(h->fd, false);
  return ne_set_hop_limit(h->fd, hops);
}

/* What the control data of an error queue's message says; NULL: nothing of ICMP's. */
static const struct sock_extended_err *icmp_error(struct msghdr *m) {
  for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm != NULL; cm = CMSG_NXTHDR(m, cm)) {
    bool four = cm->cmsg_level == IPPROTO_IP && cm->cmsg_type == IP_RECVERR;
    bool six = cm->cmsg_level == IPPROTO_IPV6 && cm->cmsg_type == IPV6_RECVERR;
    if (!four && !six) continue;
    const struct sock_extended_err *error = (const struct sock_extended_err *)(const void *)CMSG_DATA(cm);
    if (error->ee_origin == SO_EE_ORIGIN_ICMP || error->ee_origin == SO_EE_ORIGIN_ICMP6) return error;
  }
  return NULL;
}

int ne_network_error(ne_context *c, int32_t handle, uint8_t out[NE_NETWORK_ERROR_BYTES]) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  /* The kernel's own errors, such as about a datagram too long, are in the same queue. */
  for (int i = 0; i < LOOKED_AT_MAX; i++) {
    memset(out, 0, NE_NETWORK_ERROR_BYTES);
    struct sockaddr_storage about, offender;
    memset(&about, 0, sizeof about);
    memset(&offender, 0, sizeof offender);
    union {
      struct cmsghdr align;
      uint8_t bytes[256];
    } control;
    struct iovec iov = {.iov_base = out + NE_NETWORK_ERROR_QUOTE, .iov_len = NE_NETWORK_ERROR_BYTES - NE_NETWORK_ERROR_QUOTE};
    struct msghdr m = {
        .msg_name = &about,
        .msg_namelen = sizeof about,
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t got = recvmsg(h->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    const struct sock_extended_err *error = icmp_error(&m);
    if (error == NULL) continue;
    const struct sockaddr *from = SO_EE_OFFENDER(error);
    size_t length = from->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (from->sa_family == AF_INET || from->sa_family == AF_INET6) memcpy(&offender, from, length);
    uint8_t packed[NE_ADDRESS_BYTES];
    ne_pack_address(&offender, packed);
    out[0] = error->ee_type;
    out[1] = error->ee_code;
    out[2] = packed[18];
    out[3] = (uint8_t)got;
    memcpy(out + 4, packed, 16);
    ne_pack_address(&about, packed);
    memcpy(out + 20, packed, 18);
    return 1;
  }
  return 0;
}
