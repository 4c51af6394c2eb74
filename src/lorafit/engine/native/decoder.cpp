// What the Llama family needs beside attention and LoRA.
//
//   RMS norm:  s = r + y,  out = gamma * s * rstd,  rstd = 1 / sqrt(mean(s^2) + eps)
//   head norm: the same on each head by itself, nothing added (Qwen3's queries and keys)
//   rotary:    (a, b) -> (a cos - b sin, b cos + a sin) on the two halves of each head
//   SwiGLU:    h = silu(gate) * up
#include <cmath>

#include "api.h"
#include "parallel.h"
#include "vec.h"

namespace lorafit {
namespace {

constexpr long DECODER_ROWS = 8;

// Without y the sum is r itself and is not written.
template <class T>
void rms_forward(long rows, long H, const T* y, const float* r, const float* gamma, float eps,
                 float* s, float* rstd, T* out) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++) {
      const float* si = y ? s + i * H : r + i * H;
      vf squares = {};
      over(H, [&](long j, auto lanes) {
        vf v = load(r + i * H + j, lanes);
        if (y) {
          v += load(y + i * H + j, lanes);
          store(s + i * H + j, v, lanes);
        }
        squares += v * v;
      });
      float scale = 1.f / std::sqrt(sum(squares) / H + eps);
      rstd[i] = scale;
      over(H, [&](long j, auto lanes) {
        store(out + i * H + j, load(si + j, lanes) * scale * load(gamma + j, lanes), lanes);
      });
    }
  });
}

// d += gradient through the norm; dy = d, in storage: that of the branch before it.
template <class T>
void rms_backward(long rows, long H, float* d, const T* dout, const float* s, const float* gamma,
                  const float* rstd, T* dy) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++) {
      const T* gi = dout + i * H;
      const float* si = s + i * H;
      float scale = rstd[i];
      vf dot = {};
      over(H, [&](long j, auto lanes) {
        dot += load(gi + j, lanes) * load(gamma + j, lanes) * load(si + j, lanes);
      });
      float mean = sum(dot) / H * scale * scale;
      over(H, [&](long j, auto lanes) {
        vf g = load(gi + j, lanes) * load(gamma + j, lanes);
        vf v = load(d + i * H + j, lanes) + (g - load(si + j, lanes) * mean) * scale;
        store(d + i * H + j, v, lanes);
        store(dy + i * H + j, v, lanes);
      });
    }
  });
}

// In place on the first `heads` heads of each row; gamma (heads, d).
template <class T>
void head_norm(long rows, long heads, long d, T* x, long stride, const float* gamma, float eps) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++)
      for (long h = 0; h < heads; h++) {
        T* xi = x + i * stride + h * d;
        vf squares = {};
        over(d, [&](long j, auto lanes) {
          vf v = load(xi + j, lanes);
          squares += v * v;
        });
        float scale = 1.f / std::sqrt(sum(squares) / d + eps);
        over(d, [&](long j, auto lanes) {
          store(xi + j, load(xi + j, lanes) * scale * load(gamma + h * d + j, lanes), lanes);
        });
      }
  });
}

// The gradient of the output becomes that of the input, in place; x: the input (rows, heads, d).
template <class T>
void head_norm_backward(long rows, long heads, long d, T* grad, long stride, const float* gamma,
                        float eps, const T* x) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++)
      for (long h = 0; h < heads; h++) {
        T* gi = grad + i * stride + h * d;
        const T* xi = x + (i * heads + h) * d;
        const float* w = gamma + h * d;
        vf squares = {}, dot = {};
        over(d, [&](long j, auto lanes) {
          vf v = load(xi + j, lanes);
          squares += v * v;
          dot += v * load(gi + j, lanes) * load(w + j, lanes);
        });
        float scale = 1.f / std::sqrt(sum(squares) / d + eps);
        float mean = sum(dot) / d * scale * scale;
        over(d, [&](long j, auto lanes) {
          vf g = load(gi + j, lanes) * load(w + j, lanes);
          store(gi + j, (g - load(xi + j, lanes) * mean) * scale, lanes);
        });
      }
  });
}

