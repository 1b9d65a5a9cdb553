/*
 * The host in Node's event loop, and its end.
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
#include "glue.h"
#include <sched.h>
#include <time.h>

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

void release(host *h) {
  if (--h->holders > 0) return;
  ne_context_free(h->core);
  free(h);
}

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

void join_loop(host *h) {
  uv_handle_set_data(h->poll, h);
  uv_poll_start(h->poll, NETEMU_UV_READABLE, on_readable);
  uv_unref(h->poll);
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

void on_environment_ends(napi_async_cleanup_hook_handle hook, void *data) {
  host *h = data;
  (void)hook;
  h->ending = true;
  stop_polling(h);
  ne_context_shutdown(h->core);
}

void drop_reference(napi_env env, napi_ref *reference) {
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

/* The result of a call that may have changed whether the process is to live on; a dispatch sees to that once, at its end. */
static napi_value watched(host *h, int result) {
  if (!h->dispatching) update_reference(h);
  return number(h->env, result);
}

static napi_value f_watch(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  HANDLE(handle, 0);
  int32_t interest;
  NEED(get_int(env, a[1], &interest));
  return watched(h, ne_watch(c, handle, (unsigned)interest));
}

static napi_value f_close(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  return watched(h, ne_close(c, handle));
}

static napi_value f_reset(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  HANDLE(handle, 0);
  return watched(h, ne_reset(c, handle));
}

static napi_value f_set_timer(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  double delay;
  NEED(napi_get_value_double(env, a[0], &delay) == napi_ok && delay == delay);
  return watched(h, ne_timer(c, delay < 0 ? -1 : delay > 1e18 ? (int64_t)1e18 : (int64_t)delay));
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

const glue_function EVENT_LOOP[] = {
    {"shutdown", f_shutdown},
    {"watch", f_watch},
    {"close", f_close},
    {"reset", f_reset},
    {"setTimer", f_set_timer},
    {"busyPoll", f_busy_poll},
    {"poll", f_poll},
    {"lookAgain", f_look_again},
    {"stats", f_stats},
    {NULL, NULL},
};
