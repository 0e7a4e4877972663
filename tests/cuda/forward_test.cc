// The functions of NVIDIA's libraries that are looked up by name are there. Needs no device.
#include <cublasLt.h>
#include <gmock/gmock.h>
#include <nccl.h>

namespace {

TEST(NvidiaLibraries, AreLoadedWhenTheyAreCalled) {
  EXPECT_STREQ(cublasLtGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED), "CUBLAS_STATUS_NOT_SUPPORTED");
  EXPECT_STREQ(ncclGetErrorString(ncclSuccess), "no error");
}

TEST(NvidiaLibraries, AnswerWithoutADevice) {
  // Every other function needs a handle or a device; these are the first that the worker calls.
  ncclUniqueId id = {};
  EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  cublasLtMatmulPreference_t preference = nullptr;
  EXPECT_EQ(cublasLtMatmulPreferenceCreate(&preference), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasLtMatmulPreferenceDestroy(preference), CUBLAS_STATUS_SUCCESS);
}

}  // namespace
