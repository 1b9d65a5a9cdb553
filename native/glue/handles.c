/* What can be done to a handle of any kind. */
#include "glue.h"

/* Functions of one handle that return the core's number. */
#define ONE_HANDLE(name, call)                                      \
  static napi_value name(napi_env env, napi_callback_info info) {   \
    ARGUMENTS(1);                                                   \
    HANDLE(handle, 0);                                              \
    return number(env, call(c, handle));                            \
  }

ONE_HANDLE(f_accept, ne_accept)
ONE_HANDLE(f_take_error, ne_take_error)
ONE_HANDLE(f_pending, ne_pending)
ONE_HANDLE(f_shutdown_write, ne_shutdown_write)
ONE_HANDLE(f_signal, ne_signal)
ONE_HANDLE(f_drain, ne_drain)

static napi_value f_wait_ready(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  HANDLE(handle, 0);
  uint64_t interest, timeout_ms;
  NEED(get_count(env, a[1], INT32_MAX, &interest) && get_count(env, a[2], INT32_MAX, &timeout_ms));
  return number(env, ne_wait_ready(c, handle, (unsigned)interest, (uint32_t)timeout_ms));
}

static napi_value f_fd_of(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  const ne_handle *found = ne_get(c, handle);
  return number(env, found == NULL ? -EBADF : found->fd);
}

const glue_function HANDLES[] = {
    {"accept", f_accept},
    {"takeError", f_take_error},
    {"pendingBytes", f_pending},
    {"shutdownWrite", f_shutdown_write},
    {"signal", f_signal},
    {"drain", f_drain},
    {"waitReady", f_wait_ready},
    {"fdOf", f_fd_of},
    {NULL, NULL},
};
