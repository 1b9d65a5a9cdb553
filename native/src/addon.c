/*
 * The glue between Node-API and the core (netemu.h). `open` makes one host: a core context, its place in Node's event loop, and an object of
 * functions that are bound to it. Each function checks the types and ranges of what it is given and returns the core's number; only
 * `open`, `map` and `endpoint` return anything else. Arrays whose addresses the core keeps (frame table, regions) are referenced for as long.
 *
 * Readiness: libuv watches the context's epoll descriptor. Each wake-up delivers up to NE_MAX_EVENTS pairs of (handle, bits) in one call
 * to JavaScript, through an Int32Array made beforehand; JavaScript then asks for more (`lookAgain`) until there is none. With busy polling
 * switched on, it waits there for up to that long before it goes back to sleep, but only while that has paid lately (`credit`): traffic that comes in quick succession earns it, idleness and
 * slow traffic lose it, and an idle process is never woken at all. Between two looks others that wait for the core have it; when one took it,
 * polling is over for some time.
 *
 * Life: the host lives until its environment ends or every bound function is garbage; `shutdown` closes its descriptors at once. The
 * libuv handle keeps the process alive only while a handle is watched or the timer is armed.
 */
#define NAPI_VERSION 8
#include "netemu.h"
#include "uv_poll.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ioctl.h>
#include <net/if.h>
#include <node_api.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

enum { CREDIT_MAX = 16, BUSY_ROUNDS = 64, QUICK_ROUNDS = 8 };
/* A look that takes so long lost the core to somebody, maybe to the peer itself: then polling waits for this many wake-ups in quick succession. */
enum { AWAY_NS = 15000, CONTENDED_DEBT = 64 };
/* How long the event loop may be kept from the rest of the process. */
enum { TURN_NS = 1000000 };

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static napi_value number(napi_env env, int64_t value) {
  napi_value result = NULL;
  if (value >= INT32_MIN && value <= INT32_MAX) napi_create_int32(env, (int32_t)value, &result);
  else napi_create_int64(env, value, &result);
  return result;
}

static void release(host *h) {
  if (--h->holders > 0) return;
  ne_context_free(h->core);
  free(h);
}

/* --- arguments --- */

static bool get_int(napi_env env, napi_value v, int32_t *out) {
  double d;
  if (napi_get_value_double(env, v, &d) != napi_ok || !(d >= INT32_MIN && d <= INT32_MAX)) return false;
  *out = (int32_t)d;
  return true;
}

static bool get_count(napi_env env, napi_value v, uint64_t limit, uint64_t *out) {
  double d;
  if (napi_get_value_double(env, v, &d) != napi_ok || !(d >= 0 && d <= (double)limit)) return false;
  *out = (uint64_t)d;
  return true;
}

static bool get_bool(napi_env env, napi_value v) {
  bool b = false;
  return napi_get_value_bool(env, v, &b) == napi_ok && b;
}

static bool is_nothing(napi_env env, napi_value v) {
  napi_valuetype type;
  return napi_typeof(env, v, &type) != napi_ok || type == napi_undefined || type == napi_null;
}

static bool get_array(napi_env env, napi_value v, napi_typedarray_type wanted, void **data, size_t *length) {
  napi_typedarray_type type;
  if (napi_get_typedarray_info(env, v, &type, length, data, NULL, NULL) != napi_ok || type != wanted) return false;
  if (*data == NULL) *length = 0;
  return true;
}

static bool get_bytes(napi_env env, napi_value v, uint8_t **data, size_t *length) {
  void *place = NULL;
  if (!get_array(env, v, napi_uint8_array, &place, length)) return false;
  *data = place;
  return true;
}

/* bytes[from..to). */
static bool get_range(napi_env env, const napi_value *args, uint8_t **data, size_t *length) {
  uint64_t from, to;
  size_t room;
  if (!get_bytes(env, args[0], data, &room)) return false;
  if (!get_count(env, args[1], room, &from) || !get_count(env, args[2], room, &to) || from > to) return false;
  if (*data != NULL) *data += from;
  *length = (size_t)(to - from);
  return true;
}

