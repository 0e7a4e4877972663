// Where a rank serves HeadService.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/server_credentials.h"
#include "worker/live/desk.h"

namespace shardmax {

inline constexpr int kDefaultDataPortBase = 7800;

struct DataPlaneOptions {
  std::string listen = "127.0.0.1";  // Host.
  std::optional<int> port_base;      // Rank r serves at this + r; 0: at any port. None: the default, or any if busy.
  ServerTlsOptions tls{.option_prefix = "--data_"};
  std::string tokens_file;  // Empty: everybody may.
  bool insecure = false;    // Listen beyond this machine without TLS.
};

// Serves trainers on threads of gRPC. A stream or call needs a token of a submitter or admin where there is a tokens
// file, which is read again for each.
class DataPlane {
 public:
  // `desk` outlives it. InvalidArgument, NotFound or FailedPrecondition, naming the option: a port beyond 65535, files
  // that cannot be used, an address that other machines can reach without TLS. Unavailable: the port is taken.
  static absl::StatusOr<std::unique_ptr<DataPlane>> Start(const DataPlaneOptions& options, int rank, LiveDesk& desk);
  virtual ~DataPlane() = default;  // Ends streams, after what was sent on them; within seconds.

  virtual int port() const = 0;

 protected:
  DataPlane() = default;
};

// Whether other machines can reach what listens at `host`. NotFound: no such host.
absl::StatusOr<bool> IsLoopbackHost(const std::string& host);

}  // namespace shardmax
