// A parallel loop on torch's own thread pool.
//
// The library does not link an OpenMP runtime: a second one would bring a second pool of
// threads that fights with torch's. Python hands in the entry points of the runtime torch
// has loaded (libgomp's GOMP_parallel, which LLVM's and Intel's runtimes also export).
#pragma once
#include <atomic>
#include <cstddef>
#include <vector>

namespace lorafit {

typedef void (*Fork)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
typedef int (*MaxThreads)();

struct Runtime {
  Fork fork = nullptr;
  MaxThreads max_threads = nullptr;
};
inline Runtime& runtime() {
  static Runtime the;
  return the;
}

inline int threads() {
  const Runtime& r = runtime();
  return r.fork && r.max_threads ? r.max_threads() : 1;
}

// Calls body(i) for every i in [0, n), each index once, on torch's threads.
template <class Body>
void parallel_for(long n, const Body& body) {
  struct Job {
    const Body& body;
    long n;
    std::atomic<long> next{0};
  } job{body, n};
  auto work = [](void* data) {
    Job& job = *static_cast<Job*>(data);
    for (long i; (i = job.next.fetch_add(1, std::memory_order_relaxed)) < job.n;) job.body(i);
  };
  long workers = threads() < n ? threads() : n;
  if (workers > 1)
    runtime().fork(work, &job, unsigned(workers), 0);
  else
    work(&job);
}

// Rows in chunks: body(first, last).
template <class Body>
void parallel_rows(long rows, long chunk, const Body& body) {
  parallel_for((rows + chunk - 1) / chunk, [&](long c) {
    long end = (c + 1) * chunk;
    body(c * chunk, end < rows ? end : rows);
  });
}

// Scratch memory of the calling thread, kept between calls; `slot` tells buffers apart.
template <class T = float>
inline T* scratch(int slot, size_t count) {
  static_assert(alignof(T) <= alignof(float), "the buffers are those of floats");
  static thread_local std::vector<float> buffers[20];
  std::vector<float>& b = buffers[slot];
  size_t floats = (count * sizeof(T) + sizeof(float) - 1) / sizeof(float);
  if (b.size() < floats) b.resize(floats);
  return reinterpret_cast<T*>(b.data());
}

}  // namespace lorafit
