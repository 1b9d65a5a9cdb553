/* Opening sockets, and what is asked of them afterwards. */
#include "glue.h"
#include <arpa/inet.h>

static napi_value f_udp_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(11);
  ne_address local, remote, group, interface;
  device_name name;
  int error;
  bool has_local, has_remote, has_group, has_interface;
  int32_t family, flags, receive_bytes, send_bytes;
  NEED(get_ip(env, a[0], a[1], &local, &has_local) == 0);
  NEED(get_ip(env, a[2], a[3], &remote, &has_remote) == 0);
  NEED(get_int(env, a[4], &family) && get_int(env, a[5], &flags) && get_int(env, a[6], &receive_bytes) && get_int(env, a[7], &send_bytes));
  NEED(get_ip(env, a[8], NULL, &group, &has_group) == 0);
  NEED(get_ip(env, a[9], NULL, &interface, &has_interface) == 0);
  const char *device = get_device(env, a[10], name, &error);
  if (error < 0) return number(env, error);
  ne_udp_options options = {
      .local = has_local ? &local : NULL,
      .remote = has_remote ? &remote : NULL,
      .family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : 0,
      .reuse = (flags & 1) != 0,
      .gro = (flags & 2) != 0,
      .receive_bytes = receive_bytes,
      .send_bytes = send_bytes,
      .group = has_group ? &group : NULL,
      .group_interface = has_interface ? &interface : NULL,
      .group_loop = (flags & 4) != 0,
      .network_errors = (flags & 8) != 0,
      .device = device,
  };
  return number(env, ne_udp_open(c, &options));
}

static int get_family(napi_env env, napi_value v) {
  int32_t family;
  if (!get_int(env, v, &family)) return -1;
  return family == 4 ? AF_INET : family == 6 ? AF_INET6 : -1;
}

static napi_value f_ping_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  int family = get_family(env, a[0]);
  ne_address local;
  bool has_local;
  device_name name;
  int error;
  NEED(family >= 0);
  NEED(get_ip(env, a[1], NULL, &local, &has_local) == 0);
  const char *device = get_device(env, a[2], name, &error);
  if (error < 0) return number(env, error);
  return number(env, ne_ping_open(c, family, has_local ? &local : NULL, device));
}

static napi_value f_raw_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  int family = get_family(env, a[0]);
  int32_t protocol;
  ne_address local, remote;
  bool has_local, has_remote;
  NEED(family >= 0 && get_int(env, a[1], &protocol));
  NEED(get_ip(env, a[2], NULL, &local, &has_local) == 0);
  NEED(get_ip(env, a[3], NULL, &remote, &has_remote) == 0);
  return number(env, ne_raw_open(c, family, protocol, has_local ? &local : NULL, has_remote ? &remote : NULL));
}

static napi_value f_unix_datagram_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  ne_address local, remote;
  bool has_local = false, has_remote = false;
  int error = get_path(env, a[0], &local, &has_local);
  if (error == 0) error = get_path(env, a[1], &remote, &has_remote);
  if (error < 0) return number(env, error);
  return number(env, ne_unix_datagram_open(c, has_local ? &local : NULL, has_remote ? &remote : NULL));
}

static napi_value f_datagram_connect(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  ne_address remote;
  bool given = false;
  int error = get_path(env, a[1], &remote, &given);
  if (error < 0) return number(env, error);
  NEED(given);
  return number(env, ne_datagram_connect(c, handle, &remote));
}

static napi_value f_keep_alive(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  return number(env, ne_keep_alive(c, handle, get_bool(env, a[1])));
}

static napi_value f_hop_limit(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  int32_t hops;
  NEED(get_int(env, a[1], &hops));
  return number(env, ne_hop_limit(c, handle, hops));
}

static napi_value f_network_error(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  uint8_t *bytes;
  size_t length;
  NEED(get_bytes(env, a[1], &bytes, &length) && bytes != NULL && length >= NE_NETWORK_ERROR_BYTES);
  return number(env, ne_network_error(c, handle, bytes));
}

static napi_value f_tcp_connect(napi_env env, napi_callback_info info) {
  ARGUMENTS(7);
  ne_address remote, local;
  bool has_remote, has_local;
  device_name name;
  int error;
  int32_t hops;
  NEED(get_ip(env, a[0], a[1], &remote, &has_remote) == 0 && has_remote);
  NEED(get_ip(env, a[2], a[3], &local, &has_local) == 0);
  const char *device = get_device(env, a[5], name, &error);
  if (error < 0) return number(env, error);
  NEED(get_int(env, a[6], &hops));
  return number(env, ne_connect(c, &remote, has_local ? &local : NULL, get_bool(env, a[4]), device, hops));
}

static napi_value f_tcp_listen(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  ne_address local;
  bool given;
  int32_t backlog;
  NEED(get_ip(env, a[0], a[1], &local, &given) == 0 && given && get_int(env, a[2], &backlog));
  return number(env, ne_listen(c, &local, backlog, get_bool(env, a[3])));
}

static napi_value f_unix_connect(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  ne_address remote;
  bool given = false;
  int error = get_path(env, a[0], &remote, &given);
  if (error < 0) return number(env, error);
  NEED(given);
  return number(env, ne_connect(c, &remote, NULL, false, NULL, 0));
}

static napi_value f_unix_listen(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  ne_address local;
  bool given = false;
  int32_t backlog;
  int error = get_path(env, a[0], &local, &given);
  if (error < 0) return number(env, error);
  NEED(given && get_int(env, a[1], &backlog));
  return number(env, ne_listen(c, &local, backlog, false));
}

static napi_value f_endpoint(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  ne_address address;
  int error = ne_endpoint(c, handle, get_bool(env, a[1]), &address);
  if (error < 0) return number(env, error);
  char text[INET6_ADDRSTRLEN + sizeof(struct sockaddr_un)] = "";
  int port = 0;
  if (address.family == AF_INET) {
    inet_ntop(AF_INET, &address.u.v4.sin_addr, text, sizeof text);
    port = ntohs(address.u.v4.sin_port);
  } else if (address.family == AF_INET6) {
    inet_ntop(AF_INET6, &address.u.v6.sin6_addr, text, sizeof text);
    port = ntohs(address.u.v6.sin6_port);
  } else if (address.family == AF_UNIX && address.length > offsetof(struct sockaddr_un, sun_path)) {
    memcpy(text, address.u.un.sun_path, address.length - offsetof(struct sockaddr_un, sun_path));
    text[sizeof(struct sockaddr_un)] = 0;
  }
  napi_value pair, value;
  napi_create_array_with_length(env, 2, &pair);
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  napi_set_element(env, pair, 0, value);
  napi_set_element(env, pair, 1, number(env, port));
  return pair;
}

const glue_function SOCKETS[] = {
    {"udpOpen", f_udp_open},
    {"pingOpen", f_ping_open},
    {"rawOpen", f_raw_open},
    {"unixDatagramOpen", f_unix_datagram_open},
    {"datagramConnect", f_datagram_connect},
    {"keepAlive", f_keep_alive},
    {"hopLimit", f_hop_limit},
    {"networkError", f_network_error},
    {"tcpConnect", f_tcp_connect},
    {"tcpListen", f_tcp_listen},
    {"unixConnect", f_unix_connect},
    {"unixListen", f_unix_listen},
    {"endpoint", f_endpoint},
    {NULL, NULL},
};
