/*
 * Both ends of what bench/user-netns.ts measures beside bulk TCP, over IPv4:
 *   talk serve PORT               TCP: a byte back for each byte. UDP: counts, reports and streams, as asked by one of the clients below
 *   talk rr HOST PORT SECONDS     one connection, a byte there and back, one at a time
 *   talk crr HOST PORT SECONDS    connect, a byte there and back, close, one at a time
 *   talk up HOST PORT SECONDS BYTES    datagrams to the server as fast as they leave; what arrives is counted there
 *   talk down HOST PORT SECONDS BYTES  datagrams from the server as fast as they leave; what arrives is counted here
 * A client prints one line: how many, seconds, and for rr and crr the median time of one in microseconds. The server says "serving" first.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* First bytes of datagrams: counted, "start to count", "how many?", "stream to me". */
enum { DATA = 'D', ZERO = 'Z', REPORT = 'R', STREAM = 'S' };
enum { SAMPLES_MAX = 1 << 20, TENTHS = 10 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in place(const char *host, const char *port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  if (inet_pton(AF_INET, host, &a.sin_addr) != 1) fail(host);
  return a;
}

static int opened(int type) {
  int s = socket(AF_INET, type, 0), on = 1, room = 4 << 20;
  if (s < 0) fail("socket");
  if (type == SOCK_STREAM) {
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  } else {
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  }
  return s;
}

static void serve(const char *port) {
  struct sockaddr_in a = place("127.0.0.1", port);
  int listener = opened(SOCK_STREAM), udp = opened(SOCK_DGRAM), set = epoll_create1(0);
  if (bind(listener, (void *)&a, sizeof a) < 0 || listen(listener, 128) < 0) fail("listen");
  if (bind(udp, (void *)&a, sizeof a) < 0) fail("bind");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = udp;
  epoll_ctl(set, EPOLL_CTL_ADD, udp, &event);
  puts("serving");
  fflush(stdout);
  static unsigned char bytes[65536];
  uint64_t count = 0;
  for (;;) {
    if (epoll_wait(set, &event, 1, -1) < 1) continue;
    int s = event.data.fd;
    if (s == listener) {
      event.data.fd = accept(listener, NULL, NULL);
      int on = 1;
      setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      if (event.data.fd >= 0) epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event);
    } else if (s != udp) {
      ssize_t got = recv(s, bytes, sizeof bytes, 0);
      if (got <= 0 || send(s, bytes, (size_t)got, MSG_NOSIGNAL) != got) close(s);
    } else {
      struct sockaddr_in from;
      socklen_t length = sizeof from;
      ssize_t got = recvfrom(udp, bytes, sizeof bytes, MSG_DONTWAIT, (void *)&from, &length);
      if (got < 1) continue;
      if (bytes[0] == DATA) count++;
      else if (bytes[0] == ZERO || bytes[0] == REPORT) {
        if (bytes[0] == ZERO) count = 0;
        sendto(udp, &count, sizeof count, 0, (void *)&from, length);
      } else if (bytes[0] == STREAM && got >= 9) {
        uint32_t size, tenths;
        memcpy(&size, bytes + 1, 4);
        memcpy(&tenths, bytes + 5, 4);
        bytes[0] = DATA;
        double end = now() + (double)tenths / TENTHS;
        while (now() < end) sendto(udp, bytes, size, 0, (void *)&from, length);
      }
    }
  }
}

static float samples[SAMPLES_MAX];
static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void ask(const struct sockaddr_in *to, double seconds, int afresh) {
  int s = -1, taken = 0;
  double start = now(), last = start;
  while (last - start < seconds && taken < SAMPLES_MAX) {
    char byte = 'x';
    if (s < 0) {
      s = opened(SOCK_STREAM);
      if (connect(s, (const void *)to, sizeof *to) < 0) fail("connect");
    }
    if (send(s, &byte, 1, 0) != 1 || recv(s, &byte, 1, 0) != 1) fail("echo");
    if (afresh) {
      close(s);
      s = -1;
    }
    double t = now();
    samples[taken++] = (float)((t - last) * 1e6);
    last = t;
  }
  qsort(samples, (size_t)taken, sizeof *samples, ascending);
  printf("%d %.6f %.2f\n", taken, last - start, samples[taken / 2]);
}

/** Sends until it is answered. */
static uint64_t asked(int s, unsigned char kind) {
  for (int tries = 0; tries < 100; tries++) {
    uint64_t answer;
    struct pollfd one = {.fd = s, .events = POLLIN};
    send(s, &kind, 1, 0);
    if (poll(&one, 1, 200) == 1 && recv(s, &answer, sizeof answer, MSG_DONTWAIT) == sizeof answer) return answer;
  }
  fail("no answer");
  return 0;
}

static void datagrams(const struct sockaddr_in *to, double seconds, uint32_t size, int up) {
  static unsigned char bytes[65536];
  int s = opened(SOCK_DGRAM);
  if (connect(s, (const void *)to, sizeof *to) < 0) fail("connect");
  asked(s, ZERO);
  double start = now();
  uint64_t count = 0;
  if (up) {
    bytes[0] = DATA;
    while (now() - start < seconds) send(s, bytes, size, 0);
    seconds = now() - start;
    usleep(200000);
    count = asked(s, REPORT);
  } else {
    uint32_t tenths = (uint32_t)(seconds * TENTHS);
    bytes[0] = STREAM;
    memcpy(bytes + 1, &size, 4);
    memcpy(bytes + 5, &tenths, 4);
    send(s, bytes, 9, 0);
    struct pollfd one = {.fd = s, .events = POLLIN};
    /* Silence is the end of it. */
    while (poll(&one, 1, 500) == 1) {
      while (recv(s, bytes, sizeof bytes, MSG_DONTWAIT) == (ssize_t)size) count++;
    }
  }
  printf("%llu %.6f 0\n", (unsigned long long)count, seconds);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) serve(argv[2]);
  if (argc < 5) return 2;
  struct sockaddr_in to = place(argv[2], argv[3]);
  double seconds = atof(argv[4]);
  if (argc == 5) ask(&to, seconds, strcmp(argv[1], "crr") == 0);
  else datagrams(&to, seconds, (uint32_t)atoi(argv[5]), strcmp(argv[1], "up") == 0);
  return 0;
}
