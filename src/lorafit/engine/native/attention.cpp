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

// (rows, d) from strided storage to rows of `width`, zero-padded.
template <class T>
void gather(const T* from, long stride, long rows, long d, T* to, long width) {
  for (long i = 0; i < rows; i++) {
    memcpy(to + i * width, from + i * stride, d * sizeof(T));
    memset(to + i * width + d, 0, (width - d) * sizeof(T));
  }
}

template <class T>
void scatter(const float* from, long width, long rows, long d, float factor, T* to, long stride) {
  for (long i = 0; i < rows; i++)
    over(d, [&](long j, auto lanes) {
      store(to + i * stride + j, load(from + i * width + j, lanes) * factor, lanes);
    });
}

struct Shape {
  long token, length, queries, width, columns;  // width, columns: padded head_dim and length
};

// Names: X are rows of storage T, Xt the cells of X transposed, Xc cells down X's columns.
template <class T>
class Job {
  using C = cell<T>;

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
        T* p = P + i * s.columns;
        long n = seen(from + i);
        lse(head, from + i) = softmax(S + i * s.columns, n, p);
        clear(p, n, keys);
        if (drop.on()) mask(head, from + i, n, p);
      }
      matmul(rows, a.head_dim, cells<T>(keys), as_cells(P), row_cells(s.columns), 1, Vc, s.width,
             O, s.width, false);
      scatter(O, s.width, rows, a.head_dim, kept_scale(),
              at<T>(a.out, a.out_stride, query_row(from), head), a.out_stride);
    });
  }

  void backward() {
    load_keys(true);
    std::fill(dK, dK + s.length * s.width, 0.f);
    std::fill(dV, dV + s.length * s.width, 0.f);
    each_block([&](long head, long from, long rows, long keys) {
      scores(head, from, rows, keys);
      gather(at<const T>(a.dout, a.out_stride, query_row(from), head), a.out_stride, rows,
             a.head_dim, dO, s.width);
      matmul(rows, keys, cells<T>(a.head_dim), as_cells(dO), row_cells(s.width), 1, Vt, s.columns,
             G, s.columns, false);
      for (long i = 0; i < rows; i++) softmax_backward(head, from + i, keys, i);
      long down = cells<T>(rows);
      auto add = [&](const T* probabilities, const T* queries, float* sums) {
        const C* left = down_columns(probabilities, rows, round_up(keys, W), s.columns, PGc);
        const C* right = down_columns(queries, rows, s.width, s.width, QOc);
        matmul(keys, a.head_dim, down, left, 1, s.columns, right, s.width, sums, s.width, true);
      };
      add(P, dO, dV);
      add(dS, Q, dK);
      matmul(rows, a.head_dim, cells<T>(keys), as_cells(dS), row_cells(s.columns), 1, Kc, s.width,
             O, s.width, false);
      scatter(O, s.width, rows, a.head_dim, a.scale,
              at<T>(a.dq, a.q_stride, query_row(from), head), a.q_stride);
    });
    scatter(dK, s.width, s.length, a.head_dim, a.scale,
            at<T>(a.dk, a.kv_stride, s.token, kv_head), a.kv_stride);
    scatter(dV, s.width, s.length, a.head_dim, kept_scale(),
            at<T>(a.dv, a.kv_stride, s.token, kv_head), a.kv_stride);
  }

 private:
  const LorafitAttention& a;
  long sequence, kv_head;
  Dropout drop;
  Shape s;
  T *Q, *P, *dS, *dO;
  C *Kt, *Vt, *PGc, *QOc;
  const C *Kc, *Vc;
  float *S, *G, *O, *dK, *dV;

  template <class U, class Base>
  U* at(Base* base, long stride, long row, long head) const {
    return static_cast<U*>(base) + row * stride + head * a.head_dim;
  }
  long query_row(long query) const { return a.first_only ? sequence : s.token + query; }
  float& lse(long head, long query) const { return a.lse[query_row(query) * a.heads + head]; }
  // How many keys a query sees.
  long seen(long query) const { return a.causal ? query + 1 : s.length; }
  // Probabilities are zeroed where dropped; what is made of them is scaled.
  float kept_scale() const { return drop.on() ? drop.keep_scale : 1.f; }
  static long row_cells(long width) { return width / PER_CELL<T>; }

  void load_keys(bool back) {
    long size = s.length * s.width, block = QUERIES * s.columns;
    T* K = scratch<T>(0, size + W);
    T* V = scratch<T>(1, size + W);
    gather(at<const T>(a.k, a.kv_stride, s.token, kv_head), a.kv_stride, s.length, a.head_dim, K,
           s.width);
    gather(at<const T>(a.v, a.kv_stride, s.token, kv_head), a.kv_stride, s.length, a.head_dim, V,
           s.width);
    Kt = scratch<C>(2, s.width * s.columns);
    transpose(as_cells(K), s.length, row_cells(s.width), cells<T>(a.head_dim), Kt, s.columns);
    Vc = down_columns(V, s.length, s.width, s.width, scratch<C>(3, cells<T>(s.length) * s.width));
    Q = scratch<T>(4, QUERIES * s.width);
    S = scratch(5, block);
    P = scratch<T>(6, block);
    O = scratch(7, QUERIES * s.width);
    if (!back) return;
    Vt = scratch<C>(8, s.width * s.columns);
    transpose(as_cells(V), s.length, row_cells(s.width), cells<T>(a.head_dim), Vt, s.columns);
    Kc = down_columns(K, s.length, s.width, s.width, scratch<C>(9, cells<T>(s.length) * s.width));
    G = scratch(10, block);
    dS = scratch<T>(11, block);
    dO = scratch<T>(12, QUERIES * s.width);
    PGc = scratch<C>(13, block);
    QOc = scratch<C>(14, QUERIES * s.width);
    dK = scratch(15, size);
    dV = scratch(16, size);
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
    gather(at<const T>(a.q, a.q_stride, query_row(from), head), a.q_stride, rows, a.head_dim, Q,
           s.width);
    matmul(rows, keys, cells<T>(a.head_dim), as_cells(Q), row_cells(s.width), 1, Kt, s.columns, S,
           s.columns, false);
  }

  // Row of scores to probabilities, unscaled to p; returns log sum exp.
  float softmax(float* x, long n, T* p) const {
    vf top = splat(x[0]);
    over_padded(n, [&](long j, auto lanes) { top = max(first(load(x + j), lanes, x[0]), top); });
    float m = max(top) * a.scale;
    vf total = {};
    over_padded(n, [&](long j, auto lanes) {
      vf e = first(exp(load(x + j) * a.scale - m), lanes);
      store(x + j, e);
      total += e;
    });
    float t = sum(total), inverse = 1.f / t;
    over_padded(n, [&](long j, auto) { store(p + j, load(x + j) * inverse); });
    return m + std::log(t);
  }

  // Zeros from the end of a row of n, whose last vector is zero-padded, to `keys`.
  static void clear(T* p, long n, long keys) {
    long from = round_up(n, W), to = round_up(keys, W);
    if (from < to) memset(p + from, 0, (to - from) * sizeof(T));
  }

  uint32_t key(long head, long query) const {
    return drop.row_key(uint32_t(query_row(query) * a.heads + head));
  }

  // Zeros where dropped; n is rounded up to whole vectors.
  template <class X>
  void mask(long head, long query, long n, X* p) const {
    over_kept(drop, key(head, query), round_up(n, W), [&](long j, auto lanes, vi kept) {
      store(p + j, kept ? load(p + j, lanes) : vf{}, lanes);
    });
  }

  // Scores and dO V^T of one query to dropout(P) and dS / scale.
  void softmax_backward(long head, long query, long keys, long row) {
    float *x = S + row * s.columns, *g = G + row * s.columns;
    T *p = P + row * s.columns, *ds = dS + row * s.columns;
    long n = seen(query);
    float shift = lse(head, query), kept = kept_scale();
    vf dot = {};
    if (drop.on()) mask(head, query, n, g);
    over_padded(n, [&](long j, auto lanes) {
      vf e = first(exp(load(x + j) * a.scale - shift), lanes);
      vf v = first(load(g + j), lanes) * kept;
      store(x + j, e);
      store(g + j, v);
      dot += e * v;
    });
    float total = sum(dot);
    over_padded(n, [&](long j, auto) {
      vf e = load(x + j);
      store(p + j, e);
      store(ds + j, e * (load(g + j) - total));
    });
    if (drop.on()) mask(head, query, n, p);
    clear(p, n, keys);
    clear(ds, n, keys);
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
