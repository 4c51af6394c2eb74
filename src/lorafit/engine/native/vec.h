// One vector of floats, its width fixed at compile time (LORAFIT_WIDTH floats).
//
// GCC's and Clang's vector extensions carry the arithmetic, so the same source becomes
// AVX-512, AVX2, SSE or NEON code. The two operations they have no word for, rounding to
// bfloat16 and the dot product of bfloat16 pairs, are intrinsics where the CPU has them.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace lorafit {

constexpr int W = LORAFIT_WIDTH;

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W)));

struct bf16 {
  uint16_t bits;
};

// The lanes in use: all of them (known at compile time); the rest of a row, as an int; or
// the rest of a row that is padded to whole vectors, so that all of them can be touched.
struct Full {
  constexpr operator int() const { return W; }
};
struct Padded {
  int lanes;
};

constexpr long round_up(long n, long to) { return (n + to - 1) / to * to; }

inline vf splat(float x) { return x - vf{}; }
inline vu splat(uint32_t x) { return x - vu{}; }

template <class V, class From>
inline V bits_of(From from) {
  static_assert(sizeof(V) == sizeof(From), "a bit cast keeps the size");
  V to;
  memcpy(&to, &from, sizeof to);
  return to;
}

inline vf widen(vh h) { return bits_of<vf>(__builtin_convertvector(h, vu) << 16); }

// Round to nearest even, as torch does; NaN stays NaN.
inline vh narrow(vf x) {
#ifdef __AVX512BF16__
  return bits_of<vh>(_mm512_cvtneps_pbh(bits_of<__m512>(x)));
#else
  vu u = bits_of<vu>(x);
  vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  vu nan = splat(uint32_t{0x7fc0});
  vu kept = (x == x) ? rounded : nan;
  return __builtin_convertvector(kept, vh);
#endif
}

inline vf load(const float* p, Full = {}) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline vf load(const bf16* p, Full = {}) {
  vh h;
  memcpy(&h, p, sizeof h);
  return widen(h);
}
inline vf load(const float* p, int lanes) {
  vf v = {};
  memcpy(&v, p, sizeof(float) * lanes);
  return v;
}
inline vf load(const bf16* p, int lanes) {
  vh h = {};
  memcpy(&h, p, sizeof(bf16) * lanes);
  return widen(h);
}

inline vf load(const float* p, Padded) { return load(p); }
inline vu load(const uint32_t* p) {
  vu v;
  memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, vf v, Full = {}) { memcpy(p, &v, sizeof v); }
inline void store(bf16* p, vf v, Full = {}) {
  vh h = narrow(v);
  memcpy(p, &h, sizeof h);
}
inline void store(float* p, vf v, int lanes) { memcpy(p, &v, sizeof(float) * lanes); }
inline void store(bf16* p, vf v, int lanes) {
  vh h = narrow(v);
  memcpy(p, &h, sizeof(bf16) * lanes);
}

inline void store(float* p, vf v, Padded) { store(p, v); }

inline vu iota() {
  vu v;
  for (int i = 0; i < W; i++) v[i] = i;
  return v;
}

// The lanes in use, `other` elsewhere.
inline vf first(vf v, Full, float = 0) { return v; }
inline vf first(vf v, int lanes, float other = 0) {
  return iota() < splat(uint32_t(lanes)) ? v : splat(other);
}
inline vf first(vf v, Padded p, float other = 0) { return first(v, p.lanes, other); }

// Pairwise: a chain of W additions would cost W times their latency.
template <class Op>
inline float reduce(vf v, Op op) {
  float a[W];
  store(a, v);
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) a[i] = op(a[i], a[i + half]);
  return a[0];
}
inline float sum(vf v) {
  return reduce(v, [](float a, float b) { return a + b; });
}
inline float max(vf v) {
  return reduce(v, [](float a, float b) { return a > b ? a : b; });
}
inline vf max(vf a, vf b) { return a > b ? a : b; }

// Calls body(column, lanes) over a row of n columns.
template <class Body>
inline void over(long n, Body body) {
  long j = 0;
  for (; j + W <= n; j += W) body(j, Full{});
  if (j < n) body(j, int(n - j));
}

// The same over a row that is padded to whole vectors.
template <class Body>
inline void over_padded(long n, Body body) {
  long j = 0;
  for (; j + W <= n; j += W) body(j, Full{});
  if (j < n) body(j, Padded{int(n - j)});
}

// e^x, 2e-7 relative; below e^-87 it is e^-87, NaN stays NaN.
inline vf exp(vf x) {
  x = x > 88.f ? splat(88.f) : x;
  x = x < -87.f ? splat(-87.f) : x;
  vf n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // nearest integer: 1.5 * 2^23
  vf f = x - n * 0.693359375f + n * 2.12194440e-4f;
  vf p = 1.f / 5040 * f + 1.f / 720;
  p = p * f + 1.f / 120;
  p = p * f + 1.f / 24;
  p = p * f + 1.f / 6;
  p = p * f + 0.5f;
  p = p * f + 1.f;
  p = p * f + 1.f;
  return p * bits_of<vf>((__builtin_convertvector(n, vi) + 127) << 23);
}

// Abramowitz and Stegun 7.1.26, 1.5e-7 absolute; `gauss` is e^(-x^2), which callers reuse.
inline vf erf(vf x, vf gauss) {
  vf a = x < 0.f ? -x : x;
  vf t = 1.f / (1.f + 0.3275911f * a);
  vf p = 1.061405429f * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vf y = 1.f - p * t * gauss;
  return x < 0.f ? -y : y;
}

inline vf tanh(vf x) { return 1.f - 2.f / (exp(2.f * x) + 1.f); }
inline vf sigmoid(vf x) { return 1.f / (1.f + exp(-x)); }

}  // namespace lorafit