/* frames, from, to. */
static bool get_batch(napi_env env, const napi_value *args, ne_batch *batch) {
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

static int get_text(napi_env env, napi_value v, char *out, size_t room, size_t *length) {
  if (napi_get_value_string_utf8(env, v, out, room, length) != napi_ok) return -EINVAL;
  if (*length + 1 >= room) return -ENAMETOOLONG;
  return memchr(out, 0, *length) == NULL ? 0 : -EINVAL;
}

/* An IP address and a port; `given` false when the address is undefined. */
static int get_ip(napi_env env, napi_value text, napi_value port, ne_address *out, bool *given) {
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

static int get_path(napi_env env, napi_value text, ne_address *out, bool *given) {
  char buffer[512];
  size_t length;
  *given = !is_nothing(env, text);
  if (!*given) return 0;
  int error = get_text(env, text, buffer, sizeof buffer, &length);
  return error < 0 ? error : ne_parse_path(buffer, length, out);
}

typedef char device_name[2 * IF_NAMESIZE];

/* An interface's name, or NULL for none; `error` tells of one that is none. */
static const char *get_device(napi_env env, napi_value text, device_name buffer, int *error) {
  size_t length;
  *error = 0;
  if (is_nothing(env, text)) return NULL;
  bool is_name = get_text(env, text, buffer, sizeof(device_name), &length) == 0 && length > 0 && length < IF_NAMESIZE;
  if (!is_name) *error = -ENODEV;
  return is_name ? buffer : NULL;
}

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

/* --- the event loop --- */

static void update_reference(host *h) {
  if (h->poll == NULL) return;
  bool wanted = !h->core->closed && (h->core->watched_count > 0 || h->core->timer_armed);
  if (wanted == h->referenced) return;
  h->referenced = wanted;
  (wanted ? uv_ref : uv_unref)(h->poll);
}

/* Tells JavaScript of `pairs` events. */
static void deliver(host *h, int pairs) {
  napi_env env = h->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value receiver, callback, argument;
  napi_get_reference_value(env, h->receiver, &receiver);
  napi_get_reference_value(env, h->on_ready, &callback);
  napi_create_int32(env, pairs, &argument);
  napi_status status = napi_make_callback(env, h->async, receiver, callback, 1, &argument, NULL);
  if (status == napi_pending_exception) {
    napi_value error;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

/*
 * What came since the last look, or comes while waiting for it pays: how many pairs, 0: back to the event loop. JavaScript asks for more itself, as a
 * call into the engine costs ten times a call out of it; but the rest of the process, and what is due in it (microtasks), has its turn after TURN_NS.
 */
static int look_again(host *h) {
  ne_context *c = h->core;
  if (c->closed || h->poll == NULL) return 0;
  int room = (int)(h->events_room / 2);
  int round = h->round++;
  if (round < QUICK_ROUNDS) {
    /* Cheaper to take now than after a turn of the event loop. */
    int pairs = ne_poll(c, h->events, room);
    if (pairs != 0) return pairs > 0 ? pairs : 0;
  }
  if (h->busy_ns == 0 || h->credit <= 0 || round >= BUSY_ROUNDS) return 0;
  int64_t now = now_ns();
  if (now - h->turn_start_ns > TURN_NS) return 0;
  int64_t end = now + h->busy_ns;
  int found = 0;
  bool contended = false;
  while (found == 0 && now < end) {
    found = ne_poll(c, h->events, room);
    if (found != 0) break;
    c->stats.busy_polls++;
    sched_yield();
    int64_t before = now;
    now = now_ns();
    contended = contended || now - before > AWAY_NS;
  }
  if (contended) h->credit = -CONTENDED_DEBT;
  if (found <= 0) {
    h->credit -= 2;
    return 0;
  }
  if (h->credit < CREDIT_MAX) h->credit++;
  return found;
}

static void on_readable(uv_handle_t *poll, int status, int events) {
  host *h = uv_handle_get_data(poll);
  (void)status;
  (void)events;
  if (h->core->closed) return;
  h->core->stats.wakeups++;
  if (h->busy_ns > 0) {
    h->turn_start_ns = now_ns();
    if (h->idle_since_ns != 0) {
      bool quick = h->turn_start_ns - h->idle_since_ns < 2 * h->busy_ns;
      if (quick && h->credit < CREDIT_MAX) h->credit += h->credit < 0 ? 1 : 2;
      else if (!quick && h->credit > 0) h->credit--;
    }
  }
  h->round = 0;
  h->dispatching = true;
  int pairs = ne_poll(h->core, h->events, (int)(h->events_room / 2));
  if (pairs > 0) deliver(h, pairs);
  h->dispatching = false;
  if (h->busy_ns > 0) h->idle_since_ns = now_ns();
  update_reference(h);
}

static void on_poll_closed(uv_handle_t *poll) {
  host *h = uv_handle_get_data(poll);
  free(poll);
  if (h->hook != NULL) napi_remove_async_cleanup_hook(h->hook);
  h->hook = NULL;
  release(h);
}

/* Leaves the event loop; the context is shut down when libuv no longer looks at its descriptor. */
static void stop_polling(host *h) {
  if (h->poll == NULL) return;
  uv_handle_t *poll = h->poll;
  h->poll = NULL;
  uv_close(poll, on_poll_closed);
}

static void on_environment_ends(napi_async_cleanup_hook_handle hook, void *data) {
  host *h = data;
  (void)hook;
  h->ending = true;
  stop_polling(h);
  ne_context_shutdown(h->core);
}

static void drop_reference(napi_env env, napi_ref *reference) {
  if (*reference != NULL) napi_delete_reference(env, *reference);
  *reference = NULL;
}

static void end(host *h) {
  stop_polling(h);
  ne_context_shutdown(h->core);
  drop_reference(h->env, &h->table_array);
  drop_reference(h->env, &h->copies_array);
  for (int i = 0; i < NE_MAX_REGIONS; i++) drop_reference(h->env, &h->region_arrays[i]);
  /* The callback refers to the bound functions: a circle that garbage collection cannot see through. */
  drop_reference(h->env, &h->on_ready);
}

static napi_value f_shutdown(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  (void)c;
  (void)a;
  end(h);
  return number(env, 0);
}

static napi_value f_watch(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  int32_t interest;
  NEED(get_int(env, a[1], &interest));
  int result = ne_watch(c, handle, (unsigned)interest);
  if (!h->dispatching) update_reference(h);
  return number(env, result);
}

static napi_value f_close(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  int result = ne_close(c, handle);
  if (!h->dispatching) update_reference(h);
  return number(env, result);
}

static napi_value f_reset(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  int result = ne_reset(c, handle);
  if (!h->dispatching) update_reference(h);
  return number(env, result);
}

static napi_value f_set_timer(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  double delay;
  NEED(napi_get_value_double(env, a[0], &delay) == napi_ok && delay == delay);
  int result = ne_timer(c, delay < 0 ? -1 : delay > 1e18 ? (int64_t)1e18 : (int64_t)delay);
  if (!h->dispatching) update_reference(h);
  return number(env, result);
}

static napi_value f_busy_poll(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  (void)c;
  uint64_t ns;
  NEED(get_count(env, a[0], 1000000, &ns));
  h->busy_ns = (int64_t)ns;
  h->credit = 0;
  h->idle_since_ns = 0;
  return number(env, 0);
}

static napi_value f_poll(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  (void)a;
  return number(env, ne_poll(c, h->events, (int)(h->events_room / 2)));
}

static napi_value f_look_again(napi_env env, napi_callback_info info) {
  host *h = NULL;
  if (napi_get_cb_info(env, info, NULL, NULL, NULL, (void **)&h) != napi_ok) return NULL;
  return number(env, h->dispatching ? look_again(h) : 0);
}

static napi_value f_stats(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  void *place = NULL;
  size_t length;
  NEED(get_array(env, a[0], napi_float64_array, &place, &length) && length >= 7);
  double *out = place;
  out[0] = (double)c->stats.receive_calls;
  out[1] = (double)c->stats.send_calls;
  out[2] = (double)c->stats.poll_calls;
  out[3] = (double)c->stats.truncated;
  out[4] = (double)c->stats.wakeups;
  out[5] = (double)c->stats.busy_polls;
  out[6] = (double)c->open_count;
  return number(env, 0);
}

/* --- memory --- */

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

/* --- opening --- */

static napi_value f_udp_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(11);
  ne_address local, remote, group, interface;
  device_name name;
  int error;
  bool has_local, has_remote, has_group, has_interface;
  int32_t family, flags, receive_bytes, send_bytes;
  NEED(get_ip(env, a[0], a[1], &local, &has_local) == 0);
  NEED(get_ip(env, a[2], a[3], &remote, &has_remote) == 0);
  NEED(get_int(env, a[4], &family) && get_int(env, a[5], &flags) && get_int(env, a[6], &receive_bytes) && get_int(env, a[7], &send_bytes));
  NEED(get_ip(env, a[8], NULL, &group, &has_group) == 0);
  NEED(get_ip(env, a[9], NULL, &interface, &has_interface) == 0);
  const char *device = get_device(env, a[10], name, &error);
  if (error < 0) return number(env, error);
  ne_udp_options options = {
      .local = has_local ? &local : NULL,
      .remote = has_remote ? &remote : NULL,
      .family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : 0,
      .reuse = (flags & 1) != 0,
      .gro = (flags & 2) != 0,
      .receive_bytes = receive_bytes,
      .send_bytes = send_bytes,
      .group = has_group ? &group : NULL,
      .group_interface = has_interface ? &interface : NULL,
      .group_loop = (flags & 4) != 0,
      .network_errors = (flags & 8) != 0,
      .device = device,
  };
  return number(env, ne_udp_open(c, &options));
}

static int get_family(napi_env env, napi_value v) {
  int32_t family;
  if (!get_int(env, v, &family)) return -1;
  return family == 4 ? AF_INET : family == 6 ? AF_INET6 : -1;
}

static napi_value f_ping_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  int family = get_family(env, a[0]);
  ne_address local;
  bool has_local;
  device_name name;
  int error;
  NEED(family >= 0);
  NEED(get_ip(env, a[1], NULL, &local, &has_local) == 0);
  const char *device = get_device(env, a[2], name, &error);
  if (error < 0) return number(env, error);
  return number(env, ne_ping_open(c, family, has_local ? &local : NULL, device));
}

static napi_value f_raw_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  int family = get_family(env, a[0]);
  int32_t protocol;
  ne_address local, remote;
  bool has_local, has_remote;
  NEED(family >= 0 && get_int(env, a[1], &protocol));
  NEED(get_ip(env, a[2], NULL, &local, &has_local) == 0);
  NEED(get_ip(env, a[3], NULL, &remote, &has_remote) == 0);
  return number(env, ne_raw_open(c, family, protocol, has_local ? &local : NULL, has_remote ? &remote : NULL));
}

static napi_value f_unix_datagram_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  ne_address local, remote;
  bool has_local = false, has_remote = false;
  int error = get_path(env, a[0], &local, &has_local);
  if (error == 0) error = get_path(env, a[1], &remote, &has_remote);
  if (error < 0) return number(env, error);
  return number(env, ne_unix_datagram_open(c, has_local ? &local : NULL, has_remote ? &remote : NULL));
}

