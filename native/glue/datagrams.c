/* Frames as datagrams, a batch a call. */
#include "glue.h"

static napi_value f_receive_datagrams(napi_env env, napi_callback_info info) {
  ARGUMENTS(7);
  HANDLE(handle, 0);
  ne_batch batch;
  uint64_t at;
  uint8_t *addresses = NULL;
  size_t length;
  NEED(get_batch(env, a + 1, &batch) && get_count(env, a[4], INT32_MAX, &at));
  if (!is_nothing(env, a[5])) NEED(get_bytes(env, a[5], &addresses, &length) && length / NE_ADDRESS_BYTES >= batch.to);
  void *spill = NULL;
  if (!is_nothing(env, a[6])) NEED(get_array(env, a[6], napi_int32_array, &spill, &length) && length >= batch.to);
  return number(env, ne_receive_datagrams(c, handle, batch, (uint32_t)at, addresses, spill));
}

/* (handle, frames, from, to, to the address in the mailbox?, headers, bytes of each) */
static napi_value f_send_datagrams(napi_env env, napi_callback_info info) {
  ARGUMENTS(7);
  HANDLE(handle, 0);
  ne_batch batch;
  ne_address remote;
  const ne_address *to = NULL;
  uint8_t *headers = NULL;
  size_t length;
  uint64_t header_bytes = 0;
  NEED(get_batch(env, a + 1, &batch));
  if (get_bool(env, a[4])) {
    NEED(ne_unpack_address(h->mailbox, &remote) == 0);
    to = &remote;
  }
  if (!is_nothing(env, a[5])) {
    NEED(get_bytes(env, a[5], &headers, &length) && get_count(env, a[6], 65535, &header_bytes));
    NEED((uint64_t)batch.to * header_bytes <= length);
  }
  return number(env, ne_send_datagrams(c, handle, batch, to, headers, (uint32_t)header_bytes));
}

const glue_function DATAGRAMS[] = {
    {"receiveDatagrams", f_receive_datagrams},
    {"sendDatagrams", f_send_datagrams},
    {NULL, NULL},
};
