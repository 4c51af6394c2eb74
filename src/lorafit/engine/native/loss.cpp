// Cross-entropy of rows of logits; each row becomes its own gradient.
//
//   loss = logsumexp(x) - x[target],   x <- softmax(x) - onehot(target)
#include <cmath>

#include "api.h"
#include "parallel.h"
#include "vec.h"

namespace lorafit {
namespace {

template <class T>
void softmax_loss(long rows, long n, T* logits, const int64_t* targets, float* losses) {
  parallel_for(rows, [=](long i) {
    T* x = logits + i * n;
    T* at = x + targets[i];
    float wanted = load(at, 1)[0];
    vf top = splat(load(x, 1)[0]);
    over(n, [&](long j, auto lanes) {
      top = max(first(load(x + j, lanes), lanes, wanted), top);
    });
    float m = max(top);
    vf total = {};
    over(n, [&](long j, auto lanes) { total += first(exp(load(x + j, lanes) - m), lanes); });
    float lse = m + std::log(sum(total));
    losses[i] = lse - wanted;
    over(n, [&](long j, auto lanes) { store(x + j, exp(load(x + j, lanes) - lse), lanes); });
    store(at, splat(std::exp(wanted - lse) - 1.f), 1);
  });
}

}  // namespace
}  // namespace lorafit

LORAFIT_API void lorafit_softmax_loss(int dtype, long rows, long n, void* logits,
                                      const int64_t* targets, float* losses) {
  if (dtype == 0)
    lorafit::softmax_loss(rows, n, static_cast<float*>(logits), targets, losses);
  else
    lorafit::softmax_loss(rows, n, static_cast<lorafit::bf16*>(logits), targets, losses);
}
