#include "simd/dispatch.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace smolvlm {

extern const Kernels kScalar;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx2Vnni, kAvx512, kAvx512Bf16, kAmx, kAmxEmulated;

namespace {

bool bit(unsigned value, int index) { return value >> index & 1; }

// Linux wants to be asked before a process uses the large registers of AMX.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

struct Features {
  bool avx2 = false, avx_vnni = false, avx512 = false, bf16 = false, amx = false;

  Features() {  // Intel's manual, volume 2A, CPUID leaves 1 and 7
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return;  // 27: the system has switched XGETBV on
    unsigned states, high;
    asm volatile("xgetbv" : "=a"(states), "=d"(high) : "c"(0));
    bool fma = bit(c, 12), f16c = bit(c, 29);
    if ((states & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;  // 6: the system saves AVX registers
    unsigned leaves = a;
    bool tiles = bit(d, 22) && bit(d, 24) && (states & 0x60000) == 0x60000;  // AMX-BF16, AMX-TILE; saved by the system
    avx2 = bit(b, 5) && fma && f16c;
    // F, DQ, BW, VL, VNNI; 0xe0: the system saves AVX-512 registers
    avx512 = avx2 && (states & 0xe0) == 0xe0 && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && bit(c, 11);
    if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
      avx_vnni = avx2 && bit(a, 4);
      bf16 = avx512 && bit(a, 5);
      amx = bf16 && tiles && may_use_tiles();
    }
  }
};

}  // namespace
#elif defined(__aarch64__)
extern const Kernels kNeon, kNeonDotprod, kNeonBf16;

namespace {

#if defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

struct Features {
  bool dotprod = false, matrix = false;

  Features() {
#if defined(__linux__)  // the kernel's arch/arm64/include/uapi/asm/hwcap.h; older C libraries lack the names
    constexpr unsigned long kDotprod = 1ul << 20, kI8mm = 1ul << 13, kBf16 = 1ul << 14;
    unsigned long more = getauxval(AT_HWCAP2);
    dotprod = getauxval(AT_HWCAP) & kDotprod;
    matrix = dotprod && (more & kI8mm) && (more & kBf16);
#elif defined(__APPLE__)
    dotprod = has("hw.optional.arm.FEAT_DotProd");
    matrix = dotprod && has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16");
#endif
  }
};

}  // namespace
#endif

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__)
  static const Features features;
  if (features.amx) usable.push_back(&kAmx);
  if (features.bf16) usable.push_back(&kAvx512Bf16);
  if (features.avx512) usable.push_back(&kAvx512);
  if (features.avx_vnni) usable.push_back(&kAvx2Vnni);
  if (features.avx2) usable.push_back(&kAvx2);
#elif defined(__aarch64__)
  static const Features features;
  if (features.matrix) usable.push_back(&kNeonBf16);
  if (features.dotprod) usable.push_back(&kNeonDotprod);
  usable.push_back(&kNeon);
#endif
  usable.push_back(&kScalar);
  return usable;
}

const Kernels& select_kernels(const std::string& wanted) {
  std::string names;
#if defined(__x86_64__)
  if (wanted == kAmxEmulated.name && Features().bf16) return kAmxEmulated;
#endif
  for (const Kernels* kernels : usable_kernels()) {
    if (wanted == kernels->name || wanted.empty()) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument("instruction set '" + wanted.substr(0, 40) + "' cannot run here; this machine has " + names);
}

}  // namespace smolvlm
