/*
 * Sends frames to a forwarder and takes them back, and checks each one: none lost, none twice, none changed, in order.
 *   load FROM_PORT TO_PORT SINK_PORT SINK_PEER_PORT BYTES WINDOW SECONDS [gso]
 * At most WINDOW frames are on their way, so nothing is lost for want of room, and the forwarder is always busy. Prints one line:
 *   frames seconds cpu_seconds
 * With `gso` frames leave by UDP_SEGMENT and are taken by UDP_GRO.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, SLOT = 65536 };
static unsigned char out_slots[BATCH][SLOT], in_slots[BATCH][SLOT];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int open_socket(int port, int peer) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  int room = 8 << 20;
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  if (bind(s, (void *)&a, sizeof a) < 0) {
    perror("bind");
    exit(1);
  }
  a.sin_port = htons(peer);
  if (connect(s, (void *)&a, sizeof a) < 0) exit(1);
  return s;
}

/* Ethernet header, then the number of the frame, then bytes that follow from it. */
static void fill(unsigned char *frame, int bytes, uint64_t number) {
  memset(frame, 0xff, 6);
  memset(frame + 6, 0x52, 6);
  frame[12] = 0x88;
  frame[13] = 0xb5;
  memcpy(frame + 14, &number, 8);
  uint64_t word = number * 0x9e3779b97f4a7c15u;
  for (int at = 22; at + 8 <= bytes; at += 8, word += 0x0101010101010101u) memcpy(frame + at, &word, 8);
}

static int is_good(const unsigned char *frame, int length, int bytes, uint64_t number) {
  uint64_t got;
  if (length != bytes) return 0;
  memcpy(&got, frame + 14, 8);
  if (got != number) return 0;
  uint64_t word = number * 0x9e3779b97f4a7c15u, there;
  for (int at = 22; at + 8 <= bytes; at += 8, word += 0x0101010101010101u) {
    memcpy(&there, frame + at, 8);
    if (there != word) return 0;
  }
  return 1;
}

int main(int count, char **words) {
  if (count < 8) return 2;
  int out = open_socket(atoi(words[1]), atoi(words[2]));
  int in = open_socket(atoi(words[3]), atoi(words[4]));
  int bytes = atoi(words[5]), window = atoi(words[6]);
  double seconds = atof(words[7]);
  int gso = count > 8, on = 1;
  int burst = gso ? (60000 / bytes < 64 ? 60000 / bytes : 64) : BATCH;
  if (gso) {
    setsockopt(in, IPPROTO_UDP, 104, &on, sizeof on);
    setsockopt(out, IPPROTO_UDP, 103, &bytes, sizeof bytes);
  }
  static struct mmsghdr send_list[BATCH], receive_list[BATCH];
  static struct iovec from[BATCH], to[BATCH];
  static char control[BATCH][64];
  uint64_t sent = 0, received = 0, counted = 0;
  double start = now(), begin = start + seconds * 0.2, end = start + seconds, last = start;
  struct rusage before, after;
  int begun = 0;
  for (;;) {
    double t = now();
    if (!begun && t >= begin) {
      begun = 1;
      begin = t;
      counted = received;
      getrusage(RUSAGE_SELF, &before);
    }
    if (t >= end) break;
    int room = window - (int)(sent - received);
    if (gso ? room >= burst : room >= (window < 2 * BATCH ? window / 2 : BATCH)) {
      if (gso) {
        for (int i = 0; i < burst; i++) fill(out_slots[0] + i * bytes, bytes, sent + (uint64_t)i);
        if (send(out, out_slots[0], (size_t)(burst * bytes), 0) > 0) sent += (uint64_t)burst;
      } else {
        int n = room < BATCH ? room : BATCH;
        for (int i = 0; i < n; i++) {
          fill(out_slots[i], bytes, sent + (uint64_t)i);
          from[i] = (struct iovec){out_slots[i], (size_t)bytes};
          memset(&send_list[i], 0, sizeof send_list[i]);
          send_list[i].msg_hdr.msg_iov = &from[i];
          send_list[i].msg_hdr.msg_iovlen = 1;
        }
        int done = sendmmsg(out, send_list, (unsigned)n, 0);
        if (done > 0) sent += (uint64_t)done;
      }
    }
    for (int i = 0; i < BATCH; i++) {
      to[i] = (struct iovec){in_slots[i], SLOT};
      memset(&receive_list[i], 0, sizeof receive_list[i]);
      receive_list[i].msg_hdr.msg_iov = &to[i];
      receive_list[i].msg_hdr.msg_iovlen = 1;
      if (gso) {
        receive_list[i].msg_hdr.msg_control = control[i];
        receive_list[i].msg_hdr.msg_controllen = sizeof control[i];
      }
    }
    int got = recvmmsg(in, receive_list, BATCH, MSG_DONTWAIT, NULL);
    if (got > 0) last = t;
    else if (window - (int)(sent - received) < (gso ? burst : window / 2)) {
      struct pollfd wait = {.fd = in, .events = POLLIN};
      poll(&wait, 1, 100);
    }
    if (got <= 0 && t - last > 2) {
      fprintf(stderr, "nothing comes back: %llu sent, %llu received\n", (unsigned long long)sent, (unsigned long long)received);
      return 1;
    }
    for (int i = 0; i < got; i++) {
      int length = (int)receive_list[i].msg_len, size = length;
      struct cmsghdr *cm = gso ? CMSG_FIRSTHDR(&receive_list[i].msg_hdr) : NULL;
      if (cm != NULL && cm->cmsg_type == 104) memcpy(&size, CMSG_DATA(cm), sizeof size);
      for (int at = 0; at < length; at += size) {
        int part = length - at < size ? length - at : size;
        if (!is_good(in_slots[i] + at, part, bytes, received)) {
          fprintf(stderr, "frame %llu is wrong\n", (unsigned long long)received);
          return 1;
        }
        received++;
      }
    }
  }
  getrusage(RUSAGE_SELF, &after);
  double cpu = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
               (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec) * 1e-6;
  printf("%llu %.6f %.6f\n", (unsigned long long)(received - counted), now() - begin, cpu);
  return 0;
}
