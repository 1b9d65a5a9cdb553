/*
 * The plainest forwarder there can be, to measure against: frames go from one end to the other, up to 64 at a time, with no hub and no options.
 *   forward IN_PORT OUT_PORT SEND_TO_PORT [gro]
 * An end is a UDP port of 127.0.0.1 (recvmmsg, sendmmsg), or, with a name that is no number, a tap (read, write; SEND_TO_PORT is then 0).
 * With `gro` UDP sockets use UDP_GRO and pass a run on by UDP_SEGMENT. From a tap to a socket, `gso` groups equal-size frames by UDP_SEGMENT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, SLOT = 65536, SEGMENT_OPTION = 103, GRO_OPTION = 104 };
static char slots[BATCH][SLOT];
static int lengths[BATCH], segment_sizes[BATCH];

static int open_tap(const char *name) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
    perror(name);
    exit(1);
  }
  return fd;
}

static int open_socket(const char *name, int peer) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(name)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  int room = 2 << 20;
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  if (bind(s, (void *)&a, sizeof a) < 0) {
    perror("bind");
    exit(1);
  }
  a.sin_port = htons(peer);
  if (peer != 0 && connect(s, (void *)&a, sizeof a) < 0) exit(1);
  return s;
}

static int receive_tap(int fd) {
  int got = 0;
  while (got < BATCH) {
    ssize_t length = read(fd, slots[got], SLOT);
    if (length <= 0) break;
    segment_sizes[got] = 0;
    lengths[got++] = (int)length;
  }
  return got;
}

static int receive_socket(int fd, int gro) {
  static struct mmsghdr list[BATCH];
  static struct iovec to[BATCH];
  static char control[BATCH][64];
  for (int i = 0; i < BATCH; i++) {
    to[i] = (struct iovec){slots[i], gro ? SLOT : 2048};
    memset(&list[i], 0, sizeof list[i]);
    list[i].msg_hdr.msg_iov = &to[i];
    list[i].msg_hdr.msg_iovlen = 1;
    if (gro) {
      list[i].msg_hdr.msg_control = control[i];
      list[i].msg_hdr.msg_controllen = sizeof control[i];
    }
  }
  int got = recvmmsg(fd, list, gro ? 16 : BATCH, MSG_DONTWAIT, NULL);
  for (int i = 0; i < got; i++) {
    lengths[i] = (int)list[i].msg_len;
    segment_sizes[i] = 0;
    struct cmsghdr *cm = gro ? CMSG_FIRSTHDR(&list[i].msg_hdr) : NULL;
    if (cm != NULL && cm->cmsg_level == IPPROTO_UDP && cm->cmsg_type == GRO_OPTION) memcpy(&segment_sizes[i], CMSG_DATA(cm), sizeof(int));
  }
  return got;
}

static void wait_for(int fd, short events, int timeout_ms) {
  struct pollfd ready = {.fd = fd, .events = events};
  poll(&ready, 1, timeout_ms);
}

static void send_tap(int fd, int count) {
  for (int i = 0; i < count;) {
    if (write(fd, slots[i], (size_t)lengths[i]) > 0) i++;
    else wait_for(fd, POLLOUT, 10);
  }
}

static void ask_segments(struct msghdr *m, char *control, int size) {
  m->msg_control = control;
  m->msg_controllen = CMSG_SPACE(2);
  struct cmsghdr *cm = CMSG_FIRSTHDR(m);
  cm->cmsg_level = IPPROTO_UDP;
  cm->cmsg_type = SEGMENT_OPTION;
  cm->cmsg_len = CMSG_LEN(2);
  unsigned short wanted = (unsigned short)size;
  memcpy(CMSG_DATA(cm), &wanted, 2);
}

static void send_socket(int fd, int count, int group) {
  static struct mmsghdr list[BATCH];
  static struct iovec from[BATCH];
  static char control[BATCH][64];
  int messages = 0;
  for (int i = 0; i < count;) {
    int n = 1, bytes = lengths[i];
    from[i] = (struct iovec){slots[i], (size_t)lengths[i]};
    while (group && i + n < count && lengths[i + n] == lengths[i] && bytes + lengths[i] <= 65000) {
      from[i + n] = (struct iovec){slots[i + n], (size_t)lengths[i + n]};
      bytes += lengths[i + n++];
    }
    struct msghdr *m = &list[messages].msg_hdr;
    memset(&list[messages], 0, sizeof list[messages]);
    m->msg_iov = &from[i];
    m->msg_iovlen = (size_t)n;
    int size = n > 1 ? lengths[i] : segment_sizes[i];
    if (size > 0 && size < bytes) ask_segments(m, control[messages], size);
    messages++;
    i += n;
  }
  for (int done = 0; done < messages;) {
    int sent = sendmmsg(fd, list + done, (unsigned)(messages - done), 0);
    if (sent > 0) done += sent;
    else wait_for(fd, POLLOUT, 10);
  }
}

int main(int count, char **words) {
  if (count < 4) return 2;
  int from_tap = atoi(words[1]) == 0, to_tap = atoi(words[2]) == 0;
  int gro = count > 4 && strcmp(words[4], "gro") == 0, gso = count > 4 && strcmp(words[4], "gso") == 0;
  int in = from_tap ? open_tap(words[1]) : open_socket(words[1], 0);
  int out = to_tap ? open_tap(words[2]) : open_socket(words[2], atoi(words[3]));
  int on = 1;
  if (gro) setsockopt(in, IPPROTO_UDP, GRO_OPTION, &on, sizeof on);
  puts("ready");
  fflush(stdout);
  for (;;) {
    wait_for(in, POLLIN, -1);
    for (;;) {
      int got = from_tap ? receive_tap(in) : receive_socket(in, gro);
      if (got <= 0) break;
      if (to_tap) send_tap(out, got);
      else send_socket(out, got, gso);
    }
  }
}
