/* Many UDP flows at once, as so many QUIC clients: udp-flows ADDRESS PORT FLOWS BYTES WINDOW
 *
 * Opens FLOWS sockets, each connected to ADDRESS and PORT, where somebody echoes. Each flow asks once, then each once more, with at most WINDOW datagrams of BYTES bytes on their way. Every answer must
 * be what its own flow asked in this round. A datagram without an answer is asked again after a second, as any client over UDP does; how many were is told. Prints "all, N asked again". */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 1000, TRIES = 20, DATAGRAM_MAX = 1500 };

struct flow {
  int fd;
  int round; /* The last one that was answered. */
  int tries;
  long askedMs;
};

static struct flow *flows;
static int bytes;
static int again;

static void fail(const char *what) {
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}

static long nowMs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void text(char *to, int flow, int round) {
  memset(to, ' ', bytes);
  int length = snprintf(to, bytes, "flow %d round %d", flow, round);
  to[length] = ' ';
}

static void ask(int i, int round) {
  char message[DATAGRAM_MAX];
  text(message, i, round);
  flows[i].askedMs = nowMs();
  if (flows[i].tries++ > 0) again++;
  if (flows[i].tries > TRIES) {
    printf("flow %d was not answered\n", i);
    exit(1);
  }
  if (send(flows[i].fd, message, bytes, 0) != bytes && errno != ENOBUFS && errno != EAGAIN) fail("send");
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  int count = atoi(argv[3]);
  int window = atoi(argv[5]);
  bytes = atoi(argv[4]);
  if (count < 1 || window < 1 || window > count || bytes < 64 || bytes > DATAGRAM_MAX) return 2;
  struct rlimit limit = {count + 64, count + 64};
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) fail("setrlimit");
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) return 2;
  flows = calloc(count, sizeof *flows);
  int epoll = epoll_create1(0);
  if (flows == NULL || epoll < 0) fail("set-up");
  for (int i = 0; i < count; i++) {
    flows[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (flows[i].fd < 0 || connect(flows[i].fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, flows[i].fd, &event) < 0) fail("epoll_ctl");
  }
  for (int round = 1; round <= 2; round++) {
    int next = 0, answered = 0;
    long lookedMs = nowMs();
    for (int i = 0; i < count; i++) flows[i].tries = 0;
    while (next < window) ask(next++, round);
    while (answered < count) {
      struct epoll_event events[64];
      int ready = epoll_wait(epoll, events, 64, PATIENCE_MS / 4);
      for (int e = 0; e < ready; e++) {
        int i = events[e].data.u32;
        char got[DATAGRAM_MAX], wanted[DATAGRAM_MAX];
        ssize_t length = recv(flows[i].fd, got, sizeof got, 0);
        if (length < 0) {
          if (errno == EAGAIN) continue;
          fail("recv");
        }
        /* The answer to a datagram that was thought lost. */
        text(wanted, i, flows[i].round);
        if (flows[i].round > 0 && length == bytes && memcmp(got, wanted, bytes) == 0) continue;
        text(wanted, i, round);
        if (length != bytes || memcmp(got, wanted, bytes) != 0) {
          printf("flow %d got %.*s\n", i, (int)length, got);
          return 1;
        }
        flows[i].round = round;
        answered++;
        if (next < count) ask(next++, round);
      }
      long now = nowMs();
      if (now - lookedMs < PATIENCE_MS / 4) continue;
      lookedMs = now;
      for (int i = 0; i < next; i++)
        if (flows[i].round < round && now - flows[i].askedMs > PATIENCE_MS) ask(i, round);
    }
  }
  printf("all, %d asked again\n", again);
  return 0;
}
