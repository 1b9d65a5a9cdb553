/*
 * The core of netemu's addon: system calls on batches of frames. Nothing in here knows Node-API, a protocol or a policy.
 *
 * Everything hangs on one ne_context (one for each HostIo of JavaScript): a table of open handles, the addresses of the frame table and
 * of the memory regions that frame records point into, an epoll descriptor with a timer, and scratch space for batches. A context is used
 * by one thread at a time. The only state outside of contexts is the process-wide list of mappings that the SIGBUS handler needs.
 *
 * Calls return a count, a handle (>= 1) or 0, or a negative errno. Numbers from outside are checked here: frame numbers against the table,
 * offsets and lengths against their region. A frame table may change while it is read (it can be shared between threads), so a
 * record's words are copied before they are checked.
 */
#ifndef NETEMU_H
#define NETEMU_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <netinet/in.h>
#include <sys/un.h>

/* Layout of a frame record in words; the same as src/core/pool.ts, compared by a test. */
enum {
  NE_RECORD_WORDS = 16,
  NE_REGION = 0,
  NE_OFFSET = 1,
  NE_LENGTH = 2,
  NE_NEXT = 3,
  NE_TOTAL = 4,
  NE_FACTS = 5,
  NE_GSO_SIZE = 6,
  NE_HEADER_LENGTH = 7,
  NE_CSUM_START = 8,
  NE_CSUM_OFFSET = 9,
  NE_REFS = 10,
  NE_SLOT = 13,
  NE_ROOM = 14
};

/* One run of a list of copies; the same as src/core/copy-list.ts. */
enum { NE_COPY_SOURCE = 0, NE_COPY_FROM = 1, NE_COPY_TARGET = 2, NE_COPY_TO = 3, NE_COPY_LENGTH = 4, NE_COPY_WORDS = 5 };

/* Readiness bits; the same as src/host-io/host-io.ts. */
enum { NE_READABLE = 1, NE_WRITABLE = 2, NE_HUNG_UP = 4, NE_FAILED = 8 };

enum {
  NE_MAX_HANDLES = 65536,
  NE_MAX_REGIONS = 4096,
  NE_MAX_IOV = 1024,       /* the kernel's UIO_MAXIOV */
  NE_MAX_MESSAGES = 64,    /* datagrams in one system call */
  NE_MAX_EVENTS = 64,      /* readiness events delivered at once */
  NE_MAX_FDS = 253,        /* the kernel's SCM_MAX_FD */
  NE_ADDRESS_BYTES = 20    /* 16 address, 2 port (big-endian), 1 family (4 or 6), 1 zero */
};

enum ne_kind {
  NE_CLOSED = 0,
  NE_STREAM,     /* connected or connecting TCP or unix stream */
  NE_LISTENER,
  NE_DATAGRAM,   /* UDP, ping, unix datagram */
  NE_RAW4,       /* raw IPv4: received messages start with an IP header, which is taken off */
  NE_TAP,
  NE_OTHER       /* eventfd, memfd, anything adopted that is no socket */
};

enum {
  NE_F_CONNECTED = 1,  /* the far end is fixed */
  NE_F_GSO = 2,        /* UDP_SEGMENT may be used */
  NE_F_GRO = 4,        /* UDP_GRO is on */
  NE_F_VNET = 8,       /* a virtio_net_hdr precedes each frame */
  NE_F_WATCHED = 16,
  NE_F_IN_EPOLL = 32,
  NE_F_SOCKET = 64,
  NE_F_RAW = 128       /* raw IP: has no port */
};

typedef struct {
  int fd;
  uint16_t generation;
  uint8_t kind;
  uint8_t flags;
  uint8_t interest;
  int error;           /* errno of a connect that failed at once; positive */
  int32_t gso_limit;   /* UDP_SEGMENT was refused for datagrams longer than this */
  int32_t next_free;
  char *path;          /* socket file to unlink on close */
  dev_t path_device;
  ino_t path_inode;
} ne_handle;

typedef struct {
  uint8_t *base;
  size_t length;
} ne_region;

typedef struct {
  uint64_t receive_calls;
  uint64_t send_calls;
  uint64_t poll_calls;
  uint64_t truncated;     /* datagrams longer than their slot, thrown away */
  uint64_t wakeups;
  uint64_t busy_polls;    /* polls of the busy-polling loop that found nothing */
} ne_stats;

