/*
 * Fuzz target: the core as a hostile program on the other side of Node-API would use it. The input is a stream of operations: lies in the frame
 * table, regions that shrink and vanish, batches of frame numbers by chance, bytes by chance in every socket. Memory that the core is given
 * is allocated to the byte, so that the sanitizer sees one too many.
 *
 * Held at every step: counts within what was asked for, gathered memory within what was given, filled frames within their slots. Held after
 * every input: as many handles as before, and a good frame still passes.
 */
#include "../src/netemu.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS = 25, WORDS = RECORDS * NE_RECORD_WORDS, SLOTS = 20, SLOT_BYTES = 200, MEMORY_BYTES = 700, LIST = 12 };

#define HOLDS(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "does not hold: %s (line %d)\n", #condition, __LINE__); \
      abort();                                                              \
    }                                                                       \
  } while (0)

static ne_context *c;
static int32_t *table;
static uint8_t *slots, *memory;
static int32_t stream[2], datagram[2], tap[2], raw[2], passing[2], udp;
static int open_handles;

typedef struct {
  const uint8_t *at, *end;
} input;

static uint32_t byte_of(input *in) { return in->at < in->end ? *in->at++ : 0; }
static uint32_t word_of(input *in) {
  uint32_t word = byte_of(in);
  for (int i = 1; i < 4; i++) word |= byte_of(in) << 8 * i;
  return word;
}

/* Numbers that mean something more often than chance would have it. */
static int32_t number_of(input *in) {
  uint32_t kind = byte_of(in);
  switch (kind & 7) {
    case 0: return (int32_t)word_of(in);
    case 1: return -(int32_t)(kind >> 3);
    case 2: return INT32_MAX - (int32_t)(kind >> 3);
    case 3: return (int32_t)(byte_of(in) % (RECORDS + 2)) * NE_RECORD_WORDS;
    case 4: return (int32_t)byte_of(in) << (kind >> 4);
    default: return (int32_t)byte_of(in);
  }
}

static void reset_table(void) {
  memset(table, 0, WORDS * sizeof *table);
  for (int i = 1; i < RECORDS; i++) {
    int32_t *record = table + i * NE_RECORD_WORDS;
    bool bare = i > SLOTS;
    record[NE_REGION] = bare ? 1 : 0;
    record[NE_OFFSET] = bare ? 10 : (i - 1) * SLOT_BYTES;
    record[NE_LENGTH] = record[NE_TOTAL] = 60;
    record[NE_SLOT] = (i - 1) * SLOT_BYTES;
    record[NE_ROOM] = bare ? 0 : SLOT_BYTES;
  }
  ne_set_region(c, 0, slots, SLOTS * SLOT_BYTES);
  ne_set_region(c, 1, memory, MEMORY_BYTES);
}

static void make_pair(int type, bool vnet, int32_t out[2]) {
  int pair[2], room = 1 << 16;
  HOLDS(socketpair(AF_UNIX, type, 0, pair) == 0);
  for (int i = 0; i < 2; i++) {
    setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    out[i] = ne_adopt(c, pair[i], vnet);
    HOLDS(out[i] > 0);
  }
}

static void set_up(void) {
  c = ne_context_new();
  HOLDS(c != NULL);
  table = malloc(WORDS * sizeof *table);
  slots = malloc(SLOTS * SLOT_BYTES);
  memory = malloc(MEMORY_BYTES);
  memset(slots, 0x5a, SLOTS * SLOT_BYTES);
  memset(memory, 0xa5, MEMORY_BYTES);
  HOLDS(ne_attach_table(c, table, WORDS) == 0);
  make_pair(SOCK_STREAM, false, stream);
  make_pair(SOCK_DGRAM, false, datagram);
  make_pair(SOCK_DGRAM, true, tap);
  make_pair(SOCK_DGRAM, false, raw);
  make_pair(SOCK_STREAM, false, passing);
  /* Messages that begin with an IP header, as a raw socket's do, which takes root to have. */
  ne_get(c, raw[1])->kind = NE_RAW4;
  ne_address loopback, self;
  ne_parse_ip("127.0.0.1", 0, &loopback);
  udp = ne_udp_open(c, &(ne_udp_options){.local = &loopback, .family = AF_INET, .gro = true});
  if (udp > 0 && ne_endpoint(c, udp, false, &self) == 0) HOLDS(ne_datagram_connect(c, udp, &self) == 0);
  open_handles = c->open_count;
}

static ne_batch batch_of(input *in, int32_t list[LIST]) {
  uint32_t count = byte_of(in) % (LIST + 1);
  for (uint32_t i = 0; i < LIST; i++) list[i] = i < count ? number_of(in) : 0;
  uint32_t from = count == 0 ? 0 : byte_of(in) % (count + 1);
  return (ne_batch){.list = list, .from = from, .to = count};
}