// In place on the first `heads` heads of each row; sign -1 turns back.
template <class T>
void rotary(long rows, long heads, long half, T* x, long stride, const float* cosine,
            const float* sine, float sign) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++)
      for (long h = 0; h < heads; h++) {
        T* a = x + i * stride + h * 2 * half;
        T* b = a + half;
        over(half, [=](long j, auto lanes) {
          vf c = load(cosine + i * half + j, lanes), s = load(sine + i * half + j, lanes) * sign;
          vf u = load(a + j, lanes), v = load(b + j, lanes);
          store(a + j, u * c - v * s, lanes);
          store(b + j, v * c + u * s, lanes);
        });
      }
  });
}

// gate_up (rows, 2 width): gates, then ups.
template <class T>
void swiglu_forward(long rows, long width, const T* gate_up, T* h) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++) {
      const T* g = gate_up + 2 * i * width;
      over(width, [=](long j, auto lanes) {
        vf x = load(g + j, lanes);
        store(h + i * width + j, x * sigmoid(x) * load(g + width + j, lanes), lanes);
      });
    }
  });
}

template <class T>
void swiglu_backward(long rows, long width, const T* gate_up, const T* dh, T* dgate_up) {
  parallel_rows(rows, DECODER_ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++) {
      const T* g = gate_up + 2 * i * width;
      T* dg = dgate_up + 2 * i * width;
      over(width, [=](long j, auto lanes) {
        vf x = load(g + j, lanes), up = load(g + width + j, lanes);
        vf d = load(dh + i * width + j, lanes), s = sigmoid(x);
        store(dg + j, d * up * s * (1.f + x * (1.f - s)), lanes);
        store(dg + width + j, d * x * s, lanes);
      });
    }
  });
}

}  // namespace
}  // namespace lorafit

namespace {
// Calls body with a null pointer of the storage type.
template <class Body>
void by_dtype(int dtype, Body body) {
  if (dtype == 0)
    body(static_cast<float*>(nullptr));
  else
    body(static_cast<lorafit::bf16*>(nullptr));
}
}  // namespace

LORAFIT_API void lorafit_rms_forward(int dtype, long rows, long H, const void* y, const float* r,
                                     const float* gamma, float eps, float* s, float* rstd,
                                     void* out) {
  by_dtype(dtype, [=](auto* t) {
    using T = decltype(t);
    lorafit::rms_forward(rows, H, T(const_cast<void*>(y)), r, gamma, eps, s, rstd, T(out));
  });
}

LORAFIT_API void lorafit_rms_backward(int dtype, long rows, long H, float* d, void* dout,
                                      const float* s, const float* gamma, const float* rstd,
                                      void* dy) {
  by_dtype(dtype, [=](auto* t) {
    using T = decltype(t);
    lorafit::rms_backward(rows, H, d, T(dout), s, gamma, rstd, T(dy));
  });
}

// Forward without x, backward with it.
LORAFIT_API void lorafit_head_norm(int dtype, long rows, long heads, long d, void* y, long stride,
                                   const float* gamma, float eps, void* x) {
  by_dtype(dtype, [=](auto* t) {
    using T = decltype(t);
    if (x)
      lorafit::head_norm_backward(rows, heads, d, T(y), stride, gamma, eps, T(x));
    else
      lorafit::head_norm(rows, heads, d, T(y), stride, gamma, eps);
  });
}

LORAFIT_API void lorafit_rotary(int dtype, long rows, long heads, long half, void* x, long stride,
                                const float* cosine, const float* sine, float sign) {
  by_dtype(dtype, [=](auto* t) {
    lorafit::rotary(rows, heads, half, decltype(t)(x), stride, cosine, sine, sign);
  });
}

LORAFIT_API void lorafit_swiglu(int dtype, int back, long rows, long width, void* gate_up,
                                void* h, void* dgate_up) {
  by_dtype(dtype, [=](auto* t) {
    using T = decltype(t);
    if (back)
      lorafit::swiglu_backward(rows, width, T(gate_up), T(h), T(dgate_up));
    else
      lorafit::swiglu_forward(rows, width, T(gate_up), T(h));
  });
}
