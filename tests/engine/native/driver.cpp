// Runs every kernel on the same numbers and prints the results: `cross.py` compares machines.
#include <cstdio>
#include <string>

#include "kernels.cpp"

namespace {

using lorafit::bf16;
using lorafit::load, lorafit::store;

uint32_t state = 1;
float draw() {  // about normal: the sum of four uniform numbers
  float sum = 0;
  for (int i = 0; i < 4; i++) {
    state = state * 1664525u + 1013904223u;
    sum += float(state >> 8) / (1 << 24) - 0.5f;
  }
  return sum * 1.7f;
}

template <class T>
std::vector<T> numbers(long n) {
  std::vector<T> v(n);
  for (T& x : v) store(&x, lorafit::splat(draw()), 1);
  return v;
}

template <class T>
void print(const char* name, const std::vector<T>& v) {
  std::printf("%s %s", name, sizeof(T) == 4 ? "float32" : "bfloat16");
  for (const T& x : v) std::printf(" %.9g", double(load(&x, 1)[0]));
  std::printf("\n");
}
// Sums, statistics and gradients of factors are float32 beside either storage type.
template <class T>
void print_beside(const char* name, const std::vector<float>& v) {
  print((std::string(name) + (sizeof(T) == 4 ? "" : "-of-bfloat16")).c_str(), v);
}

const uint32_t SEED = 4000000000u, THRESHOLD = 13107;  // p = 0.2
const float KEEP = 65536.f / (65536 - THRESHOLD);

template <class T>
void all(int dtype) {
  state = 7;
  for (int kind = 0; kind < 4; kind++) {
    auto h = numbers<T>(1031), out = h, grad = numbers<T>(1031);
    lorafit_activation(dtype, kind, 0, 1031, h.data(), out.data());
    lorafit_activation(dtype, kind, 1, 1031, h.data(), grad.data());
    print("activation", out);
    print("activation-backward", grad);
  }
  const long rows = 13, H = 77;
  auto y = numbers<T>(rows * H), out = y, dy = y;
  auto residual = numbers<float>(rows * H), d = numbers<float>(rows * H), sum = d;
  auto gamma = numbers<float>(H), beta = numbers<float>(H);
  std::vector<float> xhat(rows * H), rstd(rows);
  lorafit_dropout(dtype, rows, H, y.data(), SEED, THRESHOLD, KEEP, out.data());
  print("dropout", out);
  lorafit_norm_forward(dtype, rows, H, y.data(), residual.data(), nullptr, nullptr, gamma.data(),
                       beta.data(), 1e-5f, SEED, THRESHOLD, KEEP, xhat.data(), rstd.data(),
                       out.data());
  print("norm", out);
  auto d1 = d;
  lorafit_norm_backward(dtype, rows, H, d1.data(), y.data(), xhat.data(), gamma.data(),
                        rstd.data(), SEED, THRESHOLD, KEEP, dy.data());
  print("norm-backward", dy);
  print_beside<T>("norm-residual", d1);
  lorafit_rms_forward(dtype, rows, H, y.data(), residual.data(), gamma.data(), 1e-5f, sum.data(),
                      rstd.data(), out.data());
  print("rms", out);
  lorafit_rms_backward(dtype, rows, H, d.data(), out.data(), sum.data(), gamma.data(), rstd.data(),
                       dy.data());
  print("rms-backward", dy);
  print_beside<T>("rms-residual", d);

  auto heads = numbers<T>(9 * 5 * 22), grad = numbers<T>(9 * 5 * 22);
  auto cosine = numbers<float>(9 * 11), sine = numbers<float>(9 * 11),
       weight = numbers<float>(5 * 22);
  auto before = heads;
  lorafit_head_norm(dtype, 9, 5, 22, heads.data(), 5 * 22, weight.data(), 1e-5f, nullptr);
  print("head-norm", heads);
  lorafit_head_norm(dtype, 9, 5, 22, grad.data(), 5 * 22, weight.data(), 1e-5f, before.data());
  print("head-norm-backward", grad);
  lorafit_rotary(dtype, 9, 5, 11, heads.data(), 5 * 22, cosine.data(), sine.data(), -1);
  print("rotary", heads);

  auto gate_up = numbers<T>(11 * 2 * 53), h = numbers<T>(11 * 53), dgate_up = gate_up;
  lorafit_swiglu(dtype, 1, 11, 53, gate_up.data(), h.data(), dgate_up.data());
  lorafit_swiglu(dtype, 0, 11, 53, gate_up.data(), h.data(), nullptr);
  print("swiglu", h);
  print("swiglu-backward", dgate_up);

  auto logits = numbers<T>(7 * 1031);
  std::vector<int64_t> targets = {0, 1030, 5, 17, 512, 1, 1029};
  std::vector<float> losses(7);
  lorafit_softmax_loss(dtype, 7, 1031, logits.data(), targets.data(), losses.data());
  print("loss-gradient", logits);
  print_beside<T>("loss", losses);

  for (long r : {3, 8, 33}) {
    const long n = 37, d_in = 77, d_out = 45;
    auto x = numbers<T>(n * d_in), z = numbers<T>(n * d_out), dz = numbers<T>(n * d_out);
    auto A = numbers<float>(r * d_in), B = numbers<float>(d_out * r), dA = A, dB = B;
    std::vector<float> u(n * r);
    auto dx = x;
    lorafit_lora_down(dtype, n, d_in, r, x.data(), d_in, A.data(), SEED, THRESHOLD, KEEP, u.data());
    lorafit_lora_up(dtype, n, d_out, r, u.data(), B.data(), 1.7f, z.data(), d_out);
    lorafit_lora_backward(dtype, dtype, n, d_in, d_out, r, dz.data(), d_out, x.data(), d_in,
                          A.data(), B.data(), u.data(), 1.7f, SEED, THRESHOLD, KEEP, dA.data(),
                          dB.data(), dx.data());
    print_beside<T>("lora-down", u);
    print("lora-up", z);
    print_beside<T>("lora-A", dA);
    print_beside<T>("lora-B", dB);
    print("lora-x", dx);
  }

  for (int causal : {0, 1}) {
    const int count = 6, kv = 2, dim = 13;
    const int32_t starts[] = {0, 7, 8, 75};
    const long n = 75, wide = count * dim, narrow = kv * dim;
    auto q = numbers<T>(n * wide), k = numbers<T>(n * narrow), v = numbers<T>(n * narrow);
    auto dout = numbers<T>(n * wide), o = q, dq = q, dk = k, dv = v;
    std::vector<float> lse(n * count);
    LorafitAttention a = {dtype, causal, 0, count, kv, dim, 3, starts, 0.3f, KEEP, SEED,
                          THRESHOLD, wide, narrow, wide, q.data(), k.data(), v.data(), o.data(),
                          lse.data(), dout.data(), dq.data(), dk.data(), dv.data()};
    lorafit_attention(&a, 0);
    lorafit_attention(&a, 1);
    print("attention", o);
    print_beside<T>("attention-lse", lse);
    print("attention-q", dq);
    print("attention-k", dk);
    print("attention-v", dv);
  }
}

}  // namespace

int main() {
  all<float>(0);
  all<bf16>(1);
}
