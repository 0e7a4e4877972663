// What the services work with.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "server/calls.h"
#include "server/controller.h"
#include "server/gate.h"
#include "server/job_feed.h"
#include "server/loop.h"
#include "server/submit_check.h"
#include "worker/base/status.h"

namespace shardmax {

struct ServiceParts {
  Gate& gate;
  Loop& loop;
  BlockingPool& blocking;
  Controller& controller;  // On the loop's thread only.
  JobFeed& feed;           // On the loop's thread only.
  const SubmitCheck& submit_check;
};

// Answers the call when what the loop's batch changed is on the disk; on the loop's thread.
template <typename Response>
void AnswerAfterCommit(Controller& controller, UnaryCall* call, absl::StatusOr<Response> response) {
  controller.AfterCommit([call, response = std::move(response)](const absl::Status& committed) {
    if (!response.ok()) return call->Fail(response.status());
    if (!committed.ok()) return call->Fail(committed);
    call->Reply(*response);
  });
}

// Admits and parses. False: the call has been failed.
template <typename Request>
bool Accept(Gate& gate, const grpc::CallbackServerContext& context, Need need, const grpc::ByteBuffer& bytes,
            UnaryCall* call, Request* request, Caller* caller) {
  auto admitted = gate.Admit(context, need);
  const absl::Status status = admitted.ok() ? gate.Parse(bytes, request) : admitted.status();
  if (!status.ok()) {
    call->Fail(status);
    return false;
  }
  *caller = *std::move(admitted);
  return true;
}

// A stream of answers: admits, parses, and takes a ticket. A stream that is refused is closed with the reason, and
// `accepted` is false.
template <typename Request>
std::shared_ptr<StreamCall> AcceptStream(Gate& gate, const grpc::CallbackServerContext& context,
                                         const std::string& method, const grpc::ByteBuffer& bytes, Request* request,
                                         bool* accepted) {
  auto call = StreamCall::Make(gate.metrics(), method);
  const auto open = [&]() -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const Caller caller, gate.Admit(context, Need::kView));
    SHARDMAX_RETURN_IF_ERROR(gate.Parse(bytes, request));
    auto ticket =
        gate.OpenStream(context, caller, Need::kView, [weak = std::weak_ptr(call)](const absl::Status& status) {
          if (const auto alive = weak.lock()) alive->End(status);
        });
    SHARDMAX_RETURN_IF_ERROR(ticket.status());
    call->Hold(*std::move(ticket));
    return absl::OkStatus();
  };
  const absl::Status status = open();
  *accepted = status.ok();
  if (!status.ok()) call->End(status);
  return call;
}

}  // namespace shardmax
