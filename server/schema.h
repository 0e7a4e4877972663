// The tables of shardmax.db, and how an older file becomes a newer one.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "server/database.h"

namespace shardmax {

// What this server reads and writes. `PRAGMA user_version` of a file is its schema version.
int32_t NewestSchemaVersion();

// Brings the file to `version` (at most the newest), step by step in one transaction, so that an interrupted migration
// leaves the old file. FailedPrecondition: the file is of a newer server.
absl::Status Migrate(Database& database, int32_t version = NewestSchemaVersion());

}  // namespace shardmax
