/* The frame table, the regions and the list of copies that the core works on, and mappings of others' memory. */
#include "glue.h"

static napi_value f_attach_table(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  void *place = NULL;
  size_t length;
  NEED(get_array(env, a[0], napi_int32_array, &place, &length));
  int result = ne_attach_table(c, place, length);
  if (result == 0) {
    drop_reference(env, &h->table_array);
    napi_create_reference(env, a[0], 1, &h->table_array);
  }
  return number(env, result);
}

static napi_value f_attach_copies(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  void *place = NULL;
  size_t length;
  NEED(get_array(env, a[0], napi_int32_array, &place, &length));
  int result = ne_attach_copies(c, place, length);
  if (result == 0) {
    drop_reference(env, &h->copies_array);
    napi_create_reference(env, a[0], 1, &h->copies_array);
  }
  return number(env, result);
}

/* (count) */
static napi_value f_copy_all(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  uint32_t count;
  NEED(napi_get_value_uint32(env, a[0], &count) == napi_ok);
  return number(env, ne_copy_all(c, count));
}

static napi_value f_set_region(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  uint64_t region;
  uint8_t *bytes;
  size_t length;
  NEED(get_count(env, a[0], NE_MAX_REGIONS - 1, &region));
  NEED(get_bytes(env, a[1], &bytes, &length));
  int result = ne_set_region(c, (uint32_t)region, bytes, length);
  if (result == 0) {
    drop_reference(env, &h->region_arrays[region]);
    if (length > 0) napi_create_reference(env, a[1], 1, &h->region_arrays[region]);
  }
  return number(env, result);
}

/* A mapping belongs to its ArrayBuffer: unmapped when that is detached by `unmap`, or else when it is garbage. */
typedef struct {
  ne_mapping mapping;
  bool mapped;
} map_owner;

static void on_buffer_gone(napi_env env, void *data, void *hint) {
  map_owner *owner = hint;
  (void)env;
  (void)data;
  if (owner->mapped) ne_unmap(&owner->mapping);
  free(owner);
}

static napi_value f_map(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  HANDLE(handle, 0);
  uint64_t offset, length;
  NEED(get_count(env, a[1], (uint64_t)1 << 52, &offset) && get_count(env, a[2], (uint64_t)1 << 32, &length));
  map_owner *owner = calloc(1, sizeof *owner);
  if (owner == NULL) return number(env, -ENOMEM);
  int error = ne_map(c, handle, offset, length, get_bool(env, a[3]), &owner->mapping);
  if (error < 0) {
    free(owner);
    return number(env, error);
  }
  owner->mapped = true;
  napi_value buffer, view;
  if (napi_create_external_arraybuffer(env, owner->mapping.base, owner->mapping.length, on_buffer_gone, owner, &buffer) != napi_ok) {
    ne_unmap(&owner->mapping);
    free(owner);
    return number(env, -ENOMEM);
  }
  /* Past this point the buffer owns the mapping. */
  if (napi_create_typedarray(env, napi_uint8_array, owner->mapping.wanted, buffer, owner->mapping.skew, &view) != napi_ok) {
    return number(env, -ENOMEM);
  }
  napi_value external;
  napi_create_external(env, owner, NULL, NULL, &external);
  napi_value pair;
  napi_create_array_with_length(env, 2, &pair);
  napi_set_element(env, pair, 0, view);
  napi_set_element(env, pair, 1, external);
  return pair;
}

/* (view, the owner that `map` returned): JavaScript keeps them together in a WeakMap. */
static napi_value f_unmap(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  void *data = NULL;
  NEED(napi_get_value_external(env, a[1], &data) == napi_ok && data != NULL);
  map_owner *owner = data;
  napi_value buffer;
  napi_typedarray_type type;
  size_t length, offset;
  void *place;
  NEED(napi_get_typedarray_info(env, a[0], &type, &length, &place, &buffer, &offset) == napi_ok);
  NEED(owner->mapped && (uint8_t *)place == owner->mapping.base + owner->mapping.skew);
  /* Detaching may free the owner. */
  const ne_mapping mapping = owner->mapping;
  owner->mapped = false;
  if (napi_detach_arraybuffer(env, buffer) != napi_ok) {
    owner->mapped = true;
    return number(env, -EINVAL);
  }
  ne_forget_memory(c, mapping.base, mapping.length);
  ne_unmap(&mapping);
  return number(env, 0);
}

const glue_function MEMORY[] = {
    {"attachTable", f_attach_table},
    {"setRegion", f_set_region},
    {"attachCopies", f_attach_copies},
    {"copyAll", f_copy_all},
    {"map", f_map},
    {"unmap", f_unmap},
    {NULL, NULL},
};
