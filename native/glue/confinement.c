/* What the process takes from itself for good (sandbox.c, landlock.c). */
#include "glue.h"
#include <unistd.h>

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

const glue_function CONFINEMENT[] = {
    {"sandbox", f_sandbox},
    {"landlock", f_landlock},
    {"landlockAbi", f_landlock_abi},
    {NULL, NULL},
};