/* A frame that was just filled: all its bytes in slots. */
static void check_filled(int32_t frame) {
  const int32_t *record = table + frame;
  HOLDS(record[NE_LENGTH] >= 0 && record[NE_LENGTH] <= record[NE_ROOM]);
  HOLDS(record[NE_OFFSET] >= record[NE_SLOT] && record[NE_OFFSET] + record[NE_LENGTH] <= record[NE_SLOT] + record[NE_ROOM]);
  HOLDS(record[NE_SLOT] + record[NE_ROOM] <= SLOTS * SLOT_BYTES);
}

static bool within(const void *base, size_t length, const uint8_t *all, size_t all_length) {
  const uint8_t *start = base;
  return start >= all && length <= all_length && (size_t)(start - all) <= all_length - length;
}

static void gather(input *in) {
  struct iovec list[16];
  ne_gather g = {.iov = list, .count = 0, .max = 1 + (int)(byte_of(in) % 16), .bytes = 0};
  int32_t frame = number_of(in);
  uint64_t skip = byte_of(in);
  int64_t bytes = ne_frame_bytes(c, frame);
  int result = ne_gather_frame(c, frame, skip, &g);
  uint64_t sum = 0;
  for (int i = 0; i < g.count; i++) {
    sum += list[i].iov_len;
    if (within(list[i].iov_base, list[i].iov_len, slots, SLOTS * SLOT_BYTES)) continue;
    if (within(list[i].iov_base, list[i].iov_len, memory, MEMORY_BYTES)) continue;
    for (size_t k = 0; k < list[i].iov_len; k++) HOLDS(((const uint8_t *)list[i].iov_base)[k] == 0);
  }
  HOLDS(sum == g.bytes);
  if (result == 0) HOLDS(bytes >= 0 && sum == (skip > (uint64_t)bytes ? 0 : (uint64_t)bytes - skip));
  else HOLDS(g.count == 0);
}

static void receive_datagrams(input *in, int32_t handle) {
  int32_t list[LIST], spill[LIST], spare[LIST];
  ne_batch batch = batch_of(in, list), more = batch_of(in, spill);
  uint8_t *addresses = malloc(LIST * NE_ADDRESS_BYTES);
  uint32_t flags = byte_of(in);
  (void)more;
  memcpy(spare, spill, sizeof spare);
  uint32_t at = byte_of(in);
  int got = ne_receive_datagrams(c, handle, batch, at, flags & 1 ? addresses : NULL, flags & 2 ? spill : NULL);
  HOLDS(got <= (int)(batch.to - batch.from));
  /* One and the same slot may have been filled by several messages: what holds for each is looked at where all are different. */
  bool different = (flags & 2) == 0;
  for (uint32_t i = batch.from; i < batch.to && different; i++)
    for (uint32_t k = i + 1; k < batch.to; k++) different = different && list[i] != list[k];
  for (int i = 0; i < got && different; i++) check_filled(list[batch.from + (uint32_t)i]);
  free(addresses);
}

static void send_datagrams(input *in, int32_t handle) {
  int32_t list[LIST];
  ne_batch batch = batch_of(in, list);
  uint32_t header_bytes = byte_of(in) % 20;
  uint8_t *headers = malloc(header_bytes * LIST + 1);
  memset(headers, 0x77, header_bytes * LIST + 1);
  int sent = ne_send_datagrams(c, handle, batch, NULL, headers, header_bytes);
  HOLDS(sent <= (int)(batch.to - batch.from));
  free(headers);
}

static void read_frames(input *in, int32_t handle) {
  int32_t list[LIST], spill[LIST];
  ne_batch batch = batch_of(in, list);
  uint32_t spills = batch_of(in, spill).to;
  int got = ne_read_frames(c, handle, batch, spills > 0 ? spill : NULL, spills);
  HOLDS(got <= (int)(batch.to - batch.from));
}

