// The one small matrix product that attention and LoRA are made of.
//
//   C[i][j] (+)= sum_k A[i * row + k * col] * B[k * ldb + j]
//
// A is read one number at a time (any strides, so also transposed), B and C in vectors:
// their rows must be readable up to a multiple of W. Sums stay in registers: a tile is MR
// rows by NV vectors.
#pragma once
#include "vec.h"

namespace lorafit {

template <int MR, int NV>
inline void tile(long K, const float* A, long row, long col, const float* B, long ldb, float* C,
                 long ldc, bool add) {
  vf acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[i][v] = add ? load(C + i * ldc + v * W) : vf{};
  for (long k = 0; k < K; k++) {
    vf b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) b[v] = load(B + k * ldb + v * W);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
      float a = A[i * row + k * col];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) acc[i][v] += a * b[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) store(C + i * ldc + v * W, acc[i][v]);
}

template <int MR, int NV>
inline void column_of_tiles(long M, long K, const float* A, long row, long col, const float* B,
                            long ldb, float* C, long ldc, bool add) {
  long i = 0;
  for (; i + MR <= M; i += MR) tile<MR, NV>(K, A + i * row, row, col, B, ldb, C + i * ldc, ldc, add);
  for (; i + 2 <= M; i += 2) tile<2, NV>(K, A + i * row, row, col, B, ldb, C + i * ldc, ldc, add);
  for (; i < M; i++) tile<1, NV>(K, A + i * row, row, col, B, ldb, C + i * ldc, ldc, add);
}

// `N` is rounded up to whole vectors.
inline void matmul(long M, long N, long K, const float* A, long row, long col, const float* B,
                   long ldb, float* C, long ldc, bool add) {
  // Sixteen sums hide the latency of fused multiply-add; 16 registers hold only half.
#if defined(__AVX512F__) || defined(__aarch64__)
  constexpr int WIDE = 4, ROWS4 = 4, ROWS2 = 8, ROWS1 = 8;
#else
  constexpr int WIDE = 2, ROWS4 = 2, ROWS2 = 4, ROWS1 = 8;
#endif
  long vectors = (N + W - 1) / W, v = 0;
  for (; WIDE == 4 && v + 4 <= vectors; v += 4)
    column_of_tiles<ROWS4, WIDE>(M, K, A, row, col, B + v * W, ldb, C + v * W, ldc, add);
  for (; v + 2 <= vectors; v += 2)
    column_of_tiles<ROWS2, 2>(M, K, A, row, col, B + v * W, ldb, C + v * W, ldc, add);
  for (; v < vectors; v++)
    column_of_tiles<ROWS1, 1>(M, K, A, row, col, B + v * W, ldb, C + v * W, ldc, add);
}

}  // namespace lorafit
