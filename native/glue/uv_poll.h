/*
 * The few functions of libuv that the glue calls; node exports them. Declared here because Node's headers need not be installed, and
 * weakly, so that a runtime without them refuses politely. The handle's storage is allocated by uv_handle_size.
 */
#ifndef NETEMU_UV_POLL_H
#define NETEMU_UV_POLL_H

#include <stddef.h>

typedef struct uv_loop_s uv_loop_t;
typedef struct uv_handle_s uv_handle_t;

enum { NETEMU_UV_POLL_TYPE = 8, NETEMU_UV_READABLE = 1 }; /* UV_POLL of uv_handle_type, UV_READABLE of uv_poll_event: part of libuv's ABI */

#define WEAK __attribute__((weak))
size_t uv_handle_size(int type) WEAK;
void *uv_handle_get_data(const uv_handle_t *handle) WEAK;
void uv_handle_set_data(uv_handle_t *handle, void *data) WEAK;
void uv_ref(uv_handle_t *handle) WEAK;
void uv_unref(uv_handle_t *handle) WEAK;
void uv_close(uv_handle_t *handle, void (*closed)(uv_handle_t *)) WEAK;
int uv_poll_init(uv_loop_t *loop, uv_handle_t *handle, int fd) WEAK;
int uv_poll_start(uv_handle_t *handle, int events, void (*ready)(uv_handle_t *, int status, int events)) WEAK;
#undef WEAK

#endif
