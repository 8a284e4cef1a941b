// AVX-512 with VNNI; compiled twice, with and without bf16 products.
#include "avx512_micro.h"
#include "avx512_integers.h"
#include "avx512_softmax.h"

#include "attention.h"
#include "heads.h"
#include "product.h"

namespace smolvlm {
#ifdef __AVX512BF16__
extern const Kernels kAvx512Bf16 = {"avx512_bf16", 0, narrow, attend, pack_head, pack_integer_head, attend_integers,
        pack_row, rms_norm, layer_norm, to_bf16, from_bf16, rotate};
#else
extern const Kernels kAvx512 = {"avx512", 0, narrow, attend, pack_head, pack_integer_head, attend_integers,
        pack_row, rms_norm, layer_norm, to_bf16, from_bf16, rotate};
#endif
}  // namespace smolvlm
