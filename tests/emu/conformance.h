/* conformance.h - the shared part of the conformance program (conformance.cu says what it
 * does).
 */
#ifndef TESTS_EMU_CONFORMANCE_H
#define TESTS_EMU_CONFORMANCE_H

#include "kernels/cuda/ptx.cuh"

/* Ends the program when `call` fails. */
void conform_check(cudaError_t error, const char *call, int line);
#define CHECK(call) conform_check((call), #call, __LINE__)

/* The stream of all cases. */
extern cudaStream_t conform_stream;

/* Bytes from a fixed seed; small integers -4 .. 4 as bf16, f16 or e4m3 (exact in any order of
 * summing), and as reals in -1 .. 1. */
uint32_t conform_random();
enum conform_type { CONFORM_BF16, CONFORM_F16, CONFORM_E4M3 };
uint32_t conform_integer(int type, float *value);
uint32_t conform_real(float *value); /* bf16 */

/* A device array of n bytes with a copy of `from` (NULL: bytes 0xee); downloaded; freed. */
void *conform_upload(const void *from, size_t n);
void conform_download(void *to, const void *device, size_t n);
void conform_free(void *device);

/* Hands over one result: n bytes that must be equal everywhere, or n / 4 floats that may differ
 * by `tolerance` (> 0). want: by definition, computed on the host. */
void conform_record(const char *name, const void *got, const void *want, size_t n,
                    float tolerance);

/* conformance_data.cu: in and want are 64 KiB. */
void conform_data_90(const unsigned char *in, unsigned char *want);

/* conformance_matrix.cu */
void conform_matrix_80();
void conform_matrix_90();

#endif
