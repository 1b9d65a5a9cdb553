/* Arguments that are more than a number or an array, and the block. */
#include "glue.h"

int get_text(napi_env env, napi_value v, char *out, size_t room, size_t *length) {
  if (napi_get_value_string_utf8(env, v, out, room, length) != napi_ok) return -EINVAL;
  if (*length + 1 >= room) return -ENAMETOOLONG;
  return memchr(out, 0, *length) == NULL ? 0 : -EINVAL;
}

int get_ip(napi_env env, napi_value text, napi_value port, ne_address *out, bool *given) {
  char buffer[64];
  size_t length;
  uint64_t number_of = 0;
  *given = !is_nothing(env, text);
  if (!*given) return 0;
  int error = get_text(env, text, buffer, sizeof buffer, &length);
  if (error < 0) return -EINVAL;
  if (port != NULL && !get_count(env, port, 65535, &number_of)) return -EINVAL;
  return ne_parse_ip(buffer, (uint16_t)number_of, out);
}

int get_path(napi_env env, napi_value text, ne_address *out, bool *given) {
  char buffer[512];
  size_t length;
  *given = !is_nothing(env, text);
  if (!*given) return 0;
  int error = get_text(env, text, buffer, sizeof buffer, &length);
  return error < 0 ? error : ne_parse_path(buffer, length, out);
}

const char *get_device(napi_env env, napi_value text, device_name buffer, int *error) {
  size_t length;
  *error = 0;
  if (is_nothing(env, text)) return NULL;
  bool is_name = get_text(env, text, buffer, sizeof(device_name), &length) == 0 && length > 0 && length < IF_NAMESIZE;
  if (!is_name) *error = -ENODEV;
  return is_name ? buffer : NULL;
}

napi_value named_handle(napi_env env, int result, const char *name) {
  if (result < 0) return number(env, result);
  napi_value pair, text;
  napi_create_array_with_length(env, 2, &pair);
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text);
  napi_set_element(env, pair, 0, number(env, result));
  napi_set_element(env, pair, 1, text);
  return pair;
}

host *block_of(napi_env env, napi_callback_info info, ne_batch *batch) {
  host *h = NULL;
  if (napi_get_cb_info(env, info, NULL, NULL, NULL, (void **)&h) != napi_ok) return NULL;
  int32_t count = h->block[1];
  *batch = (ne_batch){.list = h->block + BLOCK_FRAMES, .from = 0, .to = (uint32_t)count};
  return count >= 0 && count <= BLOCK_FRAMES_MAX ? h : NULL;
}