static napi_value f_datagram_connect(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  ne_address remote;
  bool given = false;
  int error = get_path(env, a[1], &remote, &given);
  if (error < 0) return number(env, error);
  NEED(given);
  return number(env, ne_datagram_connect(c, handle, &remote));
}

static napi_value f_keep_alive(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  return number(env, ne_keep_alive(c, handle, get_bool(env, a[1])));
}

static napi_value f_hop_limit(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  int32_t hops;
  NEED(get_int(env, a[1], &hops));
  return number(env, ne_hop_limit(c, handle, hops));
}

static napi_value f_network_error(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  uint8_t *bytes;
  size_t length;
  NEED(get_bytes(env, a[1], &bytes, &length) && bytes != NULL && length >= NE_NETWORK_ERROR_BYTES);
  return number(env, ne_network_error(c, handle, bytes));
}

static napi_value f_tcp_connect(napi_env env, napi_callback_info info) {
  ARGUMENTS(7);
  ne_address remote, local;
  bool has_remote, has_local;
  device_name name;
  int error;
  int32_t hops;
  NEED(get_ip(env, a[0], a[1], &remote, &has_remote) == 0 && has_remote);
  NEED(get_ip(env, a[2], a[3], &local, &has_local) == 0);
  const char *device = get_device(env, a[5], name, &error);
  if (error < 0) return number(env, error);
  NEED(get_int(env, a[6], &hops));
  return number(env, ne_connect(c, &remote, has_local ? &local : NULL, get_bool(env, a[4]), device, hops));
}

