// SQLite with statuses: a connection, and statements that are prepared once.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

// One connection to a database file in WAL mode, where a commit that returned is on the disk. Not thread-safe.
class Database {
 public:
  // Opens the file, or makes it for its user alone. Errors name the path.
  static absl::StatusOr<Database> Open(const std::string& path);

  const std::string& path() const { return path_; }

  // Runs statements that give no rows.
  absl::Status Execute(const std::string& sql);

  // The row id of the newest insert.
  int64_t LastInsertId() const { return sqlite3_last_insert_rowid(connection_.get()); }

  // The code of the newest error as a status: full disk ResourceExhausted, damage DataLoss, else Unavailable.
  absl::Status LastError(const std::string& what) const;

 private:
  friend class Query;
  struct CloseConnection {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
  };
  struct FinalizeStatement {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

  Database(std::string path, sqlite3* connection) : path_(std::move(path)), connection_(connection) {}
  sqlite3_stmt* Prepared(const char* sql);  // Null: see LastError.

  std::string path_;
  std::unique_ptr<sqlite3, CloseConnection> connection_;
  std::map<std::string, Statement, std::less<>> statements_;
};

// One run of a prepared statement:
//   Query query(db, "SELECT a FROM t WHERE b = ?");
//   query.Bind(b);
//   while (query.Next()) use(query.Int(0));
//   return query.status();
// One Query of the same text at a time.
class Query {
 public:
  Query(Database& database, const char* sql);
  ~Query();
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  // Values of the parameters from left to right: integers, text (std::string) or Blob.
  template <typename... Values>
  void Bind(const Values&... values) {
    (BindNext(values), ...);
  }
  struct Blob {
    const std::string& bytes;
  };

  // Whether there is a (next) row. False at the end, and on an error, which status() then holds.
  bool Next();
  // Runs a statement without rows to its end.
  absl::Status Run();
  const absl::Status& status() const { return status_; }

  int64_t Int(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string Text(int column) const;  // Also blobs.

 private:
  void BindNext(int64_t value);
  void BindNext(const std::string& text);
  void BindNext(Blob blob);
  void Check(int code);

  Database& database_;
  sqlite3_stmt* statement_;
  int next_parameter_ = 1;
  absl::Status status_;
};

}  // namespace shardmax
