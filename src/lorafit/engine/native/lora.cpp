// The low-rank update of one linear layer, for packed tokens.
//
//   z = dropout(x),  u = z A^T (n, r),  y += scaling * u B^T
//   g = scaling * dy,  dB += g^T u,  du = g B,  dA += du^T z,  dx += dropout'(du A)
//
// x, y and dy are stored in float32 or bfloat16 with a row stride, A (r, d_in) and
// B (d_out, r) in float32. Tokens are taken in tiles that stay in the cache.
#include <type_traits>

#include "api.h"
#include "dropout.h"
#include "parallel.h"
#include "tile.h"

namespace lorafit {
namespace {

constexpr long TOKENS = 16;

// rows of `from` (rows, columns), transposed or not, zero-padded to `width` columns.
void padded(const float* from, long rows, long columns, bool transposed, float* to, long width) {
  long out_rows = transposed ? columns : rows, out_columns = transposed ? rows : columns;
  for (long i = 0; i < out_rows; i++) {
    for (long j = 0; j < out_columns; j++)
      to[i * width + j] = transposed ? from[j * columns + i] : from[i * columns + j];
    for (long j = out_columns; j < width; j++) to[i * width + j] = 0;
  }
}

// z: dropout(x) of tokens [from, to), float32, rows padded with zeros to `width`.
template <class T>
void masked_tile(const T* x, long stride, long d, long from, long to, const Dropout& drop, float* z,
                 long width) {
  for (long i = from; i < to; i++) {
    const T* xi = x + i * stride;
    float* zi = z + (i - from) * width;
    if (drop.on())
      over_kept(drop, drop.row_key(uint32_t(i)), d, [&](long j, auto lanes, vi kept) {
        vf v = load(xi + j, lanes) * drop.keep_scale;
        store(zi + j, kept ? v : vf{}, lanes);
      });
    else
      over(d, [&](long j, auto lanes) { store(zi + j, load(xi + j, lanes), lanes); });
    for (long j = d; j < width; j++) zi[j] = 0;
  }
}

template <class T>
void down(long n, long d, long r, const T* x, long stride, const float* A, Dropout drop, float* u) {
  long width = round_up(d, W), ranks = round_up(r, W);
  std::vector<float> At(d * ranks);
  padded(A, r, d, true, At.data(), ranks);
  parallel_rows(n, TOKENS, [&, At = At.data()](long from, long to) {
    float* z = scratch(0, TOKENS * width);
    float* sums = scratch(1, TOKENS * ranks);
    masked_tile(x, stride, d, from, to, drop, z, width);
    matmul(to - from, r, d, z, width, 1, At, ranks, sums, ranks, false);
    for (long i = from; i < to; i++)
      for (long k = 0; k < r; k++) u[i * r + k] = sums[(i - from) * ranks + k];
  });
}

template <class T>
void up(long n, long d, long r, const float* u, const float* B, float scaling, T* y, long stride) {
  long width = round_up(d, W);
  std::vector<float> Bt(r * width);
  padded(B, d, r, true, Bt.data(), width);
  for (float& b : Bt) b *= scaling;
  parallel_rows(n, TOKENS, [&, Bt = Bt.data()](long from, long to) {
    float* t = scratch(0, TOKENS * width);
    matmul(to - from, d, r, u + from * r, r, 1, Bt, width, t, width, false);
    for (long i = from; i < to; i++) {
      T* yi = y + i * stride;
      const float* ti = t + (i - from) * width;
      over(d, [&](long j, auto lanes) {
        store(yi + j, load(yi + j, lanes) + load(ti + j, lanes), lanes);
      });
    }
  });
}

// Gradients are added to dA (r, d_in) and dB (d_out, r), and to dx (n, d_in) when given.
// Storage types of x and dy (T) and of dx (X) may differ.
template <class T, class X>
void backward(long n, long d_in, long d_out, long r, const T* dy, long dy_stride, const T* x,
              long x_stride, const float* A, const float* B, const float* u, float scaling,
              Dropout drop, float* dA, float* dB, X* dx) {
  long wide_in = round_up(d_in, W), wide_out = round_up(d_out, W), ranks = round_up(r, W);
  std::vector<float> A_(r * wide_in), B_(d_out * ranks);
  padded(A, r, d_in, false, A_.data(), wide_in);
  padded(B, d_out, r, false, B_.data(), ranks);
  // One private sum per part; the parts are added in order, so results repeat exactly.
  long parts = threads(), part_rows = round_up((n + parts - 1) / parts, TOKENS);
  std::vector<float> sums_A(parts * r * wide_in), sums_B(parts * r * wide_out);
  parallel_for(parts, [&](long part) {
    float* sum_A = sums_A.data() + part * r * wide_in;
    float* sum_B = sums_B.data() + part * r * wide_out;
    float* z = scratch(0, TOKENS * wide_in);
    float* g = scratch(1, TOKENS * wide_out);
    float* du = scratch(2, TOKENS * ranks);
    long end = (part + 1) * part_rows < n ? (part + 1) * part_rows : n;
    for (long from = part * part_rows; from < end; from += TOKENS) {
      long to = from + TOKENS < end ? from + TOKENS : end, rows = to - from;
      masked_tile(x, x_stride, d_in, from, to, drop, z, wide_in);
      for (long i = from; i < to; i++) {
        float* gi = g + (i - from) * wide_out;
        over(d_out, [&](long j, auto lanes) {
          store(gi + j, load(dy + i * dy_stride + j, lanes) * scaling, lanes);
        });
        for (long j = d_out; j < wide_out; j++) gi[j] = 0;
      }
      matmul(rows, r, d_out, g, wide_out, 1, B_.data(), ranks, du, ranks, false);
      matmul(r, d_out, rows, u + from * r, 1, r, g, wide_out, sum_B, wide_out, true);
      matmul(r, d_in, rows, du, 1, ranks, z, wide_in, sum_A, wide_in, true);
      if (!dx) continue;
      matmul(rows, d_in, r, du, ranks, 1, A_.data(), wide_in, z, wide_in, false);
      for (long i = from; i < to; i++) {
        X* out = dx + i * d_in;
        const float* ti = z + (i - from) * wide_in;
        if (drop.on())
          over_kept(drop, drop.row_key(uint32_t(i)), d_in, [&](long j, auto lanes, vi kept) {
            vf v = load(ti + j, lanes) * drop.keep_scale;
            store(out + j, load(out + j, lanes) + (kept ? v : vf{}), lanes);
          });
        else
          over(d_in, [&](long j, auto lanes) {
            store(out + j, load(out + j, lanes) + load(ti + j, lanes), lanes);
          });
      }
    }
  });
  for (long part = 0; part < parts; part++) {
    const float* sum_A = sums_A.data() + part * r * wide_in;
    const float* sum_B = sums_B.data() + part * r * wide_out;
    for (long k = 0; k < r; k++) {
      for (long j = 0; j < d_in; j++) dA[k * d_in + j] += sum_A[k * wide_in + j];
      for (long j = 0; j < d_out; j++) dB[j * r + k] += sum_B[k * wide_out + j];
    }
  }
}

}  // namespace
}  // namespace lorafit

