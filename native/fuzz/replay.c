/*
 * Runs a fuzz target without libFuzzer: each file of the corpus, then a number of inputs made from them by a generator with a seed, the same on
 * every machine. For the short run of every test; it finds what it stumbles on, libFuzzer looks.
 *
 *   core-replay RUNS SEED CRASH-FILE CORPUS-FILE…
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_set_death_callback(void (*callback)(void));

enum { MAX_BYTES = 600, MAX_FILES = 1000 };

static struct {
  uint8_t bytes[MAX_BYTES];
  size_t size;
} corpus[MAX_FILES];
static size_t files;
static uint8_t current[MAX_BYTES];
static size_t current_size;
static const char *crash_file;

/* What brought it down, to be added to the corpus. */
static void keep_input(void) {
  FILE *out = fopen(crash_file, "wb");
  if (out == NULL) return;
  fwrite(current, 1, current_size, out);
  fclose(out);
  fprintf(stderr, "the input is in %s\n", crash_file);
}

static void run(void) {
  uint8_t *copy = malloc(current_size == 0 ? 1 : current_size);
  memcpy(copy, current, current_size);
  LLVMFuzzerTestOneInput(copy, current_size);
  free(copy);
}

static uint64_t state;
/* xorshift64* */
static uint32_t chance(uint32_t below) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (uint32_t)(state * 0x2545f4914f6cdd1dULL >> 32) % below;
}

static void load(size_t file) {
  memcpy(current, corpus[file].bytes, corpus[file].size);
  current_size = corpus[file].size;
}

static void mutate(void) {
  uint32_t at = current_size == 0 ? 0 : chance((uint32_t)current_size);
  switch (chance(5)) {
    case 0:
      if (current_size > 0) current[at] = (uint8_t)chance(256);
      break;
    case 1:
      if (current_size > 0) current[at] ^= (uint8_t)(1 << chance(8));
      break;
    case 2: /* a byte more */
      if (current_size == MAX_BYTES) break;
      memmove(current + at + 1, current + at, current_size - at);
      current[at] = (uint8_t)chance(256);
      current_size++;
      break;
    case 3: /* a piece less */
      if (current_size > 0) {
        size_t gone = 1 + chance((uint32_t)(current_size - at));
        memmove(current + at, current + at + gone, current_size - at - gone);
        current_size -= gone;
      }
      break;
    default: { /* a piece of another */
      size_t other = chance((uint32_t)files);
      size_t length = corpus[other].size;
      if (length > MAX_BYTES - at) length = MAX_BYTES - at;
      memcpy(current + at, corpus[other].bytes, length);
      if (at + length > current_size) current_size = at + length;
    }
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  unsigned long runs = strtoul(argv[1], NULL, 10);
  state = strtoull(argv[2], NULL, 10) * 2 + 1;
  crash_file = argv[3];
  __sanitizer_set_death_callback(keep_input);
  for (int i = 4; i < argc && files < MAX_FILES; i++, files++) {
    FILE *in = fopen(argv[i], "rb");
    if (in == NULL) return 2;
    corpus[files].size = fread(corpus[files].bytes, 1, MAX_BYTES, in);
    fclose(in);
    load(files);
    run();
  }
  for (unsigned long i = 0; i < runs; i++) {
    load(chance((uint32_t)files));
    for (uint32_t n = 1 + chance(8); n > 0; n--) mutate();
    run();
  }
  printf("%zu files, %lu runs\n", files, runs);
  return 0;
}
