/* Sums and copies; they need no host. */
#include "glue.h"

/* (bytes, from, to): the folded big-endian sum. */
static napi_value sum_by(napi_env env, napi_callback_info info, uint16_t (*sum)(const uint8_t *, size_t)) {
  napi_value a[3];
  size_t argc = 3;
  uint8_t *bytes;
  size_t length;
  napi_get_cb_info(env, info, &argc, a, NULL, NULL);
  NEED(get_range(env, a, &bytes, &length));
  return number(env, sum(bytes, length));
}

napi_value f_sum(napi_env env, napi_callback_info info) {
  return sum_by(env, info, ne_sum);
}

napi_value f_sum_plain(napi_env env, napi_callback_info info) {
  return sum_by(env, info, ne_sum_plain);
}

/* (source, from, to, target, at): copies, also within one array. */
napi_value f_copy(napi_env env, napi_callback_info info) {
  napi_value a[5];
  size_t argc = 5;
  uint8_t *source, *target;
  size_t length, room;
  uint64_t at;
  napi_get_cb_info(env, info, &argc, a, NULL, NULL);
  NEED(get_range(env, a, &source, &length) && get_bytes(env, a[3], &target, &room));
  NEED(get_count(env, a[4], room, &at) && length <= room - at);
  if (length > 0) memmove(target + at, source, length);
  return number(env, (int64_t)length);
}
