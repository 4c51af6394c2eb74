// Dropout masks from a counter: nothing is stored, backward computes the same mask again.
//
// The mask of element (row, column) is 16 bits of a hash of (seed, row, column). One
// 32-bit hash serves two columns: in each group of 32 columns, lane l of the first 16
// takes the low half and column 16 + l the high half. The layout does not depend on the
// vector width, so every instruction set and the PyTorch twin draw the same masks.
#pragma once
#include "vec.h"

namespace lorafit {

// "lowbias32", Chris Wellons' measured integer hash: bias 0.17.
inline uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}
inline vu hash(vu x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

struct Dropout {
  uint32_t seed;
  uint32_t threshold;  // of 65536: an element is dropped when its 16 bits are below
  float keep_scale;    // 65536 / (65536 - threshold)

  bool on() const { return threshold != 0; }
  uint32_t row_key(uint32_t row) const { return hash(seed + row * 0x9e3779b9u); }
};

// Calls body(column, lanes, kept) over a row; `kept` is a lane mask.
template <class Body>
inline void over_kept(const Dropout& drop, uint32_t key, long n, Body body) {
  vi threshold = bits_of<vi>(splat(drop.threshold));
  auto part = [&](long j, vu random) {
    vi kept = bits_of<vi>(random) >= threshold;
    if (j + W <= n)
      body(j, Full{}, kept);
    else if (j < n)
      body(j, int(n - j), kept);
  };
  for (long group = 0; group < n; group += 32)
    for (int l = 0; l < 16; l += W) {
      vu h = hash(iota() + (key + uint32_t(group / 2 + l)));
      part(group + l, h & 0xffffu);
      part(group + 16 + l, h >> 16);
    }
}

}  // namespace lorafit
