/*
 * What the files of the glue between Node-API and the core (../src/netemu.h) share: the host, how arguments are read, and the tables of its functions.
 *
 * `open` (addon.c) makes one host: a core context, its place in Node's event loop, and an object of functions that are bound to it. Each function checks the types and ranges of
 * what it is given and returns the core's number; only `open`, `map`, `endpoint` and those that make something with a name return anything else. Arrays whose addresses the core
 * keeps (frame table, regions) are referenced for as long.
 */
#pragma once

#define NAPI_VERSION 8
#include "../src/netemu.h"
#include "uv_poll.h"
#include <errno.h>
#include <net/if.h>
#include <node_api.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  napi_env env;
  ne_context *core;
  int holders; /* bound functions, the libuv handle, the clean-up hook */
  uv_handle_t *poll;
  bool referenced;
  bool ending; /* the environment is */
  napi_async_cleanup_hook_handle hook;
  napi_async_context async;
  napi_ref receiver, on_ready, events_array, mailbox_array, block_array, table_array, copies_array;
  napi_ref region_arrays[NE_MAX_REGIONS];
  int32_t *events;
  uint32_t events_room;
  uint8_t *mailbox;
  int32_t *block;
  bool dispatching;
  int64_t busy_ns;
  int credit;
  int64_t idle_since_ns;
  int64_t turn_start_ns;
  int round; /* looks since the event loop called */
} host;

typedef struct {
  const char *name;
  napi_callback call;
} glue_function;

/* What a host can do, by file; each ends with a NULL name. */
extern const glue_function EVENT_LOOP[], MEMORY[], SOCKETS[], HANDLES[], STREAMS[], DATAGRAMS[], TAPS[], CONFINEMENT[], DESCRIPTORS[];

/* The host's life (event-loop.c). */
/* Has its turn from now on whenever the context's descriptor is readable. */
void join_loop(host *h);
void on_environment_ends(napi_async_cleanup_hook_handle hook, void *data);
void release(host *h);
void drop_reference(napi_env env, napi_ref *reference);

/* Without a host (kernels.c). */
napi_value f_sum(napi_env env, napi_callback_info info);
napi_value f_sum_plain(napi_env env, napi_callback_info info);
napi_value f_copy(napi_env env, napi_callback_info info);

/*
 * The block of `open`: arguments of the busiest calls, since unpacking arguments costs more than the rest of the glue. [0] handle, [1] how many frames, [2] and [3] as each call
 * names them, frames from BLOCK_FRAMES on, spill slots from BLOCK_SPILL on.
 */
enum { BLOCK_FRAMES = 8, BLOCK_FRAMES_MAX = 64, BLOCK_SPILL = BLOCK_FRAMES + BLOCK_FRAMES_MAX, BLOCK_WORDS = BLOCK_SPILL + BLOCK_FRAMES_MAX };
/* The host when the block's counts are in range, else NULL. */
host *block_of(napi_env env, napi_callback_info info, ne_batch *batch);

static inline napi_value number(napi_env env, int64_t value) {
  napi_value result = NULL;
  if (value >= INT32_MIN && value <= INT32_MAX) napi_create_int32(env, (int32_t)value, &result);
  else napi_create_int64(env, value, &result);
  return result;
}

/* --- arguments: false when it is not that --- */

static inline bool get_int(napi_env env, napi_value v, int32_t *out) {
  double d;
  if (napi_get_value_double(env, v, &d) != napi_ok || !(d >= INT32_MIN && d <= INT32_MAX)) return false;
  *out = (int32_t)d;
  return true;
}

static inline bool get_count(napi_env env, napi_value v, uint64_t limit, uint64_t *out) {
  double d;
  if (napi_get_value_double(env, v, &d) != napi_ok || !(d >= 0 && d <= (double)limit)) return false;
  *out = (uint64_t)d;
  return true;
}

static inline bool get_bool(napi_env env, napi_value v) {
  bool b = false;
  return napi_get_value_bool(env, v, &b) == napi_ok && b;
}

static inline bool is_nothing(napi_env env, napi_value v) {
  napi_valuetype type;
  return napi_typeof(env, v, &type) != napi_ok || type == napi_undefined || type == napi_null;
}

static inline bool get_array(napi_env env, napi_value v, napi_typedarray_type wanted, void **data, size_t *length) {
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, v, &type, length, data, NULL, NULL) != napi_ok || type != wanted) return false;
  if (*data == NULL) *length = 0;
  return true;
}

static inline bool get_bytes(napi_env env, napi_value v, uint8_t **data, size_t *length) {
  void *place = NULL;
  if (!get_array(env, v, napi_uint8_array, &place, length)) return false;
  *data = place;
  return true;
}

/* bytes[from..to). */
static inline bool get_range(napi_env env, const napi_value *args, uint8_t **data, size_t *length) {
  uint64_t from, to;
  size_t room;
  if (!get_bytes(env, args[0], data, &room)) return false;
  if (!get_count(env, args[1], room, &from) || !get_count(env, args[2], room, &to) || from > to) return false;
  if (*data != NULL) *data += from;
  *length = (size_t)(to - from);
  return true;
}

/* frames, from, to. */
static inline bool get_batch(napi_env env, const napi_value *args, ne_batch *batch) {
  void *place = NULL;
  size_t length;
  uint32_t from, to;
  if (!get_array(env, args[0], napi_int32_array, &place, &length)) return false;
  int32_t f, t;
  if (napi_get_value_int32(env, args[1], &f) != napi_ok || napi_get_value_int32(env, args[2], &t) != napi_ok) return false;
  if (f < 0 || t < f) return false;
  from = (uint32_t)f;
  to = (uint32_t)t;
  if (to > length) return false;
  *batch = (ne_batch){.list = place, .from = from, .to = to};
  return true;
}

/* Bytes without a NUL among them into `out`, terminated; 0, -EINVAL or -ENAMETOOLONG. */
int get_text(napi_env env, napi_value v, char *out, size_t room, size_t *length);
/* An IP address and a port (`port` NULL: 0); `given` false when the address is undefined. */
int get_ip(napi_env env, napi_value text, napi_value port, ne_address *out, bool *given);
/* The path of a unix socket; `given` false when it is undefined. */
int get_path(napi_env env, napi_value text, ne_address *out, bool *given);

typedef char device_name[2 * IF_NAMESIZE];

/* An interface's name, or NULL for none; `error` tells of one that is none. */
const char *get_device(napi_env env, napi_value text, device_name buffer, int *error);
/* [number, name], or the negative number alone. */
napi_value named_handle(napi_env env, int result, const char *name);

#define ARGUMENTS(n)                                                                             \
  napi_value a[n];                                                                               \
  size_t argc = n;                                                                               \
  host *h = NULL;                                                                                \
  if (napi_get_cb_info(env, info, &argc, a, NULL, (void **)&h) != napi_ok) return NULL;          \
  ne_context *c = h->core

#define NEED(condition) \
  if (!(condition)) return number(env, -EINVAL)

#define HANDLE(name, index) \
  int32_t name;             \
  NEED(napi_get_value_int32(env, a[index], &name) == napi_ok)
