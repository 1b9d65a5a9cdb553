/*
 * Where frames lie: the frame table, the memory regions, and scatter/gather lists made from records. A record is data from outside: its
 * words are copied, then checked against the table and the region. A region that was taken away reads as zeros (see FramePool.removeRegion).
 */
#include "netemu.h"
#include <errno.h>
#include <string.h>

enum { ZERO_BYTES = 16384 };
static const uint8_t zeros[ZERO_BYTES];

int ne_attach_table(ne_context *c, int32_t *table, size_t words) {
  if (c->closed) return -EBADF;
  if (words < 2 * NE_RECORD_WORDS || words > INT32_MAX) return -EINVAL;
  c->table = table;
  c->table_words = (uint32_t)words;
  return 0;
}

int ne_set_region(ne_context *c, uint32_t region, uint8_t *base, size_t length) {
  if (c->closed) return -EBADF;
  if (region >= NE_MAX_REGIONS || length > UINT32_C(1) << 31) return -EINVAL;
  c->regions[region] = (ne_region){length == 0 ? NULL : base, length};
  if (region >= c->region_count) c->region_count = region + 1;
  return 0;
}

int ne_attach_copies(ne_context *c, const int32_t *list, size_t words) {
  if (c->closed) return -EBADF;
  if (words < NE_COPY_WORDS || words > INT32_MAX) return -EINVAL;
  c->copies = list;
  c->copies_max = (uint32_t)(words / NE_COPY_WORDS);
  return 0;
}

/* Runs looked ahead, and the bytes at the beginning of each that are asked for: the processor's own prefetcher goes on from there. */
enum { AHEAD = 4, LINE_BYTES = 64, ASKED_BYTES = 128 };

/* Asks for the beginning of a run, which another processor may have written last. No access: any address will do. */
static inline void expect(const ne_context *c, const int32_t *run) {
  int32_t source = run[NE_COPY_SOURCE], target = run[NE_COPY_TARGET];
  if (source < 0 || source >= NE_MAX_REGIONS || target < 0 || target >= NE_MAX_REGIONS) return;
  uintptr_t from = (uintptr_t)c->regions[source].base + (uint32_t)run[NE_COPY_FROM];
  uintptr_t to = (uintptr_t)c->regions[target].base + (uint32_t)run[NE_COPY_TO];
  for (int32_t at = 0; at < ASKED_BYTES && at < run[NE_COPY_LENGTH]; at += LINE_BYTES) {
    __builtin_prefetch((const void *)(from + (uint32_t)at), 0);
    __builtin_prefetch((const void *)(to + (uint32_t)at), 1);
  }
}

static bool copy_run(const ne_context *c, const int32_t *run) {
  int32_t source = run[NE_COPY_SOURCE], from = run[NE_COPY_FROM];
  int32_t target = run[NE_COPY_TARGET], to = run[NE_COPY_TO], length = run[NE_COPY_LENGTH];
  if (source < 0 || source >= NE_MAX_REGIONS || target < 0 || target >= NE_MAX_REGIONS) return false;
  if (from < 0 || to < 0 || length < 0) return false;
  const ne_region *t = &c->regions[target], *s = &c->regions[source];
  if ((uint64_t)to + (uint64_t)length > t->length) return false;
  uint64_t there = (uint64_t)from < s->length ? s->length - (uint64_t)from : 0;
  if (there > (uint64_t)length) there = (uint64_t)length;
  if (there > 0) memmove(t->base + to, s->base + from, there);
  if ((uint64_t)length > there) memset(t->base + to + there, 0, (uint64_t)length - there);
  return true;
}

int ne_copy_all(ne_context *c, uint32_t count) {
  if (c->closed) return -EBADF;
  if (count > c->copies_max) return -EINVAL;
  const int32_t *run = c->copies;
  int done = 0;
  for (uint32_t i = 0; i < count && i < AHEAD; i++) expect(c, run + i * NE_COPY_WORDS);
  for (uint32_t i = 0; i < count; i++, run += NE_COPY_WORDS) {
    if (i + AHEAD < count) expect(c, run + AHEAD * NE_COPY_WORDS);
    done += copy_run(c, run);
  }
  return done;
}

void ne_forget_memory(ne_context *c, const uint8_t *base, size_t length) {
  for (uint32_t i = 0; i < c->region_count; i++) {
    ne_region *r = &c->regions[i];
    if (r->length != 0 && r->base < base + length && base < r->base + r->length) *r = (ne_region){NULL, 0};
  }
}

