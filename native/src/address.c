/* Socket addresses to and from text and the 20-byte form that crosses to JavaScript (ADDRESS_BYTES in src/host-io/host-io.ts). */
#include "netemu.h"
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

int ne_parse_ip(const char *text, uint16_t port, ne_address *out) {
  memset(out, 0, sizeof *out);
  if (inet_pton(AF_INET, text, &out->u.v4.sin_addr) == 1) {
    out->u.v4.sin_family = AF_INET;
    out->u.v4.sin_port = htons(port);
    out->length = sizeof out->u.v4;
  } else if (inet_pton(AF_INET6, text, &out->u.v6.sin6_addr) == 1) {
    out->u.v6.sin6_family = AF_INET6;
    out->u.v6.sin6_port = htons(port);
    out->length = sizeof out->u.v6;
  } else {
    return -EINVAL;
  }
  out->family = out->u.any.sa_family;
  return 0;
}

int ne_parse_path(const char *path, size_t length, ne_address *out) {
  memset(out, 0, sizeof *out);
  if (length == 0 || memchr(path, 0, length) != NULL) return -EINVAL;
  if (length >= sizeof out->u.un.sun_path) return -ENAMETOOLONG;
  out->u.un.sun_family = AF_UNIX;
  memcpy(out->u.un.sun_path, path, length);
  out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
  out->family = AF_UNIX;
  return 0;
}

void ne_pack_address(const struct sockaddr_storage *from, uint8_t out[NE_ADDRESS_BYTES]) {
  memset(out, 0, NE_ADDRESS_BYTES);
  if (from->ss_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
    memcpy(out, &v4->sin_addr, 4);
    memcpy(out + 16, &v4->sin_port, 2);
    out[18] = 4;
  } else if (from->ss_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
    memcpy(out, &v6->sin6_addr, 16);
    memcpy(out + 16, &v6->sin6_port, 2);
    out[18] = 6;
  }
}

int ne_unpack_address(const uint8_t in[NE_ADDRESS_BYTES], ne_address *out) {
  memset(out, 0, sizeof *out);
  if (in[18] == 4) {
    out->family = AF_INET;
    out->u.v4.sin_family = AF_INET;
    memcpy(&out->u.v4.sin_addr, in, 4);
    memcpy(&out->u.v4.sin_port, in + 16, 2);
    out->length = sizeof out->u.v4;
  } else if (in[18] == 6) {
    out->family = AF_INET6;
    out->u.v6.sin6_family = AF_INET6;
    memcpy(&out->u.v6.sin6_addr, in, 16);
    memcpy(&out->u.v6.sin6_port, in + 16, 2);
    out->length = sizeof out->u.v6;
  } else {
    return -EINVAL;
  }
  return 0;
}
