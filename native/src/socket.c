/*
 * Opening sockets and asking about them. Everything is non-blocking and close-on-exec from birth. A unix socket file gets mode 0600 by
 * fchmod before bind (the umask belongs to the whole process) and is unlinked on close if it is still the one made here.
 */
#include "netemu.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static int new_socket(int family, int type, int protocol) {
  int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  return fd < 0 ? -errno : fd;
}

static int set_int(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

static int bind_device(int fd, const char *device) {
  if (device == NULL) return 0;
  return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device) + 1) < 0 ? -errno : 0;
}

static int fail(int fd, int error) {
  close(fd);
  return error;
}

/* The descriptor becomes a handle that unlinks the file it is bound to. */
static int with_path(ne_context *c, int fd, enum ne_kind kind, int flags, const ne_address *local) {
  struct stat made;
  char *path = NULL;
  bool known = false;
  if (local != NULL) {
    path = strdup(local->u.un.sun_path);
    if (path == NULL) return fail(fd, -ENOMEM);
    known = lstat(path, &made) == 0;
  }
  int handle = ne_handle_new(c, fd, kind, flags);
  if (handle < 0 || !known) {
    free(path);
    return handle;
  }
  ne_handle *h = ne_get(c, handle);
  h->path = path;
  h->path_device = made.st_dev;
  h->path_inode = made.st_ino;
  return handle;
}

static int interface_of(const ne_address *address) {
  struct ifaddrs *list;
  int index = 0;
  if (getifaddrs(&list) < 0) return -errno;
  for (const struct ifaddrs *i = list; i != NULL && index == 0; i = i->ifa_next) {
    if (i->ifa_addr == NULL || i->ifa_addr->sa_family != address->family) continue;
    if (address->family == AF_INET6) {
      const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)i->ifa_addr;
      if (memcmp(&v6->sin6_addr, &address->u.v6.sin6_addr, 16) == 0) index = (int)if_nametoindex(i->ifa_name);
    }
  }
  freeifaddrs(list);
  return index == 0 ? -ENODEV : index;
}

static int join_group(int fd, const ne_udp_options *o) {
  int error;
  if (o->group->family == AF_INET) {
    struct ip_mreqn request = {.imr_multiaddr = o->group->u.v4.sin_addr};
    if (o->group_interface != NULL) {
      if (o->group_interface->family != AF_INET) return -EINVAL;
      request.imr_address = o->group_interface->u.v4.sin_addr;
      if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) < 0) return -errno;
    }
    if (setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) < 0) return -errno;
    return set_int(fd, IPPROTO_IP, IP_MULTICAST_LOOP, o->group_loop);
  }
  struct ipv6_mreq request = {.ipv6mr_multiaddr = o->group->u.v6.sin6_addr};
  if (o->group_interface != NULL) {
    int index = interface_of(o->group_interface);
    if (index < 0) return index;
    request.ipv6mr_interface = (unsigned)index;
    if ((error = set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, index)) < 0) return error;
  }
  if (setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof request) < 0) return -errno;
  return set_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, o->group_loop);
}

int ne_udp_open(ne_context *c, const ne_udp_options *o) {
  int family = o->local != NULL ? o->local->family : o->remote != NULL ? o->remote->family : o->family;
  if (family != AF_INET && family != AF_INET6) return -EINVAL;
  int fd = new_socket(family, SOCK_DGRAM, 0);
  if (fd < 0) return fd;
  int error = 0;
  int flags = NE_F_SOCKET;
  if (o->reuse) error = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  /* The first passes over the system's limit for who may; the second stops at it. */
  if (error == 0 && o->receive_bytes > 0 && set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, o->receive_bytes) < 0)
    error = set_int(fd, SOL_SOCKET, SO_RCVBUF, o->receive_bytes);
  if (error == 0 && o->send_bytes > 0) error = set_int(fd, SOL_SOCKET, SO_SNDBUF, o->send_bytes);
  if (error == 0) error = bind_device(fd, o->device);
  if (error == 0 && o->network_errors) error = ne_keep_network_errors(fd, true);
  if (error == 0 && o->local != NULL && bind(fd, &o->local->u.any, o->local->length) < 0) error = -errno;
  if (error == 0 && o->group != NULL) error = join_group(fd, o);
  if (error == 0 && o->remote != NULL) {
    if (connect(fd, &o->remote->u.any, o->remote->length) < 0) error = -errno;
    flags |= NE_F_CONNECTED;
  }
  if (error < 0) return fail(fd, error);
  /* Both are extras: an older kernel goes without. */
  if (set_int(fd, SOL_UDP, UDP_SEGMENT, 0) == 0) flags |= NE_F_GSO;
  if (o->gro && set_int(fd, SOL_UDP, UDP_GRO, 1) == 0) flags |= NE_F_GRO;
  return ne_handle_new(c, fd, NE_DATAGRAM, flags);
}

