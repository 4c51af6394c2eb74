// Dropout, residual and layer normalization in one pass over a row, and back.
//
//   z = r + dropout(y),  xhat = (z - mean z) / sqrt(var z + eps),  out = gamma * xhat + beta
//
// The residual r is `res`, or `res_gamma * res + res_beta` when those are given: then
// `res` is the xhat of the previous normalization, whose output need not be stored twice.
#include <cmath>

#include "api.h"
#include "dropout.h"
#include "parallel.h"

namespace lorafit {
namespace {

constexpr long ROWS = 8;

template <class T>
void forward(long rows, long H, const T* y, const float* res, const float* res_gamma,
             const float* res_beta, const float* gamma, const float* beta, float eps, Dropout drop,
             float* xhat, float* rstd, T* out) {
  parallel_rows(rows, ROWS, [=](long from, long to) {
    float* z = scratch(0, H);
    for (long i = from; i < to; i++) {
      const T* yi = y + i * H;
      const float* ri = res + i * H;
      vf total = {};
      auto add = [&](long j, auto lanes, vf value) {
        vf r = load(ri + j, lanes);
        if (res_gamma) r = r * load(res_gamma + j, lanes) + load(res_beta + j, lanes);
        vf v = value + r;
        store(z + j, v, lanes);
        total += first(v, lanes);
      };
      if (drop.on())
        over_kept(drop, drop.row_key(uint32_t(i)), H, [&](long j, auto lanes, vi kept) {
          vf v = load(yi + j, lanes) * drop.keep_scale;
          add(j, lanes, kept ? v : vf{});
        });
      else
        over(H, [&](long j, auto lanes) { add(j, lanes, load(yi + j, lanes)); });
      float mean = sum(total) / H;
      vf squares = {};
      over(H, [&](long j, auto lanes) {
        vf d = first(load(z + j, lanes) - mean, lanes);
        squares += d * d;
      });
      float r = 1.f / std::sqrt(sum(squares) / H + eps);
      rstd[i] = r;
      over(H, [&](long j, auto lanes) {
        vf x = (load(z + j, lanes) - mean) * r;
        store(xhat + i * H + j, x, lanes);
        store(out + i * H + j, x * load(gamma + j, lanes) + load(beta + j, lanes), lanes);
      });
    }
  });
}

// d (in): gradient of out, to which `extra` is added; d (out): gradient of r. dy: of y.
template <class T>
void backward(long rows, long H, float* d, const T* extra, const float* xhat, const float* gamma,
              const float* rstd, Dropout drop, T* dy) {
  parallel_rows(rows, ROWS, [=](long from, long to) {
    float* e = scratch(0, H);
    for (long i = from; i < to; i++) {
      float* di = d + i * H;
      const float* xi = xhat + i * H;
      vf sum1 = {}, sum2 = {};
      over(H, [&](long j, auto lanes) {
        vf g = load(di + j, lanes);
        if (extra) g += load(extra + i * H + j, lanes);
        g *= load(gamma + j, lanes);
        store(e + j, g, lanes);
        sum1 += g;  // lanes past the row are loaded as zeros
        sum2 += g * load(xi + j, lanes);
      });
      float mean1 = sum(sum1) / H, mean2 = sum(sum2) / H, r = rstd[i];
      auto gradient = [&](long j, auto lanes) {
        vf v = (load(e + j, lanes) - mean1 - load(xi + j, lanes) * mean2) * r;
        store(di + j, v, lanes);
        return v;
      };
      T* yi = dy + i * H;
      if (drop.on())
        over_kept(drop, drop.row_key(uint32_t(i)), H, [&](long j, auto lanes, vi kept) {
          vf v = gradient(j, lanes) * drop.keep_scale;
          store(yi + j, kept ? v : vf{}, lanes);
        });
      else
        over(H, [&](long j, auto lanes) { store(yi + j, gradient(j, lanes), lanes); });
    }
  });
}

// out = x where kept, times keep_scale; also its own backward.
template <class T>
void dropout(long rows, long H, const T* x, Dropout drop, T* out) {
  parallel_rows(rows, ROWS, [=](long from, long to) {
    for (long i = from; i < to; i++)
      over_kept(drop, drop.row_key(uint32_t(i)), H, [=](long j, auto lanes, vi kept) {
        vf v = load(x + i * H + j, lanes) * drop.keep_scale;
        store(out + i * H + j, kept ? v : vf{}, lanes);
      });
  });
}

}  // namespace
}  // namespace lorafit

using lorafit::bf16;

LORAFIT_API void lorafit_norm_forward(int dtype, long rows, long H, const void* y,
                                      const float* res, const float* res_gamma,
                                      const float* res_beta, const float* gamma,
                                      const float* beta, float eps, uint32_t seed,
                                      uint32_t threshold, float keep_scale, float* xhat,
                                      float* rstd, void* out) {
  lorafit::Dropout drop{seed, threshold, keep_scale};
  if (dtype == 0)
    lorafit::forward(rows, H, static_cast<const float*>(y), res, res_gamma, res_beta, gamma, beta,
                     eps, drop, xhat, rstd, static_cast<float*>(out));
  else
    lorafit::forward(rows, H, static_cast<const bf16*>(y), res, res_gamma, res_beta, gamma, beta,
                     eps, drop, xhat, rstd, static_cast<bf16*>(out));
}

LORAFIT_API void lorafit_norm_backward(int dtype, long rows, long H, float* d, const void* extra,
                                       const float* xhat, const float* gamma, const float* rstd,
                                       uint32_t seed, uint32_t threshold, float keep_scale,
                                       void* dy) {
  lorafit::Dropout drop{seed, threshold, keep_scale};
  if (dtype == 0)
    lorafit::backward(rows, H, d, static_cast<const float*>(extra), xhat, gamma, rstd, drop,
                      static_cast<float*>(dy));
  else
    lorafit::backward(rows, H, d, static_cast<const bf16*>(extra), xhat, gamma, rstd, drop,
                      static_cast<bf16*>(dy));
}

LORAFIT_API void lorafit_dropout(int dtype, long rows, long H, const void* x, uint32_t seed,
                                 uint32_t threshold, float keep_scale, void* out) {
  lorafit::Dropout drop{seed, threshold, keep_scale};
  if (dtype == 0)
    lorafit::dropout(rows, H, static_cast<const float*>(x), drop, static_cast<float*>(out));
  else
    lorafit::dropout(rows, H, static_cast<const bf16*>(x), drop, static_cast<bf16*>(out));
}