static napi_value f_tcp_listen(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  ne_address local;
  bool given;
  int32_t backlog;
  NEED(get_ip(env, a[0], a[1], &local, &given) == 0 && given && get_int(env, a[2], &backlog));
  return number(env, ne_listen(c, &local, backlog, get_bool(env, a[3])));
}

static napi_value f_unix_connect(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  ne_address remote;
  bool given = false;
  int error = get_path(env, a[0], &remote, &given);
  if (error < 0) return number(env, error);
  NEED(given);
  return number(env, ne_connect(c, &remote, NULL, false, NULL, 0));
}

static napi_value f_unix_listen(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  ne_address local;
  bool given = false;
  int32_t backlog;
  int error = get_path(env, a[0], &local, &given);
  if (error < 0) return number(env, error);
  NEED(given && get_int(env, a[1], &backlog));
  return number(env, ne_listen(c, &local, backlog, false));
}

static napi_value f_endpoint(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  ne_address address;
  int error = ne_endpoint(c, handle, get_bool(env, a[1]), &address);
  if (error < 0) return number(env, error);
  char text[INET6_ADDRSTRLEN + sizeof(struct sockaddr_un)] = "";
  int port = 0;
  if (address.family == AF_INET) {
    inet_ntop(AF_INET, &address.u.v4.sin_addr, text, sizeof text);
    port = ntohs(address.u.v4.sin_port);
  } else if (address.family == AF_INET6) {
    inet_ntop(AF_INET6, &address.u.v6.sin6_addr, text, sizeof text);
    port = ntohs(address.u.v6.sin6_port);
  } else if (address.family == AF_UNIX && address.length > offsetof(struct sockaddr_un, sun_path)) {
    memcpy(text, address.u.un.sun_path, address.length - offsetof(struct sockaddr_un, sun_path));
    text[sizeof(struct sockaddr_un)] = 0;
  }
  napi_value pair, value;
  napi_create_array_with_length(env, 2, &pair);
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  napi_set_element(env, pair, 0, value);
  napi_set_element(env, pair, 1, number(env, port));
  return pair;
}

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