typedef struct ne_scratch ne_scratch;

typedef struct {
  ne_handle *handles;      /* [0] is never used */
  int32_t handle_count;
  int32_t free_head, free_tail;
  int32_t open_count, watched_count;

  int32_t *table;
  uint32_t table_words;
  ne_region regions[NE_MAX_REGIONS];
  uint32_t region_count;
  const int32_t *copies;   /* the list of ne_copy_all */
  uint32_t copies_max;

  int epoll_fd;
  int timer_fd;
  bool timer_armed;
  bool closed;
  ne_scratch *scratch;
  ne_stats stats;
} ne_context;

/* A destination or source. family 0: none. */
typedef struct {
  int family;               /* AF_INET, AF_INET6, AF_UNIX */
  socklen_t length;
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
  } u;
} ne_address;

/* frames[from..to) of a list that has been checked to be that long. */
typedef struct {
  int32_t *list;
  uint32_t from, to;
} ne_batch;

/* --- context.c: contexts and handles --- */
ne_context *ne_context_new(void);
/* Closes every handle and descriptor, unlinks socket files. The context stays valid; every later call returns -EBADF. */
void ne_context_shutdown(ne_context *c);
void ne_context_free(ne_context *c);
/* The open handle of that number, or NULL. */
ne_handle *ne_get(ne_context *c, int32_t handle);
/* Takes the descriptor over (also on failure) and returns a handle. */
int ne_handle_new(ne_context *c, int fd, enum ne_kind kind, int flags);
int ne_close(ne_context *c, int32_t handle);

/* --- memory.c: the frame table, regions, and iovecs built from frames --- */
int ne_attach_table(ne_context *c, int32_t *table, size_t words);
int ne_set_region(ne_context *c, uint32_t region, uint8_t *base, size_t length);
/* Where ne_copy_all reads what to copy: NE_COPY_WORDS for each run. */
int ne_attach_copies(ne_context *c, const int32_t *list, size_t words);
/*
 * Copies the first `count` runs of the list. Of a source region that was taken away, or ends before the run, zeros are copied; a run whose target is
 * not wholly in its region is left out. Returns how many were not.
 */
int ne_copy_all(ne_context *c, uint32_t count);
/* Forgets every region that lies in [base, base + length). */
void ne_forget_memory(ne_context *c, const uint8_t *base, size_t length);

typedef struct {
  struct iovec *iov;
  int count, max;
  uint64_t bytes;
} ne_gather;

/* Appends the frame's bytes after the first `skip` to the gather list. Memory that is gone reads as zeros. -EINVAL: no such frame;
 * -EMSGSIZE: too many segments for what is left of the list (which is then unchanged). */
int ne_gather_frame(const ne_context *c, int32_t frame, uint64_t skip, ne_gather *g);
/* Chains the slot of `spill` with `bytes` in it behind the frame, whose own segment holds `first` bytes from `offset` of region 0 on. */
void ne_chain(ne_context *c, int32_t frame, int32_t offset, int32_t first, int32_t spill, int32_t bytes);
/* The frame's length by its segments; -EINVAL: no such frame, -EMSGSIZE: more segments than any list holds. */
int64_t ne_frame_bytes(const ne_context *c, int32_t frame);
/* The slot of `frame` from `at` on: its address and room. -EINVAL: no such frame, or no slot. */
int ne_slot(const ne_context *c, int32_t frame, uint32_t at, uint8_t **start, uint32_t *room);
/* After EFAULT: reads a byte of every page of the list, so that truncated mappings become zeros (see sigbus.c). */
void ne_touch(const struct iovec *iov, int count);

/* --- address.c --- */
int ne_parse_ip(const char *text, uint16_t port, ne_address *out);
int ne_parse_path(const char *path, size_t length, ne_address *out);
void ne_pack_address(const struct sockaddr_storage *from, uint8_t out[NE_ADDRESS_BYTES]);
int ne_unpack_address(const uint8_t in[NE_ADDRESS_BYTES], ne_address *out);

/* --- socket.c: opening, listening, options --- */
typedef struct {
  const ne_address *local, *remote;
  int family;
  bool reuse, gro;
  int receive_bytes, send_bytes;
  const ne_address *group, *group_interface;
  bool group_loop;
  const char *device; /* SO_BINDTODEVICE: the interface it sends and receives by; NULL: any */
  bool network_errors;
} ne_udp_options;

