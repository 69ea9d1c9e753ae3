// Which of the kernel's compiled forms this processor (and its operating system) can run. Compiled for every x86-64.

#include <cstdint>

extern "C" __attribute__((visibility("default"))) int32_t lm_supports(int32_t form) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512cd");
    switch (form) {
        case 1: return avx2;
        case 2: return avx512;
        case 3: return avx512 && __builtin_cpu_supports("avx512bf16");
        default: return 0;
    }
}

// sha256 of the sources that this library was compiled from.
extern "C" __attribute__((visibility("default"))) const char *lm_sources() { return LM_SOURCES; }