/* A raw ICMP socket whose filter passes echo replies alone. */
static int raw_echo_open(ne_context *c, int family, const ne_address *local, const char *device) {
  bool six = family == AF_INET6;
  int fd = new_socket(family, SOCK_RAW, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
  if (fd < 0) return fd;
  int result;
  if (six) {
    struct icmp6_filter filter;
    ICMP6_FILTER_SETBLOCKALL(&filter);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
    result = setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter);
  } else {
    uint32_t blocked = ~(UINT32_C(1) << 0); /* type 0: echo reply */
    result = setsockopt(fd, SOL_RAW, 1 /* ICMP_FILTER */, &blocked, sizeof blocked);
  }
  if (result < 0) return fail(fd, -errno);
  result = bind_device(fd, device);
  if (result < 0) return fail(fd, result);
  result = ne_keep_network_errors(fd, true);
  if (result < 0) return fail(fd, result);
  if (local != NULL && bind(fd, &local->u.any, local->length) < 0) return fail(fd, -errno);
  return ne_handle_new(c, fd, six ? NE_DATAGRAM : NE_RAW4, NE_F_SOCKET | NE_F_RAW);
}

int ne_ping_open(ne_context *c, int family, const ne_address *local, const char *device) {
  if (local != NULL && local->family != family) return -EINVAL;
  int fd = new_socket(family, SOCK_DGRAM, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  if (fd == -EACCES || fd == -EPERM) {
    int raw = raw_echo_open(c, family, local, device);
    return raw > 0 || raw == -EMFILE ? raw : fd;
  }
  if (fd < 0) return fd;
  /* Bound at once, so that its identifier can be asked for. */
  struct sockaddr_storage any;
  memset(&any, 0, sizeof any);
  any.ss_family = (sa_family_t)family;
  socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
  int error = bind_device(fd, device);
  if (error == 0) error = ne_keep_network_errors(fd, true);
  if (error < 0) return fail(fd, error);
  const struct sockaddr *from = local != NULL ? &local->u.any : (const struct sockaddr *)&any;
  if (bind(fd, from, local != NULL ? local->length : length) < 0) return fail(fd, -errno);
  return ne_handle_new(c, fd, NE_DATAGRAM, NE_F_SOCKET);
}

int ne_raw_open(ne_context *c, int family, int protocol, const ne_address *local, const ne_address *remote) {
  if (protocol <= 0 || protocol > 255) return -EINVAL;
  if ((local != NULL && local->family != family) || (remote != NULL && remote->family != family)) return -EINVAL;
  int fd = new_socket(family, SOCK_RAW, protocol);
  if (fd < 0) return fd;
  if (local != NULL && bind(fd, &local->u.any, local->length) < 0) return fail(fd, -errno);
  if (remote != NULL && connect(fd, &remote->u.any, remote->length) < 0) return fail(fd, -errno);
  int flags = NE_F_SOCKET | NE_F_RAW | (remote != NULL ? NE_F_CONNECTED : 0);
  return ne_handle_new(c, fd, family == AF_INET ? NE_RAW4 : NE_DATAGRAM, flags);
}

int ne_unix_datagram_open(ne_context *c, const ne_address *local, const ne_address *remote) {
  int fd = new_socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0) return fd;
  if (local != NULL && (fchmod(fd, 0600) < 0 || bind(fd, &local->u.any, local->length) < 0)) return fail(fd, -errno);
  if (remote != NULL && connect(fd, &remote->u.any, remote->length) < 0) {
    int error = -errno;
    if (local != NULL) unlink(local->u.un.sun_path);
    return fail(fd, error);
  }
  return with_path(c, fd, NE_DATAGRAM, NE_F_SOCKET | (remote != NULL ? NE_F_CONNECTED : 0), local);
}

