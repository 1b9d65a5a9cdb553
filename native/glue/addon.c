/* The module: what it exports, and how a host is made (glue.h). */
#include "glue.h"

static const glue_function *const TABLES[] = {EVENT_LOOP, MEMORY, SOCKETS, HANDLES, STREAMS, DATAGRAMS, TAPS, CONFINEMENT, DESCRIPTORS};

static void on_function_gone(napi_env env, void *data, void *hint) {
  host *h = data;
  (void)hint;
  if (h->holders == 1 && !h->ending) {
    drop_reference(env, &h->events_array);
    drop_reference(env, &h->mailbox_array);
    drop_reference(env, &h->block_array);
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

static void bind_function(host *h, napi_value object, const glue_function *f) {
  napi_value function;
  if (napi_create_function(h->env, f->name, NAPI_AUTO_LENGTH, f->call, h, &function) != napi_ok) return;
  if (napi_add_finalizer(h->env, function, h, on_function_gone, NULL, NULL) == napi_ok) h->holders++;
  napi_set_named_property(h->env, object, f->name, function);
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
  join_loop(h);
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
  for (size_t i = 0; i < sizeof TABLES / sizeof TABLES[0]; i++)
    for (const glue_function *f = TABLES[i]; f->name != NULL; f++) bind_function(h, result, f);
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