int ne_udp_open(ne_context *c, const ne_udp_options *options);
/* The kernel's ICMP echo socket, or where that is not allowed, a raw one that hears only echo replies. */
int ne_ping_open(ne_context *c, int family, const ne_address *local, const char *device);
int ne_raw_open(ne_context *c, int family, int protocol, const ne_address *local, const ne_address *remote);
int ne_unix_datagram_open(ne_context *c, const ne_address *local, const ne_address *remote);
/* Fixes (or moves) the far end of an open datagram socket. */
int ne_datagram_connect(ne_context *c, int32_t handle, const ne_address *remote);
int ne_keep_alive(ne_context *c, int32_t handle, bool on);
/* `hops` not 0: what is sent until it is connected goes so far, and routers' errors about it are kept. */
int ne_connect(ne_context *c, const ne_address *remote, const ne_address *local, bool no_delay, const char *device, int hops);
int ne_listen(ne_context *c, const ne_address *local, int backlog, bool v6_only);
int ne_accept(ne_context *c, int32_t handle);
int ne_take_error(ne_context *c, int32_t handle);
int ne_pending(ne_context *c, int32_t handle);
int ne_endpoint(ne_context *c, int32_t handle, bool remote, ne_address *out);
int ne_shutdown_write(ne_context *c, int32_t handle);
int ne_reset(ne_context *c, int32_t handle);

/* --- network-errors.c: hop limits, and the errors of routers --- */
enum {
  NE_NETWORK_ERROR_BYTES = 64, /* NETWORK_ERROR_BYTES in src/host-io/host-io.ts says what lies where */
  NE_NETWORK_ERROR_QUOTE = 40
};
/* Of a descriptor; hops 0: as many as the system's setting says. */
int ne_keep_network_errors(int fd, bool on);
int ne_set_hop_limit(int fd, int hops);
int ne_hop_limit(ne_context *c, int32_t handle, int hops);
/* Takes the oldest error that a router or the far end sent about this socket's packets. Returns 1, 0 when there is none, or a negative errno. */
int ne_network_error(ne_context *c, int32_t handle, uint8_t out[NE_NETWORK_ERROR_BYTES]);

/* --- stream.c --- */
int64_t ne_receive_stream(ne_context *c, int32_t handle, ne_batch batch, uint32_t at, uint32_t each, bool peek);
int64_t ne_discard_stream(ne_context *c, int32_t handle, uint32_t length);
int64_t ne_send_stream(ne_context *c, int32_t handle, ne_batch batch, uint64_t skip, bool framed);
int64_t ne_receive_bytes(ne_context *c, int32_t handle, uint8_t *target, size_t length);
int64_t ne_send_bytes(ne_context *c, int32_t handle, const uint8_t *source, size_t length);

/* --- datagram.c --- */
/* `spill`, when not NULL, runs beside batch.list: a message too long for frame i goes on in the slot of spill[i], chained behind it. */
int ne_receive_datagrams(ne_context *c, int32_t handle, ne_batch batch, uint32_t at, uint8_t *addresses, int32_t *spill);
int ne_send_datagrams(ne_context *c, int32_t handle, ne_batch batch, const ne_address *remote, const uint8_t *headers, uint32_t header_bytes);

/* --- tap.c --- */
int ne_tap_open(ne_context *c, const char *name, bool vnet, bool multi_queue, char name_out[16]);
int ne_tap_offloads(ne_context *c, int32_t handle, unsigned accepts);
/* What an open descriptor is as a tap; from then on its frames carry the header it was made with. 1: with one, 0: without. */
int ne_tap_of(ne_context *c, int32_t handle, char name_out[16]);
int ne_tap_send_buffer(ne_context *c, int32_t handle, int bytes);
/* `spill[0..spills)`: slots that the ends of frames too long for theirs go to, in order; those used become 0. */
int ne_read_frames(ne_context *c, int32_t handle, ne_batch batch, int32_t *spill, uint32_t spills);
int ne_write_frames(ne_context *c, int32_t handle, ne_batch batch);

/* --- sandbox.c --- */
/* Denies this process what it will not need any more, for all its threads and for good. */
int ne_sandbox(void);

