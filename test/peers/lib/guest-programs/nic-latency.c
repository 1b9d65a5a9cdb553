/*
 * Times what a guest's driver does to an e1000: reads of a register, and interrupts from raising to acknowledging.
 *
 *   nic-latency PCI-ADDRESS READS INTERRUPTS
 *
 * The function must be bound to uio_pci_generic, which masks INTx in the command register when an interrupt comes; here it is taken by reading ICR and unmasked
 * again. Prints one line: median and 99th percentile of a read in ns, and interrupts per second.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { STATUS = 0x8, ICR = 0xc0, ICS = 0xc8, IMS = 0xd0, IMC = 0xd8, RXT0 = 0x80 };

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static int fail(const char *what) {
  perror(what);
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int reads = atoi(argv[2]), interrupts = atoi(argv[3]);
  char path[128];
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource0", argv[1]);
  int bar = open(path, O_RDWR | O_SYNC);
  if (bar < 0) return fail(path);
  volatile uint32_t *registers = mmap(NULL, 0x20000, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
  if (registers == MAP_FAILED) return fail("mmap");
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/config", argv[1]);
  int config = open(path, O_RDWR);
  int uio = open("/dev/uio0", O_RDWR);
  if (config < 0 || uio < 0) return fail("config or uio0");
  uint8_t high;
  if (pread(config, &high, 1, 5) != 1) return fail("command register");

  double *spent = malloc(reads * sizeof *spent);
  for (int i = 0; i < reads; i++) {
    double start = now_ns();
    (void)registers[STATUS / 4];
    spent[i] = now_ns() - start;
  }
  qsort(spent, reads, sizeof *spent, by_value);

  registers[IMC / 4] = 0xffffffff;
  (void)registers[ICR / 4];
  registers[IMS / 4] = RXT0;
  high &= ~4;
  if (pwrite(config, &high, 1, 5) != 1) return fail("unmask");
  double start = now_ns();
  for (int i = 0; i < interrupts; i++) {
    uint32_t count;
    registers[ICS / 4] = RXT0;
    if (read(uio, &count, sizeof count) != sizeof count) return fail("uio0");
    (void)registers[ICR / 4];
    if (pwrite(config, &high, 1, 5) != 1) return fail("unmask");
  }
  double seconds = (now_ns() - start) / 1e9;
  registers[IMC / 4] = 0xffffffff;
  printf("%.0f %.0f %.1f\n", spent[reads / 2], spent[(int)(reads * 0.99)], interrupts / seconds);
  return 0;
}
