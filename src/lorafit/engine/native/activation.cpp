// Activations of the feed-forward half: a = f(h), and da *= f'(h) in place.
#include "api.h"
#include "parallel.h"
#include "vec.h"

namespace lorafit {
namespace {

constexpr long CHUNK = 4096;
constexpr float SQRT_HALF = 0.70710678f, INV_SQRT_2PI = 0.39894228f;
constexpr float TANH_SLOPE = 0.79788456f, TANH_CUBE = 0.044715f;  // sqrt(2 / pi)

struct GeluErf {
  static vf value(vf x) { return 0.5f * x * (1.f + erf(x * SQRT_HALF, exp(-0.5f * x * x))); }
  static vf slope(vf x) {
    vf gauss = exp(-0.5f * x * x);
    return 0.5f * (1.f + erf(x * SQRT_HALF, gauss)) + x * INV_SQRT_2PI * gauss;
  }
};
struct GeluTanh {
  static vf inner(vf x) { return TANH_SLOPE * (x + TANH_CUBE * x * x * x); }
  static vf value(vf x) { return 0.5f * x * (1.f + tanh(inner(x))); }
  static vf slope(vf x) {
    vf t = tanh(inner(x));
    vf d = TANH_SLOPE * (1.f + 3.f * TANH_CUBE * x * x);
    return 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * d;
  }
};
struct Relu {
  // "not below zero" keeps NaN, as torch does.
  static vf value(vf x) { return x < 0.f ? vf{} : x; }
  static vf slope(vf x) { return x > 0.f ? splat(1.f) : vf{}; }
};
struct Silu {
  static vf value(vf x) { return x * sigmoid(x); }
  static vf slope(vf x) {
    vf s = sigmoid(x);
    return s * (1.f + x * (1.f - s));
  }
};

template <class F, class T>
void forward(long n, const T* h, T* a) {
  parallel_rows(n, CHUNK, [=](long from, long to) {
    over(to - from, [=](long j, auto lanes) {
      store(a + from + j, F::value(load(h + from + j, lanes)), lanes);
    });
  });
}

template <class F, class T>
void backward(long n, const T* h, T* grad) {
  parallel_rows(n, CHUNK, [=](long from, long to) {
    over(to - from, [=](long j, auto lanes) {
      T* g = grad + from + j;
      store(g, load(g, lanes) * F::slope(load(h + from + j, lanes)), lanes);
    });
  });
}

template <class T>
void dispatch(int kind, bool back, long n, const void* h, void* out) {
  const T* in = static_cast<const T*>(h);
  T* to = static_cast<T*>(out);
  switch (kind) {
    case 0: return back ? backward<GeluErf>(n, in, to) : forward<GeluErf>(n, in, to);
    case 1: return back ? backward<GeluTanh>(n, in, to) : forward<GeluTanh>(n, in, to);
    case 2: return back ? backward<Relu>(n, in, to) : forward<Relu>(n, in, to);
    case 3: return back ? backward<Silu>(n, in, to) : forward<Silu>(n, in, to);
  }
}

}  // namespace
}  // namespace lorafit

LORAFIT_API void lorafit_activation(int dtype, int kind, int back, long n, const void* h,
                                    void* out) {
  if (dtype == 0)
    lorafit::dispatch<float>(kind, back, n, h, out);
  else
    lorafit::dispatch<lorafit::bf16>(kind, back, n, h, out);
}
