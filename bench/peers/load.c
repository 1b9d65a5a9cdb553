/*
 * Sends frames to a forwarder and takes them back, and checks each one: none lost, none twice, none changed, in order.
 *   load FROM TO SINK SINK_PEER BYTES WINDOW SECONDS [gso|plain [TX_HEX RX_HEX]]
 * FROM and TO, SINK and SINK_PEER are UDP ports of 127.0.0.1. A FROM or SINK that is no number is a network interface, whose frames are sent and taken
 * by a packet socket; or `plug:FOLDER`, a port of the vde_switch there; or `serve:FOLDER`, where this program gives the port, as a vde_switch does:
 * it says "serving" and waits for the forwarder to ask for its ports, then for a line on its standard input. TX_HEX goes in front of each frame sent, RX_HEX is expected in front of each that comes back (a tunnel's header).
 * At most WINDOW frames are on their way, so nothing is lost for want of room, and the forwarder is always busy. Prints one line:
 *   frames seconds cpu_seconds
 * With `gso` frames leave by UDP_SEGMENT and are taken by UDP_GRO.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SLOT = 65536 };
static unsigned char out_slots[BATCH][SLOT], in_slots[BATCH][SLOT];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int open_packets(const char *interface) {
  int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
  struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = (int)if_nametoindex(interface)};
  int room = 8 << 20, on = 1;
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  setsockopt(s, SOL_PACKET, 20 /* PACKET_QDISC_BYPASS */, &on, sizeof on);
  setsockopt(s, SOL_PACKET, 23 /* PACKET_IGNORE_OUTGOING */, &on, sizeof on);
  if (bind(s, (void *)&a, sizeof a) < 0) {
    perror(interface);
    exit(1);
  }
  return s;
}

static int unhex(const char *text, unsigned char *out) {
  int length = (int)strlen(text) / 2;
  for (int i = 0; i < length; i++) {
    unsigned byte;
    sscanf(text + 2 * i, "%2x", &byte);
    out[i] = (unsigned char)byte;
  }
  return length;
}

/* What is said on a vde_switch's control socket: magic, version 3, port and type, and the asker's datagram socket; the answer is the switch's. */
struct plug_request {
  uint32_t magic, version, type;
  struct sockaddr_un socket;
  char description[128];
} __attribute__((packed));

static struct sockaddr_un unix_path(const char *folder, const char *file) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", folder, file);
  return a;
}

static void need(int is_good, const char *what) {
  if (is_good) return;
  perror(what);
  exit(1);
}

static int open_datagrams(const char *folder, struct sockaddr_un *own) {
  char file[32];
  snprintf(file, sizeof file, "load.%d", (int)getpid());
  *own = unix_path(folder, file);
  unlink(own->sun_path);
  int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), room = 8 << 20;
  setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  need(bind(s, (void *)own, sizeof *own) == 0, own->sun_path);
  return s;
}

static int plug(const char *folder) {
  struct plug_request request = {.magic = 0xfeedface, .version = 3, .description = "load"};
  struct sockaddr_un at = unix_path(folder, "ctl"), answer, own;
  int control = socket(AF_UNIX, SOCK_STREAM, 0), s = open_datagrams(folder, &own);
  request.socket = own;
  need(connect(control, (void *)&at, sizeof at) == 0, at.sun_path);
  need(send(control, &request, sizeof request, 0) > 0, "send");
  need(recv(control, &answer, sizeof answer, MSG_WAITALL) > 0, "recv");
  need(connect(s, (void *)&answer, sizeof answer) == 0, answer.sun_path);
  return s;
}

static int serve(const char *folder) {
  struct sockaddr_un at = unix_path(folder, "ctl");
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  mkdir(folder, 0700);
  unlink(at.sun_path);
  need(bind(listener, (void *)&at, sizeof at) == 0 && listen(listener, 1) == 0, at.sun_path);
  return listener;
}

/* The forwarder asks: it is answered, and the datagram sockets are joined. */
static int served(const char *folder, int listener) {
  struct plug_request request;
  struct sockaddr_un own;
  int s = open_datagrams(folder, &own), control = accept(listener, NULL, NULL);
  need(control >= 0 && recv(control, &request, sizeof request, 0) >= (ssize_t)offsetof(struct plug_request, description), "request");
  need(connect(s, (void *)&request.socket, sizeof request.socket) == 0, request.socket.sun_path);
  need(send(control, &own, sizeof own, 0) == sizeof own, "answer");
  return s;
}

static int open_socket(const char *name, const char *peer_name) {
  if (strncmp(name, "plug:", 5) == 0) return plug(name + 5);
  if (strncmp(name, "serve:", 6) == 0) return serve(name + 6);
  int port = atoi(name), peer = atoi(peer_name);
  if (port == 0) return open_packets(name);
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
  int out = open_socket(words[1], words[2]);
  int in = open_socket(words[3], words[4]);
  if (strncmp(words[1], "serve:", 6) == 0) {
    puts("serving");
    fflush(stdout);
    out = served(words[1] + 6, out);
    in = served(words[3] + 6, in);
    char line[8];
    need(fgets(line, sizeof line, stdin) != NULL, "stdin");
  }
  int bytes = atoi(words[5]), window = atoi(words[6]);
  double seconds = atof(words[7]);
  int gso = count > 8 && strcmp(words[8], "gso") == 0, on = 1;
  unsigned char tx_header[512], rx_header[512];
  int tx = count > 10 ? unhex(words[9], tx_header) : 0, rx = count > 10 ? unhex(words[10], rx_header) : 0;
  int size_out = tx + bytes;
  int burst = gso ? (60000 / size_out < 64 ? 60000 / size_out : 64) : BATCH;
  if (gso) {
    setsockopt(in, IPPROTO_UDP, 104, &on, sizeof on);
    setsockopt(out, IPPROTO_UDP, 103, &size_out, sizeof size_out);
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
        for (int i = 0; i < burst; i++) {
          memcpy(out_slots[0] + i * size_out, tx_header, (size_t)tx);
          fill(out_slots[0] + i * size_out + tx, bytes, sent + (uint64_t)i);
        }
        if (send(out, out_slots[0], (size_t)(burst * size_out), 0) > 0) sent += (uint64_t)burst;
      } else {
        int n = room < BATCH ? room : BATCH;
        for (int i = 0; i < n; i++) {
          memcpy(out_slots[i], tx_header, (size_t)tx);
          fill(out_slots[i] + tx, bytes, sent + (uint64_t)i);
          from[i] = (struct iovec){out_slots[i], (size_t)size_out};
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
        if (part < rx || memcmp(in_slots[i] + at, rx_header, (size_t)rx) != 0 || !is_good(in_slots[i] + at + rx, part - rx, bytes, received)) {
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
