/*
 * A bridge helper that makes nothing: it opens the tap named by TAP_HELPER_NAME, which is there already, and passes it on, as qemu-bridge-helper passes
 * the one it made. (To make and remove an interface takes the kernel some 50 ms.)
 *   tap-helper [--use-vnet] --fd=N --br=BRIDGE
 */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(int count, char **words) {
  int to = -1;
  const char *name = getenv("TAP_HELPER_NAME");
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  for (int i = 1; i < count; i++) {
    if (strcmp(words[i], "--use-vnet") == 0) request.ifr_flags |= IFF_VNET_HDR;
    if (strncmp(words[i], "--fd=", 5) == 0) to = atoi(words[i] + 5);
  }
  int tap = open("/dev/net/tun", O_RDWR);
  if (name == NULL || strlen(name) >= IFNAMSIZ || tap < 0) return 1;
  strcpy(request.ifr_name, name);
  if (ioctl(tap, TUNSETIFF, &request) < 0) return 1;
  char byte = 0, control[CMSG_SPACE(sizeof tap)] = {0};
  struct iovec one = {&byte, 1};
  struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof tap);
  memcpy(CMSG_DATA(c), &tap, sizeof tap);
  return sendmsg(to, &message, 0) == 1 ? 0 : 1;
}
