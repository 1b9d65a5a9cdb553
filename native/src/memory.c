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
