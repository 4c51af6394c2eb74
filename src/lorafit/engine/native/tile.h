// The one small matrix product that attention and LoRA are made of.
//
//   C[i][j] (+)= sum_k A[i * row + k * col] * B[k * ldb + j]
//
// C is float32. A and B consist of 32-bit cells: a float32 number, or two bfloat16 numbers
// that follow each other along k. A CPU with AVX512-BF16 multiplies and adds both at once.
// A is read one cell at a time (any strides, so also transposed), B and C in vectors: their
// rows must be readable up to a multiple of W. Sums stay in registers: a tile is MR rows by
// NV vectors.
#pragma once
#include <type_traits>

#include "vec.h"

namespace lorafit {

template <class T>
using cell = std::conditional_t<std::is_same_v<T, float>, float, uint32_t>;

// Numbers of storage type T in a cell.
template <class T>
constexpr long PER_CELL = sizeof(cell<T>) / sizeof(T);

// Cells that hold n numbers; the last one is padded with zero.
template <class T>
constexpr long cells(long n) {
  return (n + PER_CELL<T> - 1) / PER_CELL<T>;
}

// One cell; its memory may have been written as numbers.
template <class C>
inline C cell_at(const C* p) {
  C c;
  memcpy(&c, p, sizeof c);
  return c;
}

// Rows of T as rows of cells along the row. `width` is a multiple of W, so never odd.
template <class T>
inline cell<T>* as_cells(T* rows) {
  return reinterpret_cast<cell<T>*>(rows);
}

inline vf multiply_add(vf sum, vf a, vf b) { return sum + a * b; }
inline vf multiply_add(vf sum, vu a, vu b) {
#ifdef __AVX512BF16__
  return bits_of<vf>(
      _mm512_dpbf16_ps(bits_of<__m512>(sum), bits_of<__m512bh>(a), bits_of<__m512bh>(b)));
#else
  sum += bits_of<vf>(a << 16) * bits_of<vf>(b << 16);
  return sum + bits_of<vf>(a & 0xffff0000u) * bits_of<vf>(b & 0xffff0000u);
#endif
}

// The first `width` columns (a multiple of W) of rows with a `stride`, as cells down the
// columns: (cells(rows), stride). Float rows are that already and `to` is not used.
inline const float* down_columns(const float* from, long, long, long, float*) { return from; }
inline const uint32_t* down_columns(const bf16* from, long rows, long width, long stride,
                                    uint32_t* to) {
  for (long i = 0; i < rows; i += 2)
    for (long j = 0; j < width; j += W) {
      vh low, high = {};
      memcpy(&low, from + i * stride + j, sizeof low);
      if (i + 1 < rows) memcpy(&high, from + (i + 1) * stride + j, sizeof high);
      vu both = __builtin_convertvector(low, vu) | __builtin_convertvector(high, vu) << 16;
      memcpy(to + i / 2 * stride + j, &both, sizeof both);
    }
  return to;
}

// (rows, from_width) to (columns, to_width); columns past `rows` are zero.
template <class C>
void transpose(const C* from, long rows, long from_width, long columns, C* to, long to_width) {
  for (long j = 0; j < columns; j++) {
    for (long i = 0; i < rows; i++) to[j * to_width + i] = cell_at(from + i * from_width + j);
    for (long i = rows; i < to_width; i++) to[j * to_width + i] = 0;
  }
}

template <int MR, int NV, class C>
inline void tile(long K, const C* A, long row, long col, const C* B, long ldb, float* out,
                 long ldc, bool add) {
  using V = decltype(load(B));
  vf acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[i][v] = add ? load(out + i * ldc + v * W) : vf{};
  for (long k = 0; k < K; k++) {
    V b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) b[v] = load(B + k * ldb + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      V a = splat(cell_at(A + i * row + k * col));
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) acc[i][v] = multiply_add(acc[i][v], a, b[v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) store(out + i * ldc + v * W, acc[i][v]);
}

template <int MR, int NV, class C>
inline void column_of_tiles(long M, long K, const C* A, long row, long col, const C* B, long ldb,
                            float* out, long ldc, bool add) {
  long i = 0;
  for (; i + MR <= M; i += MR)
    tile<MR, NV>(K, A + i * row, row, col, B, ldb, out + i * ldc, ldc, add);
  for (; i + 2 <= M; i += 2)
    tile<2, NV>(K, A + i * row, row, col, B, ldb, out + i * ldc, ldc, add);
  for (; i < M; i++) tile<1, NV>(K, A + i * row, row, col, B, ldb, out + i * ldc, ldc, add);
}

// `N` is rounded up to whole vectors.
template <class C>
inline void matmul(long M, long N, long K, const C* A, long row, long col, const C* B, long ldb,
                   float* out, long ldc, bool add) {
  // Sixteen sums hide the latency of fused multiply-add; 16 registers hold only half.
#if defined(__AVX512F__) || defined(__aarch64__)
  constexpr int WIDE = 4, ROWS4 = 4, ROWS2 = 8, ROWS1 = 16;
#else
  constexpr int WIDE = 2, ROWS4 = 2, ROWS2 = 4, ROWS1 = 8;
#endif
  long vectors = (N + W - 1) / W, v = 0;
  for (; WIDE == 4 && v + 4 <= vectors; v += 4)
    column_of_tiles<ROWS4, WIDE>(M, K, A, row, col, B + v * W, ldb, out + v * W, ldc, add);
  for (; v + 2 <= vectors; v += 2)
    column_of_tiles<ROWS2, 2>(M, K, A, row, col, B + v * W, ldb, out + v * W, ldc, add);
  for (; v < vectors; v++)
    column_of_tiles<ROWS1, 1>(M, K, A, row, col, B + v * W, ldb, out + v * W, ldc, add);
}

}  // namespace lorafit