using lorafit::bf16;

LORAFIT_API void lorafit_lora_down(int dtype, long n, long d, long r, const void* x, long stride,
                                   const float* A, uint32_t seed, uint32_t threshold,
                                   float keep_scale, float* u) {
  lorafit::Dropout drop{seed, threshold, keep_scale};
  if (dtype == 0)
    lorafit::down(n, d, r, static_cast<const float*>(x), stride, A, drop, u);
  else
    lorafit::down(n, d, r, static_cast<const bf16*>(x), stride, A, drop, u);
}

LORAFIT_API void lorafit_lora_up(int dtype, long n, long d, long r, const float* u, const float* B,
                                 float scaling, void* y, long stride) {
  if (dtype == 0)
    lorafit::up(n, d, r, u, B, scaling, static_cast<float*>(y), stride);
  else
    lorafit::up(n, d, r, u, B, scaling, static_cast<bf16*>(y), stride);
}

LORAFIT_API void lorafit_lora_backward(int dtype, int dx_dtype, long n, long d_in, long d_out,
                                       long r, const void* dy, long dy_stride, const void* x,
                                       long x_stride, const float* A, const float* B,
                                       const float* u, float scaling, uint32_t seed,
                                       uint32_t threshold, float keep_scale, float* dA, float* dB,
                                       void* dx) {
  lorafit::Dropout drop{seed, threshold, keep_scale};
  auto run = [&](auto* storage, auto* input_grad) {
    using T = std::remove_pointer_t<decltype(storage)>;
    lorafit::backward(n, d_in, d_out, r, static_cast<const T*>(dy), dy_stride,
                      static_cast<const T*>(x), x_stride, A, B, u, scaling, drop, dA, dB,
                      input_grad);
  };
  float* single = nullptr;
  bf16* half = nullptr;
  if (dtype == 0)
    run(single, static_cast<float*>(dx));
  else if (dx_dtype == 0)
    run(half, static_cast<float*>(dx));
  else
    run(half, static_cast<bf16*>(dx));
}