/* --- streams --- */

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

/*
 * The busiest calls once more, with their arguments in the block of `open`: [0] handle, [1] how many frames, [2] and [3] as named below,
 * frames from BLOCK_FRAMES on, spill slots from BLOCK_SPILL on. Unpacking arguments costs more than the rest of the glue.
 */
enum { BLOCK_FRAMES = 8, BLOCK_FRAMES_MAX = 64, BLOCK_SPILL = BLOCK_FRAMES + BLOCK_FRAMES_MAX, BLOCK_WORDS = BLOCK_SPILL + BLOCK_FRAMES_MAX };

/* The host when the block's counts are in range, else NULL. */
static host *block_of(napi_env env, napi_callback_info info, ne_batch *batch) {
  host *h = NULL;
  if (napi_get_cb_info(env, info, NULL, NULL, NULL, (void **)&h) != napi_ok) return NULL;
  int32_t count = h->block[1];
  *batch = (ne_batch){.list = h->block + BLOCK_FRAMES, .from = 0, .to = (uint32_t)count};
  return count >= 0 && count <= BLOCK_FRAMES_MAX ? h : NULL;
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

/* --- datagrams, taps --- */

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

/* [number, name], or the negative number alone. */
static napi_value tap_pair(napi_env env, int result, const char *name) {
  if (result < 0) return number(env, result);
  napi_value pair, text;
  napi_create_array_with_length(env, 2, &pair);
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text);
  napi_set_element(env, pair, 0, number(env, result));
  napi_set_element(env, pair, 1, text);
  return pair;
}

static napi_value f_tap_open(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  char name[64];
  size_t length;
  bool given = !is_nothing(env, a[0]);
  if (given) NEED(get_text(env, a[0], name, sizeof name, &length) == 0);
  char out[16] = "";
  return tap_pair(env, ne_tap_open(c, given ? name : NULL, get_bool(env, a[1]), get_bool(env, a[2]), out), out);
}

