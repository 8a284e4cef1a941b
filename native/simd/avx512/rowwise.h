// Parts of rows.h, which includes this in the middle, written out for AVX-512.

// rows.h's exp2_approx, of numbers up to 126.
inline __m512 exp2_approx(__m512 x) {
  __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_sub_ps(x, n), p = _mm512_set1_ps(kPower[0]);
  for (int i = 1; i < 5; i++) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kPower[i]));
  return _mm512_scalef_ps(p, n);
}

// x becomes gelu_tanh(x), `count` floats, a multiple of 16.
inline void gelu_line(float* x, int count) {
  const __m512 cubic = _mm512_set1_ps(-2.302208198f * 0.044715f), linear = _mm512_set1_ps(-2.302208198f);  // -2 sqrt(2/pi) log2(e)
  const __m512 one = _mm512_set1_ps(1.0f), most = _mm512_set1_ps(126.0f);
  for (int i = 0; i < count; i += 16) {
    __m512 v = _mm512_loadu_ps(x + i);
    __m512 u = _mm512_mul_ps(v, _mm512_fmadd_ps(_mm512_mul_ps(v, v), cubic, linear));
    __m512 below = _mm512_add_ps(one, exp2_approx(_mm512_min_ps(u, most)));
    __m512 inverse = _mm512_rcp14_ps(below);  // and a step of Newton's
    inverse = _mm512_mul_ps(inverse, _mm512_fnmadd_ps(below, inverse, _mm512_set1_ps(2.0f)));
    _mm512_storeu_ps(x + i, _mm512_mul_ps(v, inverse));
  }
}

// N floats, some blocks, as 8-bit integers with one scale; a scale and a sum are written for each block.
template <int N>
inline void quantize_int8(const float* x, int8_t* out, float* scales, int32_t* neg_sums) {
  __m512 highest = _mm512_setzero_ps();
  for (int i = 0; i < N; i += 16) highest = _mm512_max_ps(highest, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
  float largest = _mm512_reduce_max_ps(highest);
  __m512 inverse = _mm512_set1_ps(largest > 1e-30f ? 127.0f / largest : 0.0f);
  float scale = largest > 1e-30f ? largest / 127.0f : 0.0f;
  for (int block = 0; block < N / kBlock; block++) {
    const float* from = x + block * kBlock;
    __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), inverse));  // to the nearest, ties to even
    __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + 16), inverse));
    _mm_storeu_si128((__m128i*)(out + block * kBlock), _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((__m128i*)(out + block * kBlock + 16), _mm512_cvtepi32_epi8(high));
    scales[block] = scale;
    neg_sums[block] = -_mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
  }
}
