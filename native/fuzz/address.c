/* Fuzz target: addresses as text, as paths and in the form that crosses to JavaScript. What is taken gives the same back; the rest is refused. */
#include "../src/netemu.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const ne_address *address) {
  uint8_t packed[NE_ADDRESS_BYTES];
  struct sockaddr_storage storage = {0};
  ne_address back;
  memcpy(&storage, &address->u, address->length);
  ne_pack_address(&storage, packed);
  if (ne_unpack_address(packed, &back) != 0 || back.family != address->family || back.length != address->length) abort();
  if (memcmp(&back.u, &address->u, back.length) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* To the byte, so that one too many is seen. */
  char *text = malloc(size + 1);
  memcpy(text, data, size);
  text[size] = 0;
  ne_address address;
  if (ne_parse_ip(text, (uint16_t)size, &address) == 0) round_trip(&address);
  char *path = malloc(size == 0 ? 1 : size);
  memcpy(path, data, size);
  if (ne_parse_path(path, size, &address) == 0) {
    if (address.length > sizeof address.u.un || strlen(address.u.un.sun_path) != size) abort();
  }
  if (size >= NE_ADDRESS_BYTES) {
    uint8_t packed[NE_ADDRESS_BYTES];
    memcpy(packed, data, sizeof packed);
    if (ne_unpack_address(packed, &address) == 0) round_trip(&address);
  }
  free(path);
  free(text);
  return 0;
}