static napi_value f_tap_of(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  char out[16] = "";
  return tap_pair(env, ne_tap_of(c, handle, out), out);
}

static napi_value f_sandbox(napi_env env, napi_callback_info info) {
  (void)info;
  return number(env, ne_sandbox());
}

/* (paths: array of strings, rights: Int32Array) → how many of the places there are. Leaves the process nothing but those. */
static napi_value f_landlock(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  (void)c;
  uint32_t paths;
  void *place = NULL;
  size_t count;
  NEED(napi_get_array_length(env, a[0], &paths) == napi_ok && get_array(env, a[1], napi_int32_array, &place, &count) && paths == count);
  const int32_t *rights = place;
  int ruleset = ne_landlock_ruleset();
  if (ruleset < 0) return number(env, ruleset);
  int found = 0, error = 0;
  for (uint32_t i = 0; i < paths && error == 0; i++) {
    char path[4096];
    size_t length;
    napi_value text;
    if (napi_get_element(env, a[0], i, &text) != napi_ok) error = -EINVAL;
    else error = get_text(env, text, path, sizeof path, &length);
    if (error == 0) error = ne_landlock_allow(ruleset, path, (unsigned)rights[i]);
    if (error == 0) found++;
    if (error == -ENOENT || error == -ENOTDIR || error == -EACCES) error = 0;
  }
  if (error == 0) error = ne_landlock_enter(ruleset);
  close(ruleset);
  return number(env, error < 0 ? error : found);
}

static napi_value f_landlock_abi(napi_env env, napi_callback_info info) {
  (void)info;
  return number(env, ne_landlock_abi());
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

/* --- descriptors --- */

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
  napi_value made = tap_pair(env, master, name);
  if (master >= 0) napi_set_element(env, made, 2, number(env, slave));
  return made;
}

/* --- without a host: kernels --- */

/* (bytes, from, to): the folded big-endian sum. */
static napi_value f_sum(napi_env env, napi_callback_info info) {
  napi_value a[3];
  size_t argc = 3;
  uint8_t *bytes;
  size_t length;
  napi_get_cb_info(env, info, &argc, a, NULL, NULL);
  NEED(get_range(env, a, &bytes, &length));
  return number(env, ne_sum(bytes, length));
}

static napi_value f_sum_plain(napi_env env, napi_callback_info info) {
  napi_value a[3];
  size_t argc = 3;
  uint8_t *bytes;
  size_t length;
  napi_get_cb_info(env, info, &argc, a, NULL, NULL);
  NEED(get_range(env, a, &bytes, &length));
  return number(env, ne_sum_plain(bytes, length));
}

