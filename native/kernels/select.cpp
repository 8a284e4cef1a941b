#include "select.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace smolvlm {

extern const Kernels kScalar;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx2Vnni, kAvx512, kAvx512Bf16;

namespace {

bool bit(unsigned value, int index) { return value >> index & 1; }

struct Features {
  bool avx2 = false, avx_vnni = false, avx512 = false, bf16 = false;

  Features() {  // Intel's manual, volume 2A, CPUID leaves 1 and 7
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return;  // 27: the system has switched XGETBV on
    unsigned states, high;
    asm volatile("xgetbv" : "=a"(states), "=d"(high) : "c"(0));
    bool fma = bit(c, 12), f16c = bit(c, 29);
    if ((states & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;  // 6: the system saves AVX registers
    unsigned leaves = a;
    avx2 = bit(b, 5) && fma && f16c;
    // F, DQ, BW, VL, VNNI; 0xe0: the system saves AVX-512 registers
    avx512 = avx2 && (states & 0xe0) == 0xe0 && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && bit(c, 11);
    if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
      avx_vnni = avx2 && bit(a, 4);
      bf16 = avx512 && bit(a, 5);
    }
  }
};

}  // namespace
#endif

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  static const Features features;
  if (features.bf16) usable.push_back(&kAvx512Bf16);
  if (features.avx512) usable.push_back(&kAvx512);
  if (features.avx_vnni) usable.push_back(&kAvx2Vnni);
  if (features.avx2) usable.push_back(&kAvx2);
#endif
  usable.push_back(&kScalar);
  return usable;
}

const Kernels& select_kernels(const std::string& wanted) {
  std::string names;
  for (const Kernels* kernels : usable_kernels()) {
    if (wanted.empty() || wanted == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument("instruction set '" + wanted.substr(0, 40) + "' cannot run here; this machine has " + names);
}

}  // namespace smolvlm