/* --- landlock.c --- */
/* What may be done in a folder and all beneath it, or with a file. */
enum {
  NE_MAY_READ = 1,
  NE_MAY_WRITE = 2, /* also read, make and remove files */
  NE_MAY_BIND = 4,  /* make and remove sockets */
  NE_MAY_DRIVE = 8, /* devices: read, write, ioctl */
  NE_MAY_RUN = 16   /* read and execute */
};
/* The version of the kernel's interface, or a negative errno where it has none. */
int ne_landlock_abi(void);
/* A descriptor of an empty list of places: nothing may be touched. */
int ne_landlock_ruleset(void);
/* Adds a place, which need not be a folder. -ENOENT: there is none. */
int ne_landlock_allow(int ruleset, const char *path, unsigned rights);
/* The same for a place that is open (O_PATH will do). */
int ne_landlock_allow_open(int ruleset, int place, unsigned rights);
/* From now on every thread of the process is held to the list. -EBUSY: a thread could not be; then some are and some are not. */
int ne_landlock_enter(int ruleset);

/* --- fds.c: descriptors and memory --- */
int ne_adopt(ne_context *c, int fd, bool vnet);
/* ioctl(2) with `argument`, which has the bytes that the request's number says; may be NULL where it says none. */
int ne_control(ne_context *c, int32_t handle, uint32_t request, void *argument);
int ne_socket_pair(ne_context *c, int32_t out[2]);
int64_t ne_send_with_fds(ne_context *c, int32_t handle, const uint8_t *source, size_t length, const int32_t *fds, uint32_t count);
/* Keeps at most `limit` received descriptors as handles in `fds`; closes the others and counts them in `excess`. */
int64_t ne_receive_with_fds(ne_context *c, int32_t handle, uint8_t *target, size_t length, int32_t *fds, uint32_t limit, uint32_t *count,
                            uint32_t *excess);
int ne_event_fd(ne_context *c);
int ne_signal(ne_context *c, int32_t handle);
int64_t ne_drain(ne_context *c, int32_t handle);
/* Blocks until `interest` (NE_READABLE, NE_WRITABLE) or an end holds, at most `timeout_ms`. Returns NE_* bits, 0 when the time passed. */
int ne_wait_ready(ne_context *c, int32_t handle, unsigned interest, uint32_t timeout_ms);
int ne_memory_fd(ne_context *c, const char *name, uint64_t bytes);
/* A pseudo terminal in raw mode: returns the master, puts the slave's handle and its path aside. */
int ne_pty_open(ne_context *c, char name[64], int32_t *slave);

typedef struct {
  uint8_t *base;      /* page-aligned */
  size_t length;      /* mapped bytes */
  size_t skew;        /* where the wanted bytes start */
  size_t wanted;
} ne_mapping;

int ne_map(ne_context *c, int32_t handle, uint64_t offset, uint64_t length, bool writable, ne_mapping *out);
void ne_unmap(const ne_mapping *mapping);

/* --- sigbus.c --- */
/* Registers a mapping whose lost pages shall read as zeros. -ENOMEM: too many. */
int ne_guard_add(uint8_t *base, size_t length, bool writable);
void ne_guard_remove(uint8_t *base, size_t length);

/* --- poll.c --- */
int ne_watch(ne_context *c, int32_t handle, unsigned interest);
int ne_unwatch(ne_context *c, ne_handle *h);
/* Ready handles now, without waiting: pairs of (handle, bits) to `out`; handle 0 is the timer. Returns the number of pairs. */
int ne_poll(ne_context *c, int32_t *out, int max_pairs);
/* Fires once after delay_ns (0: at once); negative: disarms. */
int ne_timer(ne_context *c, int64_t delay_ns);

/* --- kernels.c --- */
/* The one's complement sum of the bytes as big-endian words, folded to 16 bits. */
uint16_t ne_sum(const uint8_t *bytes, size_t length);
uint16_t ne_sum_plain(const uint8_t *bytes, size_t length);

struct ne_scratch {
  struct iovec iov[NE_MAX_IOV];
  struct mmsghdr messages[NE_MAX_MESSAGES];
  int group[NE_MAX_MESSAGES];
  int64_t group_size[NE_MAX_MESSAGES];
  struct sockaddr_storage names[NE_MAX_MESSAGES];
  union {
    struct cmsghdr align;
    char bytes[64];
  } control[NE_MAX_MESSAGES];
  uint8_t prefix[NE_MAX_IOV][4];
  uint8_t ip_header[NE_MAX_MESSAGES][20];
};

#endif