/* (source, from, to, target, at): copies, also within one array. */
static napi_value f_copy(napi_env env, napi_callback_info info) {
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

/* --- making a host --- */

static const struct {
  const char *name;
  napi_callback call;
} FUNCTIONS[] = {
    {"shutdown", f_shutdown},
    {"watch", f_watch},
    {"close", f_close},
    {"reset", f_reset},
    {"setTimer", f_set_timer},
    {"busyPoll", f_busy_poll},
    {"poll", f_poll},
    {"lookAgain", f_look_again},
    {"stats", f_stats},
    {"attachTable", f_attach_table},
    {"setRegion", f_set_region},
    {"attachCopies", f_attach_copies},
    {"copyAll", f_copy_all},
    {"map", f_map},
    {"unmap", f_unmap},
    {"udpOpen", f_udp_open},
    {"pingOpen", f_ping_open},
    {"rawOpen", f_raw_open},
    {"unixDatagramOpen", f_unix_datagram_open},
    {"datagramConnect", f_datagram_connect},
    {"keepAlive", f_keep_alive},
    {"hopLimit", f_hop_limit},
    {"networkError", f_network_error},
    {"tcpConnect", f_tcp_connect},
    {"tcpListen", f_tcp_listen},
    {"unixConnect", f_unix_connect},
    {"unixListen", f_unix_listen},
    {"endpoint", f_endpoint},
    {"accept", f_accept},
    {"takeError", f_take_error},
    {"pendingBytes", f_pending},
    {"shutdownWrite", f_shutdown_write},
    {"signal", f_signal},
    {"drain", f_drain},
    {"waitReady", f_wait_ready},
    {"fdOf", f_fd_of},
    {"receiveStream", f_receive_stream},
    {"discardStream", f_discard_stream},
    {"sendStream", f_send_stream},
    {"sendFramed", f_send_framed},
    {"receiveBytes", f_receive_bytes},
    {"sendBytes", f_send_bytes},
    {"receiveDatagrams", f_receive_datagrams},
    {"sendDatagrams", f_send_datagrams},
    {"tapOpen", f_tap_open},
    {"tapOf", f_tap_of},
    {"tapSendBuffer", f_tap_send_buffer},
    {"sandbox", f_sandbox},
    {"landlock", f_landlock},
    {"landlockAbi", f_landlock_abi},
    {"tapOffloads", f_tap_offloads},
    {"blockReceiveStream", f_block_receive_stream},
    {"blockSendStream", f_block_send_stream},
    {"blockReadFrames", f_block_read_frames},
    {"blockWriteFrames", f_block_write_frames},
    {"readFrames", f_read_frames},
    {"writeFrames", f_write_frames},
    {"adopt", f_adopt},
    {"control", f_control},
    {"addressOf", f_address_of},
    {"socketPair", f_socket_pair},
    {"sendWithFds", f_send_with_fds},
    {"receiveWithFds", f_receive_with_fds},
    {"eventFd", f_event_fd},
    {"memoryFd", f_memory_fd},
    {"ptyOpen", f_pty_open},
};

static void on_function_gone(napi_env env, void *data, void *hint) {
  host *h = data;
  (void)hint;
  if (h->holders == 1 && !h->ending) {
    drop_reference(env, &h->events_array);
    drop_reference(env, &h->mailbox_array);
    drop_reference(env, &h->receiver);
    napi_async_destroy(env, h->async);
  }
  release(h);
}

static napi_value throw_errno(napi_env env, const char *what, int error) {
  char text[160];
  strcpy(text, what);
  strcat(text, ": ");
  strncat(text, strerror(error), 100);
  napi_throw_error(env, NULL, text);
  return NULL;
}

/* (onReady(pairs), events: Int32Array, mailbox: Uint8Array, block: Int32Array) → the bound functions. Throws when the system refuses. */
static napi_value f_open(napi_env env, napi_callback_info info) {
  napi_value a[4], result, name, receiver;
  size_t argc = 4;
  napi_valuetype type;
  void *events = NULL, *block = NULL;
  uint8_t *mailbox;
  size_t events_length, mailbox_length, block_length;
  napi_get_cb_info(env, info, &argc, a, NULL, NULL);
  if (napi_typeof(env, a[0], &type) != napi_ok || type != napi_function ||
      !get_array(env, a[1], napi_int32_array, &events, &events_length) || events_length < 2 ||
      !get_bytes(env, a[2], &mailbox, &mailbox_length) || mailbox_length < NE_ADDRESS_BYTES ||
      !get_array(env, a[3], napi_int32_array, &block, &block_length) || block_length < BLOCK_WORDS) {
    napi_throw_type_error(env, NULL, "open(onReady, events, mailbox, block)");
    return NULL;
  }
  if (uv_handle_size == NULL || uv_poll_init == NULL || uv_poll_start == NULL || uv_close == NULL || uv_handle_get_data == NULL ||
      uv_handle_set_data == NULL || uv_ref == NULL || uv_unref == NULL) {
    napi_throw_error(env, NULL, "this runtime does not export libuv");
    return NULL;
  }
  uv_loop_t *loop;
  struct uv_loop_s *raw_loop = NULL;
  if (napi_get_uv_event_loop(env, &raw_loop) != napi_ok) return throw_errno(env, "no event loop", ENOSYS);
  loop = raw_loop;
  host *h = calloc(1, sizeof *h);
  if (h == NULL) return throw_errno(env, "host", ENOMEM);
  h->env = env;
  h->core = ne_context_new();
  if (h->core == NULL) {
    int error = errno;
    free(h);
    return throw_errno(env, "epoll", error);
  }
  h->holders = 1;
  h->poll = calloc(1, uv_handle_size(NETEMU_UV_POLL_TYPE));
  if (h->poll == NULL || uv_poll_init(loop, h->poll, h->core->epoll_fd) != 0) {
    free(h->poll);
    h->poll = NULL;
    release(h);
    return throw_errno(env, "uv_poll", ENOMEM);
  }
  uv_handle_set_data(h->poll, h);
  uv_poll_start(h->poll, NETEMU_UV_READABLE, on_readable);
  uv_unref(h->poll);
  napi_add_async_cleanup_hook(env, on_environment_ends, h, &h->hook);
  h->events = events;
  h->events_room = (uint32_t)(events_length < 2 * NE_MAX_EVENTS ? events_length : 2 * NE_MAX_EVENTS);
  h->mailbox = mailbox;
  h->block = block;
  napi_create_reference(env, a[0], 1, &h->on_ready);
  napi_create_reference(env, a[1], 1, &h->events_array);
  napi_create_reference(env, a[2], 1, &h->mailbox_array);
  napi_create_reference(env, a[3], 1, &h->block_array);
  napi_create_object(env, &receiver);
  napi_create_reference(env, receiver, 1, &h->receiver);
  napi_create_string_utf8(env, "netemu", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &h->async);
  napi_create_object(env, &result);
  for (size_t i = 0; i < sizeof FUNCTIONS / sizeof FUNCTIONS[0]; i++) {
    napi_value function;
    if (napi_create_function(env, FUNCTIONS[i].name, NAPI_AUTO_LENGTH, FUNCTIONS[i].call, h, &function) != napi_ok) continue;
    if (napi_add_finalizer(env, function, h, on_function_gone, NULL, NULL) == napi_ok) h->holders++;
    napi_set_named_property(env, result, FUNCTIONS[i].name, function);
  }
  return result;
}

static void export_function(napi_env env, napi_value exports, const char *name, napi_callback call) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, call, NULL, &function) == napi_ok) {
    napi_set_named_property(env, exports, name, function);
  }
}

