#include "server/database.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

absl::StatusCode CodeOf(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_CONSTRAINT:
      return absl::StatusCode::kAlreadyExists;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return absl::StatusCode::kPermissionDenied;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

// SQLite makes files readable for all that the umask allows; this one tells who submitted what.
absl::Status MakePrivate(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return ErrnoError(errno, path);
  close(file);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Database> Database::Open(const std::string& path) {
  SHARDMAX_RETURN_IF_ERROR(MakePrivate(path));
  sqlite3* connection = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &connection, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(path, connection);
  if (code != SQLITE_OK) return database.LastError("cannot open the database");
  sqlite3_busy_timeout(connection, 5000);  // A person may be looking with the sqlite3 command.
  SHARDMAX_RETURN_IF_ERROR(database.Execute("PRAGMA journal_mode = WAL"));
  SHARDMAX_RETURN_IF_ERROR(database.Execute("PRAGMA synchronous = FULL"));
  SHARDMAX_RETURN_IF_ERROR(database.Execute("PRAGMA foreign_keys = ON"));
  return database;
}

absl::Status Database::Execute(const std::string& sql) {
  const int code = sqlite3_exec(connection_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : LastError(sql);
}

absl::Status Database::LastError(const std::string& what) const {
  const char* message = connection_ ? sqlite3_errmsg(connection_.get()) : "out of memory";
  const int code = connection_ ? sqlite3_errcode(connection_.get()) : SQLITE_NOMEM;
  return Error(CodeOf(code), "{}: {}: {}", path_, what, message);
}

sqlite3_stmt* Database::Prepared(const char* sql) {
  const auto known = statements_.find(std::string_view(sql));
  if (known != statements_.end()) return known->second.get();
  sqlite3_stmt* statement = nullptr;
  sqlite3_prepare_v3(connection_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (statement != nullptr) statements_.emplace(sql, statement);
  return statement;
}

Query::Query(Database& database, const char* sql) : database_(database), statement_(database.Prepared(sql)) {
  if (statement_ == nullptr) status_ = database_.LastError(sql);
}

Query::~Query() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

void Query::Check(int code) {
  if (code != SQLITE_OK && status_.ok()) status_ = database_.LastError("binding a parameter");
}

void Query::BindNext(int64_t value) {
  if (statement_ != nullptr) Check(sqlite3_bind_int64(statement_, next_parameter_++, value));
}

// The caller's strings outlive the query's run in all uses here, but not its reset: so they are copied.
void Query::BindNext(const std::string& text) {
  if (statement_ == nullptr) return;
  const int bytes = static_cast<int>(text.size());
  Check(sqlite3_bind_text(statement_, next_parameter_++, text.data(), bytes, SQLITE_TRANSIENT));
}

void Query::BindNext(Blob blob) {
  if (statement_ == nullptr) return;
  const int bytes = static_cast<int>(blob.bytes.size());
  Check(sqlite3_bind_blob(statement_, next_parameter_++, blob.bytes.data(), bytes, SQLITE_TRANSIENT));
}

bool Query::Next() {
  if (!status_.ok()) return false;
  const int code = sqlite3_step(statement_);
  if (code != SQLITE_ROW && code != SQLITE_DONE) status_ = database_.LastError(sqlite3_sql(statement_));
  return code == SQLITE_ROW;
}

absl::Status Query::Run() {
  while (Next()) {
  }
  return status_;
}

std::string Query::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), static_cast<size_t>(size));
}

}  // namespace shardmax