int ne_datagram_connect(ne_context *c, int32_t handle, const ne_address *remote) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (h->kind != NE_DATAGRAM) return -EINVAL;
  if (connect(h->fd, &remote->u.any, remote->length) < 0) return -errno;
  h->flags |= NE_F_CONNECTED;
  return 0;
}

int ne_keep_alive(ne_context *c, int32_t handle, bool on) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  return set_int(h->fd, SOL_SOCKET, SO_KEEPALIVE, on);
}

int ne_connect(ne_context *c, const ne_address *remote, const ne_address *local, bool no_delay, const char *device, int hops) {
  if (hops < 0 || hops > 255) return -EINVAL;
  int fd = new_socket(remote->family, SOCK_STREAM, 0);
  if (fd < 0) return fd;
  int bound = bind_device(fd, device);
  if (bound < 0) return fail(fd, bound);
  if (local != NULL) {
    if (local->family != remote->family) return fail(fd, -EINVAL);
    /* The port is then chosen at connect, where many may share one. */
    set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (bind(fd, &local->u.any, local->length) < 0) return fail(fd, -errno);
  }
  if (no_delay) set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (hops > 0) {
    bound = ne_set_hop_limit(fd, hops);
    if (bound == 0) bound = ne_keep_network_errors(fd, true);
    if (bound < 0) return fail(fd, bound);
  }
  int error = connect(fd, &remote->u.any, remote->length) < 0 ? errno : 0;
  if (error == EINPROGRESS || error == EINTR) error = 0;
  /* A unix socket's connect is done or refused at once, but EAGAIN (full backlog) leaves nothing to wait for either. */
  int handle = ne_handle_new(c, fd, NE_STREAM, NE_F_SOCKET | NE_F_CONNECTED);
  /* What fails at once is told like what fails later: FAILED, and the reason by takeError. */
  if (handle > 0) ne_get(c, handle)->error = error;
  return handle;
}

int ne_listen(ne_context *c, const ne_address *local, int backlog, bool v6_only) {
  int fd = new_socket(local->family, SOCK_STREAM, 0);
  if (fd < 0) return fd;
  int error = 0;
  bool is_unix = local->family == AF_UNIX;
  if (is_unix && fchmod(fd, 0600) < 0) error = -errno;
  if (!is_unix) error = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (error == 0 && local->family == AF_INET6) error = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6_only);
  if (error == 0 && bind(fd, &local->u.any, local->length) < 0) error = -errno;
  if (error < 0) return fail(fd, error);
  if (listen(fd, backlog) < 0) {
    error = -errno;
    if (is_unix) unlink(local->u.un.sun_path);
    return fail(fd, error);
  }
  return with_path(c, fd, NE_LISTENER, NE_F_SOCKET, is_unix ? local : NULL);
}

int ne_accept(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  if (h->kind != NE_LISTENER) return -EINVAL;
  int fd;
  do fd = accept4(h->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0) return -errno;
  return ne_handle_new(c, fd, NE_STREAM, NE_F_SOCKET | NE_F_CONNECTED);
}

int ne_take_error(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return EBADF;
  if (h->error != 0) {
    int error = h->error;
    h->error = 0;
    return error;
  }
  if (!(h->flags & NE_F_SOCKET)) return 0;
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return errno;
  return error;
}

int ne_pending(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  int bytes = 0;
  if (ioctl(h->fd, FIONREAD, &bytes) < 0) return -errno;
  return bytes;
}

int ne_endpoint(ne_context *c, int32_t handle, bool remote, ne_address *out) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  memset(&name, 0, sizeof name);
  if ((remote ? getpeername : getsockname)(h->fd, (struct sockaddr *)&name, &length) < 0) return -errno;
  memset(out, 0, sizeof *out);
  out->family = name.ss_family;
  out->length = length < sizeof out->u ? length : (socklen_t)sizeof out->u;
  memcpy(&out->u, &name, out->length);
  /* A raw socket's "port" is its protocol. */
  if (h->flags & NE_F_RAW) *(out->family == AF_INET ? &out->u.v4.sin_port : &out->u.v6.sin6_port) = 0;
  return 0;
}

int ne_shutdown_write(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return -EBADF;
  return shutdown(h->fd, SHUT_WR) < 0 ? -errno : 0;
}

int ne_reset(ne_context *c, int32_t handle) {
  ne_handle *h = ne_get(c, handle);
  if (h == NULL) return 0;
  struct linger linger = {.l_onoff = 1, .l_linger = 0};
  setsockopt(h->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  return ne_close(c, handle);
}
