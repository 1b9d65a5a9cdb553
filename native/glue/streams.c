/* Bytes and frames over streams. */
#include "glue.h"

static napi_value f_receive_stream(napi_env env, napi_callback_info info) {
  ARGUMENTS(7);
  HANDLE(handle, 0);
  ne_batch batch;
  uint64_t at, each;
  NEED(get_batch(env, a + 1, &batch));
  NEED(get_count(env, a[4], INT32_MAX, &at) && get_count(env, a[5], INT32_MAX, &each));
  return number(env, ne_receive_stream(c, handle, batch, (uint32_t)at, (uint32_t)each, get_bool(env, a[6])));
}

static napi_value f_discard_stream(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  uint64_t length;
  NEED(get_count(env, a[1], INT32_MAX, &length));
  return number(env, ne_discard_stream(c, handle, (uint32_t)length));
}

static napi_value send_stream(napi_env env, napi_callback_info info, bool framed) {
  ARGUMENTS(5);
  HANDLE(handle, 0);
  ne_batch batch;
  uint64_t skip;
  NEED(get_batch(env, a + 1, &batch) && get_count(env, a[4], INT32_MAX, &skip));
  return number(env, ne_send_stream(c, handle, batch, skip, framed));
}

static napi_value f_send_stream(napi_env env, napi_callback_info info) {
  return send_stream(env, info, false);
}

static napi_value f_send_framed(napi_env env, napi_callback_info info) {
  return send_stream(env, info, true);
}

/* [2] at, [3] each. */
static napi_value f_block_receive_stream(napi_env env, napi_callback_info info) {
  ne_batch batch;
  host *h = block_of(env, info, &batch);
  NEED(h != NULL && h->block[2] >= 0 && h->block[3] >= 0);
  return number(env, ne_receive_stream(h->core, h->block[0], batch, (uint32_t)h->block[2], (uint32_t)h->block[3], false));
}

/* [2] skip. */
static napi_value f_block_send_stream(napi_env env, napi_callback_info info) {
  ne_batch batch;
  host *h = block_of(env, info, &batch);
  NEED(h != NULL && h->block[2] >= 0);
  return number(env, ne_send_stream(h->core, h->block[0], batch, (uint64_t)h->block[2], false));
}

static napi_value f_receive_bytes(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  HANDLE(handle, 0);
  uint8_t *bytes;
  size_t length;
  NEED(get_range(env, a + 1, &bytes, &length));
  return number(env, ne_receive_bytes(c, handle, bytes, length));
}

static napi_value f_send_bytes(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  HANDLE(handle, 0);
  uint8_t *bytes;
  size_t length;
  NEED(get_range(env, a + 1, &bytes, &length));
  return number(env, ne_send_bytes(c, handle, bytes, length));
}

const glue_function STREAMS[] = {
    {"receiveStream", f_receive_stream},
    {"discardStream", f_discard_stream},
    {"sendStream", f_send_stream},
    {"sendFramed", f_send_framed},
    {"receiveBytes", f_receive_bytes},
    {"sendBytes", f_send_bytes},
    {"blockReceiveStream", f_block_receive_stream},
    {"blockSendStream", f_block_send_stream},
    {NULL, NULL},
};
