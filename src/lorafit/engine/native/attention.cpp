// Softmax attention over packed sequences of different lengths, forward and backward.
//
//   P = softmax(scale * Q K^T [+ causal mask]),  O = dropout(P) V
//   with G = dropout'(dO V^T):  dS = P * (G - rowsum(P * G)),
//   dV = dropout(P)^T dO,  dQ = scale * dS K,  dK = scale * dS^T Q
//
// One job is one sequence and one key/value head with its group of query heads; queries
// are taken in blocks, so scratch memory grows with the length, not with its square.
// Forward stores the log-sum-exp of each row; P and the dropout mask are computed again in
// backward. With `first_only` there is one query per sequence, its first token, and q, out,
// dout and dq have one row per sequence.
#include <algorithm>
#include <cmath>

#include "api.h"
#include "dropout.h"
#include "parallel.h"
#include "tile.h"

struct LorafitAttention {
  int32_t dtype, causal, first_only, heads, kv_heads, head_dim;
  int64_t sequences;
  const int32_t* starts;  // (sequences + 1,): first token of each sequence, then the total
  float scale, keep_scale;
  uint32_t seed, threshold;
  int64_t q_stride, kv_stride, out_stride;  // elements between tokens
  const void *q, *k, *v;
  void* out;
  float* lse;        // (query rows, heads)
  const void* dout;  // from here on: backward only
  void *dq, *dk, *dv;
};

namespace lorafit {
namespace {

constexpr long QUERIES = 32;

// (rows, d) from strided storage to float32 with rows of `width`, zero-padded.
template <class T>
void unpack(const T* from, long stride, long rows, long d, float factor, float* to, long width) {
  for (long i = 0; i < rows; i++) {
    over(d, [&](long j, auto lanes) {
      store(to + i * width + j, load(from + i * stride + j, lanes) * factor, lanes);
    });
    for (long j = d; j < width; j++) to[i * width + j] = 0;
  }
}

template <class T>
void pack(const float* from, long width, long rows, long d, float factor, T* to, long stride) {
  for (long i = 0; i < rows; i++)
    over(d, [&](long j, auto lanes) {
      store(to + i * stride + j, load(from + i * width + j, lanes) * factor, lanes);
    });
}

// (rows, width) to (d, columns); columns past `rows` are zero.
void transpose(const float* from, long rows, long width, long d, float* to, long columns) {
  for (long j = 0; j < d; j++) {
    for (long i = 0; i < rows; i++) to[j * columns + i] = from[i * width + j];
    for (long i = rows; i < columns; i++) to[j * columns + i] = 0;
  }
}

struct Shape {
  long token, length, queries, width, columns;  // width, columns: padded head_dim and length
};

template <class T>
class Job {
 public:
  Job(const LorafitAttention& a, long sequence, long kv_head)
      : a(a), sequence(sequence), kv_head(kv_head), drop{a.seed, a.threshold, a.keep_scale} {
    s.token = a.starts[sequence];
    s.length = a.starts[sequence + 1] - s.token;
    s.queries = a.first_only ? 1 : s.length;
    s.width = round_up(a.head_dim, W);
    s.columns = round_up(s.length, 32);
  }

  void forward() {
    load_keys(false);
    each_block([&](long head, long from, long rows, long keys) {
      scores(head, from, rows, keys);
      for (long i = 0; i < rows; i++) {
        lse(head, from + i) = softmax(P + i * s.columns, seen(from + i));
        clear(P + i * s.columns, seen(from + i), keys);
        if (drop.on()) mask(head, from + i, seen(from + i), P + i * s.columns);
      }
      matmul(rows, a.head_dim, keys, P, s.columns, 1, V, s.width, O, s.width, false);
      pack(O, s.width, rows, a.head_dim, 1.f,
           at<T>(a.out, a.out_stride, query_row(from), head), a.out_stride);
    });
  }

  void backward() {
    load_keys(true);
    std::fill(dK, dK + s.length * s.width, 0.f);
    std::fill(dV, dV + s.length * s.width, 0.f);
    each_block([&](long head, long from, long rows, long keys) {
      scores(head, from, rows, keys);
      unpack(at<const T>(a.dout, a.out_stride, query_row(from), head), a.out_stride, rows,
             a.head_dim, 1.f, dO, s.width);
      matmul(rows, keys, a.head_dim, dO, s.width, 1, Vt, s.columns, G, s.columns, false);
      for (long i = 0; i < rows; i++) softmax_backward(head, from + i, keys, i);
      matmul(keys, a.head_dim, rows, P, 1, s.columns, dO, s.width, dV, s.width, true);
      matmul(keys, a.head_dim, rows, G, 1, s.columns, Q, s.width, dK, s.width, true);
      matmul(rows, a.head_dim, keys, G, s.columns, 1, K, s.width, O, s.width, false);
      pack(O, s.width, rows, a.head_dim, a.scale,
           at<T>(a.dq, a.q_stride, query_row(from), head), a.q_stride);
    });
    pack(dK, s.width, s.length, a.head_dim, 1.f, at<T>(a.dk, a.kv_stride, s.token, kv_head),
         a.kv_stride);
    pack(dV, s.width, s.length, a.head_dim, 1.f, at<T>(a.dv, a.kv_stride, s.token, kv_head),
         a.kv_stride);
  }

