// AVX-512 with VNNI; compiled twice, with and without bf16 products.
#include "simd/avx512/microkernel.h"

#include "simd/avx512/int8_attention.h"
#include "simd/kernel_table.h"

namespace smolvlm {
#ifdef __AVX512BF16__
extern const Kernels kAvx512Bf16 = with_int8_attention(kernels_of<Avx512>("avx512_bf16"), pack_head_int8, attend_int8);
#else
extern const Kernels kAvx512 = with_int8_attention(kernels_of<Avx512>("avx512"), pack_head_int8, attend_int8);
#endif
}  // namespace smolvlm
