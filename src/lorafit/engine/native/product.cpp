// The product with a frozen weight in bfloat16: y = x W^T + b, sums in float32.
//
// W is laid out once (lorafit/engine/product.py) in panels of 64 outputs, and within a panel
// by pairs of inputs, as the dot-product instruction reads them. oneDNN reaches the same speed
// (0.93 to 1.05 of it on a Zen 5), but keeps 0.7 MB and takes 0.5 to 2 ms for every number of
// rows it has not seen, of which length-sorted batches have dozens.
#include "api.h"
#include "parallel.h"
#include "vec.h"

#ifdef __AVX512BF16__
#include <immintrin.h>

#include <type_traits>
#endif

#ifdef __AVX512BF16__
namespace lorafit {
namespace {

constexpr long PANEL = 64, PRODUCT_ROWS = 48;

template <int MR>
inline void product_tile(long pairs, const bf16* x, long x_stride, const bf16* w, const float* bias,
                         bf16* y, long y_stride, long columns) {
  constexpr int NV = PANEL / W;
  vf acc[MR][NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++)
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) acc[i][v] = load(bias + v * W);
  for (long k = 0; k < pairs; k++) {
    __m512bh b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) memcpy(&b[v], w + 2 * (k * PANEL + v * W), sizeof b[v]);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
      uint32_t pair;
      memcpy(&pair, x + i * x_stride + 2 * k, sizeof pair);
      __m512bh a = bits_of<__m512bh>(splat(pair));
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++)
        acc[i][v] = bits_of<vf>(_mm512_dpbf16_ps(bits_of<__m512>(acc[i][v]), a, b[v]));
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
    for (int v = 0; v < NV; v++) {
      long left = columns - v * W;
      if (left >= W)
        store(y + i * y_stride + v * W, acc[i][v]);
      else if (left > 0)
        store(y + i * y_stride + v * W, acc[i][v], int(left));
    }
}

// One panel of columns for the rows [i, end).
inline void product_panel(long i, long end, long pairs, const bf16* x, long x_stride, const bf16* w,
                          const float* bias, bf16* y, long y_stride, long columns) {
  auto rows = [&](auto size) {
    constexpr int MR = decltype(size)::value;
    for (; i + MR <= end; i += MR)
      product_tile<MR>(pairs, x + i * x_stride, x_stride, w, bias, y + i * y_stride, y_stride,
                       columns);
  };
  rows(std::integral_constant<int, 6>{});
  rows(std::integral_constant<int, 3>{});
  rows(std::integral_constant<int, 1>{});
}

inline void product(long n, long d_in, long d_out, const bf16* x, long x_stride, const bf16* w,
                    const float* bias, bf16* y, long y_stride) {
  long pairs = d_in / 2, panels = (d_out + PANEL - 1) / PANEL;
  long chunks = (n + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
  // Neighbouring jobs share a panel, which stays in the cache for all rows.
  parallel_for(panels * chunks, [&](long job) {
    long panel = job / chunks, column = panel * PANEL, first = job % chunks * PRODUCT_ROWS;
    long last = first + PRODUCT_ROWS < n ? first + PRODUCT_ROWS : n;
    product_panel(first, last, pairs, x, x_stride, w + panel * pairs * 2 * PANEL, bias + column,
                  y + column, y_stride, d_out - column);
  });
}

}  // namespace
}  // namespace lorafit
#endif

// Whether this library has the product; without, the next function does nothing.
LORAFIT_API int lorafit_multiplies() {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}

LORAFIT_API void lorafit_product(long n, long d_in, long d_out, const void* x, long x_stride,
                                 const void* w, const float* bias, void* y, long y_stride) {
#ifdef __AVX512BF16__
  using lorafit::bf16;
  lorafit::product(n, d_in, d_out, static_cast<const bf16*>(x), x_stride,
                   static_cast<const bf16*>(w), bias, static_cast<bf16*>(y), y_stride);
#endif
}
