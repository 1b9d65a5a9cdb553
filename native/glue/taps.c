/* Taps: opening, and frames in batches. */
#include "glue.h"

static napi_value f_tap_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  char name[64];
  size_t length;
  bool given = !is_nothing(env, a[0]);
  if (given) NEED(get_text(env, a[0], name, sizeof name, &length) == 0);
  char out[16] = "";
  return named_handle(env, ne_tap_open(c, given ? name : NULL, get_bool(env, a[1]), get_bool(env, a[2]), out), out);
}

static napi_value f_tap_of(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  char out[16] = "";
  return named_handle(env, ne_tap_of(c, handle, out), out);
}

static napi_value f_tap_send_buffer(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  int32_t bytes;
  NEED(get_int(env, a[1], &bytes));
  return number(env, ne_tap_send_buffer(c, handle, bytes));
}

static napi_value f_tap_offloads(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  uint64_t accepts;
  NEED(get_count(env, a[1], 255, &accepts));
  return number(env, ne_tap_offloads(c, handle, (unsigned)accepts));
}

static napi_value f_read_frames(napi_env env, napi_callback_info info) {
  ARGUMENTS(5);
  HANDLE(handle, 0);
  ne_batch batch;
  void *spill = NULL;
  size_t length = 0;
  NEED(get_batch(env, a + 1, &batch));
  if (!is_nothing(env, a[4])) NEED(get_array(env, a[4], napi_int32_array, &spill, &length) && length <= UINT32_MAX);
  uint32_t spills = 0;
  for (const int32_t *list = spill; spills < length && list[spills] != 0; spills++) {}
  return number(env, ne_read_frames(c, handle, batch, spill, spills));
}

static napi_value f_write_frames(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  HANDLE(handle, 0);
  ne_batch batch;
  NEED(get_batch(env, a + 1, &batch));
  return number(env, ne_write_frames(c, handle, batch));
}

/* [2] how many spill slots. */
static napi_value f_block_read_frames(napi_env env, napi_callback_info info) {
  ne_batch batch;
  host *h = block_of(env, info, &batch);
  NEED(h != NULL && h->block[2] >= 0 && h->block[2] <= BLOCK_FRAMES_MAX);
  return number(env, ne_read_frames(h->core, h->block[0], batch, h->block + BLOCK_SPILL, (uint32_t)h->block[2]));
}

static napi_value f_block_write_frames(napi_env env, napi_callback_info info) {
  ne_batch batch;
  host *h = block_of(env, info, &batch);
  NEED(h != NULL);
  return number(env, ne_write_frames(h->core, h->block[0], batch));
}

const glue_function TAPS[] = {
    {"tapOpen", f_tap_open},
    {"tapOf", f_tap_of},
    {"tapSendBuffer", f_tap_send_buffer},
    {"tapOffloads", f_tap_offloads},
    {"blockReadFrames", f_block_read_frames},
    {"blockWriteFrames", f_block_write_frames},
    {"readFrames", f_read_frames},
    {"writeFrames", f_write_frames},
    {NULL, NULL},
};
