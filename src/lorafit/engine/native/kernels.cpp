// All kernels as one translation unit, compiled once per instruction set.
#include "activation.cpp"
#include "attention.cpp"
#include "decoder.cpp"
#include "lora.cpp"
#include "loss.cpp"
#include "norm.cpp"
#include "product.cpp"

// Raised whenever a signature changes; library.py refuses any other.
LORAFIT_API int lorafit_abi() { return 5; }

LORAFIT_API void lorafit_use_threads(void* fork, void* max_threads) {
  lorafit::runtime().fork = reinterpret_cast<lorafit::Fork>(fork);
  lorafit::runtime().max_threads = reinterpret_cast<lorafit::MaxThreads>(max_threads);
}

LORAFIT_API int lorafit_threads() { return lorafit::threads(); }
