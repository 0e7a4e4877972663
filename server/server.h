// A whole shardmax-server, in this process.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/options.h"

namespace shardmax {

class Server {
 public:
  // Takes the state folder, reads the jobs, listens. Errors name the option or file that is wrong.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);
  // Shuts down.
  virtual ~Server() = default;

  virtual const std::string& listen() const = 0;   // "127.0.0.1:7700", with the port that was chosen.
  virtual const std::string& metrics() const = 0;  // As above.

  // Reads the tokens file again, and ends the streams of tokens that are gone. On an error nothing changes.
  virtual absl::Status ReloadTokens() = 0;

  // Ends all streams with UNAVAILABLE, lets calls end, writes what is not written. Jobs go on. Again: no effect.
  virtual void Shutdown() = 0;
};

}  // namespace shardmax