static bool is_frame(const ne_context *c, int32_t frame) {
  return frame > 0 && frame % NE_RECORD_WORDS == 0 && (uint32_t)frame + NE_RECORD_WORDS <= c->table_words;
}

static bool add(ne_gather *g, const uint8_t *base, uint64_t length) {
  if (g->count == g->max) return false;
  g->iov[g->count++] = (struct iovec){.iov_base = (void *)(uintptr_t)base, .iov_len = length};
  g->bytes += length;
  return true;
}

int ne_gather_frame(const ne_context *c, int32_t frame, uint64_t skip, ne_gather *g) {
  const ne_gather before = *g;
  int steps = 0;
  if (!is_frame(c, frame)) return -EINVAL;
  for (int32_t s = frame; s != 0;) {
    if (!is_frame(c, s)) goto invalid;
    /* A chain longer than any list can hold, or a loop. */
    if (++steps > NE_MAX_IOV) goto too_many;
    const volatile int32_t *record = c->table + s;
    int32_t region = record[NE_REGION];
    int32_t offset = record[NE_OFFSET];
    int32_t length = record[NE_LENGTH];
    s = record[NE_NEXT];
    if (region < 0 || region >= NE_MAX_REGIONS || offset < 0 || length < 0) goto invalid;
    uint64_t start = (uint64_t)offset;
    uint64_t left = (uint64_t)length;
    if (skip >= left) {
      skip -= left;
      continue;
    }
    start += skip;
    left -= skip;
    skip = 0;
    const ne_region *r = &c->regions[region];
    uint64_t there = start < r->length ? r->length - start : 0;
    if (there > left) there = left;
    if (there > 0 && !add(g, r->base + start, there)) goto too_many;
    for (left -= there; left > 0;) {
      uint64_t part = left < ZERO_BYTES ? left : ZERO_BYTES;
      if (!add(g, zeros, part)) goto too_many;
      left -= part;
    }
  }
  return 0;
invalid:
  *g = before;
  return -EINVAL;
too_many:
  *g = before;
  return -EMSGSIZE;
}

int64_t ne_frame_bytes(const ne_context *c, int32_t frame) {
  if (!is_frame(c, frame)) return -EINVAL;
  int64_t bytes = 0;
  int steps = 0;
  for (int32_t s = frame; s != 0;) {
    if (!is_frame(c, s)) return -EINVAL;
    if (++steps > NE_MAX_IOV) return -EMSGSIZE;
    const volatile int32_t *record = c->table + s;
    int32_t length = record[NE_LENGTH];
    if (length < 0) return -EINVAL;
    bytes += length;
    s = record[NE_NEXT];
  }
  return bytes;
}

int ne_slot(const ne_context *c, int32_t frame, uint32_t at, uint8_t **start, uint32_t *room) {
  if (!is_frame(c, frame)) return -EINVAL;
  const volatile int32_t *record = c->table + frame;
  int32_t slot = record[NE_SLOT];
  int32_t size = record[NE_ROOM];
  if (slot < 0 || size <= 0 || at >= (uint32_t)size) return -EINVAL;
  if ((uint64_t)slot + (uint64_t)size > c->regions[0].length) return -EINVAL;
  *start = c->regions[0].base + slot + at;
  *room = (uint32_t)size - at;
  return 0;
}

void ne_chain(ne_context *c, int32_t frame, int32_t offset, int32_t first, int32_t spill, int32_t bytes) {
  int32_t *record = c->table + frame;
  int32_t *more = c->table + spill;
  more[NE_REGION] = 0;
  more[NE_OFFSET] = more[NE_SLOT];
  more[NE_LENGTH] = bytes;
  more[NE_NEXT] = 0;
  more[NE_REFS] = 0;
  record[NE_OFFSET] = offset;
  record[NE_LENGTH] = first;
  record[NE_NEXT] = spill;
  record[NE_TOTAL] = first + bytes;
}

void ne_touch(const struct iovec *iov, int count) {
  for (int i = 0; i < count; i++) {
    const volatile uint8_t *bytes = iov[i].iov_base;
    for (size_t at = 0; at < iov[i].iov_len; at += 4096) (void)bytes[at];
    if (iov[i].iov_len > 0) (void)bytes[iov[i].iov_len - 1];
  }
}
