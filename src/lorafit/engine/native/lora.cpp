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

// (rows, columns) of float32 with a stride, times `factor`, to storage T, zero-padded to `width`.
template <class T>
void stored_rows(const float* from, long stride, long rows, long columns, float factor, T* to,
                 long width) {
  for (long i = 0; i < rows; i++) {
    T* row = to + i * width;
    over(columns, [&](long j, auto lanes) {
      store(row + j, load(from + i * stride + j, lanes) * factor, lanes);
    });
    memset(row + columns, 0, (width - columns) * sizeof(T));
  }
}

// A factor of the update, (rows, columns), as the right side of `matmul`, in storage T: sums
// run down its columns or (transposed) along its rows.
template <class T>
class Operand {
 public:
  Operand(const float* from, long rows, long columns, bool transposed, float factor = 1) {
    long width = round_up(columns, W);
    numbers.resize(rows * width);
    T* to = reinterpret_cast<T*>(numbers.data());
    stored_rows(from, columns, rows, columns, factor, to, width);
    long depth = cells<T>(transposed ? columns : rows);
    stride = transposed ? round_up(rows, W) : width;
    arranged.resize(depth * stride);
    auto* out = reinterpret_cast<cell<T>*>(arranged.data());
    at = out;
    if (transposed)
      transpose(as_cells(to), rows, width / PER_CELL<T>, depth, out, stride);
    else
      at = down_columns(to, rows, width, width, out);
  }

  const cell<T>* at;
  long stride;

 private:
  std::vector<float> numbers, arranged;
};

// z: x of tokens [from, to) where kept, not scaled; rows padded with zeros to `width`.
template <class T>
void masked_tile(const T* x, long stride, long d, long from, long to, const Dropout& drop, T* z,
                 long width) {
  for (long i = from; i < to; i++) {
    const T* xi = x + i * stride;
    T* zi = z + (i - from) * width;
    if (drop.on())
      over_kept(drop, drop.row_key(uint32_t(i)), d, [&](long j, auto lanes, vi kept) {
        store(zi + j, kept ? load(xi + j, lanes) : vf{}, lanes);
      });
    else
      memcpy(zi, xi, d * sizeof(T));
    memset(zi + d, 0, (width - d) * sizeof(T));
  }
}

template <class T>
void down(long n, long d, long r, const T* x, long stride, const float* A, Dropout drop, float* u) {
  long width = round_up(d, W), ranks = round_up(r, W);
  float scale = drop.on() ? drop.keep_scale : 1;
  Operand<T> At(A, r, d, true);
  parallel_rows(n, TOKENS, [&](long from, long to) {
    T* z = scratch<T>(0, TOKENS * width);
    float* sums = scratch(1, TOKENS * ranks);
    masked_tile(x, stride, d, from, to, drop, z, width);
    matmul(to - from, r, cells<T>(d), as_cells(z), width / PER_CELL<T>, 1, At.at, At.stride, sums,
           ranks, false);
    for (long i = from; i < to; i++)
      for (long k = 0; k < r; k++) u[i * r + k] = sums[(i - from) * ranks + k] * scale;
  });
}

template <class T>
void up(long n, long d, long r, const float* u, const float* B, float scaling, T* y, long stride) {
  long width = round_up(d, W), ranks = round_up(r, W);
  Operand<T> Bt(B, d, r, true, scaling);
  parallel_rows(n, TOKENS, [&](long from, long to) {
    T* left = scratch<T>(0, TOKENS * ranks);
    float* t = scratch(1, TOKENS * width);
    stored_rows(u + from * r, r, to - from, r, 1, left, ranks);
    matmul(to - from, d, cells<T>(r), as_cells(left), ranks / PER_CELL<T>, 1, Bt.at, Bt.stride, t,
           width, false);
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
  float du_scale = scaling * (drop.on() ? drop.keep_scale : 1);
  Operand<T> A_(A, r, d_in, false), B_(B, d_out, r, false);
  // One private sum per part; the parts are added in order, so results repeat exactly.
  long parts = threads(), part_rows = round_up((n + parts - 1) / parts, TOKENS);
  std::vector<float> sums_A(parts * r * wide_in), sums_B(parts * r * wide_out);
  parallel_for(parts, [&](long part) {
    float* sum_A = sums_A.data() + part * r * wide_in;
    float* sum_B = sums_B.data() + part * r * wide_out;
    T* z = scratch<T>(0, TOKENS * wide_in);
    T* g = scratch<T>(1, TOKENS * wide_out);
    T* inner = scratch<T>(2, TOKENS * ranks);
    float* sums = scratch(3, TOKENS * ranks);
    float* t = scratch(4, TOKENS * wide_in);
    // (rows, r)^T times (rows, width), added to (r, width).
    auto add_outer = [&](const T* left, const T* right, long rows, long width, float* to) {
      const auto* l = down_columns(left, rows, ranks, ranks, scratch<cell<T>>(5, TOKENS * ranks));
      const auto* x = down_columns(right, rows, width, width, scratch<cell<T>>(6, TOKENS * width));
      matmul(r, width, cells<T>(rows), l, 1, ranks, x, width, to, width, true);
    };
    long end = (part + 1) * part_rows < n ? (part + 1) * part_rows : n;
    for (long from = part * part_rows; from < end; from += TOKENS) {
      long to = from + TOKENS < end ? from + TOKENS : end, rows = to - from;
      masked_tile(x, x_stride, d_in, from, to, drop, z, wide_in);
      masked_tile(dy, dy_stride, d_out, from, to, Dropout{}, g, wide_out);
      stored_rows(u + from * r, r, rows, r, scaling, inner, ranks);
      add_outer(inner, g, rows, wide_out, sum_B);
      matmul(rows, r, cells<T>(d_out), as_cells(g), wide_out / PER_CELL<T>, 1, B_.at, B_.stride,
             sums, ranks, false);
      stored_rows(sums, ranks, rows, r, du_scale, inner, ranks);
      add_outer(inner, z, rows, wide_in, sum_A);
      if (!dx) continue;
      matmul(rows, d_in, cells<T>(r), as_cells(inner), ranks / PER_CELL<T>, 1, A_.at, A_.stride, t,
             wide_in, false);
      for (long i = from; i < to; i++) {
        X* out = dx + i * d_in;
        const float* ti = t + (i - from) * wide_in;
        auto add = [&](long j, auto lanes, vf v) {
          store(out + j, load(out + j, lanes) + v, lanes);
        };
        if (drop.on())
          over_kept(drop, drop.row_key(uint32_t(i)), d_in, [&](long j, auto lanes, vi kept) {
            add(j, lanes, kept ? load(ti + j, lanes) : vf{});
          });
        else
          over(d_in, [&](long j, auto lanes) { add(j, lanes, load(ti + j, lanes)); });
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
