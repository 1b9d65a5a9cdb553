/*
 * The plainest forwarder there can be, to measure against: datagrams of one UDP socket go out of another, recvmmsg to sendmmsg, 64 at a time.
 *   forward LISTEN_PORT SEND_FROM_PORT SEND_TO_PORT [gro]
 * With `gro` the sockets use UDP_GRO and pass a run on by UDP_SEGMENT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SLOT = 65536 };
static char slots[BATCH][SLOT];

static int open_socket(int port, int peer) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  int room = 2 << 20;
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  if (bind(s, (void *)&a, sizeof a) < 0) exit(1);
  a.sin_port = htons(peer);
  if (peer != 0 && connect(s, (void *)&a, sizeof a) < 0) exit(1);
  return s;
}

int main(int count, char **words) {
  if (count < 4) return 2;
  int in = open_socket(atoi(words[1]), 0);
  int out = open_socket(atoi(words[2]), atoi(words[3]));
  int gro = count > 4;
  int on = 1;
  if (gro) setsockopt(in, IPPROTO_UDP, 104, &on, sizeof on);
  static struct mmsghdr receive[BATCH], send[BATCH];
  static struct iovec to[BATCH], from[BATCH];
  static char control[BATCH][64], segment[BATCH][64];
  puts("ready");
  fflush(stdout);
  for (;;) {
    struct pollfd ready = {.fd = in, .events = POLLIN};
    poll(&ready, 1, -1);
    for (;;) {
      for (int i = 0; i < BATCH; i++) {
        to[i] = (struct iovec){slots[i], gro ? SLOT : 2048};
        memset(&receive[i], 0, sizeof receive[i]);
        receive[i].msg_hdr.msg_iov = &to[i];
        receive[i].msg_hdr.msg_iovlen = 1;
        if (gro) {
          receive[i].msg_hdr.msg_control = control[i];
          receive[i].msg_hdr.msg_controllen = sizeof control[i];
        }
      }
      int got = recvmmsg(in, receive, gro ? 16 : BATCH, MSG_DONTWAIT, NULL);
      if (got <= 0) break;
      for (int i = 0; i < got; i++) {
        from[i] = (struct iovec){slots[i], receive[i].msg_len};
        memset(&send[i], 0, sizeof send[i]);
        send[i].msg_hdr.msg_iov = &from[i];
        send[i].msg_hdr.msg_iovlen = 1;
        struct cmsghdr *cm = gro ? CMSG_FIRSTHDR(&receive[i].msg_hdr) : NULL;
        if (cm != NULL && cm->cmsg_level == IPPROTO_UDP && cm->cmsg_type == 104) {
          int size;
          memcpy(&size, CMSG_DATA(cm), sizeof size);
          if (size > 0 && (unsigned)size < receive[i].msg_len) {
            send[i].msg_hdr.msg_control = segment[i];
            send[i].msg_hdr.msg_controllen = CMSG_SPACE(2);
            struct cmsghdr *out_cm = CMSG_FIRSTHDR(&send[i].msg_hdr);
            out_cm->cmsg_level = IPPROTO_UDP;
            out_cm->cmsg_type = 103;
            out_cm->cmsg_len = CMSG_LEN(2);
            unsigned short wanted = (unsigned short)size;
            memcpy(CMSG_DATA(out_cm), &wanted, 2);
          }
        }
      }
      for (int done = 0; done < got;) {
        int sent = sendmmsg(out, send + done, (unsigned)(got - done), 0);
        if (sent > 0) done += sent;
        else if (sent < 0) {
          struct pollfd room = {.fd = out, .events = POLLOUT};
          poll(&room, 1, 10);
        }
      }
    }
  }
}
