/* Descriptors that come from elsewhere or go there: adopted, passed over unix sockets, event and memory descriptors, terminals. */
#include "glue.h"
#include <linux/ioctl.h>

static napi_value f_adopt(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  int32_t fd;
  NEED(get_int(env, a[0], &fd));
  return number(env, ne_adopt(c, fd, get_bool(env, a[1])));
}

static napi_value f_control(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  HANDLE(handle, 0);
  uint32_t request;
  uint8_t *bytes = NULL;
  size_t length = 0;
  NEED(napi_get_value_uint32(env, a[1], &request) == napi_ok);
  if (!is_nothing(env, a[2])) NEED(get_bytes(env, a[2], &bytes, &length));
  NEED(length >= _IOC_SIZE(request));
  return number(env, ne_control(c, handle, request, bytes));
}

static napi_value f_address_of(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  uint8_t *bytes;
  size_t length;
  (void)c;
  NEED(get_bytes(env, a[0], &bytes, &length));
  return number(env, (double)(uintptr_t)bytes);
}

static napi_value f_socket_pair(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  void *place = NULL;
  size_t length;
  NEED(get_array(env, a[0], napi_int32_array, &place, &length) && length >= 2);
  return number(env, ne_socket_pair(c, place));
}

static napi_value f_send_with_fds(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  HANDLE(handle, 0);
  uint8_t *bytes;
  size_t length, count;
  void *fds = NULL;
  NEED(get_bytes(env, a[1], &bytes, &length) && get_array(env, a[2], napi_int32_array, &fds, &count));
  NEED(count <= NE_MAX_FDS);
  return number(env, ne_send_with_fds(c, handle, bytes, length, fds, (uint32_t)count));
}

/* (handle, bytes, limit, out): out[0] descriptors kept, out[1] closed, out[2..] their handles. */
static napi_value f_receive_with_fds(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  HANDLE(handle, 0);
  uint8_t *bytes;
  size_t length, room;
  uint64_t limit;
  void *place = NULL;
  NEED(get_bytes(env, a[1], &bytes, &length) && get_count(env, a[2], NE_MAX_FDS, &limit));
  NEED(get_array(env, a[3], napi_int32_array, &place, &room) && room >= limit + 2);
  int32_t *out = place;
  uint32_t count, excess;
  int64_t got = ne_receive_with_fds(c, handle, bytes, length, out + 2, (uint32_t)limit, &count, &excess);
  out[0] = (int32_t)count;
  out[1] = (int32_t)excess;
  return number(env, got);
}

static napi_value f_event_fd(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  (void)a;
  return number(env, ne_event_fd(c));
}

static napi_value f_memory_fd(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  char name[256];
  size_t length;
  uint64_t bytes;
  NEED(get_text(env, a[0], name, sizeof name, &length) == 0);
  NEED(get_count(env, a[1], (uint64_t)1 << 48, &bytes));
  return number(env, ne_memory_fd(c, name, bytes));
}

/* [master, path, slave], or the negative number alone. */
static napi_value f_pty_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  (void)a;
  char name[64] = "";
  int32_t slave = 0;
  int master = ne_pty_open(c, name, &slave);
  napi_value made = named_handle(env, master, name);
  if (master >= 0) napi_set_element(env, made, 2, number(env, slave));
  return made;
}

const glue_function DESCRIPTORS[] = {
    {"adopt", f_adopt},
    {"control", f_control},
    {"addressOf", f_address_of},
    {"socketPair", f_socket_pair},
    {"sendWithFds", f_send_with_fds},
    {"receiveWithFds", f_receive_with_fds},
    {"eventFd", f_event_fd},
    {"memoryFd", f_memory_fd},
    {"ptyOpen", f_pty_open},
    {NULL, NULL},
};