static void send_raw(input *in, int32_t handle) {
  uint8_t bytes[255];
  size_t length = byte_of(in);
  if (length > (size_t)(in->end - in->at)) length = (size_t)(in->end - in->at);
  memcpy(bytes, in->at, length);
  in->at += length;
  if (send(ne_get(c, handle)->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) HOLDS(errno == EAGAIN || errno == ENOBUFS);
}

static void pass_descriptors(input *in) {
  int32_t fds[NE_MAX_FDS], sent[8];
  uint32_t count = byte_of(in) % 8, limit = byte_of(in) % 10, kept = 0, excess = 0;
  uint8_t bytes[64] = {1};
  for (uint32_t i = 0; i < count; i++) sent[i] = byte_of(in) & 1 ? udp : number_of(in);
  ne_send_with_fds(c, passing[0], bytes, 1 + byte_of(in) % sizeof bytes, sent, count);
  ne_receive_with_fds(c, passing[1], bytes, sizeof bytes, fds, limit, &kept, &excess);
  HOLDS(kept <= limit && kept + excess <= count);
  for (uint32_t i = 0; i < kept; i++) ne_close(c, fds[i]);
}

static void streams(input *in, uint32_t what) {
  int32_t list[LIST];
  ne_batch batch = batch_of(in, list);
  int32_t skip = number_of(in);
  if (what == 0) {
    ne_send_stream(c, stream[0], batch, (uint64_t)skip, byte_of(in) & 1);
  } else if (what == 1) {
    uint32_t each = (uint32_t)number_of(in);
    int64_t got = ne_receive_stream(c, stream[1], batch, byte_of(in), each, skip & 1);
    HOLDS(got <= (int64_t)each * LIST);
  } else {
    ne_discard_stream(c, stream[1], (uint32_t)skip & 0xffff);
  }
}

static void shrink_region(input *in) {
  uint32_t length = byte_of(in) << 2;
  if (length == 0) ne_forget_memory(c, memory + byte_of(in), 1 + byte_of(in));
  else ne_set_region(c, 1 + byte_of(in) % 3, memory, length < MEMORY_BYTES ? length : MEMORY_BYTES);
}

/* Each run that is copied lies within the two regions; one that does not fit its target changes nothing. */
static void copies(input *in) {
  int32_t list[LIST * NE_COPY_WORDS];
  uint32_t count = byte_of(in) % (LIST + 1);
  int whole = 0;
  for (uint32_t i = 0; i < count * NE_COPY_WORDS; i++) list[i] = number_of(in);
  for (uint32_t i = 0; i < count; i++) {
    int32_t *run = list + i * NE_COPY_WORDS;
    if (byte_of(in) & 1) run[NE_COPY_SOURCE] &= 3, run[NE_COPY_TARGET] &= 1;
    if (run[NE_COPY_SOURCE] < 0 || run[NE_COPY_SOURCE] >= NE_MAX_REGIONS) continue;
    if (run[NE_COPY_TARGET] < 0 || run[NE_COPY_TARGET] >= NE_MAX_REGIONS) continue;
    if (run[NE_COPY_FROM] < 0 || run[NE_COPY_TO] < 0 || run[NE_COPY_LENGTH] < 0) continue;
    whole += (uint64_t)run[NE_COPY_TO] + (uint64_t)run[NE_COPY_LENGTH] <= c->regions[run[NE_COPY_TARGET]].length;
  }
  HOLDS(ne_attach_copies(c, list, sizeof list / sizeof list[0]) == 0);
  HOLDS(ne_copy_all(c, count) == whole);
  HOLDS(ne_copy_all(c, LIST + 1) == -EINVAL);
}

static void sums(input *in) {
  size_t length = (size_t)(in->end - in->at), from = byte_of(in);
  uint8_t *copy = malloc(length + 1);
  memcpy(copy, in->end - length, length);
  from = from < length ? from : length;
  HOLDS(ne_sum(copy + from, length - from) == ne_sum_plain(copy + from, length - from));
  free(copy);
}

static void step(input *in) {
  switch (byte_of(in) % 18) {
    case 0:
    case 1: {
      uint32_t at = byte_of(in) % RECORDS * NE_RECORD_WORDS + byte_of(in) % NE_RECORD_WORDS;
      table[at] = number_of(in);
      break;
    }
    case 2: streams(in, 0); break;
    case 3: streams(in, 1); break;
    case 4: streams(in, 2); break;
    case 5: send_datagrams(in, datagram[0]); break;
    case 6: receive_datagrams(in, datagram[1]); break;
    case 7: {
      int32_t list[LIST];
      ne_write_frames(c, tap[0], batch_of(in, list));
      break;
    }
    case 8: read_frames(in, tap[1]); break;
    case 9: receive_datagrams(in, raw[1]); break;
    case 10: send_raw(in, raw[0]); break;
    case 11: send_raw(in, tap[0]); break;
    case 12: send_raw(in, stream[0]); break;
    case 13: shrink_region(in); break;
    case 14: pass_descriptors(in); break;
    case 15: gather(in); break;
    case 16:
      if (udp > 0) byte_of(in) & 1 ? send_datagrams(in, udp) : receive_datagrams(in, udp);
      break;
    default:
      sums(in);
      copies(in);
  }
}

static void drain(int32_t handle) {
  uint8_t waste[4096];
  while (recv(ne_get(c, handle)->fd, waste, sizeof waste, MSG_DONTWAIT) >= 0) {
  }
}

static void good_frame_passes(void) {
  reset_table();
  int32_t out = NE_RECORD_WORDS, in = 2 * NE_RECORD_WORDS;
  for (int i = 0; i < 60; i++) slots[i] = (uint8_t)(i * 7);
  HOLDS(ne_send_datagrams(c, datagram[0], (ne_batch){&out, 0, 1}, NULL, NULL, 0) == 1);
  HOLDS(ne_receive_datagrams(c, datagram[1], (ne_batch){&in, 0, 1}, 0, NULL, NULL) == 1);
  HOLDS(table[in + NE_TOTAL] == 60 && memcmp(slots, slots + SLOT_BYTES, 60) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (c == NULL) set_up();
  reset_table();
  input in = {data, data + size};
  for (int steps = 0; in.at < in.end && steps < 200; steps++) step(&in);
  int32_t all[] = {stream[0], stream[1], datagram[0], datagram[1], tap[0], tap[1], raw[0], raw[1], passing[0], passing[1]};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) drain(all[i]);
  if (udp > 0) drain(udp);
  HOLDS(c->open_count == open_handles);
  good_frame_passes();
  return 0;
}