NAPI_MODULE_INIT() {
  static const struct {
    const char *name;
    int value;
  } LAYOUT[] = {
      {"RECORD_WORDS", NE_RECORD_WORDS}, {"REGION", NE_REGION},         {"OFFSET", NE_OFFSET},
      {"LENGTH", NE_LENGTH},             {"NEXT", NE_NEXT},             {"TOTAL", NE_TOTAL},
      {"FACTS", NE_FACTS},               {"GSO_SIZE", NE_GSO_SIZE},     {"HEADER_LENGTH", NE_HEADER_LENGTH},
      {"CSUM_START", NE_CSUM_START},     {"CSUM_OFFSET", NE_CSUM_OFFSET}, {"REFS", NE_REFS},           {"SLOT", NE_SLOT},
      {"ROOM", NE_ROOM},                 {"READABLE", NE_READABLE},     {"WRITABLE", NE_WRITABLE},
      {"HUNG_UP", NE_HUNG_UP},           {"FAILED", NE_FAILED},         {"ADDRESS_BYTES", NE_ADDRESS_BYTES},
      {"NETWORK_ERROR_BYTES", NE_NETWORK_ERROR_BYTES}, {"NETWORK_ERROR_QUOTE", NE_NETWORK_ERROR_QUOTE},
      {"COPY_SOURCE", NE_COPY_SOURCE},   {"COPY_FROM", NE_COPY_FROM},   {"COPY_TARGET", NE_COPY_TARGET},
      {"COPY_TO", NE_COPY_TO},           {"COPY_LENGTH", NE_COPY_LENGTH}, {"COPY_WORDS", NE_COPY_WORDS},
  };
  napi_value layout;
  napi_create_object(env, &layout);
  for (size_t i = 0; i < sizeof LAYOUT / sizeof LAYOUT[0]; i++) {
    napi_set_named_property(env, layout, LAYOUT[i].name, number(env, LAYOUT[i].value));
  }
  napi_set_named_property(env, exports, "layout", layout);
  export_function(env, exports, "open", f_open);
  export_function(env, exports, "sum", f_sum);
  export_function(env, exports, "sumPlain", f_sum_plain);
  export_function(env, exports, "copy", f_copy);
  return exports;
}
