/*
 * Moving and summing bytes. The Internet checksum's sum does not care for byte order until the end (RFC 1071 section 2), so words are added
 * as they lie in memory and swapped once. With AVX2 (decided at run time) 16-bit words are widened to 32-bit lanes.
 */
#include "netemu.h"
#include <string.h>

static uint16_t fold_swap(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return (uint16_t)((sum & 0xff) << 8 | (sum >> 8 & 0xff));
#else
  return (uint16_t)sum;
#endif
}

static uint64_t sum_words(const uint8_t *bytes, size_t length, uint64_t sum) {
  uint32_t word;
  for (; length >= 4; length -= 4, bytes += 4) {
    memcpy(&word, bytes, 4);
    sum += word;
  }
  uint8_t tail[4] = {0, 0, 0, 0};
  if (length > 0) memcpy(tail, bytes, length);
  memcpy(&word, tail, 4);
  return sum + word;
}

uint16_t ne_sum_plain(const uint8_t *bytes, size_t length) {
  return fold_swap(sum_words(bytes, length, 0));
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *bytes, size_t length) {
  const __m256i zero = _mm256_setzero_si256();
  uint64_t sum = 0;
  while (length >= 64) {
    /* 32-bit lanes take 65536 additions of 16-bit words before they could overflow; stay well below. */
    size_t blocks = length / 64;
    if (blocks > 16384) blocks = 16384;
    __m256i a = zero;
    __m256i b = zero;
    for (size_t i = 0; i < blocks; i++, bytes += 64) {
      __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
      __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + 32));
      a = _mm256_add_epi32(a, _mm256_unpacklo_epi16(x, zero));
      b = _mm256_add_epi32(b, _mm256_unpackhi_epi16(x, zero));
      a = _mm256_add_epi32(a, _mm256_unpacklo_epi16(y, zero));
      b = _mm256_add_epi32(b, _mm256_unpackhi_epi16(y, zero));
    }
    length -= blocks * 64;
    uint32_t lanes[16];
    _mm256_storeu_si256((__m256i *)(void *)lanes, a);
    _mm256_storeu_si256((__m256i *)(void *)(lanes + 8), b);
    for (int i = 0; i < 16; i++) sum += lanes[i];
  }
  return sum_words(bytes, length, sum);
}

uint16_t ne_sum(const uint8_t *bytes, size_t length) {
  if (length >= 128 && __builtin_cpu_supports("avx2")) return fold_swap(sum_avx2(bytes, length));
  return ne_sum_plain(bytes, length);
}
#else
uint16_t ne_sum(const uint8_t *bytes, size_t length) {
  return ne_sum_plain(bytes, length);
}
#endif
