// The C interface. `dtype` is 0 for float32 and 1 for bfloat16 storage; arithmetic is
// float32. Nothing is checked here: lorafit/engine/kernels.py checks every call.
#pragma once

#define LORAFIT_API extern "C" __attribute__((visibility("default")))