 private:
  const LorafitAttention& a;
  long sequence, kv_head;
  Dropout drop;
  Shape s;
  float *K, *V, *Kt, *Vt, *Q, *P, *O, *G, *dO, *dK, *dV;

  template <class U, class Base>
  U* at(Base* base, long stride, long row, long head) const {
    return static_cast<U*>(base) + row * stride + head * a.head_dim;
  }
  long query_row(long query) const { return a.first_only ? sequence : s.token + query; }
  float& lse(long head, long query) const { return a.lse[query_row(query) * a.heads + head]; }
  // How many keys a query sees.
  long seen(long query) const { return a.causal ? query + 1 : s.length; }

  void load_keys(bool back) {
    long cells = s.length * s.width, tail = W;
    K = scratch(0, cells + tail);
    V = scratch(1, cells + tail);
    Kt = scratch(2, s.width * s.columns);
    Q = scratch(3, QUERIES * s.width);
    P = scratch(4, QUERIES * s.columns);
    O = scratch(5, QUERIES * s.width);
    unpack(at<const T>(a.k, a.kv_stride, s.token, kv_head), a.kv_stride, s.length, a.head_dim, 1.f,
           K, s.width);
    unpack(at<const T>(a.v, a.kv_stride, s.token, kv_head), a.kv_stride, s.length, a.head_dim, 1.f,
           V, s.width);
    transpose(K, s.length, s.width, a.head_dim, Kt, s.columns);
    if (!back) return;
    Vt = scratch(6, s.width * s.columns);
    G = scratch(7, QUERIES * s.columns);
    dO = scratch(8, QUERIES * s.width);
    dK = scratch(9, cells);
    dV = scratch(10, cells);
    transpose(V, s.length, s.width, a.head_dim, Vt, s.columns);
  }

  // body(head, first query, queries, keys that any of them sees)
  template <class Body>
  void each_block(Body body) {
    long group = a.heads / a.kv_heads;
    for (long head = kv_head * group; head < (kv_head + 1) * group; head++)
      for (long from = 0; from < s.queries; from += QUERIES) {
        long rows = std::min(QUERIES, s.queries - from);
        body(head, from, rows, seen(from + rows - 1));
      }
  }

  void scores(long head, long from, long rows, long keys) {
    unpack(at<const T>(a.q, a.q_stride, query_row(from), head), a.q_stride, rows, a.head_dim,
           a.scale, Q, s.width);
    matmul(rows, keys, a.head_dim, Q, s.width, 1, Kt, s.columns, P, s.columns, false);
  }

  // Row of scores to probabilities, in place; returns log sum exp.
  static float softmax(float* p, long n) {
    vf top = splat(p[0]);
    over_padded(n, [&](long j, auto lanes) { top = max(first(load(p + j), lanes, p[0]), top); });
    float m = max(top);
    vf total = {};
    over_padded(n, [&](long j, auto lanes) {
      vf e = first(exp(load(p + j) - m), lanes);
      store(p + j, e);
      total += e;
    });
    float t = sum(total), inverse = 1.f / t;
    over_padded(n, [&](long j, auto) { store(p + j, load(p + j) * inverse); });
    return m + std::log(t);
  }

  // Zeros from the end of a row of n, whose last vector is zero-padded, to `keys`.
  static void clear(float* p, long n, long keys) {
    for (long j = round_up(n, W); j < keys; j += W) store(p + j, vf{});
  }

  uint32_t key(long head, long query) const {
    return drop.row_key(uint32_t(query_row(query) * a.heads + head));
  }

  void mask(long head, long query, long n, float* p) const {
    over_kept(drop, key(head, query), round_up(n, W), [&](long j, auto lanes, vi kept) {
      vf v = load(p + j, lanes) * drop.keep_scale;
      store(p + j, kept ? v : vf{}, lanes);
    });
  }

  // Scores and dO V^T of one query to dropout(P) (in P) and dS (in G).
  void softmax_backward(long head, long query, long keys, long row) {
    float *p = P + row * s.columns, *g = G + row * s.columns;
    long n = seen(query);
    float shift = lse(head, query);
    vf dot = {};
    if (drop.on()) mask(head, query, n, g);
    over_padded(n, [&](long j, auto lanes) {
      vf e = first(exp(load(p + j) - shift), lanes);
      store(p + j, e);
      dot += e * load(g + j);
    });
    float total = sum(dot);
    over_padded(n, [&](long j, auto) { store(g + j, load(p + j) * (load(g + j) - total)); });
    if (drop.on()) mask(head, query, n, p);
    clear(p, n, keys);
    clear(g, n, keys);
  }
};

template <class T>
void run(const LorafitAttention& a, bool back) {
  parallel_for(a.sequences * a.kv_heads, [&](long job) {
    Job<T> j(a, job / a.kv_heads, job % a.kv_heads);
    if (back)
      j.backward();
    else
      j.forward();
  });
}

}  // namespace
}  // namespace lorafit

LORAFIT_API void lorafit_attention(const LorafitAttention* a, int back) {
  if (a->dtype == 0)
    lorafit::run<float>(*a, back);
  else
    lorafit::run<lorafit::bf16>(*a, back);
}
